//! Encryption of a filesystem: ChaCha20 and Poly1305 (spec 10 §15).
//!
//! An encrypted filesystem has one 32-byte master [`Key`], fixed at format time. Every structure (btree node write, journal
//! entry, data extent) is encrypted by XOR with the ChaCha20 key stream and then authenticated with Poly1305, whose
//! one-time key comes from the same key stream family. What makes the streams of two structures differ is
//! the [`Nonce`], four words that name the structure; there is one constructor per kind of structure, so that no caller
//! assembles a nonce by hand. Word 0 is the block counter ChaCha20 starts from: it advances by one per 64 bytes, which
//! is why a byte offset into a structure can be folded into the nonce ([`Nonce::advanced`]).
//!
//! The superblock's *crypt* section ([`Crypt`]) keeps the master key, in clear or wrapped for a passphrase. The superblock itself,
//! its clean section and the headers of journal entries and bsets are never encrypted.

mod section;

use std::fmt;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bkey::BVersion;
use crate::units::{Sectors, Seq};

pub use section::{Crypt, ScryptCost, UnlockError};

/// Bytes of a ChaCha20 block, the unit of the counter in [`Nonce`].
pub const BLOCK_BYTES: u64 = 64;

/// A 32-byte key: the master key, or the key a passphrase is turned into. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The four words that make the key stream of one structure unique (spec 10 §15.3): block counter, then the 96-bit
/// nonce of RFC 8439.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonce([u32; 4]);

/// Tags in the last word that keep the kinds of structures apart (spec 10 §15.4).
const EXTENT: u32 = 1 << 28;
const BTREE: u32 = 2 << 28;
const JOURNAL: u32 = 3 << 28;
const MAC_KEY: u32 = 1 << 31;

