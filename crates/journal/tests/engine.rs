//! The running journal, one behaviour at a time, from one thread: whoever waits does the work.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Geometry, Life, begin, options, read, recover};
use frazil_device::{Device, Errno, Fault, FaultyDevice, MemDevice, RecordingDevice, ThinPool, WhenFull};
use frazil_journal::engine::{
    Dirty, FlushFailed, Journal, JournalError, NoSpace, Options, Pin, PinClass, Start, Step, Wait, Watermark,
};
use frazil_ondisk::bkey::KeyBuf;
use frazil_ondisk::jset::EntryType;
use frazil_ondisk::units::{DevIndex, Sectors, Seq};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

const GEOMETRY: Geometry = Geometry { bucket: Sectors(32), buckets: 8 };
const KEY_WORDS: u32 = 7;

fn commit(journal: &Journal, key: u64, value: u64) -> Result<Seq, JournalError> {
    let mut res = journal.reserve(KEY_WORDS, Watermark::Normal, Wait::Forever)?;
    push(&mut res, key, value);
    Ok(res.seq())
}

fn push(res: &mut frazil_journal::Reservation<'_>, key: u64, value: u64) {
    let key = KeyBuf::new(KeyType::COOKIE, Bpos::new(1, key, 0), 0, value.to_le_bytes());
    res.push_key(EntryType::BTREE_KEYS, BtreeId(0), 0, key.as_key());
}

/// A value in memory that is written back by forgetting it.
struct Cell {
    pin: Pin,
    flushes: AtomicU64,
}

impl Cell {
    fn new(journal: &Arc<Journal>, class: PinClass) -> Arc<Cell> {
        Arc::new(Cell { pin: Pin::new(journal, class, 0), flushes: AtomicU64::new(0) })
    }
}

impl Dirty for Cell {
    fn flush(&self, _: u64, seq: Seq) -> Result<(), FlushFailed> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if self.pin.seq() == Some(seq) {
            self.pin.release();
        }
        Ok(())
    }
}

fn one() -> (Life, Arc<dyn Device>) {
    let device: Arc<dyn Device> = Arc::new(GEOMETRY.device());
    (begin(vec![device.clone()], GEOMETRY, options()), device)
}

#[test]
fn what_was_flushed_is_replayed_and_the_rest_is_not() {
    let (life, device) = one();
    for i in 0..3 {
        commit(&life.journal, i, 10 + i).unwrap();
    }
    life.journal.flush().unwrap();
    commit(&life.journal, 0, 99).unwrap();
    life.journal.check_invariants();
    let found = read(&[device], GEOMETRY).unwrap();
    let level = found.overlay.level(BtreeId(0), 0);
    let values: Vec<_> = level.iter().map(|k| (k.k.pos.offset, k.value[0])).collect();
    assert_eq!(values, [(0, 10), (1, 11), (2, 12)]);
    assert!(life.host.superblock.lock().unwrap().dirty, "I18");
}

#[test]
fn the_first_entry_is_at_ring_index_1() {
    let (life, device) = one();
    let seq = commit(&life.journal, 1, 1).unwrap();
    life.journal.flush_seq(seq).unwrap();
    let found = read(&[device], GEOMETRY).unwrap();
    let at = found.found[&Seq(1)].copies[0].location;
    assert_eq!((at.ring_index, at.sector), (1, Sectors(2 * 32)), "spec 20 §2.3");
}

#[test]
fn a_hundred_commits_share_one_flush() {
    let (life, _) = one();
    for i in 0..100 {
        commit(&life.journal, i, i).unwrap();
    }
    life.journal.flush().unwrap();
    assert_eq!(life.journal.status().counters.flush_writes, 1);
    life.journal.flush().unwrap();
    assert_eq!(life.journal.status().counters.flush_writes, 1, "nothing new to flush");
}

#[test]
fn the_ring_goes_round_many_times() {
    let (life, device) = one();
    for i in 0..20_000 {
        commit(&life.journal, i % 7, i).unwrap();
        if i % 50 == 0 {
            life.journal.check_invariants();
        }
        if i % 977 == 0 {
            life.journal.flush().unwrap();
        }
    }
    life.journal.flush().unwrap();
    let status = life.journal.status();
    assert!(status.counters.bytes_written > 5 * GEOMETRY.device_bytes(), "{status}");
    assert!(status.counters.noflush_writes > 0, "not every entry is a flush: {status}");
    read(&[device], GEOMETRY).unwrap();
}

