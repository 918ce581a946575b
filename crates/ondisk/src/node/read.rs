//! Reading a node: from the bytes of its disk area to verified bsets, and from those to one sorted run of keys
//! (spec 30 §5.6, §5.7).
//!
//! A node is a log. Its first write brings the node header and the keys it was created with; each later write, at the next
//! block boundary, brings the keys that changed since. The pointer in the parent says how many sectors of writes count; what lies
//! behind them is a write whose pointer update never became durable, and its keys are still in the journal.
//!
//! [`ReadNode::read`] walks the writes: is this the node that is meant, does the checksum match, decrypt in place, does
//! the journal sequence number lie in a blacklisted range (then its keys never happened). [`ReadNode::merge`] then sorts the keys
//! of all bsets together. Among keys at one position that of the latest bset wins; if that is a tombstone, the position is empty.
//! The tombstones of snapshots (`whiteout`) are keys like others here.

use super::check::{BsetWalk, GoodKey, KeyRules};
use super::format::{FormatRules, KeyFormat};
use super::header::{
    BsetHeader, CSUM_BYTES, ENCRYPTED_HEADER, ENTRY_HEADER_BYTES, KEYS_NONCE_BYTES, NODE_HEADER_BYTES,
    NodeHeader,
};
use super::keys::{SortedKeys, SortedKeysBuilder};
use super::pack::RawKey;
use super::problem::{BadNode, NodeProblem};
use super::ptr::NodeExpectation;
use crate::bpos::Bpos;
use crate::bytes::Reader;
use crate::checksum::{self, Checksum, ChecksumType};
use crate::crypto::{self, Nonce};
use crate::error::DecodeError;
use crate::key_type::KeyType;
use crate::units::{NodeSeq, SECTOR_BYTES, Sectors, Seq};
use crate::version::Version;

/// What is the same for all nodes of a filesystem.
pub struct ReadContext<'a> {
    /// Magic of its nodes ([`super::node_magic`]).
    pub magic: u64,
    /// The filesystem's block size; writes to a node start at multiples of it.
    pub block: Sectors,
    /// The key, if there is one and it is known.
    pub key: Option<&'a crypto::Key>,
    /// The superblock's version.
    pub version: Version,
    /// The superblock's oldest version.
    pub version_min: Version,
    /// Whether updates of this journal entry are to be ignored (spec 20 §6).
    pub blacklisted: &'a dyn Fn(Seq) -> bool,
}

impl ReadContext<'_> {
    fn block_bytes(&self) -> usize {
        (self.block.0.clamp(1, 1 << 16) * SECTOR_BYTES) as usize
    }

    fn format_rules(&self) -> FormatRules {
        if self.version_min.key_formats_may_overflow() {
            FormatRules::AllowOverflow
        } else {
            FormatRules::Strict
        }
    }
}

/// One write to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bset {
    /// Its header.
    pub header: BsetHeader,
    /// First byte of the write inside the node.
    pub start: usize,
    /// First byte behind its keys.
    pub end: usize,
    /// Its keys count: false if its journal sequence number is blacklisted.
    pub used: bool,
}

impl Bset {
    /// The bytes of its keys.
    pub fn keys(&self) -> std::ops::Range<usize> {
        self.end - usize::from(self.header.u64s) * 8..self.end
    }

    /// The sector of the node it starts at.
    pub fn at(&self) -> Sectors {
        sector(self.start)
    }
}

/// A node whose writes have been found, verified and decrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadNode {
    /// The node's header; the bounds are those of the pointer if that says so.
    pub header: NodeHeader,
    /// The node's random number.
    pub seq: NodeSeq,
    /// Its writes in order, blacklisted ones included.
    pub bsets: Vec<Bset>,
    /// Sectors of all writes; the next one goes here.
    pub sectors: Sectors,
    /// What was wrong.
    pub problems: Vec<NodeProblem>,
    /// Keys outside the bounds are to be dropped in silence.
    range_updated: bool,
}

