//! Extended attributes, and the options of inodes that are set through them (spec 40 §2.7, §6.1, §17.2).
//!
//! Setting or removing an attribute is a change of the inode: its ctime moves in the same transaction. Lists of access are attributes
//! with rules of their own ([`super::acl`]); `bcachefs.NAME` is no attribute at all but a field of the inode.

use frazil_ondisk::superblock::options::OptionSpec;
use frazil_ondisk::values::inode::{FileType, Inode, InodeOpt};
use frazil_ondisk::values::xattr::{Xattr, XattrType};
use frazil_ondisk::{Bpos, BtreeId, Key, KeyBuf, KeyType};

use super::caller::{Caller, must_be_mutable, must_not_append_only};
use super::chain::{Searched, Table};
use super::front::Front;
use super::op::{Object, Op};
use crate::attr::NodeId;
use crate::dir::str_hash;
use crate::error::{Error, Result};
use crate::hashed::Probe;
use crate::path::holder;
use crate::xattr::{EFFECTIVE, SET_HERE, xattr};

/// Longest name, prefix included (a limit of Linux).
const NAME_BYTES_MAX: usize = 255;

/// Whether the attribute may, or must, exist already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SetXattr {
    /// Either.
    #[default]
    Any,
    /// It must not (`XATTR_CREATE`).
    Create,
    /// It must (`XATTR_REPLACE`).
    Replace,
}

fn table(object: &Object) -> Table<'_> {
    Table { btree: BtreeId::XATTRS, view: &object.place.view, owner: object.inum }
}

impl Op<'_, '_> {
    fn search_xattr(&self, object: &Object, ty: XattrType, name: &[u8]) -> Result<Searched<Vec<u8>>> {
        let hash = str_hash(object.node(), &object.inode)?.xattr(ty.0, name);
        table(object).search(self, hash, |key| match xattr(key) {
            Some(attr) if attr.ty == ty && attr.name == name => Probe::Found(attr.value.to_vec()),
            _ => Probe::Other,
        })
    }

    /// The stored value of an attribute, and where its key is.
    pub(crate) fn find_xattr(
        &self,
        object: &Object,
        ty: XattrType,
        name: &[u8],
    ) -> Result<Option<(Bpos, Vec<u8>)>> {
        Ok(self.search_xattr(object, ty, name)?.found)
    }

    /// Sets an attribute to a stored value.
    pub(crate) fn put_xattr(
        &mut self,
        object: &Object,
        ty: XattrType,
        name: &[u8],
        value: &[u8],
    ) -> Result<()> {
        if name.len() + value.len() > Xattr::NAME_AND_VALUE_BYTES_MAX {
            return Err(Error::TooLarge("an attribute with its name"));
        }
        let searched = self.search_xattr(object, ty, name)?;
        let slot = searched.found.map(|(pos, _)| pos.offset).or(searched.free);
        let slot = slot.expect("a search that finds nothing ends at a free slot");
        let mut out = Vec::with_capacity(8 + name.len() + value.len());
        Xattr { ty, name, value }.encode(&mut out);
        let pos = object.place.pos(object.inum.0, slot);
        self.t.put(BtreeId::XATTRS, KeyBuf::new(KeyType::XATTR, pos, 0, out));
        Ok(())
    }

    /// Removes an attribute; false if there is none.
    pub(crate) fn remove_xattr(&mut self, object: &Object, ty: XattrType, name: &[u8]) -> Result<bool> {
        let Some((pos, _)) = self.find_xattr(object, ty, name)? else { return Ok(false) };
        let hash = str_hash(object.node(), &object.inode)?;
        // What cannot be read may belong anywhere.
        let hash_of = |key: Key<'_>| Some(xattr(key).map_or(0, |attr| hash.xattr(attr.ty.0, attr.name)));
        table(object).remove(self, pos.offset, hash_of)?;
        Ok(true)
    }

    /// The directory that an object inherits options from.
    fn holder(&self, object: &Object) -> Result<Option<Inode>> {
        let dir = holder(object.node(), &object.inode);
        dir.map(|dir| Ok(self.object(dir)?.inode)).transpose()
    }
}

