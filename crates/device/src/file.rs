//! Regular files and block devices.
//!
//! **Opening.** [`Access::ReadOnly`] opens with `O_RDONLY`, so nothing this process does can change the storage, and
//! takes a shared lock: any number of readers, no writer. [`Access::ReadWrite`] takes an exclusive lock, and on a block
//! device also claims it with `O_EXCL`, which the kernel refuses while the device is mounted or part of another one.
//! [`Access::Peek`] takes no lock: for showing what a superblock says while somebody else has the volume mounted.
//! The rules are in `lock.rs`, how the holder of a lock is found is in `holder.rs`.
//!
//! **I/O** goes through the page cache with `pread` and `pwrite`. A forced write is one `pwritev2(RWF_DSYNC)`, which
//! waits for its own bytes and a flush of the disk's cache but not for unrelated dirty pages.
//!
//! **Flushes that have nothing to do are free.** Plain changes are counted when they complete; a flush after which none
//! completed returns at once.
//!
//! **Failed flushes are final.** When the page cache cannot write a page back, Linux reports it to one flush, marks the
//! page clean, and lets the next flush succeed although the data are gone. A filesystem that retried would believe in
//! writes that do not exist. So the first failure is remembered and every later flush of the same [`FileDevice`] fails.

mod holder;
mod lock;
mod sys;

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use rustix::io::ReadWriteFlags;

use crate::device::{check_range, check_writable, write_zeros};
use crate::waiting;
use crate::{Advice, Device, Errno, Error, Op, Result, SECTOR_BYTES};

pub use holder::{Holder, Process};

/// What a device is opened for, and whom that shuts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading while nobody writes. Never changes a byte.
    ReadOnly,
    /// Reading and writing, alone.
    ReadWrite,
    /// Reading whatever is there now, beside any other user. Never changes a byte. What is read may change between one
    /// read and the next.
    Peek,
}

/// How to open a [`FileDevice`].
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    access: Access,
    lock_wait: Duration,
    create_bytes: Option<u64>,
}

impl OpenOptions {
    /// Options for this access, failing at once if the device is in use.
    pub fn new(access: Access) -> OpenOptions {
        OpenOptions { access, lock_wait: Duration::ZERO, create_bytes: None }
    }

    /// How long to wait for another user to let go, for instance a process that is just being killed.
    pub fn lock_wait(self, lock_wait: Duration) -> OpenOptions {
        OpenOptions { lock_wait, ..self }
    }

    /// If nothing exists at the path, make a regular file of this size that holds no data yet (all zeros). Needs
    /// [`Access::ReadWrite`]. An existing file keeps its size.
    pub fn create_bytes(self, size_bytes: u64) -> OpenOptions {
        OpenOptions { create_bytes: Some(size_bytes), ..self }
    }

