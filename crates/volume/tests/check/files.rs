//! Damage to inodes, names, extents, attributes and shared data.

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::units::{Inum, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::{FileType, InodeFlags, Mode};
use frazil_ondisk::values::reflink::{ReflinkP, ReflinkV};
use frazil_ondisk::values::reservation::Reservation;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_surgery::Patient;

use super::damage::{Case, ONLY, edit_entry, edit_inode, entry, inode_pos, inum, recode, run};

const TREE: &str = "02-small-tree";

/// A file with one name and real extents, in a directory that has others.
const FILE: &str = "sizes/s65537";
/// A file with three names, one of them in another directory.
const LINKED: &str = "links/hard1";

fn file_entry(patient: &Patient) -> Bpos {
    entry(patient, inum(patient, "sizes"), "s65537").k.pos
}

fn file_extent(patient: &Patient) -> KeyBuf {
    let inum = inum(patient, FILE);
    patient.keys(BtreeId::EXTENTS).into_iter().find(|k| k.k.pos.inode == inum).expect("the file has extents")
}

#[test]
fn names() {
    run(&[
        Case {
            name: "to an inode that does not exist (#1)",
            image: TREE,
            damage: |p| {
                let pos = file_entry(p);
                edit_entry(p, pos, |d| d.target = DirentTarget::Inode(Inum(99_999)));
            },
            finds: &[E::INODE_UNREACHABLE, E::DIRENT_TO_MISSING_INODE, E::INODE_POINTS_TO_WRONG_DIRENT],
        },
        Case {
            name: "to another file (#2)",
            image: TREE,
            damage: |p| {
                let (pos, other) = (file_entry(p), inum(p, "sizes/s4096"));
                edit_entry(p, pos, |d| d.target = DirentTarget::Inode(Inum(other)));
            },
            finds: &[
                E::INODE_MULTIPLE_LINKS_BUT_NLINK_0,
                E::INODE_UNREACHABLE,
                E::INODE_POINTS_TO_WRONG_DIRENT,
            ],
        },
        Case {
            name: "with a wrong type (#3)",
            image: TREE,
            damage: |p| {
                let pos = file_entry(p);
                edit_entry(p, pos, |d| d.ty = FileType::DIR);
            },
            finds: &[E::INODE_DIR_WRONG_NLINK, E::DIRENT_D_TYPE_WRONG],
        },
        Case {
            name: "with another name (#4)",
            image: TREE,
            damage: |p| {
                let pos = file_entry(p);
                edit_entry(p, pos, |d| d.name = b"t65537");
            },
            finds: &[E::HASH_TABLE_KEY_WRONG_OFFSET],
        },
        Case {
            name: "of a file missing (#5)",
            image: TREE,
            damage: |p| {
                let pos = file_entry(p);
                p.remove(BtreeId::DIRENTS, pos);
            },
            finds: &[E::INODE_UNREACHABLE, E::INODE_POINTS_TO_MISSING_DIRENT],
        },
        Case {
            name: "of a directory missing (#6)",
            image: TREE,
            damage: |p| {
                let pos = entry(p, Inum::ROOT.0, "sizes").k.pos;
                p.remove(BtreeId::DIRENTS, pos);
            },
            finds: &[E::INODE_DIR_WRONG_NLINK, E::INODE_UNREACHABLE, E::INODE_POINTS_TO_MISSING_DIRENT],
        },
        Case {
            name: "of a directory twice",
            image: TREE,
            damage: |p| {
                let pos = file_entry(p);
                let dir = inum(p, "links");
                edit_entry(p, pos, |d| (d.target, d.ty) = (DirentTarget::Inode(Inum(dir)), FileType::DIR));
            },
            finds: &[
                E::INODE_DIR_WRONG_NLINK,
                E::INODE_DIR_MULTIPLE_LINKS,
                E::INODE_UNREACHABLE,
                E::INODE_POINTS_TO_WRONG_DIRENT,
            ],
        },
        Case {
            name: "twice in a directory",
            image: TREE,
            damage: |p| {
                // A second item one slot behind, and the same name in it.
                let mut key = entry(p, inum(p, "sizes"), "s65537");
                key.k.pos.offset += 1;
                p.put(BtreeId::DIRENTS, key);
            },
            finds: &[E::INODE_MULTIPLE_LINKS_BUT_NLINK_0, E::HASH_TABLE_KEY_DUPLICATE],
        },
        Case {
            name: "in a slot that a lookup does not reach",
            image: TREE,
            damage: |p| {
                let mut key = entry(p, inum(p, "sizes"), "s65537");
                p.remove(BtreeId::DIRENTS, key.k.pos);
                key.k.pos.offset += 1;
                let slot = key.k.pos.offset;
                p.put(BtreeId::DIRENTS, key);
                let pos = inode_pos(p, FILE);
                edit_inode(p, pos, |i| i.dir_offset = slot);
            },
            finds: &[E::HASH_TABLE_KEY_WRONG_OFFSET],
        },
        Case {
            name: "in something that is no directory",
            image: TREE,
            damage: |p| {
                let mut key = entry(p, inum(p, "sizes"), "s65537");
                key.k.pos.inode = inum(p, "sizes/s4096");
                p.put(BtreeId::DIRENTS, key);
            },
            finds: &[E::KEY_IN_WRONG_INODE_TYPE],
        },
        Case {
            name: "in a directory inside itself",
            image: TREE,
            damage: |p| {
                // deep/… becomes the parent of deep: its name moves down.
                let deep = inum(p, "deep");
                let below = p
                    .keys(BtreeId::DIRENTS)
                    .into_iter()
                    .find(|k| k.k.pos.inode == deep && k.k.ty == KeyType::DIRENT)
                    .expect("deep is not empty");
                let inner = match Dirent::decode(&below.value).expect("a dirent").target {
                    DirentTarget::Inode(inum) => inum,
                    DirentTarget::Subvol { .. } => panic!("no subvolumes here"),
                };
                let mut key = entry(p, Inum::ROOT.0, "deep");
                p.remove(BtreeId::DIRENTS, key.k.pos);
                key.k.pos.inode = inner.0;
                p.put(BtreeId::DIRENTS, key);
                edit_inode(p, Bpos::new(0, deep, ONLY), |i| i.dir = inner);
            },
            finds: &[E::INODE_DIR_WRONG_NLINK, E::DIR_LOOP, E::HASH_TABLE_KEY_WRONG_OFFSET],
        },
    ]);
}

#[test]
fn inodes() {
    run(&[
        Case {
            name: "a file missing (#7)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, FILE);
                p.remove(BtreeId::INODES, pos);
            },
            finds: &[E::KEY_IN_MISSING_INODE, E::DIRENT_TO_MISSING_INODE, E::ACCOUNTING_MISMATCH],
        },
        Case {
            name: "the root directory missing (#8)",
            image: TREE,
            damage: |p| p.remove(BtreeId::INODES, Bpos::new(0, Inum::ROOT.0, ONLY)),
            finds: &[
                E::SUBVOL_TO_MISSING_ROOT,
                E::KEY_IN_MISSING_INODE,
                E::ROOT_DIR_MISSING,
                E::ACCOUNTING_MISMATCH,
            ],
        },
        Case {
            name: "a file with attributes missing (#42)",
            image: TREE,
            damage: |p| {
                let owner = p.keys(BtreeId::XATTRS)[0].k.pos.inode;
                p.remove(BtreeId::INODES, Bpos::new(0, owner, ONLY));
            },
            finds: &[E::KEY_IN_MISSING_INODE, E::DIRENT_TO_MISSING_INODE, E::ACCOUNTING_MISMATCH],
        },
        Case {
            name: "links of a file (#9)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, LINKED);
                edit_inode(p, pos, |i| i.nlink_raw = 5);
            },
            finds: &[E::INODE_WRONG_NLINK],
        },
        Case {
            name: "links of a directory (#10)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, "deep");
                edit_inode(p, pos, |i| i.nlink_raw += 1);
            },
            finds: &[E::INODE_DIR_WRONG_NLINK],
        },
        Case {
            name: "three names, one link (#11)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, LINKED);
                edit_inode(p, pos, |i| i.nlink_raw = 0);
            },
            finds: &[E::INODE_MULTIPLE_LINKS_BUT_NLINK_0],
        },
        Case {
            name: "where the name is (#12)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, FILE);
                edit_inode(p, pos, |i| i.dir_offset += 1);
            },
            finds: &[E::INODE_WRONG_BACKPOINTER, E::INODE_POINTS_TO_MISSING_DIRENT],
        },
        Case {
            name: "a directory that does not know its name",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, "sizes");
                edit_inode(p, pos, |i| (i.dir, i.dir_offset) = (Inum(0), 0));
            },
            finds: &[E::INODE_UNREACHABLE, E::INODE_DIR_MISSING_BACKPOINTER],
        },
        Case {
            name: "sectors (#13)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, FILE);
                edit_inode(p, pos, |i| i.sectors.0 += 8);
            },
            finds: &[E::INODE_I_SECTORS_WRONG],
        },
        Case {
            name: "size (#14)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, FILE);
                edit_inode(p, pos, |i| i.size = 4096);
            },
            finds: &[E::EXTENT_PAST_END_OF_INODE],
        },
        Case {
            name: "unlinked although it has a name (#15)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, FILE);
                edit_inode(p, pos, |i| i.flags.set(InodeFlags::UNLINKED, true));
            },
            finds: &[E::UNLINKED_INODE_NOT_ON_DELETED_LIST, E::INODE_UNLINKED_BUT_HAS_DIRENT],
        },
        Case {
            name: "an unlinked directory with entries",
            image: TREE,
            damage: |p| {
                let (pos, name) = (inode_pos(p, "sizes"), entry(p, Inum::ROOT.0, "sizes").k.pos);
                p.remove(BtreeId::DIRENTS, name);
                edit_inode(p, Bpos::new(0, Inum::ROOT.0, ONLY), |i| i.nlink_raw -= 1);
                edit_inode(p, pos, |i| {
                    i.flags.set(InodeFlags::UNLINKED, true);
                    (i.dir, i.dir_offset) = (Inum(0), 0);
                });
            },
            finds: &[E::UNLINKED_INODE_NOT_ON_DELETED_LIST, E::INODE_DIR_UNLINKED_BUT_NOT_EMPTY],
        },
        Case {
            name: "versions in snapshots (#16)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, FILE);
                edit_inode(p, pos, |i| i.flags.set(InodeFlags::HAS_CHILD_SNAPSHOT, true));
            },
            finds: &[E::INODE_HAS_CHILD_SNAPSHOTS_WRONG],
        },
        Case {
            name: "hash seed of a directory (#17)",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, "sizes");
                edit_inode(p, pos, |i| i.hash_seed ^= 1);
            },
            finds: &[E::HASH_TABLE_KEY_WRONG_OFFSET],
        },
        Case {
            name: "a parent subvolume without a subvolume",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, "sizes");
                edit_inode(p, pos, |i| i.parent_subvol = SubvolId(1));
            },
            finds: &[E::INODE_BI_PARENT_NONZERO],
        },
        Case {
            name: "an unlinked link count",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, LINKED);
                edit_inode(p, pos, |i| i.flags.set(InodeFlags::UNLINKED, true));
            },
            finds: &[
                E::INODE_UNLINKED_BUT_NLINK_NONZERO,
                E::UNLINKED_INODE_NOT_ON_DELETED_LIST,
                E::INODE_UNLINKED_BUT_HAS_DIRENT,
            ],
        },
    ]);
}

