//! A node that can change.
//!
//! A [`NodeCell`] is what the cache holds of a node: its current version, replaced or changed in place by writers, and a short log
//! of what changed. A reader takes a version and needs nothing else. Who read in order to write remembers the number of the last
//! change it saw, and later asks whether anything in the range it read has changed since.
//!
//! Only the engine changes cells, under its commit lock, so a reader waits here for a pointer's exchange at most.

use std::sync::Arc;

use frazil_ondisk::{Bpos, KeyBuf};
use parking_lot::RwLock;

use crate::node::Node;
use crate::ptr::NodeId;

/// Changes remembered by position; who saw an older state has to assume the worst.
const LOG: usize = 64;

/// The place of a node in memory. See the [module](self).
pub(crate) struct NodeCell {
    id: NodeId,
    current: RwLock<Current>,
}

struct Current {
    node: Arc<Node>,
    /// Position of change number `n` at `n % LOG`. Made with the first change.
    log: Option<Box<[Bpos; LOG]>>,
    /// Another node has taken its place.
    replaced: bool,
}

impl NodeCell {
    pub(crate) fn new(id: NodeId, node: Node) -> Self {
        let current = Current { node: Arc::new(node), log: None, replaced: false };
        Self { id, current: RwLock::new(current) }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// The current version.
    #[inline]
    pub(crate) fn load(&self) -> Arc<Node> {
        Arc::clone(&self.current.read().node)
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<NodeCell>() + self.current.read().node.memory_bytes()
    }

    /// Whether something in `min..=max` is no longer as it was after change number `since`.
    pub(crate) fn changed_within(&self, since: u64, min: Bpos, max: Bpos) -> bool {
        let current = self.current.read();
        let now = current.node.change();
        match &current.log {
            _ if current.replaced => true,
            _ if now == since => false,
            Some(log) if now - since <= LOG as u64 => {
                (since + 1..=now).any(|n| (min..=max).contains(&log[n as usize % LOG]))
            }
            _ => true,
        }
    }

    /// Puts a key, see [`Node::put`]; returns the words the changes take now.
    pub(crate) fn put(&self, key: Arc<KeyBuf>, writing: bool) -> usize {
        let mut current = self.current.write();
        let pos = key.k.pos;
        let node = Arc::make_mut(&mut current.node);
        node.put(key, writing);
        let (change, words) = (node.change(), node.delta().words());
        let log = current.log.get_or_insert_with(|| Box::new([Bpos::MIN; LOG]));
        log[change as usize % LOG] = pos;
        words
    }

    /// Replaces the current version by what `with` makes of it; what the keys are does not change.
    pub(crate) fn rebase(&self, with: impl FnOnce(&mut Node)) {
        with(Arc::make_mut(&mut self.current.write().node));
    }

    /// Another node has taken its place: what was read here no longer counts.
    pub(crate) fn replace(&self) {
        self.current.write().replaced = true;
    }

    pub(crate) fn is_replaced(&self) -> bool {
        self.current.read().replaced
    }
}
