//! Space: which buckets there are to write to, and how much may be promised.
//!
//! Everything here is in memory and follows the commits: [`Space`] is built from the b-trees when the volume is opened, and
//! [`super::triggers`] tells it what each commit did.
//!
//! | to find | look in |
//! |---|---|
//! | where new data and nodes go | `allocator.rs`, `write_point.rs` |
//! | discards, dropping cached data | `reclaim.rs`; by the engine and a thread: `engine.rs` |
//! | the buckets of a device: free, open, waiting | `device.rs`, `bucket_set.rs` |
//! | what the b-trees say when the volume is opened | `stored.rs` |
//! | counters, `statfs`, reservations | `counters.rs` |

mod allocator;
mod bucket_set;
mod counters;
mod device;
mod engine;
mod reclaim;
mod stored;
#[cfg(test)]
mod tests;
mod write_point;

use std::sync::Arc;

use frazil_btree::Btrees;
use frazil_btree::write::CommitError;
use frazil_journal::Watermark;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::Members;
use frazil_ondisk::units::{DevIndex, Gen, Sectors, Seq};
use frazil_ondisk::values::accounting::{AccountingPos, Order};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{DataType, Key};

pub use self::allocator::{Allocation, Allocator, Hold, Relief, Request};
use self::counters::Counters;
pub use self::counters::DiskReservation;
#[cfg(test)]
pub(in crate::write) use self::device::OpenBucket;
use self::device::{DeviceSpace, Wake};
pub use self::engine::{RoomMaker, RoomThread};
pub use self::reclaim::Buckets;
pub use self::write_point::Writer;
use crate::derive::{Context, Rules, StripeDevs};
use crate::usage::{self, Usage};

/// Buckets are emptied when what is unused in partly used ones is so many times what is free. The reference says half (spec 50 §6.8); but a bucket
/// holds less the later it is emptied. With 85 % in use, random overwrites cost 1.4 times as much moving with 1, and 0.9 times with 3; what is kept free
/// beyond the reserves only has to last for as long as emptying takes.
const UNUSED_PER_FREE: u64 = 4;

/// The space of a volume. Shared by all; every method may be called from any thread.
pub struct Space {
    rules: Rules,
    /// By index; members that are present.
    devices: Vec<Option<Arc<DeviceSpace>>>,
    counters: Arc<Counters>,
    wake: Arc<Wake>,
}

