//! The seven flag words of the superblock: the one table of their bit ranges (spec 10 §5, spec 80 §7.4).
//!
//! The words hold state (clean, initialised, has errors …), version numbers, and most of the stored options. Each field is one row of
//! the table below, which yields a [`FlagField`] for code that works by table (options, listings) and a pair of typed accessors
//! on [`Flags`]. Whole words are kept, so bits of newer programs survive a rewrite.
//!
//! What the values of options mean, and which are legal, is in [`super::options`].

use crate::bytes::{bits, with_bits};
use crate::units::Sectors;
use crate::version::Version;

/// Number of flag words.
pub const FLAG_WORDS: usize = 7;

/// The flag words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub [u64; FLAG_WORDS]);

/// A range of bits in one of the flag words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagField {
    /// The name in the specification.
    pub name: &'static str,
    /// Index of the word.
    pub word: usize,
    /// First bit.
    pub lo: u32,
    /// Bit behind the last.
    pub hi: u32,
}

impl FlagField {
    /// Largest value the field can hold.
    pub const fn max(self) -> u64 {
        u64::MAX >> (64 - (self.hi - self.lo))
    }
}

/// A type a flag field can have.
pub trait FlagValue {
    /// From the field's bits, shifted down.
    fn from_bits(bits: u64) -> Self;
    /// To the field's bits.
    fn into_bits(self) -> u64;
}

impl FlagValue for bool {
    fn from_bits(bits: u64) -> bool {
        bits != 0
    }
    fn into_bits(self) -> u64 {
        u64::from(self)
    }
}

macro_rules! flag_values {
    ($($ty:ty, $get:expr, $put:expr;)*) => {
        $(impl FlagValue for $ty {
            fn from_bits(bits: u64) -> $ty {
                $get(bits)
            }
            fn into_bits(self) -> u64 {
                $put(self)
            }
        })*
    };
}

flag_values! {
    u8, |b| b as u8, u64::from;
    u16, |b| b as u16, u64::from;
    u32, |b| b as u32, u64::from;
    Sectors, Sectors, |s: Sectors| s.0;
    Version, |b| Version(b as u16), |v: Version| u64::from(v.0);
}

impl Flags {
    /// Of a new filesystem of format 1.13 with 128 KiB b-tree nodes and default options, never started (spec 10 §5).
    pub const NEW_1_13: Flags =
        Flags([0x8111110080100100, 0x0111c102, 0, 0xfa30000000, 0x100000064, 0x1e0000, 0]);

    /// The bits of a field.
    pub const fn get(&self, field: FlagField) -> u64 {
        bits(self.0[field.word], field.lo, field.hi)
    }

    /// Replaces the bits of a field.
    ///
    /// # Panics
    /// If the value does not fit: values from outside are checked where they enter ([`super::options`]).
    pub const fn set(&mut self, field: FlagField, value: u64) {
        self.0[field.word] = with_bits(self.0[field.word], field.lo, field.hi, value);
    }
}

