//! Files as devices: contents, limits, and that reading leaves no trace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use frazil_device::{Access, Advice, AlignedBuf, Device, Error, FileDevice, MemDevice, Op, OpenOptions};
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

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    WriteStable(u64, Vec<u8>),
    Zero(u64, u64),
    Discard(u64, u64),
    Flush,
    /// Into memory that is aligned, or not, in pieces.
    Read {
        at: u64,
        len: u64,
        aligned: bool,
        piece: usize,
    },
}

/// Anything, whole sectors, and whole pages that may be long: offset and length.
fn range() -> impl Strategy<Value = (u64, u64)> {
    let units = prop_oneof![Just((1u64, 20_000u64)), Just((512, 60)), Just((4096, 150))];
    let range = units.prop_flat_map(|(unit, most)| {
        (0..SIZE / unit, 0..most).prop_map(move |(at, len)| (at * unit, len * unit))
    });
    range.prop_map(|(at, len): (u64, u64)| (at, len.min(SIZE - at)))
}

fn step() -> impl Strategy<Value = Step> {
    let data = || (range(), any::<u8>()).prop_map(|((at, len), byte)| (at, vec![byte; len as usize]));
    let piece = prop_oneof![Just(4096), 100usize..5000, Just(1 << 20)];
    let read = (range(), any::<bool>(), piece).prop_map(|((at, len), aligned, piece)| Step::Read {
        at,
        len,
        aligned,
        piece,
    });
    prop_oneof![
        6 => data().prop_map(|(at, data)| Step::Write(at, data)),
        2 => data().prop_map(|(at, data)| Step::WriteStable(at, data)),
        1 => range().prop_map(|(at, len)| Step::Zero(at, len)),
        1 => range().prop_map(|(at, len)| Step::Discard(at, len)),
        1 => Just(Step::Flush),
        6 => read,
    ]
}

/// Does a step, and returns what it read.
fn apply(device: &dyn Device, step: &Step) -> Vec<u8> {
    match step {
        Step::Write(at, data) => device.write_at(*at, data),
        Step::WriteStable(at, data) => device.write_fua_at(*at, data),
        Step::Zero(at, len) => device.zero(*at, *len),
        // What is there then is anything, so it is made something.
        Step::Discard(at, len) => {
            device.discard(*at, *len).and_then(|()| device.write_at(*at, &vec![0xd1; *len as usize]))
        }
        Step::Flush => device.flush(),
        Step::Read { at, len, aligned, piece } => {
            let skip = usize::from(!aligned);
            let mut memory = AlignedBuf::new(*len as usize + skip);
            let mut bufs: Vec<_> = memory[skip..].chunks_mut(*piece).map(IoSliceMut::new).collect();
            device.read_vectored_at(*at, &mut bufs).unwrap();
            return memory[skip..].to_vec();
        }
    }
    .unwrap();
    Vec::new()
}

/// A file on a file system of each kind there is here: past the page cache, and through it.
fn images(contents: &[u8]) -> Vec<(TempDir, PathBuf)> {
    let shared_memory = TempDir::new_in("/dev/shm").ok();
    let dirs = [TempDir::new().unwrap()].into_iter().chain(shared_memory);
    dirs.map(|dir| (image(&dir, contents), dir)).map(|(path, dir)| (dir, path)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_file_and_memory_agree(steps in prop::collection::vec(step(), 0..24)) {
        for (_dir, path) in images(&[0; SIZE as usize]) {
            let file = open(&path, Access::ReadWrite);
            let memory = MemDevice::new(SIZE);
            for step in &steps {
                prop_assert!(apply(&file, step) == apply(&memory, step), "{step:?}");
            }
            drop(file);
            prop_assert!(fs::read(&path).unwrap() == memory.to_vec());
            let loaded = MemDevice::from_file(&path).unwrap();
            prop_assert!(loaded.to_vec() == memory.to_vec());
        }
    }
}

/// Threads that write blocks of their own, small and large, all over a device, and read them back.
#[test]
fn threads_do_not_disturb_each_other() {
    const THREADS: u64 = 6;
    const BLOCK: u64 = 512;
    let dir = TempDir::new().unwrap();
    let device = open(&image(&dir, &vec![0; 8 << 20]), Access::ReadWrite);
    let work = |own: u64| {
        let (device, mut state) = (&device, own + 1);
        let mut draw = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let blocks = (8 << 20) / BLOCK / THREADS;
        let mut known = vec![0u8; blocks as usize];
        // Block n of this thread is block n * THREADS + own: neighbours are other threads'.
        let place = |n: u64| (n * THREADS + own) * BLOCK;
        for _ in 0..2000 {
            let n = draw(blocks);
            match draw(8) {
                0 => device.write_fua_at(place(n), &[known[n as usize]; BLOCK as usize]).unwrap(),
                1 => device.flush().unwrap(),
                2 | 3 => {
                    let mut got = [0; BLOCK as usize];
                    device.read_at(place(n), &mut got).unwrap();
                    assert_eq!(got, [known[n as usize]; BLOCK as usize]);
                }
                // A part of a block, which has to be filled up.
                4 => device.write_at(place(n) + 100, &[known[n as usize]; 100]).unwrap(),
                _ => {
                    known[n as usize] = draw(256) as u8;
                    device.write_at(place(n), &[known[n as usize]; BLOCK as usize]).unwrap();
                }
            }
        }
        let mut got = [0; BLOCK as usize];
        for (n, byte) in known.iter().enumerate() {
            device.read_at(place(n as u64), &mut got).unwrap();
            assert_eq!(got, [*byte; BLOCK as usize], "block {n} of thread {own}");
        }
    };
    std::thread::scope(|scope| {
        for own in 0..THREADS {
            scope.spawn(move || work(own));
        }
    });
}

#[test]
fn what_was_written_is_read() {
    for (_dir, path) in images(&vec![0; 16 << 20]) {
        common::what_was_written_is_read(&open(&path, Access::ReadWrite), 16 << 20, 20);
    }
}
