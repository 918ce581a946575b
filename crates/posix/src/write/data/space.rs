//! The size of a file, and the space behind its content.

use std::ops::Range;

use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::logged_op::LoggedTruncate;
use frazil_ondisk::values::reservation::Reservation;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::{SIZE_MAX, sectors};
use crate::attr::NodeId;
use crate::error::{Error, Result};
use crate::write::caller::{Caller, must_not_append_only};
use crate::write::front::Front;
use crate::write::op::{Object, Op};

/// Holes that one transaction reserves space for.
const HOLES_MAX: usize = 32;

/// What to do with a range of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// Reserve space where there is none.
    Reserve {
        /// Do not make the file longer.
        keep_size: bool,
    },
    /// Replace the content by zeros, and reserve space.
    Zero {
        /// Do not make the file longer.
        keep_size: bool,
    },
    /// Make a hole.
    Punch,
    /// Take the range out.
    Collapse,
    /// Put in a hole.
    Insert,
    /// Give the file data of its own where it shares any.
    Unshare,
}

impl Front<'_> {
    /// Makes a regular file that long.
    ///
    /// # Errors
    /// `IsDirectory`, `NotPermitted`, `TooLarge`, `NoSpace`, `Io`.
    pub fn truncate(&self, node: NodeId, size: u64, caller: &Caller<'_>) -> Result<()> {
        if size > SIZE_MAX {
            return Err(Error::TooLarge("the file"));
        }
        let _shifts = self.snapshot_gate.read();
        let _content = self.content.write(node);
        let file = self.look(node)?;
        must_not_append_only(&file.inode)?;
        if size < file.inode.size {
            self.zero_in_block(node, &file, size..size.next_multiple_of(self.block_bytes()))?;
        }
        let from = size.next_multiple_of(self.block_bytes()) / SECTOR_BYTES;
        let unfinished = self.change(|op| {
            let mut file = op.content(node)?;
            file.inode.size = size;
            op.touch_content(&mut file, Some(caller))?;
            let end = op.make_hole(&mut file, from..u64::MAX)?;
            op.put(&file);
            match end < u64::MAX {
                true => op.begin_truncate(node, size).map(Some),
                false => Ok(None),
            }
        })?;
        unfinished.map_or(Ok(()), |op| self.finish_truncate(op, node, from))
    }

    /// Takes away what is behind the end of a truncated file, and then the record of the operation at `at`.
    pub(super) fn finish_truncate(&self, at: Bpos, node: NodeId, from: u64) -> Result<()> {
        loop {
            let done = self.change(|op| {
                let mut file = op.content(node)?;
                let end = op.make_hole(&mut file, from..u64::MAX)?;
                op.put(&file);
                if end == u64::MAX {
                    op.t.delete(BtreeId::LOGGED_OPS, at);
                }
                Ok(end == u64::MAX)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Changes the space behind a range of a regular file (`fallocate`).
    ///
    /// # Errors
    /// `Invalid` for an empty range, or one not of whole blocks that is to be taken out or put in; `TooLarge`, `NoSpace`, `NotPermitted`, `Io`.
    pub fn allocate(
        &self,
        node: NodeId,
        bytes: Range<u64>,
        how: Allocate,
        caller: &Caller<'_>,
    ) -> Result<()> {
        if bytes.is_empty() {
            return Err(Error::Invalid("an empty range"));
        }
        if bytes.end > SIZE_MAX {
            return Err(Error::TooLarge("the file"));
        }
        let _shifts = self.snapshot_gate.read();
        let _content = self.content.write(node);
        let file = self.look(node)?;
        must_not_append_only(&file.inode)?;
        match how {
            Allocate::Reserve { keep_size } => {
                self.reserve(node, self.blocks_around(&bytes), false, caller)?;
                self.grow(node, bytes.end, keep_size, caller)
            }
            Allocate::Zero { keep_size } => {
                self.zero_edges(node, &file, &bytes)?;
                self.reserve(node, self.blocks_within(&bytes), true, caller)?;
                self.grow(node, bytes.end, keep_size, caller)
            }
            Allocate::Punch => {
                self.zero_edges(node, &file, &bytes)?;
                self.punch(node, self.blocks_within(&bytes))?;
                self.grow(node, 0, true, caller)
            }
            Allocate::Collapse => self.collapse(node, &file, bytes, caller),
            Allocate::Insert => self.insert(node, &file, bytes, caller),
            Allocate::Unshare => {
                self.unshare(node, &file, self.blocks_around(&bytes))?;
                self.grow(node, bytes.end, false, caller)
            }
        }
    }

    /// Makes the file at least that long, unless it is to keep its size, and stamps the change.
    fn grow(&self, node: NodeId, end: u64, keep_size: bool, caller: &Caller<'_>) -> Result<()> {
        self.change(|op| {
            let mut file = op.content(node)?;
            if !keep_size {
                file.inode.size = file.inode.size.max(end);
            }
            op.touch_content(&mut file, Some(caller))?;
            op.put(&file);
            Ok(())
        })
    }

    /// Writes zeros to the parts of a range that are not whole blocks.
    fn zero_edges(&self, node: NodeId, file: &Object, bytes: &Range<u64>) -> Result<()> {
        let within = self.blocks_within(bytes);
        if within.is_empty() && bytes.start / self.block_bytes() == (bytes.end - 1) / self.block_bytes() {
            return self.zero_in_block(node, file, bytes.clone());
        }
        self.zero_in_block(node, file, bytes.start..within.start)?;
        self.zero_in_block(node, file, within.end..bytes.end)
    }

    /// Writes zeros to a part of one block, if the file has anything there.
    fn zero_in_block(&self, node: NodeId, file: &Object, bytes: Range<u64>) -> Result<()> {
        if bytes.is_empty() || bytes.start >= file.inode.size {
            return Ok(());
        }
        let around = self.blocks_around(&bytes);
        let sectors = sectors(&around);
        let is_hole = !self.change(|op| {
            let file = op.object(node)?;
            Ok(op.t.visible_extents(&file.place.view, file.inum, sectors.clone()).step_next()?)
        })?;
        if is_hole {
            return Ok(());
        }
        let zeros = vec![0; (bytes.end - bytes.start) as usize];
        let blocks = self.blocks_with(node, file, bytes.start, &zeros)?;
        self.store(node, file, &blocks, None, None)
    }

    /// Makes whole blocks a hole.
    pub(super) fn punch(&self, node: NodeId, bytes: Range<u64>) -> Result<()> {
        let mut left = sectors(&bytes);
        while !left.is_empty() {
            left.start = self.change(|op| {
                let mut file = op.content(node)?;
                let end = op.make_hole(&mut file, left.clone())?;
                op.put(&file);
                Ok(end)
            })?;
        }
        Ok(())
    }

    /// Reserves space for whole blocks: in holes, or, if the content is to go, everywhere.
    fn reserve(&self, node: NodeId, bytes: Range<u64>, replace: bool, caller: &Caller<'_>) -> Result<()> {
        let mut left = sectors(&bytes);
        while !left.is_empty() {
            let (end, wanted) = self.holes(node, left.clone(), replace)?;
            let total: u64 = wanted.iter().map(|hole| hole.end - hole.start).sum();
            let replicas = {
                let file = self.look(node)?;
                self.placement(file.inum, &file.inode)?.replicas
            };
            let _promise = self.promise(total * SECTOR_BYTES, replicas)?;
            let reached = self.change(|op| {
                op.limit(caller);
                op.put_reservations(node, &wanted, replicas)
            })?;
            left.start = reached.unwrap_or(end);
        }
        Ok(())
    }

    /// The first stretches of a range where space is to be reserved, each as long as a key can be, and where the search ended.
    fn holes(&self, node: NodeId, range: Range<u64>, replace: bool) -> Result<(u64, Vec<Range<u64>>)> {
        let longest =
            u64::from(u32::MAX) / (self.block_bytes() / SECTOR_BYTES) * (self.block_bytes() / SECTOR_BYTES);
        let mut holes: Vec<Range<u64>> = Vec::new();
        let mut at = range.start;
        let add = |holes: &mut Vec<Range<u64>>, from: u64, to: u64| {
            let mut from = from;
            while from < to && holes.len() < HOLES_MAX {
                let end = to.min(from + longest);
                holes.push(from..end);
                from = end;
            }
            from
        };
        if replace {
            at = add(&mut holes, at, range.end);
            return Ok((at, holes));
        }
        let subvol = self.names.subvol(node.subvol)?.ok_or(Error::Stale(node))?;
        let mut cursor = self.names.btrees.visible_extents(&subvol.view, node.inum, range.clone());
        while let Some(key) = cursor.next()? {
            let start = key.k.start_offset().unwrap_or(0).min(range.end);
            if start > at {
                at = add(&mut holes, at, start);
                if at < start || holes.len() == HOLES_MAX {
                    return Ok((at, holes));
                }
            }
            at = at.max(key.k.pos.offset.min(range.end));
        }
        at = add(&mut holes, at, range.end);
        Ok((at, holes))
    }
}

impl Op<'_, '_> {
    /// Puts reservations; `Some(sector)` if it only came so far.
    fn put_reservations(
        &mut self,
        node: NodeId,
        holes: &[Range<u64>],
        nr_replicas: u8,
    ) -> Result<Option<u64>> {
        let mut file = self.content(node)?;
        let mut reached = None;
        for hole in holes {
            let mut value = Vec::with_capacity(8);
            Reservation { generation: 0, nr_replicas, pad: [0; 3] }.encode(&mut value);
            let pos = Bpos::new(file.inum.0, hole.end, 0);
            let size = (hole.end - hole.start) as u32;
            let key = KeyBuf::new(KeyType::RESERVATION, pos, size, value);
            if let Some(rest) = self.put_extent(&mut file, key)? {
                reached = rest.k.start_offset();
                break;
            }
        }
        self.put(&file);
        Ok(reached)
    }

    /// Records that a truncation is under way (spec 40 §14.1).
    fn begin_truncate(&mut self, node: NodeId, size: u64) -> Result<Bpos> {
        let op = LoggedTruncate { subvol: node.subvol, pad: 0, inum: node.inum, new_size: size };
        let mut value = Vec::with_capacity(24);
        op.encode(&mut value);
        self.log_operation(KeyType::LOGGED_OP_TRUNCATE, value)
    }

    /// Puts the record of an operation at the first free place.
    pub(super) fn log_operation(&mut self, ty: KeyType, value: Vec<u8>) -> Result<Bpos> {
        let mut free = 0;
        let mut cursor = self.t.cursor(BtreeId::LOGGED_OPS, Bpos::MIN..Bpos::new(1, 0, 0));
        while let Some(key) = cursor.next()? {
            if key.k.pos.offset > free {
                break;
            }
            free = key.k.pos.offset + 1;
        }
        drop(cursor);
        let pos = Bpos::new(0, free, 0);
        self.t.put(BtreeId::LOGGED_OPS, KeyBuf::new(ty, pos, 0, value));
        Ok(pos)
    }
}
