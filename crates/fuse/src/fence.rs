//! Requests that are answered only when all that was queued before them has been read.
//!
//! Who removes a file and then asks how much room there is (`statfs`) counts on the file being gone. The kernel tells us that it forgets the file before the
//! system call that removed it returns, so earlier; but it keeps what it forgets in a queue of its own, which it lets wait behind up to eight other requests. So
//! `statfs` is kept back, by the thread whose turn it is, until the kernel has nothing left that was not read. What was forgotten before is known to
//! the volume when the next is read ([`WriteFs::release`](frazil_posix::write::WriteFs::release)), so then the answer is right. A freeze makes such a request, too, before it closes the second gate
//! ([`crate::attach::sync_pages`]).
//!
//! Others may ask without end. So it is not kept back longer than a number of requests within which the kernel lets everything through that it forgets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::request::is_statfs;

/// Most requests read while one is kept back. Of each 24, 8 at least are not about forgetting; one that is tells of thousands of objects.
const READS_MAX: u32 = 64;

/// What is kept back. Only who has the turn asks, so who passes it on passes this on.
#[derive(Default)]
pub(crate) struct Fence {
    kept: Mutex<Kept>,
    /// There is something; usually there is not.
    any: AtomicBool,
}

#[derive(Default)]
struct Kept {
    requests: VecDeque<Vec<u8>>,
    /// Read since the first of them.
    reads: u32,
    /// There was nothing more to be read.
    idle: bool,
}

impl Fence {
    /// A request was read. True if it is kept back.
    pub(crate) fn keeps(&self, bytes: &[u8]) -> bool {
        let keeps = is_statfs(bytes);
        if keeps || self.any.load(Ordering::Relaxed) {
            let mut kept = self.kept.lock();
            kept.reads = if kept.requests.is_empty() { 0 } else { kept.reads + 1 };
            kept.idle = false;
            if keeps {
                kept.requests.push_back(bytes.to_vec());
                self.any.store(true, Ordering::Relaxed);
            }
        }
        keeps
    }

    /// Whether something is kept back.
    pub(crate) fn keeps_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The kernel had nothing more when it was asked.
    pub(crate) fn all_is_read(&self) {
        self.kept.lock().idle = true;
    }

    /// One that is to be answered now.
    pub(crate) fn due(&self) -> Option<Vec<u8>> {
        if !self.keeps_any() {
            return None;
        }
        let mut kept = self.kept.lock();
        if !kept.idle && kept.reads < READS_MAX {
            return None;
        }
        let request = kept.requests.pop_front();
        self.any.store(!kept.requests.is_empty(), Ordering::Relaxed);
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, unique: u64) -> Vec<u8> {
        let mut bytes = vec![0; crate::request::HEADER_BYTES];
        bytes[0..4].copy_from_slice(&(crate::request::HEADER_BYTES as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
        bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        bytes[16..24].copy_from_slice(&1u64.to_ne_bytes());
        bytes
    }

    #[test]
    fn it_is_kept_until_everything_was_read_but_not_for_ever() {
        let (fence, statfs, getattr) = (Fence::default(), request(17, 5), request(3, 6));
        assert!(!fence.keeps(&getattr) && !fence.keeps_any());
        fence.all_is_read();
        assert_eq!(fence.due(), None);
        assert!(fence.keeps(&statfs) && fence.keeps_any());
        assert_eq!(fence.due(), None);
        assert!(fence.keeps(&request(17, 7)));
        fence.all_is_read();
        assert_eq!(fence.due(), Some(statfs.clone()));
        assert_eq!((fence.due(), fence.due()), (Some(request(17, 7)), None));
        assert!(fence.keeps(&statfs));
        for _ in 0..READS_MAX {
            assert_eq!(fence.due(), None);
            assert!(!fence.keeps(&getattr));
        }
        assert_eq!(fence.due(), Some(statfs));
        assert!(!fence.keeps_any());
    }
}
