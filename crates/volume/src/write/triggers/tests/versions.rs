//! Versions of inodes in different snapshots.

use frazil_ondisk::values::inode::{Inode, InodeFlags};
use frazil_ondisk::values::snapshot::Snapshot;
use frazil_ondisk::values::subvolume::Subvolume;
use proptest::prelude::*;

use super::*;

fn inode(key: &KeyBuf) -> Option<Inode> {
    (key.k.ty == KeyType::INODE_V3).then(|| Inode::decode(key.k.ty, &key.value).expect("an inode"))
}

fn encoded(pos: Bpos, inode: &Inode) -> KeyBuf {
    let mut value = Vec::new();
    inode.encode(&mut value);
    KeyBuf::new(KeyType::INODE_V3, pos, 0, value)
}

/// Adds, changes or removes a version of an inode in some snapshot.
fn step(lab: &mut Lab, what: u8, which: u64, snapshot: u64) {
    let files: Vec<(Bpos, Inode)> = lab.trees[&BtreeId::INODES]
        .iter()
        .filter_map(|(pos, key)| Some((*pos, inode(key)?)))
        .filter(|(_, inode)| !inode.is_dir())
        .collect();
    let snapshots: Vec<u32> = lab.trees[&BtreeId::SNAPSHOTS].keys().map(|pos| pos.offset as u32).collect();
    let (pos, mut inode) = files[(which % files.len() as u64) as usize];
    let key = match what {
        0 | 1 => {
            let snapshot = snapshots[(snapshot % snapshots.len() as u64) as usize];
            encoded(pos.with_snapshot(snapshot), &inode)
        }
        2 => KeyBuf::new(KeyType::INODE_GENERATION, pos, 0, vec![0; 8]),
        3 => deleted(pos),
        4 => {
            inode.set_nlink(u32::from(inode.flags.contains(InodeFlags::UNLINKED)));
            encoded(pos, &inode)
        }
        // Whoever changes an inode need not know about the flag.
        _ => {
            let flag = inode.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT);
            inode.flags.set(InodeFlags::HAS_CHILD_SNAPSHOT, !flag);
            encoded(pos, &inode)
        }
    };
    lab.commit(vec![(BtreeId::INODES, key)]).unwrap();
}

/// Versions that are dead, by the rule of spec 40 §3.4.
fn dead(lab: &Lab) -> Vec<Bpos> {
    let versions = lab.trees[&BtreeId::INODES].iter();
    versions.filter(|(_, key)| inode(key).is_some_and(|i| i.is_dead())).map(|(pos, _)| *pos).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn flags_and_lists_are_exact(steps in proptest::collection::vec((0..6u8, any::<u64>(), any::<u64>()), 1..60)) {
        let mut lab = Lab::of("10-snapshots");
        for (what, which, snapshot) in steps {
            step(&mut lab, what, which, snapshot);
        }
        assert_consistent(&lab);
        let listed: Vec<Bpos> = lab.trees[&BtreeId::DELETED_INODES].keys().copied().collect();
        prop_assert_eq!(listed, dead(&lab));
    }
}

/// The new snapshot's node is in the same commit as the version of its root directory (spec 40 §13.5).
#[test]
fn a_version_in_a_snapshot_that_is_just_made() {
    let mut lab = Lab::of("02-small-tree");
    let parent = u32::MAX;
    let pos = |snapshot| Bpos::new(0, 4096, snapshot);
    let root = inode(lab.get(BtreeId::INODES, pos(parent)).expect("the root directory")).expect("an inode");
    let node = |parent: u32, children: [u32; 2]| {
        let key = lab.get(BtreeId::SNAPSHOTS, Bpos::new(0, u32::MAX.into(), 0)).expect("the first snapshot");
        let mut snapshot = Snapshot::decode(&key.value).expect("a snapshot");
        snapshot.parent = SnapshotId(parent);
        snapshot.children = children.map(SnapshotId);
        let mut value = Vec::new();
        snapshot.encode(&mut value);
        value
    };
    let snapshot = |id: u32, value| {
        (BtreeId::SNAPSHOTS, KeyBuf::new(KeyType::SNAPSHOT, Bpos::new(0, id.into(), 0), 0, value))
    };
    let keys = vec![
        snapshot(parent, node(0, [parent - 1, parent - 2])),
        snapshot(parent - 1, node(parent, [0, 0])),
        snapshot(parent - 2, node(parent, [0, 0])),
        (BtreeId::INODES, encoded(pos(parent - 1), &root)),
    ];
    lab.commit(keys).unwrap();
    let flag = |lab: &Lab, snapshot| {
        let key = lab.get(BtreeId::INODES, pos(snapshot)).expect("both versions exist");
        inode(key).expect("an inode").flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT)
    };
    assert_eq!((flag(&lab, parent), flag(&lab, parent - 1)), (true, false));
    lab.commit(vec![(BtreeId::INODES, deleted(pos(parent - 1)))]).unwrap();
    assert!(!flag(&lab, parent));
}

/// A subvolume is listed below the one that holds its name.
#[test]
fn subvolumes_are_listed_by_their_parents() {
    let mut lab = Lab::of("10-snapshots");
    let (pos, mut subvol) = lab.trees[&BtreeId::SUBVOLUMES]
        .iter()
        .map(|(pos, key)| (*pos, Subvolume::decode(&key.value).expect("a subvolume")))
        .find(|(_, subvol)| subvol.fs_path_parent.0 != 0)
        .expect("the image has subvolumes");
    let child = |parent: u32| Bpos::new(parent.into(), pos.offset, 0);
    let before = subvol.fs_path_parent.0;
    assert!(lab.get(BtreeId::SUBVOLUME_CHILDREN, child(before)).is_some());
    subvol.fs_path_parent.0 = 77;
    let mut value = Vec::new();
    subvol.encode(&mut value);
    lab.commit(vec![(BtreeId::SUBVOLUMES, KeyBuf::new(KeyType::SUBVOLUME, pos, 0, value))]).unwrap();
    let children = |lab: &Lab| [before, 77].map(|p| lab.get(BtreeId::SUBVOLUME_CHILDREN, child(p)).is_some());
    assert_eq!(children(&lab), [false, true]);
    lab.commit(vec![(BtreeId::SUBVOLUMES, deleted(pos))]).unwrap();
    assert_eq!(children(&lab), [false, false]);
}
