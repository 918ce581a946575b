//! Access control lists: what they do to modes, and modes to them (spec 40 §6.2).
//!
//! A list that says no more than a mode is not stored. One that says more and the mode keep each other's owner, group and other bits: the
//! mode's group bits are the list's mask. A directory's default list is what new objects in it get instead of the umask.
//!
//! The functions here are the rules of POSIX.1e draft 17 as Linux has them, on lists in memory.

use frazil_ondisk::values::acl::{Acl, AclEntry, AclTag};
use frazil_ondisk::values::inode::{FileType, Mode};
use frazil_ondisk::values::xattr::XattrType;

use super::caller::Caller;
use super::op::{Object, Op};
use crate::error::{Error, Result};

/// The permission bits of owner, group and others.
const PERMISSIONS: u16 = 0o777;
/// Set-group-id.
pub(crate) const SETGID: u16 = 0o2000;

/// Whether a list has the entries it must have, in their order.
pub(crate) fn is_valid(acl: &Acl) -> bool {
    let rank = |tag: AclTag| match tag {
        AclTag::UserObj => 0,
        AclTag::User(_) => 1,
        AclTag::GroupObj => 2,
        AclTag::Group(_) => 3,
        AclTag::Mask => 4,
        AclTag::Other => 5,
    };
    let count = |wanted: u8| acl.0.iter().filter(|e| rank(e.tag) == wanted).count();
    let needs_mask = count(1) + count(3) > 0;
    let no_id = |e: &AclEntry| matches!(e.tag, AclTag::User(u32::MAX) | AclTag::Group(u32::MAX));
    acl.0.is_sorted_by_key(|e| rank(e.tag))
        && acl.0.iter().all(|e| e.perm <= 7 && !no_id(e))
        && (count(0), count(2), count(5)) == (1, 1, 1)
        && (count(4) == 1 || count(4) == 0 && !needs_mask)
}

/// The permissions a valid list stands for, and whether it says no more than them.
pub(crate) fn as_permissions(acl: &Acl) -> (u16, bool) {
    let (mut bits, mut equivalent, mut mask) = (0, true, None);
    for entry in &acl.0 {
        match entry.tag {
            AclTag::UserObj => bits |= entry.perm << 6,
            AclTag::GroupObj => bits |= entry.perm << 3,
            AclTag::Other => bits |= entry.perm,
            AclTag::Mask => (mask, equivalent) = (Some(entry.perm), false),
            AclTag::User(_) | AclTag::Group(_) => equivalent = false,
        }
    }
    if let Some(mask) = mask {
        bits = bits & !0o070 | mask << 3;
    }
    (bits, equivalent)
}

/// The entry that the mode's group bits are kept in: the mask, or the group's if there is none.
fn group_class(acl: &mut Acl) -> Option<&mut AclEntry> {
    let has_mask = acl.0.iter().any(|e| e.tag == AclTag::Mask);
    let wanted = if has_mask { AclTag::Mask } else { AclTag::GroupObj };
    acl.0.iter_mut().find(|e| e.tag == wanted)
}

/// `chmod`: the list follows the mode.
pub(crate) fn follow_mode(acl: &mut Acl, permissions: u16) {
    if let Some(entry) = group_class(acl) {
        entry.perm = permissions >> 3 & 7;
    }
    for entry in &mut acl.0 {
        match entry.tag {
            AclTag::UserObj => entry.perm = permissions >> 6 & 7,
            AclTag::Other => entry.perm = permissions & 7,
            _ => {}
        }
    }
}

/// What a new object gets from a default list when it is made with these permissions: what of them remains, with the list
/// cut to it.
pub(crate) fn inherit(acl: &mut Acl, permissions: u16) -> u16 {
    let mut remains = permissions & PERMISSIONS;
    let mut cut = |perm: &mut u16, shift: u16| {
        *perm &= remains >> shift & 7;
        remains &= *perm << shift | !(7 << shift);
    };
    for entry in &mut acl.0 {
        match entry.tag {
            AclTag::UserObj => cut(&mut entry.perm, 6),
            AclTag::Other => cut(&mut entry.perm, 0),
            _ => {}
        }
    }
    if let Some(entry) = group_class(acl) {
        cut(&mut entry.perm, 3);
    }
    permissions & !PERMISSIONS | remains
}

/// The lists a new object gets.
#[derive(Default)]
pub(crate) struct NewAcls {
    pub(crate) access: Option<Acl>,
    pub(crate) default: Option<Acl>,
}

impl Op<'_, '_> {
    /// A stored list of an inode.
    pub(crate) fn acl(&self, object: &Object, which: XattrType) -> Result<Option<Acl>> {
        let Some((_, stored)) = self.find_xattr(object, which, b"")? else { return Ok(None) };
        let acl = Acl::decode(&stored);
        acl.map(Some).map_err(|e| Error::Io(format!("inode {}: access control list: {e}", object.node())))
    }

    /// What a new object in `dir` gets instead of the permissions it was asked to have.
    pub(crate) fn inherited_acls(
        &self,
        dir: &Object,
        kind: FileType,
        permissions: u16,
        caller: &Caller<'_>,
    ) -> Result<(u16, NewAcls)> {
        if kind == FileType::LNK {
            return Ok((permissions, NewAcls::default()));
        }
        let Some(default) = self.acl(dir, XattrType::ACL_DEFAULT)? else {
            return Ok((permissions & !(caller.umask & PERMISSIONS), NewAcls::default()));
        };
        let mut access = default.clone();
        let permissions = inherit(&mut access, permissions);
        let access = (!as_permissions(&access).1).then_some(access);
        let default = (kind == FileType::DIR).then_some(default);
        Ok((permissions, NewAcls { access, default }))
    }

