//! The changes of a node that are not on disk yet.
//!
//! A node in memory is two things: its keys as they are on disk, merged and immutable, and a [`Delta`]: what was inserted and
//! deleted since. At equal positions the delta wins, and one of its entries of type `deleted` hides the key below. Writing a node
//! appends the delta; when that is done, it moves into the merged keys and the delta is empty again.
//!
//! Readers walk a node while others change it. They hold a *version* of it, so changing must not touch what they see. The entries
//! therefore lie in small sorted chunks, each shared by reference: a change copies the one chunk it falls into, if
//! anybody else holds that, and is in place otherwise.
//!
//! A place in a delta is one number, chunk and index within it, so that places compare like the entries' positions.

use std::sync::Arc;

use frazil_ondisk::{Bpos, KeyBuf, KeyType};

/// Entries a chunk holds before it is cut in two.
const CHUNK_MAX: usize = 64;

/// A key that replaces, adds or (of type `deleted`) hides.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) pos: Bpos,
    /// When it came, counted in changes of the node.
    pub(crate) change: u64,
    /// Words it takes in a bset, packed with the node's format.
    pub(crate) words: u32,
    pub(crate) key: Arc<KeyBuf>,
}

impl Entry {
    pub(crate) fn is_live(&self) -> bool {
        self.key.k.ty != KeyType::DELETED
    }
}

type Chunk = Arc<Vec<Entry>>;

/// Sorted changes. Cloning one costs a reference per chunk.
#[derive(Clone, Default)]
pub(crate) struct Delta {
    /// None of them empty.
    chunks: Vec<Chunk>,
    len: usize,
    words: usize,
}

/// A place in front of an entry, or behind all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct DeltaAt(u32);

impl DeltaAt {
    fn new(chunk: usize, index: usize) -> Self {
        Self((chunk as u32) << 8 | index as u32)
    }

    fn split(self) -> (usize, usize) {
        ((self.0 >> 8) as usize, (self.0 & 0xff) as usize)
    }
}

