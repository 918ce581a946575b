//! The ring of buckets one device gives to the journal, and how much of it is free in which sense.
//!
//! ```text
//!    discard_idx ──► dirty_idx_ondisk ──► dirty_idx ──► cur_idx          (cyclic order, I27)
//!  ────┬──────────────────┬───────────────────┬────────────┬───────────
//!      │ may be discarded │ clean once a flush │ holds live │ writable: discarded buckets up to discard_idx
//!      │ and reused       │ entry says so      │ entries    │
//! ```
//!
//! A bucket is free when every entry in it is older than `last_seq`; it may be *overwritten* only when a completed flush entry
//! says so on disk (`last_seq_ondisk`, spec 20 §4), and is *writable* once it was discarded (or discards are off). Hence four
//! grades of space, from what the next entry can use now to all there is (I29). Everything here is arithmetic under the
//! journal lock; the sectors asked for by entries not yet placed are subtracted, so that an entry that was allowed to open always
//! finds its place.

/// How free is free (spec 20 §11.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Can be written now.
    Discarded,
    /// Could be written after discards.
    CleanOndisk,
    /// Could be written after the next flush entry, then discards.
    Clean,
    /// The whole ring.
    Total,
}

impl Grade {
    /// All grades, smallest first.
    pub const ALL: [Grade; 4] = [Grade::Discarded, Grade::CleanOndisk, Grade::Clean, Grade::Total];
}

/// Free space, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Largest entry that fits in one bucket.
    pub next_entry_sectors: u64,
    /// All of it.
    pub total_sectors: u64,
}

/// The ring of one device.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    /// Bucket numbers in ring order.
    pub buckets: Vec<u64>,
    /// Newest sequence number in each bucket, 0 if none is known.
    pub bucket_seq: Vec<u64>,
    pub bucket_sectors: u64,
    pub discard_idx: usize,
    pub dirty_idx_ondisk: usize,
    pub dirty_idx: usize,
    pub cur_idx: usize,
    /// Sectors left in the current bucket.
    pub room: u64,
}

impl Ring {
    /// A ring nothing is known of or needed in: a new filesystem, or a clean one of which writing resumes at
    /// (`cur_idx`, sector `offset` in it) (spec 20 §1.3). Values out of range are ignored.
    pub(crate) fn clean(buckets: Vec<u64>, bucket_sectors: u64, cur_idx: usize, offset: u64) -> Self {
        let known = cur_idx < buckets.len() && offset > 0 && offset <= bucket_sectors;
        let cur_idx = if known { cur_idx } else { 0 };
        Self {
            bucket_seq: vec![0; buckets.len()],
            buckets,
            bucket_sectors,
            discard_idx: cur_idx,
            dirty_idx_ondisk: cur_idx,
            dirty_idx: cur_idx,
            cur_idx,
            room: if known { bucket_sectors - offset } else { 0 },
        }
    }

