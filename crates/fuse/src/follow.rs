//! Answering on the processor of whoever asks.
//!
//! A caller sleeps while its request is answered, so the two never need two processors. If they are on two all the same, each request costs two
//! wake-ups across: some microseconds if the other processor idles, and up to a hundred if it is busy with something else. The scheduler does not
//! know that the two belong together, and finds a good arrangement only by chance. So the thread that reads requests looks, once
//! in a while, where its last caller runs, and goes there. As soon as it answers something that takes long it may run anywhere again,
//! because then the caller has something else to do.
//!
//! Measured (2 processors, both busy with compilers, Linux 6.18): see docs/performance.md, "Mounted".

use std::cell::Cell;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// So many requests in a row are answered before the caller is looked for: that costs some ten microseconds.
const REQUESTS: u32 = 256;

/// Where one thread runs. Not to be used by another one.
pub(crate) struct Follow {
    /// Where it may run at all; `None` if there is no choice.
    allowed: Option<CpuSet>,
    /// It may run only on one of them now.
    bound: Cell<bool>,
    /// Answered since the caller was looked for.
    answered: Cell<u32>,
}

impl Follow {
    /// For the calling thread.
    pub(crate) fn new() -> Follow {
        let allowed = sched_getaffinity(None).ok().filter(|cpus| cpus.count() > 1);
        Follow { allowed, bound: Cell::new(false), answered: Cell::new(0) }
    }

    /// A request of this thread was answered without a wait.
    pub(crate) fn answered(&self, caller: u32) {
        self.answered.set(self.answered.get() + 1);
        if self.answered.get() >= REQUESTS {
            self.answered.set(0);
            self.go_to(caller);
        }
    }

    /// Callers are all on this processor.
    pub(crate) fn stay_on(&self, cpu: usize) {
        if !self.bound.get()
            && cpu < CpuSet::MAX_CPU
            && self.allowed.is_some_and(|allowed| allowed.is_set(cpu))
        {
            self.bind(cpu);
        }
    }

    /// What comes takes long: anywhere.
    pub(crate) fn roam(&self) {
        self.answered.set(0);
        if let (true, Some(allowed)) = (self.bound.take(), &self.allowed) {
            // It succeeded before; if not, the scheduler has less choice.
            let _ = sched_setaffinity(None, allowed);
        }
    }

    fn go_to(&self, caller: u32) {
        let Some(allowed) = &self.allowed else { return };
        let Some(cpu) = processor_of(caller).filter(|cpu| *cpu < CpuSet::MAX_CPU && allowed.is_set(*cpu))
        else {
            return self.roam();
        };
        if self.bound.get() && sched_getcpu() == cpu {
            return;
        }
        self.bind(cpu);
    }

    fn bind(&self, cpu: usize) {
        let mut only = CpuSet::new();
        only.set(cpu);
        self.bound.set(sched_setaffinity(None, &only).is_ok() || self.bound.get());
    }
}

/// Where a thread runs, or ran last.
fn processor_of(thread: u32) -> Option<usize> {
    // Of a caller in a namespace of processes that is not ours the kernel says 0.
    let stat = std::fs::read(format!("/proc/{thread}/stat")).ok()?;
    processor_in(&stat)
}

/// The 39th field of proc_pid_stat(5). The second one is a name in parentheses, which may have anything in it.
fn processor_in(stat: &[u8]) -> Option<usize> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found() {
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert!(processor_of(me).is_some_and(|cpu| cpu < CpuSet::MAX_CPU));
        assert_eq!(processor_of(0), None);
        let fields: String = (3..=52).map(|field| format!(" {field}")).collect();
        assert_eq!(processor_in(format!("1 (a) 7 (b)){fields}\n").as_bytes()), Some(39));
        assert_eq!(processor_in(b"1 (cut off) R 1"), None);
    }

    #[test]
    fn it_goes_where_the_caller_is_and_may_leave_again() {
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let before = sched_getaffinity(None).unwrap();
        let follow = Follow::new();
        (0..REQUESTS).for_each(|_| follow.answered(me));
        let bound = sched_getaffinity(None).unwrap();
        assert_eq!(bound.count(), 1);
        assert!(bound.is_set(sched_getcpu()));
        // A caller that is gone is not followed.
        (0..REQUESTS).for_each(|_| follow.answered(0));
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        (0..REQUESTS).for_each(|_| follow.answered(me));
        follow.roam();
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
