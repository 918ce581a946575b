//! The pin FIFO: which sequence numbers are still needed, and by whom.
//!
//! A redo log entry may be forgotten once everything it changed has reached its place on disk. So every dirty object in
//! memory (a b-tree node's write slot, a cached key, a buffer of keys, a running interior update) holds a **pin** on the oldest
//! sequence number whose updates it still owes to the disk. Pins hang in a FIFO with one slot per sequence number from
//! `front` to the newest one opened. A slot also counts two holders that are not listed: the entry's *buffer*, from open until
//! the last reservation is returned, and *replay*, for entries of the previous life that have not been replayed yet (I25).
//!
//! `front` is the journal's `last_seq`: it moves past a slot whose count is 0, and never past an entry that is not on disk
//! (I20, the second belt of spec 20 §14 rule 5). Everything here happens under one lock, so that replacing protection is one
//! step for every observer (I23): the new place is taken before the old one is left.
//!
//! **Who may pin `seq`?** Only somebody who keeps `front ≤ seq` meanwhile. The original checked "is `seq` older than the front?" and
//! silently skipped the pin if so: the race this project began with (spec 20 §14). Here the permission is a type: `Protects` is
//! implemented by a live reservation, by a replayed entry still held, by an entry being written, and by another
//! active pin. A violation that types cannot see (the source pin was dropped meanwhile) is an assertion, except for
//! `Pin::copy`, whose source may legitimately have gone.

use std::collections::VecDeque;
use std::ops::Range;

use frazil_ondisk::units::Seq;

use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, Weak};

/// What kind of object a pin protects: decides the order in which reclaim asks for flushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinClass {
    /// A b-tree node at level 3 or above.
    Level3,
    /// A b-tree node at level 2.
    Level2,
    /// A b-tree node at level 1.
    Level1,
    /// A b-tree leaf.
    Level0,
    /// A cached key.
    KeyCache,
    /// Anything else: buffers of keys, interior updates, a client's own.
    Other,
}

impl PinClass {
    pub(crate) const COUNT: usize = 6;
    /// Every class, in the order reclaim looks at them within one sequence number (spec 20 §10.5, §16).
    pub const ALL: [PinClass; Self::COUNT] =
        [Self::Level3, Self::Level2, Self::Level1, Self::Level0, Self::KeyCache, Self::Other];

    /// The class of b-tree nodes at `level`.
    pub fn btree(level: u8) -> Self {
        [Self::Level0, Self::Level1, Self::Level2, Self::Level3][usize::from(level.min(3))]
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Why an object could not be flushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write back what entry {seq} protects: {reason}")]
pub struct FlushFailed {
    /// The pin's sequence number.
    pub seq: Seq,
    /// Why, in one line.
    pub reason: String,
}

/// An object with changes that are so far only in the journal: it holds pins, and reclaim asks it to write them back.
pub trait Dirty: Send + Sync {
    /// Starts writing back what the pin with this `tag` protects. The owner drops or moves the pin when that is durable,
    /// in this call or later; a pin that meanwhile moved on needs nothing.
    ///
    /// Called without locks. It may commit at watermark [`crate::Watermark::Reclaim`] or above and must not wait for
    /// anything that only reclaim can provide (I26, INV-5).
    ///
    /// # Errors
    /// Ends the round of reclaim; the pin will be asked again.
    fn flush(&self, tag: u64, seq: Seq) -> Result<(), FlushFailed>;
}

/// Slots before the FIFO counts as full (spec 20 §7.3).
pub(crate) const CAPACITY: u64 = 32768;

const CLASSES: usize = PinClass::COUNT;
/// List of pins whose flush was already asked for: asked once is enough.
const FLUSHED: usize = CLASSES;
const LISTS: usize = CLASSES + 1;
const NIL: u32 = u32::MAX;

/// A pin as the FIFO knows it: a node of an index-linked list, so that moving and dropping cost O(1).
struct Node {
    /// 0 = inactive.
    seq: u64,
    list: usize,
    prev: u32,
    next: u32,
    class: PinClass,
    owner: Option<Weak<dyn Dirty>>,
    tag: u64,
    /// A flush callback is running for this pin.
    in_flight: bool,
    /// Raised whenever the pin moves or is dropped, so that a flush that raced with it is not recorded.
    moves: u64,
    /// The owner is gone; the node is free once no flush is running for it (I24).
    dead: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    listed: u32,
    buffer: bool,
    unreplayed: bool,
    heads: [u32; LISTS],
}

impl Slot {
    fn new(buffer: bool, unreplayed: bool) -> Self {
        Self { listed: 0, buffer, unreplayed, heads: [NIL; LISTS] }
    }

    fn count(&self) -> u32 {
        self.listed + u32::from(self.buffer) + u32::from(self.unreplayed)
    }
}

struct Fifo {
    /// Oldest sequence number still needed.
    front: u64,
    slots: VecDeque<Slot>,
    /// Entries of the previous life that replay has not passed yet.
    unreplayed: Range<u64>,
    ondisk: u64,
    capacity: u64,
    nodes: Vec<Node>,
    free: Vec<u32>,
}

impl std::fmt::Debug for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts().fmt(f)
    }
}