    /// Opens the file or block device at `path`.
    pub fn open(self, path: &Path) -> Result<FileDevice> {
        FileDevice::open(path, self)
    }
}

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
        Ok(FileDevice {
            name,
            path: path.to_path_buf(),
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

    /// Asks the operating system for the size again, after the device or file was grown from outside.
    pub fn refresh_size(&self) -> Result<u64> {
        let size_bytes = current_size(&self.file).map_err(|err| self.open_error(&err))?;
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(size_bytes)
    }

    /// Changes the size of a regular file. New bytes are zeros and take no space yet; bytes past a smaller size are gone.
    pub fn set_size(&self, size_bytes: u64) -> Result<()> {
        check_writable(self, Op::Write, 0, 0)?;
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

    /// Reads what one call delivers. When the bytes are not in memory, says that this thread will wait.
    fn read_some(&self, buf: &mut [u8], offset_bytes: u64) -> io::Result<usize> {
        let mut target = [IoSliceMut::new(buf)];
        match rustix::io::preadv2(&self.file, &mut target, offset_bytes, ReadWriteFlags::NOWAIT) {
            Ok(n) if n > 0 => return Ok(n),
            // Not in memory, the end of the file, or a kernel or file system without this flag.
            _ => waiting::about_to_wait(),
        }
        self.file.read_at(buf, offset_bytes)
    }

    /// Reads into several buffers what one call delivers, waiting if there is nothing in memory; 0 for any error.
    fn read_group(&self, bufs: &mut [IoSliceMut<'_>], offset_bytes: u64) -> usize {
        match rustix::io::preadv2(&self.file, bufs, offset_bytes, ReadWriteFlags::NOWAIT) {
            Ok(n) if n > 0 => n,
            _ => {
                waiting::about_to_wait();
                rustix::io::preadv(&self.file, bufs, offset_bytes).unwrap_or(0)
            }
        }
    }

    /// Fills `buf` from a range known to lie within the device.
    fn fill(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        let len_bytes = buf.len() as u64;
        let mut done = 0;
        while done < buf.len() {
            let at = offset_bytes + done as u64;
            match self.read_some(&mut buf[done..], at) {
                Ok(0) => {
                    let device = self.name.clone();
                    return Err(Error::Truncated { device, offset_bytes, len_bytes, end_bytes: at });
                }
                Ok(n) => done += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(self.io_error(Op::Read, offset_bytes, len_bytes, &err)),
            }
        }
        Ok(())
    }

    /// Writes `data` to a range known to lie within a writable device.
    fn put(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let _changing = Changing(&self.changes);
        self.file
            .write_all_at(data, offset_bytes)
            .map_err(|err| self.io_error(Op::Write, offset_bytes, data.len() as u64, &err))
    }

    /// Writes `data` and waits for these bytes to be stable.
    fn put_stable(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        waiting::about_to_wait();
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            let at = offset_bytes + done as u64;
            match rustix::io::pwritev2(&self.file, &rest, at, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }
}

/// Most buffers one vectored system call takes (`IOV_MAX` of Linux).
const VECTOR_MAX: usize = 1024;

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
        check_range(self, Op::Read, offset_bytes, buf.len() as u64)?;
        self.fill(offset_bytes, buf)
    }

    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        let len_bytes: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        check_range(self, Op::Read, offset_bytes, len_bytes)?;
        let mut at = offset_bytes;
        for group in bufs.chunks_mut(VECTOR_MAX) {
            // What one call does not deliver, for whatever reason, plain reads fetch or explain.
            let mut got = self.read_group(group, at);
            for buf in group {
                let have = got.min(buf.len());
                got -= have;
                self.fill(at + have as u64, &mut buf[have..])?;
                at += buf.len() as u64;
            }
        }
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        check_writable(self, Op::Write, offset_bytes, data.len() as u64)?;
        self.put(offset_bytes, data)
    }

    fn write_vectored_at(&self, offset_bytes: u64, bufs: &[IoSlice<'_>]) -> Result<()> {
        let len_bytes: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        check_writable(self, Op::Write, offset_bytes, len_bytes)?;
        let mut at = offset_bytes;
        for group in bufs.chunks(VECTOR_MAX) {
            // As for reads: plain writes put down or explain what the one call left over.
            let mut put = rustix::io::pwritev(&self.file, group, at).unwrap_or(0);
            for buf in group {
                let have = put.min(buf.len());
                put -= have;
                self.put(at + have as u64, &buf[have..])?;
                at += buf.len() as u64;
            }
        }
        Ok(())
    }

    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        check_writable(self, Op::Write, offset_bytes, data.len() as u64)?;
        self.fail_if_lost()?;
        let Err(err) = self.put_stable(offset_bytes, data) else {
            return Ok(());
        };
        // Either the write failed, which the caller may repeat, or the write-back did, which may have swallowed the one
        // report about other writes too. Writing the same bytes again without waiting tells which.
        self.put(offset_bytes, data)?;
        if Errno::of(&err).0 == libc::EOPNOTSUPP {
            return self.flush();
        }
        Err(self.lost_writes(&err))
    }

    fn flush(&self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
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

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        check_writable(self, Op::Discard, offset_bytes, len_bytes)?;
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
        let advice = match advice {
            Advice::WillNeed => rustix::fs::Advice::WillNeed,
            Advice::DontNeed => rustix::fs::Advice::DontNeed,
            Advice::Sequential => rustix::fs::Advice::Sequential,
            Advice::Random => rustix::fs::Advice::Random,
        };
        let len = std::num::NonZeroU64::new(len_bytes);
        if len.is_some() {
            // A hint that is not taken costs time only.
            let _ = rustix::fs::fadvise(&self.file, offset_bytes, len, advice);
        }
    }
}

/// Makes the file if the options ask for it and nothing is there. Says whether it did.
fn create_if_absent(path: &Path, options: OpenOptions) -> io::Result<bool> {
    if options.create_bytes.is_none() || options.access != Access::ReadWrite {
        return Ok(false);
    }
    let mut create = File::options();
    create.write(true).create_new(true).custom_flags(libc::O_NOCTTY);
    match create.open(path) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(err),
    }
}

/// Fails unless this is something with blocks. Asked before opening too, because opening a FIFO would wait for a writer.
fn check_kind(name: &Arc<str>, meta: &std::fs::Metadata) -> Result<()> {
    let kind = meta.file_type();
    let found = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a socket"
    };
    Err(Error::NotADevice { device: name.clone(), found })
}

/// Logical and physical block size in bytes. A regular file has no blocks of its own: sectors, and the unit its file
/// system prefers.
fn block_sizes(file: &File, is_block: bool) -> io::Result<(u32, u32)> {
    if is_block {
        let logical = rustix::fs::ioctl_blksszget(file)?;
        return Ok((logical, rustix::fs::ioctl_blkpbszget(file)?.max(logical)));
    }
    let preferred = file.metadata()?.blksize().clamp(SECTOR_BYTES, 4096);
    Ok((SECTOR_BYTES as u32, preferred as u32))
}

/// Present size in bytes. Seeking to the end works for block devices too, whose metadata say 0; the file position is
/// used for nothing else.
fn current_size(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?)
}

fn punch_hole(file: &File, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, how, offset_bytes, len_bytes)?)
}

fn is_unsupported(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY))
}
