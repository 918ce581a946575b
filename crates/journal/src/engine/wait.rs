//! Waiting, and working while waiting.
//!
//! There is one list of waiters and one function that wakes: [`Journal::leave`], called by everybody who changed something under the
//! lock. It wakes each waiter whose wish has come true (all of them after a halt), and then, if there is a piece of work that
//! nobody has taken, one more to do it: so no wish can be fulfilled, and no work left, without somebody being told
//! (spec 20 §12, race R7).
//!
//! A thread that has to wait first looks whether it can do a piece of work itself ([`Journal::wait`]). Usually this makes the thread that
//! wants to be durable the one that writes: no hand-over between threads stands between a commit and its flush.

use std::time::Duration;

use super::core::Phase;
use super::reclaim::Caller;
use super::{Guard, Journal, Locked, Stage};
use crate::sync::{Arc, Condvar};

/// What a waiter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// `flushed_seq_ondisk` to reach a number.
    Flushed(u64),
    /// `seq_ondisk` to reach a number.
    OnDisk(u64),
    /// Anything that may let a reservation succeed: an entry opened or written, space, a lower watermark.
    Room,
    /// Pins dropped.
    Pins,
    /// Work: the background driver.
    Work,
}

struct Waiter {
    id: u64,
    want: Want,
    signal: Arc<Condvar>,
    notified: bool,
}

/// The threads that wait.
#[derive(Default)]
pub(crate) struct Waiters {
    list: Vec<Waiter>,
    next_id: u64,
    /// Condition variables to use again.
    spare: Vec<Arc<Condvar>>,
}

impl Waiters {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|w| w.want)).finish()
    }
}

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Copy an entry out, seal it and find its place.
    Prepare(u64),
    /// Write an entry to its devices.
    Submit(u64),
}

/// What a call of [`Journal::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A piece of work; there may be more.
    Worked,
    /// Nothing is due before this time.
    IdleUntil(Duration),
    /// Nothing to do until something happens.
    Idle,
}

fn satisfied(st: &Locked, want: Want) -> bool {
    match want {
        Want::Flushed(seq) => st.extra.flushed_seq_ondisk >= seq || st.extra.halted.is_some(),
        Want::OnDisk(seq) => st.seq_ondisk >= seq,
        // Woken at every change: the condition is evaluated by the waiter.
        Want::Room | Want::Pins => true,
        Want::Work => false,
    }
}

impl Journal {
    /// Waits once: does a piece of work if there is one, else sleeps until woken, until the next piece of work is due, or
    /// until `deadline`. The caller looks again at what it waits for.
    pub(crate) fn wait<'a>(&'a self, mut st: Guard<'a>, want: Want, deadline: Option<Duration>) -> Guard<'a> {
        let now = self.clock.now();
        if let Some(job) = self.claim(&mut st, now) {
            drop(st);
            self.run(job);
            return self.lock();
        }
        let until = [deadline, self.next_due(&st)].into_iter().flatten().min();
        let limit = until.map(|t| t.saturating_sub(now));
        if limit == Some(Duration::ZERO) {
            return st;
        }
        let waiters = &mut st.extra.waiters;
        let signal = waiters.spare.pop().unwrap_or_else(|| Arc::new(Condvar::new()));
        let id = waiters.next_id;
        waiters.next_id += 1;
        waiters.list.push(Waiter { id, want, signal: signal.clone(), notified: false });
        st = match limit {
            Some(limit) => signal.wait_for(st, limit),
            None => signal.wait(st),
        };
        let waiters = &mut st.extra.waiters;
        waiters.list.retain(|w| w.id != id);
        waiters.spare.push(signal);
        st
    }

    /// Gives the lock back after something may have changed: the only place that wakes.
    pub(crate) fn leave(&self, mut st: Guard<'_>) {
        let all = st.extra.halted.is_some();
        let mut list = std::mem::take(&mut st.extra.waiters.list);
        for waiter in list.iter_mut().filter(|w| all || satisfied(&st, w.want)) {
            waiter.notified = true;
            waiter.signal.notify_all();
        }
        if self.has_work(&st, self.clock.now()) {
            // The driver last: whoever waits for durability is the better one to write.
            let idle = |w: &&mut Waiter| !w.notified;
            let (waiting, driver): (Vec<_>, Vec<_>) = list.iter_mut().partition(|w| w.want != Want::Work);
            if let Some(waiter) = waiting.into_iter().find(idle).or_else(|| driver.into_iter().find(idle)) {
                waiter.notified = true;
                waiter.signal.notify_all();
            }
        }
        st.extra.waiters.list = list;
        let ready = self.take_ready_callbacks(&mut st);
        drop(st);
        ready.into_iter().for_each(|(call, result)| call(result));
    }

