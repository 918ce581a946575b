//! A volume that is being written: its parts, put together and running.
//!
//! [`super::open_rw`] leads up to a journal that runs and b-trees that are as they were when the volume was left. [`Live::start`] builds the rest on that:
//!
//! 1. **Space** is loaded from the b-trees as the journal leaves them, before anything is replayed, because already the first node that is
//!    replaced during replay needs a free place.
//! 2. **Triggers, allocator and engine** come to life, and know each other.
//! 3. **Replay** brings what only the journal holds into the b-trees.
//! 4. **Threads** drive the journal, write what commits have filled, and make room, unless a simulator wants to do that itself.
//!
//! From then on its [`Lifecycle`] says whether it may be changed: it freezes and stops it, through [`Back`], of which this is the one.
//!
//! What a crash left *half done* is known here only as keys ([`Live::unfinished`]): deleting files that had no name any more, and finishing shifts
//! of ranges, is for the layer that knows files, and should be its first act.

use std::sync::{Arc, OnceLock, Weak};

use frazil_btree::write::{
    CommitError, Engine, EngineOptions, EngineParts, NodeWriter, Triggers, WriteBehind,
};
use frazil_btree::{Btrees, Error as TreeError, NodeStore, Overlay, ReplicaFailure};
use frazil_device::DeviceSet;
use frazil_journal::Journal;
use frazil_journal::engine::driver::Driver;
use frazil_journal::engine::{Dirt, HaltReason};
use frazil_ondisk::crypto::Key as CryptKey;
use frazil_ondisk::fsck_errors::FsckErrorId;
use frazil_ondisk::units::{DevIndex, Seq};
use frazil_ondisk::values::snapshot::Snapshot;
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{BtreeId, Key, KeyType};
use parking_lot::Mutex;

use super::data::DataWriter;
use super::host::{JournalEvents, VolumeHost};
use super::moving::Mover;
use super::patience::Patience;
use super::space::{Allocator, Relief, RoomMaker, RoomThread, Space};
use super::start::Foundation;
use super::stop::{self, WriteBack};
use super::superblock::{IoErrorKind, SuperblockStore};
use super::superblocks::Superblocks;
use super::triggers::Deriver;
use crate::data::{BadCopy, CopyProblem, Reader, ReaderOptions};
use crate::error::Notice;
use crate::lifecycle::{Back, Lifecycle, LifecycleError};
use crate::open::Recovery;

/// How a volume is to run.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// For the engine.
    pub engine: EngineOptions,
    /// Memory for nodes while space is loaded from a journal that is not replayed yet.
    pub cache_bytes: usize,
    /// Whether threads of its own drive it.
    pub threads: bool,
}

/// See the [module](self). Shared by all; every method may be called from any thread.
pub struct Live {
    engine: Arc<Engine>,
    space: Arc<Space>,
    allocator: Arc<Allocator>,
    room: Arc<RoomMaker>,
    data: DataWriter,
    reader: Arc<Reader>,
    host: Arc<VolumeHost>,
    superblock: Arc<SuperblockStore>,
    devices: DeviceSet,
    patience: Arc<Patience>,
    key: Option<CryptKey>,
    lifecycle: Arc<Lifecycle>,
    threads: Mutex<Option<Threads>>,
    wants_threads: bool,
    recovery: Recovery,
    notices: Vec<Notice>,
    /// Held here, because the host holds it weakly.
    _listener: Arc<Listener>,
    _owner: Option<Owner>,
}

/// The thread that does the transitions of the lifecycle; it ends when this is dropped.
struct Owner(Arc<Lifecycle>);

impl Owner {
    fn start(lifecycle: &Arc<Lifecycle>) -> std::io::Result<Owner> {
        let owned = Arc::clone(lifecycle);
        lifecycle.hand_over();
        std::thread::Builder::new().name("frazil-life".to_owned()).spawn(move || owned.own())?;
        Ok(Owner(Arc::clone(lifecycle)))
    }
}

