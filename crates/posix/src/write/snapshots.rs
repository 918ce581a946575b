//! Deleting subvolumes (spec 40 §13.6).
//!
//! Its name goes at once, in one transaction that also marks the subvolume as unlinked: from then on nobody finds it. What it alone saw is
//! deleted afterwards, in steps of bounded size ([`Front::delete_unlinked_step`]), in an order in which a crash and a check after it never see
//! anything wrong: first all keys of its snapshot, while subvolume and snapshot stay as they are; then, in one transaction, the subvolume, its
//! snapshot, and the nodes above that nobody needs any more. What has to be done stands in the subvolume's record, so a later start goes on.
//!
//! A node above with another node below it stays, although it is a mere link in a chain then; its keys are seen through what is
//! below.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::values::snapshot::{Snapshot, SnapshotTree};
use frazil_ondisk::values::subvolume::{Subvolume, SubvolumeState};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use super::caller::Caller;
use super::entries::{Entry, must_be_name};
use super::front::Front;
use super::op::{Object, Op};
use crate::attr::NodeId;
use crate::error::{Error, Result};

/// The b-trees whose keys belong to snapshots, in the order in which they are cleared.
const CLEARED: [BtreeId; 4] = [BtreeId::EXTENTS, BtreeId::DIRENTS, BtreeId::XATTRS, BtreeId::INODES];
/// Keys looked at in one step.
const LOOKED_AT_MAX: usize = 4096;
/// Keys deleted in one transaction.
const DELETED_MAX: usize = 64;

/// How far the deletion of unlinked subvolumes is. Begins anew with its default.
#[derive(Debug, Default)]
pub struct Deletion(Option<Clearing>);

/// A subvolume whose keys are being deleted.
#[derive(Debug)]
struct Clearing {
    subvol: SubvolId,
    /// Its snapshot, and those above it that nobody else needs, from below.
    dead: Vec<SnapshotId>,
    /// Which b-tree, and from where on.
    at: (usize, Bpos),
}

fn subvol_pos(id: SubvolId) -> Bpos {
    Bpos::new(0, id.0.into(), 0)
}

impl Front<'_> {
    /// Deletes a subvolume with everything in it. Its name goes now; the rest is for [`Front::delete_unlinked_step`]. Objects in it that are
    /// held do not exist any more.
    ///
    /// # Errors
    /// `NotFound`, `NameTooLong`; `Invalid` if the name is not a subvolume's; `NotEmpty` if there are subvolumes in it; `NotPermitted`
    /// unless the caller owns its root, and as for [`Front::unlink`].
    pub fn delete_subvolume(&self, dir: NodeId, name: &[u8], caller: &Caller<'_>) -> Result<()> {
        must_be_name(name)?;
        while !self.change(|op| {
            let mut parent = op.directory(dir)?;
            let entry = op.search_name(&parent, name)?.entry()?;
            if !entry.is_subvol() {
                return Err(Error::Invalid("not a subvolume"));
            }
            op.unlink_subvolume(&mut parent, &entry, false, caller)
        })? {
            self.delete_unlinked()?;
        }
        self.left_something();
        self.names.refresh_snapshots()
    }

    /// Does all that the deletion of subvolumes has left to be done so far.
    pub(crate) fn delete_unlinked(&self) -> Result<()> {
        let mut deletion = Deletion::default();
        while self.delete_unlinked_step(&mut deletion)? {}
        Ok(())
    }

    /// Does a bounded part of what the deletion of subvolumes leaves to be done; false if there is nothing more.
    ///
    /// # Errors
    /// The general ones; what was done stays done.
    pub fn delete_unlinked_step(&self, deletion: &mut Deletion) -> Result<bool> {
        let Some(mut clearing) = deletion.0.take() else {
            deletion.0 = self.next_unlinked()?;
            return Ok(deletion.0.is_some());
        };
        match self.clear_step(&mut clearing)? {
            Cleared::More => {
                deletion.0 = Some(clearing);
                return Ok(true);
            }
            Cleared::ByOthers => return Ok(true),
            Cleared::All => {}
        }
        let Clearing { subvol, dead, .. } = &clearing;
        if self.change(|op| op.forget_descent(*subvol))? {
            deletion.0 = Some(clearing);
            return Ok(true);
        }
        self.deleted_subvol_max.fetch_max(subvol.0, Ordering::Relaxed);
        if self.change(|op| op.finish_deletion(*subvol, dead))? {
            self.names.refresh_snapshots()?;
            // Inodes above may have been kept only for what is gone now.
            self.remove_dead_inodes()?;
        }
        Ok(true)
    }

    /// The first subvolume that is unlinked.
    fn next_unlinked(&self) -> Result<Option<Clearing>> {
        let mut cursor = self.names.btrees.cursor(BtreeId::SUBVOLUMES, ..);
        let mut found = None;
        while let Some(key) = cursor.next()? {
            if let Some((id, record)) = decode(key)
                && record.state() == Some(SubvolumeState::Unlinked)
            {
                found = Some((id, record));
                break;
            }
        }
        drop(cursor);
        let Some((subvol, record)) = found else { return Ok(None) };
        let dead = self.change(|op| op.dead_with(record.snapshot))?;
        Ok(Some(Clearing { subvol, dead, at: (0, Bpos::MIN) }))
    }

    /// Deletes some keys of the dead snapshots.
    fn clear_step(&self, clearing: &mut Clearing) -> Result<Cleared> {
        let Some(&btree) = CLEARED.get(clearing.at.0) else { return Ok(Cleared::All) };
        let dead: BTreeSet<u32> = clearing.dead.iter().map(|id| id.0).collect();
        let mut cursor = self.names.btrees.cursor(btree, clearing.at.1..=Bpos::MAX);
        let (mut keys, mut next) = (Vec::new(), None);
        for _ in 0..LOOKED_AT_MAX {
            let Some(key) = cursor.next()? else {
                next = None;
                break;
            };
            next = key.k.pos.successor();
            if dead.contains(&key.k.pos.snapshot) {
                keys.push(key.k.pos);
            }
            if keys.len() == DELETED_MAX {
                break;
            }
        }
        drop(cursor);
        if !keys.is_empty() {
            // Nobody else changes keys of a snapshot that nobody sees. But somebody else may have deleted it to the end by now, and its id may be
            // that of a new one.
            let deleted = self.change(|op| {
                let some = &keys[..keys.len().min(op.t.keys_max(DELETED_MAX))];
                let is_right = op.is_unlinked_with(clearing.subvol, clearing.dead[0])?;
                if is_right {
                    some.iter().for_each(|pos| op.t.delete(btree, *pos));
                }
                Ok(is_right.then_some(some.len()))
            })?;
            let Some(deleted) = deleted else { return Ok(Cleared::ByOthers) };
            if deleted < keys.len() {
                next = Some(keys[deleted]);
            }
        }
        clearing.at = match next {
            Some(next) => (clearing.at.0, next),
            None => (clearing.at.0 + 1, Bpos::MIN),
        };
        Ok(Cleared::More)
    }
}

