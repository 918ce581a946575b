//! Allocation, promises, and making room, with real commits over real images.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use frazil_btree::write::{CommitError, NodeSpace};
use frazil_device::recording::{Event, RecordingDevice};
use frazil_device::{DeviceSet, MemDevice};
use frazil_journal::Watermark;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen, Sectors};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::extent::{Entry, ExtentPtr};
use frazil_ondisk::values::positions::{DevBucket, Lru, LruEntry};
use frazil_ondisk::{Bpos, BtreeId, DataType, KeyBuf, KeyType};
use parking_lot::Mutex;

use super::*;
use crate::write::superblocks::Superblocks;
use crate::write::testing::{Lab, deleted};

/// The first device; with labels, the fast one.
const FIRST: DevIndex = DevIndex(0);
const SECOND: DevIndex = DevIndex(1);

/// A laboratory that several can use.
struct Bench {
    lab: Mutex<Lab>,
    space: Arc<Space>,
    allocator: Arc<Allocator>,
    devices: DeviceSet,
}

impl Bench {
    fn new(image: &str) -> Arc<Bench> {
        let lab = Lab::of(image);
        let space = Arc::clone(&lab.space);
        let superblocks = Arc::clone(&lab.superblocks) as Arc<dyn Superblocks>;
        let allocator = Arc::new(Allocator::new(Arc::clone(&space), superblocks, lab.superblock()));
        let devices = lab.devices().clone();
        let bench = Arc::new(Bench { lab: Mutex::new(lab), space, allocator, devices });
        let relief: std::sync::Weak<Bench> = Arc::downgrade(&bench);
        bench.allocator.set_relief(relief);
        bench
    }

    /// Writes `sectors` that end at `end` of a file.
    fn write(&self, end: u64, sectors: u64) -> Result<Vec<ExtentPtr>, CommitError> {
        let got = self.allocator.allocate(&request(sectors))?;
        assert_eq!(got.sectors, Sectors(sectors), "these tests write what divides a bucket");
        let pos = Bpos::new(1 << 30, end, u32::MAX);
        let mut value = Vec::new();
        got.ptrs.iter().for_each(|ptr| Entry::Ptr(*ptr).encode(&mut value));
        let key = KeyBuf::new(KeyType::EXTENT, pos, sectors as u32, value);
        self.lab.lock().commit(vec![(BtreeId::EXTENTS, key)])?;
        Ok(got.ptrs)
    }

    fn remove(&self, end: u64) {
        let pos = Bpos::new(1 << 30, end, u32::MAX);
        self.lab.lock().commit(vec![(BtreeId::EXTENTS, deleted(pos))]).expect("room can be given back");
    }
}

fn request(sectors: u64) -> Request<'static> {
    Request {
        writer: Writer::User(7),
        target: 0,
        replicas: 1,
        required: 1,
        exclude: &[],
        sectors: Sectors(sectors),
        watermark: Watermark::Normal,
    }
}

impl Buckets for Bench {
    fn change(
        &self,
        _: Watermark,
        buckets: &[DevBucket],
        change: &dyn Fn(DevBucket, &mut Alloc) -> bool,
    ) -> Result<(), CommitError> {
        let mut lab = self.lab.lock();
        let changed = |at: &DevBucket| {
            let key = lab.get(BtreeId::ALLOC, at.pos())?;
            let mut alloc = Alloc::decode(key.k.ty, &key.value).expect("an alloc key");
            change(*at, &mut alloc).then(|| {
                let mut value = Vec::new();
                alloc.encode(&mut value);
                (BtreeId::ALLOC, KeyBuf::new(KeyType::ALLOC_V4, at.pos(), 0, value))
            })
        };
        let keys = buckets.iter().filter_map(changed).collect();
        lab.commit(keys)
    }

