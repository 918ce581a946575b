//! Reading: through the page cache, which keeps what is read often and reads ahead.
//!
//! Past it was tried, and is slower by a third to a half for files that are read from front to back: the cache reads ahead while what it read is copied (docs/performance.md,
//! "Past the page cache").

use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use rustix::io::ReadWriteFlags;

use super::FileDevice;
use crate::device::check_range;
use crate::{Error, Op, Result, waiting};

/// Most buffers one vectored system call takes (`IOV_MAX` of Linux).
const VECTOR_MAX: usize = 1024;

impl FileDevice {
    /// Reads a range: what is on the device, and over it what is gathered.
    pub(super) fn read(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        let len_bytes: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        check_range(self, Op::Read, offset_bytes, len_bytes)?;
        self.gather.read(offset_bytes..offset_bytes + len_bytes, bufs, |bufs| {
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
        })
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
}
