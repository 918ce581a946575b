//! Everything the check can find, as one enum.
//!
//! A finding says what is wrong, where, and with which numbers, so that a person (and later the repair) can act on it without
//! looking again. [`Inconsistency::id`] is the stable number of the format for that kind (spec 60 §8); where the
//! reference stops with a message that has no number, the number that later versions gave it is used.

use std::borrow::Cow;

use frazil_btree::{Error, Problem};
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::units::{DevIndex, Sectors, SnapshotId, SubvolId};
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::values::backpointer::Backpointer;
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{Bpos, BtreeId};

use frazil_ondisk::fsck_errors::FsckErrorId as E;

use super::faults::{
    BackpointerFault, BucketField, InodeFault, ItemFault, ListFault, PointerFault, SnapshotFault,
    SubvolFault, TreeFault,
};
use super::trees;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Work that a crash left for the next read-write start, which does it without being asked. Nothing is wrong.
    Pending,
    /// Nothing is lost and everything can be read, but redundancy is reduced or a record is untidy.
    Warning,
    /// The volume contradicts itself.
    Error,
}

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Inconsistency {
    /// A part of a b-tree cannot be read.
    #[error("{0}")]
    Unreadable(Error),
    /// A b-tree node breaks a rule, but was read.
    #[error("{0}")]
    Node(Problem),
    /// A key breaks a rule by itself.
    #[error("b-tree {btree}, level {level}, key {pos}: {detail}")]
    Key {
        /// Its b-tree.
        btree: BtreeId,
        /// Level of its node.
        level: u8,
        /// Its position.
        pos: Bpos,
        /// The rule.
        id: E,
        /// The offending values.
        detail: Cow<'static, str>,
    },
    /// A node lies where the superblock's map says that there are none.
    #[error(
        "b-tree {btree}, level {level}, node that ends at {pos}: not in the map of device {dev} (sector {sector})"
    )]
    NotInBitmap {
        /// The node's b-tree.
        btree: BtreeId,
        /// The node's level.
        level: u8,
        /// The last position it covers.
        pos: Bpos,
        /// The device.
        dev: DevIndex,
        /// Its first sector.
        sector: Sectors,
    },
    /// A pointer of an extent or to a node contradicts the bucket it leads to.
    #[error("b-tree {btree}, level {level}, key {pos}: pointer {ptr}: {fault}")]
    Pointer {
        /// B-tree of the key.
        btree: BtreeId,
        /// Level of the key; above the root's for the pointer to a root.
        level: u8,
        /// Position of the key.
        pos: Bpos,
        /// The pointer.
        ptr: ExtentPtr,
        /// What is wrong.
        fault: PointerFault,
    },
    /// A field of an alloc key is not what the pointers add up to.
    #[error("bucket {}:{}: {field} is {stored}, should be {computed}", at.dev, at.bucket)]
    Bucket {
        /// The bucket.
        at: DevBucket,
        /// Which field.
        field: BucketField,
        /// As stored; numbers of data types are those of the format.
        stored: u64,
        /// As computed.
        computed: u64,
    },
    /// A stripe's count of sectors in use is not what the pointers add up to.
    #[error("stripe {stripe}, block {block}: {stored} sectors, should be {computed}")]
    StripeBlock {
        /// The stripe.
        stripe: u64,
        /// The block.
        block: u8,
        /// As stored.
        stored: u64,
        /// As computed.
        computed: u64,
    },
    /// An alloc key for a bucket that does not exist.
    #[error("alloc key {0} is for no bucket")]
    NoSuchBucket(Bpos),
    /// A list of buckets disagrees with the state of the buckets.
    #[error("b-tree {btree}, {pos}: {fault}")]
    List {
        /// The list.
        btree: BtreeId,
        /// Where.
        pos: Bpos,
        /// What is wrong.
        fault: ListFault,
    },
    /// A backpointer that should not be there.
    #[error("backpointer {pos} (to b-tree {}, level {}, {}): {fault}", value.btree, value.level, value.pos)]
    Backpointer {
        /// Its position.
        pos: Bpos,
        /// What it says.
        value: Backpointer,
        /// What is wrong.
        fault: BackpointerFault,
    },
    /// Counters are not the sums they should be.
    #[error("accounting {what:?}: {stored:?}, should be {computed:?}")]
    Accounting {
        /// What is counted.
        what: AccountingPos,
        /// As stored, journal included.
        stored: [i64; 3],
        /// As computed.
        computed: [i64; 3],
    },
    /// Counters of a device that does not exist.
    #[error("accounting {what:?}: device {dev} does not exist")]
    AccountingNoDevice {
        /// What is counted.
        what: AccountingPos,
        /// The device.
        dev: DevIndex,
    },
    /// Data is stored on a set of devices the superblock does not know of.
    #[error("the superblock does not list replicas {0}")]
    ReplicasNotListed(ReplicasEntry),
    /// A snapshot contradicts others.
    #[error("snapshot {id}: {fault}")]
    Snapshot {
        /// The snapshot.
        id: SnapshotId,
        /// What is wrong.
        fault: SnapshotFault,
    },
    /// A tree of snapshots contradicts its members.
    #[error("snapshot tree {tree}: {fault}")]
    SnapshotTree {
        /// The tree.
        tree: u64,
        /// What is wrong.
        fault: TreeFault,
    },
    /// A subvolume contradicts its snapshot, its root directory or its parent.
    #[error("subvolume {subvol}: {fault}")]
    Subvol {
        /// The subvolume.
        subvol: SubvolId,
        /// What is wrong.
        fault: SubvolFault,
    },
    /// An inode contradicts its contents or its names.
    #[error("inode {} in snapshot {}: {fault}", pos.offset, pos.snapshot)]
    Inode {
        /// Position of its key.
        pos: Bpos,
        /// What is wrong.
        fault: InodeFault,
    },
    /// An extent, directory entry or attribute contradicts its inode or its neighbours.
    #[error("b-tree {btree}, key {pos}: {fault}")]
    Item {
        /// The b-tree.
        btree: BtreeId,
        /// Position of the key.
        pos: Bpos,
        /// What is wrong.
        fault: ItemFault,
    },
}

