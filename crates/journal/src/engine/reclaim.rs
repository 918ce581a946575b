//! Reclaim: getting the front of the pin FIFO to move, so that buckets become free (spec 20 §10.5).
//!
//! A round has a target, a sequence number so old that keeping it would leave more than half of the ring or of the FIFO in use,
//! and asks the owners of all pins up to there to write back, oldest first. When nothing was flushed for a while, or room is short, at least
//! one pin is flushed whatever its age, so that the front never stands still while there is dirt. Rounds are bounded; the
//! owners do the writing, in their own time, and drop their pins when it is durable.
//!
//! Entries that replay has not passed hold the front by themselves; pins at or after the first of them are left alone, because flushing
//! those cannot free anything and may need room that only replay can make (race R12).

use std::time::Duration;

use frazil_ondisk::units::Seq;

use super::pins::{Flush, PinClass};
use super::wait::Want;
use super::{Journal, JournalError, Locked};
use crate::sync::{Ordering, enter_reclaim};

/// Pins flushed in one round at most.
const ROUND_PINS_MAX: u32 = 64;
/// Cached keys flushed in one round at most (spec 20 §10.5).
const ROUND_KEYS_MAX: u32 = 128;

/// Failures in a row, with a wait between them, after which who wants everything written back is told that it cannot be.
const FLUSH_FAILURES_MAX: u32 = 20;

/// Where reclaim stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    pub(crate) last_flush_at: Duration,
    /// Somebody wants a round now.
    pub(crate) kicked: bool,
    /// Reservations that waited unusually long.
    pub(crate) long_waits: u64,
    /// The last callback error.
    pub(crate) last_error: Option<String>,
}

/// Who runs a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread that waits for room.
    Direct,
    /// The background driver.
    Background,
}

/// The order in which everything is flushed (spec 20 §16): what dirties others comes first, b-tree nodes from the leaves up.
const ALL_IN_ORDER: [PinClass; 6] = [
    PinClass::Other,
    PinClass::KeyCache,
    PinClass::Level0,
    PinClass::Level1,
    PinClass::Level2,
    PinClass::Level3,
];

/// What one round may flush.
struct Plan {
    upto: u64,
    at_least: u32,
    cached_keys: u32,
    /// One past the newest pin that may be flushed at all.
    end: u64,
}

impl Journal {
    /// When background reclaim should run next: never without pins, at once when room is short.
    pub(crate) fn reclaim_due(&self, st: &Locked, now: Duration) -> Option<Duration> {
        if st.extra.halted.is_some() || !self.core.pins.any_listed() {
            return None;
        }
        let urgent = self.core.word.view().under_pressure()
            || (self.target(st) >= self.core.pins.front() && st.extra.reclaim.kicked);
        let regular = st.extra.reclaim.last_flush_at + self.options.reclaim_delay;
        Some(if urgent { now } else { regular })
    }

    /// Sequence number up to which everything should be flushed: so that at most half of each ring and half of the FIFO is needed.
    fn target(&self, st: &Locked) -> u64 {
        let rings =
            st.extra.devices.iter().filter(|d| d.has_ring()).map(|d| d.ring.half_ahead()).max().unwrap_or(0);
        rings.max(st.seq.saturating_sub(self.core.pins.capacity() / 2))
    }

    /// One bounded round. False if there was nothing to flush, or another thread is at it.
    pub(crate) fn reclaim_round(&self, caller: Caller) -> bool {
        let Some(_reclaiming) = self.reclaiming.try_lock() else { return false };
        let dirt = self.host.dirt();
        let now = self.clock.now();
        let mut st = self.lock();
        let idle = now.saturating_sub(st.extra.reclaim.last_flush_at) >= self.options.reclaim_delay;
        let pressed = self.core.word.view().under_pressure() || caller == Caller::Direct;
        let mut plan = Plan {
            upto: self.target(&st),
            at_least: u32::from(idle || pressed || dirt.many_nodes),
            cached_keys: dirt.cached_keys.min(ROUND_KEYS_MAX),
            end: self.core.pins.first_unreplayed().unwrap_or(u64::MAX),
        };
        let counters = &mut st.extra.counters;
        match caller {
            Caller::Direct => counters.direct_reclaims += 1,
            Caller::Background => counters.background_reclaims += 1,
        }
        // However this round ends, the next regular one is a delay away.
        st.extra.reclaim.last_flush_at = now;
        drop(st);

        let mut flushed = 0;
        while flushed < ROUND_PINS_MAX
            && let Some(flush) = self.next_in_plan(&plan)
        {
            plan.at_least = plan.at_least.saturating_sub(1);
            plan.cached_keys = plan.cached_keys.saturating_sub(1);
            if !self.flush_pin(&flush) {
                break;
            }
            flushed += 1;
        }
        let mut st = self.lock();
        st.extra.counters.pins_flushed += u64::from(flushed);
        self.update_space(&mut st);
        self.leave(st);
        flushed > 0
    }

