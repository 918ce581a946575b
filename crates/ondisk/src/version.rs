//! Version numbers of the format and what each one changed (spec 10 §7, spec 80 §2–§5).
//!
//! A version is `major << 10 | minor`. Every superblock, b-tree node and journal entry carries the version of the program
//! that wrote it. Within a major version a larger minor is only a hint: what keeps an older program away is an unknown
//! feature bit, or an *incompatible* minor feature that is recorded as used ([`crate::superblock::access`]).
//!
//! Code must not compare version numbers itself. Each rule that depends on the version is one predicate here, named after
//! the rule, so that reading a caller says what differs and reading this file says since when.

use std::fmt;

/// A version of the on-disk format, `major << 10 | minor`, as stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u16);

/// What the number alone promises about an older program of the same major version (spec 80 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The number may be raised by any upgrade; an older program may still open the volume.
    Compatible,
    /// On disk only if the user allowed it; once used, programs that do not know it must stay away.
    Incompatible,
}

macro_rules! versions {
    ($($konst:ident = $major:literal . $minor:literal $kind:ident $name:literal;)*) => {
        impl Version {
            $(
                #[doc = concat!("Version ", $major, ".", $minor, ", `", $name, "`.")]
                pub const $konst: Version = Version::new($major, $minor);
            )*
        }

        /// Every version that has a name, ascending.
        const NAMED: &[(Version, Kind, &str)] = &[$((Version::$konst, Kind::$kind, $name),)*];
    };
}

