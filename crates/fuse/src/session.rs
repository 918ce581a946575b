//! The conversation with the kernel over `/dev/fuse`.
//!
//! It starts with one request, in which the kernel says what it can do and we say what we want of it
//! ([`Session::start`]); after the reply the mount is usable. Then threads take turns to read requests ([`crate::turn`]) and
//! answer them; what has to wait for a frozen volume is put aside ([`crate::parked`]). It ends when the kernel says that the mount is gone: every thread finishes what it is doing, and the last one
//! drops the filesystem, which closes its devices.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Instant;

use frazil_device::waiting;
use frazil_journal::engine::SystemClock;
use frazil_posix::NodeId;
use frazil_volume::lifecycle::{Lifecycle, LifecycleError};
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno as Code;

use crate::adapter::{Adapter, Answer, READ_BYTES_MAX};
use crate::change::Change;
use crate::control::ioctl;
use crate::errno::Errno;
use crate::fence::Fence;
use crate::filesystem::Filesystem;
use crate::follow::Follow;
use crate::interrupts::InFlight;
use crate::notify::Notice;
use crate::parked::{self, Parked};
use crate::remounted;
use crate::reply::{Init, Reply};
use crate::request::{Op, Request, Unique};
use crate::stats::{Kind, Stats};
use crate::turn::{Left, Turn};

/// The newest minor protocol version that is spoken here.
const MINOR_MAX: u32 = 41;
/// The oldest (Linux 3.15): nanoseconds, `readdirplus`, replies of today's size.
const MINOR_MIN: u32 = 23;
/// Room for a request without the data of a write: many forgets, or a name and a value.
const REQUEST_BYTES_MAX: usize = 68 << 10;
/// Most bytes in a write: as in a read.
const WRITE_BYTES_MAX: u32 = READ_BYTES_MAX;
/// The kernel accepts no smaller limit, where nothing is written.
const WRITE_BYTES_NONE: u32 = 4096;
/// Most requests under way that no thread waits for, which is what reading ahead is made of.
pub(crate) const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel, as far as it offers it.
mod want {
    /// Read ahead with several requests at once.
    const ASYNC_READ: u64 = 1 << 0;
    /// Objects can be found by number, for the NFS server.
    const EXPORT_SUPPORT: u64 = 1 << 4;
    /// Always `readdirplus`: whether with attributes is decided in `directory`.
    const DO_READDIRPLUS: u64 = 1 << 13;
    /// Direct I/O in several requests at once.
    const ASYNC_DIO: u64 = 1 << 15;
    /// `ENOSYS` to an open means: open without asking.
    pub(super) const NO_OPEN: u64 = 1 << 17;
    pub(super) const NO_OPENDIR: u64 = 1 << 24;
    /// Lookups and listings of one directory at the same time.
    const PARALLEL_DIROPS: u64 = 1 << 18;
    /// The kernel enforces ACLs.
    const POSIX_ACL: u64 = 1 << 20;
    /// Requests of up to a mebibyte.
    const MAX_PAGES: u64 = 1 << 22;
    const CACHE_SYMLINKS: u64 = 1 << 23;
    /// The second half of these flags is in use.
    const INIT_EXT: u64 = 1 << 30;

    /// Writes of more than a page.
    const BIG_WRITES: u64 = 1 << 5;
    /// The umask comes with the request: a default ACL replaces it.
    const DONT_MASK: u64 = 1 << 6;
    /// We take set-id bits and capabilities away from files that change, and are told when.
    const HANDLE_KILLPRIV_V2: u64 = 1 << 28;

    /// For a mount that can be written.
    pub(super) const WRITING: u64 = BIG_WRITES | DONT_MASK | HANDLE_KILLPRIV_V2;

    pub(super) const ALL: u64 = ASYNC_READ
        | EXPORT_SUPPORT
        | DO_READDIRPLUS
        | ASYNC_DIO
        | NO_OPEN
        | NO_OPENDIR
        | PARALLEL_DIROPS
        | POSIX_ACL
        | MAX_PAGES
        | CACHE_SYMLINKS
        | INIT_EXT;
}