#[test]
fn pins_hold_the_front_and_reclaim_asks_their_owners() {
    let (life, _) = one();
    let cells: Vec<_> = (0..4).map(|i| Cell::new(&life.journal, PinClass::btree(i))).collect();
    for cell in &cells {
        let mut res = life.journal.reserve(KEY_WORDS, Watermark::Normal, Wait::Forever).unwrap();
        push(&mut res, 1, 1);
        cell.pin.add(&res, cell);
        drop(res);
        life.journal.flush().unwrap();
    }
    assert_eq!(life.journal.status().last_seq, 1);
    // The ring cannot fill without reclaim asking for the oldest ones.
    for i in 0..5000 {
        commit(&life.journal, i, i).unwrap();
    }
    assert!(cells.iter().all(|c| !c.pin.is_active() && c.flushes.load(Ordering::SeqCst) == 1));
    life.journal.check_invariants();
}

#[test]
fn background_reclaim_flushes_old_pins_when_time_passes() {
    let (life, _) = one();
    let cell = Cell::new(&life.journal, PinClass::KeyCache);
    let mut res = life.journal.reserve(KEY_WORDS, Watermark::Normal, Wait::Forever).unwrap();
    push(&mut res, 1, 1);
    cell.pin.set(&res, &cell);
    drop(res);
    life.clock.advance(Duration::from_millis(150));
    while life.journal.step() == Step::Worked {}
    assert!(!cell.pin.is_active());
}

#[test]
fn an_entry_is_flushed_after_the_delay_without_anybody_asking() {
    let (life, _) = one();
    let seq = commit(&life.journal, 1, 1).unwrap();
    assert_eq!(life.journal.step(), Step::IdleUntil(Duration::from_millis(1000)));
    life.clock.advance(Duration::from_millis(1001));
    while life.journal.step() == Step::Worked {}
    assert_eq!(life.journal.status().flushed_seq_ondisk, seq.0);
}

#[test]
fn async_flush_calls_back_once_when_durable() {
    let (life, _) = one();
    let seq = commit(&life.journal, 1, 1).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    life.journal.flush_async(seq, move |r| tell.lock().unwrap().push(r));
    assert!(told.lock().unwrap().is_empty());
    while life.journal.step() == Step::Worked {}
    assert_eq!(*told.lock().unwrap(), [Ok(())]);
}

#[test]
fn a_clean_shutdown_ends_with_an_empty_flush_entry_and_goes_on_from_there() {
    let (life, device) = one();
    let cell = Cell::new(&life.journal, PinClass::Level0);
    let mut res = life.journal.reserve(KEY_WORDS, Watermark::Normal, Wait::Forever).unwrap();
    push(&mut res, 1, 1);
    cell.pin.set(&res, &cell);
    drop(res);
    let stop = life.journal.shutdown().unwrap();
    life.journal.check_invariants();
    let found = read(&[device], GEOMETRY).unwrap();
    assert_eq!((found.newest_flush, found.last_seq), (stop.seq, stop.seq));
    assert!(found.used[0].jset().is_empty());
    let (_, index, used) = stop.positions[0];
    assert_eq!((index, used), (found.rings[0].cur_idx, found.rings[0].cur_offset));
}

