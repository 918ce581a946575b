//! The b-trees that list buckets by their state: freespace, need_discard, lru, bucket_gens (spec 60 §9.5, §9.6).
//!
//! Each is compared as a sorted stream with what the alloc keys imply. Freespace keys cover ranges, which may be cut anywhere, so
//! ranges are compared, not keys; what is expected there is what is left of each device when the buckets that are not free are taken
//! out.

use std::collections::BTreeMap;

use frazil_ondisk::units::{BucketIndex, DevIndex, Gen};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::{
    BucketGens, DevBucket, Lru, LruEntry, bucket_gens_pos, freespace_bucket, need_discard_bucket,
};
use frazil_ondisk::values::stripe::Stripe;
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use super::buckets::{Gens, PAGE};
use super::context::{Check, Feed};
use super::faults::ListFault;
use super::inconsistency::Inconsistency;
use super::space::NEVER_USED;
use super::walk::Stripes;
use crate::derive::Rules;
use crate::derive::bucket::Lists;

/// Where the buckets must be listed.
pub(super) struct Listings {
    /// Buckets that are not free, or free but listed at another place than their own number.
    busy: Vec<DevBucket>,
    /// Places of the latter.
    far: Vec<(DevIndex, u64)>,
    need_discard: Vec<Bpos>,
    lru: Vec<Bpos>,
}

/// Part of the freespace b-tree: device, first offset, offset behind the last.
type Run = (DevIndex, u64, u64);

impl Listings {
    /// With nothing but the stripes that have room.
    pub(super) fn new(check: &mut Check<'_>, stripes: &Stripes) -> Self {
        let mut lru = Vec::new();
        if check.version().stripes_have_lru() && !stripes.devs.is_empty() {
            check.each(BtreeId::STRIPES, 0, |_, key| {
                if let Some(time) = Stripe::decode(key.value).ok().and_then(|s| stripe_time(&s)) {
                    lru.push(LruEntry { lru: Lru::Stripes, time, target: key.k.pos.offset }.pos());
                }
            });
        }
        Self { busy: Vec::new(), far: Vec::new(), need_discard: Vec::new(), lru }
    }

    /// Adds a bucket that has, or should have, an alloc key.
    pub(super) fn bucket(&mut self, check: &Check<'_>, at: DevBucket, alloc: &Alloc) {
        let Some(geometry) = check.rules.geometry(at.dev) else { return };
        let lists = Lists::of(at, alloc, geometry.bucket, check.version());
        match lists.freespace {
            Some(offset) if offset == at.bucket.0 => {}
            Some(offset) => {
                self.busy.push(at);
                self.far.push((at.dev, offset));
            }
            None => self.busy.push(at),
        }
        self.need_discard.extend(lists.need_discard);
        self.lru.extend(lists.lru_read);
        self.lru.extend(lists.lru_fragmentation);
    }

    /// Compares all four.
    pub(super) fn compare(mut self, check: &mut Check<'_>, gens: &Gens) {
        self.busy.sort_unstable();
        self.busy.dedup();
        let expected = self.free_runs(check);
        freespace(check, &expected, gens, &self.busy);
        need_discard(check, self.need_discard, gens);
        lru(check, self.lru);
        bucket_gens(check, gens);
    }

    /// Everything that must be in freespace, in order.
    fn free_runs(&self, check: &Check<'_>) -> Vec<Run> {
        let mut runs = Vec::new();
        for (dev, geometry) in check.rules.devices().filter(|(dev, _)| is_initialized(check, *dev)) {
            let mut from = geometry.first.0;
            let begin = self.busy.partition_point(|at| at.dev < dev);
            for at in self.busy[begin..].iter().take_while(|at| at.dev == dev) {
                if from < at.bucket.0 {
                    runs.push((dev, from, at.bucket.0));
                }
                from = at.bucket.0 + 1;
            }
            if from < geometry.end.0 {
                runs.push((dev, from, geometry.end.0));
            }
        }
        runs.extend(self.far.iter().map(|&(dev, offset)| (dev, offset, offset + 1)));
        runs.sort_unstable();
        runs
    }
}

