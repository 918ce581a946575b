//! The volume comes to rest and goes on, between the operations of a life (spec 70 §5.5, §7).
//!
//! It is frozen, by one holder or by two, and thawed in every way there is: by the holders, by force, by a time that is up, by the end of whoever held it;
//! it is made read-only and writable again; it is shut down in the three modes, also while frozen. At rest
//!
//! * nothing is written, whatever readers, who wants durability, who lets go of files, and the journal do;
//! * nobody gets at a change;
//! * what is on the devices is what a copy would hold, so it is looked at: clean, the check silent, everything there. If there are files without a name it
//!   is not called clean, but nothing has to be replayed (spec 70 R5).
//!
//! When the power fails on the way there, on the way back, and in between is drawn by lot more often than for other moments ([`History::moments`]).

use std::time::Duration;

use frazil_device::{MemDevice, Op};
use frazil_ondisk::BtreeId;
use frazil_ondisk::units::Seq;
use frazil_posix::{Error, Fs, NodeId};
use frazil_volume::check::{Severity, check};
use frazil_volume::lifecycle::{
    FreezeRequest, FrontKind, HolderId, Lifecycle, LifecycleError, NotNow, ShutdownMode,
};
use frazil_volume::{Recovery, Volume};
use std::sync::Arc;

use crate::life::History;
use crate::machine::{Disks, Shape};
use crate::model::lines;
use crate::observe;
use crate::ops::Run;

/// How long a holder holds at most, if it has a limit.
const HOLD: Duration = Duration::from_secs(30);

/// What comes to rest, and is looked at there.
pub(crate) struct Bed<'b> {
    pub(crate) shape: &'b Shape,
    pub(crate) disks: &'b Disks,
}

impl Bed<'_> {
    /// Everything that was ever asked of the devices but reading and flushing.
    fn changes(&self) -> u64 {
        let of = |op: Op| self.disks.faulty.iter().map(move |disk| disk.count(op)).sum::<u64>();
        of(Op::Write) + of(Op::Discard) + of(Op::Zero)
    }

    /// The devices as they would be after a power cut now.
    fn images(&self, run: &mut Run<'_>) -> Vec<MemDevice> {
        let style = run.rng.u32(0..5);
        self.disks.crash(self.disks.time.now(), style, run.rng)
    }

    /// What is on the devices of a volume at rest.
    pub(crate) fn assert_at_rest(&self, run: &mut Run<'_>) {
        let what = format!("{}, at rest", run.doing);
        let images = self.images(run);
        let volume = self.shape.read(&images).unwrap_or_else(|e| panic!("{what}: {e}"));
        let orphans = has_any(&volume, BtreeId::DELETED_INODES);
        let clean = match volume.recovery() {
            Recovery::Clean { .. } => true,
            Recovery::Replayed { first, last, .. } => {
                assert!(first >= last, "{what}: entries {first:?} to {last:?} are to be replayed");
                false
            }
            Recovery::NeverStarted => panic!("{what}: never started"),
        };
        assert_eq!(clean, !orphans && !has_any(&volume, BtreeId::LOGGED_OPS), "{what}");
        let nameless = run.model.nodes.values().any(|node| node.attr.nlink == 0);
        assert!(orphans || !nameless, "{what}: a file without a name is not listed");
        let report = check(&volume);
        let wrong = report.findings.iter().filter(|f| f.severity() != Severity::Pending);
        let wrong: Vec<_> = wrong.map(ToString::to_string).collect();
        assert!(wrong.is_empty() && report.notices.is_empty(), "{what}: {wrong:#?} {:?}", report.notices);
        let tree = observe::tree(&Fs::new(Arc::new(volume))).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(lines(&tree, None), lines(&run.model.tree(), None), "{what}");
    }
}

fn has_any(volume: &Volume, btree: BtreeId) -> bool {
    volume.btrees().cursor(btree, ..).next().unwrap().is_some()
}

