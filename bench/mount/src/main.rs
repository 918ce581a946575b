//! `frazil-bench-mount`: a mounted volume that is used for real, beside the kernel's filesystems and beside others through FUSE.
//!
//! ```text
//! ./x bench mount [--quick] [--rounds N] [--dir DIR] [--peers NAME,…] [--rows WORD]
//! ```
//!
//! One file of the measured disk, written once from end to end, stands behind one loop device with direct I/O, so that what a program flushes reaches
//! the disk and what it drops from its cache has to come from there. All sides ([`peers`]) use this device in turns, frazil too: each is made
//! on it anew, does every load ([`loads`]), and is unmounted. Who comes first changes from round to round. A cold load follows an
//! unmount and a mount, after which nothing of the device is cached anywhere. Discards are turned off at the loop device, because they would punch
//! holes into the file and make the next one pay for filling them.
//!
//! Shown are medians over the rounds; a ratio is the median of the rounds' ratios, above 1 where frazil was faster.

#![forbid(unsafe_code)]

mod loads;
mod loop_device;
mod peers;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use frazil_bench_common::{Outcome, exit};

use crate::loads::{Load, Scale, Tree};
use crate::loop_device::LoopDevice;
use crate::peers::Peer;
use crate::table::Table;

/// Compares a mounted frazil volume with other filesystems on the same loop device.
#[derive(Parser)]
#[command(name = "mount")]
struct Cli {
    /// Where the file behind the loop device is made, on the disk that is to be measured [default: target/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The program to measure [default: target/release/frazil]
    #[arg(long, value_name = "PROGRAM")]
    frazil: Option<PathBuf>,
    /// How often everything is measured [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// A tenth of the work: to try it, not to quote it
    #[arg(long)]
    quick: bool,
    /// Only these, beside frazil: io_uring, ext4, xfs, btrfs, fuse2fs, ntfs-3g
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    peers: Vec<String>,
    /// Only loads whose name has this in it (and those that make what it needs)
    #[arg(long, value_name = "WORD", default_value = "")]
    rows: String,
}

fn main() -> ExitCode {
    exit(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Err("loop devices and mounts need root: run as root".into());
    }
    let root = frazil_testing::golden::source_root();
    let dir = cli.dir.clone().unwrap_or_else(|| root.join("target/bench"));
    let frazil = cli.frazil.clone().unwrap_or_else(|| root.join("target/release/frazil"));
    std::fs::create_dir_all(&dir)?;
    let (scale, rounds) = if cli.quick { (Scale::QUICK, 1) } else { (Scale::FULL, 5) };
    let rounds = cli.rounds.unwrap_or(rounds);

    let wanted = |peer: &Peer| {
        *peer == Peer::Frazil || cli.peers.is_empty() || cli.peers.iter().any(|name| name == peer.name())
    };
    let (there, missing): (Vec<Peer>, Vec<Peer>) =
        Peer::ALL.into_iter().filter(wanted).partition(|peer| peer.is_there());
    for peer in missing {
        println!("{} is missing here: {}", peer.name(), peer.why_missing());
    }
    let device = LoopDevice::attach(&dir.canonicalize()?.join("bench-mount.img"))?;
    let tree = Tree::plant(&dir, &scale)?;
    let mut table = Table::new(there.clone());
    for round in 0..rounds {
        for n in 0..there.len() {
            let peer = there[(n + round) % there.len()];
            let mut mounted = peer.mount_new(&frazil, device.path())?;
            for load in Load::ALL {
                if !load.is_needed_for(&cli.rows) {
                    continue;
                }
                if load.is_cold() {
                    mounted.remount()?;
                }
                let speed = load.run(mounted.path(), &scale, &tree)?;
                eprintln!("round {} {}: {}: {}", round + 1, peer.name(), load.name(), load.show(speed));
                table.add(peer, load, speed);
            }
            if let Some(bytes) = mounted.resident_bytes_max() {
                table.add_resident(peer, bytes);
            }
            mounted.unmount()?;
        }
    }
    let word = cli.rows.as_str();
    table.print(rounds, |load| load.name().contains(word));
    Ok(())
}