/// A mount being served.
pub(crate) struct Session<F> {
    device: File,
    adapter: Adapter<F>,
    turn: Turn,
    fence: Fence,
    /// Reading does not wait for a request. Only who has the turn looks at it and sets it.
    nonblocking: AtomicBool,
    in_flight: Arc<InFlight>,
    parked: Parked,
    lifecycle: Arc<Lifecycle>,
    stats: Arc<Stats>,
    /// Its number in the mount table, if it may be remounted.
    number: OnceLock<String>,
}

/// Tells when a session is over.
pub(crate) struct Ended(Mutex<Receiver<Running>>);

/// Held by every thread of a session; never sent.
enum Running {}

impl Ended {
    /// Waits until all threads have let go of the filesystem.
    pub(crate) fn wait(&self) {
        // Nothing is ever sent: this returns when the last sender is gone.
        let _ = self.0.lock().recv();
    }
}

impl<F: Filesystem> Adapter<F> {
    /// Room for any request that this mount gets.
    fn request_bytes_max(&self) -> usize {
        REQUEST_BYTES_MAX + if self.fs.writer().is_some() { WRITE_BYTES_MAX as usize } else { 0 }
    }
}

impl<F: Filesystem> Session<F> {
    /// Agrees with the kernel on how to talk, and starts to answer. The session is there until it is over.
    pub(crate) fn start(device: File, mut adapter: Adapter<F>) -> io::Result<(Ended, Weak<Session<F>>)> {
        shake_hands(&device, &mut adapter)?;
        let lifecycle = adapter.fs.writer().map(|fs| Arc::clone(fs.live().lifecycle()));
        let lifecycle =
            lifecycle.unwrap_or_else(|| Arc::new(Lifecycle::read_only(Arc::new(SystemClock::default()))));
        let session = Arc::new(Session {
            device,
            adapter,
            turn: Turn::new(),
            fence: Fence::default(),
            nonblocking: AtomicBool::new(false),
            in_flight: Arc::default(),
            parked: Parked::default(),
            lifecycle,
            stats: Arc::default(),
            number: OnceLock::new(),
        });
        let watchable = Arc::downgrade(&session);
        let parking = watchable.clone();
        session.lifecycle.on_change(move || {
            if let Some(session) = parking.upgrade() {
                session.parked.release();
            }
        });
        let (running, ended) = channel();
        spawn("frazil-watch", &session, &running, |session, _| session.watch())?;
        spawn("frazil-parked", &session, &running, Session::serve_parked)?;
        spawn("frazil-fuse", &session, &running, Session::serve)?;
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

    /// Tells the kernel what has changed. Unless it is only about attributes of an open file, for threads that hold no lock and answer no
    /// request: it may have to wait for answers.
    pub(crate) fn notify(&self, notice: &Notice<'_>) {
        // An error means that the kernel has not cached it, or that the mount is gone.
        let _ = rustix::io::write(&self.device, &notice.encode(&self.adapter.ids));
    }

    fn watch(&self) {
        let mut reply = Reply::new();
        self.in_flight.watch(|unique| self.send(unique, Err(Errno::INTR), &mut reply));
    }

    /// What one thread does.
    fn serve(self: &Arc<Self>, running: &Sender<Running>) {
        let seat = Rc::new(Seat::new(Arc::downgrade(self), running.clone()));
        let sitting = seat.clone();
        waiting::on_wait(Rc::new(move || sitting.leave()));
        let mut input = vec![0; self.adapter.request_bytes_max()];
        let mut reply = Reply::new();
        while self.turn.take() {
            seat.reading.set(true);
            while seat.reading.get() {
                // Who is kept back until there is nothing more to be read must not wait for another request.
                self.read_without_waiting(self.fence.keeps_any());
                match rustix::io::read(&self.device, &mut input) {
                    Ok(len) if self.fence.keeps(&input[..len]) => {}
                    Ok(len) => self.take_in(&seat, &input[..len], &mut reply),
                    // The request was withdrawn, or a signal came.
                    Err(Code::NOENT | Code::INTR) => {}
                    Err(Code::AGAIN) => self.fence.all_is_read(),
                    Err(_) => {
                        self.turn.end();
                        self.in_flight.end();
                        self.parked.end();
                        seat.reading.set(false);
                    }
                }
                if seat.reading.get()
                    && let Some(request) = self.fence.due()
                {
                    self.take_in(&seat, &request, &mut reply);
                }
            }
        }
        // The seat outlives this function in the thread's memory; the session must not.
        waiting::on_wait(Rc::new(|| {}));
    }

    /// Whether reading returns at once if there is nothing to be read.
    fn read_without_waiting(&self, nonblocking: bool) {
        if self.nonblocking.load(Ordering::Relaxed) == nonblocking {
            return;
        }
        let flags = if nonblocking { OFlags::NONBLOCK } else { OFlags::empty() };
        // An open file always takes this flag.
        if rustix::fs::fcntl_setfl(&self.device, flags).is_ok() {
            self.nonblocking.store(nonblocking, Ordering::Relaxed);
        }
    }

    /// Answers what was put aside, until the end.
    fn serve_parked(self: &Arc<Self>, running: &Sender<Running>) {
        let (seat, mut reply) = (Seat::new(Arc::downgrade(self), running.clone()), Reply::new());
        while let Some(request) = self.parked.next() {
            while self.parked.wants_helper() {
                if spawn("frazil-parked", self, running, Session::help_parked).is_err() {
                    self.parked.without_helper();
                    break;
                }
            }
            self.answer_parked(&seat, request, &mut reply);
        }
    }

    /// Answers what was put aside, as long as there is some.
    fn help_parked(self: &Arc<Self>, running: &Sender<Running>) {
        let (seat, mut reply) = (Seat::new(Arc::downgrade(self), running.clone()), Reply::new());
        while let Some(request) = self.parked.next_now() {
            self.answer_parked(&seat, request, &mut reply);
        }
        self.parked.without_helper();
    }

    /// Answers a request that was put aside, unless its caller was let go meanwhile.
    fn answer_parked(&self, seat: &Seat<F>, request: parked::Request, reply: &mut Reply) {
        let Some(since) = self.in_flight.waits_since(request.unique) else { return };
        seat.waits_from.set(Some(since));
        if self.handle(seat, &request.bytes, reply) == Handled::Later {
            self.parked.put_again(request);
            self.release_unless_blocked();
        }
    }

    /// A request has to wait until the volume can be changed.
    fn park(&self, request: &Request<'_>, bytes: &[u8]) {
        self.in_flight.add(request.unique, request.pid, (Kind::of(&request.op), Instant::now()));
        self.parked.put(parked::Request { unique: request.unique, bytes: bytes.to_vec() });
        self.release_unless_blocked();
    }

    /// Who tells that the gates have opened may have come before the request was put aside.
    fn release_unless_blocked(&self) {
        if !self.lifecycle.is_blocked() {
            self.parked.release();
        }
    }

    /// One thread's turn to answer a request that it has read.
    fn take_in(&self, seat: &Seat<F>, bytes: &[u8], reply: &mut Reply) {
        if self.handle(seat, bytes, reply) == Handled::Later
            && let Some(request) = Request::decode(bytes)
        {
            self.park(&request, bytes);
        }
    }

    fn handle(&self, seat: &Seat<F>, bytes: &[u8], reply: &mut Reply) -> Handled {
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
        if seat.reading.get() {
            self.send(request.unique, outcome, reply);
            seat.follow.answered(request.pid);
        } else if self.in_flight.claim(request.unique) {
            self.send(request.unique, outcome, reply);
        }
        if let Some(node) = reply.accessed.filter(|_| outcome.is_ok()) {
            self.note_access(seat, request.unique, node);
        }
        Handled::Done
    }

    /// An object was read, and whoever did has his answer: nobody waits for this.
    fn note_access(&self, seat: &Seat<F>, unique: Unique, node: NodeId) {
        let note = AssertUnwindSafe(|| self.adapter.accesses.note(self.adapter.fs.writer(), node));
        if catch_unwind(note).unwrap_or(false) {
            self.notify(&Notice::Attributes(node));
        }
        // If it had to wait, as part of a request that is answered.
        seat.waits_from.take();
        self.in_flight.claim(unique);
    }

    /// Fills in the body of the reply.
    fn answer(&self, request: &Request<'_>, reply: &mut Reply) -> Answer {
        match request.op {
            Op::Ioctl { command, input, .. } if ioctl::is_one(command) => {
                waiting::about_to_wait();
                let delivered = ioctl::run(&self.lifecycle, (command, input), (request.uid, request.pid));
                // There is as much room for it as the number says.
                Answer::Reply(delivered.map(|delivered| reply.ioctl(&delivered)))
            }
            _ => match self.adapter.answer(request, reply) {
                // Once: if it is refused again it was made read-only again.
                Answer::Refused if self.became_writable() => self.adapter.answer(request, reply),
                answer => answer,
            },
        }
    }

    /// Somebody wants to change something and is refused, but may not have to be: his mount was made writable again a moment ago.
    fn became_writable(&self) -> bool {
        let stopped = self.lifecycle.is_stopped();
        self.number.get().filter(|_| !stopped).is_some_and(|number| {
            waiting::about_to_wait();
            remounted::became_writable(number, &self.lifecycle)
        })
    }

    fn send(&self, unique: Unique, outcome: Result<(), Errno>, reply: &mut Reply) {
        let sent = rustix::io::write(&self.device, reply.finish(unique, outcome));
        // The kernel found fault with the reply; its caller must not wait for ever. Any other error means that nobody
        // waits any more.
        if sent == Err(Code::INVAL) && outcome.is_ok() {
            let _ = rustix::io::write(&self.device, reply.finish(unique, Err(Errno::IO)));
        }
    }
}

/// What became of a request that was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handled {
    Done,
    /// It has to wait.
    Later,
}

