//! Mounting by the command, as people, scripts and mount(8) do. Needs root and `/dev/fuse`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/run.rs"]
#[allow(dead_code, reason = "the other test program uses the rest")]
mod run;
#[path = "cli/volume.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod volume;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use frazil_device::{Access, FileDevice, OpenOptions};
use frazil_testing::compare::{Aspect, Comparison};
use frazil_testing::golden::{self, GoldenImage};
use frazil_testing::observe;

use run::{Opening, checked, errors, file, frazil};
use volume::expect_io_uring;

/// A directory to mount on; unmounted at the end, whatever the test did.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == Some(self.path()))
    }

    fn umount(&self) {
        checked(frazil(["umount", self.path()]));
        assert!(!self.is_mounted());
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = frazil(["umount", self.path()]).output();
        }
    }
}

/// The devices of an image, joined.
fn devices(image: &GoldenImage) -> String {
    Opening::of(image).devices
}

/// Mounts an image; the passphrase, if it needs one, comes from a file.
fn mount(image: &GoldenImage, dir: &Dir) {
    mount_devices(image, &devices(image), dir);
}

/// Mounts the devices of an image, or of a copy.
fn mount_devices(image: &GoldenImage, devices: &str, dir: &Dir) {
    let keys = tempfile::tempdir().unwrap();
    let options = match image.passphrase_bytes() {
        Some(passphrase) => format!("ro,passphrase_file={}", file(&keys, "key", passphrase).display()),
        None => "ro".to_owned(),
    };
    let output = frazil(["mount", "-o", &options, devices, dir.path()]).output().unwrap();
    assert!(output.status.success(), "{}: {}", image.name, errors(&output));
    assert_eq!(output.stdout, b"");
    expect_io_uring(dir.path());
}

/// Takes a device as who writes to it does.
fn take(path: &Path) -> frazil_device::Result<FileDevice> {
    OpenOptions::new(Access::ReadWrite).open(path)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn refused(arguments: &[&str], exit_code: i32) -> String {
    assert_refused(frazil(arguments), exit_code)
}

fn assert_refused(mut command: Command, exit_code: i32) -> String {
    let output = command.output().unwrap();
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(exit_code), "{command:?}: {errors}");
    assert_eq!((output.stdout, errors.lines().count()), (vec![], 1), "{command:?}: {errors}");
    errors.strip_prefix("error: ").unwrap_or_else(|| panic!("{command:?}: {errors}")).trim_end().to_owned()
}

#[test]
fn every_image_equals_its_manifest_when_mounted() {
    for image in golden::all().into_iter().filter(|image| image.in_repo) {
        let (dir, scratch) = (Dir::new(), image.scratch());
        let devices: Vec<&str> = scratch.paths.iter().map(|path| path.to_str().unwrap()).collect();
        mount_devices(&image, &devices.join(":"), &dir);
        let mut manifest = image.manifest();
        if image.name == "01-empty-formatted-only" {
            // The driver made its directories when it started a copy.
            for entry in &mut manifest.entries {
                (entry.mtime_ns, entry.ctime_ns, entry.atime_ns) = (None, None, None);
            }
        }
        let mut seen = observe::tree(dir.0.path()).unwrap();
        for entry in &mut seen {
            // In other subvolumes numbers are made unique for the mount.
            entry.ino = entry.ino.filter(|&ino| ino < 1 << 63);
        }
        let comparison = Comparison::new(&manifest).without(Aspect::Flags);
        let found = comparison.run(seen, |path: &[u8]| observe::content(dir.0.path(), path));
        assert_eq!(found, [""; 0], "{}", image.name);
        dir.umount();
        assert!(
            scratch.paths.iter().all(|path| take(path).is_ok()),
            "{}: a device is still open",
            image.name
        );
    }
}

