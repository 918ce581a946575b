//! The b-trees of a volume: their roots, the overlay, the nodes; and the way down to a key.
//!
//! A lookup starts at the root and takes, level by level, the child that covers the wanted position. What it arrives at is
//! a [`Place`]: a node and the range that is this node's own. Ranges are exact and do not overlap, so a cursor that has
//! used up one place continues at the position behind its range with a new descent; it needs no parents, and whatever
//! damage it meets it can only move forward. Depth is bounded by the level, which shrinks with every step.
//!
//! Roots stay in memory once read. They are the busiest nodes, and holding them apart spares every lookup the cache's
//! locks on the first level.
//!
//! While somebody writes, a node may be replaced between two steps of a descent, and its place on disk used again. A descent that
//! fails begins again if the shape of the trees has changed meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use frazil_journal::read;
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::{Bpos, BtreeId, DecodeError, KeyBuf, KeyType};
use parking_lot::{Mutex, RwLock};

use crate::LEVEL_MAX;
use crate::cache::{CacheStats, NodeCache};
use crate::cell::NodeCell;
use crate::cursor::{Cursor, Lens};
use crate::error::{Error, Problem, ProblemKind, Result, Span};
use crate::handle::KeyHandle;
use crate::node::{Node, NodeFacts};
use crate::overlay::{LevelKeys, Overlay};
use crate::ptr::NodeId;
use crate::source::NodeSource;
use crate::write::CommitError;

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
    roots: RwLock<BTreeMap<BtreeId, Arc<RootSlot>>>,
    overlay: Overlay,
    source: Box<dyn NodeSource>,
    pub(crate) cache: NodeCache,
    problems: Mutex<ProblemLog>,
    /// Counts replacements of nodes.
    shape: AtomicU64,
    /// Hears of what is wrong.
    on_trouble: OnceLock<Box<OnTrouble>>,
}

/// What is called when the trees cannot be had, or contradict themselves.
type OnTrouble = dyn Fn(&CommitError) + Send + Sync;

pub(crate) struct RootSlot {
    pub(crate) root: Root,
    /// Once it has been read.
    cell: OnceLock<Arc<NodeCell>>,
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
    pub(crate) cell: Option<Arc<NodeCell>>,
    pub(crate) span: Span,
}

impl Btrees {
    /// The b-trees with these roots, whose nodes come from `source` and are cached up to `cache_bytes`. Nothing is read
    /// yet.
    pub fn new(roots: Roots, overlay: Overlay, source: Box<dyn NodeSource>, cache_bytes: usize) -> Self {
        let slot = |root| Arc::new(RootSlot { root, cell: OnceLock::new() });
        let roots = roots.into_iter().map(|(btree, root)| (btree, slot(root)));
        let trees = Self {
            roots: RwLock::new(roots.collect()),
            shape: AtomicU64::new(0),
            overlay,
            source,
            cache: NodeCache::new(cache_bytes),
            problems: Mutex::default(),
            on_trouble: OnceLock::new(),
        };
        trees.note_keys_above_roots();
        trees
    }

    /// Keys on a level that the b-tree does not have cannot be reached from its root.
    fn note_keys_above_roots(&self) {
        for (btree, level, keys) in self.overlay.counts() {
            let top = match self.root(btree) {
                None => 0,
                Some(Root::At { level, .. }) => level,
                Some(Root::Lost) => LEVEL_MAX,
            };
            if level > top {
                let span = Span { btree, level, min: Bpos::MIN, max: Bpos::MAX };
                self.note(vec![Problem { span, kind: ProblemKind::KeysAboveRoot { keys } }]);
            }
        }
    }

    /// The b-trees that have a root, those this version does not know included.
    pub fn roots(&self) -> Roots {
        self.roots.read().iter().map(|(&btree, slot)| (btree, slot.root.clone())).collect()
    }

    /// The root of one b-tree; `None` if it has none and is empty.
    pub fn root(&self, btree: BtreeId) -> Option<Root> {
        self.slot(btree).map(|slot| slot.root.clone())
    }

