//! Requests under way whose callers may give up.
//!
//! When a thread that waits for a reply gets a signal, any signal, the kernel tells us and waits on. A reply of `EINTR`
//! would let it go, but programs do not expect that from a disk: it is right only for a thread that is being killed and
//! will never see it. Whether it is stands in `/proc`: a fatal signal is pending for each of its threads as `SIGKILL`. So an
//! interrupted request is watched until it is answered or its caller is dying, and in that case answered with `EINTR`
//! at once, so that Ctrl-C works while a disk hangs. The thread that works on it goes on; its answer is dropped.
//!
//! Only requests that wait are listed here, when their thread leaves its turn to read: one that is answered within its
//! turn has been answered before its interrupt can be read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::request::Unique;
use crate::stats::Kind;

/// How often it is looked whether a caller is dying.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The requests that wait.
#[derive(Default)]
pub(crate) struct InFlight {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: HashMap<Unique, Caller>,
    ended: bool,
}

struct Caller {
    /// The thread that waits for the reply.
    pid: u32,
    /// It got a signal.
    interrupted: bool,
    /// What it asked for, and since when it waits.
    asked: (Kind, Instant),
}

/// A request that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Waiter {
    /// What is asked for.
    pub(crate) kind: Kind,
    /// The thread that waits for the reply; 0 if there is none.
    pub(crate) pid: u32,
    pub(crate) since: Instant,
}

impl InFlight {
    /// A request is about to wait.
    pub(crate) fn add(&self, unique: Unique, pid: u32, asked: (Kind, Instant)) {
        self.state.lock().requests.insert(unique, Caller { pid, interrupted: false, asked });
    }

    /// Those among these requests that are not answered yet.
    pub(crate) fn remaining(&self, requests: &mut Vec<Unique>) {
        let state = self.state.lock();
        requests.retain(|unique| state.requests.contains_key(unique));
    }

    /// The requests of a kind that wait.
    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<Unique> {
        let state = self.state.lock();
        state
            .requests
            .iter()
            .filter(|(_, caller)| caller.asked.0 == kind)
            .map(|(&unique, _)| unique)
            .collect()
    }

    /// The requests that wait, longest first.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        let state = self.state.lock();
        let waiter = |&Caller { pid, asked: (kind, since), .. }: &Caller| Waiter { kind, pid, since };
        let mut waiters: Vec<Waiter> = state.requests.values().map(waiter).collect();
        drop(state);
        waiters.sort_by_key(|waiter| waiter.since);
        waiters
    }

    /// Since when a request waits; `None` if it was answered.
    pub(crate) fn waits_since(&self, unique: Unique) -> Option<Instant> {
        self.state.lock().requests.get(&unique).map(|caller| caller.asked.1)
    }

    /// Claims the right to answer; `false` if somebody else has.
    pub(crate) fn claim(&self, unique: Unique) -> bool {
        self.state.lock().requests.remove(&unique).is_some()
    }

    /// The caller got a signal.
    pub(crate) fn interrupt(&self, unique: Unique) {
        if let Some(caller) = self.state.lock().requests.get_mut(&unique) {
            caller.interrupted = true;
            self.changed.notify_one();
        }
    }

    /// There will be no more requests.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
    }

    /// Gives `answer` the requests whose callers are being killed, claimed, until the end.
    pub(crate) fn watch(&self, mut answer: impl FnMut(Unique)) {
        let mut state = self.state.lock();
        while !state.ended {
            let dying: Vec<Unique> = state
                .requests
                .iter()
                .filter(|(_, caller)| caller.is_dying())
                .map(|(&unique, _)| unique)
                .collect();
            for unique in dying {
                state.requests.remove(&unique);
                MutexGuard::unlocked(&mut state, || answer(unique));
            }
            if state.requests.values().any(|caller| caller.interrupted) {
                self.changed.wait_for(&mut state, LOOK_EVERY);
            } else {
                self.changed.wait(&mut state);
            }
        }
    }
}

impl Caller {
    fn is_dying(&self) -> bool {
        self.interrupted && self.pid != 0 && {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
            status.map_or(true, |status| is_being_killed(&status))
        }
    }
}

/// Whether `SIGKILL` is pending, for the thread or its process.
fn is_being_killed(status: &str) -> bool {
    const SIGKILL_BIT: u64 = 1 << (9 - 1);
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & SIGKILL_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_claimed_once() {
        let requests = InFlight::default();
        requests.add(Unique(1), 812, (Kind::Write, Instant::now()));
        requests.add(Unique(2), 813, (Kind::Read, Instant::now() - LOOK_EVERY));
        let waiting = requests.waiters().iter().map(|w| (w.kind, w.pid)).collect::<Vec<_>>();
        assert_eq!(waiting, [(Kind::Read, 813), (Kind::Write, 812)]);
        assert!(requests.claim(Unique(1)));
        assert!(!requests.claim(Unique(1)));
    }

    #[test]
    fn a_pending_kill_is_seen() {
        let status = |thread: &str, all: &str| format!("Name:\tcat\nSigPnd:\t{thread}\nShdPnd:\t{all}\n");
        assert!(is_being_killed(&status("0000000000000100", "0000000000000000")));
        assert!(is_being_killed(&status("0000000000000000", "0000000000000102")));
        assert!(!is_being_killed(&status("0000000000000002", "0000000000004000")));
    }

    #[test]
    fn only_the_interrupted_and_dying_are_given_up() {
        let (requests, asked) = (InFlight::default(), (Kind::Read, Instant::now()));
        // No such process: dead, which is as good as dying.
        requests.add(Unique(1), u32::MAX, asked);
        requests.add(Unique(2), u32::MAX, asked);
        requests.add(Unique(3), std::process::id(), asked);
        let (sent, received) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| requests.watch(|unique| sent.send(unique).unwrap()));
            requests.interrupt(Unique(3));
            requests.interrupt(Unique(1));
            assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap(), Unique(1));
            assert!(received.recv_timeout(3 * LOOK_EVERY).is_err());
            requests.end();
        });
        assert!(requests.claim(Unique(2)) && requests.claim(Unique(3)) && !requests.claim(Unique(1)));
    }
}
