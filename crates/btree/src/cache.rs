//! The node cache.
//!
//! A node is read once, verified, merged, and then shared by everybody who looks at it. The cache keeps the [`NodeCell`]s of as
//! many as fit its limit in bytes. It is keyed by [`NodeId`], which contains the random number every node gets when it is
//! made, so a node that replaces another, even on the same sectors, is another entry.
//!
//! *Lookups do not wait for each other.* The map is cut into shards by that random number; a hit takes its shard's lock
//! for reading and marks the entry as used with one atomic store.
//!
//! *A missing node is read by one thread.* The first to miss leaves a [`Loading`] entry and reads; who comes later waits
//! for the result, good or bad. A failure is not remembered: the next lookup tries again.
//!
//! *Eviction is a clock.* Each shard has a ring of its entries with a hand. When the limit is exceeded, the hands go
//! round, shard after shard: an entry used since the last round loses a life, one without lives is dropped. Interior
//! nodes are given more lives than leaves, because they are worth more. A cell that somebody holds stays, because of a node there must
//! be one cell only: roots, nodes with changes that are not on disk (the engine holds those), and what a transaction has
//! read. So the limit may be exceeded by what is in use at the moment. Readers hold versions, not cells, and do not count.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::cell::NodeCell;
use crate::error::Result;
use crate::ptr::NodeId;

/// Shards; more than threads that look things up at the same time.
const SHARDS: usize = 16;
/// Rounds of the clock a leaf survives without being used.
const LIVES_LEAF: u8 = 1;
/// Rounds of the clock an interior node survives without being used.
const LIVES_INTERIOR: u8 = 4;

/// Nodes in memory, bounded in bytes. See the [module](self).
pub(crate) struct NodeCache {
    shards: [RwLock<Shard>; SHARDS],
    bytes_max: usize,
    bytes: AtomicUsize,
    /// The shard whose hand moves next.
    sweep: AtomicUsize,
    misses: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Default)]
struct Shard {
    map: HashMap<NodeId, Slot>,
    /// The ready entries of `map`, in the order of the clock.
    ring: Vec<NodeId>,
    hand: usize,
    /// Counted here and not for the whole cache, so that hits in different shards share no cache line.
    hits: AtomicU64,
}

enum Slot {
    Ready { cell: Arc<NodeCell>, lives: AtomicU8, charged: usize },
    Loading(Arc<Loading>),
}

/// A node somebody is reading right now.
#[derive(Default)]
struct Loading {
    /// `Some(None)` when the reader gave up without a result (it panicked).
    outcome: Mutex<Option<Option<Result<Arc<NodeCell>>>>>,
    done: Condvar,
}

/// What a cache holds and has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes of the nodes held.
    pub bytes: usize,
    /// Limit for `bytes`.
    pub bytes_max: usize,
    /// Nodes held.
    pub nodes: usize,
    /// Lookups that found their node.
    pub hits: u64,
    /// Lookups that had to read it, or to wait for somebody who did.
    pub misses: u64,
    /// Nodes dropped to stay below the limit.
    pub evictions: u64,
}

impl NodeCache {
    /// An empty cache that holds at most `bytes_max` bytes of nodes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            bytes_max,
            bytes: AtomicUsize::new(0),
            sweep: AtomicUsize::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    fn shard(&self, id: NodeId) -> &RwLock<Shard> {
        &self.shards[(id.seq.0 ^ (id.seq.0 >> 32)) as usize % SHARDS]
    }

    /// The node, if it is in memory.
    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<NodeCell>> {
        let shard = self.shard(id).read();
        let Some(Slot::Ready { cell, lives, .. }) = shard.map.get(&id) else { return None };
        lives.store(lives_of(id), Relaxed);
        shard.hits.fetch_add(1, Relaxed);
        Some(Arc::clone(cell))
    }

