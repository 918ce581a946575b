//! The worked examples of the specification, and what must be refused.

use frazil_btree::write::Triggers;
use frazil_ondisk::DataType;
use frazil_ondisk::node::{BtreePtrV2, btree_ptr_key};
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::units::{Inum, NodeSeq};
use frazil_ondisk::values::accounting::{AccountingPos, DevList};
use frazil_ondisk::values::backpointer::Backpointer;
use frazil_ondisk::values::positions::{BucketGens, bucket_gens_pos};
use frazil_ondisk::values::reflink::ReflinkP;

use super::*;

const FILE: u64 = 1 << 30;

fn end(offset: u64) -> Bpos {
    Bpos::new(FILE, offset, u32::MAX)
}

/// The first bucket of a device's longest free run, and its first sector.
fn free_bucket(lab: &Lab, dev: DevIndex) -> (DevBucket, Sectors) {
    let runs = lab.trees[&BtreeId::FREESPACE].values().filter(|key| key.k.pos.inode == u64::from(dev.0));
    let run = runs.max_by_key(|key| key.k.size).expect("the image has free buckets");
    let at = DevBucket { dev, bucket: BucketIndex(run.k.start_offset().expect("a run")) };
    let size = lab.space.rules().geometry(dev).expect("a member").bucket.0;
    (at, Sectors(at.bucket.0 * size))
}

/// What the last commit did to one b-tree: position, and what is there now.
fn done(lab: &Lab, btree: BtreeId) -> Vec<(Bpos, Option<&KeyBuf>)> {
    lab.last.iter().filter(|c| c.btree == btree).map(|c| (c.new.k.pos, c.inserted())).collect()
}

/// Transaction 4 of spec 50 §5: eight sectors in a bucket of 256.
#[test]
fn a_first_write_to_a_bucket_changes_what_the_reference_changes() {
    let mut lab = Lab::of("02-small-tree");
    let (at, start) = free_bucket(&lab, DevIndex(0));
    let run =
        lab.trees[&BtreeId::FREESPACE].values().find(|k| k.k.start_offset() == Some(at.bucket.0)).cloned();
    let run = run.expect("the first free bucket begins a run");
    lab.commit(vec![(BtreeId::EXTENTS, extent(end(8), 8, &[ExtentPtr::new(at.dev, start, Gen(0))]))])
        .unwrap();

    let mut expected =
        Alloc { journal_seq_nonempty: Seq(1001), need_discard: true, need_inc_gen: true, ..Alloc::default() };
    (expected.data_type, expected.dirty_sectors, expected.io_time) = (DataType::USER, 8, [1000, 2000]);
    assert_eq!(alloc(&lab, at), expected);
    let [(pos, Some(shorter))] = done(&lab, BtreeId::FREESPACE)[..] else { panic!("one key changes") };
    assert_eq!((pos, shorter.k.size), (run.k.pos, run.k.size - 1));
    assert!(done(&lab, BtreeId::NEED_DISCARD).is_empty() && done(&lab, BtreeId::BUCKET_GENS).is_empty());
    let [(pos, Some(backpointer))] = done(&lab, BtreeId::BACKPOINTERS)[..] else { panic!("one backpointer") };
    assert_eq!(pos, Bpos::new(0, start.0 << 10, 0));
    let backpointer = Backpointer::decode(&backpointer.value).unwrap();
    assert_eq!((backpointer.pos, backpointer.bucket_len, backpointer.level), (end(8), 8, 0));
    let lru: Vec<_> = done(&lab, BtreeId::LRU).iter().map(|(pos, key)| (*pos, key.is_some())).collect();
    assert_eq!(lru, [(Bpos::new((0xffff << 48) | ((8 << 31) / 256), at.bucket.0, 0), true)]);
    let dev = at.dev;
    let user = AccountingPos::Replicas {
        data_type: DataType::USER,
        nr_required: 1,
        devs: DevList::new(&[dev]).expect("one"),
    };
    let inum = AccountingPos::Inum { inum: Inum(FILE) };
    let snapshot = AccountingPos::Snapshot { id: SnapshotId(u32::MAX), btree: 0 };
    let of_dev = |data_type| AccountingPos::DevDataType { dev, data_type };
    let expected = [
        (user, [8, 0, 0]),
        (snapshot, [8, 0, 0]),
        (inum, [1, 8, 8]),
        (of_dev(DataType::USER), [1, 8, 248]),
        (of_dev(DataType::FREE), [-1, 0, 0]),
    ];
    assert_eq!(lab.deltas, expected.into_iter().collect());
    assert_consistent(&lab);
}

