//! Whose turn it is to read requests.
//!
//! A FUSE round trip costs least when the thread that reads a request also answers it and no other thread waits on the device:
//! then the kernel hands the processor from the caller to us and back. A second waiting reader makes it wake
//! threads across cores instead, several times as slow. But a single thread must not sleep on a disk while other
//! requests wait. So there is one *turn* to read. The thread that has it reads and answers requests in a loop, and only
//! when one of them is about to wait ([`frazil_device::waiting`]) leaves the turn to another thread, finishes that request by
//! itself, and queues for a turn again. No request ever moves between threads.
//!
//! Measured (2 cores, Linux 6.18; see the crate's documentation for the table), this keeps the one-thread price for what
//! comes from memory and the bandwidth of several threads for what does not.
//!
//! Threads are started when a turn is left and nobody is there to take it, up to a limit; those with nothing to do end
//! after a while, but for one.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Most threads: requests that may wait for a device at the same time. A disk array has enough to choose from with this many.
const THREADS_MAX: u32 = 32;
/// How long a thread waits for something to do before it ends, if another one waits too.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// The right to read requests, which one thread has at any time.
pub(crate) struct Turn {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Nobody has the turn.
    vacant: bool,
    /// There will be no more requests.
    ended: bool,
    /// Threads that wait for the turn.
    idle: u32,
    /// All threads.
    threads: u32,
}

/// What became of a turn that was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// A waiting thread, or the next one that finishes its request, takes it.
    Taken,
    /// The caller must start a thread, which is counted already.
    NeedsThread,
}

impl Turn {
    /// A turn that nobody has, with one thread that is about to take it.
    pub(crate) fn new() -> Turn {
        let state = State { vacant: true, ended: false, idle: 0, threads: 1 };
        Turn { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for the turn. `false`: the thread is to end, and is no longer counted.
    pub(crate) fn take(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                state.threads -= 1;
                return false;
            }
            if state.vacant {
                state.vacant = false;
                return true;
            }
            state.idle += 1;
            let waited = self.changed.wait_for(&mut state, IDLE_MAX);
            state.idle -= 1;
            if waited.timed_out() && !state.vacant && state.idle > 0 {
                state.threads -= 1;
                return false;
            }
        }
    }

    /// Leaves the turn to another thread.
    pub(crate) fn leave(&self) -> Left {
        let mut state = self.state.lock();
        state.vacant = true;
        if state.idle > 0 {
            self.changed.notify_one();
        } else if state.threads < THREADS_MAX && !state.ended {
            state.threads += 1;
            return Left::NeedsThread;
        }
        Left::Taken
    }

    /// A thread that was counted could not be started.
    pub(crate) fn not_started(&self) {
        self.state.lock().threads -= 1;
    }

    /// There will be no more requests: all threads end.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_started_up_to_a_limit() {
        let turn = Turn::new();
        for _ in 1..THREADS_MAX {
            assert!(turn.take());
            assert_eq!(turn.leave(), Left::NeedsThread);
        }
        assert!(turn.take());
        assert_eq!(turn.leave(), Left::Taken);
        turn.not_started();
        assert!(turn.take());
        assert_eq!(turn.leave(), Left::NeedsThread);
    }

    #[test]
    fn a_waiting_thread_takes_the_turn_and_the_end_ends_all() {
        let turn = Turn::new();
        assert!(turn.take());
        assert_eq!(turn.leave(), Left::NeedsThread);
        assert!(turn.take());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (turn.take(), turn.take()));
            while turn.state.lock().idle == 0 {
                std::thread::yield_now();
            }
            assert_eq!(turn.leave(), Left::Taken);
            while turn.state.lock().vacant {
                std::thread::yield_now();
            }
            turn.end();
            assert_eq!(waiting.join().unwrap(), (true, false));
        });
        assert!(!turn.take());
    }
}
