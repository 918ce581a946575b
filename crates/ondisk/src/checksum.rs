//! Checksums of metadata and data (spec 10 §14).
//!
//! Every checksummed structure starts with a 16-byte [`Checksum`] field and names its [`ChecksumType`] nearby. The
//! integer types fill the low bytes and leave the rest zero; the two authenticator types hold the first 10 or all 16
//! bytes of a Poly1305 tag over the *ciphertext* and need the filesystem's key and the structure's nonce. A comparison always
//! covers all 16 bytes.
//!
//! Most callers use [`compute`] or [`verify`] on the covered bytes in one piece; [`Hasher`] takes them in chunks. The
//! user-visible *options* (none, crc32c, crc64, xxhash) are fewer than the types: [`ChecksumOption`] maps them, because data
//! uses the variants with a zero start value, which can be merged, and metadata those with an all-ones start value,
//! which notice leading zeros.

use std::fmt;
use std::hash::Hasher as _;

use crc_fast::CrcAlgorithm;
use twox_hash::XxHash64;

use crate::bytes::{PutLe, Reader};
use crate::crypto::{Key, Nonce};
use crate::error::{DecodeError, Result};

/// A stored checksum: 16 bytes on disk, as two little-endian words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Checksum {
    /// Bytes 0–7.
    pub lo: u64,
    /// Bytes 8–15.
    pub hi: u64,
}

impl Checksum {
    /// Bytes of the field.
    pub const BYTES: usize = 16;

    /// Decodes the 16-byte field.
    pub fn decode(r: &mut Reader<'_>) -> Result<Checksum> {
        Ok(Checksum { lo: r.u64()?, hi: r.u64()? })
    }

    /// Appends the 16-byte field.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u64(self.lo);
        out.put_u64(self.hi);
    }

    /// The field as it is stored.
    pub const fn to_bytes(self) -> [u8; 16] {
        ((self.hi as u128) << 64 | self.lo as u128).to_le_bytes()
    }

    /// The checksum stored in these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Checksum {
        let word = u128::from_le_bytes(bytes);
        Checksum { lo: word as u64, hi: (word >> 64) as u64 }
    }
}

impl fmt::Display for Checksum {
    /// `hi:lo` in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.hi, self.lo)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a checksum is computed (spec 10 §14.1). The discriminant is the number on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ChecksumType {
    /// Always zero.
    None = 0,
    /// CRC-32C, start value all ones, inverted at the end: metadata.
    Crc32cNonzero = 1,
    /// CRC-64 (polynomial of ECMA-182, most significant bit first), start value all ones, inverted at the end: metadata.
    Crc64Nonzero = 2,
    /// First 10 bytes of a Poly1305 tag.
    ChaCha20Poly1305_80 = 3,
    /// A whole Poly1305 tag.
    ChaCha20Poly1305_128 = 4,
    /// CRC-32C, start value 0, not inverted: data.
    Crc32c = 5,
    /// CRC-64, start value 0, not inverted: data.
    Crc64 = 6,
    /// XXH64 with seed 0.
    Xxhash = 7,
}

impl ChecksumType {
    /// Every type, by number.
    pub const ALL: [ChecksumType; 8] = [
        ChecksumType::None,
        ChecksumType::Crc32cNonzero,
        ChecksumType::Crc64Nonzero,
        ChecksumType::ChaCha20Poly1305_80,
        ChecksumType::ChaCha20Poly1305_128,
        ChecksumType::Crc32c,
        ChecksumType::Crc64,
        ChecksumType::Xxhash,
    ];

    /// The type with that number on disk; `None` for 8 and above.
    pub fn from_raw(raw: u8) -> Option<ChecksumType> {
        ChecksumType::ALL.get(usize::from(raw)).copied()
    }

