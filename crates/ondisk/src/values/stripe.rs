//! Erasure-code stripes (spec 50 §2.7, spec 80 §5.16).
//!
//! A stripe is a set of blocks on different devices, the last ones parity: `sectors` long each, with checksums per block
//! and granule, and the count of sectors that are still in use in every data block. The value is a header
//! followed by three arrays whose lengths follow from it; [`Stripe`] borrows them.

use super::extent::ExtentPtr;
use super::problem::{Check, Problem, ensure};
use crate::bkey::Bkey;
use crate::bytes::{PutLe, Reader, bits};
use crate::checksum::ChecksumType;
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;

/// The fixed head of a stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StripeHeader {
    /// Sectors of each block.
    pub sectors: u16,
    /// Algorithm in the low four bits; from 1.37 also flags, see the methods.
    pub algorithm_byte: u8,
    /// Blocks, parity included.
    pub nr_blocks: u8,
    /// Parity blocks.
    pub nr_redundant: u8,
    /// Log2 of the sectors each checksum covers; must be below 31.
    pub csum_granularity_bits: u8,
    /// Number of the checksum type.
    pub csum_type: u8,
    /// Label the blocks are restricted to: index + 1, 0 for none.
    pub disk_label: u8,
}

impl StripeHeader {
    /// The erasure code.
    pub fn algorithm(&self) -> u8 {
        self.algorithm_byte & 15
    }

    /// Background work is wanted (1.37).
    pub fn needs_reconcile(&self) -> bool {
        self.algorithm_byte & 16 != 0
    }

    /// How many more data blocks the devices would allow, at most 7 (1.37).
    pub fn can_widen(&self) -> u8 {
        bits(self.algorithm_byte.into(), 5, 8) as u8
    }

    /// Checksums of each block; `None` if the granularity is out of range.
    fn csums_per_block(&self) -> Option<usize> {
        let granule = 1u64
            .checked_shl(self.csum_granularity_bits.into())
            .filter(|_| self.csum_granularity_bits < 31)?;
        usize::try_from(u64::from(self.sectors).div_ceil(granule)).ok()
    }

    /// Bytes of one checksum; 0 for an unknown type.
    fn csum_bytes(&self) -> usize {
        ChecksumType::from_raw(self.csum_type).map_or(0, ChecksumType::bytes)
    }
}

/// A stripe. The arrays are as stored; see the methods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stripe<'a> {
    /// The head.
    pub header: StripeHeader,
    /// A pointer per block.
    ptrs: &'a [u8],
    /// Checksums, block by block.
    csums: &'a [u8],
    /// A 16-bit count per block.
    counts: &'a [u8],
}

impl<'a> Stripe<'a> {
    /// Decodes the value.
    ///
    /// # Errors
    /// If the arrays do not fit the bytes or the granularity is out of range.
    pub fn decode(value: &'a [u8]) -> Result<Stripe<'a>> {
        let mut r = Reader::new("stripe", value);
        let header = StripeHeader {
            sectors: r.u16()?,
            algorithm_byte: r.u8()?,
            nr_blocks: r.u8()?,
            nr_redundant: r.u8()?,
            csum_granularity_bits: r.u8()?,
            csum_type: r.u8()?,
            disk_label: r.u8()?,
        };
        let blocks = usize::from(header.nr_blocks);
        let Some(per_block) = header.csums_per_block() else {
            return Err(r.invalid(format!("checksum granularity 2^{}", header.csum_granularity_bits)));
        };
        Ok(Stripe {
            header,
            ptrs: r.bytes(blocks * 8)?,
            csums: r.bytes(blocks * per_block * header.csum_bytes())?,
            counts: r.bytes(blocks * 2)?,
        })
    }

    /// The pointer of each block.
    pub fn ptrs(&self) -> impl Iterator<Item = Result<ExtentPtr>> + use<'a> {
        self.ptrs.as_chunks().0.iter().map(|w| ExtentPtr::from_word(u64::from_le_bytes(*w)))
    }

    /// Sectors in use of each block.
    pub fn block_sectors(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.counts.as_chunks().0.iter().map(|w| u16::from_le_bytes(*w))
    }

