//! Telling whoever runs a thread that the thread is about to wait.
//!
//! A thread that serves many clients in turn must not fall asleep on behalf of one. It cannot know beforehand which request
//! will: most are answered from memory, a few need a disk. So the place that does wait says so first, by
//! [`about_to_wait`], and whoever runs the thread has registered with [`on_wait`] what should happen then: the FUSE
//! adapter lets another thread take over the reading of requests. In threads where nobody registered, it costs a
//! look at a thread-local variable and does nothing.
//!
//! Say it before device I/O that is not already in memory, before a long computation (more than about 50 µs), before waiting
//! for another thread that does such things, and before waiting for space or for a gate. Saying it twice is harmless.

use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static NOTICE: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
}

/// Calls `notice` whenever this thread is about to wait, until the thread ends or registers something else. It must not
/// register anything itself.
pub fn on_wait(notice: Rc<dyn Fn()>) {
    NOTICE.with(|slot| *slot.borrow_mut() = Some(notice));
}

/// The calling thread is about to wait, or to compute for long.
pub fn about_to_wait() {
    NOTICE.with(|slot| {
        if let Some(notice) = slot.borrow().as_ref() {
            notice();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn notices_belong_to_their_thread() {
        let count = Rc::new(Cell::new(0));
        let seen = count.clone();
        about_to_wait();
        on_wait(Rc::new(move || seen.set(seen.get() + 1)));
        std::thread::spawn(about_to_wait).join().unwrap();
        assert_eq!(count.get(), 0);
        about_to_wait();
        about_to_wait();
        assert_eq!(count.get(), 2);
    }
}
