//! Requests out of `/dev/fuse`.
//!
//! Threads take turns to read requests ([`crate::turn`]) and answer them; what has to wait for a frozen volume is put aside ([`crate::parked`]). Where requests come
//! through io_uring, what comes this way is what the kernel forgets, and interrupts.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use frazil_device::waiting;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno as Code;

use crate::errno::Errno;
use crate::fence::{Due, Fence};
use crate::filesystem::Filesystem;
use crate::handshake::{REQUEST_BYTES_MAX, WRITE_BYTES_MAX};
use crate::pages::{BODY, Pages};
use crate::parked::{self, Parked};
use crate::reply::Reply;
use crate::request::{Unique, WRITE_HEADERS_BYTES};
use crate::session::{Handled, Place, Running, Seat, Session, spawn};
use crate::stats::Kind;
use crate::turn::Turn;

/// How long what is in the device is waited for.
const READ_ALL_MAX: Duration = Duration::from_secs(2);

/// How a session reads its device.
pub(crate) struct Reading {
    pub(crate) turn: Turn,
    pub(crate) parked: Parked,
    fence: Fence,
    /// Reading does not wait for a request. Only who has the turn looks at it and sets it.
    nonblocking: AtomicBool,
    /// Wakes the thread that has the turn, if there may be reasons.
    bell: Option<OwnedFd>,
}

impl Reading {
    /// Of a device out of which all requests come.
    pub(crate) fn all() -> Reading {
        Reading {
            turn: Turn::new(),
            parked: Parked::default(),
            fence: Fence::default(),
            nonblocking: AtomicBool::new(false),
            bell: None,
        }
    }

    /// Of a device beside which other threads get requests, who can ask for [`read_all`](Reading::read_all).
    pub(crate) fn beside_others() -> io::Result<Reading> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Reading { bell: Some(bell), ..Reading::all() })
    }

    /// Waits until everything has been read that is in the device now, but not for ever. For threads that have not the turn.
    pub(crate) fn read_all(&self) {
        let (sender, read) = channel();
        self.fence.mark(sender);
        if let Some(bell) = &self.bell
            && rustix::io::write(bell, &1u64.to_ne_bytes()).is_ok()
        {
            // If it takes longer, others ask without end.
            let _ = read.recv_timeout(READ_ALL_MAX);
        }
    }

    /// There will be no more requests.
    pub(crate) fn end(&self) {
        self.turn.end();
        self.parked.end();
    }

    /// Waits for a request, where somebody else may have to wake who does; then reading must not wait.
    fn await_request(&self, device: &File, kept: usize) {
        if let (Some(bell), 0) = (&self.bell, kept) {
            let flags = PollFlags::IN;
            let mut sources = [PollFd::from_borrowed_fd(device.as_fd(), flags), PollFd::new(bell, flags)];
            // It is tried to read in any case.
            let _ = rustix::event::poll(&mut sources, None);
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }

    /// Whether reading returns at once if there is nothing to be read.
    fn read_without_waiting(&self, device: &File, nonblocking: bool) {
        if self.nonblocking.load(Ordering::Relaxed) == nonblocking {
            return;
        }
        let flags = if nonblocking { OFlags::NONBLOCK } else { OFlags::empty() };
        // An open file always takes this flag.
        if rustix::fs::fcntl_setfl(device, flags).is_ok() {
            self.nonblocking.store(nonblocking, Ordering::Relaxed);
        }
    }
}

