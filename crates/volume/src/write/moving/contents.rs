//! What is in a bucket, and which buckets are worth emptying.
//!
//! Backpointers say which keys point into a bucket (spec 50 §2.6). They are written behind and looked at without any lock, so they are hints: each
//! key is read, and only what really points into the bucket counts. What is overlooked is found the next time.
//!
//! Keys that share a payload (an extent that was cut in two) are found together: if the payload moves as a whole, it moves once.

use frazil_btree::write::{CommitError, Engine};
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::units::{DevIndex, Gen, Sectors};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::backpointer::{self, Backpointer};
use frazil_ondisk::values::extent::{Crc, ExtentPtr, Replica};
use frazil_ondisk::values::positions::{DevBucket, Lru, LruEntry};
use frazil_ondisk::{Bpos, BtreeId, DataType, Key, KeyBuf, KeyType};

use super::rewrite::copies;
use crate::derive::Rules;

/// Entries of the list of fragmented buckets looked at for one round.
const LISTED_MAX: usize = 1024;

/// A bucket that is to be emptied, in the generation in which it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Victim {
    pub(super) at: DevBucket,
    pub(super) generation: Gen,
}

/// A pointer into the bucket, and the key it is in.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) btree: BtreeId,
    pub(super) key: KeyBuf,
    pub(super) replica: Replica,
}

/// A node of a b-tree in the bucket.
pub(super) struct NodeAt {
    pub(super) btree: BtreeId,
    pub(super) level: u8,
    /// The last position it covers.
    pub(super) pos: Bpos,
}

/// What is in a bucket.
#[derive(Default)]
pub(super) struct Contents {
    /// Pointers to data, those that share a payload together, in the order of the bucket.
    pub(super) payloads: Vec<Vec<Item>>,
    pub(super) nodes: Vec<NodeAt>,
    /// Something that cannot be moved: a pointer of a stripe.
    pub(super) fixed: bool,
}

impl Victim {
    /// Whether a pointer leads into the bucket and is not merely a copy that may be dropped.
    pub(super) fn is_in(&self, rules: &Rules, ptr: &ExtentPtr) -> bool {
        !ptr.cached
            && ptr.generation == self.generation
            && rules.bucket_of(ptr.dev, ptr.offset) == Some(self.at)
    }
}

/// The state of a bucket; that of one that was never used if it has no key.
pub(super) fn state(engine: &Engine, at: DevBucket) -> Result<Alloc, CommitError> {
    let key = engine.trees().get(BtreeId::ALLOC, at.pos())?;
    let Some(key) = key.as_ref().map(frazil_btree::KeyHandle::key) else { return Ok(Alloc::default()) };
    Alloc::decode(key.k.ty, key.value).map_err(|e| CommitError::Inconsistent(format!("alloc key {key}: {e}")))
}

/// Whether a bucket in that state holds something that can be moved away, to some gain.
fn is_movable(alloc: &Alloc, bucket: Sectors) -> bool {
    matches!(alloc.data_type, DataType::USER | DataType::BTREE)
        && alloc.stripe_sectors == 0
        && (1..bucket.0).contains(&alloc.used_sectors())
}

/// Up to `max` buckets of a device that hold least, the emptiest first, of those that `may` be emptied. What the list is about must be in the b-trees, not in
/// the buffer.
pub(super) fn victims(
    engine: &Engine,
    rules: &Rules,
    dev: DevIndex,
    max: usize,
    may: impl Fn(&Victim) -> bool,
) -> Result<Vec<Victim>, CommitError> {
    let Some(geometry) = rules.geometry(dev) else { return Ok(Vec::new()) };
    let lru = Lru::fragmentation(dev, rules.version);
    let at = |time, target| LruEntry { lru, time, target }.pos();
    let mut cursor = engine.trees().cursor(BtreeId::LRU, at(0, 0)..=at(u64::MAX, u64::MAX));
    let mut found = Vec::new();
    for _ in 0..LISTED_MAX {
        let Some(key) = cursor.next()? else { break };
        let listed = DevBucket::from_u64(LruEntry::from_pos(key.k.pos).target);
        let Some(at) = listed.filter(|at| at.dev == dev) else { continue };
        let alloc = state(engine, at)?;
        let victim = Victim { at, generation: alloc.generation };
        if is_movable(&alloc, geometry.bucket) && may(&victim) {
            found.push(victim);
            if found.len() == max {
                break;
            }
        }
    }
    Ok(found)
}

/// What is in a bucket. The same holds for the buffer.
pub(super) fn contents(engine: &Engine, rules: &Rules, victim: &Victim) -> Result<Contents, CommitError> {
    let mut contents = Contents::default();
    let Some(geometry) = rules.geometry(victim.at.dev) else { return Ok(contents) };
    let start = Sectors(victim.at.bucket.0 * geometry.bucket.0);
    let end = Sectors(start.0 + geometry.bucket.0);
    let at = |sector| backpointer::position(victim.at.dev, sector, 0, rules.backpointer_shift);
    let mut cursor = engine.trees().cursor(BtreeId::BACKPOINTERS, at(start)..at(end));
    while let Some(key) = cursor.next()? {
        if key.k.ty != KeyType::BACKPOINTER {
            continue;
        }
        let to = Backpointer::decode(key.value)
            .map_err(|e| CommitError::Inconsistent(format!("backpointer {key}: {e}")))?;
        match to.level.checked_sub(1) {
            Some(level) => contents.nodes.push(NodeAt { btree: to.btree, level, pos: to.pos }),
            None => contents.add(engine, rules, victim, &to)?,
        }
    }
    Ok(contents)
}

impl Contents {
    /// Adds the key that a backpointer leads to, if it does point into the bucket.
    fn add(
        &mut self,
        engine: &Engine,
        rules: &Rules,
        victim: &Victim,
        to: &Backpointer,
    ) -> Result<(), CommitError> {
        let Some(handle) = engine.trees().get(to.btree, to.pos)? else { return Ok(()) };
        let key = handle.key().to_owned();
        let copies = copies(&key)
            .map_err(|e| CommitError::Inconsistent(format!("{} {}: {e}", to.btree, key.k.pos)))?;
        let Some(replica) = copies.into_iter().find(|copy| victim.is_in(rules, &copy.ptr)) else {
            return Ok(());
        };
        if replica.stripe.is_some() {
            self.fixed = true;
            return Ok(());
        }
        let item = Item { btree: to.btree, key, replica };
        match self.payloads.last_mut() {
            Some(items) if items.iter().any(|other| other.is_same_key(&item)) => {}
            Some(items) if items[0].shares_payload(&item) => items.push(item),
            _ => self.payloads.push(vec![item]),
        }
        Ok(())
    }
}

impl Item {
    fn is_same_key(&self, other: &Item) -> bool {
        (self.btree, self.key.k.pos) == (other.btree, other.key.k.pos)
    }

    /// Whether both are parts of one payload.
    fn shares_payload(&self, other: &Item) -> bool {
        let whole = |item: &Item| Crc { offset: 0, ..item.replica.crc };
        self.replica.crc.is_encoded()
            && self.replica.ptr == other.replica.ptr
            && self.key.k.version == other.key.k.version
            && whole(self) == whole(other)
    }
}

impl NodeAt {
    /// Whether the pointer to the node leads into the bucket.
    pub(super) fn is_in(&self, rules: &Rules, victim: &Victim, pointer: Key<'_>) -> bool {
        pointer.k.pos == self.pos
            && NodePtr::decode(self.btree, self.level, pointer)
                .is_ok_and(|node| node.ptrs().any(|ptr| victim.is_in(rules, &ptr)))
    }
}
