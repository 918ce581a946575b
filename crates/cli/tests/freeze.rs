//! Freezing, thawing and stopping a live mount. Needs root, `/dev/fuse` and Python.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/run.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod run;
#[path = "cli/volume.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod volume;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use frazil_testing::golden;
use run::{Opening, checked, errors, frazil};
use volume::{Volume, expect_io_uring};

/// A limit that no step of a test that succeeds comes near.
const LONG: Duration = Duration::from_secs(20);

impl Volume {
    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The token that a freeze prints.
    fn token(&self, arguments: &[&str]) -> String {
        self.text(arguments).strip_suffix('\n').unwrap().to_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.text(&["status", "--json", "@"])).unwrap()
    }

    fn state(&self) -> String {
        self.status()["lifecycle"]["state"].as_str().unwrap().to_owned()
    }

    fn holders(&self) -> usize {
        self.status()["lifecycle"]["holders"].as_array().unwrap().len()
    }

    fn wait_for_state(&self, state: &str) {
        let begin = Instant::now();
        while self.state() != state {
            assert!(begin.elapsed() < LONG, "{}", self.text(&["status", "@"]));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Unmounts it; the volume must be right. There may be warnings, of freezes that ended early.
    fn end(&mut self) {
        self.text(&["umount", "@"]);
        let output = self.server.take().unwrap().wait_with_output().unwrap();
        let told = errors(&output);
        assert!(output.status.success() && told.lines().all(|line| line.starts_with("warning: ")), "{told}");
        self.assert_right();
    }

    /// Freezes as long as a child lives that does nothing.
    fn hold(&self) -> Child {
        let mut freeze =
            self.command(&["freeze", "@", "--hold", "--", "sh", "-c", "echo frozen; exec sleep 100"]);
        let mut child = freeze.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "frozen\n");
        child
    }
}

/// Changes files until it is told to stop; counts what it did, and fails if anything does.
fn change(dir: PathBuf, stop: &AtomicBool, count: &AtomicU64) {
    fs::create_dir_all(&dir).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let i = count.fetch_add(1, Ordering::Relaxed);
        let name = |i: u64| dir.join(format!("{}", i % 40));
        fs::write(name(i), vec![i as u8; (i as usize * 131) % 9000]).unwrap();
        fs::rename(name(i), name(i + 13)).unwrap();
        if i.is_multiple_of(4) {
            fs::remove_file(name(i + 13)).unwrap();
        }
    }
}

/// Ends threads, also if the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs something while two threads change files.
fn while_changing<R>(volume: &Volume, run: impl FnOnce(&AtomicU64) -> R) -> R {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let threads = ["a", "b"].map(|name| {
            let (dir, stop, count) = (volume.path(name), &stop, &count);
            scope.spawn(move || change(dir, stop, count))
        });
        while count.load(Ordering::Relaxed) < 20 {
            std::thread::yield_now();
        }
        let result = run(&count);
        drop(stopping);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        result
    })
}

#[test]
fn what_is_copied_under_a_hold_is_clean() {
    let mut volume = Volume::mounted();
    let copy = volume.files.path().join("copy");
    let script = format!("cp --sparse=always {} {}", volume.image().display(), copy.display());
    while_changing(&volume, |count| {
        for _ in 0..5 {
            volume.text(&["freeze", "@", "--hold", "--", "sh", "-c", &script]);
            // Files that were just removed and that the kernel has not forgotten yet are for the next start.
            let check = checked(frazil(["fsck", "-n", copy.to_str().unwrap()]));
            let check = String::from_utf8(check).unwrap();
            assert!(check.ends_with("clean\n") && check.lines().all(only_removed), "{check}");
            let (before, begin) = (count.load(Ordering::Relaxed), Instant::now());
            while count.load(Ordering::Relaxed) == before {
                assert!(begin.elapsed() < LONG, "nobody goes on");
            }
        }
    });
    assert_eq!(volume.state(), "read-write");
    volume.umount();
}

