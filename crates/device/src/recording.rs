//! A device that remembers every change, so that crashes can be tried afterwards.
//!
//! A [`RecordingDevice`] passes everything through to the device below and appends each write, zeroing, discard and flush
//! to a [`Log`]. From the log a test takes [`Crash`]es: "the power failed after event n". A crash knows which bytes are
//! certain by then, and which writes are pending: completed, perhaps, but covered by no flush. From these it builds the
//! images that may be found on the disk afterwards; see [`crash`](crate::crash).
//!
//! Operations are recorded in the order in which they reached the device below, one at a time: a lock is held around each,
//! so the recorded order *is* the order, at the price of parallel I/O. A write that runs beside a flush is recorded after
//! it unless it completed before, which is the less certain of the two truths.
//!
//! Writes are recorded in whole sectors, because that is what a disk writes: one that covers part of a sector is recorded
//! with the bytes around it.
//!
//! A write that failed may be on the disk or not. It is recorded as not acknowledged, and no later flush makes it certain.
//!
//! Tests note what they learnt with [`mark`](RecordingDevice::mark): "fsync number 7 returned here". A crash after the
//! mark must show what it promised.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::crash::{Crash, Crashes};
use crate::{Device, Error, MemDevice, Result, SECTOR_BYTES};

/// New contents of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// This many zeros: from zeroing, or from a discard, after which anything may be there, and zeros as likely as the old
    /// bytes.
    Zeros(u64),
}

impl Contents {
    /// Length in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Zeros(len) => *len,
        }
    }
}

/// Something that happened to a recorded device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A range got new contents.
    Write {
        /// Start of the range.
        offset_bytes: u64,
        /// What it got.
        contents: Contents,
        /// Whether it was a forced write that succeeded, and so is stable.
        stable: bool,
        /// Whether the device said it succeeded. If not, it may be there or not.
        acknowledged: bool,
    },
    /// A flush succeeded: all acknowledged writes before it are stable. Failed flushes promise nothing and are not
    /// recorded.
    Flush,
    /// The test said so.
    Mark(u64),
}

/// What happened to a device, from a known beginning.
#[derive(Debug)]
pub struct Log {
    /// Contents before the first event.
    pub base: MemDevice,
    /// What happened, in order.
    pub events: Vec<Event>,
}

impl Log {
    /// All crashes that are worth a look, in order: after each event, beginning before the first. Costs memory for one
    /// image and the writes between two flushes, whatever the length of the log.
    pub fn crashes(&self) -> Crashes<'_> {
        Crashes::new(self)
    }

    /// The crash after the first `position` events.
    ///
    /// # Panics
    /// If there are fewer events.
    pub fn crash_after(&self, position: usize) -> Crash {
        Crashes::at(self, position)
    }

    /// The marks among the first `position` events.
    pub fn marks_before(&self, position: usize) -> impl Iterator<Item = u64> {
        self.events[..position].iter().filter_map(|event| match event {
            Event::Mark(mark) => Some(*mark),
            _ => None,
        })
    }
}

/// A device that remembers every change. See the [module](self).
pub struct RecordingDevice {
    inner: Arc<dyn Device>,
    base: MemDevice,
    events: Mutex<Vec<Event>>,
}

impl RecordingDevice {
    /// Records what happens to a device in memory from now on.
    pub fn new(device: MemDevice) -> RecordingDevice {
        let base = device.snapshot();
        RecordingDevice::over(Arc::new(device), base)
    }

    /// Records what happens to any device. `base` must hold its present contents.
    pub fn over(inner: Arc<dyn Device>, base: MemDevice) -> RecordingDevice {
        RecordingDevice { inner, base, events: Mutex::default() }
    }

    /// Notes that the test got to know something.
    pub fn mark(&self, mark: u64) {
        self.events.lock().push(Event::Mark(mark));
    }

    /// How many events are recorded so far.
    pub fn position(&self) -> usize {
        self.events.lock().len()
    }

    /// What happened so far. Recording goes on.
    pub fn log(&self) -> Log {
        Log { base: self.base.snapshot(), events: self.events.lock().clone() }
    }

    /// Carries out a change and records it.
    fn change(
        &self,
        range: Range<u64>,
        data: Option<&[u8]>,
        forced: bool,
        go: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut events = self.events.lock();
        let whole = sectors(&range, self.size_bytes());
        let contents = match data {
            _ if range.end > self.size_bytes() || range.is_empty() => return go(),
            None if range == whole => Contents::Zeros(range.end - range.start),
            Some(data) if range == whole => Contents::Bytes(data.into()),
            data => self.filled_up(&range, &whole, data)?,
        };
        let result = go();
        let acknowledged = result.is_ok();
        if acknowledged || matches!(result, Err(Error::Io { .. } | Error::LostWrites { .. })) {
            let (offset_bytes, stable) = (whole.start, forced && acknowledged);
            events.push(Event::Write { offset_bytes, contents, stable, acknowledged });
        }
        result
    }

    /// What whole sectors hold when `range` of them has been written, with zeros if there are no data.
    fn filled_up(&self, range: &Range<u64>, whole: &Range<u64>, data: Option<&[u8]>) -> Result<Contents> {
        let mut bytes = vec![0; (whole.end - whole.start) as usize];
        self.inner.read_at(whole.start, &mut bytes)?;
        let part = &mut bytes[(range.start - whole.start) as usize..(range.end - whole.start) as usize];
        match data {
            Some(data) => part.copy_from_slice(data),
            None => part.fill(0),
        }
        Ok(Contents::Bytes(bytes.into()))
    }
}

/// The smallest range of whole sectors around `range`; the last sector of a device may be short.
fn sectors(range: &Range<u64>, size_bytes: u64) -> Range<u64> {
    let start = range.start / SECTOR_BYTES * SECTOR_BYTES;
    start..range.end.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX).min(size_bytes)
}

/// The range of an operation; one that leaves the number space leaves every device.
fn range(offset_bytes: u64, len_bytes: u64) -> Range<u64> {
    offset_bytes..offset_bytes.saturating_add(len_bytes)
}

impl crate::Wrapper for RecordingDevice {
    type Inner = dyn Device;

    fn inner(&self) -> &Self::Inner {
        &*self.inner
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let range = range(offset_bytes, data.len() as u64);
        self.change(range, Some(data), false, || self.inner().write_at(offset_bytes, data))
    }

    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let range = range(offset_bytes, data.len() as u64);
        self.change(range, Some(data), true, || self.inner().write_fua_at(offset_bytes, data))
    }

    fn flush(&self) -> Result<()> {
        let mut events = self.events.lock();
        self.inner().flush()?;
        events.push(Event::Flush);
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.change(range(offset_bytes, len_bytes), None, false, || {
            self.inner().discard(offset_bytes, len_bytes)
        })
    }

    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.change(range(offset_bytes, len_bytes), None, false, || {
            self.inner().zero(offset_bytes, len_bytes)
        })
    }
}

impl fmt::Debug for RecordingDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingDevice")
            .field("inner", &self.inner)
            .field("events", &self.position())
            .finish_non_exhaustive()
    }
}
