//! A new volume in a file, mounted by this process, for the tests that show what a mount in use leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_fuse::control::{Client, locate};
use frazil_fuse::{Mount, Options, Writable};
use frazil_posix::write::{WriteFs, WriteFsOptions};
use frazil_volume::OpenOptions;
use frazil_volume::build::{Builder, FormatOptions, NewDevice};
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};

pub(crate) struct Mounted {
    pub(crate) image: PathBuf,
    /// Where it is mounted.
    pub(crate) dir: PathBuf,
    pub(crate) client: Client,
    mount: Mount,
    writable: Writable,
}

impl Mounted {
    /// A volume of this size in the file "image", mounted at "mnt", both in `files`.
    pub(crate) fn new(files: &Path, bytes: u64) -> Mounted {
        make(&files.join("image"), bytes);
        fs::create_dir(files.join("mnt")).unwrap();
        Mounted::again(files, &WriteOptions::default())
    }

    /// One that there is already.
    pub(crate) fn again(files: &Path, write: &WriteOptions) -> Mounted {
        let (image, dir) = (files.join("image"), files.join("mnt"));
        let writable = open(&image, write);
        let mut options = Options::new(image.display().to_string());
        options.read_only = false;
        let mount = frazil_fuse::mount(Arc::clone(writable.fs()), &dir, &options).unwrap();
        let client = Client::connect(&locate(&dir).unwrap()).unwrap();
        Mounted { image, dir, client, mount, writable }
    }

    /// Unmounts it and stops, cleanly.
    pub(crate) fn end(self) {
        self.end_somehow().unwrap();
    }

    /// Unmounts it and stops.
    pub(crate) fn end_somehow(self) -> Result<(), String> {
        let Mounted { client, mount, writable, .. } = self;
        drop(client);
        mount.unmount().unwrap();
        drop(mount);
        writable.stop()
    }
}

fn make(path: &Path, bytes: u64) {
    let device = DeviceOptions::new(Access::ReadWrite).create_bytes(bytes).open(path).unwrap();
    let options = FormatOptions { created_ns: 1_700_000_000_000_000_000, ..FormatOptions::default() };
    let devices = vec![NewDevice::new(Arc::new(device) as Arc<dyn Device>)];
    let mut builder = Builder::new(devices, &options).unwrap();
    builder.push_first_subvolume().unwrap();
    builder.push_empty_root().unwrap();
    builder.finish().unwrap();
}

fn open(path: &Path, write: &WriteOptions) -> Writable {
    let device = Arc::new(DeviceOptions::new(Access::ReadWrite).open(path).unwrap()) as Arc<dyn Device>;
    let foundation = open_rw(vec![device], OpenOptions::default(), write).unwrap();
    let engine = EngineOptions { seed: 1, restart_one_in: 0 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 32 << 20, threads: true }).unwrap();
    let clock = Arc::new(SystemWallClock);
    Writable::new(WriteFs::new(live, WriteFsOptions::new(clock, 1)).unwrap()).unwrap()
}
