//! The buckets of superblocks and journals must be known as such.
//!
//! No key points to them, so if the alloc b-tree does not say what they hold (spec 50 §3.2) they look free, and would be given away. The reference
//! puts that right at every start (pass trans_mark_dev_sbs, spec 60 §5.1). A volume of which it is not true was made carelessly, or is damaged;
//! it is not repaired here, but it must not be destroyed either.

use frazil_btree::Btrees;
use frazil_ondisk::superblock::members::Member;
use frazil_ondisk::units::{BucketIndex, DevIndex};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{BtreeId, DataType};

use crate::error::OpenError;
use crate::open::{Assembled, Candidate, refuse};

/// Checks all devices that are present.
pub(super) fn check(assembled: &Assembled, btrees: &Btrees) -> Result<(), OpenError> {
    for candidate in &assembled.online {
        let dev = candidate.superblock.dev_idx;
        let Some(member) = assembled.members.get(dev) else { continue };
        for (bucket, data_type) in own_buckets(candidate, member)? {
            if stored(btrees, DevBucket { dev, bucket })? != Some(data_type) {
                return Err(OpenError::NeedsCheck(unknown(dev, bucket, data_type)));
            }
        }
    }
    Ok(())
}

fn unknown(dev: DevIndex, bucket: BucketIndex, data_type: DataType) -> String {
    format!("bucket {bucket} of device {dev} is in use ({data_type}) but not marked so")
}

/// The buckets of a device that no key points to. A copy behind the last whole bucket is in none.
fn own_buckets(candidate: &Candidate, member: &Member) -> Result<Vec<(BucketIndex, DataType)>, OpenError> {
    let size = member.bucket_size().0;
    let of_copies = candidate.superblock.layout.reserved();
    let of_copies = of_copies.flat_map(|r| r.start / size..r.end.div_ceil(size).min(member.nbuckets));
    let ring = candidate.superblock.journal_buckets().map_err(|why| refuse(candidate, why))?;
    let of_journal = ring.buckets().map(|bucket| (bucket, DataType::JOURNAL));
    Ok(of_copies.map(|bucket| (BucketIndex(bucket), DataType::SB)).chain(of_journal).collect())
}

/// What the alloc b-tree says a bucket holds.
fn stored(btrees: &Btrees, at: DevBucket) -> Result<Option<DataType>, OpenError> {
    let key = btrees.get(BtreeId::ALLOC, at.pos()).map_err(|why| OpenError::NeedsCheck(why.to_string()))?;
    let alloc = key.and_then(|key| Alloc::decode(key.key().k.ty, key.key().value).ok());
    Ok(alloc.map(|alloc| alloc.data_type))
}
