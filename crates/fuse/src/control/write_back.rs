//! Getting what is dirty in the kernel to the process that serves the mount.
//!
//! Writes come as they are made, but what programs store to mapped files stays in the kernel's memory until it is written back. `syncfs`
//! has the kernel do that, but since Linux 6.16 it does not wait for the answers of a FUSE mount: when it returns, the writes are on their way.
//! Whoever wants them to have arrived needs a fence:
//!
//! * Requests are read in the order in which they were queued, so when a request that was made later has been answered, those before it
//!   have been read, and the ones that are not answered yet are known.
//! * Except that of requests for which no thread waits, as these are, only [`BACKGROUND_MAX`] are queued; the others are kept back until
//!   one of those is answered. If any were kept back when the later request was queued, then that many were under way at that moment. So
//!   their number is bounded from above: requests under way at the mark before, and those that have come since. If that is less, none
//!   was kept back; else it is tried again.
//!
//! The server cannot make that request itself: a process must not use a filesystem that it serves.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::client::{CallError, Client};
use super::protocol::{Mark, Request};
use crate::adapter::SERVER_XATTR;
use crate::filesystem::Filesystem;
use crate::session::{BACKGROUND_MAX, Session};
use crate::stats::Kind;

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
        std::thread::sleep(PAUSE);
    }
}

/// How many requests have come.
pub(super) fn mark<F: Filesystem>(session: &Session<F>) -> Mark {
    // In this order: what comes in between is counted twice rather than not at all.
    let begun = session.stats().count(Kind::Read) + session.stats().count(Kind::Write);
    // One more may be answered by the thread that reads.
    let in_flight = session.in_flight().waiters().len() as u64 + 1;
    Mark { begun, in_flight }
}

/// Waits until what was queued before the last request that was answered is answered as well. False if it is not certain that
/// everything was queued, or it takes too long.
pub(super) fn await_writes<F: Filesystem>(session: &Session<F>, since: Mark, wait_max: Duration) -> bool {
    let deadline = Instant::now() + wait_max;
    let begun = session.stats().count(Kind::Read) + session.stats().count(Kind::Write);
    let under_way = begun.saturating_sub(since.begun).saturating_add(since.in_flight);
    if under_way >= u64::from(BACKGROUND_MAX) {
        return false;
    }
    let mut writes = session.in_flight().of_kind(Kind::Write);
    loop {
        session.in_flight().remaining(&mut writes);
        if writes.is_empty() || Instant::now() >= deadline {
            return writes.is_empty();
        }
        std::thread::sleep(PAUSE);
    }
}