/// A node as it is used: what it is, and its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodedNode {
    /// The node's header.
    pub header: NodeHeader,
    /// The node's random number.
    pub seq: NodeSeq,
    /// Sectors of all its writes.
    pub sectors: Sectors,
    /// Its live keys.
    pub keys: SortedKeys,
}

fn sector(byte: usize) -> Sectors {
    Sectors(byte as u64 / SECTOR_BYTES)
}

/// A walk over the writes of a node.
struct Walk<'a> {
    raw: &'a mut [u8],
    ctx: &'a ReadContext<'a>,
    /// Writes must end here.
    limit: usize,
    /// The pointer says how far writes go.
    limit_is_known: bool,
    problems: Vec<NodeProblem>,
}

impl ReadNode {
    /// Finds, verifies and decrypts (in place) the writes in `raw`, the bytes of a node's area. Sectors behind
    /// `want.sectors_written`, if that is known, need not be there.
    ///
    /// # Errors
    /// If this is not the node that is meant or it cannot be read. `raw` may be partly decrypted then.
    pub fn read(raw: &mut [u8], want: &NodeExpectation, ctx: &ReadContext<'_>) -> Result<ReadNode, BadNode> {
        if raw.len() < NODE_HEADER_BYTES {
            return Err(BadNode::TooShort(raw.len()));
        }
        let magic = word(raw, CSUM_BYTES);
        if magic != ctx.magic {
            return Err(BadNode::Magic { found: magic, want: ctx.magic });
        }
        let seq = NodeSeq(word(raw, ENCRYPTED_HEADER.end));
        if want.seq.map_or(seq.0 == 0, |want| want != seq) {
            return Err(BadNode::Seq { found: seq, want: want.seq.unwrap_or_default() });
        }
        let limit = want.sectors_written.map_or(raw.len(), |s| raw.len().min((s.0 * SECTOR_BYTES) as usize));
        let limit_is_known = want.sectors_written.is_some();
        let mut walk = Walk { raw, ctx, limit, limit_is_known, problems: Vec::new() };

        let (first, mut next) = walk.first()?;
        let header = walk.header(want)?;
        let mut bsets = vec![first];
        while next < limit {
            let Some((bset, behind)) = walk.later(next, seq)? else { break };
            bsets.push(bset);
            next = behind;
        }
        walk.check_end(next, seq, want.sectors_written);
        Ok(ReadNode {
            header,
            seq,
            bsets,
            sectors: sector(next),
            problems: walk.problems,
            range_updated: want.range_updated,
        })
    }

