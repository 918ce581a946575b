//! Comparison of a filesystem as some code sees it with the manifest of its image.
//!
//! The code under test describes every path it finds as an [`ObservedEntry`], whatever way it found it: by reading
//! the image with our own decoders, through a mount, or from an exported tree. [`Comparison::run`] returns every
//! difference as a line of text; no line means that all is as it must be.
//!
//! What must be equal follows from how the manifest came about (`tests/golden/README.md`):
//!
//! * A *clean* or *frozen* image holds exactly the listed paths. Manifests taken from a source tree do not list
//!   `lost+found`, which may then exist.
//! * After a kill, listed paths must exist as described, others may exist, and the constraints must hold.
//! * `holes` are promised only by manifests taken after a remount, and by those of later format versions only
//!   where some are listed. Lines reconstructed after a kill (`acked`) promise only the fields they have.
//! * Access times are written lazily, so a kill may lose them. A tool that copies a tree into a new volume does not copy the
//!   time of its root.
//! * `ino`, `blocks`, `ctime_ns`, `atime_ns` are compared where the observer offers them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::slice;

use crate::manifest::{Constraint, Entry, FileType, Manifest};
use crate::sha256_hex;

/// One path of a filesystem, as the code under test sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedEntry {
    /// Path relative to the root, components separated by `/`; the root itself is `.`.
    pub path: Vec<u8>,
    /// Kind of file.
    pub file_type: FileType,
    /// Permission bits with set-id and sticky bits, without the file type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes, as `stat` shows it.
    pub size_bytes: u64,
    /// Number of names, as `stat` shows it: for a directory 2 and one more per subdirectory.
    pub nlink: u64,
    /// Time of the last change of content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of the inode, nanoseconds since 1970, if known.
    pub ctime_ns: Option<i64>,
    /// Time of the last access, nanoseconds since 1970, if known.
    pub atime_ns: Option<i64>,
    /// Inode number, if known.
    pub ino: Option<u64>,
    /// Space used in 512-byte units, if known.
    pub blocks: Option<u64>,
    /// Major and minor number of a device node.
    pub rdev: Option<(u32, u32)>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// SHA-256 of a regular file's whole content, in lower-case hexadecimal; needed up to 64 MiB.
    pub sha256: Option<String>,
    /// SHA-256 of the bytes outside the holes, concatenated; needed over 64 MiB.
    pub data_sha256: Option<String>,
    /// Extended attributes as the kernel presents them (access control lists as `system.posix_acl_*`), without
    /// those that stand for options.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Holes of a regular file as (offset, length) in bytes; unwritten extents count as holes.
    pub holes: Vec<(u64, u64)>,
    /// Options set on this inode, by their names as attributes: `bcachefs.compression`.
    pub options: BTreeMap<String, String>,
    /// Attribute bits as `chattr` sets them.
    pub flags: u64,
    /// Project id.
    pub projid: u32,
}

impl ObservedEntry {
    /// An entry with neither content nor attributes, to be filled in.
    pub fn new(path: impl Into<Vec<u8>>, file_type: FileType) -> Self {
        ObservedEntry {
            path: path.into(),
            file_type,
            mode: 0,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            nlink: 1,
            mtime_ns: 0,
            ctime_ns: None,
            atime_ns: None,
            ino: None,
            blocks: None,
            rdev: None,
            target: None,
            sha256: None,
            data_sha256: None,
            xattrs: BTreeMap::new(),
            holes: Vec::new(),
            options: BTreeMap::new(),
            flags: 0,
            projid: 0,
        }
    }
}

/// Something that a comparison can be told not to look at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Aspect {
    /// Content of regular files, and with it the constraints about content.
    Contents,
    /// Where files have holes.
    Holes,
    /// Extended attributes.
    Xattrs,
    /// Options set on inodes.
    Options,
    /// `chattr` bits and project ids.
    Flags,
}

/// A comparison with one manifest.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    manifest: &'a Manifest,
    ignored: BTreeSet<Aspect>,
}

/// Returns the whole content of a path.
type ReadContent<'r> = dyn FnMut(&[u8]) -> Result<Vec<u8>, String> + 'r;

/// What was observed, by path.
type Observed = BTreeMap<Vec<u8>, ObservedEntry>;