    /// The number on disk.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// Name used in listings.
    pub const fn name(self) -> &'static str {
        match self {
            ChecksumType::None => "none",
            ChecksumType::Crc32cNonzero => "crc32c_nonzero",
            ChecksumType::Crc64Nonzero => "crc64_nonzero",
            ChecksumType::ChaCha20Poly1305_80 => "chacha20_poly1305_80",
            ChecksumType::ChaCha20Poly1305_128 => "chacha20_poly1305_128",
            ChecksumType::Crc32c => "crc32c",
            ChecksumType::Crc64 => "crc64",
            ChecksumType::Xxhash => "xxhash",
        }
    }

    /// Bytes of the field in use: what an extent's crc entry must have room for.
    pub const fn bytes(self) -> usize {
        match self {
            ChecksumType::None => 0,
            ChecksumType::Crc32cNonzero | ChecksumType::Crc32c => 4,
            ChecksumType::Crc64Nonzero | ChecksumType::Crc64 | ChecksumType::Xxhash => 8,
            ChecksumType::ChaCha20Poly1305_80 => 10,
            ChecksumType::ChaCha20Poly1305_128 => 16,
        }
    }

    /// The covered structure is encrypted and the checksum is an authenticator.
    pub const fn is_encryption(self) -> bool {
        matches!(self, ChecksumType::ChaCha20Poly1305_80 | ChecksumType::ChaCha20Poly1305_128)
    }
}

impl fmt::Display for ChecksumType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Value of the options `metadata_checksum` and `data_checksum` (spec 10 §8.2). The discriminant is the number on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ChecksumOption {
    /// No checksums.
    None = 0,
    /// CRC-32C.
    Crc32c = 1,
    /// CRC-64.
    Crc64 = 2,
    /// XXH64.
    Xxhash = 3,
}

/// Whether and how new structures are encrypted: the superblock's ENCRYPTION_TYPE with option `wide_macs`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EncryptionMode {
    /// Not encrypted.
    Off,
    /// Encrypted; data extents carry 10 bytes of tag.
    On,
    /// Encrypted; data extents carry the whole tag.
    WideMacs,
}

impl ChecksumOption {
    /// The option with that number on disk; `None` for 4 and above.
    pub const fn from_raw(raw: u8) -> Option<ChecksumOption> {
        Some(match raw {
            0 => ChecksumOption::None,
            1 => ChecksumOption::Crc32c,
            2 => ChecksumOption::Crc64,
            3 => ChecksumOption::Xxhash,
            _ => return None,
        })
    }

    /// The number on disk.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// Name of the option's value.
    pub const fn name(self) -> &'static str {
        match self {
            ChecksumOption::None => "none",
            ChecksumOption::Crc32c => "crc32c",
            ChecksumOption::Crc64 => "crc64",
            ChecksumOption::Xxhash => "xxhash",
        }
    }

    /// The option's value with that name.
    pub fn from_name(name: &str) -> Option<ChecksumOption> {
        (0..4).filter_map(ChecksumOption::from_raw).find(|o| o.name() == name)
    }

    /// Type of new superblocks, which are never encrypted.
    pub const fn superblock_type(self) -> ChecksumType {
        match self {
            ChecksumOption::None => ChecksumType::None,
            ChecksumOption::Crc32c => ChecksumType::Crc32cNonzero,
            ChecksumOption::Crc64 => ChecksumType::Crc64Nonzero,
            ChecksumOption::Xxhash => ChecksumType::Xxhash,
        }
    }

    /// Type of new btree node writes and journal entries.
    pub const fn metadata_type(self, encryption: EncryptionMode) -> ChecksumType {
        match encryption {
            EncryptionMode::Off => self.superblock_type(),
            EncryptionMode::On | EncryptionMode::WideMacs => ChecksumType::ChaCha20Poly1305_128,
        }
    }

    /// Type of new data extents, other than those of nocow files, which have none.
    pub const fn data_type(self, encryption: EncryptionMode) -> ChecksumType {
        match (encryption, self) {
            (EncryptionMode::On, _) => ChecksumType::ChaCha20Poly1305_80,
            (EncryptionMode::WideMacs, _) => ChecksumType::ChaCha20Poly1305_128,
            (EncryptionMode::Off, ChecksumOption::None) => ChecksumType::None,
            (EncryptionMode::Off, ChecksumOption::Crc32c) => ChecksumType::Crc32c,
            (EncryptionMode::Off, ChecksumOption::Crc64) => ChecksumType::Crc64,
            (EncryptionMode::Off, ChecksumOption::Xxhash) => ChecksumType::Xxhash,
        }
    }
}

/// The CRC register after `bytes` when it was `start` before, without the inversion a CRC usually ends with.
pub(crate) fn crc_register(algorithm: CrcAlgorithm, start: u64, bytes: &[u8]) -> u64 {
    let mut digest = crc_fast::Digest::new_with_init_state(algorithm, start);
    digest.update(bytes);
    digest.get_state()
}

