//! Who may have a device at the same time, between real processes.
//!
//! The other process is this test program again: started with `HOLD_PATH` set it opens that path, says so, and keeps it
//! until its standard input closes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use frazil_device::{Access, Device, Error, FileDevice, OpenOptions};
use tempfile::TempDir;

const HOLD_PATH: &str = "HOLD_PATH";
const HOLD_ACCESS: &str = "HOLD_ACCESS";

/// In the other process: holds the device, never returns. In the test proper: does nothing.
fn hold_if_asked() {
    let Some(path) = std::env::var_os(HOLD_PATH) else { return };
    let access = match std::env::var(HOLD_ACCESS).unwrap().as_str() {
        "ro" => Access::ReadOnly,
        _ => Access::ReadWrite,
    };
    let _device = OpenOptions::new(access).open(Path::new(&path)).unwrap();
    println!("\nheld");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

/// One test at a time: a process that another test is just starting has, between fork and exec, copies of all locks.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Another process that has a device open.
struct Other(Child);

impl Other {
    fn holding(path: &Path, access: &str) -> Other {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["readers_share_and_writers_are_alone", "--exact", "--nocapture"])
            .env(HOLD_PATH, path)
            .env(HOLD_ACCESS, access)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut other = Other(child);
        let mut lines = BufReader::new(other.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "held"), "the other process could not open {path:?}");
        other
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn image(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("image");
    std::fs::write(&path, vec![0; 1 << 16]).unwrap();
    path
}

fn open(path: &Path, access: Access) -> Result<FileDevice, Error> {
    OpenOptions::new(access).open(path)
}

fn assert_held_by(opened: Result<FileDevice, Error>, pid: u32) {
    let err = opened.expect_err("opened although another process has it");
    let Error::InUse { holder, .. } = &err else { panic!("{err}") };
    assert_eq!(holder.process.as_ref().map(|process| process.pid), Some(pid), "{err}");
    assert!(err.to_string().contains(&format!("(pid {pid})")), "{err}");
}

#[test]
fn readers_share_and_writers_are_alone() {
    hold_if_asked();
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let path = image(&dir);

    let reader = Other::holding(&path, "ro");
    assert!(open(&path, Access::ReadOnly).is_ok());
    assert!(open(&path, Access::Peek).is_ok());
    assert_held_by(open(&path, Access::ReadWrite), reader.pid());
    drop(reader);

    let writer = Other::holding(&path, "rw");
    assert!(open(&path, Access::Peek).is_ok());
    assert_held_by(open(&path, Access::ReadOnly), writer.pid());
    assert_held_by(open(&path, Access::ReadWrite), writer.pid());
    // Another name for the same file is the same file.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let hard = dir.path().join("hard");
    std::fs::hard_link(&path, &hard).unwrap();
    assert_held_by(open(&link, Access::ReadWrite), writer.pid());
    assert_held_by(open(&hard, Access::ReadOnly), writer.pid());
    drop(writer);

    assert!(open(&path, Access::ReadWrite).is_ok(), "the lock outlived its holder");
}

#[test]
fn one_process_excludes_itself() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let path = image(&dir);
    let first = open(&path, Access::ReadWrite).unwrap();
    assert_held_by(open(&path, Access::ReadWrite), std::process::id());
    // A peek that goes away must not take the lock along, as it would with plain POSIX locks.
    drop(open(&path, Access::Peek).unwrap());
    assert_held_by(open(&path, Access::ReadOnly), std::process::id());
    drop(first);
    let readers = [open(&path, Access::ReadOnly).unwrap(), open(&path, Access::ReadOnly).unwrap()];
    assert_held_by(open(&path, Access::ReadWrite), std::process::id());
    drop(readers);
    assert!(open(&path, Access::ReadWrite).is_ok());
}

#[test]
fn waits_for_a_dying_holder() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let path = image(&dir);
    let holder = Other::holding(&path, "rw");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(holder);
    });
    let start = Instant::now();
    let device = OpenOptions::new(Access::ReadWrite).lock_wait(Duration::from_secs(20)).open(&path).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(250));
    device.write_at(0, &[1]).unwrap();
    killer.join().unwrap();
}

#[test]
fn gives_up_after_the_time_it_was_given() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let path = image(&dir);
    let holder = Other::holding(&path, "rw");
    let start = Instant::now();
    let wait = Duration::from_millis(200);
    assert_held_by(OpenOptions::new(Access::ReadOnly).lock_wait(wait).open(&path), holder.pid());
    assert!(start.elapsed() >= wait);
}
