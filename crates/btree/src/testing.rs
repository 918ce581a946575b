//! Trees in memory, for the tests of this crate.
//!
//! [`Forest`] builds multi-level trees out of keys and plays the part of the devices. It can also change a tree the way a
//! running system does between two journal replays: split and merge leaves by putting pointers into the overlay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use frazil_ondisk::node::{BadNode, BtreePtrV2, KeyFormat, NodePtr, SortedKeysBuilder, btree_ptr_key};
use frazil_ondisk::units::{DevIndex, Gen, NodeSeq, Sectors};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use parking_lot::Mutex;

use crate::error::{Error, NodePlace, ReplicaFailure, Result, Span, Unreadable};
use crate::overlay::Overlay;
use crate::source::{LoadedNode, NodeSource};
use crate::trees::{Btrees, Root, Roots};

/// A key with a value that can be told from others.
pub(crate) fn key(pos: Bpos, value: u64) -> KeyBuf {
    KeyBuf::new(KeyType::COOKIE, pos, 0, value.to_le_bytes())
}

/// A tombstone of the journal.
pub(crate) fn deleted(pos: Bpos) -> KeyBuf {
    KeyBuf::new(KeyType::DELETED, pos, 0, [])
}

#[derive(Clone)]
struct MemNode {
    min: Bpos,
    max: Bpos,
    keys: Vec<KeyBuf>,
}

/// Nodes in memory, and the roots and overlay that go with them.
#[derive(Clone, Default)]
pub(crate) struct Forest {
    nodes: HashMap<NodeSeq, MemNode>,
    pub(crate) roots: Roots,
    overlay: BTreeMap<(BtreeId, u8), BTreeMap<Bpos, KeyBuf>>,
    /// Nodes that cannot be read.
    pub(crate) bad: HashSet<NodeSeq>,
    pub(crate) reads: Arc<AtomicUsize>,
    /// Nodes that were asked for in advance, in order.
    pub(crate) asked: Arc<Mutex<Vec<NodeSeq>>>,
}

impl Forest {
    /// Adds a node and returns the pointer to it.
    pub(crate) fn node(&mut self, min: Bpos, max: Bpos, keys: Vec<KeyBuf>) -> KeyBuf {
        let seq = NodeSeq(self.nodes.len() as u64 + 1);
        self.nodes.insert(seq, MemNode { min, max, keys });
        pointer(seq, min, max)
    }

    /// Builds a tree of `keys` (ascending) with at most `fan` keys in a node.
    pub(crate) fn plant(&mut self, btree: BtreeId, keys: &[KeyBuf], fan: usize) {
        let mut level = 0;
        let mut keys = keys.to_vec();
        loop {
            let mut pointers = Vec::new();
            let mut min = Bpos::MIN;
            let groups: Vec<Vec<KeyBuf>> = keys.chunks(fan).map(<[KeyBuf]>::to_vec).collect();
            let last = groups.len().saturating_sub(1);
            for (i, group) in groups.into_iter().enumerate() {
                let max =
                    if i == last { Bpos::MAX } else { group.last().expect("chunks are not empty").k.pos };
                pointers.push(self.node(min, max, group));
                min = max.successor().unwrap_or(Bpos::MAX);
            }
            if pointers.is_empty() {
                pointers.push(self.node(Bpos::MIN, Bpos::MAX, Vec::new()));
            }
            if let [root] = &pointers[..] {
                self.roots.insert(btree, Root::At { level, key: root.clone() });
                return;
            }
            keys = pointers;
            level += 1;
        }
    }

    /// Puts a key into the journal.
    pub(crate) fn journal(&mut self, btree: BtreeId, level: u8, key: KeyBuf) {
        self.overlay.entry((btree, level)).or_default().insert(key.k.pos, key);
    }

    /// The pointers of level 1, journal included: what a descent should find.
    fn leaves(&self, btree: BtreeId) -> Vec<KeyBuf> {
        let Some(Root::At { level, key }) = self.roots.get(&btree) else { return Vec::new() };
        let mut pointers = vec![key.clone()];
        for level in (1..=*level).rev() {
            let mut below = BTreeMap::new();
            for pointer in pointers {
                let node = &self.nodes[&seq_of(&pointer)];
                below.extend(node.keys.iter().map(|k| (k.k.pos, k.clone())));
            }
            if let Some(changes) = self.overlay.get(&(btree, level)) {
                below.extend(changes.iter().map(|(pos, k)| (*pos, k.clone())));
            }
            pointers = below.into_values().filter(|k| k.k.ty != KeyType::DELETED).collect();
        }
        pointers
    }

