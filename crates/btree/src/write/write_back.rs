//! Writing a node's changes back: appended to the node, if there is room, else by replacing it.
//!
//! A write looks at the node once, works without locks, and ends with a commit that updates the pointer: it says how much of the node
//! is valid, so until it is in the journal the bytes appended do not count, and the keys in them are still pinned (spec 30 §8.4).

use std::sync::Arc;

use frazil_journal::JournalError;
use frazil_ondisk::KeyType;
use frazil_ondisk::jset::EntryType;
use frazil_ondisk::node::{BtreePtrV2, NodePtr, SortedKeys, SortedKeysBuilder, btree_ptr_key};
use frazil_ondisk::units::Sectors;
use frazil_ondisk::{Bpos, KeyBuf};

use super::Engine;
use super::commit::{Committed, PointerChange, PointerRecord, at};
use super::dirty::{DirtyNode, Snapshot};
use super::hooks::{Blocked, CommitError};
use super::stage::{Changes, pointer};
use crate::error::Span;
use crate::node::Node;
use crate::trees::Root;
use crate::view::MergedView;

impl Engine {
    /// Writes a node's changes back; if somebody is at it already, makes sure that it is done once more, and does not wait.
    ///
    /// # Errors
    /// Then nothing is lost: the changes are still in the journal.
    pub(crate) fn write_back(&self, node: &Arc<DirtyNode>) -> Result<(), CommitError> {
        while let Some(snapshot) = node.begin() {
            let written = self.write(node, &snapshot);
            let again = match written {
                Ok(again) => again,
                Err(error) => {
                    // A node that cannot be read was told of by who tried.
                    if let CommitError::Inconsistent(_) = error {
                        self.trees.tell(&error);
                    }
                    node.fail();
                    return Err(error);
                }
            };
            self.forget_if_clean(node);
            if !again {
                break;
            }
        }
        Ok(())
    }

    /// Writes what the snapshot shows. True if the node was asked for meanwhile.
    fn write(&self, node: &Arc<DirtyNode>, snapshot: &Snapshot) -> Result<bool, CommitError> {
        if snapshot.node.delta().words() > snapshot.room_words {
            return self.replace(node, snapshot).map(|()| false);
        }
        if self.is_small(&snapshot.node) && self.merge(node, snapshot)? {
            return Ok(false);
        }
        match self.append(node, snapshot) {
            // The place is bad, or a device is: another place may do.
            Err(CommitError::Device(why)) if self.journal.halted().is_none() => {
                tracing::error!("{}: {why}; it is written anew elsewhere", snapshot.node.span());
                self.replace(node, snapshot).map(|()| false)
            }
            done => done,
        }
    }

    /// Appends a bset to the node.
    fn append(&self, node: &Arc<DirtyNode>, snapshot: &Snapshot) -> Result<bool, CommitError> {
        let old = &snapshot.node;
        let span = old.span();
        let Some(bytes) = self.writer.later(old, node.cell.id().seq, snapshot.newest)? else {
            // Everything cancelled out.
            let keys = Arc::clone(old.keys());
            let written = old.sectors_written();
            let _settled = self.committer.lock();
            node.cell.rebase(|n| n.written(keys, old.change(), written));
            return Ok(node.finish(snapshot.room_words));
        };
        let ptr_key = self.pointer_to(span)?;
        let ptr = decode(span, &ptr_key)?;
        self.check_halted()?;
        let range = self.writer.write(ptr.ptrs(), old.sectors_written(), &bytes)?;
        let keys = Arc::new(merged(old));

        let pointer = with_sectors_written(span, &ptr_key, range.end)?;
        let (changes, records) = self.pointer_update(span, pointer.clone());
        let room = self.writer.room_words(range.end);
        let mut again = false;
        let what = PointerChange { changes: &changes, records: &records, triggers: false, valid: &|| true };
        let committed = self.commit_pointers(&what, |committer, reservation| {
            let mut full = Vec::new();
            self.install_pointer(committer, span, &pointer, Some(&node.cell), reservation, &mut full);
            node.cell.rebase(|n| n.written(Arc::clone(&keys), old.change(), range.end));
            again = node.finish(room);
            full
        })?;
        self.trees.cache.recharge(node.cell.id());
        self.relieve_parents(committed);
        Ok(again)
    }

