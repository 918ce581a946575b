//! Files as devices: contents, limits, and that reading leaves no trace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{agrees, steps};
use frazil_device::{Access, Advice, Device, Error, FileDevice, MemDevice, Op, OpenOptions};
use proptest::prelude::*;
use tempfile::TempDir;

fn image(dir: &TempDir, contents: &[u8]) -> PathBuf {
    let path = dir.path().join("image");
    fs::write(&path, contents).unwrap();
    path
}

fn open(path: &Path, access: Access) -> FileDevice {
    OpenOptions::new(access).open(path).unwrap()
}

#[test]
fn reading_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let contents: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
    let path = image(&dir, &contents);
    let meta = || {
        let meta = fs::metadata(&path).unwrap();
        let modified = (meta.mtime(), meta.mtime_nsec());
        (modified, (meta.ctime(), meta.ctime_nsec()), (meta.atime(), meta.atime_nsec()), meta.blocks())
    };
    let before = meta();
    for access in [Access::ReadOnly, Access::Peek] {
        let device = open(&path, access);
        assert!(device.is_read_only());
        let mut buf = vec![0; contents.len()];
        device.read_at(0, &mut buf).unwrap();
        assert!(buf == contents);
        device.advise(0, 4096, Advice::WillNeed);
        assert_eq!(device.flush(), Ok(()));
        for refused in [
            device.write_at(0, &[1]),
            device.write_fua_at(0, &[1]),
            device.discard(0, 4096),
            device.zero(0, 4096),
            device.set_size(1),
        ] {
            assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
        }
    }
    assert_eq!(meta(), before);
    assert!(fs::read(&path).unwrap() == contents);
}

#[test]
fn reading_needs_no_permission_to_write() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let path = image(&dir, &[5; 512]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let mut buf = [0; 512];
    open(&path, Access::ReadOnly).read_at(0, &mut buf).unwrap();
    assert_eq!(buf, [5; 512]);
}

#[test]
fn refuses_what_has_no_blocks() {
    let dir = TempDir::new().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (path, what) in
        [(dir.path(), "a directory"), (Path::new("/dev/null"), "a character device"), (&fifo, "a pipe")]
    {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let err = OpenOptions::new(access).open(path).unwrap_err();
            assert!(matches!(err, Error::NotADevice { found, .. } if found == what), "{err}");
        }
    }
    let err = OpenOptions::new(Access::ReadOnly).open(&dir.path().join("absent")).unwrap_err();
    assert!(matches!(&err, Error::Open { errno, .. } if errno.0 == 2), "{err}");
    assert!(err.to_string().contains("absent: No such file"), "{err}");
}

#[test]
fn ranges_end_where_the_device_ends() {
    let dir = TempDir::new().unwrap();
    let device = open(&image(&dir, &[1; 1000]), Access::ReadWrite);
    let mut buf = [0; 100];
    assert_eq!(device.read_at(900, &mut buf), Ok(()));
    assert_eq!(device.read_at(1000, &mut []), Ok(()));
    for at in [901, 1000, u64::MAX - 50, u64::MAX] {
        let read = device.read_at(at, &mut buf);
        assert!(matches!(read, Err(Error::OutOfRange { op: Op::Read, size_bytes: 1000, .. })), "{read:?}");
        assert!(matches!(device.write_at(at, &buf), Err(Error::OutOfRange { op: Op::Write, .. })));
        assert!(matches!(device.write_fua_at(at, &buf), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.zero(at, 100), Err(Error::OutOfRange { .. })));
        assert!(matches!(device.discard(at, 100), Err(Error::OutOfRange { .. })));
    }
    assert_eq!(fs::metadata(device.path()).unwrap().len(), 1000);
}

