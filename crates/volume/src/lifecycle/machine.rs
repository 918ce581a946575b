//! What follows from what: the states of a volume in use, and every event in every state (spec 70 §7.2).
//!
//! Nothing here waits, locks or does I/O. A request is [posted](Machine::post) under a number and gets exactly one answer, at once or when a transition ends.
//! A transition is work for the owner of the machine: it [takes](Machine::take_work) it, does it, and says [how it ended](Machine::finished); there is at
//! most one at a time (INV-15). So the whole table can be tried: `tests` visits every state that can be reached by requests, errors and ends
//! of transitions in any order.
//!
//! | spec 70 §7.2 | here |
//! |---|---|
//! | RO, RW, DEAD, GONE | [`State::ReadOnly`], [`State::ReadWrite`], [`State::Dead`], [`State::Gone`] |
//! | FREEZING, TO_RO, and the way to DEAD or GONE | [`State::Quiescing`] with what comes [`After`]: all of them close gates, drain and seal |
//! | THAWING, TO_RW | [`State::Opening`] |
//! | FROZEN(rw), FROZEN(ro) | [`State::Frozen`] |
//! | SHUT(1) while the journal is flushed | [`State::Flushing`] |

use std::time::Duration;

use super::{Answer, FreezeRequest, HolderId, LifecycleError, OnError, ShutdownMode};

/// Names a request until it is answered.
pub(crate) type RequestId = u64;

/// What a volume is in. What users see of it is derived in one place, [`Machine::shown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    ReadOnly,
    ReadWrite,
    Quiescing(After),
    Frozen {
        /// It was being written, and will be.
        writable: bool,
    },
    Opening {
        /// After a freeze, not from read-only.
        thaw: bool,
    },
    Flushing,
    Dead,
    Gone,
}

/// What a volume is to be when it has come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum After {
    Frozen,
    ReadOnly,
    Dead,
    Gone,
}

/// How far the way to rest is (spec 70 §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// What can be written back is, while everything goes on: the pause is shorter by that.
    Ahead,
    /// Who changes something waits, or is refused; those under way finish.
    Gate1,
    /// What others keep for us (dirty pages) is written.
    Sync,
    /// What turns that into metadata waits, too.
    Gate2,
    /// Everything is written back.
    Drain,
    /// The last entry, the superblock: from here on it is not given up.
    Seal,
}

impl Stage {
    /// For a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Ahead => "writing back ahead",
            Stage::Gate1 => "waiting for operations under way",
            Stage::Sync => "writing dirty pages",
            Stage::Gate2 => "waiting for write-back under way",
            Stage::Drain => "writing back",
            Stage::Seal => "sealing",
        }
    }
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Freeze(Holder),
    Thaw(HolderId),
    /// Whoever holds it.
    ThawAll,
    Remount {
        writable: bool,
    },
    Shutdown(ShutdownMode),
    Unmount,
}

/// Somebody for whom a volume is frozen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    pub(crate) id: HolderId,
    pub(crate) request: FreezeRequest,
    /// Since when it holds, or waits to, by the lifecycle's clock.
    pub(crate) since: Duration,
}

impl Holder {
    /// When it ceases to hold.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.request.hold_for.map(|time| self.since.saturating_add(time))
    }
}

/// Work for the owner of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Close gates, drain, seal.
    Quiesce,
    /// Say "not clean", then be written again.
    Open,
    /// Make durable what was committed.
    Flush,
    /// Note in the superblock what was found, if that can be.
    Record,
}

/// How a transition ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It was done. After [`Work::Quiesce`] the journal is empty.
    Done,
    /// Nobody wanted it any more; everything is as before.
    GivenUp,
    /// It could not be done, and everything is as before as far as the journal lives.
    Failed(String),
}

/// How the gates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Passage {
    Open,
    /// Whoever comes waits.
    Blocked,
    /// Whoever comes is told that it is read-only.
    Refused,
}

