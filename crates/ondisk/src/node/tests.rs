//! Whole nodes: the worked examples of the specification, what was written is what is read, and one damaged node per
//! kind of problem.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::testing::any_format;
use super::*;
use crate::bkey::{Key, KeyBuf};
use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::bytes::Reader;
use crate::checksum::ChecksumType;
use crate::crypto;
use crate::fsck_errors::FsckErrorId;
use crate::key_type::KeyType;
use crate::units::{NodeSeq, Sectors, Seq};
use crate::version::Version;

const SEQ: NodeSeq = NodeSeq(0xf3d5_10a3_ea07_2cf1);
const MAGIC: u64 = 0x9a5f_b5d1_a92f_75ce;
const NODE_BYTES: usize = 32 << 10;

fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u8> = s.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn root_header(btree: BtreeId) -> NodeHeader {
    NodeHeader {
        btree,
        level: 0,
        new_extent_overwrite: true,
        counter: 1,
        min_key: Bpos::MIN,
        max_key: Bpos::MAX,
        format: KeyFormat::FULL_POSITION,
    }
}

fn write_context(csum_type: ChecksumType, key: Option<&crypto::Key>) -> WriteContext<'_> {
    WriteContext { magic: MAGIC, block: Sectors(8), csum_type, key, version: Version::WRITE }
}

fn read_context<'a>(key: Option<&'a crypto::Key>, blacklisted: &'a dyn Fn(Seq) -> bool) -> ReadContext<'a> {
    ReadContext {
        magic: MAGIC,
        block: Sectors(8),
        key,
        version: Version::WRITE,
        version_min: Version::WRITE,
        blacklisted,
    }
}

fn expect_root(btree: BtreeId, sectors_written: u64) -> NodeExpectation {
    NodeExpectation {
        btree,
        level: 0,
        seq: Some(SEQ),
        sectors_written: Some(Sectors(sectors_written)),
        min_key: Some(Bpos::MIN),
        max_key: Bpos::MAX,
        range_updated: false,
    }
}

/// spec 30 §6: an empty snapshots root and its first appended bset.
#[test]
fn the_worked_node() {
    let ctx = write_context(ChecksumType::Crc32cNonzero, None);
    let first =
        BsetBuilder::first(root_header(BtreeId::SNAPSHOTS), SEQ).finish(Seq(0), &ctx).expect("no key needed");
    let mut want = hex("7807ecb8 000000000000000000000000 ce752fa9d1b55f9a 0901000001000000");
    want.resize(0x34, 0);
    want.resize(0x48, 0xff);
    want.resize(0x50, 0);
    want.extend(hex("0306404020000000"));
    want.resize(0x88, 0);
    want.extend(hex("f12c07eaa310d5f3 0000000000000000 01000000 0d04 0000"));
    want.resize(0x1000, 0);
    assert_eq!(first, want);

    let key = KeyBuf::new(KeyType::SNAPSHOT, Bpos::new(0, 0xffff_ffff, 0), 0, [5; 56]);
    let mut later = BsetBuilder::later(KeyFormat::FULL_POSITION, SEQ, Sectors(8));
    later.push(key.as_key());
    assert_eq!((later.u64s(), later.sectors(Sectors(8))), (10, Sectors(8)));
    let second = later.finish(Seq(1), &ctx).unwrap();
    let head = "f12c07eaa310d5f3 0100000000000000 01000800 0d04 0a00
                0a00160000000000 ffffffff00000000 0000000000000000";
    assert_eq!(second[0x10..0x40], hex(head));
    assert!(second[0x78..].iter().all(|&b| b == 0), "padding");

    let mut raw = [first, second].concat();
    let read =
        ReadNode::read(&mut raw, &expect_root(BtreeId::SNAPSHOTS, 16), &read_context(None, &|_| false));
    let read = read.unwrap();
    assert_eq!((read.bsets.len(), read.sectors), (2, Sectors(16)));
    let (node, problems) = read.merge(&raw);
    assert_eq!(problems, []);
    assert_eq!(node.keys.iter().collect::<Vec<_>>(), [key.as_key()]);
}

