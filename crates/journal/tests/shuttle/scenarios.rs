//! What threads do to each other.

use std::ops::Range;
use std::sync::atomic::AtomicU64 as StdAtomicU64;
use std::time::Duration;

use frazil_device::{Device, Fault, FaultyDevice, MemDevice};
use frazil_ondisk::BtreeId;
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::jset::EntryType;
use frazil_ondisk::units::{BucketIndex, DevIndex, Sectors, Seq};
use frazil_ondisk::version::Version;

use crate::engine::{
    Clock, DevSet, Dirty, EntryImage, FlushFailed, Format, HaltReason, Host, HostError, Journal,
    JournalError, Member, Options, Pin, PinClass, Position, Start, Wait, Watermark,
};
use crate::sync::{Arc, Ordering, set_shard};

/// Schedules per test.
const ITERATIONS: usize = 400;

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let set = std::env::var("SHUTTLE_ITERATIONS").ok().map(|n| n.parse().unwrap());
    shuttle::check_random(scenario, set.unwrap_or(ITERATIONS));
}

struct Alone;

impl Host for Alone {
    fn common_words(&self) -> u32 {
        0
    }
    fn finish_entry(&self, _: &mut EntryImage) {}
    fn mark_dirty(&self) -> Result<(), HostError> {
        Ok(())
    }
    fn mark_replicas(&self, _: &DevSet) -> Result<(), HostError> {
        Ok(())
    }
    fn blacklist(&self, _: Range<Seq>) -> Result<(), HostError> {
        Ok(())
    }
}

/// Every look at it is a millisecond later.
struct Ticking(StdAtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    }
}

/// The smallest ring there is (spec 20 §1.2).
const BUCKETS: u64 = 8;

fn memory(bucket_sectors: u64) -> Arc<dyn Device> {
    Arc::new(MemDevice::new(BUCKETS * bucket_sectors * 512))
}

fn journal(device: Arc<dyn Device>, entry_bytes_max: usize) -> Arc<Journal> {
    let bucket = Sectors(device.size_sectors() / BUCKETS);
    let member = Member {
        dev: DevIndex(0),
        device,
        bucket,
        buckets: (0..BUCKETS).map(BucketIndex).collect(),
        position: Position::Clean { index: 0, offset: Sectors(0) },
        writable: true,
        durability: 1,
        discard: true,
    };
    let format = Format {
        magic: 1,
        version: Version::WRITE,
        csum_type: ChecksumType::None,
        key: None,
        block_bytes: 512,
        has_overwrites: false,
    };
    let start = Start { first: Seq(1), replay_from: Seq(1) };
    let options = Options { entry_bytes_max, ..Options::default() };
    let clock = Arc::new(Ticking(StdAtomicU64::new(0)));
    Journal::start(vec![member], format, options, start, Arc::new(Alone), clock)
}

fn commit(journal: &Journal, words: u32) -> Result<Seq, JournalError> {
    let mut res = journal.reserve(words, Watermark::Normal, Wait::Forever)?;
    let payload = vec![1; words as usize - 1];
    res.push_entry(EntryType::LOG, BtreeId(0), 0, &payload);
    Ok(res.seq())
}

fn threads(
    n: usize,
    work: impl Fn(usize) + Send + Sync + Clone + 'static,
) -> Vec<shuttle::thread::JoinHandle<()>> {
    (0..n)
        .map(|i| {
            let work = work.clone();
            shuttle::thread::spawn(move || {
                set_shard(i % 2);
                work(i);
            })
        })
        .collect()
}

fn join(handles: Vec<shuttle::thread::JoinHandle<()>>) {
    handles.into_iter().for_each(|h| h.join().unwrap());
}

/// A cell that is written back by letting go.
struct Cell(Pin);

impl Dirty for Cell {
    fn flush(&self, _: u64, seq: Seq) -> Result<(), FlushFailed> {
        if self.0.seq() == Some(seq) {
            self.0.release();
        }
        Ok(())
    }
}

#[test]
fn everybody_who_waits_for_durability_gets_it() {
    explore(|| {
        let journal = journal(memory(8), 1024);
        let shared = journal.clone();
        join(threads(3, move |_| {
            for _ in 0..2 {
                let seq = commit(&shared, 10).unwrap();
                shared.flush_seq(seq).unwrap();
                assert!(shared.status().flushed_seq_ondisk >= seq.0, "I17");
            }
        }));
        journal.check_invariants();
    });
}

#[test]
fn entries_fill_close_and_go_round_the_ring_under_many_writers() {
    explore(|| {
        let journal = journal(memory(2), 512);
        let shared = journal.clone();
        // 30 words of 57: every second commit exhausts an entry, and the ring goes round.
        join(threads(3, move |i| {
            for n in 0..8 {
                commit(&shared, 20 + 5 * i as u32 + n).unwrap();
            }
        }));
        journal.flush().unwrap();
        journal.check_invariants();
        assert_eq!(journal.status().last_seq, journal.status().seq_ondisk + 1);
    });
}

