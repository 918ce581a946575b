//! The clocks of buckets: not time, but sectors read and written since the filesystem was made.
//!
//! A bucket remembers when it was last read and written on these clocks (spec 50 §2.1), so that what is cached longest without being
//! read goes first. Their values stand in every journal entry and in the clean section (spec 20 §3.3), and go on from there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use frazil_ondisk::units::Sectors;
use frazil_ondisk::values::alloc::IO_TIME_MAX;

/// The two clocks of a volume. Any thread may use them.
#[derive(Default)]
pub struct IoClocks {
    read: AtomicU64,
    write: AtomicU64,
    /// When somebody wants to be told by the clock of writes; 0 for never.
    alarm: AtomicU64,
    told: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl IoClocks {
    /// Clocks that go on from stored values.
    pub fn new(read: u64, write: u64) -> IoClocks {
        IoClocks { read: AtomicU64::new(read), write: AtomicU64::new(write), ..IoClocks::default() }
    }

    /// Has `told` called whenever the clock of writes comes to what [`IoClocks::set_alarm`] said, by whichever thread writes: it must not wait. Only the
    /// first call counts.
    pub fn on_alarm(&self, told: Box<dyn Fn() + Send + Sync>) {
        // A second one is refused, as it says.
        drop(self.told.set(told));
    }

    /// Wants to be told, once, when so much has been written in all.
    pub fn set_alarm(&self, write: u64) {
        self.alarm.store(write.max(1), Ordering::Release);
    }

    /// File data was read.
    pub fn has_read(&self, sectors: Sectors) {
        self.read.fetch_add(sectors.0, Ordering::Relaxed);
    }

    /// Data or nodes were written; every copy counts.
    pub fn has_written(&self, sectors: Sectors) {
        let now = self.write.fetch_add(sectors.0, Ordering::Relaxed).wrapping_add(sectors.0);
        let alarm = self.alarm.load(Ordering::Acquire);
        let mine = alarm != 0 && now >= alarm;
        if mine
            && self.alarm.compare_exchange(alarm, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && let Some(told) = self.told.get()
        {
            told();
        }
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

impl std::fmt::Debug for IoClocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IoClocks").field(&self.values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn times_fit_a_bucket_and_are_never_0() {
        let clocks = IoClocks::new(0, IO_TIME_MAX);
        assert_eq!(clocks.now(), [1, IO_TIME_MAX]);
        clocks.has_read(Sectors(8));
        clocks.has_written(Sectors(3));
        assert_eq!((clocks.now(), clocks.values()), ([8, 2], [8, IO_TIME_MAX + 3]));
    }

    #[test]
    fn an_alarm_rings_once() {
        let clocks = IoClocks::new(0, 100);
        let rung = Arc::new(AtomicU64::new(0));
        let ring = Arc::clone(&rung);
        clocks.on_alarm(Box::new(move || {
            ring.fetch_add(1, Ordering::Relaxed);
        }));
        clocks.has_written(Sectors(8));
        clocks.set_alarm(120);
        for (sectors, times) in [(11, 0), (1, 1), (50, 1)] {
            clocks.has_written(Sectors(sectors));
            assert_eq!(rung.load(Ordering::Relaxed), times);
        }
    }
}
