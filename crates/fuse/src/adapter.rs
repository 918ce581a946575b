//! Requests answered by the filesystem.
//!
//! One function per kind of request, each a translation: node ids to objects, arguments to a call of [`Filesystem`], its result
//! to a reply, its error to an errno. Nothing here knows threads or the device.
//!
//! A volume does not change behind the kernel's back while it is mounted, and the replies make the most of that: names, missing names and
//! attributes are valid for ever, files and directories are opened without asking unless access times are kept (`ENOSYS` to the first open means
//! "always, and keep what is cached"; the same to the first request to make a file and open it), so a file that was read once is served by the kernel alone. Changes are in `writer`.

use std::sync::Arc;
use std::time::Duration;

use frazil_device::waiting;
use frazil_posix::write::Front;
use frazil_posix::{Attr, Error, NodeId, Whence};
use frazil_volume::lifecycle::NotNow;
use rustix::fs::OFlags;

use crate::access::Accesses;
use crate::change::Change;
use crate::directory::{self, Demand};
use crate::errno::Errno;
use crate::filesystem::Filesystem;
use crate::node_ids::{FuseId, NodeIds};
use crate::notify::ThroughCache;
use crate::reply::{FOR_EVER, NOT_AT_ALL, Reply, Shown};
use crate::request::{Op, Request, forget_pairs};
use crate::writer;

/// Most bytes in one read: what the kernel allows in a request unless its administrator raised it (256 pages).
pub(crate) const READ_BYTES_MAX: u32 = 1 << 20;

/// A read or write of at least this much counts as a wait even when all is in memory: checksum and copies take longer than it takes
/// another thread to come in, and the other core can work on the next one meanwhile.
pub(crate) const LONG_BYTES: u32 = 64 << 10;

/// How long the removal of files is waited for by who asks how much space there is, or by whom it is used, and by who found none, or no more of his quota.
pub(crate) const ASKING_WAIT_MAX: Duration = Duration::from_secs(2);
const ROOM_WAIT_MAX: Duration = Duration::from_secs(20);

/// Name of an attribute of the root directory that is not stored: the process that serves the mount, in decimal.
pub(crate) const SERVER_XATTR: &str = "frazil.server";

/// Keep what is cached when a file is opened (`FOPEN_KEEP_CACHE`).
const OPEN_KEEP_CACHE: u32 = 1 << 1;
/// Let the kernel cache listings (`FOPEN_CACHE_DIR`).
const OPEN_CACHE_DIR: u32 = 1 << 3;

/// A filesystem with its numbers towards the kernel.
pub(crate) struct Adapter<F> {
    pub(crate) fs: Arc<F>,
    pub(crate) ids: NodeIds,
    pub(crate) shown: Shown,
    /// Whether listings are to have attributes.
    pub(crate) demand: Demand,
    /// The kernel opens files, and directories, without asking if told so once.
    pub(crate) opens_itself: (bool, bool),
    pub(crate) through_cache: ThroughCache,
    pub(crate) accesses: Accesses,
}

pub(crate) type Outcome = Result<(), Errno>;

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The reply is ready.
    Reply(Outcome),
    /// There is nothing to reply.
    Nothing,
    /// Nothing was done: it has to wait until the volume can be changed.
    Later,
    /// Nothing was done: the volume cannot be changed.
    Refused,
}

impl<F: Filesystem> Adapter<F> {
    pub(crate) fn new(fs: Arc<F>, accesses: Accesses) -> Result<Adapter<F>, Error> {
        let folding = fs.writer().is_some_and(|writer| writer.folds_case());
        let names_valid = if folding { NOT_AT_ALL } else { FOR_EVER };
        let shown = Shown { block_bytes: fs.statfs()?.block_bytes, valid: FOR_EVER, names_valid };
        let (ids, demand) = (NodeIds::default(), Demand::default());
        let through_cache = ThroughCache::default();
        let opens_itself = (false, false);
        Ok(Adapter { fs, ids, shown, demand, opens_itself, through_cache, accesses })
    }

