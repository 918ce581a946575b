//! A set of buckets of one device: a bit each, and a count for every 4096, so that a search steps over what is empty.

use std::ops::Range;

/// Words whose bits share a count.
const CHUNK_WORDS: usize = 64;
/// Buckets that share a count.
const CHUNK: u64 = CHUNK_WORDS as u64 * 64;

/// Buckets below a fixed end.
pub(super) struct BucketSet {
    words: Vec<u64>,
    chunks: Vec<u32>,
    len: u64,
}

impl BucketSet {
    /// An empty set of buckets below `end`.
    pub(super) fn new(end: u64) -> BucketSet {
        let words = end.div_ceil(64) as usize;
        BucketSet { words: vec![0; words], chunks: vec![0; words.div_ceil(CHUNK_WORDS)], len: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn contains(&self, bucket: u64) -> bool {
        self.words.get((bucket / 64) as usize).is_some_and(|word| word >> (bucket % 64) & 1 != 0)
    }

    /// Adds a bucket below the end; whether it was not there.
    pub(super) fn insert(&mut self, bucket: u64) -> bool {
        let (word, bit) = ((bucket / 64) as usize, 1u64 << (bucket % 64));
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.chunks[word / CHUNK_WORDS] += u32::from(new);
        self.len += u64::from(new);
        new
    }

    /// Removes a bucket below the end; whether it was there.
    pub(super) fn remove(&mut self, bucket: u64) -> bool {
        let (word, bit) = ((bucket / 64) as usize, 1u64 << (bucket % 64));
        let there = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        self.chunks[word / CHUNK_WORDS] -= u32::from(there);
        self.len -= u64::from(there);
        there
    }

    /// The first of a range.
    pub(super) fn first_in(&self, range: Range<u64>) -> Option<u64> {
        let end = range.end.min(self.words.len() as u64 * 64);
        let mut at = range.start;
        while at < end {
            if at.is_multiple_of(CHUNK) && self.chunks[(at / CHUNK) as usize] == 0 {
                at += CHUNK;
                continue;
            }
            let word = self.words[(at / 64) as usize] >> (at % 64);
            if word != 0 {
                return Some(at + u64::from(word.trailing_zeros())).filter(|found| *found < end);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            end in 1u64..20_000,
            steps in proptest::collection::vec((any::<u64>(), any::<bool>()), 0..200),
            ranges in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..20),
        ) {
            let (mut set, mut model) = (BucketSet::new(end), BTreeSet::new());
            for (bucket, insert) in steps {
                let bucket = bucket % end;
                if insert {
                    prop_assert_eq!(set.insert(bucket), model.insert(bucket));
                } else {
                    prop_assert_eq!(set.remove(bucket), model.remove(&bucket));
                }
                prop_assert_eq!(set.contains(bucket), insert);
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            for (a, b) in ranges {
                let (a, b) = (a % (end + 100), b % (end + 100));
                prop_assert_eq!(set.first_in(a..b), model.range(a.min(b)..b).next().copied());
            }
        }
    }
}
