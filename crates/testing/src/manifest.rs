//! Manifests: what the filesystem in an image holds, written down when the image was made.
//!
//! A manifest is JSON lines. The first is a [`Header`]; then one [`Entry`] per path, and for some images [`Quota`],
//! [`Info`] and [`Constraint`] lines. The manifest of a *clean* or *frozen* image is complete: a path that is not in
//! it does not exist. After a kill, only what was known to be durable is listed as an entry, and what else must hold
//! is said by constraints (see [`crate::compare`]). `tests/golden/README.md` describes every field. [`Manifest::of_tree`]
//! makes one of a tree that somebody saw, so that two observers can be compared with each other.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod write;

/// Kind of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// Regular file.
    Reg,
    /// Directory.
    Dir,
    /// Symbolic link.
    Lnk,
    /// Named pipe.
    Fifo,
    /// Socket.
    Sock,
    /// Character device.
    Chr,
    /// Block device.
    Blk,
}

/// A whole manifest.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// What image this is and how it was made.
    pub header: Header,
    /// The paths it holds, in the order of the lines.
    pub entries: Vec<Entry>,
    /// Limits and usage per user or group.
    pub quotas: Vec<Quota>,
    /// Remarks.
    pub infos: Vec<Info>,
    /// What must hold after recovery, whatever else did or did not survive.
    pub constraints: Vec<Constraint>,
}

/// First line of a manifest.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
pub struct Header {
    /// Name of the image.
    pub image: String,
    /// Name of the populator that filled it.
    pub kind_of_image: String,
    /// Seed of the populator.
    pub seed: u64,
    /// Parameters of the populator; an object or a list of options.
    #[serde(default)]
    pub params: Value,
    /// Unmounted properly.
    pub clean: bool,
    /// Copied while frozen.
    pub frozen: bool,
    /// A sentence about the image.
    pub title: String,
    /// How it came to be left as it is; absent for plain images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// What unlocks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
}

/// One path. Only the fields that are present are promised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Path relative to the root, components separated by `/`; the root itself is `.`.
    pub path: Vec<u8>,
    /// Kind of file.
    pub file_type: FileType,
    /// Permission bits (with set-id and sticky bits).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes, as `stat` shows it.
    pub size_bytes: u64,
    /// Number of names, as `stat` shows it.
    pub nlink: Option<u64>,
    /// Inode number as the driver reports it; repeats between subvolumes.
    pub ino: Option<u64>,
    /// Space used in 512-byte units, as `stat` shows it.
    pub blocks: Option<u64>,
    /// Time of the last change of content, nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// Time of the last change of the inode, nanoseconds since 1970.
    pub ctime_ns: Option<i64>,
    /// Time of the last access, nanoseconds since 1970.
    pub atime_ns: Option<i64>,
    /// Major and minor number of a device node.
    pub rdev: Option<(u32, u32)>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// Extended attributes by name; empty if there are none.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Options set on this inode, as attributes `bcachefs.NAME`.
    pub options: BTreeMap<String, String>,
    /// Attribute bits as `chattr` sets them; 0 if none.
    pub flags: u64,
    /// Project id; 0 if none.
    pub projid: u32,
    /// SHA-256 of the whole content, of files up to 64 MiB.
    pub sha256: Option<String>,
    /// SHA-256 of the bytes outside the holes, concatenated, of files over 64 MiB.
    pub data_sha256: Option<String>,
    /// Holes as (offset, length) in bytes, as SEEK_HOLE and SEEK_DATA report them after a remount.
    pub holes: Vec<(u64, u64)>,
    /// Extents as the driver reported them; `None` where it was not asked.
    pub fiemap: Option<Vec<FiemapExtent>>,
    /// Reconstructed from what was made durable after the manifest had been taken.
    pub acked: bool,
}

/// An extent as the driver's FIEMAP reported it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(into = "(u64, u64, u64, u32)")]
pub struct FiemapExtent {
    /// Offset in the file, bytes.
    pub logical_bytes: u64,
    /// Offset on the device, bytes.
    pub physical_bytes: u64,
    /// Length, bytes.
    pub len_bytes: u64,
    /// 0x8 encoded, 0x200 inline, 0x800 unwritten, 0x2000 shared; never the LAST flag.
    pub flags: u32,
}

