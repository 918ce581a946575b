//! The reference found nothing wrong with these images, except where it says so; nor must we.

use std::time::{Duration, Instant};

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_testing::golden::{self, State};
use frazil_volume::check::{Severity, Unchecked, check};

use super::{file, opened};

/// What is left to do or wrong in an image: severity, id, how often.
fn expected(image: &str) -> &'static [(Severity, E, u64)] {
    match image {
        // A pending operation on a file range.
        "08-crash-shift" => &[(Severity::Pending, E::LOGGED_OP_BUT_CLEAN, 1)],
        // Files and a directory that were unlinked but open at the crash.
        "13-orphans" => &[
            (Severity::Pending, E::INODE_UNREACHABLE, 1),
            (Severity::Pending, E::DELETED_INODE_BUT_CLEAN, 60),
        ],
        // Frozen with an unlinked file open: a real defect of the reference (spec 00 §6 #37), which its own check reports.
        "15-frozen-orphan" => &[(Severity::Error, E::DELETED_INODE_BUT_CLEAN, 1)],
        _ => &[],
    }
}

fn unchecked(image: &str) -> &'static [Unchecked] {
    match image {
        "01-empty-formatted-only" => &[Unchecked::NeverStarted],
        "18-newer-1.36-upgraded-lz4" => &[Unchecked::SnapshotSizes],
        _ => &[],
    }
}

#[test]
fn nothing_is_found_in_images_that_are_right() {
    let mut slowest = (Duration::ZERO, String::new());
    for image in golden::all() {
        let volume = opened(&image, image.unpack().iter().map(|path| file(path)).collect());
        let start = Instant::now();
        let report = check(&volume);
        slowest = slowest.max((start.elapsed(), image.name.clone()));
        let found: Vec<_> = report.counts().collect();
        assert_eq!(found, expected(&image.name), "{}: {:#?}", image.name, report.findings);
        assert_eq!(report.notices, unchecked(&image.name), "{}", image.name);
        let wrong = image.name == "15-frozen-orphan";
        assert_eq!(report.is_clean(), !wrong, "{}", image.name);
        if image.state == State::Clean {
            assert_eq!(report.count(Severity::Pending), 0, "{}", image.name);
        }
    }
    println!("slowest: {} in {:?}", slowest.1, slowest.0);
}
