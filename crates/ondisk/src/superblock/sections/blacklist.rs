//! Journal sequence numbers that must never be used (spec 10 §9.8, spec 20 §6).
//!
//! A b-tree node write says up to which journal entry its updates go. After a crash such a write can be on disk although that journal
//! entry is not; it must then be ignored for ever, and so its number is put on this list.

use std::ops::Range;

use crate::bytes::{PutLe, Reader};
use crate::error::{DecodeError, Result};
use crate::superblock::sections::{SectionBody, SectionType};
use crate::units::Seq;

const WHAT: &str = "superblock section journal_seq_blacklist";

/// The blacklisted numbers, as half-open ranges: ascending, not empty, not touching each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalSeqBlacklist {
    ranges: Vec<Range<Seq>>,
}

impl JournalSeqBlacklist {
    /// Whether a number is blacklisted.
    pub fn contains(&self, seq: Seq) -> bool {
        self.range_of(seq).is_some()
    }

    /// The range a number is in.
    pub fn range_of(&self, seq: Seq) -> Option<Range<Seq>> {
        let after = self.ranges.partition_point(|r| r.end <= seq);
        self.ranges.get(after).filter(|r| r.start <= seq).cloned()
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[Range<Seq>] {
        &self.ranges
    }

    /// Nothing is blacklisted; the section is then removed.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// End of the last range: no blacklisted number is as large.
    pub fn end(&self) -> Option<Seq> {
        self.ranges.last().map(|r| r.end)
    }

    /// Adds a half-open range, merging it with those it touches. An empty range adds nothing.
    pub fn add(&mut self, range: Range<Seq>) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = self.ranges.partition_point(|r| r.start <= range.end);
        let merged = match self.ranges.get(from..to) {
            Some([first, .., last]) => first.start.min(range.start)..last.end.max(range.end),
            Some([one]) => one.start.min(range.start)..one.end.max(range.end),
            _ => range,
        };
        self.ranges.splice(from..to, [merged]);
    }

    /// Drops the ranges for which `keep` says no.
    pub fn retain(&mut self, keep: impl FnMut(&Range<Seq>) -> bool) {
        self.ranges.retain(keep);
    }
}

impl SectionBody for JournalSeqBlacklist {
    const TYPE: SectionType = SectionType::JOURNAL_SEQ_BLACKLIST;

    /// Ranges that merely touch are legal on disk, and stay apart here, so that nothing changes by reading and writing.
    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, payload);
        let mut ranges: Vec<Range<Seq>> = Vec::with_capacity(payload.len() / 16);
        while r.remaining() > 0 {
            let range = Seq(r.u64()?)..Seq(r.u64()?);
            if range.is_empty() {
                return Err(DecodeError::invalid(
                    WHAT,
                    format!("range {}-{} is empty", range.start, range.end),
                ));
            }
            if let Some(previous) = ranges.last().filter(|p| p.end > range.start) {
                return Err(DecodeError::invalid(
                    WHAT,
                    format!(
                        "range from {} starts before {}, the end of the one before",
                        range.start, previous.end
                    ),
                ));
            }
            ranges.push(range);
        }
        Ok(JournalSeqBlacklist { ranges })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for range in &self.ranges {
            out.put_u64(range.start.0);
            out.put_u64(range.end.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(ranges: &[(u64, u64)]) -> JournalSeqBlacklist {
        let mut list = JournalSeqBlacklist::default();
        for &(start, end) in ranges {
            list.add(Seq(start)..Seq(end));
        }
        list
    }

    #[test]
    fn example_of_the_specification() {
        let mut payload = vec![0; 16];
        (payload[0], payload[8]) = (0x0f, 0x17);
        let one = JournalSeqBlacklist::decode(&payload).unwrap();
        assert_eq!(one, list(&[(15, 23)]));
        assert!(one.contains(Seq(15)) && one.contains(Seq(22)));
        assert!(!one.contains(Seq(14)) && !one.contains(Seq(23)));
    }

    #[test]
    fn touching_ranges_merge() {
        assert_eq!(list(&[(10, 20), (30, 40), (20, 30)]), list(&[(10, 40)]));
        assert_eq!(list(&[(10, 20), (5, 5)]), list(&[(10, 20)]));
        assert_eq!(list(&[(30, 40), (10, 20), (50, 60), (15, 55)]), list(&[(10, 60)]));
    }

    #[test]
    fn unsorted_or_empty_ranges_are_refused() {
        for bad in [[5u64, 5, 6, 7], [9, 5, 10, 11], [1, 5, 4, 9]] {
            let payload: Vec<u8> = bad.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert!(JournalSeqBlacklist::decode(&payload).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ranges in prop::collection::vec((0u64..60, 0u64..10), 0..12)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| (start, start + len)).collect();
            let list = list(&ranges);
            for seq in 0..80 {
                let expected = ranges.iter().any(|r| r.0 <= seq && seq < r.1);
                prop_assert_eq!(list.contains(Seq(seq)), expected);
            }
            prop_assert!(list.ranges().windows(2).all(|w| w[0].end < w[1].start));
            let mut payload = Vec::new();
            list.encode(&mut payload);
            prop_assert_eq!(JournalSeqBlacklist::decode(&payload).unwrap(), list);
        }
    }
}
