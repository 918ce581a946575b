//! Volumes in which buckets were emptied by moving what was in them, as the real driver sees them: it must find nothing to repair, show the tree
//! that we see, and write on.
//!
//! One boot for all kinds of volumes. In each, files are overwritten in part, shared, and seen through snapshots, while buckets are emptied all the
//! time; it ends stopped, or as if the power had failed.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a panic is how a test fails; what is shared is public"
)]

mod same_tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_journal::engine::HaltReason;
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_oracle::{Job, Mount, Oracle};
use frazil_posix::NodeId;
use frazil_posix::write::{Allocate, Caller, NewNode, WriteFs, WriteFsOptions};
use frazil_volume::build::{Encryption, FormatOptions, NewDevice, format};
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};
use frazil_volume::{OpenOptions, Passphrase, open};
use zeroize::Zeroizing;

use same_tree::assert_same_tree;

const PASSPHRASE: &[u8] = b"open";
const ROOT: &Caller<'static> = &Caller::ROOT;
const FILES: u32 = 24;
const CHANGES: u32 = 700;

/// A kind of volume.
struct Case {
    name: &'static str,
    devices: usize,
    encrypted: bool,
    settings: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 6] = [
    Case { name: "plain", devices: 1, encrypted: false, settings: &[("btree_node_size", "32k")] },
    Case { name: "nosum", devices: 1, encrypted: false, settings: &[("data_checksum", "none")] },
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
        settings: &[("data_replicas", "2"), ("metadata_replicas", "2"), ("data_checksum", "xxhash")],
    },
    Case { name: "narrow", devices: 1, encrypted: true, settings: &[] },
    Case {
        name: "secret",
        devices: 2,
        encrypted: true,
        settings: &[("compression", "zstd"), ("data_replicas", "2"), ("wide_macs", "1")],
    },
];

impl Case {
    fn paths(&self, dir: &Path) -> Vec<PathBuf> {
        (0..self.devices).map(|n| dir.join(format!("{}.{n}", self.name))).collect()
    }

    fn make(&self, paths: &[PathBuf]) {
        let open = |path: &PathBuf| {
            let device = DeviceOptions::new(Access::ReadWrite).create_bytes(96 << 20).open(path).unwrap();
            let new = NewDevice::new(Arc::new(device) as Arc<dyn Device>);
            NewDevice { bucket_bytes: Some(256 << 10), ..new }
        };
        let setting = |(name, value): &(&str, &str)| {
            let spec = OptionSpec::by_name(name).unwrap();
            (spec, spec.parse(value).unwrap())
        };
        let encryption = match self.encrypted {
            true => Encryption::Passphrase(Zeroizing::new(PASSPHRASE.to_vec())),
            false => Encryption::Off,
        };
        let options = FormatOptions {
            encryption,
            settings: self.settings.iter().map(setting).collect(),
            ..FormatOptions::default()
        };
        format(paths.iter().map(open).collect(), &options).unwrap();
    }
}

fn devices(paths: &[PathBuf], access: Access) -> Vec<Arc<dyn Device>> {
    let open = |path: &PathBuf| Arc::new(DeviceOptions::new(access).open(path).unwrap()) as Arc<dyn Device>;
    paths.iter().map(open).collect()
}

/// Options with the passphrase.
fn with_passphrase<T>(f: impl FnOnce(OpenOptions<'_>) -> T) -> T {
    let mut ask = |_: &str| Ok(Zeroizing::new(PASSPHRASE.to_vec()));
    f(OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() })
}

/// Changes files of a volume, and empties buckets all the time.
fn use_volume(paths: &[PathBuf], seed: u64, clean: bool) {
    let all = devices(paths, Access::ReadWrite);
    let foundation = with_passphrase(|options| open_rw(all, options, &WriteOptions::default())).unwrap();
    let engine = EngineOptions { seed, restart_one_in: 50 };
    let options = LiveOptions { engine, cache_bytes: 32 << 20, threads: true };
    let live = Live::start(foundation, &options).unwrap();
    let fs = WriteFs::new(live, WriteFsOptions::new(Arc::new(SystemWallClock), seed)).unwrap();
    let front = fs.front(FrontKind::Background).unwrap();
    let work = front.create_subvolume(NodeId::ROOT, b"work", 0o755, ROOT).unwrap().node;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut files = Vec::new();
    for n in 0..FILES {
        let file =
            front.create(work, format!("file{n}").as_bytes(), NewNode::File, 0o644, ROOT).unwrap().node;
        front.write(file, 0, &data(&mut rng, 400_000), ROOT).unwrap();
        files.push(file);
    }
    for n in 0..CHANGES {
        let file = files[rng.usize(0..files.len())];
        let (at, len) = (rng.u64(0..300_000), rng.usize(1..20_000));
        match n % 8 {
            0 => {
                let whole = at / 4096 * 4096;
                front.allocate(file, whole..whole + 16_384, Allocate::Punch, ROOT).unwrap();
            }
            1 => {
                let other = files[rng.usize(0..files.len())];
                let (from, to) = (at / 4096 * 4096, rng.u64(0..300_000) / 4096 * 4096);
                // Parts of a file that overlap are refused.
                let _ = front.clone_range(file, from..from + 65_536, other, to, ROOT);
            }
            _ => drop(front.write(file, at, &data(&mut rng, len), ROOT).unwrap()),
        }
        if n % 200 == 50 {
            let name = format!("snapshot{n}");
            front.create_snapshot(work.subvol, NodeId::ROOT, name.as_bytes(), n % 400 == 50, ROOT).unwrap();
        }
        if n % 3 == 0 {
            fs.live().room().empty_a_bucket().unwrap();
        }
    }
    drop(front);
    let moved = fs.live().room().moved();
    println!("{}: {moved:?}", paths[0].display());
    assert!(moved.buckets > 100 && moved.hopeless == 0, "{moved:?}");
    if clean {
        fs.live().stop().unwrap();
    } else {
        fs.sync().unwrap();
        fs.live().journal().halt(HaltReason::Requested("the power fails".to_owned()));
    }
}

/// Half of it can be compressed.
fn data(rng: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    (0..len).map(|i| if i / 2000 % 2 == 0 { rng.u8(..) } else { 7 }).collect()
}

#[test]
fn the_driver_finds_nothing_wrong_with_what_was_moved() {
    let dir = tempfile::tempdir().unwrap();
    let mut jobs = Vec::new();
    for (seed, case) in CASES.iter().enumerate() {
        let paths = case.paths(dir.path());
        case.make(&paths);
        use_volume(&paths, seed as u64, seed % 2 == 0);
        let change =
            "echo more >work/more; dd if=/dev/urandom of=work/file1 bs=4k count=20 conv=notrunc; sync";
        let job = Job::new(case.name, &paths)
            .mount(Mount::fsck().walk())
            .mount(Mount::plain().script(change))
            .mount(Mount::fsck().walk());
        jobs.push(if case.encrypted { job.passphrase(PASSPHRASE) } else { job });
    }
    let verdicts = Oracle::new().unwrap().batch(jobs).unwrap();
    let objections: Vec<String> = verdicts.iter().flat_map(|verdict| verdict.objections()).collect();
    assert_eq!(objections, [""; 0]);
    assert_eq!(verdicts.len(), CASES.len());
    for (case, verdict) in CASES.iter().zip(&verdicts) {
        let ours = devices(&case.paths(dir.path()), Access::ReadOnly);
        let volume = with_passphrase(|options| open(ours, options)).unwrap();
        assert_same_tree(volume, verdict.mounts[0].tree.as_ref().unwrap(), case.name);
    }
}
