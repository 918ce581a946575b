//! The reservation word: one atomic that hands out space in the open entry.
//!
//! ```text
//!  63                           34 33                              0
//! +-------------------------------+--------------------------------+
//! | room, signed: words left      | seq, low 34 bits               |
//! +-------------------------------+--------------------------------+
//! ```
//!
//! * **room ≥ 0**: an entry is open and so many words of it are left. **room < 0**: nothing can be had.
//! * **seq** of the newest entry opened; its residue names the buffer.
//!
//! A reservation is *one* atomic subtraction of the words wanted, without looking first. What was there before decides:
//!
//! * at least as much as wanted: granted;
//! * less, but not negative: the entry is exhausted, and this thread is the only one that saw it happen. What was left is its own
//!   now, of no use, and it returns it at once as padding; so "all words of the entry were granted" holds without anybody having to ask
//!   this thread how much it took;
//! * negative: somebody else was first, or no entry is open. The subtraction is taken back, unless an entry was opened
//!   meanwhile, which forgot it.
//!
//! Closing subtracts a large bias, so that subtractions under way stay harmless and can still be taken back.
//!
//! Why it is not the reference's word (spec 20 §9.1). That one counts *up* to a limit outside of the word, so a thread can
//! compare against the limit of one entry and swap on another one (spec 20 §12, "a stale limit"); counting down needs no limit. It
//! must look before it swaps, and it counts the references on each of four buffers, so a reservation and its return move the word's cache line
//! four times between two threads; here it is once, and returns go to split counters of the buffer ([`super::slots`]). Measured on two cores with
//! nothing else in the loop: 28 ns against 11 ns per reservation and return, and no count can overflow.
//!
//! Watermark, block and halt are a second word that hardly ever changes, so looking at it is free. They are advice on the fast
//! path: what must be exact — that nobody gets in any more — is done by closing.
//!
//! Memory order: opening publishes with release (buffer and limit were written before), a successful reservation acquires.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

const SEQ_BITS: u32 = 34;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;
const ROOM_BITS: u32 = 64 - SEQ_BITS;

/// Words an entry may have at most: 4 MiB, the largest entry a reader accepts (spec 20 §2.3).
pub(crate) const ENTRY_WORDS_MAX: u32 = (4 << 20) / 8;
/// Requests up to here subtract first and ask later. With larger ones a crowd of losers could make the room wrap around; they look
/// first instead, and are rare.
const BLIND_WORDS_MAX: u32 = 4096;
/// What closing subtracts: more than any entry has.
const CLOSED_BIAS: i64 = 1 << (ROOM_BITS - 2);
/// Threads that may be subtracting blindly at one moment before the field could wrap.
const BLIND_THREADS_MAX: i64 = CLOSED_BIAS / BLIND_WORDS_MAX as i64;
const _: () = assert!(CLOSED_BIAS > ENTRY_WORDS_MAX as i64 && BLIND_THREADS_MAX >= 65536);

const PRESSURE: u32 = 1;
const BLOCKED: u32 = 2;
const HALTED: u32 = 4;

/// The word, alone on its cache lines.
#[repr(align(128))]
#[derive(Debug)]
struct Padded(AtomicU64);

/// The reservation word, and the gate in front of it.
#[derive(Debug)]
pub(crate) struct Word {
    word: Padded,
    gate: AtomicU32,
}

/// What the word says at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    word: u64,
    gate: u32,
}

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
    /// No entry is open, or the open one is exhausted.
    Closed,
    /// The open entry has less room than asked for, and keeps it.
    Full,
    /// This request exhausted the open entry: the caller got its last words, too few to use, and has to return them.
    Exhausted(Grant),
    /// Reservations are blocked.
    Blocked,
    /// Only reclaim and above may reserve.
    Pressure,
    /// The journal has stopped for good.
    Halted,
}

fn room(word: u64) -> i64 {
    word as i64 >> SEQ_BITS
}

fn words_of(words: i64) -> u64 {
    (words << SEQ_BITS) as u64
}

/// Low bits of `seq` as the word carries them.
pub(crate) fn seq_low(seq: u64) -> u64 {
    seq & SEQ_MASK
}

impl View {
    /// Words left in the open entry, `None` when none is open.
    pub(crate) fn words_left(self) -> Option<u32> {
        u32::try_from(room(self.word)).ok()
    }

    /// Whether the journal has stopped.
    pub(crate) fn is_halted(self) -> bool {
        self.gate & HALTED != 0
    }

    /// Whether only reclaim may reserve.
    pub(crate) fn under_pressure(self) -> bool {
        self.gate & PRESSURE != 0
    }

    /// Whether reservations are blocked.
    pub(crate) fn is_blocked(self) -> bool {
        self.gate & BLOCKED != 0
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seq …{} ", seq_low(self.word))?;
        match self.words_left() {
            Some(left) => write!(f, "open, {left} words left"),
            None if room(self.word) > -CLOSED_BIAS / 2 => f.write_str("exhausted"),
            None => f.write_str("closed"),
        }?;
        let mut flag = |on, text| f.write_str(if on { text } else { "" });
        flag(self.under_pressure(), ", under pressure")?;
        flag(self.is_blocked(), ", blocked")?;
        flag(self.is_halted(), ", halted")
    }
}

