//! Random lives that end in a crash, compared with the simplest model of a journal: the list of what was committed.
//!
//! A life commits updates of a small table, holds reservations open, flushes, lets reclaim write values back, lets time pass.
//! Every device operation is recorded. Then the power fails at many moments of that life; of the writes not yet flushed some
//! are lost, kept, or torn by sectors. Each image must show exactly the commits up to some entry `F`: nothing acknowledged is missing,
//! nothing later is visible, and no commit is there in part. From one of the images the next life begins, with recovery as its first act.
//!
//! One thread, one clock, one seed: `JOURNAL_SEED=n` repeats a failing run, `JOURNAL_SEEDS=n` runs more of them.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use common::{Geometry, Life, ManualClock, begin, options, read, recover};
use frazil_device::stamped::{Stamped, Time};
use frazil_device::{Device, MemDevice};
use frazil_journal::engine::{
    Dirty, FlushFailed, Journal, JournalError, Options, Pin, PinClass, Wait, Watermark,
};
use frazil_journal::{Reservation, read as reader};
use frazil_ondisk::bkey::KeyBuf;
use frazil_ondisk::jset::EntryType;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

const KEYS: u64 = 12;
const GEOMETRY: Geometry = Geometry { bucket: Sectors(32), buckets: 8 };

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// A commit, in the order of reservations, which is the order in the journal.
#[derive(Clone, Debug)]
struct Commit {
    seq: u64,
    updates: Vec<(u64, u64)>,
}

/// A value of the table: newest content in memory, older content in its sector.
struct Cell {
    key: u64,
    value: Mutex<(u64, u64)>,
    pin: Pin,
    device: Arc<dyn Device>,
    journal: Weak<Journal>,
    clock: Arc<ManualClock>,
}

fn table_sector(key: u64) -> u64 {
    (1 + key) * SECTOR_BYTES
}

fn load_cell(device: &dyn Device, key: u64) -> (u64, u64) {
    let mut b = [0; 512];
    device.read_at(table_sector(key), &mut b).unwrap();
    let word = |i: usize| u64::from_le_bytes(b[8 * i..8 * i + 8].try_into().unwrap());
    (word(0), word(1))
}

impl Dirty for Cell {
    /// Writes the value to its sector once the entry it is from is durable.
    fn flush(&self, _: u64, _: Seq) -> Result<(), FlushFailed> {
        let Some(journal) = self.journal.upgrade() else { return Ok(()) };
        let (value, seq) = *self.value.lock().unwrap();
        if !drive_to_flushed(&journal, &self.clock, seq) {
            return Err(FlushFailed { seq: Seq(seq), reason: "its entry is not durable yet".to_owned() });
        }
        let mut b = [0; 512];
        b[..8].copy_from_slice(&value.to_le_bytes());
        b[8..16].copy_from_slice(&seq.to_le_bytes());
        let written = self.device.write_at(table_sector(self.key), &b);
        written.map_err(|e| FlushFailed { seq: Seq(seq), reason: e.to_string() })?;
        self.pin.release();
        Ok(())
    }
}

/// Asks for `seq` to be durable and does what can be done about it without waiting. False if reservations are in the way.
fn drive_to_flushed(journal: &Journal, clock: &ManualClock, seq: u64) -> bool {
    use frazil_journal::engine::Clock;
    for _ in 0..40 {
        match journal.flush_seq_by(Seq(seq), Some(clock.now())) {
            Ok(()) => return true,
            Err(JournalError::TimedOut) => {
                journal.step();
            }
            Err(_) => return false,
        }
    }
    false
}

struct World {
    life: Life,
    devices: Vec<Arc<Stamped>>,
    time: Arc<Time>,
    cells: Vec<Arc<Cell>>,
    commits: Vec<Commit>,
    /// What was known to be durable, and since when.
    acknowledged: Vec<(u64, u64)>,
    /// First number of this life, and newest flush entry of the one before.
    first: u64,
    recovered: u64,
    next_value: u64,
}

impl World {
    fn new(
        life: Life,
        devices: Vec<Arc<Stamped>>,
        time: Arc<Time>,
        commits: Vec<Commit>,
        next_value: u64,
        recovered: u64,
    ) -> World {
        let first = life.journal.status().seq + 1;
        let device: Arc<dyn Device> = devices[0].clone();
        let cells = (0..KEYS)
            .map(|key| {
                Arc::new(Cell {
                    key,
                    value: Mutex::new(load_cell(&*device, key)),
                    pin: Pin::new(&life.journal, PinClass::btree((key % 4) as u8), key),
                    device: device.clone(),
                    journal: Arc::downgrade(&life.journal),
                    clock: life.clock.clone(),
                })
            })
            .collect();
        World { life, devices, time, cells, commits, acknowledged: Vec::new(), first, recovered, next_value }
    }

