//! Writing an entry: decide, copy out, seal, place; then the devices; then account.
//!
//! **Prepare** happens one entry at a time, in order (I13). Whether the entry is a flush entry is decided once, here, under the
//! lock; who wants a later decision gets a later entry (race R8). **Submit** runs for several entries at once, except that a flush entry
//! waits for all before it (I15): its `last_seq` and its keys vouch for everything completed before, so every writable member is
//! flushed first, and only then is the entry itself written through to stable storage. **Complete** accounts strictly in
//! order (I16): completions that come early wait in their entries.
//!
//! A copy that cannot be written costs the device, not the entry, as long as another copy succeeded. A thin device without room is asked
//! again, with the same bytes at the same place (spec 70 R12, I4).

use std::time::Duration;

use frazil_ondisk::jset::{EntryType, Frames, JSET_HEADER_BYTES, JsetKind, Seal};
use frazil_ondisk::units::{SECTOR_BYTES, Seq};

use super::core::Phase;
use super::halt::HaltReason;
use super::host::{DevSet, EntryImage};
use super::wait::Job;
use super::{Guard, Journal, Locked, NoSpace, Stage, Target};
use crate::sync::Arc;

/// Pause before a write to a full thin device is repeated: short at first, then one that costs nothing.
const NO_SPACE_RETRY_MIN: Duration = Duration::from_millis(10);
const NO_SPACE_RETRY_MAX: Duration = Duration::from_secs(1);

impl Journal {
    /// Copies entry `seq` out of its buffer, seals it, and finds its place. Returns what is to be done next, usually writing
    /// it: whoever prepared an entry goes on with it, so that nobody else has to be woken for that.
    pub(crate) fn prepare(&self, seq: u64) -> Option<Job> {
        match self.try_prepare(seq) {
            Ok(next) => next,
            Err(reason) => {
                let mut st = self.lock();
                if let Some(entry) = st.entry(seq) {
                    // Nobody works on it any more: the halt drops it.
                    entry.phase = Phase::Ready;
                }
                self.halt_locked(st, reason);
                let mut st = self.lock();
                self.drop_unwritten(&mut st);
                self.leave(st);
                None
            }
        }
    }

    fn try_prepare(&self, seq: u64) -> Result<Option<Job>, HaltReason> {
        let mut st = self.lock();
        if std::mem::take(&mut st.extra.first_flush_pending) {
            // I18: the superblock says "not clean" before anything else is written; and this entry will be a flush.
            st.entry(seq).expect("being prepared").io.must_flush = true;
            drop(st);
            self.host.mark_dirty().map_err(HaltReason::Host)?;
            st = self.lock();
        }
        let flush = self.decide(&mut st, seq);
        let entry = st.entry(seq).expect("being prepared");
        let (used, last_seq, sectors) = (entry.used, entry.last_seq, entry.io.sectors);
        drop(st);

        let mut bytes = vec![0; JSET_HEADER_BYTES];
        bytes.reserve_exact((sectors * SECTOR_BYTES) as usize);
        let slot = self.core.slot(seq);
        slot.drain(used - slot.tail(), &mut bytes);
        let limit_bytes = (sectors * SECTOR_BYTES) as usize;
        let mut image = EntryImage { seq: Seq(seq), bytes, limit_bytes };
        self.host.finish_entry(&mut image);
        let empty = flush && last_seq == seq && !has_keys(image.list());
        let bytes = self.seal(image, flush.then_some(last_seq));
        self.place(seq, bytes, empty)
    }

    /// Flush or noflush; decided once per entry.
    fn decide(&self, st: &mut Locked, seq: u64) -> bool {
        let now = self.clock.now();
        let skip = self.may_skip_flush(st);
        let recent = now.saturating_sub(st.extra.last_flush_at) < self.options.flush_delay;
        let entry = st.entry(seq).expect("being prepared");
        let flush = entry.io.must_flush || !recent || !skip;
        entry.io.flush = Some(flush);
        if flush {
            st.extra.last_flush_at = now;
        }
        flush
    }

    /// The finished bytes; `last_seq` for a flush entry (I3: noflush entries have 0).
    fn seal(&self, image: EntryImage, last_seq: Option<u64>) -> Vec<u8> {
        let seal = Seal {
            magic: self.format.magic,
            seq: image.seq,
            version: self.format.version,
            kind: last_seq.map_or(JsetKind::NoFlush, |l| JsetKind::Flush { last_seq: Seq(l) }),
            has_overwrites: self.format.has_overwrites,
            csum_type: self.format.csum_type,
            key: self.format.key.as_ref(),
        };
        let u64s = image.u64s();
        let mut bytes = image.bytes;
        bytes.resize(bytes.len().next_multiple_of(self.format.block_bytes), 0);
        seal.seal(&mut bytes, u64s, self.format.block_bytes)
            .expect("a format with an authenticator has a key: checked when the journal started");
        bytes
    }

