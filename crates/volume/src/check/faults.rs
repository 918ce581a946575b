//! What can be wrong with each kind of thing: the details of [`super::Inconsistency`], with their stable ids (spec 60 §9).

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::units::{BucketIndex, Gen, Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::inode::FileType;
use frazil_ondisk::{Bpos, BtreeId, DataType};

/// Defines a fault enum: for every variant its id, its message and its fields.
macro_rules! faults {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident $({$($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)?})? = $id:ident, $message:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
        pub enum $name {
            $($(#[$vdoc])* #[error($message)] $variant $({$($(#[$fdoc])* $field: $ty),*})?,)*
        }

        impl $name {
            /// The stable id of this kind.
            pub fn id(&self) -> E {
                match self {
                    $($name::$variant {..} => E::$id,)*
                }
            }
        }
    };
}

faults! {
    /// What is wrong with a pointer (spec 60 §9.4).
    PointerFault {
        /// There is no such device.
        NoDevice = PTR_TO_INVALID_DEVICE, "the device does not exist";
        /// It leads behind the device's last bucket.
        AfterLastBucket = PTR_AFTER_LAST_BUCKET, "behind the last bucket";
        /// It leads before the device's first bucket.
        BeforeFirstBucket = PTR_BEFORE_FIRST_BUCKET, "before the first bucket";
        /// What it leads to reaches into the next bucket.
        SpansBuckets = PTR_SPANS_MULTIPLE_BUCKETS, "reaches into the next bucket";
        /// The bucket has no alloc key.
        NoAllocKey = PTR_TO_MISSING_ALLOC_KEY, "its bucket has no alloc key";
        /// Its generation is newer than its bucket's.
        GenNewer {
            /// The bucket's generation.
            bucket: Gen,
        } = PTR_GEN_NEWER_THAN_BUCKET_GEN, "newer than its bucket, which has generation {bucket}";
        /// It is further behind its bucket than generations can tell.
        TooStale {
            /// The bucket's generation.
            bucket: Gen,
        } = PTR_TOO_STALE, "too far behind its bucket, which has generation {bucket}";
        /// The bucket has been reused since.
        Stale {
            /// The bucket's generation.
            bucket: Gen,
        } = STALE_DIRTY_PTR, "its bucket was reused and has generation {bucket}";
        /// The bucket holds other kinds of data too.
        Mixed {
            /// The kind found first.
            other: DataType,
        } = PTR_BUCKET_DATA_TYPE_MISMATCH, "its bucket also holds data of type {other}";
        /// Its stripe does not exist.
        NoStripe {
            /// The stripe.
            stripe: u64,
        } = PTR_TO_MISSING_STRIPE, "stripe {stripe} does not exist";
        /// There is no backpointer for it, or a different one.
        NoBackpointer {
            /// Where it should be.
            at: Bpos,
        } = PTR_TO_MISSING_BACKPOINTER, "no matching backpointer at {at}";
    }
}

faults! {
    /// A field of an alloc key.
    BucketField {
        /// Kind of data.
        DataType = ALLOC_KEY_DATA_TYPE_WRONG, "data type";
        /// Sectors of dirty data.
        DirtySectors = ALLOC_KEY_DIRTY_SECTORS_WRONG, "dirty sectors";
        /// Sectors of data in stripes.
        StripeSectors = ALLOC_KEY_STRIPE_SECTORS_WRONG, "stripe sectors";
        /// Sectors of cached data.
        CachedSectors = ALLOC_KEY_CACHED_SECTORS_WRONG, "cached sectors";
        /// How many stripes use it (from 1.35).
        Stripes = ALLOC_KEY_STRIPE_REFCOUNT_WRONG, "stripes";
        /// Its stripe (up to 1.34).
        Stripe = ALLOC_KEY_STRIPE_WRONG, "stripe";
        /// Redundancy of its stripe.
        StripeRedundancy = ALLOC_KEY_STRIPE_REDUNDANCY_WRONG, "stripe redundancy";
        /// Read time of a cached bucket.
        ReadTime = ALLOC_KEY_CACHED_BUT_READ_TIME_ZERO, "read time";
    }
}

/// What is wrong with a list of buckets (spec 60 §9.5, §9.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListFault {
    /// An entry is missing: a bucket, or all buckets of a range.
    #[error("{buckets} buckets from {first} on are not listed")]
    Missing {
        /// First bucket.
        first: BucketIndex,
        /// How many.
        buckets: u64,
        /// Buckets that were never used: they have no alloc key.
        hole: bool,
    },
    /// Buckets are listed that should not be.
    #[error("{buckets} buckets from {first} on are listed but should not be")]
    Stray {
        /// First bucket.
        first: BucketIndex,
        /// How many.
        buckets: u64,
        /// Their state does not belong here at all; otherwise they are listed at a wrong place.
        state: bool,
    },
    /// A bucket that does not exist is listed.
    #[error("there is no such bucket")]
    NoSuchBucket,
    /// The device does not exist.
    #[error("there is no such device")]
    NoSuchDevice,
    /// The recorded generation is not the bucket's.
    #[error("bucket {bucket} is recorded with generation {stored}, it has {computed}")]
    Generation {
        /// The bucket.
        bucket: BucketIndex,
        /// As recorded.
        stored: Gen,
        /// The bucket's own.
        computed: Gen,
        /// The bucket was never used: it has no alloc key.
        hole: bool,
    },
}

impl ListFault {
    /// The stable id of this kind in this list.
    pub fn id(&self, list: BtreeId) -> E {
        match (list, self) {
            (BtreeId::FREESPACE, ListFault::Missing { hole: true, .. }) => E::FREESPACE_HOLE_MISSING,
            (BtreeId::FREESPACE, ListFault::Missing { .. } | ListFault::Stray { state: true, .. }) => {
                E::FREESPACE_KEY_WRONG
            }
            (BtreeId::NEED_DISCARD, ListFault::Missing { .. } | ListFault::Stray { state: true, .. }) => {
                E::NEED_DISCARD_KEY_WRONG
            }
            (BtreeId::BUCKET_TO_STRIPE, ListFault::Missing { .. }) => E::STRIPE_TO_MISSING_BUCKET_REF,
            (BtreeId::BUCKET_TO_STRIPE, _) => E::BUCKET_STRIPE_REF_TO_MISSING_STRIPE,
            (BtreeId::RECONCILE_WORK_PHYS | BtreeId::RECONCILE_HIPRI_PHYS, _) => {
                E::RECONCILE_WORK_PHYS_INCORRECTLY_SET
            }
            (BtreeId::REBALANCE_WORK | BtreeId::RECONCILE_HIPRI | BtreeId::RECONCILE_PENDING, _) => {
                E::RECONCILE_WORK_INCORRECTLY_SET
            }
            (BtreeId::LRU, ListFault::Missing { .. }) => E::ALLOC_KEY_TO_MISSING_LRU_ENTRY,
            (BtreeId::LRU, ListFault::Stray { .. }) => E::LRU_ENTRY_BAD,
            (BtreeId::LRU, _) => E::LRU_ENTRY_TO_INVALID_BUCKET,
            (BtreeId::BUCKET_GENS, ListFault::NoSuchDevice) => E::BUCKET_GENS_TO_INVALID_DEV,
            (BtreeId::BUCKET_GENS, ListFault::NoSuchBucket) => E::BUCKET_GENS_TO_INVALID_BUCKETS,
            (BtreeId::BUCKET_GENS, ListFault::Stray { .. }) => E::BUCKET_GENS_NONZERO_FOR_INVALID_BUCKETS,
            (_, ListFault::Generation { hole: true, .. }) => E::BUCKET_GENS_HOLE_WRONG,
            (_, ListFault::Generation { .. } | ListFault::Missing { .. }) => E::BUCKET_GENS_KEY_WRONG,
            (_, ListFault::Stray { .. }) => E::NEED_DISCARD_FREESPACE_KEY_BAD,
            (_, ListFault::NoSuchBucket | ListFault::NoSuchDevice) => {
                E::NEED_DISCARD_FREESPACE_KEY_TO_INVALID_DEV_BUCKET
            }
        }
    }
}

faults! {
    /// Why a backpointer should not be there (spec 60 §9.7).
    BackpointerFault {
        /// The device does not exist.
        NoDevice = BACKPOINTER_TO_MISSING_DEVICE, "the device does not exist";
        /// Its bucket has no alloc key.
        NoAllocKey = BACKPOINTER_TO_MISSING_ALLOC, "its bucket has no alloc key";
        /// No key has a pointer that it could belong to.
        NoPointer = BACKPOINTER_TO_MISSING_PTR, "no pointer belongs to it";
    }
}

faults! {
    /// What is wrong with a snapshot (spec 60 §9.8).
    SnapshotFault {
        /// The parent does not exist.
        NoParent { #[doc = "It."] parent: SnapshotId } = SNAPSHOT_EDGE_BAD, "parent {parent} does not exist";
        /// The parent does not have it as a child.
        NotParentsChild { #[doc = "The parent."] parent: SnapshotId } = SNAPSHOT_EDGE_BAD, "parent {parent} has other children";
        /// A child does not exist.
        NoChild { #[doc = "It."] child: SnapshotId } = SNAPSHOT_EDGE_BAD, "child {child} does not exist";
        /// A child has another parent.
        NotChildsParent { #[doc = "The child."] child: SnapshotId } = SNAPSHOT_EDGE_BAD, "child {child} has another parent";
        /// Its tree does not exist or has another root.
        Tree { #[doc = "The tree it names."] tree: u32 } = SNAPSHOT_TO_BAD_SNAPSHOT_TREE, "it is not of tree {tree}";
        /// Its depth is not one more than its parent's.
        Depth { #[doc = "As stored."] stored: u32, #[doc = "As computed."] computed: u32 } = SNAPSHOT_BAD_DEPTH, "depth {stored}, should be {computed}";
        /// An entry of its skip list is no ancestor.
        Skip { #[doc = "The entry."] to: SnapshotId } = SNAPSHOT_BAD_SKIPLIST, "skip list entry {to} is no ancestor";
        /// It names a subvolume that it should not have.
        HasSubvol { #[doc = "The subvolume."] subvol: SubvolId } = SNAPSHOT_SHOULD_NOT_HAVE_SUBVOL, "it should not name subvolume {subvol}";
        /// It and its subvolume do not point at each other.
        SubvolBackref { #[doc = "The subvolume."] subvol: SubvolId } = SNAPSHOT_SUBVOL_BACKREF_WRONG, "subvolume {subvol} does not point back";
        /// Keys are in it, but it does not exist.
        Missing { #[doc = "B-tree of the first such key."] btree: BtreeId, #[doc = "The first such key."] pos: Bpos } = BKEY_IN_MISSING_SNAPSHOT, "it does not exist, but has keys (b-tree {btree}, {pos} …)";
        /// It is being deleted.
        Dying = SNAPSHOT_DELETED_BUT_HAS_DATA, "its deletion is not finished";
    }
}

faults! {
    /// What is wrong with a tree of snapshots (spec 60 §9.8).
    TreeFault {
        /// Its root does not exist, is no root, or belongs to another tree.
        Root { #[doc = "The root it names."] root: SnapshotId } = SNAPSHOT_TREE_TO_MISSING_SNAPSHOT, "snapshot {root} is not its root";
        /// Its master subvolume does not exist.
        NoMaster { #[doc = "The subvolume."] subvol: SubvolId } = SNAPSHOT_TREE_TO_MISSING_SUBVOL, "master subvolume {subvol} does not exist";
        /// Its master subvolume is not in this tree.
        WrongMaster { #[doc = "The subvolume."] subvol: SubvolId } = SNAPSHOT_TREE_TO_WRONG_SUBVOL, "master subvolume {subvol} is not in it";
        /// Its master subvolume is a snapshot of another.
        SnapshotMaster { #[doc = "The subvolume."] subvol: SubvolId } = SNAPSHOT_TREE_TO_SNAPSHOT_SUBVOL, "master subvolume {subvol} is a snapshot";
    }
}

faults! {
    /// What is wrong with a subvolume (spec 60 §9.8, §9.11).
    SubvolFault {
        /// The root subvolume has a parent.
        RootHasParent { #[doc = "The parent."] parent: SubvolId } = SUBVOL_ROOT_FS_PATH_PARENT_NONZERO, "the root subvolume cannot be in subvolume {parent}";
        /// It is not listed among its parent's children.
        NotListed { #[doc = "The parent."] parent: SubvolId } = SUBVOL_CHILDREN_NOT_SET, "not listed as a child of subvolume {parent}";
        /// It is listed as the child of a subvolume that is not its parent.
        ListedFalsely { #[doc = "The subvolume that lists it."] parent: u64 } = SUBVOL_CHILDREN_BAD, "listed as a child of subvolume {parent}, which it is not";
        /// Its snapshot does not exist or belongs to another subvolume.
        Snapshot { #[doc = "The snapshot."] snapshot: SnapshotId } = SUBVOL_SNAPSHOT_BAD, "snapshot {snapshot} does not exist";
        /// Its snapshot has children and cannot be written to.
        NotLeaf { #[doc = "The snapshot."] snapshot: SnapshotId } = SUBVOL_SNAPSHOT_NOT_LEAF, "snapshot {snapshot} has children";
        /// Its root directory does not exist.
        NoRoot { #[doc = "The inode."] inum: Inum } = SUBVOL_TO_MISSING_ROOT, "root directory {inum} does not exist";
        /// Its root directory says it is another subvolume's.
        RootSubvol { #[doc = "The inode."] inum: Inum, #[doc = "The subvolume it names."] named: SubvolId } = SUBVOL_ROOT_WRONG_BI_SUBVOL, "root directory {inum} names subvolume {named}";
        /// It is neither a snapshot nor its tree's master.
        NotMaster = SUBVOL_NOT_MASTER_AND_NOT_SNAPSHOT, "neither a snapshot nor the master of its tree";
        /// It is inside itself.
        Loop = SUBVOL_LOOP, "it is inside itself";
        /// A subvolume above it does not exist.
        Unreachable { #[doc = "The one that is missing."] above: SubvolId } = SUBVOL_UNREACHABLE, "subvolume {above} above it does not exist";
        /// The root subvolume is missing.
        RootMissing = ROOT_SUBVOL_MISSING, "the root subvolume does not exist";
        /// The root directory is missing.
        RootDirMissing = ROOT_DIR_MISSING, "the root directory does not exist";
        /// The root directory is none.
        RootDirNotDir = ROOT_INODE_NOT_DIR, "the root directory is no directory";
        /// It was removed; its contents are not yet.
        Dying = SUBVOL_UNREACHABLE, "its deletion is not finished";
    }
}

faults! {
    /// What is wrong with an inode (spec 60 §9.9, §9.11–§9.14).
    InodeFault {
        /// Hash seed or file type differs between its versions.
        Mismatch { #[doc = "Snapshot of a version that differs."] other: SnapshotId } = INODE_SNAPSHOT_MISMATCH, "hash or type differs from its version in snapshot {other}";
        /// It names a dirent that does not exist.
        NoDirent { #[doc = "Directory."] dir: Inum, #[doc = "Hash slot."] offset: u64 } = INODE_POINTS_TO_MISSING_DIRENT, "its name should be in directory {dir} at {offset}, which is empty";
        /// It names a dirent that leads elsewhere.
        WrongDirent { #[doc = "Directory."] dir: Inum, #[doc = "Hash slot."] offset: u64 } = INODE_POINTS_TO_WRONG_DIRENT, "the name in directory {dir} at {offset} leads elsewhere";
        /// It is unlinked and yet has a dirent.
        UnlinkedWithDirent = INODE_UNLINKED_BUT_HAS_DIRENT, "unlinked, but it has a name";
        /// It is an unlinked directory with entries.
        UnlinkedNotEmpty = INODE_DIR_UNLINKED_BUT_NOT_EMPTY, "an unlinked directory that is not empty";
        /// The flag for versions in descendant snapshots is wrong.
        HasChildSnapshot { #[doc = "As stored."] stored: bool } = INODE_HAS_CHILD_SNAPSHOTS_WRONG, "has_child_snapshot is {stored}";
        /// It is unlinked but not in the list of such.
        NotListed = UNLINKED_INODE_NOT_ON_DELETED_LIST, "unlinked, but not listed as deleted";
        /// It names a parent subvolume, but is no subvolume's root.
        ParentSubvol { #[doc = "The subvolume."] parent: SubvolId } = INODE_BI_PARENT_NONZERO, "it is no root of a subvolume, but names parent subvolume {parent}";
        /// It says it is the root of a subvolume that does not exist.
        NoSubvol { #[doc = "The subvolume."] subvol: SubvolId } = INODE_BI_SUBVOL_MISSING, "subvolume {subvol} does not exist";
        /// It says it is the root of a subvolume that has another.
        WrongSubvol { #[doc = "The subvolume."] subvol: SubvolId } = INODE_BI_SUBVOL_WRONG, "subvolume {subvol} has another root directory";
        /// The parent subvolume is not the one that holds the name.
        WrongParentSubvol { #[doc = "As stored."] stored: SubvolId, #[doc = "The one with the name."] computed: SubvolId } = INODE_BI_PARENT_WRONG, "parent subvolume {stored}, should be {computed}";
        /// Its sectors are not the sum of its extents.
        Sectors { #[doc = "As stored."] stored: u64, #[doc = "As computed."] computed: u64 } = INODE_I_SECTORS_WRONG, "{stored} sectors, should be {computed}";
        /// A directory's link count is not the number of its subdirectories.
        DirLinks { #[doc = "As stored."] stored: u32, #[doc = "As counted."] computed: u64 } = INODE_DIR_WRONG_NLINK, "directory with {stored} subdirectories, should be {computed}";
        /// A file's link count is not the number of its names.
        Links { #[doc = "As stored, plus one."] stored: u64, #[doc = "As counted."] computed: u64 } = INODE_WRONG_NLINK, "{stored} links, should be {computed}";
        /// A directory with more than one name.
        DirManyLinks { #[doc = "Directory of the second name."] dir: Inum, #[doc = "Its hash slot."] offset: u64 } = INODE_DIR_MULTIPLE_LINKS, "a directory with a second name in {dir} at {offset}";
        /// A file with more than one name but a link count of one.
        ManyLinks { #[doc = "Directory of the second name."] dir: Inum, #[doc = "Its hash slot."] offset: u64 } = INODE_MULTIPLE_LINKS_BUT_NLINK_0, "one link, but a second name in {dir} at {offset}";
        /// It names a dirent that does not exist, while there is another.
        WrongBackpointer { #[doc = "Directory of the name found."] dir: Inum, #[doc = "Its hash slot."] offset: u64 } = INODE_WRONG_BACKPOINTER, "its name is in directory {dir} at {offset}, not where it says";
        /// A directory does not know its name.
        NoBackpointer { #[doc = "Directory of the name."] dir: Inum, #[doc = "Its hash slot."] offset: u64 } = INODE_DIR_MISSING_BACKPOINTER, "a directory that does not know its name in {dir} at {offset}";
        /// Nothing leads to it.
        Unreachable = INODE_UNREACHABLE, "it has no name";
        /// Its parents form a loop.
        Loop = DIR_LOOP, "a directory inside itself";
        /// Unlinked in a volume that was shut down cleanly.
        DeletedButClean = DELETED_INODE_BUT_CLEAN, "unlinked, although the volume was shut down cleanly";
        /// Listed as deleted, but it does not exist.
        ListedMissing = DELETED_INODE_MISSING, "listed as deleted, but it does not exist";
        /// Listed as deleted, but a directory with entries.
        ListedNotEmpty = DELETED_INODE_IS_DIR, "listed as deleted, but a directory that is not empty";
        /// Listed as deleted, but linked.
        ListedLinked = DELETED_INODE_NOT_UNLINKED, "listed as deleted, but it is linked";
        /// Listed as deleted, but it lives on in a descendant snapshot.
        ListedWithChildren = DELETED_INODE_HAS_CHILD_SNAPSHOTS, "listed as deleted, but in use by other snapshots";
        /// A file that was unlinked but still open when the volume was last used.
        Orphan = DELETED_INODE_BUT_CLEAN, "unlinked, to be removed at the next start";
        /// A directory likewise.
        OrphanDir = INODE_UNREACHABLE, "unlinked directory, to be removed at the next start";
    }
}

faults! {
    /// What is wrong with an extent, a directory entry, an attribute or another key (spec 60 §9.10, §9.11).
    ItemFault {
        /// Its inode does not exist in its snapshot.
        NoInode = KEY_IN_MISSING_INODE, "its inode does not exist";
        /// Its inode is of a type that has no such keys.
        InodeType { #[doc = "The type."] ty: FileType } = KEY_IN_WRONG_INODE_TYPE, "its inode is a {ty}";
        /// It overlaps the extent before it.
        Overlaps { #[doc = "Where the extent before it ends."] end: u64, #[doc = "The snapshot that sees both."] snapshot: SnapshotId } = EXTENT_OVERLAPPING, "it begins before sector {end}, where the one before it ends, in snapshot {snapshot}";
        /// It lies behind the end of the file.
        PastEnd { #[doc = "End of the file in bytes."] size: u64, #[doc = "The snapshot with that size."] snapshot: SnapshotId } = EXTENT_PAST_END_OF_INODE, "it ends behind the file's end at byte {size} in snapshot {snapshot}";
        /// A lookup of its name would not find it.
        WrongSlot { #[doc = "Hash of its name."] hash: u64 } = HASH_TABLE_KEY_WRONG_OFFSET, "its name hashes to {hash}";
        /// The same name is in an earlier slot.
        Duplicate { #[doc = "That slot."] first: u64 } = HASH_TABLE_KEY_DUPLICATE, "the same name is at {first}";
        /// The inode it leads to does not exist.
        NoTarget { #[doc = "It."] inum: Inum } = DIRENT_TO_MISSING_INODE, "inode {inum} does not exist";
        /// The subvolume it leads to does not exist.
        NoSubvol { #[doc = "It."] subvol: SubvolId } = DIRENT_TO_MISSING_SUBVOL, "subvolume {subvol} does not exist";
        /// The subvolume it is in does not exist.
        NoParentSubvol { #[doc = "It."] subvol: SubvolId } = DIRENT_TO_MISSING_PARENT_SUBVOL, "parent subvolume {subvol} does not exist";
        /// The subvolume it is in does not see it.
        NotVisibleInParent { #[doc = "It."] subvol: SubvolId } = DIRENT_NOT_VISIBLE_IN_PARENT_SUBVOL, "not visible in parent subvolume {subvol}";
        /// The subvolume it leads to says it is elsewhere.
        ParentOfSubvol { #[doc = "As the subvolume says."] stored: SubvolId, #[doc = "As the entry says."] computed: SubvolId } = SUBVOL_FS_PATH_PARENT_WRONG, "its subvolume says it is in subvolume {stored}, not {computed}";
        /// Its type is not that of the inode it leads to.
        Type { #[doc = "As stored."] stored: FileType, #[doc = "The inode's."] computed: FileType } = DIRENT_D_TYPE_WRONG, "type {stored}, should be {computed}";
        /// A reference to shared data that does not exist.
        NoShared { #[doc = "First sector of the missing part."] from: u64, #[doc = "Behind its last sector."] to: u64 } = REFLINK_P_TO_MISSING_REFLINK_V, "there is no shared data at {from} to {to}";
        /// Shared data with a wrong number of references.
        Refcount { #[doc = "As stored."] stored: u64, #[doc = "As counted."] computed: u64 } = REFLINK_V_REFCOUNT_WRONG, "{stored} references, should be {computed}";
        /// A logged operation in a volume that was shut down cleanly.
        LoggedOpButClean = LOGGED_OP_BUT_CLEAN, "an unfinished operation, although the volume was shut down cleanly";
        /// A logged operation that the next start finishes.
        Unfinished = LOGGED_OP_BUT_CLEAN, "an unfinished operation, to be finished at the next start";
    }
}