#[test]
fn a_crash_is_recovered_behind_a_marker_and_the_blacklist() {
    let (life, device) = one();
    commit(&life.journal, 1, 1).unwrap();
    life.journal.flush().unwrap();
    commit(&life.journal, 2, 2).unwrap();
    drop(life);
    let found = read(std::slice::from_ref(&device), GEOMETRY).unwrap();
    let (life, recovery) = recover(vec![device.clone()], GEOMETRY, options(), &found);
    assert_eq!((recovery.marker, recovery.start.first), (Seq(2 + 4095), Seq(2 + 4095 + 9)));
    // Nothing of the new life on disk yet: the old one is found again, and the next start is higher still (R11).
    let again = read(std::slice::from_ref(&device), GEOMETRY).unwrap();
    assert_eq!(again.newest_flush, Seq(1));
    let twice =
        frazil_journal::engine::recovery_start(&again, &life.host.superblock.lock().unwrap().blacklist);
    assert!(twice.start.first > recovery.start.first);
    // Replay pins hold the front until replay passes.
    assert_eq!(life.journal.status().last_seq, 1);
    commit(&life.journal, 3, 3).unwrap();
    life.journal.flush().unwrap();
    let both = read(std::slice::from_ref(&device), GEOMETRY).unwrap();
    assert_eq!(both.used.iter().map(|u| u.seq).collect::<Vec<_>>(), [Seq(1), recovery.start.first]);
    life.journal.replayed(Seq(recovery.start.first.0 - 1));
    life.journal.meta().unwrap();
    let after = read(&[device], GEOMETRY).unwrap();
    assert!(after.last_seq >= recovery.start.first);
}

#[test]
fn block_stops_reservations_until_dropped() {
    let (life, _) = one();
    commit(&life.journal, 1, 1).unwrap();
    let blocked = life.journal.block().unwrap();
    let status = life.journal.status();
    assert_eq!(status.seq, status.seq_ondisk, "I33: everything granted is on disk");
    let refused = life.journal.reserve(1, Watermark::InteriorUpdates, Wait::Never).unwrap_err();
    assert_eq!(refused, JournalError::WouldBlock);
    life.journal.check_invariants();
    drop(blocked);
    commit(&life.journal, 1, 1).unwrap();
}

#[test]
fn growing_inserts_buckets_behind_the_free_ones() {
    let small = Geometry { bucket: Sectors(32), buckets: 8 };
    let device: Arc<dyn Device> = Arc::new(MemDevice::new(2 * small.device_bytes()));
    let life = begin(vec![device], small, options());
    for i in 0..300 {
        commit(&life.journal, i, i).unwrap();
    }
    let new: Vec<_> = (9..13).map(frazil_ondisk::units::BucketIndex).collect();
    let mut listed = Vec::new();
    life.journal
        .grow::<JournalError>(DevIndex(0), &new, |ring| {
            listed = ring.to_vec();
            Ok(())
        })
        .unwrap();
    assert_eq!(listed.len(), 12);
    for i in 0..3000 {
        commit(&life.journal, i, i).unwrap();
    }
    life.journal.flush().unwrap();
    life.journal.check_invariants();
}

fn two(replicas: usize) -> (Life, Vec<Arc<FaultyDevice>>) {
    let devices: Vec<_> = (0..2).map(|_| Arc::new(FaultyDevice::new(Arc::new(GEOMETRY.device())))).collect();
    let dynamic = devices.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    (begin(dynamic, GEOMETRY, Options { replicas, ..options() }), devices)
}

#[test]
fn entries_go_to_as_many_devices_as_there_are_replicas() {
    let (life, devices) = two(2);
    for i in 0..200 {
        commit(&life.journal, i, i).unwrap();
    }
    life.journal.flush().unwrap();
    let dynamic: Vec<_> = devices.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    let found = read(&dynamic, GEOMETRY).unwrap();
    assert!(found.found.values().all(|f| f.copies.len() == 2), "I5");
    assert_eq!(life.host.replicas.lock().unwrap().len(), 1, "told once");
}

#[test]
fn a_device_that_counts_for_no_copy_gets_none() {
    let devices: Vec<Arc<dyn Device>> = vec![Arc::new(GEOMETRY.device()), Arc::new(GEOMETRY.device())];
    let host = common::FakeHost::new(devices[0].clone());
    let mut members: Vec<_> =
        (0..2).map(|i| common::member(i, devices[usize::from(i)].clone(), GEOMETRY)).collect();
    members[0].durability = 0;
    let options = Options { replicas: 2, ..options() };
    let start = Start { first: Seq(1), replay_from: Seq(1) };
    let clock = Arc::new(common::ManualClock::default());
    let journal = Journal::start(members, common::format(), options, start, host.clone(), clock);
    commit(&journal, 1, 1).unwrap();
    journal.flush().unwrap();
    let marked = host.replicas.lock().unwrap().clone();
    assert_eq!(marked, [[DevIndex(1)].into_iter().collect()], "one copy has to do");
    let found = read(&devices, GEOMETRY).unwrap();
    assert!(found.used.iter().all(|entry| entry.devices == [DevIndex(1)]));
}

