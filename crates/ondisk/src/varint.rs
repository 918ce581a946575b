//! Variable-length integers of the inode encodings (spec 40 §2.2).
//!
//! Two codings exist. The **new** one is written by every version since inodes v2: the number of bytes, `n`, is in the
//! trailing ones of the first byte, the value sits above them, little-endian; values of more than 56 bits take a byte
//! of all ones and eight plain bytes. The **old** one occurs only in inodes of the first form: the length is in
//! the position of the highest set bit of the first byte, the rest is one big-endian number of up to 100 bits. It is read
//! and never written.
//!
//! Decoding takes any bytes; longer codings of a small value than necessary are accepted, as the reference does.

use crate::bytes::Reader;
use crate::error::Result;

/// Longest new coding in bytes.
pub const ENCODED_BYTES_MAX: usize = 9;

/// Bytes [`encode`] uses for `value`, 1 … [`ENCODED_BYTES_MAX`].
pub const fn encoded_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    if bits > 56 { ENCODED_BYTES_MAX } else { bits.div_ceil(7) }
}

/// Appends the new coding of `value`.
pub fn encode(value: u64, out: &mut Vec<u8>) {
    let mut buf = [0; ENCODED_BYTES_MAX];
    let n = encode_to(value, &mut buf);
    out.extend_from_slice(&buf[..n]);
}

/// Writes the new coding of `value` to the start of `buf` and returns its length. Bytes of `buf` behind it may change too.
///
/// # Panics
/// If `buf` is shorter than [`ENCODED_BYTES_MAX`].
#[inline]
pub fn encode_to(value: u64, buf: &mut [u8]) -> usize {
    let n = encoded_len(value);
    if n == ENCODED_BYTES_MAX {
        buf[0] = 0xff;
        buf[1..9].copy_from_slice(&value.to_le_bytes());
    } else {
        let word = value << n | ((1 << (n - 1)) - 1);
        buf[..8].copy_from_slice(&word.to_le_bytes());
    }
    n
}

/// Consumes one integer in the new coding.
///
/// # Errors
/// If the bytes end before the integer does.
#[inline]
pub fn decode(r: &mut Reader<'_>) -> Result<u64> {
    let rest = r.rest();
    // Most fields of most inodes are 0, and nearly all others have a whole word ahead.
    if rest.first() == Some(&0) {
        r.skip(1)?;
        return Ok(0);
    }
    if let Some(word) = rest.first_chunk() {
        let word = u64::from_le_bytes(*word);
        let n = (word as u8).trailing_ones() + 1;
        if n <= 8 {
            r.skip(n as usize)?;
            let unused = 64 - 8 * n;
            return Ok(word << unused >> unused >> n);
        }
        r.skip(1)?;
        return r.u64();
    }
    decode_at_end(r)
}

/// [`decode`] where fewer than eight bytes are left.
fn decode_at_end(r: &mut Reader<'_>) -> Result<u64> {
    let first = r.u8()?;
    let more = first.trailing_ones() as usize;
    if more == 8 {
        return r.u64();
    }
    let mut word = [0; 8];
    word[0] = first;
    word[1..=more].copy_from_slice(r.bytes(more)?);
    Ok(u64::from_le_bytes(word) >> (more + 1))
}

/// Bytes of an old coding, by the number of leading zero bits of its first byte.
const OLD_BYTES: [usize; 8] = [1, 2, 3, 4, 6, 8, 10, 13];

/// Consumes one integer in the old coding. Most fields keep only the low 64 bits; the caller checks the width.
///
/// # Errors
/// If the first byte is zero or the bytes end before the integer does.
pub fn decode_old(r: &mut Reader<'_>) -> Result<u128> {
    let first = r.u8()?;
    let zeros = first.leading_zeros() as usize;
    let Some(&n) = OLD_BYTES.get(zeros) else {
        return Err(r.invalid("a number of the old coding starts with a zero byte"));
    };
    let head = u128::from(first ^ (0x80 >> zeros));
    Ok(r.bytes(n - 1)?.iter().fold(head, |acc, &b| acc << 8 | u128::from(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(v: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(v, &mut out);
        out
    }

    /// The table of spec 40 §2.2.
    #[test]
    fn spec_table() {
        for (v, bytes) in [
            (0, &[0x00][..]),
            (1, &[0x02]),
            (127, &[0xfe]),
            (128, &[0x01, 0x02]),
            (1000, &[0xa1, 0x0f]),
            (4096, &[0x01, 0x40]),
            ((1 << 56) - 1, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (1 << 56, &[0xff, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            assert_eq!(encoded(v), bytes, "{v}");
            assert_eq!(decode(&mut Reader::new("test", bytes)).unwrap(), v);
        }
    }

    #[test]
    fn old_examples_and_zero() {
        assert_eq!(decode_old(&mut Reader::new("test", &[0x81])).unwrap(), 1);
        assert_eq!(decode_old(&mut Reader::new("test", &[0x43, 0xe8])).unwrap(), 1000);
        assert!(decode_old(&mut Reader::new("test", &[0, 1])).is_err());
        let longest = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(decode_old(&mut Reader::new("test", &longest)).unwrap(), 7);
        assert!(decode_old(&mut Reader::new("test", &longest[..12])).is_err());
    }

    /// The old coding of `v`, written from the rule in the specification.
    fn old_encoded(v: u128) -> Option<Vec<u8>> {
        let (zeros, n) = OLD_BYTES.iter().enumerate().find(|(z, n)| v >> (**n * 8 - 1 - *z) == 0)?;
        let mut bytes = v.to_be_bytes()[16 - n..].to_vec();
        bytes[0] |= 0x80 >> zeros;
        Some(bytes)
    }

    proptest! {
        #[test]
        fn new_round_trip(v in any::<u64>(), shift in 0u32..64) {
            let v = v >> shift;
            let bytes = encoded(v);
            prop_assert_eq!(bytes.len(), encoded_len(v));
            let mut r = Reader::new("test", &bytes);
            prop_assert_eq!(decode(&mut r).unwrap(), v);
            prop_assert_eq!(r.remaining(), 0);
            prop_assert!(decode(&mut Reader::new("test", &bytes[..bytes.len() - 1])).is_err());
        }

        #[test]
        fn old_round_trip(v in any::<u128>(), shift in 32u32..128) {
            let v = v >> shift;
            let bytes = old_encoded(v).expect("at most 96 bits");
            let mut r = Reader::new("test", &bytes);
            prop_assert_eq!(decode_old(&mut r).unwrap(), v);
            prop_assert_eq!(r.remaining(), 0);
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let mut r = Reader::new("test", &bytes);
            if decode(&mut r).is_ok() {
                prop_assert!(r.pos() <= ENCODED_BYTES_MAX);
            }
            let _ = decode_old(&mut Reader::new("test", &bytes));
        }
    }
}