    fn cached(&self, dev: DevIndex, from: u64, max: usize) -> Result<Vec<DevBucket>, CommitError> {
        let at = |time| LruEntry { lru: Lru::Read(dev), time, target: 0 }.pos();
        let lab = self.lab.lock();
        let Some(list) = lab.trees.get(&BtreeId::LRU) else { return Ok(Vec::new()) };
        let found = list.range(at(from)..).map(|(pos, _)| LruEntry::from_pos(*pos));
        let of_dev = found.take_while(|entry| entry.lru == Lru::Read(dev));
        Ok(of_dev.filter_map(|entry| DevBucket::from_u64(entry.target)).take(max).collect())
    }
}

impl Relief for Bench {
    fn relieve_nodes(&self) -> Result<bool, CommitError> {
        self.relieve()
    }

    fn relieve(&self) -> Result<bool, CommitError> {
        let clocks = Arc::clone(&self.lab.lock().clocks);
        self.space.make_room(&self.devices, &clocks, self, |_| Ok(()))
    }
}

/// ENOSPC comes when space is asked for, and only then; and all of it comes back.
#[test]
fn what_was_promised_can_be_written() {
    let bench = Bench::new("01-empty-initialised");
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let mut ends = Vec::new();
        loop {
            // What is promised stays promised for a while, as data waits in memory. A promise counts a little more than it is.
            let promises: Vec<_> = std::iter::from_fn(|| bench.space.reserve(Sectors(128)).ok()).collect();
            assert!(matches!(bench.space.reserve(Sectors(128)), Err(CommitError::NoSpace)));
            if promises.is_empty() {
                break;
            }
            for mut promise in promises {
                let end = (ends.len() as u64 + 1) * 128;
                bench.write(end, 128).expect("it was promised");
                promise.used(Sectors(128));
                ends.push(end);
            }
        }
        assert!(bench.space.usage().available < Sectors(128));
        rounds.push(ends.len());
        ends.into_iter().for_each(|end| bench.remove(end));
    }
    assert!(rounds[0] > 500 && rounds.iter().all(|n| *n == rounds[0]), "{rounds:?}");
    bench.allocator.release();
    let report = bench.lab.lock().report();
    let about_space =
        |f: &&crate::check::Inconsistency| !matches!(f, crate::check::Inconsistency::Item { .. });
    assert_eq!(report.findings.iter().filter(about_space).count(), 0, "{:#?}", report.findings);
}

