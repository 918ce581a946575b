//! What is shown of the life of a volume (spec 70 R13).

use std::fmt::Write;
use std::time::Duration;

use super::{Core, FrontKind, HolderId, Lifecycle, OnError};
use crate::sync::{AtomicU32, Ordering};

/// A holder of a freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderStatus {
    /// Its name.
    pub id: HolderId,
    /// Who it is.
    pub who: String,
    /// How long it has held.
    pub age: Duration,
    /// How long it still may.
    pub left: Option<Duration>,
}

/// How a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In words.
    pub state: &'static str,
    /// Whether nothing can be changed until it is mounted anew, or remounted.
    pub read_only: bool,
    /// How long it has been so, or at this stage.
    pub since: Duration,
    /// How far it is on its way to rest.
    pub stage: Option<&'static str>,
    /// Who keeps it frozen.
    pub holders: Vec<HolderStatus>,
    /// Operations under way, by kind.
    pub inside: Vec<(&'static str, u32)>,
    /// Threads that wait for a gate, by kind. Requests that wait without a thread are known to who keeps them.
    pub blocked: Vec<(&'static str, u32)>,
    /// What is to be written back, by kind.
    pub dirt: Vec<(&'static str, u64)>,
    /// Why it is read-only for good; else the first thing that was found to be wrong with it.
    pub reason: Option<String>,
    /// What is done when what is stored turns out to be wrong.
    pub on_error: OnError,
}

impl Lifecycle {
    /// How it is.
    pub fn status(&self) -> Status {
        self.keep_time();
        let now = self.clock.now();
        let dirt = self.back.upgrade().map(|back| back.progress()).unwrap_or_default();
        let core = self.core.lock();
        let (state, read_only) = core.machine.shown();
        let holder = |h: &super::machine::Holder| HolderStatus {
            id: h.id,
            who: h.request.who.clone(),
            age: now.saturating_sub(h.since),
            left: h.deadline().map(|at| at.saturating_sub(now)),
        };
        Status {
            state,
            read_only,
            since: now.saturating_sub(core.since),
            stage: core.machine.stage().map(super::Stage::name),
            holders: core.machine.holders().iter().map(holder).collect(),
            inside: counts(&self.inside),
            blocked: counts(&self.blocked),
            dirt,
            reason: core.machine.reason().map(str::to_owned),
            on_error: core.machine.on_error(),
        }
    }

    /// In one line, what a freeze that takes too long waits for.
    pub(super) fn waits_for(&self, core: &Core) -> String {
        let mut line = core.machine.stage().map_or(core.machine.shown().0, super::Stage::name).to_owned();
        for (kind, count) in counts(&self.inside) {
            // A string takes whatever is written to it.
            let _ = write!(line, ", {count} × {kind} under way");
        }
        line
    }
}

fn counts(all: &[AtomicU32]) -> Vec<(&'static str, u32)> {
    let count = |(kind, count): (&FrontKind, &AtomicU32)| (kind.name(), count.load(Ordering::Relaxed));
    FrontKind::ALL.iter().zip(all).map(count).filter(|(_, count)| *count > 0).collect()
}
