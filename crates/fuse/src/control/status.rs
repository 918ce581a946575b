//! What `status` and `top` report: how a mount is, in numbers (spec 70 §7.1 R13, §9.3).
//!
//! Nothing here waits for anything but short locks, so it is to be had whatever the mount is doing.

use std::time::{Duration, Instant};

use frazil_journal::engine::{Grade, PinClass, Status};
use frazil_ondisk::superblock::Superblock;
use frazil_volume::Usage;
use frazil_volume::lifecycle;
use frazil_volume::write::Live;
use serde::{Deserialize, Serialize};

use super::freeze::Holds;
use super::usage::bytes;
use crate::interrupts::Waiter;
use crate::stats::{CLASSES, Counted, Stats};

/// Classes of latencies in an [`OperationReport`].
pub const LATENCY_CLASSES: usize = CLASSES;
/// Most requests that wait named one by one.
const WAITING_MAX: usize = 32;

/// How a mount is.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StatusReport {
    /// The mount and its process.
    pub mount: MountReport,
    /// The volume.
    pub volume: Option<VolumeReport>,
    /// The journal, if the volume is being written.
    pub journal: Option<JournalReport>,
    /// What waits to be written back, if the volume is being written.
    pub engine: Option<EngineReport>,
    /// Whether it can be changed, and who keeps it from that.
    pub lifecycle: LifecycleReport,
    /// What was moved to make room, if the volume is being written.
    pub moved: Option<MovedReport>,
    /// The requests of the kernel so far, by kind.
    pub operations: Vec<OperationReport>,
    /// The requests that wait for something at the moment, longest first; not more than 32 of them.
    pub waiting: Vec<WaitingReport>,
    /// How many wait.
    pub waiting_count: usize,
}

/// A mount and its process.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct MountReport {
    /// The process that serves it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its version.
    pub version: String,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Time since it was mounted, in nanoseconds.
    pub age_ns: u64,
    /// Through how many queues of io_uring requests come; `None`: through `/dev/fuse`.
    pub io_uring_queues: Option<usize>,
}

/// Whether a volume can be changed, and who keeps it from that (spec 70 §7.2).
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct LifecycleReport {
    /// In words: `read-write`, `freezing`, `frozen`, …
    pub state: String,
    /// Nothing can be changed until it is mounted anew, or remounted.
    pub read_only: bool,
    /// How long it has been so, in nanoseconds.
    pub since_ns: u64,
    /// What is waited for on the way to rest.
    pub stage: Option<String>,
    /// Who keeps it frozen.
    pub holders: Vec<HolderReport>,
    /// Operations under way, by kind.
    pub under_way: Vec<CountReport>,
    /// Threads that wait until it can be changed, by kind; requests of the kernel are in `waiting`.
    pub blocked: Vec<CountReport>,
    /// What is to be written back before it is frozen, by kind.
    pub to_write: Vec<CountReport>,
    /// The first error: why nothing is written any more, or what was found to be wrong.
    pub error: Option<String>,
    /// What is done when metadata turns out to be damaged: `continue`, `ro`, `panic`.
    pub on_error: String,
}

/// Who keeps a volume frozen.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct HolderReport {
    /// By which it can be thawed.
    pub token: String,
    /// Who it is.
    pub who: String,
    /// For how long already, in nanoseconds.
    pub age_ns: u64,
    /// For how long at most, in nanoseconds.
    pub left_ns: Option<u64>,
}

/// How many of a kind.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct CountReport {
    /// The kind.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// A volume.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct VolumeReport {
    /// The UUID that programs know it by.
    pub uuid: String,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// What its space is used for.
    pub space: SpaceReport,
}

/// What space is used for, in bytes; all copies counted.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceReport {
    /// What data and metadata can use.
    pub total: u64,
    /// In use or promised.
    pub used: u64,
    /// The rest.
    pub free: u64,
    /// What an ordinary user may still fill.
    pub available: u64,
    /// File data.
    pub data: u64,
    /// B-tree nodes.
    pub btree: u64,
    /// Copies that may be dropped at any time; not part of `used`.
    pub cached: u64,
    /// Promised by `fallocate`.
    pub reserved: u64,
    /// Inodes, every snapshot version on its own.
    pub inodes: u64,
}

