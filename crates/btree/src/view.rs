//! The keys of one node as its delta and an overlay change them.
//!
//! [`MergedView`] walks up to three sorted sequences side by side: the node's keys as they are on disk, the changes that are not
//! ([`crate::delta`]), and an overlay: the journal's keys of an unclean volume that is only read, or what a transaction is about to
//! change. At equal positions the later one of these wins, and an entry of type `deleted` hides what is below (spec 60 §4.6). With the
//! first alone, the usual case of a reader, a step is one increment.

use std::ops::Deref;
use std::sync::Arc;

use frazil_ondisk::node::SortedKeys;
use frazil_ondisk::{Bpos, Key, KeyType};

use crate::delta::{Delta, DeltaAt};
use crate::handle::KeyHandle;
use crate::node::Node;
use crate::overlay::LevelKeys;

/// Where a key of a merged view is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyRef {
    /// In the node's keys on disk, at this index.
    Node(u32),
    /// In the node's delta.
    Delta(DeltaAt),
    /// In the overlay's keys of this level, at this index.
    Overlay(u32),
}

/// A place between two keys of a node with its delta and an overlay.
///
/// The place is a place in each sequence, such that every key below any of them is below every key at or above any; so
/// it can move in both directions at any time.
#[derive(Clone)]
pub(crate) struct MergedView<N> {
    /// `None` for a b-tree without nodes.
    node: Option<N>,
    base: Run<usize>,
    /// `None` if the delta has no entry in the range.
    delta: Option<Run<DeltaAt>>,
    /// `None` if the overlay has no key in the range.
    overlay: Option<(LevelKeys, Run<usize>)>,
}

/// A place within the part of a sorted sequence that may be visited.
#[derive(Clone, Copy)]
struct Run<P> {
    begin: P,
    at: P,
    end: P,
}

impl<P: Copy + Ord> Run<P> {
    fn new(begin: P, end: P) -> Run<P> {
        Run { begin, at: begin, end: end.max(begin) }
    }

    fn seek(&mut self, to: P) {
        self.at = to.clamp(self.begin, self.end);
    }

    #[inline]
    fn ahead(&self) -> Option<P> {
        (self.at < self.end).then_some(self.at)
    }

    fn has_behind(&self) -> bool {
        self.at > self.begin
    }
}

impl Run<usize> {
    fn behind(&self) -> Option<usize> {
        self.has_behind().then(|| self.at - 1)
    }
}

/// The index behind the last position that is at most `max`.
fn upper_bound(max: Bpos, keys: &SortedKeys) -> usize {
    max.successor().map_or(keys.len(), |behind| keys.lower_bound(behind))
}

fn base_run(node: &Node, min: Bpos, max: Bpos) -> Run<usize> {
    // Most nodes are visited whole; the comparisons save two searches then.
    let keys = node.keys();
    let begin = if min <= node.span().min { 0 } else { keys.lower_bound(min) };
    let end = if max >= node.span().max { keys.len() } else { upper_bound(max, keys) };
    Run::new(begin, end)
}

fn delta_run(delta: &Delta, min: Bpos, max: Bpos) -> Option<Run<DeltaAt>> {
    if delta.is_empty() {
        return None;
    }
    let end = max.successor().map_or(delta.end(), |behind| delta.lower_bound(behind));
    let run = Run::new(delta.lower_bound(min), end);
    (run.begin < run.end).then_some(run)
}

fn overlay_run(keys: &SortedKeys, min: Bpos, max: Bpos) -> Run<usize> {
    Run::new(keys.lower_bound(min), upper_bound(max, keys))
}

impl<N: Deref<Target = Node>> MergedView<N> {
    /// In front of the first key within `min..=max`.
    pub(crate) fn new(node: Option<N>, overlay: Option<&LevelKeys>, min: Bpos, max: Bpos) -> Self {
        let base = node.as_ref().map_or(Run::new(0, 0), |node| base_run(node, min, max));
        let delta = node.as_ref().and_then(|node| delta_run(node.delta(), min, max));
        let overlay = overlay.and_then(|keys| {
            let run = overlay_run(keys, min, max);
            (run.begin < run.end).then(|| (Arc::clone(keys), run))
        });
        Self { node, base, delta, overlay }
    }

    /// Moves in front of the first key at or above `pos`.
    pub(crate) fn seek(&mut self, pos: Bpos) {
        if let Some(node) = &self.node {
            self.base.seek(node.keys().lower_bound(pos));
            if let Some(run) = &mut self.delta {
                run.seek(node.delta().lower_bound(pos));
            }
        }
        if let Some((keys, run)) = &mut self.overlay {
            run.seek(keys.lower_bound(pos));
        }
    }

