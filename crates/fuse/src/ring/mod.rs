//! Requests through io_uring, where the administrator has switched that on (`/sys/module/fuse/parameters/enable_uring`, Linux ≥ 6.14).
//!
//! Each processor has a queue, in which the requests of its programs are, and each queue has *entries* ([`entry`]). A thread here has one entry, in a ring of its own, and
//! runs on the processor of its queue: it waits for a request and answers it. So a caller is answered where it runs, and handing over an answer and
//! waiting for the next request is one system call.
//!
//! **Who waits has to wait himself.** A request stays in its entry, and the entry with the thread that has it, until it is answered. So what for `/dev/fuse` is the turn
//! ([`crate::turn`]) here is a rule about numbers: of the threads of a queue a few are *at their desks*, that is, wait for requests or answer
//! one that needs no waiting. Who leaves his desk sees to it that another thread comes if there are too few. A request that has to wait until a frozen volume
//! is thawed keeps its thread, too; there are as many as programs that wait, up to a limit. The kernel does not take entries back, so threads stay until the end.
//!
//! **Requests that are left lying.** The kernel does not give them to an entry that is registered while they lie in the queue. So when a thread has come later than
//! the first ones, somebody has to ask for something on that processor ([`behind`]).
//!
//! **What still comes through `/dev/fuse`:** what the kernel forgets, and interrupts; everything, if registering entries fails.
//!
//! **What was asked before.** Who must know that all requests made until now have been read (see [`crate::fence`]) cannot rely on an order: there is none between queues. So he
//! rings a *bell* that all threads hear, and waits until each of them has looked for a request since, and has answered what it found or left its desk with it.
//!
//! A caller that is being killed is let go at once if it waits for a thaw. If it waits for a device it is not, as with a filesystem in the kernel: the thread that
//! waits has the memory from which the reply would be fetched.

mod behind;
mod entry;
mod serve;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::EventfdFlags;

pub(crate) use entry::Entry;

/// So many threads of a queue are to be at their desks.
const PRESENT_MIN: u32 = 4;
/// Most threads of a mount. Each waits for a device or a thaw, on behalf of a program that waits as well.
const THREADS_MAX: u32 = 4096;
/// How long what was asked before is waited for.
const HEARD_MAX: Duration = Duration::from_secs(2);
/// The processors for which the kernel has queues.
const PROCESSORS: &str = "/sys/devices/system/cpu/possible";

/// The queues of a mount.
pub(crate) struct Rings {
    queues: Vec<Queue>,
    /// The kernel sends its requests this way.
    in_use: AtomicBool,
    threads: AtomicU32,
    /// Wakes all that wait for requests, and counts how often.
    bell: OwnedFd,
    rung: AtomicU64,
    /// For those who wait until it was heard.
    heard: (Mutex<()>, Condvar),
    /// For those who wait for a thaw, or for a queue that is behind; true at the end.
    thaw: (Mutex<bool>, Condvar),
}

/// A queue, by the number of its processor.
#[derive(Default)]
struct Queue {
    desks: Mutex<Vec<Arc<Desk>>>,
    /// Threads at their desks.
    present: AtomicU32,
    /// Requests may lie there although there are entries.
    behind: AtomicBool,
}

/// What others may know of a thread.
#[derive(Default)]
pub(crate) struct Desk {
    /// Of this queue.
    queue: u16,
    /// It answers a request,
    busy: AtomicBool,
    /// which needs to wait.
    left: AtomicBool,
    /// It has looked for a request after the bell rang for this time, and what it found is answered.
    heard: AtomicU64,
    /// It has looked for a request after the bell rang for this time, and found none.
    idle: AtomicU64,
}

impl Rings {
    /// Rings with entries for each queue, of which the kernel does not know yet; `None` if there cannot be any.
    pub(crate) fn new() -> Option<(Rings, Vec<Entry>)> {
        let made = || -> io::Result<_> {
            let queues = count_processors(&std::fs::read_to_string(PROCESSORS)?)?;
            let entries =
                (0..PRESENT_MIN).flat_map(|_| 0..queues).map(Entry::new).collect::<io::Result<Vec<_>>>()?;
            let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
            Ok((Rings::of(queues.into(), bell), entries))
        };
        made().inspect_err(|error| tracing::debug!("no io_uring: {error}")).ok()
    }

    fn of(queues: usize, bell: OwnedFd) -> Rings {
        Rings {
            queues: (0..queues).map(|_| Queue::default()).collect(),
            in_use: AtomicBool::new(false),
            threads: AtomicU32::new(0),
            bell,
            rung: AtomicU64::new(0),
            heard: Default::default(),
            thaw: Default::default(),
        }
    }

    /// Whether the kernel sends its requests this way.
    pub(crate) fn are_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// How many queues there are.
    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    fn queue(&self, queue: u16) -> &Queue {
        &self.queues[usize::from(queue)]
    }

    /// The kernel sends its requests this way from now on.
    fn use_them(&self) {
        self.in_use.store(true, Ordering::Release);
    }

