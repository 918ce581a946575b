//! The contract between a filesystem and its storage.
//!
//! A device is a fixed number of bytes with addresses from 0. The contract is the one disks give, no stronger:
//!
//! * A read returns, for each sector, the bytes of the last write to it that completed before the read began; while a
//!   write is in progress a read of the same sectors may see either.
//! * A completed write is visible to reads at once but survives a crash only after a later flush. Until then a crash
//!   keeps it, loses it, or keeps any of its sectors, whatever other writes it keeps.
//! * [`flush`](Device::flush) makes every write stable that completed before the flush was called. A write that ran
//!   beside the flush is not promised anything.
//! * [`write_fua_at`](Device::write_fua_at) ("force unit access") makes its own bytes stable, and those only, before it
//!   returns.
//!
//! All methods take `&self` and may be called from many threads at once. Two writes to overlapping ranges at the same
//! time leave either result, sector by sector; callers that care must not do that.
//!
//! Offsets and lengths are bytes throughout, as names and docs say; a layer that counts sectors converts once, at its
//! edge. No alignment is demanded, but ranges aligned to [`logical_block_bytes`](Device::logical_block_bytes) are the only
//! ones that are cheap everywhere, and memory that begins at a page ([`AlignedBuf`](crate::AlignedBuf)) may save a copy.

use std::fmt::Debug;
use std::io::IoSliceMut;
use std::sync::Arc;

use crate::{Error, Op, Result};

/// Bytes in a sector: the unit in which writes tear, and the smallest logical block.
pub const SECTOR_BYTES: u64 = 512;

/// Expected use of a range, to help the cache below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It will be read soon: start reading it now.
    WillNeed,
    /// It will not be read again soon: cached copies may go.
    DontNeed,
}

/// Storage addressed by bytes. See the [module](self) for what it promises.
pub trait Device: Send + Sync + Debug {
    /// What users call the device, for messages: usually the path they typed.
    fn name(&self) -> &Arc<str>;

    /// Size in bytes. It does not change while the device is in use, except where a type's own method changes it.
    fn size_bytes(&self) -> u64;

    /// Smallest unit the device reads and writes by itself, in bytes; a power of two, at least [`SECTOR_BYTES`].
    fn logical_block_bytes(&self) -> u32 {
        SECTOR_BYTES as u32
    }

    /// Unit below which writing costs the device a read first, in bytes; at least the logical block.
    fn physical_block_bytes(&self) -> u32 {
        self.logical_block_bytes()
    }

    /// Whether writes, discards and zeroing are refused.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Fills `buf` from the device.
    ///
    /// Errors if the range leaves the device or if any byte of it cannot be had; `buf` then holds anything.
    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()>;

    /// Fills `bufs`, one after the other, from one contiguous range.
    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        read_each(offset_bytes, bufs, |at, buf| self.read_at(at, buf))
    }

    /// Writes all of `data`. After an error the range holds old and new bytes in any mixture.
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()>;

    /// Writes all of `data` and returns when these bytes are stable. Earlier writes are promised nothing.
    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.write_at(offset_bytes, data)?;
        self.flush()
    }

    /// Makes every write stable that completed before this call. Succeeds without doing anything on a read-only device.
    fn flush(&self) -> Result<()>;

    /// Tells the device that a range is unneeded. What it holds afterwards is undefined: the old bytes, zeros, or
    /// something else. A device that knows no discard does nothing.
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()>;

    /// Makes a range read as zeros, giving its space back where the device can. Stable only after a flush, like a write.
    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        write_zeros(self, offset_bytes, len_bytes)
    }

    /// Hints how a range will be used. Never fails, may do nothing.
    fn advise(&self, _offset_bytes: u64, _len_bytes: u64, _advice: Advice) {}

    /// Size in whole sectors of 512 bytes.
    fn size_sectors(&self) -> u64 {
        self.size_bytes() / SECTOR_BYTES
    }
}

/// Reads into one buffer after the other.
pub(crate) fn read_each(
    offset_bytes: u64,
    bufs: &mut [IoSliceMut<'_>],
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let mut at = offset_bytes;
    for buf in bufs {
        read(at, buf)?;
        at += buf.len() as u64;
    }
    Ok(())
}

/// Zeroes a range with ordinary writes, a bounded piece at a time: for devices that have nothing better.
pub(crate) fn write_zeros(device: &(impl Device + ?Sized), offset_bytes: u64, len_bytes: u64) -> Result<()> {
    const PIECE_BYTES: u64 = 64 << 10;
    check_writable(device, Op::Zero, offset_bytes, len_bytes)?;
    let zeros = vec![0; PIECE_BYTES.min(len_bytes) as usize];
    let end = offset_bytes + len_bytes;
    let mut at = offset_bytes;
    while at < end {
        let piece = PIECE_BYTES.min(end - at);
        device.write_at(at, &zeros[..piece as usize])?;
        at += piece;
    }
    Ok(())
}

/// Reads into one buffer with `read`, then deals the bytes out to `bufs`.
pub(crate) fn scatter(bufs: &mut [IoSliceMut<'_>], read: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
    let mut whole = vec![0; bufs.iter().map(|buf| buf.len()).sum()];
    read(&mut whole)?;
    let mut rest = whole.as_slice();
    for buf in bufs {
        let (part, after) = rest.split_at(buf.len());
        buf.copy_from_slice(part);
        rest = after;
    }
    Ok(())
}

/// Fails unless the whole range lies within the device.
pub(crate) fn check_range(
    device: &(impl Device + ?Sized),
    op: Op,
    offset_bytes: u64,
    len_bytes: u64,
) -> Result<()> {
    let size_bytes = device.size_bytes();
    match offset_bytes.checked_add(len_bytes) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => {
            let device = device.name().clone();
            Err(Error::OutOfRange { device, op, offset_bytes, len_bytes, size_bytes })
        }
    }
}

/// Fails unless the range lies within a device that may be changed.
pub(crate) fn check_writable(
    device: &(impl Device + ?Sized),
    op: Op,
    offset_bytes: u64,
    len_bytes: u64,
) -> Result<()> {
    if device.is_read_only() {
        return Err(Error::ReadOnly { device: device.name().clone(), op, offset_bytes, len_bytes });
    }
    check_range(device, op, offset_bytes, len_bytes)
}
