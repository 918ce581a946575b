//! Unfinished work where there should be none.

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::units::{Inum, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::InodeFlags;
use frazil_ondisk::values::logged_op::LoggedTruncate;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_surgery::Patient;

use super::damage::{Case, ONLY, edit_inode, entry, run};

/// Frozen while an unlinked file was open: the list of deleted inodes is not empty, which is wrong by itself (211).
const FROZEN: &str = "15-frozen-orphan";

/// The one inode that is listed.
fn listed(patient: &Patient) -> Bpos {
    patient.keys(BtreeId::DELETED_INODES)[0].k.pos
}

#[test]
fn deleted_inodes() {
    run(&[
        Case {
            name: "as the reference left it",
            image: FROZEN,
            damage: |_| {},
            finds: &[E::DELETED_INODE_BUT_CLEAN],
        },
        Case {
            name: "listed but missing",
            image: FROZEN,
            damage: |p| {
                let pos = listed(p);
                p.put(
                    BtreeId::DELETED_INODES,
                    KeyBuf::new(KeyType::SET, Bpos { offset: pos.offset + 1000, ..pos }, 0, []),
                );
            },
            finds: &[E::DELETED_INODE_BUT_CLEAN, E::DELETED_INODE_MISSING],
        },
        Case {
            name: "unlinked but not listed",
            image: FROZEN,
            damage: |p| {
                let pos = listed(p);
                p.remove(BtreeId::DELETED_INODES, pos);
            },
            finds: &[E::UNLINKED_INODE_NOT_ON_DELETED_LIST],
        },
        Case {
            name: "listed but linked",
            image: FROZEN,
            damage: |p| {
                let root = KeyBuf::new(KeyType::SET, Bpos::new(0, Inum::ROOT.0, ONLY), 0, []);
                p.put(BtreeId::DELETED_INODES, root);
            },
            finds: &[E::DELETED_INODE_BUT_CLEAN, E::DELETED_INODE_NOT_UNLINKED],
        },
        Case {
            name: "listed but with versions in snapshots",
            image: FROZEN,
            damage: |p| {
                let pos = listed(p);
                edit_inode(p, pos, |i| i.flags.set(InodeFlags::HAS_CHILD_SNAPSHOT, true));
            },
            finds: &[E::INODE_HAS_CHILD_SNAPSHOTS_WRONG, E::DELETED_INODE_HAS_CHILD_SNAPSHOTS],
        },
        Case {
            name: "listed but a directory with entries",
            image: FROZEN,
            damage: |p| {
                let name = entry(p, Inum::ROOT.0, "lost+found");
                let Ok(dirent) = Dirent::decode(&name.value) else { panic!("a dirent") };
                let DirentTarget::Inode(dir) = dirent.target else { panic!("an inode") };
                // The name moves into the directory that it named.
                let other = p
                    .keys(BtreeId::DIRENTS)
                    .into_iter()
                    .find(|k| k.k.pos.inode == Inum::ROOT.0 && k.k.pos != name.k.pos)
                    .expect("another name");
                let mut inside = other.clone();
                inside.k.pos.inode = dir.0;
                p.put(BtreeId::DIRENTS, inside);
                p.remove(BtreeId::DIRENTS, name.k.pos);
                let pos = Bpos::new(0, dir.0, ONLY);
                edit_inode(p, pos, |i| {
                    i.flags.set(InodeFlags::UNLINKED, true);
                    (i.dir, i.dir_offset) = (Inum(0), 0);
                });
                p.put(BtreeId::DELETED_INODES, KeyBuf::new(KeyType::SET, pos, 0, []));
            },
            finds: &[
                E::INODE_DIR_WRONG_NLINK,
                E::INODE_DIR_MULTIPLE_LINKS,
                E::DELETED_INODE_BUT_CLEAN,
                E::DELETED_INODE_IS_DIR,
                E::HASH_TABLE_KEY_WRONG_OFFSET,
                E::INODE_DIR_UNLINKED_BUT_NOT_EMPTY,
            ],
        },
    ]);
}

#[test]
fn logged_operations() {
    run(&[Case {
        name: "a truncation that was not finished",
        image: "18-newer-1.39-tree",
        damage: |p| {
            let mut value = Vec::new();
            LoggedTruncate { subvol: SubvolId(1), pad: 0, inum: Inum(4099), new_size: 0 }.encode(&mut value);
            p.put(
                BtreeId::LOGGED_OPS,
                KeyBuf::new(KeyType::LOGGED_OP_TRUNCATE, Bpos::new(0, 1, 0), 0, value),
            );
        },
        finds: &[E::LOGGED_OP_BUT_CLEAN],
    }]);
}
