//! The images that may be on a disk after the power failed.
//!
//! A disk with a volatile cache promises little (see [`device`](crate::device)): what a flush or a forced write covered
//! is there; of everything else any part may be there, in units of a sector. So for each sector the possible contents
//! are the certain ones and those of every pending write to it, and all sectors choose independently. A sector never shows
//! a version older than the certain one, and never half of one.
//!
//! A [`Crash`] holds that choice open. [`Crash::images`] goes through all subsets of whole pending writes where these are
//! few, and otherwise through those that find most mistakes: nothing kept, all kept, each write missing alone, each kept
//! alone, each prefix. [`Crash::sample`] adds what enumeration cannot reach, torn writes above all, and gives the same
//! image for the same seed for ever.

use std::ops::Range;

use crate::recording::{Contents, Event, Log};
use crate::rng::Rng;
use crate::{Device, MemDevice, SECTOR_BYTES};

/// A write that may be on the disk or not, each of its sectors by itself.
#[derive(Clone, Debug)]
struct Pending {
    offset_bytes: u64,
    contents: Contents,
    acknowledged: bool,
    /// The bytes of the device that this write may still decide: its range less what became certain later.
    open: Vec<Range<u64>>,
}

impl Pending {
    /// Gives up the claim on bytes that a later write has made certain.
    fn yield_to(&mut self, certain: &Range<u64>) {
        let open = std::mem::take(&mut self.open);
        for range in open {
            let before = range.start..range.end.min(certain.start);
            let after = range.start.max(certain.end)..range.end;
            self.open.extend([before, after].into_iter().filter(|rest| !rest.is_empty()));
        }
    }

    /// Applies the part of the write that lies in `range`.
    fn apply(&self, image: &MemDevice, range: &Range<u64>) {
        let len = range.end - range.start;
        match &self.contents {
            Contents::Bytes(bytes) => {
                let skip = (range.start - self.offset_bytes) as usize;
                image.write_at(range.start, &bytes[skip..skip + len as usize])
            }
            Contents::Zeros(_) => image.zero(range.start, len),
        }
        .expect("the range was within the recorded device, and images are as large and writable");
    }

    fn apply_all(&self, image: &MemDevice) {
        for range in &self.open {
            self.apply(image, range);
        }
    }

    /// Applies those sectors that `keep` says yes to.
    fn apply_sectors(&self, image: &MemDevice, mut keep: impl FnMut() -> bool) {
        for range in &self.open {
            let mut start = range.start;
            while start < range.end {
                let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(range.end);
                if keep() {
                    self.apply(image, &(start..end));
                }
                start = end;
            }
        }
    }
}

/// A moment at which the power failed.
#[derive(Debug)]
pub struct Crash {
    /// How many events of the log had happened.
    pub position: usize,
    certain: MemDevice,
    pending: Vec<Pending>,
}

impl Crash {
    /// How many writes are pending: how much is uncertain.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The image without any pending write.
    pub fn all_lost(&self) -> MemDevice {
        self.certain.snapshot()
    }

    /// The image with every pending write: what was there just before the crash.
    pub fn all_kept(&self) -> MemDevice {
        self.with_kept(|_| true)
    }

    /// The image with those pending writes, by their order, for which `keep` says so.
    pub fn with_kept(&self, keep: impl Fn(usize) -> bool) -> MemDevice {
        let image = self.certain.snapshot();
        for (index, pending) in self.pending.iter().enumerate() {
            if keep(index) {
                pending.apply_all(&image);
            }
        }
        image
    }