versions! {
    BKEY_RENUMBER = 0 . 10 Compatible "bkey_renumber";
    INODE_BTREE_CHANGE = 0 . 11 Compatible "inode_btree_change";
    SNAPSHOT = 0 . 12 Compatible "snapshot";
    INODE_BACKPOINTERS = 0 . 13 Compatible "inode_backpointers";
    BTREE_PTR_SECTORS_WRITTEN = 0 . 14 Compatible "btree_ptr_sectors_written";
    SNAPSHOT_2 = 0 . 15 Compatible "snapshot_2";
    REFLINK_P_FIX = 0 . 16 Compatible "reflink_p_fix";
    SUBVOL_DIRENT = 0 . 17 Compatible "subvol_dirent";
    INODE_V2 = 0 . 18 Compatible "inode_v2";
    FREESPACE = 0 . 19 Compatible "freespace";
    ALLOC_V4 = 0 . 20 Compatible "alloc_v4";
    NEW_DATA_TYPES = 0 . 21 Compatible "new_data_types";
    BACKPOINTERS = 0 . 22 Compatible "backpointers";
    INODE_V3 = 0 . 23 Compatible "inode_v3";
    UNWRITTEN_EXTENTS = 0 . 24 Compatible "unwritten_extents";
    BUCKET_GENS = 0 . 25 Compatible "bucket_gens";
    LRU_V2 = 0 . 26 Compatible "lru_v2";
    FRAGMENTATION_LRU = 0 . 27 Compatible "fragmentation_lru";
    NO_BPS_IN_ALLOC_KEYS = 0 . 28 Compatible "no_bps_in_alloc_keys";
    SNAPSHOT_TREES = 0 . 29 Compatible "snapshot_trees";
    MAJOR_MINOR = 1 . 0 Compatible "major_minor";
    SNAPSHOT_SKIPLISTS = 1 . 1 Compatible "snapshot_skiplists";
    DELETED_INODES = 1 . 2 Compatible "deleted_inodes";
    REBALANCE_WORK = 1 . 3 Compatible "rebalance_work";
    MEMBER_SEQ = 1 . 4 Compatible "member_seq";
    SUBVOLUME_FS_PARENT = 1 . 5 Compatible "subvolume_fs_parent";
    BTREE_SUBVOLUME_CHILDREN = 1 . 6 Compatible "btree_subvolume_children";
    MI_BTREE_BITMAP = 1 . 7 Compatible "mi_btree_bitmap";
    BUCKET_STRIPE_SECTORS = 1 . 8 Compatible "bucket_stripe_sectors";
    DISK_ACCOUNTING_V2 = 1 . 9 Compatible "disk_accounting_v2";
    DISK_ACCOUNTING_V3 = 1 . 10 Compatible "disk_accounting_v3";
    DISK_ACCOUNTING_INUM = 1 . 11 Compatible "disk_accounting_inum";
    REBALANCE_WORK_ACCT_FIX = 1 . 12 Compatible "rebalance_work_acct_fix";
    INODE_HAS_CHILD_SNAPSHOTS = 1 . 13 Compatible "inode_has_child_snapshots";
    BACKPOINTER_BUCKET_GEN = 1 . 14 Compatible "backpointer_bucket_gen";
    DISK_ACCOUNTING_BIG_ENDIAN = 1 . 15 Compatible "disk_accounting_big_endian";
    REFLINK_P_MAY_UPDATE_OPTS = 1 . 16 Incompatible "reflink_p_may_update_opts";
    INODE_DEPTH = 1 . 17 Compatible "inode_depth";
    PERSISTENT_INODE_CURSORS = 1 . 18 Compatible "persistent_inode_cursors";
    AUTOFIX_ERRORS = 1 . 19 Compatible "autofix_errors";
    DIRECTORY_SIZE = 1 . 20 Compatible "directory_size";
    CACHED_BACKPOINTERS = 1 . 21 Compatible "cached_backpointers";
    STRIPE_BACKPOINTERS = 1 . 22 Compatible "stripe_backpointers";
    STRIPE_LRU = 1 . 23 Compatible "stripe_lru";
    CASEFOLDING = 1 . 24 Incompatible "casefolding";
    EXTENT_FLAGS = 1 . 25 Incompatible "extent_flags";
    SNAPSHOT_DELETION_V2 = 1 . 26 Incompatible "snapshot_deletion_v2";
    FAST_DEVICE_REMOVAL = 1 . 27 Incompatible "fast_device_removal";
    INODE_HAS_CASE_INSENSITIVE = 1 . 28 Compatible "inode_has_case_insensitive";
    EXTENT_SNAPSHOT_WHITEOUTS = 1 . 29 Incompatible "extent_snapshot_whiteouts";
    DIRENT_OFFSET_31BIT = 1 . 30 Incompatible "31bit_dirent_offset";
    BTREE_NODE_ACCOUNTING = 1 . 31 Compatible "btree_node_accounting";
    SB_FIELD_EXTENT_TYPE_U64S = 1 . 32 Incompatible "sb_field_extent_type_u64s";
    RECONCILE = 1 . 33 Compatible "reconcile";
    EXTENTED_KEY_TYPE_ERROR = 1 . 34 Incompatible "extented_key_type_error";
    BUCKET_STRIPE_INDEX = 1 . 35 Compatible "bucket_stripe_index";
    NO_SB_USER_DATA_REPLICAS = 1 . 36 Incompatible "no_sb_user_data_replicas";
    ERASURE_CODING = 1 . 37 Compatible "erasure_coding";
    NEED_DISCARD_BY_JOURNAL_SEQ = 1 . 38 Compatible "need_discard_by_journal_seq";
    PER_DEV_FRAGMENTATION_LRU = 1 . 39 Compatible "per_dev_fragmentation_lru";
}

impl Version {
    /// The oldest version this program opens.
    pub const READ_MIN: Version = Version::MAJOR_MINOR;
    /// The newest version whose every rule for *readers* this program knows (spec 80 §9). A newer minor may still be
    /// opened read-only, as long as it uses no incompatible feature beyond this.
    pub const READ_MAX: Version = Version::PER_DEV_FRAGMENTATION_LRU;
    /// The only version this program writes: that of the Linux 6.12 driver.
    pub const WRITE: Version = Version::INODE_HAS_CHILD_SNAPSHOTS;