    fn next_in_plan(&self, plan: &Plan) -> Option<Flush> {
        let newest = plan.end.checked_sub(1)?;
        let pins = &self.core.pins;
        let any = if plan.at_least > 0 { u64::MAX } else { plan.upto };
        pins.next_to_flush(any.min(newest), &PinClass::ALL).or_else(|| {
            (plan.cached_keys > 0).then(|| pins.next_to_flush(newest, &[PinClass::KeyCache])).flatten()
        })
    }

    /// Runs one callback, without locks. False on an error.
    fn flush_pin(&self, flush: &Flush) -> bool {
        // `None`: it is being destroyed, which drops the pin.
        let owner = flush.owner.upgrade();
        let result = owner.as_ref().map_or(Ok(()), |owner| {
            let _marked = enter_reclaim();
            owner.flush(flush.tag, Seq(flush.seq))
        });
        self.core.pins.flush_finished(flush, result.is_ok());
        drop(owner);
        let Err(error) = result else { return true };
        self.lock().extra.reclaim.last_error = Some(error.to_string());
        false
    }

    /// Flushes every pin up to `upto`, class by class, and waits until they are gone. True if there were any. While entries wait for replay
    /// nothing is done: their own hold would never go away (spec 20 §10.5).
    ///
    /// # Errors
    /// If the journal halts, or an owner fails to write back again and again.
    pub fn flush_pins(&self, upto: Seq) -> Result<bool, JournalError> {
        if self.core.pins.first_unreplayed().is_some() {
            return Ok(false);
        }
        let mut worked = false;
        while self.core.pins.any(upto.0, &ALL_IN_ORDER) {
            worked = true;
            for class in ALL_IN_ORDER {
                self.flush_class(upto.0, class)?;
            }
        }
        Ok(worked)
    }

    fn flush_class(&self, upto: u64, class: PinClass) -> Result<(), JournalError> {
        let mut failures = 0;
        loop {
            let reclaiming = self.reclaiming.lock();
            while let Some(flush) = self.core.pins.next_to_flush(upto, &[class]) {
                if !self.flush_pin(&flush) {
                    failures += 1;
                    break;
                }
                failures = 0;
            }
            drop(reclaiming);
            self.pin_waiters.fetch_add(1, Ordering::AcqRel);
            let mut st = self.lock();
            let halted = self.check_halted(&st);
            let left = self.core.pins.any(upto, &[class]);
            if halted.is_ok() && left {
                let again = self.clock.now() + self.options.reclaim_delay;
                st = self.wait(st, Want::Pins, Some(again));
            }
            self.leave(st);
            self.pin_waiters.fetch_sub(1, Ordering::AcqRel);
            halted?;
            if !left {
                return Ok(());
            }
            if failures >= FLUSH_FAILURES_MAX {
                let why = self.lock().extra.reclaim.last_error.clone();
                return Err(JournalError::NotWrittenBack(why.unwrap_or_default()));
            }
        }
    }

    /// A pin was moved or dropped: `front_moved` says whether that set the front free.
    pub(crate) fn pin_changed(&self, front_moved: bool) {
        if front_moved || self.pin_waiters.load(Ordering::Acquire) > 0 {
            let mut st = self.lock();
            self.update_space(&mut st);
            self.leave(st);
        }
    }
}
