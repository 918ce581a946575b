//! Nodes on devices: which replica is used, and what happens when none is whole.

use std::sync::Arc;

use frazil_device::{Device, DeviceSet, MemDevice};
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::node::{
    BsetBuilder, BtreePtrV2, KeyFormat, NodeHeader, NodeProblem, WriteContext, btree_ptr_key,
};
use frazil_ondisk::units::{DevIndex, Gen, NodeSeq, Sectors, Seq};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf};

use crate::testing::{deleted, key};
use crate::{Btrees, Error, NodeFormat, NodeStore, Overlay, ProblemKind, ReplicaFailure, Root, Roots};

const TREE: BtreeId = BtreeId::LRU;
const BLOCK: Sectors = Sectors(8);
const NODE_SECTORS: Sectors = Sectors(64);
const MAGIC: u64 = 0x1234;
const SEQ: NodeSeq = NodeSeq(0xfeed);
/// Where the node lies on every device.
const AT: u64 = 64 * 512;

fn at(offset: u64) -> Bpos {
    Bpos::new(0, offset, 0)
}

/// A leaf that is the root: keys 0 to 9, then an append that deletes 3 and changes 4, of journal entry 7.
fn node_bytes() -> Vec<u8> {
    let context = WriteContext {
        magic: MAGIC,
        block: BLOCK,
        csum_type: ChecksumType::Crc32c,
        key: None,
        version: Version::WRITE,
    };
    let header = NodeHeader {
        btree: TREE,
        level: 0,
        new_extent_overwrite: true,
        counter: 1,
        min_key: Bpos::MIN,
        max_key: Bpos::MAX,
        format: KeyFormat::FULL_POSITION,
    };
    let mut first = BsetBuilder::first(header, SEQ);
    (0..10).for_each(|o| first.push(key(at(o), o).as_key()));
    let mut bytes = first.finish(Seq(0), &context).unwrap();
    let mut later = BsetBuilder::later(KeyFormat::FULL_POSITION, SEQ, BLOCK);
    later.push_tombstone(deleted(at(3)).k.pos);
    later.push(key(at(4), 400).as_key());
    bytes.extend(later.finish(Seq(7), &context).unwrap());
    bytes
}

fn device(bytes: &[u8]) -> Arc<dyn Device> {
    let device = MemDevice::new(1 << 20);
    device.write_at(AT, bytes).unwrap();
    Arc::new(device)
}

fn root(devices: &[u8], sectors_written: u64) -> KeyBuf {
    let replica =
        |&dev: &u8| ExtentPtr::new(DevIndex(dev), Sectors(AT / 512), Gen(0)).to_word().to_le_bytes();
    let entries: Vec<u8> = devices.iter().flat_map(replica).collect();
    let ptr = BtreePtrV2 {
        seq: SEQ,
        sectors_written: Sectors(sectors_written),
        range_updated: false,
        min_key: Bpos::MIN,
        entries: &entries,
    };
    btree_ptr_key(Bpos::MAX, &ptr)
}

/// The trees on these devices (0, 1, …), whose root names them all, and whose journal entries in `blacklist` never were.
fn trees(devices: Vec<Arc<dyn Device>>, root: KeyBuf, blacklist: &[std::ops::Range<u64>]) -> Btrees {
    let format = NodeFormat {
        magic: MAGIC,
        block: BLOCK,
        node: NODE_SECTORS,
        key: None,
        version: Version::WRITE,
        version_min: Version::WRITE,
    };
    let devices: DeviceSet = (0..).zip(devices).collect();
    let blacklist = blacklist.iter().map(|r| Seq(r.start)..Seq(r.end)).collect();
    let roots: Roots = [(TREE, Root::At { level: 0, key: root })].into();
    Btrees::new(roots, Overlay::empty(), Box::new(NodeStore::new(devices, format, blacklist)), 1 << 20)
}

fn values(trees: &Btrees) -> Vec<(u64, u64)> {
    let mut cursor = trees.cursor(TREE, ..);
    let mut out = Vec::new();
    while let Some(key) = cursor.next().unwrap() {
        out.push((key.k.pos.offset, u64::from_le_bytes(key.value.try_into().unwrap())));
    }
    out
}