#[test]
fn contents() {
    run(&[
        Case {
            name: "an extent of a directory",
            image: TREE,
            damage: |p| {
                let pos = inode_pos(p, FILE);
                edit_inode(p, pos, |i| i.mode = Mode::new(FileType::FIFO, 0o600));
            },
            finds: &[E::KEY_IN_WRONG_INODE_TYPE, E::DIRENT_D_TYPE_WRONG],
        },
        Case {
            name: "overlapping extents",
            image: TREE,
            damage: |p| {
                let key = file_extent(p);
                // A hole of reserved space that begins inside the first extent.
                let pos = Bpos { offset: key.k.pos.offset + 4, ..key.k.pos };
                let mut value = Vec::new();
                Reservation::new(1).encode(&mut value);
                p.put(BtreeId::EXTENTS, KeyBuf::new(KeyType::RESERVATION, pos, 8, value));
            },
            finds: &[E::INODE_I_SECTORS_WRONG, E::EXTENT_OVERLAPPING, E::ACCOUNTING_MISMATCH],
        },
        Case {
            name: "an attribute of a missing inode",
            image: TREE,
            damage: |p| {
                let mut key = p.keys(BtreeId::XATTRS)[0].clone();
                key.k.pos.inode = 99_999;
                p.put(BtreeId::XATTRS, key);
            },
            finds: &[E::KEY_IN_MISSING_INODE],
        },
        Case {
            name: "an attribute in the wrong slot",
            image: TREE,
            damage: |p| {
                let mut key = p.keys(BtreeId::XATTRS)[0].clone();
                p.remove(BtreeId::XATTRS, key.k.pos);
                key.k.pos.offset += 1;
                p.put(BtreeId::XATTRS, key);
            },
            finds: &[E::HASH_TABLE_KEY_WRONG_OFFSET],
        },
        Case {
            name: "a key in a snapshot that does not exist",
            image: TREE,
            damage: |p| {
                let mut key = file_extent(p);
                key.k.pos.snapshot = 77;
                key.k.ty = KeyType::ERROR;
                key.value = [].into();
                p.put(BtreeId::EXTENTS, key);
            },
            finds: &[E::BKEY_IN_MISSING_SNAPSHOT],
        },
        Case {
            name: "a version that was not given out",
            image: TREE,
            damage: |p| {
                let pos = file_extent(p).k.pos;
                p.edit(BtreeId::EXTENTS, pos, |key| key.k.version.lo = 1000);
            },
            finds: &[E::BKEY_VERSION_IN_FUTURE],
        },
    ]);
}

