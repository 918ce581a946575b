//! Inodes (spec 40 §2, spec 80 §7.9).
//!
//! An inode's value is a fixed header, which holds what nearly every operation changes (journal sequence, size,
//! sectors, flags and mode), followed by a stream of variable-length integers, which holds the rest. The fields of the
//! stream have a fixed order, and the stream is cut after the last one that is not zero, so a plain file costs a hundred
//! bytes. New versions append fields to the order; a reader that knows fewer ignores what follows.
//!
//! Three forms exist. [`KeyType::INODE_V3`] is the only one written. [`KeyType::INODE_V2`] and [`KeyType::INODE`] are older:
//! size and sectors are in the stream, and the very first form used another integer coding. All three decode to
//! [`Inode`]; the stream itself is in the `fields` module.
//!
//! Decoding is one pass without allocation: the whole inode is a plain `Copy` struct.

mod fields;
mod flags;
mod mode;
mod opts;

use super::problem::{Check, Problem, ensure};
use crate::bkey::Bkey;
use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::compression::CompressionOption;
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId as E;
use crate::key_type::KeyType;
use crate::str_hash::StrHashType;
use crate::units::{Inum, Sectors, Seq, SubvolId};
pub use flags::InodeFlags;
pub use mode::{FileType, Mode, Rdev};
pub use opts::{InodeOpt, InodeOpts};

/// A whole inode. Equal inodes encode to equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Inode {
    /// Entry of the journal that carried the last update of this inode or of its extents; fsync flushes up to it.
    pub journal_seq: Seq,
    /// Random, chosen at creation; seeds the hashes of this inode's dirents and xattrs.
    pub hash_seed: u64,
    /// Which hash function those use (spec 40 §4.1); 0–3 are known, 15 is the most the field holds.
    pub str_hash: u8,
    /// Flag bits.
    pub flags: InodeFlags,
    /// Space of its extents, in sectors (spec 40 §2.5).
    pub sectors: Sectors,
    /// Size in bytes; 0 for directories and special files (but see spec 80 §5.7).
    pub size: u64,
    /// Written as 0.
    pub version: u64,
    /// File type and permission bits.
    pub mode: Mode,
    /// Time of last access, in time units relative to the superblock's time base (spec 40 §2.4), as are all four.
    pub atime: i64,
    /// Time of last change of the inode.
    pub ctime: i64,
    /// Time of last change of the contents.
    pub mtime: i64,
    /// Time of creation.
    pub otime: i64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Link count as stored, without the bias; see [`Inode::nlink`].
    pub nlink_raw: u32,
    /// NFS generation.
    pub generation: u32,
    /// Device number of block and character devices.
    pub rdev: Rdev,
    /// Options of this inode, set here or inherited.
    pub opts: InodeOpts,
    /// Which options were set explicitly, one bit per [`InodeOpt`].
    pub fields_set: u16,
    /// The directory that holds a dirent of this inode; 0 if unknown or none (spec 40 §3.7).
    pub dir: Inum,
    /// Offset (hash slot) of that dirent.
    pub dir_offset: u64,
    /// On a subvolume's root directory, the subvolume; else 0.
    pub subvol: SubvolId,
    /// On a subvolume's root directory, the subvolume that contains its dirent; else 0.
    pub parent_subvol: SubvolId,
    /// Depth of a directory in its subvolume (1.17 and later), 0 when not kept.
    pub depth: u32,
    /// Field 28, unused.
    pub unused: u8,
}

/// Bytes of the fixed header of the current form.
const V3_HEADER_BYTES: usize = 48;
/// Where the field stream of the current form starts, in words.
const V3_FIELDS_START: u64 = 6;

impl Inode {
    /// Decodes any of the three forms.
    ///
    /// # Errors
    /// If `ty` is no inode, the value is shorter than its header, or the field stream cannot be decoded (spec 40 §2.8).
    pub fn decode(ty: KeyType, value: &[u8]) -> Result<Inode> {
        match ty {
            KeyType::INODE_V3 => Self::decode_v3(value),
            KeyType::INODE_V2 => Self::decode_v2(value),
            KeyType::INODE => Self::decode_v1(value),
            _ => Err(DecodeError::invalid("inode", format!("key type {ty} is no inode"))),
        }
    }