macro_rules! flags {
    ($($(#[$doc:meta])* $word:literal: $lo:literal .. $hi:literal $name:ident $get:ident $set:ident $ty:ty;)*) => {
        impl FlagField {
            $(
                $(#[$doc])*
                pub const $name: FlagField =
                    FlagField { name: stringify!($name), word: $word, lo: $lo, hi: $hi };
            )*

            /// Every field, in the order of their bits.
            pub const ALL: &[FlagField] = &[$(FlagField::$name,)*];
        }

        impl Flags {
            $(
                $(#[$doc])*
                pub fn $get(&self) -> $ty {
                    <$ty>::from_bits(self.get(FlagField::$name))
                }

                #[doc = concat!("Sets [`Flags::", stringify!($get), "`].")]
                ///
                /// # Panics
                /// If the value does not fit the field.
                pub fn $set(&mut self, value: $ty) {
                    self.set(FlagField::$name, value.into_bits());
                }
            )*
        }
    };
}

flags! {
    /// The first start has happened: root directory, journal and the rest exist.
    0: 0..1 INITIALIZED initialized set_initialized bool;
    /// Shut down cleanly; section `clean` is valid.
    0: 1..2 CLEAN clean set_clean bool;
    /// Number of the checksum type that protects this superblock (spec 10 §14.1).
    0: 2..8 CSUM_TYPE csum_type set_csum_type u8;
    /// Option `errors`.
    0: 8..12 ERROR_ACTION error_action set_error_action u8;
    /// Size of a b-tree node.
    0: 12..28 BTREE_NODE_SIZE btree_node_size set_btree_node_size Sectors;
    /// Option `gc_reserve_percent`.
    0: 28..33 GC_RESERVE gc_reserve_percent set_gc_reserve_percent u8;
    /// Option `root_reserve_percent`.
    0: 33..40 ROOT_RESERVE root_reserve_percent set_root_reserve_percent u8;
    /// Option `metadata_checksum`.
    0: 40..44 META_CSUM_TYPE metadata_checksum set_metadata_checksum u8;
    /// Option `data_checksum`.
    0: 44..48 DATA_CSUM_TYPE data_checksum set_data_checksum u8;
    /// Option `metadata_replicas`.
    0: 48..52 META_REPLICAS_WANT metadata_replicas set_metadata_replicas u8;
    /// Option `data_replicas`.
    0: 52..56 DATA_REPLICAS_WANT data_replicas set_data_replicas u8;
    /// Option `acl`.
    0: 56..57 POSIX_ACL acl set_acl bool;
    /// Option `usrquota`.
    0: 57..58 USRQUOTA usrquota set_usrquota bool;
    /// Option `grpquota`.
    0: 58..59 GRPQUOTA grpquota set_grpquota bool;
    /// Option `prjquota`.
    0: 59..60 PRJQUOTA prjquota set_prjquota bool;
    /// An inconsistency was seen and not yet cleared by a complete check.
    0: 60..61 HAS_ERRORS has_errors set_has_errors bool;
    /// The same for the shape of a b-tree; the next start checks it.
    0: 61..62 HAS_TOPOLOGY_ERRORS has_topology_errors set_has_topology_errors bool;
    /// Written on a big-endian machine, in its byte order.
    0: 62..63 BIG_ENDIAN big_endian set_big_endian bool;
    /// Option `promote_whole_extents`.
    0: 63..64 PROMOTE_WHOLE_EXTENTS promote_whole_extents set_promote_whole_extents bool;

    /// Option `str_hash`.
    1: 0..4 STR_HASH_TYPE str_hash set_str_hash u8;
    /// Option `compression`: the algorithm.
    1: 4..8 COMPRESSION_TYPE_LO compression_lo set_compression_lo u8;
    /// Option `inodes_32bit`.
    1: 8..9 INODE_32BIT inodes_32bit set_inodes_32bit bool;
    /// Option `wide_macs`.
    1: 9..10 WIDE_MACS wide_macs set_wide_macs bool;
    /// Nonzero: new metadata and data are encrypted.
    1: 10..14 ENCRYPTION_TYPE encryption_type set_encryption_type u8;
    /// Option `encoded_extent_max`, as the binary logarithm of sectors.
    1: 14..20 ENCODED_EXTENT_MAX_BITS encoded_extent_max_bits set_encoded_extent_max_bits u8;
    /// Option `metadata_replicas_required`.
    1: 20..24 META_REPLICAS_REQ metadata_replicas_required set_metadata_replicas_required u8;
    /// Option `data_replicas_required`.
    1: 24..28 DATA_REPLICAS_REQ data_replicas_required set_data_replicas_required u8;
    /// Option `promote_target`.
    1: 28..40 PROMOTE_TARGET promote_target set_promote_target u16;
    /// Option `foreground_target`.
    1: 40..52 FOREGROUND_TARGET foreground_target set_foreground_target u16;
    /// Option `background_target`.
    1: 52..64 BACKGROUND_TARGET background_target set_background_target u16;

    /// Option `background_compression`: the algorithm.
    2: 0..4 BACKGROUND_COMPRESSION_TYPE_LO background_compression_lo set_background_compression_lo u8;
    /// Option `gc_reserve_bytes`.
    2: 4..64 GC_RESERVE_BYTES gc_reserve set_gc_reserve Sectors;

    /// Option `erasure_code`.
    3: 0..16 ERASURE_CODE erasure_code set_erasure_code u16;
    /// Option `metadata_target`.
    3: 16..28 METADATA_TARGET metadata_target set_metadata_target u16;
    /// Option `shard_inode_numbers`.
    3: 28..29 SHARD_INUMS shard_inode_numbers set_shard_inode_numbers bool;
    /// Option `inodes_use_key_cache`.
    3: 29..30 INODES_USE_KEY_CACHE inodes_use_key_cache set_inodes_use_key_cache bool;
    /// Option `journal_flush_delay`, milliseconds.
    3: 30..62 JOURNAL_FLUSH_DELAY journal_flush_delay_ms set_journal_flush_delay_ms u32;
    /// Option `journal_flush_disabled`.
    3: 62..63 JOURNAL_FLUSH_DISABLED journal_flush_disabled set_journal_flush_disabled bool;
    /// The filesystem has, or had, more than one device (newer programs).
    3: 63..64 MULTI_DEVICE multi_device set_multi_device bool;

    /// Option `journal_reclaim_delay`, milliseconds.
    4: 0..32 JOURNAL_RECLAIM_DELAY journal_reclaim_delay_ms set_journal_reclaim_delay_ms u32;
    /// Option `journal_transaction_names`.
    4: 32..33 JOURNAL_TRANSACTION_NAMES journal_transaction_names set_journal_transaction_names bool;
    /// Option `nocow`.
    4: 33..34 NOCOW nocow set_nocow bool;
    /// Obsolete.
    4: 34..54 WRITE_BUFFER_SIZE write_buffer_size set_write_buffer_size u32;
    /// Option `version_upgrade`.
    4: 54..56 VERSION_UPGRADE version_upgrade set_version_upgrade u8;
    /// Option `compression`: the level.
    4: 56..60 COMPRESSION_TYPE_HI compression_hi set_compression_hi u8;
    /// Option `background_compression`: the level.
    4: 60..64 BACKGROUND_COMPRESSION_TYPE_HI background_compression_hi set_background_compression_hi u8;

    /// Version up to which all upgrade work is done; 0 on a filesystem never started.
    5: 0..16 VERSION_UPGRADE_COMPLETE version_upgrade_complete set_version_upgrade_complete Version;
    /// Option `allocator_stuck_timeout`, seconds.
    5: 16..32 ALLOCATOR_STUCK_TIMEOUT allocator_stuck_timeout_s set_allocator_stuck_timeout_s u16;
    /// Newest incompatible feature in use (spec 80 §2); meaningful only with the feature `incompat_version_field`.
    5: 32..48 VERSION_INCOMPAT version_incompat set_version_incompat Version;
    /// Newest incompatible feature that may be used; as above.
    5: 48..64 VERSION_INCOMPAT_ALLOWED version_incompat_allowed set_version_incompat_allowed Version;

    /// Option `shard_inode_numbers_bits` of newer programs.
    6: 0..4 SHARD_INUMS_NBITS shard_inode_numbers_bits set_shard_inode_numbers_bits u8;
    /// Option `write_error_timeout`, seconds.
    6: 4..14 WRITE_ERROR_TIMEOUT write_error_timeout_s set_write_error_timeout_s u16;
    /// Option `checksum_err_retry_nr`.
    6: 14..20 CSUM_ERR_RETRY_NR checksum_err_retry_nr set_checksum_err_retry_nr u8;
    /// Option `degraded` of newer programs.
    6: 20..22 DEGRADED_ACTION degraded_action set_degraded_action u8;
    /// Option `casefold`.
    6: 22..23 CASEFOLD casefold set_casefold bool;
    /// Option `reconcile_on_ac_only`.
    6: 23..24 RECONCILE_AC_ONLY reconcile_on_ac_only set_reconcile_on_ac_only bool;
    /// Option `writeback_timeout`.
    6: 24..40 WRITEBACK_TIMEOUT writeback_timeout_s set_writeback_timeout_s u16;
    /// Low bits of a backpointer's offset that hold an offset inside the extent; 0 means 10 (spec 80 §5.14).
    6: 40..48 EXTENT_BP_SHIFT extent_bp_shift set_extent_bp_shift u8;
    /// Option `scrub_recent_journal_entries`.
    6: 48..50 SCRUB_JOURNAL scrub_journal set_scrub_journal u8;
    /// Option `ec_max_data_blocks`.
    6: 50..58 EC_MAX_DATA_BLOCKS ec_max_data_blocks set_ec_max_data_blocks u8;
    /// Option `move_writes_fua`.
    6: 58..59 MOVE_WRITES_FUA move_writes_fua set_move_writes_fua bool;
    /// Names were scrubbed from this image; hashes of names must not be checked.
    6: 59..60 DIRENTS_SANITIZED dirents_sanitized set_dirents_sanitized bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap_and_are_in_order() {
        for pair in FlagField::ALL.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            assert!((a.word, a.hi) <= (b.word, b.lo) || a.word < b.word, "{} and {}", a.name, b.name);
        }
        assert!(FlagField::ALL.iter().all(|f| f.word < FLAG_WORDS && f.lo < f.hi && f.hi <= 64));
    }

    #[test]
    fn default_words_of_the_specification() {
        let flags =
            Flags([0x8111110080100107, 0x0111c102, 0, 0xfa30000000, 0x100000064, 0x1e040d, 0x10000000c1e0]);
        assert!(flags.initialized() && flags.clean() && flags.acl() && flags.promote_whole_extents());
        assert_eq!(flags.csum_type(), 1);
        assert_eq!(flags.btree_node_size(), Sectors(256));
        assert_eq!((flags.gc_reserve_percent(), flags.root_reserve_percent()), (8, 0));
        assert_eq!((flags.str_hash(), flags.encoded_extent_max_bits()), (2, 7));
        assert_eq!(flags.journal_flush_delay_ms(), 1000);
        assert_eq!(flags.journal_reclaim_delay_ms(), 100);
        assert_eq!(flags.version_upgrade_complete(), Version::WRITE);
        assert_eq!(flags.allocator_stuck_timeout_s(), 30);
        assert_eq!((flags.write_error_timeout_s(), flags.checksum_err_retry_nr()), (30, 3));
        assert_eq!(flags.extent_bp_shift(), 16);
    }

    #[test]
    fn every_field_is_set_alone() {
        for &field in FlagField::ALL {
            let mut flags = Flags::default();
            flags.set(field, field.max());
            assert_eq!(flags.get(field), field.max());
            for &other in FlagField::ALL {
                assert!(other == field || flags.get(other) == 0, "{} touches {}", field.name, other.name);
            }
        }
    }
}
