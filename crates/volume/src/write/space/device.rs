//! The buckets of one device, as far as deciding about them needs them in memory.
//!
//! The alloc b-tree is the truth about buckets, but too slow to ask for every allocation, and it cannot say which buckets are promised
//! to somebody whose pointers are not committed yet. So each device keeps, for each bucket, its generation and whether it is
//! *free*, waits to be discarded, or is *open*; and from that two sets to pick from: buckets that can be given away (free and not
//! open), and buckets that can be discarded. They are built from freespace, bucket_gens and need_discard when the volume is opened, which are short
//! lists even for a full device, and then follow every commit ([`DeviceSpace::changed`]). Two bytes and two bits for each bucket: 18 MiB for 8 TiB in buckets of
//! a MiB.
//!
//! An **open** bucket belongs to whoever fills it (spec 50 §6.2). It is held by [`OpenBucket`] references: one at the write point that fills it, one with
//! every allocation from it until the pointers are committed. Only when the last is dropped may the bucket be given away or discarded. An open bucket may
//! become empty and be used again with the same generation; the generation goes up when nobody holds it any more.
//!
//! A bucket that became empty in journal entry *s* must not be overwritten before *s* is on stable storage: a crash could bring the
//! pointers back (spec 50 §6.4). It waits in a list by *s* until the journal says so.
//!
//! One short lock protects all this; nothing waits while it is held.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use frazil_journal::Watermark;
use frazil_ondisk::DataType;
use frazil_ondisk::superblock::members::{Member, MemberFlags, MemberState};
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen, Sectors, Seq};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::DevBucket;
use parking_lot::Mutex;

use super::bucket_set::BucketSet;
use crate::usage::node_reserve;

/// A device and its buckets. See the [module](self).
pub(crate) struct DeviceSpace {
    pub(super) dev: DevIndex,
    pub(super) bucket: Sectors,
    pub(super) first: u64,
    pub(super) end: u64,
    flags: MemberFlags,
    present: bool,
    /// Buckets that must stay free, by watermark.
    reserves: [u64; 7],
    /// The newest journal entry that is on stable storage.
    flushed: AtomicU64,
    buckets: Mutex<Buckets>,
    /// Told when there is something to be done that makes buckets free.
    wake: Arc<Wake>,
}

/// Who is told that there is work.
pub(super) type Wake = OnceLock<Box<dyn Fn() + Send + Sync>>;

/// What is known of each bucket.
struct Buckets {
    gens: Vec<u8>,
    states: Vec<u8>,
    /// Free and not open.
    available: BucketSet,
    /// Wait to be discarded, and for nothing else; some may be open.
    discardable: BucketSet,
    /// Wait to be discarded, but first for that journal entry; and the same by entry, where some may be listed that no longer wait.
    waiting: HashMap<u64, Seq>,
    by_entry: BTreeMap<Seq, Vec<u64>>,
    /// Where the last bucket was found.
    cursor: u64,
}

/// Bits of a bucket's state.
mod state {
    pub(super) const FREE: u8 = 1;
    pub(super) const NEED_DISCARD: u8 = 2;
    pub(super) const OPEN: u8 = 4;
}

/// A bucket somebody fills or has filled; dropping the last reference closes it.
pub(crate) struct OpenBucket {
    device: Arc<DeviceSpace>,
    bucket: u64,
    generation: Gen,
}

