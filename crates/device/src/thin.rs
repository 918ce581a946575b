//! Thin provisioning: devices that promise more than their pool has, as dm-thin does, without root or device-mapper.
//!
//! A [`ThinPool`] has a capacity in chunks. A [`ThinDevice`] of any size starts out with none; the first write to each of
//! its chunks takes one from the pool. A [`snapshot`](ThinDevice::snapshot) shares the chunks of its origin, so that
//! *over*writing allocates too, on either side. Discarding whole chunks gives them back.
//!
//! When the pool is exhausted a write that needs a chunk either fails with `ENOSPC` or waits until the pool grows, a
//! discard frees a chunk, or the policy changes ([`WhenFull`]); reads, and writes to chunks that are there, go on. That is
//! what a filesystem must cope with when it is frozen on a full pool (spec 70 R12, generic/459).
//!
//! Data go to a device below, by slots of one chunk. Which slot holds what is known in memory only: these devices end
//! with their process.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::device::{check_range, check_writable};
use crate::{Device, Errno, Error, MemDevice, Op, Result, SECTOR_BYTES};

/// What happens to a write that needs a chunk when none is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It fails with `ENOSPC` at once.
    Fail,
    /// It waits, for ever if need be.
    Queue,
    /// It waits this long, then fails with `ENOSPC`.
    QueueFor(Duration),
}

/// The space that thin devices draw from.
pub struct ThinPool {
    data: Arc<dyn Device>,
    chunk_bytes: u64,
    state: Mutex<PoolState>,
    /// Signalled when a waiting write may have reason to look again.
    changed: Condvar,
}

struct PoolState {
    capacity_chunks: u64,
    /// Slots from here on were never used.
    next_slot: u64,
    /// Slots given back.
    free_slots: Vec<u64>,
    when_full: WhenFull,
    /// Counts the events after which a waiting write should look again. A write notes it *before* it looks, so that an
    /// event between looking and waiting is not missed.
    changes: u64,
    waiting: u64,
}

impl PoolState {
    fn used_chunks(&self) -> u64 {
        self.next_slot - self.free_slots.len() as u64
    }
}

/// A chunk of the pool, in use until the last device that shares it lets go.
struct Slot {
    pool: Arc<ThinPool>,
    number: u64,
}

impl Slot {
    fn start_bytes(&self) -> u64 {
        self.number * self.pool.chunk_bytes
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.free_slots.push(self.number);
        self.pool.announce(&mut state);
    }
}

impl ThinPool {
    /// A pool that keeps its chunks on `data` and may use `capacity_bytes` of it for now.
    ///
    /// `chunk_bytes` must be a multiple of the sector size. Capacities count in whole chunks.
    ///
    /// # Panics
    /// If `chunk_bytes` is no such multiple.
    pub fn new(
        data: Arc<dyn Device>,
        chunk_bytes: u64,
        capacity_bytes: u64,
        when_full: WhenFull,
    ) -> Result<Arc<ThinPool>> {
        assert!(chunk_bytes > 0 && chunk_bytes.is_multiple_of(SECTOR_BYTES), "chunk of {chunk_bytes} bytes");
        let state = PoolState {
            capacity_chunks: 0,
            next_slot: 0,
            free_slots: Vec::new(),
            when_full,
            changes: 0,
            waiting: 0,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let pool = Arc::new(ThinPool { data, chunk_bytes, state, changed });
        pool.grow(capacity_bytes)?;
        Ok(pool)
    }

    /// A pool in memory.
    pub fn in_memory(chunk_bytes: u64, capacity_bytes: u64, when_full: WhenFull) -> Arc<ThinPool> {
        // Sparse, so the size costs nothing; it bounds how far the pool may grow.
        let data = MemDevice::new((1 << 50).max(capacity_bytes)).named("thin pool");
        ThinPool::new(Arc::new(data), chunk_bytes, capacity_bytes, when_full)
            .expect("the data device was made large enough")
    }

    /// Sets the capacity, in bytes, to more than it is; a smaller one changes nothing. Waiting writes go on.
    ///
    /// Errors if the data device is smaller than that.
    pub fn grow(&self, capacity_bytes: u64) -> Result<()> {
        check_range(&*self.data, Op::Write, 0, capacity_bytes)?;
        let mut state = self.state.lock();
        state.capacity_chunks = state.capacity_chunks.max(capacity_bytes / self.chunk_bytes);
        self.announce(&mut state);
        Ok(())
    }

    /// Changes what happens when the pool is full, also for the writes that wait now.
    pub fn set_when_full(&self, when_full: WhenFull) {
        let mut state = self.state.lock();
        state.when_full = when_full;
        self.announce(&mut state);
    }

    /// Bytes in use by all devices of the pool; a chunk that several share counts once.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_chunks() * self.chunk_bytes
    }

