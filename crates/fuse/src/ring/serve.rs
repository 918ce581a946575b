//! What a thread with an entry does.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};

use frazil_device::waiting;

use super::{Desk, Entry, Rings};
use crate::errno::Errno;
use crate::filesystem::Filesystem;
use crate::handshake::REQUEST_BYTES_MAX;
use crate::pages::Pages;
use crate::reply::Reply;
use crate::request::Unique;
use crate::session::{Answered, Handled, Place, Running, Seat, Session, spawn};

impl<F: Filesystem> Session<F> {
    /// Makes the entries known to the kernel, which sends its requests there if all are accepted, and through `/dev/fuse` if not.
    pub(crate) fn register(
        self: &Arc<Self>,
        running: &Sender<Running>,
        entries: Vec<Entry>,
    ) -> io::Result<()> {
        let Some(rings) = self.rings() else { return Ok(()) };
        let (report, reports) = channel();
        for entry in entries {
            let report = report.clone();
            let all = Arc::clone(rings);
            rings.expect(entry.queue());
            spawn("frazil-ring", self, running, move |session, running| {
                session.serve_ring(running, &all, entry.queue(), Ok(entry), move |done| {
                    drop(report.send(done));
                });
            })?;
        }
        drop(report);
        match reports.iter().find_map(Result::err) {
            None => rings.use_them(),
            Some(error) => tracing::warn!("the kernel does not accept requests through io_uring: {error}"),
        }
        Ok(())
    }

    /// A thread leaves its desk, and has another one started if there are too few.
    pub(crate) fn leave_desk(self: &Arc<Self>, running: &Sender<Running>, rings: &Arc<Rings>, desk: &Desk) {
        if !rings.leave(desk) {
            return;
        }
        let (queue, all) = (desk.queue, Arc::clone(rings));
        let started = spawn("frazil-ring", self, running, move |session, running| {
            session.serve_ring(running, &all, queue, Entry::new(queue), |done| match done {
                Ok(()) => all.is_late(queue),
                // Requests wait until another thread is back.
                Err(error) => tell(queue, &error),
            });
        });
        if let Err(error) = started {
            rings.not_started(queue);
            tell(queue, &error);
        }
    }

    /// Answers requests of a queue until the end. `report` is told whether the kernel accepts it.
    fn serve_ring(
        self: &Arc<Self>,
        running: &Sender<Running>,
        rings: &Arc<Rings>,
        queue: u16,
        entry: io::Result<Entry>,
        report: impl FnOnce(io::Result<()>),
    ) {
        let mut entry = match entry.and_then(|entry| entry.registered(&self.device, &rings.bell)) {
            Ok(entry) => entry,
            Err(error) => {
                rings.not_started(queue);
                return report(Err(error));
            }
        };
        let desk = rings.come(queue);
        report(Ok(()));
        let place = Place::Ring(Arc::clone(rings), Arc::clone(&desk));
        let seat = Rc::new(Seat::new(self, running, place));
        let sitting = seat.clone();
        waiting::on_wait(Rc::new(move || sitting.leave()));
        let (mut spare, mut reply) = (Pages::new(REQUEST_BYTES_MAX), Reply::new());
        let end = loop {
            if let Err(end) = self.serve_one(rings, &seat, &desk, &mut entry, (&mut spare, &mut reply)) {
                break end;
            }
        };
        tell(queue, &end);
        // The seat outlives this function in the thread's memory; the session must not.
        waiting::on_wait(Rc::new(|| {}));
        rings.go(&desk);
    }

    /// Waits for a request or the bell, and answers. An error is the end.
    fn serve_one(
        self: &Arc<Self>,
        rings: &Rings,
        seat: &Seat<F>,
        desk: &Desk,
        entry: &mut Entry,
        (spare, reply): (&mut Pages, &mut Reply),
    ) -> io::Result<()> {
        seat.follow.stay_on(desk.queue.into());
        seat.reading.set(true);
        rings.come_back(desk);
        let mut time = rings.rung.load(Ordering::Acquire);
        if !entry.wait()? {
            time = rings.rung.load(Ordering::Acquire);
            if !entry.look()? {
                desk.idle.store(time, Ordering::Release);
                desk.heard.store(time, Ordering::Release);
                rings.tell_heard();
                return Ok(());
            }
        }
        desk.busy.store(true, Ordering::Relaxed);
        let (answered, parked) =
            entry.attend(spare, reply, |bytes, reply| self.attend(rings, seat, bytes, reply));
        if parked {
            // As many may be parked as there are programs, and each with a mebibyte.
            entry.release_memory();
        }
        // Before the answer: with it the entry is free, and who asks next must not wait for this.
        self.after(seat, &answered, reply);
        if !seat.reading.get() {
            self.in_flight().claim(answered.unique);
        }
        entry.answer(answered.unique, answered.outcome, reply);
        if !rings.is_behind(desk.queue.into()) {
            entry.commit()?;
        } else if !entry.commit_now()? {
            rings.is_up_to_date(desk.queue);
        }
        desk.busy.store(false, Ordering::Relaxed);
        if desk.heard.swap(time, Ordering::Release) != time {
            rings.tell_heard();
        }
        Ok(())
    }

    /// Answers a request, also if it has to wait for a thaw: then true comes with the answer.
    fn attend(&self, rings: &Rings, seat: &Seat<F>, bytes: &[u8], reply: &mut Reply) -> (Answered, bool) {
        let mut parked = false;
        loop {
            let refused = |errno| Answered { unique: Unique(0), caller: 0, outcome: Err(errno) };
            match self.handle(seat, bytes, reply) {
                Handled::Answered(answered) => return (answered, parked),
                // The kernel expects an answer to whatever it put in an entry.
                Handled::Done => return (refused(Errno::IO), parked),
                Handled::Later => {}
            }
            parked = true;
            seat.leave();
            let (unique, ..) = seat.request.get();
            let since = || self.in_flight().waits_since(unique);
            let goes_on = rings.wait_while(|| since().is_some() && self.lifecycle().is_blocked());
            let Some(since) = since().filter(|_| goes_on) else {
                return (Answered { unique, ..refused(Errno::INTR) }, parked);
            };
            seat.waits_from.set(Some(since));
        }
    }
}

/// Says why there is no thread, or none any more, for requests of a queue, unless the mount is gone.
fn tell(queue: u16, error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted) {
        tracing::warn!("requests of queue {queue} wait for each other: {error}");
    }
}
