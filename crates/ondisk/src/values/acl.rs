//! POSIX access control lists (spec 40 §6.2).
//!
//! The stored form (version 1, entries of 4 or 8 bytes) differs from the one programs see in the attributes
//! `system.posix_acl_access` and `system.posix_acl_default` (version 2, entries of 8 bytes); [`Acl`] converts
//! between them.

use crate::bytes::{PutLe, Reader};
use crate::error::Result;

/// Whom an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AclTag {
    /// The owner.
    UserObj,
    /// A user by id.
    User(u32),
    /// The owning group.
    GroupObj,
    /// A group by id.
    Group(u32),
    /// Upper bound for all but the owner and others.
    Mask,
    /// Everyone else.
    Other,
}

impl AclTag {
    /// The number on disk and in the attribute.
    const fn raw(self) -> u16 {
        match self {
            AclTag::UserObj => 0x01,
            AclTag::User(_) => 0x02,
            AclTag::GroupObj => 0x04,
            AclTag::Group(_) => 0x08,
            AclTag::Mask => 0x10,
            AclTag::Other => 0x20,
        }
    }

    const fn id(self) -> Option<u32> {
        match self {
            AclTag::User(id) | AclTag::Group(id) => Some(id),
            _ => None,
        }
    }
}

/// What one subject may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AclEntry {
    /// Whom it is about.
    pub tag: AclTag,
    /// Permission bits: 4 read, 2 write, 1 execute.
    pub perm: u16,
}

/// An access control list, in the order stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Acl(pub Vec<AclEntry>);

/// Version of the stored form.
const STORED_VERSION: u32 = 1;
/// Version of the attribute.
const XATTR_VERSION: u32 = 2;
/// The id in attribute entries that have none.
const XATTR_NO_ID: u32 = u32::MAX;

impl Acl {
    /// Decodes the stored form.
    ///
    /// # Errors
    /// If the version is not 1, a tag is unknown or an entry is cut short.
    pub fn decode(bytes: &[u8]) -> Result<Acl> {
        let mut r = Reader::new("acl", bytes);
        let version = r.u32()?;
        if version != STORED_VERSION {
            return Err(r.invalid(format!("version {version}")));
        }
        let mut entries = Vec::with_capacity(r.remaining() / 4);
        while r.remaining() > 0 {
            let raw = r.u16()?;
            let perm = r.u16()?;
            let tag = match raw {
                0x01 => AclTag::UserObj,
                0x02 => AclTag::User(r.u32()?),
                0x04 => AclTag::GroupObj,
                0x08 => AclTag::Group(r.u32()?),
                0x10 => AclTag::Mask,
                0x20 => AclTag::Other,
                _ => return Err(r.invalid(format!("unknown tag {raw:#x}"))),
            };
            entries.push(AclEntry { tag, perm });
        }
        Ok(Acl(entries))
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(STORED_VERSION);
        for e in &self.0 {
            out.put_u16(e.tag.raw());
            out.put_u16(e.perm);
            if let Some(id) = e.tag.id() {
                out.put_u32(id);
            }
        }
    }

    /// Decodes the value of the attribute programs see.
    ///
    /// # Errors
    /// If the version is not 2, a tag is unknown or an entry is cut short.
    pub fn from_xattr(bytes: &[u8]) -> Result<Acl> {
        let mut r = Reader::new("posix acl attribute", bytes);
        let version = r.u32()?;
        if version != XATTR_VERSION {
            return Err(r.invalid(format!("version {version}")));
        }
        let mut entries = Vec::with_capacity(r.remaining() / 8);
        while r.remaining() > 0 {
            let raw = r.u16()?;
            let perm = r.u16()?;
            let id = r.u32()?;
            let tag = match raw {
                0x01 => AclTag::UserObj,
                0x02 => AclTag::User(id),
                0x04 => AclTag::GroupObj,
                0x08 => AclTag::Group(id),
                0x10 => AclTag::Mask,
                0x20 => AclTag::Other,
                _ => return Err(r.invalid(format!("unknown tag {raw:#x}"))),
            };
            entries.push(AclEntry { tag, perm });
        }
        Ok(Acl(entries))
    }

    /// The value of the attribute programs see.
    pub fn to_xattr(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.0.len() * 8);
        out.put_u32(XATTR_VERSION);
        for e in &self.0 {
            out.put_u16(e.tag.raw());
            out.put_u16(e.perm);
            out.put_u32(e.tag.id().unwrap_or(XATTR_NO_ID));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: [u8; 36] = [
        1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 7, 0, 0xe8, 3, 0, 0, 4, 0, 4, 0, 8, 0, 5, 0, 0xd0, 7, 0, 0, 0x10, 0, 7,
        0, 0x20, 0, 4, 0,
    ];

    #[test]
    fn the_example_of_the_specification() {
        let acl = Acl::decode(&EXAMPLE).unwrap();
        let expected = [
            (AclTag::UserObj, 6),
            (AclTag::User(1000), 7),
            (AclTag::GroupObj, 4),
            (AclTag::Group(2000), 5),
            (AclTag::Mask, 7),
            (AclTag::Other, 4),
        ];
        assert_eq!(acl.0, expected.map(|(tag, perm)| AclEntry { tag, perm }));
        let mut out = Vec::new();
        acl.encode(&mut out);
        assert_eq!(out, EXAMPLE);
        assert_eq!(Acl::from_xattr(&acl.to_xattr()).unwrap(), acl);
        assert_eq!(acl.to_xattr().len(), 4 + 6 * 8);
    }

    #[test]
    fn bad_lists_are_refused() {
        assert!(Acl::decode(&EXAMPLE[..34]).is_err());
        assert!(Acl::decode(&[2, 0, 0, 0]).is_err());
        assert!(Acl::decode(&[1, 0, 0, 0, 3, 0, 7, 0]).is_err());
        assert!(Acl::from_xattr(&[2, 0, 0, 0, 1, 0, 7, 0]).is_err());
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(tail in proptest::collection::vec(any::<u8>(), 0..32),
                                                      stored: bool) {
            let bytes = [&[if stored { 1 } else { 2 }, 0, 0, 0][..], &tail].concat();
            if let Ok(acl) = Acl::decode(&bytes) {
                let mut out = Vec::new();
                acl.encode(&mut out);
                prop_assert_eq!(out, bytes);
            } else if let Ok(acl) = Acl::from_xattr(&bytes) {
                prop_assert_eq!(acl.to_xattr().len(), bytes.len());
            }
        }
    }
}
