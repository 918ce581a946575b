//! Loop devices that nobody used before and nobody uses afterwards.
//!
//! What is set of a loop device in `/sys/block` outlives its user, and some of it cannot be undone: once `queue/discard_max_bytes` is 0, writing a number there does not
//! bring discards back for whoever gets the device next. So who sets something, or relies on something, takes a device of his own, which is removed at the end.
//!
//! Adding and removing are `ioctl`s, which safe Rust cannot do; a process in Python does. It waits for the end of a pipe, so the device goes also if its user is interrupted or killed.

use std::io::{BufRead, BufReader, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to remove one that is not mounted any more.
const REMOVED_MAX: Duration = Duration::from_secs(10);

/// A loop device of one's own, not attached to a file yet: `losetup NODE FILE` does that. When this is dropped it is detached and removed; if somebody still has it mounted,
/// as soon as he has not.
#[derive(Debug)]
pub struct FreshLoop {
    node: PathBuf,
    /// Removes the device.
    remover: Child,
}

impl FreshLoop {
    /// Adds one.
    ///
    /// # Errors
    /// There is no Python, or no `/dev/loop-control` that we may use.
    pub fn add() -> Result<FreshLoop> {
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("fresh_loop.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut remover = python.spawn()?;
        let mut number = String::new();
        if let Some(output) = remover.stdout.take() {
            BufReader::new(output).read_line(&mut number)?;
        }
        if number.is_empty() {
            remover.wait()?;
            return Err(std::io::Error::other("no loop device can be added"));
        }
        Ok(FreshLoop { node: format!("/dev/loop{}", number.trim_end()).into(), remover })
    }

    /// Its node in `/dev`.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Where the kernel says how it is: its directory in `/sys/block`.
    pub fn sys(&self) -> PathBuf {
        Path::new("/sys/block").join(self.node.file_name().expect("a node has a name"))
    }
}

impl Drop for FreshLoop {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let deadline = Instant::now() + REMOVED_MAX;
        // If it is mounted for longer, the process stays until it is not.
        while matches!(self.remover.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
