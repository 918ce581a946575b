//! Keys that say everything with their position: lru, freespace, need_discard, bucket_to_stripe … (spec 50 §2.3–§2.5,
//! spec 80 §5.15–§5.18). Their type is `set`, without a value.

use super::problem::{Check, ensure};
use crate::bkey::Bkey;
use crate::bpos::Bpos;
use crate::bytes::{PutLe, Reader, bits};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;
use crate::units::{BucketIndex, DevIndex, Gen, Seq};
use crate::version::Version;

/// A bucket of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DevBucket {
    /// The device.
    pub dev: DevIndex,
    /// The bucket.
    pub bucket: BucketIndex,
}

impl DevBucket {
    /// Its key in the alloc b-tree.
    pub fn pos(self) -> Bpos {
        Bpos::new(self.dev.0.into(), self.bucket.0, 0)
    }

    /// The bucket a position in the alloc b-tree is about; `None` if the device number is none.
    pub fn from_pos(pos: Bpos) -> Option<DevBucket> {
        Some(DevBucket { dev: DevIndex(u8::try_from(pos.inode).ok()?), bucket: BucketIndex(pos.offset) })
    }

    /// Device and bucket in one word: `dev << 48 | bucket`.
    pub fn to_u64(self) -> u64 {
        u64::from(self.dev.0) << 48 | bits(self.bucket.0, 0, 48)
    }

    /// The reverse of [`DevBucket::to_u64`]; `None` if the device number is none.
    pub fn from_u64(v: u64) -> Option<DevBucket> {
        Some(DevBucket { dev: DevIndex(u8::try_from(v >> 48).ok()?), bucket: BucketIndex(bits(v, 0, 48)) })
    }
}

/// Which least-recently-used list a key belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lru {
    /// Buckets of cached data of a device, by read time.
    Read(DevIndex),
    /// Partly used buckets, the emptiest first; of all devices up to 1.38, of one device from 1.39.
    Fragmentation(Option<DevIndex>),
    /// Stripes with empty blocks (1.23).
    Stripes,
    /// An id this version does not know.
    Unknown(u16),
}

/// First id of the fragmentation lists of 1.39.
const FRAGMENTATION_PER_DEV: u16 = 8192;

impl Lru {
    /// The fragmentation list a bucket of `dev` belongs to.
    pub fn fragmentation(dev: DevIndex, version: Version) -> Lru {
        Lru::Fragmentation(version.fragmentation_lru_per_device().then_some(dev))
    }

    /// The list's id.
    pub fn id(self) -> u16 {
        match self {
            Lru::Read(dev) => dev.0.into(),
            Lru::Fragmentation(Some(dev)) => FRAGMENTATION_PER_DEV + u16::from(dev.0),
            Lru::Fragmentation(None) => 0xffff,
            Lru::Stripes => 0xfffe,
            Lru::Unknown(id) => id,
        }
    }

    /// The list with that id.
    pub fn from_id(id: u16) -> Lru {
        match id {
            0..=255 => Lru::Read(DevIndex(id as u8)),
            8192..=8447 => Lru::Fragmentation(Some(DevIndex((id - FRAGMENTATION_PER_DEV) as u8))),
            0xffff => Lru::Fragmentation(None),
            0xfffe => Lru::Stripes,
            _ => Lru::Unknown(id),
        }
    }
}

/// A key of the lru b-tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LruEntry {
    /// The list.
    pub lru: Lru,
    /// Place in the list, 48 bits, never 0.
    pub time: u64,
    /// What is listed: a bucket ([`DevBucket::to_u64`]) or the index of a stripe.
    pub target: u64,
}

impl LruEntry {
    /// The position of the key.
    pub fn pos(self) -> Bpos {
        Bpos::new(u64::from(self.lru.id()) << 48 | bits(self.time, 0, 48), self.target, 0)
    }

    /// The entry at a position.
    pub fn from_pos(pos: Bpos) -> LruEntry {
        LruEntry {
            lru: Lru::from_id((pos.inode >> 48) as u16),
            time: bits(pos.inode, 0, 48),
            target: pos.offset,
        }
    }

    /// Checks a key of the lru b-tree.
    pub fn validate(k: &Bkey) -> Check {
        ensure(LruEntry::from_pos(k.pos).time != 0, E::LRU_ENTRY_AT_TIME_0, || format!("at {}", k.pos))
    }
}

/// Value of the legacy key type `lru` (26).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegacyLru {
    /// The bucket listed.
    pub idx: u64,
}

impl LegacyLru {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self> {
        Ok(Self { idx: Reader::new("lru", value).u64()? })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.idx);
    }
}

/// Where the freespace b-tree lists a free bucket: buckets whose generation is far from their oldest pointer come last,
/// because the top byte is that distance divided by 16 (spec 50 §2.3). A key covers buckets, so a key for this bucket
/// alone ends one behind.
pub fn freespace_offset(bucket: BucketIndex, gc_gen: u8) -> u64 {
    bucket.0 | u64::from(gc_gen >> 4) << 56
}

