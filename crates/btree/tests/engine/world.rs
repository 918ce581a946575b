//! A volume just large enough for an engine: a superblock of one sector, a journal, and nodes.
//!
//! Nodes are small, so that trees grow and shrink quickly. Space is given out from a list of free areas; what a commit gives back is used
//! again when that commit is durable, as in a real volume, so that a pointer kept too long leads to something else. One trigger: each
//! b-tree's keys are counted, through the buffer, as difference.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frazil_btree::write::{
    Blocked, Change, CommitError, Engine, EngineOptions, EngineParts, NodeArea, NodeSpace, NodeWriter, Stage,
    Triggers,
};
use frazil_btree::{Btrees, NodeFormat, NodeStore, Overlay, Root, Roots};
use frazil_device::{Device, DeviceSet};
use frazil_journal::engine::{
    Clock, DevSet, EntryImage, Format, Host, HostError, Journal, Member, Options, Position, Start, Watermark,
    recovery_start, write_marker,
};
use frazil_journal::read::{self, Source};
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::jset::{EntryType, JsetEntry, JsetFormat, entries};
use frazil_ondisk::node::BtreePtrV2;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf};

const MAGIC: u64 = 0x1122_3344_5566_7788;
const BLOCK: Sectors = Sectors(1);
const NODE: Sectors = Sectors(8);
const BUCKET: Sectors = Sectors(32);
const JOURNAL_BUCKETS: u64 = 16;
const FIRST_NODE: u64 = (1 + JOURNAL_BUCKETS) * BUCKET.0;
/// Nodes the device has room for.
const NODES: u64 = 4096;

/// B-trees the tests use.
pub(crate) const TREES: [BtreeId; 3] = [BtreeId::DIRENTS, BtreeId::INODES, BtreeId::XATTRS];

/// Size of the journal's ring.
pub(crate) const JOURNAL_BYTES: u64 = JOURNAL_BUCKETS * BUCKET.0 * SECTOR_BYTES;

pub(crate) const DEVICE_BYTES: u64 = (FIRST_NODE + NODES * NODE.0) * SECTOR_BYTES;

/// Time that moves by itself a little whenever somebody looks.
#[derive(Default)]
pub(crate) struct Time(AtomicU64);

impl Clock for Time {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.fetch_add(50, Ordering::Relaxed))
    }
}

/// What the superblock says.
#[derive(Debug, Clone, Default)]
struct Super {
    blacklist: Vec<Range<Seq>>,
}

impl Super {
    fn load(device: &dyn Device) -> Super {
        let mut b = [0; SECTOR_BYTES as usize];
        device.read_at(0, &mut b).unwrap();
        let word = |i: usize| u64::from_le_bytes(b[8 * i..8 * i + 8].try_into().unwrap());
        Super {
            blacklist: (0..word(0) as usize).map(|i| Seq(word(1 + 2 * i))..Seq(word(2 + 2 * i))).collect(),
        }
    }

    fn store(&self, device: &dyn Device) {
        let mut words = vec![self.blacklist.len() as u64];
        words.extend(self.blacklist.iter().flat_map(|r| [r.start.0, r.end.0]));
        let mut b: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        b.resize(SECTOR_BYTES as usize, 0);
        device.write_fua_at(0, &b).unwrap();
    }
}

/// The volume around journal and engine.
pub(crate) struct Around {
    device: Arc<dyn Device>,
    superblock: Mutex<Super>,
    roots: Mutex<BTreeMap<BtreeId, (u8, KeyBuf)>>,
    space: Mutex<Space>,
    /// Nodes that the thread that writes behind has asked a place for.
    written_behind: AtomicU64,
}

#[derive(Default)]
struct Space {
    free: BTreeSet<u64>,
    /// Given back by a commit in that entry.
    waiting: VecDeque<(Seq, u64)>,
    flushed: Seq,
}