/// Where to look for a bucket first.
pub(super) enum Prefer<'a> {
    /// In these ranges.
    Inside(&'a [Range<u64>]),
    /// Not in these ranges, which are ascending and apart.
    Outside(&'a [Range<u64>]),
}

impl DeviceSpace {
    /// A device of which every bucket is in use; see [`DeviceSpace::load`].
    pub(super) fn new(
        dev: DevIndex,
        member: &Member,
        node: Sectors,
        present: bool,
        wake: Arc<Wake>,
    ) -> DeviceSpace {
        let end = member.nbuckets.max(member.first_bucket.into());
        let buckets = Buckets {
            gens: vec![0; end as usize],
            states: vec![0; end as usize],
            available: BucketSet::new(end),
            discardable: BucketSet::new(end),
            waiting: HashMap::new(),
            by_entry: BTreeMap::new(),
            cursor: member.first_bucket.into(),
        };
        DeviceSpace {
            dev,
            bucket: Sectors(member.bucket_size().0.max(1)),
            first: member.first_bucket.into(),
            end,
            flags: member.flags,
            present,
            reserves: reserves(member, node),
            flushed: AtomicU64::new(0),
            buckets: Mutex::new(buckets),
            wake,
        }
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Takes note of what is stored: buckets `free`, buckets that wait to be discarded, generations.
    pub(super) fn load(
        &self,
        free: impl Iterator<Item = Range<u64>>,
        need_discard: impl Iterator<Item = u64>,
        gens: impl Iterator<Item = (u64, Gen)>,
    ) {
        let mut buckets = self.buckets.lock();
        for range in free {
            for bucket in range.start.max(self.first)..range.end.min(self.end) {
                buckets.states[bucket as usize] = state::FREE;
                buckets.available.insert(bucket);
            }
        }
        for bucket in need_discard.filter(|b| self.contains(*b)) {
            buckets.states[bucket as usize] = state::NEED_DISCARD;
            buckets.discardable.insert(bucket);
        }
        for (bucket, generation) in gens.filter(|(b, _)| self.contains(*b)) {
            buckets.gens[bucket as usize] = generation.0;
        }
    }

    /// The bucket exists.
    pub(super) fn contains(&self, bucket: u64) -> bool {
        (self.first..self.end).contains(&bucket)
    }

    /// The device is there and may be written.
    pub(super) fn is_writable(&self) -> bool {
        self.present && self.flags.state() == MemberState::ReadWrite
    }

    /// New data of a kind may be put on the device.
    pub(super) fn takes(&self, class: DataType) -> bool {
        self.is_writable() && self.flags.allows(class)
    }

    /// How many copies a copy here counts as.
    pub(super) fn durability(&self) -> u8 {
        self.flags.durability()
    }

    /// The device wants to be told what is no longer used.
    pub(super) fn wants_discards(&self) -> bool {
        self.flags.discard()
    }

    /// Generation of a bucket; 0 if there is no such bucket.
    pub(super) fn generation(&self, bucket: BucketIndex) -> Gen {
        Gen(self.buckets.lock().gens.get(bucket.0 as usize).copied().unwrap_or(0))
    }

    /// Generations of all buckets, from the first on.
    pub(super) fn generations(&self) -> Vec<Gen> {
        self.buckets.lock().gens[self.first as usize..].iter().map(|generation| Gen(*generation)).collect()
    }

    /// Somebody holds the bucket.
    pub(super) fn is_open(&self, bucket: BucketIndex) -> bool {
        self.buckets.lock().states.get(bucket.0 as usize).is_some_and(|s| s & state::OPEN != 0)
    }

    /// How many buckets this watermark may still have.
    pub(super) fn available(&self, watermark: Watermark) -> u64 {
        self.buckets.lock().available.len().saturating_sub(self.reserves[watermark as usize])
    }

    /// Buckets that this watermark may still have, those included that have to be discarded first.
    pub(super) fn usable(&self, watermark: Watermark) -> u64 {
        let buckets = self.buckets.lock();
        let all = buckets.available.len() + buckets.discardable.len() + buckets.waiting.len() as u64;
        all.saturating_sub(self.reserves[watermark as usize])
    }

    /// Buckets that are or will be free, beyond what is kept for others than new data.
    pub(super) fn free_soon(&self) -> u64 {
        let buckets = self.buckets.lock();
        let all = buckets.available.len() + buckets.discardable.len() + buckets.waiting.len() as u64;
        all.saturating_sub(self.reserves[Watermark::Stripe as usize])
    }

    /// How many buckets are missing until enough are free or will be once they are discarded (spec 50 §6.6).
    pub(super) fn short_of_free(&self) -> u64 {
        let buckets = self.buckets.lock();
        let coming = buckets.discardable.len() + buckets.waiting.len() as u64;
        let wanted = self.end / 128 + self.reserves[Watermark::Stripe as usize];
        wanted.saturating_sub(buckets.available.len() + coming)
    }

    /// The oldest and the newest journal entry that buckets wait for.
    pub(super) fn waits_for(&self) -> Option<(Seq, Seq)> {
        let buckets = self.buckets.lock();
        let (oldest, newest) = (buckets.by_entry.keys().next()?, buckets.by_entry.keys().next_back()?);
        Some((*oldest, *newest))
    }

    /// Opens a free bucket, if this watermark may have one: the next behind the last one found, first where it is preferred (spec 50 §6.3).
    pub(super) fn take(
        self: &Arc<Self>,
        watermark: Watermark,
        prefer: &Prefer<'_>,
    ) -> Option<Arc<OpenBucket>> {
        let mut buckets = self.buckets.lock();
        if buckets.available.len() <= self.reserves[watermark as usize] {
            return None;
        }
        let (set, cursor) = (&buckets.available, buckets.cursor);
        let bucket =
            self.find(set, cursor..self.end, prefer).or_else(|| self.find(set, self.first..cursor, prefer));
        let bucket =
            bucket.or_else(|| set.first_in(cursor..self.end)).or_else(|| set.first_in(self.first..cursor))?;
        buckets.available.remove(bucket);
        buckets.states[bucket as usize] |= state::OPEN;
        buckets.cursor = bucket + 1;
        let generation = Gen(buckets.gens[bucket as usize]);
        Some(Arc::new(OpenBucket { device: Arc::clone(self), bucket, generation }))
    }

    /// The first bucket of the set in `range` that is where it should be.
    fn find(&self, set: &BucketSet, range: Range<u64>, prefer: &Prefer<'_>) -> Option<u64> {
        let within = |r: Range<u64>| set.first_in(r.start.max(range.start)..r.end.min(range.end));
        match prefer {
            Prefer::Inside(ranges) => ranges.iter().cloned().find_map(within),
            Prefer::Outside(ranges) => {
                let starts = std::iter::once(self.first).chain(ranges.iter().map(|r| r.end));
                let ends = ranges.iter().map(|r| r.start).chain([self.end]);
                starts.zip(ends).map(|(start, end)| start..end).find_map(within)
            }
        }
    }

    /// A commit in entry `seq` left a bucket in this state.
    pub(super) fn changed(&self, seq: Seq, bucket: BucketIndex, alloc: &Alloc) {
        if !self.contains(bucket.0) {
            return;
        }
        let index = bucket.0 as usize;
        let mut buckets = self.buckets.lock();
        let open = buckets.states[index] & state::OPEN;
        buckets.gens[index] = alloc.generation.0;
        buckets.states[index] = open
            | match alloc.data_type {
                DataType::FREE => state::FREE,
                DataType::NEED_DISCARD => state::NEED_DISCARD,
                _ => 0,
            };
        match alloc.data_type {
            DataType::FREE if open == 0 => drop(buckets.available.insert(bucket.0)),
            _ => drop(buckets.available.remove(bucket.0)),
        }
        buckets.discardable.remove(bucket.0);
        buckets.waiting.remove(&bucket.0);
        if alloc.data_type == DataType::NEED_DISCARD {
            // A number from the future is damage; nobody could ever wait for it.
            let emptied = alloc.journal_seq_nonempty.min(seq);
            if emptied.0 > self.flushed.load(Ordering::Acquire) {
                buckets.waiting.insert(bucket.0, emptied);
                buckets.by_entry.entry(emptied).or_default().push(bucket.0);
            } else {
                buckets.discardable.insert(bucket.0);
                drop(buckets);
                self.wake();
            }
        } else if alloc.data_type == DataType::NEED_GC_GENS {
            drop(buckets);
            self.wake();
        }
    }

    /// Everything up to `seq` is on stable storage: the buckets that waited for it can be discarded.
    pub(super) fn flushed(&self, seq: Seq) {
        self.flushed.fetch_max(seq.0, Ordering::AcqRel);
        let mut guard = self.buckets.lock();
        let buckets = &mut *guard;
        let mut any = false;
        while let Some(entry) = buckets.by_entry.first_entry().filter(|e| *e.key() <= seq) {
            let (emptied, list) = entry.remove_entry();
            for bucket in list {
                // It may have been used and emptied again since then.
                if buckets.waiting.get(&bucket) == Some(&emptied) {
                    buckets.waiting.remove(&bucket);
                    any |= buckets.discardable.insert(bucket);
                }
            }
        }
        drop(guard);
        if any {
            self.wake();
        }
    }

    /// Up to `max` buckets to discard, none of them open, the highest first: each then joins the free run behind it without a new key.
    /// Nobody else changes them: new pointers only go into open buckets, and only free ones are opened.
    pub(super) fn discardable(&self, max: usize) -> Vec<DevBucket> {
        let buckets = self.buckets.lock();
        let (mut list, mut from) = (Vec::new(), self.first);
        while list.len() < max
            && let Some(bucket) = buckets.discardable.first_in(from..self.end)
        {
            if buckets.states[bucket as usize] & state::OPEN == 0 {
                list.push(DevBucket { dev: self.dev, bucket: BucketIndex(bucket) });
            }
            from = bucket + 1;
        }
        list.reverse();
        list
    }
}

impl OpenBucket {
    /// The bucket.
    pub(crate) fn at(&self) -> DevBucket {
        DevBucket { dev: self.device.dev, bucket: BucketIndex(self.bucket) }
    }

    /// Generation of the pointers into it.
    pub(crate) fn generation(&self) -> Gen {
        self.generation
    }

    /// Its first sector.
    pub(crate) fn start(&self) -> Sectors {
        Sectors(self.bucket * self.device.bucket.0)
    }

    /// Its length.
    pub(crate) fn size(&self) -> Sectors {
        self.device.bucket
    }
}

impl Drop for OpenBucket {
    fn drop(&mut self) {
        let mut buckets = self.device.buckets.lock();
        let index = self.bucket as usize;
        buckets.states[index] &= !state::OPEN;
        if buckets.states[index] & state::FREE != 0 {
            buckets.available.insert(self.bucket);
        }
        let discardable = buckets.discardable.contains(self.bucket);
        drop(buckets);
        if discardable {
            self.device.wake();
        }
    }
}

/// Buckets that must stay free for more urgent users, by watermark (spec 50 §6.1).
fn reserves(member: &Member, node: Sectors) -> [u64; 7] {
    let depth = node_reserve(member.bucket_size(), node);
    let share = member.nbuckets >> 6;
    [2 * share + 2 * depth, share + 2 * depth, 2 * depth, depth, 0, 0, 0]
}

#[cfg(test)]
impl DeviceSpace {
    /// Opens this bucket, whatever it is.
    pub(super) fn take_this(self: &Arc<Self>, bucket: BucketIndex) -> Arc<OpenBucket> {
        let mut buckets = self.buckets.lock();
        buckets.available.remove(bucket.0);
        buckets.states[bucket.0 as usize] |= state::OPEN;
        let generation = Gen(buckets.gens[bucket.0 as usize]);
        Arc::new(OpenBucket { device: Arc::clone(self), bucket: bucket.0, generation })
    }

    /// Panics unless two devices, of which nothing is open, know the same.
    pub(super) fn assert_same(&self, other: &DeviceSpace) {
        let (ours, theirs) = (self.buckets.lock(), other.buckets.lock());
        for bucket in self.first..self.end {
            let of = |b: &Buckets| {
                let index = bucket as usize;
                (b.gens[index], b.states[index], b.available.contains(bucket))
            };
            assert_eq!(of(&ours), of(&theirs), "bucket {}:{bucket}: generation, state, available", self.dev);
        }
        assert_eq!(ours.available.len(), theirs.available.len());
        let waiting = |b: &Buckets| -> std::collections::BTreeSet<u64> {
            let ready = (self.first..self.end).filter(|bucket| b.discardable.contains(*bucket));
            ready.chain(b.waiting.keys().copied()).collect()
        };
        assert_eq!(waiting(&ours), waiting(&theirs), "buckets to be discarded");
    }
}
