//! What can be wrong with a journal.

use std::ops::RangeInclusive;

use frazil_ondisk::units::{BucketIndex, DevIndex, Seq};

use super::Location;

/// Something wrong that was found while reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A bucket could not be read; it contributes nothing.
    #[error("journal bucket {bucket} of device {dev} cannot be read: {reason}")]
    UnreadableBucket {
        /// Which member.
        dev: DevIndex,
        /// Which bucket.
        bucket: BucketIndex,
        /// What the device said.
        reason: String,
    },
    /// A journal bucket lies outside of its device.
    #[error("journal bucket {bucket} of device {dev} lies beyond the device's end")]
    BucketOutside {
        /// Which member.
        dev: DevIndex,
        /// Which bucket.
        bucket: BucketIndex,
    },
    /// A damaged copy of an entry that has a good one elsewhere.
    #[error("journal entry {seq} is damaged on device {}, sector {}; another copy is good", at.dev, at.sector)]
    BadCopy {
        /// The entry.
        seq: Seq,
        /// The bad copy.
        at: Location,
    },
    /// Two good copies that differ. The first one found is used.
    #[error("journal entry {seq} exists with two different contents (devices {} and {})", first.dev, second.dev)]
    CopiesDiffer {
        /// The entry.
        seq: Seq,
        /// The copy that is used.
        first: Location,
        /// The other one.
        second: Location,
    },
    /// Two copies on one device.
    #[error("journal entry {seq} exists twice on device {dev}")]
    TwiceOnOneDevice {
        /// The entry.
        seq: Seq,
        /// The device.
        dev: DevIndex,
    },
    /// A flush entry is damaged although a newer one, already excused as torn by the crash, is too.
    #[error("journal entry {seq}, a flush entry, is damaged, and it is not the last one written")]
    SecondTornFlush {
        /// The entry.
        seq: Seq,
    },
    /// An entry that has to be replayed has no good copy.
    #[error("journal entry {seq} has to be replayed but is damaged: {reason}")]
    DamagedEntry {
        /// The entry.
        seq: Seq,
        /// What is wrong with it.
        reason: String,
    },
    /// Entries that have to be replayed are not there.
    #[error("journal entries {}-{} are missing", missing.start(), missing.end())]
    Missing {
        /// The numbers.
        missing: RangeInclusive<Seq>,
    },
    /// A flush entry with a blacklisted number: it is ignored.
    #[error("journal entry {seq} is blacklisted but is a flush entry")]
    BlacklistedFlush {
        /// The entry.
        seq: Seq,
    },
    /// No flush entry: the newest entry was used alone.
    #[error("there is no flush entry in the journal; only its newest entry, {seq}, is used")]
    NoFlushEntry {
        /// The entry.
        seq: Seq,
    },
    /// Part of an entry is invalid and is ignored, although the checksum is good.
    #[error("journal entry {seq}: {reason}")]
    BadSubEntry {
        /// The entry.
        seq: Seq,
        /// Which rule is broken.
        reason: String,
    },
}

impl Problem {
    /// Whether replaying would lose or invent updates: then reading stops unless told to salvage.
    pub fn is_fatal(&self) -> bool {
        match self {
            Problem::SecondTornFlush { .. }
            | Problem::DamagedEntry { .. }
            | Problem::Missing { .. }
            | Problem::CopiesDiffer { .. }
            | Problem::NoFlushEntry { .. } => true,
            Problem::UnreadableBucket { .. }
            | Problem::BucketOutside { .. }
            | Problem::BadCopy { .. }
            | Problem::TwiceOnOneDevice { .. }
            | Problem::BlacklistedFlush { .. }
            | Problem::BadSubEntry { .. } => false,
        }
    }
}

/// Why a journal could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing was found, although the filesystem was not shut down cleanly.
    #[error("the filesystem was not shut down cleanly, but there are no journal entries")]
    Empty,
    /// No good copy of any entry.
    #[error("every journal entry is damaged")]
    AllDamaged,
    /// What was found contradicts itself or has holes.
    #[error("{0}; repair it with: frazil fsck")]
    Damaged(Box<Problem>),
    /// A good entry was written by a program this one cannot follow.
    #[error("journal entry {seq} has format version {version}, which this program does not read")]
    Version {
        /// The entry.
        seq: Seq,
        /// Its version.
        version: u32,
    },
    /// The journal asks for undoing updates (spec 80 §6.2).
    #[error(
        "journal entry {seq} asks to rewind the filesystem, which this program cannot do: mount it once with the program that wrote it"
    )]
    Rewind {
        /// The entry.
        seq: Seq,
    },
    /// A device failed while an entry was loaded.
    #[error(transparent)]
    Device(frazil_device::Error),
    /// An entry seen while scanning was gone when it was loaded: somebody else writes to the device.
    #[error("a journal entry changed while the journal was being read: the filesystem is in use")]
    Vanished,
}
