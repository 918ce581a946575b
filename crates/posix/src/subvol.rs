//! Subvolumes: which snapshot a path is seen through (spec 40 §13.2, spec 80 §5.18).
//!
//! A subvolume is a root directory and the leaf of a snapshot tree. Everything asked about a file begins with the view of its
//! subvolume's snapshot, so the few subvolumes in use are kept. One that has been unlinked or deleted does not exist for
//! readers, although its record may stay until its keys are gone.

use std::collections::HashMap;
use std::sync::Arc;

use frazil_btree::View;
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::subvolume::{Subvolume, SubvolumeState};
use frazil_ondisk::{Bpos, BtreeId, Key, KeyType};
use parking_lot::RwLock;

use crate::attr::{NodeId, Timestamp};
use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// Subvolumes remembered; when there are more the memory starts over.
const CACHED_MAX: usize = 4096;

/// A subvolume in use.
#[derive(Debug)]
pub(crate) struct Subvol {
    /// What its snapshot sees.
    pub(crate) view: View,
    /// Its root directory.
    pub(crate) root: Inum,
}

/// The subvolumes met so far.
#[derive(Default)]
pub(crate) struct SubvolCache(RwLock<Known>);

#[derive(Default)]
struct Known {
    /// Grows whenever everything is forgotten.
    age: u64,
    by_id: HashMap<SubvolId, Arc<Subvol>>,
}

impl SubvolCache {
    /// A subvolume that is known, or the age as of which it is not.
    fn get(&self, id: SubvolId) -> std::result::Result<Arc<Subvol>, u64> {
        let known = self.0.read();
        known.by_id.get(&id).map(Arc::clone).ok_or(known.age)
    }

    /// Keeps what was read after `get` named that age, unless everything has been forgotten meanwhile.
    fn keep(&self, age: u64, id: SubvolId, subvol: &Arc<Subvol>) {
        let mut known = self.0.write();
        if known.by_id.len() >= CACHED_MAX {
            known.by_id.clear();
        }
        if known.age == age {
            known.by_id.insert(id, Arc::clone(subvol));
        }
    }

    /// Forgets everything: subvolumes have changed.
    pub(crate) fn forget(&self) {
        let mut known = self.0.write();
        known.age += 1;
        known.by_id.clear();
    }
}

/// A subvolume, for listings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubvolInfo {
    /// Its id.
    pub id: SubvolId,
    /// Where it is in the tree, as well as that can be told ([`crate::Fs::path_of`]).
    pub path: Vec<u8>,
    /// Its root directory.
    pub root: NodeId,
    /// The snapshot it writes to.
    pub snapshot: SnapshotId,
    /// It cannot be changed.
    pub read_only: bool,
    /// It was made as a snapshot of another subvolume.
    pub is_snapshot: bool,
    /// The subvolume it is a snapshot of; `None` for others, and if that one is gone.
    pub snapshot_of: Option<SubvolId>,
    /// The subvolume that contains its directory entry; `None` for the root subvolume.
    pub parent: Option<SubvolId>,
    /// When it was made.
    pub created: Timestamp,
}

impl Namespace {
    /// A subvolume in use; `None` if there is none with that id.
    ///
    /// # Errors
    /// If the subvolumes b-tree cannot be read, or the subvolume has no snapshot.
    pub(crate) fn subvol(&self, id: SubvolId) -> Result<Option<Arc<Subvol>>> {
        let age = match self.subvols.get(id) {
            Ok(known) => return Ok(Some(known)),
            Err(age) => age,
        };
        let Some(handle) = self.btrees.get(BtreeId::SUBVOLUMES, Bpos::new(0, id.0.into(), 0))? else {
            return Ok(None);
        };
        let Some(subvolume) = decode_live(handle.key())? else { return Ok(None) };
        let view = self.view(id, subvolume.snapshot)?;
        let subvol = Arc::new(Subvol { view, root: subvolume.inode });
        self.subvols.keep(age, id, &subvol);
        Ok(Some(subvol))
    }

    /// What the snapshot of a subvolume sees. On a volume that is being written it may be newer than the table of snapshots.
    ///
    /// # Errors
    /// If it does not exist.
    pub(crate) fn view(&self, id: SubvolId, snapshot: SnapshotId) -> Result<View> {
        let known = self.snapshots.view(snapshot);
        if let Ok(view) = known {
            return Ok(view);
        }
        if self.is_written {
            self.refresh_snapshots()?;
        }
        self.snapshots.view(snapshot).map_err(|e| Error::Io(format!("subvolume {id}: {e}")))
    }

    /// Takes notice of snapshots that were made or deleted. Who finds a subvolume afterwards finds it as it is now.
    ///
    /// # Errors
    /// If the snapshots b-tree cannot be read.
    pub(crate) fn refresh_snapshots(&self) -> Result<()> {
        Ok(self.snapshots.reload(&self.btrees, || self.subvols.forget())?)
    }

    /// All subvolumes in use, in the order of their ids.
    ///
    /// # Errors
    /// If the subvolumes b-tree cannot be read.
    pub(crate) fn subvolumes(&self) -> Result<Vec<SubvolInfo>> {
        let mut found = Vec::new();
        let mut cursor = self.btrees.cursor(BtreeId::SUBVOLUMES, ..);
        while let Some(key) = cursor.next()? {
            let Ok(id) = u32::try_from(key.k.pos.offset).map(SubvolId) else { continue };
            let Some(subvolume) = decode_live(key)? else { continue };
            let some = |id: SubvolId| (id.0 != 0).then_some(id);
            let root = NodeId { subvol: id, inum: subvolume.inode };
            found.push(SubvolInfo {
                id,
                path: self.path_of(root),
                root,
                snapshot: subvolume.snapshot,
                read_only: subvolume.flags & Subvolume::RO != 0,
                is_snapshot: subvolume.flags & Subvolume::SNAP != 0,
                snapshot_of: some(subvolume.creation_parent),
                parent: some(subvolume.fs_path_parent),
                created: self.subvol_time(subvolume.otime),
            });
        }
        Ok(found)
    }

    /// A 128-bit time of a subvolume; those that mean anything fit 64 bits.
    fn subvol_time(&self, stored: u128) -> Timestamp {
        Timestamp::from_unix_ns(self.time_base.to_unix_ns(stored as u64 as i64))
    }
}

/// The subvolume in a key, if it is one in use.
pub(crate) fn decode_live(key: Key<'_>) -> Result<Option<Subvolume>> {
    if key.k.ty != KeyType::SUBVOLUME {
        return Ok(None);
    }
    let subvolume = Subvolume::decode(key.value)
        .map_err(|e| Error::Io(format!("subvolume {} cannot be decoded: {e}", key.k.pos.offset)))?;
    // An unknown state is a damaged one, and damage must not take files away.
    let gone = matches!(subvolume.state(), Some(SubvolumeState::Unlinked | SubvolumeState::Deleted));
    Ok((!gone).then_some(subvolume))
}
