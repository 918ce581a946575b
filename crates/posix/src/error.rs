//! Why an operation failed, in the terms of POSIX but without errno, which only the FUSE adapter knows.

use crate::attr::NodeId;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The inode does not exist (any more).
    #[error("inode {0} does not exist")]
    Stale(NodeId),
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something else than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The operation makes no sense for this kind of file, or an argument is out of range.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The offset lies past the end (`SEEK_DATA`, `SEEK_HOLE`).
    #[error("offset is past the end of the file")]
    PastEnd,
    /// The name is longer than a name may be.
    #[error("name is too long")]
    NameTooLong,
    /// The mount does not allow changes.
    #[error("the filesystem is read-only")]
    ReadOnly,
    /// The volume is damaged here, or a device failed.
    #[error("{0}")]
    Io(String),
}

impl From<frazil_btree::Error> for Error {
    fn from(error: frazil_btree::Error) -> Error {
        Error::Io(error.to_string())
    }
}
