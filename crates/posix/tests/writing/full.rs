//! Volumes without room.

use frazil_ondisk::units::SubvolId;
use frazil_posix::write::{Allocate, Caller, NewNode};
use frazil_posix::{Error, NodeId};

use crate::world::World;

const ROOT: &Caller<'static> = &Caller::ROOT;
const PIECE_BYTES: u64 = 64 << 10;
const RESERVED_BYTES: u64 = 8 << 20;

fn create(world: &World, name: &str) -> NodeId {
    world.front().create(NodeId::ROOT, name.as_bytes(), NewNode::File, 0o644, ROOT).unwrap().node
}

/// Writes until there is no room, in ever smaller pieces.
fn fill(world: &World, file: NodeId) {
    let mut at = 0;
    for len in [1 << 20, PIECE_BYTES, 4096] {
        loop {
            match world.front().write(file, at, &vec![7; len as usize], ROOT) {
                Ok(written) => at += written as u64,
                Err(Error::NoSpace) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn what_is_reserved_can_be_written_however_full_it_is() {
    let world = World::new(&[]);
    let reserved = create(&world, "reserved");
    world.front().write(reserved, 0, &[1; PIECE_BYTES as usize], ROOT).unwrap();
    let range = PIECE_BYTES..PIECE_BYTES + RESERVED_BYTES;
    world.front().allocate(reserved, range.clone(), Allocate::Reserve { keep_size: true }, ROOT).unwrap();
    let other = create(&world, "other");
    fill(&world, other);
    assert!(matches!(world.front().write(reserved, range.end, &[3; 4096], ROOT), Err(Error::NoSpace)));
    // Every second piece first, so that what is reserved falls into pieces, then the others.
    for first in [1, 0] {
        for at in range.clone().step_by(PIECE_BYTES as usize).skip(first).step_by(2) {
            let done = world.front().write(reserved, at, &[2; PIECE_BYTES as usize], ROOT);
            assert_eq!(done.map_err(|e| format!("at {at}: {e}")), Ok(PIECE_BYTES as usize));
        }
    }
    let mut content = vec![0; RESERVED_BYTES as usize];
    assert_eq!(world.fs.read(reserved, range.start, &mut content).unwrap(), content.len());
    assert!(content.iter().all(|&byte| byte == 2));
    world.stop();
}

#[test]
fn what_a_snapshot_reserved_is_not_there_twice() {
    let world = World::new(&[]);
    let file = create(&world, "file");
    let reserve = Allocate::Reserve { keep_size: false };
    world.front().allocate(file, 0..RESERVED_BYTES, reserve, ROOT).unwrap();
    world.front().create_snapshot(SubvolId::ROOT, NodeId::ROOT, b"snapshot", false, ROOT).unwrap();
    let other = create(&world, "other");
    fill(&world, other);
    let written = world.front().write(file, 0, &[2; PIECE_BYTES as usize], ROOT);
    assert!(matches!(written, Err(Error::NoSpace)), "the snapshot keeps what is reserved");
    world.stop();
}
