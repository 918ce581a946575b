//! Regular files and block devices.
//!
//! **Opening.** [`Access::ReadOnly`] opens with `O_RDONLY`, so nothing this process does can change the storage, and
//! takes a shared lock: any number of readers, no writer. [`Access::ReadWrite`] takes an exclusive lock, and on a block
//! device also claims it with `O_EXCL`, which the kernel refuses while the device is mounted or part of another one.
//! [`Access::Peek`] takes no lock: for showing what a superblock says while somebody else has the volume mounted.
//! The rules are in `lock.rs`, how the holder of a lock is found is in `holder.rs`.
//!
//! **Writes** go to block devices past the page cache, **reads** through it (`write.rs`, `direct.rs`, `read.rs`). So nothing is
//! copied on the way to the device, an error belongs to the write it is about, what has no room can be written again, and what is read often is in memory. That the two
//! agree needs no care here: as long as the device takes direct writes nothing is written to the page cache, so it holds nothing that the device does not, and the kernel drops the pages that a
//! direct write covers, before it and after it. Regular files are read and written through the page cache: their file systems find places for what is
//! written better when they see more of it, and say at once if there is no room.
//!
//! **Flushes that have nothing to do are free.** Plain changes are counted when they complete; a flush after which none
//! completed returns at once.
//!
//! **Failed flushes are final.** When the page cache cannot write a page back, Linux reports it to one flush, marks the
//! page clean, and lets the next flush succeed although the data are gone. A filesystem that retried would believe in
//! writes that do not exist. So the first failure is remembered and every later flush of the same [`FileDevice`] fails. A gathered write that could not be
//! written is none of these: nothing is lost, the flush says [`Error::Io`], and the next one tries again.

mod direct;
mod gather;
mod holder;
mod lock;
mod options;
mod read;
mod storage;
mod sys;
mod write;

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use self::direct::Direct;
use self::gather::Gather;
use self::storage::{block_sizes, check_kind, create_if_absent, current_size, is_unsupported, punch_hole};
use crate::device::{check_writable, write_zeros};
use crate::waiting;
use crate::{Advice, Device, Errno, Error, Op, Result};

pub use holder::{Holder, Process};
pub use options::{Access, OpenOptions};

/// A regular file or block device. See the [module](self).
#[derive(Debug)]
pub struct FileDevice {
    name: Arc<str>,
    path: PathBuf,
    file: File,
    access: Access,
    is_block: bool,
    size_bytes: AtomicU64,
    logical_block_bytes: u32,
    physical_block_bytes: u32,
    /// The way past the page cache, if there is one.
    direct: Option<Direct>,
    /// Small writes on that way.
    gather: Gather,
    /// Held by who reads a block to write it again with a part changed.
    partly: Mutex<()>,
    /// The first failure to make writes stable, which all later flushes repeat.
    lost: OnceLock<Errno>,
    /// Changes completed so far that only a flush makes stable. Starts at 1: what was there before may not be stable.
    changes: AtomicU64,
    /// How many of them a successful flush is known to have covered.
    stable_changes: AtomicU64,
}

/// Counts a change when it is over, whether it succeeded or not.
struct Changing<'a>(&'a AtomicU64);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl FileDevice {
    /// Opens the file or block device at `path`.
    ///
    /// Errors: [`Error::Open`], [`Error::NotADevice`], [`Error::InUse`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<FileDevice> {
        let name: Arc<str> = path.to_string_lossy().into();
        let failed = |err: io::Error| Error::Open { device: name.clone(), errno: Errno::of(&err) };

        let created = create_if_absent(path, options).map_err(failed)?;
        check_kind(&name, &std::fs::metadata(path).map_err(failed)?)?;
        let deadline = Instant::now() + options.lock_wait;
        let file = match lock::open_locked(path, options.access, deadline) {
            Ok(file) => file,
            Err(lock::Refusal::Failed(err)) => return Err(failed(err)),
            Err(lock::Refusal::InUse(holder)) => {
                return Err(Error::InUse { device: name, holder });
            }
        };

