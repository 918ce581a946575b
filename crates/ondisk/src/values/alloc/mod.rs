//! The state of a bucket (spec 50 §1, §2.1, spec 80 §5.16–§5.17).
//!
//! A key at (device, bucket) counts what points into the bucket and derives from the counts what kind of bucket it is. A
//! bucket without a key is free and was never used. Four forms exist; only [`KeyType::ALLOC_V4`] is written, and all of
//! them decode to [`Alloc`].
//!
//! Two words of the value changed their meaning after 1.13 (the stripe's index became a count of stripes, and the
//! position in the fragmentation LRU a journal sequence). The struct keeps both as stored, under the newer names, and
//! the methods that interpret them take the version.

mod legacy;

use super::problem::{Check, Problem, ensure};
use super::zero_extended;
use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::data_type::DataType;
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId as E;
use crate::key_type::KeyType;
use crate::units::{Gen, Seq};
use crate::version::Version;

/// State of a bucket. Sector counts are disk sectors (spec 50 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Alloc {
    /// Journal entry of the last transition between empty and not empty (from 1.38: of the first transition from empty since
    /// the bucket was freed); 0 if nothing need be waited for.
    pub journal_seq_nonempty: Seq,
    /// The bucket was written to and must be discarded (and, up to 1.37, is `need_discard` when empty).
    pub need_discard: bool,
    /// The generation goes up when the bucket becomes empty.
    pub need_inc_gen: bool,
    /// Generation: goes up each time the bucket becomes empty.
    pub generation: Gen,
    /// Lower bound of the generations of all pointers into it.
    pub oldest_gen: Gen,
    /// Kind of data.
    pub data_type: DataType,
    /// Redundancy of its stripe; written as 0 from 1.35.
    pub stripe_redundancy: u8,
    /// Sectors of dirty pointers outside stripes, and of metadata and parity.
    pub dirty_sectors: u32,
    /// Sectors of valid cached pointers.
    pub cached_sectors: u32,
    /// Read clock and write clock when it was last used, 48 bits each.
    pub io_time: [u64; 2],
    /// Index of its stripe; from 1.35 the number of stripes that use it.
    pub stripe: u32,
    /// Unused.
    pub nr_external_backpointers: u32,
    /// From 1.38, the journal entry that emptied the bucket; before, a leftover that counts for nothing.
    pub journal_seq_empty: Seq,
    /// Sectors of pointers in stripes.
    pub stripe_sectors: u32,
    /// Unused.
    pub pad: u32,
}

/// [`DataType`] with `free` as default, which is what a bucket without a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataTypeField(pub DataType);

impl Default for DataTypeField {
    fn default() -> Self {
        Self(DataType::FREE)
    }
}

/// Largest I/O time.
pub const IO_TIME_MAX: u64 = (1 << 48) - 1;
/// A bucket whose generation is this far from the oldest pointer may not be used (spec 50 §1.1).
pub const GC_GEN_MAX: u8 = 96;
/// Bytes of the current form.
const BYTES: usize = 64;
/// Bytes of the first, shorter current form.
const BYTES_MIN: usize = 48;
/// Words of the current form, which is where its (obsolete) list of backpointers starts.
const BACKPOINTERS_START: u64 = 8;

impl Alloc {
    /// Decodes any of the four forms.
    ///
    /// # Errors
    /// If `ty` is no alloc key or the value is too short.
    pub fn decode(ty: KeyType, value: &[u8]) -> Result<Alloc> {
        match ty {
            KeyType::ALLOC_V4 => Self::decode_v4(value),
            KeyType::ALLOC_V3 => legacy::decode_v3(value),
            KeyType::ALLOC_V2 => legacy::decode_v2(value),
            KeyType::ALLOC => legacy::decode_v1(value),
            _ => Err(DecodeError::invalid("alloc", format!("key type {ty} is no alloc key"))),
        }
    }

