//! Copies of the device of a live mount, made while it was frozen under load: the real driver must find nothing to repair in any, and
//! they must hold what had been done before.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod mounted;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use frazil_fuse::control::{Client, HoldReport, Request, write_back};
use frazil_oracle::{Job, Mount, Oracle};

use mounted::Mounted;

/// Copies made.
const COPIES: usize = 6;

/// Makes, renames and removes files in a directory, and counts how often, until told to stop.
fn change(dir: &Path, stop: &AtomicBool, rounds: &AtomicU64) {
    fs::create_dir(dir).unwrap();
    for i in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let file = |n: u32| dir.join(format!("f{}", n % 60));
        fs::write(file(i), vec![i as u8; (i as usize * 977) % 40_000]).unwrap();
        fs::rename(file(i), file(i + 31)).unwrap();
        if i.is_multiple_of(3) {
            fs::remove_file(file(i + 31)).unwrap();
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Freezes, copies, thaws; how long it took to freeze.
fn copy_frozen(client: &mut Client, dir: &Path, image: &Path, copy: &Path) -> Duration {
    let begin = Instant::now();
    write_back(client, dir, Duration::from_secs(10)).unwrap();
    let request = Request::Freeze {
        who: "a test".into(),
        bound: true,
        share: false,
        hold_ms: Some(60_000),
        drain_ms: Some(30_000),
    };
    let hold: HoldReport = client.ask(&request).unwrap();
    let took = begin.elapsed();
    fs::copy(image, copy).unwrap();
    client.ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
    took
}

#[test]
fn copies_of_a_frozen_mount_are_right() {
    let files = tempfile::tempdir().unwrap();
    let mut mounted = Mounted::new(files.path(), 128 << 20);
    let dir = mounted.dir.clone();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let copies: Vec<PathBuf> = (0..COPIES).map(|i| files.path().join(format!("copy{i}"))).collect();
    std::thread::scope(|scope| {
        for top in ["a", "b"] {
            let (top, stop, rounds) = (dir.join(top), &stop, &rounds);
            scope.spawn(move || change(&top, stop, rounds));
        }
        for (i, copy) in copies.iter().enumerate() {
            let before = rounds.load(Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) < before + 100 {
                std::thread::sleep(Duration::from_millis(1));
            }
            fs::write(dir.join("marker"), format!("before copy {i}")).unwrap();
            let took = copy_frozen(&mut mounted.client, &dir, &mounted.image, copy);
            println!("copy {i}: frozen after {took:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    mounted.end();

    let marker = |i: usize| format!("test \"$(cat marker)\" = 'before copy {i}'");
    let job = |(i, copy): (usize, &PathBuf)| {
        Job::new(format!("copy {i}"), [copy])
            .mount(Mount::fsck().script(marker(i)))
            .mount(Mount::plain().walk())
    };
    let verdicts = Oracle::new().unwrap().batch(copies.iter().enumerate().map(job)).unwrap();
    let objections: Vec<String> = verdicts.iter().flat_map(|verdict| verdict.objections()).collect();
    assert_eq!((objections, verdicts.len()), (Vec::new(), COPIES));
}