impl Around {
    fn new(device: &Arc<dyn Device>, roots: &Roots) -> Arc<Around> {
        let superblock = Mutex::new(Super::load(&**device));
        let roots = roots.iter().filter_map(|(btree, root)| match root {
            Root::At { level, key } => Some((*btree, (*level, key.clone()))),
            Root::Lost => None,
        });
        Arc::new(Around {
            device: Arc::clone(device),
            superblock,
            roots: Mutex::new(roots.collect()),
            space: Mutex::default(),
            written_behind: AtomicU64::new(0),
        })
    }

    /// Nodes that the thread that writes behind has asked a place for.
    pub(crate) fn written_behind(&self) -> u64 {
        self.written_behind.load(Ordering::Relaxed)
    }

    /// Areas neither free nor waiting.
    pub(crate) fn used_nodes(&self) -> u64 {
        let space = self.space.lock().unwrap();
        NODES - (space.free.len() + space.waiting.len()) as u64
    }
}

impl Host for Around {
    fn common_words(&self) -> u32 {
        200
    }

    fn finish_entry(&self, entry: &mut EntryImage) {
        let mut roots = self.roots.lock().unwrap();
        let mut here = BTreeSet::new();
        for found in entries(entry.list()).flatten() {
            if let JsetEntry::BtreeRoot { btree, level, key: Some(key) } = found {
                roots.insert(btree, (level, key.to_owned()));
                here.insert(btree);
            }
        }
        for (btree, (level, key)) in roots.iter().filter(|(btree, _)| !here.contains(btree)) {
            entry.push_keys(EntryType::BTREE_ROOT, *btree, *level, [key.as_key()]);
        }
    }

    fn mark_dirty(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn mark_replicas(&self, _: &DevSet) -> Result<(), HostError> {
        Ok(())
    }

    fn blacklist(&self, range: Range<Seq>) -> Result<(), HostError> {
        let mut superblock = self.superblock.lock().unwrap();
        superblock.blacklist.push(range);
        superblock.store(&*self.device);
        Ok(())
    }

    fn flushed(&self, seq: Seq) {
        let mut space = self.space.lock().unwrap();
        space.flushed = space.flushed.max(seq);
        while let Some(&(freed, area)) = space.waiting.front()
            && freed <= space.flushed
        {
            space.waiting.pop_front();
            space.free.insert(area);
        }
    }
}

impl NodeSpace for Around {
    fn allocate(&self, _: Watermark) -> Result<NodeArea, CommitError> {
        struct Hold;
        if std::thread::current().name() == Some("frazil-nodes") {
            self.written_behind.fetch_add(1, Ordering::Relaxed);
        }
        let mut space = self.space.lock().unwrap();
        let area = space.free.pop_first().ok_or(CommitError::NoSpace)?;
        let sector = Sectors(FIRST_NODE + area * NODE.0);
        let ptrs = vec![ExtentPtr::new(DevIndex(0), sector, Gen(0))];
        Ok(NodeArea { ptrs, hold: Box::new(Hold) })
    }
}

fn areas(key: &KeyBuf) -> impl Iterator<Item = u64> {
    BtreePtrV2::decode(&key.value).unwrap().ptrs().map(|p| (p.offset.0 - FIRST_NODE) / NODE.0)
}

impl Triggers for Around {
    fn run(&self, stage: &mut dyn Stage, changes: &[Change]) -> Result<(), Blocked> {
        for change in changes.iter().filter(|c| c.level == 0) {
            let sum = i64::from(change.inserted().is_some()) - i64::from(change.old.is_some());
            if sum != 0 {
                stage.account(AccountingPos::btree(change.btree), [sum, 0, 0]);
            }
        }
        Ok(())
    }

    fn stamp(&self, _: Seq, _: BtreeId, _: Option<&KeyBuf>, _: &mut KeyBuf) {}

