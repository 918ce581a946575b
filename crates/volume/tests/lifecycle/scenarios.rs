//! What threads do to each other.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64 as StdAtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use frazil_journal::engine::Clock;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::lifecycle::{
    Back, FreezeRequest, FrontKind, HolderId, Lifecycle, LifecycleError, NotNow, ShutdownMode,
};

/// Schedules per test.
const ITERATIONS: usize = 1500;

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let set = std::env::var("SHUTTLE_ITERATIONS").ok().map(|n| n.parse().unwrap());
    if let Ok(seed) = std::env::var("SHUTTLE_SEED") {
        shuttle::check_random_with_seed(scenario, seed.parse().unwrap(), 1);
        return;
    }
    shuttle::check_random(scenario, set.unwrap_or(ITERATIONS));
}

/// Every look at it is a millisecond later.
struct Ticking(StdAtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, SeqCst))
    }
}

/// A volume that only looks at what is done to it. Its own variables are the standard library's: they are no part of what is scheduled.
#[derive(Default)]
struct Fake {
    /// Tickets that are out.
    inside: AtomicI64,
    /// A transition is at work.
    busy: AtomicBool,
    /// What the superblock says.
    sealed: AtomicBool,
    halted: AtomicBool,
    /// Changes that are not written back.
    dirt: AtomicI64,
    /// Whether what can fail does, now and then.
    failing: bool,
}

/// A transition's step at work.
struct Busy<'f>(&'f Fake);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        assert!(self.0.busy.swap(false, SeqCst), "INV-15");
    }
}

impl Fake {
    /// INV-15: one at a time.
    fn busy(&self) -> Busy<'_> {
        assert!(!self.busy.swap(true, SeqCst), "INV-15: two transitions");
        thread::yield_now();
        Busy(self)
    }

    fn may_fail(&self) -> Result<(), String> {
        if self.halted.load(SeqCst) || self.failing && thread_rng().gen_range(0..4) == 0 {
            return Err("a test".into());
        }
        Ok(())
    }

    fn nobody_inside(&self, when: &str) {
        assert_eq!(self.inside.load(SeqCst), 0, "INV-16: a ticket is out while {when}");
    }

    /// Somebody with a ticket changes something.
    fn change(&self) {
        let was = self.inside.fetch_add(1, SeqCst);
        assert!(was >= 0);
        assert!(!self.sealed.load(SeqCst), "INV-17: changed while it says clean");
        self.dirt.fetch_add(1, SeqCst);
        thread::yield_now();
        assert!(!self.sealed.load(SeqCst), "INV-17: changed while it says clean");
        self.inside.fetch_sub(1, SeqCst);
    }
}

impl Back for Fake {
    fn ahead(&self) {
        let _busy = self.busy();
        self.dirt.store(0, SeqCst);
    }

    fn drain(&self, wanted: &dyn Fn() -> bool) -> Result<(), String> {
        let _busy = self.busy();
        // If it was given up the gates are open.
        if !wanted() {
            return Ok(());
        }
        self.may_fail()?;
        self.dirt.store(0, SeqCst);
        Ok(())
    }

    fn seal(&self) -> Result<(), String> {
        let _busy = self.busy();
        // Whoever finds an error refuses everybody, also those who are to come.
        self.may_fail()?;
        self.nobody_inside("it is sealed");
        assert_eq!(self.dirt.load(SeqCst), 0, "INV-17: sealed without having been drained");
        assert!(!self.sealed.swap(true, SeqCst));
        self.nobody_inside("it is sealed");
        // The superblock is written, but not everywhere.
        self.may_fail()
    }

    fn undo(&self) {
        let _busy = self.busy();
        assert!(!self.sealed.load(SeqCst));
    }

    fn open(&self) -> Result<(), String> {
        let _busy = self.busy();
        self.nobody_inside("it is opened");
        self.may_fail()?;
        self.sealed.store(false, SeqCst);
        Ok(())
    }

    fn flush(&self) -> Result<(), String> {
        let _busy = self.busy();
        self.may_fail()
    }

    fn halt(&self, _: &str) {
        // It takes a while.
        thread::yield_now();
        self.halted.store(true, SeqCst);
    }

    fn record(&self) {
        let _busy = self.busy();
        assert!(!self.sealed.load(SeqCst), "what is at rest stays as it is");
        assert!(self.halted.load(SeqCst), "it is the last write");
    }

    fn abort(&self, _: &str) {}

