//! Every write and every flush of a freeze, and of a thaw, fails once; or from then on all do.
//!
//! The same life is led again and again until the volume is to be frozen, and each time another operation of a device fails. Then
//!
//! * either it is frozen, and what is on the devices is what was there; or it is not, and everything goes on; or it is dead, and says so;
//! * whoever asked has an answer, also if nothing of the device works any more;
//! * it never says "clean" while anything is missing;
//! * a thaw that cannot say "not clean" leaves it frozen for those who held it, who can thaw it when the device works again (spec 70 R6);
//! * what was made durable is there at the next start.

use frazil_device::{Fault, Op};
use frazil_posix::Fs;
use frazil_volume::Recovery;
use frazil_volume::lifecycle::{FreezeRequest, FrontKind, HolderId, LifecycleError};
use std::sync::Arc;

use crate::life::{History, finish, live, recover};
use crate::machine::{Disks, ManualTime, Shape, start};
use crate::model::lines;
use crate::ops::Run;
use crate::rest::Bed;
use crate::{Watchdog, new_volume, observe, run};

/// Which of the two is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Freeze,
    Thaw,
}

/// What fails, and where.
#[derive(Clone, Copy, Debug)]
struct Case {
    way: Way,
    op: Op,
    disk: usize,
    for_ever: bool,
}

/// What came of it.
#[derive(Default, Debug)]
struct Tally {
    done: u32,
    refused: u32,
    dead: u32,
}

const WHOEVER: FreezeRequest =
    FreezeRequest { who: String::new(), share: false, hold_for: None, give_up_after: None };

/// A shape with so many devices; if there are two, everything is on both.
fn shape_of(disks: usize) -> (u64, Shape) {
    let fits = |shape: &Shape| match disks {
        1 => shape.disks() == 1,
        _ => shape.disks() == 2 && shape.has("metadata_replicas", "2") && shape.has("data_replicas", "2"),
    };
    let drawn = (1..).map(|seed| (seed, Shape::draw(&mut fastrand::Rng::with_seed(seed))));
    drawn.into_iter().find(|(_, shape)| fits(shape)).expect("they are drawn by lot")
}

