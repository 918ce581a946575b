//! `frazil-bench-format`: what it costs to make a volume with a tree in it, beside what others take for theirs.
//!
//! ```text
//! ./x bench format [--dir DIR] [--rounds N]
//! ```
//!
//! `frazil format --source`, `mke2fs -d` and `mkfs.btrfs --rootdir` make an image of the same tree, each the way it does if nobody
//! says otherwise: frazil and btrfs with checksums of data, ext4 without. Three trees: many small files in a thousand directories, files of a
//! few megabytes, and a few large ones. The trees lie in the page cache. Every image is a new file, and a program's time is from its
//! start to its end; what it leaves in the page cache is written out before the next one starts, outside of the measurement.
//!
//! All take turns, another one first in each round, and the table shows medians; a ratio is the median of the rounds' ratios.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Parser;
use frazil_bench_common::{Outcome, exit, median};
use frazil_testing::sample;

/// Compares making filled volumes with mke2fs and mkfs.btrfs.
#[derive(Parser)]
#[command(name = "format")]
struct Cli {
    /// Where trees and images are made, on the disk that is to be measured [default: target/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The program to measure [default: target/release/frazil]
    #[arg(long, value_name = "PROGRAM")]
    frazil: Option<PathBuf>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
}

/// A tree: what it is called, files, bytes in each.
const TREES: [(&str, usize, usize); 3] = [
    ("100,000 files of up to 9 KiB", 100_000, 9000),
    ("300 files of 4 MiB", 300, 4 << 20),
    ("4 files of 512 MiB", 4, 512 << 20),
];
/// Size of the images.
const IMAGE_BYTES: u64 = 4 << 30;
/// Who makes images.
const MAKERS: [&str; 3] = ["frazil format", "mke2fs", "mkfs.btrfs"];

fn main() -> ExitCode {
    exit(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Outcome {
    let root = frazil_testing::golden::source_root();
    let dir = cli.dir.clone().unwrap_or_else(|| root.join("target/bench"));
    let frazil = cli.frazil.clone().unwrap_or_else(|| root.join("target/release/frazil"));
    fs::create_dir_all(&dir)?;
    println!("\nmaking a volume with a tree in it, seconds; medians of {} rounds\n", cli.rounds);
    println!(
        "| | frazil format --source | mke2fs -d | mkfs.btrfs --rootdir | frazil's speed relative to the faster |"
    );
    println!("|---|---|---|---|---|");
    for (n, (name, files, bytes)) in TREES.into_iter().enumerate() {
        let tree = dir.join(format!("tree-{n}"));
        if !tree.join("complete").exists() {
            plant(&tree, files, bytes)?;
        }
        warm(&tree)?;
        let mut times = [const { Vec::new() }; 3];
        for round in 0..cli.rounds {
            for maker in 0..MAKERS.len() {
                let maker = (maker + round) % MAKERS.len();
                times[maker].push(measure(&frazil, maker, &tree, &dir.join("bench-format.img"))?);
            }
        }
        let ratio = median((0..cli.rounds).map(|n| times[1][n].min(times[2][n]) / times[0][n]));
        let [ours, ext4, btrfs] = times.map(|of_maker| median(of_maker.into_iter()));
        println!("| {name} | {ours:.2} | {ext4:.2} | {btrfs:.2} | {ratio:.2} |");
    }
    Ok(())
}

/// Makes a tree.
fn plant(tree: &Path, files: usize, bytes: usize) -> Outcome {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    for n in 0..files {
        let sub = tree.join(format!("{:03}", n / 100));
        if n.is_multiple_of(100) {
            fs::create_dir_all(&sub)?;
        }
        let len = if bytes < 1 << 20 { n * 37 % bytes } else { bytes };
        fs::write(sub.join(format!("file-{n}")), sample::content(n as u64, len))?;
    }
    Ok(fs::write(tree.join("complete"), b"")?)
}

/// Reads the whole tree once.
fn warm(tree: &Path) -> Outcome {
    let mut tar = Command::new("tar").arg("-cC").arg(tree).arg(".").stdout(Stdio::piped()).spawn()?;
    if let Some(mut archive) = tar.stdout.take() {
        std::io::copy(&mut archive, &mut std::io::sink())?;
    }
    if tar.wait()?.success() { Ok(()) } else { Err("the tree cannot be read".into()) }
}

/// Lets one of [`MAKERS`] make an image, and returns the seconds it took.
fn measure(frazil: &Path, maker: usize, tree: &Path, image: &Path) -> Outcome<f64> {
    let _ = fs::remove_file(image);
    let file = File::create(image)?;
    file.set_len(IMAGE_BYTES)?;
    let mut command = match MAKERS[maker] {
        "mke2fs" => {
            let mut command = Command::new("mke2fs");
            command.args(["-q", "-F", "-t", "ext4", "-d"]).arg(tree).arg(image);
            command
        }
        "mkfs.btrfs" => {
            let mut command = Command::new("mkfs.btrfs");
            command.args(["-q", "--rootdir"]).arg(tree).arg(image);
            command
        }
        _ => {
            let mut command = Command::new(frazil);
            command.args(["format", "--quiet", "--source"]).arg(tree).arg(image);
            command
        }
    };
    let begin = Instant::now();
    let output = command.output()?;
    let seconds = begin.elapsed().as_secs_f64();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed: {}", MAKERS[maker], said.trim()).into());
    }
    file.sync_all()?;
    fs::remove_file(image)?;
    Ok(seconds)
}