/// Lists of keys of type `set` that are compared with what the keys imply: those of background work and of stripes, which newer
/// versions keep (spec 80 §5.15, §5.16).
pub(super) fn is_checked(rules: &Rules, list: BtreeId) -> bool {
    match list {
        BtreeId::BUCKET_TO_STRIPE => rules.version.alloc_has_stripe_refcount(),
        BtreeId::REBALANCE_WORK
        | BtreeId::RECONCILE_HIPRI
        | BtreeId::RECONCILE_PENDING
        | BtreeId::RECONCILE_WORK_PHYS
        | BtreeId::RECONCILE_HIPRI_PHYS => rules.version.has_reconcile(),
        _ => false,
    }
}

/// Compares all of those.
pub(super) fn sets(check: &mut Check<'_>, mut expected: BTreeMap<BtreeId, Vec<Bpos>>) {
    for list in BtreeId::known().filter(|&list| is_checked(&check.rules, list)).collect::<Vec<_>>() {
        points(check, list, expected.remove(&list).unwrap_or_default(), |_, pos, missing| {
            // Stripes that wait for work are listed too, at inode 0; what they wait for is not derived here.
            let of_stripe = list == BtreeId::RECONCILE_HIPRI && pos.inode == 0;
            let (first, buckets) = (BucketIndex(pos.offset), 1);
            (!of_stripe).then_some(if missing {
                ListFault::Missing { first, buckets, hole: false }
            } else {
                ListFault::Stray { first, buckets, state: true }
            })
        });
    }
}

/// A stripe's place in the list of stripes with room; `None` if it has none (spec 80 §5.8).
fn stripe_time(stripe: &Stripe<'_>) -> Option<u64> {
    let header = &stripe.header;
    let data = usize::from(header.nr_blocks.saturating_sub(header.nr_redundant));
    let empty = stripe.block_sectors().take(data).filter(|&n| n == 0).count();
    let room = empty as u64 + u64::from(header.can_widen());
    (room > 0).then(|| (1 << 48) - 1 - room)
}

/// The freespace and need_discard b-trees cover this device.
fn is_initialized(check: &Check<'_>, dev: DevIndex) -> bool {
    check.volume.members().get(dev).is_some_and(|m| m.flags.freespace_initialized())
}

/// Calls `found` with the parts of one sorted list of runs that the other does not have, and whether they are missing.
fn difference(expected: &[Run], stored: &[Run], mut found: impl FnMut(Run, bool)) {
    let (mut expected, mut stored) = (expected.iter().copied().peekable(), stored.iter().copied().peekable());
    let (mut want, mut have) = (expected.next(), stored.next());
    loop {
        match (want, have) {
            (None, None) => return,
            (Some(w), None) => {
                found(w, true);
                want = expected.next();
            }
            (None, Some(h)) => {
                found(h, false);
                have = stored.next();
            }
            (Some((wd, ws, we)), Some((hd, hs, he))) => {
                if (wd, we) <= (hd, hs) {
                    found((wd, ws, we), true);
                    want = expected.next();
                } else if (hd, he) <= (wd, ws) {
                    found((hd, hs, he), false);
                    have = stored.next();
                } else if ws < hs {
                    found((wd, ws, hs), true);
                    want = Some((wd, hs, we));
                } else if hs < ws {
                    found((hd, hs, ws), false);
                    have = Some((hd, ws, he));
                } else {
                    let end = we.min(he);
                    want = if we > end { Some((wd, end, we)) } else { expected.next() };
                    have = if he > end { Some((hd, end, he)) } else { stored.next() };
                }
            }
        }
    }
}

