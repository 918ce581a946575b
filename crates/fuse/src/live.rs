//! The life of a volume that is mounted for writing.
//!
//! It is served like any other filesystem. Beside that a thread deletes, in small steps, what removed subvolumes leave behind, and files that lost their last user while the volume was
//! frozen. [`Writable::stop`] comes when the mount is gone and nobody asks any more:
//! files without a name go, everything is written back, and the volume is marked clean.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use frazil_posix::write::{Deletion, WriteFs};
use frazil_volume::lifecycle::FrontKind;

/// How often is looked whether a subvolume was deleted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A volume that can be mounted and changed. Dropping it without [`Writable::stop`] leaves it to recover at its next start.
pub struct Writable {
    fs: Arc<WriteFs>,
    deleter: Deleter,
}

/// Ends when told.
struct Deleter {
    end: Sender<()>,
    thread: JoinHandle<()>,
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

impl Deleter {
    fn start(fs: &Arc<WriteFs>) -> std::io::Result<Deleter> {
        let (end, ended) = channel();
        let fs = Arc::clone(fs);
        let thread = thread::Builder::new().name("frazil-delete".into()).spawn(move || {
            let mut deletion = Deletion::default();
            let mut pause = Duration::ZERO;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // Not now: it does not wait, so that it can be told to end.
                let Ok(front) = fs.try_front(FrontKind::Background) else {
                    pause = LOOK_EVERY;
                    continue;
                };
                front.remove_released();
                pause = match front.delete_unlinked_step(&mut deletion) {
                    Ok(true) => Duration::ZERO,
                    Ok(false) => LOOK_EVERY,
                    Err(error) => {
                        tracing::warn!("a deleted subvolume cannot be cleared now: {error}");
                        deletion = Deletion::default();
                        60 * LOOK_EVERY
                    }
                };
            }
        })?;
        Ok(Deleter { end, thread })
    }

    fn end(self) {
        // It has ended by itself if it cannot be told.
        let _ = self.end.send(());
        let _ = self.thread.join();
    }
}
