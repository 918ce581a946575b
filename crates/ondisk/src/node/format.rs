//! Key formats: how many bits each field of a packed key gets (spec 30 §4).
//!
//! Positions inside one node are alike: the same few inodes, neighbouring offsets, one snapshot. So each node has a
//! *key format*: for each of the six header fields a width in bits and a bias. A key whose fields all lie within
//! `bias … bias + 2^width − 1` is stored as one little-endian integer of `key_u64s` words, fields from the most
//! significant end downwards in the order of comparison; the low 24 bits hold the key's length, its format byte and
//! its type. A key that does not fit is stored unpacked, among the packed ones. The format is chosen once, when
//! the node is created, from the keys it gets ([`FormatBuilder`]), and fixed for the node's life.
//!
//! [`KeyFormat`] holds the format together with where each field lies, so that packing and unpacking ([`super::pack`])
//! are a few shifts. A value of this type is always valid: both decoding and building check the rules of §4.5.

use crate::bkey::Bkey;
use crate::bpos::Bpos;
use crate::bytes::{PutLe, Reader};
use crate::error::Result;

/// Fields of a packed key.
pub(crate) const FIELDS: usize = 6;
/// Widths of the unpacked fields: inode, offset, snapshot, size, version.hi, version.lo.
pub(crate) const FIELD_BITS: [u8; FIELDS] = [64, 64, 32, 32, 32, 64];
/// Bits of a packed key that are not fields: length, format, type.
const HEADER_BITS: u32 = 24;
/// The index of the `size` field.
const SIZE: usize = 3;
/// Extents grow by merging: a format that has extents leaves this many bits more for their size (spec 30 §4.4).
const SIZE_HEADROOM_BITS: u8 = 4;

/// All-ones in the low `bits` bits.
const fn mask(bits: u8) -> u64 {
    if bits == 0 { 0 } else { u64::MAX >> (64 - bits as u32) }
}

/// Where a field lies in a packed key: the byte its lowest bit is in, and the bit in that byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) byte: u8,
    pub(crate) shift: u8,
    pub(crate) mask: u64,
}

/// The format of the packed keys of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyFormat {
    key_u64s: u8,
    bits: [u8; FIELDS],
    offsets: [u64; FIELDS],
    pub(crate) places: [Place; FIELDS],
}

/// How strictly a format found on disk is checked (spec 30 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormatRules {
    /// All rules.
    Strict,
    /// A field's largest value may lie beyond what the unpacked field can hold: filesystems whose oldest version
    /// is below 0.12 have such formats.
    AllowOverflow,
}

impl KeyFormat {
    /// Bytes of an encoded format.
    pub const BYTES: usize = 56;
    /// The format of unpacked keys, seen as a packed one: full widths, no bias.
    pub const CURRENT: KeyFormat = KeyFormat::compile(FIELD_BITS, [0; FIELDS]);
    /// Full positions and nothing else: any key of size 0 and version 0 packs, to three words. What an empty root has.
    pub const FULL_POSITION: KeyFormat = KeyFormat::compile([64, 64, 32, 0, 0, 0], [0; FIELDS]);

    const fn compile(bits: [u8; FIELDS], offsets: [u64; FIELDS]) -> KeyFormat {
        let key_u64s = key_u64s(&bits);
        let mut places = [Place { byte: 0, shift: 0, mask: 0 }; FIELDS];
        let mut top = 64 * key_u64s as u32;
        let mut f = 0;
        while f < FIELDS {
            top -= bits[f] as u32;
            places[f] = Place { byte: (top / 8) as u8, shift: (top % 8) as u8, mask: mask(bits[f]) };
            f += 1;
        }
        KeyFormat { key_u64s, bits, offsets, places }
    }

    /// Words of a packed key without its value; 1 to 5.
    pub fn key_u64s(&self) -> usize {
        usize::from(self.key_u64s)
    }

    /// Bits per field, in the order inode, offset, snapshot, size, version.hi, version.lo.
    pub fn bits(&self) -> [u8; 6] {
        self.bits
    }

