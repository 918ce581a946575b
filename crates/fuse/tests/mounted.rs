//! The adapter over a real mount, seen by system calls.
// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, FileExt, FileTypeExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{BAD, FILE_BYTES, Fake, HOLE, HUGE, content, huge_name, mounted};
use frazil_fuse::{Error, Options};
use rustix::fs::{AtFlags, StatxFlags};

#[test]
fn stat_reports_every_field() {
    let m = mounted();
    let meta = fs::metadata(m.path("file")).unwrap();
    assert_eq!((meta.ino(), meta.mode(), meta.nlink()), (5000, 0o100640, 3));
    assert_eq!((meta.uid(), meta.gid(), meta.size()), (12, 34, FILE_BYTES));
    assert_eq!((meta.blocks(), meta.blksize()), (FILE_BYTES / 512, 4096));
    assert_eq!((meta.atime(), meta.atime_nsec()), (1_700_000_001, 111));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 999_999_999));
    assert_eq!((meta.ctime(), meta.ctime_nsec()), (1 << 33, 333));
    let device = fs::metadata(m.path("device")).unwrap();
    assert!(device.file_type().is_char_device());
    assert_eq!((rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev())), (259, 70_000));
    assert!(fs::metadata(m.path("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(&m.dir).unwrap().ino(), 4096);
}

#[test]
fn statx_reports_the_time_of_creation() {
    let m = mounted();
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(rustix::fs::CWD, m.path("file"), AtFlags::empty(), flags).unwrap();
    assert_eq!(stat.stx_mask & flags.bits(), flags.bits());
    assert_eq!((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec), (1_600_000_000, 444));
    assert_eq!((stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec), (-5, 999_999_999));
    assert_eq!((stat.stx_size, stat.stx_mode, stat.stx_ino), (FILE_BYTES, 0o100640, 5000));
}

#[test]
fn what_is_known_is_not_asked_again() {
    let m = mounted();
    let ask = || {
        fs::metadata(m.path("file")).unwrap();
        assert_eq!(fs::metadata(m.path("absent")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        fs::read(m.path("file")).unwrap();
        (m.fake.lookups.load(SeqCst), m.fake.reads.load(SeqCst))
    };
    let first = ask();
    assert_eq!(first.0, 2);
    assert_eq!(ask(), first);
}

#[test]
fn objects_of_another_subvolume_have_their_own_numbers() {
    let m = mounted();
    let ino = |name: &str| fs::symlink_metadata(m.path(name)).unwrap().ino();
    let names = [".", "file", "bad", "snapshot", "snapshot/file", "snapshot/far"];
    assert_eq!(names.map(ino).into_iter().collect::<HashSet<_>>().len(), names.len());
    for entry in fs::read_dir(m.path("snapshot")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
        assert_eq!(fs::read(entry.path()).unwrap().len() as u64, FILE_BYTES);
    }
}

#[test]
fn lists_a_directory_larger_than_any_buffer() {
    let m = mounted();
    let expected: HashSet<String> = (0..HUGE as u64).map(huge_name).collect();
    for _ in 0..2 {
        let list: Vec<_> = fs::read_dir(m.path("huge")).unwrap().map(Result::unwrap).collect();
        assert_eq!(list.len(), HUGE);
        assert!(list.iter().all(|entry| entry.file_type().unwrap().is_file()));
        let names: HashSet<String> = list.iter().map(|e| e.file_name().into_string().unwrap()).collect();
        assert_eq!(names, expected);
    }
    let dots = Command::new("ls").args(["-aiU"]).arg(m.path("names")).output().unwrap().stdout;
    assert!(dots.starts_with(b"5004 .\n4096 ..\n"), "{}", String::from_utf8_lossy(&dots));
}

#[test]
fn a_listing_with_attributes_saves_the_lookups() {
    let m = mounted();
    let listed = Command::new("ls").args(["-lU"]).arg(m.path("huge")).output().unwrap().stdout;
    assert_eq!(listed.iter().filter(|&&byte| byte == b'\n').count(), HUGE + 1);
    let lookups = m.fake.lookups.load(SeqCst);
    assert!(lookups < HUGE / 10, "{lookups} lookups");
    // The kernel got whole attributes, not just names.
    let getattrs = m.fake.getattrs.load(SeqCst);
    assert!(getattrs < HUGE / 10, "{getattrs} getattrs");
    assert_eq!(fs::metadata(m.path("huge").join(huge_name(77))).unwrap().mtime(), -5);
}

#[test]
fn names_are_bytes() {
    let m = mounted();
    for name in [&[0xff; 255][..], b"\xc3(\n \\"] {
        assert_eq!(fs::metadata(m.path("names").join(OsStr::from_bytes(name))).unwrap().size(), FILE_BYTES);
    }
    let mut names: Vec<_> =
        fs::read_dir(m.path("names")).unwrap().map(|e| e.unwrap().file_name().into_vec()).collect();
    names.sort();
    assert_eq!(names, [b"\xc3(\n \\".to_vec(), vec![0xff; 255]]);
    let target = fs::read_link(m.path("link")).unwrap().into_os_string().into_vec();
    assert_eq!((target.len(), &target[..10]), (1510, &b"../target "[..]));
}

#[test]
fn reads_anywhere_and_far_ahead() {
    let m = mounted();
    let file = File::open(m.path("file")).unwrap();
    let mut random = 12345u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for _ in 0..200 {
        let (offset, len) = (next(FILE_BYTES + 5000), next(70_000) as usize);
        let mut buf = vec![0; len];
        let got = file.read_at(&mut buf, offset).unwrap();
        assert_eq!(got as u64, FILE_BYTES.saturating_sub(offset).min(len as u64));
        assert!(buf[..got].iter().zip(offset..).all(|(&byte, at)| byte == content(at)), "{offset} {len}");
    }
    let all = fs::read(m.path("snapshot/file")).unwrap();
    assert!(all.len() as u64 == FILE_BYTES && all.iter().zip(0..).all(|(&byte, at)| byte == content(at)));
    assert_eq!(m.fake.largest_read.load(SeqCst), 512 << 10);
}

#[test]
fn exactly_the_unreadable_pages_are_errors() {
    let m = mounted();
    let mut file = File::open(m.path("bad")).unwrap();
    let mut buf = Vec::new();
    let error = file.read_to_end(&mut buf).unwrap_err();
    assert_eq!((error.raw_os_error(), buf.len() as u64), (Some(libc::EIO), BAD.start));
    file.seek(SeekFrom::Start(BAD.end)).unwrap();
    assert_eq!(file.read_to_end(&mut buf).unwrap() as u64, FILE_BYTES - BAD.end);
    let mut byte = [0];
    assert!(file.read_at(&mut byte, BAD.start).is_err() && file.read_at(&mut byte, BAD.end - 1).is_err());
    assert_eq!(file.read_at(&mut byte, BAD.start - 1).unwrap(), 1);
    // A short reply would have made the kernel believe in a shorter file.
    assert_eq!(file.metadata().unwrap().size(), FILE_BYTES);
}

#[test]
fn seeks_data_and_holes() {
    let m = mounted();
    let file = File::open(m.path("file")).unwrap();
    let seek = |from| rustix::fs::seek(&file, from);
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(0)), Ok(HOLE.start));
    assert_eq!(seek(rustix::fs::SeekFrom::Data(HOLE.start + 5)), Ok(HOLE.end));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(HOLE.end)), Ok(FILE_BYTES));
    assert_eq!(seek(rustix::fs::SeekFrom::Data(FILE_BYTES)), Err(rustix::io::Errno::NXIO));
}

