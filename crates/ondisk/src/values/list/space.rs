//! Buckets and backpointers as text.

use std::fmt::{self, Formatter};

use super::Lister;
use crate::bpos::Bpos;
use crate::units::DevIndex;
use crate::values::alloc::Alloc;
use crate::values::backpointer::{Backpointer, SHIFT_1_13};
use crate::values::positions::DevBucket;

impl Lister<'_> {
    pub(super) fn alloc(&self, a: &Alloc, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\n  gen {} oldest_gen {} data_type {}", a.generation, a.oldest_gen, a.data_type)?;
        let new = self.new_style();
        let width = if new { 20 } else { 17 };
        let mut line = |name: &str, v: u64| write!(f, "\n  {name:<width$} {v}");
        if new {
            line("journal_seq_nonempty", a.journal_seq_nonempty.0)?;
            line("journal_seq_empty", a.journal_seq_empty.0)?;
        } else {
            line("journal_seq", a.journal_seq_nonempty.0)?;
        }
        line("need_discard", a.need_discard.into())?;
        line("need_inc_gen", a.need_inc_gen.into())?;
        line("dirty_sectors", a.dirty_sectors.into())?;
        line("stripe_sectors", a.stripe_sectors.into())?;
        line("cached_sectors", a.cached_sectors.into())?;
        if self.cx.version().alloc_has_stripe_refcount() {
            line("stripe_refcount", a.stripe.into())?;
        } else {
            line("stripe", a.stripe.into())?;
            line("stripe_redundancy", a.stripe_redundancy.into())?;
        }
        line("io_time[READ]", a.io_time[0])?;
        line("io_time[WRITE]", a.io_time[1])?;
        write!(f, "\n  fragmentation     {}", self.fragmentation(a))?;
        // Backpointers inside alloc keys are long obsolete; the decoder dropped them.
        f.write_str("\n  bp_start          8\n")
    }

    /// The bucket's time in the fragmentation LRU; 0 if the bucket size is not known.
    fn fragmentation(&self, a: &Alloc) -> u64 {
        DevBucket::from_pos(self.k.pos)
            .and_then(|at| self.cx.bucket_sectors(at.dev))
            .map_or(0, |sectors| a.fragmentation_lru_time(sectors))
    }

    pub(super) fn backpointer(&self, b: &Backpointer, f: &mut Formatter<'_>) -> fmt::Result {
        if self.new_style() { self.backpointer_1_39(b, f) } else { self.backpointer_1_13(b, f) }
    }

    /// Bucket and sector in the bucket a position is about; bucket 0 if the bucket size is not known.
    fn place(&self, shift: u32) -> (u64, u64) {
        let sector = self.k.pos.offset.checked_shr(shift).unwrap_or(0);
        match u8::try_from(self.k.pos.inode).ok().and_then(|d| self.cx.bucket_sectors(DevIndex(d))) {
            Some(size) if size != 0 => (sector / size, sector % size),
            _ => (0, sector),
        }
    }

    fn backpointer_1_13(&self, b: &Backpointer, f: &mut Formatter<'_>) -> fmt::Result {
        let bucket = Bpos::new(self.k.pos.inode, self.place(SHIFT_1_13).0, 0);
        let offset = b.detail.as_bucket_offset();
        let (sector, in_payload) = (offset >> SHIFT_1_13, offset & ((1 << SHIFT_1_13) - 1));
        write!(f, "bucket={bucket} btree={} l={} offset={sector}:{in_payload}", b.btree, b.level)?;
        write!(f, " len={} pos={}", b.bucket_len, b.pos)
    }

    fn backpointer_1_39(&self, b: &Backpointer, f: &mut Formatter<'_>) -> fmt::Result {
        let shift = self.cx.backpointer_shift();
        let (bucket, sector) = self.place(shift);
        let in_payload = self.k.pos.offset & (1u64.checked_shl(shift).unwrap_or(0).wrapping_sub(1));
        let (generation, flags) = b.detail.as_bucket_gen();
        write!(
            f,
            "bucket={}:{bucket}:{sector} btree={}",
            self.k.pos.inode,
            super::btree_name(b.btree, self.cx.version())
        )?;
        write!(f, " level={} data_type={} suboffset={in_payload}", b.level, b.data_type)?;
        write!(f, " len={} gen={generation} pos={}", b.bucket_len, b.pos)?;
        f.write_str(if flags & 3 != 0 { " phys" } else { "" })
    }
}
