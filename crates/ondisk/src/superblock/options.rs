//! The options stored in the superblock: where each is, how it is encoded, and what is legal (spec 10 §8, spec 80 §7.4).
//!
//! An option is one row of the table at the end. Its *value* is a number in the unit a user thinks in: bytes for sizes, the
//! position of the name for choices, 0 or 1 for switches. How that becomes bits (sectors, a logarithm, two halves in different
//! words) is the row's [`Encoding`] and [`Place`]; [`Superblock::option`] and [`Superblock::set_option`] apply them.
//!
//! Every option is checked when a superblock is read and before it is written. The maximum is exclusive. For choices the
//! reference accepts one value too many; here that is refused, because nothing could be done with it.

use std::fmt;

use crate::checksum::{ChecksumOption, EncryptionMode};
use crate::compression::CompressionOption;
use crate::error::{DecodeError, Result};
use crate::superblock::Superblock;
use crate::superblock::flags::FlagField;
use crate::superblock::sections::ext::Ext;
use crate::units::{DevIndex, SECTOR_BYTES};
use crate::version::Version;

const WHAT: &str = "superblock option";

/// One stored option.
#[derive(Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name users type and listings print.
    pub name: &'static str,
    /// Where the bits are.
    pub place: Place,
    /// What the value is and how it becomes bits.
    pub encoding: Encoding,
    /// Smallest legal value.
    pub min: u64,
    /// Smallest value above `min` that is not legal.
    pub end: u64,
    /// Value in a new filesystem; a formatter may compute another for sizes.
    pub default: u64,
    /// Which programs know the option.
    pub era: Era,
}

/// Where an option's bits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The superblock field of that name.
    BlockSize,
    /// In the flag words.
    Flag(FlagField),
    /// In the flag words, low four bits and high four bits apart.
    Halves(FlagField, FlagField),
    /// Bits `[lo, hi)` of the flag word in section `ext`.
    Ext(u32, u32),
}

impl Place {
    /// Largest number that fits.
    const fn max(self) -> u64 {
        match self {
            Place::BlockSize => u16::MAX as u64,
            Place::Flag(field) => field.max(),
            Place::Halves(lo, hi) => lo.max() | hi.max() << 4,
            Place::Ext(lo, hi) => u64::MAX >> (64 - (hi - lo)),
        }
    }
}

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 0 or 1.
    Switch,
    /// A number, stored as it is.
    Number,
    /// Bytes, stored in sectors.
    Sectors,
    /// Bytes, a power of two, stored in sectors.
    SectorsPow2,
    /// Bytes, a power of two, stored as the logarithm of sectors.
    SectorsLog2,
    /// One of these names, stored as its position.
    Choice(&'static [&'static str]),
    /// Algorithm and level ([`CompressionOption`]).
    Compression,
    /// A set of devices ([`Target`]).
    Target,
}

/// Which programs store an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Every program of format 1.x.
    All,
    /// Only those up to 1.13; newer ones ignore the bits.
    Until1_13,
    /// Only programs newer than 1.13.
    After1_13,
}

/// Which devices an option prefers (spec 10 §9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Target {
    /// No preference.
    #[default]
    None,
    /// One device.
    Device(DevIndex),
    /// The devices with this label: an index into section `disk_groups`.
    Group(u16),
}

impl Target {
    const GROUPS: u16 = 257;

    /// From the number stored in a flag field or an inode.
    pub fn from_raw(raw: u16) -> Target {
        match raw {
            0 => Target::None,
            1..Self::GROUPS => Target::Device(DevIndex((raw - 1) as u8)),
            _ => Target::Group(raw - Self::GROUPS),
        }
    }

    /// The number stored; `None` for a group index that does not fit.
    pub fn to_raw(self) -> Option<u16> {
        match self {
            Target::None => Some(0),
            Target::Device(dev) => Some(u16::from(dev.0) + 1),
            Target::Group(group) => group.checked_add(Self::GROUPS),
        }
    }
}

