//! Backpointers, both ways (spec 60 §9.7).
//!
//! The walk says which backpointers there must be. They are collected, sorted and looked up in portions, so that memory is
//! bounded and the b-tree is read in order. Whether there are others is first decided by counting: positions are unique, so if as many were
//! found as there are keys, none is left over. Only if the numbers differ is the b-tree walked again and every key's
//! pointer looked for.

use frazil_btree::Root;
use frazil_ondisk::units::Gen;
use frazil_ondisk::values::backpointer::{self, Backpointer};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::buckets::Gens;
use super::context::{Check, Feed};
use super::faults::{BackpointerFault, PointerFault};
use super::inconsistency::Inconsistency;
use crate::derive::{self, Context, Implied, StripeDevs};

/// Backpointers compared at a time: 64 MiB of them.
const PORTION: usize = 1 << 20;

/// Backpointers there must be, as far as not compared yet.
#[derive(Default)]
pub(super) struct Expected {
    list: Vec<(Bpos, Backpointer)>,
    /// Found, exactly as expected.
    found: u64,
    /// Expected, but missing or different: reported at the end, when it is known that all nodes could be read.
    missing: Vec<(Bpos, Backpointer)>,
}

/// Missing backpointers kept for the report; what is more is the same damage again.
const MISSING_MAX: usize = 100_000;

impl Expected {
    pub(super) fn push(&mut self, pos: Bpos, value: Backpointer) {
        self.list.push((pos, value));
    }

    /// Compares when there are enough for a portion.
    pub(super) fn compare_if_many(&mut self, check: &mut Check<'_>) {
        if self.list.len() >= PORTION {
            self.compare(check);
        }
    }

    fn compare(&mut self, check: &mut Check<'_>) {
        self.list.sort_unstable_by_key(|(pos, _)| *pos);
        let mut cursor = check.btrees().cursor(BtreeId::BACKPOINTERS, ..);
        for (pos, value) in self.list.drain(..) {
            if cursor.pos() != Some(pos) {
                cursor.seek(pos);
                if let Err(error) = cursor.step_next() {
                    check.lost(error);
                    continue;
                }
            }
            let stored = cursor.key().filter(|key| key.k.pos == pos && key.k.ty == KeyType::BACKPOINTER);
            if stored.and_then(|key| Backpointer::decode(key.value).ok()) == Some(value) {
                self.found += 1;
            } else if self.missing.len() < MISSING_MAX {
                self.missing.push((pos, value));
            }
        }
    }
}

/// Compares what is left, then looks for backpointers that belong to nothing.
pub(super) fn check(check: &mut Check<'_>, mut expected: Expected, gens: &Gens) {
    expected.compare(check);
    for (at, value) in std::mem::take(&mut expected.missing) {
        let Backpointer { btree, level, pos, .. } = value;
        let (dev, sector) = backpointer::pointed_at(at, check.rules.backpointer_shift).unwrap_or_default();
        // The generation is the bucket's; the pointer itself is in the key named here.
        let generation = check
            .rules
            .bucket_of(dev, sector)
            .and_then(|at| gens.get(at).copied().flatten())
            .unwrap_or_default();
        let ptr = ExtentPtr::new(dev, sector, generation);
        let fault = PointerFault::NoBackpointer { at };
        check.add(Inconsistency::Pointer { btree, level, pos, ptr, fault });
    }
    let mut stored = 0u64;
    check.each(BtreeId::BACKPOINTERS, 0, |_, _| stored += 1);
    if stored != expected.found {
        strays(check, gens);
    }
}

/// Reports every backpointer that no pointer has.
fn strays(check: &mut Check<'_>, gens: &Gens) {
    let mut feed = Feed::new(check, BtreeId::BACKPOINTERS);
    while let Some(key) = feed.key().map(|key| key.to_owned()) {
        feed.advance(check);
        let (pos, Ok(value)) = (key.k.pos, Backpointer::decode(&key.value)) else { continue };
        let shift = check.rules.backpointer_shift;
        let at =
            backpointer::pointed_at(pos, shift).and_then(|(dev, sector)| check.rules.bucket_of(dev, sector));
        let fault = match at {
            None => Some(BackpointerFault::NoDevice),
            Some(at) if gens.get(at).copied().flatten().is_none() => Some(BackpointerFault::NoAllocKey),
            Some(_) => (!has_pointer(check, gens, pos, value)).then_some(BackpointerFault::NoPointer),
        };
        if let Some(fault) = fault {
            check.add(Inconsistency::Backpointer { pos, value, fault });
        }
    }
}

/// Whether the key that a backpointer names has a pointer it belongs to.
fn has_pointer(check: &mut Check<'_>, gens: &Gens, pos: Bpos, value: Backpointer) -> bool {
    let Some(owner) = owner(check, value) else { return false };
    let mut found = false;
    let known = Known { gens };
    // Undecodable keys were reported by the walk, and imply nothing.
    let _ = derive::of_key(&check.rules, &known, value.btree, value.level, owner.as_key(), &mut |implied| {
        found |= implied == Implied::Backpointer(pos, value);
    });
    found
}

/// The key at (btree, level, pos) of a backpointer; above the root's level that is the root's own pointer.
fn owner(check: &mut Check<'_>, value: Backpointer) -> Option<KeyBuf> {
    let Backpointer { btree, level, pos, .. } = value;
    if let Some(Root::At { level: root, key }) = check.btrees().root(btree)
        && root.checked_add(1) == Some(level)
    {
        return (key.k.pos == pos).then_some(key);
    }
    let mut cursor = check.btrees().level_cursor(btree, level, pos..=pos);
    match cursor.next() {
        Ok(key) => key.map(|key| key.to_owned()),
        Err(error) => {
            check.lost(error);
            None
        }
    }
}

/// Generations only: which devices a stripe has does not matter for backpointers.
struct Known<'a> {
    gens: &'a Gens,
}

impl Context for Known<'_> {
    fn is_stale(&self, at: DevBucket, generation: Gen) -> bool {
        self.gens
            .get(at)
            .copied()
            .flatten()
            .is_none_or(|bucket| super::buckets::ahead(bucket, generation) > 0)
    }

    fn stripe(&self, _: u64) -> Option<StripeDevs> {
        None
    }
}