        let meta = file.metadata().map_err(failed)?;
        check_kind(&name, &meta)?;
        if let (true, Some(size_bytes)) = (created, options.create_bytes) {
            file.set_len(size_bytes).map_err(failed)?;
        }
        let is_block = meta.file_type().is_block_device();
        let (logical_block_bytes, physical_block_bytes) = block_sizes(&file, is_block).map_err(failed)?;
        let size_bytes = AtomicU64::new(current_size(&file).map_err(failed)?);
        let is_direct = is_block && options.direct && options.access == Access::ReadWrite;
        let direct = is_direct.then(|| Direct::open(&file, logical_block_bytes)).flatten();
        Ok(FileDevice {
            name,
            path: path.to_path_buf(),
            direct,
            gather: Gather::new(),
            partly: Mutex::default(),
            file,
            access: options.access,
            is_block,
            size_bytes,
            logical_block_bytes,
            physical_block_bytes,
            lost: OnceLock::new(),
            changes: AtomicU64::new(1),
            stable_changes: AtomicU64::new(0),
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a block device rather than a regular file.
    pub fn is_block_device(&self) -> bool {
        self.is_block
    }

    /// Whether writes go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct_to(&(0..0)).is_some()
    }

    /// Asks the operating system for the size again, after the device or file was grown from outside.
    pub fn refresh_size(&self) -> Result<u64> {
        let size_bytes = current_size(&self.file).map_err(|err| self.open_error(&err))?;
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(size_bytes)
    }

    /// Changes the size of a regular file. New bytes are zeros and take no space yet; bytes past a smaller size are gone.
    pub fn set_size(&self, size_bytes: u64) -> Result<()> {
        check_writable(self, Op::Write, 0, 0)?;
        self.settle(&(0..u64::MAX))?;
        let _changing = Changing(&self.changes);
        self.file.set_len(size_bytes).map_err(|err| self.open_error(&err))?;
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(())
    }

    fn open_error(&self, err: &io::Error) -> Error {
        Error::Open { device: self.name.clone(), errno: Errno::of(err) }
    }

    fn io_error(&self, op: Op, offset_bytes: u64, len_bytes: u64, err: &io::Error) -> Error {
        Error::Io { device: self.name.clone(), op, offset_bytes, len_bytes, errno: Errno::of(err) }
    }

    fn lost_writes(&self, err: &io::Error) -> Error {
        let errno = *self.lost.get_or_init(|| Errno::of(err));
        Error::LostWrites { device: self.name.clone(), errno }
    }

    fn fail_if_lost(&self) -> Result<()> {
        match self.lost.get() {
            Some(&errno) => Err(Error::LostWrites { device: self.name.clone(), errno }),
            None => Ok(()),
        }
    }

    /// Makes everything stable that the device has.
    fn sync(&self) -> Result<()> {
        self.fail_if_lost()?;
        // Nothing completed since the last flush began that succeeded: nothing to do. Asking the kernel would cost a flush of
        // the disk's cache all the same.
        let changes = self.changes.load(Ordering::Acquire);
        if self.stable_changes.load(Ordering::Acquire) >= changes {
            return Ok(());
        }
        waiting::about_to_wait();
        rustix::fs::fdatasync(&self.file).map_err(|err| self.lost_writes(&err.into()))?;
        self.stable_changes.fetch_max(changes, Ordering::Release);
        Ok(())
    }
}

impl Drop for FileDevice {
    /// What was written is seen by whoever opens it next, also without a flush.
    fn drop(&mut self) {
        // Without a flush nothing was promised.
        let _ = self.settle(&(0..u64::MAX));
    }
}

impl Device for FileDevice {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn logical_block_bytes(&self) -> u32 {
        self.logical_block_bytes
    }

    fn physical_block_bytes(&self) -> u32 {
        self.physical_block_bytes
    }

    fn is_read_only(&self) -> bool {
        self.access != Access::ReadWrite
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.read(offset_bytes, &mut [IoSliceMut::new(buf)])
    }

    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        self.read(offset_bytes, bufs)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        check_writable(self, Op::Write, offset_bytes, data.len() as u64)?;
        self.write(offset_bytes, data)
    }

    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        check_writable(self, Op::Write, offset_bytes, data.len() as u64)?;
        self.write_stable(offset_bytes, data)
    }

    fn flush(&self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        self.fail_if_lost()?;
        self.gather.write_out(&self.putter())?;
        self.sync()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        check_writable(self, Op::Discard, offset_bytes, len_bytes)?;
        self.drop_range(&(offset_bytes..offset_bytes + len_bytes));
        let _changing = Changing(&self.changes);
        let done = if self.is_block {
            let block = u64::from(self.logical_block_bytes);
            let start = offset_bytes.next_multiple_of(block);
            let end = (offset_bytes + len_bytes) / block * block;
            if start >= end { Ok(()) } else { sys::discard(&self.file, start, end - start) }
        } else if len_bytes == 0 {
            Ok(())
        } else {
            punch_hole(&self.file, offset_bytes, len_bytes)
        };
        match done {
            Err(err) if is_unsupported(&err) => Ok(()),
            done => done.map_err(|err| self.io_error(Op::Discard, offset_bytes, len_bytes, &err)),
        }
    }

    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        check_writable(self, Op::Zero, offset_bytes, len_bytes)?;
        self.settle(&(offset_bytes..offset_bytes + len_bytes))?;
        let _changing = Changing(&self.changes);
        let block = u64::from(self.logical_block_bytes);
        let done = if len_bytes == 0 {
            Ok(())
        } else if !self.is_block {
            punch_hole(&self.file, offset_bytes, len_bytes)
        } else if offset_bytes.is_multiple_of(block) && len_bytes.is_multiple_of(block) {
            let how = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.file, how, offset_bytes, len_bytes).map_err(io::Error::from)
        } else {
            return write_zeros(self, offset_bytes, len_bytes);
        };
        match done {
            Err(err) if is_unsupported(&err) => write_zeros(self, offset_bytes, len_bytes),
            done => done.map_err(|err| self.io_error(Op::Zero, offset_bytes, len_bytes, &err)),
        }
    }

    fn advise(&self, offset_bytes: u64, len_bytes: u64, advice: Advice) {
        let Some(len) = std::num::NonZeroU64::new(len_bytes) else { return };
        let advice = match advice {
            Advice::WillNeed => rustix::fs::Advice::WillNeed,
            Advice::DontNeed => rustix::fs::Advice::DontNeed,
        };
        // A hint that is not taken costs time only.
        let _ = rustix::fs::fadvise(&self.file, offset_bytes, Some(len), advice);
    }
}
