//! A tree with some of everything, to be copied somewhere and compared.
//!
//! Sizes around every limit, holes, long and unreadable names, links, special files, times before 1970 and after 2100, attributes
//! up to the limit of a bcachefs volume, access control lists. As root also owners, devices and `trusted.*`
//! attributes. The same call makes the same tree, apart from the times nobody can set.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::manifest::{self, Manifest};
use crate::observe;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Files of a few bytes to a few blocks, a hundred to a directory.
    pub small_files: usize,
    /// Entries of one directory.
    pub wide: usize,
    /// Directories below each other.
    pub deep: usize,
    /// Length of a file with next to nothing in it.
    pub sparse_bytes: u64,
}

impl Size {
    /// Enough for a test that must not take long.
    pub const SMALL: Size = Size { small_files: 300, wide: 200, deep: 40, sparse_bytes: 3 << 30 };
    /// What a test of the limits takes.
    pub const LARGE: Size = Size { small_files: 100_000, wide: 50_000, deep: 200, sparse_bytes: 8 << 40 };
}

/// Fills a directory that is empty.
///
/// # Errors
/// What the filesystem beneath cannot do.
pub fn tree(top: &Path, size: Size) -> io::Result<()> {
    fs::create_dir(top.join("lost+found"))?;
    fs::set_permissions(top.join("lost+found"), Permissions::from_mode(0o700))?;
    sizes(&top.join("sizes"))?;
    holes(&top.join("holes"), size.sparse_bytes)?;
    names(&top.join("names"))?;
    attributes(&top.join("attributes"))?;
    special(&top.join("special"))?;
    let many = top.join("many");
    for n in 0..size.small_files {
        let dir = many.join(format!("{:03}", n / 100 % 1000)).join(format!("{}", n / 100_000));
        if n % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(format!("file {n}")), content(n as u64, n * 37 % 9000))?;
    }
    let wide = top.join("wide");
    fs::create_dir(&wide)?;
    for n in 0..size.wide {
        File::create(wide.join(format!("entry-{n:06}")))?;
    }
    let mut deep = top.join("deep");
    for n in 0..size.deep {
        deep.push(format!("{}", n % 10));
    }
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("bottom"), b"here")?;
    times(top)
}

/// What a copy of a tree in a bcachefs volume must show: all that the host shows, but inode numbers, space, and sizes and flags of
/// directories.
///
/// # Errors
/// The first path that cannot be read, and why.
pub fn manifest(top: &Path) -> io::Result<Manifest> {
    let mut seen = observe::tree(top)?;
    for entry in &mut seen {
        (entry.ino, entry.blocks) = (None, None);
        if entry.file_type == manifest::FileType::Dir {
            (entry.size_bytes, entry.flags) = (0, 0);
        }
    }
    Ok(Manifest::of_tree("the host", seen))
}

/// Bytes that differ from file to file; text, or noise that does not compress.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        if seed.is_multiple_of(3) {
            bytes.extend_from_slice(&next().to_le_bytes());
        } else {
            bytes.extend_from_slice(format!("line of file {seed} with {:x}\n", next() % 64).as_bytes());
        }
    }
    bytes.truncate(len);
    bytes
}

fn sizes(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    let around = [512, 1024, 4096, 8192, 65536, 1 << 20].map(|n: usize| [n - 1, n, n + 1]);
    let rest = [0, 1, 255, 256, 257, 300_000, (5 << 20) + 123, (9 << 20) + 4096];
    for (seed, len) in (1..).zip(around.into_iter().flatten().chain(rest)) {
        fs::write(dir.join(format!("{len}")), content(seed, len))?;
    }
    Ok(())
}

fn holes(dir: &Path, sparse_bytes: u64) -> io::Result<()> {
    fs::create_dir(dir)?;
    let file = |name: &str, len: u64, at: &[(u64, usize)]| -> io::Result<()> {
        let file = File::create(dir.join(name))?;
        at.iter().try_for_each(|&(offset, len)| file.write_all_at(&content(offset + 1, len), offset))?;
        file.set_len(len)
    };
    file("front", 100_000, &[(50_000, 50_000)])?;
    file("middle", 100_000, &[(0, 5000), (70_000, 30_000)])?;
    file("end", 100_000, &[(0, 10)])?;
    file("all", 100_000, &[])?;
    file("checkered", 1 << 20, &(0..32).map(|n| (n * 32768, 4096)).collect::<Vec<_>>())?;
    file("long", 40 << 20, &[(0, 1), (3 << 20, 3 << 20), ((39 << 20) + 1, 5000)])?;
    let middle = sparse_bytes / 2 / 4096 * 4096;
    file("vast", sparse_bytes, &[(0, 100), (middle, 2 << 20), (sparse_bytes - 10, 10)])
}

fn names(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    // The first three have the same crc32c hash whatever its seed.
    let odd: [&[u8]; 12] = [
        b"n78ecc56f",
        b"n286c41d4",
        b"n248ca90f",
        b"\xff\xfe not text",
        b"line\nfeed",
        b"...",
        b"-rf",
        b" ",
        "ü😀".as_bytes(),
        &[b'n'; 255],
        &[0xb1; 255],
        b"\\x41%",
    ];
    for name in odd {
        fs::write(dir.join(OsStr::from_bytes(name)), name)?;
    }
    for len in [1, 5, 400, 1023, 1024, 1025, 4000] {
        symlink("t".repeat(len), dir.join(format!("link of {len}")))?;
    }
    symlink(OsStr::from_bytes(b"\xff\n"), dir.join("odd link"))?;
    fs::create_dir(dir.join("other"))?;
    fs::write(dir.join("four names"), content(4, 5000))?;
    fs::write(dir.join("two short names"), b"short")?;
    for (from, to) in [
        ("four names", "second"),
        ("four names", "other/third"),
        ("four names", "other/fourth"),
        ("two short names", "other/short"),
    ] {
        fs::hard_link(dir.join(from), dir.join(to))?;
    }
    rustix::fs::linkat(CWD, dir.join("link of 5"), CWD, dir.join("link of 5 again"), AtFlags::empty())?;
    Ok(())
}