    /// The stored bytes of a checksum; `None` if there is no such block or granule.
    pub fn csum(&self, block: usize, granule: usize) -> Option<&'a [u8]> {
        let per_block = self.header.csums_per_block()?;
        let size = self.header.csum_bytes();
        if block >= self.header.nr_blocks.into() || granule >= per_block {
            return None;
        }
        self.csums.get((block * per_block + granule) * size..)?.get(..size)
    }

    /// Appends the value, padded to whole words.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let h = &self.header;
        out.put_u16(h.sectors);
        out.extend_from_slice(&[
            h.algorithm_byte,
            h.nr_blocks,
            h.nr_redundant,
            h.csum_granularity_bits,
            h.csum_type,
            h.disk_label,
        ]);
        for array in [self.ptrs, self.csums, self.counts] {
            out.extend_from_slice(array);
        }
        out.put_zeros((out.len() - start).next_multiple_of(8) - (out.len() - start));
    }

    /// Checks an encoded key.
    pub fn validate(k: &Bkey, value: &[u8]) -> Check {
        let in_range = k.pos.inode == 0 && (1..=u64::from(u32::MAX)).contains(&k.pos.offset);
        ensure(in_range, E::STRIPE_POS_BAD, || format!("at {}", k.pos))?;
        let granularity = value.get(5).copied().unwrap_or(0);
        ensure(granularity < 31, E::STRIPE_CSUM_GRANULARITY_BAD, || format!("granularity 2^{granularity}"))?;
        let s = Stripe::decode(value).map_err(Problem::undecodable(E::STRIPE_VAL_SIZE_BAD))?;
        ensure(s.header.sectors != 0, E::STRIPE_SECTORS_ZERO, || "blocks of 0 sectors")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpos::Bpos;
    use crate::key_type::KeyType;
    use crate::units::{DevIndex, Sectors};
    use proptest::prelude::*;

    /// Spec 80 §12.
    fn example() -> Vec<u8> {
        let mut v = vec![0x80, 0, 0, 4, 1, 9, 5, 0];
        for dev in [1, 2, 3, 0] {
            v.extend([1, 0x28, 2, 0, 0, 0, dev, 0]);
        }
        v.extend([0x1e, 0x14, 0xf7, 0xab, 0xb6, 0x79, 0xa6, 0x9c]);
        v.extend([0xaf, 0xe2, 0xc2, 0x4c, 0x07, 0x8f, 0x93, 0x7b]);
        v.extend([0x80, 0, 0x80, 0, 0x80, 0, 0, 0]);
        v
    }

    fn key(idx: u64) -> Bkey {
        Bkey::new(KeyType::STRIPE, Bpos::new(0, idx, 0), 0)
    }

    #[test]
    fn the_example_of_the_specification() {
        let value = example();
        let s = Stripe::decode(&value).unwrap();
        assert_eq!((s.header.sectors, s.header.nr_blocks, s.header.nr_redundant), (128, 4, 1));
        assert_eq!((s.header.algorithm(), s.header.needs_reconcile(), s.header.can_widen()), (0, false, 0));
        let ptrs: Vec<_> = s.ptrs().map(|p| p.unwrap()).map(|p| (p.dev, p.offset)).collect();
        assert_eq!(ptrs, [1, 2, 3, 0].map(|dev| (DevIndex(dev), Sectors(0x2280))));
        assert_eq!(s.block_sectors().collect::<Vec<_>>(), [128, 128, 128, 0]);
        assert_eq!(s.csum(1, 0), Some(&[0xb6, 0x79, 0xa6, 0x9c][..]));
        assert_eq!((s.csum(4, 0), s.csum(0, 1)), (None, None));
        let mut out = Vec::new();
        s.encode(&mut out);
        assert_eq!(out, value);
        assert_eq!(Stripe::validate(&key(1), &value), Ok(()));
    }

    #[test]
    fn every_rule_has_its_error() {
        let check = |idx, at: usize, v: u8| {
            let mut bytes = example();
            bytes[at] = v;
            Stripe::validate(&key(idx), &bytes).map_err(|p| p.id)
        };
        assert_eq!(check(0, 2, 0), Err(E::STRIPE_POS_BAD));
        assert_eq!(check(1, 3, 5), Err(E::STRIPE_VAL_SIZE_BAD));
        assert_eq!(check(1, 5, 31), Err(E::STRIPE_CSUM_GRANULARITY_BAD));
        assert_eq!(check(1, 0, 0), Err(E::STRIPE_SECTORS_ZERO));
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 8..256),
                                                      blocks in 0u8..8, bits in 0u8..40, ty in 0u8..9) {
            let mut bytes = bytes;
            (bytes[1], bytes[3], bytes[5], bytes[6]) = (0, blocks, bits, ty);
            if let Ok(s) = Stripe::decode(&bytes) {
                let mut out = Vec::new();
                s.encode(&mut out);
                let used = 8 + s.ptrs.len() + s.csums.len() + s.counts.len();
                prop_assert_eq!(&out[..used], &bytes[..used]);
                prop_assert!(s.csum(0, 0).is_none_or(|c| c.len() <= 16));
            }
        }
    }
}
