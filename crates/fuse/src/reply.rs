//! Replies to the kernel: types to bytes.
//!
//! A [`Reply`] is memory that a thread uses again and again: room for the header first, so that header and body go to
//! the kernel in one `write`, and file data are read straight into the place they are sent from, which begins at a page. Layouts are those of
//! linux/fuse.h; the tests over a real mount tell whether the kernel agrees.

use frazil_posix::{Attr, FileType, FsStat, NodeId, Timestamp};

use crate::adapter::READ_BYTES_MAX;
use crate::errno::Errno;
use crate::node_ids::FuseId;
use crate::pages::{BODY, Pages};
use crate::request::Unique;

/// Bytes of the header of a reply.
pub(crate) const HEADER_BYTES: usize = 16;
/// Room for a body: the data of a read, or attributes of the largest size.
pub(crate) const BODY_BYTES_MAX: usize = READ_BYTES_MAX as usize + (68 << 10);

/// How long the kernel may believe a name or attributes that cannot change: for ever, as far as it can count.
pub(crate) const FOR_EVER: ValidSecs = ValidSecs(u32::MAX as u64);

/// The kernel must ask again every time.
pub(crate) const NOT_AT_ALL: ValidSecs = ValidSecs(0);

/// Seconds for which the kernel need not ask again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ValidSecs(pub(crate) u64);

/// Facts about the mount that every `stat` reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// `st_blksize`.
    pub(crate) block_bytes: u32,
    /// How long attributes stay true.
    pub(crate) valid: ValidSecs,
    /// How long names do, and that there is none.
    pub(crate) names_valid: ValidSecs,
}

/// A reply under construction.
pub(crate) struct Reply {
    /// Header and body.
    pages: Pages,
    /// Where the body ends.
    end: usize,
    /// It did not fit.
    too_long: bool,
    /// Of this object the kernel's attributes are not true any more, which it does not expect of this request.
    pub(crate) outdates: Option<NodeId>,
    /// Of this object the kernel may have cached what is not true any more in a range of bytes: offset and length.
    pub(crate) overwrites: Option<(NodeId, u64, u64)>,
    /// This object was read.
    pub(crate) accessed: Option<NodeId>,
}

impl Reply {
    pub(crate) fn new() -> Reply {
        let pages = Pages::new(BODY_BYTES_MAX);
        Reply { pages, end: BODY, too_long: false, outdates: None, overwrites: None, accessed: None }
    }

    /// What is sent from, to be exchanged for another one of the same size before a reply is begun or after it is finished.
    pub(crate) fn pages(&mut self) -> &mut Pages {
        &mut self.pages
    }

    /// Forgets the body.
    pub(crate) fn clear(&mut self) {
        self.end = BODY;
        self.too_long = false;
        self.outdates = None;
        self.overwrites = None;
        self.accessed = None;
    }

    /// Bytes of body so far.
    pub(crate) fn len(&self) -> usize {
        self.end - BODY
    }

    /// The whole reply: success if `status` is `Ok`, else the error without a body.
    pub(crate) fn finish(&mut self, unique: Unique, status: Result<(), Errno>) -> &[u8] {
        let code = match if self.too_long { Err(Errno::IO) } else { status } {
            Ok(()) => 0,
            Err(errno) => {
                self.clear();
                errno.negative()
            }
        };
        let len = (HEADER_BYTES + self.len()) as u32;
        let whole = &mut self.pages[BODY - HEADER_BYTES..self.end];
        whole[0..4].copy_from_slice(&len.to_ne_bytes());
        whole[4..8].copy_from_slice(&code.to_ne_bytes());
        whole[8..16].copy_from_slice(&unique.0.to_ne_bytes());
        whole
    }

