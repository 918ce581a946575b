//! The error ids of the format: every inconsistency that can be counted on disk, by its stable number.
//!
//! The numbers appear in the superblock: how often each inconsistency was seen (sections `errors` and `errors_v2`), which
//! ones are to be fixed without a word at the next start (section `ext`), and which ones an older program should expect
//! after it took over (section `downgrade`). So they can never change, and unknown ones must be carried along.
//!
//! Facts: spec 10 appendix A for 0–289 (format 1.13), spec 80 §7.12 for 290–427 and for the ids that later became
//! automatic. What each check looks for is in spec 60 §9.

use std::fmt;

/// Stable number of a kind of inconsistency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsckErrorId(pub u16);

/// Whether an inconsistency may be repaired without being asked, under the option `errors=fix_safe` (spec 60 §7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoFix {
    /// By every program since 1.13.
    Automatic,
    /// By the programs of format 1.39, not by those of 1.13.
    Later,
    /// Only when a check is asked for.
    Explicit,
}

macro_rules! fsck_errors {
    ($($konst:ident = $nr:literal, $name:literal, $fix:ident;)*) => {
        impl FsckErrorId {
            $(#[doc = concat!("Error ", $nr, ", `", $name, "`.")] pub const $konst: FsckErrorId = FsckErrorId($nr);)*
        }

        /// Indexed by id.
        const TABLE: &[(&str, AutoFix)] = &[$(($name, AutoFix::$fix),)*];

        #[cfg(test)]
        const NUMBERS: &[u16] = &[$($nr,)*];
    };
}

impl FsckErrorId {
    /// Number of ids in use at format 1.13; a volume of that version records none beyond.
    pub const COUNT_1_13: u16 = 290;
    /// Number of ids in use at format 1.39.
    pub const COUNT: u16 = 428;

    /// The name used in listings; `None` for an id this program does not know.
    pub fn name(self) -> Option<&'static str> {
        TABLE.get(usize::from(self.0)).map(|e| e.0)
    }

    /// The id with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().position(|e| e.0 == name).map(|i| FsckErrorId(i as u16))
    }

    /// Whether it may be repaired without being asked; an unknown id never.
    pub fn auto_fix(self) -> AutoFix {
        TABLE.get(usize::from(self.0)).map_or(AutoFix::Explicit, |e| e.1)
    }

    /// Every id known at format 1.39, ascending.
    pub fn known() -> impl Iterator<Item = FsckErrorId> {
        (0..Self::COUNT).map(FsckErrorId)
    }
}

impl fmt::Display for FsckErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown error {})", self.0),
        }
    }
}

impl fmt::Debug for FsckErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.0)
    }
}

