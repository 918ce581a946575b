//! Hash tables laid over a b-tree: how a name finds its key (spec 40 §4.2).
//!
//! Directory entries and extended attributes lie at (owner, hash of the name). Where that slot is taken the item goes to the
//! next free one, so a search begins at the hash and goes on as long as the slots are occupied: by items, or by
//! `hash_whiteout`s, which keep the place of something deleted. The first slot that holds neither ends it: nothing was
//! ever pushed past it.
//!
//! The search sees what one snapshot sees. A whiteout of that snapshot is an empty slot.

use std::ops::{ControlFlow, Range};

use frazil_btree::{Btrees, View};
use frazil_ondisk::units::Inum;
use frazil_ondisk::{Bpos, BtreeId, Key, KeyType};

use crate::error::Result;

/// What a search makes of an item it meets.
pub(crate) enum Probe<T> {
    /// It is the one.
    Found(T),
    /// It is another one: the search goes on behind it.
    Other,
    /// The caller must not see it (spec 40 §5.3); the slot is free, but what was pushed past it is found behind it.
    Invisible,
}

/// Searches the table of `owner` from `slot` on; `None` if it ends before `probe` found what it wants.
///
/// # Errors
/// If a node on the way cannot be read.
pub(crate) fn find<T>(
    btrees: &Btrees,
    btree: BtreeId,
    view: &View,
    owner: Inum,
    slot: u64,
    mut probe: impl FnMut(Key<'_>) -> Probe<T>,
) -> Result<Option<T>> {
    let mut cursor = btrees.visible(btree, view, slots(owner, slot));
    let mut expected = slot;
    while let Some(key) = cursor.next()? {
        if key.k.pos.offset != expected {
            return Ok(None);
        }
        if key.k.ty != KeyType::HASH_WHITEOUT {
            match probe(key) {
                Probe::Found(found) => return Ok(Some(found)),
                Probe::Other | Probe::Invisible => {}
            }
        }
        expected += 1;
    }
    Ok(None)
}

/// The slots of the table of `owner` from one on.
pub(crate) fn slots(owner: Inum, from: u64) -> Range<Bpos> {
    Bpos::new(owner.0, from, 0)..Bpos::new(owner.0, u64::MAX, 0)
}

/// What a scan does where a node cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnDamage {
    /// It ends: who goes on from a position later must meet the damage again.
    Stop,
    /// It passes over what is lost, and fails at its end.
    PassOver,
}

/// Shows all items of the table of `owner` at or behind `slot` that the snapshot sees, until told to stop.
///
/// # Errors
/// If a node cannot be read; the items that can be had, up to the end or to the damage, have been shown.
pub(crate) fn scan(
    btrees: &Btrees,
    btree: BtreeId,
    view: &View,
    owner: Inum,
    slot: u64,
    on_damage: OnDamage,
    mut show: impl FnMut(Key<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let mut cursor = btrees.visible(btree, view, slots(owner, slot));
    let mut result = Ok(());
    loop {
        match cursor.next() {
            Ok(Some(key)) => {
                if key.k.ty != KeyType::HASH_WHITEOUT && show(key).is_break() {
                    return result;
                }
            }
            Ok(None) => return result,
            Err(e) => {
                result = result.and(Err(e.into()));
                if on_damage == OnDamage::Stop || cursor.skip_bad_node().is_none() {
                    return result;
                }
            }
        }
    }
}
