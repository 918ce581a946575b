//! Directory entries: they belong to a directory, are where a lookup finds them, and lead to something that knows them (spec 60
//! §9.11).

use frazil_btree::View;
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::{FileType, Inode, InodeFlags};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use super::super::context::{Check, Feed};
use super::super::faults::{InodeFault, ItemFault};
use super::{Files, Slot, Versions, in_snapshot, inode, item, slots};

const BTREE: BtreeId = BtreeId::DIRENTS;

/// Kind of entry, for counting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Dir,
    Other,
}

/// Streams the entries of one directory past its versions.
pub(super) fn check(
    check: &mut Check<'_>,
    files: &mut Files<'_>,
    feed: &mut Feed<'_>,
    versions: &mut Versions,
) {
    let mut slot = Slot::new();
    while let Some(key) = feed.key().filter(|key| key.k.pos.inode == versions.inum.0) {
        let pos = key.k.pos;
        if pos.offset != slot.offset {
            flush(versions, &mut slot);
            slot.offset = pos.offset;
        }
        if !in_snapshot(check, key) {
            feed.advance(check);
            continue;
        }
        let entry = Dirent::decode(key.value).ok().filter(|_| key.k.ty == KeyType::DIRENT);
        let kind = match entry {
            None => Kind::None,
            Some(entry) if entry.ty == FileType::DIR => Kind::Dir,
            Some(_) => Kind::Other,
        };
        slot.keys.push((pos.snapshot, kind));
        if !key.k.ty.is_snapshot_whiteout() {
            let owner = versions.seen_by(check, pos.snapshot).and_then(|v| v.inode);
            match owner {
                None if check.complete(BtreeId::INODES) => item(check, BTREE, pos, ItemFault::NoInode),
                None => {}
                Some(owner) if !owner.is_dir() => {
                    item(check, BTREE, pos, ItemFault::InodeType { ty: owner.file_type() });
                }
                Some(owner) => {
                    if let Some(fault) = slots::fault(check, BTREE, key, &owner) {
                        item(check, BTREE, pos, fault);
                    }
                    if let Some(entry) = entry {
                        target(check, files, pos, &entry);
                    }
                }
            }
        }
        feed.advance(check);
    }
    flush(versions, &mut slot);
}

/// Shows the keys of one slot to every version.
fn flush(versions: &mut Versions, slot: &mut Slot<Kind>) {
    for version in &mut versions.list {
        let Some(view) = &version.view else { continue };
        let kind = slot.seen_by(view).copied().unwrap_or(Kind::None);
        version.subdirs += u64::from(kind == Kind::Dir);
        version.entries += u64::from(kind != Kind::None);
    }
    slot.keys.clear();
}

/// Checks what an entry leads to.
fn target(check: &mut Check<'_>, files: &mut Files<'_>, pos: Bpos, entry: &Dirent<'_>) {
    match entry.target {
        DirentTarget::Inode(inum) => {
            let Some(view) = check.view(pos.snapshot) else { return };
            match inode_seen(check, inum, &view) {
                Some((at, inode)) => {
                    check_type(check, pos, entry.ty, &inode);
                    check_backpointer(check, pos, at, &inode, &view);
                }
                None => missing(check, pos, inum),
            }
        }
        DirentTarget::Subvol { child, parent } => subvol(check, files, pos, child, parent),
    }
}

/// The inode that a snapshot sees, and where its key is.
pub(super) fn inode_seen(check: &mut Check<'_>, inum: Inum, view: &View) -> Option<(Bpos, Inode)> {
    let found = check.btrees().get_visible(BtreeId::INODES, Bpos::new(0, inum.0, 0), view);
    let handle = check.found(found)?;
    let key = handle.key();
    Some((key.k.pos, Inode::decode(key.k.ty, key.value).ok()?))
}

/// An entry may outlive its inode in the snapshot it is in, as long as a descendant still has it.
fn missing(check: &mut Check<'_>, pos: Bpos, inum: Inum) {
    if !check.complete(BtreeId::INODES) {
        return;
    }
    let mut cursor =
        check.btrees().cursor(BtreeId::INODES, Bpos::new(0, inum.0, 0)..=Bpos::new(0, inum.0, u32::MAX));
    while let Ok(Some(key)) = cursor.next() {
        let alive = Inode::decode(key.k.ty, key.value).is_ok();
        let below = check.snapshots().is_ancestor(SnapshotId(pos.snapshot), SnapshotId(key.k.pos.snapshot));
        if alive && below {
            return;
        }
    }
    item(check, BTREE, pos, ItemFault::NoTarget { inum });
}

