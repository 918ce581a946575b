//! Real threads, a real file, a driver: what the model checkers cannot have.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{FakeHost, Geometry, format, member, options, read};
use frazil_device::{Access, Device, Fault, FaultyDevice, FileDevice, MemDevice, OpenOptions};
use frazil_journal::engine::driver::Driver;
use frazil_journal::engine::{
    Dirty, FlushFailed, Journal, Options, Pin, PinClass, Start, SystemClock, Wait, Watermark,
};
use frazil_ondisk::bkey::KeyBuf;
use frazil_ondisk::jset::EntryType;
use frazil_ondisk::units::{Sectors, Seq};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

const GEOMETRY: Geometry = Geometry { bucket: Sectors(64), buckets: 16 };
const THREADS: u64 = 8;
const COMMITS: u64 = 200;

/// An entry that is open behind one that is being written is closed when that is done, also if only who waits for quiet is there to do it.
#[test]
fn quiet_comes_without_a_driver() {
    let device = Arc::new(FaultyDevice::new(Arc::new(MemDevice::new(GEOMETRY.device_bytes()))));
    let on: Arc<dyn Device> = device.clone();
    let journal = Journal::start(
        vec![member(0, on.clone(), GEOMETRY)],
        format(),
        Options { entry_bytes_max: 16384, ..options() },
        Start { first: Seq(1), replay_from: Seq(1) },
        FakeHost::new(on),
        Arc::new(SystemClock::default()),
    );
    let commit = || {
        let mut res = journal.reserve(7, Watermark::Normal, Wait::Forever).unwrap();
        let key = KeyBuf::new(KeyType::COOKIE, Bpos::new(1, 1, 0), 0, 1u64.to_le_bytes());
        res.push_key(EntryType::BTREE_KEYS, BtreeId(0), 0, key.as_key());
        res.seq()
    };
    journal.flush_seq(commit()).unwrap();
    device.inject(Fault::writes().hanging());
    std::thread::scope(|scope| {
        let (journal, first) = (&journal, commit());
        let writer = scope.spawn(move || journal.flush_seq(first));
        while device.hanging() == 0 {
            std::thread::yield_now();
        }
        assert!(commit() > first);
        let (done, quiet) = channel();
        scope.spawn(move || done.send(journal.quiesce()));
        assert!(quiet.recv_timeout(Duration::from_millis(50)).is_err());
        device.heal();
        writer.join().unwrap().unwrap();
        let came = quiet.recv_timeout(Duration::from_secs(20));
        // Lets the thread go, so that the test fails instead of hanging.
        let _ = journal.flush();
        came.unwrap().unwrap();
    });
}

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
fn many_threads_commit_durably_and_share_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let open = OpenOptions::new(Access::ReadWrite).create_bytes(GEOMETRY.device_bytes());
    let device: Arc<dyn Device> = Arc::new(FileDevice::open(&dir.path().join("journal"), open).unwrap());
    let journal = Journal::start(
        vec![member(0, device.clone(), GEOMETRY)],
        format(),
        Options { entry_bytes_max: 16384, ..options() },
        Start { first: Seq(1), replay_from: Seq(1) },
        FakeHost::new(device.clone()),
        Arc::new(SystemClock::default()),
    );
    let driver = Driver::start(&journal).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                let cell = Arc::new(Cell(Pin::new(journal, PinClass::Level0, thread)));
                for n in 1..=COMMITS {
                    let mut res = journal.reserve(7, Watermark::Normal, Wait::Forever).unwrap();
                    let key = KeyBuf::new(KeyType::COOKIE, Bpos::new(1, thread, 0), 0, n.to_le_bytes());
                    res.push_key(EntryType::BTREE_KEYS, BtreeId(0), 0, key.as_key());
                    cell.0.add(&res, &cell);
                    let seq = res.seq();
                    drop(res);
                    journal.flush_seq(seq).unwrap();
                }
            });
        }
    });
    let status = journal.status();
    journal.check_invariants();
    assert_eq!(status.flushed_seq_ondisk, status.seq_ondisk);
    assert!(status.counters.flush_writes < THREADS * COMMITS, "flushes are shared: {status}");
    // Crash: the driver stops, nothing else is written. Everything was acknowledged.
    drop(driver);
    let found = read(&[device], GEOMETRY).unwrap();
    let level = found.overlay.level(BtreeId(0), 0);
    let newest = level.iter().map(|k| u64::from_le_bytes(k.value.try_into().unwrap())).max();
    assert_eq!(newest, Some(COMMITS));
}
