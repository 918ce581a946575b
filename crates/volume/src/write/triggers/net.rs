//! The net effect of a commit: what its new keys imply, less what the old ones did.
//!
//! A key that is replaced by one with the same pointers implies nothing new; an extent that loses its tail only loses some sectors
//! of one bucket. So everything is added up over the whole commit first, with signs, and what cancels out is never looked at again. That
//! also settles the question of order within a commit: nothing is ever seen in a state between (spec 70 §1.6).

use std::collections::BTreeMap;

use frazil_btree::write::CommitError;
use frazil_ondisk::units::Gen;
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::values::backpointer::Backpointer;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{Bpos, BtreeId, DataType, KeyBuf, KeyType};

use super::inconsistent;
use crate::derive::{self, BucketUse, Implied, Share};
use crate::write::space::Space;

/// See the [module](self).
pub(super) struct Net<'s> {
    space: &'s Space,
    /// By bucket; parts that cancelled out may remain.
    pub(super) buckets: BTreeMap<DevBucket, Vec<Part>>,
    pub(super) backpointers: BTreeMap<Bpos, Backpointers>,
    /// Keys of type `set`: how many more there must be, −1, 0 or 1.
    pub(super) sets: BTreeMap<(BtreeId, Bpos), i32>,
    pub(super) accounts: Accounts,
    /// Ranges of the reflink space that have one reference more, or one less.
    pub(super) referenced: Vec<(u64, u64)>,
    pub(super) released: Vec<(u64, u64)>,
}

/// How many sectors more a bucket holds of one kind.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// In the pointers.
    pub(super) generation: Gen,
    pub(super) share: Share,
    pub(super) class: DataType,
    pub(super) sectors: i64,
}

/// What happens to the backpointer at one position.
#[derive(Default)]
pub(super) struct Backpointers {
    removed: Option<Backpointer>,
    added: Option<Backpointer>,
}

impl Backpointers {
    fn add(&mut self, backpointer: Backpointer) {
        match self.removed == Some(backpointer) {
            true => self.removed = None,
            false => self.added = Some(backpointer),
        }
    }

    fn remove(&mut self, backpointer: Backpointer) {
        match self.added == Some(backpointer) {
            true => self.added = None,
            false => self.removed = Some(backpointer),
        }
    }

    /// What to write: nothing, or the removal (`Some(None)`), or a new one.
    pub(super) fn change(&self) -> Option<Option<Backpointer>> {
        (self.added.is_some() || self.removed.is_some()).then_some(self.added)
    }
}

/// Sums of counters, each position once. There are a few in a commit; a list is faster than a map.
#[derive(Default)]
pub(super) struct Accounts(Vec<(AccountingPos, [i64; 3])>);

impl Accounts {
    /// Adds counters, or takes them back.
    pub(super) fn add(&mut self, what: AccountingPos, by: [i64; 3], sign: i64) {
        let index = self.0.iter().position(|(pos, _)| *pos == what).unwrap_or_else(|| {
            self.0.push((what, [0; 3]));
            self.0.len() - 1
        });
        let sum = &mut self.0[index].1;
        sum.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.wrapping_add(sign.wrapping_mul(by)));
    }

    /// Those that changed.
    pub(super) fn changed(&self) -> impl Iterator<Item = &(AccountingPos, [i64; 3])> {
        self.0.iter().filter(|(_, by)| *by != [0; 3])
    }
}

impl<'s> Net<'s> {
    /// Nothing yet.
    pub(super) fn new(space: &'s Space) -> Net<'s> {
        Net {
            space,
            buckets: BTreeMap::new(),
            backpointers: BTreeMap::new(),
            sets: BTreeMap::new(),
            accounts: Accounts::default(),
            referenced: Vec::new(),
            released: Vec::new(),
        }
    }

    /// A key on `level` is replaced.
    pub(super) fn replace(
        &mut self,
        btree: BtreeId,
        level: u8,
        old: Option<&KeyBuf>,
        new: Option<&KeyBuf>,
    ) -> Result<(), CommitError> {
        if let Some(old) = old {
            self.key(btree, level, old, -1)?;
        }
        if let Some(new) = new {
            self.key(btree, level, new, 1)?;
        }
        Ok(())
    }

    fn key(&mut self, btree: BtreeId, level: u8, key: &KeyBuf, sign: i64) -> Result<(), CommitError> {
        if key.k.ty == KeyType::DELETED {
            return Ok(());
        }
        let space = self.space;
        let mut striped = false;
        derive::of_key(space.rules(), space, btree, level, key.as_key(), &mut |implied| {
            striped |= !self.imply(implied, sign);
        })
        .map_err(|e| inconsistent(format!("{btree} key {}: {e}", key.as_key())))?;
        if striped {
            return Err(inconsistent(format!(
                "{btree} key {}: erasure-coded data cannot be changed",
                key.as_key()
            )));
        }
        Ok(())
    }

    /// Adds one fact; `false` if it is about a stripe, which is not written.
    fn imply(&mut self, implied: Implied, sign: i64) -> bool {
        match implied {
            Implied::Use(BucketUse { share: Share::Stripe, .. })
            | Implied::StripeBlock { .. }
            | Implied::StripeUse { .. } => return false,
            Implied::Use(part) => self.bucket(part, sign),
            Implied::Backpointer(pos, backpointer) => {
                let at = self.backpointers.entry(pos).or_default();
                if sign > 0 { at.add(backpointer) } else { at.remove(backpointer) }
            }
            Implied::Account(what, by) => self.accounts.add(what, by, sign),
            Implied::Set(btree, pos) => *self.sets.entry((btree, pos)).or_default() += sign as i32,
            Implied::Reference(start, end) => {
                let list = if sign > 0 { &mut self.referenced } else { &mut self.released };
                list.push((start, end));
            }
        }
        true
    }

    fn bucket(&mut self, by: BucketUse, sign: i64) {
        let parts = self.buckets.entry(by.at).or_default();
        let (generation, share, class) = (by.ptr.generation, by.share, by.class);
        let sectors = sign * i64::from(by.sectors);
        let same = |p: &&mut Part| (p.generation, p.share, p.class) == (generation, share, class);
        match parts.iter_mut().find(same) {
            Some(part) => part.sectors += sectors,
            None => parts.push(Part { generation, share, class, sectors }),
        }
    }
}
