//! Writing nodes: the bytes of a node's first write and of those appended later (spec 30 §5, §7, §11.2).
//!
//! A [`BsetBuilder`] takes keys in order, packs them with the node's format, and in the end fills in the headers, encrypts, and
//! adds checksum and padding. The result is the same, byte for byte, as the reference's for the same keys.
//!
//! The two kinds of write differ in what they may hold. A first write is a compacted node: no tombstones, and its keys are
//! safe because the journal entry that makes the node reachable is newer than them. A later write holds what changed
//! since: live keys that replace earlier ones, and tombstones for positions that an earlier bset still holds.

use super::format::KeyFormat;
use super::header::{
    BsetHeader, CSUM_BYTES, ENCRYPTED_HEADER, ENTRY_HEADER_BYTES, NODE_HEADER_BYTES, NodeHeader,
};
use super::keys::SortedKeys;
use super::pack::RawKey;
use super::read::crypt;
use crate::bkey::Key;
use crate::bpos::Bpos;
use crate::bytes::PutLe;
use crate::checksum::{self, ChecksumType};
use crate::crypto::{self, Nonce};
use crate::error::Result;
use crate::key_type::KeyType;
use crate::units::{NodeSeq, SECTOR_BYTES, Sectors, Seq};
use crate::version::Version;

/// What is the same for all writes of a filesystem.
pub struct WriteContext<'a> {
    /// Magic of its nodes ([`super::node_magic`]).
    pub magic: u64,
    /// The filesystem's block size; writes are padded to multiples of it.
    pub block: Sectors,
    /// How metadata is checksummed; an authenticator type also encrypts.
    pub csum_type: ChecksumType,
    /// The key, needed by authenticator types.
    pub key: Option<&'a crypto::Key>,
    /// The version every bset is stamped with: the superblock's.
    pub version: Version,
}

/// Which write of a node is built.
#[derive(Clone, Debug)]
enum Kind {
    First(Box<NodeHeader>),
    Later { at: Sectors },
}

/// Builds one write to a node.
#[derive(Clone, Debug)]
pub struct BsetBuilder {
    kind: Kind,
    format: KeyFormat,
    seq: NodeSeq,
    /// Room for the headers, then the keys.
    bytes: Vec<u8>,
    last: Option<Bpos>,
}

impl BsetBuilder {
    /// The first write of a new node. `seq` is random and not 0.
    pub fn first(header: NodeHeader, seq: NodeSeq) -> Self {
        assert!(seq.0 != 0, "a node's number is never 0");
        assert!(header.min_key <= header.max_key, "bounds of a node");
        let format = header.format.clone();
        let bytes = vec![0; NODE_HEADER_BYTES];
        BsetBuilder { kind: Kind::First(Box::new(header)), format, seq, bytes, last: None }
    }

    /// A write appended at sector `at` to the node with this number and format.
    pub fn later(format: KeyFormat, seq: NodeSeq, at: Sectors) -> Self {
        assert!(seq.0 != 0 && at.0 != 0, "a later write belongs to a node that has a first");
        BsetBuilder { kind: Kind::Later { at }, format, seq, bytes: vec![0; ENTRY_HEADER_BYTES], last: None }
    }

    /// Appends a live key.
    ///
    /// # Panics
    /// If the key is not above the last one, a first write gets a tombstone or a key outside the node, or the bset gets
    /// longer than its header can say.
    pub fn push(&mut self, key: Key<'_>) {
        if let Kind::First(node) = &self.kind {
            assert!(key.k.ty != KeyType::DELETED, "a tombstone in a node's first write");
            assert!(node.min_key <= key.k.pos && key.k.pos <= node.max_key, "key outside its node");
        }
        self.advance(key.k.pos);
        self.format.encode_key(key, &mut self.bytes);
        self.check_len();
    }

    /// Appends all keys of a node that is rewritten.
    ///
    /// # Panics
    /// As [`BsetBuilder::push`].
    pub fn push_all(&mut self, keys: &SortedKeys) {
        if *keys.format() == self.format {
            (0..keys.len()).for_each(|i| self.push_raw(keys.raw(i), keys.pos(i)));
        } else {
            keys.iter().for_each(|key| self.push(key));
        }
    }

