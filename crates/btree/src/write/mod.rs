//! Changing b-trees: the engine.
//!
//! # The shape of it
//!
//! * **A node is what is on disk plus a delta** ([`crate::delta`]). Changing a key puts it into its leaf's delta and nothing else; a key that
//!   changes often costs one entry, however often. Readers hold versions and wait for nobody.
//! * **Planning is optimistic, commits are serialised.** A [`Transaction`] reads without locks, notes what it read ([`crate::reads`]), and collects
//!   changes. Its commit takes the one *commit lock*, makes sure that what was read is still true, runs the volume's triggers, reserves
//!   room in the journal, and puts the keys where they belong: microseconds, no I/O, no waiting. Whatever would have to wait (a node that
//!   is not in memory, a full journal, a full node, a superblock that must be written first) is waited for without the lock, and the
//!   commit, or the whole transaction, begins again.
//! * **Written behind.** A leaf that has changes pins the oldest journal entry they are in ([`dirty`]). When the journal wants the entry free,
//!   or memory is short, the delta is appended to the node on disk and the pointer to the node is updated by a commit of its own
//!   ([`write_back`]). Backpointers, counters and other keys nobody reads soon take a detour through a buffer that is sorted before it is
//!   applied ([`buffer`]). Neither is waited for by who commits, as long as the thread that does it keeps up ([`behind`]).
//! * **Nodes are replaced, never rearranged in place** ([`reshape`]). A full, sparse or damaged node, or two small neighbours, become new nodes: these are
//!   written first, while others go on reading and changing the old one; then one commit switches the pointers in the parent (or the root),
//!   gives the old space back, and moves what changed meanwhile into the new nodes. Each replacement is one step of one level, so there
//!   is nothing to be undone after a crash: before the commit is durable the old nodes count, afterwards the new ones.
//!
//! # Locks
//!
//! Commit lock → a dirty node's own lock → a cell's lock → the journal's. The commit lock is never held across I/O or while
//! waiting; none of the others is ever held by a reader for longer than it takes to copy a pointer.
//!
//! # Progress
//!
//! Write-back and replacement commit at the watermark of interior updates, for which the journal keeps room, and never wait for a front transaction
//! (INV-5). A delta may outgrow its node on disk; whoever notices replaces the node at once, and only who finds a delta grown by a whole
//! node waits for that.

mod behind;
mod buffer;
mod commit;
mod dirty;
mod extents;
mod hooks;
mod node_writer;
mod replay;
mod reshape;
mod stage;
mod transaction;
mod write_back;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use frazil_journal::Journal;
use frazil_ondisk::units::NodeSeq;
use parking_lot::Mutex;

use crate::ptr::NodeId;
use crate::trees::{Btrees, Roots};
use behind::Behind;
use buffer::Buffer;
use dirty::DirtyNode;

pub use behind::WriteBehind;
pub use commit::CommitOptions;
pub use extents::Overwritten;
pub use hooks::{Blocked, Change, CommitError, NodeArea, NodeSpace, Stage, Triggers};
pub use node_writer::NodeWriter;
pub use replay::SPACE;
pub use transaction::{Done, Transaction};

/// Spreads small differences over all bits of a number (2⁶⁴ divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Tunables of an engine.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Where the random numbers of nodes come from, together with the number of the journal entry the engine begins with, so that they do not come
    /// again in the next life of a volume; a simulator gives a seed, a mount something unpredictable.
    pub seed: u64,
    /// Test hook: one in so many transactions is made to begin again although nothing happened; 0 for none.
    pub restart_one_in: u32,
}

/// Everything that an engine works on.
pub struct EngineParts {
    /// The b-trees, without overlay: what the journal holds is replayed.
    pub trees: Arc<Btrees>,
    /// The journal.
    pub journal: Arc<Journal>,
    /// Derives keys from keys.
    pub triggers: Arc<dyn Triggers>,
    /// Gives places for nodes.
    pub space: Arc<dyn NodeSpace>,
    /// Writes nodes.
    pub writer: NodeWriter,
}

/// Changes b-trees. See the [module](self). Shared by all threads.
pub struct Engine {
    trees: Arc<Btrees>,
    journal: Arc<Journal>,
    triggers: Arc<dyn Triggers>,
    space: Arc<dyn NodeSpace>,
    writer: NodeWriter,
    committer: Mutex<Committer>,
    behind: Behind,
    random: Mutex<fastrand::Rng>,
    restart_one_in: u32,
    me: Weak<Engine>,
}

/// What the commit lock protects, besides the trees.
pub(crate) struct Committer {
    /// Nodes with changes that are not on disk.
    dirty: HashMap<NodeId, Arc<DirtyNode>>,
    /// The same nodes, oldest dirt first; some may be clean or gone by now.
    oldest: VecDeque<Weak<DirtyNode>>,
    /// Bytes of memory they take.
    dirty_bytes: usize,
    buffer: Buffer,
}

/// How much there is to be written back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Nodes with changes that are not on disk.
    pub dirty_nodes: usize,
    /// Keys in the buffer.
    pub buffered_keys: usize,
}

impl Engine {
    /// An engine over these parts.
    pub fn new(parts: EngineParts, options: &EngineOptions) -> Arc<Engine> {
        let EngineParts { trees, journal, triggers, space, writer } = parts;
        // Two roots with one number are more than the reference can bear.
        let seed = options.seed ^ journal.status().seq.wrapping_mul(SPREAD);
        Arc::new_cyclic(|me| {
            let buffer = Buffer::new(&journal, me.clone());
            let (dirty, oldest) = (HashMap::new(), VecDeque::new());
            let committer = Committer { dirty, oldest, dirty_bytes: 0, buffer };
            Engine {
                trees,
                journal,
                triggers,
                space,
                writer,
                committer: Mutex::new(committer),
                behind: Behind::default(),
                random: Mutex::new(fastrand::Rng::with_seed(seed)),
                restart_one_in: options.restart_one_in,
                me: me.clone(),
            }
        })
    }

    /// The b-trees. What the buffer holds is not in them: see [`Engine::flush_buffer`].
    pub fn trees(&self) -> &Arc<Btrees> {
        &self.trees
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The roots as the last commit left them.
    pub fn roots(&self) -> Roots {
        let _settled = self.committer.lock();
        self.trees.roots()
    }

    /// How much there is to be written back.
    pub fn status(&self) -> EngineStatus {
        let committer = self.committer.lock();
        EngineStatus { dirty_nodes: committer.dirty.len(), buffered_keys: committer.buffer.len() }
    }

    /// Whether so many nodes are dirty that reclaim should write some back whatever their age.
    pub fn has_much_dirt(&self) -> bool {
        self.committer.lock().dirty_bytes > self.dirty_bytes_max() / 2
    }

    /// Dirty nodes may fill two thirds of the cache; a few of them always fit.
    fn dirty_bytes_max(&self) -> usize {
        (self.trees.cache.bytes_max() / 3 * 2).max(8 * self.writer.node_bytes())
    }

    /// A number for a new node.
    fn new_node_seq(&self) -> NodeSeq {
        NodeSeq(self.random.lock().u64(1..))
    }

    /// Whether a test wants a transaction to begin again.
    fn restarts(&self) -> bool {
        self.restart_one_in != 0 && self.random.lock().u32(0..self.restart_one_in) == 0
    }
}