#[test]
fn a_volume_is_mounted_once_at_a_place_and_again_after_umount() {
    let scratch = golden::image("02-small-tree").scratch();
    let device = scratch.paths[0].to_str().unwrap();
    let (dir, other) = (Dir::new(), Dir::new());
    let mount = |dir: &Dir| {
        checked(frazil(["mount", "-o", "ro", device, dir.path()]));
        expect_io_uring(dir.path());
    };
    mount(&dir);
    let told = refused(&["mount", "-o", "ro", device, dir.path()], 1);
    assert!(told.contains("already") && told.contains(&format!("frazil umount {}", dir.path())), "{told}");
    // Readers do not disturb each other.
    mount(&other);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(dir.path())).unwrap();
    assert!(line.contains(" fuse.frazil ro,") && line.starts_with(device), "{line}");
    dir.umount();
    assert_eq!(std::fs::read(other.0.path().join("sizes/s1")).unwrap().len(), 1);
    mount(&dir);
    assert_eq!(std::fs::read(dir.0.path().join("sizes/s1")).unwrap().len(), 1);
    assert!(take(&scratch.paths[0]).is_err(), "readers keep writers out");
    dir.umount();
    assert!(refused(&["umount", dir.path()], 1).contains("not a frazil mount"));
}

#[test]
fn a_mount_in_use_stays() {
    let dir = Dir::new();
    mount(&golden::image("02-small-tree"), &dir);
    let open = File::open(dir.0.path().join("sizes/s1")).unwrap();
    assert!(refused(&["umount", dir.path()], 1).contains("in use"));
    assert!(dir.is_mounted());
    drop(open);
    dir.umount();
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line() {
    let image = golden::image("02-small-tree");
    let (dir, device) = (Dir::new(), devices(&image));
    assert!(refused(&["mount", "-o", "ro,fast", &device, dir.path()], 2).contains("'fast'"));
    assert!(refused(&["mount", "-o", "ro", &device, "/no/such/dir"], 1).contains("mkdir"));
    assert!(refused(&["mount", &device], 2).contains("see: frazil mount --help"));
    assert!(refused(&["mount", "-o", "ro", "/etc/passwd", dir.path()], 1).contains("not a bcachefs device"));
    let two = golden::image("09-multi-striped").unpack();
    let told = refused(&["mount", "-o", "ro", two[0].to_str().unwrap(), dir.path()], 1);
    assert!(told.contains("-o very_degraded"), "{told}");
    // Somebody writes to it.
    let scratch = image.scratch();
    let _writer = take(&scratch.paths[0]).unwrap();
    let told = refused(&["mount", "-o", "ro", scratch.paths[0].to_str().unwrap(), dir.path()], 1);
    assert!(told.contains(&format!("(pid {})", std::process::id())), "{told}");
    assert!(!dir.is_mounted());
}

#[test]
fn mounting_without_ro_says_what_it_does() {
    let dir = Dir::new();
    let output = frazil(["mount", &devices(&golden::image("02-small-tree")), dir.path()]).output().unwrap();
    assert!(output.status.success() && dir.is_mounted());
    expect_io_uring(dir.path());
    assert!(
        errors(&output).starts_with("note: it is mounted read-only; to change it, mount with -o rw"),
        "{}",
        errors(&output)
    );
    assert!(File::create(dir.0.path().join("new")).is_err());
}

/// A process of the test, ended with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn in_the_foreground_a_signal_ends_it() {
    let image = golden::image("02-small-tree");
    let dir = Dir::new();
    let child = frazil(["mount", "-f", "-o", "ro", &devices(&image), dir.path()]).spawn().unwrap();
    let mut child = Running(child);
    wait_until("it is mounted", || dir.is_mounted());
    expect_io_uring(dir.path());
    assert!(child.0.try_wait().unwrap().is_none());
    checked({
        let mut kill = Command::new("kill");
        kill.arg(child.0.id().to_string());
        kill
    });
    assert!(child.0.wait().unwrap().success());
    assert!(!dir.is_mounted());
}

#[test]
fn a_passphrase_can_come_from_standard_input() {
    let image = golden::image("08-crash-encrypted");
    let dir = Dir::new();
    let keys = tempfile::tempdir().unwrap();
    let key = File::open(file(&keys, "key", image.passphrase_bytes().unwrap())).unwrap();
    let mut mount = frazil(["mount", "-o", "ro,passphrase_file=-", &devices(&image), dir.path()]);
    checked({
        mount.stdin(key);
        mount
    });
    assert!(dir.is_mounted());
    expect_io_uring(dir.path());
}