fn freespace(check: &mut Check<'_>, expected: &[Run], gens: &Gens, busy: &[DevBucket]) {
    let mut stored: Vec<Run> = Vec::new();
    let mut faults: Vec<(Bpos, ListFault)> = Vec::new();
    check.each(BtreeId::FREESPACE, 0, |check, key| {
        let end = key.k.pos.offset;
        let start = key.k.start_offset().unwrap_or(0);
        let dev = u8::try_from(key.k.pos.inode).map(DevIndex);
        let Some((dev, geometry)) = dev.ok().and_then(|dev| Some((dev, check.rules.geometry(dev)?))) else {
            return faults.push((key.k.pos, ListFault::NoSuchDevice));
        };
        if !is_initialized(check, dev) {
            return;
        }
        let (first, last) = (freespace_bucket(start).0, freespace_bucket(end.saturating_sub(1)).0);
        if !geometry.contains(first) || !geometry.contains(last) {
            return faults.push((key.k.pos, ListFault::NoSuchBucket));
        }
        match stored.last_mut() {
            Some((d, _, e)) if *d == dev && *e == start => *e = end,
            Some((d, _, e)) if *d == dev && *e > start => {
                let fault = stray((dev, start, end.min(*e)), true);
                faults.push((key.k.pos, fault));
                *e = end.max(*e);
            }
            _ => stored.push((dev, start, end)),
        }
    });
    let mut add = |(dev, end): (DevIndex, u64), fault| faults.push((Bpos::new(dev.0.into(), end, 0), fault));
    let mut differences = Vec::new();
    difference(expected, &stored, |run, missing| differences.push((run, missing)));
    for (run, is_missing) in differences {
        let (dev, start, end) = run;
        let first = freespace_bucket(start).0;
        let at = DevBucket { dev, bucket: first };
        let fault = if is_missing {
            let hole = gens.get(at).copied().flatten().is_none();
            ListFault::Missing { first, buckets: end - start, hole }
        } else {
            // A bucket that is busy should not be listed; a free one is listed at the wrong place.
            stray(run, busy.binary_search(&at).is_ok())
        };
        add((dev, end), fault);
    }
    for (pos, fault) in faults {
        check.add(Inconsistency::List { btree: BtreeId::FREESPACE, pos, fault });
    }
}

fn stray((_, start, end): Run, state: bool) -> ListFault {
    ListFault::Stray { first: freespace_bucket(start).0, buckets: end - start, state }
}

