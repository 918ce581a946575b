//! Moving garbage collection: buckets that hold little are emptied by moving what is in them (spec 50 §6.8).
//!
//! Buckets are filled once and given back when nothing in them is used any more. Overwriting and deleting leaves holes in them, and in the end there
//! would be no empty bucket although half of the device is unused. So the [`Mover`] takes the buckets that hold least, copies what is
//! still used next to each other into new buckets, and lets the pointers lead there. Each bucket emptied costs as much writing as it still held.
//!
//! One bucket is emptied like this:
//!
//! 1. Its backpointers lead to the keys that point into it (`contents.rs`).
//! 2. Payloads are read and verified (`data::stored`). A payload that is in use altogether is moved as it is stored; of others the live parts
//!    become payloads of their own (`pieces.rs`).
//! 3. They are written to the bucket that moved data is being collected in, on the same device: which devices hold a copy does not change.
//! 4. One commit replaces exactly the pointers that were moved (`rewrite.rs`), in those keys that are still what was read; a key that was
//!    changed meanwhile is left for the next time. So nobody is waited for, and a crash before that commit leaves everything as it was.
//! 5. Nodes of b-trees are written anew by the engine.
//!
//! The bucket then waits for the journal and to be discarded, like any other.
//!
//! # When
//!
//! In the background, when what is unused in partly used buckets is several times what is free ([`Space::writes_until_fragmented`]), looked at by the
//! clock of writes: without writes nothing gets worse. And at once, when an allocation finds nothing: it waits for a round of moving as it waits
//! for discards. A round says whether it gained room, on balance of buckets emptied and begun; if nothing can be gained the device is full. Moving
//! has buckets of its own (the reserve of its watermark), so it works where others find nothing; and it never waits for an ordinary transaction.
//!
//! What cannot be read is left where it is, and said once; its bucket is not tried again while it holds it.

mod contents;
mod pieces;
pub(super) mod rewrite;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use frazil_btree::write::{CommitError, CommitOptions, Engine};
use frazil_device::DeviceSet;
use frazil_journal::Watermark;
use frazil_ondisk::units::{DevIndex, Gen, SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::values::positions::DevBucket;
use parking_lot::Mutex;

use self::contents::{Contents, NodeAt, Victim};
use self::pieces::{Piece, Rewrite};
use super::clock::IoClocks;
use super::data::put;
use super::space::{Allocation, Allocator, Space};
use crate::data::Reader;

/// Buckets looked for at a time, and emptied in a round (spec 50 §6.8).
const ROUND_BUCKETS: usize = 16;
/// Data that is read before it is written and committed.
const BATCH_SECTORS: u64 = 2048;
/// Keys that a transaction moves.
const KEYS_MAX: usize = 64;

/// Makes some room without moving anything (discards, flushes, drops cached data). Whether anything came of it.
pub(in crate::write) type MakeRoom<'r> = &'r dyn Fn() -> Result<bool, CommitError>;

/// What has been moved since the volume was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// Buckets emptied.
    pub buckets: u64,
    /// Sectors of data written again.
    pub sectors: Sectors,
    /// Pointers changed.
    pub pointers: u64,
    /// Nodes written again.
    pub nodes: u64,
    /// Buckets that could not be emptied because something in them cannot be read or moved.
    pub hopeless: u64,
}

/// See the [module](self). Shared by all; one moves at a time.
pub struct Mover {
    space: Arc<Space>,
    allocator: Arc<Allocator>,
    devices: DeviceSet,
    clocks: Arc<IoClocks>,
    reader: Arc<Reader>,
    moved: Mutex<Moved>,
    /// Held while something is moved.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By device: buckets found and not looked at yet.
    queues: BTreeMap<DevIndex, VecDeque<Victim>>,
    /// What cannot be emptied.
    hopeless: HashSet<(DevBucket, Gen)>,
    ledgers: BTreeMap<DevIndex, Ledger>,
    /// By device: in the background nothing is moved before the clock of writes says this, because the last time nothing was gained.
    not_before: BTreeMap<DevIndex, u64>,
}

