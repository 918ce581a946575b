//! Names that have the same hash, in every order.

use frazil_ondisk::{Bpos, BtreeId, KeyType};
use frazil_posix::NodeId;
use frazil_posix::write::{Caller, NewNode, RenameMode};

use crate::world::{World, front};

const ROOT: Caller<'static> = Caller::ROOT;
/// They have one hash, whatever the seed (spec 40 §20).
const NAMES: [&[u8]; 3] = [b"n78ecc56f", b"n286c41d4", b"n248ca90f"];

/// The slots of a directory's table from the first on: whether each is an entry.
fn slots(world: &World, dir: NodeId) -> Vec<(u64, KeyType)> {
    let all = Bpos::new(dir.inum.0, 0, 0)..Bpos::new(dir.inum.0 + 1, 0, 0);
    let mut cursor = world.live.btrees().cursor(BtreeId::DIRENTS, all);
    let mut slots = Vec::new();
    while let Some(key) = cursor.next().unwrap() {
        slots.push((key.k.pos.offset, key.k.ty));
    }
    let first = slots.first().map_or(0, |slot| slot.0);
    slots.into_iter().map(|(slot, ty)| (slot - first, ty)).collect()
}

#[test]
fn slots_are_kept_as_long_as_something_lies_behind() {
    let world = World::new(&[("str_hash", "crc32c")]);
    let fs = &world.fs;
    let dir = front(fs).create(NodeId::ROOT, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    for name in NAMES {
        front(fs).create(dir, name, NewNode::File, 0o644, &ROOT).unwrap();
    }
    let (entry, mark) = (KeyType::DIRENT, KeyType::HASH_WHITEOUT);
    assert_eq!(slots(&world, dir), [(0, entry), (1, entry), (2, entry)]);
    front(fs).unlink(dir, NAMES[0], &ROOT).unwrap();
    assert_eq!(slots(&world, dir), [(0, mark), (1, entry), (2, entry)]);
    world.assert_right();
    // Onto a name in the chain whose slot is behind it: the new entry takes the old one's slot, and then it goes on from the first free one.
    front(fs).rename((dir, NAMES[2]), (dir, b"n"), RenameMode::Replace, false, &ROOT).unwrap();
    assert_eq!(slots(&world, dir).len(), 3, "mark, entry, and the new name");
    front(fs).rename((dir, NAMES[1]), (dir, NAMES[2]), RenameMode::Replace, false, &ROOT).unwrap();
    fs.lookup(dir, NAMES[2]).unwrap();
    world.assert_right();
    front(fs).unlink(dir, NAMES[2], &ROOT).unwrap();
    front(fs).unlink(dir, b"n", &ROOT).unwrap();
    // Nothing but marks may be left, and they do not make it less empty.
    assert!(slots(&world, dir).iter().all(|(_, ty)| *ty == mark));
    front(fs).rmdir(NodeId::ROOT, b"dir", &ROOT).unwrap();
    assert_eq!(slots(&world, dir), []);
    world.stop();
}

#[test]
fn a_rename_within_the_chain_keeps_the_slot() {
    let world = World::new(&[("str_hash", "crc32c")]);
    let fs = &world.fs;
    let dir = front(fs).create(NodeId::ROOT, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    let file = front(fs).create(dir, NAMES[0], NewNode::File, 0o644, &ROOT).unwrap().node;
    front(fs).rename((dir, NAMES[0]), (dir, NAMES[1]), RenameMode::Replace, false, &ROOT).unwrap();
    assert_eq!(slots(&world, dir), [(0, KeyType::DIRENT)]);
    assert_eq!(fs.lookup(dir, NAMES[1]).unwrap().node, file);
    // Over another name: the old slot is in the way of the new entry, so a mark stays there.
    front(fs).create(dir, NAMES[2], NewNode::File, 0o644, &ROOT).unwrap();
    front(fs).rename((dir, NAMES[1]), (dir, NAMES[2]), RenameMode::Replace, false, &ROOT).unwrap();
    assert_eq!(slots(&world, dir), [(0, KeyType::HASH_WHITEOUT), (1, KeyType::DIRENT)]);
    assert_eq!(fs.lookup(dir, NAMES[2]).unwrap().node, file);
    // With a whiteout of an overlay left behind at the old name.
    front(fs).rename((dir, NAMES[2]), (dir, NAMES[0]), RenameMode::Replace, true, &ROOT).unwrap();
    assert_eq!(fs.lookup(dir, NAMES[0]).unwrap().node, file);
    assert_eq!(fs.lookup(dir, NAMES[2]).unwrap().rdev, (0, 0));
    world.assert_right();
    world.stop();
}

#[test]
fn a_directory_with_many_marks_can_be_removed() {
    let world = World::new(&[("str_hash", "crc32c")]);
    let fs = &world.fs;
    let dir = front(fs).create(NodeId::ROOT, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    for i in 0..200 {
        front(fs).setxattr(dir, format!("user.{i}").as_bytes(), b"x", Default::default(), &ROOT).unwrap();
    }
    front(fs).rmdir(NodeId::ROOT, b"dir", &ROOT).unwrap();
    world.assert_right();
    world.stop();
}
