//! Writing the journal.
//!
//! # The story of a commit
//!
//! 1. A thread asks for room: [`Journal::reserve`] takes words of the **open entry** with one atomic swap ([`word`]). If there is no open
//!    entry, or not enough room, the slow path ([`reserve`]) closes and opens entries under the journal lock, or waits.
//! 2. It copies its updates into the entry's **buffer** ([`slots`]), changes its objects in memory, and puts a [`Pin`] of each
//!    newly dirty one on the entry's sequence number ([`pins`]). Then it drops the [`Reservation`].
//! 3. The entry **closes** when it is full, when somebody wants it durable, or when its time is up. When the last reservation
//!    is returned the final put ([`core`]) lets go of the buffer's own hold and the entry may be written.
//! 4. **Writing** ([`mod@write`]) is in order up to finding a place, in parallel on the devices, and accounted in order. A *flush entry*
//!    waits for all before it, flushes every device, and is written through; then everything up to it is durable.
//! 5. Threads that wait for durability ([`flush`]) share flush entries: while one is being written, the next one fills.
//! 6. **Reclaim** ([`reclaim`]) keeps the ring from filling: it asks the owners of the oldest pins to write back, the front of the pin
//!    FIFO moves, the next flush entry records it as `last_seq`, and buckets before it can be discarded and reused ([`ring`]).
//!
//! # Who does the work
//!
//! There are no threads in here. Work comes in bounded pieces ([`wait::Job`], [`Journal::step`]); whoever waits for the journal does
//! the piece that is due instead of sleeping ([`wait`]), so a thread that wants its commit durable usually writes the entry itself, for itself
//! and all who wait with it. [`driver`] runs a thread for what nobody waits for. A test with a clock of its own drives all of it from one thread.
//!
//! # Locks
//!
//! Journal lock → pin lock. Nothing else is ever taken with either held: no I/O, no [`Host`] call, no flush callback.

pub(crate) mod core;
pub mod driver;
mod flush;
pub(crate) mod halt;
mod host;
pub(crate) mod pin;
pub(crate) mod pins;
mod reclaim;
mod reserve;
pub(crate) mod ring;
pub(crate) mod slots;
mod space;
mod start;
mod status;
mod wait;
pub(crate) mod word;
mod write;

use std::collections::HashSet;
use std::time::Duration;

use frazil_device::Device;
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::crypto::Key;
use frazil_ondisk::units::DevIndex;
use frazil_ondisk::version::Version;

use self::core::{Core, State};
use crate::sync::{Arc, AtomicU32, Mutex, MutexGuard};

pub use halt::{HaltReason, JournalError};
pub use host::{Clock, DevSet, Dirt, EntryImage, Host, HostError, SystemClock};
pub use pin::{Pin, Protects, ReplayHold};
pub use pins::{Dirty, FlushFailed, PinClass, PinCounts};
pub use reserve::{Reservation, Wait, Watermark};
pub use ring::{Grade, Space};
pub use start::{CleanStop, Member, Position, RecoveryStart, Start, recovery_start, write_marker};
pub use status::{DeviceStatus, EntryStatus, Status};
pub use wait::Step;

/// How entries are sealed.
#[derive(Debug, Clone)]
pub struct Format {
    /// Magic of the filesystem's entries ([`frazil_ondisk::jset::jset_magic`]).
    pub magic: u64,
    /// The superblock's version.
    pub version: Version,
    /// Checksum type of metadata.
    pub csum_type: ChecksumType,
    /// The master key of an encrypted filesystem.
    pub key: Option<Key>,
    /// Block size in bytes, a multiple of 512.
    pub block_bytes: usize,
    /// Every update comes with its `overwrite` (a flag of later versions, spec 80 §6.2).
    pub has_overwrites: bool,
}

/// What to do when a thin device has no room for a journal write (spec 70 R12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSpace {
    /// Repeat the write until it succeeds.
    Wait,
    /// Repeat it for so long, then treat the device as failed.
    FailAfter(Duration),
}

/// Tunables. The defaults are the reference's (spec 20 §9.12).
#[derive(Debug, Clone)]
pub struct Options {
    /// Copies of each entry (`metadata_replicas`).
    pub replicas: usize,
    /// Longest time a committed update stays in memory before its entry is flushed.
    pub flush_delay: Duration,
    /// Longest time between two rounds of background reclaim while there are pins.
    pub reclaim_delay: Duration,
    /// Largest entry, in bytes; smaller if a bucket is.
    pub entry_bytes_max: usize,
    /// Thin devices without room.
    pub no_space: NoSpace,
    /// A reservation that waits longer than this prints the journal's state, once.
    pub stuck_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: 1,
            flush_delay: Duration::from_millis(1000),
            reclaim_delay: Duration::from_millis(100),
            entry_bytes_max: 256 << 10,
            no_space: NoSpace::FailAfter(Duration::from_secs(30)),
            stuck_after: Duration::from_secs(10),
        }
    }
}

