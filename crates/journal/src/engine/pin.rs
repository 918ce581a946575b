//! Pins, as the owners of dirty objects see them.

use frazil_ondisk::units::Seq;

use super::host::EntryImage;
use super::pins::{Dirty, PinClass};
use super::{Journal, Reservation};
use crate::sync::{Arc, AtomicU64, Ordering, Weak};

mod sealed {
    pub trait Sealed {}
}

/// Something that keeps a sequence number in the pin FIFO while it lives, and so permits to pin it.
///
/// This is what makes the race this project began with impossible to write down: a pin can only be set while somebody holds the
/// number it is set to, and the holder is in the call.
pub trait Protects: sealed::Sealed {
    /// The number.
    fn protected_seq(&self) -> Seq;
}

impl sealed::Sealed for Reservation<'_> {}
impl Protects for Reservation<'_> {
    fn protected_seq(&self) -> Seq {
        self.seq()
    }
}

/// An entry on its way to disk is not on disk, and the front does not pass what is not on disk (I20).
impl sealed::Sealed for EntryImage {}
impl Protects for EntryImage {
    fn protected_seq(&self) -> Seq {
        self.seq()
    }
}

/// A number that an active pin, itself not newer, keeps in the FIFO: [`Pin::covering`].
#[derive(Debug)]
pub struct Covered<'p> {
    seq: Seq,
    _pin: &'p Pin,
}

impl sealed::Sealed for Covered<'_> {}
impl Protects for Covered<'_> {
    fn protected_seq(&self) -> Seq {
        self.seq
    }
}

/// An entry of the journal's previous life that replay has not passed yet: [`Journal::replay_hold`].
#[derive(Debug)]
pub struct ReplayHold<'j> {
    pub(super) seq: Seq,
    pub(super) _journal: &'j Journal,
}

impl sealed::Sealed for ReplayHold<'_> {}
impl Protects for ReplayHold<'_> {
    fn protected_seq(&self) -> Seq {
        self.seq
    }
}

/// A claim on a sequence number: as long as it is active, the journal keeps that entry and all newer ones.
///
/// Owned by a dirty object, next to what it protects, and used under that object's own lock. Inactive when new. Dropping it
/// drops the claim.
///
/// # What does not compile
///
/// Pinning a number that nobody protects:
/// ```compile_fail,E0277
/// # use frazil_journal::engine::*; use std::sync::Arc;
/// fn pin<D: Dirty + 'static>(pin: &Pin, owner: &Arc<D>) {
///     pin.set(&frazil_ondisk::units::Seq(7), owner); // a number is no protection
/// }
/// ```
/// Pinning after the reservation went back:
/// ```compile_fail,E0382
/// # use frazil_journal::engine::*; use std::sync::Arc;
/// fn pin<D: Dirty + 'static>(journal: &Journal, pin: &Pin, owner: &Arc<D>) {
///     let room = journal.reserve(1, Watermark::Normal, Wait::Forever).unwrap();
///     drop(room);
///     pin.set(&room, owner);
/// }
/// ```
/// A protection of one's own making:
/// ```compile_fail,E0277
/// # use frazil_journal::engine::*;
/// struct Trust;
/// impl Protects for Trust {
///     fn protected_seq(&self) -> frazil_ondisk::units::Seq { frazil_ondisk::units::Seq(7) }
/// }
/// ```
/// A reservation that outlives its journal, and one returned twice:
/// ```compile_fail,E0505
/// # use frazil_journal::engine::*;
/// fn keep(journal: Journal) {
///     let room = journal.reserve(1, Watermark::Normal, Wait::Forever).unwrap();
///     drop(journal);
///     drop(room);
/// }
/// ```
/// ```compile_fail,E0382
/// # use frazil_journal::engine::*;
/// fn twice(room: Reservation<'_>) {
///     drop(room);
///     drop(room);
/// }
/// ```
/// With the reservation alive it does:
/// ```
/// # use frazil_journal::engine::*; use std::sync::Arc;
/// fn pin<D: Dirty + 'static>(journal: &Journal, pin: &Pin, owner: &Arc<D>) {
///     let room = journal.reserve(1, Watermark::Normal, Wait::Forever).unwrap();
///     pin.set(&room, owner);
///     drop(room);
/// }
/// ```
#[derive(Debug)]
pub struct Pin {
    journal: Arc<Journal>,
    key: u32,
    /// Copy of the FIFO's idea, for the owner's quick look. Moves in one store, never through 0 (race R4).
    seq: AtomicU64,
}