impl Delta {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Words its entries take in a bset, tombstones that turn out not to be needed included.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// Bytes of memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.len * (size_of::<Entry>() + size_of::<KeyBuf>() + 16) + self.words * 8
    }

    /// Behind the last entry.
    pub(crate) fn end(&self) -> DeltaAt {
        DeltaAt::new(self.chunks.len(), 0)
    }

    /// In front of the first entry at or above `pos`.
    pub(crate) fn lower_bound(&self, pos: Bpos) -> DeltaAt {
        let chunk = self.chunk_of(pos);
        match self.chunks.get(chunk) {
            None => self.end(),
            Some(entries) => DeltaAt::new(chunk, entries.partition_point(|e| e.pos < pos)),
        }
    }

    /// The first chunk that ends at or above `pos`.
    fn chunk_of(&self, pos: Bpos) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_none_or(|e| e.pos < pos))
    }

    /// The entry behind a place that is not the end.
    pub(crate) fn get(&self, at: DeltaAt) -> &Entry {
        let (chunk, index) = at.split();
        &self.chunks[chunk][index]
    }

    /// The entry exactly at `pos`.
    pub(crate) fn find(&self, pos: Bpos) -> Option<&Entry> {
        let entries = self.chunks.get(self.chunk_of(pos))?;
        entries.binary_search_by(|e| e.pos.cmp(&pos)).ok().map(|i| &entries[i])
    }

    /// The place behind the entry at `at`.
    pub(crate) fn after(&self, at: DeltaAt) -> DeltaAt {
        let (chunk, index) = at.split();
        if index + 1 < self.chunks[chunk].len() {
            DeltaAt::new(chunk, index + 1)
        } else {
            DeltaAt::new(chunk + 1, 0)
        }
    }

    /// The place in front of the entry before `at`, which is not the first.
    pub(crate) fn before(&self, at: DeltaAt) -> DeltaAt {
        let (chunk, index) = at.split();
        match index.checked_sub(1) {
            Some(index) => DeltaAt::new(chunk, index),
            None => DeltaAt::new(chunk - 1, self.chunks[chunk - 1].len() - 1),
        }
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Puts an entry, replacing the one at its position, which is returned.
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.words += entry.words as usize;
        // What lies behind the last chunk belongs to it.
        let chunk = self.chunk_of(entry.pos).min(self.chunks.len().saturating_sub(1));
        let Some(entries) = self.chunks.get_mut(chunk).map(Arc::make_mut) else {
            self.chunks.push(Arc::new(vec![entry]));
            self.len += 1;
            return None;
        };
        match entries.binary_search_by(|e| e.pos.cmp(&entry.pos)) {
            Ok(i) => {
                let old = std::mem::replace(&mut entries[i], entry);
                self.words -= old.words as usize;
                Some(old)
            }
            Err(i) => {
                entries.insert(i, entry);
                self.len += 1;
                if entries.len() > CHUNK_MAX {
                    // Ascending insertion, the usual kind, leaves full chunks behind.
                    let cut = if i == entries.len() - 1 { CHUNK_MAX } else { CHUNK_MAX / 2 };
                    let right = entries.split_off(cut);
                    self.chunks.insert(chunk + 1, Arc::new(right));
                }
                None
            }
        }
    }

    /// Removes the entry at `pos`.
    pub(crate) fn remove(&mut self, pos: Bpos) -> Option<Entry> {
        let chunk = self.chunk_of(pos);
        let entries = self.chunks.get(chunk)?;
        let i = entries.binary_search_by(|e| e.pos.cmp(&pos)).ok()?;
        let entries = Arc::make_mut(&mut self.chunks[chunk]);
        let old = entries.remove(i);
        if entries.is_empty() {
            self.chunks.remove(chunk);
        }
        self.len -= 1;
        self.words -= old.words as usize;
        Some(old)
    }

    /// The entries that came after change number `change`.
    pub(crate) fn since(&self, change: u64) -> Delta {
        let mut newer = Delta::default();
        for entry in self.iter().filter(|e| e.change > change) {
            newer.push(entry.clone());
        }
        newer
    }

    /// Appends an entry above all others.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.len += 1;
        self.words += entry.words as usize;
        match self.chunks.last_mut().map(Arc::make_mut).filter(|c| c.len() < CHUNK_MAX) {
            Some(last) => last.push(entry),
            None => self.chunks.push(Arc::new(vec![entry])),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::key;

    fn entry(offset: u64, change: u64) -> Entry {
        let pos = Bpos::new(0, offset, 0);
        Entry { pos, change, words: (1 + change % 5) as u32, key: Arc::new(key(pos, change)) }
    }

    fn offsets(delta: &Delta) -> Vec<(u64, u64)> {
        delta.iter().map(|e| (e.pos.offset, e.change)).collect()
    }

    proptest! {
        /// Against a map; and what a reader holds does not change.
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0..300u64, prop::bool::weighted(0.7)), 0..600)) {
            let (mut delta, mut map) = (Delta::default(), BTreeMap::new());
            let mut held: Option<(Delta, Vec<(u64, u64)>)> = None;
            for (change, (offset, insert)) in ops.into_iter().enumerate() {
                let change = change as u64;
                if insert {
                    let old = delta.insert(entry(offset, change)).map(|e| e.change);
                    prop_assert_eq!(old, map.insert(offset, change));
                } else {
                    let old = delta.remove(Bpos::new(0, offset, 0)).map(|e| e.change);
                    prop_assert_eq!(old, map.remove(&offset));
                }
                if change.is_multiple_of(50) {
                    held = Some((delta.clone(), offsets(&delta)));
                }
            }
            prop_assert_eq!(offsets(&delta), map.iter().map(|(o, c)| (*o, *c)).collect::<Vec<_>>());
            prop_assert_eq!(delta.len(), map.len());
            prop_assert_eq!(delta.words(), map.values().map(|c| 1 + *c as usize % 5).sum::<usize>());
            if let Some((held, seen)) = held {
                prop_assert_eq!(offsets(&held), seen);
            }
            let newer: Vec<_> = map.iter().filter(|(_, c)| **c > 100).map(|(o, c)| (*o, *c)).collect();
            prop_assert_eq!(offsets(&delta.since(100)), newer);
        }

        #[test]
        fn places_move_both_ways(offsets in prop::collection::btree_set(0..1000u64, 1..300), from in 0..1000u64) {
            let mut delta = Delta::default();
            for &offset in &offsets {
                delta.insert(entry(offset, 0));
            }
            let mut at = delta.lower_bound(Bpos::new(0, from, 0));
            let begin = at;
            let mut ahead = Vec::new();
            while at < delta.end() {
                ahead.push(delta.get(at).pos.offset);
                at = delta.after(at);
            }
            prop_assert_eq!(&ahead, &offsets.range(from..).copied().collect::<Vec<_>>());
            let mut back = Vec::new();
            while at > begin {
                at = delta.before(at);
                back.push(delta.get(at).pos.offset);
            }
            back.reverse();
            prop_assert_eq!(back, ahead);
        }
    }
}
