//! Packing and unpacking of keys (spec 30 §4.2).
//!
//! A key inside a node, packed or not, is a [`RawKey`]: a run of whole words whose first three bytes say its length,
//! its format and its type. [`KeyFormat`] turns one into the other; the unpacked layout is itself just the widest
//! format, so there is one way to take a key apart. Nothing here allocates, and unpacking has no branch that depends
//! on the data except "packed or not": reads of cached nodes spend their time here.

use std::fmt;

use super::format::{FIELDS, KeyFormat};
use crate::bkey::{BKEY_BYTES, BKEY_U64S, BVersion, Bkey, KEY_FORMAT_CURRENT, Key, VALUE_U64S_MAX};
use crate::bpos::Bpos;
use crate::key_type::KeyType;

/// `format` byte of a key packed with its node's format.
pub const KEY_FORMAT_LOCAL: u8 = 0;
/// Bytes in which any key's header lies, with room to load a whole word and a byte more at any byte of it.
const WINDOW: usize = BKEY_BYTES + 8;

/// A key as stored in a node: its words, header and value, not yet interpreted.
#[derive(Clone, Copy)]
pub struct RawKey<'a> {
    /// From the key's first byte on, to beyond its end: the neighbours are there to be loaded and masked away.
    bytes: &'a [u8],
    len: usize,
}

impl fmt::Debug for RawKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawKey").field(&self.bytes()).finish()
    }
}

/// Why the bytes at some place in a bset are not a key (spec 30 §10.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RawKeyError {
    /// The key runs past the end of its bset.
    #[error("key of {u64s} words runs past the end of its bset")]
    PastEnd {
        /// Length the key claims, in words.
        u64s: u8,
    },
    /// The format byte is neither local nor current.
    #[error("key format {0}")]
    BadFormat(u8),
    /// The length is shorter than the key's header, or longer than can be unpacked.
    #[error("key of {u64s} words with a header of {key_u64s}")]
    BadU64s {
        /// Length the key claims, in words.
        u64s: u8,
        /// Words of a header in the key's format.
        key_u64s: u8,
    },
}

impl<'a> RawKey<'a> {
    /// The key that starts at the first byte of `bytes`.
    ///
    /// # Errors
    /// If its length or format cannot be right; the caller looks for the next plausible key.
    pub fn parse(format: &KeyFormat, bytes: &'a [u8]) -> Result<RawKey<'a>, RawKeyError> {
        let [u64s, fmt, ..] = *bytes else { return Err(RawKeyError::PastEnd { u64s: 0 }) };
        let key_u64s = match fmt & 0x7f {
            KEY_FORMAT_LOCAL => format.key_u64s(),
            KEY_FORMAT_CURRENT => BKEY_U64S,
            other => return Err(RawKeyError::BadFormat(other)),
        };
        let len = usize::from(u64s);
        if len < key_u64s || len - key_u64s > VALUE_U64S_MAX {
            return Err(RawKeyError::BadU64s { u64s, key_u64s: key_u64s as u8 });
        }
        if bytes.len() < len * 8 {
            return Err(RawKeyError::PastEnd { u64s });
        }
        Ok(RawKey { bytes, len: len * 8 })
    }

    /// The key that starts at the first byte of `bytes`, where one that passed [`RawKey::parse`] was put.
    #[inline]
    pub(crate) fn of_valid(bytes: &'a [u8]) -> RawKey<'a> {
        RawKey { bytes, len: usize::from(bytes[0]) * 8 }
    }

    /// The whole key, header and value.
    pub fn bytes(self) -> &'a [u8] {
        &self.bytes[..self.len]
    }

    /// Length in words as stored.
    pub fn u64s(self) -> usize {
        self.len / 8
    }

    /// Whether the node's own format is used.
    pub fn is_packed(self) -> bool {
        self.bytes[1] & 0x7f == KEY_FORMAT_LOCAL
    }

    /// Type of the value.
    pub fn ty(self) -> KeyType {
        KeyType(self.bytes[2])
    }

    /// The bytes the header lies in. `spare` is used if the key is the last of a buffer.
    #[inline]
    fn window<'b>(self, spare: &'b mut [u8; WINDOW]) -> &'b [u8; WINDOW]
    where
        'a: 'b,
    {
        if let Some(window) = self.bytes.first_chunk() {
            return window;
        }
        spare[..self.bytes.len()].copy_from_slice(self.bytes);
        spare
    }
}

static CURRENT: KeyFormat = KeyFormat::CURRENT;

impl KeyFormat {
    /// The format `raw` uses, in a node of this format.
    #[inline]
    fn of<'f>(&'f self, raw: RawKey<'_>) -> &'f KeyFormat {
        if raw.is_packed() { self } else { &CURRENT }
    }

