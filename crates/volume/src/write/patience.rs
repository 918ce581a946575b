//! Devices without room: what is written to a thin device whose pool is exhausted (spec 70 R12).
//!
//! A thin device promises more than there is behind it. When that is used up a write that needs a new place fails with `ENOSPC`, until somebody adds
//! room; nothing is wrong with the device or with us. What to do then is one decision for the whole volume ([`NoSpace`]):
//!
//! | | `Wait` | `FailAfter` |
//! |---|---|---|
//! | the journal | repeats the write until it succeeds | for so long, then the device counts as failed |
//! | nodes of b-trees | the same | for so long, then it is an error: who wants them written (reclaim, a freeze) fails |
//! | data of files | the same: the writer waits | `ENOSPC` at once |
//!
//! The journal has its own way of waiting, because it goes on with other devices meanwhile (`frazil_journal`). The others write to a [`Patient`] device, which repeats
//! the write. All of a volume share one [`Patience`]: the time counts from the first write that found no room since one last succeeded, so that it is not waited for
//! once by each. When nothing may be written any more nobody waits any longer.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Duration;

use frazil_device::{Device, DeviceSet, Result};
use frazil_journal::engine::{Clock, NoSpace};
use parking_lot::{Condvar, Mutex};

/// Pause before a write is repeated: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long the writers of a volume wait for room on its devices.
pub(super) struct Patience {
    policy: NoSpace,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// When a write first found no room, if none has since.
    since: Option<Duration>,
    /// Writes that wait.
    waiting: u32,
    /// Nothing may be written any more.
    ended: bool,
}

impl Patience {
    pub(super) fn new(policy: NoSpace, clock: Arc<dyn Clock>) -> Arc<Patience> {
        Arc::new(Patience { policy, clock, state: Mutex::default(), ended: Condvar::new() })
    }

    /// How many writes wait for room.
    pub(super) fn waiting(&self) -> u32 {
        self.state.lock().waiting
    }

    /// Nobody waits any more.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.ended.notify_all();
    }

    /// The devices, for writers of nodes.
    pub(super) fn for_nodes(self: &Arc<Self>, devices: &DeviceSet) -> DeviceSet {
        let patient =
            |device: &Arc<dyn Device>| Patient { device: Arc::clone(device), patience: Arc::clone(self) };
        devices.iter().map(|(index, device)| (index, Arc::new(patient(device)) as Arc<dyn Device>)).collect()
    }

    /// The devices, for writers of data.
    pub(super) fn for_data(self: &Arc<Self>, devices: &DeviceSet) -> DeviceSet {
        match self.policy {
            NoSpace::Wait => self.for_nodes(devices),
            NoSpace::FailAfter(_) => devices.clone(),
        }
    }

    /// Repeats a write until it does not fail for want of room, or for as long as is waited.
    fn write(&self, write: impl Fn() -> Result<()>) -> Result<()> {
        let mut pause = PAUSE_MIN;
        loop {
            let done = write();
            let error = match done {
                Err(error) if error.is_no_space() => error,
                // Whoever needs no new place says nothing about whether there is one, but then the time is only longer.
                done => {
                    self.state.lock().since = None;
                    return done;
                }
            };
            let now = self.clock.now();
            let mut state = self.state.lock();
            let waited = now.saturating_sub(*state.since.get_or_insert(now));
            let too_long = matches!(self.policy, NoSpace::FailAfter(limit) if waited >= limit);
            if too_long || state.ended {
                return Err(error);
            }
            if state.waiting == 0 {
                tracing::warn!("{error}; it is tried again");
            }
            state.waiting += 1;
            self.ended.wait_for(&mut state, pause);
            state.waiting -= 1;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }
}

/// A device whose writes wait for room.
#[derive(Debug)]
struct Patient {
    device: Arc<dyn Device>,
    patience: Arc<Patience>,
}

impl std::fmt::Debug for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {} waiting", self.policy, self.waiting())
    }
}

impl frazil_device::Wrapper for Patient {
    type Inner = dyn Device;

    fn inner(&self) -> &Self::Inner {
        &*self.device
    }

    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        self.inner().read_vectored_at(offset_bytes, bufs)
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.patience.write(|| self.inner().write_at(offset_bytes, data))
    }

    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.patience.write(|| self.inner().write_fua_at(offset_bytes, data))
    }

    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.patience.write(|| self.inner().zero(offset_bytes, len_bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use frazil_device::{ThinPool, WhenFull};
    use frazil_journal::engine::SystemClock;

    use super::*;

    const CHUNK: u64 = 4096;

    /// A device in a pool of one chunk, and the same with patience.
    fn devices(policy: NoSpace) -> (Arc<ThinPool>, Arc<Patience>, Arc<dyn Device>) {
        let pool = ThinPool::in_memory(CHUNK, CHUNK, WhenFull::Fail);
        let device: Arc<dyn Device> = Arc::new(pool.device("thin", 100 * CHUNK));
        let patience = Patience::new(policy, Arc::new(SystemClock::default()));
        let patient = patience.for_nodes(&[(0, device)].into_iter().collect());
        let patient = Arc::clone(patient.get(0).unwrap());
        patient.write_at(0, &[1; 10]).unwrap();
        (pool, patience, patient)
    }

    #[test]
    fn fails_after_a_while_once_for_all() {
        let longest = Duration::from_millis(50);
        let (pool, _, device) = devices(NoSpace::FailAfter(longest));
        let begun = Instant::now();
        assert!(device.write_at(CHUNK, &[2; 10]).unwrap_err().is_no_space());
        assert!(begun.elapsed() >= longest);
        assert!(device.write_fua_at(2 * CHUNK, &[2; 10]).unwrap_err().is_no_space());
        pool.grow(10 * CHUNK).unwrap();
        device.write_at(CHUNK, &[2; 10]).unwrap();
    }

    #[test]
    fn waits_until_there_is_room_or_nothing_may_be_written() {
        let (pool, patience, device) = devices(NoSpace::Wait);
        std::thread::scope(|scope| {
            let write = |at: u64| {
                let device = &device;
                let write = scope.spawn(move || device.write_at(at, &[2; 10]));
                while patience.waiting() == 0 {
                    std::thread::yield_now();
                }
                write
            };
            let waiting = write(CHUNK);
            pool.grow(2 * CHUNK).unwrap();
            waiting.join().unwrap().unwrap();
            let waiting = write(5 * CHUNK);
            patience.end();
            assert!(waiting.join().unwrap().unwrap_err().is_no_space());
        });
        assert_eq!(patience.waiting(), 0);
    }

    #[test]
    fn data_is_waited_for_only_where_everything_is() {
        let (_, patience, device) = devices(NoSpace::FailAfter(Duration::from_secs(3600)));
        let set: DeviceSet = [(0, device)].into_iter().collect();
        let of_data = patience.for_data(&set);
        assert!(Arc::ptr_eq(of_data.get(0).unwrap(), set.get(0).unwrap()));
    }
}
