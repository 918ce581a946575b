//! Making the keys of new objects: inodes, names, extended attributes (spec 40 §2, §5, §6).
//!
//! What an object should be comes as [`NewInode`] and pairs of names and values, in the terms programs use. What is stored is
//! made here, so that a file copied into a new volume and a file made through a mount are the same keys: times
//! relative to the volume's, device numbers packed, access control lists in the format's own form, and whatever does not
//! fit refused before anything is written.
//!
//! Keys are made where they are wanted: a header is returned, and the value appended to memory of the caller, because whoever
//! fills a volume makes millions of them.

use frazil_ondisk::error::DecodeError;
use frazil_ondisk::str_hash::{StrHash, StrHashType};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::time::TimeBase;
use frazil_ondisk::units::{Inum, SnapshotId};
use frazil_ondisk::values::acl::{Acl, AclTag};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget, NAME_BYTES_MAX};
use frazil_ondisk::values::inode::{self, Inode, InodeFlags, InodeOpts, Mode, Rdev};
use frazil_ondisk::values::xattr::{Xattr, XattrType};
use frazil_ondisk::{Bkey, Bpos, KeyType};

use crate::attr::{FileType, Timestamp};

/// An object that is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewInode {
    /// Its type.
    pub kind: FileType,
    /// Permission bits, `07777`.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// (major, minor) of a device node; ignored for everything else.
    pub rdev: (u32, u32),
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// The flags `chattr` sets, as in [`crate::Attr::flags`].
    pub flags: u32,
}

/// Why an object cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The number of a device is too large.
    #[error("device number {major}:{minor} is too large: majors have 12 bits, minors 20")]
    DeviceNumber {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Not a name a file can have.
    #[error("its name cannot be used: {0}")]
    Name(&'static str),
    /// The namespace of an attribute is not one the format has.
    #[error("attributes of this namespace cannot be stored")]
    Namespace,
    /// Name and value of an attribute are too long together.
    #[error("attribute of {0} bytes, name included: at most {max} can be stored", max = Xattr::NAME_AND_VALUE_BYTES_MAX)]
    AttributeTooLong(usize),
    /// The name of an attribute cannot be used.
    #[error("the attribute's name cannot be used")]
    AttributeName,
    /// The value of an access control list is none.
    #[error("the access control list is invalid")]
    AccessControlList,
}

/// What of a volume goes into its new keys.
#[derive(Clone, Copy, Debug)]
pub struct Maker {
    time_base: TimeBase,
    str_hash: StrHashType,
}

impl Maker {
    /// For objects of the volume with this superblock.
    ///
    /// # Errors
    /// If an option of the volume has no meaning.
    pub fn of(superblock: &Superblock) -> Result<Maker, DecodeError> {
        Ok(Maker { time_base: superblock.time_base(), str_hash: superblock.str_hash_type()? })
    }

    /// The inode of a new object without a name, content or links below it (spec 40 §3.2). `seed` is random; the options are
    /// those of the directory it is made in.
    ///
    /// # Errors
    /// If its device number is too large.
    pub fn inode(&self, new: &NewInode, seed: u64, options: InodeOpts) -> Result<Inode, Unfit> {
        let time = |at: Timestamp| self.time_base.from_unix_ns(at.unix_ns());
        let rdev = match new.kind {
            FileType::CharDevice | FileType::BlockDevice => rdev(new.rdev)?,
            _ => Rdev::default(),
        };
        Ok(Inode {
            hash_seed: seed,
            str_hash: self.str_hash.raw(),
            flags: InodeFlags(new.flags & InodeFlags::USER.0),
            mode: Mode::new(inode::FileType(new.kind.to_dtype()), new.perm),
            atime: time(new.atime),
            ctime: time(new.ctime),
            mtime: time(new.mtime),
            otime: time(new.btime),
            uid: new.uid,
            gid: new.gid,
            rdev,
            opts: options,
            ..Inode::default()
        })
    }

    /// The type of hash of new inodes.
    pub fn str_hash_type(&self) -> StrHashType {
        self.str_hash
    }

    /// The hash function of an inode made with that seed.
    pub fn hash(&self, seed: u64) -> StrHash {
        StrHash::new(self.str_hash, seed)
    }
}

/// A device number as it is stored.
///
/// # Errors
/// If it is too large.
pub fn rdev((major, minor): (u32, u32)) -> Result<Rdev, Unfit> {
    Rdev::new(major, minor).ok_or(Unfit::DeviceNumber { major, minor })
}

/// The key of an inode; its value is appended to `value`.
pub fn inode_key(inum: Inum, snapshot: SnapshotId, inode: &Inode, value: &mut Vec<u8>) -> Bkey {
    inode.encode(value);
    Bkey::new(KeyType::INODE_V3, Bpos::new(0, inum.0, snapshot.0), 0)
}

/// Whether a file can have this name.
///
/// # Errors
/// Why not.
pub fn check_name(name: &[u8]) -> Result<(), Unfit> {
    match name {
        b"" => Err(Unfit::Name("it is empty")),
        b"." | b".." => Err(Unfit::Name("it is reserved")),
        _ if name.len() > NAME_BYTES_MAX => Err(Unfit::Name("it is longer than 512 bytes")),
        _ if name.contains(&0) || name.contains(&b'/') => Err(Unfit::Name("it holds a slash or a zero byte")),
        _ => Ok(()),
    }
}

/// The key of a name in a directory, at the slot it was given; its value is appended to `value`. The name passed [`check_name`].
pub fn dirent_key(
    (dir, slot, snapshot): (Inum, u64, SnapshotId),
    name: &[u8],
    (target, kind): (Inum, FileType),
    value: &mut Vec<u8>,
) -> Bkey {
    let ty = inode::FileType(kind.to_dtype());
    Dirent { target: DirentTarget::Inode(target), ty, name, folded: None }.encode(value);
    Bkey::new(KeyType::DIRENT, Bpos::new(dir.0, slot, snapshot.0), 0)
}

/// An extended attribute as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredXattr<'a> {
    ty: XattrType,
    name: &'a [u8],
    value: std::borrow::Cow<'a, [u8]>,
}

