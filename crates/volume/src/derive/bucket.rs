//! What the state of a bucket implies: its entries in the freespace, need_discard and lru b-trees, and its share of the device's
//! usage (spec 50 §2.3–§2.5, §2.8, §4.4).

use frazil_ondisk::units::{DevIndex, Sectors};
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::{DevBucket, Lru, LruEntry, freespace_offset, need_discard_pos};
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, DataType};

/// Where a bucket is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lists {
    /// First offset of the one-bucket range in freespace; the key ends one behind.
    pub freespace: Option<u64>,
    /// Position in need_discard.
    pub need_discard: Option<Bpos>,
    /// Position in the list by read time.
    pub lru_read: Option<Bpos>,
    /// Position in the list by fragmentation.
    pub lru_fragmentation: Option<Bpos>,
}

impl Lists {
    /// Where a bucket of `bucket` sectors in this state must be listed, and nowhere else.
    pub fn of(at: DevBucket, alloc: &Alloc, bucket: Sectors, version: Version) -> Lists {
        let listed = |lru, time| (time != 0).then(|| LruEntry { lru, time, target: at.to_u64() }.pos());
        let is = |ty| alloc.data_type == ty;
        Lists {
            freespace: is(DataType::FREE).then(|| freespace_offset(at.bucket, alloc.gc_gen())),
            need_discard: is(DataType::NEED_DISCARD)
                .then(|| need_discard_pos(at, alloc.journal_seq_empty, version)),
            lru_read: listed(Lru::Read(at.dev), alloc.read_lru_time()),
            lru_fragmentation: listed(
                Lru::fragmentation(at.dev, version),
                alloc.fragmentation_lru_time(bucket.0),
            ),
        }
    }
}

/// What a bucket adds to the usage of its device, record by record: buckets, sectors, fragmented sectors. Free buckets without a key
/// count too; who sums keys only starts from all buckets being free.
pub fn usage(
    dev: DevIndex,
    alloc: &Alloc,
    bucket: Sectors,
) -> impl Iterator<Item = (AccountingPos, [i64; 3])> {
    let sectors = match alloc.data_type {
        DataType::CACHED => u64::from(alloc.cached_sectors),
        ty if ty.is_empty() => 0,
        _ => alloc.used_sectors(),
    };
    let fragmented = alloc.fragmented_sectors(bucket.0);
    let record = |data_type| AccountingPos::DevDataType { dev, data_type };
    let own = (record(alloc.data_type), [1, sectors as i64, fragmented as i64]);
    // The part of a stripe's bucket that no stripe covers.
    let unstriped = (alloc.data_type == DataType::STRIPE && alloc.dirty_sectors != 0)
        .then(|| (record(DataType::UNSTRIPED), [1, i64::from(alloc.dirty_sectors), 0]));
    std::iter::once(own).chain(unstriped)
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::units::{BucketIndex, Gen, Seq};

    use super::*;

    const V13: Version = Version::INODE_HAS_CHILD_SNAPSHOTS;
    const AT: DevBucket = DevBucket { dev: DevIndex(0), bucket: BucketIndex(49) };
    const BUCKET: Sectors = Sectors(256);

    /// The bucket of spec 50 §5 after its first write.
    #[test]
    fn a_partly_used_bucket_is_listed_by_fragmentation() {
        let alloc =
            Alloc { data_type: DataType::USER, dirty_sectors: 8, io_time: [1, 2560], ..Alloc::default() };
        let lists = Lists::of(AT, &alloc, BUCKET, V13);
        let lru = Some(Bpos::new((0xffff << 48) | ((8 << 31) / 256), 49, 0));
        assert_eq!(lists, Lists { lru_fragmentation: lru, ..Lists::default() });
        let usage: Vec<_> = usage(DevIndex(0), &alloc, BUCKET).collect();
        let user = AccountingPos::DevDataType { dev: DevIndex(0), data_type: DataType::USER };
        assert_eq!(usage, [(user, [1, 8, 248])]);
    }

    #[test]
    fn empty_buckets_are_listed_by_state() {
        let free = Alloc { generation: Gen(40), ..Alloc::default() };
        let lists = Lists::of(AT, &free, BUCKET, V13);
        assert_eq!(lists, Lists { freespace: Some(49 | (2 << 56)), ..Lists::default() });
        let dying = Alloc {
            data_type: DataType::NEED_DISCARD,
            need_discard: true,
            journal_seq_empty: Seq(9),
            ..Alloc::default()
        };
        let at = |version| Lists::of(AT, &dying, BUCKET, version).need_discard;
        assert_eq!(at(V13), Some(Bpos::new(0, 49, 0)));
        assert_eq!(at(Version::NEED_DISCARD_BY_JOURNAL_SEQ), Some(Bpos::new(9, 49, 0)));
    }

    #[test]
    fn cached_buckets_are_listed_by_read_time() {
        let cached =
            Alloc { data_type: DataType::CACHED, cached_sectors: 16, io_time: [77, 5], ..Alloc::default() };
        let lists = Lists::of(AT, &cached, BUCKET, V13);
        assert_eq!(lists, Lists { lru_read: Some(Bpos::new(77, 49, 0)), ..Lists::default() });
        assert_eq!(usage(DevIndex(0), &cached, BUCKET).map(|u| u.1).collect::<Vec<_>>(), [[1, 16, 240]]);
    }
}
