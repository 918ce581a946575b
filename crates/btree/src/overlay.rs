//! Keys that are in the journal but not yet in the nodes.
//!
//! After an unclean shutdown the newest state of a b-tree is its nodes *plus* the keys of the journal entries that were
//! never written back. Recovery replays them; until it has, and always on a volume that must not be written, they lie
//! over the nodes as an overlay: at equal (b-tree, level, position) the journal's key wins, and one of type `deleted`
//! hides the node's key (spec 60 §4.6). Nothing else is compared, also not for extents: those were cut before they were
//! journalled.
//!
//! The overlay exists at every level. A key at level 1 or above is a pointer to a node, so it replaces, adds or removes
//! a child, and a lookup descends into nodes that only the journal knows (spec 30 §5.7).
//!
//! Accounting keys do not belong here: in the journal they are deltas, which add up instead of replacing each other
//! (spec 50 §2.8).
//!
//! An overlay is built once, before the trees are used, and never changes while they are; cursors rely on that.

use std::collections::HashMap;
use std::sync::Arc;

use frazil_ondisk::{BtreeId, KeyBuf};

/// The journal's keys of one level of one b-tree, strictly ascending by position.
pub(crate) type LevelKeys = Arc<[KeyBuf]>;

/// The journal's keys of all b-trees.
#[derive(Default)]
pub struct Overlay {
    levels: HashMap<(BtreeId, u8), LevelKeys>,
}

impl Overlay {
    /// An overlay that changes nothing: that of a cleanly shut down volume.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Sets the keys of one level. Of several at one position the last one counts, as it does in the journal; the order is
    /// otherwise free. Replaces what was set for that level before.
    pub fn set(&mut self, btree: BtreeId, level: u8, mut keys: Vec<KeyBuf>) {
        if !keys.is_sorted_by(|a, b| a.k.pos < b.k.pos) {
            keys.reverse();
            // Stable, so that after the reversal the newest of equal positions comes first and is the one kept.
            keys.sort_by_key(|key| key.k.pos);
            keys.dedup_by_key(|key| key.k.pos);
        }
        if keys.is_empty() {
            self.levels.remove(&(btree, level));
        } else {
            self.levels.insert((btree, level), keys.into());
        }
    }

    /// The keys of one level, `deleted` ones included; `None` if there are none.
    pub(crate) fn level(&self, btree: BtreeId, level: u8) -> Option<&LevelKeys> {
        self.levels.get(&(btree, level))
    }

    /// Every (b-tree, level) that has keys, with their number.
    pub fn counts(&self) -> impl Iterator<Item = (BtreeId, u8, usize)> {
        self.levels.iter().map(|(&(btree, level), keys)| (btree, level, keys.len()))
    }
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::{Bpos, KeyType};

    use super::*;

    fn key(offset: u64, value: u8) -> KeyBuf {
        KeyBuf::new(KeyType::COOKIE, Bpos::new(0, offset, 0), 0, [value; 8])
    }

    #[test]
    fn the_last_of_equal_positions_counts() {
        let mut overlay = Overlay::empty();
        overlay.set(BtreeId::ALLOC, 0, vec![key(5, 1), key(3, 2), key(5, 3), key(4, 4), key(3, 5)]);
        let keys = overlay.level(BtreeId::ALLOC, 0).unwrap();
        assert_eq!(**keys, [key(3, 5), key(4, 4), key(5, 3)]);
        assert!(overlay.level(BtreeId::ALLOC, 1).is_none());
    }

    #[test]
    fn setting_no_keys_clears_a_level() {
        let mut overlay = Overlay::empty();
        overlay.set(BtreeId::ALLOC, 1, vec![key(1, 1)]);
        assert_eq!(overlay.counts().collect::<Vec<_>>(), [(BtreeId::ALLOC, 1, 1)]);
        overlay.set(BtreeId::ALLOC, 1, vec![]);
        assert_eq!(overlay.counts().count(), 0);
    }
}
