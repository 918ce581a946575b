//! The reference's own transactions: its journals say what was changed, what was there before, and what it derived from that.
//!
//! Each transaction in the journals of the golden images (also those long written back) is done once more: our triggers get the keys of files and what
//! they replaced, and must come to the same buckets, lists, backpointers and counters. What was there before is what the journal
//! says was overwritten.
//!
//! Not compared: times of buckets and numbers of entries in them; how free runs are cut (the buckets in them are compared); transactions about
//! nodes, which do not say what they overwrote.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use frazil_btree::write::{Blocked, Triggers};
use frazil_device::{Device, MemDevice};
use frazil_ondisk::jset::{JsetEntry, entries};
use frazil_ondisk::superblock::bitmap::BtreeBitmap;
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::values::inode::{Inode, InodeFlags};
use frazil_ondisk::values::positions::freespace_bucket;
use frazil_ondisk::values::reflink::ReflinkP;
use frazil_testing::golden;

use super::*;
use crate::open::{JournalView, OpenOptions, open};
use crate::write::Superblocks;
use crate::write::clock::IoClocks;
use crate::write::space::{OpenBucket, Space};
use crate::write::testing::{FakeSuperblocks, MapStage, Tree, space_of};

/// Transactions that say nothing about triggers: about nodes; of the first start, when free space is not listed yet; and keys
/// that are only moved from a cache to the b-tree.
const OTHER: [&str; 4] = [
    "btree_update_nodes_written",
    "bch2_trans_mark_dev_sb",
    "bch2_dev_freespace_init",
    "bch2_btree_key_cache_journal_flu",
];

/// Positions and what is there.
type Keys = BTreeMap<(BtreeId, Bpos), KeyBuf>;

/// One transaction of the reference.
#[derive(Default)]
struct Transaction {
    name: String,
    /// Updates of leaves and what they replaced.
    updates: Keys,
    overwritten: Keys,
    /// Keys that are written behind: the last at each position, and how many there are.
    buffered: BTreeMap<(BtreeId, Bpos), (KeyBuf, u32)>,
    accounted: BTreeMap<Bpos, [i64; 3]>,
    /// It changes nodes or roots.
    about_nodes: bool,
}

fn counters(key: &KeyBuf) -> [i64; 3] {
    let mut sum = [0; 3];
    let stored = Counters::decode(&key.value).expect("counters");
    sum.iter_mut().zip(stored.iter()).for_each(|(to, from)| *to = from);
    sum
}

fn is_buffered(btree: BtreeId) -> bool {
    matches!(btree, BtreeId::LRU | BtreeId::BACKPOINTERS | BtreeId::DELETED_INODES | BtreeId::REBALANCE_WORK)
}

impl Transaction {
    fn add(&mut self, btree: BtreeId, key: KeyBuf) {
        let at = (btree, key.k.pos);
        if btree == BtreeId::ACCOUNTING {
            let sum = self.accounted.entry(key.k.pos).or_default();
            sum.iter_mut().zip(counters(&key)).for_each(|(sum, by)| *sum += by);
        } else if is_buffered(btree) {
            let count = self.buffered.get(&at).map_or(0, |(_, count)| *count);
            self.buffered.insert(at, (key, count + 1));
        } else {
            self.updates.insert(at, key);
        }
    }
}

/// The transactions of an entry's list.
fn transactions(list: &[u8]) -> Vec<Transaction> {
    let mut all: Vec<Transaction> = Vec::new();
    for entry in entries(list).map_while(Result::ok) {
        match entry {
            JsetEntry::Log { level: 0, text } => {
                let name = String::from_utf8_lossy(JsetEntry::log_text(text)).into_owned();
                all.push(Transaction { name, ..Transaction::default() });
            }
            JsetEntry::BtreeRoot { .. } => {
                // Every entry also carries all roots at its end.
                all.iter_mut().last().into_iter().for_each(|t| t.about_nodes |= t.updates.is_empty());
            }
            JsetEntry::Overwrite(keys) => {
                let Some(last) = all.last_mut().filter(|_| keys.level == 0) else { continue };
                for key in keys.keys.clone().map_while(Result::ok) {
                    last.overwritten.entry((keys.btree, key.k.pos)).or_insert_with(|| key.to_owned());
                }
            }
            JsetEntry::BtreeKeys(keys) => {
                let Some(last) = all.last_mut() else { continue };
                last.about_nodes |= keys.level > 0;
                keys.keys.clone().map_while(Result::ok).for_each(|key| last.add(keys.btree, key.to_owned()));
            }
            _ => {}
        }
    }
    all
}