#[test]
fn a_halt_wakes_everybody() {
    explore(|| {
        let journal = journal(memory(8), 1024);
        let shared = journal.clone();
        let waiters = threads(2, move |_| {
            for _ in 0..3 {
                let Ok(seq) = commit(&shared, 10) else { return };
                let flushed = shared.flush_seq(seq);
                let durable = shared.status().flushed_seq_ondisk >= seq.0;
                assert!(flushed.is_ok() == durable || flushed.is_err(), "I17");
            }
        });
        journal.halt(HaltReason::Requested("test".to_owned()));
        assert!(journal.reserve(1, Watermark::InteriorUpdates, Wait::Forever).is_err(), "I32");
        join(waiters);
        journal.wait_settled();
        journal.check_invariants();
    });
}

#[test]
fn a_failing_device_halts_and_nobody_hangs() {
    explore(|| {
        let device = Arc::new(FaultyDevice::new(memory(8)));
        device.inject(Fault::writes().nth(3));
        let journal = journal(device, 1024);
        let shared = journal.clone();
        join(threads(3, move |_| while commit(&shared, 10).and_then(|seq| shared.flush_seq(seq)).is_ok() {}));
        assert!(journal.halted().is_some());
        journal.wait_settled();
        journal.check_invariants();
    });
}

#[test]
fn blocking_waits_for_writers_and_unblocking_wakes_them() {
    explore(|| {
        let journal = journal(memory(8), 1024);
        let shared = journal.clone();
        let writers = threads(2, move |_| {
            for _ in 0..3 {
                commit(&shared, 10).unwrap();
            }
        });
        let blocked = journal.block().unwrap();
        let status = journal.status();
        assert_eq!(status.seq, status.seq_ondisk, "I33");
        assert_eq!(status.blocked, 1);
        shuttle::thread::yield_now();
        assert_eq!(journal.status().seq, status.seq, "I33: nothing opens");
        drop(blocked);
        join(writers);
        journal.check_invariants();
    });
}

#[test]
fn reclaim_makes_room_while_pins_are_added() {
    explore(|| {
        let journal = journal(memory(2), 512);
        let shared = journal.clone();
        // Each thread dirties a cell with every commit; only flushing the cells lets the ring go round.
        join(threads(3, move |i| {
            let cell = Arc::new(Cell(Pin::new(&shared, PinClass::btree(i as u8), 0)));
            for _ in 0..8 {
                let mut res = shared.reserve(30, Watermark::Normal, Wait::Forever).unwrap();
                res.push_entry(EntryType::LOG, BtreeId(0), 0, &[0; 29]);
                cell.0.add(&res, &cell);
                drop(res);
            }
            cell.0.wait_not_flushing();
        }));
        journal.check_invariants();
        let stop = journal.shutdown().unwrap();
        assert_eq!(journal.status().last_empty_seq, stop.seq.0, "I31");
    });
}

#[test]
fn callbacks_are_called_once_with_the_truth() {
    explore(|| {
        let journal = journal(memory(8), 1024);
        let shared = journal.clone();
        let calls = Arc::new(StdAtomicU64::new(0));
        let counted = calls.clone();
        let asking = threads(2, move |_| {
            let (seq, counted) = (commit(&shared, 10).unwrap(), counted.clone());
            let seen = shared.clone();
            shared.flush_async(seq, move |result| {
                assert!(result.is_err() || seen.status().flushed_seq_ondisk >= seq.0);
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            });
        });
        journal.flush().unwrap();
        join(asking);
        while calls.load(std::sync::atomic::Ordering::SeqCst) < 2 {
            journal.step();
        }
        assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 2);
    });
}

/// Shuttle must be able to find what it is here to find: a waiter that nobody wakes.
#[test]
fn a_lost_wake_up_is_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::panic::catch_unwind(|| {
        explore(|| {
            // Race R7: completion wakes one list, the waiter sleeps on another.
            let shared = Arc::new((
                crate::sync::Mutex::new(false),
                crate::sync::Condvar::new(),
                crate::sync::Condvar::new(),
            ));
            let waiter = {
                let shared = shared.clone();
                shuttle::thread::spawn(move || {
                    let mut done = shared.0.lock();
                    while !*done {
                        done = shared.2.wait(done);
                    }
                })
            };
            *shared.0.lock() = true;
            shared.1.notify_all();
            waiter.join().unwrap();
        });
    });
    std::panic::set_hook(quiet);
    assert!(found.is_err());
}
