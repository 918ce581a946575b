//! Replay: bringing what only the journal holds into the b-trees (spec 60 §4.8).
//!
//! Four steps. **Pointers** first, the highest level first, so that every later step goes down the tree as the journal knows it. Then the
//! **counters**: in the journal they are differences, and one whose version the b-tree already has was applied before the crash
//! (spec 50 §2.8). Then the b-trees about **space**. Then all **other keys**, in the order of the journal: so the entries can be let
//! go one after the other, and the journal drains while it is replayed, however full it was.
//!
//! The order of the first three matters, because replay itself may need new nodes, first of all for b-trees that have none yet. A new node is a
//! commit, whose triggers look at what is there, and write newer keys and differences. What is older must be there before: older keys
//! would overwrite them later, and older differences be taken for applied.
//!
//! Replay makes no journal entries of its own. Each key pins the old entry it came from, under the journal's hold, so a crash in the
//! middle begins the same replay again, with the same result.

use frazil_btree::write::{CommitError, Engine, SPACE};
use frazil_journal::Journal;
use frazil_journal::engine::ReplayHold;
use frazil_journal::read;
use frazil_ondisk::units::Seq;
use frazil_ondisk::{BtreeId, KeyBuf};

/// B-trees that are replayed into.
pub trait ReplayTarget {
    /// Puts a key without journalling it and without deriving anything from it; [`KeyType::DELETED`](frazil_ondisk::KeyType) removes. What it
    /// makes dirty pins the entry under `hold`.
    ///
    /// # Errors
    /// If its node cannot be had.
    fn replay(
        &self,
        btree: BtreeId,
        level: u8,
        key: KeyBuf,
        hold: &ReplayHold<'_>,
    ) -> Result<(), CommitError>;

    /// Adds a difference of counters, unless what is there has its version already (spec 50 §2.8). Those of one counter come in the order of the
    /// journal.
    ///
    /// # Errors
    /// If its node cannot be had.
    fn replay_counters(&self, delta: KeyBuf, hold: &ReplayHold<'_>) -> Result<(), CommitError>;
}

impl ReplayTarget for Engine {
    fn replay(
        &self,
        btree: BtreeId,
        level: u8,
        key: KeyBuf,
        hold: &ReplayHold<'_>,
    ) -> Result<(), CommitError> {
        Engine::replay(self, btree, level, key, hold)
    }

    fn replay_counters(&self, delta: KeyBuf, hold: &ReplayHold<'_>) -> Result<(), CommitError> {
        Engine::replay_counters(self, delta, hold).map(|_added| ())
    }
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

    /// What the journal holds.
    pub(super) fn overlay(&self) -> Option<&read::Overlay> {
        self.pending.as_ref().map(|pending| &pending.overlay)
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
        space(&overlay, journal, target)?;
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
            target.replay(btree, level, keys.key(i).to_owned(), &journal.replay_hold(keys.seq(i)))?;
        }
    }
    Ok(())
}

fn space(overlay: &read::Overlay, journal: &Journal, target: &dyn ReplayTarget) -> Result<(), CommitError> {
    for btree in SPACE {
        let keys = overlay.level(btree, 0);
        for i in 0..keys.len() {
            target.replay(btree, 0, keys.key(i).to_owned(), &journal.replay_hold(keys.seq(i)))?;
        }
    }
    Ok(())
}

fn counters(
    overlay: &read::Overlay,
    journal: &Journal,
    target: &dyn ReplayTarget,
) -> Result<(), CommitError> {
    for delta in overlay.deltas() {
        target.replay_counters(delta.key.to_owned(), &journal.replay_hold(delta.seq))?;
    }
    Ok(())
}

fn others(overlay: &read::Overlay, journal: &Journal, target: &dyn ReplayTarget) -> Result<(), CommitError> {
    let mut all = Vec::new();
    for (btree, level) in overlay.levels().filter(|(b, level)| *level == 0 && !SPACE.contains(b)) {
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
        target.replay(btree, 0, keys.key(i).to_owned(), &journal.replay_hold(seq))?;
    }
    Ok(())
}
