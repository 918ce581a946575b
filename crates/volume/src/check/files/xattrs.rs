//! Extended attributes: they belong to an inode and are where a lookup finds them (spec 60 §9.11).

use frazil_ondisk::BtreeId;

use super::super::context::{Check, Feed};
use super::super::faults::ItemFault;
use super::{Versions, in_snapshot, item, slots};

/// Streams the attributes of one inode past its versions.
pub(super) fn check(check: &mut Check<'_>, feed: &mut Feed<'_>, versions: &Versions) {
    while let Some(key) = feed.key().filter(|key| key.k.pos.inode == versions.inum.0) {
        if in_snapshot(check, key) && !key.k.ty.is_snapshot_whiteout() {
            let pos = key.k.pos;
            match versions.seen_by(check, pos.snapshot).and_then(|v| v.inode) {
                Some(owner) => {
                    if let Some(fault) = slots::fault(check, BtreeId::XATTRS, key, &owner) {
                        item(check, BtreeId::XATTRS, pos, fault);
                    }
                }
                None if check.complete(BtreeId::INODES) => {
                    item(check, BtreeId::XATTRS, pos, ItemFault::NoInode)
                }
                None => {}
            }
        }
        feed.advance(check);
    }
}