    /// A ring as found by reading: full until reclaim has looked at it (spec 20 §5.3).
    pub(crate) fn found(
        buckets: Vec<u64>,
        bucket_seq: Vec<u64>,
        bucket_sectors: u64,
        cur_idx: usize,
        offset: u64,
    ) -> Self {
        assert_eq!(buckets.len(), bucket_seq.len());
        let mut ring = Self::clean(buckets, bucket_sectors, cur_idx, offset);
        ring.bucket_seq = bucket_seq;
        if ring.len() > 0 {
            let next = (ring.cur_idx + 1) % ring.len();
            (ring.discard_idx, ring.dirty_idx_ondisk, ring.dirty_idx) = (next, next, next);
        }
        ring
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Notes which buckets are free now.
    pub(crate) fn update(&mut self, last_seq: u64, last_seq_ondisk: u64) {
        let nr = self.len();
        while self.dirty_idx != self.cur_idx && self.bucket_seq[self.dirty_idx] < last_seq {
            self.dirty_idx = (self.dirty_idx + 1) % nr;
        }
        while self.dirty_idx_ondisk != self.dirty_idx
            && self.bucket_seq[self.dirty_idx_ondisk] < last_seq_ondisk
        {
            self.dirty_idx_ondisk = (self.dirty_idx_ondisk + 1) % nr;
        }
    }

    /// Whole buckets available in a grade.
    pub(crate) fn available(&self, grade: Grade) -> usize {
        let nr = self.len();
        let upto = match grade {
            Grade::Discarded => self.discard_idx,
            Grade::CleanOndisk => self.dirty_idx_ondisk,
            Grade::Clean => self.dirty_idx,
            Grade::Total => return nr,
        };
        if nr == 0 {
            return 0;
        }
        let free = (upto + nr - self.cur_idx - 1) % nr;
        // One bucket stays back unless writing a new last_seq will free another: the entry that frees needs a place.
        free - usize::from(free > 0 && self.dirty_idx_ondisk == self.dirty_idx)
    }

    /// Free space of a grade, less what the entries of `unplaced` (sectors, in order) will take.
    pub(crate) fn space(&self, grade: Grade, unplaced: impl Iterator<Item = u64>) -> Space {
        if grade == Grade::Total {
            let total_sectors = self.bucket_sectors * self.len() as u64;
            return Space { next_entry_sectors: self.bucket_sectors.min(total_sectors), total_sectors };
        }
        let (mut room, mut buckets) = (self.room, self.available(grade) as u64);
        for sectors in unplaced.filter(|s| *s <= self.bucket_sectors) {
            if sectors >= room {
                if buckets == 0 {
                    room = 0;
                    break;
                }
                buckets -= 1;
                room = self.bucket_sectors;
            }
            room -= sectors;
        }
        if room < self.bucket_sectors && buckets > 0 {
            buckets -= 1;
            room = self.bucket_sectors;
        }
        Space { next_entry_sectors: room, total_sectors: room + buckets * self.bucket_sectors }
    }

    /// Moves to the next bucket, if a discarded one is available. The rest of the current one stays as it is.
    pub(crate) fn next_bucket(&mut self) -> bool {
        if self.available(Grade::Discarded) == 0 {
            return false;
        }
        self.cur_idx = (self.cur_idx + 1) % self.len();
        assert_ne!(self.cur_idx, self.discard_idx, "I27: the write position overtook the discarded buckets");
        self.room = self.bucket_sectors;
        self.bucket_seq[self.cur_idx] = 0;
        true
    }

    /// Takes the place of entry `seq`: the sector of the device it goes to. `None` without room in the current bucket.
    pub(crate) fn take(&mut self, seq: u64, sectors: u64) -> Option<u64> {
        if sectors > self.room || self.len() == 0 {
            return None;
        }
        let start = self.buckets[self.cur_idx] * self.bucket_sectors + (self.bucket_sectors - self.room);
        self.room -= sectors;
        self.bucket_seq[self.cur_idx] = seq;
        Some(start)
    }

    /// The bucket to discard next, as (ring index, bucket).
    pub(crate) fn to_discard(&self) -> Option<(usize, u64)> {
        (self.discard_idx != self.dirty_idx_ondisk)
            .then(|| (self.discard_idx, self.buckets[self.discard_idx]))
    }

    /// The bucket at `discard_idx` may be written.
    pub(crate) fn discarded(&mut self, last_seq_ondisk: u64) {
        assert!(self.discard_idx != self.dirty_idx_ondisk);
        let seq = self.bucket_seq[self.discard_idx];
        assert!(seq < last_seq_ondisk, "I28: bucket with entry {seq} is needed from {last_seq_ondisk} on");
        self.discard_idx = (self.discard_idx + 1) % self.len();
    }

    /// Sequence number half a ring ahead of the write position: reclaim keeps at most half the ring dirty.
    pub(crate) fn half_ahead(&self) -> u64 {
        if self.len() == 0 { 0 } else { self.bucket_seq[(self.cur_idx + self.len() / 2) % self.len()] }
    }

    /// Inserts new buckets behind the free ones (spec 20 §1.4). The journal is blocked and quiet.
    pub(crate) fn grow(&mut self, new: &[u64]) {
        let nr = self.len();
        let at = if self.discard_idx == 0 { nr } else { self.discard_idx };
        self.buckets.splice(at..at, new.iter().copied());
        self.bucket_seq.splice(at..at, new.iter().map(|_| 0));
        for idx in [&mut self.discard_idx, &mut self.dirty_idx_ondisk, &mut self.dirty_idx, &mut self.cur_idx]
        {
            if *idx >= at {
                *idx = (*idx + new.len()) % (nr + new.len());
            }
        }
        if nr == 0 {
            *self = Self::clean(std::mem::take(&mut self.buckets), self.bucket_sectors, 0, 0);
        }
    }

    /// I27: the indices are in cyclic order.
    pub(crate) fn check(&self) {
        let nr = self.len().max(1);
        let ahead = |idx: usize| (idx + nr - self.discard_idx) % nr;
        let (ondisk, dirty, cur) = (ahead(self.dirty_idx_ondisk), ahead(self.dirty_idx), ahead(self.cur_idx));
        assert!(ondisk <= dirty && dirty <= cur, "I27: {self:?}");
    }
}

/// Free space of the filesystem (spec 20 §11.2): what `want` devices at once have, the best ones taken.
pub(crate) fn filesystem_space(devices: impl Iterator<Item = Space>, want: usize) -> Space {
    let mut spaces: Vec<Space> = devices.filter(|s| s.next_entry_sectors > 0).collect();
    spaces.sort_by_key(|s| std::cmp::Reverse(s.total_sectors));
    match want.checked_sub(1).and_then(|i| spaces.get(i)) {
        Some(&space) => Space {
            next_entry_sectors: spaces[..want].iter().map(|s| s.next_entry_sectors).min().unwrap_or(0),
            total_sectors: space.total_sectors,
        },
        None => Space::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_ring_starts_in_its_second_bucket() {
        // Spec 20 §2.3: "no room left in ring index 0", so the first entry is at ring index 1, offset 0.
        let mut ring = Ring::clean((17..49).collect(), 256, 0, 0);
        assert_eq!(ring.take(1, 8), None);
        assert!(ring.next_bucket());
        assert_eq!(ring.take(1, 8), Some(18 * 256));
        assert_eq!(ring.take(2, 16), Some(18 * 256 + 8));
    }

    #[test]
    fn growth_matches_the_observed_example() {
        // Spec 20 §1.4: 32 → 64 buckets, discard_idx 3, cur_idx 3 gave (17,3) (82,32) (20,29), current index 35.
        let mut ring = Ring::clean((17..49).collect(), 256, 3, 8);
        ring.grow(&(82..114).collect::<Vec<_>>());
        assert_eq!(ring.buckets, (17..20).chain(82..114).chain(20..49).collect::<Vec<_>>());
        assert_eq!(ring.cur_idx, 35);
        ring.check();
    }

    proptest! {
        #[test]
        fn space_is_never_promised_twice(
            nr in 1usize..9,
            steps in proptest::collection::vec((1u64..12, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let mut ring = Ring::clean((10..10 + nr as u64).collect(), 16, 0, 0);
            let (mut seq, mut last, mut ondisk) = (0, 1, 1);
            for (sectors, flush, discard) in steps {
                let fits = ring.space(Grade::Discarded, std::iter::empty());
                let placed = match ring.take(seq + 1, sectors) {
                    Some(at) => Some(at),
                    None => if ring.next_bucket() { ring.take(seq + 1, sectors) } else { None },
                };
                // What was promised is there.
                prop_assert!(placed.is_some() || sectors > fits.next_entry_sectors);
                if placed.is_some() {
                    seq += 1;
                }
                last = last.max(seq.saturating_sub(3)).max(1);
                if flush {
                    ondisk = last;
                }
                ring.update(last, ondisk);
                while discard && ring.to_discard().is_some() {
                    ring.discarded(ondisk);
                }
                ring.check();
                let of = |g| ring.space(g, std::iter::empty()).total_sectors;
                prop_assert!(Grade::ALL.windows(2).all(|w| of(w[0]) <= of(w[1])), "I29");
            }
        }
    }
}
