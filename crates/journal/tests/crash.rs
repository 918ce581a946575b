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
use frazil_device::{Device, MemDevice, RecordingDevice};
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
    recorder: Arc<RecordingDevice>,
    cells: Vec<Arc<Cell>>,
    commits: Vec<Commit>,
    /// What was known to be durable at each mark.
    acknowledged: Vec<u64>,
    /// First number of this life, and newest flush entry of the one before.
    first: u64,
    recovered: u64,
    next_value: u64,
}

impl World {
    fn new(
        life: Life,
        recorder: Arc<RecordingDevice>,
        commits: Vec<Commit>,
        next_value: u64,
        recovered: u64,
    ) -> World {
        let first = life.journal.status().seq + 1;
        let device: Arc<dyn Device> = recorder.clone();
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
        World { life, recorder, cells, commits, acknowledged: Vec::new(), first, recovered, next_value }
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
        self.recorder.mark(self.acknowledged.len() as u64);
        self.acknowledged.push(flushed);
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

    /// Checks an image found after a crash that happened after `position` events.
    fn check_image(&self, image: &MemDevice, position: usize, what: &str) -> reader::Journal {
        let device: Arc<dyn Device> = Arc::new(image.snapshot());
        let journal = read(std::slice::from_ref(&device), GEOMETRY)
            .unwrap_or_else(|e| panic!("{what}: unreadable after {position} events: {e}"));
        let upto = journal.newest_flush.0;
        let log = self.recorder.log();
        let promised = log.marks_before(position).map(|m| self.acknowledged[m as usize]).max().unwrap_or(0);
        assert!(
            upto >= promised,
            "{what}: entry {promised} was acknowledged, {upto} is the newest flush entry"
        );
        let overlay = journal.overlay.level(BtreeId(0), 0);
        let expected = self.expected(upto);
        for key in 0..KEYS {
            let (stored, stored_seq) = load_cell(&*device, key);
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

fn run_seed(seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let small = Options { entry_bytes_max: 2048 + 512 * rng.below(8) as usize, ..options() };
    // A new filesystem has one flush entry before it is used.
    let device: Arc<dyn Device> = Arc::new(GEOMETRY.device());
    let life = begin(vec![device.clone()], GEOMETRY, small.clone());
    life.journal.meta().unwrap();
    drop(life);
    let mut image = MemDevice::from_bytes(&{
        let mut bytes = vec![0; GEOMETRY.device_bytes() as usize];
        device.read_at(0, &mut bytes).unwrap();
        bytes
    });
    let (mut commits, mut next_value) = (Vec::new(), 0);
    for life_number in 0..4 {
        let recorder = Arc::new(RecordingDevice::new(image.snapshot()));
        let device: Arc<dyn Device> = recorder.clone();
        let found = read(std::slice::from_ref(&device), GEOMETRY).unwrap();
        let (life, _) = recover(vec![device], GEOMETRY, small.clone(), &found);
        let mut world = World::new(life, recorder, commits, next_value, found.newest_flush.0);
        replay(&world, &found);
        let steps = 20 + rng.below(120);
        world.run(&mut rng, steps);
        next_value = world.next_value + 1000;

        let log = world.recorder.log();
        let mut chosen = None;
        for n in 0..25 {
            let position = rng.below(log.events.len() as u64 + 1) as usize;
            let crash = log.crash_after(position);
            let sample = match n % 4 {
                0 => crash.all_lost(),
                1 => crash.all_kept(),
                _ => crash.sample(rng.next()),
            };
            let what = format!("JOURNAL_SEED={seed} life {life_number} crash {n}");
            let found = world.check_image(&sample, position, &what);
            chosen = Some((sample, found.newest_flush.0));
        }
        let (sample, upto) = chosen.unwrap();
        image = sample;
        commits = world.commits;
        commits.retain(|c| c.seq <= upto);
    }
}

#[test]
fn every_crash_shows_the_commits_up_to_some_entry_and_nothing_else() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    match number("JOURNAL_SEED") {
        Some(seed) => run_seed(seed),
        None => (0..number("JOURNAL_SEEDS").unwrap_or(150)).for_each(run_seed),
    }
}

/// The checker itself: a device that lies about flushes must be found out.
#[test]
fn a_disk_that_ignores_flushes_is_found_out() {
    let recorder = Arc::new(RecordingDevice::new(GEOMETRY.device()));
    let device: Arc<dyn Device> = recorder.clone();
    let life = begin(vec![device], GEOMETRY, options());
    life.journal.meta().unwrap();
    let mut world = World::new(life, recorder, Vec::new(), 0, 1);
    let journal = world.life.journal.clone();
    let mut rng = Rng(7);
    drop(world.commit(&journal, &mut rng).unwrap());
    journal.flush().unwrap();
    world.acknowledge();
    let before_flush = world.recorder.log().crash_after(2);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.check_image(&before_flush.all_kept(), world.recorder.position(), "lying disk")
    }));
    assert!(caught.is_err());
}
