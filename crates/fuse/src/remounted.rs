//! Following the kernel when a mount in use is made read-only, or writable again (`mount -o remount,ro DIR`).
//!
//! The kernel does not tell who serves a FUSE mount of that: it turns changes away itself. But whoever has the mount table open is told when something in it
//! changes (proc(5): `poll` on `/proc/PID/mountinfo`), and there stands whether the filesystem is read-only. So a thread waits for that, and has the volume
//! come to rest ([`Lifecycle::remount`]): from then on it is marked clean and not written to. The kernel has written its dirty pages before, and refuses if
//! anybody may still write.
//!
//! That takes a moment after `mount` has returned; `frazil mount -o remount` waits for it ([`crate::remount()`]). In the other direction nobody must see the
//! moment: a request that changes something cannot come through a mount that is read-only, so the one that does brings the volume back itself ([`follow`]).
//!
//! A volume that is frozen is left so; it follows when it is thawed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread;

use frazil_device::mounts;
use frazil_volume::lifecycle::{Lifecycle, LifecycleError};
use rustix::event::{EventfdFlags, PollFd, PollFlags};

/// Whether the filesystem with this number is mounted read-only; `None` if it is not mounted any more.
fn is_read_only(number: &str) -> Option<bool> {
    mounts::numbered(number).map(|mount| mount.read_only)
}

/// Makes the volume what its mount is, and returns when it is so.
///
/// # Errors
/// See [`Lifecycle::remount`]; [`LifecycleError::Unmounted`].
pub(crate) fn follow(number: &str, lifecycle: &Lifecycle) -> Result<(), LifecycleError> {
    let read_only = is_read_only(number).ok_or(LifecycleError::Unmounted)?;
    lifecycle.remount(!read_only)
}

/// As [`follow`], of a volume that turns changes away. True if it does not any more.
pub(crate) fn became_writable(number: &str, lifecycle: &Lifecycle) -> bool {
    is_read_only(number) == Some(false) && lifecycle.remount(true).is_ok()
}

/// Follows until it is unmounted.
///
/// # Errors
/// If there is no mount table, or no thread.
pub(crate) fn watch(number: &str, lifecycle: &Arc<Lifecycle>) -> io::Result<()> {
    let table = File::open("/proc/self/mountinfo")?;
    let wake = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    // A thaw lets what had to wait for it be done.
    let waker = Arc::clone(&wake);
    lifecycle.on_change(move || {
        // Fails only if it is awake anyway.
        let _ = rustix::io::write(&waker, &1u64.to_ne_bytes());
    });
    let (number, lifecycle) = (number.to_owned(), Arc::downgrade(lifecycle));
    thread::Builder::new()
        .name("frazil-mounts".into())
        .spawn(move || run(&number, &lifecycle, &table, &wake))
        .map(drop)
}

fn run(number: &str, lifecycle: &Weak<Lifecycle>, table: &File, wake: &OwnedFd) {
    let mut followed = false;
    while let (Some(read_only), Some(lifecycle)) = (is_read_only(number), lifecycle.upgrade()) {
        if read_only != followed {
            match lifecycle.remount(!read_only) {
                // Later.
                Err(LifecycleError::Busy(_)) => {}
                done => {
                    followed = read_only;
                    if let Err(error) = done {
                        let to = if read_only { "read-only" } else { "writable" };
                        tracing::error!("it was remounted {to}, but the volume does not follow: {error}");
                    }
                }
            }
        }
        drop(lifecycle);
        let mut events = [PollFd::new(table, PollFlags::PRI), PollFd::new(wake, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut events, None)).is_err() {
            return tracing::warn!("the mount table is not watched any more");
        }
        // What it says does not matter.
        let _ = rustix::io::read(wake, &mut [0; 8]);
    }
}
