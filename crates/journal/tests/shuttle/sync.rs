//! The crate's `sync` module, made of shuttle's types.

use std::cell::Cell;
use std::time::Duration;

pub(crate) use shuttle::sync::MutexGuard;
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Weak};

#[derive(Debug)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap()
    }
    /// Never times out: whatever makes a difference must be woken for.
    pub(crate) fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, _: Duration) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, Duration::from_millis(1)).unwrap().0
    }
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

pub(crate) const SHARDS: usize = 2;

shuttle::thread_local! {
    static SHARD: Cell<usize> = Cell::new(0);
    static IN_RECLAIM: Cell<bool> = Cell::new(false);
}

pub(crate) fn shard() -> usize {
    SHARD.with(Cell::get)
}

pub(crate) fn set_shard(n: usize) {
    SHARD.with(|s| s.set(n));
}

pub(crate) fn in_reclaim() -> bool {
    IN_RECLAIM.with(Cell::get)
}

pub(crate) fn enter_reclaim() -> InReclaim {
    InReclaim(IN_RECLAIM.with(|r| r.replace(true)))
}

pub(crate) struct InReclaim(bool);

impl Drop for InReclaim {
    fn drop(&mut self) {
        IN_RECLAIM.with(|r| r.set(self.0));
    }
}