    fn push_raw(&mut self, raw: RawKey<'_>, pos: Bpos) {
        if !raw.is_packed() {
            return self.push(self.format.unpack(raw));
        }
        if let Kind::First(node) = &self.kind {
            assert!(node.min_key <= pos && pos <= node.max_key, "key outside its node");
        }
        self.advance(pos);
        self.bytes.extend_from_slice(raw.bytes());
        self.check_len();
    }

    /// Appends a tombstone: an earlier bset of the node still holds a key at `pos`, which is deleted (spec 30 §7).
    ///
    /// # Panics
    /// If this is a first write, or `pos` is not above the last key.
    pub fn push_tombstone(&mut self, pos: Bpos) {
        assert!(matches!(self.kind, Kind::Later { .. }), "a tombstone in a node's first write");
        self.advance(pos);
        self.format.encode_tombstone(pos, &mut self.bytes);
        self.check_len();
    }

    fn advance(&mut self, pos: Bpos) {
        assert!(self.last.is_none_or(|last| last < pos), "keys must be pushed in order");
        self.last = Some(pos);
    }

    fn check_len(&self) {
        assert!(self.u64s() <= usize::from(u16::MAX), "bset longer than its header can say");
    }

    fn header_bytes(&self) -> usize {
        match self.kind {
            Kind::First(_) => NODE_HEADER_BYTES,
            Kind::Later { .. } => ENTRY_HEADER_BYTES,
        }
    }

    /// Words of keys so far.
    pub fn u64s(&self) -> usize {
        (self.bytes.len() - self.header_bytes()) / 8
    }

    /// Sectors the write would take now, with this block size.
    pub fn sectors(&self, block: Sectors) -> Sectors {
        let blocks = (self.bytes.len() as u64).div_ceil(block.0 * SECTOR_BYTES);
        Sectors(blocks * block.0)
    }

    /// The bytes to write: whole blocks, encrypted if the checksum type says so. `journal_seq` is the newest journal entry with
    /// a key in it; usually 0 for a first write (spec 30 §11.2).
    ///
    /// # Errors
    /// If the checksum type needs a key and there is none.
    ///
    /// # Panics
    /// If a later write has no keys or no journal sequence number.
    pub fn finish(mut self, journal_seq: Seq, ctx: &WriteContext<'_>) -> Result<Vec<u8>> {
        let sectors = self.sectors(ctx.block);
        let at = match self.kind {
            Kind::First(_) => Sectors(0),
            Kind::Later { at } => at,
        };
        if at.0 != 0 {
            assert!(
                self.u64s() != 0 && journal_seq.0 != 0,
                "a later write has keys, and those a journal entry"
            );
        }
        let keys_start = self.header_bytes();
        let head = self.encode_headers(journal_seq, at, ctx);
        debug_assert_eq!(CSUM_BYTES + head.len(), keys_start);
        self.bytes[CSUM_BYTES..keys_start].copy_from_slice(&head);

        let start = at.to_bytes().expect("a node is far smaller than 2^64 bytes");
        let nonce = Nonce::bset(start as u32, self.seq.0, journal_seq.0);
        let end = self.bytes.len();
        if let (true, Some(key)) = (ctx.csum_type.is_encryption(), ctx.key) {
            crypt(&mut self.bytes, at.0 == 0, keys_start..end, key, nonce);
        }
        let cipher = ctx.key.map(|key| (key, nonce));
        let csum = checksum::compute(ctx.csum_type, cipher, &self.bytes[CSUM_BYTES..])?;
        self.bytes[..CSUM_BYTES].copy_from_slice(&csum.to_bytes());
        self.bytes.resize((sectors.0 * SECTOR_BYTES) as usize, 0);
        Ok(self.bytes)
    }

    /// Everything between the checksum and the keys, in clear.
    fn encode_headers(&self, journal_seq: Seq, at: Sectors, ctx: &WriteContext<'_>) -> Vec<u8> {
        let mut head = Vec::with_capacity(NODE_HEADER_BYTES);
        if let Kind::First(node) = &self.kind {
            head.put_u64(ctx.magic);
            node.encode(&mut head);
            debug_assert_eq!(CSUM_BYTES + head.len(), ENCRYPTED_HEADER.end);
        }
        let header = BsetHeader {
            seq: self.seq,
            journal_seq,
            csum_type: ctx.csum_type.raw(),
            offset: at,
            version: ctx.version,
            u64s: self.u64s() as u16,
        };
        header.encode(&mut head);
        head
    }
}
