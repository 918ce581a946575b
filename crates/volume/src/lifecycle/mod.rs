//! The life of a volume in use: read-write, read-only, frozen, dead; and the ways between (spec 70 §5–§7).
//!
//! # Who decides
//!
//! The [machine] knows the states and what follows from every event in each. [`Lifecycle`] holds it behind a lock; everybody who wants
//! something posts it there and waits for an answer. One *owner* does the work of transitions, one at a time: a thread of its own
//! ([`Lifecycle::own`]), or, in a simulator, whoever asks. What the work is, is behind [`Back`]: the volume that is being written.
//!
//! # Freezing
//!
//! 1. What can be written back is, while everything goes on.
//! 2. The first [gate] closes: operations that come now wait before they take any lock. Those under way finish.
//! 3. Dirty pages that the kernel keeps for us are written, and what was released meanwhile is removed, through the second gate. Then it closes, too. Now nobody
//!    changes anything.
//! 4. Everything is written back. Until here the freeze can be given up at any time, and the gates open at once, whatever still hangs.
//! 5. The last entry of the journal is empty, the superblock says "clean", the devices are flushed. Nothing is written until somebody thaws: the
//!    superblock says "not clean" on stable storage first, then the gates open.
//!
//! Reading needs no ticket, nor does making durable what was done before. So neither waits for a freeze.
//!
//! | to find | look in |
//! |---|---|
//! | states, events, answers | `machine.rs` |
//! | closing the way for changes, and waiting until nobody is on it | `gate.rs` |
//! | what a change must have in hand | `front.rs` |
//! | what can be asked for, and what comes of it | `asked.rs` |
//! | what transitions do to the volume | `back.rs` |
//! | what is shown of it | `status.rs` |

mod asked;
mod back;
mod front;
mod gate;
mod machine;
mod status;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::Duration;

use frazil_journal::engine::Clock;

use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering};
use gate::Gate;
use machine::{Event, Holder, Machine, Outcome, Passage, RequestId, Stage, Work};

pub(crate) use asked::Answer;
pub use asked::{FreezeRequest, HolderId, LifecycleError, OnError, ShutdownMode};
pub use back::Back;
use back::Nothing;
pub use front::{FrontKind, NotNow, Ticket};
pub use status::{HolderStatus, Status};

/// What is called when gates have opened or closed.
type Listener = Arc<dyn Fn() + Send + Sync>;

/// Does what must be done before a volume comes to rest and passes the second gate (writes dirty pages that others keep, removes what was released), and returns when
/// that is done or is not `wanted` any more.
pub type BeforeRest = Arc<dyn Fn(&dyn Fn() -> bool) + Send + Sync>;

/// See the [module](self). Shared; every method may be called from any thread.
pub struct Lifecycle {
    gates: [Gate; 2],
    /// Who has a ticket, and who waits for one.
    inside: [AtomicU32; FrontKind::ALL.len()],
    blocked: [AtomicU32; FrontKind::ALL.len()],
    core: Mutex<Core>,
    changed: Condvar,
    back: Weak<dyn Back>,
    clock: Arc<dyn Clock>,
}

struct Core {
    machine: Machine,
    requests: RequestId,
    holders: u64,
    /// As the gates are set.
    passages: [Passage; 2],
    /// Writing is being stopped. Nobody is told of the end before that has happened.
    halting: bool,
    /// Since when it is in its state.
    since: Duration,
    listeners: Vec<Listener>,
    before_rest: Vec<BeforeRest>,
    /// Transitions are done by a thread that does nothing else.
    owned: bool,
    ended: bool,
}

impl Core {
    /// The transition to be run. None before writing has been stopped if that is under way: whoever does that looks again.
    fn take_work(&mut self) -> Option<Work> {
        if self.halting { None } else { self.machine.take_work() }
    }

    /// When a holder's time is up next, whose, and who that is.
    fn next_deadline(&self) -> Option<(Duration, HolderId, String)> {
        let holders = self.machine.holders().iter();
        holders.filter_map(|h| Some((h.deadline()?, h.id, h.request.who.clone()))).min()
    }
}

/// A guard of the lock.
type Guard<'l> = MutexGuard<'l, Core>;

impl Lifecycle {
    /// Of a volume that is being written.
    pub fn new(back: Weak<dyn Back>, clock: Arc<dyn Clock>) -> Lifecycle {
        Lifecycle::with(Machine::new(true), back, clock)
    }

    /// Of a volume that is only read: it can be frozen, which changes nothing.
    pub fn read_only(clock: Arc<dyn Clock>) -> Lifecycle {
        Lifecycle::with(Machine::new(false), Weak::<Nothing>::new(), clock)
    }