    /// Bytes the pool may use.
    pub fn capacity_bytes(&self) -> u64 {
        self.state.lock().capacity_chunks * self.chunk_bytes
    }

    /// How many writes are waiting for space now.
    pub fn waiting(&self) -> u64 {
        self.state.lock().waiting
    }

    /// A new device of `size_bytes` zeros that has no chunk yet.
    pub fn device(self: &Arc<Self>, name: &str, size_bytes: u64) -> ThinDevice {
        ThinDevice { pool: self.clone(), name: name.into(), size_bytes, map: RwLock::default() }
    }

    /// Takes a chunk if one is left.
    fn try_allocate(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.state.lock();
        if state.used_chunks() >= state.capacity_chunks {
            return None;
        }
        let number = state.free_slots.pop().unwrap_or_else(|| {
            state.next_slot += 1;
            state.next_slot - 1
        });
        drop(state);
        Some(Slot { pool: self.clone(), number })
    }

    /// Counts a change that may let a waiting write go on, and wakes all.
    fn announce(&self, state: &mut PoolState) {
        state.changes += 1;
        self.changed.notify_all();
    }

    /// Waits until the pool has changed since `seen`, as the policy allows a write that began at `start`. False: the
    /// policy says to give up.
    fn wait_for_change(&self, seen: u64, start: Instant) -> bool {
        let mut state = self.state.lock();
        while state.changes == seen {
            state.waiting += 1;
            let give_up = match state.when_full {
                WhenFull::Fail => true,
                WhenFull::Queue => {
                    self.changed.wait(&mut state);
                    false
                }
                WhenFull::QueueFor(time) => self.changed.wait_until(&mut state, start + time).timed_out(),
            };
            state.waiting -= 1;
            if give_up {
                return false;
            }
        }
        true
    }
}

impl fmt::Debug for ThinPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThinPool")
            .field("chunk_bytes", &self.chunk_bytes)
            .field("used_bytes", &self.used_bytes())
            .field("capacity_bytes", &self.capacity_bytes())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

type Map = BTreeMap<u64, Arc<Slot>>;

/// A thin device. See the [module](self).
pub struct ThinDevice {
    pool: Arc<ThinPool>,
    name: Arc<str>,
    size_bytes: u64,
    /// Chunk number → slot; absent means zeros. I/O holds it shared, so that no slot is given away under it; changing the
    /// map, and taking a snapshot, hold it alone. Nobody waits for space while holding it.
    map: RwLock<Map>,
}

impl ThinDevice {
    /// A device with the present contents, sharing all chunks until one side writes.
    pub fn snapshot(&self, name: &str) -> ThinDevice {
        // Alone, so that no write that believes its chunk unshared is still running.
        let map = self.map.write().clone();
        ThinDevice {
            pool: self.pool.clone(),
            name: name.into(),
            size_bytes: self.size_bytes,
            map: RwLock::new(map),
        }
    }

    /// Bytes of the chunks this device has, shared ones included.
    pub fn allocated_bytes(&self) -> u64 {
        self.map.read().len() as u64 * self.pool.chunk_bytes
    }

    /// Writes within one chunk; `within` are bytes of the chunk.
    fn write_chunk(&self, chunk: u64, within: Range<u64>, data: &[u8]) -> Result<Written> {
        let start = Instant::now();
        let fresh = loop {
            let seen = self.pool.state.lock().changes;
            let map = self.map.read();
            if let Some(slot) = unshared(&map, chunk) {
                self.pool.data.write_at(slot.start_bytes() + within.start, data)?;
                return Ok(Written::Done);
            }
            drop(map);
            match self.pool.try_allocate() {
                Some(fresh) => break fresh,
                None if self.pool.wait_for_change(seen, start) => {}
                None => return Ok(Written::NoSpace),
            }
        };
        let mut map = self.map.write();
        // Another write to the same chunk may have been quicker.
        if unshared(&map, chunk).is_none() {
            self.install(&mut map, chunk, fresh, &within)?;
            self.pool.announce(&mut self.pool.state.lock());
        }
        let slot = &map[&chunk];
        self.pool.data.write_at(slot.start_bytes() + within.start, data)?;
        Ok(Written::Done)
    }