impl OptionSpec {
    /// The option with that name.
    pub fn by_name(name: &str) -> Option<&'static OptionSpec> {
        ALL.iter().copied().find(|o| o.name == name)
    }

    /// Whether volumes of this version use the option.
    pub fn applies_to(&self, version: Version) -> bool {
        match self.era {
            Era::All => true,
            Era::Until1_13 => version <= Version::WRITE,
            Era::After1_13 => version > Version::WRITE,
        }
    }

    /// Checks a value against the option's rules.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] with the option, the value and the legal range.
    pub fn check(&self, value: u64) -> Result<()> {
        let fail = |why: String| Err(DecodeError::invalid(WHAT, format!("{} {why}", self.name)));
        match self.encoding {
            Encoding::Choice(names) if value >= names.len() as u64 => {
                fail(format!("has value {value}, which has no name (0 to {})", names.len() - 1))
            }
            Encoding::Compression if !u8::try_from(value).is_ok_and(|v| CompressionOption(v).is_valid()) => {
                fail(format!("has value {value:#x}, which is no algorithm and level"))
            }
            _ if value < self.min || value >= self.end => {
                fail(format!("is {value}, must be {} to {}", self.min, self.end - 1))
            }
            Encoding::Sectors | Encoding::SectorsPow2 | Encoding::SectorsLog2
                if !value.is_multiple_of(SECTOR_BYTES) =>
            {
                fail(format!("is {value} bytes, must be a multiple of {SECTOR_BYTES}"))
            }
            Encoding::SectorsPow2 | Encoding::SectorsLog2 if !value.is_power_of_two() => {
                fail(format!("is {value} bytes, must be a power of two"))
            }
            _ if self.encode(value) > self.place.max() => {
                fail(format!("is {value}, which does not fit its field"))
            }
            _ => Ok(()),
        }
    }

    /// The value as a user would type it: names for choices, plain numbers otherwise. A label needs the superblock
    /// ([`Superblock::target_name`]); here a target is its number.
    pub fn format(&self, value: u64) -> String {
        match self.encoding {
            Encoding::Choice(names) => usize::try_from(value)
                .ok()
                .and_then(|i| names.get(i))
                .map_or_else(|| format!("(invalid {value})"), |n| (*n).to_owned()),
            Encoding::Compression => CompressionOption(value as u8).to_string(),
            _ => value.to_string(),
        }
    }

    /// The value a user typed, checked. Sizes may end in `k`, `M`, `G` or `T` (powers of 1024). Targets are names that
    /// only a superblock can resolve ([`Superblock::parse_target`]); here they must be `none`.
    ///
    /// # Errors
    /// If the text is not a legal value; the message lists what is.
    pub fn parse(&self, text: &str) -> Result<u64> {
        let bad =
            |expected: &str| DecodeError::invalid(WHAT, format!("{}: '{text}' is not {expected}", self.name));
        let value = match self.encoding {
            Encoding::Switch => match text {
                "1" | "yes" | "on" | "true" => 1,
                "0" | "no" | "off" | "false" => 0,
                _ => return Err(bad("0 or 1")),
            },
            Encoding::Number => text.parse().map_err(|_| bad("a number"))?,
            Encoding::Sectors | Encoding::SectorsPow2 | Encoding::SectorsLog2 => {
                parse_bytes(text).ok_or_else(|| bad("a size, such as 4096 or 64k"))?
            }
            Encoding::Choice(names) => {
                let found = names.iter().position(|n| *n == text);
                found.ok_or_else(|| bad(&format!("one of {}", names.join(", "))))? as u64
            }
            Encoding::Compression => {
                let found = CompressionOption::parse(text);
                u64::from(found.ok_or_else(|| bad("none, lz4, gzip or zstd, with :LEVEL up to 15"))?.0)
            }
            Encoding::Target if text == "none" => 0,
            Encoding::Target => return Err(bad("none")),
        };
        self.check(value)?;
        Ok(value)
    }

    /// From the stored bits; saturates where a size does not fit 64 bits.
    fn decode(&self, bits: u64) -> u64 {
        match self.encoding {
            Encoding::Sectors | Encoding::SectorsPow2 => bits.saturating_mul(SECTOR_BYTES),
            Encoding::SectorsLog2 => {
                let sectors = u32::try_from(bits).ok().and_then(|b| 1u64.checked_shl(b));
                sectors.unwrap_or(u64::MAX).saturating_mul(SECTOR_BYTES)
            }
            _ => bits,
        }
    }

    /// To the stored bits, for a value that passed [`OptionSpec::check`].
    fn encode(&self, value: u64) -> u64 {
        match self.encoding {
            Encoding::Sectors | Encoding::SectorsPow2 => value / SECTOR_BYTES,
            Encoding::SectorsLog2 => u64::from((value / SECTOR_BYTES).max(1).ilog2()),
            _ => value,
        }
    }
}

