//! Extents whose b-tree nodes cannot be read.

use frazil_btree::{NodePlace, ReplicaFailure, Root, SnapshotInfo, SnapshotTable, Unreadable};
use frazil_ondisk::node::{BadNode, BtreePtrV2, KeyFormat, SortedKeysBuilder, btree_ptr_key};
use frazil_ondisk::units::{NodeSeq, SnapshotId};
use frazil_ondisk::values::snapshot::SnapshotState;

use super::super::Cause;
use super::*;

/// A tree of two levels: leaves end at these positions and have these keys, or none that can be read.
struct Leaves(Vec<(Bpos, Option<Vec<KeyBuf>>)>);

fn pointer(seq: u64, min: Bpos, max: Bpos) -> KeyBuf {
    let entries = ExtentPtr::new(DevIndex(0), Sectors(0), Gen(0)).to_word().to_le_bytes();
    let (seq, sectors_written) = (NodeSeq(seq), Sectors(8));
    btree_ptr_key(
        max,
        &BtreePtrV2 { seq, sectors_written, range_updated: false, min_key: min, entries: &entries },
    )
}

impl Leaves {
    /// First position of a leaf.
    fn min(&self, leaf: usize) -> Bpos {
        leaf.checked_sub(1).map_or(Bpos::MIN, |before| self.0[before].0.successor().unwrap_or(Bpos::MAX))
    }
}

impl NodeSource for Leaves {
    fn read(&self, span: Span, ptr: &NodePtr<'_>) -> frazil_btree::Result<LoadedNode> {
        let seq = ptr.expect.seq.expect("these tests use the new form").0 as usize;
        let keys = if seq == 0 {
            Some(
                self.0
                    .iter()
                    .enumerate()
                    .map(|(i, leaf)| pointer(i as u64 + 1, self.min(i), leaf.0))
                    .collect(),
            )
        } else {
            self.0[seq - 1].1.clone()
        };
        let Some(keys) = keys else {
            let place = NodePlace { dev: DevIndex(0), name: "disk0".into(), sector: Sectors(0) };
            let failures = vec![ReplicaFailure::Damaged { place, reason: BadNode::TooShort(0) }];
            return Err(frazil_btree::Error::Unreadable(Box::new(Unreadable { span, failures })));
        };
        let mut sorted = SortedKeysBuilder::with_capacity(KeyFormat::FULL_POSITION, keys.len(), 0);
        keys.iter().for_each(|key| sorted.push(key.as_key()));
        let (counter, written) = (0, Sectors(8));
        let (min, max, keys) = (span.min, span.max, sorted.finish());
        Ok(LoadedNode { min, max, counter, written, keys, problems: Vec::new() })
    }
}

#[test]
fn only_what_a_lost_node_may_have_held_cannot_be_read() {
    let data = text(1, 4096);
    let mut volume = Volume::new(1);
    let ptr = volume.write(0, &data);
    let at = |end| extent(end, 8, &[Entry::Ptr(ptr)]);
    let pos = |inode, sector| Bpos::new(inode, sector, u32::MAX);
    let leaves = Leaves(vec![
        (pos(INUM.0, 16), Some(vec![at(8), at(16)])),
        (pos(INUM.0, 32), None),
        (pos(INUM.0, 48), None),
        // Begins before the lost nodes end: what lies behind its start is known.
        (pos(INUM.0, 64), Some(vec![at(50), at(64)])),
        (pos(INUM.0 + 1, 8), None),
        (Bpos::MAX, Some(vec![])),
    ]);
    let roots =
        Roots::from([(BtreeId::EXTENTS, Root::At { level: 1, key: pointer(0, Bpos::MIN, Bpos::MAX) })]);
    let trees = Btrees::new(roots, Overlay::empty(), Box::new(leaves), 1 << 20);
    let mut reader = volume.reader();
    reader.trees = Arc::new(trees);
    let id = SnapshotId(u32::MAX);
    let table = Arc::new(SnapshotTable::new([SnapshotInfo { id, parent: None, state: SnapshotState::Live }]));
    let view = table.view(id).unwrap();
    let read = |sectors: Range<u64>| {
        let mut plan = reader.plan(INUM, sectors.start * 512..sectors.end * 512);
        plan.add_visible(&view);
        let mut buf = vec![0xee; plan.len_bytes() as usize];
        plan.read(&mut buf).map(|()| buf)
    };
    assert_eq!(read(0..16), Ok([&data[..], &data].concat()));
    let e = read(0..64).unwrap_err();
    assert_eq!((e.offset_bytes, e.len_bytes), (16 * 512, 26 * 512));
    assert!(matches!(&e.cause, Cause::Metadata(why) if why.contains("disk0")), "{e}");
    let known = [&data[..], &[0; 6 * 512], &data].concat();
    assert_eq!(read(42..64), Ok(known));
    // Behind the last extent the next node would have to say that there is nothing.
    let e = read(64..80).unwrap_err();
    assert_eq!((e.offset_bytes, e.len_bytes), (64 * 512, 16 * 512));
}
