//! Buffers that are used again.
//!
//! Payloads come and go at the rate of the reads, and are large: allocating each would cost page faults, and zeroing each
//! costs about as much as its checksum. A [`Pool`] hands out buffers that keep their memory: a [`Buf`] goes back to its
//! pool when it is dropped. What a fresh one holds is left over from its last use.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Idle buffers kept; with more threads reading at once the others are allocated.
const IDLE_MAX: usize = 32;
/// Buffers larger than this are not kept: a payload is rarely above 256 KiB (spec 80 §5.14).
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Idle memory.
#[derive(Default)]
pub(super) struct Pool(Arc<Idle>);

#[derive(Default)]
struct Idle(Mutex<Vec<Vec<u8>>>);

/// A buffer of a fixed length.
pub(super) struct Buf {
    /// At least `len` bytes; all of it initialised, so that a later and larger use need not be zeroed.
    bytes: Vec<u8>,
    len: usize,
    home: Weak<Idle>,
}

impl Pool {
    /// A buffer of `len` bytes with any contents.
    pub(super) fn take(&self, len: usize) -> Buf {
        let mut bytes = self.0.0.lock().pop().unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Buf { bytes, len, home: Arc::downgrade(&self.0) }
    }
}

impl Buf {
    /// Keeps only the first `len` bytes, or all if there are fewer.
    pub(super) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            return;
        }
        let mut idle = home.0.lock();
        if idle.len() < IDLE_MAX {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded() {
        let pool = Pool::default();
        let first = pool.take(1000);
        let address = first.as_ptr();
        drop(first);
        let second = pool.take(500);
        assert_eq!((second.len(), second.as_ptr()), (500, address));
        drop(second);
        drop(pool.take(KEPT_BYTES_MAX + 1));
        let many: Vec<Buf> = (0..2 * IDLE_MAX).map(|_| pool.take(1)).collect();
        drop(many);
        assert_eq!(pool.0.0.lock().len(), IDLE_MAX);
        let outlives = pool.take(8);
        drop(pool);
        assert_eq!(outlives.len(), 8);
    }
}
