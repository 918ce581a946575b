//! Every state that can be reached, and every event in it (spec 70 §7.2, INV-15 to INV-17).
//!
//! The machine has no threads and no time, so its states can be visited one by one: from the first one on, every event that may come next
//! leads to another, until no new ones are found. What must hold is looked at in each.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault};

use super::machine::{Event, Holder, Machine, Outcome, Passage, RequestId, Stage, State, Work};
use super::{FreezeRequest, HolderId, LifecycleError, OnError, ShutdownMode};

/// Requests that wait at the same time: those that a transition is for, and those that come in between.
const REQUESTS_MAX: usize = 3;

const STAGES: [Stage; 6] = [Stage::Ahead, Stage::Gate1, Stage::Sync, Stage::Gate2, Stage::Drain, Stage::Seal];

/// The machine, who waits for it, and what its owner is doing.
#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    machine: Machine,
    waiting: BTreeSet<RequestId>,
    doing: Option<Work>,
    /// What the superblock says.
    clean: bool,
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Post(Event),
    Lapse(HolderId),
    Withdraw(RequestId),
    Error,
    Inconsistent,
    Take,
    Reach(Stage),
    Finish(Outcome),
}

fn holder(id: u64, share: bool) -> Holder {
    let request = FreezeRequest { share, ..FreezeRequest::default() };
    Holder { id: HolderId(id), request, since: Default::default() }
}

/// What users and owners of holds may want.
fn wishes() -> Vec<Step> {
    let mut all: Vec<Step> = vec![
        Step::Post(Event::Freeze(holder(1, true))),
        Step::Post(Event::Freeze(holder(2, false))),
        Step::Post(Event::Thaw(HolderId(1))),
        Step::Post(Event::Thaw(HolderId(2))),
        Step::Post(Event::ThawAll),
        Step::Post(Event::Remount { writable: false }),
        Step::Post(Event::Remount { writable: true }),
        Step::Post(Event::Unmount),
        Step::Lapse(HolderId(1)),
        Step::Lapse(HolderId(2)),
        Step::Error,
        Step::Inconsistent,
    ];
    for mode in [ShutdownMode::Default, ShutdownMode::LogFlush, ShutdownMode::NoLogFlush] {
        all.push(Step::Post(Event::Shutdown(mode)));
    }
    all
}

impl World {
    fn new(writable: bool, on_error: OnError) -> World {
        let mut machine = Machine::new(writable);
        machine.set_on_error(on_error);
        World { machine, waiting: BTreeSet::new(), doing: None, clean: !writable }
    }

