//! Where the copies of a device's superblock are (spec 10 §3).
//!
//! The layout is a 512-byte structure without a checksum. It stands alone at sector 7, where it is found when the primary copy
//! at sector 8 is damaged, and inside every superblock. Only the formatter writes it.
//!
//! Decoding keeps every byte, legal or not, because a superblock is accepted before its layout is looked at
//! ([`super::copies`]); [`Layout::validate`] then says whether it can be used.

use std::ops::Range;

use uuid::Uuid;

use crate::bytes::{PutLe, Reader};
use crate::error::{DecodeError, Result};
use crate::superblock::magic;
use crate::units::{SECTOR_BYTES, Sectors};

const WHAT: &str = "superblock layout";

/// Sector of the stand-alone layout.
pub const LAYOUT_SECTOR: Sectors = Sectors(7);
/// Sector of the primary superblock copy.
pub const SUPERBLOCK_SECTOR: Sectors = Sectors(8);
/// Bytes of the structure.
pub const LAYOUT_BYTES: usize = 512;
/// Most copies a layout can name.
pub const COPIES_MAX: usize = 61;
/// `sb_max_size_bits` the formatter writes: 1 MiB for each copy.
pub const SIZE_BITS_DEFAULT: u8 = 11;
/// No copy is larger than 2^16 sectors, whatever the layout says (spec 10 §3.3).
const SIZE_BITS_CAP: u8 = 16;

/// The list of superblock copies of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Identifies the structure; one of [`magic::SUPERBLOCK`] and [`magic::SUPERBLOCK_OLD`].
    pub magic: Uuid,
    /// Always 0.
    pub layout_type: u8,
    /// Binary logarithm of the sectors reserved for each copy.
    pub sb_max_size_bits: u8,
    nr_superblocks: u8,
    pad: [u8; 5],
    sb_offset: [u64; COPIES_MAX],
}

impl Layout {
    /// A layout of copies at these sectors, in this order.
    ///
    /// # Errors
    /// If [`Layout::validate`] would refuse it.
    pub fn new(sb_max_size_bits: u8, copies: &[Sectors]) -> Result<Layout> {
        let mut sb_offset = [0; COPIES_MAX];
        if copies.len() > COPIES_MAX {
            return Err(DecodeError::invalid(WHAT, format!("{} copies, at most {COPIES_MAX}", copies.len())));
        }
        for (to, from) in sb_offset.iter_mut().zip(copies) {
            *to = from.0;
        }
        let layout = Layout {
            magic: magic::SUPERBLOCK,
            layout_type: 0,
            sb_max_size_bits,
            nr_superblocks: copies.len() as u8,
            pad: [0; 5],
            sb_offset,
        };
        layout.validate()?;
        Ok(layout)
    }

    /// The three copies a formatter chooses (spec 10 §3.2): sector 8, behind it, and the last whole bucket boundary that
    /// leaves room at the end of the device. `size_bits` is the logarithm of the sectors for one copy.
    ///
    /// # Errors
    /// If the device is too small for three copies.
    pub fn standard(device: Sectors, bucket: Sectors, block: Sectors, size_bits: u8) -> Result<Layout> {
        let too_small =
            || DecodeError::invalid(WHAT, format!("no room for three copies on {device} sectors"));
        let size = 1u64.checked_shl(u32::from(size_bits)).ok_or_else(too_small)?;
        let second = (SUPERBLOCK_SECTOR.0 + size).next_multiple_of(block.0.max(1));
        let end = device.0.checked_sub(size).ok_or_else(too_small)?;
        let last = end - end % bucket.0.max(1);
        if last < second + size {
            return Err(too_small());
        }
        Layout::new(size_bits, &[SUPERBLOCK_SECTOR, Sectors(second), Sectors(last)])
    }

    /// Decodes the structure, whatever its fields hold.
    ///
    /// # Errors
    /// If there are fewer than [`LAYOUT_BYTES`] bytes.
    pub fn decode(r: &mut Reader<'_>) -> Result<Layout> {
        let magic = Uuid::from_bytes(r.array()?);
        let (layout_type, sb_max_size_bits, nr_superblocks) = (r.u8()?, r.u8()?, r.u8()?);
        let pad = r.array()?;
        let mut sb_offset = [0; COPIES_MAX];
        for offset in &mut sb_offset {
            *offset = r.u64()?;
        }
        Ok(Layout { magic, layout_type, sb_max_size_bits, nr_superblocks, pad, sb_offset })
    }