/// One life. False if the fault did not strike: there is no n-th.
fn life(seed: u64, case: Case, n: u64, tally: &mut Tally) -> bool {
    let what = format!("seed {seed}, {case:?}, number {n}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (shape, images, model) = new_volume(&mut rng, seed);
    let (time, disks) = (ManualTime::new(), Disks::new(&images));
    let fs = start(&shape, disks.devices(), &time, seed).unwrap();
    let mut run = run(&fs, &time, &mut rng, model.clone());
    let (mut history, bed) = (History::new(model), Bed { shape: &shape, disks: &disks });
    live(&mut run, &bed, 25, &mut history);
    let lifecycle = fs.live().lifecycle();

    let faulty = &disks.faulty[case.disk];
    let fault = if case.op == Op::Flush { Fault::flushes() } else { Fault::writes() };
    let fault = if case.for_ever { fault.nth(n) } else { fault.nth(n).once() };
    let mut frozen = None;
    if case.way == Way::Freeze {
        faulty.inject(fault);
        frozen = lifecycle.freeze(WHOEVER).ok();
    } else {
        frozen = frozen.or(Some(lifecycle.freeze(WHOEVER).unwrap()));
        faulty.inject(fault);
    }
    if frozen.is_some() {
        history.all_durable(disks.time.now());
    }
    run.faults = true;
    if case.way == Way::Freeze && faulty.struck() > 0 {
        never_clean_but_complete(&shape, &disks, &run, &what);
    }
    match frozen {
        Some(holder) => thaws(&run, &disks, case, holder, &what, tally),
        None if lifecycle.is_read_only() => tally.dead += 1,
        None => {
            tally.refused += 1;
            assert!(!lifecycle.is_blocked(), "{what}");
        }
    }
    faulty.heal();
    goes_on(&mut run, &bed, &mut history, &what);
    let struck = faulty.struck() > 0;
    let end = disks.time.now();
    recover(&shape, &history, &disks.crash(end, 0, &mut fastrand::Rng::with_seed(n)), end, &what);
    struck
}

/// What is on the devices is either not called clean, or it is everything.
fn never_clean_but_complete(shape: &Shape, disks: &Disks, run: &Run<'_>, what: &str) {
    let images = disks.crash(disks.time.now(), 0, &mut fastrand::Rng::with_seed(1));
    let volume = shape.read(&images).unwrap_or_else(|e| panic!("{what}: {e}"));
    if matches!(volume.recovery(), Recovery::Clean { .. }) {
        let tree = observe::tree(&Fs::new(Arc::new(volume))).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(lines(&tree, None), lines(&run.model.tree(), None), "{what}: clean, and not complete");
    }
}

/// It is frozen, and is to be thawed: maybe that fails, and is tried again when the device works.
fn thaws(run: &Run<'_>, disks: &Disks, case: Case, holder: HolderId, what: &str, tally: &mut Tally) {
    let lifecycle = run.fs.live().lifecycle();
    nothing_is_written(run, disks, what);
    match lifecycle.thaw(holder) {
        Ok(()) if lifecycle.is_read_only() => tally.dead += 1,
        Ok(()) => tally.done += 1,
        Err(LifecycleError::Failed(_)) => {
            tally.refused += 1;
            assert!(lifecycle.is_blocked(), "{what}: it did not stay frozen");
            assert_eq!(lifecycle.status().holders.len(), 1, "{what}: nobody holds it");
            disks.faulty[case.disk].heal();
            let again = lifecycle.thaw(holder);
            assert_eq!(again, Ok(()), "{what}: the device works again");
            assert!(!lifecycle.is_read_only(), "{what}: the device works again");
        }
        Err(error) => panic!("{what}: {error}"),
    }
    assert!(!lifecycle.is_blocked(), "{what}");
}

fn nothing_is_written(run: &Run<'_>, disks: &Disks, what: &str) {
    let writes = |disks: &Disks| disks.faulty.iter().map(|d| d.count(Op::Write)).sum::<u64>();
    let before = writes(disks);
    let tree = observe::tree(run.fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(lines(&tree, None), lines(&run.model.tree(), None), "{what}");
    assert_eq!(writes(disks), before, "{what}: something was written at rest");
}

/// The device works again. Either the volume does, too, and can be frozen; or it is dead, and tells everybody.
fn goes_on(run: &mut Run<'_>, bed: &Bed<'_>, history: &mut History, what: &str) {
    let (live_volume, lifecycle) = (run.fs.live(), run.fs.live().lifecycle());
    if live_volume.journal().halted().is_some() {
        assert!(lifecycle.is_read_only(), "{what}: it is dead, and does not say so");
        assert!(run.fs.front(FrontKind::Names).is_err(), "{what}");
        // Only who has lost something is told; if nobody has, all of it is there at the next start.
        if run.fs.sync().is_ok() {
            history.all_durable(bed.disks.time.now());
        }
        assert!(matches!(lifecycle.freeze(WHOEVER), Err(LifecycleError::Dead(_))), "{what}");
        return;
    }
    assert!(!lifecycle.is_read_only() && !lifecycle.is_blocked(), "{what}: {:?}", lifecycle.status());
    run.faults = false;
    run.may_end = false;
    live(run, bed, 12, history);
    run.fs.sync().unwrap_or_else(|e| panic!("{what}: {e}"));
    history.all_durable(bed.disks.time.now());
    let holder = lifecycle.freeze(WHOEVER).unwrap_or_else(|e| panic!("{what}: {e}"));
    bed.assert_at_rest(run);
    lifecycle.thaw(holder).unwrap_or_else(|e| panic!("{what}: {e}"));
    finish(run.fs).unwrap_or_else(|e| panic!("{what}: {e}"));
}

#[test]
fn any_write_and_flush_of_a_freeze_and_a_thaw_may_fail() {
    // Every so many of the operations; all of them where that is asked for.
    let every = std::env::var("FRAZIL_SWEEP").map_or(40, |text| text.parse().unwrap());
    for disks in [1, 2] {
        let (seed, _) = shape_of(disks);
        let _watchdog = Watchdog::new(seed);
        for way in [Way::Freeze, Way::Thaw] {
            for op in [Op::Write, Op::Flush] {
                for for_ever in [false, true] {
                    let case = Case { way, op, disk: disks - 1, for_ever };
                    let (mut tally, mut n) = (Tally::default(), 1);
                    while life(seed, case, n, &mut tally) {
                        n += if n < 3 { 1 } else { every };
                    }
                    println!("{disks} disks, {case:?}: {tally:?}, fewer than {n}");
                    assert!(n > 1 || op == Op::Flush && way == Way::Thaw, "{case:?}: nothing failed");
                }
            }
        }
    }
}
