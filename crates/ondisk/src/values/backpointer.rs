//! Backpointers: who points into a bucket (spec 50 §2.6, spec 80 §5.1).
//!
//! Every pointer of a leaf extent or a b-tree node has one, at a position made of the device and the sector it points to,
//! so the keys of one bucket are neighbours. Five bytes of the value changed at 1.14: 1.13 stores the offset in the
//! bucket, which the position implies, later versions the bucket's generation and flags. [`BackpointerDetail`] keeps them as
//! stored; what they mean depends on the volume's version.

use super::problem::{Check, ensure};
use crate::bkey::Bkey;
use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::bytes::{PutLe, Reader};
use crate::data_type::DataType;
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;
use crate::units::{DevIndex, Gen, Sectors};

/// Low bits of a position that hold the offset in the payload, in 1.13 and where the superblock says 0 (spec 80 §5.14).
pub const SHIFT_1_13: u32 = 10;
/// Largest level a backpointer may name.
const LEVEL_MAX: u8 = 4;

/// A backpointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backpointer {
    /// B-tree of the key that holds the pointer.
    pub btree: BtreeId,
    /// Level of that key: 0 for leaf keys, n + 1 for the pointer to a node of level n.
    pub level: u8,
    /// Kind of data pointed at.
    pub data_type: DataType,
    /// The five bytes that depend on the version.
    pub detail: BackpointerDetail,
    /// Sectors on disk of the pointer.
    pub bucket_len: u32,
    /// Position of the key that holds the pointer.
    pub pos: Bpos,
}

/// Bytes 3–7 of the value, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackpointerDetail([u8; 5]);

impl BackpointerDetail {
    /// Since 1.37, a flag: the pointer is erasure coded.
    pub const FLAG_ERASURE_CODED: u32 = 1 << 2;
    /// Since 1.37, a flag: the backpointer is of a stripe pointer.
    pub const FLAG_STRIPE_PTR: u32 = 1 << 3;

    /// As 1.13 stores it: `(sector in the bucket << 10) + offset in the payload`; 40 bits.
    pub fn bucket_offset(offset: u64) -> Self {
        let b = offset.to_le_bytes();
        Self([b[0], b[1], b[2], b[3], b[4]])
    }

    /// As 1.14 and later store it.
    pub fn bucket_gen(generation: Gen, flags: u32) -> Self {
        let f = flags.to_le_bytes();
        Self([generation.0, f[0], f[1], f[2], f[3]])
    }

    /// Read as 1.13 does.
    pub fn as_bucket_offset(self) -> u64 {
        let b = self.0;
        u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], 0, 0, 0])
    }

    /// Read as 1.14 and later do: generation of the bucket, and flags, whose low two bits are the reconcile work id.
    pub fn as_bucket_gen(self) -> (Gen, u32) {
        let b = self.0;
        (Gen(b[0]), u32::from_le_bytes([b[1], b[2], b[3], b[4]]))
    }
}

/// The position of a pointer's backpointer: sector on the device and offset in the payload (spec 50 §2.6). The parts are
/// added, so an offset of more than `shift` bits reaches into the sector.
pub fn position(dev: DevIndex, sector: Sectors, crc_offset: u32, shift: u32) -> Bpos {
    let offset = (sector.0 << shift).wrapping_add(crc_offset.into());
    Bpos::new(dev.0.into(), offset, 0)
}

/// The device and the sector a backpointer at `pos` belongs to; `None` if the device number is none.
pub fn pointed_at(pos: Bpos, shift: u32) -> Option<(DevIndex, Sectors)> {
    Some((DevIndex(u8::try_from(pos.inode).ok()?), Sectors(pos.offset >> shift)))
}

impl Backpointer {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Backpointer> {
        let mut r = Reader::new("backpointer", value);
        Ok(Backpointer {
            btree: BtreeId(r.u8()?),
            level: r.u8()?,
            data_type: DataType(r.u8()?),
            detail: BackpointerDetail(r.array()?),
            bucket_len: r.u32()?,
            pos: Bpos::decode(&mut r)?,
        })
    }

