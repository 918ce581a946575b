//! Reservations: room in the open entry, and with it the right to pin its sequence number.

use std::time::Duration;

use frazil_ondisk::bkey::Key;
use frazil_ondisk::btree_id::BtreeId;
use frazil_ondisk::jset::{EntryType, FrameHeader};
use frazil_ondisk::units::Seq;

use super::core::Phase;
use super::halt::HaltReason;
use super::reclaim::Caller;
use super::slots::Slot;
use super::wait::Want;
use super::word::{ENTRY_WORDS_MAX, Refusal};
use super::{Guard, Io, Journal, JournalError, Locked};
use crate::sync::in_reclaim;

/// How privileged a request is (spec 20 §9.3). The same scale serves the allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watermark {
    /// Erasure coding, and every ordinary commit.
    Stripe,
    /// Foreground allocation.
    Normal,
    /// Moving data.
    Copygc,
    /// B-tree node allocation, discards, invalidation.
    Btree,
    /// B-tree allocation for moving data.
    BtreeCopygc,
    /// Reclaim: writing back keys, replay under pressure.
    Reclaim,
    /// Completing an interior b-tree update.
    InteriorUpdates,
}

impl Watermark {
    /// Whether the request passes while the journal is low on room.
    pub fn is_privileged(self) -> bool {
        self >= Watermark::Reclaim
    }
}

/// Whether to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As long as it takes.
    Forever,
    /// Until a time of the journal's clock.
    Until(Duration),
    /// Not at all: for callers that hold locks.
    Never,
}

/// Room in an entry, to be filled, then dropped.
///
/// As long as it lives the entry is not written, and its sequence number stays in the pin FIFO (I19): pins of what the updates
/// make dirty are set through it, before it is dropped. Words not filled become padding.
#[must_use = "dropping a reservation returns it"]
pub struct Reservation<'j> {
    journal: &'j Journal,
    slot: &'j Slot,
    seq: u64,
    next: u32,
    end: u32,
    words: u32,
}

/// Why no entry could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CannotOpen {
    Halted(JournalError),
    Blocked,
    MaxInFlight,
    /// No space, or no pin slots: only reclaim helps.
    Full,
}

