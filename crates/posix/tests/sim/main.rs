//! The simulator: a whole volume, run from a seed.
//!
//! From a seed come the volume (its devices, block, bucket and node sizes, checksums, compression, encryption, copies), what is done to it,
//! what the journal and the other workers do in between, when the power fails and what is left of the writes that were under way. Nothing
//! else has a say: there are no threads, and time is a number ([`machine`]). So every failure can be repeated:
//!
//!     FRAZIL_SEED=17 cargo test -p frazil-posix --test sim NAME
//!
//! A seed is a volume with several lives. In each, operations are done to the volume and to a model of it ([`ops`], [`content`], [`model`]), which must agree
//! on every result. Then the power is cut at moments drawn by lot, on all devices at once. What is left must open and be without contradiction,
//! hold a state that the model was in, not older than the last that was known to be durable; it must recover, finish what
//! was under way, stop cleanly, and be without anything pending ([`life`]). The next life begins with one of these images.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod content;
mod life;
mod machine;
mod model;
mod observe;
mod ops;
mod rest;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use frazil_device::{Fault, MemDevice};
use frazil_posix::Fs;
use frazil_posix::write::WriteFs;
use frazil_testing::seed::for_each_seed;

use life::{History, assert_stopped, finish, live, recover};
use machine::{Disks, ManualTime, Shape, start};
use model::{Model, lines};
use ops::Run;
use rest::Bed;

/// Longer than any seed can take, whatever else the machine does.
const SEED_SECONDS_MAX: u64 = 300;

/// Ends the process if a seed does not end: nothing may hang.
struct Watchdog(Arc<AtomicU64>);

impl Watchdog {
    fn new(seed: u64) -> Watchdog {
        let done = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&done);
        std::thread::spawn(move || {
            let begun = Instant::now();
            while theirs.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(200));
                if begun.elapsed() > Duration::from_secs(SEED_SECONDS_MAX) {
                    eprintln!("seed {seed} hangs; replay it with FRAZIL_SEED={seed}");
                    std::process::abort();
                }
            }
        });
        Watchdog(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

/// A new volume and its model.
fn new_volume(rng: &mut fastrand::Rng, seed: u64) -> (Shape, Vec<MemDevice>, Model) {
    let shape = Shape::draw(rng);
    println!("seed {seed}: {shape:?}");
    let images = shape.format(seed);
    let volume = shape.read(&images).unwrap();
    let model = Model::of(&observe::tree(&Fs::new(Arc::new(volume))).unwrap());
    (shape, images, model)
}

fn run<'w>(fs: &'w WriteFs, time: &'w Arc<ManualTime>, rng: &'w mut fastrand::Rng, model: Model) -> Run<'w> {
    let block = fs.live().superblock().view().superblock.block_bytes();
    Run {
        fs,
        time,
        rng,
        model,
        held: BTreeMap::new(),
        changed: Vec::new(),
        loose: None,
        faults: false,
        blind: false,
        may_end: false,
        over: false,
        doing: String::new(),
        block,
        snapshots: 0,
    }
}

/// Crashes tried, of all seeds.
static CRASHES: AtomicU64 = AtomicU64::new(0);