/// Whether the gate lets a request through.
fn refused_by(gate: u32, privileged: bool) -> Option<Refusal> {
    match gate {
        0 => None,
        g if g & HALTED != 0 => Some(Refusal::Halted),
        g if g & BLOCKED != 0 => Some(Refusal::Blocked),
        _ if privileged => None,
        _ => Some(Refusal::Pressure),
    }
}

impl Word {
    /// No entry open; `seq` is the number before the first one.
    pub(crate) fn new(seq: u64) -> Self {
        let word = words_of(-CLOSED_BIAS) | seq_low(seq);
        Self { word: Padded(AtomicU64::new(word)), gate: AtomicU32::new(0) }
    }

    /// What the word says now.
    pub(crate) fn view(&self) -> View {
        View { word: self.word.0.load(Ordering::Acquire), gate: self.gate.load(Ordering::Acquire) }
    }

    /// Takes `words` words of the open entry, lock-free. `privileged` callers (watermark reclaim and above) pass under pressure.
    #[inline]
    pub(crate) fn reserve(&self, words: u32, privileged: bool) -> Result<Grant, Refusal> {
        debug_assert!(words > 0);
        if let Some(refusal) = refused_by(self.gate.load(Ordering::Relaxed), privileged) {
            return Err(refusal);
        }
        if words > BLIND_WORDS_MAX {
            return self.reserve_looking(words);
        }
        let before = self.word.0.fetch_sub(words_of(words.into()), Ordering::Acquire);
        let left = room(before);
        let grant = Grant { seq_low: seq_low(before), room_before: left as u32 };
        if left >= i64::from(words) {
            return Ok(grant);
        }
        if left >= 0 {
            return Err(Refusal::Exhausted(grant));
        }
        self.take_back(words, seq_low(before));
        Err(Refusal::Closed)
    }

    /// Undoes a subtraction that found nothing, unless the entry that was opened meanwhile has forgotten it.
    #[cold]
    fn take_back(&self, words: u32, seq: u64) {
        let mut now = self.word.0.load(Ordering::Relaxed);
        while seq_low(now) == seq {
            debug_assert!(room(now) < 0, "no entry opens twice");
            let back = now.wrapping_add(words_of(words.into()));
            match self.word.0.compare_exchange_weak(now, back, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Takes words only if they are there.
    fn reserve_looking(&self, words: u32) -> Result<Grant, Refusal> {
        let mut now = self.word.0.load(Ordering::Relaxed);
        loop {
            let left = room(now);
            if left < i64::from(words) {
                return Err(if left < 0 { Refusal::Closed } else { Refusal::Full });
            }
            let new = now.wrapping_sub(words_of(words.into()));
            match self.word.0.compare_exchange_weak(now, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(Grant { seq_low: seq_low(now), room_before: left as u32 }),
                Err(other) => now = other,
            }
        }
    }

    /// Whether a reservation would be granted now; takes nothing.
    pub(crate) fn would_grant(&self, words: u32, privileged: bool) -> Result<(), Refusal> {
        let view = self.view();
        match refused_by(view.gate, privileged) {
            Some(refusal) => Err(refusal),
            None => match view.words_left() {
                None => Err(Refusal::Closed),
                Some(left) if left < words => Err(Refusal::Full),
                Some(_) => Ok(()),
            },
        }
    }

    /// Opens entry `seq` with room for `words` words. Under the journal lock, while no entry is open.
    ///
    /// # Panics
    /// If an entry is open or was just exhausted and not closed, or the entry is larger than allowed.
    pub(crate) fn open(&self, seq: u64, words: u32) {
        assert!(words <= ENTRY_WORDS_MAX, "an entry of {words} words");
        let new = words_of(words.into()) | seq_low(seq);
        let old = self.word.0.swap(new, Ordering::AcqRel);
        let after = room(old);
        assert!(after < -CLOSED_BIAS / 2, "opening entry {seq} with {after} words left in the one before");
    }

    /// Closes the open entry and returns how many words nobody was granted. Under the journal lock, once per entry.
    pub(crate) fn close(&self) -> u32 {
        let before = self.word.0.fetch_sub(words_of(CLOSED_BIAS), Ordering::AcqRel);
        // Exhausted: whoever did that was granted the rest.
        room(before).max(0) as u32
    }

    /// Nobody gets through any more, for good.
    pub(crate) fn halt(&self) {
        self.gate.fetch_or(HALTED, Ordering::AcqRel);
    }

    /// Raises or lowers the watermark (spec 20 §9.3).
    pub(crate) fn set_pressure(&self, on: bool) {
        self.set_gate(PRESSURE, on);
    }

    /// Blocks or unblocks reservations.
    pub(crate) fn set_blocked(&self, on: bool) {
        self.set_gate(BLOCKED, on);
    }

    fn set_gate(&self, flag: u32, on: bool) {
        if on {
            self.gate.fetch_or(flag, Ordering::AcqRel);
        } else {
            self.gate.fetch_and(!flag, Ordering::AcqRel);
        }
    }
}
