//! Names of objects that exist: `link`, `unlink`, `rmdir` (spec 40 §2.3, §3.7, §15).
//!
//! A file that loses its last name stays as an unlinked inode until nobody holds it; a directory is removed with its last name, inode and all.

use frazil_ondisk::units::Inum;
use frazil_ondisk::values::dirent::DirentTarget;
use frazil_ondisk::values::inode::{Inode, InodeFlags, InodeOpt};

use super::caller::{Caller, must_be_mutable, must_not_append_only};
use super::create::dirent_type;
use super::entries::{Entry, must_be_name};
use super::front::Front;
use super::op::{Object, Op};
use crate::attr::{Attr, NodeId};
use crate::error::{Error, Result};

/// Gives an inode the options of the directory it comes into, but for those set on itself; true if that changes any (spec 40 §2.7).
pub(crate) fn reinherit(inode: &mut Inode, dir: &Inode) -> bool {
    let mut changed = false;
    for &option in &InodeOpt::ALL[..InodeOpt::COUNT_1_13] {
        if inode.fields_set & option.bit() == 0 && inode.opts.raw(option) != dir.opts.raw(option) {
            inode.opts.set_raw(option, dir.opts.raw(option));
            changed = true;
        }
    }
    changed
}

impl Front<'_> {
    /// Gives an object, not a directory, one more name.
    ///
    /// # Errors
    /// `Exists`, `NotDirectory`, `NameTooLong`; `CrossesBorder` into another subvolume or a directory with other options;
    /// `NotPermitted` for directories and immutable objects; `TooManyLinks`; `NotFound` if its last name is gone.
    pub fn link(&self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<Attr> {
        must_be_name(name)?;
        let attr = self.change(|op| {
            let mut parent = op.directory(dir)?;
            let slot = op.search_name(&parent, name)?.free()?;
            if node.subvol != dir.subvol {
                return Err(Error::CrossesBorder);
            }
            let mut target = op.writable(node)?;
            if target.inode.is_dir() {
                return Err(Error::NotPermitted("links to directories"));
            }
            must_be_mutable(&parent.inode)?;
            must_be_mutable(&target.inode)?;
            must_not_append_only(&target.inode)?;
            self.must_have_room()?;
            if target.inode.flags.contains(InodeFlags::UNLINKED) && !self.holds.is_linkable(node) {
                return Err(Error::NotFound);
            }
            if reinherit(&mut target.inode, &parent.inode) {
                return Err(Error::CrossesBorder);
            }
            if !target.inode.link() {
                return Err(Error::TooManyLinks);
            }
            target.inode.ctime = op.now();
            (target.inode.dir, target.inode.dir_offset) = (parent.inum, slot);
            op.put(&target);
            op.put_entry(&parent, slot, name, (DirentTarget::Inode(target.inum), dirent_type(&target.inode)));
            op.touch_dir(&mut parent);
            self.names.attr(node, &target.inode)
        })?;
        self.holds.named(node);
        Ok(attr)
    }

    /// Takes a name from an object that is not a directory.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `NotDirectory`, `NameTooLong`; `NotPermitted` if the directory is sticky and the caller owns neither, and for
    /// immutable and append-only ones.
    pub fn unlink(&self, dir: NodeId, name: &[u8], caller: &Caller<'_>) -> Result<()> {
        must_be_name(name)?;
        let gone = self.change(|op| {
            let mut parent = op.directory(dir)?;
            let entry = op.search_name(&parent, name)?.entry()?;
            let DirentTarget::Inode(inum) = entry.target else { return Err(Error::IsDirectory) };
            let mut target = op.referred(&parent.place, inum)?;
            caller.may_take(&parent.inode, &target.inode)?;
            if target.inode.is_dir() {
                return Err(Error::IsDirectory);
            }
            op.take_entry(&parent, &entry)?;
            op.loses_name(&mut target, &parent, &entry);
            op.touch_dir(&mut parent);
            Ok(target.inode.flags.contains(InodeFlags::UNLINKED).then(|| target.node()))
        })?;
        self.after_last_name(gone);
        Ok(())
    }

    /// Removes an empty directory, or an empty subvolume.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, `NameTooLong`; `NotPermitted` as for [`Front::unlink`].
    pub fn rmdir(&self, dir: NodeId, name: &[u8], caller: &Caller<'_>) -> Result<()> {
        must_be_name(name)?;
        loop {
            let removed = self.change(|op| {
                let mut parent = op.directory(dir)?;
                let entry = op.search_name(&parent, name)?.entry()?;
                let DirentTarget::Inode(inum) = entry.target else {
                    let unlinked = op.unlink_subvolume(&mut parent, &entry, true, caller)?;
                    return Ok(if unlinked { Removed::Subvolume } else { Removed::BlockedByUnlinked });
                };
                let target = op.referred(&parent.place, inum)?;
                caller.may_take(&parent.inode, &target.inode)?;
                if !target.inode.is_dir() {
                    return Err(Error::NotDirectory);
                }
                if !op.remove_directory(&target)? {
                    return Ok(Removed::Partly);
                }
                op.take_entry(&parent, &entry)?;
                op.loses_directory(&mut parent);
                op.touch_dir(&mut parent);
                Ok(Removed::Directory(Box::new(target)))
            })?;
            match removed {
                Removed::Directory(target) => self.after_directory(&target),
                Removed::Subvolume => {
                    self.left_something();
                    self.names.refresh_snapshots()?;
                }
                Removed::Partly => continue,
                Removed::BlockedByUnlinked => {
                    self.delete_unlinked()?;
                    continue;
                }
            }
            return Ok(());
        }
    }

    /// An inode has lost its last name: it is removed unless somebody holds it.
    pub(crate) fn after_last_name(&self, gone: Option<NodeId>) {
        if let Some(node) = gone
            && !self.holds.unnamed(node)
        {
            self.remove_soon(node);
        }
    }
}

/// What one transaction of `rmdir` did.
enum Removed {
    Directory(Box<Object>),
    Subvolume,
    /// Nothing: subvolumes in it have lost their names but are not deleted yet.
    BlockedByUnlinked,
    /// Some of what the directory leaves behind.
    Partly,
}

impl Op<'_, '_> {
    /// An inode loses the name of that entry.
    pub(crate) fn loses_name(&mut self, target: &mut Object, dir: &Object, entry: &Entry) {
        let inode = &mut target.inode;
        inode.unlink();
        inode.ctime = self.now();
        let is_the_one = (inode.dir, inode.dir_offset) == (dir.inum, entry.pos.offset);
        if is_the_one || inode.flags.contains(InodeFlags::UNLINKED) {
            (inode.dir, inode.dir_offset) = (Inum(0), 0);
        }
        self.put(target);
    }

    /// A directory has one directory less in it.
    pub(crate) fn loses_directory(&mut self, dir: &mut Object) {
        dir.inode.nlink_raw = dir.inode.nlink_raw.saturating_sub(1);
    }

    /// Removes an empty directory but for its entry. False if it left behind so much that only a part of that has gone, which has to be
    /// committed first; nothing shows of it.
    ///
    /// # Errors
    /// [`Error::NotEmpty`].
    pub(crate) fn remove_directory(&mut self, dir: &Object) -> Result<bool> {
        if !self.is_empty(dir)? {
            return Err(Error::NotEmpty);
        }
        if !self.clear_tables(&dir.place.view, dir.inum)? {
            return Ok(false);
        }
        self.remove_inode(dir.place.pos(0, dir.inum.0), &dir.inode);
        self.note(dir, None);
        Ok(true)
    }
}
