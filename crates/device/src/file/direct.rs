//! Writing past the page cache.
//!
//! A second descriptor for the same block device, opened with `O_DIRECT`. The kernel says which alignment it wants (`STATX_DIOALIGN`; before Linux 6.1 multiples of the
//! logical block do). What lies in memory that is not aligned is copied once. Should the device refuse all the same, everything goes through the cache from then on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, StatxFlags};

use crate::aligned::{PAGE_BYTES, Spare};

/// Most bytes that are copied at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Buffers for such copies that are kept.
const SPARE_MAX: usize = 8;

/// A way past the page cache.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// Offsets and lengths are multiples of this; at most a page.
    block_bytes: u64,
    /// Memory begins at a multiple of this; at most a page.
    memory_bytes: usize,
    spare: Spare,
    /// The kernel took back what it said.
    refused: AtomicBool,
}

impl Direct {
    /// A way past the page cache to the block device that `file` has open, if there is one.
    pub(super) fn open(file: &File, logical_block_bytes: u32) -> Option<Direct> {
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
        let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
        let (block_bytes, memory_bytes) = match told {
            true => (stat.stx_dio_offset_align, stat.stx_dio_mem_align),
            false => (logical_block_bytes, logical_block_bytes),
        };
        let fits = |bytes: u32| bytes.is_power_of_two() && bytes as usize <= PAGE_BYTES;
        if !fits(block_bytes) || !fits(memory_bytes) {
            return None;
        }
        // By way of the open file, because another one may have the name by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_DIRECT | libc::O_NOCTTY);
        let file = options.open(path).ok()?;
        Some(Direct {
            file,
            block_bytes: block_bytes.into(),
            memory_bytes: memory_bytes as usize,
            spare: Spare::new(SPARE_MAX),
            refused: AtomicBool::new(false),
        })
    }

    /// Offsets and lengths are multiples of this.
    pub(super) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Whether it is still a way.
    pub(super) fn is_open(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }

    /// Notes that the kernel does not take what it said it would, if that is what the error means; then this is no way any more.
    pub(super) fn is_refusal(&self, err: &io::Error) -> bool {
        let refused = err.raw_os_error() == Some(libc::EINVAL);
        if refused && !self.refused.swap(true, Ordering::Relaxed) {
            tracing::debug!("direct I/O is refused, the page cache is used from now on");
        }
        refused
    }

    /// Writes whole blocks.
    pub(super) fn write(&self, offset_bytes: u64, data: &[u8]) -> io::Result<()> {
        if (data.as_ptr() as usize).is_multiple_of(self.memory_bytes) {
            return self.file.write_all_at(data, offset_bytes);
        }
        let mut piece = self.spare.take(0);
        let mut at = offset_bytes;
        let done = data.chunks(PIECE_BYTES).try_for_each(|part| {
            piece.set_len(0);
            piece.extend_from_slice(part);
            self.file.write_all_at(&piece, at)?;
            at += part.len() as u64;
            Ok(())
        });
        self.spare.keep(piece);
        done
    }
}
