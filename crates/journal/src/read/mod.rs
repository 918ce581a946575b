//! Reading the journal of a volume that was not shut down cleanly.
//!
//! ```text
//!  buckets of every member ─scan─► copies ─collect─► entries by seq ─choose─► range [last_seq, newest flush]
//!                                                                     │
//!            roots, clocks, key version, blacklist ◄─early pass── used entries ──► overlay: newest key per position,
//!                                                                                   accounting deltas apart
//! ```
//!
//! 1. **Scan** ([`scan`]). Every journal bucket of every member is read once. Of each copy of an entry only the header, its
//!    place and a fingerprint are kept, so a journal of any size needs little memory. A bucket that cannot be read
//!    contributes nothing and is reported.
//! 2. **Choose** ([`choose`]). From the newest number down: noflush entries after the last flush are unfinished business and are
//!    dropped; the newest flush entry with a good copy ends the search and says with `last_seq` where replay begins. Everything between
//!    must be there, or be blacklisted.
//! 3. **Load**. The used entries are read again, whole, from a good copy, and checked (spec 20 §3.4).
//! 4. **Early pass** ([`early`]): b-tree roots, key version, clocks, blacklist entries; the last one wins.
//! 5. **Overlay** ([`overlay`]): the keys to be replayed, by (b-tree, level), sorted by position, the newest per position. A reader that merges
//!    them into every lookup sees what replay would make. Accounting keys are differences, not values, and are kept apart, all of them.
//!
//! Nothing is written, and no state of the engine is needed: `list-journal` and read-only mounts use this module alone.
//!
//! **Where this is stricter than the reference** (spec 20 §5.4, §5.5; spec 00 §6 #1–#3). Only entries whose checksum is good are believed: `last_seq`
//! of a torn entry drops nothing, a second torn flush entry or a damaged entry inside of the range is corruption and stops
//! reading instead of being replayed, and a damaged block does not hide the good entries behind it. [`Options::salvage`] turns the errors
//! into reports, for repair.

mod choose;
mod early;
mod overlay;
mod problem;
mod scan;

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use frazil_device::Device;
use frazil_ondisk::jset::{self, EntryType, Frames, Jset, JsetFormat, JsetHeader, JsetKind};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::version::Version;

pub use choose::Fate;
pub use early::{Early, Root};
pub use overlay::{Delta, LevelKeys, Overlay};
pub use problem::{Problem, ReadError};

/// The journal of one member.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Which member.
    pub dev: DevIndex,
    /// Where its blocks are.
    pub device: &'a dyn Device,
    /// Its bucket size.
    pub bucket: Sectors,
    /// Its journal buckets in ring order (spec 20 §1.1).
    pub buckets: &'a [BucketIndex],
}

/// What must be known about the filesystem, and how strict to be.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Magic, block size, key.
    pub format: JsetFormat<'a>,
    /// Oldest format version an entry may have.
    pub version_min: Version,
    /// Blacklisted ranges of the superblock.
    pub blacklist: &'a [Range<Seq>],
    /// Report what would be an error, and go on with what there is.
    pub salvage: bool,
}

/// Where a copy of an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// On which member.
    pub dev: DevIndex,
    /// In which bucket of its ring.
    pub ring_index: u32,
    /// First sector, from the start of the device.
    pub sector: Sectors,
}

/// One copy of an entry, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where.
    pub location: Location,
    /// The header; decrypted if the filesystem is unlocked.
    pub header: JsetHeader,
    /// Space it occupies.
    pub size: Sectors,
    /// Why it must not be believed; `None` if its checksum is good.
    pub damage: Option<String>,
    /// Bytes that are no entry lie in front of it, in the same bucket: something there was damaged.
    pub after_gap: bool,
    fingerprint: u64,
}

/// All copies of one entry, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The entry's number.
    pub seq: Seq,
    /// Its copies, good ones first.
    pub copies: Vec<Copy>,
    /// Whether it is used.
    pub fate: Fate,
}

impl Found {
    /// The copy to believe, if any is good.
    pub fn good(&self) -> Option<&Copy> {
        self.copies.iter().find(|c| c.damage.is_none())
    }

    /// The header of the best copy.
    pub fn header(&self) -> &JsetHeader {
        &self.copies[0].header
    }

    /// Whether the entry calls itself a flush entry. A damaged one may lie.
    pub fn is_flush(&self) -> bool {
        matches!(self.header().kind(), JsetKind::Flush { .. })
    }
}

/// What the scan says about one member's ring: where writing goes on, and what each bucket holds (spec 20 §5.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingFound {
    /// Which member.
    pub dev: DevIndex,
    /// Newest number in each bucket, in ring order; 0 if none.
    pub bucket_seq: Vec<Seq>,
    /// Bucket of the newest entry.
    pub cur_idx: u32,
    /// Sectors of that bucket in use.
    pub cur_offset: Sectors,
}

/// An entry that is replayed.
#[derive(Debug)]
pub struct Used {
    /// The entry's number.
    pub seq: Seq,
    /// Members it was found on.
    pub devices: Vec<DevIndex>,
    jset: Jset,
}

impl Used {
    /// The entry: header and sub-entries ([`jset::entries`] decodes them).
    pub fn jset(&self) -> &Jset {
        &self.jset
    }
}

