//! The b-trees of a volume: their roots, the overlay, the nodes; and the way down to a key.
//!
//! A lookup starts at the root and takes, level by level, the child that covers the wanted position. What it arrives at is
//! a [`Place`]: a node and the range that is this node's own. Ranges are exact and do not overlap, so a cursor that has
//! used up one place continues at the position behind its range with a new descent; it needs no parents, and whatever
//! damage it meets it can only move forward. Depth is bounded by the level, which shrinks with every step.
//!
//! Roots stay in memory once read. They are the busiest nodes, and holding them apart spares every lookup the cache's
//! locks on the first level.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeBounds;
use std::sync::{Arc, OnceLock};

use frazil_journal::read;
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::{Bpos, BtreeId, DecodeError, KeyBuf, KeyType};
use parking_lot::Mutex;

use crate::LEVEL_MAX;
use crate::cache::{CacheStats, NodeCache};
use crate::cursor::Cursor;
use crate::error::{Error, Problem, ProblemKind, Result, Span};
use crate::handle::KeyHandle;
use crate::node::Node;
use crate::overlay::{LevelKeys, Overlay};
use crate::ptr::NodeId;
use crate::source::NodeSource;

/// Where a b-tree begins (spec 30 §8.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// A node.
    At {
        /// Its level.
        level: u8,
        /// The pointer to it.
        key: KeyBuf,
    },
    /// There was a root and it is lost: a journal entry without a key (spec 60 §4.4).
    Lost,
}

impl From<&read::Root> for Root {
    fn from(root: &read::Root) -> Self {
        match &root.key {
            Some(key) => Root::At { level: root.level, key: key.clone() },
            None => Root::Lost,
        }
    }
}

/// The roots of all b-trees, also of those this version does not know; a b-tree without one is empty.
pub type Roots = BTreeMap<BtreeId, Root>;

/// Problems kept for the checker; more are only counted.
const PROBLEMS_MAX: usize = 10_000;

/// The b-trees of a volume. Shared by all readers; every method may be called from any thread.
pub struct Btrees {
    roots: BTreeMap<BtreeId, RootSlot>,
    overlay: Overlay,
    source: Box<dyn NodeSource>,
    cache: NodeCache,
    problems: Mutex<ProblemLog>,
}

struct RootSlot {
    root: Root,
    /// Once it has been read.
    node: OnceLock<Arc<Node>>,
}

/// What was found wrong so far.
#[derive(Default)]
struct ProblemLog {
    list: Vec<Problem>,
    /// Nodes that have had their say. A node may be read again after it was evicted.
    seen: HashSet<NodeId>,
}

/// A node, and the range of its level that is its own.
pub(crate) struct Place {
    /// `None` where the b-tree has no nodes: it is empty but for the overlay.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) span: Span,
}

impl Btrees {
    /// The b-trees with these roots, whose nodes come from `source` and are cached up to `cache_bytes`. Nothing is read
    /// yet.
    pub fn new(roots: Roots, overlay: Overlay, source: Box<dyn NodeSource>, cache_bytes: usize) -> Self {
        let roots = roots.into_iter().map(|(btree, root)| (btree, RootSlot { root, node: OnceLock::new() }));
        let trees = Self {
            roots: roots.collect(),
            overlay,
            source,
            cache: NodeCache::new(cache_bytes),
            problems: Mutex::default(),
        };
        trees.note_keys_above_roots();
        trees
    }

    /// Keys on a level that the b-tree does not have cannot be reached from its root.
    fn note_keys_above_roots(&self) {
        for (btree, level, keys) in self.overlay.counts() {
            let top = match self.root(btree) {
                None => 0,
                Some(Root::At { level, .. }) => *level,
                Some(Root::Lost) => LEVEL_MAX,
            };
            if level > top {
                let span = Span { btree, level, min: Bpos::MIN, max: Bpos::MAX };
                self.note(vec![Problem { span, kind: ProblemKind::KeysAboveRoot { keys } }]);
            }
        }
    }

    /// The b-trees that have a root, those this version does not know included.
    pub fn roots(&self) -> impl Iterator<Item = (BtreeId, &Root)> {
        self.roots.iter().map(|(&btree, slot)| (btree, &slot.root))
    }

    /// The root of one b-tree; `None` if it has none and is empty.
    pub fn root(&self, btree: BtreeId) -> Option<&Root> {
        self.roots.get(&btree).map(|slot| &slot.root)
    }