impl Pin {
    /// An inactive pin of `class`; `tag` is passed to the owner's [`Dirty::flush`], to tell several pins of one owner apart.
    pub fn new(journal: &Arc<Journal>, class: PinClass, tag: u64) -> Self {
        Self { journal: journal.clone(), key: journal.core.pins.register(class, tag), seq: AtomicU64::new(0) }
    }

    /// The number pinned.
    pub fn seq(&self) -> Option<Seq> {
        match self.seq.load(Ordering::Acquire) {
            0 => None,
            seq => Some(Seq(seq)),
        }
    }

    /// Whether anything is pinned.
    pub fn is_active(&self) -> bool {
        self.seq().is_some()
    }

    /// Pins the number `under` protects, instead of what was pinned before. `owner` is asked to write back when reclaim wants
    /// the number free.
    pub fn set<D: Dirty + 'static>(&self, under: &impl Protects, owner: &Arc<D>) {
        self.place(under.protected_seq(), owner);
    }

    /// Pins unless an older (or the same) number already is: the normal case for new dirt.
    #[inline]
    pub fn add<D: Dirty + 'static>(&self, under: &impl Protects, owner: &Arc<D>) {
        let seq = under.protected_seq();
        if self.seq().is_none_or(|own| own > seq) {
            self.place(seq, owner);
        }
    }

    /// Pins unless a newer (or the same) number already is: only for an owner that knows everything older to be written.
    pub fn update<D: Dirty + 'static>(&self, under: &impl Protects, owner: &Arc<D>) {
        let seq = under.protected_seq();
        if self.seq().is_none_or(|own| own < seq) {
            self.place(seq, owner);
        }
    }

    /// Pins what `source` pins, unless that is inactive, or not older than what this one pins already (I23, race R2: never
    /// forward). The source may be dropped by its owner at the same time: then there is nothing left to protect.
    pub fn copy<D: Dirty + 'static>(&self, source: &Pin, owner: &Arc<D>) {
        let owner: Weak<dyn Dirty> = Arc::<D>::downgrade(owner) as Weak<dyn Dirty>;
        let moved = self.journal.core.pins.copy(self.key, &self.seq, source.key, owner);
        self.journal.pin_changed(moved);
    }

    /// Permission to pin `seq`, which this pin keeps in the FIFO: for keys handed over from a cache to a leaf.
    ///
    /// # Panics
    /// If this pin is inactive or newer than `seq`.
    pub fn covering(&self, seq: Seq) -> Covered<'_> {
        let own = self.seq();
        assert!(own.is_some_and(|own| own <= seq), "I22: a pin at {own:?} does not cover entry {seq}");
        Covered { seq, _pin: self }
    }

    /// Pins nothing any more: what it protected is durable elsewhere.
    pub fn release(&self) {
        if self.is_active() {
            let moved = self.journal.core.pins.drop_pin(self.key, &self.seq);
            self.journal.pin_changed(moved);
        }
    }

    /// Waits until reclaim is not in the middle of flushing this pin.
    pub fn wait_not_flushing(&self) {
        self.journal.core.pins.wait_not_flushing(self.key);
    }

    fn place<D: Dirty + 'static>(&self, seq: Seq, owner: &Arc<D>) {
        let owner: Weak<dyn Dirty> = Arc::<D>::downgrade(owner) as Weak<dyn Dirty>;
        let moved = self.journal.core.pins.set(self.key, &self.seq, seq.0, owner);
        self.journal.pin_changed(moved);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let moved = self.journal.core.pins.unregister(self.key);
        self.journal.pin_changed(moved);
    }
}

impl Journal {
    /// Permission to pin an entry that is being replayed.
    ///
    /// # Panics
    /// If replay has passed it ([`Journal::replayed`]).
    pub fn replay_hold(&self, seq: Seq) -> ReplayHold<'_> {
        let first = self.core.pins.first_unreplayed();
        assert!(first.is_some_and(|first| first <= seq.0), "entry {seq} is not held for replay: {first:?}");
        ReplayHold { seq, _journal: self }
    }

    /// Replay has passed everything up to `seq`: only pins hold those entries now. Takes the permissions given for them.
    pub fn replayed(&self, seq: Seq) {
        let moved = self.core.pins.put_replayed(seq.0);
        let mut st = self.lock();
        let _ = moved;
        self.update_space(&mut st);
        self.leave(st);
    }
}
