//! Changing files: the operations, each of them one transaction (spec 40 §15).
//!
//! # The shape of an operation
//!
//! [`WriteFs`] is what adapters hold, and [`Front`] what they get of it to change something. An operation opens a transaction with `Front::change`, looks up what it
//! needs through the [`op::Op`] it is given, decides, puts keys, and returns; if something it looked at has changed meanwhile it is run again. What follows
//! from keys (counters, backpointers, `deleted_inodes`, what versions of inodes know of each other) is added by the volume's triggers. So
//! an operation either happened, with everything that belongs to it, or it did not, also after a crash.
//!
//! What cannot be one transaction is a bounded series of them, and something stored says that it is under way: the removal of an inode that
//! nobody refers to any more (`remove.rs`), and the deletion of a subvolume (`snapshots.rs`).
//!
//! # Who may do what
//!
//! Whether somebody may read, write or search is asked by the adapter, as the kernel does with `default_permissions`. Here is what
//! depends on the state the operation changes, or what the kernel cannot know: ownership for changes of attributes, the sticky bit,
//! immutable and append-only inodes, read-only subvolumes, set-id bits that must go ([`Caller`]).
//!
//! # Objects in use
//!
//! An inode without a name lives as long as somebody uses it. The adapter says so with [`WriteFs::hold`] and [`WriteFs::release`] (`holds.rs`).
//!
//! Everything is deterministic, given the engine, the clock and the seed.
//!
//! | to find | look in |
//! |---|---|
//! | who may change something now: freezing | `front.rs` |
//! | what operations do all the time: subvolumes, inodes, times | `op.rs` |
//! | who asks; what must be allowed | `caller.rs` |
//! | numbers of new inodes | `numbers.rs` |
//! | hash tables of names and attributes | `chain.rs` |
//! | entries of directories | `entries.rs` |
//! | `create`, `mkdir`, `mknod`, `symlink`, `O_TMPFILE` | `create.rs` |
//! | `link`, `unlink`, `rmdir` | `link.rs` |
//! | `rename` | `rename.rs` |
//! | `chmod`, `chown`, `utimens`, flags | `attributes.rs` |
//! | when something was last read | `access.rs` |
//! | extended attributes and options of inodes | `xattr.rs` |
//! | access control lists | `acl.rs` |
//! | what is in use, and what remains of removed directories | `holds.rs` |
//! | removal of inodes | `remove.rs` |
//! | quotas: who uses how much, and who may | `quota.rs` |
//! | the content of files: writing, truncating, sharing | `data/` |
//! | making subvolumes and snapshots, deleting them | `subvol.rs`, `snapshots.rs` |

mod access;
mod acl;
mod attributes;
mod caller;
mod chain;
mod create;
mod data;
mod entries;
mod front;
mod holds;
mod link;
mod numbers;
mod op;
mod quota;
mod remove;
mod rename;
mod snapshots;
mod subvol;
mod xattr;

use std::ops::ControlFlow;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};

use frazil_btree::write::Engine;
use frazil_btree::{LiveSnapshots, SnapshotTable};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::features::Features;
use frazil_ondisk::superblock::options::OptionSpec;
use frazil_ondisk::units::SubvolId;
use frazil_volume::write::{Live, WallClock};
use parking_lot::{Mutex, RwLock};

use crate::attr::{Attr, DirEntry, FsStat, NodeId, Timestamp};
use crate::error::{Error, Result};
use crate::file::LoggedLosses;
use crate::fs::stat_of;
use crate::hashed::OnDamage;
use crate::make::Maker;
use crate::namespace::Namespace;
use crate::subvol::{SubvolCache, SubvolInfo};
use crate::unfinished::Unfinished;
use data::ContentLocks;
use holds::Holds;
use numbers::Numbers;
use quota::Quotas;
use remove::Doomed;

pub use access::AccessTimes;
pub use attributes::{SetAttr, SetTime};
pub use caller::Caller;
pub use create::NewNode;
pub use data::Allocate;
pub use front::Front;
pub use quota::{QuotaChoice, QuotaKind, QuotaKinds, QuotaReport, QuotaUse};
pub use rename::RenameMode;
pub use snapshots::Deletion;
pub use xattr::SetXattr;

/// Inline data is never longer, whatever the block size (spec 40 §7.5).
const INLINE_BYTES_MAX: u64 = 1024;

/// What is called when an operation has left something to be done.
type OnLeft = dyn Fn() + Send + Sync;

