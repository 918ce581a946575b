//! What `quota` shows and sets. All sizes are in bytes; on disk they are in sectors (spec 40 §14.2).

use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::quota::Limit;
use frazil_posix::write::{Front, QuotaKind, QuotaReport, QuotaUse, WriteFs};
use rustix::io::Errno as Code;
use serde::{Deserialize, Serialize};

use super::protocol::Failure;

/// Whose quota it is.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum QuotaOwner {
    /// A user's.
    User,
    /// A group's.
    Group,
    /// A project's.
    Project,
}

/// Limits of a resource: bytes, or inodes. 0 is none.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaLimit {
    /// May never be exceeded.
    pub hard: u64,
    /// May be exceeded for a while.
    pub soft: u64,
}

/// How much of a resource an owner uses, and its limits.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotaUsed {
    /// Bytes, or inodes.
    pub used: u64,
    /// The limits.
    #[serde(flatten)]
    pub limit: QuotaLimit,
    /// Since when more than the soft limit is in use, in nanoseconds since 1970.
    pub over_since_ns: Option<i64>,
}

/// An owner, what it uses, and what it may.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnerReport {
    /// Kind of the owner.
    pub kind: QuotaOwner,
    /// Number of the user, group or project.
    pub id: u32,
    /// Bytes.
    pub space: QuotaUsed,
    /// Files, directories and whatever else has an inode.
    pub inodes: QuotaUsed,
}

impl QuotaOwner {
    fn of(kind: QuotaKind) -> QuotaOwner {
        match kind {
            QuotaKind::User => QuotaOwner::User,
            QuotaKind::Group => QuotaOwner::Group,
            QuotaKind::Project => QuotaOwner::Project,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.kind().name()
    }

    fn kind(self) -> QuotaKind {
        match self {
            QuotaOwner::User => QuotaKind::User,
            QuotaOwner::Group => QuotaKind::Group,
            QuotaOwner::Project => QuotaKind::Project,
        }
    }
}

impl QuotaUsed {
    fn of(of: QuotaUse, unit: u64) -> QuotaUsed {
        let limit =
            QuotaLimit { hard: of.limit.hard.saturating_mul(unit), soft: of.limit.soft.saturating_mul(unit) };
        let since = of.over_since.map(|at| i64::try_from(at.unix_ns()).unwrap_or(i64::MAX));
        QuotaUsed { used: of.used.saturating_mul(unit), limit, over_since_ns: since }
    }
}

impl QuotaLimit {
    /// In units of so many; what is there may be used, so less than one is one.
    fn stored(self, unit: u64) -> Limit {
        Limit { hard: self.hard.div_ceil(unit), soft: self.soft.div_ceil(unit) }
    }
}

/// Everybody who uses something or has a limit.
pub(super) fn reports(fs: &WriteFs) -> Result<Vec<OwnerReport>, Failure> {
    if !fs.quota_kinds().any() {
        return Err(Failure::new(Code::OPNOTSUPP, "quotas are not on in this volume"));
    }
    let report = |QuotaReport { kind, id, space, inodes }| OwnerReport {
        kind: QuotaOwner::of(kind),
        id,
        space: QuotaUsed::of(space, SECTOR_BYTES),
        inodes: QuotaUsed::of(inodes, 1),
    };
    Ok(fs.quotas().into_iter().map(report).collect())
}

/// Sets limits; those not given stay as they are.
pub(super) fn set(
    front: &Front<'_>,
    (owner, id): (QuotaOwner, u32),
    space: Option<QuotaLimit>,
    inodes: Option<QuotaLimit>,
) -> Result<(), Failure> {
    let space = space.map(|limit| limit.stored(SECTOR_BYTES));
    let inodes = inodes.map(|limit| limit.stored(1));
    Ok(front.set_quota(owner.kind(), id, space, inodes)?)
}
