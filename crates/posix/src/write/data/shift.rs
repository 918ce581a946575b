//! Taking a range out of a file, putting a hole in; and finishing, after a crash, what was interrupted (spec 40 §14.1).
//!
//! Everything behind the range moves, key by key, in as many transactions as it takes. A record says how far it has come, and moves along in the same
//! transactions; so whoever finds it goes on where it stands. [`crate::unfinished`] shows such a file, on a volume that is only read, as it
//! is going to be.
//!
//! What a snapshot above still sees stays there when it moves here. No two extents may point to the same place on a device (they would have one
//! backpointer between them, spec 50 §2.6), so such data becomes shared first, as by cloning.

use std::ops::Range;

use frazil_btree::write::CommitError;
use frazil_ondisk::superblock::features::Features;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::extent::cut_front;
use frazil_ondisk::values::logged_op::{FinsertState, LoggedFinsert, LoggedTruncate};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::clone::{has_data, pointer_key};
use crate::attr::NodeId;
use crate::error::{Error, Result};
use crate::write::caller::Caller;
use crate::write::front::Front;
use crate::write::op::{Object, Op};

/// Keys that one transaction moves.
const KEYS_MAX: usize = 8;

impl Front<'_> {
    /// Takes whole blocks out of a file.
    pub(super) fn collapse(
        &self,
        node: NodeId,
        file: &Object,
        bytes: Range<u64>,
        caller: &Caller<'_>,
    ) -> Result<()> {
        self.must_be_blocks(&bytes)?;
        if bytes.end >= file.inode.size {
            return Err(Error::Invalid("the range reaches the end of the file"));
        }
        let (o, len) = (bytes.start / SECTOR_BYTES, (bytes.end - bytes.start) / SECTOR_BYTES);
        let op = LoggedFinsert {
            state: FinsertState::START,
            subvol: node.subvol,
            inum: node.inum,
            dst_offset: o.wrapping_sub(len),
            src_offset: o,
            pos: o,
        };
        self.run_shift(op, caller)
    }

    /// Puts a hole of whole blocks into a file.
    pub(super) fn insert(
        &self,
        node: NodeId,
        file: &Object,
        bytes: Range<u64>,
        caller: &Caller<'_>,
    ) -> Result<()> {
        self.must_be_blocks(&bytes)?;
        if bytes.start >= file.inode.size {
            return Err(Error::Invalid("the range is behind the end of the file"));
        }
        if file.inode.size + (bytes.end - bytes.start) > super::SIZE_MAX {
            return Err(Error::TooLarge("the file"));
        }
        let o = bytes.start / SECTOR_BYTES;
        let op = LoggedFinsert {
            state: FinsertState::START,
            subvol: node.subvol,
            inum: node.inum,
            dst_offset: bytes.end / SECTOR_BYTES,
            src_offset: o,
            pos: u64::MAX,
        };
        self.run_shift(op, caller)
    }

    fn must_be_blocks(&self, bytes: &Range<u64>) -> Result<()> {
        let whole =
            bytes.start.is_multiple_of(self.block_bytes()) && bytes.end.is_multiple_of(self.block_bytes());
        if whole { Ok(()) } else { Err(Error::Invalid("the range is not whole blocks")) }
    }

    fn run_shift(&self, op: LoggedFinsert, caller: &Caller<'_>) -> Result<()> {
        let at = self.change(|t| {
            // Times and set-id bits change now, and not again, however much later the rest is done.
            let mut file = t.content(node_of(&op))?;
            t.touch_content(&mut file, Some(caller))?;
            t.put(&file);
            t.log_operation(KeyType::LOGGED_OP_FINSERT, encode(&op))
        })?;
        let done = self.finish_shift(at, op);
        if let Err(error) = &done {
            // Nobody may use a file that is half moved, and the next start goes on from the record: so nothing may be written any more.
            self.live.lifecycle().fail(&format!("inode {} is half shifted: {error}", node_of(&op)));
        }
        done
    }

    /// Goes on with a shift from where its record at `at` stands.
    fn finish_shift(&self, at: Bpos, mut op: LoggedFinsert) -> Result<()> {
        if self.change(|t| Ok(t.get_snapshot(t.object(node_of(&op))?.place.view.id())?.parent.0 != 0))? {
            self.use_feature(Features::REFLINK)?;
        }
        loop {
            match self.change(|t| t.shift_step(at, op))? {
                Some(next) => op = next,
                None => return Ok(()),
            }
        }
    }

    /// Finishes every operation that a crash interrupted. Call it before anybody uses the files.
    ///
    /// # Errors
    /// The general ones.
    pub fn finish_interrupted(&self) -> Result<u64> {
        let mut found = Vec::new();
        let mut cursor = self.names.btrees.cursor(BtreeId::LOGGED_OPS, Bpos::MIN..Bpos::new(1, 0, 0));
        while let Some(key) = cursor.next()? {
            found.push(key.to_owned());
        }
        drop(cursor);
        let number = found.len() as u64;
        for key in found {
            let bad = |e: frazil_ondisk::DecodeError| Error::Io(format!("logged_ops {}: {e}", key.k.pos));
            let done = match key.k.ty {
                KeyType::LOGGED_OP_TRUNCATE => {
                    let op = LoggedTruncate::decode(&key.value).map_err(bad)?;
                    self.resume_truncate(key.k.pos, &op)
                }
                KeyType::LOGGED_OP_FINSERT => {
                    self.finish_shift(key.k.pos, LoggedFinsert::decode(&key.value).map_err(bad)?)
                }
                _ => continue,
            };
            match done {
                // Who it was for is gone, and so is the reason.
                Err(Error::Stale(_)) => self.change(|t| {
                    t.t.delete(BtreeId::LOGGED_OPS, key.k.pos);
                    Ok(())
                })?,
                done => done?,
            }
        }
        Ok(number)
    }

    fn resume_truncate(&self, at: Bpos, op: &LoggedTruncate) -> Result<()> {
        let node = NodeId { subvol: op.subvol, inum: op.inum };
        self.change(|t| {
            let mut file = t.content(node)?;
            file.inode.size = op.new_size;
            t.put(&file);
            Ok(())
        })?;
        self.finish_truncate(at, node, op.new_size.next_multiple_of(self.block_bytes()) / SECTOR_BYTES)
    }
}

