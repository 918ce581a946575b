//! A machine that holds a volume: devices in memory whose every write is recorded and may fail, a clock, and nothing that runs by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frazil_btree::write::EngineOptions;
use frazil_device::stamped::{Stamped, Time};
use frazil_device::{Device, FaultyDevice, MemDevice};
use frazil_journal::engine::Clock;
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_posix::Timestamp;
use frazil_posix::write::{WriteFs, WriteFsOptions};
use frazil_volume::build::{Encryption, FormatOptions, NewDevice, format};
use frazil_volume::write::{self, Live, LiveOptions, WallClock, WriteOptions};
use frazil_volume::{OpenOptions, Volume, open};
use uuid::Uuid;

/// A volume as a seed wants it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// MiB of each device.
    sizes: Vec<u64>,
    bucket_kib: u64,
    settings: Vec<(&'static str, &'static str)>,
    encrypted: bool,
    discard: bool,
    /// Of the node cache. A commit needs all leaves it touches at once, so not less than that.
    cache_bytes: usize,
}

impl Shape {
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Shape {
        let mut settings = Vec::new();
        let mut choose = |rng: &mut fastrand::Rng, name, values: &[&'static str]| {
            settings.push((name, values[rng.usize(0..values.len())]));
        };
        choose(rng, "block_size", &["512", "512", "4096"]);
        // Without checksums nothing can tell what was torn.
        choose(rng, "metadata_checksum", &["crc32c", "crc64", "xxhash"]);
        choose(rng, "data_checksum", &["none", "crc32c", "crc64", "xxhash"]);
        choose(rng, "compression", &["none", "none", "lz4", "gzip", "zstd"]);
        choose(rng, "str_hash", &["crc32c", "crc64", "siphash"]);
        choose(rng, "inodes_32bit", &["0", "1"]);
        let bucket_kib = [64, 128, 256][rng.usize(0..3)];
        choose(
            rng,
            "btree_node_size",
            if bucket_kib == 64 { &["32k", "64k"] } else { &["32k", "64k", "128k"] },
        );
        choose(rng, "encoded_extent_max", &["16k", "64k"]);
        let sizes: Vec<u64> = (0..rng.usize(1..3)).map(|_| rng.u64(32..49)).collect();
        if sizes.len() == 2 {
            choose(rng, "metadata_replicas", &["1", "2"]);
            choose(rng, "data_replicas", &["1", "2"]);
        }
        Shape {
            sizes,
            bucket_kib,
            settings,
            encrypted: rng.u8(0..4) == 0,
            discard: rng.bool(),
            cache_bytes: [4 << 20, 16 << 20][rng.usize(0..2)],
        }
    }

    /// How many devices.
    pub(crate) fn disks(&self) -> usize {
        self.sizes.len()
    }

    /// Whether an option has that value.
    pub(crate) fn has(&self, option: &str, value: &str) -> bool {
        self.settings.contains(&(option, value))
    }

    /// A new volume.
    pub(crate) fn format(&self, seed: u64) -> Vec<MemDevice> {
        let devices: Vec<Arc<MemDevice>> = self
            .sizes
            .iter()
            .enumerate()
            .map(|(i, mib)| Arc::new(MemDevice::new(mib << 20).named(&format!("disk{i}"))))
            .collect();
        let new = devices.iter().map(|device| NewDevice {
            bucket_bytes: Some(self.bucket_kib << 10),
            discard: self.discard,
            ..NewDevice::new(Arc::clone(device) as Arc<dyn Device>)
        });
        let setting = |(name, text): &(&str, &str)| {
            let spec = OptionSpec::by_name(name).unwrap();
            (spec, spec.parse(text).unwrap())
        };
        let options = FormatOptions {
            uuid: Some(Uuid::from_u128(u128::from(seed) + 1)),
            created_ns: CREATED_NS,
            encryption: if self.encrypted { Encryption::KeyInClear } else { Encryption::Off },
            settings: self.settings.iter().map(setting).collect(),
            ..FormatOptions::default()
        };
        format(new.collect(), &options).unwrap_or_else(|e| panic!("{self:?}: {e}"));
        devices.iter().map(|device| device.snapshot()).collect()
    }