    fn with(machine: Machine, back: Weak<dyn Back>, clock: Arc<dyn Clock>) -> Lifecycle {
        let passages = machine.gates();
        let gates = <[Gate; 2]>::default();
        for (gate, passage) in gates.iter().zip(passages) {
            if passage != Passage::Open {
                gate.close();
            }
        }
        let core = Core {
            machine,
            requests: 0,
            holders: 0,
            passages,
            halting: false,
            since: clock.now(),
            listeners: Vec::new(),
            before_rest: Vec::new(),
            owned: false,
            ended: false,
        };
        Lifecycle {
            gates,
            inside: Default::default(),
            blocked: Default::default(),
            core: Mutex::new(core),
            changed: Condvar::default(),
            back,
            clock,
        }
    }

    /// Has `changed` called, without locks, whenever who was blocked may try again.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        self.core.lock().listeners.push(Arc::new(changed));
    }

    /// Has something done whenever the volume comes to rest, between the two gates; what was added last comes first.
    pub fn before_rest(&self, work: BeforeRest) {
        self.core.lock().before_rest.insert(0, work);
    }

    /// A ticket, at once or not at all.
    ///
    /// # Errors
    /// See [`NotNow`].
    pub fn try_enter(&self, kind: FrontKind) -> Result<Ticket<'_>, NotNow> {
        if self.pass(kind) {
            return Ok(Ticket { lifecycle: self, kind });
        }
        // The gate may have been opened meanwhile; who waits for that is told, and must not have missed it.
        match self.core.lock().machine.gates()[kind.gate()] {
            Passage::Refused => Err(NotNow::ReadOnly),
            Passage::Open | Passage::Blocked => Err(NotNow::Blocked),
        }
    }

    /// A ticket, as soon as there is one. `None` if nothing can be changed, or nothing any more.
    pub fn enter(&self, kind: FrontKind) -> Option<Ticket<'_>> {
        loop {
            if self.pass(kind) {
                return Some(Ticket { lifecycle: self, kind });
            }
            let core = self.core.lock();
            match core.machine.gates()[kind.gate()] {
                Passage::Open => {}
                Passage::Refused => return None,
                Passage::Blocked => {
                    let blocked = &self.blocked[kind as usize];
                    blocked.fetch_add(1, Ordering::Relaxed);
                    drop(self.changed.wait(core));
                    blocked.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Whether somebody who wants to change something has to wait now.
    pub fn is_blocked(&self) -> bool {
        self.core.lock().machine.gates().contains(&Passage::Blocked)
    }

    /// Whether nothing can be changed until it is mounted anew, or remounted.
    pub fn is_read_only(&self) -> bool {
        self.core.lock().machine.shown().1
    }

    /// Whether it was stopped for good, or is about to be.
    pub fn is_stopped(&self) -> bool {
        self.core.lock().machine.is_stopped()
    }

    fn pass(&self, kind: FrontKind) -> bool {
        self.inside[kind as usize].fetch_add(1, Ordering::Relaxed);
        let passed = self.gates[kind.gate()].enter();
        if !passed {
            self.leave(kind);
        }
        passed
    }

    fn leave(&self, kind: FrontKind) {
        self.inside[kind as usize].fetch_sub(1, Ordering::Relaxed);
        if self.gates[kind.gate()].leave() {
            // Under the lock, so that who has just looked and is about to wait is told.
            let _core = self.core.lock();
            self.changed.notify_all();
        }
    }

    /// Freezes the volume, or joins those who have. Returns when it is frozen, with the name under which it is thawed.
    ///
    /// # Errors
    /// See [`LifecycleError`]. Then it is not frozen on behalf of this caller, and nothing is left of the attempt.
    pub fn freeze(&self, request: FreezeRequest) -> Result<HolderId, LifecycleError> {
        self.freeze_as(self.new_holder(), request)
    }

    /// A name for a holder to be. Somebody who dies while it is being frozen can be taken away by it, too.
    pub fn new_holder(&self) -> HolderId {
        let mut core = self.core.lock();
        core.holders += 1;
        HolderId(core.holders)
    }

    /// As [`Lifecycle::freeze`], under this name.
    ///
    /// # Errors
    /// As there.
    pub fn freeze_as(&self, id: HolderId, request: FreezeRequest) -> Result<HolderId, LifecycleError> {
        let now = self.clock.now();
        let deadline = request.give_up_after.map(|time| now.saturating_add(time));
        let answer = self.ask(Event::Freeze(Holder { id, request, since: now }), deadline)?;
        let frozen = matches!(answer, Answer::Frozen(_));
        debug_assert!(frozen, "a wish to freeze is answered with a holder");
        Ok(id)
    }

    /// Ends a hold. When it was the last one, returns when the volume can be changed again.
    ///
    /// # Errors
    /// See [`LifecycleError`]. If the volume could not be made writable again it stays frozen, held as before.
    pub fn thaw(&self, holder: HolderId) -> Result<(), LifecycleError> {
        self.ask(Event::Thaw(holder), None).map(drop)
    }

    /// Ends all holds, whoever has them.
    ///
    /// # Errors
    /// As [`Lifecycle::thaw`].
    pub fn thaw_all(&self) -> Result<(), LifecycleError> {
        self.ask(Event::ThawAll, None).map(drop)
    }

    /// A holder is gone without having thawed. Does not wait.
    pub fn lapse(&self, holder: HolderId) {
        self.change(|machine| machine.lapse(holder));
    }

    /// Makes it read-only, or writable.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub fn remount(&self, writable: bool) -> Result<(), LifecycleError> {
        self.ask(Event::Remount { writable }, None).map(drop)
    }

    /// Stops it for good: nothing is written from when this returns.
    ///
    /// # Errors
    /// [`LifecycleError::Failed`] or [`LifecycleError::Dead`] if what the mode promises could not be kept; it is stopped nevertheless.
    pub fn shutdown(&self, mode: ShutdownMode) -> Result<(), LifecycleError> {
        self.ask(Event::Shutdown(mode), None).map(drop)
    }

    /// Stops it, cleanly if that is possible. Nobody changes anything any more.
    ///
    /// # Errors
    /// [`LifecycleError::Dead`] if it has something to be recovered at its next start.
    pub fn unmount(&self) -> Result<(), LifecycleError> {
        self.ask(Event::Unmount, None).map(drop)
    }

    /// Nothing can be written any more, and nothing is: the journal has stopped. Does not wait.
    pub fn died(&self, reason: &str) {
        self.change(|machine| machine.error(reason, true));
    }

    /// Decides what is done when what is stored turns out to be wrong; [`OnError::ReadOnly`] unless it is called.
    pub fn set_on_error(&self, on_error: OnError) {
        self.core.lock().machine.set_on_error(on_error);
    }

    /// What is stored turned out to be wrong: what follows is decided here. Called by whoever finds out, who holds none of the locks that a commit or the
    /// journal needs.
    pub fn inconsistent(&self, what: &str) {
        self.change(|machine| machine.inconsistent(what));
    }

    /// Nothing must be written any more. Returns when nothing is.
    pub fn fail(&self, reason: &str) {
        self.change(|machine| machine.error(reason, false));
        let mut core = self.core.lock();
        while core.halting {
            core = self.changed.wait(core);
        }
    }

    /// Without an owner, whoever asks looks for it what time it is.
    fn keep_time(&self) {
        if !self.core.lock().owned {
            self.tick();
        }
    }

    /// Takes away the holders whose time is up.
    pub fn tick(&self) {
        let now = self.clock.now();
        loop {
            let next = self.core.lock().next_deadline();
            let Some((_, holder, who)) = next.filter(|(at, ..)| *at <= now) else { return };
            tracing::warn!("the freeze for {who} has lasted as long as it may, and ends");
            self.change(|machine| machine.lapse(holder));
        }
    }

    /// Changes the machine and brings about what follows at once.
    fn change<R>(&self, change: impl FnOnce(&mut Machine) -> R) -> R {
        let mut core = self.lock();
        let result = change(&mut core.machine);
        let mut core = self.apply(core);
        let work = self.own_work(&mut core);
        drop(core);
        self.run_all(work);
        result
    }

    fn lock(&self) -> Guard<'_> {
        let mut core = self.core.lock();
        core.machine.set_now(self.clock.now());
        core
    }

    /// Sets the gates as the state wants them, and tells everybody. May let go of the lock meanwhile.
    fn apply<'l>(&'l self, mut core: Guard<'l>) -> Guard<'l> {
        if core.machine.must_abort()
            && let Some(back) = self.back.upgrade()
        {
            // With the lock, so that nobody is answered.
            back.abort(core.machine.reason().unwrap_or_default());
        }
        let passages = core.machine.gates();
        let changed = passages != core.passages;
        for (gate, passage) in self.gates.iter().zip(passages) {
            match passage {
                Passage::Open => gate.open(),
                Passage::Blocked | Passage::Refused => gate.close(),
            }
        }
        core.passages = passages;
        let halt = core.machine.take_halt().then(|| core.machine.reason().unwrap_or_default().to_owned());
        self.changed.notify_all();
        if !changed && halt.is_none() {
            return core;
        }
        let listeners = core.listeners.clone();
        core.halting |= halt.is_some();
        drop(core);
        if let Some(why) = halt {
            if let Some(back) = self.back.upgrade() {
                back.halt(&why);
            }
            self.core.lock().halting = false;
            self.changed.notify_all();
        }
        listeners.iter().for_each(|listener| listener());
        self.lock()
    }

    /// Posts an event and waits for its answer.
    fn ask(&self, event: Event, deadline: Option<Duration>) -> Result<Answer, LifecycleError> {
        self.keep_time();
        let mut core = self.lock();
        let id = core.requests;
        core.requests += 1;
        core.machine.post(id, event);
        core = self.apply(core);
        loop {
            if core.halting {
                core = self.changed.wait(core);
                continue;
            }
            if let Some(answer) = core.machine.take_answer(id) {
                return answer;
            }
            if let Some(work) = self.own_work(&mut core) {
                drop(core);
                self.run_all(Some(work));
                core = self.lock();
                continue;
            }
            let now = self.clock.now();
            core = match deadline {
                None => self.changed.wait(core),
                Some(deadline) if deadline > now => self.changed.wait_for(core, deadline - now),
                Some(_) => {
                    let waits_for = self.waits_for(&core);
                    core.machine.withdraw(id);
                    drop(self.apply(core));
                    return Err(LifecycleError::TimedOut(waits_for));
                }
            };
        }
    }

    /// Work that the caller has to do, because nobody else does.
    fn own_work(&self, core: &mut Core) -> Option<Work> {
        if core.owned { None } else { core.take_work() }
    }

    /// Does work, and what follows from it.
    fn run_all(&self, mut work: Option<Work>) {
        while let Some(now) = work {
            let outcome = self.run(now);
            let mut core = self.lock();
            core.since = self.clock.now();
            core.machine.finished(outcome);
            core = self.apply(core);
            work = core.take_work();
        }
    }

    /// Leaves the work of transitions to [`Lifecycle::own`], which another thread is about to call: who asks meanwhile waits for it, as long as he wants to.
    pub fn hand_over(&self) {
        self.core.lock().owned = true;
    }

    /// Does the work of transitions from now on, in the calling thread, until [`Lifecycle::end`].
    pub fn own(&self) {
        self.core.lock().owned = true;
        loop {
            self.tick();
            let mut core = self.lock();
            if let Some(work) = core.take_work() {
                drop(core);
                self.run_all(Some(work));
                continue;
            }
            if core.ended {
                core.owned = false;
                return;
            }
            drop(match core.next_deadline() {
                None => self.changed.wait(core),
                Some((at, ..)) => self.changed.wait_for(core, at.saturating_sub(self.clock.now())),
            });
        }
    }

    /// Lets [`Lifecycle::own`] return.
    pub fn end(&self) {
        self.core.lock().ended = true;
        self.changed.notify_all();
    }

    fn run(&self, work: Work) -> Outcome {
        let Some(back) = self.back.upgrade() else { return Outcome::Failed("it is gone".into()) };
        let done = match work {
            Work::Quiesce => return self.quiesce(&*back),
            Work::Open => back.open(),
            Work::Flush => back.flush(),
            Work::Record => {
                back.record();
                Ok(())
            }
        };
        done.map_or_else(Outcome::Failed, |()| Outcome::Done)
    }

    /// See the [module](self).
    fn quiesce(&self, back: &dyn Back) -> Outcome {
        back.ahead();
        if !self.reach(Stage::Gate1) || !self.wait_until_empty(0) {
            return Outcome::GivenUp;
        }
        self.reach(Stage::Sync);
        let before_rest = self.core.lock().before_rest.clone();
        before_rest.iter().for_each(|work| work(&|| self.is_wanted()));
        if !self.reach(Stage::Gate2) || !self.wait_until_empty(1) || !self.reach(Stage::Drain) {
            return Outcome::GivenUp;
        }
        if let Err(why) = back.drain(&|| self.is_wanted()) {
            back.undo();
            return Outcome::Failed(why);
        }
        if !self.reach(Stage::Seal) {
            back.undo();
            return Outcome::GivenUp;
        }
        let Err(why) = back.seal() else { return Outcome::Done };
        // Some superblock may say "clean" already.
        if let Err(error) = back.open() {
            self.fail(&error);
        }
        Outcome::Failed(why)
    }

    /// Goes on to a stage, unless nobody wants that any more.
    fn reach(&self, stage: Stage) -> bool {
        let mut core = self.lock();
        let wanted = core.machine.is_wanted();
        if wanted {
            core.machine.reach(stage);
            core.since = self.clock.now();
        }
        drop(self.apply(core));
        wanted
    }

    fn is_wanted(&self) -> bool {
        self.core.lock().machine.is_wanted()
    }

    /// Waits until nobody is behind a closed gate; false if that is not wanted any more.
    fn wait_until_empty(&self, gate: usize) -> bool {
        let mut core = self.core.lock();
        loop {
            if !core.machine.is_wanted() {
                return false;
            }
            if self.gates[gate].inside() == 0 {
                return true;
            }
            core = self.changed.wait(core);
        }
    }
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.status().fmt(f)
    }
}
