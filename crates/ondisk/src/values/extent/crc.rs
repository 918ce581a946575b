//! How an extent's payload is checksummed and compressed, and which part of it is live (spec 40 §7.1, §7.2).

use crate::bytes::{PutLe, bits, with_bits};
use crate::checksum::{Checksum, ChecksumType};
use crate::compression::CompressionType;

/// What is in force for a pointer. Sizes and offsets are in sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crc {
    /// Sectors the payload takes on disk, from the pointer's sector on.
    pub compressed_size: u32,
    /// Sectors of the decoded payload.
    pub uncompressed_size: u32,
    /// Where in the decoded payload the key's live part begins; it is as long as the key.
    pub offset: u32,
    /// Where this payload begins in the stream that was first written under the key's version, in sectors; nonzero only in
    /// encrypted filesystems (spec 40 §9.5).
    pub nonce: u32,
    /// Number of the checksum type; see [`Crc::checksum_type`].
    pub csum_type: u8,
    /// Compression of the payload.
    pub compression: CompressionType,
    /// Checksum of the payload as it is on disk.
    pub csum: Checksum,
}

/// The three encodings; a larger one has room for longer checksums and sizes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CrcForm {
    /// One word: checksums of 4 bytes, 128 sectors, no nonce.
    Crc32,
    /// Two words: checksums of 10 bytes, 512 sectors.
    Crc64,
    /// Three words: checksums of 16 bytes, 8192 sectors.
    Crc128,
}

/// A crc entry: a [`Crc`] and the encoding it is stored in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrcEntry {
    /// The encoding.
    pub form: CrcForm,
    /// The contents.
    pub crc: Crc,
}

impl Crc {
    /// What is in force before the first crc entry of a key of that size: plain data (spec 40 §7.2).
    pub const fn plain(key_size: u32) -> Crc {
        Crc {
            compressed_size: key_size,
            uncompressed_size: key_size,
            offset: 0,
            nonce: 0,
            csum_type: 0,
            compression: CompressionType::NONE,
            csum: Checksum { lo: 0, hi: 0 },
        }
    }

    /// The checksum type; `None` if its number is unknown.
    pub fn checksum_type(&self) -> Option<ChecksumType> {
        ChecksumType::from_raw(self.csum_type)
    }

    /// The payload must be decompressed.
    pub const fn is_compressed(&self) -> bool {
        self.compression.is_compressed()
    }

    /// The payload can only be read as a whole: it has a checksum or is compressed.
    pub const fn is_encoded(&self) -> bool {
        self.csum_type != 0 || self.is_compressed()
    }

    /// Sectors on disk that are charged to a key of `live` sectors (spec 50 §4.1): all of them when not compressed, else
    /// the key's share of the payload, rounded up.
    pub fn disk_sectors(&self, live: u32) -> u32 {
        if !self.is_compressed() || self.uncompressed_size == 0 {
            return live;
        }
        let share = u64::from(live) * u64::from(self.compressed_size);
        u32::try_from(share.div_ceil(u64::from(self.uncompressed_size))).unwrap_or(u32::MAX)
    }

    /// Whether a writer must emit an entry at all (spec 40 §7.2).
    pub const fn needs_entry(&self) -> bool {
        self.csum_type != 0 || self.compression.0 != 0 || self.nonce != 0
    }

    /// The entry in the smallest encoding that holds it; `None` if none does, or the checksum type is unknown.
    pub fn smallest_entry(self) -> Option<CrcEntry> {
        let csum_bytes = self.checksum_type()?.bytes();
        [CrcForm::Crc32, CrcForm::Crc64, CrcForm::Crc128]
            .into_iter()
            .find(|f| {
                csum_bytes <= f.csum_bytes()
                    && self.uncompressed_size <= f.size_max()
                    && self.nonce <= f.nonce_max()
            })
            .map(|form| CrcEntry { form, crc: self })
            .filter(CrcEntry::fits)
    }
}

impl CrcForm {
    /// Words of the entry.
    pub const fn u64s(self) -> usize {
        match self {
            CrcForm::Crc32 => 1,
            CrcForm::Crc64 => 2,
            CrcForm::Crc128 => 3,
        }
    }

    /// Bytes of checksum it has room for.
    pub const fn csum_bytes(self) -> usize {
        match self {
            CrcForm::Crc32 => 4,
            CrcForm::Crc64 => 10,
            CrcForm::Crc128 => 16,
        }
    }

    /// Largest payload, in sectors.
    pub const fn size_max(self) -> u32 {
        1 << self.size_bits()
    }

    /// Largest nonce.
    pub const fn nonce_max(self) -> u32 {
        match self {
            CrcForm::Crc32 => 0,
            CrcForm::Crc64 => (1 << 10) - 1,
            CrcForm::Crc128 => (1 << 13) - 1,
        }
    }

    /// Width of the two sizes and of the offset.
    const fn size_bits(self) -> u32 {
        match self {
            CrcForm::Crc32 => 7,
            CrcForm::Crc64 => 9,
            CrcForm::Crc128 => 13,
        }
    }

    /// Entry type, which is also the number of its lowest set bit.
    const fn entry_type(self) -> u32 {
        match self {
            CrcForm::Crc32 => 1,
            CrcForm::Crc64 => 2,
            CrcForm::Crc128 => 3,
        }
    }
}

