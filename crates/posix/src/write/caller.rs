//! Who asks for an operation, and what that allows.

use frazil_ondisk::values::inode::{Inode, InodeFlags};

use crate::error::{Error, Result};

/// The sticky bit.
const STICKY: u16 = 0o1000;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller<'a> {
    /// Its user (for files: the filesystem uid).
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups; the adapter may leave them out where it cannot know them and asks itself.
    pub groups: &'a [u32],
    /// Permission bits that new objects do not get, unless a default access control list says what they get.
    pub umask: u16,
    /// It may do what needs a capability: what root may.
    pub privileged: bool,
}

impl Caller<'static> {
    /// Root, with the usual umask.
    pub const ROOT: Caller<'static> = Caller { uid: 0, gid: 0, groups: &[], umask: 0o022, privileged: true };

    /// An ordinary user with one group, and the usual umask.
    pub const fn user(uid: u32, gid: u32) -> Caller<'static> {
        Caller { uid, gid, groups: &[], umask: 0o022, privileged: false }
    }
}

impl Caller<'_> {
    /// Whether it belongs to a group.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Only the owner and the privileged may go on.
    pub(crate) fn must_own(&self, inode: &Inode) -> Result<()> {
        if self.privileged || self.uid == inode.uid {
            Ok(())
        } else {
            Err(Error::NotPermitted("not the owner"))
        }
    }

    /// Whether it keeps the set-group-id bit of a file of that group.
    pub(crate) fn keeps_setgid(&self, gid: u32) -> bool {
        self.privileged || self.is_in_group(gid)
    }

    /// Whether an entry may be taken out of a directory (unlink, rename): the sticky bit, and inodes that do not change.
    pub(crate) fn may_take(&self, dir: &Inode, target: &Inode) -> Result<()> {
        if dir.flags.contains(InodeFlags::APPEND) {
            return Err(Error::NotPermitted("the directory is append-only"));
        }
        let sticky = dir.mode.permissions() & STICKY != 0;
        if sticky && !self.privileged && self.uid != dir.uid && self.uid != target.uid {
            return Err(Error::NotPermitted("the directory is sticky"));
        }
        must_be_mutable(dir)?;
        must_be_mutable(target)?;
        must_not_append_only(target)
    }
}

/// An immutable inode cannot be changed.
pub(crate) fn must_be_mutable(inode: &Inode) -> Result<()> {
    if inode.flags.contains(InodeFlags::IMMUTABLE) {
        return Err(Error::NotPermitted("immutable"));
    }
    Ok(())
}

/// An append-only inode can only get longer.
pub(crate) fn must_not_append_only(inode: &Inode) -> Result<()> {
    if inode.flags.contains(InodeFlags::APPEND) {
        return Err(Error::NotPermitted("append-only"));
    }
    Ok(())
}
