//! What the walk learns about each bucket.

use std::collections::BTreeMap;

use frazil_ondisk::DataType;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen};
use frazil_ondisk::values::positions::DevBucket;

/// Buckets of a page: as many as a key of the bucket_gens b-tree covers.
pub(super) const PAGE: u64 = 256;

/// A value per bucket, in pages that exist only where something was stored.
pub(super) struct Paged<T> {
    pages: BTreeMap<(DevIndex, u64), Box<[T]>>,
}

impl<T: Clone + Default> Paged<T> {
    pub(super) fn new() -> Self {
        Self { pages: BTreeMap::new() }
    }

    pub(super) fn get(&self, at: DevBucket) -> Option<&T> {
        let page = self.pages.get(&(at.dev, at.bucket.0 / PAGE))?;
        page.get((at.bucket.0 % PAGE) as usize)
    }

    pub(super) fn entry(&mut self, at: DevBucket) -> &mut T {
        let new = || vec![T::default(); PAGE as usize].into();
        let page = self.pages.entry((at.dev, at.bucket.0 / PAGE)).or_insert_with(new);
        &mut page[(at.bucket.0 % PAGE) as usize]
    }

    /// The pages in order: device, number of the page, values.
    pub(super) fn pages(&self) -> impl Iterator<Item = (DevIndex, u64, &[T])> {
        self.pages.iter().map(|(&(dev, page), values)| (dev, page, &**values))
    }

    /// All buckets in pages that exist, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DevBucket, &T)> {
        self.pages().flat_map(|(dev, page, values)| {
            let at = move |i| DevBucket { dev, bucket: BucketIndex(page * PAGE + i) };
            values.iter().zip(0u64..).map(move |(value, i)| (at(i), value))
        })
    }
}

/// The generation of every bucket that has an alloc key.
pub(super) type Gens = Paged<Option<Gen>>;

/// What points into a bucket.
#[derive(Clone, Copy, Default)]
pub(super) struct Count {
    /// Kind of data; `None` if nothing is there.
    pub(super) class: Option<DataType>,
    pub(super) dirty: u64,
    pub(super) cached: u64,
    pub(super) striped: u64,
    /// The last stripe seen, how many there are, and its redundancy.
    pub(super) stripe: u64,
    pub(super) stripes: u32,
    pub(super) redundancy: u8,
    /// Generation in the first pointer.
    pub(super) generation: Gen,
}

/// How far a generation is ahead of another, modulo 256 (spec 50 §1.1).
pub(super) fn ahead(a: Gen, b: Gen) -> i8 {
    a.0.wrapping_sub(b.0) as i8
}

/// What a kind of data counts as when kinds meet in a bucket (spec 50 §1.2).
fn norm(class: DataType) -> DataType {
    match class {
        DataType::CACHED | DataType::STRIPE => DataType::USER,
        other => other,
    }
}

impl Count {
    /// Takes note of a kind of data; the kind already there if the two do not go together. Metadata prevails.
    pub(super) fn mark(&mut self, class: DataType) -> Option<DataType> {
        let before = *self.class.get_or_insert(class);
        if norm(before) == norm(class) {
            return None;
        }
        if class == DataType::BTREE {
            self.class = Some(class);
        }
        Some(before)
    }
}
