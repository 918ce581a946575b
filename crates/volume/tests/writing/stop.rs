//! Stopping, cleanly and not, and going on.

use std::cell::Cell;
use std::sync::Arc;

use frazil_btree::write::CommitError;
use frazil_device::stamped::{Stamped, Time};
use frazil_device::{Device, MemDevice};
use frazil_ondisk::superblock::sections::Clean;
use frazil_ondisk::units::Seq;
use frazil_testing::golden::State;
use frazil_volume::check::check;
use frazil_volume::open::read_superblock;
use frazil_volume::write::{Foundation, StopError, WriteBack, go_on, seal, stop_now, write_back};
use frazil_volume::{OpenOptions, Recovery, open};

use crate::made;

/// Nothing is kept apart.
struct Nothing;

impl WriteBack for Nothing {
    fn settle(&self) -> Result<bool, CommitError> {
        Ok(false)
    }
}

/// Comes to rest, and is marked clean.
fn stop_clean(volume: &Foundation, work: &dyn WriteBack) -> Result<(), StopError> {
    write_back(&volume.journal, work, &|| true)?;
    seal(&volume.journal, &volume.host, true)
}

#[test]
fn an_untouched_volume_stays_clean_and_whole() {
    let mut tried = 0;
    for image in made::writable_golden() {
        if !matches!(image.state, State::Clean | State::Frozen) || image.name.contains("formatted-only") {
            continue;
        }
        let devices = made::shared(&made::golden_devices(&image));
        let before = made::read_golden(&image, devices.clone()).unwrap();
        let found_before = check(&before);
        let volume =
            made::open_golden(&image, devices.clone()).unwrap_or_else(|e| panic!("{}: {e}", image.name));
        assert!(!read_superblock(&*devices[0]).unwrap().flags.clean(), "{}: marked first", image.name);
        stop_clean(&volume, &Nothing).unwrap();
        let after = made::read_golden(&image, devices.clone()).unwrap();
        let (Recovery::Clean { journal_seq: old }, Recovery::Clean { journal_seq: new }) =
            (before.recovery(), after.recovery())
        else {
            panic!("{}: {:?}", image.name, after.recovery());
        };
        assert_eq!(new.0, old.0 + 1, "{}: one empty entry", image.name);
        assert_eq!(before.btrees().roots(), after.btrees().roots(), "{}: roots", image.name);
        let found = check(&after);
        assert!(
            found.counts().eq(found_before.counts()),
            "{}: {:?}",
            image.name,
            found.counts().collect::<Vec<_>>()
        );
        tried += 1;
    }
    assert!(tried > 10, "only {tried} images");
}

/// The clean section and the last entry say the same, as the reference does it (spec 60 §4.1).
#[test]
fn the_clean_section_is_that_of_the_reference() {
    let image = frazil_testing::golden::image("02-small-tree");
    let devices = made::shared(&made::golden_devices(&image));
    let clean =
        |device: &dyn Device| read_superblock(device).unwrap().sections.get::<Clean>().unwrap().unwrap();
    let before = clean(&*devices[0]);
    let volume = made::open_golden(&image, devices.clone()).unwrap();
    stop_clean(&volume, &Nothing).unwrap();
    let after = clean(&*devices[0]);
    assert_eq!(after.entries, before.entries, "nothing was read or written, so every byte is the same");
    let again = made::open_golden(&image, devices).unwrap();
    assert_eq!(again.recovery, Recovery::Clean { journal_seq: after.journal_seq });
}

#[test]
fn a_crash_anywhere_in_a_session_is_clean_or_replays_nothing() {
    let (time, images) = (Arc::new(Time::default()), made::formatted(2, |_| ()));
    let recorded: Vec<_> = images.iter().map(|i| Arc::new(Stamped::new(i.snapshot(), &time))).collect();
    let devices = recorded.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    let volume = made::open_rw(devices).unwrap();
    let opened = time.now();
    volume.journal.meta().unwrap();
    let first_entry = time.now();
    stop_clean(&volume, &Nothing).unwrap();
    let stopped = time.now();
    go_on(&volume.journal, &volume.host).unwrap();
    volume.journal.meta().unwrap();
    stop_now(&volume.journal, "enough");
    for at in 0..=time.now() {
        let crashed: Vec<MemDevice> = recorded.iter().map(|d| d.crash_at(at).all_lost()).collect();
        let volume = open(made::shared(&crashed), OpenOptions::default()).unwrap();
        match volume.recovery() {
            Recovery::Clean { journal_seq } => assert!(*journal_seq == Seq(1) || at > first_entry),
            Recovery::Replayed { last, .. } => assert!(at <= opened || last.0 >= 1),
            other => panic!("{other:?}"),
        }
        assert!(check(&volume).is_clean(), "at {at}");
        if at == stopped {
            let volume = open(made::shared(&crashed), OpenOptions::default()).unwrap();
            assert_eq!(*volume.recovery(), Recovery::Clean { journal_seq: Seq(3) });
        }
    }
}

#[test]
fn nothing_becomes_clean_by_an_emergency() {
    let devices = made::shared(&made::formatted(1, |_| ()));
    let volume = made::open_rw(devices.clone()).unwrap();
    stop_now(&volume.journal, "a test");
    let error = stop_clean(&volume, &Nothing).unwrap_err();
    assert!(matches!(error, StopError::Journal(_)) && error.to_string().contains("a test"), "{error}");
    assert!(!read_superblock(&*devices[0]).unwrap().flags.clean());
}

/// Has something to write back so many times.
struct Chain(Cell<u32>);

impl WriteBack for Chain {
    fn settle(&self) -> Result<bool, CommitError> {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        Ok(left > 0)
    }
}

#[test]
fn writing_back_goes_on_until_there_is_nothing_left() {
    let devices = made::shared(&made::formatted(1, |_| ()));
    let volume = made::open_rw(devices).unwrap();
    let chain = Chain(Cell::new(7));
    stop_clean(&volume, &chain).unwrap();
    assert_eq!(chain.0.get(), 0);
    go_on(&volume.journal, &volume.host).unwrap();
    let endless = Chain(Cell::new(u32::MAX));
    assert_eq!(stop_clean(&volume, &endless), Err(StopError::NeverDone));
    assert!(!volume.superblock.is_clean());
}
