//! A live volume through its states: recovered, written, stopped, written again, stopped at once.

use std::sync::Arc;

use frazil_btree::write::{CommitError, CommitOptions, Transaction};
use frazil_device::{Device, MemDevice};
use frazil_ondisk::BtreeId;
use frazil_ondisk::superblock::features::{CompatFeatures, Features};
use frazil_ondisk::values::snapshot::Snapshot;
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_testing::golden::{self, State};
use frazil_volume::check::{Severity, check};
use frazil_volume::lifecycle::FreezeRequest;
use frazil_volume::open::read_superblock;
use frazil_volume::write::{Live, Unfinished};
use frazil_volume::{OpenOptions, Recovery, open};

use crate::made::{self, StoppedClock};
use crate::work::{Files, options, start, work};

fn memory(name: &str) -> (Vec<Arc<MemDevice>>, Vec<Arc<dyn Device>>) {
    let devices: Vec<_> = made::golden_devices(&golden::image(name)).into_iter().map(Arc::new).collect();
    let shared = devices.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect();
    (devices, shared)
}

#[test]
fn a_stopped_volume_goes_on_and_can_be_stopped_again() {
    for threads in [false, true] {
        let (memory, devices) = memory("02-small-tree");
        let live = start(&devices, 3, threads);
        let (mut files, mut rng) = (Files::of(&live, 4), fastrand::Rng::with_seed(3));
        for _ in 0..3 {
            work(&live, &mut files, &mut rng, 40);
            let holder = live.lifecycle().freeze(FreezeRequest::default()).unwrap();
            let frozen = memory.iter().map(|d| Arc::new(d.snapshot()) as Arc<dyn Device>).collect();
            let volume = open(frozen, OpenOptions::default()).unwrap();
            assert!(matches!(volume.recovery(), Recovery::Clean { .. }));
            assert!(check(&volume).is_clean());
            live.lifecycle().thaw(holder).unwrap();
            assert!(!live.superblock().is_clean());
        }
        work(&live, &mut files, &mut rng, 40);
        live.journal().flush().unwrap();
        live.lifecycle().fail("a test");
        let error = live.stop().unwrap_err().to_string();
        assert!(error.contains("a test"), "{error}");
        let volume = open(devices, OpenOptions::default()).unwrap();
        assert!(matches!(volume.recovery(), Recovery::Replayed { .. }));
        let report = check(&volume);
        assert!(report.is_clean(), "{:?}", report.counts().collect::<Vec<_>>());
    }
}

/// Two programs that write to the same device: the one that notices stops at once.
#[test]
fn a_volume_that_somebody_else_writes_to_is_stopped() {
    let (_memory, devices) = memory("02-small-tree");
    let live = start(&devices, 3, false);
    let other = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    other.update(|sb| sb.set_label("somebody else's")).unwrap();
    let refused = live.superblock().use_features(Features::LZ4).unwrap_err();
    let halted = live.journal().halted().expect("nothing more is written").to_string();
    assert!(halted.contains("changed by another program") && halted == refused.to_string(), "{halted}");
    assert!(live.stop().is_err());
    assert_eq!(read_superblock(&*devices[0]).unwrap().label(), "somebody else's");
}

#[test]
fn what_a_crash_left_half_done_is_told() {
    let nothing = Unfinished::default();
    for (name, expected) in [
        ("02-small-tree", nothing),
        ("08-crash-create", nothing),
        ("13-orphans", Unfinished { deleted_inodes: true, ..nothing }),
        ("08-crash-shift", Unfinished { logged_ops: true, ..nothing }),
    ] {
        let (_memory, devices) = memory(name);
        assert_eq!(start(&devices, 1, false).unfinished().unwrap(), expected, "{name}");
    }
    let (_memory, devices) = memory("10-snapshots");
    let live = start(&devices, 1, false);
    assert_eq!(live.unfinished().unwrap(), nothing);
    mark_last(&live, BtreeId::SUBVOLUMES, Subvolume::UNLINKED);
    assert_eq!(live.unfinished().unwrap(), Unfinished { unlinked_subvolumes: true, ..nothing });
    mark_last(&live, BtreeId::SNAPSHOTS, Snapshot::DELETED);
    let both = Unfinished { unlinked_subvolumes: true, dead_snapshots: true, ..nothing };
    assert_eq!(live.unfinished().unwrap(), both);
}

/// Sets a flag, which is in the first word of the value, in the last key of a b-tree.
fn mark_last(live: &Live, btree: BtreeId, flag: u32) {
    let mark = |t: &mut Transaction<'_>| {
        let mut cursor = t.cursor(btree, ..);
        let mut last = None;
        while let Some(key) = cursor.next()? {
            last = Some(key.to_owned());
        }
        drop(cursor);
        let mut last = last.expect("it has keys");
        let flags = u32::from_le_bytes(last.value[..4].try_into().unwrap()) | flag;
        last.value[..4].copy_from_slice(&flags.to_le_bytes());
        t.put(btree, last);
        Ok::<(), CommitError>(())
    };
    live.engine().run(CommitOptions::default(), mark).unwrap();
}

/// Recovery by the engine, and a clean shutdown: the checker finds what it found through the overlay, and the superblock has no work left.
#[test]
fn every_crashed_image_is_recovered() {
    let mut recovered = 0;
    for image in made::writable_golden().into_iter().filter(|i| i.state == State::Killed) {
        let devices = made::shared(&made::golden_devices(&image));
        let found = |clean: bool| {
            let volume = made::read_golden(&image, devices.clone()).unwrap();
            assert_eq!(matches!(volume.recovery(), Recovery::Clean { .. }), clean, "{}", image.name);
            let report = check(&volume);
            report.counts().filter(|(severity, _, _)| *severity != Severity::Pending).collect::<Vec<_>>()
        };
        let before = found(false);
        let live =
            Live::start(made::open_golden(&image, devices.clone()).unwrap(), &options(7, false)).unwrap();
        assert!(matches!(live.recovery(), Recovery::Replayed { .. }));
        assert!(live.superblock().view().superblock.compat.contains(CompatFeatures::ALLOC_INFO));
        if image.passphrase.is_some() {
            assert!(live.host().next_key_version() > 65536, "no key version comes again");
        }
        // What the layer above has to finish is still there, and with that it is not to be called clean.
        let left = live.unfinished().unwrap();
        live.stop().unwrap();
        assert_eq!(found(!left.deleted_inodes && !left.logged_ops), before, "{}", image.name);
        recovered += 1;
    }
    assert!(recovered >= 8, "only {recovered}");
}
