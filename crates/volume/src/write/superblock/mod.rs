//! The superblock of a volume that is being written.
//!
//! All devices share one superblock but for a few fields of their own, and carry several copies of it each. Writing it is the one
//! thing in the format that overwrites in place, so its order is what makes it safe (spec 10 §12):
//!
//! 1. The change is made in memory and stamped with the next number. Every copy for every device is made and validated before a byte is
//!    written: a change that breaks a rule changes nothing.
//! 2. The first copy on each device is read back. Another number there than the last one written means that somebody else writes to
//!    the device, or that it loses writes; then the volume is in no state to be written at all.
//! 3. Copy 0 goes to every device, through its cache; then copy 1 to every device, and so on. So on each device at most one copy
//!    is torn by a crash, and all others are whole: old ones behind it, new ones in front of it.
//! 4. A device that fails is passed over and tried again next time. The write counts if the volume can be opened with the devices that took
//!    it; if not, the error stays for good, and whoever hears it stops the volume.
//!
//! What is asked of the superblock while keys are committed ([`View`]) is read without waiting for a write that is under way. It shows only
//! what is on stable storage.
//!
//! | to find | look in |
//! |---|---|
//! | what each change is about | `changes.rs` |
//! | the devices and their copies | `seat.rs` |

mod changes;
mod error;
mod seat;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use frazil_device::Device;
use frazil_ondisk::DecodeError;
use frazil_ondisk::fsck_errors::FsckErrorId;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::assembly::{self, Degraded};
use frazil_ondisk::superblock::members::{IoErrors, Members};
use frazil_ondisk::superblock::sections::replicas::{Replicas, ReplicasEntry};
use frazil_ondisk::superblock::sections::{Downgrade, Errors, Ext, JournalV2, SectionType};
use frazil_ondisk::units::{DevIndex, UnixSeconds};
use parking_lot::{Mutex, RwLock};

pub use changes::Closing;
pub(super) use changes::journal_replicas;
pub use error::SuperblockWriteError;
use seat::Seat;

use super::time::WallClock;

/// The shared superblock as it is on stable storage.
pub struct View {
    /// All of it. What devices have of their own (ring, layout, index) is that of one of them.
    pub superblock: Superblock,
    /// Its members.
    pub members: Members,
    replicas: HashSet<ReplicasEntry>,
}

impl View {
    fn new(superblock: Superblock) -> Result<View, DecodeError> {
        let members = superblock.members()?;
        let replicas = Replicas::load(&superblock.sections)?.0.into_iter().collect();
        Ok(View { superblock, members, replicas })
    }

    /// Whether the table of replicas has the entry.
    pub fn has_replicas(&self, entry: &ReplicasEntry) -> bool {
        self.replicas.contains(entry)
    }
}

/// Which failure of a device to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoErrorKind {
    /// A read failed.
    Read,
    /// A write failed.
    Write,
    /// What was read did not match its checksum.
    Checksum,
}

/// What was seen and is to be told with the next write, whenever that is.
#[derive(Default)]
struct Seen {
    errors: BTreeMap<FsckErrorId, u64>,
    io: BTreeMap<DevIndex, IoErrors>,
    inconsistent: bool,
    topology: bool,
}

/// What is called when nothing may be written any more.
type OnFatal = dyn Fn(&SuperblockWriteError) + Send + Sync;

/// The superblock of an open volume, with its devices. See the [module](self).
pub struct SuperblockStore {
    /// Held for the whole of a write.
    writer: Mutex<Writer>,
    view: RwLock<Arc<View>>,
    seen: Mutex<Seen>,
    clock: Arc<dyn WallClock>,
    on_fatal: OnceLock<Box<OnFatal>>,
    is_wrong: AtomicBool,
}

struct Writer {
    /// What was written last, or would have been: its number must not be used again.
    newest: Superblock,
    seats: Vec<Seat>,
    /// How incomplete the volume may be with what was written.
    degraded: Degraded,
    /// Why nothing is written any more.
    broken: Option<SuperblockWriteError>,
}

