//! Every golden image, mounted and read by system calls, against its manifest.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_fuse::{Mount, Options};
use frazil_posix::Fs;
use frazil_testing::compare::Comparison;
use frazil_testing::golden::{self, GoldenImage};
use frazil_testing::manifest::FileType;
use frazil_testing::observe;
use frazil_volume::{OpenOptions, Passphrase, Recovery, open};
use zeroize::Zeroizing;

fn fs(image: &GoldenImage) -> Fs {
    let device = |path: &std::path::PathBuf| {
        Arc::new(DeviceOptions::new(Access::ReadOnly).open(path).unwrap()) as Arc<dyn Device>
    };
    let passphrase = image.passphrase_bytes().map(<[u8]>::to_vec);
    let mut ask = |_: &str| Ok(Zeroizing::new(passphrase.clone().unwrap()));
    let options = OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() };
    let volume = open(image.unpack().iter().map(device).collect(), options);
    Fs::new(Arc::new(volume.unwrap_or_else(|e| panic!("{}: {e}", image.name))))
}

fn mount(fs: Fs, dir: &Path) -> Mount {
    frazil_fuse::mount(Arc::new(fs), dir, &Options::new("/dev/golden".into())).unwrap()
}

/// Every difference between a mounted image and its manifest.
fn differences(image: &GoldenImage) -> Vec<String> {
    let fs = fs(image);
    let mut manifest = image.manifest();
    if matches!(fs.volume().recovery(), Recovery::NeverStarted) {
        // The driver made its directories when it started a copy.
        for entry in &mut manifest.entries {
            (entry.mtime_ns, entry.ctime_ns, entry.atime_ns) = (None, None, None);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let _mount = mount(fs, dir.path());
    let mut seen = match observe::tree(dir.path()) {
        Ok(seen) => seen,
        Err(error) => return vec![error.to_string()],
    };
    for entry in &mut seen {
        // In other subvolumes numbers are made unique for the mount.
        entry.ino = entry.ino.filter(|&ino| ino < 1 << 63);
        if matches!(entry.file_type, FileType::Reg | FileType::Dir) {
            let file = File::open(dir.path().join(OsStr::from_bytes(&entry.path))).unwrap();
            entry.flags = u64::from(rustix::fs::ioctl_getflags(&file).unwrap().bits());
        }
    }
    Comparison::new(&manifest).run(seen, |path: &[u8]| observe::content(dir.path(), path))
}

#[test]
fn every_image_equals_its_manifest_through_the_mount() {
    let mut failures = Vec::new();
    for image in golden::all() {
        let found = differences(&image);
        if !found.is_empty() {
            let shown = found.iter().take(20).cloned().collect::<Vec<_>>().join("\n    ");
            failures.push(format!("{}: {} differences\n    {shown}", image.name, found.len()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
