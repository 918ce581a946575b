//! A thread for what nobody waits for: delayed flushes, background reclaim, discards.
//!
//! It only calls [`Journal::step`] and sleeps until the journal says that there may be something to do. Without a driver the journal
//! works as well, as long as somebody steps it or waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::{Journal, Step};
use crate::sync::Arc;

/// A running driver; stops when dropped.
#[derive(Debug)]
pub struct Driver {
    journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts a thread that drives the journal.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(journal: &Arc<Journal>) -> std::io::Result<Driver> {
        let (driven, stop) = (journal.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("frazil-journal".to_owned())
            .spawn(move || drive(&driven, &stopped))?;
        Ok(Driver { journal: journal.clone(), stop, thread: Some(thread) })
    }
}

fn drive(journal: &Journal, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        match journal.step() {
            Step::Worked => {}
            Step::IdleUntil(at) => journal.wait_for_work(Some(at)),
            Step::Idle => journal.wait_for_work(None),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.journal.kick_driver();
        if let Some(thread) = self.thread.take() {
            // A driver that panicked has said so; there is nothing to add.
            let _ = thread.join();
        }
    }
}
