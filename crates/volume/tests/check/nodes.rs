//! Damage to b-tree nodes and to the way down to them.

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::node::{BtreePtrV2, btree_ptr_key};
use frazil_ondisk::units::{Gen, SECTOR_BYTES};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf};
use frazil_surgery::Patient;
use frazil_testing::golden;
use frazil_volume::check::{Severity, Unchecked, check};

use super::damage::{Case, healthy, run};
use super::opened;

/// An image whose dirents, inodes and extents have several leaves.
const DEEP: &str = "06-deep-btree-node32k";

/// Some leaf in the middle of a b-tree.
fn leaf(patient: &Patient, btree: BtreeId) -> KeyBuf {
    let pointers = patient.level_keys(btree, 1);
    assert!(pointers.len() > 2, "{btree} has {} leaves", pointers.len());
    pointers[1].clone()
}

/// Overwrites bytes of the copies of a node (only the first `copies`).
fn overwrite(
    patient: &mut Patient,
    btree: BtreeId,
    level: u8,
    pos: Bpos,
    at: usize,
    bytes: &[u8],
    copies: usize,
) {
    for place in patient.node(btree, level, pos).places().into_iter().take(copies) {
        let mut sector = vec![0; SECTOR_BYTES as usize];
        patient.read(place.dev, place.offset, &mut sector);
        sector[at..at + bytes.len()].copy_from_slice(bytes);
        patient.write(place.dev, place.offset, &sector);
    }
}

/// Where a node's magic, number and checksum are (spec 30 §5.1).
const CSUM_AT: usize = 0;
const MAGIC_AT: usize = 16;
const SEQ_AT: usize = 136;

fn edit_pointer(patient: &mut Patient, btree: BtreeId, edit: impl FnOnce(&mut BtreePtrV2<'_>)) {
    let pos = leaf(patient, btree).k.pos;
    patient.edit_node(btree, 1, pos, |keys| {
        let key = keys.iter_mut().find(|key| key.k.pos == pos).expect("the pointer");
        let old = key.value.clone();
        let mut ptr = BtreePtrV2::decode(&old).expect("a pointer");
        edit(&mut ptr);
        *key = btree_ptr_key(pos, &ptr);
    });
}

#[test]
fn nodes() {
    run(&[
        Case {
            name: "magic of the only node (#44)",
            image: "02-small-tree",
            damage: |p| overwrite(p, BtreeId::DIRENTS, 0, Bpos::MIN, MAGIC_AT, &[0; 8], 1),
            finds: &[E::BTREE_ROOT_READ_ERROR],
        },
        Case {
            name: "checksum of a leaf (#48)",
            image: DEEP,
            damage: |p| {
                let pos = leaf(p, BtreeId::DIRENTS).k.pos;
                overwrite(p, BtreeId::DIRENTS, 0, pos, CSUM_AT, &[0xaa; 4], 1);
            },
            finds: &[E::BSET_BAD_CSUM],
        },
        Case {
            name: "magic of a leaf (#50)",
            image: DEEP,
            damage: |p| {
                let pos = leaf(p, BtreeId::DIRENTS).k.pos;
                overwrite(p, BtreeId::DIRENTS, 0, pos, MAGIC_AT, &[0; 8], 1);
            },
            finds: &[E::BTREE_NODE_BAD_MAGIC],
        },
        Case {
            name: "number of a leaf (#90)",
            image: DEEP,
            damage: |p| {
                let pos = leaf(p, BtreeId::DIRENTS).k.pos;
                overwrite(p, BtreeId::DIRENTS, 0, pos, SEQ_AT, &[0x55; 8], 1);
            },
            finds: &[E::BTREE_NODE_BAD_SEQ],
        },
        Case {
            name: "pointer to a leaf missing (#52)",
            image: DEEP,
            damage: |p| {
                let pos = leaf(p, BtreeId::DIRENTS).k.pos;
                p.edit_node(BtreeId::DIRENTS, 1, pos, |keys| keys.retain(|key| key.k.pos != pos));
            },
            finds: &[E::BTREE_NODE_TOPOLOGY_BAD_MIN_KEY],
        },
        Case {
            name: "pointer to the last leaf missing",
            image: DEEP,
            damage: |p| {
                p.edit_node(BtreeId::DIRENTS, 1, Bpos::MAX, |keys| drop(keys.pop()));
            },
            finds: &[E::BTREE_NODE_TOPOLOGY_BAD_MIN_KEY, E::BTREE_NODE_TOPOLOGY_BAD_MAX_KEY],
        },
        Case {
            name: "pointer to more than was written (#89)",
            image: DEEP,
            damage: |p| edit_pointer(p, BtreeId::DIRENTS, |ptr| ptr.sectors_written.0 += 8),
            finds: &[E::BTREE_NODE_DATA_MISSING],
        },
        Case {
            name: "pointer of a wrong generation",
            image: DEEP,
            damage: |p| {
                edit_pointer(p, BtreeId::DIRENTS, |ptr| {
                    let mut at = ptr.ptrs().next().expect("a place");
                    at.generation = Gen(at.generation.0 + 1);
                    // Leaked: a test's few bytes, which the pointer borrows.
                    ptr.entries = Box::leak(Box::new(at.to_word().to_le_bytes()));
                })
            },
            finds: &[E::PTR_GEN_NEWER_THAN_BUCKET_GEN],
        },
    ]);
}

#[test]
fn a_lost_copy_is_only_a_warning() {
    let image = golden::image("09-multi-replicas2");
    let mut patient = healthy(&image);
    overwrite(&mut patient, BtreeId::INODES, 0, Bpos::MIN, MAGIC_AT, &[0; 8], 1);
    // Which copy is read first depends on the node's number: damage the one that is.
    let mut report = check(&opened(&image, patient.devices()));
    if report.is_clean() {
        let mut patient = healthy(&image);
        let last = patient.node(BtreeId::INODES, 0, Bpos::MIN).places()[1];
        let mut sector = vec![0; SECTOR_BYTES as usize];
        patient.read(last.dev, last.offset, &mut sector);
        sector[MAGIC_AT..MAGIC_AT + 8].fill(0);
        patient.write(last.dev, last.offset, &sector);
        report = check(&opened(&image, patient.devices()));
    }
    let found: Vec<_> = report.counts().collect();
    assert_eq!(found, [(Severity::Warning, E::BTREE_NODE_BAD_MAGIC, 1)], "{:#?}", report.findings);
    assert!(report.notices.is_empty());
}

/// What cannot be read must not make everything else look wrong (spec 60 §9.4: the reference "repairs" live nodes then).
#[test]
fn nothing_is_concluded_from_lost_nodes() {
    let image = golden::image(DEEP);
    for btree in [BtreeId::DIRENTS, BtreeId::INODES, BtreeId::EXTENTS] {
        let mut patient = healthy(&image);
        let pos = leaf(&patient, btree).k.pos;
        overwrite(&mut patient, btree, 0, pos, MAGIC_AT, &[0; 8], 1);
        let report = check(&opened(&image, patient.devices()));
        let found: Vec<_> = report.counts().collect();
        assert_eq!(found, [(Severity::Error, E::BTREE_NODE_BAD_MAGIC, 1)], "{btree}: {:#?}", report.findings);
        assert!(report.notices.contains(&Unchecked::SpaceNodesLost), "{btree}");
    }
}
