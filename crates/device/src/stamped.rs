//! Recorded devices that share a clock, so that the power can fail on all of them at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Crash, Device, Event, MemDevice, RecordingDevice, Result};

/// Counts the changes of all devices of a volume.
#[derive(Debug, Default)]
pub struct Time(AtomicU64);

impl Time {
    /// Changes begun so far.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A recorded device whose log notes the time of every change.
#[derive(Debug)]
pub struct Stamped {
    recorder: RecordingDevice,
    time: Arc<Time>,
}

impl Stamped {
    /// Records what happens to a device in memory from now on, by a clock shared with others.
    pub fn new(image: MemDevice, time: &Arc<Time>) -> Stamped {
        Stamped { recorder: RecordingDevice::new(image), time: time.clone() }
    }

    /// What happened, with the time of each change as the mark in front of it.
    pub fn recorder(&self) -> &RecordingDevice {
        &self.recorder
    }

    /// The power fails when all changes begun up to `at` are done and no later one has begun.
    pub fn crash_at(&self, at: u64) -> Crash {
        let log = self.recorder.log();
        let later = |e: &Event| matches!(e, Event::Mark(time) if *time > at);
        let position = log.events.iter().position(later).unwrap_or(log.events.len());
        log.crash_after(position)
    }

    fn stamp(&self) {
        self.recorder.mark(self.time.0.fetch_add(1, Ordering::SeqCst) + 1);
    }
}

impl crate::Wrapper for Stamped {
    type Inner = RecordingDevice;

    fn inner(&self) -> &Self::Inner {
        &self.recorder
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.stamp();
        Device::write_at(self.inner(), offset_bytes, data)
    }
    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.stamp();
        Device::write_fua_at(self.inner(), offset_bytes, data)
    }
    fn flush(&self) -> Result<()> {
        self.stamp();
        Device::flush(self.inner())
    }
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.stamp();
        Device::discard(self.inner(), offset_bytes, len_bytes)
    }
    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.stamp();
        Device::zero(self.inner(), offset_bytes, len_bytes)
    }
}
