//! The life of a volume that is mounted for writing.
//!
//! It is served like any other filesystem. Beside that a thread deletes, in small steps, what removed subvolumes leave behind, and files without a name that lost their last user: a moment
//! later, so that many go with one transaction, or after a freeze, if that happened while the volume was frozen. When it is to be frozen before that, then the freeze itself does it first, so that the copy is clean.
//! [`Writable::stop`] comes when the mount is gone and nobody asks any more:
//! files without a name go, everything is written back, and the volume is marked clean.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use frazil_posix::write::{Deletion, WriteFs};
use frazil_volume::lifecycle::FrontKind;
use parking_lot::{Condvar, Mutex};

/// How long a deletion that failed is left alone.
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// How long it is waited for more when there is something to do.
const GATHERING: Duration = Duration::from_millis(2);

/// A volume that can be mounted and changed. Dropping it without [`Writable::stop`] leaves it to recover at its next start.
pub struct Writable {
    fs: Arc<WriteFs>,
    deleter: Deleter,
}

/// Ends when told.
struct Deleter {
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

/// Wakes the thread that deletes.
#[derive(Default)]
struct Bell {
    state: Mutex<Rung>,
    rung: Condvar,
}

/// What it is woken for.
#[derive(Default)]
struct Rung {
    /// There may be something to do, or it may be possible now.
    look: bool,
    end: bool,
}

impl Writable {
    /// Takes a volume whose interrupted operations are finished.
    ///
    /// # Errors
    /// One line: there is no thread to be had. The volume recovers at its next start.
    pub fn new(fs: WriteFs) -> Result<Writable, String> {
        let fs = Arc::new(fs);
        let deleter = Deleter::start(&fs).map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Writable { fs, deleter })
    }

    /// What is to be mounted.
    pub fn fs(&self) -> &Arc<WriteFs> {
        &self.fs
    }

    /// Stops when the mount is gone, and marks the volume clean.
    ///
    /// # Errors
    /// One line: somebody still uses it, or something could not be written. Then the volume is not marked clean, and recovers at its next start.
    pub fn stop(self) -> Result<(), String> {
        let Writable { fs, deleter } = self;
        deleter.end();
        let fs = Arc::try_unwrap(fs).map_err(|fs| {
            fs.live().lifecycle().fail("it is still in use");
            "it is still in use"
        })?;
        // The kernel does not say of everything that it forgets it before it goes.
        fs.release_all();
        // What cannot be removed now is at the next start; that is no reason not to stop. Nor is it that somebody keeps it frozen.
        if let Ok(front) = fs.try_front(FrontKind::Background)
            && let Err(error) = front.remove_dead_inodes()
        {
            tracing::warn!("files without a name cannot be removed now: {error}");
        }
        fs.live().stop().map_err(|e| e.to_string())
    }
}

impl Bell {
    /// There may be something to do. Said thousands of times in a second when a tree is removed.
    fn look(&self) {
        if !std::mem::replace(&mut self.state.lock().look, true) {
            self.rung.notify_all();
        }
    }

    fn end(&self) {
        self.state.lock().end = true;
        self.rung.notify_all();
    }

    /// Waits until there is something to do, and a moment longer, or until so much time is over. False at the end.
    fn wait(&self, longest: Option<Duration>) -> bool {
        let deadline = longest.map(|longest| Instant::now() + longest);
        let mut state = self.state.lock();
        while !state.look && !state.end {
            match deadline {
                None => self.rung.wait(&mut state),
                Some(deadline) if self.rung.wait_until(&mut state, deadline).timed_out() => break,
                Some(_) => {}
            }
        }
        if state.look && !state.end {
            // Only the end is a reason to wake up earlier.
            self.rung.wait_for(&mut state, GATHERING);
        }
        state.look = false;
        !state.end
    }
}

impl Deleter {
    fn start(fs: &Arc<WriteFs>) -> std::io::Result<Deleter> {
        let bell = Arc::new(Bell::default());
        let lifecycle = fs.live().lifecycle();
        let (of_work, of_thaw) = (Arc::clone(&bell), Arc::clone(&bell));
        fs.on_left(move || of_work.look());
        lifecycle.on_change(move || of_thaw.look());
        // Weak: the lifecycle belongs to what it would hold.
        let released = Arc::downgrade(fs);
        lifecycle.before_rest(Arc::new(move |wanted| {
            if let Some(fs) = released.upgrade()
                && let Ok(front) = fs.try_front(FrontKind::Removal)
            {
                front.remove_released(wanted);
            }
        }));
        let (fs, woken) = (Arc::clone(fs), Arc::clone(&bell));
        let thread = thread::Builder::new().name("frazil-delete".into()).spawn(move || {
            let mut deletion = Deletion::default();
            while woken.wait(step(&fs, &mut deletion)) {}
        })?;
        Ok(Deleter { bell, thread })
    }

    fn end(self) {
        self.bell.end();
        // It has ended by itself if it panicked.
        let _ = self.thread.join();
    }
}

/// Deletes some of what there is; returns how long to wait before the next step. It does not wait for a freeze to end, so that it can be told to end, and is
/// woken then.
fn step(fs: &WriteFs, deletion: &mut Deletion) -> Option<Duration> {
    let front = fs.try_front(FrontKind::Background).ok()?;
    front.remove_released(&|| true);
    match front.delete_unlinked_step(deletion) {
        Ok(more) => more.then_some(Duration::ZERO),
        Err(error) => {
            tracing::warn!("a deleted subvolume cannot be cleared now: {error}");
            *deletion = Deletion::default();
            Some(FAILED_PAUSE)
        }
    }
}
