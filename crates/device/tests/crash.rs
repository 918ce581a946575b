//! Crash images obey the promises of a disk, and reach everything those allow.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use frazil_device::{Contents, Device, Event, Fault, FaultyDevice, MemDevice, RecordingDevice};
use proptest::prelude::*;

const SECTOR: usize = 512;

/// The first byte of each sector, where every sector is one byte repeated; panics if one is a mixture.
fn versions(image: &MemDevice) -> Vec<u8> {
    image
        .to_vec()
        .chunks(SECTOR)
        .map(|sector| {
            assert!(sector.iter().all(|&b| b == sector[0]), "half a sector was written");
            sector[0]
        })
        .collect()
}

fn sectors(byte: u8, count: usize) -> Vec<u8> {
    vec![byte; SECTOR * count]
}

#[test]
fn a_flush_makes_earlier_writes_certain_and_later_ones_not() {
    let device = RecordingDevice::new(MemDevice::new(4 * 512));
    device.write_at(0, &sectors(1, 2)).unwrap();
    device.flush().unwrap();
    device.mark(7);
    device.write_at(512, &sectors(2, 2)).unwrap();
    let log = device.log();
    assert_eq!(log.events.len(), 4);
    assert_eq!((log.marks_before(2).next(), log.marks_before(3).next()), (None, Some(7)));
    let pending: Vec<usize> = log.crashes().map(|crash| crash.pending()).collect();
    assert_eq!(pending, [0, 1, 0, 0, 1]);
    let end = log.crash_after(4);
    assert_eq!(versions(&end.all_lost()), [1, 1, 0, 0]);
    assert_eq!(versions(&end.all_kept()), [1, 2, 2, 0]);
    let before_flush = log.crash_after(1);
    let images: BTreeSet<Vec<u8>> = before_flush.images(10).map(|image| versions(&image)).collect();
    assert_eq!(images, BTreeSet::from([vec![0, 0, 0, 0], vec![1, 1, 0, 0]]));
    // Torn writes come from sampling, and sooner or later all of them do.
    let torn: BTreeSet<Vec<u8>> = (0..200).map(|seed| versions(&before_flush.sample(seed))).collect();
    assert_eq!(torn.len(), 4);
}

#[test]
fn later_writes_may_survive_without_earlier_ones() {
    let device = RecordingDevice::new(MemDevice::new(3 * 512));
    for i in 0..3u8 {
        device.write_at(u64::from(i) * 512, &sectors(i + 1, 1)).unwrap();
    }
    let crash = device.log().crash_after(3);
    let images: BTreeSet<Vec<u8>> = crash.images(8).map(|image| versions(&image)).collect();
    assert_eq!(images.len(), 8);
    assert!(images.contains([0, 0, 3].as_slice()));
    // With fewer than all subsets the telling ones come first: prefixes, then each write missing.
    let few: Vec<Vec<u8>> = crash.images(7).map(|image| versions(&image)).collect();
    let telling = [[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 3], [0, 2, 3], [1, 0, 3], [0, 2, 0]];
    assert_eq!(few, telling);
}

#[test]
fn a_forced_write_is_certain_and_so_is_all_it_overwrote() {
    let device = RecordingDevice::new(MemDevice::new(3 * 512));
    device.write_at(0, &sectors(1, 3)).unwrap();
    device.write_fua_at(512, &sectors(2, 1)).unwrap();
    let crash = device.log().crash_after(2);
    let images: BTreeSet<Vec<u8>> = (0..300).map(|seed| versions(&crash.sample(seed))).collect();
    let legal = [[0, 2, 0], [0, 2, 1], [1, 2, 0], [1, 2, 1]];
    assert_eq!(images, legal.iter().map(|image| image.to_vec()).collect());
}

#[test]
fn a_failed_write_stays_uncertain_and_a_failed_flush_promises_nothing() {
    let faulty = Arc::new(FaultyDevice::new(Arc::new(MemDevice::new(1024))));
    let device = RecordingDevice::over(faulty.clone(), MemDevice::new(1024));
    faulty.inject(Fault::writes().once());
    assert!(device.write_at(0, &sectors(1, 1)).is_err());
    device.flush().unwrap();
    assert_eq!(device.log().crash_after(2).pending(), 1);
    // A later write to the same place settles it, once flushed for sure.
    device.write_at(0, &sectors(2, 1)).unwrap();
    faulty.inject(Fault::flushes().once());
    assert!(device.flush().is_err());
    assert_eq!(device.log().crash_after(3).pending(), 2);
    device.flush().unwrap();
    let log = device.log();
    assert_eq!(log.events.len(), 4);
    assert_eq!(log.crash_after(4).pending(), 0);
    assert_eq!(versions(&log.crash_after(4).all_lost()), [2, 0]);
    // Refused operations change nothing and are not recorded.
    assert!(device.write_at(1000, &[0; 100]).is_err());
    assert!(device.write_at(u64::MAX, &[0; 100]).is_err());
    assert_eq!(device.position(), 4);
}

