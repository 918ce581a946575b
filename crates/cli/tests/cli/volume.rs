//! A volume in a file that is mounted, changed and unmounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{checked, errors, frazil};

/// If requests are to come through io_uring, they do at this mount, by what its status says.
pub(crate) fn expect_io_uring(dir: impl AsRef<Path>) {
    frazil_testing::expect_io_uring(|| {
        let status = checked(frazil(["status".as_ref(), "--json".as_ref(), dir.as_ref()]));
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        status["mount"]["io_uring_queues"].as_u64()
    });
}

/// A volume in a file, and where it is mounted.
pub(crate) struct Volume {
    pub(crate) files: tempfile::TempDir,
    pub(crate) server: Option<Child>,
}

impl Volume {
    pub(crate) fn new() -> Volume {
        Volume::of_size("256M")
    }

    pub(crate) fn of_size(size: &str) -> Volume {
        Volume::formatted(&["--size", size])
    }

    pub(crate) fn formatted(options: &[&str]) -> Volume {
        let volume = Volume { files: tempfile::tempdir().unwrap(), server: None };
        checked(frazil(["format"].iter().chain(options).chain(&[volume.image().to_str().unwrap()])));
        fs::create_dir(volume.path("")).unwrap();
        volume
    }

    /// A new one, mounted.
    pub(crate) fn mounted() -> Volume {
        let mut volume = Volume::new();
        volume.mount();
        volume
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.files.path().join("image")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join("mnt").join(name)
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> String {
        self.path("").to_str().unwrap().trim_end_matches('/').to_owned()
    }

    /// A command about the mount, which is `@` in the arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        frazil(arguments.iter().map(|argument| argument.replace('@', &self.dir())))
    }

    /// What such a command says when it succeeds.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(checked(self.command(arguments))).unwrap()
    }

    /// The one line with which it is refused.
    pub(crate) fn refused(&self, arguments: &[&str], exit_code: i32) -> String {
        let output = self.command(arguments).output().unwrap();
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {told}");
        assert_eq!((output.stdout.len(), told.lines().count()), (0, 1), "{arguments:?}: {told}");
        told.strip_prefix("error: ").unwrap().trim_end().to_owned()
    }

    /// Mounts it, served by a child that can be killed.
    pub(crate) fn mount(&mut self) {
        self.mount_with("rw");
    }

    /// The same with these options.
    pub(crate) fn mount_with(&mut self, options: &str) {
        let mut command = frazil(["mount", "-f", "-o", options]);
        command.arg(self.image()).arg(self.path("")).stderr(Stdio::piped());
        self.server = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.is_mounted() {
            assert!(Instant::now() < deadline, "it is not mounted");
            std::thread::sleep(Duration::from_millis(5));
        }
        expect_io_uring(self.dir());
    }

    pub(crate) fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.contains(&format!(" {} ", self.dir()))
    }

    /// Unmounts it; the volume must be clean and right.
    pub(crate) fn umount(&mut self) {
        checked(frazil(["umount", self.path("").to_str().unwrap()]));
        let output = self.server.take().unwrap().wait_with_output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        assert_eq!(errors(&output), "");
        self.assert_right();
    }

    pub(crate) fn assert_right(&self) {
        let checked = checked(frazil(["fsck", "-n", self.image().to_str().unwrap()]));
        assert_eq!(String::from_utf8_lossy(&checked), "clean\n");
    }

    /// Whether the superblock says that there is nothing to recover.
    pub(crate) fn is_marked_clean(&self) -> bool {
        let shown = checked(frazil(["show-super", self.image().to_str().unwrap()]));
        let shown = String::from_utf8(shown).unwrap();
        let line = shown.lines().find(|line| line.starts_with("Clean:")).unwrap();
        line.ends_with('1')
    }

    /// What a copy of the image holds must be right, and marked clean if it is to be.
    pub(crate) fn assert_copy_right(&self, clean: bool) {
        assert!(!clean || self.is_marked_clean());
        let copy = self.files.path().join("copy");
        fs::copy(self.image(), &copy).unwrap();
        let checked = checked(frazil(["fsck", "-n", copy.to_str().unwrap()]));
        assert_eq!(String::from_utf8_lossy(&checked), "clean\n");
    }

    /// The server dies; nothing it knew survives but what it wrote.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        rustix::mount::unmount(self.path(""), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if self.is_mounted() {
            let _ = rustix::mount::unmount(self.path(""), rustix::mount::UnmountFlags::DETACH);
        }
    }
}
