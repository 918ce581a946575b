//! The life of an entry: open, close, last put, copied, done. No I/O here.
//!
//! ```text
//!  open ──► Open ──close──► Closed ──last put──► Ready ──► Copying ──► Copied ──► Done ──in order──► (on disk)
//!            │  reservations: word.reserve … slot.put   │        │ buffer free     │ device writes complete
//!            └ pin slot pushed, held by the buffer ─────┘ pin-list reference dropped here, in final_put, nowhere else
//! ```
//!
//! This is the protocol of the thread's patch 3 (spec 20 §14): the entry's hold on its own sequence number belongs to the
//! *buffer*. It is taken when the entry opens and dropped by [`Core::final_put`], which runs exactly once, under the
//! journal lock, when the entry is closed **and** every reservation has been returned — whoever is last, the closer
//! or a writer. Between taking a reservation and returning it a writer can therefore pin the entry's sequence number, and
//! nothing can make it too late.
//!
//! `last_seq` is stamped while closing, before the next entry can open (I9): a pin replaced later is replaced by one in a
//! later entry, which this entry must not vouch for (race R3).
//!
//! Generic over what the lock also protects (`X`) and what an entry carries for its write (`I`), so that the model checks can run
//! this file alone.

use std::collections::VecDeque;

use super::pins::Pins;
use super::slots::{SLOTS, Slot};
use super::word::{Grant, Refusal, Word};
use crate::sync::{Mutex, MutexGuard};

/// Entries that may be open or on their way to disk at once. The reference's 4 is one per buffer; here a write works on
/// a copy, so buffers do not bound it. Enough to keep a deep device queue busy with noflush entries, small enough that a crash
/// loses little.
pub(crate) const UNWRITTEN_MAX: u64 = 16;

/// Where an entry is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepting reservations.
    Open,
    /// Closed; reservations are still out.
    Closed,
    /// Everything returned; may be written when its turn comes.
    Ready,
    /// The writer is copying it out and finding it a place.
    Copying,
    /// Copied and placed; its buffer is free, its device writes are running.
    Copied,
    /// Its device writes are complete.
    Done,
}

/// An entry that is not on disk yet.
#[derive(Debug)]
pub(crate) struct Entry<I> {
    pub seq: u64,
    pub phase: Phase,
    /// Words that may be granted.
    pub limit: u32,
    /// Words granted; known once closed.
    pub used: u32,
    /// Oldest sequence number needed when this entry closed.
    pub last_seq: u64,
    pub io: I,
}

/// What the journal lock protects.
#[derive(Debug)]
pub(crate) struct State<X, I> {
    /// Newest entry opened.
    pub seq: u64,
    /// Everything up to here has completed its write.
    pub seq_ondisk: u64,
    /// The entries in `(seq_ondisk, seq]`, oldest first.
    pub entries: VecDeque<Entry<I>>,
    pub extra: X,
}

/// The parts that every operation needs, and the lock.
#[derive(Debug)]
pub(crate) struct Core<X, I> {
    pub word: Word,
    pub slots: Box<[Slot]>,
    pub pins: Pins,
    state: Mutex<State<X, I>>,
}

/// Why no entry can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenRefused {
    /// Too many entries are unwritten, or the buffer is still in use.
    MaxInFlight,
    /// The pin FIFO is full.
    PinFull,
}

impl<X, I> State<X, I> {
    /// The entry `seq`, if it is not on disk yet.
    pub(crate) fn entry(&mut self, seq: u64) -> Option<&mut Entry<I>> {
        let at = seq.checked_sub(self.seq_ondisk + 1)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    /// The open entry.
    pub(crate) fn open_entry(&mut self) -> Option<&mut Entry<I>> {
        self.entries.back_mut().filter(|e| e.phase == Phase::Open)
    }

    /// The entry that may be copied out next: the oldest not yet copied, if it is ready. Copying and placing happen one at a
    /// time and in order (I13).
    pub(crate) fn next_to_write(&mut self) -> Option<&mut Entry<I>> {
        self.entries.iter_mut().find(|e| e.phase < Phase::Copied).filter(|e| e.phase == Phase::Ready)
    }
}

impl<X, I: Default> Core<X, I> {
    /// A journal whose next entry is `first`; entries from `front` on are still to be replayed (spec 20 §7.3).
    pub(crate) fn new(front: u64, first: u64, buffer_words: u32, extra: X) -> Self {
        let before = first - 1;
        Self {
            word: Word::new(before),
            slots: (0..SLOTS).map(|_| Slot::new(buffer_words)).collect(),
            pins: Pins::new(front, first),
            state: Mutex::new(State {
                seq: before,
                seq_ondisk: before,
                entries: VecDeque::with_capacity(UNWRITTEN_MAX as usize),
                extra,
            }),
        }
    }

    /// The journal lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<X, I>> {
        self.state.lock()
    }

    /// The buffer of an entry.
    pub(crate) fn slot(&self, seq: u64) -> &Slot {
        // The word carries enough bits that its residue equals that of the whole number.
        &self.slots[(seq % SLOTS) as usize]
    }

