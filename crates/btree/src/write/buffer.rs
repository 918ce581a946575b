//! Keys that are written behind (spec 70 §3).
//!
//! Each extent written adds a backpointer, perhaps an entry of a list, and half a dozen counters, all scattered over trees that nobody
//! reads soon. They are journalled with the commit, as all keys, but wait here to be put into their leaves in sorted batches: of several
//! keys at one position only the last one is put, and counters are added up.
//!
//! Keys collect in one half while the other is emptied. Each half pins the oldest entry of what it holds; a key goes into its leaf under
//! that pin, and the half's pin goes when it is empty. A buffered key is never journalled again (a newer version may be in the journal
//! already); its leaf pins the entry it came from.
//!
//! Counters are differences. The key's version says up to which difference the b-tree's key includes them; so a difference is added exactly once,
//! however often it is replayed (spec 50 §2.8).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use frazil_device::waiting;
use frazil_journal::engine::{Dirty, FlushFailed, PinClass, Protects};
use frazil_journal::{Journal, Pin};
use frazil_ondisk::units::Seq;
use frazil_ondisk::values::accounting::Counters;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use parking_lot::{Condvar, Mutex};

use super::dirty::{DirtyNode, Fill};
use super::hooks::{Blocked, CommitError};
use super::stage::leaf;
use super::{Committer, Engine};
use crate::write::commit::note_full;

/// Keys in the buffer before it is emptied.
const KEYS_MAX: usize = 16_384;
/// Keys in the buffer before whoever adds one empties it, even if there is a thread for that: that does not keep up.
const KEYS_MOST: usize = 2 * KEYS_MAX;
/// Keys put into leaves before the commit lock is let go for a moment.
const BATCH: usize = 256;

/// A key, and the entries it is in: of several the oldest, which its leaf must pin, and the newest, which is in effect.
struct Buffered {
    key: KeyBuf,
    oldest: Seq,
    newest: Seq,
}

/// One half.
#[derive(Default)]
struct Half(BTreeMap<(BtreeId, Bpos), Buffered>);

/// The buffer. Protected by the commit lock.
pub(crate) struct Buffer {
    incoming: Half,
    /// Being emptied, by whoever holds [`Owner::emptying`].
    outgoing: Half,
    /// Which of the pins is that of the incoming half.
    pin: usize,
    owner: Arc<Owner>,
}

/// What reclaim asks to empty the buffer.
pub(crate) struct Owner {
    pins: [Pin; 2],
    engine: Weak<Engine>,
    /// One thread at a time empties it; others wait for that one.
    emptying: Mutex<bool>,
    emptied: Condvar,
}

impl Half {
    fn add(&mut self, btree: BtreeId, key: KeyBuf, seq: Seq) {
        let at = (btree, key.k.pos);
        match self.0.get_mut(&at) {
            None => {
                self.0.insert(at, Buffered { key, oldest: seq, newest: seq });
            }
            Some(there) => {
                there.key = if btree == BtreeId::ACCOUNTING { sum(&there.key, &key) } else { key };
                there.newest = seq;
            }
        }
    }
}

/// The sum of counters, with the version of the newer.
fn sum(a: &KeyBuf, b: &KeyBuf) -> KeyBuf {
    let counters = |key: &KeyBuf| -> Vec<i64> {
        Counters::decode(&key.value).map_or_else(|_| Vec::new(), |counters| counters.iter().collect())
    };
    let (a_counters, b_counters) = (counters(a), counters(b));
    let len = a_counters.len().max(b_counters.len());
    let at = |list: &[i64], i: usize| list.get(i).copied().unwrap_or(0);
    let mut value = Vec::with_capacity(len * 8);
    Counters::encode((0..len).map(|i| at(&a_counters, i).wrapping_add(at(&b_counters, i))), &mut value);
    let mut key = KeyBuf::new(KeyType::ACCOUNTING, a.k.pos, 0, value);
    key.k.version = a.k.version.max(b.k.version);
    key
}

impl Buffer {
    pub(crate) fn new(journal: &Arc<Journal>, engine: Weak<Engine>) -> Self {
        let pins = [0, 1].map(|tag| Pin::new(journal, PinClass::Other, tag));
        let owner = Owner { pins, engine, emptying: Mutex::new(false), emptied: Condvar::new() };
        Self { incoming: Half::default(), outgoing: Half::default(), pin: 0, owner: Arc::new(owner) }
    }

    pub(crate) fn len(&self) -> usize {
        self.incoming.0.len() + self.outgoing.0.len()
    }

