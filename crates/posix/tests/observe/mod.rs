//! A volume as frazil sees it, described the way comparisons want it. Shared by the tests of this crate and those that
//! compare with the kernel.

use frazil_posix::{Attr, Error, FileType, Fs, Visit, WalkStep, Whence};
use frazil_testing::compare::ObservedEntry;
use frazil_testing::manifest;
use sha2::{Digest, Sha256};

/// Files longer than this are hashed without their holes, as manifests do.
const WHOLE_HASH_MAX_BYTES: u64 = 64 << 20;

/// The whole content of a file.
pub(crate) fn content(fs: &Fs, attr: &Attr) -> Result<Vec<u8>, Error> {
    let mut data = vec![0; attr.size as usize];
    let mut at = 0;
    while at < data.len() {
        // Not a multiple of anything, so that pieces begin and end everywhere.
        let end = data.len().min(at + 300_001);
        match fs.read(attr.node, at as u64, &mut data[at..end])? {
            0 => return Err(Error::Io(format!("end of file at {at} of {}", attr.size))),
            read => at += read,
        }
    }
    assert_eq!(fs.read(attr.node, attr.size, &mut [0; 8])?, 0, "nothing is behind the end");
    Ok(data)
}

/// Holes as (offset, length), found the way programs do.
fn holes(fs: &Fs, attr: &Attr) -> Result<Vec<(u64, u64)>, Error> {
    let mut holes = Vec::new();
    let mut at = 0;
    while at < attr.size {
        let hole = fs.seek(attr.node, at, Whence::Hole)?;
        if hole >= attr.size {
            break;
        }
        at = match fs.seek(attr.node, hole, Whence::Data) {
            Err(Error::PastEnd) => attr.size,
            data => data?,
        };
        holes.push((hole, at - hole));
    }
    Ok(holes)
}

/// Hash of the stretches of data.
fn data_hash(fs: &Fs, attr: &Attr) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while let Some(data) = fs.next_data(attr.node, at)? {
        at = data.start;
        while at < data.end {
            let want = buffer.len().min((data.end - at) as usize);
            let read = fs.read(attr.node, at, &mut buffer[..want])?;
            hash.update(&buffer[..read]);
            at += read as u64;
        }
    }
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One object as comparisons want it.
fn observe(fs: &Fs, path: &[u8], attr: &Attr) -> Result<ObservedEntry, Error> {
    let file_type = match attr.kind {
        FileType::Regular => manifest::FileType::Reg,
        FileType::Directory => manifest::FileType::Dir,
        FileType::Symlink => manifest::FileType::Lnk,
        FileType::Fifo => manifest::FileType::Fifo,
        FileType::Socket => manifest::FileType::Sock,
        FileType::CharDevice => manifest::FileType::Chr,
        FileType::BlockDevice => manifest::FileType::Blk,
    };
    let path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
    let ns = |time: frazil_posix::Timestamp| time.unix_ns() as i64;
    let mut seen = ObservedEntry {
        mode: attr.perm.into(),
        uid: attr.uid,
        gid: attr.gid,
        size_bytes: attr.size,
        nlink: attr.nlink.into(),
        mtime_ns: ns(attr.mtime),
        ctime_ns: Some(ns(attr.ctime)),
        atime_ns: Some(ns(attr.atime)),
        ino: Some(attr.node.inum.0),
        blocks: Some(attr.sectors),
        // The stored bits in the order of `FS_*_FL`: sync 8, immutable 0x10, append 0x20, nodump 0x40, noatime 0x80.
        flags: u64::from(attr.flags) << 3,
        projid: attr.project,
        ..ObservedEntry::new(path, file_type)
    };
    match attr.kind {
        FileType::Symlink => seen.target = Some(fs.readlink(attr.node)?),
        FileType::CharDevice | FileType::BlockDevice => seen.rdev = Some(attr.rdev),
        FileType::Regular => {
            seen.holes = holes(fs, attr)?;
            if attr.size > WHOLE_HASH_MAX_BYTES {
                seen.data_sha256 = Some(data_hash(fs, attr)?);
            } else {
                seen.sha256 = Some(hex(Sha256::new_with_prefix(content(fs, attr)?)));
            }
        }
        _ => {}
    }
    for name in fs.listxattr(attr.node)? {
        let value = fs.getxattr(attr.node, &name)?;
        if let Some(option) = name.strip_prefix(b"bcachefs.") {
            let option = format!("bcachefs.{}", String::from_utf8_lossy(option));
            seen.options.insert(option, String::from_utf8_lossy(&value).into_owned());
        } else if !name.starts_with(b"bcachefs_effective.") {
            seen.xattrs.insert(name, value);
        }
    }
    Ok(seen)
}

/// Walks the tree and describes every object; what cannot be read goes into `failures`.
pub(crate) fn observe_all(fs: &Fs, failures: &mut Vec<String>) -> Vec<ObservedEntry> {
    let mut seen = Vec::new();
    fs.walk(fs.root(), &mut |path, visit| {
        match visit {
            Visit::Object(attr) => match observe(fs, path, attr) {
                Ok(entry) => seen.push(entry),
                Err(e) => failures.push(format!("{}: {e}", path.escape_ascii())),
            },
            Visit::Unreadable(e) | Visit::Unlistable(e) => {
                failures.push(format!("{}: {e}", path.escape_ascii()));
            }
        }
        WalkStep::Continue
    });
    seen
}

/// The object at a path, by looking up every component.
pub(crate) fn at_path(fs: &Fs, path: &[u8]) -> Result<Attr, Error> {
    let mut components = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"." | b""));
    components.try_fold(fs.getattr(fs.root())?, |dir, name| fs.lookup(dir.node, name))
}
