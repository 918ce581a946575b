//! An open volume.

use std::sync::Arc;

use frazil_btree::{Btrees, SnapshotTable};
use frazil_device::DeviceSet;
use frazil_ondisk::KeyBuf;
use frazil_ondisk::crypto::Key;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::members::Members;

use crate::data::Reader;
use crate::error::Notice;
use crate::open::Recovery;

/// A volume open for reading: who its devices are, how to decrypt it, and the b-trees that hold everything else. Shared by all
/// readers; every method may be called from any thread.
pub struct Volume {
    pub(crate) superblock: Superblock,
    pub(crate) members: Members,
    pub(crate) devices: DeviceSet,
    pub(crate) key: Option<Key>,
    pub(crate) btrees: Arc<Btrees>,
    pub(crate) data: Reader,
    pub(crate) snapshots: Arc<SnapshotTable>,
    pub(crate) recovery: Recovery,
    pub(crate) accounting_deltas: Vec<KeyBuf>,
    pub(crate) notices: Vec<Notice>,
}

impl Volume {
    /// The superblock that counts.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The members, present or not.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The devices that are present.
    pub fn devices(&self) -> &DeviceSet {
        &self.devices
    }

    /// The master key, if the volume is encrypted.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// The b-trees, journal overlay included.
    pub fn btrees(&self) -> &Arc<Btrees> {
        &self.btrees
    }

    /// What reads the contents of files.
    pub fn data(&self) -> &Reader {
        &self.data
    }

    /// The trees of snapshots, as they were when the volume was opened.
    pub fn snapshots(&self) -> &Arc<SnapshotTable> {
        &self.snapshots
    }

    /// How the volume was left by its last user.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What the user should know.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }
}