    /// Puts a fresh slot in place of what the chunk had, carrying over what the coming write will not cover.
    fn install(&self, map: &mut Map, chunk: u64, fresh: Slot, covered: &Range<u64>) -> Result<()> {
        let chunk_bytes = self.pool.chunk_bytes;
        if *covered != (0..chunk_bytes) {
            match map.get(&chunk) {
                Some(shared) => {
                    let mut old = vec![0; chunk_bytes as usize];
                    self.pool.data.read_at(shared.start_bytes(), &mut old)?;
                    self.pool.data.write_at(fresh.start_bytes(), &old)?;
                }
                None => self.pool.data.zero(fresh.start_bytes(), chunk_bytes)?,
            }
        }
        map.insert(chunk, Arc::new(fresh));
        Ok(())
    }

    /// Splits a range at chunk borders: (chunk number, bytes of the chunk, bytes of the caller's buffer).
    fn pieces(&self, at: u64, len: u64) -> impl Iterator<Item = (u64, Range<u64>, Range<usize>)> + use<> {
        let chunk_bytes = self.pool.chunk_bytes;
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == len {
                return None;
            }
            let (chunk, start) = ((at + done) / chunk_bytes, (at + done) % chunk_bytes);
            let piece = (chunk_bytes - start).min(len - done);
            let buf = done as usize..(done + piece) as usize;
            done += piece;
            Some((chunk, start..start + piece, buf))
        })
    }

    /// Gives back the chunks that lie wholly within a range.
    fn unmap(&self, offset_bytes: u64, len_bytes: u64) {
        let whole =
            offset_bytes.div_ceil(self.pool.chunk_bytes)..(offset_bytes + len_bytes) / self.pool.chunk_bytes;
        if whole.is_empty() {
            return;
        }
        let mut map = self.map.write();
        let mut removed = map.split_off(&whole.start);
        map.append(&mut removed.split_off(&whole.end));
        drop(map);
    }
}

/// The chunk's slot, if it has one that no other device shares. While the map is held nobody can begin to share it.
fn unshared(map: &Map, chunk: u64) -> Option<&Arc<Slot>> {
    map.get(&chunk).filter(|slot| Arc::strong_count(slot) == 1)
}

/// How a write to one chunk ended.
enum Written {
    Done,
    NoSpace,
}

impl Device for ThinDevice {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn logical_block_bytes(&self) -> u32 {
        self.pool.data.logical_block_bytes()
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, Op::Read, offset_bytes, buf.len() as u64)?;
        let map = self.map.read();
        for (chunk, within, piece) in self.pieces(offset_bytes, buf.len() as u64) {
            let buf = &mut buf[piece];
            match map.get(&chunk) {
                Some(slot) => self.pool.data.read_at(slot.start_bytes() + within.start, buf)?,
                None => buf.fill(0),
            }
        }
        Ok(())
    }

    /// Writes chunk by chunk; when space ends in the middle, the chunks before that are written.
    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        let len_bytes = data.len() as u64;
        check_writable(self, Op::Write, offset_bytes, len_bytes)?;
        for (chunk, within, piece) in self.pieces(offset_bytes, len_bytes) {
            if let Written::NoSpace = self.write_chunk(chunk, within, &data[piece])? {
                let (device, errno) = (self.name.clone(), Errno::NO_SPACE);
                return Err(Error::Io { device, op: Op::Write, offset_bytes, len_bytes, errno });
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.pool.data.flush()
    }

    /// Gives back the chunks that lie wholly within the range; what remains keeps its contents.
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        check_writable(self, Op::Discard, offset_bytes, len_bytes)?;
        self.unmap(offset_bytes, len_bytes);
        Ok(())
    }

    /// Gives back the chunks that lie wholly within the range and writes zeros to the rest, where it is not zero already.
    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        check_writable(self, Op::Zero, offset_bytes, len_bytes)?;
        self.unmap(offset_bytes, len_bytes);
        let chunk_bytes = self.pool.chunk_bytes;
        let end = offset_bytes + len_bytes;
        let head = offset_bytes..offset_bytes.checked_next_multiple_of(chunk_bytes).unwrap_or(end).min(end);
        let tail = (end / chunk_bytes * chunk_bytes).max(head.end)..end;
        for edge in [head, tail].into_iter().filter(|edge| !edge.is_empty()) {
            let present = self.map.read().contains_key(&(edge.start / chunk_bytes));
            if present {
                self.write_at(edge.start, &vec![0; (edge.end - edge.start) as usize])?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ThinDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThinDevice")
            .field("name", &self.name)
            .field("size_bytes", &self.size_bytes)
            .field("allocated_bytes", &self.allocated_bytes())
            .field("pool", &self.pool)
            .finish()
    }
}