impl SuperblockStore {
    /// The store of a volume whose superblock that counts is `newest`, on these devices, each with its own superblock. The first copies
    /// are looked at; nothing is written.
    ///
    /// # Errors
    /// If members or replicas cannot be decoded.
    pub fn new(
        newest: Superblock,
        devices: Vec<(Arc<dyn Device>, Superblock)>,
        degraded: Degraded,
        clock: Arc<dyn WallClock>,
    ) -> Result<SuperblockStore, DecodeError> {
        let view = View::new(newest.clone())?;
        let seats = devices.into_iter().map(|(device, own)| Seat::new(device, own)).collect();
        // A write that leaves some copies behind is no reason to stop as long as none is needed.
        let writer = Writer { newest, seats, degraded: degraded.max(Degraded::Yes), broken: None };
        Ok(SuperblockStore {
            writer: Mutex::new(writer),
            view: RwLock::new(Arc::new(view)),
            seen: Mutex::default(),
            clock,
            on_fatal: OnceLock::new(),
            is_wrong: AtomicBool::new(false),
        })
    }

    /// Has `stop` called, without locks, whenever an error says that nothing may be written to the volume any more (spec 60 §7.1), from whichever
    /// thread finds out. Only the first call counts.
    pub fn on_fatal(&self, stop: impl Fn(&SuperblockWriteError) + Send + Sync + 'static) {
        // A second one is refused, as it says.
        drop(self.on_fatal.set(Box::new(stop)));
    }

    /// Passes on an error that concerns the whole volume.
    fn told<T>(&self, result: Result<T, SuperblockWriteError>) -> Result<T, SuperblockWriteError> {
        if let Err(error) = &result
            && error.is_fatal()
            && let Some(stop) = self.on_fatal.get()
        {
            stop(error);
        }
        result
    }

    /// What is on stable storage.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// The time that is stamped on superblocks.
    pub fn now(&self) -> UnixSeconds {
        self.clock.now_seconds()
    }

    /// The devices it is written to.
    pub fn devices(&self) -> Vec<DevIndex> {
        self.writer.lock().online()
    }

    /// The ring of journal buckets of a device, as its own superblock has it; `None` if the device is not here.
    ///
    /// # Errors
    /// If the section is damaged.
    pub fn journal_buckets(&self, dev: DevIndex) -> Result<Option<JournalV2>, DecodeError> {
        let writer = self.writer.lock();
        writer.seats.iter().find(|s| s.dev() == dev).map(|s| s.own.journal_buckets()).transpose()
    }

    /// Changes the superblock and returns when the change is on stable storage. Nothing is written if `change` changes nothing.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`]. An error of `change` leaves everything as it was.
    pub fn update(
        &self,
        change: impl FnOnce(&mut Superblock) -> Result<(), DecodeError>,
    ) -> Result<(), SuperblockWriteError> {
        self.write(&[], false, Failing::IsFatal, change)
    }

