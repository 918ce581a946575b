//! Volumes that are nearly full and changed at random: buckets must be emptied by moving what is in them.

use std::sync::atomic::{AtomicBool, Ordering};

use frazil_device::Device;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::Pointers;
use frazil_ondisk::{Bpos, BtreeId};
use frazil_posix::write::{Allocate, Caller, NewNode};
use frazil_posix::{Error, NodeId};
use frazil_volume::write::moving::Moved;

use crate::world::{World, front, outcome};

const ROOT: &Caller<'static> = &Caller::ROOT;
const BLOCK: u64 = 4096;

/// A block that says where and when it was written.
fn block(at: u64, round: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(at << 20 ^ round);
    let mut bytes = vec![0; BLOCK as usize];
    rng.fill(&mut bytes[..2048]);
    bytes[2048..].fill(at as u8 ^ round as u8);
    bytes
}

/// A volume with one large file.
struct Filled {
    world: World,
    file: NodeId,
    /// By block: in which round it was written last.
    rounds: Vec<u64>,
}

impl Filled {
    /// Fills `percent` of what can be used, with writes of so many blocks.
    fn new(bytes: u64, percent: u64, blocks: u64, settings: &[(&str, &str)]) -> Filled {
        let world = World::of_size(bytes, Some(64 << 10), settings);
        let file = world.front().create(NodeId::ROOT, b"file", NewNode::File, 0o644, ROOT).unwrap().node;
        let total = world.live.space().usage().total;
        let mut filled = Filled { world, file, rounds: Vec::new() };
        while filled.world.live.space().usage().used < Sectors(total.0 * percent / 100) {
            let at = filled.rounds.len() as u64;
            filled.rounds.resize((at + blocks) as usize, 0);
            filled.write(at, blocks, 0);
        }
        filled
    }

    fn write(&mut self, at: u64, blocks: u64, round: u64) {
        let bytes: Vec<u8> = (at..at + blocks).flat_map(|at| block(at, round)).collect();
        let done = outcome(self.world.front().write(self.file, at * BLOCK, &bytes, ROOT));
        let usage = self.world.live.space().usage();
        assert_eq!(done, Ok(bytes.len()), "block {at}, round {round}: {usage:?}");
        self.rounds[at as usize..(at + blocks) as usize].fill(round);
    }

    /// Writes as much as there is, so many times, in steps of so many blocks; how much of it was moved.
    fn overwrite(&mut self, rounds: u64, blocks: u64) -> f64 {
        let mut rng = fastrand::Rng::with_seed(rounds);
        let (steps, before) = (self.rounds.len() as u64 / blocks, self.moved().sectors);
        for round in 1..=rounds {
            for _ in 0..steps {
                self.write(rng.u64(0..steps) * blocks, blocks, round);
            }
        }
        let written = rounds * steps * blocks * BLOCK / SECTOR_BYTES;
        (self.moved().sectors.0 - before.0) as f64 / written as f64
    }

    fn moved(&self) -> Moved {
        self.world.live.room().moved()
    }

    fn assert_content(&self) {
        let mut bytes = vec![0; BLOCK as usize];
        for (at, &round) in self.rounds.iter().enumerate() {
            assert_eq!(self.world.fs.read(self.file, at as u64 * BLOCK, &mut bytes).unwrap(), bytes.len());
            assert!(bytes == block(at as u64, round), "block {at}, written in round {round}");
        }
    }
}

#[test]
fn a_volume_85_percent_full_is_overwritten_twenty_times() {
    let mut filled = Filled::new(64 << 20, 85, 16, &[("btree_node_size", "64k")]);
    let amplification = filled.overwrite(20, 4);
    println!("moved {amplification:.2} times what was written: {:?}", filled.moved());
    filled.assert_content();
    assert!((0.3..2.0).contains(&amplification), "{amplification}");
    assert_eq!(filled.moved().hopeless, 0);
    filled.world.stop();
}

/// Each block that is overwritten is a part of a payload that was checksummed, and maybe compressed, as a whole.
#[test]
fn payloads_of_which_little_is_left_are_cut() {
    for (percent, compression) in [(95, "none"), (40, "lz4")] {
        let settings = [("btree_node_size", "32k"), ("compression", compression)];
        let mut filled = Filled::new(32 << 20, percent, 16, &settings);
        filled.overwrite(3, 1);
        filled.world.assert_right();
        filled.assert_content();
        let moved = filled.moved();
        assert!(moved.hopeless == 0 && moved.nodes > 0 && moved.buckets > 500, "{moved:?}");
        filled.world.stop();
    }
}

/// What is free in buckets that are half full can be promised, and used.
#[test]
fn a_volume_that_is_full_of_holes_has_room() {
    let mut filled = Filled::new(32 << 20, 98, 8, &[("btree_node_size", "32k")]);
    let World { fs, live, .. } = &filled.world;
    let steps = filled.rounds.len() as u64 / 8;
    for step in (0..steps).step_by(2) {
        let bytes = step * 8 * BLOCK..(step + 1) * 8 * BLOCK;
        front(fs).allocate(filled.file, bytes, Allocate::Punch, ROOT).unwrap();
    }
    let available = live.space().usage().available;
    let mut written = 0;
    for step in (0..steps).step_by(2) {
        filled.write(step * 8, 8, 1);
        written += 8 * BLOCK / SECTOR_BYTES;
    }
    assert!(written > available.0 * 9 / 10, "{written} of {available}");
    assert!(filled.moved().buckets > 100);
    filled.assert_content();
    filled.world.stop();
}

