//! Walks through trees that real volumes do not have.

use frazil_ondisk::units::Inum;
use frazil_ondisk::values::inode::FileType;

use crate::attr::NodeId;
use crate::namespace::Namespace;
use crate::testing::{Keys, SNAPSHOT, entry, inode};
use crate::walk::{Visit, WalkStep};

/// Every path visited, with a `!` behind those that are errors.
fn visited(names: &Namespace, step: impl Fn(&[u8]) -> WalkStep) -> Vec<String> {
    let mut paths = Vec::new();
    names.walk(NodeId::ROOT, &mut |path, visit| {
        let mark = if matches!(visit, Visit::Object(_)) { "" } else { "!" };
        paths.push(format!("{}{mark}", path.escape_ascii()));
        step(path)
    });
    paths
}

fn tree() -> Keys {
    let mut keys = Keys::volume();
    keys.file(Inum::ROOT, b"b", Inum(5000), &inode(FileType::DIR));
    keys.file(Inum(5000), b"deep", Inum(5001), &inode(FileType::DIR));
    keys.file(Inum(5001), b"file", Inum(5002), &inode(FileType::REG));
    keys.file(Inum::ROOT, b"a", Inum(5003), &inode(FileType::REG));
    keys.file(Inum::ROOT, b"c", Inum(5004), &inode(FileType::LNK));
    keys
}

#[test]
fn directories_come_before_what_they_hold_and_names_in_order() {
    let names = tree().namespace(&[(SNAPSHOT, 0)]);
    assert_eq!(visited(&names, |_| WalkStep::Continue), ["", "a", "b", "b/deep", "b/deep/file", "c"]);
    let skip = |path: &[u8]| if path == b"b" { WalkStep::SkipDirectory } else { WalkStep::Continue };
    assert_eq!(visited(&names, skip), ["", "a", "b", "c"]);
    let stop = |path: &[u8]| if path == b"b/deep" { WalkStep::Stop } else { WalkStep::Continue };
    assert_eq!(visited(&names, stop), ["", "a", "b", "b/deep"]);
}

#[test]
fn loops_and_lost_inodes_are_reported_and_passed() {
    let mut keys = tree();
    keys.dirent(Inum(5001), SNAPSHOT, &entry(b"again", Inum(5000), FileType::DIR));
    keys.dirent(Inum(5001), SNAPSHOT, &entry(b"lost", Inum(9999), FileType::REG));
    keys.dirent(Inum(5000), SNAPSHOT, &entry(b"root", Inum::ROOT, FileType::DIR));
    let names = keys.namespace(&[(SNAPSHOT, 0)]);
    let paths = visited(&names, |_| WalkStep::Continue);
    let expected = ["", "a", "b", "b/deep", "b/deep/again!", "b/deep/file", "b/deep/lost!", "b/root!", "c"];
    assert_eq!(paths, expected);
}