/// How a journal is.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct JournalReport {
    /// Newest entry opened.
    pub seq: u64,
    /// Everything up to here is written.
    pub seq_ondisk: u64,
    /// Everything up to here is durable.
    pub flushed_seq: u64,
    /// Oldest entry that is still needed.
    pub last_seq: u64,
    /// Entries being filled or written.
    pub entries: usize,
    /// Threads that wait for it.
    pub waiters: usize,
    /// Only reclaim may write to it.
    pub under_pressure: bool,
    /// A thin device has no room, and writes wait for it.
    pub waiting_for_device_space: bool,
    /// Why it stopped, if it did.
    pub halted: Option<String>,
    /// The last error of reclaim.
    pub reclaim_error: Option<String>,
    /// Bytes that can be written now, after discards, and after the next flush.
    pub free: [u64; 3],
    /// Bytes of all of it.
    pub size: u64,
    /// Entries between the oldest that is needed and the newest.
    pub pinned_entries: u64,
    /// Most of these.
    pub pinned_entries_max: u64,
    /// What keeps old entries.
    pub pins: Vec<PinReport>,
    /// Entries written with a flush, and without.
    pub writes: [u64; 2],
    /// Bytes written, each copy counted.
    pub bytes_written: u64,
    /// Reservations that had to wait for room, and those among them that waited for long.
    pub waits: [u64; 2],
}

/// Pins of one class.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct PinReport {
    /// Whose: nodes of a level, or the write buffer.
    pub class: String,
    /// How many.
    pub count: u32,
}

/// What waits to be written back.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineReport {
    /// B-tree nodes with changes that are not on disk.
    pub dirty_nodes: usize,
    /// Keys in the write buffer.
    pub buffered_keys: usize,
}

/// What was done to make room, since the volume was opened for writing.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct MovedReport {
    /// Buckets that were emptied by moving what was in them.
    pub buckets: u64,
    /// Bytes of data written again for that.
    pub bytes: u64,
    /// Buckets that cannot be emptied, because something in them cannot be read.
    pub hopeless: u64,
    /// How often all pointers were looked at so that generations of buckets can go on.
    pub generation_walks: u64,
}

/// The requests of one kind.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct OperationReport {
    /// The kind.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Those among them that ended with an error.
    pub failed: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// How many of them took 2^i to 2^(i+1) nanoseconds, by i; trailing zeros are left out. Quick ones are a sample, multiplied.
    pub latencies: Vec<u64>,
}

/// A request that waits.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct WaitingReport {
    /// Its kind.
    pub name: String,
    /// The thread that waits for the answer; 0 if none does.
    pub pid: u32,
    /// For how long already, in nanoseconds.
    pub waits_ns: u64,
}

impl MountReport {
    pub(crate) fn of_this_process(
        read_only: bool,
        since: Instant,
        io_uring_queues: Option<usize>,
    ) -> MountReport {
        MountReport {
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            read_only,
            age_ns: nanos(since.elapsed()),
            io_uring_queues,
        }
    }
}

impl LifecycleReport {
    pub(crate) fn of(status: lifecycle::Status, holds: &Holds) -> LifecycleReport {
        let count = |name: &str, count: u64| CountReport { name: name.to_owned(), count };
        let counts = |counts: Vec<(&'static str, u32)>| {
            counts.into_iter().map(|(name, number)| count(name, number.into())).collect()
        };
        let holder = |holder: lifecycle::HolderStatus| HolderReport {
            token: holds.token(holder.id),
            who: holder.who,
            age_ns: nanos(holder.age),
            left_ns: holder.left.map(nanos),
        };
        LifecycleReport {
            state: status.state.to_owned(),
            read_only: status.read_only,
            since_ns: nanos(status.since),
            stage: status.stage.map(str::to_owned),
            holders: status.holders.into_iter().map(holder).collect(),
            under_way: counts(status.inside),
            blocked: counts(status.blocked),
            to_write: status.dirt.into_iter().map(|(name, number)| count(name, number)).collect(),
            error: status.reason,
            on_error: status.on_error.name().to_owned(),
        }
    }
}

