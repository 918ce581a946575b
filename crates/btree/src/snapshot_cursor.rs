//! Walking what one snapshot sees.
//!
//! At one (inode, offset) there may be a key for each of many snapshots; they lie side by side, the smallest id first. A
//! [`SnapshotCursor`] shows at most one of them: the first whose snapshot its [`View`] sees, unless that is a whiteout
//! (spec 40 §1.1). Like the plain [`Cursor`] it stands between two keys and moves either way.
//!
//! In the extents b-tree a position is the *end* of a range. Choosing per end position gives ranges that do not overlap,
//! because an overwrite leaves a key or a whiteout at every end it hides (spec 40 §8.4). So the extents of a range of
//! sectors are the visible keys from the first that ends behind its beginning to the last that begins before its end;
//! the first and the last may reach out of it, and cutting them is left to the reader. In a damaged volume they may also
//! overlap; a reader who goes forward and never looks back sees each sector once.
//!
//! After damage it is shown less, not something false: where a lost node may have held the nearest key of an (inode,
//! offset), the keys of ancestors there stay hidden.

use std::fmt;
use std::ops::Range;

use frazil_ondisk::units::Inum;
use frazil_ondisk::{Bkey, Bpos, BtreeId, Key, KeyType};

use crate::cursor::Cursor;
use crate::error::{Result, Span};
use crate::handle::KeyHandle;
use crate::snapshots::View;
use crate::trees::Btrees;
use crate::view::MergedView;

/// After so many hidden keys in a row a search is cheaper than more steps.
const STEPS_BEFORE_SEARCH: u32 = 8;

/// A place between two of the keys that one snapshot sees. See the [module](self).
#[derive(Clone)]
pub struct SnapshotCursor<'t> {
    raw: Cursor<'t>,
    view: View,
    /// For extents: keys that begin at this sector or behind it are out of range.
    sectors_end: Option<u64>,
    /// The key of this (inode, offset) has been passed on the way forward; what is left of it is hidden.
    passed: Option<(u64, u64)>,
    current: Current,
}

/// The key last stepped over.
#[derive(Clone)]
enum Current {
    None,
    /// It is the plain cursor's.
    Raw,
    /// The plain cursor has moved on to find it.
    Kept(KeyHandle),
}

fn slot(pos: Bpos) -> (u64, u64) {
    (pos.inode, pos.offset)
}

/// The first sector of an extent; 0 for a nonsensical one from the journal, whose keys nobody checks on this level.
fn start(k: &Bkey) -> u64 {
    k.start_offset().unwrap_or(0)
}

impl Btrees {
    /// The key that a snapshot sees at (inode, offset); the snapshot in `pos` means nothing.
    ///
    /// # Errors
    /// If a node that may hold it cannot be had.
    pub fn get_visible(&self, btree: BtreeId, pos: Bpos, view: &View) -> Result<Option<KeyHandle>> {
        // Ancestors have larger ids, so nothing below the snapshot's own can be the one.
        let (from, to) = (pos.with_snapshot(view.id().0), pos.with_snapshot(u32::MAX));
        let place = self.descend(btree, from, 0)?;
        let node = place.cell.map(|cell| cell.load());
        let mut view_of_node = MergedView::new(node, self.overlay(btree, 0), from, to.min(place.span.max));
        while let Some(at) = view_of_node.next() {
            if view.sees(view_of_node.pos(at).snapshot) {
                let live = !view_of_node.key(at).k.ty.is_snapshot_whiteout();
                return Ok(live.then(|| view_of_node.handle(at)));
            }
        }
        if to <= place.span.max {
            return Ok(None);
        }
        nearest_visible(self.cursor(btree, from..=to), view)
    }

    /// A cursor over what a snapshot sees within a range of (inode, offset), in front of the first; the snapshots in
    /// `range` mean nothing.
    pub fn visible(&self, btree: BtreeId, view: &View, range: Range<Bpos>) -> SnapshotCursor<'_> {
        SnapshotCursor::new(view, range, |range| self.cursor(btree, range))
    }

    /// A cursor over the extents of a file that a snapshot sees and that share a sector with `sectors`, in front of the
    /// first.
    pub fn visible_extents(&self, view: &View, inode: Inum, sectors: Range<u64>) -> SnapshotCursor<'_> {
        SnapshotCursor::of_extents(view, inode, sectors, |range| self.cursor(BtreeId::EXTENTS, range))
    }
}

