//! Where the b-trees begin: the clean section, or the journal, or, on a volume never started, nothing yet.

use std::ops::Range;

use frazil_btree::{Overlay, Root, Roots};
use frazil_journal::read::{self, Early, Journal};
use frazil_ondisk::crypto::Key;
use frazil_ondisk::superblock::sections::Clean;
use frazil_ondisk::units::Seq;
use frazil_ondisk::{KeyBuf, btree_id::BtreeId};

use super::{Assembled, initial, journal};
use crate::error::{Notice, OpenError};

/// How the volume was left, and what was done about it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Shut down cleanly; the journal was not read.
    Clean {
        /// The last journal entry written.
        journal_seq: Seq,
    },
    /// Not shut down cleanly: the journal entries of this range (inclusive) lie over the b-trees.
    Replayed {
        /// First entry.
        first: Seq,
        /// Last entry: the newest flush entry.
        last: Seq,
        /// Entries that were newer and had to be dropped, end exclusive.
        dropped: Range<Seq>,
    },
    /// Formatted, but never started.
    NeverStarted,
}

/// What opening needs to go on.
pub(super) struct Recovered {
    pub(super) roots: Roots,
    pub(super) overlay: Overlay,
    /// Changes of accounting keys that are only in the journal, in order.
    pub(super) accounting_deltas: Vec<KeyBuf>,
    /// Journal entries whose effects must not be believed.
    pub(super) blacklist: Vec<Range<Seq>>,
    pub(super) how: Recovery,
}

/// Finds roots, overlay and blacklist.
pub(super) fn recover(
    assembled: &Assembled,
    key: Option<&Key>,
    salvage: bool,
    notices: &mut Vec<Notice>,
) -> Result<Recovered, OpenError> {
    let superblock = &assembled.newest;
    let blacklist = journal::blacklist(assembled)?;
    if !superblock.flags.initialized() {
        return initial::never_started(superblock).map_err(|why| assembled.refused(why));
    }
    if superblock.flags.clean() {
        return clean(assembled, blacklist);
    }
    unclean(assembled, key, salvage, blacklist, notices)
}

/// After a clean shutdown everything stands in the superblock (spec 60 §4.1).
fn clean(assembled: &Assembled, blacklist: Vec<Range<Seq>>) -> Result<Recovered, OpenError> {
    let (early, journal_seq) = read_clean(assembled)?;
    Ok(Recovered {
        roots: roots(early),
        overlay: Overlay::empty(),
        accounting_deltas: Vec::new(),
        blacklist,
        how: Recovery::Clean { journal_seq },
    })
}

/// What a clean shutdown left in the superblock, and the number of the last journal entry.
pub(crate) fn read_clean(assembled: &Assembled) -> Result<(Early, Seq), OpenError> {
    let section = assembled.newest.sections.get::<Clean>().map_err(|why| assembled.refused(why))?;
    let clean = section.ok_or(OpenError::NoCleanSection)?;
    let mut early = Early::default();
    early.apply(&clean.entries);
    Ok((early, clean.journal_seq))
}

/// After a crash the journal says what the b-trees would be (spec 60 §4.2–4.6).
fn unclean(
    assembled: &Assembled,
    key: Option<&Key>,
    salvage: bool,
    mut blacklist: Vec<Range<Seq>>,
    notices: &mut Vec<Notice>,
) -> Result<Recovered, OpenError> {
    let rings = journal::rings(assembled)?;
    let journal = read_journal(assembled, key, &rings, salvage, &blacklist, notices)?;
    let how = Recovery::replayed(&journal);
    blacklist.push(journal.unreliable());
    blacklist.extend(journal.early.blacklist.iter().cloned());
    let accounting_deltas = journal.overlay.deltas().map(|delta| delta.key.to_owned()).collect();
    let Journal { early, overlay, .. } = journal;
    Ok(Recovered { roots: roots(early), overlay: Overlay::from(&overlay), accounting_deltas, blacklist, how })
}

/// Reads the journal of a volume that was not shut down cleanly.
pub(crate) fn read_journal(
    assembled: &Assembled,
    key: Option<&Key>,
    rings: &[journal::Ring],
    salvage: bool,
    blacklist: &[Range<Seq>],
    notices: &mut Vec<Notice>,
) -> Result<Journal, OpenError> {
    let superblock = &assembled.newest;
    let format = journal::format(superblock, key);
    let options = read::Options { format, version_min: superblock.version_min, blacklist, salvage };
    let sources: Vec<_> = rings.iter().map(journal::Ring::source).collect();
    let journal = read::read(&sources, &options)?;
    notices.extend(journal.problems.iter().cloned().map(Notice::Journal));
    Ok(journal)
}

impl Recovery {
    pub(crate) fn replayed(journal: &Journal) -> Recovery {
        let dropped = journal.unreliable();
        Recovery::Replayed { first: journal.last_seq, last: journal.newest_flush, dropped }
    }
}

fn roots(early: Early) -> Roots {
    let root = |root: read::Root| match root.key {
        Some(key) => Root::At { level: root.level, key },
        None => Root::Lost,
    };
    early
        .roots
        .into_iter()
        .filter(|(id, _)| usize::from(id.0) < BtreeId::COUNT_MAX)
        .map(|(id, r)| (id, root(r)))
        .collect()
}