/// The FIFO.
pub(crate) struct Pins {
    fifo: Mutex<Fifo>,
    /// Copy of `fifo.front`, for readers without the lock; it only grows.
    front: AtomicU64,
    flush_done: Condvar,
}

/// A pin whose flush the caller is to run.
pub(crate) struct Flush {
    key: u32,
    moves: u64,
    /// The pin's sequence number.
    pub seq: u64,
    /// Passed back to the owner.
    pub tag: u64,
    /// Whom to ask; dead when the owner is being destroyed, which drops the pin.
    pub owner: Weak<dyn Dirty>,
}

/// Numbers for the state dump.
#[derive(Debug, Clone, Default)]
pub struct PinCounts {
    /// Oldest sequence number still needed (`last_seq`).
    pub front: u64,
    /// One past the newest sequence number.
    pub back: u64,
    /// Slots before the FIFO is full.
    pub capacity: u64,
    /// Active pins by class, in the order of [`PinClass::ALL`].
    pub by_class: [u32; CLASSES],
    /// Pins among them whose flush was already asked for.
    pub flushed: u32,
    /// Entries not yet replayed.
    pub unreplayed: u64,
}

impl Pins {
    /// A FIFO over `[front, back)`; its entries, if any, wait for replay (spec 20 §7.3).
    pub(crate) fn new(front: u64, back: u64) -> Self {
        assert!(front <= back);
        let replayable = (back - front) as usize;
        let capacity = CAPACITY.max((back - front + 1).next_power_of_two());
        Self {
            fifo: Mutex::new(Fifo {
                front,
                slots: VecDeque::from(vec![Slot::new(false, true); replayable]),
                unreplayed: front..back,
                ondisk: back - 1,
                capacity,
                nodes: Vec::new(),
                free: Vec::new(),
            }),
            front: AtomicU64::new(front),
            flush_done: Condvar::new(),
        }
    }

    /// The oldest sequence number still needed. Exact under the journal lock as far as entries go; other threads may
    /// move it on at any time.
    pub(crate) fn front(&self) -> u64 {
        self.front.load(Ordering::Acquire)
    }

    /// Slots still free.
    pub(crate) fn free_slots(&self) -> u64 {
        let fifo = self.fifo.lock();
        fifo.capacity - fifo.slots.len() as u64
    }

    /// Slots before the FIFO is full.
    pub(crate) fn capacity(&self) -> u64 {
        self.fifo.lock().capacity
    }

    /// Appends the slot of the entry that is being opened, held by its buffer. False when the FIFO is full.
    #[must_use]
    pub(crate) fn push(&self, seq: u64) -> bool {
        let mut fifo = self.fifo.lock();
        assert_eq!(fifo.back(), seq, "entries open in order");
        if fifo.slots.len() as u64 >= fifo.capacity {
            return false;
        }
        fifo.slots.push_back(Slot::new(true, false));
        true
    }

    /// The buffer of `seq` lets go: the pin-list half of the final put (spec 20 §9.9). True when the front moved.
    pub(crate) fn put_buffer(&self, seq: u64) -> bool {
        let mut fifo = self.fifo.lock();
        let slot = fifo.slot_mut(seq);
        assert!(slot.buffer, "the buffer of entry {seq} was already put");
        slot.buffer = false;
        self.advance(&mut fifo)
    }

    /// Everything up to `seq` is on disk. True when the front moved.
    pub(crate) fn set_ondisk(&self, seq: u64) -> bool {
        let mut fifo = self.fifo.lock();
        assert!(seq >= fifo.ondisk, "seq_ondisk only grows (I16)");
        fifo.ondisk = seq;
        self.advance(&mut fifo)
    }

    /// Entries up to `seq` have been replayed. True when the front moved.
    pub(crate) fn put_replayed(&self, seq: u64) -> bool {
        let mut fifo = self.fifo.lock();
        while fifo.unreplayed.start <= seq && !fifo.unreplayed.is_empty() {
            let at = fifo.unreplayed.start;
            fifo.slot_mut(at).unreplayed = false;
            fifo.unreplayed.start += 1;
        }
        self.advance(&mut fifo)
    }

