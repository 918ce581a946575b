//! Transactions: read, decide, change; all or nothing.
//!
//! ```text
//! engine.run(options, |t| {
//!     let key = t.get(btree, pos)?;       // notes what was looked at
//!     t.put(btree, changed(key));         // collects
//!     Ok(answer)
//! })                                      // commits, or runs the closure once more
//! ```
//!
//! The closure may run several times, so it must not do anything beyond the transaction that cannot be done twice. It sees its own changes. Any
//! number of keys of any leaves may be changed, as long as they fit one journal entry with all that follows from them; who has more asks
//! [`Transaction::keys_max`] how many, and does the rest in further transactions. What it sees is not a snapshot of one moment; but if it
//! has seen anything that is not true when it commits (or gives up with an error), it is run again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use frazil_ondisk::node::{FormatBuilder, SortedKeysBuilder};
use frazil_ondisk::units::{Inum, Seq};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::Engine;
use super::commit::{CommitOptions, Proposal, at};
use super::hooks::CommitError;
use super::stage::Changes;
use crate::cursor::{Cursor, Lens};
use crate::error::Result;
use crate::handle::KeyHandle;
use crate::overlay::LevelKeys;
use crate::reads::Reads;
use crate::snapshot_cursor::{SnapshotCursor, nearest_visible};
use crate::snapshots::View;

/// What a transaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<R> {
    /// What its closure returned.
    pub value: R,
    /// The journal entry it is in; `None` if it changed nothing. Durable when [`frazil_journal::Journal::flush_seq`] says so.
    pub seq: Option<Seq>,
}

/// A transaction being made. See the [module](self).
pub struct Transaction<'e> {
    engine: &'e Engine,
    reads: Reads,
    changes: Changes,
    /// The changes of a b-tree as cursors look through them; made when wanted.
    pending: RefCell<HashMap<BtreeId, LevelKeys>>,
    /// How often it turned out to be too large so far.
    halvings: u32,
    /// It was told to change several keys, and would change fewer if it were told so.
    can_shrink: Cell<bool>,
}

/// Words of a journal entry that a changed key may need with what follows from it, usually: itself, its bucket's key and lists, its
/// backpointer, counters. With several replicas it may be more.
const WORDS_PER_KEY: u32 = 64;

