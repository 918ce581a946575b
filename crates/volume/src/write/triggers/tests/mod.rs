//! Commits through the triggers, over real images.

mod examples;
mod random;
mod reference;
mod versions;

use frazil_btree::write::{Change, CommitError};
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen, Sectors, Seq, SnapshotId};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::extent::{Entry, ExtentPtr};
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use crate::check::{Inconsistency, Report};
use crate::write::testing::{Lab, deleted};
use crate::write::triggers::Deriver;

fn alloc(lab: &Lab, at: DevBucket) -> Alloc {
    let key = lab.get(BtreeId::ALLOC, at.pos());
    key.map_or_else(Alloc::default, |key| Alloc::decode(key.k.ty, &key.value).expect("an alloc key"))
}

/// An extent key that ends at `pos`, without checksum, with one copy at each of these places.
fn extent(pos: Bpos, size: u32, ptrs: &[ExtentPtr]) -> KeyBuf {
    let mut value = Vec::new();
    ptrs.iter().for_each(|ptr| Entry::Ptr(*ptr).encode(&mut value));
    KeyBuf::new(KeyType::EXTENT, pos, size, value)
}

/// What the report has about keys that triggers are responsible for: commits here do not care for sizes and names of files.
fn about_triggers(report: &Report) -> Vec<&Inconsistency> {
    let cared = |finding: &&Inconsistency| match finding {
        Inconsistency::Inode { fault, .. } => {
            matches!(fault, crate::check::InodeFault::HasChildSnapshot { .. })
        }
        Inconsistency::Item { btree, fault, .. } => {
            *btree == BtreeId::REFLINK || matches!(fault, crate::check::ItemFault::NoShared { .. })
        }
        Inconsistency::Subvol { .. } => false,
        _ => true,
    };
    report.findings.iter().filter(cared).collect()
}

#[track_caller]
fn assert_consistent(lab: &Lab) {
    let report = lab.report();
    let wrong = about_triggers(&report);
    assert!(wrong.is_empty(), "{wrong:#?}");
    lab.assert_space_is_as_stored();
}