    /// Wakes the background driver: there is something for [`Journal::step`] that no waiter will do.
    pub(crate) fn kick(&self, st: &mut Locked) {
        st.extra.reclaim.kicked = true;
        for waiter in st.extra.waiters.list.iter_mut().filter(|w| w.want == Want::Work) {
            waiter.notified = true;
            waiter.signal.notify_all();
        }
    }

    /// Lets the background driver look around.
    pub(crate) fn kick_driver(&self) {
        let mut st = self.lock();
        self.kick(&mut st);
        self.leave(st);
    }

    /// Takes the next piece of work that is due.
    pub(crate) fn claim(&self, st: &mut Locked, now: Duration) -> Option<Job> {
        if st.extra.halted.is_some() {
            self.drop_unwritten(st);
            return None;
        }
        if let Some(job) = self.claim_write(st, now) {
            return Some(job);
        }
        if self.close_is_due(st, now) {
            self.close_entry(st);
        }
        let entry = st.next_to_write()?;
        entry.phase = Phase::Copying;
        Some(Job::Prepare(entry.seq))
    }

    /// Takes the oldest entry whose device writes may start.
    pub(crate) fn claim_write(&self, st: &mut Locked, now: Duration) -> Option<Job> {
        let seq = submittable(st, now).filter(|_| st.extra.halted.is_none())?;
        st.entry(seq)?.io.stage = Stage::Writing;
        Some(Job::Submit(seq))
    }

    fn has_work(&self, st: &Locked, now: Duration) -> bool {
        st.extra.halted.is_none()
            && (submittable(st, now).is_some()
                || self.close_is_due(st, now)
                || st
                    .entries
                    .iter()
                    .find(|e| e.phase < Phase::Copied)
                    .is_some_and(|e| e.phase == Phase::Ready))
    }

    /// The open entry's time is up, and no other entry is unwritten: otherwise it goes on filling until that one is (spec 20 §9.6).
    fn close_is_due(&self, st: &Locked, now: Duration) -> bool {
        st.entries.len() == 1 && st.entries.back().is_some_and(|e| e.phase == Phase::Open && e.io.due <= now)
    }

    /// When the next piece of work becomes due by itself.
    fn next_due(&self, st: &Locked) -> Option<Duration> {
        let retry = st.entries.iter().filter_map(|e| match e.io.stage {
            Stage::NoSpace { retry_at, .. } => Some(retry_at),
            _ => None,
        });
        let close = (st.entries.len() == 1).then(|| st.entries.back()).flatten();
        let close = close.filter(|e| e.phase == Phase::Open).map(|e| e.io.due);
        retry.chain(close).min()
    }

    pub(crate) fn run(&self, job: Job) {
        match job {
            Job::Prepare(seq) => {
                if let Some(next) = self.prepare(seq) {
                    self.run(next);
                }
            }
            Job::Submit(seq) => self.submit(seq),
        }
    }

    /// Does one piece of whatever is due: a write, a close, a discard, a round of reclaim. Threads merely call this in a loop.
    pub fn step(&self) -> Step {
        let now = self.clock.now();
        let mut st = self.lock();
        self.renew_flush_requests(&mut st);
        if let Some(job) = self.claim(&mut st, now) {
            drop(st);
            self.run(job);
            return Step::Worked;
        }
        let reclaim_due = self.reclaim_due(&st, now);
        let next_due = self.next_due(&st);
        let discard = st.extra.halted.is_none() && !st.extra.at_rest && self.wants_discard(&st);
        self.leave(st);
        if discard && self.discard_one() {
            return Step::Worked;
        }
        if reclaim_due.is_some_and(|at| at <= now) && self.reclaim_round(Caller::Background) {
            return Step::Worked;
        }
        let reclaim_due = self.reclaim_due(&self.lock(), now).map(|at| at.max(now));
        match [reclaim_due, next_due].into_iter().flatten().min() {
            Some(at) => Step::IdleUntil(at),
            None => Step::Idle,
        }
    }

    /// Sleeps until there may be work for [`Journal::step`], at most until `deadline`.
    pub(crate) fn wait_for_work(&self, deadline: Option<Duration>) {
        let mut st = self.lock();
        if !std::mem::take(&mut st.extra.reclaim.kicked) {
            st = self.wait(st, Want::Work, deadline);
        }
        self.leave(st);
    }
}

/// The oldest entry whose device writes may start now: noflush entries at once, a flush entry when all before it are complete (I15).
fn submittable(st: &Locked, now: Duration) -> Option<u64> {
    let turn = st.seq_ondisk + 1;
    st.entries
        .iter()
        .find(|e| {
            e.phase == Phase::Copied
                && e.io.image.is_some()
                && (e.io.flush == Some(false) || e.seq == turn)
                && match e.io.stage {
                    Stage::Waiting => true,
                    Stage::Writing => false,
                    Stage::NoSpace { retry_at, .. } => retry_at <= now,
                }
        })
        .map(|e| e.seq)
}
