//! What the keys of the new volume imply, added up.
//!
//! Every key that goes into the volume is shown to [`derive::of_key`] once; what follows from it is collected here in the
//! form in which it will be needed: sums for buckets and counters, lists for backpointers and the keys that say all with their
//! position. An extent leaves about 80 bytes here, so a million files fit easily.

use std::collections::{BTreeMap, HashMap};

use frazil_ondisk::superblock::layout::Layout;
use frazil_ondisk::superblock::members::Member;
use frazil_ondisk::superblock::sections::JournalV2;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen, Sectors};
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{Bpos, BtreeId, DataType, Key};

use super::error::{BuildError, Result};
use crate::derive::{self, BucketUse, Implied, Rules, Share, StripeDevs};

/// What a bucket holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    class: DataType,
    dirty: u32,
    cached: u32,
}

impl Held {
    /// The state of a bucket of a fresh volume that holds this (spec 50 §9.2).
    fn alloc(self, rules: &Rules) -> Alloc {
        let mut alloc = Alloc {
            need_discard: true,
            need_inc_gen: true,
            dirty_sectors: self.dirty,
            cached_sectors: self.cached,
            io_time: [1, 1],
            ..Alloc::default()
        };
        alloc.data_type = alloc.derived_data_type(self.class, rules.version);
        alloc
    }
}

/// Backpointers of one device: offset and encoded value, with whether they came in order.
#[derive(Default)]
struct Backpointers {
    list: Vec<(u64, [u8; 32])>,
    unsorted: bool,
}

/// Everything that follows from keys.
#[derive(Default)]
pub(super) struct Facts {
    buckets: BTreeMap<DevBucket, Held>,
    backpointers: BTreeMap<DevIndex, Backpointers>,
    counters: HashMap<AccountingPos, [i64; 3]>,
    /// Of single inodes, which there may be as many of as files; mostly in ascending order.
    inodes: Vec<(u64, [i64; 3])>,
    sets: BTreeMap<BtreeId, Vec<Bpos>>,
}

/// A volume under construction has no stale pointers and no stripes.
struct Fresh;

impl derive::Context for Fresh {
    fn is_stale(&self, _: DevBucket, _: Gen) -> bool {
        false
    }

    fn stripe(&self, _: u64) -> Option<StripeDevs> {
        None
    }
}

impl Facts {
    /// Adds what follows from a key.
    pub(super) fn add(&mut self, rules: &Rules, btree: BtreeId, level: u8, key: Key<'_>) -> Result<()> {
        let mut refused = None;
        derive::of_key(rules, &Fresh, btree, level, key, &mut |fact| {
            if let Err(why) = self.fact(fact) {
                refused = Some(why);
            }
        })?;
        refused.map_or(Ok(()), Err)
    }

    fn fact(&mut self, fact: Implied) -> Result<()> {
        match fact {
            Implied::Use(used) => self.hold(used),
            Implied::Backpointer(pos, value) => {
                let mut bytes = Vec::with_capacity(32);
                value.encode(&mut bytes);
                let bytes = *bytes.first_chunk().expect("a backpointer has 32 bytes");
                let of_dev = self.backpointers.entry(DevIndex(pos.inode as u8)).or_default();
                of_dev.unsorted |= of_dev.list.last().is_some_and(|last| last.0 >= pos.offset);
                of_dev.list.push((pos.offset, bytes));
            }
            Implied::Account(AccountingPos::Inum { inum }, counters) => match self.inodes.last_mut() {
                Some((last, sum)) if *last == inum.0 => add(sum, counters),
                _ => self.inodes.push((inum.0, counters)),
            },
            Implied::Account(what, counters) => add(self.counters.entry(what).or_default(), counters),
            Implied::Set(btree, pos) => self.sets.entry(btree).or_default().push(pos),
            // The counts of references are in the keys already.
            Implied::Reference(..) => {}
            Implied::StripeBlock { .. } | Implied::StripeUse { .. } => {
                return Err(BuildError::Options("a new volume cannot hold stripes of erasure coding".into()));
            }
        }
        Ok(())
    }

    fn hold(&mut self, used: BucketUse) {
        let held = self.buckets.entry(used.at).or_insert(Held { class: used.class, dirty: 0, cached: 0 });
        assert_eq!(held.class, used.class, "a bucket holds one class of data");
        match used.share {
            Share::Dirty | Share::Stripe => held.dirty += used.sectors,
            Share::Cached => held.cached += used.sectors,
        }
    }

