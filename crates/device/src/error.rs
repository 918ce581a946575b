//! What can go wrong below the filesystem.
//!
//! One enum for every device. A variant names the device, the operation, the byte range and the cause, so that the
//! message can stand alone: `cannot read 4096 bytes at 8192 of /dev/sdb1: Input/output error (os error 5)`. Errors are
//! cheap to clone because one failed write-out may have to be told to many waiters.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::Holder;

/// The result of a device operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What was being done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// Reading bytes.
    Read,
    /// Writing bytes, with or without waiting for stable storage.
    Write,
    /// Making all completed writes stable.
    Flush,
    /// Declaring a range unneeded.
    Discard,
    /// Setting a range to zero.
    Zero,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Flush => "flush",
            Op::Discard => "discard",
            Op::Zero => "zero",
        })
    }
}

/// The operating system's number for a failure (errno), with its text when displayed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// Input/output error (EIO): the medium failed.
    pub const IO: Errno = Errno(libc::EIO);
    /// No space left (ENOSPC): a thin device or the file system below is full.
    pub const NO_SPACE: Errno = Errno(libc::ENOSPC);

    /// The errno of a standard library error; `EIO` for one that carries none.
    pub(crate) fn of(err: &io::Error) -> Errno {
        Errno(err.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The kind the standard library sorts this errno under.
    pub fn kind(self) -> io::ErrorKind {
        io::Error::from_raw_os_error(self.0).kind()
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

/// A failure of a device or of opening one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device could not be opened.
    #[error("cannot open {device}: {errno}")]
    Open {
        /// The path that was to be opened.
        device: Arc<str>,
        /// Why.
        errno: Errno,
    },

    /// The path leads to something that has no blocks.
    #[error("{device} is {found}, not a block device or regular file")]
    NotADevice {
        /// The path that was to be opened.
        device: Arc<str>,
        /// What is there, with its article ("a directory").
        found: &'static str,
    },

    /// Somebody else has the device, and did not let go while the caller was willing to wait.
    #[error("{device} is {holder}")]
    InUse {
        /// The path that was to be opened.
        device: Arc<str>,
        /// All that could be learnt about who has it.
        holder: Box<Holder>,
    },

    /// The range does not lie within the device. Nothing was read or written.
    #[error("cannot {op} {len_bytes} bytes at {offset_bytes} of {device}: it ends at {size_bytes}")]
    OutOfRange {
        /// Name of the device.
        device: Arc<str>,
        /// What was being done.
        op: Op,
        /// Start of the range.
        offset_bytes: u64,
        /// Length of the range.
        len_bytes: u64,
        /// Size of the device.
        size_bytes: u64,
    },

    /// The device is shorter than it was when it was opened.
    #[error(
        "cannot read or write {len_bytes} bytes at {offset_bytes} of {device}: \
         it became shorter while in use, or is gone, and ends at {end_bytes}"
    )]
    Truncated {
        /// Name of the device.
        device: Arc<str>,
        /// Start of the range.
        offset_bytes: u64,
        /// Length of the range.
        len_bytes: u64,
        /// Where the data ends now.
        end_bytes: u64,
    },

    /// The device was opened read-only. Nothing was written.
    #[error("cannot {op} {len_bytes} bytes at {offset_bytes} of {device}: it is open read-only")]
    ReadOnly {
        /// Name of the device.
        device: Arc<str>,
        /// What was being done.
        op: Op,
        /// Start of the range.
        offset_bytes: u64,
        /// Length of the range.
        len_bytes: u64,
    },

    /// The device tried and failed. After a failed write the range may hold the old bytes, the new ones, or any mixture
    /// by sectors.
    #[error("cannot {op} {len_bytes} bytes at {offset_bytes} of {device}: {errno}")]
    Io {
        /// Name of the device.
        device: Arc<str>,
        /// What was being done.
        op: Op,
        /// Start of the range.
        offset_bytes: u64,
        /// Length of the range.
        len_bytes: u64,
        /// Why.
        errno: Errno,
    },

    /// Completed writes could not be made stable, now or in an earlier flush. The operating system does not tell which,
    /// and forgets them, so every later flush fails too until the device is opened again.
    #[error("cannot flush {device}: {errno}; completed writes may be lost")]
    LostWrites {
        /// Name of the device.
        device: Arc<str>,
        /// The cause of the first failure.
        errno: Errno,
    },
}

impl Error {
    /// Name of the device that failed.
    pub fn device(&self) -> &str {
        match self {
            Error::Open { device, .. }
            | Error::NotADevice { device, .. }
            | Error::InUse { device, .. }
            | Error::OutOfRange { device, .. }
            | Error::Truncated { device, .. }
            | Error::ReadOnly { device, .. }
            | Error::Io { device, .. }
            | Error::LostWrites { device, .. } => device,
        }
    }

    /// The errno that comes nearest, for callers that must speak to the operating system.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Open { errno, .. } | Error::Io { errno, .. } | Error::LostWrites { errno, .. } => *errno,
            Error::NotADevice { .. } => Errno(libc::ENOTBLK),
            Error::InUse { .. } => Errno(libc::EBUSY),
            Error::OutOfRange { .. } | Error::Truncated { .. } => Errno::IO,
            Error::ReadOnly { .. } => Errno(libc::EROFS),
        }
    }

    /// Whether the write failed only because the storage below has no room now. The same write may succeed after
    /// somebody adds space (spec 70 R12).
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Io { errno: Errno(libc::ENOSPC | libc::EDQUOT), .. })
    }
}
