//! Little-endian byte cursors and bit fields. Everything on disk is little-endian (spec 10 §1).

use crate::error::{DecodeError, Result};

/// Reads little-endian integers from a byte string, front to back; running off the end is an error that names
/// the structure.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `buf`, the bytes of a structure called `what`.
    pub fn new(what: &'static str, buf: &'a [u8]) -> Self {
        Self { what, buf, pos: 0 }
    }

    /// Bytes consumed so far.
    #[inline]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes not yet consumed.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// The bytes not yet consumed, without consuming them.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.buf[self.pos..]
    }

    /// The next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some(out) = self.buf.get(self.pos..self.pos.saturating_add(n)) else {
            return Err(self.truncated(n));
        };
        self.pos += n;
        Ok(out)
    }

    #[cold]
    fn truncated(&self, n: usize) -> DecodeError {
        DecodeError::Truncated { what: self.what, need: self.pos.saturating_add(n), have: self.buf.len() }
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// Consumes `n` bytes that carry no meaning.
    #[inline]
    pub fn skip(&mut self, n: usize) -> Result<()> {
        self.bytes(n).map(|_| ())
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// The next 16-bit integer.
    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 32-bit integer.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 64-bit integer.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An error about the structure being read.
    pub fn invalid(&self, reason: impl Into<std::borrow::Cow<'static, str>>) -> DecodeError {
        DecodeError::invalid(self.what, reason)
    }
}

/// Appends little-endian integers to a byte vector.
pub trait PutLe {
    /// Appends one byte.
    fn put_u8(&mut self, v: u8);
    /// Appends a 16-bit integer.
    fn put_u16(&mut self, v: u16);
    /// Appends a 32-bit integer.
    fn put_u32(&mut self, v: u32);
    /// Appends a 64-bit integer.
    fn put_u64(&mut self, v: u64);
    /// Appends `n` zero bytes.
    fn put_zeros(&mut self, n: usize);
}

impl PutLe for Vec<u8> {
    fn put_u8(&mut self, v: u8) {
        self.push(v);
    }
    fn put_u16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_zeros(&mut self, n: usize) {
        self.resize(self.len() + n, 0);
    }
}

/// Bits `[lo, hi)` of `word`, shifted down. `lo < hi ≤ 64`.
pub const fn bits(word: u64, lo: u32, hi: u32) -> u64 {
    assert!(lo < hi && hi <= 64);
    (word >> lo) & (u64::MAX >> (64 - (hi - lo)))
}

/// `word` with bits `[lo, hi)` replaced by the low bits of `value`; `value` must fit.
pub const fn with_bits(word: u64, lo: u32, hi: u32, value: u64) -> u64 {
    assert!(lo < hi && hi <= 64);
    let mask = u64::MAX >> (64 - (hi - lo));
    assert!(value <= mask, "value does not fit its bit field");
    (word & !(mask << lo)) | (value << lo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_names_what_is_cut() {
        let mut r = Reader::new("thing", &[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!(r.u8().unwrap(), 1);
        assert_eq!(r.u16().unwrap(), 2);
        assert_eq!(r.u32().unwrap(), 3);
        assert_eq!(r.u16(), Err(DecodeError::Truncated { what: "thing", need: 9, have: 8 }));
        assert_eq!(r.u8().unwrap(), 9);
    }

    #[test]
    fn bit_fields_round_trip() {
        let w = with_bits(0, 4, 48, 0xabc);
        assert_eq!(bits(w, 4, 48), 0xabc);
        assert_eq!(bits(with_bits(u64::MAX, 0, 64, 5), 0, 64), 5);
        assert_eq!(bits(with_bits(u64::MAX, 63, 64, 0), 0, 63), u64::MAX >> 1);
    }
}