/// spec 10 §15.5: the empty inodes root of an encrypted image.
#[test]
fn the_worked_encrypted_node() {
    let key = hex("ecf654be777af5beb7144fde9701a034e236f541a7be4e27c2c2cefb0107fac4");
    let key = crypto::Key::new(key.try_into().unwrap());
    let ctx = WriteContext {
        magic: u64::from_le_bytes(hex("a63f24c3ab09581c").try_into().unwrap()),
        ..write_context(ChecksumType::ChaCha20Poly1305_128, Some(&key))
    };
    let seq = NodeSeq(u64::from_le_bytes(hex("ec4b9a6661ebbafb").try_into().unwrap()));
    let out = BsetBuilder::first(root_header(BtreeId::INODES), seq).finish(Seq(0), &ctx).unwrap();
    let want = "28b429136151836ad886b1ab3933254e a63f24c3ab09581c
                03f6ddcb9ebc0dfe3a74d83549448e2578b131ea205ba4b07cf74fedaab9a5f1
                b84fa394400132e179e49763f1e8e5293d80f78a7fc0791a95ef1da11ed0d364
                684ea60a2f013809dcb256a1176ff233dae4b53e4eafaa5fa08f0ac69de2fec9
                1001073d5dd76bcf6ced0034cac17a0a ec4b9a6661ebbafb 0000000000000000 04000000 0d04 0000";
    assert_eq!(out[..160], hex(want));
    assert!(write_context(ChecksumType::ChaCha20Poly1305_128, None).key.is_none());
    let locked = BsetBuilder::first(root_header(BtreeId::INODES), seq)
        .finish(Seq(0), &WriteContext { key: None, ..ctx });
    assert!(locked.is_err());
}

/// Offsets that are set or deleted in one write.
type Batch = BTreeMap<u64, Option<u8>>;

fn xattr(offset: u64, byte: u8) -> KeyBuf {
    KeyBuf::new(KeyType::XATTR, Bpos::new(7, offset, u32::MAX), 0, vec![byte; 8 * usize::from(byte % 4)])
}

/// A node that got these batches written one by one, and the keys that are left.
fn node_of(format: &KeyFormat, batches: &[Batch], ctx: &WriteContext<'_>) -> (Vec<u8>, Vec<KeyBuf>) {
    let mut raw = Vec::new();
    let mut live = BTreeMap::new();
    for (i, batch) in batches.iter().enumerate() {
        let header = NodeHeader { format: format.clone(), ..root_header(BtreeId::XATTRS) };
        let mut bset = match i {
            0 => BsetBuilder::first(header, SEQ),
            _ => BsetBuilder::later(format.clone(), SEQ, Sectors(raw.len() as u64 / 512)),
        };
        for (&offset, &change) in batch {
            let key = change.map(|byte| xattr(offset, byte));
            match &key {
                Some(key) => bset.push(key.as_key()),
                None if i > 0 => bset.push_tombstone(xattr(offset, 0).k.pos),
                None => {}
            }
            live.insert(offset, key);
        }
        if i == 0 || bset.u64s() > 0 {
            raw.extend(bset.finish(Seq(i as u64), ctx).unwrap());
        }
    }
    (raw, live.into_values().flatten().collect())
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let change = proptest::option::weighted(0.7, any::<u8>());
    proptest::collection::vec(proptest::collection::btree_map(0..60u64, change, 0..25), 1..6)
}