    #[inline]
    fn field(&self, window: &[u8; WINDOW], f: usize) -> u64 {
        let p = &self.places[f];
        let (i, s) = (usize::from(p.byte), u32::from(p.shift));
        // A field without bits may have its place behind the header; its mask makes any byte do.
        let word =
            u64::from_le_bytes(*window[i.min(BKEY_BYTES - 1)..].first_chunk().expect("inside the window"));
        let next = u64::from(window[i.min(BKEY_BYTES - 1) + 8]);
        // Shifted twice, because a shift by 64 is none.
        (((word >> s) | ((next << 1) << (63 - s))) & p.mask).wrapping_add(self.offsets()[f])
    }

    #[inline]
    fn pos_in(&self, window: &[u8; WINDOW]) -> Bpos {
        Bpos::new(self.field(window, 0), self.field(window, 1), self.field(window, 2) as u32)
    }

    /// Unpacks the position of a key of a node of this format.
    #[inline]
    pub fn unpack_pos(&self, raw: RawKey<'_>) -> Bpos {
        self.of(raw).pos_in(raw.window(&mut [0; WINDOW]))
    }

    /// Unpacks a key of a node of this format; the value is borrowed from it.
    #[inline]
    pub fn unpack<'a>(&self, raw: RawKey<'a>) -> Key<'a> {
        let format = self.of(raw);
        let mut spare = [0; WINDOW];
        let w = raw.window(&mut spare);
        let k = Bkey {
            ty: raw.ty(),
            pos: format.pos_in(w),
            size: format.field(w, 3) as u32,
            version: BVersion { hi: format.field(w, 4) as u32, lo: format.field(w, 5) },
        };
        Key { k, value: &raw.bytes[format.key_u64s() * 8..raw.len] }
    }

    /// The fields packed into words, the low 24 bits 0; `None` if a field does not fit.
    #[inline]
    fn pack_fields(&self, values: [u64; FIELDS]) -> Option<[u64; BKEY_U64S + 2]> {
        let mut words = [0; BKEY_U64S + 2];
        for (f, value) in values.into_iter().enumerate() {
            let p = &self.places[f];
            let raw = value.checked_sub(self.offsets()[f])?;
            if raw > p.mask {
                return None;
            }
            let (i, s) = (usize::from(p.byte / 8), u32::from(p.byte % 8 * 8 + p.shift));
            words[i] |= raw << s;
            words[i + 1] |= (raw >> 1) >> (63 - s);
        }
        Some(words)
    }

    /// Whether the key packs in this format.
    pub fn packs(&self, k: &Bkey) -> bool {
        self.pack_fields(fields(k)).is_some()
    }

    /// Appends `key` as a node of this format stores it: packed if it packs, else unpacked (spec 30 §4.2).
    /// Spare bits and `needs_whiteout` are 0.
    ///
    /// # Panics
    /// If the value is not a whole number of words or too long: such a key cannot exist.
    pub fn encode_key(&self, key: Key<'_>, out: &mut Vec<u8>) {
        match self.pack_fields(fields(&key.k)) {
            None => key.encode(out),
            Some(words) => self.encode_words(words, key.k.ty, key.value, out),
        }
    }

    /// Appends a tombstone at `pos` (spec 30 §7.6): if the position packs, every other raw field is 0.
    pub fn encode_tombstone(&self, pos: Bpos, out: &mut Vec<u8>) {
        let [_, _, _, size, hi, lo] = self.offsets();
        // A foreign format may give sizes a bias; raw 0 would then not mean size 0.
        let packed = (size == 0)
            .then(|| self.pack_fields([pos.inode, pos.offset, u64::from(pos.snapshot), 0, hi, lo]))
            .flatten();
        match packed {
            None => Key { k: Bkey::new(KeyType::DELETED, pos, 0), value: &[] }.encode(out),
            Some(words) => self.encode_words(words, KeyType::DELETED, &[], out),
        }
    }

    fn encode_words(&self, mut words: [u64; BKEY_U64S + 2], ty: KeyType, value: &[u8], out: &mut Vec<u8>) {
        assert!(value.len().is_multiple_of(8) && value.len() <= VALUE_U64S_MAX * 8, "value length");
        let u64s = self.key_u64s() + value.len() / 8;
        words[0] |= u64s as u64 | u64::from(KEY_FORMAT_LOCAL) << 8 | u64::from(ty.0) << 16;
        for word in &words[..self.key_u64s()] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(value);
    }
}