    /// Decodes the current form (spec 40 §2.1).
    ///
    /// # Errors
    /// As [`Inode::decode`].
    pub fn decode_v3(value: &[u8]) -> Result<Inode> {
        let mut r = Reader::new("inode_v3", value);
        let journal_seq = Seq(r.u64()?);
        let hash_seed = r.u64()?;
        let word = r.u64()?;
        let sectors = Sectors(r.u64()?);
        let size = r.u64()?;
        let version = r.u64()?;
        let start = bits(word, 31, 36);
        if start < V3_FIELDS_START || start > (value.len() / 8) as u64 {
            return Err(r.invalid(format!("fields start at word {start} of {}", value.len() / 8)));
        }
        let mut inode = Inode {
            journal_seq,
            hash_seed,
            sectors,
            size,
            version,
            flags: InodeFlags(bits(word, 0, 20) as u32),
            str_hash: bits(word, 20, 24) as u8,
            mode: Mode(bits(word, 36, 52) as u16),
            ..Inode::default()
        };
        fields::read_v3(&mut r, bits(word, 24, 31) as usize, &mut inode)?;
        Ok(inode)
    }

    /// Decodes the second form (spec 40 §2.6).
    fn decode_v2(value: &[u8]) -> Result<Inode> {
        let mut r = Reader::new("inode_v2", value);
        let journal_seq = Seq(r.u64()?);
        let hash_seed = r.u64()?;
        let word = r.u64()?;
        let mode = Mode(r.u16()?);
        let mut inode = Inode { journal_seq, hash_seed, mode, ..Inode::default() };
        inode.flags = InodeFlags(bits(word, 0, 20) as u32);
        inode.str_hash = bits(word, 20, 24) as u8;
        fields::read_legacy(&mut r, bits(word, 24, 31) as usize, fields::Coding::New, &mut inode)?;
        Ok(inode)
    }

    /// Decodes the first form (spec 40 §2.6).
    fn decode_v1(value: &[u8]) -> Result<Inode> {
        let mut r = Reader::new("inode", value);
        let hash_seed = r.u64()?;
        let word = u64::from(r.u32()?);
        let mode = Mode(r.u16()?);
        let mut inode = Inode { hash_seed, mode, ..Inode::default() };
        inode.flags = InodeFlags(bits(word, 0, 20) as u32);
        inode.str_hash = bits(word, 20, 24) as u8;
        let coding = if bits(word, 31, 32) != 0 { fields::Coding::New } else { fields::Coding::Old };
        fields::read_legacy(&mut r, bits(word, 24, 31) as usize, coding, &mut inode)?;
        Ok(inode)
    }

    /// Appends the value in the current form, a whole number of words (spec 40 §2.2).
    ///
    /// # Panics
    /// If `flags` or `str_hash` exceed their bit fields (20 and 4 bits).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u64(self.journal_seq.0);
        out.put_u64(self.hash_seed);
        out.put_u64(0);
        out.put_u64(self.sectors.0);
        out.put_u64(self.size);
        out.put_u64(self.version);
        debug_assert_eq!(out.len() - start, V3_HEADER_BYTES);
        let nr_fields = fields::write_v3(self, out);
        out.put_zeros((out.len() - start).next_multiple_of(8) - (out.len() - start));