impl Journal {
    /// Reserves `words` words, sub-entry headers included, at least one.
    ///
    /// # Errors
    /// If the journal halted; if there is no room and `wait` does not allow to wait for it; if no entry is large enough.
    ///
    /// # Panics
    /// If `words` is 0.
    #[inline]
    pub fn reserve(
        &self,
        words: u32,
        watermark: Watermark,
        wait: Wait,
    ) -> Result<Reservation<'_>, JournalError> {
        assert!(words > 0, "an empty reservation");
        match self.take(words, watermark) {
            Ok(reservation) => Ok(reservation),
            Err(refusal) => self.reserve_slow(words, watermark, wait, refusal),
        }
    }

    /// Waits until a reservation of `words` words could be had, taking nothing: for callers that had to let go of their locks.
    ///
    /// # Errors
    /// Like [`Journal::reserve`].
    pub fn wait_for_words(&self, words: u32, watermark: Watermark, wait: Wait) -> Result<(), JournalError> {
        if self.core.word.would_grant(words, watermark.is_privileged()).is_ok() {
            return Ok(());
        }
        self.slow(words, watermark, wait, |j| j.core.word.would_grant(words, watermark.is_privileged()))
    }

    #[inline]
    fn take(&self, words: u32, watermark: Watermark) -> Result<Reservation<'_>, Refusal> {
        match self.core.reserve(words, watermark.is_privileged()) {
            Ok((slot, at)) => {
                Ok(Reservation { journal: self, slot, seq: slot.seq(), next: at, end: at + words, words })
            }
            Err(refusal) => Err(refusal),
        }
    }

    #[cold]
    fn reserve_slow(
        &self,
        words: u32,
        watermark: Watermark,
        wait: Wait,
        refusal: Refusal,
    ) -> Result<Reservation<'_>, JournalError> {
        if let Refusal::Exhausted(rest) = refusal
            && self.core.put_rest(rest)
        {
            self.last_put();
        }
        self.slow(words, watermark, wait, |j| {
            // Looks first: under the lock, and repeatedly, nothing may be taken that is not used.
            j.core.word.would_grant(words, watermark.is_privileged())?;
            j.take(words, watermark)
        })
    }

    /// The slow path (spec 20 §9.4): opens entries, waits, reclaims, until `attempt` succeeds.
    fn slow<'a, T>(
        &'a self,
        words: u32,
        watermark: Watermark,
        wait: Wait,
        attempt: impl Fn(&'a Journal) -> Result<T, Refusal>,
    ) -> Result<T, JournalError> {
        let limit = self.entry_words_max();
        if words > limit {
            return Err(JournalError::TooLarge { words, limit });
        }
        let since = self.clock.now();
        let mut told = false;
        let mut st = self.lock();
        let result = loop {
            // Under the lock once more: somebody may have opened an entry meanwhile.
            let refusal = match attempt(self) {
                Ok(taken) => break Ok(taken),
                Err(refusal) => refusal,
            };
            let full = match refusal {
                Refusal::Halted => {
                    break Err(self.check_halted(&st).err().unwrap_or(JournalError::WouldBlock));
                }
                Refusal::Blocked => false,
                Refusal::Pressure => true,
                Refusal::Exhausted(rest) => {
                    // Rare: between looking and taking others took most of it.
                    drop(st);
                    if self.core.put_rest(rest) {
                        self.last_put();
                    }
                    st = self.lock();
                    continue;
                }
                Refusal::Full | Refusal::Closed => match self.make_room(&mut st, words) {
                    Ok(()) => continue,
                    Err(CannotOpen::Halted(error)) => break Err(error),
                    Err(CannotOpen::Full) => true,
                    Err(CannotOpen::Blocked | CannotOpen::MaxInFlight) => false,
                },
            };
            if let Err(error) = self.may_wait(watermark, wait) {
                if full {
                    self.kick(&mut st);
                }
                break Err(error);
            }
            st.extra.counters.reservation_waits += 1;
            let until = if let Wait::Until(at) = wait { Some(at) } else { None };
            st = match full {
                true => self.wait_full(st, watermark, Want::Room, until),
                false => self.wait(st, Want::Room, until),
            };
            if !told && self.clock.now().saturating_sub(since) > self.options.stuck_after {
                told = true;
                st.extra.reclaim.long_waits += 1;
            }
        };
        self.leave(st);
        result
    }

    fn may_wait(&self, watermark: Watermark, wait: Wait) -> Result<(), JournalError> {
        match wait {
            Wait::Never => Err(JournalError::WouldBlock),
            Wait::Until(at) if self.clock.now() >= at => Err(JournalError::TimedOut),
            // I26: reclaim never waits for what only reclaim can provide.
            _ if in_reclaim() && !watermark.is_privileged() => Err(JournalError::WouldDeadlock),
            _ => Ok(()),
        }
    }

    /// Waits once for room that there is not: discards, reclaims, forces a flush entry out, or, if none of these can help, halts.
    pub(crate) fn wait_full<'a>(
        &'a self,
        mut st: Guard<'a>,
        watermark: Watermark,
        want: Want,
        until: Option<Duration>,
    ) -> Guard<'a> {
        if self.can_discard(&st) {
            self.leave(st);
            self.discard_one();
            return self.lock();
        }
        if let Some(dump) = self.stuck(&st, watermark) {
            self.halt_locked(st, HaltReason::Stuck(dump));
            return self.lock();
        }
        self.kick(&mut st);
        if self.flush_would_free(&st) && self.open_entry(&mut st, 0).is_ok() {
            let newest = st.seq;
            let _opened = self.request_flush(&mut st, newest);
        } else if !in_reclaim() {
            let before = st.extra.space_version;
            self.leave(st);
            let worked = self.reclaim_round(Caller::Direct);
            st = self.lock();
            // Another thread may have made room between our look and now: nobody would wake us for that.
            if worked || st.extra.space_version != before || st.extra.halted.is_some() {
                return st;
            }
        }
        // Owners may free room in their own time, without anybody being told: look again before long.
        let again = self.clock.now() + self.options.reclaim_delay;
        self.wait(st, want, Some(until.map_or(again, |at| at.min(again))))
    }

    /// Nobody is writing, and a flush entry would make buckets usable that so far only memory knows to be free.
    fn flush_would_free(&self, st: &Locked) -> bool {
        let space = |g: super::Grade| st.extra.space[g as usize];
        st.entries.is_empty()
            && space(super::Grade::Discarded).next_entry_sectors > 0
            && space(super::Grade::Clean).total_sectors > space(super::Grade::CleanOndisk).total_sectors
    }

    /// Gets an entry opened that may have room for `words` words.
    fn make_room(&self, st: &mut Locked, words: u32) -> Result<(), CannotOpen> {
        self.close_entry(st);
        self.open_entry(st, words)
    }

    /// Closes the open entry, if any.
    pub(crate) fn close_entry(&self, st: &mut Locked) {
        self.core.close(st, false);
        // What it turned out not to need is free for others.
        if let Some(entry) = st.entries.back_mut().filter(|e| e.phase > Phase::Open) {
            entry.io.sectors = entry.io.sectors.min(self.sectors_for(entry.used + self.common_words));
        }
        self.update_space(st);
    }

    /// Opens an entry with room for at least `words` words (spec 20 §9.5).
    pub(crate) fn open_entry(&self, st: &mut Locked, words: u32) -> Result<(), CannotOpen> {
        self.check_halted(st).map_err(CannotOpen::Halted)?;
        if st.extra.blocked > 0 {
            return Err(CannotOpen::Blocked);
        }
        let free = st.extra.space[super::Grade::Discarded as usize].next_entry_sectors;
        let overhead = self.overhead_words();
        let capacity = u64::from(self.core.slots[0].capacity());
        let room = (free * 64).min(capacity).saturating_sub(u64::from(overhead));
        if room == 0 || room < u64::from(words) {
            return Err(CannotOpen::Full);
        }
        let limit = room.min(u64::from(ENTRY_WORDS_MAX)) as u32;
        let seq = self.core.open(st, limit)?;
        let now = self.clock.now();
        let base = if seq - 1 == st.extra.flushed_seq_ondisk { now } else { st.extra.last_flush_at };
        let io = Io {
            due: base + self.options.flush_delay,
            sectors: self.sectors_for(limit + self.common_words),
            ..Io::default()
        };
        if let Some(entry) = st.entry(seq) {
            entry.io = io;
        }
        self.update_space(st);
        Ok(())
    }

    /// Words of an entry that reservations cannot have: header and common sub-entries.
    fn overhead_words(&self) -> u32 {
        const HEADER_WORDS: u32 = 7;
        HEADER_WORDS + self.common_words
    }

    /// Sectors an entry of `words` words takes, header included, rounded to blocks.
    fn sectors_for(&self, words: u32) -> u64 {
        let bytes = frazil_ondisk::jset::JSET_HEADER_BYTES + 8 * words as usize;
        bytes.next_multiple_of(self.format.block_bytes) as u64 / frazil_ondisk::units::SECTOR_BYTES
    }

    /// Largest reservation there can be.
    pub fn entry_words_max(&self) -> u32 {
        self.core.slots[0].capacity().saturating_sub(self.overhead_words())
    }
}