/// Whether moving gains room on a device, in sectors.
#[derive(Clone, Copy, Default)]
struct Ledger {
    emptied: u64,
    begun: u64,
    /// The bucket that is being filled, and what is left of it.
    filling: Option<u64>,
    room: u64,
}

impl Ledger {
    fn balance(&self) -> i128 {
        i128::from(self.emptied) + i128::from(self.room) - i128::from(self.begun)
    }

    /// Sectors were given out in a bucket of that size; what was left of the one before is of no use any more.
    fn took(&mut self, at: ExtentPtr, sectors: Sectors, bucket: Sectors) {
        let (index, inside) = (at.offset.0 / bucket.0, at.offset.0 % bucket.0);
        if self.filling != Some(index) {
            self.begun += bucket.0 - inside;
            self.filling = Some(index);
        }
        self.room = bucket.0 - inside - sectors.0;
    }
}

/// What came of emptying a bucket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Done with it, whatever came of it.
    Done,
    /// There is no room to move anything to.
    NoRoom,
}

impl Mover {
    /// Moves what is on these devices, to places of that allocator.
    pub fn new(
        space: Arc<Space>,
        allocator: Arc<Allocator>,
        devices: DeviceSet,
        clocks: Arc<IoClocks>,
        reader: Arc<Reader>,
    ) -> Mover {
        Mover { space, allocator, devices, clocks, reader, moved: Mutex::default(), state: Mutex::default() }
    }

    /// What has been moved so far.
    pub fn moved(&self) -> Moved {
        *self.moved.lock()
    }