    /// Fills in the body of the reply.
    pub(crate) fn answer(&self, request: &Request<'_>, reply: &mut Reply) -> Answer {
        match &request.op {
            Op::Forget { lookups } => {
                self.forget(request.node, *lookups);
                return Answer::Nothing;
            }
            Op::BatchForget { pairs } => {
                forget_pairs(pairs).for_each(|(id, lookups)| self.forget(id, lookups));
                return Answer::Nothing;
            }
            Op::Interrupt { .. } => return Answer::Nothing,
            // The kernel makes the file with the request for any other object, and opens it itself: nobody has to be told when it is closed.
            Op::Change(Change::Create { .. }) if self.opens_itself.0 => {
                return Answer::Reply(Err(Errno::NOSYS));
            }
            _ => {}
        }
        let Some(node) = self.ids.node(request.node) else { return Answer::Reply(Err(Errno::STALE)) };
        let front = match (self.fs.writer(), writer::front_kind(&request.op)) {
            (Some(fs), Some(kind)) => match fs.try_front(kind) {
                Ok(front) => Some(front),
                Err(NotNow::Blocked) => return Answer::Later,
                Err(NotNow::ReadOnly) => return Answer::Refused,
            },
            _ => None,
        };
        Answer::Reply(self.answer_about(request, (node, front.as_ref()), reply))
    }

