//! Real images that transactions of ours have changed, as the real driver sees them: stopped cleanly, and killed in the middle of it.
//!
//! One boot for all.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a panic is how a test fails; what is shared is public"
)]

#[path = "../../crates/volume/tests/writing/work.rs"]
mod work;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_device::{Device, MemDevice};
use frazil_oracle::{Job, Oracle};
use frazil_testing::golden;
use work::{Files, append, punch, start, work};

/// One of each kind: small blocks, compression, small nodes, large buckets, two copies, two tiers, snapshots, shared extents, a journal
/// to be replayed.
const IMAGES: [&str; 10] = [
    "02-small-tree-bs512",
    "05-compress-lz4",
    "06-deep-btree-node32k",
    "06-geom-bs4096-bucket1M-node256k",
    "08-crash-overwrite",
    "08-crash-multi",
    "09-multi-replicas2",
    "09-multi-tiered",
    "10-snapshots",
    "11-reflink",
];

/// The devices as they are at this moment, as files.
fn write(devices: &[Arc<MemDevice>], dir: &Path, name: &str) -> Vec<PathBuf> {
    let write = |(i, device): (usize, &Arc<MemDevice>)| {
        let path = dir.join(format!("{name}.{i}"));
        let (file, device) = (File::create(&path).unwrap(), device.snapshot());
        file.set_len(device.size_bytes()).unwrap();
        let mut chunk = vec![0; 64 << 10];
        for at in (0..device.size_bytes()).step_by(chunk.len()) {
            let len = chunk.len().min((device.size_bytes() - at) as usize);
            device.read_at(at, &mut chunk[..len]).unwrap();
            if chunk.iter().any(|b| *b != 0) {
                file.write_all_at(&chunk[..len], at).unwrap();
            }
        }
        path
    };
    devices.iter().enumerate().map(write).collect()
}

#[test]
fn the_driver_finds_nothing_wrong_with_what_we_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut jobs = Vec::new();
    for (i, name) in IMAGES.into_iter().enumerate() {
        let bytes = golden::image(name).bytes();
        let memory: Vec<_> = bytes.iter().map(|b| Arc::new(MemDevice::from_bytes(b))).collect();
        let devices: Vec<_> = memory.iter().map(|d| Arc::clone(d) as Arc<dyn Device>).collect();
        let mut rng = fastrand::Rng::with_seed(i as u64);
        let live = start(&devices, i as u64, false);
        let mut files = Files::of(&live, 6);
        work(&live, &mut files, &mut rng, 150);
        for file in &mut files.0 {
            // Whole buckets become empty, wait for the journal, are discarded and used again.
            (0..30).for_each(|_| punch(&live, file, 0));
        }
        live.journal().flush().unwrap();
        while live.room().step().unwrap() {}
        (0..40).for_each(|n| append(&live, &mut files.0[n % 2], 128).unwrap());
        live.journal().flush().unwrap();
        let killed = write(&memory, dir.path(), &format!("{name}-killed"));
        jobs.push(Job::check(format!("{name}, killed"), killed));
        work(&live, &mut files, &mut rng, 50);
        live.stop().unwrap();
        drop(live);
        let stopped = write(&memory, dir.path(), &format!("{name}-stopped"));
        jobs.push(Job::check(format!("{name}, stopped"), stopped));
    }
    let verdicts = Oracle::new().unwrap().batch(jobs).unwrap();
    let objections: Vec<String> = verdicts.iter().flat_map(|v| v.objections()).collect();
    assert_eq!(objections, [""; 0]);
    assert_eq!(verdicts.len(), 2 * IMAGES.len());
}