    /// Stores the lists of a new object.
    pub(crate) fn put_acls(&mut self, object: &Object, acls: &NewAcls) -> Result<()> {
        let lists = [(XattrType::ACL_ACCESS, &acls.access), (XattrType::ACL_DEFAULT, &acls.default)];
        for (which, acl) in lists {
            if let Some(acl) = acl {
                self.put_acl(object, which, acl)?;
            }
        }
        Ok(())
    }

    pub(crate) fn put_acl(&mut self, object: &Object, which: XattrType, acl: &Acl) -> Result<()> {
        let mut stored = Vec::with_capacity(4 + 8 * acl.0.len());
        acl.encode(&mut stored);
        self.put_xattr(object, which, b"", &stored)
    }

    /// The list follows new permissions of the mode.
    pub(crate) fn acl_follows_mode(&mut self, object: &Object) -> Result<()> {
        let Some(mut acl) = self.acl(object, XattrType::ACL_ACCESS)? else { return Ok(()) };
        follow_mode(&mut acl, object.inode.mode.permissions());
        self.put_acl(object, XattrType::ACL_ACCESS, &acl)
    }

    /// Sets or removes one of the lists, in the form programs use; `None` removes. The mode follows; the caller writes the inode.
    pub(crate) fn set_acl(
        &mut self,
        object: &mut Object,
        which: XattrType,
        value: Option<&[u8]>,
        caller: &Caller<'_>,
    ) -> Result<()> {
        let kind = object.inode.file_type();
        if kind == FileType::LNK {
            return Err(Error::Unsupported("access control lists of symbolic links"));
        }
        caller.must_own(&object.inode)?;
        let acl = match value {
            None => None,
            Some(value) => {
                Some(Acl::from_xattr(value).map_err(|_| Error::Invalid("no access control list"))?)
                    .filter(|acl| !acl.0.is_empty())
            }
        };
        if let Some(acl) = &acl
            && !is_valid(acl)
        {
            return Err(Error::Invalid("an access control list with missing or misplaced entries"));
        }
        let mut store = acl.as_ref();
        if which == XattrType::ACL_DEFAULT {
            if kind != FileType::DIR {
                return if acl.is_some() { Err(Error::AccessDenied) } else { Ok(()) };
            }
        } else if let Some(acl) = &acl {
            let (bits, equivalent) = as_permissions(acl);
            let mut permissions = object.inode.mode.permissions() & !PERMISSIONS | bits;
            if !caller.keeps_setgid(object.inode.gid) {
                permissions &= !SETGID;
            }
            object.inode.mode = Mode::new(kind, permissions);
            store = store.filter(|_| !equivalent);
        }
        match store {
            Some(acl) => self.put_acl(object, which, acl),
            None => self.remove_xattr(object, which, b"").map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(AclTag, u16)]) -> Acl {
        Acl(entries.iter().map(|&(tag, perm)| AclEntry { tag, perm }).collect())
    }

    #[test]
    fn lists_must_be_complete_and_in_order() {
        use AclTag::*;
        assert!(is_valid(&acl(&[(UserObj, 7), (GroupObj, 5), (Other, 0)])));
        assert!(is_valid(&acl(&[(UserObj, 7), (User(5), 6), (GroupObj, 5), (Mask, 7), (Other, 0)])));
        assert!(!is_valid(&acl(&[(UserObj, 7), (User(5), 6), (GroupObj, 5), (Other, 0)])), "no mask");
        assert!(!is_valid(&acl(&[(UserObj, 7), (Other, 0)])), "no group");
        assert!(!is_valid(&acl(&[(GroupObj, 5), (UserObj, 7), (Other, 0)])), "order");
        assert!(!is_valid(&acl(&[(UserObj, 8), (GroupObj, 5), (Other, 0)])), "no such permission");
        assert!(!is_valid(&acl(&[(UserObj, 7), (User(u32::MAX), 6), (GroupObj, 5), (Mask, 7), (Other, 0)])));
    }

    #[test]
    fn modes_and_lists_follow_each_other() {
        use AclTag::*;
        let mut list = acl(&[(UserObj, 6), (User(5), 7), (GroupObj, 4), (Mask, 5), (Other, 0)]);
        assert_eq!(as_permissions(&list), (0o650, false));
        assert_eq!(as_permissions(&acl(&[(UserObj, 6), (GroupObj, 4), (Other, 1)])), (0o641, true));
        follow_mode(&mut list, 0o4712);
        assert_eq!(list, acl(&[(UserObj, 7), (User(5), 7), (GroupObj, 4), (Mask, 1), (Other, 2)]));
    }

    #[test]
    fn new_objects_get_what_both_allow() {
        use AclTag::*;
        let mut list = acl(&[(UserObj, 7), (User(5), 7), (GroupObj, 7), (Mask, 7), (Other, 5)]);
        assert_eq!(inherit(&mut list, 0o4640), 0o4640);
        assert_eq!(list, acl(&[(UserObj, 6), (User(5), 7), (GroupObj, 7), (Mask, 4), (Other, 0)]));
        let mut plain = acl(&[(UserObj, 6), (GroupObj, 4), (Other, 4)]);
        assert_eq!(inherit(&mut plain, 0o777), 0o644);
    }
}