const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Nonce {
    /// All zero: checksums of erasure-coded stripes, which are not encrypted.
    pub const STRIPE: Nonce = Nonce([0; 4]);

    /// Of one write to a btree node: `offset_bytes` is where the write starts inside the node (0 for the first),
    /// `bset_seq` and `journal_seq` are the fields of its bset.
    pub const fn bset(offset_bytes: u32, bset_seq: u64, journal_seq: u64) -> Nonce {
        let (lo, hi) = halves(bset_seq);
        Nonce([offset_bytes, lo, hi, journal_seq as u32 ^ BTREE])
    }

    /// Of a journal entry.
    pub const fn jset(seq: Seq) -> Nonce {
        let (lo, hi) = halves(seq.0);
        Nonce([0, lo, hi, JOURNAL])
    }

    /// Of the payload of a data extent: the key's version, `(compression type, uncompressed size)` when the payload is
    /// compressed (types 1–4), and the nonce field of the crc entry.
    pub const fn extent(version: BVersion, compressed: Option<(u8, Sectors)>, crc_nonce: Sectors) -> Nonce {
        let (lo, hi) = halves(version.lo);
        let (ctype, size) = match compressed {
            Some((ctype, size)) => (ctype as u32, size.0 as u32),
            None => (0, 0),
        };
        let start = (size << 22).wrapping_add((crc_nonce.0 as u32).wrapping_mul(8));
        Nonce([start, lo, hi, (version.hi | ctype << 24) ^ EXTENT])
    }

    /// Of the wrapped master key in the superblock; `uuid` is the internal UUID.
    pub fn superblock_key(uuid: &uuid::Uuid) -> Nonce {
        let b = uuid.as_bytes();
        let word = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        Nonce([0, 0, word(0), word(4)])
    }

    /// The nonce for the bytes from `offset_bytes` on of the same structure; the counter wraps at 32 bits.
    ///
    /// # Panics
    /// If the offset is not a multiple of [`BLOCK_BYTES`]: the key stream can only be entered at a block.
    pub const fn advanced(self, offset_bytes: u64) -> Nonce {
        assert!(offset_bytes.is_multiple_of(BLOCK_BYTES), "offset inside a key stream block");
        let [counter, a, b, c] = self.0;
        Nonce([counter.wrapping_add((offset_bytes / BLOCK_BYTES) as u32), a, b, c])
    }

    /// The nonce the one-time key of the authenticator is drawn from.
    const fn mac_key(self) -> Nonce {
        let [counter, a, b, c] = self.0;
        Nonce([counter, a, b, c ^ MAC_KEY])
    }

    fn iv(self) -> [u8; 12] {
        let mut iv = [0; 12];
        for (bytes, word) in iv.chunks_exact_mut(4).zip(&self.0[1..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        iv
    }
}

impl Key {
    /// A key made of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// The bytes, to hand to somebody else who needs the key: the Linux driver finds a passphrase key in its keyring.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Encrypts or decrypts `data` in place (the two are the same operation).
    pub fn apply(&self, nonce: Nonce, data: &mut [u8]) {
        let mut cipher = ChaCha20::new(&self.0.into(), &nonce.iv().into());
        cipher.seek(u64::from(nonce.0[0]) * BLOCK_BYTES);
        // Unchecked: the counter wraps at 32 bits, as the format wants; the checked call refuses to.
        cipher.unchecked_apply_keystream(data);
    }

    /// The Poly1305 tag of `ciphertext` under the one-time key that belongs to `nonce`.
    pub fn mac(&self, nonce: Nonce, ciphertext: &[u8]) -> [u8; 16] {
        let mut one_time = [0; 32];
        self.apply(nonce.mac_key(), &mut one_time);
        let tag = Poly1305::new(&one_time.into()).compute_unpadded(ciphertext);
        one_time.zeroize();
        tag.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector_key() -> Key {
        Key::new(std::array::from_fn(|i| i as u8))
    }

    /// The vector of spec 10 §15.3.
    #[test]
    fn key_stream_and_tag() {
        let nonce = Nonce([0, 1, 2, 0x3000_0000]);
        assert_eq!(nonce, Nonce::jset(Seq(2 << 32 | 1)));
        let mut stream = [0; 32];
        vector_key().apply(nonce, &mut stream);
        assert_eq!(stream[..16], 0x5eee559cdbf97305adcd31ce3716c1b4u128.to_be_bytes());
        assert_eq!(stream[16..], 0xb4fabb67b3b9bca4fab8d620083f2964u128.to_be_bytes());
        let mut one_time = [0; 32];
        vector_key().apply(nonce.mac_key(), &mut one_time);
        assert_eq!(one_time[..16], 0xe2586218ebc2c180ad79ef275a22ddd0u128.to_be_bytes());
        let tag = vector_key().mac(nonce, b"123456789");
        assert_eq!(tag, 0xd84c5d60e3b8cc8dffb1c7eda283f931u128.to_be_bytes());
    }

    /// The nonces written out in spec 10 §15.4 and §15.5.
    #[test]
    fn nonces() {
        let uuid = uuid::Uuid::from_u128(0x5338ba7ad3554b8ca3d486afd381faf8);
        assert_eq!(Nonce::superblock_key(&uuid), Nonce([0, 0, 0x7aba3853, 0x8c4b55d3]));
        assert_eq!(Nonce::jset(Seq(12)), Nonce([0, 12, 0, 0x3000_0000]));
        let bset_seq = 0xfbbaeb61669a4bec;
        assert_eq!(Nonce::bset(0, bset_seq, 0), Nonce([0, 0x669a4bec, 0xfbbaeb61, 0x2000_0000]));
        assert_eq!(Nonce::bset(4096, bset_seq, 1), Nonce([4096, 0x669a4bec, 0xfbbaeb61, 0x2000_0001]));
        let version = |lo| BVersion { hi: 0, lo };
        assert_eq!(Nonce::extent(version(2), None, Sectors(0)), Nonce([0, 2, 0, 0x1000_0000]));
        let lz4 = Nonce::extent(version(1), Some((3, Sectors(128))), Sectors(0));
        assert_eq!(lz4, Nonce([0x2000_0000, 1, 0, 0x1300_0000]));
        assert_eq!(Nonce::extent(version(1), None, Sectors(3)), Nonce([24, 1, 0, 0x1000_0000]));
        assert_eq!(Nonce([u32::MAX, 1, 2, 3]).advanced(128), Nonce([1, 1, 2, 3]));
    }

    /// The data extent of spec 10 §15.5, whole: ciphertext and authenticator.
    #[test]
    fn real_extent() {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&0x36290f3d32201acfa6cd86ad0773c854u128.to_be_bytes());
        key[16..].copy_from_slice(&0xe6df1a629ea1aedb14632e4771aa9c70u128.to_be_bytes());
        let key = Key::new(key);
        let mut data: Vec<u8> = b"compressible text line\n".iter().copied().cycle().take(65536).collect();
        let nonce = Nonce::extent(BVersion { hi: 0, lo: 2 }, None, Sectors(0));
        key.apply(nonce, &mut data);
        assert_eq!(data[..16], 0x30bfc3754f09195517234fd6ffb27b5eu128.to_be_bytes());
        assert_eq!(key.mac(nonce, &data)[..10], [0xba, 0xc7, 0xd1, 0x89, 0xf6, 0x31, 0x6c, 0x11, 0x6d, 0x6d]);
    }

    proptest! {
        /// A structure can be entered at any block, also where the counter wraps.
        #[test]
        fn stream_is_position_addressed(
            counter in prop_oneof![any::<u32>(), u32::MAX - 8..=u32::MAX],
            len in 0usize..1500,
            blocks in 0usize..20,
        ) {
            let nonce = Nonce([counter, 5, 6, 7]);
            let key = vector_key();
            let mut whole = vec![0; len];
            key.apply(nonce, &mut whole);
            let at = (blocks * BLOCK_BYTES as usize).min(len / 64 * 64);
            let mut part = vec![0; len - at];
            key.apply(nonce.advanced(at as u64), &mut part);
            prop_assert_eq!(&whole[at..], &part[..]);
            key.apply(nonce, &mut whole);
            prop_assert!(whole.iter().all(|&b| b == 0));
        }
    }
}