    /// Moves behind the last key.
    pub(crate) fn seek_end(&mut self) {
        self.base.at = self.base.end;
        if let Some(run) = &mut self.delta {
            run.at = run.end;
        }
        if let Some((_, run)) = &mut self.overlay {
            run.at = run.end;
        }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("a place in a node implies the node")
    }

    /// Moves behind the next key that is not deleted, and returns it.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<KeyRef> {
        if self.delta.is_none() && self.overlay.is_none() {
            let i = self.base.ahead()?;
            self.base.at += 1;
            return Some(KeyRef::Node(i as u32));
        }
        self.next_merged()
    }

    fn next_merged(&mut self) -> Option<KeyRef> {
        loop {
            let base = self.base.ahead().map(|i| (self.node().keys().pos(i), i));
            let delta = self.delta.as_ref().and_then(Run::ahead).map(|at| (self.node().delta().get(at), at));
            let over = self.overlay.as_ref().and_then(|(keys, run)| run.ahead().map(|j| (keys.pos(j), j)));
            let heads = [base.map(|b| b.0), delta.map(|d| d.0.pos), over.map(|o| o.0)];
            let next = heads.into_iter().flatten().min()?;
            let (mut found, mut live) = (None, true);
            let delta = delta.map(|(entry, at)| (entry.pos, entry.is_live(), at));
            if let Some((_, i)) = base.filter(|b| b.0 == next) {
                self.base.at += 1;
                found = Some(KeyRef::Node(i as u32));
            }
            if let Some((_, lives, at)) = delta.filter(|d| d.0 == next) {
                let after = self.node().delta().after(at);
                if let Some(run) = &mut self.delta {
                    run.at = after;
                }
                (found, live) = (Some(KeyRef::Delta(at)), lives);
            }
            if let Some((_, j)) = over.filter(|o| o.0 == next)
                && let Some((keys, run)) = &mut self.overlay
            {
                run.at += 1;
                (found, live) = (Some(KeyRef::Overlay(j as u32)), keys.raw(j).ty() != KeyType::DELETED);
            }
            if live {
                return found;
            }
        }
    }

    /// Moves in front of the previous key that is not deleted, and returns it.
    pub(crate) fn prev(&mut self) -> Option<KeyRef> {
        loop {
            let base = self.base.behind().map(|i| (self.node().keys().pos(i), i));
            let delta = self.delta.as_ref().filter(|run| run.has_behind()).map(|run| {
                let at = self.node().delta().before(run.at);
                let entry = self.node().delta().get(at);
                (entry.pos, entry.is_live(), at)
            });
            let over = self.overlay.as_ref().and_then(|(keys, run)| run.behind().map(|j| (keys.pos(j), j)));
            let heads = [base.map(|b| b.0), delta.map(|d| d.0), over.map(|o| o.0)];
            let previous = heads.into_iter().flatten().max()?;
            let (mut found, mut live) = (None, true);
            if let Some((_, i)) = base.filter(|b| b.0 == previous) {
                self.base.at = i;
                found = Some(KeyRef::Node(i as u32));
            }
            if let Some((_, lives, at)) = delta.filter(|d| d.0 == previous)
                && let Some(run) = &mut self.delta
            {
                run.at = at;
                (found, live) = (Some(KeyRef::Delta(at)), lives);
            }
            if let Some((_, j)) = over.filter(|o| o.0 == previous)
                && let Some((keys, run)) = &mut self.overlay
            {
                run.at = j;
                (found, live) = (Some(KeyRef::Overlay(j as u32)), keys.raw(j).ty() != KeyType::DELETED);
            }
            if live {
                return found;
            }
        }
    }

    /// The key a step returned.
    #[inline]
    pub(crate) fn key(&self, at: KeyRef) -> Key<'_> {
        match at {
            KeyRef::Node(i) => self.node().keys().get(i as usize),
            KeyRef::Delta(at) => self.node().delta().get(at).key.as_key(),
            KeyRef::Overlay(j) => self.overlay_keys().get(j as usize),
        }
    }

    /// The position of the key a step returned; cheaper than the whole key.
    #[inline]
    pub(crate) fn pos(&self, at: KeyRef) -> Bpos {
        match at {
            KeyRef::Node(i) => self.node().keys().pos(i as usize),
            KeyRef::Delta(at) => self.node().delta().get(at).pos,
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
            KeyRef::Delta(at) => KeyHandle::owned(Arc::clone(&self.node().delta().get(at).key)),
            KeyRef::Overlay(j) => KeyHandle::in_overlay(Arc::clone(self.overlay_keys()), j as usize),
        }
    }
}