impl<'a> Comparison<'a> {
    /// Compares everything that the manifest promises.
    pub fn new(manifest: &'a Manifest) -> Self {
        Comparison { manifest, ignored: BTreeSet::new() }
    }

    /// Leaves `aspect` out, for an observer that cannot see it.
    #[must_use]
    pub fn without(mut self, aspect: Aspect) -> Self {
        self.ignored.insert(aspect);
        self
    }

    /// Returns every difference between what was observed and what the manifest demands, one per line.
    ///
    /// `read` returns the whole content of a path; it is asked only for the files of constraints about content.
    pub fn run(
        &self,
        observed: impl IntoIterator<Item = ObservedEntry>,
        mut read: impl FnMut(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Vec<String> {
        let mut found = Differences::default();
        let mut seen = Observed::new();
        for entry in observed {
            if let Some(twice) = seen.insert(entry.path.clone(), entry) {
                found.about(&twice.path, "observed twice");
            }
        }
        for want in &self.manifest.entries {
            match seen.get(&want.path) {
                Some(got) => self.entry(want, got, &mut found),
                None => found.about(&want.path, "is missing"),
            }
        }
        if self.manifest.is_complete() {
            self.unlisted(&seen, &mut found);
        }
        for constraint in &self.manifest.constraints {
            self.constraint(constraint, &seen, &mut read, &mut found);
        }
        found.lines
    }

    fn looks_at(&self, aspect: Aspect) -> bool {
        !self.ignored.contains(&aspect)
    }

    fn entry(&self, want: &Entry, got: &ObservedEntry, found: &mut Differences) {
        let path = &want.path;
        found.differ(path, "type", &want.file_type, &got.file_type);
        found.differ_if_promised(path, "mode", want.mode, got.mode);
        found.differ_if_promised(path, "uid", want.uid, got.uid);
        found.differ_if_promised(path, "gid", want.gid, got.gid);
        found.differ(path, "size", &want.size_bytes, &got.size_bytes);
        found.differ_if_promised(path, "nlink", want.nlink, got.nlink);
        if !is_root_of_source_tree(want) {
            found.differ_if_promised(path, "mtime_ns", want.mtime_ns, got.mtime_ns);
        }
        found.differ_if_known(path, "ctime_ns", want.ctime_ns, got.ctime_ns);
        if self.manifest.header.clean {
            found.differ_if_known(path, "atime_ns", want.atime_ns, got.atime_ns);
        }
        found.differ_if_known(path, "ino", want.ino, got.ino);
        found.differ_if_known(path, "blocks", want.blocks, got.blocks);
        if want.rdev.is_some() {
            found.differ(path, "rdev", &want.rdev, &got.rdev);
        }
        if want.target.is_some() {
            found.differ(path, "target", &want.target, &got.target);
        }
        if self.looks_at(Aspect::Contents) && want.sha256.is_some() {
            found.differ(path, "sha256", &want.sha256, &got.sha256);
        }
        if self.looks_at(Aspect::Contents) && want.data_sha256.is_some() {
            found.differ(path, "data_sha256", &want.data_sha256, &got.data_sha256);
        }
        self.entry_extras(want, got, found);
    }

    /// The fields that are written down only where there is something to write.
    fn entry_extras(&self, want: &Entry, got: &ObservedEntry, found: &mut Differences) {
        let path = &want.path;
        if self.looks_at(Aspect::Xattrs) && (!want.acked || !want.xattrs.is_empty()) {
            found.differ_maps(path, "xattr", &want.xattrs, &got.xattrs);
        }
        if self.looks_at(Aspect::Options) && (!want.acked || !want.options.is_empty()) {
            found.differ_maps(path, "option", &want.options, &got.options);
        }
        if self.looks_at(Aspect::Flags) && !want.acked {
            found.differ(path, "flags", &want.flags, &got.flags);
            found.differ(path, "projid", &want.projid, &got.projid);
        }
        if self.looks_at(Aspect::Holes) && want.file_type == FileType::Reg && self.promises_holes(want) {
            found.differ(path, "holes", &want.holes, &got.holes);
        }
    }

    fn promises_holes(&self, want: &Entry) -> bool {
        let header = &self.manifest.header;
        header.clean && (header.kind_of_image != "newer" || !want.holes.is_empty())
    }

    /// Paths that a complete manifest does not list.
    fn unlisted(&self, seen: &Observed, found: &mut Differences) {
        let listed: BTreeSet<&[u8]> = self.manifest.entries.iter().map(|entry| &*entry.path).collect();
        for path in seen.keys().filter(|path| !listed.contains(&***path)) {
            if path != b"lost+found" {
                found.about(path, "is not in the manifest");
            }
        }
    }

    fn constraint(
        &self,
        constraint: &Constraint,
        seen: &Observed,
        read: &mut ReadContent<'_>,
        found: &mut Differences,
    ) {
        let contents = self.looks_at(Aspect::Contents);
        let has_content = |path: &str, allowed: &[String]| {
            let hash = seen.get(path.as_bytes()).and_then(|entry| entry.sha256.as_ref());
            !contents || hash.is_some_and(|hash| allowed.contains(hash))
        };
        let exists = |path: &String| seen.contains_key(path.as_bytes());
        let complaint = match constraint {
            Constraint::ExactlyOne { paths, sha256 } => {
                let have: Vec<_> = paths.iter().filter(|path| exists(path)).collect();
                match have[..] {
                    [one] if has_content(one, slice::from_ref(sha256)) => None,
                    [one] => Some((one.clone(), "has another content".to_owned())),
                    _ => Some((paths.join(" or "), format!("{} exist, not 1", have.len()))),
                }
            }
            Constraint::Absent { path } => {
                exists(path).then(|| (path.clone(), "exists although its removal was durable".to_owned()))
            }
            Constraint::AbsentOr { path, sha256 } => {
                let wrong = exists(path) && !has_content(path, slice::from_ref(sha256));
                wrong.then(|| (path.clone(), "has another content".to_owned()))
            }
            Constraint::OneOf { path, sha256 } => {
                let wrong = !exists(path) || !has_content(path, sha256);
                wrong.then(|| (path.clone(), "is missing or has none of the possible contents".to_owned()))
            }
            Constraint::Blocks { .. } | Constraint::PrefixLines { .. } | Constraint::NameLines { .. } => {
                if contents {
                    content_constraint(constraint, seen, read, found);
                }
                None
            }
        };
        if let Some((path, what)) = complaint {
            found.about(path.as_bytes(), &what);
        }
    }
}

/// The root of a manifest that was taken from a source tree; those do not count the links of directories.
fn is_root_of_source_tree(want: &Entry) -> bool {
    want.path == b"." && want.nlink.is_none()
}

/// The rules that look into a file.
fn content_constraint(
    constraint: &Constraint,
    seen: &Observed,
    read: &mut ReadContent<'_>,
    found: &mut Differences,
) {
    let mut check = |path: &[u8], rule: &dyn Fn(&[u8]) -> Result<(), String>| match read(path) {
        Ok(data) => {
            if let Some(hash) = seen.get(path).and_then(|entry| entry.sha256.as_ref()) {
                found.differ(path, "content as read, by its sha256", hash, &sha256_hex(&data));
            }
            if let Err(what) = rule(&data) {
                found.about(path, &what);
            }
        }
        Err(e) => found.about(path, &format!("cannot be read: {e}")),
    };
    match constraint {
        Constraint::Blocks { path, block_bytes, min_gen } => {
            check(path.as_bytes(), &|data| blocks(path, data, *block_bytes, min_gen));
        }
        Constraint::PrefixLines { path, min_size_bytes } => {
            check(path.as_bytes(), &|data| prefix_lines(path, data, *min_size_bytes));
        }
        Constraint::NameLines { dir, size_max_bytes } => {
            for (path, name) in files_in(seen, dir.as_bytes()) {
                check(path, &|data| name_lines(name, data, *size_max_bytes));
            }
        }
        _ => unreachable!("rules about existence are handled by the caller"),
    }
}

/// Paths and names of what lies directly in `dir`.
fn files_in<'a>(seen: &'a Observed, dir: &[u8]) -> Vec<(&'a [u8], &'a [u8])> {
    let prefix = [dir, b"/"].concat();
    let inside = seen.keys().filter_map(|path| Some((&path[..], path.strip_prefix(&prefix[..])?)));
    inside.filter(|(_, name)| !name.contains(&b'/')).collect()
}

/// `line`, repeated and cut to `len` bytes.
fn repeated(line: &[u8], len: usize) -> Vec<u8> {
    line.iter().copied().cycle().take(len).collect()
}

fn blocks(path: &str, data: &[u8], block_bytes: usize, min_gen: &[u64]) -> Result<(), String> {
    if data.len() != block_bytes * min_gen.len() {
        return Err(format!("has {} bytes, not {}", data.len(), block_bytes * min_gen.len()));
    }
    let generation = |head: &str, index: usize| -> Option<u64> {
        let (rest, generation) = head.rsplit_once(' ')?;
        let (name, block) = rest.rsplit_once(' ')?;
        (name == path && block == index.to_string()).then(|| generation.parse().ok())?
    };
    let mut wrong = Vec::new();
    for (index, (block, &min)) in data.chunks(block_bytes).zip(min_gen).enumerate() {
        let head = String::from_utf8_lossy(block.split(|&byte| byte == b'\n').next().unwrap_or_default());
        let whole = |generation: u64| {
            block == repeated(format!("{path} {index} {generation}\n").as_bytes(), block_bytes)
        };
        if !generation(&head, index).is_some_and(|generation| generation >= min && whole(generation)) {
            let head: String = head.chars().take(60).collect();
            wrong.push(format!("block {index} begins {head:?} or is torn, want generation >= {min}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn prefix_lines(path: &str, data: &[u8], min_size_bytes: usize) -> Result<(), String> {
    if data.len() < min_size_bytes {
        return Err(format!("has {} bytes, {min_size_bytes} were durable", data.len()));
    }
    for (n, line) in data.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let want = format!("{path} line {n}\n");
        let cut_off = !line.ends_with(b"\n");
        if !(want.as_bytes() == line || (cut_off && want.as_bytes().starts_with(line))) {
            return Err(format!("line {n} is {:?}", String::from_utf8_lossy(line)));
        }
    }
    Ok(())
}

fn name_lines(name: &[u8], data: &[u8], size_max_bytes: usize) -> Result<(), String> {
    if data.len() > size_max_bytes {
        return Err(format!("has {} bytes, more than {size_max_bytes}", data.len()));
    }
    let full = repeated(&[name, b"\n"].concat(), data.len());
    match data.iter().zip(&full).position(|(&got, &want)| got != want && got != 0) {
        None => Ok(()),
        Some(offset) => Err(format!("byte {offset} is foreign")),
    }
}

/// The differences found so far, as text.
#[derive(Default)]
struct Differences {
    lines: Vec<String>,
}

impl Differences {
    fn about(&mut self, path: &[u8], what: &str) {
        self.lines.push(format!("{}: {what}", path.escape_ascii()));
    }

    fn differ<T: PartialEq + Debug>(&mut self, path: &[u8], field: &str, want: &T, got: &T) {
        if want != got {
            self.about(path, &format!("{field}: want {want:?}, got {got:?}"));
        }
    }

    fn differ_if_promised<T: PartialEq + Debug>(
        &mut self,
        path: &[u8],
        field: &str,
        want: Option<T>,
        got: T,
    ) {
        if let Some(want) = want {
            self.differ(path, field, &want, &got);
        }
    }

    fn differ_if_known<T: PartialEq + Debug>(
        &mut self,
        path: &[u8],
        field: &str,
        want: Option<T>,
        got: Option<T>,
    ) {
        if let (Some(want), Some(got)) = (want, got) {
            self.differ(path, field, &want, &got);
        }
    }

    fn differ_maps<T: AsRef<[u8]> + Ord>(
        &mut self,
        path: &[u8],
        field: &str,
        want: &BTreeMap<T, T>,
        got: &BTreeMap<T, T>,
    ) {
        let shown = |value: Option<&T>| match value {
            Some(bytes) => format!("\"{}\"", bytes.as_ref().escape_ascii()),
            None => "none".to_owned(),
        };
        for name in want.keys().chain(got.keys().filter(|name| !want.contains_key(*name))) {
            if want.get(name) != got.get(name) {
                let (want, got) = (shown(want.get(name)), shown(got.get(name)));
                self.about(
                    path,
                    &format!("{field} {}: want {want}, got {got}", name.as_ref().escape_ascii()),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
