//! The unpacked key: a 40-byte header and a value (spec 30 §3).
//!
//! This is the form of keys in the journal and in the superblock, and the form every other layer works with. Keys inside
//! b-tree nodes are usually *packed* ([`crate::node`]), which squeezes the header and leaves type and value alone.

use std::fmt;

use crate::bpos::Bpos;
use crate::bytes::{PutLe, Reader};
use crate::error::{DecodeError, Result};
use crate::key_type::KeyType;

/// Version of a key, 96 bits; 0 except for encrypted data extents and accounting keys (spec 30 §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct BVersion {
    /// Most significant 32 bits.
    pub hi: u32,
    /// Least significant 64 bits.
    pub lo: u64,
}

/// The header of a key, without the length of its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bkey {
    /// Type of the value.
    pub ty: KeyType,
    /// Version.
    pub version: BVersion,
    /// Length of an extent in sectors, 0 for other keys.
    pub size: u32,
    /// Where the key is; the exclusive end of the range for extents.
    pub pos: Bpos,
}

/// `format` byte of an unpacked key.
pub const KEY_FORMAT_CURRENT: u8 = 1;
/// Words of an unpacked key header.
pub const BKEY_U64S: usize = 5;
/// Bytes of an unpacked key header.
pub const BKEY_BYTES: usize = BKEY_U64S * 8;
/// Largest value, in words (a whole key is at most 255 words).
pub const VALUE_U64S_MAX: usize = 255 - BKEY_U64S;

impl Bkey {
    /// A header with version 0.
    pub const fn new(ty: KeyType, pos: Bpos, size: u32) -> Self {
        Self { ty, version: BVersion { hi: 0, lo: 0 }, size, pos }
    }

    /// First position an extent covers (`offset − size`); `None` if the size is larger than the offset.
    pub fn start_offset(&self) -> Option<u64> {
        self.pos.offset.checked_sub(u64::from(self.size))
    }
}

/// A key whose value lives elsewhere (in a node, a journal entry …).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The header.
    pub k: Bkey,
    /// The value, a whole number of 8-byte words.
    pub value: &'a [u8],
}

/// A key that owns its value.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBuf {
    /// The header.
    pub k: Bkey,
    /// The value, a whole number of 8-byte words, at most [`VALUE_U64S_MAX`].
    pub value: Box<[u8]>,
}

impl<'a> Key<'a> {
    /// Length of the encoded, unpacked key in words.
    pub fn u64s(&self) -> usize {
        BKEY_U64S + self.value.len() / 8
    }

    /// A copy that owns its value.
    pub fn to_owned(&self) -> KeyBuf {
        KeyBuf { k: self.k, value: self.value.into() }
    }

    /// Decodes one unpacked key and consumes it, value included.
    ///
    /// # Errors
    /// If the bytes end early, the format is not the unpacked one, or the length is shorter than the header.
    pub fn decode(r: &mut Reader<'a>) -> Result<Key<'a>> {
        const WHAT: &str = "bkey";
        let u64s = usize::from(r.u8()?);
        if u64s < BKEY_U64S {
            return Err(DecodeError::invalid(
                WHAT,
                format!("length {u64s} words is shorter than its header"),
            ));
        }
        let format = r.u8()? & 0x7f;
        if format != KEY_FORMAT_CURRENT {
            return Err(DecodeError::invalid(
                WHAT,
                format!("key format {format} where an unpacked key must be"),
            ));
        }
        let ty = KeyType(r.u8()?);
        r.skip(1)?;
        let lo = r.u64()?;
        let hi = r.u32()?;
        let size = r.u32()?;
        let pos = Bpos::decode(r)?;
        let value = r.bytes((u64s - BKEY_U64S) * 8)?;
        Ok(Key { k: Bkey { ty, version: BVersion { hi, lo }, size, pos }, value })
    }

    /// Appends the unpacked key (format 1, `needs_whiteout` 0).
    ///
    /// # Panics
    /// If the value is not a whole number of words or longer than [`VALUE_U64S_MAX`]: such a key cannot exist.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.value.len().is_multiple_of(8) && self.value.len() <= VALUE_U64S_MAX * 8, "value length");
        out.put_u8(self.u64s() as u8);
        out.put_u8(KEY_FORMAT_CURRENT);
        out.put_u8(self.k.ty.0);
        out.put_u8(0);
        out.put_u64(self.k.version.lo);
        out.put_u32(self.k.version.hi);
        out.put_u32(self.k.size);
        self.k.pos.encode(out);
        out.extend_from_slice(self.value);
    }
}

impl KeyBuf {
    /// A key of version 0.
    ///
    /// # Panics
    /// If the value is not a whole number of words or longer than [`VALUE_U64S_MAX`].
    pub fn new(ty: KeyType, pos: Bpos, size: u32, value: impl Into<Box<[u8]>>) -> Self {
        let value = value.into();
        assert!(value.len().is_multiple_of(8) && value.len() <= VALUE_U64S_MAX * 8, "value length");
        Self { k: Bkey::new(ty, pos, size), value }
    }

    /// The same key, borrowed.
    pub fn as_key(&self) -> Key<'_> {
        Key { k: self.k, value: &self.value }
    }
}

impl fmt::Debug for Key<'_> {
    /// The head of the reference's listing line: `u64s 11 type btree_ptr_v2 4330:8:U32_MAX len 0 ver 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ver = (u128::from(self.k.version.hi) << 64) | u128::from(self.k.version.lo);
        write!(f, "u64s {} type {} {} len {} ver {ver}", self.u64s(), self.k.ty, self.k.pos, self.k.size)
    }
}

impl fmt::Debug for KeyBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_key(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacked_keys_round_trip() {
        let key = KeyBuf::new(KeyType::COOKIE, Bpos::new(4096, 8, u32::MAX), 8, [7u8; 8]);
        let mut out = Vec::new();
        key.as_key().encode(&mut out);
        assert_eq!(out.len(), 48);
        assert_eq!(&out[..4], &[6, 1, 3, 0]);
        let mut r = Reader::new("test", &out);
        assert_eq!(Key::decode(&mut r).unwrap(), key.as_key());
        assert_eq!(r.remaining(), 0);
    }

    #[test]
    fn short_or_packed_keys_are_refused() {
        let mut out = Vec::new();
        KeyBuf::new(KeyType::SET, Bpos::MIN, 0, []).as_key().encode(&mut out);
        for (at, v) in [(0, 4), (1, 0), (0, 6)] {
            let mut bad = out.clone();
            bad[at] = v;
            assert!(Key::decode(&mut Reader::new("test", &bad)).is_err());
        }
    }
}
