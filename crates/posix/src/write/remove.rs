//! Removal of inodes that nobody refers to (spec 40 §3.6).
//!
//! An inode without a name is marked `unlinked` and listed in `deleted_inodes` from the transaction on that took its last name, so its removal can stop
//! anywhere and go on later, after a crash at the next start ([`Front::remove_dead_inodes`]). Steps, each a transaction of bounded size: its
//! extents, with the count of its sectors kept true; attributes and what is left of a directory's table; then the inode itself, which leaves
//! behind the generation that its number begins with next time.
//!
//! What is removed is one version of the inode, that of one snapshot. The version above it may be dead too, kept only for this one; then it goes
//! next.

use frazil_btree::View;
use frazil_ondisk::units::{Inum, Sectors, SnapshotId, SubvolId};
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::{Bpos, BtreeId};
use frazil_volume::lifecycle::{FrontKind, NotNow};

use super::WriteFs;
use super::front::Front;
use super::holds::Released;
use super::op::{Object, Op};
use super::quota::Owned;
use crate::attr::NodeId;
use crate::error::Result;
use crate::hashed::slots;
use crate::namespace::decode_inode;

/// Keys that a transaction takes out of hash tables.
const KEYS_MAX: usize = 64;

/// What a step of a removal came to.
enum Step {
    /// There is more to do.
    More,
    /// The version is not to be removed.
    Kept,
    /// The version is gone. Above it there may be another.
    Gone { above: Option<Bpos> },
}

impl WriteFs {
    /// Somebody uses the object: once more.
    pub fn hold(&self, node: NodeId) {
        self.holds.add(node);
    }

    /// Somebody who held the object `count` times does not use it any more. If nobody does, and it has no name, it is removed: now, or,
    /// because this never waits, by [`Front::remove_released`] when the volume is no longer frozen or read-only.
    pub fn release(&self, node: NodeId, count: u64) {
        match self.holds.drop(node, count) {
            Released::Kept => {}
            Released::Forgotten => self.numbers.removed(node.inum),
            Released::Remove => match self.try_front(FrontKind::Removal) {
                Ok(front) => front.remove_soon(node),
                // If it never can be changed again, the next start finds it.
                Err(NotNow::Blocked | NotNow::ReadOnly) => {
                    self.released.lock().push(node);
                    self.left_something();
                }
            },
        }
    }

    /// Nobody uses anything any more, whatever was said of it: the adapter is gone.
    pub fn release_all(&self) {
        self.holds.clear();
    }
}

