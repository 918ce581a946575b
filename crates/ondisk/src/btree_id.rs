//! The b-trees and what kind of keys each holds (spec 30 §1, spec 80 §7.1).

use std::fmt;

/// Number of a b-tree. A newtype, not an enum, because roots written by newer programs must be carried along
/// untouched (spec 30 §1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BtreeId(pub u8);

struct Properties {
    name: &'static str,
    extents: bool,
    snapshots: bool,
    snapshot_field: bool,
}

const fn properties(name: &'static str, flags: &str) -> Properties {
    let f = flags.as_bytes();
    let (mut extents, mut snapshots, mut snapshot_field) = (false, false, false);
    let mut i = 0;
    while i < f.len() {
        match f[i] {
            b'E' => extents = true,
            b'S' => snapshots = true,
            b'F' => snapshot_field = true,
            _ => panic!("unknown b-tree flag"),
        }
        i += 1;
    }
    Properties { name, extents, snapshots, snapshot_field }
}

/// Indexed by id. `E` keys cover ranges, `S` snapshot visibility applies, `F` the snapshot field holds something else.
const BTREES: [Properties; 29] = [
    properties("extents", "ES"),
    properties("inodes", "S"),
    properties("dirents", "S"),
    properties("xattrs", "S"),
    properties("alloc", ""),
    properties("quotas", ""),
    properties("stripes", ""),
    properties("reflink", "E"),
    properties("subvolumes", ""),
    properties("snapshots", ""),
    properties("lru", ""),
    properties("freespace", "E"),
    properties("need_discard", ""),
    properties("backpointers", ""),
    properties("bucket_gens", ""),
    properties("snapshot_trees", ""),
    properties("deleted_inodes", "F"),
    properties("logged_ops", ""),
    properties("rebalance_work", "F"),
    properties("subvolume_children", ""),
    properties("accounting", "F"),
    properties("reconcile_hipri", "F"),
    properties("reconcile_pending", "F"),
    properties("reconcile_scan", ""),
    properties("reconcile_work_phys", ""),
    properties("reconcile_hipri_phys", ""),
    properties("bucket_to_stripe", ""),
    properties("stripe_backpointers", ""),
    properties("damage", "S"),
];

macro_rules! ids {
    ($($name:ident = $id:literal),* $(,)?) => {
        impl BtreeId {
            $(#[doc = concat!("The `", stringify!($name), "` b-tree.")] pub const $name: BtreeId = BtreeId($id);)*
        }
    };
}

ids! {
    EXTENTS = 0, INODES = 1, DIRENTS = 2, XATTRS = 3, ALLOC = 4, QUOTAS = 5, STRIPES = 6, REFLINK = 7, SUBVOLUMES = 8,
    SNAPSHOTS = 9, LRU = 10, FREESPACE = 11, NEED_DISCARD = 12, BACKPOINTERS = 13, BUCKET_GENS = 14, SNAPSHOT_TREES = 15,
    DELETED_INODES = 16, LOGGED_OPS = 17, REBALANCE_WORK = 18, SUBVOLUME_CHILDREN = 19, ACCOUNTING = 20,
    RECONCILE_HIPRI = 21, RECONCILE_PENDING = 22, RECONCILE_SCAN = 23, RECONCILE_WORK_PHYS = 24,
    RECONCILE_HIPRI_PHYS = 25, BUCKET_TO_STRIPE = 26, STRIPE_BACKPOINTERS = 27, DAMAGE = 28,
}

impl BtreeId {
    /// At most this many ids can ever exist (spec 30 §1).
    pub const COUNT_MAX: usize = 63;
    /// B-trees known at format 1.13.
    pub const COUNT_1_13: u8 = 21;

    /// Every b-tree known at format 1.39.
    pub fn known() -> impl Iterator<Item = BtreeId> {
        (0..BTREES.len() as u8).map(BtreeId)
    }

    fn properties(self) -> Option<&'static Properties> {
        BTREES.get(usize::from(self.0))
    }

    /// The name used in listings (id 18 was renamed `reconcile_work` at 1.33; the 1.13 name is used); `None` for
    /// a b-tree this version does not know.
    pub fn name(self) -> Option<&'static str> {
        self.properties().map(|p| p.name)
    }

    /// The b-tree with that name.
    pub fn from_name(name: &str) -> Option<BtreeId> {
        let name = if name == "reconcile_work" { "rebalance_work" } else { name };
        BtreeId::known().find(|b| b.name() == Some(name))
    }

    /// Keys have a size and cover a range that ends at their position.
    pub fn is_extents(self) -> bool {
        self.properties().is_some_and(|p| p.extents)
    }

    /// Snapshot visibility applies; every key has a nonzero snapshot.
    pub fn has_snapshots(self) -> bool {
        self.properties().is_some_and(|p| p.snapshots)
    }

    /// The snapshot field may be nonzero: either [`Self::has_snapshots`], or used for something else.
    pub fn has_snapshot_field(self) -> bool {
        self.properties().is_some_and(|p| p.snapshots || p.snapshot_field)
    }
}

impl fmt::Display for BtreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown btree {})", self.0),
        }
    }
}

impl fmt::Debug for BtreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for id in BtreeId::known() {
            assert_eq!(BtreeId::from_name(id.name().expect("known")), Some(id));
        }
        assert_eq!(BtreeId::from_name("reconcile_work"), Some(BtreeId::REBALANCE_WORK));
        assert_eq!(BtreeId(29).name(), None);
    }

    #[test]
    fn properties_follow_the_table() {
        assert!(BtreeId::EXTENTS.is_extents() && BtreeId::EXTENTS.has_snapshots());
        assert!(BtreeId::REFLINK.is_extents() && !BtreeId::REFLINK.has_snapshot_field());
        assert!(BtreeId::ACCOUNTING.has_snapshot_field() && !BtreeId::ACCOUNTING.has_snapshots());
    }
}
