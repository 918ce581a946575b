//! What a transaction has looked at.
//!
//! Planning takes no locks: a transaction reads, decides, and when it commits, asks whether what it read is still true. So
//! its cursors note for each node they enter the number of its last change and the range of positions looked at in it, absent keys
//! included. A change outside that range does not disturb ([`NodeCell::changed_within`]).

use std::cell::RefCell;
use std::sync::Arc;

use frazil_ondisk::{Bpos, BtreeId};

use crate::cell::NodeCell;
use crate::trees::Btrees;

/// What was looked at.
#[derive(Default)]
pub(crate) struct Reads(RefCell<Vec<Read>>);

/// A part of a leaf that was looked at.
struct Read {
    btree: BtreeId,
    /// `None`: the b-tree had no nodes.
    cell: Option<Arc<NodeCell>>,
    change: u64,
    min: Bpos,
    max: Bpos,
}

/// One of the parts, to be extended.
#[derive(Clone, Copy)]
pub(crate) struct ReadId(usize);

impl Reads {
    /// Looks at `min..=max` of a leaf as of change number `change`.
    pub(crate) fn add(
        &self,
        btree: BtreeId,
        cell: Option<Arc<NodeCell>>,
        change: u64,
        (min, max): (Bpos, Bpos),
    ) -> ReadId {
        let mut reads = self.0.borrow_mut();
        reads.push(Read { btree, cell, change, min, max });
        ReadId(reads.len() - 1)
    }

    /// Looks on, up to `pos` in either direction.
    #[inline]
    pub(crate) fn extend(&self, id: ReadId, pos: Bpos) {
        let read = &mut self.0.borrow_mut()[id.0];
        read.min = read.min.min(pos);
        read.max = read.max.max(pos);
    }

    /// Whether all of it is as it was. Under the commit lock.
    pub(crate) fn still_true(&self, trees: &Btrees) -> bool {
        self.0.borrow().iter().all(|read| match &read.cell {
            None => trees.slot(read.btree).is_none(),
            Some(cell) => !cell.changed_within(read.change, read.min, read.max),
        })
    }
}
