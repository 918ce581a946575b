//! Shared data: every reference leads to data, and every reference is counted (spec 60 §9.4).
//!
//! References are ranges of one address space, and so are the indirect extents. How many ranges touch an extent is the number that begin
//! before its end, less the number that end before its start; with both sorted that is two indices that move forward once.

use frazil_ondisk::values::reflink::{IndirectInlineData, ReflinkV};
use frazil_ondisk::{BtreeId, Key, KeyType};

use super::context::Check;
use super::faults::ItemFault;
use super::inconsistency::Inconsistency;
use super::walk::Reference;

/// The count an indirect extent stores.
fn refcount(key: Key<'_>) -> Option<u64> {
    match key.k.ty {
        KeyType::REFLINK_V => ReflinkV::decode(key.value).ok().map(|v| v.refcount),
        KeyType::INDIRECT_INLINE_DATA => IndirectInlineData::decode(key.value).ok().map(|v| v.refcount),
        _ => None,
    }
}

/// Compares references with indirect extents, both ways.
pub(super) fn check(check: &mut Check<'_>, mut references: Vec<Reference>) {
    if !check.complete(BtreeId::EXTENTS) || !check.complete(BtreeId::REFLINK) {
        return;
    }
    let mut ends: Vec<u64> = references.iter().map(|r| r.end).collect();
    ends.sort_unstable();
    references.sort_unstable_by_key(|r| (r.start, r.end));
    let (mut begun, mut ended) = (0, 0);
    let mut covered: Vec<(u64, u64)> = Vec::new();
    check.each(BtreeId::REFLINK, 0, |check, key| {
        let (Some(stored), Some(start)) = (refcount(key), key.k.start_offset()) else { return };
        let end = key.k.pos.offset;
        while references.get(begun).is_some_and(|r| r.start < end) {
            begun += 1;
        }
        while ends.get(ended).is_some_and(|&e| e <= start) {
            ended += 1;
        }
        let computed = (begun - ended.min(begun)) as u64;
        if stored != computed {
            let fault = ItemFault::Refcount { stored, computed };
            check.add(Inconsistency::Item { btree: BtreeId::REFLINK, pos: key.k.pos, fault });
        }
        match covered.last_mut() {
            Some((_, e)) if *e == start => *e = end,
            _ => covered.push((start, end)),
        }
    });
    for reference in &references {
        let Reference { start, end, pos } = *reference;
        let i = covered.partition_point(|(_, e)| *e <= start);
        let (from, to) = match covered.get(i) {
            Some(&(s, e)) if s <= start && end <= e => continue,
            Some(&(s, _)) if start < s => (start, s.min(end)),
            Some(&(_, e)) => (e, end),
            None => (start, end),
        };
        let fault = ItemFault::NoShared { from, to };
        check.add(Inconsistency::Item { btree: BtreeId::EXTENTS, pos, fault });
    }
}