/// Whether a line of a check is about nothing but removed files.
fn only_removed(line: &str) -> bool {
    line == "clean"
        || line.contains("to be removed at the next start")
        || line.ends_with("finishes that by itself")
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let volume = Volume::mounted();
    let code = |arguments: &[&str]| {
        let output = volume.output(&[&["freeze", "@", "--hold", "--"][..], arguments].concat());
        assert_eq!(errors(&output).lines().count(), usize::from(arguments == ["/no/such"]));
        output.status.code().unwrap()
    };
    assert_eq!(code(&["true"]), 0);
    assert_eq!(code(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), 128 + 9);
    assert_eq!(code(&["/no/such"]), 1);
    assert_eq!(volume.state(), "read-write");
    // The command finds the volume frozen.
    fs::write(volume.path("file"), b"content").unwrap();
    let script = format!("cat @/file; {} status @", env!("CARGO_BIN_EXE_frazil"));
    let told = volume.text(&["freeze", "@", "--hold", "--", "sh", "-c", &script]);
    assert!(told.starts_with("content") && told.contains("\nstate     frozen for "), "{told}");
    assert!(told.contains("'sh', process ") && told.contains("until it thaws"), "{told}");
}

#[test]
fn whoever_changes_something_waits_and_readers_do_not() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), b"before").unwrap();
    (0..40).for_each(|i| fs::write(volume.path(&format!("old{i}")), b"").unwrap());
    let token = volume.token(&["freeze", "@"]);
    let status = volume.status();
    let holder = &status["lifecycle"]["holders"][0];
    assert_eq!((&status["lifecycle"]["state"], &holder["token"]), (&"frozen".into(), &token.as_str().into()));
    assert!(holder["who"].as_str().unwrap().starts_with("'frazil freeze', process "));
    assert!((25..=30).contains(&(holder["left_ns"].as_u64().unwrap() / 1_000_000_000)));
    let image = volume.image();
    let shown = String::from_utf8(checked(frazil(["show-super", image.to_str().unwrap()]))).unwrap();
    assert!(shown.lines().any(|l| l.starts_with("Clean:") && l.ends_with('1')), "{shown}");
    let mut writers: Vec<Child> = (0..40)
        .map(|i| Command::new("touch").arg(volume.path(&format!("old{i}"))).spawn().unwrap())
        .collect();
    let begin = Instant::now();
    while volume.status()["waiting_count"] != 40 {
        assert!(begin.elapsed() < LONG, "{}", volume.text(&["status", "@"]));
    }
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"before");
    assert!(
        fs::metadata(volume.path("new")).is_err() && fs::read_dir(volume.path("")).unwrap().count() == 42
    );
    assert_eq!(volume.text(&["sync", "@"]), "");
    let text = volume.text(&["status", "@"]);
    assert!(
        text.contains("state     frozen for ") && text.contains(&format!("holder    {token} ")),
        "{text}"
    );
    assert!(text.contains("waiting   setattr of process ") && text.contains(" and 36 more"), "{text}");
    // A command that changes something waits, too.
    let mut subvolume = volume.command(&["subvolume", "create", "@/subvolume"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(subvolume.try_wait().unwrap().is_none());
    assert!(writers.iter_mut().all(|writer| writer.try_wait().unwrap().is_none()));

    assert!(volume.refused(&["thaw", "@", "--holder", "nonsense"], 22).contains("no token of this mount"));
    assert!(volume.refused(&["thaw", "@", "--holder", "1-00000000"], 22).contains("no token of this mount"));
    assert_eq!(volume.text(&["thaw", "@", "--holder", &token]), "");
    writers.iter_mut().for_each(|writer| assert!(writer.wait().unwrap().success()));
    assert!(subvolume.wait().unwrap().success());
    assert!(volume.path("subvolume").is_dir());
    assert!(volume.refused(&["thaw", "@", "--holder", &token], 22).contains("not frozen"));
    assert!(volume.refused(&["thaw", "@"], 22).contains("not frozen"));
    assert!(volume.refused(&["thaw", "@", "--force"], 22).contains("not frozen"));
    volume.umount();
}

#[test]
fn a_freeze_ends_when_its_time_is_up() {
    let mut volume = Volume::mounted();
    let token = volume.token(&["freeze", "@", "--timeout", "0.3"]);
    assert_eq!(volume.state(), "frozen");
    fs::write(volume.path("file"), b"waits for the time to be up").unwrap();
    assert_eq!(volume.state(), "read-write");
    assert!(volume.refused(&["thaw", "@"], 110).contains("may be torn"));
    assert!(volume.refused(&["thaw", "@", "--holder", &token], 22).contains("not frozen"));
    // Under a hold as well; the command is not disturbed.
    let told = volume.refused(&["freeze", "@", "--timeout", "100ms", "--hold", "--", "sleep", "0.4"], 110);
    assert!(told.contains("may be torn"), "{told}");
    volume.end();
}

#[test]
fn a_hold_ends_with_its_owner() {
    let mut volume = Volume::mounted();
    for signal in [Signal::KILL, Signal::INT, Signal::TERM, Signal::HUP] {
        let mut owner = volume.hold();
        assert_eq!((volume.state(), volume.holders()), ("frozen".into(), 1));
        let told = volume.refused(&["thaw", "@"], 16);
        assert!(told.contains("held frozen by commands that run"), "{told}");
        kill_process(Pid::from_child(&owner), signal).unwrap();
        let ended = owner.wait().unwrap();
        if signal != Signal::KILL {
            assert_eq!(ended.code(), Some(128 + signal.as_raw()));
            assert_eq!(volume.state(), "read-write");
        }
        volume.wait_for_state("read-write");
        fs::write(volume.path("file"), b"x").unwrap();
    }
    volume.end();
}

#[test]
fn several_may_hold_it() {
    let mut volume = Volume::mounted();
    let first = volume.token(&["freeze", "@", "--no-timeout"]);
    let second = volume.token(&["freeze", "@", "--timeout", "1h"]);
    let mut third = volume.hold();
    assert!(first != second && volume.holders() == 3);
    assert!(volume.refused(&["freeze", "@", "--exclusive"], 16).contains("frozen already"));
    assert!(volume.refused(&["thaw", "@"], 16).contains("several hold it"));
    volume.text(&["thaw", "@", "--holder", &second]);
    volume.text(&["thaw", "@"]);
    assert_eq!((volume.state(), volume.holders()), ("frozen".into(), 1));
    let fourth = volume.token(&["freeze", "@"]);
    volume.text(&["thaw", "@", "--force"]);
    assert_eq!((volume.state(), volume.holders()), ("read-write".into(), 0));
    assert!(volume.refused(&["thaw", "@", "--holder", &fourth], 110).contains("may be torn"));
    kill_process(Pid::from_child(&third), Signal::TERM).unwrap();
    third.wait().unwrap();
    volume.end();
}

#[test]
fn a_frozen_volume_is_unmounted_as_it_is() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), b"x").unwrap();
    volume.text(&["freeze", "@"]);
    volume.end();
    volume.mount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"x");
    let mut hold = volume.hold();
    volume.end();
    let output = {
        kill_process(Pid::from_child(&hold), Signal::TERM).unwrap();
        hold.wait().unwrap()
    };
    assert_eq!(output.code(), Some(128 + 15));
}

