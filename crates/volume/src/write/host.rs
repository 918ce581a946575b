//! What the journal asks of the volume, and what it tells it.
//!
//! Every journal entry can turn out to be the newest one after a crash, and recovery has no other source of roots, key version and
//! clocks. So every entry carries them (spec 20 §3.3). The roots are those of the **durable-root table**: a new root enters it when
//! the entry with its update is prepared for writing, in the order of entries, so that an entry never speaks of a root that only a later one
//! has (spec 30 §8.3). Roots of b-trees that this program does not know are carried along.
//!
//! The journal owns its host, so the host owns nothing that owns the journal: whoever wants to hear what the journal says is held weakly
//! ([`JournalEvents`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use frazil_btree::{Root, Roots};
use frazil_journal::engine::{CleanStop, DevSet, Dirt, EntryImage, HaltReason, Host, HostError};
use frazil_journal::read::Early;
use frazil_ondisk::BtreeId;
use frazil_ondisk::KeyBuf;
use frazil_ondisk::jset::{EntryType, JsetEntry, UsageKind};
use frazil_ondisk::units::{DevIndex, Sectors, Seq};
use parking_lot::{Mutex, RwLock};

use super::clock::IoClocks;
use super::superblock::{Closing, IoErrorKind, SuperblockStore};
use super::time::WallClock;

/// B-trees of format 1.13: each may get a root at any time.
const BTREES: u8 = BtreeId::ACCOUNTING.0 + 1;
/// Words of the largest pointer to a node: the key, the fixed part of its value, four copies (spec 20 §3.3).
const ROOT_KEY_WORDS: usize = 14;
/// Words of what every entry has besides roots, headers included: datetime, usage, two clocks.
const OTHER_WORDS: usize = 2 + 2 + 3 + 3;

/// Who wants to hear what the journal says. Called without the journal's locks, from whichever thread drives it; must not wait for
/// the journal.
pub trait JournalEvents: Send + Sync {
    /// Everything up to `seq` is durable.
    fn flushed(&self, _seq: Seq) {}

    /// A device failed a journal write and is no longer used for it.
    fn device_failed(&self, _dev: DevIndex, _error: &frazil_device::Error) {}

    /// The journal has stopped for good: nothing more may be written anywhere (INV-13).
    fn halted(&self, _reason: &HaltReason) {}

    /// How much dirt there is.
    fn dirt(&self) -> Dirt {
        Dirt::default()
    }
}

/// The volume, as its journal sees it. See the [module](self).
pub struct VolumeHost {
    superblock: Arc<SuperblockStore>,
    clocks: Arc<IoClocks>,
    wall: Arc<dyn WallClock>,
    /// Largest key version handed out.
    key_version: AtomicU64,
    common_words: u32,
    carried: Mutex<Carried>,
    listeners: RwLock<Vec<Weak<dyn JournalEvents>>>,
}

/// What the newest prepared entry carries.
struct Carried {
    /// The durable-root table.
    roots: Roots,
    last: Common,
}

/// What every entry and the clean section say besides roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Common {
    seq: Seq,
    key_version: u64,
    /// Clocks of reads and of writes.
    clocks: [u64; 2],
}

impl Common {
    fn entries(self) -> [JsetEntry<'static>; 3] {
        let clock = |write| JsetEntry::Clock { write, time: Sectors(self.clocks[usize::from(write)]) };
        let version = JsetEntry::Usage { kind: UsageKind::KEY_VERSION, value: self.key_version };
        [version, clock(false), clock(true)]
    }
}

impl VolumeHost {
    /// The host of a volume whose journal or clean section said `early` last.
    pub fn new(superblock: Arc<SuperblockStore>, early: &Early, wall: Arc<dyn WallClock>) -> VolumeHost {
        let known = |btree: &BtreeId| usize::from(btree.0) < BtreeId::COUNT_MAX;
        let roots: Roots = early
            .roots
            .iter()
            .filter(|(btree, _)| known(btree))
            .map(|(&btree, root)| (btree, Root::from(root)))
            .collect();
        let clocks = [early.read_clock.0, early.write_clock.0];
        let last = Common { seq: Seq(0), key_version: early.key_version, clocks };
        VolumeHost {
            superblock,
            clocks: Arc::new(IoClocks::new(clocks[0], clocks[1])),
            wall,
            key_version: AtomicU64::new(early.key_version),
            common_words: common_words(&roots),
            carried: Mutex::new(Carried { roots, last }),
            listeners: RwLock::default(),
        }
    }

    /// Tells `listener` from now on, as long as it lives.
    pub fn listen(&self, listener: Weak<dyn JournalEvents>) {
        self.listeners.write().push(listener);
    }

    /// The clocks of I/O.
    pub fn clocks(&self) -> &Arc<IoClocks> {
        &self.clocks
    }

    /// The superblock.
    pub fn superblock(&self) -> &Arc<SuperblockStore> {
        &self.superblock
    }

    /// The roots as the newest prepared entry carries them.
    pub fn durable_roots(&self) -> Roots {
        self.carried.lock().roots.clone()
    }

