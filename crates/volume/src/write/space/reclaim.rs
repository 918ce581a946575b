//! Making buckets free again: discards, and dropping cached data (spec 50 §6.5, §6.6).
//!
//! Both are steps of bounded work that a worker repeats as long as something came of it; [`Space::on_work`] tells it when there is something
//! to discard, and dropping cached data is for when buckets run short. What they change are
//! alloc keys, in commits of their own, through [`Buckets`].

use std::ops::Range;

use frazil_btree::write::CommitError;
use frazil_device::DeviceSet;
use frazil_journal::Watermark;
use frazil_ondisk::DataType;
use frazil_ondisk::units::{DevIndex, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::DevBucket;

use super::Space;
use super::device::DeviceSpace;
use crate::write::clock::IoClocks;

/// Buckets of one commit: some ten keys each, and all in one entry of the journal.
const STEP_MAX: usize = 32;

/// The same where the journal is nearly full, and little of it must do: each node that is written anew there empties one bucket at most.
const STEP_FOR_NODES_MAX: usize = 4;

/// Buckets in the b-trees.
pub trait Buckets: Send + Sync {
    /// Changes alloc keys in one commit of this watermark: `change` gets each state as it is in the commit, and says whether it changed it. It may be
    /// called again if the commit must begin again.
    ///
    /// # Errors
    /// If the commit failed; nothing has changed then.
    fn change(
        &self,
        watermark: Watermark,
        buckets: &[DevBucket],
        change: &dyn Fn(DevBucket, &mut Alloc) -> bool,
    ) -> Result<(), CommitError>;

    /// Up to `max` buckets from the list of a device's cached buckets by read time, from that time on (spec 50 §2.5). What is written behind may be missing
    /// or too much.
    ///
    /// # Errors
    /// If the list cannot be read.
    fn cached(&self, dev: DevIndex, from: u64, max: usize) -> Result<Vec<DevBucket>, CommitError>;
}

impl Space {
    /// Discards some buckets that wait for nothing else; how many. 0 if there is nothing to do at present.
    ///
    /// # Errors
    /// If the commit failed.
    pub fn discard_step(&self, devices: &DeviceSet, buckets: &dyn Buckets) -> Result<usize, CommitError> {
        self.discard_some(devices, buckets, (Watermark::Btree, STEP_MAX))
    }

    fn discard_some(
        &self,
        devices: &DeviceSet,
        buckets: &dyn Buckets,
        (watermark, max): (Watermark, usize),
    ) -> Result<usize, CommitError> {
        for device in self.devices().filter(|d| d.is_writable() && devices.get(d.dev.0).is_some()) {
            let list = device.discardable(max);
            if list.is_empty() {
                continue;
            }
            if device.wants_discards() {
                discard(device, devices, &list);
            }
            buckets.change(watermark, &list, &|_, alloc| {
                std::mem::take(&mut alloc.need_discard) && alloc.data_type == DataType::NEED_DISCARD
            })?;
            return Ok(list.len());
        }
        Ok(0)
    }

    /// Drops cached data, the longest unread first, where few buckets are free; how many buckets. They then wait to be discarded.
    ///
    /// # Errors
    /// If the commit failed.
    pub fn invalidate_step(&self, clocks: &IoClocks, buckets: &dyn Buckets) -> Result<usize, CommitError> {
        for device in self.devices().filter(|d| d.is_writable()) {
            let cached = AccountingPos::DevDataType { dev: device.dev, data_type: DataType::CACHED };
            let short = device.short_of_free();
            if short == 0 || self.counters.get(&cached)[0] <= 0 {
                continue;
            }
            let max = STEP_MAX.min(usize::try_from(short).unwrap_or(STEP_MAX));
            let [read_clock, _] = clocks.now();
            // Times are compared modulo their range: what is just ahead of the clock is oldest.
            let mut list = buckets.cached(device.dev, read_clock + 1, max)?;
            if list.len() < max {
                list.extend(buckets.cached(device.dev, 0, max - list.len())?);
            }
            list.retain(|at| at.dev == device.dev && !device.is_open(at.bucket));
            if list.is_empty() {
                continue;
            }
            let now = clocks.now();
            buckets.change(Watermark::Btree, &list, &|_, alloc| {
                let is_cached = alloc.data_type == DataType::CACHED;
                if is_cached {
                    invalidate(alloc, now);
                }
                is_cached
            })?;
            return Ok(list.len());
        }
        Ok(0)
    }
}

impl Space {
    /// One round of making room: discards what can be discarded; if that is nothing, has the journal flushed up to the entry that
    /// buckets wait for, by `flush`; if nothing waits, drops cached data. Whether anything came of it.
    ///
    /// # Errors
    /// If a commit or the flush failed.
    pub fn make_room(
        &self,
        devices: &DeviceSet,
        clocks: &IoClocks,
        buckets: &dyn Buckets,
        flush: impl FnOnce(Seq) -> Result<(), CommitError>,
    ) -> Result<bool, CommitError> {
        if self.discard_step(devices, buckets)? > 0 {
            return Ok(true);
        }
        if let Some(newest) = self.devices().filter_map(|d| d.waits_for()).map(|(_, newest)| newest).max() {
            flush(newest)?;
            // Whoever tells us of the flush may come later than the one who waited for it.
            self.flushed(newest);
            return Ok(self.discard_step(devices, buckets)? > 0);
        }
        Ok(self.invalidate_step(clocks, buckets)? > 0)
    }
}

impl Space {
    /// Makes a few emptied buckets free for nodes that reclaim cannot write otherwise. Reclaim is what makes room in the journal, so the commit must
    /// not wait for it: it has the urgency of the end of a change of nodes. Whether anything came of it.
    ///
    /// # Errors
    /// If the commit or the flush failed.
    pub fn make_room_for_nodes(
        &self,
        devices: &DeviceSet,
        buckets: &dyn Buckets,
        flush: impl FnOnce(Seq) -> Result<(), CommitError>,
    ) -> Result<bool, CommitError> {
        let urgent = (Watermark::InteriorUpdates, STEP_FOR_NODES_MAX);
        if self.discard_some(devices, buckets, urgent)? > 0 {
            return Ok(true);
        }
        let Some(oldest) = self.waits_for() else { return Ok(false) };
        flush(oldest)?;
        self.flushed(oldest);
        Ok(self.discard_some(devices, buckets, urgent)? > 0)
    }
}

/// Makes the pointers into a cached bucket stale (spec 50 §6.6).
fn invalidate(alloc: &mut Alloc, now: [u64; 2]) {
    alloc.generation = alloc.generation.next();
    alloc.need_inc_gen = false;
    alloc.cached_sectors = 0;
    alloc.io_time = now;
}

/// Tells the device, run by run. A device that will not hear of it loses nothing but speed.
pub(super) fn discard(device: &DeviceSpace, devices: &DeviceSet, list: &[DevBucket]) {
    let Some(target) = devices.get(device.dev.0) else { return };
    let mut runs: Vec<Range<u64>> = Vec::new();
    for at in list {
        let bucket = at.bucket.0;
        match runs.last_mut().filter(|run| run.start == bucket + 1) {
            Some(run) => run.start = bucket,
            None => runs.push(bucket..bucket + 1),
        }
    }
    for run in runs {
        let bytes = |buckets: u64| Sectors(buckets * device.bucket.0).0 * SECTOR_BYTES;
        if let Err(error) = target.discard(bytes(run.start), bytes(run.end - run.start)) {
            tracing::warn!("{error}");
        }
    }
}
