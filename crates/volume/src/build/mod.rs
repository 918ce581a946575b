//! Making a volume in one go: the bulk builder beneath `frazil format`.
//!
//! A running volume changes step by step, each step logged, locked and undoable. A new one needs none of that: until its superblock is
//! written nobody looks at it. So everything is written once, from front to back, in the shape it would have after a clean
//! shutdown:
//!
//! ```text
//!  Builder::new     options checked, old superblocks wiped, flushed        (from here on the devices hold nothing)
//!  put_data         payloads, bucket after bucket                      ┐
//!  push / defer     keys of the filesystem's b-trees, nodes as they   ├ in any interleaving
//!                   fill; what follows from each key is added up       ┘
//!  finish           the b-trees about space, planned to a fixed point and written; one journal entry; flush;
//!                   the superblocks
//! ```
//!
//! The keys of the filesystem's b-trees are the caller's: [`Builder::push_first_subvolume`] and [`Builder::push_empty_root`] make those of an
//! empty volume. Everything that follows from keys (alloc, backpointers, freespace, lru, accounting, deleted_inodes,
//! rebalance_work, subvolume_children, features, replicas) is the builder's, by the rules of [`crate::derive`].
//!
//! Memory: the open node of each level of each b-tree, some 80 bytes for each extent and 50 and more for each deferred key.
//!
//! | to find | look in |
//! |---|---|
//! | what can be asked for, and what is refused | `options.rs` |
//! | what is on a device already; wiping it | `signature.rs`, `wipe.rs` |
//! | which bucket is next, on which device | `space.rs` |
//! | how keys become nodes | `tree.rs` |
//! | what follows from the keys, added up | `facts.rs` |
//! | the b-trees about space and their fixed point | `derived.rs` |
//! | the journal entry and the superblocks | `finish.rs` |
//! | a volume formatted elsewhere that was never started | `start.rs` |

mod derived;
mod error;
mod facts;
mod finish;
mod options;
mod random;
mod signature;
mod sorter;
mod space;
mod start;
mod tree;
mod wipe;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::crypto::Key as CryptKey;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::features::Features;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::{BVersion, BtreeId, Key, KeyType};

pub use error::{BuildError, Result};
pub use options::{Encryption, FormatOptions, NewDevice};
pub use space::Copies;
pub(crate) use start::start;

use crate::derive::Rules;
use crate::initial;
use facts::Facts;
use random::Random;
use sorter::Sorter;
use space::{Class, Space};
use tree::{Root, TreeBuilder};
use write::{Nodes, Writer};

/// The only journal entry of a new volume.
const JOURNAL_SEQ: Seq = Seq(1);

/// A volume under construction. See the [module](self).
///
/// Not `Sync`: payloads may be compressed, checksummed and encrypted by any number of threads, but are handed in by one.
pub struct Builder {
    /// Of each device.
    superblocks: Vec<Superblock>,
    key: Option<CryptKey>,
    random: Random,
    rules: Rules,
    space: Space,
    facts: Facts,
    writer: Writer,
    trees: BTreeMap<BtreeId, TreeBuilder>,
    deferred: BTreeMap<BtreeId, Sorter>,
    features: Features,
    key_version: u64,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The superblock of the first device, as written.
    pub superblock: Superblock,
    /// Levels of each b-tree, 1 for a tree that is a single node.
    pub levels: BTreeMap<BtreeId, u8>,
    /// Nodes written.
    pub nodes: u64,
}

impl Builder {
    /// Checks the options, refuses devices that hold something (unless forced), and wipes what is there.
    ///
    /// # Errors
    /// [`BuildError::Options`] and [`BuildError::InUse`] before anything is written; [`BuildError::Device`].
    pub fn new(devices: Vec<NewDevice>, options: &FormatOptions) -> Result<Builder> {
        let prepared = options::prepare(&devices, options)?;
        if !options.force {
            for new in &devices {
                refuse_used(&*new.device)?;
            }
        }
        for (new, sb) in devices.iter().zip(&prepared.superblocks) {
            if new.discard {
                new.device.discard(0, new.device.size_bytes())?;
            }
            wipe::wipe(&*new.device, sb, &sb.journal_buckets()?, options.uuid.is_some())?;
        }
        let devices = devices.into_iter().map(|new| new.device).collect();
        Builder::over(devices, prepared)
    }

