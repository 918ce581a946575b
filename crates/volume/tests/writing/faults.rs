//! Every I/O of opening, working and stopping fails once: nothing is lost that was durable, and nothing becomes clean that is not.

use std::sync::Arc;

use frazil_device::{Device, Fault, FaultyDevice, MemDevice};
use frazil_volume::check::{Severity, check};
use frazil_volume::write::Live;
use frazil_volume::{OpenOptions, Recovery, open};

use crate::made;
use crate::work::options;

/// A volume of two devices that was killed.
fn killed() -> Vec<MemDevice> {
    let devices: Vec<_> = made::formatted(2, |_| ()).into_iter().map(Arc::new).collect();
    let shared = devices.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect();
    let live = Live::start(made::open_rw(shared).unwrap(), &options(1, false)).unwrap();
    for _ in 0..3 {
        live.journal().meta().unwrap();
    }
    let left = devices.iter().map(|d| d.snapshot()).collect();
    live.lifecycle().fail("the end of the beginning");
    left
}

/// A life in which every device fails its I/O number `n`, once each. Whether that was ever reached.
fn life(images: &[MemDevice], n: u64) -> (bool, Vec<MemDevice>) {
    let inner: Vec<_> = images.iter().map(|i| Arc::new(i.snapshot())).collect();
    let faulty: Vec<_> = inner.iter().map(|d| Arc::new(FaultyDevice::new(d.clone()))).collect();
    faulty.iter().for_each(|d| d.inject(Fault::any().nth(n).once()));
    let devices = faulty.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect();
    if let Ok(foundation) = made::open_rw(devices)
        && let Ok(live) = Live::start(foundation, &options(n, false))
        && live.journal().meta().is_ok()
    {
        // It may fail, and then the volume is as after a power cut.
        let _stopped = live.stop();
        live.lifecycle().fail("over");
    }
    let struck = faulty.iter().any(|d| d.struck() > 0);
    (struck, inner.iter().map(|d| d.snapshot()).collect())
}

#[test]
fn any_io_may_fail() {
    for images in [made::formatted(2, |_| ()), killed()] {
        let mut n = 1;
        loop {
            let (struck, left) = life(&images, n);
            let volume = open(made::shared(&left), OpenOptions::default())
                .unwrap_or_else(|e| panic!("I/O {n} failed, and now: {e}"));
            let report = check(&volume);
            let wrong: Vec<_> =
                report.findings.iter().filter(|f| f.severity() != Severity::Pending).collect();
            assert!(wrong.is_empty(), "I/O {n} failed, and now: {wrong:?}");
            let live = Live::start(made::open_rw(made::shared(&left)).unwrap(), &options(n, false)).unwrap();
            live.stop().unwrap();
            if !struck {
                assert!(matches!(volume.recovery(), Recovery::Clean { .. }), "nothing failed any more");
                break;
            }
            n += 1;
        }
        assert!(n > 15, "only {n} I/Os");
    }
}
