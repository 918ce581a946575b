//! Records of pax headers (POSIX.1-2017, "pax Extended Header"): what a plain tar header has no room for.
//!
//! `LENGTH KEY=VALUE\n`, where the length counts the whole record, so that a value may be any bytes.

use frazil_ondisk::values::acl::{Acl, AclEntry, AclTag};

use super::super::work::Xattrs;
use crate::attr::Timestamp;

/// Records in order; of several with one key the last counts.
#[derive(Clone, Default, Debug)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Appends the records in `bytes`; `None` if they are malformed.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().position(|&byte| byte == b' ')?;
            let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            self.0.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[len..];
        }
        Some(())
    }

    /// The records of `self`, then those of `more`.
    pub(super) fn followed_by(&self, more: Records) -> Records {
        Records(self.0.iter().cloned().chain(more.0).collect())
    }

    /// The value of a key. One that was given as empty counts as not given.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        let last = self.0.iter().rev().find(|(found, _)| found == key.as_bytes());
        last.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    /// All values of a key, in order.
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(found, _)| found == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// A decimal number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Malformed> {
        self.get(key).map(|value| number(value).ok_or_else(|| Malformed(key.to_owned()))).transpose()
    }

    /// A time.
    pub(super) fn time(&self, key: &str) -> Result<Option<Timestamp>, Malformed> {
        self.get(key).map(|value| time(value).ok_or_else(|| Malformed(key.to_owned()))).transpose()
    }

    /// Extended attributes, access control lists among them in the form programs see.
    pub(super) fn xattrs(&self) -> Result<Xattrs, Malformed> {
        let mut found: Xattrs = Vec::new();
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                put(&mut found, unescaped(name), value.clone());
            }
        }
        for (key, name) in [
            ("SCHILY.acl.access", &b"system.posix_acl_access"[..]),
            ("SCHILY.acl.default", b"system.posix_acl_default"),
        ] {
            // Whoever wrote the attribute too was more exact.
            let Some(text) = self.get(key).filter(|_| found.iter().all(|(known, _)| known != name)) else {
                continue;
            };
            let acl = acl(text).ok_or_else(|| Malformed(key.to_owned()))?;
            put(&mut found, name.to_vec(), acl.to_xattr());
        }
        Ok(found)
    }
}

/// The key of a record that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

fn put(list: &mut Xattrs, name: Vec<u8>, value: Vec<u8>) {
    list.retain(|(known, _)| *known != name);
    list.push((name, value));
}

/// GNU tar escapes what would end the key.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = [(&b"%3D"[..], b'='), (b"%25", b'%')].into_iter();
        let known = escaped.filter_map(|(code, byte)| Some((rest.strip_prefix(code)?, byte))).next();
        let (behind, byte) = known.unwrap_or((behind, byte));
        out.push(byte);
        rest = behind;
    }
    out
}

/// A decimal number.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction; what is finer than a nanosecond is cut off.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_decimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_decimal(whole) || !is_decimal(fraction) {
        return None;
    }
    let nanos = format!("{fraction:0<9}")[..9].parse::<i128>().ok()?;
    let ns = i128::from(whole.parse::<i64>().ok()?) * 1_000_000_000 + nanos;
    Some(Timestamp::from_unix_ns(if is_negative { -ns } else { ns }))
}

/// An access control list as text. Users and groups must be given by number, alone or behind the permissions.
fn acl(text: &[u8]) -> Option<Acl> {
    let text = std::str::from_utf8(text).ok()?;
    let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
    let mut list = entries.map(acl_entry).collect::<Option<Vec<AclEntry>>>()?;
    list.sort_by_key(|entry| entry.tag);
    Some(Acl(list))
}

fn acl_entry(text: &str) -> Option<AclEntry> {
    let mut fields = text.split(':');
    let (tag, who, perm) = (fields.next()?, fields.next()?, fields.next()?);
    let id = || who.parse().ok().or_else(|| fields.next()?.parse().ok());
    let tag = match (tag, who) {
        ("user" | "u", "") => AclTag::UserObj,
        ("user" | "u", _) => AclTag::User({ id }()?),
        ("group" | "g", "") => AclTag::GroupObj,
        ("group" | "g", _) => AclTag::Group({ id }()?),
        ("mask" | "m", _) => AclTag::Mask,
        ("other" | "o", _) => AclTag::Other,
        _ => return None,
    };
    let bit = |letter| match letter {
        'r' => Some(4),
        'w' => Some(2),
        'x' => Some(1),
        '-' => Some(0),
        _ => None,
    };
    let perm = perm.chars().map(bit).sum::<Option<u16>>()?;
    Some(AclEntry { tag, perm })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(bytes: &[u8]) -> Option<Records> {
        let mut records = Records::default();
        records.parse(bytes).map(|()| records)
    }

    #[test]
    fn values_may_hold_anything() {
        let parsed = records(b"33 SCHILY.xattr.user.a%3Db%25=\0\n\n6 a=b\n").unwrap();
        assert_eq!(parsed.xattrs(), Ok(vec![(b"user.a=b%".to_vec(), b"\0\n".to_vec())]));
        assert_eq!(parsed.get("a"), Some(&b"b"[..]));
        for bad in [&b"5 a=b\n"[..], b"99 a=b\n", b"x a=b\n", b"6 a_b\n", b"6a=b\n"] {
            assert!(records(bad).is_none(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_last_record_counts_and_an_empty_one_takes_back() {
        let parsed = records(b"6 a=b\n6 a=c\n").unwrap();
        assert_eq!(parsed.get("a"), Some(&b"c"[..]));
        assert_eq!(records(b"6 a=b\n5 a=\n").unwrap().get("a"), None);
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let at = |secs, nanos| Some(Timestamp { secs, nanos });
        assert_eq!(time(b"5"), at(5, 0));
        assert_eq!(time(b"5.25"), at(5, 250_000_000));
        assert_eq!(time(b"1.1234567899"), at(1, 123_456_789));
        assert_eq!(time(b"-0.000000001"), at(-1, 999_999_999));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        for bad in [&b""[..], b".5", b"1e5", b"--1", b"1.x"] {
            assert_eq!(time(bad), None);
        }
    }

    #[test]
    fn lists_are_read_as_tars_write_them() {
        let list = acl(b"user::rw-,user:1000:r-x,user:alice:rwx:17,group::r--,mask::rwx,other::---").unwrap();
        assert_eq!(list.0.len(), 6);
        assert_eq!(list.0[1], AclEntry { tag: AclTag::User(17), perm: 7 });
        assert_eq!(list.0[2], AclEntry { tag: AclTag::User(1000), perm: 5 });
        assert!(acl(b"user:alice:rwx").is_none());
        assert!(acl(b"user::rwq").is_none());
    }
}
