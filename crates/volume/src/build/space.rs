//! Where things go: buckets, and the places in them.
//!
//! Nothing is ever freed while a volume is built, so an allocator is a cursor: each device hands out its buckets from the first to
//! the last, past those of the superblocks and the journal. Two *write points* draw from them, one for nodes and one for data,
//! because a bucket holds one class of data only (spec 50 §1). A write point fills its buckets from front to back and
//! has as many open as there are copies to be made, each on another device.
//!
//! A new bucket is taken from the device that is least full, so that all fill up in proportion; devices of the class's target come
//! first (spec 50 §7). What the running volume needs to keep free (spec 50 §6.1) is not given away.

use std::ops::Range;

use frazil_ondisk::DataType;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::options::{self, OptionSpec};
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen, Sectors};
use frazil_ondisk::values::extent::ExtentPtr;

use super::error::{BuildError, Result};
use crate::derive::Rules;

/// Most copies of anything.
pub(super) const COPIES_MAX: usize = 4;
/// Nodes kept free for each of the two reserves of a device (spec 50 §6.1).
const NODE_RESERVE: u64 = 28;

/// The copies of one payload or node: the same sectors on different devices.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    ptrs: [ExtentPtr; COPIES_MAX],
    len: usize,
}

impl std::ops::Deref for Copies {
    type Target = [ExtentPtr];

    fn deref(&self) -> &[ExtentPtr] {
        &self.ptrs[..self.len]
    }
}

/// The free buckets of one device.
#[derive(Clone, Debug)]
struct DevSpace {
    dev: DevIndex,
    bucket: Sectors,
    /// The next bucket.
    next: u64,
    end: u64,
    /// Ranges of buckets that are taken, ascending.
    taken: Vec<Range<u64>>,
    free: u64,
    buckets: u64,
    durability: u8,
    allows: [bool; 2],
}

impl DevSpace {
    fn take(&mut self) -> Option<BucketIndex> {
        while let Some(range) = self.taken.iter().find(|r| r.contains(&self.next)) {
            self.next = range.end;
        }
        if self.next >= self.end {
            return None;
        }
        self.next += 1;
        self.free -= 1;
        Some(BucketIndex(self.next - 1))
    }
}

/// What is placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Node,
    Data,
}

impl Class {
    fn data_type(self) -> DataType {
        match self {
            Class::Node => DataType::BTREE,
            Class::Data => DataType::USER,
        }
    }

    /// Buckets that must stay free, on a device with that many and room for so many nodes in each (spec 50 §6.1).
    fn reserve(self, buckets: u64, nodes: u64) -> u64 {
        let reserve = NODE_RESERVE.div_ceil(nodes.max(1));
        match self {
            Class::Node => reserve,
            Class::Data => (buckets >> 6) + 2 * reserve,
        }
    }
}

/// A bucket that is being filled.
#[derive(Clone, Copy, Debug)]
struct OpenBucket {
    dev: usize,
    start: u64,
    used: u64,
    room: u64,
}

#[derive(Clone, Debug)]
struct WritePoint {
    class: Class,
    replicas: u8,
    target: u16,
    open: Vec<OpenBucket>,
}

/// All free space of the volume. A clone is a plan: what would be placed where.
#[derive(Clone, Debug)]
pub(super) struct Space {
    devs: Vec<DevSpace>,
    node: Sectors,
    points: [WritePoint; 2],
    /// For each device, whether it belongs to the target of each class; `None` where there is no target.
    targets: Vec<[Option<bool>; 2]>,
}

impl Space {
    /// The space of the devices, less the `taken` buckets of each.
    pub(super) fn new(superblock: &Superblock, rules: &Rules, taken: &[Vec<Range<u64>>]) -> Result<Space> {
        let members = superblock.members()?;
        let mut devs = Vec::new();
        for ((dev, member), taken) in members.live().zip(taken) {
            let held: u64 = taken.iter().map(|r| r.end - r.start).sum();
            devs.push(DevSpace {
                dev,
                bucket: member.bucket_size(),
                next: 0,
                end: member.nbuckets,
                taken: taken.clone(),
                free: member.nbuckets - held,
                buckets: member.nbuckets,
                durability: member.flags.durability(),
                allows: [Class::Node, Class::Data].map(|c| member.flags.allows(c.data_type())),
            });
        }
        let target = |spec: &OptionSpec| superblock.option(spec) as u16;
        let foreground = target(&options::FOREGROUND_TARGET);
        let metadata = match target(&options::METADATA_TARGET) {
            0 => foreground,
            own => own,
        };
        let flags = &superblock.flags;
        let point = |class, replicas, target| WritePoint { class, replicas, target, open: Vec::new() };
        let points = [
            point(Class::Node, flags.metadata_replicas(), metadata),
            point(Class::Data, flags.data_replicas(), foreground),
        ];
        let inside = |d: &DevSpace| [0, 1].map(|p: usize| rules.in_target(d.dev, points[p].target));
        let targets = devs.iter().map(inside).collect();
        Ok(Space { devs, node: superblock.btree_node_size(), points, targets })
    }

