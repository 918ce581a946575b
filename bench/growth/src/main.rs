//! `frazil-bench-growth`: what an insert costs, and how much memory it all takes, from ten thousand keys to ten million.
//!
//! ```text
//! ./x bench growth [--keys N] [--dir DIR]
//! ```
//!
//! Keys of 5 + 4 words go into the xattrs b-tree of a volume in a file, eight in a transaction, in ascending and in random order.
//! Nothing is read before; what a table shows is what the engine does on its way: journal, splits, write-back, reclaim, on however many
//! threads it has. At each power of ten (and half of it) the time since the last mark is divided by the keys since then. The same keys go
//! into the standard library's `BTreeMap` in memory, in the same run, for comparison.
//!
//! Memory is what the process has resident above what it had before, so the cache of nodes is in it (96 MiB if full). For each order the program
//! starts itself again: what an allocator keeps back would hide what the next one takes.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use frazil_bench_common::{Outcome, exit};
use frazil_btree::write::{CommitError, CommitOptions, EngineOptions};
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_volume::OpenOptions;
use frazil_volume::build::{FormatOptions, NewDevice, format};
use frazil_volume::open::CACHE_BYTES_DEFAULT;
use frazil_volume::write::{Live, LiveOptions, WriteOptions, open_rw};

/// Keys of one transaction.
const BATCH: u64 = 8;
/// The file that is the device: sparse.
const DEVICE_BYTES: u64 = 16 << 30;

/// Measures inserts into a growing b-tree.
#[derive(Parser)]
#[command(name = "growth")]
struct Cli {
    /// How many keys there are in the end
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    keys: u64,
    /// Where the volume is made [default: target/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only this order: ascending or random
    #[arg(long, value_name = "ORDER")]
    order: Option<String>,
}

/// What was seen when there were so many keys.
struct Mark {
    keys: u64,
    ns_per_key: f64,
    resident_bytes: u64,
    nodes: usize,
    journal_bytes: u64,
}

fn main() -> ExitCode {
    exit(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Outcome {
    let dir = cli.dir.clone().unwrap_or_else(|| PathBuf::from("target/bench"));
    std::fs::create_dir_all(&dir)?;
    if cli.order.is_none() {
        for order in ["ascending", "random"] {
            let again = std::env::args_os().skip(1).chain(["--order".into(), order.into()]);
            let status = std::process::Command::new(std::env::current_exe()?).args(again).status()?;
            if !status.success() {
                return Err(format!("{order} order: {status}").into());
            }
        }
        return Ok(());
    }
    for (order, next) in [("ascending", ascending as fn(u64) -> u64), ("random", scattered)] {
        if cli.order.as_deref() != Some(order) {
            continue;
        }
        let file = tempfile::Builder::new().prefix("growth").tempfile_in(&dir)?;
        let marks = volume_marks(file.path(), cli.keys, next)?;
        let map = map_marks(cli.keys, next);
        table(order, &marks, &map);
    }
    Ok(())
}

fn ascending(n: u64) -> u64 {
    n
}

/// Every number once, in no order: multiplication by an odd number permutes the numbers below 2^40.
fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9e_3779_b97f) & ((1 << 40) - 1)
}

/// Whether to look when there are so many keys: at 1, 2 and 5 times each power of ten.
fn is_mark(keys: u64) -> bool {
    let mut power = 10_000;
    while power <= keys {
        if [power, 2 * power, 5 * power].contains(&keys) {
            return true;
        }
        power *= 10;
    }
    false
}

fn key(n: u64, next: fn(u64) -> u64) -> KeyBuf {
    let value: Vec<u8> = [n, !n, n << 7, n >> 3].iter().flat_map(|word| word.to_le_bytes()).collect();
    KeyBuf::new(KeyType::COOKIE, Bpos::new(1 << 32, next(n), u32::MAX), 0, value)
}

/// Nanoseconds per key of a map in memory, at each mark.
fn map_marks(keys: u64, next: fn(u64) -> u64) -> Vec<f64> {
    let (mut map, mut marks, mut since) = (BTreeMap::new(), Vec::new(), (Instant::now(), 0));
    for n in 0..keys {
        let key = key(n, next);
        map.insert(key.k.pos, key.value);
        if is_mark(n + 1) {
            marks.push(since.0.elapsed().as_nanos() as f64 / (n + 1 - since.1) as f64);
            since = (Instant::now(), n + 1);
        }
    }
    marks
}

fn open_device(path: &Path) -> Outcome<Arc<dyn Device>> {
    Ok(Arc::new(DeviceOptions::new(Access::ReadWrite).open(path)?))
}

fn volume_marks(path: &Path, keys: u64, next: fn(u64) -> u64) -> Outcome<Vec<Mark>> {
    std::fs::File::options().write(true).open(path)?.set_len(DEVICE_BYTES)?;
    format(vec![NewDevice::new(open_device(path)?)], &FormatOptions::default())?;
    let resident_before = resident()?;
    let foundation = open_rw(vec![open_device(path)?], OpenOptions::default(), &WriteOptions::default())?;
    let engine = EngineOptions { seed: fastrand::u64(..), restart_one_in: 0 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: CACHE_BYTES_DEFAULT, threads: true })?;
    let (mut marks, mut since) = (Vec::new(), (Instant::now(), 0));
    let mut n = 0;
    while n < keys {
        let to = (n + BATCH).min(keys);
        let done = live.engine().run(CommitOptions::default(), |t| {
            (n..to).for_each(|n| t.put(BtreeId::XATTRS, key(n, next)));
            Ok::<(), CommitError>(())
        });
        done?;
        n = to;
        if is_mark(n) {
            let ns_per_key = since.0.elapsed().as_nanos() as f64 / (n - since.1) as f64;
            since = (Instant::now(), n);
            marks.push(Mark {
                keys: n,
                ns_per_key,
                resident_bytes: resident()?.saturating_sub(resident_before),
                nodes: live.btrees().cache_stats().nodes,
                journal_bytes: live.journal().status().counters.bytes_written,
            });
        }
    }
    let stopping = Instant::now();
    live.stop()?;
    println!("{keys} keys; stopped and clean after {:.2} s more", stopping.elapsed().as_secs_f64());
    Ok(marks)
}

/// Bytes of this process in memory.
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("VmRSS without a number")?.parse()?;
    Ok(kib << 10)
}

fn table(order: &str, marks: &[Mark], map: &[f64]) {
    println!("\n{order} order");
    println!(
        "{:>11} {:>9} {:>10} {:>9} {:>7} {:>12}",
        "keys", "ns/key", "× BTreeMap", "memory", "nodes", "journal"
    );
    for (mark, map) in marks.iter().zip(map) {
        println!(
            "{:>11} {:>9.0} {:>10.2} {:>5} MiB {:>7} {:>8} MiB  {}",
            mark.keys,
            mark.ns_per_key,
            mark.ns_per_key / map,
            mark.resident_bytes >> 20,
            mark.nodes,
            mark.journal_bytes >> 20,
            "#".repeat((mark.ns_per_key / 100.0).min(60.0) as usize)
        );
    }
    println!("# is 100 ns per key");
}
