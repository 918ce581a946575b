//! One request at a time, by way of an io_uring of its own.
//!
//! An *entry* (linux/fuse.h, `fuse_uring_*`) is a place in memory where the kernel puts one request, and from which it fetches the reply with the command
//! that also asks for the next request. It consists of two parts: headers, of a fixed size (`fuse_uring_req_header`: 128 bytes for the header of request or reply, 128 for the
//! arguments of the operation, 32 about the entry itself), and a payload, for names and data of the request and then for the body of the reply.
//! Both parts are in one [`Pages`] here, so that with a copy of a few bytes the request is in one piece in front of the payload, as `/dev/fuse` would have delivered it.
//!
//! The kernel puts the request in place in the context of the thread that waits for it (`DEFER_TASKRUN`), so memory does not change while
//! the thread looks at it.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno as Code;
use rustix::mm::Advice;

use crate::errno::Errno;
use crate::pages::{BODY, Pages};
use crate::reply::{self, Reply};
use crate::request::{self, Unique};

/// Commands in a ring at the same time: for the entry, and for the bell.
const COMMANDS: u32 = 2;
/// What is heard of.
const ENTRY: u64 = 1;
const BELL: u64 = 2;

/// `fuse_uring_cmd`: makes an entry known and asks for the first request; hands over a reply and asks for the next one.
const REGISTER: u32 = 1;
const COMMIT_AND_FETCH: u32 = 2;

/// Where the arguments and what is said about the entry are among the headers, and how long these are.
const ARGUMENTS: usize = 128;
const ABOUT: usize = 256;
const HEADERS_BYTES: usize = 288;
/// Most bytes of arguments.
const ARGUMENTS_BYTES_MAX: usize = ABOUT - ARGUMENTS;
/// About the entry: the number of the request, and the bytes of payload.
const COMMIT_ID: usize = ABOUT + 8;
const PAYLOAD_BYTES: usize = ABOUT + 16;

/// A place for one request of one queue.
pub(crate) struct Entry {
    // In this order: without a ring the kernel has nothing to do with the memory any more.
    ring: IoUring<squeue::Entry128>,
    /// Headers at the beginning, the payload as body.
    pages: Pages,
    queue: u16,
    /// Of the session, which outlives the thread that has the entry.
    bell: RawFd,
    /// The last command, to be repeated if it was disturbed.
    last: u32,
    /// A request has come, the bell was rung, and nobody has been told.
    request: bool,
    bell_rang: bool,
    /// The body of the reply was made in `pages`.
    lent: bool,
    /// Kernels before 6.15 count a thread that waits here as waiting for a disk.
    flags: EnterFlags,
}