    /// Takes a reservation, lock-free.
    #[inline]
    pub(crate) fn reserve(&self, words: u32, privileged: bool) -> Result<(&Slot, u32), Refusal> {
        let Grant { seq_low, room_before } = self.word.reserve(words, privileged)?;
        let slot = self.slot(seq_low);
        debug_assert_eq!(
            super::word::seq_low(slot.seq()),
            seq_low,
            "a grant names the entry its buffer holds"
        );
        Ok((slot, slot.limit() - room_before))
    }

    /// Returns the words of a request that exhausted an entry. True when its write may be started.
    #[must_use]
    pub(crate) fn put_rest(&self, rest: Grant) -> bool {
        // With nothing left there is nothing to return, and nothing that holds the buffer.
        rest.room_before > 0 && {
            let slot = self.slot(rest.seq_low);
            let seq = slot.seq();
            slot.put_tail(rest.room_before) && self.check_last_put(&mut self.lock(), seq)
        }
    }

    /// Returns a reservation. True when this was the last one of a closed entry, so its write may be started.
    #[must_use]
    pub(crate) fn put(&self, slot: &Slot, words: u32) -> bool {
        // Read before the return: afterwards the buffer may already belong to another entry.
        let seq = slot.seq();
        slot.put(words) && {
            let mut state = self.lock();
            self.check_last_put(&mut state, seq)
        }
    }

    /// Opens the next entry with room for `limit` words, its buffer holding its pin slot.
    pub(crate) fn open(&self, state: &mut State<X, I>, limit: u32) -> Result<u64, OpenRefused> {
        let seq = state.seq + 1;
        assert!(state.open_entry().is_none(), "entry {} is open", state.seq);
        if state.entries.len() as u64 >= UNWRITTEN_MAX {
            return Err(OpenRefused::MaxInFlight);
        }
        let buffer_busy = |e: &mut Entry<I>| e.phase < Phase::Copied;
        if seq.checked_sub(SLOTS).and_then(|old| state.entry(old)).is_some_and(buffer_busy) {
            return Err(OpenRefused::MaxInFlight);
        }
        if !self.pins.push(seq) {
            return Err(OpenRefused::PinFull);
        }
        state.seq = seq;
        state.entries.push_back(Entry {
            seq,
            phase: Phase::Open,
            limit,
            used: 0,
            last_seq: 0,
            io: I::default(),
        });
        self.slot(seq).prepare(seq, limit);
        self.word.open(seq, limit);
        Ok(seq)
    }

    /// Closes the open entry, for good if `halt`. True when all of it had been returned already, so its write may be started.
    pub(crate) fn close(&self, state: &mut State<X, I>, halt: bool) -> bool {
        if halt {
            self.word.halt();
        }
        let seq = state.seq;
        let Some(entry) = state.open_entry() else { return false };
        entry.used = entry.limit - self.word.close();
        entry.phase = Phase::Closed;
        // I9: now, before the next entry opens. An entry is never younger than the front: its buffer holds its slot (I19).
        entry.last_seq = self.pins.front();
        assert!(entry.last_seq <= seq, "I3: last_seq {} > seq {seq}", entry.last_seq);
        self.slot(seq).close();
        self.check_last_put(state, seq)
    }

    /// Runs the final put of `seq` if everything granted has been returned and it has not run yet.
    fn check_last_put(&self, state: &mut State<X, I>, seq: u64) -> bool {
        let returned = self.slot(seq).returned();
        match state.entry(seq) {
            Some(entry) if entry.phase == Phase::Closed && returned == u64::from(entry.used) => {
                self.final_put(state, seq);
                true
            }
            // Another thread saw the same sum first; or the entry went on long ago and the buffer holds another one.
            _ => false,
        }
    }

    /// The final put: the buffer lets go of its sequence number's pins, then the entry may be written.
    fn final_put(&self, state: &mut State<X, I>, seq: u64) {
        let entry = state.entry(seq).expect("an entry is unwritten until its final put");
        assert_eq!(entry.phase, Phase::Closed, "I13: one final put per entry");
        entry.phase = Phase::Ready;
        self.pins.put_buffer(seq);
    }

    /// The device writes of `seq` are complete. Accounts completions in order (I16) and hands every entry that is now
    /// on disk to `account`.
    pub(crate) fn done(&self, state: &mut State<X, I>, seq: u64, mut account: impl FnMut(&mut X, Entry<I>)) {
        let entry = state.entry(seq).expect("an entry completes once");
        assert_eq!(entry.phase, Phase::Copied);
        entry.phase = Phase::Done;
        while state.entries.front().is_some_and(|e| e.phase == Phase::Done) {
            let entry = state.entries.pop_front().expect("looked at above");
            state.seq_ondisk = entry.seq;
            self.pins.set_ondisk(entry.seq);
            account(&mut state.extra, entry);
        }
        assert!(
            state.seq - state.seq_ondisk == state.entries.len() as u64,
            "I10: entries cover (seq_ondisk, seq]"
        );
    }
}
