//! Why bytes of a file cannot be had.
//!
//! An [`Error`] is about one stretch of one file and names it by inode and byte offset, which is all this layer knows; whoever
//! knows the file's name puts it in front. It carries what happened to every copy, so that one log line tells the whole
//! story: which devices, which sectors, what was wrong with each.

use std::fmt;
use std::sync::Arc;

use frazil_ondisk::DecodeError;
use frazil_ondisk::units::{DevIndex, Inum, Sectors};

/// What was wrong with one copy of some data.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CopyProblem {
    /// The member is not present.
    #[error("the device is missing")]
    DeviceMissing,
    /// The member was removed from the filesystem, and this copy with it (spec 80 §5.11).
    #[error("the device was removed")]
    DeviceRemoved,
    /// A cached copy whose bucket has been reused since (spec 50 §1.1).
    #[error("the bucket of this cached copy has been reused")]
    Stale,
    /// The data was moved away while it was being read, and its bucket emptied: who looks again finds where it is now.
    #[error("the data is no longer there")]
    Moved,
    /// The device failed.
    #[error(transparent)]
    Io(#[from] frazil_device::Error),
    /// The bytes are not what was written: checksum or compressed stream.
    #[error(transparent)]
    Corrupt(#[from] DecodeError),
    /// What would tell how to read this copy cannot be read itself.
    #[error("{0}")]
    Metadata(Arc<str>),
    /// It cannot be rebuilt from its erasure-code stripe either; in words.
    #[error("cannot be rebuilt from parity: {0}")]
    Parity(Arc<str>),
}

/// One copy that could not be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadCopy {
    /// The member.
    pub dev: DevIndex,
    /// What its users call it, if it is present.
    pub name: Option<Arc<str>>,
    /// First sector of the copy on it.
    pub sector: Sectors,
    /// What was wrong.
    pub problem: CopyProblem,
}

impl fmt::Display for BadCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}")?,
            None => write!(f, "device {}", self.dev)?,
        }
        write!(f, " sector {}: {}", self.sector, self.problem)
    }
}

/// Why a stretch of a file cannot be read. Everything before its first byte can.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The file.
    pub inum: Inum,
    /// First byte of the file that cannot be had.
    pub offset_bytes: u64,
    /// How many bytes from there on are lost for the same reason.
    pub len_bytes: u64,
    /// The reason.
    pub cause: Cause,
}

impl Error {
    /// Data was moved away meanwhile: a new plan finds it where it is now.
    pub fn is_moved(&self) -> bool {
        let moved = |copy: &BadCopy| copy.problem == CopyProblem::Moved;
        matches!(&self.cause, Cause::Unreadable(copies) if copies.iter().any(moved))
    }
}

/// The reason of an [`Error`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// No copy could be used, and the data could not be rebuilt from parity.
    Unreadable(Vec<BadCopy>),
    /// The filesystem itself says that the data was lost earlier; in words.
    Lost(Arc<str>),
    /// The key that should say where the data is breaks the format's rules.
    BadKey(DecodeError),
    /// Metadata needed on the way cannot be read; in words.
    Metadata(Arc<str>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unreadable(copies) if copies.is_empty() => f.write_str("there is no copy"),
            Cause::Unreadable(copies) => {
                for (i, copy) in copies.iter().enumerate() {
                    write!(f, "{}{copy}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Cause::Lost(reason) => write!(f, "the data was lost: {reason}"),
            Cause::BadKey(e) => write!(f, "bad extent: {e}"),
            Cause::Metadata(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error { inum, offset_bytes, len_bytes, cause } = self;
        write!(f, "inode {inum}: cannot read {len_bytes} bytes at {offset_bytes}: {cause}")
    }
}

impl std::error::Error for Error {}
