//! The keys of one node as the journal's overlay changes them.
//!
//! [`MergedView`] walks a node's keys and the overlay's keys of the same range side by side. At equal positions the
//! overlay's key wins, and one of type `deleted` hides the node's (spec 60 §4.6). Without an overlay, the usual case, a
//! step is one increment.

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

use frazil_ondisk::node::SortedKeys;
use frazil_ondisk::{Bpos, Key, KeyType};

use crate::handle::KeyHandle;
use crate::node::Node;
use crate::overlay::LevelKeys;

/// Where a key of a merged view is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyRef {
    /// In the node, at this index.
    Node(u32),
    /// In the overlay's keys of this level, at this index.
    Overlay(u32),
}

/// A place between two keys of a node with its overlay.
///
/// The place is a pair of indices, one into each sequence, such that every key below either index is below every key at
/// or above either; so it can move in both directions at any time.
#[derive(Clone)]
pub(crate) struct MergedView<N> {
    /// `None` for a b-tree without nodes.
    node: Option<N>,
    node_run: Run,
    /// `None` if the overlay has no key in the range.
    overlay: Option<(LevelKeys, Run)>,
}

/// An index within the part of a sorted sequence that may be visited.
#[derive(Clone, Copy)]
struct Run {
    begin: usize,
    at: usize,
    end: usize,
}

impl Run {
    fn new(begin: usize, end: usize) -> Run {
        Run { begin, at: begin, end: end.max(begin) }
    }

    fn seek(&mut self, to: usize) {
        self.at = to.clamp(self.begin, self.end);
    }

    #[inline]
    fn ahead(&self) -> Option<usize> {
        (self.at < self.end).then_some(self.at)
    }

    fn behind(&self) -> Option<usize> {
        (self.at > self.begin).then(|| self.at - 1)
    }
}

/// The index behind the last position that is at most `max`.
fn upper_bound(max: Bpos, keys: &SortedKeys) -> usize {
    max.successor().map_or(keys.len(), |behind| keys.lower_bound(behind))
}

fn node_run(node: &Node, min: Bpos, max: Bpos) -> Run {
    // Most nodes are visited whole; the comparisons save two searches then.
    let keys = node.keys();
    let begin = if min <= node.span().min { 0 } else { keys.lower_bound(min) };
    let end = if max >= node.span().max { keys.len() } else { upper_bound(max, keys) };
    Run::new(begin, end)
}

fn overlay_run(keys: &SortedKeys, min: Bpos, max: Bpos) -> Run {
    Run::new(keys.lower_bound(min), upper_bound(max, keys))
}

impl<N: Deref<Target = Node>> MergedView<N> {
    /// In front of the first key within `min..=max`.
    pub(crate) fn new(node: Option<N>, overlay: Option<&LevelKeys>, min: Bpos, max: Bpos) -> Self {
        let node_run = node.as_ref().map_or(Run::new(0, 0), |node| node_run(node, min, max));
        let overlay = overlay.and_then(|keys| {
            let run = overlay_run(keys, min, max);
            (run.begin < run.end).then(|| (Arc::clone(keys), run))
        });
        Self { node, node_run, overlay }
    }

    /// Moves in front of the first key at or above `pos`.
    pub(crate) fn seek(&mut self, pos: Bpos) {
        if let Some(node) = &self.node {
            self.node_run.seek(node.keys().lower_bound(pos));
        }
        if let Some((keys, run)) = &mut self.overlay {
            run.seek(keys.lower_bound(pos));
        }
    }

    /// Moves behind the last key.
    pub(crate) fn seek_end(&mut self) {
        self.node_run.at = self.node_run.end;
        if let Some((_, run)) = &mut self.overlay {
            run.at = run.end;
        }
    }

    fn node_pos(&self, i: usize) -> Bpos {
        self.node.as_ref().expect("an index into a node implies the node").keys().pos(i)
    }

    /// Moves behind the next key that is not deleted, and returns it.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<KeyRef> {
        if self.overlay.is_none() { self.next_of_node() } else { self.next_merged() }
    }

    #[inline]
    fn next_of_node(&mut self) -> Option<KeyRef> {
        let i = self.node_run.ahead()?;
        self.node_run.at += 1;
        Some(KeyRef::Node(i as u32))
    }

    fn next_merged(&mut self) -> Option<KeyRef> {
        loop {
            let Some((keys, run)) = &mut self.overlay else { return self.next_of_node() };
            let Some(j) = run.ahead() else { return self.next_of_node() };
            let (pos, live) = (keys.pos(j), keys.raw(j).ty() != KeyType::DELETED);
            if let Some(i) = self.node_run.ahead() {
                match self.node_pos(i).cmp(&pos) {
                    Ordering::Less => return self.next_of_node(),
                    Ordering::Equal => self.node_run.at += 1,
                    Ordering::Greater => {}
                }
            }
            if let Some((_, run)) = &mut self.overlay {
                run.at += 1;
            }
            if live {
                return Some(KeyRef::Overlay(j as u32));
            }
        }
    }

    /// Moves in front of the previous key that is not deleted, and returns it.
    pub(crate) fn prev(&mut self) -> Option<KeyRef> {
        loop {
            let Some((keys, run)) = &mut self.overlay else { return self.prev_of_node() };
            let Some(j) = run.behind() else { return self.prev_of_node() };
            let (pos, live) = (keys.pos(j), keys.raw(j).ty() != KeyType::DELETED);
            if let Some(i) = self.node_run.behind() {
                match self.node_pos(i).cmp(&pos) {
                    Ordering::Greater => return self.prev_of_node(),
                    Ordering::Equal => self.node_run.at -= 1,
                    Ordering::Less => {}
                }
            }
            if let Some((_, run)) = &mut self.overlay {
                run.at -= 1;
            }
            if live {
                return Some(KeyRef::Overlay(j as u32));
            }
        }
    }

    fn prev_of_node(&mut self) -> Option<KeyRef> {
        let i = self.node_run.behind()?;
        self.node_run.at -= 1;
        Some(KeyRef::Node(i as u32))
    }

    /// The key a step returned.
    #[inline]
    pub(crate) fn key(&self, at: KeyRef) -> Key<'_> {
        match at {
            KeyRef::Node(i) => {
                self.node.as_ref().expect("a key in a node implies the node").keys().get(i as usize)
            }
            KeyRef::Overlay(j) => self.overlay_keys().get(j as usize),
        }
    }

    /// The position of the key a step returned; cheaper than the whole key.
    #[inline]
    pub(crate) fn pos(&self, at: KeyRef) -> Bpos {
        match at {
            KeyRef::Node(i) => self.node_pos(i as usize),
            KeyRef::Overlay(j) => self.overlay_keys().pos(j as usize),
        }
    }

    fn overlay_keys(&self) -> &LevelKeys {
        &self.overlay.as_ref().expect("a key in the overlay implies the overlay").0
    }
}

impl MergedView<Arc<Node>> {
    /// The key a step returned, to keep.
    pub(crate) fn handle(&self, at: KeyRef) -> KeyHandle {
        match at {
            KeyRef::Node(i) => {
                let node = self.node.as_ref().expect("a key in a node implies the node");
                KeyHandle::in_node(Arc::clone(node), i as usize)
            }
            KeyRef::Overlay(j) => KeyHandle::in_overlay(Arc::clone(self.overlay_keys()), j as usize),
        }
    }
}