/// What is moved while it is being read is read where it is then; no checksum would tell.
#[test]
fn readers_do_not_notice() {
    let settings = [("btree_node_size", "32k"), ("data_checksum", "none")];
    let filled = Filled::new(32 << 20, 90, 4, &settings);
    let World { fs, live, .. } = &filled.world;
    let blocks = filled.rounds.len() as u64;
    // Three of four blocks stay for ever, and share their buckets with those that change all the time.
    let stays = |at: u64| at % 16 >= 4;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let done = &done;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                let mut bytes = vec![0; BLOCK as usize];
                while !done.load(Ordering::Relaxed) {
                    let at = rng.u64(0..blocks);
                    if stays(at) {
                        fs.read(filled.file, at * BLOCK, &mut bytes).unwrap();
                        assert!(bytes == block(at, 0), "block {at}");
                    }
                }
            });
        }
        let mut rng = fastrand::Rng::with_seed(9);
        for round in 0..3000 {
            let at = rng.u64(0..blocks / 16) * 16;
            let bytes: Vec<u8> = (at..at + 4).flat_map(|at| block(at, round)).collect();
            if let Err(error) = front(fs).write(filled.file, at * BLOCK, &bytes, ROOT) {
                done.store(true, Ordering::Relaxed);
                panic!("{error}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let moved = live.room().moved();
    assert!(moved.pointers > 1000 && moved.hopeless == 0, "{moved:?}");
    filled.world.stop();
}

/// Whoever looked up where data is before it was moved, and reads after its bucket was emptied, is told, and finds it when he looks again.
#[test]
fn a_plan_made_before_a_move_is_of_no_use_after_it() {
    let settings = [("btree_node_size", "32k"), ("data_checksum", "none")];
    let filled = Filled::new(32 << 20, 10, 4, &settings);
    let World { fs, live, .. } = &filled.world;
    front(fs).allocate(filled.file, 0..4 * BLOCK, Allocate::Punch, ROOT).unwrap();
    let (inum, at) = (filled.file.inum, 4);
    let extent = || {
        let sector = at * BLOCK / SECTOR_BYTES;
        let mut cursor = live.btrees().cursor(BtreeId::EXTENTS, Bpos::new(inum.0, sector + 1, 0)..);
        cursor.next().unwrap().unwrap().to_owned()
    };
    let mut bytes = vec![0; BLOCK as usize];
    let before = extent();
    let mut plan = live.reader().plan(inum, at * BLOCK..(at + 1) * BLOCK);
    plan.add(before.as_key());
    plan.read(&mut bytes).unwrap();
    assert!(bytes == block(at, 0));
    while extent() == before {
        assert!(live.room().empty_a_bucket().unwrap(), "its bucket has a hole");
    }
    let error = plan.read(&mut bytes).unwrap_err();
    assert!(error.is_moved(), "{error}");
    let mut plan = live.reader().plan(inum, at * BLOCK..(at + 1) * BLOCK);
    plan.add(extent().as_key());
    plan.read(&mut bytes).unwrap();
    assert!(bytes == block(at, 0));
}

/// What cannot be read stays where it is, with all that is in its bucket moved away; and that is the end of it.
#[test]
fn damage_is_left_where_it_is() {
    let settings = [("btree_node_size", "32k"), ("data_checksum", "crc32c")];
    let filled = Filled::new(32 << 20, 60, 4, &settings);
    let steps = filled.rounds.len() as u64 / 4;
    // Every second step goes, so that all buckets are worth emptying; one of the others is damaged.
    for step in (0..steps).step_by(2) {
        let bytes = step * 4 * BLOCK..(step + 1) * 4 * BLOCK;
        filled.world.front().allocate(filled.file, bytes, Allocate::Punch, ROOT).unwrap();
    }
    let World { fs, live, memory, .. } = &filled.world;
    let bad = Bpos::new(filled.file.inum.0, 28 * BLOCK / SECTOR_BYTES, 0);
    let damaged = {
        let mut cursor = live.btrees().cursor(BtreeId::EXTENTS, bad..);
        let key = cursor.next().unwrap().unwrap().to_owned();
        Pointers::new(&key.value, key.k.size).next().unwrap().unwrap().ptr
    };
    memory.write_at(damaged.offset.0 * SECTOR_BYTES, b"damage").unwrap();
    let mut emptied = 0;
    while emptied < 2000 && live.room().empty_a_bucket().unwrap() {
        emptied += 1;
    }
    assert!((50..2000).contains(&emptied), "{emptied} buckets emptied");
    assert_eq!(filled.moved().hopeless, 1);
    let mut bytes = vec![0; BLOCK as usize];
    for at in (0..steps).filter(|step| step % 2 == 1).map(|step| step * 4) {
        let read = fs.read(filled.file, at * BLOCK, &mut bytes);
        match at {
            28 => assert!(matches!(read, Err(Error::Io(_))), "{read:?}"),
            _ => assert!(read.unwrap() == bytes.len() && bytes == block(at, 0), "block {at}"),
        }
    }
    filled.world.assert_right();
}

/// A bucket has 256 generations, and pointers that old must not come to life again.
#[test]
fn buckets_are_used_more_often_than_they_have_generations() {
    let filled = Filled::new(32 << 20, 93, 16, &[("btree_node_size", "32k")]);
    let World { fs, live, .. } = &filled.world;
    let file = front(fs).create(NodeId::ROOT, b"again", NewNode::File, 0o644, ROOT).unwrap().node;
    let bytes = vec![7; 64 << 10];
    let mut rounds = 0;
    while live.room().collected().walks < 3 {
        front(fs).write(file, 0, &bytes, ROOT).unwrap_or_else(|e| panic!("round {rounds}: {e}"));
        rounds += 1;
        assert!(rounds < 100_000, "{:?}", live.room().collected());
    }
    println!("{rounds} rounds, {:?}", live.room().collected());
    filled.assert_content();
    filled.world.stop();
}
