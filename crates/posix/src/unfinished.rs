//! Operations that a crash interrupted, seen as if they had been finished (spec 40 §14.1).
//!
//! Truncating a file, and inserting or collapsing a range in one, take many transactions. A record in `logged_ops` says how far
//! such an operation has come, so that the next read-write start can finish it. A reader must not show a file that is
//! half shifted, and must not write. But what the file will be can be told from the record alone: every byte of the
//! finished file lies either where it belongs already, or where it was before, at a fixed distance.
//!
//! ```text
//! collapse [o, o+l):  file  0 ────────── B ──────────►       B = max(pos − l, o)
//!                     from  0 ────────── B+l ────────►
//! insert l at o:      file  0 ── o (hole) o+l ─────── pos+l ──►
//!                     from  0 ── o        o ───────── pos+l ──►
//! ```
//!
//! There is nothing to do on a volume that was shut down properly. The space a file takes (`st_blocks`) and its times
//! stay what they were in the middle of the operation.

use std::collections::HashMap;
use std::ops::Range;

use frazil_btree::Btrees;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::values::logged_op::{FinsertState, LoggedFinsert, LoggedTruncate};
use frazil_ondisk::{Bpos, BtreeId, Key, KeyType};

use crate::attr::NodeId;
use crate::error::Result;

/// Operations kept; the reference runs one per task, so a volume that claims more is damaged.
const OPS_MAX: usize = 4096;

/// The files in the middle of an operation.
#[derive(Default)]
pub(crate) struct Unfinished(HashMap<NodeId, Op>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    /// The file has this size.
    Truncate { size: u64 },
    /// `len` bytes are taken out. What is at or behind `settled` in the finished file has yet to move, and the size to shrink.
    Collapse { len: u64, settled: u64 },
    /// `len` bytes of hole are put in at `at`. What is before `settled` in the finished file has yet to move, and the size
    /// perhaps to `grow`.
    Insert { at: u64, len: u64, settled: u64, grow: bool },
}

/// A stretch of a finished file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    /// Where it is in the finished file, in bytes.
    pub(crate) bytes: Range<u64>,
    /// Where its first byte is stored now; `None` for a hole.
    pub(crate) from: Option<u64>,
}

impl Unfinished {
    /// Reads the records.
    ///
    /// # Errors
    /// If the b-tree cannot be read.
    pub(crate) fn load(btrees: &Btrees) -> Result<Unfinished> {
        let mut ops = HashMap::new();
        // Inode 1 holds something else there (spec 80 §5.5).
        let mut cursor = btrees.cursor(BtreeId::LOGGED_OPS, Bpos::MIN..Bpos::new(1, 0, 0));
        while let Some(key) = cursor.next()? {
            if let Some((node, op)) = decode(key) {
                tracing::warn!("an operation on inode {node} was interrupted; it is shown as if finished");
                ops.insert(node, op);
            }
            if ops.len() >= OPS_MAX {
                break;
            }
        }
        Ok(Unfinished(ops))
    }

    /// Makes an inode what it will be.
    #[inline]
    pub(crate) fn settle(&self, node: NodeId, inode: &mut Inode) {
        if self.0.is_empty() {
            return;
        }
        match self.0.get(&node) {
            Some(&Op::Truncate { size }) => inode.size = size,
            Some(&Op::Collapse { len, .. }) => inode.size = inode.size.saturating_sub(len),
            Some(&Op::Insert { len, grow: true, .. }) => inode.size = inode.size.saturating_add(len),
            _ => {}
        }
    }

    /// Where the bytes of a range of a file are stored, in order and without gaps.
    pub(crate) fn stretches(&self, node: NodeId, bytes: Range<u64>) -> impl Iterator<Item = Stretch> {
        let op = if self.0.is_empty() { None } else { self.0.get(&node) };
        let layout = op.map_or(PLAIN, Op::layout);
        let end_of = move |i: usize| layout.get(i + 1).map_or(u64::MAX, |next| next.0);
        (0..layout.len()).filter_map(move |i| {
            let (start, from) = layout[i];
            let part = start.max(bytes.start)..end_of(i).min(bytes.end);
            let from = from.map(|from| from.saturating_add(part.start.saturating_sub(start)));
            (!part.is_empty()).then_some(Stretch { bytes: part, from })
        })
    }
}

/// Where stretches of a file begin, and where their bytes are stored. Empty ones come last.
type Layout = [(u64, Option<u64>); 4];

/// A file that nothing happened to.
const PLAIN: Layout = [(0, Some(0)), (u64::MAX, None), (u64::MAX, None), (u64::MAX, None)];

impl Op {
    fn layout(&self) -> Layout {
        let mut layout = PLAIN;
        match *self {
            Op::Truncate { .. } => {}
            Op::Collapse { len, settled } => layout[1] = (settled, Some(settled.saturating_add(len))),
            Op::Insert { at, len, settled, .. } => {
                let behind = at.saturating_add(len);
                layout[1] = (at, None);
                layout[2] = (behind, Some(at));
                layout[3] = (settled.max(behind), Some(settled.max(behind)));
            }
        }
        layout
    }
}

/// The operation in a key of the logged_ops b-tree.
fn decode(key: Key<'_>) -> Option<(NodeId, Op)> {
    match key.k.ty {
        KeyType::LOGGED_OP_TRUNCATE => {
            let op = LoggedTruncate::decode(key.value).ok()?;
            let node = NodeId { subvol: op.subvol, inum: op.inum };
            Some((node, Op::Truncate { size: op.new_size }))
        }
        KeyType::LOGGED_OP_FINSERT => {
            let op = LoggedFinsert::decode(key.value).ok()?;
            Some((NodeId { subvol: op.subvol, inum: op.inum }, shift(&op)?))
        }
        _ => None,
    }
}

