//! Changing ranges of a file: extents are cut, hidden and replaced (spec 30 §9.3, spec 40 §8).
//!
//! A position in the extents b-tree is the *end* of a range, and what a snapshot sees is decided position by position. So whoever puts an extent
//! over a range has to see to it that every end he covers shows nothing of what was there: his own old keys go or are cut; over an
//! ancestor's, which others still see, lies a whiteout at its end. An ancestor's extent that is covered in part is cut too, in the
//! ancestor, into pieces that together are what it was; and those of its descendants that had hidden the whole must not suddenly see a
//! piece, so they get whiteouts where the pieces end.

use std::ops::Range;

use frazil_ondisk::units::{Inum, SnapshotId};
use frazil_ondisk::values::extent::{cut_back, cut_front};
use frazil_ondisk::{Bpos, BtreeId, DecodeError, KeyBuf, KeyType};

use super::hooks::CommitError;
use super::transaction::Transaction;
use crate::error::{Error, Result};
use crate::snapshots::View;

/// Keys that one call covers at most.
const KEYS_MAX: usize = 256;

/// How far a change of a range came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overwritten {
    /// The sector up to which it is done; the rest takes another call.
    pub end: u64,
    /// Sectors in it that were in use, as `bi_sectors` counts them (spec 40 §2.5).
    pub sectors: u64,
}

/// Whether sectors under such a key count as used by their file.
fn is_allocated(ty: KeyType) -> bool {
    matches!(
        ty,
        KeyType::EXTENT | KeyType::RESERVATION | KeyType::REFLINK_P | KeyType::INLINE_DATA | KeyType::ERROR
    )
}

fn malformed(pos: Bpos, reason: DecodeError) -> Error {
    Error::BadKey { btree: BtreeId::EXTENTS, pos, reason }
}

/// The part of an extent between two sectors that it covers.
fn piece(old: &KeyBuf, from: u64, to: u64) -> Result<KeyBuf> {
    let mut key = old.clone();
    let start = key.k.pos.offset - u64::from(key.k.size);
    cut_back(&mut key, (to - start) as u32);
    cut_front(&mut key, (from - start) as u32).map_err(|reason| malformed(old.k.pos, reason))?;
    Ok(key)
}

impl Transaction<'_> {
    /// Puts an extent where a snapshot sees it, in place of whatever it sees there. The extent is cut shorter if too many keys are in the way.
    ///
    /// # Errors
    /// If a node cannot be had or a key in the way cannot be decoded.
    ///
    /// # Panics
    /// If the key covers nothing.
    pub fn insert_extent(
        &mut self,
        view: &View,
        mut key: KeyBuf,
    ) -> std::result::Result<Overwritten, CommitError> {
        let end = key.k.pos.offset;
        let start = end - u64::from(key.k.size);
        assert!(start < end, "an extent covers something");
        let (inode, sectors) = (Inum(key.k.pos.inode), start..end);
        let (done, olds) = self.make_way(view, inode, sectors, false)?;
        cut_back(&mut key, (done.end - start) as u32);
        key.k.pos.snapshot = view.id().0;
        self.put(BtreeId::EXTENTS, key);
        drop(olds);
        Ok(done)
    }

    /// Makes a snapshot see nothing in a range.
    ///
    /// # Errors
    /// If a node cannot be had or a key in the way cannot be decoded.
    pub fn remove_extents(
        &mut self,
        view: &View,
        inode: Inum,
        sectors: Range<u64>,
    ) -> std::result::Result<Overwritten, CommitError> {
        let (done, olds) = self.make_way(view, inode, sectors, true)?;
        let own = view.id().0;
        // Of an ancestor's extent that goes on behind the range, the middle piece ends where the range does, and nothing lies over it.
        if let Some(last) = olds.last()
            && last.k.pos.snapshot != own
            && last.k.pos.offset > done.end
        {
            let pos = Bpos::new(inode.0, done.end, own);
            self.put(BtreeId::EXTENTS, KeyBuf::new(KeyType::WHITEOUT, pos, 0, []));
        }
        Ok(done)
    }

    /// Clears a range for a snapshot, except for what `hole` says: if there will be no key at its end. Returns what was in the way.
    fn make_way(
        &mut self,
        view: &View,
        inode: Inum,
        sectors: Range<u64>,
        hole: bool,
    ) -> Result<(Overwritten, Vec<KeyBuf>)> {
        let Range { start: a, end: mut b } = sectors.clone();
        let mut olds = Vec::new();
        let keys_max = self.keys_max(KEYS_MAX);
        let mut cursor = self.visible_extents(view, inode, sectors);
        while let Some(key) = cursor.next()? {
            if olds.len() == keys_max {
                b = key.k.start_offset().unwrap_or(0).clamp(a + 1, b);
                break;
            }
            if key.k.start_offset().is_none() {
                let reason = DecodeError::invalid("extent", "it is longer than the file before its end");
                return Err(malformed(key.k.pos, reason));
            }
            olds.push(key.to_owned());
        }
        drop(cursor);
        let mut used = 0;
        for old in &olds {
            let (start, end) = (old.k.pos.offset - u64::from(old.k.size), old.k.pos.offset);
            if is_allocated(old.k.ty) {
                used += end.min(b) - start.max(a);
            }
            self.cut_out(view, old, a..b, hole)?;
        }
        Ok((Overwritten { end: b, sectors: used }, olds))
    }

    /// Takes the range out of what the snapshot sees of one extent.
    fn cut_out(&mut self, view: &View, old: &KeyBuf, range: Range<u64>, hole: bool) -> Result<()> {
        let Range { start: a, end: b } = range;
        let (start, end) = (old.k.pos.offset - u64::from(old.k.size), old.k.pos.offset);
        let (front, back) = (start < a, end > b);
        let inherited = old.k.pos.snapshot != view.id().0;
        if front {
            self.put_piece(view, old, start, a)?;
        }
        if inherited && (front || back) {
            self.put_piece(view, old, a.max(start), b.min(end))?;
        }
        if end < b || (end == b && hole) {
            self.delete_visible(BtreeId::EXTENTS, old.k.pos, view)?;
        }
        if back {
            self.put(BtreeId::EXTENTS, piece(old, b, end)?);
        }
        Ok(())
    }

    /// Puts a piece of an extent, in its own snapshot, and hides it from those descendants that had hidden the whole.
    fn put_piece(&mut self, view: &View, old: &KeyBuf, from: u64, to: u64) -> Result<()> {
        let piece = piece(old, from, to)?;
        let at = piece.k.pos;
        self.put(BtreeId::EXTENTS, piece);
        if at.offset == old.k.pos.offset {
            return Ok(());
        }
        let table = view.table();
        let owner = SnapshotId(old.k.pos.snapshot);
        let mut hiders: Vec<SnapshotId> = Vec::new();
        let mut cursor = self.cursor(BtreeId::EXTENTS, old.k.pos.with_snapshot(0)..old.k.pos);
        // Nearest first: children have smaller ids than their parents.
        cursor.seek_end();
        while let Some(key) = cursor.prev()? {
            let id = SnapshotId(key.k.pos.snapshot);
            let nearer = hiders.iter().any(|&hider| table.is_ancestor(hider, id));
            if id != owner && table.is_ancestor(owner, id) && !nearer {
                hiders.push(id);
            }
        }
        drop(cursor);
        for id in hiders {
            let at = at.with_snapshot(id.0);
            if self.get(BtreeId::EXTENTS, at)?.is_none() {
                self.put(BtreeId::EXTENTS, KeyBuf::new(KeyType::WHITEOUT, at, 0, []));
            }
        }
        Ok(())
    }
}
