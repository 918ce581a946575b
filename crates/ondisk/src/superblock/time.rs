//! Times of inodes (spec 10 §4.1).
//!
//! An inode's time is a signed count of `time_precision` nanoseconds since the filesystem was made, so that a fresh file
//! has a small number, and a file older than the filesystem a negative one.

/// What inode times are relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBase {
    /// Creation of the filesystem, in nanoseconds since 1970.
    pub base_ns: u64,
    /// Nanoseconds per unit of time, 1 to [`TimeBase::PRECISION_MAX`]; 1 in practice.
    pub precision_ns: u32,
}

impl TimeBase {
    /// One second: no coarser clock is legal.
    pub const PRECISION_MAX: u32 = 1_000_000_000;

    fn precision(self) -> i128 {
        i128::from(self.precision_ns.max(1))
    }

    fn base_units(self) -> i128 {
        i128::from(self.base_ns) / self.precision()
    }

    /// An inode's time, in nanoseconds since 1970.
    pub fn to_unix_ns(self, inode_time: i64) -> i128 {
        (i128::from(inode_time) + self.base_units()) * self.precision()
    }

    /// The inode time that holds a moment given in nanoseconds since 1970: rounded down to the precision, and clamped to
    /// the (astronomically large) range of the format.
    pub fn from_unix_ns(self, unix_ns: i128) -> i64 {
        let units = unix_ns.div_euclid(self.precision()).saturating_sub(self.base_units());
        units.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relative_to_creation() {
        let base = TimeBase { base_ns: 1_700_000_000_000_000_000, precision_ns: 1 };
        assert_eq!(base.to_unix_ns(181_511), 1_700_000_000_000_181_511);
        assert_eq!(base.from_unix_ns(0), -1_700_000_000_000_000_000);
        assert_eq!(base.from_unix_ns(i128::MAX), i64::MAX);
        let coarse = TimeBase { base_ns: 1_500_000_000, precision_ns: 1_000_000_000 };
        assert_eq!(coarse.to_unix_ns(1), 2_000_000_000);
        assert_eq!(coarse.from_unix_ns(-1), -2);
    }

    proptest! {
        #[test]
        fn round_trips(t: i64, base_ns: u64, precision_ns in 0..=TimeBase::PRECISION_MAX) {
            let base = TimeBase { base_ns, precision_ns };
            prop_assert_eq!(base.from_unix_ns(base.to_unix_ns(t)), t);
        }
    }
}
