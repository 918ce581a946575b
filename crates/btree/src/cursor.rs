//! Walking the keys of a b-tree.
//!
//! A [`Cursor`] stands *between* two keys. [`Cursor::next`] moves it behind the next key and lends that key;
//! [`Cursor::prev`] moves it in front of the previous key and lends that. So `next` followed by `prev` lends the same key
//! twice. Deleted keys do not exist for it; whiteouts of snapshots are keys like all others, see
//! [`crate::SnapshotCursor`] for what a reader of one snapshot sees.
//!
//! The cursor holds the one node it is in, which cannot change. When that is used up, it descends again to the position
//! behind it. Lending costs nothing; a key that must outlive the next step is taken along as a [`KeyHandle`].
//!
//! A node that cannot be read makes the step an error and leaves the cursor where it was; trying again tries again.
//! [`Cursor::skip_bad_node`] moves it past the lost range.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use frazil_ondisk::{Bpos, BtreeId, Key};

use crate::error::{Result, Span};
use crate::handle::KeyHandle;
use crate::node::Node;
use crate::overlay::LevelKeys;
use crate::reads::{ReadId, Reads};
use crate::trees::Btrees;
use crate::view::{KeyRef, MergedView};

/// A place between two keys of one level of a b-tree, within a range. See the [module](self).
#[derive(Clone)]
pub struct Cursor<'t> {
    trees: &'t Btrees,
    btree: BtreeId,
    level: u8,
    /// First position of the range.
    min: Bpos,
    /// Last position of the range; below `min` if the range is empty.
    max: Bpos,
    at: At,
    /// The key last stepped over, which is in `at`.
    current: Option<KeyRef>,
    /// The range of the last failure, and whether the step went forward.
    bad: Option<(Span, bool)>,
    lens: Lens<'t>,
    /// What is noted of the node it is in.
    reading: Option<ReadId>,
}

/// How a transaction looks at the trees.
#[derive(Clone, Default)]
pub(crate) struct Lens<'t> {
    /// What it is about to change at this level lies over what is there.
    pub(crate) pending: Option<LevelKeys>,
    /// Where it notes what it looks at.
    pub(crate) reads: Option<&'t Reads>,
}

/// Where a cursor stands.
#[derive(Clone)]
enum At {
    /// In a node that covers `min..=max`, somewhere between the keys of the view.
    Leaf { view: MergedView<Arc<Node>>, min: Bpos, max: Bpos },
    /// In front of the first key at or above this position, in a node not looked up yet.
    Before(Bpos),
    /// Behind all keys.
    End,
}