/// Whose answer depends on the transition under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Joined {
    /// Holds when it is frozen.
    Freezer(RequestId, Holder),
    /// Held until it is thawed.
    Thawer(RequestId, Holder),
    /// Asked for the state that comes next.
    Other(RequestId, Event),
}

impl Joined {
    fn id(&self) -> RequestId {
        match self {
            Joined::Freezer(id, _) | Joined::Thawer(id, _) | Joined::Other(id, _) => *id,
        }
    }
}

/// The states and what leads from one to the next. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    state: State,
    stage: Stage,
    /// The freeze under way is wanted by nobody any more.
    given_up: bool,
    work: Option<Work>,
    working: bool,
    joined: Vec<Joined>,
    /// Requests that wait for the transition under way to end, in their order.
    queue: Vec<(RequestId, Event)>,
    holders: Vec<Holder>,
    /// Holders that were taken away.
    lapsed: Vec<HolderId>,
    answers: Vec<(RequestId, Result<Answer, LifecycleError>)>,
    /// Whether it can be written at all.
    capable: bool,
    /// Whether nothing is to be recovered at the next start.
    at_rest: bool,
    /// Why it is dead.
    reason: Option<String>,
    /// What to do when the volume turns out to be wrong.
    on_error: OnError,
    /// The first thing that was found to be wrong.
    first_error: Option<String>,
    /// Writing has to be stopped, which nobody has done yet.
    must_halt: bool,
    /// The process has to end at once.
    must_abort: bool,
    /// The time by the lifecycle's clock.
    now: Duration,
}

/// Holders remembered after they were taken away, so that they can be told.
const LAPSED_MAX: usize = 64;

impl Machine {
    /// Of a volume that is being written, or that cannot be.
    pub(crate) fn new(writable: bool) -> Machine {
        Machine {
            state: if writable { State::ReadWrite } else { State::ReadOnly },
            stage: Stage::Ahead,
            given_up: false,
            work: None,
            working: false,
            joined: Vec::new(),
            queue: Vec::new(),
            holders: Vec::new(),
            lapsed: Vec::new(),
            answers: Vec::new(),
            capable: writable,
            at_rest: !writable,
            reason: None,
            on_error: OnError::ReadOnly,
            first_error: None,
            must_halt: false,
            must_abort: false,
            now: Duration::ZERO,
        }
    }

    /// It is so late.
    pub(crate) fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// How far it is on the way to rest, if it is on it.
    pub(crate) fn stage(&self) -> Option<Stage> {
        matches!(self.state, State::Quiescing(_)).then_some(self.stage)
    }

