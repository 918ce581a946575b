//! Sharing data between files, and undoing that (spec 40 §10).
//!
//! What is shared moves into the reflink b-tree once; the files then hold pointers into it, which the triggers count.

use std::ops::Range;

use frazil_ondisk::superblock::features::Features;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::extent::Pointers;
use frazil_ondisk::values::reflink::ReflinkP;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::{SIZE_MAX, sectors};
use crate::attr::NodeId;
use crate::error::{Error, Result};
use crate::write::caller::{Caller, must_not_append_only};
use crate::write::front::Front;
use crate::write::op::{Object, Op};

/// How far one transaction came.
struct Step {
    /// In the source, in sectors.
    at: u64,
}

impl Front<'_> {
    /// Makes a range of one file share the data of a range of another (or of the same, elsewhere), which must be whole blocks; the last may be
    /// the end of the source. Returns how many bytes: all, unless something failed after a part.
    ///
    /// # Errors
    /// `Invalid` for ranges that are not blocks, overlap, or lie behind the end of the source; those of [`Front::write`].
    pub fn clone_range(
        &self,
        from: NodeId,
        source: Range<u64>,
        to: NodeId,
        target: u64,
        caller: &Caller<'_>,
    ) -> Result<u64> {
        let _shifts = self.snapshot_gate.read();
        let _content = self.content.write_two(from, to);
        let (src, dst) = (self.look(from)?, self.look(to)?);
        must_not_append_only(&dst.inode)?;
        let len = self.cloneable(&src, &source, &dst, target)?;
        if len == 0 {
            return Ok(0);
        }
        let used = Features::REFLINK.union(Features::REFLINK_INLINE_DATA);
        self.live.superblock().use_features(used).map_err(|e| Error::Io(e.to_string()))?;
        let blocks = source.start..(source.start + len).next_multiple_of(self.block_bytes());
        let Range { mut start, end } = sectors(&blocks);
        let by = (target / SECTOR_BYTES).wrapping_sub(start);
        let size = target + len;
        while start < end {
            let step = self.change(|op| op.clone_step(from, to, start..end, by, size, caller))?;
            start = step.at;
        }
        Ok(len)
    }

    /// How many bytes of the source can be shared.
    fn cloneable(&self, src: &Object, source: &Range<u64>, dst: &Object, target: u64) -> Result<u64> {
        let block = self.block_bytes();
        let size = src.inode.size;
        if source.start > size || source.end > size {
            return Err(Error::Invalid("the source ends before that"));
        }
        let len = source.end - source.start;
        if target.checked_add(len).is_none_or(|end| end > SIZE_MAX) {
            return Err(Error::TooLarge("the file"));
        }
        // The block at the end of the source may be shared if it becomes, or stays, the end of the target.
        let at_end = source.end == size && target + len >= dst.inode.size;
        let whole = source.start.is_multiple_of(block)
            && target.is_multiple_of(block)
            && (len.is_multiple_of(block) || at_end);
        if !whole {
            return Err(Error::Invalid("the range is not whole blocks"));
        }
        if src.node() == dst.node() && source.start < target + len && target < source.end {
            return Err(Error::Invalid("the ranges overlap"));
        }
        Ok(len)
    }

    /// Gives a file data of its own where it shares any.
    pub(super) fn unshare(&self, node: NodeId, file: &Object, bytes: Range<u64>) -> Result<()> {
        let mut left = sectors(&bytes);
        while !left.is_empty() {
            let shared = self.change(|op| op.first_shared(node, left.clone()))?;
            let Some(shared) = shared else { return Ok(()) };
            // A piece at a time, so that memory stays bounded.
            let end = shared.end.min(shared.start + (1 << 20) / SECTOR_BYTES);
            let bytes = shared.start * SECTOR_BYTES..(end * SECTOR_BYTES).min(file.inode.size);
            if !bytes.is_empty() {
                let mut data = vec![0; (bytes.end - bytes.start) as usize];
                self.fill(node, file, bytes.start, &mut data)?;
                self.write_part(node, bytes.start, &data, None)?;
            }
            left.start = end;
        }
        Ok(())
    }
}

