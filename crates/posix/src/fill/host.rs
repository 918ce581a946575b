//! Files of the running system, as the system calls show them.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::{self, Errno};

use super::work::Xattrs;
use crate::attr::{FileType, Timestamp};
use crate::make::NewInode;

/// Largest list of names of attributes, and largest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 1 << 16;

/// Opens something in a directory for reading, never through a symbolic link, and without leaving a trace of it if that may be.
pub(super) fn open(dir: impl AsFd, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    open_through_links(dir, name, flags | OFlags::NOFOLLOW)
}

/// As [`open`], of whatever a path leads to.
pub(super) fn open_through_links(dir: impl AsFd, path: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    // A pipe that took a file's place must not block.
    let (name, flags) = (path, flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK);
    match rustix::fs::openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may hide that something was read.
        Err(Errno::PERM) => rustix::fs::openat(&dir, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// What the system knows of something in a directory.
pub(super) fn status(dir: impl AsFd, name: &CStr) -> io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted)
}

/// What the system knows of something open.
pub(super) fn status_of(file: impl AsFd) -> io::Result<Statx> {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// The object it becomes. Where the system does not know when something was made, it was when it last changed. A symbolic link cannot be
/// read without changing its time of access, so that is not kept.
pub(super) fn new_inode(status: &Statx) -> NewInode {
    let time = |at: StatxTimestamp| Timestamp { secs: at.tv_sec, nanos: at.tv_nsec };
    let mtime = time(status.stx_mtime);
    let knows_btime = status.stx_mask & StatxFlags::BTIME.bits() != 0;
    let kind = FileType::from_dtype((status.stx_mode >> 12) as u8).unwrap_or(FileType::Regular);
    NewInode {
        kind,
        perm: status.stx_mode & 0o7777,
        uid: status.stx_uid,
        gid: status.stx_gid,
        rdev: (status.stx_rdev_major, status.stx_rdev_minor),
        atime: if kind == FileType::Symlink { mtime } else { time(status.stx_atime) },
        mtime,
        ctime: time(status.stx_ctime),
        btime: if knows_btime { time(status.stx_btime) } else { mtime },
        flags: flags(status),
    }
}

/// The flags of `chattr` that `statx` tells: bit 1 immutable, 2 append, 3 nodump.
fn flags(status: &Statx) -> u32 {
    const ATTRIBUTES: [(u64, u32); 3] = [(0x10, 1 << 1), (0x20, 1 << 2), (0x40, 1 << 3)];
    let known = status.stx_attributes.bits() & status.stx_attributes_mask.bits();
    ATTRIBUTES.into_iter().filter(|(bit, _)| known & bit != 0).map(|(_, flag)| flag).sum()
}

/// All attributes of something open.
pub(super) fn xattrs(file: impl AsFd) -> io::Result<Xattrs> {
    list(
        |names| rustix::fs::flistxattr(&file, names),
        |name, value| rustix::fs::fgetxattr(&file, name, value),
    )
}

/// All attributes of something in a directory that is not to be opened.
pub(super) fn xattrs_at(dir: impl AsFd, name: &CStr) -> io::Result<Xattrs> {
    use std::os::fd::AsRawFd;
    // There is no call that takes a directory and a name.
    let dir = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd());
    let path = CString::new([dir.as_bytes(), name.to_bytes()].concat()).expect("neither holds a zero byte");
    list(
        |names| rustix::fs::llistxattr(&path, names),
        |name, value| rustix::fs::lgetxattr(&path, name, value),
    )
}

fn list(
    names: impl Fn(&mut [u8]) -> io::Result<usize>,
    value: impl Fn(&CStr, &mut [u8]) -> io::Result<usize>,
) -> io::Result<Xattrs> {
    // Nearly always there are none.
    let mut few = [0; 256];
    let mut many = Vec::new();
    let listed = match names(&mut few) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(len) => &few[..len],
        Err(Errno::RANGE) => {
            many.resize(XATTR_BYTES_MAX, 0);
            let len = names(&mut many)?;
            &many[..len]
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    let mut room = vec![0; XATTR_BYTES_MAX];
    for name in listed.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match value(name, &mut room) {
            Ok(len) => found.push((name.to_bytes().to_vec(), room[..len].to_vec())),
            // It went away, or is a name only.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