/// Limits and usage of a user or group, as the driver reported them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Quota {
    /// `user` or `group`.
    #[serde(rename = "type")]
    pub kind: String,
    /// User or group id.
    pub id: u32,
    /// Space used, bytes.
    pub bytes: u64,
    /// Hard limit of space in KiB, 0 for none.
    pub hard_kib: u64,
    /// Soft limit of space in KiB, 0 for none.
    pub soft_kib: u64,
    /// Inodes used.
    pub inodes: u64,
    /// Hard limit of inodes, 0 for none.
    pub inodes_hard: u64,
    /// Soft limit of inodes, 0 for none.
    pub inodes_soft: u64,
}

/// A remark: for the full filesystem, how it ran out of space.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Info {
    /// How often a write was refused for lack of space.
    pub enospc_hits: u64,
    /// How many files had been written by then.
    pub files_written: u64,
    /// `statvfs` at that moment, by field name.
    pub statvfs: BTreeMap<String, u64>,
}

/// What must hold after the recovery of an unclean image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Constraint {
    /// Exactly one of `paths` exists, and its content has `sha256`.
    ExactlyOne {
        /// The two names of a rename.
        paths: Vec<String>,
        /// Hash of the content.
        sha256: String,
    },
    /// `path` does not exist: its removal was made durable.
    Absent {
        /// The removed path.
        path: String,
    },
    /// `path` does not exist, or has this content.
    AbsentOr {
        /// The path that may have been removed.
        path: String,
        /// Hash of the content.
        sha256: String,
    },
    /// `path` exists and its content is one of the listed ones.
    OneOf {
        /// The path.
        path: String,
        /// Hashes of the possible contents.
        sha256: Vec<String>,
    },
    /// `path` is exactly `min_gen.len()` blocks; block i is the line `PATH i GEN\n`, repeated and cut to the block
    /// size, with a generation of at least `min_gen[i]`.
    Blocks {
        /// The path.
        path: String,
        /// Block size in bytes.
        #[serde(rename = "block")]
        block_bytes: usize,
        /// Oldest acceptable generation per block.
        min_gen: Vec<u64>,
    },
    /// `path` is a prefix, of at least `min_size` bytes, of the lines `PATH line N\n` with N = 0, 1, 2 …
    PrefixLines {
        /// The path.
        path: String,
        /// Shortest acceptable length in bytes.
        #[serde(rename = "min_size")]
        min_size_bytes: usize,
    },
    /// Every file in `dir` has at most `size` bytes, each as in (the file's own name and a newline, repeated) or zero.
    NameLines {
        /// The directory.
        dir: String,
        /// Longest acceptable length in bytes.
        #[serde(rename = "size")]
        size_max_bytes: usize,
    },
}

impl Manifest {
    /// Parses the lines of a manifest.
    ///
    /// # Errors
    /// The line number and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut header = None;
        let (mut entries, mut quotas, mut infos, mut constraints) = (vec![], vec![], vec![], vec![]);
        for (n, line) in text.lines().enumerate() {
            let at = |e: String| format!("line {}: {e}", n + 1);
            let json = |e: serde_json::Error| at(e.to_string());
            let value: Value = serde_json::from_str(line).map_err(json)?;
            match value["kind"].as_str() {
                Some("header") => header = Some(serde_json::from_value(value).map_err(json)?),
                Some("entry") => {
                    let raw: EntryLine = serde_json::from_value(value).map_err(json)?;
                    entries.push(Entry::from_line(raw).map_err(at)?);
                }
                Some("quota") => quotas.push(serde_json::from_value(value).map_err(json)?),
                Some("info") => infos.push(serde_json::from_value(value).map_err(json)?),
                Some("constraint") => constraints.push(serde_json::from_value(value).map_err(json)?),
                other => return Err(at(format!("unknown kind {other:?}"))),
            }
        }
        let header = header.ok_or("no header line")?;
        Ok(Manifest { header, entries, quotas, infos, constraints })
    }

    /// Whether a path that is not listed must not exist. After a kill more may have survived than is known.
    pub fn is_complete(&self) -> bool {
        self.header.clean || self.header.frozen
    }

    /// The entry of a path (the root is `.`).
    pub fn entry(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }
}

/// An entry line as it is written; texts that are not UTF-8 are in the `_b64` variants.
#[derive(Deserialize, Serialize)]
struct EntryLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(rename = "type")]
    file_type: FileType,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nlink: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ino: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctime_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    atime_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rdev: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    bcachefs_opts: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "write::is_default")]
    flags: u64,
    #[serde(default, skip_serializing_if = "write::is_default")]
    projid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holes: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fiemap: Option<Vec<FiemapExtent>>,
    #[serde(default, skip_serializing_if = "write::is_default")]
    acked: bool,
}