impl<F: Filesystem> Session<F> {
    /// What one thread does.
    pub(crate) fn serve(self: &Arc<Self>, running: &Sender<Running>) {
        let seat = Rc::new(Seat::new(self, running, Place::Device));
        let sitting = seat.clone();
        waiting::on_wait(Rc::new(move || sitting.leave()));
        let data_bytes_max = if self.is_writable() { WRITE_BYTES_MAX as usize } else { 0 };
        let mut pages = Pages::new(REQUEST_BYTES_MAX.max(data_bytes_max));
        // The data of a write begin at a page.
        let input = &mut pages[BODY - WRITE_HEADERS_BYTES..];
        let mut reply = Reply::new();
        let reading = &self.reading;
        while reading.turn.take() {
            seat.reading.set(true);
            while seat.reading.get() {
                let kept = reading.fence.len();
                reading.await_request(&self.device, kept);
                // Who is kept back until there is nothing more to be read must not wait for another request.
                reading.read_without_waiting(&self.device, kept > 0 || reading.bell.is_some());
                match rustix::io::read(&self.device, &mut *input) {
                    Ok(len) if reading.fence.keeps(&input[..len]) => {}
                    Ok(len) => self.take_in(&seat, &input[..len], &mut reply),
                    // The request was withdrawn, or a signal came.
                    Err(Code::NOENT | Code::INTR) => {}
                    Err(Code::AGAIN) => reading.fence.all_is_read(kept),
                    Err(_) => {
                        self.end();
                        seat.reading.set(false);
                    }
                }
                match seat.reading.get().then(|| reading.fence.due()).flatten() {
                    Some(Due::Request(request)) => self.take_in(&seat, &request, &mut reply),
                    // Who waits for it may have given up.
                    Some(Due::Mark(mark)) => drop(mark.send(())),
                    None => {}
                }
            }
        }
        // The seat outlives this function in the thread's memory; the session must not.
        waiting::on_wait(Rc::new(|| {}));
    }

    /// Answers what was put aside, until the end.
    pub(crate) fn serve_parked(self: &Arc<Self>, running: &Sender<Running>) {
        let (seat, mut reply) = (Seat::new(self, running, Place::Device), Reply::new());
        let parked = &self.reading.parked;
        while let Some(request) = parked.next() {
            while parked.wants_helper() {
                if spawn("frazil-parked", self, running, Session::help_parked).is_err() {
                    parked.without_helper();
                    break;
                }
            }
            self.answer_parked(&seat, request, &mut reply);
        }
    }

    /// Answers what was put aside, as long as there is some.
    fn help_parked(self: &Arc<Self>, running: &Sender<Running>) {
        let (seat, mut reply) = (Seat::new(self, running, Place::Device), Reply::new());
        while let Some(request) = self.reading.parked.next_now() {
            self.answer_parked(&seat, request, &mut reply);
        }
        self.reading.parked.without_helper();
    }

    /// Answers a request that was put aside, unless its caller was let go meanwhile.
    fn answer_parked(&self, seat: &Seat<F>, request: parked::Request, reply: &mut Reply) {
        let Some(since) = self.in_flight().waits_since(request.unique) else { return };
        seat.waits_from.set(Some(since));
        if !self.answer_out_of_device(seat, &request.bytes, reply) {
            self.reading.parked.put_again(request);
            self.release_unless_blocked();
        }
    }

    /// A request has to wait until the volume can be changed.
    fn park(&self, (unique, pid, kind): (Unique, u32, Kind), bytes: &[u8]) {
        self.in_flight().add(unique, pid, (kind, Instant::now()));
        self.reading.parked.put(parked::Request { unique, bytes: bytes.to_vec() });
        self.release_unless_blocked();
    }

    /// Who tells that the gates have opened may have come before the request was put aside.
    fn release_unless_blocked(&self) {
        if !self.lifecycle().is_blocked() {
            self.reading.parked.release();
        }
    }

    /// One thread's turn to answer a request that it has read.
    fn take_in(&self, seat: &Seat<F>, bytes: &[u8], reply: &mut Reply) {
        if !self.answer_out_of_device(seat, bytes, reply) {
            self.park(seat.request.get(), bytes);
        }
    }

    /// Answers a request; false if it has to wait.
    fn answer_out_of_device(&self, seat: &Seat<F>, bytes: &[u8], reply: &mut Reply) -> bool {
        let answered = match self.handle(seat, bytes, reply) {
            Handled::Answered(answered) => answered,
            Handled::Done => return true,
            Handled::Later => return false,
        };
        if seat.reading.get() {
            self.send(answered.unique, answered.outcome, reply);
            seat.follow.answered(answered.caller);
        } else if self.in_flight().claim(answered.unique) {
            self.send(answered.unique, answered.outcome, reply);
        }
        self.after(seat, &answered, reply);
        true
    }

    pub(crate) fn send(&self, unique: Unique, outcome: Result<(), Errno>, reply: &mut Reply) {
        let sent = rustix::io::write(&self.device, reply.finish(unique, outcome));
        // The kernel found fault with the reply; its caller must not wait for ever. Any other error means that nobody
        // waits any more.
        if sent == Err(Code::INVAL) && outcome.is_ok() {
            let _ = rustix::io::write(&self.device, reply.finish(unique, Err(Errno::IO)));
        }
    }
}