    /// The first entry that still waits for replay.
    pub(crate) fn first_unreplayed(&self) -> Option<u64> {
        let fifo = self.fifo.lock();
        (!fifo.unreplayed.is_empty()).then_some(fifo.unreplayed.start)
    }

    /// Moves the front past every slot nobody holds, never past what is not on disk (spec 20 §10.4).
    fn advance(&self, fifo: &mut Fifo) -> bool {
        let before = fifo.front;
        while fifo.front <= fifo.ondisk && fifo.slots.front().is_some_and(|s| s.count() == 0) {
            fifo.slots.pop_front();
            fifo.front += 1;
        }
        self.front.store(fifo.front, Ordering::Release);
        fifo.front != before
    }

    /// A new, inactive pin.
    pub(crate) fn register(&self, class: PinClass, tag: u64) -> u32 {
        let node = Node {
            seq: 0,
            list: 0,
            prev: NIL,
            next: NIL,
            class,
            owner: None,
            tag,
            in_flight: false,
            moves: 0,
            dead: false,
        };
        let mut fifo = self.fifo.lock();
        match fifo.free.pop() {
            Some(key) => {
                fifo.nodes[key as usize] = node;
                key
            }
            None => {
                fifo.nodes.push(node);
                (fifo.nodes.len() - 1) as u32
            }
        }
    }

    /// The owner is gone: the pin is dropped and its node may be used again. True when the front moved.
    pub(crate) fn unregister(&self, key: u32) -> bool {
        let mut fifo = self.fifo.lock();
        fifo.detach(key);
        let node = &mut fifo.nodes[key as usize];
        node.owner = None;
        node.dead = true;
        if !node.in_flight {
            fifo.free.push(key);
        }
        self.advance(&mut fifo)
    }

    /// Puts the pin at `seq`, wherever it was before. True when the front moved.
    ///
    /// # Panics
    /// If `seq` is not in the FIFO: the caller's protection was not what it claimed to be (I21).
    pub(crate) fn set(&self, key: u32, mirror: &AtomicU64, seq: u64, owner: Weak<dyn Dirty>) -> bool {
        let mut fifo = self.fifo.lock();
        fifo.assert_inside(seq);
        fifo.place(key, seq, owner);
        mirror.store(seq, Ordering::Release);
        self.advance(&mut fifo)
    }

    /// Puts the pin where `source` is, unless that was dropped or `key` already is as old (I23: never forward).
    pub(crate) fn copy(&self, key: u32, mirror: &AtomicU64, source: u32, owner: Weak<dyn Dirty>) -> bool {
        let mut fifo = self.fifo.lock();
        let (from, own) = (fifo.nodes[source as usize].seq, fifo.nodes[key as usize].seq);
        if from == 0 || (own != 0 && own <= from) {
            return false;
        }
        fifo.place(key, from, owner);
        mirror.store(from, Ordering::Release);
        self.advance(&mut fifo)
    }

    /// Makes the pin inactive. True when the front moved.
    pub(crate) fn drop_pin(&self, key: u32, mirror: &AtomicU64) -> bool {
        let mut fifo = self.fifo.lock();
        fifo.detach(key);
        mirror.store(0, Ordering::Release);
        self.advance(&mut fifo)
    }

    /// Waits until no flush callback runs for the pin.
    pub(crate) fn wait_not_flushing(&self, key: u32) {
        let mut fifo = self.fifo.lock();
        while fifo.nodes[key as usize].in_flight {
            fifo = self.flush_done.wait(fifo);
        }
    }

    /// The next pin to flush among `classes` with a sequence number of at most `upto`: oldest first, then by class,
    /// most recently set first (spec 20 §10.5). It counts as being flushed until [`Pins::flush_finished`].
    pub(crate) fn next_to_flush(&self, upto: u64, classes: &[PinClass]) -> Option<Flush> {
        let mut fifo = self.fifo.lock();
        let last = upto.min(fifo.back().checked_sub(1)?);
        for seq in fifo.front..=last {
            if fifo.slot_mut(seq).listed == 0 {
                continue;
            }
            for class in classes {
                let mut key = fifo.slot_mut(seq).heads[class.index()];
                while key != NIL {
                    let node = &mut fifo.nodes[key as usize];
                    let next = node.next;
                    if let Some(owner) = node.owner.clone().filter(|_| !node.in_flight) {
                        node.in_flight = true;
                        return Some(Flush { key, moves: node.moves, seq, tag: node.tag, owner });
                    }
                    key = next;
                }
            }
        }
        None
    }

