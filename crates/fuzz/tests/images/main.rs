//! Golden images damaged inside of their metadata, with checksums that are right all the same.
//!
//! Damage on a disk is caught by checksums; damage made by a mistake, or by somebody, is not. So a structure of a real volume
//! is changed and sealed again ([`damage`]), and then everything is done that a reader does ([`visit`]): open, list,
//! walk, read. Whatever comes of it, it must come soon, take little memory, write nothing, and not be a panic.
//!
//! A seed is one damaged volume. `FRAZIL_SEED` and `FRAZIL_ROUNDS` replay and prolong as everywhere
//! (`frazil_testing::seed`); `docs/robustness.md` says how this was run at length.

#![allow(clippy::unwrap_used)] // What goes wrong here is for the test run to show.

mod damage;
mod device;
mod edit;
mod image;
mod visit;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use allocation_counter::AllocationInfo;
use fastrand::Rng;
use frazil_device::Device;
use frazil_testing::seed::for_each_seed;

use crate::damage::damage;
use crate::device::Damaged;
use crate::image::Image;
use crate::visit::{Focus, Known, Seen, get_to_know, visit};

/// Longest time for one damaged volume.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Most memory in use at a time for one damaged volume, bytes.
const MEMORY_MAX: u64 = 512 << 20;

/// What a whole test has seen.
#[derive(Default, Debug)]
struct Tally {
    volumes: usize,
    opened: usize,
    noticed: usize,
    with_files: usize,
    memory_max: u64,
    time_max: Duration,
    slowest: u64,
}

/// Visits as many damaged versions of an image as a normal test run has time for.
fn images(name: &'static str, rounds: u64) {
    format_log_lines();
    let image = Image::load(name);
    let known = Known::default();
    let sound = visit(&devices(&image, &[]), &Focus::on(&[], &known), &mut Rng::with_seed(0));
    assert!(sound.opened && sound.objects > 5 && sound.bytes > 0, "{name}: {sound:?}");
    // Such as: it is of a version that is only read.
    assert!(sound.complaints <= 1, "{name}: {sound:?}");

    let known = get_to_know(&devices(&image, &[]));
    let watch = Watch::start(name);
    let mut tally = Tally::default();
    for_each_seed(rounds, |seed| {
        let mut rng = Rng::with_seed(seed);
        let (targets, patches) = damage(&image, &mut rng);
        let mut present = devices(&image, &patches);
        rng.shuffle(&mut present);
        if present.len() > 1 && rng.u32(..6) == 0 {
            present.pop();
        }
        let explain = Explain(|| {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            format!("{name}: damaged were: {}", targets.join("; "))
        });
        watch.begin(seed);
        let start = Instant::now();
        let mut seen = Seen::default();
        let memory = allocation_counter::measure(|| {
            seen = visit(&present, &Focus::on(&targets, &known), &mut rng);
        });
        watch.end();
        tally.add(seed, seen.complaints > sound.complaints, &seen, &memory, start.elapsed());
        assert!(memory.bytes_max <= MEMORY_MAX, "{name}: {} bytes of memory in use", memory.bytes_max);
        drop(explain);
    });
    eprintln!("{name}: {tally:?}");
    if tally.volumes > 100 {
        assert!(tally.opened > tally.volumes / 2, "damage must reach behind the superblock: {tally:?}");
        assert!(tally.noticed > tally.volumes / 5, "damage must be noticed: {tally:?}");
        assert!(tally.with_files > tally.volumes / 3, "damage must leave something to read: {tally:?}");
    }
}

impl Tally {
    fn add(&mut self, seed: u64, noticed: bool, seen: &Seen, memory: &AllocationInfo, time: Duration) {
        self.volumes += 1;
        self.opened += usize::from(seen.opened);
        self.noticed += usize::from(noticed);
        self.with_files += usize::from(seen.objects > 5);
        self.memory_max = self.memory_max.max(memory.bytes_max);
        if time > self.time_max {
            (self.time_max, self.slowest) = (time, seed);
        }
    }
}

fn devices(image: &Image, patches: &[device::Patch]) -> Vec<Arc<dyn Device>> {
    let damaged = |(i, golden)| Arc::new(Damaged::new(golden, i, patches)) as Arc<dyn Device>;
    image.devices.iter().enumerate().map(damaged).collect()
}

/// Makes the lines that go to the log, as programs do, and throws them away.
fn format_log_lines() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::sink).init());
}

/// Says what was damaged when the test panics.
struct Explain<F: Fn() -> String>(F);

impl<F: Fn() -> String> Drop for Explain<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", (self.0)());
        }
    }
}

/// Ends the test run when a volume takes too long: from within, an endless loop cannot be left.
struct Watch(Arc<AtomicU64>);

/// No volume is being visited.
const IDLE: u64 = u64::MAX;
/// How often the watch looks. It counts its looks, not the time, so that a machine that was suspended is no endless loop.
const LOOKS: u32 = 40;

impl Watch {
    fn start(name: &'static str) -> Watch {
        let current = Arc::new(AtomicU64::new(IDLE));
        let watched = Arc::downgrade(&current);
        std::thread::spawn(move || {
            let (mut seed, mut looks) = (IDLE, 0);
            while let Some(current) = watched.upgrade() {
                let now = current.load(Ordering::Relaxed);
                looks = if now == seed && now != IDLE { looks + 1 } else { 0 };
                seed = now;
                if looks > LOOKS {
                    eprintln!(
                        "{name}: seed {seed} takes more than {TIME_MAX:?}; replay it with FRAZIL_SEED={seed}"
                    );
                    std::process::abort();
                }
                drop(current);
                std::thread::sleep(TIME_MAX / LOOKS);
            }
        });
        Watch(current)
    }

    fn begin(&self, seed: u64) {
        self.0.store(seed, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }
}

/// One test per image: its name, and how many damaged versions of it a normal run visits.
macro_rules! images {
    ($($test:ident: $image:literal, $rounds:literal;)*) => {
        $(#[test] fn $test() { images($image, $rounds); })*
    };
}

images! {
    small_tree: "02-small-tree", 300;
    compressed: "05-compress-zstd", 300;
    other_checksums: "04-csum-meta-xxhash-data-crc32c", 150;
    quotas: "14-usrquota", 150;
    crash_create: "08-crash-create", 100;
    crash_encrypted: "08-crash-encrypted", 100;
    tiered: "09-multi-tiered", 300;
    snapshots: "10-snapshots", 300;
    snapshot_deletion: "10-crash-snapdelete", 100;
    reflinks: "11-reflink", 300;
    preallocated: "12-fallocate", 300;
    inline_and_nocow: "13-nocow-inline", 300;
    orphans: "13-orphans", 300;
    newer_casefold: "18-newer-1.39-casefold", 200;
    newer_erasure_coded: "18-newer-1.39-ec", 100;
    newer_unclean: "18-newer-1.39-unclean", 100;
}
