//! What the journal needs from the filesystem around it.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use frazil_ondisk::bkey::Key;
use frazil_ondisk::btree_id::BtreeId;
use frazil_ondisk::jset::{EntryType, Frames, JSET_HEADER_BYTES, JsetEntry, push_keys, retype};
use frazil_ondisk::units::{DevIndex, Seq};

use super::halt::HaltReason;

/// A set of member devices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DevSet([u64; 4]);

impl DevSet {
    /// Adds a member.
    pub fn insert(&mut self, dev: DevIndex) {
        self.0[usize::from(dev.0) / 64] |= 1 << (dev.0 % 64);
    }

    /// Removes a member.
    pub fn remove(&mut self, dev: DevIndex) {
        self.0[usize::from(dev.0) / 64] &= !(1 << (dev.0 % 64));
    }

    /// Whether a member is in the set.
    pub fn contains(&self, dev: DevIndex) -> bool {
        self.0[usize::from(dev.0) / 64] & (1 << (dev.0 % 64)) != 0
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = DevIndex> + '_ {
        (0..=u8::MAX).map(DevIndex).filter(|d| self.contains(*d))
    }
}

impl FromIterator<DevIndex> for DevSet {
    fn from_iter<T: IntoIterator<Item = DevIndex>>(iter: T) -> Self {
        let mut set = DevSet::default();
        iter.into_iter().for_each(|d| set.insert(d));
        set
    }
}

impl fmt::Debug for DevSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|d| d.0)).finish()
    }
}

/// Why the host could not do what the journal asked for, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);

/// The filesystem around the journal. The journal holds it for its whole life: implement it on something that does not own the
/// journal, or hold that weakly.
///
/// All methods are called without the journal's locks, from whichever thread drives a step, and must not wait for the journal.
pub trait Host: Send + Sync {
    /// Words that every entry keeps back for [`Host::finish_entry`] (spec 20 §3.3). Constant.
    fn common_words(&self) -> u32;

    /// Last look at an entry before it is written, in the order of sequence numbers: takes note of what is in it, turns
    /// `write_buffer_keys` into `btree_keys`, and appends what every entry carries — roots, time, key version, clocks — in at most
    /// [`Host::common_words`] words.
    fn finish_entry(&self, entry: &mut EntryImage);

    /// Before the first entry of a life is written: returns when the superblock says "not clean" on stable storage (I18).
    ///
    /// # Errors
    /// Then nothing is written, and the journal halts.
    fn mark_dirty(&self) -> Result<(), HostError>;

    /// Returns when the superblock lists the replicas entry {journal, these devices} (spec 20 §4 rule 5). Called once per set.
    ///
    /// # Errors
    /// Then the journal halts.
    fn mark_replicas(&self, devices: &DevSet) -> Result<(), HostError>;

    /// Returns when the superblock's blacklist contains the range, on stable storage (spec 20 §6).
    ///
    /// # Errors
    /// Then the journal cannot be started.
    fn blacklist(&self, range: Range<Seq>) -> Result<(), HostError>;

    /// Everything up to `seq` is durable: buckets that waited for it may be used again.
    fn flushed(&self, _seq: Seq) {}

    /// A journal write to `dev` failed; the journal no longer uses the device.
    fn device_failed(&self, _dev: DevIndex, _error: &frazil_device::Error) {}

    /// The journal has stopped for good: nothing more may be written anywhere (spec 20 §11.4).
    fn halted(&self, _reason: &HaltReason) {}

    /// How much dirt there is, for reclaim's pacing (spec 20 §10.5, §9.3).
    fn dirt(&self) -> Dirt {
        Dirt::default()
    }
}

/// What reclaim should know about the caches above the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dirt {
    /// More than half of the cached b-tree nodes are dirty: flush at least one pin a round.
    pub many_nodes: bool,
    /// Cached keys that should be flushed now, whatever their age.
    pub cached_keys: u32,
    /// The write buffer is nearly full: only reclaim may reserve.
    pub buffer_full: bool,
}

/// The content of an entry on its way to disk. While it lives, its sequence number is in the pin FIFO, so pins may be
/// set through it (I20).
#[derive(Debug)]
pub struct EntryImage {
    pub(super) seq: Seq,
    pub(super) bytes: Vec<u8>,
    pub(super) limit_bytes: usize,
}

impl EntryImage {
    /// The entry's number.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Its sub-entries so far, padding included.
    pub fn list(&self) -> &[u8] {
        &self.bytes[JSET_HEADER_BYTES..]
    }

    /// The sub-entries, framed.
    pub fn frames(&self) -> Frames<'_> {
        Frames::new(self.list())
    }

    /// Changes the type of the sub-entry at byte `at` of the list ([`frazil_ondisk::jset::Frame::at`]).
    pub fn retype(&mut self, at: usize, ty: EntryType) {
        retype(&mut self.bytes[JSET_HEADER_BYTES..], at, ty);
    }

    /// Appends a sub-entry.
    pub fn push(&mut self, entry: &JsetEntry<'_>) {
        entry.encode(&mut self.bytes);
    }

    /// Appends a sub-entry made of keys.
    pub fn push_keys<'k>(
        &mut self,
        ty: EntryType,
        btree: BtreeId,
        level: u8,
        keys: impl IntoIterator<Item = Key<'k>>,
    ) {
        push_keys(&mut self.bytes, ty, btree, level, keys);
    }

    pub(super) fn u64s(&self) -> u32 {
        assert!(
            self.bytes.len() <= self.limit_bytes,
            "I14: entry {} has {} bytes, its place {}: Host::common_words is too small",
            self.seq,
            self.bytes.len(),
            self.limit_bytes
        );
        ((self.bytes.len() - JSET_HEADER_BYTES) / 8) as u32
    }
}

/// Where the journal gets the time from: real, or a simulator's.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
