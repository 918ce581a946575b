//! Reading one jset from the bytes of a journal bucket (spec 20 §5.3).

use super::frame::Frames;
use super::header::{CSUM_START, ENCRYPTED_START, JSET_HEADER_BYTES, JsetHeader, JsetKind};
use crate::checksum::verify;
use crate::crypto::{Key, Nonce};
use crate::error::{DecodeError, Result};
use crate::units::{SECTOR_BYTES, Sectors};

/// What one must know about a filesystem to read its journal.
#[derive(Clone, Copy, Debug)]
pub struct JsetFormat<'a> {
    /// [`super::jset_magic`] of the filesystem.
    pub magic: u64,
    /// The filesystem's block size in bytes, a multiple of 512: entries start at multiples of it.
    pub block_bytes: usize,
    /// The master key; `None` if the filesystem is not encrypted, or locked.
    pub key: Option<&'a Key>,
}

/// What is at an offset of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No entry: other bytes than the magic, or too few.
    Nothing,
    /// A header that claims more bytes than the bucket has left. Only the fields in clear are meaningful.
    TooLong(JsetHeader),
    /// An entry.
    Jset(Jset),
}

/// A jset as read: its structure, and separately whether its checksum vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jset {
    /// The header. If the checksum is bad, nothing of it can be relied on, `last_seq` least of all (spec 20 §5.4).
    pub header: JsetHeader,
    /// Whether the checksum is good; if not, why.
    pub checksum: Result<()>,
    /// Header and sub-entries, decrypted; `56 + 8 · u64s` bytes.
    bytes: Box<[u8]>,
    block_bytes: usize,
}

impl Jset {
    /// The list of sub-entries.
    pub fn list(&self) -> &[u8] {
        &self.bytes[JSET_HEADER_BYTES..]
    }

    /// The list of sub-entries, to be repaired.
    pub fn list_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[JSET_HEADER_BYTES..]
    }

    /// Header and sub-entries, decrypted. Two copies of an entry are the same if these are (spec 20 §5.4).
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Size on disk: up to the next block.
    pub fn sectors(&self) -> Sectors {
        Sectors(self.bytes.len().next_multiple_of(self.block_bytes) as u64 / SECTOR_BYTES)
    }

    /// No entry before this one is needed and it updates nothing (spec 20 §7.2): what a clean shutdown ends with.
    pub fn is_empty(&self) -> bool {
        let needs_itself_only = self.header.kind() == JsetKind::Flush { last_seq: self.header.seq };
        needs_itself_only && !has_keys(self.list())
    }
}

/// Whether a list has any `btree_keys` with keys in it.
pub(super) fn has_keys(list: &[u8]) -> bool {
    use super::frame::EntryType;
    Frames::new(list).flatten().any(|f| f.header.ty == EntryType::BTREE_KEYS && !f.payload.is_empty())
}

/// Reads the entry at the start of `rest`, the bytes from a block boundary to the end of a bucket. An encrypted entry is
/// decrypted, whether its checksum is good or not.
pub fn read(format: &JsetFormat<'_>, rest: &[u8]) -> Found {
    let Ok(clear) = JsetHeader::decode(rest) else {
        return Found::Nothing;
    };
    if clear.magic != format.magic {
        return Found::Nothing;
    }
    let Some(stored) = usize::try_from(clear.bytes()).ok().and_then(|n| rest.get(..n)) else {
        return Found::TooLong(clear);
    };
    let checksum = check_sum(format, &clear, stored);
    let mut bytes: Box<[u8]> = stored.into();
    if let Some(key) = format.key.filter(|_| clear.flags.csum_type().is_some_and(|t| t.is_encryption())) {
        key.apply(Nonce::jset(clear.seq), &mut bytes[ENCRYPTED_START..]);
    }
    let header = JsetHeader::decode(&bytes).expect("the bytes hold a header");
    Found::Jset(Jset { header, checksum, bytes, block_bytes: format.block_bytes })
}

fn check_sum(format: &JsetFormat<'_>, clear: &JsetHeader, stored: &[u8]) -> Result<()> {
    if clear.flags.is_big_endian() {
        return Err(DecodeError::unsupported("jset", "written by a big-endian machine"));
    }
    let Some(ty) = clear.flags.csum_type() else {
        let reason = format!("unknown checksum type {}", clear.flags.csum_raw());
        return Err(DecodeError::invalid("jset", reason));
    };
    let cipher = format.key.map(|key| (key, Nonce::jset(clear.seq)));
    verify("jset", ty, cipher, clear.csum, &stored[CSUM_START..])
}