/// What mount(8) runs for fstab: the program under another name.
#[test]
fn mount_can_call_it() {
    let image = golden::image("02-small-tree");
    let links = tempfile::tempdir().unwrap();
    let link = |name: &str| -> PathBuf {
        let path = links.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_frazil"), &path).unwrap();
        path
    };
    let helper = link("mount.frazil");
    let device = devices(&image);
    let call = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command
    };
    for (program, options) in [
        (&helper, "ro,nofail,x-systemd.automount,noatime,nosuid,nodev"),
        (&link("mount.fuse.frazil"), "ro,noexec"),
        (&PathBuf::from(env!("CARGO_BIN_EXE_frazil")), "ro,dev,suid"),
    ] {
        let dir = Dir::new();
        checked(call(program, &[&device, dir.path(), "-o", options]));
        expect_io_uring(dir.path());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(dir.path())).unwrap();
        for option in ["nosuid", "nodev", "noexec"] {
            assert_eq!(line.contains(option), options.contains(option), "{options}: {line}");
        }
        dir.umount();
    }
    let dir = Dir::new();
    let newer = golden::image("18-newer-1.28-casefold-lz4").scratch();
    let newer = newer.paths[0].to_str().unwrap();
    assert!(assert_refused(call(&helper, &[newer, dir.path(), "-o", "rw"]), 32).contains("-o ro"));
    assert!(assert_refused(call(&helper, &["/etc/passwd", dir.path(), "-o", "ro"]), 32).contains("bcachefs"));
    assert!(assert_refused(call(&helper, &[&device, dir.path(), "-o", "ro,fast"]), 1).contains("'fast'"));
    assert!(assert_refused(call(&helper, &[&device]), 1).contains("<DIR>"));
    checked(call(&helper, &[&device, dir.path(), "-f", "-o", "ro"]));
    assert!(!dir.is_mounted(), "-f pretends");
    checked(call(&helper, &[&device, dir.path(), "-s", "-n", "-o", "ro,fast"]));
    assert!(dir.is_mounted(), "-s passes over what is unknown");
}

#[test]
fn damage_is_an_error_of_exactly_those_bytes_and_one_line_in_the_log() {
    let image = golden::image("02-small-tree");
    let scratch = image.scratch();
    let manifest = image.manifest();
    let extent = manifest.entry(b"sizes/s1048577").unwrap().fiemap.clone().unwrap()[1];
    let device = File::options().write(true).open(&scratch.paths[0]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&device, &[0xff; 512], extent.physical_bytes).unwrap();
    drop(device);
    let (dir, logs) = (Dir::new(), tempfile::tempdir().unwrap());
    let log = logs.path().join("log");
    let options = format!("ro,log={}", log.display());
    checked(frazil(["mount", "-o", &options, scratch.paths[0].to_str().unwrap(), dir.path()]));
    expect_io_uring(dir.path());

    let damaged = File::open(dir.0.path().join("sizes/s1048577")).unwrap();
    let read = |at: u64| std::os::unix::fs::FileExt::read_at(&damaged, &mut [0; 4096], at);
    for _ in 0..2 {
        assert_eq!(read(extent.logical_bytes).unwrap_err().raw_os_error(), Some(5));
    }
    assert_eq!(read(extent.logical_bytes - 4096).unwrap(), 4096);
    assert_eq!(read(extent.logical_bytes + extent.len_bytes).unwrap(), 4096);
    drop(damaged);
    dir.umount();
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    let sector = (extent.physical_bytes / 512).to_string();
    let offset = extent.logical_bytes.to_string();
    for part in ["error: ", "sizes/s1048577", &offset, scratch.paths[0].to_str().unwrap(), &sector] {
        assert!(log.contains(part), "{part} is missing in {log}");
    }
}

#[test]
fn names_are_bytes() {
    let dir = Dir::new();
    mount(&golden::image("02-small-tree"), &dir);
    let names = std::fs::read_dir(dir.0.path().join("names")).unwrap();
    assert!(names.map(|name| name.unwrap().file_name()).any(|name| name.as_bytes() == b"latin1-\xe9\xff"));
}
