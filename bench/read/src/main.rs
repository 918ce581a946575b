//! `frazil-bench-read`: what reading through a frazil mount costs, beside what it is measured by.
//!
//! ```text
//! ./x bench read [--dir DIR] [--rounds N]
//! ```
//!
//! Two tables. `sequential`: a file of 1 GiB with crc32c checksums, read from its start to its end through the mount, beside
//! the image read as a plain file. `names`: the 20,000-file tree of a golden image, listed, searched and looked up through the
//! mount, beside the same tree on the kernel's ext4 on a loop device. All files are in one directory, so on one disk.
//!
//! frazil serves from a process of its own, this program started again. Every cold measurement has a new process, a new mount,
//! and an image that was put out of the page cache; warm ones repeat the cold one on the same mount. The two sides
//! take turns, the first one changes from round to round, and what is compared are the two of one round: a table shows medians
//! of times and the median of these ratios, so that a neighbour who works for a minute bears on both sides.
//!
//! | module | its one job |
//! |---|---|
//! | `big` | the volume with the large file; the real driver makes it, once |
//! | `mounts` | mounts of both kinds, and forgetting what is cached |
//! | `sequential`, `names` | what is measured |
//! | `table` | rounds, medians, printing |

#![forbid(unsafe_code)]

mod big;
mod mounts;
mod names;
mod sequential;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use frazil_bench_common::{Outcome, exit};

/// Compares reading through a frazil mount with reading the disk, and with ext4. Needs root.
#[derive(Parser)]
#[command(name = "read")]
struct Cli {
    /// Where the images are made, on the disk that is to be measured [default: target/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, Subcommand)]
enum Part {
    /// Only the large file
    Sequential,
    /// Only the tree of small files
    Names,
    /// Serves an image until it is unmounted: how this program calls itself
    #[command(hide = true)]
    Serve,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let done = if args.next().is_some_and(|first| first == "serve") {
        let (image, dir) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
        mounts::serve(Path::new(&image), Path::new(&dir))
    } else {
        run(&Cli::parse())
    };
    exit(done)
}

fn run(cli: &Cli) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err("loop devices and mounts need root: run as root".into());
    }
    let dir = cli.dir.clone().unwrap_or_else(|| frazil_testing::golden::source_root().join("target/bench"));
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    if cli.part != Some(Part::Names) {
        sequential::table(&dir, cli.rounds)?;
    }
    if cli.part != Some(Part::Sequential) {
        names::table(&dir, cli.rounds)?;
    }
    Ok(())
}
