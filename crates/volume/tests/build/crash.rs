//! The power fails while a volume is made over another one: afterwards there is the old one, untouched, or nothing, or the new
//! one, complete.

use std::sync::Arc;

use frazil_device::{Crash, Device, MemDevice, RecordingDevice};
use frazil_volume::build::{Builder, FormatOptions, format};
use frazil_volume::check::check;
use frazil_volume::{OpenError, OpenOptions, open};
use uuid::Uuid;

use crate::plain;
use crate::populate::populate;

const OLD: Uuid = Uuid::from_u128(1);
const NEW: Uuid = Uuid::from_u128(2);

/// What there is after a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum There {
    Old,
    Nothing,
    New,
}

fn look(image: MemDevice, crash: &Crash) -> There {
    match open(vec![Arc::new(image)], OpenOptions::default()) {
        Err(OpenError::NoSuperblock { .. }) => There::Nothing,
        Err(why) => panic!("after {} events: {why}", crash.position),
        Ok(volume) => {
            let report = check(&volume);
            let findings: Vec<String> = report.findings.iter().take(3).map(ToString::to_string).collect();
            assert_eq!(findings, [""; 0], "after {} events", crash.position);
            let (user_uuid, inodes) = (volume.superblock().user_uuid, volume.usage().unwrap().inodes);
            match inodes {
                302 if user_uuid == NEW => There::New,
                102 if user_uuid == OLD => There::Old,
                _ => panic!("after {} events: {inodes} inodes in {user_uuid}", crash.position),
            }
        }
    }
}

#[test]
fn a_crash_leaves_a_whole_volume_or_none() {
    // The old one has other places for its superblocks and its journal.
    let case = &plain();
    let device = MemDevice::new(64 << 20);
    let build = |device: Arc<dyn Device>, uuid, force, superblock_bytes, files| {
        let options = FormatOptions { force, superblock_bytes, ..case.options(uuid) };
        let mut builder = Builder::new(case.new_devices([device]), &options).unwrap();
        populate(&mut builder, files, 4096).unwrap();
        builder.finish().unwrap();
    };
    let handle: Arc<dyn Device> = Arc::new(device);
    build(Arc::clone(&handle), OLD, false, Some(64 << 10), 100);
    let mut base = vec![0; 64 << 20];
    handle.read_at(0, &mut base).unwrap();

    let recorder = Arc::new(RecordingDevice::new(MemDevice::from_bytes(&base)));
    build(Arc::clone(&recorder) as Arc<dyn Device>, NEW, true, None, 300);
    let log = recorder.log();
    let mut seen = Vec::new();
    for crash in log.crashes() {
        let worth = crash.images(8).chain((0..4).map(|seed| crash.sample(seed)));
        seen.extend(worth.map(|image| look(image, &crash)));
    }
    for there in [There::Old, There::Nothing, There::New] {
        assert!(seen.contains(&there), "never {there:?}");
    }
    let first_new = seen.iter().position(|s| *s == There::New);
    let last_old = seen.iter().rposition(|s| *s == There::Old);
    assert!(last_old < first_new, "first the old one, then nothing, then the new one");
}

#[test]
fn a_failure_leaves_no_volume() {
    use frazil_device::{Fault, FaultyDevice, Op};
    let make = |faulty: &Arc<FaultyDevice>| {
        let device = Arc::clone(faulty) as Arc<dyn Device>;
        format(plain().new_devices([device]), &plain().options(NEW))
    };
    let sound = Arc::new(FaultyDevice::new(Arc::new(MemDevice::new(64 << 20))));
    make(&sound).unwrap();
    let writes = sound.count(Op::Write);
    assert!(writes > 10);
    for nth in 1..=writes {
        let device = Arc::new(MemDevice::new(64 << 20));
        let faulty = Arc::new(FaultyDevice::new(Arc::clone(&device) as Arc<dyn Device>));
        faulty.inject(Fault::writes().nth(nth));
        let why = make(&faulty).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("write"), "{why}");
        match open(vec![device], OpenOptions::default()) {
            Err(OpenError::NoSuperblock { .. }) => {}
            // All but a backup of the superblock was written.
            Ok(volume) => assert!(check(&volume).is_clean() && nth + 2 > writes, "write {nth} of {writes}"),
            Err(why) => panic!("write {nth} of {writes}: {why}"),
        }
    }
}
