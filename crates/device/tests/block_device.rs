//! Block devices, by way of loop devices. Needs root, a kernel with loop devices, Python, and mkfs.ext4; fails without.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{agrees, steps};
use frazil_device::{Access, Device, Error, FileDevice, MemDevice, OpenOptions};
use frazil_testing::loops::FreshLoop;
use proptest::prelude::*;
use tempfile::TempDir;

const SIZE: u64 = 16 << 20;

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|err| format!("{program}: {err}"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A loop device over a fresh file, and what must be undone in the end.
struct Loop {
    device: FreshLoop,
    image: PathBuf,
    dir: TempDir,
    mounted: bool,
    /// Whether the file is on a small tmpfs of its own.
    cramped: bool,
}

impl Loop {
    fn new(extra: &[&str]) -> Loop {
        Loop::in_dir(TempDir::new().unwrap(), false, extra)
    }

    /// The file below has room for this much only.
    fn with_room_for(bytes: u64, extra: &[&str]) -> Loop {
        let dir = TempDir::new().unwrap();
        let options = format!("size={bytes}");
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", dir.path().to_str().unwrap()]).unwrap();
        Loop::in_dir(dir, true, extra)
    }

    fn in_dir(dir: TempDir, cramped: bool, extra: &[&str]) -> Loop {
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
        let device = FreshLoop::add().unwrap();
        let node = device.node().to_str().unwrap();
        run("losetup", &[extra, &[node, image.to_str().unwrap()]].concat()).unwrap();
        Loop { device, image, dir, mounted: false, cramped }
    }

    fn node(&self) -> &Path {
        self.device.node()
    }

    /// Without, a test of discards cannot tell anything.
    fn assert_discards(&self) {
        let what = self.device.sys().join("queue/discard_max_bytes");
        let bytes = fs::read_to_string(&what).unwrap();
        assert_ne!(bytes.trim(), "0", "{}: this loop device does not discard", what.display());
    }

    /// Makes an ext4 and mounts it with these options.
    fn mount(&mut self, options: &str) {
        let dir = self.mount_point();
        fs::create_dir_all(&dir).unwrap();
        let node = self.node().to_str().unwrap();
        run("mkfs.ext4", &["-q", node]).unwrap();
        run("mount", &["-t", "ext4", "-o", options, node, dir.to_str().unwrap()]).unwrap();
        self.mounted = true;
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.path().join("mount point")
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            run("umount", &[self.mount_point().to_str().unwrap()]).unwrap();
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.unmount();
        if self.cramped {
            let _ = run("umount", &["--lazy", self.dir.path().to_str().unwrap()]);
        }
    }
}

fn open(path: &Path, access: Access) -> Result<FileDevice, Error> {
    OpenOptions::new(access).lock_wait(std::time::Duration::from_millis(500)).open(path)
}

fn assert_mounted_there(opened: Result<FileDevice, Error>, dir: &Path) {
    let err = opened.expect_err("opened although the kernel has it mounted");
    let Error::InUse { holder, .. } = &err else { panic!("{err}") };
    assert_eq!(holder.mount_point.as_deref(), Some(dir), "{err}");
    let end = format!("unmount it with: umount {}", dir.display());
    assert!(
        err.to_string().contains("in use by the kernel's ext4") && err.to_string().ends_with(&end),
        "{err}"
    );
}

#[test]
fn reads_writes_zeroes_and_discards() {
    let loop_device = Loop::new(&["--sector-size", "4096"]);
    loop_device.assert_discards();
    let device = open(loop_device.node(), Access::ReadWrite).unwrap();
    assert!(device.is_block_device());
    assert_eq!((device.size_bytes(), device.logical_block_bytes()), (SIZE, 4096));
    assert!(device.physical_block_bytes() >= 4096);
    device.write_at(0, &vec![7; 1 << 20]).unwrap();
    device.write_fua_at(1 << 20, &[8; 4096]).unwrap();
    device.zero(4096, 8192).unwrap();
    device.zero(100, 50).unwrap();
    // Not aligned: only the whole blocks inside may go.
    device.discard((512 << 10) + 1, 64 << 10).unwrap();
    device.flush().unwrap();
    let mut got = vec![0; (1 << 20) + 4096];
    device.read_at(0, &mut got).unwrap();
    let mut expected = [vec![7; 1 << 20], vec![8; 4096]].concat();
    expected[4096..12288].fill(0);
    expected[100..150].fill(0);
    // A loop device punches a hole where it discards, so there are zeros now.
    expected[(512 << 10) + 4096..576 << 10].fill(0);
    assert!(got == expected);
    assert!(matches!(device.write_at(SIZE, &[0]), Err(Error::OutOfRange { .. })));
    drop(device);
    let mut in_file = fs::read(&loop_device.image).unwrap();
    in_file.truncate(got.len());
    assert!(in_file == got);
}

#[test]
fn a_mounted_device_is_refused_with_its_mount_point() {
    let mut loop_device = Loop::new(&[]);
    loop_device.mount("rw");
    let (node, image, dir) = (loop_device.node(), &loop_device.image, &loop_device.mount_point());
    for access in [Access::ReadWrite, Access::ReadOnly] {
        assert_mounted_there(open(node, access), dir);
        // The file below the loop device is just as much in use.
        assert_mounted_there(open(image, access), dir);
    }
    assert!(open(node, Access::Peek).is_ok() && open(image, Access::Peek).is_ok());

    loop_device.unmount();
    loop_device.mount("ro");
    let (node, image) = (loop_device.node(), &loop_device.image);
    for path in [node, image] {
        assert!(open(path, Access::ReadOnly).is_ok());
        assert_mounted_there(open(path, Access::ReadWrite), dir);
    }
    loop_device.unmount();
    assert!(open(loop_device.node(), Access::ReadWrite).is_ok());
}

#[test]
fn the_kernel_cannot_mount_what_is_open_for_writing() {
    let mut loop_device = Loop::new(&[]);
    loop_device.mount("rw");
    loop_device.unmount();
    let device = open(loop_device.node(), Access::ReadWrite).unwrap();
    let err = open(loop_device.node(), Access::ReadOnly).unwrap_err();
    assert!(err.to_string().contains(&format!("(pid {})", std::process::id())), "{err}");
    let mount_point = loop_device.mount_point();
    let args = ["-t", "ext4", loop_device.node().to_str().unwrap(), mount_point.to_str().unwrap()];
    assert!(run("mount", &args).unwrap_err().contains("already mounted"));
    drop(device);
    run("mount", &args).unwrap();
    loop_device.mounted = true;
}

#[test]
fn a_failed_flush_is_never_forgotten() {
    let loop_device = Loop::with_room_for(4 << 20, &[]);
    let open = || {
        let options = OpenOptions::new(Access::ReadWrite).lock_wait(std::time::Duration::from_millis(500));
        options.cached().open(loop_device.node()).unwrap()
    };
    let device = open();
    assert!(!device.is_direct());
    device.write_fua_at(0, &[1; 4096]).unwrap();
    // The page cache takes it; the storage below cannot.
    device.write_at(0, &vec![2; 8 << 20]).unwrap();
    let first = device.flush().unwrap_err();
    assert!(matches!(first, Error::LostWrites { .. }), "{first}");
    // Linux would now say that all is well.
    assert_eq!(device.flush().unwrap_err(), first);
    assert_eq!(device.write_fua_at(0, &[3; 4096]).unwrap_err(), first);
    drop(device);

    let device = open();
    let forced = device.write_fua_at(12 << 20, &vec![4; 1 << 20]).unwrap_err();
    assert!(matches!(forced, Error::LostWrites { .. }), "{forced}");
    assert_eq!(device.flush().unwrap_err(), forced);
}

/// What a block device without room does not take is written again when there is some, and is there all the time.
#[test]
fn nothing_is_lost_for_want_of_room() {
    // A loop device tells of missing room only if it writes directly itself.
    let loop_device = Loop::with_room_for(4 << 20, &["--direct-io=on"]);
    let device = open(loop_device.node(), Access::ReadWrite).unwrap();
    assert!(device.is_direct());
    let (small, large) = (|n: u8| [n; 4096], vec![9; 2 << 20]);
    let room = loop_device.dir.path().join("room");
    assert!(fs::write(&room, vec![0; 5 << 20]).is_err(), "it takes all the room");

    // Small writes are taken as they come; the flush finds that there is no room, for as long as there is none.
    (0..255).for_each(|n| device.write_at(u64::from(n) * 8192, &small(n)).unwrap());
    for _ in 0..2 {
        let full = device.flush().unwrap_err();
        assert!(
            full.is_no_space() && matches!(full, Error::Io { op: frazil_device::Op::Write, .. }),
            "{full}"
        );
    }
    let read_back = |device: &FileDevice| {
        for n in 0..255 {
            let mut got = [0; 4096];
            device.read_at(u64::from(n) * 8192, &mut got).unwrap();
            assert_eq!(got, small(n));
        }
    };
    read_back(&device);
    // A large one fails itself.
    assert!(device.write_at(8 << 20, &large).unwrap_err().is_no_space());
    assert!(device.write_fua_at(12 << 20, &small(3)).unwrap_err().is_no_space());

    fs::remove_file(room).unwrap();
    device.flush().unwrap();
    device.write_at(8 << 20, &large).unwrap();
    device.write_fua_at(12 << 20, &small(3)).unwrap();
    drop(device);
    read_back(&open(loop_device.node(), Access::ReadOnly).unwrap());
}

/// Linux calls what lies behind the end of a block device a lack of room, too.
#[test]
fn a_device_that_became_smaller_is_not_full() {
    let loop_device = Loop::new(&[]);
    let device = open(loop_device.node(), Access::ReadWrite).unwrap();
    device.write_at(SIZE - 4096, &[1; 4096]).unwrap();
    fs::File::options().write(true).open(&loop_device.image).unwrap().set_len(SIZE / 2).unwrap();
    run("losetup", &["--set-capacity", loop_device.node().to_str().unwrap()]).unwrap();
    let gone = |error: Error| matches!(error, Error::Truncated { end_bytes, .. } if end_bytes == SIZE / 2);
    assert!(gone(device.flush().unwrap_err()));
    assert!(gone(device.write_at(SIZE - (1 << 20), &vec![1; 1 << 20]).unwrap_err()));
    assert!(gone(device.write_fua_at(SIZE - 4096, &[1; 4096]).unwrap_err()));
    device.discard(SIZE - 4096, 4096).unwrap_err();
    device.flush().unwrap();
}

#[test]
fn a_full_file_system_below_an_image_is_no_space() {
    let loop_device = Loop::with_room_for(4 << 20, &[]);
    // Past the loop device, straight to the sparse file.
    let device = open(&loop_device.image, Access::ReadWrite).unwrap();
    assert!(device.write_at(0, &vec![2; 8 << 20]).unwrap_err().is_no_space());
    assert!(device.write_fua_at(12 << 20, &[2; 4096]).unwrap_err().is_no_space());
    // Such a write may be repeated when there is room again.
    device.discard(0, 2 << 20).unwrap();
    device.write_fua_at(12 << 20, &[2; 4096]).unwrap();
    device.flush().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_block_device_and_memory_agree(steps in steps(SIZE)) {
        // Blocks of which only a part is written, too.
        for sector_size in ["--sector-size=512", "--sector-size=4096"] {
            let loop_device = Loop::new(&[sector_size]);
            let device = open(loop_device.node(), Access::ReadWrite).unwrap();
            prop_assert!(device.is_direct());
            let memory = MemDevice::new(SIZE);
            agrees(&device, &memory, &steps);
            drop(device);
            prop_assert!(fs::read(loop_device.node()).unwrap() == memory.to_vec());
        }
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    for sector_size in ["--sector-size=512", "--sector-size=4096"] {
        let loop_device = Loop::new(&[sector_size]);
        common::threads_do_not_disturb_each_other(&open(loop_device.node(), Access::ReadWrite).unwrap());
    }
}

#[test]
fn what_was_written_is_read() {
    let loop_device = Loop::new(&[]);
    common::what_was_written_is_read(&open(loop_device.node(), Access::ReadWrite).unwrap(), 20);
}
