//! Requests that are left lying in a queue, and what is done about them.
//!
//! The kernel puts a request in an entry that is free when the request is made, or when an answer is handed over. An entry that is registered while requests lie in the
//! queue gets none of them: they lie there until the next answer of that queue, which may be never while a volume is frozen. So a queue is *behind* from the moment
//! when a thread comes to it later than the first ones, until an answer finds it empty.
//!
//! As a rule one of its programs gets an answer soon. Otherwise somebody has to ask for something on that processor, and be answered: [`Rings::keep_up`] does, with
//! processes of their own, because what they ask for may be left lying itself.

use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Rings;
use crate::attach::command_on_mount;
use crate::follow::Follow;

/// For how long requests may be left lying before something is done about it, or something else.
const BEHIND_MIN: Duration = Duration::from_millis(30);
/// How often is looked whether it helped.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How many processes may ask at once.
const ASKING_MAX: usize = 8;
/// The pause when no process could be started.
const PAUSE: Duration = Duration::from_secs(1);

impl Rings {
    /// Requests may have lain in the queue when an entry was registered.
    pub(super) fn is_late(&self, queue: u16) {
        let (lock, changed) = &self.thaw;
        let ended = lock.lock();
        self.queue(queue).behind.store(!*ended, Ordering::Release);
        changed.notify_all();
    }

    /// An answer was handed over, and the queue was empty.
    pub(super) fn is_up_to_date(&self, queue: u16) {
        self.queue(queue).behind.store(false, Ordering::Release);
    }

    /// Whether requests may be lying in the queue of a processor.
    pub(super) fn is_behind(&self, cpu: usize) -> bool {
        self.queues[cpu].behind.load(Ordering::Acquire)
    }

    /// Waits until requests may be lying in a queue, and returns its processor, on which something is to be asked for, and answered. `None` at the end.
    fn next_behind(&self) -> Option<usize> {
        let behind = || (0..self.queues.len()).find(|cpu| self.is_behind(*cpu));
        self.wait_while(|| behind().is_none()).then(behind).flatten()
    }

    /// Asks for something of the mount at `dir` on a processor in whose queue requests are left lying, until the end. Does not wait.
    pub(crate) fn keep_up(self: &Arc<Self>, dir: &Path) {
        let (dir, rings) = (dir.to_path_buf(), Arc::clone(self));
        let started = thread::Builder::new().name("frazil-behind".into()).spawn(move || {
            let (follow, mut asking) = (Follow::new(), Vec::new());
            while let Some(cpu) = rings.next_behind() {
                // As a rule somebody gets an answer meanwhile. And whoever looks at the mount keeps it from being unmounted.
                thread::sleep(BEHIND_MIN);
                // The process runs where the thread does that starts it.
                follow.roam();
                follow.stay_on(cpu);
                while rings.is_behind(cpu) {
                    ask(&dir, cpu, &mut asking);
                }
            }
        });
        if let Err(error) = started {
            tracing::warn!("no thread: {error}");
        }
    }
}

/// Has one more process ask, if there may be more, and waits a moment for its answer.
fn ask(dir: &Path, cpu: usize, asking: &mut Vec<Child>) {
    asking.retain_mut(is_asking);
    match (asking.len() < ASKING_MAX).then(|| command_on_mount("stat", dir).spawn()) {
        Some(Ok(process)) => asking.push(process),
        Some(Err(error)) => {
            tracing::warn!("requests may wait for others on processor {cpu}: {error}");
            thread::sleep(PAUSE);
        }
        None => {}
    }
    // What it asks for may be left lying itself: then the next one has to help.
    let deadline = Instant::now() + BEHIND_MIN;
    while asking.last_mut().is_some_and(is_asking) && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
}

/// Whether a process has not ended.
fn is_asking(process: &mut Child) -> bool {
    matches!(process.try_wait(), Ok(None))
}
