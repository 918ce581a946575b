//! A filesystem just large enough for a journal: a superblock of one sector, a ring, and a table of values that are written back.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frazil_device::{Device, MemDevice};
use frazil_journal::engine::{
    Clock, DevSet, EntryImage, Format, Host, HostError, Journal, Member, Options, Position, RecoveryStart,
    Start, recovery_start, write_marker,
};
use frazil_journal::read::{self, Source};
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::jset::{JsetEntry, JsetFormat};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::version::Version;

pub const MAGIC: u64 = 0xfeed_beef_0123_4567;
pub const BLOCK: usize = 512;

/// Time that moves when told.
#[derive(Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

/// Shape of the ring.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    pub bucket: Sectors,
    pub buckets: u64,
}

impl Geometry {
    /// The ring begins behind the first bucket, which holds superblock and table.
    pub fn ring(&self) -> Vec<BucketIndex> {
        (1..=self.buckets).map(BucketIndex).collect()
    }

    pub fn device_bytes(&self) -> u64 {
        (self.buckets + 1) * self.bucket.0 * SECTOR_BYTES
    }

    pub fn device(&self) -> MemDevice {
        MemDevice::new(self.device_bytes())
    }
}

/// What the superblock says, in one sector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Super {
    pub dirty: bool,
    pub blacklist: Vec<Range<Seq>>,
}

impl Super {
    pub fn load(device: &dyn Device) -> Super {
        let mut b = [0; SECTOR_BYTES as usize];
        device.read_at(0, &mut b).unwrap();
        let word = |i: usize| u64::from_le_bytes(b[8 * i..8 * i + 8].try_into().unwrap());
        let ranges = (0..word(1) as usize).map(|i| Seq(word(2 + 2 * i))..Seq(word(3 + 2 * i)));
        Super { dirty: word(0) != 0, blacklist: ranges.collect() }
    }

    pub fn store(&self, device: &dyn Device) -> Result<(), HostError> {
        let mut words = vec![u64::from(self.dirty), self.blacklist.len() as u64];
        words.extend(self.blacklist.iter().flat_map(|r| [r.start.0, r.end.0]));
        let mut b: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        b.resize(SECTOR_BYTES as usize, 0);
        device.write_fua_at(0, &b).map_err(|e| HostError(e.to_string()))
    }
}

/// The filesystem around the journal under test.
pub struct FakeHost {
    pub device: Arc<dyn Device>,
    pub superblock: Mutex<Super>,
    pub replicas: Mutex<Vec<DevSet>>,
    pub lost: Mutex<Vec<DevIndex>>,
    pub halted: Mutex<Option<String>>,
}

impl FakeHost {
    pub fn new(device: Arc<dyn Device>) -> Arc<FakeHost> {
        let superblock = Mutex::new(Super::load(&*device));
        Arc::new(FakeHost {
            device,
            superblock,
            replicas: Mutex::default(),
            lost: Mutex::default(),
            halted: Mutex::default(),
        })
    }
}

impl Host for FakeHost {
    fn common_words(&self) -> u32 {
        2
    }

    fn finish_entry(&self, entry: &mut EntryImage) {
        entry.push(&JsetEntry::Datetime { seconds: 7 });
    }

    fn mark_dirty(&self) -> Result<(), HostError> {
        let mut superblock = self.superblock.lock().unwrap();
        superblock.dirty = true;
        superblock.store(&*self.device)
    }

    fn mark_replicas(&self, devices: &DevSet) -> Result<(), HostError> {
        self.replicas.lock().unwrap().push(*devices);
        Ok(())
    }

    fn blacklist(&self, range: Range<Seq>) -> Result<(), HostError> {
        let mut superblock = self.superblock.lock().unwrap();
        superblock.blacklist.retain(|r| r.end < range.start || range.end < r.start);
        superblock.blacklist.push(range);
        superblock.store(&*self.device)
    }

    fn device_failed(&self, dev: DevIndex, _: &frazil_device::Error) {
        self.lost.lock().unwrap().push(dev);
    }

    fn halted(&self, reason: &frazil_journal::engine::HaltReason) {
        *self.halted.lock().unwrap() = Some(reason.to_string());
    }
}

pub fn format() -> Format {
    Format {
        magic: MAGIC,
        version: Version::WRITE,
        csum_type: ChecksumType::Crc32c,
        key: None,
        block_bytes: BLOCK,
        has_overwrites: false,
    }
}

pub fn options() -> Options {
    Options { entry_bytes_max: 8192, ..Options::default() }
}

pub fn member(dev: u8, device: Arc<dyn Device>, geometry: Geometry) -> Member {
    Member {
        dev: DevIndex(dev),
        device,
        bucket: geometry.bucket,
        buckets: geometry.ring(),
        position: Position::Clean { index: 0, offset: Sectors(0) },
        writable: true,
        durability: 1,
        discard: true,
    }
}

/// A running journal and its surroundings.
pub struct Life {
    pub journal: Arc<Journal>,
    pub host: Arc<FakeHost>,
    pub clock: Arc<ManualClock>,
}

/// Starts a journal on new devices.
pub fn begin(devices: Vec<Arc<dyn Device>>, geometry: Geometry, options: Options) -> Life {
    let host = FakeHost::new(devices[0].clone());
    let clock = Arc::new(ManualClock::default());
    let members = devices.into_iter().enumerate().map(|(i, d)| member(i as u8, d, geometry)).collect();
    let start = Start { first: Seq(1), replay_from: Seq(1) };
    let journal = Journal::start(members, format(), options, start, host.clone(), clock.clone());
    Life { journal, host, clock }
}

/// Reads the journal of devices as they are.
pub fn read(devices: &[Arc<dyn Device>], geometry: Geometry) -> Result<read::Journal, read::ReadError> {
    let ring = geometry.ring();
    let sources: Vec<Source<'_>> = devices
        .iter()
        .enumerate()
        .map(|(i, d)| Source {
            dev: DevIndex(i as u8),
            device: &**d,
            bucket: geometry.bucket,
            buckets: &ring,
        })
        .collect();
    let blacklist = Super::load(&*devices[0]).blacklist;
    let options = read::Options {
        format: JsetFormat { magic: MAGIC, block_bytes: BLOCK, key: None },
        version_min: Version::READ_MIN,
        blacklist: &blacklist,
        salvage: false,
    };
    read::read(&sources, &options)
}

/// Starts a journal after a crash: marker, blacklist, start.
pub fn recover(
    devices: Vec<Arc<dyn Device>>,
    geometry: Geometry,
    options: Options,
    found: &read::Journal,
) -> (Life, RecoveryStart) {
    let host = FakeHost::new(devices[0].clone());
    let clock = Arc::new(ManualClock::default());
    let recovery = recovery_start(found, &Super::load(&*devices[0]).blacklist);
    let mut members: Vec<Member> = devices
        .into_iter()
        .enumerate()
        .map(|(i, d)| Member {
            position: Position::Found(found.rings[i].clone()),
            ..member(i as u8, d, geometry)
        })
        .collect();
    write_marker(&mut members, &format(), options.replicas, &*host, &recovery).unwrap();
    host.blacklist(recovery.blacklist.clone()).unwrap();
    let journal = Journal::start(members, format(), options, recovery.start, host.clone(), clock.clone());
    (Life { journal, host, clock }, recovery)
}
