//! Write points: who writes one after the other writes into one bucket (spec 50 §6.2).
//!
//! Data that is written together is likely to be read, and to die, together; then buckets become empty as a whole. So writers are
//! spread over write points by a number of their own, and each write point fills one bucket per device at a time. Nodes, and data that is moved, have
//! write points of their own, because they live longer.
//!
//! On a small or full device there are fewer write points, and at the end they take the buckets others have begun.

use std::sync::Arc;

use frazil_ondisk::units::{DevIndex, Sectors};
use frazil_ondisk::values::extent::ExtentPtr;
use parking_lot::Mutex;

use super::device::{DeviceSpace, OpenBucket};

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// File data; the number, for instance that of the inode, says what belongs together.
    User(u64),
    /// Data moved out of buckets that are to become empty.
    Copygc,
    /// Data moved or compressed in the background.
    Background,
}

/// Most write points of user data.
const USER_POINTS: usize = 32;
/// Buckets that must be free for each.
const FREE_PER_POINT: u64 = 8;

/// A bucket that is being filled.
pub(super) struct Filling {
    pub(super) open: Arc<OpenBucket>,
    used: u64,
}

impl Filling {
    /// The rest of the bucket in whole `grains`.
    pub(super) fn room(&self, grain: Sectors) -> Sectors {
        let rest = self.open.size().0.saturating_sub(self.used);
        Sectors(rest - rest % grain.0)
    }

    /// The next sectors, of which there must be so many.
    fn take(&mut self, sectors: Sectors) -> ExtentPtr {
        assert!(self.used + sectors.0 <= self.open.size().0, "more than the bucket has room for");
        let offset = Sectors(self.open.start().0 + self.used);
        self.used += sectors.0;
        ExtentPtr::new(self.open.at().dev, offset, self.open.generation())
    }
}

/// What one write point fills.
#[derive(Default)]
pub(super) struct WritePoint {
    /// At most one bucket per device.
    filling: Vec<Filling>,
    /// By device: how much more it got than its share (spec 50 §7).
    surplus: Vec<u64>,
}

impl WritePoint {
    /// The bucket on a device that has room for a grain.
    pub(super) fn has(&mut self, dev: DevIndex, grain: Sectors) -> bool {
        self.filling.retain(|f| f.open.at().dev != dev || f.room(grain).0 > 0);
        self.filling.iter().any(|f| f.open.at().dev == dev)
    }

    /// Begins a bucket, on a device of which none is being filled.
    pub(super) fn begin(&mut self, device: &DeviceSpace, open: Arc<OpenBucket>, free: u64) {
        self.filling.push(Filling { open, used: 0 });
        let index = usize::from(device.dev.0);
        self.surplus.resize(self.surplus.len().max(index + 1), 0);
        let quarter = self.surplus[index] / 4;
        self.surplus[index] = self.surplus[index].saturating_add((1 << 48) / free.max(1));
        self.surplus.iter_mut().for_each(|surplus| *surplus = surplus.saturating_sub(quarter));
    }

    /// Takes over a bucket somebody else began.
    pub(super) fn adopt(&mut self, filling: Filling) {
        self.filling.push(filling);
    }

    /// Gives away a bucket on a device that has room.
    pub(super) fn give(&mut self, dev: DevIndex, grain: Sectors) -> Option<Filling> {
        let index = self.filling.iter().position(|f| f.open.at().dev == dev && f.room(grain).0 > 0)?;
        Some(self.filling.swap_remove(index))
    }

    /// How much more than its share a device got.
    pub(super) fn surplus(&self, dev: DevIndex) -> u64 {
        self.surplus.get(usize::from(dev.0)).copied().unwrap_or(0)
    }

    /// Takes as many sectors as wanted and as there are on all these devices; each must have a bucket with room.
    pub(super) fn take(
        &mut self,
        devs: &[DevIndex],
        wanted: Sectors,
        grain: Sectors,
    ) -> (Vec<ExtentPtr>, Sectors, Vec<Arc<OpenBucket>>) {
        let on = |f: &&mut Filling| devs.contains(&f.open.at().dev);
        let room = self.filling.iter_mut().filter(on).map(|f| f.room(grain)).min().unwrap_or_default();
        let sectors = wanted.min(room);
        let mut chosen: Vec<&mut Filling> = self.filling.iter_mut().filter(on).collect();
        chosen.sort_by_key(|f| devs.iter().position(|dev| *dev == f.open.at().dev));
        let ptrs = chosen.iter_mut().map(|f| f.take(sectors)).collect();
        let held = chosen.iter().map(|f| Arc::clone(&f.open)).collect();
        self.filling.retain(|f| f.room(grain).0 > 0);
        (ptrs, sectors, held)
    }
}

/// All write points.
#[derive(Default)]
pub(super) struct WritePoints {
    users: [Mutex<WritePoint>; USER_POINTS],
    copygc: Mutex<WritePoint>,
    background: Mutex<WritePoint>,
    pub(super) nodes: Mutex<WritePoint>,
}

impl WritePoints {
    /// The write point of a writer, while that many buckets are free.
    pub(super) fn of(&self, writer: Writer, free: u64) -> &Mutex<WritePoint> {
        match writer {
            Writer::Copygc => &self.copygc,
            Writer::Background => &self.background,
            Writer::User(number) => {
                let points = (free / FREE_PER_POINT).clamp(1, USER_POINTS as u64);
                // Numbers of inodes are close together; their products with this odd constant are not.
                let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                &self.users[(spread % points) as usize]
            }
        }
    }

    /// A bucket somebody began on that device; `own` is locked by the caller and left out.
    pub(super) fn steal(&self, own: &Mutex<WritePoint>, dev: DevIndex, grain: Sectors) -> Option<Filling> {
        let data = self.users.iter().chain([&self.copygc, &self.background]);
        let others = data.filter(|point| !std::ptr::eq(*point, own));
        others.filter_map(|point| point.try_lock()).find_map(|mut point| point.give(dev, grain))
    }

    /// Lets go of every bucket that is being filled.
    pub(super) fn release(&self) {
        let all = self.users.iter().chain([&self.copygc, &self.background, &self.nodes]);
        all.for_each(|point| point.lock().filling.clear());
    }
}