/// Compares point keys with the sorted list of those that must be there.
fn points(
    check: &mut Check<'_>,
    btree: BtreeId,
    mut expected: Vec<Bpos>,
    mut fault: impl FnMut(&mut Check<'_>, Bpos, bool) -> Option<ListFault>,
) {
    expected.sort_unstable();
    let mut expected = expected.into_iter().peekable();
    let mut feed = Feed::new(check, btree);
    loop {
        let (want, have) = (expected.peek().copied(), feed.pos());
        let (pos, missing) = match (want, have) {
            (None, None) => return,
            (Some(want), Some(have)) if want == have => {
                expected.next();
                feed.advance(check);
                continue;
            }
            (Some(want), have) if have.is_none_or(|have| want < have) => {
                expected.next();
                (want, true)
            }
            (_, Some(have)) => {
                feed.advance(check);
                (have, false)
            }
            (Some(_), None) => unreachable!("a position is below no key at all"),
        };
        if let Some(fault) = fault(check, pos, missing) {
            check.add(Inconsistency::List { btree, pos, fault });
        }
    }
}

/// What is wrong with an entry for one bucket.
fn bucket_fault(check: &Check<'_>, at: Option<DevBucket>, missing: bool) -> (ListFault, Option<DevIndex>) {
    let Some(at) = at else { return (ListFault::NoSuchDevice, None) };
    let Some(geometry) = check.rules.geometry(at.dev) else { return (ListFault::NoSuchDevice, None) };
    let first = at.bucket;
    let fault = match () {
        () if missing => ListFault::Missing { first, buckets: 1, hole: false },
        () if !geometry.contains(first) => ListFault::NoSuchBucket,
        () => ListFault::Stray { first, buckets: 1, state: true },
    };
    (fault, Some(at.dev))
}

fn need_discard(check: &mut Check<'_>, expected: Vec<Bpos>, gens: &Gens) {
    let initialized = |check: &Check<'_>, dev: Option<DevIndex>| dev.is_none_or(|d| is_initialized(check, d));
    points(check, BtreeId::NEED_DISCARD, expected, |check, pos, missing| {
        let at = need_discard_bucket(pos, check.version());
        let (fault, dev) = bucket_fault(check, at, missing);
        let fault = match (fault, at) {
            // A bucket that was never used cannot be in this state.
            (ListFault::Stray { first, buckets, .. }, Some(at))
                if gens.get(at).copied().flatten().is_none() =>
            {
                ListFault::Stray { first, buckets, state: false }
            }
            (fault, _) => fault,
        };
        initialized(check, dev).then_some(fault)
    });
}

fn lru(check: &mut Check<'_>, expected: Vec<Bpos>) {
    points(check, BtreeId::LRU, expected, |check, pos, missing| {
        let entry = LruEntry::from_pos(pos);
        Some(match entry.lru {
            Lru::Stripes if missing => {
                ListFault::Missing { first: BucketIndex(entry.target), buckets: 1, hole: false }
            }
            Lru::Stripes => ListFault::Stray { first: BucketIndex(entry.target), buckets: 1, state: true },
            _ => bucket_fault(check, DevBucket::from_u64(entry.target), missing).0,
        })
    });
}

fn bucket_gens(check: &mut Check<'_>, gens: &Gens) {
    let mut seen = std::collections::BTreeSet::new();
    check.each(BtreeId::BUCKET_GENS, 0, |check, key| {
        let pos = key.k.pos;
        let add = |check: &mut Check<'_>, fault| {
            check.add(Inconsistency::List { btree: BtreeId::BUCKET_GENS, pos, fault });
        };
        let dev = u8::try_from(pos.inode).map(DevIndex).ok();
        let Some((dev, geometry)) = dev.and_then(|dev| Some((dev, *check.rules.geometry(dev)?))) else {
            return add(check, ListFault::NoSuchDevice);
        };
        let Some(first) = pos.offset.checked_mul(PAGE).filter(|first| *first < geometry.end.0) else {
            return add(check, ListFault::NoSuchBucket);
        };
        let (KeyType::BUCKET_GENS, Ok(stored)) = (key.k.ty, BucketGens::decode(key.value)) else { return };
        seen.insert((dev, pos.offset));
        for bucket in (first..first + PAGE).map(BucketIndex) {
            let stored = stored.get(bucket);
            let own = gens.get(DevBucket { dev, bucket }).copied().flatten();
            if !geometry.contains(bucket) {
                if stored != NEVER_USED {
                    add(check, ListFault::Stray { first: bucket, buckets: 1, state: true });
                }
                continue;
            }
            let computed = own.unwrap_or(NEVER_USED);
            if stored != computed {
                add(check, ListFault::Generation { bucket, stored, computed, hole: own.is_none() });
            }
        }
    });
    let unlisted = |(dev, page, gens): (DevIndex, u64, &[Option<Gen>])| {
        let listed = seen.contains(&(dev, page));
        let first = (page * PAGE..).map(BucketIndex).zip(gens.to_vec());
        let wrong = first.filter(|(_, own)| own.is_some_and(|own| own != NEVER_USED));
        wrong.filter(move |_| !listed).map(move |(bucket, own)| (dev, bucket, own)).collect::<Vec<_>>()
    };
    for (dev, bucket, own) in gens.pages().flat_map(unlisted).collect::<Vec<_>>() {
        let (pos, _) = bucket_gens_pos(DevBucket { dev, bucket });
        let computed = own.unwrap_or(NEVER_USED);
        let fault = ListFault::Generation { bucket, stored: NEVER_USED, computed, hole: false };
        check.add(Inconsistency::List { btree: BtreeId::BUCKET_GENS, pos, fault });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_compared_wherever_they_are_cut() {
        let run = |start, end| (DevIndex(0), start, end);
        let check = |expected: &[Run], stored: &[Run]| {
            let (mut missing, mut strays) = (Vec::new(), Vec::new());
            difference(expected, stored, |r, is_missing| {
                if is_missing { &mut missing } else { &mut strays }.push(r)
            });
            (missing, strays)
        };
        let whole = [run(0, 10), run(12, 20)];
        assert_eq!(check(&whole, &[run(0, 4), run(4, 10), run(12, 20)]), (vec![], vec![]));
        assert_eq!(check(&whole, &[run(0, 20)]), (vec![], vec![run(10, 12)]));
        assert_eq!(check(&whole, &[run(2, 5)]), (vec![run(0, 2), run(5, 10), run(12, 20)], vec![]));
        assert_eq!(check(&[], &whole), (vec![], whole.to_vec()));
        assert_eq!(check(&whole, &[]), (whole.to_vec(), vec![]));
        let other = [(DevIndex(1), 0, 10)];
        assert_eq!(check(&whole, &other), (whole.to_vec(), other.to_vec()));
    }
}
