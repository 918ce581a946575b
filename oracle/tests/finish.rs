//! What a crash of the real driver left unfinished, finished by us: removals, a shift in the middle of a file, the deletion of a snapshot. Then the
//! real driver must find nothing left to be done, nothing to repair, and the tree that its makers wrote down.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::PathBuf;
use std::sync::Arc;

use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_oracle::{Job, Oracle};
use frazil_posix::write::{Deletion, WriteFs, WriteFsOptions};
use frazil_testing::golden;
use frazil_volume::OpenOptions;
use frazil_volume::check::check;
use frazil_volume::lifecycle::FrontKind;
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};

const IMAGES: [&str; 4] = ["08-crash-shift", "13-orphans", "15-frozen-orphan", "10-crash-snapdelete"];

/// Opens the volume, finishes everything, and stops.
fn finish(paths: &[PathBuf], seed: u64) {
    let open = |path: &PathBuf| {
        Arc::new(DeviceOptions::new(Access::ReadWrite).open(path).unwrap()) as Arc<dyn Device>
    };
    let devices: Vec<_> = paths.iter().map(open).collect();
    let foundation = open_rw(devices.clone(), OpenOptions::default(), &WriteOptions::default()).unwrap();
    let engine = EngineOptions { seed, restart_one_in: 10 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 32 << 20, threads: true }).unwrap();
    let fs = WriteFs::new(live, WriteFsOptions::new(Arc::new(SystemWallClock), seed)).unwrap();
    let front = fs.front(FrontKind::Background).unwrap();
    front.finish_interrupted().unwrap();
    let mut deletion = Deletion::default();
    while front.delete_unlinked_step(&mut deletion).unwrap() {}
    front.remove_dead_inodes().unwrap();
    drop(front);
    fs.live().stop().unwrap();
    drop(fs);
    let volume = frazil_volume::open(devices, OpenOptions::default()).unwrap();
    assert_eq!(check(&volume).findings, []);
}

#[test]
fn the_driver_finds_nothing_left_to_be_done() {
    let scratch: Vec<_> =
        IMAGES.iter().map(|name| (name, golden::image(name), golden::image(name).scratch())).collect();
    let mut jobs = Vec::new();
    for (seed, (name, image, files)) in scratch.iter().enumerate() {
        finish(&files.paths, seed as u64);
        jobs.push(Job::check_against(**name, &files.paths, image.manifest()));
    }
    let verdicts = Oracle::new().unwrap().batch(jobs).unwrap();
    let objections: Vec<String> = verdicts.iter().flat_map(|v| v.objections()).collect();
    assert_eq!(objections, [""; 0]);
    assert_eq!(verdicts.len(), IMAGES.len());
}
