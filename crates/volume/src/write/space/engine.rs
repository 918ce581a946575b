//! Making room in a volume that runs: the b-tree engine as [`Buckets`], and a thread that discards.
//!
//! Whoever finds no room makes some himself ([`RoomMaker`] as [`Relief`]). So that this is rare, a thread wakes up whenever there is
//! something to discard, or so much has been written that buckets may have to be emptied by moving ([`crate::write::moving`]).

use std::sync::{Arc, Weak};

use frazil_btree::write::{CommitError, CommitOptions, Engine};
use frazil_device::DeviceSet;
use frazil_journal::{JournalError, Watermark};
use frazil_ondisk::units::DevIndex;
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::{DevBucket, Lru, LruEntry};
use frazil_ondisk::{BtreeId, KeyBuf, KeyType};
use parking_lot::{Condvar, Mutex};

use super::{Buckets, Relief, Space};
use crate::write::clock::IoClocks;
use crate::write::generations::{Collected, Generations};
use crate::write::moving::{Moved, Mover};

impl Buckets for Engine {
    fn change(
        &self,
        watermark: Watermark,
        buckets: &[DevBucket],
        change: &dyn Fn(DevBucket, &mut Alloc) -> bool,
    ) -> Result<(), CommitError> {
        self.run(CommitOptions { watermark }, |transaction| {
            for &at in buckets {
                let key = transaction.get(BtreeId::ALLOC, at.pos())?;
                let Some(key) = key.as_ref().map(frazil_btree::KeyHandle::key) else { continue };
                let mut alloc = Alloc::decode(key.k.ty, key.value)
                    .map_err(|e| CommitError::Inconsistent(format!("alloc key {key}: {e}")))?;
                if change(at, &mut alloc) {
                    let mut value = Vec::with_capacity(64);
                    alloc.encode(&mut value);
                    transaction.put(BtreeId::ALLOC, KeyBuf::new(KeyType::ALLOC_V4, at.pos(), 0, value));
                }
            }
            Ok::<(), CommitError>(())
        })
        .map(drop)
    }

    fn cached(&self, dev: DevIndex, from: u64, max: usize) -> Result<Vec<DevBucket>, CommitError> {
        self.flush_buffer()?;
        let at = |time, target| LruEntry { lru: Lru::Read(dev), time, target }.pos();
        let mut cursor = self.trees().cursor(BtreeId::LRU, at(from, 0)..=at(u64::MAX, u64::MAX));
        let mut list = Vec::new();
        while list.len() < max
            && let Some(key) = cursor.next()?
        {
            list.extend(DevBucket::from_u64(LruEntry::from_pos(key.k.pos).target));
        }
        Ok(list)
    }
}

/// Rounds of making room before new keys are refused.
const ADMIT_ROUNDS: u32 = 16;

/// Makes room in a volume. See the [module](self).
pub struct RoomMaker {
    space: Arc<Space>,
    devices: DeviceSet,
    clocks: Arc<IoClocks>,
    engine: Weak<Engine>,
    mover: Mover,
    generations: Generations,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

/// What the thread should do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Work,
    /// End.
    Stop,
}

impl RoomMaker {
    /// Makes room in that space by commits of that engine.
    pub fn new(
        space: Arc<Space>,
        devices: DeviceSet,
        clocks: Arc<IoClocks>,
        engine: &Arc<Engine>,
        mover: Mover,
    ) -> Arc<RoomMaker> {
        let (wanted, changed) = (Mutex::new(Wanted::Nothing), Condvar::new());
        let engine = Arc::downgrade(engine);
        let generations = Generations::new(Arc::clone(&space));
        let maker =
            Arc::new(RoomMaker { space, devices, clocks, engine, mover, generations, wanted, changed });
        let wake = || {
            let told = Arc::downgrade(&maker);
            Box::new(move || {
                if let Some(maker) = Weak::upgrade(&told) {
                    maker.want(Wanted::Work);
                }
            })
        };
        maker.space.on_work(wake());
        maker.clocks.on_alarm(wake());
        maker
    }

    fn want(&self, what: Wanted) {
        let mut wanted = self.wanted.lock();
        if *wanted != Wanted::Stop {
            *wanted = what;
            self.changed.notify_all();
        }
    }

