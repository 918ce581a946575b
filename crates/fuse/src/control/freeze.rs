//! Freezing, thawing and stopping a mounted volume by command (spec 70 §7.1 R7–R10, §10.6).
//!
//! A freeze is held: by a connection, with which the hold ends however that ends, or by nobody in particular, until somebody thaws
//! or its time is up. A hold has a token, which whoever thaws must name, so that one backup does not end the freeze of another. It is the
//! number of the hold with one of the mount, so that a token of an earlier mount is none of this one.
//!
//! Freezing may take a while, and whoever asked for it may die meanwhile. That is watched for, and calls it off.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use frazil_volume::lifecycle::{self, FreezeRequest, HolderId, Lifecycle, LifecycleError};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno as Code;

use super::protocol::{Failure, HoldReport, ShutdownMode};
use crate::filesystem::Filesystem;
use crate::session::Session;

/// Most holds remembered that are bound to no connection.
const UNBOUND_MAX: usize = 64;

/// The holds that were made through the control channel of a mount.
pub(crate) struct Holds {
    /// Tells tokens of this mount from those of others.
    mark: u32,
    /// Those that are bound to no connection, and were not thawed, by number: for whom they are.
    unbound: Mutex<HashMap<u64, String>>,
}

/// What a connection holds. Gives it back when dropped.
#[derive(Default)]
pub(crate) struct Bound(Vec<(Arc<Lifecycle>, HolderId)>);

impl Drop for Bound {
    fn drop(&mut self) {
        for (lifecycle, holder) in self.0.drain(..) {
            lifecycle.lapse(holder);
        }
    }
}

impl Bound {
    /// Nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How somebody wants to freeze.
pub(crate) struct Wish {
    /// For whom.
    pub(crate) who: String,
    /// Whether the hold ends with the connection.
    pub(crate) bound: bool,
    pub(crate) share: bool,
    pub(crate) hold_for: Option<Duration>,
    pub(crate) give_up_after: Option<Duration>,
}

impl Default for Holds {
    fn default() -> Holds {
        // As good as random, and drawn without a generator.
        let mark = RandomState::new().hash_one(std::process::id()) as u32;
        Holds { mark, unbound: Mutex::default() }
    }
}

impl Holds {
    /// Freezes, and says by which token it is thawed. If the client hangs up meanwhile, it is called off.
    pub(crate) fn freeze(
        &self,
        lifecycle: &Arc<Lifecycle>,
        wish: Wish,
        bound: &mut Bound,
        client: &UnixStream,
    ) -> Result<HoldReport, Failure> {
        let Wish { who, bound: binds, share, hold_for, give_up_after } = wish;
        let holder = lifecycle.new_holder();
        let request = FreezeRequest { who: who.clone(), share, hold_for, give_up_after };
        let frozen =
            while_connected(client, || lifecycle.lapse(holder), || lifecycle.freeze_as(holder, request))?;
        frozen.map_err(failure)?;
        if binds {
            bound.0.push((Arc::clone(lifecycle), holder));
        } else {
            self.remember(lifecycle, holder, who);
        }
        Ok(HoldReport { token: self.token(holder) })
    }

    fn remember(&self, lifecycle: &Lifecycle, holder: HolderId, who: String) {
        let mut unbound = self.unbound.lock();
        if unbound.len() >= UNBOUND_MAX {
            // Those that lapsed and nobody asked about.
            let held = held(lifecycle);
            unbound.retain(|id, _| held.contains(id));
        }
        unbound.insert(holder.0, who);
    }

    /// Ends a hold: the one that is named, or the only one that is bound to no connection.
    pub(crate) fn thaw(
        &self,
        lifecycle: &Lifecycle,
        token: Option<&str>,
        bound: &mut Bound,
    ) -> Result<(), Failure> {
        let holder = match token {
            Some(token) => self.holder(token)?,
            None => self.only_one(lifecycle)?,
        };
        let thawed = lifecycle.thaw(holder);
        if !matches!(thawed, Err(LifecycleError::Failed(_))) {
            self.unbound.lock().remove(&holder.0);
            bound.0.retain(|(_, held)| *held != holder);
        }
        thawed.map_err(failure)
    }

