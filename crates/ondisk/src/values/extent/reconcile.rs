//! Entries about background work: rebalance up to 1.32, reconcile from 1.33 (spec 40 §12, spec 80 §5.15).
//!
//! Each wraps the stored word, so that bits of other versions survive a rewrite, and reads its fields on demand.

use crate::bytes::bits;
use crate::compression::CompressionOption;

/// Entry type 5: background compression or move wanted. Versions 1.20–1.32 keep more in the bits that 1.13 leaves zero;
/// compression and target are at the same place in both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rebalance(u64);

impl Rebalance {
    /// An entry as 1.13 writes it.
    pub const fn new(compression: CompressionOption, target: u16) -> Self {
        Self(1 << 5 | (compression.0 as u64) << 40 | (target as u64) << 48)
    }

    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The stored word.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The compression wanted.
    pub const fn compression(self) -> CompressionOption {
        CompressionOption((self.0 >> 40) as u8)
    }

    /// Number of copies wanted, from 1.20; 0 in entries of 1.13.
    pub fn data_replicas(self) -> u8 {
        bits(self.0, 36, 40) as u8
    }

    /// Checksum option wanted, from 1.20; 0 in entries of 1.13.
    pub fn data_checksum(self) -> u8 {
        bits(self.0, 32, 36) as u8
    }

    /// The target wanted (spec 10 §9.6), 0 for none.
    pub const fn target(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// What a reconcile entry asks for: bits 17–21 of its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeedRb(pub u8);

impl NeedRb {
    /// The number of copies.
    pub const DATA_REPLICAS: NeedRb = NeedRb(1);
    /// The checksum type.
    pub const DATA_CHECKSUM: NeedRb = NeedRb(2);
    /// Erasure coding.
    pub const ERASURE_CODE: NeedRb = NeedRb(4);
    /// Compression.
    pub const BACKGROUND_COMPRESSION: NeedRb = NeedRb(8);
    /// The devices.
    pub const BACKGROUND_TARGET: NeedRb = NeedRb(16);

    const NAMES: [&str; 5] =
        ["data_replicas", "data_checksum", "erasure_code", "background_compression", "background_target"];

    /// All bits of `other` are set.
    pub const fn contains(self, other: NeedRb) -> bool {
        self.0 & other.0 == other.0
    }

    /// Names of the bits set, in order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(i, _)| self.0 >> i & 1 != 0).map(|(_, n)| n)
    }
}

/// Entry type 7: what background work must change, and the options it follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reconcile(u64);

impl Reconcile {
    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The stored word.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Bit i: the i-th pointer of the key is on a device it must leave.
    pub fn ptrs_moving(self) -> u8 {
        bits(self.0, 10, 15) as u8
    }

    /// Copies are missing: do it first.
    pub fn hipri(self) -> bool {
        bits(self.0, 15, 16) != 0
    }

    /// It cannot be done at present.
    pub fn pending(self) -> bool {
        bits(self.0, 16, 17) != 0
    }

    /// What must change.
    pub fn need(self) -> NeedRb {
        NeedRb(bits(self.0, 17, 22) as u8)
    }

    /// Number of copies wanted.
    pub fn data_replicas(self) -> u8 {
        bits(self.0, 28, 31) as u8
    }

    /// Checksum option wanted (option number, spec 10 §8.2).
    pub fn data_checksum(self) -> u8 {
        bits(self.0, 31, 35) as u8
    }

    /// Erasure coding wanted.
    pub fn erasure_code(self) -> bool {
        bits(self.0, 35, 36) != 0
    }

    /// Compression wanted.
    pub fn background_compression(self) -> CompressionOption {
        CompressionOption(bits(self.0, 36, 44) as u8)
    }

    /// Target wanted, 0 for none.
    pub fn background_target(self) -> u16 {
        bits(self.0, 44, 54) as u16
    }

    /// Target of cached copies, 0 for none.
    pub fn promote_target(self) -> u16 {
        bits(self.0, 54, 64) as u16
    }
}

/// Entry type 8, on b-tree pointers only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReconcileBp(u64);

impl ReconcileBp {
    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The stored word.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Offset of the node's key in b-tree `reconcile_scan`; 0 for none.
    pub const fn idx(self) -> u64 {
        self.0 >> 9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec 80 §12.
    #[test]
    fn the_example_of_the_specification() {
        let r = Reconcile::from_word(0x0010_2030_9030_0480);
        assert_eq!((r.ptrs_moving(), r.hipri(), r.pending()), (1, false, false));
        assert_eq!(r.need().names().collect::<Vec<_>>(), ["background_compression", "background_target"]);
        assert!(r.need().contains(NeedRb::BACKGROUND_TARGET) && !r.need().contains(NeedRb::DATA_REPLICAS));
        assert_eq!((r.data_replicas(), r.data_checksum(), r.erasure_code()), (1, 1, false));
        assert_eq!(r.background_compression().to_string(), "zstd");
        assert_eq!((r.background_target(), r.promote_target()), (0x102, 0));
    }

    #[test]
    fn rebalance_entries_are_built_as_1_13_writes_them() {
        let zstd5 = CompressionOption::parse("zstd:5").expect("valid");
        assert_eq!(Rebalance::new(zstd5, 0).word().to_le_bytes(), [0x20, 0, 0, 0, 0, 0x53, 0, 0]);
    }
}
