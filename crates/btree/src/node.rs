//! One version of a node in memory.
//!
//! [`Node`] is what readers look at: the merged keys of one node exactly as they are on disk, the changes since ([`crate::delta`]),
//! and, for an interior node, a table of its children. The table is made once for a version, because it is not simply the
//! node's keys: changes and the journal's overlay replace, add and remove children (spec 60 §4.6), and the children must
//! tile their parent without gap or overlap (spec 30 §8.2). After that a descent is one binary search per level.
//!
//! Damage does not stop the table from being made. Each child is given the range from behind the child before it to its
//! own position. If its pointer disagrees about where it begins, that is a [`ProblemKind::ChildBegins`]; positions in a
//! gap are then covered by nobody ([`Error::Gap`]), positions in an overlap belong to the child that comes first.

use std::sync::{Arc, OnceLock};

use frazil_ondisk::bkey::BKEY_U64S;
use frazil_ondisk::node::{NodePtr, SortedKeys};
use frazil_ondisk::units::Sectors;
use frazil_ondisk::{Bpos, Key, KeyBuf};

use crate::delta::{Delta, Entry};
use crate::error::{Error, ProblemKind, Result, Span};
use crate::overlay::LevelKeys;
use crate::view::{KeyRef, MergedView};

/// A version of a node: verified, merged, and with what changed since. Shared by all who read it, and changed only by who holds it alone.
pub(crate) struct Node {
    facts: NodeFacts,
    /// As on disk.
    keys: Arc<SortedKeys>,
    /// Not on disk yet.
    delta: Delta,
    /// Number of the last change.
    change: u64,
    /// Made when first wanted; empty in leaves.
    children: OnceLock<Box<[Child]>>,
}

/// What is known of a node beside its keys.
#[derive(Clone, Copy)]
pub(crate) struct NodeFacts {
    /// What it covers, by its own account, which was checked against its pointer's.
    pub(crate) span: Span,
    /// Generation in its lineage of splits, merges and rewrites (spec 30 §5.1).
    pub(crate) counter: u32,
    /// Sectors of its area that are written.
    pub(crate) written: Sectors,
}

impl Clone for Node {
    /// For changing the copy: without the table of children.
    fn clone(&self) -> Self {
        let (keys, delta) = (Arc::clone(&self.keys), self.delta.clone());
        Self { facts: self.facts, keys, delta, change: self.change, children: OnceLock::new() }
    }
}

/// One child of an interior node.
#[derive(Clone, Copy)]
struct Child {
    /// The last position it covers; its pointer's position.
    max: Bpos,
    /// Where the pointer is.
    source: KeyRef,
}

/// What [`Node::child`] found.
pub(crate) struct ChildAt<'a> {
    /// What is the child's, one level below.
    pub(crate) span: Span,
    /// Its pointer.
    pub(crate) ptr: NodePtr<'a>,
}

impl Node {
    /// A node from what is on disk and the overlay of its level; also what is wrong with its children.
    pub(crate) fn new(
        facts: NodeFacts,
        keys: SortedKeys,
        overlay: Option<&LevelKeys>,
    ) -> (Node, Vec<ProblemKind>) {
        let keys = Arc::new(keys);
        let delta = Delta::default();
        let node = Node { facts, keys, delta, change: 0, children: OnceLock::new() };
        let mut problems = Vec::new();
        if facts.span.level > 0 {
            let table = children(&node, overlay, &mut problems);
            node.children.get_or_init(|| table);
        }
        (node, problems)
    }

    /// What the node covers.
    pub(crate) fn span(&self) -> Span {
        self.facts.span
    }

    /// Generation in its lineage of splits, merges and rewrites.
    pub(crate) fn counter(&self) -> u32 {
        self.facts.counter
    }

    /// The keys as they are on disk, without delta and overlay.
    pub(crate) fn keys(&self) -> &Arc<SortedKeys> {
        &self.keys
    }

    /// What changed since.
    pub(crate) fn delta(&self) -> &Delta {
        &self.delta
    }

    /// Number of the last change; 0 if nothing was changed since the node was read.
    pub(crate) fn change(&self) -> u64 {
        self.change
    }

