//! Numbers of new inodes (spec 40 §3.1).
//!
//! A number is free if no snapshot has a key under it, not even what a deleted inode leaves behind. The search goes on from the last number that
//! was given out, so it usually looks at one place. It begins behind the highest number in use, because below it there may be millions to be
//! stepped over; only when the range is used up it starts over from the bottom.
//!
//! The reference cuts the range into one part per processor, so that these do not meet in one leaf. Here commits meet anyway, and one part
//! keeps the inodes of files made together together.

use frazil_btree::Btrees;
use frazil_ondisk::units::Inum;
use frazil_ondisk::{Bpos, BtreeId};
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Gives out numbers.
pub(crate) struct Numbers {
    /// One behind the largest number.
    end: u64,
    /// Where to look next; `None` before the first.
    next: Mutex<Option<u64>>,
}

/// The keys under a number, in all snapshots.
pub(crate) fn versions(inum: Inum) -> std::ops::RangeInclusive<Bpos> {
    Bpos::new(0, inum.0, 0)..=Bpos::new(0, inum.0, u32::MAX)
}

impl Numbers {
    /// For a volume whose numbers have 31 bits, or 63.
    pub(crate) fn new(short: bool) -> Numbers {
        Numbers { end: if short { 1 << 31 } else { 1 << 63 }, next: Mutex::default() }
    }

    /// A number that is free in the trees, and that nobody else gets soon. Who uses it makes sure in its transaction.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if there is none.
    pub(crate) fn next(&self, trees: &Btrees) -> Result<Inum> {
        let mut next = self.next.lock();
        let from = match *next {
            Some(from) => from,
            None => self.behind_last(trees)?,
        };
        let found = match self.first_free(trees, from)? {
            Some(found) => found,
            None => self.first_free(trees, Inum::ROOT.0)?.ok_or(Error::NoSpace)?,
        };
        *next = Some(found + 1);
        Ok(Inum(found))
    }

    fn behind_last(&self, trees: &Btrees) -> Result<u64> {
        let mut cursor =
            trees.cursor(BtreeId::INODES, Bpos::new(0, Inum::ROOT.0, 0)..Bpos::new(0, self.end, 0));
        cursor.seek_end();
        Ok(cursor.prev()?.map_or(Inum::ROOT.0, |key| key.k.pos.offset + 1))
    }

    /// The first number at or behind `from` without a key; `None` if there is none before the end of the range.
    fn first_free(&self, trees: &Btrees, from: u64) -> Result<Option<u64>> {
        let mut cursor = trees.cursor(BtreeId::INODES, Bpos::new(0, from, 0)..Bpos::new(0, self.end, 0));
        let mut candidate = from;
        while let Some(key) = cursor.next()? {
            if key.k.pos.offset > candidate {
                break;
            }
            candidate = key.k.pos.offset + 1;
        }
        Ok((candidate < self.end).then_some(candidate))
    }
}
