//! The control channel of a mount, by the library.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{LONG, mounted};
use frazil_device::mounts::{self, Mount};
use frazil_fuse::control::{
    CallError, Client, Inside, LocateError, Request, StatusReport, locate, locate_inside, write_back,
};

/// Threads that answer requests; when as many hang, no request to the filesystem is answered any more.
const THREADS: usize = 32;

fn status(mount: &Mount) -> StatusReport {
    Client::connect(mount).unwrap().ask(&Request::Status).unwrap()
}

#[test]
fn a_mount_that_hangs_can_be_asked() {
    let m = mounted();
    fs::metadata(m.path("names")).unwrap();
    m.fake.set_hang(true);
    // Different names, as the kernel asks only once for the same.
    let mut callers: Vec<_> = (0..THREADS + 8)
        .map(|i| {
            let mut command = Command::new("cat");
            command
                .arg(m.path(if i == 0 { "hang" } else { "slow" }))
                .stderr(Stdio::null())
                .stdout(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    m.fake.wait_hanging(2);
    let mount = locate(&m.dir).unwrap();
    // Which requests come first is the kernel's.
    let begin = Instant::now();
    let mut report = status(&mount);
    while !["lookup", "read"].iter().all(|name| report.waiting.iter().any(|w| w.name == *name)) {
        assert!(begin.elapsed() < LONG, "{report:?}");
        report = status(&mount);
    }
    assert!(report.waiting_count >= 2 && report.waiting.len() == report.waiting_count, "{report:?}");
    let lookup = report.waiting.iter().find(|waiting| waiting.name == "lookup").unwrap();
    assert_eq!(lookup.pid, callers[0].id());
    assert!(lookup.waits_ns > 0 && report.waiting.iter().any(|waiting| waiting.name == "read"));
    assert!(report.mount.read_only && report.volume.is_none() && report.journal.is_none());
    m.fake.set_hang(false);
    callers.iter_mut().for_each(|caller| assert!(caller.wait().is_ok()));
    let begin = Instant::now();
    while status(&mount).waiting_count > 0 {
        assert!(begin.elapsed() < LONG);
    }
}

#[test]
fn commands_end_with_the_mount() {
    let m = mounted();
    let mount = locate(&m.dir).unwrap();
    let mut client = Client::connect(&mount).unwrap();
    client.ask::<StatusReport>(&Request::Status).unwrap();
    m.mount.unmount().unwrap();
    assert!(matches!(client.ask::<StatusReport>(&Request::Status), Err(CallError::Ended(_))));
    assert!(matches!(Client::connect(&mount), Err(CallError::NotListening(_))));
    assert!(matches!(locate(&m.dir), Err(LocateError::NotMounted(_))));
}

#[test]
fn paths_lead_to_mounts() {
    let m = mounted();
    let there = mounts::at(&m.dir).unwrap();
    let inside = |path: &std::path::Path, follow| {
        let Inside { mount, path, dir } = locate_inside(path, follow).unwrap();
        assert_eq!(mount.number, there.number);
        (String::from_utf8(path.0).unwrap(), dir)
    };
    assert_eq!(inside(&m.dir, true), ("/".into(), m.dir.clone()));
    assert_eq!(inside(&m.path("."), true), ("/".into(), m.dir.clone()));
    assert_eq!(inside(&m.path("names/new"), false), ("/names/new".into(), m.path("names")));
    assert_eq!(inside(&m.path("names/../new"), false), ("/new".into(), m.dir.clone()));
    assert_eq!(inside(&m.path("huge"), true), ("/huge".into(), m.dir.clone()));
    assert!(matches!(locate(&m.path("names")), Err(LocateError::Below { .. })));
    assert!(matches!(locate_inside(&m.path("absent"), true), Err(LocateError::System { .. })));
}

#[test]
fn what_is_dirty_arrives_or_is_said_not_to() {
    let m = mounted();
    let mut client = Client::connect(&locate(&m.dir).unwrap()).unwrap();
    assert!(write_back(&mut client, &m.dir, LONG).unwrap());
    // Reads that hang are no writes, and are not waited for.
    fs::metadata(m.path("slow")).unwrap();
    m.fake.set_hang(true);
    let mut reader = Command::new("cat").arg(m.path("slow")).stdout(Stdio::null()).spawn().unwrap();
    m.fake.wait_hanging(1);
    assert!(write_back(&mut client, &m.dir, Duration::from_secs(5)).unwrap());
    m.fake.set_hang(false);
    reader.wait().unwrap();
}