/// Whether only the number of references differs.
fn only_refcount(old: &KeyBuf, new: &KeyBuf) -> bool {
    old.k.ty == new.k.ty && old.k == new.k && old.value.get(8..) == new.value.get(8..)
}

/// What somebody wanted, without what follows from it.
fn wanted(transaction: &Transaction) -> Vec<Change> {
    let derived =
        [BtreeId::FREESPACE, BtreeId::NEED_DISCARD, BtreeId::BUCKET_GENS, BtreeId::SUBVOLUME_CHILDREN];
    let about_buckets =
        transaction.updates.keys().all(|(btree, _)| *btree == BtreeId::ALLOC || derived.contains(btree));
    let mut changes = Vec::new();
    for (&(btree, pos), new) in &transaction.updates {
        let old = transaction.overwritten.get(&(btree, pos)).filter(|k| k.k.ty != KeyType::DELETED);
        let mut new = new.clone();
        match btree {
            _ if derived.contains(&btree) => continue,
            BtreeId::ALLOC if !about_buckets => continue,
            BtreeId::REFLINK => match old {
                Some(old) if new.k.ty == KeyType::DELETED || only_refcount(old, &new) => continue,
                Some(_) => {}
                // A new one begins without references.
                None => new.value[..8].fill(0),
            },
            BtreeId::EXTENTS if new.k.ty == KeyType::REFLINK_P => {
                let p = ReflinkP::decode(&new.value).expect("a reflink_p");
                let mut value = Vec::new();
                ReflinkP { front_pad: 0, back_pad: 0, ..p }.encode(&mut value);
                new.value = value.into();
            }
            _ => {}
        }
        changes.push(Change { btree, level: 0, old: old.cloned(), new });
    }
    changes.sort_by_key(|c| (c.btree, c.new.k.pos));
    changes
}

/// The buckets that free runs gained and lost.
fn free_buckets(before: &Tree, after: &Tree) -> [BTreeSet<(u64, u64)>; 2] {
    let buckets = |tree: &Tree| -> BTreeSet<(u64, u64)> {
        let live = tree.values().filter(|key| key.k.ty == KeyType::SET);
        let runs = live.map(|key| (key.k.pos.inode, key.k.start_offset().expect("a run")..key.k.pos.offset));
        runs.flat_map(|(dev, run)| run.map(move |b| (dev, freespace_bucket(b).0.0))).collect()
    };
    let (before, after) = (buckets(before), buckets(after));
    [after.difference(&before).copied().collect(), before.difference(&after).copied().collect()]
}

fn tree_of(keys: &Keys, btree: BtreeId) -> Tree {
    keys.iter().filter(|((b, _), _)| *b == btree).map(|((_, pos), key)| (*pos, key.clone())).collect()
}

/// The state of a bucket without what is not compared.
fn comparable(key: &KeyBuf) -> Alloc {
    let alloc = Alloc::decode(key.k.ty, &key.value).expect("an alloc key");
    Alloc { journal_seq_nonempty: Seq(0), journal_seq_empty: Seq(0), io_time: [1, 1], ..alloc }
}

/// An image, as far as doing its transactions once more needs it.
struct World {
    deriver: Deriver,
    space: Arc<Space>,
    snapshots: Tree,
    order: Order,
}

impl World {
    fn of(devices: Vec<Arc<dyn Device>>) -> World {
        let volume = open(devices, OpenOptions::default()).expect("golden images can be opened");
        let space = Arc::new(space_of(&volume));
        let superblocks = Arc::new(AllReplicas(FakeSuperblocks::default()));
        let deriver = Deriver::new(Arc::clone(&space), superblocks, Arc::new(IoClocks::default()));
        let mut snapshots = Tree::new();
        let mut cursor = volume.btrees().cursor(BtreeId::SNAPSHOTS, ..);
        while let Some(key) = cursor.next().expect("golden images can be read") {
            snapshots.insert(key.k.pos, key.to_owned());
        }
        World { deriver, space, snapshots, order: Order::of(volume.superblock.version) }
    }

