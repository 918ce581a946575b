//! A node in memory.
//!
//! [`Node`] is what the cache holds: the merged keys of one node exactly as they are on disk, and, for an interior node, a
//! table of its children. The table is made once, when the node is loaded, because it is not simply the node's keys: the
//! journal's overlay replaces, adds and removes children (spec 60 §4.6), and the children must tile their parent without
//! gap or overlap (spec 30 §8.2). After that a descent is one binary search per level.
//!
//! Damage does not stop the table from being made. Each child is given the range from behind the child before it to its
//! own position. If its pointer disagrees about where it begins, that is a [`ProblemKind::ChildBegins`]; positions in a
//! gap are then covered by nobody ([`Error::Gap`]), positions in an overlap belong to the child that comes first.

use frazil_ondisk::node::{NodePtr, SortedKeys};
use frazil_ondisk::{Bpos, Key};

use crate::error::{Error, ProblemKind, Result, Span};
use crate::overlay::LevelKeys;
use crate::view::{KeyRef, MergedView};

/// A verified, merged, immutable node. Shared by all readers.
pub(crate) struct Node {
    /// What the node covers, by its own account, which was checked against its pointer's.
    span: Span,
    keys: SortedKeys,
    /// Empty in leaves.
    children: Box<[Child]>,
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
    /// A node that covers `span`, from its keys and the overlay of its level; also what is wrong with its children.
    pub(crate) fn new(span: Span, keys: SortedKeys, overlay: Option<&LevelKeys>) -> (Node, Vec<ProblemKind>) {
        let mut node = Node { span, keys, children: Default::default() };
        let mut problems = Vec::new();
        if span.level > 0 {
            node.children = children(&node, overlay, &mut problems);
        }
        (node, problems)
    }

    /// What the node covers.
    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// The keys as they are on disk, without the overlay.
    pub(crate) fn keys(&self) -> &SortedKeys {
        &self.keys
    }

    /// Bytes this node occupies in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Node>() + self.keys.heap_bytes() + size_of_val::<[Child]>(&self.children)
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
        let i = self.children.partition_point(|c| c.max < pos);
        let previous = i.checked_sub(1).and_then(|i| self.children[i].max.successor());
        let min = previous.map_or(span.min, |p| p.max(span.min));
        let span = Span { level: span.level - 1, min, ..span };
        let Some(child) = self.children.get(i) else { return Err(Error::Gap(span)) };
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
        let i = self.children.partition_point(|c| c.max < pos) + 1;
        let key = self.key(self.children.get(i)?.source, overlay);
        NodePtr::decode(self.span.btree, self.span.level - 1, key).ok()
    }

    fn key<'a>(&'a self, at: KeyRef, overlay: Option<&'a LevelKeys>) -> Key<'a> {
        match at {
            KeyRef::Node(i) => self.keys.get(i as usize),
            KeyRef::Overlay(j) => {
                overlay.expect("only a node made with an overlay has children in it").get(j as usize)
            }
        }
    }
}

/// Merges a node's pointers with the overlay's and checks that the children tile the node.
fn children(node: &Node, overlay: Option<&LevelKeys>, problems: &mut Vec<ProblemKind>) -> Box<[Child]> {
    let span = node.span;
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