#[test]
fn mounts_that_are_only_read_can_be_frozen() {
    let opening = Opening::of(&golden::image("02-small-tree"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    checked(frazil(["mount", "-o", "ro", &opening.devices, path]));
    expect_io_uring(path);
    let token = String::from_utf8(checked(frazil(["freeze", path]))).unwrap();
    let status: Value = serde_json::from_slice(&checked(frazil(["status", "--json", path]))).unwrap();
    checked(frazil(["thaw", path, "--holder", token.trim_end()]));
    let again = frazil(["thaw", path]).output().unwrap();
    checked(frazil(["umount", path]));
    assert_eq!(status["lifecycle"]["state"], "frozen, read-only");
    assert_eq!(again.status.code(), Some(22));
}

#[test]
fn shutting_down_keeps_what_the_mode_promises() {
    for (mode, kept) in [("default", true), ("logflush", false), ("nologflush", false)] {
        let mut volume = Volume::mounted();
        fs::write(volume.path("synced"), b"x").unwrap();
        volume.text(&["sync", "@"]);
        fs::write(volume.path("file"), b"not synced").unwrap();
        volume.text(&["shutdown", "@", "--mode", mode]);
        let code = fs::write(volume.path("more"), b"x").unwrap_err().raw_os_error();
        assert_eq!(code, Some(30), "{mode}");
        assert_eq!(fs::read(volume.path("synced")).unwrap(), b"x");
        let life = volume.status()["lifecycle"].clone();
        assert_eq!((&life["read_only"], &life["error"]), (&true.into(), &"it was shut down".into()));
        assert!(volume.text(&["status", "@"]).contains("error     it was shut down"));
        assert_eq!(volume.text(&["shutdown", "@"]), "");
        assert!(volume.refused(&["freeze", "@"], 5).contains("shut down"));
        // That it is not clean is known: for umount(8) it is as with any other filesystem that was shut down.
        assert_eq!(volume.text(&["umount", "@"]), "");
        volume.server.take().unwrap().wait().unwrap();
        volume.mount();
        assert_eq!(fs::read(volume.path("synced")).unwrap(), b"x");
        if kept {
            assert_eq!(fs::read(volume.path("file")).unwrap(), b"not synced");
        }
        volume.end();
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let volume = Volume::mounted();
    for arguments in [
        &["freeze"][..],
        &["freeze", "@", "--hold"],
        &["freeze", "@", "--", "true"],
        &["freeze", "@", "--timeout", "never"],
        &["freeze", "@", "--timeout", "1", "--no-timeout"],
        &["freeze", "@", "--drain-timeout", "-1"],
        &["thaw"],
        &["thaw", "@", "--force", "--holder", "x"],
        &["shutdown"],
        &["shutdown", "@", "--mode", "3"],
    ] {
        assert!(volume.refused(arguments, 2).contains("see: frazil"), "{arguments:?}");
    }
    for command in ["freeze", "thaw", "shutdown"] {
        assert_eq!(volume.refused(&[command, "/proc"], 1), "/proc is not a frazil mount");
    }
    assert_eq!(volume.state(), "read-write");
}

#[test]
fn controls_of_an_open_handle_do_the_same() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), b"x").unwrap();
    let script = format!(
        r#"
import fcntl, os, struct, sys
FREEZE, THAW, SHUTDOWN = 0xC018FA40, 0x4008FA41, 0x4004FA42
def call(fd, number, data):
    try:
        return fcntl.ioctl(fd, number, data)
    except OSError as error:
        return error.errno
for path in {:?}, {:?}:
    fd = os.open(path, os.O_RDONLY)
    _, _, hold = struct.unpack("QQQ", call(fd, FREEZE, struct.pack("QQQ", 0, 0, 0)))
    print(open(path).read() if os.path.isfile(path) else os.listdir(path), flush=True)
    print(call(fd, THAW, struct.pack("Q", hold + 1)), call(fd, THAW, struct.pack("Q", hold)) == struct.pack("Q", hold))
    call(fd, FREEZE, struct.pack("QQQ", 60000, 1000, 0))
    print(call(fd, THAW, struct.pack("Q", 0)) == struct.pack("Q", 0), call(fd, THAW, struct.pack("Q", 0)))
    print(call(fd, SHUTDOWN, struct.pack("I", 3)))
call(fd, SHUTDOWN, struct.pack("I", 2))
"#,
        volume.path("file").display().to_string(),
        volume.dir(),
    );
    let told = checked({
        let mut python = Command::new("python3");
        python.args(["-c", &script]);
        python
    });
    let told = String::from_utf8(told).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..4], ["x", "22 True", "True 22", "22"], "{told}");
    assert_eq!(lines[5..], ["22 True", "True 22", "22"], "{told}");
    assert_eq!(volume.status()["lifecycle"]["error"], "it was shut down");
    volume.kill();
}

