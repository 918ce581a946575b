//! Why a superblock was not written.

use std::sync::Arc;

use frazil_journal::engine::HostError;
use frazil_ondisk::DecodeError;
use frazil_ondisk::superblock::assembly::Insufficient;
use frazil_ondisk::units::SbSeq;

/// Why a change of the superblock did not reach the devices. Each message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuperblockWriteError {
    /// The change would break a rule. Nothing was written, and nothing changed.
    #[error("the superblock cannot be changed like that: {0}")]
    Invalid(#[from] DecodeError),
    /// A write that the device said it had done is not there.
    #[error("{device} loses what is written to it: its superblock is number {found}, {written} was written")]
    WriteLost {
        /// The device.
        device: Arc<str>,
        /// Number of the superblock that is there.
        found: SbSeq,
        /// Number of the one that should be.
        written: SbSeq,
    },
    /// Somebody else writes to the same device.
    #[error(
        "{device} was changed by another program (its superblock is number {found}, {written} was written)"
    )]
    Foreign {
        /// The device.
        device: Arc<str>,
        /// Number of the superblock that is there.
        found: SbSeq,
        /// Number of the last one written here.
        written: SbSeq,
    },
    /// The superblock was good when it was written last, and is none any more.
    #[error("{device} was changed by another program: {why}")]
    Overwritten {
        /// The device.
        device: Arc<str>,
        /// What is wrong with what is there now.
        why: DecodeError,
    },
    /// With the devices that could be written the volume could not be opened again.
    #[error("the superblock could not be written to enough devices: {last}")]
    TooFew {
        /// What would be missing; `None` if it was written nowhere.
        missing: Option<Box<Insufficient>>,
        /// What the last device said.
        last: frazil_device::Error,
    },
}

impl SuperblockWriteError {
    /// Whether nothing may be written to the volume any more (spec 60 §7.1).
    pub fn is_fatal(&self) -> bool {
        !matches!(self, SuperblockWriteError::Invalid(_))
    }
}

impl From<SuperblockWriteError> for HostError {
    fn from(error: SuperblockWriteError) -> HostError {
        HostError(error.to_string())
    }
}