impl VolumeReport {
    pub(crate) fn of(superblock: &Superblock, usage: &Usage) -> VolumeReport {
        let label = superblock.label();
        VolumeReport {
            uuid: superblock.user_uuid.to_string(),
            label: (!label.is_empty()).then_some(label),
            space: SpaceReport::of(usage),
        }
    }
}

impl SpaceReport {
    pub(crate) fn of(usage: &Usage) -> SpaceReport {
        SpaceReport {
            total: bytes(usage.total),
            used: bytes(usage.used),
            free: bytes(usage.free),
            available: bytes(usage.available),
            data: bytes(usage.data),
            btree: bytes(usage.btree),
            cached: bytes(usage.cached),
            reserved: bytes(usage.reserved),
            inodes: usage.inodes,
        }
    }
}

impl JournalReport {
    pub(crate) fn of(status: &Status) -> JournalReport {
        let grade = |grade: Grade| status.space[grade as usize].total_sectors.saturating_mul(512);
        let pins = PinClass::ALL.iter().zip(status.pins.by_class);
        let pin = |(class, count): (&PinClass, u32)| PinReport { class: class_name(*class), count };
        let counters = &status.counters;
        JournalReport {
            seq: status.seq,
            seq_ondisk: status.seq_ondisk,
            flushed_seq: status.flushed_seq_ondisk,
            last_seq: status.last_seq,
            entries: status.entries.len(),
            waiters: status.waiters,
            under_pressure: status.under_pressure,
            waiting_for_device_space: status.waiting_for_device_space,
            halted: status.halted.clone(),
            reclaim_error: status.reclaim_error.clone(),
            free: [Grade::Discarded, Grade::CleanOndisk, Grade::Clean].map(grade),
            size: grade(Grade::Total),
            pinned_entries: status.pins.back.saturating_sub(status.pins.front),
            pinned_entries_max: status.pins.capacity,
            pins: pins.filter(|(_, count)| *count > 0).map(pin).collect(),
            writes: [counters.flush_writes, counters.noflush_writes],
            bytes_written: counters.bytes_written,
            waits: [counters.reservation_waits, status.long_waits],
        }
    }
}

fn class_name(class: PinClass) -> String {
    match class {
        PinClass::Level0 => "leaves",
        PinClass::Level1 => "nodes of level 1",
        PinClass::Level2 => "nodes of level 2",
        PinClass::Level3 => "nodes of level 3 and up",
        PinClass::KeyCache => "key cache",
        PinClass::Other => "write buffer and others",
    }
    .to_owned()
}

impl EngineReport {
    pub(crate) fn of(live: &Live) -> EngineReport {
        let status = live.engine().status();
        EngineReport { dirty_nodes: status.dirty_nodes, buffered_keys: status.buffered_keys }
    }
}

impl MovedReport {
    pub(crate) fn of(live: &Live) -> MovedReport {
        let moved = live.room().moved();
        MovedReport {
            buckets: moved.buckets,
            bytes: bytes(moved.sectors),
            hopeless: moved.hopeless,
            generation_walks: live.room().collected().walks,
        }
    }
}

/// The counters of a mount.
pub(crate) fn operations(stats: &Stats) -> Vec<OperationReport> {
    let report = |counted: Counted| {
        let used = counted.latencies.iter().rposition(|&n| n > 0).map_or(0, |last| last + 1);
        OperationReport {
            name: counted.kind.name().to_owned(),
            count: counted.count,
            failed: counted.failed,
            bytes: counted.bytes,
            latencies: counted.latencies[..used].to_vec(),
        }
    };
    stats.counted().into_iter().map(report).collect()
}

/// Those that wait longest, and how many there are.
pub(crate) fn waiting(waiters: &[Waiter]) -> (Vec<WaitingReport>, usize) {
    let report = |waiter: &Waiter| WaitingReport {
        name: waiter.kind.name().to_owned(),
        pid: waiter.pid,
        waits_ns: nanos(waiter.since.elapsed()),
    };
    (waiters.iter().take(WAITING_MAX).map(report).collect(), waiters.len())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