    /// Does a transaction once more; what differs.
    fn differences(&self, transaction: &Transaction) -> Vec<String> {
        let mut trees: BTreeMap<BtreeId, Tree> = BTreeMap::new();
        trees.insert(BtreeId::SNAPSHOTS, self.snapshots.clone());
        for (&(btree, pos), key) in &transaction.overwritten {
            if key.k.ty != KeyType::DELETED {
                trees.entry(btree).or_default().insert(pos, key.clone());
            }
        }
        let _open = self.prepare(transaction);
        let changes = wanted(transaction);
        let staged = changes.iter().map(|c| ((c.btree, c.new.k.pos), c.new.clone())).collect();
        let mut stage = MapStage { trees: &trees, staged, accounted: Vec::new() };
        match self.deriver.run(&mut stage, &changes) {
            Ok(()) => {}
            Err(Blocked::Failed(error)) => return vec![error.to_string()],
            Err(_) => return vec!["it wants to wait".into()],
        }
        let MapStage { staged, accounted, .. } = stage;
        self.compare(transaction, &trees, &staged, &accounted)
    }

    /// Generations as they were, and buckets that were open: those that became empty without getting the next generation.
    fn prepare(&self, transaction: &Transaction) -> Vec<Arc<OpenBucket>> {
        let of_alloc = |keys: &Keys| -> Vec<(DevBucket, Alloc)> {
            let keys = tree_of(keys, BtreeId::ALLOC);
            keys.values()
                .filter_map(|k| Some((DevBucket::from_pos(k.k.pos)?, comparable_or_never_used(k))))
                .collect()
        };
        self.space.committed(Seq(1), of_alloc(&transaction.overwritten).into_iter(), &[]);
        let open = of_alloc(&transaction.updates)
            .into_iter()
            .filter(|(_, a)| a.data_type.is_empty() && a.need_inc_gen);
        open.filter_map(|(at, _)| self.space.open_this(at)).collect()
    }

    /// A key without what is not compared.
    fn comparable(&self, btree: BtreeId, key: &KeyBuf) -> KeyBuf {
        let mut key = key.clone();
        let mut value = Vec::new();
        match key.k.ty {
            KeyType::ALLOC_V4 => comparable(&key).encode(&mut value),
            // Which other versions there are does not stand in the transaction.
            KeyType::INODE_V3 if btree == BtreeId::INODES && self.snapshots.len() > 1 => {
                let mut inode = Inode::decode(key.k.ty, &key.value).expect("an inode");
                inode.flags.set(InodeFlags::HAS_CHILD_SNAPSHOT, false);
                inode.encode(&mut value);
            }
            _ => return key,
        }
        key.value = value.into();
        key
    }

    fn compare(
        &self,
        transaction: &Transaction,
        trees: &BTreeMap<BtreeId, Tree>,
        ours: &Keys,
        accounted: &[(AccountingPos, [i64; 3])],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        self.compare_leaves(transaction, trees, ours, &mut wrong);
        self.compare_behind(transaction, ours, accounted, &mut wrong);
        wrong
    }

    fn compare_leaves(
        &self,
        transaction: &Transaction,
        trees: &BTreeMap<BtreeId, Tree>,
        ours: &Keys,
        wrong: &mut Vec<String>,
    ) {
        let (theirs_free, ours_free) =
            (tree_of(&transaction.updates, BtreeId::FREESPACE), tree_of(ours, BtreeId::FREESPACE));
        let before = trees.get(&BtreeId::FREESPACE).cloned().unwrap_or_default();
        let after = |changes: Tree| {
            let mut after = before.clone();
            after.extend(changes);
            free_buckets(&before, &after)
        };
        let (theirs_free, ours_free) = (after(theirs_free), after(ours_free));
        if theirs_free != ours_free {
            wrong.push(format!("free buckets {ours_free:?}, theirs {theirs_free:?}"));
        }
        let all: BTreeSet<(BtreeId, Bpos)> = ours.keys().chain(transaction.updates.keys()).copied().collect();
        for at in all.into_iter().filter(|(btree, _)| *btree != BtreeId::FREESPACE && !is_buffered(*btree)) {
            let (our, their) = (ours.get(&at), transaction.updates.get(&at));
            // They also write what comes to the same as before.
            let our = our.or_else(|| transaction.overwritten.get(&at));
            if our.map(|key| self.comparable(at.0, key)) != their.map(|key| self.comparable(at.0, key)) {
                wrong.push(format!("{} {}: {our:?}, theirs {their:?}", at.0, at.1));
            }
        }
    }

