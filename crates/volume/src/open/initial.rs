//! A volume that was formatted but never started.
//!
//! Formatting may stop after the superblocks; the first read-write start then makes the journal, the first snapshot, the root subvolume
//! and two directories (spec 10 §16.3). A reader must not write, so it sees the same thing as an overlay over empty
//! b-trees: `/` and `/lost+found`, made at the time the volume was.

use frazil_btree::{Overlay, Roots};
use frazil_ondisk::KeyBuf;
use frazil_ondisk::btree_id::BtreeId;
use frazil_ondisk::error::Result;
use frazil_ondisk::superblock::Superblock;

use super::recover::{Recovered, Recovery};
use crate::initial;

/// The b-trees as the first start would leave them.
pub(super) fn never_started(superblock: &Superblock) -> Result<Recovered> {
    let mut overlay = Overlay::empty();
    let mut put = |btree, keys: &[KeyBuf]| overlay.set(btree, 0, keys.iter().map(KeyBuf::as_key));
    put(BtreeId::SNAPSHOT_TREES, &[initial::snapshot_tree()]);
    put(BtreeId::SNAPSHOTS, &[initial::snapshot()]);
    put(BtreeId::SUBVOLUMES, &[initial::subvolume()]);

    // The volume's own UUID is as good a seed as any, and gives the same view every time.
    let (_, hash_seed) = superblock.uuid.as_u64_pair();
    let (inodes, dirent) = initial::directories(superblock.str_hash_type()?, [hash_seed; 2]);
    put(BtreeId::INODES, &inodes);
    put(BtreeId::DIRENTS, &[dirent]);
    Ok(Recovered {
        roots: Roots::new(),
        overlay,
        accounting_deltas: Vec::new(),
        blacklist: Vec::new(),
        how: Recovery::NeverStarted,
    })
}
