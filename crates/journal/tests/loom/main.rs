//! Exhaustive model checks of the reservation word, the buffers' last put and the pins, with loom.
//!
//! **Why loom here, shuttle elsewhere.** What this crate shares without a lock is small: one word, the return counters, copies of
//! two sequence numbers. Loom explores *every* interleaving of such code and every value the memory model lets a relaxed load
//! return, so a missing acquire is found even on machines that would never show it. It cannot go through a whole
//! engine with waiting threads and devices: `tests/shuttle` samples that, with sequential consistency.
//!
//! **What is checked is what runs**: the modules are the crate's own source files, compiled against the `sync` below.
//!
//! **Bounds**: two or three threads, entries of 2…4 words, at most two entries, 2 shards; no preemption bound unless a
//! test says so. The old protocols are built here, out of the same parts, and every test of one asserts that loom *finds* it.

#![allow(dead_code, unreachable_pub, missing_docs, unused_imports, clippy::unwrap_used)]

mod sync {
    use std::cell::Cell;

    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(crate) use std::sync::{Arc, Weak};

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }
        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap()
        }
        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    pub(crate) const SHARDS: usize = 2;

    loom::thread_local! {
        static SHARD: Cell<usize> = Cell::new(0);
    }

    pub(crate) fn shard() -> usize {
        SHARD.with(Cell::get)
    }

    pub(crate) fn set_shard(n: usize) {
        SHARD.with(|s| s.set(n));
    }
}

mod current;
mod engine;
mod old;