    /// What the owner may do next.
    fn work(&self) -> Vec<Step> {
        match self.doing {
            None => vec![Step::Take],
            Some(Work::Quiesce) if !self.machine.is_wanted() => vec![Step::Finish(Outcome::GivenUp)],
            Some(Work::Quiesce) => match self.machine.stage() {
                Some(Stage::Seal) => vec![Step::Finish(Outcome::Done), Step::Finish(failed())],
                Some(stage) => {
                    let next = STAGES.iter().position(|s| *s == stage).map(|at| STAGES[at + 1]);
                    let mut steps: Vec<Step> = next.map(Step::Reach).into_iter().collect();
                    if stage == Stage::Drain {
                        steps.push(Step::Finish(failed()));
                    }
                    steps
                }
                None => Vec::new(),
            },
            Some(Work::Record) => vec![Step::Finish(Outcome::Done)],
            Some(Work::Open | Work::Flush) => vec![Step::Finish(Outcome::Done), Step::Finish(failed())],
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = self.work();
        steps.extend(self.waiting.iter().map(|id| Step::Withdraw(*id)));
        let full = self.waiting.len() == REQUESTS_MAX;
        steps.extend(wishes().into_iter().filter(|step| match step {
            // Names are given once.
            Step::Post(Event::Freeze(holder)) if self.machine.has(holder.id) => false,
            Step::Post(_) => !full,
            _ => true,
        }));
        steps
    }

    fn take(&mut self, step: &Step) {
        let before = self.machine.state();
        match step.clone() {
            Step::Post(event) => {
                let id = (0..).find(|id| !self.waiting.contains(id)).unwrap();
                self.waiting.insert(id);
                self.machine.post(id, event);
            }
            Step::Lapse(holder) => drop(self.machine.lapse(holder)),
            Step::Withdraw(id) => self.machine.withdraw(id),
            Step::Error => self.machine.error("a test", true),
            Step::Inconsistent => {
                self.machine.inconsistent("a test");
                let dies = self.machine.on_error() != OnError::Continue;
                let dead = matches!(self.machine.state(), State::Dead | State::Gone);
                assert!(if dies { dead } else { dead == matches!(before, State::Dead | State::Gone) });
            }
            Step::Take => self.doing = self.machine.take_work(),
            Step::Reach(stage) => self.machine.reach(stage),
            Step::Finish(outcome) => {
                match (self.doing.take(), &outcome) {
                    (Some(Work::Quiesce), Outcome::Done) => self.clean = true,
                    (Some(Work::Open), Outcome::Done) => self.clean = false,
                    // What failed to seal is opened again, or dead.
                    (Some(Work::Quiesce), Outcome::Failed(_)) => self.clean = false,
                    (Some(Work::Record), _) => assert!(!self.clean && before != State::ReadWrite),
                    _ => {}
                }
                self.machine.finished(outcome);
            }
        }
        // Once it is dead, it may only go.
        if before == State::Dead {
            assert!(matches!(self.machine.state(), State::Dead | State::Gone), "{step:?}");
        }
        if before == State::Gone {
            assert_eq!(self.machine.state(), State::Gone, "{step:?}");
        }
        self.machine.take_halt();
        for id in self.waiting.clone() {
            let Some(answer) = self.machine.take_answer(id) else { continue };
            self.waiting.remove(&id);
            assert!(self.machine.take_answer(id).is_none(), "two answers");
            // Nobody is told that something is wrong with what he asked for because somebody else failed at something else.
            if let (Err(LifecycleError::Failed(_)), Step::Post(event)) = (&answer, step) {
                panic!("{event:?} failed before anything was tried");
            }
        }
        // Who withdraws a wish to freeze hears no more of it.
        if let Step::Withdraw(id) = step
            && !self.machine.knows(*id)
        {
            self.waiting.remove(id);
        }
    }

    fn check(&self, how: &Step) {
        let gates = self.machine.gates();
        let state = self.machine.state();
        // INV-17, INV-16: whoever may change something does it to a volume that says "not clean".
        assert!(!gates.contains(&Passage::Open) || !self.clean, "{how:?}: open and clean in {state:?}");
        if matches!(state, State::Frozen { .. } | State::Dead | State::Gone | State::ReadOnly) {
            assert!(!gates.contains(&Passage::Open), "{how:?}: open in {state:?}");
        }
        // Frozen is what somebody holds.
        if matches!(state, State::Frozen { .. }) {
            assert!(!self.machine.holders().is_empty(), "{how:?}: frozen for nobody");
        }
        // Nobody waits at a gate that nobody will open: only for the owner, or for a holder.
        if gates.contains(&Passage::Blocked) {
            let held = !self.machine.holders().is_empty();
            assert!(held || !self.is_idle(), "{how:?}: blocked for ever in {state:?}");
        }
        // INV-15: whoever waits is answered when the owner has nothing to do.
        if self.is_idle() {
            assert!(self.waiting.is_empty(), "{how:?}: {:?} wait in {state:?}", self.waiting);
        }
    }

    fn is_idle(&self) -> bool {
        self.doing.is_none() && self.machine.clone().take_work().is_none()
    }

    /// If everything that the owner does succeeds, everybody is answered soon.
    fn comes_to_rest(&self) {
        let mut world = self.clone();
        for _ in 0..100 {
            if world.is_idle() {
                return world.check(&Step::Take);
            }
            let step = world.work().first().cloned().expect("the owner has something to do");
            world.take(&step);
        }
        panic!("no rest after {:?}", self.machine.state());
    }
}

fn failed() -> Outcome {
    Outcome::Failed("a test".into())
}

/// All states there are, and how many worlds they are found in. Worlds that were visited are remembered by a hash.
fn visit(first: World) -> (HashSet<State>, usize) {
    let hash = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
    let (mut seen, mut states) = (HashSet::from([hash(&first)]), HashSet::from([first.machine.state()]));
    let mut next = vec![first];
    while let Some(world) = next.pop() {
        for step in world.steps() {
            let mut after = world.clone();
            after.take(&step);
            after.check(&step);
            if seen.insert(hash(&after)) {
                after.comes_to_rest();
                states.insert(after.machine.state());
                next.push(after);
            }
        }
    }
    (states, seen.len())
}

#[test]
fn every_state_keeps_every_promise() {
    for (writable, on_error) in [
        (true, OnError::ReadOnly),
        (true, OnError::Continue),
        (true, OnError::Panic),
        (false, OnError::ReadOnly),
    ] {
        let (states, worlds) = visit(World::new(writable, on_error));
        println!("{worlds} worlds in {} states", states.len());
        let frozen = State::Frozen { writable };
        assert!(states.contains(&frozen) && states.contains(&State::Dead) && states.contains(&State::Gone));
        // All of the table, but for what a volume that cannot be written never is.
        assert_eq!(states.len(), if writable { 13 } else { 4 }, "{states:?}");
    }
}

#[test]
fn who_wants_it_alone_does_not_join_who_is_about_to_have_it() {
    let mut machine = Machine::new(true);
    machine.post(1, Event::Freeze(holder(1, true)));
    machine.post(2, Event::Freeze(holder(2, false)));
    machine.post(3, Event::Freeze(holder(3, true)));
    assert!(matches!(machine.take_answer(2), Some(Err(LifecycleError::Busy(_)))));
    assert_eq!(machine.take_work(), Some(Work::Quiesce));
    STAGES.iter().skip(1).for_each(|stage| machine.reach(*stage));
    machine.finished(Outcome::Done);
    for id in [1, 3] {
        assert!(matches!(machine.take_answer(id), Some(Ok(_))), "{id}");
    }
    assert_eq!(machine.holders().iter().map(|holder| holder.id.0).collect::<Vec<_>>(), [1, 3]);
}
