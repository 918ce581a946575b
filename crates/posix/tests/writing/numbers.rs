//! Numbers of inodes are given out again, with the next generation, and never while somebody still uses what they stood for.

use frazil_ondisk::units::Inum;
use frazil_ondisk::{BtreeId, KeyType};
use frazil_posix::write::{Caller, NewNode, RenameMode};
use frazil_posix::{Attr, NodeId};

use crate::world::{World, outcome};

const ROOT: Caller<'static> = Caller { umask: 0, ..Caller::ROOT };
const TOP: NodeId = NodeId::ROOT;
const FILE: NewNode<'static> = NewNode::File;
const DIR: NewNode<'static> = NewNode::Directory;

fn make(world: &World, dir: NodeId, name: &str, what: NewNode<'_>) -> Attr {
    world.front().create(dir, name.as_bytes(), what, 0o755, &ROOT).unwrap()
}

/// How many keys there are about inodes: those that exist, and what removed ones left.
fn keys(world: &World) -> (usize, usize) {
    let trees = world.live.engine().trees();
    let mut cursor = trees.cursor(BtreeId::INODES, ..);
    let (mut exist, mut left) = (0, 0);
    while let Some(key) = cursor.next().unwrap() {
        let is_left = key.k.ty == KeyType::INODE_GENERATION;
        (exist, left) = (exist + usize::from(!is_left), left + usize::from(is_left));
    }
    (exist, left)
}

#[test]
fn making_and_removing_does_not_fill_the_tree() {
    let world = World::new(&[]);
    let (exist, _) = keys(&world);
    for round in 0..200 {
        for i in 0..10 {
            make(&world, TOP, &format!("file {i}"), FILE);
            make(&world, TOP, &format!("dir {i}"), DIR);
            make(&world, TOP, &format!("link {i}"), NewNode::Symlink(b"somewhere"));
        }
        // What is refused uses up no number.
        let again = world.front().create(TOP, b"link 1", NewNode::Symlink(b"x"), 0o777, &ROOT);
        assert_eq!(outcome(again.map(drop)), Err("EEXIST"));
        let nameless = world.front().create_nameless(TOP, 0o600, true, &ROOT).unwrap();
        for i in 0..10 {
            world.front().unlink(TOP, format!("file {i}").as_bytes(), &ROOT).unwrap();
            world.front().unlink(TOP, format!("link {i}").as_bytes(), &ROOT).unwrap();
            world.front().rmdir(TOP, format!("dir {i}").as_bytes(), &ROOT).unwrap();
        }
        world.release(nameless.node);
        assert_eq!(keys(&world), (exist, 31), "round {round}");
    }
    world.stop();
}

#[test]
fn a_number_comes_back_with_the_next_generation() {
    let world = World::new(&[]);
    let mut before = None;
    for generation in 0..5 {
        let file = make(&world, TOP, "file", FILE);
        assert_eq!(file.generation, generation);
        assert!(before.is_none_or(|inum| inum == file.node.inum));
        before = Some(file.node.inum);
        world.front().unlink(TOP, b"file", &ROOT).unwrap();
    }
    // Also after a crash, where nothing that lives has a larger number.
    let world = world.crash();
    let file = make(&world, TOP, "file", FILE);
    assert_eq!((file.generation, before), (5, Some(file.node.inum)));
    let last = make(&world, TOP, "last", FILE).node.inum;
    world.front().unlink(TOP, b"file", &ROOT).unwrap();
    let world = world.crash();
    let file = make(&world, TOP, "file", FILE);
    assert_eq!((file.generation, file.node.inum), (0, Inum(last.0 + 1)));
    world.stop();
}

#[test]
fn what_is_held_keeps_its_number() {
    let world = World::new(&[]);
    let file = make(&world, TOP, "file", FILE).node;
    let dir = make(&world, TOP, "dir", DIR).node;
    let replaced = make(&world, TOP, "replaced", DIR).node;
    make(&world, TOP, "another", DIR);
    let held = [file, dir, replaced];
    held.iter().for_each(|node| world.fs.hold(*node));
    world.front().unlink(TOP, b"file", &ROOT).unwrap();
    world.front().rmdir(TOP, b"dir", &ROOT).unwrap();
    let rename = ((TOP, &b"another"[..]), (TOP, &b"replaced"[..]));
    world.front().rename(rename.0, rename.1, RenameMode::Replace, false, &ROOT).unwrap();
    let numbers = |names: &str| -> Vec<Inum> {
        (0..4).map(|i| make(&world, TOP, &format!("{names} {i}"), FILE).node.inum).collect()
    };
    assert!(numbers("while held").iter().all(|inum| held.iter().all(|node| node.inum != *inum)));
    for node in held {
        assert_eq!(world.fs.getattr(node).unwrap().nlink, 0);
        world.release(node);
    }
    let after = numbers("after");
    assert!(held.iter().all(|node| after.contains(&node.inum)), "{held:?} {after:?}");
    world.stop();
}

#[test]
fn what_a_snapshot_shows_keeps_its_number() {
    let world = World::new(&[]);
    let file = make(&world, TOP, "file", FILE).node;
    world.front().create_snapshot(TOP.subvol, TOP, b"snapshot", true, &ROOT).unwrap();
    world.front().unlink(TOP, b"file", &ROOT).unwrap();
    for i in 0..4 {
        assert_ne!(make(&world, TOP, &format!("file {i}"), FILE).node.inum, file.inum);
    }
    let snapshot = world.fs.lookup(TOP, b"snapshot").unwrap().node;
    assert_eq!(world.fs.lookup(snapshot, b"file").unwrap().node.inum, file.inum);
    world.stop();
}