fn crashes(seed: u64, lives: u32, steps: u32, cuts: u32) {
    let _watchdog = Watchdog::new(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (shape, mut images, mut model) = new_volume(&mut rng, seed);
    let time = ManualTime::new();
    for life in 0..lives {
        let disks = Disks::new(&images);
        let fs = start(&shape, disks.devices(), &time, rng.u64(..)).unwrap();
        finish(&fs).unwrap();
        let mut run = run(&fs, &time, &mut rng, model.clone());
        run.may_end = true;
        let many = run.rng.u32(steps / 3..steps);
        let mut history = History::new(run.model.clone());
        live(&mut run, &Bed { shape: &shape, disks: &disks }, many, &mut history);
        let over = run.over;
        model = run.model;
        let end = disks.time.now();
        let mut chosen = None;
        for cut in 0..cuts {
            let at = history.moment(end, &mut rng);
            let what = format!("seed {seed} life {life} cut {cut} at {at} of {end}");
            let left = disks.crash(at, cut, &mut rng);
            let found = recover(&shape, &history, &left, at, &what);
            CRASHES.fetch_add(1, Ordering::Relaxed);
            chosen = Some((left, found));
        }
        if (over || rng.bool())
            && let Some((left, found)) = chosen
        {
            (images, model) = (left, found);
        } else {
            // Or it is stopped properly.
            fs.live().journal().flush().unwrap();
            finish_all(&fs, &mut model);
            fs.live().stop().unwrap();
            images = disks.crash(disks.time.now(), 1, &mut rng);
            assert_stopped(&shape, &images, &lines(&model.tree(), None), &format!("seed {seed} life {life}"));
        }
        model.forget_nameless();
    }
    println!("{} crashes so far", CRASHES.load(Ordering::Relaxed));
}

/// Before a clean stop: nobody holds anything any more.
fn finish_all(fs: &WriteFs, model: &mut Model) {
    let nameless: Vec<_> = model.nodes.iter().filter(|(_, node)| node.attr.nlink == 0).collect();
    nameless.iter().for_each(|(id, _)| fs.release(**id, u64::MAX));
    finish(fs).unwrap();
}

#[test]
fn nothing_is_lost_by_crashes() {
    for_each_seed(16, |seed| crashes(seed, 3, 150, 10));
}

/// A volume is filled up, used while it is full, and gets room again.
fn full(seed: u64) {
    let _watchdog = Watchdog::new(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (shape, images, model) = new_volume(&mut rng, seed);
    let time = ManualTime::new();
    let disks = Disks::new(&images);
    let fs = start(&shape, disks.devices(), &time, rng.u64(..)).unwrap();
    let mut run = run(&fs, &time, &mut rng, model);
    let mut history = History::new(run.model.clone());
    live(&mut run, &Bed { shape: &shape, disks: &disks }, 40, &mut history);
    let mut filled = Vec::new();
    for name in [&b"full1"[..], b"full2"] {
        let begun = disks.time.now();
        let (big, generation, len) = run.fill_up(name);
        history.push(begun, &run);
        filled.push(len);
        live(&mut run, &Bed { shape: &shape, disks: &disks }, 60, &mut history);
        let is_gone = run.remove((big, generation), &disks, &mut history);
        finish(&fs).unwrap();
        live(&mut run, &Bed { shape: &shape, disks: &disks }, 5, &mut history);
        // What a snapshot saw stays in the snapshot above after its deletion, until that goes too.
        if !is_gone || run.snapshots > 0 {
            break;
        }
    }
    println!("seed {seed}: filled {filled:?}");
    // The other files have changed meanwhile, but they are small.
    if let [first, second] = filled[..] {
        assert!(second > first / 2, "seed {seed}: {first} bytes fitted, then only {second}");
    }
    let end = disks.time.now();
    for cut in 0..8 {
        let at = rng.u64(0..=end);
        let what = format!("seed {seed} cut {cut} at {at} of {end}");
        recover(&shape, &history, &disks.crash(at, cut, &mut rng), at, &what);
    }
}

#[test]
fn a_full_volume_goes_on() {
    for_each_seed(3, full);
}

/// One operation of a device fails, or from some moment on all of a kind do.
fn fault(rng: &mut fastrand::Rng, io: u64) -> Fault {
    let kind = match rng.u8(0..5) {
        0 => Fault::reads(),
        1 | 2 => Fault::writes(),
        3 => Fault::flushes(),
        _ => Fault::any(),
    };
    let fault = kind.nth(rng.u64(1..=io));
    match rng.u8(0..3) {
        0 => fault,
        1 => fault.times(rng.u64(1..4)),
        _ => fault.once(),
    }
}

/// Devices fail during a life; what was acknowledged is there afterwards.
fn failing(seed: u64, lives: u32) {
    let _watchdog = Watchdog::new(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (shape, images, model) = new_volume(&mut rng, seed);
    let time = ManualTime::new();
    let disks = Disks::new(&images);
    let (images, model) = {
        // Something to begin with.
        let fs = start(&shape, disks.devices(), &time, rng.u64(..)).unwrap();
        let mut run = run(&fs, &time, &mut rng, model);
        let mut history = History::new(run.model.clone());
        live(&mut run, &Bed { shape: &shape, disks: &disks }, 60, &mut history);
        let mut model = run.model;
        finish_all(&fs, &mut model);
        fs.live().stop().unwrap();
        model.forget_nameless();
        (disks.crash(disks.time.now(), 1, &mut rng), model)
    };
    for life in 0..lives {
        let disks = Disks::new(&images);
        let failing = rng.usize(0..disks.faulty.len());
        let io = [30, 300][rng.usize(0..2)];
        let early = rng.u8(0..4) == 0;
        let fault = fault(&mut rng, io);
        let what = format!("seed {seed} life {life}, disk {failing} {fault:?}");
        if early {
            disks.faulty[failing].inject(fault.clone());
        }
        let mut history = History::new(model.clone());
        match start(&shape, disks.devices(), &time, rng.u64(..)) {
            Err(_) if early => {}
            Err(error) => panic!("{what}: {error}"),
            Ok(fs) => {
                if !early {
                    finish(&fs).unwrap_or_else(|e| panic!("{what}: {e}"));
                    disks.faulty[failing].inject(fault);
                }
                let mut run = run(&fs, &time, &mut rng, model.clone());
                (run.faults, run.may_end) = (true, true);
                live(&mut run, &Bed { shape: &shape, disks: &disks }, 80, &mut history);
            }
        }
        // The disk works again, or another has its content.
        let end = disks.time.now();
        for cut in 0..3 {
            recover(&shape, &history, &disks.crash(end, cut, &mut rng), end, &format!("{what}, cut {cut}"));
        }
    }
}

#[test]
fn devices_may_fail() {
    for_each_seed(12, |seed| failing(seed, 4));
}
