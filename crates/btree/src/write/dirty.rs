//! A node with changes that are not on disk, and the journal entries it pins.
//!
//! Two pins take turns. Changes pin through the current one; starting a write turns to the other, so that what comes during the
//! write pins for itself, and the write's pin goes when the write is done. A change and the look that decides what a write
//! contains exclude each other by the node's own lock, so each change is either in the write, or pinned behind it.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use frazil_journal::engine::{Dirty, FlushFailed, PinClass, Protects};
use frazil_journal::{Journal, Pin};
use frazil_ondisk::KeyBuf;
use frazil_ondisk::units::Seq;
use parking_lot::{Condvar, Mutex};

use super::Engine;
use crate::cell::NodeCell;
use crate::node::Node;

/// See the [module](self).
pub(crate) struct DirtyNode {
    pub(crate) cell: Arc<NodeCell>,
    /// Bytes of memory counted for it; changes under the commit lock.
    pub(crate) charged: AtomicUsize,
    engine: Weak<Engine>,
    pins: [Pin; 2],
    inner: Mutex<Inner>,
    idle: Condvar,
}

struct Inner {
    /// The pin of new changes.
    pin: usize,
    /// The newest journal entry that has a change of it.
    newest: Seq,
    /// Somebody is writing it.
    writing: bool,
    /// It was asked for meanwhile: once more.
    again: bool,
    /// It is not what counts for its node any more: another node has taken the place of that, or the node was clean, and whoever changes it next makes
    /// another record.
    gone: bool,
    /// Words that fit another write.
    room_words: usize,
}

impl Inner {
    /// What changes of so many words are to the room that is left.
    fn fill(&self, words: usize) -> Fill {
        if words > self.room_words { Fill::Full } else { Fill::Fits }
    }
}

/// A look at a node for writing it.
pub(crate) struct Snapshot {
    pub(crate) node: Arc<Node>,
    pub(crate) newest: Seq,
    pub(crate) room_words: usize,
}

/// What a change did to its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// It still fits one write.
    Fits,
    /// It should be written or replaced soon.
    Full,
}

impl DirtyNode {
    pub(crate) fn new(
        cell: Arc<NodeCell>,
        engine: &Weak<Engine>,
        journal: &Arc<Journal>,
        room_words: usize,
    ) -> Arc<Self> {
        let class = PinClass::btree(cell.id().level);
        let pins = [0, 1].map(|tag| Pin::new(journal, class, tag));
        let inner = Inner { pin: 0, newest: Seq(0), writing: false, again: false, gone: false, room_words };
        let (engine, charged) = (engine.clone(), AtomicUsize::new(0));
        Arc::new(Self { cell, charged, engine, pins, inner: Mutex::new(inner), idle: Condvar::new() })
    }

    /// Puts a key that entry `under` holds, and whose newest version is in entry `newest`.
    pub(crate) fn put(self: &Arc<Self>, key: Arc<KeyBuf>, under: &impl Protects, newest: Seq) -> Fill {
        let mut inner = self.inner.lock();
        let words = self.cell.put(key, inner.writing);
        inner.newest = inner.newest.max(newest);
        self.pins[inner.pin].add(under, self);
        inner.fill(words)
    }

    /// Whether its changes have outgrown a whole node.
    pub(crate) fn is_overgrown(&self, node_words: usize) -> bool {
        let inner = self.inner.lock();
        !inner.gone && self.cell.load().delta().words() > inner.room_words + node_words
    }

    /// Begins a write; `None` if one is under way (which will be followed by another), or the node is gone.
    pub(crate) fn begin(&self) -> Option<Snapshot> {
        let mut inner = self.inner.lock();
        if inner.writing || inner.gone {
            inner.again = true;
            return None;
        }
        Some(self.look(&mut inner))
    }

    fn look(&self, inner: &mut Inner) -> Snapshot {
        (inner.writing, inner.again) = (true, false);
        inner.pin ^= 1;
        Snapshot { node: self.cell.load(), newest: inner.newest, room_words: inner.room_words }
    }

    /// The write is done: what it held is on disk, and the pointer that says so in the journal. True if the node was asked for meanwhile.
    pub(crate) fn finish(&self, room_words: usize) -> bool {
        let mut inner = self.inner.lock();
        self.pins[inner.pin ^ 1].release();
        inner.room_words = room_words;
        self.end(&mut inner)
    }

    /// The write failed: what it should have held is still only in the journal.
    pub(crate) fn fail(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        let (current, old) = (&self.pins[inner.pin], &self.pins[inner.pin ^ 1]);
        current.copy(old, self);
        old.release();
        self.end(&mut inner);
    }

    /// Others have taken its place, each of which has copied the pin of what changed since the write began.
    pub(crate) fn replaced(&self) {
        let mut inner = self.inner.lock();
        inner.gone = true;
        self.pins.iter().for_each(Pin::release);
        self.end(&mut inner);
    }

    fn end(&self, inner: &mut Inner) -> bool {
        inner.writing = false;
        self.idle.notify_all();
        std::mem::take(&mut inner.again)
    }

    /// Takes over a key that `old`, whose place it takes, has changed since its write began.
    pub(crate) fn adopt(self: &Arc<Self>, key: Arc<KeyBuf>, old: &DirtyNode) -> Fill {
        let from = old.inner.lock();
        let mut inner = self.inner.lock();
        let words = self.cell.put(key, inner.writing);
        inner.newest = inner.newest.max(from.newest);
        self.pins[inner.pin].copy(&old.pins[from.pin], self);
        inner.fill(words)
    }

    /// If nothing is left to be written and nobody is writing, it is not what counts for its node any more. Whoever still has it cannot begin a write then,
    /// of which the next record would not know. Whether it is so. Under the commit lock.
    pub(crate) fn retire_if_clean(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.gone |=
            !inner.writing && !self.pins.iter().any(Pin::is_active) && self.cell.load().delta().is_empty();
        inner.gone
    }

    /// Waits until nobody is writing it.
    pub(crate) fn wait_idle(&self) {
        self.idle.wait_while(&mut self.inner.lock(), |inner| inner.writing);
    }
}

impl Dirty for DirtyNode {
    fn flush(&self, _tag: u64, seq: Seq) -> Result<(), FlushFailed> {
        let failed = |reason: String| FlushFailed { seq, reason };
        let Some(engine) = self.engine.upgrade() else { return Ok(()) };
        let me = engine.committer.lock().dirty.get(&self.cell.id()).cloned();
        // A node that is clean, or that others have replaced, pins nothing any more.
        let Some(me) = me.filter(|me| std::ptr::eq(&**me, self)) else { return Ok(()) };
        engine.write_back(&me).map_err(|error| failed(error.to_string()))
    }
}
