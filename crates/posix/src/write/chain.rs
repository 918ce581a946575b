//! Changing the hash tables of names and attributes (spec 40 §4.3).
//!
//! Reading one is told in [`crate::hashed`]. An item goes to the first slot from its hash on that holds none. Where something is taken out, a
//! `hash_whiteout` has to stay if an item behind it was pushed there past this slot; later items may use that place again.
//!
//! All of it is about what one snapshot sees; what other snapshots see is left alone.

use frazil_btree::View;
use frazil_ondisk::units::Inum;
use frazil_ondisk::{Bpos, BtreeId, Key, KeyBuf, KeyType};

use super::op::Op;
use crate::error::Result;
use crate::hashed::{Probe, slots};

/// What a search for an item met.
pub(crate) struct Searched<T> {
    /// The item: its key's position, and what the probe made of it.
    pub(crate) found: Option<(Bpos, T)>,
    /// The first slot from the hash on that holds no item, if the search came that far.
    pub(crate) free: Option<u64>,
}

/// A table in a transaction.
#[derive(Clone, Copy)]
pub(crate) struct Table<'v> {
    pub(crate) btree: BtreeId,
    pub(crate) view: &'v View,
    pub(crate) owner: Inum,
}

impl Table<'_> {
    /// Searches from `hash` on for the item that `probe` wants, and for a free slot.
    pub(crate) fn search<T>(
        &self,
        op: &Op<'_, '_>,
        hash: u64,
        mut probe: impl FnMut(Key<'_>) -> Probe<T>,
    ) -> Result<Searched<T>> {
        let mut cursor = op.t.visible(self.btree, self.view, slots(self.owner, hash));
        let (mut expected, mut free) = (hash, None);
        while let Some(key) = cursor.next()? {
            if key.k.pos.offset != expected {
                break;
            }
            if key.k.ty == KeyType::HASH_WHITEOUT {
                free = free.or(Some(expected));
            } else {
                match probe(key) {
                    Probe::Found(found) => return Ok(Searched { found: Some((key.k.pos, found)), free }),
                    Probe::Other => {}
                    // It may be overwritten, but what was pushed past it is behind it.
                    Probe::Invisible => free = free.or(Some(expected)),
                }
            }
            expected += 1;
        }
        Ok(Searched { found: None, free: free.or(Some(expected)) })
    }

    /// Takes the item at `slot` out of what the snapshot sees. `hash_of` tells where an item belongs; `None` for what the snapshot must not see.
    pub(crate) fn remove(
        &self,
        op: &mut Op<'_, '_>,
        slot: u64,
        hash_of: impl FnMut(Key<'_>) -> Option<u64>,
    ) -> Result<()> {
        let own = Bpos::new(self.owner.0, slot, self.view.id().0);
        if self.is_passed(op, slot, hash_of)? {
            self.put_whiteout(op, own);
            return Ok(());
        }
        Ok(op.t.delete_visible(self.btree, own, self.view)?)
    }

    /// Leaves a mark at a slot that a search has to go on behind it.
    pub(crate) fn put_whiteout(&self, op: &mut Op<'_, '_>, at: Bpos) {
        op.t.put(self.btree, KeyBuf::new(KeyType::HASH_WHITEOUT, at, 0, []));
    }

    /// Whether an item behind `slot` belongs at it or before.
    fn is_passed(
        &self,
        op: &Op<'_, '_>,
        slot: u64,
        mut hash_of: impl FnMut(Key<'_>) -> Option<u64>,
    ) -> Result<bool> {
        let mut cursor = op.t.visible(self.btree, self.view, slots(self.owner, slot.saturating_add(1)));
        let mut expected = slot + 1;
        while let Some(key) = cursor.next()? {
            if key.k.pos.offset != expected {
                break;
            }
            if key.k.ty != KeyType::HASH_WHITEOUT && hash_of(key).is_some_and(|hash| hash <= slot) {
                return Ok(true);
            }
            expected += 1;
        }
        Ok(false)
    }
}
