//! What an upgrade to format 1.13 has to check (spec 60 §3.3).
//!
//! An upgrade raises the version and requires recovery passes; each row of the table names the passes that make good
//! what programs before that version did not do, and the inconsistencies that are expected and therefore repaired in silence.
//! Rows before 1.0 are left out: such filesystems are not opened.

use crate::fsck_errors::FsckErrorId as Id;
use crate::superblock::Superblock;
use crate::superblock::recovery_pass::{PassSet, RecoveryPass as Pass};
use crate::version::Version;

/// What passing a version requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradeStep {
    /// The version that is passed or reached.
    pub version: Version,
    /// A pass to run.
    pub pass: Pass,
    /// Inconsistencies to repair in silence.
    pub errors: &'static [Id],
    /// Required only if erasure-coded stripes exist.
    pub only_with_stripes: bool,
}

/// The rows, ascending.
const STEPS: &[UpgradeStep] = &[
    step(
        Version::SNAPSHOT_SKIPLISTS,
        Pass::CHECK_SNAPSHOTS,
        &[Id::SNAPSHOT_BAD_DEPTH, Id::SNAPSHOT_BAD_SKIPLIST],
    ),
    step(Version::DELETED_INODES, Pass::CHECK_INODES, &[Id::UNLINKED_INODE_NOT_ON_DELETED_LIST]),
    step(Version::REBALANCE_WORK, Pass::SET_FS_NEEDS_REBALANCE, &[]),
    step(Version::SUBVOLUME_FS_PARENT, Pass::CHECK_DIRENTS, &[Id::SUBVOL_FS_PATH_PARENT_WRONG]),
    step(Version::BTREE_SUBVOLUME_CHILDREN, Pass::CHECK_SUBVOLS, &[Id::SUBVOL_CHILDREN_NOT_SET]),
    step(Version::MI_BTREE_BITMAP, Pass::CHECK_ALLOCATIONS, &[Id::BTREE_BITMAP_NOT_MARKED]),
    UpgradeStep {
        only_with_stripes: true,
        ..step(
            Version::BUCKET_STRIPE_SECTORS,
            Pass::CHECK_ALLOCATIONS,
            &[Id::ALLOC_KEY_DIRTY_SECTORS_WRONG, Id::ALLOC_KEY_STRIPE_SECTORS_WRONG],
        )
    },
    step(
        Version::DISK_ACCOUNTING_V2,
        Pass::CHECK_ALLOCATIONS,
        &[
            Id::BKEY_VERSION_IN_FUTURE,
            Id::DEV_USAGE_BUCKETS_WRONG,
            Id::DEV_USAGE_SECTORS_WRONG,
            Id::DEV_USAGE_FRAGMENTED_WRONG,
            Id::ACCOUNTING_MISMATCH,
        ],
    ),
    step(
        Version::DISK_ACCOUNTING_V3,
        Pass::CHECK_ALLOCATIONS,
        &[
            Id::BKEY_VERSION_IN_FUTURE,
            Id::DEV_USAGE_BUCKETS_WRONG,
            Id::DEV_USAGE_SECTORS_WRONG,
            Id::DEV_USAGE_FRAGMENTED_WRONG,
            Id::ACCOUNTING_MISMATCH,
            Id::ACCOUNTING_KEY_REPLICAS_NR_DEVS_0,
            Id::ACCOUNTING_KEY_REPLICAS_NR_REQUIRED_BAD,
            Id::ACCOUNTING_KEY_REPLICAS_DEVS_UNSORTED,
            Id::ACCOUNTING_KEY_JUNK_AT_END,
        ],
    ),
    step(Version::DISK_ACCOUNTING_INUM, Pass::CHECK_ALLOCATIONS, &[Id::ACCOUNTING_MISMATCH]),
    step(Version::REBALANCE_WORK_ACCT_FIX, Pass::CHECK_ALLOCATIONS, &[Id::ACCOUNTING_MISMATCH]),
    step(Version::INODE_HAS_CHILD_SNAPSHOTS, Pass::CHECK_INODES, &[Id::INODE_HAS_CHILD_SNAPSHOTS_WRONG]),
];

const fn step(version: Version, pass: Pass, errors: &'static [Id]) -> UpgradeStep {
    UpgradeStep { version, pass, errors, only_with_stripes: false }
}

/// The steps of going up from one version to another, both at least 1.0 and at most 1.13.
pub fn steps(from: Version, to: Version) -> impl Iterator<Item = &'static UpgradeStep> {
    STEPS.iter().filter(move |s| from < s.version && s.version <= to)
}

/// The passes of all steps together.
pub fn passes(from: Version, to: Version, stripes: bool) -> PassSet {
    let needed = steps(from, to).filter(|s| stripes || !s.only_with_stripes);
    PassSet::of(&needed.map(|s| s.pass).collect::<Vec<_>>())
}

impl Superblock {
    /// The version whose upgrade passes have all run: upgrades start from here, also after one that was interrupted.
    pub fn upgraded_to(&self) -> Version {
        match self.flags.version_upgrade_complete() {
            Version(0) => self.version,
            complete => complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_between_versions() {
        assert_eq!(steps(Version::WRITE, Version::WRITE).count(), 0);
        assert!(passes(Version::new(1, 12), Version::WRITE, false).iter().eq([Pass::CHECK_INODES]));
        let without = passes(Version::new(1, 7), Version::new(1, 8), false);
        assert!(without.is_empty());
        assert!(passes(Version::new(1, 7), Version::new(1, 8), true).contains(Pass::CHECK_ALLOCATIONS));
        let all = passes(Version::MAJOR_MINOR, Version::WRITE, false);
        assert_eq!(all.iter().count(), 6);
        assert!(STEPS.is_sorted_by_key(|s| s.version));
    }
}