#[test]
fn emptied_buckets_wait_for_the_journal_then_for_the_discard() {
    let bench = Bench::new("01-empty-initialised");
    let ptr = bench.write(256, 256).expect("there is room")[0];
    let at = bench.space.rules().bucket_of(FIRST, ptr.offset).expect("a bucket");
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    bench.space.on_work(Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let state = |bench: &Bench| {
        let lab = bench.lab.lock();
        let key = lab.get(BtreeId::ALLOC, at.pos()).expect("it was used");
        Alloc::decode(key.k.ty, &key.value).expect("an alloc key").data_type
    };
    bench.remove(256);
    let seq = bench.lab.lock().seq;
    assert_eq!((state(&bench), bench.space.waits_for()), (DataType::NEED_DISCARD, Some(seq)));
    assert_eq!(bench.space.discard_step(&bench.devices, &*bench).unwrap(), 0);
    bench.space.flushed(Seq(seq.0 - 1));
    assert_eq!(
        (bench.space.discard_step(&bench.devices, &*bench).unwrap(), woken.load(Ordering::Relaxed)),
        (0, 0)
    );
    bench.space.flushed(seq);
    assert_eq!((bench.space.waits_for(), woken.load(Ordering::Relaxed)), (None, 1));
    assert_eq!(bench.space.discard_step(&bench.devices, &*bench).unwrap(), 1);
    assert_eq!(state(&bench), DataType::FREE);
    assert_eq!(bench.space.device(FIRST).unwrap().generation(at.bucket), Gen(1));
}

/// A bucket that is filled, emptied, filled and emptied while it is open waits for the last of it.
#[test]
fn a_bucket_waits_for_the_entry_that_emptied_it_last() {
    let bench = Bench::new("01-empty-initialised");
    let mut emptied = Vec::new();
    for _ in 0..2 {
        bench.write(64, 64).expect("there is room");
        bench.remove(64);
        emptied.push(bench.lab.lock().seq);
    }
    let step = |bench: &Bench| bench.space.discard_step(&bench.devices, bench).unwrap();
    bench.space.flushed(emptied[0]);
    bench.allocator.release();
    assert_eq!((step(&bench), bench.space.waits_for()), (0, Some(emptied[1])));
    bench.space.flushed(emptied[1]);
    assert_eq!(step(&bench), 1);
    bench.lab.lock().assert_space_is_as_stored();
}

#[test]
fn an_open_bucket_is_not_discarded() {
    let bench = Bench::new("01-empty-initialised");
    let got = bench.allocator.allocate(&request(64)).unwrap();
    let pos = Bpos::new(1 << 30, 64, u32::MAX);
    let mut value = Vec::new();
    Entry::Ptr(got.ptrs[0]).encode(&mut value);
    let key = KeyBuf::new(KeyType::EXTENT, pos, 64, value);
    bench.lab.lock().commit(vec![(BtreeId::EXTENTS, key)]).unwrap();
    bench.remove(64);
    bench.space.flushed(bench.lab.lock().seq);
    let step = |bench: &Bench| bench.space.discard_step(&bench.devices, bench).unwrap();
    assert_eq!(step(&bench), 0, "the write point fills it");
    bench.allocator.release();
    assert_eq!(step(&bench), 0, "the write is not over");
    drop(got.hold);
    assert_eq!(step(&bench), 1);
}

#[test]
fn devices_are_told_what_is_discarded_in_runs() {
    let bench = Bench::new("01-empty-initialised");
    let device = bench.space.device(FIRST).unwrap();
    let recording = Arc::new(RecordingDevice::new(MemDevice::new(64 << 20)));
    let mut devices = DeviceSet::new();
    devices.insert(0, Arc::clone(&recording) as Arc<dyn frazil_device::Device>);
    let at = |bucket| DevBucket { dev: FIRST, bucket: BucketIndex(bucket) };
    super::reclaim::discard(device, &devices, &[at(12), at(11), at(9), at(3), at(2), at(1)]);
    let bucket = 128 << 10;
    let told: Vec<(u64, u64)> = recording
        .log()
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Write { offset_bytes, contents, .. } => Some((*offset_bytes, contents.len_bytes())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(11 * bucket, 2 * bucket), (9 * bucket, bucket), (bucket, 3 * bucket)]);
}

#[test]
fn nodes_have_places_of_their_own_and_the_superblock_knows() {
    let bench = Bench::new("06-geom-bs4096-bucket256k-node128k");
    bench.lab.lock().superblocks.bitmaps.lock().clear();
    let node = bench.space.rules().node;
    let nodes = Arc::clone(&bench.allocator) as Arc<dyn NodeSpace>;
    let areas: Vec<_> = (0..5).map(|_| nodes.allocate(Watermark::Btree).unwrap()).collect();
    let places: BTreeSet<u64> = areas.iter().map(|area| area.ptrs[0].offset.0).collect();
    assert_eq!(places.len(), 5);
    let buckets: BTreeSet<u64> = places.iter().map(|sector| sector / (2 * node.0)).collect();
    assert_eq!(buckets.len(), 3, "two nodes to a bucket");
    let bitmap = bench.lab.lock().superblocks.btree_bitmap(FIRST);
    for place in places {
        assert!(place.is_multiple_of(node.0) && bitmap.covers(Sectors(place)..Sectors(place + node.0)));
    }
    let writes = *bench.lab.lock().superblocks.writes.lock();
    drop((areas, nodes.allocate(Watermark::Btree).unwrap()));
    assert_eq!(*bench.lab.lock().superblocks.writes.lock(), writes, "one bit covers many nodes");
}