/// What operations draw from outside.
pub struct WriteFsOptions {
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// Where the seeds of hashes come from: unpredictable in a mount, given in a simulator.
    pub seed: u64,
    /// Which kinds of quotas are on, if that is not as the superblock says.
    pub quotas: QuotaChoice,
}

impl WriteFsOptions {
    /// As the superblock says.
    pub fn new(clock: Arc<dyn WallClock>, seed: u64) -> WriteFsOptions {
        WriteFsOptions { clock, seed, quotas: QuotaChoice::default() }
    }
}

/// A volume whose files can be changed. Shared by all threads. See the [module](self).
///
/// Besides the reasons named at each, every operation can fail with [`Error::Stale`] for an object that does not exist, [`Error::ReadOnly`] in a
/// read-only subvolume, [`Error::NoSpace`], and [`Error::Io`].
pub struct WriteFs {
    pub(crate) live: Arc<Live>,
    pub(crate) names: Namespace,
    /// As it was when the volume was opened; options do not change.
    pub(crate) superblock: Superblock,
    maker: Maker,
    clock: Arc<dyn WallClock>,
    random: Mutex<fastrand::Rng>,
    numbers: Numbers,
    quotas: Quotas,
    holds: Holds,
    /// A snapshot must not catch a file in the middle of an operation of several transactions: these hold it for reading, who makes
    /// snapshots for writing (spec 40 §13.5).
    pub(crate) snapshot_gate: RwLock<()>,
    content: ContentLocks,
    /// Released, and to be removed.
    doomed: Doomed,
    /// Called when there is something for the background.
    on_left: OnceLock<Box<OnLeft>>,
    logged: LoggedLosses,
    /// The largest id of a subvolume that was deleted. Whoever was told of its objects knows them by that id, so it is not used again while the
    /// volume is open.
    deleted_subvol_max: AtomicU32,
    /// Longest data that is stored in its key, in bytes (spec 40 §7.5).
    pub(crate) inline_max: usize,
}

impl WriteFs {
    /// The files of a volume that is being written. What a crash left unfinished is not finished by that: see [`Front::remove_dead_inodes`] and
    /// [`Front::delete_unlinked_step`].
    ///
    /// # Errors
    /// If an option in the superblock has no meaning, or the snapshots cannot be read, or, with quotas, the inodes.
    pub fn new(live: Arc<Live>, options: WriteFsOptions) -> Result<WriteFs> {
        let WriteFsOptions { clock, seed, quotas } = options;
        let superblock = live.superblock().view().superblock.clone();
        let maker = Maker::of(&superblock).map_err(|e| Error::Io(format!("superblock: {e}")))?;
        let short = OptionSpec::by_name("inodes_32bit").is_none_or(|spec| superblock.option(spec) != 0);
        let inline_max = (superblock.block_bytes() / 2).min(INLINE_BYTES_MAX);
        let (table, errors) = SnapshotTable::load(live.btrees());
        if let Some(error) = errors.into_iter().next() {
            return Err(error.into());
        }
        let names = Namespace {
            btrees: Arc::clone(live.btrees()),
            snapshots: LiveSnapshots::new(Arc::new(table)),
            subvols: SubvolCache::default(),
            is_written: true,
            unfinished: Unfinished::default(),
            time_base: superblock.time_base(),
            casefold: superblock.flags.casefold(),
        };
        let quotas = Quotas::load(&superblock, quotas, &names)?;
        Ok(WriteFs {
            live,
            names,
            maker,
            clock,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            numbers: Numbers::new(short),
            quotas,
            holds: Holds::default(),
            snapshot_gate: RwLock::default(),
            content: ContentLocks::default(),
            doomed: Doomed::default(),
            on_left: OnceLock::new(),
            logged: LoggedLosses::default(),
            deleted_subvol_max: AtomicU32::new(0),
            inline_max: inline_max as usize,
            superblock,
        })
    }

    /// The volume.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Has `tell` called whenever an operation leaves something to be done in the background: by [`Front::remove_released`] or
    /// [`Front::delete_unlinked_step`]. It must not wait. Only the first call counts.
    pub fn on_left(&self, tell: impl Fn() + Send + Sync + 'static) {
        // A second one is refused, as it says.
        drop(self.on_left.set(Box::new(tell)));
    }

