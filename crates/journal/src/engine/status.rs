//! The journal's state as data, and as text for people (spec 20 §11.6).

use std::fmt;

use frazil_ondisk::units::DevIndex;

use super::core::Phase;
use super::pins::{PinClass, PinCounts};
use super::ring::{Grade, Space};
use super::{Counters, Journal, Locked, Stage};

/// Everything worth knowing about a running journal.
#[derive(Debug, Clone)]
pub struct Status {
    /// Newest entry opened.
    pub seq: u64,
    /// Everything up to here is written.
    pub seq_ondisk: u64,
    /// Everything up to here is durable.
    pub flushed_seq_ondisk: u64,
    /// Oldest entry still needed, by memory.
    pub last_seq: u64,
    /// Oldest entry still needed, by the newest flush entry on disk.
    pub last_seq_ondisk: u64,
    /// Newest empty flush entry.
    pub last_empty_seq: u64,
    /// The reservation word, in words.
    pub word: String,
    /// Only reclaim may reserve.
    pub under_pressure: bool,
    /// Why the journal stopped, if it did.
    pub halted: Option<String>,
    /// Outstanding blocks.
    pub blocked: u32,
    /// Threads waiting.
    pub waiters: usize,
    /// A thin device has no room, and writes wait for it.
    pub waiting_for_device_space: bool,
    /// Entries not on disk yet.
    pub entries: Vec<EntryStatus>,
    /// Free space by [`Grade`], smallest first.
    pub space: [Space; 4],
    /// The pin FIFO.
    pub pins: PinCounts,
    /// The rings.
    pub devices: Vec<DeviceStatus>,
    /// Counters.
    pub counters: Counters,
    /// Reservations that waited longer than [`super::Options::stuck_after`].
    pub long_waits: u64,
    /// The last error of a flush callback.
    pub reclaim_error: Option<String>,
}

/// An entry that is not on disk yet.
#[derive(Debug, Clone)]
pub struct EntryStatus {
    /// Its number.
    pub seq: u64,
    /// Where it is in its life.
    pub phase: String,
    /// Words granted so far, and words returned.
    pub words: (u32, u64),
    /// Sectors it may still ask for.
    pub sectors: u64,
    /// Somebody waits for it to be durable.
    pub must_flush: bool,
}

/// One member's ring.
#[derive(Debug, Clone)]
pub struct DeviceStatus {
    /// Which member.
    pub dev: DevIndex,
    /// Whether it may be written.
    pub writable: bool,
    /// Number of buckets.
    pub buckets: usize,
    /// Sectors of one.
    pub bucket_sectors: u64,
    /// Sectors left in the current bucket.
    pub room: u64,
    /// `discard_idx`, `dirty_idx_ondisk`, `dirty_idx`, `cur_idx`, each with the newest number in that bucket.
    pub indices: [(usize, u64); 4],
}

impl Journal {
    /// A snapshot of the journal's state.
    pub fn status(&self) -> Status {
        self.status_locked(&self.lock())
    }

    pub(crate) fn status_locked(&self, st: &Locked) -> Status {
        let view = self.core.word.view();
        let x = &st.extra;
        Status {
            seq: st.seq,
            seq_ondisk: st.seq_ondisk,
            flushed_seq_ondisk: x.flushed_seq_ondisk,
            last_seq: self.core.pins.front(),
            last_seq_ondisk: x.last_seq_ondisk,
            last_empty_seq: x.last_empty_seq,
            word: format!("{view:?}"),
            under_pressure: view.under_pressure(),
            halted: x.halted.as_ref().map(|r| r.to_string()),
            blocked: x.blocked,
            waiters: x.waiters.len(),
            waiting_for_device_space: st.entries.iter().any(|e| matches!(e.io.stage, Stage::NoSpace { .. })),
            entries: st.entries.iter().map(|e| self.entry_status(e)).collect(),
            space: x.space,
            pins: self.core.pins.counts(),
            devices: x.devices.iter().map(device_status).collect(),
            counters: x.counters.clone(),
            long_waits: x.reclaim.long_waits,
            reclaim_error: x.reclaim.last_error.clone(),
        }
    }

