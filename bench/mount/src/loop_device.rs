//! The disk that all sides share: a loop device over one file.

use frazil_bench_common::Outcome;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        // A discard would make holes in the file, which have to be filled again.
        device.set_discard_max("0")?;
        if fs::read_to_string(device.sys().join("loop/dio"))?.trim() != "1" {
            return Err("the loop device does not do direct I/O here: measure on another disk (--dir)".into());
        }
        Ok(device)
    }

    fn sys(&self) -> PathBuf {
        Path::new("/sys/block").join(self.0.file_name().unwrap_or_default())
    }

    fn set_discard_max(&self, bytes: &str) -> std::io::Result<()> {
        fs::write(self.sys().join("queue/discard_max_bytes"), bytes)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // The next user of the device has what is set here.
        let _ = self.set_discard_max(&(1u64 << 30).to_string());
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