    /// Empties one bucket if it is time to. Whether there may be more to do; if not, at what the clock of writes should be looked again.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(in crate::write) fn step(
        &self,
        engine: &Engine,
        make_room: MakeRoom<'_>,
    ) -> Result<Option<u64>, CommitError> {
        let mut state = self.state.lock();
        let [_, now] = self.clocks.values();
        let mut next = u64::MAX;
        for (dev, left) in self.space.writes_until_fragmented() {
            let in_vain = state.not_before.get(&dev).copied().unwrap_or(0);
            let when = now.saturating_add(left.0).max(in_vain);
            if when > now {
                next = next.min(when);
                continue;
            }
            let (before, written) = (state.ledger(dev).balance(), self.moved().sectors);
            let outcome = self.empty_next(&mut state, engine, dev, make_room)?;
            if outcome == Some(Outcome::Done) && state.ledger(dev).balance() > before {
                return Ok(None);
            }
            // Others must write as much as was moved in vain, so that this cannot go on by itself.
            let moved = self.moved().sectors.0 - written.0;
            let when = self.clocks.values()[1] + moved.max(self.space.bucket(dev).0);
            state.not_before.insert(dev, when);
            next = next.min(when);
        }
        Ok(Some(next))
    }

    /// Empties the bucket of a device that holds least, whatever the need; whether there was one. For who wants to see it done.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(in crate::write) fn empty_one(
        &self,
        engine: &Engine,
        dev: DevIndex,
        make_room: MakeRoom<'_>,
    ) -> Result<bool, CommitError> {
        let mut state = self.state.lock();
        Ok(self.empty_next(&mut state, engine, dev, make_room)?.is_some())
    }

    /// A round of moving, for somebody who finds no room. Whether there may be some now.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(in crate::write) fn round(
        &self,
        engine: &Engine,
        make_room: MakeRoom<'_>,
    ) -> Result<bool, CommitError> {
        let mut state = self.state.lock();
        // Whoever moved before may have made enough room, or made some that only has to be discarded.
        if self.space.short().is_empty() || make_room()? {
            return Ok(true);
        }
        let mut gained = false;
        for dev in self.space.short() {
            let before = state.ledger(dev).balance();
            state.queues.remove(&dev);
            for _ in 0..ROUND_BUCKETS {
                match self.empty_next(&mut state, engine, dev, make_room)? {
                    Some(Outcome::Done) => {}
                    None | Some(Outcome::NoRoom) => break,
                }
            }
            gained |= state.ledger(dev).balance() > before;
        }
        Ok(gained)
    }

    /// Empties the next bucket of a device; `None` if there is none.
    fn empty_next(
        &self,
        state: &mut State,
        engine: &Engine,
        dev: DevIndex,
        make_room: MakeRoom<'_>,
    ) -> Result<Option<Outcome>, CommitError> {
        let Some(victim) = self.next_victim(state, engine, dev)? else { return Ok(None) };
        let result = self.empty(state, engine, &victim, make_room);
        let outcome = match result {
            Ok(outcome) => outcome,
            // What is stored there contradicts itself, or cannot be read: that is no reason to stop writing elsewhere.
            Err(Failure::Here(why)) => {
                tracing::error!("bucket {dev}:{} cannot be emptied: {why}", victim.at.bucket);
                state.hopeless.insert((victim.at, victim.generation));
                self.moved.lock().hopeless += 1;
                Outcome::Done
            }
            Err(Failure::Everywhere(error)) => return Err(error),
        };
        let now = contents::state(engine, victim.at)?;
        if now.used_sectors() == 0 || now.generation != victim.generation {
            self.moved.lock().buckets += 1;
            state.ledger(dev).emptied += self.space.bucket(dev).0;
        }
        Ok(Some(outcome))
    }

    /// The bucket to be emptied next.
    fn next_victim(
        &self,
        state: &mut State,
        engine: &Engine,
        dev: DevIndex,
    ) -> Result<Option<Victim>, CommitError> {
        let State { queues, hopeless, .. } = state;
        let queue = queues.entry(dev).or_default();
        let is_left = |victim: &Victim| {
            !hopeless.contains(&(victim.at, victim.generation)) && !self.space.is_open(victim.at)
        };
        while let Some(victim) = queue.pop_front() {
            if is_left(&victim) && contents::state(engine, victim.at)?.generation == victim.generation {
                return Ok(Some(victim));
            }
        }
        engine.flush_buffer()?;
        queue.extend(contents::victims(engine, self.space.rules(), dev, ROUND_BUCKETS, is_left)?);
        Ok(queue.pop_front())
    }

    /// Moves what is in a bucket somewhere else.
    fn empty(
        &self,
        state: &mut State,
        engine: &Engine,
        victim: &Victim,
        make_room: MakeRoom<'_>,
    ) -> Result<Outcome, Failure> {
        let Contents { payloads, nodes, fixed } = contents::contents(engine, self.space.rules(), victim)?;
        let (mut unreadable, mut done) = (None, 0);
        let mut batch: Vec<Piece> = Vec::new();
        let mut payloads = payloads.iter().peekable();
        while let Some(items) = payloads.next() {
            match pieces::pieces(&self.reader, items) {
                Ok(pieces) => batch.extend(pieces),
                Err(problem) => unreadable = unreadable.or(Some(problem)),
            }
            let sectors: u64 = batch.iter().map(|piece| piece.sectors().0).sum();
            if sectors >= BATCH_SECTORS || payloads.peek().is_none() {
                let pieces = std::mem::take(&mut batch);
                let Some(changed) = self.place(state, engine, victim.at.dev, pieces, make_room)? else {
                    return Ok(Outcome::NoRoom);
                };
                done += changed;
            }
        }
        for node in &nodes {
            done += u64::from(self.move_node(engine, victim, node)?);
        }
        if let Some(why) = unreadable {
            return Err(Failure::Here(why));
        }
        if fixed {
            return Err(Failure::Here("a stripe has a block in it".into()));
        }
        if done == 0 && nodes.is_empty() && self.is_orphaned(engine, victim)? {
            return Err(Failure::Here("it is in use, but nothing points into it".into()));
        }
        Ok(Outcome::Done)
    }

    /// Whether nothing points into a bucket that is in use. Others may be changing what is in it.
    fn is_orphaned(&self, engine: &Engine, victim: &Victim) -> Result<bool, CommitError> {
        let before = contents::state(engine, victim.at)?;
        engine.flush_buffer()?;
        let now = contents::contents(engine, self.space.rules(), victim)?;
        let empty = now.payloads.is_empty() && now.nodes.is_empty();
        Ok(empty && before.used_sectors() != 0 && before == contents::state(engine, victim.at)?)
    }

    /// Has the engine write a node of the bucket anew.
    fn move_node(&self, engine: &Engine, victim: &Victim, node: &NodeAt) -> Result<bool, Failure> {
        let rules = self.space.rules();
        let is_here = |pointer: frazil_ondisk::Key<'_>| node.is_in(rules, victim, pointer);
        let moved = engine.move_node(node.btree, node.level, node.pos, is_here)?;
        self.moved.lock().nodes += u64::from(moved);
        Ok(moved)
    }

    /// Writes pieces to new places on their device and lets their keys point there. The number of keys that do; `None` if there is no room.
    fn place(
        &self,
        state: &mut State,
        engine: &Engine,
        dev: DevIndex,
        mut pieces: Vec<Piece>,
        make_room: MakeRoom<'_>,
    ) -> Result<Option<u64>, Failure> {
        // The long ones first: the short ones then fill up the rest of a bucket.
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.sectors()));
        let mut changed = 0;
        while let Some(first) = pieces.first() {
            let wanted = Sectors(pieces.iter().map(|piece| piece.sectors().0).sum());
            let Some(area) = self.allocate(dev, wanted, first.sectors(), make_room)? else {
                return Ok(None);
            };
            let Some(&start) = area.ptrs.first() else { return Ok(None) };
            state.ledger(dev).took(start, area.sectors, self.space.bucket(dev));
            let (mut bytes, mut rewrites, mut rest) = (Vec::new(), Vec::new(), Vec::new());
            for piece in pieces {
                let used = Sectors(bytes.len() as u64 / SECTOR_BYTES);
                if used.0 + piece.sectors().0 > area.sectors.0 {
                    rest.push(piece);
                    continue;
                }
                bytes.extend_from_slice(&piece.bytes);
                let at = ExtentPtr { offset: Sectors(start.offset.0 + used.0), ..start };
                rewrites.extend(piece.at(at)?);
            }
            put(&self.devices, &self.clocks, &[start], &bytes)?;
            self.moved.lock().sectors.0 += bytes.len() as u64 / SECTOR_BYTES;
            let pointers = commit(engine, &rewrites)?;
            self.moved.lock().pointers += pointers;
            changed += pointers;
            drop(area.hold);
            pieces = rest;
        }
        Ok(Some(changed))
    }

    /// Room on a device, after making some if there is none.
    fn allocate(
        &self,
        dev: DevIndex,
        wanted: Sectors,
        least: Sectors,
        make_room: MakeRoom<'_>,
    ) -> Result<Option<Allocation>, CommitError> {
        loop {
            let area = self.allocator.allocate_on(dev, wanted, least);
            if area.is_some() || !make_room()? {
                return Ok(area);
            }
        }
    }
}