#[test]
fn has_extended_attributes() {
    let m = mounted();
    let file = m.path("file");
    let get = |name: &str, size: usize| {
        let mut buf = vec![0; size];
        rustix::fs::getxattr(&file, name, &mut buf).map(|len| (len, buf))
    };
    assert_eq!(get("user.one", 10).unwrap().1[..1], *b"1");
    assert_eq!(get("trusted.long", 2000).unwrap().0, 1900);
    assert_eq!(rustix::fs::getxattr_query(&file, "trusted.long"), Ok(1900));
    assert_eq!(get("trusted.long", 100), Err(rustix::io::Errno::RANGE));
    assert_eq!(get("user.empty", 10).unwrap().0, 0);
    assert_eq!(get("user.none", 10), Err(rustix::io::Errno::NODATA));
    let mut names = vec![0; 1000];
    let len = rustix::fs::listxattr(&file, &mut names).unwrap();
    assert_eq!(&names[..len], b"user.one\0trusted.long\0user.empty\0system.posix_acl_access\0");
}

#[test]
fn the_kernel_enforces_modes_and_acls() {
    let m = mounted();
    let read_as = |uid: u32, name: &str| {
        let mut command = Command::new("head");
        command.args(["-c1"]).arg(m.path(name)).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        std::os::unix::process::CommandExt::gid(&mut command, uid);
        command.status().unwrap().success()
    };
    assert!(read_as(12, "file") && read_as(77, "file"));
    assert!(!read_as(78, "file") && !read_as(77, "bad"));
}