    fn committed(&self, seq: Seq, changes: &[Change], _: &[(AccountingPos, [i64; 3])]) {
        let mut space = self.space.lock().unwrap();
        for change in changes.iter().filter(|c| c.level > 0) {
            let new: Vec<u64> = change.inserted().into_iter().flat_map(areas).collect();
            let gone = change.old.iter().flat_map(areas).filter(|area| !new.contains(area));
            space.waiting.extend(gone.map(|area| (seq, area)));
        }
    }
}

/// A running volume.
pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) around: Arc<Around>,
    pub(crate) journal: Arc<Journal>,
}

fn node_format() -> NodeFormat {
    let version = Version::WRITE;
    NodeFormat { magic: MAGIC, block: BLOCK, node: NODE, key: None, version, version_min: version }
}

fn options() -> Options {
    Options { entry_bytes_max: 8192, ..Options::default() }
}

fn journal_format() -> Format {
    Format {
        magic: MAGIC,
        version: Version::WRITE,
        csum_type: ChecksumType::Crc32c,
        key: None,
        block_bytes: (BLOCK.0 * SECTOR_BYTES) as usize,
        has_overwrites: false,
    }
}

fn ring() -> Vec<BucketIndex> {
    (1..=JOURNAL_BUCKETS).map(BucketIndex).collect()
}

fn member(device: &Arc<dyn Device>, position: Position) -> Member {
    Member {
        dev: DevIndex(0),
        device: Arc::clone(device),
        bucket: BUCKET,
        buckets: ring(),
        position,
        writable: true,
        durability: 1,
        discard: false,
    }
}

fn devices(device: &Arc<dyn Device>) -> DeviceSet {
    [(0, Arc::clone(device))].into_iter().collect()
}

/// The trees of a device as a reader finds them.
fn trees(
    device: &Arc<dyn Device>,
    roots: Roots,
    overlay: Overlay,
    mut blacklist: Vec<Range<Seq>>,
    cache: usize,
) -> Btrees {
    blacklist.extend(Super::load(&**device).blacklist);
    let store = NodeStore::new(devices(device), node_format(), blacklist);
    Btrees::new(roots, overlay, Box::new(store), cache)
}

/// Makes an empty volume.
pub(crate) fn format(device: &Arc<dyn Device>) {
    let around = Around::new(device, &Roots::new());
    let start = Start { first: Seq(1), replay_from: Seq(1) };
    let members = vec![member(device, Position::Clean { index: 0, offset: Sectors(0) })];
    let journal =
        Journal::start(members, journal_format(), options(), start, around, Arc::new(Time::default()));
    journal.meta().unwrap();
}

/// What is in the journal of a device.
pub(crate) fn scan(device: &Arc<dyn Device>) -> read::Journal {
    let blacklist = Super::load(&**device).blacklist;
    let (dev, ring) = (DevIndex(0), ring());
    let source = Source { dev, device: &**device, bucket: BUCKET, buckets: &ring };
    let options = read::Options {
        format: JsetFormat { magic: MAGIC, block_bytes: (BLOCK.0 * SECTOR_BYTES) as usize, key: None },
        version_min: Version::READ_MIN,
        blacklist: &blacklist,
        salvage: false,
    };
    read::read(&[source], &options).unwrap()
}

fn roots_of(found: &read::Journal) -> Roots {
    found.early.roots.iter().map(|(btree, root)| (*btree, Root::from(root))).collect()
}

/// The trees of a device that nobody shut down, without writing to it.
pub(crate) fn look(device: &Arc<dyn Device>, found: &read::Journal) -> Btrees {
    let overlay = Overlay::from(&found.overlay);
    trees(device, roots_of(found), overlay, vec![found.unreliable()], 1 << 20)
}

