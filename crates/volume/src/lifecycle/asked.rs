//! What is asked of a lifecycle, and what comes of it.

use std::time::Duration;

/// Names a holder of a freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId(pub u64);

/// How somebody wants to freeze.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct FreezeRequest {
    /// Who it is, for the report.
    pub who: String,
    /// Whether others may hold the freeze already, or be about to; else it is refused then.
    pub share: bool,
    /// How long it holds at most, from when it is frozen.
    pub hold_for: Option<Duration>,
    /// How long to wait for it to be frozen.
    pub give_up_after: Option<Duration>,
}

/// How to stop at once (the values of the ioctl of XFS, spec 70 §5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShutdownMode {
    /// Everything written before is durable.
    Default,
    /// What was committed is durable.
    LogFlush,
    /// As a power cut.
    NoLogFlush,
}

/// What to do when what is stored turns out to be wrong (option `errors`; spec 70 §5.4). That nothing can be written any more is no such error: that
/// always ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnError {
    /// Who wanted what is wrong gets an error, and everything goes on.
    Continue,
    /// Nothing is written any more.
    ReadOnly,
    /// As [`OnError::ReadOnly`], and the process ends; also when nothing can be written any more.
    Panic,
}

impl OnError {
    /// What the superblock says (spec 10 §7.2). To repair without being asked is to be read-only here, because nothing is repaired while it is mounted.
    pub fn of_superblock(error_action: u8) -> OnError {
        match error_action {
            0 => OnError::Continue,
            2 => OnError::Panic,
            _ => OnError::ReadOnly,
        }
    }

    /// As the option is spelled.
    pub fn name(self) -> &'static str {
        match self {
            OnError::Continue => "continue",
            OnError::ReadOnly => "ro",
            OnError::Panic => "panic",
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Done,
    Frozen(HolderId),
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LifecycleError {
    /// Something else is the case (`EBUSY`).
    #[error("{0}")]
    Busy(&'static str),
    /// It took too long, and was undone (`ETIMEDOUT`).
    #[error("it did not come to rest in time: {0}")]
    TimedOut(String),
    /// It could not be done (`EIO`).
    #[error("{0}")]
    Failed(String),
    /// Nothing is written any more (`EIO`).
    #[error("the volume is read-only after an error: {0}")]
    Dead(String),
    /// There is nothing to thaw (`EINVAL`).
    #[error("it is not frozen, or not by this holder")]
    NotFrozen,
    /// The holder was taken away before: its time was up, its owner was gone, or somebody thawed by force (`ETIMEDOUT`).
    #[error("the freeze ended before it was thawed: what was copied meanwhile may be torn")]
    Lapsed,
    /// Whoever asked is gone, or somebody thawed while it was being frozen (`EINTR`).
    #[error("the freeze was called off")]
    Withdrawn,
    /// It was opened only to be read (`EROFS`).
    #[error("it was mounted read-only; to change it, mount it again with -o rw")]
    ReadOnly,
    /// It is not in use any more (`ENODEV`).
    #[error("it is unmounted")]
    Unmounted,
}