    /// The key exactly at `pos`, without overlay; `deleted` is none.
    pub(crate) fn get(&self, pos: Bpos) -> Option<Key<'_>> {
        if let Some(entry) = self.delta.find(pos) {
            return entry.is_live().then(|| entry.key.as_key());
        }
        self.keys.find(pos).map(|i| self.keys.get(i))
    }

    /// Words that its keys take, the changes counted in.
    pub(crate) fn live_words(&self) -> usize {
        let hidden = |pos| self.keys.find(pos).map_or(0, |i| self.keys.raw(i).u64s());
        let (mut gone, mut new) = (0, 0);
        for entry in self.delta.iter() {
            gone += hidden(entry.pos);
            new += if entry.is_live() { entry.words as usize } else { 0 };
        }
        self.keys.u64s() - gone + new
    }

    /// Puts a key, or hides one if it is of type `deleted`. While a write of the node is under way (`writing`) its tombstones must stay even
    /// where the disk has nothing to hide yet.
    pub(crate) fn put(&mut self, key: Arc<KeyBuf>, writing: bool) {
        self.children = OnceLock::new();
        self.change += 1;
        let (pos, change) = (key.k.pos, self.change);
        let format = self.keys.format();
        let header = if format.packs(&key.k) { format.key_u64s() } else { BKEY_U64S };
        let words = (header + key.value.len() / 8) as u32;
        let entry = Entry { pos, change, words, key };
        if !entry.is_live() && !writing && self.keys.find(pos).is_none() {
            self.delta.remove(pos);
            return;
        }
        self.delta.insert(entry);
    }

    /// Sectors of its area that are written.
    pub(crate) fn sectors_written(&self) -> Sectors {
        self.facts.written
    }

    /// A write of the node is done: `keys` are on disk now, which include all changes up to number `change`, and end at sector `written`.
    pub(crate) fn written(&mut self, keys: Arc<SortedKeys>, change: u64, written: Sectors) {
        self.facts.written = written;
        self.children = OnceLock::new();
        self.keys = keys;
        self.delta = self.delta.since(change);
    }

    /// Bytes this node occupies in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let children = self.children.get().map_or(0, |children| size_of_val::<[Child]>(children));
        size_of::<Node>() + self.keys.heap_bytes() + self.delta.heap_bytes() + children
    }

    fn children(&self, overlay: Option<&LevelKeys>) -> &[Child] {
        self.children.get_or_init(|| children(self, overlay, &mut Vec::new()))
    }

    /// The child of an interior node that covers `pos`. `span` is what is this node's own, as its parent sees it;
    /// `overlay` the same that the node was made with.
    ///
    /// # Errors
    /// [`Error::Gap`] if no child does; [`Error::BadPointer`] if one should but its key is no pointer.
    pub(crate) fn child<'a>(
        &'a self,
        span: Span,
        overlay: Option<&'a LevelKeys>,
        pos: Bpos,
    ) -> Result<ChildAt<'a>> {
        let children = self.children(overlay);
        let i = children.partition_point(|c| c.max < pos);
        let previous = i.checked_sub(1).and_then(|i| children[i].max.successor());
        let min = previous.map_or(span.min, |p| p.max(span.min));
        let span = Span { level: span.level - 1, min, ..span };
        let Some(child) = children.get(i) else { return Err(Error::Gap(span)) };
        let span = Span { max: child.max.min(span.max), ..span };
        let ptr = NodePtr::decode(span.btree, span.level, self.key(child.source, overlay))
            .map_err(|reason| Error::bad_pointer(span, reason))?;
        match ptr.expect.min_key {
            Some(first) if first > pos => {
                let last = first.predecessor().unwrap_or(Bpos::MIN).min(span.max);
                Err(Error::Gap(Span { max: last, ..span }))
            }
            first => {
                let min = first.map_or(span.min, |first| first.max(span.min));
                Ok(ChildAt { span: Span { min, ..span }, ptr })
            }
        }
    }

    /// The pointer to the child behind the one that covers `pos`, if this node has one.
    pub(crate) fn child_behind<'a>(
        &'a self,
        overlay: Option<&'a LevelKeys>,
        pos: Bpos,
    ) -> Option<NodePtr<'a>> {
        let children = self.children(overlay);
        let i = children.partition_point(|c| c.max < pos) + 1;
        let key = self.key(children.get(i)?.source, overlay);
        NodePtr::decode(self.facts.span.btree, self.facts.span.level - 1, key).ok()
    }

    fn key<'a>(&'a self, at: KeyRef, overlay: Option<&'a LevelKeys>) -> Key<'a> {
        match at {
            KeyRef::Node(i) => self.keys.get(i as usize),
            KeyRef::Delta(at) => self.delta.get(at).key.as_key(),
            KeyRef::Overlay(j) => {
                overlay.expect("only a node made with an overlay has children in it").get(j as usize)
            }
        }
    }
}

/// Merges a node's pointers with the overlay's and checks that the children tile the node.
fn children(node: &Node, overlay: Option<&LevelKeys>, problems: &mut Vec<ProblemKind>) -> Box<[Child]> {
    let span = node.facts.span;
    let mut table = Vec::with_capacity(node.keys.len());
    let mut expected = Some(span.min);
    let mut view = MergedView::new(Some(node), overlay, span.min, span.max);
    while let Some(source) = view.next() {
        let key = view.key(source);
        let child = key.k.pos;
        let ptr = NodePtr::decode(span.btree, span.level, key);
        if let (Ok(Some(found)), Some(expected)) = (ptr.map(|p| p.expect.min_key), expected)
            && found != expected
        {
            problems.push(ProblemKind::ChildBegins { child, expected, found });
        }
        expected = child.successor();
        table.push(Child { max: child, source });
    }
    match table.last() {
        None => problems.push(ProblemKind::Childless),
        Some(last) if last.max != span.max => {
            problems.push(ProblemKind::LastChildEnds { expected: span.max, found: last.max });
        }
        Some(_) => {}
    }
    table.into()
}
