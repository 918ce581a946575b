//! The header of a jset (spec 20 §2.1).

use uuid::Uuid;

use super::check::Problem;
use crate::bytes::{Reader, bits, with_bits};
use crate::checksum::{Checksum, ChecksumType};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId;
use crate::units::Seq;
use crate::version::Version;

/// Bytes of the header; the sub-entries follow.
pub const JSET_HEADER_BYTES: usize = 56;
/// The checksum covers everything from here on.
pub(super) const CSUM_START: usize = Checksum::BYTES;
/// Everything from here on is encrypted on an encrypted filesystem: the clocks, `last_seq`, and the sub-entries.
pub(super) const ENCRYPTED_START: usize = 44;
/// The oldest version any structure may carry (spec 10 §7); entries of an earlier life of the volume stay in the ring.
const VERSION_MIN: Version = Version(9);

/// The magic of journal entries of a filesystem; `uuid` is the internal UUID (spec 10 §2).
pub fn jset_magic(uuid: &Uuid) -> u64 {
    const JSET: u64 = 0x2452_35c1_a362_5032;
    let mut first = [0; 8];
    first.copy_from_slice(&uuid.as_bytes()[..8]);
    JSET ^ u64::from_le_bytes(first)
}

/// The `flags` word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JsetFlags(pub u32);

impl JsetFlags {
    const CSUM_TYPE: (u32, u32) = (0, 4);
    const BIG_ENDIAN: u32 = 1 << 4;
    const NO_FLUSH: u32 = 1 << 5;
    const HAS_OVERWRITES: u32 = 1 << 6;

    /// The flags of a little-endian entry.
    pub fn new(csum: ChecksumType, no_flush: bool, has_overwrites: bool) -> JsetFlags {
        let word = with_bits(0, Self::CSUM_TYPE.0, Self::CSUM_TYPE.1, csum.raw().into()) as u32;
        let set = |on, bit| if on { bit } else { 0 };
        JsetFlags(word | set(no_flush, Self::NO_FLUSH) | set(has_overwrites, Self::HAS_OVERWRITES))
    }

    /// Number of the checksum type, 0–15.
    pub fn csum_raw(self) -> u8 {
        bits(self.0.into(), Self::CSUM_TYPE.0, Self::CSUM_TYPE.1) as u8
    }

    /// The checksum type; `None` if there is none with that number.
    pub fn csum_type(self) -> Option<ChecksumType> {
        ChecksumType::from_raw(self.csum_raw())
    }

    /// Written by a machine of the other byte order, which this crate does not read.
    pub const fn is_big_endian(self) -> bool {
        self.0 & Self::BIG_ENDIAN != 0
    }

    /// A noflush entry.
    pub const fn no_flush(self) -> bool {
        self.0 & Self::NO_FLUSH != 0
    }

    /// Every update in the entry comes with its `overwrite` (spec 80 §6.2).
    pub const fn has_overwrites(self) -> bool {
        self.0 & Self::HAS_OVERWRITES != 0
    }
}

/// What an entry promises (spec 20 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsetKind {
    /// It and all earlier entries are durable when its write completes.
    Flush {
        /// The oldest entry still needed, at most the entry's own number.
        last_seq: Seq,
    },
    /// Durable only when a later flush entry is.
    NoFlush,
}

/// The header of a jset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsetHeader {
    /// Checksum of everything behind it.
    pub csum: Checksum,
    /// [`jset_magic`].
    pub magic: u64,
    /// Number of the entry.
    pub seq: Seq,
    /// Version of the writing program; 32 bits on disk.
    pub version: u32,
    /// Flags.
    pub flags: JsetFlags,
    /// Words of the list of sub-entries.
    pub u64s: u32,
    /// Unused, 0.
    pub read_clock: u16,
    /// Unused, 0.
    pub write_clock: u16,
    /// Of a flush entry: the oldest entry still needed. Meaningless in a noflush entry.
    pub last_seq: Seq,
}

impl JsetHeader {
    /// Decodes the first 56 bytes of a jset. On an encrypted filesystem the clocks and `last_seq` of bytes not yet decrypted
    /// are noise.
    pub fn decode(bytes: &[u8]) -> Result<JsetHeader> {
        let mut r = Reader::new("jset", bytes);
        Ok(JsetHeader {
            csum: Checksum::decode(&mut r)?,
            magic: r.u64()?,
            seq: Seq(r.u64()?),
            version: r.u32()?,
            flags: JsetFlags(r.u32()?),
            u64s: r.u32()?,
            read_clock: r.u16()?,
            write_clock: r.u16()?,
            last_seq: Seq(r.u64()?),
        })
    }

    /// The 56 bytes.
    pub fn to_bytes(&self) -> [u8; JSET_HEADER_BYTES] {
        let mut out = [0; JSET_HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.csum.to_bytes());
        put(16, &self.magic.to_le_bytes());
        put(24, &self.seq.0.to_le_bytes());
        put(32, &self.version.to_le_bytes());
        put(36, &self.flags.0.to_le_bytes());
        put(40, &self.u64s.to_le_bytes());
        put(44, &self.read_clock.to_le_bytes());
        put(46, &self.write_clock.to_le_bytes());
        put(48, &self.last_seq.0.to_le_bytes());
        out
    }

    /// Bytes of header and sub-entries, without the zeros up to the block. Up to 32 GiB: check it before use.
    pub fn bytes(&self) -> u64 {
        JSET_HEADER_BYTES as u64 + 8 * u64::from(self.u64s)
    }

    /// What the entry promises.
    pub fn kind(&self) -> JsetKind {
        if self.flags.no_flush() { JsetKind::NoFlush } else { JsetKind::Flush { last_seq: self.last_seq } }
    }

    /// The rules for the header alone (spec 20 §3.4). The oldest version that may occur is a matter of the superblock.
    pub fn check(&self) -> Vec<Problem> {
        let mut out = Vec::new();
        let mut problem = |id, reason: String| out.push(Problem { at: None, id, reason: reason.into() });
        let version = u16::try_from(self.version).ok().map(Version);
        if version.is_none_or(|v| v.major() > Version::READ_MAX.major() || v < VERSION_MIN) {
            problem(FsckErrorId::JSET_UNSUPPORTED_VERSION, format!("unsupported version {}", self.version));
        }
        if self.flags.csum_type().is_none() {
            let reason = format!("unknown checksum type {}", self.flags.csum_raw());
            problem(FsckErrorId::JSET_UNKNOWN_CSUM, reason);
        }
        if matches!(self.kind(), JsetKind::Flush { last_seq } if last_seq > self.seq) {
            let reason = format!("last_seq {} is newer than seq {}", self.last_seq, self.seq);
            problem(FsckErrorId::JSET_LAST_SEQ_NEWER_THAN_SEQ, reason);
        }
        out
    }
}
