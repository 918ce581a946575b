//! A volume on a thin device whose pool runs out, frozen (spec 70 R12; as fstests generic/459 does, without root).
//!
//! The volume is on a snapshot of the device it was made on, so that what is written over what is there needs space, too: nodes, the journal, the superblock.
//! Then another device of the pool takes all that is left of it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use frazil_btree::write::EngineOptions;
use frazil_device::{Device, ThinDevice, ThinPool, WhenFull};
use frazil_journal::engine::NoSpace;
use frazil_posix::write::{Caller, NewNode, WriteFs, WriteFsOptions};
use frazil_posix::{Fs, NodeId};
use frazil_volume::check::{Severity, check};
use frazil_volume::lifecycle::{FreezeRequest, FrontKind, HolderId, LifecycleError};
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use frazil_volume::{OpenOptions, Recovery, Volume, open};

use crate::world::World;

const DEVICE_BYTES: u64 = 64 << 20;
const CHUNK_BYTES: u64 = 64 << 10;
/// Enough for a while.
const GROWN_BYTES: u64 = 1 << 30;
/// Long enough that whoever does not wait is through, on a machine that has more to do.
const WHILE: Duration = Duration::from_millis(400);
/// Nothing here takes so long.
const FOR_EVER: Duration = Duration::from_secs(60);

struct Thin {
    pool: Arc<ThinPool>,
    device: Arc<ThinDevice>,
    fs: Arc<WriteFs>,
}

fn is_soon(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < FOR_EVER, "{what}: never");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Thin {
    /// A volume with files that are durable, and a pool of which nothing is left.
    fn new(when_full: WhenFull, no_space: NoSpace) -> Thin {
        let pool = ThinPool::in_memory(CHUNK_BYTES, 256 << 20, WhenFull::Fail);
        let origin = pool.device("origin", DEVICE_BYTES);
        let made = World::new(&[]);
        made.live.stop().unwrap();
        let mut bytes = vec![0; CHUNK_BYTES as usize];
        for at in (0..DEVICE_BYTES).step_by(CHUNK_BYTES as usize) {
            made.memory.read_at(at, &mut bytes).unwrap();
            if bytes.iter().any(|byte| *byte != 0) {
                origin.write_at(at, &bytes).unwrap();
            }
        }
        let device = Arc::new(origin.snapshot("thin"));
        let fs = start(Arc::clone(&device) as Arc<dyn Device>, no_space);
        let thin = Thin { pool, device, fs: Arc::new(fs) };
        for name in ["a", "b", "c"] {
            thin.make(name, 100_000);
        }
        thin.fs.sync().unwrap();
        // What is to be written back when there is no space left; and, whatever has been written back by then, more than a chunk for the journal.
        let later = |n: u32| thin.make(&format!("later {n}"), 3000);
        (0..150).for_each(later);
        thin.exhaust();
        thin.pool.set_when_full(when_full);
        (150..200).for_each(later);
        // The snapshot goes on sharing what it has with its origin.
        std::mem::forget(origin);
        thin
    }

    fn make(&self, name: &str, bytes: usize) {
        let front = self.fs.front(FrontKind::Names).unwrap();
        let node =
            front.create(NodeId::ROOT, name.as_bytes(), NewNode::File, 0o644, &Caller::ROOT).unwrap().node;
        assert_eq!(front.write(node, 0, &vec![7; bytes], &Caller::ROOT).unwrap(), bytes);
    }

    /// Another device takes what is left of the pool.
    fn exhaust(&self) {
        let greedy = self.pool.device("greedy", 1 << 40);
        let mut at = 0;
        while greedy.write_at(at, &[1; 512]).is_ok() {
            at += CHUNK_BYTES;
        }
        assert_eq!(self.pool.used_bytes(), self.pool.capacity_bytes());
        std::mem::forget(greedy);
    }

    fn grow(&self) {
        self.pool.grow(GROWN_BYTES).unwrap();
    }

    fn freezes(&self, request: FreezeRequest) -> thread::JoinHandle<Result<HolderId, LifecycleError>> {
        let lifecycle = Arc::clone(self.fs.live().lifecycle());
        thread::spawn(move || lifecycle.freeze(request))
    }

    /// What a copy of the device holds now.
    fn copy(&self) -> Volume {
        read(Arc::new(self.device.snapshot("copy")))
    }

    /// Everything goes on, and is durable.
    fn goes_on(self) {
        self.make("after that", 5000);
        self.fs.sync().unwrap();
        let holder = self.fs.live().lifecycle().freeze(FreezeRequest::default()).unwrap();
        assert_frozen(self.copy(), &["a", "b", "c", "later 0", "later 199", "after that"]);
        self.fs.live().lifecycle().thaw(holder).unwrap();
        self.make("and that", 5000);
        self.fs.live().stop().unwrap();
        let volume = self.copy();
        drop(self.fs);
        assert_frozen(volume, &["a", "later 7", "after that", "and that"]);
    }
}

fn start(device: Arc<dyn Device>, no_space: NoSpace) -> WriteFs {
    let write = WriteOptions { no_space, ..WriteOptions::default() };
    let foundation = open_rw(vec![device], OpenOptions::default(), &write).unwrap_or_else(|e| panic!("{e}"));
    let engine = EngineOptions { seed: 5, restart_one_in: 7 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 16 << 20, threads: true }).unwrap();
    WriteFs::new(live, WriteFsOptions::new(Arc::new(SystemWallClock), 9)).unwrap()
}

