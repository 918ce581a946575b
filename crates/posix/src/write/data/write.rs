//! Writing.

use std::borrow::Cow;
use std::ops::Range;

use frazil_ondisk::superblock::features::Features;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::values::reservation::Reservation;
use frazil_ondisk::{Bpos, KeyBuf, KeyType};
use frazil_volume::write::data::WrittenExtent;
use frazil_volume::write::space::DiskReservation;

use super::{SIZE_MAX, regular, sectors};
use crate::attr::NodeId;
use crate::error::{Error, Result};
use crate::write::caller::{Caller, must_be_mutable, must_not_append_only};
use crate::write::front::Front;
use crate::write::op::Object;

/// Extents that one transaction puts in.
const EXTENTS_MAX: usize = 16;
/// Bytes that are written before their extents are put in: what a larger write that fails midway has done is kept.
const CHUNK_BYTES: usize = 8 << 20;

/// Blocks with new content, ready to be stored.
pub(super) struct Blocks<'d> {
    /// Byte of the file where they begin.
    pub(super) start: u64,
    /// Borrowed if the data that is written is whole blocks already, so that large writes are not copied.
    pub(super) bytes: Cow<'d, [u8]>,
}

impl Front<'_> {
    /// Writes to a regular file, and makes it longer if need be. Returns when the data is in the file (though maybe not durable): how many bytes, fewer than
    /// all only if the rest failed.
    ///
    /// # Errors
    /// `IsDirectory`, `NotPermitted` (immutable, or append-only and not at the end), `TooLarge` beyond the largest offset, `NoSpace`, `Io`.
    pub fn write(&self, node: NodeId, offset: u64, data: &[u8], caller: &Caller<'_>) -> Result<usize> {
        let _content = self.content.write(node);
        let mut done = 0;
        while done < data.len() {
            let part = &data[done..data.len().min(done + CHUNK_BYTES)];
            match self.write_part(node, offset.saturating_add(done as u64), part, Some(caller)) {
                Ok(()) => done += part.len(),
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Appends to a regular file; otherwise as [`Front::write`]. Also where it was put.
    ///
    /// # Errors
    /// As there.
    pub fn append(&self, node: NodeId, data: &[u8], caller: &Caller<'_>) -> Result<(u64, usize)> {
        let _content = self.content.write(node);
        let size = self.getattr(node)?.size;
        self.write_part(node, size, data, Some(caller))?;
        Ok((size, data.len()))
    }

    /// Writes under the content lock.
    pub(super) fn write_part(
        &self,
        node: NodeId,
        offset: u64,
        data: &[u8],
        caller: Option<&Caller<'_>>,
    ) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        let end = end.ok_or(Error::TooLarge("the file"))?;
        let file = self.look(node)?;
        if offset < file.inode.size {
            must_not_append_only(&file.inode)?;
        }
        let blocks = self.blocks_with(node, &file, offset, data)?;
        self.store(node, &file, &blocks, Some(end), caller)
    }

    /// A regular file as it is now, not within a transaction: only who holds the content lock changes its content.
    pub(super) fn look(&self, node: NodeId) -> Result<Object> {
        let file = self.change(|op| regular(op.writable(node)?))?;
        must_be_mutable(&file.inode)?;
        Ok(file)
    }

    /// The blocks that `data` falls into, filled up with what is in the file around it.
    pub(super) fn blocks_with<'d>(
        &self,
        node: NodeId,
        file: &Object,
        offset: u64,
        data: &'d [u8],
    ) -> Result<Blocks<'d>> {
        let end = offset + data.len() as u64;
        let around = self.blocks_around(&(offset..end));
        if around == (offset..end) {
            return Ok(Blocks { start: offset, bytes: Cow::Borrowed(data) });
        }
        let mut bytes = vec![0; (around.end - around.start) as usize];
        let block = self.block_bytes() as usize;
        let at = (offset - around.start) as usize;
        if at > 0 {
            self.fill(node, file, around.start, &mut bytes[..block])?;
        }
        let tail = bytes.len() - block;
        if end < around.end && (tail > 0 || at == 0) {
            self.fill(node, file, around.end - block as u64, &mut bytes[tail..])?;
        }
        bytes[at..at + data.len()].copy_from_slice(data);
        Ok(Blocks { start: around.start, bytes: Cow::Owned(bytes) })
    }

    /// What is in the file; zeros behind its end.
    pub(super) fn fill(&self, node: NodeId, file: &Object, start: u64, into: &mut [u8]) -> Result<()> {
        let len = file.inode.size.saturating_sub(start).min(into.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            match self.files().read(node, start + done as u64, &mut into[done..len])? {
                0 => break,
                read => done += read,
            }
        }
        into[done..].fill(0);
        Ok(())
    }

    /// Stores blocks and puts them into the file; `end` makes it at least so long.
    pub(super) fn store(
        &self,
        node: NodeId,
        file: &Object,
        blocks: &Blocks<'_>,
        end: Option<u64>,
        caller: Option<&Caller<'_>>,
    ) -> Result<()> {
        let size = file.inode.size.max(end.unwrap_or(0));
        if let Some(key) = self.inline(file, blocks, size) {
            self.must_have_room()?;
            self.use_feature(Features::INLINE_DATA)?;
            return self.put_all(node, vec![(key, ())], size, caller);
        }
        let place = self.placement(file.inum, &file.inode)?;
        let _promise = self.promise_blocks(node, blocks, place.replicas)?;
        let at = Sectors(blocks.start / SECTOR_BYTES);
        let written = self.live.data().write(file.inum, at, &blocks.bytes, &place)?;
        let held = written.into_iter().map(|WrittenExtent { key, hold }| (key, hold));
        self.put_all(node, held.collect(), size, caller)
    }

    /// Promises room for blocks of a file. What is reserved where they go is theirs, however full the volume is: the commit that puts them there
    /// gives it back.
    fn promise_blocks(&self, node: NodeId, blocks: &Blocks, replicas: u8) -> Result<DiskReservation> {
        let bytes = blocks.bytes.len() as u64;
        match self.promise(bytes, replicas) {
            Err(Error::NoSpace) => {}
            done => return done,
        }
        let range = sectors(&(blocks.start..blocks.start + bytes));
        match bytes - self.reserved(node, range, replicas)? * SECTOR_BYTES {
            0 => Ok(self.live.space().reserve_anyway(Sectors(0))),
            rest if rest < bytes => self.promise(rest, replicas),
            _ => Err(Error::NoSpace),
        }
    }

    /// Sectors of a range that are reserved for at least so many copies, and that a write there gives back: not those of another snapshot.
    fn reserved(&self, node: NodeId, range: Range<u64>, replicas: u8) -> Result<u64> {
        let subvol = self.names.subvol(node.subvol)?.ok_or(Error::Stale(node))?;
        let mut cursor = self.names.btrees.visible_extents(&subvol.view, node.inum, range.clone());
        let mut reserved = 0;
        while let Some(key) = cursor.next()? {
            let own = key.k.ty == KeyType::RESERVATION && key.k.pos.snapshot == subvol.view.id().0;
            if own && Reservation::decode(key.value).is_ok_and(|found| found.nr_replicas >= replicas) {
                let start = key.k.start_offset().unwrap_or(0).max(range.start);
                reserved += key.k.pos.offset.min(range.end).saturating_sub(start);
            }
        }
        Ok(reserved)
    }

    /// Puts extents into a file in order. Its size follows, up to `size`.
    fn put_all<H>(
        &self,
        node: NodeId,
        extents: Vec<(KeyBuf, H)>,
        size: u64,
        caller: Option<&Caller<'_>>,
    ) -> Result<()> {
        let mut rest: std::collections::VecDeque<(KeyBuf, H)> = extents.into();
        while !rest.is_empty() {
            let batch: Vec<KeyBuf> = rest.iter().take(EXTENTS_MAX).map(|(key, _)| key.clone()).collect();
            // How many are in whole, and what is left of the one behind them.
            let (whole, left) = self.change(|op| {
                let mut file = op.content(node)?;
                let (mut whole, mut left) = (0, None);
                for key in batch.iter().take(op.t.keys_max(EXTENTS_MAX)) {
                    let end = key.k.pos.offset;
                    left = op.put_extent(&mut file, key.clone())?;
                    let done = left.as_ref().map_or(end, |rest| rest.k.start_offset().unwrap_or(end));
                    file.inode.size = file.inode.size.max(size.min(done * SECTOR_BYTES));
                    if left.is_some() {
                        break;
                    }
                    whole += 1;
                }
                op.touch_content(&mut file, caller)?;
                op.put(&file);
                Ok((whole, left))
            })?;
            rest.drain(..whole);
            if let (Some(left), Some(first)) = (left, rest.front_mut()) {
                first.0 = left;
            }
        }
        Ok(())
    }

    /// Data so short that it is stored in its key, if it reaches to the end of the file (spec 40 §7.5).
    fn inline(&self, file: &Object, blocks: &Blocks<'_>, size: u64) -> Option<KeyBuf> {
        let len = size.checked_sub(blocks.start)?;
        let one = blocks.bytes.len() as u64 == self.block_bytes();
        if !one || len > self.inline_max as u64 {
            return None;
        }
        let mut value = blocks.bytes[..len as usize].to_vec();
        value.resize(value.len().next_multiple_of(8), 0);
        let sectors = self.block_bytes() / SECTOR_BYTES;
        let pos = Bpos::new(file.inum.0, blocks.start / SECTOR_BYTES + sectors, 0);
        Some(KeyBuf::new(KeyType::INLINE_DATA, pos, sectors as u32, value))
    }
}
