//! Every value of every golden image: decoded, checked, listed and encoded again.
//!
//! Every key of every node that can be read, live or superseded, and of every journal entry must decode and encode to the
//! same bytes. The live keys of clean images must also be without a problem, and print what the reference printed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, HashMap};

use frazil_ondisk::bytes::Reader;
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::crypto::{Crypt, Key as CryptKey, Nonce};
use frazil_ondisk::jset::{BucketScan, Jset, JsetEntry, JsetFormat, entries, jset_magic};
use frazil_ondisk::node::{
    BsetHeader, FormatRules, NodeExpectation, NodeHeader, NodePtr, ReadContext, ReadNode, node_magic,
};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::Members;
use frazil_ondisk::superblock::options::Target;
use frazil_ondisk::superblock::sections::clean::Clean;
use frazil_ondisk::superblock::sections::disk_groups::DiskGroups;
use frazil_ondisk::units::{DevIndex, Gen};
use frazil_ondisk::values::list::{self, ListContext};
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::values::{Rules, Value, validate};
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bkey, BtreeId, Key, KeyBuf, KeyType};
use frazil_testing::golden::{self, GoldenImage};

struct Volume {
    devices: Vec<Vec<u8>>,
    sb: Superblock,
    members: Members,
    groups: Option<DiskGroups>,
    key: Option<CryptKey>,
    gens: HashMap<DevBucket, Gen>,
}

fn open(image: &GoldenImage) -> Volume {
    let devices = image.bytes();
    let sb = Superblock::decode(&devices[0][8 * 512..]).unwrap();
    let key = sb.sections.get::<Crypt>().unwrap();
    Volume {
        members: sb.members().unwrap(),
        groups: sb.sections.get().unwrap(),
        key: key.map(|c| c.unlock(image.passphrase_bytes(), &sb.uuid).unwrap()),
        gens: HashMap::new(),
        devices,
        sb,
    }
}

impl ListContext for Volume {
    fn version(&self) -> Version {
        self.sb.version
    }
    fn bucket_sectors(&self, dev: DevIndex) -> Option<u64> {
        Some(self.members.get(dev)?.bucket_size().0)
    }
    fn durability(&self, dev: DevIndex) -> u32 {
        self.members.get(dev).map_or(0, |m| m.flags.durability().into())
    }
    fn bucket_gen(&self, at: DevBucket) -> Option<Gen> {
        Some(self.gens.get(&at).copied().unwrap_or_default())
    }
    fn device_name(&self, dev: DevIndex) -> Option<String> {
        Some(format!("dev{dev}.img"))
    }
    fn target_name(&self, target: u16) -> Option<String> {
        match Target::from_raw(target) {
            Target::Group(g) => self.groups.as_ref()?.path(g.into()),
            _ => None,
        }
    }
    fn backpointer_shift(&self) -> u32 {
        self.sb.extent_bp_shift().into()
    }
}