fn lifecycle<'r>(run: &Run<'r>) -> &'r Arc<Lifecycle> {
    run.fs.live().lifecycle()
}

/// Comes to rest in some way. The life is over afterwards if [`Run::over`] says so.
pub(crate) fn rest(run: &mut Run<'_>, bed: &Bed<'_>, history: &mut History) {
    run.time.pass(run.rng.u64(1..3_000_000));
    run.remove_released();
    match run.rng.u8(0..12) {
        0..2 if run.may_end => shut_down(run, bed, history),
        2..4 => read_only(run, bed, history),
        _ => frozen(run, bed, history),
    }
}

/// Brings it to rest by `way`. False if that failed, which only failing devices may bring about.
fn comes_to_rest(
    run: &mut Run<'_>,
    bed: &Bed<'_>,
    history: &mut History,
    way: impl FnOnce(&Lifecycle) -> Result<(), LifecycleError>,
) -> bool {
    let begun = bed.disks.time.now();
    let result = way(lifecycle(run));
    history.at_moments(begun..bed.disks.time.now());
    match result {
        Ok(()) => history.all_durable(bed.disks.time.now()),
        Err(ref error) => {
            assert!(run.faults, "{}: {error}", run.doing);
            // Either everything goes on, or it is dead and says so.
            let (dead, halted) = (lifecycle(run).is_read_only(), run.fs.live().journal().halted().is_some());
            assert_eq!(dead, halted, "{}: {error}", run.doing);
            assert!(!lifecycle(run).is_blocked(), "{}: {error}", run.doing);
            run.over = dead;
        }
    }
    result.is_ok()
}

fn request(run: &mut Run<'_>, share: bool) -> FreezeRequest {
    let hold_for = run.rng.bool().then_some(HOLD);
    FreezeRequest { who: "the simulator".into(), share, hold_for, give_up_after: None }
}

fn frozen(run: &mut Run<'_>, bed: &Bed<'_>, history: &mut History) {
    run.doing = "freeze".into();
    let wish = request(run, true);
    let mut limits = vec![wish.hold_for.is_some()];
    let mut holders: Vec<HolderId> = Vec::new();
    if !comes_to_rest(run, bed, history, |l| l.freeze(wish).map(|id| holders.push(id))) {
        return;
    }
    if run.rng.bool() {
        let wish = request(run, true);
        limits.push(wish.hold_for.is_some());
        holders.push(lifecycle(run).freeze(wish).unwrap());
    }
    let wish = request(run, false);
    assert!(matches!(lifecycle(run).freeze(wish), Err(LifecycleError::Busy(_))));
    assert!(matches!(lifecycle(run).remount(false), Err(LifecycleError::Busy(_))));
    assert_eq!(run.fs.try_front(FrontKind::Names).err(), Some(NotNow::Blocked));
    let released = at_rest(run, bed, true);
    if run.may_end && run.rng.u8(0..8) == 0 {
        ends_frozen(run, bed, &holders);
        return;
    }
    thaw(run, bed, history, &holders, &limits);
    if !run.over {
        front_again(run, &released);
    }
}

/// Things happen to a volume at rest. Returns which files without a name were let go of.
fn at_rest(run: &mut Run<'_>, bed: &Bed<'_>, is_blocked: bool) -> Vec<NodeId> {
    let mut released = Vec::new();
    if !run.faults {
        bed.assert_at_rest(run);
    }
    let before = bed.changes();
    for _ in 0..run.rng.usize(1..8) {
        let live = run.fs.live();
        let event = run.rng.u8(0..8);
        match event {
            0 => {
                live.journal().step();
            }
            1 => drop(live.engine().flush_buffer()),
            2 => drop(live.journal().flush_pins(Seq(u64::MAX))),
            3 => assert!(run.fs.sync().is_ok() || run.faults, "sync at rest"),
            4 => {
                if let Some(file) = run.file() {
                    assert!(run.fs.fsync(file).is_ok() || run.faults, "fsync at rest");
                }
            }
            5 => released.extend(let_go(run)),
            6 => run.time.pass(1_100_000_000),
            _ => {
                let tree = observe::tree(run.fs);
                assert!(tree.is_ok() || run.faults);
                if let Ok(tree) = tree {
                    assert_eq!(lines(&tree, None), lines(&run.model.tree(), None), "{}", run.doing);
                }
            }
        }
        assert_eq!(lifecycle(run).is_blocked(), is_blocked, "{}", run.doing);
        assert_eq!(bed.changes(), before, "{}: event {event} wrote something at rest", run.doing);
    }
    released
}