impl Space {
    /// The space of a volume with these members, of which those `present` can be used, from its freespace, bucket_gens, need_discard and
    /// accounting b-trees; `deltas` are changes of counters that are only in the journal, in its order.
    ///
    /// # Errors
    /// If one of the b-trees cannot be read.
    pub fn load<'k>(
        superblock: &Superblock,
        members: &Members,
        present: impl Fn(DevIndex) -> bool,
        btrees: &Btrees,
        deltas: impl Iterator<Item = Key<'k>>,
    ) -> frazil_btree::Result<Space> {
        let order = Order::of(superblock.version);
        let stored = usage::accounting(btrees, deltas, superblock.version)?;
        let counters = stored.into_iter().filter_map(|(pos, (_, stored))| {
            let mut counters = [0; 3];
            counters.iter_mut().zip(stored).for_each(|(to, from)| *to = from);
            Some((AccountingPos::decode(pos, order).ok()?, counters))
        });
        let space = Space::new(superblock, members, present, counters);
        for device in space.devices() {
            stored::load(device, btrees, superblock.version)?;
        }
        Ok(space)
    }

    /// The space of a volume with these members, of which those `present` can be used, and these counters; all buckets are in use.
    fn new(
        superblock: &Superblock,
        members: &Members,
        present: impl Fn(DevIndex) -> bool,
        counters: impl IntoIterator<Item = (AccountingPos, [i64; 3])>,
    ) -> Space {
        let (mut devices, wake) = (Vec::new(), Arc::new(Wake::new()));
        for (dev, member) in members.live() {
            let index = usize::from(dev.0);
            devices.resize_with(devices.len().max(index + 1), || None);
            let node = superblock.btree_node_size();
            devices[index] =
                Some(Arc::new(DeviceSpace::new(dev, member, node, present(dev), Arc::clone(&wake))));
        }
        let counters: Vec<_> = counters.into_iter().collect();
        let mut usage = Usage::default();
        counters.iter().for_each(|(what, counters)| usage.add(what, counters));
        let hidden = usage.hidden(members, &present);
        let capacity = usage::capacity(superblock, members, &present);
        let total = Sectors(capacity.0.saturating_sub(hidden.0));
        Space {
            rules: Rules::new(superblock, members),
            devices,
            counters: Arc::new(Counters::new(total, counters)),
            wake,
        }
    }

    /// What keys imply on this volume.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What the space is used for, promises included; what `statfs` says.
    pub fn usage(&self) -> Usage {
        self.counters.usage()
    }

    /// Promises space: disk sectors, all copies counted, uncompressed.
    ///
    /// # Errors
    /// [`CommitError::NoSpace`] if that much is not available. Nothing else fails for lack of space before.
    pub fn reserve(&self, sectors: Sectors) -> Result<DiskReservation, CommitError> {
        DiskReservation::take(&self.counters, sectors, self.room()).ok_or(CommitError::NoSpace)
    }

    /// Sectors that data may still fill: cached data goes when it is in the way, and what is unused in partly used buckets can be had by moving the rest.
    fn room(&self) -> Sectors {
        let of = |device: &Arc<DeviceSpace>| {
            let cached = AccountingPos::DevDataType { dev: device.dev, data_type: DataType::CACHED };
            let cached = u64::try_from(self.counters.get(&cached)[0]).unwrap_or(0);
            let whole =
                device.usable(Watermark::Normal).saturating_add(cached).saturating_mul(device.bucket.0);
            whole.saturating_add(self.fragmented(device).0)
        };
        let devices = self.devices().filter(|device| device.takes(DataType::USER));
        Sectors(devices.map(of).fold(0, u64::saturating_add))
    }

    /// Sectors of partly used buckets of a device that nothing uses.
    fn fragmented(&self, device: &DeviceSpace) -> Sectors {
        let of = |data_type| {
            let usage = self.counters.get(&AccountingPos::DevDataType { dev: device.dev, data_type });
            u64::try_from(usage[2]).unwrap_or(0)
        };
        Sectors(of(DataType::USER).saturating_add(of(DataType::BTREE)))
    }

    /// How much may be written to each device before buckets must be emptied: until what is unused in partly used buckets is
    /// [`UNUSED_PER_FREE`] times what is free.
    pub(super) fn writes_until_fragmented(&self) -> Vec<(DevIndex, Sectors)> {
        let left = |device: &Arc<DeviceSpace>| {
            let free = device.free_soon().saturating_mul(device.bucket.0);
            let left = free.saturating_mul(UNUSED_PER_FREE).saturating_sub(self.fragmented(device).0);
            // At worst each sector written takes one from what is free, and adds one to what is unused.
            (device.dev, Sectors(left / (UNUSED_PER_FREE + 1)))
        };
        self.devices().filter(|d| d.takes(DataType::USER)).map(left).collect()
    }

    /// Devices that have no bucket left for new data.
    pub(super) fn short(&self) -> Vec<DevIndex> {
        let short = self.devices().filter(|d| d.takes(DataType::USER) && d.available(Watermark::Normal) == 0);
        short.map(|d| d.dev).collect()
    }

    /// Size of the buckets of a device; 1 if there is no such device.
    pub(super) fn bucket(&self, dev: DevIndex) -> Sectors {
        self.device(dev).map_or(Sectors(1), |device| device.bucket)
    }

    /// Whether keys may be added for something new. Nodes that grow are written later, when nobody can be told that there is no room, so this says it
    /// while there still is enough to write back all that is dirty and to remove things.
    ///
    /// # Errors
    /// [`CommitError::NoSpace`] if there is not.
    pub fn admit_keys(&self) -> Result<(), CommitError> {
        let mut devices = self.devices().filter(|device| device.takes(DataType::BTREE));
        let fits = devices.any(|device| device.usable(Watermark::Copygc) > 0);
        if fits { Ok(()) } else { Err(CommitError::NoSpace) }
    }

    /// Promises space to somebody who must not fail because he frees space, or moves it.
    pub fn reserve_anyway(&self, sectors: Sectors) -> DiskReservation {
        DiskReservation::take_anyway(&self.counters, sectors)
    }

    /// Has `wake` called whenever there is something new to discard, from whichever thread notices, under the commit lock too: it must not wait. Only
    /// the first call counts.
    pub fn on_work(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // A second one is refused, as it says.
        drop(self.wake.set(wake));
    }

    /// Everything up to `seq` is on stable storage. The journal says so.
    pub fn flushed(&self, seq: Seq) {
        self.devices().for_each(|device| device.flushed(seq));
    }

    /// The oldest journal entry that must be flushed before buckets emptied in it can be used again.
    pub fn waits_for(&self) -> Option<Seq> {
        self.devices().filter_map(|d| d.waits_for()).map(|(oldest, _)| oldest).min()
    }

    /// The generation of a bucket at present; 0 if there is no such bucket.
    pub fn generation(&self, at: DevBucket) -> Gen {
        self.device(at.dev).map_or(Gen(0), |device| device.generation(at.bucket))
    }

    /// The generations of all buckets: by device, from its first bucket on.
    pub(super) fn generations(&self) -> impl Iterator<Item = (DevIndex, u64, Vec<Gen>)> {
        self.devices().map(|device| (device.dev, device.first, device.generations()))
    }

    /// Buckets that cannot be used because there might be pointers that are too old (spec 50 §1.1).
    pub(super) fn out_of_use(&self) -> u64 {
        let of = |device: &Arc<DeviceSpace>| {
            let what = AccountingPos::DevDataType { dev: device.dev, data_type: DataType::NEED_GC_GENS };
            u64::try_from(self.counters.get(&what)[0]).unwrap_or(0)
        };
        self.devices().filter(|device| device.is_writable()).map(of).sum()
    }

    /// Somebody fills the bucket, or has filled it and not committed the pointers.
    pub(crate) fn is_open(&self, at: DevBucket) -> bool {
        self.device(at.dev).is_some_and(|d| d.is_open(at.bucket))
    }

    /// A commit in entry `seq` left buckets and counters like this.
    pub(crate) fn committed(
        &self,
        seq: Seq,
        buckets: impl Iterator<Item = (DevBucket, Alloc)>,
        counters: &[(AccountingPos, [i64; 3])],
    ) {
        for (at, alloc) in buckets {
            if let Some(device) = self.device(at.dev) {
                device.changed(seq, at.bucket, &alloc);
            }
        }
        self.counters.add(counters);
    }

    fn device(&self, dev: DevIndex) -> Option<&Arc<DeviceSpace>> {
        self.devices.get(usize::from(dev.0))?.as_ref()
    }

    fn devices(&self) -> impl Iterator<Item = &Arc<DeviceSpace>> {
        self.devices.iter().flatten()
    }
}

