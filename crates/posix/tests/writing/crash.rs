//! Power cuts at any moment: what is left is what was true at some moment before, and nothing is wrong with it.

use std::sync::Arc;

use frazil_posix::Fs;
use frazil_testing::seed::for_each_seed;

use crate::model::Model;
use crate::random::Run;
use crate::world::{World, assert_nothing_wrong, front, read};

/// Whether the volume shows exactly this.
fn shows(fs: &Fs, model: &Model) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.assert_same(fs))).is_ok()
}

#[test]
fn a_power_cut_leaves_what_was_true_before() {
    for_each_seed(4, cut_the_power);
}

fn cut_the_power(seed: u64) {
    let mut run = Run::new(&[("str_hash", "crc32c")], seed, true);
    let mut past: Vec<Model> = vec![run.model.clone()];
    for step in 0..160 {
        run.step();
        past.push(run.model.clone());
        if step % 20 != 19 {
            continue;
        }
        // What is flushed is kept; the rest as far as it came.
        let mut flushed = 0;
        if step % 40 == 39 {
            run.world.live.journal().flush().unwrap();
            flushed = past.len() - 1;
        }
        let volume = read(Arc::new(run.world.memory.snapshot()));
        assert_nothing_wrong(&volume);
        let fs = Fs::new(Arc::new(volume));
        // Files that were only used are not named anywhere, so they do not show.
        let found = past.iter().rposition(|model| shows(&fs, model));
        assert!(found.is_some_and(|at| at >= flushed), "step {step}: {found:?}");
    }
    // And it goes on from there.
    let left = Arc::new(run.world.memory.snapshot());
    let world = World::open(left, run.world.clock.clone(), 7);
    world.front().remove_dead_inodes().unwrap();
    world.stop();
}

#[test]
fn what_was_let_go_of_goes_together_or_at_the_next_start() {
    use frazil_posix::write::{Caller, NewNode, SetXattr};
    use frazil_posix::{Error, NodeId};
    let root = NodeId::ROOT;
    // More than a transaction takes, and one of them alone is more than that.
    let let_go = |world: &World| -> Vec<NodeId> {
        let made = (0..300).map(|i| {
            let name = format!("file {i}").into_bytes();
            let file = world.front().create(root, &name, NewNode::File, 0o644, &Caller::ROOT).unwrap().node;
            let pieces = if i == 100 { 700 } else { i % 3 };
            for piece in 0..pieces {
                world.front().write(file, piece * 8192, &[1; 4096], &Caller::ROOT).unwrap();
            }
            world.front().setxattr(file, b"user.a", b"value", SetXattr::Any, &Caller::ROOT).unwrap();
            world.fs.hold(file);
            world.front().unlink(root, &name, &Caller::ROOT).unwrap();
            file
        });
        let made: Vec<NodeId> = made.collect();
        made.iter().for_each(|file| world.fs.release(*file, 1));
        assert!(world.fs.has_removals());
        made
    };
    let mut world = World::new(&[]);
    let before = world.live.space().usage().inodes;
    for crash in [false, true] {
        let files = let_go(&world);
        if crash {
            world = world.crash();
            assert_eq!(world.front().remove_dead_inodes().unwrap(), files.len() as u64);
        } else {
            assert!(world.front().remove_released(&|| true) && !world.fs.has_removals());
        }
        assert!(files.iter().all(|file| matches!(world.fs.getattr(*file), Err(Error::Stale(_)))));
        assert_eq!(world.live.space().usage().inodes, before);
        world.assert_right();
    }
    world.stop();
}

#[test]
fn operations_of_many_threads_do_not_disturb_each_other() {
    use frazil_posix::NodeId;
    use frazil_posix::write::{Caller, NewNode, RenameMode};
    let world = World::new(&[]);
    let fs = &world.fs;
    let made = |thread: usize, i: usize| format!("{thread}-{i}").into_bytes();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for i in 0..200 {
                    let what = if i % 3 == 0 { NewNode::Directory } else { NewNode::File };
                    front(fs).create(NodeId::ROOT, &made(thread, i), what, 0o755, &Caller::ROOT).unwrap();
                    if i % 2 == 0 {
                        // All fight for one name; somebody always wins.
                        let to = (NodeId::ROOT, if i % 3 == 0 { &b"a directory"[..] } else { b"a file" });
                        let from = made(thread, i);
                        front(fs)
                            .rename((NodeId::ROOT, &from), to, RenameMode::Replace, false, &Caller::ROOT)
                            .unwrap();
                    }
                    if i == 100 && thread == 0 {
                        let root = NodeId::ROOT;
                        front(fs).create_snapshot(root.subvol, root, b"snap", false, &Caller::ROOT).unwrap();
                    }
                }
            });
        }
    });
    let nlink = fs.getattr(NodeId::ROOT).unwrap().nlink;
    // lost+found, "a directory", and those that were not renamed.
    let kept = (0..200).filter(|i| i % 3 == 0 && i % 2 != 0).count() as u32;
    assert_eq!(nlink, 2 + 2 + 4 * kept);
    world.assert_right();
    let fs = world.stop();
    assert!(fs.lookup(NodeId::ROOT, b"snap").is_ok());
}