    /// Merges the bsets into one sorted run of live keys; `raw` is what [`ReadNode::read`] left. Bad keys are dropped and added
    /// to the problems returned.
    pub fn merge(self, raw: &[u8]) -> (DecodedNode, Vec<NodeProblem>) {
        let mut problems = self.problems;
        let format = &self.header.format;
        let bounds = (self.header.min_key, self.header.max_key);
        let rules = KeyRules { btree: self.header.btree, level: self.header.level };
        let mut keys: Vec<GoodKey> = Vec::new();
        for bset in self.bsets.iter().filter(|b| b.used) {
            let base = bset.keys().start;
            let walk = BsetWalk {
                format,
                keys: &raw[bset.keys()],
                rules,
                bounds: (!self.range_updated).then_some(bounds),
            };
            let good = walk.run(|at, problem| problems.push(NodeProblem::Key { at: base + at, problem }));
            keys.extend(good.into_iter().map(|k| GoodKey { at: k.at + base as u32, ..k }));
        }
        if self.bsets.len() > 1 {
            // Stable, so that among equal positions later bsets stay behind earlier ones; it finds and merges the runs.
            keys.sort_by_key(|k| k.pos);
        }
        let keys = live_keys(&keys, format, raw, rules.level, bounds);
        let node = DecodedNode { header: self.header, seq: self.seq, sectors: self.sectors, keys };
        (node, problems)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

impl Walk<'_> {
    /// The write at byte 0, and where the next one would be.
    fn first(&mut self) -> Result<(Bset, usize), BadNode> {
        let mut bset = self.bset_header(0)?;
        let next = bset.end.next_multiple_of(self.ctx.block_bytes());
        if next > self.limit {
            return Err(BadNode::FirstPastEnd { u64s: bset.header.u64s });
        }
        self.verify_and_decrypt(&bset)?;
        self.check_version(&bset)?;
        let seq = bset.header.journal_seq;
        if (self.ctx.blacklisted)(seq) {
            self.problems.push(NodeProblem::FirstBlacklisted { seq });
        }
        bset.used = true;
        Ok((bset, next))
    }

    /// The write at byte `start`, and where the next one would be; `None` if there is none.
    fn later(&mut self, start: usize, seq: NodeSeq) -> Result<Option<(Bset, usize)>, BadNode> {
        if self.limit - start < ENTRY_HEADER_BYTES || word(self.raw, start + CSUM_BYTES) != seq.0 {
            return Ok(None);
        }
        let mut bset = self.bset_header(start)?;
        let (at, header) = (bset.at(), bset.header);
        let next = bset.end.next_multiple_of(self.ctx.block_bytes());
        if next > self.limit {
            self.problems.push(NodeProblem::PastEnd { at, u64s: header.u64s });
            return Ok(None);
        }
        self.verify_and_decrypt(&bset)?;
        self.check_version(&bset)?;
        if header.u64s == 0 {
            self.problems.push(NodeProblem::Empty { at });
        }
        bset.used = !(self.ctx.blacklisted)(header.journal_seq);
        if !bset.used && self.limit_is_known {
            self.problems.push(NodeProblem::Blacklisted { at, seq: header.journal_seq });
        }
        Ok(Some((bset, next)))
    }

    fn bset_header(&mut self, start: usize) -> Result<Bset, BadNode> {
        let (at, before_keys) = match start {
            0 => (ENCRYPTED_HEADER.end, NODE_HEADER_BYTES),
            _ => (start + CSUM_BYTES, start + ENTRY_HEADER_BYTES),
        };
        let header = BsetHeader::decode(&mut Reader::new("bset", &self.raw[at..]))
            .map_err(|error| BadNode::Unsupported { at: sector(start), error })?;
        if header.offset != Sectors(0) && header.offset != sector(start) {
            self.problems.push(NodeProblem::Offset { at: sector(start), stored: header.offset });
        }
        Ok(Bset { header, start, end: before_keys + usize::from(header.u64s) * 8, used: false })
    }

    fn verify_and_decrypt(&mut self, bset: &Bset) -> Result<(), BadNode> {
        let at = bset.at();
        let Some(ty) = ChecksumType::from_raw(bset.header.csum_type) else {
            self.problems.push(NodeProblem::ChecksumType { at, csum_type: bset.header.csum_type });
            return Ok(());
        };
        let nonce = Nonce::bset(bset.start as u32, bset.header.seq.0, bset.header.journal_seq.0);
        let cipher = self.ctx.key.map(|key| (key, nonce));
        if ty.is_encryption() && cipher.is_none() {
            return Err(BadNode::Locked);
        }
        let covered = bset.start + CSUM_BYTES..bset.end;
        let stored = Checksum::decode(&mut Reader::new("csum", &self.raw[bset.start..covered.start]))
            .expect("16 bytes of checksum");
        if let Err(error) = checksum::verify("bset", ty, cipher, stored, &self.raw[covered]) {
            self.problems.push(NodeProblem::Checksum { at, error });
        }
        if let (true, Some((key, nonce))) = (ty.is_encryption(), cipher) {
            crypt(self.raw, bset.start == 0, bset.keys(), key, nonce);
        }
        Ok(())
    }

    fn check_version(&mut self, bset: &Bset) -> Result<(), BadNode> {
        let (at, version) = (bset.at(), bset.header.version);
        if version.major() > Version::READ_MAX.major() {
            let error = DecodeError::unsupported("bset", format!("version {version}"));
            return Err(BadNode::Unsupported { at, error });
        }
        if version < self.ctx.version_min {
            self.problems.push(NodeProblem::VersionOld { at, version });
        }
        if version.major() > self.ctx.version.major() {
            self.problems.push(NodeProblem::VersionNew { at, version });
        }
        Ok(())
    }

    /// Decodes the (decrypted) node header and compares it with what the pointer promises.
    fn header(&self, want: &NodeExpectation) -> Result<NodeHeader, BadNode> {
        let mut r = Reader::new("btree_node", &self.raw[ENCRYPTED_HEADER]);
        let mut header = NodeHeader::decode(&mut r, self.ctx.format_rules()).map_err(BadNode::Header)?;
        if header.btree != want.btree {
            return Err(BadNode::Btree { found: header.btree, want: want.btree });
        }
        if header.level != want.level {
            return Err(BadNode::Level { found: header.level, want: want.level });
        }
        if want.range_updated {
            header.min_key = want.min_key.unwrap_or(header.min_key);
            header.max_key = want.max_key;
        }
        if let Some(min) = want.min_key.filter(|&min| min != header.min_key) {
            return Err(BadNode::MinKey { found: header.min_key, want: min });
        }
        if header.max_key != want.max_key {
            return Err(BadNode::MaxKey { found: header.max_key, want: want.max_key });
        }
        if header.btree.is_extents() && !header.new_extent_overwrite {
            return Err(BadNode::OldExtents);
        }
        Ok(header)
    }

    /// Checks that the writes end, at byte `end`, where they should.
    fn check_end(&mut self, end: usize, seq: NodeSeq, want: Option<Sectors>) {
        match want {
            Some(want) if sector(end) < want => {
                self.problems.push(NodeProblem::DataMissing { found: sector(end), want });
            }
            Some(_) => {}
            None => {
                for start in (end..self.raw.len()).step_by(self.ctx.block_bytes()) {
                    let at = start + CSUM_BYTES;
                    let stray = self.raw.len() - start >= ENTRY_HEADER_BYTES
                        && word(self.raw, at) == seq.0
                        && !(self.ctx.blacklisted)(Seq(word(self.raw, at + 8)));
                    if stray {
                        self.problems.push(NodeProblem::AfterEnd { at: sector(start) });
                    }
                }
            }
        }
    }
}

/// Encrypts or decrypts in place the keys of one write of a node, and the node header if it is the first (spec 30 §5.5).
pub(crate) fn crypt(
    raw: &mut [u8],
    first: bool,
    keys: std::ops::Range<usize>,
    key: &crypto::Key,
    nonce: Nonce,
) {
    if first {
        key.apply(nonce, &mut raw[ENCRYPTED_HEADER]);
        key.apply(nonce.advanced(KEYS_NONCE_BYTES), &mut raw[keys]);
    } else {
        key.apply(nonce, &mut raw[keys]);
    }
}

/// The last of each run of equal positions, unless it is a tombstone or outside the bounds.
fn live_keys(
    sorted: &[GoodKey],
    format: &KeyFormat,
    raw: &[u8],
    level: u8,
    (min, max): (Bpos, Bpos),
) -> SortedKeys {
    let live = || {
        let last_of_run = |i: usize| sorted.get(i + 1).is_none_or(|next| next.pos != sorted[i].pos);
        (0..sorted.len())
            .filter(move |&i| last_of_run(i))
            .map(|i| sorted[i])
            .filter(|k| !k.deleted && min <= k.pos && k.pos <= max)
            .map(|k| (RawKey::of_valid(&raw[k.at as usize..]), k.pos))
    };
    let (count, bytes) = live().fold((0, 0), |(n, bytes), (key, _)| (n + 1, bytes + key.bytes().len()));
    let mut out = SortedKeysBuilder::with_capacity(format.clone(), count, bytes);
    for (key, pos) in live() {
        out.push_raw(key, pos);
        if level > 0 && key.ty() == KeyType::BTREE_PTR_V2 {
            // Pointers of somebody's memory do get written (spec 30 §5.6).
            out.zero_first_word_of_last_value();
        }
    }
    out.finish()
}