    /// Whether the node is in memory, or being read. Does not count as a use.
    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.shard(id).read().map.contains_key(&id)
    }

    /// The node, read with `load` if it is not in memory. If another thread is reading it, waits for that one's result.
    pub(crate) fn get_or_load(
        &self,
        id: NodeId,
        load: impl FnOnce() -> Result<Arc<NodeCell>>,
    ) -> Result<Arc<NodeCell>> {
        if let Some(node) = self.get(id) {
            return Ok(node);
        }
        self.misses.fetch_add(1, Relaxed);
        // Reading a node, by this thread or another, takes a while even when its bytes are in memory.
        frazil_device::waiting::about_to_wait();
        loop {
            let (loading, mine) = match self.shard(id).write().map.entry(id) {
                Entry::Occupied(slot) => match slot.get() {
                    Slot::Ready { cell, .. } => return Ok(Arc::clone(cell)),
                    Slot::Loading(loading) => (Arc::clone(loading), false),
                },
                Entry::Vacant(slot) => {
                    let loading = Arc::new(Loading::default());
                    slot.insert(Slot::Loading(Arc::clone(&loading)));
                    (loading, true)
                }
            };
            if mine {
                return Turn { cache: self, id, loading: &loading, outcome: None }.take(load);
            }
            let mut outcome = loading.outcome.lock();
            loading.done.wait_while(&mut outcome, |o| o.is_none());
            if let Some(Some(result)) = outcome.as_ref() {
                return result.clone();
            }
        }
    }

    /// Adds the cell of a node that was just made.
    pub(crate) fn insert(&self, cell: Arc<NodeCell>) {
        let (id, charged) = (cell.id(), cell.memory_bytes());
        let mut shard = self.shard(id).write();
        shard.map.insert(id, Slot::Ready { cell, lives: AtomicU8::new(lives_of(id)), charged });
        shard.ring.push(id);
        drop(shard);
        self.bytes.fetch_add(charged, Relaxed);
    }

    /// Forgets a node that is no longer part of a tree.
    pub(crate) fn remove(&self, id: NodeId) {
        let mut shard = self.shard(id).write();
        shard.ring.retain(|&other| other != id);
        if let Some(Slot::Ready { charged, .. }) = shard.map.remove(&id) {
            self.bytes.fetch_sub(charged, Relaxed);
        }
    }

    /// Counts the bytes of a node anew, after it changed.
    pub(crate) fn recharge(&self, id: NodeId) {
        let mut shard = self.shard(id).write();
        if let Some(Slot::Ready { cell, charged, .. }) = shard.map.get_mut(&id) {
            let now = cell.memory_bytes();
            let before = std::mem::replace(charged, now);
            self.bytes.fetch_add(now, Relaxed);
            self.bytes.fetch_sub(before, Relaxed);
        }
        drop(shard);
        self.evict();
    }

    /// Limit of the bytes held.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Drops nodes until the limit is kept or everything has lost its lives.
    fn evict(&self) {
        for _ in 0..SHARDS * usize::from(LIVES_INTERIOR + 1) {
            if self.bytes.load(Relaxed) <= self.bytes_max {
                return;
            }
            let shard = &self.shards[self.sweep.fetch_add(1, Relaxed) % SHARDS];
            let mut shard = shard.write();
            for _ in 0..shard.ring.len() {
                if self.bytes.load(Relaxed) <= self.bytes_max {
                    return;
                }
                if let Some(bytes) = shard.advance() {
                    self.bytes.fetch_sub(bytes, Relaxed);
                    self.evictions.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// What the cache holds and has done.
    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            bytes: self.bytes.load(Relaxed),
            bytes_max: self.bytes_max,
            nodes: self.shards.iter().map(|s| s.read().ring.len()).sum(),
            hits: self.shards.iter().map(|s| s.read().hits.load(Relaxed)).sum(),
            misses: self.misses.load(Relaxed),
            evictions: self.evictions.load(Relaxed),
        }
    }
}

impl Shard {
    /// Moves the hand over one entry; returns the bytes given back if that dropped it.
    fn advance(&mut self) -> Option<usize> {
        if self.hand >= self.ring.len() {
            self.hand = 0;
        }
        let id = *self.ring.get(self.hand)?;
        if let Some(Slot::Ready { lives, cell, .. }) = self.map.get(&id) {
            let left = lives.load(Relaxed);
            // New holders would have to come through the shard, which is locked.
            if left > 0 || Arc::strong_count(cell) > 1 {
                lives.store(left.saturating_sub(1), Relaxed);
                self.hand += 1;
                return None;
            }
        }
        self.ring.swap_remove(self.hand);
        match self.map.remove(&id) {
            Some(Slot::Ready { charged, .. }) => Some(charged),
            _ => unreachable!("the ring names ready entries only"),
        }
    }
}

fn lives_of(id: NodeId) -> u8 {
    if id.level == 0 { LIVES_LEAF } else { LIVES_INTERIOR }
}

/// The turn of the one thread that reads a node. Dropping it puts the result in the map, or takes the `Loading` entry
/// out of it, and wakes who waits; also when `load` panics.
struct Turn<'a> {
    cache: &'a NodeCache,
    id: NodeId,
    loading: &'a Loading,
    outcome: Option<Result<Arc<NodeCell>>>,
}

