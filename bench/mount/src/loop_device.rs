//! The disk that all sides share: a loop device over one file.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use frazil_bench_common::Outcome;
use frazil_testing::loops::FreshLoop;

use crate::peers::run;

/// Size of the file. XFS and btrfs make small volumes in other ways than they make large ones.
const BYTES: u64 = 4 << 30;

/// A loop device of our own, that goes when this is dropped, or the process ends in another way; a mount that is left keeps it, and it goes with the mount then.
pub(crate) struct LoopDevice(FreshLoop);

impl LoopDevice {
    /// Makes the file, if it is not there, and the device.
    pub(crate) fn attach(file: &Path) -> Outcome<LoopDevice> {
        if fs::metadata(file).map_or(0, |meta| meta.len()) != BYTES {
            fill(file)?;
        }
        let device = FreshLoop::add().map_err(|error| format!("a loop device of its own: {error}"))?;
        run(Command::new("losetup").arg("--direct-io=on").arg(device.node()).arg(file))?;
        // A discard would make holes in the file, which have to be filled again.
        fs::write(device.sys().join("queue/discard_max_bytes"), "0")?;
        if fs::read_to_string(device.sys().join("loop/dio"))?.trim() != "1" {
            return Err("the loop device does not do direct I/O here: measure on another disk (--dir)".into());
        }
        Ok(LoopDevice(device))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.node()
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