impl Drop for Owner {
    /// Does not wait for it: it may be the thread that lets go of the volume last.
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a crash, or somebody who stopped half-way, left to be finished by the layers above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// Inodes without a name are to be deleted (spec 60 §9.14).
    pub deleted_inodes: bool,
    /// Truncations and shifts of ranges are to be completed (spec 60 §5.2).
    pub logged_ops: bool,
    /// The deletion of a subvolume has begun (spec 40 §13.6).
    pub unlinked_subvolumes: bool,
    /// Snapshots that nobody sees are to be deleted (spec 60 §5.2).
    pub dead_snapshots: bool,
}

/// Stop when dropped.
struct Threads {
    _behind: WriteBehind,
    _room: RoomThread,
    _journal: Driver,
}

/// Passes on what the journal says.
struct Listener {
    space: Arc<Space>,
    engine: Weak<Engine>,
    patience: Arc<Patience>,
    /// Not while the volume is still being started.
    lifecycle: OnceLock<Arc<Lifecycle>>,
}

impl JournalEvents for Listener {
    fn flushed(&self, seq: Seq) {
        self.space.flushed(seq);
    }

    fn halted(&self, reason: &HaltReason) {
        self.patience.end();
        if let Some(lifecycle) = self.lifecycle.get() {
            lifecycle.died(&reason.to_string());
        }
    }

    fn dirt(&self) -> Dirt {
        let many_nodes = self.engine.upgrade().is_some_and(|engine| engine.has_much_dirt());
        Dirt { many_nodes, ..Dirt::default() }
    }
}

