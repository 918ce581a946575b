//! The table of mounts, as this process sees it.
//!
//! `/proc/self/mountinfo` has one line for each mount, which everybody may read: what is mounted where, by device number for
//! the kernel's own filesystems and by source name for FUSE. It tells who has a device ([`Holder`](crate::Holder)) and
//! which mount stands at a directory.

use std::fs;
use std::path::{Path, PathBuf};

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// "major:minor" of the mounted device; of an invented one for filesystems without a device.
    pub number: String,
    /// The directory of the filesystem that is mounted: `/`, unless only a part of it is (`mount --bind`).
    pub root: PathBuf,
    /// The directory (or file) it is mounted on.
    pub mount_point: PathBuf,
    /// Type of filesystem; for FUSE with a subtype it is like `fuse.frazil`.
    pub fs_type: String,
    /// What is mounted: a path or any other text.
    pub source: String,
    /// Whether the filesystem as a whole, not just this mount of it, is read-only.
    pub read_only: bool,
    /// The user who mounted it; known for FUSE only.
    pub user: Option<u32>,
}

impl Mount {
    /// Whether a process serves it through FUSE.
    pub fn is_fuse(&self) -> bool {
        self.fs_type == "fuse" || self.fs_type == "fuseblk" || self.fs_type.starts_with("fuse.")
    }
}

/// All mounts, in the order in which they were made; empty where there is no `/proc`.
pub fn table() -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    String::from_utf8_lossy(&table).lines().filter_map(parse).collect()
}

/// The topmost mount at this directory. The path must be canonical. The directory is not touched, so a dead mount does
/// no harm.
pub fn at(canonical: &Path) -> Option<Mount> {
    table().into_iter().rev().find(|mount| mount.mount_point == canonical)
}

/// The topmost mount in which this path lies. The path must be canonical.
pub fn covering(canonical: &Path) -> Option<Mount> {
    let covers = |mount: &Mount| canonical.starts_with(&mount.mount_point);
    // Of several as deep as each other, the one that was mounted last hides the others.
    table().into_iter().filter(covers).max_by_key(|mount| mount.mount_point.components().count())
}

/// The first mount of the filesystem with this number ([`Mount::number`]), wherever it is.
pub fn numbered(number: &str) -> Option<Mount> {
    table().into_iter().find(|mount| mount.number == number)
}

/// Parses "id parent major:minor root dir options [tags…] - type source superoptions" (proc(5)).
pub(crate) fn parse(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let mut filesystem = filesystem.split(' ');
    let number = mount.next()?.to_owned();
    let root = unescape(mount.next()?).into();
    let mount_point = unescape(mount.next()?).into();
    let (fs_type, source) = (filesystem.next()?.to_owned(), unescape(filesystem.next()?));
    let mut options = filesystem.next()?.split(',');
    let read_only = options.clone().any(|option| option == "ro");
    let user = options.find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
    Some(Mount { number, root, mount_point, fs_type, source, read_only, user })
}

/// Undoes the octal escapes of blanks in the mount table.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mount_table() {
        let line =
            "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext4 /dev/root\\134x ro,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.number, "98:0");
        assert_eq!(mount.mount_point, Path::new("/mnt 2"));
        assert_eq!((mount.fs_type.as_str(), mount.source.as_str()), ("ext4", "/dev/root\\x"));
        assert!(mount.read_only);
        assert_eq!((mount.root.as_path(), mount.user), (Path::new("/mnt1"), None));
        assert_eq!(parse("36 35 98:0 /mnt1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn finds_the_mount_at_a_directory() {
        assert_eq!(at(Path::new("/proc")).unwrap().fs_type, "proc");
        assert!(!at(Path::new("/proc")).unwrap().is_fuse());
        assert_eq!(at(Path::new("/proc/self")), None);
        let fuse = parse("1 2 0:5 / /mnt rw - fuse.frazil /dev/sdb1 rw,user_id=1000,group_id=0").unwrap();
        assert!(fuse.is_fuse());
        assert_eq!(fuse.user, Some(1000));
        assert_eq!(covering(Path::new("/proc/self/status")).unwrap().mount_point, Path::new("/proc"));
        assert_eq!(covering(Path::new("/procedures")).unwrap().mount_point, Path::new("/"));
    }
}