/// What a snapshot sees among the keys of one (inode, offset), which the cursor is in front of.
pub(crate) fn nearest_visible(mut raw: Cursor<'_>, view: &View) -> Result<Option<KeyHandle>> {
    while let Some(key) = raw.next()? {
        if view.sees(key.k.pos.snapshot) {
            let live = !key.k.ty.is_snapshot_whiteout();
            return Ok(if live { raw.handle() } else { None });
        }
    }
    Ok(None)
}

impl<'t> SnapshotCursor<'t> {
    /// See [`Btrees::visible`]; `cursor` makes the plain cursor beneath.
    pub(crate) fn new(
        view: &View,
        range: Range<Bpos>,
        cursor: impl FnOnce(Range<Bpos>) -> Cursor<'t>,
    ) -> Self {
        let raw = cursor(range.start.with_snapshot(0)..range.end.with_snapshot(0));
        SnapshotCursor { raw, view: view.clone(), sectors_end: None, passed: None, current: Current::None }
    }

    /// See [`Btrees::visible_extents`]; `cursor` makes the plain cursor beneath.
    pub(crate) fn of_extents(
        view: &View,
        inode: Inum,
        sectors: Range<u64>,
        cursor: impl FnOnce(Range<Bpos>) -> Cursor<'t>,
    ) -> Self {
        let min = Bpos::new(inode.0, sectors.start, u32::MAX).successor().unwrap_or(Bpos::MAX);
        // Behind all extents of the file: their snapshots are below this one's successor.
        let end = Bpos::new(inode.0, u64::MAX, u32::MAX).successor().unwrap_or(Bpos::MAX);
        let raw = cursor(if sectors.is_empty() { min..min } else { min..end });
        let sectors_end = Some(sectors.end);
        SnapshotCursor { raw, view: view.clone(), sectors_end, passed: None, current: Current::None }
    }
}

