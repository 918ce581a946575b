//! Records of pax headers: what a plain tar header has no room for (POSIX.1-2017, "pax Extended Header").
//!
//! Names and values are bytes as they are. POSIX wants UTF-8, but every tar takes and makes such records, and no other form could
//! carry names that are not UTF-8.

use frazil_ondisk::values::acl::{Acl, AclTag};
use frazil_posix::Timestamp;

/// The records in front of one member.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// Adds a record.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.0.extend_from_slice(format!("{len} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// Adds an extended attribute, and what of an access control list tars look for under another name.
    pub(super) fn add_xattr(&mut self, name: &[u8], value: &[u8]) {
        let acl_key = match name {
            b"system.posix_acl_access" => Some("SCHILY.acl.access"),
            b"system.posix_acl_default" => Some("SCHILY.acl.default"),
            _ => None,
        };
        if let (Some(key), Ok(acl)) = (acl_key, Acl::from_xattr(value)) {
            self.add(key.as_bytes(), acl_text(&acl).as_bytes());
        }
        let mut key = b"SCHILY.xattr.".to_vec();
        for &byte in name {
            // As GNU tar writes what would end the key.
            match byte {
                b'=' => key.extend_from_slice(b"%3D"),
                b'%' => key.extend_from_slice(b"%25"),
                byte => key.push(byte),
            }
        }
        self.add(&key, value);
    }

    /// The bytes of all records; empty if there are none.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An access control list as text, with numbers for names.
fn acl_text(acl: &Acl) -> String {
    let one = |tag: AclTag, perm: u16| {
        let letter = |bit: u16, letter: char| if perm & bit != 0 { letter } else { '-' };
        let perm: String = [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')].into_iter().collect();
        match tag {
            AclTag::UserObj => format!("user::{perm}"),
            AclTag::User(id) => format!("user:{id}:{perm}"),
            AclTag::GroupObj => format!("group::{perm}"),
            AclTag::Group(id) => format!("group:{id}:{perm}"),
            AclTag::Mask => format!("mask::{perm}"),
            AclTag::Other => format!("other::{perm}"),
        }
    };
    acl.0.iter().map(|entry| one(entry.tag, entry.perm)).collect::<Vec<_>>().join(",")
}

/// A time in decimal seconds.
pub(super) fn time(at: Timestamp) -> String {
    let nanoseconds = at.unix_ns();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, rest) =
        (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
    if rest == 0 { format!("{sign}{seconds}") } else { format!("{sign}{seconds}.{rest:09}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        let record = |key: &str, value: &str| {
            let mut records = Records::default();
            records.add(key.as_bytes(), value.as_bytes());
            String::from_utf8(records.bytes().to_vec()).unwrap()
        };
        assert_eq!(record("a", "b"), "6 a=b\n");
        for value_len in 0..1100 {
            let record = record("path", &"x".repeat(value_len));
            let (len, _) = record.split_once(' ').unwrap();
            assert_eq!(len.parse(), Ok(record.len()));
        }
    }

    #[test]
    fn attributes_are_named_as_gnu_tar_names_them() {
        let mut records = Records::default();
        records.add_xattr(b"user.a=b%", b"\0\n");
        assert_eq!(records.bytes(), b"33 SCHILY.xattr.user.a%3Db%25=\0\n\n");
    }

    #[test]
    fn access_control_lists_are_text_too() {
        let acl = Acl::from_xattr(&[
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 5, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255,
            255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
        ]);
        assert_eq!(acl_text(&acl.unwrap()), "user::rw-,user:1000:r-x,group::r--,mask::rwx,other::---");
    }

    #[test]
    fn times_before_1970_are_negative() {
        assert_eq!(time(Timestamp { secs: 5, nanos: 0 }), "5");
        assert_eq!(time(Timestamp { secs: -1, nanos: 999_999_999 }), "-0.000000001");
        assert_eq!(time(Timestamp { secs: -2, nanos: 500_000_000 }), "-1.500000000");
    }
}