impl CrcEntry {
    /// Unpacks an entry whose words are `words`, [`CrcForm::u64s`] of them; missing words count as 0.
    pub(super) fn unpack(form: CrcForm, words: [u64; 3]) -> CrcEntry {
        let head = words[0];
        let w = form.size_bits();
        let size_at = form.entry_type() + 1;
        let size = |n: u32| bits(head, size_at + n * w, size_at + (n + 1) * w) as u32;
        let (nonce, types_at, csum) = match form {
            CrcForm::Crc32 => (0, 24, Checksum { lo: bits(head, 32, 64), hi: 0 }),
            CrcForm::Crc64 => (bits(head, 30, 40), 40, Checksum { lo: words[1], hi: bits(head, 48, 64) }),
            CrcForm::Crc128 => (bits(head, 43, 56), 56, Checksum { lo: words[1], hi: words[2] }),
        };
        CrcEntry {
            form,
            crc: Crc {
                compressed_size: size(0) + 1,
                uncompressed_size: size(1) + 1,
                offset: size(2),
                nonce: nonce as u32,
                csum_type: bits(head, types_at, types_at + 4) as u8,
                compression: CompressionType(bits(head, types_at + 4, types_at + 8) as u8),
                csum,
            },
        }
    }

    /// Every field fits the encoding.
    pub fn fits(&self) -> bool {
        let (c, f) = (&self.crc, self.form);
        let sizes = [c.compressed_size, c.uncompressed_size].iter().all(|s| (1..=f.size_max()).contains(s));
        let csum = match f {
            CrcForm::Crc32 => c.csum.hi == 0 && c.csum.lo >> 32 == 0,
            CrcForm::Crc64 => c.csum.hi >> 16 == 0,
            CrcForm::Crc128 => true,
        };
        sizes
            && csum
            && c.offset < f.size_max()
            && c.nonce <= f.nonce_max()
            && c.csum_type < 16
            && c.compression.0 < 16
    }

    /// Appends the entry.
    ///
    /// # Panics
    /// If it does not fit ([`CrcEntry::fits`]).
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.fits(), "crc does not fit its entry");
        let (c, f) = (&self.crc, self.form);
        let w = f.size_bits();
        let size_at = f.entry_type() + 1;
        let mut head = 1 << f.entry_type();
        for (n, v) in [c.compressed_size - 1, c.uncompressed_size - 1, c.offset].into_iter().enumerate() {
            let lo = size_at + n as u32 * w;
            head = with_bits(head, lo, lo + w, v.into());
        }
        let types = u64::from(c.csum_type) | u64::from(c.compression.0) << 4;
        match f {
            CrcForm::Crc32 => {
                head |= types << 24 | c.csum.lo << 32;
                out.put_u64(head);
            }
            CrcForm::Crc64 => {
                head |= u64::from(c.nonce) << 30 | types << 40 | c.csum.hi << 48;
                out.put_u64(head);
                out.put_u64(c.csum.lo);
            }
            CrcForm::Crc128 => {
                head |= u64::from(c.nonce) << 43 | types << 56;
                out.put_u64(head);
                out.put_u64(c.csum.lo);
                out.put_u64(c.csum.hi);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn crc(size: u32, csum_type: ChecksumType, nonce: u32) -> Crc {
        Crc { nonce, csum_type: csum_type.raw(), ..Crc::plain(size) }
    }

    #[test]
    fn the_smallest_form_is_chosen() {
        let form = |size, ty, nonce| crc(size, ty, nonce).smallest_entry().map(|e| e.form);
        assert_eq!(form(128, ChecksumType::Crc32c, 0), Some(CrcForm::Crc32));
        assert_eq!(form(129, ChecksumType::Crc32c, 0), Some(CrcForm::Crc64));
        assert_eq!(form(8, ChecksumType::Xxhash, 0), Some(CrcForm::Crc64));
        assert_eq!(form(8, ChecksumType::ChaCha20Poly1305_80, 1023), Some(CrcForm::Crc64));
        assert_eq!(form(8, ChecksumType::ChaCha20Poly1305_80, 1024), Some(CrcForm::Crc128));
        assert_eq!(form(8, ChecksumType::ChaCha20Poly1305_128, 0), Some(CrcForm::Crc128));
        assert_eq!(form(512, ChecksumType::Crc64, 0), Some(CrcForm::Crc64));
        assert_eq!(form(8192, ChecksumType::Crc64, 8191), Some(CrcForm::Crc128));
        assert_eq!(form(8193, ChecksumType::Crc64, 0), None);
        assert_eq!(form(8, ChecksumType::Crc64, 8192), None);
    }

    #[test]
    fn only_the_live_share_of_a_compressed_payload_is_charged() {
        let lz4 = Crc { compression: CompressionType::LZ4, compressed_size: 8, ..Crc::plain(128) };
        assert_eq!((lz4.disk_sectors(16), lz4.disk_sectors(112)), (1, 7));
        assert_eq!(Crc { compression: CompressionType::INCOMPRESSIBLE, ..lz4 }.disk_sectors(16), 16);
    }

    proptest! {
        #[test]
        fn every_crc_word_round_trips(form in 0usize..3, words: [u64; 3]) {
            let form = [CrcForm::Crc32, CrcForm::Crc64, CrcForm::Crc128][form];
            let mut words = words;
            let ty = form.entry_type();
            words[0] = words[0] >> (ty + 1) << (ty + 1) | 1 << ty;
            if form == CrcForm::Crc32 {
                words[0] &= !(1 << 23); // unused
            }
            words[form.u64s()..].fill(0);
            let mut out = Vec::new();
            CrcEntry::unpack(form, words).encode(&mut out);
            let expected: Vec<u8> = words[..form.u64s()].iter().flat_map(|w| w.to_le_bytes()).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