impl Entry {
    /// Not yet known to the kernel. Fails if the kernel or its administrator does not want io_uring to be used, or resources are short.
    pub(super) fn new(queue: u16) -> io::Result<Entry> {
        let mut builder = IoUring::builder();
        builder.setup_r_disabled().setup_single_issuer().setup_defer_taskrun();
        let ring: IoUring<squeue::Entry128> = builder.build(COMMANDS)?;
        let quiet = ring.params().is_feature_no_iowait();
        let flags = if quiet { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
        Ok(Entry {
            ring,
            pages: Pages::new(reply::BODY_BYTES_MAX),
            queue,
            bell: -1,
            last: REGISTER,
            request: false,
            bell_rang: false,
            lent: false,
            flags,
        })
    }

    /// Of which queue it is.
    pub(super) fn queue(&self) -> u16 {
        self.queue
    }

    /// Makes it known to the kernel, which may put a request in it from now on. To be called by the thread that will use it.
    pub(super) fn registered(mut self, device: &File, bell: &OwnedFd) -> io::Result<Entry> {
        self.ring.submitter().register_enable_rings()?;
        // The device, as number 0 of the ring.
        self.ring.submitter().register_files(&[device.as_raw_fd()])?;
        self.bell = bell.as_raw_fd();
        self.listen()?;
        self.command(REGISTER)?;
        // What is refused is so at once.
        let refused = self.ring.completion().find(|done| done.user_data() == ENTRY && done.result() < 0);
        match refused {
            Some(done) => Err(io::Error::from_raw_os_error(-done.result())),
            None => Ok(self),
        }
    }

    /// Hands over what [`answer`](Entry::answer) put in place, and asks for the next request, at the next [`wait`](Entry::wait).
    pub(super) fn commit(&mut self) -> io::Result<()> {
        self.command(COMMIT_AND_FETCH)
    }

    /// Hands it over at once. True if the kernel had the next request at hand.
    pub(super) fn commit_now(&mut self) -> io::Result<bool> {
        self.commit()?;
        self.ring.submit()?;
        self.look_around()?;
        Ok(self.request)
    }

    /// Waits for a request or the bell. True if it is a request. An error is the end: the mount is gone.
    pub(super) fn wait(&mut self) -> io::Result<bool> {
        loop {
            if mem::take(&mut self.request) {
                return Ok(true);
            }
            if mem::take(&mut self.bell_rang) {
                return Ok(false);
            }
            let (ring, nothing) = (self.ring.submitter(), types::SubmitArgs::new());
            match ring
                .submit_with_args_and_flags(1, &nothing, self.flags)
                .map_err(|e| Code::from_io_error(&e))
            {
                Ok(_) | Err(Some(Code::INTR | Code::AGAIN | Code::BUSY)) => {}
                Err(code) => return Err(code.unwrap_or(Code::IO).into()),
            }
            self.take_note()?;
        }
    }

    /// Looks for a request, as [`wait`](Entry::wait), but does not wait.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        self.look_around()?;
        Ok(mem::take(&mut self.request))
    }

    fn look_around(&mut self) -> io::Result<()> {
        // SAFETY: Without arguments, nothing is pointed to.
        unsafe { self.ring.submitter().enter::<()>(0, 0, EnterFlags::GETEVENTS.bits(), None) }?;
        self.take_note()
    }

    /// Notes what has come.
    fn take_note(&mut self) -> io::Result<()> {
        let (mut disturbed, mut deaf) = (false, false);
        for done in self.ring.completion() {
            match (done.user_data(), done.result()) {
                (BELL, _) => {
                    self.bell_rang = true;
                    deaf |= !cqueue::more(done.flags());
                }
                (_, 0) => self.request = true,
                (_, code) => match Code::from_raw_os_error(-code) {
                    Code::INTR | Code::AGAIN => disturbed = true,
                    code => return Err(code.into()),
                },
            }
        }
        if disturbed {
            self.command(self.last)?;
        }
        if deaf {
            self.listen()?;
        }
        Ok(())
    }

