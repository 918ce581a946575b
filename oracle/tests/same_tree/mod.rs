//! The tree of a volume as we see it, against what the driver saw.

#[path = "../../../crates/posix/tests/observe/mod.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod observe;

use std::sync::Arc;

use frazil_posix::Fs;
use frazil_testing::compare::Comparison;
use frazil_testing::manifest::Manifest;
use frazil_volume::Volume;
use frazil_volume::check::{Severity, check};

/// The tree as we see it, without recovering anything, must be what the driver saw, and nothing may be wrong.
pub(crate) fn assert_same_tree(volume: Volume, theirs: &Manifest, what: &str) {
    let findings = check(&volume).findings;
    let wrong: Vec<_> = findings.iter().filter(|f| f.severity() != Severity::Pending).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
    let fs = Fs::new(Arc::new(volume));
    let mut differences = Vec::new();
    let seen = observe::observe_all(&fs, &mut differences);
    let read = |path: &[u8]| {
        let attr = observe::at_path(&fs, path).map_err(|e| e.to_string())?;
        observe::content(&fs, &attr).map_err(|e| e.to_string())
    };
    differences.extend(Comparison::new(theirs).run(seen, read));
    assert_eq!(differences, Vec::<String>::new(), "{what}");
}
