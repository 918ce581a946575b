//! The content of files, changed at random, beside arrays of bytes; after a stop and after a crash it is what it was, and the checker finds
//! nothing.
//!
//! `CONTENT_SEED=n` repeats a failing run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use frazil_btree::write::EngineOptions;
use frazil_device::{Device, MemDevice};
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_posix::NodeId;
use frazil_posix::write::{Allocate, Caller, Front, NewNode, WriteFs, WriteFsOptions};
use frazil_volume::build::{Encryption, FormatOptions, NewDevice, format};
use frazil_volume::check::{Severity, check};
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::write::{Live, LiveOptions, WallClock, WriteOptions, open_rw};
use frazil_volume::{OpenOptions, Passphrase, open};
use zeroize::Zeroizing;

/// A time of day that stands still.
struct Clock;

impl WallClock for Clock {
    fn now(&self) -> Duration {
        Duration::from_secs(1_800_000_000)
    }
}

struct Case {
    settings: &'static [(&'static str, &'static str)],
    devices: usize,
    encrypted: bool,
}

const CASES: &[Case] = &[
    Case { settings: &[], devices: 1, encrypted: false },
    Case { settings: &[("compression", "lz4"), ("block_size", "512")], devices: 1, encrypted: false },
    Case {
        settings: &[("compression", "zstd:3"), ("data_checksum", "xxhash"), ("data_replicas", "2")],
        devices: 2,
        encrypted: false,
    },
    Case { settings: &[("data_checksum", "none"), ("block_size", "4096")], devices: 1, encrypted: false },
    Case { settings: &[("compression", "gzip")], devices: 1, encrypted: true },
];

fn front(fs: &WriteFs) -> Front<'_> {
    fs.front(FrontKind::Space).unwrap()
}

fn passphrase<R>(f: impl FnOnce(OpenOptions<'_>) -> R) -> R {
    let mut ask = |_: &str| Ok(Zeroizing::new(b"a passphrase".to_vec()));
    f(OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() })
}

fn shared(devices: &[Arc<MemDevice>]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect()
}

fn new_volume(case: &Case) -> Vec<Arc<MemDevice>> {
    let devices: Vec<_> = (0..case.devices).map(|_| Arc::new(MemDevice::new(96 << 20))).collect();
    let setting = |(name, text): &(&str, &str)| {
        let spec = OptionSpec::by_name(name).unwrap();
        (spec, spec.parse(text).unwrap())
    };
    let encryption = match case.encrypted {
        true => Encryption::Passphrase(Zeroizing::new(b"a passphrase".to_vec())),
        false => Encryption::Off,
    };
    let settings = case.settings.iter().map(setting).collect();
    let options = FormatOptions { settings, encryption, ..FormatOptions::default() };
    format(shared(&devices).into_iter().map(NewDevice::new).collect(), &options).unwrap();
    devices
}

fn start(devices: &[Arc<MemDevice>], seed: u64) -> WriteFs {
    let write = WriteOptions { wall: Arc::new(Clock), ..WriteOptions::default() };
    let foundation = passphrase(|options| open_rw(shared(devices), options, &write)).unwrap();
    let engine = EngineOptions { seed, restart_one_in: 15 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 16 << 20, threads: false }).unwrap();
    let fs = WriteFs::new(live, WriteFsOptions::new(Arc::new(Clock), seed)).unwrap();
    front(&fs).finish_interrupted().unwrap();
    fs
}

