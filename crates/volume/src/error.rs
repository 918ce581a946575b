//! Why a volume cannot be opened, and what is noticed while opening one.

use std::fmt;
use std::io;
use std::sync::Arc;

use frazil_journal::read::{Problem, ReadError};
use frazil_ondisk::DecodeError;
use frazil_ondisk::crypto::UnlockError;
use frazil_ondisk::superblock::access::ReadOnlyReason;
use frazil_ondisk::superblock::assembly::{Insufficient, LeftOut, Stranger};
use frazil_ondisk::superblock::copies::NoSuperblock;
use frazil_ondisk::units::{DevIndex, Sectors};

use crate::build::BuildError;
use crate::write::superblock::SuperblockWriteError;

/// Why one copy of a superblock could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SuperblockError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] frazil_device::Error),
    /// The bytes are not a superblock.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Why a volume cannot be opened. Each message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No device was given, or none is left.
    #[error("no device of the volume is usable")]
    NoDevices,
    /// A device without a usable superblock.
    #[error("{device} is not a bcachefs device: {source}")]
    NoSuperblock {
        /// The device.
        device: Arc<str>,
        /// What was found at each place.
        source: Box<NoSuperblock<SuperblockError>>,
    },
    /// The superblock breaks a rule, or needs something this version does not have.
    #[error("{device} cannot be opened: {source}")]
    Refused {
        /// The device.
        device: Arc<str>,
        /// The rule.
        source: DecodeError,
    },
    /// The device cannot be read in units as small as the volume's blocks.
    #[error(
        "{device} has sectors of {device_block_bytes} bytes, too large for the volume's blocks of {block_bytes}"
    )]
    BlockSize {
        /// The device.
        device: Arc<str>,
        /// Bytes in a block of the volume.
        block_bytes: u64,
        /// Bytes in a sector of the device.
        device_block_bytes: u32,
    },
    /// The device is shorter than its superblock says: it was cut, or the image was not copied whole.
    #[error("{device} is too small: its buckets need {needed} sectors, it has {found}; was it copied whole?")]
    TooSmall {
        /// The device.
        device: Arc<str>,
        /// Sectors its buckets cover.
        needed: Sectors,
        /// Sectors it has.
        found: Sectors,
    },
    /// Devices of different volumes were given together.
    #[error("{device} does not belong to the volume of {newest}: {why}")]
    Stranger {
        /// The device.
        device: Arc<str>,
        /// The device with the newest superblock.
        newest: Arc<str>,
        /// How it is known.
        why: Stranger,
    },
    /// None of the devices given is in use by the volume.
    #[error("{device} cannot be read: {why}")]
    LeftOut {
        /// The device; the first if there are several.
        device: Arc<str>,
        /// Why it is not in use.
        why: LeftOut,
    },
    /// Too few devices.
    #[error("{0}")]
    Insufficient(Insufficient),
    /// The key of an encrypted volume is not to be had.
    #[error("cannot unlock {name}: {source}")]
    Unlock {
        /// Label or UUID of the volume.
        name: String,
        /// Why.
        source: UnlockError,
    },
    /// No passphrase could be read.
    #[error("cannot read the passphrase of {name}: {source}")]
    Passphrase {
        /// Label or UUID of the volume.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Encrypted, but the section with the key is missing.
    #[error("the volume is encrypted but its superblock has no section \"crypt\": the key is lost")]
    NoCryptSection,
    /// Marked clean, but what a clean shutdown leaves is missing.
    #[error("the superblock is marked clean but has no section \"clean\": the volume needs repair")]
    NoCleanSection,
    /// The journal cannot be used.
    #[error("the volume was not shut down cleanly, and {0}")]
    Journal(#[from] ReadError),
    /// It can be read, but not written.
    #[error("the volume can only be read: {0}")]
    ReadOnly(ReadOnlyReason),
    /// Opened for writing, but the device was opened, or is, read-only.
    #[error("{device} cannot be written: open it for writing, or the volume for reading")]
    ReadOnlyDevice {
        /// The device.
        device: Arc<str>,
    },
    /// Something must be put right first, which opening does not do.
    #[error("the volume must be checked before it can be written ({0}); it can be read")]
    NeedsCheck(String),
    /// The superblock could not be written.
    #[error("{0}")]
    Superblock(#[from] SuperblockWriteError),
    /// It was formatted but never started, and cannot be started.
    #[error("the volume cannot be started for the first time: {0}")]
    FirstStart(#[from] BuildError),
    /// A device failed while the volume was recovered.
    #[error("cannot recover the volume: {0}")]
    Device(#[from] frazil_device::Error),
    /// With a device missing it must be known where data lies, and that cannot be read.
    #[error("cannot find out what is on the missing devices: {0}")]
    Accounting(#[from] frazil_btree::Error),
}

/// Something the user should know about a volume that was opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Notice {
    /// It cannot be written.
    ReadOnly(ReadOnlyReason),
    /// A device given is not used.
    LeftOut {
        /// The device.
        device: Arc<str>,
        /// Why.
        why: LeftOut,
    },
    /// A device has missed writes; its old pointers are known to be stale.
    Stale {
        /// The device.
        device: Arc<str>,
    },
    /// A member is not there.
    MissingDevice(DevIndex),
    /// Something about the journal.
    Journal(Problem),
    /// A part of the b-tree of snapshots cannot be read: what only those snapshots see is invisible.
    Snapshots(Arc<frazil_btree::Error>),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::ReadOnly(reason) => write!(f, "the volume can only be read: {reason}"),
            Notice::LeftOut { device, why } => write!(f, "{device} is not used: {why}"),
            Notice::Stale { device } => write!(f, "{device} has missed the latest changes"),
            Notice::MissingDevice(dev) => write!(f, "device {dev} is missing"),
            Notice::Journal(problem) => problem.fmt(f),
            Notice::Snapshots(why) => write!(f, "snapshots may be missing: {why}"),
        }
    }
}