        out[start + 16..start + 24].copy_from_slice(&self.pack_flags(nr_fields).to_le_bytes());
    }

    fn pack_flags(&self, nr_fields: usize) -> u64 {
        let word = with_bits(0, 0, 20, u64::from(self.flags.0));
        let word = with_bits(word, 20, 24, u64::from(self.str_hash));
        let word = with_bits(word, 24, 31, nr_fields as u64);
        let word = with_bits(word, 31, 36, V3_FIELDS_START);
        with_bits(word, 36, 52, u64::from(self.mode.0))
    }

    /// The word `bi_flags` of the current form.
    pub fn flag_word(&self) -> u64 {
        self.pack_flags(fields::nr_fields(self))
    }

    /// Checks an encoded inode (spec 40 §2.8).
    pub fn validate(k: &Bkey, value: &[u8]) -> Check {
        ensure(k.pos.inode == 0, E::INODE_POS_INODE_NONZERO, || format!("at {}", k.pos))?;
        ensure(k.pos.offset >= Inum::ROOT.0, E::INODE_POS_BLOCKDEV_RANGE, || format!("at {}", k.pos))?;
        if k.ty == KeyType::INODE_V3 {
            let start = value.get(19..21).map_or(0, |b| bits(u64::from(b[0]) | u64::from(b[1]) << 8, 7, 12));
            let sound = (V3_FIELDS_START..=(value.len() / 8) as u64).contains(&start);
            ensure(sound, E::INODE_V3_FIELDS_START_BAD, || format!("fields start at word {start}"))?;
        }
        Self::decode(k.ty, value).map_err(Problem::undecodable(E::INODE_UNPACK_ERROR))?.validate_fields()
    }

    fn validate_fields(&self) -> Check {
        ensure(StrHashType::from_raw(self.str_hash).is_some(), E::INODE_STR_HASH_INVALID, || {
            format!("string hash type {}", self.str_hash)
        })?;
        let csum = self.opts.raw(InodeOpt::DataChecksum);
        ensure(csum <= 4, E::INODE_CHECKSUM_TYPE_INVALID, || format!("data_checksum {csum}"))?;
        let compression = self.opts.get(InodeOpt::Compression);
        ensure(
            compression.is_none_or(|c| CompressionOption(c as u8).is_valid()),
            E::INODE_COMPRESSION_TYPE_INVALID,
            || format!("compression {compression:?}"),
        )?;
        let unlinked = self.flags.contains(InodeFlags::UNLINKED);
        ensure(!unlinked || self.nlink_raw == 0, E::INODE_UNLINKED_BUT_NLINK_NONZERO, || {
            format!("unlinked with link count {}", self.nlink_raw)
        })?;
        ensure(self.subvol.0 == 0 || self.is_dir(), E::INODE_SUBVOL_ROOT_BUT_NOT_DIR, || {
            format!("root of subvolume {} with mode {}", self.subvol, self.mode)
        })
    }

    /// The fields of the stream with the names of the reference's listings, in order.
    pub(super) fn named_fields(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        fields::named(self)
    }

    /// Overwrites the journal sequence in an encoded inode of the current form: the commit stamps every inode it writes
    /// (spec 50 §4.2).
    ///
    /// # Panics
    /// If `value` is shorter than a header.
    pub fn stamp_journal_seq(value: &mut [u8], seq: Seq) {
        value[..8].copy_from_slice(&seq.0.to_le_bytes());
    }

    /// Kind of file.
    pub fn file_type(&self) -> FileType {
        self.mode.file_type()
    }

    /// It is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::DIR
    }

    /// Links a file of this kind has when the stored count is 0 (spec 40 §2.3).
    fn nlink_bias(&self) -> u32 {
        if self.is_dir() { 2 } else { 1 }
    }

    /// Links as `stat` reports them (spec 40 §2.3).
    pub fn nlink(&self) -> u32 {
        if self.flags.contains(InodeFlags::UNLINKED) {
            0
        } else {
            self.nlink_raw.saturating_add(self.nlink_bias())
        }
    }

    /// Sets the count `stat` reports; 0 marks the inode unlinked.
    pub fn set_nlink(&mut self, nlink: u32) {
        self.flags.set(InodeFlags::UNLINKED, nlink == 0);
        self.nlink_raw = nlink.saturating_sub(self.nlink_bias());
    }

    /// One more name refers to it (spec 40 §2.3); `false`, and no change, if the count would overflow.
    #[must_use]
    pub fn link(&mut self) -> bool {
        if self.flags.contains(InodeFlags::UNLINKED) {
            self.flags.set(InodeFlags::UNLINKED, false);
            return true;
        }
        match self.nlink_raw.checked_add(1).filter(|n| n.checked_add(self.nlink_bias()).is_some()) {
            Some(n) => {
                self.nlink_raw = n;
                true
            }
            None => false,
        }
    }

    /// One name less refers to it; the last marks it unlinked (spec 40 §2.3).
    pub fn unlink(&mut self) {
        match self.nlink_raw.checked_sub(1) {
            Some(n) => self.nlink_raw = n,
            None => self.flags.set(InodeFlags::UNLINKED, true),
        }
    }

    /// It is unlinked and no descendant snapshot has its own version: listed in `deleted_inodes` (spec 40 §3.4).
    pub fn is_dead(&self) -> bool {
        self.flags.contains(InodeFlags::UNLINKED) && !self.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT)
    }
}

/// What remains of a deleted inode: the generation its number starts with next time (spec 40 §3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InodeGeneration {
    /// Generation of the next inode of this number.
    pub generation: u32,
    /// Written as 0.
    pub pad: u32,
}

impl InodeGeneration {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut r = Reader::new("inode_generation", value);
        Ok(Self { generation: r.u32()?, pad: r.u32()? })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.generation);
        out.put_u32(self.pad);
    }
}

/// Where the search for the next free inode number starts (spec 80 §5.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InodeAllocCursor {
    /// Bits of the shard number the range was made for.
    pub bits: u8,
    /// Generation of the inodes the cursor hands out.
    pub generation: u32,
    /// Next number to try.
    pub idx: u64,
}

impl InodeAllocCursor {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let mut r = Reader::new("inode_alloc_cursor", value);
        let bits = r.u8()?;
        r.skip(3)?;
        Ok(Self { bits, generation: r.u32()?, idx: r.u64()? })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.bits);
        out.put_zeros(3);
        out.put_u32(self.generation);
        out.put_u64(self.idx);
    }
}

#[cfg(test)]
mod tests;
