//! A mounted volume is frozen while programs use it (spec 70 §7.1, §8.1). Needs root and `/dev/fuse`.
//!
//! The device is in memory, so a copy of a frozen device is a snapshot of it, and every byte can be compared.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod in_memory;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use frazil_ondisk::BtreeId;
use frazil_posix::{Fs, NodeId};
use frazil_volume::lifecycle::{FreezeRequest, Lifecycle, LifecycleError, ShutdownMode};
use frazil_volume::{Recovery, Volume};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;

use in_memory::{LONG, Mounted, assert_right, mounted, read};

/// A volume in memory, mounted.
struct World(Mounted);

impl World {
    fn new() -> World {
        World(mounted())
    }

    fn lifecycle(&self) -> &Arc<Lifecycle> {
        self.0.writable.fs().live().lifecycle()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.dir.join(name)
    }

    /// What a copy of the device holds now, which must be as it should after a freeze; and whether it is clean. It may not be if there is a
    /// file without a name (spec 70 R5).
    fn copy(&self) -> (Volume, bool) {
        let volume = read(&self.0.memory);
        let clean = match volume.recovery() {
            Recovery::Clean { .. } => true,
            Recovery::Replayed { first, last, .. } if first == last => false,
            other => panic!("{other:?}"),
        };
        let nameless = volume.btrees().cursor(BtreeId::DELETED_INODES, ..).next().unwrap().is_some();
        assert_eq!(clean, !nameless);
        assert_right(&volume, clean);
        (volume, clean)
    }

    /// A copy that is clean, or cannot be.
    fn frozen_copy(&self, clean: bool) -> Volume {
        let (volume, is_clean) = self.copy();
        assert_eq!(is_clean, clean);
        volume
    }

    fn end(self, clean: bool) {
        self.0.stop(clean);
    }
}