fn fields(k: &Bkey) -> [u64; FIELDS] {
    [
        k.pos.inode,
        k.pos.offset,
        u64::from(k.pos.snapshot),
        u64::from(k.size),
        u64::from(k.version.hi),
        k.version.lo,
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bytes::Reader;
    use crate::node::format::{FormatBuilder, FormatRules};
    use crate::node::testing::{any_format, any_key, near_bkeys};

    /// spec 30 §4.3, the extents node.
    fn example_format() -> KeyFormat {
        let mut b = vec![2, 6, 8, 8, 0x20, 8, 0, 0, 0xea, 0x10, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];
        b.resize(KeyFormat::BYTES, 0);
        KeyFormat::decode(&mut Reader::new("bkey_format", &b), FormatRules::Strict).unwrap()
    }

    #[test]
    fn the_worked_key_unpacks_and_packs() {
        let mut stored = vec![0x28, 0, 0x11, 0, 0, 0, 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 0, 1];
        stored.resize(40 * 8, 0x7a);
        let f = example_format();
        let raw = RawKey::parse(&f, &stored).unwrap();
        let key = f.unpack(raw);
        assert_eq!(key.to_string(), "u64s 43 type inline_data 4331:8:U32_MAX len 8 ver 0");
        let mut again = Vec::new();
        f.encode_key(key, &mut again);
        assert_eq!(again, stored);
    }

    #[test]
    fn the_worked_tombstone() {
        let want = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 2];
        let mut out = Vec::new();
        example_format().encode_tombstone(Bpos::new(4332, 8, u32::MAX), &mut out);
        assert_eq!(out, want);
        out.clear();
        example_format().encode_tombstone(Bpos::new(1, 8, u32::MAX), &mut out);
        assert_eq!(out.len(), 40, "a position that does not pack makes an unpacked tombstone");
    }

    #[test]
    fn the_worked_interior_key() {
        let stored =
            [9, 0, 0x12, 0, 0xff, 0xff, 0xff, 0xff, 8, 0, 0, 0, 0, 0, 0, 0, 0xd2, 0, 0, 0x40, 0, 0, 0, 0];
        let mut whole = stored.to_vec();
        whole.resize(72, 0);
        let f = KeyFormat::FULL_POSITION;
        let key = f.unpack(RawKey::parse(&f, &whole).unwrap());
        assert_eq!(key.k.pos, Bpos::new(0x4000_00d2, 8, u32::MAX));
        assert_eq!(key.u64s(), 11);
    }

    #[test]
    fn implausible_keys_are_refused() {
        let f = KeyFormat::FULL_POSITION;
        let parse = |b: &[u8]| RawKey::parse(&f, b).unwrap_err();
        assert_eq!(parse(&[]), RawKeyError::PastEnd { u64s: 0 });
        assert_eq!(parse(&[2, 0, 0, 0, 0, 0, 0, 0]), RawKeyError::BadU64s { u64s: 2, key_u64s: 3 });
        assert_eq!(parse(&[3, 2, 0, 0, 0, 0, 0, 0]), RawKeyError::BadFormat(2));
        assert_eq!(parse(&[3, 0, 0, 0, 0, 0, 0, 0]), RawKeyError::PastEnd { u64s: 3 });
        assert_eq!(parse(&[255; 2040]), RawKeyError::BadFormat(127));
        let mut long = [0; 2040];
        long[0] = 254;
        assert_eq!(parse(&long), RawKeyError::BadU64s { u64s: 254, key_u64s: 3 });
        long[0] = 253;
        assert!(RawKey::parse(&f, &long).is_ok());
    }

    proptest! {
        #[test]
        fn keys_survive_any_format(f in any_format(), key in any_key()) {
            let mut out = Vec::new();
            f.encode_key(key.as_key(), &mut out);
            let raw = RawKey::parse(&f, &out).unwrap();
            prop_assert_eq!(raw.bytes().len(), out.len());
            prop_assert_eq!(raw.is_packed(), f.packs(&key.k));
            prop_assert_eq!(f.unpack(raw), key.as_key());
            prop_assert_eq!(f.unpack_pos(raw), key.k.pos);
        }

        #[test]
        fn a_chosen_format_packs_its_keys(keys in near_bkeys()) {
            let mut b = FormatBuilder::new();
            keys.iter().for_each(|k| b.add_key(k));
            let f = b.build();
            let mut enc = Vec::new();
            f.encode(&mut enc);
            let read = KeyFormat::decode(&mut Reader::new("bkey_format", &enc), FormatRules::Strict).unwrap();
            prop_assert_eq!(&read, &f);
            prop_assert!(keys.iter().all(|k| f.packs(k)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(f in any_format(), bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(raw) = RawKey::parse(&f, &bytes) {
                let _ = f.unpack(raw);
                let _ = f.unpack_pos(raw);
            }
        }
    }
}