fsck_errors! {
    CLEAN_BUT_JOURNAL_NOT_EMPTY = 0, "clean_but_journal_not_empty", Explicit;
    DIRTY_BUT_NO_JOURNAL_ENTRIES = 1, "dirty_but_no_journal_entries", Explicit;
    DIRTY_BUT_NO_JOURNAL_ENTRIES_POST_DROP_NONFLUSHES = 2, "dirty_but_no_journal_entries_post_drop_nonflushes", Explicit;
    SB_CLEAN_JOURNAL_SEQ_MISMATCH = 3, "sb_clean_journal_seq_mismatch", Explicit;
    SB_CLEAN_BTREE_ROOT_MISMATCH = 4, "sb_clean_btree_root_mismatch", Explicit;
    SB_CLEAN_MISSING = 5, "sb_clean_missing", Explicit;
    JSET_UNSUPPORTED_VERSION = 6, "jset_unsupported_version", Explicit;
    JSET_UNKNOWN_CSUM = 7, "jset_unknown_csum", Explicit;
    JSET_LAST_SEQ_NEWER_THAN_SEQ = 8, "jset_last_seq_newer_than_seq", Explicit;
    JSET_PAST_BUCKET_END = 9, "jset_past_bucket_end", Explicit;
    JSET_SEQ_BLACKLISTED = 10, "jset_seq_blacklisted", Explicit;
    JOURNAL_ENTRIES_MISSING = 11, "journal_entries_missing", Explicit;
    JOURNAL_ENTRY_REPLICAS_NOT_MARKED = 12, "journal_entry_replicas_not_marked", Automatic;
    JOURNAL_ENTRY_PAST_JSET_END = 13, "journal_entry_past_jset_end", Explicit;
    JOURNAL_ENTRY_REPLICAS_DATA_MISMATCH = 14, "journal_entry_replicas_data_mismatch", Explicit;
    JOURNAL_ENTRY_BKEY_U64S_0 = 15, "journal_entry_bkey_u64s_0", Explicit;
    JOURNAL_ENTRY_BKEY_PAST_END = 16, "journal_entry_bkey_past_end", Explicit;
    JOURNAL_ENTRY_BKEY_BAD_FORMAT = 17, "journal_entry_bkey_bad_format", Explicit;
    JOURNAL_ENTRY_BKEY_INVALID = 18, "journal_entry_bkey_invalid", Explicit;
    JOURNAL_ENTRY_BTREE_ROOT_BAD_SIZE = 19, "journal_entry_btree_root_bad_size", Explicit;
    JOURNAL_ENTRY_BLACKLIST_BAD_SIZE = 20, "journal_entry_blacklist_bad_size", Explicit;
    JOURNAL_ENTRY_BLACKLIST_V2_BAD_SIZE = 21, "journal_entry_blacklist_v2_bad_size", Explicit;
    JOURNAL_ENTRY_BLACKLIST_V2_START_PAST_END = 22, "journal_entry_blacklist_v2_start_past_end", Explicit;
    JOURNAL_ENTRY_USAGE_BAD_SIZE = 23, "journal_entry_usage_bad_size", Explicit;
    JOURNAL_ENTRY_DATA_USAGE_BAD_SIZE = 24, "journal_entry_data_usage_bad_size", Explicit;
    JOURNAL_ENTRY_CLOCK_BAD_SIZE = 25, "journal_entry_clock_bad_size", Explicit;
    JOURNAL_ENTRY_CLOCK_BAD_RW = 26, "journal_entry_clock_bad_rw", Explicit;
    JOURNAL_ENTRY_DEV_USAGE_BAD_SIZE = 27, "journal_entry_dev_usage_bad_size", Explicit;
    JOURNAL_ENTRY_DEV_USAGE_BAD_DEV = 28, "journal_entry_dev_usage_bad_dev", Explicit;
    JOURNAL_ENTRY_DEV_USAGE_BAD_PAD = 29, "journal_entry_dev_usage_bad_pad", Explicit;
    BTREE_NODE_UNREADABLE = 30, "btree_node_unreadable", Explicit;
    BTREE_NODE_FAULT_INJECTED = 31, "btree_node_fault_injected", Explicit;
    BTREE_NODE_BAD_MAGIC = 32, "btree_node_bad_magic", Explicit;
    BTREE_NODE_BAD_SEQ = 33, "btree_node_bad_seq", Explicit;
    BTREE_NODE_UNSUPPORTED_VERSION = 34, "btree_node_unsupported_version", Explicit;
    BTREE_NODE_BSET_OLDER_THAN_SB_MIN = 35, "btree_node_bset_older_than_sb_min", Explicit;
    BTREE_NODE_BSET_NEWER_THAN_SB = 36, "btree_node_bset_newer_than_sb", Explicit;
    BTREE_NODE_DATA_MISSING = 37, "btree_node_data_missing", Later;
    BTREE_NODE_BSET_AFTER_END = 38, "btree_node_bset_after_end", Explicit;
    BTREE_NODE_REPLICAS_SECTORS_WRITTEN_MISMATCH = 39, "btree_node_replicas_sectors_written_mismatch", Explicit;
    BTREE_NODE_REPLICAS_DATA_MISMATCH = 40, "btree_node_replicas_data_mismatch", Explicit;
    BSET_UNKNOWN_CSUM = 41, "bset_unknown_csum", Explicit;
    BSET_BAD_CSUM = 42, "bset_bad_csum", Later;
    BSET_PAST_END_OF_BTREE_NODE = 43, "bset_past_end_of_btree_node", Explicit;
    BSET_WRONG_SECTOR_OFFSET = 44, "bset_wrong_sector_offset", Explicit;
    BSET_EMPTY = 45, "bset_empty", Explicit;
    BSET_BAD_SEQ = 46, "bset_bad_seq", Explicit;
    BSET_BLACKLISTED_JOURNAL_SEQ = 47, "bset_blacklisted_journal_seq", Later;
    FIRST_BSET_BLACKLISTED_JOURNAL_SEQ = 48, "first_bset_blacklisted_journal_seq", Later;
    BTREE_NODE_BAD_BTREE = 49, "btree_node_bad_btree", Explicit;
    BTREE_NODE_BAD_LEVEL = 50, "btree_node_bad_level", Explicit;
    BTREE_NODE_BAD_MIN_KEY = 51, "btree_node_bad_min_key", Explicit;
    BTREE_NODE_BAD_MAX_KEY = 52, "btree_node_bad_max_key", Explicit;
    BTREE_NODE_BAD_FORMAT = 53, "btree_node_bad_format", Explicit;
    BTREE_NODE_BKEY_PAST_BSET_END = 54, "btree_node_bkey_past_bset_end", Explicit;
    BTREE_NODE_BKEY_BAD_FORMAT = 55, "btree_node_bkey_bad_format", Explicit;
    BTREE_NODE_BAD_BKEY = 56, "btree_node_bad_bkey", Explicit;
    BTREE_NODE_BKEY_OUT_OF_ORDER = 57, "btree_node_bkey_out_of_order", Later;
    BTREE_ROOT_BKEY_INVALID = 58, "btree_root_bkey_invalid", Later;
    BTREE_ROOT_READ_ERROR = 59, "btree_root_read_error", Later;
    BTREE_ROOT_BAD_MIN_KEY = 60, "btree_root_bad_min_key", Explicit;
    BTREE_ROOT_BAD_MAX_KEY = 61, "btree_root_bad_max_key", Explicit;
    BTREE_NODE_READ_ERROR = 62, "btree_node_read_error", Later;
    BTREE_NODE_TOPOLOGY_BAD_MIN_KEY = 63, "btree_node_topology_bad_min_key", Later;
    BTREE_NODE_TOPOLOGY_BAD_MAX_KEY = 64, "btree_node_topology_bad_max_key", Later;
    BTREE_NODE_TOPOLOGY_OVERWRITTEN_BY_PREV_NODE = 65, "btree_node_topology_overwritten_by_prev_node", Later;
    BTREE_NODE_TOPOLOGY_OVERWRITTEN_BY_NEXT_NODE = 66, "btree_node_topology_overwritten_by_next_node", Later;
    BTREE_NODE_TOPOLOGY_INTERIOR_NODE_EMPTY = 67, "btree_node_topology_interior_node_empty", Later;
    FS_USAGE_HIDDEN_WRONG = 68, "fs_usage_hidden_wrong", Automatic;
    FS_USAGE_BTREE_WRONG = 69, "fs_usage_btree_wrong", Automatic;
    FS_USAGE_DATA_WRONG = 70, "fs_usage_data_wrong", Automatic;
    FS_USAGE_CACHED_WRONG = 71, "fs_usage_cached_wrong", Automatic;
    FS_USAGE_RESERVED_WRONG = 72, "fs_usage_reserved_wrong", Automatic;
    FS_USAGE_PERSISTENT_RESERVED_WRONG = 73, "fs_usage_persistent_reserved_wrong", Automatic;
    FS_USAGE_NR_INODES_WRONG = 74, "fs_usage_nr_inodes_wrong", Automatic;
    FS_USAGE_REPLICAS_WRONG = 75, "fs_usage_replicas_wrong", Automatic;
    DEV_USAGE_BUCKETS_WRONG = 76, "dev_usage_buckets_wrong", Automatic;
    DEV_USAGE_SECTORS_WRONG = 77, "dev_usage_sectors_wrong", Automatic;
    DEV_USAGE_FRAGMENTED_WRONG = 78, "dev_usage_fragmented_wrong", Automatic;
    DEV_USAGE_BUCKETS_EC_WRONG = 79, "dev_usage_buckets_ec_wrong", Automatic;
    BKEY_VERSION_IN_FUTURE = 80, "bkey_version_in_future", Explicit;
    BKEY_U64S_TOO_SMALL = 81, "bkey_u64s_too_small", Explicit;
    BKEY_INVALID_TYPE_FOR_BTREE = 82, "bkey_invalid_type_for_btree", Explicit;
    BKEY_EXTENT_SIZE_ZERO = 83, "bkey_extent_size_zero", Explicit;
    BKEY_EXTENT_SIZE_GREATER_THAN_OFFSET = 84, "bkey_extent_size_greater_than_offset", Explicit;
    BKEY_SIZE_NONZERO = 85, "bkey_size_nonzero", Explicit;
    BKEY_SNAPSHOT_NONZERO = 86, "bkey_snapshot_nonzero", Explicit;
    BKEY_SNAPSHOT_ZERO = 87, "bkey_snapshot_zero", Explicit;
    BKEY_AT_POS_MAX = 88, "bkey_at_pos_max", Explicit;
    BKEY_BEFORE_START_OF_BTREE_NODE = 89, "bkey_before_start_of_btree_node", Explicit;
    BKEY_AFTER_END_OF_BTREE_NODE = 90, "bkey_after_end_of_btree_node", Explicit;
    BKEY_VAL_SIZE_NONZERO = 91, "bkey_val_size_nonzero", Explicit;
    BKEY_VAL_SIZE_TOO_SMALL = 92, "bkey_val_size_too_small", Explicit;
    ALLOC_V1_VAL_SIZE_BAD = 93, "alloc_v1_val_size_bad", Explicit;
    ALLOC_V2_UNPACK_ERROR = 94, "alloc_v2_unpack_error", Explicit;
    ALLOC_V3_UNPACK_ERROR = 95, "alloc_v3_unpack_error", Explicit;
    ALLOC_V4_VAL_SIZE_BAD = 96, "alloc_v4_val_size_bad", Explicit;
    ALLOC_V4_BACKPOINTERS_START_BAD = 97, "alloc_v4_backpointers_start_bad", Explicit;
    ALLOC_KEY_DATA_TYPE_BAD = 98, "alloc_key_data_type_bad", Explicit;
    ALLOC_KEY_EMPTY_BUT_HAVE_DATA = 99, "alloc_key_empty_but_have_data", Explicit;
    ALLOC_KEY_DIRTY_SECTORS_0 = 100, "alloc_key_dirty_sectors_0", Explicit;
    ALLOC_KEY_DATA_TYPE_INCONSISTENCY = 101, "alloc_key_data_type_inconsistency", Explicit;
    ALLOC_KEY_TO_MISSING_DEV_BUCKET = 102, "alloc_key_to_missing_dev_bucket", Explicit;
    ALLOC_KEY_CACHED_INCONSISTENCY = 103, "alloc_key_cached_inconsistency", Explicit;
    ALLOC_KEY_CACHED_BUT_READ_TIME_ZERO = 104, "alloc_key_cached_but_read_time_zero", Automatic;
    ALLOC_KEY_TO_MISSING_LRU_ENTRY = 105, "alloc_key_to_missing_lru_entry", Automatic;
    ALLOC_KEY_DATA_TYPE_WRONG = 106, "alloc_key_data_type_wrong", Automatic;
    ALLOC_KEY_GEN_WRONG = 107, "alloc_key_gen_wrong", Automatic;
    ALLOC_KEY_DIRTY_SECTORS_WRONG = 108, "alloc_key_dirty_sectors_wrong", Automatic;
    ALLOC_KEY_CACHED_SECTORS_WRONG = 109, "alloc_key_cached_sectors_wrong", Automatic;
    ALLOC_KEY_STRIPE_WRONG = 110, "alloc_key_stripe_wrong", Automatic;
    ALLOC_KEY_STRIPE_REDUNDANCY_WRONG = 111, "alloc_key_stripe_redundancy_wrong", Automatic;
    BUCKET_SECTOR_COUNT_OVERFLOW = 112, "bucket_sector_count_overflow", Explicit;
    BUCKET_METADATA_TYPE_MISMATCH = 113, "bucket_metadata_type_mismatch", Explicit;
    NEED_DISCARD_KEY_WRONG = 114, "need_discard_key_wrong", Later;
    FREESPACE_KEY_WRONG = 115, "freespace_key_wrong", Later;
    FREESPACE_HOLE_MISSING = 116, "freespace_hole_missing", Later;
    BUCKET_GENS_VAL_SIZE_BAD = 117, "bucket_gens_val_size_bad", Explicit;
    BUCKET_GENS_KEY_WRONG = 118, "bucket_gens_key_wrong", Automatic;
    BUCKET_GENS_HOLE_WRONG = 119, "bucket_gens_hole_wrong", Automatic;
    BUCKET_GENS_TO_INVALID_DEV = 120, "bucket_gens_to_invalid_dev", Automatic;
    BUCKET_GENS_TO_INVALID_BUCKETS = 121, "bucket_gens_to_invalid_buckets", Automatic;
    BUCKET_GENS_NONZERO_FOR_INVALID_BUCKETS = 122, "bucket_gens_nonzero_for_invalid_buckets", Automatic;
    NEED_DISCARD_FREESPACE_KEY_TO_INVALID_DEV_BUCKET = 123, "need_discard_freespace_key_to_invalid_dev_bucket", Later;
    NEED_DISCARD_FREESPACE_KEY_BAD = 124, "need_discard_freespace_key_bad", Later;
    BACKPOINTER_BUCKET_OFFSET_WRONG = 125, "backpointer_bucket_offset_wrong", Explicit;
    BACKPOINTER_TO_MISSING_DEVICE = 126, "backpointer_to_missing_device", Later;
    BACKPOINTER_TO_MISSING_ALLOC = 127, "backpointer_to_missing_alloc", Later;
    BACKPOINTER_TO_MISSING_PTR = 128, "backpointer_to_missing_ptr", Later;
    LRU_ENTRY_AT_TIME_0 = 129, "lru_entry_at_time_0", Automatic;
    LRU_ENTRY_TO_INVALID_BUCKET = 130, "lru_entry_to_invalid_bucket", Automatic;
    LRU_ENTRY_BAD = 131, "lru_entry_bad", Automatic;
    BTREE_PTR_VAL_TOO_BIG = 132, "btree_ptr_val_too_big", Explicit;
    BTREE_PTR_V2_VAL_TOO_BIG = 133, "btree_ptr_v2_val_too_big", Explicit;
    BTREE_PTR_HAS_NON_PTR = 134, "btree_ptr_has_non_ptr", Explicit;
    EXTENT_PTRS_INVALID_ENTRY = 135, "extent_ptrs_invalid_entry", Explicit;
    EXTENT_PTRS_NO_PTRS = 136, "extent_ptrs_no_ptrs", Explicit;
    EXTENT_PTRS_TOO_MANY_PTRS = 137, "extent_ptrs_too_many_ptrs", Explicit;
    EXTENT_PTRS_REDUNDANT_CRC = 138, "extent_ptrs_redundant_crc", Explicit;
    EXTENT_PTRS_REDUNDANT_STRIPE = 139, "extent_ptrs_redundant_stripe", Explicit;
    EXTENT_PTRS_UNWRITTEN = 140, "extent_ptrs_unwritten", Explicit;
    EXTENT_PTRS_WRITTEN_AND_UNWRITTEN = 141, "extent_ptrs_written_and_unwritten", Explicit;
    PTR_TO_INVALID_DEVICE = 142, "ptr_to_invalid_device", Explicit;
    PTR_TO_DUPLICATE_DEVICE = 143, "ptr_to_duplicate_device", Explicit;
    PTR_AFTER_LAST_BUCKET = 144, "ptr_after_last_bucket", Explicit;
    PTR_BEFORE_FIRST_BUCKET = 145, "ptr_before_first_bucket", Explicit;
    PTR_SPANS_MULTIPLE_BUCKETS = 146, "ptr_spans_multiple_buckets", Explicit;
    PTR_TO_MISSING_BACKPOINTER = 147, "ptr_to_missing_backpointer", Automatic;
    PTR_TO_MISSING_ALLOC_KEY = 148, "ptr_to_missing_alloc_key", Automatic;
    PTR_TO_MISSING_REPLICAS_ENTRY = 149, "ptr_to_missing_replicas_entry", Automatic;
    PTR_TO_MISSING_STRIPE = 150, "ptr_to_missing_stripe", Explicit;
    PTR_TO_INCORRECT_STRIPE = 151, "ptr_to_incorrect_stripe", Explicit;
    PTR_GEN_NEWER_THAN_BUCKET_GEN = 152, "ptr_gen_newer_than_bucket_gen", Later;
    PTR_TOO_STALE = 153, "ptr_too_stale", Explicit;
    STALE_DIRTY_PTR = 154, "stale_dirty_ptr", Later;
    PTR_BUCKET_DATA_TYPE_MISMATCH = 155, "ptr_bucket_data_type_mismatch", Explicit;
    PTR_CACHED_AND_ERASURE_CODED = 156, "ptr_cached_and_erasure_coded", Explicit;
    PTR_CRC_UNCOMPRESSED_SIZE_TOO_SMALL = 157, "ptr_crc_uncompressed_size_too_small", Explicit;
    PTR_CRC_CSUM_TYPE_UNKNOWN = 158, "ptr_crc_csum_type_unknown", Explicit;
    PTR_CRC_COMPRESSION_TYPE_UNKNOWN = 159, "ptr_crc_compression_type_unknown", Explicit;
    PTR_CRC_REDUNDANT = 160, "ptr_crc_redundant", Explicit;
    PTR_CRC_UNCOMPRESSED_SIZE_TOO_BIG = 161, "ptr_crc_uncompressed_size_too_big", Explicit;
    PTR_CRC_NONCE_MISMATCH = 162, "ptr_crc_nonce_mismatch", Explicit;
    PTR_STRIPE_REDUNDANT = 163, "ptr_stripe_redundant", Explicit;
    RESERVATION_KEY_NR_REPLICAS_INVALID = 164, "reservation_key_nr_replicas_invalid", Explicit;
    REFLINK_V_REFCOUNT_WRONG = 165, "reflink_v_refcount_wrong", Later;
    REFLINK_P_TO_MISSING_REFLINK_V = 166, "reflink_p_to_missing_reflink_v", Later;
    STRIPE_POS_BAD = 167, "stripe_pos_bad", Explicit;
    STRIPE_VAL_SIZE_BAD = 168, "stripe_val_size_bad", Explicit;
    STRIPE_SECTOR_COUNT_WRONG = 169, "stripe_sector_count_wrong", Explicit;
    SNAPSHOT_TREE_POS_BAD = 170, "snapshot_tree_pos_bad", Explicit;
    SNAPSHOT_TREE_TO_MISSING_SNAPSHOT = 171, "snapshot_tree_to_missing_snapshot", Explicit;
    SNAPSHOT_TREE_TO_MISSING_SUBVOL = 172, "snapshot_tree_to_missing_subvol", Explicit;
    SNAPSHOT_TREE_TO_WRONG_SUBVOL = 173, "snapshot_tree_to_wrong_subvol", Explicit;
    SNAPSHOT_TREE_TO_SNAPSHOT_SUBVOL = 174, "snapshot_tree_to_snapshot_subvol", Explicit;
    SNAPSHOT_POS_BAD = 175, "snapshot_pos_bad", Explicit;
    SNAPSHOT_PARENT_BAD = 176, "snapshot_parent_bad", Explicit;
    SNAPSHOT_CHILDREN_NOT_NORMALIZED = 177, "snapshot_children_not_normalized", Explicit;
    SNAPSHOT_CHILD_DUPLICATE = 178, "snapshot_child_duplicate", Explicit;
    SNAPSHOT_CHILD_BAD = 179, "snapshot_child_bad", Explicit;
    SNAPSHOT_SKIPLIST_NOT_NORMALIZED = 180, "snapshot_skiplist_not_normalized", Explicit;
    SNAPSHOT_SKIPLIST_BAD = 181, "snapshot_skiplist_bad", Explicit;
    SNAPSHOT_SHOULD_NOT_HAVE_SUBVOL = 182, "snapshot_should_not_have_subvol", Explicit;
    SNAPSHOT_TO_BAD_SNAPSHOT_TREE = 183, "snapshot_to_bad_snapshot_tree", Automatic;
    SNAPSHOT_BAD_DEPTH = 184, "snapshot_bad_depth", Later;
    SNAPSHOT_BAD_SKIPLIST = 185, "snapshot_bad_skiplist", Later;
    SUBVOL_POS_BAD = 186, "subvol_pos_bad", Explicit;
    SUBVOL_NOT_MASTER_AND_NOT_SNAPSHOT = 187, "subvol_not_master_and_not_snapshot", Later;
    SUBVOL_TO_MISSING_ROOT = 188, "subvol_to_missing_root", Later;
    SUBVOL_ROOT_WRONG_BI_SUBVOL = 189, "subvol_root_wrong_bi_subvol", Later;
    BKEY_IN_MISSING_SNAPSHOT = 190, "bkey_in_missing_snapshot", Explicit;
    INODE_POS_INODE_NONZERO = 191, "inode_pos_inode_nonzero", Explicit;
    INODE_POS_BLOCKDEV_RANGE = 192, "inode_pos_blockdev_range", Explicit;
    INODE_UNPACK_ERROR = 193, "inode_unpack_error", Explicit;
    INODE_STR_HASH_INVALID = 194, "inode_str_hash_invalid", Explicit;
    INODE_V3_FIELDS_START_BAD = 195, "inode_v3_fields_start_bad", Explicit;
    INODE_SNAPSHOT_MISMATCH = 196, "inode_snapshot_mismatch", Later;
    INODE_UNLINKED_BUT_CLEAN = 197, "inode_unlinked_but_clean", Explicit;
    INODE_UNLINKED_BUT_NLINK_NONZERO = 198, "inode_unlinked_but_nlink_nonzero", Explicit;
    INODE_CHECKSUM_TYPE_INVALID = 199, "inode_checksum_type_invalid", Explicit;
    INODE_COMPRESSION_TYPE_INVALID = 200, "inode_compression_type_invalid", Explicit;
    INODE_SUBVOL_ROOT_BUT_NOT_DIR = 201, "inode_subvol_root_but_not_dir", Explicit;
    INODE_I_SIZE_DIRTY_BUT_CLEAN = 202, "inode_i_size_dirty_but_clean", Automatic;
    INODE_I_SECTORS_DIRTY_BUT_CLEAN = 203, "inode_i_sectors_dirty_but_clean", Automatic;
    INODE_I_SECTORS_WRONG = 204, "inode_i_sectors_wrong", Automatic;
    INODE_DIR_WRONG_NLINK = 205, "inode_dir_wrong_nlink", Automatic;
    INODE_DIR_MULTIPLE_LINKS = 206, "inode_dir_multiple_links", Automatic;
    INODE_MULTIPLE_LINKS_BUT_NLINK_0 = 207, "inode_multiple_links_but_nlink_0", Automatic;
    INODE_WRONG_BACKPOINTER = 208, "inode_wrong_backpointer", Automatic;
    INODE_WRONG_NLINK = 209, "inode_wrong_nlink", Automatic;
    INODE_UNREACHABLE = 210, "inode_unreachable", Automatic;
    DELETED_INODE_BUT_CLEAN = 211, "deleted_inode_but_clean", Automatic;
    DELETED_INODE_MISSING = 212, "deleted_inode_missing", Automatic;
    DELETED_INODE_IS_DIR = 213, "deleted_inode_is_dir", Automatic;
    DELETED_INODE_NOT_UNLINKED = 214, "deleted_inode_not_unlinked", Automatic;
    EXTENT_OVERLAPPING = 215, "extent_overlapping", Later;
    KEY_IN_MISSING_INODE = 216, "key_in_missing_inode", Later;
    KEY_IN_WRONG_INODE_TYPE = 217, "key_in_wrong_inode_type", Explicit;
    EXTENT_PAST_END_OF_INODE = 218, "extent_past_end_of_inode", Later;
    DIRENT_EMPTY_NAME = 219, "dirent_empty_name", Explicit;
    DIRENT_VAL_TOO_BIG = 220, "dirent_val_too_big", Explicit;
    DIRENT_NAME_TOO_LONG = 221, "dirent_name_too_long", Explicit;
    DIRENT_NAME_EMBEDDED_NUL = 222, "dirent_name_embedded_nul", Explicit;
    DIRENT_NAME_DOT_OR_DOTDOT = 223, "dirent_name_dot_or_dotdot", Explicit;
    DIRENT_NAME_HAS_SLASH = 224, "dirent_name_has_slash", Explicit;
    DIRENT_D_TYPE_WRONG = 225, "dirent_d_type_wrong", Later;
    INODE_BI_PARENT_WRONG = 226, "inode_bi_parent_wrong", Later;
    DIRENT_IN_MISSING_DIR_INODE = 227, "dirent_in_missing_dir_inode", Explicit;
    DIRENT_IN_NON_DIR_INODE = 228, "dirent_in_non_dir_inode", Explicit;
    DIRENT_TO_MISSING_INODE = 229, "dirent_to_missing_inode", Later;
    DIRENT_TO_MISSING_SUBVOL = 230, "dirent_to_missing_subvol", Later;
    DIRENT_TO_ITSELF = 231, "dirent_to_itself", Explicit;
    QUOTA_TYPE_INVALID = 232, "quota_type_invalid", Explicit;
    XATTR_VAL_SIZE_TOO_SMALL = 233, "xattr_val_size_too_small", Explicit;
    XATTR_VAL_SIZE_TOO_BIG = 234, "xattr_val_size_too_big", Explicit;
    XATTR_INVALID_TYPE = 235, "xattr_invalid_type", Explicit;
    XATTR_NAME_INVALID_CHARS = 236, "xattr_name_invalid_chars", Explicit;
    XATTR_IN_MISSING_INODE = 237, "xattr_in_missing_inode", Explicit;
    ROOT_SUBVOL_MISSING = 238, "root_subvol_missing", Later;
    ROOT_DIR_MISSING = 239, "root_dir_missing", Later;
    ROOT_INODE_NOT_DIR = 240, "root_inode_not_dir", Later;
    DIR_LOOP = 241, "dir_loop", Later;
    HASH_TABLE_KEY_DUPLICATE = 242, "hash_table_key_duplicate", Later;
    HASH_TABLE_KEY_WRONG_OFFSET = 243, "hash_table_key_wrong_offset", Later;
    UNLINKED_INODE_NOT_ON_DELETED_LIST = 244, "unlinked_inode_not_on_deleted_list", Automatic;
    REFLINK_P_FRONT_PAD_BAD = 245, "reflink_p_front_pad_bad", Explicit;
    JOURNAL_ENTRY_DUP_SAME_DEVICE = 246, "journal_entry_dup_same_device", Explicit;
    INODE_BI_SUBVOL_MISSING = 247, "inode_bi_subvol_missing", Later;
    INODE_BI_SUBVOL_WRONG = 248, "inode_bi_subvol_wrong", Later;
    INODE_POINTS_TO_MISSING_DIRENT = 249, "inode_points_to_missing_dirent", Later;
    INODE_POINTS_TO_WRONG_DIRENT = 250, "inode_points_to_wrong_dirent", Later;
    INODE_BI_PARENT_NONZERO = 251, "inode_bi_parent_nonzero", Explicit;
    DIRENT_TO_MISSING_PARENT_SUBVOL = 252, "dirent_to_missing_parent_subvol", Explicit;
    DIRENT_NOT_VISIBLE_IN_PARENT_SUBVOL = 253, "dirent_not_visible_in_parent_subvol", Later;
    SUBVOL_FS_PATH_PARENT_WRONG = 254, "subvol_fs_path_parent_wrong", Later;
    SUBVOL_ROOT_FS_PATH_PARENT_NONZERO = 255, "subvol_root_fs_path_parent_nonzero", Explicit;
    SUBVOL_CHILDREN_NOT_SET = 256, "subvol_children_not_set", Explicit;
    SUBVOL_CHILDREN_BAD = 257, "subvol_children_bad", Explicit;
    SUBVOL_LOOP = 258, "subvol_loop", Later;
    SUBVOL_UNREACHABLE = 259, "subvol_unreachable", Automatic;
    BTREE_NODE_BKEY_BAD_U64S = 260, "btree_node_bkey_bad_u64s", Explicit;
    BTREE_NODE_TOPOLOGY_EMPTY_INTERIOR_NODE = 261, "btree_node_topology_empty_interior_node", Explicit;
    BTREE_PTR_V2_MIN_KEY_BAD = 262, "btree_ptr_v2_min_key_bad", Explicit;
    BTREE_ROOT_UNREADABLE_AND_SCAN_FOUND_NOTHING = 263, "btree_root_unreadable_and_scan_found_nothing", Explicit;
    SNAPSHOT_NODE_MISSING = 264, "snapshot_node_missing", Later;
    DUP_BACKPOINTER_TO_BAD_CSUM_EXTENT = 265, "dup_backpointer_to_bad_csum_extent", Later;
    BTREE_BITMAP_NOT_MARKED = 266, "btree_bitmap_not_marked", Later;
    SB_CLEAN_ENTRY_OVERRUN = 267, "sb_clean_entry_overrun", Explicit;
    BTREE_PTR_V2_WRITTEN_0 = 268, "btree_ptr_v2_written_0", Explicit;
    SUBVOL_SNAPSHOT_BAD = 269, "subvol_snapshot_bad", Explicit;
    SUBVOL_INODE_BAD = 270, "subvol_inode_bad", Explicit;
    ALLOC_KEY_STRIPE_SECTORS_WRONG = 271, "alloc_key_stripe_sectors_wrong", Automatic;
    ACCOUNTING_MISMATCH = 272, "accounting_mismatch", Automatic;
    ACCOUNTING_REPLICAS_NOT_MARKED = 273, "accounting_replicas_not_marked", Later;
    INVALID_BTREE_ID = 274, "invalid_btree_id", Later;
    ALLOC_KEY_IO_TIME_BAD = 275, "alloc_key_io_time_bad", Explicit;
    ALLOC_KEY_FRAGMENTATION_LRU_WRONG = 276, "alloc_key_fragmentation_lru_wrong", Automatic;
    ACCOUNTING_KEY_JUNK_AT_END = 277, "accounting_key_junk_at_end", Automatic;
    ACCOUNTING_KEY_REPLICAS_NR_DEVS_0 = 278, "accounting_key_replicas_nr_devs_0", Automatic;
    ACCOUNTING_KEY_REPLICAS_NR_REQUIRED_BAD = 279, "accounting_key_replicas_nr_required_bad", Automatic;
    ACCOUNTING_KEY_REPLICAS_DEVS_UNSORTED = 280, "accounting_key_replicas_devs_unsorted", Automatic;
    INODE_UNLINKED_AND_NOT_OPEN = 281, "inode_unlinked_and_not_open", Explicit;
    ACCOUNTING_KEY_VERSION_0 = 282, "accounting_key_version_0", Automatic;
    LOGGED_OP_BUT_CLEAN = 283, "logged_op_but_clean", Automatic;
    INODE_DIR_MISSING_BACKPOINTER = 284, "inode_dir_missing_backpointer", Automatic;
    INODE_UNLINKED_BUT_HAS_DIRENT = 285, "inode_unlinked_but_has_dirent", Later;
    INODE_DIR_UNLINKED_BUT_NOT_EMPTY = 286, "inode_dir_unlinked_but_not_empty", Automatic;
    INODE_HAS_CHILD_SNAPSHOTS_WRONG = 287, "inode_has_child_snapshots_wrong", Later;
    DELETED_INODE_HAS_CHILD_SNAPSHOTS = 288, "deleted_inode_has_child_snapshots", Automatic;
    ACCOUNTING_TO_INVALID_DEVICE = 289, "accounting_to_invalid_device", Explicit;
    STRIPE_CSUM_GRANULARITY_BAD = 290, "stripe_csum_granularity_bad", Explicit;
    DISCARDING_BUCKET_NOT_IN_NEED_DISCARD_BTREE = 291, "discarding_bucket_not_in_need_discard_btree", Explicit;
    REFLINK_V_POS_BAD = 292, "reflink_v_pos_bad", Explicit;
    REFLINK_REFCOUNT_UNDERFLOW = 293, "reflink_refcount_underflow", Explicit;
    BACKPOINTER_LEVEL_BAD = 294, "backpointer_level_bad", Explicit;
    COMPRESSION_OPT_NOT_MARKED_IN_SB = 295, "compression_opt_not_marked_in_sb", Later;
    COMPRESSION_TYPE_NOT_MARKED_IN_SB = 296, "compression_type_not_marked_in_sb", Later;
    BACKPOINTER_DEV_BAD = 297, "backpointer_dev_bad", Explicit;
    ALLOC_KEY_JOURNAL_SEQ_IN_FUTURE = 298, "alloc_key_journal_seq_in_future", Later;
    INODE_JOURNAL_SEQ_IN_FUTURE = 299, "inode_journal_seq_in_future", Later;
    PTR_CRC_UNCOMPRESSED_SIZE_MISMATCH = 300, "ptr_crc_uncompressed_size_mismatch", Explicit;
    INODE_ALLOC_CURSOR_INODE_BAD = 301, "inode_alloc_cursor_inode_bad", Explicit;
    DIRENT_TO_OVERWRITTEN_INODE = 302, "dirent_to_overwritten_inode", Later;
    DIRECTORY_SIZE_MISMATCH = 303, "directory_size_mismatch", Later;
    DIRENT_CF_NAME_TOO_BIG = 304, "dirent_cf_name_too_big", Explicit;
    DIRENT_STRAY_DATA_AFTER_CF_NAME = 305, "dirent_stray_data_after_cf_name", Explicit;
    EXTENT_FLAGS_NOT_AT_START = 306, "extent_flags_not_at_start", Explicit;
    ACCOUNTING_KEY_NR_COUNTERS_WRONG = 307, "accounting_key_nr_counters_wrong", Later;
    SUBVOL_MISSING = 308, "subvol_missing", Later;
    RECONCILE_WORK_INCORRECTLY_SET = 309, "reconcile_work_incorrectly_set", Later;
    RECONCILE_BP_TO_MISSING_BTREE_PTR = 310, "reconcile_bp_to_missing_btree_ptr", Later;
    VFS_INODE_I_BLOCKS_UNDERFLOW = 311, "vfs_inode_i_blocks_underflow", Later;
    INODE_I_SECTORS_UNDERFLOW = 312, "inode_i_sectors_underflow", Later;
    VFS_INODE_I_BLOCKS_NOT_ZERO_AT_TRUNCATE = 313, "vfs_inode_i_blocks_not_zero_at_truncate", Later;
    SNAPSHOT_KEY_MISSING_INODE_SNAPSHOT = 314, "snapshot_key_missing_inode_snapshot", Later;
    BKEY_IN_DELETED_SNAPSHOT = 315, "bkey_in_deleted_snapshot", Later;
    INODE_HAS_CASE_INSENSITIVE_NOT_SET = 316, "inode_has_case_insensitive_not_set", Later;
    INODE_PARENT_HAS_CASE_INSENSITIVE_NOT_SET = 317, "inode_parent_has_case_insensitive_not_set", Later;
    DIRENT_CASEFOLD_MISMATCH = 318, "dirent_casefold_mismatch", Later;
    INODE_DIR_HAS_NONZERO_I_SIZE = 319, "inode_dir_has_nonzero_i_size", Later;
    VFS_BAD_INODE_RM = 320, "vfs_bad_inode_rm", Explicit;
    MISSING_INODE_WITH_CONTENTS = 321, "missing_inode_with_contents", Later;
    PTR_TO_REMOVED_DEVICE = 322, "ptr_to_removed_device", Later;
    BTREE_NODE_TOPOLOGY_BAD_ROOT_MIN_KEY = 323, "btree_node_topology_bad_root_min_key", Later;
    BTREE_NODE_TOPOLOGY_BAD_ROOT_MAX_KEY = 324, "btree_node_topology_bad_root_max_key", Later;
    ACCOUNTING_KEY_UNDERFLOW = 325, "accounting_key_underflow", Later;
    ACCOUNTING_KEY_VERSION_OUT_OF_ORDER = 326, "accounting_key_version_out_of_order", Later;
    STALE_PTR_WITH_NO_STALE_PTRS_FEATURE = 327, "stale_ptr_with_no_stale_ptrs_feature", Later;
    BTREE_NODE_TOPOLOGY_GAP_BETWEEN_NODES = 328, "btree_node_topology_gap_between_nodes", Later;
    VALIDATE_ERROR_IN_COMMIT = 329, "validate_error_in_commit", Explicit;
    EXTENT_IO_OPTS_NOT_SET = 330, "extent_io_opts_not_set", Later;
    EXTENT_IO_OPTS_UNNEEDED = 331, "extent_io_opts_unneeded", Later;
    EXTENT_RECONCILE_BAD_PENDING = 332, "extent_reconcile_bad_pending", Explicit;
    EXTENT_RECONCILE_BAD_HIPRI = 333, "extent_reconcile_bad_hipri", Explicit;
    RECONCILE_BP_TO_LEAF_NODE_KEY = 334, "reconcile_bp_to_leaf_node_key", Later;
    BTREE_PTR_WITH_NO_RECONCILE_BP = 335, "btree_ptr_with_no_reconcile_bp", Later;
    BTREE_PTR_WITH_BAD_RECONCILE_BP = 336, "btree_ptr_with_bad_reconcile_bp", Later;
    BTREE_PTR_TO_BAD_RECONCILE_BP = 337, "btree_ptr_to_bad_reconcile_bp", Later;
    EXTENT_PTRS_ALL_INVALID = 338, "extent_ptrs_all_invalid", Later;
    EXTENT_RECONCILE_BAD_REPLICAS = 339, "extent_reconcile_bad_replicas", Explicit;
    STRIPE_SECTORS_ZERO = 340, "stripe_sectors_zero", Explicit;
    RECONCILE_WORK_PHYS_INCORRECTLY_SET = 341, "reconcile_work_phys_incorrectly_set", Later;
    COMPRESSION_ERROR = 342, "compression_error", Explicit;
    VFS_I_SIZE_BAD = 343, "vfs_i_size_bad", Explicit;
    VFS_I_SECTORS_BAD = 344, "vfs_i_sectors_bad", Explicit;
    ALLOC_KEY_STRIPE_REFCOUNT_WRONG = 345, "alloc_key_stripe_refcount_wrong", Later;
    STRIPE_TO_MISSING_BUCKET_REF = 346, "stripe_to_missing_bucket_ref", Later;
    BUCKET_STRIPE_REF_TO_MISSING_STRIPE = 347, "bucket_stripe_ref_to_missing_stripe", Later;
    BUCKET_STRIPE_REF_TO_INCORRECT_STRIPE = 348, "bucket_stripe_ref_to_incorrect_stripe", Later;
    VFS_UNLINK_GOT_WRONG_INUM = 349, "vfs_unlink_got_wrong_inum", Explicit;
    DATA_UPDATE_GOT_NON_EXTENT = 350, "data_update_got_non_extent", Explicit;
    EXTENT_PTRS_ALL_INVALID_BUT_CACHED = 351, "extent_ptrs_all_invalid_but_cached", Later;
    STRIPE_NEEDS_RECONCILE_NOT_SET = 352, "stripe_needs_reconcile_not_set", Later;
    ALLOC_KEY_BUCKET_NONEMPTY_TO_EMPTY_NOT_OPEN = 353, "alloc_key_bucket_nonempty_to_empty_not_open", Explicit;
    STRIPE_UPDATE_STALE_STRIPE_PTR = 354, "stripe_update_stale_stripe_ptr", Later;
    JOURNAL_ENTRY_REWIND_LIMIT_BAD_SIZE = 355, "journal_entry_rewind_limit_bad_size", Explicit;
    JOURNAL_ENTRY_REWIND_BAD_SIZE = 356, "journal_entry_rewind_bad_size", Explicit;
    DEVICE_BAD_FLUSH = 357, "device_bad_flush", Explicit;
    JOURNAL_BUCKET_SEQ_NOT_MONOTONIC = 358, "journal_bucket_seq_not_monotonic", Explicit;
    ALLOC_KEY_DATA_TYPE_FREE_DIRTY_BOOKKEEPING = 359, "alloc_key_data_type_free_dirty_bookkeeping", Later;
    STRIPE_PARITY_BLOCK_SECTOR_COUNT_WRONG = 360, "stripe_parity_block_sector_count_wrong", Explicit;
    STRIPE_CAN_WIDEN_WRONG = 361, "stripe_can_widen_wrong", Later;
    DUP_EXTENTS_TO_REFLINK = 362, "dup_extents_to_reflink", Later;
    STRIPE_READ_PTR_STALE = 363, "stripe_read_ptr_stale", Explicit;
    BKEY_IN_DELETED_INTERIOR_SNAPSHOT = 364, "bkey_in_deleted_interior_snapshot", Later;
    INODE_HAS_INODE_OPTS_FLAG_WRONG = 365, "inode_has_inode_opts_flag_wrong", Later;
    INODE_HAS_ACCESS_ACL_FLAG_WRONG = 366, "inode_has_access_acl_flag_wrong", Later;
    INODE_HAS_DEFAULT_ACL_FLAG_WRONG = 367, "inode_has_default_acl_flag_wrong", Later;
    DIRENT_TO_INODE_IN_DESCENDANT_SNAPSHOT = 368, "dirent_to_inode_in_descendant_snapshot", Later;
    SNAPSHOT_SUBVOL_FLAG_WRONG = 369, "snapshot_subvol_flag_wrong", Later;
    SNAPSHOT_PAD_NONZERO = 370, "snapshot_pad_nonzero", Explicit;
    SNAPSHOT_EDGE_BAD = 371, "snapshot_edge_bad", Explicit;
    SUBVOL_PAD_NONZERO = 372, "subvol_pad_nonzero", Explicit;
    SNAPSHOT_STATE_BAD = 373, "snapshot_state_bad", Later;
    SUBVOL_STATE_BAD = 374, "subvol_state_bad", Later;
    SUBVOL_SNAPSHOT_NOT_LEAF = 375, "subvol_snapshot_not_leaf", Explicit;
    SNAPSHOT_DELETED_BUT_SUBVOL_LIVE = 376, "snapshot_deleted_but_subvol_live", Later;
    SNAPSHOT_SUBVOL_BACKREF_WRONG = 377, "snapshot_subvol_backref_wrong", Later;
    SNAPSHOT_NO_KEYS_CHILDLESS = 378, "snapshot_no_keys_childless", Later;
    SNAPSHOT_STATE_BITFLIP = 379, "snapshot_state_bitflip", Later;
    SUBVOL_STATE_BITFLIP = 380, "subvol_state_bitflip", Later;
    SNAPSHOT_DELETED_HAS_LIVE_CHILDREN = 381, "snapshot_deleted_has_live_children", Later;
    SNAPSHOT_STATE_STALE_TOMBSTONE = 382, "snapshot_state_stale_tombstone", Later;
    SUBVOL_ROOT_UNLINKED_FLAG_MISSING = 383, "subvol_root_unlinked_flag_missing", Later;
    SNAPSHOT_DELETED_BUT_LINKED = 384, "snapshot_deleted_but_linked", Later;
    SNAPSHOT_DELETED_BUT_HAS_DATA = 385, "snapshot_deleted_but_has_data", Later;
    SNAPSHOT_SUBVOL_STATE_MISMATCH = 386, "snapshot_subvol_state_mismatch", Later;
    DAMAGE_ENTRIES_BAD = 387, "damage_entries_bad", Explicit;
    DAMAGE_KEY_NO_INODE = 388, "damage_key_no_inode", Later;
    DATA_READ_IO_ERR_RECOVERED = 389, "data_read_io_err_recovered", Explicit;
    DATA_READ_IO_ERR = 390, "data_read_io_err", Explicit;
    DATA_READ_CSUM_ERR_RECOVERED = 391, "data_read_csum_err_recovered", Explicit;
    DATA_READ_CSUM_ERR = 392, "data_read_csum_err", Explicit;
    DATA_LOST_DEVICE_REMOVED = 393, "data_lost_device_removed", Explicit;
    BLK_STS_NOTSUPP = 394, "blk_sts_notsupp", Explicit;
    BLK_STS_TIMEOUT = 395, "blk_sts_timeout", Explicit;
    BLK_STS_NOSPC = 396, "blk_sts_nospc", Explicit;
    BLK_STS_TRANSPORT = 397, "blk_sts_transport", Explicit;
    BLK_STS_TARGET = 398, "blk_sts_target", Explicit;
    BLK_STS_RESV_CONFLICT = 399, "blk_sts_resv_conflict", Explicit;
    BLK_STS_MEDIUM = 400, "blk_sts_medium", Explicit;
    BLK_STS_PROTECTION = 401, "blk_sts_protection", Explicit;
    BLK_STS_RESOURCE = 402, "blk_sts_resource", Explicit;
    BLK_STS_IOERR = 403, "blk_sts_ioerr", Explicit;
    BLK_STS_AGAIN = 404, "blk_sts_again", Explicit;
    BLK_STS_DEV_RESOURCE = 405, "blk_sts_dev_resource", Explicit;
    BLK_STS_OFFLINE = 406, "blk_sts_offline", Explicit;
    BLK_STS_DURATION_LIMIT = 407, "blk_sts_duration_limit", Explicit;
    BLK_STS_INVAL = 408, "blk_sts_inval", Explicit;
    BLK_STS_REMOVED = 409, "blk_sts_removed", Explicit;
    BLK_STS_UNKNOWN = 410, "blk_sts_unknown", Explicit;
    DATA_DECOMPRESS_ERR_EXCEEDED_MAX_ENCODED_EXTENT = 411, "data_decompress_err_exceeded_max_encoded_extent", Explicit;
    DATA_DECOMPRESS_ERR_LZ4_OLD = 412, "data_decompress_err_lz4_old", Explicit;
    DATA_DECOMPRESS_ERR_LZ4 = 413, "data_decompress_err_lz4", Explicit;
    DATA_DECOMPRESS_ERR_GZIP = 414, "data_decompress_err_gzip", Explicit;
    DATA_DECOMPRESS_ERR_GZIP_SIZE_MISMATCH = 415, "data_decompress_err_gzip_size_mismatch", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_SRC_LEN_BAD = 416, "data_decompress_err_zstd_src_len_bad", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_SIZE_MISMATCH = 417, "data_decompress_err_zstd_size_mismatch", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_CORRUPTION_DETECTED = 418, "data_decompress_err_zstd_corruption_detected", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_CHECKSUM_WRONG = 419, "data_decompress_err_zstd_checksum_wrong", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_PREFIX_UNKNOWN = 420, "data_decompress_err_zstd_prefix_unknown", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_SRC_SIZE_WRONG = 421, "data_decompress_err_zstd_src_size_wrong", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_DST_SIZE_TOO_SMALL = 422, "data_decompress_err_zstd_dst_size_too_small", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_MEMORY_ALLOCATION = 423, "data_decompress_err_zstd_memory_allocation", Explicit;
    DATA_DECOMPRESS_ERR_ZSTD_UNKNOWN = 424, "data_decompress_err_zstd_unknown", Explicit;
    DATA_DECOMPRESS_ERR_UNKNOWN = 425, "data_decompress_err_unknown", Explicit;
    SNAPSHOT_CHILD_MISSING_BUT_ACCOUNTED = 426, "snapshot_child_missing_but_accounted", Later;
    INODE_UNREACHABLE_DIRENT_IN_DESCENDANT = 427, "inode_unreachable_dirent_in_descendant", Later;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_names_are_unique() {
        assert!(NUMBERS.iter().enumerate().all(|(i, &nr)| i == usize::from(nr)));
        assert_eq!(NUMBERS.len(), usize::from(FsckErrorId::COUNT));
        for id in FsckErrorId::known() {
            assert_eq!(FsckErrorId::from_name(id.name().unwrap()), Some(id));
        }
        assert_eq!(FsckErrorId(428).name(), None);
    }

    #[test]
    fn spot_checks() {
        assert_eq!(FsckErrorId::ACCOUNTING_MISMATCH.0, 272);
        assert_eq!(FsckErrorId::ACCOUNTING_MISMATCH.auto_fix(), AutoFix::Automatic);
        assert_eq!(FsckErrorId::NEED_DISCARD_KEY_WRONG.auto_fix(), AutoFix::Later);
        assert_eq!(FsckErrorId::SB_CLEAN_MISSING.auto_fix(), AutoFix::Explicit);
        assert_eq!(FsckErrorId::INODE_HAS_CHILD_SNAPSHOTS_WRONG.auto_fix(), AutoFix::Later);
        let in_1_13 = FsckErrorId::known().filter(|i| i.0 < FsckErrorId::COUNT_1_13);
        assert_eq!(in_1_13.filter(|i| i.auto_fix() == AutoFix::Automatic).count(), AUTOMATIC_1_13);
    }

    /// Stars in spec 10 appendix A.
    const AUTOMATIC_1_13: usize = 60;
}
