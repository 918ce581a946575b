//! Real structures to start from, cut out of golden images.
//!
//! Superblocks are where the format says. Journal entries and nodes are found by their magic numbers, at every sector,
//! without following any pointer, so that what finds them needs none of the code under test but the magic numbers; that
//! brings up stale ones too, which are as good. Of each sort a few are kept, the smallest ones.

use std::collections::BTreeMap;

use frazil_ondisk::Key;
use frazil_ondisk::bytes::Reader;
use frazil_ondisk::jset::{JSET_HEADER_BYTES, JsetHeader, jset_magic};
use frazil_ondisk::node::{BsetHeader, ENTRY_HEADER_BYTES, KeyFormat, NODE_HEADER_BYTES, RawKey, node_magic};
use frazil_ondisk::superblock::superblock_bytes;
use frazil_testing::golden;
use uuid::Uuid;

/// Images that have every kind of structure between them, old and new.
const IMAGES: [&str; 14] = [
    "02-small-tree",
    "02-small-tree-bs512",
    "08-crash-create",
    "08-crash-twice",
    "09-multi-tiered",
    "10-snapshots",
    "11-reflink",
    "12-fallocate-bs512",
    "13-nocow-inline",
    "14-usrquota",
    "18-newer-1.20-tree",
    "18-newer-1.39-ec",
    "18-newer-1.39-reconcile",
    "18-newer-1.39-casefold",
];

/// Where the first superblock starts on every device, bytes.
const SUPERBLOCK_BYTE: usize = 4096;
/// Unit in which structures are looked for.
const SECTOR: usize = 512;
/// How many journal entries are kept per image.
const JSETS_PER_IMAGE: usize = 8;
/// How many keys of a type are kept per device.
const KEYS_PER_TYPE: usize = 3;
/// Longest node that is kept, bytes.
const NODE_BYTES_MAX: usize = 16 << 10;
/// Longest piece of a bucket that is kept, bytes.
const BUCKET_BYTES_MAX: usize = 16 << 10;

/// Inputs for the target called `name`.
///
/// # Panics
/// If there is no such target, or there are no images.
pub fn of_target(name: &str) -> Vec<Vec<u8>> {
    let devices = || IMAGES.iter().flat_map(|name| golden::image(name).bytes());
    let seeds: Vec<Vec<u8>> = match name {
        "superblock" => devices().filter_map(|device| superblock(&device).map(<[u8]>::to_vec)).collect(),
        "jset" => devices().flat_map(|device| jsets(&device)).collect(),
        "jset_list" => {
            let list = |jset: Vec<u8>| jset[JSET_HEADER_BYTES..].to_vec();
            devices().flat_map(|device| jsets(&device)).map(list).collect()
        }
        "journal_bucket" => devices().filter_map(|device| bucket(&device)).collect(),
        "node" => {
            devices().flat_map(|device| nodes(&device)).map(|node| [&[0], &node[..]].concat()).collect()
        }
        "packed_keys" => {
            devices().flat_map(|device| nodes(&device)).map(|node| format_and_keys(&node)).collect()
        }
        "value" => devices().flat_map(|device| one_of_each_type(&device)).collect(),
        "bkey" => devices().flat_map(|device| nodes(&device)).map(|node| unpacked(&node)).collect(),
        _ => panic!("there are no inputs for a target called {name}"),
    };
    assert!(seeds.len() >= 10, "only {} inputs for {name}", seeds.len());
    seeds
}

fn superblock(device: &[u8]) -> Option<&[u8]> {
    let start = device.get(SUPERBLOCK_BYTE..)?;
    start.get(..superblock_bytes(start).ok()?)
}

/// Byte offsets at which a structure with this magic number (in its bytes 16 to 23) starts.
fn sectors_with(device: &[u8], magic: impl Fn(&Uuid) -> u64) -> impl Iterator<Item = usize> {
    let uuid = device.get(SUPERBLOCK_BYTE + 40..SUPERBLOCK_BYTE + 56).map(Uuid::from_slice);
    let magic = uuid.and_then(Result::ok).map(|uuid| magic(&uuid).to_le_bytes());
    let has_magic = move |at: &usize| device.get(at + 16..at + 24) == magic.as_ref().map(|magic| &magic[..]);
    (0..device.len()).step_by(SECTOR).filter(has_magic)
}

/// Length of the journal entry at the start of `bytes`, if it is all there.
fn jset_len(bytes: &[u8]) -> Option<usize> {
    let len = usize::try_from(JsetHeader::decode(bytes).ok()?.bytes()).ok()?;
    (len <= bytes.len()).then_some(len)
}