    /// Commits some updates. The reservation is handed back still open.
    fn commit<'j>(&mut self, journal: &'j Journal, rng: &mut Rng) -> Option<Reservation<'j>> {
        let updates: Vec<_> = (0..1 + rng.below(4))
            .map(|_| {
                self.next_value += 1;
                (rng.below(KEYS), self.next_value)
            })
            .collect();
        let spare = rng.below(60) as u32;
        let words = 7 * updates.len() as u32 + spare;
        let mut res = journal.reserve(words, Watermark::Normal, Wait::Never).ok()?;
        for &(key, value) in &updates {
            let k = KeyBuf::new(KeyType::COOKIE, Bpos::new(1, key, 0), 0, value.to_le_bytes());
            res.push_key(EntryType::BTREE_KEYS, BtreeId(0), 0, k.as_key());
            let cell = &self.cells[key as usize];
            *cell.value.lock().unwrap() = (value, res.seq().0);
            cell.pin.add(&res, cell);
        }
        self.commits.push(Commit { seq: res.seq().0, updates });
        Some(res)
    }

    fn acknowledge(&mut self) {
        // Before its first entry a journal counts the numbers it skipped as durable; the old life's entries are.
        let flushed = match self.life.journal.status().flushed_seq_ondisk {
            flushed if flushed < self.first => self.recovered,
            flushed => flushed,
        };
        self.acknowledged.push((self.time.now(), flushed));
    }

    /// One life.
    fn run(&mut self, rng: &mut Rng, steps: u64) {
        let journal = self.life.journal.clone();
        let mut held = Vec::new();
        for _ in 0..steps {
            match rng.below(100) {
                0..45 => match self.commit(&journal, rng) {
                    Some(res) if rng.below(5) == 0 && held.len() < 2 => held.push(res),
                    Some(res) => drop(res),
                    None => drop(journal.step()),
                },
                45..55 => drop(held.pop()),
                55..75 => {
                    let seq = journal.status().seq;
                    drive_to_flushed(&journal, &self.life.clock, seq);
                    self.acknowledge();
                }
                75..90 => drop(journal.step()),
                90..95 => self.life.clock.advance(Duration::from_millis(rng.below(1500))),
                95..98 if held.is_empty() => {
                    journal.meta().unwrap();
                    self.acknowledge();
                }
                98.. if held.is_empty() => drop(journal.flush_pins(Seq(u64::MAX)).unwrap()),
                _ => {}
            }
            journal.check_invariants();
        }
    }

    /// What the table must show if everything up to `upto` counts and nothing else.
    fn expected(&self, upto: u64) -> BTreeMap<u64, u64> {
        self.commits.iter().filter(|c| c.seq <= upto).flat_map(|c| c.updates.iter().copied()).collect()
    }

    /// Checks the images found after a crash at time `at`.
    fn check_images(&self, images: &[MemDevice], at: u64, what: &str) -> reader::Journal {
        let devices = shared(images);
        let journal = read(&devices, GEOMETRY).unwrap_or_else(|e| panic!("{what}: unreadable at {at}: {e}"));
        let upto = journal.newest_flush.0;
        let promised = self.acknowledged.iter().filter(|(since, _)| *since <= at).map(|(_, seq)| *seq).max();
        let promised = promised.unwrap_or(0);
        assert!(
            upto >= promised,
            "{what}: entry {promised} was acknowledged, {upto} is the newest flush entry"
        );
        let overlay = journal.overlay.level(BtreeId(0), 0);
        let expected = self.expected(upto);
        for key in 0..KEYS {
            let (stored, stored_seq) = load_cell(&*devices[0], key);
            assert!(stored_seq <= upto, "{what}: key {key} on disk is from {stored_seq}, newest is {upto}");
            let replayed = overlay.get(Bpos::new(1, key, 0));
            let got = replayed.map_or(stored, |k| u64::from_le_bytes(k.value.try_into().unwrap()));
            assert_eq!(
                got,
                expected.get(&key).copied().unwrap_or(0),
                "{what}: key {key}, newest flush {upto}"
            );
        }
        journal
    }
}

fn shared(images: &[MemDevice]) -> Vec<Arc<dyn Device>> {
    images.iter().map(|i| Arc::new(i.snapshot()) as Arc<dyn Device>).collect()
}

