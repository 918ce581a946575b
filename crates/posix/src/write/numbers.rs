//! Numbers of new inodes (spec 40 §3.1).
//!
//! A number is free if no snapshot has an inode under it. Numbers whose inode was removed are given out again first: what the removed one
//! left behind says with which generation its number goes on (spec 40 §3.3), and is overwritten. The reference never comes back to a number,
//! so whoever makes and removes files all day fills its b-tree with what they leave. Known are those removed since the volume was opened,
//! and, from before, the last ones behind which nothing lives.
//!
//! When there is none the search goes on from the last new number, for one without any key, so it usually looks at one place. It begins
//! behind the highest number in use, because below it there may be millions to be stepped over; only when the range is used up it starts over
//! from the bottom.
//!
//! The reference cuts the range into one part per processor, so that these do not meet in one leaf. Here commits meet anyway, and one part
//! keeps the inodes of files made together together.

use std::collections::BTreeMap;

use frazil_btree::Btrees;
use frazil_ondisk::units::Inum;
use frazil_ondisk::{Bpos, BtreeId, KeyType};
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Ranges of removed numbers that are remembered at most; others are not given out again before the range of all numbers is used up.
const REMOVED_RANGES_MAX: usize = 1 << 14;

/// Keys looked at, from the end, for numbers removed before the volume was opened.
const LOOKED_BACK_MAX: usize = 10_000;

/// Gives out numbers.
pub(crate) struct Numbers {
    /// One behind the largest number.
    end: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where to look next for a number never used; `None` before the first.
    next: Option<u64>,
    removed: Ranges,
}

/// A number for an object that is being made; it stays the same when the operation is run again. Unless the object was made
/// ([`Draw::keep`]) the number goes back.
pub(crate) struct Draw<'n> {
    numbers: &'n Numbers,
    drawn: Option<Inum>,
}

/// The keys under a number, in all snapshots.
pub(crate) fn versions(inum: Inum) -> std::ops::RangeInclusive<Bpos> {
    Bpos::new(0, inum.0, 0)..=Bpos::new(0, inum.0, u32::MAX)
}

impl Numbers {
    /// For a volume whose numbers have 31 bits, or 63.
    pub(crate) fn new(short: bool) -> Numbers {
        Numbers { end: if short { 1 << 31 } else { 1 << 63 }, state: Mutex::default() }
    }

    /// For an object that is to be made.
    pub(crate) fn draw(&self) -> Draw<'_> {
        Draw { numbers: self, drawn: None }
    }

    /// An inode was removed, and nobody holds it.
    pub(crate) fn removed(&self, inum: Inum) {
        self.state.lock().removed.insert(inum.0);
    }

    /// A number that is probably free in the trees, and that nobody else gets soon.
    fn next(&self, trees: &Btrees) -> Result<Inum> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let from = match state.next {
            Some(from) => from,
            None => *state.next.insert(self.look_back(trees, &mut state.removed)?),
        };
        if let Some(again) = state.removed.pop_first() {
            return Ok(Inum(again));
        }
        let found = match self.first_free(trees, from)? {
            Some(found) => found,
            None => self.first_free(trees, Inum::ROOT.0)?.ok_or(Error::NoSpace)?,
        };
        state.next = Some(found + 1);
        Ok(Inum(found))
    }

    /// The number behind the last that has a key. Those removed before it, with nothing that lives between, are free.
    fn look_back(&self, trees: &Btrees, removed: &mut Ranges) -> Result<u64> {
        let mut cursor =
            trees.cursor(BtreeId::INODES, Bpos::new(0, Inum::ROOT.0, 0)..Bpos::new(0, self.end, 0));
        cursor.seek_end();
        let mut behind = None;
        for _ in 0..LOOKED_BACK_MAX {
            let Some(key) = cursor.prev()? else { break };
            behind.get_or_insert(key.k.pos.offset + 1);
            if key.k.ty != KeyType::INODE_GENERATION {
                break;
            }
            removed.insert(key.k.pos.offset);
        }
        Ok(behind.unwrap_or(Inum::ROOT.0))
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

impl Draw<'_> {
    /// The number. Who uses it makes sure in its transaction that it is free.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if there is none.
    pub(crate) fn number(&mut self, trees: &Btrees) -> Result<Inum> {
        match self.drawn {
            Some(inum) => Ok(inum),
            None => Ok(*self.drawn.insert(self.numbers.next(trees)?)),
        }
    }

    /// The number is not free: the next one is to be another.
    pub(crate) fn reject(&mut self) {
        self.drawn = None;
    }

    /// The object was made.
    pub(crate) fn keep(mut self) {
        self.drawn = None;
    }
}

impl Drop for Draw<'_> {
    fn drop(&mut self) {
        if let Some(unused) = self.drawn {
            self.numbers.removed(unused);
        }
    }
}

/// A set of numbers as ranges that do not touch: first number to one behind the last.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, number: u64) {
        let before = self.0.range(..=number).next_back().map(|(&first, &end)| (first, end));
        let (first, joined) = match before {
            Some((_, end)) if number < end => return,
            Some((first, end)) if number == end => (first, true),
            _ => (number, false),
        };
        let behind = self.0.remove(&(number + 1));
        if joined || behind.is_some() || self.0.len() < REMOVED_RANGES_MAX {
            self.0.insert(first, behind.unwrap_or(number + 1));
        }
    }

    fn pop_first(&mut self) -> Option<u64> {
        let (first, end) = self.0.pop_first()?;
        if first + 1 < end {
            self.0.insert(first + 1, end);
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ranges_are_a_set() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for _ in 0..20_000 {
            if rng.u8(..) < 130 {
                let number = rng.u64(0..400);
                ranges.insert(number);
                set.insert(number);
            } else {
                assert_eq!(ranges.pop_first(), set.pop_first());
            }
            let ends: Vec<u64> = ranges.0.iter().flat_map(|(&first, &end)| [first, end]).collect();
            assert!(ends.is_sorted_by(|a, b| a < b), "{ends:?}");
        }
        let left: BTreeSet<u64> = ranges.0.iter().flat_map(|(&first, &end)| first..end).collect();
        assert_eq!(left, set);
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let mut ranges = Ranges::default();
        (0..3 * REMOVED_RANGES_MAX as u64).for_each(|i| ranges.insert(i * 2));
        assert_eq!(ranges.0.len(), REMOVED_RANGES_MAX);
        // What joins two ranges always fits.
        ranges.insert(1);
        assert_eq!((ranges.0.len(), ranges.pop_first()), (REMOVED_RANGES_MAX - 1, Some(0)));
    }

    #[test]
    fn a_number_that_was_not_used_goes_back() {
        let numbers = Numbers::new(true);
        numbers.removed(Inum(5000));
        let trees = |numbers: &Numbers| numbers.state.lock().removed.pop_first();
        {
            let mut draw = numbers.draw();
            draw.drawn = trees(&numbers).map(Inum);
            assert_eq!(trees(&numbers), None);
        }
        assert_eq!(trees(&numbers), Some(5000));
        let draw = Draw { numbers: &numbers, drawn: Some(Inum(5000)) };
        draw.keep();
        assert_eq!(trees(&numbers), None);
    }
}