    /// Adds the superblock copies and the journal of a device (spec 50 §3.2).
    pub(super) fn add_fixed(&mut self, dev: DevIndex, member: &Member, layout: &Layout, journal: &JournalV2) {
        let size = member.bucket_size().0;
        for range in layout.reserved() {
            for bucket in range.start / size..range.end.div_ceil(size).min(member.nbuckets) {
                let (start, end) = (bucket * size, (bucket + 1) * size);
                let sectors = range.end.min(end) - range.start.max(start);
                self.fixed(DevBucket { dev, bucket: BucketIndex(bucket) }, DataType::SB, sectors);
            }
        }
        for bucket in journal.buckets() {
            self.fixed(DevBucket { dev, bucket }, DataType::JOURNAL, size);
        }
    }

    fn fixed(&mut self, at: DevBucket, class: DataType, sectors: u64) {
        let held = self.buckets.entry(at).or_insert(Held { class, dirty: 0, cached: 0 });
        assert_eq!(held.class, class, "superblocks and journal are apart");
        held.dirty += sectors as u32;
    }

    /// Brings lists into order.
    pub(super) fn sort(&mut self) {
        for of_dev in self.backpointers.values_mut().filter(|b| b.unsorted) {
            of_dev.list.sort_unstable_by_key(|b| b.0);
            of_dev.unsorted = false;
        }
        if !self.inodes.is_sorted_by_key(|i| i.0) {
            self.inodes.sort_by_key(|i| i.0);
        }
        self.inodes.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                add(&mut kept.1, next.1);
            }
            same
        });
        for list in self.sets.values_mut() {
            list.sort_unstable();
        }
    }

    /// Takes the keys that say all with their position, by b-tree, ascending.
    pub(super) fn take_sets(&mut self) -> BTreeMap<BtreeId, Vec<Bpos>> {
        std::mem::take(&mut self.sets)
    }
}

fn add(sum: &mut [i64; 3], counters: [i64; 3]) {
    for (sum, more) in sum.iter_mut().zip(counters) {
        *sum += more;
    }
}

/// Two sets of facts as one: the keys pushed so far, and the nodes that are planned beyond them. Both are sorted.
#[derive(Clone, Copy)]
pub(super) struct Both<'f> {
    pub(super) known: &'f Facts,
    pub(super) planned: &'f Facts,
}

impl<'f> Both<'f> {
    /// Every bucket in use and its state, ascending.
    pub(super) fn buckets<'r>(
        &self,
        rules: &'r Rules,
    ) -> impl Iterator<Item = (DevBucket, Alloc)> + use<'f, 'r> {
        let merged = merge(self.known.buckets.iter(), self.planned.buckets.iter(), |a, b| a.0.cmp(b.0));
        let mut merged = merged.peekable();
        std::iter::from_fn(move || {
            let (at, held) = merged.next()?;
            let mut held = *held;
            // A bucket that was begun before and is filled up by planned nodes.
            if let Some((_, more)) = merged.next_if(|next| next.0 == at) {
                held.dirty += more.dirty;
                held.cached += more.cached;
            }
            Some((*at, held.alloc(rules)))
        })
    }

    /// Every backpointer, ascending: position and encoded value.
    pub(super) fn backpointers(&self) -> impl Iterator<Item = (Bpos, &'f [u8; 32])> + use<'f> {
        let devs: std::collections::BTreeSet<DevIndex> =
            self.known.backpointers.keys().chain(self.planned.backpointers.keys()).copied().collect();
        let lists = [self.known, self.planned];
        devs.into_iter().flat_map(move |dev| {
            let [a, b] = lists.map(|f| f.backpointers.get(&dev).map_or(&[][..], |b| &b.list));
            let pos = move |offset| Bpos::new(dev.0.into(), offset, 0);
            merge(a.iter(), b.iter(), |a, b| a.0.cmp(&b.0)).map(move |(offset, value)| (pos(*offset), value))
        })
    }

    /// Every counter but those of single inodes and of kinds of data on devices, in no order.
    pub(super) fn counters(&self) -> HashMap<AccountingPos, [i64; 3]> {
        let mut sums = self.known.counters.clone();
        for (what, counters) in &self.planned.counters {
            add(sums.entry(*what).or_default(), *counters);
        }
        sums
    }

    /// The counters of single inodes, ascending.
    pub(super) fn inodes(&self) -> impl Iterator<Item = &'f (u64, [i64; 3])> + use<'f> {
        debug_assert!(self.planned.inodes.is_empty(), "nodes belong to no inode");
        self.known.inodes.iter()
    }
}

/// Two ascending sequences as one.
fn merge<T>(
    a: impl Iterator<Item = T>,
    b: impl Iterator<Item = T>,
    cmp: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> impl Iterator<Item = T> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if cmp(x, y).is_gt() => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

/// How many sectors a bucket of the device has.
pub(super) fn bucket_size(rules: &Rules, dev: DevIndex) -> Sectors {
    rules.geometry(dev).expect("only members have buckets").bucket
}
