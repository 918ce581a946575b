//! Making things durable: flush requests, and stopping the flow for a moment.
//!
//! A request for `seq` marks an entry that is not decided yet, `seq` itself or a later one, "must flush", and waits until
//! `flushed_seq_ondisk` has reached it — never for less than durable (I17). If the marked entry is open it is closed at once
//! when nothing else is unwritten; otherwise it keeps filling until the write before it completes. So at most one flush is
//! under way while one entry collects, and any number of threads share each flush: group commit without a timer.

use std::time::Duration;

use frazil_ondisk::units::Seq;

use super::core::{OpenRefused, Phase};
use super::reserve::{CannotOpen, Watermark};
use super::wait::Want;
use super::{Journal, JournalError, Locked};

/// Called once when what was asked for is durable, or never will be.
type Call = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Somebody to be told when a sequence number is durable.
pub(crate) struct Callback {
    seq: u64,
    call: Call,
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Callback({})", self.seq)
    }
}

impl Journal {
    /// Returns when everything up to `seq` is durable.
    ///
    /// # Errors
    /// If the journal halted before.
    ///
    /// # Panics
    /// If `seq` was never opened.
    pub fn flush_seq(&self, seq: Seq) -> Result<(), JournalError> {
        self.flush_seq_by(seq, None)
    }

    /// Like [`Journal::flush_seq`], but gives up at a time of the journal's clock. What was asked for still happens.
    ///
    /// # Errors
    /// If the journal halted before, or the time is up.
    pub fn flush_seq_by(&self, seq: Seq, deadline: Option<Duration>) -> Result<(), JournalError> {
        let mut st = self.lock();
        assert!(seq.0 <= st.seq, "flush of entry {seq}, where the newest is {}", st.seq);
        let result = loop {
            if st.extra.flushed_seq_ondisk >= seq.0 {
                break Ok(());
            }
            if let Err(halted) = self.check_halted(&st) {
                break Err(halted);
            }
            let requested = self.request_flush(&mut st, seq.0);
            if deadline.is_some_and(|d| self.clock.now() >= d) {
                break Err(JournalError::TimedOut);
            }
            st = match requested {
                Err(CannotOpen::Full) => {
                    self.wait_full(st, Watermark::InteriorUpdates, Want::Flushed(seq.0), deadline)
                }
                _ => self.wait(st, Want::Flushed(seq.0), deadline),
            };
        };
        self.leave(st);
        result
    }

    /// Returns when everything committed so far is durable.
    ///
    /// # Errors
    /// If the journal halted before.
    pub fn flush(&self) -> Result<(), JournalError> {
        let newest = Seq(self.lock().seq);
        self.flush_seq(newest)
    }

    /// Asks for `seq` to become durable and calls `done` when it is (or never will be), from whatever thread finds out. Somebody
    /// has to drive the journal.
    pub fn flush_async(&self, seq: Seq, done: impl FnOnce(Result<(), JournalError>) + Send + 'static) {
        let mut st = self.lock();
        assert!(seq.0 <= st.seq, "flush of entry {seq}, where the newest is {}", st.seq);
        if st.extra.flushed_seq_ondisk < seq.0 {
            // What fails now is asked for again when the next entry is written.
            let _requested = self.request_flush(&mut st, seq.0);
        }
        st.extra.callbacks.push(Callback { seq: seq.0, call: Box::new(done) });
        self.kick(&mut st);
        self.leave(st);
    }

    /// Forces an entry with the present `last_seq`, roots and clocks to disk as a flush entry, and returns its number.
    ///
    /// # Errors
    /// If the journal halted before.
    pub fn meta(&self) -> Result<Seq, JournalError> {
        let mut st = self.lock();
        let opened = loop {
            st = match self.open_for_flush(&mut st) {
                Ok(seq) => break Ok(seq),
                Err(CannotOpen::Halted(error)) => break Err(error),
                Err(CannotOpen::Full) => self.wait_full(st, Watermark::InteriorUpdates, Want::Room, None),
                Err(CannotOpen::Blocked | CannotOpen::MaxInFlight) => self.wait(st, Want::Room, None),
            };
        };
        self.leave(st);
        let seq = Seq(opened?);
        self.flush_seq(seq)?;
        Ok(seq)
    }

    /// Marks the open entry, or a new one, to be flushed.
    fn open_for_flush(&self, st: &mut Locked) -> Result<u64, CannotOpen> {
        if st.open_entry().is_none() {
            self.open_entry(st, 0)?;
        }
        let seq = st.seq;
        self.request_flush(st, seq)?;
        Ok(seq)
    }

