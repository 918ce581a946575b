//! Subvolumes and snapshots, step by step.

use std::ops::ControlFlow;

use frazil_ondisk::units::SubvolId;
use frazil_posix::NodeId;
use frazil_posix::write::{Allocate, Caller, Deletion, NewNode, RenameMode};

use crate::world::{World, front, outcome};

const ROOT: Caller<'static> = Caller::ROOT;
const TOP: NodeId = NodeId::ROOT;

fn names(world: &World, dir: NodeId) -> Vec<String> {
    let mut names = Vec::new();
    world
        .fs
        .readdir(dir, 0, &mut |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    names.sort();
    names
}

#[test]
fn a_snapshot_keeps_what_was_and_both_go_on() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let sub = front(fs).create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let dir = front(fs).create(sub, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    front(fs).create(dir, b"old", NewNode::File, 0o644, &ROOT).unwrap();
    let snap = front(fs).create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap().node;
    assert_eq!(snap.inum, sub.inum);
    front(fs).unlink(dir, b"old", &ROOT).unwrap();
    front(fs).create(dir, b"new", NewNode::File, 0o644, &ROOT).unwrap();
    let there = NodeId { subvol: snap.subvol, inum: dir.inum };
    assert_eq!((names(&world, dir), names(&world, there)), (vec!["new".into()], vec!["old".into()]));
    front(fs).create(there, b"mine", NewNode::Directory, 0o644, &ROOT).unwrap();
    assert_eq!((fs.getattr(dir).unwrap().nlink, fs.getattr(there).unwrap().nlink), (2, 3));
    let old = fs.lookup(there, b"old").unwrap().node;
    assert_eq!(outcome(front(fs).link(old, dir, b"x").map(|_| ())), Err("EXDEV"));
    let to = (dir, &b"x"[..]);
    assert_eq!(
        outcome(front(fs).rename((there, b"old"), to, RenameMode::Replace, false, &ROOT)),
        Err("EXDEV")
    );
    world.assert_right();
    world.stop();
}

#[test]
fn read_only_snapshots_cannot_be_changed() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = front(fs).create(TOP, b"file", NewNode::File, 0o644, &ROOT).unwrap().node;
    let snap = front(fs).create_snapshot(SubvolId(1), TOP, b"snap", true, &ROOT).unwrap().node;
    let seen = NodeId { subvol: snap.subvol, inum: file.inum };
    for result in [
        front(fs).create(snap, b"x", NewNode::File, 0o644, &ROOT).map(|_| ()),
        front(fs).unlink(snap, b"file", &ROOT),
        front(fs).link(seen, snap, b"x").map(|_| ()),
        front(fs).setattr(seen, &Default::default(), &ROOT).map(|_| ()),
        front(fs).removexattr(seen, b"user.a", &ROOT),
        front(fs).create_subvolume(snap, b"x", 0o755, &ROOT).map(|_| ()),
    ] {
        assert_eq!(outcome(result), Err("EROFS"));
    }
    // What names it is in another subvolume, and can be changed.
    front(fs).rename((TOP, b"snap"), (TOP, b"kept"), RenameMode::Replace, false, &ROOT).unwrap();
    assert_eq!(names(&world, TOP), ["file", "kept", "lost+found"]);
    assert_eq!(names(&world, snap), ["file", "lost+found"], "the snapshot is not in itself");
    world.stop();
}

#[test]
fn a_renamed_subvolume_is_right_also_with_snapshots_of_it() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let sub = front(fs).create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let dir = front(fs).create(TOP, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    front(fs).create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap();
    front(fs).rename((TOP, b"sub"), (dir, b"moved"), RenameMode::Replace, false, &ROOT).unwrap();
    assert_eq!(fs.parent(sub).unwrap(), dir);
    world.assert_right();
    // In a snapshot of what holds it, it is not seen; and moving it takes it from there, too.
    let above = front(fs).create_snapshot(SubvolId(1), TOP, b"above", false, &ROOT).unwrap().node;
    let dir_above = NodeId { subvol: above.subvol, inum: dir.inum };
    assert_eq!(names(&world, dir_above), Vec::<String>::new());
    front(fs).rename((dir, b"moved"), (TOP, b"back"), RenameMode::Replace, false, &ROOT).unwrap();
    front(fs).rmdir(above, b"dir", &ROOT).unwrap();
    world.assert_right();
    assert_eq!(names(&world, TOP), ["above", "back", "dir", "lost+found", "snap"]);
    world.stop();
}

