//! What it costs to make a volume: `cargo bench -p frazil-volume --bench build_volume [FILES [BYTES]]`.
//!
//! Makes an empty volume, then one with FILES files (default 1000000) of BYTES bytes each (default 0, which is metadata alone; else whole blocks), in
//! a file in the directory for temporary files, and prints time and peak memory.

#![allow(clippy::unwrap_used, reason = "a failure ends it")]

#[path = "../tests/build/populate.rs"]
mod populate;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use frazil_device::{Access, Device, OpenOptions};
use frazil_volume::build::{Builder, FormatOptions, NewDevice, format};

fn device(path: &Path, bytes: u64) -> NewDevice {
    let _ = std::fs::remove_file(path);
    let file = OpenOptions::new(Access::ReadWrite).create_bytes(bytes).open(path).unwrap();
    NewDevice::new(Arc::new(file) as Arc<dyn Device>)
}

/// Peak of resident memory in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let files = numbers.first().copied().unwrap_or(1_000_000);
    let bytes = numbers.get(1).copied().unwrap_or(0);
    let path = std::env::temp_dir().join(format!("frazil-build-{}", std::process::id()));
    let start = Instant::now();
    format(vec![device(&path, 1 << 30)], &FormatOptions::default()).unwrap();
    println!("empty volume of 1 GiB: {:.1} ms, peak {} MiB", start.elapsed().as_secs_f64() * 1e3, peak_mib());

    let size = (2 << 30) + 2 * files * (bytes + 1024);
    let start = Instant::now();
    let mut builder = Builder::new(vec![device(&path, size)], &FormatOptions::default()).unwrap();
    populate::populate(&mut builder, files, bytes as usize).unwrap();
    let pushed = start.elapsed();
    let built = builder.finish().unwrap();
    let all = start.elapsed();
    println!(
        "{files} files of {bytes} bytes: {:.2} s ({:.2} s of it at the end), {} nodes, peak {} MiB",
        all.as_secs_f64(),
        (all - pushed).as_secs_f64(),
        built.nodes,
        peak_mib()
    );
    std::fs::remove_file(&path).unwrap();
}
