//! A gate: who changes something passes it, and whoever closes it waits until nobody is inside.
//!
//! Passing an open gate is one atomic addition, leaving it another. One bit says that it is closed; who meets it goes back and asks the
//! machine whether to wait or to give up. Whoever passed before the bit was set is counted, so "closed, and nobody inside" is final until
//! it is opened (spec 70 §7.3 steps 1 and 4).

use crate::sync::{AtomicU64, Ordering};

/// Set while it is closed.
const CLOSED: u64 = 1 << 63;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU64);

impl Gate {
    /// Passes it. False if it is closed; then nobody has passed, and if `true` comes back from [`Gate::leave`], somebody has to be told.
    pub(super) fn enter(&self) -> bool {
        self.0.fetch_add(1, Ordering::Acquire) & CLOSED == 0
    }

    /// Leaves it, or goes back from a closed one. True if it is closed and nobody is inside any more.
    #[must_use]
    pub(super) fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1
    }

    pub(super) fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    pub(super) fn open(&self) {
        self.0.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// How many are inside, those included who are about to find it closed.
    pub(super) fn inside(&self) -> u64 {
        self.0.load(Ordering::Acquire) & !CLOSED
    }
}
