//! The buffers reservations write into, and how the last return of a closed one is found.
//!
//! There are [`SLOTS`] buffers; entry `seq` uses buffer `seq mod SLOTS`. A buffer is taken when its entry opens, filled by
//! any number of threads at once, closed, and free again once the writer has copied it out. The device write that
//! follows works on the copy, so the number of writes in flight is not bound to the number of buffers.
//!
//! **Copying without locks or `unsafe`.** The data area is a slice of atomics written with relaxed stores: plain `mov`s. Each
//! reservation writes only the words it was granted; the writer reads them after it has acquired every return.
//!
//! **The last put.** Each return adds the words it was granted to one of [`SHARDS`] counters, the one of its thread. While
//! the entry is open that is all: one uncontended atomic addition. Closing sets a mark in every counter and sums up. A
//! return whose counter was marked came after the close and goes the slow way: under the journal lock it sums up
//! again. When the sum equals the words granted, everything has been returned. The mark and the addition meet on the
//! *same* atomic, so either the closer sees the addition or the return sees the mark; nothing rests on the order of two
//! different locations. "Exactly once" is then a state of the entry, changed under the lock (I13).

use crate::sync::{AtomicU32, AtomicU64, Ordering, SHARDS, shard};

/// Buffers. Entries are copied out in order as soon as their last reservation returns, so more than one open, one
/// waiting for its last return and two being copied has never been of use.
pub(crate) const SLOTS: u64 = 4;

/// Mark in a return counter: its entry is closed.
const CLOSED: u64 = 1 << 63;

/// Keeps counters of different threads on different cache lines (pairs of lines are fetched together).
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded(AtomicU64);

/// One buffer.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    words: Box<[AtomicU64]>,
    /// Words of the entry that may be granted. Written before the entry opens, constant until it is copied out.
    limit: AtomicU32,
    seq: AtomicU64,
    /// Words at the end that were granted only to be returned: nothing is in them.
    tail: AtomicU32,
    returned: [Padded; SHARDS],
}

impl Slot {
    /// A buffer of `words` words, all zero.
    pub(crate) fn new(words: u32) -> Self {
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            limit: AtomicU32::new(0),
            seq: AtomicU64::new(0),
            tail: AtomicU32::new(0),
            returned: std::array::from_fn(|_| Padded::default()),
        }
    }

    /// Words the buffer holds.
    pub(crate) fn capacity(&self) -> u32 {
        self.words.len() as u32
    }

    /// Sequence number of the entry in this buffer. Stable for whoever holds a reservation on it, or the journal lock.
    pub(crate) fn seq(&self) -> u64 {
        self.seq.load(Ordering::Relaxed)
    }

    /// See the field.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Prepares the buffer for entry `seq`. Under the journal lock, before [`super::word::Word::open`] publishes it.
    pub(crate) fn prepare(&self, seq: u64, limit: u32) {
        assert!(limit <= self.capacity());
        for count in &self.returned {
            count.0.store(0, Ordering::Relaxed);
        }
        self.limit.store(limit, Ordering::Relaxed);
        self.tail.store(0, Ordering::Relaxed);
        self.seq.store(seq, Ordering::Relaxed);
    }

    /// Stores `words` from `at` on. The caller holds the reservation that covers them.
    pub(crate) fn store_all(&self, at: u32, words: &[u64]) {
        let target = &self.words[at as usize..at as usize + words.len()];
        for (to, from) in target.iter().zip(words) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    /// Returns a reservation of `words` words. True when the entry is closed, so this may have been the last one
    /// and the caller has to look under the lock.
    #[must_use]
    pub(crate) fn put(&self, words: u32) -> bool {
        self.returned[shard()].0.fetch_add(u64::from(words), Ordering::Release) & CLOSED != 0
    }

    /// Returns the last `words` words of the entry, too few for the request that was granted them. Like [`Slot::put`].
    #[must_use]
    pub(crate) fn put_tail(&self, words: u32) -> bool {
        self.tail.store(words, Ordering::Relaxed);
        self.put(words)
    }

    /// See the field. Valid after the last put.
    pub(crate) fn tail(&self) -> u32 {
        self.tail.load(Ordering::Relaxed)
    }

    /// Marks the entry closed and returns the words returned so far. Under the journal lock, after the word was closed.
    pub(crate) fn close(&self) -> u64 {
        self.returned.iter().map(|c| c.0.fetch_or(CLOSED, Ordering::Acquire) & !CLOSED).sum()
    }

    /// Words returned so far. Under the journal lock.
    pub(crate) fn returned(&self) -> u64 {
        self.returned.iter().map(|c| c.0.load(Ordering::Acquire) & !CLOSED).sum()
    }

    /// Moves the first `used` words out, little-endian, appending them to `out`, and leaves zeros: an unused word is a padding
    /// sub-entry (spec 20 §3.1) without further work. After the last put, by the writer alone (I11).
    pub(crate) fn drain(&self, used: u32, out: &mut Vec<u8>) {
        out.reserve(used as usize * 8);
        for word in &self.words[..used as usize] {
            out.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            word.store(0, Ordering::Relaxed);
        }
    }
}
