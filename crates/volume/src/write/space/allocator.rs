//! Where new data and new nodes go (spec 50 §6, §7).
//!
//! The allocator picks devices, then a bucket on each, then sectors in it:
//!
//! * **Devices** are those that take the kind of data, first those of the target, then any. Of several the one comes first that got least in proportion
//!   to its free space. Each adds its durability until there are as many copies as wanted; a device of durability 0 is a cache, and
//!   gets at most one copy, which may be dropped.
//! * **Buckets** are those the write point is filling, or free ones. Nodes first go where the superblock says that there are nodes
//!   already, user data first elsewhere. Some buckets are kept free for more urgent writers, so that space can be freed when there is none.
//! * **Sectors** follow each other in a bucket, as many as wanted if all copies have room.
//!
//! What is given away is held by the [`Allocation`], until its pointers are committed.
//!
//! When there is nothing, data waits for what will become free: buckets that were emptied, but whose last journal entry is not on stable
//! storage, or which wait to be discarded, and cached data; and buckets that are emptied by moving what little they hold ([`crate::write::moving`]).
//! [`Relief`] makes room while no lock is held. If nothing came of it there is no space. Writes were promised space in sectors before they were accepted ([`super::DiskReservation`]), and the reserves make that
//! come true in buckets.
//!
//! Nodes never wait for others: they may be needed to free space. Their reserves are larger than what one operation needs; nothing new is
//! added when little more is left ([`super::Space::admit_keys`]). But buckets that nodes have left must be made free for other nodes, and who usually does that
//! may be waiting for room in the journal, which reclaim makes by writing nodes. So a node that finds no room has it made without waiting for the journal.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::{Arc, Weak};

use frazil_btree::write::{CommitError, NodeArea, NodeSpace};
use frazil_journal::Watermark;
use frazil_ondisk::DataType;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::units::{DevIndex, SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::ExtentPtr;
use parking_lot::{Mutex, ReentrantMutex, RwLock};

use super::Space;
use super::device::{DeviceSpace, OpenBucket, Prefer};
use super::write_point::{WritePoint, WritePoints, Writer};
use crate::write::superblocks::Superblocks;

/// What is wanted for data.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Who writes.
    pub writer: Writer,
    /// Devices to prefer (spec 10 §9.6); 0 for any.
    pub target: u16,
    /// How many copies there should be; a copy on a device counts as its durability.
    pub replicas: u8,
    /// How many there must be if there is no room for more; at least 1.
    pub required: u8,
    /// Devices that hold a copy already.
    pub exclude: &'r [DevIndex],
    /// Sectors of each copy; whole blocks.
    pub sectors: Sectors,
    /// How urgent it is.
    pub watermark: Watermark,
}

/// Room for data.
pub struct Allocation {
    /// One pointer per copy, on different devices; not empty.
    pub ptrs: Vec<ExtentPtr>,
    /// Sectors of each copy: as many as wanted, or fewer, but at least a block.
    pub sectors: Sectors,
    /// To be kept until the pointers are committed, or given up.
    pub hold: Hold,
}

/// Keeps buckets from being used by others or discarded: as long as it lives pointers into them may be committed.
#[must_use = "what is not held may be given to others"]
pub struct Hold {
    /// Never looked at; dropping them is what counts.
    _buckets: Vec<Arc<OpenBucket>>,
}

/// Who can make room.
pub trait Relief: Send + Sync {
    /// Makes buckets free: flushes the journal if they wait for it, discards, drops cached data, moves data. Waits for all that. Whether
    /// anything came of it.
    ///
    /// # Errors
    /// If a commit or a flush failed.
    fn relieve(&self) -> Result<bool, CommitError>;

    /// Makes a few emptied buckets free for nodes. For reclaim: never waits for room in the journal that only reclaim can make. Whether anything came of
    /// it.
    ///
    /// # Errors
    /// As [`Relief::relieve`].
    fn relieve_nodes(&self) -> Result<bool, CommitError>;
}

/// The same for a node.
const NODE_RELIEF_ROUNDS: u32 = 8;

/// Where a node comes to lie outside of what the superblock says may hold nodes, the space behind it is marked, too, for the nodes to come: this part of
/// the device, which is what one bit of the map stands for when nodes are everywhere. Each mark is a write of the superblock, and flushes for each
/// of its copies.
const MARKED_AHEAD_PART: u64 = 64;

/// The most that is marked ahead: enough for hundreds of nodes, and little to search for lost ones.
const MARKED_AHEAD_MAX: Sectors = Sectors((64 << 20) / SECTOR_BYTES);

/// Rounds of making room before an allocation gives up; others may be faster each time.
const RELIEF_ROUNDS: u32 = 100;

/// See the [module](self).
pub struct Allocator {
    space: Arc<Space>,
    superblocks: Arc<dyn Superblocks>,
    points: WritePoints,
    relief: RwLock<Option<Weak<dyn Relief>>>,
    /// Held by who makes room for a node. Its commit may want nodes written, which then have to do without.
    relieving_nodes: ReentrantMutex<()>,
    block: Sectors,
    node: Sectors,
    nodes_target: u16,
    nodes_replicas: u8,
    nodes_required: u8,
}