impl Entry {
    fn from_line(line: EntryLine) -> Result<Self, String> {
        let octal = |text: String| u32::from_str_radix(&text, 8).map_err(|e| format!("mode {text}: {e}"));
        Ok(Entry {
            path: text_or_base64(line.path, line.path_b64)?.ok_or("an entry without a path")?,
            file_type: line.file_type,
            mode: line.mode.map(octal).transpose()?,
            uid: line.uid,
            gid: line.gid,
            size_bytes: line.size,
            nlink: line.nlink,
            ino: line.ino,
            blocks: line.blocks,
            mtime_ns: line.mtime_ns,
            ctime_ns: line.ctime_ns,
            atime_ns: line.atime_ns,
            rdev: line.rdev,
            target: text_or_base64(line.target, line.target_b64)?,
            xattrs: line.xattrs.into_iter().map(xattr).collect::<Result<_, _>>()?,
            options: line.bcachefs_opts,
            flags: line.flags,
            projid: line.projid,
            sha256: line.sha256,
            data_sha256: line.data_sha256,
            holes: line.holes,
            fiemap: line.fiemap,
            acked: line.acked,
        })
    }
}

fn text_or_base64(text: Option<String>, coded: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, coded) {
        (Some(text), _) => Ok(Some(text.into_bytes())),
        (None, Some(coded)) => from_base64(&coded).map(Some),
        (None, None) => Ok(None),
    }
}

/// An attribute's name (a name that is not printable is `b64:` and base64) and value (always base64).
fn xattr((name, value): (String, String)) -> Result<(Vec<u8>, Vec<u8>), String> {
    let name = match name.strip_prefix("b64:") {
        Some(coded) => from_base64(coded)?,
        None => name.into_bytes(),
    };
    Ok((name, from_base64(&value)?))
}

fn from_base64(coded: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(coded).map_err(|e| format!("base64 {coded:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn every_manifest_parses_and_agrees_with_the_index() {
        for image in golden::all() {
            let manifest = image.manifest();
            assert_eq!(manifest.header.image, image.name);
            assert_eq!(manifest.header.passphrase, image.passphrase, "{}", image.name);
            assert_eq!(manifest.is_complete(), image.state != golden::State::Killed, "{}", image.name);
            assert!(!manifest.entries.is_empty(), "{}", image.name);
            let recovered = image.recovered_manifest();
            let by_driver = image.version.minor == 13 && image.state != golden::State::Clean;
            assert_eq!(recovered.is_some(), by_driver, "{}", image.name);
        }
    }

    #[test]
    fn every_kind_of_line_and_coding_is_read() {
        let small = golden::image("02-small-tree").manifest();
        let latin1 = small.entries.iter().find(|e| std::str::from_utf8(&e.path).is_err()).unwrap();
        assert_eq!(latin1.path, b"names/latin1-\xe9\xff");
        let device = small.entry(b"nodes/blk-256-256").unwrap();
        assert_eq!(
            (device.file_type, device.rdev, device.mode),
            (FileType::Blk, Some((256, 256)), Some(0o600))
        );
        let link = small.entry(b"xattr/link").unwrap();
        assert_eq!(
            (&link.target, &link.xattrs[&b"trusted.onlink"[..]]),
            (&Some(b"x".to_vec()), &b"l".to_vec())
        );
        assert_eq!(small.entry(b"flags/append").unwrap().flags, 32);

        let quotas = golden::image("14-usrquota").manifest().quotas;
        assert_eq!(quotas.iter().find(|q| q.id == 1000).unwrap().hard_kib, 4096);
        assert_eq!(golden::image("16-full").manifest().infos[0].enospc_hits, 3);
        let constraints = golden::image("08-crash-rename").manifest().constraints;
        assert!(
            constraints.iter().any(|c| matches!(c, Constraint::ExactlyOne { paths, .. } if paths.len() == 2))
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = Manifest::parse("{\"kind\": \"entry\", \"path\": \"x\"}").unwrap_err();
        assert!(error.starts_with("line 1: missing field"), "{error}");
        assert_eq!(Manifest::parse("").unwrap_err(), "no header line");
    }
}