impl<'a> StoredXattr<'a> {
    /// An attribute in the terms of programs: its whole name, such as `user.foo`, and its value. `Ok(None)` if there is nothing
    /// to store because the mode says it all: an access control list with entries for owner, group and others only
    /// (spec 40 §6.2).
    ///
    /// # Errors
    /// Why it cannot be stored.
    pub fn new(full_name: &'a [u8], value: &'a [u8]) -> Result<Option<StoredXattr<'a>>, Unfit> {
        let (ty, name) = XattrType::split(full_name).ok_or(Unfit::Namespace)?;
        if name.len() > 255 || name.contains(&0) {
            return Err(Unfit::AttributeName);
        }
        let mut value = std::borrow::Cow::Borrowed(value);
        if ty.is_acl() {
            let acl = Acl::from_xattr(&value).map_err(|_| Unfit::AccessControlList)?;
            if acl.0.is_empty() || (ty == XattrType::ACL_ACCESS && says_no_more_than_a_mode(&acl)) {
                return Ok(None);
            }
            let mut stored = Vec::with_capacity(value.len());
            acl.encode(&mut stored);
            value = stored.into();
        }
        match name.len() + value.len() {
            len if len > Xattr::NAME_AND_VALUE_BYTES_MAX => Err(Unfit::AttributeTooLong(len)),
            _ => Ok(Some(StoredXattr { ty, name, value })),
        }
    }

    /// Where it belongs in the hash table of its inode; a taken slot sends it to the next free one.
    pub fn slot(&self, hash: &StrHash) -> u64 {
        hash.xattr(self.ty.0, self.name)
    }

    /// Appends the value of its key.
    pub fn encode(&self, value: &mut Vec<u8>) {
        Xattr { ty: self.ty, name: self.name, value: &self.value }.encode(value);
    }
}

/// The header of an attribute's key.
pub fn xattr_key(inum: Inum, slot: u64, snapshot: SnapshotId) -> Bkey {
    Bkey::new(KeyType::XATTR, Bpos::new(inum.0, slot, snapshot.0), 0)
}

fn says_no_more_than_a_mode(acl: &Acl) -> bool {
    acl.0.iter().all(|entry| matches!(entry.tag, AclTag::UserObj | AclTag::GroupObj | AclTag::Other))
}

/// Gives the items of a new hash table their slots: each item is a hash and what it is the hash of, and they come out sorted, each hash
/// raised to the slot. An item not at its hash finds all slots from there on taken, so a search meets it (spec 40 §4.3).
pub fn assign_slots<T>(items: &mut [(u64, T)]) {
    items.sort_by_key(|(hash, _)| *hash);
    let mut free = 0;
    for (slot, _) in items {
        *slot = free.max(*slot);
        free = *slot + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL_ACL: [u8; 28] = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255,
        255, 255,
    ];

    #[test]
    fn attributes_that_do_not_fit_are_refused() {
        let made = |name: &str, value: &[u8]| StoredXattr::new(name.as_bytes(), value).map(|x| x.is_some());
        assert_eq!(made("user.a", b"1"), Ok(true));
        assert_eq!(made("system.nfs4_acl", b"1"), Err(Unfit::Namespace));
        assert_eq!(made("user.a", &[0; 1995]), Ok(true));
        assert_eq!(made("user.a", &[0; 1996]), Err(Unfit::AttributeTooLong(1997)));
        assert_eq!(made(&format!("user.{}", "x".repeat(256)), b""), Err(Unfit::AttributeName));
        assert_eq!(made("system.posix_acl_access", b"junk"), Err(Unfit::AccessControlList));
    }

    #[test]
    fn lists_that_repeat_the_mode_are_not_stored() {
        assert_eq!(StoredXattr::new(b"system.posix_acl_access", &MINIMAL_ACL), Ok(None));
        // As a default for new files it says something.
        let default = StoredXattr::new(b"system.posix_acl_default", &MINIMAL_ACL).unwrap().unwrap();
        assert_eq!(&*default.value, [1, 0, 0, 0, 1, 0, 6, 0, 4, 0, 4, 0, 32, 0, 4, 0]);
    }

    #[test]
    fn names_that_break_a_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 513]] {
            assert!(check_name(bad).is_err(), "{}", bad.escape_ascii());
        }
        for good in [&b"..."[..], b"\xff\xfe", &[b'x'; 512], b"a\nb"] {
            assert_eq!(check_name(good), Ok(()));
        }
    }

    #[test]
    fn colliding_items_are_pushed_to_the_next_free_slot() {
        let mut items = [(9, 'd'), (5, 'a'), (5, 'b'), (6, 'c'), (5, 'e')];
        assign_slots(&mut items);
        assert_eq!(items, [(5, 'a'), (6, 'b'), (7, 'e'), (8, 'c'), (9, 'd')]);
    }

    #[test]
    fn device_numbers_have_limits() {
        assert_eq!(rdev((259, 70000)).map(|r| r.0), Ok(271_651_184));
        assert_eq!(rdev((4096, 0)), Err(Unfit::DeviceNumber { major: 4096, minor: 0 }));
        assert_eq!(rdev((0, 1 << 20)), Err(Unfit::DeviceNumber { major: 0, minor: 1 << 20 }));
    }
}
