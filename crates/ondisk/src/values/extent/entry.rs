//! The entries of an extent's value, one by one (spec 40 §7.1, spec 80 §7.3).

use super::crc::{CrcEntry, CrcForm};
use super::ptr::ExtentPtr;
use super::reconcile::{Rebalance, Reconcile, ReconcileBp};
use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::error::{DecodeError, Result};

/// The next pointer is a block of an erasure-code stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StripePtr {
    /// Which block, below 256.
    pub block: u8,
    /// How many blocks of the stripe may be lost, below 16.
    pub redundancy: u8,
    /// Index of the stripe, 47 bits.
    pub idx: u64,
}

impl StripePtr {
    fn from_word(word: u64) -> Self {
        Self { block: bits(word, 5, 13) as u8, redundancy: bits(word, 13, 17) as u8, idx: bits(word, 17, 64) }
    }

    fn to_word(self) -> u64 {
        let word = 1 << 4 | u64::from(self.block) << 5;
        with_bits(with_bits(word, 13, 17, self.redundancy.into()), 17, 64, self.idx)
    }
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    /// A copy of the data (type 0).
    Ptr(ExtentPtr),
    /// Checksum and compression of the pointers that follow (types 1–3).
    Crc(CrcEntry),
    /// The next pointer is a stripe's block (type 4).
    StripePtr(StripePtr),
    /// Background work wanted, up to 1.32 (type 5).
    Rebalance(Rebalance),
    /// Flags of the whole key, 57 bits (type 6, 1.25); see [`Entry::FLAG_POISONED`].
    Flags(u64),
    /// Background work wanted, from 1.33 (type 7).
    Reconcile(Reconcile),
    /// Name of a b-tree node's key in `reconcile_scan` (type 8, 1.33).
    ReconcileBp(ReconcileBp),
    /// An entry of a newer version, whole.
    Unknown(&'a [u8]),
}

impl Entry<'_> {
    /// Bit of [`Entry::Flags`]: the data could not be read with a valid checksum when it was moved, so reads fail.
    pub const FLAG_POISONED: u64 = 1;

    /// Appends the entry.
    ///
    /// # Panics
    /// If a field exceeds its width.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Entry::Ptr(ptr) => out.put_u64(ptr.to_word()),
            Entry::Crc(crc) => crc.encode(out),
            Entry::StripePtr(s) => out.put_u64(s.to_word()),
            Entry::Rebalance(r) => out.put_u64(r.word()),
            Entry::Flags(flags) => out.put_u64(with_bits(1 << 6, 7, 64, *flags)),
            Entry::Reconcile(r) => out.put_u64(r.word()),
            Entry::ReconcileBp(r) => out.put_u64(r.word()),
            Entry::Unknown(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// Words of each entry type, by type: what lets a reader skip entries it does not know (spec 80 §5.14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntrySizes([u8; 64]);

impl EntrySizes {
    /// The types this version knows.
    pub const KNOWN: EntrySizes = {
        let mut sizes = [0; 64];
        let known = [1, 1, 2, 3, 1, 1, 1, 1, 1];
        let mut i = 0;
        while i < known.len() {
            sizes[i] = known[i];
            i += 1;
        }
        EntrySizes(sizes)
    };

    /// The known types, and the others as section 16 of the superblock lists them; 0 words mean unknown.
    pub fn with_section(section: &[u8]) -> EntrySizes {
        let mut sizes = Self::KNOWN;
        for (size, listed) in sizes.0.iter_mut().zip(section) {
            if *size == 0 {
                *size = *listed;
            }
        }
        sizes
    }
}

/// Walks the entries of a value from the front. After an error it ends.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    r: Reader<'a>,
    sizes: &'a EntrySizes,
}

impl<'a> Entries<'a> {
    /// The entries of `bytes`: an extent's whole value, or what follows the fixed part of a reflink_v or btree_ptr_v2.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::with_sizes(bytes, &EntrySizes::KNOWN)
    }

    /// As [`Entries::new`], for a volume whose superblock lists entry sizes.
    pub fn with_sizes(bytes: &'a [u8], sizes: &'a EntrySizes) -> Self {
        Self { r: Reader::new("extent entries", bytes), sizes }
    }

    fn read(&mut self) -> Result<Entry<'a>> {
        let all = self.r.rest();
        let word = self.r.u64()?;
        if word == 0 {
            return Err(DecodeError::invalid("extent entries", "an entry without a type"));
        }
        let ty = word.trailing_zeros();
        Ok(match ty {
            0 => Entry::Ptr(ExtentPtr::from_word(word)?),
            1 => Entry::Crc(CrcEntry::unpack(CrcForm::Crc32, [word, 0, 0])),
            2 => Entry::Crc(CrcEntry::unpack(CrcForm::Crc64, [word, self.r.u64()?, 0])),
            3 => Entry::Crc(CrcEntry::unpack(CrcForm::Crc128, [word, self.r.u64()?, self.r.u64()?])),
            4 => Entry::StripePtr(StripePtr::from_word(word)),
            5 => Entry::Rebalance(Rebalance::from_word(word)),
            6 => Entry::Flags(word >> 7),
            7 => Entry::Reconcile(Reconcile::from_word(word)),
            8 => Entry::ReconcileBp(ReconcileBp::from_word(word)),
            _ => match usize::from(self.sizes.0[ty as usize]) {
                0 => return Err(DecodeError::unsupported("extent entries", format!("entry type {ty}"))),
                u64s => {
                    self.r.skip((u64s - 1) * 8)?;
                    Entry::Unknown(&all[..u64s * 8])
                }
            },
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.r.remaining() == 0 {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.r = Reader::new("extent entries", &[]);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_entries_need_a_size() {
        let mut bytes = (1u64 << 9).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[7; 8]);
        bytes.extend_from_slice(&1u64.to_le_bytes());
        assert!(Entries::new(&bytes).next().expect("one").is_err());
        let sizes = EntrySizes::with_section(&[9, 9, 9, 9, 9, 9, 9, 9, 9, 2]);
        let entries: Vec<_> = Entries::with_sizes(&bytes, &sizes).collect::<Result<_>>().unwrap();
        assert_eq!(entries[0], Entry::Unknown(&bytes[..16]));
        assert!(matches!(entries[1], Entry::Ptr(_)) && entries.len() == 2);
        let cut = Entries::with_sizes(&bytes[..8], &sizes).collect::<Vec<_>>();
        assert!(cut.len() == 1 && cut[0].is_err());
    }

    #[test]
    fn an_error_ends_the_walk() {
        assert_eq!(Entries::new(&[0; 32]).count(), 1);
        assert_eq!(Entries::new(&[1, 0, 0]).count(), 1);
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(
            words in proptest::collection::vec((0u32..9, any::<u64>()), 0..12)
        ) {
            let bytes: Vec<u8> = words
                .iter()
                .map(|&(ty, w)| (w >> ty >> 1 << ty << 1 | 1 << ty) & if ty == 1 { !(1 << 23) } else { !0 })
                .flat_map(u64::to_le_bytes)
                .collect();
            let mut out = Vec::new();
            for entry in Entries::new(&bytes) {
                match entry {
                    Ok(entry) => entry.encode(&mut out),
                    Err(_) => break,
                }
            }
            prop_assert_eq!(&out[..], &bytes[..out.len()]);
            prop_assert!(bytes.len() - out.len() <= 16);
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Entries::new(&bytes).count() <= bytes.len() / 8 + 1);
        }
    }
}