    /// The number of a major and a minor version; `major < 64`, `minor < 1024`.
    pub const fn new(major: u16, minor: u16) -> Self {
        assert!(major < 64 && minor < 1024);
        Version(major << 10 | minor)
    }

    /// The major version.
    pub const fn major(self) -> u16 {
        self.0 >> 10
    }

    /// The minor version.
    pub const fn minor(self) -> u16 {
        self.0 & 0x3ff
    }

    /// The name of the feature that gave this version its number; `None` for a version this program does not know.
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|e| e.2)
    }

    /// Whether using this version's feature locks older programs out; `None` for an unknown version.
    pub fn kind(self) -> Option<Kind> {
        self.entry().map(|e| e.1)
    }

    /// Every version with a name, ascending.
    pub fn known() -> impl Iterator<Item = Version> {
        NAMED.iter().map(|e| e.0)
    }

    fn entry(self) -> Option<&'static (Version, Kind, &'static str)> {
        NAMED.binary_search_by_key(&self, |e| e.0).ok().map(|i| &NAMED[i])
    }

    /// Nodes may have key formats whose largest values do not fit the unpacked fields (spec 30 §4.5).
    pub fn key_formats_may_overflow(self) -> bool {
        self < Self::SNAPSHOT
    }

    /// Members record the superblock sequence number they were last written with, which makes two devices that were
    /// changed apart from each other recognisable (spec 10 §11.2).
    pub fn has_member_seq(self) -> bool {
        self >= Self::MEMBER_SEQ
    }

    /// The options ALLOCATOR_STUCK_TIMEOUT and PROMOTE_WHOLE_EXTENTS were not stored yet and get their defaults when
    /// read (spec 10 §11.1).
    pub fn lacks_allocator_and_promote_options(self) -> bool {
        self <= Self::DISK_ACCOUNTING_V2
    }

    /// Space usage is kept in the `accounting` b-tree, in its final form (spec 50 §2).
    pub fn has_accounting_btree(self) -> bool {
        self >= Self::DISK_ACCOUNTING_V3
    }

    /// Inodes carry the flag `has_child_snapshot`, which is exact (spec 40 §2).
    pub fn inodes_know_child_snapshots(self) -> bool {
        self >= Self::INODE_HAS_CHILD_SNAPSHOTS
    }

    /// A backpointer holds its bucket's generation where 1.13 has an offset in the bucket (spec 80 §5.1).
    pub fn backpointers_have_bucket_gen(self) -> bool {
        self >= Self::BACKPOINTER_BUCKET_GEN
    }

    /// Positions of accounting keys are stored most significant byte first (spec 80 §5.2).
    pub fn accounting_positions_reversed(self) -> bool {
        self >= Self::DISK_ACCOUNTING_BIG_ENDIAN
    }

    /// Directories record their depth (spec 80 §5.4).
    pub fn directories_have_depth(self) -> bool {
        self >= Self::INODE_DEPTH
    }

    /// The inode allocator keeps its cursors in `logged_ops` (spec 80 §5.5).
    pub fn inode_cursors_persist(self) -> bool {
        self >= Self::PERSISTENT_INODE_CURSORS
    }

    /// Cached pointers have backpointers too (spec 80 §5.8).
    pub fn cached_pointers_have_backpointers(self) -> bool {
        self >= Self::CACHED_BACKPOINTERS
    }

    /// Blocks of stripes have backpointers (spec 80 §5.8).
    pub fn stripes_have_backpointers(self) -> bool {
        self >= Self::STRIPE_BACKPOINTERS
    }

    /// Stripes with empty blocks are listed in the LRU b-tree (spec 80 §5.8).
    pub fn stripes_have_lru(self) -> bool {
        self >= Self::STRIPE_LRU
    }

    /// How many counters the accounting record of a b-tree has (spec 80 §5.13).
    pub fn btree_accounting_counters(self) -> usize {
        if self >= Self::BTREE_NODE_ACCOUNTING { 3 } else { 1 }
    }

    /// The fewest buckets a member may have, `first_bucket` deducted (spec 10 §10, spec 80 §5.13).
    pub fn buckets_min(self) -> u64 {
        if self >= Self::BTREE_NODE_ACCOUNTING { 512 } else { 64 }
    }

    /// Background work is tracked by `reconcile` entries and trees instead of `rebalance_work` (spec 80 §5.15).
    pub fn has_reconcile(self) -> bool {
        self >= Self::RECONCILE
    }

    /// An alloc key counts the stripes that use its bucket where 1.13 names one stripe (spec 80 §5.16).
    pub fn alloc_has_stripe_refcount(self) -> bool {
        self >= Self::BUCKET_STRIPE_INDEX
    }

    /// `need_discard` is ordered by journal sequence number and its data type is sticky (spec 80 §5.17).
    pub fn need_discard_by_journal_seq(self) -> bool {
        self >= Self::NEED_DISCARD_BY_JOURNAL_SEQ
    }

    /// Every device has its own fragmentation LRU (spec 80 §5.18).
    pub fn fragmentation_lru_per_device(self) -> bool {
        self >= Self::PER_DEV_FRAGMENTATION_LRU
    }

    /// Accounting of snapshots is split by b-tree and has three counters (spec 80 §5.18).
    pub fn snapshot_accounting_per_btree(self) -> bool {
        self >= Self::PER_DEV_FRAGMENTATION_LRU
    }

    /// Volumes of this version are listed in the style of the 1.39 tools; older ones in that of the 1.13 tools.
    pub fn lists_in_new_style(self) -> bool {
        self > Self::INODE_HAS_CHILD_SNAPSHOTS
    }

    /// Snapshots and subvolumes carry an explicit state (spec 80 §5.18).
    pub fn snapshots_have_state(self) -> bool {
        self >= Self::PER_DEV_FRAGMENTATION_LRU
    }
}

