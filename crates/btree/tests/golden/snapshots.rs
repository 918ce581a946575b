//! What each snapshot of each golden image sees: the cursor against the rule applied to all keys, and extents that do not
//! overlap.

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_btree::{SnapshotTable, View};
use frazil_ondisk::units::{Inum, SnapshotId};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_testing::golden;

use crate::volume::{Over, Volume, open};

const TREES: [BtreeId; 4] = [BtreeId::EXTENTS, BtreeId::INODES, BtreeId::DIRENTS, BtreeId::XATTRS];

fn all_keys(volume: &Volume, btree: BtreeId) -> Vec<KeyBuf> {
    let mut cursor = volume.trees.cursor(btree, ..);
    let mut keys = Vec::new();
    while let Some(key) = cursor.next().unwrap() {
        keys.push(key.to_owned());
    }
    keys
}

/// Of all keys that a snapshot or its ancestors have at one (inode, offset), the nearest, unless it is a whiteout.
fn nearest<'k>(keys: &'k [KeyBuf], table: &SnapshotTable, id: SnapshotId) -> Vec<&'k KeyBuf> {
    let mut slots: BTreeMap<(u64, u64), &KeyBuf> = BTreeMap::new();
    for key in keys.iter().filter(|k| table.is_ancestor(SnapshotId(k.k.pos.snapshot), id)) {
        slots.entry((key.k.pos.inode, key.k.pos.offset)).or_insert(key);
    }
    slots
        .into_values()
        .filter(|k| k.k.ty != KeyType::WHITEOUT && k.k.ty != KeyType::EXTENT_WHITEOUT)
        .collect()
}

fn check_tree(volume: &Volume, btree: BtreeId, view: &View, want: &[&KeyBuf]) {
    let mut cursor = volume.trees.visible(btree, view, Bpos::MIN..Bpos::POS_MAX);
    for key in want {
        assert_eq!(cursor.next().unwrap(), Some(key.as_key()));
    }
    assert_eq!(cursor.next().unwrap(), None);
    for key in want.iter().rev() {
        assert_eq!(cursor.prev().unwrap(), Some(key.as_key()));
    }
    assert_eq!(cursor.prev().unwrap(), None);
    for key in want.iter().step_by(11) {
        let got = volume.trees.get_visible(btree, key.k.pos, view).unwrap().unwrap();
        assert_eq!(got.key(), key.as_key());
    }
}

/// Reads every file's extents whole and in pieces. No two overlap.
fn check_extents(volume: &Volume, view: &View, want: &[&KeyBuf]) {
    for file in want.chunk_by(|a, b| a.k.pos.inode == b.k.pos.inode) {
        let inode = Inum(file[0].k.pos.inode);
        let starts: Vec<u64> = file.iter().map(|k| k.k.start_offset().unwrap()).collect();
        let ends = file.iter().map(|k| k.k.pos.offset);
        assert!(ends.zip(&starts[1..]).all(|(end, start)| end <= *start), "inode {inode} overlaps");
        for (i, key) in file.iter().enumerate().step_by(5) {
            let middle = starts[i] + u64::from(key.k.size) / 2;
            let mut cursor = volume.trees.visible_extents(view, inode, middle..key.k.pos.offset + 1);
            assert_eq!(cursor.next().unwrap(), Some(key.as_key()));
            let next = file.get(i + 1).filter(|_| starts[i + 1] == key.k.pos.offset);
            assert_eq!(cursor.next().unwrap(), next.map(|k| k.as_key()));
            cursor.seek_end().unwrap();
            assert_eq!(cursor.prev().unwrap(), Some(next.unwrap_or(key).as_key()));
        }
    }
}

#[test]
fn every_snapshot_sees_the_nearest_keys() {
    let (mut views, mut keys_seen) = (0, 0);
    for image in golden::all() {
        let volume = open(&image, Over::Journal);
        let (table, errors) = SnapshotTable::load(&volume.trees);
        assert_eq!(errors, [], "{}", image.name);
        let table = Arc::new(table);
        let leaves: Vec<SnapshotId> = all_keys(&volume, BtreeId::SUBVOLUMES)
            .iter()
            .map(|key| Subvolume::decode(&key.value).unwrap().snapshot)
            .collect();
        assert!(leaves.iter().all(|leaf| table.state(*leaf).is_some()), "{}", image.name);
        for btree in TREES {
            let keys = all_keys(&volume, btree);
            for id in table.ids() {
                let Ok(view) = table.view(id) else { continue };
                let want = nearest(&keys, &table, id);
                check_tree(&volume, btree, &view, &want);
                if btree == BtreeId::EXTENTS && leaves.contains(&id) {
                    check_extents(&volume, &view, &want);
                }
                views += 1;
                keys_seen += want.len();
            }
        }
    }
    assert!(views > 300 && keys_seen > 50_000, "{views} views of {keys_seen} keys");
}
