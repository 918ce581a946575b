//! Keys and b-tree nodes.

use frazil_ondisk::bytes::Reader;
use frazil_ondisk::node::{
    FormatRules, KeyFormat, KeyRules, NodeExpectation, NodeHeader, RawKey, ReadContext, ReadNode,
};
use frazil_ondisk::units::Sectors;
use frazil_ondisk::version::Version;
use frazil_ondisk::{Key, varint};

/// Unpacked keys, one behind the other.
pub(super) fn bkey(bytes: &[u8]) {
    let mut r = Reader::new("bkey", bytes);
    while let Ok(key) = Key::decode(&mut r) {
        let mut encoded = Vec::new();
        key.encode(&mut encoded);
        let again = Key::decode(&mut Reader::new("bkey", &encoded));
        assert!(again == Ok(key) && encoded.len() == key.u64s() * 8);
        assert!(key.k.start_offset().is_none_or(|start| start <= key.k.pos.offset));
    }
    let mut r = Reader::new("varint", bytes);
    while let Ok(value) = varint::decode(&mut r) {
        let mut encoded = Vec::new();
        varint::encode(value, &mut encoded);
        assert_eq!(varint::decode(&mut Reader::new("varint", &encoded)), Ok(value));
    }
    let mut r = Reader::new("varint", bytes);
    while varint::decode_old(&mut r).is_ok() {}
}

/// A key format (56 bytes) and keys packed with it.
pub(super) fn packed_keys(bytes: &[u8]) {
    let mut r = Reader::new("bkey_format", bytes);
    let Ok(format) = KeyFormat::decode(&mut r, FormatRules::Strict) else { return };
    let mut encoded = Vec::new();
    format.encode(&mut encoded);
    assert_eq!(encoded, bytes[..KeyFormat::BYTES]);

    let mut rest = r.rest();
    while let Ok(raw) = RawKey::parse(&format, rest) {
        let key = format.unpack(raw);
        assert_eq!(format.unpack_pos(raw), key.k.pos);
        encoded.clear();
        format.encode_key(key, &mut encoded);
        let again = RawKey::parse(&format, &encoded).expect("what was encoded is a key");
        assert!(format.unpack(again) == key && again.bytes().len() == encoded.len());
        assert_eq!(again.is_packed(), format.packs(&key.k));
        encoded.clear();
        format.encode_tombstone(key.k.pos, &mut encoded);
        let tombstone = RawKey::parse(&format, &encoded).expect("what was encoded is a key");
        assert_eq!(
            (format.unpack_pos(tombstone), tombstone.ty()),
            (key.k.pos, frazil_ondisk::KeyType::DELETED)
        );
        rest = &rest[raw.bytes().len()..];
    }
}

/// A byte of switches (what the pointer to the node says, what filesystem it is in) and the bytes of a b-tree node.
pub(super) fn node(bytes: &[u8]) {
    let Some((&switches, raw)) = bytes.split_first() else { return };
    let on = |bit: u32| switches >> bit & 1 == 1;
    let rules = if on(0) { FormatRules::AllowOverflow } else { FormatRules::Strict };
    let Some(Ok(header)) =
        raw.get(24..136).map(|bytes| NodeHeader::decode(&mut Reader::new("btree_node", bytes), rules))
    else {
        return;
    };
    let want = NodeExpectation {
        btree: header.btree,
        level: header.level,
        seq: None,
        sectors_written: on(1).then_some(Sectors(raw.len() as u64 / 512)),
        min_key: on(2).then_some(header.min_key),
        max_key: header.max_key,
        range_updated: on(3),
    };
    let context = ReadContext {
        magic: u64::from_le_bytes(raw[16..24].try_into().expect("8 bytes")),
        block: Sectors(if on(4) { 1 } else { 8 }),
        key: None,
        version: Version::READ_MAX,
        version_min: Version(if on(0) { 11 } else { 1024 }),
        blacklisted: &|seq| on(5) && seq.0 % 2 == 1,
    };
    let mut raw = raw.to_vec();
    let Ok(found) = ReadNode::read(&mut raw, &want, &context) else { return };
    for bset in &found.bsets {
        assert!(bset.end <= raw.len() && bset.keys().end == bset.end);
    }
    let (node, _) = found.merge(&raw);
    let (keys, rules) = (&node.keys, KeyRules { btree: header.btree, level: header.level });
    let mut last = None;
    for (index, key) in keys.iter().enumerate() {
        assert!(last < Some(key.k.pos), "keys are not in order");
        assert!(
            node.header.min_key <= key.k.pos && key.k.pos <= node.header.max_key,
            "a key is out of bounds"
        );
        assert_eq!(rules.check(&key.k), Ok(()));
        last = Some(key.k.pos);
        // A sample is enough to notice a search that goes wrong.
        if index % 97 == 0 {
            assert_eq!((keys.find(key.k.pos), keys.lower_bound(key.k.pos)), (Some(index), index));
        }
    }
}