    /// Appends the value, 32 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.btree.0);
        out.put_u8(self.level);
        out.put_u8(self.data_type.0);
        out.extend_from_slice(&self.detail.0);
        out.put_u32(self.bucket_len);
        self.pos.encode(out);
    }

    /// Checks the key by itself. That a 1.13 bucket offset agrees with the position takes the device's bucket size:
    /// [`Backpointer::validate_in_bucket`].
    pub fn validate(&self, k: &Bkey) -> Check {
        ensure(self.level <= LEVEL_MAX, E::BACKPOINTER_LEVEL_BAD, || format!("level {}", self.level))?;
        ensure(k.pos.inode != 255, E::BACKPOINTER_DEV_BAD, || "device 255")
    }

    /// Checks a 1.13 bucket offset against the position, in a device with buckets of that many sectors (spec 50 §2.6).
    pub fn validate_in_bucket(&self, k: &Bkey, bucket_sectors: u64) -> Check {
        let stored = self.detail.as_bucket_offset();
        let sector = k.pos.offset >> SHIFT_1_13;
        let start = sector - sector % bucket_sectors.max(1);
        let expected = k.pos.offset - (start << SHIFT_1_13);
        ensure(
            stored >> SHIFT_1_13 < bucket_sectors && stored == expected,
            E::BACKPOINTER_BUCKET_OFFSET_WRONG,
            || format!("bucket offset {stored}, should be {expected}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_type::KeyType;
    use proptest::prelude::*;

    /// Spec 50 §2.6: pointer 0:49:0 with buckets of 256 sectors.
    const EXAMPLE: [u8; 32] = [
        0, 0, 4, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x40,
        0, 0, 0, 0,
    ];

    fn key(pos: Bpos) -> Bkey {
        Bkey::new(KeyType::BACKPOINTER, pos, 0)
    }

    fn encoded(b: &Backpointer) -> Vec<u8> {
        let mut out = Vec::new();
        b.encode(&mut out);
        out
    }

    #[test]
    fn examples_of_the_specification() {
        let pos = position(DevIndex(0), Sectors(49 * 256), 0, SHIFT_1_13);
        assert_eq!(pos, Bpos::new(0, 0xc4_0000, 0));
        assert_eq!(pointed_at(pos, SHIFT_1_13), Some((DevIndex(0), Sectors(49 * 256))));
        let b = Backpointer::decode(&EXAMPLE).unwrap();
        assert_eq!((b.btree, b.level, b.data_type, b.bucket_len), (BtreeId::EXTENTS, 0, DataType::USER, 8));
        assert_eq!(b.pos, Bpos::new(0x4000_1000, 8, u32::MAX));
        assert_eq!(encoded(&b), EXAMPLE);
        assert_eq!((b.validate(&key(pos)), b.validate_in_bucket(&key(pos), 256)), (Ok(()), Ok(())));

        // The second live part of a compressed extent at sector 16 of bucket 70.
        let pos = position(DevIndex(0), Sectors(70 * 256 + 16), 16, SHIFT_1_13);
        assert_eq!(pos.offset, 18_366_480);
        let b = Backpointer { detail: BackpointerDetail::bucket_offset((16 << 10) + 16), ..b };
        assert_eq!(b.validate_in_bucket(&key(pos), 256), Ok(()));
    }

    #[test]
    fn newer_values_hold_generation_and_flags() {
        // Spec 80 §12: flags 2.
        let mut v = EXAMPLE;
        v[3..8].copy_from_slice(&[0, 2, 0, 0, 0]);
        assert_eq!(Backpointer::decode(&v).unwrap().detail.as_bucket_gen(), (Gen(0), 2));
        let detail = BackpointerDetail::bucket_gen(Gen(7), BackpointerDetail::FLAG_ERASURE_CODED);
        assert_eq!(detail.as_bucket_gen(), (Gen(7), 4));
        assert_eq!(position(DevIndex(0), Sectors(0x2380), 0, 16).offset, 595_591_168);
    }

    #[test]
    fn every_rule_has_its_error() {
        let b = Backpointer::decode(&EXAMPLE).unwrap();
        let at = key(position(DevIndex(0), Sectors(49 * 256 + 1), 0, SHIFT_1_13));
        let wrong = b.validate_in_bucket(&at, 256).map_err(|p| p.id);
        assert_eq!(wrong, Err(E::BACKPOINTER_BUCKET_OFFSET_WRONG));
        let deep = Backpointer { level: 5, ..b }.validate(&at).map_err(|p| p.id);
        assert_eq!(deep, Err(E::BACKPOINTER_LEVEL_BAD));
        let nowhere = b.validate(&key(Bpos::new(255, 0, 0))).map_err(|p| p.id);
        assert_eq!(nowhere, Err(E::BACKPOINTER_DEV_BAD));
    }

    proptest! {
        #[test]
        fn values_round_trip(bytes: [u8; 32], offset: u64, bucket: u64) {
            let b = Backpointer::decode(&bytes).unwrap();
            prop_assert_eq!(encoded(&b), bytes);
            let _ = b.validate_in_bucket(&key(Bpos::new(0, offset, 0)), bucket);
        }
    }
}
