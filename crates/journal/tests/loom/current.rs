//! The protocol as it is: no violation in any interleaving.

use crate::engine::core::{Core, Phase};
use crate::engine::pins::{Dirty, FlushFailed, PinClass};
use crate::engine::word::{Refusal, Word};
use crate::sync::{Arc, AtomicU64, Ordering, Weak, set_shard};
use frazil_ondisk::units::Seq;

pub(crate) type Small = Core<(), ()>;

pub(crate) fn journal(front: u64, first: u64) -> loom::sync::Arc<Small> {
    loom::sync::Arc::new(Core::new(front, first, 4, ()))
}

struct Nobody;
impl Dirty for Nobody {
    fn flush(&self, _: u64, _: Seq) -> Result<(), FlushFailed> {
        Ok(())
    }
}

pub(crate) fn nobody() -> Weak<dyn Dirty> {
    Weak::<Nobody>::new()
}

/// Copies entry `seq` out and completes it, as the writer does.
pub(crate) fn write_out(journal: &Small, seq: u64) -> Vec<u64> {
    let mut bytes = Vec::new();
    let used = {
        let mut state = journal.lock();
        let entry = state.next_to_write().expect("the entry is ready");
        assert_eq!(entry.seq, seq);
        entry.phase = Phase::Copying;
        entry.used
    };
    journal.slot(seq).drain(used, &mut bytes);
    let mut state = journal.lock();
    state.entry(seq).unwrap().phase = Phase::Copied;
    journal.done(&mut state, seq, |(), _| {});
    bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn ready(journal: &Small) -> bool {
    journal.lock().next_to_write().is_some()
}

#[test]
fn a_reservation_and_a_close_meet_in_any_order() {
    loom::model(|| {
        let journal = journal(1, 1);
        journal.open(&mut journal.lock(), 4).unwrap();
        let writer = {
            let journal = journal.clone();
            loom::thread::spawn(move || {
                set_shard(1);
                let Ok((slot, at)) = journal.reserve(2, false) else { return 0 };
                slot.store_all(at, &[7, 8]);
                let last = journal.put(slot, 2);
                2 + u64::from(last)
            })
        };
        let closer_last = journal.close(&mut journal.lock(), false);
        let wrote = writer.join().unwrap();
        // I13: exactly one of them ran the final put, and only a granted reservation can be the later one.
        assert!(ready(&journal));
        assert_eq!(u64::from(closer_last) + u64::from(wrote == 3), 1);
        let words = write_out(&journal, 1);
        assert_eq!(
            words,
            if wrote == 0 { vec![] } else { vec![7, 8] },
            "I11: all of the data, none of the others'"
        );
        assert_eq!(journal.pins.front(), 2);
    });
}

#[test]
fn the_last_put_of_two_writers_and_a_closer_is_found_once() {
    loom::model(|| {
        let journal = journal(1, 1);
        journal.open(&mut journal.lock(), 4).unwrap();
        let writers: Vec<_> = (0..2)
            .map(|n| {
                let (slot, at) = journal.reserve(1, false).unwrap();
                slot.store_all(at, &[10 + u64::from(at)]);
                let journal = journal.clone();
                loom::thread::spawn(move || {
                    set_shard(n);
                    u32::from(journal.put(journal.slot(1), 1))
                })
            })
            .collect();
        let mut finals = u32::from(journal.close(&mut journal.lock(), false));
        for writer in writers {
            finals += writer.join().unwrap();
        }
        assert_eq!(finals, 1, "I13");
        assert_eq!(write_out(&journal, 1), [10, 11]);
    });
}

#[test]
fn a_pin_set_through_a_reservation_always_finds_its_sequence_number() {
    loom::model(|| {
        let journal = journal(1, 1);
        journal.open(&mut journal.lock(), 4).unwrap();
        let (slot, _) = journal.reserve(1, false).unwrap();
        let seq = slot.seq();
        let holder = {
            let journal = journal.clone();
            loom::thread::spawn(move || {
                let slot = journal.slot(seq);
                let (key, mirror) = (journal.pins.register(PinClass::KeyCache, 0), AtomicU64::new(0));
                // I19, I21: panics if the front has passed.
                journal.pins.set(key, &mirror, seq, nobody());
                let last = journal.put(slot, 1);
                assert!(journal.pins.front() <= seq, "INV-1: dirty, and not protected");
                (key, mirror, last)
            })
        };
        let closed_last = journal.close(&mut journal.lock(), false);
        if closed_last || ready(&journal) {
            write_out(&journal, seq);
        }
        let (key, mirror, last) = holder.join().unwrap();
        if ready(&journal) {
            write_out(&journal, seq);
        }
        assert!(last != closed_last);
        assert_eq!(journal.pins.front(), seq, "the pin outlives the write");
        journal.pins.drop_pin(key, &mirror);
        assert_eq!(journal.pins.front(), seq + 1);
        journal.pins.check();
    });
}

#[test]
fn moving_a_pin_is_never_seen_as_no_pin() {
    // I23, R4: an observer of the lock-free copy sees the old place or the new one.
    loom::model(|| {
        let journal = journal(1, 3);
        let (key, mirror) = (journal.pins.register(PinClass::Level0, 0), Arc::new(AtomicU64::new(0)));
        journal.pins.set(key, &mirror, 1, nobody());
        let mover = {
            let (journal, mirror) = (journal.clone(), mirror.clone());
            loom::thread::spawn(move || journal.pins.set(key, &mirror, 2, nobody()))
        };
        let seen = mirror.load(Ordering::Acquire);
        assert!(seen == 1 || seen == 2);
        mover.join().unwrap();
        journal.pins.put_replayed(2);
        assert_eq!(journal.pins.front(), 2);
    });
}

#[test]
fn two_reservations_never_overlap_and_the_rest_of_an_exhausted_entry_is_returned() {
    loom::model(|| {
        let journal = journal(1, 1);
        journal.open(&mut journal.lock(), 3).unwrap();
        // As the slow path does: whoever exhausts the entry returns what was left.
        let take = |journal: &Small| match journal.reserve(2, false) {
            Ok((slot, at)) => {
                slot.store_all(at, &[5, 6]);
                (Some(at), journal.put(slot, 2))
            }
            Err(Refusal::Exhausted(rest)) => (None, journal.put_rest(rest)),
            Err(_) => (None, false),
        };
        let other = {
            let journal = journal.clone();
            loom::thread::spawn(move || {
                set_shard(1);
                take(&journal)
            })
        };
        let (mine, my_last) = take(&journal);
        let closed_last = journal.close(&mut journal.lock(), false);
        let (others, others_last) = other.join().unwrap();
        let lasts = [my_last, closed_last, others_last].into_iter().filter(|l| *l).count();
        assert_eq!(lasts, 1, "I13: {mine:?} {others:?}");
        match (mine, others) {
            (Some(0), None) | (None, Some(0)) => {}
            both => panic!("I14: {both:?}"),
        }
        let (tail, used) = (journal.slot(1).tail(), journal.lock().entry(1).unwrap().used);
        assert!((used, tail) == (3, 1) || (used, tail) == (2, 0), "{used} words, {tail} of them unused");
        assert_eq!(write_out(&journal, 1)[..2], [5, 6]);
    });
}

#[test]
fn losers_of_a_full_entry_never_disturb_the_next_one() {
    loom::model(|| {
        let word = loom::sync::Arc::new(Word::new(0));
        word.open(1, 1);
        let losers: Vec<_> = (0..2)
            .map(|_| {
                let word = word.clone();
                loom::thread::spawn(move || word.reserve(3, false).map(|g| g.seq_low))
            })
            .collect();
        word.close();
        word.open(2, 4);
        let taken: u32 =
            losers.into_iter().map(|l| l.join().unwrap()).map(|r| if r == Ok(2) { 3 } else { 0 }).sum();
        // Of the next entry at most one of them got its words, and no words were lost or made up.
        assert!(taken <= 3);
        let left = word.view().words_left();
        assert!(left == Some(4 - taken) || (left.is_none() && taken == 3), "{:?} after {taken}", word.view());
    });
}

#[test]
fn block_pressure_and_halt_are_seen_by_the_next_reservation() {
    loom::model(|| {
        let word = loom::sync::Arc::new(Word::new(0));
        word.open(1, 8);
        let setter = {
            let word = word.clone();
            loom::thread::spawn(move || {
                word.set_pressure(true);
                word.set_blocked(true);
                word.set_pressure(false);
                word.halt();
                word.close()
            })
        };
        let first = word.reserve(3, false);
        let left = setter.join().unwrap();
        assert_eq!(left, if first.is_ok() { 5 } else { 8 });
        assert_eq!(word.reserve(1, true), Err(Refusal::Halted), "I32");
        word.set_blocked(false);
        assert!(word.view().is_halted() && word.view().words_left().is_none());
    });
}

#[test]
fn words_returned_late_never_count_for_the_next_entry_in_the_buffer() {
    // The word and the buffers wrap: entry 5 uses the buffer of entry 1.
    loom::model(|| {
        let journal = journal(1, 1);
        for seq in 1..=4 {
            journal.open(&mut journal.lock(), 4).unwrap();
            let (slot, at) = journal.reserve(1, false).unwrap();
            slot.store_all(at, &[seq]);
            if seq == 4 {
                assert!(!journal.put(slot, 1));
                journal.close(&mut journal.lock(), false);
                write_out(&journal, seq);
                break;
            }
            let putter = {
                let journal = journal.clone();
                loom::thread::spawn(move || journal.put(journal.slot(seq), 1))
            };
            let closed_last = journal.close(&mut journal.lock(), false);
            assert!(putter.join().unwrap() != closed_last);
            assert_eq!(write_out(&journal, seq), [seq]);
        }
        journal.open(&mut journal.lock(), 4).unwrap();
        assert_eq!((journal.slot(5).seq(), journal.slot(5).returned()), (5, 0));
    });
}
