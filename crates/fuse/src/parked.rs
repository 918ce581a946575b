//! Requests that wait for a frozen volume to be thawed, without a thread.
//!
//! However many programs want to change something meanwhile, the threads of the session are there for those that read. A request that has to wait
//! is copied and put aside; the kernel keeps its caller waiting. When the gates open, what was put aside is answered in its order, by a thread that is there for
//! nothing else and, if there are many, a few more. The kernel has one request of a thread under way at a time, so these are as many as there
//! are programs that wait, and each is at most a mebibyte. Callers that are killed meanwhile are let go, and what they asked for is not done.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::request::Unique;

/// Most threads that help.
const HELPERS_MAX: usize = 3;

/// What was put aside.
#[derive(Default)]
pub(crate) struct Parked {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    /// They may be answered now.
    released: bool,
    helpers: usize,
    ended: bool,
}

/// A request as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) unique: Unique,
    pub(crate) bytes: Vec<u8>,
}

impl Parked {
    /// Puts a request aside. It is for the caller to look, after this, whether it still has to wait, and else to [`release`](Parked::release) it.
    pub(crate) fn put(&self, request: Request) {
        self.state.lock().requests.push_back(request);
    }

    /// One that was released has to wait again, and so have all behind it.
    pub(crate) fn put_again(&self, request: Request) {
        let mut state = self.state.lock();
        state.released = false;
        state.requests.push_front(request);
    }

    /// They may be answered, as far as anybody knows.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        state.released = !state.requests.is_empty();
        if state.released {
            self.changed.notify_all();
        }
    }

    /// There will be no more requests.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until requests may be answered, and takes the oldest. `None`: there will be none.
    pub(crate) fn next(&self) -> Option<Request> {
        let mut state = self.state.lock();
        while !state.released && !state.ended {
            self.changed.wait(&mut state);
        }
        state.take()
    }

    /// Whether a thread should be started that helps; it is counted already.
    pub(crate) fn wants_helper(&self) -> bool {
        let mut state = self.state.lock();
        let wanted = state.released && state.helpers < HELPERS_MAX.min(state.requests.len());
        state.helpers += usize::from(wanted);
        wanted
    }

    /// For a helper: the oldest request, if there is one that may be answered now.
    pub(crate) fn next_now(&self) -> Option<Request> {
        let mut state = self.state.lock();
        if state.released { state.take() } else { None }
    }

    /// A helper ends, or could not be started.
    pub(crate) fn without_helper(&self) {
        self.state.lock().helpers -= 1;
    }
}

impl State {
    fn take(&mut self) -> Option<Request> {
        let next = if self.ended { None } else { self.requests.pop_front() };
        self.released &= !self.requests.is_empty();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(unique: u64) -> Request {
        Request { unique: Unique(unique), bytes: vec![7] }
    }

    #[test]
    fn what_was_put_aside_comes_back_in_order_when_released() {
        let parked = Parked::default();
        parked.release();
        (1..=3).for_each(|unique| parked.put(request(unique)));
        assert_eq!(parked.next_now(), None, "an old release is none for what comes after it");
        parked.release();
        assert_eq!(parked.next(), Some(request(1)));
        parked.put_again(request(1));
        assert_eq!(parked.next_now(), None);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| [parked.next(), parked.next(), parked.next(), parked.next()]);
            parked.release();
            parked.end();
            let got = waiting.join().unwrap();
            // The end may come at any moment.
            let before_end = got.iter().flatten().count() as u64;
            assert!(got.iter().flatten().eq((1..=before_end).map(request).collect::<Vec<_>>().iter()));
            assert!(got[before_end as usize..].iter().all(Option::is_none));
        });
    }

    #[test]
    fn helpers_are_few_and_only_for_what_is_there() {
        let parked = Parked::default();
        (0..10).for_each(|unique| parked.put(request(unique)));
        assert!(!parked.wants_helper());
        parked.release();
        assert_eq!((0..9).filter(|_| parked.wants_helper()).count(), HELPERS_MAX);
        parked.without_helper();
        assert!(parked.wants_helper());
    }
}
