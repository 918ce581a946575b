//! The synchronisation primitives the engine is built from, in one place.
//!
//! The engine names locks, condition variables and atomics only through `crate::sync`. Here they are the standard
//! library's. The model checks under `tests/` compile the *same* source files into crates of their own whose `sync` module
//! is made of a model checker's types instead, so what is checked is what runs: no flags, no second copy of the protocol.

use std::cell::Cell;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, MutexGuard, Weak};

/// A mutex whose `lock` ignores poisoning: a panic of ours is fatal for the mount anyway, and the state dump that
/// follows must still be able to look.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if nobody has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A condition variable for [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// How many ways the release counters of a buffer are split. Two threads on one counter cost a cache line transfer per
/// release; eight ways make that rare on the machines this runs on and keep a close (which visits all) short.
pub(crate) const SHARDS: usize = 8;

/// The calling thread's share of the split counters: threads take turns.
pub(crate) fn shard() -> usize {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) as usize % SHARDS);
        }
        mine.get()
    })
}

thread_local! {
    static IN_RECLAIM: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is running a reclaim callback.
pub(crate) fn in_reclaim() -> bool {
    IN_RECLAIM.get()
}

/// Marks the calling thread as running a reclaim callback until the result is dropped.
pub(crate) fn enter_reclaim() -> InReclaim {
    InReclaim(IN_RECLAIM.replace(true))
}

/// See [`enter_reclaim`].
pub(crate) struct InReclaim(bool);

impl Drop for InReclaim {
    fn drop(&mut self) {
        IN_RECLAIM.set(self.0);
    }
}
