//! Space: alloc keys against the sums, then everything that derives from alloc keys (spec 60 §9.4).

use std::collections::HashMap;

use frazil_device::Device;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::values::stripe::Stripe;
use frazil_ondisk::{BtreeId, DataType, KeyType};

use super::accounting;
use super::backpointers;
use super::buckets::{Count, Paged};
use super::context::Check;
use super::faults::BucketField;
use super::inconsistency::Inconsistency;
use super::lists::{self, Listings};
use super::report::Unchecked;
use super::walk::Sums;
use crate::derive::bucket;
use crate::open::read_superblock;

/// Compares everything about space with what the walk added up.
pub(super) fn check(check: &mut Check<'_>, sums: Sums) {
    if !check.all_complete() {
        check.report.skip(Unchecked::SpaceNodesLost);
        return;
    }
    let Sums { gens, mut counts, mut accounting, backpointers, stripes, has_rebalance, .. } = sums;
    lists::sets(check, sums.sets);
    stripe_blocks(check, &sums.stripe_sectors);
    mark_superblocks_and_journals(check, &mut counts);
    let mut listings = Listings::new(check, &stripes);
    let mut in_use = |check: &Check<'_>, at: DevBucket, alloc: &Alloc| {
        listings.bucket(check, at, alloc);
        let Some(geometry) = check.rules.geometry(at.dev) else { return };
        for (what, by) in bucket::usage(at.dev, alloc, geometry.bucket) {
            let sum = accounting.entry(what).or_default();
            sum.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.saturating_add(by));
        }
    };
    check.each(BtreeId::ALLOC, 0, |check, key| {
        let Some(at) = DevBucket::from_pos(key.k.pos) else {
            return check.add(Inconsistency::NoSuchBucket(key.k.pos));
        };
        if !check.rules.geometry(at.dev).is_some_and(|g| g.contains(at.bucket)) {
            return check.add(Inconsistency::NoSuchBucket(key.k.pos));
        }
        let Ok(stored) = Alloc::decode(key.k.ty, key.value) else { return };
        let count = counts.get(at).copied().unwrap_or_default();
        let computed = compare(check, at, stored, count);
        in_use(check, at, &computed);
    });
    for (at, count) in counts.iter() {
        let has_key = gens.get(at).copied().flatten().is_some();
        if !has_key && (count.class.is_some() || count.stripes > 0) {
            let stored =
                Alloc { generation: count.generation, oldest_gen: count.generation, ..Alloc::default() };
            let computed = compare(check, at, stored, *count);
            in_use(check, at, &computed);
        }
    }
    listings.compare(check, &gens);
    accounting::compare(check, accounting, has_rebalance);
    backpointers::check(check, backpointers, &gens);
}

/// Superblock copies and journals use buckets without any key pointing there (spec 50 §3.2). Each device's own superblock
/// says where they are.
fn mark_superblocks_and_journals(check: &mut Check<'_>, counts: &mut Paged<Count>) {
    let members = check.volume.members();
    if members.live().any(|(dev, _)| check.volume.devices().get(dev.0).is_none()) {
        check.report.skip(Unchecked::DeviceMissing);
    }
    for (dev, member) in members.live() {
        let Some(device) = check.volume.devices().get(dev.0) else { continue };
        let Some(superblock) = own_superblock(&**device) else { continue };
        let Some(geometry) = check.rules.geometry(dev) else { continue };
        let mut mark = |bucket: BucketIndex, class: DataType, sectors: u64| {
            if geometry.contains(bucket) && sectors > 0 {
                let count = counts.entry(DevBucket { dev, bucket });
                count.mark(class);
                count.dirty += sectors;
            }
        };
        for range in superblock.layout.reserved() {
            let size = geometry.bucket.0;
            for bucket in range.start / size..range.end.div_ceil(size) {
                let (start, end) = (bucket * size, (bucket + 1) * size);
                let sectors = range.end.min(end) - range.start.max(start);
                mark(BucketIndex(bucket), DataType::SB, sectors);
            }
        }
        if let Ok(journal) = superblock.journal_buckets()
            && journal.validate(member).is_ok()
        {
            journal.buckets().for_each(|bucket| mark(bucket, DataType::JOURNAL, geometry.bucket.0));
        }
    }
}

