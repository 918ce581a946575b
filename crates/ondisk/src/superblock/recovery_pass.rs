//! Recovery passes by their stable number (spec 60 §5.1, spec 80 §7.10).
//!
//! The numbers stand in the superblock as bits of a set; the order in which passes run is another one, which is not stored.

use std::fmt;

/// Stable number of a recovery pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecoveryPass(pub u8);

macro_rules! passes {
    ($($konst:ident = $nr:literal, $name:literal;)*) => {
        impl RecoveryPass {
            $(#[doc = concat!("Pass `", $name, "`.")] pub const $konst: RecoveryPass = RecoveryPass($nr);)*

            /// The name used in listings; `None` for a pass this program does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($nr => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

passes! {
    ALLOC_READ = 0, "alloc_read";
    STRIPES_READ = 1, "stripes_read";
    INITIALIZE_SUBVOLUMES = 2, "initialize_subvolumes";
    SNAPSHOTS_READ = 3, "snapshots_read";
    CHECK_TOPOLOGY = 4, "check_topology";
    CHECK_ALLOCATIONS = 5, "check_allocations";
    TRANS_MARK_DEV_SBS = 6, "trans_mark_dev_sbs";
    FS_JOURNAL_ALLOC = 7, "fs_journal_alloc";
    SET_MAY_GO_RW = 8, "set_may_go_rw";
    JOURNAL_REPLAY = 9, "journal_replay";
    CHECK_ALLOC_INFO = 10, "check_alloc_info";
    CHECK_LRUS = 11, "check_lrus";
    CHECK_BTREE_BACKPOINTERS = 12, "check_btree_backpointers";
    CHECK_BACKPOINTERS_TO_EXTENTS = 13, "check_backpointers_to_extents";
    CHECK_EXTENTS_TO_BACKPOINTERS = 14, "check_extents_to_backpointers";
    CHECK_ALLOC_TO_LRU_REFS = 15, "check_alloc_to_lru_refs";
    FS_FREESPACE_INIT = 16, "fs_freespace_init";
    BUCKET_GENS_INIT = 17, "bucket_gens_init";
    CHECK_SNAPSHOT_TREES = 18, "check_snapshot_trees";
    CHECK_SNAPSHOTS = 19, "check_snapshots";
    CHECK_SUBVOLS = 20, "check_subvols";
    DELETE_DEAD_SNAPSHOTS = 21, "delete_dead_snapshots";
    FS_UPGRADE_FOR_SUBVOLUMES = 22, "fs_upgrade_for_subvolumes";
    RESUME_LOGGED_OPS = 23, "resume_logged_ops";
    CHECK_INODES = 24, "check_inodes";
    CHECK_EXTENTS = 25, "check_extents";
    CHECK_INDIRECT_EXTENTS = 26, "check_indirect_extents";
    CHECK_DIRENTS = 27, "check_dirents";
    CHECK_XATTRS = 28, "check_xattrs";
    CHECK_ROOT = 29, "check_root";
    CHECK_DIRECTORY_STRUCTURE = 30, "check_directory_structure";
    CHECK_NLINKS = 31, "check_nlinks";
    DELETE_DEAD_INODES = 32, "delete_dead_inodes";
    FIX_REFLINK_P = 33, "fix_reflink_p";
    SET_FS_NEEDS_REBALANCE = 34, "set_fs_needs_rebalance";
    CHECK_SUBVOL_CHILDREN = 35, "check_subvol_children";
    CHECK_SUBVOLUME_STRUCTURE = 36, "check_subvolume_structure";
    SCAN_FOR_BTREE_NODES = 37, "scan_for_btree_nodes";
    RECONSTRUCT_SNAPSHOTS = 38, "reconstruct_snapshots";
    ACCOUNTING_READ = 39, "accounting_read";
    CHECK_UNREACHABLE_INODES = 40, "check_unreachable_inodes";
    RECOVERY_PASS_EMPTY = 41, "recovery_pass_empty";
    LOOKUP_ROOT_INODE = 42, "lookup_root_inode";
    CHECK_RECONCILE_WORK = 43, "check_reconcile_work";
    DELETE_DEAD_INTERIOR_SNAPSHOTS = 44, "delete_dead_interior_snapshots";
    MERGE_BTREE_NODES = 45, "merge_btree_nodes";
    BTREE_BITMAP_GC = 46, "btree_bitmap_gc";
    KILL_I_GENERATION_KEYS = 47, "kill_i_generation_keys";
    PRESPLIT_SHARD_BOUNDARIES = 48, "presplit_shard_boundaries";
    CHECK_DAMAGE = 49, "check_damage";
}

impl fmt::Display for RecoveryPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown pass {})", self.0),
        }
    }
}

impl fmt::Debug for RecoveryPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of passes, as stored: bit n of the two words is the pass with stable number n.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PassSet(pub [u64; 2]);

impl PassSet {
    /// No pass.
    pub const EMPTY: PassSet = PassSet([0; 2]);

    /// These passes; numbers of 128 and more do not fit and are left out.
    pub fn of(passes: &[RecoveryPass]) -> PassSet {
        passes.iter().fold(PassSet::EMPTY, |mut set, &pass| {
            set.insert(pass);
            set
        })
    }

    /// Adds a pass.
    pub fn insert(&mut self, pass: RecoveryPass) {
        if let Some(word) = self.0.get_mut(usize::from(pass.0 / 64)) {
            *word |= 1 << (pass.0 % 64);
        }
    }

    /// Takes a pass out.
    pub fn remove(&mut self, pass: RecoveryPass) {
        if let Some(word) = self.0.get_mut(usize::from(pass.0 / 64)) {
            *word &= !(1 << (pass.0 % 64));
        }
    }

    /// Whether a pass is in the set.
    pub fn contains(self, pass: RecoveryPass) -> bool {
        self.0.get(usize::from(pass.0 / 64)).is_some_and(|w| w >> (pass.0 % 64) & 1 != 0)
    }

    /// Passes of either set.
    pub const fn union(self, other: PassSet) -> PassSet {
        PassSet([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }

    /// No pass is in the set.
    pub const fn is_empty(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0
    }

    /// The passes by number, ascending.
    pub fn iter(self) -> impl Iterator<Item = RecoveryPass> {
        (0..128).map(RecoveryPass).filter(move |&p| self.contains(p))
    }
}

impl fmt::Debug for PassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_up_to_the_last_has_a_name() {
        assert!((0..50).all(|n| RecoveryPass(n).name().is_some()));
        assert_eq!(RecoveryPass(50).to_string(), "(unknown pass 50)");
    }

    #[test]
    fn sets() {
        let mut set = PassSet::of(&[RecoveryPass::CHECK_ALLOCATIONS, RecoveryPass(127), RecoveryPass(200)]);
        assert_eq!(set.0, [0x20, 1 << 63]);
        assert!(set.contains(RecoveryPass(127)) && !set.contains(RecoveryPass(200)));
        set.remove(RecoveryPass(127));
        assert!(set.iter().eq([RecoveryPass::CHECK_ALLOCATIONS]));
    }
}