fn merged() -> Vec<(u64, u64)> {
    [0, 1, 2, 4, 5, 6, 7, 8, 9].map(|o| (o, if o == 4 { 400 } else { o })).into()
}

/// The node with one byte of its keys changed, in the first or the second write.
fn damaged(sector: usize) -> Vec<u8> {
    let mut bytes = node_bytes();
    let keys = if sector == 0 { 160 } else { 40 };
    bytes[sector * 512 + keys + 10] ^= 1;
    bytes
}

#[test]
fn a_whole_replica_is_found_wherever_it_is() {
    for (i, bytes) in [damaged(0), damaged(8), vec![0; 8192]].iter().enumerate() {
        for order in [[0, 1], [1, 0]] {
            let trees = trees(vec![device(bytes), device(&node_bytes())], root(&order, 16), &[]);
            assert_eq!(values(&trees), merged(), "damage {i}, order {order:?}");
            let problems = trees.problems();
            assert!(problems.iter().all(|p| matches!(p.kind, ProblemKind::Replica(_))), "{problems:?}");
            // The damaged one is noticed only if it was tried first.
            assert!(problems.len() <= 1);
        }
    }
}

#[test]
fn nothing_unverified_is_believed() {
    for sector in [0, 8] {
        let trees = trees(vec![device(&damaged(sector)), device(&damaged(sector))], root(&[0, 1], 16), &[]);
        let Err(Error::Unreadable(e)) = trees.get(TREE, at(1)) else { panic!("must not be readable") };
        assert_eq!(e.failures.len(), 2);
        for failure in &e.failures {
            let ReplicaFailure::Unverified { place, problem: NodeProblem::Checksum { at, .. } } = failure
            else {
                panic!("{failure:?}")
            };
            assert_eq!((place.sector, at.0), (Sectors(AT / 512), sector as u64));
        }
    }
}

#[test]
fn missing_and_removed_devices_are_passed_over_in_silence() {
    let trees = trees(vec![device(&node_bytes())], root(&[255, 9, 0], 16), &[]);
    assert_eq!(values(&trees), merged());
    assert_eq!(trees.problems(), []);
    let alone = self::trees(vec![device(&node_bytes())], root(&[255, 9], 16), &[]);
    let Err(Error::Unreadable(e)) = alone.get(TREE, at(1)) else { panic!("must not be readable") };
    let mut failures = e.failures;
    failures.sort_by_key(|f| matches!(f, ReplicaFailure::Missing(_)));
    assert_eq!(failures, [ReplicaFailure::Removed, ReplicaFailure::Missing(DevIndex(9))]);
    let none = self::trees(vec![], root(&[], 16), &[]);
    assert!(none.get(TREE, at(1)).unwrap_err().to_string().ends_with("the pointer names no copy"));
}

#[test]
fn an_error_of_the_device_is_told() {
    let small: Arc<dyn Device> = Arc::new(MemDevice::new(AT + 4096));
    let trees = trees(vec![small], root(&[0], 16), &[]);
    let Err(Error::Unreadable(e)) = trees.get(TREE, at(1)) else { panic!("must not be readable") };
    assert!(matches!(e.failures[..], [ReplicaFailure::Io { dev: DevIndex(0), .. }]));
}

#[test]
fn only_what_the_pointer_counts_is_read() {
    let trees = trees(vec![device(&node_bytes())], root(&[0], 8), &[]);
    assert_eq!(values(&trees), (0..10).map(|o| (o, o)).collect::<Vec<_>>());
    let old_pointer = self::trees(vec![device(&node_bytes())], root(&[0], 0), &[]);
    assert_eq!(values(&old_pointer), merged());
}

#[test]
fn blacklisted_updates_never_happened() {
    let with = |blacklist: &[std::ops::Range<u64>]| {
        let trees = trees(vec![device(&node_bytes())], root(&[0], 16), blacklist);
        (values(&trees), trees.problems().len())
    };
    let first_only: Vec<(u64, u64)> = (0..10).map(|o| (o, o)).collect();
    assert_eq!(with(&[30..40, 7..8]), (first_only.clone(), 1), "counted by the pointer: a problem");
    assert_eq!(with(&[2..20, 5..6, 4..4]), (first_only, 1));
    assert_eq!(with(&[8..20, 2..7]), (merged(), 0));
}