/// The life of one bucket, spec 50 §5.
#[test]
fn the_life_of_a_bucket() {
    let mut lab = Lab::of("02-small-tree");
    let (at, start) = free_bucket(&lab, DevIndex(0));
    let part = |half: u64| {
        let ptr = ExtentPtr::new(at.dev, Sectors(start.0 + 128 * half), Gen(0));
        (BtreeId::EXTENTS, extent(end(128 * (half + 1)), 128, &[ptr]))
    };
    let remove = |half: u64| (BtreeId::EXTENTS, deleted(end(128 * (half + 1))));
    let state = |lab: &Lab| {
        let a = alloc(lab, at);
        (
            a.generation.0,
            a.data_type,
            a.journal_seq_nonempty.0,
            a.need_discard,
            a.need_inc_gen,
            a.dirty_sectors,
        )
    };
    lab.commit(vec![part(0)]).unwrap();
    assert_eq!(state(&lab), (0, DataType::USER, 1001, true, true, 128));
    lab.commit(vec![part(1)]).unwrap();
    assert_eq!(state(&lab), (0, DataType::USER, 1001, true, true, 256));
    assert_eq!(done(&lab, BtreeId::LRU).len(), 1, "a full bucket is not listed");
    lab.commit(vec![remove(0)]).unwrap();
    assert_eq!(state(&lab), (0, DataType::USER, 1001, true, true, 128));
    lab.commit(vec![remove(1)]).unwrap();
    assert_eq!(state(&lab), (1, DataType::NEED_DISCARD, 1004, true, false, 0));
    let (pos, index) = bucket_gens_pos(at);
    let gens = lab.get(BtreeId::BUCKET_GENS, pos).expect("a generation is not 0");
    assert_eq!(BucketGens::decode(&gens.value).unwrap().0[index], 1);
    assert_consistent(&lab);

    let discarded = Alloc { need_discard: false, ..alloc(&lab, at) };
    let mut value = Vec::new();
    discarded.encode(&mut value);
    lab.commit(vec![(BtreeId::ALLOC, KeyBuf::new(KeyType::ALLOC_V4, at.pos(), 0, value))]).unwrap();
    assert_eq!(state(&lab), (1, DataType::FREE, 1004, false, false, 0));
    assert_consistent(&lab);
}

#[test]
fn the_generation_waits_while_somebody_holds_the_bucket() {
    let mut lab = Lab::of("02-small-tree");
    let open = lab.space.open_any(DevIndex(0)).expect("a free bucket");
    let (at, ptr) = (open.at(), ExtentPtr::new(DevIndex(0), open.start(), open.generation()));
    lab.commit(vec![(BtreeId::EXTENTS, extent(end(8), 8, &[ptr]))]).unwrap();
    lab.commit(vec![(BtreeId::EXTENTS, deleted(end(8)))]).unwrap();
    let empty = alloc(&lab, at);
    assert_eq!(
        (empty.generation, empty.need_inc_gen, empty.data_type),
        (Gen(0), true, DataType::NEED_DISCARD)
    );
    let second = ExtentPtr { offset: Sectors(ptr.offset.0 + 8), ..ptr };
    lab.commit(vec![(BtreeId::EXTENTS, extent(end(8), 8, &[second]))]).unwrap();
    assert_eq!(alloc(&lab, at).data_type, DataType::USER);
    drop(open);
    lab.commit(vec![(BtreeId::EXTENTS, deleted(end(8)))]).unwrap();
    assert_eq!((alloc(&lab, at).generation, alloc(&lab, at).need_inc_gen), (Gen(1), false));
    assert_consistent(&lab);
}

#[test]
fn a_pointer_that_stays_changes_nothing() {
    let mut lab = Lab::of("02-small-tree");
    let key = lab.trees[&BtreeId::EXTENTS].values().find(|k| k.k.ty == KeyType::EXTENT).cloned();
    let key = key.expect("the image has extents");
    lab.commit(vec![(BtreeId::EXTENTS, key)]).unwrap();
    assert_eq!((lab.last.len(), lab.deltas.len()), (1, 0));
}

#[test]
fn nodes_use_whole_places_whatever_is_written() {
    let mut lab = Lab::of("02-small-tree");
    let (at, start) = free_bucket(&lab, DevIndex(0));
    let mut entries = Vec::new();
    Entry::Ptr(ExtentPtr::new(at.dev, start, Gen(0))).encode(&mut entries);
    let pointer = |written| {
        let (seq, sectors_written, min_key) = (NodeSeq(5), Sectors(written), Bpos::MIN);
        let ptr = BtreePtrV2 { seq, sectors_written, range_updated: false, min_key, entries: &entries };
        btree_ptr_key(Bpos::MAX, &ptr)
    };
    let change = |old, new| Change { btree: BtreeId::QUOTAS, level: 1, old, new };
    lab.commit_changes(vec![change(None, pointer(8))]).unwrap();
    let node = i64::try_from(lab.space.rules().node.0).unwrap();
    let btree = AccountingPos::btree(BtreeId::QUOTAS);
    assert_eq!((lab.deltas[&btree], alloc(&lab, at).data_type), ([node, 0, 0], DataType::BTREE));
    lab.commit_changes(vec![change(Some(pointer(8)), pointer(16))]).unwrap();
    assert_eq!(lab.last.len(), 1, "only the pointer itself");
    lab.commit_changes(vec![change(Some(pointer(16)), deleted(Bpos::MAX))]).unwrap();
    assert_eq!((lab.deltas[&btree], alloc(&lab, at).data_type), ([0; 3], DataType::NEED_DISCARD));
    assert_consistent(&lab);
}

