//! A volume's life from a start to a crash, and what must be true after it.
//!
//! Every state that the model goes through is kept, with the time at which the operation that led to it began. A crash at some moment
//! may leave any state from the last one that was known to be durable to the last one begun, and nothing between two of them, except
//! that the content of a file may be caught half way through an operation that takes several transactions.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;

use frazil_device::MemDevice;
use frazil_ondisk::units::Seq;
use frazil_posix::write::{Deletion, WriteFs};
use frazil_posix::{Fs, NodeId};
use frazil_volume::check::{Severity, check};
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::{Recovery, Volume};
use std::sync::Arc;

use crate::machine::{Disks, ManualTime, Shape, start};
use crate::model::{Model, Tree, digest, lines};
use crate::observe;
use crate::ops::Run;
use crate::rest::{Bed, rest};

/// A state, and what it takes to recognise it.
struct State {
    /// When the operation that led to it began.
    begun: u64,
    model: Model,
    /// The file whose content that operation changed.
    loose: Option<NodeId>,
    doing: String,
    digest: OnceCell<u64>,
}

impl State {
    fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| digest(&lines(&self.model.tree(), None)))
    }
}

/// The states of a life, and what was known to be durable when.
pub(crate) struct History {
    states: Vec<State>,
    durable: Vec<(u64, usize)>,
    /// The state that last changed an object.
    last: HashMap<NodeId, usize>,
    /// When it came to rest, was there, or went on: moments of interest, in the time of the devices.
    moments: Vec<Range<u64>>,
}

impl History {
    pub(crate) fn new(model: Model) -> History {
        let first = State { begun: 0, model, loose: None, doing: "start".into(), digest: OnceCell::new() };
        History { states: vec![first], durable: vec![(0, 0)], last: HashMap::new(), moments: Vec::new() }
    }

    /// The volume came to rest meanwhile, or went on.
    pub(crate) fn at_moments(&mut self, moments: Range<u64>) {
        self.moments.push(moments);
    }

    /// A moment at which the power may fail.
    pub(crate) fn moment(&self, end: u64, rng: &mut fastrand::Rng) -> u64 {
        let some =
            (!self.moments.is_empty() && rng.bool()).then(|| &self.moments[rng.usize(0..self.moments.len())]);
        let within = some.map_or(0..=end, |moments| moments.start..=moments.end);
        rng.u64(within)
    }

    /// Everything done up to that time is durable.
    pub(crate) fn all_durable(&mut self, at: u64) {
        self.durable.push((at, self.states.len() - 1));
    }

    /// An operation that began at that time was done.
    pub(crate) fn push(&mut self, begun: u64, run: &Run<'_>) {
        let (model, loose, doing) = (run.model.clone(), run.loose, run.doing.clone());
        for id in &run.changed {
            self.last.insert(*id, self.states.len());
        }
        self.states.push(State { begun, model, loose, doing, digest: OnceCell::new() });
    }

    /// The states that a crash may leave.
    fn window(&self, at: u64) -> std::ops::RangeInclusive<usize> {
        let durable = self.durable.iter().filter(|(time, _)| *time <= at).map(|(_, state)| *state).max();
        let last = self.states.iter().rposition(|state| state.begun < at).unwrap_or(0);
        let durable = durable.unwrap_or(0);
        durable..=last.max(durable)
    }

    /// The state that a tree is.
    fn find(&self, tree: &Tree, at: u64, what: &str) -> Model {
        let (found, window) = (lines(tree, None), self.window(at));
        let number = digest(&found);
        if let Some(state) = window.clone().rev().map(|i| &self.states[i]).find(|s| s.digest() == number) {
            return state.model.clone();
        }
        for i in window.clone().rev() {
            let state = &self.states[i];
            let Some(loose) = state.loose else { continue };
            let known =
                |i: usize| lines(&self.states[i].model.tree(), Some(loose)) == lines(tree, Some(loose));
            // What was taken over after a failure is not known for every moment before it.
            if known(i) || i > 0 && known(i - 1) {
                let mut model = state.model.clone();
                if let Some((_, node)) = tree.values().find(|(id, _)| *id == loose) {
                    model.nodes.insert(loose, Arc::clone(node));
                }
                return model;
            }
        }
        let nearest = window.clone().rev().min_by_key(|i| difference(&self.states[*i].model, &found).len());
        let nearest = nearest.expect("the window is not empty");
        panic!(
            "{what}: what is there was never there; may be {window:?}, nearest is {nearest} ({}), which differs by:\n{}",
            self.states[nearest].doing,
            difference(&self.states[nearest].model, &found).join("\n")
        );
    }
}

fn difference(model: &Model, found: &[String]) -> Vec<String> {
    let wanted = lines(&model.tree(), None);
    let missing = wanted.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
    let extra = found.iter().filter(|line| !wanted.contains(line)).map(|line| format!("+ {line}"));
    missing.chain(extra).collect()
}

/// Nothing may be wrong; if the volume was stopped properly, nothing may be pending either.
fn assert_right(volume: &Volume, clean: bool, what: &str) {
    let recovery = volume.recovery();
    assert!(!clean || matches!(recovery, Recovery::Clean { .. }), "{what}: {recovery:?}");
    let report = check(volume);
    let wrong = report.findings.iter().filter(|f| clean || f.severity() != Severity::Pending);
    let wrong: Vec<_> = wrong.map(ToString::to_string).collect();
    assert!(wrong.is_empty() && report.notices.is_empty(), "{what}: {wrong:#?} {:?}", report.notices);
}