impl Engine {
    /// Runs `f` until it has read nothing that is untrue, and commits what it changed.
    ///
    /// # Errors
    /// What `f` returned, and then nothing has changed; or why the commit is not possible.
    pub fn run<R, E: From<CommitError>>(
        &self,
        options: CommitOptions,
        mut f: impl FnMut(&mut Transaction<'_>) -> std::result::Result<R, E>,
    ) -> std::result::Result<Done<R>, E> {
        let mut halvings = 0;
        loop {
            let mut transaction = Transaction::new(self, halvings);
            let result = f(&mut transaction);
            if self.restarts() {
                continue;
            }
            let value = match result {
                Ok(value) => value,
                Err(_) if !transaction.is_true() => continue,
                Err(error) => return Err(error),
            };
            if transaction.changes.is_empty() {
                if transaction.is_true() {
                    return Ok(Done { value, seq: None });
                }
                continue;
            }
            let Transaction { reads, changes, .. } = &transaction;
            let proposal = Proposal {
                changes,
                records: &[],
                reads: Some(reads),
                triggers: true,
                watermark: options.watermark,
            };
            match self.commit(&proposal) {
                Ok(Some(committed)) => return Ok(Done { value, seq: committed.seq }),
                Ok(None) => {}
                Err(CommitError::TooLarge { .. }) if transaction.can_shrink.get() => halvings += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<'e> Transaction<'e> {
    fn new(engine: &'e Engine, halvings: u32) -> Self {
        Self {
            engine,
            reads: Reads::default(),
            changes: Changes::new(),
            pending: RefCell::default(),
            halvings,
            can_shrink: Cell::new(false),
        }
    }

    /// How many keys a step of something longer should change, `most` or fewer, so that they fit one journal entry with all that follows from
    /// them. What follows is not known before; if it was too much the closure is run again, and this is half of what it was. At least 1.
    pub fn keys_max(&self, most: usize) -> usize {
        let fit = (self.engine.journal().entry_words_max() / WORDS_PER_KEY) as usize;
        let keys = fit.min(most).checked_shr(self.halvings).unwrap_or(0).max(1);
        self.can_shrink.set(self.can_shrink.get() || keys > 1);
        keys
    }

    /// How many keys it changes so far.
    pub fn changed(&self) -> usize {
        self.changes.len()
    }

    /// Whether everything that was read is still so.
    fn is_true(&self) -> bool {
        let _settled = self.engine.committer.lock();
        self.reads.still_true(&self.engine.trees)
    }

    /// The engine.
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// The key exactly at `pos`; whiteouts are keys here.
    ///
    /// # Errors
    /// If the node that covers `pos` cannot be had.
    pub fn get(&self, btree: BtreeId, pos: Bpos) -> Result<Option<KeyHandle>> {
        let mut cursor = self.cursor(btree, pos..=pos);
        Ok(if cursor.step_next()? { cursor.handle() } else { None })
    }

    /// A cursor over the keys of a b-tree within `range`, in front of the first.
    pub fn cursor(&self, btree: BtreeId, range: impl RangeBounds<Bpos>) -> Cursor<'_> {
        let lens = Lens { pending: self.pending(btree, &range), reads: Some(&self.reads) };
        Cursor::new(&self.engine.trees, btree, 0, range, lens)
    }

    /// The key that a snapshot sees at (inode, offset); the snapshot in `pos` means nothing.
    ///
    /// # Errors
    /// If a node that may hold it cannot be had.
    pub fn get_visible(&self, btree: BtreeId, pos: Bpos, view: &View) -> Result<Option<KeyHandle>> {
        let (from, to) = (pos.with_snapshot(view.id().0), pos.with_snapshot(u32::MAX));
        nearest_visible(self.cursor(btree, from..=to), view)
    }

    /// A cursor over what a snapshot sees within a range of (inode, offset); see [`crate::Btrees::visible`].
    pub fn visible(&self, btree: BtreeId, view: &View, range: Range<Bpos>) -> SnapshotCursor<'_> {
        SnapshotCursor::new(view, range, |range| self.cursor(btree, range))
    }

    /// A cursor over the extents of a file that a snapshot sees; see [`crate::Btrees::visible_extents`].
    pub fn visible_extents(&self, view: &View, inode: Inum, sectors: Range<u64>) -> SnapshotCursor<'_> {
        SnapshotCursor::of_extents(view, inode, sectors, |range| self.cursor(BtreeId::EXTENTS, range))
    }

    /// Puts a key, replacing what is at its position.
    pub fn put(&mut self, btree: BtreeId, key: KeyBuf) {
        self.pending.get_mut().remove(&btree);
        self.changes.insert(at(btree, 0, key.k.pos), key);
    }

    /// Removes the key exactly at `pos`. Keys of ancestor snapshots come to light by that: see [`Transaction::delete_visible`].
    pub fn delete(&mut self, btree: BtreeId, pos: Bpos) {
        self.put(btree, KeyBuf::new(KeyType::DELETED, pos, 0, []));
    }

    /// Makes a snapshot see nothing at (inode, offset): removes its own key, and leaves a whiteout if it would see an ancestor's (spec 30
    /// §9.1).
    ///
    /// # Errors
    /// If a node that may hold such a key cannot be had.
    pub fn delete_visible(&mut self, btree: BtreeId, pos: Bpos, view: &View) -> Result<()> {
        let own = pos.with_snapshot(view.id().0);
        let mut ancestors =
            self.cursor(btree, (Bound::Excluded(own), Bound::Included(pos.with_snapshot(u32::MAX))));
        let mut hides = false;
        while let Some(key) = ancestors.next()? {
            if view.sees(key.k.pos.snapshot) {
                hides = !key.k.ty.is_snapshot_whiteout();
                break;
            }
        }
        drop(ancestors);
        let ty = if hides { KeyType::WHITEOUT } else { KeyType::DELETED };
        self.put(btree, KeyBuf::new(ty, own, 0, []));
        Ok(())
    }

    /// The changes of a b-tree so far, as an overlay; `None` if there are none within `looked_at`.
    fn pending(&self, btree: BtreeId, looked_at: &impl RangeBounds<Bpos>) -> Option<LevelKeys> {
        let range = at(btree, 0, Bpos::MIN)..=at(btree, 0, Bpos::MAX);
        let from = match looked_at.start_bound() {
            Bound::Included(&from) | Bound::Excluded(&from) => from,
            Bound::Unbounded => Bpos::MIN,
        };
        let (_, first) = self.changes.range(at(btree, 0, from)..=*range.end()).next()?;
        let ends_before = match looked_at.end_bound() {
            Bound::Included(&to) => to < first.k.pos,
            Bound::Excluded(&to) => to <= first.k.pos,
            Bound::Unbounded => false,
        };
        if ends_before {
            return None;
        }
        let mut pending = self.pending.borrow_mut();
        let keys = pending.entry(btree).or_insert_with(|| {
            let mut format = FormatBuilder::new();
            let keys = || self.changes.range(range.clone()).map(|(_, key)| key.as_key());
            keys().for_each(|key| format.add_key(&key.k));
            let mut sorted = SortedKeysBuilder::with_capacity(format.build(), 8, 512);
            keys().for_each(|key| sorted.push(key));
            Arc::new(sorted.finish())
        });
        Some(Arc::clone(keys))
    }
}