impl Volume {
    fn read_context(&self) -> ReadContext<'_> {
        ReadContext {
            magic: node_magic(&self.sb.uuid),
            block: frazil_ondisk::units::Sectors(self.sb.block_sectors.into()),
            key: self.key.as_ref(),
            version: self.sb.version,
            version_min: self.sb.version_min,
            blacklisted: &|_| false,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            version: self.sb.version,
            // Every live key of a 1.13 volume was written by those rules; a newer one may have older keys.
            writing: self.sb.version <= Version::WRITE,
            encoded_extent_max_sectors: 1 << self.sb.flags.encoded_extent_max_bits(),
            encrypted: self.key.is_some(),
        }
    }

    fn node_bytes(&self) -> usize {
        self.sb.btree_node_size().to_bytes().unwrap() as usize
    }

    /// Live keys by b-tree, interior ones included, in order; empty unless the volume is marked clean.
    fn live_keys(&self) -> BTreeMap<BtreeId, Vec<(u8, KeyBuf)>> {
        let mut out = BTreeMap::new();
        let clean = self.sb.sections.get::<Clean>().unwrap().filter(|_| self.sb.flags.clean());
        for entry in clean.iter().flat_map(Clean::entries) {
            if let JsetEntry::BtreeRoot { btree, level, key: Some(key) } = entry.unwrap() {
                let keys: &mut Vec<_> = out.entry(btree).or_default();
                keys.push((level + 1, key.to_owned()));
                self.walk(btree, level, key, keys);
            }
        }
        out
    }

    fn walk(&self, btree: BtreeId, level: u8, key: Key<'_>, out: &mut Vec<(u8, KeyBuf)>) {
        let ptr = NodePtr::decode(btree, level, key).unwrap();
        let p = ptr.ptrs().next().unwrap();
        let start = p.offset.to_bytes().unwrap() as usize;
        let mut raw = self.devices[usize::from(p.dev.0)][start..start + self.node_bytes()].to_vec();
        let read = ReadNode::read(&mut raw, &ptr.expect, &self.read_context()).unwrap();
        let (node, _) = read.merge(&raw);
        for key in node.keys.iter() {
            out.push((level, key.to_owned()));
            if level > 0 {
                self.walk(btree, level - 1, key, out);
            }
        }
    }

    /// Calls `f` with every key of every node on the devices that can be read.
    fn each_node_key(&self, mut f: impl FnMut(Key<'_>)) {
        let magic = node_magic(&self.sb.uuid).to_le_bytes();
        let node_bytes = self.node_bytes();
        for device in &self.devices {
            let step = self.sb.block_bytes() as usize;
            for start in (0..device.len().saturating_sub(node_bytes)).step_by(step) {
                let area = &device[start..start + node_bytes];
                if area[16..24] != magic {
                    continue;
                }
                let Some(want) = self.own_expectation(area) else { continue };
                let mut raw = area.to_vec();
                if let Ok(read) = ReadNode::read(&mut raw, &want, &self.read_context()) {
                    let (node, _) = read.merge(&raw);
                    node.keys.iter().for_each(&mut f);
                }
            }
        }
    }

    /// What the node at the start of `area` says about itself.
    fn own_expectation(&self, area: &[u8]) -> Option<NodeExpectation> {
        let bset = BsetHeader::decode(&mut Reader::new("bset", &area[136..])).ok()?;
        let mut head = area[24..136].to_vec();
        if ChecksumType::from_raw(bset.csum_type)?.is_encryption() {
            self.key.as_ref()?.apply(Nonce::bset(0, bset.seq.0, bset.journal_seq.0), &mut head);
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

    /// Calls `f` with every key of every journal entry, overwritten ones included.
    fn each_journal_key(&self, mut f: impl FnMut(Key<'_>)) {
        let format = JsetFormat {
            magic: jset_magic(&self.sb.uuid),
            block_bytes: self.sb.block_bytes() as usize,
            key: self.key.as_ref(),
        };
        for (dev, device) in self.devices.iter().enumerate() {
            let sb = Superblock::decode(&device[8 * 512..]).unwrap();
            let bucket_bytes =
                self.members.get(DevIndex(dev as u8)).unwrap().bucket_size().to_bytes().unwrap();
            for range in sb.journal_buckets().unwrap().0 {
                for bucket in range.start.0..range.start.0 + range.nr {
                    let start = (bucket * bucket_bytes) as usize;
                    let bytes = &device[start..start + bucket_bytes as usize];
                    for item in BucketScan::new(format, bytes) {
                        jset_keys(&item.jset.unwrap(), &mut f);
                    }
                }
            }
        }
    }
}

fn jset_keys(jset: &Jset, f: &mut impl FnMut(Key<'_>)) {
    for entry in entries(jset.list()) {
        if let JsetEntry::BtreeKeys(l) | JsetEntry::Overwrite(l) | JsetEntry::LogBkey(l) = entry.unwrap() {
            l.keys.for_each(|k| f(k.unwrap()));
        }
    }
}

/// Decodes and encodes a value: the same bytes. The first word of a node pointer means nothing on disk and may hold
/// anything (spec 30 §5.6).
fn round_trip(key: Key<'_>) -> Value<'_> {
    let value = Value::decode(key).unwrap_or_else(|e| panic!("{key}: {e}"));
    let mut again = Vec::new();
    value.encode(&mut again);
    let meaningless = if key.k.ty == KeyType::BTREE_PTR_V2 { 8 } else { 0 };
    assert!(
        again[meaningless..] == key.value[meaningless..],
        "{key}: encodes to other bytes:\n{:02x?}\n{again:02x?}",
        key.value
    );
    value
}

#[test]
fn every_value_encodes_to_the_bytes_it_was_decoded_from() {
    let mut types = BTreeMap::<KeyType, usize>::new();
    for image in golden::all() {
        let v = open(&image);
        let mut count = |key: Key<'_>| {
            round_trip(key);
            *types.entry(key.k.ty).or_default() += 1;
        };
        v.each_node_key(&mut count);
        v.each_journal_key(&mut count);
    }
    println!("{types:?}");
    assert!(types.len() >= 20, "types seen: {types:?}");
}

#[test]
fn live_values_are_sound_and_print_as_the_reference_prints_them() {
    let (mut checked, mut compared, mut differ) = (0, 0, Vec::new());
    for image in golden::all() {
        let mut v = open(&image);
        let live = v.live_keys();
        for (_, key) in live.get(&BtreeId::ALLOC).into_iter().flatten().filter(|k| k.0 == 0) {
            if let Ok(Value::Alloc(a)) = Value::decode(key.as_key()) {
                v.gens.insert(DevBucket::from_pos(key.k.pos).unwrap(), a.generation);
            }
        }
        for (btree, keys) in &live {
            for (_, key) in keys {
                let problem = validate(*btree, key.as_key(), &v.rules());
                assert_eq!(problem, Ok(()), "{}: {btree} {key:?}", image.name);
                if let Ok(Value::Backpointer(b)) = Value::decode(key.as_key())
                    && !v.sb.version.backpointers_have_bucket_gen()
                {
                    let bucket_sectors = v.bucket_sectors(DevIndex(key.k.pos.inode as u8)).unwrap();
                    assert_eq!(b.validate_in_bucket(&key.k, bucket_sectors), Ok(()));
                }
                checked += 1;
            }
            compared += compare(&image, &v, *btree, keys, &mut differ);
        }
    }
    println!("{checked} live keys checked, {compared} compared");
    for (image, ours, theirs) in &differ[..differ.len().min(40)] {
        println!("{image}:\n  ours   {ours}\n  theirs {theirs}");
    }
    assert_eq!(differ.len(), 0, "keys that print differently");
    assert!(compared > 10_000);
}

/// Compares the leaf keys of a b-tree with the reference's listing, if there is one.
fn compare(
    image: &GoldenImage,
    v: &Volume,
    btree: BtreeId,
    keys: &[(u8, KeyBuf)],
    differ: &mut Vec<(String, String, String)>,
) -> usize {
    let name = match btree {
        BtreeId::REBALANCE_WORK if v.sb.version.has_reconcile() => "reconcile_work".to_string(),
        _ => btree.to_string(),
    };
    let Some(listing) = image.listing(&name) else { return 0 };
    let ours: Vec<_> = keys.iter().filter(|k| k.0 == 0).map(|k| &k.1).collect();
    assert_eq!(ours.len(), listing.keys.len(), "{}: {btree}", image.name);
    let mut compared = 0;
    for (key, theirs) in ours.iter().zip(&listing.keys) {
        let k = &key.k;
        assert_eq!((k.pos.inode, k.pos.offset, k.pos.snapshot), theirs.pos);
        assert_eq!((k.ty.name(), k.size), (Some(&*theirs.key_type), theirs.len));
        if !prints_alike(k, v.sb.version) {
            continue;
        }
        let value = Value::decode(key.as_key()).unwrap();
        let text = list::value(&value, k, v).to_string();
        if text.trim_end_matches('\n') != theirs.value {
            differ.push((image.name.clone(), format!("{key:?}: {text}"), theirs.value.clone()));
        }
        compared += 1;
    }
    compared
}

/// Whether our text is meant to equal that of the reference of the volume's version: always, except where that prints
/// rubbish (inline data up to 1.13) or has a style of its own (tools between 1.13 and 1.39).
fn prints_alike(k: &Bkey, version: Version) -> bool {
    if version == Version::INODE_HAS_CHILD_SNAPSHOTS {
        return !list::is_garbled_in_1_13_listings(k.ty);
    }
    version == Version::PER_DEV_FRAGMENTATION_LRU && k.ty != KeyType::INODE_ALLOC_CURSOR
}
