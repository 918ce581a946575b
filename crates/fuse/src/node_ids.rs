//! How objects are numbered towards the kernel.
//!
//! Inode numbers alone do not tell objects apart: a snapshot has the same numbers as its source, and programs that find
//! hard links by number (`tar`, `rsync`, `du`) would take a file and its snapshot for one file. A [`NodeId`] is 96 bits, the
//! kernel's node id 64, so there are three forms:
//!
//! | bits 63, 62 | the rest | for |
//! |---|---|---|
//! | 0 | inode number | subvolume 1, numbers ≥ 4096. The root is 1, as FUSE demands |
//! | 1 0 | 22 bits subvolume, 40 bits inode number | other subvolumes, where both fit |
//! | 1 1 | 62 bits of a hash, made unique by counting on | the rest: 64-bit inode numbers in other subvolumes |
//!
//! The first two are computed, need no memory and no counting of lookups, and are the same at every mount. Inode numbers
//! are below 2³¹ unless the volume turned `inodes_32bit` off (spec 40 §3.1), so the third form is rare. It needs
//! a table, from which an entry goes when the kernel has forgotten all its lookups.
//!
//! `st_ino` is the node id as well, but 4096 for the root, as the kernel's driver reports it.

use std::collections::HashMap;

use frazil_ondisk::units::{Inum, SubvolId};
use frazil_posix::NodeId;
use parking_lot::Mutex;

/// Number of an object between the kernel and us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FuseId(pub(crate) u64);

impl FuseId {
    /// The root directory of the mount.
    pub(crate) const ROOT: FuseId = FuseId(1);

    /// The number that `stat` and `readdir` show.
    pub(crate) fn st_ino(self) -> u64 {
        if self == FuseId::ROOT { Inum::ROOT.0 } else { self.0 }
    }
}

/// Set for every object outside subvolume 1.
const OTHER: u64 = 1 << 63;
/// Set beside [`OTHER`] for numbers from the table.
const TABLE: u64 = 1 << 62;
/// Bits of the inode number in the second form.
const INUM_BITS: u32 = 40;
/// Bits of the subvolume in the second form.
const SUBVOL_BITS: u32 = 62 - INUM_BITS;

/// The mapping between objects and their numbers.
#[derive(Default)]
pub(crate) struct NodeIds {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_node: HashMap<NodeId, u64>,
    by_id: HashMap<u64, Looked>,
}

struct Looked {
    node: NodeId,
    /// How often the kernel was told of it without having forgotten it.
    lookups: u64,
}

impl NodeIds {
    /// The number of an object that is only shown, in a listing.
    pub(crate) fn shown(&self, node: NodeId) -> FuseId {
        computed(node).unwrap_or_else(|| self.table.lock().place(node))
    }

    /// The number of an object that the kernel is told about, to be forgotten by it later.
    pub(crate) fn looked_up(&self, node: NodeId) -> FuseId {
        computed(node).unwrap_or_else(|| {
            let mut table = self.table.lock();
            let id = table.place(node);
            table.by_node.insert(node, id.0);
            table.by_id.entry(id.0).or_insert(Looked { node, lookups: 0 }).lookups += 1;
            id
        })
    }

    /// The object of a number; `None` if it was never given out or has been forgotten.
    pub(crate) fn node(&self, id: FuseId) -> Option<NodeId> {
        if id == FuseId::ROOT {
            Some(NodeId::ROOT)
        } else if id.0 & OTHER == 0 {
            Some(NodeId { subvol: SubvolId::ROOT, inum: Inum(id.0) })
        } else if id.0 & TABLE == 0 {
            let subvol = (id.0 >> INUM_BITS) as u32 & ((1 << SUBVOL_BITS) - 1);
            Some(NodeId { subvol: SubvolId(subvol), inum: Inum(id.0 & ((1 << INUM_BITS) - 1)) })
        } else {
            self.table.lock().by_id.get(&id.0).map(|looked| looked.node)
        }
    }

    /// The kernel has forgotten this many lookups.
    pub(crate) fn forget(&self, id: FuseId, lookups: u64) {
        if id.0 & (OTHER | TABLE) != OTHER | TABLE {
            return;
        }
        let mut table = self.table.lock();
        let Some(looked) = table.by_id.get_mut(&id.0) else { return };
        looked.lookups = looked.lookups.saturating_sub(lookups);
        if looked.lookups == 0 {
            let node = looked.node;
            table.by_id.remove(&id.0);
            table.by_node.remove(&node);
        }
    }
}