    /// Queues a command to be told whenever the bell is rung.
    fn listen(&mut self) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(self.bell), libc::POLLIN as u32).multi(true);
        self.push(&poll.build().user_data(BELL).into())
    }

    /// Queues a command about the entry.
    fn command(&mut self, command: u32) -> io::Result<()> {
        self.last = command;
        let mut bytes = [0; 80];
        bytes[8..16].copy_from_slice(&self.pages[COMMIT_ID..COMMIT_ID + 8]);
        bytes[16..18].copy_from_slice(&self.queue.to_ne_bytes());
        let built = opcode::UringCmd80::new(types::Fixed(0), command).cmd(bytes);
        if command != REGISTER {
            return self.push(&built.build().user_data(ENTRY));
        }
        let (headers, payload) = self.pages.split_at_mut(BODY);
        let parts = [&mut headers[..HEADERS_BYTES], payload]
            .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
        let built = built.addr(Some(parts.as_ptr().addr() as u64)).build().user_data(ENTRY);
        self.push(&with_len(built, parts.len() as u32))?;
        // As long as `parts` is there.
        self.ring.submit().map(drop)
    }

    fn push(&mut self, command: &squeue::Entry128) -> io::Result<()> {
        // SAFETY: What a command points to is `pages`, which stay where they are as long as there is a ring, and the list of
        // their two parts, which is there when the command is submitted.
        unsafe { self.ring.submission().push(command) }.map_err(|_| Code::NOBUFS.into())
    }

    /// Has the request that came handled: `handle` gets it and the reply to fill in. The data of a write stay where they are; of anything else the
    /// request is put into `spare`, so that the reply can be made where the kernel will fetch it.
    pub(super) fn attend<R>(
        &mut self,
        spare: &mut Pages,
        reply: &mut Reply,
        handle: impl FnOnce(&[u8], &mut Reply) -> R,
    ) -> R {
        let start = self.join();
        let payload_bytes = self.number(PAYLOAD_BYTES) as usize;
        self.lent = self.number(4) != request::WRITE;
        if !self.lent {
            let end = BODY + payload_bytes.min(self.pages.body_bytes());
            return handle(&self.pages[start..end], reply);
        }
        // One that does not fit is incomplete, as its header tells.
        let end = BODY + payload_bytes.min(spare.body_bytes());
        spare[start..end].copy_from_slice(&self.pages[start..end]);
        mem::swap(&mut self.pages, reply.pages());
        let handled = handle(&spare[start..end], reply);
        mem::swap(&mut self.pages, reply.pages());
        handled
    }

    /// Puts the reply to the request that was attended to in place.
    pub(super) fn answer(&mut self, unique: Unique, outcome: Result<(), Errno>, reply: &mut Reply) {
        let (header, body) = reply.finish(unique, outcome).split_at(reply::HEADER_BYTES);
        self.pages[..header.len()].copy_from_slice(header);
        if !self.lent {
            self.pages[BODY..BODY + body.len()].copy_from_slice(body);
        }
        self.pages[PAYLOAD_BYTES..PAYLOAD_BYTES + 4].copy_from_slice(&(body.len() as u32).to_ne_bytes());
    }

    /// Gives the memory of the payload back to the system, until it is needed again, unless the reply is there.
    pub(super) fn release_memory(&mut self) {
        if self.lent {
            return;
        }
        let payload = &mut self.pages[BODY..];
        // SAFETY: The range is of whole pages but for its end, it is ours alone, and it may hold anything between two requests. An error means that it keeps its memory.
        let _ =
            unsafe { rustix::mm::madvise(payload.as_mut_ptr().cast(), payload.len(), Advice::LinuxDontNeed) };
    }

    /// Puts header and arguments of a request in front of its payload; where they begin.
    fn join(&mut self) -> usize {
        let rest = (self.number(0) as usize).saturating_sub(request::HEADER_BYTES);
        // Nothing else says how long they are.
        let arguments = rest.saturating_sub(self.number(PAYLOAD_BYTES) as usize).min(ARGUMENTS_BYTES_MAX);
        let start = BODY - arguments - request::HEADER_BYTES;
        self.pages.copy_within(..request::HEADER_BYTES, start);
        self.pages.copy_within(ARGUMENTS..ARGUMENTS + arguments, BODY - arguments);
        start
    }

    fn number(&self, at: usize) -> u32 {
        self.pages[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// Sets `len` of a command, for which the crate has no name in commands of this kind.
fn with_len(command: squeue::Entry128, len: u32) -> squeue::Entry128 {
    /// `struct io_uring_sqe` (linux/io_uring.h).
    const LEN: usize = 24;
    // SAFETY: It is `repr(C)` and without padding: what is handed to the kernel byte for byte.
    let mut bytes: [u8; 128] = unsafe { mem::transmute(command) };
    bytes[LEN..LEN + 4].copy_from_slice(&len.to_ne_bytes());
    // SAFETY: As before; any bytes are a command.
    unsafe { mem::transmute::<[u8; 128], squeue::Entry128>(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;
    use crate::request::{Op, Request};

    /// An entry in which the kernel has put a request with these arguments and this payload.
    fn entry(opcode: u32, arguments: &[u8], payload: &[u8]) -> Entry {
        let mut entry = Entry::new(0).unwrap();
        let len = (request::HEADER_BYTES + arguments.len() + payload.len()) as u32;
        entry.pages[..4].copy_from_slice(&len.to_ne_bytes());
        entry.pages[4..8].copy_from_slice(&opcode.to_ne_bytes());
        entry.pages[8] = 77;
        entry.pages[ARGUMENTS..ARGUMENTS + arguments.len()].copy_from_slice(arguments);
        entry.pages[PAYLOAD_BYTES..PAYLOAD_BYTES + 4].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        entry.pages[BODY..BODY + payload.len()].copy_from_slice(payload);
        entry
    }

    /// What the kernel would fetch.
    fn reply(entry: &Entry) -> (&[u8], &[u8]) {
        (&entry.pages[..reply::HEADER_BYTES], &entry.pages[BODY..BODY + entry.number(PAYLOAD_BYTES) as usize])
    }

    #[test]
    fn a_request_is_in_one_piece_and_the_reply_where_the_kernel_fetches_it() {
        let (mut spare, mut made) = (Pages::new(100), Reply::new());
        let arguments = [&8u32.to_ne_bytes()[..], &[0; 4]].concat();
        let mut getxattr = entry(22, &arguments, b"user.x\0");
        let where_from = made.pages().as_ptr();
        getxattr.attend(&mut spare, &mut made, |bytes, reply| {
            let request = Request::decode(bytes).unwrap();
            assert_eq!((request.unique, request.op), (Unique(77), Op::Getxattr { name: b"user.x", size: 8 }));
            reply.clear();
            reply.put(b"value");
        });
        assert_eq!(made.pages().as_ptr(), where_from);
        getxattr.answer(Unique(77), Ok(()), &mut made);
        let header = [&21u32.to_ne_bytes()[..], &[0; 4], &77u64.to_ne_bytes()].concat();
        assert_eq!(reply(&getxattr), (&header[..], &b"value"[..]));
        getxattr.answer(Unique(77), Err(Errno::IO), &mut made);
        assert_eq!(reply(&getxattr).1, b"");
    }

    #[test]
    fn data_of_a_write_stay_where_they_are() {
        let (mut spare, mut made) = (Pages::new(100), Reply::new());
        let data = vec![0x5a; 1 << 20];
        let mut arguments = [0; 40];
        arguments[16..20].copy_from_slice(&(1u32 << 20).to_ne_bytes());
        let mut write = entry(request::WRITE, &arguments, &data);
        let place = write.pages[BODY..].as_ptr();
        write.attend(&mut spare, &mut made, |bytes, reply| {
            let Op::Change(Change::Write { data, .. }) = Request::decode(bytes).unwrap().op else { panic!() };
            assert_eq!((data.as_ptr(), data.len()), (place, 1 << 20));
            reply.clear();
            reply.written(1 << 20);
        });
        write.release_memory();
        write.answer(Unique(77), Ok(()), &mut made);
        assert_eq!(reply(&write).1, [&(1u32 << 20).to_ne_bytes()[..], &[0; 4]].concat());
    }

    #[test]
    fn numbers_that_make_no_sense_are_no_request() {
        for (len, payload_bytes) in [(0, u32::MAX), (u32::MAX, 0), (u32::MAX, u32::MAX), (40, 200), (500, 0)]
        {
            for opcode in [1, request::WRITE] {
                let (mut spare, mut made) = (Pages::new(100), Reply::new());
                let mut broken = entry(opcode, &[0xff; 128], b"");
                broken.pages[..4].copy_from_slice(&u32::to_ne_bytes(len));
                broken.pages[PAYLOAD_BYTES..PAYLOAD_BYTES + 4].copy_from_slice(&payload_bytes.to_ne_bytes());
                broken.attend(&mut spare, &mut made, |bytes, _| {
                    let request = Request::decode(bytes);
                    let known = request.map(|request| request.op);
                    assert!(matches!(known, None | Some(Op::Malformed)), "{len} {payload_bytes}: {known:?}");
                });
            }
        }
    }
}