    /// Like [`SuperblockStore::update`], but always writes, and so finds out whether somebody else did.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn rewrite(
        &self,
        change: impl FnOnce(&mut Superblock) -> Result<(), DecodeError>,
    ) -> Result<(), SuperblockWriteError> {
        self.write(&[], true, Failing::IsFatal, change)
    }

    /// Like [`SuperblockStore::rewrite`], for who writes nothing else unless this succeeds: devices that fail it are asked again the next time.
    fn rewrite_first(
        &self,
        change: impl FnOnce(&mut Superblock) -> Result<(), DecodeError>,
    ) -> Result<(), SuperblockWriteError> {
        self.write(&[], true, Failing::MayBeRepeated, change)
    }

    /// Like [`SuperblockStore::update`], and gives devices new rings of journal buckets.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn update_rings(
        &self,
        rings: &[(DevIndex, JournalV2)],
        change: impl FnOnce(&mut Superblock) -> Result<(), DecodeError>,
    ) -> Result<(), SuperblockWriteError> {
        self.write(rings, !rings.is_empty(), Failing::IsFatal, change)
    }

    /// Checks that nobody else has written to the devices since the last write here: before anything else is written.
    ///
    /// # Errors
    /// [`SuperblockWriteError::Foreign`] and its like.
    pub fn check_unchanged(&self) -> Result<(), SuperblockWriteError> {
        self.told(self.writer.lock().check_unchanged())
    }

    /// Counts an inconsistency, and says that the volume has had one. Written with the next write.
    pub fn note_error(&self, id: FsckErrorId) {
        let mut seen = self.seen.lock();
        *seen.errors.entry(id).or_default() += 1;
        seen.inconsistent = true;
        self.is_wrong.store(true, Ordering::Relaxed);
    }

    /// Says that the volume has had an inconsistency for which there is no number. Written with the next write.
    pub fn note_inconsistency(&self) {
        self.seen.lock().inconsistent = true;
        self.is_wrong.store(true, Ordering::Relaxed);
    }

    /// Whether an inconsistency was seen since the volume was opened. Then it must not be called clean (spec 10 §13).
    pub fn is_wrong(&self) -> bool {
        self.is_wrong.load(Ordering::Relaxed)
    }

    /// Writes what was noted, if there is anything.
    ///
    /// # Errors
    /// See [`SuperblockWriteError`].
    pub fn write_noted(&self) -> Result<(), SuperblockWriteError> {
        if self.seen.lock().is_empty() { Ok(()) } else { self.rewrite(|_| Ok(())) }
    }

    /// Says that the shape of a b-tree is wrong: the next start must check it. Written with the next write.
    pub fn note_topology_error(&self) {
        self.seen.lock().topology = true;
    }

    /// Counts a failure of a device. Written with the next write.
    pub fn note_io_error(&self, dev: DevIndex, kind: IoErrorKind) {
        let mut seen = self.seen.lock();
        let counts = seen.io.entry(dev).or_default();
        let count = match kind {
            IoErrorKind::Read => &mut counts.read,
            IoErrorKind::Write => &mut counts.write,
            IoErrorKind::Checksum => &mut counts.checksum,
        };
        *count = count.saturating_add(1);
    }

    fn write(
        &self,
        rings: &[(DevIndex, JournalV2)],
        always: bool,
        failing: Failing,
        change: impl FnOnce(&mut Superblock) -> Result<(), DecodeError>,
    ) -> Result<(), SuperblockWriteError> {
        match self.try_write(rings, always, failing, change) {
            Err(error) if failing.is_forgiven(&error) => Err(error),
            result => self.told(result),
        }
    }

    fn try_write(
        &self,
        rings: &[(DevIndex, JournalV2)],
        always: bool,
        failing: Failing,
        change: impl FnOnce(&mut Superblock) -> Result<(), DecodeError>,
    ) -> Result<(), SuperblockWriteError> {
        let mut writer = self.writer.lock();
        writer.check_working()?;
        let mut next = writer.newest.clone();
        change(&mut next)?;
        if !always && next == writer.newest {
            return Ok(());
        }
        let now = self.clock.now_seconds();
        let noted = std::mem::take(&mut *self.seen.lock());
        let view = match writer.prepare(next, rings, &noted, now) {
            Ok(prepared) => writer.carry_out(prepared, failing)?,
            Err(invalid) => {
                self.seen.lock().put_back(noted);
                return Err(invalid.into());
            }
        };
        *self.view.write() = Arc::new(view);
        Ok(())
    }
}

/// What it means that too few devices take a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    /// Nothing may be written any more.
    IsFatal,
    /// Nothing is written until it succeeds.
    MayBeRepeated,
}

impl Failing {
    fn is_forgiven(self, error: &SuperblockWriteError) -> bool {
        self == Failing::MayBeRepeated && matches!(error, SuperblockWriteError::TooFew { .. })
    }
}

/// A change that breaks no rule, for every device.
struct Prepared {
    next: Superblock,
    view: View,
    /// By seat: the device's own superblock, and the bytes of its copies in their order.
    copies: Vec<(Superblock, Vec<Vec<u8>>)>,
}

impl Writer {
    fn online(&self) -> Vec<DevIndex> {
        self.seats.iter().map(Seat::dev).collect()
    }

    fn check_working(&self) -> Result<(), SuperblockWriteError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// A fatal error stays.
    fn remember<T>(&mut self, result: Result<T, SuperblockWriteError>) -> Result<T, SuperblockWriteError> {
        if let Err(error) = &result
            && error.is_fatal()
        {
            self.broken = Some(error.clone());
        }
        result
    }

    fn check_unchanged(&mut self) -> Result<(), SuperblockWriteError> {
        self.check_working()?;
        let uuid = self.newest.uuid;
        let checked = self.seats.iter_mut().try_for_each(|seat| seat.check_primary(&uuid).map(|_| ()));
        self.remember(checked)
    }

    /// Steps 1 to 4 of spec 10 §12.
    fn prepare(
        &self,
        mut next: Superblock,
        rings: &[(DevIndex, JournalV2)],
        noted: &Seen,
        now: UnixSeconds,
    ) -> Result<Prepared, DecodeError> {
        noted.apply(&mut next, now)?;
        refresh(&mut next)?;
        next.stamp(now, &self.online())?;
        let view = View::new(next.clone())?;
        let copies = self.seats.iter().map(|seat| {
            let mut own = seat.own.with_shared_from(&next);
            if let Some((_, ring)) = rings.iter().find(|(dev, _)| *dev == seat.dev()) {
                own.put_journal_buckets(ring);
            }
            own.validate()?;
            let bytes =
                own.layout.copies().map(|sector| own.encode_copy(sector)).collect::<Result<_, _>>()?;
            Ok((own, bytes))
        });
        Ok(Prepared { copies: copies.collect::<Result<_, DecodeError>>()?, next, view })
    }

