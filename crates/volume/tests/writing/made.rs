//! Volumes made for a test: superblocks, a journal, and no b-tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frazil_device::{Device, MemDevice};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::assembly::{self, Degraded};
use frazil_ondisk::superblock::features::{CompatFeatures, Features};
use frazil_ondisk::superblock::layout::{Layout, SIZE_BITS_DEFAULT};
use frazil_ondisk::superblock::members::{Member, Members};
use frazil_ondisk::superblock::sections::{Clean, JournalV2};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors, Seq, UnixSeconds};
use frazil_testing::golden::{self, GoldenImage};
use frazil_volume::build::{FormatOptions, NewDevice, format};
use frazil_volume::open::read_superblock;
use frazil_volume::write::{self, Foundation, SuperblockStore, WallClock, WriteOptions};
use frazil_volume::{OpenError, OpenOptions, Passphrase, Volume, open};
use uuid::Uuid;
use zeroize::Zeroizing;

pub const BUCKET: Sectors = Sectors(256);
pub const BUCKETS: u64 = 512;
/// Buckets 17 to 24 of each device are its journal.
pub const RING: std::ops::Range<u64> = 17..25;
pub const MADE_AT: UnixSeconds = UnixSeconds(1_700_000_000);

/// A time of day that stands still until told otherwise.
#[derive(Default)]
pub struct StoppedClock(AtomicU64);

impl StoppedClock {
    pub fn at(seconds: u64) -> Arc<StoppedClock> {
        Arc::new(StoppedClock(AtomicU64::new(seconds)))
    }

    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl WallClock for StoppedClock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// The superblocks of a volume of `n` devices that was shut down cleanly with nothing in it.
pub fn superblocks(n: u8) -> Vec<Superblock> {
    let size = Sectors(BUCKET.0 * BUCKETS);
    let layout = Layout::standard(size, BUCKET, Sectors(8), SIZE_BITS_DEFAULT).unwrap();
    let id = |i: u8| Uuid::from_u128(0x1011_1213 + u128::from(i));
    let mut shared = Superblock::new(id(100), id(101), 1, 8, layout);
    let member = |i| {
        let mut member =
            Member { uuid: id(i), nbuckets: BUCKETS, bucket_sectors: BUCKET.0 as u16, ..Member::default() };
        member.flags.set_freespace_initialized(true);
        member
    };
    shared.put_members(&Members::new((0..n).map(member).collect()));
    shared.flags.set_initialized(true);
    shared.flags.set_clean(true);
    shared.compat = CompatFeatures::WHEN_INITIALIZED.union(CompatFeatures::WHEN_CLEAN);
    shared.features = shared.features.difference(Features::WHEN_DIRTY);
    shared.sections.put(&Clean::new(Seq(7), Vec::new(), 0));
    shared.fill_defaults();
    let all: Vec<DevIndex> = (0..n).map(DevIndex).collect();
    shared.stamp(MADE_AT, &all).unwrap();
    let own = all.into_iter().map(|dev| {
        let mut own = shared.clone();
        own.dev_idx = dev;
        own.put_journal_buckets(&JournalV2::from_buckets(RING.map(BucketIndex)));
        own.validate().unwrap();
        own
    });
    own.collect()
}

/// Empty volumes of `n` devices, whose superblocks are then changed.
pub fn formatted(n: u8, change: impl Fn(&mut Superblock)) -> Vec<MemDevice> {
    let bytes = BUCKET.0 * BUCKETS * SECTOR_BYTES;
    let devices: Vec<Arc<MemDevice>> =
        (0..n).map(|i| Arc::new(MemDevice::new(bytes).named(&format!("dev{i}")))).collect();
    let new = devices.iter().map(|d| NewDevice::new(d.clone() as Arc<dyn Device>)).collect();
    let uuid = Some(Uuid::from_u128(u128::from(n)));
    format(new, &FormatOptions { uuid, ..FormatOptions::default() }).unwrap();
    for device in &devices {
        let mut sb = read_superblock(&**device).unwrap();
        change(&mut sb);
        for sector in sb.layout.copies() {
            device.write_at(sector.0 * SECTOR_BYTES, &sb.encode_copy(sector).unwrap()).unwrap();
        }
    }
    devices.iter().map(|d| d.snapshot()).collect()
}

/// Devices with these superblocks.
pub fn devices(superblocks: &[Superblock]) -> Vec<MemDevice> {
    let device = |sb: &Superblock| {
        let device = MemDevice::new(BUCKET.0 * BUCKETS * SECTOR_BYTES).named(&format!("dev{}", sb.dev_idx));
        let mut layout = Vec::new();
        sb.layout.encode(&mut layout);
        device.write_at(7 * SECTOR_BYTES, &layout).unwrap();
        for sector in sb.layout.copies() {
            device.write_at(sector.0 * SECTOR_BYTES, &sb.encode_copy(sector).unwrap()).unwrap();
        }
        device
    };
    superblocks.iter().map(device).collect()
}

pub fn shared(devices: &[MemDevice]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|d| Arc::new(d.snapshot()) as Arc<dyn Device>).collect()
}

/// The store of the volume on these devices.
pub fn store(devices: Vec<Arc<dyn Device>>, clock: Arc<dyn WallClock>) -> SuperblockStore {
    let own: Vec<Superblock> = devices.iter().map(|d| read_superblock(&**d).unwrap()).collect();
    let newest = own[assembly::assemble(&own, false).unwrap().newest].clone();
    SuperblockStore::new(newest, devices.into_iter().zip(own).collect(), Degraded::No, clock).unwrap()
}

/// Opens for writing, with the real times.
pub fn open_rw(devices: Vec<Arc<dyn Device>>) -> Result<Foundation, OpenError> {
    write::open_rw(devices, OpenOptions::default(), &WriteOptions::default())
}

/// The same for an image with a passphrase.
pub fn open_golden(image: &GoldenImage, devices: Vec<Arc<dyn Device>>) -> Result<Foundation, OpenError> {
    with_passphrase(image, |options| write::open_rw(devices, options, &WriteOptions::default()))
}

/// Opens an image for reading.
pub fn read_golden(image: &GoldenImage, devices: Vec<Arc<dyn Device>>) -> Result<Volume, OpenError> {
    with_passphrase(image, |options| open(devices, options))
}

fn with_passphrase<R>(image: &GoldenImage, open: impl FnOnce(OpenOptions<'_>) -> R) -> R {
    let passphrase = image.passphrase_bytes().map(<[u8]>::to_vec);
    let mut ask = |_: &str| Ok(Zeroizing::new(passphrase.clone().expect("only encrypted images ask")));
    open(OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() })
}

/// Copies of an image's devices.
pub fn golden_devices(image: &GoldenImage) -> Vec<MemDevice> {
    image
        .bytes()
        .iter()
        .enumerate()
        .map(|(i, b)| MemDevice::from_bytes(b).named(&format!("dev{i}")))
        .collect()
}

/// Images of the format that is written.
pub fn writable_golden() -> Vec<GoldenImage> {
    golden::all().into_iter().filter(|i| i.version.minor == 13).collect()
}

/// Every copy on a device that decodes, by its place in the layout.
pub fn copies(device: &dyn Device) -> Vec<Option<Superblock>> {
    let layout = read_superblock(device).unwrap().layout;
    let read = |sector: Sectors| {
        let mut bytes = vec![0; 64 << 10];
        device.read_at(sector.0 * SECTOR_BYTES, &mut bytes).unwrap();
        Superblock::decode(&bytes).ok().filter(|sb| sb.offset == sector)
    };
    layout.copies().map(read).collect()
}
