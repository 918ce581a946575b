//! What follows from a commit: the derived half of every transaction.
//!
//! Somebody inserts an extent. That a bucket now holds eight sectors more, that it is no longer free, that the extent can be found from its place
//! on the device, that a snapshot, an inode, a set of devices and a kind of compression count more: all that must stand in the same
//! journal entry, or a crash leaves a volume that contradicts itself. [`Deriver`] adds it, under the commit lock of the b-tree engine, from the
//! list of changes alone:
//!
//! 1. **Net.** All new keys are put through [`crate::derive::of_key`], and all old ones with the opposite sign (`net.rs`). What a key implies is
//!    known in one place only, which the checker uses too.
//! 2. **Versions of inodes** get or lose the flag that there is another one below (`inodes.rs`).
//! 3. **References** to shared data are counted, and what nobody refers to is removed, which again goes into the net (`reflink.rs`).
//! 4. **Buckets.** Each touched alloc key is read once, changed once, and listed anew (`buckets.rs`, `freespace.rs`).
//! 5. **Counters** are added. If one counts data on a set of devices of which the superblock does not know yet, the superblock is written first and the
//!    commit begins again (spec 50 §3.1).
//!
//! When the commit has a place in the journal, [`Triggers::stamp`] writes the number of the entry into keys that carry one, and when it is done,
//! [`Triggers::committed`] lets the buckets and counters in memory follow.
//!
//! Keys of alloc may also be changed directly, by who discards or invalidates buckets. Then the same rules apply to the change. Erasure-coded data is refused.

mod buckets;
mod freespace;
mod inodes;
mod net;
mod reflink;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_btree::write::{Blocked, Change, CommitError, Stage, Triggers};
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::units::Seq;
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use self::net::Net;
use super::clock::IoClocks;
use super::space::Space;
use super::superblocks::Superblocks;

/// The triggers of a volume. See the [module](self).
pub struct Deriver {
    space: Arc<Space>,
    superblocks: Arc<dyn Superblocks>,
    clocks: Arc<IoClocks>,
}

/// What is stored contradicts itself or the change.
fn inconsistent(what: String) -> CommitError {
    CommitError::Inconsistent(what)
}

/// A key of type `set`, or its removal.
fn set_key(pos: Bpos, present: bool) -> KeyBuf {
    KeyBuf::new(if present { KeyType::SET } else { KeyType::DELETED }, pos, 0, [])
}

impl Deriver {
    /// The triggers of a volume with that space.
    pub fn new(space: Arc<Space>, superblocks: Arc<dyn Superblocks>, clocks: Arc<IoClocks>) -> Deriver {
        Deriver { space, superblocks, clocks }
    }

    /// Backpointers and keys of type `set`.
    fn lists(stage: &mut dyn Stage, net: &Net<'_>) {
        for (&pos, at) in &net.backpointers {
            let Some(change) = at.change() else { continue };
            let key = change.map_or_else(
                || set_key(pos, false),
                |added| {
                    let mut value = Vec::with_capacity(32);
                    added.encode(&mut value);
                    KeyBuf::new(KeyType::BACKPOINTER, pos, 0, value)
                },
            );
            stage.buffer(BtreeId::BACKPOINTERS, key);
        }
        for (&(btree, pos), &by) in net.sets.iter().filter(|(_, by)| **by != 0) {
            let key = set_key(pos, by > 0);
            match btree {
                BtreeId::DELETED_INODES | BtreeId::REBALANCE_WORK => stage.buffer(btree, key),
                _ => stage.update(btree, key),
            }
        }
    }

    /// The superblock must know of a set of devices before there is data on it.
    fn replicas_known(&self, what: &AccountingPos, by: [i64; 3]) -> Result<(), Blocked> {
        let AccountingPos::Replicas { data_type, nr_required, devs } = *what else { return Ok(()) };
        if by[0] <= 0 {
            return Ok(());
        }
        let entry = ReplicasEntry { data_type, nr_required, devs: devs.iter().collect() };
        if self.superblocks.has_replicas(&entry) {
            return Ok(());
        }
        let superblocks = Arc::clone(&self.superblocks);
        Err(Blocked::First(Box::new(move || superblocks.mark_replicas(&entry))))
    }
}

impl Triggers for Deriver {
    fn run(&self, stage: &mut dyn Stage, changes: &[Change]) -> Result<(), Blocked> {
        let mut net = Net::new(&self.space);
        let mut direct = BTreeMap::new();
        for change in changes {
            match change.btree {
                BtreeId::ALLOC if change.level == 0 => {
                    let pos = change.new.k.pos;
                    let at = DevBucket::from_pos(pos)
                        .ok_or_else(|| inconsistent(format!("no bucket has its alloc key at {pos}")))?;
                    direct.insert(at, change);
                }
                BtreeId::STRIPES if change.level == 0 => {
                    return Err(inconsistent("stripes cannot be changed".into()).into());
                }
                BtreeId::EXTENTS if change.level == 0 => {
                    let padded = reflink::padded(stage, change)?;
                    let new = padded.as_ref().or(change.inserted());
                    net.replace(change.btree, 0, change.old.as_ref(), new)?;
                    if let Some(padded) = padded {
                        stage.update(change.btree, padded);
                    }
                }
                _ => net.replace(change.btree, change.level, change.old.as_ref(), change.inserted())?,
            }
        }
        for change in changes.iter().filter(|c| c.btree == BtreeId::INODES && c.level == 0) {
            inodes::changed(stage, &mut net, change)?;
        }
        reflink::count(stage, &mut net)?;
        Self::lists(stage, &net);
        let mut accounts = std::mem::take(&mut net.accounts);
        for (&at, parts) in &net.buckets {
            let direct = direct.remove(&at);
            if direct.is_some() || parts.iter().any(|part| part.sectors != 0) {
                self.bucket(stage, at, parts, direct, &mut accounts)?;
            }
        }
        for (at, change) in direct {
            self.bucket(stage, at, &[], Some(change), &mut accounts)?;
        }
        for (what, by) in accounts.changed() {
            self.replicas_known(what, *by)?;
            stage.account(*what, *by);
        }
        Ok(())
    }

    /// Number of the entry in which a bucket last became empty or not empty, and in which an inode last changed. The reference
    /// writes 0 into a bucket that is emptied in the entry that filled it, so that nobody waits for it (spec 50 §4.4); but a bucket that is still open may
    /// have been emptied and filled before in that entry, and then there is something to wait for. Ours always waits.
    fn stamp(&self, seq: Seq, btree: BtreeId, old: Option<&KeyBuf>, new: &mut KeyBuf) {
        match (btree, new.k.ty) {
            (BtreeId::ALLOC, KeyType::ALLOC_V4) => {
                let is_empty = |key| buckets::state(key).is_ok_and(|alloc: Alloc| alloc.data_type.is_empty());
                if is_empty(old) != is_empty(Some(new)) {
                    new.value[..8].copy_from_slice(&seq.0.to_le_bytes());
                }
            }
            (BtreeId::INODES, KeyType::INODE_V3) => Inode::stamp_journal_seq(&mut new.value, seq),
            _ => {}
        }
    }

    fn committed(&self, seq: Seq, changes: &[Change], accounted: &[(AccountingPos, [i64; 3])]) {
        let of_alloc = changes.iter().filter(|c| c.btree == BtreeId::ALLOC && c.level == 0);
        let buckets = of_alloc
            .filter_map(|c| Some((DevBucket::from_pos(c.new.k.pos)?, buckets::state(c.inserted()).ok()?)));
        self.space.committed(seq, buckets, accounted);
    }
}