    /// Once the journal has stopped no node is written any more and no place for one is looked for (spec 70 §5.4); a node may hold changes by
    /// then that never reach the journal. Asked before either.
    pub(crate) fn check_halted(&self) -> Result<(), CommitError> {
        self.journal.halted().map_or(Ok(()), |reason| Err(CommitError::Journal(JournalError::Halted(reason))))
    }

    /// The pointer to the node that covers `span`, read if need be.
    pub(crate) fn pointer_to(&self, span: Span) -> Result<KeyBuf, CommitError> {
        loop {
            match pointer(&self.trees, span.btree, span.level + 1, span.max) {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => {
                    return Err(CommitError::Inconsistent(format!("{span}: nothing points to this node")));
                }
                Err(Blocked::Absent { btree, pos }) => {
                    self.trees.descend(btree, pos, span.level + 1)?;
                }
                Err(Blocked::Failed(error)) => return Err(error),
                Err(Blocked::First(action)) => action()?,
            }
        }
    }

    /// The commit that changes the pointer to a node in place.
    fn pointer_update(&self, span: Span, pointer: KeyBuf) -> (Changes, [PointerRecord; 1]) {
        let Span { btree, level, .. } = span;
        let (ty, of) = match self.is_root(span) {
            true => (EntryType::BTREE_ROOT, level),
            false => (EntryType::BTREE_KEYS, level + 1),
        };
        let record = PointerRecord { ty, btree, level: of, key: pointer.clone() };
        (Changes::from([(at(btree, level + 1, span.max), pointer)]), [record])
    }

    pub(crate) fn is_root(&self, span: Span) -> bool {
        matches!(self.trees.root(span.btree), Some(Root::At { level, .. }) if level == span.level)
    }

    /// Parents that became full are replaced, from the bottom up. What led to it has succeeded already; if this does not, it is tried
    /// again when the parent is to be written next.
    pub(crate) fn relieve_parents(&self, committed: Option<Committed>) {
        for node in committed.into_iter().flat_map(|c| c.full) {
            if let Err(error) = self.write_back(&node) {
                tracing::warn!("a b-tree node cannot be written at the moment: {error}");
            }
        }
    }

    /// A node without changes needs no record.
    pub(crate) fn forget_if_clean(&self, node: &Arc<DirtyNode>) {
        let mut committer = self.committer.lock();
        let id = node.cell.id();
        let counts = committer.dirty.get(&id).is_some_and(|own| Arc::ptr_eq(own, node));
        if counts && node.retire_if_clean() {
            committer.clean(node);
        }
    }
}

/// The keys of a node with its changes.
fn merged(node: &Node) -> SortedKeys {
    let keys = node.keys();
    let (count, bytes) = (keys.len() + node.delta().len(), (keys.u64s() + node.delta().words()) * 8);
    let mut sorted = SortedKeysBuilder::with_capacity(keys.format().clone(), count, bytes);
    let mut view = MergedView::new(Some(node), None, Bpos::MIN, Bpos::MAX);
    while let Some(at) = view.next() {
        sorted.push(view.key(at));
    }
    sorted.finish()
}

pub(crate) fn decode(span: Span, key: &KeyBuf) -> Result<NodePtr<'_>, CommitError> {
    NodePtr::decode(span.btree, span.level, key.as_key())
        .map_err(|why| CommitError::Inconsistent(format!("{span}: {why}")))
}

/// The same pointer, saying that the node is written up to `end`.
fn with_sectors_written(span: Span, key: &KeyBuf, end: Sectors) -> Result<KeyBuf, CommitError> {
    if key.k.ty != KeyType::BTREE_PTR_V2 {
        // The reference stops with an error when it has appended to a node behind such a pointer (spec 30 §8.1).
        let why = format!("{span}: the pointer is of the old form and cannot say how much is written");
        return Err(CommitError::Inconsistent(why));
    }
    let ptr =
        BtreePtrV2::decode(&key.value).map_err(|why| CommitError::Inconsistent(format!("{span}: {why}")))?;
    Ok(btree_ptr_key(key.k.pos, &BtreePtrV2 { sectors_written: end, ..ptr }))
}
