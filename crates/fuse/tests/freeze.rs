//! Freezing a mount whose device hangs: what a freeze waits for, and what is left of one that nobody waits for any more.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use frazil_btree::write::EngineOptions;
use frazil_device::mounts::Mount as MountTable;
use frazil_device::{Device, MemDevice, Result};
use frazil_fuse::control::{CallError, Client, HoldReport, Request, StatusReport, locate, write_back};
use frazil_fuse::{Mount, Options, Writable};
use frazil_posix::write::{WriteFs, WriteFsOptions};
use frazil_volume::OpenOptions;
use frazil_volume::build::{Builder, FormatOptions, NewDevice};
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use parking_lot::{Condvar, Mutex};

/// A limit that no step of a test that succeeds comes near.
const LONG: Duration = Duration::from_secs(20);

/// A device in memory whose writes hang when told so.
#[derive(Debug)]
struct Hanging {
    inner: MemDevice,
    hang: Mutex<bool>,
    released: Condvar,
}

impl Hanging {
    fn set_hang(&self, hang: bool) {
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

struct Mounted {
    device: Arc<Hanging>,
    writable: Writable,
    mount: Mount,
    at: MountTable,
    dir: PathBuf,
    _temporary: tempfile::TempDir,
}

fn mounted() -> Mounted {
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
    let mount = frazil_fuse::mount(Arc::clone(writable.fs()), &dir, &options).unwrap();
    let at = locate(&dir).unwrap();
    Mounted { device, writable, mount, at, dir, _temporary: temporary }
}

impl Mounted {
    fn client(&self) -> Client {
        Client::connect(&self.at).unwrap()
    }

    fn status(&self) -> StatusReport {
        self.client().ask(&Request::Status).unwrap()
    }

    /// Runs something while a write hangs in the device.
    fn while_hanging(&self, run: impl FnOnce()) {
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
    fn end(self) {
        let hold: HoldReport = self.client().ask(&freeze(LONG)).unwrap();
        self.client().ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
        self.mount.unmount().unwrap();
        drop(self.mount);
        self.writable.stop().unwrap();
    }
}

fn freeze(drain: Duration) -> Request {
    let drain_ms = Some(drain.as_millis() as u64);
    Request::Freeze { who: "a test".into(), bound: false, share: true, hold_ms: None, drain_ms }
}

#[test]
fn a_freeze_that_takes_too_long_says_what_it_waits_for() {
    let m = mounted();
    m.while_hanging(|| {
        let asked = m.client().ask::<HoldReport>(&freeze(Duration::from_millis(300)));
        let Err(CallError::Failed(failure)) = asked else { panic!("{asked:?}") };
        assert_eq!(failure.errno, libc::ETIMEDOUT);
        assert!(failure.why.contains("did not come to rest in time"), "{}", failure.why);
        assert!(failure.why.contains("; write of process "), "{}", failure.why);
        assert_eq!(m.status().lifecycle.holders, []);
    });
    let begin = Instant::now();
    while m.status().lifecycle.state != "read-write" {
        assert!(begin.elapsed() < LONG);
    }
    m.end();
}

#[test]
fn a_freezer_that_dies_while_it_waits_is_forgotten() {
    let m = mounted();
    m.while_hanging(|| {
        {
            // A client that dies is its socket being closed.
            let name = format!("frazil/{}", m.at.number);
            let address = SocketAddr::from_abstract_name(name).unwrap();
            let mut client = UnixStream::connect_addr(&address).unwrap();
            let wish = r#"{"version":1,"do":"freeze","who":"a test","bound":true,"share":true}"#;
            client.write_all(format!("{wish}\n").as_bytes()).unwrap();
            let begin = Instant::now();
            while m.status().lifecycle.state != "freezing" {
                assert!(begin.elapsed() < LONG);
            }
            drop(client);
        }
    });
    let begin = Instant::now();
    while m.status().lifecycle.state != "read-write" {
        assert!(begin.elapsed() < LONG, "{:?}", m.status().lifecycle);
    }
    assert_eq!(m.status().lifecycle.holders, []);
    m.end();
}

#[test]
fn what_waits_for_a_thaw_does_not_keep_others_from_syncing() {
    let m = mounted();
    fs::write(m.dir.join("file"), b"x").unwrap();
    let hold: HoldReport = m.client().ask(&freeze(LONG)).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| fs::write(m.dir.join("file"), b"later"));
        let begin = Instant::now();
        while m.status().waiting_count == 0 {
            assert!(begin.elapsed() < LONG);
        }
        assert!(write_back(&mut m.client(), &m.dir, LONG).unwrap());
        m.client().ask::<()>(&Request::Sync).unwrap();
        assert!(!writer.is_finished());
        m.client().ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(fs::read(m.dir.join("file")).unwrap(), b"later");
    m.end();
}
