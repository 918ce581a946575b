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

use frazil_journal::read;
use frazil_ondisk::node::{FormatBuilder, SortedKeys, SortedKeysBuilder};
use frazil_ondisk::{BtreeId, Key};

/// The journal's keys of one level of one b-tree, `deleted` ones included.
pub(crate) type LevelKeys = Arc<SortedKeys>;

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

    /// Sets the keys of one level; replaces what was set for that level before.
    ///
    /// # Panics
    /// If the positions do not rise strictly: of several keys at one position only the newest belongs in an overlay.
    pub fn set<'k>(&mut self, btree: BtreeId, level: u8, keys: impl Iterator<Item = Key<'k>> + Clone) {
        let mut format = FormatBuilder::new();
        let (mut count, mut bytes) = (0, 0);
        for key in keys.clone() {
            format.add_key(&key.k);
            count += 1;
            bytes += key.u64s() * 8;
        }
        if count == 0 {
            self.levels.remove(&(btree, level));
            return;
        }
        let mut sorted = SortedKeysBuilder::with_capacity(format.build(), count, bytes);
        keys.for_each(|key| sorted.push(key));
        self.levels.insert((btree, level), Arc::new(sorted.finish()));
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

impl From<&read::Overlay> for Overlay {
    /// The overlay that a scan of the journal found, without its accounting deltas.
    fn from(journal: &read::Overlay) -> Self {
        let mut overlay = Overlay::empty();
        for (btree, level) in journal.levels() {
            let keys = journal.level(btree, level);
            overlay.set(btree, level, (0..keys.len()).map(|i| keys.key(i)));
        }
        overlay
    }
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::{Bpos, KeyBuf};

    use super::*;
    use crate::testing::{deleted, key};

    fn at(offset: u64) -> Bpos {
        Bpos::new(0, offset, 0)
    }

    #[test]
    fn keys_are_kept_as_they_are() {
        let keys = [key(at(3), 1), deleted(at(4)), key(Bpos::MAX, 2)];
        let mut overlay = Overlay::empty();
        overlay.set(BtreeId::ALLOC, 0, keys.iter().map(KeyBuf::as_key));
        let level = overlay.level(BtreeId::ALLOC, 0).unwrap();
        assert!(level.iter().eq(keys.iter().map(KeyBuf::as_key)));
        assert!(overlay.level(BtreeId::ALLOC, 1).is_none());
    }

    #[test]
    fn setting_no_keys_clears_a_level() {
        let mut overlay = Overlay::empty();
        overlay.set(BtreeId::ALLOC, 1, [key(at(1), 1)].iter().map(KeyBuf::as_key));
        assert_eq!(overlay.counts().collect::<Vec<_>>(), [(BtreeId::ALLOC, 1, 1)]);
        overlay.set(BtreeId::ALLOC, 1, std::iter::empty());
        assert_eq!(overlay.counts().count(), 0);
    }

    #[test]
    #[should_panic(expected = "order")]
    fn two_keys_at_one_position_are_refused() {
        let keys = [key(at(3), 1), key(at(3), 2)];
        Overlay::empty().set(BtreeId::ALLOC, 0, keys.iter().map(KeyBuf::as_key));
    }
}
