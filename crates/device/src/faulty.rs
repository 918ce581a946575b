//! A device that fails on purpose.
//!
//! A [`FaultyDevice`] passes everything through to another device until a [`Fault`] says otherwise. A fault names the
//! operations it watches, the range they must touch, how many of those to let pass, how often to strike, and what then
//! happens. That expresses the usual experiments:
//!
//! * one bad sector: `Fault::reads().within(4096..4608)`
//! * fail the n-th I/O of a mount, for n = 1, 2, 3 … until it succeeds untouched: `Fault::any().nth(n).once()`
//! * the disk is pulled at the n-th write: `Fault::any()` injected then, or `Fault::writes().nth(n)`
//! * a disk that hangs, and goes on when it is [healed](FaultyDevice::heal): `Fault::writes().hanging()`
//! * a lying disk: `Fault::writes().nth(5).once().lost()`; a rotting one: `Fault::reads().corrupting(seed)`
//!
//! Vectored calls count as one I/O. Every operation is counted before any fault acts, so a clean run tells how far n has
//! to go: [`FaultyDevice::count`].

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::device::scatter;
use crate::rng::Rng;
use crate::{Device, Errno, Error, Op, Result, SECTOR_BYTES};

/// What a fault does when it strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing is done; the operation fails.
    Fail(Errno),
    /// A write puts down its first bytes, up to this many sector borders, then fails.
    Tear { sectors: u64, errno: Errno },
    /// The operation reports success without being done. For a read: `buf` stays as it was.
    Lose,
    /// The operation is done, but one bit of what a read returns is wrong.
    Corrupt { seed: u64 },
    /// Nothing happens until the device is healed; then the operation is done.
    Hang,
}

/// A rule for failing. Built from [`reads`](Fault::reads), [`writes`](Fault::writes), … and refined; without refinement
/// it makes every operation of its kind fail with `EIO` for ever.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation it watches; `None` for all.
    op: Option<Op>,
    within: Range<u64>,
    /// Matching operations still to let pass.
    skip: u64,
    /// Strikes left.
    times: u64,
    effect: Effect,
}

impl Fault {
    fn on(op: Option<Op>) -> Fault {
        Fault { op, within: 0..u64::MAX, skip: 0, times: u64::MAX, effect: Effect::Fail(Errno::IO) }
    }

    /// Fails reads.
    pub fn reads() -> Fault {
        Fault::on(Some(Op::Read))
    }

    /// Fails writes, plain and forced.
    pub fn writes() -> Fault {
        Fault::on(Some(Op::Write))
    }

    /// Fails flushes.
    pub fn flushes() -> Fault {
        Fault::on(Some(Op::Flush))
    }

    /// Fails discards.
    pub fn discards() -> Fault {
        Fault::on(Some(Op::Discard))
    }

    /// Fails every operation.
    pub fn any() -> Fault {
        Fault::on(None)
    }

    /// Only operations that touch this range of bytes. A flush touches nothing and never matches.
    pub fn within(self, bytes: Range<u64>) -> Fault {
        Fault { within: bytes, ..self }
    }

    /// Starting with the n-th matching operation after injection; 1 is the first.
    pub fn nth(self, n: u64) -> Fault {
        Fault { skip: n.saturating_sub(1), ..self }
    }

    /// At most this often.
    pub fn times(self, times: u64) -> Fault {
        Fault { times, ..self }
    }

    /// One time only.
    pub fn once(self) -> Fault {
        self.times(1)
    }

    /// Failing with this errno instead of `EIO`.
    pub fn errno(self, errno: Errno) -> Fault {
        Fault { effect: Effect::Fail(errno), ..self }
    }

    /// Failing after the write has got past this many sector borders: 0 writes nothing, 1 up to the end of its first
    /// sector.
    pub fn torn_after(self, sectors: u64) -> Fault {
        Fault { effect: Effect::Tear { sectors, errno: Errno::IO }, ..self }
    }

    /// Reporting success without doing anything.
    pub fn lost(self) -> Fault {
        Fault { effect: Effect::Lose, ..self }
    }

    /// Flipping one bit of each read, which one depends on the seed.
    pub fn corrupting(self, seed: u64) -> Fault {
        Fault { effect: Effect::Corrupt { seed }, ..self }
    }

    /// Not coming back before the device is healed; then what was asked for is done.
    pub fn hanging(self) -> Fault {
        Fault { effect: Effect::Hang, ..self }
    }

