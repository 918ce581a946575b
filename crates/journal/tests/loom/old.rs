//! Protocols that were wrong, rebuilt from the same parts: loom must find each one.

use crate::current::{Small, journal, nobody, write_out};
use crate::engine::core::Phase;
use crate::engine::pins::PinClass;
use crate::sync::{Arc, AtomicU64, Ordering, set_shard};

/// Runs the model and returns what loom reported; `None` if it found nothing.
fn violation(model: impl Fn() + Sync + Send + 'static) -> Option<String> {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loom::model(model)));
    std::panic::set_hook(quiet);
    found.err().map(|what| match what.downcast::<String>() {
        Ok(text) => *text,
        Err(what) => what.downcast::<&str>().map_or_else(|_| "panic".to_owned(), |s| (*s).to_owned()),
    })
}

/// The entry's hold on its pins is dropped when it **closes** (spec 20 §14, the table before the fix).
fn close_and_drop_the_pin(journal: &Small, seq: u64) {
    let mut state = journal.lock();
    let entry = state.open_entry().unwrap();
    entry.used = entry.limit - journal.word.close();
    entry.phase = Phase::Closed;
    journal.slot(seq).close();
    journal.pins.put_buffer(seq);
}

/// The seed race: a writer between its reservation and its pin, a closer, and the front moves past both.
#[test]
fn the_old_protocol_loses_a_pin_and_loom_finds_it() {
    let model = || {
        let journal = journal(1, 1);
        journal.open(&mut journal.lock(), 4).unwrap();
        // The kernel of 2023 had no second belt: the front could pass an entry that was not on disk.
        journal.pins.set_ondisk(1);
        let writer = {
            let journal = journal.clone();
            loom::thread::spawn(move || {
                let Ok((slot, at)) = journal.reserve(1, false) else { return };
                slot.store_all(at, &[7]);
                let (key, mirror) = (journal.pins.register(PinClass::KeyCache, 0), AtomicU64::new(0));
                // The original skipped a pin behind the front without a word; then the key stays dirty for ever.
                assert!(journal.pins.front() <= slot.seq(), "INV-1: the update has no pin");
                journal.pins.set(key, &mirror, slot.seq(), nobody());
                assert!(!slot.put(1) || journal.pins.front() <= 1);
            })
        };
        close_and_drop_the_pin(&journal, 1);
        writer.join().unwrap();
    };
    let found = violation(model).expect("loom must find the race of the thread");
    assert!(found.contains("INV-1") || found.contains("I21"), "found something else: {found}");
}

/// Race R3: `last_seq` read after the next entry opened. A pin that moved from 1 to the *new* entry lets the old one say
/// that 1 is not needed, although only the new one holds the replacement.
#[test]
fn last_seq_taken_late_vouches_for_the_future_and_loom_finds_it() {
    let model = |late: bool| {
        move || {
            let journal = journal(1, 2);
            journal.pins.put_replayed(0);
            let (key, mirror) = (journal.pins.register(PinClass::Level0, 0), Arc::new(AtomicU64::new(0)));
            journal.pins.set(key, &mirror, 1, nobody());
            journal.pins.put_replayed(1);
            journal.open(&mut journal.lock(), 4).unwrap();
            let writer = {
                let (journal, mirror) = (journal.clone(), mirror.clone());
                loom::thread::spawn(move || {
                    set_shard(1);
                    // Waits for entry 3 and moves the pin there: what entry 1 held is superseded by an update in entry 3.
                    let Ok((slot, _)) = journal.reserve(1, false) else { return };
                    let seq = slot.seq();
                    if seq == 3 {
                        journal.pins.set(key, &mirror, 3, nobody());
                    }
                    let _ = journal.put(slot, 1);
                })
            };
            let last_seq = {
                let mut state = journal.lock();
                journal.close(&mut state, false);
                let stamped = state.entry(2).unwrap().last_seq;
                journal.open(&mut state, 4).unwrap();
                drop(state);
                if late { journal.pins.front() } else { stamped }
            };
            writer.join().unwrap();
            // Crash with entry 2 on disk and entry 3 not: what entry 1 said must still be replayed.
            assert!(last_seq <= 1, "I9: entry 2 says {last_seq}, only entry 3 replaces what 1 held");
        }
    };
    assert!(violation(model(true)).expect("loom must find R3").contains("I9"));
    assert_eq!(violation(model(false)), None, "stamped at close it holds");
}

/// A stale limit (spec 20 §12): the limit outside of the word, compared before the swap, belongs to an older entry.
#[test]
fn a_limit_outside_of_the_word_is_overrun_and_loom_finds_it() {
    const CLOSED: u64 = u64::MAX;
    let model = || {
        // Offset of the open entry, with the buffer index wrapped back to the same value: bit-identical words.
        let word = loom::sync::Arc::new((AtomicU64::new(0), AtomicU64::new(8)));
        let writer = {
            let word = word.clone();
            loom::thread::spawn(move || {
                let offset = word.0.load(Ordering::Acquire);
                let limit = word.1.load(Ordering::Acquire);
                let fits = offset != CLOSED && offset + 6 <= limit;
                let swapped = fits
                    && word
                        .0
                        .compare_exchange(offset, offset + 6, Ordering::AcqRel, Ordering::Relaxed)
                        .is_ok();
                assert!(!swapped || offset + 6 <= word.1.load(Ordering::Acquire), "I14: beyond the limit");
            })
        };
        word.0.store(CLOSED, Ordering::Release);
        word.1.store(4, Ordering::Release);
        word.0.store(0, Ordering::Release);
        writer.join().unwrap();
    };
    assert!(violation(model).expect("loom must find the stale limit").contains("I14"));
}

/// Without the mark in the counters, "did I return last?" asks two places, and the answer can be "no" for everybody.
#[test]
fn a_last_put_decided_by_two_locations_is_lost_and_loom_finds_it() {
    let model = || {
        let shared = loom::sync::Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let writer = {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                shared.0.fetch_add(1, Ordering::Release);
                shared.1.load(Ordering::Acquire) == 1
            })
        };
        shared.1.store(1, Ordering::Release);
        let closer_sees_all = shared.0.load(Ordering::Acquire) == 1;
        let writer_sees_close = writer.join().unwrap();
        assert!(closer_sees_all || writer_sees_close, "I13: nobody runs the final put");
    };
    assert!(violation(model).expect("loom must find the lost final put").contains("I13"));
}

#[test]
fn the_seed_schedule_is_harmless_now() {
    // The table of spec 20 §14 step by step, on the protocol as it is.
    loom::model(|| {
        let journal = journal(1, 1);
        journal.open(&mut journal.lock(), 4).unwrap();
        let (slot, at) = journal.reserve(1, false).unwrap();
        assert!(!journal.close(&mut journal.lock(), false), "the closer is not last");
        assert_eq!(journal.pins.front(), 1);
        slot.store_all(at, &[9]);
        let (key, mirror) = (journal.pins.register(PinClass::KeyCache, 0), AtomicU64::new(0));
        journal.pins.set(key, &mirror, 1, nobody());
        assert!(journal.put(slot, 1), "the writer is");
        assert_eq!(write_out(&journal, 1), [9]);
        assert_eq!(journal.pins.front(), 1);
        journal.pins.drop_pin(key, &mirror);
        assert_eq!(journal.pins.front(), 2);
    });
}
