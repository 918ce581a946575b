//! Hashes of names: where a directory entry or an extended attribute lives in its b-tree (spec 40 §4.1).
//!
//! Directories and attributes are hash tables laid over b-trees: the offset of an item's key is the hash of its name, with linear
//! probing. The hash is seeded by the owning inode, whose flags also name the [`StrHashType`]; [`StrHash`] is that pair made
//! ready for hashing many names.
//!
//! In a casefolding directory (format 1.24) the bytes to hash are those of the *folded* name (spec 80 §5.9).

use crc_fast::CrcAlgorithm;
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;

use crate::checksum::crc_register;

/// Type of a string hash, as stored in inodes (spec 10 §8.2). The discriminant is the number on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum StrHashType {
    /// The CRC-32C register.
    Crc32c = 0,
    /// The CRC-64 register, halved.
    Crc64 = 1,
    /// SipHash-2-4 keyed with SHA-256 of the seed, halved.
    SiphashOld = 2,
    /// SipHash-2-4 keyed with the seed, halved.
    Siphash = 3,
}

impl StrHashType {
    /// The type with that number on disk; `None` for 4 and above.
    pub const fn from_raw(raw: u8) -> Option<StrHashType> {
        Some(match raw {
            0 => StrHashType::Crc32c,
            1 => StrHashType::Crc64,
            2 => StrHashType::SiphashOld,
            3 => StrHashType::Siphash,
            _ => return None,
        })
    }

    /// The type that the filesystem option `str_hash` (0 crc32c, 1 crc64, 2 siphash) selects for new inodes;
    /// `new_siphash` is the superblock's feature bit of that name. `None` for 3 and above.
    pub const fn from_option(option: u8, new_siphash: bool) -> Option<StrHashType> {
        match option {
            2 if new_siphash => Some(StrHashType::Siphash),
            0..=2 => StrHashType::from_raw(option),
            _ => None,
        }
    }

    /// The number on disk.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// Name used in listings.
    pub const fn name(self) -> &'static str {
        match self {
            StrHashType::Crc32c => "crc32c",
            StrHashType::Crc64 => "crc64",
            StrHashType::SiphashOld => "siphash_old",
            StrHashType::Siphash => "siphash",
        }
    }
}

/// The hash function of one inode: its type with the seed already worked in.
#[derive(Clone, Copy, Debug)]
pub struct StrHash(Seeded);

#[derive(Clone, Copy, Debug)]
enum Seeded {
    /// A CRC register that has taken in the seed.
    Crc32c(u64),
    Crc64(u64),
    Siphash(SipHasher24),
}

/// The smallest hash of a directory entry; 0 and 1 stand for "." and ".." in the positions readdir hands out.
const DIRENT_MIN: u64 = 2;

impl StrHash {
    /// The hash function of an inode with this type and `bi_hash_seed`.
    pub fn new(ty: StrHashType, seed: u64) -> StrHash {
        let seed_bytes = seed.to_le_bytes();
        StrHash(match ty {
            StrHashType::Crc32c => {
                Seeded::Crc32c(crc_register(CrcAlgorithm::Crc32Iscsi, u32::MAX.into(), &seed_bytes))
            }
            StrHashType::Crc64 => Seeded::Crc64(crc_register(CrcAlgorithm::Crc64We, u64::MAX, &seed_bytes)),
            StrHashType::SiphashOld => {
                let digest: [u8; 32] = Sha256::digest(seed_bytes).into();
                let mut key = [0; 16];
                key.copy_from_slice(&digest[..16]);
                Seeded::Siphash(SipHasher24::new_with_key(&key))
            }
            StrHashType::Siphash => Seeded::Siphash(SipHasher24::new_with_keys(seed, 0)),
        })
    }

    /// The offset a directory entry of that (folded, if the directory folds) name belongs at.
    pub fn dirent(&self, name: &[u8]) -> u64 {
        self.hash(name).max(DIRENT_MIN)
    }

    /// The offset an extended attribute belongs at; `x_type` is the number of its prefix, `name` comes without prefix.
    pub fn xattr(&self, x_type: u8, name: &[u8]) -> u64 {
        let mut buf = [0; XATTR_NAME_BYTES_MAX + 1];
        match buf.get_mut(..name.len() + 1) {
            Some(item) => {
                item[0] = x_type;
                item[1..].copy_from_slice(name);
                self.hash_in_two_parts(item)
            }
            None => self.hash_in_two_parts(&mut [&[x_type], name].concat()),
        }
    }

    /// Hashes an item as the reference does that hashes its first byte apart from the rest. Its SipHash goes wrong there: the
    /// bytes behind the last whole word begin one byte late in the word that is hashed last. The gap shows what stood there
    /// before, which is the item's first byte, and the item's last byte falls off (spec 40 §4.1).
    fn hash_in_two_parts(&self, item: &mut [u8]) -> u64 {
        const WORD: usize = 8;
        let whole = item.len() - item.len() % WORD;
        if matches!(self.0, Seeded::Siphash(_)) && whole > 0 && whole < item.len() {
            let first = item[0];
            item[whole..].rotate_right(1);
            item[whole] = first;
        }
        self.hash(item)
    }

