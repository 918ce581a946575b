//! The disk that all sides share: a loop device over one file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::peers::run;

/// Size of the file. XFS and btrfs make small volumes in other ways than they make large ones.
const BYTES: u64 = 4 << 30;

/// A loop device that goes when this is dropped.
pub(crate) struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Makes the file, if it is not there, and the device.
    pub(crate) fn attach(file: &Path) -> Outcome<LoopDevice> {
        if fs::metadata(file).map_or(0, |meta| meta.len()) != BYTES {
            fill(file)?;
        }
        let output =
            Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(file).output()?;
        if !output.status.success() {
            return Err(format!("losetup: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let device = LoopDevice(PathBuf::from(String::from_utf8(output.stdout)?.trim()));
        let name = device.0.file_name().ok_or("a loop device has a name")?;
        let queue = Path::new("/sys/block").join(name);
        fs::write(queue.join("queue/discard_max_bytes"), "0")?;
        if fs::read_to_string(queue.join("loop/dio"))?.trim() != "1" {
            return Err("the loop device does not do direct I/O here: measure on another disk (--dir)".into());
        }
        Ok(device)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A mount that is left keeps it; it goes with the mount then.
        let _ = run(Command::new("losetup").arg("-d").arg(&self.0));
    }
}

/// Writes the file, so that no block of it has to be found later.
fn fill(path: &Path) -> Outcome {
    let mut file = File::create(path)?;
    let zeros = vec![0; 4 << 20];
    for _ in 0..BYTES / zeros.len() as u64 {
        file.write_all(&zeros)?;
    }
    Ok(file.sync_all()?)
}
