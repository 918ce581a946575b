//! Hard links, and inodes that nothing leads to (spec 60 §9.12, §9.13).
//!
//! How many names a file has can only be told after all directories have been seen, and only files that claim to have more than one
//! need counting; the same goes for inodes whose own idea of their name turned out to be wrong. Both are collected while the
//! inodes go by. If there are any, the directories are walked once more.

use std::collections::HashMap;

use frazil_btree::View;
use frazil_ondisk::units::{Inum, SnapshotId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::{BtreeId, KeyType};

use super::super::context::Check;
use super::super::faults::InodeFault;
use super::{Slot, in_snapshot, inode};

/// A version of an inode whose names must be counted.
struct Wanted {
    snapshot: SnapshotId,
    view: View,
    /// The link count it stores; `None` if it only matters whether there is a name at all.
    stored: Option<u32>,
    names: u64,
}

/// Inodes whose names must be counted.
#[derive(Default)]
pub(super) struct Links {
    wanted: HashMap<Inum, Vec<Wanted>>,
}

impl Links {
    /// A file that says it has more than one name.
    pub(super) fn expect(&mut self, inum: Inum, snapshot: SnapshotId, nlink_raw: u32, view: View) {
        let stored = Some(nlink_raw);
        self.wanted.entry(inum).or_default().push(Wanted { snapshot, view, stored, names: 0 });
    }

    /// An inode whose name is not where it says.
    pub(super) fn suspect(&mut self, inum: Inum, snapshot: SnapshotId, view: View) {
        self.wanted.entry(inum).or_default().push(Wanted { snapshot, view, stored: None, names: 0 });
    }

    /// Counts, and reports what differs.
    pub(super) fn check(mut self, check: &mut Check<'_>) {
        if self.wanted.is_empty() {
            return;
        }
        let mut slot: Slot<Option<Inum>> = Slot::new();
        let mut dir = 0;
        check.each(BtreeId::DIRENTS, 0, |check, key| {
            if (dir, slot.offset) != (key.k.pos.inode, key.k.pos.offset) {
                self.count(&mut slot);
                (dir, slot.offset) = (key.k.pos.inode, key.k.pos.offset);
            }
            if in_snapshot(check, key) {
                let entry = Dirent::decode(key.value).ok().filter(|_| key.k.ty == KeyType::DIRENT);
                let target = entry.and_then(|e| match e.target {
                    DirentTarget::Inode(inum) => Some(inum),
                    DirentTarget::Subvol { .. } => None,
                });
                slot.keys.push((key.k.pos.snapshot, target));
            }
        });
        self.count(&mut slot);
        if check.complete(BtreeId::DIRENTS) {
            self.report(check);
        }
    }

    fn count(&mut self, slot: &mut Slot<Option<Inum>>) {
        let mut targets: Vec<Inum> = slot.keys.iter().filter_map(|(_, target)| *target).collect();
        // The slot may lead to one file in several snapshots; each sees it once.
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            for wanted in self.wanted.get_mut(&target).into_iter().flatten() {
                let seen = slot.seen_by(&wanted.view).copied().flatten();
                wanted.names += u64::from(seen == Some(target));
            }
        }
        slot.keys.clear();
    }

    fn report(self, check: &mut Check<'_>) {
        let mut wanted: Vec<(Inum, Wanted)> = self
            .wanted
            .into_iter()
            .flat_map(|(inum, list)| list.into_iter().map(move |w| (inum, w)))
            .collect();
        wanted.sort_by_key(|(inum, w)| (*inum, w.snapshot));
        for (inum, Wanted { snapshot, stored, names, .. }) in wanted {
            let fault = match stored {
                Some(raw) if u64::from(raw) + 1 != names => {
                    InodeFault::Links { stored: u64::from(raw) + 1, computed: names }
                }
                None if names == 0 => InodeFault::Unreachable,
                _ => continue,
            };
            inode(check, inum, snapshot, fault);
        }
    }
}