fn check_type(check: &mut Check<'_>, pos: Bpos, stored: FileType, inode: &Inode) {
    let computed = if inode.subvol.0 != 0 { FileType::SUBVOL } else { inode.file_type() };
    if stored != computed {
        item(check, BTREE, pos, ItemFault::Type { stored, computed });
    }
}

/// The target must know this entry, or another one if it has several (spec 40 §3.7).
fn check_backpointer(check: &mut Check<'_>, pos: Bpos, at: Bpos, target: &Inode, view: &View) {
    let (dir, offset) = (Inum(pos.inode), pos.offset);
    if (target.dir, target.dir_offset) == (dir, offset) {
        return;
    }
    let is_dir = target.is_dir();
    let fault = if target.flags.contains(InodeFlags::UNLINKED) {
        InodeFault::UnlinkedWithDirent
    } else if (target.dir, target.dir_offset) == (Inum(0), 0) {
        if !is_dir {
            return;
        }
        InodeFault::NoBackpointer { dir, offset }
    } else if leads_back(check, Inum(at.offset), target, view) {
        match () {
            () if is_dir => InodeFault::DirManyLinks { dir, offset },
            () if target.nlink_raw == 0 => InodeFault::ManyLinks { dir, offset },
            () => return,
        }
    } else if check.complete(BTREE) {
        InodeFault::WrongBackpointer { dir, offset }
    } else {
        return; // The entry it names may be among those that are lost.
    };
    inode(check, Inum(at.offset), SnapshotId(at.snapshot), fault);
}

/// Whether the entry an inode names leads to it.
fn leads_back(check: &mut Check<'_>, inum: Inum, inode: &Inode, view: &View) -> bool {
    let pos = Bpos::new(inode.dir.0, inode.dir_offset, 0);
    let found = check.btrees().get_visible(BTREE, pos, view);
    let Some(handle) = check.found(found) else { return false };
    let key = handle.key();
    key.k.ty == KeyType::DIRENT && Dirent::decode(key.value).is_ok_and(|d| leads_to(&d, inum, inode))
}

/// Whether an entry leads to an inode.
pub(super) fn leads_to(entry: &Dirent<'_>, inum: Inum, inode: &Inode) -> bool {
    match entry.target {
        DirentTarget::Inode(target) => target == inum,
        DirentTarget::Subvol { child, .. } => child == inode.subvol,
    }
}

/// Checks an entry that leads to a subvolume (spec 40 §5.3).
fn subvol(check: &mut Check<'_>, files: &mut Files<'_>, pos: Bpos, child: SubvolId, parent: SubvolId) {
    let tables = files.tables;
    if !check.complete(BtreeId::SUBVOLUMES) {
        return;
    }
    let fault = match (tables.subvol(child), tables.subvol(parent)) {
        (_, None) => Some(ItemFault::NoParentSubvol { subvol: parent }),
        (None, _) => Some(ItemFault::NoSubvol { subvol: child }),
        (Some(_), Some(p)) if !check.snapshots().is_ancestor(SnapshotId(pos.snapshot), p.snapshot) => {
            Some(ItemFault::NotVisibleInParent { subvol: parent })
        }
        (Some(c), Some(_)) if c.fs_path_parent != parent => {
            Some(ItemFault::ParentOfSubvol { stored: c.fs_path_parent, computed: parent })
        }
        _ => None,
    };
    if let Some(fault) = fault {
        return item(check, BTREE, pos, fault);
    }
    let Some((subvol, view)) = tables.subvol(child).and_then(|c| Some((c, check.view(c.snapshot.0)?))) else {
        return;
    };
    // Without its root directory the subvolume itself was reported.
    let Some((at, root)) = inode_seen(check, subvol.inode, &view) else { return };
    if root.parent_subvol != parent {
        let fault = InodeFault::WrongParentSubvol { stored: root.parent_subvol, computed: parent };
        inode(check, subvol.inode, SnapshotId(at.snapshot), fault);
    }
    let parent_view = tables.subvol(parent).and_then(|p| check.view(p.snapshot.0));
    if let Some(view) = parent_view {
        check_backpointer(check, pos, at, &root, &view);
    }
}
