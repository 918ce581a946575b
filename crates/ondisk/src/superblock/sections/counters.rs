//! Event counters since the filesystem was made (spec 10 §9.9, appendix B; spec 80 §7.13).
//!
//! Purely statistical. They are found by position, any number of them may be stored, and the missing ones are 0. Names
//! here are those of 1.13 for its 79 positions; newer programs renamed a few and swapped the meaning of 32 and 33.

use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::superblock::sections::{SectionBody, SectionType};

/// The section: values by position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters(pub Vec<u64>);

impl Counters {
    /// Number of counters at format 1.13.
    pub const COUNT_1_13: usize = 79;

    /// Name of a counter; `None` past those known.
    pub fn name(position: usize) -> Option<&'static str> {
        NAMES.get(position).copied()
    }

    /// The value of a counter, 0 if it is not stored.
    pub fn get(&self, position: usize) -> u64 {
        self.0.get(position).copied().unwrap_or(0)
    }
}

impl SectionBody for Counters {
    const TYPE: SectionType = SectionType::COUNTERS;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new("superblock section counters", payload);
        let mut values = Vec::with_capacity(payload.len() / 8);
        while r.remaining() > 0 {
            values.push(r.u64()?);
        }
        Ok(Counters(values))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for &value in &self.0 {
            out.put_u64(value);
        }
    }
}

#[rustfmt::skip]
const NAMES: [&str; 136] = [
    "io_read",
    "io_write",
    "io_move",
    "bucket_invalidate",
    "bucket_discard",
    "bucket_alloc",
    "bucket_alloc_fail",
    "btree_cache_scan",
    "btree_cache_reap",
    "btree_cache_cannibalize",
    "btree_cache_cannibalize_lock",
    "btree_cache_cannibalize_lock_fail",
    "btree_cache_cannibalize_unlock",
    "btree_node_write",
    "btree_node_read",
    "btree_node_compact",
    "btree_node_merge",
    "btree_node_split",
    "btree_node_rewrite",
    "btree_node_alloc",
    "btree_node_free",
    "btree_node_set_root",
    "btree_path_relock_fail",
    "btree_path_upgrade_fail",
    "btree_reserve_get_fail",
    "journal_entry_full",
    "journal_full",
    "journal_reclaim_finish",
    "journal_reclaim_start",
    "journal_write",
    "read_promote",
    "read_bounce",
    "read_split",
    "read_retry",
    "read_reuse_race",
    "move_extent_read",
    "move_extent_write",
    "move_extent_finish",
    "move_extent_fail",
    "move_extent_start_fail",
    "copygc",
    "copygc_wait",
    "gc_gens_end",
    "gc_gens_start",
    "trans_blocked_journal_reclaim",
    "trans_restart_btree_node_reused",
    "trans_restart_btree_node_split",
    "trans_restart_fault_inject",
    "trans_restart_iter_upgrade",
    "trans_restart_journal_preres_get",
    "trans_restart_journal_reclaim",
    "trans_restart_journal_res_get",
    "trans_restart_key_cache_key_realloced",
    "trans_restart_key_cache_raced",
    "trans_restart_mark_replicas",
    "trans_restart_mem_realloced",
    "trans_restart_memory_allocation_failure",
    "trans_restart_relock",
    "trans_restart_relock_after_fill",
    "trans_restart_relock_key_cache_fill",
    "trans_restart_relock_next_node",
    "trans_restart_relock_parent_for_fill",
    "trans_restart_relock_path",
    "trans_restart_relock_path_intent",
    "trans_restart_too_many_iters",
    "trans_restart_traverse",
    "trans_restart_upgrade",
    "trans_restart_would_deadlock",
    "trans_restart_would_deadlock_write",
    "trans_restart_injected",
    "trans_restart_key_cache_upgrade",
    "trans_traverse_all",
    "transaction_commit",
    "write_super",
    "trans_restart_would_deadlock_recursion_limit",
    "trans_restart_write_buffer_flush",
    "trans_restart_split_race",
    "write_buffer_flush_slowpath",
    "write_buffer_flush_sync",
    "bucket_discard_fast",
    "data_read_inline",
    "data_read_hole",
    "data_update_fail",
    "reconcile_set_pending",
    "evacuate_bucket",
    "data_read_nopromote",
    "data_read_nopromote_may_not",
    "data_read_nopromote_already_promoted",
    "data_read_nopromote_unwritten",
    "data_read_nopromote_congested",
    "data_update_in_flight",
    "data_update_no_io",
    "data_update_noop",
    "error_throw",
    "accounting_key_to_wb_slowpath",
    "data_read_fail_and_poison",
    "data_update_pred",
    "data_read_narrow_crcs",
    "data_read_narrow_crcs_fail",
    "stripe_update_extent",
    "stripe_update_extent_fail",
    "btree_node_merge_attempt",
    "stripe_create",
    "stripe_create_fail",
    "stripe_update_bucket",
    "write_buffer_flush",
    "write_buffer_maybe_flush",
    "btree_key_cache_fill",
    "bucket_discard_worker",
    "bucket_discard_fast_worker",
    "sync_fs",
    "fsync",
    "bkey_pack_pos_fail",
    "reconcile_scan_fs",
    "reconcile_scan_metadata",
    "reconcile_scan_pending",
    "reconcile_scan_device",
    "reconcile_scan_inum",
    "reconcile_btree",
    "reconcile_data",
    "reconcile_phys",
    "cached_ptr_drop",
    "open_bucket_alloc_fail",
    "stripe_reuse",
    "stripe_delete",
    "stripe_alloc",
    "sectors_alloc",
    "bucket_alloc_from_stripe",
    "data_update_useless_write_fail",
    "reconcile_clear_scan",
    "reconcile_stripe",
    "stripe_repair_race",
    "trans_restart_deadlock_waitlist_alloc",
    "reconcile_scan_stripes",
    "journal_pin_resize",
    "journal_flush",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_positions() {
        assert_eq!(Counters::name(0), Some("io_read"));
        assert_eq!(Counters::name(73), Some("write_super"));
        assert_eq!(Counters::name(Counters::COUNT_1_13 - 1), Some("write_buffer_flush_sync"));
        assert_eq!(Counters::name(79), Some("bucket_discard_fast"));
        assert_eq!(Counters::name(135), Some("journal_flush"));
        assert_eq!(Counters::name(136), None);
    }

    #[test]
    fn missing_counters_are_zero() {
        let counters = Counters::decode(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!((counters.get(0), counters.get(1)), (1, 0));
    }
}
