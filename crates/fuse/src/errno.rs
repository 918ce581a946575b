//! The one place where errors become errno.

use std::fmt;

use frazil_posix::Error;
use rustix::io::Errno as Code;

/// An error number as the kernel takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(Code);

impl Errno {
    pub(crate) const DQUOT: Errno = Errno(Code::DQUOT);
    pub(crate) const FBIG: Errno = Errno(Code::FBIG);
    pub(crate) const INTR: Errno = Errno(Code::INTR);
    pub(crate) const INVAL: Errno = Errno(Code::INVAL);
    pub(crate) const IO: Errno = Errno(Code::IO);
    pub(crate) const NOSPC: Errno = Errno(Code::NOSPC);
    /// The kernel does not ask for this operation again.
    pub(crate) const NOSYS: Errno = Errno(Code::NOSYS);
    pub(crate) const NOTTY: Errno = Errno(Code::NOTTY);
    pub(crate) const OPNOTSUPP: Errno = Errno(Code::OPNOTSUPP);
    pub(crate) const RANGE: Errno = Errno(Code::RANGE);
    pub(crate) const ROFS: Errno = Errno(Code::ROFS);
    pub(crate) const STALE: Errno = Errno(Code::STALE);

    /// The number as programs know it.
    pub(crate) fn code(self) -> i32 {
        self.0.raw_os_error()
    }

    /// The number as replies carry it: negative.
    pub(crate) fn negative(self) -> i32 {
        -self.0.raw_os_error()
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Code> for Errno {
    fn from(code: Code) -> Errno {
        Errno(code)
    }
}

impl From<&Error> for Errno {
    fn from(error: &Error) -> Errno {
        Errno(match error {
            Error::NotFound => Code::NOENT,
            Error::Stale(_) => Code::STALE,
            Error::NotDirectory => Code::NOTDIR,
            Error::IsDirectory => Code::ISDIR,
            Error::Invalid(_) => Code::INVAL,
            Error::NoAttribute => Code::NODATA,
            Error::PastEnd => Code::NXIO,
            Error::NameTooLong => Code::NAMETOOLONG,
            Error::ReadOnly => Code::ROFS,
            Error::Exists => Code::EXIST,
            Error::NotEmpty => Code::NOTEMPTY,
            Error::NotPermitted(_) => Code::PERM,
            Error::AccessDenied => Code::ACCESS,
            Error::CrossesBorder => Code::XDEV,
            Error::TooManyLinks => Code::MLINK,
            Error::NoSpace => Code::NOSPC,
            Error::OverQuota => Code::DQUOT,
            Error::TooLarge(_) => Code::RANGE,
            Error::Unsupported(_) => Code::OPNOTSUPP,
            Error::Busy(_) => Code::BUSY,
            Error::Io(_) => Code::IO,
            // The enum may grow in another crate; what is not known here is a failure of the volume.
            _ => Code::IO,
        })
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        Errno::from(&error)
    }
}