    /// Replaces the `which`-th leaf by two new ones, in the journal only. Does nothing to a root.
    pub(crate) fn split(&mut self, btree: BtreeId, which: usize) {
        let leaves = self.leaves(btree);
        if leaves.len() < 2 {
            return;
        }
        let node = self.nodes[&seq_of(&leaves[which % leaves.len()])].clone();
        if node.keys.len() < 2 {
            return;
        }
        let (left, right) = node.keys.split_at(node.keys.len() / 2);
        let middle = left.last().expect("half of at least two").k.pos;
        let left = self.node(node.min, middle, left.to_vec());
        let right = self.node(middle.successor().expect("not the last"), node.max, right.to_vec());
        self.journal(btree, 1, left);
        self.journal(btree, 1, right);
    }

    /// Replaces the `which`-th leaf and the one behind it by one, in the journal only, if they have one parent.
    pub(crate) fn merge(&mut self, btree: BtreeId, which: usize) {
        let leaves = self.leaves(btree);
        let Some(pair) = leaves.windows(2).nth(which % leaves.len().max(1)) else { return };
        let (left, right) = (&self.nodes[&seq_of(&pair[0])], &self.nodes[&seq_of(&pair[1])]);
        // A parent cannot end in the middle of a node.
        let parent_ends = |pos| self.nodes.values().any(|n| n.max == pos && !is_leaf(n));
        if parent_ends(left.max) {
            return;
        }
        let keys = left.keys.iter().chain(&right.keys).cloned().collect();
        let (min, max) = (left.min, right.max);
        let gone = left.max;
        let merged = self.node(min, max, keys);
        self.journal(btree, 1, deleted(gone));
        self.journal(btree, 1, merged);
    }

    /// The trees, with their own copy of the nodes.
    pub(crate) fn trees(&self, cache_bytes: usize) -> Btrees {
        let mut overlay = Overlay::empty();
        for (&(btree, level), keys) in &self.overlay {
            overlay.set(btree, level, keys.values().map(KeyBuf::as_key));
        }
        Btrees::new(self.roots.clone(), overlay, Box::new(self.clone()), cache_bytes)
    }
}

fn is_leaf(node: &MemNode) -> bool {
    node.keys.first().is_none_or(|k| k.k.ty != KeyType::BTREE_PTR_V2)
}

/// A pointer to a node on device 0.
pub(crate) fn pointer(seq: NodeSeq, min: Bpos, max: Bpos) -> KeyBuf {
    let replica = ExtentPtr::new(DevIndex(0), Sectors(seq.0 * 8), Gen(0)).to_word().to_le_bytes();
    let value = BtreePtrV2 {
        seq,
        sectors_written: Sectors(8),
        range_updated: false,
        min_key: min,
        entries: &replica,
    };
    btree_ptr_key(max, &value)
}

/// The number in a pointer.
pub(crate) fn seq_of(pointer: &KeyBuf) -> NodeSeq {
    BtreePtrV2::decode(&pointer.value).expect("made by these tests").seq
}

impl NodeSource for Forest {
    fn will_read(&self, ptr: &NodePtr<'_>) {
        self.asked.lock().extend(ptr.expect.seq);
    }

    fn read(&self, span: Span, ptr: &NodePtr<'_>) -> Result<LoadedNode> {
        self.reads.fetch_add(1, Relaxed);
        let seq = ptr.expect.seq.expect("these tests use the new form");
        let node = self.nodes.get(&seq).filter(|node| {
            let begins = ptr.expect.min_key.is_none_or(|min| min == node.min);
            begins && ptr.expect.max_key == node.max && !self.bad.contains(&seq)
        });
        let Some(node) = node else {
            let place = NodePlace { dev: DevIndex(0), name: "memory".into(), sector: Sectors(seq.0 * 8) };
            let failure = ReplicaFailure::Damaged { place, reason: BadNode::TooShort(0) };
            return Err(Error::Unreadable(Box::new(Unreadable { span, failures: vec![failure] })));
        };
        let mut keys = SortedKeysBuilder::with_capacity(KeyFormat::FULL_POSITION, node.keys.len(), 0);
        node.keys.iter().for_each(|k| keys.push(k.as_key()));
        Ok(LoadedNode {
            min: node.min,
            max: node.max,
            counter: 0,
            written: Sectors(8),
            keys: keys.finish(),
            problems: Vec::new(),
        })
    }
}
