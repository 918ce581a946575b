//! What the engine asks of the volume around it: derived keys, and room for nodes.
//!
//! The engine knows keys and nodes. That an extent implies a backpointer, that a bucket has a state, that space may run out: that is the
//! volume's knowledge, and enters through two traits.
//!
//! * [`Triggers`] sees every commit before it is journalled and adds what follows from it (spec 50 §4), so that both stand in one
//!   journal entry.
//! * [`NodeSpace`] gives places for new nodes.
//!
//! Triggers run under the commit lock: what they read is current and does not change before their commit is done. In return they must not
//! wait. What needs waiting is returned as [`Blocked`]; the engine does it without locks and begins the commit again.

use frazil_journal::{JournalError, Watermark};
use frazil_ondisk::units::Seq;
use frazil_ondisk::values::accounting::AccountingPos;
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use crate::error::Error;

/// Why something could not be written. Nothing of the transaction has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The journal stopped, or would not wait.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// A node that must be changed or looked at cannot be had.
    #[error("{0}")]
    Tree(#[from] Error),
    /// There is no room on the devices.
    #[error("no space left")]
    NoSpace,
    /// A transaction that does not fit an entry of the journal.
    #[error("a transaction of {words} words is larger than the journal can take at once ({limit})")]
    TooLarge {
        /// What it needs.
        words: u32,
        /// What there is.
        limit: u32,
    },
    /// What is stored contradicts itself, so that the change cannot be derived; says where.
    #[error("{0}")]
    Inconsistent(String),
    /// A device or the superblock could not be written; says which.
    #[error("{0}")]
    Device(String),
    /// Nothing is written any more.
    #[error("the volume is read-only")]
    ReadOnly,
}

/// Why a trigger cannot go on right now.
pub enum Blocked {
    /// It failed, and so does the commit.
    Failed(CommitError),
    /// A node must be read first; returned by [`Stage`], to be passed on.
    Absent {
        /// Its b-tree.
        btree: BtreeId,
        /// A position it covers.
        pos: Bpos,
    },
    /// This must be done first, without locks; then the commit begins again.
    First(Box<dyn FnOnce() -> Result<(), CommitError> + Send>),
}

impl<E: Into<CommitError>> From<E> for Blocked {
    fn from(error: E) -> Self {
        Blocked::Failed(error.into())
    }
}

/// One key that a commit changes.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its b-tree.
    pub btree: BtreeId,
    /// 0 for keys of leaves; the level of the node that holds it, for a pointer to a node; one above its level for the pointer to a root.
    pub level: u8,
    /// What is there now.
    pub old: Option<KeyBuf>,
    /// What will be: of type [`KeyType::DELETED`] if nothing.
    pub new: KeyBuf,
}

impl Change {
    /// What will be there.
    pub fn inserted(&self) -> Option<&KeyBuf> {
        (self.new.k.ty != KeyType::DELETED).then_some(&self.new)
    }
}

/// The commit a trigger works on.
pub trait Stage {
    /// The key of a leaf exactly at `pos` as the commit will leave it; whiteouts are keys.
    ///
    /// # Errors
    /// If its node is not in memory: pass that on.
    fn get(&mut self, btree: BtreeId, pos: Bpos) -> Result<Option<KeyBuf>, Blocked>;

    /// The first key of a leaf at or above `from` and at most `to`, as the commit will leave it.
    ///
    /// # Errors
    /// If a node is not in memory: pass that on.
    fn first(&mut self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked>;

    /// The last key of a leaf at or below `to` and at least `from`, as the commit will leave it.
    ///
    /// # Errors
    /// If a node is not in memory: pass that on.
    fn last(&mut self, btree: BtreeId, from: Bpos, to: Bpos) -> Result<Option<KeyBuf>, Blocked>;

    /// Adds a change of a leaf to the commit, replacing an earlier one at that position; [`KeyType::DELETED`] removes. Nothing is derived from
    /// it any more.
    fn update(&mut self, btree: BtreeId, key: KeyBuf);

    /// Adds a change of a b-tree that is written behind (lru, backpointers, deleted_inodes, rebalance_work): nobody reads it soon, and
    /// nothing may depend on what is there now (spec 70 §3).
    fn buffer(&mut self, btree: BtreeId, key: KeyBuf);

    /// Adds to counters.
    fn account(&mut self, pos: AccountingPos, counters: [i64; 3]);

    /// The counters added so far, each position once.
    fn accounted(&self) -> &[(AccountingPos, [i64; 3])];
}

/// Derives what follows from changes. See the [module](self).
pub trait Triggers: Send + Sync {
    /// Adds to `stage` everything that follows from `changes`, which are in the order of b-tree, level (the higher first) and position.
    /// May be called again for the same commit, with nothing staged.
    ///
    /// # Errors
    /// See [`Blocked`].
    fn run(&self, stage: &mut dyn Stage, changes: &[Change]) -> Result<(), Blocked>;

    /// The commit is going to be in entry `seq` and cannot fail any more: writes the number into keys that carry it (alloc, inodes; spec
    /// 50 §4.4). `old` is what the key replaces. Must keep the length of the value.
    fn stamp(&self, seq: Seq, btree: BtreeId, old: Option<&KeyBuf>, new: &mut KeyBuf);

    /// The commit is in entry `seq` and in memory: counters in memory follow, and buckets that became empty are noted. `changes` are all,
    /// derived ones included. Still under the commit lock.
    fn committed(&self, seq: Seq, changes: &[Change], accounted: &[(AccountingPos, [i64; 3])]);
}

/// A place for a new node, on each replica's device.
pub struct NodeArea {
    /// One pointer per replica; not empty.
    pub ptrs: Vec<ExtentPtr>,
    /// Keeps the place from being given to others until the pointers are committed; dropped then, or when they will not be.
    pub hold: Box<dyn Send>,
}

/// Gives places for nodes.
pub trait NodeSpace: Send + Sync {
    /// A place for one node. May wait, but not for what only reclaim can provide (INV-5); returns with the superblock saying that there may be
    /// nodes (spec 50 §6.3).
    ///
    /// # Errors
    /// [`CommitError::NoSpace`] if there is none for this watermark.
    fn allocate(&self, watermark: Watermark) -> Result<NodeArea, CommitError>;
}