/// The bucket an offset in the freespace b-tree stands for, and the sixteenths of its generation's distance.
pub fn freespace_bucket(offset: u64) -> (BucketIndex, u8) {
    (BucketIndex(bits(offset, 0, 56)), (offset >> 56) as u8)
}

/// Where the need_discard b-tree lists a bucket that was emptied by that journal entry (spec 50 §2.4, spec 80 §5.17).
pub fn need_discard_pos(at: DevBucket, emptied: Seq, version: Version) -> Bpos {
    if version.need_discard_by_journal_seq() { Bpos::new(emptied.0, at.to_u64(), 0) } else { at.pos() }
}

/// The bucket a key of the need_discard b-tree is about; `None` if the device number is none.
pub fn need_discard_bucket(pos: Bpos, version: Version) -> Option<DevBucket> {
    if version.need_discard_by_journal_seq() {
        DevBucket::from_u64(pos.offset)
    } else {
        DevBucket::from_pos(pos)
    }
}

/// Key of the bucket_gens b-tree that holds a bucket's generation, and the place there (spec 50 §2.2).
pub fn bucket_gens_pos(at: DevBucket) -> (Bpos, usize) {
    (Bpos::new(at.dev.0.into(), at.bucket.0 >> 8, 0), (at.bucket.0 & 0xff) as usize)
}

/// Generations of 256 consecutive buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketGens<'a>(pub &'a [u8; 256]);

impl<'a> BucketGens<'a> {
    /// Decodes the value, which must be exactly 256 bytes.
    pub fn decode(value: &'a [u8]) -> Result<Self> {
        match value.try_into() {
            Ok(gens) => Ok(Self(gens)),
            Err(_) => Err(crate::DecodeError::invalid(
                "bucket_gens",
                format!("{} bytes instead of 256", value.len()),
            )),
        }
    }

    /// Generation of a bucket, by the low eight bits of its index.
    pub fn get(&self, bucket: BucketIndex) -> Gen {
        Gen(self.0[(bucket.0 & 0xff) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_type::KeyType;

    #[test]
    fn the_example_of_the_specification() {
        let at = DevBucket { dev: DevIndex(0), bucket: BucketIndex(49) };
        let lru = Lru::fragmentation(at.dev, Version::INODE_HAS_CHILD_SNAPSHOTS);
        let entry = LruEntry { lru, time: 0x0400_0000, target: at.to_u64() };
        assert_eq!(entry.pos(), Bpos::new(0xffff_0000_0400_0000, 49, 0));
        assert_eq!(LruEntry::from_pos(entry.pos()), entry);
        let key = |pos| Bkey::new(KeyType::SET, pos, 0);
        assert_eq!(LruEntry::validate(&key(entry.pos())), Ok(()));
        let timeless = LruEntry { time: 0, ..entry };
        assert_eq!(LruEntry::validate(&key(timeless.pos())).map_err(|p| p.id), Err(E::LRU_ENTRY_AT_TIME_0));
    }

    #[test]
    fn lists_keep_their_ids() {
        for id in [0, 255, 256, 8191, 8192, 8447, 8448, 0xfffd, 0xfffe, 0xffff] {
            assert_eq!(Lru::from_id(id).id(), id);
        }
        let v39 = Version::PER_DEV_FRAGMENTATION_LRU;
        assert_eq!(Lru::fragmentation(DevIndex(3), v39).id(), 8195);
        assert_eq!(Lru::from_id(1), Lru::Read(DevIndex(1)));
    }

    #[test]
    fn buckets_and_positions() {
        let at = DevBucket { dev: DevIndex(2), bucket: BucketIndex(0x1_0203) };
        assert_eq!(DevBucket::from_u64(at.to_u64()), Some(at));
        assert_eq!(DevBucket::from_pos(at.pos()), Some(at));
        assert_eq!(DevBucket::from_pos(Bpos::new(256, 0, 0)), None);
        assert_eq!(DevBucket::from_u64(u64::MAX), None);
        assert_eq!(bucket_gens_pos(at), (Bpos::new(2, 0x102, 0), 3));
        for version in [Version::INODE_HAS_CHILD_SNAPSHOTS, Version::PER_DEV_FRAGMENTATION_LRU] {
            assert_eq!(need_discard_bucket(need_discard_pos(at, Seq(9), version), version), Some(at));
        }
        assert_eq!(freespace_offset(BucketIndex(5), 0x3f), 5 | 3 << 56);
        assert_eq!(freespace_bucket(5 | 3 << 56), (BucketIndex(5), 3));
    }

    #[test]
    fn bucket_gens_are_256() {
        let mut gens = [0; 256];
        gens[7] = 9;
        assert_eq!(BucketGens::decode(&gens).unwrap().get(BucketIndex(0x107)), Gen(9));
        assert!(BucketGens::decode(&gens[..248]).is_err());
    }
}
