//! Why a volume cannot be made.

use std::sync::Arc;

use frazil_ondisk::DecodeError;

/// Why a volume cannot be made. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A device failed.
    #[error(transparent)]
    Device(#[from] frazil_device::Error),
    /// An option, or a combination of options, that cannot be.
    #[error("{0}")]
    Options(String),
    /// A device holds something already.
    #[error("{device} holds {what}; to overwrite it: --force")]
    InUse {
        /// The device.
        device: Arc<str>,
        /// What was found there.
        what: &'static str,
    },
    /// What is to be stored does not fit.
    #[error("no space left: {what} does not fit on {devices}; take a larger size or another device")]
    NoSpace {
        /// What could not be placed.
        what: &'static str,
        /// The devices.
        devices: String,
    },
    /// A b-tree would need more levels than there can be.
    #[error("the b-tree {0} would be too deep; take larger nodes with --btree-node-size")]
    TooDeep(frazil_ondisk::BtreeId),
    /// A key that was given cannot be decoded, or the superblock breaks a rule.
    #[error(transparent)]
    Format(#[from] DecodeError),
    /// The system has no random numbers to give.
    #[error("there is no source of random numbers: {0}")]
    Random(String),
}

/// The result of building.
pub type Result<T> = std::result::Result<T, BuildError>;
