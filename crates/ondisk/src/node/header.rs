//! The headers inside a node: that of the node itself and that of each bset (spec 30 §5.1–§5.3).
//!
//! ```text
//! first write, at byte 0                        later writes, at block boundaries
//!   0  csum          16                           0  csum          16
//!  16  magic          8                          16  bset header   24
//!  24  flags          8  ┐                       40  keys …
//!  32  min_key       20  │
//!  52  max_key       20  │ encrypted
//!  72  unused         8  │
//!  80  key format    56  ┘
//! 136  bset header   24
//! 160  keys …
//! ```
//!
//! The bset header repeats the node's random [`NodeSeq`]: that is how a reader tells the node's writes from what an
//! older node left in the same bucket.

use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::checksum::Checksum;
use crate::error::{DecodeError, Result};
use crate::node::format::{FormatRules, KeyFormat};
use crate::units::{NodeSeq, Sectors, Seq};
use crate::version::Version;

/// Bytes of the checksum every write starts with, which is not covered by itself.
pub(crate) const CSUM_BYTES: usize = Checksum::BYTES;
/// Bytes in front of the keys of a node's first write.
pub const NODE_HEADER_BYTES: usize = 160;
/// Bytes in front of the keys of a later write.
pub const ENTRY_HEADER_BYTES: usize = 40;
/// The encrypted part of the node header: flags to key format (spec 30 §5.5).
pub(crate) const ENCRYPTED_HEADER: std::ops::Range<usize> = 24..136;
/// How far the key stream of a first write has advanced when it comes to the keys: the 112 bytes of header, rounded up
/// to whole blocks.
pub(crate) const KEYS_NONCE_BYTES: u64 = 128;
/// Constant the magic is derived from.
const BSET_MAGIC: u64 = 0x9013_5c78_b99e_07f5;
/// Levels of a b-tree: 0 to 3 (spec 30 §8.2).
pub const LEVELS: u8 = 4;

/// The magic of every node of the filesystem with this internal UUID (spec 10 §2).
pub fn node_magic(internal_uuid: &uuid::Uuid) -> u64 {
    let b = internal_uuid.as_bytes();
    u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) ^ BSET_MAGIC
}

/// What the header of a node says, apart from its checksum and magic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeHeader {
    /// The b-tree the node belongs to.
    pub btree: BtreeId,
    /// 0 for leaves, up to 3.
    pub level: u8,
    /// Set in every node written since extents may be overwritten in place; extent b-trees without it are refused.
    pub new_extent_overwrite: bool,
    /// Generation of the node in its lineage of splits, merges and rewrites; only recovery by scanning looks at it.
    pub counter: u32,
    /// Smallest position the node covers.
    pub min_key: Bpos,
    /// Largest position the node covers, also the position of its pointer in the parent.
    pub max_key: Bpos,
    /// Format of the packed keys.
    pub format: KeyFormat,
}

impl NodeHeader {
    /// Decodes the (decrypted) bytes 24 to 135 of a node.
    ///
    /// # Errors
    /// If the b-tree id or level cannot exist, or the key format breaks `rules`.
    pub fn decode(r: &mut Reader<'_>, rules: FormatRules) -> Result<NodeHeader> {
        let flags = r.u64()?;
        let min_key = Bpos::decode(r)?;
        let max_key = Bpos::decode(r)?;
        r.skip(8)?;
        let format = KeyFormat::decode(r, rules)?;
        let btree = bits(flags, 0, 4) | bits(flags, 9, 25) << 4;
        let btree = u8::try_from(btree)
            .ok()
            .filter(|&id| usize::from(id) < BtreeId::COUNT_MAX)
            .ok_or_else(|| r.invalid(format!("b-tree id {btree} cannot exist")))?;
        Ok(NodeHeader {
            btree: BtreeId(btree),
            level: bits(flags, 4, 8) as u8,
            new_extent_overwrite: bits(flags, 8, 9) == 1,
            counter: bits(flags, 32, 64) as u32,
            min_key,
            max_key,
            format,
        })
    }

    /// Appends the bytes [`NodeHeader::decode`] reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let id = u64::from(self.btree.0);
        let flags = with_bits(0, 0, 4, id & 15);
        let flags = with_bits(flags, 4, 8, u64::from(self.level));
        let flags = with_bits(flags, 8, 9, u64::from(self.new_extent_overwrite));
        let flags = with_bits(flags, 9, 25, id >> 4);
        out.put_u64(with_bits(flags, 32, 64, u64::from(self.counter)));
        self.min_key.encode(out);
        self.max_key.encode(out);
        out.put_zeros(8);
        self.format.encode(out);
    }
}

