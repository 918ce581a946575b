//! Every b-tree node of every golden image, live or superseded: read, taken apart, put together again: the same bytes.
//!
//! Clean images are also walked from their roots: there every node must read without a complaint and the children
//! of an interior node must tile it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use frazil_ondisk::bytes::Reader;
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::crypto::{Crypt, Key as CryptKey, Nonce};
use frazil_ondisk::node::{
    BsetBuilder, BsetHeader, DecodedNode, FormatBuilder, FormatRules, NodeExpectation, NodeHeader,
    NodeProblem, NodePtr, RawKey, ReadContext, ReadNode, WriteContext, node_magic,
};
use frazil_ondisk::units::Sectors;
use frazil_ondisk::version::Version;
use frazil_ondisk::{BtreeId, Key, KeyBuf};
use frazil_testing::golden::{self, GoldenImage};
use uuid::Uuid;

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |acc, &b| acc << 8 | u64::from(b))
}

/// What a reader of nodes needs of a superblock (spec 10 §4), and the devices.
struct Volume {
    devices: Vec<Vec<u8>>,
    magic: u64,
    block: Sectors,
    node_bytes: usize,
    version: Version,
    version_min: Version,
    key: Option<CryptKey>,
    /// The roots, if the volume is clean.
    roots: Vec<(BtreeId, u8, KeyBuf)>,
}

/// The superblock's sections: type and payload.
fn sections(sb: &[u8]) -> Vec<(u64, &[u8])> {
    let mut rest = &sb[752..752 + 8 * le(&sb[124..128]) as usize];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (this, next) = rest.split_at(8 * le(&rest[..4]) as usize);
        out.push((le(&this[4..8]), &this[8..]));
        rest = next;
    }
    out
}

/// The `btree_root` entries of a clean section (spec 10 §9.7).
fn roots(clean: &[u8]) -> Vec<(BtreeId, u8, KeyBuf)> {
    let mut rest = &clean[16..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (this, next) = rest.split_at(8 + 8 * le(&rest[..2]) as usize);
        if this[4] == 1 {
            let key = Key::decode(&mut Reader::new("bkey", &this[8..])).unwrap();
            out.push((BtreeId(this[2]), this[3], key.to_owned()));
        }
        rest = next;
    }
    out
}

fn open(image: &GoldenImage) -> Volume {
    let devices = image.bytes();
    let sb = &devices[0][8 * 512..];
    let uuid = Uuid::from_slice(&sb[40..56]).unwrap();
    let flags = le(&sb[144..152]);
    let section = |ty| sections(sb).into_iter().find(|s| s.0 == ty).map(|s| s.1);
    let key = section(2)
        .map(|payload| Crypt::decode(payload).unwrap().unlock(image.passphrase_bytes(), &uuid).unwrap());
    let roots = match section(6) {
        Some(clean) if flags & 2 != 0 => roots(clean),
        _ => Vec::new(),
    };
    Volume {
        magic: node_magic(&uuid),
        block: Sectors(le(&sb[120..122])),
        node_bytes: 512 * (flags >> 12 & 0xffff) as usize,
        version: Version(le(&sb[16..18]) as u16),
        version_min: Version(le(&sb[18..20]) as u16),
        key,
        roots,
        devices,
    }
}

impl Volume {
    fn read_context(&self) -> ReadContext<'_> {
        ReadContext {
            magic: self.magic,
            block: self.block,
            key: self.key.as_ref(),
            version: self.version,
            version_min: self.version_min,
            blacklisted: &|_| false,
        }
    }

    /// Walks every b-tree from its root and returns how many nodes and keys it found.
    fn walk(&self) -> (usize, usize) {
        let mut todo = self.roots.clone();
        let (mut nodes, mut keys) = (0, 0);
        while let Some((btree, level, key)) = todo.pop() {
            let ptr = NodePtr::decode(btree, level, key.as_key()).unwrap();
            for p in ptr.ptrs() {
                let start = 512 * p.offset.0 as usize;
                let mut raw = self.devices[usize::from(p.dev.0)][start..start + self.node_bytes].to_vec();
                let read = ReadNode::read(&mut raw, &ptr.expect, &self.read_context()).unwrap();
                let (node, problems) = read.merge(&raw);
                assert_eq!(problems, [], "{btree} level {level} {:?}", node.header.min_key);
                check_search(&node);
                nodes += 1;
                keys += node.keys.len();
                if level > 0 && p == ptr.ptrs().next().unwrap() {
                    todo.extend(children(&node).into_iter().map(|k| (btree, level - 1, k)));
                }
            }
        }
        (nodes, keys)
    }
}

/// Pointers of an interior node, checked to tile it (spec 30 §8.2).
fn children(node: &DecodedNode) -> Vec<KeyBuf> {
    let mut min = Some(node.header.min_key);
    for key in node.keys.iter() {
        let child = NodePtr::decode(node.header.btree, node.header.level - 1, key).unwrap();
        assert_eq!(child.expect.min_key, min);
        assert_eq!(key.value[..8], [0; 8], "mem_ptr");
        min = key.k.pos.successor();
    }
    assert_eq!(min, node.header.max_key.successor());
    node.keys.iter().map(|k| k.to_owned()).collect()
}

