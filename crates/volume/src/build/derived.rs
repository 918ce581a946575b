//! The b-trees about space, which are about themselves too.
//!
//! alloc, freespace, lru, backpointers and accounting follow from where everything else is. But their own nodes lie in buckets, have
//! backpointers and are counted, so what they hold depends on how many nodes they have and where those end. The way out
//! is to guess (spec 50 §9.2): assume a list of nodes, give each its place, work out all keys, and see into which nodes they would go.
//! If that is not the list assumed, assume it. Each node needs only a few keys, and a node holds hundreds, so the list is stable after
//! two or three rounds; then everything is written once.
//!
//! One thing can keep it from being stable: buckets that hold several nodes are listed in lru while they have room. If the
//! node of lru itself fills the last bucket, lru is empty and has no node, and the bucket has room again. Then the
//! place of one node is left unused, so that this bucket never fills.

use std::collections::HashMap;

use frazil_ondisk::node::{BtreePtrV2, btree_ptr_key};
use frazil_ondisk::units::{BucketIndex, Inum, NodeSeq, Sectors, Seq};
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::freespace_offset;
use frazil_ondisk::{BVersion, Bkey, Bpos, BtreeId, Key, KeyBuf, KeyType};

use super::error::Result;
use super::facts::{Both, Facts, bucket_size};
use super::space::{Class, Copies, Space};
use super::tree::{FullNode, NodeSink, Root, TreeBuilder};
use crate::derive::Rules;
use crate::derive::bucket::{self, Lists};

/// The trees, in the order in which they are laid out.
pub(super) const TREES: [BtreeId; 5] =
    [BtreeId::ALLOC, BtreeId::FREESPACE, BtreeId::LRU, BtreeId::BACKPOINTERS, BtreeId::ACCOUNTING];
/// A list that is not stable by then will not be.
const ROUNDS_MAX: usize = 16;
/// Places left unused at most.
const UNUSED_MAX: usize = 4;

/// A node that is planned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Planned {
    btree: BtreeId,
    level: u8,
    max: Bpos,
}

/// Puts nodes on a list instead of on a device.
struct Plan {
    nodes: Vec<Planned>,
    /// A pointer as long as a real one.
    entries: Vec<u8>,
}

impl NodeSink for Plan {
    fn place(&mut self, node: &FullNode<'_>) -> Result<KeyBuf> {
        self.nodes.push(Planned { btree: node.btree, level: node.level, max: node.max });
        Ok(pointer(node.max, node.min, NodeSeq(1), Sectors(1), &self.entries))
    }
}

/// The key of a pointer to a node.
pub(super) fn pointer(max: Bpos, min: Bpos, seq: NodeSeq, written: Sectors, entries: &[u8]) -> KeyBuf {
    let ptr = BtreePtrV2 { seq, sectors_written: written, range_updated: false, min_key: min, entries };
    btree_ptr_key(max, &ptr)
}

/// The pointers of a node's copies as they stand in its key.
pub(super) fn entries(copies: &Copies) -> Vec<u8> {
    copies.iter().flat_map(|ptr| ptr.to_word().to_le_bytes()).collect()
}

/// Finds the nodes that the trees will have in this space, and what these nodes imply.
///
/// # Panics
/// If there is no such list, which cannot be: see the [module](self).
pub(super) fn plan(
    rules: &Rules,
    space: &mut Space,
    known: &Facts,
    journal_seq: Seq,
) -> Result<(Vec<Planned>, Facts)> {
    for unused in 0..=UNUSED_MAX {
        if unused > 0 {
            space.place(Class::Node, rules.node)?;
        }
        let mut nodes: Vec<Planned> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let (needed, planned) = round(rules, space, known, journal_seq, &nodes)?;
            if needed == nodes {
                return Ok((nodes, planned));
            }
            nodes = needed;
        }
    }
    unreachable!("no bucket with an unused place fills, and nothing else takes keys away");
}

/// Assumes a list of nodes: what they imply, and the list that all keys then need.
fn round(
    rules: &Rules,
    space: &Space,
    known: &Facts,
    journal_seq: Seq,
    nodes: &[Planned],
) -> Result<(Vec<Planned>, Facts)> {
    let mut places = space.clone();
    // The pointers of a node that is not written, only to be as long as real ones.
    let example = entries(&space.clone().place(Class::Node, rules.node)?);
    let mut planned = Facts::default();
    for node in nodes {
        let entries = entries(&places.place(Class::Node, rules.node)?);
        // Where a node begins and how much of it is written implies nothing.
        let key = pointer(node.max, Bpos::MIN, NodeSeq(1), Sectors(1), &entries);
        planned.add(rules, node.btree, node.level + 1, key.as_key())?;
    }
    planned.sort();
    let mut plan = Plan { nodes: Vec::new(), entries: example };
    for btree in TREES {
        lay_out(rules, Both { known, planned: &planned }, btree, journal_seq, &mut plan)?;
    }
    Ok((plan.nodes, planned))
}

