//! A volume on a device in memory, being written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frazil_btree::write::EngineOptions;
use frazil_device::{Device, MemDevice};
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_posix::write::{Deletion, Front, WriteFs, WriteFsOptions};
use frazil_posix::{Error, Fs, NodeId};
use frazil_volume::build::{Builder, FormatOptions, NewDevice};
use frazil_volume::check::{Severity, check};
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::write::{Live, LiveOptions, WallClock, WriteOptions, open_rw};
use frazil_volume::{OpenOptions, Recovery, Volume, open};

const DEVICE_BYTES: u64 = 64 << 20;
const MADE_NS: u64 = 1_700_000_000_000_000_000;

/// A time of day in seconds that stands still until told otherwise.
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn now_s(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl WallClock for Clock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.now_s())
    }
}

pub(crate) struct World {
    pub(crate) memory: Arc<MemDevice>,
    pub(crate) live: Arc<Live>,
    pub(crate) fs: WriteFs,
    pub(crate) clock: Arc<Clock>,
}

impl World {
    /// A new volume with these options, as on the command line.
    pub(crate) fn new(settings: &[(&str, &str)]) -> World {
        World::of_size(DEVICE_BYTES, None, settings)
    }

    /// The same on a device of another size, with buckets of that size.
    pub(crate) fn of_size(bytes: u64, bucket_bytes: Option<u64>, settings: &[(&str, &str)]) -> World {
        let memory = Arc::new(MemDevice::new(bytes));
        let setting = |(name, value): &(&str, &str)| {
            let spec = OptionSpec::by_name(name).unwrap();
            (spec, spec.parse(value).unwrap())
        };
        let options = FormatOptions {
            uuid: Some(uuid::Uuid::from_u128(7)),
            created_ns: MADE_NS,
            settings: settings.iter().map(setting).collect(),
            ..FormatOptions::default()
        };
        let device = NewDevice::new(Arc::clone(&memory) as Arc<dyn Device>);
        let new = vec![NewDevice { bucket_bytes, ..device }];
        let mut builder = Builder::new(new, &options).unwrap();
        builder.push_first_subvolume().unwrap();
        builder.push_empty_root().unwrap();
        builder.finish().unwrap();
        let clock = Arc::new(Clock(AtomicU64::new(1_800_000_000)));
        World::open(memory, clock, 7)
    }

    /// Opens a device for writing; one in `restart_one_in` transactions is run again.
    pub(crate) fn open(memory: Arc<MemDevice>, clock: Arc<Clock>, restart_one_in: u32) -> World {
        let write = WriteOptions { wall: clock.clone(), ..WriteOptions::default() };
        let devices = vec![Arc::clone(&memory) as Arc<dyn Device>];
        let foundation = open_rw(devices, OpenOptions::default(), &write).unwrap_or_else(|e| panic!("{e}"));
        let engine = EngineOptions { seed: 5, restart_one_in };
        let options = LiveOptions { engine, cache_bytes: 16 << 20, threads: true };
        let live = Live::start(foundation, &options).unwrap();
        let options = WriteFsOptions::new(clock.clone(), 9);
        let fs = WriteFs::new(Arc::clone(&live), options).unwrap();
        World { memory, live, fs, clock }
    }

    /// Changes something.
    pub(crate) fn front(&self) -> Front<'_> {
        front(&self.fs)
    }

    /// Somebody lets go of an object once, and if nobody uses it any more and it has no name it goes.
    pub(crate) fn release(&self, node: NodeId) {
        self.fs.release(node, 1);
        self.front().remove_released(&|| true);
    }

    /// The device as it is at this moment, with everything that was done on it.
    pub(crate) fn snapshot(&self) -> Arc<MemDevice> {
        self.live.journal().flush().unwrap();
        Arc::new(self.memory.snapshot())
    }

    /// The power fails after everything was flushed, and somebody opens it again.
    pub(crate) fn crash(self) -> World {
        let left = self.snapshot();
        World::open(left, self.clock, 7)
    }

    /// Nothing may be wrong; what waits to be done after a crash is no fault.
    #[track_caller]
    pub(crate) fn assert_right(&self) {
        assert_nothing_wrong(&read(self.snapshot()));
    }

    /// Finishes what waits, stops cleanly, and looks at what is left.
    #[track_caller]
    pub(crate) fn stop(self) -> Fs {
        self.delete_unlinked();
        self.front().remove_dead_inodes().unwrap();
        self.live.stop().unwrap();
        let volume = read(Arc::new(self.memory.snapshot()));
        assert!(matches!(volume.recovery(), Recovery::Clean { .. }));
        let report = check(&volume);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        Fs::new(Arc::new(volume))
    }

    /// Does what deletions of subvolumes left to be done.
    pub(crate) fn delete_unlinked(&self) {
        let mut deletion = Deletion::default();
        let mut steps = 0;
        while self.front().delete_unlinked_step(&mut deletion).unwrap() {
            steps += 1;
            assert!(steps < 100_000, "it ends");
        }
    }
}

/// Changes something.
pub(crate) fn front(fs: &WriteFs) -> Front<'_> {
    fs.front(FrontKind::Names).unwrap()
}

/// A device, read only.
pub(crate) fn read(memory: Arc<MemDevice>) -> Volume {
    open(vec![memory as Arc<dyn Device>], OpenOptions::default()).unwrap()
}

#[track_caller]
pub(crate) fn assert_nothing_wrong(volume: &Volume) {
    let report = check(volume);
    let wrong: Vec<_> = report.findings.iter().filter(|f| f.severity() != Severity::Pending).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An error's name.
pub(crate) fn name_of(error: &Error) -> &'static str {
    match error {
        Error::NotFound => "ENOENT",
        Error::Stale(_) => "ESTALE",
        Error::NotDirectory => "ENOTDIR",
        Error::IsDirectory => "EISDIR",
        Error::Invalid(_) => "EINVAL",
        Error::NoAttribute => "ENODATA",
        Error::NameTooLong => "ENAMETOOLONG",
        Error::ReadOnly => "EROFS",
        Error::Exists => "EEXIST",
        Error::NotEmpty => "ENOTEMPTY",
        Error::NotPermitted(_) => "EPERM",
        Error::AccessDenied => "EACCES",
        Error::CrossesBorder => "EXDEV",
        Error::TooManyLinks => "EMLINK",
        Error::NoSpace => "ENOSPC",
        Error::OverQuota => "EDQUOT",
        Error::TooLarge(_) => "ERANGE",
        Error::Unsupported(_) => "EOPNOTSUPP",
        Error::Busy(_) => "EBUSY",
        other => panic!("{other}"),
    }
}

/// What an operation came to, by name.
pub(crate) fn outcome<T>(result: Result<T, Error>) -> Result<T, &'static str> {
    result.map_err(|error| name_of(&error))
}