#[test]
fn shared_data() {
    let image = "11-reflink";
    run(&[
        Case {
            name: "references of an indirect extent (#40)",
            image,
            damage: |p| {
                let key = p
                    .keys(BtreeId::REFLINK)
                    .into_iter()
                    .find(|k| k.k.ty == KeyType::REFLINK_V)
                    .expect("shared data");
                p.edit(BtreeId::REFLINK, key.k.pos, |key| {
                    recode(key, |old, new| {
                        let v = ReflinkV::decode(old).expect("shared data");
                        ReflinkV { refcount: 9, ..v }.encode(new);
                    })
                });
            },
            finds: &[E::REFLINK_V_REFCOUNT_WRONG],
        },
        Case {
            name: "a reference to nothing",
            image,
            damage: |p| {
                let key = p
                    .keys(BtreeId::EXTENTS)
                    .into_iter()
                    .find(|k| k.k.ty == KeyType::REFLINK_P)
                    .expect("a reference");
                p.edit(BtreeId::EXTENTS, key.k.pos, |key| {
                    recode(key, |old, new| {
                        let v = ReflinkP::decode(old).expect("a reference");
                        ReflinkP { idx: 1 << 40, ..v }.encode(new);
                    })
                });
            },
            finds: &[E::REFLINK_V_REFCOUNT_WRONG, E::REFLINK_P_TO_MISSING_REFLINK_V],
        },
    ]);
}