#[test]
fn reports_space() {
    let m = mounted();
    let stat = rustix::fs::statvfs(&m.dir).unwrap();
    assert_eq!((stat.f_bsize, stat.f_blocks, stat.f_bfree, stat.f_bavail), (4096, 1000, 900, 886));
    assert_eq!((stat.f_files, stat.f_ffree, stat.f_namemax), (7210, 7200, 255));
}

#[test]
fn shows_inode_flags() {
    let m = mounted();
    let file = File::open(m.path("file")).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file).unwrap();
    assert_eq!(flags, rustix::fs::IFlags::IMMUTABLE | rustix::fs::IFlags::NOATIME);
}

#[test]
fn nothing_can_be_changed() {
    let m = mounted();
    let refused = |error: std::io::Error| error.raw_os_error() == Some(libc::EROFS);
    assert!(refused(File::create(m.path("new")).unwrap_err()));
    assert!(refused(File::options().write(true).open(m.path("file")).unwrap_err()));
    assert!(refused(fs::remove_file(m.path("file")).unwrap_err()));
}

#[test]
fn a_hanging_read_blocks_nobody_else() {
    let m = mounted();
    m.fake.set_hang(true);
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..4u64)
            .map(|i| {
                let path = m.path("slow");
                scope.spawn(move || {
                    let mut byte = [0];
                    File::open(path).unwrap().read_at(&mut byte, i * 700_000).unwrap();
                    byte[0]
                })
            })
            .collect();
        m.fake.wait_hanging(4);
        let begin = Instant::now();
        assert_eq!(fs::read(m.path("file")).unwrap().len() as u64, FILE_BYTES);
        assert_eq!(fs::read_dir(m.path("names")).unwrap().count(), 2);
        assert!(begin.elapsed() < Duration::from_secs(5));
        m.fake.set_hang(false);
        for (i, slow) in slow.into_iter().enumerate() {
            assert_eq!(slow.join().unwrap(), content(i as u64 * 700_000));
        }
    });
}

