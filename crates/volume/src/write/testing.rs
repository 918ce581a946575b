//! A laboratory: real images whose keys can be changed through the triggers, in memory, and checked.
//!
//! All leaf keys of an image are loaded. A commit runs the triggers as the engine will, over a stage that is a map. What
//! changed then lies over the untouched image as if it were in a journal, and the checker, which adds everything up from
//! scratch, compares.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, Range};
use std::sync::Arc;

use frazil_btree::write::{Blocked, Change, CommitError, Stage, Triggers};
use frazil_btree::{Btrees, NodeFormat, NodeStore, Overlay, SnapshotTable};
use frazil_device::{Device, DeviceSet, MemDevice};
use frazil_ondisk::node::node_magic;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::bitmap::BtreeBitmap;
use frazil_ondisk::superblock::sections::replicas::{Replicas, ReplicasEntry};
use frazil_ondisk::units::{DevIndex, Sectors, Seq};
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::{BVersion, Bpos, BtreeId, KeyBuf, KeyType};
use frazil_testing::golden;
use parking_lot::Mutex;

use super::clock::IoClocks;
use super::space::Space;
use super::superblocks::Superblocks;
use super::triggers::Deriver;
use crate::check::{Report, check};
use crate::data::{Reader, ReaderOptions};
use crate::open::{OpenOptions, Recovery, open};
use crate::volume::Volume;

/// Superblocks in memory, which count how often they were written.
#[derive(Default)]
pub(super) struct FakeSuperblocks {
    pub(super) replicas: Mutex<Vec<ReplicasEntry>>,
    pub(super) bitmaps: Mutex<BTreeMap<DevIndex, BtreeBitmap>>,
    pub(super) writes: Mutex<u32>,
}

impl Superblocks for FakeSuperblocks {
    fn has_replicas(&self, entry: &ReplicasEntry) -> bool {
        self.replicas.lock().contains(entry)
    }

    fn mark_replicas(&self, entry: &ReplicasEntry) -> Result<(), CommitError> {
        self.replicas.lock().push(entry.clone());
        *self.writes.lock() += 1;
        Ok(())
    }

    fn btree_bitmap(&self, dev: DevIndex) -> BtreeBitmap {
        self.bitmaps.lock().get(&dev).copied().unwrap_or_default()
    }

    fn mark_btree_nodes(&self, dev: DevIndex, sectors: Range<Sectors>) -> Result<(), CommitError> {
        if self.bitmaps.lock().entry(dev).or_default().mark(sectors) {
            *self.writes.lock() += 1;
        }
        Ok(())
    }
}

/// The keys of one b-tree.
pub(super) type Tree = BTreeMap<Bpos, KeyBuf>;

/// See the [module](self).
pub(super) struct Lab {
    volume: Volume,
    pub(super) trees: BTreeMap<BtreeId, Tree>,
    /// Positions whose keys are not those of the image.
    changed: BTreeSet<(BtreeId, Bpos)>,
    pub(super) deltas: HashMap<AccountingPos, [i64; 3]>,
    pub(super) superblocks: Arc<FakeSuperblocks>,
    pub(super) clocks: Arc<IoClocks>,
    pub(super) space: Arc<Space>,
    pub(super) deriver: Deriver,
    pub(super) seq: Seq,
    /// What the last commit did.
    pub(super) last: Vec<Change>,
}

/// A commit under way.
pub(super) struct MapStage<'l> {
    pub(super) trees: &'l BTreeMap<BtreeId, Tree>,
    pub(super) staged: BTreeMap<(BtreeId, Bpos), KeyBuf>,
    pub(super) accounted: Vec<(AccountingPos, [i64; 3])>,
}

impl MapStage<'_> {
    fn live(key: &KeyBuf) -> bool {
        key.k.ty != KeyType::DELETED
    }

    fn at(&self, btree: BtreeId, pos: Bpos) -> Option<KeyBuf> {
        let staged = self.staged.get(&(btree, pos));
        let key = staged.or_else(|| self.trees.get(&btree)?.get(&pos))?;
        Self::live(key).then(|| key.clone())
    }

    /// Positions of both maps in a range, ascending.
    fn positions(&self, btree: BtreeId, from: Bpos, to: Bpos) -> BTreeSet<Bpos> {
        if from > to {
            return BTreeSet::new();
        }
        let stored =
            self.trees.get(&btree).into_iter().flat_map(|tree| tree.range(from..=to).map(|(p, _)| *p));
        let bounds = (Bound::Included((btree, from)), Bound::Included((btree, to)));
        stored.chain(self.staged.range(bounds).map(|((_, p), _)| *p)).collect()
    }
}

