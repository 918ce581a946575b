//! Shared data: pointers into the reflink b-tree and the extents there (spec 40 §10, spec 80 §5.3).
//!
//! The reflink b-tree is one linear address space of sectors. Its keys are *indirect* extents, with a reference count; a
//! `reflink_p` in a file's extents names a range of that space. The count of an indirect extent is the number of `reflink_p`
//! whose padded range touches it.

use super::extent::Pointers;
use super::problem::{Check, ensure};
use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;

/// A range of the reflink address space, as long as the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReflinkP {
    /// Sector of the reflink space the key's first sector is at; at most [`ReflinkP::IDX_MAX`].
    pub idx: u64,
    /// The eight bits above `idx` (1.16); see [`ReflinkP::ERROR`] and [`ReflinkP::MAY_UPDATE_OPTIONS`].
    pub flags: u8,
    /// Sectors before `idx` the key also holds a reference on.
    pub front_pad: u32,
    /// Sectors behind its end likewise.
    pub back_pad: u32,
}

impl ReflinkP {
    /// Largest index: 56 bits.
    pub const IDX_MAX: u64 = (1 << 56) - 1;
    /// Flag: the indirect extent was lost; reads fail.
    pub const ERROR: u8 = 1;
    /// Flag: options of this file may be carried to the shared extent.
    pub const MAY_UPDATE_OPTIONS: u8 = 2;

    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<ReflinkP> {
        let mut r = Reader::new("reflink_p", value);
        let word = r.u64()?;
        Ok(ReflinkP {
            idx: bits(word, 0, 56),
            flags: bits(word, 56, 64) as u8,
            front_pad: r.u32()?,
            back_pad: r.u32()?,
        })
    }

    /// Appends the value.
    ///
    /// # Panics
    /// If `idx` exceeds [`ReflinkP::IDX_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(with_bits(u64::from(self.flags) << 56, 0, 56, self.idx));
        out.put_u32(self.front_pad);
        out.put_u32(self.back_pad);
    }

    /// The range of the reflink space a key of `size` sectors holds references on: start and exclusive end.
    pub fn padded_range(&self, size: u32) -> (u64, u64) {
        let start = self.idx.saturating_sub(self.front_pad.into());
        (start, self.idx + u64::from(size) + u64::from(self.back_pad))
    }

    /// Checks the pointer (spec 40 §10).
    pub fn validate(&self) -> Check {
        ensure(self.idx >= self.front_pad.into(), E::REFLINK_P_FRONT_PAD_BAD, || {
            format!("front_pad {} before index {}", self.front_pad, self.idx)
        })
    }
}

/// An indirect extent: data on the devices, shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReflinkV<'a> {
    /// How many `reflink_p` refer to it.
    pub refcount: u64,
    /// Extent entries ([`super::extent::Entries`]).
    pub entries: &'a [u8],
}

/// An indirect extent whose data is in the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndirectInlineData<'a> {
    /// How many `reflink_p` refer to it.
    pub refcount: u64,
    /// The data, padded with zeros to whole words.
    pub data: &'a [u8],
}

impl<'a> ReflinkV<'a> {
    /// Decodes the value.
    pub fn decode(value: &'a [u8]) -> Result<Self> {
        let mut r = Reader::new("reflink_v", value);
        Ok(Self { refcount: r.u64()?, entries: r.rest() })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.refcount);
        out.extend_from_slice(self.entries);
    }

    /// The copies of a key of `size` sectors.
    pub fn pointers(&self, size: u32) -> Pointers<'a> {
        Pointers::new(self.entries, size)
    }
}

impl<'a> IndirectInlineData<'a> {
    /// Decodes the value.
    pub fn decode(value: &'a [u8]) -> Result<Self> {
        let mut r = Reader::new("indirect_inline_data", value);
        Ok(Self { refcount: r.u64()?, data: r.rest() })
    }

    /// Appends the value, padded to whole words.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.refcount);
        super::inline::encode(self.data, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_of_the_specification() {
        let p = [0x50, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let decoded = ReflinkP::decode(&p).unwrap();
        assert_eq!(decoded, ReflinkP { idx: 592, flags: 0, front_pad: 0, back_pad: 0 });
        assert_eq!(decoded.validate(), Ok(()));
        let mut out = Vec::new();
        decoded.encode(&mut out);
        assert_eq!(out, p);

        let v =
            [3, 0, 0, 0, 0, 0, 0, 0, 0xbe, 0xdf, 0, 5, 0xf8, 0xfb, 0xe0, 0x4a, 1, 0x29, 0x10, 0, 0, 0, 0, 0];
        let decoded = ReflinkV::decode(&v).unwrap();
        let copy = decoded.pointers(112).next().expect("one copy").unwrap();
        assert_eq!((decoded.refcount, copy.crc.compressed_size, copy.crc.uncompressed_size), (3, 112, 112));
        let mut out = Vec::new();
        decoded.encode(&mut out);
        assert_eq!(out, v);
    }

    #[test]
    fn padded_ranges_cover_whole_indirect_extents() {
        let p = ReflinkP { idx: 136, flags: 0, front_pad: 24, back_pad: 0 };
        assert_eq!(p.padded_range(104), (112, 240));
        let bad = ReflinkP { idx: 23, ..p };
        assert_eq!(bad.validate().map_err(|p| p.id), Err(E::REFLINK_P_FRONT_PAD_BAD));
        assert_eq!(bad.padded_range(1), (0, 24));
    }

    proptest! {
        #[test]
        fn pointers_round_trip(bytes: [u8; 16]) {
            let mut out = Vec::new();
            ReflinkP::decode(&bytes).unwrap().encode(&mut out);
            prop_assert_eq!(out, bytes);
        }
    }
}