#[test]
fn parts_of_sectors_are_recorded_whole() {
    let device = RecordingDevice::new(MemDevice::from_bytes(&[1; 1000]));
    device.write_at(507, &[2, 2, 2, 2, 2, 3, 3, 3, 3, 3]).unwrap();
    device.zero(999, 1).unwrap();
    let mut first = [1; 1000];
    first[507..512].fill(2);
    first[512..517].fill(3);
    let mut second = first[512..].to_vec();
    second[487] = 0;
    let write = |offset_bytes, bytes: &[u8]| Event::Write {
        offset_bytes,
        contents: Contents::Bytes(bytes.into()),
        stable: false,
        acknowledged: true,
    };
    assert_eq!(device.log().events, [write(0, &first), write(512, &second)]);
}

/// The promises again, written down a second time as simply as possible: for every sector the versions it may show.
#[derive(Clone)]
struct Model(Vec<BTreeSet<u8>>, Vec<u8>);

impl Model {
    fn new(count: usize) -> Model {
        Model(vec![BTreeSet::from([0]); count], vec![0; count])
    }
    fn write(&mut self, at: usize, count: usize, byte: u8, stable: bool) {
        for sector in at..at + count {
            self.1[sector] = byte;
            if stable {
                self.0[sector].clear();
            }
            self.0[sector].insert(byte);
        }
    }
    fn flush(&mut self) {
        for (set, &latest) in self.0.iter_mut().zip(&self.1) {
            *set = BTreeSet::from([latest]);
        }
    }
    fn allows(&self, image: &[u8]) -> bool {
        self.0.iter().zip(image).all(|(set, version)| set.contains(version))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, count: usize, stable: bool },
    Zero { at: usize, count: usize, discard: bool },
    Flush,
}

const COUNT: usize = 12;

fn step() -> impl Strategy<Value = Step> {
    let range = (0..COUNT, 1usize..5).prop_map(|(at, count)| (at, count.min(COUNT - at)));
    prop_oneof![
        5 => range.clone().prop_map(|(at, count)| Step::Write { at, count, stable: false }),
        1 => range.clone().prop_map(|(at, count)| Step::Write { at, count, stable: true }),
        1 => (range, any::<bool>()).prop_map(|((at, count), discard)| Step::Zero { at, count, discard }),
        2 => Just(Step::Flush),
    ]
}

proptest! {
    /// Whatever is done, every image shows for each sector a version that the promises allow; and where it is few, every
    /// version they allow is shown.
    #[test]
    fn images_keep_the_promises(steps in prop::collection::vec(step(), 0..20), seed in any::<u64>()) {
        let device = RecordingDevice::new(MemDevice::new((COUNT * SECTOR) as u64));
        let mut models = vec![Model::new(COUNT)];
        for (i, step) in steps.iter().enumerate() {
            let mut model = models.last().unwrap().clone();
            let byte = i as u8 + 1;
            match *step {
                Step::Write { at, count, stable } => {
                    let (offset, data) = ((at * SECTOR) as u64, sectors(byte, count));
                    if stable { device.write_fua_at(offset, &data) } else { device.write_at(offset, &data) }.unwrap();
                    model.write(at, count, byte, stable);
                }
                Step::Zero { at, count, discard } => {
                    let (offset, len) = ((at * SECTOR) as u64, (count * SECTOR) as u64);
                    if discard { device.discard(offset, len) } else { device.zero(offset, len) }.unwrap();
                    model.write(at, count, 0, false);
                }
                Step::Flush => {
                    device.flush().unwrap();
                    model.flush();
                }
            }
            models.push(model);
        }
        let log = device.log();
        for (crash, model) in log.crashes().zip(&models) {
            let mut images = vec![crash.all_lost(), crash.all_kept()];
            images.extend(crash.images(24));
            images.extend((0..24).map(|i| crash.sample(seed.wrapping_add(i))));
            let mut shown = vec![BTreeSet::new(); COUNT];
            for image in &images {
                let image = versions(image);
                prop_assert!(model.allows(&image), "{:?} after {} events", image, crash.position);
                shown.iter_mut().zip(image).for_each(|(shown, version)| { shown.insert(version); });
            }
            if crash.pending() <= 4 {
                prop_assert!(shown == model.0, "{:?} of {:?} after {} events", shown, model.0, crash.position);
            }
            prop_assert_eq!(versions(&crash.all_kept()), model.1.clone());
        }
        prop_assert_eq!(log.crashes().count(), steps.len() + 1);
        let again = log.crash_after(steps.len());
        let streamed = log.crashes().last().unwrap();
        prop_assert!(again.sample(seed).to_vec() == streamed.sample(seed).to_vec());
    }
}

#[test]
fn what_hangs_goes_on_when_it_is_healed() {
    let faulty = Arc::new(FaultyDevice::new(Arc::new(MemDevice::new(1024))));
    faulty.inject(Fault::writes().nth(2).hanging());
    faulty.write_at(0, &[1; 8]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| faulty.write_at(8, &[2; 8]));
        while faulty.hanging() == 0 {
            std::thread::yield_now();
        }
        let mut bytes = [9; 16];
        faulty.read_at(0, &mut bytes).unwrap();
        assert!(!writer.is_finished() && bytes[..8] == [1; 8] && bytes[8..] == [0; 8]);
        faulty.heal();
        writer.join().unwrap().unwrap();
        faulty.read_at(0, &mut bytes).unwrap();
        assert_eq!((&bytes[8..], faulty.hanging(), faulty.struck()), (&[2; 8][..], 0, 1));
    });
}
