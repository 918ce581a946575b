//! `frazil-bench`: tables that compare frazil's parts with their peers, side by side in one run.
//!
//! ```text
//! cd bench && cargo run --release -- journal [--dir DIR] [--seconds N]
//! ```
//!
//! Every table is of medians over interleaved rounds, so that a noisy neighbour hits all rows alike. The directory should be on
//! the disk whose flush cost matters.

mod commits;
mod fixture;
mod peers;
mod reservations;

use std::path::PathBuf;
use std::time::Duration;

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut dir, mut seconds) = (std::env::temp_dir(), 2);
    match args.next().as_deref() {
        Some("journal") => {}
        _ => {
            eprintln!("usage: frazil-bench journal [--dir DIR] [--seconds N]");
            std::process::exit(2);
        }
    }
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        match arg.as_str() {
            "--dir" => dir = PathBuf::from(value),
            "--seconds" => seconds = value.parse().expect("--seconds takes a number"),
            other => panic!("unknown argument {other}"),
        }
    }
    reservations::table();
    commits::table(&dir, Duration::from_secs(seconds));
}

/// The middle of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