/// What an insert or collapse has yet to do.
fn shift(op: &LoggedFinsert) -> Option<Op> {
    let bytes = |sectors: u64| sectors.saturating_mul(SECTOR_BYTES);
    let by = op.dst_offset.wrapping_sub(op.src_offset) as i64;
    let (at, len) = (bytes(op.src_offset), bytes(by.unsigned_abs()));
    match (by, op.state) {
        (0, _) | (_, FinsertState::FINISH) => None,
        (..0, state) => {
            let pos = if state == FinsertState::START { at } else { bytes(op.pos) };
            let settled = pos.saturating_sub(len).max(at);
            Some(Op::Collapse { len, settled })
        }
        (_, state) => {
            let begun = state != FinsertState::START;
            let pos = if begun { bytes(op.pos) } else { u64::MAX };
            Some(Op::Insert { at, len, settled: pos.saturating_add(len), grow: !begun })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frazil_ondisk::units::{Inum, SubvolId};
    use proptest::prelude::*;

    const NODE: NodeId = NodeId { subvol: SubvolId(1), inum: Inum(5000) };

    fn finsert(state: FinsertState, src: u64, dst: u64, pos: u64) -> LoggedFinsert {
        LoggedFinsert { state, subvol: NODE.subvol, inum: NODE.inum, dst_offset: dst, src_offset: src, pos }
    }

    fn unfinished(op: &LoggedFinsert) -> Unfinished {
        Unfinished(shift(op).map(|op| (NODE, op)).into_iter().collect())
    }

    /// A file is a byte for every sector; 0 is a hole.
    fn seen(stored: &[u8], op: &LoggedFinsert, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for stretch in unfinished(op).stretches(NODE, 0..size as u64 * SECTOR_BYTES) {
            for i in 0..(stretch.bytes.end - stretch.bytes.start) / SECTOR_BYTES {
                let from = stretch.from.map(|from| (from / SECTOR_BYTES + i) as usize);
                out.push(from.and_then(|from| stored.get(from).copied()).unwrap_or(0));
            }
        }
        out
    }

    proptest! {
        /// The reference's loop, stopped anywhere, looks finished.
        #[test]
        fn an_interrupted_collapse_looks_finished(
            file in proptest::collection::vec(0u8..4, 3..40), at: usize, len: usize, steps in 0usize..40,
        ) {
            let len = 1 + len % (file.len() - 2);
            let at = at % (file.len() - len);
            let finished = [&file[..at], &file[at + len..]].concat();
            let mut stored = file.clone();
            stored[at..at + len].fill(0);
            let mut pos = at;
            // One key is one sector here.
            for _ in 0..steps {
                let Some(next) = (pos..stored.len()).find(|&i| stored[i] != 0) else { break };
                stored[next - len] = stored[next];
                stored[next] = 0;
                pos = next + 1;
            }
            let dst = (at as u64).wrapping_sub(len as u64);
            let op = finsert(FinsertState::SHIFT_EXTENTS, at as u64, dst, pos as u64);
            prop_assert_eq!(seen(&stored, &op, finished.len()), finished);
        }

        #[test]
        fn an_interrupted_insert_looks_finished(
            file in proptest::collection::vec(0u8..4, 2..40), at: usize, len in 1usize..10, steps in 0usize..40,
        ) {
            let at = at % file.len();
            let finished = [&file[..at], &vec![0; len], &file[at..]].concat();
            let mut stored = file.clone();
            stored.resize(file.len() + len, 0);
            let mut pos = None;
            for _ in 0..steps {
                let Some(next) = (at..pos.unwrap_or(file.len())).rev().find(|&i| stored[i] != 0) else { break };
                stored[next + len] = stored[next];
                stored[next] = 0;
                pos = Some(next);
            }
            let pos = pos.map_or(u64::MAX, |pos| pos as u64);
            let op = finsert(FinsertState::SHIFT_EXTENTS, at as u64, (at + len) as u64, pos);
            prop_assert_eq!(seen(&stored, &op, finished.len()), finished);
        }

        #[test]
        fn stretches_cover_the_range_whatever_the_record_says(
            state in 0u8..4, src: u64, dst: u64, pos: u64, start: u64, len in 0u64..1 << 40,
        ) {
            let op = finsert(FinsertState(state), src, dst, pos);
            let range = start..start.saturating_add(len);
            let mut at = range.start;
            for stretch in unfinished(&op).stretches(NODE, range.clone()) {
                prop_assert_eq!(stretch.bytes.start, at);
                prop_assert!(!stretch.bytes.is_empty());
                at = stretch.bytes.end;
            }
            prop_assert_eq!(at, range.end);
        }
    }

    #[test]
    fn sizes_are_those_of_the_finished_file() {
        let size = |op: &LoggedFinsert| {
            let mut inode = Inode { size: 100 * SECTOR_BYTES, ..Inode::default() };
            unfinished(op).settle(NODE, &mut inode);
            inode.size / SECTOR_BYTES
        };
        let (collapse, insert) = (16u64.wrapping_sub(8), 16 + 8);
        assert_eq!(size(&finsert(FinsertState::START, 16, collapse, 0)), 92);
        assert_eq!(size(&finsert(FinsertState::SHIFT_EXTENTS, 16, collapse, 30)), 92);
        assert_eq!(size(&finsert(FinsertState::FINISH, 16, collapse, 30)), 100);
        assert_eq!(size(&finsert(FinsertState::START, 16, insert, 0)), 108);
        assert_eq!(size(&finsert(FinsertState::SHIFT_EXTENTS, 16, insert, 30)), 100);
        assert_eq!(size(&finsert(FinsertState::FINISH, 16, insert, 30)), 100);
    }
}