fn check_search(node: &DecodedNode) {
    for i in 0..node.keys.len() {
        let pos = node.keys.pos(i);
        assert_eq!(node.keys.find(pos), Some(i));
        if let Some(next) = pos.successor() {
            assert_eq!(node.keys.lower_bound(next), i + 1);
        }
    }
}

/// What the node at the start of `area` says about itself; its pointer may not exist any more.
fn own_expectation(area: &[u8], v: &Volume) -> Option<NodeExpectation> {
    let bset = BsetHeader::decode(&mut Reader::new("bset", &area[136..])).ok()?;
    let mut head = area[24..136].to_vec();
    if ChecksumType::from_raw(bset.csum_type)?.is_encryption() {
        v.key.as_ref()?.apply(Nonce::bset(0, bset.seq.0, bset.journal_seq.0), &mut head);
    }
    let header = NodeHeader::decode(&mut Reader::new("btree_node", &head), FormatRules::Strict).ok()?;
    Some(NodeExpectation {
        btree: header.btree,
        level: header.level,
        seq: Some(bset.seq),
        sectors_written: None,
        min_key: Some(header.min_key),
        max_key: header.max_key,
        range_updated: false,
    })
}

#[derive(Default, Debug)]
struct Rebuilt {
    nodes: usize,
    writes: usize,
    keys: usize,
    versions: BTreeSet<u16>,
}

/// Reads the node at the start of `area` and writes it again.
fn rebuild(area: &[u8], want: &NodeExpectation, v: &Volume, done: &mut Rebuilt) {
    let mut raw = area.to_vec();
    let Ok(read) = ReadNode::read(&mut raw, want, &v.read_context()) else { return };
    // A bucket that was used again, or a write that was interrupted: the keys of such a write are nobody's.
    let torn: Vec<Sectors> = read
        .problems
        .iter()
        .filter_map(|p| match p {
            NodeProblem::Checksum { at, .. } => Some(*at),
            NodeProblem::PastEnd { .. } | NodeProblem::VersionOld { .. } | NodeProblem::AfterEnd { .. } => {
                None
            }
            other => panic!("{other}"),
        })
        .collect();
    done.nodes += 1;
    let header = &read.header;
    for bset in read.bsets.iter().filter(|b| !torn.contains(&b.at())) {
        let (mut builder, mut rule) = match bset.start {
            0 => (BsetBuilder::first(header.clone(), read.seq), FormatBuilder::new()),
            _ => (BsetBuilder::later(header.format.clone(), read.seq, bset.at()), FormatBuilder::new()),
        };
        rule.add_pos(header.min_key);
        rule.add_pos(header.max_key);
        let mut keys = &raw[bset.keys()];
        while !keys.is_empty() {
            let stored = RawKey::parse(&header.format, keys).unwrap();
            let key = header.format.unpack(stored);
            rule.add_key(&key.k);
            builder.push(key);
            keys = &keys[stored.bytes().len()..];
            done.keys += 1;
        }
        let ctx = WriteContext {
            magic: v.magic,
            block: v.block,
            csum_type: ChecksumType::from_raw(bset.header.csum_type).unwrap(),
            key: v.key.as_ref(),
            version: bset.header.version,
        };
        let again = builder.finish(bset.header.journal_seq, &ctx).unwrap();
        let stored = &area[bset.start..bset.start + again.len()];
        assert!(again == stored, "{} level {} write at sector {}", header.btree, header.level, bset.at());
        if bset.start == 0 {
            check_format(header, bset.header.version, &rule);
        }
        done.writes += 1;
        done.versions.insert(bset.header.version.0);
    }
}

/// The format of a node is that of the rule (spec 30 §4.4). Programs of 1.39 leave sizes no room to grow.
fn check_format(header: &NodeHeader, version: Version, rule: &FormatBuilder) {
    let (found, want) = (&header.format, rule.build());
    if version <= Version::INODE_HAS_CHILD_SNAPSHOTS {
        assert_eq!(*found, want, "{} level {}", header.btree, header.level);
    } else {
        assert_eq!(found.offsets(), want.offsets());
        assert_eq!(found.bits()[..3], want.bits()[..3]);
        assert!(found.bits()[3] <= want.bits()[3]);
    }
}

#[test]
fn every_node_is_rebuilt() {
    let mut done = Rebuilt::default();
    for image in golden::all() {
        let v = open(&image);
        let (nodes, keys) = v.walk();
        let before = done.nodes;
        for device in &v.devices {
            let step = 512 * v.block.0 as usize;
            for start in (0..device.len().saturating_sub(v.node_bytes)).step_by(step) {
                let area = &device[start..start + v.node_bytes];
                if le(&area[16..24]) == v.magic
                    && let Some(want) = own_expectation(area, &v)
                {
                    rebuild(area, &want, &v, &mut done);
                }
            }
        }
        assert!(done.nodes - before >= nodes, "{}: the scan finds at least the live nodes", image.name);
        println!("{}: {nodes} live nodes, {} in all, {keys} live keys", image.name, done.nodes - before);
    }
    println!("{done:?}");
    assert!(done.nodes > 500 && done.writes > 2000 && done.keys > 100_000, "{done:?}");
    assert!(done.versions.len() > 1, "several versions: {:?}", done.versions);
}
