//! The read-only check of a volume: does everything that is stored twice agree?
//!
//! A volume stores most facts more than once: an extent is in its file, in the counts of its bucket, in its backpointer and in half
//! a dozen counters; a name is in its directory and in its inode. The check reads every key once, adds up what the
//! keys imply ([`crate::derive`]), and compares the sums with what is stored, in both directions; then it walks the
//! filesystem's own b-trees side by side, inode by inode. It writes nothing, and works on a volume as it was opened: after a crash
//! that is the view through the journal's overlay, which is what recovery would make of it.
//!
//! ```text
//! walk ── every key of every level: rules of the key itself, of its pointers, of the snapshot it is in
//!   │       sums by bucket, by accounting record; the backpointers there must be; references to shared data
//!   ├── space        alloc keys = sums; freespace, need_discard, lru, bucket_gens = alloc keys; backpointers; accounting; replicas
//!   ├── reflink      references counted = references stored
//!   ├── snapshots    snapshots ↔ trees ↔ subvolumes ↔ children ↔ root directories
//!   ├── files        by inode: inode versions, extents, entries, attributes; names ↔ inodes; links; loops
//!   └── leftovers    deleted inodes and logged operations
//! ```
//!
//! Three principles:
//!
//! * **A finding names a cause, not its echoes.** Later passes compare with what earlier ones found to be right: a wrong alloc key
//!   does not also make freespace, lru and accounting wrong.
//! * **Nothing is concluded from what could not be read.** If nodes are lost, sums over all keys are not compared; if keys of a b-tree
//!   are lost, no key is reported as missing from it. The report says what was left out ([`Unchecked`]).
//! * **Memory is bounded** by the number of buckets in use, of directories and of hard links, and of the versions of one inode,
//!   not by the number of keys: expected backpointers are compared in portions, everything else is a merge of sorted streams.
//!
//! Findings are [`Inconsistency`]s with the stable ids of the format, see spec 60 §8 and §9.

mod accounting;
mod backpointers;
mod buckets;
mod context;
mod faults;
mod files;
mod inconsistency;
mod leftovers;
mod lists;
mod reflink;
mod report;
mod snapshots;
mod space;
mod trees;
mod walk;

pub use faults::{
    BackpointerFault, BucketField, InodeFault, ItemFault, ListFault, PointerFault, SnapshotFault,
    SubvolFault, TreeFault,
};
pub use inconsistency::{Inconsistency, Severity};
pub use report::{Report, Unchecked};

use crate::open::Recovery;
use crate::volume::Volume;
use context::Check;

/// Checks a volume.
pub fn check(volume: &Volume) -> Report {
    let mut check = Check::new(volume);
    if *volume.recovery() == Recovery::NeverStarted {
        check.report.skip(Unchecked::NeverStarted);
        return check.report;
    }
    let mut sums = walk::walk(&mut check);
    let references = std::mem::take(&mut sums.references);
    space::check(&mut check, sums);
    reflink::check(&mut check, references);
    let tables = snapshots::Tables::load(&mut check);
    snapshots::check(&mut check, &tables);
    files::check(&mut check, &tables);
    leftovers::check(&mut check);
    check.report
}
