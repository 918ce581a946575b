//! When something was last read.

use frazil_device::Device;
use frazil_posix::write::{AccessTimes, Caller, NewNode, SetAttr};
use frazil_posix::{NodeId, Timestamp};
use frazil_volume::lifecycle::FreezeRequest;

use crate::world::World;

const DAY_S: u64 = 24 * 60 * 60;

/// The flag `FS_NOATIME_FL` as it is stored.
const NOATIME: u32 = 1 << 4;

fn made() -> (World, NodeId) {
    let world = World::new(&[]);
    let made = world.front().create(NodeId::ROOT, b"file", NewNode::File, 0o644, &Caller::ROOT);
    (world, made.unwrap().node)
}

fn times(world: &World, node: NodeId) -> [u64; 3] {
    let attr = world.fs.getattr(node).unwrap();
    [attr.atime, attr.mtime, attr.ctime].map(|time: Timestamp| time.secs as u64)
}

/// What is on the device.
fn bytes(world: &World) -> Vec<u8> {
    let mut bytes = vec![0; world.memory.size_bytes() as usize];
    world.memory.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn relative_times_change_after_changes_and_once_a_day() {
    let (world, file) = made();
    let read = || world.fs.accessed(file, AccessTimes::Relative).unwrap();
    let made_s = world.clock.now_s();
    let read_s = world.clock.tick();
    assert!(read());
    assert_eq!(times(&world, file), [read_s, made_s, made_s]);
    world.clock.tick();
    assert!(!read(), "it has been read since it changed");
    let written_s = world.clock.tick();
    world.front().write(file, 0, b"x", &Caller::ROOT).unwrap();
    let again_s = world.clock.tick();
    assert!(read() && !read());
    assert_eq!(times(&world, file), [again_s, written_s, written_s]);
    while world.clock.now_s() < again_s + DAY_S {
        assert_eq!(times(&world, file)[0], again_s);
        for _ in 0..DAY_S / 8 {
            world.clock.tick();
        }
    }
    assert!(read() && !read());
    let fs = world.stop();
    assert_eq!(fs.getattr(file).unwrap().atime.secs as u64, again_s + DAY_S);
}

#[test]
fn every_access_is_noted_or_none() {
    let (world, file) = made();
    let made_s = world.clock.now_s();
    for _ in 0..3 {
        let now_s = world.clock.tick();
        assert!(world.fs.accessed(file, AccessTimes::Always).unwrap());
        assert!(!world.fs.accessed(file, AccessTimes::Always).unwrap(), "it is the time already");
        assert_eq!(times(&world, file), [now_s, made_s, made_s]);
        assert!(!world.fs.accessed(file, AccessTimes::Never).unwrap());
    }
    let flags = SetAttr { flags: Some(NOATIME), ..SetAttr::default() };
    world.front().setattr(file, &flags, &Caller::ROOT).unwrap();
    world.clock.tick();
    assert!(!world.fs.accessed(file, AccessTimes::Always).unwrap(), "the file says no");
    world.front().unlink(NodeId::ROOT, b"file", &Caller::ROOT).unwrap();
    world.fs.accessed(file, AccessTimes::Always).unwrap_err();
    world.stop();
}

#[test]
fn nothing_is_noted_while_it_is_frozen() {
    let (world, file) = made();
    let holder = world.live.lifecycle().freeze(FreezeRequest::default()).unwrap();
    let frozen = (bytes(&world), times(&world, file));
    world.clock.tick();
    assert!(!world.fs.accessed(file, AccessTimes::Always).unwrap());
    assert_eq!(times(&world, file), frozen.1);
    assert!(bytes(&world) == frozen.0, "not a byte is written");
    world.live.lifecycle().thaw(holder).unwrap();
    assert!(world.fs.accessed(file, AccessTimes::Always).unwrap());
    world.stop();
}
