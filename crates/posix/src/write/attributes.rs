//! Attributes: `chmod`, `chown`, `utimens`, flags (spec 40 §15; POSIX; Linux `notify_change`).
//!
//! | change | who may | what else follows |
//! |---|---|---|
//! | permissions | owner | the access control list follows; set-group-id goes if the caller is not in the group |
//! | owner | privileged | set-id bits of anything but directories go, and file capabilities |
//! | group | owner, to a group of his | the same |
//! | times, given | owner | |
//! | times, now | whom the adapter lets (owner, or who may write) | |
//! | immutable, append-only | privileged | |
//! | other flags, project | owner | |
//!
//! The privileged may everything. ctime moves in every case. An immutable or append-only inode keeps its attributes.

use frazil_ondisk::values::inode::{FileType, Inode, InodeFlags, InodeOpt, Mode};
use frazil_ondisk::values::xattr::XattrType;

use super::acl::SETGID;
use super::caller::{Caller, must_be_mutable, must_not_append_only};
use super::front::Front;
use super::op::{Object, Op};
use crate::attr::{Attr, NodeId, Timestamp};
use crate::error::{Error, Result};

/// Set-user-id.
const SETUID: u16 = 0o4000;
/// Execution by the group: with set-group-id the two mean what they say.
const GROUP_EXECUTE: u16 = 0o010;
/// The attribute with a file's capabilities, without its prefix `security.`.
const CAPABILITY: &[u8] = b"capability";

/// What a time is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// When it happens.
    Now,
    /// This.
    To(Timestamp),
}

/// Attributes to be changed; `None` leaves one as it is. (The size is not among them: that is a change of the content.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits, `07777`.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// Last change of the inode, if somebody else keeps it (a kernel that caches writes); otherwise it is now.
    pub ctime: Option<Timestamp>,
    /// The flags of [`Attr::flags`].
    pub flags: Option<u32>,
    /// Project id.
    pub project: Option<u32>,
}

impl Front<'_> {
    /// Changes attributes, all or none.
    ///
    /// # Errors
    /// `NotPermitted`, see the table at the [module](self); `Invalid` for flags that are not stored.
    pub fn setattr(&self, node: NodeId, set: &SetAttr, caller: &Caller<'_>) -> Result<Attr> {
        if set.flags.is_some_and(|flags| flags & !InodeFlags::USER.0 != 0) {
            return Err(Error::Unsupported("flags that are not stored"));
        }
        if set.project.is_some_and(|project| project == u32::MAX) {
            return Err(Error::Invalid("project id"));
        }
        if self.holds.remains(node).is_some() {
            // A removed directory that is held: nobody will see its attributes again.
            return self.getattr(node);
        }
        self.change(|op| {
            let mut object = op.writable(node)?;
            must_be_allowed(&object.inode, set, caller)?;
            op.limit(caller);
            op.set_owner(&mut object, set, caller)?;
            op.set_permissions(&mut object, set, caller)?;
            op.set_times(&mut object.inode, set);
            set_flags(&mut object.inode, set);
            op.put(&object);
            self.names.attr(node, &object.inode)
        })
    }
}

fn must_be_allowed(inode: &Inode, set: &SetAttr, caller: &Caller<'_>) -> Result<()> {
    let given = |time: Option<SetTime>| matches!(time, Some(SetTime::To(_)));
    let touched = set.atime.is_some() || set.mtime.is_some();
    let attributes = set.perm.is_some() || set.uid.is_some() || set.gid.is_some();
    if attributes || given(set.atime) || given(set.mtime) {
        must_be_mutable(inode)?;
        must_not_append_only(inode)?;
    } else if touched {
        must_be_mutable(inode)?;
    }
    let for_owner = set.perm.is_some() || set.flags.is_some() || set.project.is_some();
    if for_owner || given(set.atime) || given(set.mtime) {
        caller.must_own(inode)?;
    }
    if let Some(uid) = set.uid
        && !(caller.privileged || caller.uid == inode.uid && uid == inode.uid)
    {
        return Err(Error::NotPermitted("giving files away"));
    }
    if let Some(gid) = set.gid
        && !(caller.privileged || caller.uid == inode.uid && (gid == inode.gid || caller.is_in_group(gid)))
    {
        return Err(Error::NotPermitted("a group the caller is not in"));
    }
    if let Some(flags) = set.flags {
        let guarded = (InodeFlags::IMMUTABLE | InodeFlags::APPEND).0;
        if (inode.flags.0 ^ flags) & guarded != 0 && !caller.privileged {
            return Err(Error::NotPermitted("immutable and append-only are for the privileged"));
        }
    }
    Ok(())
}

fn set_flags(inode: &mut Inode, set: &SetAttr) {
    if let Some(flags) = set.flags {
        inode.flags.0 = inode.flags.0 & !InodeFlags::USER.0 | flags;
    }
    if let Some(project) = set.project {
        inode.opts.set(InodeOpt::Project, Some(project));
        inode.fields_set |= InodeOpt::Project.bit();
    }
}

/// Takes set-id bits away because somebody changes a file's content or owner; true if there were any. `keeps_setgid` says whether the caller would
/// keep a set-group-id bit that does not go with execution.
pub(crate) fn drop_set_id(inode: &mut Inode, keeps_setgid: bool) -> bool {
    if inode.is_dir() {
        return false;
    }
    let old = inode.mode.permissions();
    let mut permissions = old & !SETUID;
    if permissions & GROUP_EXECUTE != 0 || !keeps_setgid {
        permissions &= !SETGID;
    }
    inode.mode = Mode::new(inode.file_type(), permissions);
    permissions != old
}

impl Op<'_, '_> {
    fn set_owner(&mut self, object: &mut Object, set: &SetAttr, caller: &Caller<'_>) -> Result<()> {
        if set.uid.is_none() && set.gid.is_none() {
            return Ok(());
        }
        let keeps = caller.keeps_setgid(object.inode.gid);
        object.inode.uid = set.uid.unwrap_or(object.inode.uid);
        object.inode.gid = set.gid.unwrap_or(object.inode.gid);
        drop_set_id(&mut object.inode, keeps);
        self.drop_capabilities(object)
    }

    /// A file whose content or owner changes is trusted no more.
    pub(crate) fn drop_capabilities(&mut self, object: &Object) -> Result<()> {
        if object.inode.file_type() == FileType::REG {
            self.remove_xattr(object, XattrType::SECURITY, CAPABILITY)?;
        }
        Ok(())
    }

    fn set_permissions(&mut self, object: &mut Object, set: &SetAttr, caller: &Caller<'_>) -> Result<()> {
        let Some(perm) = set.perm else { return Ok(()) };
        if object.inode.file_type() == FileType::LNK {
            return Err(Error::Unsupported("permissions of symbolic links"));
        }
        let keeps = caller.keeps_setgid(object.inode.gid);
        let perm = if keeps { perm } else { perm & !SETGID };
        object.inode.mode = Mode::new(object.inode.file_type(), perm);
        self.acl_follows_mode(object)
    }

    fn set_times(&mut self, inode: &mut Inode, set: &SetAttr) {
        let time = |op: &Self, set: SetTime| match set {
            SetTime::Now => op.now(),
            SetTime::To(time) => op.stored(time),
        };
        if let Some(set) = set.atime {
            inode.atime = time(self, set);
        }
        if let Some(set) = set.mtime {
            inode.mtime = time(self, set);
        }
        inode.ctime = set.ctime.map_or_else(|| self.now(), |ctime| self.stored(ctime));
    }
}
