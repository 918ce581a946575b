//! Requests answered by the filesystem.
//!
//! One function per kind of request, each a translation: node ids to objects, arguments to a call of [`Filesystem`], its result
//! to a reply, its error to an errno. Nothing here knows threads or the device.
//!
//! A read-only volume cannot change while it is mounted, and the replies make the most of that: names, missing names and
//! attributes are valid for ever, files and directories are opened without asking (`ENOSYS` to the first open means
//! "always, and keep what is cached"), so a file that was read once is served by the kernel alone.

use std::sync::Arc;

use frazil_device::waiting;
use frazil_posix::{Attr, Error, NodeId, Whence};

use crate::directory::{self, Demand};
use crate::errno::Errno;
use crate::filesystem::Filesystem;
use crate::node_ids::{FuseId, NodeIds};
use crate::reply::{FOR_EVER, Reply, Shown};
use crate::request::{Op, Request, forget_pairs};

/// Most bytes in one read: what the kernel allows in a request unless its administrator raised it (256 pages).
pub(crate) const READ_BYTES_MAX: u32 = 1 << 20;

/// A read of at least this much counts as a wait even when all is in memory: checksum and copies take longer than it takes
/// another thread to come in, and the other core can work on the next one meanwhile.
const LONG_READ_BYTES: u32 = 64 << 10;

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
}

type Outcome = Result<(), Errno>;

impl<F: Filesystem> Adapter<F> {
    pub(crate) fn new(fs: Arc<F>) -> Result<Adapter<F>, Error> {
        let shown = Shown { block_bytes: fs.statfs()?.block_bytes, valid: FOR_EVER };
        let (ids, demand) = (NodeIds::default(), Demand::default());
        Ok(Adapter { fs, ids, shown, demand, opens_itself: (false, false) })
    }

    /// Fills in the body of the reply; `None` if the request is not to be answered.
    pub(crate) fn answer(&self, request: &Request<'_>, reply: &mut Reply) -> Option<Outcome> {
        match &request.op {
            Op::Forget { lookups } => {
                self.ids.forget(request.node, *lookups);
                return None;
            }
            Op::BatchForget { pairs } => {
                forget_pairs(pairs).for_each(|(id, lookups)| self.ids.forget(id, lookups));
                return None;
            }
            Op::Interrupt { .. } => return None,
            _ => {}
        }
        let Some(node) = self.ids.node(request.node) else { return Some(Err(Errno::STALE)) };
        Some(self.answer_about(request.node, node, &request.op, reply))
    }

    fn answer_about(&self, id: FuseId, node: NodeId, op: &Op<'_>, reply: &mut Reply) -> Outcome {
        match *op {
            Op::Lookup { name } => self.lookup(node, name, reply)?,
            Op::Getattr => reply.attr_out(id, &self.fs.getattr(node)?, self.shown),
            Op::Statx => reply.statx_out(id, &self.fs.getattr(node)?, self.shown),
            Op::Readlink => reply.put(&self.fs.readlink(node)?),
            Op::Open if self.opens_itself.0 => return Err(Errno::NOSYS),
            Op::Open => reply.opened(OPEN_KEEP_CACHE),
            Op::OpenDir if self.opens_itself.1 => return Err(Errno::NOSYS),
            Op::OpenDir => reply.opened(OPEN_KEEP_CACHE | OPEN_CACHE_DIR),
            Op::Read { offset, size } => self.read(node, offset, size, reply)?,
            Op::Readdir { offset, size, plus } => {
                directory::list(self, node, directory::Range { offset, size, plus }, reply)?;
            }
            Op::Statfs => reply.statfs(&self.fs.statfs()?),
            Op::Getxattr { name, size } => self.getxattr(node, name, size, reply)?,
            Op::Listxattr { size } => self.listxattr(node, size, reply)?,
            Op::Seek { offset, whence } => self.seek(node, offset, whence, reply)?,
            Op::Ioctl { command, out_size } => self.ioctl(node, command, out_size, reply)?,
            Op::Release | Op::Destroy => {}
            Op::Forget { .. } | Op::BatchForget { .. } | Op::Interrupt { .. } => {}
            Op::Malformed => return Err(Errno::INVAL),
            Op::Init { .. } | Op::Unknown => return Err(Errno::NOSYS),
        }
        Ok(())
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
                reply.entry(self.ids.looked_up(attr.node), &attr, self.shown);
            }
            Err(Error::NotFound) => reply.no_entry(self.shown.valid),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The kernel takes a short reply for the end of the file, and would from then on believe that the file ends there. So
    /// before a range that cannot be read the whole request fails; the kernel then asks again page by page for what
    /// somebody really wants, and exactly the unreadable pages are errors.
    fn read(&self, node: NodeId, offset: u64, size: u32, reply: &mut Reply) -> Outcome {
        if size >= LONG_READ_BYTES {
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

    /// The controls that only read (spec 40 §17.1).
    fn ioctl(&self, node: NodeId, command: u32, out_size: u32, reply: &mut Reply) -> Outcome {
        const GETFLAGS: u32 = 0x8008_6601;
        const FSGETXATTR: u32 = 0x801c_581f;
        const GETVERSION: u32 = 0x8008_7601;
        let delivered = match command {
            GETFLAGS => inode_flags(&self.fs.getattr(node)?).to_ne_bytes().to_vec(),
            GETVERSION => self.fs.getattr(node)?.generation.to_ne_bytes().to_vec(),
            FSGETXATTR => {
                let attr = self.fs.getattr(node)?;
                let mut xattr = vec![0; 28];
                xattr[0..4].copy_from_slice(&extended_flags(&attr).to_ne_bytes());
                xattr[12..16].copy_from_slice(&attr.project.to_ne_bytes());
                xattr
            }
            _ => return Err(Errno::NOTTY),
        };
        if delivered.len() > out_size as usize {
            return Err(Errno::INVAL);
        }
        reply.ioctl(&delivered);
        Ok(())
    }
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

/// `FS_XFLAG_*` for the stored bits sync, immutable, append, nodump, noatime.
fn extended_flags(attr: &Attr) -> u32 {
    const XFLAGS: [u32; 5] = [0x20, 0x08, 0x10, 0x80, 0x40];
    let set = |(bit, xflag): (usize, &u32)| if attr.flags >> bit & 1 == 1 { *xflag } else { 0 };
    XFLAGS.iter().enumerate().map(set).sum()
}