    /// Appends the [`LAYOUT_BYTES`] bytes of the structure.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.magic.as_bytes());
        out.extend_from_slice(&[self.layout_type, self.sb_max_size_bits, self.nr_superblocks]);
        out.extend_from_slice(&self.pad);
        for &offset in &self.sb_offset {
            out.put_u64(offset);
        }
    }

    /// Start sectors of the copies, primary first.
    pub fn copies(&self) -> impl ExactSizeIterator<Item = Sectors> + '_ {
        self.sb_offset.iter().take(usize::from(self.nr_superblocks)).map(|&s| Sectors(s))
    }

    /// Sectors reserved for each copy; the largest number if the field is out of range.
    pub fn copy_sectors(&self) -> Sectors {
        Sectors(1u64.checked_shl(u32::from(self.sb_max_size_bits)).unwrap_or(u64::MAX))
    }

    /// Largest superblock a copy may hold, in bytes.
    pub fn superblock_bytes_max(&self) -> usize {
        (SECTOR_BYTES as usize) << self.sb_max_size_bits.min(SIZE_BITS_CAP)
    }

    /// What the formatter keeps free of everything else, in sectors: the boot area with this structure, then each copy
    /// (spec 10 §3.2). Buckets that overlap one of the ranges have data type `sb`.
    pub fn reserved(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let size = self.copy_sectors().0;
        let copies = self.copies().map(move |s| s.0..s.0.saturating_add(size));
        std::iter::once(0..SUPERBLOCK_SECTOR.0).chain(copies)
    }

    /// Checks the rules of spec 10 §3.1.
    ///
    /// # Errors
    /// Naming the field that breaks one.
    pub fn validate(&self) -> Result<()> {
        let invalid = |reason: String| Err(DecodeError::invalid(WHAT, reason));
        if !magic::is_superblock(self.magic) {
            return invalid(format!("magic {} is not bcachefs", self.magic));
        }
        if self.layout_type != 0 {
            return invalid(format!("type {}, only 0 exists", self.layout_type));
        }
        let nr = usize::from(self.nr_superblocks);
        if nr == 0 || nr > COPIES_MAX {
            return invalid(format!("{nr} superblock copies, must be 1 to {COPIES_MAX}"));
        }
        let size = self.copy_sectors().0;
        for pair in self.sb_offset[..nr].windows(2) {
            if pair[0].checked_add(size).is_none_or(|end| pair[1] < end) {
                return invalid(format!(
                    "copy at sector {} overlaps the one before at {} ({size} sectors each)",
                    pair[1], pair[0]
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_places_follow_the_formatter() {
        // spec 10 §3.2: a 512 MiB device with 128 KiB buckets.
        let l = Layout::standard(Sectors(1 << 20), Sectors(256), Sectors(8), SIZE_BITS_DEFAULT).unwrap();
        assert!(l.copies().map(|s| s.0).eq([8, 2056, 1_046_528]));
        assert_eq!(l.superblock_bytes_max(), 1 << 20);
        let reserved: Vec<_> = l.reserved().collect();
        assert_eq!(reserved, [0..8, 8..2056, 2056..4104, 1_046_528..1_048_576]);
        assert!(Layout::standard(Sectors(4096), Sectors(256), Sectors(8), SIZE_BITS_DEFAULT).is_err());
        assert!(Layout::standard(Sectors(4096), Sectors(256), Sectors(8), 200).is_err());
    }

    #[test]
    fn bad_fields_are_named() {
        let good = Layout::new(11, &[Sectors(8), Sectors(2056)]).unwrap();
        let broken = |change: fn(&mut Layout)| {
            let mut l = good.clone();
            change(&mut l);
            l.validate().unwrap_err().to_string()
        };
        assert!(broken(|l| l.magic = Uuid::nil()).contains("magic"));
        assert!(broken(|l| l.layout_type = 1).contains("type 1"));
        assert!(broken(|l| l.nr_superblocks = 0).contains("0 superblock copies"));
        assert!(broken(|l| l.nr_superblocks = 62).contains("62 superblock copies"));
        assert!(broken(|l| l.sb_offset[1] = 2055).contains("overlaps"));
        assert!(broken(|l| l.sb_max_size_bits = 255).contains("overlaps"));
        let mut old = good.clone();
        old.magic = magic::SUPERBLOCK_OLD;
        assert!(old.validate().is_ok());
    }
}