/// An access control list as programs see it: tag, permissions, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&perm.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn attributes(dir: &Path) -> io::Result<()> {
    const NO_ID: u32 = u32::MAX;
    fs::create_dir(dir)?;
    let set = |path: &Path, name: &str, value: &[u8]| -> io::Result<()> {
        let name = CString::new(name).expect("names hold no zero byte");
        Ok(rustix::fs::lsetxattr(path, &name, value, XattrFlags::empty())?)
    };
    let file = |name: &str| -> io::Result<std::path::PathBuf> {
        let path = dir.join(name);
        fs::write(&path, content(9, 2000))?;
        Ok(path)
    };
    let many = file("many")?;
    for n in 0..40 {
        set(&many, &format!("user.number {n}"), format!("value {n}").as_bytes())?;
    }
    let colliding = file("colliding under crc32c")?;
    for name in ["user.n78ecc56f", "user.n286c41d4", "user.n248ca90f"] {
        set(&colliding, name, name.as_bytes())?;
    }
    let odd = file("odd")?;
    set(&odd, "user.empty", b"")?;
    set(&odd, "user.binary", b"\0\n=%\xff\n9 a=b\n")?;
    set(&odd, "user.a=b%3D\n", b"odd name")?;
    set(&file("longest value")?, "user.v", &content(3, 1995))?;
    set(&file("longest name")?, &format!("user.{}", "n".repeat(250)), &content(3, 1700))?;
    set(dir, "user.on a directory", b"yes")?;

    let (user, group) = (0x02, 0x08);
    let access = acl(&[
        (0x01, 6, NO_ID),
        (user, 7, 1000),
        (user, 4, 70_000),
        (0x04, 4, NO_ID),
        (group, 5, 2000),
        (0x10, 7, NO_ID),
        (0x20, 4, NO_ID),
    ]);
    set(&file("access list")?, "system.posix_acl_access", &access)?;
    let default =
        acl(&[(0x01, 7, NO_ID), (user, 5, 1), (0x04, 5, NO_ID), (0x10, 5, NO_ID), (0x20, 0, NO_ID)]);
    let with_default = dir.join("directory with lists");
    fs::create_dir(&with_default)?;
    set(&with_default, "system.posix_acl_default", &default)?;
    fs::write(with_default.join("inherits"), b"")?;
    let long: Vec<_> = (0..100).map(|n| (user, 5, 100 + n)).collect();
    let long =
        [&[(0x01, 6, NO_ID)][..], &long, &[(0x04, 4, NO_ID), (0x10, 7, NO_ID), (0x20, 4, NO_ID)]].concat();
    set(&file("long list")?, "system.posix_acl_access", &acl(&long))?;
    if rustix::process::geteuid().is_root() {
        set(&file("trusted")?, "trusted.t", b"only root sees it")?;
        symlink("x", dir.join("trusted link"))?;
        set(&dir.join("trusted link"), "trusted.t", b"even here")?;
    }
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2711), ("sticky", 0o1777), ("nothing", 0o000)] {
        let path = file(name)?;
        // Nobody but root reads what nobody may read.
        let mode = if mode == 0 && !rustix::process::geteuid().is_root() { 0o400 } else { mode };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn special(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    let node = |name: &str, ty, device| -> io::Result<()> {
        Ok(rustix::fs::mknodat(CWD, dir.join(name), ty, Mode::from_raw_mode(0o640), device)?)
    };
    node("pipe", FileType::Fifo, 0)?;
    drop(UnixListener::bind(dir.join("socket"))?);
    if rustix::process::geteuid().is_root() {
        for (name, ty, device) in [
            ("null", FileType::CharacterDevice, (1, 3)),
            ("disk", FileType::BlockDevice, (259, 70_000)),
            ("largest", FileType::BlockDevice, (4095, (1 << 20) - 1)),
            ("whiteout", FileType::CharacterDevice, (0, 0)),
        ] {
            node(name, ty, rustix::fs::makedev(device.0, device.1))?;
        }
        let owned = dir.join("owned");
        fs::write(&owned, b"mine")?;
        std::os::unix::fs::chown(&owned, Some(123_456), Some(4_000_000_000))?;
        std::os::unix::fs::lchown(dir.join("pipe"), Some(1), Some(2))?;
    }
    Ok(())
}

/// Sets times; last, because everything else changes them.
fn times(top: &Path) -> io::Result<()> {
    let at = |secs, nanos| Timespec { tv_sec: secs, tv_nsec: nanos };
    let set = |path: &str, time: Timespec| -> io::Result<()> {
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, top.join(path), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    };
    set("sizes/0", at(-1, 999_999_999))?;
    set("sizes/1", at(-1_000_000_000, 1))?;
    set("sizes/255", at(4_000_000_000, 123_456_789))?;
    set("names/link of 5", at(1_000_000_000, 5))?;
    set("special/pipe", at(0, 0))?;
    let file = File::open(top.join("sizes/256"))?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321))?;
    set("names", at(1_600_000_000, 999))?;
    set("", at(1_500_000_000, 7))
}
