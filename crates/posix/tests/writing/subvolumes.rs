//! Subvolumes and snapshots, step by step.

use std::ops::ControlFlow;

use frazil_ondisk::units::SubvolId;
use frazil_posix::NodeId;
use frazil_posix::write::{Allocate, Caller, Deletion, NewNode, RenameMode};

use crate::world::{World, outcome};

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
    let sub = fs.create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let dir = fs.create(sub, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    fs.create(dir, b"old", NewNode::File, 0o644, &ROOT).unwrap();
    let snap = fs.create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap().node;
    assert_eq!(snap.inum, sub.inum);
    fs.unlink(dir, b"old", &ROOT).unwrap();
    fs.create(dir, b"new", NewNode::File, 0o644, &ROOT).unwrap();
    let there = NodeId { subvol: snap.subvol, inum: dir.inum };
    assert_eq!((names(&world, dir), names(&world, there)), (vec!["new".into()], vec!["old".into()]));
    fs.create(there, b"mine", NewNode::Directory, 0o644, &ROOT).unwrap();
    assert_eq!((fs.getattr(dir).unwrap().nlink, fs.getattr(there).unwrap().nlink), (2, 3));
    let old = fs.lookup(there, b"old").unwrap().node;
    assert_eq!(outcome(fs.link(old, dir, b"x").map(|_| ())), Err("EXDEV"));
    let to = (dir, &b"x"[..]);
    assert_eq!(outcome(fs.rename((there, b"old"), to, RenameMode::Replace, false, &ROOT)), Err("EXDEV"));
    world.assert_right();
    world.stop();
}

#[test]
fn read_only_snapshots_cannot_be_changed() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = fs.create(TOP, b"file", NewNode::File, 0o644, &ROOT).unwrap().node;
    let snap = fs.create_snapshot(SubvolId(1), TOP, b"snap", true, &ROOT).unwrap().node;
    let seen = NodeId { subvol: snap.subvol, inum: file.inum };
    for result in [
        fs.create(snap, b"x", NewNode::File, 0o644, &ROOT).map(|_| ()),
        fs.unlink(snap, b"file", &ROOT),
        fs.link(seen, snap, b"x").map(|_| ()),
        fs.setattr(seen, &Default::default(), &ROOT).map(|_| ()),
        fs.removexattr(seen, b"user.a", &ROOT),
        fs.create_subvolume(snap, b"x", 0o755, &ROOT).map(|_| ()),
    ] {
        assert_eq!(outcome(result), Err("EROFS"));
    }
    // What names it is in another subvolume, and can be changed.
    fs.rename((TOP, b"snap"), (TOP, b"kept"), RenameMode::Replace, false, &ROOT).unwrap();
    assert_eq!(names(&world, TOP), ["file", "kept", "lost+found"]);
    assert_eq!(names(&world, snap), ["file", "lost+found"], "the snapshot is not in itself");
    world.stop();
}

#[test]
fn a_renamed_subvolume_is_right_also_with_snapshots_of_it() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let sub = fs.create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let dir = fs.create(TOP, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    fs.create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap();
    fs.rename((TOP, b"sub"), (dir, b"moved"), RenameMode::Replace, false, &ROOT).unwrap();
    assert_eq!(fs.parent(sub).unwrap(), dir);
    world.assert_right();
    // In a snapshot of what holds it, it is not seen; and moving it takes it from there, too.
    let above = fs.create_snapshot(SubvolId(1), TOP, b"above", false, &ROOT).unwrap().node;
    let dir_above = NodeId { subvol: above.subvol, inum: dir.inum };
    assert_eq!(names(&world, dir_above), Vec::<String>::new());
    fs.rename((dir, b"moved"), (TOP, b"back"), RenameMode::Replace, false, &ROOT).unwrap();
    fs.rmdir(above, b"dir", &ROOT).unwrap();
    world.assert_right();
    assert_eq!(names(&world, TOP), ["above", "back", "dir", "lost+found", "snap"]);
    world.stop();
}