    /// Decodes the current form. In its first, 48-byte version the tail counts as 0, and backpointers stored in the
    /// value are dropped (spec 50 §2.1).
    pub fn decode_v4(value: &[u8]) -> Result<Alloc> {
        let mut bytes = zero_extended::<BYTES>("alloc_v4", value, BYTES_MIN)?;
        let start = bits(u64::from(bytes[8]), 2, 8) as usize;
        if start * 8 < BYTES {
            bytes[BYTES_MIN.max(start * 8)..].fill(0);
        }
        let mut r = Reader::new("alloc_v4", &bytes);
        let journal_seq_nonempty = Seq(r.u64()?);
        let flags = r.u32()?;
        Ok(Alloc {
            journal_seq_nonempty,
            need_discard: flags & 1 != 0,
            need_inc_gen: flags & 2 != 0,
            generation: Gen(r.u8()?),
            oldest_gen: Gen(r.u8()?),
            data_type: DataType(r.u8()?),
            stripe_redundancy: r.u8()?,
            dirty_sectors: r.u32()?,
            cached_sectors: r.u32()?,
            io_time: [r.u64()?, r.u64()?],
            stripe: r.u32()?,
            nr_external_backpointers: r.u32()?,
            journal_seq_empty: Seq(r.u64()?),
            stripe_sectors: r.u32()?,
            pad: r.u32()?,
        })
    }

