//! The engine over a device in memory: what it holds is compared with a map, in memory, after a shutdown, and after crashes.
//!
//! `ENGINE_SEED=n` repeats a failing run, `ENGINE_SEEDS=n` runs more of them.

#![allow(clippy::unwrap_used)]

mod crashes;
mod extents;
mod growth;
mod threads;
mod world;

use std::collections::BTreeMap;

use frazil_btree::write::{CommitError, CommitOptions, Engine, Transaction};
use frazil_ondisk::units::Seq;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

/// What the trees must hold.
pub(crate) type Model = BTreeMap<(BtreeId, Bpos), Vec<u8>>;

/// A change of a model.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    btree: BtreeId,
    pos: Bpos,
    value: Option<Vec<u8>>,
}

pub(crate) fn edit_model(model: &mut Model, edits: &[Edit]) {
    for Edit { btree, pos, value } in edits {
        match value {
            Some(value) => model.insert((*btree, *pos), value.clone()),
            None => model.remove(&(*btree, *pos)),
        };
    }
}

fn stage(t: &mut Transaction<'_>, edits: &[Edit]) {
    for Edit { btree, pos, value } in edits {
        match value {
            Some(value) => t.put(*btree, KeyBuf::new(KeyType::COOKIE, *pos, 0, value.as_slice())),
            None => t.delete(*btree, *pos),
        }
    }
}

/// Makes changes in one transaction; the entry it is in.
pub(crate) fn commit(engine: &Engine, edits: &[Edit]) -> Option<Seq> {
    let done = engine.run(CommitOptions::default(), |t| {
        stage(t, edits);
        Ok::<(), CommitError>(())
    });
    done.unwrap().seq
}

/// Random changes: runs of neighbours, single keys, deletions of ranges.
pub(crate) fn random_edits(rng: &mut fastrand::Rng, model: &Model, space: u64) -> Vec<Edit> {
    let btree = world::TREES[rng.usize(0..world::TREES.len())];
    let at = |offset| Bpos::new(1, offset, u32::MAX);
    let value = |rng: &mut fastrand::Rng| {
        let words = rng.usize(1..12);
        (0..words).flat_map(|_| rng.u64(..).to_le_bytes()).collect::<Vec<u8>>()
    };
    match rng.u32(0..10) {
        0..4 => {
            let from = rng.u64(0..space);
            let to = from + rng.u64(1..20);
            (from..to).map(|offset| Edit { btree, pos: at(offset), value: Some(value(rng)) }).collect()
        }
        4..7 => (0..rng.u64(1..5))
            .map(|_| {
                let btree = world::TREES[rng.usize(0..world::TREES.len())];
                Edit { btree, pos: at(rng.u64(0..space)), value: Some(value(rng)) }
            })
            .collect(),
        _ => {
            let from = (btree, at(rng.u64(0..space)));
            let keys = model.range(from..).take_while(|((b, _), _)| *b == btree).take(rng.usize(1..40));
            keys.map(|(&(btree, pos), _)| Edit { btree, pos, value: None }).collect()
        }
    }
}

/// Seeds to run: the one asked for, or the first few.
pub(crate) fn seeds(usual: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    match number("ENGINE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ENGINE_SEEDS").unwrap_or(usual),
    }
}
