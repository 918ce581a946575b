//! A commit under construction, as the triggers see it: the trees as they are, and what the commit is about to change in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::hooks::{Blocked, Change, Stage};
use crate::cell::NodeCell;
use crate::trees::Btrees;
use crate::view::MergedView;

/// Changes of leaves and of pointers, in the order of b-tree, level (the higher first), and position.
pub(crate) type Changes = BTreeMap<(BtreeId, std::cmp::Reverse<u8>, Bpos), KeyBuf>;

/// What a commit consists of so far.
pub(crate) struct Draft<'e> {
    trees: &'e Btrees,
    /// What was asked for, and what was derived from it.
    changes: Changes,
    /// In the order they came.
    buffered: Vec<(BtreeId, KeyBuf)>,
    accounted: Vec<(AccountingPos, [i64; 3])>,
}

/// Changes, buffered keys, counters.
type Parts = (Changes, Vec<(BtreeId, KeyBuf)>, Vec<(AccountingPos, [i64; 3])>);

/// A leaf as a commit finds it; `None` if the b-tree has no nodes.
pub(crate) type Leaf = Option<Arc<NodeCell>>;

/// The leaf that covers `pos`, if it is in memory.
pub(crate) fn leaf(trees: &Btrees, btree: BtreeId, pos: Bpos) -> Result<Leaf, Blocked> {
    match trees.descend_in_memory(btree, pos, 0)? {
        Some(place) => Ok(place.cell),
        None => Err(Blocked::Absent { btree, pos }),
    }
}

impl<'e> Draft<'e> {
    pub(crate) fn new(trees: &'e Btrees, changes: Changes) -> Self {
        Self { trees, changes, buffered: Vec::new(), accounted: Vec::new() }
    }

    pub(crate) fn into_parts(self) -> Parts {
        (self.changes, self.buffered, self.accounted)
    }

    fn staged(&self, btree: BtreeId, pos: Bpos) -> Option<&KeyBuf> {
        self.changes.get(&(btree, std::cmp::Reverse(0), pos))
    }

    /// The keys staged within a range, `deleted` ones included.
    fn staged_within(
        &self,
        btree: BtreeId,
        from: Bpos,
        to: Bpos,
    ) -> impl DoubleEndedIterator<Item = &KeyBuf> {
        let at = |pos| (btree, std::cmp::Reverse(0), pos);
        let range = (from <= to).then(|| self.changes.range(at(from)..=at(to)));
        range.into_iter().flatten().map(|(_, key)| key)
    }

    /// The first key of the trees within a range that is not staged.
    fn first_unstaged(&self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        let mut at = from;
        loop {
            let Some(place) = self.trees.descend_in_memory(btree, at, 0)? else {
                return Err(Blocked::Absent { btree, pos: at });
            };
            let node = place.cell.map(|cell| cell.load());
            let mut view = MergedView::new(node, None, at, to.min(place.span.max));
            while let Some(found) = view.next() {
                if self.staged(btree, view.pos(found)).is_none() {
                    return Ok(Some(view.key(found).to_owned()));
                }
            }
            match place.span.max.successor() {
                Some(behind) if behind <= to => at = behind,
                _ => return Ok(None),
            }
        }
    }

    /// The last key of the trees within a range that is not staged.
    fn last_unstaged(&self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        let mut at = to;
        loop {
            let Some(place) = self.trees.descend_in_memory(btree, at, 0)? else {
                return Err(Blocked::Absent { btree, pos: at });
            };
            let node = place.cell.map(|cell| cell.load());
            let mut view = MergedView::new(node, None, from.max(place.span.min), at);
            view.seek_end();
            while let Some(found) = view.prev() {
                if self.staged(btree, view.pos(found)).is_none() {
                    return Ok(Some(view.key(found).to_owned()));
                }
            }
            match place.span.min.predecessor() {
                Some(before) if before >= from => at = before,
                _ => return Ok(None),
            }
        }
    }
}

fn is_live(key: &&KeyBuf) -> bool {
    key.k.ty != KeyType::DELETED
}

impl Stage for Draft<'_> {
    fn get(&mut self, btree: BtreeId, pos: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        if let Some(key) = self.staged(btree, pos) {
            return Ok(Some(key).filter(is_live).cloned());
        }
        let Some(cell) = leaf(self.trees, btree, pos)? else { return Ok(None) };
        Ok(cell.load().get(pos).map(|key| key.to_owned()))
    }

    fn first(&mut self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        let unstaged = self.first_unstaged(btree, from, to)?;
        let staged = self.staged_within(btree, from, to).find(is_live);
        Ok(match (staged, unstaged) {
            (Some(a), Some(b)) if a.k.pos < b.k.pos => Some(a.clone()),
            (_, Some(b)) => Some(b),
            (a, None) => a.cloned(),
        })
    }

    fn last(&mut self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked> {
        let unstaged = self.last_unstaged(btree, from, to)?;
        let staged = self.staged_within(btree, from, to).rev().find(is_live);
        Ok(match (staged, unstaged) {
            (Some(a), Some(b)) if a.k.pos > b.k.pos => Some(a.clone()),
            (_, Some(b)) => Some(b),
            (a, None) => a.cloned(),
        })
    }

    fn update(&mut self, btree: BtreeId, key: KeyBuf) {
        self.changes.insert((btree, std::cmp::Reverse(0), key.k.pos), key);
    }

    fn buffer(&mut self, btree: BtreeId, key: KeyBuf) {
        self.buffered.push((btree, key));
    }

    fn account(&mut self, pos: AccountingPos, counters: [i64; 3]) {
        match self.accounted.iter_mut().find(|(other, _)| *other == pos) {
            Some((_, sum)) => sum.iter_mut().zip(counters).for_each(|(sum, c)| *sum += c),
            None => self.accounted.push((pos, counters)),
        }
    }

    fn accounted(&self) -> &[(AccountingPos, [i64; 3])] {
        &self.accounted
    }
}

/// A change, and the leaf it belongs to (`None` for pointers, whose nodes the commit finds itself).
pub(crate) struct Placed {
    pub(crate) change: Change,
    pub(crate) leaf: Leaf,
}

/// Looks up what each change replaces. Changes that change nothing fall away.
pub(crate) fn place(trees: &Btrees, changes: &Changes) -> Result<Vec<Placed>, Blocked> {
    let mut placed = Vec::with_capacity(changes.len());
    for (&(btree, level, pos), new) in changes {
        let (old, leaf) = match level.0 {
            0 => {
                let leaf = leaf(trees, btree, pos)?;
                (leaf.as_ref().and_then(|cell| cell.load().get(pos).map(|key| key.to_owned())), leaf)
            }
            level => (pointer(trees, btree, level, pos)?, None),
        };
        if old.is_some() || new.k.ty != KeyType::DELETED {
            let change = Change { btree, level: level.0, old, new: new.clone() };
            placed.push(Placed { change, leaf });
        }
    }
    Ok(placed)
}

/// The pointer at `pos` to a node one level below `level`: a key of the parent, or the root's.
pub(crate) fn pointer(
    trees: &Btrees,
    btree: BtreeId,
    level: u8,
    pos: Bpos,
) -> Result<Option<KeyBuf>, Blocked> {
    if let Some(crate::trees::Root::At { level: top, key }) = trees.root(btree)
        && top + 1 == level
    {
        return Ok((key.k.pos == pos).then_some(key));
    }
    match trees.descend_in_memory(btree, pos, level)? {
        Some(place) => Ok(place.cell.and_then(|cell| cell.load().get(pos).map(|key| key.to_owned()))),
        None => Err(Blocked::Absent { btree, pos }),
    }
}