impl Front<'_> {
    /// Removes what was released while the volume was frozen, as long as that is `wanted`. Returns whether there was anything.
    pub fn remove_released(&self, wanted: &dyn Fn() -> bool) -> bool {
        let mut any = false;
        while wanted() {
            let next = self.released.lock().pop();
            let Some(node) = next else { break };
            self.remove_soon(node);
            any = true;
        }
        any
    }

    /// Removes every inode that has no name and that nobody holds: after a crash, and before a clean shutdown. Returns how many.
    ///
    /// # Errors
    /// The general ones; those removed before stay so.
    pub fn remove_dead_inodes(&self) -> Result<u64> {
        self.engine().flush_buffer()?;
        let mut dead = Vec::new();
        let mut cursor = self.names.btrees.cursor(BtreeId::DELETED_INODES, ..);
        while let Some(key) = cursor.next()? {
            dead.push(key.k.pos);
        }
        drop(cursor);
        let mut removed = 0;
        for pos in dead {
            removed += u64::from(self.remove_versions(pos)?);
        }
        Ok(removed)
    }

    /// Removes an inode that has no name any more. What fails is done at the next start.
    pub(crate) fn remove_soon(&self, node: NodeId) {
        let removed = self.version_seen(node).and_then(|pos| pos.map_or(Ok(0), |p| self.remove_versions(p)));
        if let Err(error) = removed {
            tracing::warn!("inode {node} has no name but cannot be removed now: {error}");
        }
    }

    /// A directory was removed, inode and all.
    pub(crate) fn after_directory(&self, dir: &Object) {
        if !self.holds.removed(dir.node(), &dir.inode) {
            self.numbers.removed(dir.inum);
        }
    }

    /// The version of an inode that a subvolume sees.
    fn version_seen(&self, node: NodeId) -> Result<Option<Bpos>> {
        let Some(subvol) = self.names.subvol(node.subvol)? else { return Ok(None) };
        let pos = Bpos::new(0, node.inum.0, 0);
        let key = self.names.btrees.get_visible(BtreeId::INODES, pos, &subvol.view)?;
        Ok(key.map(|key| key.key().k.pos))
    }

    /// Removes a version if it is dead and nobody holds it, then the one above, and so on. Returns how many.
    fn remove_versions(&self, pos: Bpos) -> Result<u32> {
        let (mut at, mut removed) = (Some(pos), 0);
        while let Some(pos) = at {
            if self.is_held(pos)? {
                break;
            }
            match self.change(|op| op.remove_step(pos))? {
                Step::More => {}
                Step::Kept => break,
                Step::Gone { above } => (at, removed) = (above, removed + 1),
            }
        }
        if removed > 0 {
            self.numbers.removed(Inum(pos.offset));
        }
        Ok(removed)
    }

    /// Whether somebody holds the inode through a subvolume that sees this version.
    fn is_held(&self, pos: Bpos) -> Result<bool> {
        let inum = Inum(pos.offset);
        for subvol in self.holds.subvols_of(inum) {
            if self.version_seen(NodeId { subvol, inum })? == Some(pos) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Op<'_, '_> {
    fn remove_step(&mut self, pos: Bpos) -> Result<Step> {
        let Some(mut inode) = self.dead_version(pos)? else { return Ok(Step::Kept) };
        let was = Owned::of(&inode);
        let (inum, view) = (Inum(pos.offset), self.fs.names.view(SubvolId(0), SnapshotId(pos.snapshot))?);
        let done = self.t.remove_extents(&view, inum, 0..u64::MAX)?;
        inode.sectors = Sectors(inode.sectors.0.saturating_sub(done.sectors));
        if done.end < u64::MAX || !self.clear_tables(&view, inum)? {
            self.put_version(pos, &inode);
            self.note_version(pos, was, Some(Owned::of(&inode)))?;
            return Ok(Step::More);
        }
        self.remove_inode(pos, &inode);
        self.note_version(pos, was, None)?;
        Ok(Step::Gone { above: self.version_above(pos, &view)? })
    }

    /// The version of an inode at `pos`, if it is dead.
    fn dead_version(&self, pos: Bpos) -> Result<Option<Inode>> {
        let Some(key) = self.t.get(BtreeId::INODES, pos)? else { return Ok(None) };
        Ok(decode_inode(key.key())?.filter(Inode::is_dead))
    }

    /// Where the next version above is.
    fn version_above(&self, pos: Bpos, view: &View) -> Result<Option<Bpos>> {
        let Some(from) = pos.snapshot.checked_add(1) else { return Ok(None) };
        let mut cursor =
            self.t.cursor(BtreeId::INODES, pos.with_snapshot(from)..=pos.with_snapshot(u32::MAX));
        while let Some(key) = cursor.next()? {
            if view.sees(key.k.pos.snapshot) {
                return Ok(Some(key.k.pos));
            }
        }
        Ok(None)
    }

    /// Takes what is left in the tables of an inode out: attributes, and marks in a directory without entries. False if that was not all.
    pub(crate) fn clear_tables(&mut self, view: &View, inum: Inum) -> Result<bool> {
        let mut found = Vec::new();
        for btree in [BtreeId::DIRENTS, BtreeId::XATTRS] {
            let mut cursor = self.t.visible(btree, view, slots(inum, 0));
            while found.len() < KEYS_MAX
                && let Some(key) = cursor.next()?
            {
                found.push((btree, key.k.pos));
            }
        }
        for (btree, pos) in &found {
            self.t.delete_visible(*btree, *pos, view)?;
        }
        Ok(found.len() < KEYS_MAX)
    }
}
