//! Extended attributes (spec 40 §6, §17.2).
//!
//! Two kinds share the interface. *Stored* attributes are a hash table of their own, keyed like a directory. Access control lists are
//! among them in a form of the format's own, and are shown in the form the kernel knows (spec 40 §6.2).
//!
//! The others show the options of an inode: `bcachefs.NAME` where the option was set on this very inode, and
//! `bcachefs_effective.NAME` also where it was inherited. Nothing is stored for them but fields of the inode.

use std::ops::ControlFlow;

use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::options::{OptionSpec, Target};
use frazil_ondisk::values::acl::Acl;
use frazil_ondisk::values::inode::{Inode, InodeOpt};
use frazil_ondisk::values::xattr::{Xattr, XattrType};
use frazil_ondisk::{BtreeId, Key, KeyType};

use crate::attr::NodeId;
use crate::dir::str_hash;
use crate::error::{Error, Result};
use crate::hashed::{self, OnDamage, Probe};
use crate::namespace::Namespace;

/// In front of the name of an option that was set on the inode.
pub(crate) const SET_HERE: &str = "bcachefs.";
/// In front of the name of an option that applies to the inode, wherever it was set.
pub(crate) const EFFECTIVE: &str = "bcachefs_effective.";

impl Namespace {
    /// The value of an attribute.
    pub(crate) fn getxattr(&self, superblock: &Superblock, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let (subvol, inode) = self.object(node)?;
        for (prefix, set_here) in [(SET_HERE, true), (EFFECTIVE, false)] {
            if let Some(option) = name.strip_prefix(prefix.as_bytes()) {
                let option = std::str::from_utf8(option).ok().and_then(InodeOpt::from_name);
                let option = option.filter(|option| applies(&inode, *option, set_here));
                return option
                    .map(|o| option_text(superblock, &inode, o).into_bytes())
                    .ok_or(Error::NoAttribute);
            }
        }
        let (ty, stored_name) = XattrType::split(name).ok_or(Error::NoAttribute)?;
        let slot = str_hash(node, &inode)?.xattr(ty.0, stored_name);
        let found = hashed::find(&self.btrees, BtreeId::XATTRS, &subvol.view, node.inum, slot, |key| {
            match xattr(key) {
                Some(attr) if attr.ty == ty && attr.name == stored_name => {
                    Probe::Found(shown_value(node, &attr))
                }
                _ => Probe::Other,
            }
        })?;
        found.unwrap_or(Err(Error::NoAttribute))
    }

    /// The names of all attributes: the stored ones in the order of their hashes, then those of options.
    pub(crate) fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let (subvol, inode) = self.object(node)?;
        let mut names = Vec::new();
        hashed::scan(&self.btrees, BtreeId::XATTRS, &subvol.view, node.inum, 0, OnDamage::Stop, |key| {
            if let Some(attr) = xattr(key)
                && let Some(prefix) = attr.ty.prefix()
            {
                names.push([prefix.as_bytes(), attr.name].concat());
            }
            ControlFlow::Continue(())
        })?;
        for (prefix, set_here) in [(SET_HERE, true), (EFFECTIVE, false)] {
            let options = InodeOpt::ALL.into_iter().filter(|option| applies(&inode, *option, set_here));
            names.extend(options.map(|option| format!("{prefix}{}", option.name()).into_bytes()));
        }
        Ok(names)
    }
}

/// The attribute in a key, if it is one.
pub(crate) fn xattr(key: Key<'_>) -> Option<Xattr<'_>> {
    (key.k.ty == KeyType::XATTR).then(|| Xattr::decode(key.value).ok())?
}

/// The value as programs see it.
fn shown_value(node: NodeId, attr: &Xattr<'_>) -> Result<Vec<u8>> {
    if !attr.ty.is_acl() {
        return Ok(attr.value.to_vec());
    }
    let acl = Acl::decode(attr.value)
        .map_err(|e| Error::Io(format!("inode {node}: the access control list cannot be decoded: {e}")))?;
    Ok(acl.to_xattr())
}

/// Whether an inode has an option: set on itself, or at all.
fn applies(inode: &Inode, option: InodeOpt, set_here: bool) -> bool {
    if set_here { inode.fields_set & option.bit() != 0 } else { inode.opts.get(option).is_some() }
}

/// The value of an option as text. What was explicitly set to nothing reads as the volume's own option.
fn option_text(superblock: &Superblock, inode: &Inode, option: InodeOpt) -> String {
    let spec = OptionSpec::by_name(option.name());
    let inherited = || spec.map_or(0, |spec| superblock.option(spec));
    let value = inode.opts.get(option).map_or_else(inherited, u64::from);
    let is_target =
        matches!(option, InodeOpt::PromoteTarget | InodeOpt::ForegroundTarget | InodeOpt::BackgroundTarget);
    match spec {
        // The field has 16 bits.
        _ if is_target => {
            let target = Target::from_raw(value as u16);
            superblock.target_name(target).unwrap_or_else(|_| value.to_string())
        }
        Some(spec) => spec.format(value),
        None => value.to_string(),
    }
}
