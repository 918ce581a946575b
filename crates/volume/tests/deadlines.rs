//! Times of a freeze: how long it may take, how long it may last; and what is shown of it (spec 70 R8, R13).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use frazil_journal::engine::{Clock, SystemClock};
use frazil_volume::lifecycle::{
    Back, FreezeRequest, FrontKind, HolderId, Lifecycle, LifecycleError, ShutdownMode,
};

/// A volume that has nothing to write back, but takes its time if that is wanted.
#[derive(Default)]
struct Idle {
    hangs: AtomicBool,
    undone: AtomicU64,
}

impl Back for Idle {
    fn ahead(&self) {}
    fn drain(&self, wanted: &dyn Fn() -> bool) -> Result<(), String> {
        while self.hangs.load(SeqCst) && wanted() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
    fn seal(&self) -> Result<(), String> {
        Ok(())
    }
    fn undo(&self) {
        self.undone.fetch_add(1, SeqCst);
    }
    fn open(&self) -> Result<(), String> {
        Ok(())
    }
    fn flush(&self) -> Result<(), String> {
        Ok(())
    }
    fn halt(&self, _: &str) {}
    fn record(&self) {}
    fn abort(&self, _: &str) {}
    fn progress(&self) -> Vec<(&'static str, u64)> {
        vec![("dirty nodes", 3)]
    }
}

/// A time that stands still until told otherwise.
#[derive(Default)]
struct Manual(AtomicU64);

impl Manual {
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, SeqCst);
    }
}

impl Clock for Manual {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(SeqCst))
    }
}

fn of(back: &Arc<Idle>, clock: Arc<dyn Clock>) -> Arc<Lifecycle> {
    let back: Weak<Idle> = Arc::downgrade(back);
    Arc::new(Lifecycle::new(back, clock))
}

/// With a thread that does the transitions, by the clock on the wall.
struct Owned {
    back: Arc<Idle>,
    lifecycle: Arc<Lifecycle>,
    owner: Option<thread::JoinHandle<()>>,
}

impl Owned {
    fn new() -> Owned {
        let back = Arc::<Idle>::default();
        let lifecycle = of(&back, Arc::new(SystemClock::default()));
        let owned = Arc::clone(&lifecycle);
        lifecycle.hand_over();
        Owned { back, lifecycle, owner: Some(thread::spawn(move || owned.own())) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.lifecycle.end();
        if let Some(owner) = self.owner.take() {
            owner.join().unwrap();
        }
    }
}

fn is_soon(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: never");
        thread::sleep(Duration::from_millis(1));
    }
}

fn request(who: &str) -> FreezeRequest {
    FreezeRequest { who: who.into(), share: true, ..FreezeRequest::default() }
}

fn for_secs(who: &str, secs: u64) -> FreezeRequest {
    FreezeRequest { hold_for: Some(Duration::from_secs(secs)), ..request(who) }
}

const MOMENT: Duration = Duration::from_millis(60);

#[test]
fn a_holder_whose_time_is_up_is_taken_away_and_told_when_it_comes() {
    let (back, clock) = (Arc::<Idle>::default(), Arc::<Manual>::default());
    let lifecycle = of(&back, Arc::clone(&clock) as Arc<dyn Clock>);
    clock.pass(100);
    let short = lifecycle.freeze(for_secs("short", 10)).unwrap();
    clock.pass(4);
    let long = lifecycle.freeze(for_secs("long", 10)).unwrap();
    let open = lifecycle.freeze(request("open")).unwrap();

    let status = lifecycle.status();
    assert_eq!((status.state, status.read_only, status.since), ("frozen", false, Duration::from_secs(4)));
    let shown: Vec<_> =
        status.holders.iter().map(|h| (h.id, h.who.as_str(), h.age.as_secs(), h.left)).collect();
    let secs = |n| Some(Duration::from_secs(n));
    assert_eq!(shown, [(short, "short", 4, secs(6)), (long, "long", 0, secs(10)), (open, "open", 0, None)]);
    assert_eq!(status.dirt, [("dirty nodes", 3)]);

    clock.pass(5);
    lifecycle.tick();
    assert_eq!(lifecycle.status().holders.len(), 3, "a second is left");
    clock.pass(1);
    lifecycle.tick();
    assert_eq!(lifecycle.status().holders.len(), 2);
    assert_eq!(lifecycle.thaw(short), Err(LifecycleError::Lapsed));
    assert_eq!(lifecycle.thaw(short), Err(LifecycleError::NotFrozen), "it is told once");
    assert_eq!(lifecycle.thaw(open), Ok(()));
    assert!(lifecycle.is_blocked(), "one still holds it");
    clock.pass(4);
    lifecycle.tick();
    assert!(!lifecycle.is_blocked(), "nobody holds it any more");
    assert_eq!(lifecycle.status().state, "read-write");
    assert_eq!(lifecycle.thaw(long), Err(LifecycleError::Lapsed));
}

#[test]
fn time_counts_from_when_it_is_frozen() {
    let owned = Owned::new();
    let ticket = owned.lifecycle.enter(FrontKind::Names).unwrap();
    let lifecycle = Arc::clone(&owned.lifecycle);
    let wish = FreezeRequest { hold_for: Some(Duration::from_secs(3600)), ..request("patient") };
    let freezer = thread::spawn(move || lifecycle.freeze(wish));
    thread::sleep(MOMENT);
    assert!(owned.lifecycle.status().holders.is_empty(), "it does not hold yet");
    drop(ticket);
    let holder = freezer.join().unwrap().unwrap();
    let left = owned.lifecycle.status().holders[0].left.unwrap();
    assert!(left > Duration::from_secs(3600) - MOMENT, "{left:?}");
    owned.lifecycle.thaw(holder).unwrap();
}