    fn progress(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A volume in use. Its owner ends with it.
struct World {
    fake: Arc<Fake>,
    lifecycle: Arc<Lifecycle>,
    owner: Option<thread::JoinHandle<()>>,
}

impl World {
    fn new(owned: bool, failing: bool) -> World {
        let fake = Arc::new(Fake { failing, ..Fake::default() });
        let back: Weak<Fake> = Arc::downgrade(&fake);
        let lifecycle = Arc::new(Lifecycle::new(back, Arc::new(Ticking(StdAtomicU64::new(0)))));
        let owner = owned.then(|| {
            let lifecycle = Arc::clone(&lifecycle);
            thread::spawn(move || lifecycle.own())
        });
        World { fake, lifecycle, owner }
    }

    fn spawn(&self, work: impl FnOnce(&Lifecycle, &Fake) + Send + 'static) -> thread::JoinHandle<()> {
        let (lifecycle, fake) = (Arc::clone(&self.lifecycle), Arc::clone(&self.fake));
        thread::spawn(move || work(&lifecycle, &fake))
    }

    /// Somebody who changes something, and waits where that is wanted.
    fn writer(&self, times: usize) -> thread::JoinHandle<()> {
        self.spawn(move |lifecycle, fake| {
            for n in 0..times {
                let kind = FrontKind::ALL[(n * 4) % FrontKind::ALL.len()];
                let Some(ticket) = lifecycle.enter(kind) else { return };
                fake.change();
                drop(ticket);
            }
        })
    }

    fn end(mut self) {
        self.lifecycle.end();
        if let Some(owner) = self.owner.take() {
            owner.join().unwrap();
        }
    }
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn shared() -> FreezeRequest {
    FreezeRequest { share: true, ..FreezeRequest::default() }
}

#[test]
fn freezers_thawers_and_writers_all_come_to_their_end() {
    for owned in [true, false] {
        explore(move || {
            let world = World::new(owned, false);
            let freezer = |world: &World| {
                world.spawn(|lifecycle, fake| {
                    for _ in 0..2 {
                        let holder = lifecycle.freeze(shared()).unwrap();
                        fake.nobody_inside("it is frozen");
                        assert!(fake.sealed.load(SeqCst), "frozen, but not sealed");
                        assert_eq!(lifecycle.try_enter(FrontKind::Write).err(), Some(NotNow::Blocked));
                        thread::yield_now();
                        assert!(fake.sealed.load(SeqCst), "opened while somebody holds it");
                        lifecycle.thaw(holder).unwrap();
                    }
                })
            };
            join(vec![world.writer(3), freezer(&world), world.writer(3), freezer(&world)]);
            assert!(!world.fake.sealed.load(SeqCst) && !world.lifecycle.is_blocked());
            world.end();
        });
    }
}

/// Everybody does something at random, and everybody gets an answer.
fn whatever(owned: bool, failing: bool) {
    let world = World::new(owned, failing);
    let wishes = |world: &World| {
        world.spawn(|lifecycle, fake| {
            let mut holder = None;
            for _ in 0..3 {
                match thread_rng().gen_range(0..14) {
                    0..5 => {
                        holder = lifecycle.freeze(shared()).ok();
                    }
                    // If that fails it stays frozen, and who wanted it thawed knows.
                    5 => while matches!(lifecycle.thaw_all(), Err(LifecycleError::Failed(_))) {},
                    6 => drop(lifecycle.remount(false)),
                    7 => drop(lifecycle.remount(true)),
                    8 => {
                        let mode = [ShutdownMode::Default, ShutdownMode::LogFlush, ShutdownMode::NoLogFlush];
                        lifecycle.shutdown(mode[thread_rng().gen_range(0..3)]).ok();
                        assert!(fake.halted.load(SeqCst), "shut down, but it writes");
                    }
                    9 => {
                        // The journal stops by itself.
                        fake.halted.store(true, SeqCst);
                        lifecycle.died("a test");
                    }
                    10 => {
                        lifecycle.fail("a test");
                        assert!(fake.halted.load(SeqCst), "failed, but it writes");
                    }
                    11 => lifecycle.lapse(HolderId(thread_rng().gen_range(1..4))),
                    12 => lifecycle.tick(),
                    _ => drop(lifecycle.status()),
                }
                if let Some(id) = holder.take() {
                    match lifecycle.thaw(id) {
                        Ok(()) | Err(LifecycleError::Lapsed | LifecycleError::Unmounted) => {}
                        // It stays frozen: whoever held it lets go in another way.
                        Err(LifecycleError::Failed(_)) => lifecycle.lapse(id),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    };
    let threads = vec![world.writer(2), wishes(&world), wishes(&world), world.writer(2), wishes(&world)];
    join(threads);
    let unmounted = world.lifecycle.unmount();
    assert!(unmounted.is_ok() || world.fake.halted.load(SeqCst), "{unmounted:?}");
    if unmounted.is_ok() {
        world.fake.nobody_inside("it is gone");
    }
    assert!(world.lifecycle.enter(FrontKind::Names).is_none());
    world.end();
}

#[test]
fn everybody_is_answered_by_an_owner() {
    explore(|| whatever(true, false));
}

#[test]
fn everybody_is_answered_by_an_owner_who_fails() {
    explore(|| whatever(true, true));
}

#[test]
fn everybody_is_answered_without_an_owner() {
    explore(|| whatever(false, false));
}

#[test]
fn everybody_is_answered_without_an_owner_and_failing() {
    explore(|| whatever(false, true));
}

#[test]
fn a_ticket_that_is_kept_keeps_a_freeze_waiting_until_it_is_called_off() {
    explore(|| {
        let world = World::new(true, false);
        let ticket = world.lifecycle.enter(FrontKind::Space).unwrap();
        let id = world.lifecycle.new_holder();
        let freezer = world.spawn(move |lifecycle, _| {
            let refused = lifecycle.freeze_as(id, shared());
            assert!(matches!(refused, Err(LifecycleError::Withdrawn)), "{refused:?}");
        });
        // Whoever asked is gone before there is anything to be held: also if he has not asked yet.
        while world.lifecycle.status().state == "read-write" {
            thread::yield_now();
        }
        let writer = world.writer(1);
        world.lifecycle.lapse(id);
        // The gates are open at once, though the ticket is still out.
        writer.join().unwrap();
        freezer.join().unwrap();
        drop(ticket);
        let holder = world.lifecycle.freeze(shared()).unwrap();
        world.lifecycle.thaw(holder).unwrap();
        world.end();
    });
}

#[test]
fn who_waits_for_a_gate_is_told_when_it_dies() {
    explore(|| {
        let world = World::new(true, false);
        let holder = world.lifecycle.freeze(shared()).unwrap();
        let waiting: Vec<_> = (0..3)
            .map(|_| world.spawn(|lifecycle, _| assert!(lifecycle.enter(FrontKind::Names).is_none())))
            .collect();
        world.lifecycle.died("a test");
        join(waiting);
        world.lifecycle.thaw(holder).unwrap();
        world.end();
    });
}
