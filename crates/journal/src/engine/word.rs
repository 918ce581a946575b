//! The reservation word: one atomic that hands out space in the open entry.
//!
//! ```text
//!  63                      26 25      24      23                    0
//! +--------------------------+---------+-------+---------------------+
//! | seq, low 38 bits         | blocked | press | room                |
//! +--------------------------+---------+-------+---------------------+
//! ```
//!
//! * **room** 0 = error (terminal), 1 = closed, otherwise an entry is open and `room − 2` words of it are left.
//! * **press** ("under pressure"): only reclaim and interior updates may reserve (spec 20 §9.3).
//! * **blocked**: nobody may reserve, open entry or not (spec 20 §9.8).
//! * **seq** of the newest entry opened.
//!
//! Why it is not the reference's word (spec 20 §9.1). That one counts *up* to a limit kept outside of the word, so a thread can
//! compare against the limit of one entry and swap on another one (spec 20 §12, "a stale limit"). Counting down
//! what is left needs no limit: everything that decides a reservation is inside the word it swaps, watermark and block
//! included. And that one also counts the references on each of four buffers, which makes every *return* of a
//! reservation fight for the same cache line. Here returns go to split counters of the buffer
//! ([`super::slots`]): measured on two cores, reserve and return from two threads cost half, and no count can overflow.
//!
//! Memory order: opening publishes with release (buffer and limit were written before), a successful reservation acquires.

use crate::sync::{AtomicU64, Ordering};

const ROOM_BITS: u32 = 24;
const ROOM_MASK: u64 = (1 << ROOM_BITS) - 1;
const PRESSURE: u64 = 1 << ROOM_BITS;
const BLOCKED: u64 = 1 << (ROOM_BITS + 1);
const SEQ_SHIFT: u32 = ROOM_BITS + 2;
const ROOM_ERROR: u64 = 0;
const ROOM_CLOSED: u64 = 1;
const ROOM_OPEN: u64 = 2;

/// Words an entry may have at most: 4 MiB, the largest entry a reader accepts (spec 20 §2.3), far below what the field holds.
pub(crate) const ENTRY_WORDS_MAX: u32 = (4 << 20) / 8;
const _: () = assert!((ENTRY_WORDS_MAX as u64) + ROOM_OPEN <= ROOM_MASK);

/// Bits of a sequence number that the word carries; enough to tell any two entries alive at one time apart.
const SEQ_MASK: u64 = u64::MAX >> SEQ_SHIFT;

/// The reservation word.
#[derive(Debug)]
pub(crate) struct Word(AtomicU64);

/// What the word says at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct View(u64);

/// A share of the open entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Low bits of the entry's sequence number; its residue names the buffer.
    pub seq_low: u64,
    /// Words of the entry left before this grant was cut off; `limit − room_before` is where it starts.
    pub room_before: u32,
}

/// Why a reservation was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No entry is open.
    Closed,
    /// The open entry has less room than asked for.
    Full,
    /// Reservations are blocked.
    Blocked,
    /// Only reclaim and above may reserve.
    Pressure,
    /// The journal has stopped for good.
    Halted,
}

impl View {
    fn room(self) -> u64 {
        self.0 & ROOM_MASK
    }

    /// Whether an entry is open.
    pub(crate) fn is_open(self) -> bool {
        self.room() >= ROOM_OPEN
    }

    /// Whether the journal has stopped.
    pub(crate) fn is_halted(self) -> bool {
        self.room() == ROOM_ERROR
    }

    /// Whether only reclaim may reserve.
    pub(crate) fn under_pressure(self) -> bool {
        self.0 & PRESSURE != 0
    }

    /// Whether reservations are blocked.
    pub(crate) fn is_blocked(self) -> bool {
        self.0 & BLOCKED != 0
    }

    /// Words left in the open entry, `None` when none is open.
    pub(crate) fn words_left(self) -> Option<u32> {
        self.is_open().then(|| (self.room() - ROOM_OPEN) as u32)
    }

    /// Low bits of the newest entry's sequence number.
    pub(crate) fn seq_low(self) -> u64 {
        self.0 >> SEQ_SHIFT
    }

