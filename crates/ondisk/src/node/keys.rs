//! The keys of a node in memory: sorted, still packed, searchable without unpacking.
//!
//! A cached node is searched far more often than it is read, and memory is what limits how many are cached, so the keys
//! stay as compact as on disk. [`SortedKeys`] is three arrays:
//!
//! * `bytes` — the keys one behind the other, each as a node stores it (packed or not, then its value);
//! * `starts` — where each key starts, in words;
//! * `digests` — for each key the 64 bits that tell its position from the others' ([`super::digest`]).
//!
//! So beyond its bytes on disk a key costs 12 bytes of memory. A search looks up the digest of the wanted position in the dense
//! array of digests, and compares whole positions only among keys of the same digest, nearly always one. Keys are
//! addressed by index, so iterating forwards and backwards is counting.

use super::digest::Digester;
use super::format::{FormatBuilder, KeyFormat};
use super::header::NODE_HEADER_BYTES;
use super::pack::RawKey;
use crate::bkey::{BKEY_U64S, Key};
use crate::bpos::Bpos;

/// Keys in strictly ascending order of position, searchable by it. Interior and leaf nodes alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SortedKeys {
    format: KeyFormat,
    bytes: Box<[u8]>,
    starts: Box<[u32]>,
    digester: Digester,
    digests: Box<[u64]>,
    /// How many of the keys are packed.
    packed: usize,
}

/// Collects keys, in ascending order of position, for [`SortedKeys`].
#[derive(Clone, Debug)]
pub struct SortedKeysBuilder {
    format: KeyFormat,
    bytes: Vec<u8>,
    starts: Vec<u32>,
    positions: Vec<Bpos>,
    packed: usize,
}

impl SortedKeysBuilder {
    /// No keys yet; those to come are packed with `format`. Room is made for `keys` keys of `bytes` bytes in all.
    pub fn with_capacity(format: KeyFormat, keys: usize, bytes: usize) -> Self {
        SortedKeysBuilder {
            format,
            bytes: Vec::with_capacity(bytes),
            starts: Vec::with_capacity(keys),
            positions: Vec::with_capacity(keys),
            packed: 0,
        }
    }

    /// Appends a key.
    ///
    /// # Panics
    /// If it is not above the last one.
    pub fn push(&mut self, key: Key<'_>) {
        let start = self.bytes.len();
        self.format.encode_key(key, &mut self.bytes);
        self.index_last(start, key.k.pos);
    }

    /// Appends a key of a node of the same format, as it is stored there, whose position is `pos`.
    ///
    /// # Panics
    /// If it is not above the last one.
    pub(crate) fn push_raw(&mut self, raw: RawKey<'_>, pos: Bpos) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(raw.bytes());
        self.index_last(start, pos);
    }

    fn index_last(&mut self, start: usize, pos: Bpos) {
        assert!(self.positions.last().is_none_or(|&last| last < pos), "keys must be pushed in order");
        self.positions.push(pos);
        self.packed += usize::from(RawKey::of_valid(&self.bytes[start..]).is_packed());
        self.starts.push(u32::try_from(start / 8).expect("a node is far smaller than 32 GiB"));
    }

    /// Overwrites the first word of the value of the last key, if it has one.
    pub(crate) fn zero_first_word_of_last_value(&mut self) {
        let Some(&start) = self.starts.last() else { return };
        let start = start as usize * 8;
        let packed = RawKey::of_valid(&self.bytes[start..]).is_packed();
        let at = start + 8 * if packed { self.format.key_u64s() } else { BKEY_U64S };
        if let Some(word) = self.bytes.get_mut(at..at + 8) {
            word.fill(0);
        }
    }

    /// The keys, searchable.
    pub fn finish(self) -> SortedKeys {
        let digester = Digester::new(self.positions.iter().copied());
        SortedKeys {
            format: self.format,
            bytes: self.bytes.into(),
            starts: self.starts.into(),
            digester,
            digests: self.positions.into_iter().map(|pos| digester.digest(pos)).collect(),
            packed: self.packed,
        }
    }
}