#[test]
fn one_lost_copy_costs_the_device_and_all_lost_copies_the_journal() {
    let (life, devices) = two(2);
    commit(&life.journal, 1, 1).unwrap();
    life.journal.flush().unwrap();
    devices[1].inject(Fault::writes());
    commit(&life.journal, 2, 2).unwrap();
    life.journal.flush().unwrap();
    assert_eq!(*life.host.lost.lock().unwrap(), [DevIndex(1)]);
    devices[0].inject(Fault::writes().within(4096..u64::MAX));
    commit(&life.journal, 3, 3).unwrap();
    assert!(matches!(life.journal.flush(), Err(JournalError::Halted(_))));
    life.journal.check_invariants();
    assert!(matches!(commit(&life.journal, 4, 4), Err(JournalError::Halted(_))), "I32");
    assert!(life.host.halted.lock().unwrap().is_some());
}

#[test]
fn every_io_may_fail_and_nothing_acknowledged_is_lost() {
    for n in 1..40 {
        let device = Arc::new(FaultyDevice::new(Arc::new(GEOMETRY.device())));
        let life = begin(vec![device.clone()], GEOMETRY, options());
        device.inject(Fault::any().nth(n).once());
        let mut acknowledged = 0;
        for i in 1..=12 {
            if commit(&life.journal, 1, i).is_ok() && life.journal.flush().is_ok() {
                acknowledged = i;
            }
        }
        life.journal.check_invariants();
        device.heal();
        let found = read(&[device], GEOMETRY);
        let value = found
            .ok()
            .and_then(|f| f.overlay.level(BtreeId(0), 0).get(Bpos::new(1, 1, 0)).map(|k| k.value[0]));
        assert!(u64::from(value.unwrap_or(0)) >= acknowledged, "I/O {n}: {value:?} < {acknowledged}");
    }
}

#[test]
fn a_full_thin_device_is_waited_for() {
    let pool = ThinPool::in_memory(4096, 64 << 10, WhenFull::Fail);
    let device: Arc<dyn Device> = Arc::new(pool.device("thin", GEOMETRY.device_bytes()));
    let no_space = NoSpace::Wait;
    let life = begin(vec![device.clone()], GEOMETRY, Options { no_space, ..options() });
    let mut i = 0;
    while !life.journal.status().waiting_for_device_space {
        commit(&life.journal, i, i).unwrap();
        let seq = Seq(life.journal.status().seq);
        let _ = life.journal.flush_seq_by(seq, Some(Duration::ZERO));
        life.journal.step();
        i += 1;
        assert!(i < 100_000, "{}", life.journal.status());
    }
    life.clock.advance(Duration::from_secs(5));
    life.journal.step();
    assert!(life.journal.status().waiting_for_device_space);
    pool.grow(16 << 20).unwrap();
    life.clock.advance(Duration::from_secs(5));
    life.journal.flush().unwrap();
    assert!(life.journal.halted().is_none());
    assert!(life.journal.status().counters.no_space_retries >= 2);
    read(&[device], GEOMETRY).unwrap();
}

#[test]
fn a_full_thin_device_fails_after_its_time() {
    let pool = ThinPool::in_memory(4096, 24 << 10, WhenFull::Fail);
    let device: Arc<dyn Device> = Arc::new(pool.device("thin", GEOMETRY.device_bytes()));
    let no_space = NoSpace::FailAfter(Duration::from_secs(3));
    let life = begin(vec![device], GEOMETRY, Options { no_space, ..options() });
    let mut i = 0;
    while life.journal.halted().is_none() {
        let _ = life.journal.reserve(100, Watermark::Normal, Wait::Until(Duration::ZERO)).map(drop);
        let _ = life.journal.flush_seq_by(Seq(life.journal.status().seq), Some(Duration::ZERO));
        life.journal.step();
        life.clock.advance(Duration::from_millis(100));
        i += 1;
        assert!(i < 100_000, "{}", life.journal.status());
    }
    assert!(life.host.halted.lock().unwrap().as_ref().unwrap().contains("not written"));
}

