//! New objects: files, directories, devices, symbolic links, and files without a name (spec 40 §3.2, §15).
//!
//! A new inode takes from its directory: the options; the group, if the directory has the set-group-id bit; and what a default access control
//! list says instead of the umask. It is made with everything that belongs to it in one transaction, the target of a short symbolic link included.

use std::sync::Arc;

use frazil_ondisk::values::dirent::DirentTarget;
use frazil_ondisk::values::inode::{FileType as DirentType, Inode, InodeFlags, InodeOpt, InodeOpts};

use super::acl::SETGID;
use super::caller::{Caller, must_be_mutable};
use super::entries::must_be_name;
use super::front::Front;
use super::numbers::Draw;
use super::op::{Object, Op, Place};
use crate::attr::{Attr, FileType, NodeId};
use crate::error::{Error, Result};
use crate::make::NewInode;

/// Longest target of a symbolic link, in bytes (`PATH_MAX` without its zero byte).
const TARGET_BYTES_MAX: usize = 4095;
/// Execution by the group: with set-group-id the two mean what they say.
const GROUP_EXECUTE: u16 = 0o010;

/// What kind of object is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewNode<'a> {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with this target. Its permissions are always all.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, (major, minor).
    CharDevice(u32, u32),
    /// A block device, (major, minor).
    BlockDevice(u32, u32),
}

impl NewNode<'_> {
    fn kind(self) -> FileType {
        match self {
            NewNode::File => FileType::Regular,
            NewNode::Directory => FileType::Directory,
            NewNode::Symlink(_) => FileType::Symlink,
            NewNode::Fifo => FileType::Fifo,
            NewNode::Socket => FileType::Socket,
            NewNode::CharDevice(..) => FileType::CharDevice,
            NewNode::BlockDevice(..) => FileType::BlockDevice,
        }
    }
}

/// The type of an object as entries say it.
pub(crate) fn dirent_type(inode: &Inode) -> DirentType {
    inode.file_type()
}

/// What a new inode takes over from its directory (spec 40 §2.7).
pub(crate) fn inherited(dir: &Inode) -> InodeOpts {
    let mut opts = InodeOpts::default();
    for option in &InodeOpt::ALL[..InodeOpt::COUNT_1_13] {
        opts.set_raw(*option, dir.opts.raw(*option));
    }
    opts
}

impl Front<'_> {
    /// Makes an object with a name. `perm` are the permission bits asked for, `07777`; the umask is the caller's.
    ///
    /// # Errors
    /// `Exists`, `NotDirectory`, `NameTooLong`; `NotFound` in a removed directory; `TooManyLinks`; `Invalid` for a name or a device number that
    /// cannot be; `NotPermitted` in an immutable directory, and for devices if the caller is not privileged.
    pub fn create(
        &self,
        dir: NodeId,
        name: &[u8],
        what: NewNode<'_>,
        perm: u16,
        caller: &Caller<'_>,
    ) -> Result<Attr> {
        must_be_name(name)?;
        if let NewNode::Symlink(target) = what {
            return self.create_symlink(dir, name, target, caller);
        }
        let mut number = self.numbers.draw();
        let attr = self.change(|op| {
            let mut parent = op.directory(dir)?;
            let slot = op.search_name(&parent, name)?.free()?;
            let mut made = op.make((&parent, &parent.place), what, perm, caller, &mut number)?;
            (made.inode.dir, made.inode.dir_offset) = (parent.inum, slot);
            op.put(&made);
            op.put_entry(&parent, slot, name, (DirentTarget::Inode(made.inum), dirent_type(&made.inode)));
            op.gains_entry(&mut parent, &made.inode)?;
            self.names.attr(made.node(), &made.inode)
        })?;
        number.keep();
        Ok(attr)
    }

    /// Makes a regular file without a name, which the caller holds. It is removed when it is released, unless [`Front::link`] gave it a
    /// name, which `linkable` allows (`O_TMPFILE` without `O_EXCL`).
    ///
    /// # Errors
    /// As [`Front::create`].
    pub fn create_nameless(
        &self,
        dir: NodeId,
        perm: u16,
        linkable: bool,
        caller: &Caller<'_>,
    ) -> Result<Attr> {
        let mut number = self.numbers.draw();
        let attr = self.change(|op| {
            let parent = op.directory(dir)?;
            let mut made = op.make((&parent, &parent.place), NewNode::File, perm, caller, &mut number)?;
            made.inode.flags.set(InodeFlags::UNLINKED, true);
            op.put(&made);
            self.names.attr(made.node(), &made.inode)
        })?;
        number.keep();
        self.holds.add_nameless(attr.node, linkable);
        Ok(attr)
    }

    fn create_symlink(&self, dir: NodeId, name: &[u8], target: &[u8], caller: &Caller<'_>) -> Result<Attr> {
        match target.len() {
            0 => return Err(Error::NotFound),
            len if len > TARGET_BYTES_MAX => return Err(Error::NameTooLong),
            _ => {}
        }
        if target.contains(&0) {
            return Err(Error::Invalid("a zero byte in the target"));
        }
        let parent = self.change(|op| op.directory(dir))?;
        let mut number = self.numbers.draw();
        let like = Inode { opts: inherited(&parent.inode), ..Inode::default() };
        let stored = self.store_target(number.number(&self.names.btrees)?, &like, target)?;
        let attr = self.change(|op| {
            let mut parent = op.directory(dir)?;
            let slot = op.search_name(&parent, name)?.free()?;
            let what = NewNode::Symlink(target);
            let mut made = op.make((&parent, &parent.place), what, 0o777, caller, &mut number)?;
            (made.inode.dir, made.inode.dir_offset) = (parent.inum, slot);
            op.put_target(&mut made, &stored)?;
            op.put(&made);
            op.put_entry(&parent, slot, name, (DirentTarget::Inode(made.inum), dirent_type(&made.inode)));
            op.gains_entry(&mut parent, &made.inode)?;
            self.names.attr(made.node(), &made.inode)
        })?;
        number.keep();
        Ok(attr)
    }
}

