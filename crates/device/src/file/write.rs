//! Writing: to block devices past the page cache, small writes gathered.
//!
//! A large write goes to the device from the caller's memory, in the caller's thread. A small one stays in memory until there is more of them or a flush wants them
//! written (`gather.rs`). A forced write waits for its own bytes and a flush of the disk's cache, not for what is gathered.
//!
//! Of a block of which only a part is written the rest is read first. Regular files, devices that take no direct writes, and a last block that is not whole are
//! written through the page cache. For files that was measured, too: past it they were slower by a quarter, because each write has to find its place by itself.
//!
//! Why not large writes past the cache and small ones through it: the kernel reads and keeps pages, many at a time if it likes, so a small write that goes through the cache
//! while a large one beside it goes past it may leave a page there that shows what was before the large one.
//!
//! Why not with io_uring: of asynchronous writes to block devices the kernel drops the cached pages before, not after, so that what is read beside a write may leave
//! what was there before in the cache. Some threads, each of which waits, are about as fast (docs/performance.md, "Past the page cache").

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;

use rustix::io::ReadWriteFlags;

use super::direct::Direct;
use super::gather::{LARGE_BYTES, Put};
use super::storage::current_size;
use super::{Changing, FileDevice};
use crate::{AlignedBuf, Device, Errno, Error, Op, Result, waiting};

impl FileDevice {
    /// Writes to a range known to lie within a writable device.
    pub(super) fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.in_whole_blocks(offset_bytes, data, |offset_bytes, data| {
            let range = offset_bytes..offset_bytes + data.len() as u64;
            if data.len() >= LARGE_BYTES || self.direct_to(&range).is_none() {
                self.settle(&range)?;
                return self.put(offset_bytes, data);
            }
            self.gather.add(offset_bytes, data, &self.putter())
        })
    }

    /// Writes to a range known to lie within a writable device, and returns when these bytes are stable.
    pub(super) fn write_stable(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.fail_if_lost()?;
        self.in_whole_blocks(offset_bytes, data, |offset_bytes, data| {
            let range = offset_bytes..offset_bytes + data.len() as u64;
            self.settle(&range)?;
            if self.direct_to(&range).is_some() {
                // In two steps it is known which failed, and the kernel flushes once: told to by the write itself it flushes block devices twice.
                self.put(offset_bytes, data)?;
                return self.sync();
            }
            let Err(err) = self.put_through_cache(offset_bytes, data, ReadWriteFlags::DSYNC) else {
                return Ok(());
            };
            // Either the write failed, which the caller may repeat, or the write-back did, which may have swallowed the one
            // report about other writes too. Writing the same bytes again without waiting tells which.
            self.put(offset_bytes, data)?;
            if Errno::of(&err).0 == libc::EOPNOTSUPP {
                return self.sync();
            }
            Err(self.lost_writes(&err))
        })
    }

    /// Does `write` with the whole blocks around a range: with what is there now, and `data` in it.
    fn in_whole_blocks(
        &self,
        offset_bytes: u64,
        data: &[u8],
        write: impl Fn(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let range = offset_bytes..offset_bytes + data.len() as u64;
        let Some(direct) = self.direct_to(&range) else { return write(offset_bytes, data) };
        let block = direct.block_bytes();
        let (start, end) = (range.start / block * block, range.end.next_multiple_of(block));
        if (start..end) == range {
            return write(offset_bytes, data);
        }
        // Nobody else writes another part of the same block meanwhile.
        waiting::about_to_wait();
        let _partly = self.partly.lock();
        let mut blocks = AlignedBuf::new((end - start) as usize);
        self.read(start, &mut [IoSliceMut::new(&mut blocks)])?;
        let skip = (range.start - start) as usize;
        blocks[skip..skip + data.len()].copy_from_slice(data);
        write(start, &blocks)
    }

    /// The way past the page cache to a range, if there is one.
    pub(super) fn direct_to(&self, range: &Range<u64>) -> Option<&Direct> {
        let direct = self.direct.as_ref().filter(|direct| direct.is_open())?;
        let block = direct.block_bytes();
        (range.end <= self.size_bytes() / block * block).then_some(direct)
    }

    /// Writes gathered writes in a range, and forgets them.
    pub(super) fn settle(&self, range: &Range<u64>) -> Result<()> {
        self.gather.settle(range, &self.putter())
    }

    /// Forgets gathered writes in a range whose contents nobody needs.
    pub(super) fn drop_range(&self, range: &Range<u64>) {
        self.gather.drop_range(range, &self.putter());
    }

    /// How what was gathered gets to the device.
    pub(super) fn putter(&self) -> impl Put {
        |at, data: &[u8]| self.put(at, data)
    }

    /// Writes `data` and waits until the device has it; whole blocks, if there is a way past the cache.
    fn put(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let _changing = Changing(&self.changes);
        let len_bytes = data.len() as u64;
        let failed = |err: io::Error| self.write_error(offset_bytes, len_bytes, &err);
        if let Some(direct) = self.direct_to(&(offset_bytes..offset_bytes + len_bytes)) {
            waiting::about_to_wait();
            match direct.write(offset_bytes, data) {
                Err(err) if direct.is_refusal(&err) => {}
                done => return done.map_err(failed),
            }
        }
        self.put_through_cache(offset_bytes, data, ReadWriteFlags::empty()).map_err(failed)
    }

    /// What became of a write. Behind its end a block device has "no room" either, but waiting for some would be in vain: it was unplugged, or
    /// made smaller.
    fn write_error(&self, offset_bytes: u64, len_bytes: u64, err: &io::Error) -> Error {
        let error = self.io_error(Op::Write, offset_bytes, len_bytes, err);
        if self.is_block
            && error.is_no_space()
            && let Ok(end_bytes) = current_size(&self.file)
            && end_bytes < offset_bytes + len_bytes
        {
            return Error::Truncated { device: self.name.clone(), offset_bytes, len_bytes, end_bytes };
        }
        error
    }

    fn put_through_cache(&self, offset_bytes: u64, data: &[u8], how: ReadWriteFlags) -> io::Result<()> {
        if how.contains(ReadWriteFlags::DSYNC) {
            waiting::about_to_wait();
        }
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            match rustix::io::pwritev2(&self.file, &rest, offset_bytes + done as u64, how) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }
}
