//! Starting and stopping a journal, and where to start after a crash.
//!
//! After a crash some numbers must never be used again: the journal did not keep their entries, but b-tree nodes written before the crash
//! may carry them. The reference skips 8 numbers and can hit the same ones again if it crashes during recovery (spec 20 §6, race R11). The rule
//! here, which is also safe next to a driver that follows the reference's: write one *noflush* entry far ahead, the **marker**, whose number every
//! implementation will find and go beyond; then blacklist everything from the newest flush entry to behind the marker; then start there.

use std::ops::Range;

use frazil_device::Device;
use frazil_ondisk::jset::{JSET_HEADER_BYTES, JsetKind, Seal};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors, Seq};

use super::core::Core;
use super::flush::Blocked;
use super::host::{EntryImage, Host};
use super::ring::Ring;
use super::wait::Waiters;
use super::{Clock, Counters, Format, Inner, Journal, JournalDevice, JournalError, Options, Space};
use crate::read::{self, RingFound};
use crate::sync::{Arc, AtomicU32, Mutex};

/// How far ahead of everything known the marker entry goes: more than the journal can be behind the newest node on disk
/// (later versions of the reference skip as much).
const MARKER_AHEAD: u64 = 4095;
/// What the reference adds to the highest number it finds: the marker is placed so that it arrives at the same first number.
const REFERENCE_AHEAD: u64 = 9;

/// A device of the filesystem.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its index.
    pub dev: DevIndex,
    /// Its blocks.
    pub device: Arc<dyn Device>,
    /// Its bucket size.
    pub bucket: Sectors,
    /// Its journal buckets in ring order; empty for a member without journal, which only takes part in flushes.
    pub buckets: Vec<BucketIndex>,
    /// Where writing goes on.
    pub position: Position,
    /// Whether it may be written.
    pub writable: bool,
    /// How many copies one copy on it counts for; with 0 it gets none.
    pub durability: u8,
    /// Whether freed buckets are discarded.
    pub discard: bool,
}

/// What is known about a member's ring.
#[derive(Debug, Clone)]
pub enum Position {
    /// Nothing in it is needed: new, or shut down cleanly. Bucket and offset from the member record (spec 20 §1.3); zeros are fine.
    Clean {
        /// Ring index of the last bucket written.
        index: u32,
        /// Sectors of it in use.
        offset: Sectors,
    },
    /// As found by reading the journal.
    Found(RingFound),
}

/// Where the numbers start (spec 20 §7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first number to be used.
    pub first: Seq,
    /// The oldest number still needed: entries from here to `first` wait for replay. Equal to `first` after a clean shutdown.
    pub replay_from: Seq,
}

/// Where to start after a crash: [`recovery_start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryStart {
    /// Number of the marker entry.
    pub marker: Seq,
    /// For [`Journal::start`].
    pub start: Start,
    /// Numbers never to be used or believed again.
    pub blacklist: Range<Seq>,
}

/// The state a clean shutdown leaves (spec 20 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanStop {
    /// The last entry, an empty flush entry: `journal_seq` of the clean section.
    pub seq: Seq,
    /// For each member with a journal: ring index and sectors in use of the last bucket.
    pub positions: Vec<(DevIndex, u32, Sectors)>,
}

/// Where to start, given what was read and the superblock's blacklist. Next: [`write_marker`], then put `blacklist` into the
/// superblock, then [`Journal::start`].
pub fn recovery_start(read: &read::Journal, blacklist: &[Range<Seq>]) -> RecoveryStart {
    let known = blacklist.iter().map(|r| r.end.0).chain([read.next_seq.0]).max().unwrap_or(1);
    let marker = known + MARKER_AHEAD;
    let first = marker + REFERENCE_AHEAD;
    RecoveryStart {
        marker: Seq(marker),
        start: Start { first: Seq(first), replay_from: read.last_seq },
        blacklist: Seq(read.newest_flush.0 + 1)..Seq(first),
    }
}