impl Stage for MapStage<'_> {
    fn get(&mut self, btree: BtreeId, pos: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        Ok(self.at(btree, pos))
    }

    fn first(&mut self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        Ok(self.positions(btree, from, to).into_iter().find_map(|pos| self.at(btree, pos)))
    }

    fn last(&mut self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        Ok(self.positions(btree, from, to).into_iter().rev().find_map(|pos| self.at(btree, pos)))
    }

    fn update(&mut self, btree: BtreeId, key: KeyBuf) {
        self.staged.insert((btree, key.k.pos), key);
    }

    fn buffer(&mut self, btree: BtreeId, key: KeyBuf) {
        self.staged.insert((btree, key.k.pos), key);
    }

    fn account(&mut self, pos: AccountingPos, counters: [i64; 3]) {
        match self.accounted.iter_mut().find(|(p, _)| *p == pos) {
            Some((_, sum)) => sum.iter_mut().zip(counters).for_each(|(sum, by)| *sum += by),
            None => self.accounted.push((pos, counters)),
        }
    }

    fn accounted(&self) -> &[(AccountingPos, [i64; 3])] {
        &self.accounted
    }
}

/// The space of a volume.
pub(super) fn space_of(volume: &Volume) -> Space {
    let present = |dev: DevIndex| volume.devices.get(dev.0).is_some();
    let deltas = volume.accounting_deltas.iter().map(KeyBuf::as_key);
    let space = Space::load(&volume.superblock, &volume.members, present, &volume.btrees, deltas);
    space.expect("golden images can be read")
}

/// The removal of a key.
pub(super) fn deleted(pos: Bpos) -> KeyBuf {
    KeyBuf::new(KeyType::DELETED, pos, 0, [])
}

impl Lab {
    /// A laboratory over a golden image that was shut down cleanly.
    pub(super) fn of(image: &str) -> Lab {
        let devices = golden::image(image).bytes().into_iter().map(|bytes| {
            let device = MemDevice::new(bytes.len() as u64);
            device.write_at(0, &bytes).expect("memory can be written");
            Arc::new(device) as Arc<dyn Device>
        });
        let volume = open(devices.collect(), OpenOptions::default()).expect("golden images can be opened");
        assert!(matches!(volume.recovery(), Recovery::Clean { .. }));
        let mut trees = BTreeMap::new();
        for btree in BtreeId::known().filter(|b| *b != BtreeId::ACCOUNTING) {
            let mut cursor = volume.btrees().cursor(btree, ..);
            let tree: &mut Tree = trees.entry(btree).or_default();
            while let Some(key) = cursor.next().expect("golden images can be read") {
                tree.insert(key.k.pos, key.to_owned());
            }
        }
        let superblocks = Arc::new(FakeSuperblocks::default());
        *superblocks.replicas.lock() = Replicas::load(&volume.superblock.sections).expect("a section").0;
        for (dev, member) in volume.members.live() {
            superblocks.bitmaps.lock().insert(dev, member.btree_bitmap);
        }
        let clocks = Arc::new(IoClocks::new(1000, 2000));
        let space = Arc::new(space_of(&volume));
        let table = Arc::clone(&superblocks) as Arc<dyn Superblocks>;
        let deriver = Deriver::new(Arc::clone(&space), table, Arc::clone(&clocks));
        let (changed, deltas) = (BTreeSet::new(), HashMap::new());
        Lab {
            volume,
            trees,
            changed,
            deltas,
            superblocks,
            clocks,
            space,
            deriver,
            seq: Seq(1000),
            last: Vec::new(),
        }
    }

    /// The image's superblock.
    pub(super) fn superblock(&self) -> &Superblock {
        &self.volume.superblock
    }

    /// The image's devices.
    pub(super) fn devices(&self) -> &DeviceSet {
        &self.volume.devices
    }

    /// The key at a position.
    pub(super) fn get(&self, btree: BtreeId, pos: Bpos) -> Option<&KeyBuf> {
        self.trees.get(&btree)?.get(&pos)
    }

    /// Changes keys in one commit, as the engine does; each commit has a journal entry of its own.
    pub(super) fn commit(&mut self, keys: Vec<(BtreeId, KeyBuf)>) -> Result<(), CommitError> {
        let at_leaves =
            keys.into_iter().map(|(btree, key)| (btree, 0, self.get(btree, key.k.pos).cloned(), key));
        let changes = at_leaves.map(|(btree, level, old, new)| Change { btree, level, old, new }).collect();
        self.commit_changes(changes)
    }