    /// Appends room for `len` bytes, which hold anything, and returns it. If there is not so much, it is less, and the reply will be an error.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        let (start, left) = (self.end, self.pages.len() - self.end);
        self.too_long |= len > left;
        self.end += len.min(left);
        &mut self.pages[start..self.end]
    }

    /// Cuts the body to this length.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.end = self.end.min(BODY + len);
    }

    /// Appends bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len());
        room.copy_from_slice(&bytes[..room.len()]);
    }

    fn u16(&mut self, number: u16) {
        self.put(&number.to_ne_bytes());
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.put(&number.to_ne_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.put(&number.to_ne_bytes());
    }

    /// Zeros, for fields that are reserved.
    fn zeros(&mut self, len: usize) {
        self.room(len).fill(0);
    }

    /// Answer to a lookup, and the first part of a `readdirplus` entry (`fuse_entry_out`, 128 bytes).
    pub(crate) fn entry(&mut self, id: FuseId, attr: &Attr, shown: Shown) {
        self.u64(id.0);
        self.u64(u64::from(attr.generation));
        self.u64(shown.names_valid.0);
        self.u64(shown.valid.0);
        self.u64(0);
        self.attr(id, attr, shown);
    }

    /// "There is no such name, and there will be none" (`fuse_entry_out` with node id 0).
    pub(crate) fn no_entry(&mut self, valid: ValidSecs) {
        self.u64(0);
        self.u64(0);
        self.u64(valid.0);
        self.zeros(128 - 24);
    }

    /// Answer to a getattr (`fuse_attr_out`).
    pub(crate) fn attr_out(&mut self, id: FuseId, attr: &Attr, shown: Shown) {
        self.u64(shown.valid.0);
        self.u64(0);
        self.attr(id, attr, shown);
    }

    /// `fuse_attr`, 88 bytes.
    fn attr(&mut self, id: FuseId, attr: &Attr, shown: Shown) {
        self.u64(id.st_ino());
        self.u64(attr.size);
        self.u64(attr.sectors);
        let times = [attr.atime, attr.mtime, attr.ctime];
        times.iter().for_each(|time| self.u64(time.secs as u64));
        times.iter().for_each(|time| self.u32(time.nanos));
        self.u32(mode(attr));
        self.u32(attr.nlink);
        self.u32(attr.uid);
        self.u32(attr.gid);
        self.u32(device_number(attr.rdev));
        self.u32(shown.block_bytes);
        self.u32(0);
    }

    /// Answer to a statx (`fuse_statx_out`), which alone reports the time of creation.
    pub(crate) fn statx_out(&mut self, id: FuseId, attr: &Attr, shown: Shown) {
        /// `STATX_BASIC_STATS | STATX_BTIME`
        const HAVE: u32 = 0xfff;
        self.u64(shown.valid.0);
        self.zeros(8 + 16);
        self.u32(HAVE);
        self.u32(shown.block_bytes);
        self.u64(0);
        self.u32(attr.nlink);
        self.u32(attr.uid);
        self.u32(attr.gid);
        self.u16(mode(attr) as u16);
        self.u16(0);
        self.u64(id.st_ino());
        self.u64(attr.size);
        self.u64(attr.sectors);
        self.u64(0);
        for time in [attr.atime, attr.btime, attr.ctime, attr.mtime] {
            self.statx_time(time);
        }
        self.u32(attr.rdev.0);
        self.u32(attr.rdev.1);
        self.zeros(8 + 14 * 8);
    }

    fn statx_time(&mut self, time: Timestamp) {
        self.u64(time.secs as u64);
        self.u32(time.nanos);
        self.u32(0);
    }

    /// One name of a listing (`fuse_dirent`), padded to 8 bytes.
    pub(crate) fn dirent(&mut self, id: FuseId, kind: FileType, name: &[u8], next: u64) {
        self.u64(id.st_ino());
        self.u64(next);
        self.u32(name.len() as u32);
        self.u32(u32::from(kind.to_dtype()));
        self.put(name);
        self.zeros(name.len().next_multiple_of(8) - name.len());
    }

    /// Instead of an entry before a `dirent`: nothing is known about the object beyond its name.
    pub(crate) fn unknown_entry(&mut self) {
        self.zeros(128);
    }

    /// Answer to a statfs (`fuse_statfs_out`).
    pub(crate) fn statfs(&mut self, stat: &FsStat) {
        for count in [stat.blocks, stat.blocks_free, stat.blocks_available, stat.files, stat.files_free] {
            self.u64(count);
        }
        self.u32(stat.block_bytes);
        self.u32(stat.name_bytes_max);
        self.u32(stat.block_bytes);
        self.zeros(4 + 6 * 4);
    }

    /// Answer to an open (`fuse_open_out`).
    pub(crate) fn opened(&mut self, flags: u32) {
        self.u64(0);
        self.u32(flags);
        self.u32(0);
    }

    /// Answer to a write or a copy: how many bytes (`fuse_write_out`).
    pub(crate) fn written(&mut self, bytes: u32) {
        self.u32(bytes);
        self.u32(0);
    }

    /// Answer to an ioctl that succeeded (`fuse_ioctl_out`), followed by what it delivers.
    pub(crate) fn ioctl(&mut self, delivered: &[u8]) {
        self.zeros(16);
        self.put(delivered);
    }

    /// Answer to the first request (`fuse_init_out`).
    pub(crate) fn init(&mut self, init: &Init) {
        self.u32(7);
        self.u32(init.minor);
        self.u32(init.max_readahead);
        self.u32(init.flags as u32);
        self.u16(init.background_max);
        self.u16(init.background_max / 4 * 3);
        self.u32(init.write_bytes_max);
        self.u32(1);
        self.u16(init.pages_max);
        self.u16(0);
        self.u32((init.flags >> 32) as u32);
        self.zeros(7 * 4);
    }
}

