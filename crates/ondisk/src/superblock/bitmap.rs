//! The map of where b-tree nodes are on a device (spec 10 §10).
//!
//! 64 bits cover the device; each stands for `2^shift` sectors. A set bit says that there is, or was, a b-tree node in its part, so that a
//! search for lost nodes can skip the rest. A node's bits must be on disk before the node becomes reachable.

use std::ops::Range;

use crate::error::{DecodeError, Result};
use crate::units::{DevIndex, Sectors};

/// The map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BtreeBitmap {
    /// Binary logarithm of the sectors one bit stands for.
    pub shift: u8,
    /// The bits.
    pub bits: u64,
}

impl BtreeBitmap {
    /// The shift must be below this.
    const SHIFT_END: u8 = 58;

    /// Checks the shift.
    pub(in crate::superblock) fn validate(&self, index: DevIndex) -> Result<()> {
        if self.shift >= Self::SHIFT_END {
            return Err(DecodeError::invalid(
                "superblock member",
                format!(
                    "device {index}: btree bitmap shift {}, must be below {}",
                    self.shift,
                    Self::SHIFT_END
                ),
            ));
        }
        Ok(())
    }

    /// The bits of a range of sectors; `None` if some of it is past the last bit.
    fn mask(&self, range: &Range<Sectors>) -> Option<u64> {
        let shift = u32::from(self.shift);
        let at = |sector: u64| sector.checked_shr(shift).unwrap_or(0);
        let (first, last) = (at(range.start.0), at(range.end.0.checked_sub(1)?));
        if range.is_empty() || last >= 64 {
            return None;
        }
        Some(u64::MAX >> (63 - (last - first)) << first)
    }

    /// Every sector of the range is in a part whose bit is set: a node there can be found.
    pub fn covers(&self, range: Range<Sectors>) -> bool {
        self.mask(&range).is_some_and(|m| self.bits & m == m)
    }

    /// Marks a node's sectors, making the map coarser if they are past its end. `true` if anything changed.
    pub fn mark(&mut self, range: Range<Sectors>) -> bool {
        let before = *self;
        let bits_needed = 64 - range.end.0.saturating_sub(1).leading_zeros();
        let coarser = bits_needed.saturating_sub(u32::from(self.shift) + 6);
        if coarser > 0 {
            self.bits =
                (0..64).filter(|b| self.bits >> b & 1 != 0).fold(0, |map, b| map | 1 << (b >> coarser));
            self.shift += coarser as u8;
        }
        self.bits |= self.mask(&range).unwrap_or(0);
        *self != before
    }

    /// The marked parts as ranges of sectors, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let part = 1u64.checked_shl(u32::from(self.shift)).unwrap_or(u64::MAX);
        let marked = (0..64u64).filter(|b| self.bits >> b & 1 != 0);
        marked.map(move |b| b.saturating_mul(part)..(b + 1).saturating_mul(part))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn example_of_the_specification() {
        let mut map = BtreeBitmap::default();
        for start in [12800, 13312, 13568, 14336, 15104, 15872, 16128, 16640, 17408] {
            assert!(map.mark(Sectors(start)..Sectors(start + 256)));
        }
        assert_eq!(map, BtreeBitmap { shift: 9, bits: 0x5_b600_0000 });
        assert!(map.covers(Sectors(17408)..Sectors(17664)));
        assert!(!map.covers(Sectors(17920)..Sectors(18176)));
        assert!(!map.mark(Sectors(12800)..Sectors(13056)));
        assert!(map.ranges().next() == Some(25 << 9..26 << 9));
    }

    proptest! {
        #[test]
        fn marked_stays_covered(starts in prop::collection::vec(0u64..1 << 40, 1..20), size in 1u64..4096) {
            let mut map = BtreeBitmap::default();
            for &start in &starts {
                map.mark(Sectors(start)..Sectors(start + size));
            }
            for &start in &starts {
                prop_assert!(map.covers(Sectors(start)..Sectors(start + size)));
            }
        }

        #[test]
        fn any_map_is_safe(shift: u8, bits: u64, start: u64, end: u64) {
            let map = BtreeBitmap { shift, bits };
            map.covers(Sectors(start)..Sectors(end));
            prop_assert!(map.ranges().count() <= 64);
        }
    }
}