    /// A builder that fills the volume of these superblocks, which are complete but for what follows from its content; one per device,
    /// in the order of their indexes.
    fn over(devices: Vec<Arc<dyn Device>>, prepared: options::Prepared) -> Result<Builder> {
        let superblocks = prepared.superblocks;
        let rules = Rules::new(&superblocks[0], &superblocks[0].members()?);
        let mut facts = Facts::default();
        let mut taken: Vec<Vec<Range<u64>>> = Vec::new();
        for sb in &superblocks {
            let (member, journal) = (sb.own_member()?, sb.journal_buckets()?);
            facts.add_fixed(sb.dev_idx, &member, &sb.layout, &journal);
            let size = member.bucket_size().0;
            let copies =
                sb.layout.reserved().map(|r| r.start / size..r.end.div_ceil(size).min(member.nbuckets));
            let ring = journal.0.iter().map(|r| r.start.0..r.start.0 + r.nr);
            taken.push(space::joined(copies.chain(ring)));
        }
        let space = Space::new(&superblocks[0], &rules, &taken)?;
        Ok(Builder {
            superblocks,
            key: prepared.key,
            random: prepared.random,
            rules,
            space,
            facts,
            writer: Writer::new(devices),
            trees: BTreeMap::new(),
            deferred: BTreeMap::new(),
            features: Features::empty(),
            key_version: 0,
        })
    }

    /// The volume's superblock: its options, time base, block size, hash type …
    pub fn superblock(&self) -> &Superblock {
        &self.superblocks[0]
    }

    /// The master key that extents are to be encrypted with; `None` if they are not.
    pub fn key(&self) -> Option<&CryptKey> {
        self.key.as_ref()
    }

    /// A random number, such as the hash seed of an inode. The same sequence each time if the volume's UUID was given.
    pub fn random(&mut self) -> u64 {
        self.random.next()
    }

    /// The next version for an encrypted extent: never the same again, because it is part of the nonce (spec 10 §15.4). Extents that
    /// are not encrypted have version 0.
    pub fn next_version(&mut self) -> BVersion {
        self.key_version += 1;
        BVersion { hi: 0, lo: self.key_version }
    }

    /// Counts all versions below this one as given out: who encrypts on several threads deals them out itself, beginning with 1.
    pub fn use_versions_below(&mut self, version: u64) {
        self.key_version = self.key_version.max(version.saturating_sub(1));
    }

    /// Sets features that the keys alone do not show, such as those of compression options of single inodes (spec 10 §6.1).
    pub fn require(&mut self, features: Features) {
        self.features = self.features.union(features);
    }

    /// The longest payload that goes into the buckets now being filled. A longer one goes into new buckets, and this
    /// room stays empty; 0 before the first payload.
    pub fn data_room(&self) -> Sectors {
        self.space.room(Class::Data)
    }

    /// Stores a payload (compressed, encrypted, whatever its key will say) one behind the last, with as many copies as the option
    /// `data_replicas` asks for, and returns where the copies are. Its length is a whole number of blocks and at most a bucket;
    /// the extent's key is to be pushed afterwards.
    ///
    /// # Errors
    /// [`BuildError::NoSpace`], [`BuildError::Device`].
    ///
    /// # Panics
    /// If the length is 0, no multiple of the block size, or more than the smallest bucket.
    pub fn put_data(&mut self, payload: &[u8]) -> Result<Copies> {
        let len = Sectors(payload.len() as u64 / SECTOR_BYTES);
        let whole =
            !payload.is_empty() && (payload.len() as u64).is_multiple_of(self.superblock().block_bytes());
        assert!(whole && len <= self.space.bucket_min(), "payload of {} bytes", payload.len());
        let copies = self.space.place(Class::Data, len)?;
        self.writer.append(&copies, payload)?;
        Ok(copies)
    }

    /// Appends a key to a b-tree. Within a b-tree keys must come in ascending order of their positions; b-trees may be
    /// interleaved in any way. Values are final: sizes, link counts, reference counts are the caller's.
    ///
    /// Only keys of the filesystem's own b-trees may be given: inodes, dirents, extents, xattrs, reflink, subvolumes,
    /// snapshots, snapshot_trees, quotas.
    ///
    /// # Errors
    /// [`BuildError::Device`], [`BuildError::NoSpace`], [`BuildError::TooDeep`]; [`BuildError::Format`] if the value cannot be decoded.
    ///
    /// # Panics
    /// If the key is not above the last one of its b-tree, or belongs to a b-tree that follows from others.
    pub fn push(&mut self, btree: BtreeId, key: Key<'_>) -> Result<()> {
        assert!(is_primary(btree), "{btree} follows from other b-trees");
        assert!(!self.deferred.contains_key(&btree), "keys of {btree} were deferred");
        self.push_now(btree, key)
    }

