//! A directory of the running system, described as a comparison wants it: a mounted volume, or an exported tree.
//!
//! Paths are taken relative to the directory, as raw bytes, the root first. Attributes named `bcachefs.NAME` are
//! options of the inode; `bcachefs_effective.NAME` repeats what is inherited and is left out. What the system
//! cannot tell (attributes or `chattr` bits on a filesystem without them, project ids) counts as not being there.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{IFlags, SeekFrom, ioctl_getflags, lgetxattr, llistxattr, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::compare::ObservedEntry;
use crate::hex;
use crate::manifest::FileType;

/// Files longer than this are hashed without their holes, as manifests do.
const WHOLE_HASH_MAX_BYTES: u64 = 64 << 20;

/// `FS_EXTENT_FL`, which ext4 shows of nearly every file.
const EXTENTS_FLAG: u32 = 0x8_0000;

/// Everything below and including `root`, in no particular order.
///
/// # Errors
/// The first path that cannot be read, and why.
pub fn tree(root: &Path) -> io::Result<Vec<ObservedEntry>> {
    let mut entries = Vec::new();
    let mut pending = vec![b".".to_vec()];
    while let Some(path) = pending.pop() {
        let full = full_path(root, &path);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", full.display()));
        let seen = entry(&full, path).map_err(named)?;
        if seen.file_type == FileType::Dir {
            for child in full.read_dir().map_err(named)? {
                pending.push(child_path(&seen.path, child.map_err(named)?.file_name().as_bytes()));
            }
        }
        entries.push(seen);
    }
    Ok(entries)
}

/// Reads the content of a path below `root`, for the constraints of unclean images.
///
/// # Errors
/// Why it cannot be read.
pub fn content(root: &Path, path: &[u8]) -> Result<Vec<u8>, String> {
    std::fs::read(full_path(root, path)).map_err(|e| e.to_string())
}

fn full_path(root: &Path, path: &[u8]) -> std::path::PathBuf {
    if path == b"." { root.to_path_buf() } else { root.join(OsStr::from_bytes(path)) }
}