impl Front<'_> {
    /// Sets an extended attribute. Access control lists come in the kernel's form, options of the inode as text.
    ///
    /// # Errors
    /// `Exists` and `NoAttribute` as `how` demands; `Unsupported` for a namespace the format does not have; `TooLarge` if name or value
    /// are too long; `NotPermitted` for who is not the owner (lists, options) or not privileged (`trusted.`), and for `user.` on anything but
    /// files and directories; `Invalid` for a list or an option that makes no sense.
    pub fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        how: SetXattr,
        caller: &Caller<'_>,
    ) -> Result<()> {
        self.change_xattr(node, name, Some((value, how)), caller)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, and as [`Front::setxattr`].
    pub fn removexattr(&self, node: NodeId, name: &[u8], caller: &Caller<'_>) -> Result<()> {
        self.change_xattr(node, name, None, caller)
    }

    fn change_xattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: Option<(&[u8], SetXattr)>,
        caller: &Caller<'_>,
    ) -> Result<()> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::TooLarge("the name of an attribute"));
        }
        self.change(|op| {
            let mut object = op.writable(node)?;
            must_be_mutable(&object.inode)?;
            must_not_append_only(&object.inode)?;
            if let Some(option) = name.strip_prefix(SET_HERE.as_bytes()) {
                caller.must_own(&object.inode)?;
                op.set_option(&mut object, option, value.map(|v| v.0))?;
            } else if name.starts_with(EFFECTIVE.as_bytes()) {
                // Shows what is inherited; the reference ignores attempts to set it (spec 40 §17.2).
                return Ok(());
            } else {
                op.set_stored(&mut object, name, value, caller)?;
            }
            object.inode.ctime = op.now();
            op.put(&object);
            Ok(())
        })
    }
}

impl Op<'_, '_> {
    /// Sets or removes an attribute that is stored as such.
    fn set_stored(
        &mut self,
        object: &mut Object,
        name: &[u8],
        value: Option<(&[u8], SetXattr)>,
        caller: &Caller<'_>,
    ) -> Result<()> {
        let (ty, short) = XattrType::split(name).ok_or(Error::Unsupported("attributes of this namespace"))?;
        if short.contains(&0) {
            return Err(Error::Invalid("a zero byte in the name of an attribute"));
        }
        let exists = self.find_xattr(object, ty, short)?.is_some();
        match value {
            Some((_, SetXattr::Create)) if exists => return Err(Error::Exists),
            Some((_, SetXattr::Replace)) if !exists => return Err(Error::NoAttribute),
            None if !exists && !ty.is_acl() => return Err(Error::NoAttribute),
            _ => {}
        }
        let kind = object.inode.file_type();
        match ty {
            _ if ty.is_acl() => return self.set_acl(object, ty, value.map(|v| v.0), caller),
            XattrType::TRUSTED if !caller.privileged => {
                return Err(Error::NotPermitted("trusted attributes"));
            }
            XattrType::USER if !matches!(kind, FileType::REG | FileType::DIR) => {
                return Err(Error::NotPermitted("user attributes of special files"));
            }
            XattrType::USER if kind == FileType::DIR && object.inode.mode.permissions() & 0o1000 != 0 => {
                caller.must_own(&object.inode)?;
            }
            _ => {}
        }
        match value {
            Some((value, _)) => {
                self.fs.must_have_room()?;
                self.put_xattr(object, ty, short, value)
            }
            None => self.remove_xattr(object, ty, short).map(|_| ()),
        }
    }

    /// Sets an option on an inode, or lets it have its directory's again (spec 40 §2.7).
    fn set_option(&mut self, object: &mut Object, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let option = std::str::from_utf8(name).ok().and_then(InodeOpt::from_name);
        let option = option.filter(|o| InodeOpt::ALL[..InodeOpt::COUNT_1_13].contains(o));
        let option = option.ok_or(Error::Unsupported("no such option"))?;
        match value {
            Some(text) => {
                let number = self.parse_option(option, text)?;
                object.inode.opts.set(option, Some(number));
                object.inode.fields_set |= option.bit();
            }
            None if object.inode.fields_set & option.bit() == 0 => return Err(Error::NoAttribute),
            None => {
                let inherited = self.holder(object)?.map_or(0, |dir| dir.opts.raw(option));
                object.inode.opts.set_raw(option, inherited);
                object.inode.fields_set &= !option.bit();
            }
        }
        Ok(())
    }

    fn parse_option(&self, option: InodeOpt, text: &[u8]) -> Result<u32> {
        let invalid = Error::Invalid("not a value of this option");
        let Ok(text) = std::str::from_utf8(text) else { return Err(invalid) };
        let is_target = matches!(
            option,
            InodeOpt::PromoteTarget | InodeOpt::ForegroundTarget | InodeOpt::BackgroundTarget
        );
        let number = if is_target {
            let target =
                self.fs.superblock.parse_target(text).map_err(|_| Error::Invalid("no such target"))?;
            target.to_raw().map(u64::from)
        } else {
            OptionSpec::by_name(option.name()).and_then(|spec| spec.parse(text).ok())
        };
        // One is added to the number, and the sum has to fit the field.
        let most = (1 << option.width()) - 2;
        let number = number.filter(|n| *n <= most).and_then(|n| u32::try_from(n).ok());
        number.ok_or(invalid)
    }
}