    /// Bias per field, in the same order.
    pub fn offsets(&self) -> [u64; 6] {
        self.offsets
    }

    /// Whether the largest value of field `f` does not fit the unpacked field.
    fn overflows(&self, f: usize) -> bool {
        let limit = mask(FIELD_BITS[f]);
        self.offsets[f] > limit || limit - self.offsets[f] < mask(self.bits[f])
    }

    /// Decodes the 56 bytes of a format.
    ///
    /// # Errors
    /// If it breaks a rule of spec 30 §4.5.
    pub fn decode(r: &mut Reader<'_>, rules: FormatRules) -> Result<KeyFormat> {
        let stored_u64s = r.u8()?;
        let nr_fields = r.u8()?;
        let bits: [u8; FIELDS] = r.array()?;
        let mut offsets = [0; FIELDS];
        for offset in &mut offsets {
            *offset = r.u64()?;
        }
        if usize::from(nr_fields) != FIELDS {
            return Err(r.invalid(format!("key format has {nr_fields} fields, not {FIELDS}")));
        }
        for f in 0..FIELDS {
            if bits[f] > FIELD_BITS[f] {
                return Err(r.invalid(format!("key format field {f} has {} bits", bits[f])));
            }
        }
        let format = KeyFormat::compile(bits, offsets);
        if format.key_u64s != stored_u64s {
            return Err(r.invalid(format!(
                "key format says {stored_u64s} words, its fields need {}",
                format.key_u64s
            )));
        }
        for f in 0..FIELDS {
            if rules == FormatRules::Strict && format.overflows(f) {
                return Err(r.invalid(format!("key format field {f} can overflow")));
            }
        }
        Ok(format)
    }

    /// Appends the 56 bytes [`KeyFormat::decode`] reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.key_u64s);
        out.put_u8(FIELDS as u8);
        out.extend_from_slice(&self.bits);
        for &offset in &self.offsets {
            out.put_u64(offset);
        }
    }
}

const fn bits_sum(bits: &[u8; FIELDS]) -> u32 {
    let (mut sum, mut f) = (0, 0);
    while f < FIELDS {
        sum += bits[f] as u32;
        f += 1;
    }
    sum
}

/// Words that a key with these field widths occupies.
const fn key_u64s(bits: &[u8; FIELDS]) -> u8 {
    (HEADER_BITS + bits_sum(bits)).div_ceil(64) as u8
}

/// Chooses the format for a new node, exactly as the reference does (spec 30 §4.4): feed it every live key the node
/// will get and its two bounds, in any order.
#[derive(Clone, Debug)]
pub struct FormatBuilder {
    min: [u64; FIELDS],
    max: [u64; FIELDS],
}

impl Default for FormatBuilder {
    fn default() -> Self {
        FormatBuilder::new()
    }
}

impl FormatBuilder {
    /// A builder that has seen no key yet.
    pub fn new() -> Self {
        let mut min = [u64::MAX; FIELDS];
        // So that a zero size always packs: tombstones of extents need that.
        min[SIZE] = 0;
        FormatBuilder { min, max: [0; FIELDS] }
    }

    fn add(&mut self, f: usize, value: u64) {
        self.min[f] = self.min[f].min(value);
        self.max[f] = self.max[f].max(value);
    }

    /// Takes a bound of the node into account.
    pub fn add_pos(&mut self, pos: Bpos) {
        self.add(0, pos.inode);
        self.add(1, pos.offset);
        self.add(2, u64::from(pos.snapshot));
    }

    /// Takes a live key into account.
    pub fn add_key(&mut self, k: &Bkey) {
        self.add_pos(k.pos);
        self.add(SIZE, u64::from(k.size));
        self.add(4, u64::from(k.version.hi));
        self.add(5, k.version.lo);
    }