    fn hash(&self, item: &[u8]) -> u64 {
        match self.0 {
            Seeded::Crc32c(register) => crc_register(CrcAlgorithm::Crc32Iscsi, register, item),
            Seeded::Crc64(register) => crc_register(CrcAlgorithm::Crc64We, register, item) >> 1,
            Seeded::Siphash(hasher) => hasher.hash(item) >> 1,
        }
    }
}

/// Longest attribute name the format can hold: its length is one byte (spec 40 §6.1).
const XATTR_NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seeded(ty: StrHashType, seed: [u8; 8]) -> StrHash {
        StrHash::new(ty, u64::from_le_bytes(seed))
    }

    /// The worked examples of spec 40 §4.1, all from real images.
    #[test]
    fn spec_examples() {
        let siphash = seeded(StrHashType::Siphash, [0xc7, 0x4a, 0x86, 0x8d, 0x17, 0xb6, 0xb4, 0x3f]);
        assert_eq!(siphash.dirent(b"own"), 8011290068144613401);
        let crc64 = seeded(StrHashType::Crc64, [0x49, 0x47, 0x64, 0xd4, 0xf4, 0xc2, 0x0d, 0x36]);
        assert_eq!(crc64.dirent(b"own"), 7812878645067510011);
        let crc32c = seeded(StrHashType::Crc32c, [0x7e, 0x28, 0x2e, 0x24, 0x8e, 0x05, 0x1c, 0xc0]);
        assert_eq!(crc32c.dirent(b"own"), 2785655228);
        let xattrs = StrHash::new(StrHashType::Siphash, 0xa70f427c5ff45449);
        assert_eq!(xattrs.xattr(0, b"foo"), 6970707091699215751);
        assert_eq!(xattrs.xattr(1, b""), 629075267224675735);
    }

    /// Attributes of a real image: names within the first word, to the end of the second, and a little further than a word.
    #[test]
    fn attributes_behind_the_first_word_lose_their_last_byte() {
        let hash = StrHash::new(StrHashType::Siphash, 0x1fbd_00df_c9ec_0c12);
        assert_eq!(hash.xattr(0, b"one"), 8266979498258455017);
        assert_eq!(hash.xattr(0, "überschlüssel".as_bytes()), 6407982792849088420);
        assert_eq!(hash.xattr(0, b"replaced"), 7394133650726898830);
        assert_eq!(hash.xattr(0, &[b'k'; 250]), 6412822117296990651);
        assert_eq!(hash.xattr(0, b"replaceD"), hash.xattr(0, b"replaced"), "the last byte does not count");
    }

    /// The old form is the new one with both key words taken from SHA-256 of the seed.
    #[test]
    fn siphash_old_is_keyed_by_sha256() {
        // SHA-256 of eight zero bytes starts with af5570f5 a1810b7a f78caf4b c70a660f.
        let want = SipHasher24::new_with_keys(0x7a0b81a1f57055af, 0x0f660ac74baf8cf7).hash(b"name") >> 1;
        assert_eq!(StrHash::new(StrHashType::SiphashOld, 0).dirent(b"name"), want);
    }

    #[test]
    fn types_and_options() {
        for raw in 0..4 {
            assert_eq!(StrHashType::from_raw(raw).unwrap().raw(), raw);
        }
        assert_eq!(StrHashType::from_raw(4), None);
        assert_eq!(StrHashType::from_option(2, true), Some(StrHashType::Siphash));
        assert_eq!(StrHashType::from_option(2, false), Some(StrHashType::SiphashOld));
        assert_eq!(StrHashType::from_option(1, true), Some(StrHashType::Crc64));
        assert_eq!(StrHashType::from_option(3, true), None);
    }

    proptest! {
        #[test]
        fn hashes_stay_in_range(
            ty in 0u8..4,
            seed in any::<u64>(),
            name in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let ty = StrHashType::from_raw(ty).unwrap();
            let hash = StrHash::new(ty, seed);
            let max = if ty == StrHashType::Crc32c { u32::MAX.into() } else { u64::MAX >> 1 };
            prop_assert!((DIRENT_MIN..=max).contains(&hash.dirent(&name)));
            prop_assert!(hash.xattr(7, &name) <= max);
            let mut joined = [&[7], &name[..]].concat();
            let whole = joined.len() / 8 * 8;
            if ty.raw() >= 2 && whole > 0 && whole < joined.len() {
                joined.pop();
                joined.insert(whole, 7);
            }
            prop_assert_eq!(hash.xattr(7, &name).max(DIRENT_MIN), hash.dirent(&joined));
        }
    }
}