    /// Images with whole pending writes kept or lost, at most `limit`: all 2ⁿ of them if they are no more than that, else
    /// those that find most mistakes and then samples. No subset of writes comes twice, except by sampling.
    pub fn images(&self, limit: usize) -> impl Iterator<Item = MemDevice> + '_ {
        let n = self.pending.len();
        let exhaustive =
            u32::try_from(n).ok().and_then(|n| 1usize.checked_shl(n)).filter(|&all| all <= limit);
        (0..exhaustive.unwrap_or(limit)).map(move |i| match exhaustive {
            Some(_) => self.with_kept(|index| i >> index & 1 == 1),
            None => self.telling(i),
        })
    }

    /// The i-th of the images worth a look when there are too many: lost, kept, prefixes, one missing, one alone, samples.
    fn telling(&self, i: usize) -> MemDevice {
        let n = self.pending.len();
        // With n > 2 pending writes the groups do not overlap: a prefix of 0 or n is all lost or all kept, a prefix of 1
        // is the first alone, and one of n - 1 is the last missing.
        let prefixes = n + 1;
        let missing = prefixes + n.saturating_sub(1);
        let alone = missing + n.saturating_sub(1);
        match i {
            _ if i < prefixes => self.with_kept(|index| index < i),
            _ if i < missing => self.with_kept(|index| index != i - prefixes),
            _ if i < alone => self.with_kept(|index| index == i - missing + 1),
            _ => self.sample((i - alone) as u64),
        }
    }

    /// One of the possible images, chosen by the seed: a prefix whose last write is torn, whole writes at random, or every
    /// sector at random.
    pub fn sample(&self, seed: u64) -> MemDevice {
        let mut rng = Rng::new(seed ^ (self.position as u64).rotate_left(32));
        let image = self.certain.snapshot();
        let style = rng.below(3);
        let cut = rng.below(self.pending.len() as u64 + 1) as usize;
        let odds = [1, 8, 15][rng.below(3) as usize];
        for (index, pending) in self.pending.iter().enumerate() {
            match style {
                0 if index < cut => pending.apply_all(&image),
                0 if index == cut => pending.apply_sectors(&image, || rng.chance(odds)),
                0 => {}
                1 if rng.chance(odds) => pending.apply_all(&image),
                1 => {}
                _ => pending.apply_sectors(&image, || rng.chance(odds)),
            }
        }
        image
    }
}

/// Iterator over the crashes of a log: before its first event, and after each.
#[derive(Debug)]
pub struct Crashes<'a> {
    log: &'a Log,
    certain: MemDevice,
    pending: Vec<Pending>,
    next: usize,
}

impl<'a> Crashes<'a> {
    pub(crate) fn new(log: &'a Log) -> Crashes<'a> {
        Crashes { log, certain: log.base.snapshot(), pending: Vec::new(), next: 0 }
    }

    /// The crash after the first `position` events of the log.
    pub(crate) fn at(log: &Log, position: usize) -> Crash {
        let mut crashes = Crashes::new(log);
        log.events[..position].iter().for_each(|event| crashes.pass(event));
        crashes.next = position;
        crashes.crash()
    }

    fn crash(&self) -> Crash {
        Crash { position: self.next, certain: self.certain.snapshot(), pending: self.pending.clone() }
    }

    /// Lets an event happen.
    fn pass(&mut self, event: &Event) {
        match event {
            Event::Write { offset_bytes, contents, stable, acknowledged } => {
                let range = *offset_bytes..offset_bytes + contents.len_bytes();
                let write = Pending {
                    offset_bytes: *offset_bytes,
                    contents: contents.clone(),
                    acknowledged: *acknowledged,
                    open: vec![range],
                };
                if *stable {
                    make_certain(&self.certain, &mut self.pending, &write);
                } else {
                    self.pending.push(write);
                }
            }
            Event::Flush => {
                let pending = std::mem::take(&mut self.pending);
                for write in pending {
                    if write.acknowledged {
                        make_certain(&self.certain, &mut self.pending, &write);
                    } else {
                        self.pending.push(write);
                    }
                }
            }
            Event::Mark(_) => {}
        }
    }
}

/// Makes a write certain, which settles its sectors for all the pending writes before it.
fn make_certain(certain: &MemDevice, older: &mut Vec<Pending>, write: &Pending) {
    write.apply_all(certain);
    for range in &write.open {
        older.iter_mut().for_each(|pending| pending.yield_to(range));
    }
    older.retain(|pending| !pending.open.is_empty());
}

impl Iterator for Crashes<'_> {
    type Item = Crash;

    fn next(&mut self) -> Option<Crash> {
        if self.next > self.log.events.len() {
            return None;
        }
        let crash = self.crash();
        if let Some(event) = self.log.events.get(self.next) {
            self.pass(event);
        }
        self.next += 1;
        Some(crash)
    }
}