/// The header of a bset, the keys of one write to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BsetHeader {
    /// Which node this is a write of.
    pub seq: NodeSeq,
    /// The newest journal entry whose updates are in this bset; usually 0 in a node's first.
    pub journal_seq: Seq,
    /// Number of the checksum type, maybe an unknown one.
    pub csum_type: u8,
    /// Sector of this write inside the node, as the writer saw it; 0 in the first.
    pub offset: Sectors,
    /// Version of the program that wrote it.
    pub version: Version,
    /// Words of keys that follow.
    pub u64s: u16,
}

impl BsetHeader {
    /// Bytes of an encoded header.
    pub const BYTES: usize = 24;

    /// Decodes the 24 bytes of a bset header.
    ///
    /// # Errors
    /// [`DecodeError::Unsupported`] for big-endian bsets and for those with separate whiteouts, which no program of
    /// version 1.0 or later writes.
    pub fn decode(r: &mut Reader<'_>) -> Result<BsetHeader> {
        let seq = NodeSeq(r.u64()?);
        let journal_seq = Seq(r.u64()?);
        let flags = u64::from(r.u32()?);
        let version = Version(r.u16()?);
        let u64s = r.u16()?;
        if bits(flags, 4, 5) == 1 {
            return Err(DecodeError::unsupported("bset", "big-endian"));
        }
        if bits(flags, 5, 6) == 1 {
            return Err(DecodeError::unsupported("bset", "separate whiteouts"));
        }
        Ok(BsetHeader {
            seq,
            journal_seq,
            csum_type: bits(flags, 0, 4) as u8,
            offset: Sectors(bits(flags, 16, 32)),
            version,
            u64s,
        })
    }

    /// Appends the 24 bytes [`BsetHeader::decode`] reads.
    ///
    /// # Panics
    /// If the checksum type does not fit 4 bits or the offset 16.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.seq.0);
        out.put_u64(self.journal_seq.0);
        let flags = with_bits(0, 0, 4, u64::from(self.csum_type));
        out.put_u32(with_bits(flags, 16, 32, self.offset.0) as u32);
        out.put_u16(self.version.0);
        out.put_u16(self.u64s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_two_nibble_btree_id() {
        // spec 30 §5.1: deleted_inodes (id 16) level 0, counter 1.
        let header = NodeHeader {
            btree: BtreeId::DELETED_INODES,
            level: 0,
            new_extent_overwrite: true,
            counter: 1,
            min_key: Bpos::MIN,
            max_key: Bpos::MAX,
            format: KeyFormat::FULL_POSITION,
        };
        let mut out = Vec::new();
        header.encode(&mut out);
        assert_eq!(out.len(), ENCRYPTED_HEADER.len());
        assert_eq!(out[..8], [0, 3, 0, 0, 1, 0, 0, 0]);
        let back = NodeHeader::decode(&mut Reader::new("btree_node", &out), FormatRules::Strict).unwrap();
        assert_eq!(back, header);
        out[3] = 1;
        assert!(NodeHeader::decode(&mut Reader::new("btree_node", &out), FormatRules::Strict).is_err());
    }

    #[test]
    fn magic_follows_the_uuid() {
        // spec 10 §2
        let uuid = uuid::uuid!("5338ba7a-d355-4b8c-a3d4-86afd381faf8");
        assert_eq!(node_magic(&uuid), 0x1c58_09ab_c324_3fa6);
    }

    #[test]
    fn bset_headers_round_trip_and_refuse_what_is_not_read() {
        // spec 30 §6, the second write.
        let bytes = [
            0xf1, 0x2c, 0x07, 0xea, 0xa3, 0x10, 0xd5, 0xf3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 0x0d, 4,
            0x0a, 0,
        ];
        let decode = |b: &[u8]| BsetHeader::decode(&mut Reader::new("bset", b));
        let h = decode(&bytes).unwrap();
        assert_eq!(h.seq, NodeSeq(0xf3d5_10a3_ea07_2cf1));
        assert_eq!((h.journal_seq, h.csum_type, h.offset, h.u64s), (Seq(1), 1, Sectors(8), 10));
        assert_eq!(h.version, Version::INODE_HAS_CHILD_SNAPSHOTS);
        let mut out = Vec::new();
        h.encode(&mut out);
        assert_eq!(out, bytes);
        for flag in [0x11, 0x21] {
            let mut bad = bytes;
            bad[16] = flag;
            assert!(matches!(decode(&bad), Err(DecodeError::Unsupported { .. })));
        }
    }
}
