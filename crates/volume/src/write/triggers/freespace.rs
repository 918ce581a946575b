//! The runs of free buckets (spec 50 §2.3).
//!
//! A key covers the buckets up to its position. Taking a bucket from a run leaves up to two: what is behind it keeps the position of the
//! key, what is before it gets a new one; so taking the first bucket of a run, which is what the allocator does most of the time, changes one key.
//! Giving one back joins it with the runs before and behind it.

use frazil_btree::write::{Blocked, Stage};
use frazil_ondisk::units::DevIndex;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::inconsistent;

/// A run of free buckets, as offsets in the b-tree.
struct Run {
    start: u64,
    end: u64,
}

fn pos(dev: DevIndex, offset: u64) -> Bpos {
    Bpos::new(dev.0.into(), offset, 0)
}

/// The run that `offset` is in, or the next one.
fn run_at(stage: &mut dyn Stage, dev: DevIndex, offset: u64) -> Result<Option<Run>, Blocked> {
    let from = pos(dev, offset.saturating_add(1));
    let found = stage.first(BtreeId::FREESPACE, from, pos(dev, u64::MAX))?;
    let run = |key: &KeyBuf| Some(Run { start: key.k.start_offset()?, end: key.k.pos.offset });
    Ok(found.filter(|key| key.k.ty == KeyType::SET).as_ref().and_then(run))
}

fn put(stage: &mut dyn Stage, dev: DevIndex, run: Run) {
    let size = u32::try_from(run.end - run.start).expect("a device has fewer than 2^31 buckets");
    stage.update(BtreeId::FREESPACE, KeyBuf::new(KeyType::SET, pos(dev, run.end), size, []));
}

fn delete(stage: &mut dyn Stage, dev: DevIndex, end: u64) {
    stage.update(BtreeId::FREESPACE, KeyBuf::new(KeyType::DELETED, pos(dev, end), 0, []));
}

/// Takes the bucket at `offset` from the run it is in.
pub(super) fn remove(stage: &mut dyn Stage, dev: DevIndex, offset: u64) -> Result<(), Blocked> {
    let Some(run) = run_at(stage, dev, offset)?.filter(|run| run.start <= offset) else {
        return Err(inconsistent(format!("freespace lacks {dev}:{offset}, which is free")).into());
    };
    if offset + 1 < run.end {
        put(stage, dev, Run { start: offset + 1, end: run.end });
    } else {
        delete(stage, dev, run.end);
    }
    if run.start < offset {
        put(stage, dev, Run { start: run.start, end: offset });
    }
    Ok(())
}

/// Adds the bucket at `offset`.
pub(super) fn insert(stage: &mut dyn Stage, dev: DevIndex, offset: u64) -> Result<(), Blocked> {
    let mut new = Run { start: offset, end: offset + 1 };
    if let Some(behind) = run_at(stage, dev, offset)? {
        if behind.start <= offset {
            return Err(inconsistent(format!("freespace has {dev}:{offset}, which was not free")).into());
        }
        if behind.start == new.end {
            new.end = behind.end;
        }
    }
    let before = stage.get(BtreeId::FREESPACE, pos(dev, offset))?;
    if let Some(start) = before.filter(|key| key.k.ty == KeyType::SET).and_then(|key| key.k.start_offset()) {
        delete(stage, dev, offset);
        new.start = start;
    }
    put(stage, dev, new);
    Ok(())
}
