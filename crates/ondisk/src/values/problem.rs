//! What a validator finds wrong with a key.

use std::borrow::Cow;
use std::fmt;

use crate::error::DecodeError;
use crate::fsck_errors::FsckErrorId;
use crate::version::Version;

/// A key that can be decoded and yet must not exist: the stable error id and one line that says what is wrong with
/// this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The error's stable id.
    pub id: FsckErrorId,
    /// The offending values.
    pub detail: Cow<'static, str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.detail)
    }
}

/// Result of a validator: the first problem found, if any.
pub type Check = std::result::Result<(), Problem>;

impl Problem {
    /// A problem with its detail.
    pub fn new(id: FsckErrorId, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { id, detail: detail.into() }
    }

    /// A value that cannot even be decoded, reported as `id`.
    pub(super) fn undecodable(id: FsckErrorId) -> impl FnOnce(DecodeError) -> Problem {
        move |e| Problem::new(id, e.to_string())
    }
}

/// `Ok` if `sound`, else the problem; the detail is only built when needed.
pub(super) fn ensure<D: Into<Cow<'static, str>>>(
    sound: bool,
    id: FsckErrorId,
    detail: impl FnOnce() -> D,
) -> Check {
    if sound { Ok(()) } else { Err(Problem::new(id, detail())) }
}

/// What a validator must know about the filesystem a key belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Version of the superblock.
    pub version: Version,
    /// The key is about to be written; old keys get away with more.
    pub writing: bool,
    /// Largest payload of a checksummed or compressed extent, in sectors (option `encoded_extent_max`).
    pub encoded_extent_max_sectors: u32,
    /// The filesystem is encrypted, so encrypted extents can be read.
    pub encrypted: bool,
}

impl Rules {
    /// The defaults of a 1.13 volume (spec 10 §5).
    pub const DEFAULT_1_13: Rules = Rules {
        version: Version::INODE_HAS_CHILD_SNAPSHOTS,
        writing: false,
        encoded_extent_max_sectors: 128,
        encrypted: false,
    };
}
