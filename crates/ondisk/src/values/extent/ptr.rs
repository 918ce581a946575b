//! The 8-byte pointer to a run of sectors on one device (spec 40 §7.1, entry type 0).

use std::fmt;

use crate::bytes::{bits, with_bits};
use crate::error::{DecodeError, Result};
use crate::units::{DevIndex, Gen, Sectors};

/// One copy of an extent, or one replica of a b-tree node: a place on a device.
///
/// | bits | field |
/// |---|---|
/// | 0 | entry type, always 1 |
/// | 1 | `cached` |
/// | 3 | `unwritten` |
/// | 4–47 | `offset` |
/// | 48–55 | `dev` |
/// | 56–63 | `gen` |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ExtentPtr {
    /// A droppable copy in a cache bucket.
    pub cached: bool,
    /// Space is allocated but was never written: reads as zeros.
    pub unwritten: bool,
    /// Bit 2, unused; kept so that a value re-encodes to the same bytes.
    pub unused: bool,
    /// First sector of the payload, counted from the start of the device; at most [`ExtentPtr::OFFSET_MAX`].
    pub offset: Sectors,
    /// The member device; [`ExtentPtr::DEV_INVALID`] when the copy was lost with its device (spec 80 §5.11).
    pub dev: DevIndex,
    /// Generation of the bucket when the pointer was made.
    pub generation: Gen,
}

impl ExtentPtr {
    /// Bytes of an encoded pointer.
    pub const BYTES: usize = 8;
    /// Largest sector a pointer can hold (44 bits).
    pub const OFFSET_MAX: u64 = (1 << 44) - 1;
    /// The device number of a pointer to nowhere (spec 80 §5.11); its offset means nothing.
    pub const DEV_INVALID: DevIndex = DevIndex(255);

    /// A pointer to dirty, written data.
    pub const fn new(dev: DevIndex, offset: Sectors, generation: Gen) -> Self {
        Self { cached: false, unwritten: false, unused: false, offset, dev, generation }
    }

    /// The device is gone and the pointer leads nowhere.
    pub fn is_invalid(&self) -> bool {
        self.dev == Self::DEV_INVALID
    }

    /// Unpacks the entry.
    ///
    /// # Errors
    /// If the word is not a pointer entry.
    pub fn from_word(word: u64) -> Result<Self> {
        if word & 1 == 0 {
            return Err(DecodeError::invalid(
                "extent pointer",
                format!("entry word {word:#018x} is no pointer"),
            ));
        }
        Ok(Self {
            cached: bits(word, 1, 2) != 0,
            unused: bits(word, 2, 3) != 0,
            unwritten: bits(word, 3, 4) != 0,
            offset: Sectors(bits(word, 4, 48)),
            dev: DevIndex(bits(word, 48, 56) as u8),
            generation: Gen(bits(word, 56, 64) as u8),
        })
    }

    /// Packs the entry.
    ///
    /// # Panics
    /// If `offset` exceeds [`ExtentPtr::OFFSET_MAX`].
    pub fn to_word(self) -> u64 {
        let word =
            1 | u64::from(self.cached) << 1 | u64::from(self.unused) << 2 | u64::from(self.unwritten) << 3;
        let word = with_bits(word, 4, 48, self.offset.0);
        word | u64::from(self.dev.0) << 48 | u64::from(self.generation.0) << 56
    }
}

impl fmt::Display for ExtentPtr {
    /// `dev:sector gen N` and the flags. The reference's listings print bucket and offset in the bucket instead, which
    /// takes the device's bucket size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} gen {}", self.dev, self.offset, self.generation)?;
        if self.cached {
            f.write_str(" cached")?;
        }
        if self.unwritten {
            f.write_str(" unwritten")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_specification() {
        let word = u64::from_le_bytes([0x01, 0x10, 0x03, 0, 0, 0, 0, 0]);
        assert_eq!(ExtentPtr::from_word(word), Ok(ExtentPtr::new(DevIndex(0), Sectors(12544), Gen(0))));
        let word = u64::from_le_bytes([0x01, 0x7d, 0x04, 0, 0, 0, 0, 2]);
        assert_eq!(ExtentPtr::from_word(word), Ok(ExtentPtr::new(DevIndex(0), Sectors(18384), Gen(2))));
    }

    #[test]
    fn other_entries_are_refused() {
        for word in [0, 2, 4, 0x20, u64::MAX << 1] {
            assert!(ExtentPtr::from_word(word).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_pointer_word_round_trips(word: u64) {
            let word = word | 1;
            prop_assert_eq!(ExtentPtr::from_word(word).unwrap().to_word(), word);
        }
    }
}