    fn matches(&self, op: Op, range: &Range<u64>) -> bool {
        let everywhere = self.within == (0..u64::MAX);
        let touches = range.start < self.within.end && self.within.start < range.end;
        self.op.is_none_or(|watched| watched == op) && (everywhere || touches)
    }
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    counts: [u64; 5],
    struck: u64,
    /// Operations that hang.
    hanging: u64,
    /// How often it was healed.
    healed: u64,
}

/// A device that fails on purpose. See the [module](self).
#[derive(Debug)]
pub struct FaultyDevice {
    inner: Arc<dyn Device>,
    state: Mutex<State>,
    is_healed: Condvar,
}

impl FaultyDevice {
    /// A device that does what `inner` does, until faults are injected.
    pub fn new(inner: Arc<dyn Device>) -> FaultyDevice {
        FaultyDevice { inner, state: Mutex::default(), is_healed: Condvar::new() }
    }

    /// Adds a fault. Of several that match an operation the earliest injected strikes.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Removes all faults. What hangs goes on, and so do counts.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.healed += 1;
        self.is_healed.notify_all();
    }

    /// How many operations hang at the moment.
    pub fn hanging(&self) -> u64 {
        self.state.lock().hanging
    }

    /// How many operations of this kind were asked for so far, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        self.state.lock().counts[op as usize]
    }

    /// How many operations of any kind were asked for so far, failed ones included.
    pub fn count_all(&self) -> u64 {
        self.state.lock().counts.iter().sum()
    }

    /// How often a fault has struck so far.
    pub fn struck(&self) -> u64 {
        self.state.lock().struck
    }

    /// Counts an operation and says which fault strikes it.
    fn decide(&self, op: Op, offset_bytes: u64, len_bytes: u64) -> Option<Effect> {
        let range = offset_bytes..offset_bytes.saturating_add(len_bytes);
        let mut state = self.state.lock();
        state.counts[op as usize] += 1;
        let mut struck = None;
        for fault in state.faults.iter_mut().filter(|fault| fault.matches(op, &range)) {
            if fault.skip > 0 {
                // Every watching fault counts the operation, whichever strikes.
                fault.skip -= 1;
            } else if struck.is_none() && fault.times > 0 {
                fault.times -= 1;
                struck = Some(fault.effect.clone());
            }
        }
        state.struck += u64::from(struck.is_some());
        if struck == Some(Effect::Hang) {
            let healed = state.healed;
            state.hanging += 1;
            self.is_healed.wait_while(&mut state, |state| state.healed == healed);
            state.hanging -= 1;
            return None;
        }
        struck
    }

    fn error(&self, op: Op, offset_bytes: u64, len_bytes: u64, errno: Errno) -> Error {
        Error::Io { device: self.name().clone(), op, offset_bytes, len_bytes, errno }
    }

    /// Runs an operation that carries no data out, or its fault.
    fn run(&self, op: Op, offset_bytes: u64, len_bytes: u64, go: impl FnOnce() -> Result<()>) -> Result<()> {
        match self.decide(op, offset_bytes, len_bytes) {
            Some(Effect::Fail(errno) | Effect::Tear { errno, .. }) => {
                Err(self.error(op, offset_bytes, len_bytes, errno))
            }
            Some(Effect::Lose) => Ok(()),
            Some(Effect::Corrupt { .. } | Effect::Hang) | None => go(),
        }
    }

    fn write(&self, offset_bytes: u64, data: &[u8], stable: bool) -> Result<()> {
        let len_bytes = data.len() as u64;
        match self.decide(Op::Write, offset_bytes, len_bytes) {
            Some(Effect::Fail(errno)) => Err(self.error(Op::Write, offset_bytes, len_bytes, errno)),
            Some(Effect::Tear { sectors, errno }) => {
                let border = (offset_bytes / SECTOR_BYTES + sectors) * SECTOR_BYTES;
                let kept = border.saturating_sub(offset_bytes).min(len_bytes) as usize;
                self.inner.write_at(offset_bytes, &data[..kept])?;
                Err(self.error(Op::Write, offset_bytes, len_bytes, errno))
            }
            Some(Effect::Lose) => Ok(()),
            Some(Effect::Corrupt { .. } | Effect::Hang) | None if stable => {
                self.inner.write_fua_at(offset_bytes, data)
            }
            Some(Effect::Corrupt { .. } | Effect::Hang) | None => self.inner.write_at(offset_bytes, data),
        }
    }
}

impl crate::Wrapper for FaultyDevice {
    type Inner = dyn Device;