/// Starts a thread of the session.
fn spawn<F: Filesystem>(
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

/// What a thread knows about its turn.
struct Seat<F> {
    session: Weak<Session<F>>,
    running: Sender<Running>,
    /// It has the turn.
    reading: Cell<bool>,
    /// The request it is answering, the thread that waits for it, and what it asks for.
    request: Cell<(Unique, u32, Kind)>,
    /// When the request began to wait, if it did.
    waits_from: Cell<Option<Instant>>,
    /// Where it runs.
    follow: Follow,
}

impl<F: Filesystem> Seat<F> {
    fn new(session: Weak<Session<F>>, running: Sender<Running>) -> Seat<F> {
        let request = Cell::new((Unique(0), 0, Kind::Other));
        Seat {
            session,
            running,
            reading: Cell::new(false),
            request,
            waits_from: Cell::default(),
            follow: Follow::new(),
        }
    }

    /// The request is about to wait: leaves the turn to another thread, if this one has it.
    fn leave(&self) {
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
        if session.turn.leave() == Left::NeedsThread
            && spawn("frazil-fuse", &session, &self.running, Session::serve).is_err()
        {
            // Out of threads: requests wait until this one is done.
            session.turn.not_started();
        }
    }
}

/// Answers the first request.
fn shake_hands<F: Filesystem>(device: &File, adapter: &mut Adapter<F>) -> io::Result<()> {
    let mut input = vec![0; REQUEST_BYTES_MAX];
    let mut reply = Reply::new();
    loop {
        let len = rustix::io::retry_on_intr(|| rustix::io::read(device, &mut input))?;
        let request = Request::decode(&input[..len]).ok_or(Code::PROTO)?;
        let Op::Init { major, minor, max_readahead, flags } = request.op else {
            return Err(Code::PROTO.into());
        };
        reply.clear();
        if major > 7 {
            // The kernel asks again, in the version it finds in this reply.
            reply.init(&Init {
                minor: MINOR_MAX,
                max_readahead: 0,
                flags: 0,
                background_max: 0,
                write_bytes_max: 0,
                pages_max: 0,
            });
            rustix::io::write(device, reply.finish(request.unique, Ok(())))?;
            continue;
        }
        if (major, minor) < (7, MINOR_MIN) {
            rustix::io::write(device, reply.finish(request.unique, Err(Errno::NOSYS)))?;
            return Err(Code::PROTONOSUPPORT.into());
        }
        let writable = adapter.fs.writer().is_some();
        let keeps = if writable { adapter.accesses.keeps() } else { (false, false) };
        adapter.opens_itself =
            (flags & want::NO_OPEN != 0 && !keeps.0, flags & want::NO_OPENDIR != 0 && !keeps.1);
        reply.init(&Init {
            minor: minor.min(MINOR_MAX),
            max_readahead,
            flags: flags & if writable { want::ALL | want::WRITING } else { want::ALL },
            background_max: BACKGROUND_MAX,
            write_bytes_max: if writable { WRITE_BYTES_MAX } else { WRITE_BYTES_NONE },
            pages_max: (READ_BYTES_MAX as usize / rustix::param::page_size()) as u16,
        });
        rustix::io::write(device, reply.finish(request.unique, Ok(())))?;
        return Ok(());
    }
}