impl Live {
    /// Sets a volume going.
    ///
    /// # Errors
    /// If a b-tree that is needed cannot be read, if replay fails, or if there is no thread to be had. What is on the devices is as it was, but for what
    /// [`super::open_rw`] did.
    pub fn start(foundation: Foundation, options: &LiveOptions) -> Result<Arc<Live>, CommitError> {
        let space = Arc::new(load_space(&foundation, options.cache_bytes)?);
        let metadata_csum =
            foundation.metadata_csum_type().map_err(|error| CommitError::Inconsistent(error.to_string()))?;
        let patience = Patience::new(foundation.no_space, Arc::clone(foundation.journal.clock()));
        let of_nodes = patience.for_nodes(&foundation.devices);
        let writer = NodeWriter::new(of_nodes, foundation.node_format(), metadata_csum);
        let Foundation { devices, key, superblock, host, journal, btrees, replay, .. } = foundation;
        let Foundation { recovery, notices, on_error, .. } = foundation;

        let superblocks = Arc::clone(&superblock) as Arc<dyn Superblocks>;
        let clocks = Arc::clone(host.clocks());
        let of_superblock = Arc::clone(&superblocks);
        let allocator = Allocator::new(Arc::clone(&space), of_superblock, &superblock.view().superblock);
        let allocator = Arc::new(allocator);
        let triggers: Arc<dyn Triggers> =
            Arc::new(Deriver::new(Arc::clone(&space), superblocks, Arc::clone(&clocks)));
        let parts = EngineParts {
            trees: btrees,
            journal: Arc::clone(&journal),
            triggers,
            space: Arc::clone(&allocator) as Arc<dyn frazil_btree::write::NodeSpace>,
            writer,
        };
        let engine = Engine::new(parts, &options.engine);
        let listener = Arc::new(Listener {
            space: Arc::clone(&space),
            engine: Arc::downgrade(&engine),
            patience: Arc::clone(&patience),
            lifecycle: OnceLock::new(),
        });
        let told: Weak<Listener> = Arc::downgrade(&listener);
        host.listen(told);
        // Whoever cannot write the superblock must not write anything.
        let stopped = Arc::downgrade(&journal);
        superblock.on_fatal(move |error| {
            if let Some(journal) = Weak::upgrade(&stopped) {
                journal.halt(HaltReason::Requested(error.to_string()));
            }
        });
        let versions = Arc::clone(&host);
        let versions = Box::new(move || versions.next_key_version());
        let of_allocator = Arc::clone(&allocator);
        let of_data = patience.for_data(&devices);
        let data = DataWriter::new(of_allocator, of_data, clocks, key.clone(), versions);
        let view = superblock.view();
        let reader_options = ReaderOptions::of(&view.superblock, &view.members, key.clone());
        let reader = Reader::new(devices.clone(), Arc::clone(engine.trees()), reader_options);
        let generations = Arc::clone(&space);
        let reader = reader.with_generations(Box::new(move |at| generations.generation(at)));
        let counts = Arc::clone(&superblock);
        let reader = Arc::new(reader.telling(Box::new(move |copy| count_copy(&counts, copy))));
        let (of_mover, clocks) = (Arc::clone(&allocator), Arc::clone(host.clocks()));
        let mover = Mover::new(
            Arc::clone(&space),
            of_mover,
            devices.clone(),
            Arc::clone(&clocks),
            Arc::clone(&reader),
        );
        let room = RoomMaker::new(Arc::clone(&space), devices.clone(), clocks, &engine, mover);
        let relief = Arc::downgrade(&room) as Weak<dyn Relief>;
        allocator.set_relief(relief);

        replay.run(&journal, &*engine)?;
        superblock.recovered().map_err(|error| CommitError::Device(error.to_string()))?;
        let no_thread = |error| CommitError::Device(format!("no thread: {error}"));
        let threads =
            options.threads.then(|| Threads::start(&engine, &room)).transpose().map_err(no_thread)?;
        let mut owner = Ok(None);
        let live = Arc::new_cyclic(|me: &Weak<Live>| {
            let back: Weak<dyn Back> = me.clone();
            let lifecycle = Arc::new(Lifecycle::new(back, Arc::clone(journal.clock())));
            lifecycle.set_on_error(on_error);
            listener.lifecycle.get_or_init(|| Arc::clone(&lifecycle));
            tell_of_trouble(&engine, &superblock, &lifecycle);
            owner = options.threads.then(|| Owner::start(&lifecycle)).transpose();
            Live {
                engine,
                space,
                allocator,
                room,
                data,
                reader,
                host,
                superblock,
                devices,
                patience,
                key,
                _owner: owner.as_mut().ok().and_then(Option::take),
                lifecycle,
                threads: Mutex::new(threads),
                wants_threads: options.threads,
                recovery,
                notices,
                _listener: listener,
            }
        });
        owner.map_err(no_thread)?;
        // What halted the journal before anybody listened.
        if let Some(reason) = live.journal().halted() {
            live.lifecycle.died(&reason.to_string());
        }
        Ok(live)
    }

