//! Several processes: going into the background, signals, unmounting from outside.
//!
//! The test program is also the program under test: with arguments it is a small `mount` command over the fake filesystem,
//! so it has a `main` of its own.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use common::{FILE_BYTES, Fake, LONG};
use frazil_device::mounts;
use frazil_fuse::daemon::{self, Role};
use frazil_fuse::{Options, serve, umount};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("mount") => match daemon::detach().unwrap() {
            Role::Starter { exit_code, error } => {
                error.into_iter().for_each(|error| eprintln!("error: {error}"));
                ExitCode::from(exit_code)
            }
            Role::Server(ready) => serve_fake(&arguments[1..], Some(ready)),
        },
        Some("foreground") => serve_fake(&arguments[1..], None),
        Some("die") => match daemon::detach().unwrap() {
            Role::Starter { exit_code, error } => {
                error.into_iter().for_each(|error| eprintln!("error: {error}"));
                ExitCode::from(exit_code)
            }
            Role::Server(_) => std::process::abort(),
        },
        _ => run_tests(&arguments),
    }
}

/// The program under test: opens the device, mounts at the directory.
fn serve_fake(arguments: &[String], ready: Option<daemon::Ready>) -> ExitCode {
    let [device, dir] = arguments else { panic!("mount DEVICE DIR") };
    let _open_like_a_device = fs::File::open(device).unwrap();
    match serve(Fake::new(), Path::new(dir), &Options::new(device.clone()), ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}

/// Like the usual test programs: all tests, or those named; or with `--list` their names, for programs that run tests one by
/// one.
fn run_tests(arguments: &[String]) -> ExitCode {
    type Test = fn(&Place);
    let tests: [(&str, Test); 5] = [
        (
            "mount_returns_when_usable_and_umount_when_closed",
            mount_returns_when_usable_and_umount_when_closed,
        ),
        ("errors_reach_the_starter", errors_reach_the_starter),
        ("a_signal_unmounts", a_signal_unmounts),
        ("a_signal_unmounts_under_its_users", a_signal_unmounts_under_its_users),
        ("a_dead_mount_is_named_and_cleared", a_dead_mount_is_named_and_cleared),
    ];
    let given = |argument: &str| arguments.iter().any(|given| given == argument);
    if given("--list") {
        // None of them is ignored.
        tests.iter().filter(|_| !given("--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let some_named = tests.iter().any(|(name, _)| given(name));
    let mut passed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| !some_named || given(name)) {
        test(&Place::new());
        println!("test {name} ... ok");
        passed += 1;
    }
    println!("test result: ok. {passed} passed; 0 failed; 0 ignored");
    ExitCode::SUCCESS
}

/// A directory to mount at, and a file that is opened like a device.
struct Place {
    temporary: tempfile::TempDir,
    dir: PathBuf,
    device: PathBuf,
}

impl Place {
    fn new() -> Place {
        let temporary = tempfile::tempdir().unwrap();
        let base = temporary.path().canonicalize().unwrap();
        let (dir, device) = (base.join("dir"), base.join("device"));
        fs::create_dir(&dir).unwrap();
        fs::write(&device, "").unwrap();
        Place { temporary, dir, device }
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(what).arg(&self.device).arg(&self.dir);
        command
    }

    fn foreground(&self) -> Child {
        let child = self.command("foreground").spawn().unwrap();
        wait_until(|| self.is_mounted());
        child
    }

    fn is_mounted(&self) -> bool {
        mounts::at(&self.dir).is_some()
    }

    /// Processes, this one aside, that have the device open.
    fn users_of_device(&self) -> Vec<u32> {
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let has_open = |pid: &u32| {
            fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut fds| {
                fds.any(|fd| fd.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == self.device)))
            })
        };
        pids.filter(has_open).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After a failed test, so that the directory can be removed.
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-f").arg(&self.dir).status();
        }
        assert!(self.temporary.path().exists());
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "waited in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mount_returns_when_usable_and_umount_when_closed(place: &Place) {
    // Its outputs are pipes that are read to the end: they must not stay open in the background.
    let output = place.command("mount").stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    assert!(place.is_mounted());
    assert_eq!(fs::read(place.dir.join("file")).unwrap().len() as u64, FILE_BYTES);
    let [server] = place.users_of_device()[..] else { panic!("one process serves") };
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name(&server.to_string()), name("self"));

    let open = fs::File::open(place.dir.join("file")).unwrap();
    let busy = umount(&place.dir).unwrap_err().to_string();
    assert!(busy.contains("is in use"), "{busy}");
    drop(open);
    umount(&place.dir).unwrap();
    assert_eq!(place.users_of_device(), [0u32; 0]);
    assert!(!place.is_mounted());
    let again = umount(&place.dir).unwrap_err().to_string();
    assert_eq!(again, format!("{} is not a frazil mount", place.dir.display()));
}

fn errors_reach_the_starter(place: &Place) {
    fs::remove_dir(&place.dir).unwrap();
    fs::write(&place.dir, "").unwrap();
    let output = place.command("mount").output().unwrap();
    let expected = format!("error: {} is not a directory\n", place.dir.display());
    assert_eq!((output.status.code(), stderr(&output)), (Some(3), expected));

    let output = place.command("die").output().unwrap();
    let killed = "error: the serving process was killed by signal 6\n";
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), killed));
}

fn a_signal_unmounts(place: &Place) {
    for name in ["-TERM", "-INT"] {
        let mut server = place.foreground();
        signal(&server, name);
        assert_eq!(server.wait().unwrap().code(), Some(0));
        assert!(!place.is_mounted());
    }
}

fn a_signal_unmounts_under_its_users(place: &Place) {
    let mut server = place.foreground();
    let open = fs::File::open(place.dir.join("file")).unwrap();
    signal(&server, "-TERM");
    assert_eq!(server.wait().unwrap().code(), Some(0));
    assert!(!place.is_mounted());
    assert!(std::io::Read::read(&mut &open, &mut [0; 10]).is_err());
}

fn a_dead_mount_is_named_and_cleared(place: &Place) {
    let mut server = place.foreground();
    server.kill().unwrap();
    server.wait().unwrap();
    // The kernel takes a moment to find out if requests came through io_uring.
    wait_until(|| rustix::fs::statvfs(&place.dir).err() == Some(rustix::io::Errno::NOTCONN));
    let output = place.command("foreground").output().unwrap();
    let expected = format!(
        "error: {0} is a mount whose process has died; clear it with: umount {0}\n",
        place.dir.display()
    );
    assert_eq!((output.status.code(), stderr(&output)), (Some(3), expected));
    umount(&place.dir).unwrap();
    assert!(!place.is_mounted());
}