/// Computes a checksum over bytes that arrive in chunks. Only the types without a key: an authenticator needs its bytes
/// in one piece ([`compute`]).
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    None,
    Crc {
        algorithm: CrcAlgorithm,
        register: u64,
        /// What the register is XORed with at the end.
        last: u64,
    },
    Xxhash(XxHash64),
}

impl Hasher {
    /// A hasher that has seen no bytes; `None` for the authenticator types.
    pub fn new(ty: ChecksumType) -> Option<Hasher> {
        let crc = |algorithm, register, last| State::Crc { algorithm, register, last };
        const ONES32: u64 = u32::MAX as u64;
        Some(Hasher(match ty {
            ChecksumType::None => State::None,
            ChecksumType::Crc32cNonzero => crc(CrcAlgorithm::Crc32Iscsi, ONES32, ONES32),
            ChecksumType::Crc64Nonzero => crc(CrcAlgorithm::Crc64We, u64::MAX, u64::MAX),
            ChecksumType::Crc32c => crc(CrcAlgorithm::Crc32Iscsi, 0, 0),
            ChecksumType::Crc64 => crc(CrcAlgorithm::Crc64We, 0, 0),
            ChecksumType::Xxhash => State::Xxhash(XxHash64::with_seed(0)),
            ChecksumType::ChaCha20Poly1305_80 | ChecksumType::ChaCha20Poly1305_128 => return None,
        }))
    }

    /// Continues with the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::None => {}
            State::Crc { algorithm, register, .. } => *register = crc_register(*algorithm, *register, bytes),
            State::Xxhash(state) => state.write(bytes),
        }
    }

    /// The checksum of the bytes seen so far.
    pub fn finish(&self) -> Checksum {
        let lo = match &self.0 {
            State::None => 0,
            State::Crc { register, last, .. } => register ^ last,
            State::Xxhash(state) => state.finish(),
        };
        Checksum { lo, hi: 0 }
    }
}

/// The checksum of `bytes`; `cipher` is the filesystem's key and the structure's nonce, used by the authenticator types.
///
/// # Errors
/// [`DecodeError::Unsupported`] for an authenticator type without a key: the filesystem is not encrypted, or still locked.
pub fn compute(ty: ChecksumType, cipher: Option<(&Key, Nonce)>, bytes: &[u8]) -> Result<Checksum> {
    if let Some(mut hasher) = Hasher::new(ty) {
        hasher.update(bytes);
        return Ok(hasher.finish());
    }
    let Some((key, nonce)) = cipher else {
        return Err(DecodeError::unsupported("checksum", format!("type {ty} needs the filesystem's key")));
    };
    let mut tag = key.mac(nonce, bytes);
    tag[ty.bytes()..].fill(0);
    Ok(Checksum::from_bytes(tag))
}

