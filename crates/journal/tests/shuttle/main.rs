//! The whole engine under a random scheduler, with shuttle.
//!
//! **Why shuttle here, loom elsewhere.** Waiting, waking, handing work over, halting and reclaiming take hundreds of steps of
//! several threads: too many for loom to go through, which is kept for the lock-free parts (`tests/loom`). Shuttle runs the same source
//! files with its own threads, locks and atomics (sequentially consistent), picks every switch at random, and reports a deadlock
//! when nobody can run: a lost wake-up is one. A failure prints its schedule, which replays it.
//!
//! **Bounds**: two to four threads, one to six operations each, entries of a few hundred words, a ring of few buckets; the number of schedules
//! per test is the constant in `scenarios`, or `SHUTTLE_ITERATIONS`. Timed waits never time out, so everything that makes a difference must
//! wake whom it concerns.

#![allow(dead_code, unreachable_pub, missing_docs, unused_imports, clippy::unwrap_used)]

mod sync;

#[path = "../../src/engine/mod.rs"]
mod engine;
#[path = "../../src/read/mod.rs"]
mod read;

mod scenarios;

pub(crate) use engine::{Journal, JournalError, Pin, Reservation, Watermark};