    pub(crate) fn slot(&self, btree: BtreeId) -> Option<Arc<RootSlot>> {
        self.roots.read().get(&btree).map(Arc::clone)
    }

    /// Sets the root of a b-tree: another node, or another pointer to the same one.
    pub(crate) fn set_root(&self, btree: BtreeId, root: Root, cell: Arc<NodeCell>) {
        let slot = Arc::new(RootSlot { root, cell: OnceLock::from(cell) });
        self.roots.write().insert(btree, slot);
    }

    /// The shape of a tree has changed.
    pub(crate) fn reshaped(&self) {
        self.shape.fetch_add(1, Ordering::AcqRel);
    }

    /// What was found wrong with the nodes read so far, oldest first, each node once. Nodes that could not be read at all
    /// are not in the list: they are errors of the lookups that wanted them.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.lock().list.clone()
    }

    /// Has `tell` called, by whoever finds it, whenever a part of a tree cannot be had, or a change cannot be derived because what is stored contradicts
    /// itself. Nobody is told of what is only out of date. Only the first call counts.
    pub fn on_trouble(&self, tell: impl Fn(&CommitError) + Send + Sync + 'static) {
        // A second one is refused, as it says.
        drop(self.on_trouble.set(Box::new(tell)));
    }

    /// Tells of an error, if it is one of what is stored.
    pub(crate) fn tell(&self, error: &CommitError) {
        if let CommitError::Tree(_) | CommitError::Inconsistent(_) = error
            && let Some(tell) = self.on_trouble.get()
        {
            tell(error);
        }
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
        let Some(cell) = self.descend(btree, pos, 0)?.cell else { return Ok(None) };
        Ok(KeyHandle::find(cell.load(), pos))
    }

    /// A cursor over the keys of a b-tree within `range`, in front of the first.
    pub fn cursor(&self, btree: BtreeId, range: impl RangeBounds<Bpos>) -> Cursor<'_> {
        Cursor::new(self, btree, 0, range, Lens::default())
    }

    /// A cursor over the keys of one level: above 0 they are the pointers to the nodes of the level below. Levels the
    /// b-tree does not have are empty.
    pub fn level_cursor(&self, btree: BtreeId, level: u8, range: impl RangeBounds<Bpos>) -> Cursor<'_> {
        Cursor::new(self, btree, level, range, Lens::default())
    }

    /// The overlay of a level, if that level can be reached from the root.
    pub(crate) fn overlay(&self, btree: BtreeId, level: u8) -> Option<&LevelKeys> {
        let keys = self.overlay.level(btree, level)?;
        let top = match self.slot(btree).as_deref() {
            Some(RootSlot { root: Root::At { level, .. }, .. }) => *level,
            _ => 0,
        };
        (level <= top).then_some(keys)
    }

    /// The node of `level` that covers `pos`.
    pub(crate) fn descend(&self, btree: BtreeId, pos: Bpos, level: u8) -> Result<Place> {
        self.descend_and(btree, pos, level, false)
    }

    /// [`Btrees::descend`]; if `ahead`, the node behind it will be wanted next, and is asked for.
    pub(crate) fn descend_and(&self, btree: BtreeId, pos: Bpos, level: u8, ahead: bool) -> Result<Place> {
        loop {
            // A replaced node that was dropped from memory may be read again by who still has the old pointer to it: also a good
            // result counts only if no node was replaced meanwhile.
            let shape = self.shape.load(Ordering::Acquire);
            let place = self.try_descend(btree, pos, level, |span, ptr, node| {
                let last = span.level == level;
                if ahead && last {
                    self.ask_for_child_behind(node, pos);
                }
                self.load(span, ptr).map(Some)
            });
            if shape == self.shape.load(Ordering::Acquire) {
                if let Err(error) = &place {
                    self.tell(&CommitError::Tree(error.clone()));
                }
                return place.map(|place| place.expect("everything is loaded"));
            }
        }
    }

    /// [`Btrees::descend`], but `None` instead of reading a node. Under the commit lock.
    pub(crate) fn descend_in_memory(&self, btree: BtreeId, pos: Bpos, level: u8) -> Result<Option<Place>> {
        if let Some(slot) = self.slot(btree)
            && slot.cell.get().is_none()
        {
            return Ok(None);
        }
        self.try_descend(btree, pos, level, |_, ptr, _| Ok(self.cache.get(NodeId::of(ptr))))
    }

    /// Goes down from the root; `child` gets a child from what is its own, its pointer, and its parent.
    fn try_descend(
        &self,
        btree: BtreeId,
        pos: Bpos,
        level: u8,
        child: impl Fn(Span, &NodePtr<'_>, &Node) -> Result<Option<Arc<NodeCell>>>,
    ) -> Result<Option<Place>> {
        let mut span = Span { btree, level, min: Bpos::MIN, max: Bpos::MAX };
        let Some(slot) = self.slot(btree) else { return Ok(Some(Place { cell: None, span })) };
        let root_level = match slot.root {
            Root::Lost => return Err(Error::RootLost(btree)),
            Root::At { level: root, .. } if root > LEVEL_MAX => {
                return Err(Error::TooDeep { btree, level: root });
            }
            Root::At { level: root, .. } => root,
        };
        if root_level < level {
            return Ok(Some(Place { cell: None, span }));
        }
        span.level = root_level;
        let mut cell = Arc::clone(self.root_cell(&slot, span)?);
        while span.level > level {
            let node = cell.load();
            let found = node.child(span, self.overlay.level(btree, span.level), pos)?;
            span = found.span;
            match child(span, &found.ptr, &node)? {
                Some(next) => cell = next,
                None => return Ok(None),
            }
        }
        Ok(Some(Place { cell: Some(cell), span }))
    }

    /// Asks for the child of `node` behind the one that covers `pos`, before that one is read.
    fn ask_for_child_behind(&self, node: &Node, pos: Bpos) {
        let span = node.span();
        let overlay = self.overlay.level(span.btree, span.level);
        if let Some(behind) = node.child_behind(overlay, pos)
            && !self.cache.contains(NodeId::of(&behind))
        {
            self.source.will_read(&behind);
        }
    }

    fn root_cell<'a>(&self, slot: &'a RootSlot, span: Span) -> Result<&'a Arc<NodeCell>> {
        if let Some(cell) = slot.cell.get() {
            return Ok(cell);
        }
        let Root::At { key, .. } = &slot.root else { return Err(Error::RootLost(span.btree)) };
        let ptr = NodePtr::decode(span.btree, span.level, key.as_key())
            .map_err(|reason| Error::bad_pointer(span, reason))?;
        let cell = self.load(span, &ptr)?;
        Ok(slot.cell.get_or_init(|| {
            let Span { min, max, .. } = cell.load().span();
            if (min, max) != (Bpos::MIN, Bpos::MAX) {
                self.note(vec![Problem { span, kind: ProblemKind::RootBounds { min, max } }]);
            }
            cell
        }))
    }

    /// The node that `ptr` leads to, from the cache or its source. `span` is what its parent gives it.
    fn load(&self, span: Span, ptr: &NodePtr<'_>) -> Result<Arc<NodeCell>> {
        let id = NodeId::of(ptr);
        let cell = match self.cache.get(id) {
            Some(cell) => cell,
            None => self.cache.get_or_load(id, || self.read(id, span, ptr))?,
        };
        // Two pointers with one number: the node was read, and checked, for the other one.
        let Span { min, max, .. } = cell.load().span();
        if max != ptr.expect.max_key || ptr.expect.min_key.is_some_and(|first| first != min) {
            let reason = format!("it has the number of the node from {min} to {max}");
            return Err(Error::bad_pointer(span, DecodeError::invalid("b-tree pointer", reason)));
        }
        Ok(cell)
    }

    fn read(&self, id: NodeId, span: Span, ptr: &NodePtr<'_>) -> Result<Arc<NodeCell>> {
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
        let facts = NodeFacts { span: covers, counter: loaded.counter, written: loaded.written };
        let (node, of_children) = Node::new(facts, loaded.keys, overlay);
        let mut problems = loaded.problems;
        problems.extend(of_children);
        self.report(id, span, problems);
        Ok(Arc::new(NodeCell::new(id, node)))
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
