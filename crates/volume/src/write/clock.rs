//! The clocks of buckets: not time, but sectors read and written since the filesystem was made.
//!
//! A bucket remembers when it was last read and written on these clocks (spec 50 §2.1), so that what is cached longest without being
//! read goes first. Their values stand in every journal entry and in the clean section (spec 20 §3.3), and go on from there.

use std::sync::atomic::{AtomicU64, Ordering};

use frazil_ondisk::units::Sectors;
use frazil_ondisk::values::alloc::IO_TIME_MAX;

/// The two clocks of a volume. Any thread may use them.
#[derive(Debug, Default)]
pub struct IoClocks {
    read: AtomicU64,
    write: AtomicU64,
}

impl IoClocks {
    /// Clocks that go on from stored values.
    pub fn new(read: u64, write: u64) -> IoClocks {
        IoClocks { read: AtomicU64::new(read), write: AtomicU64::new(write) }
    }

    /// File data was read.
    pub fn has_read(&self, sectors: Sectors) {
        self.read.fetch_add(sectors.0, Ordering::Relaxed);
    }

    /// Data or nodes were written; every copy counts.
    pub fn has_written(&self, sectors: Sectors) {
        self.write.fetch_add(sectors.0, Ordering::Relaxed);
    }

    /// The values to store: read, write.
    pub fn values(&self) -> [u64; 2] {
        [self.read.load(Ordering::Relaxed), self.write.load(Ordering::Relaxed)]
    }

    /// The times to write into a bucket: 48 bits, and not 0, which would mean "never" (spec 50 §4.4).
    pub fn now(&self) -> [u64; 2] {
        self.values().map(|clock| (clock & IO_TIME_MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fit_a_bucket_and_are_never_0() {
        let clocks = IoClocks::new(0, IO_TIME_MAX);
        assert_eq!(clocks.now(), [1, IO_TIME_MAX]);
        clocks.has_read(Sectors(8));
        clocks.has_written(Sectors(3));
        assert_eq!((clocks.now(), clocks.values()), ([8, 2], [8, IO_TIME_MAX + 3]));
    }
}