/// What we agree on with the kernel.
pub(crate) struct Init {
    /// Protocol 7.`minor`.
    pub(crate) minor: u32,
    /// Most bytes read ahead.
    pub(crate) max_readahead: u32,
    /// Features, both halves.
    pub(crate) flags: u64,
    /// Most requests under way that no thread waits for.
    pub(crate) background_max: u16,
    /// Most bytes in a write.
    pub(crate) write_bytes_max: u32,
    /// Most pages in a request.
    pub(crate) pages_max: u16,
}

/// `st_mode`: type and permissions.
fn mode(attr: &Attr) -> u32 {
    u32::from(attr.kind.to_dtype()) << 12 | u32::from(attr.perm & 0o7777)
}

/// A device number as the kernel packs it: 12 bits major, 20 bits minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xfff00) << 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again() {
        let mut reply = Reply::new();
        reply.room(100_000).fill(0xee);
        assert_eq!(reply.finish(Unique(1), Ok(())).len(), 100_016);
        reply.clear();
        reply.zeros(4);
        let bytes = reply.finish(Unique(2), Ok(()));
        assert_eq!(bytes, [&20u32.to_ne_bytes()[..], &[0; 4], &2u64.to_ne_bytes(), &[0; 4]].concat());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut reply = Reply::new();
        reply.put(&[1; BODY_BYTES_MAX]);
        assert_eq!(reply.finish(Unique(1), Ok(())).len(), HEADER_BYTES + BODY_BYTES_MAX);
        reply.put(&[1; 3]);
        assert_eq!(reply.finish(Unique(1), Ok(()))[4..8], (-5i32).to_ne_bytes());
        assert_eq!(reply.finish(Unique(1), Ok(())).len(), HEADER_BYTES);
    }

    #[test]
    fn an_error_has_no_body() {
        let mut reply = Reply::new();
        reply.put(b"half an answer");
        let bytes = reply.finish(Unique(3), Err(Errno::IO));
        assert_eq!(bytes, [&16u32.to_ne_bytes()[..], &(-5i32).to_ne_bytes(), &3u64.to_ne_bytes()].concat());
    }

    #[test]
    fn device_numbers_are_packed() {
        assert_eq!(device_number((259, 70_000)), 0x1111_0370);
        assert_eq!(device_number((1, 3)), 0x103);
    }
}