/// The counts that a device holds: its keys and the differences of its journal.
pub(crate) fn counts(device: &Arc<dyn Device>, found: &read::Journal) -> BTreeMap<BtreeId, i64> {
    let trees = look(device, found);
    let mut counts = BTreeMap::new();
    for btree in TREES {
        let pos = AccountingPos::btree(btree).encode(Order::of(Version::WRITE));
        let there = trees.get(BtreeId::ACCOUNTING, pos).unwrap();
        let (mut sum, version) = there.map_or((0, Default::default()), |key| {
            (Counters::decode(key.key().value).unwrap().get(0), key.key().k.version)
        });
        let deltas = found.overlay.deltas().filter(|d| d.key.k.pos == pos && d.key.k.version > version);
        sum += deltas.map(|d| Counters::decode(d.key.value).unwrap().get(0)).sum::<i64>();
        if sum != 0 {
            counts.insert(btree, sum);
        }
    }
    counts
}

/// Every key of a b-tree.
pub(crate) fn keys(trees: &Btrees, btree: BtreeId) -> Vec<(Bpos, Vec<u8>)> {
    let mut cursor = trees.cursor(btree, ..);
    let mut keys = Vec::new();
    while let Some(key) = cursor.next().unwrap() {
        keys.push((key.k.pos, key.value.to_vec()));
    }
    assert_eq!(trees.problems(), []);
    keys
}

/// Opens a volume for writing, with recovery.
pub(crate) fn open(device: &Arc<dyn Device>, cache_bytes: usize, options_of_engine: &EngineOptions) -> World {
    let found = scan(device);
    let roots = roots_of(&found);
    let around = Around::new(device, &roots);
    let recovery = recovery_start(&found, &around.superblock.lock().unwrap().blacklist);
    let mut members = vec![member(device, Position::Found(found.rings[0].clone()))];
    write_marker(&mut members, &journal_format(), 1, &*around, &recovery).unwrap();
    around.blacklist(recovery.blacklist.clone()).unwrap();
    claim_used(&around, &look(device, &found));

    let clock = Arc::new(Time::default());
    let host = Arc::clone(&around) as Arc<dyn Host>;
    let journal = Journal::start(members, journal_format(), options(), recovery.start, host, clock);
    let trees = trees(device, roots, Overlay::empty(), Vec::new(), cache_bytes);
    let parts = EngineParts {
        trees: Arc::new(trees),
        journal: Arc::clone(&journal),
        triggers: Arc::clone(&around) as Arc<dyn Triggers>,
        space: Arc::clone(&around) as Arc<dyn NodeSpace>,
        writer: NodeWriter::new(devices(device), node_format(), ChecksumType::Crc32c),
    };
    let engine = Engine::new(parts, options_of_engine);
    replay(&engine, &journal, &found);
    World { engine, around, journal }
}

/// What no pointer leads to is free.
fn claim_used(around: &Around, trees: &Btrees) {
    let mut free: BTreeSet<u64> = (0..NODES).collect();
    for (btree, root) in trees.roots() {
        let Root::At { level: top, key } = root else { panic!("lost root") };
        areas(&key).for_each(|area| assert!(free.remove(&area), "two nodes in one place"));
        for level in 1..=top {
            let mut cursor = trees.level_cursor(btree, level, ..);
            while let Some(key) = cursor.next().unwrap() {
                areas(&key.to_owned()).for_each(|area| assert!(free.remove(&area), "two nodes in one place"));
            }
        }
    }
    around.space.lock().unwrap().free = free;
}

fn replay(engine: &Engine, journal: &Journal, found: &read::Journal) {
    let mut levels: Vec<_> = found.overlay.levels().collect();
    levels.sort_by_key(|&(btree, level)| (std::cmp::Reverse(level), btree));
    for (btree, level) in levels {
        let keys = found.overlay.level(btree, level);
        for i in 0..keys.len() {
            let hold = journal.replay_hold(keys.seq(i));
            engine.replay(btree, level, keys.key(i).to_owned(), &hold).unwrap();
        }
    }
    for delta in found.overlay.deltas() {
        engine.replay_counters(delta.key.to_owned(), &journal.replay_hold(delta.seq)).unwrap();
    }
    journal.replayed(Seq(journal.status().seq));
}
