//! The part of a volume that reads file data.
//!
//! A [`Reader`] is shared by all threads. It holds what every read needs (devices, b-trees, the encryption key) and what
//! makes reads cheap: buffers, decompressors, recently decoded payloads, and how each device has behaved so far.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use frazil_btree::Btrees;
use frazil_device::{Device, DeviceSet};
use frazil_ondisk::crypto::Key;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::{Member, Members};
use frazil_ondisk::superblock::sections::ExtentTypeU64s;
use frazil_ondisk::units::{DevIndex, Gen, Inum, Sectors};
use frazil_ondisk::values::extent::EntrySizes;
use frazil_ondisk::values::positions::DevBucket;

use super::buffer::Pool;
use super::cache::PayloadCache;
use super::choose::Conduct;
use super::decode::Decompressors;
use super::error::BadCopy;
use super::plan::Plan;

/// What a reader has to know about a member device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberFacts {
    /// Size of its buckets; not 0.
    pub bucket_sectors: Sectors,
    /// Seeking takes time (member flag ROTATIONAL, spec 80 §7.11); false when nobody knows.
    pub rotational: bool,
}

/// What a reader has to know about the volume.
pub struct ReaderOptions {
    /// The filesystem's key, if it is encrypted and unlocked.
    pub key: Option<Key>,
    /// Sizes of extent entries, also of those this version does not know (superblock section 16).
    pub entry_sizes: EntrySizes,
    /// The members, present or not.
    pub members: BTreeMap<DevIndex, MemberFacts>,
    /// Memory for decoded payloads that were not used up at once.
    pub cache_bytes: usize,
}

impl ReaderOptions {
    /// What to give [`ReaderOptions::cache_bytes`] when nobody says: a few payloads for each of many readers.
    pub const CACHE_BYTES_DEFAULT: usize = 8 << 20;

    /// The options for a volume with this superblock and these members.
    pub fn of(superblock: &Superblock, members: &Members, key: Option<Key>) -> ReaderOptions {
        let listed = superblock.sections.get::<ExtentTypeU64s>().ok().flatten();
        let facts = |(dev, member): (DevIndex, &Member)| {
            let bucket_sectors = member.bucket_size();
            (dev, MemberFacts { bucket_sectors, rotational: member.flags.rotational() })
        };
        ReaderOptions {
            key,
            entry_sizes: listed.map_or(EntrySizes::KNOWN, |sizes| EntrySizes::with_section(&sizes.0)),
            members: members.live().map(facts).collect(),
            cache_bytes: ReaderOptions::CACHE_BYTES_DEFAULT,
        }
    }
}

/// The generations of buckets at present, in a volume that is being written.
pub type Generations = Box<dyn Fn(DevBucket) -> Gen + Send + Sync>;

/// What is called with a copy that could not be used.
pub type TellOfCopy = Box<dyn Fn(&BadCopy) + Send + Sync>;

/// Reads file data. See the [module](self).
pub struct Reader {
    pub(super) trees: Arc<Btrees>,
    pub(super) entry_sizes: EntrySizes,
    pub(super) key: Option<Key>,
    pub(super) pool: Pool,
    pub(super) cache: PayloadCache,
    pub(super) decompressors: Decompressors,
    pub(super) members: BTreeMap<DevIndex, MemberFacts>,
    pub(super) generations: Option<Generations>,
    pub(super) tell: Option<TellOfCopy>,
    devices: DeviceSet,
    /// By member index.
    conduct: Box<[Conduct]>,
}

impl Reader {
    /// A reader of the data on these devices, whose metadata is in these b-trees.
    pub fn new(devices: DeviceSet, trees: Arc<Btrees>, options: ReaderOptions) -> Reader {
        Reader {
            trees,
            entry_sizes: options.entry_sizes,
            key: options.key,
            pool: Pool::default(),
            cache: PayloadCache::new(options.cache_bytes),
            decompressors: Decompressors::default(),
            members: options.members,
            generations: None,
            tell: None,
            devices,
            conduct: (0..=u8::MAX).map(|_| Conduct::default()).collect(),
        }
    }

    /// The same reader for a volume that is being written: data may be moved while it is read, and generations tell.
    #[must_use]
    pub fn with_generations(self, generations: Generations) -> Reader {
        Reader { generations: Some(generations), ..self }
    }

    /// The same reader, which tells of every copy that a device failed to deliver, or delivered damaged.
    #[must_use]
    pub fn telling(self, tell: TellOfCopy) -> Reader {
        Reader { tell: Some(tell), ..self }
    }

    /// How long the entries of extents are, those of types this version does not know included.
    pub fn entry_sizes(&self) -> &EntrySizes {
        &self.entry_sizes
    }

    /// A plan for reading this range of bytes of a file, to be given the file's extents. The caller has cut the range to the
    /// file's size.
    pub fn plan(&self, inum: Inum, bytes: Range<u64>) -> Plan<'_> {
        Plan::new(self, inum, bytes)
    }

    /// The device of a member, if it is present.
    pub(super) fn device(&self, dev: DevIndex) -> Option<&Arc<dyn Device>> {
        self.devices.get(dev.0)
    }

    pub(super) fn conduct(&self, dev: DevIndex) -> &Conduct {
        &self.conduct[usize::from(dev.0)]
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("devices", &self.devices).finish_non_exhaustive()
    }
}
