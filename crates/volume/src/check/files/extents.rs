//! Extents: they belong to a file, do not overlap, end with it, and add up to its sectors (spec 60 §9.10).

use frazil_ondisk::units::Inum;
use frazil_ondisk::values::inode::FileType;
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use super::super::context::{Check, Feed};
use super::super::faults::ItemFault;
use super::{Slot, Versions, in_snapshot, item};

/// What matters about an extent.
#[derive(Clone, Copy)]
struct Extent {
    ty: KeyType,
    size: u32,
    snapshot: u32,
}

/// Streams the extents of one inode past its versions.
pub(super) fn check(check: &mut Check<'_>, feed: &mut Feed<'_>, versions: &mut Versions) {
    let mut slot = Slot::new();
    while let Some(key) = feed.key().filter(|key| key.k.pos.inode == versions.inum.0) {
        let pos = key.k.pos;
        if pos.offset != slot.offset {
            flush(check, versions, &mut slot);
            slot.offset = pos.offset;
        }
        if in_snapshot(check, key) {
            let extent = Extent { ty: key.k.ty, size: key.k.size, snapshot: pos.snapshot };
            slot.keys.push((pos.snapshot, extent));
            if !extent.ty.is_snapshot_whiteout() {
                check_owner(check, versions, pos);
            }
        }
        feed.advance(check);
    }
    flush(check, versions, &mut slot);
}

fn check_owner(check: &mut Check<'_>, versions: &Versions, pos: Bpos) {
    let ty = versions.seen_by(check, pos.snapshot).and_then(|v| v.inode.as_ref()).map(|i| i.file_type());
    match ty {
        None if check.complete(BtreeId::INODES) => item(check, BtreeId::EXTENTS, pos, ItemFault::NoInode),
        None | Some(FileType::REG | FileType::LNK) => {}
        Some(ty) => item(check, BtreeId::EXTENTS, pos, ItemFault::InodeType { ty }),
    }
}

/// Sectors up to the block that holds the last byte.
fn end_of_file(check: &Check<'_>, size: u64) -> u64 {
    let superblock = check.volume.superblock();
    size.div_ceil(superblock.block_bytes().max(1)).saturating_mul(superblock.block_sectors.into())
}

/// Shows the keys that end at one sector to every version.
fn flush(check: &mut Check<'_>, versions: &mut Versions, slot: &mut Slot<Extent>) {
    let (Inum(inum), offset) = (versions.inum, slot.offset);
    for version in &mut versions.list {
        let (Some(inode), Some(view)) = (&version.inode, &version.view) else { continue };
        let Some(extent) = slot.seen_by(view).filter(|e| !e.ty.is_snapshot_whiteout()) else { continue };
        let pos = Bpos::new(inum, offset, extent.snapshot);
        let start = offset.saturating_sub(extent.size.into());
        if start < version.end {
            let fault = ItemFault::Overlaps { end: version.end, snapshot: version.snapshot };
            item(check, BtreeId::EXTENTS, pos, fault);
        }
        version.end = offset;
        version.sectors = version.sectors.saturating_add(extent.size.into());
        let beyond = !version.truncating && offset > end_of_file(check, inode.size);
        if beyond && extent.ty != KeyType::RESERVATION {
            let fault = ItemFault::PastEnd { size: inode.size, snapshot: version.snapshot };
            item(check, BtreeId::EXTENTS, pos, fault);
        }
    }
    slot.keys.clear();
}