    /// How much one payload may be long and still go into the buckets that are open.
    pub(super) fn room(&self, class: Class) -> Sectors {
        let point = &self.points[class as usize];
        Sectors(point.open.iter().map(|b| b.room - b.used).min().unwrap_or(0))
    }

    /// Sectors of the smallest bucket: no payload can be longer.
    pub(super) fn bucket_min(&self) -> Sectors {
        self.devs.iter().map(|d| d.bucket).min().unwrap_or_default()
    }

    /// Places `len` sectors, one behind the other in one bucket, on as many devices as the class has copies.
    pub(super) fn place(&mut self, class: Class, len: Sectors) -> Result<Copies> {
        let mut point = self.points[class as usize].clone();
        point.open.retain(|b| b.room - b.used >= len.0);
        let durability = |space: &Space, open: &[OpenBucket]| {
            open.iter().map(|b| u32::from(space.devs[b.dev].durability)).sum::<u32>()
        };
        while durability(self, &point.open) < u32::from(point.replicas) && point.open.len() < COPIES_MAX {
            let bucket = self.open_bucket(&point)?;
            point.open.push(bucket);
        }
        let mut copies =
            Copies { ptrs: [ExtentPtr::new(DevIndex(0), Sectors(0), Gen(0)); COPIES_MAX], len: 0 };
        for bucket in &mut point.open {
            let at = Sectors(bucket.start + bucket.used);
            copies.ptrs[copies.len] = ExtentPtr::new(self.devs[bucket.dev].dev, at, Gen(0));
            copies.len += 1;
            bucket.used += len.0;
        }
        self.points[class as usize] = point;
        Ok(copies)
    }

    /// Takes a bucket from the least full device that may be used and has no copy yet.
    fn open_bucket(&mut self, point: &WritePoint) -> Result<OpenBucket> {
        let class = point.class as usize;
        let usable = |i: &usize| {
            let dev = &self.devs[*i];
            let nodes = dev.bucket.0 / self.node.0;
            dev.allows[class]
                && dev.durability > 0
                && dev.free > point.class.reserve(dev.buckets, nodes)
                && point.open.iter().all(|open| open.dev != *i)
        };
        let preferred = |i: &usize| self.targets[*i][class] == Some(true);
        // Fractions of free buckets, compared crosswise; the first of equals wins.
        let emptier = |a: &usize, b: &usize| {
            let (a, b) = (&self.devs[*a], &self.devs[*b]);
            (u128::from(b.free) * u128::from(a.buckets)).cmp(&(u128::from(a.free) * u128::from(b.buckets)))
        };
        let usable: Vec<usize> = (0..self.devs.len()).filter(usable).collect();
        let best = usable.iter().copied().filter(preferred).min_by(emptier);
        let best = best.or_else(|| usable.iter().copied().min_by(emptier));
        let taken = best.and_then(|dev| Some((dev, self.devs[dev].take()?)));
        let (dev, bucket) = taken.ok_or_else(|| self.full(point.class))?;
        let size = self.devs[dev].bucket.0;
        Ok(OpenBucket { dev, start: bucket.0 * size, used: 0, room: size })
    }

    fn full(&self, class: Class) -> BuildError {
        let what = match class {
            Class::Node => "the metadata",
            Class::Data => "the data",
        };
        let devices = match self.devs.len() {
            1 => "the device".to_owned(),
            n => format!("the {n} devices"),
        };
        BuildError::NoSpace { what, devices }
    }
}

/// Ranges as few, ascending and apart.
pub(super) fn joined(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
    ranges.sort_unstable_by_key(|r| r.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}
