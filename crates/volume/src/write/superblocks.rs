//! What the superblock must say before something else may be written.
//!
//! Two facts about the b-trees also stand in the superblock, because they are needed before any b-tree can be read: on which sets
//! of devices there is data (spec 50 §3.1), and in which parts of a device there may be nodes (spec 50 §6.3). Both only ever need
//! to say too much, never too little; so each is written there first, and only then may a commit make it true.

use std::ops::Range;

use frazil_btree::write::CommitError;
use frazil_ondisk::superblock::bitmap::BtreeBitmap;
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::units::{DevIndex, Sectors};

/// The superblocks of a volume that is being written.
pub trait Superblocks: Send + Sync {
    /// Whether the table of replicas on stable storage has the entry; its devices are ascending. Asked under the commit lock: must not
    /// wait.
    fn has_replicas(&self, entry: &ReplicasEntry) -> bool;

    /// Adds an entry to the table of replicas and returns when it is on stable storage on all devices. Nothing happens if it is there.
    ///
    /// # Errors
    /// If a superblock cannot be written.
    fn mark_replicas(&self, entry: &ReplicasEntry) -> Result<(), CommitError>;

    /// A device's map of where b-tree nodes may be, as it is on stable storage; empty if there is no such device. Must not wait.
    fn btree_bitmap(&self, dev: DevIndex) -> BtreeBitmap;

    /// Adds sectors to a device's map of b-tree nodes and returns when it is on stable storage. Nothing happens if they are there.
    ///
    /// # Errors
    /// If a superblock cannot be written.
    fn mark_btree_nodes(&self, dev: DevIndex, sectors: Range<Sectors>) -> Result<(), CommitError>;
}