/// It can be opened, and nothing is wrong.
fn read(device: Arc<dyn Device>) -> Volume {
    let volume = open(vec![device], OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let report = check(&volume);
    let wrong: Vec<_> = report.findings.iter().filter(|f| f.severity() != Severity::Pending).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    volume
}

fn assert_has(volume: Volume, names: &[&str]) {
    let fs = Fs::new(Arc::new(volume));
    for name in names {
        let attr = fs.lookup(NodeId::ROOT, name.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut bytes = vec![0; attr.size as usize];
        assert_eq!(fs.read(attr.node, 0, &mut bytes).unwrap(), bytes.len(), "{name}");
        assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 7), "{name}");
    }
}

fn assert_frozen(volume: Volume, names: &[&str]) {
    assert!(matches!(volume.recovery(), Recovery::Clean { .. }), "{:?}", volume.recovery());
    assert_has(volume, names);
}

#[test]
fn a_freeze_waits_for_space() {
    let thin = Thin::new(WhenFull::Queue, NoSpace::Wait);
    let freezing = thin.freezes(FreezeRequest::default());
    is_soon("a write waits", || thin.pool.waiting() > 0);
    thread::sleep(WHILE);
    let status = thin.fs.live().lifecycle().status();
    assert!(!freezing.is_finished() && status.state == "freezing", "{status:?}");
    // Reading goes on meanwhile.
    assert!(thin.fs.lookup(NodeId::ROOT, b"later 3").is_ok());
    thin.grow();
    let holder = freezing.join().unwrap().unwrap();
    assert_frozen(thin.copy(), &["a", "b", "c", "later 0", "later 199"]);
    thin.fs.live().lifecycle().thaw(holder).unwrap();
    thin.goes_on();
}

#[test]
fn a_freeze_that_gets_no_space_in_time_is_undone() {
    let thin = Thin::new(WhenFull::Queue, NoSpace::Wait);
    let request = FreezeRequest { give_up_after: Some(WHILE), ..FreezeRequest::default() };
    let begun = Instant::now();
    let refused = thin.freezes(request.clone()).join().unwrap();
    assert!(matches!(refused, Err(LifecycleError::TimedOut(_))), "{refused:?}");
    assert!(begun.elapsed() >= WHILE, "it waited");
    let lifecycle = thin.fs.live().lifecycle();
    let status = lifecycle.status();
    assert!(!lifecycle.is_read_only(), "{status:?}");
    if status.stage == Some("sealing") {
        // That is past giving up, and is done when there is room.
        thin.grow();
        is_soon("it goes on", || !lifecycle.is_blocked());
        return thin.goes_on();
    }
    assert!(!lifecycle.is_blocked(), "the gates are open at once: {status:?}");
    drop(thin.fs.try_front(FrontKind::Names).unwrap());
    // Who comes while the first is still being undone has an answer in time, too.
    let again = thin.freezes(request).join().unwrap();
    assert!(matches!(again, Err(LifecycleError::TimedOut(_))), "{again:?}");
    assert!(!lifecycle.is_blocked());
    thin.grow();
    thin.goes_on();
}

#[test]
fn a_freeze_without_space_fails_and_nothing_is_lost() {
    for no_space in [NoSpace::FailAfter(Duration::from_millis(200)), NoSpace::Wait] {
        let thin = Thin::new(WhenFull::Fail, no_space);
        let request =
            FreezeRequest { give_up_after: Some(Duration::from_secs(10)), ..FreezeRequest::default() };
        let refused = thin.freezes(request).join().unwrap();
        let error = refused.expect_err("there is no space for it");
        let lifecycle = Arc::clone(thin.fs.live().lifecycle());
        println!("{no_space:?}: {error}; {}", lifecycle.status().state);
        assert!(!lifecycle.is_blocked());
        if lifecycle.is_read_only() {
            assert!(thin.fs.front(FrontKind::Names).is_err() && thin.fs.sync().is_err());
            thin.grow();
            // As after a power cut: what was made durable is there.
            assert_has(thin.copy(), &["a", "b", "c"]);
            drop(thin.fs);
            let device = Arc::clone(&thin.device) as Arc<dyn Device>;
            let fs = start(device, no_space);
            fs.live().stop().unwrap();
            drop(fs);
            assert_frozen(read(thin.device), &["a", "b", "c"]);
        } else {
            thin.grow();
            thin.goes_on();
        }
    }
}

/// As many as one likes freeze, and give up or not, while there is no space and then is.
#[test]
fn many_freeze_while_space_comes_and_goes() {
    let thin = Thin::new(WhenFull::Queue, NoSpace::Wait);
    let freezers: Vec<_> = (1..6_u64)
        .map(|n| {
            let give_up_after = (n % 2 == 0).then(|| Duration::from_millis(30 * n));
            thin.freezes(FreezeRequest { share: true, give_up_after, ..FreezeRequest::default() })
        })
        .collect();
    thread::sleep(WHILE);
    thin.grow();
    let lifecycle = Arc::clone(thin.fs.live().lifecycle());
    for freezer in freezers {
        match freezer.join().unwrap() {
            Ok(holder) => assert_eq!(lifecycle.thaw(holder), Ok(())),
            Err(LifecycleError::TimedOut(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    thin.goes_on();
}