    /// Checks what must hold at every moment: I10, I18, I20, I21, I25, I27, I29, I30, I32, I33.
    ///
    /// # Panics
    /// With the state, if something does not.
    pub fn check_invariants(&self) {
        let st = self.lock();
        self.core.pins.check();
        let x = &st.extra;
        let dump = || self.status_locked(&st);
        assert!(st.seq - st.seq_ondisk == st.entries.len() as u64, "I10: {}", dump());
        assert!(
            x.flushed_seq_ondisk <= st.seq_ondisk && x.last_seq_ondisk <= self.core.pins.front(),
            "I16: {}",
            dump()
        );
        assert!(
            !x.first_flush_pending || x.counters.noflush_writes == 0 || x.flushed_seq_ondisk > 0,
            "I18: {}",
            dump()
        );
        x.devices.iter().for_each(|d| d.ring.check());
        assert!(x.space.windows(2).all(|w| w[0].total_sectors <= w[1].total_sectors), "I29: {}", dump());
        let view = self.core.word.view();
        assert_eq!(view.is_halted(), x.halted.is_some(), "I32: {}", dump());
        assert_eq!(view.is_blocked(), x.blocked > 0, "I33: {}", dump());
    }

    fn entry_status(&self, e: &super::core::Entry<super::Io>) -> EntryStatus {
        let in_buffer = e.phase < Phase::Copying;
        let granted = match self.core.word.view().words_left() {
            Some(left) if e.phase == Phase::Open => e.limit - left.min(e.limit),
            _ => e.used,
        };
        let returned = if in_buffer { self.core.slot(e.seq).returned() } else { u64::from(e.used) };
        EntryStatus {
            seq: e.seq,
            phase: match e.io.stage {
                Stage::Waiting => format!("{:?}", e.phase),
                stage => format!("{:?}, {stage:?}", e.phase),
            },
            words: (granted, returned),
            sectors: e.io.sectors,
            must_flush: e.io.must_flush,
        }
    }
}

fn device_status(d: &super::JournalDevice) -> DeviceStatus {
    let r = &d.ring;
    let at = |i: usize| (i, r.bucket_seq.get(i).copied().unwrap_or(0));
    DeviceStatus {
        dev: d.dev,
        writable: d.has_ring(),
        buckets: r.len(),
        bucket_sectors: r.bucket_sectors,
        room: r.room,
        indices: [at(r.discard_idx), at(r.dirty_idx_ondisk), at(r.dirty_idx), at(r.cur_idx)],
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "journal: {}", self.halted.as_deref().unwrap_or("running"))?;
        writeln!(f, "  seq {}, on disk {}, durable {}", self.seq, self.seq_ondisk, self.flushed_seq_ondisk)?;
        writeln!(
            f,
            "  oldest needed {} (on disk {}), last empty {}",
            self.last_seq, self.last_seq_ondisk, self.last_empty_seq
        )?;
        writeln!(f, "  word: {}; blocked {}, waiting {}", self.word, self.blocked, self.waiters)?;
        if self.waiting_for_device_space {
            writeln!(f, "  waiting for device space")?;
        }
        for e in &self.entries {
            let (granted, returned) = e.words;
            let flush = if e.must_flush { ", to be flushed" } else { "" };
            let EntryStatus { seq, phase, sectors, .. } = e;
            writeln!(
                f,
                "  entry {seq}: {phase}, {granted} words, {returned} returned, {sectors} sectors{flush}"
            )?;
        }
        for (grade, space) in Grade::ALL.iter().zip(&self.space) {
            writeln!(f, "  space {grade:?}: {}:{} sectors", space.next_entry_sectors, space.total_sectors)?;
        }
        let pins = &self.pins;
        write!(f, "  pins {}…{} of {}:", pins.front, pins.back, pins.capacity)?;
        for (class, nr) in PinClass::ALL.iter().zip(pins.by_class) {
            write!(f, " {class:?} {nr}")?;
        }
        writeln!(f, ", asked {}, unreplayed {}", pins.flushed, pins.unreplayed)?;
        for d in &self.devices {
            let [discard, dirty_ondisk, dirty, cur] = d.indices;
            writeln!(
                f,
                "  device {}: {} buckets of {} sectors, room {}, discard {discard:?} dirty on disk {dirty_ondisk:?} dirty {dirty:?} current {cur:?}{}",
                d.dev,
                d.buckets,
                d.bucket_sectors,
                d.room,
                if d.writable { "" } else { ", not writable" }
            )?;
        }
        let c = &self.counters;
        writeln!(
            f,
            "  written: {} flush, {} noflush, {} bytes",
            c.flush_writes, c.noflush_writes, c.bytes_written
        )?;
        writeln!(
            f,
            "  reclaim: {} direct, {} background rounds, {} pins; {} waits for room ({} long)",
            c.direct_reclaims, c.background_reclaims, c.pins_flushed, c.reservation_waits, self.long_waits
        )
    }
}