    /// Commits changes of any level; those of nodes are not kept.
    pub(super) fn commit_changes(&mut self, mut changes: Vec<Change>) -> Result<(), CommitError> {
        changes.sort_by_key(|c| (c.btree, u8::MAX - c.level, c.new.k.pos));
        let mut stage = loop {
            let leaves = changes.iter().filter(|c| c.level == 0);
            let staged = leaves.map(|c| ((c.btree, c.new.k.pos), c.new.clone())).collect();
            let mut stage = MapStage { trees: &self.trees, staged, accounted: Vec::new() };
            match self.deriver.run(&mut stage, &changes) {
                Ok(()) => break stage,
                Err(Blocked::Failed(error)) => return Err(error),
                Err(Blocked::First(first)) => first()?,
                Err(Blocked::Absent { .. }) => unreachable!("everything is in memory"),
            }
        };
        self.seq.0 += 1;
        let (staged, accounted) = (std::mem::take(&mut stage.staged), std::mem::take(&mut stage.accounted));
        let mut all: Vec<Change> = changes.into_iter().filter(|c| c.level > 0).collect();
        for ((btree, pos), mut new) in staged {
            let old = self.get(btree, pos).cloned();
            self.deriver.stamp(self.seq, btree, old.as_ref(), &mut new);
            let tree = self.trees.entry(btree).or_default();
            if MapStage::live(&new) {
                tree.insert(pos, new.clone());
            } else {
                tree.remove(&pos);
            }
            self.changed.insert((btree, pos));
            all.push(Change { btree, level: 0, old, new });
        }
        self.deriver.committed(self.seq, &all, &accounted);
        for (what, by) in accounted {
            self.deltas.entry(what).or_default().iter_mut().zip(by).for_each(|(sum, by)| *sum += by);
        }
        self.last = all;
        Ok(())
    }

    /// The image with everything that was committed in its journal.
    fn as_volume(&self) -> Volume {
        let base = &self.volume;
        let mut overlay = Overlay::empty();
        for &btree in self.trees.keys() {
            let range = (btree, Bpos::MIN)..=(btree, Bpos::MAX);
            let keys: Vec<KeyBuf> = self
                .changed
                .range(range)
                .map(|&(btree, pos)| self.get(btree, pos).cloned().unwrap_or_else(|| deleted(pos)))
                .collect();
            overlay.set(btree, 0, keys.iter().map(KeyBuf::as_key));
        }
        let superblock = &base.superblock;
        let format = NodeFormat {
            magic: node_magic(&superblock.uuid),
            block: Sectors(superblock.block_sectors.into()),
            node: superblock.btree_node_size(),
            key: None,
            version: superblock.version,
            version_min: superblock.version_min,
        };
        let roots = base.btrees.roots();
        let store = NodeStore::new(base.devices.clone(), format, Vec::new());
        let btrees = Arc::new(Btrees::new(roots, overlay, Box::new(store), 64 << 20));
        let options = ReaderOptions::of(superblock, &base.members, None);
        let mut superblock = superblock.clone();
        Replicas(self.superblocks.replicas.lock().clone()).store(&mut superblock.sections);
        let order = Order::of(superblock.version);
        let accounting_deltas = self.deltas.iter().map(|(what, by)| {
            let mut value = Vec::new();
            Counters::encode(by[..what.nr_counters(superblock.version)].iter().copied(), &mut value);
            let mut key = KeyBuf::new(KeyType::ACCOUNTING, what.encode(order), 0, value);
            key.k.version = BVersion { hi: u32::MAX, lo: 1 };
            key
        });
        Volume {
            accounting_deltas: accounting_deltas.collect(),
            superblock,
            members: base.members.clone(),
            devices: base.devices.clone(),
            key: None,
            data: Reader::new(base.devices.clone(), Arc::clone(&btrees), options),
            snapshots: Arc::new(SnapshotTable::load(&btrees).0),
            btrees,
            recovery: Recovery::Replayed { first: Seq(1), last: self.seq, dropped: Seq(0)..Seq(0) },
            notices: Vec::new(),
        }
    }

    /// What the checker says.
    pub(super) fn report(&self) -> Report {
        check(&self.as_volume())
    }

    /// What a new start would make of it: the same space.
    pub(super) fn assert_space_is_as_stored(&self) {
        self.space.assert_same(&space_of(&self.as_volume()));
    }
}
