//! Files that are being removed at this moment, because the kernel has forgotten them and they have no name.
//!
//! A large one takes a while, and nobody waits for the answer to a forget. But who removes a file and then asks how much space there is, or
//! uses it, counts on what the file occupied.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How many there are. Shared by the threads of a session.
#[derive(Default)]
pub(crate) struct Removals {
    running: Mutex<usize>,
    ended: Condvar,
}

/// One of them, until it is dropped.
pub(crate) struct Removal<'r>(&'r Removals);

impl Removals {
    /// Another one begins.
    pub(crate) fn begin(&self) -> Removal<'_> {
        *self.running.lock() += 1;
        Removal(self)
    }

    /// There are some.
    pub(crate) fn any(&self) -> bool {
        *self.running.lock() > 0
    }

    /// Waits until there are none, at most so long.
    pub(crate) fn wait(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        let mut running = self.running.lock();
        while *running > 0 && !self.ended.wait_until(&mut running, deadline).timed_out() {}
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.lock();
        *running -= 1;
        if *running == 0 {
            self.0.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_the_last_has_ended() {
        let removals = Removals::default();
        let (first, last) = (removals.begin(), removals.begin());
        let begun = Instant::now();
        removals.wait(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20) && removals.any());
        drop(first);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| removals.wait(Duration::from_secs(60)));
            drop(last);
            waiting.join().unwrap();
        });
        assert!(!removals.any());
    }
}
