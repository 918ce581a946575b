//! How much space there is, and what it is used for.
//!
//! The accounting b-tree keeps counters; after a crash the journal holds changes that are not yet in it, each numbered, so that
//! one is added exactly if the counter's own number is lower (spec 50 §2.8). [`Usage`] is the sum of both.

use std::collections::BTreeMap;

use frazil_btree::Btrees;
use frazil_ondisk::btree_id::BtreeId;
use frazil_ondisk::compression::CompressionType;
use frazil_ondisk::data_type::DataType;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::{Member, MemberState, Members};
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::units::{DevIndex, Sectors};
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::version::Version;
use frazil_ondisk::{BVersion, Bpos, Key, KeyBuf, KeyType};

use crate::volume::Volume;

/// Counters of one accounting key, and the number of the last change in them.
pub(crate) type Sums = (BVersion, Vec<i64>);

/// Space of one kind of data on one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DevUsage {
    /// Buckets that hold it.
    pub buckets: u64,
    /// Sectors in use in them.
    pub sectors: Sectors,
    /// Sectors in them that cannot be used until the bucket is emptied.
    pub fragmented: Sectors,
}

/// What the volume's space is used for. Sectors are disk sectors: all copies counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// What data and metadata can use: capacity less reserves, superblocks and journals (`total` of spec 50 §6.10).
    pub total: Sectors,
    /// In use or promised.
    pub used: Sectors,
    /// `total − used`.
    pub free: Sectors,
    /// What an unprivileged user may still fill.
    pub available: Sectors,
    /// File data.
    pub data: Sectors,
    /// B-tree nodes.
    pub btree: Sectors,
    /// Copies that may be dropped at any time; not part of `used`.
    pub cached: Sectors,
    /// Promised by `fallocate`.
    pub reserved: Sectors,
    /// Inode keys, every snapshot version on its own.
    pub inodes: u64,
    /// By device and kind of data.
    pub devices: BTreeMap<(DevIndex, DataType), DevUsage>,
    /// Disk sectors by what they hold and which devices have the copies.
    pub replicas: BTreeMap<ReplicasEntry, Sectors>,
    /// By type of compression; what is not compressed is in none.
    pub compression: BTreeMap<CompressionType, Compressed>,
    /// Disk sectors of the nodes of each b-tree.
    pub btrees: BTreeMap<BtreeId, Sectors>,
}

/// Data compressed in one way. All copies are counted, but each extent is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compressed {
    /// Extents.
    pub extents: u64,
    /// Sectors before.
    pub uncompressed: Sectors,
    /// Sectors after.
    pub compressed: Sectors,
}

impl Volume {
    /// Adds up the accounting keys.
    ///
    /// # Errors
    /// If the accounting b-tree cannot be read.
    pub fn usage(&self) -> frazil_btree::Result<Usage> {
        let order = Order::of(self.superblock.version);
        let mut usage = Usage::default();
        for (pos, (_, counters)) in self.accounting()? {
            // Keys of an earlier life of an upgraded volume do not decode in the new order (spec 80 §5.2).
            if let Ok(what) = AccountingPos::decode(pos, order) {
                usage.add(&what, &counters);
            }
        }
        self.fill_totals(&mut usage);
        Ok(usage)
    }

    /// Which sets of devices hold data at present.
    pub(crate) fn data_replicas(&self) -> frazil_btree::Result<Vec<ReplicasEntry>> {
        let order = Order::of(self.superblock.version);
        let in_use =
            self.accounting()?.into_iter().filter(|(_, (_, counters))| counters.iter().any(|&c| c != 0));
        let entry = |what| match what {
            AccountingPos::Replicas { data_type, nr_required, devs } => {
                Some(ReplicasEntry { data_type, nr_required, devs: devs.iter().collect() })
            }
            _ => None,
        };
        Ok(in_use.filter_map(|(pos, _)| AccountingPos::decode(pos, order).ok().and_then(entry)).collect())
    }

    /// Accounting keys with the journal's changes added.
    pub(crate) fn accounting(&self) -> frazil_btree::Result<BTreeMap<Bpos, Sums>> {
        let deltas = self.accounting_deltas.iter().map(KeyBuf::as_key);
        accounting(&self.btrees, deltas, self.superblock.version)
    }

    /// Capacity and what is left of it (spec 50 §6.10), over the devices that can be written.
    fn fill_totals(&self, usage: &mut Usage) {
        let present = |dev: DevIndex| self.devices.get(dev.0).is_some();
        let hidden = usage.hidden(&self.members, present);
        let capacity = capacity(&self.superblock, &self.members, present);
        usage.settle(Sectors(capacity.0.saturating_sub(hidden.0)), Sectors(0));
    }
}

/// Accounting keys, and the changes of them that are only in the journal, in its order; those of single inodes, which may be as many as
/// there are files and which nobody sums up, are left out.
pub(crate) fn accounting<'k>(
    btrees: &Btrees,
    deltas: impl Iterator<Item = Key<'k>>,
    version: Version,
) -> frazil_btree::Result<BTreeMap<Bpos, Sums>> {
    let order = Order::of(version);
    let is_inum = |pos| matches!(AccountingPos::decode(pos, order), Ok(AccountingPos::Inum { .. }));
    let mut sums = BTreeMap::new();
    let mut cursor = btrees.cursor(BtreeId::ACCOUNTING, ..);
    while let Some(key) = cursor.next()? {
        if let Some(counters) = counters(key).filter(|_| !is_inum(key.k.pos)) {
            sums.insert(key.k.pos, (key.k.version, counters));
        }
    }
    for delta in deltas.filter(|delta| !is_inum(delta.k.pos)) {
        let Some(change) = counters(delta) else { continue };
        let (version, sum): &mut Sums = sums.entry(delta.k.pos).or_default();
        if *version >= delta.k.version {
            continue;
        }
        *version = delta.k.version;
        sum.resize(sum.len().max(change.len()), 0);
        sum.iter_mut().zip(change).for_each(|(sum, change)| *sum = sum.saturating_add(change));
    }
    Ok(sums)
}