    /// What is written behind.
    fn compare_behind(
        &self,
        transaction: &Transaction,
        ours: &Keys,
        accounted: &[(AccountingPos, [i64; 3])],
        wrong: &mut Vec<String>,
    ) {
        let lists: BTreeSet<(BtreeId, Bpos)> = ours
            .keys()
            .filter(|(b, _)| is_buffered(*b))
            .chain(transaction.buffered.keys())
            .copied()
            .collect();
        for at in lists {
            match (ours.get(&at), transaction.buffered.get(&at)) {
                (Some(our), Some((their, _))) if our == their => {}
                // They take away what they put back.
                (None, Some((_, 2..))) => {}
                (our, their) => wrong.push(format!("{} {}: {our:?}, theirs {their:?}", at.0, at.1)),
            }
        }
        let mut sums = transaction.accounted.clone();
        for (what, by) in accounted {
            let sum = sums.entry(what.encode(self.order)).or_default();
            sum.iter_mut().zip(by).for_each(|(sum, by)| *sum -= by);
        }
        for (pos, by) in sums.into_iter().filter(|(_, by)| *by != [0; 3]) {
            wrong.push(format!("{:?}: theirs is {by:?} more", AccountingPos::decode(pos, self.order)));
        }
    }
}

/// As [`comparable`]; a bucket that had no key was never used.
fn comparable_or_never_used(key: &KeyBuf) -> Alloc {
    if key.k.ty == KeyType::DELETED { Alloc::default() } else { comparable(key) }
}

#[test]
fn we_derive_what_the_reference_derived() {
    let (mut done, mut names) = (0, BTreeMap::new());
    let mut wrong = Vec::new();
    for image in golden::all().into_iter().filter(|i| i.version.minor == 13 && i.passphrase.is_none()) {
        if image.name == "01-empty-formatted-only" || image.name == "09-multi-degraded" {
            continue;
        }
        let devices: Vec<Arc<dyn Device>> =
            image.bytes().iter().map(|b| Arc::new(MemDevice::from_bytes(b)) as _).collect();
        let world = World::of(devices.clone());
        let journal = JournalView::open(devices, OpenOptions::default()).expect("they have journals");
        let survey = journal.survey().expect("they can be read");
        for found in survey.found.values() {
            let Some(Ok(jset)) = found.good().map(|copy| journal.load(copy)) else { continue };
            for transaction in transactions(jset.list()) {
                let is_other = OTHER.contains(&transaction.name.as_str());
                if is_other || transaction.about_nodes || transaction.updates.is_empty() {
                    continue;
                }
                let differences = world.differences(&transaction);
                done += 1;
                *names.entry(transaction.name.clone()).or_insert(0) += 1;
                let of = format!("{} {} {}", image.name, found.seq, transaction.name);
                wrong.extend(differences.into_iter().map(|d| format!("{of}: {d}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {done}: {:#?}", wrong.len(), &wrong[..wrong.len().min(60)]);
    assert!(done > 5000, "only {done}");
    for wanted in ["bch2_write_index_default", "bch2_inode_rm", "bch2_remap_range", "bch2_do_discards_work"] {
        assert!(names.get(wanted).is_some_and(|n| *n > 20), "{wanted}: {names:#?}");
    }
}

/// A superblock that lists every set of devices.
struct AllReplicas(FakeSuperblocks);

impl Superblocks for AllReplicas {
    fn has_replicas(&self, _: &ReplicasEntry) -> bool {
        true
    }

    fn mark_replicas(&self, entry: &ReplicasEntry) -> Result<(), CommitError> {
        self.0.mark_replicas(entry)
    }

    fn btree_bitmap(&self, dev: DevIndex) -> BtreeBitmap {
        self.0.btree_bitmap(dev)
    }

    fn mark_btree_nodes(&self, dev: DevIndex, sectors: Range<Sectors>) -> Result<(), CommitError> {
        self.0.mark_btree_nodes(dev, sectors)
    }
}
