//! Damage to snapshots and subvolumes.

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::{Inode, InodeFlags};
use frazil_ondisk::values::snapshot::{Snapshot, SnapshotTree};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_surgery::Patient;

use super::damage::{Case, edit_entry, edit_inode, edit_snapshot, edit_subvol, recode, run};

const IMAGE: &str = "10-snapshots";
/// A leaf two levels below its root, the snapshot of subvolume 10.
const LEAF: u32 = 4_294_967_278;
/// Its parent.
const INNER: u32 = 4_294_967_281;

fn edit_tree(patient: &mut Patient, tree: u64, edit: impl FnOnce(&mut SnapshotTree)) {
    patient.edit(BtreeId::SNAPSHOT_TREES, Bpos::new(0, tree, 0), |key| {
        recode(key, |old, new| {
            let mut tree = SnapshotTree::decode(old).expect("a tree");
            edit(&mut tree);
            tree.encode(new);
        })
    });
}

/// The entry that leads to a subvolume.
fn subvol_entry(patient: &Patient, subvol: u32) -> Bpos {
    let leads = |key: &KeyBuf| {
        key.k.ty == KeyType::DIRENT
            && Dirent::decode(&key.value)
                .is_ok_and(|d| matches!(d.target, DirentTarget::Subvol { child, .. } if child.0 == subvol))
    };
    patient.keys(BtreeId::DIRENTS).into_iter().find(leads).expect("the subvolume has a name").k.pos
}

/// An inode with versions in several snapshots: the position of the one all others descend from.
fn versioned(patient: &Patient) -> Bpos {
    let inodes = patient.keys(BtreeId::INODES);
    let flagged = |key: &&KeyBuf| {
        Inode::decode(key.k.ty, &key.value)
            .is_ok_and(|i| i.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT) && !i.is_dir())
    };
    inodes.iter().find(flagged).expect("a file with versions").k.pos
}

#[test]
fn snapshots() {
    run(&[
        Case {
            name: "depth (#30)",
            image: IMAGE,
            damage: |p| edit_snapshot(p, LEAF, |s| s.depth += 1),
            finds: &[E::SNAPSHOT_BAD_DEPTH],
        },
        Case {
            name: "skip list (#31)",
            image: IMAGE,
            damage: |p| edit_snapshot(p, LEAF, |s| s.skip[2] = SnapshotId(u32::MAX)),
            finds: &[E::SNAPSHOT_BAD_SKIPLIST],
        },
        Case {
            name: "tree (#32)",
            image: IMAGE,
            damage: |p| edit_snapshot(p, LEAF, |s| s.tree = 2),
            finds: &[E::SNAPSHOT_TO_BAD_SNAPSHOT_TREE],
        },
        Case {
            name: "parent below its child (#33)",
            image: IMAGE,
            damage: |p| edit_snapshot(p, LEAF, |s| s.parent = SnapshotId(LEAF - 1)),
            finds: &[E::SNAPSHOT_PARENT_BAD],
        },
        Case {
            name: "a parent that does not exist",
            image: IMAGE,
            damage: |p| edit_snapshot(p, LEAF, |s| s.parent = SnapshotId(4_294_967_283)),
            finds: &[E::SNAPSHOT_SKIPLIST_BAD],
        },
        Case {
            name: "a child too many",
            image: IMAGE,
            damage: |p| edit_snapshot(p, LEAF, |s| s.children[0] = SnapshotId(4_294_967_270)),
            finds: &[E::SNAPSHOT_EDGE_BAD, E::SUBVOL_SNAPSHOT_NOT_LEAF],
        },
        Case {
            name: "a subvolume where none should be",
            image: IMAGE,
            damage: |p| edit_snapshot(p, INNER, |s| s.subvol = SubvolId(3)),
            finds: &[E::SNAPSHOT_SHOULD_NOT_HAVE_SUBVOL],
        },
        Case {
            name: "another's subvolume",
            image: IMAGE,
            damage: |p| edit_snapshot(p, LEAF, |s| s.subvol = SubvolId(3)),
            finds: &[E::SNAPSHOT_SUBVOL_BACKREF_WRONG],
        },
        Case {
            name: "about to be deleted",
            image: IMAGE,
            damage: |p| edit_snapshot(p, INNER, |s| s.flags |= Snapshot::DELETED),
            finds: &[],
        },
        Case {
            name: "master of a tree (#34)",
            image: IMAGE,
            damage: |p| edit_tree(p, 2, |t| t.master_subvol = SubvolId(1)),
            finds: &[E::SNAPSHOT_TREE_TO_WRONG_SUBVOL, E::SUBVOL_NOT_MASTER_AND_NOT_SNAPSHOT],
        },
        Case {
            name: "a snapshot as master of a tree",
            image: IMAGE,
            damage: |p| edit_tree(p, 3, |t| t.master_subvol = SubvolId(10)),
            finds: &[E::SNAPSHOT_TREE_TO_SNAPSHOT_SUBVOL, E::SUBVOL_NOT_MASTER_AND_NOT_SNAPSHOT],
        },
        Case {
            name: "no master of a tree",
            image: IMAGE,
            damage: |p| edit_tree(p, 3, |t| t.master_subvol = SubvolId(99)),
            finds: &[E::SNAPSHOT_TREE_TO_MISSING_SUBVOL, E::SUBVOL_NOT_MASTER_AND_NOT_SNAPSHOT],
        },
        Case {
            name: "root of a tree",
            image: IMAGE,
            damage: |p| edit_tree(p, 3, |t| t.root_snapshot = SnapshotId(INNER)),
            finds: &[
                E::SNAPSHOT_TREE_TO_MISSING_SNAPSHOT,
                E::SNAPSHOT_TREE_TO_WRONG_SUBVOL,
                E::SNAPSHOT_TO_BAD_SNAPSHOT_TREE,
            ],
        },
    ]);
}