    fn open_options(&self) -> OpenOptions<'static> {
        OpenOptions { cache_bytes: self.cache_bytes, ..OpenOptions::default() }
    }

    /// Opens copies of devices for reading only.
    pub(crate) fn read(&self, images: &[MemDevice]) -> Result<Volume, String> {
        let devices = images.iter().map(|d| Arc::new(d.snapshot().read_only()) as Arc<dyn Device>);
        open(devices.collect(), self.open_options()).map_err(|e| e.to_string())
    }
}

const CREATED_NS: u64 = 1_700_000_000_000_000_000;

/// The time: of day, which only the simulator moves, and the journal's, which also moves a little whenever somebody looks.
#[derive(Debug)]
pub(crate) struct ManualTime {
    wall_ns: AtomicU64,
    monotonic_ns: AtomicU64,
}

impl ManualTime {
    pub(crate) fn new() -> Arc<ManualTime> {
        Arc::new(ManualTime {
            wall_ns: AtomicU64::new(CREATED_NS + 1_000_000_000),
            monotonic_ns: AtomicU64::new(0),
        })
    }

    pub(crate) fn pass(&self, ns: u64) {
        self.wall_ns.fetch_add(ns, Ordering::Relaxed);
        self.monotonic_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn stamp(&self) -> Timestamp {
        Timestamp::from_unix_ns(self.wall_ns.load(Ordering::Relaxed).into())
    }
}

impl Clock for ManualTime {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.fetch_add(20_000, Ordering::Relaxed))
    }
}

impl WallClock for ManualTime {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.wall_ns.load(Ordering::Relaxed))
    }
}

/// Devices that record what happens to them and can be made to fail.
pub(crate) struct Disks {
    pub(crate) time: Arc<Time>,
    stamped: Vec<Arc<Stamped>>,
    pub(crate) faulty: Vec<Arc<FaultyDevice>>,
}

impl Disks {
    pub(crate) fn new(images: &[MemDevice]) -> Disks {
        let time = Arc::new(Time::default());
        let stamped: Vec<_> =
            images.iter().map(|image| Arc::new(Stamped::new(image.snapshot(), &time))).collect();
        let faulty =
            stamped.iter().map(|d| Arc::new(FaultyDevice::new(Arc::clone(d) as Arc<dyn Device>))).collect();
        Disks { time, stamped, faulty }
    }

    pub(crate) fn devices(&self) -> Vec<Arc<dyn Device>> {
        self.faulty.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect()
    }

    /// What may be on the devices after the power failed at that time; which of it, `style` says.
    pub(crate) fn crash(&self, at: u64, style: u32, rng: &mut fastrand::Rng) -> Vec<MemDevice> {
        let image = |disk: &Arc<Stamped>| {
            let crash = disk.crash_at(at);
            match style % 5 {
                0 => crash.all_lost(),
                1 => crash.all_kept(),
                _ => crash.sample(rng.u64(..)),
            }
        };
        self.stamped.iter().map(image).collect()
    }
}

/// Opens a volume for writing, without threads.
pub(crate) fn start(
    shape: &Shape,
    devices: Vec<Arc<dyn Device>>,
    time: &Arc<ManualTime>,
    seed: u64,
) -> Result<WriteFs, String> {
    let options = WriteOptions {
        clock: Arc::clone(time) as Arc<dyn Clock>,
        wall: Arc::clone(time) as Arc<dyn WallClock>,
        ..WriteOptions::default()
    };
    let foundation = write::open_rw(devices, shape.open_options(), &options).map_err(|e| e.to_string())?;
    let engine = EngineOptions { seed, restart_one_in: 13 };
    let options = LiveOptions { engine, cache_bytes: shape.cache_bytes, threads: false };
    let live = Live::start(foundation, &options).map_err(|e| e.to_string())?;
    let clock = Arc::clone(time) as Arc<dyn WallClock>;
    WriteFs::new(live, WriteFsOptions::new(clock, seed)).map_err(|e| e.to_string())
}