impl SortedKeys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The format of the packed keys.
    pub fn format(&self) -> &KeyFormat {
        &self.format
    }

    /// Key `i` as it is stored.
    #[inline]
    pub fn raw(&self, i: usize) -> RawKey<'_> {
        RawKey::of_valid(&self.bytes[self.starts[i] as usize * 8..])
    }

    /// Key `i`.
    ///
    /// # Panics
    /// If there are not that many, as an index into a slice would.
    #[inline]
    pub fn get(&self, i: usize) -> Key<'_> {
        self.format.unpack(self.raw(i))
    }

    /// Position of key `i`.
    ///
    /// # Panics
    /// If there are not that many.
    #[inline]
    pub fn pos(&self, i: usize) -> Bpos {
        self.format.unpack_pos(self.raw(i))
    }

    /// Index of the first key at or above `pos`; the number of keys if there is none.
    pub fn lower_bound(&self, pos: Bpos) -> usize {
        let digest = self.digester.digest(pos);
        let first = self.digests.partition_point(|&d| d < digest);
        // Among equal digests whole positions decide. The run of equal ones is nearly always short: gallop to its end.
        let (mut lo, mut hi, mut step) = (first, first, 1);
        while self.digests.get(hi) == Some(&digest) {
            hi = (hi + step).min(self.len());
            step *= 2;
        }
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.pos(mid) < pos { lo = mid + 1 } else { hi = mid }
        }
        lo
    }

    /// Index of the key exactly at `pos`.
    pub fn find(&self, pos: Bpos) -> Option<usize> {
        let i = self.lower_bound(pos);
        (i < self.len() && self.pos(i) == pos).then_some(i)
    }

    /// All keys, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Key<'_>> + ExactSizeIterator {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Words the keys occupy as stored: what decides whether a node is split or merged (spec 30 §11).
    pub fn u64s(&self) -> usize {
        self.bytes.len() / 8
    }

    /// Bytes of memory in use, for the accounting of a cache.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.len() + self.starts.len() * 4 + self.digests.len() * 8
    }

    /// The format for a new node that replaces one with these keys, of `node_bytes` bytes and the bounds `min` … `max`
    /// (spec 30 §4.4): the tightest one, or the old one if the keys would not fit the node with it.
    pub fn format_for_rewrite(&self, min: Bpos, max: Bpos, node_bytes: usize) -> KeyFormat {
        let mut builder = FormatBuilder::new();
        builder.add_pos(min);
        builder.add_pos(max);
        self.iter().for_each(|key| builder.add_key(&key.k));
        let new = builder.build();
        let headers_now = self.packed * self.format.key_u64s() + (self.len() - self.packed) * BKEY_U64S;
        let u64s = self.u64s() - headers_now + self.len() * new.key_u64s();
        if NODE_HEADER_BYTES + 8 * u64s < node_bytes { new } else { self.format.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::bkey::KeyBuf;
    use crate::key_type::KeyType;
    use crate::node::testing::{any_format, any_pos, near_bkeys};

    fn keys_of(format: KeyFormat, map: &BTreeMap<Bpos, KeyBuf>) -> SortedKeys {
        let mut keys = SortedKeysBuilder::with_capacity(format, map.len(), 0);
        map.values().for_each(|k| keys.push(k.as_key()));
        keys.finish()
    }

    proptest! {
        #[test]
        fn search_agrees_with_a_map(
            packed in proptest::option::of(any_format()),
            near in near_bkeys(),
            far in proptest::collection::vec(any_pos(), 0..6),
            wanted in proptest::collection::vec(any_pos(), 0..6),
        ) {
            let mut b = FormatBuilder::new();
            near.iter().for_each(|k| b.add_key(k));
            let format = packed.unwrap_or_else(|| b.build());
            let map: BTreeMap<Bpos, KeyBuf> = near.iter().map(|k| k.pos).chain(far)
                .map(|pos| (pos, KeyBuf::new(KeyType::COOKIE, pos, 3, pos.offset.to_le_bytes())))
                .collect();
            let keys = keys_of(format, &map);
            prop_assert_eq!(keys.iter().map(|k| k.to_owned()).collect::<Vec<_>>(),
                            map.values().cloned().collect::<Vec<_>>());
            for pos in map.keys().copied().chain(wanted)
                .flat_map(|p| [p.predecessor(), Some(p), p.successor()]).flatten()
            {
                let want = map.range(..pos).count();
                prop_assert_eq!(keys.lower_bound(pos), want);
                prop_assert_eq!(keys.find(pos), map.contains_key(&pos).then_some(want));
            }
        }
    }

    #[test]
    fn long_runs_of_equal_digests_are_searched() {
        // One inode far away leaves no bits of the digest for the offsets of the others.
        let map: BTreeMap<Bpos, KeyBuf> = (0..500)
            .map(|i| Bpos::new(4096, i * 3, 7))
            .chain([Bpos::new(u64::MAX, 0, 7)])
            .map(|pos| (pos, KeyBuf::new(KeyType::SET, pos, 0, [])))
            .collect();
        let keys = keys_of(KeyFormat::FULL_POSITION, &map);
        for offset in 0..1510u64 {
            let want = usize::min(offset.div_ceil(3) as usize, 500);
            assert_eq!(keys.lower_bound(Bpos::new(4096, offset, 0)), want);
        }
        assert_eq!(keys.lower_bound(Bpos::new(4095, 9, 9)), 0);
        assert_eq!(keys.lower_bound(Bpos::new(4097, 0, 0)), 500);
        assert_eq!(keys.lower_bound(Bpos::MAX), 501);
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn order_is_enforced() {
        let pos = Bpos::new(1, 1, 0);
        let key = KeyBuf::new(KeyType::SET, pos, 0, []);
        let mut keys = SortedKeysBuilder::with_capacity(KeyFormat::FULL_POSITION, 2, 0);
        keys.push(key.as_key());
        keys.push(key.as_key());
    }

    #[test]
    fn a_rewrite_keeps_the_old_format_if_the_new_one_is_too_wide() {
        // One key far away widens the format for all; a node too small for that keeps the old one.
        let mut b = FormatBuilder::new();
        (0..100).for_each(|i| b.add_key(&KeyBuf::new(KeyType::SET, Bpos::new(0, i, 0), 0, []).k));
        let old = b.build();
        assert_eq!(old.key_u64s(), 1);
        let mut keys = SortedKeysBuilder::with_capacity(old.clone(), 101, 0);
        (0..100).for_each(|i| keys.push(KeyBuf::new(KeyType::SET, Bpos::new(0, i, 0), 0, []).as_key()));
        keys.push(KeyBuf::new(KeyType::SET, Bpos::new(u64::MAX, 9, 0), 0, []).as_key());
        let keys = keys.finish();
        let (min, max) = (Bpos::MIN, Bpos::new(u64::MAX, 9, 0));
        let wide = keys.format_for_rewrite(min, max, 1 << 16);
        assert_eq!(wide.key_u64s(), 2);
        assert_eq!(keys.format_for_rewrite(min, max, NODE_HEADER_BYTES + 8 * 202), old);
        assert_eq!(keys.format_for_rewrite(min, max, NODE_HEADER_BYTES + 8 * 202 + 1), wide);
    }
}
