//! Feature bits (spec 10 §6, spec 80 §7.4).
//!
//! *Features* are incompatible: a reader that does not know a set bit must refuse the filesystem. *Compat* bits say what
//! has been done or holds; unknown ones are tolerated.

use std::fmt;

macro_rules! bit_set {
    ($(#[$doc:meta])* $set:ident; $($(#[$bitdoc:meta])* $konst:ident = $bit:literal, $name:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $set(pub [u64; 2]);

        impl $set {
            $($(#[$bitdoc])* pub const $konst: $set = $set([1 << $bit, 0]);)*

            /// Bits with a name.
            const NAMES: &[(u32, &str)] = &[$(($bit, $name),)*];

            /// The empty set.
            pub const fn empty() -> Self {
                $set([0; 2])
            }

            /// Every bit of either set.
            pub const fn union(self, other: Self) -> Self {
                $set([self.0[0] | other.0[0], self.0[1] | other.0[1]])
            }

            /// The bits of this set that are not in the other.
            pub const fn difference(self, other: Self) -> Self {
                $set([self.0[0] & !other.0[0], self.0[1] & !other.0[1]])
            }

            /// Every bit of `other` is set.
            pub const fn contains(self, other: Self) -> bool {
                self.0[0] & other.0[0] == other.0[0] && self.0[1] & other.0[1] == other.0[1]
            }

            /// No bit is set.
            pub const fn is_empty(self) -> bool {
                self.0[0] == 0 && self.0[1] == 0
            }

            /// Numbers of the bits set, ascending.
            pub fn bits(self) -> impl Iterator<Item = u32> {
                let word = u128::from(self.0[1]) << 64 | u128::from(self.0[0]);
                (0..128).filter(move |b| word >> b & 1 != 0)
            }

            /// Name of a bit; `None` for one this program does not know.
            pub fn name(bit: u32) -> Option<&'static str> {
                Self::NAMES.iter().find(|(b, _)| *b == bit).map(|(_, name)| *name)
            }

            /// The bits this program has no name for.
            pub fn unknown(self) -> Self {
                let known = Self::NAMES.iter().fold(0, |set, (bit, _)| set | 1 << bit);
                self.difference($set([known, 0]))
            }
        }

        /// Comma-separated names; an unknown bit prints as `(unknown bit N)`.
        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (i, bit) in self.bits().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    match Self::name(bit) {
                        Some(name) => f.write_str(name)?,
                        None => write!(f, "(unknown bit {bit})")?,
                    }
                }
                Ok(())
            }
        }

        impl fmt::Debug for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($set))
            }
        }
    };
}

bit_set! {
    /// Incompatible feature bits.
    Features;
    /// Some data is, or may be, compressed with lz4.
    LZ4 = 0, "lz4";
    /// The same for gzip.
    GZIP = 1, "gzip";
    /// The same for zstd.
    ZSTD = 2, "zstd";
    /// Historic.
    ATOMIC_NLINK = 3, "atomic_nlink";
    /// Erasure coding may be used.
    EC = 4, "ec";
    /// The section `journal_seq_blacklist` exists.
    JOURNAL_SEQ_BLACKLIST_V3 = 5, "journal_seq_blacklist_v3";
    /// Shared extents may exist.
    REFLINK = 6, "reflink";
    /// Option value *siphash* means the real SipHash.
    NEW_SIPHASH = 7, "new_siphash";
    /// Inline data may exist.
    INLINE_DATA = 8, "inline_data";
    /// Required: overwritten extents are cut when written.
    NEW_EXTENT_OVERWRITE = 9, "new_extent_overwrite";
    /// Historic.
    INCOMPRESSIBLE = 10, "incompressible";
    /// Pointers to b-tree nodes have type `btree_ptr_v2`.
    BTREE_PTR_V2 = 11, "btree_ptr_v2";
    /// Required while not clean: the order of extents before b-tree updates in the journal.
    EXTENTS_ABOVE_BTREE_UPDATES = 12, "extents_above_btree_updates";
    /// Set while not clean: updates of interior nodes are journalled.
    BTREE_UPDATES_JOURNALLED = 13, "btree_updates_journalled";
    /// Shared inline data may exist.
    REFLINK_INLINE_DATA = 14, "reflink_inline_data";
    /// Integers in inodes have the new encoding.
    NEW_VARINT = 15, "new_varint";
    /// Journal entries may be written without a flush.
    JOURNAL_NO_FLUSH = 16, "journal_no_flush";
    /// Alloc keys have type `alloc_v2` or newer.
    ALLOC_V2 = 17, "alloc_v2";
    /// Extents may cross the border of b-tree nodes.
    EXTENTS_ACROSS_BTREE_NODES = 18, "extents_across_btree_nodes";
    /// The two INCOMPAT version fields mean something (spec 80 §2).
    INCOMPAT_VERSION_FIELD = 19, "incompat_version_field";
    /// Directories may ignore the case of names (spec 80 §5.9).
    CASEFOLDING = 20, "casefolding";
    /// B-trees about allocation are absent (spec 80 §6.1).
    NO_ALLOC_INFO = 21, "no_alloc_info";
    /// A compact image file, to be resized before it is written (spec 80 §6.1).
    SMALL_IMAGE = 22, "small_image";
    /// There is no superblock at sector 8 (spec 80 §6.1).
    NO_DEFAULT_SB = 23, "no_default_sb";
}