    /// Finds a place on as many devices as there are to be copies (spec 20 §9.10 step 3), and frees the buffer.
    fn place(&self, seq: u64, bytes: Vec<u8>, empty: bool) -> Result<Option<Job>, HaltReason> {
        let sectors = bytes.len() as u64 / SECTOR_BYTES;
        let mut st = self.lock();
        let targets = loop {
            if let Some(targets) = self.take_places(&mut st, seq, sectors) {
                break targets;
            }
            let can_discard = self.can_discard(&st);
            self.leave(st);
            if !can_discard || !self.discard_one() {
                return Err(HaltReason::InsufficientDevices);
            }
            st = self.lock();
        };
        let devices: DevSet = targets.iter().map(|t| t.dev).collect();
        let known = st.extra.known_replicas.contains(&devices);
        if !known {
            drop(st);
            self.host.mark_replicas(&devices).map_err(HaltReason::Host)?;
            st = self.lock();
            st.extra.known_replicas.insert(devices);
        }
        if empty {
            st.extra.last_empty_seq = seq;
        }
        let entry = st.entry(seq).expect("being prepared");
        assert_eq!(entry.phase, Phase::Copying, "I13: prepared once, in order");
        entry.phase = Phase::Copied;
        entry.io.sectors = 0;
        entry.io.targets = targets;
        entry.io.image = Some(Arc::new(bytes));
        if st.extra.halted.is_some() {
            self.drop_unwritten(&mut st);
        }
        self.renew_flush_requests(&mut st);
        self.update_space(&mut st);
        let next = self.claim_write(&mut st, self.clock.now());
        self.leave(st);
        Ok(next)
    }

    /// Takes a place on each of the best devices. Devices without room move on to their next bucket once.
    fn take_places(&self, st: &mut Locked, seq: u64, sectors: u64) -> Option<Vec<Target>> {
        let want = self.copies_wanted(st);
        if want == 0 {
            return None;
        }
        let fits = |d: &&mut super::JournalDevice| d.takes_entries() && d.ring.room >= sectors;
        if st.extra.devices.iter_mut().filter(|d| fits(d)).count() < want {
            for device in st.extra.devices.iter_mut().filter(|d| d.takes_entries() && d.ring.room < sectors) {
                device.ring.next_bucket();
            }
        }
        let mut candidates: Vec<_> = st.extra.devices.iter_mut().filter(fits).collect();
        if candidates.len() < want {
            return None;
        }
        // The device with most free space takes it, so that several fill evenly.
        candidates.sort_by_key(|d| (std::cmp::Reverse(d.ring.available(super::Grade::Discarded)), d.dev));
        let place = |d: &mut super::JournalDevice| {
            let sector = d.ring.take(seq, sectors).expect("it has room");
            Target { dev: d.dev, sector }
        };
        Some(candidates.into_iter().take(want).map(place).collect())
    }

    /// Writes entry `seq` to its devices.
    pub(crate) fn submit(&self, seq: u64) {
        let mut st = self.lock();
        let writable = st.extra.devices.iter().filter(|d| d.writable);
        let writable: Vec<_> = writable.map(|d| (d.dev, d.device.clone(), d.lost)).collect();
        let turn = st.seq_ondisk + 1;
        let entry = st.entry(seq).expect("being written");
        let flush = entry.io.flush == Some(true);
        assert!(!flush || seq == turn, "I15: flush entry {seq} before entry {turn}");
        let image = entry.io.image.clone().expect("prepared");
        let targets = std::mem::take(&mut entry.io.targets);
        // With one copy written, what it points to is stable.
        let flush_before = flush && entry.io.written.is_empty();
        drop(st);

        let mut outcome = Outcome::default();
        let unflushed = flush_before.then(|| writable.iter().filter_map(|(_, d, _)| d.flush().err()));
        // Want of room is the least that may be wrong.
        if let Some(error) = unflushed.and_then(|errors| errors.min_by_key(|error| error.is_no_space())) {
            if !error.is_no_space() {
                self.fail_write(seq, HaltReason::FlushFailed { error });
                return;
            }
            // What was written before has no room yet. It is not lost, and this entry waits with it.
            outcome.no_space = targets.into_iter().map(|target| (target, error.clone())).collect();
            outcome.unflushed = Some(error);
            self.submitted(seq, outcome);
            return;
        }
        for target in targets {
            let usable =
                |(dev, _, lost): &&(frazil_ondisk::units::DevIndex, _, bool)| *dev == target.dev && !lost;
            let Some((_, device, _)) = writable.iter().find(usable) else { continue };
            let at = target.sector * SECTOR_BYTES;
            let result = if flush { device.write_fua_at(at, &image) } else { device.write_at(at, &image) };
            outcome.add(target, result, image.len() as u64);
        }
        self.submitted(seq, outcome);
    }

