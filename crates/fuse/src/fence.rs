//! Requests that are answered only when all that was queued before them has been read.
//!
//! Who removes a file and then asks how much room there is (`statfs`) counts on the file being gone. The kernel tells us that it forgets the file before the
//! system call that removed it returns, so earlier; but it keeps what it forgets in a queue of its own, which it lets wait behind up to eight other requests. So
//! `statfs` is kept back, by the thread whose turn it is, until the kernel has nothing left that was not read. What was forgotten before is known to
//! the volume when the next is read ([`WriteFs::release`](frazil_posix::write::WriteFs::release)), so then the answer is right. A freeze makes such a request, too, before it closes the second gate
//! ([`crate::attach::sync_pages`]).
//!
//! Where requests come through io_uring as well ([`crate::ring`]), what the kernel forgets still comes this way, and who wants to know that it has been read leaves
//! a mark here. That is also who was refused for want of room or by a quota.
//!
//! Others may ask without end. So it is not kept back longer than a number of requests within which the kernel lets everything through that it forgets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use parking_lot::Mutex;

use crate::request::is_statfs;

/// Most requests read while one is kept back. Of each 24, 8 at least are not about forgetting; one that is tells of thousands of objects.
const READS_MAX: u32 = 64;

/// What is kept back. But for marks, only who has the turn asks, so who passes it on passes this on.
#[derive(Default)]
pub(crate) struct Fence {
    kept: Mutex<Kept>,
    /// There is something; usually there is not.
    any: AtomicBool,
}

#[derive(Default)]
struct Kept {
    until_read: VecDeque<Due>,
    /// How many of them need not be kept any longer.
    due: usize,
    /// Read since the first of them.
    reads: u32,
}

/// What was kept back.
#[derive(Debug)]
pub(crate) enum Due {
    /// A request, to be answered.
    Request(Vec<u8>),
    /// Somebody, to be told.
    Mark(Sender<()>),
}

impl Fence {
    /// A request was read. True if it is kept back.
    pub(crate) fn keeps(&self, bytes: &[u8]) -> bool {
        let keeps = is_statfs(bytes);
        if keeps || self.any.load(Ordering::Relaxed) {
            let mut kept = self.kept.lock();
            kept.reads += 1;
            if keeps {
                self.keep(&mut kept, Due::Request(bytes.to_vec()));
            }
        }
        keeps
    }

    /// Has `mark` be told when everything has been read. Whoever reads must look after this how many are kept back.
    pub(crate) fn mark(&self, mark: Sender<()>) {
        self.keep(&mut self.kept.lock(), Due::Mark(mark));
    }

    fn keep(&self, kept: &mut Kept, due: Due) {
        if kept.until_read.is_empty() {
            kept.reads = 0;
        }
        kept.until_read.push_back(due);
        self.any.store(true, Ordering::Release);
    }

    /// How many are kept back.
    pub(crate) fn len(&self) -> usize {
        if self.any.load(Ordering::Acquire) { self.kept.lock().until_read.len() } else { 0 }
    }

    /// The kernel had nothing more when it was asked, and so many were kept back before it was.
    pub(crate) fn all_is_read(&self, kept_before: usize) {
        self.kept.lock().due = kept_before;
    }

    /// One that is to be answered now.
    pub(crate) fn due(&self) -> Option<Due> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let mut kept = self.kept.lock();
        if kept.due == 0 && kept.reads < READS_MAX {
            return None;
        }
        kept.due = kept.due.saturating_sub(1);
        let due = kept.until_read.pop_front();
        self.any.store(!kept.until_read.is_empty(), Ordering::Release);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn request(opcode: u32, unique: u64) -> Vec<u8> {
        let mut bytes = vec![0; crate::request::HEADER_BYTES];
        bytes[0..4].copy_from_slice(&(crate::request::HEADER_BYTES as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
        bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        bytes[16..24].copy_from_slice(&1u64.to_ne_bytes());
        bytes
    }

    fn due(fence: &Fence) -> Option<Vec<u8>> {
        fence.due().map(|due| match due {
            Due::Request(bytes) => bytes,
            Due::Mark(_) => panic!("a mark"),
        })
    }

    #[test]
    fn it_is_kept_until_everything_was_read_but_not_for_ever() {
        let (fence, statfs, getattr) = (Fence::default(), request(17, 5), request(3, 6));
        assert!(!fence.keeps(&getattr) && fence.len() == 0);
        fence.all_is_read(0);
        assert_eq!(due(&fence), None);
        assert!(fence.keeps(&statfs) && fence.len() == 1);
        assert_eq!(due(&fence), None);
        assert!(fence.keeps(&request(17, 7)));
        fence.all_is_read(2);
        assert_eq!(due(&fence), Some(statfs.clone()));
        assert_eq!((due(&fence), due(&fence)), (Some(request(17, 7)), None));
        assert!(fence.keeps(&statfs));
        for _ in 0..READS_MAX {
            assert_eq!(due(&fence), None);
            assert!(!fence.keeps(&getattr));
        }
        assert_eq!(due(&fence), Some(statfs));
        assert_eq!(fence.len(), 0);
    }

    #[test]
    fn a_mark_that_came_while_the_kernel_was_asked_waits_for_the_next_time() {
        let (fence, (first, told_first), (second, told_second)) = (Fence::default(), channel(), channel());
        fence.mark(first);
        let kept = fence.len();
        fence.mark(second);
        fence.all_is_read(kept);
        let Some(Due::Mark(mark)) = fence.due() else { panic!("no mark") };
        mark.send(()).unwrap();
        assert!(told_first.try_recv().is_ok() && fence.due().is_none());
        assert!(told_second.try_recv().is_err());
        fence.all_is_read(fence.len());
        assert!(matches!(fence.due(), Some(Due::Mark(_))));
    }
}
