//! A mounted volume on a device in memory, which fails or hangs when told so, and of which every byte can be looked at.
// Each test program uses a part of this, and a test fails by panicking.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use frazil_btree::write::EngineOptions;
use frazil_device::mounts::Mount as MountTable;
use frazil_device::{Device, Fault, FaultyDevice, MemDevice};
use frazil_fuse::control::{Client, HoldReport, Request, StatusReport, locate};
use frazil_fuse::{Error, Mount, Options, Writable};
use frazil_posix::write::{WriteFs, WriteFsOptions};
use frazil_volume::build::{FormatOptions, NewDevice, format};
use frazil_volume::check::{Severity, check};
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use frazil_volume::{OpenOptions, Recovery, Volume, open};

/// A limit that no step of a test that succeeds comes near.
pub const LONG: Duration = Duration::from_secs(20);

const DEVICE_BYTES: u64 = 128 << 20;

pub struct Mounted {
    pub memory: Arc<MemDevice>,
    /// What the volume has of it.
    pub device: Arc<FaultyDevice>,
    pub writable: Writable,
    pub mount: Mount,
    pub at: MountTable,
    pub dir: PathBuf,
    _temporary: tempfile::TempDir,
}

/// Mounts a new volume.
pub fn mounted() -> Mounted {
    mounted_with(|_| {})
}

/// Mounts a new volume with these options.
pub fn mounted_with(set: impl FnOnce(&mut Options)) -> Mounted {
    let memory = Arc::new(MemDevice::new(DEVICE_BYTES));
    let device = Arc::new(FaultyDevice::new(memory.clone()));
    let shared = || device.clone() as Arc<dyn Device>;
    let options = FormatOptions { created_ns: 1_700_000_000_000_000_000, ..FormatOptions::default() };
    format(vec![NewDevice::new(shared())], &options).unwrap();
    let foundation = open_rw(vec![shared()], OpenOptions::default(), &WriteOptions::default()).unwrap();
    let engine = EngineOptions { seed: 1, restart_one_in: 0 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 32 << 20, threads: true }).unwrap();
    let clock = Arc::new(SystemWallClock);
    let writable = Writable::new(WriteFs::new(live, WriteFsOptions::new(clock, 1)).unwrap()).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    let mut options = Options::new("/dev/memory".into());
    options.read_only = false;
    set(&mut options);
    let mount = frazil_fuse::mount(Arc::clone(writable.fs()), &dir, &options).unwrap();
    frazil_testing::expect_io_uring(|| mount.queues().map(|queues| queues as u64));
    let at = locate(&dir).unwrap();
    Mounted { memory, device, writable, mount, at, dir, _temporary: temporary }
}

impl Mounted {
    pub fn client(&self) -> Client {
        Client::connect(&self.at).unwrap()
    }

    pub fn status(&self) -> StatusReport {
        self.client().ask(&Request::Status).unwrap()
    }

    /// Runs something while a write hangs in the device.
    pub fn while_hanging(&self, run: impl FnOnce()) {
        self.device.inject(Fault::writes().hanging());
        thread::scope(|scope| {
            // Also if a test fails: the writer could not be waited for otherwise.
            let healed = Healed(&self.device);
            let writer = scope.spawn(|| fs::write(self.dir.join("file"), vec![7; 1 << 20]));
            let begin = Instant::now();
            let waits = || self.status().waiting.iter().any(|waiting| waiting.name == "write");
            while self.device.hanging() == 0 || !waits() {
                assert!(begin.elapsed() < LONG);
            }
            run();
            drop(healed);
            writer.join().unwrap().unwrap();
        });
        assert_eq!(fs::read(self.dir.join("file")).unwrap(), vec![7; 1 << 20]);
    }

    /// Everything works, and stops cleanly.
    pub fn end(self) {
        let hold: HoldReport = self.client().ask(&freeze(LONG)).unwrap();
        self.client().ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
        self.stop(true);
    }

    /// Unmounts it. The volume must be right, and clean if it is to be. What the device holds then.
    pub fn stop(self, clean: bool) -> Volume {
        let begin = Instant::now();
        // Somebody else on the machine may be looking at all mounts.
        while let Err(error) = self.mount.unmount() {
            assert!(matches!(error, Error::Busy(_)) && begin.elapsed() < LONG, "{error}");
            thread::sleep(Duration::from_millis(2));
        }
        drop(self.mount);
        assert_eq!(self.writable.stop().is_ok(), clean);
        let volume = read(&self.memory);
        assert_eq!(matches!(volume.recovery(), Recovery::Clean { .. }), clean, "{:?}", volume.recovery());
        assert_right(&volume, clean);
        volume
    }
}

/// What a copy of the device holds.
pub fn read(memory: &MemDevice) -> Volume {
    let device = Arc::new(memory.snapshot().read_only()) as Arc<dyn Device>;
    open(vec![device], OpenOptions::default()).unwrap()
}

/// Nothing may be wrong; what waits to be done is a fault only in a clean volume.
#[track_caller]
pub fn assert_right(volume: &Volume, clean: bool) {
    let report = check(volume);
    let wrong = report.findings.iter().filter(|f| clean || f.severity() != Severity::Pending);
    assert_eq!(wrong.map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
}

/// Heals a device when it is dropped.
struct Healed<'d>(&'d FaultyDevice);

impl Drop for Healed<'_> {
    fn drop(&mut self) {
        self.0.heal();
    }
}

/// A freeze that is given up when it takes longer than `drain`.
pub fn freeze(drain: Duration) -> Request {
    let drain_ms = Some(drain.as_millis() as u64);
    Request::Freeze { who: "a test".into(), bound: false, share: true, hold_ms: None, drain_ms }
}