#[test]
fn one_write_of_the_superblock_is_for_the_nodes_to_come_too() {
    let bench = Bench::new("01-empty-initialised");
    bench.lab.lock().superblocks.bitmaps.lock().clear();
    let nodes = Arc::clone(&bench.allocator) as Arc<dyn NodeSpace>;
    let areas: Vec<_> = (0..3).map(|_| nodes.allocate(Watermark::Btree).unwrap()).collect();
    let (first, last) = (areas[0].ptrs[0].offset, areas[2].ptrs[0].offset);
    assert!(last.0 >= first.0 + 2 * bench.space.rules().node.0, "each has a place of its own");
    assert_eq!(*bench.lab.lock().superblocks.writes.lock(), 1);
    let device = bench.space.device(FIRST).unwrap();
    let bitmap = bench.lab.lock().superblocks.btree_bitmap(FIRST);
    let part = device.end * device.bucket.0 / 64;
    assert!(bitmap.covers(first..Sectors(first.0 + part)));
    assert!(!bitmap.covers(first..Sectors(first.0 + 3 * part)), "and not for all of the device");
}

#[test]
fn reserves_are_kept_for_the_more_urgent() {
    let bench = Bench::new("01-empty-initialised");
    let free = bench.space.device(FIRST).unwrap().available(Watermark::Reclaim);
    let (share, depth) = (512 / 64, 28);
    let mut held = Vec::new();
    let mut take = |watermark| {
        let mut taken = 0;
        while let Ok(got) = bench.allocator.allocate(&Request { watermark, ..request(256) }) {
            held.push(got);
            taken += 1;
        }
        taken
    };
    assert_eq!(take(Watermark::Stripe), free - 2 * share - 2 * depth);
    assert_eq!(take(Watermark::Normal), share);
    assert_eq!(take(Watermark::Copygc), share);
    assert_eq!(take(Watermark::Btree), depth);
    let nodes = Arc::clone(&bench.allocator) as Arc<dyn NodeSpace>;
    assert!(matches!(nodes.allocate(Watermark::Btree), Err(CommitError::NoSpace)));
    let areas: Vec<_> = (0..depth).map(|_| nodes.allocate(Watermark::Reclaim).unwrap()).collect();
    assert!(matches!(nodes.allocate(Watermark::InteriorUpdates), Err(CommitError::NoSpace)));
    drop((areas, held));
    assert_eq!(bench.space.device(FIRST).unwrap().available(Watermark::Reclaim), free);
}

#[test]
fn copies_go_to_targets_first_and_to_different_devices() {
    let bench = Bench::new("09-multi-tiered");
    let devs = |request: &Request<'_>| -> Vec<u8> {
        let got = bench.allocator.allocate(request).unwrap();
        got.ptrs.iter().map(|ptr| ptr.dev.0).collect()
    };
    let on = |dev: u16| Request { target: 1 + dev, ..request(64) };
    assert_eq!((devs(&on(0)), devs(&on(1))), (vec![0], vec![1]));
    assert_eq!(devs(&Request { replicas: 2, required: 2, ..on(1) }), [1, 0]);
    assert_eq!(devs(&Request { exclude: &[SECOND], ..on(1) }), [0]);
    let two = Request { replicas: 2, required: 1, exclude: &[FIRST], ..request(64) };
    assert_eq!(devs(&two), [1], "as many as there are devices for");
    let neither = Request { exclude: &[FIRST, SECOND], ..request(64) };
    assert!(matches!(bench.allocator.allocate(&neither), Err(CommitError::NoSpace)));
}

#[test]
fn devices_fill_in_proportion() {
    let bench = Bench::new("09-multi-striped");
    let mut held = Vec::new();
    let mut on: BTreeMap<u8, u32> = BTreeMap::new();
    for _ in 0..100 {
        let got = bench.allocator.allocate(&request(256)).unwrap();
        *on.entry(got.ptrs[0].dev.0).or_default() += 1;
        held.push(got);
    }
    let free = |dev| bench.space.device(dev).unwrap().available(Watermark::Normal);
    assert!(on.values().all(|n| (40..=60).contains(n)), "{on:?}, free {} and {}", free(FIRST), free(SECOND));
}

