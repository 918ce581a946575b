//! Room for what is gathered, in regular files.
//!
//! A file with holes on a full file system has no room for a write. The page cache finds that out when the write is made; a write that is gathered would be
//! found out when it is too late to tell who made it. So the file gets its room first, in regions of 64 KiB, each of which is
//! asked for once. (Larger ones would fill the holes of an image in which little is written.) (A thin block device has nothing like that to ask.)

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// How much gets its room at a time.
const REGION_BYTES: u64 = 64 << 10;
/// So many regions are remembered.
const REGIONS_MAX: usize = 16_384;

/// Regions of a file that have their room, by number.
#[derive(Debug, Default)]
pub(super) struct Reserved(Mutex<BTreeSet<u64>>);

impl Reserved {
    /// Gives a range of a file of this size its room.
    ///
    /// # Errors
    /// Only if there is none; a file system that cannot tell does so later.
    pub(super) fn reserve(&self, file: &File, range: &Range<u64>, size_bytes: u64) -> io::Result<()> {
        let reserve = |range: &Range<u64>| match rustix::fs::fallocate(
            file,
            FallocateFlags::KEEP_SIZE,
            range.start,
            range.end - range.start,
        ) {
            Err(none @ (Errno::NOSPC | Errno::DQUOT)) => Err(none),
            _ => Ok(()),
        };
        for region in regions(range) {
            if self.0.lock().contains(&region) {
                continue;
            }
            let start = region * REGION_BYTES;
            if reserve(&(start..size_bytes.min(start + REGION_BYTES))).is_err() {
                return Ok(reserve(range)?);
            }
            let mut reserved = self.0.lock();
            if reserved.len() >= REGIONS_MAX {
                reserved.clear();
            }
            reserved.insert(region);
        }
        Ok(())
    }

    /// A range may be about to lose its room.
    pub(super) fn forget(&self, range: &Range<u64>) {
        let regions = regions(range);
        self.0.lock().retain(|region| !regions.contains(region));
    }
}

fn regions(range: &Range<u64>) -> Range<u64> {
    range.start / REGION_BYTES..range.end.div_ceil(REGION_BYTES)
}