#[test]
fn a_freeze_ends_by_itself_and_lets_those_go_who_wait() {
    let owned = Owned::new();
    let wish = FreezeRequest { hold_for: Some(MOMENT), ..request("forgetful") };
    let begun = Instant::now();
    let holder = owned.lifecycle.freeze(wish).unwrap();
    let ticket = owned.lifecycle.enter(FrontKind::Write);
    assert!(ticket.is_some() && begun.elapsed() >= MOMENT, "{:?}", begun.elapsed());
    drop(ticket);
    assert_eq!(owned.lifecycle.thaw(holder), Err(LifecycleError::Lapsed));
}

#[test]
fn a_freeze_that_takes_too_long_names_those_it_waits_for() {
    let owned = Owned::new();
    let lifecycle = &owned.lifecycle;
    let wish = FreezeRequest { give_up_after: Some(MOMENT), ..request("hurried") };
    let tickets =
        [FrontKind::Names, FrontKind::Names, FrontKind::Space].map(|kind| lifecycle.enter(kind).unwrap());
    let begun = Instant::now();
    let why = "waiting for operations under way, 2 × names under way, 1 × space under way";
    assert_eq!(lifecycle.freeze(wish.clone()), Err(LifecycleError::TimedOut(why.into())));
    assert!(begun.elapsed() >= MOMENT);
    // Nothing is left of it, although they are still inside.
    drop(lifecycle.try_enter(FrontKind::Names).unwrap());
    drop(lifecycle.try_enter(FrontKind::WriteBack).unwrap());
    drop(tickets);

    let writing = lifecycle.enter(FrontKind::WriteBack).unwrap();
    let why = "waiting for write-back under way, 1 × write-back under way";
    assert_eq!(lifecycle.freeze(wish.clone()), Err(LifecycleError::TimedOut(why.into())));
    drop(writing);

    // Not while it has given up only because somebody else hangs.
    owned.back.hangs.store(true, SeqCst);
    assert_eq!(lifecycle.freeze(wish.clone()), Err(LifecycleError::TimedOut("writing back".into())));
    assert!(!lifecycle.is_blocked());
    is_soon("undone", || owned.back.undone.load(SeqCst) == 1);
    owned.back.hangs.store(false, SeqCst);
    let holder = lifecycle.freeze(wish).unwrap();
    lifecycle.thaw(holder).unwrap();
}

#[test]
fn who_gives_up_does_not_take_those_along_who_wait_longer() {
    let owned = Owned::new();
    let ticket = owned.lifecycle.enter(FrontKind::Names).unwrap();
    let lifecycle = Arc::clone(&owned.lifecycle);
    let patient = thread::spawn(move || lifecycle.freeze(request("patient")));
    is_soon("it begins", || owned.lifecycle.status().state == "freezing");
    let wish = FreezeRequest { give_up_after: Some(MOMENT), ..request("hurried") };
    assert!(matches!(owned.lifecycle.freeze(wish), Err(LifecycleError::TimedOut(_))));
    assert!(owned.lifecycle.is_blocked(), "the other one still wants it");
    drop(ticket);
    let holder = patient.join().unwrap().unwrap();
    assert_eq!(owned.lifecycle.status().holders.len(), 1);
    owned.lifecycle.thaw(holder).unwrap();
}

#[test]
fn how_far_it_is_and_who_waits_is_shown() {
    let owned = Owned::new();
    let status = owned.lifecycle.status();
    assert_eq!((status.state, status.stage, status.read_only), ("read-write", None, false));
    let ticket = owned.lifecycle.enter(FrontKind::Import).unwrap();
    assert_eq!(owned.lifecycle.status().inside, [("import", 1)]);

    let lifecycle = Arc::clone(&owned.lifecycle);
    let freezer = thread::spawn(move || lifecycle.freeze(request("somebody")));
    is_soon("it waits for the import", || {
        owned.lifecycle.status().stage == Some("waiting for operations under way")
    });
    let lifecycle = Arc::clone(&owned.lifecycle);
    let blocked = thread::spawn(move || lifecycle.enter(FrontKind::Attributes).is_some());
    is_soon("it is blocked", || owned.lifecycle.status().blocked == [("attributes", 1)]);
    let status = owned.lifecycle.status();
    assert_eq!((status.state, status.inside), ("freezing", vec![("import", 1)]));
    assert!(status.holders.is_empty());

    drop(ticket);
    let holder = freezer.join().unwrap().unwrap();
    let status = owned.lifecycle.status();
    assert_eq!((status.state, status.stage), ("frozen", None));
    assert_eq!((status.inside, status.blocked), (vec![], vec![("attributes", 1)]));
    owned.lifecycle.thaw(holder).unwrap();
    assert!(blocked.join().unwrap());
    assert!(owned.lifecycle.status().blocked.is_empty());

    owned.lifecycle.remount(false).unwrap();
    assert_eq!((owned.lifecycle.status().state, owned.lifecycle.status().read_only), ("read-only", true));
    owned.lifecycle.remount(true).unwrap();
    owned.lifecycle.shutdown(ShutdownMode::NoLogFlush).unwrap();
    let status = owned.lifecycle.status();
    assert_eq!((status.state, status.read_only), ("read-only, emergency", true));
    assert_eq!(status.reason.as_deref(), Some("it was shut down"));
}

#[test]
fn a_holder_that_never_was_is_none() {
    let lifecycle = of(&Arc::default(), Arc::<Manual>::default());
    assert_eq!(lifecycle.thaw(HolderId(77)), Err(LifecycleError::NotFrozen));
    assert_eq!(lifecycle.thaw_all(), Err(LifecycleError::NotFrozen));
    lifecycle.lapse(HolderId(77));
    assert_eq!(lifecycle.status().state, "read-write");
}
