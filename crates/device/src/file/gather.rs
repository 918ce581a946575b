//! Small writes, gathered.
//!
//! Past the page cache every write waits for the disk, which takes about as long for four kilobytes as for a hundred. So small writes stay in memory, each
//! behind the one it continues, as *runs*. They are written, several at the same time, by a flush and when there is too much of them, and a single one when something else
//! happens to its range. That is what the page cache would do, with one difference: what cannot be written **stays here**, because the
//! storage has no room now, say, and is written again by the next who asks. The page cache forgets it.
//!
//! ```text
//!  Open ──── somebody writes it ───▶ Leaving ──── it is on the device ───▶ Written ──── memory is short ───▶ gone
//!  grows, may be changed              changes no more   ◀─ it failed ─┘      read from here, like the others
//! ```
//!
//! Whoever reads a range that a run lies in gets those bytes from here; also for a while after they were written, because who appends to a file reads
//! its last block back each time.
//!
//! Two locks. `leaving` is held by who writes runs, for as long as that takes: so with it held, runs only come. `state` is held for moments, also
//! within the other one, never the other way round.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::AlignedBuf;
use crate::Result;
use crate::waiting;

/// A write of at least this much is not gathered.
pub(super) const LARGE_BYTES: usize = 256 << 10;
/// How long a run gets.
const RUN_BYTES_MAX: usize = 1 << 20;
/// When this much memory waits to be written, who adds to it writes it.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// This much memory stays readable after it was written.
const WRITTEN_BYTES_MAX: usize = 4 << 20;
/// Runs that are written at the same time.
const WRITERS_MAX: usize = 8;

/// The small writes to one device that are in memory.
#[derive(Debug)]
pub(super) struct Gather {
    state: Mutex<State>,
    leaving: Mutex<()>,
    /// How many runs there are, for a quick look.
    runs: AtomicUsize,
    /// A run could not be written, and not all have been since.
    stuck: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By offset in bytes. They do not overlap.
    runs: BTreeMap<u64, Run>,
    /// Memory of those that are not written.
    waiting_bytes: usize,
    /// Offsets of those that are, by when that was.
    written: BTreeMap<u64, u64>,
    /// Memory of those.
    written_bytes: usize,
    /// How often one was.
    turns: u64,
}

#[derive(Debug)]
struct Run {
    /// Shared only while it is being written.
    bytes: Arc<AlignedBuf>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Leaving,
    Written { turn: u64 },
}

/// That runs only come, and that whoever has this may write them.
type Leaving<'g> = MutexGuard<'g, ()>;

/// Writes bytes to the device.
pub(super) trait Put: Fn(u64, &[u8]) -> Result<()> + Sync {}
impl<F: Fn(u64, &[u8]) -> Result<()> + Sync> Put for F {}

impl Gather {
    pub(super) fn new() -> Gather {
        Gather {
            state: Mutex::default(),
            leaving: Mutex::default(),
            runs: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
        }
    }

    /// Takes a write. After an error, which may be that of runs that had to be written before, it is not taken.
    pub(super) fn add(&self, offset_bytes: u64, data: &[u8], put: &impl Put) -> Result<()> {
        let range = offset_bytes..offset_bytes + data.len() as u64;
        let too_much = self.state.lock().waiting_bytes + data.len() > WAITING_BYTES_MAX;
        // And if something is here in vain already, nothing more is taken.
        if too_much || self.stuck.load(Ordering::Relaxed) {
            self.write_out(put)?;
        }
        while !self.take(&range, data) {
            self.settle(&range, put)?;
        }
        Ok(())
    }

