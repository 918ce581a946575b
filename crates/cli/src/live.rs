//! From a path on the command line to the process that serves the mount there.

use std::path::Path;
use std::time::Duration;

use frazil_device::mounts::Mount;
use frazil_fuse::control::{CallError, Client, Request, locate, write_back};
use serde::de::DeserializeOwned;

use crate::format::Span;
use crate::say;
use crate::stop::Stop;

/// How long what is dirty in the kernel may take to arrive.
pub(crate) const WRITE_BACK_MAX: Duration = Duration::from_secs(60);

/// A mount, and a connection to the process that serves it.
pub(crate) struct Live {
    pub(crate) mount: Mount,
    client: Client,
}

impl Live {
    /// Of the mount at this directory, which is not touched.
    pub(crate) fn at(dir: &Path) -> Result<Live, Stop> {
        Live::of(locate(dir).map_err(Stop::failed)?)
    }

    /// Of this mount.
    pub(crate) fn of(mount: Mount) -> Result<Live, Stop> {
        let client = Client::connect(&mount).map_err(Stop::failed)?;
        Ok(Live { mount, client })
    }

    /// Asks about the mount as a whole.
    pub(crate) fn ask<D: DeserializeOwned>(&mut self, request: &Request) -> Result<D, Stop> {
        self.client.ask(request).map_err(|error| self.explain(&self.mount.mount_point, &error))
    }

    /// Asks, and leaves it to the caller to explain a failure.
    pub(crate) fn call<D: DeserializeOwned>(&mut self, request: &Request) -> Result<D, CallError> {
        self.client.ask(request)
    }

    /// Asks about something at a path.
    pub(crate) fn ask_about<D: DeserializeOwned>(
        &mut self,
        path: &Path,
        request: &Request,
    ) -> Result<D, Stop> {
        self.client.ask(request).map_err(|error| self.explain(path, &error))
    }

    /// Asks for something that comes in parts.
    pub(crate) fn ask_in_parts<P: DeserializeOwned>(
        &mut self,
        request: &Request,
        take: impl FnMut(P),
    ) -> Result<(), Stop> {
        let done = self.client.ask_in_parts(request, take);
        done.map_err(|error| self.explain(&self.mount.mount_point, &error))
    }

    fn explain(&self, path: &Path, error: &CallError) -> Stop {
        match error {
            CallError::Failed(failure) => Stop::Failed(format!("{}: {}", path.display(), failure.why)),
            other => Stop::failed(other),
        }
    }

    /// Has the kernel write what was changed in mapped memory, and waits until it has arrived; a warning if that takes too long.
    pub(crate) fn write_back(&mut self, wait_max: Duration) -> Result<(), Stop> {
        let dir = &self.mount.mount_point;
        match write_back(&mut self.client, dir, wait_max) {
            Ok(true) => {}
            Ok(false) => say::warning(format_args!(
                "what programs stored to mapped files may be missing: after {} it was still on its way",
                Span(u64::try_from(wait_max.as_nanos()).unwrap_or(u64::MAX))
            )),
            Err(error) => return Err(self.explain(&self.mount.mount_point, &error)),
        }
        Ok(())
    }
}
