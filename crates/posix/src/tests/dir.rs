//! Names: what real images do not have, or do not have on purpose.

use std::ops::ControlFlow;

use frazil_ondisk::units::{Inum, SubvolId};
use frazil_ondisk::values::dirent::Dirent;
use frazil_ondisk::values::inode::{FileType as Type, Inode, InodeFlags, InodeOpt};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use crate::attr::{FileType, NodeId};
use crate::error::Error;
use crate::hashed::OnDamage;
use crate::namespace::Namespace;
use crate::testing::{Keys, SNAPSHOT, entry, inode, slot, subvol_entry};
use crate::walk::{Visit, WalkStep};

const ONE: [(u32, u32); 1] = [(SNAPSHOT, 0)];

/// Names and types of a directory.
fn list(names: &Namespace, dir: NodeId) -> Vec<(String, FileType)> {
    let mut listed = Vec::new();
    names
        .readdir(dir, 0, OnDamage::Stop, &mut |entry| {
            listed.push((String::from_utf8_lossy(entry.name).into_owned(), entry.kind));
            ControlFlow::Continue(())
        })
        .unwrap();
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    listed
}

fn inum_of(names: &Namespace, dir: NodeId, name: &[u8]) -> Result<u64, Error> {
    names.lookup(dir, name).map(|attr| attr.node.inum.0)
}

#[test]
fn kinds_of_failure() {
    let mut keys = Keys::volume();
    keys.file(Inum::ROOT, b"file", Inum(5000), &inode(Type::REG));
    let names = keys.namespace(&ONE);
    let file = names.lookup(NodeId::ROOT, b"file").unwrap();
    assert_eq!((file.kind, file.nlink, file.perm), (FileType::Regular, 1, 0o644));
    assert!(matches!(names.lookup(NodeId::ROOT, b"absent"), Err(Error::NotFound)));
    assert!(matches!(names.lookup(file.node, b"x"), Err(Error::NotDirectory)));
    assert!(matches!(names.lookup(NodeId::ROOT, &[b'x'; 513]), Err(Error::NameTooLong)));
    assert!(matches!(names.lookup(NodeId::ROOT, &[b'x'; 512]), Err(Error::NotFound)));
    let gone = NodeId { inum: Inum(7000), ..NodeId::ROOT };
    assert!(matches!(names.getattr(gone), Err(Error::Stale(node)) if node == gone));
    let elsewhere = NodeId { subvol: SubvolId(9), ..NodeId::ROOT };
    assert!(matches!(names.getattr(elsewhere), Err(Error::Stale(_))));
}

