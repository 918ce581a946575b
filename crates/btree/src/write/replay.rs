//! Replay: putting the keys of an unclean journal back into memory.
//!
//! The newest key of every position and level is put into the node that covers it, pinned by the entry it comes from, as if it had just been
//! committed; then the journal goes on from there, and write-back does the rest in its own time. Levels above the leaves come first, because
//! they say where the leaves are. Nothing is journalled again, and nothing derived: that stands in the same entries.
//!
//! A node that becomes full on the way is replaced, which is a commit with triggers, and these look at the b-trees about space. So those
//! come before all others, too, and neither they nor pointers lead to a replacement while they come: what the triggers see must be
//! what the journal says, and must not be overwritten by older keys afterwards. The nodes stay fuller than usual until they are written back.

use std::cmp::Ordering;
use std::sync::Arc;

use frazil_journal::engine::ReplayHold;
use frazil_ondisk::values::accounting::Counters;
use frazil_ondisk::{BtreeId, KeyBuf, KeyType};

use super::Engine;
use super::dirty::Fill;
use super::hooks::CommitError;
use crate::error::Span;

impl Engine {
    /// Puts a key of `level` as the journal's entry under `hold` has it. Call it for the newest key of each position, for higher levels first, then for
    /// b-trees [about space](SPACE); not for [`BtreeId::ACCOUNTING`].
    ///
    /// # Errors
    /// If a node on the way cannot be had, or the b-tree has no such level.
    pub fn replay(
        &self,
        btree: BtreeId,
        level: u8,
        key: KeyBuf,
        hold: &ReplayHold<'_>,
    ) -> Result<(), CommitError> {
        loop {
            let place = self.trees.descend(btree, key.k.pos, level)?;
            let Some(cell) = place.cell else {
                if level > 0 {
                    let Span { btree, level, .. } = place.span;
                    let why = format!(
                        "b-tree {btree}: the journal has keys of level {level}, which it does not have"
                    );
                    return Err(CommitError::Inconsistent(why));
                }
                if key.k.ty == KeyType::DELETED {
                    return Ok(());
                }
                self.make_root(btree)?;
                continue;
            };
            let mut committer = self.committer.lock();
            if cell.is_replaced() {
                continue;
            }
            let node = self.dirty(&mut committer, &cell);
            let fill = node.put(Arc::new(key), hold, frazil_journal::engine::Protects::protected_seq(hold));
            if level > 0 {
                self.trees.reshaped();
            }
            drop(committer);
            if level > 0 || SPACE.contains(&btree) {
                // Writing back and replacing are commits, which must not see half of it.
                return Ok(());
            }
            let full = (fill == Fill::Full).then_some(node);
            return self.relieve(full.as_slice());
        }
    }

    /// Adds a difference of counters that the journal's entry under `hold` has, unless the b-tree's key includes it already. In the order of the
    /// journal.
    ///
    /// # Errors
    /// If the leaf that may hold the key cannot be had.
    pub fn replay_counters(&self, delta: KeyBuf, hold: &ReplayHold<'_>) -> Result<bool, CommitError> {
        let there = self.trees.get(BtreeId::ACCOUNTING, delta.k.pos)?;
        let includes = there.is_some_and(|key| {
            delta.k.version.cmp(&key.key().k.version) != Ordering::Greater
                && Counters::decode(key.key().value).is_ok()
        });
        if !includes {
            self.committer.lock().buffer.add_all(Vec::new(), vec![delta], hold);
        }
        Ok(!includes)
    }
}

/// The b-trees whose keys triggers look at and change when nodes come and go. They must be replayed before any node is replaced, in this order: what
/// it takes to make the first node of a later one stands in the earlier ones.
pub const SPACE: [BtreeId; 6] = [
    BtreeId::ALLOC,
    BtreeId::FREESPACE,
    BtreeId::BACKPOINTERS,
    BtreeId::NEED_DISCARD,
    BtreeId::BUCKET_GENS,
    BtreeId::LRU,
];