/// Somebody lets go of an object. If it has no name it is to be removed when that is possible again.
fn let_go(run: &mut Run<'_>) -> Option<NodeId> {
    let held: Vec<_> = run.held.iter().map(|(id, held)| (*id, held.0)).collect();
    if held.is_empty() {
        return None;
    }
    let (id, count) = held[run.rng.usize(0..held.len())];
    run.fs.release(id, count);
    run.held.remove(&id);
    let nameless = run.model.nodes.get(&id).is_some_and(|node| node.attr.nlink == 0);
    run.forget_if_nameless(id);
    nameless.then_some(id)
}

/// It can be changed again, and what was put off is made up for.
fn front_again(run: &Run<'_>, released: &[NodeId]) {
    assert!(!lifecycle(run).is_blocked() && !lifecycle(run).is_read_only(), "{}", run.doing);
    let front = run.fs.front(FrontKind::Background).unwrap();
    assert_eq!(front.remove_released(&|| true), !released.is_empty(), "{}", run.doing);
    for id in released.iter().filter(|_| !run.faults) {
        let left = run.fs.getattr(*id);
        assert!(matches!(left, Err(Error::Stale(_))), "{}: {id} is left: {left:?}", run.doing);
    }
}

/// Thaws it, in some way.
fn thaw(run: &mut Run<'_>, bed: &Bed<'_>, history: &mut History, holders: &[HolderId], limits: &[bool]) {
    let begun = bed.disks.time.now();
    let lifecycle = lifecycle(run);
    let all = |by: &dyn Fn(HolderId) -> Result<(), LifecycleError>| {
        let (last, others) = holders.split_last().unwrap();
        for holder in others {
            by(*holder).unwrap();
            assert!(lifecycle.is_blocked(), "it is still held");
        }
        by(*last)
    };
    let (way, lapsed) = (run.rng.u8(0..4), Err(LifecycleError::Lapsed));
    run.doing = format!("thaw, way {way}");
    let thawed = match way {
        0 => all(&|holder| lifecycle.thaw(holder)),
        1 => lifecycle.thaw_all(),
        2 => all(&|holder| {
            lifecycle.lapse(holder);
            Ok(())
        }),
        _ => {
            run.time.pass(HOLD.as_nanos() as u64);
            lifecycle.tick();
            assert_eq!(lifecycle.is_blocked(), limits.contains(&false), "{limits:?}");
            let mut last = Ok(());
            for (holder, limited) in holders.iter().zip(limits) {
                last = lifecycle.thaw(*holder);
                assert!(!limited || last == lapsed || run.faults, "{last:?}");
                last = if *limited { Ok(()) } else { last };
            }
            last
        }
    };
    history.at_moments(begun..bed.disks.time.now());
    if let Err(error) = &thawed {
        assert!(run.faults, "{}: {error}", run.doing);
        // Who held it may try again.
        let again = lifecycle.thaw_all();
        assert!(again.is_ok() || lifecycle.is_read_only() || lifecycle.is_blocked(), "{again:?}");
    }
    run.over = lifecycle.is_read_only() || lifecycle.is_blocked();
    assert!(!run.over || run.faults, "{}", run.doing);
    if way == 1 && thawed.is_ok() {
        holders.iter().for_each(|holder| assert_eq!(lifecycle.thaw(*holder), lapsed));
    } else if !run.over {
        assert_eq!(lifecycle.thaw_all(), Err(LifecycleError::NotFrozen));
    }
}