/// What a step of deleting keys came to.
enum Cleared {
    /// There may be more.
    More,
    /// There are no more.
    All,
    /// The subvolume is gone already.
    ByOthers,
}

/// The subvolumes in a subvolume.
enum Inside {
    Nothing,
    /// All of them are being deleted.
    Unlinked,
    InUse,
}

/// A subvolume in its key.
fn decode(key: frazil_ondisk::Key<'_>) -> Option<(SubvolId, Subvolume)> {
    let id = u32::try_from(key.k.pos.offset).ok().map(SubvolId)?;
    let record = (key.k.ty == KeyType::SUBVOLUME).then(|| Subvolume::decode(key.value).ok())??;
    Some((id, record))
}

impl Op<'_, '_> {
    /// Takes a subvolume's name and marks it unlinked. False if first those in it that are unlinked have to be deleted to the end.
    pub(crate) fn unlink_subvolume(
        &mut self,
        parent: &mut Object,
        entry: &Entry,
        must_be_empty: bool,
        caller: &Caller<'_>,
    ) -> Result<bool> {
        let mut root = self.target_of(parent, entry)?;
        let subvol = root.place.subvol;
        caller.may_take(&parent.inode, &root.inode)?;
        caller.must_own(&root.inode)?;
        if must_be_empty && !self.is_empty(&root)? {
            return Err(Error::NotEmpty);
        }
        match self.subvolumes_in(subvol)? {
            Inside::Nothing => {}
            Inside::Unlinked => return Ok(false),
            Inside::InUse => return Err(Error::NotEmpty),
        }
        let mut record = root.place.record;
        self.note_unlinked(&root.place);
        record.flags |= Subvolume::UNLINKED;
        self.put_subvolume(subvol, &record);
        self.take_entry(parent, entry)?;
        self.touch_dir(parent);
        let inode: &mut Inode = &mut root.inode;
        inode.ctime = self.now();
        (inode.dir, inode.dir_offset) = (Inum(0), 0);
        self.put(&root);
        self.older_roots_change_hands(&root)?;
        Ok(true)
    }

    /// What subvolumes have their names in a subvolume.
    fn subvolumes_in(&self, subvol: SubvolId) -> Result<Inside> {
        let children = Bpos::new(subvol.0.into(), 0, 0)..Bpos::new(u64::from(subvol.0) + 1, 0, 0);
        let mut cursor = self.t.cursor(BtreeId::SUBVOLUME_CHILDREN, children);
        let mut inside = Inside::Nothing;
        while let Some(key) = cursor.next()? {
            let Ok(child) = u32::try_from(key.k.pos.offset) else { continue };
            if self.find_place(SubvolId(child))?.is_some() {
                return Ok(Inside::InUse);
            }
            inside = Inside::Unlinked;
        }
        Ok(inside)
    }

