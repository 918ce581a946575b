//! A mount being served: its threads, and what they do with a request.
//!
//! It starts with an agreement on how to talk ([`crate::handshake`]). Then threads get requests, out of `/dev/fuse` ([`crate::through_device`]) or through io_uring
//! ([`crate::ring`]), and answer them here, in the same way wherever they came from. It ends when the kernel says that the mount is gone: every thread finishes what
//! it is doing, and the last one drops the filesystem, which closes its devices.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Instant;

use frazil_device::waiting;
use frazil_journal::engine::SystemClock;
use frazil_volume::lifecycle::{Lifecycle, LifecycleError};
use parking_lot::Mutex;

use crate::adapter::{Adapter, Answer, SERVER_XATTR};
use crate::change::Change;
use crate::control::ioctl;
use crate::errno::Errno;
use crate::filesystem::Filesystem;
use crate::follow::Follow;
use crate::handshake::shake_hands;
use crate::interrupts::InFlight;
use crate::notify::Notice;
use crate::remounted;
use crate::reply::Reply;
use crate::request::{Op, Request, Unique};
use crate::ring::{Desk, Rings};
use crate::stats::{Kind, Stats};
use crate::through_device::Reading;
use crate::turn::Left;

/// A mount being served.
pub(crate) struct Session<F> {
    pub(crate) device: File,
    pub(crate) adapter: Adapter<F>,
    /// How requests come out of the device.
    pub(crate) reading: Reading,
    /// If they are to come through io_uring.
    rings: Option<Arc<Rings>>,
    in_flight: Arc<InFlight>,
    lifecycle: Arc<Lifecycle>,
    stats: Arc<Stats>,
    /// Its number in the mount table, if it may be remounted.
    number: OnceLock<String>,
}

/// Tells when a session is over.
pub(crate) struct Ended(Mutex<Receiver<Running>>);

/// Held by every thread of a session; never sent.
pub(crate) enum Running {}

impl Ended {
    /// Waits until all threads have let go of the filesystem.
    pub(crate) fn wait(&self) {
        // Nothing is ever sent: this returns when the last sender is gone.
        let _ = self.0.lock().recv();
    }
}

impl<F: Filesystem> Session<F> {
    /// Agrees with the kernel on how to talk, and starts to answer. The session is there until it is over.
    pub(crate) fn start(device: File, mut adapter: Adapter<F>) -> io::Result<(Ended, Weak<Session<F>>)> {
        let (rings, entries) = shake_hands(&device, &mut adapter)?.unzip();
        let lifecycle = adapter.fs.writer().map(|fs| Arc::clone(fs.live().lifecycle()));
        let lifecycle =
            lifecycle.unwrap_or_else(|| Arc::new(Lifecycle::read_only(Arc::new(SystemClock::default()))));
        let reading = if rings.is_some() { Reading::beside_others()? } else { Reading::all() };
        let session = Arc::new(Session {
            device,
            adapter,
            reading,
            rings: rings.map(Arc::new),
            in_flight: Arc::default(),
            lifecycle,
            stats: Arc::default(),
            number: OnceLock::new(),
        });
        let watchable = Arc::downgrade(&session);
        let waiting = watchable.clone();
        session.lifecycle.on_change(move || {
            if let Some(session) = waiting.upgrade() {
                session.reading.parked.release();
                session.rings().inspect(|rings| rings.look_again());
            }
        });
        let (running, ended) = channel();
        spawn("frazil-watch", &session, &running, |session, _| session.watch())?;
        spawn("frazil-parked", &session, &running, Session::serve_parked)?;
        spawn("frazil-fuse", &session, &running, Session::serve)?;
        session.register(&running, entries.unwrap_or_default())?;
        Ok((Ended(Mutex::new(ended)), watchable))
    }

    /// Whether it can be changed, and by whom it is frozen.
    pub(crate) fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Whether what it serves can be changed, now or at another time.
    pub(crate) fn is_writable(&self) -> bool {
        self.adapter.fs.writer().is_some()
    }

    /// It is the mount of this number, and is to be what the mount table says of it.
    pub(crate) fn watch_mount(&self, number: &str) {
        self.number.get_or_init(|| number.to_owned());
    }

    /// Makes the volume what its mount is.
    pub(crate) fn follow_mount(&self) -> Result<(), LifecycleError> {
        match self.number.get() {
            Some(number) => remounted::follow(number, &self.lifecycle),
            None => Err(LifecycleError::ReadOnly),
        }
    }

    /// What answers.
    pub(crate) fn adapter(&self) -> &Adapter<F> {
        &self.adapter
    }