/// Finishes what was left to be done.
pub(crate) fn finish(fs: &WriteFs) -> frazil_posix::Result<()> {
    let front = fs.front(FrontKind::Background)?;
    front.finish_interrupted()?;
    front.remove_dead_inodes()?;
    let mut deletion = Deletion::default();
    for _ in 0..100_000 {
        if !front.delete_unlinked_step(&mut deletion)? {
            return Ok(());
        }
    }
    panic!("deleting subvolumes does not end");
}

/// Looks at images, recovers from them, and looks again. Returns the state they were in.
pub(crate) fn recover(shape: &Shape, history: &History, images: &[MemDevice], at: u64, what: &str) -> Model {
    let volume = shape.read(images).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_right(&volume, false, what);
    let fs = Fs::new(Arc::new(volume));
    let tree = observe::tree(&fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    drop(fs);
    let model = history.find(&tree, at, what);

    let what = format!("{what}, recovered");
    let copies: Vec<MemDevice> = images.iter().map(MemDevice::snapshot).collect();
    let disks = Disks::new(&copies);
    let fs = start(shape, disks.devices(), &ManualTime::new(), at).unwrap_or_else(|e| panic!("{what}: {e}"));
    finish(&fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    let again = observe::tree(&fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = lines(&tree, None);
    assert_eq!(found, lines(&again, None), "{what}");
    fs.live().stop().unwrap_or_else(|e| panic!("{what}: {e}"));
    drop(fs);
    let images = disks.crash(disks.time.now(), 1, &mut fastrand::Rng::with_seed(0));
    assert_stopped(shape, &images, &found, &what);
    model
}

/// The volume was stopped cleanly, and holds that.
pub(crate) fn assert_stopped(shape: &Shape, images: &[MemDevice], wanted: &[String], what: &str) {
    let volume = shape.read(images).unwrap_or_else(|e| panic!("{what}, stopped: {e}"));
    assert_right(&volume, true, what);
    let tree = observe::tree(&Fs::new(Arc::new(volume))).unwrap_or_else(|e| panic!("{what}, stopped: {e}"));
    assert_eq!(lines(&tree, None), wanted, "{what}, stopped");
}

/// What runs beside the operations: the journal, room, write-back, deletions; all by lot.
fn beside(run: &mut Run<'_>, deletion: &mut Deletion) -> Result<(), String> {
    let live = run.fs.live();
    let text = |e: &dyn std::fmt::Display| e.to_string();
    match run.rng.u8(0..40) {
        0..6 => drop(live.journal().step()),
        6..9 => drop(live.room().step().map_err(|e| text(&e))?),
        16..19 => drop(live.room().empty_a_bucket().map_err(|e| text(&e))?),
        9 => live.engine().flush_buffer().map_err(|e| text(&e))?,
        10 => drop(live.journal().flush_pins(Seq(u64::MAX)).map_err(|e| text(&e))?),
        11 => run.time.pass(1_100_000_000),
        12..15 => {
            run.remove_released();
            run.front().and_then(|front| front.delete_unlinked_step(deletion)).map_err(|e| text(&e))?;
        }
        15 => {
            let tree = observe::tree(run.fs).map_err(|e| text(&e))?;
            let model = lines(&run.model.tree(), None);
            assert_eq!(lines(&tree, None), model, "after {}", run.doing);
        }
        _ => {}
    }
    Ok(())
}

/// A part of a life. It ends early if the volume is shut down, if the journal stops, or if an operation fails in the middle because a device did and nobody can see what it has done.
pub(crate) fn live(run: &mut Run<'_>, bed: &Bed<'_>, steps: u32, history: &mut History) {
    let disks = bed.disks;
    let mut deletion = Deletion::default();
    for _ in 0..steps {
        let begun = disks.time.now();
        run.step();
        history.push(begun, run);
        if std::env::var_os("FRAZIL_TRACE").is_some() {
            println!("{begun} {}: {}", history.states.len() - 1, run.doing);
        }
        if run.blind {
            return;
        }
        let done = history.states.len() - 1;
        let beside = beside(run, &mut deletion);
        assert!(beside.is_ok() || run.faults, "{beside:?} after {}", run.doing);
        match run.rng.u8(0..40) {
            3 => {
                rest(run, bed, history);
                if run.over {
                    return;
                }
            }
            0 => sync(run, history, disks, done),
            1 | 2 => {
                let known: Vec<_> = history.last.iter().map(|(id, state)| (*id, *state)).collect();
                let known = known.into_iter().filter(|(id, _)| run.model.nodes.contains_key(id));
                let mut known: Vec<_> = known.collect();
                known.sort_unstable();
                if !known.is_empty() {
                    let (id, state) = known[run.rng.usize(0..known.len())];
                    match run.fs.fsync(id) {
                        Ok(()) => history.durable.push((disks.time.now(), state)),
                        Err(_) if run.faults => {}
                        Err(error) => panic!("fsync: {error}"),
                    }
                }
            }
            _ => {}
        }
        if run.fs.live().journal().halted().is_some() {
            assert!(run.faults, "the journal stopped: {:?}", run.fs.live().journal().halted());
            return;
        }
    }
}

/// Everything is made durable.
fn sync(run: &Run<'_>, history: &mut History, disks: &Disks, done: usize) {
    match run.fs.sync() {
        Ok(()) => history.durable.push((disks.time.now(), done)),
        Err(_) if run.faults => {}
        Err(error) => panic!("sync: {error}"),
    }
}