impl State {
    fn ledger(&mut self, dev: DevIndex) -> &mut Ledger {
        self.ledgers.entry(dev).or_default()
    }
}

/// Changes the keys that are still what was read. How many.
fn commit(engine: &Engine, rewrites: &[Rewrite]) -> Result<u64, CommitError> {
    let (mut rest, mut all) = (rewrites, 0);
    while !rest.is_empty() {
        let options = CommitOptions { watermark: Watermark::Copygc };
        let done = engine.run(options, |transaction| {
            let some = &rest[..rest.len().min(transaction.keys_max(KEYS_MAX))];
            let mut changed = 0;
            for Rewrite { btree, old, new } in some {
                let now = transaction.get(*btree, old.k.pos)?;
                if now.is_some_and(|now| now.key() == old.as_key()) {
                    transaction.put(*btree, new.clone());
                    changed += 1;
                }
            }
            Ok::<_, CommitError>((some.len(), changed))
        })?;
        let (looked_at, changed) = done.value;
        (rest, all) = (&rest[looked_at..], all + changed);
    }
    Ok(all)
}

/// Why a bucket could not be emptied.
enum Failure {
    /// For a reason that lies in the bucket; in words.
    Here(String),
    /// For one that would stop anything.
    Everywhere(CommitError),
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Tree(_) | CommitError::Inconsistent(_) => Failure::Here(error.to_string()),
            error => Failure::Everywhere(error),
        }
    }
}

impl From<frazil_ondisk::DecodeError> for Failure {
    fn from(error: frazil_ondisk::DecodeError) -> Self {
        Failure::Here(error.to_string())
    }
}
