//! Errors, and stopping for good.
//!
//! A journal that cannot keep its promises stops: the reservation word takes its terminal value, every waiter is woken with the reason,
//! entries not yet written are dropped, and `flushed_seq_ondisk` and `last_seq_ondisk` stay where they are, so no bucket is
//! reused (I32, INV-13). What is on disk then is what the last completed flush entry says. There is no way back: the
//! filesystem has to be opened again.

use std::fmt;

use frazil_ondisk::units::Seq;

use super::core::Phase;
use super::host::HostError;
use super::wait::Want;
use super::{Guard, Journal, Locked};
use crate::sync::Arc;

/// Why the journal stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaltReason {
    /// No copy of an entry could be written.
    WriteFailed {
        /// The entry.
        seq: Seq,
        /// What the last device said.
        error: frazil_device::Error,
    },
    /// Completed writes could not be made stable.
    FlushFailed {
        /// What the device said.
        error: frazil_device::Error,
    },
    /// Fewer writable devices with a journal than needed.
    InsufficientDevices,
    /// Nothing can make room: a defect, or a ring much too small for what must be pinned at once. With the state at that moment.
    Stuck(String),
    /// The filesystem could not do what writing requires.
    Host(HostError),
    /// The filesystem asked for it.
    Requested(String),
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HaltReason::WriteFailed { seq, error } => {
                write!(f, "journal entry {seq} was not written: {error}")
            }
            HaltReason::FlushFailed { error } => error.fmt(f),
            HaltReason::InsufficientDevices => f.write_str("too few writable devices with a journal"),
            HaltReason::Stuck(_) => f.write_str("the journal is full and nothing can make room"),
            HaltReason::Host(error) => error.fmt(f),
            HaltReason::Requested(why) => f.write_str(why),
        }
    }
}

/// Why a request to the journal failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The journal has stopped.
    #[error("the journal has stopped: {0}")]
    Halted(Arc<HaltReason>),
    /// It would have had to wait, and was told not to.
    #[error("the journal has no room at the moment")]
    WouldBlock,
    /// It waited as long as it was told to.
    #[error("the journal did not get there in time")]
    TimedOut,
    /// A thread that runs reclaim asked for room that only reclaim can make.
    #[error("reclaim would wait for itself")]
    WouldDeadlock,
    /// The owner of a pin could not write back what it protects, however often it was asked; what it said.
    #[error("something cannot be written back: {0}")]
    NotWrittenBack(String),
    /// No entry is large enough.
    #[error("a reservation of {words} words, where an entry has at most {limit}")]
    TooLarge {
        /// Words asked for.
        words: u32,
        /// Words an entry has.
        limit: u32,
    },
}

impl Journal {
    /// Stops the journal for good. The first reason stays.
    pub fn halt(&self, reason: HaltReason) {
        let guard = self.lock();
        self.halt_locked(guard, reason);
    }

    /// Why the journal stopped, if it did.
    pub fn halted(&self) -> Option<Arc<HaltReason>> {
        self.lock().extra.halted.clone()
    }

    pub(crate) fn halt_locked(&self, mut st: Guard<'_>, reason: HaltReason) {
        if st.extra.halted.is_some() {
            return;
        }
        let reason = Arc::new(reason);
        st.extra.halted = Some(reason.clone());
        self.core.close(&mut st, true);
        self.drop_unwritten(&mut st);
        self.leave(st);
        self.host.halted(&reason);
    }

    pub(crate) fn check_halted(&self, st: &Locked) -> Result<(), JournalError> {
        st.extra.halted.clone().map_or(Ok(()), |r| Err(JournalError::Halted(r)))
    }

    /// After a halt: entries that nobody is writing are done with, unwritten. Those whose reservations are out, or
    /// that a thread is working on, follow when those are back.
    pub(crate) fn drop_unwritten(&self, st: &mut Locked) {
        debug_assert!(st.extra.halted.is_some());
        let idle: Vec<u64> = st
            .entries
            .iter()
            .filter(|e| match e.phase {
                Phase::Ready => true,
                Phase::Copied => e.io.stage != super::Stage::Writing,
                _ => false,
            })
            .map(|e| e.seq)
            .collect();
        for seq in idle {
            if let Some(entry) = st.entry(seq) {
                entry.phase = Phase::Copied;
                entry.io.image = None;
            }
            self.complete(st, seq);
        }
    }

    /// Waits until everything that was on its way when the journal halted is out of the way.
    pub fn wait_settled(&self) {
        let mut st = self.lock();
        while !st.entries.is_empty() {
            let newest = st.seq;
            st = self.wait(st, Want::OnDisk(newest), None);
        }
        self.leave(st);
    }
}
