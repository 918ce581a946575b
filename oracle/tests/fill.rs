//! Trees that `frazil` copied into new volumes, as the real driver sees them: it must find nothing to repair and show every file as
//! it was.
//!
//! One boot for all combinations of options. With `FRAZIL_FILL=large` the tree has a hundred thousand files, a directory of fifty
//! thousand entries, two hundred levels and a file of eight tebibytes, which takes the machine some minutes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_oracle::{Job, Oracle};
use frazil_posix::NodeId;
use frazil_posix::fill::{self, Counts};
use frazil_posix::write::{Caller, WriteFs, WriteFsOptions};
use frazil_testing::sample;
use frazil_volume::OpenOptions;
use frazil_volume::build::{Builder, Encryption, FormatOptions, NewDevice};
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use zeroize::Zeroizing;

const PASSPHRASE: &[u8] = b"open";

/// A kind of volume.
struct Case {
    name: &'static str,
    devices: usize,
    encrypted: bool,
    settings: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 8] = [
    Case { name: "plain", devices: 1, encrypted: false, settings: &[] },
    Case {
        name: "nosum",
        devices: 1,
        encrypted: false,
        settings: &[("data_checksum", "none"), ("str_hash", "crc32c")],
    },
    Case {
        name: "lz4",
        devices: 1,
        encrypted: false,
        settings: &[("compression", "lz4"), ("data_checksum", "xxhash")],
    },
    Case {
        name: "gzip",
        devices: 1,
        encrypted: false,
        settings: &[("compression", "gzip"), ("data_checksum", "crc64")],
    },
    Case {
        name: "zstd",
        devices: 1,
        encrypted: false,
        settings: &[("compression", "zstd:10"), ("str_hash", "crc64")],
    },
    Case {
        name: "sectors",
        devices: 1,
        encrypted: false,
        settings: &[("block_size", "512"), ("compression", "lz4"), ("btree_node_size", "64k")],
    },
    Case {
        name: "copies",
        devices: 3,
        encrypted: false,
        settings: &[("data_replicas", "2"), ("metadata_replicas", "2")],
    },
    Case {
        name: "secret",
        devices: 2,
        encrypted: true,
        settings: &[("compression", "zstd"), ("data_replicas", "2"), ("wide_macs", "1")],
    },
];

fn make(dir: &Path, tree: &Path, case: &Case, bytes: u64) -> Vec<PathBuf> {
    let path = |n| dir.join(format!("{}.{n}", case.name));
    let paths: Vec<PathBuf> = (0..case.devices).map(path).collect();
    let open = |path: &PathBuf| {
        let device = DeviceOptions::new(Access::ReadWrite).create_bytes(bytes).open(path).unwrap();
        NewDevice::new(Arc::new(device) as Arc<dyn Device>)
    };
    let setting = |(name, value): &(&str, &str)| {
        let spec = OptionSpec::by_name(name).unwrap();
        (spec, spec.parse(value).unwrap())
    };
    let encryption = match case.encrypted {
        true => Encryption::Passphrase(Zeroizing::new(PASSPHRASE.to_vec())),
        false => Encryption::Off,
    };
    let options = FormatOptions {
        created_ns: 1_700_000_000_000_000_000,
        encryption,
        settings: case.settings.iter().map(setting).collect(),
        ..FormatOptions::default()
    };
    let mut builder = Builder::new(paths.iter().map(open).collect(), &options).unwrap();
    builder.push_first_subvolume().unwrap();
    let from = fill::Source::directory(tree, Vec::new());
    fill::fill(&mut builder, from, 2, &Counts::default()).unwrap();
    builder.finish().unwrap();
    paths
}

/// A volume that held a file, into which the tree was copied while it was in use.
fn import(dir: &Path, tree: &Path) -> Vec<PathBuf> {
    let old = dir.join("old");
    std::fs::create_dir_all(old.join("many/000/0")).unwrap();
    std::fs::write(old.join("many/000/0/file 0"), b"was there").unwrap();
    let case = Case {
        name: "import",
        devices: 2,
        encrypted: false,
        settings: &[("compression", "zstd"), ("data_replicas", "2"), ("metadata_replicas", "2")],
    };
    let paths = make(dir, &old, &case, 256 << 20);
    let open = |path: &PathBuf| {
        Arc::new(DeviceOptions::new(Access::ReadWrite).open(path).unwrap()) as Arc<dyn Device>
    };
    let devices = paths.iter().map(open).collect();
    let foundation = open_rw(devices, OpenOptions::default(), &WriteOptions::default()).unwrap();
    let engine = EngineOptions { seed: 1, restart_one_in: 0 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 32 << 20, threads: true }).unwrap();
    let fs = WriteFs::new(live, WriteFsOptions::new(Arc::new(SystemWallClock), 1)).unwrap();
    let front = fs.front(FrontKind::Names).unwrap();
    front.unlink(at(&fs, &["many", "000", "0"]), b"file 0", &Caller::ROOT).unwrap();
    drop(front);
    fill::import(&fs, NodeId::ROOT, fill::Source::directory(tree, Vec::new()), &Counts::default()).unwrap();
    fs.live().stop().unwrap();
    paths
}

/// The directory at the end of some names.
fn at(fs: &WriteFs, names: &[&str]) -> NodeId {
    names.iter().fold(NodeId::ROOT, |dir, name| fs.lookup(dir, name.as_bytes()).unwrap().node)
}

#[test]
fn the_driver_shows_what_was_imported() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    sample::tree(&tree, sample::Size { small_files: 150, ..sample::Size::SMALL }).unwrap();
    let paths = import(dir.path(), &tree);
    let job = Job::check_against("import", paths, sample::manifest(&tree).unwrap());
    let verdicts = Oracle::new().unwrap().batch([job]).unwrap();
    assert_eq!(verdicts[0].objections(), [""; 0]);
}

#[test]
fn the_driver_shows_what_was_copied() {
    let large = std::env::var_os("FRAZIL_FILL").is_some_and(|value| value == "large");
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    sample::tree(&tree, if large { sample::Size::LARGE } else { sample::Size::SMALL }).unwrap();
    let manifest = sample::manifest(&tree).unwrap();
    let (cases, bytes) = if large { (&CASES[..1], 2 << 30) } else { (&CASES[..], 256 << 20) };
    let jobs = cases.iter().map(|case| {
        let paths = make(dir.path(), &tree, case, bytes);
        let job = Job::check_against(case.name, paths, manifest.clone());
        let job = if large { job.timeout(Duration::from_secs(3600)) } else { job };
        if case.encrypted { job.passphrase(PASSPHRASE) } else { job }
    });
    let verdicts = Oracle::new().unwrap().batch(jobs).unwrap();
    let objections: Vec<String> = verdicts.iter().flat_map(|verdict| verdict.objections()).collect();
    assert_eq!(objections, [""; 0]);
    assert_eq!(verdicts.len(), cases.len());
}
