//! Replay: bringing what only the journal holds into the b-trees (spec 60 §4.8).
//!
//! Three steps. **Pointers** first, the highest level first, so that every later step goes down the tree as the journal knows it. Then the
//! **counters**: in the journal they are differences, and a difference whose version the b-tree already has was applied before the
//! crash; the others are added up, and the sum gets the newest version (spec 50 §2.8). Then all **other keys**, in the order
//! of the journal: so the entries can be let go one after the other, and the journal drains while it is replayed, however full it was.
//!
//! Replay makes no journal entries of its own. Each key pins the old entry it came from, under the journal's hold, so a crash in the
//! middle begins the same replay again, with the same result.

use std::collections::BTreeMap;

use frazil_btree::write::CommitError;
use frazil_journal::Journal;
use frazil_journal::engine::ReplayHold;
use frazil_journal::read;
use frazil_ondisk::bkey::BVersion;
use frazil_ondisk::units::Seq;
use frazil_ondisk::values::accounting::Counters;
use frazil_ondisk::{Bpos, BtreeId, Key, KeyBuf, KeyType};

/// B-trees that are replayed into.
pub trait ReplayTarget {
    /// The key of a leaf exactly at `pos`.
    ///
    /// # Errors
    /// If its node cannot be had.
    fn get(&self, btree: BtreeId, pos: Bpos) -> Result<Option<KeyBuf>, CommitError>;

    /// Puts a key without journalling it and without deriving anything from it; [`KeyType::DELETED`] removes. What it makes dirty pins the
    /// entry `under`.
    ///
    /// # Errors
    /// If its node cannot be had.
    fn replay(
        &self,
        btree: BtreeId,
        level: u8,
        key: Key<'_>,
        under: &ReplayHold<'_>,
    ) -> Result<(), CommitError>;
}

/// What a crash left to be done; nothing after a clean shutdown.
#[derive(Default)]
pub struct Replay {
    pending: Option<Pending>,
}

struct Pending {
    overlay: read::Overlay,
    /// The first number of the new life: everything below is old.
    first_new: Seq,
}

impl Replay {
    pub(super) fn nothing() -> Replay {
        Replay::default()
    }

    pub(super) fn new(overlay: read::Overlay, first_new: Seq) -> Replay {
        Replay { pending: Some(Pending { overlay, first_new }) }
    }

    /// Whether there is nothing to be done. An empty journal after a crash has still to be passed.
    pub fn is_nothing(&self) -> bool {
        self.pending.is_none()
    }

    /// Replays into `target`, and then lets go of all old entries.
    ///
    /// # Errors
    /// The first one of the target. The volume then cannot be used; on disk it is as it was.
    pub fn run(self, journal: &Journal, target: &dyn ReplayTarget) -> Result<(), CommitError> {
        let Some(Pending { overlay, first_new }) = self.pending else { return Ok(()) };
        pointers(&overlay, journal, target)?;
        counters(&overlay, journal, target)?;
        others(&overlay, journal, target)?;
        journal.replayed(Seq(first_new.0 - 1));
        Ok(())
    }
}

fn pointers(
    overlay: &read::Overlay,
    journal: &Journal,
    target: &dyn ReplayTarget,
) -> Result<(), CommitError> {
    let mut levels: Vec<_> = overlay.levels().filter(|(_, level)| *level > 0).collect();
    levels.sort_by_key(|(btree, level)| (std::cmp::Reverse(*level), *btree));
    for (btree, level) in levels {
        let keys = overlay.level(btree, level);
        for i in 0..keys.len() {
            target.replay(btree, level, keys.key(i), &journal.replay_hold(keys.seq(i)))?;
        }
    }
    Ok(())
}

/// The differences of one counter that the b-tree does not have.
struct Sum {
    version: BVersion,
    counters: Vec<i64>,
    /// The oldest entry that has one of them.
    oldest: Option<Seq>,
}

fn counters(
    overlay: &read::Overlay,
    journal: &Journal,
    target: &dyn ReplayTarget,
) -> Result<(), CommitError> {
    let mut sums: BTreeMap<Bpos, Sum> = BTreeMap::new();
    for delta in overlay.deltas() {
        let pos = delta.key.k.pos;
        let sum = match sums.entry(pos) {
            std::collections::btree_map::Entry::Occupied(sum) => sum.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Sum::of(target.get(BtreeId::ACCOUNTING, pos)?))
            }
        };
        sum.add(delta)?;
    }
    for (pos, sum) in sums {
        let Some(oldest) = sum.oldest else { continue };
        let mut value = Vec::new();
        Counters::encode(sum.counters, &mut value);
        let mut key = KeyBuf::new(KeyType::ACCOUNTING, pos, 0, value);
        key.k.version = sum.version;
        target.replay(BtreeId::ACCOUNTING, 0, key.as_key(), &journal.replay_hold(oldest))?;
    }
    Ok(())
}

impl Sum {
    fn of(stored: Option<KeyBuf>) -> Sum {
        let stored = stored.filter(|key| key.k.ty == KeyType::ACCOUNTING);
        let counters = stored.as_ref().and_then(|key| Counters::decode(&key.value).ok());
        Sum {
            counters: counters.map_or_else(Vec::new, |c| c.iter().collect()),
            version: stored.map_or_else(BVersion::default, |key| key.k.version),
            oldest: None,
        }
    }

    fn add(&mut self, delta: read::Delta<'_>) -> Result<(), CommitError> {
        if delta.key.k.version <= self.version {
            return Ok(());
        }
        let change = Counters::decode(delta.key.value)
            .map_err(|why| CommitError::Inconsistent(format!("journal entry {}: {why}", delta.seq)))?;
        self.version = delta.key.k.version;
        self.counters.resize(self.counters.len().max(change.iter().len()), 0);
        self.counters.iter_mut().zip(change.iter()).for_each(|(sum, by)| *sum = sum.saturating_add(by));
        self.oldest = Some(self.oldest.map_or(delta.seq, |oldest| oldest.min(delta.seq)));
        Ok(())
    }
}

fn others(overlay: &read::Overlay, journal: &Journal, target: &dyn ReplayTarget) -> Result<(), CommitError> {
    let mut all = Vec::new();
    for (btree, level) in overlay.levels().filter(|(_, level)| *level == 0) {
        let keys = overlay.level(btree, level);
        all.extend((0..keys.len()).map(|i| (keys.seq(i), btree, i)));
    }
    all.sort_unstable();
    let mut passed = Seq(0);
    for (seq, btree, i) in all {
        if seq > passed {
            // No key left is older than this one.
            journal.replayed(Seq(seq.0 - 1));
            passed = seq;
        }
        let keys = overlay.level(btree, 0);
        target.replay(btree, 0, keys.key(i), &journal.replay_hold(seq))?;
    }
    Ok(())
}
