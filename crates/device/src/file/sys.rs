//! The two system calls no safe wrapper offers: open file description locks and `BLKDISCARD`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::ioctl::{self, opcode};

/// Tries to lock the whole file for this open file description. `Ok(false)`: somebody else's lock is in the way.
pub(super) fn try_lock(file: &File, exclusive: bool) -> io::Result<bool> {
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    // SAFETY: `flock` is a plain C struct of integers, for which all zeros is a valid value.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and F_OFD_SETLK reads one `flock`, which
    // `range` is and which outlives the call. The start and length 0 mean the whole file; `l_pid` must be 0, and is.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) };
    if result == 0 {
        return Ok(true);
    }
    let err = io::Error::last_os_error();
    match err.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(err),
    }
}

/// `BLKDISCARD`, `_IO(0x12, 119)` in `linux/fs.h`.
const BLKDISCARD: ioctl::Opcode = opcode::none(0x12, 119);

/// Discards a range of a block device; both ends must be multiples of its logical block.
pub(super) fn discard(file: &File, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two u64, start and length, from its argument, and writes nothing.
    let discard = unsafe { ioctl::Setter::<BLKDISCARD, [u64; 2]>::new([offset_bytes, len_bytes]) };
    // SAFETY: as above; on a file that is no block device the kernel answers ENOTTY.
    unsafe { ioctl::ioctl(file, discard) }?;
    Ok(())
}