impl Op<'_, '_> {
    /// Shares what one key of the source holds, or makes a hole where it has none.
    fn clone_step(
        &mut self,
        from: NodeId,
        to: NodeId,
        range: Range<u64>,
        by: u64,
        size: u64,
        caller: &Caller<'_>,
    ) -> Result<Step> {
        let src = self.object(from)?;
        let mut dst = self.content(to)?;
        let mut cursor = self.t.visible_extents(&src.place.view, src.inum, range.clone());
        let key = cursor.next()?.map(|key| key.to_owned());
        drop(cursor);
        let start = key.as_ref().map_or(range.end, |key| key.k.start_offset().unwrap_or(0));
        let reached = match key {
            Some(key) if start <= range.start && has_data(&key)? => {
                let end = key.k.pos.offset.min(range.end);
                let pointer = self.pointer_to(&key)?;
                self.share(&mut dst, pointer, start, range.start..end, by)?
            }
            key => {
                // Nothing is there, or only space.
                let end = match key {
                    Some(key) if start <= range.start => key.k.pos.offset.min(range.end),
                    _ => start.clamp(range.start + 1, range.end),
                };
                let hole = range.start.wrapping_add(by)..end.wrapping_add(by);
                self.make_hole(&mut dst, hole)?.wrapping_sub(by)
            }
        };
        let done = reached.wrapping_add(by).saturating_mul(SECTOR_BYTES);
        dst.inode.size = dst.inode.size.max(size.min(done));
        self.touch_content(&mut dst, Some(caller))?;
        self.put(&dst);
        Ok(Step { at: reached })
    }

    /// The pointer into the reflink b-tree of a key of a file: made, and the key replaced by it, if it holds data of its own.
    pub(super) fn pointer_to(&mut self, key: &KeyBuf) -> Result<ReflinkP> {
        let bad = |e: frazil_ondisk::DecodeError| Error::Io(format!("extent {}: {e}", key.k.pos));
        if key.k.ty == KeyType::REFLINK_P {
            return ReflinkP::decode(&key.value).map_err(bad);
        }
        let mut last = self.t.cursor(BtreeId::REFLINK, ..);
        last.seek_end();
        let idx = last.prev()?.map_or(0, |key| key.k.pos.offset);
        drop(last);
        let ty = if key.k.ty == KeyType::EXTENT { KeyType::REFLINK_V } else { KeyType::INDIRECT_INLINE_DATA };
        // Nobody refers to it yet; the pointers are counted as they come.
        let mut value = vec![0; 8];
        value.extend_from_slice(&key.value);
        let pos = Bpos::new(0, idx + u64::from(key.k.size), 0);
        let mut indirect = KeyBuf::new(ty, pos, key.k.size, value);
        indirect.k.version = key.k.version;
        self.t.put(BtreeId::REFLINK, indirect);
        let pointer = ReflinkP { idx, flags: 0, front_pad: 0, back_pad: 0 };
        self.t.put(BtreeId::EXTENTS, pointer_key(pointer, key.k.pos, key.k.size));
        Ok(pointer)
    }

    /// Puts a pointer to what `range` of the source refers to into the target. `start` is where the source's key begins. Returns how far it came, in
    /// the source.
    fn share(
        &mut self,
        dst: &mut Object,
        pointer: ReflinkP,
        start: u64,
        range: Range<u64>,
        by: u64,
    ) -> Result<u64> {
        let idx = pointer.idx + (range.start - start);
        let pointer = ReflinkP { idx, front_pad: 0, back_pad: 0, ..pointer };
        let size = (range.end - range.start) as u32;
        let pos = Bpos::new(dst.inum.0, range.end.wrapping_add(by), 0);
        let rest = self.put_extent(dst, pointer_key(pointer, pos, size))?;
        Ok(rest.map_or(range.end, |rest| rest.k.start_offset().unwrap_or(0).wrapping_sub(by)))
    }

    /// The first stretch of a range where a file shares data.
    fn first_shared(&mut self, node: NodeId, range: Range<u64>) -> Result<Option<Range<u64>>> {
        let file = self.object(node)?;
        let mut cursor = self.t.visible_extents(&file.place.view, file.inum, range.clone());
        while let Some(key) = cursor.next()? {
            if key.k.ty == KeyType::REFLINK_P {
                let start = key.k.start_offset().unwrap_or(0).max(range.start);
                return Ok(Some(start..key.k.pos.offset.min(range.end)));
            }
        }
        Ok(None)
    }
}

pub(super) fn pointer_key(pointer: ReflinkP, pos: Bpos, size: u32) -> KeyBuf {
    let mut value = Vec::with_capacity(16);
    pointer.encode(&mut value);
    KeyBuf::new(KeyType::REFLINK_P, pos, size, value)
}

/// Whether a key holds something to share; space that was never written does not.
pub(super) fn has_data(key: &KeyBuf) -> Result<bool> {
    Ok(match key.k.ty {
        KeyType::INLINE_DATA | KeyType::REFLINK_P => true,
        KeyType::EXTENT => {
            let copies = Pointers::new(&key.value, key.k.size).collect::<std::result::Result<Vec<_>, _>>();
            let copies = copies.map_err(|e| Error::Io(format!("extent {}: {e}", key.k.pos)))?;
            !copies.iter().any(|copy| copy.ptr.unwritten)
        }
        _ => false,
    })
}