#[test]
fn deleting_leaves_nothing_behind_whenever_it_is_interrupted() {
    let mut world = World::new(&[]);
    let sub = world.front().create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let inner = world.front().create_subvolume(sub, b"inner", 0o755, &ROOT).unwrap().node;
    for i in 0..200 {
        let name = format!("file {i}");
        let dir = if i % 2 == 0 { sub } else { inner };
        let file = world.front().create(dir, name.as_bytes(), NewNode::Symlink(b"to"), 0, &ROOT).unwrap();
        world.front().setxattr(file.node, b"trusted.a", b"1", Default::default(), &ROOT).unwrap();
    }
    let snap = world.front().create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap().node;
    assert_eq!(outcome(world.front().delete_subvolume(TOP, b"sub", &ROOT)), Err("ENOTEMPTY"));
    assert_eq!(outcome(world.front().rmdir(TOP, b"snap", &ROOT)), Err("ENOTEMPTY"));
    assert_eq!(outcome(world.front().delete_subvolume(TOP, b"lost+found", &ROOT)), Err("EINVAL"));
    world.front().delete_subvolume(sub, b"inner", &ROOT).unwrap();
    world.front().delete_subvolume(TOP, b"sub", &ROOT).unwrap();
    assert_eq!(outcome(world.fs.getattr(inner).map(|_| ())), Err("ESTALE"));
    assert_eq!(world.fs.subvolumes().unwrap().len(), 2);
    let mut interrupted = 0;
    loop {
        let mut deletion = Deletion::default();
        for _ in 0..interrupted + 2 {
            world.front().delete_unlinked_step(&mut deletion).unwrap();
        }
        world.assert_right();
        world = world.crash();
        let mut rest = Deletion::default();
        if !world.front().delete_unlinked_step(&mut rest).unwrap() {
            break;
        }
        interrupted += 1;
        assert!(interrupted < 100);
    }
    assert!(interrupted > 3, "only {interrupted}");
    // The snapshot is the first of its tree now, and all there is of it.
    let left = world.fs.subvolumes().unwrap();
    assert_eq!(
        left.iter().map(|s| (s.id, s.is_snapshot)).collect::<Vec<_>>(),
        [(SubvolId(1), false), (snap.subvol, false)]
    );
    assert_eq!(names(&world, snap).len(), 100);
    world.front().delete_subvolume(TOP, b"snap", &ROOT).unwrap();
    let fs = world.stop();
    assert_eq!(fs.volume().snapshots().len(), 1);
}

/// Ids of snapshots are given out again. A deletion in steps must not go on with the keys of a new one after somebody else has finished it.
#[test]
fn a_deletion_that_others_finish_stops() {
    let world = World::new(&[]);
    let fs = &world.fs;
    for steps in 1..8 {
        let make = |dir: NodeId, names: &str| {
            for i in 0..40 {
                let name = format!("{names} {i}");
                let made = front(fs).create(dir, name.as_bytes(), NewNode::File, 0o644, &ROOT).unwrap();
                front(fs).setxattr(made.node, b"trusted.a", b"1", Default::default(), &ROOT).unwrap();
                front(fs).write(made.node, 0, &[1; 5000], &ROOT).unwrap();
            }
        };
        let outer = front(fs).create_subvolume(TOP, b"outer", 0o755, &ROOT).unwrap().node;
        let inner = front(fs).create_subvolume(outer, b"inner", 0o755, &ROOT).unwrap().node;
        make(inner, "old");
        front(fs).delete_subvolume(outer, b"inner", &ROOT).unwrap();
        let mut deletion = Deletion::default();
        for _ in 0..steps {
            front(fs).delete_unlinked_step(&mut deletion).unwrap();
        }
        // This cannot go before the one in it has gone.
        front(fs).rmdir(TOP, b"outer", &ROOT).unwrap();
        let new = front(fs).create_subvolume(TOP, b"new", 0o755, &ROOT).unwrap().node;
        make(new, "new");
        while front(fs).delete_unlinked_step(&mut deletion).unwrap() {}
        world.assert_right();
        assert_eq!(names(&world, new).len(), 40, "after {steps} steps");
        front(fs).delete_subvolume(TOP, b"new", &ROOT).unwrap();
        world.delete_unlinked();
    }
    world.stop();
}