/// A number of bytes with an optional binary suffix.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl Superblock {
    /// The value of an option, as stored (not checked). Options of section `ext` are 0 without the section.
    pub fn option(&self, spec: &OptionSpec) -> u64 {
        spec.decode(match spec.place {
            Place::BlockSize => u64::from(self.block_sectors),
            Place::Flag(field) => self.flags.get(field),
            Place::Halves(lo, hi) => self.flags.get(lo) | self.flags.get(hi) << 4,
            Place::Ext(lo, hi) => match self.sections.get::<Ext>() {
                Ok(Some(ext)) => ext.option_bits(lo, hi),
                _ => 0,
            },
        })
    }

    /// Checks and stores an option. Other copies and devices are the caller's business, and so are feature bits that must
    /// be set first (spec 10 §6.1).
    ///
    /// # Errors
    /// If the value is not legal, or the option lives in a section `ext` that is missing or damaged.
    pub fn set_option(&mut self, spec: &OptionSpec, value: u64) -> Result<()> {
        spec.check(value)?;
        let bits = spec.encode(value);
        match spec.place {
            Place::BlockSize => self.block_sectors = bits as u16,
            Place::Flag(field) => self.flags.set(field, bits),
            Place::Halves(lo, hi) => {
                self.flags.set(lo, bits & 15);
                self.flags.set(hi, bits >> 4);
            }
            Place::Ext(lo, hi) => {
                let mut ext = self.sections.get::<Ext>()?.unwrap_or_default();
                ext.set_option_bits(lo, hi, bits);
                self.sections.put(&ext);
            }
        }
        Ok(())
    }

    /// Checks every option that volumes of this version have.
    ///
    /// # Errors
    /// The first illegal one.
    pub fn check_options(&self) -> Result<()> {
        ALL.iter().filter(|o| o.applies_to(self.version)).try_for_each(|o| o.check(self.option(o)))
    }

    /// Option `metadata_checksum`.
    ///
    /// # Errors
    /// If the stored number has no meaning.
    pub fn metadata_checksum(&self) -> Result<ChecksumOption> {
        checksum_option("metadata_checksum", self.flags.metadata_checksum())
    }

    /// Option `data_checksum`.
    ///
    /// # Errors
    /// If the stored number has no meaning.
    pub fn data_checksum(&self) -> Result<ChecksumOption> {
        checksum_option("data_checksum", self.flags.data_checksum())
    }

    /// Whether new metadata and data are to be encrypted. Older pieces may be even if this says no (spec 10 §15.1).
    pub fn encryption(&self) -> EncryptionMode {
        match (self.flags.encryption_type(), self.flags.wide_macs()) {
            (0, _) => EncryptionMode::Off,
            (_, false) => EncryptionMode::On,
            (_, true) => EncryptionMode::WideMacs,
        }
    }

    /// Option `compression`.
    pub fn compression(&self) -> CompressionOption {
        CompressionOption(self.option(&COMPRESSION) as u8)
    }

    /// Option `background_compression`.
    pub fn background_compression(&self) -> CompressionOption {
        CompressionOption(self.option(&BACKGROUND_COMPRESSION) as u8)
    }

    /// A target option, such as [`FOREGROUND_TARGET`].
    pub fn target(&self, spec: &OptionSpec) -> Target {
        Target::from_raw(self.option(spec) as u16)
    }
}

