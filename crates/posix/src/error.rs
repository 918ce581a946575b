//! Why an operation failed, in the terms of POSIX but without errno, which only the FUSE adapter knows.

use frazil_btree::write::CommitError;

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
    /// The mount, or the subvolume, does not allow changes.
    #[error("the filesystem is read-only")]
    ReadOnly,
    /// The name, or the attribute, exists already.
    #[error("it exists already")]
    Exists,
    /// The directory, or the subvolume, is not empty.
    #[error("directory not empty")]
    NotEmpty,
    /// The caller is not allowed to do this to that object (`EPERM`).
    #[error("operation not permitted: {0}")]
    NotPermitted(&'static str),
    /// The caller may not do this (`EACCES`).
    #[error("permission denied")]
    AccessDenied,
    /// The operation would cross the border between two subvolumes, or between different options (`EXDEV`).
    #[error("not within one subvolume, or the options of the directories differ")]
    CrossesBorder,
    /// Too many links, or too many directories in one.
    #[error("too many links")]
    TooManyLinks,
    /// There is no room: on the devices, or in a range of numbers.
    #[error("no space left")]
    NoSpace,
    /// The user, the group or the project would exceed its quota (`EDQUOT`).
    #[error("quota exceeded")]
    OverQuota,
    /// Something is too large for the format (`ERANGE`).
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// What was asked for is not supported here (`EOPNOTSUPP`).
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The object cannot be replaced or removed this way (`EBUSY`).
    #[error("in use: {0}")]
    Busy(&'static str),
    /// The volume is damaged here, or a device failed.
    #[error("{0}")]
    Io(String),
}

impl From<frazil_btree::Error> for Error {
    fn from(error: frazil_btree::Error) -> Error {
        Error::Io(error.to_string())
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Error {
        match error {
            CommitError::NoSpace => Error::NoSpace,
            CommitError::ReadOnly => Error::ReadOnly,
            other => Error::Io(other.to_string()),
        }
    }
}