#[test]
fn a_killed_caller_dies_although_its_request_hangs() {
    let m = mounted();
    m.fake.set_hang(true);
    for (program, file) in [("stat", "hang"), ("cat", "slow")] {
        let mut caller = Command::new(program)
            .arg(m.path(file))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        m.fake.wait_hanging(1);
        let begin = Instant::now();
        caller.kill().unwrap();
        if m.mount.queues().is_some() && program == "stat" {
            // Where the memory for the answer is shared with the kernel, he has to wait until nobody writes to it. (Who reads waits for a page.)
            std::thread::sleep(Duration::from_millis(50));
            assert!(caller.try_wait().unwrap().is_none());
            m.fake.set_hang(false);
        }
        assert_eq!(caller.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(begin.elapsed() < Duration::from_secs(5));
        m.fake.set_hang(false);
        m.fake.wait_hanging(0);
        m.fake.set_hang(true);
    }
    m.fake.set_hang(false);
    assert_eq!(fs::read(m.path("slow")).unwrap().len() as u64, FILE_BYTES);
}

#[test]
fn a_signal_that_does_not_kill_interrupts_nothing() {
    let m = mounted();
    m.fake.set_hang(true);
    let mut caller =
        Command::new("bash").args(["-c", "trap : USR1; test -e $0"]).arg(m.path("hang")).spawn().unwrap();
    m.fake.wait_hanging(1);
    assert!(Command::new("kill").args(["-USR1", &caller.id().to_string()]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(200));
    // The caller waits on, and has not asked again.
    assert!(caller.try_wait().unwrap().is_none());
    assert_eq!((m.fake.hanging.load(SeqCst), m.fake.lookups.load(SeqCst)), (1, 1));
    m.fake.set_hang(false);
    assert_eq!(caller.wait().unwrap().code(), Some(1));
}

#[test]
fn many_readers_at_once() {
    let m = mounted();
    std::thread::scope(|scope| {
        for reader in 0..8u64 {
            let m = &m;
            scope.spawn(move || {
                for i in 0..300 {
                    let file = m.path("huge").join(huge_name((reader * 37 + i * 101) % HUGE as u64));
                    let mut buf = [0; 100];
                    File::open(file).unwrap().read_exact_at(&mut buf, i * 1000).unwrap();
                    assert!(buf.iter().zip(i * 1000..).all(|(&byte, at)| byte == content(at)));
                }
            });
        }
    });
}

#[test]
fn the_mount_table_names_the_devices() {
    let m = mounted();
    let mount = frazil_device::mounts::at(&m.dir).unwrap();
    assert_eq!((mount.fs_type.as_str(), mount.source.as_str()), ("fuse.frazil", "/dev/fake:/dev/other"));
    assert!(mount.read_only);
}

#[test]
fn unmounting_drops_the_filesystem() {
    let m = mounted();
    fs::read(m.path("file")).unwrap();
    let open = File::open(m.path("file")).unwrap();
    assert!(matches!(m.mount.unmount(), Err(Error::Busy(_))));
    assert_eq!(open.read_at(&mut [0; 10], 0).unwrap(), 10);
    drop(open);
    m.mount.unmount().unwrap();
    assert_eq!(Arc::strong_count(&m.fake), 1);
    assert_eq!(fs::read_dir(&m.dir).unwrap().count(), 0);
}

#[test]
fn dropping_a_busy_mount_ends_it() {
    let m = mounted();
    let open = File::open(m.path("file")).unwrap();
    drop(m.mount);
    assert_eq!(Arc::strong_count(&m.fake), 1);
    assert_eq!(fs::read_dir(&m.dir).unwrap().count(), 0);
    assert!(open.read_at(&mut [0; 10], 0).is_err());
}

#[test]
fn what_is_in_the_way_is_named() {
    let m = mounted();
    let mount = |dir: &Path| {
        let options = Options::new("/dev/fake".into());
        frazil_fuse::mount(Fake::new(), dir, &options).map(drop).unwrap_err().to_string()
    };
    let dir = m.dir.display();
    let taken =
        format!("/dev/fake:/dev/other is mounted at {dir} already; unmount it with: frazil umount {dir}");
    assert_eq!(mount(&m.dir), taken);
    assert_eq!(mount(&m.path("file")), format!("{dir}/file is not a directory"));
    assert_eq!(mount(&m.path("no")), format!("{dir}/no does not exist; make it with: mkdir {dir}/no"));
    let other = frazil_fuse::umount(Path::new("/proc")).unwrap_err().to_string();
    assert_eq!(other, "/proc is not a frazil mount");
}

#[test]
fn direct_io_reads_the_same() {
    // Direct I/O does not go through the page cache: offsets and sizes arrive as the program gave them.
    let m = mounted();
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), libc::O_DIRECT);
    let file = options.open(m.path("file")).unwrap();
    let mut all = vec![0; 4 << 20];
    assert_eq!(file.read_at(&mut all, 0).unwrap() as u64, FILE_BYTES);
    assert!(all[..FILE_BYTES as usize].iter().zip(0..).all(|(&byte, at)| byte == content(at)));
    assert_eq!(m.fake.largest_read.load(SeqCst), 1 << 20);
}