impl Op<'_, '_> {
    /// A new object in `dir`, written to the snapshot of `place`, with its access control lists but without a name; the caller writes the
    /// inode.
    pub(crate) fn make(
        &mut self,
        (dir, place): (&Object, &Arc<Place>),
        what: NewNode<'_>,
        perm: u16,
        caller: &Caller<'_>,
        number: &mut Draw<'_>,
    ) -> Result<Object> {
        must_be_mutable(&dir.inode)?;
        self.limit(caller);
        let kind = what.kind();
        let rdev = match what {
            NewNode::CharDevice(major, minor) | NewNode::BlockDevice(major, minor) => (major, minor),
            _ => (0, 0),
        };
        let is_device = matches!(kind, FileType::CharDevice | FileType::BlockDevice);
        // (0, 0) is what an overlay takes for "nothing here"; anybody may make it, as in Linux.
        if is_device && !caller.privileged && (kind, rdev) != (FileType::CharDevice, (0, 0)) {
            return Err(Error::NotPermitted("making devices"));
        }
        let dirent_kind = DirentType(kind.to_dtype());
        let (mut perm, acls) = self.inherited_acls(dir, dirent_kind, perm & 0o7777, caller)?;
        let setgid = dir.inode.mode.permissions() & SETGID != 0;
        let gid = if setgid { dir.inode.gid } else { caller.gid };
        if setgid && kind == FileType::Directory {
            perm |= SETGID;
        } else if setgid
            && perm & (SETGID | GROUP_EXECUTE) == SETGID | GROUP_EXECUTE
            && !caller.keeps_setgid(gid)
        {
            perm &= !SETGID;
        }
        let new = NewInode {
            kind,
            perm,
            uid: caller.uid,
            gid,
            rdev,
            atime: self.at,
            mtime: self.at,
            ctime: self.at,
            btime: self.at,
            flags: 0,
        };
        self.fs.must_have_room()?;
        let (inum, generation) = self.new_number(number)?;
        let made = self.fs.maker.inode(&new, self.fs.random(), inherited(&dir.inode));
        let mut inode = made.map_err(|_| Error::Invalid("device number"))?;
        inode.generation = generation;
        let made = Object { place: Arc::clone(place), inum, inode, was: None };
        self.put_acls(&made, &acls)?;
        Ok(made)
    }

    /// The directory has one entry more, for that inode.
    pub(crate) fn gains_entry(&mut self, dir: &mut Object, of: &Inode) -> Result<()> {
        // The root of a subvolume does not count (spec 40 §2.3).
        if of.is_dir() && of.subvol.0 == 0 && !dir.inode.link() {
            return Err(Error::TooManyLinks);
        }
        self.touch_dir(dir);
        Ok(())
    }

    /// The entries of a directory have changed.
    pub(crate) fn touch_dir(&mut self, dir: &mut Object) {
        (dir.inode.mtime, dir.inode.ctime) = (self.now(), self.now());
        self.put(dir);
    }
}
