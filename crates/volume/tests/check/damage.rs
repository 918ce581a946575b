//! One damaged image per kind of inconsistency. Each case changes one thing in a real image, checksums right, and expects
//! exactly these ids; those with a number are the experiments of spec 60 §13, where the reference reports the same.

use std::collections::{BTreeSet, HashMap};

use frazil_device::MemDevice;
use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::units::Inum;
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::values::snapshot::Snapshot;
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_surgery::Patient;
use frazil_testing::golden::{self, GoldenImage};
use frazil_volume::check::{Report, Severity, check};

use super::opened;

/// The snapshot of volumes that never had another.
pub(super) const ONLY: u32 = u32::MAX;

/// A change to an image, and what the check must say then.
pub(super) struct Case {
    /// What is done.
    pub(super) name: &'static str,
    pub(super) image: &'static str,
    pub(super) damage: fn(&mut Patient),
    /// Ids of all errors and warnings, ascending.
    pub(super) finds: &'static [E],
}

/// Runs every case on its own copy of its image.
pub(super) fn run(cases: &[Case]) {
    let mut patients = HashMap::new();
    let mut wrong = Vec::new();
    for case in cases {
        let image = golden::image(case.image);
        let mut patient = patients.entry(case.image).or_insert_with(|| healthy(&image)).copy();
        (case.damage)(&mut patient);
        let report = check(&opened(&image, patient.devices()));
        let found = ids(&report);
        assert!(case.finds.is_sorted(), "{}: ids in order", case.name);
        if found != case.finds {
            wrong.push(format!(
                "{}: found {found:?}, not {:?}: {:#?}",
                case.name,
                case.finds,
                lines(&report)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An image to operate on.
pub(super) fn healthy(image: &GoldenImage) -> Patient {
    Patient::new(image.unpack().iter().map(|path| MemDevice::from_file(path).expect("readable")).collect())
}

fn ids(report: &Report) -> Vec<E> {
    let real = report.counts().filter(|(severity, ..)| *severity != Severity::Pending);
    real.map(|(_, id, _)| id).collect::<BTreeSet<_>>().into_iter().collect()
}

fn lines(report: &Report) -> Vec<String> {
    report
        .findings
        .iter()
        .take(20)
        .map(|f| f.to_string())
        .chain(report.notices.iter().map(|n| n.to_string()))
        .collect()
}

/// The entry of that name in a directory: its position and value.
pub(super) fn entry(patient: &Patient, dir: u64, name: &str) -> KeyBuf {
    let same = |key: &KeyBuf| {
        key.k.pos.inode == dir
            && key.k.ty == KeyType::DIRENT
            && Dirent::decode(&key.value).is_ok_and(|d| d.name == name.as_bytes())
    };
    patient.keys(BtreeId::DIRENTS).into_iter().find(same).unwrap_or_else(|| panic!("no {name} in {dir}"))
}

/// The inode an entry leads to.
pub(super) fn inum(patient: &Patient, path: &str) -> u64 {
    path.split('/').fold(Inum::ROOT.0, |dir, name| {
        match Dirent::decode(&entry(patient, dir, name).value).expect("a dirent").target {
            DirentTarget::Inode(inum) => inum.0,
            DirentTarget::Subvol { .. } => panic!("{name} is a subvolume"),
        }
    })
}

/// Position of an inode in a volume with one snapshot.
pub(super) fn inode_pos(patient: &Patient, path: &str) -> Bpos {
    Bpos::new(0, inum(patient, path), ONLY)
}

/// Replaces a value by what `edit` makes of it.
pub(super) fn recode(key: &mut KeyBuf, encode: impl FnOnce(&[u8], &mut Vec<u8>)) {
    let mut value = Vec::new();
    encode(&key.value, &mut value);
    key.value = value.into();
}

pub(super) fn edit_inode(patient: &mut Patient, pos: Bpos, edit: impl FnOnce(&mut Inode)) {
    patient.edit(BtreeId::INODES, pos, |key| {
        recode(key, |old, new| {
            let mut inode = Inode::decode_v3(old).expect("an inode");
            edit(&mut inode);
            inode.encode(new);
        })
    });
}

pub(super) fn edit_entry(patient: &mut Patient, pos: Bpos, edit: impl FnOnce(&mut Dirent<'_>)) {
    patient.edit(BtreeId::DIRENTS, pos, |key| {
        recode(key, |old, new| {
            let mut dirent = Dirent::decode(old).expect("a dirent");
            edit(&mut dirent);
            dirent.encode(new);
        })
    });
}

pub(super) fn edit_snapshot(patient: &mut Patient, id: u32, edit: impl FnOnce(&mut Snapshot)) {
    patient.edit(BtreeId::SNAPSHOTS, Bpos::new(0, id.into(), 0), |key| {
        recode(key, |old, new| {
            let mut snapshot = Snapshot::decode(old).expect("a snapshot");
            edit(&mut snapshot);
            snapshot.encode(new);
        })
    });
}

pub(super) fn edit_subvol(patient: &mut Patient, id: u32, edit: impl FnOnce(&mut Subvolume)) {
    patient.edit(BtreeId::SUBVOLUMES, Bpos::new(0, id.into(), 0), |key| {
        recode(key, |old, new| {
            let mut subvol = Subvolume::decode(old).expect("a subvolume");
            edit(&mut subvol);
            subvol.encode(new);
        })
    });
}

/// What the operations on images leave behind is sound: a node written anew, or one that needs another number of blocks, is no
/// damage.
#[test]
fn operations_alone_do_no_damage() {
    for name in ["02-small-tree", "06-deep-btree-node32k", "09-multi-tiered", "10-snapshots"] {
        let image = golden::image(name);
        let mut patient = healthy(&image);
        let before = patient.copy();
        for btree in BtreeId::known() {
            let Some((top, _)) = patient.root(btree) else { continue };
            for level in 0..=top {
                for pos in [Bpos::MIN, Bpos::MAX] {
                    patient.edit_node(btree, level, pos, |_| {});
                }
            }
            assert!(patient.keys(btree) == before.keys(btree), "{name}: {btree}");
        }
        let report = check(&opened(&image, patient.devices()));
        assert!(report.is_clean(), "{name}: {:#?}", lines(&report));
    }
}