    /// Appends the value in the current form, 64 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = u64::from(self.need_discard) | u64::from(self.need_inc_gen) << 1;
        out.put_u64(self.journal_seq_nonempty.0);
        out.put_u32(with_bits(flags, 2, 8, BACKPOINTERS_START) as u32);
        out.put_u8(self.generation.0);
        out.put_u8(self.oldest_gen.0);
        out.put_u8(self.data_type.0);
        out.put_u8(self.stripe_redundancy);
        out.put_u32(self.dirty_sectors);
        out.put_u32(self.cached_sectors);
        out.put_u64(self.io_time[0]);
        out.put_u64(self.io_time[1]);
        out.put_u32(self.stripe);
        out.put_u32(self.nr_external_backpointers);
        out.put_u64(self.journal_seq_empty.0);
        out.put_u32(self.stripe_sectors);
        out.put_u32(self.pad);
    }

    /// How far the generation is from the oldest pointer (spec 50 §1.1).
    pub fn gc_gen(&self) -> u8 {
        self.generation.0.wrapping_sub(self.oldest_gen.0)
    }

    /// Sectors that are neither free nor droppable.
    pub fn used_sectors(&self) -> u64 {
        u64::from(self.dirty_sectors) + u64::from(self.stripe_sectors)
    }

    /// Sectors something points at.
    pub fn total_sectors(&self) -> u64 {
        self.used_sectors() + u64::from(self.cached_sectors)
    }

    /// Sectors of a partly used bucket that nothing uses (spec 50 §2.8): 0 for an empty one.
    pub fn fragmented_sectors(&self, bucket_sectors: u64) -> u64 {
        match if self.data_type == DataType::CACHED {
            self.cached_sectors.into()
        } else {
            self.used_sectors()
        } {
            0 => 0,
            used => bucket_sectors.saturating_sub(used),
        }
    }

    /// The kind the bucket must be, given its counts and the kind of the data just marked, or its present kind (spec 50
    /// §1.2, spec 80 §5.17).
    pub fn derived_data_type(&self, class: DataType, version: Version) -> DataType {
        let sticky = version.need_discard_by_journal_seq();
        if sticky && class == DataType::MULTIPLE {
            class
        } else if self.stripe != 0 {
            if class == DataType::PARITY { class } else { DataType::STRIPE }
        } else if self.used_sectors() > 0 {
            match class {
                DataType::CACHED | DataType::STRIPE if sticky => DataType::USER,
                _ => class,
            }
        } else if self.cached_sectors > 0 {
            DataType::CACHED
        } else if if sticky { class == DataType::NEED_DISCARD } else { self.need_discard } {
            DataType::NEED_DISCARD
        } else if self.gc_gen() >= GC_GEN_MAX {
            DataType::NEED_GC_GENS
        } else {
            DataType::FREE
        }
    }

    /// Its time in the fragmentation LRU; 0 if it is not a member (spec 50 §2.5).
    pub fn fragmentation_lru_time(&self, bucket_sectors: u64) -> u64 {
        let movable = matches!(
            self.data_type,
            DataType::BTREE | DataType::USER | DataType::STRIPE | DataType::MULTIPLE
        );
        let used = self.used_sectors();
        if !movable || used == 0 || used >= bucket_sectors {
            return 0;
        }
        (used << 31) / bucket_sectors
    }

    /// Its time in the read LRU; 0 if it is not a member (spec 50 §2.5).
    pub fn read_lru_time(&self) -> u64 {
        if self.data_type == DataType::CACHED { self.io_time[0] & IO_TIME_MAX } else { 0 }
    }

    /// Checks an encoded key (spec 50 §2.1). That a cached bucket has a read time is left to the check of the LRUs, as it
    /// holds only once they have been built.
    pub fn validate(ty: KeyType, value: &[u8], version: Version) -> Check {
        match ty {
            KeyType::ALLOC_V4 => Self::validate_v4_layout(value)?,
            KeyType::ALLOC_V3 => {
                return legacy::decode_v3(value)
                    .map(drop)
                    .map_err(Problem::undecodable(E::ALLOC_V3_UNPACK_ERROR));
            }
            KeyType::ALLOC_V2 => {
                return legacy::decode_v2(value)
                    .map(drop)
                    .map_err(Problem::undecodable(E::ALLOC_V2_UNPACK_ERROR));
            }
            _ => {
                return legacy::decode_v1(value)
                    .map(drop)
                    .map_err(Problem::undecodable(E::ALLOC_V1_VAL_SIZE_BAD));
            }
        }
        let a = Self::decode_v4(value).map_err(Problem::undecodable(E::ALLOC_V4_VAL_SIZE_BAD))?;
        a.validate_contents(version)
    }

    fn validate_v4_layout(value: &[u8]) -> Check {
        let flags = value.get(8..12).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let start = bits(flags.into(), 2, 8) as usize;
        let nr = bits(flags.into(), 8, 14) as usize;
        ensure(start != 0 || nr == 0, E::ALLOC_V4_BACKPOINTERS_START_BAD, || {
            format!("{nr} backpointers at 0")
        })?;
        let need = start.max(BYTES_MIN / 8) * 8 + nr * 32;
        ensure(value.len() >= need, E::ALLOC_V4_VAL_SIZE_BAD, || {
            format!("{} bytes, {need} needed", value.len())
        })
    }

    fn validate_contents(&self, version: Version) -> Check {
        let t = self.data_type;
        ensure(t == self.derived_data_type(t, version), E::ALLOC_KEY_DATA_TYPE_BAD, || {
            format!("data type {t}, should be {}", self.derived_data_type(t, version))
        })?;
        for (i, time) in self.io_time.iter().enumerate() {
            ensure(*time <= IO_TIME_MAX, E::ALLOC_KEY_IO_TIME_BAD, || format!("io_time[{i}] {time}"))?;
        }
        let counts = || {
            format!(
                "data type {t} with dirty {} stripe {} cached {} sectors, stripe {}",
                self.dirty_sectors, self.stripe_sectors, self.cached_sectors, self.stripe
            )
        };
        match t {
            _ if t.is_empty() => {
                ensure(
                    self.total_sectors() == 0 && self.stripe == 0,
                    E::ALLOC_KEY_EMPTY_BUT_HAVE_DATA,
                    counts,
                )?;
                let clean = !version.need_discard_by_journal_seq()
                    || t != DataType::FREE
                    || !self.need_discard
                        && self.journal_seq_nonempty.0 == 0
                        && self.journal_seq_empty.0 == 0;
                ensure(
                    clean,
                    E::ALLOC_KEY_DATA_TYPE_FREE_DIRTY_BOOKKEEPING,
                    || "free, but its flag or sequence is not 0",
                )
            }
            DataType::SB | DataType::JOURNAL | DataType::BTREE | DataType::USER | DataType::PARITY => {
                ensure(self.used_sectors() != 0, E::ALLOC_KEY_DIRTY_SECTORS_0, counts)
            }
            DataType::CACHED => {
                let sound = self.cached_sectors != 0 && self.used_sectors() == 0 && self.stripe == 0;
                ensure(sound, E::ALLOC_KEY_CACHED_INCONSISTENCY, counts)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