    /// An operation has left something to be done in the background.
    pub(crate) fn left_something(&self) {
        if let Some(tell) = self.on_left.get() {
            tell();
        }
    }

    /// What changes the b-trees.
    pub(crate) fn engine(&self) -> &Engine {
        self.live.engine()
    }

    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix_ns(self.clock.now().as_nanos() as i128)
    }

    /// A random number.
    fn random(&self) -> u64 {
        self.random.lock().u64(..)
    }

    /// Says in the superblock that a feature is in use, before the first key that needs it.
    pub(crate) fn use_feature(&self, feature: Features) -> Result<()> {
        let superblock = self.live.superblock();
        if superblock.view().superblock.features.contains(feature) {
            return Ok(());
        }
        superblock.use_features(feature).map_err(|error| Error::Io(format!("superblock: {error}")))
    }

    /// Refuses to add names, attributes or small content to a volume that is full.
    fn must_have_room(&self) -> Result<()> {
        Ok(self.live.room().admit_keys()?)
    }

    /// As [`crate::Fs::lookup`].
    ///
    /// # Errors
    /// As there.
    pub fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr> {
        // Between the entry and its inode the file may have been removed, and another have got the name.
        let mut found = self.names.lookup(dir, name);
        for _ in 0..RACES_MAX {
            match found {
                Err(Error::Io(_)) => found = self.names.lookup(dir, name),
                other => return other,
            }
        }
        found
    }

    /// As [`crate::Fs::getattr`]; also of a removed directory that somebody holds.
    ///
    /// # Errors
    /// The general ones.
    pub fn getattr(&self, node: NodeId) -> Result<Attr> {
        match self.names.getattr(node) {
            Err(Error::Stale(_)) if self.holds.remains(node).is_some() => {
                let inode = self.holds.remains(node).ok_or(Error::Stale(node))?;
                self.names.attr(node, &inode)
            }
            other => other,
        }
    }

    /// As [`crate::Fs::parent`].
    ///
    /// # Errors
    /// As there.
    pub fn parent(&self, node: NodeId) -> Result<NodeId> {
        self.names.parent(node)
    }

    /// As [`crate::Fs::path_of`].
    pub fn path_of(&self, node: NodeId) -> Vec<u8> {
        self.names.path_of(node)
    }

    /// As [`crate::Fs::readdir`]; a removed directory that somebody holds is empty.
    ///
    /// # Errors
    /// As there.
    pub fn readdir(
        &self,
        dir: NodeId,
        from: u64,
        show: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.names.readdir(dir, from, OnDamage::Stop, show) {
            Err(Error::Stale(node)) if node == dir && self.holds.remains(dir).is_some() => Ok(()),
            other => other,
        }
    }

    /// As [`crate::Fs::readdir_plus`].
    ///
    /// # Errors
    /// As there.
    pub fn readdir_plus(
        &self,
        dir: NodeId,
        from: u64,
        show: &mut dyn FnMut(DirEntry<'_>, Option<&Attr>) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.names.readdir_plus(dir, from, show) {
            Err(Error::Stale(node)) if node == dir && self.holds.remains(dir).is_some() => Ok(()),
            other => other,
        }
    }

    /// As [`crate::Fs::getxattr`].
    ///
    /// # Errors
    /// As there.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        self.names.getxattr(&self.superblock, node, name)
    }

    /// As [`crate::Fs::listxattr`].
    ///
    /// # Errors
    /// As there.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.names.listxattr(node)
    }

    /// As [`crate::Fs::statfs`], promises included.
    ///
    /// # Errors
    /// None at present.
    pub fn statfs(&self) -> Result<FsStat> {
        Ok(stat_of(&self.superblock, &self.live.space().usage()))
    }

    /// Whether a directory may take names that differ in case for the same.
    pub fn folds_case(&self) -> bool {
        self.names.casefold || self.superblock.features.contains(Features::CASEFOLDING)
    }

    /// The objects in a subvolume that are held.
    pub fn held_in(&self, subvol: SubvolId) -> Vec<NodeId> {
        self.holds.held_in(subvol)
    }

    /// As [`crate::Fs::subvolumes`].
    ///
    /// # Errors
    /// As there.
    pub fn subvolumes(&self) -> Result<Vec<SubvolInfo>> {
        self.names.subvolumes()
    }
}

/// How often a lookup that found an entry without an inode is repeated before that is taken for damage.
const RACES_MAX: usize = 3;

/// Adapters share it between threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<WriteFs>();
};