#[test]
fn whatever_is_left_of_a_deletion_is_no_fault() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let sub = front(fs).create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let dir = front(fs).create(sub, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    let file = front(fs).create(dir, b"file", NewNode::File, 0o644, &ROOT).unwrap().node;
    front(fs).write(file, 0, &[7; 20_000], &ROOT).unwrap();
    front(fs).link(file, sub, b"again").unwrap();
    front(fs).create(sub, b"empty", NewNode::Directory, 0o755, &ROOT).unwrap();
    let snap = front(fs).create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap().node;
    front(fs).write(NodeId { subvol: snap.subvol, ..file }, 0, &[8; 20_000], &ROOT).unwrap();
    // Both at once: whichever goes first, the other keeps the tree.
    for name in [&b"snap"[..], b"sub"] {
        front(fs).delete_subvolume(TOP, name, &ROOT).unwrap();
    }
    let mut deletion = Deletion::default();
    while front(fs).delete_unlinked_step(&mut deletion).unwrap() {
        world.assert_right();
    }
    world.stop();
}

#[test]
fn what_a_snapshot_keeps_can_be_shifted() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = front(fs).create(TOP, b"file", NewNode::File, 0o644, &ROOT).unwrap().node;
    let blocks: Vec<u8> = (0..8u8).flat_map(|i| [i; 4096]).collect();
    front(fs).write(file, 0, &blocks, &ROOT).unwrap();
    let snap = front(fs).create_snapshot(SubvolId(1), TOP, b"snap", false, &ROOT).unwrap().node;
    front(fs).allocate(file, 4096..8192, Allocate::Insert, &ROOT).unwrap();
    world.assert_right();
    front(fs).allocate(file, 12288..16384, Allocate::Collapse, &ROOT).unwrap();
    world.assert_right();
    let read = |node| {
        let mut bytes = vec![0xff; 9 * 4096];
        let len = fs.read(node, 0, &mut bytes).unwrap();
        bytes[..len].chunks(4096).map(|block| block[0]).collect::<Vec<_>>()
    };
    assert_eq!(read(file), [0, 0, 1, 3, 4, 5, 6, 7]);
    assert_eq!(read(NodeId { subvol: snap.subvol, ..file }), [0, 1, 2, 3, 4, 5, 6, 7]);
    front(fs).delete_subvolume(TOP, b"snap", &ROOT).unwrap();
    world.stop();
}

#[test]
fn a_name_that_two_snapshots_hold_is_one_name() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = front(fs).create(TOP, b"a", NewNode::File, 0o644, &ROOT).unwrap().node;
    front(fs).link(file, TOP, b"b").unwrap();
    front(fs).create_snapshot(SubvolId(1), TOP, b"snap", false, &ROOT).unwrap();
    for (from, to) in [(&b"a"[..], &b"c"[..]), (b"c", b"a")] {
        front(fs).rename((TOP, from), (TOP, to), RenameMode::Replace, false, &ROOT).unwrap();
    }
    assert_eq!(fs.getattr(file).unwrap().nlink, 2);
    world.assert_right();
    world.stop();
}