    /// Puts a write into memory, unless something is there that may not be changed.
    fn take(&self, range: &Range<u64>, data: &[u8]) -> bool {
        let mut state = self.state.lock();
        let first = state.overlapping(range).map(|(at, _)| at).next();
        if let Some(at) = first {
            let run = state.run_mut(at);
            let is_inside = at <= range.start && range.end <= at + run.bytes.len() as u64;
            if is_inside && let Some(bytes) = run.open_mut() {
                let skip = (range.start - at) as usize;
                bytes[skip..skip + data.len()].copy_from_slice(data);
                return true;
            }
            return false;
        }
        if let Some((_, run)) = state.runs.range_mut(..range.start).next_back().filter(|(at, run)| {
            let len = run.bytes.len();
            *at + len as u64 == range.start && len + data.len() <= RUN_BYTES_MAX
        }) && let Some(bytes) = run.open_mut()
        {
            let before = bytes.room();
            bytes.extend_from_slice(data);
            let more = bytes.room() - before;
            state.waiting_bytes += more;
            return true;
        }
        let mut bytes = AlignedBuf::default();
        bytes.extend_from_slice(data);
        state.waiting_bytes += bytes.room();
        state.runs.insert(range.start, Run { bytes: Arc::new(bytes), stage: Stage::Open });
        self.runs.store(state.runs.len(), Ordering::Release);
        true
    }

    /// Writes every run.
    ///
    /// # Errors
    /// The first; what could not be written waits on.
    pub(super) fn write_out(&self, put: &impl Put) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let leaving = self.leave();
        self.write(&leaving, &(0..u64::MAX), put)?;
        self.stuck.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the runs in a range, and forgets them: what comes goes past them.
    pub(super) fn settle(&self, range: &Range<u64>, put: &impl Put) -> Result<()> {
        if !self.has(range) {
            return Ok(());
        }
        let leaving = self.leave();
        self.write(&leaving, range, put)?;
        self.forget(&leaving, range);
        Ok(())
    }

    /// Forgets what lies in a range that nobody needs. What lies only partly in it is settled, and stays if that fails: room may come from
    /// the very discard that follows.
    pub(super) fn drop_range(&self, range: &Range<u64>, put: &impl Put) {
        if !self.has(range) {
            return;
        }
        let leaving = self.leave();
        let mut state = self.state.lock();
        let inside = |at: &u64, run: &Run| range.start <= *at && at + run.bytes.len() as u64 <= range.end;
        let gone: Vec<u64> =
            state.overlapping(range).filter(|(at, run)| inside(at, run)).map(|(at, _)| at).collect();
        gone.into_iter().for_each(|at| self.remove(&mut state, at));
        drop(state);
        let _ = self.write(&leaving, range, put);
        self.forget(&leaving, range);
    }

    /// Reads a range with `read`, and puts over it what is here.
    pub(super) fn read(
        &self,
        range: Range<u64>,
        bufs: &mut [IoSliceMut<'_>],
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<()>,
    ) -> Result<()> {
        if self.is_empty() {
            return read(bufs);
        }
        let state = self.state.lock();
        if state.holds(&range) {
            state.copy(range.start, bufs);
            return Ok(());
        }
        let on_device = state.overlapping(&range).all(|(_, run)| run.is_written());
        drop(state);
        if on_device {
            return read(bufs);
        }
        // Nothing goes from here to the device now, so that what the device does not have is still here afterwards.
        let _leaving = self.leave();
        read(bufs)?;
        self.state.lock().copy(range.start, bufs);
        Ok(())
    }

    fn leave(&self) -> Leaving<'_> {
        waiting::about_to_wait();
        self.leaving.lock()
    }

    /// Whether there is anything in a range. If not, nobody has to wait for what is written elsewhere.
    fn has(&self, range: &Range<u64>) -> bool {
        !self.is_empty() && self.state.lock().overlapping(range).next().is_some()
    }

    fn is_empty(&self) -> bool {
        self.runs.load(Ordering::Acquire) == 0
    }

