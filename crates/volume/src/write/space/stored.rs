//! What the b-trees say about the buckets of a device when the volume is opened (spec 50 §2.2–§2.4).

use std::ops::Range;

use frazil_btree::{Btrees, Result};
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen};
use frazil_ondisk::values::positions::{BucketGens, freespace_bucket, need_discard_bucket};
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bkey, Bpos, BtreeId, Key, KeyType};

use super::device::DeviceSpace;

/// Tells the device what is stored about it.
pub(super) fn load(device: &DeviceSpace, btrees: &Btrees, version: Version) -> Result<()> {
    let dev = device.dev;
    let mut free = Vec::new();
    each(btrees, BtreeId::FREESPACE, of(dev), |key| free.extend(free_run(&key.k)))?;
    let mut need_discard = Vec::new();
    let range = if version.need_discard_by_journal_seq() { Bpos::MIN..=Bpos::MAX } else { of(dev) };
    each(btrees, BtreeId::NEED_DISCARD, range, |key| {
        let at = need_discard_bucket(key.k.pos, version).filter(|at| at.dev == dev);
        need_discard.extend(at.map(|at| at.bucket.0));
    })?;
    let mut gens = Vec::new();
    each(btrees, BtreeId::BUCKET_GENS, of(dev), |key| {
        if let (KeyType::BUCKET_GENS, Ok(values)) = (key.k.ty, BucketGens::decode(key.value)) {
            let all = (0..256).map(|i| BucketIndex(key.k.pos.offset << 8 | i));
            gens.extend(all.map(|b| (b.0, values.get(b))).filter(|(_, generation)| *generation != Gen(0)));
        }
    })?;
    device.load(free.into_iter(), need_discard.into_iter(), gens.into_iter());
    Ok(())
}

/// All positions of a device in b-trees that begin with it.
fn of(dev: DevIndex) -> std::ops::RangeInclusive<Bpos> {
    let inode = u64::from(dev.0);
    Bpos::new(inode, 0, 0)..=Bpos::new(inode, u64::MAX, u32::MAX)
}

/// The buckets a key of the freespace b-tree says are free.
pub(crate) fn free_run(k: &Bkey) -> Option<Range<u64>> {
    let (end, _) = freespace_bucket(k.pos.offset.checked_sub(1)?);
    (k.ty == KeyType::SET && k.size != 0).then(|| end.0.saturating_sub(u64::from(k.size) - 1)..end.0 + 1)
}

fn each(
    btrees: &Btrees,
    btree: BtreeId,
    range: std::ops::RangeInclusive<Bpos>,
    mut f: impl FnMut(Key<'_>),
) -> Result<()> {
    let mut cursor = btrees.cursor(btree, range);
    while let Some(key) = cursor.next()? {
        f(key);
    }
    Ok(())
}