/// Builds one of the trees.
pub(super) fn lay_out(
    rules: &Rules,
    both: Both<'_>,
    btree: BtreeId,
    journal_seq: Seq,
    sink: &mut impl NodeSink,
) -> Result<Option<Root>> {
    let mut tree = TreeBuilder::new(btree, rules.node);
    let mut push = |key: Key<'_>| tree.push(key, sink);
    match btree {
        BtreeId::ALLOC => alloc(rules, both, &mut push)?,
        BtreeId::FREESPACE => freespace(rules, both, &mut push)?,
        BtreeId::LRU => lru(rules, both, &mut push)?,
        BtreeId::BACKPOINTERS => {
            for (pos, value) in both.backpointers() {
                push(Key { k: Bkey::new(KeyType::BACKPOINTER, pos, 0), value })?;
            }
        }
        _ => accounting(rules, both, journal_seq, &mut push)?,
    }
    tree.finish(sink)
}

type Push<'p> = &'p mut dyn FnMut(Key<'_>) -> Result<()>;

/// A key for every bucket in use (spec 50 §2.1).
fn alloc(rules: &Rules, both: Both<'_>, push: Push<'_>) -> Result<()> {
    let mut value = Vec::new();
    for (at, alloc) in both.buckets(rules) {
        value.clear();
        alloc.encode(&mut value);
        push(Key { k: Bkey::new(KeyType::ALLOC_V4, at.pos(), 0), value: &value })?;
    }
    Ok(())
}

/// A key for every run of buckets without a key in alloc (spec 50 §2.3).
fn freespace(rules: &Rules, both: Both<'_>, push: Push<'_>) -> Result<()> {
    let mut used = both.buckets(rules).peekable();
    for (dev, geometry) in rules.devices() {
        let mut free_from = geometry.first.0;
        loop {
            let next = used.next_if(|(at, _)| at.dev == dev).map(|(at, _)| at.bucket.0);
            let end = next.unwrap_or(geometry.end.0);
            if end > free_from {
                let pos = Bpos::new(dev.0.into(), freespace_offset(BucketIndex(end), 0), 0);
                push(Key { k: Bkey::new(KeyType::SET, pos, (end - free_from) as u32), value: &[] })?;
            }
            match next {
                Some(bucket) => free_from = bucket + 1,
                None => break,
            }
        }
    }
    Ok(())
}

/// A key for every bucket that is partly used (spec 50 §2.5).
fn lru(rules: &Rules, both: Both<'_>, push: Push<'_>) -> Result<()> {
    let mut listed: Vec<Bpos> = Vec::new();
    for (at, alloc) in both.buckets(rules) {
        let lists = Lists::of(at, &alloc, bucket_size(rules, at.dev), rules.version);
        listed.extend(lists.lru_read.into_iter().chain(lists.lru_fragmentation));
    }
    listed.sort_unstable();
    listed.into_iter().try_for_each(|pos| push(Key { k: Bkey::new(KeyType::SET, pos, 0), value: &[] }))
}

/// Every counter (spec 50 §9.4).
fn accounting(rules: &Rules, both: Both<'_>, journal_seq: Seq, push: Push<'_>) -> Result<()> {
    let order = Order::of(rules.version);
    let counted = both.counters().into_iter().chain(usage(rules, both));
    let mut sums: Vec<_> = counted.map(|(what, counters)| (what.encode(order), what, counters)).collect();
    sums.sort_unstable_by_key(|(pos, ..)| *pos);

    // 0 would mean that the key is to be deleted; more than this is for changes in later journal entries (spec 50 §2.8).
    let version = BVersion { hi: (journal_seq.0 >> 32) as u32, lo: journal_seq.0 << 32 | 1 };
    let mut value = Vec::new();
    let mut emit = |pos: Bpos, what: &AccountingPos, counters: [i64; 3]| {
        value.clear();
        Counters::encode(counters.into_iter().take(what.nr_counters(rules.version)), &mut value);
        push(Key { k: Bkey { version, ..Bkey::new(KeyType::ACCOUNTING, pos, 0) }, value: &value })
    };
    let mut sums = sums.into_iter().peekable();
    // In the order of positions inodes ascend: the least significant bytes of the number are in the snapshot field.
    for (inum, counters) in both.inodes() {
        let what = AccountingPos::Inum { inum: Inum(*inum) };
        let pos = what.encode(order);
        while let Some((pos, what, counters)) = sums.next_if(|(before, ..)| *before < pos) {
            emit(pos, &what, counters)?;
        }
        emit(pos, &what, *counters)?;
    }
    sums.try_for_each(|(pos, what, counters)| emit(pos, &what, counters))
}

/// What each device's buckets are used for, the free ones included.
fn usage(rules: &Rules, both: Both<'_>) -> HashMap<AccountingPos, [i64; 3]> {
    let mut sums = HashMap::new();
    let mut add = |dev, size, alloc: &Alloc, times: i64| {
        for (what, counters) in bucket::usage(dev, alloc, size) {
            let sum = sums.entry(what).or_insert([0; 3]);
            sum.iter_mut().zip(counters).for_each(|(sum, n)| *sum += n * times);
        }
    };
    let mut used = both.buckets(rules).peekable();
    for (dev, geometry) in rules.devices() {
        let mut keyed = 0;
        while let Some((_, alloc)) = used.next_if(|(at, _)| at.dev == dev) {
            add(dev, geometry.bucket, &alloc, 1);
            keyed += 1;
        }
        add(dev, geometry.bucket, &Alloc::default(), (geometry.buckets() - keyed) as i64);
    }
    sums
}
