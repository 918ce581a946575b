//! Writing behind: what a commit has filled is written by a thread of its own.
//!
//! A leaf that has more changes than fit it is written anew, as two; that takes a millisecond, and much longer if the device is busy or the superblock has to be
//! written first. Nobody has to wait for that: the changes are in the journal, and the leaf bears as many again before it must be written. The same
//! holds for the buffer. So a commit leaves both to a [`WriteBehind`], and goes on. Whoever runs an engine without one, such as a simulator, has each
//! commit do the work that it makes.
//!
//! The list is short. If it is full the thread does not keep up, and a commit that fills one more node writes that itself, like one that
//! finds its node overgrown. The list may be forgotten at any time, because the nodes in it are dirty like others, and pinned: reclaim and stopping
//! find them without it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::Engine;
use super::dirty::DirtyNode;

/// Nodes that are left to the thread at most.
const NODES_MAX: usize = 64;

/// What is left to the thread.
#[derive(Default)]
pub(crate) struct Behind {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    /// There is a thread.
    running: bool,
    /// Full nodes, each once.
    nodes: VecDeque<Arc<DirtyNode>>,
    /// The buffer is to be emptied.
    buffer: bool,
}

/// One thing to do.
enum Task {
    Write(Arc<DirtyNode>),
    EmptyBuffer,
}

impl Behind {
    /// Leaves nodes to the thread. False if there is none, or if it has enough to do.
    pub(crate) fn leave_nodes(&self, full: &[Arc<DirtyNode>]) -> bool {
        let mut work = self.work.lock();
        if !work.running || work.nodes.len() + full.len() > NODES_MAX {
            return false;
        }
        for node in full {
            if !work.nodes.iter().any(|other| Arc::ptr_eq(other, node)) {
                work.nodes.push_back(Arc::clone(node));
            }
        }
        self.changed.notify_one();
        true
    }

    /// Leaves the buffer to the thread. False if there is none.
    pub(crate) fn leave_buffer(&self) -> bool {
        let mut work = self.work.lock();
        if work.running && !work.buffer {
            work.buffer = true;
            self.changed.notify_one();
        }
        work.running
    }

    /// Waits for something to do; `None` at the end.
    fn next(&self) -> Option<Task> {
        let mut work = self.work.lock();
        loop {
            if !work.running {
                return None;
            }
            if let Some(node) = work.nodes.pop_front() {
                return Some(Task::Write(node));
            }
            if std::mem::take(&mut work.buffer) {
                return Some(Task::EmptyBuffer);
            }
            self.changed.wait(&mut work);
        }
    }
}

/// A thread that writes behind; it stops when this is dropped, and commits then write by themselves what they fill. An engine has one at a time.
pub struct WriteBehind {
    engine: Arc<Engine>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBehind {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(engine: &Arc<Engine>) -> std::io::Result<WriteBehind> {
        let driven = Arc::clone(engine);
        let builder = std::thread::Builder::new().name("frazil-nodes".to_owned());
        engine.behind.work.lock().running = true;
        match builder.spawn(move || drive(&driven)) {
            Ok(thread) => Ok(WriteBehind { engine: Arc::clone(engine), thread: Some(thread) }),
            Err(error) => {
                *engine.behind.work.lock() = Work::default();
                Err(error)
            }
        }
    }
}

fn drive(engine: &Engine) {
    while let Some(task) = engine.behind.next() {
        let done = match task {
            Task::Write(node) => engine.write_back(&node),
            Task::EmptyBuffer => engine.flush_buffer(),
        };
        engine.or_later(done);
    }
}

impl Drop for WriteBehind {
    fn drop(&mut self) {
        *self.engine.behind.work.lock() = Work::default();
        self.engine.behind.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so; there is nothing to add.
            let _ = thread.join();
        }
    }
}