impl SnapshotCursor<'_> {
    /// Who looks.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Moves in front of the first key at or above (inode, offset) of `pos`; for extents, in front of the first that ends
    /// behind that sector. Not out of the range.
    pub fn seek(&mut self, pos: Bpos) {
        self.passed = None;
        self.current = Current::None;
        self.raw.seek(match self.sectors_end {
            None => pos.with_snapshot(0),
            Some(_) => pos.nosnap_successor().unwrap_or(Bpos::MAX),
        });
    }

    /// Moves behind the last key of the range.
    ///
    /// # Errors
    /// For extents, if a node at the end of the range cannot be had.
    pub fn seek_end(&mut self) -> Result<()> {
        self.passed = None;
        self.current = Current::None;
        let Some(end) = self.sectors_end else {
            self.raw.seek_end();
            return Ok(());
        };
        // The last in range may end behind the range: it is the first that ends there, if it begins before.
        self.raw.seek(Bpos::new(self.raw.range_min().inode, end, 0));
        self.step_next()?;
        self.current = Current::None;
        Ok(())
    }

    /// Moves behind the next visible key and lends it; `None` at the end of the range.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    #[allow(clippy::should_implement_trait, reason = "it lends, an iterator cannot")]
    pub fn next(&mut self) -> Result<Option<Key<'_>>> {
        Ok(if self.step_next()? { self.key() } else { None })
    }

    /// Moves in front of the previous visible key and lends it; `None` at the start of the range.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    pub fn prev(&mut self) -> Result<Option<Key<'_>>> {
        Ok(if self.step_prev()? { self.key() } else { None })
    }

    /// The key last stepped over, by `next` or `prev`; `None` after anything else.
    pub fn key(&self) -> Option<Key<'_>> {
        match &self.current {
            Current::None => None,
            Current::Raw => self.raw.key(),
            Current::Kept(handle) => Some(handle.key()),
        }
    }

    /// [`SnapshotCursor::key`], to keep.
    pub fn handle(&self) -> Option<KeyHandle> {
        match &self.current {
            Current::None => None,
            Current::Raw => self.raw.handle(),
            Current::Kept(handle) => Some(handle.clone()),
        }
    }

    /// As [`SnapshotCursor::next`], without lending: whether there was a key.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    pub fn step_next(&mut self) -> Result<bool> {
        self.current = Current::None;
        let mut hidden = 0;
        while self.raw.step_next()? {
            let pos = self.raw.pos().expect("a step found a key");
            let passed = self.passed == Some(slot(pos));
            if passed || !self.view.sees(pos.snapshot) {
                hidden += 1;
                if hidden >= STEPS_BEFORE_SEARCH {
                    hidden = 0;
                    self.skip_hidden(pos, passed);
                }
                continue;
            }
            let key = self.raw.key().expect("a step found a key").k;
            if let Some(end) = self.sectors_end {
                // No extent in sight reaches from behind a whiteout of this type to before it (spec 80 §5.12).
                let nothing_behind = key.ty == KeyType::EXTENT_WHITEOUT && pos.offset >= end;
                let begins_behind = !key.ty.is_snapshot_whiteout() && start(&key) >= end;
                if nothing_behind || begins_behind {
                    // Back in front of it, or the next step would take what it hides for the nearest.
                    self.raw.step_prev()?;
                    return Ok(false);
                }
            }
            self.passed = Some(slot(pos));
            if !key.ty.is_snapshot_whiteout() {
                self.current = Current::Raw;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the plain cursor from behind a hidden key at `pos` past others that must be hidden as well.
    fn skip_hidden(&mut self, pos: Bpos, passed: bool) {
        let to = if passed {
            pos.nosnap_successor()
        } else if pos.snapshot < self.view.id().0 {
            Some(pos.with_snapshot(self.view.id().0))
        } else {
            None
        };
        if let Some(to) = to {
            self.raw.seek(to);
        }
    }

    /// As [`SnapshotCursor::prev`], without lending: whether there was a key.
    ///
    /// # Errors
    /// If a node cannot be had. The cursor stays where it was.
    pub fn step_prev(&mut self) -> Result<bool> {
        self.current = Current::None;
        while self.raw.step_prev()? {
            let last = self.raw.pos().expect("a step found a key");
            let nearest = match self.nearest_of_slot(last) {
                Ok(nearest) => nearest,
                Err(error) => {
                    self.raw.step_back_to(last.successor().unwrap_or(Bpos::MAX));
                    return Err(error);
                }
            };
            self.passed = None;
            let Some(handle) = nearest else { continue };
            let key = handle.key().k;
            let out_of_range = self.sectors_end.is_some_and(|end| start(&key) >= end);
            if !key.ty.is_snapshot_whiteout() && !out_of_range {
                self.current = Current::Kept(handle);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// With the plain cursor in front of the key at `last`, moves it in front of all keys of the same (inode, offset) and
    /// returns the nearest visible one.
    fn nearest_of_slot(&mut self, last: Bpos) -> Result<Option<KeyHandle>> {
        let begin = Bpos::new(last.inode, last.offset, 0);
        let mut nearest = None;
        let mut pos = last;
        loop {
            if self.view.sees(pos.snapshot) {
                nearest = self.raw.handle();
            }
            if pos.snapshot <= self.view.id().0 {
                self.raw.seek(begin);
                return Ok(nearest);
            }
            match self.raw.step_prev() {
                Ok(true) => {}
                Ok(false) => return Ok(nearest),
                // The lost keys are all of other slots.
                Err(e) if e.span().is_some_and(|lost| lost.max < begin) => {
                    self.raw.seek(begin);
                    return Ok(nearest);
                }
                Err(e) => return Err(e),
            }
            pos = self.raw.pos().expect("a step found a key");
            if slot(pos) != slot(last) {
                self.raw.step_next()?;
                return Ok(nearest);
            }
        }
    }

    /// After a step that failed because a node cannot be had: moves past the positions that are lost with it, in the
    /// direction of that step, and returns their range. `None`, and no movement, after anything else.
    pub fn skip_bad_node(&mut self) -> Option<Span> {
        let (span, forward) = self.raw.skip_bad_node_directed()?;
        self.current = Current::None;
        // Going forward, the nearest key of the last slot may be among the lost.
        self.passed = forward.then_some(slot(span.max));
        Some(span)
    }
}

impl fmt::Debug for SnapshotCursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotCursor({:?} seen by {})", self.raw, self.view.id())
    }
}
