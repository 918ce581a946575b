//! The first request, in which the kernel says what it can do and we say what we want of it. After the reply the mount is usable.

use std::fs::File;
use std::io;

use rustix::io::Errno as Code;

use crate::adapter::{Adapter, READ_BYTES_MAX};
use crate::errno::Errno;
use crate::filesystem::Filesystem;
use crate::reply::{Init, Reply};
use crate::request::{Op, Request};
use crate::ring::{Entry, Rings};

/// The newest minor protocol version that is spoken here.
const MINOR_MAX: u32 = 42;
/// The oldest (Linux 3.15): nanoseconds, `readdirplus`, replies of today's size.
const MINOR_MIN: u32 = 23;
/// Room for a request without the data of a write: many forgets, or a name and a value.
pub(crate) const REQUEST_BYTES_MAX: usize = 68 << 10;
/// Most bytes in a write: as in a read.
pub(crate) const WRITE_BYTES_MAX: u32 = READ_BYTES_MAX;
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

    /// Requests come through io_uring.
    pub(super) const OVER_IO_URING: u64 = 1 << 41;

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

/// Answers the first request. If requests are to come through io_uring, returns what is to be made known to the kernel before it sends any.
pub(crate) fn shake_hands<F: Filesystem>(
    device: &File,
    adapter: &mut Adapter<F>,
) -> io::Result<Option<(Rings, Vec<Entry>)>> {
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
        let rings = (flags & want::OVER_IO_URING != 0).then(Rings::new).flatten();
        let wanted = want::ALL
            | if writable { want::WRITING } else { 0 }
            | if rings.is_some() { want::OVER_IO_URING } else { 0 };
        reply.init(&Init {
            minor: minor.min(MINOR_MAX),
            max_readahead,
            flags: flags & wanted,
            background_max: BACKGROUND_MAX,
            write_bytes_max: if writable { WRITE_BYTES_MAX } else { WRITE_BYTES_NONE },
            pages_max: (READ_BYTES_MAX as usize / rustix::param::page_size()) as u16,
        });
        rustix::io::write(device, reply.finish(request.unique, Ok(())))?;
        return Ok(rings);
    }
}