#[test]
fn the_hook_freezes_and_thaws() {
    let mut volume = Volume::mounted();
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/hooks/fsfreeze-hook");
    let state = volume.files.path().join("state");
    // Only the mount of this test, and the program under test.
    let mounts = volume.files.path().join("mounts");
    fs::write(&mounts, format!("image {} fuse.frazil rw 0 0\n", volume.dir())).unwrap();
    let script = fs::read_to_string(hook).unwrap().replace("/proc/mounts", mounts.to_str().unwrap());
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_frazil")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let call = |what: &str, timeout: &str| {
        let mut sh = Command::new("sh");
        sh.args(["-c", &script, "hook", what]).env("PATH", &path);
        sh.env("FRAZIL_FREEZE_STATE", &state).env("FRAZIL_FREEZE_TIMEOUT", timeout).output().unwrap()
    };
    assert!(call("freeze", "1m").status.success());
    assert_eq!(volume.state(), "frozen");
    assert!(call("thaw", "1m").status.success());
    assert_eq!((volume.state(), state.exists()), ("read-write".into(), false));
    assert!(call("thaw", "1m").status.success(), "nothing to thaw");
    assert!(call("freeze", "100ms").status.success());
    volume.wait_for_state("read-write");
    assert_eq!(call("thaw", "1m").status.code(), Some(1), "it thawed too early");
    assert_eq!(call("", "1m").status.code(), Some(2));
    volume.end();
}
