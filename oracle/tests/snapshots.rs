//! Subvolumes and snapshots made and deleted on a live mount while programs change what is in them: the real driver must find nothing to
//! repair, and show the same tree as the mount did.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod mounted;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use frazil_fuse::control::{Bytes, Client, Request, SubvolumeReport, UsageReport, write_back};
use frazil_oracle::{Job, Oracle};
use frazil_testing::sample;

use mounted::Mounted;

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
    let mut mounted = Mounted::new(files.path(), 256 << 20);
    let (image, dir) = (mounted.image.clone(), mounted.dir.clone());
    let at = |path: &str| Bytes(path.as_bytes().to_vec());
    let made = |client: &mut Client, path: &str| {
        client.ask::<SubvolumeReport>(&Request::CreateSubvolume { path: at(path), umask: 0o22 }).unwrap()
    };
    made(&mut mounted.client, "/work");
    made(&mut mounted.client, "/work/nested");
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
            let snapshot = mounted.client.ask::<SubvolumeReport>(&request).unwrap();
            assert_eq!(snapshot.path, at(&format!("/keep/s{round}")));
            if round % 4 == 1 {
                fs::write(dir.join(format!("keep/s{round}/own")), b"differs").unwrap();
            }
            if round % 4 == 3 {
                let path = at(&format!("/keep/s{}", round - 1));
                mounted.client.ask::<()>(&Request::DeleteSubvolume { path }).unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        stop.store(true, Ordering::Relaxed);
    });
    write_back(&mut mounted.client, &dir, std::time::Duration::from_secs(10)).unwrap();
    let mut subvolumes = 0;
    mounted.client.ask_in_parts::<_, ()>(&Request::Subvolumes, |_: SubvolumeReport| subvolumes += 1).unwrap();
    assert_eq!(subvolumes, 3 + 12 - 3);
    let usage: UsageReport = mounted.client.ask(&Request::Usage).unwrap();
    assert!(usage.space.data > 0);
    let manifest = sample::manifest(&dir).unwrap();
    mounted.end();

    let verdicts = Oracle::new().unwrap().batch([Job::check_against("live", [&image], manifest)]).unwrap();
    assert_eq!(verdicts[0].objections(), [""; 0]);
}