/// One member as the journal sees it.
#[derive(Debug)]
pub(crate) struct JournalDevice {
    pub(crate) dev: DevIndex,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) ring: ring::Ring,
    /// May be written. Every writable member takes part in flushes, with or without a ring.
    pub(crate) writable: bool,
    /// A write of an entry to it failed: it gets no more. Others still write to it (nodes, data), so it still takes part in flushes; if one fails,
    /// what they wrote may be lost.
    pub(crate) lost: bool,
    pub(crate) durability: usize,
    pub(crate) discard: bool,
    /// Somebody is discarding the bucket at `discard_idx`.
    pub(crate) discarding: bool,
}

impl JournalDevice {
    /// Whether copies of entries may go there. A device that counts for no copy gets none.
    pub(crate) fn takes_entries(&self) -> bool {
        self.has_ring() && self.durability > 0 && self.ring.len() > 0
    }

    /// Whether its ring is in use.
    pub(crate) fn has_ring(&self) -> bool {
        self.writable && !self.lost
    }
}

/// Counters since the journal started.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Flush entries written.
    pub flush_writes: u64,
    /// Noflush entries written.
    pub noflush_writes: u64,
    /// Bytes written, each copy counted.
    pub bytes_written: u64,
    /// Words reserved in entries written, without padding of blocks and common sub-entries.
    pub words_committed: u64,
    /// Rounds of reclaim by threads that waited for room.
    pub direct_reclaims: u64,
    /// Rounds of background reclaim.
    pub background_reclaims: u64,
    /// Pins flushed by reclaim.
    pub pins_flushed: u64,
    /// Buckets discarded.
    pub discards: u64,
    /// Reservations that had to take the slow path and wait.
    pub reservation_waits: u64,
    /// Writes repeated because a thin device had no room.
    pub no_space_retries: u64,
}

/// What an entry carries for its write.
#[derive(Debug, Default)]
pub(crate) struct Io {
    /// Somebody waits for it to be durable.
    pub(crate) must_flush: bool,
    /// Close no later than this.
    pub(crate) due: Duration,
    /// Space it may need; 0 once it has its place.
    pub(crate) sectors: u64,
    /// Flush or noflush, once decided.
    pub(crate) flush: Option<bool>,
    pub(crate) stage: Stage,
    pub(crate) image: Option<Arc<Vec<u8>>>,
    /// When a thin device first had no room for it.
    pub(crate) no_space_since: Option<Duration>,
    /// Copies still to be written.
    pub(crate) targets: Vec<Target>,
    /// Copies written.
    pub(crate) written: DevSet,
}

/// Progress of an entry's device writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stage {
    /// Not submitted yet.
    #[default]
    Waiting,
    /// Some thread is writing it.
    Writing,
    /// A thin device had no room; to be repeated.
    NoSpace { retry_at: Duration },
}

/// Where a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) dev: DevIndex,
    pub(crate) sector: u64,
}

/// What the journal lock protects besides the entries.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) devices: Vec<JournalDevice>,
    pub(crate) space: [Space; 4],
    /// Counts the changes of `space`, for threads that let go of the lock between looking and sleeping.
    pub(crate) space_version: u64,
    pub(crate) flushed_seq_ondisk: u64,
    pub(crate) last_seq_ondisk: u64,
    pub(crate) last_empty_seq: u64,
    pub(crate) last_flush_at: Duration,
    /// The first entry of this life has not been written: it must be a flush, after the superblock says "not clean" (I18).
    pub(crate) first_flush_pending: bool,
    /// It was ended cleanly: until it goes on nothing is written, not even discarded.
    pub(crate) at_rest: bool,
    pub(crate) known_replicas: HashSet<DevSet>,
    pub(crate) halted: Option<Arc<HaltReason>>,
    pub(crate) blocked: u32,
    pub(crate) buffer_pressure: bool,
    pub(crate) waiters: wait::Waiters,
    pub(crate) callbacks: Vec<flush::Callback>,
    pub(crate) reclaim: reclaim::Pace,
    pub(crate) counters: Counters,
}

pub(crate) type Locked = State<Inner, Io>;
pub(crate) type Guard<'a> = MutexGuard<'a, Locked>;

/// The journal. Shared by `Arc`; all methods may be called from any thread.
pub struct Journal {
    pub(crate) core: Core<Inner, Io>,
    pub(crate) format: Format,
    pub(crate) options: Options,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Words every entry keeps back for the host.
    pub(crate) common_words: u32,
    /// One reclaimer at a time.
    pub(crate) reclaiming: Mutex<()>,
    /// Threads waiting for pins to go, so that dropping one wakes them.
    pub(crate) pin_waiters: AtomicU32,
}

impl Journal {
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.core.lock()
    }

    /// Where it gets the time from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.status().fmt(f)
    }
}
