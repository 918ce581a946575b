//! References to shared data (spec 40 §10).
//!
//! An indirect extent counts the `reflink_p` keys whose padded range touches it. A new `reflink_p` holds references on whole
//! indirect extents, so its pads are made here from what is there; an old one gives back exactly what its own pads say. Whoever is
//! counted down to nothing goes, and its space with it. New references count before old ones are given back.

use std::collections::BTreeMap;

use frazil_btree::write::{Blocked, Change, CommitError, Stage};
use frazil_ondisk::values::reflink::{IndirectInlineData, ReflinkP, ReflinkV};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::inconsistent;
use super::net::Net;

/// Whether a key is an indirect extent.
fn is_indirect(key: &KeyBuf) -> bool {
    matches!(key.k.ty, KeyType::REFLINK_V | KeyType::INDIRECT_INLINE_DATA)
}

/// Gives a new `reflink_p` its pads; returns it if they had to change.
pub(super) fn padded(stage: &mut dyn Stage, change: &Change) -> Result<Option<KeyBuf>, Blocked> {
    let Some(key) = change.inserted().filter(|key| key.k.ty == KeyType::REFLINK_P) else { return Ok(None) };
    let bad = |e: String| inconsistent(format!("{} key {}: {e}", change.btree, key.as_key()));
    let stored = ReflinkP::decode(&key.value).map_err(|e| bad(e.to_string()))?;
    let mut p = ReflinkP { front_pad: 0, back_pad: 0, ..stored };
    let (start, end) = p.padded_range(key.k.size);
    let mut at = start;
    while at < end {
        let Some(found) = indirect_at(stage, at)?.filter(|found| found.start <= at) else {
            return Err(bad(format!("nothing is at {at} of the reflink space")).into());
        };
        let pad = |n: u64| u32::try_from(n).map_err(|_| bad(format!("{n} sectors of padding")));
        p.front_pad = p.front_pad.max(pad(start.saturating_sub(found.start))?);
        p.back_pad = p.back_pad.max(pad(found.end.saturating_sub(end))?);
        at = found.end;
    }
    if p == stored {
        return Ok(None);
    }
    let mut value = Vec::new();
    p.encode(&mut value);
    let mut new = key.clone();
    new.value = value.into();
    Ok(Some(new))
}

/// An indirect extent and the range it is in the reflink space.
struct Indirect {
    key: KeyBuf,
    start: u64,
    end: u64,
}

/// The indirect extent at `at`, or the next behind it.
fn indirect_at(stage: &mut dyn Stage, at: u64) -> Result<Option<Indirect>, Blocked> {
    let mut from = at;
    loop {
        let Some(next) = from.checked_add(1) else { return Ok(None) };
        let end = Bpos::new(0, u64::MAX, u32::MAX);
        let Some(key) = stage.first(BtreeId::REFLINK, Bpos::new(0, next, 0), end)? else { return Ok(None) };
        let end = key.k.pos.offset;
        match key.k.start_offset().filter(|_| is_indirect(&key)) {
            Some(start) => return Ok(Some(Indirect { key, start, end })),
            None => from = end,
        }
    }
}

/// Counts the references the commit adds and gives back, and removes what nobody refers to any more.
pub(super) fn count(stage: &mut dyn Stage, net: &mut Net<'_>) -> Result<(), Blocked> {
    let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
    let (referenced, released) = (std::mem::take(&mut net.referenced), std::mem::take(&mut net.released));
    for (ranges, sign) in [(referenced, 1), (released, -1)] {
        for (start, end) in ranges {
            let mut at = start;
            // A range that is lost has nothing to count: a damaged file can be removed.
            while let Some(found) = indirect_at(stage, at)?.filter(|found| found.start < end) {
                *changes.entry(found.end).or_default() += sign;
                at = found.end;
            }
        }
    }
    for (end, by) in changes.into_iter().filter(|(_, by)| *by != 0) {
        let Some(found) = indirect_at(stage, end - 1)? else { continue };
        let count = refcount(&found.key)?;
        let Some(sum) = count.checked_add_signed(by) else {
            return Err(inconsistent(format!(
                "reflink key {} has {count} references, which change by {by}",
                found.key.as_key()
            ))
            .into());
        };
        let new = if sum == 0 {
            KeyBuf::new(KeyType::DELETED, found.key.k.pos, 0, [])
        } else {
            let mut new = found.key.clone();
            new.value[..8].copy_from_slice(&sum.to_le_bytes());
            new
        };
        net.replace(BtreeId::REFLINK, 0, Some(&found.key), Some(&new))?;
        stage.update(BtreeId::REFLINK, new);
    }
    Ok(())
}

fn refcount(key: &KeyBuf) -> Result<u64, CommitError> {
    let count = match key.k.ty {
        KeyType::REFLINK_V => ReflinkV::decode(&key.value).map(|v| v.refcount),
        _ => IndirectInlineData::decode(&key.value).map(|v| v.refcount),
    };
    count.map_err(|e| inconsistent(format!("reflink key {}: {e}", key.as_key())))
}
