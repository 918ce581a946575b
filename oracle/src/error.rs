//! Why the oracle could not be asked. What the driver thinks of an image is never an error but a
//! [`Verdict`](crate::Verdict).

use std::io;
use std::path::{Path, PathBuf};

use frazil_ondisk::DecodeError;

/// The oracle could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// A program that is needed is not installed.
    #[error("'{tool}' is missing: install it (Debian, Ubuntu: apt-get install {package})")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package it is in.
        package: &'static str,
    },
    /// A program that was called failed.
    #[error("{command} failed: {why}")]
    Tool {
        /// What was run.
        command: String,
        /// Its exit status or its last words.
        why: String,
    },
    /// No kernel package could be found.
    #[error(
        "no package of a Debian kernel 6.12 with the bcachefs module is known to apt (after 'apt-get update' there should be \
         linux-image-6.12…-amd64-unsigned): fetch the .deb from a Debian mirror and set FRAZIL_ORACLE_KERNEL to its path"
    )]
    NoKernel,
    /// A file or directory could not be used.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The superblock of an image that is to be unlocked cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Superblock {
        /// The image.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
    /// More devices than one machine takes.
    #[error("{name}: {devices} devices are more than one machine takes ({max})")]
    TooManyDevices {
        /// The job.
        name: String,
        /// How many it has.
        devices: usize,
        /// The limit.
        max: usize,
    },
    /// The machine did not come as far as the first job.
    #[error("the machine did not start: {why}\n{console}")]
    Boot {
        /// What happened instead.
        why: String,
        /// The last lines of its console, and what the emulator said.
        console: String,
    },
    /// What the guest left behind cannot be understood.
    #[error("the guest's {what} cannot be read: {why}")]
    Guest {
        /// Which of its files.
        what: String,
        /// Why.
        why: String,
    },
}

impl OracleError {
    /// An I/O error with the path it is about.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> OracleError {
        let path = path.as_ref().to_path_buf();
        move |source| OracleError::Io { path, source }
    }
}
