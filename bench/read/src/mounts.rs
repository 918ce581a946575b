//! Mounts of both kinds, each in a directory of its own that goes with it, and the page cache.
//!
//! What is cold: the server is a new process, the mount a new one (so the kernel knows no name and no page of it), and the
//! image's pages are put out of the page cache. That is what dropping all caches of the machine does for the files
//! in question, and leaves everybody else's alone.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use frazil_bench_common::Outcome;
use frazil_device::{Access, OpenOptions as DeviceOptions};
use frazil_posix::Fs;
use frazil_volume::OpenOptions;
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use crate::table::Side;

/// What the server prints when its mount is usable.
const READY: &str = "mounted";

/// The files of a volume, opened without mounting it.
pub(crate) fn open(image: &Path) -> Outcome<Fs> {
    let device = Arc::new(DeviceOptions::new(Access::ReadOnly).open(image)?);
    Ok(Fs::new(Arc::new(frazil_volume::open(vec![device], OpenOptions::default())?)))
}

/// Mounts an image and serves it until it is unmounted.
pub(crate) fn serve(image: &Path, dir: &Path) -> Outcome {
    let options = frazil_fuse::Options::new(image.display().to_string());
    let mount = frazil_fuse::mount(Arc::new(open(image)?), dir, &options)?;
    println!("{READY}");
    mount.wait();
    Ok(())
}

/// An image that is mounted. It must be unmounted by [`Mounted::unmount`]; dropping it makes an attempt.
pub(crate) struct Mounted {
    /// The process that serves it, if it is ours.
    server: Option<Child>,
    dir: TempDir,
}

impl Mounted {
    /// Mounts it read-only with nothing of it cached.
    pub(crate) fn cold(side: Side, image: &Path) -> Outcome<Mounted> {
        forget(image)?;
        match side {
            Side::Frazil => Mounted::frazil(image),
            Side::Peer => Mounted::ext4(image, "loop,ro"),
        }
    }

    fn frazil(image: &Path) -> Outcome<Mounted> {
        let dir = TempDir::new()?;
        let program = std::env::current_exe()?;
        let mut server =
            Command::new(program).arg("serve").arg(image).arg(dir.path()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        if let Some(output) = server.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let mounted = Mounted { server: Some(server), dir };
        if said.trim_end() == READY { Ok(mounted) } else { Err("frazil did not mount it".into()) }
    }

    /// Mounts an image of ext4 on a loop device.
    pub(crate) fn ext4(image: &Path, options: &str) -> Outcome<Mounted> {
        let dir = TempDir::new()?;
        run(Command::new("mount").args(["-t", "ext4", "-o", options]).arg(image).arg(dir.path()))?;
        Ok(Mounted { server: None, dir })
    }

    /// The directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// Unmounts it and waits until it has let go of the image.
    pub(crate) fn unmount(mut self) -> Outcome {
        self.detach()
    }

    fn detach(&mut self) -> Outcome {
        match self.server.take() {
            Some(mut server) => {
                frazil_fuse::umount(self.dir.path())?;
                server.wait()?;
            }
            None => run(Command::new("umount").arg(self.dir.path()))?,
        }
        // What is left is an empty directory.
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if frazil_device::mounts::at(self.dir.path()).is_some() {
            // An error is under way that says more.
            let _ = self.detach();
        }
    }
}

/// Puts a file out of the page cache.
pub(crate) fn forget(path: &Path) -> Outcome {
    let file = File::open(path)?;
    // What is not on the disk yet cannot be dropped.
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