    /// What was found wrong with the nodes read so far, oldest first, each node once. Nodes that could not be read at all
    /// are not in the list: they are errors of the lookups that wanted them.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().list.clone()
    }

    /// What the node cache holds and has done.
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// The key exactly at `pos`; whiteouts are keys here.
    ///
    /// # Errors
    /// If the node that covers `pos` cannot be had.
    pub fn get(&self, btree: BtreeId, pos: Bpos) -> Result<Option<KeyHandle>> {
        if let Some(keys) = self.overlay.level(btree, 0)
            && let Some(j) = keys.find(pos)
        {
            let live = keys.get(j).k.ty != KeyType::DELETED;
            return Ok(live.then(|| KeyHandle::in_overlay(Arc::clone(keys), j)));
        }
        let Some(node) = self.descend(btree, pos, 0)?.node else { return Ok(None) };
        Ok(node.keys().find(pos).map(|i| KeyHandle::in_node(node, i)))
    }

    /// A cursor over the keys of a b-tree within `range`, in front of the first.
    pub fn cursor(&self, btree: BtreeId, range: impl RangeBounds<Bpos>) -> Cursor<'_> {
        Cursor::new(self, btree, 0, range)
    }

    /// A cursor over the keys of one level: above 0 they are the pointers to the nodes of the level below. Levels the
    /// b-tree does not have are empty.
    pub fn level_cursor(&self, btree: BtreeId, level: u8, range: impl RangeBounds<Bpos>) -> Cursor<'_> {
        Cursor::new(self, btree, level, range)
    }

    /// The overlay of a level, if that level can be reached from the root.
    pub(crate) fn overlay(&self, btree: BtreeId, level: u8) -> Option<&LevelKeys> {
        let top = match self.root(btree) {
            Some(Root::At { level, .. }) => *level,
            Some(Root::Lost) | None => 0,
        };
        if level > top { None } else { self.overlay.level(btree, level) }
    }

    /// The node of `level` that covers `pos`.
    pub(crate) fn descend(&self, btree: BtreeId, pos: Bpos, level: u8) -> Result<Place> {
        self.descend_and(btree, pos, level, false)
    }

    /// [`Btrees::descend`]; if `ahead`, the node behind it will be wanted next, and is asked for.
    pub(crate) fn descend_and(&self, btree: BtreeId, pos: Bpos, level: u8, ahead: bool) -> Result<Place> {
        let mut span = Span { btree, level, min: Bpos::MIN, max: Bpos::MAX };
        let Some(slot) = self.roots.get(&btree) else { return Ok(Place { node: None, span }) };
        let root_level = match slot.root {
            Root::Lost => return Err(Error::RootLost(btree)),
            Root::At { level: root, .. } if root > LEVEL_MAX => {
                return Err(Error::TooDeep { btree, level: root });
            }
            Root::At { level: root, .. } => root,
        };
        if root_level < level {
            return Ok(Place { node: None, span });
        }
        span.level = root_level;
        let root = self.root_node(slot, span)?;
        if root_level == level {
            return Ok(Place { node: Some(Arc::clone(root)), span });
        }
        let mut node = self.child(root, &mut span, pos, ahead && root_level == level + 1)?;
        while span.level > level {
            let last = span.level == level + 1;
            node = self.child(&node, &mut span, pos, ahead && last)?;
        }
        Ok(Place { node: Some(node), span })
    }

    fn root_node<'a>(&self, slot: &'a RootSlot, span: Span) -> Result<&'a Arc<Node>> {
        if let Some(node) = slot.node.get() {
            return Ok(node);
        }
        let Root::At { key, .. } = &slot.root else { return Err(Error::RootLost(span.btree)) };
        let ptr = NodePtr::decode(span.btree, span.level, key.as_key())
            .map_err(|reason| Error::bad_pointer(span, reason))?;
        let node = self.load(span, &ptr)?;
        Ok(slot.node.get_or_init(|| {
            let Span { min, max, .. } = node.span();
            if (min, max) != (Bpos::MIN, Bpos::MAX) {
                self.note(vec![Problem { span, kind: ProblemKind::RootBounds { min, max } }]);
            }
            node
        }))
    }

    /// The child of `node` that covers `pos`; `span` changes from what is the node's own to what is the child's. If
    /// `ahead`, the child behind it is asked for before this one is read.
    fn child(&self, node: &Node, span: &mut Span, pos: Bpos, ahead: bool) -> Result<Arc<Node>> {
        let overlay = self.overlay.level(span.btree, span.level);
        let child = node.child(*span, overlay, pos)?;
        if ahead
            && let Some(behind) = node.child_behind(overlay, pos)
            && !self.cache.contains(NodeId::of(&behind))
        {
            self.source.will_read(&behind);
        }
        *span = child.span;
        self.load(child.span, &child.ptr)
    }

    /// The node that `ptr` leads to, from the cache or its source. `span` is what its parent gives it.
    fn load(&self, span: Span, ptr: &NodePtr<'_>) -> Result<Arc<Node>> {
        let id = NodeId::of(ptr);
        let node = match self.cache.get(id) {
            Some(node) => node,
            None => self.cache.get_or_load(id, || self.read(id, span, ptr))?,
        };
        // Two pointers with one number: the node was read, and checked, for the other one.
        let Span { min, max, .. } = node.span();
        if max != ptr.expect.max_key || ptr.expect.min_key.is_some_and(|first| first != min) {
            let reason = format!("it has the number of the node from {min} to {max}");
            return Err(Error::bad_pointer(span, DecodeError::invalid("b-tree pointer", reason)));
        }
        Ok(node)
    }

    fn read(&self, id: NodeId, span: Span, ptr: &NodePtr<'_>) -> Result<Arc<Node>> {
        let loaded = match self.source.read(span, ptr) {
            Ok(loaded) => loaded,
            Err(error) => {
                if self.problems.lock().seen.insert(id) {
                    tracing::error!("{error}");
                }
                return Err(error);
            }
        };
        let covers = Span { min: loaded.min, max: loaded.max, ..span };
        let overlay = self.overlay.level(span.btree, span.level);
        let (node, of_children) = Node::new(covers, loaded.keys, overlay);
        let mut problems = loaded.problems;
        problems.extend(of_children);
        self.report(id, span, problems);
        Ok(Arc::new(node))
    }

    /// Notes what is wrong with a node, once.
    fn report(&self, id: NodeId, span: Span, problems: Vec<ProblemKind>) {
        if !problems.is_empty() && self.problems.lock().seen.insert(id) {
            self.note(problems.into_iter().map(|kind| Problem { span, kind }).collect());
        }
    }

    /// Logs problems and keeps them for the checker.
    fn note(&self, problems: Vec<Problem>) {
        for problem in &problems {
            tracing::warn!("{problem}");
        }
        let list = &mut self.problems.lock().list;
        let room = PROBLEMS_MAX.saturating_sub(list.len());
        list.extend(problems.into_iter().take(room));
    }
}