/// What the devices that are present and can be written have room for, reserves taken off (spec 50 §6.10).
pub(crate) fn capacity(
    superblock: &Superblock,
    members: &Members,
    present: impl Fn(DevIndex) -> bool,
) -> Sectors {
    let (mut capacity, mut dev_reserve) = (0u64, 0u64);
    for (_, member) in writable(members, present) {
        let bucket = member.bucket_size();
        let buckets = member.nbuckets.saturating_sub(member.first_bucket.into());
        capacity = capacity.saturating_add(buckets.saturating_mul(bucket.0));
        let kept = 2 * node_reserve(bucket, superblock.btree_node_size()) + (member.nbuckets >> 6) + 3;
        dev_reserve = dev_reserve.saturating_add(kept.saturating_mul(2 * bucket.0));
    }
    let flags = &superblock.flags;
    let gc_reserve = match flags.gc_reserve() {
        Sectors(0) => {
            let percent = u64::from(flags.gc_reserve_percent());
            capacity / 100 * percent + capacity % 100 * percent / 100
        }
        Sectors(n) => n,
    };
    Sectors(capacity.saturating_sub(gc_reserve.max(dev_reserve)))
}

/// The members that are present and can be written.
fn writable(
    members: &Members,
    present: impl Fn(DevIndex) -> bool,
) -> impl Iterator<Item = (DevIndex, &Member)> {
    members.live().filter(move |(dev, m)| m.flags.state() == MemberState::ReadWrite && present(*dev))
}

/// Buckets the nodes of a b-tree update may need (spec 50 §6.1).
pub(crate) fn node_reserve(bucket: Sectors, node: Sectors) -> u64 {
    NODE_RESERVE.div_ceil((bucket.0 / node.0.max(1)).max(1))
}

/// Nodes a b-tree update of the greatest depth may need at once (spec 50 §6.1).
const NODE_RESERVE: u64 = 28;

/// The counters of an accounting key.
fn counters(key: Key<'_>) -> Option<Vec<i64>> {
    (key.k.ty == KeyType::ACCOUNTING).then(|| Counters::decode(key.value).ok())?.map(|c| c.iter().collect())
}

impl Usage {
    /// Sectors of the buckets of superblocks and journals, which no data can use.
    pub(crate) fn hidden(&self, members: &Members, present: impl Fn(DevIndex) -> bool) -> Sectors {
        let mut hidden = 0u64;
        for (dev, member) in writable(members, present) {
            for data_type in [DataType::SB, DataType::JOURNAL] {
                let used = self.devices.get(&(dev, data_type)).copied().unwrap_or_default();
                hidden = hidden.saturating_add(used.buckets.saturating_mul(member.bucket_size().0));
            }
        }
        Sectors(hidden)
    }

    /// Derives used, free and available from the total; `held` sectors are promised beside what is on disk.
    pub(crate) fn settle(&mut self, total: Sectors, held: Sectors) {
        let total = total.0;
        let reserved = self.reserved.0.saturating_add(held.0);
        let promised = reserved.saturating_add(reserved.div_ceil(64));
        let used = self.data.0.saturating_add(self.btree.0).saturating_add(promised).min(total);
        self.total = Sectors(total);
        self.used = Sectors(used);
        self.free = Sectors(total - used);
        self.available = Sectors((u128::from(total - used) * 64 / 65) as u64);
    }

    pub(crate) fn add(&mut self, what: &AccountingPos, counters: &[i64]) {
        // A counter below zero is damage; it must not turn into a huge number.
        let counter = |i: usize| counters.get(i).map_or(0, |&c| u64::try_from(c).unwrap_or(0));
        let grow = |sum: &mut Sectors, by: u64| sum.0 = sum.0.saturating_add(by);
        match *what {
            AccountingPos::NrInodes => self.inodes = counter(0),
            AccountingPos::PersistentReserved { nr_replicas } => {
                grow(&mut self.reserved, counter(0).saturating_mul(nr_replicas.into()));
            }
            AccountingPos::Replicas { data_type, nr_required, devs } => {
                match data_type {
                    DataType::BTREE => grow(&mut self.btree, counter(0)),
                    DataType::USER | DataType::PARITY => grow(&mut self.data, counter(0)),
                    DataType::CACHED => grow(&mut self.cached, counter(0)),
                    _ => {}
                }
                let entry = ReplicasEntry { data_type, nr_required, devs: devs.iter().collect() };
                self.replicas.insert(entry, Sectors(counter(0)));
            }
            AccountingPos::Compression { ty } => {
                let compressed = Compressed {
                    extents: counter(0),
                    uncompressed: Sectors(counter(1)),
                    compressed: Sectors(counter(2)),
                };
                self.compression.insert(ty, compressed);
            }
            AccountingPos::Btree { id } => {
                // Ids are wider here than anywhere else, and no b-tree needs that.
                if let Ok(id) = u8::try_from(id) {
                    self.btrees.insert(BtreeId(id), Sectors(counter(0)));
                }
            }
            AccountingPos::DevDataType { dev, data_type } => {
                let usage = DevUsage {
                    buckets: counter(0),
                    sectors: Sectors(counter(1)),
                    fragmented: Sectors(counter(2)),
                };
                self.devices.insert((dev, data_type), usage);
            }
            _ => {}
        }
    }
}