    pub(crate) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Why it is dead, or else what was found to be wrong with it first.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref().or(self.first_error.as_deref())
    }

    pub(crate) fn on_error(&self) -> OnError {
        self.on_error
    }

    pub(crate) fn set_on_error(&mut self, on_error: OnError) {
        self.on_error = on_error;
    }

    /// What users see: the state in a word, and whether nothing can be changed for good.
    pub(crate) fn shown(&self) -> (&'static str, bool) {
        match self.state {
            State::ReadOnly | State::Frozen { writable: false } | State::Opening { thaw: false } => {
                (if self.holders.is_empty() { "read-only" } else { "frozen, read-only" }, true)
            }
            State::ReadWrite | State::Flushing => ("read-write", false),
            State::Quiescing(After::Frozen) => ("freezing", false),
            State::Quiescing(After::ReadOnly) => ("going read-only", true),
            State::Quiescing(After::Dead) => ("shutting down", true),
            State::Quiescing(After::Gone) => ("stopping", true),
            State::Frozen { writable: true } => ("frozen", false),
            State::Opening { thaw: true } => ("thawing", false),
            State::Dead => ("read-only, emergency", true),
            State::Gone => ("stopped", true),
        }
    }

    /// Whether it was stopped for good, or is about to be.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Quiescing(After::Dead) | State::Dead)
    }

    /// How the two gates are: of what changes something, and of what writes back (spec 70 R4). They follow from the state and from nothing else, so who
    /// lets waiters go need not know who made them wait.
    pub(crate) fn gates(&self) -> [Passage; 2] {
        let both = |passage| [passage, passage];
        match self.state {
            State::ReadWrite | State::Flushing => both(Passage::Open),
            State::Quiescing(_) if self.given_up => both(Passage::Open),
            State::Quiescing(after) => {
                let closed = match after {
                    After::Frozen | After::Dead => Passage::Blocked,
                    After::ReadOnly | After::Gone => Passage::Refused,
                };
                let from = |stage| if self.stage < stage { Passage::Open } else { closed };
                [from(Stage::Gate1), from(Stage::Gate2)]
            }
            State::Frozen { writable: true } | State::Opening { thaw: true } => both(Passage::Blocked),
            State::ReadOnly | State::Frozen { writable: false } | State::Opening { thaw: false } => {
                both(Passage::Refused)
            }
            State::Dead | State::Gone => both(Passage::Refused),
        }
    }

    /// The transition to be run, if there is one and nobody is at one.
    pub(crate) fn take_work(&mut self) -> Option<Work> {
        if self.working {
            return None;
        }
        let work = self.work.take();
        self.working = work.is_some();
        work
    }

    /// True once if writing has to be stopped now.
    pub(crate) fn take_halt(&mut self) -> bool {
        std::mem::take(&mut self.must_halt)
    }

    /// Whether the process has to end now.
    pub(crate) fn must_abort(&self) -> bool {
        self.must_abort
    }

    /// The answer to a request, once.
    pub(crate) fn take_answer(&mut self, id: RequestId) -> Option<Result<Answer, LifecycleError>> {
        let at = self.answers.iter().position(|(of, _)| *of == id)?;
        Some(self.answers.swap_remove(at).1)
    }

    /// Whether a request is still to be answered.
    #[cfg(test)]
    pub(crate) fn knows(&self, id: RequestId) -> bool {
        self.queue.iter().any(|(of, _)| *of == id) || self.joined.iter().any(|j| j.id() == id)
    }

    /// Whether somebody of this name holds a freeze, or waits to.
    #[cfg(test)]
    pub(crate) fn has(&self, holder: HolderId) -> bool {
        self.holders.iter().any(|h| h.id == holder)
            || self
                .joined
                .iter()
                .any(|j| matches!(j, Joined::Freezer(_, h) | Joined::Thawer(_, h) if h.id == holder))
            || self.queue.iter().any(|(_, event)| matches!(event, Event::Freeze(h) if h.id == holder))
    }

    /// Somebody wants something.
    pub(crate) fn post(&mut self, id: RequestId, event: Event) {
        if let Some(answer) = self.evaluate(id, &event) {
            self.answers.push((id, answer));
        }
        self.settle();
    }

    /// Nobody waits any more for an answer to this wish to freeze. If nobody else does, it is given up.
    pub(crate) fn withdraw(&mut self, id: RequestId) {
        self.queue.retain(|(of, event)| *of != id || !matches!(event, Event::Freeze(_)));
        self.joined.retain(|joined| joined.id() != id || !matches!(joined, Joined::Freezer(..)));
        self.give_up_if_unwanted();
        self.settle();
    }

    /// A holder is taken away: its time is up, or its owner is gone. False if there is none of this name.
    pub(crate) fn lapse(&mut self, holder: HolderId) -> bool {
        let freezing = self.joined.iter().position(|j| matches!(j, Joined::Freezer(_, h) if h.id == holder));
        if let Some(at) = freezing {
            let joined = self.joined.remove(at);
            self.answers.push((joined.id(), Err(LifecycleError::Withdrawn)));
            self.give_up_if_unwanted();
        } else if let Some(at) = self.holders.iter().position(|h| h.id == holder) {
            self.holders.remove(at);
        } else if let Some(at) =
            self.queue.iter().position(|(_, e)| matches!(e, Event::Freeze(h) if h.id == holder))
        {
            let (id, _) = self.queue.remove(at);
            self.answers.push((id, Err(LifecycleError::Withdrawn)));
        } else {
            return false;
        }
        self.remember_lapsed(holder);
        self.settle();
        true
    }

    fn remember_lapsed(&mut self, holder: HolderId) {
        self.lapsed.retain(|known| *known != holder);
        if self.lapsed.len() == LAPSED_MAX {
            self.lapsed.remove(0);
        }
        self.lapsed.push(holder);
    }

    /// Nothing can be written any more. `halted`: and nothing is, because the journal has stopped.
    pub(crate) fn error(&mut self, reason: &str, halted: bool) {
        self.die_of_an_error(reason);
        self.must_halt &= !halted;
        self.settle();
    }

    /// What is stored turned out to be wrong. What that means was decided when it was opened; this is the one place that asks.
    pub(crate) fn inconsistent(&mut self, what: &str) {
        self.first_error.get_or_insert_with(|| what.to_owned());
        if self.on_error != OnError::Continue {
            self.die_of_an_error(what);
        }
        self.settle();
    }

    fn die_of_an_error(&mut self, reason: &str) {
        let was = self.state;
        self.die(reason);
        if matches!(was, State::Dead | State::Gone) {
            return;
        }
        if self.on_error == OnError::Panic && self.capable {
            self.must_abort = true;
            return;
        }
        // At rest, and on the way there from the seal on, the devices are to stay as they are.
        let sealed = matches!(was, State::Quiescing(_)) && self.stage >= Stage::Seal;
        if matches!(was, State::ReadWrite | State::Flushing | State::Quiescing(_)) && !sealed {
            self.work = Some(Work::Record);
        }
    }

    /// How far the transition under way is.
    pub(crate) fn reach(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Whether the transition under way is still to be done: nobody has given it up, and there is something to be saved.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.state, State::Quiescing(_)) && !self.given_up
    }

    /// The transition has ended.
    pub(crate) fn finished(&mut self, outcome: Outcome) {
        self.working = false;
        match self.state {
            State::Quiescing(after) => self.quiesced(after, outcome),
            State::Opening { thaw } => self.opened(thaw, outcome),
            State::Flushing => {
                let answer = match &outcome {
                    Outcome::Failed(why) => Err(LifecycleError::Failed(why.clone())),
                    _ => Ok(Answer::Done),
                };
                self.answer_joined(&answer);
                self.die(SHUT_DOWN);
            }
            // Somebody found an error meanwhile, and has answered.
            State::ReadOnly | State::ReadWrite | State::Frozen { .. } | State::Dead | State::Gone => {}
        }
        self.given_up = false;
        self.stage = Stage::Ahead;
        self.settle();
    }

    fn start(&mut self, state: State, work: Work) {
        debug_assert!(!self.is_busy());
        self.at_rest &= work != Work::Open;
        (self.state, self.work, self.stage, self.given_up) = (state, Some(work), Stage::Ahead, false);
    }

    fn is_busy(&self) -> bool {
        self.work.is_some() || self.working
    }

    fn give_up_if_unwanted(&mut self) {
        let wanted = self.joined.iter().any(|j| matches!(j, Joined::Freezer(..)));
        if self.state == State::Quiescing(After::Frozen) && !wanted && self.stage < Stage::Seal {
            self.given_up = true;
        }
    }

    /// Everybody whose answer depends on the transition gets this one.
    fn answer_joined(&mut self, answer: &Result<Answer, LifecycleError>) {
        let joined = std::mem::take(&mut self.joined);
        self.answers.extend(joined.into_iter().map(|j| (j.id(), answer.clone())));
    }

    /// Nothing is written from now on. Who waits for the transition under way is told; who wants to unmount waits for its end.
    fn die(&mut self, reason: &str) {
        if matches!(self.state, State::Dead | State::Gone) {
            return;
        }
        self.reason.get_or_insert_with(|| reason.to_owned());
        (self.state, self.must_halt) = (State::Dead, true);
        for joined in std::mem::take(&mut self.joined) {
            let answer = match joined {
                // The freeze is lifted, if not in the way that was asked for.
                Joined::Thawer(..) => Ok(Answer::Done),
                Joined::Other(id, Event::Unmount) => {
                    self.queue.insert(0, (id, Event::Unmount));
                    continue;
                }
                Joined::Freezer(..) | Joined::Other(..) => Err(self.dead()),
            };
            self.answers.push((joined.id(), answer));
        }
    }

    fn was_shut_down(&self) -> bool {
        self.reason.as_deref() == Some(SHUT_DOWN)
    }

    fn dead(&self) -> LifecycleError {
        LifecycleError::Dead(self.reason.clone().unwrap_or_default())
    }

    fn quiesced(&mut self, after: After, outcome: Outcome) {
        match (after, outcome) {
            (After::Frozen, Outcome::Done) => {
                self.state = State::Frozen { writable: true };
                for joined in std::mem::take(&mut self.joined) {
                    if let Joined::Freezer(id, mut holder) = joined {
                        holder.since = self.now;
                        self.answers.push((id, Ok(Answer::Frozen(holder.id))));
                        self.holders.push(holder);
                    }
                }
            }
            (After::Frozen, Outcome::GivenUp) => self.state = State::ReadWrite,
            (After::Frozen, Outcome::Failed(why)) => {
                self.state = State::ReadWrite;
                self.answer_joined(&Err(LifecycleError::Failed(why)));
            }
            (_, Outcome::Done) => {
                self.at_rest = true;
                match after {
                    // Who wanted it has what he asked for; the others who wait for its end have not.
                    After::Dead => {
                        self.answer_joined(&Ok(Answer::Done));
                        self.die(SHUT_DOWN);
                    }
                    After::ReadOnly => self.state = State::ReadOnly,
                    After::Gone | After::Frozen => self.state = State::Gone,
                }
                let answer = if after == After::Gone { self.unmounted() } else { Ok(Answer::Done) };
                self.answer_joined(&answer);
            }
            (_, Outcome::GivenUp) => unreachable!("only a freeze is given up"),
            (_, Outcome::Failed(why)) => {
                if after == After::Dead {
                    self.answer_joined(&Err(LifecycleError::Failed(why.clone())));
                }
                self.die_of_an_error(&why);
            }
        }
    }

    fn opened(&mut self, thaw: bool, outcome: Outcome) {
        match outcome {
            Outcome::Done | Outcome::GivenUp => {
                (self.state, self.at_rest) = (State::ReadWrite, false);
                self.answer_joined(&Ok(Answer::Done));
            }
            Outcome::Failed(why) if !thaw => {
                self.state = State::ReadOnly;
                self.answer_joined(&Err(LifecycleError::Failed(why)));
            }
            Outcome::Failed(why) => {
                let joined = std::mem::take(&mut self.joined);
                // Nobody is left who could thaw it again.
                if joined.is_empty() {
                    return self.die_of_an_error(&why);
                }
                self.state = State::Frozen { writable: true };
                for joined in joined {
                    self.answers.push((joined.id(), Err(LifecycleError::Failed(why.clone()))));
                    if let Joined::Thawer(_, holder) = joined {
                        self.holders.push(holder);
                    }
                }
            }
        }
    }

    fn unmounted(&self) -> Result<Answer, LifecycleError> {
        match &self.reason {
            Some(reason) if !self.at_rest => Err(LifecycleError::Dead(reason.clone())),
            _ => Ok(Answer::Done),
        }
    }

    /// Does what is to be done now that something has changed: a freeze without holders ends, who waited for the end of a transition is
    /// looked at again.
    fn settle(&mut self) {
        loop {
            match self.state {
                State::Frozen { writable: true } if self.holders.is_empty() && !self.is_busy() => {
                    self.start(State::Opening { thaw: true }, Work::Open);
                }
                State::Frozen { writable: false } if self.holders.is_empty() => self.state = State::ReadOnly,
                _ => {}
            }
            let before = self.queue.len();
            for (id, event) in std::mem::take(&mut self.queue) {
                if let Some(answer) = self.evaluate(id, &event) {
                    self.answers.push((id, answer));
                }
            }
            if self.queue.len() == before {
                return;
            }
        }
    }

    /// The table. `None`: the answer comes later.
    fn evaluate(&mut self, id: RequestId, event: &Event) -> Option<Result<Answer, LifecycleError>> {
        let unmounting = matches!(event, Event::Unmount);
        match self.state {
            State::Gone if unmounting => return Some(Ok(Answer::Done)),
            State::Gone => return Some(Err(LifecycleError::Unmounted)),
            // What is under way has to come to its end first.
            State::Dead if self.is_busy() && unmounting => return self.later(id, event),
            _ => {}
        }
        match event {
            Event::Freeze(holder) => self.freeze(id, holder),
            Event::Thaw(holder) => self.thaw(id, *holder),
            Event::ThawAll => self.thaw_all(id),
            Event::Remount { writable: false } => self.remount_read_only(id, event),
            Event::Remount { writable: true } => self.remount_writable(id, event),
            Event::Shutdown(mode) => self.shutdown(id, *mode),
            Event::Unmount => self.unmount(id, event),
        }
    }

    fn later(&mut self, id: RequestId, event: &Event) -> Option<Result<Answer, LifecycleError>> {
        self.queue.push((id, event.clone()));
        None
    }

    fn join(&mut self, joined: Joined) -> Option<Result<Answer, LifecycleError>> {
        self.joined.push(joined);
        None
    }

    fn freeze(&mut self, id: RequestId, holder: &Holder) -> Option<Result<Answer, LifecycleError>> {
        let joined = Joined::Freezer(id, holder.clone());
        match self.state {
            State::ReadOnly => {
                self.state = State::Frozen { writable: false };
                self.holders.push(holder.clone());
                Some(Ok(Answer::Frozen(holder.id)))
            }
            State::ReadWrite => {
                self.start(State::Quiescing(After::Frozen), Work::Quiesce);
                self.join(joined)
            }
            State::Quiescing(After::Frozen) if !self.given_up && holder.request.share => self.join(joined),
            State::Quiescing(After::Frozen) if !self.given_up => {
                Some(Err(LifecycleError::Busy("somebody is freezing it")))
            }
            State::Frozen { .. } if holder.request.share => {
                self.holders.push(holder.clone());
                Some(Ok(Answer::Frozen(holder.id)))
            }
            State::Frozen { .. } => Some(Err(LifecycleError::Busy("it is frozen already"))),
            State::Dead => Some(Err(self.dead())),
            _ => self.later(id, &Event::Freeze(holder.clone())),
        }
    }

    fn thaw(&mut self, id: RequestId, holder: HolderId) -> Option<Result<Answer, LifecycleError>> {
        if let Some(at) = self.holders.iter().position(|h| h.id == holder) {
            let holder = self.holders.remove(at);
            if self.holders.is_empty() && self.state == (State::Frozen { writable: true }) {
                self.start(State::Opening { thaw: true }, Work::Open);
                return self.join(Joined::Thawer(id, holder));
            }
            return Some(Ok(Answer::Done));
        }
        if let Some(at) = self.lapsed.iter().position(|h| *h == holder) {
            self.lapsed.remove(at);
            return Some(Err(LifecycleError::Lapsed));
        }
        if self.lapse(holder) {
            return Some(Ok(Answer::Done));
        }
        Some(Err(LifecycleError::NotFrozen))
    }

    fn thaw_all(&mut self, id: RequestId) -> Option<Result<Answer, LifecycleError>> {
        let freezing: Vec<HolderId> = self
            .joined
            .iter()
            .filter_map(|j| if let Joined::Freezer(_, holder) = j { Some(holder.id) } else { None })
            .collect();
        let mut held: Vec<HolderId> = self.holders.iter().map(|h| h.id).collect();
        let last = held.pop();
        let any = !freezing.is_empty() || last.is_some();
        for holder in freezing.into_iter().chain(held) {
            self.lapse(holder);
        }
        match last {
            Some(last) => {
                // Its owner, too, is told when it wants to thaw.
                self.remember_lapsed(last);
                self.thaw(id, last)
            }
            None if any => Some(Ok(Answer::Done)),
            None => Some(Err(LifecycleError::NotFrozen)),
        }
    }

    fn remount_read_only(&mut self, id: RequestId, event: &Event) -> Option<Result<Answer, LifecycleError>> {
        match self.state {
            State::ReadOnly | State::Dead => Some(Ok(Answer::Done)),
            State::ReadWrite => {
                self.start(State::Quiescing(After::ReadOnly), Work::Quiesce);
                self.join(Joined::Other(id, event.clone()))
            }
            State::Quiescing(After::ReadOnly) => self.join(Joined::Other(id, event.clone())),
            State::Quiescing(After::Frozen) | State::Frozen { .. } => {
                Some(Err(LifecycleError::Busy("it is frozen")))
            }
            _ => self.later(id, event),
        }
    }

    fn remount_writable(&mut self, id: RequestId, event: &Event) -> Option<Result<Answer, LifecycleError>> {
        match self.state {
            State::ReadOnly if self.capable => {
                self.start(State::Opening { thaw: false }, Work::Open);
                self.join(Joined::Other(id, event.clone()))
            }
            State::ReadOnly => Some(Err(LifecycleError::ReadOnly)),
            State::ReadWrite => Some(Ok(Answer::Done)),
            State::Opening { .. } => self.join(Joined::Other(id, event.clone())),
            State::Quiescing(After::Frozen) | State::Frozen { .. } => {
                Some(Err(LifecycleError::Busy("it is frozen")))
            }
            State::Dead => Some(Err(self.dead())),
            _ => self.later(id, event),
        }
    }

    fn shutdown(&mut self, id: RequestId, mode: ShutdownMode) -> Option<Result<Answer, LifecycleError>> {
        let event = Event::Shutdown(mode);
        match self.state {
            // Nothing is durable that was not when it died, unless somebody asked for that.
            State::Dead => {
                let kept = mode == ShutdownMode::NoLogFlush || self.was_shut_down();
                return Some(if kept { Ok(Answer::Done) } else { Err(self.dead()) });
            }
            // What was committed is durable there.
            State::ReadOnly | State::Frozen { .. } => {}
            _ if mode == ShutdownMode::NoLogFlush => {}
            State::ReadWrite if mode == ShutdownMode::Default => {
                self.start(State::Quiescing(After::Dead), Work::Quiesce);
                return self.join(Joined::Other(id, event));
            }
            State::ReadWrite => {
                self.start(State::Flushing, Work::Flush);
                return self.join(Joined::Other(id, event));
            }
            _ => return self.later(id, &event),
        }
        self.at_rest |= matches!(self.state, State::Frozen { writable: true });
        self.die(SHUT_DOWN);
        Some(Ok(Answer::Done))
    }

    fn unmount(&mut self, id: RequestId, event: &Event) -> Option<Result<Answer, LifecycleError>> {
        match self.state {
            State::ReadOnly | State::Frozen { .. } | State::Dead => {
                self.at_rest |= self.state != State::Dead;
                let holders = std::mem::take(&mut self.holders);
                holders.iter().for_each(|h| self.remember_lapsed(h.id));
                self.state = State::Gone;
                Some(self.unmounted())
            }
            State::ReadWrite => {
                self.start(State::Quiescing(After::Gone), Work::Quiesce);
                self.join(Joined::Other(id, event.clone()))
            }
            _ => self.later(id, event),
        }
    }
}

/// The reason of who asked for it.
const SHUT_DOWN: &str = "it was shut down";