/// Compares `stored`, the checksum found in a structure called `what`, with that of the covered `bytes`.
///
/// # Errors
/// [`DecodeError::BadChecksum`] if they differ in any of their 16 bytes; as [`compute`].
pub fn verify(
    what: &'static str,
    ty: ChecksumType,
    cipher: Option<(&Key, Nonce)>,
    stored: Checksum,
    bytes: &[u8],
) -> Result<()> {
    let computed = compute(ty, cipher, bytes)?;
    if computed == stored {
        return Ok(());
    }
    Err(DecodeError::BadChecksum {
        what,
        csum_type: ty.raw(),
        stored: stored.to_string(),
        computed: computed.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(ty: ChecksumType, bytes: &[u8]) -> u64 {
        let sum = compute(ty, None, bytes).unwrap();
        assert_eq!(sum.hi, 0);
        sum.lo
    }

    /// The table of spec 10 §14.2.
    #[test]
    fn spec_vectors() {
        let all: Vec<u8> = (0..=255).collect();
        let rows: [(&[u8], [u64; 5]); 5] = [
            (
                b"123456789",
                [0xe3069283, 0x58e3fa20, 0x62ec59e3f1a4f00a, 0x6c40df5f0b497347, 0x8cb841db40e6ae83],
            ),
            (
                b"bcachefs",
                [0xea51e86c, 0x66795ae6, 0x536e7689b561aa6e, 0x503d37cb13affc03, 0xbb0dc80bc3af5ccc],
            ),
            (&[0; 32], [0x8a9136aa, 0, 0x30ccab3e861f5a93, 0, 0xf6e9be5d70632cf5]),
            (&all, [0x9c44184b, 0x2436a9db, 0x59c3325b2927a19a, 0x62b0da1c1b130a91, 0x1facbe8406cd904b]),
            (b"", [0, 0, 0, 0, 0xef46db3751d8e999]),
        ];
        use ChecksumType::*;
        for (input, want) in rows {
            let got = [Crc32cNonzero, Crc32c, Crc64Nonzero, Crc64, Xxhash].map(|ty| value(ty, input));
            assert_eq!(got, want, "{input:?}");
            assert_eq!(value(None, input), 0);
        }
        let mut stored = [0u8; 16];
        stored[..4].copy_from_slice(&[0x83, 0x92, 0x06, 0xe3]);
        assert_eq!(compute(Crc32cNonzero, Option::None, b"123456789").unwrap().to_bytes(), stored);
    }

    /// The tag of spec 10 §15.3, whole and cut to 10 bytes.
    #[test]
    fn authenticators() {
        let key = Key::new(std::array::from_fn(|i| i as u8));
        let nonce = Nonce::jset(crate::units::Seq(2 << 32 | 1));
        let cipher = Some((&key, nonce));
        let mut tag = 0xd84c5d60e3b8cc8dffb1c7eda283f931u128.to_be_bytes();
        let wide = compute(ChecksumType::ChaCha20Poly1305_128, cipher, b"123456789").unwrap();
        assert_eq!(wide.to_bytes(), tag);
        tag[10..].fill(0);
        let narrow = compute(ChecksumType::ChaCha20Poly1305_80, cipher, b"123456789").unwrap();
        assert_eq!(narrow.to_bytes(), tag);
        assert!(verify("test", ChecksumType::ChaCha20Poly1305_80, cipher, narrow, b"123456789").is_ok());
        // All 16 bytes are compared (spec 20 §2.2): the whole tag is not a valid 80-bit checksum.
        assert!(verify("test", ChecksumType::ChaCha20Poly1305_80, cipher, wide, b"123456789").is_err());
        let without_key = compute(ChecksumType::ChaCha20Poly1305_128, None, b"123456789");
        assert!(matches!(without_key, Err(DecodeError::Unsupported { .. })));
    }

    #[test]
    fn options_map_to_types() {
        for raw in 0..4 {
            let option = ChecksumOption::from_raw(raw).unwrap();
            assert_eq!(option.raw(), raw);
            assert_eq!(ChecksumOption::from_name(option.name()), Some(option));
        }
        let types = |mode| {
            (0..4).map(move |raw| {
                let option = ChecksumOption::from_raw(raw).unwrap();
                (option.metadata_type(mode).raw(), option.data_type(mode).raw())
            })
        };
        assert!(types(EncryptionMode::Off).eq([(0, 0), (1, 5), (2, 6), (7, 7)]));
        assert!(types(EncryptionMode::On).all(|t| t == (4, 3)));
        assert!(types(EncryptionMode::WideMacs).all(|t| t == (4, 4)));
        assert!(ChecksumType::ALL.iter().enumerate().all(|(i, t)| usize::from(t.raw()) == i));
        assert_eq!(ChecksumType::from_raw(8), None);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            ty in 0u8..8,
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cut in any::<prop::sample::Index>(),
        ) {
            let ty = ChecksumType::from_raw(ty).unwrap();
            if let Some(mut hasher) = Hasher::new(ty) {
                let cut = cut.index(bytes.len() + 1);
                hasher.update(&bytes[..cut]);
                hasher.update(&bytes[cut..]);
                prop_assert_eq!(hasher.finish(), compute(ty, None, &bytes).unwrap());
                prop_assert_eq!(Checksum::from_bytes(hasher.finish().to_bytes()), hasher.finish());
            }
        }

        #[test]
        fn every_flipped_bit_is_noticed(bytes in proptest::collection::vec(any::<u8>(), 1..200), bit in any::<prop::sample::Index>()) {
            let bit = bit.index(bytes.len() * 8);
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            for ty in ChecksumType::ALL.into_iter().filter(|t| *t != ChecksumType::None && !t.is_encryption()) {
                prop_assert_ne!(compute(ty, None, &bytes).unwrap(), compute(ty, None, &bad).unwrap());
            }
        }
    }
}