    fn answer_about(
        &self,
        request: &Request<'_>,
        (node, front): (NodeId, Option<&Front<'_>>),
        reply: &mut Reply,
    ) -> Outcome {
        let id = request.node;
        match request.op {
            Op::Lookup { name } => self.lookup(node, name, reply)?,
            Op::Getattr => reply.attr_out(id, &self.fs.getattr(node)?, self.shown),
            Op::Statx => reply.statx_out(id, &self.fs.getattr(node)?, self.shown),
            Op::Readlink => {
                reply.put(&self.fs.readlink(node)?);
                self.accesses.read(node, OFlags::empty(), reply);
            }
            Op::Open { .. } if self.opens_itself.0 => return Err(Errno::NOSYS),
            Op::Open { flags } => {
                self.opened(reply);
                self.accesses.opened(node, flags, reply);
            }
            Op::OpenDir { .. } if self.opens_itself.1 => return Err(Errno::NOSYS),
            Op::OpenDir { flags } => {
                reply.opened(OPEN_KEEP_CACHE | OPEN_CACHE_DIR);
                self.accesses.listed(node, flags, reply);
            }
            Op::Read { offset, size, flags } => {
                self.accesses.read(node, flags, reply);
                if !flags.contains(OFlags::DIRECT) && self.fs.writer().is_some() {
                    self.through_cache.read(node);
                }
                self.read(node, offset, size, reply)?;
            }
            Op::Readdir { offset, size, plus } => {
                directory::list(self, node, directory::Range { offset, size, plus }, reply)?;
            }
            Op::Statfs => {
                self.finish_removals(None, ASKING_WAIT_MAX);
                reply.statfs(&self.fs.statfs()?);
            }
            Op::Getxattr { name, size } => self.getxattr(node, name, size, reply)?,
            Op::Listxattr { size } => self.listxattr(node, size, reply)?,
            Op::Seek { offset, whence } => self.seek(node, offset, whence, reply)?,
            Op::Ioctl { command, input, out_size } => {
                let (delivered, changed) = self.ioctl((node, front), (command, input), request)?;
                if delivered.len() > out_size as usize {
                    return Err(Errno::INVAL);
                }
                reply.ioctl(&delivered);
                reply.outdates = changed.then_some(node);
            }
            Op::Change(Change::Fsync | Change::Syncfs) => match self.fs.writer() {
                Some(fs) => writer::sync(fs, node, &request.op)?,
                None => return Err(Errno::NOSYS),
            },
            Op::Change(ref change) => match front {
                Some(front) => match writer::answer(self, front, request, (node, change), reply) {
                    Err(Errno::NOSPC | Errno::DQUOT) if self.finish_removals(Some(front), ROOM_WAIT_MAX) => {
                        reply.clear();
                        writer::answer(self, front, request, (node, change), reply)?;
                    }
                    done => done?,
                },
                None => return Err(Errno::NOSYS),
            },
            Op::Release | Op::Destroy => {}
            Op::Forget { .. } | Op::BatchForget { .. } | Op::Interrupt { .. } => {}
            Op::Malformed => return Err(Errno::INVAL),
            Op::Init { .. } | Op::Unknown => return Err(Errno::NOSYS),
        }
        Ok(())
    }

    /// Tells the kernel of an object, which it will forget at some time, and which lives until then.
    pub(crate) fn enter(&self, attr: &Attr, reply: &mut Reply) -> FuseId {
        if let Some(fs) = self.fs.writer() {
            fs.hold(attr.node);
        }
        self.show(attr, reply)
    }

    /// Tells the kernel of an object that is held for it already.
    pub(crate) fn show(&self, attr: &Attr, reply: &mut Reply) -> FuseId {
        let id = self.ids.looked_up(attr.node);
        reply.entry(id, attr, self.shown);
        id
    }

    /// A file is open.
    pub(crate) fn opened(&self, reply: &mut Reply) {
        reply.opened(OPEN_KEEP_CACHE);
    }

    fn forget(&self, id: FuseId, lookups: u64) {
        let node = self.ids.node(id);
        self.ids.forget(id, lookups);
        if let (Some(fs), Some(node)) = (self.fs.writer(), node) {
            fs.release(node, lookups);
        }
    }

    /// Removes what nobody uses any more, which takes a moment. Whether there was anything.
    fn finish_removals(&self, front: Option<&Front<'_>>, longest: Duration) -> bool {
        let Some(fs) = self.fs.writer().filter(|fs| fs.has_removals()) else { return false };
        waiting::about_to_wait();
        match front {
            Some(front) => front.finish_removals(longest),
            None => fs.wait_for_removals(longest),
        }
    }

    /// "." and ".." are asked for by the kernel's NFS server only, which finds an object again by its number.
    fn lookup(&self, dir: NodeId, name: &[u8], reply: &mut Reply) -> Outcome {
        let found = match name {
            b"." => self.fs.getattr(dir),
            b".." => self.fs.parent(dir).and_then(|parent| self.fs.getattr(parent)),
            name => self.fs.lookup(dir, name),
        };
        match found {
            Ok(attr) => {
                self.demand.looked_up(attr.kind);
                self.enter(&attr, reply);
            }
            Err(Error::NotFound) => reply.no_entry(self.shown.names_valid),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The kernel takes a short reply for the end of the file, and would from then on believe that the file ends there. So
    /// before a range that cannot be read the whole request fails; the kernel then asks again page by page for what
    /// somebody really wants, and exactly the unreadable pages are errors.
    fn read(&self, node: NodeId, offset: u64, size: u32, reply: &mut Reply) -> Outcome {
        if size >= LONG_BYTES {
            waiting::about_to_wait();
        }
        let size = size.min(READ_BYTES_MAX) as usize;
        let got = self.fs.read(node, offset, reply.room(size))?;
        if got < size && offset.saturating_add(got as u64) < self.fs.getattr(node)?.size {
            return Err(Errno::IO);
        }
        reply.truncate(got);
        Ok(())
    }

    fn getxattr(&self, node: NodeId, name: &[u8], size: u32, reply: &mut Reply) -> Outcome {
        let value = if name == SERVER_XATTR.as_bytes() && node == NodeId::ROOT {
            std::process::id().to_string().into_bytes()
        } else {
            self.fs.getxattr(node, name)?
        };
        put_sized(&value, size, reply)
    }

    fn listxattr(&self, node: NodeId, size: u32, reply: &mut Reply) -> Outcome {
        let mut names = self.fs.listxattr(node)?;
        names.iter_mut().for_each(|name| name.push(0));
        put_sized(&names.concat(), size, reply)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: u32, reply: &mut Reply) -> Outcome {
        let whence = match whence {
            3 => Whence::Data,
            4 => Whence::Hole,
            _ => return Err(Errno::INVAL),
        };
        reply.u64(self.fs.seek(node, offset, whence)?);
        Ok(())
    }

    /// The controls of flags and project (spec 40 §17.1): what they deliver, and whether they changed something.
    fn ioctl(
        &self,
        (node, front): (NodeId, Option<&Front<'_>>),
        (command, input): (u32, &[u8]),
        request: &Request<'_>,
    ) -> Result<(Vec<u8>, bool), Errno> {
        use ioctl::{FSGETXATTR, FSSETXATTR, GETFLAGS, GETVERSION, SETFLAGS};
        let word = |at: usize| -> Result<u32, Errno> {
            let bytes = input.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::INVAL)?;
            Ok(u32::from_ne_bytes(bytes))
        };
        match command {
            GETFLAGS => Ok((inode_flags(&self.fs.getattr(node)?).to_ne_bytes().to_vec(), false)),
            GETVERSION => Ok((self.fs.getattr(node)?.generation.to_ne_bytes().to_vec(), false)),
            FSGETXATTR => {
                let attr = self.fs.getattr(node)?;
                let mut xattr = vec![0; 28];
                xattr[0..4].copy_from_slice(&extended_flags(&attr).to_ne_bytes());
                xattr[12..16].copy_from_slice(&attr.project.to_ne_bytes());
                Ok((xattr, false))
            }
            SETFLAGS | FSSETXATTR => {
                let front = front.ok_or(Errno::NOTTY)?;
                let set = match command {
                    SETFLAGS => (stored_flags(word(0)?)?, None),
                    _ => (stored_extended_flags(word(0)?)?, Some(word(12)?)),
                };
                writer::set_flags(front, node, set, request).map(|()| (Vec::new(), true))
            }
            _ => Err(Errno::NOTTY),
        }
    }
}

/// Numbers of controls (spec 40 §17.1).
pub(crate) mod ioctl {
    pub(crate) const GETFLAGS: u32 = 0x8008_6601;
    pub(crate) const SETFLAGS: u32 = 0x4008_6602;
    pub(crate) const FSGETXATTR: u32 = 0x801c_581f;
    pub(crate) const FSSETXATTR: u32 = 0x401c_5820;
    pub(crate) const GETVERSION: u32 = 0x8008_7601;
}

/// The value, or its length if the caller has no buffer yet.
fn put_sized(value: &[u8], size: u32, reply: &mut Reply) -> Outcome {
    if size == 0 {
        reply.u32(value.len() as u32);
        reply.u32(0);
    } else if value.len() > size as usize {
        return Err(Errno::RANGE);
    } else {
        reply.put(value);
    }
    Ok(())
}

/// `FS_*_FL`: sync 0x8, immutable 0x10, append 0x20, nodump 0x40, noatime 0x80, in the order of the stored bits.
fn inode_flags(attr: &Attr) -> u32 {
    (attr.flags & 0x1f) << 3
}

/// The stored bits for `FS_*_FL`; others cannot be set.
fn stored_flags(flags: u32) -> Result<u32, Errno> {
    if flags & !0xf8 != 0 { Err(Errno::OPNOTSUPP) } else { Ok(flags >> 3) }
}

/// `FS_XFLAG_*` for the stored bits sync, immutable, append, nodump, noatime.
const XFLAGS: [u32; 5] = [0x20, 0x08, 0x10, 0x80, 0x40];

fn extended_flags(attr: &Attr) -> u32 {
    let set = |(bit, xflag): (usize, &u32)| if attr.flags >> bit & 1 == 1 { *xflag } else { 0 };
    XFLAGS.iter().enumerate().map(set).sum()
}

/// The stored bits for `FS_XFLAG_*`; others cannot be set.
fn stored_extended_flags(xflags: u32) -> Result<u32, Errno> {
    if xflags & !XFLAGS.iter().sum::<u32>() != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let set = |(bit, xflag): (usize, &u32)| u32::from(xflags & xflag != 0) << bit;
    Ok(XFLAGS.iter().enumerate().map(set).sum())
}
