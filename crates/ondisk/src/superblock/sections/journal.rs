//! Which buckets of this device are its journal (spec 10 §9.1, spec 20 §1.1).
//!
//! The journal of a device is a ring of buckets. The section lists them, and the order of the list is the order of the ring: a
//! *ring index* is a position in it. Since the ring can grow in the middle, bucket numbers need not ascend. Each device's own
//! superblock describes its own journal only.
//!
//! The old section holds single buckets, the new one ranges. The new one wins, and writing it removes the old one.

use crate::bytes::{PutLe, Reader};
use crate::error::{DecodeError, Result};
use crate::superblock::members::Member;
use crate::superblock::sections::{SectionBody, SectionType};
use crate::units::BucketIndex;

const WHAT: &str = "superblock section journal_v2";
const WHAT_V1: &str = "superblock section journal";
/// More journal buckets than this cannot be addressed by a ring index.
const BUCKETS_MAX: u64 = u32::MAX as u64;

/// A run of journal buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketRange {
    /// First bucket.
    pub start: BucketIndex,
    /// Number of buckets.
    pub nr: u64,
}

/// The ring of journal buckets, as ranges in ring order; section `journal_v2`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalV2(pub Vec<BucketRange>);

/// The same as single buckets; section `journal`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalV1(pub Vec<BucketIndex>);

impl JournalV2 {
    /// The ring made of these buckets, neighbours joined.
    pub fn from_buckets(buckets: impl IntoIterator<Item = BucketIndex>) -> JournalV2 {
        let mut ranges: Vec<BucketRange> = Vec::new();
        for bucket in buckets {
            match ranges.last_mut() {
                Some(last) if last.start.0.checked_add(last.nr) == Some(bucket.0) => last.nr += 1,
                _ => ranges.push(BucketRange { start: bucket, nr: 1 }),
            }
        }
        JournalV2(ranges)
    }

    /// Number of buckets in the ring; saturates.
    pub fn len(&self) -> u64 {
        self.0.iter().fold(0, |sum, r| sum.saturating_add(r.nr))
    }

    /// There is no journal on this device.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bucket at a ring index; `None` past the end.
    pub fn bucket(&self, ring_index: u32) -> Option<BucketIndex> {
        let mut rest = u64::from(ring_index);
        for range in &self.0 {
            if rest < range.nr {
                return range.start.0.checked_add(rest).map(BucketIndex);
            }
            rest -= range.nr;
        }
        None
    }

    /// Every bucket in ring order. Validate first: a damaged section can name 2^64 buckets.
    pub fn buckets(&self) -> impl Iterator<Item = BucketIndex> + '_ {
        self.0.iter().flat_map(|r| (r.start.0..r.start.0.saturating_add(r.nr)).map(BucketIndex))
    }

    /// Checks the ring against the member it is on (spec 10 §9.1).
    ///
    /// # Errors
    /// Naming the range that is empty, outside the device, or overlaps another.
    pub fn validate(&self, member: &Member) -> Result<()> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by_key(|r| r.start);
        let (first, nbuckets) = (u64::from(member.first_bucket), member.nbuckets);
        let mut previous_end = 0;
        for range in &sorted {
            let (start, nr) = (range.start.0, range.nr);
            let fail = |why: String| Err(DecodeError::invalid(WHAT, format!("buckets {start}+{nr}: {why}")));
            let Some(end) = start.checked_add(nr).filter(|_| nr > 0) else {
                return fail("empty or wraps".into());
            };
            if start == 0 || start < first {
                return fail(format!("before the first usable bucket {}", first.max(1)));
            }
            if end > nbuckets {
                return fail(format!("past the end of the device ({nbuckets} buckets)"));
            }
            if start < previous_end {
                return fail("overlap another range".into());
            }
            previous_end = end;
        }
        if self.len() > BUCKETS_MAX {
            return Err(DecodeError::invalid(WHAT, format!("{} buckets, at most {BUCKETS_MAX}", self.len())));
        }
        Ok(())
    }
}

impl SectionBody for JournalV2 {
    const TYPE: SectionType = SectionType::JOURNAL_V2;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, payload);
        let mut ranges = Vec::with_capacity(payload.len() / 16);
        while r.remaining() > 0 {
            ranges.push(BucketRange { start: BucketIndex(r.u64()?), nr: r.u64()? });
        }
        Ok(JournalV2(ranges))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for range in &self.0 {
            out.put_u64(range.start.0);
            out.put_u64(range.nr);
        }
    }
}

impl SectionBody for JournalV1 {
    const TYPE: SectionType = SectionType::JOURNAL;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT_V1, payload);
        let mut buckets = Vec::with_capacity(payload.len() / 8);
        while r.remaining() > 0 {
            buckets.push(BucketIndex(r.u64()?));
        }
        Ok(JournalV1(buckets))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for bucket in &self.0 {
            out.put_u64(bucket.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> JournalV2 {
        JournalV2(list.iter().map(|&(start, nr)| BucketRange { start: BucketIndex(start), nr }).collect())
    }

    #[test]
    fn ring_order_is_list_order() {
        // spec 20 §1.4: a ring that was grown in the middle.
        let ring = ranges(&[(17, 3), (82, 32), (20, 29)]);
        assert_eq!(ring.len(), 64);
        assert_eq!(ring.bucket(2), Some(BucketIndex(19)));
        assert_eq!(ring.bucket(3), Some(BucketIndex(82)));
        assert_eq!(ring.bucket(35), Some(BucketIndex(20)));
        assert_eq!(ring.bucket(64), None);
        assert_eq!(JournalV2::from_buckets(ring.buckets()), ring);
    }

    #[test]
    fn rules() {
        let member = Member { nbuckets: 100, ..Member::default() };
        let check = |list: &[(u64, u64)]| ranges(list).validate(&member).map_err(|e| e.to_string());
        assert_eq!(check(&[(50, 10), (17, 33)]), Ok(()));
        assert_eq!(check(&[]), Ok(()));
        for (bad, why) in [
            (&[(17, 0)][..], "empty or wraps"),
            (&[(17, u64::MAX)], "empty or wraps"),
            (&[(0, 2)], "before the first"),
            (&[(90, 11)], "past the end"),
            (&[(20, 10), (29, 2)], "overlap"),
        ] {
            assert!(check(bad).unwrap_err().contains(why), "{bad:?}");
        }
        let late = Member { nbuckets: 100, first_bucket: 18, ..Member::default() };
        assert!(ranges(&[(17, 5)]).validate(&late).is_err());
    }
}