#[test]
fn the_superblock_learns_of_a_set_of_devices_first() {
    let mut lab = Lab::of("09-multi-striped");
    let entry =
        ReplicasEntry { data_type: DataType::USER, nr_required: 1, devs: vec![DevIndex(0), DevIndex(1)] };
    lab.superblocks.replicas.lock().retain(|e| *e != entry);
    let ptrs = [DevIndex(0), DevIndex(1)].map(|dev| ExtentPtr::new(dev, free_bucket(&lab, dev).1, Gen(0)));
    lab.commit(vec![(BtreeId::EXTENTS, extent(end(8), 8, &ptrs))]).unwrap();
    assert!(lab.superblocks.replicas.lock().contains(&entry));
    lab.commit(vec![(BtreeId::EXTENTS, deleted(end(8)))]).unwrap();
    assert_eq!(*lab.superblocks.writes.lock(), 1, "what shrinks need not be announced");
    assert_consistent(&lab);
}

#[test]
fn contradictions_are_refused() {
    let mut lab = Lab::of("02-small-tree");
    let (at, start) = free_bucket(&lab, DevIndex(0));
    let used = lab.trees[&BtreeId::ALLOC].keys().find_map(|pos| {
        let at = DevBucket::from_pos(*pos)?;
        (alloc(&lab, at).data_type == DataType::BTREE).then_some(at)
    });
    let of_nodes = used.expect("there are nodes").bucket.0 * 256;
    let end_of_device = 256 * lab.trees[&BtreeId::ALLOC].keys().map(|pos| pos.offset).max().unwrap() + 256;
    let refused = |lab: &mut Lab, keys: Vec<(BtreeId, KeyBuf)>, why: &str| {
        let before = lab.trees.clone();
        match lab.commit(keys) {
            Err(CommitError::Inconsistent(text)) => assert!(text.contains(why), "{text}"),
            other => panic!("{other:?} instead of {why}"),
        }
        assert!(lab.trees == before);
    };
    let one = |ptr| vec![(BtreeId::EXTENTS, extent(end(8), 8, &[ptr]))];
    let ptr = |sector, generation| ExtentPtr::new(at.dev, Sectors(sector), Gen(generation));
    refused(&mut lab, one(ptr(start.0, 1)), "generation 1");
    refused(&mut lab, one(ptr(of_nodes, 0)), "a pointer to user data");
    refused(&mut lab, one(ptr(end_of_device, 0)), "there is no bucket");
    let stripe = KeyBuf::new(KeyType::STRIPE, Bpos::new(0, 1, 0), 0, vec![0; 8]);
    refused(&mut lab, vec![(BtreeId::STRIPES, stripe)], "stripes");
    let nowhere =
        vec![(BtreeId::ALLOC, KeyBuf::new(KeyType::ALLOC_V4, Bpos::new(300, 1, 0), 0, vec![0; 64]))];
    refused(&mut lab, nowhere, "no bucket has its alloc key");
    let mut value = Vec::new();
    ReflinkP { idx: 1 << 40, flags: 0, front_pad: 0, back_pad: 0 }.encode(&mut value);
    let lost = vec![(BtreeId::EXTENTS, KeyBuf::new(KeyType::REFLINK_P, end(8), 8, value))];
    refused(&mut lab, lost, "nothing is at");
    lab.trees.get_mut(&BtreeId::FREESPACE).expect("loaded").clear();
    refused(&mut lab, one(ptr(start.0, 0)), "freespace lacks");
}

#[test]
fn stamps_go_into_keys_that_carry_one() {
    let lab = Lab::of("02-small-tree");
    let inode = lab.trees[&BtreeId::INODES].values().find(|k| k.k.ty == KeyType::INODE_V3).cloned();
    let mut inode = inode.expect("there are inodes");
    lab.deriver.stamp(Seq(77), BtreeId::INODES, None, &mut inode);
    assert_eq!(inode.value[..8], 77u64.to_le_bytes());
    let at = free_bucket(&lab, DevIndex(0)).0;
    let key = |ty, value: &[u8]| KeyBuf::new(ty, at.pos(), 0, value.to_vec());
    let mut user = Vec::new();
    Alloc { data_type: DataType::USER, dirty_sectors: 8, ..Alloc::default() }.encode(&mut user);
    let mut fuller = Vec::new();
    Alloc { data_type: DataType::USER, dirty_sectors: 16, ..Alloc::default() }.encode(&mut fuller);
    let (old, mut new) = (key(KeyType::ALLOC_V4, &user), key(KeyType::ALLOC_V4, &fuller));
    lab.deriver.stamp(Seq(77), BtreeId::ALLOC, Some(&old), &mut new);
    assert_eq!(new.value[..], fuller[..], "it was not empty before");
    lab.deriver.stamp(Seq(77), BtreeId::ALLOC, None, &mut new);
    assert_eq!(new.value[..8], 77u64.to_le_bytes());
}