#[test]
fn an_entry_without_inode_is_damage_and_is_still_listed() {
    let mut keys = Keys::volume();
    keys.dirent(Inum::ROOT, SNAPSHOT, &entry(b"lost", Inum(6000), Type::REG));
    keys.put(BtreeId::INODES, KeyType::INODE_GENERATION, Bpos::new(0, 6000, SNAPSHOT), [0; 8]);
    let names = keys.namespace(&ONE);
    let error = names.lookup(NodeId::ROOT, b"lost").unwrap_err();
    assert!(matches!(&error, Error::Io(text) if text.contains("lost") && text.contains("6000")), "{error}");
    assert_eq!(list(&names, NodeId::ROOT), [("lost".to_owned(), FileType::Regular)]);
    let mut shown = 0;
    names
        .readdir_plus(NodeId::ROOT, 0, &mut |_, attr| {
            assert_eq!(attr, None);
            shown += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(shown, 1);
}

/// Names no program could use are passed over; so is what lies about its type, if the inode knows better.
#[test]
fn unusable_entries_do_not_spoil_a_listing() {
    let mut keys = Keys::volume();
    keys.file(Inum::ROOT, b"good", Inum(5000), &inode(Type::REG));
    for (i, name) in [&b"."[..], b"..", b"a/b", b"nul\0nul"].into_iter().enumerate() {
        keys.dirent_at(Inum::ROOT, 100 + i as u64, SNAPSHOT, &entry(name, Inum(5000), Type::REG));
    }
    keys.put(BtreeId::DIRENTS, KeyType::DIRENT, Bpos::new(4096, 200, SNAPSHOT), [1; 8]);
    keys.put(BtreeId::DIRENTS, KeyType(250), Bpos::new(4096, 201, SNAPSHOT), [1; 8]);
    keys.dirent_at(Inum::ROOT, 300, SNAPSHOT, &entry(b"odd type", Inum(5000), Type(5)));
    let names = keys.namespace(&ONE);
    let good = |name: &str| (name.to_owned(), FileType::Regular);
    assert_eq!(list(&names, NodeId::ROOT), [good("good"), good("odd type")]);
}

#[test]
fn a_subvolume_is_seen_only_from_where_it_was_made() {
    let mut keys = Keys::volume();
    // A snapshot of subvolume 1 (now 2) and a subvolume 3 in it.
    keys.subvolume(1, 50, Inum::ROOT, 0);
    keys.subvolume(2, 40, Inum::ROOT, Subvolume::SNAP);
    keys.subvolume(3, 90, Inum(8000), 0);
    keys.subvolume(4, 80, Inum(8001), Subvolume::UNLINKED);
    let root_of = |parent: u32, name: &[u8]| Inode {
        parent_subvol: SubvolId(parent),
        dir: Inum::ROOT,
        dir_offset: slot(name),
        ..inode(Type::DIR)
    };
    keys.inode(Inum(8000), 90, &root_of(1, b"sub"));
    keys.inode(Inum(8001), 80, &root_of(1, b"dead"));
    keys.dirent(Inum::ROOT, SNAPSHOT, &subvol_entry(b"sub", 3, 1));
    keys.dirent(Inum::ROOT, SNAPSHOT, &subvol_entry(b"dead", 4, 1));
    let names = keys.namespace(&[(SNAPSHOT, 0), (50, SNAPSHOT), (40, SNAPSHOT), (90, 0), (80, 0)]);

    let sub = names.lookup(NodeId::ROOT, b"sub").unwrap().node;
    assert_eq!(sub, NodeId { subvol: SubvolId(3), inum: Inum(8000) });
    assert_eq!(names.parent(sub).unwrap(), NodeId::ROOT);
    assert_eq!(names.path_of(sub), b"/sub");
    assert_eq!(list(&names, NodeId::ROOT), [("sub".to_owned(), FileType::Directory)]);
    assert!(matches!(names.lookup(NodeId::ROOT, b"dead"), Err(Error::NotFound)));
    assert!(matches!(names.getattr(NodeId { subvol: SubvolId(4), inum: Inum(8001) }), Err(Error::Stale(_))));

    let snapshot = NodeId { subvol: SubvolId(2), inum: Inum::ROOT };
    assert!(matches!(names.lookup(snapshot, b"sub"), Err(Error::NotFound)));
    assert_eq!(list(&names, snapshot), []);
    let ids: Vec<u32> = names.subvolumes().unwrap().iter().map(|s| s.id.0).collect();
    assert_eq!(ids, [1, 2, 3]);
}

/// In a snapshot the entry of a subvolume is not seen, but what had been pushed past it still is (spec 40 §5.3).
#[test]
fn a_chain_goes_on_behind_an_invisible_entry() {
    let mut keys = Keys::volume();
    let at = slot(b"name");
    keys.inode(Inum(5000), SNAPSHOT, &inode(Type::REG));
    keys.dirent_at(Inum::ROOT, at, SNAPSHOT, &entry(b"other", Inum(5000), Type::REG));
    keys.dirent_at(Inum::ROOT, at + 1, SNAPSHOT, &entry(b"name", Inum(5000), Type::REG));
    assert_eq!(inum_of(&keys.namespace(&ONE), NodeId::ROOT, b"name").unwrap(), 5000);
    keys.dirent_at(Inum::ROOT, at, SNAPSHOT, &subvol_entry(b"other", 2, 7));
    assert_eq!(inum_of(&keys.namespace(&ONE), NodeId::ROOT, b"name").unwrap(), 5000);
    assert!(matches!(inum_of(&keys.namespace(&ONE), NodeId::ROOT, b"other"), Err(Error::NotFound)));
    keys.put(BtreeId::DIRENTS, KeyType::HASH_WHITEOUT, Bpos::new(4096, at, SNAPSHOT), []);
    assert_eq!(inum_of(&keys.namespace(&ONE), NodeId::ROOT, b"name").unwrap(), 5000);
}

#[test]
fn hashes_of_31_bits() {
    let mut keys = Keys::volume();
    let mut dir = inode(Type::DIR);
    dir.flags.set(InodeFlags::DIRENT_OFFSET_31BIT, true);
    keys.inode(Inum::ROOT, SNAPSHOT, &dir);
    keys.inode(Inum(5000), SNAPSHOT, &inode(Type::REG));
    let at = slot(b"name") & 0x7fff_ffff;
    keys.dirent_at(Inum::ROOT, at, SNAPSHOT, &entry(b"name", Inum(5000), Type::REG));
    assert_eq!(inum_of(&keys.namespace(&ONE), NodeId::ROOT, b"name").unwrap(), 5000);
}

/// A directory's own option beats the volume's.
#[test]
fn case_is_ignored_where_the_directory_says_so() {
    let mut keys = Keys::volume();
    keys.inode(Inum(5000), SNAPSHOT, &inode(Type::REG));
    let folded = Dirent { folded: Some(b"name"), ..entry(b"Name", Inum(5000), Type::REG) };
    keys.dirent(Inum::ROOT, SNAPSHOT, &folded);
    keys.dirent(Inum(4100), SNAPSHOT, &entry(b"Name", Inum(5000), Type::REG));
    let dir = |on: u32| {
        let mut dir = inode(Type::DIR);
        dir.opts.set(InodeOpt::Casefold, Some(on));
        dir
    };
    keys.inode(Inum(4100), SNAPSHOT, &dir(0));
    let exact = NodeId { inum: Inum(4100), ..NodeId::ROOT };

    let mut names = keys.namespace(&ONE);
    names.casefold = true;
    assert_eq!(inum_of(&names, NodeId::ROOT, b"nAME").unwrap(), 5000);
    assert!(matches!(inum_of(&names, NodeId::ROOT, b"\xff"), Err(Error::Invalid(_))));
    assert_eq!(inum_of(&names, exact, b"Name").unwrap(), 5000);
    assert!(matches!(inum_of(&names, exact, b"name"), Err(Error::NotFound)));
    assert!(matches!(inum_of(&names, exact, b"\xff"), Err(Error::NotFound)));

    keys.inode(Inum::ROOT, SNAPSHOT, &dir(1));
    let names = keys.namespace(&ONE);
    assert_eq!(inum_of(&names, NodeId::ROOT, b"NAME").unwrap(), 5000);
}

/// Positions that do not fit 63 bits can only come from damage; a listing of them ends.
#[test]
fn positions_stay_within_63_bits() {
    let mut keys = Keys::volume();
    keys.inode(Inum(5000), SNAPSHOT, &inode(Type::REG));
    for at in [0, 1, 2, u64::MAX >> 1, u64::MAX - 1] {
        let name = at.to_string();
        keys.dirent_at(Inum::ROOT, at, SNAPSHOT, &entry(name.as_bytes(), Inum(5000), Type::REG));
    }
    let names = keys.namespace(&ONE);
    assert_eq!(list(&names, NodeId::ROOT).len(), 5);
    let mut from = 0;
    for _ in 0..10 {
        let before = from;
        names
            .readdir(NodeId::ROOT, from, OnDamage::Stop, &mut |entry| {
                from = entry.next;
                ControlFlow::Break(())
            })
            .unwrap();
        assert!(from == before || (3..=i64::MAX as u64).contains(&from));
    }
    assert_eq!(from, i64::MAX as u64);
}

/// More entries than fit one batch, many of them to one inode, in an order that is not theirs.
#[test]
fn listings_with_attributes_are_in_the_order_of_the_listing() {
    let mut keys = Keys::volume();
    for i in 0..2000u64 {
        let name = format!("name {i}");
        let sized = Inode { size: i % 700, ..inode(Type::REG) };
        keys.file(Inum::ROOT, name.as_bytes(), Inum(10_000 - i % 700), &sized);
    }
    let names = keys.namespace(&ONE);
    let mut plain = Vec::new();
    names
        .readdir(NodeId::ROOT, 0, OnDamage::Stop, &mut |entry| {
            plain.push((entry.name.to_vec(), entry.node, entry.next));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(plain.len(), 2000);
    let mut plus = Vec::new();
    names
        .readdir_plus(NodeId::ROOT, 0, &mut |entry, attr| {
            let attr = attr.expect("all inodes are there");
            assert_eq!((attr.node, attr.size), (entry.node, 10_000 - entry.node.inum.0));
            plus.push((entry.name.to_vec(), entry.node, entry.next));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(plus, plain);
}

/// A live subvolume whose snapshot is gone.
#[test]
fn a_broken_subvolume_does_not_hide_its_neighbours() {
    let mut keys = Keys::volume();
    keys.subvolume(2, 77, Inum(8000), 0);
    keys.dirent(Inum::ROOT, SNAPSHOT, &subvol_entry(b"broken", 2, 1));
    keys.file(Inum::ROOT, b"good", Inum(5000), &inode(Type::REG));
    let names = keys.namespace(&ONE);
    assert_eq!(list(&names, NodeId::ROOT), [("good".to_owned(), FileType::Regular)]);
    assert!(matches!(names.lookup(NodeId::ROOT, b"broken"), Err(Error::Io(text)) if text.contains("77")));
    let mut told = false;
    names.walk(NodeId::ROOT, &mut |_, visit| {
        told |= matches!(visit, Visit::Unlistable(_));
        WalkStep::Continue
    });
    assert!(told);
}