    /// The version for a key whose data is encrypted: no other key ever gets it (spec 10 §15.4).
    pub fn next_key_version(&self) -> u64 {
        self.key_version.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What the clean section says after the journal stopped like this: the same as the last entry.
    ///
    /// # Panics
    /// If another entry was prepared since.
    pub fn closing(&self, journal: CleanStop) -> Closing {
        let carried = self.carried.lock();
        assert_eq!(carried.last.seq, journal.seq, "the last entry is the one the shutdown wrote");
        let mut entries = Vec::new();
        carried.last.entries().iter().for_each(|entry| entry.encode(&mut entries));
        for (&btree, root) in &carried.roots {
            root_entry(btree, root).encode(&mut entries);
        }
        Closing { journal, entries }
    }

    fn tell(&self, what: impl Fn(&dyn JournalEvents)) {
        let listeners: Vec<_> = self.listeners.read().iter().filter_map(Weak::upgrade).collect();
        listeners.iter().for_each(|listener| what(&**listener));
    }
}

/// Room for every root there is or may come, each as large as it can get.
fn common_words(roots: &Roots) -> u32 {
    let of_root = |btree: BtreeId| match roots.get(&btree) {
        Some(Root::At { key, .. }) => 1 + key.as_key().u64s().max(ROOT_KEY_WORDS),
        _ => 1 + ROOT_KEY_WORDS,
    };
    let known = (0..BTREES).map(BtreeId);
    let foreign = roots.keys().copied().filter(|btree| btree.0 >= BTREES);
    let words = known.chain(foreign).map(of_root).sum::<usize>() + OTHER_WORDS;
    u32::try_from(words).expect("63 keys of at most 255 words")
}

fn root_entry(btree: BtreeId, root: &Root) -> JsetEntry<'_> {
    match root {
        Root::At { level, key } => JsetEntry::BtreeRoot { btree, level: *level, key: Some(key.as_key()) },
        Root::Lost => JsetEntry::BtreeRoot { btree, level: 0, key: None },
    }
}

/// The roots in an entry, the last of each b-tree, and where its keys for the write buffer are.
fn look_through(entry: &EntryImage) -> (BTreeMap<BtreeId, Root>, Vec<usize>) {
    let (mut roots, mut buffered) = (BTreeMap::new(), Vec::new());
    for frame in entry.frames() {
        let frame = frame.expect("an entry of this program is well-formed");
        match JsetEntry::decode(&frame) {
            Ok(JsetEntry::BtreeRoot { btree, level, key: Some(key) }) => {
                let key: KeyBuf = key.to_owned();
                roots.insert(btree, Root::At { level, key });
            }
            Ok(JsetEntry::WriteBufferKeys(_)) => buffered.push(frame.at),
            _ => {}
        }
    }
    (roots, buffered)
}

impl Host for VolumeHost {
    fn common_words(&self) -> u32 {
        self.common_words
    }

    fn finish_entry(&self, entry: &mut EntryImage) {
        let (updated, buffered) = look_through(entry);
        buffered.into_iter().for_each(|at| entry.retype(at, EntryType::BTREE_KEYS));
        let present: BTreeSet<BtreeId> = updated.keys().copied().collect();
        let mut carried = self.carried.lock();
        carried.roots.extend(updated);
        for (&btree, root) in carried.roots.iter().filter(|(btree, _)| !present.contains(btree)) {
            entry.push(&root_entry(btree, root));
        }
        let common = Common {
            seq: entry.seq(),
            key_version: self.key_version.load(Ordering::Relaxed),
            clocks: self.clocks.values(),
        };
        entry.push(&JsetEntry::Datetime { seconds: self.wall.now().as_secs() });
        common.entries().iter().for_each(|same| entry.push(same));
        carried.last = common;
    }

    /// Nothing is written if the superblock says so already.
    fn mark_dirty(&self) -> Result<(), HostError> {
        if self.superblock.is_clean() {
            self.superblock.mark_dirty()?;
        }
        Ok(())
    }

    fn mark_replicas(&self, devices: &DevSet) -> Result<(), HostError> {
        Ok(self.superblock.mark_replicas(&[super::superblock::journal_replicas(devices.iter())])?)
    }

    fn blacklist(&self, range: Range<Seq>) -> Result<(), HostError> {
        Ok(self.superblock.blacklist(range)?)
    }

    fn flushed(&self, seq: Seq) {
        self.tell(|listener| listener.flushed(seq));
    }

    fn device_failed(&self, dev: DevIndex, error: &frazil_device::Error) {
        tracing::error!("the journal no longer uses device {dev}: {error}");
        self.superblock.note_io_error(dev, IoErrorKind::Write);
        self.tell(|listener| listener.device_failed(dev, error));
    }

    fn halted(&self, reason: &HaltReason) {
        tracing::error!("nothing more is written: {reason}");
        self.tell(|listener| listener.halted(reason));
    }

    fn dirt(&self) -> Dirt {
        let sum = |sum: Dirt, more: Dirt| Dirt {
            many_nodes: sum.many_nodes || more.many_nodes,
            cached_keys: sum.cached_keys.saturating_add(more.cached_keys),
            buffer_full: sum.buffer_full || more.buffer_full,
        };
        let listeners: Vec<_> = self.listeners.read().iter().filter_map(Weak::upgrade).collect();
        listeners.iter().map(|listener| listener.dirt()).fold(Dirt::default(), sum)
    }
}