/// A device that holds earlier writes until there is room for them says so when it is flushed.
#[test]
fn a_flush_without_room_is_waited_for() {
    for (no_space, times) in [(NoSpace::Wait, 3), (NoSpace::FailAfter(Duration::from_secs(3)), u64::MAX)] {
        let device = Arc::new(FaultyDevice::new(Arc::new(GEOMETRY.device())));
        let life = begin(vec![device.clone()], GEOMETRY, Options { no_space, ..options() });
        device.inject(Fault::flushes().times(times).errno(Errno::NO_SPACE));
        let flush_writes = || life.journal.status().counters.flush_writes;
        let before = flush_writes();
        commit(&life.journal, 1, 1).unwrap();
        let seq = Seq(life.journal.status().seq);
        for _ in 0..100 {
            if life.journal.flush_seq_by(seq, Some(Duration::ZERO)).is_ok() || life.journal.halted().is_some()
            {
                break;
            }
            assert!(
                flush_writes() == before || device.struck() == times,
                "nothing goes before what it points to"
            );
            life.journal.step();
            life.clock.advance(Duration::from_millis(500));
        }
        let halted = life.host.halted.lock().unwrap().clone();
        match no_space {
            NoSpace::Wait => assert_eq!((halted, device.struck(), flush_writes()), (None, times, before + 1)),
            NoSpace::FailAfter(_) => {
                assert!(halted.is_some_and(|why| why.contains("cannot flush")));
                assert!(device.struck() >= 3 && flush_writes() == before, "{}", device.struck());
            }
        }
    }
}

/// A device without room does not hide that another one fails.
#[test]
fn of_several_flushes_the_worst_counts() {
    let devices = || Arc::new(FaultyDevice::new(Arc::new(GEOMETRY.device())));
    let (full, broken) = (devices(), devices());
    let life = begin(vec![full.clone(), broken.clone()], GEOMETRY, options());
    full.inject(Fault::flushes().errno(Errno::NO_SPACE));
    broken.inject(Fault::flushes().errno(Errno::IO));
    commit(&life.journal, 1, 1).unwrap();
    let seq = Seq(life.journal.status().seq);
    let _ = life.journal.flush_seq_by(seq, Some(Duration::ZERO));
    life.journal.step();
    let halted = life.host.halted.lock().unwrap().clone();
    assert!(halted.as_ref().is_some_and(|why| why.contains("cannot flush")), "{halted:?}");
}

/// An owner that never writes back.
struct Stubborn(Pin);

impl Dirty for Stubborn {
    fn flush(&self, _: u64, _: Seq) -> Result<(), FlushFailed> {
        Ok(())
    }
}

#[test]
fn a_journal_nobody_can_empty_says_so_instead_of_hanging() {
    let (life, _) = one();
    let owner = Arc::new(Stubborn(Pin::new(&life.journal, PinClass::Other, 0)));
    let res = life.journal.reserve(1, Watermark::Normal, Wait::Forever).unwrap();
    owner.0.set(&res, &owner);
    drop(res);
    let error = loop {
        match life.journal.reserve(500, Watermark::InteriorUpdates, Wait::Forever) {
            Ok(res) => drop(res),
            Err(error) => break error,
        }
    };
    let JournalError::Halted(reason) = error else { panic!("{error}") };
    let frazil_journal::engine::HaltReason::Stuck(dump) = &*reason else { panic!("{reason}") };
    assert!(dump.contains("pins 1…"), "{dump}");
}

#[test]
fn ordinary_commits_stop_under_pressure_and_reclaim_passes() {
    let (life, _) = one();
    let owner = Arc::new(Stubborn(Pin::new(&life.journal, PinClass::Other, 0)));
    let res = life.journal.reserve(1, Watermark::Normal, Wait::Forever).unwrap();
    owner.0.set(&res, &owner);
    drop(res);
    while !life.journal.status().under_pressure {
        let _ = life.journal.reserve(100, Watermark::Normal, Wait::Never).map(drop);
        life.journal.step();
    }
    life.journal.check_invariants();
    let refused = |w| life.journal.reserve(10, w, Wait::Never).map(drop);
    assert_eq!(refused(Watermark::BtreeCopygc), Err(JournalError::WouldBlock));
    assert_eq!(refused(Watermark::Reclaim), Ok(()), "I26");
    owner.0.release();
    assert_eq!(refused(Watermark::Normal), Ok(()), "I30");
}