    /// What was asked for so far.
    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The requests that wait.
    pub(crate) fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// Where requests come from, unless it is `/dev/fuse` alone.
    pub(crate) fn rings(&self) -> Option<&Arc<Rings>> {
        self.rings.as_ref()
    }

    /// Through how many queues of io_uring requests come, if they do.
    pub(crate) fn queues(&self) -> Option<usize> {
        self.rings_in_use().map(|rings| rings.len())
    }

    /// Where requests come from instead of `/dev/fuse`.
    pub(crate) fn rings_in_use(&self) -> Option<&Arc<Rings>> {
        self.rings().filter(|rings| rings.are_in_use())
    }

    /// Tells the kernel what has changed. Unless it is only about attributes of an open file, for threads that hold no lock and answer no
    /// request: it may have to wait for answers.
    pub(crate) fn notify(&self, notice: &Notice<'_>) {
        // An error means that the kernel has not cached it, or that the mount is gone.
        let _ = rustix::io::write(&self.device, &notice.encode(&self.adapter.ids));
    }

    /// Lets callers go that are being killed.
    fn watch(&self) {
        let mut reply = Reply::new();
        self.in_flight.watch(|unique| match self.rings_in_use() {
            Some(rings) => rings.look_again(),
            None => self.send(unique, Err(Errno::INTR), &mut reply),
        });
    }

    /// The mount is gone.
    pub(crate) fn end(&self) {
        self.in_flight.end();
        self.reading.end();
        self.rings().inspect(|rings| rings.end());
    }

    /// Answers a request, but for handing over the answer.
    pub(crate) fn handle(&self, seat: &Seat<F>, bytes: &[u8], reply: &mut Reply) -> Handled {
        // Without a header there is nothing to answer to.
        let Some(request) = Request::decode(bytes) else { return Handled::Done };
        if let Op::Interrupt { unique } = request.op {
            self.in_flight.interrupt(unique);
            return Handled::Done;
        }
        reply.clear();
        let kind = Kind::of(&request.op);
        seat.request.set((request.unique, request.pid, kind));
        let begun = self.stats.begin(kind);
        // A panic must not take the turn with it, which would stop the mount, nor leave the caller waiting.
        let answer = AssertUnwindSafe(|| self.answer(&request, reply));
        let outcome = match catch_unwind(answer).unwrap_or(Answer::Reply(Err(Errno::IO))) {
            Answer::Reply(outcome) => outcome,
            Answer::Nothing => {
                // Nobody waits for it, also if it had to wait itself.
                self.in_flight.claim(request.unique);
                self.stats.end(&begun, seat.waits_from.take(), Ok(0));
                return Handled::Done;
            }
            Answer::Refused => Err(Errno::ROFS),
            Answer::Later => {
                self.stats.withdraw(&begun);
                return Handled::Later;
            }
        };
        let bytes = match request.op {
            Op::Read { .. } => reply.len() as u64,
            Op::Change(Change::Write { data, .. }) => data.len() as u64,
            _ => 0,
        };
        self.stats.end(&begun, seat.waits_from.take(), outcome.map(|()| bytes).map_err(drop));
        if let Some(node) = reply.outdates {
            self.notify(&Notice::Attributes(node));
        }
        if let Some((node, offset, len)) = reply.overwrites {
            // The kernel may wait for a read of this range to be answered.
            waiting::about_to_wait();
            self.notify(&Notice::Content(node, offset, len));
        }
        Handled::Answered(Answered { unique: request.unique, caller: request.pid, outcome })
    }

    /// Does what is left to do about a request that was answered.
    pub(crate) fn after(&self, seat: &Seat<F>, answered: &Answered, reply: &Reply) {
        let Some(node) = reply.accessed.filter(|_| answered.outcome.is_ok()) else { return };
        let note = AssertUnwindSafe(|| self.adapter.accesses.note(self.adapter.fs.writer(), node));
        if catch_unwind(note).unwrap_or(false) {
            self.notify(&Notice::Attributes(node));
        }
        // If it had to wait, as part of a request that is answered.
        seat.waits_from.take();
        self.in_flight.claim(answered.unique);
    }