fn any_cipher() -> impl Strategy<Value = ChecksumType> {
    prop::sample::select(ChecksumType::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_was_written_is_read(format in any_format(), batches in batches(), ty in any_cipher()) {
        let key = crypto::Key::new([9; 32]);
        let (raw, live) = node_of(&format, &batches, &write_context(ty, Some(&key)));
        let ctx = read_context(Some(&key), &|_| false);
        let want = expect_root(BtreeId::XATTRS, raw.len() as u64 / 512);
        for expect in [want, NodeExpectation { sectors_written: None, ..want }] {
            let mut raw = raw.clone();
            raw.resize(NODE_BYTES, 0);
            let read = ReadNode::read(&mut raw, &expect, &ctx).unwrap();
            let (node, problems) = read.merge(&raw);
            prop_assert_eq!(&problems, &[]);
            prop_assert_eq!(node.keys.iter().map(|k| k.to_owned()).collect::<Vec<_>>(), live.clone());
        }
        if ty.is_encryption() {
            let locked = ReadNode::read(&mut raw.clone(), &want, &read_context(None, &|_| false));
            prop_assert_eq!(locked.unwrap_err(), BadNode::Locked);
        }
    }

    #[test]
    fn a_rewritten_node_holds_the_same_keys(batches in batches()) {
        let ctx = write_context(ChecksumType::Xxhash, None);
        let (mut raw, live) = node_of(&KeyFormat::FULL_POSITION, &batches, &ctx);
        let want = expect_root(BtreeId::XATTRS, raw.len() as u64 / 512);
        let none = |_| false;
        let (node, _) =
            ReadNode::read(&mut raw, &want, &read_context(None, &none)).unwrap().merge(&raw);
        for format in [node.header.format.clone(), node.keys.format_for_rewrite(Bpos::MIN, Bpos::MAX, NODE_BYTES)] {
            let mut bset = BsetBuilder::first(NodeHeader { format, ..node.header.clone() }, SEQ);
            bset.push_all(&node.keys);
            let mut raw = bset.finish(Seq(0), &ctx).unwrap();
            let want = expect_root(BtreeId::XATTRS, raw.len() as u64 / 512);
            let (again, problems) =
                ReadNode::read(&mut raw, &want, &read_context(None, &none)).unwrap().merge(&raw);
            prop_assert_eq!(problems, vec![]);
            prop_assert_eq!(again.keys.iter().map(|k| k.to_owned()).collect::<Vec<_>>(), live.clone());
        }
    }

    #[test]
    fn damaged_nodes_never_panic(
        batches in batches(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        len in any::<prop::sample::Index>(),
        overflow in any::<bool>(),
    ) {
        let (raw, _) = node_of(&KeyFormat::FULL_POSITION, &batches, &write_context(ChecksumType::None, None));
        let mut raw = raw[..raw.len() - len.index(300)].to_vec();
        // Header and key bytes near the start of each write are where damage matters.
        for (at, v) in damage {
            let at = at.index(raw.len() / 16);
            let at = at % 0x400 + (at / 0x400) * 0x1000;
            if at < raw.len() { raw[at] = v }
        }
        let mut ctx = read_context(None, &|seq| seq.0 == 2);
        if overflow { ctx.version_min = Version(9) }
        for sectors_written in [None, Some(Sectors(16))] {
            let mut raw = raw.clone();
            let want = NodeExpectation { sectors_written, ..expect_root(BtreeId::XATTRS, 8) };
            if let Ok(read) = ReadNode::read(&mut raw, &want, &ctx) {
                let (node, _) = read.merge(&raw);
                prop_assert!(node.keys.iter().map(|k| k.k.pos).is_sorted());
            }
        }
    }
}

/// A node of three writes: keys 1, 2, 3; then 2 again and 4; then 1 deleted.
fn sample() -> Vec<u8> {
    let batches = [
        Batch::from([(1, Some(1)), (2, Some(1)), (3, Some(1))]),
        Batch::from([(2, Some(2)), (4, Some(2))]),
        Batch::from([(1, None)]),
    ];
    node_of(&KeyFormat::FULL_POSITION, &batches, &write_context(ChecksumType::Crc64Nonzero, None)).0
}

struct Outcome {
    ids: Vec<FsckErrorId>,
    damage: bool,
    offsets: Vec<u64>,
}

fn outcome(raw: &[u8], want: &NodeExpectation, ctx: &ReadContext<'_>) -> Outcome {
    let mut raw = raw.to_vec();
    let (node, problems) = ReadNode::read(&mut raw, want, ctx).expect("readable").merge(&raw);
    Outcome {
        ids: problems.iter().map(NodeProblem::id).collect(),
        damage: problems.iter().any(NodeProblem::is_damage),
        offsets: node.keys.iter().map(|k: Key<'_>| k.k.pos.offset).collect(),
    }
}

/// Fills in the checksum of the write at byte `start` again after `change`.
fn changed(start: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut raw = sample();
    change(&mut raw[start..]);
    let head = if start == 0 { 136 } else { 16 };
    let bset = BsetHeader::decode(&mut Reader::new("bset", &raw[start + head..])).unwrap();
    let end = start + head + 24 + usize::from(bset.u64s) * 8;
    if let (Some(ty), true) = (ChecksumType::from_raw(bset.csum_type), end <= raw.len()) {
        let csum = crate::checksum::compute(ty, None, &raw[start + 16..end]).unwrap();
        raw[start..start + 16].copy_from_slice(&csum.to_bytes());
    }
    raw
}

#[test]
fn every_problem_is_found_and_the_rest_is_offered() {
    let ctx = read_context(None, &|_| false);
    let want = expect_root(BtreeId::XATTRS, 24);
    let check = |raw: &[u8], want: &NodeExpectation, id: FsckErrorId, damage: bool, offsets: &[u64]| {
        let got = outcome(raw, want, &ctx);
        assert_eq!((got.ids, got.damage), (vec![id], damage), "{id:?}");
        assert_eq!(got.offsets, offsets, "{id:?}");
    };
    let clean = outcome(&sample(), &want, &ctx);
    assert_eq!((clean.ids, clean.offsets), (vec![], vec![2, 3, 4]));

    let mut bad_csum = sample();
    bad_csum[0x1000] ^= 1;
    check(&bad_csum, &want, FsckErrorId::BSET_BAD_CSUM, true, &[2, 3, 4]);
    let no_such_type = changed(0x1000, |w| w[32] = 9);
    check(&no_such_type, &want, FsckErrorId::BSET_UNKNOWN_CSUM, true, &[2, 3, 4]);
    let elsewhere = changed(0x1000, |w| w[34] = 16);
    check(&elsewhere, &want, FsckErrorId::BSET_WRONG_SECTOR_OFFSET, true, &[2, 3, 4]);
    let empty = changed(0x2000, |w| w[38] = 0);
    check(&empty, &want, FsckErrorId::BSET_EMPTY, true, &[1, 2, 3, 4]);
    let old = changed(0x1000, |w| w[36..38].copy_from_slice(&[12, 4]));
    check(&old, &want, FsckErrorId::BTREE_NODE_BSET_OLDER_THAN_SB_MIN, false, &[2, 3, 4]);
    let bad_key = changed(0x1000, |w| w[41] = 9);
    check(&bad_key, &want, FsckErrorId::BTREE_NODE_BKEY_BAD_FORMAT, true, &[2, 3, 4]);

    let more = NodeExpectation { sectors_written: Some(Sectors(32)), ..want };
    let mut longer = sample();
    longer.resize(NODE_BYTES, 0);
    check(&longer, &more, FsckErrorId::BTREE_NODE_DATA_MISSING, true, &[2, 3, 4]);
    let less = NodeExpectation { sectors_written: Some(Sectors(16)), ..want };
    let behind = outcome(&sample(), &less, &ctx);
    assert_eq!((behind.ids, behind.offsets), (vec![], vec![1, 2, 3, 4]), "what lies behind is ignored");

    let overlong = changed(0x2000, |w| w[39] = 9);
    let got = outcome(&overlong, &want, &ctx);
    let ids = [FsckErrorId::BSET_PAST_END_OF_BTREE_NODE, FsckErrorId::BTREE_NODE_DATA_MISSING];
    assert_eq!((got.ids, got.offsets), (ids.to_vec(), vec![1, 2, 3, 4]));

    let unsure = NodeExpectation { sectors_written: None, ..want };
    let mut stray = sample();
    stray.resize(NODE_BYTES, 0);
    stray.copy_within(0x2000..0x3000, 0x5000);
    check(&stray, &unsure, FsckErrorId::BTREE_NODE_BSET_AFTER_END, false, &[2, 3, 4]);
}

#[test]
fn blacklisted_bsets_never_happened() {
    let want = expect_root(BtreeId::XATTRS, 24);
    let unsure = NodeExpectation { sectors_written: None, ..want };
    let got = outcome(&sample(), &want, &read_context(None, &|seq| seq == Seq(2)));
    assert_eq!(got.ids, [FsckErrorId::FIRST_BSET_BLACKLISTED_JOURNAL_SEQ]);
    assert_eq!((got.offsets, got.damage), (vec![1, 2, 3, 4], false));
    let got = outcome(&sample(), &unsure, &read_context(None, &|seq| seq == Seq(2)));
    assert_eq!((got.ids, got.offsets), (vec![], vec![1, 2, 3, 4]));
    let got = outcome(&sample(), &want, &read_context(None, &|seq| seq == Seq(0)));
    assert_eq!(got.ids, [FsckErrorId::BSET_BLACKLISTED_JOURNAL_SEQ]);
    assert_eq!(got.offsets, [2, 3, 4]);
}

#[test]
fn a_pointer_may_narrow_its_node() {
    let pos = |offset| Bpos::new(7, offset, 0);
    let narrow = NodeExpectation {
        min_key: Some(pos(2)),
        max_key: pos(4),
        range_updated: true,
        ..expect_root(BtreeId::XATTRS, 24)
    };
    let got = outcome(&sample(), &narrow, &read_context(None, &|_| false));
    assert_eq!((got.ids, got.offsets), (vec![], vec![2, 3]));
}

#[test]
fn what_is_not_the_node_is_refused() {
    let want = expect_root(BtreeId::XATTRS, 24);
    let none = |_| false;
    let refused = |raw: &[u8], want: &NodeExpectation| {
        ReadNode::read(&mut raw.to_vec(), want, &read_context(None, &none)).unwrap_err().id().expect("an id")
    };
    assert_eq!(refused(&sample()[..100], &want), FsckErrorId::BTREE_NODE_READ_ERROR);
    assert_eq!(refused(&changed(0, |w| w[16] ^= 1), &want), FsckErrorId::BTREE_NODE_BAD_MAGIC);
    let other = NodeExpectation { seq: Some(NodeSeq(1)), ..want };
    assert_eq!(refused(&sample(), &other), FsckErrorId::BTREE_NODE_BAD_SEQ);
    let other = NodeExpectation { btree: BtreeId::INODES, ..want };
    assert_eq!(refused(&sample(), &other), FsckErrorId::BTREE_NODE_BAD_BTREE);
    let other = NodeExpectation { level: 1, ..want };
    assert_eq!(refused(&sample(), &other), FsckErrorId::BTREE_NODE_BAD_LEVEL);
    let other = NodeExpectation { min_key: Some(Bpos::new(1, 0, 0)), ..want };
    assert_eq!(refused(&sample(), &other), FsckErrorId::BTREE_NODE_BAD_MIN_KEY);
    let other = NodeExpectation { max_key: Bpos::POS_MAX, ..want };
    assert_eq!(refused(&sample(), &other), FsckErrorId::BTREE_NODE_BAD_MAX_KEY);
    assert_eq!(refused(&changed(0, |w| w[80] = 4), &want), FsckErrorId::BTREE_NODE_BAD_FORMAT);
    let foreign_major = changed(0, |w| w[157] = 8);
    assert_eq!(refused(&foreign_major, &want), FsckErrorId::BTREE_NODE_UNSUPPORTED_VERSION);
    let mut big_endian = sample();
    big_endian[152] |= 0x10;
    assert_eq!(refused(&big_endian, &want), FsckErrorId::BTREE_NODE_UNSUPPORTED_VERSION);
    let overlong = changed(0, |w| w[159] = 0xff);
    assert_eq!(refused(&overlong, &want), FsckErrorId::BSET_PAST_END_OF_BTREE_NODE);
    let old_extents = changed(0, |w| w[24..26].copy_from_slice(&[0, 0]));
    let want = NodeExpectation { btree: BtreeId::EXTENTS, ..want };
    assert_eq!(refused(&old_extents, &want), FsckErrorId::BTREE_NODE_UNSUPPORTED_VERSION);
}
