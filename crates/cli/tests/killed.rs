//! Processes that are killed with `kill -9`, in every state of a mount that can be brought about from outside. Needs root and `/dev/fuse`.
//!
//! Whatever is killed and whenever: the mount point can be cleaned up, a check finds nothing wrong with the volume, it can be mounted again, what was
//! made durable is there, and a volume that was frozen is marked clean.
//!
//! A device that hangs is a file on another mounted volume, which is frozen.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/run.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod run;
#[path = "cli/volume.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod volume;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use volume::Volume;

/// A limit that no step of a test that succeeds comes near.
const LONG: Duration = Duration::from_secs(30);

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a child, but not for ever.
fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "process {} does not end", child.id());
        thread::sleep(Duration::from_millis(5));
    }
}

fn state(volume: &Volume) -> String {
    let status: serde_json::Value = serde_json::from_str(&volume.text(&["status", "--json", "@"])).unwrap();
    status["lifecycle"]["state"].as_str().unwrap().to_owned()
}

/// Writes a file and makes it durable, with its name.
fn durable(path: &PathBuf, content: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    File::open(path.parent().unwrap())?.sync_all()
}

/// The server is killed; then everything must be as it should.
fn kill_server(volume: &mut Volume) {
    let mut server = volume.server.take().unwrap();
    server.kill().unwrap();
    assert_eq!(ended(&mut server).signal(), Some(9));
    // The kernel takes a moment to find out if requests came through io_uring.
    let deadline = Instant::now() + LONG;
    while rustix::fs::statvfs(volume.path("")).err() != Some(rustix::io::Errno::NOTCONN) {
        assert!(Instant::now() < deadline);
    }
    let error = volume.refused(&["status", "@"], 1);
    assert!(error.contains("does not listen"), "{error}");
}

/// The mount point is free again; that says so if there is something to be recovered.
fn clean_up(volume: &mut Volume) {
    let umount = volume.command(&["umount", "@"]).output().unwrap();
    let told = run::errors(&umount);
    assert!(
        if volume.is_marked_clean() { told.is_empty() } else { told.contains("not marked clean") },
        "{told}"
    );
    assert!(!volume.is_mounted());
}

/// What was left is right, and these files are in it.
fn assert_survives(volume: &mut Volume, files: &[String]) {
    volume.assert_right();
    volume.mount();
    for name in files {
        assert_eq!(fs::read(volume.path(name)).unwrap(), name.as_bytes(), "{name}");
    }
    fs::write(volume.path("afterwards"), b"x").unwrap();
    volume.umount();
}

#[test]
fn a_server_with_nothing_to_do() {
    let mut volume = Volume::mounted();
    durable(&volume.path("synced"), b"synced").unwrap();
    fs::write(volume.path("not synced"), b"x").unwrap();
    kill_server(&mut volume);
    clean_up(&mut volume);
    assert_survives(&mut volume, &["synced".into()]);
}

/// Makes files durable, and says which, until it fails.
fn make_durable(volume: &Volume, name: &str, done: &Sender<String>) {
    for round in 0.. {
        let name = format!("{name}{round}");
        if durable(&volume.path(&name), name.as_bytes()).is_err() {
            return;
        }
        done.send(name).unwrap();
    }
}

#[test]
fn a_server_under_load() {
    let mut volume = Volume::new();
    let mut files = Vec::new();
    for round in 0..3 {
        volume.mount();
        let (done, received) = channel();
        thread::scope(|scope| {
            for writer in 0..4 {
                let (volume, done) = (&volume, done.clone());
                scope.spawn(move || make_durable(volume, &format!("{round}.{writer}."), &done));
            }
            drop(done);
            files.extend(received.iter().take(200));
            let server = volume.server.as_ref().unwrap();
            rustix::process::kill_process(
                rustix::process::Pid::from_child(server),
                rustix::process::Signal::KILL,
            )
            .unwrap();
            files.extend(received);
        });
        kill_server(&mut volume);
        clean_up(&mut volume);
        volume.assert_right();
    }
    assert_survives(&mut volume, &files);
}

#[test]
fn a_server_that_is_frozen() {
    let mut volume = Volume::mounted();
    durable(&volume.path("synced"), b"synced").unwrap();
    fs::write(volume.path("not synced"), b"not synced").unwrap();
    volume.text(&["freeze", "@", "--timeout", "30"]);
    let mut waiting = std::process::Command::new("touch");
    let mut waiting = waiting.arg(volume.path("waits")).stderr(Stdio::null()).spawn().unwrap();
    wait_until("it waits", || volume.text(&["status", "@"]).contains("waiting "));
    kill_server(&mut volume);
    assert!(!ended(&mut waiting).success(), "who waits is told");
    assert!(volume.is_marked_clean());
    clean_up(&mut volume);
    assert_survives(&mut volume, &["synced".into(), "not synced".into()]);
}