/// Replays what was found: values into cells, pins on the entries they are from.
fn replay(world: &World, found: &reader::Journal) {
    let journal = &world.life.journal;
    let level = found.overlay.level(BtreeId(0), 0);
    for i in 0..level.len() {
        let (key, seq) = (level.pos(i).offset, level.seq(i));
        let value = u64::from_le_bytes(level.key(i).value.try_into().unwrap());
        let cell = &world.cells[key as usize];
        *cell.value.lock().unwrap() = (value, seq.0);
        cell.pin.set(&journal.replay_hold(seq), cell);
    }
    journal.replayed(Seq(journal.status().seq));
}

/// Lives on `nr` devices, each entry on `replicas` of them.
fn run_seed(seed: u64, nr: usize, replicas: usize) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let small = Options { entry_bytes_max: 2048 + 512 * rng.below(8) as usize, replicas, ..options() };
    let mut images = new_volume(nr, &small);
    let (mut commits, mut next_value) = (Vec::new(), 0);
    for life_number in 0..4 {
        let time = Arc::new(Time::default());
        let devices: Vec<_> = images.iter().map(|i| Arc::new(Stamped::new(i.snapshot(), &time))).collect();
        let dynamic: Vec<_> = devices.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
        let found = read(&dynamic, GEOMETRY).unwrap();
        let (life, _) = recover(dynamic, GEOMETRY, small.clone(), &found);
        let mut world = World::new(life, devices, time, commits, next_value, found.newest_flush.0);
        replay(&world, &found);
        let steps = 20 + rng.below(120);
        world.run(&mut rng, steps);
        next_value = world.next_value + 1000;

        let mut chosen = None;
        for n in 0..25 {
            let at = rng.below(world.time.now() + 1);
            let sample = crash_all(&world.devices, at, n, &mut rng);
            let what = format!(
                "JOURNAL_SEED={seed} on {nr} devices, {replicas} copies, life {life_number} crash {n}"
            );
            let found = world.check_images(&sample, at, &what);
            chosen = Some((sample, found.newest_flush.0));
        }
        let (sample, upto) = chosen.unwrap();
        images = sample;
        commits = world.commits;
        commits.retain(|c| c.seq <= upto);
    }
}

/// A new filesystem has one flush entry before it is used.
fn new_volume(nr: usize, options: &Options) -> Vec<MemDevice> {
    let devices: Vec<Arc<MemDevice>> = (0..nr).map(|_| Arc::new(GEOMETRY.device())).collect();
    let dynamic = devices.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    begin(dynamic, GEOMETRY, options.clone()).journal.meta().unwrap();
    devices.iter().map(|d| d.snapshot()).collect()
}

/// The power fails everywhere at once; what each cache had not written is each device's own luck.
fn crash_all(devices: &[Arc<Stamped>], at: u64, n: u64, rng: &mut Rng) -> Vec<MemDevice> {
    let luck = |(i, device): (usize, &Arc<Stamped>)| {
        let crash = device.crash_at(at);
        match n % 5 {
            0 => crash.all_lost(),
            1 => crash.all_kept(),
            2 if i == 0 => crash.all_kept(),
            2 => crash.all_lost(),
            3 if i == 0 => crash.all_lost(),
            3 => crash.all_kept(),
            _ => crash.sample(rng.next()),
        }
    };
    devices.iter().enumerate().map(luck).collect()
}

fn run_seeds(nr: usize, replicas: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    match number("JOURNAL_SEED") {
        Some(seed) => run_seed(seed, nr, replicas),
        None => (0..number("JOURNAL_SEEDS").unwrap_or(100)).for_each(|seed| run_seed(seed, nr, replicas)),
    }
}

#[test]
fn every_crash_shows_the_commits_up_to_some_entry_and_nothing_else() {
    run_seeds(1, 1);
}

#[test]
fn so_it_does_with_entries_spread_over_two_devices() {
    run_seeds(2, 1);
}

#[test]
fn so_it_does_with_every_entry_on_two_devices() {
    run_seeds(2, 2);
}

/// The checker itself: a device that lies about flushes must be found out.
#[test]
fn a_disk_that_ignores_flushes_is_found_out() {
    let time = Arc::new(Time::default());
    let device = Arc::new(Stamped::new(GEOMETRY.device(), &time));
    let life = begin(vec![device.clone()], GEOMETRY, options());
    life.journal.meta().unwrap();
    let mut world = World::new(life, vec![device.clone()], time, Vec::new(), 0, 1);
    let journal = world.life.journal.clone();
    let before_commit = world.time.now();
    drop(world.commit(&journal, &mut Rng(7)).unwrap());
    journal.flush().unwrap();
    world.acknowledge();
    let lied = device.crash_at(before_commit).all_kept();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.check_images(&[lied], world.time.now(), "lying disk")
    }));
    assert!(caught.is_err());
}