/// What a journal says.
#[derive(Debug)]
pub struct Journal {
    /// Every entry found, used or not, by number.
    pub found: BTreeMap<Seq, Found>,
    /// Entries to be replayed, in order.
    pub used: Vec<Used>,
    /// First number to be replayed (`last_seq` of the newest flush entry).
    pub last_seq: Seq,
    /// The newest flush entry; everything up to here was durable.
    pub newest_flush: Seq,
    /// One more than the largest number found, used or not (`start` of spec 20 §5.5).
    pub next_seq: Seq,
    /// Roots, key version, clocks, and blacklisted ranges found in entries.
    pub early: Early,
    /// Keys to be replayed.
    pub overlay: Overlay,
    /// Per member.
    pub rings: Vec<RingFound>,
    /// What was wrong but does not prevent reading.
    pub problems: Vec<Problem>,
}

impl Journal {
    /// Numbers that must be ignored wherever they occur, and never be used again: everything after the newest flush entry
    /// (spec 20 §6). A b-tree node's bset with such a number is newer than what the journal can vouch for (I8).
    pub fn unreliable(&self) -> Range<Seq> {
        Seq(self.newest_flush.0.saturating_add(1))..self.next_seq
    }
}

/// What is in a journal and which entries of it would be replayed, without their contents: for listing it.
#[derive(Debug)]
pub struct Survey {
    /// Every entry found, by number.
    pub found: BTreeMap<Seq, Found>,
    /// The entries to be replayed (inclusive), or why there is no telling.
    pub range: Result<RangeInclusive<Seq>, ReadError>,
    /// What was found wrong.
    pub problems: Vec<Problem>,
}

/// Looks through a journal; [`load_copy`] then loads what is wanted.
///
/// # Errors
/// If there is an entry of a version this program cannot follow.
pub fn survey(sources: &[Source<'_>], options: &Options<'_>) -> Result<Survey, ReadError> {
    let mut problems = Vec::new();
    let scanned = scan::scan_all(sources, options, &mut problems)?;
    let mut found = choose::collect(scanned.copies, &mut problems);
    let range = choose::choose(&mut found, options, &mut problems);
    Ok(Survey { found, range: range.map(|chosen| chosen.last_seq..=chosen.newest_flush), problems })
}

/// Reads the journal.
///
/// # Errors
/// If there is no entry or no flush entry, if an entry needed is missing or damaged (unless [`Options::salvage`]), or if the
/// journal uses something this version does not implement.
pub fn read(sources: &[Source<'_>], options: &Options<'_>) -> Result<Journal, ReadError> {
    let mut problems = Vec::new();
    let scanned = scan::scan_all(sources, options, &mut problems)?;
    let mut found = choose::collect(scanned.copies, &mut problems);
    let range = choose::choose(&mut found, options, &mut problems)?;
    let mut used = load(sources, options, &found, &mut problems)?;
    let early = early::early(&used)?;
    let overlay = overlay::Overlay::build(&mut used, &mut problems);
    let journal = Journal {
        last_seq: range.last_seq,
        newest_flush: range.newest_flush,
        next_seq: range.next_seq,
        rings: scanned.rings,
        found,
        used,
        early,
        overlay,
        problems,
    };
    match journal.problems.iter().find(|p| p.is_fatal()) {
        Some(fatal) if !options.salvage => Err(ReadError::Damaged(Box::new(fatal.clone()))),
        _ => Ok(journal),
    }
}

/// Reads the bytes of one entry again, from the copy at `location`; to list entries that are not used.
///
/// # Errors
/// If the device fails, or the entry is no longer there.
pub fn load_copy(source: &Source<'_>, options: &Options<'_>, copy: &Copy) -> Result<Jset, ReadError> {
    let bytes = copy.size.to_bytes().and_then(|b| usize::try_from(b).ok()).ok_or(ReadError::Vanished)?;
    let mut buf = vec![0; bytes];
    source.device.read_at(copy.location.sector.0 * SECTOR_BYTES, &mut buf).map_err(ReadError::Device)?;
    match jset::read(&options.format, &buf) {
        jset::Found::Jset(jset) if jset.header.seq == copy.header.seq => Ok(jset),
        _ => Err(ReadError::Vanished),
    }
}

/// Loads and checks the entries chosen.
fn load(
    sources: &[Source<'_>],
    options: &Options<'_>,
    found: &BTreeMap<Seq, Found>,
    problems: &mut Vec<Problem>,
) -> Result<Vec<Used>, ReadError> {
    let mut used = Vec::new();
    for entry in found.values().filter(|f| f.fate == Fate::Used) {
        let source = |c: &Copy| sources.iter().find(|s| s.dev == c.location.dev);
        let mut loaded = Err(ReadError::Vanished);
        for copy in &entry.copies {
            loaded = source(copy).ok_or(ReadError::Vanished).and_then(|s| load_copy(s, options, copy));
            if loaded.is_ok() {
                break;
            }
        }
        let mut jset = loaded?;
        for reason in jset::repair(jset.list_mut(), |_, _| Ok(())) {
            problems.push(Problem::BadSubEntry { seq: entry.seq, reason: reason.to_string() });
        }
        let mut devices: Vec<DevIndex> = entry.copies.iter().map(|c| c.location.dev).collect();
        devices.dedup();
        used.push(Used { seq: entry.seq, devices, jset });
    }
    Ok(used)
}

/// Whether a list holds a `rewind`, which turns the meaning of other entries around (spec 80 §6.2).
fn has_rewind(list: &[u8]) -> bool {
    Frames::new(list).flatten().any(|f| f.header.ty == EntryType::REWIND)
}