/// What to choose devices and buckets by.
struct Wish<'r> {
    class: DataType,
    target: u16,
    replicas: u8,
    required: u8,
    exclude: &'r [DevIndex],
    /// What lengths are multiples of.
    unit: Sectors,
    /// What there must be room for in one piece.
    grain: Sectors,
    watermark: Watermark,
}

impl Allocator {
    /// The allocator of a volume, with the options its superblock has now.
    pub fn new(space: Arc<Space>, superblocks: Arc<dyn Superblocks>, superblock: &Superblock) -> Allocator {
        let flags = &superblock.flags;
        let nodes_target = match flags.metadata_target() {
            0 => flags.foreground_target(),
            target => target,
        };
        Allocator {
            space,
            superblocks,
            points: WritePoints::default(),
            relief: RwLock::new(None),
            relieving_nodes: ReentrantMutex::new(()),
            block: Sectors(u64::from(superblock.block_sectors).max(1)),
            node: superblock.btree_node_size(),
            nodes_target,
            nodes_replicas: flags.metadata_replicas().max(1),
            nodes_required: flags.metadata_replicas_required().max(1),
        }
    }

    /// Names who makes room when there is none; without one, allocations fail at once.
    pub fn set_relief(&self, relief: Weak<dyn Relief>) {
        *self.relief.write() = Some(relief);
    }

    /// Lets go of all buckets that are being filled. What is allocated next begins new ones.
    pub fn release(&self) {
        self.points.release();
    }

    /// Room for data. May wait, for the journal too; the caller holds no locks.
    ///
    /// # Errors
    /// [`CommitError::NoSpace`] if there are not enough devices with room; what made making room fail.
    pub fn allocate(&self, request: &Request<'_>) -> Result<Allocation, CommitError> {
        // As many copies as there are devices for; a device that is merely full is waited for.
        let fit =
            self.space.devices().filter(|d| d.takes(DataType::USER) && !request.exclude.contains(&d.dev));
        let possible = fit.fold(0u8, |sum, device| sum.saturating_add(device.durability()));
        let mut wish = Wish {
            class: DataType::USER,
            target: request.target,
            replicas: request.replicas,
            required: request.replicas.min(possible),
            exclude: request.exclude,
            unit: self.block,
            grain: self.block,
            watermark: request.watermark,
        };
        for _ in 0..RELIEF_ROUNDS {
            let point = self.points.of(request.writer, self.free());
            if let Some(allocation) = self.try_allocate(point, &wish, request.sectors) {
                return Ok(allocation);
            }
            let relief = self.relief.read().as_ref().and_then(Weak::upgrade);
            if !relief.map_or(Ok(false), |relief| relief.relieve())? {
                break;
            }
        }
        wish.required = request.required.min(request.replicas);
        let point = self.points.of(request.writer, self.free());
        self.try_allocate(point, &wish, request.sectors).ok_or(CommitError::NoSpace)
    }

    /// Room on one device for data that is moved there: at most `wanted` sectors, at least `least`, which stay together. Waits for nothing.
    pub(in crate::write) fn allocate_on(
        &self,
        dev: DevIndex,
        wanted: Sectors,
        least: Sectors,
    ) -> Option<Allocation> {
        let others: Vec<DevIndex> = self.space.devices().map(|d| d.dev).filter(|d| *d != dev).collect();
        let wish = Wish {
            class: DataType::USER,
            target: 0,
            replicas: 1,
            required: 1,
            exclude: &others,
            unit: self.block,
            grain: least,
            watermark: Watermark::Copygc,
        };
        self.try_allocate(self.points.of(Writer::Copygc, 0), &wish, wanted)
    }

    /// Free buckets of all devices that take user data.
    fn free(&self) -> u64 {
        let devices = self.space.devices().filter(|d| d.takes(DataType::USER));
        devices.map(|d| d.available(Watermark::Normal)).sum()
    }

    fn try_allocate(
        &self,
        point: &Mutex<WritePoint>,
        wish: &Wish<'_>,
        sectors: Sectors,
    ) -> Option<Allocation> {
        let mut filling = point.lock();
        let devs = self.choose(point, &mut filling, wish)?;
        let (mut ptrs, sectors, buckets) = filling.take(&devs, sectors, wish.unit);
        for ptr in &mut ptrs {
            ptr.cached = self.space.device(ptr.dev).is_some_and(|d| d.durability() == 0);
        }
        Some(Allocation { ptrs, sectors, hold: Hold { _buckets: buckets } })
    }

