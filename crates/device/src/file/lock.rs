//! Who may have a device open at the same time.
//!
//! | wants \ has | reader | writer | mounted by the kernel, read-only | … read-write |
//! |---|---|---|---|---|
//! | `ReadOnly` | yes | no | yes | no |
//! | `ReadWrite` | no | no | no | no |
//! | `Peek` | yes | yes | yes | yes |
//!
//! Three mechanisms carry this:
//!
//! * **Open file description locks** (`F_OFD_SETLK`) over the whole file, shared or exclusive, between processes that
//!   lock at all: ours, and virtual machines that lock their disk images the same way. They belong to the open file,
//!   so they survive a daemon's fork and vanish with its last copy, however it dies. `flock` would serve as well but
//!   for one thing: udev respects a `flock` on a disk as "do not look at it now" and would never make the links under
//!   `/dev/disk` while a volume on it is mounted.
//! * **`O_EXCL`** when a block device is opened for writing: the kernel refuses while it is mounted, swapped to, or part
//!   of a RAID or mapped device, and refuses those for as long as we have it. It also holds between different device
//!   nodes for the same device, where the locks, which belong to the node, do not meet.
//! * **The mount table**, for the two cases neither sees: reading a device that the kernel has mounted for writing, and
//!   using a file that the kernel has mounted through a loop device.
//!
//! A lock that is in the way may belong to a process that is just dying, or to a child that has been forked but has not
//! called exec yet, so the caller says how long to wait for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::holder::{self, Holder};
use super::{Access, sys};

/// Pause between attempts: at first, and at most. Short, because a dying process lets go within milliseconds.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_LONGEST: Duration = Duration::from_millis(50);

/// Why a device was not opened.
pub(super) enum Refusal {
    InUse(Box<Holder>),
    Failed(io::Error),
}

/// Opens `path` for `access`, trying until `deadline` while somebody else is in the way.
pub(super) fn open_locked(path: &Path, access: Access, deadline: Instant) -> Result<File, Refusal> {
    let mut pause = PAUSE_FIRST;
    loop {
        if let Some(file) = try_open_locked(path, access).map_err(Refusal::Failed)? {
            return Ok(file);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Refusal::InUse(Box::new(holder::find(path))));
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}

/// One attempt. `None`: somebody else is in the way.
fn try_open_locked(path: &Path, access: Access) -> io::Result<Option<File>> {
    let file = match access {
        Access::ReadWrite => open_for_writing(path),
        Access::ReadOnly | Access::Peek => open_for_reading(path),
    };
    let file = match file {
        Err(err) if err.raw_os_error() == Some(libc::EBUSY) => return Ok(None),
        file => file?,
    };
    let exclusive = match access {
        Access::Peek => return Ok(Some(file)),
        Access::ReadOnly => false,
        Access::ReadWrite => true,
    };
    if !sys::try_lock(&file, exclusive)? {
        return Ok(None);
    }
    let in_the_way =
        holder::kernel_mount(path, &file.metadata()?).is_some_and(|mount| exclusive || !mount.read_only);
    Ok((!in_the_way).then_some(file))
}

fn open_for_writing(path: &Path) -> io::Result<File> {
    let mut flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    if std::fs::metadata(path)?.file_type().is_block_device() {
        // Without O_CREAT, O_EXCL has a meaning for block devices only.
        flags |= libc::O_EXCL;
    }
    File::options().read(true).write(true).custom_flags(flags).open(path)
}

/// Opens for reading without leaving a trace: not even the access time changes, where the file's owner asks.
fn open_for_reading(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let quiet = File::options().read(true).custom_flags(flags | libc::O_NOATIME).open(path);
    match quiet {
        Err(err) if err.raw_os_error() == Some(libc::EPERM) => {
            File::options().read(true).custom_flags(flags).open(path)
        }
        opened => opened,
    }
}