#[test]
fn deleting_leaves_nothing_behind_whenever_it_is_interrupted() {
    let mut world = World::new(&[]);
    let sub = world.fs.create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let inner = world.fs.create_subvolume(sub, b"inner", 0o755, &ROOT).unwrap().node;
    for i in 0..200 {
        let name = format!("file {i}");
        let dir = if i % 2 == 0 { sub } else { inner };
        let file = world.fs.create(dir, name.as_bytes(), NewNode::Symlink(b"to"), 0, &ROOT).unwrap();
        world.fs.setxattr(file.node, b"trusted.a", b"1", Default::default(), &ROOT).unwrap();
    }
    let snap = world.fs.create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap().node;
    assert_eq!(outcome(world.fs.delete_subvolume(TOP, b"sub", &ROOT)), Err("ENOTEMPTY"));
    assert_eq!(outcome(world.fs.rmdir(TOP, b"snap", &ROOT)), Err("ENOTEMPTY"));
    assert_eq!(outcome(world.fs.delete_subvolume(TOP, b"lost+found", &ROOT)), Err("EINVAL"));
    world.fs.delete_subvolume(sub, b"inner", &ROOT).unwrap();
    world.fs.delete_subvolume(TOP, b"sub", &ROOT).unwrap();
    assert_eq!(outcome(world.fs.getattr(inner).map(|_| ())), Err("ESTALE"));
    assert_eq!(world.fs.subvolumes().unwrap().len(), 2);
    let mut interrupted = 0;
    loop {
        let mut deletion = Deletion::default();
        for _ in 0..interrupted + 2 {
            world.fs.delete_unlinked_step(&mut deletion).unwrap();
        }
        world.assert_right();
        world = world.crash();
        let mut rest = Deletion::default();
        if !world.fs.delete_unlinked_step(&mut rest).unwrap() {
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
    world.fs.delete_subvolume(TOP, b"snap", &ROOT).unwrap();
    let fs = world.stop();
    assert_eq!(fs.volume().snapshots().len(), 1);
}

#[test]
fn whatever_is_left_of_a_deletion_is_no_fault() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let sub = fs.create_subvolume(TOP, b"sub", 0o755, &ROOT).unwrap().node;
    let dir = fs.create(sub, b"dir", NewNode::Directory, 0o755, &ROOT).unwrap().node;
    let file = fs.create(dir, b"file", NewNode::File, 0o644, &ROOT).unwrap().node;
    fs.write(file, 0, &[7; 20_000], &ROOT).unwrap();
    fs.link(file, sub, b"again").unwrap();
    fs.create(sub, b"empty", NewNode::Directory, 0o755, &ROOT).unwrap();
    let snap = fs.create_snapshot(sub.subvol, TOP, b"snap", false, &ROOT).unwrap().node;
    fs.write(NodeId { subvol: snap.subvol, ..file }, 0, &[8; 20_000], &ROOT).unwrap();
    // Both at once: whichever goes first, the other keeps the tree.
    for name in [&b"snap"[..], b"sub"] {
        fs.delete_subvolume(TOP, name, &ROOT).unwrap();
    }
    let mut deletion = Deletion::default();
    while fs.delete_unlinked_step(&mut deletion).unwrap() {
        world.assert_right();
    }
    world.stop();
}

#[test]
fn what_a_snapshot_keeps_can_be_shifted() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = fs.create(TOP, b"file", NewNode::File, 0o644, &ROOT).unwrap().node;
    let blocks: Vec<u8> = (0..8u8).flat_map(|i| [i; 4096]).collect();
    fs.write(file, 0, &blocks, &ROOT).unwrap();
    let snap = fs.create_snapshot(SubvolId(1), TOP, b"snap", false, &ROOT).unwrap().node;
    fs.allocate(file, 4096..8192, Allocate::Insert, &ROOT).unwrap();
    world.assert_right();
    fs.allocate(file, 12288..16384, Allocate::Collapse, &ROOT).unwrap();
    world.assert_right();
    let read = |node| {
        let mut bytes = vec![0xff; 9 * 4096];
        let len = fs.read(node, 0, &mut bytes).unwrap();
        bytes[..len].chunks(4096).map(|block| block[0]).collect::<Vec<_>>()
    };
    assert_eq!(read(file), [0, 0, 1, 3, 4, 5, 6, 7]);
    assert_eq!(read(NodeId { subvol: snap.subvol, ..file }), [0, 1, 2, 3, 4, 5, 6, 7]);
    fs.delete_subvolume(TOP, b"snap", &ROOT).unwrap();
    world.stop();
}

#[test]
fn a_name_that_two_snapshots_hold_is_one_name() {
    let world = World::new(&[]);
    let fs = &world.fs;
    let file = fs.create(TOP, b"a", NewNode::File, 0o644, &ROOT).unwrap().node;
    fs.link(file, TOP, b"b").unwrap();
    fs.create_snapshot(SubvolId(1), TOP, b"snap", false, &ROOT).unwrap();
    for (from, to) in [(&b"a"[..], &b"c"[..]), (b"c", b"a")] {
        fs.rename((TOP, from), (TOP, to), RenameMode::Replace, false, &ROOT).unwrap();
    }
    assert_eq!(fs.getattr(file).unwrap().nlink, 2);
    world.assert_right();
    world.stop();
}