    /// A place for a node where there is none without making some.
    fn allocate_with_relief(&self, wish: &Wish<'_>) -> Result<Allocation, CommitError> {
        if self.relieving_nodes.is_owned_by_current_thread() {
            return Err(CommitError::NoSpace);
        }
        let _relieving = self.relieving_nodes.lock();
        for _ in 0..NODE_RELIEF_ROUNDS {
            // Others may have made some meanwhile.
            if let Some(area) = self.try_allocate(&self.points.nodes, wish, self.node) {
                return Ok(area);
            }
            let relief = self.relief.read().as_ref().and_then(Weak::upgrade);
            if !relief.map_or(Ok(false), |relief| relief.relieve_nodes())? {
                break;
            }
        }
        self.try_allocate(&self.points.nodes, wish, self.node).ok_or(CommitError::NoSpace)
    }

    /// Devices on each of which the write point then has a bucket with room.
    fn choose(
        &self,
        own: &Mutex<WritePoint>,
        point: &mut WritePoint,
        wish: &Wish<'_>,
    ) -> Option<Vec<DevIndex>> {
        let (mut chosen, mut durability) = (Vec::new(), 0u8);
        for in_target in [true, false] {
            let mut candidates: Vec<&Arc<DeviceSpace>> = self
                .space
                .devices()
                .filter(|d| d.takes(wish.class) && !wish.exclude.contains(&d.dev))
                .filter(|d| self.space.rules().in_target(d.dev, wish.target).unwrap_or(true) == in_target)
                .collect();
            candidates.sort_by_key(|d| (point.surplus(d.dev), Reverse(d.available(wish.watermark))));
            for device in candidates {
                if durability >= wish.replicas {
                    return Some(chosen);
                }
                let cache = device.durability() == 0;
                let unfit =
                    cache && (wish.class == DataType::BTREE || chosen.iter().any(|d| self.is_cache(*d)));
                if !unfit && self.fill(own, point, device, wish) {
                    durability = durability.saturating_add(device.durability());
                    chosen.push(device.dev);
                }
            }
        }
        (durability >= wish.required.max(1)).then_some(chosen)
    }

    fn is_cache(&self, dev: DevIndex) -> bool {
        self.space.device(dev).is_some_and(|d| d.durability() == 0)
    }

    /// Sees to it that the write point has a bucket with room on the device.
    fn fill(
        &self,
        own: &Mutex<WritePoint>,
        point: &mut WritePoint,
        device: &Arc<DeviceSpace>,
        wish: &Wish<'_>,
    ) -> bool {
        if point.has(device.dev, wish.grain) {
            return true;
        }
        let of_nodes = self.buckets_of_nodes(device, wish.class);
        let prefer = match wish.class {
            DataType::BTREE => Prefer::Inside(&of_nodes),
            _ => Prefer::Outside(&of_nodes),
        };
        if let Some(open) = device.take(wish.watermark, &prefer) {
            point.begin(device, open, device.available(Watermark::Normal));
            return true;
        }
        if wish.class == DataType::USER
            && let Some(begun) = self.points.steal(own, device.dev, wish.grain)
        {
            point.adopt(begun);
            return true;
        }
        false
    }

    /// Where the part of the device ends that is marked for nodes when one is put where none was expected.
    fn marked_ahead(&self, node: &ExtentPtr) -> Sectors {
        let size = self.space.device(node.dev).map_or(0, |device| device.end * device.bucket.0);
        let ahead = (size / MARKED_AHEAD_PART).min(MARKED_AHEAD_MAX.0);
        Sectors((node.offset.0 + ahead).min(size))
    }

    /// The buckets where the superblock says that there may be nodes: for nodes those wholly so, for data those partly so.
    fn buckets_of_nodes(&self, device: &DeviceSpace, class: DataType) -> Vec<Range<u64>> {
        let size = device.bucket.0;
        let whole = |r: Range<u64>| match class {
            DataType::BTREE => r.start.div_ceil(size)..r.end / size,
            _ => r.start / size..r.end.div_ceil(size),
        };
        self.superblocks.btree_bitmap(device.dev).ranges().map(whole).collect()
    }
}

impl NodeSpace for Allocator {
    fn allocate(&self, watermark: Watermark) -> Result<NodeArea, CommitError> {
        let wish = Wish {
            class: DataType::BTREE,
            target: self.nodes_target,
            replicas: self.nodes_replicas,
            required: self.nodes_required,
            exclude: &[],
            unit: self.node,
            grain: self.node,
            watermark,
        };
        let area = match self.try_allocate(&self.points.nodes, &wish, self.node) {
            Some(area) => area,
            None => self.allocate_with_relief(&wish)?,
        };
        for ptr in &area.ptrs {
            let end = Sectors(ptr.offset.0 + self.node.0);
            if !self.superblocks.btree_bitmap(ptr.dev).covers(ptr.offset..end) {
                let end = end.max(self.marked_ahead(ptr));
                self.superblocks.mark_btree_nodes(ptr.dev, ptr.offset..end)?;
            }
        }
        Ok(NodeArea { ptrs: area.ptrs, hold: Box::new(area.hold) })
    }
}