fn child_path(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir == b"." { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn entry(full: &Path, path: Vec<u8>) -> io::Result<ObservedEntry> {
    let meta = full.symlink_metadata()?;
    let mut seen = ObservedEntry {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        size_bytes: meta.size(),
        nlink: meta.nlink(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        ino: Some(meta.ino()),
        blocks: Some(meta.blocks()),
        ..ObservedEntry::new(path, file_type(meta.file_type()))
    };
    for (name, value) in xattrs(full)? {
        if let Some(option) = name.strip_prefix(b"bcachefs.") {
            let name = format!("bcachefs.{}", option.escape_ascii());
            seen.options.insert(name, String::from_utf8_lossy(&value).into_owned());
        } else if !name.starts_with(b"bcachefs_effective.") {
            seen.xattrs.insert(name, value);
        }
    }
    match seen.file_type {
        FileType::Lnk => seen.target = Some(full.read_link()?.into_os_string().into_vec()),
        FileType::Chr | FileType::Blk => {
            let device = meta.rdev();
            seen.rdev = Some((rustix::fs::major(device), rustix::fs::minor(device)));
        }
        FileType::Reg => {
            let mut file = File::open(full)?;
            seen.flags = flags(&file);
            regular(&mut file, &mut seen)?;
        }
        FileType::Dir => seen.flags = flags(&File::open(full)?),
        _ => {}
    }
    Ok(seen)
}

/// The bits `chattr` sets; none where the filesystem has no such bits. That ext4 keeps a file as extents is not one.
fn flags(file: &File) -> u64 {
    ioctl_getflags(file).map_or(0, |flags| u64::from((flags - IFlags::from_bits_retain(EXTENTS_FLAG)).bits()))
}

fn file_type(found: std::fs::FileType) -> FileType {
    match () {
        () if found.is_dir() => FileType::Dir,
        () if found.is_symlink() => FileType::Lnk,
        () if found.is_fifo() => FileType::Fifo,
        () if found.is_socket() => FileType::Sock,
        () if found.is_char_device() => FileType::Chr,
        () if found.is_block_device() => FileType::Blk,
        () => FileType::Reg,
    }
}

/// Holes and hash of a regular file.
fn regular(file: &mut File, seen: &mut ObservedEntry) -> io::Result<()> {
    seen.holes = holes(file, seen.size_bytes)?;
    if seen.size_bytes > WHOLE_HASH_MAX_BYTES {
        seen.data_sha256 = Some(data_sha256(file, seen.size_bytes, &seen.holes)?);
        return Ok(());
    }
    seek(&mut *file, SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            filled => hash.update(&buffer[..filled]),
        }
    }
    seen.sha256 = Some(hex(hash.finalize().as_slice()));
    Ok(())
}

/// Holes as (offset, length) in bytes, the one up to the end of the file included.
fn holes(file: &File, size_bytes: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut holes = Vec::new();
    let mut at = 0;
    while at < size_bytes {
        let hole = seek(file, SeekFrom::Hole(at))?;
        if hole >= size_bytes {
            break;
        }
        at = match seek(file, SeekFrom::Data(hole)) {
            Ok(data) => data.min(size_bytes),
            Err(Errno::NXIO) => size_bytes,
            Err(e) => return Err(e.into()),
        };
        holes.push((hole, at - hole));
    }
    Ok(holes)
}

/// Hash of what lies between the holes.
fn data_sha256(file: &File, size_bytes: u64, holes: &[(u64, u64)]) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    for &(hole, len) in holes.iter().chain(&[(size_bytes, 0)]) {
        while at < hole {
            let want = buffer.len().min(usize::try_from(hole - at).unwrap_or(usize::MAX));
            file.read_exact_at(&mut buffer[..want], at)?;
            hash.update(&buffer[..want]);
            at += want as u64;
        }
        at = hole + len;
    }
    Ok(hex(hash.finalize().as_slice()))
}

fn xattrs(full: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let names = match sized(|buffer| llistxattr(full, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(found),
        names => names?,
    };
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let c_name = CString::new(name).expect("the list was split at its zero bytes");
        found.insert(name.to_vec(), sized(|buffer| lgetxattr(full, &c_name, buffer))?);
    }
    Ok(found)
}

/// Calls `get` with a buffer of the largest size an attribute or a list of them can have (64 KiB).
fn sized(get: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let len = get(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_described() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), b"content").unwrap();
        std::os::unix::fs::symlink("sub/file", dir.path().join("link")).unwrap();
        let sparse = File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(65 << 20).unwrap();
        sparse.write_all_at(b"data", 1 << 20).unwrap();

        let mut seen = tree(dir.path()).unwrap();
        seen.sort_by(|a, b| a.path.cmp(&b.path));
        let paths: Vec<_> = seen.iter().map(|entry| std::str::from_utf8(&entry.path).unwrap()).collect();
        assert_eq!(paths, [".", "link", "sparse", "sub", "sub/file"]);
        assert_eq!(seen[1].target.as_deref(), Some(&b"sub/file"[..]));
        assert_eq!(seen[4].sha256, Some(crate::sha256_hex(b"content")));
        assert_eq!((seen[4].size_bytes, seen[4].nlink, seen[0].file_type), (7, 1, FileType::Dir));

        // The filesystem of the temporary directory decides how much around the data is kept.
        let kept: u64 = (65 << 20) - seen[2].holes.iter().map(|hole| hole.1).sum::<u64>();
        assert!((4..=1 << 20).contains(&kept), "{:?}", seen[2].holes);
        let mut data = vec![0; usize::try_from(kept).unwrap()];
        data[..4].copy_from_slice(b"data");
        assert_eq!(seen[2].data_sha256, Some(crate::sha256_hex(&data)));
        assert_eq!(content(dir.path(), b"sub/file"), Ok(b"content".to_vec()));
        assert!(tree(&dir.path().join("absent")).is_err());
    }
}