/// Writes the marker entry at the current write position of the members, as many copies as entries have, and makes it stable. Their
/// positions move behind it.
///
/// # Errors
/// If it could be written nowhere. A member without room where nothing is needed any more is passed over.
pub fn write_marker(
    members: &mut [Member],
    format: &Format,
    replicas: usize,
    host: &dyn Host,
    recovery: &RecoveryStart,
) -> Result<(), frazil_device::Error> {
    let bytes = marker_bytes(format, host, recovery.marker);
    let sectors = bytes.len() as u64 / SECTOR_BYTES;
    let mut copies = 0;
    let mut failure = None;
    for member in members.iter_mut().filter(|m| m.writable && m.durability > 0) {
        let Some(sector) = marker_place(member, sectors, recovery) else { continue };
        match member.device.write_fua_at(sector * SECTOR_BYTES, &bytes) {
            Ok(()) => copies += 1,
            Err(error) => failure = Some(error),
        }
        if copies == replicas {
            break;
        }
    }
    match failure {
        Some(error) if copies == 0 => Err(error),
        // Without any room the larger blacklist alone has to do; it is safe unless recovery crashes again.
        _ => Ok(()),
    }
}

fn marker_bytes(format: &Format, host: &dyn Host, seq: Seq) -> Vec<u8> {
    let limit_bytes = JSET_HEADER_BYTES + 8 * host.common_words() as usize;
    let mut image = EntryImage { seq, bytes: vec![0; JSET_HEADER_BYTES], limit_bytes };
    host.finish_entry(&mut image);
    let u64s = image.u64s();
    let mut bytes = image.bytes;
    bytes.resize(bytes.len().next_multiple_of(format.block_bytes), 0);
    seal(format, seq, JsetKind::NoFlush)
        .seal(&mut bytes, u64s, format.block_bytes)
        .expect("a format with an authenticator has a key");
    bytes
}

/// The sector for the marker on this member, which then is no longer free. Never in a bucket that may hold entries from `replay_from` on.
fn marker_place(member: &mut Member, sectors: u64, recovery: &RecoveryStart) -> Option<u64> {
    let Position::Found(ring) = &mut member.position else { return None };
    if member.buckets.is_empty() {
        return None;
    }
    let nr = member.buckets.len() as u32;
    if ring.cur_offset.0 + sectors > member.bucket.0 {
        let next = (ring.cur_idx + 1) % nr;
        if ring.bucket_seq[next as usize] >= recovery.start.replay_from {
            return None;
        }
        (ring.cur_idx, ring.cur_offset) = (next, Sectors(0));
    }
    let sector = member.buckets[ring.cur_idx as usize].0 * member.bucket.0 + ring.cur_offset.0;
    ring.cur_offset.0 += sectors;
    ring.bucket_seq[ring.cur_idx as usize] = recovery.marker;
    Some(sector)
}

fn seal(format: &Format, seq: Seq, kind: JsetKind) -> Seal<'_> {
    Seal {
        magic: format.magic,
        seq,
        version: format.version,
        kind,
        has_overwrites: format.has_overwrites,
        csum_type: format.csum_type,
        key: format.key.as_ref(),
    }
}

impl Member {
    fn into_device(self) -> JournalDevice {
        let buckets: Vec<u64> = self.buckets.iter().map(|b| b.0).collect();
        let ring = match self.position {
            Position::Clean { index, offset } => {
                Ring::clean(buckets, self.bucket.0, index as usize, offset.0)
            }
            Position::Found(found) => Ring::found(
                buckets,
                found.bucket_seq.iter().map(|s| s.0).collect(),
                self.bucket.0,
                found.cur_idx as usize,
                found.cur_offset.0,
            ),
        };
        JournalDevice {
            dev: self.dev,
            device: self.device,
            ring,
            writable: self.writable,
            lost: false,
            durability: usize::from(self.durability),
            discard: self.discard,
            discarding: false,
        }
    }
}