impl Inconsistency {
    /// The stable id of this kind.
    pub fn id(&self) -> E {
        match self {
            Inconsistency::Unreadable(error) => trees::error_id(error),
            Inconsistency::Node(problem) => trees::problem_id(problem),
            Inconsistency::Key { id, .. } => *id,
            Inconsistency::NotInBitmap { .. } => E::BTREE_BITMAP_NOT_MARKED,
            Inconsistency::Pointer { fault, .. } => fault.id(),
            Inconsistency::Bucket { field, .. } => field.id(),
            Inconsistency::StripeBlock { .. } => E::STRIPE_SECTOR_COUNT_WRONG,
            Inconsistency::NoSuchBucket(_) => E::ALLOC_KEY_TO_MISSING_DEV_BUCKET,
            Inconsistency::List { btree, fault, .. } => fault.id(*btree),
            Inconsistency::Backpointer { fault, .. } => fault.id(),
            Inconsistency::Accounting { .. } => E::ACCOUNTING_MISMATCH,
            Inconsistency::AccountingNoDevice { .. } => E::ACCOUNTING_TO_INVALID_DEVICE,
            Inconsistency::ReplicasNotListed(_) => E::ACCOUNTING_REPLICAS_NOT_MARKED,
            Inconsistency::Snapshot { fault, .. } => fault.id(),
            Inconsistency::SnapshotTree { fault, .. } => fault.id(),
            Inconsistency::Subvol { fault, .. } => fault.id(),
            Inconsistency::Inode { fault, .. } => fault.id(),
            Inconsistency::Item { fault, .. } => fault.id(),
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Inconsistency::Node(problem) if trees::is_only_reduced(problem) => Severity::Warning,
            Inconsistency::Snapshot { fault: SnapshotFault::Dying, .. }
            | Inconsistency::Subvol { fault: SubvolFault::Dying, .. }
            | Inconsistency::Inode { fault: InodeFault::Orphan | InodeFault::OrphanDir, .. }
            | Inconsistency::Item { fault: ItemFault::Unfinished, .. } => Severity::Pending,
            _ => Severity::Error,
        }
    }
}