impl Features {
    /// What programs of format 1.13 know; they refuse anything else.
    pub const KNOWN_1_13: Features = Features([(1 << 19) - 1, 0]);
    /// What a formatter of format 1.13 sets, and what an upgrade to it adds.
    pub const STANDARD_1_13: Features = Features([0x7ba80, 0]);
    /// What going read-write adds.
    pub const WHEN_READ_WRITE: Features = Features([0x63200, 0]);
    /// What a clean shutdown takes away.
    pub const WHEN_DIRTY: Features = Features([0x3000, 0]);
}

bit_set! {
    /// Compatible feature bits.
    CompatFeatures;
    /// Allocation information in the b-trees is complete.
    ALLOC_INFO = 0, "alloc_info";
    /// Set by a clean shutdown.
    ALLOC_METADATA = 1, "alloc_metadata";
    /// No b-tree node is left that predates the feature `extents_above_btree_updates`.
    EXTENTS_ABOVE_BTREE_UPDATES_DONE = 2, "extents_above_btree_updates_done";
    /// No b-tree node has a key format with an overflowing field.
    BFORMAT_OVERFLOW_DONE = 3, "bformat_overflow_done";
    /// No cached pointer is stale (spec 80 §5.11).
    NO_STALE_PTRS = 4, "no_stale_ptrs";
}

impl CompatFeatures {
    /// What programs of format 1.13 know; a downgrade clears the rest.
    pub const KNOWN_1_13: CompatFeatures = CompatFeatures([0xf, 0]);
    /// What the first start sets.
    pub const WHEN_INITIALIZED: CompatFeatures = CompatFeatures([0xc, 0]);
    /// What a clean shutdown adds.
    pub const WHEN_CLEAN: CompatFeatures = CompatFeatures([0x3, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_the_specification() {
        let standard: Vec<u32> = Features::STANDARD_1_13.bits().collect();
        assert_eq!(standard, [7, 9, 11, 12, 13, 15, 16, 17, 18]);
        assert_eq!(Features::STANDARD_1_13.difference(Features::WHEN_DIRTY), Features([0x78a80, 0]));
        let read_write: Vec<u32> = Features::WHEN_READ_WRITE.bits().collect();
        assert_eq!(read_write, [9, 12, 13, 17, 18]);
        assert_eq!(Features::WHEN_DIRTY.to_string(), "extents_above_btree_updates,btree_updates_journalled");
    }

    #[test]
    fn unknown_bits_are_told_apart() {
        assert!(Features([(1 << 24) - 1, 0]).unknown().is_empty());
        let odd = Features([1 << 24 | 1, 2]);
        assert_eq!(odd.unknown(), Features([1 << 24, 2]));
        assert_eq!(odd.to_string(), "lz4,(unknown bit 24),(unknown bit 65)");
        assert!(!Features::KNOWN_1_13.contains(Features::CASEFOLDING));
    }
}