impl Context for Space {
    fn is_stale(&self, at: DevBucket, generation: Gen) -> bool {
        self.device(at.dev).is_none_or(|d| d.generation(at.bucket).is_after(generation))
    }

    /// Nothing in a stripe is written, so no key that is in one is ever asked about.
    fn stripe(&self, _idx: u64) -> Option<StripeDevs> {
        None
    }
}

#[cfg(test)]
impl Space {
    /// Panics unless two spaces, of which nothing is open or promised, know the same.
    pub(in crate::write) fn assert_same(&self, other: &Space) {
        for (ours, theirs) in self.devices().zip(other.devices()) {
            ours.assert_same(theirs);
        }
        assert_eq!(self.usage(), other.usage());
    }

    /// Opens a bucket of a device, whatever the reserves.
    pub(in crate::write) fn open_any(&self, dev: DevIndex) -> Option<Arc<device::OpenBucket>> {
        let everywhere = device::Prefer::Outside(&[]);
        self.device(dev)?.take(Watermark::InteriorUpdates, &everywhere)
    }

    /// Opens this bucket, whatever it is.
    pub(in crate::write) fn open_this(&self, at: DevBucket) -> Option<Arc<OpenBucket>> {
        self.device(at.dev).map(|device| device.take_this(at.bucket))
    }
}
