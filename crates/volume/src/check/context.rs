//! What all passes share: the volume, the report, and walking b-trees that may be damaged.

use std::collections::{BTreeSet, HashSet};

use frazil_btree::{Btrees, Cursor, Error, SnapshotTable, View};
use frazil_ondisk::units::SnapshotId;
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, BtreeId, Key};

use super::inconsistency::Inconsistency;
use super::report::{Report, Unchecked};
use crate::derive::Rules;
use crate::open::Recovery;
use crate::volume::Volume;

/// A check under way.
pub(super) struct Check<'v> {
    pub(super) volume: &'v Volume,
    pub(super) rules: Rules,
    pub(super) report: Report,
    /// Ranges already reported as unreadable: several passes meet each.
    lost: HashSet<(BtreeId, u8, Bpos, Bpos)>,
    /// B-trees some of whose keys are lost.
    incomplete: BTreeSet<BtreeId>,
}

impl<'v> Check<'v> {
    pub(super) fn new(volume: &'v Volume) -> Self {
        let rules = Rules::new(volume.superblock(), volume.members());
        Self { volume, rules, report: Report::default(), lost: HashSet::new(), incomplete: BTreeSet::new() }
    }

    pub(super) fn btrees(&self) -> &'v Btrees {
        self.volume.btrees()
    }

    pub(super) fn snapshots(&self) -> &'v SnapshotTable {
        self.volume.snapshots()
    }

    pub(super) fn version(&self) -> Version {
        self.rules.version
    }

    /// The eyes of a snapshot; `None` if it does not exist, which the walk over all keys reports.
    pub(super) fn view(&self, snapshot: u32) -> Option<View> {
        self.volume.snapshots().view(SnapshotId(snapshot)).ok()
    }

    /// The volume was shut down cleanly.
    pub(super) fn was_clean(&self) -> bool {
        matches!(self.volume.recovery(), Recovery::Clean { .. })
    }

    /// Adds a finding.
    pub(super) fn add(&mut self, finding: Inconsistency) {
        self.report.add(finding);
    }

    /// Notes that keys cannot be had.
    pub(super) fn lost(&mut self, error: Error) {
        let Some(span) = error.span() else { return };
        self.incomplete.insert(span.btree);
        if self.lost.insert((span.btree, span.level, span.min, span.max)) {
            self.add(Inconsistency::Unreadable(error));
        }
    }

    /// Marks keys of a b-tree as lost for another reason than an unreadable node.
    pub(super) fn keys_lost(&mut self, btree: BtreeId) {
        self.incomplete.insert(btree);
    }

    /// Whether every key of a b-tree could be read, so that a key not found does not exist. If not, says so in the report.
    pub(super) fn complete(&mut self, btree: BtreeId) -> bool {
        let complete = !self.incomplete.contains(&btree);
        if !complete {
            self.report.skip(Unchecked::NamesKeysLost);
        }
        complete
    }

    /// Whether every key of every b-tree could be read.
    pub(super) fn all_complete(&self) -> bool {
        self.incomplete.is_empty()
    }

    /// Calls `f` with every readable key of a level, in order.
    pub(super) fn each(&mut self, btree: BtreeId, level: u8, mut f: impl FnMut(&mut Self, Key<'_>)) {
        let mut feed = Feed::level(self, btree, level);
        while feed.pos().is_some() {
            if let Some(key) = feed.key() {
                f(self, key);
            }
            feed.advance(self);
        }
    }

    /// A lookup whose failure is noted and then means that nothing is there.
    pub(super) fn found<T>(&mut self, result: frazil_btree::Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|error| {
            self.lost(error);
            None
        })
    }
}

/// The keys of one level of a b-tree, one after the other; parts that cannot be read are reported and stepped over.
pub(super) struct Feed<'v> {
    cursor: Cursor<'v>,
}

impl<'v> Feed<'v> {
    /// In front of the first leaf key.
    pub(super) fn new(check: &mut Check<'v>, btree: BtreeId) -> Self {
        Self::level(check, btree, 0)
    }

    /// In front of the first key of a level.
    pub(super) fn level(check: &mut Check<'v>, btree: BtreeId, level: u8) -> Self {
        let mut feed = Feed { cursor: check.btrees().level_cursor(btree, level, ..) };
        feed.advance(check);
        feed
    }

    /// The key at hand; `None` at the end.
    pub(super) fn key(&self) -> Option<Key<'_>> {
        self.cursor.key()
    }

    /// Its position.
    pub(super) fn pos(&self) -> Option<Bpos> {
        self.cursor.pos()
    }

    /// Goes to the next key.
    pub(super) fn advance(&mut self, check: &mut Check<'_>) {
        loop {
            match self.cursor.step_next() {
                Ok(_) => return,
                Err(error) => {
                    check.lost(error);
                    if self.cursor.skip_bad_node().is_none() {
                        self.cursor.seek_end();
                        return;
                    }
                }
            }
        }
    }
}