#[test]
fn a_file_that_shrinks_is_an_error_not_zeros() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, &[1; 10_000]);
    let device = open(&path, Access::ReadOnly);
    File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let mut buf = [0; 4096];
    let err = device.read_at(4096, &mut buf).unwrap_err();
    assert!(matches!(err, Error::Truncated { end_bytes: 5000, .. }), "{err}");
    let halves = buf.split_at_mut(2048);
    let mut bufs = [IoSliceMut::new(halves.0), IoSliceMut::new(halves.1)];
    assert!(matches!(
        device.read_vectored_at(4096, &mut bufs),
        Err(Error::Truncated { end_bytes: 5000, .. })
    ));
    assert_eq!(device.refresh_size(), Ok(5000));
    assert!(matches!(device.read_at(4096, &mut buf), Err(Error::OutOfRange { size_bytes: 5000, .. })));
}

#[test]
fn makes_sparse_files_and_never_cuts_existing_ones() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new");
    let options = OpenOptions::new(Access::ReadWrite).create_bytes(1 << 30);
    let device = options.open(&path).unwrap();
    assert_eq!((device.size_bytes(), device.size_sectors()), (1 << 30, 1 << 21));
    assert!(fs::metadata(&path).unwrap().blocks() < 64);
    device.write_at(4096, &[3; 4096]).unwrap();
    device.set_size(1 << 20).unwrap();
    drop(device);
    assert_eq!(options.open(&path).unwrap().size_bytes(), 1 << 20);
    let readers_make_nothing = OpenOptions::new(Access::ReadOnly).create_bytes(512);
    assert!(readers_make_nothing.open(&dir.path().join("other")).is_err());
    assert!(!dir.path().join("other").exists());
}

#[test]
fn zeroing_and_discarding_give_space_back() {
    let dir = TempDir::new().unwrap();
    let path = image(&dir, &vec![0xab; 1 << 20]);
    let device = open(&path, Access::ReadWrite);
    device.flush().unwrap();
    let blocks = || fs::metadata(&path).unwrap().blocks();
    let before = blocks();
    device.zero(100, (1 << 19) - 100).unwrap();
    device.discard(1 << 19, 1 << 18).unwrap();
    device.flush().unwrap();
    assert!(blocks() < before / 2, "{} of {before} blocks left", blocks());
    let mut all = vec![0; 1 << 20];
    device.read_at(0, &mut all).unwrap();
    assert!(all[..100].iter().all(|&b| b == 0xab));
    assert!(all[100..1 << 19].iter().all(|&b| b == 0));
    assert!(all[3 << 18..].iter().all(|&b| b == 0xab));
}

#[test]
fn more_buffers_than_one_call_takes() {
    let dir = TempDir::new().unwrap();
    let device = open(&image(&dir, &[0; 16384]), Access::ReadWrite);
    let data: Vec<[u8; 3]> = (0..3000u16).map(|i| [i as u8, (i >> 8) as u8, 0x55]).collect();
    device.write_at(77, data.as_flattened()).unwrap();
    for _ in 0..2 {
        let mut back = vec![[0u8; 3]; 3000];
        let mut bufs: Vec<IoSliceMut<'_>> = back.iter_mut().map(|d| IoSliceMut::new(d)).collect();
        device.read_vectored_at(77, &mut bufs).unwrap();
        assert!(back == data);
        device.flush().unwrap();
    }
}

/// Not whole blocks.
const SIZE: u64 = 1_500_100;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_file_and_memory_agree(steps in steps(SIZE)) {
        let dir = TempDir::new().unwrap();
        let path = image(&dir, &[0; SIZE as usize]);
        let file = open(&path, Access::ReadWrite);
        let memory = MemDevice::new(SIZE);
        agrees(&file, &memory, &steps);
        drop(file);
        prop_assert!(fs::read(&path).unwrap() == memory.to_vec());
        let loaded = MemDevice::from_file(&path).unwrap();
        prop_assert!(loaded.to_vec() == memory.to_vec());
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    let dir = TempDir::new().unwrap();
    common::threads_do_not_disturb_each_other(&open(&image(&dir, &vec![0; 8 << 20]), Access::ReadWrite));
}

#[test]
fn what_was_written_is_read() {
    let dir = TempDir::new().unwrap();
    common::what_was_written_is_read(&open(&image(&dir, &vec![0; 16 << 20]), Access::ReadWrite), 20);
}