    /// Writes the runs in a range that are not written.
    fn write(&self, _leaving: &Leaving<'_>, range: &Range<u64>, put: &impl Put) -> Result<()> {
        let runs = self.state.lock().choose(range);
        let next = AtomicUsize::new(0);
        let write = || -> Result<()> {
            while let Some((at, bytes)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                put(*at, bytes)?;
                self.is_written(*at);
            }
            Ok(())
        };
        let done = std::thread::scope(|scope| {
            // Who cannot be started does not help.
            let helper = |_| std::thread::Builder::new().spawn_scoped(scope, write).ok();
            let helpers: Vec<_> = (1..runs.len().min(WRITERS_MAX)).filter_map(helper).collect();
            let own = write();
            let others = helpers.into_iter().map(|helper| helper.join().expect("it does not panic"));
            // Want of room is the least that may be wrong.
            let errors = others.chain([own]).filter_map(Result::err);
            errors.min_by_key(|error| error.is_no_space()).map_or(Ok(()), Err)
        });
        drop(runs);
        if done.is_err() {
            self.stuck.store(true, Ordering::Relaxed);
        }
        self.bound(&mut self.state.lock());
        done
    }

    fn is_written(&self, at: u64) {
        let mut state = self.state.lock();
        let turn = state.turns;
        state.turns += 1;
        let run = state.run_mut(at);
        run.stage = Stage::Written { turn };
        let memory = run.bytes.room();
        state.waiting_bytes -= memory;
        state.written_bytes += memory;
        state.written.insert(turn, at);
    }

    /// Gives back the memory of what was written the longest ago.
    fn bound(&self, state: &mut State) {
        while state.written_bytes > WRITTEN_BYTES_MAX {
            let Some((_, &at)) = state.written.first_key_value() else { break };
            self.remove(state, at);
        }
    }

    /// Forgets the written runs in a range.
    fn forget(&self, _leaving: &Leaving<'_>, range: &Range<u64>) {
        let mut state = self.state.lock();
        let written = state.overlapping(range).filter(|(_, run)| run.is_written());
        let gone: Vec<u64> = written.map(|(at, _)| at).collect();
        gone.into_iter().for_each(|at| self.remove(&mut state, at));
    }

    fn remove(&self, state: &mut State, at: u64) {
        let Some(run) = state.runs.remove(&at) else { return };
        match run.stage {
            Stage::Written { turn } => {
                state.written.remove(&turn);
                state.written_bytes -= run.bytes.room();
            }
            Stage::Open | Stage::Leaving => state.waiting_bytes -= run.bytes.room(),
        }
        self.runs.store(state.runs.len(), Ordering::Release);
    }
}

impl State {
    /// The runs that have bytes in a range, by offset.
    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Run)> {
        let before = self.runs.range(..range.start).next_back();
        let before = before.filter(|(at, run)| *at + run.bytes.len() as u64 > range.start);
        let within = if range.is_empty() { range.start..range.start } else { range.clone() };
        before.into_iter().chain(self.runs.range(within)).map(|(at, run)| (*at, run))
    }

    /// Puts what runs hold over what is in `bufs`.
    fn copy(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) {
        let mut at = offset_bytes;
        for buf in bufs {
            let part = at..at + buf.len() as u64;
            for (start, run) in self.overlapping(&part) {
                let (from, to) = (start.max(part.start), part.end.min(start + run.bytes.len() as u64));
                buf[(from - at) as usize..(to - at) as usize]
                    .copy_from_slice(&run.bytes[(from - start) as usize..(to - start) as usize]);
            }
            at = part.end;
        }
    }

    /// A run of which it is known that nobody has removed it.
    fn run_mut(&mut self, at: u64) -> &mut Run {
        self.runs.get_mut(&at).expect("nobody has removed it")
    }

    /// The runs in a range that are to be written. From now on they do not change.
    fn choose(&mut self, range: &Range<u64>) -> Vec<(u64, Arc<AlignedBuf>)> {
        let waiting = self.overlapping(range).filter(|(_, run)| !run.is_written());
        let waiting: Vec<u64> = waiting.map(|(at, _)| at).collect();
        let choose = |at| {
            let run = self.run_mut(at);
            run.stage = Stage::Leaving;
            (at, Arc::clone(&run.bytes))
        };
        waiting.into_iter().map(choose).collect()
    }

    /// Whether all of a range lies in runs.
    fn holds(&self, range: &Range<u64>) -> bool {
        let mut at = range.start;
        for (start, run) in self.overlapping(range) {
            if start > at {
                return false;
            }
            at = start + run.bytes.len() as u64;
        }
        at >= range.end
    }
}