fn checksum_option(name: &str, raw: u8) -> Result<ChecksumOption> {
    let unknown = || DecodeError::invalid(WHAT, format!("{name} has value {raw}, which has no name"));
    ChecksumOption::from_raw(raw).ok_or_else(unknown)
}

impl fmt::Display for OptionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! options {
    ($($konst:ident $name:literal $place:expr, $encoding:expr, $min:expr, $end:expr, $default:expr, $era:ident;)*) => {
        $(
            #[doc = concat!("Option `", $name, "`.")]
            pub const $konst: OptionSpec = OptionSpec {
                name: $name,
                place: $place,
                encoding: $encoding,
                min: $min,
                end: $end,
                default: $default,
                era: Era::$era,
            };
        )*

        /// Every option, in the order listings print them.
        pub const ALL: &[&OptionSpec] = &[$(&$konst,)*];
    };
}

use Encoding::{Choice, Compression, Number, Sectors, SectorsLog2, SectorsPow2, Switch, Target as Devices};
use FlagField as F;
use Place::{BlockSize, Ext as InExt, Flag, Halves};

/// Names of the values of `metadata_checksum` and `data_checksum`.
const CSUMS: &[&str] = &["none", "crc32c", "crc64", "xxhash"];
/// No range of its own: the values' meaning is checked instead.
const ANY: u64 = u64::MAX;
/// Milliseconds fill 32 bits.
const MS_END: u64 = u32::MAX as u64;