    /// The callback has returned. A pin that was neither moved nor dropped meanwhile is listed as flushed if it
    /// succeeded.
    pub(crate) fn flush_finished(&self, flush: &Flush, succeeded: bool) {
        let mut fifo = self.fifo.lock();
        let node = &mut fifo.nodes[flush.key as usize];
        node.in_flight = false;
        if node.dead {
            fifo.free.push(flush.key);
        } else if succeeded && node.moves == flush.moves && node.seq == flush.seq {
            fifo.unlink(flush.key);
            fifo.link(flush.key, flush.seq, FLUSHED);
        }
        self.flush_done.notify_all();
    }

    /// Whether pins of `classes` with a sequence number of at most `upto` exist, flushed ones included.
    pub(crate) fn any(&self, upto: u64, classes: &[PinClass]) -> bool {
        let fifo = self.fifo.lock();
        let wanted =
            (upto.saturating_add(1).saturating_sub(fifo.front)).min(fifo.slots.len() as u64) as usize;
        fifo.slots.iter().take(wanted).any(|slot| {
            slot.listed > 0
                && (classes.iter().any(|c| slot.heads[c.index()] != NIL) || {
                    let mut key = slot.heads[FLUSHED];
                    while key != NIL && !classes.contains(&fifo.nodes[key as usize].class) {
                        key = fifo.nodes[key as usize].next;
                    }
                    key != NIL
                })
        })
    }

    /// Whether any pin is active.
    pub(crate) fn any_listed(&self) -> bool {
        self.fifo.lock().slots.iter().any(|s| s.listed > 0)
    }

    /// Numbers for the state dump.
    pub(crate) fn counts(&self) -> PinCounts {
        let fifo = self.fifo.lock();
        let mut out = PinCounts {
            front: fifo.front,
            back: fifo.back(),
            capacity: fifo.capacity,
            unreplayed: fifo.unreplayed.end - fifo.unreplayed.start,
            ..PinCounts::default()
        };
        for node in fifo.nodes.iter().filter(|n| n.seq != 0) {
            out.by_class[node.class.index()] += 1;
            out.flushed += u32::from(node.list == FLUSHED);
        }
        out
    }

    /// Checks the FIFO against the pins one by one: I21 and I25.
    pub(crate) fn check(&self) {
        let fifo = self.fifo.lock();
        fifo.check();
    }
}

impl Fifo {
    fn back(&self) -> u64 {
        self.front + self.slots.len() as u64
    }

    fn assert_inside(&self, seq: u64) {
        assert!(
            self.front <= seq && seq < self.back(),
            "I21: pin at {seq}, outside of the FIFO [{}, {}): its protection had ended",
            self.front,
            self.back()
        );
    }

    fn slot_mut(&mut self, seq: u64) -> &mut Slot {
        self.assert_inside(seq);
        &mut self.slots[(seq - self.front) as usize]
    }

    fn place(&mut self, key: u32, seq: u64, owner: Weak<dyn Dirty>) {
        // The new slot is inside the FIFO and stays there while this lock is held: no moment without protection (I23).
        self.detach(key);
        let node = &mut self.nodes[key as usize];
        node.owner = Some(owner);
        let list = node.class.index();
        self.link(key, seq, list);
        self.slot_mut(seq).listed += 1;
    }

    fn detach(&mut self, key: u32) {
        let seq = self.nodes[key as usize].seq;
        if seq != 0 {
            self.unlink(key);
            self.slot_mut(seq).listed -= 1;
        }
        let node = &mut self.nodes[key as usize];
        node.seq = 0;
        node.moves += 1;
    }

    fn link(&mut self, key: u32, seq: u64, list: usize) {
        let head = std::mem::replace(&mut self.slot_mut(seq).heads[list], key);
        let node = &mut self.nodes[key as usize];
        (node.seq, node.list, node.prev, node.next) = (seq, list, NIL, head);
        if head != NIL {
            self.nodes[head as usize].prev = key;
        }
    }

    fn unlink(&mut self, key: u32) {
        let Node { seq, list, prev, next, .. } = self.nodes[key as usize];
        if prev == NIL {
            self.slot_mut(seq).heads[list] = next;
        } else {
            self.nodes[prev as usize].next = next;
        }
        if next != NIL {
            self.nodes[next as usize].prev = prev;
        }
    }

    fn check(&self) {
        let mut listed = vec![0u32; self.slots.len()];
        for node in self.nodes.iter().filter(|n| n.seq != 0) {
            self.assert_inside(node.seq);
            listed[(node.seq - self.front) as usize] += 1;
        }
        for (slot, counted) in self.slots.iter().zip(&listed) {
            assert_eq!(slot.listed, *counted, "I25: a slot's count is its listed pins, buffer and replay");
        }
        assert!(self.front <= self.ondisk + 1, "I20: the front passed an entry that is not on disk");
    }
}