fn node_of(op: &LoggedFinsert) -> NodeId {
    NodeId { subvol: op.subvol, inum: op.inum }
}

fn encode(op: &LoggedFinsert) -> Vec<u8> {
    let mut value = Vec::with_capacity(40);
    op.encode(&mut value);
    value
}

/// Sectors by which things move: forwards, if a hole is put in.
fn distance(op: &LoggedFinsert) -> i64 {
    op.dst_offset.wrapping_sub(op.src_offset) as i64
}

impl Op<'_, '_> {
    /// One transaction of a shift; the record as it is then, or `None` if that was the last.
    fn shift_step(&mut self, at: Bpos, mut op: LoggedFinsert) -> Result<Option<LoggedFinsert>> {
        let mut file = self.content(node_of(&op))?;
        let by = distance(&op);
        if op.state == FinsertState::START {
            if by < 0 {
                let end = self.make_hole(&mut file, op.src_offset..op.src_offset + by.unsigned_abs())?;
                if end == op.src_offset + by.unsigned_abs() {
                    op.state = FinsertState::SHIFT_EXTENTS;
                }
            } else {
                file.inode.size = file.inode.size.saturating_add(by.unsigned_abs() * SECTOR_BYTES);
                op.state = FinsertState::SHIFT_EXTENTS;
            }
        } else if op.state == FinsertState::SHIFT_EXTENTS {
            let moved =
                if by < 0 { self.move_down(&mut file, &mut op)? } else { self.move_up(&mut file, &mut op)? };
            if !moved {
                if by < 0 {
                    file.inode.size = file.inode.size.saturating_sub(by.unsigned_abs() * SECTOR_BYTES);
                }
                op.state = FinsertState::FINISH;
            }
        }
        self.put(&file);
        if op.state == FinsertState::FINISH {
            self.t.delete(BtreeId::LOGGED_OPS, at);
            return Ok(None);
        }
        self.t.put(BtreeId::LOGGED_OPS, KeyBuf::new(KeyType::LOGGED_OP_FINSERT, at, 0, encode(&op)));
        Ok(Some(op))
    }

    /// Moves some keys at and behind `pos` down. False if there are none.
    fn move_down(&mut self, file: &mut Object, op: &mut LoggedFinsert) -> Result<bool> {
        let mut keys = Vec::new();
        let mut cursor = self.t.visible_extents(&file.place.view, file.inum, op.pos..u64::MAX);
        while keys.len() < KEYS_MAX
            && let Some(key) = cursor.next()?
        {
            keys.push(key.to_owned());
        }
        drop(cursor);
        let found = !keys.is_empty();
        for key in keys {
            let end = key.k.pos.offset;
            let key = self.movable(file, key)?;
            self.move_key(file, key, distance(op))?;
            op.pos = end;
        }
        Ok(found)
    }

    /// Moves some keys before `pos` up, the last first. False if there are none behind where the hole goes.
    fn move_up(&mut self, file: &mut Object, op: &mut LoggedFinsert) -> Result<bool> {
        let mut keys = Vec::new();
        let mut cursor = self.t.visible_extents(&file.place.view, file.inum, op.src_offset..op.pos);
        cursor.seek_end()?;
        while keys.len() < KEYS_MAX
            && let Some(key) = cursor.prev()?
        {
            keys.push(key.to_owned());
        }
        drop(cursor);
        let found = !keys.is_empty();
        for key in keys {
            let mut key = self.movable(file, key)?;
            let start = key.k.pos.offset - u64::from(key.k.size);
            if start < op.src_offset {
                // Of one that straddles the border only what is behind it moves.
                let cut = (op.src_offset - start) as u32;
                cut_front(&mut key, cut).map_err(|e| Error::Io(format!("extent {}: {e}", key.k.pos)))?;
            }
            let start = key.k.pos.offset - u64::from(key.k.size);
            self.move_key(file, key, distance(op))?;
            op.pos = start;
        }
        Ok(found)
    }

    /// A key that may also be somewhere else: what it holds is shared if a snapshot above keeps it.
    fn movable(&mut self, file: &Object, key: KeyBuf) -> Result<KeyBuf> {
        let is_own = key.k.pos.snapshot == file.place.view.id().0;
        if is_own || key.k.ty != KeyType::EXTENT || !has_data(&key)? {
            return Ok(key);
        }
        let pointer = self.pointer_to(&key)?;
        Ok(pointer_key(pointer, key.k.pos, key.k.size))
    }

    /// Moves one key.
    fn move_key(&mut self, file: &mut Object, key: KeyBuf, by: i64) -> Result<()> {
        let (start, end) = (key.k.pos.offset - u64::from(key.k.size), key.k.pos.offset);
        if self.make_hole(file, start..end)? != end {
            return Err(Error::from(CommitError::Inconsistent(format!(
                "extent {}: keys overlap",
                key.k.pos
            ))));
        }
        let mut moved = key;
        moved.k.pos.offset = end.wrapping_add_signed(by);
        match self.put_extent(file, moved)? {
            None => Ok(()),
            Some(rest) => {
                let why = format!("extent {}: there is something where a hole should be", rest.k.pos);
                Err(Error::from(CommitError::Inconsistent(why)))
            }
        }
    }
}