    /// Fills in the body of the reply.
    fn answer(&self, request: &Request<'_>, reply: &mut Reply) -> Answer {
        let about_before = match request.op {
            Op::Ioctl { command, input, .. } if ioctl::is_one(command) => {
                waiting::about_to_wait();
                let delivered = ioctl::run(&self.lifecycle, (command, input), (request.uid, request.pid));
                // There is as much room for it as the number says.
                return Answer::Reply(delivered.map(|delivered| reply.ioctl(&delivered)));
            }
            Op::Statfs => true,
            Op::Getxattr { name, .. } => name == SERVER_XATTR.as_bytes(),
            _ => false,
        };
        if about_before {
            self.read_what_came_before();
        }
        match self.adapter.answer(request, reply) {
            // Once: if it is refused again it was made read-only again.
            Answer::Refused if self.became_writable() => self.adapter.answer(request, reply),
            // There may be room since the kernel forgot what was removed before.
            Answer::Reply(Err(Errno::NOSPC | Errno::DQUOT)) if self.read_what_came_before() => {
                reply.clear();
                self.adapter.answer(request, reply)
            }
            answer => answer,
        }
    }

    /// Through io_uring requests come in no order, but the answers to some are to be true of what was asked before. See [`crate::fence`] for `/dev/fuse`, where this
    /// is false: nothing was done.
    fn read_what_came_before(&self) -> bool {
        let Some(rings) = self.rings_in_use() else { return false };
        waiting::about_to_wait();
        rings.read_all();
        self.reading.read_all();
        true
    }

    /// Somebody wants to change something and is refused, but may not have to be: his mount was made writable again a moment ago.
    fn became_writable(&self) -> bool {
        let stopped = self.lifecycle.is_stopped();
        self.number.get().filter(|_| !stopped).is_some_and(|number| {
            waiting::about_to_wait();
            remounted::became_writable(number, &self.lifecycle)
        })
    }
}

/// What became of a request.
pub(crate) enum Handled {
    /// The reply is ready.
    Answered(Answered),
    /// There is nothing to reply.
    Done,
    /// It has to wait.
    Later,
}

/// To whom the reply goes, and whether it is one.
pub(crate) struct Answered {
    pub(crate) unique: Unique,
    /// The thread that waits for it.
    pub(crate) caller: u32,
    pub(crate) outcome: Result<(), Errno>,
}

/// Starts a thread of the session.
pub(crate) fn spawn<F: Filesystem>(
    name: &str,
    session: &Arc<Session<F>>,
    running: &Sender<Running>,
    work: impl FnOnce(&Arc<Session<F>>, &Sender<Running>) + Send + 'static,
) -> io::Result<()> {
    let (session, running) = (session.clone(), running.clone());
    thread::Builder::new().name(name.into()).spawn(move || {
        work(&session, &running);
        // In this order: whoever waits for the end finds the filesystem dropped.
        drop(session);
        drop(running);
    })?;
    Ok(())
}

/// Where a thread gets its requests.
pub(crate) enum Place {
    /// Out of the device, when it is its turn, or from what was put aside.
    Device,
    /// From the queue at which it has this desk.
    Ring(Arc<Rings>, Arc<Desk>),
}

/// What a thread knows about its requests.
pub(crate) struct Seat<F> {
    session: Weak<Session<F>>,
    running: Sender<Running>,
    place: Place,
    /// Others get no request while it answers this one.
    pub(crate) reading: Cell<bool>,
    /// The request it is answering, the thread that waits for it, and what it asks for.
    pub(crate) request: Cell<(Unique, u32, Kind)>,
    /// When the request began to wait, if it did.
    pub(crate) waits_from: Cell<Option<Instant>>,
    /// Where it runs.
    pub(crate) follow: Follow,
}

impl<F: Filesystem> Seat<F> {
    pub(crate) fn new(session: &Arc<Session<F>>, running: &Sender<Running>, place: Place) -> Seat<F> {
        Seat {
            session: Arc::downgrade(session),
            running: running.clone(),
            place,
            reading: Cell::new(false),
            request: Cell::new((Unique(0), 0, Kind::Other)),
            waits_from: Cell::default(),
            follow: Follow::new(),
        }
    }

    /// The request is about to wait: lets another thread have the next ones, unless that has been done.
    pub(crate) fn leave(&self) {
        if !self.reading.replace(false) {
            return;
        }
        self.follow.roam();
        let Some(session) = self.session.upgrade() else { return };
        let (unique, pid, kind) = self.request.get();
        let now = Instant::now();
        self.waits_from.set(Some(now));
        // Before anybody can read an interrupt for it.
        session.in_flight.add(unique, pid, (kind, now));
        match &self.place {
            Place::Device => {
                if session.reading.turn.leave() == Left::NeedsThread
                    && spawn("frazil-fuse", &session, &self.running, Session::serve).is_err()
                {
                    // Out of threads: requests wait until this one is done.
                    session.reading.turn.not_started();
                }
            }
            Place::Ring(rings, desk) => session.leave_desk(&self.running, rings, desk),
        }
    }
}