/// `1.13: inode_has_child_snapshots`; an unknown version prints `(unknown version)` as its name.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}: {}", self.major(), self.minor(), self.name().unwrap_or("(unknown version)"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({}.{})", self.major(), self.minor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        assert_eq!(Version::WRITE.0, 0x040d);
        assert_eq!(Version::READ_MAX.0, 0x0427);
        assert_eq!(Version::WRITE.to_string(), "1.13: inode_has_child_snapshots");
        assert_eq!(Version::new(1, 40).to_string(), "1.40: (unknown version)");
        assert_eq!(Version::new(1, 25).kind(), Some(Kind::Incompatible));
    }

    #[test]
    fn the_table_is_sorted_and_has_no_gap() {
        assert!(NAMED.is_sorted_by_key(|e| e.0));
        assert_eq!(Version::known().filter(|v| v.major() == 1).count(), 40);
        assert_eq!(Version::known().filter(|v| v.major() == 0).count(), 20);
    }

    #[test]
    fn rules_change_at_their_version_and_stay_changed() {
        type Rule = fn(Version) -> bool;
        let rules: [(Rule, u16); 12] = [
            (Version::has_member_seq, 4),
            (Version::has_accounting_btree, 10),
            (Version::backpointers_have_bucket_gen, 14),
            (Version::accounting_positions_reversed, 15),
            (Version::inode_cursors_persist, 18),
            (Version::cached_pointers_have_backpointers, 21),
            (Version::stripes_have_lru, 23),
            (|v| v.btree_accounting_counters() == 3, 31),
            (|v| v.buckets_min() == 512, 31),
            (Version::alloc_has_stripe_refcount, 35),
            (Version::need_discard_by_journal_seq, 38),
            (Version::fragmentation_lru_per_device, 39),
        ];
        for (rule, since) in rules {
            for minor in 0..60 {
                assert_eq!(rule(Version::new(1, minor)), minor >= since, "1.{minor}");
            }
        }
    }
}
