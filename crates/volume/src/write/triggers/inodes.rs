//! What the versions of an inode in different snapshots know of each other (spec 40 §3.5).
//!
//! Each version says whether a snapshot below has a version of its own, because only the last of a line may be removed when the file
//! is deleted. The flag changes when a version appears or goes: in the version itself, which was copied from the one above, and in the nearest one above.
//! Keys that merely change keep the flag they had.
//!
//! Most inodes have one version. Then there is nothing to find, and the tree of snapshots is not asked at all.

use frazil_btree::write::{Blocked, Change, Stage};
use frazil_ondisk::values::inode::{Inode, InodeFlags};
use frazil_ondisk::values::snapshot::Snapshot;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::inconsistent;
use super::net::Net;

/// Whether a key is an inode, and not what remains of one.
fn is_inode(key: &KeyBuf) -> bool {
    matches!(key.k.ty, KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3)
}

/// Maintains the flag after a change of an inode's key.
pub(super) fn changed(stage: &mut dyn Stage, net: &mut Net<'_>, change: &Change) -> Result<(), Blocked> {
    let pos = change.new.k.pos;
    let (old, new) = (change.old.as_ref().filter(|k| is_inode(k)), change.inserted().filter(|k| is_inode(k)));
    match (old, new) {
        (None, None) => Ok(()),
        (Some(old), Some(new)) => {
            let flag = |key| Ok::<_, Blocked>(decode(key)?.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT));
            let (had, has) = (flag(old)?, flag(new)?);
            if had == has { Ok(()) } else { set_flag(stage, net, pos, had) }
        }
        (None, Some(_)) => {
            let has = has_descendant(stage, pos)?;
            set_flag(stage, net, pos, has)?;
            match nearest_ancestor(stage, pos)? {
                Some(above) => set_flag(stage, net, above, true),
                None => Ok(()),
            }
        }
        (Some(_), None) => {
            let Some(above) = nearest_ancestor(stage, pos)? else { return Ok(()) };
            let has = has_descendant(stage, above)?;
            set_flag(stage, net, above, has)
        }
    }
}

fn decode(key: &KeyBuf) -> Result<Inode, Blocked> {
    Inode::decode(key.k.ty, &key.value)
        .map_err(|e| inconsistent(format!("inode key {}: {e}", key.as_key())).into())
}

/// Sets or clears the flag in the version at `pos`.
fn set_flag(stage: &mut dyn Stage, net: &mut Net<'_>, pos: Bpos, on: bool) -> Result<(), Blocked> {
    let Some(key) = stage.get(BtreeId::INODES, pos)?.filter(is_inode) else { return Ok(()) };
    let mut inode = decode(&key)?;
    if inode.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT) == on {
        return Ok(());
    }
    inode.flags.set(InodeFlags::HAS_CHILD_SNAPSHOT, on);
    let mut value = Vec::new();
    inode.encode(&mut value);
    let new = KeyBuf::new(KeyType::INODE_V3, pos, 0, value);
    net.replace(BtreeId::INODES, 0, Some(&key), Some(&new))?;
    stage.update(BtreeId::INODES, new);
    Ok(())
}

/// The nearest version above the one at `pos`.
fn nearest_ancestor(stage: &mut dyn Stage, pos: Bpos) -> Result<Option<Bpos>, Blocked> {
    let Some(mut from) = pos.snapshot.checked_add(1) else { return Ok(None) };
    loop {
        let end = pos.with_snapshot(u32::MAX);
        let Some(key) = stage.first(BtreeId::INODES, pos.with_snapshot(from), end)? else { return Ok(None) };
        let snapshot = key.k.pos.snapshot;
        if is_inode(&key) && is_ancestor(stage, snapshot, pos.snapshot)? {
            return Ok(Some(key.k.pos));
        }
        let Some(next) = snapshot.checked_add(1) else { return Ok(None) };
        from = next;
    }
}

/// Whether a snapshot below that of `pos` has a version.
fn has_descendant(stage: &mut dyn Stage, pos: Bpos) -> Result<bool, Blocked> {
    let mut from = 0;
    while from < pos.snapshot {
        let end = pos.with_snapshot(pos.snapshot - 1);
        let Some(key) = stage.first(BtreeId::INODES, pos.with_snapshot(from), end)? else { break };
        let snapshot = key.k.pos.snapshot;
        if is_inode(&key) && is_ancestor(stage, pos.snapshot, snapshot)? {
            return Ok(true);
        }
        from = snapshot + 1;
    }
    Ok(false)
}

/// Whether `ancestor` is above `of`, as the commit will leave the tree. Parents have larger ids, so the way up ends.
fn is_ancestor(stage: &mut dyn Stage, ancestor: u32, of: u32) -> Result<bool, Blocked> {
    let mut at = of;
    while at != 0 && at < ancestor {
        let key = stage.get(BtreeId::SNAPSHOTS, Bpos::new(0, at.into(), 0))?;
        let parent = match key.filter(|key| key.k.ty == KeyType::SNAPSHOT) {
            Some(key) => Snapshot::decode(&key.value).map_or(0, |snapshot| snapshot.parent.0),
            None => 0,
        };
        at = if parent > at { parent } else { 0 };
    }
    Ok(at == ancestor)
}