options! {
    BLOCK_SIZE "block_size" BlockSize, SectorsPow2, 512, 65536, 4096, All;
    BTREE_NODE_SIZE "btree_node_size" Flag(F::BTREE_NODE_SIZE), SectorsPow2, 512, 1 << 20, 256 << 10, All;
    ERRORS "errors" Flag(F::ERROR_ACTION), Choice(&["continue", "fix_safe", "panic", "ro"]), 0, ANY, 1, All;
    WRITE_ERROR_TIMEOUT "write_error_timeout" Flag(F::WRITE_ERROR_TIMEOUT), Number, 0, 1 << 10, 30, After1_13;
    METADATA_REPLICAS "metadata_replicas" Flag(F::META_REPLICAS_WANT), Number, 1, 4, 1, All;
    DATA_REPLICAS "data_replicas" Flag(F::DATA_REPLICAS_WANT), Number, 1, 4, 1, All;
    METADATA_REPLICAS_REQUIRED "metadata_replicas_required" Flag(F::META_REPLICAS_REQ), Number, 1, 4, 1, Until1_13;
    DATA_REPLICAS_REQUIRED "data_replicas_required" Flag(F::DATA_REPLICAS_REQ), Number, 1, 4, 1, Until1_13;
    ENCODED_EXTENT_MAX "encoded_extent_max" Flag(F::ENCODED_EXTENT_MAX_BITS), SectorsLog2, 4096, 2 << 20, 64 << 10, All;
    METADATA_CHECKSUM "metadata_checksum" Flag(F::META_CSUM_TYPE), Choice(CSUMS), 0, ANY, 1, All;
    DATA_CHECKSUM "data_checksum" Flag(F::DATA_CSUM_TYPE), Choice(CSUMS), 0, ANY, 1, All;
    CHECKSUM_ERR_RETRY_NR "checksum_err_retry_nr" Flag(F::CSUM_ERR_RETRY_NR), Number, 0, 1 << 6, 3, After1_13;
    COMPRESSION "compression" Halves(F::COMPRESSION_TYPE_LO, F::COMPRESSION_TYPE_HI), Compression, 0, ANY, 0, All;
    BACKGROUND_COMPRESSION "background_compression"
        Halves(F::BACKGROUND_COMPRESSION_TYPE_LO, F::BACKGROUND_COMPRESSION_TYPE_HI), Compression, 0, ANY, 0, All;
    STR_HASH "str_hash" Flag(F::STR_HASH_TYPE), Choice(&["crc32c", "crc64", "siphash"]), 0, ANY, 2, All;
    METADATA_TARGET "metadata_target" Flag(F::METADATA_TARGET), Devices, 0, ANY, 0, All;
    FOREGROUND_TARGET "foreground_target" Flag(F::FOREGROUND_TARGET), Devices, 0, ANY, 0, All;
    BACKGROUND_TARGET "background_target" Flag(F::BACKGROUND_TARGET), Devices, 0, ANY, 0, All;
    PROMOTE_TARGET "promote_target" Flag(F::PROMOTE_TARGET), Devices, 0, ANY, 0, All;
    ERASURE_CODE "erasure_code" Flag(F::ERASURE_CODE), Switch, 0, 2, 0, All;
    EC_MAX_DATA_BLOCKS "ec_max_data_blocks" Flag(F::EC_MAX_DATA_BLOCKS), Number, 0, 1 << 8, 0, After1_13;
    CASEFOLD "casefold" Flag(F::CASEFOLD), Switch, 0, 2, 0, After1_13;
    INODES_32BIT "inodes_32bit" Flag(F::INODE_32BIT), Switch, 0, 2, 1, All;
    SHARD_INODE_NUMBERS "shard_inode_numbers" Flag(F::SHARD_INUMS), Switch, 0, 2, 1, Until1_13;
    SHARD_INODE_NUMBERS_BITS "shard_inode_numbers_bits" Flag(F::SHARD_INUMS_NBITS), Number, 0, 1 << 4, 0, After1_13;
    INODES_USE_KEY_CACHE "inodes_use_key_cache" Flag(F::INODES_USE_KEY_CACHE), Switch, 0, 2, 1, Until1_13;
    GC_RESERVE_PERCENT "gc_reserve_percent" Flag(F::GC_RESERVE), Number, 5, 21, 8, All;
    GC_RESERVE_BYTES "gc_reserve_bytes" Flag(F::GC_RESERVE_BYTES), Sectors, 0, ANY, 0, All;
    ROOT_RESERVE_PERCENT "root_reserve_percent" Flag(F::ROOT_RESERVE), Number, 0, 100, 0, All;
    WIDE_MACS "wide_macs" Flag(F::WIDE_MACS), Switch, 0, 2, 0, All;
    PROMOTE_WHOLE_EXTENTS "promote_whole_extents" Flag(F::PROMOTE_WHOLE_EXTENTS), Switch, 0, 2, 1, All;
    ACL "acl" Flag(F::POSIX_ACL), Switch, 0, 2, 1, All;
    USRQUOTA "usrquota" Flag(F::USRQUOTA), Switch, 0, 2, 0, All;
    GRPQUOTA "grpquota" Flag(F::GRPQUOTA), Switch, 0, 2, 0, All;
    PRJQUOTA "prjquota" Flag(F::PRJQUOTA), Switch, 0, 2, 0, All;
    DEGRADED "degraded" Flag(F::DEGRADED_ACTION), Choice(&["ask", "yes", "very", "no"]), 0, ANY, 0, After1_13;
    JOURNAL_FLUSH_DELAY "journal_flush_delay" Flag(F::JOURNAL_FLUSH_DELAY), Number, 1, MS_END, 1000, All;
    JOURNAL_FLUSH_DISABLED "journal_flush_disabled" Flag(F::JOURNAL_FLUSH_DISABLED), Switch, 0, 2, 0, All;
    MOVE_WRITES_FUA "move_writes_fua" Flag(F::MOVE_WRITES_FUA), Switch, 0, 2, 0, After1_13;
    JOURNAL_RECLAIM_DELAY "journal_reclaim_delay" Flag(F::JOURNAL_RECLAIM_DELAY), Number, 0, MS_END, 100, All;
    WRITEBACK_TIMEOUT "writeback_timeout" Flag(F::WRITEBACK_TIMEOUT), Number, 0, 1 << 16, 0, After1_13;
    JOURNAL_REWIND_DISCARD_BUFFER_PERCENT "journal_rewind_discard_buffer_percent"
        InExt(38, 42), Number, 0, 1 << 4, 4, After1_13;
    SCRUB_RECENT_JOURNAL_ENTRIES "scrub_recent_journal_entries"
        Flag(F::SCRUB_JOURNAL), Choice(&["unclean", "no", "always"]), 0, ANY, 0, After1_13;
    SCRUB_JOURNAL_MAX_REWIND_SECS "scrub_journal_max_rewind_secs" InExt(26, 38), Number, 0, 1 << 12, 10, After1_13;
    JOURNAL_TRANSACTION_NAMES "journal_transaction_names" Flag(F::JOURNAL_TRANSACTION_NAMES), Switch, 0, 2, 1, All;
    ALLOCATOR_STUCK_TIMEOUT "allocator_stuck_timeout" Flag(F::ALLOCATOR_STUCK_TIMEOUT), Number, 0, 65535, 30, All;
    VERSION_UPGRADE "version_upgrade"
        Flag(F::VERSION_UPGRADE), Choice(&["compatible", "incompatible", "none"]), 0, ANY, 0, All;
    NOCOW "nocow" Flag(F::NOCOW), Switch, 0, 2, 0, All;
    RECONCILE_ON_AC_ONLY "reconcile_on_ac_only" Flag(F::RECONCILE_AC_ONLY), Switch, 0, 2, 0, After1_13;
    BTREE_CACHE_SHRINKER_SEEKS "btree_cache_shrinker_seeks" InExt(42, 49), Number, 0, 1 << 7, 2, After1_13;
    DEV_READAHEAD "dev_readahead" InExt(0, 20), Sectors, 0, 1 << 29, 2 << 20, After1_13;
    EC_STRIPE_BUF_LIMIT "ec_stripe_buf_limit" InExt(20, 26), Number, 0, 1 << 6, 5, After1_13;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::flags::Flags;
    use crate::superblock::tests::minimal;

    /// A superblock that has every option.
    fn roomy() -> Superblock {
        let mut sb = minimal();
        sb.sections.put(&Ext::default());
        sb
    }

    #[test]
    fn a_new_filesystem_has_the_defaults() {
        let mut sb = minimal();
        sb.flags = Flags::NEW_1_13;
        for spec in ALL.iter().filter(|o| o.applies_to(Version::WRITE) && **o != &BTREE_NODE_SIZE) {
            assert_eq!(sb.option(spec), spec.default, "{spec}");
        }
        assert_eq!(sb.option(&BTREE_NODE_SIZE), 128 << 10);
        assert_eq!(sb.check_options(), Ok(()));
        // The flag word of section ext in a real 1.39 image (spec 80 §7.4).
        let mut ext = Ext::default();
        ext.set_option_bits(0, 64, 0x0000_0900_2850_1000);
        sb.sections.put(&ext);
        for spec in ALL.iter().filter(|o| matches!(o.place, Place::Ext(..))) {
            assert_eq!(sb.option(spec), spec.default, "{spec}");
        }
    }

    #[test]
    fn every_legal_value_that_passes_the_check_is_stored() {
        for spec in ALL {
            let powers = (0..64).map(|bit| 1u64 << bit);
            let edges = [0, 1, 3, spec.min, spec.default, spec.end - 1, spec.end, u64::MAX, u64::MAX << 9];
            let mut stored = 0;
            for value in powers.chain(edges) {
                let mut sb = roomy();
                let before = sb.clone();
                match sb.set_option(spec, value) {
                    Ok(()) => {
                        assert_eq!(sb.option(spec), value, "{spec}");
                        stored += 1;
                    }
                    Err(why) => {
                        assert!(why.to_string().contains(spec.name), "{why}");
                        assert_eq!(sb, before);
                    }
                }
            }
            assert!(stored > 0, "{spec} takes no value at all");
        }
    }

    #[test]
    fn illegal_values_are_named() {
        let check = |spec: &OptionSpec, value| spec.check(value).unwrap_err().to_string();
        assert!(check(&BLOCK_SIZE, 65536).contains("block_size is 65536, must be 512 to 65535"));
        assert!(check(&BLOCK_SIZE, 1536).contains("power of two"));
        assert!(check(&BTREE_NODE_SIZE, 1000).contains("multiple of 512"));
        assert!(check(&STR_HASH, 3).contains("no name"));
        assert!(check(&COMPRESSION, 0x14 << 4).contains("no algorithm"));
        assert!(check(&PROMOTE_TARGET, 4096).contains("fit"));
    }

    #[test]
    fn values_are_parsed_as_they_are_typed() {
        let parse = |name: &str, text: &str| OptionSpec::by_name(name).unwrap().parse(text);
        assert_eq!(parse("btree_node_size", "128k"), Ok(128 << 10));
        assert_eq!(parse("encoded_extent_max", "1MiB"), Ok(1 << 20));
        assert_eq!(parse("data_checksum", "xxhash"), Ok(3));
        assert_eq!(parse("compression", "zstd:7"), Ok(0x73));
        assert_eq!(parse("acl", "off"), Ok(0));
        assert_eq!(parse("promote_target", "none"), Ok(0));
        for (name, text) in [
            ("block_size", "4x"),
            ("block_size", "99999999999999999999"),
            ("block_size", "17179869184T"),
            ("data_checksum", "md5"),
            ("acl", "2"),
            ("gc_reserve_percent", "30"),
            ("promote_target", "ssd"),
        ] {
            assert!(parse(name, text).unwrap_err().to_string().contains(name), "{name}={text}");
        }
        assert!(OptionSpec::by_name("no_such_option").is_none());
        assert_eq!(ERRORS.format(1), "fix_safe");
        assert_eq!(COMPRESSION.format(0x73), "zstd:7");
    }

    #[test]
    fn targets_are_numbers() {
        for raw in [0, 1, 256, 257, 4095] {
            assert_eq!(Target::from_raw(raw).to_raw(), Some(raw));
        }
        assert_eq!(Target::from_raw(1), Target::Device(DevIndex(0)));
        assert_eq!(Target::from_raw(257), Target::Group(0));
        assert_eq!(Target::Group(u16::MAX).to_raw(), None);
    }

    #[test]
    fn typed_options() {
        let mut sb = minimal();
        sb.set_option(&BACKGROUND_COMPRESSION, 0x73).unwrap();
        assert_eq!(sb.background_compression().to_string(), "zstd:7");
        assert_eq!(sb.compression(), CompressionOption::NONE);
        assert_eq!(sb.encryption(), EncryptionMode::Off);
        sb.flags.set_encryption_type(1);
        assert_eq!(sb.encryption(), EncryptionMode::On);
        sb.flags.set_wide_macs(true);
        assert_eq!(sb.encryption(), EncryptionMode::WideMacs);
        sb.flags.set_data_checksum(4);
        assert!(sb.data_checksum().is_err());
        sb.set_option(&FOREGROUND_TARGET, 2).unwrap();
        assert_eq!(sb.target(&FOREGROUND_TARGET), Target::Device(DevIndex(1)));
    }
}