fn own_superblock(device: &dyn Device) -> Option<Superblock> {
    // It was read when the volume was opened; if that fails now the device has other problems.
    read_superblock(device).ok()
}

/// Whether a bucket's contents are known: those of superblock and journal are not where the device is missing.
fn is_known(check: &Check<'_>, dev: DevIndex, stored: &Alloc) -> bool {
    check.volume.devices().get(dev.0).is_some() || !stored.data_type.is_hidden()
}

/// Reports the fields of an alloc key that are not what the pointers add up to; returns the key as it should be.
fn compare(check: &mut Check<'_>, at: DevBucket, stored: Alloc, count: Count) -> Alloc {
    if !is_known(check, at.dev, &stored) {
        return stored;
    }
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let version = check.version();
    let mut computed = Alloc {
        dirty_sectors: narrow(count.dirty),
        cached_sectors: narrow(count.cached),
        stripe_sectors: narrow(count.striped),
        ..stored
    };
    if version.alloc_has_stripe_refcount() {
        computed.stripe = count.stripes;
        if stored.stripe != computed.stripe {
            let (stored, computed) = (stored.stripe.into(), computed.stripe.into());
            check.add(Inconsistency::Bucket { at, field: BucketField::Stripes, stored, computed });
        }
    } else {
        computed.stripe = narrow(count.stripe);
        computed.stripe_redundancy = count.redundancy;
    }
    let class = count.class.unwrap_or(stored.data_type);
    computed.data_type = computed.derived_data_type(class, version);
    let fields = [
        (BucketField::DataType, u64::from(stored.data_type.0), u64::from(computed.data_type.0)),
        (BucketField::DirtySectors, stored.dirty_sectors.into(), computed.dirty_sectors.into()),
        (BucketField::StripeSectors, stored.stripe_sectors.into(), computed.stripe_sectors.into()),
        (BucketField::CachedSectors, stored.cached_sectors.into(), computed.cached_sectors.into()),
        (BucketField::Stripe, stored.stripe.into(), computed.stripe.into()),
        (BucketField::StripeRedundancy, stored.stripe_redundancy.into(), computed.stripe_redundancy.into()),
    ];
    let counts_stripes = version.alloc_has_stripe_refcount();
    for (field, stored, computed) in fields {
        if stored != computed && !(counts_stripes && field == BucketField::Stripe) {
            check.add(Inconsistency::Bucket { at, field, stored, computed });
        }
    }
    if computed.data_type == DataType::CACHED && computed.io_time[0] == 0 {
        check.add(Inconsistency::Bucket { at, field: BucketField::ReadTime, stored: 0, computed: 1 });
    }
    computed
}

/// A stripe counts the sectors that are in use in each of its data blocks.
fn stripe_blocks(check: &mut Check<'_>, used: &HashMap<(u64, u8), u64>) {
    check.each(BtreeId::STRIPES, 0, |check, key| {
        let (KeyType::STRIPE, Ok(stripe)) = (key.k.ty, Stripe::decode(key.value)) else { return };
        let data = stripe.header.nr_blocks.saturating_sub(stripe.header.nr_redundant);
        for (block, stored) in (0..data).zip(stripe.block_sectors()) {
            let (stripe, stored) = (key.k.pos.offset, u64::from(stored));
            let computed = used.get(&(stripe, block)).copied().unwrap_or(0);
            if stored != computed {
                check.add(Inconsistency::StripeBlock { stripe, block, stored, computed });
            }
        }
    });
}

/// The generation a bucket without an alloc key has.
pub(super) const NEVER_USED: Gen = Gen(0);
