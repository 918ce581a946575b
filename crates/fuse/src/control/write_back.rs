//! Getting what is dirty in the kernel to the process that serves the mount.
//!
//! Writes come as they are made, but what programs store to mapped files stays in the kernel's memory until it is written back. `syncfs`
//! has the kernel do that, but since Linux 6.16 it does not wait for the answers of a FUSE mount: when it returns, the writes are on their way.
//! Whoever wants them to have arrived needs a fence:
//!
//! * Requests are read in the order in which they were queued, so when a request that was made later has been answered, those before it
//!   have been read, and the ones that are not answered yet are known. (Through io_uring they come in no order; there, the later request
//!   itself waits until the others have been read: [`crate::ring`].)
//! * Except that of requests for which no thread waits, as these are, only [`BACKGROUND_MAX`] are queued; the others are kept back until
//!   one of those is answered. If any were kept back when the later request was queued, then that many were under way at that moment. So
//!   their number is bounded from above: requests under way at the mark before, and those that have come since. If that is less, none
//!   was kept back; else it is tried again.
//!
//! A thread that answers requests cannot make that request itself. When a freeze has closed the first gate, a thread that does nothing else does the same
//! once more ([`Traffic::settle`]).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{CallError, Client};
use super::protocol::{Mark, Request};
use crate::adapter::SERVER_XATTR;
use crate::filesystem::Filesystem;
use crate::handshake::BACKGROUND_MAX;
use crate::interrupts::InFlight;
use crate::ring::Rings;
use crate::session::Session;
use crate::stats::{Kind, Stats};

/// Pause between looks whether requests are answered.
const PAUSE: Duration = Duration::from_millis(1);
/// How long one request to the server may wait.
const STEP_MS: u64 = 1000;

/// Has the kernel write back what is dirty in its memory of the mount at `dir`, and waits until that has arrived; no
/// longer than `wait_max`. False if it had not arrived by then, as while a volume is frozen.
///
/// # Errors
/// If the kernel or the server fails.
pub fn write_back(client: &mut Client, dir: &Path, wait_max: Duration) -> Result<bool, CallError> {
    let deadline = Instant::now() + wait_max;
    let failed = |error: io::Error| CallError::Io(dir.display().to_string(), error);
    let opened = File::open(dir).map_err(failed)?;
    rustix::fs::syncfs(&opened).map_err(|e| failed(e.into()))?;
    loop {
        let mark: Mark = client.ask(&Request::MarkWrites)?;
        // What it says does not matter, only that it is answered.
        rustix::fs::fgetxattr(&opened, SERVER_XATTR, &mut [0; 16]).map_err(|e| failed(e.into()))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let wait_ms = u64::try_from(left.as_millis()).unwrap_or(STEP_MS).min(STEP_MS);
        if client.ask(&Request::AwaitWrites { mark, wait_ms })? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
}

/// The requests of a mount, from which is seen what has arrived.
#[derive(Clone)]
pub(crate) struct Traffic {
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) rings: Option<Arc<Rings>>,
}

impl Traffic {
    /// Of this mount.
    pub(crate) fn of<F: Filesystem>(session: &Session<F>) -> Traffic {
        Traffic {
            in_flight: Arc::clone(session.in_flight()),
            stats: Arc::clone(session.stats()),
            rings: session.rings().cloned(),
        }
    }

    /// How many requests have come.
    pub(super) fn mark(&self) -> Mark {
        // In this order: what comes in between is counted twice rather than not at all.
        let begun = self.begun();
        // One more may be answered by the thread that reads, and one by each that has a queue.
        let busy = 1 + self.rings.as_ref().map_or(0, |rings| rings.busy());
        let in_flight = self.in_flight.waiters().len() as u64 + busy;
        Mark { begun, in_flight }
    }

    /// Waits until what was queued before the last request that was answered is answered as well. False if it is not certain that
    /// everything was queued, or it takes too long.
    pub(super) fn await_writes(&self, since: Mark, wait_max: Duration) -> bool {
        let deadline = Instant::now() + wait_max;
        let under_way = self.begun().saturating_sub(since.begun).saturating_add(since.in_flight);
        if under_way >= u64::from(BACKGROUND_MAX) {
            return false;
        }
        let mut writes = self.in_flight.of_kind(Kind::WriteBack);
        loop {
            self.in_flight.remaining(&mut writes);
            if writes.is_empty() || Instant::now() >= deadline {
                return writes.is_empty();
            }
            thread::sleep(PAUSE);
        }
    }

    /// As [`write_back`], in the serving process, after `syncfs`: waits until everything has arrived, no longer than `wait_max`. `fence` has another
    /// process make a request and wait for its answer; false if that cannot be done.
    pub(crate) fn settle(&self, fence: impl Fn() -> bool, wait_max: Duration) {
        let deadline = Instant::now() + wait_max;
        while Instant::now() < deadline {
            let mark = self.mark();
            if !fence() || self.await_writes(mark, deadline.saturating_duration_since(Instant::now())) {
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Requests of the kinds for which no thread of the kernel may be waiting.
    fn begun(&self) -> u64 {
        [Kind::Read, Kind::Write, Kind::WriteBack].map(|kind| self.stats.count(kind)).iter().sum()
    }
}
