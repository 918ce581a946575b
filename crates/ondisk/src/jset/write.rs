//! Writing a jset (spec 20 §2.2, §9.10).

use super::header::{CSUM_START, ENCRYPTED_START, JSET_HEADER_BYTES, JsetFlags, JsetHeader, JsetKind};
use crate::checksum::{Checksum, ChecksumType, compute};
use crate::crypto::{Key, Nonce};
use crate::error::Result;
use crate::units::Seq;
use crate::version::Version;

/// Everything a jset's header says, apart from its length: what turns a buffer of sub-entries into an entry.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// [`super::jset_magic`] of the filesystem.
    pub magic: u64,
    /// Number of the entry. The same number must never be sealed twice with different content: the encryption's key stream
    /// depends on it alone.
    pub seq: Seq,
    /// The superblock's version.
    pub version: Version,
    /// Flush or noflush.
    pub kind: JsetKind,
    /// Every update comes with its `overwrite`; 0 at format 1.13.
    pub has_overwrites: bool,
    /// Checksum type of metadata.
    pub csum_type: ChecksumType,
    /// The master key, if the checksum type is an authenticator: then the entry is encrypted as well.
    pub key: Option<&'a Key>,
}

impl Seal<'_> {
    /// Finishes an entry in place. `buf` starts with room for the header (56 bytes, whose content does not matter), then `u64s`
    /// words of sub-entries, then room up to a multiple of `block_bytes`, which is zeroed. Returns how many bytes are to be written.
    ///
    /// # Errors
    /// If the checksum type is an authenticator and there is no key.
    ///
    /// # Panics
    /// If the buffer is too short, or the entry is a flush entry whose `last_seq` is newer than itself.
    pub fn seal(&self, buf: &mut [u8], u64s: u32, block_bytes: usize) -> Result<usize> {
        let bytes = JSET_HEADER_BYTES + 8 * u64s as usize;
        let write_bytes = bytes.next_multiple_of(block_bytes);
        let buf = &mut buf[..write_bytes];
        let (no_flush, last_seq) = match self.kind {
            JsetKind::Flush { last_seq } => (false, last_seq),
            JsetKind::NoFlush => (true, Seq(0)),
        };
        assert!(last_seq <= self.seq, "last_seq {last_seq} is newer than seq {}", self.seq);
        let header = JsetHeader {
            csum: Checksum::default(),
            magic: self.magic,
            seq: self.seq,
            version: self.version.0.into(),
            flags: JsetFlags::new(self.csum_type, no_flush, self.has_overwrites),
            u64s,
            read_clock: 0,
            write_clock: 0,
            last_seq,
        };
        buf[..JSET_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        buf[bytes..].fill(0);
        let nonce = Nonce::jset(self.seq);
        if let Some(key) = self.key.filter(|_| self.csum_type.is_encryption()) {
            key.apply(nonce, &mut buf[ENCRYPTED_START..bytes]);
        }
        let csum = compute(self.csum_type, self.key.map(|key| (key, nonce)), &buf[CSUM_START..bytes])?;
        buf[..CSUM_START].copy_from_slice(&csum.to_bytes());
        Ok(write_bytes)
    }
}

/// A jset that one thread makes in one go: by `format`, offline repair, tests.
#[derive(Clone, Debug)]
pub struct JsetBuilder {
    bytes: Vec<u8>,
}

impl Default for JsetBuilder {
    fn default() -> Self {
        JsetBuilder { bytes: vec![0; JSET_HEADER_BYTES] }
    }
}

impl JsetBuilder {
    /// An entry without sub-entries.
    pub fn new() -> JsetBuilder {
        JsetBuilder::default()
    }

    /// Where sub-entries are appended ([`super::JsetEntry::encode`], [`super::push_keys`]). What is there already must stay.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Words of sub-entries so far.
    ///
    /// # Panics
    /// If something other than whole words was appended.
    pub fn u64s(&self) -> usize {
        let list = self.bytes.len() - JSET_HEADER_BYTES;
        assert!(list.is_multiple_of(8), "sub-entries are whole words");
        list / 8
    }

    /// The whole entry as it is written, up to a multiple of `block_bytes`.
    ///
    /// # Errors
    /// As [`Seal::seal`].
    ///
    /// # Panics
    /// As [`Seal::seal`]; if there are 2³² words or more.
    pub fn finish(mut self, seal: &Seal<'_>, block_bytes: usize) -> Result<Vec<u8>> {
        let u64s = u32::try_from(self.u64s()).expect("an entry is far smaller than 32 GiB");
        self.bytes.resize(self.bytes.len().next_multiple_of(block_bytes), 0);
        seal.seal(&mut self.bytes, u64s, block_bytes)?;
        Ok(self.bytes)
    }
}