/// The smallest journal entries that are not empty, and the largest that fits a small input.
fn jsets(device: &[u8]) -> Vec<Vec<u8>> {
    let starts = sectors_with(device, jset_magic);
    let mut found: Vec<&[u8]> = starts
        .filter_map(|at| device[at..].get(..jset_len(&device[at..])?))
        .filter(|jset| jset.len() > 100)
        .collect();
    found.retain(|jset| jset.len() <= BUCKET_BYTES_MAX);
    found.sort_by_key(|jset| jset.len());
    found.dedup_by_key(|jset| jset.len());
    let spread = found.len().div_ceil(JSETS_PER_IMAGE).max(1);
    found.iter().rev().step_by(spread).map(|jset| jset.to_vec()).collect()
}

/// The beginning of the first bucket of the journal: several entries, one behind the other.
fn bucket(device: &[u8]) -> Option<Vec<u8>> {
    let start = sectors_with(device, jset_magic).next()?;
    device.get(start..start + BUCKET_BYTES_MAX).map(<[u8]>::to_vec)
}

/// The smallest node of each b-tree and level that has keys, cut behind its last write.
fn nodes(device: &[u8]) -> Vec<Vec<u8>> {
    let mut smallest: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for at in sectors_with(device, node_magic) {
        let area = &device[at..device.len().min(at + NODE_BYTES_MAX)];
        let Some(node) = written(area).filter(|node| node.len() > NODE_HEADER_BYTES + 64) else { continue };
        let btree_and_level = word(node, 24) & 0x01ff_feff;
        let kept = smallest.entry(btree_and_level).or_insert(node);
        if node.len() < kept.len() {
            *kept = node;
        }
    }
    smallest.into_values().map(<[u8]>::to_vec).collect()
}

/// The part of a node's area that its writes cover, rounded up to sectors.
fn written(area: &[u8]) -> Option<&[u8]> {
    let node_seq = word(area, NODE_HEADER_BYTES - BsetHeader::BYTES);
    let mut end = (NODE_HEADER_BYTES + keys_len(area, NODE_HEADER_BYTES)?).next_multiple_of(SECTOR);
    // Blocks are one or several sectors long: the next write may start at any sector of the following few.
    while let Some(start) = (end..end + 8 * SECTOR)
        .step_by(SECTOR)
        .find(|start| area.len() > start + ENTRY_HEADER_BYTES && word(area, start + 16) == node_seq)
    {
        end = (start + ENTRY_HEADER_BYTES + keys_len(area, start + ENTRY_HEADER_BYTES)?)
            .next_multiple_of(SECTOR);
    }
    area.get(..end)
}

/// Length of the keys of the write whose keys start at `keys`.
fn keys_len(area: &[u8], keys: usize) -> Option<usize> {
    let header = area.get(keys - BsetHeader::BYTES..keys)?;
    Some(8 * usize::from(BsetHeader::decode(&mut Reader::new("bset", header)).ok()?.u64s))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Format and packed keys of a node's first write.
fn format_and_keys(node: &[u8]) -> Vec<u8> {
    let end = NODE_HEADER_BYTES + keys_len(node, NODE_HEADER_BYTES).unwrap_or_default();
    [&node[80..80 + KeyFormat::BYTES], &node[NODE_HEADER_BYTES..end.min(node.len())]].concat()
}

/// The keys of a node's first write, unpacked.
fn unpacked(node: &[u8]) -> Vec<u8> {
    let packed = format_and_keys(node);
    let mut r = Reader::new("bkey_format", &packed);
    let mut out = Vec::new();
    if let Ok(format) = KeyFormat::decode(&mut r, frazil_ondisk::node::FormatRules::AllowOverflow) {
        let mut rest = r.rest();
        while let Ok(raw) = RawKey::parse(&format, rest) {
            format.unpack(raw).encode(&mut out);
            rest = &rest[raw.bytes().len()..];
        }
    }
    out
}

/// For each key type, the first keys of different sizes.
fn one_of_each_type(device: &[u8]) -> Vec<Vec<u8>> {
    let mut found = BTreeMap::new();
    for at in sectors_with(device, node_magic) {
        let area = &device[at..device.len().min(at + NODE_BYTES_MAX)];
        let keys = unpacked(area);
        let mut r = Reader::new("bkey", &keys);
        while let Ok(key) = Key::decode(&mut r) {
            found.entry((key.k.ty.0, key.value.len())).or_insert_with(|| {
                let mut encoded = Vec::new();
                key.encode(&mut encoded);
                encoded
            });
        }
    }
    let mut of_type = BTreeMap::new();
    found.retain(|(ty, _), _| {
        let kept: &mut usize = of_type.entry(*ty).or_default();
        *kept += 1;
        *kept <= KEYS_PER_TYPE
    });
    found.into_values().collect()
}