impl Run {
    fn is_written(&self) -> bool {
        matches!(self.stage, Stage::Written { .. })
    }

    /// What it holds, if that may change.
    fn open_mut(&mut self) -> Option<&mut AlignedBuf> {
        let open = self.stage == Stage::Open;
        open.then(|| Arc::get_mut(&mut self.bytes).expect("shared only while it is being written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Errno, Fault, FaultyDevice, MemDevice, Op};

    /// A device with a gatherer in front of it.
    struct Gathered {
        device: FaultyDevice,
        gather: Gather,
    }

    impl Gathered {
        fn new() -> Gathered {
            let device = FaultyDevice::new(Arc::new(MemDevice::new(64 << 20)));
            Gathered { device, gather: Gather::new() }
        }

        fn add(&self, at: u64, data: &[u8]) -> Result<()> {
            self.gather.add(at, data, &|at, data: &[u8]| self.device.write_at(at, data))
        }

        fn write_out(&self) -> Result<()> {
            self.gather.write_out(&|at, data: &[u8]| self.device.write_at(at, data))
        }

        fn drop_range(&self, range: Range<u64>) {
            self.gather.drop_range(&range, &|at, data: &[u8]| self.device.write_at(at, data));
        }

        fn read(&self, at: u64, len: usize) -> Vec<u8> {
            let mut bytes = vec![0; len];
            let mut bufs = [IoSliceMut::new(&mut bytes)];
            let read = |bufs: &mut [IoSliceMut<'_>]| self.device.read_at(at, &mut bufs[0]);
            self.gather.read(at..at + len as u64, &mut bufs, read).unwrap();
            bytes
        }

        fn writes(&self) -> u64 {
            self.device.count(Op::Write)
        }
    }

    #[test]
    fn what_continues_is_one_write() {
        let it = Gathered::new();
        (0..100).for_each(|n| it.add(4096 + n * 512, &[n as u8; 512]).unwrap());
        it.add(1 << 20, &[1; 512]).unwrap();
        assert_eq!((it.writes(), it.read(4096 + 512, 1024)), (0, [[1; 512], [2; 512]].concat()));
        // Changed where it is.
        it.add(4096 + 512, &[7; 512]).unwrap();
        it.write_out().unwrap();
        assert_eq!((it.writes(), it.read(4096 + 512, 1024)), (2, [[7; 512], [2; 512]].concat()));
        // What was written is changed by a write of its own, and not read from the device before.
        let reads = it.device.count(Op::Read);
        it.add(4096 + 512, &[8; 512]).unwrap();
        assert_eq!((it.read(4096 + 512, 512), it.device.count(Op::Read)), (vec![8; 512], reads));
        it.write_out().unwrap();
        it.write_out().unwrap();
        assert_eq!((it.writes(), it.read(4096, 1024)), (3, [[0; 512], [8; 512]].concat()));
    }

    #[test]
    fn what_fails_stays() {
        let it = Gathered::new();
        for n in 0..3 {
            it.add(n * 8192, &[n as u8 + 1; 4096]).unwrap();
        }
        it.device.inject(Fault::writes().within(8192..12288).times(2).errno(Errno::NO_SPACE));
        for _ in 0..2 {
            assert!(it.write_out().unwrap_err().is_no_space());
            assert_eq!(it.read(8192, 4096), [2; 4096]);
        }
        // Nothing is added before it is written.
        it.add(12288, &[9; 512]).unwrap();
        assert_eq!(it.writes(), 5);
        it.write_out().unwrap();
        let mut there = vec![0; 3 * 8192];
        it.device.read_at(0, &mut there).unwrap();
        assert_eq!((there[0], there[8192], there[12288], there[16384]), (1, 2, 9, 3));
    }

    /// Bytes of memory that wait to be written.
    fn waiting(it: &Gathered) -> usize {
        it.gather.state.lock().waiting_bytes
    }

    #[test]
    fn memory_is_bounded() {
        let it = Gathered::new();
        let step = |n: u64| n * 128 * 1024;
        for n in 0..256 {
            it.add(step(n), &[n as u8; 64 << 10]).unwrap();
            let state = it.gather.state.lock();
            assert!(state.waiting_bytes <= WAITING_BYTES_MAX && state.written_bytes <= WRITTEN_BYTES_MAX);
        }
        it.write_out().unwrap();
        assert_eq!((waiting(&it), it.writes()), (0, 256));
        assert!((0..256).all(|n| it.read(step(n), 64 << 10) == [n as u8; 64 << 10]));
        // A device that takes nothing: neither does this, after a while, and what is refused is not here.
        it.device.inject(Fault::writes());
        let taken = (0..256).take_while(|n| it.add(step(*n), &[1; 64 << 10]).is_ok()).count();
        assert_eq!((taken * (64 << 10), waiting(&it)), (WAITING_BYTES_MAX, WAITING_BYTES_MAX));
        // And then nothing until it does, whatever else is done.
        assert!(it.add(step(300), &[1; 512]).is_err());
        it.drop_range(step(400)..step(401));
        it.drop_range(step(0)..step(1));
        assert!(it.add(step(300), &[1; 512]).is_err());
        assert!(waiting(&it) < WAITING_BYTES_MAX);
        it.device.heal();
        it.add(step(300), &[1; 512]).unwrap();
        // The least run takes a page.
        it.write_out().unwrap();
        (0..WAITING_BYTES_MAX as u64 / 512).for_each(|n| it.add(n * 1024, &[1; 512]).unwrap());
        assert!(waiting(&it) <= WAITING_BYTES_MAX);
    }

    #[test]
    fn what_is_refused_is_not_written_later() {
        let it = Gathered::new();
        let step = |n: u64| n * 128 * 1024;
        let fits = (WAITING_BYTES_MAX / (64 << 10)) as u64;
        (0..fits).for_each(|n| it.add(step(n), &[1; 64 << 10]).unwrap());
        // There is room for those, not for one more.
        it.device.inject(Fault::writes().within(step(fits)..step(fits + 1)).errno(Errno::NO_SPACE));
        it.add(step(fits), &[1; 64 << 10]).unwrap();
        assert!(it.write_out().unwrap_err().is_no_space());
        assert!(it.add(step(fits + 1), &[1; 64 << 10]).unwrap_err().is_no_space());
        it.drop_range(step(fits)..step(fits + 1));
        it.write_out().unwrap();
        assert_eq!(it.read(step(fits + 1), 512), [0; 512]);
    }

    #[test]
    fn the_worst_error_is_told() {
        let it = Gathered::new();
        (0..8).for_each(|n| it.add(n * 8192, &[1; 4096]).unwrap());
        it.device.inject(Fault::writes().within(0..4096).errno(Errno::NO_SPACE));
        it.device.inject(Fault::writes().within(5 * 8192..5 * 8192 + 4096).errno(Errno::IO));
        assert!(!it.write_out().unwrap_err().is_no_space());
    }

    #[test]
    fn what_nobody_needs_is_not_written() {
        let it = Gathered::new();
        it.add(0, &[1; 4096]).unwrap();
        it.add(8192, &[2; 4096]).unwrap();
        it.drop_range(8192..20000);
        assert_eq!(it.read(8192, 4096), [0; 4096]);
        it.drop_range(512..1024);
        assert_eq!(it.writes(), 1);
        assert!(it.gather.is_empty());
        it.device.inject(Fault::writes());
        it.add(0, &[1; 4096]).unwrap();
        it.drop_range(512..1024);
        assert_eq!(it.read(0, 512), [1; 512]);
        it.drop_range(0..4096);
        it.write_out().unwrap();
    }
}
