//! What a check found.

use std::collections::BTreeMap;
use std::fmt;

use frazil_ondisk::fsck_errors::FsckErrorId;

use super::inconsistency::{Inconsistency, Severity};

/// Findings of one kind that are kept with their details; more are only counted.
const KEPT_PER_KIND: u64 = 200;

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What was found, in the order of the passes; of each kind at most [`Report::count`] says how many there are.
    pub findings: Vec<Inconsistency>,
    /// What could not be checked, and why.
    pub notices: Vec<Unchecked>,
    counts: BTreeMap<(Severity, FsckErrorId), u64>,
}

/// A part of the check that was left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unchecked {
    /// The volume was formatted but never started: there is nothing to compare.
    NeverStarted,
    /// Some b-tree nodes cannot be read, so that sums over all keys mean nothing (spec 60 §9.4: the reference sums all the same,
    /// and its repairs then destroy live nodes).
    SpaceNodesLost,
    /// Keys of a b-tree are lost, so that it cannot be said what is missing in it.
    NamesKeysLost,
    /// The superblock and journal buckets of a device that is missing are unknown.
    DeviceMissing,
    /// Background work is recorded in a form whose rules are not implemented (versions 1.14 to 1.32).
    RebalanceWork,
    /// Records of snapshots' sizes of an upgraded volume may be missing (versions 1.15 to 1.38).
    SnapshotSizes,
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unchecked::NeverStarted => "the volume was never started; there is nothing to check yet",
            Unchecked::SpaceNodesLost => "space was not checked, because some b-tree nodes cannot be read",
            Unchecked::NamesKeysLost => "names and inodes were checked in part, because some keys are lost",
            Unchecked::DeviceMissing => "superblock and journal space of missing devices was not checked",
            Unchecked::RebalanceWork => "records of background work of this version were not checked",
            Unchecked::SnapshotSizes => "sizes of snapshots of this version were not checked",
        })
    }
}

impl Report {
    /// Adds a finding.
    pub(super) fn add(&mut self, finding: Inconsistency) {
        let count = self.counts.entry((finding.severity(), finding.id())).or_default();
        *count += 1;
        if *count <= KEPT_PER_KIND {
            self.findings.push(finding);
        }
    }

    /// Notes that something was not checked.
    pub(super) fn skip(&mut self, what: Unchecked) {
        if !self.notices.contains(&what) {
            self.notices.push(what);
        }
    }

    /// How many findings there are of each kind and severity, those not kept included.
    pub fn counts(&self) -> impl Iterator<Item = (Severity, FsckErrorId, u64)> {
        self.counts.iter().map(|(&(severity, id), &n)| (severity, id, n))
    }

    /// How many findings of a severity there are.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts().filter(|c| c.0 == severity).map(|c| c.2).sum()
    }

    /// Nothing contradicts itself and all copies are whole. What the next start finishes by itself does not count.
    pub fn is_clean(&self) -> bool {
        self.count(Severity::Error) == 0 && self.count(Severity::Warning) == 0
    }
}
