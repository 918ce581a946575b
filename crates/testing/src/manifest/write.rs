//! Writing manifests: the way back from values to the lines that [`Manifest::parse`] reads.
//!
//! Optional fields that are absent, and lists and numbers that are empty or 0, are left out, as in the manifests on
//! record. Texts that are not UTF-8 are written as base64 into the `_b64` variant of their field.

use std::fmt::Write;

use base64::Engine;
use serde::Serialize;
use serde_json::Value;

use super::{BASE64, Entry, EntryLine, FiemapExtent, Header, Manifest};
use crate::compare::ObservedEntry;

/// A line of a manifest: its kind, and the fields of that kind.
#[derive(Serialize)]
struct Line<'a, T> {
    kind: &'a str,
    #[serde(flatten)]
    fields: T,
}

impl Manifest {
    /// A complete manifest of a tree that somebody saw, so that another observer can be compared with it. `observer`
    /// says who, and stands where manifests on record name their image.
    pub fn of_tree(observer: &str, entries: impl IntoIterator<Item = ObservedEntry>) -> Manifest {
        Manifest {
            header: Header {
                image: observer.to_owned(),
                kind_of_image: "observed".to_owned(),
                seed: 0,
                params: Value::Null,
                clean: true,
                frozen: false,
                title: format!("the tree as {observer} saw it"),
                how: None,
                passphrase: None,
            },
            entries: entries.into_iter().map(Entry::from).collect(),
            quotas: Vec::new(),
            infos: Vec::new(),
            constraints: Vec::new(),
        }
    }

    /// The lines that [`Manifest::parse`] turns into this manifest.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        push(&mut text, "header", &self.header);
        self.entries.iter().for_each(|entry| push(&mut text, "entry", entry.to_line()));
        self.quotas.iter().for_each(|quota| push(&mut text, "quota", quota));
        self.infos.iter().for_each(|info| push(&mut text, "info", info));
        self.constraints.iter().for_each(|constraint| push(&mut text, "constraint", constraint));
        text
    }
}

fn push(text: &mut String, kind: &str, fields: impl Serialize) {
    let line = serde_json::to_string(&Line { kind, fields }).expect("a manifest line has only JSON values");
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

impl From<ObservedEntry> for Entry {
    /// Everything that was seen, as a promise.
    fn from(seen: ObservedEntry) -> Entry {
        Entry {
            path: seen.path,
            file_type: seen.file_type,
            mode: Some(seen.mode),
            uid: Some(seen.uid),
            gid: Some(seen.gid),
            size_bytes: seen.size_bytes,
            nlink: Some(seen.nlink),
            ino: seen.ino,
            blocks: seen.blocks,
            mtime_ns: Some(seen.mtime_ns),
            ctime_ns: seen.ctime_ns,
            atime_ns: seen.atime_ns,
            rdev: seen.rdev,
            target: seen.target,
            xattrs: seen.xattrs,
            options: seen.options,
            flags: seen.flags,
            projid: seen.projid,
            sha256: seen.sha256,
            data_sha256: seen.data_sha256,
            holes: seen.holes,
            fiemap: None,
            acked: false,
        }
    }
}

impl Entry {
    fn to_line(&self) -> EntryLine {
        let (path, path_b64) = text_or_base64(&self.path);
        let (target, target_b64) = self.target.as_deref().map_or((None, None), text_or_base64);
        let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| (attribute_name(name), BASE64.encode(value));
        EntryLine {
            path,
            path_b64,
            file_type: self.file_type,
            mode: self.mode.map(|mode| format!("{mode:04o}")),
            uid: self.uid,
            gid: self.gid,
            size: self.size_bytes,
            nlink: self.nlink,
            ino: self.ino,
            blocks: self.blocks,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            atime_ns: self.atime_ns,
            rdev: self.rdev,
            target,
            target_b64,
            xattrs: self.xattrs.iter().map(xattr).collect(),
            bcachefs_opts: self.options.clone(),
            flags: self.flags,
            projid: self.projid,
            sha256: self.sha256.clone(),
            data_sha256: self.data_sha256.clone(),
            holes: self.holes.clone(),
            fiemap: self.fiemap.clone(),
            acked: self.acked,
        }
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

fn attribute_name(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.starts_with("b64:") && !text.contains(char::is_control) => text.to_owned(),
        _ => format!("b64:{}", BASE64.encode(name)),
    }
}

impl From<FiemapExtent> for (u64, u64, u64, u32) {
    fn from(extent: FiemapExtent) -> Self {
        (extent.logical_bytes, extent.physical_bytes, extent.len_bytes, extent.flags)
    }
}

/// Whether a field has the value that is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Comparison;
    use crate::golden;
    use crate::observe;

    #[test]
    fn every_manifest_is_written_as_it_was_read() {
        for image in golden::all() {
            let manifest = image.manifest();
            let again = Manifest::parse(&manifest.to_text()).unwrap();
            assert!(again == manifest, "{}", image.name);
        }
    }

    #[test]
    fn odd_attribute_names_come_back() {
        let mut seen = ObservedEntry::new(&b"odd"[..], super::super::FileType::Reg);
        for name in [&b"user.b"[..], b"b64:x", b"user.\xff", b"user.\n"] {
            seen.xattrs.insert(name.to_vec(), b"\0value".to_vec());
        }
        let manifest = Manifest::of_tree("a test", [seen]);
        assert_eq!(Manifest::parse(&manifest.to_text()).unwrap(), manifest);
    }

    #[test]
    fn a_tree_is_compared_with_what_another_saw() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"one").unwrap();
        let manifest = Manifest::of_tree("the first", observe::tree(dir.path()).unwrap());
        let compare = || {
            Comparison::new(&manifest)
                .run(observe::tree(dir.path()).unwrap(), |path| observe::content(dir.path(), path))
        };
        assert_eq!(compare(), Vec::<String>::new());
        std::fs::write(dir.path().join("file"), b"two").unwrap();
        assert!(compare().iter().any(|line| line.contains("sha256")), "{:?}", compare());
    }
}