impl Journal {
    /// A journal whose first entry will be `start.first`. Nothing is written until something is committed.
    ///
    /// # Panics
    /// If the format has an authenticator and no key, or a block size that is not a multiple of 512.
    pub fn start(
        members: Vec<Member>,
        format: Format,
        options: Options,
        start: Start,
        host: Arc<dyn Host>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Journal> {
        assert!(
            format.key.is_some() || !format.csum_type.is_encryption(),
            "an encrypted format needs its key"
        );
        assert!(format.block_bytes > 0 && format.block_bytes.is_multiple_of(SECTOR_BYTES as usize));
        let devices: Vec<JournalDevice> = members.into_iter().map(Member::into_device).collect();
        let bucket =
            devices.iter().filter(|d| d.ring.len() > 0).map(|d| d.ring.bucket_sectors).min().unwrap_or(0);
        let entry_bytes = (bucket * SECTOR_BYTES).min(options.entry_bytes_max as u64);
        let before = start.first.0 - 1;
        let inner = Inner {
            devices,
            space: [Space::default(); 4],
            space_version: 0,
            flushed_seq_ondisk: before,
            last_seq_ondisk: start.replay_from.0,
            last_empty_seq: if start.replay_from == start.first { before } else { 0 },
            last_flush_at: clock.now(),
            first_flush_pending: true,
            at_rest: false,
            known_replicas: Default::default(),
            halted: None,
            blocked: 0,
            buffer_pressure: false,
            waiters: Waiters::default(),
            callbacks: Vec::new(),
            reclaim: Default::default(),
            counters: Counters::default(),
        };
        let journal = Arc::new(Journal {
            core: Core::new(start.replay_from.0, start.first.0, (entry_bytes / 8) as u32, inner),
            common_words: host.common_words(),
            format,
            options,
            host,
            clock,
            reclaiming: Mutex::new(()),
            pin_waiters: AtomicU32::new(0),
        });
        let mut st = journal.lock();
        journal.update_space(&mut st);
        journal.leave(st);
        journal
    }

    /// Ends a life cleanly: everything is written back, and the last entry on disk is an empty flush entry. The caller has stopped
    /// everybody who commits, except what flushing pins needs.
    ///
    /// # Errors
    /// If the journal halted.
    ///
    /// # Panics
    /// If somebody committed meanwhile (I31).
    pub fn shutdown(&self) -> Result<CleanStop, JournalError> {
        self.flush_pins(Seq(u64::MAX))?;
        self.quiesce()?;
        let seq = self.meta()?;
        self.quiesce()?;
        let mut st = self.lock();
        self.check_halted(&st)?;
        st.extra.at_rest = true;
        let clean = [st.seq, st.seq_ondisk, st.extra.flushed_seq_ondisk, st.extra.last_empty_seq];
        assert!(clean.iter().all(|s| *s == seq.0), "I31: not clean: {}", self.status_locked(&st));
        assert!(!self.core.pins.any_listed(), "I31: pins are left: {}", self.status_locked(&st));
        let with_ring = st.extra.devices.iter().filter(|d| d.ring.len() > 0);
        let positions = with_ring
            .map(|d| (d.dev, d.ring.cur_idx as u32, Sectors(d.ring.bucket_sectors - d.ring.room)))
            .collect();
        Ok(CleanStop { seq, positions })
    }

    /// After a pause with a clean superblock (freeze, read-only): the next entry is preceded by marking the superblock
    /// dirty, and is a flush (I18).
    pub fn resume(&self) {
        let mut st = self.lock();
        (st.extra.first_flush_pending, st.extra.at_rest) = (true, false);
    }

    /// Adds buckets to a member's ring (spec 20 §1.4). `publish` gets the ring's buckets in their new order and returns when the superblock
    /// lists them; the journal is quiet meanwhile. If it fails, nothing changed.
    ///
    /// # Errors
    /// If the journal halts, or with what `publish` returned.
    pub fn grow<E: From<JournalError>>(
        &self,
        dev: DevIndex,
        new: &[BucketIndex],
        publish: impl FnOnce(&[BucketIndex]) -> Result<(), E>,
    ) -> Result<(), E> {
        let _quiet: Blocked<'_> = self.block()?;
        let st = self.lock();
        let Some(i) = st.extra.devices.iter().position(|d| d.dev == dev) else { return Ok(()) };
        let mut ring = st.extra.devices[i].ring.clone();
        drop(st);
        ring.grow(&new.iter().map(|b| b.0).collect::<Vec<_>>());
        publish(&ring.buckets.iter().map(|b| BucketIndex(*b)).collect::<Vec<_>>())?;
        let mut st = self.lock();
        st.extra.devices[i].ring = ring;
        self.update_space(&mut st);
        self.leave(st);
        Ok(())
    }

    /// Whether a member may be written from now on. Before one is taken away, everything pinned must have another place to go
    /// (race R13): [`Journal::flush_pins`], then [`Journal::meta`].
    pub fn set_writable(&self, dev: DevIndex, writable: bool) {
        let mut st = self.lock();
        for device in st.extra.devices.iter_mut().filter(|d| d.dev == dev) {
            (device.writable, device.lost) = (writable, false);
        }
        self.update_space(&mut st);
        self.leave(st);
    }
}