#[test]
fn a_server_whose_freeze_is_held_by_a_command() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), b"file").unwrap();
    let mut holder = volume
        .command(&["freeze", "@", "--hold", "--", "sleep", "60"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is frozen", || state(&volume) == "frozen");
    kill_server(&mut volume);
    assert!(volume.is_marked_clean());
    clean_up(&mut volume);
    rustix::process::kill_process(rustix::process::Pid::from_child(&holder), rustix::process::Signal::TERM)
        .unwrap();
    ended(&mut holder);
    assert_survives(&mut volume, &["file".into()]);
}

#[test]
fn the_command_of_a_hold() {
    let mut volume = Volume::mounted();
    let pid = volume.files.path().join("pid");
    let script = format!("echo $$ >{}; exec sleep 60", pid.display());
    let mut holder = volume
        .command(&["freeze", "@", "--hold", "--", "sh", "-c", &script])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the command runs", || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')));
    assert_eq!(state(&volume), "frozen");
    let number: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let number = rustix::process::Pid::from_raw(number).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
    assert_eq!(ended(&mut holder).code(), Some(128 + 9));
    assert_eq!(state(&volume), "read-write");
    volume.umount();
}

#[test]
fn a_server_that_was_shut_down() {
    for mode in ["default", "logflush", "nologflush"] {
        let mut volume = Volume::mounted();
        durable(&volume.path("synced"), b"synced").unwrap();
        volume.text(&["shutdown", "@", "--mode", mode]);
        kill_server(&mut volume);
        clean_up(&mut volume);
        assert_survives(&mut volume, &["synced".into()]);
    }
}

#[test]
fn a_server_that_is_remounted_read_only() {
    let mut volume = Volume::mounted();
    fs::write(volume.path("file"), b"file").unwrap();
    let (image, dir) = (volume.image(), volume.dir());
    volume.text(&["mount", "-o", "remount,ro", image.to_str().unwrap(), &dir]);
    kill_server(&mut volume);
    assert!(volume.is_marked_clean());
    clean_up(&mut volume);
    assert_survives(&mut volume, &["file".into()]);
}

/// A volume whose device can be made to hang.
struct Hanging {
    inner: Volume,
    outer: Volume,
    /// By which it goes on.
    token: Mutex<Option<String>>,
}

impl Hanging {
    fn new() -> Hanging {
        let (mut outer, mut inner) = (Volume::of_size("512M"), Volume::of_size("128M"));
        outer.mount();
        fs::copy(inner.image(), outer.path("image")).unwrap();
        fs::remove_file(inner.image()).unwrap();
        std::os::unix::fs::symlink(outer.path("image"), inner.image()).unwrap();
        inner.mount();
        durable(&inner.path("synced"), b"synced").unwrap();
        outer.text(&["sync", "@"]);
        Hanging { inner, outer, token: Mutex::default() }
    }

    fn hang(&self) {
        *self.token.lock().unwrap() = Some(self.outer.text(&["freeze", "@", "--timeout", "60"]));
    }

    fn go_on(&self) {
        if let Some(token) = self.token.lock().unwrap().take() {
            // If its time was up it goes on, too.
            let _ = self.outer.command(&["thaw", "@", "--holder", token.trim_end()]).output();
        }
    }

    /// A command that will not end as long as it hangs.
    fn start(&self, arguments: &[&str]) -> Child {
        self.inner.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The server of the volume is killed while it hangs, and everything is right when the device goes on.
    fn kill_server(&mut self, commands: impl IntoIterator<Item = Child>) {
        self.inner.server.as_mut().unwrap().kill().unwrap();
        // What it writes to is frozen, and lets those go that are killed.
        self.go_on();
        let mut server = self.inner.server.take().unwrap();
        assert_eq!(ended(&mut server).signal(), Some(9));
        commands.into_iter().for_each(|mut command| assert!(ended(&mut command).code().is_some()));
        // Unless that is what it was at.
        if self.inner.is_mounted() {
            clean_up(&mut self.inner);
        }
        assert_survives(&mut self.inner, &["synced".into()]);
        self.outer.umount();
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.go_on();
    }
}

#[test]
fn a_server_on_its_way_to_be_frozen() {
    let mut hanging = Hanging::new();
    hanging.hang();
    fs::write(hanging.inner.path("more"), b"more").unwrap();
    let freezing = hanging.start(&["freeze", "@", "--drain-timeout", "60"]);
    wait_until("it is freezing", || state(&hanging.inner) == "freezing");
    hanging.kill_server([freezing]);
}

#[test]
fn who_waits_for_a_freeze() {
    let mut hanging = Hanging::new();
    hanging.hang();
    fs::write(hanging.inner.path("more"), b"more").unwrap();
    let mut freezing =
        hanging.start(&["freeze", "@", "--drain-timeout", "60", "--hold", "--", "sleep", "60"]);
    wait_until("it is freezing", || state(&hanging.inner) == "freezing");
    freezing.kill().unwrap();
    assert_eq!(ended(&mut freezing).signal(), Some(9));
    hanging.go_on();
    wait_until("it goes on", || state(&hanging.inner) == "read-write");
    fs::write(hanging.inner.path("and more"), b"x").unwrap();
    hanging.inner.umount();
    hanging.outer.umount();
}

#[test]
fn a_server_that_is_being_thawed() {
    let mut hanging = Hanging::new();
    hanging.inner.text(&["freeze", "@", "--timeout", "60"]);
    hanging.hang();
    let thawing = hanging.start(&["thaw", "@"]);
    wait_until("it is thawing", || state(&hanging.inner) == "thawing");
    hanging.kill_server([thawing]);
}

#[test]
fn a_server_that_is_being_unmounted() {
    let mut hanging = Hanging::new();
    hanging.hang();
    fs::write(hanging.inner.path("more"), b"more").unwrap();
    let unmounting = hanging.start(&["umount", "@"]);
    wait_until("it is unmounted", || !hanging.inner.is_mounted());
    hanging.kill_server([unmounting]);
}

#[test]
fn a_server_that_is_being_shut_down() {
    let mut hanging = Hanging::new();
    hanging.hang();
    fs::write(hanging.inner.path("more"), b"more").unwrap();
    let stopping = hanging.start(&["shutdown", "@"]);
    wait_until("it is shutting down", || state(&hanging.inner) == "shutting down");
    hanging.kill_server([stopping]);
}