    /// Steps 5 to 8 of spec 10 §12.
    fn carry_out(&mut self, prepared: Prepared, failing: Failing) -> Result<View, SuperblockWriteError> {
        let Prepared { next, view, copies } = prepared;
        if !next.flags.initialized() {
            // What the formatter wrote stays until the first start is complete.
            self.newest = next;
            self.seats.iter_mut().zip(copies).for_each(|(seat, (own, _))| seat.own = own);
            return Ok(view);
        }
        let mut last_error = None;
        let mut taking = Vec::with_capacity(self.seats.len());
        for i in 0..self.seats.len() {
            let checked = self.seats[i].check_primary(&next.uuid);
            let failed = self.remember(checked)?;
            taking.push(failed.is_none());
            last_error = failed.or(last_error);
        }
        let rounds = copies.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let takers = self.seats.iter_mut().zip(&copies).zip(&mut taking).filter(|(_, taking)| **taking);
            for ((seat, (own, bytes)), taking) in takers {
                let Some(bytes) = bytes.get(round) else { continue };
                if let Err(error) = seat.write_copy(round, own, bytes) {
                    tracing::warn!("superblock copy {round} not written: {error}");
                    *taking = false;
                    last_error = Some(error);
                }
            }
        }
        self.newest = next;
        if let Some(last) = last_error {
            match self.enough(&view, last) {
                Err(error) if failing.is_forgiven(&error) => return Err(error),
                enough => self.remember(enough)?,
            }
        }
        Ok(view)
    }

    /// Whether the volume can be opened with the devices that took the write.
    fn enough(&self, view: &View, last: frazil_device::Error) -> Result<(), SuperblockWriteError> {
        let seq = self.newest.seq;
        let took = |dev| self.seats.iter().any(|s| s.dev() == dev && s.holds(seq));
        if !self.seats.iter().any(|s| s.holds(seq)) {
            return Err(SuperblockWriteError::TooFew { missing: None, last });
        }
        assembly::check_online(&view.members, took, &view.replicas, self.degraded)
            .map_err(|why| SuperblockWriteError::TooFew { missing: Some(Box::new(why)), last })
    }
}

impl Seen {
    fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.io.is_empty() && !self.inconsistent && !self.topology
    }

    fn apply(&self, sb: &mut Superblock, now: UnixSeconds) -> Result<(), DecodeError> {
        if self.inconsistent {
            sb.flags.set_has_errors(true);
        }
        if self.topology {
            sb.flags.set_has_topology_errors(true);
        }
        if !self.errors.is_empty() {
            let mut errors = sb.sections.get::<Errors>()?.unwrap_or_default();
            self.errors.iter().for_each(|(&id, &count)| errors.add(id, count, now));
            sb.sections.put(&errors);
        }
        if !self.io.is_empty() {
            let mut members = sb.members()?;
            for (&dev, more) in &self.io {
                let Some(member) = members.get_mut(dev) else { continue };
                let counts = &mut member.errors;
                counts.read = counts.read.saturating_add(more.read);
                counts.write = counts.write.saturating_add(more.write);
                counts.checksum = counts.checksum.saturating_add(more.checksum);
            }
            sb.put_members(&members);
        }
        Ok(())
    }

    fn put_back(&mut self, older: Seen) {
        for (id, count) in older.errors {
            *self.errors.entry(id).or_default() += count;
        }
        for (dev, counts) in older.io {
            let own = self.io.entry(dev).or_default();
            own.read += counts.read;
            own.write += counts.write;
            own.checksum += counts.checksum;
        }
        self.inconsistent |= older.inconsistent;
        self.topology |= older.topology;
    }
}

/// Brings sections up to date that every write of a 1.13 program has (spec 10 §12 step 2, spec 60 §3.4). What is larger came from a newer
/// program and stays.
fn refresh(sb: &mut Superblock) -> Result<(), DecodeError> {
    if !sb.sections.has(SectionType::ERRORS) {
        sb.sections.put(&Errors::default());
    }
    if !sb.sections.has(SectionType::EXT) {
        sb.sections.put(&Ext::default());
    }
    let smallest = Downgrade::of_1_13(false);
    if sb.sections.get::<Downgrade>()?.is_none_or(|own| own.0.len() < smallest.0.len()) {
        sb.sections.put(&smallest);
    }
    Ok(())
}
