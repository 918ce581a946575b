//! Work that was begun: unlinked inodes and logged operations (spec 60 §5.2, §9.14). After a clean shutdown there is none; after a
//! crash the next start finishes it.

use frazil_ondisk::values::inode::{Inode, InodeFlags};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use super::context::Check;
use super::faults::{InodeFault, ItemFault};
use super::inconsistency::Inconsistency;

/// Checks both lists.
pub(super) fn check(check: &mut Check<'_>) {
    check.each(BtreeId::LOGGED_OPS, 0, |check, key| {
        // Behind inode 0 newer versions keep the cursors of the inode allocator (spec 80 §5.5).
        if key.k.pos.inode == 0 {
            let fault = if check.was_clean() { ItemFault::LoggedOpButClean } else { ItemFault::Unfinished };
            check.add(Inconsistency::Item { btree: BtreeId::LOGGED_OPS, pos: key.k.pos, fault });
        }
    });
    check.each(BtreeId::DELETED_INODES, 0, |check, key| {
        let pos = key.k.pos;
        if let Some(fault) = deleted_inode(check, pos) {
            check.add(Inconsistency::Inode { pos, fault });
        }
    });
}

fn deleted_inode(check: &mut Check<'_>, pos: Bpos) -> Option<InodeFault> {
    if !check.complete(BtreeId::INODES) {
        return None;
    }
    let found = check.btrees().get(BtreeId::INODES, pos);
    let inode =
        check.found(found).and_then(|handle| Inode::decode(handle.key().k.ty, handle.key().value).ok());
    Some(match inode {
        None => InodeFault::ListedMissing,
        Some(inode) if !inode.flags.contains(InodeFlags::UNLINKED) => InodeFault::ListedLinked,
        Some(inode) if inode.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT) => InodeFault::ListedWithChildren,
        Some(inode) if inode.is_dir() && !is_empty_dir(check, pos) => InodeFault::ListedNotEmpty,
        Some(_) if check.was_clean() => InodeFault::DeletedButClean,
        Some(inode) if inode.is_dir() => InodeFault::OrphanDir,
        Some(_) => InodeFault::Orphan,
    })
}

/// Whether a snapshot sees no entry in a directory. What cannot be read counts as none: it is reported elsewhere.
pub(super) fn is_empty_dir(check: &mut Check<'_>, inode: Bpos) -> bool {
    let Some(view) = check.view(inode.snapshot) else { return true };
    let range = Bpos::new(inode.offset, 0, 0)..Bpos::new(inode.offset, u64::MAX, 0);
    let mut cursor = check.btrees().visible(BtreeId::DIRENTS, &view, range);
    loop {
        match cursor.next() {
            Ok(Some(key)) if key.k.ty == KeyType::DIRENT => return false,
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(error) => {
                check.lost(error);
                return true;
            }
        }
    }
}