    /// Takes stock of what the devices said.
    fn submitted(&self, seq: u64, outcome: Outcome) {
        let now = self.clock.now();
        let mut st = self.lock();
        st.extra.counters.bytes_written += outcome.bytes;
        let Outcome { written, mut failed, no_space, unflushed, .. } = outcome;
        let entry = st.entry(seq).expect("being written");
        written.iter().for_each(|dev| entry.io.written.insert(dev));
        if !no_space.is_empty() {
            let since = *entry.io.no_space_since.get_or_insert(now);
            let waited = now.saturating_sub(since);
            let give_up = matches!(self.options.no_space, NoSpace::FailAfter(limit) if waited >= limit);
            if let (true, Some(error)) = (give_up, unflushed) {
                drop(st);
                self.fail_write(seq, HaltReason::FlushFailed { error });
                return;
            }
            if give_up {
                failed.extend(no_space);
            } else {
                let pause = waited.clamp(NO_SPACE_RETRY_MIN, NO_SPACE_RETRY_MAX);
                entry.io.stage = Stage::NoSpace { retry_at: now + pause };
                entry.io.targets = no_space.into_iter().map(|(target, _)| target).collect();
                st.extra.counters.no_space_retries += 1;
                let st = self.lose_devices(st, failed);
                self.leave(st);
                return;
            }
        }
        let last_error = failed.last().map(|(_, e)| e.clone());
        let st = self.lose_devices(st, failed);
        self.finish_write(st, seq, last_error);
    }

    /// Devices that failed get no more entries, and the host is told.
    fn lose_devices<'a>(
        &'a self,
        mut st: Guard<'a>,
        failed: Vec<(Target, frazil_device::Error)>,
    ) -> Guard<'a> {
        if failed.is_empty() {
            return st;
        }
        for (target, _) in &failed {
            for device in st.extra.devices.iter_mut().filter(|d| d.dev == target.dev) {
                device.lost = true;
            }
        }
        self.update_space(&mut st);
        drop(st);
        for (target, error) in &failed {
            self.host.device_failed(target.dev, error);
        }
        self.lock()
    }

    fn finish_write(&self, mut st: Guard<'_>, seq: u64, last_error: Option<frazil_device::Error>) {
        let entry = st.entry(seq).expect("being written");
        let (copies, flush) = (entry.io.written.len(), entry.io.flush == Some(true));
        if copies == 0 {
            drop(st);
            // Without an error every device it had a place on was lost meanwhile.
            let failed = |error| HaltReason::WriteFailed { seq: Seq(seq), error };
            self.fail_write(seq, last_error.map_or(HaltReason::InsufficientDevices, failed));
            return;
        }
        let counters = &mut st.extra.counters;
        *(if flush { &mut counters.flush_writes } else { &mut counters.noflush_writes }) += 1;
        self.complete(&mut st, seq);
        let flushed = Seq(st.extra.flushed_seq_ondisk);
        self.leave(st);
        if flush {
            self.host.flushed(flushed);
        }
    }

    fn fail_write(&self, seq: u64, reason: HaltReason) {
        let mut st = self.lock();
        if let Some(entry) = st.entry(seq) {
            entry.io.stage = Stage::Waiting;
        }
        self.halt_locked(st, reason);
        let mut st = self.lock();
        self.drop_unwritten(&mut st);
        self.leave(st);
    }

    /// The device writes of `seq` are over, one way or the other. Accounts what is now on disk, in order.
    pub(crate) fn complete(&self, st: &mut Locked, seq: u64) {
        let failed = st.extra.halted.is_some();
        self.core.done(st, seq, |x, entry| {
            x.counters.words_committed += u64::from(entry.used);
            // I16: with an error durability stands still, so no bucket is reused on the strength of it.
            if entry.io.flush == Some(true) && !failed {
                assert!(x.flushed_seq_ondisk < entry.seq && x.last_seq_ondisk <= entry.last_seq, "I3, I16");
                x.flushed_seq_ondisk = entry.seq;
                x.last_seq_ondisk = entry.last_seq;
            }
        });
        self.update_space(st);
    }
}

/// What the devices said to the copies of one entry.
#[derive(Default)]
struct Outcome {
    written: DevSet,
    failed: Vec<(Target, frazil_device::Error)>,
    no_space: Vec<(Target, frazil_device::Error)>,
    /// What was written before could not be flushed, for want of room.
    unflushed: Option<frazil_device::Error>,
    bytes: u64,
}

impl Outcome {
    fn add(&mut self, target: Target, result: frazil_device::Result<()>, bytes: u64) {
        match result {
            Ok(()) => {
                self.written.insert(target.dev);
                self.bytes += bytes;
            }
            Err(error) if error.is_no_space() => self.no_space.push((target, error)),
            Err(error) => self.failed.push((target, error)),
        }
    }
}

/// Whether a list has keys to replay.
fn has_keys(list: &[u8]) -> bool {
    Frames::new(list).flatten().any(|f| f.header.ty == EntryType::BTREE_KEYS && !f.payload.is_empty())
}