    /// Takes keys and counters that the entry `under` holds.
    pub(crate) fn add_all(
        &mut self,
        keys: Vec<(BtreeId, KeyBuf)>,
        counters: Vec<KeyBuf>,
        under: &impl Protects,
    ) {
        if keys.is_empty() && counters.is_empty() {
            return;
        }
        let seq = under.protected_seq();
        self.owner.pins[self.pin].add(under, &self.owner);
        keys.into_iter().for_each(|(btree, key)| self.incoming.add(btree, key, seq));
        counters.into_iter().for_each(|key| self.incoming.add(BtreeId::ACCOUNTING, key, seq));
    }

    /// The other half becomes the incoming one, if there is anything to be emptied.
    fn turn(&mut self) -> bool {
        if self.outgoing.0.is_empty() && !self.incoming.0.is_empty() {
            std::mem::swap(&mut self.incoming, &mut self.outgoing);
            self.pin ^= 1;
        }
        !self.outgoing.0.is_empty()
    }
}

impl Engine {
    /// Puts everything that the buffer holds now into the trees, so that they can be read.
    ///
    /// # Errors
    /// If a leaf cannot be had, or there is no room for a new one; the rest stays in the buffer.
    pub fn flush_buffer(&self) -> Result<(), CommitError> {
        let owner = Arc::clone(&self.committer.lock().buffer.owner);
        let mut emptying = owner.emptying.lock();
        owner.emptied.wait_while(&mut emptying, |emptying| *emptying);
        *emptying = true;
        drop(emptying);
        // Twice: what is left of an earlier, failed attempt, and then what has collected since.
        let result = self.empty_half().and_then(|()| self.empty_half());
        *owner.emptying.lock() = false;
        owner.emptied.notify_all();
        result
    }

    /// Empties the buffer if it has grown too large, or has it emptied.
    pub(crate) fn relieve_buffer(&self) -> Result<(), CommitError> {
        let keys = self.committer.lock().buffer.len();
        if keys <= KEYS_MAX || (self.behind.leave_buffer() && keys <= KEYS_MOST) {
            return Ok(());
        }
        waiting::about_to_wait();
        self.flush_buffer()
    }

    fn empty_half(&self) -> Result<(), CommitError> {
        if !self.committer.lock().buffer.turn() {
            return Ok(());
        }
        loop {
            let mut full = Vec::new();
            let mut committer = self.committer.lock();
            let blocked = self.put_batch(&mut committer, &mut full).err();
            let done = committer.buffer.outgoing.0.is_empty();
            if done {
                let buffer = &committer.buffer;
                buffer.owner.pins[buffer.pin ^ 1].release();
            }
            drop(committer);
            for node in full {
                self.write_back(&node)?;
            }
            match blocked {
                None if done => return Ok(()),
                None => {}
                Some(Wanted::Root(btree)) => self.make_root(btree)?,
                Some(Wanted::Leaf(Blocked::Absent { btree, pos })) => {
                    self.trees.descend(btree, pos, 0)?;
                }
                Some(Wanted::Leaf(Blocked::Failed(error))) => return Err(error),
                Some(Wanted::Leaf(Blocked::First(action))) => action()?,
            }
        }
    }

    /// Puts some keys into their leaves, in order.
    fn put_batch(&self, committer: &mut Committer, full: &mut Vec<Arc<DirtyNode>>) -> Result<(), Wanted> {
        for _ in 0..BATCH {
            let Some((&(btree, pos), buffered)) = committer.buffer.outgoing.0.first_key_value() else {
                break;
            };
            let cell = match leaf(&self.trees, btree, pos).map_err(Wanted::Leaf)? {
                Some(cell) => cell,
                // Nothing is there that could be deleted.
                None if buffered.key.k.ty == KeyType::DELETED => {
                    committer.buffer.outgoing.0.pop_first();
                    continue;
                }
                None => return Err(Wanted::Root(btree)),
            };
            let node = self.dirty(committer, &cell);
            let Buffer { outgoing, owner, pin, .. } = &mut committer.buffer;
            let Some((_, Buffered { key, oldest, newest })) = outgoing.0.pop_first() else { break };
            let key = if btree == BtreeId::ACCOUNTING {
                match cell.load().get(pos) {
                    Some(there) if there.k.ty == KeyType::ACCOUNTING => sum(&there.to_owned(), &key),
                    _ => key,
                }
            } else {
                key
            };
            let under = owner.pins[*pin ^ 1].covering(oldest);
            if node.put(Arc::new(key), &under, newest) == Fill::Full {
                note_full(full, node);
            }
        }
        Ok(())
    }
}

/// What emptying has to have first.
enum Wanted {
    Root(BtreeId),
    Leaf(Blocked),
}

impl Dirty for Owner {
    fn flush(&self, _tag: u64, seq: Seq) -> Result<(), FlushFailed> {
        let Some(engine) = self.engine.upgrade() else { return Ok(()) };
        engine.flush_buffer().map_err(|error| FlushFailed { seq, reason: error.to_string() })
    }
}
