//! Extended attributes (spec 40 §6.1).
//!
//! Attributes of an inode are a hash table like the entries of a directory; the hash covers the type byte and the
//! name without its prefix.

use super::problem::{Check, ensure};
use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;

/// Namespace of an attribute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct XattrType(pub u8);

impl XattrType {
    /// `user.`
    pub const USER: XattrType = XattrType(0);
    /// `system.posix_acl_access`, which has no further name.
    pub const ACL_ACCESS: XattrType = XattrType(1);
    /// `system.posix_acl_default`, which has no further name.
    pub const ACL_DEFAULT: XattrType = XattrType(2);
    /// `trusted.`
    pub const TRUSTED: XattrType = XattrType(3);
    /// `security.`
    pub const SECURITY: XattrType = XattrType(4);

    const PREFIXES: [&str; 5] =
        ["user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", "security."];

    /// What stands before the stored name; the whole name for the two ACLs; `None` for an unknown type.
    pub fn prefix(self) -> Option<&'static str> {
        Self::PREFIXES.get(usize::from(self.0)).copied()
    }

    /// It is one of the two ACLs, whose value is an [`super::acl::Acl`].
    pub fn is_acl(self) -> bool {
        matches!(self, XattrType::ACL_ACCESS | XattrType::ACL_DEFAULT)
    }

    /// Splits a full name such as `user.foo` into type and stored name; `None` if it belongs to no type.
    pub fn split(full: &[u8]) -> Option<(XattrType, &[u8])> {
        (0..Self::PREFIXES.len() as u8).map(XattrType).find_map(|ty| {
            let rest = full.strip_prefix(Self::PREFIXES[usize::from(ty.0)].as_bytes())?;
            (ty.is_acl() == rest.is_empty()).then_some((ty, rest))
        })
    }
}

/// An extended attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xattr<'a> {
    /// Namespace.
    pub ty: XattrType,
    /// Name without the prefix, at most 255 bytes.
    pub name: &'a [u8],
    /// Value; for the two ACL types an encoded [`super::acl::Acl`].
    pub value: &'a [u8],
}

impl<'a> Xattr<'a> {
    /// Name and value together may not be longer, or the key would exceed 255 words.
    pub const NAME_AND_VALUE_BYTES_MAX: usize = crate::bkey::VALUE_U64S_MAX * 8 - 4;
    /// Words of slack old writers left behind the value; readers accept them (spec 40 §6.1).
    const SLACK_BYTES: usize = 4;

    /// Decodes the value.
    ///
    /// # Errors
    /// If name and value do not fit the bytes.
    pub fn decode(value: &'a [u8]) -> Result<Xattr<'a>> {
        let mut r = Reader::new("xattr", value);
        let ty = XattrType(r.u8()?);
        let name_len = usize::from(r.u8()?);
        let value_len = usize::from(r.u16()?);
        Ok(Xattr { ty, name: r.bytes(name_len)?, value: r.bytes(value_len)? })
    }

    /// Words of the encoded value.
    pub fn value_u64s(&self) -> usize {
        (4 + self.name.len() + self.value.len()).div_ceil(8)
    }

    /// Appends the value, a whole number of words.
    ///
    /// # Panics
    /// If the name is longer than 255 bytes or name and value exceed [`Xattr::NAME_AND_VALUE_BYTES_MAX`]: the
    /// caller refuses such attributes (ERANGE).
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.name.len() + self.value.len() <= Self::NAME_AND_VALUE_BYTES_MAX, "attribute too long");
        let start = out.len();
        out.put_u8(self.ty.0);
        out.put_u8(u8::try_from(self.name.len()).expect("names are at most 255 bytes"));
        out.put_u16(self.value.len() as u16);
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.value);
        out.resize(start + self.value_u64s() * 8, 0);
    }

    /// Checks a value against the rules of spec 40 §6.1.
    pub fn validate(bytes: &[u8]) -> Check {
        let x = Xattr::decode(bytes).map_err(super::Problem::undecodable(E::XATTR_VAL_SIZE_TOO_SMALL))?;
        let most = (4 + x.name.len() + x.value.len() + Self::SLACK_BYTES).div_ceil(8) * 8;
        ensure(bytes.len() <= most, E::XATTR_VAL_SIZE_TOO_BIG, || {
            format!("value of {} bytes, at most {most} needed", bytes.len())
        })?;
        ensure(x.ty.prefix().is_some(), E::XATTR_INVALID_TYPE, || format!("type {}", x.ty.0))?;
        ensure(!x.name.contains(&0), E::XATTR_NAME_INVALID_CHARS, || "a NUL in the name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: [u8; 16] = *b"\x00\x03\x03\x00foobar\0\0\0\0\0\0";

    #[test]
    fn the_example_of_the_specification() {
        let x = Xattr::decode(&EXAMPLE).unwrap();
        assert_eq!(x, Xattr { ty: XattrType::USER, name: b"foo", value: b"bar" });
        let mut out = Vec::new();
        x.encode(&mut out);
        assert_eq!(out, EXAMPLE);
        assert_eq!(Xattr::validate(&EXAMPLE), Ok(()));
    }

    #[test]
    fn every_rule_has_its_error() {
        let check = |bytes: &[u8]| Xattr::validate(bytes).map_err(|p| p.id);
        let with = |at: usize, v: u8| {
            let mut bytes = EXAMPLE;
            bytes[at] = v;
            bytes
        };
        assert_eq!(check(&with(2, 12)), Err(E::XATTR_VAL_SIZE_TOO_SMALL));
        assert_eq!(check(&[&EXAMPLE[..], &[0; 8]].concat()), Err(E::XATTR_VAL_SIZE_TOO_BIG));
        assert_eq!(check(&with(0, 5)), Err(E::XATTR_INVALID_TYPE));
        assert_eq!(check(&with(5, 0)), Err(E::XATTR_NAME_INVALID_CHARS));
        let slack = b"\x00\x01\x08\x00a12345678\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(check(slack), Ok(()));
    }

    #[test]
    fn full_names_split() {
        assert_eq!(XattrType::split(b"user.foo"), Some((XattrType::USER, &b"foo"[..])));
        assert_eq!(XattrType::split(b"system.posix_acl_default"), Some((XattrType::ACL_DEFAULT, &b""[..])));
        for bad in [&b"user."[..], b"system.posix_acl_defaultx", b"system.x", b"foo", b""] {
            assert_eq!(XattrType::split(bad), None);
        }
    }

    proptest! {
        #[test]
        fn attributes_round_trip(ty: u8, name in proptest::collection::vec(any::<u8>(), 0..256),
                                 value in proptest::collection::vec(any::<u8>(), 0..1740)) {
            let x = Xattr { ty: XattrType(ty), name: &name, value: &value };
            let mut out = Vec::new();
            x.encode(&mut out);
            prop_assert_eq!(Xattr::decode(&out).unwrap(), x);
        }

        #[test]
        fn any_bytes_are_an_attribute_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Xattr::decode(&bytes).is_err(),
                            Xattr::validate(&bytes).is_err_and(|p| p.id == E::XATTR_VAL_SIZE_TOO_SMALL));
        }
    }
}
