//! A mount of a volume in memory whose device hangs when told so.
// Each test program uses a part of this, and a test fails by panicking.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use frazil_btree::write::EngineOptions;
use frazil_device::mounts::Mount as MountTable;
use frazil_device::{Device, MemDevice, Result};
use frazil_fuse::control::{Client, HoldReport, Request, StatusReport, locate};
use frazil_fuse::{Mount, Options, Writable};
use frazil_posix::write::{WriteFs, WriteFsOptions};
use frazil_volume::OpenOptions;
use frazil_volume::build::{Builder, FormatOptions, NewDevice};
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use parking_lot::{Condvar, Mutex};

/// A limit that no step of a test that succeeds comes near.
pub const LONG: Duration = Duration::from_secs(20);

/// A device in memory whose writes hang when told so.
#[derive(Debug)]
pub struct Hanging {
    inner: MemDevice,
    hang: Mutex<bool>,
    released: Condvar,
}

impl Hanging {
    pub fn set_hang(&self, hang: bool) {
        *self.hang.lock() = hang;
        self.released.notify_all();
    }
}

impl Device for Hanging {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset_bytes, buf)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let mut hang = self.hang.lock();
        while *hang {
            self.released.wait(&mut hang);
        }
        drop(hang);
        self.inner.write_at(offset_bytes, data)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.inner.discard(offset_bytes, len_bytes)
    }
}

pub struct Mounted {
    pub device: Arc<Hanging>,
    writable: Writable,
    mount: Mount,
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
    let inner = MemDevice::new(64 << 20);
    let device = Arc::new(Hanging { inner, hang: Mutex::new(false), released: Condvar::new() });
    let options = FormatOptions { created_ns: 1_700_000_000_000_000_000, ..FormatOptions::default() };
    let devices = vec![NewDevice::new(device.clone() as Arc<dyn Device>)];
    let mut builder = Builder::new(devices, &options).unwrap();
    builder.push_first_subvolume().unwrap();
    builder.push_empty_root().unwrap();
    builder.finish().unwrap();
    let devices = vec![device.clone() as Arc<dyn Device>];
    let foundation = open_rw(devices, OpenOptions::default(), &WriteOptions::default()).unwrap();
    let engine = EngineOptions { seed: 1, restart_one_in: 0 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 32 << 20, threads: true }).unwrap();
    let clock = Arc::new(SystemWallClock);
    let writable = Writable::new(WriteFs::new(live, WriteFsOptions { clock, seed: 1 }).unwrap()).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().canonicalize().unwrap();
    let mut options = Options::new("memory".into());
    options.read_only = false;
    set(&mut options);
    let mount = frazil_fuse::mount(Arc::clone(writable.fs()), &dir, &options).unwrap();
    let at = locate(&dir).unwrap();
    Mounted { device, writable, mount, at, dir, _temporary: temporary }
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
        self.device.set_hang(true);
        thread::scope(|scope| {
            let writer = scope.spawn(|| fs::write(self.dir.join("file"), vec![7; 1 << 20]));
            let begin = Instant::now();
            while self.status().waiting_count == 0 {
                assert!(begin.elapsed() < LONG);
            }
            run();
            self.device.set_hang(false);
            writer.join().unwrap().unwrap();
        });
        assert_eq!(fs::read(self.dir.join("file")).unwrap(), vec![7; 1 << 20]);
    }

    /// Everything works, and stops cleanly.
    pub fn end(self) {
        let hold: HoldReport = self.client().ask(&freeze(LONG)).unwrap();
        self.client().ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
        self.mount.unmount().unwrap();
        drop(self.mount);
        self.writable.stop().unwrap();
    }
}

/// A freeze that is given up when it takes longer than `drain`.
pub fn freeze(drain: Duration) -> Request {
    let drain_ms = Some(drain.as_millis() as u64);
    Request::Freeze { who: "a test".into(), bound: false, share: true, hold_ms: None, drain_ms }
}