    /// The hold that is meant if none is named. If all have lapsed, one of those, so that whoever made it is told.
    fn only_one(&self, lifecycle: &Lifecycle) -> Result<HolderId, Failure> {
        let held = held(lifecycle);
        let unbound = self.unbound.lock();
        let mut known = unbound.keys().copied().filter(|id| held.contains(id));
        match (known.next(), known.next()) {
            (Some(id), None) => Ok(HolderId(id)),
            (Some(_), Some(_)) => Err(Failure::new(
                Code::BUSY,
                "several hold it frozen; name one by its token, or thaw all by force",
            )),
            (None, _) => match unbound.keys().max() {
                _ if !held.is_empty() => Err(Failure::new(
                    Code::BUSY,
                    "it is held frozen by commands that run; they thaw it when they end, or thaw all by force",
                )),
                Some(&lapsed) => Ok(HolderId(lapsed)),
                None => Err(failure(LifecycleError::NotFrozen)),
            },
        }
    }

    /// By which a hold is named.
    pub(crate) fn token(&self, holder: HolderId) -> String {
        format!("{}-{:08x}", holder.0, self.mark)
    }

    fn holder(&self, token: &str) -> Result<HolderId, Failure> {
        let none = || Failure::new(Code::INVAL, format_args!("'{token}' is no token of this mount"));
        let (id, mark) = token.split_once('-').ok_or_else(none)?;
        let same = u32::from_str_radix(mark, 16) == Ok(self.mark);
        id.parse().ok().filter(|_| same).map(HolderId).ok_or_else(none)
    }
}

/// The numbers of all who hold it.
fn held(lifecycle: &Lifecycle) -> Vec<u64> {
    lifecycle.status().holders.iter().map(|holder| holder.id.0).collect()
}

/// Ends all holds.
pub(crate) fn thaw_all(lifecycle: &Lifecycle) -> Result<(), Failure> {
    lifecycle.thaw_all().map_err(failure)
}

/// Stops the volume.
pub(crate) fn shutdown(lifecycle: &Lifecycle, mode: ShutdownMode) -> Result<(), Failure> {
    let mode = match mode {
        ShutdownMode::Default => lifecycle::ShutdownMode::Default,
        ShutdownMode::LogFlush => lifecycle::ShutdownMode::LogFlush,
        ShutdownMode::NoLogFlush => lifecycle::ShutdownMode::NoLogFlush,
    };
    lifecycle.shutdown(mode).map_err(failure)
}

/// Makes the volume what its mount is.
pub(crate) fn follow_mount<F: Filesystem>(session: &Session<F>) -> Result<(), Failure> {
    session.follow_mount().map_err(failure)
}

/// The error number of each reason, as commands and controls report it.
pub(crate) fn errno(error: &LifecycleError) -> Code {
    match error {
        LifecycleError::Busy(_) => Code::BUSY,
        LifecycleError::TimedOut(_) | LifecycleError::Lapsed => Code::TIMEDOUT,
        LifecycleError::Failed(_) | LifecycleError::Dead(_) => Code::IO,
        LifecycleError::NotFrozen => Code::INVAL,
        LifecycleError::Withdrawn => Code::INTR,
        LifecycleError::ReadOnly => Code::ROFS,
        LifecycleError::Unmounted => Code::NODEV,
    }
}

fn failure(error: LifecycleError) -> Failure {
    Failure::new(errno(&error), error)
}

/// Does something that may wait; if the client hangs up meanwhile, `hung_up` is called, which should end it.
fn while_connected<R: Send>(
    client: &UnixStream,
    hung_up: impl FnOnce() + Send,
    work: impl FnOnce() -> R,
) -> Result<R, Failure> {
    let failed = |error: Code| Failure::new(error, "cannot watch the connection");
    let done = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?;
    thread::scope(|scope| {
        let watching = thread::Builder::new().name("frazil-hangup".into()).spawn_scoped(scope, || {
            let mut events = [PollFd::new(client, PollFlags::RDHUP), PollFd::new(&done, PollFlags::IN)];
            // Fails only for want of memory; then a client that dies is noticed later.
            let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut events, None));
            if polled.is_ok() && !events[0].revents().is_empty() {
                hung_up();
            }
        });
        watching.map_err(|error| Failure::new(Code::AGAIN, format_args!("no thread: {error}")))?;
        let result = work();
        // Cannot fail: it was zero.
        let _ = rustix::io::write(&done, &1u64.to_ne_bytes());
        Ok(result)
    })
}