    /// The format.
    pub fn build(&self) -> KeyFormat {
        let (mut bits, mut offsets) = ([0; FIELDS], [0; FIELDS]);
        for f in 0..FIELDS {
            let min = self.min[f].min(self.max[f]);
            bits[f] = (64 - (self.max[f] - min).leading_zeros()) as u8;
            offsets[f] = min;
            clamp(f, &mut bits, &mut offsets);
        }
        if bits[SIZE] > 0 {
            bits[SIZE] += SIZE_HEADROOM_BITS.min(FIELD_BITS[SIZE] - bits[SIZE]);
        }
        // Bits that round up to whole words are given to the fields, each filled up to whole bytes.
        let mut spare = 64 * u32::from(key_u64s(&bits)) - (HEADER_BITS + bits_sum(&bits));
        for f in 0..FIELDS {
            let round = (8 - bits[f] % 8) % 8;
            if u32::from(round) <= spare {
                bits[f] += round;
                clamp(f, &mut bits, &mut offsets);
                spare -= u32::from(round);
            }
        }
        KeyFormat::compile(bits, offsets)
    }
}

/// Keeps field `f` within its unpacked width: a full-width field has no bias, another one's largest value fits.
fn clamp(f: usize, bits: &mut [u8; FIELDS], offsets: &mut [u64; FIELDS]) {
    bits[f] = bits[f].min(FIELD_BITS[f]);
    offsets[f] = offsets[f].min(mask(FIELD_BITS[f]) - mask(bits[f]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_type::KeyType;

    pub(crate) fn bytes(f: &KeyFormat) -> Vec<u8> {
        let mut out = Vec::new();
        f.encode(&mut out);
        assert_eq!(out.len(), KeyFormat::BYTES);
        out
    }

    #[test]
    fn an_empty_root_has_full_positions() {
        let mut b = FormatBuilder::new();
        b.add_pos(Bpos::MIN);
        b.add_pos(Bpos::MAX);
        assert_eq!(b.build(), KeyFormat::FULL_POSITION);
        let mut want = vec![3, 6, 0x40, 0x40, 0x20, 0, 0, 0];
        want.resize(56, 0);
        assert_eq!(bytes(&b.build()), want);
    }

    #[test]
    fn the_worked_example_of_the_specification() {
        // spec 30 §4.3: node 4330:9:0 … 4540:8:U32_MAX, extents of 8 sectors.
        let mut b = FormatBuilder::new();
        b.add_pos(Bpos::new(4330, 9, 0));
        b.add_pos(Bpos::new(4540, 8, u32::MAX));
        b.add_key(&Bkey::new(KeyType::INLINE_DATA, Bpos::new(4331, 8, u32::MAX), 8));
        let f = b.build();
        assert_eq!(f.key_u64s(), 2);
        assert_eq!(f.bits()[..3], [8, 8, 32]);
        assert_eq!(f.offsets(), [4330, 8, 0, 0, 0, 0]);
    }

    #[test]
    fn a_full_width_field_has_no_bias() {
        let mut b = FormatBuilder::new();
        b.add_pos(Bpos::new(1, u64::MAX - 3, 7));
        b.add_pos(Bpos::new(u64::MAX, u64::MAX, 7));
        let f = b.build();
        assert_eq!(f.bits()[0], 64);
        assert_eq!(f.offsets()[0], 0);
        assert!(f.offsets()[1].checked_add(mask(f.bits()[1])).is_some());
    }

    #[test]
    fn broken_formats_are_refused() {
        let good = bytes(&KeyFormat::FULL_POSITION);
        let decode = |b: &[u8], rules| KeyFormat::decode(&mut Reader::new("bkey_format", b), rules);
        assert_eq!(decode(&good, FormatRules::Strict).unwrap(), KeyFormat::FULL_POSITION);
        for (at, v) in [(0, 2), (0, 4), (1, 5), (2, 65), (5, 33), (8, 1)] {
            let mut bad = good.clone();
            bad[at] = v;
            assert!(decode(&bad, FormatRules::Strict).is_err(), "byte {at} = {v}");
        }
        let mut wrapping = good.clone();
        wrapping[8] = 1;
        assert!(decode(&wrapping, FormatRules::Strict).is_err());
        assert!(decode(&wrapping, FormatRules::AllowOverflow).is_ok());
        assert!(decode(&good[..55], FormatRules::Strict).is_err());
    }
}
