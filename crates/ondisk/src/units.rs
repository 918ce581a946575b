//! Newtypes for the numbers that must not be mixed up. All wrap the integer stored on disk.

use std::fmt;

/// Bytes in a sector, the unit of all device offsets and extent sizes (spec 10 §1).
pub const SECTOR_BYTES: u64 = 512;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$int> for $name {
            fn from(v: $int) -> Self {
                Self(v)
            }
        }
    };
}

unit! {
    /// A count or offset of 512-byte sectors.
    Sectors(u64)
}
unit! {
    /// Number of a journal entry (spec 20 §7.1). Starts at 1.
    Seq(u64)
}
unit! {
    /// Random number that identifies a b-tree node: in its pointer and in each of its bsets (spec 30 §5.3).
    NodeSeq(u64)
}
unit! {
    /// Number of a superblock write (spec 10 §4): unrelated to journal entries. mkfs writes 0.
    SbSeq(u64)
}
unit! {
    /// Seconds since the Unix epoch, the unit of times in the superblock (spec 10 §1); 0 is "never".
    UnixSeconds(u64)
}
unit! {
    /// Index of a bucket on its device.
    BucketIndex(u64)
}
unit! {
    /// Index of a member device in the superblock's member list (spec 10 §10).
    DevIndex(u8)
}
unit! {
    /// Generation of a bucket; wraps (spec 50 §1.1).
    Gen(u8)
}
unit! {
    /// Number of an inode; 4096 is the first (spec 40 §3.1).
    Inum(u64)
}
unit! {
    /// Id of a snapshot; children have smaller ids than their parents (spec 40 §13).
    SnapshotId(u32)
}
unit! {
    /// Id of a subvolume; the first is 1 (spec 40 §13.2).
    SubvolId(u32)
}

impl Sectors {
    /// The same length in bytes; `None` when it does not fit 64 bits.
    pub fn to_bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_BYTES)
    }
}

impl Gen {
    /// Whether it is newer: generations wrap, so of two the one at most 127 steps ahead is (spec 50 §1.1).
    pub fn is_after(self, other: Gen) -> bool {
        self.0.wrapping_sub(other.0) as i8 > 0
    }

    /// The next one.
    pub fn next(self) -> Gen {
        Gen(self.0.wrapping_add(1))
    }
}

impl Inum {
    /// The root directory of subvolume 1 (spec 40 §3.1).
    pub const ROOT: Inum = Inum(4096);
}

impl SubvolId {
    /// The root subvolume (spec 40 §13.2).
    pub const ROOT: SubvolId = SubvolId(1);
}