/// The first and last position of a range; `None` if it is empty.
fn limits(range: impl RangeBounds<Bpos>) -> Option<(Bpos, Bpos)> {
    let min = match range.start_bound() {
        Bound::Included(&min) => min,
        Bound::Excluded(&before) => before.successor()?,
        Bound::Unbounded => Bpos::MIN,
    };
    let max = match range.end_bound() {
        Bound::Included(&max) => max,
        Bound::Excluded(&behind) => behind.predecessor()?,
        Bound::Unbounded => Bpos::MAX,
    };
    (min <= max).then_some((min, max))
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(
        trees: &'t Btrees,
        btree: BtreeId,
        level: u8,
        range: impl RangeBounds<Bpos>,
        lens: Lens<'t>,
    ) -> Self {
        let (min, max, at) = match limits(range) {
            Some((min, max)) => (min, max, At::Before(min)),
            None => (Bpos::MAX, Bpos::MIN, At::End),
        };
        Self { trees, btree, level, min, max, at, current: None, bad: None, lens, reading: None }
    }

    /// Moves in front of the first key at or above `pos`, but not out of the range.
    pub fn seek(&mut self, pos: Bpos) {
        self.current = None;
        self.bad = None;
        if pos > self.max {
            return self.seek_end();
        }
        let pos = pos.max(self.min);
        match &mut self.at {
            // A jump within a node skips keys; they count as looked at.
            At::Leaf { view, min, max } if *min <= pos && pos <= *max => {
                view.seek(pos);
                self.note(pos);
            }
            at => *at = At::Before(pos),
        }
    }

    /// Takes back steps: moves in front of the first key at or above `pos`, which is in the range, and keeps what
    /// [`Cursor::skip_bad_node`] needs to know.
    pub(crate) fn step_back_to(&mut self, pos: Bpos) {
        self.current = None;
        self.at = if pos <= self.max { At::Before(pos) } else { At::End };
    }

    /// First position of the range.
    pub(crate) fn range_min(&self) -> Bpos {
        self.min
    }

    /// Moves behind the last key of the range.
    pub fn seek_end(&mut self) {
        self.current = None;
        self.bad = None;
        self.at = At::End;
    }

    /// Moves behind the next key and lends it; `None` at the end of the range.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    #[allow(clippy::should_implement_trait, reason = "it lends, an iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Key<'_>>> {
        Ok(if self.step_next()? { self.key() } else { None })
    }

    /// Moves in front of the previous key and lends it; `None` at the start of the range.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    #[inline]
    pub fn prev(&mut self) -> Result<Option<Key<'_>>> {
        Ok(if self.step_prev()? { self.key() } else { None })
    }

    /// The key last stepped over, by `next` or `prev`; `None` after anything else.
    #[inline]
    pub fn key(&self) -> Option<Key<'_>> {
        match (&self.at, self.current) {
            (At::Leaf { view, .. }, Some(at)) => Some(view.key(at)),
            _ => None,
        }
    }

    /// The position of [`Cursor::key`], for less work.
    #[inline]
    pub fn pos(&self) -> Option<Bpos> {
        match (&self.at, self.current) {
            (At::Leaf { view, .. }, Some(at)) => Some(view.pos(at)),
            _ => None,
        }
    }

    /// [`Cursor::key`], to keep.
    pub fn handle(&self) -> Option<KeyHandle> {
        match (&self.at, self.current) {
            (At::Leaf { view, .. }, Some(at)) => Some(view.handle(at)),
            _ => None,
        }
    }

    /// As [`Cursor::next`], without lending: whether there was a key.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    #[inline]
    pub fn step_next(&mut self) -> Result<bool> {
        if let At::Leaf { view, .. } = &mut self.at
            && let Some(at) = view.next()
        {
            self.current = Some(at);
            if self.reading.is_some() {
                self.note_step();
            }
            return Ok(true);
        }
        self.next_leaf()
    }

    fn next_leaf(&mut self) -> Result<bool> {
        self.current = None;
        loop {
            let sequential = matches!(self.at, At::Leaf { .. });
            let from = match &mut self.at {
                At::End => return Ok(false),
                At::Before(pos) => *pos,
                At::Leaf { view, max, .. } => {
                    self.current = view.next();
                    if self.current.is_some() {
                        self.note_step();
                        return Ok(true);
                    }
                    let max = *max;
                    self.note(max);
                    match max.successor() {
                        Some(behind) if behind <= self.max => behind,
                        _ => return Ok(false),
                    }
                }
            };
            self.enter(from, true, sequential)?;
            if let At::Leaf { view, min, .. } = &mut self.at
                && from > *min
            {
                view.seek(from);
            }
        }
    }

    /// As [`Cursor::prev`], without lending: whether there was a key.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    pub fn step_prev(&mut self) -> Result<bool> {
        self.current = None;
        loop {
            let before = match &mut self.at {
                At::End if self.min > self.max => return Ok(false),
                At::End => None,
                At::Before(pos) => Some(*pos),
                At::Leaf { view, min, .. } => {
                    self.current = view.prev();
                    if self.current.is_some() {
                        self.note_step();
                        return Ok(true);
                    }
                    let min = *min;
                    self.note(min);
                    Some(min)
                }
            };
            let to = match before {
                None => self.max,
                Some(pos) => match pos.predecessor() {
                    Some(to) if to >= self.min => to,
                    _ => return Ok(false),
                },
            };
            self.enter(to, false, false)?;
            if let At::Leaf { view, max, .. } = &mut self.at {
                match before {
                    Some(pos) if pos <= *max => view.seek(pos),
                    _ => view.seek_end(),
                }
            }
        }
    }

    /// Notes that the current key was looked at.
    fn note_step(&self) {
        if let Some(pos) = self.pos() {
            self.note(pos);
        }
    }

    /// Notes that everything up to `pos` in the current node was looked at.
    fn note(&self, pos: Bpos) {
        if let (Some(reads), Some(reading)) = (self.lens.reads, self.reading) {
            reads.extend(reading, pos);
        }
    }

    /// Moves into the node that covers `pos`, in front of its first key in the range. Who walks from node to node
    /// (`sequential`) will want the one behind it.
    fn enter(&mut self, pos: Bpos, forward: bool, sequential: bool) -> Result<()> {
        self.bad = None;
        match self.trees.descend_and(self.btree, pos, self.level, sequential) {
            Ok(place) => {
                let (min, max) = (place.span.min.max(self.min), place.span.max.min(self.max));
                let overlay = self.lens.pending.as_ref().or(self.trees.overlay(self.btree, self.level));
                let node = place.cell.as_ref().map(|cell| cell.load());
                self.reading = self.lens.reads.map(|reads| {
                    let change = node.as_ref().map_or(0, |node| node.change());
                    reads.add(self.btree, place.cell, change, (pos, pos))
                });
                self.at = At::Leaf { view: MergedView::new(node, overlay, min, max), min, max };
                Ok(())
            }
            Err(error) => {
                self.bad = error.span().map(|span| (span, forward));
                Err(error)
            }
        }
    }

    /// After a step that failed because a node cannot be had: moves past the positions that are lost with it, in the
    /// direction of that step, and returns their range. `None`, and no movement, after anything else.
    pub fn skip_bad_node(&mut self) -> Option<Span> {
        self.skip_bad_node_directed().map(|(span, _)| span)
    }

    /// [`Cursor::skip_bad_node`]; also whether it went forward.
    pub(crate) fn skip_bad_node_directed(&mut self) -> Option<(Span, bool)> {
        let (span, forward) = self.bad.take()?;
        self.current = None;
        self.at = if !forward {
            At::Before(span.min.max(self.min))
        } else {
            match span.max.successor() {
                Some(behind) if behind <= self.max => At::Before(behind),
                _ => At::End,
            }
        };
        Some((span, forward))
    }
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match &self.at {
            At::Leaf { min, max, .. } => format!("in {min} to {max}"),
            At::Before(pos) => format!("before {pos}"),
            At::End => "at the end".to_owned(),
        };
        write!(f, "Cursor({} level {}, {at}, over {:?})", self.btree, self.level, self.key())
    }
}
