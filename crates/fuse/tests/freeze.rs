//! Freezing a mount whose device hangs: what a freeze waits for, and what is left of one that nobody waits for any more.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod in_memory;

use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use frazil_fuse::control::{CallError, HoldReport, Request, write_back};

use in_memory::{LONG, freeze, mounted};

#[test]
fn a_freeze_that_takes_too_long_says_what_it_waits_for() {
    let m = mounted();
    m.while_hanging(|| {
        let asked = m.client().ask::<HoldReport>(&freeze(Duration::from_millis(300)));
        let Err(CallError::Failed(failure)) = asked else { panic!("{asked:?}") };
        assert_eq!(failure.errno, libc::ETIMEDOUT);
        assert!(failure.why.contains("did not come to rest in time"), "{}", failure.why);
        assert!(failure.why.contains("; write of process "), "{}", failure.why);
        assert_eq!(m.status().lifecycle.holders, []);
    });
    let begin = Instant::now();
    while m.status().lifecycle.state != "read-write" {
        assert!(begin.elapsed() < LONG);
    }
    m.end();
}

#[test]
fn a_freezer_that_dies_while_it_waits_is_forgotten() {
    let m = mounted();
    m.while_hanging(|| {
        {
            // A client that dies is its socket being closed.
            let name = format!("frazil/{}", m.at.number);
            let address = SocketAddr::from_abstract_name(name).unwrap();
            let mut client = UnixStream::connect_addr(&address).unwrap();
            let wish = r#"{"version":1,"do":"freeze","who":"a test","bound":true,"share":true}"#;
            client.write_all(format!("{wish}\n").as_bytes()).unwrap();
            let begin = Instant::now();
            while m.status().lifecycle.state != "freezing" {
                assert!(begin.elapsed() < LONG);
            }
            drop(client);
        }
    });
    let begin = Instant::now();
    while m.status().lifecycle.state != "read-write" {
        assert!(begin.elapsed() < LONG, "{:?}", m.status().lifecycle);
    }
    assert_eq!(m.status().lifecycle.holders, []);
    m.end();
}

#[test]
fn what_waits_for_a_thaw_does_not_keep_others_from_syncing() {
    let m = mounted();
    fs::write(m.dir.join("file"), b"x").unwrap();
    let hold: HoldReport = m.client().ask(&freeze(LONG)).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| fs::write(m.dir.join("file"), b"later"));
        let begin = Instant::now();
        while m.status().waiting_count == 0 {
            assert!(begin.elapsed() < LONG);
        }
        assert!(write_back(&mut m.client(), &m.dir, LONG).unwrap());
        m.client().ask::<()>(&Request::Sync).unwrap();
        assert!(!writer.is_finished());
        m.client().ask::<()>(&Request::Thaw { token: Some(hold.token) }).unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(fs::read(m.dir.join("file")).unwrap(), b"later");
    m.end();
}
