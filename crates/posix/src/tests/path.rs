//! The way up, where it does not lead to the root.

use frazil_ondisk::units::Inum;
use frazil_ondisk::values::inode::{FileType, Inode};

use crate::attr::NodeId;
use crate::error::Error;
use crate::testing::{Keys, SNAPSHOT, entry, inode, slot};

const ONE: [(u32, u32); 1] = [(SNAPSHOT, 0)];

fn node(inum: u64) -> NodeId {
    NodeId { inum: Inum(inum), ..NodeId::ROOT }
}

#[test]
fn paths_lead_from_the_root() {
    let mut keys = Keys::volume();
    keys.file(Inum::ROOT, b"a", Inum(5000), &inode(FileType::DIR));
    keys.file(Inum(5000), b"b", Inum(5001), &inode(FileType::REG));
    let names = keys.namespace(&ONE);
    assert_eq!(names.path_of(NodeId::ROOT), b"/");
    assert_eq!(names.path_of(node(5000)), b"/a");
    assert_eq!(names.path_of(node(5001)), b"/a/b");
    assert_eq!(names.parent(node(5001)).unwrap(), node(5000));
    assert_eq!(names.parent(NodeId::ROOT).unwrap(), NodeId::ROOT);
}

#[test]
fn a_lost_way_begins_with_the_inode() {
    let mut keys = Keys::volume();
    keys.inode(Inum(5000), SNAPSHOT, &inode(FileType::DIR));
    keys.file(Inum(5000), b"b", Inum(5001), &inode(FileType::REG));
    let names = keys.namespace(&ONE);
    assert_eq!(names.path_of(node(5001)), b"<inode 5000>/b");
    assert_eq!(names.path_of(node(9999)), b"<inode 9999>");
    assert!(matches!(names.parent(node(5000)), Err(Error::NotFound)));
    assert!(matches!(names.parent(node(9999)), Err(Error::Stale(_))));
}

/// Two directories that hold each other. The path ends where it would repeat itself: it may be wanted for every entry of a large
/// directory.
#[test]
fn a_loop_ends() {
    let mut keys = Keys::volume();
    for (child, dir) in [(5000, 5001), (5001, 5000)] {
        let up = Inode { dir: Inum(dir), dir_offset: slot(b"x"), ..inode(FileType::DIR) };
        keys.inode(Inum(child), SNAPSHOT, &up);
        keys.dirent(Inum(dir), SNAPSHOT, &entry(b"x", Inum(child), FileType::DIR));
    }
    assert_eq!(keys.namespace(&ONE).path_of(node(5000)), b"<inode 5000>/x/x");
}
