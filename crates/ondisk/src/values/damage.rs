//! Damage a check found in an inode (spec 80 §5.18, §7.5).

use super::problem::{Check, ensure};
use crate::bytes::bits;
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId as E;

/// One kind of damage: a 128-bit record, as in the superblock's section errors_v2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamageRecord {
    /// What was found.
    pub id: E,
    /// How often, saturating.
    pub count: u32,
    /// Last time, seconds since 1970, 40 bits.
    pub last: u64,
    /// First time, seconds since 1970, 40 bits.
    pub first: u64,
}

impl DamageRecord {
    fn from_word(word: u128) -> Self {
        let (lo, hi) = (word as u64, (word >> 64) as u64);
        Self {
            id: E(lo as u16),
            count: bits(lo, 16, 48) as u32,
            last: bits(lo, 48, 64) | bits(hi, 0, 24) << 16,
            first: bits(hi, 24, 64),
        }
    }

    fn to_word(self) -> u128 {
        u128::from(self.id.0)
            | u128::from(self.count) << 16
            | u128::from(bits(self.last, 0, 40)) << 48
            | u128::from(bits(self.first, 0, 40)) << 88
    }
}

/// The damage of one inode in one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage<'a>(&'a [[u8; 16]]);

impl<'a> Damage<'a> {
    /// Decodes the value.
    ///
    /// # Errors
    /// If it is not a whole number of records.
    pub fn decode(value: &'a [u8]) -> Result<Self> {
        match value.as_chunks() {
            (records, []) => Ok(Self(records)),
            _ => Err(DecodeError::invalid("damage", format!("{} bytes are no whole records", value.len()))),
        }
    }

    /// The records.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = DamageRecord> + use<'a> {
        self.0.iter().map(|b| DamageRecord::from_word(u128::from_le_bytes(*b)))
    }

    /// Appends the value that holds these records.
    pub fn encode(records: impl IntoIterator<Item = DamageRecord>, out: &mut Vec<u8>) {
        records.into_iter().for_each(|r| out.extend_from_slice(&r.to_word().to_le_bytes()));
    }

    /// Ids must ascend, counts be positive and times ordered.
    pub fn validate(&self) -> Check {
        let ascending = self.iter().zip(self.iter().skip(1)).all(|(a, b)| a.id < b.id);
        let sound = self.iter().all(|r| r.count != 0 && r.first <= r.last);
        ensure(ascending && sound, E::DAMAGE_ENTRIES_BAD, || "ids, counts or times out of order")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_checked() {
        let r = DamageRecord { id: E(391), count: 1, last: 1_800_000_000, first: 1_700_000_000 };
        let check = |records: &[DamageRecord]| {
            let mut out = Vec::new();
            Damage::encode(records.iter().copied(), &mut out);
            Damage::decode(&out).unwrap().validate().map_err(|p| p.id)
        };
        assert_eq!(check(&[r, DamageRecord { id: E(392), ..r }]), Ok(()));
        for bad in
            [&[r, r][..], &[DamageRecord { count: 0, ..r }], &[DamageRecord { first: r.last + 1, ..r }]]
        {
            assert_eq!(check(bad), Err(E::DAMAGE_ENTRIES_BAD));
        }
        assert!(Damage::decode(&[0; 24]).is_err());
    }

    proptest! {
        #[test]
        fn records_round_trip(bytes in proptest::collection::vec(any::<u8>(), 48)) {
            let mut out = Vec::new();
            Damage::encode(Damage::decode(&bytes).unwrap().iter(), &mut out);
            prop_assert_eq!(out, bytes);
        }
    }
}