    /// Makes sure that an entry at or after `seq` will be written as a flush entry, as far as that can be done now. To be repeated
    /// while waiting: an entry may have been decided as noflush meanwhile. Fails if that takes a new entry and none can be opened.
    pub(crate) fn request_flush(&self, st: &mut Locked, seq: u64) -> Result<(), CannotOpen> {
        let mut at = seq.max(st.seq_ondisk + 1);
        while let Some(entry) = st.entry(at) {
            match entry.io.flush {
                // Decided: that entry will not do, a later one vouches for it.
                Some(false) => at += 1,
                Some(true) => return Ok(()),
                None => {
                    entry.io.must_flush = true;
                    if entry.phase == Phase::Open {
                        self.want_write(st);
                    }
                    return Ok(());
                }
            }
        }
        self.open_entry(st, 0)?;
        self.request_flush(st, at)
    }

    /// Closes the open entry if nothing else is unwritten (spec 20 §9.6, "want write"), else as soon as that is so.
    fn want_write(&self, st: &mut Locked) {
        if let Some(entry) = st.entries.back_mut().filter(|entry| entry.phase == Phase::Open) {
            entry.io.due = Duration::ZERO;
        }
        if st.entries.len() == 1 {
            self.close_entry(st);
        }
    }

    /// Returns when everything opened so far is on disk, durable or not. New entries may open meanwhile.
    ///
    /// # Errors
    /// If the journal halted before.
    pub fn quiesce(&self) -> Result<(), JournalError> {
        let mut st = self.lock();
        let result = loop {
            if st.seq_ondisk == st.seq {
                break Ok(());
            }
            if let Err(halted) = self.check_halted(&st) {
                break Err(halted);
            }
            // Decided under the lock, with the state it is about (race R17).
            self.want_write(&mut st);
            let newest = st.seq;
            st = self.wait(st, Want::OnDisk(newest), None);
        };
        self.leave(st);
        result
    }

    /// No reservation is granted from here on, and everything granted is on disk, until the result is dropped (I33).
    ///
    /// # Errors
    /// If the journal halted before.
    pub fn block(&self) -> Result<Blocked<'_>, JournalError> {
        let mut st = self.lock();
        st.extra.blocked += 1;
        self.core.word.set_blocked(true);
        self.leave(st);
        let blocked = Blocked(self);
        self.quiesce()?;
        Ok(blocked)
    }

    /// Callbacks whose time has come, to be called without the lock.
    pub(crate) fn take_ready_callbacks(&self, st: &mut Locked) -> Vec<(Call, Result<(), JournalError>)> {
        if st.extra.callbacks.is_empty() {
            return Vec::new();
        }
        let flushed = st.extra.flushed_seq_ondisk;
        let halted = self.check_halted(st);
        let over = |seq: u64| seq <= flushed || halted.is_err();
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut st.extra.callbacks).into_iter().partition(|c| over(c.seq));
        st.extra.callbacks = waiting;
        for callback in &st.extra.callbacks {
            debug_assert!(callback.seq > flushed);
        }
        let result = |seq: u64| if seq <= flushed { Ok(()) } else { halted.clone() };
        ready.into_iter().map(|c| (c.call, result(c.seq))).collect()
    }

    /// A callback's entry may have been decided as noflush: asks again.
    pub(crate) fn renew_flush_requests(&self, st: &mut Locked) {
        let waiting = st.extra.callbacks.iter().map(|c| c.seq).filter(|s| *s > st.extra.flushed_seq_ondisk);
        if let Some(newest) = waiting.max() {
            let _requested = self.request_flush(st, newest);
        }
    }
}

/// Keeps the journal quiet ([`Journal::block`]).
#[derive(Debug)]
#[must_use = "the journal is unblocked when this is dropped"]
pub struct Blocked<'j>(&'j Journal);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        let mut st = self.0.lock();
        st.extra.blocked -= 1;
        if st.extra.blocked == 0 {
            self.0.core.word.set_blocked(false);
        }
        self.0.leave(st);
    }
}

impl From<OpenRefused> for CannotOpen {
    fn from(refused: OpenRefused) -> Self {
        match refused {
            OpenRefused::MaxInFlight => CannotOpen::MaxInFlight,
            OpenRefused::PinFull => CannotOpen::Full,
        }
    }
}