    /// A bounded amount of work that nobody waits for: discards, dropping cached data where buckets run short, looking after generations, emptying a bucket
    /// where it is time to.
    /// Whether there may be more.
    ///
    /// # Errors
    /// If a commit failed; what was to be freed stays as it is.
    pub fn step(&self) -> Result<bool, CommitError> {
        let Some(engine) = self.running()? else { return Ok(false) };
        if self.space.discard_step(&self.devices, &*engine)? > 0
            || self.space.invalidate_step(&self.clocks, &*engine)? > 0
            || self.generations.step(&engine)?
        {
            return Ok(true);
        }
        let again = self.mover.step(&engine, &|| self.make_room(&engine))?;
        if let Some(when) = again {
            self.clocks.set_alarm(when);
        }
        Ok(again.is_none())
    }

    /// Empties the bucket that holds least, whatever the need; whether there was one. A simulator wants that; who needs room gets it done anyway.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn empty_a_bucket(&self) -> Result<bool, CommitError> {
        let Some(engine) = self.running()? else { return Ok(false) };
        for (dev, _) in self.space.rules().devices() {
            if self.mover.empty_one(&engine, dev, &|| self.make_room(&engine))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`Space::admit_keys`], after making room if there is not enough.
    ///
    /// # Errors
    /// [`CommitError::NoSpace`] if that does not help; what made making room fail.
    pub fn admit_keys(&self) -> Result<(), CommitError> {
        for _ in 0..ADMIT_ROUNDS {
            if self.space.admit_keys().is_ok() || !self.relieve()? {
                break;
            }
        }
        self.space.admit_keys()
    }

    /// The engine, if it is there. What was written last, and durable, must stay as it is when nothing can be committed any more: so nothing is discarded, nor
    /// moved.
    fn running(&self) -> Result<Option<Arc<Engine>>, CommitError> {
        let engine = self.engine.upgrade();
        match engine.as_ref().and_then(|engine| engine.journal().halted()) {
            Some(reason) => Err(JournalError::Halted(reason).into()),
            None => Ok(engine),
        }
    }

    /// What has been moved to make room since the volume was opened.
    pub fn moved(&self) -> Moved {
        self.mover.moved()
    }

    /// How often, since the volume was opened, generations had to be looked after.
    pub fn collected(&self) -> Collected {
        self.generations.collected()
    }

    /// Makes room without moving anything.
    fn make_room(&self, engine: &Engine) -> Result<bool, CommitError> {
        let flush = |seq| Ok(engine.journal().flush_seq(seq)?);
        if self.space.make_room(&self.devices, &self.clocks, engine, flush)? {
            return Ok(true);
        }
        let out_of_use = self.space.out_of_use();
        while self.generations.step(engine)? {}
        Ok(self.space.out_of_use() < out_of_use)
    }
}

impl Relief for RoomMaker {
    fn relieve(&self) -> Result<bool, CommitError> {
        let Some(engine) = self.running()? else { return Ok(false) };
        Ok(self.make_room(&engine)? || self.mover.round(&engine, &|| self.make_room(&engine))?)
    }

    fn relieve_nodes(&self) -> Result<bool, CommitError> {
        let Some(engine) = self.running()? else { return Ok(false) };
        self.space.make_room_for_nodes(&self.devices, &*engine, |seq| Ok(engine.journal().flush_seq(seq)?))
    }
}

/// A thread that makes room; it stops when this is dropped.
pub struct RoomThread {
    maker: Arc<RoomMaker>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RoomThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(maker: &Arc<RoomMaker>) -> std::io::Result<RoomThread> {
        *maker.wanted.lock() = Wanted::Work;
        let driven = Arc::clone(maker);
        let builder = std::thread::Builder::new().name("frazil-discard".to_owned());
        let thread = builder.spawn(move || drive(&driven))?;
        Ok(RoomThread { maker: Arc::clone(maker), thread: Some(thread) })
    }
}

fn drive(maker: &RoomMaker) {
    loop {
        {
            let mut wanted = maker.wanted.lock();
            maker.changed.wait_while(&mut wanted, |wanted| *wanted == Wanted::Nothing);
            if *wanted == Wanted::Stop {
                return;
            }
            *wanted = Wanted::Nothing;
        }
        match maker.step() {
            Ok(true) => maker.want(Wanted::Work),
            Ok(false) => {}
            // It is tried again when something more becomes free; who finds no room gets the error.
            Err(error) => tracing::warn!("emptied buckets cannot be made free: {error}"),
        }
    }
}

impl Drop for RoomThread {
    fn drop(&mut self) {
        self.maker.want(Wanted::Stop);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; there is nothing to add.
            let _ = thread.join();
        }
    }
}