#[test]
fn reclaim_that_asks_for_ordinary_room_is_told() {
    struct Greedy(Pin, Arc<Journal>, Mutex<Option<JournalError>>);
    impl Dirty for Greedy {
        fn flush(&self, _: u64, _: Seq) -> Result<(), FlushFailed> {
            let blocked = self.1.reserve(1, Watermark::Normal, Wait::Forever).map(drop);
            *self.2.lock().unwrap() = blocked.err();
            self.0.release();
            Ok(())
        }
    }
    let (life, _) = one();
    let owner =
        Arc::new(Greedy(Pin::new(&life.journal, PinClass::Other, 0), life.journal.clone(), Mutex::new(None)));
    let res = life.journal.reserve(1, Watermark::Normal, Wait::Forever).unwrap();
    owner.0.set(&res, &owner);
    drop(res);
    life.journal.set_buffer_pressure(true);
    life.journal.flush_pins(Seq(u64::MAX)).unwrap();
    assert_eq!(*owner.2.lock().unwrap(), Some(JournalError::WouldDeadlock));
}

#[test]
fn requests_larger_than_any_entry_are_refused() {
    let (life, _) = one();
    let limit = life.journal.entry_words_max();
    let error = life.journal.reserve(limit + 1, Watermark::Normal, Wait::Forever).unwrap_err();
    assert_eq!(error, JournalError::TooLarge { words: limit + 1, limit });
    drop(life.journal.reserve(limit, Watermark::Normal, Wait::Forever).unwrap());
    life.journal.flush().unwrap();
}

#[test]
fn flush_entries_are_preceded_by_a_flush_of_every_device() {
    // I15, seen from the devices: between the last write to a device and a flush entry's copy stands a flush.
    let recorded: Vec<_> = (0..2).map(|_| Arc::new(RecordingDevice::new(GEOMETRY.device()))).collect();
    let devices: Vec<Arc<dyn Device>> = recorded.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    let life = begin(devices, GEOMETRY, options());
    for i in 0..50 {
        recorded[1].write_at(512, &[i as u8; 512]).unwrap();
        commit(&life.journal, i, i).unwrap();
        life.journal.flush().unwrap();
        assert_eq!(recorded[1].log().crash_after(recorded[1].position()).pending(), 0, "commit {i}");
    }
}

#[test]
fn pins_follow_the_rules_of_moving() {
    let (life, _) = one();
    let (a, b) = (Cell::new(&life.journal, PinClass::Level0), Cell::new(&life.journal, PinClass::Level0));
    let pin_at = |cell: &Arc<Cell>, how: fn(&Pin, &frazil_journal::Reservation<'_>, &Arc<Cell>)| {
        let res = life.journal.reserve(1, Watermark::Normal, Wait::Forever).unwrap();
        how(&cell.pin, &res, cell);
        let seq = res.seq();
        drop(res);
        life.journal.flush().unwrap();
        seq
    };
    let first = pin_at(&a, |p, r, c| p.add(r, c));
    let second = pin_at(&a, |p, r, c| p.add(r, c));
    assert_eq!(a.pin.seq(), Some(first), "add keeps the oldest");
    let third = pin_at(&b, |p, r, c| p.set(r, c));
    a.pin.copy(&b.pin, &a);
    assert_eq!(a.pin.seq(), Some(first), "I23: copy never moves forward (R2)");
    b.pin.copy(&a.pin, &b);
    assert_eq!(b.pin.seq(), Some(first), "copy takes the older one");
    let fourth = pin_at(&a, |p, r, c| p.update(r, c));
    assert_eq!(a.pin.seq(), Some(fourth), "update moves forward");
    assert!(first < second && second < third && third < fourth);
    b.pin.set(&b.pin.covering(third), &b);
    assert_eq!(life.journal.status().last_seq, third.0);
    a.pin.release();
    drop(b);
    let status = life.journal.status();
    assert_eq!(status.last_seq, status.seq_ondisk + 1);
    life.journal.check_invariants();
}
