//! `frazil-bench-moving`: what it costs to overwrite a nearly full volume at random.
//!
//! ```text
//! ./x bench moving [--mib N] [--times N] [--percent N] [--kib N] [--dir DIR]
//! ```
//!
//! A volume in a file is filled up to so many per cent of what it can hold with one large file, in writes of a MiB. Then blocks of it are overwritten
//! at random, in all so many times as much as there is. Buckets become empty only by chance then, so what is left in them must be moved for every new
//! one; how much, the table says: beside what was written, what was moved, and all that went to the device (data, nodes, journal), as the
//! process counts it. Without rows asked for by `--percent` and `--kib`, there are several.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use frazil_bench_common::Outcome;
use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_posix::NodeId;
use frazil_posix::write::{Caller, NewNode, WriteFs, WriteFsOptions};
use frazil_volume::OpenOptions;
use frazil_volume::build::{FormatOptions, NewDevice, format};
use frazil_volume::check::check;
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::open::CACHE_BYTES_DEFAULT;
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};

const MIB: u64 = 1 << 20;
/// Per cent full and KiB of a write, if nothing is asked for.
const ROWS: [(u64, u64); 6] = [(50, 16), (75, 16), (85, 16), (95, 16), (85, 4), (85, 64)];

/// Measures random overwrites of a nearly full volume.
#[derive(Parser)]
#[command(name = "moving")]
struct Cli {
    /// Size of the volume
    #[arg(long, value_name = "N", default_value_t = 1024)]
    mib: u64,
    /// How many times as much as there is is written
    #[arg(long, value_name = "N", default_value_t = 20)]
    times: u64,
    /// Only this full
    #[arg(long, value_name = "N")]
    percent: Option<u64>,
    /// Only writes of this size
    #[arg(long, value_name = "N")]
    kib: Option<u64>,
    /// Where the volume is made [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> Outcome {
    let cli = Cli::parse();
    let wanted = |(percent, kib): &(u64, u64)| {
        cli.percent.is_none_or(|p| p == *percent) && cli.kib.is_none_or(|k| k == *kib)
    };
    let mut rows: Vec<(u64, u64)> = ROWS.into_iter().filter(wanted).collect();
    if rows.is_empty() {
        rows.push((cli.percent.unwrap_or(85), cli.kib.unwrap_or(16)));
    }
    println!("| full | writes of | written | moved | all to the device | buckets emptied | walks | MiB/s |");
    println!("|---|---|---|---|---|---|---|---|");
    for (percent, kib) in rows {
        let dir = match &cli.dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        row(&dir.path().join("volume"), &cli, percent, kib << 10)?;
    }
    Ok(())
}

fn row(path: &Path, cli: &Cli, percent: u64, step: u64) -> Outcome {
    let create = DeviceOptions::new(Access::ReadWrite).create_bytes(cli.mib * MIB);
    let device = Arc::new(create.open(path)?) as Arc<dyn Device>;
    format(vec![NewDevice::new(Arc::clone(&device))], &FormatOptions::default())?;
    let foundation = open_rw(vec![device], OpenOptions::default(), &WriteOptions::default())?;
    let engine = EngineOptions { seed: 1, restart_one_in: 0 };
    let options = LiveOptions { engine, cache_bytes: CACHE_BYTES_DEFAULT, threads: true };
    let live = Live::start(foundation, &options)?;
    let fs = WriteFs::new(Arc::clone(&live), WriteFsOptions::new(Arc::new(SystemWallClock), 1))?;
    let root = &Caller::ROOT;
    let file = fs.front(FrontKind::Names)?.create(NodeId::ROOT, b"file", NewNode::File, 0o644, root)?.node;

    let mut rng = fastrand::Rng::with_seed(percent);
    let mut bytes = vec![0; MIB as usize];
    rng.fill(&mut bytes);
    let mut size = 0;
    while live.space().usage().used.0 < live.space().usage().total.0 / 100 * percent {
        fs.front(FrontKind::Write)?.write(file, size, &bytes, root)?;
        size += MIB;
    }
    let (begun, before) = (Instant::now(), (bytes_written()?, live.room().moved().sectors.0));
    let steps = size / step * cli.times;
    for _ in 0..steps {
        let from = rng.usize(0..bytes.len() - step as usize);
        fs.front(FrontKind::Write)?.write(
            file,
            rng.u64(0..size / step) * step,
            &bytes[from..][..step as usize],
            root,
        )?;
    }
    fs.sync()?;
    let seconds = begun.elapsed().as_secs_f64();
    let written = (steps * step) as f64;
    let moved = live.room().moved();
    println!(
        "| {percent} % | {} KiB | {:.0} MiB | {:.2} × | {:.2} × | {} | {} | {:.0} |",
        step >> 10,
        written / MIB as f64,
        ((moved.sectors.0 - before.1) * 512) as f64 / written,
        (bytes_written()? - before.0) as f64 / written,
        moved.buckets,
        live.room().collected().walks,
        written / MIB as f64 / seconds,
    );
    live.stop()?;
    drop((fs, live));
    let device = DeviceOptions::new(Access::ReadOnly).open(path)?;
    let volume = frazil_volume::open(vec![Arc::new(device) as Arc<dyn Device>], OpenOptions::default())?;
    let findings = check(&volume).findings;
    if findings.is_empty() { Ok(()) } else { Err(format!("the check finds {findings:#?}").into()) }
}

/// Bytes that this process has written so far.
fn bytes_written() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no count of writes")?;
    Ok(line.parse()?)
}
