//! Committing: the one place where keys change.
//!
//! Under the commit lock, in this order: what the transaction read is still true; what each change replaces is looked up; triggers add what
//! follows; no leaf is overgrown; the journal has room. Up to here everything may be given up, and what has to be waited for is
//! done without the lock before the next attempt. From the reservation on nothing can fail (INV-4): numbers are stamped, keys go
//! into the entry, then into the leaves and the buffer, and memory follows.
//!
//! Because the reservation is taken and the keys are applied under one lock, the order of the journal is the order in memory (INV-2).

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use frazil_device::waiting;
use frazil_journal::engine::{Reservation, Wait};
use frazil_journal::{JournalError, Watermark};
use frazil_ondisk::bkey::BVersion;
use frazil_ondisk::jset::EntryType;
use frazil_ondisk::units::Seq;
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::dirty::{DirtyNode, Fill};
use super::hooks::{Blocked, Change, CommitError};
use super::stage::{Changes, Draft, Placed, leaf, place};
use super::{Committer, Engine};
use crate::LEVEL_MAX;
use crate::cell::NodeCell;
use crate::delta::Entry;
use crate::reads::Reads;

/// How a transaction commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitOptions {
    /// Its privilege in the journal.
    pub watermark: Watermark,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self { watermark: Watermark::Normal }
    }
}

/// Why an attempt has to be repeated, and what to do first.
pub(crate) enum Retry {
    /// Something that was read has changed: the whole transaction begins again.
    Conflict,
    /// As for triggers.
    Blocked(Blocked),
    /// The journal has no room for so many words.
    Room(u32),
    /// The b-tree has no nodes yet.
    Rootless(BtreeId),
    /// A node has more changes than can be borne.
    Overgrown(Arc<DirtyNode>),
}

impl<E: Into<Blocked>> From<E> for Retry {
    fn from(why: E) -> Self {
        Retry::Blocked(why.into())
    }
}

/// What a commit has done.
pub(crate) struct Committed {
    /// The entry it is in; `None` if there was nothing to do.
    pub(crate) seq: Option<Seq>,
    /// Nodes that should be written or replaced.
    pub(crate) full: Vec<Arc<DirtyNode>>,
}

/// A pointer as the journal records it: a key of an interior level, or a root.
pub(crate) struct PointerRecord {
    pub(crate) ty: EntryType,
    pub(crate) btree: BtreeId,
    /// Of the node that holds the key; of the node pointed to, for a root.
    pub(crate) level: u8,
    pub(crate) key: KeyBuf,
}

/// A change of pointers.
pub(crate) struct PointerChange<'p> {
    pub(crate) changes: &'p Changes,
    pub(crate) records: &'p [PointerRecord],
    /// Nodes come or go, from which keys follow.
    pub(crate) triggers: bool,
    /// Whether what the change rests on still holds; asked under the commit lock.
    pub(crate) valid: &'p dyn Fn() -> bool,
}

/// What a commit is made of.
#[derive(Clone, Copy)]
pub(crate) struct Proposal<'p> {
    pub(crate) changes: &'p Changes,
    /// How changes of pointers are recorded.
    pub(crate) records: &'p [PointerRecord],
    /// What it rests on.
    pub(crate) reads: Option<&'p Reads>,
    /// Whether keys follow from these; not if only the record of where a node ends changes.
    pub(crate) triggers: bool,
    pub(crate) watermark: Watermark,
}

impl Engine {
    /// Commits changes of leaves. Waits and repeats as needed.
    ///
    /// # Errors
    /// `Ok(None)` if something that was read has changed: nothing happened, the transaction has to begin again.
    pub(crate) fn commit(&self, proposal: &Proposal<'_>) -> Result<Option<Committed>, CommitError> {
        let mut held = Vec::new();
        loop {
            let mut committer = self.committer.lock();
            let tried = self.try_commit(&mut committer, proposal, |_, _| Vec::new());
            drop(committer);
            match tried {
                Ok((committed, reservation)) => {
                    // Returned without the lock: it may be the last, and wake others.
                    drop(reservation);
                    self.after_commit(&committed.full);
                    return Ok(Some(committed));
                }
                Err(Retry::Conflict) => return Ok(None),
                // A node that could not be read was told of already.
                Err(Retry::Blocked(Blocked::Failed(error @ CommitError::Inconsistent(_)))) => {
                    self.trees.tell(&error);
                    return Err(error);
                }
                Err(retry) => self.before_retry(retry, proposal.watermark, &mut held)?,
            }
        }
    }