/// It is shut down, or unmounted, while it is frozen: nothing is written for that.
fn ends_frozen(run: &mut Run<'_>, bed: &Bed<'_>, holders: &[HolderId]) {
    let before = bed.changes();
    let mode = [ShutdownMode::Default, ShutdownMode::LogFlush, ShutdownMode::NoLogFlush][run.rng.usize(0..3)];
    if run.rng.bool() {
        run.doing = format!("shut down frozen, {mode:?}");
        lifecycle(run).shutdown(mode).unwrap();
        for holder in holders {
            lifecycle(run).thaw(*holder).unwrap();
        }
    }
    run.doing += ", unmount";
    run.fs.live().stop().unwrap();
    assert!(lifecycle(run).is_read_only() && !lifecycle(run).is_blocked());
    assert_eq!(bed.changes(), before, "{}", run.doing);
    if !run.faults {
        bed.assert_at_rest(run);
    }
    run.over = true;
}

fn read_only(run: &mut Run<'_>, bed: &Bed<'_>, history: &mut History) {
    run.doing = "remount read-only".into();
    if !comes_to_rest(run, bed, history, |l| l.remount(false)) {
        return;
    }
    assert_eq!(run.fs.try_front(FrontKind::Names).err(), Some(NotNow::ReadOnly));
    assert!(matches!(run.fs.front(FrontKind::Names).err(), Some(Error::ReadOnly)));
    let mut released = at_rest(run, bed, false);
    if run.rng.bool() {
        let wish = request(run, false);
        let holder = lifecycle(run).freeze(wish).unwrap();
        released.extend(at_rest(run, bed, false));
        assert!(matches!(lifecycle(run).remount(true), Err(LifecycleError::Busy(_))));
        match lifecycle(run).thaw(holder) {
            Ok(()) | Err(LifecycleError::Lapsed) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let begun = bed.disks.time.now();
    run.doing = "remount writable".into();
    let opened = lifecycle(run).remount(true);
    history.at_moments(begun..bed.disks.time.now());
    match opened {
        Ok(()) => front_again(run, &released),
        Err(error) => {
            assert!(run.faults, "{}: {error}", run.doing);
            run.over = true;
        }
    }
}

fn shut_down(run: &mut Run<'_>, bed: &Bed<'_>, history: &mut History) {
    let mode = [ShutdownMode::Default, ShutdownMode::LogFlush, ShutdownMode::NoLogFlush][run.rng.usize(0..3)];
    run.doing = format!("shut down, {mode:?}");
    let begun = bed.disks.time.now();
    let done = lifecycle(run).shutdown(mode);
    history.at_moments(begun..bed.disks.time.now());
    assert!(done.is_ok() || run.faults, "{}: {done:?}", run.doing);
    if done.is_ok() && mode != ShutdownMode::NoLogFlush {
        history.all_durable(bed.disks.time.now());
    }
    run.over = true;
    let before = bed.changes();
    assert!(lifecycle(run).is_read_only());
    assert_eq!(run.fs.try_front(FrontKind::Names).err(), Some(NotNow::ReadOnly));
    // Once more is nothing new, except where it died of something else.
    let again = lifecycle(run).shutdown(ShutdownMode::Default);
    assert!(again.is_ok() || run.faults, "{}: {again:?}", run.doing);
    for _ in 0..4 {
        let live = run.fs.live();
        live.journal().step();
        drop(live.room().step());
        drop(live.journal().flush_pins(Seq(u64::MAX)));
        drop(live.engine().flush_buffer());
        drop(run.fs.sync());
        let_go(run);
    }
    let stopped = run.fs.live().stop();
    assert_eq!(stopped.is_ok(), done.is_ok() && mode == ShutdownMode::Default, "{}: {stopped:?}", run.doing);
    assert_eq!(bed.changes(), before, "{}: something was written", run.doing);
    if stopped.is_ok() && !run.faults {
        bed.assert_at_rest(run);
    }
}