    fn inner(&self) -> &Self::Inner {
        &*self.inner
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        let len_bytes = buf.len() as u64;
        match self.decide(Op::Read, offset_bytes, len_bytes) {
            Some(Effect::Fail(errno) | Effect::Tear { errno, .. }) => {
                Err(self.error(Op::Read, offset_bytes, len_bytes, errno))
            }
            Some(Effect::Lose) => Ok(()),
            Some(Effect::Corrupt { seed }) => {
                self.inner().read_at(offset_bytes, buf)?;
                if !buf.is_empty() {
                    let bit = Rng::new(seed ^ offset_bytes).below(len_bytes * 8);
                    buf[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                Ok(())
            }
            Some(Effect::Hang) | None => self.inner().read_at(offset_bytes, buf),
        }
    }

    fn read_vectored_at(&self, offset_bytes: u64, bufs: &mut [IoSliceMut<'_>]) -> Result<()> {
        scatter(bufs, |whole| Device::read_at(self, offset_bytes, whole))
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.write(offset_bytes, data, false)
    }

    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.write(offset_bytes, data, true)
    }

    fn flush(&self) -> Result<()> {
        self.run(Op::Flush, 0, 0, || self.inner().flush())
    }

    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.run(Op::Discard, offset_bytes, len_bytes, || self.inner().discard(offset_bytes, len_bytes))
    }

    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        self.run(Op::Zero, offset_bytes, len_bytes, || self.inner().zero(offset_bytes, len_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDevice;

    fn device() -> FaultyDevice {
        FaultyDevice::new(Arc::new(MemDevice::from_bytes(&[1; 8192])))
    }

    fn read(device: &FaultyDevice, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; len];
        device.read_at(at, &mut buf).map(|()| buf)
    }

    #[test]
    fn a_bad_sector_stays_bad_until_healed() {
        let device = device();
        device.inject(Fault::reads().within(4096..4608));
        assert!(read(&device, 0, 4096).is_ok());
        let err = read(&device, 0, 4097).unwrap_err();
        let text = "cannot read 4097 bytes at 0 of memory: Input/output error (os error 5)";
        assert_eq!(err.to_string(), text);
        assert!(read(&device, 4607, 10).is_err());
        assert!(read(&device, 4608, 10).is_ok());
        assert!(device.write_at(4096, &[2]).is_ok());
        assert_eq!((device.count(Op::Read), device.count_all(), device.struck()), (4, 5, 2));
        device.heal();
        assert_eq!(read(&device, 4096, 2), Ok(vec![2, 1]));
    }

    #[test]
    fn strikes_the_nth_operation_so_many_times() {
        let device = device();
        device.inject(Fault::any().nth(3).times(2).errno(Errno::NO_SPACE));
        let results = [
            device.flush(),
            device.write_at(0, &[9]),
            device.write_fua_at(1, &[9]),
            device.flush(),
            device.flush(),
        ];
        assert_eq!(results.each_ref().map(Result::is_ok), [true, true, false, false, true]);
        assert!(results[2].as_ref().unwrap_err().is_no_space());
        assert_eq!(read(&device, 0, 3), Ok(vec![9, 1, 1]));
    }

    #[test]
    fn a_vectored_call_is_one_operation() {
        let device = device();
        device.inject(Fault::writes().nth(2).once().torn_after(1));
        let data = [[7; 300], [8; 300]].concat();
        assert!(device.write_at(0, &data).is_ok());
        assert!(device.write_at(1000, &data).is_err());
        assert_eq!(device.count(Op::Write), 2);
        // The tear is at 1024, where the sector that holds byte 1000 ends.
        assert_eq!(read(&device, 998, 28), Ok([vec![1; 2], vec![7; 24], vec![1; 2]].concat()));
        let (mut a, mut b) = ([0; 300], [0; 300]);
        device.read_vectored_at(0, &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap();
        assert_eq!((a, b), ([7; 300], [8; 300]));
    }

    #[test]
    fn lies_and_rots() {
        let device = device();
        device.inject(Fault::writes().once().lost());
        device.write_at(0, &[5; 512]).unwrap();
        assert_eq!(read(&device, 0, 512), Ok(vec![1; 512]));
        device.inject(Fault::reads().corrupting(42));
        let (first, second) = (read(&device, 0, 512).unwrap(), read(&device, 0, 512).unwrap());
        assert_eq!(first, second);
        let flipped: u32 = first.iter().map(|byte| (byte ^ 1).count_ones()).sum();
        assert_eq!(flipped, 1);
    }
}
