//! Digests: positions squeezed into 64 bits, to search by.
//!
//! The positions of a node lie close together: what tells them apart is a few bits of inode, some of offset, maybe a few of
//! snapshot. A [`Digester`] is made for the smallest and largest value of each of the three; the digest of a position is the
//! differences to the smallest ones put one behind the other, cut to 64 bits. So a digest never decreases with the position,
//! and usually different positions have different digests. It is defined for every position: where a field lies outside
//! the node's range, it and the less significant ones are clamped to that side.

use std::cmp::Ordering;

use crate::bpos::Bpos;

/// Maps positions to 64-bit numbers in the same (coarser) order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Digester {
    min: [u64; 3],
    bits: [u8; 3],
}

fn fields(pos: Bpos) -> [u64; 3] {
    [pos.inode, pos.offset, u64::from(pos.snapshot)]
}

impl Digester {
    /// The digester for these positions.
    pub(crate) fn new(positions: impl Iterator<Item = Bpos>) -> Self {
        let (mut min, mut max) = ([u64::MAX; 3], [0; 3]);
        for pos in positions {
            for (f, value) in fields(pos).into_iter().enumerate() {
                min[f] = min[f].min(value);
                max[f] = max[f].max(value);
            }
        }
        let bits = std::array::from_fn(|f| (64 - max[f].saturating_sub(min[f]).leading_zeros()) as u8);
        Digester { min, bits }
    }

    /// The digest of any position.
    #[inline]
    pub(crate) fn digest(&self, pos: Bpos) -> u64 {
        let (mut out, mut free_bits, mut clamped) = (0, 64, Ordering::Equal);
        for (f, value) in fields(pos).into_iter().enumerate() {
            let bits = u32::from(self.bits[f]);
            let largest = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
            if clamped == Ordering::Equal {
                clamped = match value.checked_sub(self.min[f]) {
                    None => Ordering::Less,
                    Some(raw) if raw > largest => Ordering::Greater,
                    Some(_) => Ordering::Equal,
                };
            }
            let raw = match clamped {
                Ordering::Less => 0,
                Ordering::Equal => value - self.min[f],
                Ordering::Greater => largest,
            };
            if bits >= free_bits {
                return out | raw >> (bits - free_bits);
            }
            free_bits -= bits;
            // Shifted by 64 only while nothing but fields of 0 bits, that is 0, has been seen.
            out |= raw.checked_shl(free_bits).unwrap_or(0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::testing::{any_pos, near_bkeys};

    proptest! {
        #[test]
        fn digests_never_decrease(
            near in near_bkeys(),
            far in proptest::collection::vec(any_pos(), 0..3),
            any in proptest::collection::vec(any_pos(), 0..12),
        ) {
            let own: Vec<Bpos> = near.iter().map(|k| k.pos).chain(far).collect();
            let d = Digester::new(own.iter().copied());
            let mut all: Vec<Bpos> = own.iter().copied().chain(any)
                .flat_map(|p| [p.predecessor(), Some(p), p.successor()]).flatten().collect();
            all.sort();
            prop_assert!(all.is_sorted_by_key(|&p| d.digest(p)));
        }

        #[test]
        fn positions_close_together_have_digests_of_their_own(near in near_bkeys()) {
            let mut own: Vec<Bpos> = near.iter().map(|k| k.pos).collect();
            own.sort();
            own.dedup();
            let d = Digester::new(own.iter().copied());
            prop_assert!(own.windows(2).all(|w| d.digest(w[0]) < d.digest(w[1])));
        }
    }

    #[test]
    fn no_positions_no_bits() {
        let d = Digester::new(std::iter::empty());
        assert_eq!(d.digest(Bpos::MIN), 0);
        assert_eq!(d.digest(Bpos::MAX), 0);
    }
}
