//! Subvolumes and snapshots made and deleted on a live mount while programs change what is in them: the real driver must find nothing to
//! repair, and show the same tree as the mount did.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_fuse::control::{Bytes, Client, Request, SubvolumeReport, UsageReport, locate, write_back};
use frazil_fuse::{Options, Writable};
use frazil_oracle::{Job, Oracle};
use frazil_posix::write::{WriteFs, WriteFsOptions};
use frazil_testing::sample;
use frazil_volume::OpenOptions;
use frazil_volume::build::{Builder, FormatOptions, NewDevice};
use frazil_volume::write::{Live, LiveOptions, SystemWallClock, WriteOptions, open_rw};

fn make(path: &Path) {
    let device = DeviceOptions::new(Access::ReadWrite).create_bytes(256 << 20).open(path).unwrap();
    let options = FormatOptions { created_ns: 1_700_000_000_000_000_000, ..FormatOptions::default() };
    let devices = vec![NewDevice::new(Arc::new(device) as Arc<dyn Device>)];
    let mut builder = Builder::new(devices, &options).unwrap();
    builder.push_first_subvolume().unwrap();
    builder.push_empty_root().unwrap();
    builder.finish().unwrap();
}

fn open(path: &Path) -> Writable {
    let device = Arc::new(DeviceOptions::new(Access::ReadWrite).open(path).unwrap()) as Arc<dyn Device>;
    let foundation = open_rw(vec![device], OpenOptions::default(), &WriteOptions::default()).unwrap();
    let engine = EngineOptions { seed: 1, restart_one_in: 0 };
    let live =
        Live::start(foundation, &LiveOptions { engine, cache_bytes: 32 << 20, threads: true }).unwrap();
    let clock = Arc::new(SystemWallClock);
    Writable::new(WriteFs::new(live, WriteFsOptions { clock, seed: 1 }).unwrap()).unwrap()
}

/// Makes, renames, overwrites and removes files until told to stop.
fn change(top: &Path, stop: &AtomicBool) {
    for i in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let file = |n: u32| top.join(format!("f{}", n % 50));
        fs::write(file(i), vec![i as u8; (i as usize * 977) % 50_000]).unwrap();
        if i.is_multiple_of(3) {
            fs::rename(file(i), file(i + 7)).unwrap();
        }
        if i.is_multiple_of(5) {
            let _ = fs::remove_file(file(i + 20));
        }
        let dir = top.join(format!("d{}", i % 20));
        if fs::create_dir(&dir).is_err() {
            fs::remove_dir(&dir).unwrap();
        }
    }
}

#[test]
fn snapshots_of_a_mount_in_use_are_right() {
    let files = tempfile::tempdir().unwrap();
    let (image, dir) = (files.path().join("image"), files.path().join("mnt"));
    make(&image);
    fs::create_dir(&dir).unwrap();
    let writable = open(&image);
    let mut options = Options::new(image.display().to_string());
    options.read_only = false;
    let mount = frazil_fuse::mount(Arc::clone(writable.fs()), &dir, &options).unwrap();
    let mut client = Client::connect(&locate(&dir).unwrap()).unwrap();
    let at = |path: &str| Bytes(path.as_bytes().to_vec());
    let made = |client: &mut Client, path: &str| {
        client.ask::<SubvolumeReport>(&Request::CreateSubvolume { path: at(path), umask: 0o22 }).unwrap()
    };
    made(&mut client, "/work");
    made(&mut client, "/work/nested");
    fs::create_dir(dir.join("keep")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for top in ["work", "work/nested", "keep"] {
            let (top, stop) = (dir.join(top), &stop);
            scope.spawn(move || change(&top, stop));
        }
        for round in 0..12u32 {
            let source = ["/work", "/work/nested", "/"][round as usize % 3];
            let path = at(&format!("/keep/s{round}"));
            let request = Request::Snapshot { source: at(source), path, read_only: round.is_multiple_of(2) };
            let snapshot = client.ask::<SubvolumeReport>(&request).unwrap();
            assert_eq!(snapshot.path, at(&format!("/keep/s{round}")));
            if round % 4 == 1 {
                fs::write(dir.join(format!("keep/s{round}/own")), b"differs").unwrap();
            }
            if round % 4 == 3 {
                let path = at(&format!("/keep/s{}", round - 1));
                client.ask::<()>(&Request::DeleteSubvolume { path }).unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        stop.store(true, Ordering::Relaxed);
    });
    write_back(&mut client, &dir, std::time::Duration::from_secs(10)).unwrap();
    let mut subvolumes = 0;
    client.ask_in_parts::<_, ()>(&Request::Subvolumes, |_: SubvolumeReport| subvolumes += 1).unwrap();
    assert_eq!(subvolumes, 3 + 12 - 3);
    let usage: UsageReport = client.ask(&Request::Usage).unwrap();
    assert!(usage.space.data > 0);
    let manifest = sample::manifest(&dir).unwrap();
    drop(client);
    mount.unmount().unwrap();
    drop(mount);
    writable.stop().unwrap();

    let verdicts = Oracle::new().unwrap().batch([Job::check_against("live", [&image], manifest)]).unwrap();
    assert_eq!(verdicts[0].objections(), [""; 0]);
}