impl Table {
    /// The number the object has, or the one it would get now.
    fn place(&self, node: NodeId) -> FuseId {
        if let Some(&id) = self.by_node.get(&node) {
            return FuseId(id);
        }
        let mut id = mix(node) | OTHER | TABLE;
        while self.by_id.contains_key(&id) {
            id = id.wrapping_add(1) | OTHER | TABLE;
        }
        FuseId(id)
    }
}

/// The number that follows from the object alone.
fn computed(node: NodeId) -> Option<FuseId> {
    let (subvol, inum) = (u64::from(node.subvol.0), node.inum.0);
    if node == NodeId::ROOT {
        Some(FuseId::ROOT)
    } else if node.subvol == SubvolId::ROOT {
        (Inum::ROOT.0..OTHER).contains(&inum).then_some(FuseId(inum))
    } else {
        let fits = subvol < 1 << SUBVOL_BITS && inum < 1 << INUM_BITS;
        fits.then_some(FuseId(OTHER | subvol << INUM_BITS | inum))
    }
}

/// Spreads an object over 64 bits (the finalizer of splitmix64), the same way at every mount.
fn mix(node: NodeId) -> u64 {
    let mut x = node.inum.0 ^ u64::from(node.subvol.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(subvol: u32, inum: u64) -> NodeId {
        NodeId { subvol: SubvolId(subvol), inum: Inum(inum) }
    }

    #[test]
    fn numbers_are_distinct_and_lead_back() {
        let ids = NodeIds::default();
        let inums =
            [0, 1, 2, 4095, 4096, 4097, (1 << 31) - 1, 1 << 31, (1 << 40) - 1, 1 << 40, 1 << 62, u64::MAX];
        let subvols = [0, 1, 2, 3, (1 << 22) - 1, 1 << 22, u32::MAX];
        let mut seen = HashMap::new();
        for (subvol, inum) in subvols.iter().flat_map(|&s| inums.map(|i| (s, i))) {
            let id = ids.looked_up(node(subvol, inum));
            assert_eq!(ids.shown(node(subvol, inum)), id);
            assert_eq!(ids.node(id), Some(node(subvol, inum)));
            assert_eq!(seen.insert(id.0, (subvol, inum)), None, "{subvol} {inum}");
            assert_ne!(id.0, 0, "0 means: no object");
        }
        assert_eq!(seen[&1], (1, 4096));
    }

    #[test]
    fn the_root_shows_its_inode_number() {
        let ids = NodeIds::default();
        assert_eq!(ids.shown(NodeId::ROOT), FuseId::ROOT);
        assert_eq!(FuseId::ROOT.st_ino(), 4096);
        assert_eq!(ids.shown(node(1, 4711)).st_ino(), 4711);
    }

    #[test]
    fn only_table_numbers_are_remembered_and_forgotten() {
        let ids = NodeIds::default();
        let (small, big) = (node(3, 5000), node(3, 1 << 61));
        let (small_id, big_id) = (ids.looked_up(small), ids.looked_up(big));
        assert_eq!(ids.looked_up(big), big_id);
        assert_eq!(ids.table.lock().by_id.len(), 1);
        ids.forget(small_id, 1);
        ids.forget(big_id, 1);
        assert_eq!(ids.node(big_id), Some(big));
        ids.forget(big_id, 1);
        assert_eq!((ids.node(big_id), ids.node(small_id)), (None, Some(small)));
        assert!(ids.table.lock().by_node.is_empty() && ids.table.lock().by_id.is_empty());
    }

    #[test]
    fn colliding_hashes_get_different_numbers() {
        let ids = NodeIds::default();
        let (first, second) = (node(3, 1 << 61), node(4, 1 << 61));
        let wanted = ids.looked_up(first);
        ids.forget(wanted, 1);
        ids.table.lock().by_id.insert(wanted.0, Looked { node: second, lookups: 1 });
        let moved = ids.looked_up(first);
        assert_ne!(moved, wanted);
        // It keeps its number when the one in its way is gone.
        ids.forget(wanted, 1);
        assert_eq!(ids.looked_up(first), moved);
        assert_eq!(ids.node(moved), Some(first));
    }
}