    /// The snapshot of a subvolume that is to go, and those above that have nothing else below them, from below.
    fn dead_with(&self, leaf: SnapshotId) -> Result<Vec<SnapshotId>> {
        let mut dead = vec![leaf];
        let mut parent = self.get_snapshot(leaf)?.parent;
        while parent.0 != 0 {
            let node = self.get_snapshot(parent)?;
            let other = node.children.iter().any(|child| child.0 != 0 && !dead.contains(child));
            if other || node.flags & Snapshot::SUBVOL != 0 {
                break;
            }
            dead.push(parent);
            parent = node.parent;
        }
        Ok(dead)
    }

    /// Whether the subvolume is still being deleted, and has that snapshot.
    fn is_unlinked_with(&self, subvol: SubvolId, snapshot: SnapshotId) -> Result<bool> {
        let key = self.t.get(BtreeId::SUBVOLUMES, subvol_pos(subvol))?;
        let record = key.and_then(|key| decode(key.key())).map(|(_, record)| record);
        Ok(record.is_some_and(|r| r.state() == Some(SubvolumeState::Unlinked) && r.snapshot == snapshot))
    }

    /// Snapshots of a subvolume that goes are from now on snapshots of what it was a snapshot of. True if it was too many for one transaction.
    fn forget_descent(&mut self, subvol: SubvolId) -> Result<bool> {
        let Some(key) = self.t.get(BtreeId::SUBVOLUMES, subvol_pos(subvol))? else { return Ok(false) };
        let Some((_, gone)) = decode(key.key()) else { return Ok(false) };
        let mut changed = Vec::new();
        let mut cursor = self.t.cursor(BtreeId::SUBVOLUMES, ..);
        while changed.len() < DELETED_MAX
            && let Some(key) = cursor.next()?
        {
            if let Some((id, record)) = decode(key)
                && record.creation_parent == subvol
            {
                changed.push((id, Subvolume { creation_parent: gone.creation_parent, ..record }));
            }
        }
        drop(cursor);
        for (id, record) in &changed {
            self.put_subvolume(*id, record);
        }
        Ok(changed.len() == DELETED_MAX)
    }

    /// The last step: subvolume and snapshots go. False if what is dead has changed since their keys were deleted.
    fn finish_deletion(&mut self, subvol: SubvolId, dead: &[SnapshotId]) -> Result<bool> {
        let Some(key) = self.t.get(BtreeId::SUBVOLUMES, subvol_pos(subvol))? else { return Ok(false) };
        let Some((_, record)) = decode(key.key()) else { return Ok(false) };
        if self.dead_with(record.snapshot)? != dead {
            return Ok(false);
        }
        let &top = dead.last().expect("the subvolume's own snapshot is dead");
        let (node, tree) = (self.get_snapshot(top)?, self.get_snapshot(record.snapshot)?.tree);
        self.t.delete(BtreeId::SUBVOLUMES, subvol_pos(subvol));
        for id in dead {
            self.t.delete(BtreeId::SNAPSHOTS, Bpos::new(0, id.0.into(), 0));
        }
        if node.parent.0 == 0 {
            self.t.delete(BtreeId::SNAPSHOT_TREES, Bpos::new(0, tree.into(), 0));
            return Ok(true);
        }
        let mut above = self.get_snapshot(node.parent)?;
        let rest = above.children.into_iter().find(|child| *child != top).unwrap_or(SnapshotId(0));
        above.children = [rest, SnapshotId(0)];
        self.put_snapshot(node.parent, &above);
        self.choose_master(tree, subvol)?;
        Ok(true)
    }

    /// If the subvolume that goes was the one that is no snapshot of another, the oldest other one of the tree takes its place.
    fn choose_master(&mut self, tree: u32, gone: SubvolId) -> Result<()> {
        let pos = Bpos::new(0, tree.into(), 0);
        let Some(key) = self.t.get(BtreeId::SNAPSHOT_TREES, pos)? else { return Ok(()) };
        let mut value = SnapshotTree::decode(key.key().value)
            .map_err(|e| Error::Io(format!("snapshot tree {tree}: {e}")))?;
        if value.master_subvol != gone {
            return Ok(());
        }
        let mut others = Vec::new();
        let mut cursor = self.t.cursor(BtreeId::SUBVOLUMES, ..);
        while let Some(key) = cursor.next()? {
            others.extend(decode(key));
        }
        drop(cursor);
        // If all others are on their way out too, one of those: the tree stays as long as any of them.
        for state in [SubvolumeState::Live, SubvolumeState::Unlinked] {
            let of_tree = |(_, record): &&(SubvolId, Subvolume)| {
                record.state() == Some(state)
                    && self.get_snapshot(record.snapshot).is_ok_and(|node| node.tree == tree)
            };
            if let Some(&(id, mut record)) = others.iter().find(of_tree) {
                record.flags &= !Subvolume::SNAP;
                self.put_subvolume(id, &record);
                value.master_subvol = id;
                if state == SubvolumeState::Live {
                    self.note_promoted(id);
                }
                self.put_tree(tree, value);
                return Ok(());
            }
        }
        Ok(())
    }
}