    /// Commits changes of pointers; `install` puts them into the trees in memory, before what was derived is applied, and returns the nodes that are
    /// full then. Waits and repeats as needed, but not for anything that only reclaim provides.
    ///
    /// # Errors
    /// `Ok(None)` if the change is not valid any more: nothing happened.
    pub(crate) fn commit_pointers(
        &self,
        what: &PointerChange<'_>,
        mut install: impl FnMut(&mut Committer, &Reservation<'_>) -> Vec<Arc<DirtyNode>>,
    ) -> Result<Option<Committed>, CommitError> {
        let watermark = Watermark::InteriorUpdates;
        let PointerChange { changes, records, triggers, valid } = *what;
        let proposal = Proposal { changes, records, reads: None, triggers, watermark };
        let mut held = Vec::new();
        loop {
            let mut committer = self.committer.lock();
            if !valid() {
                return Ok(None);
            }
            let tried = self.try_commit(&mut committer, &proposal, &mut install);
            drop(committer);
            match tried {
                Ok((committed, reservation)) => {
                    drop(reservation);
                    return Ok(Some(committed));
                }
                Err(retry) => self.before_retry(retry, watermark, &mut held)?,
            }
        }
    }

    /// Does, without locks, what an attempt could not wait for. Nodes that were read for it are `held` until it succeeds, however small the cache is.
    fn before_retry(
        &self,
        retry: Retry,
        watermark: Watermark,
        held: &mut Vec<Arc<NodeCell>>,
    ) -> Result<(), CommitError> {
        match retry {
            Retry::Conflict => Ok(()),
            Retry::Blocked(Blocked::Failed(error)) => Err(error),
            Retry::Blocked(Blocked::First(action)) => action(),
            Retry::Blocked(Blocked::Absent { btree, pos }) => {
                for level in 0..=LEVEL_MAX {
                    held.extend(self.trees.descend(btree, pos, level)?.cell);
                }
                Ok(())
            }
            Retry::Room(words) => Ok(self.journal.wait_for_words(words, watermark, Wait::Forever)?),
            Retry::Rootless(btree) => self.make_root(btree),
            Retry::Overgrown(node) => {
                waiting::about_to_wait();
                self.relieve(std::slice::from_ref(&node))?;
                node.wait_idle();
                Ok(())
            }
        }
    }

    fn try_commit<'e>(
        &'e self,
        committer: &mut Committer,
        proposal: &Proposal<'_>,
        install: impl FnOnce(&mut Committer, &Reservation<'_>) -> Vec<Arc<DirtyNode>>,
    ) -> Result<(Committed, Option<Reservation<'e>>), Retry> {
        if proposal.reads.is_some_and(|reads| !reads.still_true(&self.trees)) {
            return Err(Retry::Conflict);
        }
        let mut placed = place(&self.trees, proposal.changes)?;
        let mut draft = Draft::new(&self.trees, proposal.changes.clone());
        if proposal.triggers {
            let changes: Vec<Change> = placed.iter().map(|p| p.change.clone()).collect();
            self.triggers.run(&mut draft, &changes)?;
        }
        let (mut changes, buffered, accounted) = draft.into_parts();
        for Placed { change, .. } in &mut placed {
            // Triggers may have changed it further.
            if let Some(new) = changes.remove(&at(change.btree, change.level, change.new.k.pos)) {
                change.new = new;
            }
        }
        placed.extend(place(&self.trees, &changes)?);
        let ordinary = proposal.watermark < Watermark::InteriorUpdates;
        self.check_leaves(committer, &placed, ordinary)?;

        let words = self.words(&placed, proposal.records, &buffered, &accounted);
        if words == 0 {
            return Ok((Committed { seq: None, full: Vec::new() }, None));
        }
        let mut reservation =
            self.journal.reserve(words, proposal.watermark, Wait::Never).map_err(|error| match error {
                JournalError::WouldBlock => Retry::Room(words),
                JournalError::TooLarge { words, limit } => CommitError::TooLarge { words, limit }.into(),
                other => CommitError::from(other).into(),
            })?;
        let seq = reservation.seq();
        for Placed { change, .. } in placed.iter_mut().filter(|p| p.change.level == 0) {
            self.triggers.stamp(seq, change.btree, change.old.as_ref(), &mut change.new);
        }
        push_changes(&mut reservation, &placed, proposal.records);
        let deltas = self.push_behind(&mut reservation, &buffered, &accounted);

        let mut full = install(committer, &reservation);
        let changes = self.apply(committer, placed, &reservation, &mut full);
        committer.buffer.add_all(buffered, deltas, &reservation);
        if proposal.triggers {
            self.triggers.committed(seq, &changes, &accounted);
        }
        Ok((Committed { seq: Some(seq), full }, Some(reservation)))
    }

    /// Every leaf exists, and can bear more.
    fn check_leaves(&self, committer: &Committer, placed: &[Placed], ordinary: bool) -> Result<(), Retry> {
        for Placed { change, leaf } in placed.iter().filter(|p| p.change.level == 0) {
            let Some(cell) = leaf else { return Err(Retry::Rootless(change.btree)) };
            if ordinary
                && let Some(dirty) = committer.dirty.get(&cell.id())
                && dirty.is_overgrown(self.writer.words_max())
            {
                return Err(Retry::Overgrown(Arc::clone(dirty)));
            }
        }
        Ok(())
    }

    /// Words the commit takes in an entry.
    fn words(
        &self,
        placed: &[Placed],
        records: &[PointerRecord],
        buffered: &[(BtreeId, KeyBuf)],
        accounted: &[(AccountingPos, [i64; 3])],
    ) -> u32 {
        let leaves = placed.iter().filter(|p| p.change.level == 0).map(|p| &p.change.new);
        let keys = leaves.chain(records.iter().map(|r| &r.key)).chain(buffered.iter().map(|(_, k)| k));
        let keys: usize = keys.map(|key| 1 + key.as_key().u64s()).sum();
        let version = self.writer.version();
        let counters: usize = accounted.iter().map(|(pos, _)| 6 + pos.nr_counters(version)).sum();
        u32::try_from(keys + counters).unwrap_or(u32::MAX)
    }

    /// Pushes what is written behind; returns the counters as keys, each with the version that says where it stands in the journal (spec 50 §2.8).
    fn push_behind(
        &self,
        reservation: &mut Reservation<'_>,
        buffered: &[(BtreeId, KeyBuf)],
        accounted: &[(AccountingPos, [i64; 3])],
    ) -> Vec<KeyBuf> {
        for (btree, key) in buffered {
            reservation.push_key(EntryType::BTREE_KEYS, *btree, 0, key.as_key());
        }
        let version = self.writer.version();
        let mut deltas = Vec::with_capacity(accounted.len());
        for (pos, counters) in accounted {
            let mut value = Vec::with_capacity(24);
            Counters::encode(counters.iter().take(pos.nr_counters(version)).copied(), &mut value);
            let mut key = KeyBuf::new(KeyType::ACCOUNTING, pos.encode(Order::of(version)), 0, value);
            let seq = reservation.seq().0;
            let word = u64::from(reservation.next_word());
            key.k.version = BVersion { hi: (seq >> 32) as u32, lo: seq << 32 | word };
            reservation.push_key(EntryType::BTREE_KEYS, BtreeId::ACCOUNTING, 0, key.as_key());
            deltas.push(key);
        }
        deltas
    }

    /// Puts the keys into their leaves. Returns the changes as they were made.
    fn apply(
        &self,
        committer: &mut Committer,
        placed: Vec<Placed>,
        reservation: &Reservation<'_>,
        full: &mut Vec<Arc<DirtyNode>>,
    ) -> Vec<Change> {
        let mut changes = Vec::with_capacity(placed.len());
        for Placed { change, leaf: found } in placed {
            if change.level == 0 {
                let (btree, pos) = (change.btree, change.new.k.pos);
                let cell = match found {
                    Some(cell) if !cell.is_replaced() => cell,
                    _ => match leaf(&self.trees, btree, pos) {
                        Ok(Some(cell)) => cell,
                        _ => unreachable!("what replaces a leaf in a commit is in memory"),
                    },
                };
                self.put(committer, &cell, change.new.clone(), reservation, full);
            }
            changes.push(change);
        }
        changes
    }

    /// Puts a key into a node.
    pub(crate) fn put(
        &self,
        committer: &mut Committer,
        cell: &Arc<NodeCell>,
        key: KeyBuf,
        reservation: &Reservation<'_>,
        full: &mut Vec<Arc<DirtyNode>>,
    ) {
        let dirty = self.dirty(committer, cell);
        committer.charge(&dirty, entry_bytes(&key));
        if dirty.put(Arc::new(key), reservation, reservation.seq()) == Fill::Full {
            note_full(full, dirty);
        }
    }

    /// The record of a node as dirty, made if it was clean.
    pub(crate) fn dirty(&self, committer: &mut Committer, cell: &Arc<NodeCell>) -> Arc<DirtyNode> {
        if let Some(node) = committer.dirty.get(&cell.id()) {
            return Arc::clone(node);
        }
        let room = self.writer.room_words(cell.load().sectors_written());
        let node = DirtyNode::new(Arc::clone(cell), &self.me, &self.journal, room);
        if committer.oldest.len() > 64 + 2 * committer.dirty.len() {
            // Most are clean by now, and even the memory of a weak reference adds up.
            committer.oldest.retain(|node| node.strong_count() > 0);
        }
        committer.oldest.push_back(Arc::downgrade(&node));
        committer.charge(&node, cell.memory_bytes());
        committer.dirty.insert(cell.id(), Arc::clone(&node));
        node
    }

    /// Sees to it that what a commit has filled is written, and that there is not too much dirt.
    fn after_commit(&self, full: &[Arc<DirtyNode>]) {
        if !full.is_empty() && !self.behind.leave_nodes(full) {
            self.or_later(full.iter().try_for_each(|node| self.write_back(node)));
        }
        self.or_later(self.relieve_dirt());
        self.or_later(self.relieve_buffer());
    }

    /// If what should be written now cannot be, after something that has succeeded and stays so, the changes stay in memory, pinned, and it is tried again
    /// when they are to be written next.
    pub(crate) fn or_later(&self, written: Result<(), CommitError>) {
        if let Err(error) = written {
            tracing::warn!("a b-tree node cannot be written at the moment: {error}");
        }
    }

    /// Writes or replaces nodes that are full; and see [`Engine::relieve_dirt`] and [`Engine::relieve_buffer`].
    pub(crate) fn relieve(&self, full: &[Arc<DirtyNode>]) -> Result<(), CommitError> {
        full.iter().try_for_each(|node| self.write_back(node))?;
        self.relieve_dirt()?;
        self.relieve_buffer()
    }

    /// If there is too much dirt, writes the nodes that have been dirty for longest.
    fn relieve_dirt(&self) -> Result<(), CommitError> {
        // A few at a time: who makes dirt cleans up a little more than that.
        for _ in 0..4 {
            let mut committer = self.committer.lock();
            if committer.dirty_bytes <= self.dirty_bytes_max() {
                break;
            }
            let Some(node) = committer.oldest.pop_front() else { break };
            let Some(node) = node.upgrade() else { continue };
            drop(committer);
            self.write_back(&node)?;
            let mut committer = self.committer.lock();
            if committer.dirty.contains_key(&node.cell.id()) {
                committer.oldest.push_back(Arc::downgrade(&node));
            }
        }
        Ok(())
    }
}

impl Committer {
    /// Counts memory of a dirty node.
    fn charge(&mut self, node: &DirtyNode, bytes: usize) {
        node.charged.fetch_add(bytes, Ordering::Relaxed);
        self.dirty_bytes += bytes;
    }

