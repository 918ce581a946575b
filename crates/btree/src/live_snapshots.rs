//! The trees of snapshots of a volume that is being changed.
//!
//! [`SnapshotTable`] is immutable, and whoever reads keeps the one it began with. Making or deleting a snapshot is a commit like any
//! other; afterwards the table is read anew and put in place of the old one. Between the commit and that moment there is no harm: who
//! reads with the old table sees the volume as it was a moment ago, and who writes finds, in the key of its subvolume, a snapshot that the old
//! table does not know, and has it read anew first.
//!
//! A read of the current table is one lock that nobody holds for longer than it takes to copy a pointer.

use std::sync::Arc;

use frazil_ondisk::units::SnapshotId;
use parking_lot::{Mutex, RwLock};

use crate::error::Result;
use crate::snapshots::{SnapshotTable, View};
use crate::trees::Btrees;

/// The current [`SnapshotTable`]. See the [module](self).
#[derive(Debug)]
pub struct LiveSnapshots {
    current: RwLock<Arc<SnapshotTable>>,
    /// Whoever reads last has read last.
    reading: Mutex<()>,
}

impl LiveSnapshots {
    /// Begins with a table.
    pub fn new(table: Arc<SnapshotTable>) -> LiveSnapshots {
        LiveSnapshots { current: RwLock::new(table), reading: Mutex::default() }
    }

    /// The table as of the last [`LiveSnapshots::reload`].
    pub fn table(&self) -> Arc<SnapshotTable> {
        Arc::clone(&self.current.read())
    }

    /// The eyes of one snapshot.
    ///
    /// # Errors
    /// As [`SnapshotTable::view`].
    pub fn view(&self, id: SnapshotId) -> Result<View> {
        self.current.read().view(id)
    }

    /// Reads the table anew, and runs `then` before anybody else can do that. Every commit that was done before the call is in it.
    ///
    /// # Errors
    /// If the snapshots b-tree cannot be read; the table stays what it was.
    pub fn reload(&self, trees: &Btrees, then: impl FnOnce()) -> Result<()> {
        let _reading = self.reading.lock();
        let (table, errors) = SnapshotTable::load(trees);
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => {
                *self.current.write() = Arc::new(table);
                then();
                Ok(())
            }
        }
    }
}