#[test]
fn cached_data_goes_when_space_runs_short() {
    let bench = Bench::new("09-multi-tiered");
    let device = Arc::clone(bench.space.device(FIRST).unwrap());
    let clocks = Arc::clone(&bench.lab.lock().clocks);
    let cached = |bench: &Bench| {
        bench.space.counters.get(&AccountingPos::DevDataType { dev: FIRST, data_type: DataType::CACHED })[0]
    };
    let before = cached(&bench);
    assert!(before > 0, "the image has cached data");
    assert_eq!(bench.space.invalidate_step(&clocks, &*bench).unwrap(), 0, "there is room");
    let mut held = Vec::new();
    while device.short_of_free() < 3 {
        held.push(device.take(Watermark::Reclaim, &device::Prefer::Outside(&[])).expect("there is room"));
    }
    let oldest = bench.cached(FIRST, clocks.now()[0] + 1, 1).unwrap()[0];
    let generation = device.generation(oldest.bucket);
    let dropped = bench.space.invalidate_step(&clocks, &*bench).unwrap();
    assert_eq!((dropped, cached(&bench)), (3, before - 3));
    assert!(bench.space.is_stale(oldest, generation) && !bench.space.is_stale(oldest, generation.next()));
    assert_eq!(bench.space.invalidate_step(&clocks, &*bench).unwrap(), 0, "what is dropped will be free");
    let report = bench.lab.lock().report();
    let wrong = report.findings.iter().filter(|f| {
        !matches!(f, crate::check::Inconsistency::Accounting { what: AccountingPos::Compression { .. }, .. })
    });
    assert_eq!(wrong.count(), 0, "{:#?}", report.findings);
}

/// Who holds each block.
type Taken = HashMap<(DevIndex, u64), u64>;

/// What several hold at one time never overlaps, and all of it comes back.
#[test]
fn threads_never_get_the_same_sectors() {
    let bench = Bench::new("09-multi-striped");
    let free: Vec<u64> = bench.space.devices().map(|d| d.available(Watermark::Reclaim)).collect();
    let taken: Mutex<Taken> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (bench, taken) = (&bench, &taken);
            scope.spawn(move || {
                let mut held = Vec::new();
                for i in 0..1500u64 {
                    let sectors = 8 * (1 + (i * 31 + thread * 7) % 40);
                    let copies = 1 + (i % 3 == 0) as u8;
                    let request = Request {
                        writer: Writer::User(i % 5 * thread),
                        replicas: copies,
                        ..request(sectors)
                    };
                    let Ok(got) = bench.allocator.allocate(&request) else {
                        held.drain(..).for_each(forget);
                        continue;
                    };
                    assert!(got.sectors.0 > 0 && got.sectors.0 <= sectors && got.sectors.0.is_multiple_of(8));
                    for ptr in &got.ptrs {
                        for block in (0..got.sectors.0).step_by(8) {
                            let before = taken.lock().insert((ptr.dev, ptr.offset.0 + block), thread);
                            assert_eq!(before, None, "given to two");
                        }
                    }
                    // The bookkeeping forgets before the bucket does.
                    held.push((got, taken));
                    if held.len() > 20 {
                        forget(held.swap_remove((i % 20) as usize));
                    }
                }
                held.into_iter().for_each(forget);
            });
        }
    });
    bench.allocator.release();
    let after: Vec<u64> = bench.space.devices().map(|d| d.available(Watermark::Reclaim)).collect();
    assert_eq!(after, free);
}

fn forget((got, taken): (Allocation, &Mutex<Taken>)) {
    for ptr in &got.ptrs {
        for block in (0..got.sectors.0).step_by(8) {
            taken.lock().remove(&(ptr.dev, ptr.offset.0 + block));
        }
    }
    drop(got);
}