    /// A node is not dirty any more.
    pub(crate) fn clean(&mut self, node: &DirtyNode) {
        if self.dirty.remove(&node.cell.id()).is_some() {
            self.dirty_bytes -= node.charged.load(Ordering::Relaxed);
        }
    }
}

/// Memory that a change takes in a delta, about.
fn entry_bytes(key: &KeyBuf) -> usize {
    size_of::<Entry>() + size_of::<KeyBuf>() + 16 + key.value.len()
}

fn push_changes(reservation: &mut Reservation<'_>, placed: &[Placed], records: &[PointerRecord]) {
    for PointerRecord { ty, btree, level, key } in records {
        reservation.push_key(*ty, *btree, *level, key.as_key());
    }
    for Change { btree, new, .. } in placed.iter().map(|p| &p.change).filter(|c| c.level == 0) {
        reservation.push_key(EntryType::BTREE_KEYS, *btree, 0, new.as_key());
    }
}

pub(crate) fn note_full(full: &mut Vec<Arc<DirtyNode>>, node: Arc<DirtyNode>) {
    if !full.iter().any(|other| Arc::ptr_eq(other, &node)) {
        full.push(node);
    }
}

/// The place of a key among changes.
pub(crate) fn at(btree: BtreeId, level: u8, pos: Bpos) -> (BtreeId, Reverse<u8>, Bpos) {
    (btree, Reverse(level), pos)
}