    fn refusal(self, words: u32, privileged: bool) -> Option<Refusal> {
        match self.room() {
            ROOM_ERROR => Some(Refusal::Halted),
            _ if self.is_blocked() => Some(Refusal::Blocked),
            _ if self.under_pressure() && !privileged => Some(Refusal::Pressure),
            ROOM_CLOSED => Some(Refusal::Closed),
            room if room - ROOM_OPEN < u64::from(words) => Some(Refusal::Full),
            _ => None,
        }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.room() {
            ROOM_ERROR => "error".to_owned(),
            ROOM_CLOSED => "closed".to_owned(),
            room => format!("open, {} words left", room - ROOM_OPEN),
        };
        write!(f, "seq …{} {state}", self.seq_low())?;
        f.write_str(if self.under_pressure() { ", under pressure" } else { "" })?;
        f.write_str(if self.is_blocked() { ", blocked" } else { "" })
    }
}

/// Low bits of `seq` as the word carries them.
pub(crate) fn seq_low(seq: u64) -> u64 {
    seq & SEQ_MASK
}

impl Word {
    /// No entry open; `seq` is the number before the first one.
    pub(crate) fn new(seq: u64) -> Self {
        Self(AtomicU64::new((seq_low(seq) << SEQ_SHIFT) | ROOM_CLOSED))
    }

    /// What the word says now.
    pub(crate) fn view(&self) -> View {
        View(self.0.load(Ordering::Acquire))
    }

    /// Takes `words` words of the open entry, lock-free. `privileged` callers (watermark reclaim and above) pass under pressure.
    pub(crate) fn reserve(&self, words: u32, privileged: bool) -> Result<Grant, Refusal> {
        debug_assert!(words > 0);
        let mut now = View(self.0.load(Ordering::Relaxed));
        loop {
            if let Some(refusal) = now.refusal(words, privileged) {
                return Err(refusal);
            }
            // The room is at least `words` + ROOM_OPEN, so the subtraction stays inside its field.
            match self.0.compare_exchange_weak(
                now.0,
                now.0 - u64::from(words),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    let room_before = (now.room() - ROOM_OPEN) as u32;
                    return Ok(Grant { seq_low: now.seq_low(), room_before });
                }
                Err(other) => now = View(other),
            }
        }
    }

    /// Whether a reservation would be granted now; takes nothing.
    pub(crate) fn would_grant(&self, words: u32, privileged: bool) -> Result<(), Refusal> {
        self.view().refusal(words, privileged).map_or(Ok(()), Err)
    }

    /// Opens entry `seq` with room for `words` words. Under the journal lock, while no entry is open.
    ///
    /// # Panics
    /// If an entry is open, the journal is halted, or the entry is larger than allowed.
    pub(crate) fn open(&self, seq: u64, words: u32) {
        assert!(words <= ENTRY_WORDS_MAX, "an entry of {words} words");
        let new = (seq_low(seq) << SEQ_SHIFT) | (u64::from(words) + ROOM_OPEN);
        let old = self.update(|v| v & (PRESSURE | BLOCKED) | new);
        assert!(old.room() == ROOM_CLOSED, "opening entry {seq} over {old:?}");
    }

    /// Closes the open entry and returns how many words were left; `None` when none was open. Under the journal lock.
    pub(crate) fn close(&self) -> Option<u32> {
        self.settle(ROOM_CLOSED)
    }

    /// Stops the journal for good; returns like [`Word::close`].
    pub(crate) fn halt(&self) -> Option<u32> {
        self.settle(ROOM_ERROR)
    }

    fn settle(&self, room: u64) -> Option<u32> {
        // An error value is never replaced (spec 20 §9.6).
        self.update(|v| if v & ROOM_MASK == ROOM_ERROR { v } else { v & !ROOM_MASK | room }).words_left()
    }

    /// Raises or lowers the watermark (spec 20 §9.3).
    pub(crate) fn set_pressure(&self, on: bool) {
        self.update(|v| if on { v | PRESSURE } else { v & !PRESSURE });
    }

    /// Blocks or unblocks reservations.
    pub(crate) fn set_blocked(&self, on: bool) {
        self.update(|v| if on { v | BLOCKED } else { v & !BLOCKED });
    }

    fn update(&self, change: impl Fn(u64) -> u64) -> View {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            match self.0.compare_exchange_weak(now, change(now), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(old) => return View(old),
                Err(other) => now = other,
            }
        }
    }
}