#[test]
fn subvolumes() {
    run(&[
        Case {
            name: "parent (#35)",
            image: IMAGE,
            damage: |p| edit_subvol(p, 5, |s| s.fs_path_parent = SubvolId(3)),
            finds: &[E::SUBVOL_FS_PATH_PARENT_WRONG, E::SUBVOL_CHILDREN_NOT_SET, E::SUBVOL_CHILDREN_BAD],
        },
        Case {
            name: "not listed as a child (#36)",
            image: IMAGE,
            damage: |p| p.remove(BtreeId::SUBVOLUME_CHILDREN, Bpos::new(1, 5, 0)),
            finds: &[E::SUBVOL_CHILDREN_NOT_SET],
        },
        Case {
            name: "root directory (#37)",
            image: IMAGE,
            damage: |p| edit_subvol(p, 4, |s| s.inode = Inum(99_999)),
            finds: &[E::SUBVOL_TO_MISSING_ROOT, E::INODE_BI_SUBVOL_WRONG],
        },
        Case {
            name: "snapshot (#38)",
            image: IMAGE,
            damage: |p| edit_subvol(p, 4, |s| s.snapshot = SnapshotId(LEAF)),
            finds: &[
                E::SNAPSHOT_TREE_TO_WRONG_SUBVOL,
                E::SUBVOL_NOT_MASTER_AND_NOT_SNAPSHOT,
                E::SUBVOL_TO_MISSING_ROOT,
                E::INODE_BI_SUBVOL_WRONG,
                E::SNAPSHOT_SUBVOL_BACKREF_WRONG,
            ],
        },
        Case {
            name: "a snapshot that does not exist",
            image: IMAGE,
            damage: |p| edit_subvol(p, 4, |s| s.snapshot = SnapshotId(5)),
            finds: &[
                E::SNAPSHOT_TREE_TO_WRONG_SUBVOL,
                E::INODE_BI_SUBVOL_WRONG,
                E::SUBVOL_SNAPSHOT_BAD,
                E::SNAPSHOT_SUBVOL_BACKREF_WRONG,
            ],
        },
        Case {
            name: "missing (#39)",
            image: IMAGE,
            damage: |p| p.remove(BtreeId::SUBVOLUMES, Bpos::new(0, 4, 0)),
            finds: &[
                E::SNAPSHOT_TREE_TO_MISSING_SUBVOL,
                E::DIRENT_TO_MISSING_SUBVOL,
                E::INODE_BI_SUBVOL_MISSING,
                E::SUBVOL_CHILDREN_BAD,
                E::SNAPSHOT_SUBVOL_BACKREF_WRONG,
            ],
        },
        Case {
            name: "the root subvolume missing",
            image: IMAGE,
            damage: |p| p.remove(BtreeId::SUBVOLUMES, Bpos::new(0, 1, 0)),
            finds: &[
                E::SNAPSHOT_TREE_TO_MISSING_SUBVOL,
                E::ROOT_SUBVOL_MISSING,
                E::INODE_BI_SUBVOL_MISSING,
                E::DIRENT_TO_MISSING_PARENT_SUBVOL,
                E::SUBVOL_UNREACHABLE,
                E::SNAPSHOT_SUBVOL_BACKREF_WRONG,
            ],
        },
        Case {
            name: "the root subvolume in another",
            image: IMAGE,
            damage: |p| edit_subvol(p, 1, |s| s.fs_path_parent = SubvolId(2)),
            finds: &[E::SUBVOL_ROOT_FS_PATH_PARENT_NONZERO, E::SUBVOL_CHILDREN_NOT_SET],
        },
        Case {
            name: "inside itself",
            image: IMAGE,
            damage: |p| edit_subvol(p, 5, |s| s.fs_path_parent = SubvolId(5)),
            finds: &[
                E::SUBVOL_FS_PATH_PARENT_WRONG,
                E::SUBVOL_CHILDREN_NOT_SET,
                E::SUBVOL_CHILDREN_BAD,
                E::SUBVOL_LOOP,
            ],
        },
        Case {
            name: "inside one that does not exist",
            image: IMAGE,
            damage: |p| edit_subvol(p, 5, |s| s.fs_path_parent = SubvolId(77)),
            finds: &[
                E::SUBVOL_FS_PATH_PARENT_WRONG,
                E::SUBVOL_CHILDREN_NOT_SET,
                E::SUBVOL_CHILDREN_BAD,
                E::SUBVOL_UNREACHABLE,
            ],
        },
        Case {
            name: "no snapshot, but one too many of its tree",
            image: IMAGE,
            damage: |p| edit_subvol(p, 5, |s| s.flags &= !Subvolume::SNAP),
            finds: &[E::SUBVOL_NOT_MASTER_AND_NOT_SNAPSHOT],
        },
        Case {
            name: "its root names another",
            image: IMAGE,
            damage: |p| {
                edit_inode(p, Bpos::new(0, 4098, 4_294_967_285), |i| i.subvol = SubvolId(7));
            },
            finds: &[
                E::SUBVOL_ROOT_WRONG_BI_SUBVOL,
                E::INODE_BI_SUBVOL_WRONG,
                E::INODE_POINTS_TO_WRONG_DIRENT,
            ],
        },
        Case {
            name: "its root names one that does not exist",
            image: IMAGE,
            damage: |p| {
                edit_inode(p, Bpos::new(0, 4098, 4_294_967_285), |i| i.subvol = SubvolId(99));
            },
            finds: &[
                E::SUBVOL_ROOT_WRONG_BI_SUBVOL,
                E::INODE_BI_SUBVOL_MISSING,
                E::INODE_POINTS_TO_WRONG_DIRENT,
            ],
        },
        Case {
            name: "its root names another parent",
            image: IMAGE,
            damage: |p| {
                edit_inode(p, Bpos::new(0, 4098, 4_294_967_285), |i| i.parent_subvol = SubvolId(3));
            },
            finds: &[E::INODE_BI_PARENT_WRONG, E::INODE_POINTS_TO_MISSING_DIRENT],
        },
        Case {
            name: "its name leads to none",
            image: IMAGE,
            damage: |p| {
                let pos = subvol_entry(p, 8);
                edit_entry(p, pos, |d| {
                    d.target = DirentTarget::Subvol { child: SubvolId(99), parent: SubvolId(1) }
                });
            },
            finds: &[E::DIRENT_TO_MISSING_SUBVOL, E::INODE_POINTS_TO_WRONG_DIRENT],
        },
        Case {
            name: "its name is in none",
            image: IMAGE,
            damage: |p| {
                let pos = subvol_entry(p, 8);
                edit_entry(p, pos, |d| {
                    d.target = DirentTarget::Subvol { child: SubvolId(8), parent: SubvolId(99) }
                });
            },
            finds: &[E::DIRENT_TO_MISSING_PARENT_SUBVOL],
        },
        Case {
            name: "its name is in one that does not see it",
            image: IMAGE,
            damage: |p| {
                let pos = subvol_entry(p, 8);
                edit_entry(p, pos, |d| {
                    d.target = DirentTarget::Subvol { child: SubvolId(8), parent: SubvolId(3) }
                });
            },
            finds: &[E::DIRENT_NOT_VISIBLE_IN_PARENT_SUBVOL],
        },
        Case {
            name: "versions of an inode that differ",
            image: IMAGE,
            damage: |p| {
                let pos = versioned(p);
                edit_inode(p, pos, |i| i.hash_seed ^= 1);
            },
            finds: &[E::INODE_SNAPSHOT_MISMATCH, E::HASH_TABLE_KEY_WRONG_OFFSET],
        },
        Case {
            name: "versions of an inode that are denied",
            image: IMAGE,
            damage: |p| {
                let pos = versioned(p);
                edit_inode(p, pos, |i| i.flags.set(InodeFlags::HAS_CHILD_SNAPSHOT, false));
            },
            finds: &[E::INODE_HAS_CHILD_SNAPSHOTS_WRONG],
        },
    ]);
}