/// Nothing is wrong, a crash at this moment included.
fn assert_right(devices: &[Arc<MemDevice>], what: &str) {
    let copies = devices.iter().map(|d| Arc::new(d.snapshot()) as Arc<dyn Device>).collect();
    let volume = passphrase(|options| open(copies, options)).unwrap();
    let findings = check(&volume).findings;
    let wrong: Vec<_> = findings.iter().filter(|f| f.severity() != Severity::Pending).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

/// A file and what must be in it.
struct File {
    node: NodeId,
    bytes: Vec<u8>,
}

impl File {
    fn put(&mut self, at: usize, data: &[u8]) {
        self.bytes.resize(self.bytes.len().max(at + data.len()), 0);
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    fn assert_holds(&self, fs: &WriteFs, what: &str) {
        assert_eq!(fs.getattr(self.node).unwrap().size, self.bytes.len() as u64, "{what}");
        let mut read = vec![0xee; self.bytes.len() + 100];
        let mut len = 0;
        loop {
            match fs.read(self.node, len as u64, &mut read[len..]).unwrap() {
                0 => break,
                more => len += more,
            }
        }
        assert_eq!(len, self.bytes.len(), "{what}");
        if let Some(at) = (0..len).find(|&i| read[i] != self.bytes[i]) {
            panic!("{what}: byte {at} is {} and not {}", read[at], self.bytes[at]);
        }
    }
}

fn text(rng: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let repetitive = rng.bool();
    let salt = rng.u8(..);
    (0..len).map(|i| if repetitive { (i / 7) as u8 ^ salt } else { rng.u8(..) }).collect()
}

/// One random change. Returns what it was, for messages.
fn change(fs: &WriteFs, files: &mut [File], rng: &mut fastrand::Rng, block: usize) -> String {
    let root = &Caller::ROOT;
    let n = rng.usize(0..files.len());
    let len = files[n].bytes.len();
    let at = rng.usize(0..len + 5000);
    let most = [100, 5000, 200_000][rng.usize(0..3)];
    let size = rng.usize(1..most);
    let (a, b) = (at / block * block, at / block * block + size.next_multiple_of(block));
    let range = |a: usize, b: usize| a as u64..b as u64;
    match rng.u32(0..12) {
        0..5 => {
            let data = text(rng, size);
            assert_eq!(front(fs).write(files[n].node, at as u64, &data, root).unwrap(), size);
            files[n].put(at, &data);
            format!("write {size} at {at} to {n}")
        }
        5 => {
            front(fs).truncate(files[n].node, at as u64, root).unwrap();
            files[n].bytes.resize(at, 0);
            format!("truncate {n} to {at}")
        }
        6 => {
            front(fs).allocate(files[n].node, range(at, at + size), Allocate::Punch, root).unwrap();
            let end = len.min(at + size);
            if at < end {
                files[n].bytes[at..end].fill(0);
            }
            format!("punch {size} at {at} of {n}")
        }
        7 => {
            let keep_size = rng.bool();
            front(fs)
                .allocate(files[n].node, range(at, at + size), Allocate::Zero { keep_size }, root)
                .unwrap();
            let end = if keep_size { len.min(at + size) } else { at + size };
            if !keep_size {
                files[n].bytes.resize(len.max(end), 0);
            }
            if at < end {
                files[n].bytes[at..end].fill(0);
            }
            format!("zero {size} at {at} of {n}, keep size {keep_size}")
        }
        8 => {
            let keep_size = rng.bool();
            front(fs)
                .allocate(files[n].node, range(at, at + size), Allocate::Reserve { keep_size }, root)
                .unwrap();
            if !keep_size {
                files[n].bytes.resize(len.max(at + size), 0);
            }
            format!("reserve {size} at {at} of {n}, keep size {keep_size}")
        }
        9 if b < len => {
            front(fs).allocate(files[n].node, range(a, b), Allocate::Collapse, root).unwrap();
            files[n].bytes.drain(a..b);
            format!("collapse {a}..{b} of {n}")
        }
        10 if a < len => {
            front(fs).allocate(files[n].node, range(a, b), Allocate::Insert, root).unwrap();
            files[n].bytes.splice(a..a, std::iter::repeat_n(0, b - a));
            format!("insert {a}..{b} into {n}")
        }
        _ => {
            let (from, to) = (n, rng.usize(0..files.len()));
            let end = b.min(len);
            let target = rng.usize(0..20) * block;
            let at_end = target + end.saturating_sub(a) >= files[to].bytes.len();
            if from == to || a >= end || (end < b && !at_end) {
                return "nothing".to_owned();
            }
            let (src, dst) = (files[from].node, files[to].node);
            front(fs).clone_range(src, range(a, end), dst, target as u64, root).unwrap();
            let data = files[from].bytes[a..end].to_vec();
            files[to].put(target, &data);
            if rng.bool() {
                front(fs)
                    .allocate(dst, range(target, target + 1 + data.len() / 2), Allocate::Unshare, root)
                    .unwrap();
                let grown = (target + 1 + data.len() / 2).max(files[to].bytes.len());
                files[to].bytes.resize(grown, 0);
            }
            format!("clone {a}..{end} of {from} to {target} of {to}")
        }
    }
}

fn run(case: &Case, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut devices = new_volume(case);
    let mut fs = start(&devices, seed * 100);
    let block = fs.live().superblock().view().superblock.block_bytes() as usize;
    let root = NodeId::ROOT;
    let mut files: Vec<File> = (0..3)
        .map(|n| {
            let attr =
                front(&fs).create(root, format!("file{n}").as_bytes(), NewNode::File, 0o644, &Caller::ROOT);
            File { node: attr.unwrap().node, bytes: Vec::new() }
        })
        .collect();
    for n in 0..150 {
        let did = change(&fs, &mut files, &mut rng, block);
        let what = format!("CONTENT_SEED={seed} {:?} step {n}: {did}", case.settings);
        if n % 8 == 0 {
            files.iter().for_each(|file| file.assert_holds(&fs, &what));
        }
        fs.live().journal().step();
        while fs.live().room().step().unwrap() {}
        if n % 50 == 49 {
            fs.sync().unwrap();
            assert_right(&devices, &what);
            // The power fails.
            devices = devices.iter().map(|d| Arc::new(d.snapshot())).collect();
            fs = start(&devices, seed * 100 + n);
            files.iter().for_each(|file| file.assert_holds(&fs, &format!("{what}, recovered")));
        }
    }
    fs.live().stop().unwrap();
    drop(fs);
    assert_right(&devices, "stopped");
    let fs = start(&devices, 7);
    files.iter().for_each(|file| file.assert_holds(&fs, "after a stop"));
}

#[test]
fn files_hold_what_was_written() {
    let seed = std::env::var("CONTENT_SEED").ok().map(|seed| seed.parse().unwrap());
    for case in CASES {
        match seed {
            Some(seed) => run(case, seed),
            None => (0..2).for_each(|seed| run(case, seed)),
        }
    }
}