impl Turn<'_> {
    fn take(mut self, load: impl FnOnce() -> Result<Arc<NodeCell>>) -> Result<Arc<NodeCell>> {
        let result = load();
        self.outcome = Some(result.clone());
        result
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let mut shard = self.cache.shard(self.id).write();
        if let Some(Ok(cell)) = &outcome {
            let (lives, charged) = (AtomicU8::new(lives_of(self.id)), cell.memory_bytes());
            shard.map.insert(self.id, Slot::Ready { cell: Arc::clone(cell), lives, charged });
            shard.ring.push(self.id);
            self.cache.bytes.fetch_add(charged, Relaxed);
        } else {
            shard.map.remove(&self.id);
        }
        drop(shard);
        *self.loading.outcome.lock() = Some(outcome);
        self.loading.done.notify_all();
        self.cache.evict();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use frazil_ondisk::node::{KeyFormat, SortedKeysBuilder};
    use frazil_ondisk::units::{NodeSeq, Sectors};
    use frazil_ondisk::{Bpos, BtreeId};

    use super::*;
    use crate::error::{Error, Span};
    use crate::node::{Node, NodeFacts};

    fn id(level: u8, seq: u64) -> NodeId {
        NodeId { btree: BtreeId::LRU, level, seq: NodeSeq(seq) }
    }

    /// An empty leaf; all of these are of one size.
    fn node(id: NodeId) -> Arc<NodeCell> {
        let span = Span { btree: BtreeId::LRU, level: 0, min: Bpos::MIN, max: Bpos::MAX };
        let keys = SortedKeysBuilder::with_capacity(KeyFormat::CURRENT, 0, 0).finish();
        Arc::new(NodeCell::new(
            id,
            Node::new(NodeFacts { span, counter: 0, written: Sectors(8) }, keys, None).0,
        ))
    }

    #[test]
    fn the_limit_is_kept_and_interior_nodes_outlive_leaves() {
        let size = node(id(0, 1)).memory_bytes();
        let cache = NodeCache::new(size * 40);
        for seq in 0..20 {
            cache.get_or_load(id(1, seq), || Ok(node(id(1, seq)))).unwrap();
        }
        for seq in 20..60 {
            cache.get_or_load(id(0, seq), || Ok(node(id(0, seq)))).unwrap();
            assert!(cache.stats().bytes <= size * 41, "one may be in use");
        }
        assert!(cache.stats().nodes <= 41);
        assert!(cache.stats().evictions >= 19);
        let interior = (0..20).filter(|&seq| cache.get(id(1, seq)).is_some()).count();
        assert_eq!(interior, 20, "the leaves went first");
    }

    #[test]
    fn a_cache_without_room_still_serves() {
        let cache = NodeCache::new(0);
        for seq in 0..3 {
            assert!(cache.get_or_load(id(0, seq), || Ok(node(id(0, seq)))).is_ok());
        }
        assert!(cache.stats().nodes <= 1, "the last one was in use");
        assert_eq!(cache.stats().misses, 3);
    }

    #[test]
    fn one_thread_reads_and_all_get_the_result() {
        let cache = NodeCache::new(1 << 20);
        let loads = AtomicUsize::new(0);
        let start = Barrier::new(8);
        let nodes: Vec<Arc<NodeCell>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        cache.get_or_load(id(0, 7), || {
                            loads.fetch_add(1, Relaxed);
                            thread::sleep(std::time::Duration::from_millis(20));
                            Ok(node(id(0, 7)))
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
        });
        assert_eq!(loads.load(Relaxed), 1);
        assert!(nodes.iter().all(|n| Arc::ptr_eq(n, &nodes[0])));
    }

    #[test]
    fn a_failure_reaches_who_waits_and_is_forgotten() {
        let cache = NodeCache::new(1 << 20);
        let error = Error::RootLost(BtreeId::LRU);
        let reading = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let got = cache.get_or_load(id(0, 7), || {
                    reading.wait();
                    while cache.stats().misses < 2 {
                        thread::yield_now();
                    }
                    thread::sleep(std::time::Duration::from_millis(50));
                    Err(error.clone())
                });
                assert_eq!(got.err(), Some(error.clone()));
            });
            reading.wait();
            let got = cache.get_or_load(id(0, 7), || Err(error.clone()));
            assert_eq!(got.err(), Some(error.clone()));
        });
        assert!(cache.get_or_load(id(0, 7), || Ok(node(id(0, 7)))).is_ok());
    }

    #[test]
    fn a_panic_while_reading_leaves_the_turn_to_others() {
        let cache = NodeCache::new(1 << 20);
        let reading = Barrier::new(2);
        thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _ = cache.get_or_load(id(0, 7), || {
                    reading.wait();
                    panic!("on purpose")
                });
            });
            reading.wait();
            assert!(cache.get_or_load(id(0, 7), || Ok(node(id(0, 7)))).is_ok());
            assert!(panicking.join().is_err());
        });
    }
}
