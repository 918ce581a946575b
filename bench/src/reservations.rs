//! What it costs to reserve room, copy a 64-byte key in, and return the reservation.
//!
//! Only this is timed: batches that fit one entry, with all threads in the middle of it; opening, closing and writing entries happens
//! between the batches. The device is memory. The threads of a batch meet on a spinning barrier, and the best decile of
//! the batches is shown, because a batch counts only if all its threads really ran at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use frazil_device::MemDevice;
use frazil_journal::engine::{Journal, Wait, Watermark};
use frazil_ondisk::BtreeId;
use frazil_ondisk::jset::EntryType;

use crate::fixture;

/// A header word and a key of 64 bytes.
const WORDS: u32 = 9;
const ENTRY_BYTES: usize = 4 << 20;
const BATCHES: usize = 100;
/// Turns of an empty loop that take some 200 ns: less than any real commit does between two reservations.
const WORK: u64 = 400;

/// Prints nanoseconds per operation for each number of threads.
pub fn table() {
    println!("reserve + copy a 64-byte key + return (best decile of {BATCHES} batches)");
    println!("{:>8} {:>10} {:>12} {:>10}", "threads", "ns/op", "Mops/s", "speed-up");
    let mut single = 0.0;
    for (work, what) in [(0, "nothing else"), (WORK, "and as much work as a small commit")] {
        println!("{what}:");
        for threads in [1, 2] {
            let ns = measure(threads, work);
            single = if threads == 1 { ns } else { single };
            println!("{threads:>8} {ns:>10.1} {:>12.1} {:>9.2}x", 1000.0 / ns, single / ns);
        }
    }
    println!();
}

fn measure(threads: usize, work: u64) -> f64 {
    let device = Arc::new(MemDevice::new(64 << 20));
    let journal = fixture::journal(device, 512, ENTRY_BYTES);
    // Less than an entry, so that no batch meets its end.
    let per_thread = ENTRY_BYTES / 8 / WORDS as usize * 9 / 10 / threads;
    let (turn, arrived) = (Barrier::new(threads + 1), AtomicUsize::new(0));
    let spans = Mutex::new(Vec::new());
    let mut batches = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for batch in 1..=BATCHES {
                    turn.wait();
                    arrived.fetch_add(1, Ordering::SeqCst);
                    while arrived.load(Ordering::SeqCst) < batch * threads {
                        std::hint::spin_loop();
                    }
                    let begin = Instant::now();
                    (0..per_thread).for_each(|n| one(&journal, n as u64, work));
                    spans.lock().expect("no panic").push((begin, Instant::now()));
                    turn.wait();
                }
            });
        }
        for _ in 0..BATCHES {
            // A fresh, open entry.
            journal.flush().expect("memory does not fail");
            drop(journal.reserve(1, Watermark::Normal, Wait::Forever).expect("there is room"));
            turn.wait();
            turn.wait();
            let spans: Vec<_> = std::mem::take(&mut *spans.lock().expect("no panic"));
            let begin = spans.iter().map(|s| s.0).min().expect("a thread");
            let end = spans.iter().map(|s| s.1).max().expect("a thread");
            batches.push((end - begin).as_nanos() as f64 / (per_thread * threads) as f64);
        }
    });
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 10]
}

#[inline(never)]
fn one(journal: &Journal, n: u64, work: u64) {
    (0..work).for_each(|i| {
        std::hint::black_box(i);
    });
    let mut res = journal.reserve(WORDS, Watermark::Normal, Wait::Forever).expect("there is room");
    res.push_entry(EntryType::BTREE_KEYS, BtreeId(0), 0, &[n, 1, 2, 3, 4, 5, 6, 7]);
}