impl<'j> Reservation<'j> {
    /// The entry's number.
    pub fn seq(&self) -> Seq {
        Seq(self.seq)
    }

    /// The journal.
    pub fn journal(&self) -> &'j Journal {
        self.journal
    }

    /// Where in the entry the next word goes: no two reservations of an entry ever see the same, and who commits later sees a larger one.
    pub fn next_word(&self) -> u32 {
        self.next
    }

    /// Words not filled yet.
    pub fn words_left(&self) -> u32 {
        self.end - self.next
    }

    /// Appends words that make up whole sub-entries.
    ///
    /// # Panics
    /// If there are more than were reserved.
    pub fn push_words(&mut self, words: &[u64]) {
        assert!(
            words.len() <= self.words_left() as usize,
            "I14: {} words where {} are left",
            words.len(),
            self.words_left()
        );
        self.slot.store_all(self.next, words);
        self.next += words.len() as u32;
    }

    /// Appends a sub-entry: a header word and `payload`.
    ///
    /// # Panics
    /// If there are more words than were reserved, or than a sub-entry can have.
    pub fn push_entry(&mut self, ty: EntryType, btree: BtreeId, level: u8, payload: &[u64]) {
        let u64s = u16::try_from(payload.len()).expect("a sub-entry has at most 65535 words");
        let header = FrameHeader { u64s, btree, level, ty, pad: [0; 3] };
        self.push_words(&[u64::from_le_bytes(header.to_bytes())]);
        self.push_words(payload);
    }

    /// Appends a sub-entry made of one key. Takes `1 + key.u64s()` words.
    ///
    /// # Panics
    /// If there are more words than were reserved.
    pub fn push_key(&mut self, ty: EntryType, btree: BtreeId, level: u8, key: Key<'_>) {
        let mut bytes = Vec::with_capacity(key.u64s() * 8);
        key.encode(&mut bytes);
        let (words, _) = bytes.as_chunks::<8>();
        let header = FrameHeader { u64s: words.len() as u16, btree, level, ty, pad: [0; 3] };
        self.push_words(&[u64::from_le_bytes(header.to_bytes())]);
        for word in words {
            self.push_words(&[u64::from_le_bytes(*word)]);
        }
    }
}

impl Drop for Reservation<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.journal.core.put(self.slot, self.words) {
            self.journal.last_put();
        }
    }
}

impl Journal {
    /// An entry became ready by the return of a reservation.
    #[cold]
    fn last_put(&self) {
        let mut st = self.lock();
        if st.extra.halted.is_some() {
            self.drop_unwritten(&mut st);
        }
        self.leave(st);
    }
}

impl std::fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reservation(seq {}, {} words left)", self.seq, self.words_left())
    }
}