    /// Keeps a key of a b-tree whose keys come in no order until the volume is finished. A b-tree gets its keys either by
    /// [`Builder::push`] or by this, and no position twice. A key takes as much memory as it is long, and 48 bytes.
    ///
    /// # Panics
    /// If the b-tree follows from others, or was pushed to.
    pub fn defer(&mut self, btree: BtreeId, key: Key<'_>) {
        assert!(is_primary(btree), "{btree} follows from other b-trees");
        assert!(!self.trees.contains_key(&btree), "keys of {btree} were pushed");
        self.deferred.entry(btree).or_default().push(key);
    }

    /// Pushes what every volume begins with: the first snapshot, its tree, and the subvolume whose root is inode 4096.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn push_first_subvolume(&mut self) -> Result<()> {
        let keys = [
            (BtreeId::SNAPSHOT_TREES, initial::snapshot_tree()),
            (BtreeId::SNAPSHOTS, initial::snapshot()),
            (BtreeId::SUBVOLUMES, initial::subvolume()),
        ];
        keys.iter().try_for_each(|(btree, key)| self.push(*btree, key.as_key()))
    }

    /// Pushes the content of an empty volume: `/` and `/lost+found`.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn push_empty_root(&mut self) -> Result<()> {
        let str_hash = self.superblock().str_hash_type()?;
        let seeds = [self.random(), self.random()];
        let (inodes, dirent) = initial::directories(str_hash, seeds);
        inodes.iter().try_for_each(|key| self.push(BtreeId::INODES, key.as_key()))?;
        self.push(BtreeId::DIRENTS, dirent.as_key())
    }

    /// Finishes with the content of an empty volume.
    fn finish_empty(mut self) -> Result<Built> {
        self.push_first_subvolume()?;
        self.push_empty_root()?;
        self.finish()
    }

    fn push_now(&mut self, btree: BtreeId, key: Key<'_>) -> Result<()> {
        self.features = self.features.union(key_feature(key.k.ty));
        self.facts.add(&self.rules, btree, 0, key)?;
        let node = self.rules.node;
        let tree = self.trees.entry(btree).or_insert_with(|| TreeBuilder::new(btree, node));
        let mut nodes = Nodes {
            sb: &self.superblocks[0],
            key: self.key.as_ref(),
            random: &mut self.random,
            rules: &self.rules,
            space: &mut self.space,
            facts: Some(&mut self.facts),
            writer: &mut self.writer,
        };
        tree.push(key, &mut nodes)
    }
}

/// Formats devices: an empty volume.
///
/// # Errors
/// Every reason why it cannot be done, in one line that says what to do.
pub fn format(devices: Vec<NewDevice>, options: &FormatOptions) -> Result<Built> {
    Builder::new(devices, options)?.finish_empty()
}

/// Fails if a device holds something that is recognised.
///
/// # Errors
/// [`BuildError::InUse`], [`BuildError::Device`].
pub fn refuse_used(device: &dyn Device) -> Result<()> {
    match signature::find(device)? {
        Some(what) => Err(BuildError::InUse { device: Arc::clone(device.name()), what }),
        None => Ok(()),
    }
}

/// Whether the keys of a b-tree come from outside.
fn is_primary(btree: BtreeId) -> bool {
    matches!(
        btree,
        BtreeId::INODES
            | BtreeId::DIRENTS
            | BtreeId::EXTENTS
            | BtreeId::XATTRS
            | BtreeId::REFLINK
            | BtreeId::SUBVOLUMES
            | BtreeId::SNAPSHOTS
            | BtreeId::SNAPSHOT_TREES
            | BtreeId::QUOTAS
    )
}

/// The feature without which keys of a type may not exist (spec 10 §6.1).
fn key_feature(ty: KeyType) -> Features {
    match ty {
        KeyType::INLINE_DATA => Features::INLINE_DATA,
        KeyType::REFLINK_P | KeyType::REFLINK_V => Features::REFLINK,
        KeyType::INDIRECT_INLINE_DATA => Features::REFLINK.union(Features::REFLINK_INLINE_DATA),
        _ => Features::empty(),
    }
}

#[cfg(test)]
mod tests;