    /// Requests that are being answered and do not wait.
    pub(crate) fn busy(&self) -> u64 {
        let busy = |desk: &Arc<Desk>| desk.busy.load(Ordering::Relaxed) && !desk.left.load(Ordering::Relaxed);
        let of = |queue: &Queue| queue.desks.lock().iter().filter(|desk| busy(desk)).count() as u64;
        self.queues.iter().map(of).sum()
    }

    /// Waits as long as `blocked` is true; it is looked when [`look_again`](Rings::look_again) says so. False at the end.
    fn wait_while(&self, blocked: impl Fn() -> bool) -> bool {
        let (lock, changed) = &self.thaw;
        let mut ended = lock.lock();
        while !*ended && blocked() {
            changed.wait(&mut ended);
        }
        !*ended
    }

    /// Who waits for a thaw may not have to any more.
    pub(crate) fn look_again(&self) {
        drop(self.thaw.0.lock());
        self.thaw.1.notify_all();
    }

    /// There will be no more requests.
    pub(crate) fn end(&self) {
        let (lock, changed) = &self.thaw;
        let mut ended = lock.lock();
        *ended = true;
        self.queues.iter().for_each(|queue| queue.behind.store(false, Ordering::Release));
        changed.notify_all();
    }

    /// A thread comes, to its desk.
    fn come(&self, queue: u16) -> Arc<Desk> {
        let desk = Arc::new(Desk { queue, ..Desk::default() });
        self.queue(queue).desks.lock().push(Arc::clone(&desk));
        desk
    }

    /// A thread leaves its desk. True if another one is to be started, which is counted already.
    fn leave(&self, desk: &Desk) -> bool {
        desk.left.store(true, Ordering::Release);
        self.tell_heard();
        let present = &self.queue(desk.queue).present;
        present.fetch_sub(1, Ordering::AcqRel) <= PRESENT_MIN && self.expect(desk.queue)
    }

    /// Counts a thread that is to be started. False: there are too many.
    fn expect(&self, queue: u16) -> bool {
        let more = self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |threads| {
            (threads < THREADS_MAX).then_some(threads + 1)
        });
        if more.is_ok() {
            self.queue(queue).present.fetch_add(1, Ordering::AcqRel);
        }
        more.is_ok()
    }

    /// A thread is back at its desk, if it had left it.
    fn come_back(&self, desk: &Desk) {
        if desk.left.swap(false, Ordering::AcqRel) {
            self.queue(desk.queue).present.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A thread goes for good.
    fn go(&self, desk: &Arc<Desk>) {
        self.come_back(desk);
        self.queue(desk.queue).desks.lock().retain(|other| !Arc::ptr_eq(desk, other));
        self.not_started(desk.queue);
        self.tell_heard();
    }

    /// A thread that was counted could not be started.
    fn not_started(&self, queue: u16) {
        self.queue(queue).present.fetch_sub(1, Ordering::AcqRel);
        self.threads.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until all requests made before this call have been read and are answered or known to wait. Not for a thread at its desk; and not for ever, if others ask without
    /// end.
    pub(crate) fn read_all(&self) {
        let deadline = Instant::now() + HEARD_MAX;
        // The kernel keeps requests back only as long as it has no entry to put one in. So when a thread of a queue has nothing to do, every earlier request
        // of the queue is with a thread,
        self.ring_until(deadline, |queue, time| queue.iter().any(|desk| desk.is_idle_since(time)));
        // which has seen it when it has looked once more.
        self.ring_until(deadline, |queue, time| queue.iter().all(|desk| desk.has_heard(time)));
    }

    /// Rings the bell, and waits until `done` with each queue.
    fn ring_until(&self, deadline: Instant, done: impl Fn(&[Arc<Desk>], u64) -> bool) {
        let time = self.rung.fetch_add(1, Ordering::AcqRel) + 1;
        // It counts up to 2⁶⁴.
        if rustix::io::write(&self.bell, &1u64.to_ne_bytes()).is_err() {
            return;
        }
        let (lock, changed) = &self.heard;
        let mut locked = lock.lock();
        while !self.queues.iter().all(|queue| done(&queue.desks.lock(), time)) {
            if changed.wait_until(&mut locked, deadline).timed_out() {
                return;
            }
        }
    }

    fn tell_heard(&self) {
        let (lock, changed) = &self.heard;
        drop(lock.lock());
        changed.notify_all();
    }
}

impl Desk {
    fn is_idle_since(&self, time: u64) -> bool {
        self.idle.load(Ordering::Acquire) >= time
    }

    fn has_heard(&self, time: u64) -> bool {
        self.heard.load(Ordering::Acquire) >= time || self.left.load(Ordering::Acquire)
    }
}

/// How many processors there may be, from a list of ranges like `0-3,8-11`.
fn count_processors(list: &str) -> io::Result<u16> {
    let last = list.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<u16>().ok());
    last.and_then(|last| last.checked_add(1)).ok_or_else(|| io::Error::other(format!("{PROCESSORS}: {list}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        assert_eq!(count_processors("0\n").unwrap(), 1);
        assert_eq!(count_processors("0-63\n").unwrap(), 64);
        assert_eq!(count_processors("0-1,4-7\n").unwrap(), 8);
        assert!(count_processors("").is_err() && count_processors("0-65535").is_err());
    }
}