    /// Whether it may be changed, and how it is frozen and stopped.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Changes b-trees.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The b-trees.
    pub fn btrees(&self) -> &Arc<Btrees> {
        self.engine.trees()
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<Journal> {
        self.engine.journal()
    }

    /// How much space there is, and promises of it.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Places for data.
    pub fn allocator(&self) -> &Arc<Allocator> {
        &self.allocator
    }

    /// Makes room; a simulator calls [`RoomMaker::step`] and [`RoomMaker::empty_a_bucket`].
    pub fn room(&self) -> &Arc<RoomMaker> {
        &self.room
    }

    /// Writes the data of files.
    pub fn data(&self) -> &DataWriter {
        &self.data
    }

    /// Reads the data of files.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Clocks, key versions, roots.
    pub fn host(&self) -> &Arc<VolumeHost> {
        &self.host
    }

    /// The superblock.
    pub fn superblock(&self) -> &Arc<SuperblockStore> {
        &self.superblock
    }

    /// The devices that are present.
    pub fn devices(&self) -> &DeviceSet {
        &self.devices
    }

    /// The master key, if the volume is encrypted.
    pub fn key(&self) -> Option<&CryptKey> {
        self.key.as_ref()
    }

    /// How the volume was left by its last user.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What the user should know.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// What is left to be finished by the layers above.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn unfinished(&self) -> Result<Unfinished, CommitError> {
        self.engine.flush_buffer()?;
        let dead = |key: Key<'_>| {
            key.k.ty == KeyType::SNAPSHOT
                && Snapshot::decode(key.value).is_ok_and(|node| node.flags & Snapshot::DELETED != 0)
        };
        let unlinked = |key: Key<'_>| {
            key.k.ty == KeyType::SUBVOLUME
                && Subvolume::decode(key.value).is_ok_and(|s| s.flags & Subvolume::UNLINKED != 0)
        };
        Ok(Unfinished {
            deleted_inodes: self.any(BtreeId::DELETED_INODES, |_| true)?,
            logged_ops: self.any(BtreeId::LOGGED_OPS, |_| true)?,
            unlinked_subvolumes: self.any(BtreeId::SUBVOLUMES, unlinked)?,
            dead_snapshots: self.any(BtreeId::SNAPSHOTS, dead)?,
        })
    }

    /// Whether a b-tree has such a key.
    fn any(&self, btree: BtreeId, such: impl Fn(Key<'_>) -> bool) -> Result<bool, CommitError> {
        let mut cursor = self.btrees().cursor(btree, ..);
        while let Some(key) = cursor.next()? {
            if such(key) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes everything back and marks the volume clean. Nobody changes it any more.
    ///
    /// # Errors
    /// If something cannot be written. The volume is not marked clean then, and recovers at its next start.
    pub fn stop(&self) -> Result<(), LifecycleError> {
        self.lifecycle.unmount()
    }

    /// Whether there is something that the next start has to finish, so that a check takes a volume that is marked clean for damaged (spec 70 R5).
    fn has_orphans(&self) -> Result<bool, CommitError> {
        Ok(self.any(BtreeId::DELETED_INODES, |_| true)? || self.any(BtreeId::LOGGED_OPS, |_| true)?)
    }

    fn start_threads(&self) -> std::io::Result<()> {
        if self.wants_threads {
            *self.threads.lock() = Some(Threads::start(&self.engine, &self.room)?);
        }
        Ok(())
    }
}

impl Back for Live {
    fn ahead(&self) {
        // What fails fails again when it matters.
        let newest = Seq(self.journal().status().seq);
        if let Err(error) = self.settle().map(|_| self.journal().flush_pins(newest)) {
            tracing::debug!("writing back ahead: {error}");
        }
    }

    fn drain(&self, wanted: &dyn Fn() -> bool) -> Result<(), String> {
        drop(self.threads.lock().take());
        self.allocator.release();
        stop::write_back(self.journal(), self, wanted).map_err(|e| e.to_string())
    }

    fn seal(&self) -> Result<(), String> {
        let wrong = self.superblock.is_wrong();
        if wrong {
            tracing::error!("it is not marked clean: something was found to be wrong with it");
        }
        let clean = !wrong && !self.has_orphans().map_err(|e| e.to_string())?;
        stop::seal(self.journal(), &self.host, clean).map_err(|e| e.to_string())?;
        // Nobody else writes the superblock now, and this may be the end.
        if wrong { self.superblock.write_noted().map_err(|e| e.to_string()) } else { Ok(()) }
    }

    fn undo(&self) {
        if let Err(error) = self.start_threads() {
            // It works without; whoever waits does the work.
            tracing::warn!("no thread: {error}");
        }
    }

    fn open(&self) -> Result<(), String> {
        stop::go_on(self.journal(), &self.host).map_err(|e| e.to_string())?;
        self.undo();
        Ok(())
    }

    fn flush(&self) -> Result<(), String> {
        self.journal().flush().map_err(|e| e.to_string())
    }

    fn halt(&self, why: &str) {
        stop::stop_now(self.journal(), why);
    }

    fn record(&self) {
        if let Err(error) = self.superblock.write_noted() {
            tracing::error!("what was found cannot be noted in the superblock: {error}");
        }
    }

    fn abort(&self, why: &str) {
        tracing::error!("errors=panic: {why}");
        std::process::abort();
    }

    fn progress(&self) -> Vec<(&'static str, u64)> {
        let (engine, journal) = (self.engine.status(), self.journal().status());
        let pins: u32 = journal.pins.by_class.iter().sum();
        let all = [
            ("dirty nodes", engine.dirty_nodes as u64),
            ("buffered keys", engine.buffered_keys as u64),
            ("pins", pins.into()),
            ("journal entries in flight", journal.entries.len() as u64),
            (
                "waiting for device space",
                u64::from(journal.waiting_for_device_space) + u64::from(self.patience.waiting()),
            ),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

impl Threads {
    fn start(engine: &Arc<Engine>, room: &Arc<RoomMaker>) -> std::io::Result<Threads> {
        Ok(Threads {
            _behind: WriteBehind::start(engine)?,
            _room: RoomThread::start(room)?,
            _journal: Driver::start(engine.journal())?,
        })
    }
}

impl WriteBack for Live {
    fn settle(&self) -> Result<bool, CommitError> {
        let any = self.engine.status().buffered_keys > 0;
        self.engine.flush_buffer()?;
        Ok(any)
    }
}

/// Counts a copy of data that could not be read.
fn count_copy(superblock: &SuperblockStore, copy: &BadCopy) {
    match copy.problem {
        CopyProblem::Io(_) => superblock.note_io_error(copy.dev, IoErrorKind::Read),
        CopyProblem::Corrupt(_) => superblock.note_io_error(copy.dev, IoErrorKind::Checksum),
        _ => {}
    }
}

/// Counts the copies of a node that could not be read.
fn count_copies(superblock: &SuperblockStore, failures: &[ReplicaFailure]) {
    for failure in failures {
        match failure {
            ReplicaFailure::Io { dev, .. } => superblock.note_io_error(*dev, IoErrorKind::Read),
            ReplicaFailure::Damaged { place, .. } | ReplicaFailure::Unverified { place, .. } => {
                superblock.note_io_error(place.dev, IoErrorKind::Checksum);
            }
            ReplicaFailure::Removed | ReplicaFailure::Missing(_) => {}
        }
    }
}

/// Has what turns out to be wrong with what is stored counted, and the lifecycle decide what follows.
fn tell_of_trouble(engine: &Engine, superblock: &Arc<SuperblockStore>, lifecycle: &Arc<Lifecycle>) {
    let (superblock, lifecycle) = (Arc::clone(superblock), Arc::downgrade(lifecycle));
    engine.trees().on_trouble(move |error| {
        match error {
            CommitError::Tree(TreeError::Unreadable(node)) => {
                count_copies(&superblock, &node.failures);
                superblock.note_error(FsckErrorId::BTREE_NODE_READ_ERROR);
            }
            _ => superblock.note_inconsistency(),
        }
        if let Some(lifecycle) = lifecycle.upgrade() {
            lifecycle.inconsistent(&error.to_string());
        }
    });
}

/// Space as it is with everything that the journal holds.
fn load_space(foundation: &Foundation, cache_bytes: usize) -> Result<Space, CommitError> {
    let view = foundation.superblock.view();
    let present = |dev: DevIndex| foundation.devices.get(dev.0).is_some();
    let load = |btrees: &Btrees, deltas: &mut dyn Iterator<Item = Key<'_>>| {
        Space::load(&view.superblock, &view.members, present, btrees, deltas)
    };
    let Some(journal) = foundation.replay.overlay() else {
        return Ok(load(&foundation.btrees, &mut std::iter::empty())?);
    };
    let blacklist = foundation.superblock.blacklisted();
    let blacklist = blacklist.map_err(|error| CommitError::Inconsistent(error.to_string()))?;
    let store = NodeStore::new(foundation.devices.clone(), foundation.node_format(), blacklist);
    let (roots, overlay) = (foundation.host.durable_roots(), Overlay::from(journal));
    let btrees = Btrees::new(roots, overlay, Box::new(store), cache_bytes);
    Ok(load(&btrees, &mut journal.deltas().map(|delta| delta.key))?)
}
