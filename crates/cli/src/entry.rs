//! A file of a volume, described for machines.
//!
//! The names are those of the manifests of the golden images, so that `frazil tree --json` can be compared with one line by
//! line; `subvolume`, `btime_ns` and `error` are our own. What does not apply is left out.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use frazil_ondisk::units::SubvolId;
use frazil_posix::{Attr, Error, FileType, Fs, Result, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::target::{PIECE_BYTES, read_all};

/// Files longer than this are hashed without their holes: a hole costs nothing to make and may be of any size.
const WHOLE_HASH_BYTES_MAX: u64 = 64 << 20;

/// A file. See the [module](self).
#[derive(Serialize, Default)]
pub(crate) struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(rename = "type")]
    ty: &'static str,
    /// Permission bits, octal.
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    nlink: u32,
    ino: u64,
    /// The subvolume the file is in, if it is not the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    subvolume: Option<u32>,
    /// Space used, in units of 512 bytes.
    blocks: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    atime_ns: i64,
    btime_ns: i64,
    /// Major and minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    rdev: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    /// Values in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    /// Options set on this very file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    bcachefs_opts: BTreeMap<String, String>,
    /// As `chattr` sets them.
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    #[serde(skip_serializing_if = "is_zero")]
    projid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Of the bytes outside the holes.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_sha256: Option<String>,
    /// Offsets and lengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    holes: Option<Vec<(u64, u64)>>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What is to be found out that takes reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// Hashes of the content.
    pub(crate) hashes: bool,
    /// Where the holes are.
    pub(crate) holes: bool,
}

impl Entry {
    /// Describes a file. What cannot be read is in `error`, and left out.
    pub(crate) fn describe(fs: &Fs, path: &[u8], attr: &Attr, wanted: Wanted) -> Entry {
        let (path, path_b64) = text(path);
        let mut entry = Entry {
            path,
            path_b64,
            ty: type_name(attr.kind),
            mode: format!("{:04o}", attr.perm),
            uid: attr.uid,
            gid: attr.gid,
            size: attr.size,
            nlink: attr.nlink,
            ino: attr.node.inum.0,
            subvolume: (attr.node.subvol != SubvolId::ROOT).then_some(attr.node.subvol.0),
            blocks: attr.sectors,
            mtime_ns: nanoseconds(attr.mtime),
            ctime_ns: nanoseconds(attr.ctime),
            atime_ns: nanoseconds(attr.atime),
            btime_ns: nanoseconds(attr.btime),
            flags: chattr_flags(attr),
            projid: attr.project,
            ..Entry::default()
        };
        let content = entry.add_content(fs, attr, wanted);
        let attributes = entry.add_xattrs(fs, attr);
        entry.error = content.err().or(attributes.err()).map(|error| error.to_string());
        entry
    }

    /// An entry that is there but cannot be described.
    pub(crate) fn unreadable(path: &[u8], error: &Error) -> Entry {
        let (path, path_b64) = text(path);
        Entry { path, path_b64, ty: "unknown", error: Some(error.to_string()), ..Entry::default() }
    }

    /// What could not be read.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn add_content(&mut self, fs: &Fs, attr: &Attr, wanted: Wanted) -> Result<()> {
        match attr.kind {
            FileType::Symlink => (self.target, self.target_b64) = text(&fs.readlink(attr.node)?),
            FileType::CharDevice | FileType::BlockDevice => self.rdev = Some(attr.rdev),
            FileType::Regular => {
                if wanted.holes {
                    self.holes = Some(holes(fs, attr)?);
                }
                if wanted.hashes && attr.size <= WHOLE_HASH_BYTES_MAX {
                    self.sha256 = Some(hash(fs, attr)?);
                } else if wanted.hashes {
                    self.data_sha256 = Some(data_hash(fs, attr)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_xattrs(&mut self, fs: &Fs, attr: &Attr) -> Result<()> {
        for (name, value) in xattrs(fs, attr)? {
            let name = match String::from_utf8(name) {
                Ok(name) if !name.contains(char::is_control) => name,
                Ok(name) => format!("b64:{}", BASE64.encode(name)),
                Err(e) => format!("b64:{}", BASE64.encode(e.as_bytes())),
            };
            if name.starts_with(OPTION) {
                self.bcachefs_opts.insert(name, String::from_utf8_lossy(&value).into_owned());
            } else {
                self.xattrs.insert(name, BASE64.encode(value));
            }
        }
        Ok(())
    }
}

/// Begins the name of an attribute that stands for an option set on the file.
pub(crate) const OPTION: &str = "bcachefs.";
/// Begins the name of an attribute that stands for an option in force, wherever it was set.
const OPTION_IN_FORCE: &str = "bcachefs_effective.";

/// The extended attributes of a file, without those that repeat inherited options.
pub(crate) fn xattrs(fs: &Fs, attr: &Attr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in fs.listxattr(attr.node)? {
        if !name.starts_with(OPTION_IN_FORCE.as_bytes()) {
            let value = fs.getxattr(attr.node, &name)?;
            found.push((name, value));
        }
    }
    Ok(found)
}

/// The stored flags as `chattr` and `FS_IOC_GETFLAGS` number them: sync 8, immutable 0x10, append 0x20, nodump 0x40,
/// noatime 0x80.
pub(crate) fn chattr_flags(attr: &Attr) -> u32 {
    attr.flags << 3
}

/// Times beyond those of 64 bits are cut to them.
fn nanoseconds(at: Timestamp) -> i64 {
    at.unix_ns().clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// UTF-8 in the first place, anything else in base64 in the second.
fn text(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// The name of a type of files.
pub(crate) fn type_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Regular => "reg",
        FileType::Directory => "dir",
        FileType::Symlink => "lnk",
        FileType::Fifo => "fifo",
        FileType::Socket => "sock",
        FileType::CharDevice => "chr",
        FileType::BlockDevice => "blk",
    }
}

/// The stretches of data of a file, as (offset, end).
pub(crate) fn data(fs: &Fs, attr: &Attr) -> Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(data) = fs.next_data(attr.node, at)? {
        found.push((data.start, data.end));
        at = data.end;
    }
    Ok(found)
}

/// What lies between them.
fn holes(fs: &Fs, attr: &Attr) -> Result<Vec<(u64, u64)>> {
    let mut holes = Vec::new();
    let mut at = 0;
    for (start, end) in data(fs, attr)?.into_iter().chain([(attr.size, attr.size)]) {
        if start > at {
            holes.push((at, start - at));
        }
        at = end;
    }
    Ok(holes)
}

fn hash(fs: &Fs, attr: &Attr) -> Result<String> {
    let mut hash = Sha256::new();
    read_all(fs, attr.node, |piece| -> Result<()> {
        hash.update(piece);
        Ok(())
    })?;
    Ok(hex(hash))
}

fn data_hash(fs: &Fs, attr: &Attr) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while let Some(data) = fs.next_data(attr.node, at)? {
        at = data.start;
        while at < data.end {
            let wanted = PIECE_BYTES.min(usize::try_from(data.end - at).unwrap_or(PIECE_BYTES));
            let read = fs.read(attr.node, at, &mut buffer[..wanted])?;
            if read == 0 {
                return Err(Error::Io(format!("it ends at {at} although it has {} bytes", attr.size)));
            }
            hash.update(&buffer[..read]);
            at += read as u64;
        }
    }
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