fn names(volume: Volume) -> Vec<String> {
    let (fs, mut names) = (Fs::new(Arc::new(volume)), Vec::new());
    fs.readdir(NodeId::ROOT, 0, &mut |entry| {
        names.push(String::from_utf8_lossy(entry.name).into_owned());
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    names
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn request(who: &str) -> FreezeRequest {
    FreezeRequest { who: who.into(), share: true, hold_for: None, give_up_after: Some(LONG) }
}

/// Makes, writes, renames, removes in a directory, as fast as it goes, until told to stop.
fn work(dir: &Path, stop: &AtomicBool, done: &AtomicU64) {
    for round in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (new, old) = (dir.join("new"), dir.join(format!("old{}", round % 7)));
        let mut file = File::create(&new).unwrap();
        file.write_all(&vec![round as u8; (round % 5) as usize * 10_000]).unwrap();
        drop(file);
        fs::rename(&new, &old).unwrap();
        if round % 3 == 0 {
            fs::remove_file(&old).unwrap();
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets the workers end, also if the test fails while it is frozen.
struct End<'w>(&'w AtomicBool, &'w Lifecycle);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        // Usually it is not frozen any more.
        let _ = self.1.thaw_all();
    }
}

#[test]
fn writers_wait_readers_do_not_and_nobody_sees_an_error() {
    let world = World::new();
    fs::write(world.path("kept"), "written before").unwrap();
    let kept = File::options().read(true).write(true).open(world.path("kept")).unwrap();
    kept.sync_all().unwrap();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let dirs: Vec<PathBuf> = (0..6).map(|n| world.path(&format!("dir{n}"))).collect();
    // Before any freeze: while somebody who is blocked makes a name in a directory, the kernel lets nobody list it.
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    thread::scope(|scope| {
        let workers: Vec<_> = dirs.iter().map(|dir| scope.spawn(|| work(dir, &stop, &done))).collect();
        let end = End(&stop, world.lifecycle());
        for round in 0..10 {
            let before = done.load(Ordering::Relaxed);
            wait_until("work goes on", || done.load(Ordering::Relaxed) > before + 20);
            let holder = world.lifecycle().freeze(request("a test")).unwrap();
            let frozen = world.0.memory.to_vec();
            let at = done.load(Ordering::Relaxed);
            // What needs no change is answered.
            assert_eq!(fs::read_to_string(world.path("kept")).unwrap(), "written before");
            fs::metadata(world.path(&format!("dir{}", round % 6))).unwrap();
            assert!(fs::read_dir(world.path("")).unwrap().count() >= 7);
            let mut bytes = [0; 7];
            kept.read_exact_at(&mut bytes, 0).unwrap();
            kept.sync_all().unwrap();
            kept.sync_data().unwrap();
            File::open(world.path("")).unwrap().sync_all().unwrap();
            wait_until("everybody is blocked", || {
                thread::sleep(Duration::from_millis(5));
                done.load(Ordering::Relaxed) <= at + 6
            });
            assert!(names(world.copy().0).contains(&"kept".to_owned()));
            assert!(world.0.memory.to_vec() == frozen, "a frozen device does not change");
            world.lifecycle().thaw(holder).unwrap();
            assert_eq!(world.lifecycle().thaw(holder), Err(LifecycleError::NotFrozen));
        }
        drop(end);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    drop(kept);
    world.end(true);
}

#[test]
fn a_file_without_a_name_is_right_in_the_copy_and_goes_when_it_is_closed() {
    let world = World::new();
    let mut open = File::options().create_new(true).read(true).write(true).open(world.path("gone")).unwrap();
    open.write_all(&[7; 100_000]).unwrap();
    fs::remove_file(world.path("gone")).unwrap();
    let holder = world.lifecycle().freeze(request("a test")).unwrap();
    drop(world.frozen_copy(false));
    let frozen = world.0.memory.to_vec();
    let mut bytes = Vec::new();
    (&open).read_to_end(&mut bytes).unwrap();
    drop(open);
    thread::sleep(Duration::from_millis(50));
    assert!(world.0.memory.to_vec() == frozen, "it is removed later");
    world.lifecycle().thaw(holder).unwrap();
    world.end(true);
}

/// How often something is tried that the kernel may spoil: it forgets a removed file late if it is just then shrinking its caches, and somebody
/// else on the machine may have it do that at any moment.
const ROUNDS: usize = 20;

fn is_clean_when_frozen(world: &World) -> bool {
    let _thawed = Thawed(world.lifecycle());
    world.lifecycle().freeze(request("another")).unwrap();
    world.copy().1
}

/// Thaws also if a test fails: the directory could not be removed otherwise.
struct Thawed<'w>(&'w Lifecycle);

impl Drop for Thawed<'_> {
    fn drop(&mut self) {
        // It may not have come to be frozen.
        let _ = self.0.thaw_all();
    }
}

/// A file without a name that was closed while the volume was frozen, of which the kernel has told.
fn closed_while_frozen(world: &World) {
    let open = File::options().create_new(true).write(true).open(world.path("gone")).unwrap();
    fs::remove_file(world.path("gone")).unwrap();
    let _thawed = Thawed(world.lifecycle());
    world.lifecycle().freeze(request("a test")).unwrap();
    drop(world.frozen_copy(false));
    drop(open);
    statvfs(&world.0.dir).unwrap();
}

#[test]
fn what_was_closed_while_it_was_frozen_is_gone_at_the_next_freeze() {
    let world = World::new();
    let clean = (0..ROUNDS).filter(|_| {
        closed_while_frozen(&world);
        is_clean_when_frozen(&world)
    });
    assert!(clean.count() > ROUNDS / 2);
    world.end(true);
}

#[test]
fn what_was_closed_while_it_was_frozen_is_removed_after_it() {
    let world = World::new();
    closed_while_frozen(&world);
    let fs = Arc::clone(world.0.writable.fs());
    wait_until("it is removed", || !fs.live().unfinished().unwrap().deleted_inodes);
    drop(fs);
    world.end(true);
}

#[test]
fn what_was_removed_before_a_freeze_is_gone_in_it() {
    let world = World::new();
    let clean = (0..ROUNDS).filter(|round| {
        let names: Vec<_> = (0..40).map(|i| world.path(&format!("{round}.{i}"))).collect();
        names.iter().for_each(|name| fs::write(name, vec![7; 10_000]).unwrap());
        names.iter().for_each(|name| fs::remove_file(name).unwrap());
        is_clean_when_frozen(&world)
    });
    assert!(clean.count() > ROUNDS / 2);
    world.end(true);
}

#[test]
fn however_many_wait_others_can_read() {
    let world = World::new();
    fs::write(world.path("file"), vec![1; 1 << 20]).unwrap();
    let holder = world.lifecycle().freeze(request("a test")).unwrap();
    thread::scope(|scope| {
        // More than there are threads to answer.
        let writers: Vec<_> = (0..80)
            .map(|n| world.path(&format!("new{n}")))
            .map(|p| scope.spawn(move || fs::write(p, "new")))
            .collect();
        thread::sleep(Duration::from_millis(100));
        for _ in 0..20 {
            // Nothing of it is cached by the kernel.
            rustix::fs::fadvise(
                File::open(world.path("file")).unwrap(),
                0,
                None,
                rustix::fs::Advice::DontNeed,
            )
            .unwrap();
            assert_eq!(fs::read(world.path("file")).unwrap().len(), 1 << 20);
        }
        let threads = fs::read_dir("/proc/self/task").unwrap().count();
        assert!(threads < 80 + 60, "{threads} threads, with 80 of the test");
        assert!(writers.iter().all(|writer| !writer.is_finished()));
        world.lifecycle().thaw(holder).unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap().unwrap());
    });
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 80 + 2);
    world.end(true);
}

#[test]
fn a_shutdown_lets_everybody_go_and_is_shown() {
    let world = World::new();
    fs::write(world.path("durable"), "here").unwrap();
    File::open(world.path("durable")).unwrap().sync_all().unwrap();
    let holder = world.lifecycle().freeze(request("a test")).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| fs::write(world.path("never"), "x"));
        thread::sleep(Duration::from_millis(50));
        assert!(!blocked.is_finished());
        world.lifecycle().shutdown(ShutdownMode::NoLogFlush).unwrap();
        let error = blocked.join().unwrap().unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::ROFS));
    });
    assert_eq!(world.lifecycle().thaw(holder), Ok(()));
    assert!(fs::create_dir(world.path("dir")).is_err());
    assert_eq!(fs::read_to_string(world.path("durable")).unwrap(), "here");
    wait_until("the mount shows it", || {
        statvfs(world.path("")).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY)
    });
    assert!(matches!(world.lifecycle().freeze(request("late")), Err(LifecycleError::Dead(_))));
    // Nothing was written since it was frozen, so it is clean nevertheless.
    world.end(true);
}

#[test]
fn what_a_shutdown_promises_is_there() {
    for mode in [ShutdownMode::Default, ShutdownMode::LogFlush] {
        let world = World::new();
        fs::create_dir(world.path("made")).unwrap();
        world.lifecycle().shutdown(mode).unwrap();
        assert!(names(read(&world.0.memory)).contains(&"made".to_owned()), "{mode:?}");
        world.end(mode == ShutdownMode::Default);
    }
}

#[test]
fn who_is_killed_while_he_waits_is_gone_at_once_and_changed_nothing() {
    let world = World::new();
    let holder = world.lifecycle().freeze(request("a test")).unwrap();
    let mut child = std::process::Command::new("mkdir").arg(world.path("dir")).spawn().unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    child.kill().unwrap();
    let deadline = Instant::now() + LONG;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "a killed process still waits");
        thread::sleep(Duration::from_millis(5));
    }
    world.lifecycle().thaw(holder).unwrap();
    fs::create_dir(world.path("other")).unwrap();
    assert!(!world.path("dir").exists());
    world.end(true);
}
