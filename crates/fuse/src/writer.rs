//! Requests that change something, answered by a [`WriteFs`].
//!
//! # Who asks
//!
//! The mount has `default_permissions`: the kernel has checked, with the caller's real groups and capabilities, whatever depends on permissions,
//! ownership and the sticky bit before a request comes. What is left to us is what the kernel cannot know (flags of inodes, read-only
//! subvolumes) and what follows from who asks (owner and group of what is new, set-id bits that go). For that the user and group in the
//! request are enough, but where a set-group-id bit depends on other groups of the caller; only then they are looked up in `/proc`.
//!
//! Set-id bits and capabilities go when the kernel says so (`HANDLE_KILLPRIV_V2`), since only it knows what the caller may. Of `fallocate` and
//! copies it does not say; there they go unless root asks.
//!
//! # What the kernel caches
//!
//! All changes come through the kernel (but subvolumes that come and go, of which it is told: [`crate::notify`]), so it knows when what it caches changes, and names and attributes stay valid for ever as on a
//! read-only mount. (On a volume that can fold case, one change touches names the kernel does not think of; there, names are valid for no time.)
//! Writes come as they are made. The kernel could collect them (`WRITEBACK_CACHE`), but would acknowledge then what nobody has promised room for, and
//! `close` could not be killed in a freeze; docs/performance.md has what it would bring. `O_APPEND` is the kernel's: it holds
//! the lock of the file, knows its size, and sends the offset. Access times are ours ([`crate::access`]).
//!
//! # When a volume is frozen
//!
//! Every request that changes something needs a front ticket ([`Front`]), of the kind that [`front_kind`] says. If there is none now, the request is put
//! aside ([`crate::parked`]), and nothing of it has been done.
//!
//! # Objects in use
//!
//! The kernel counts how often it was told of an object, and says when it forgets it. Each of these is a hold ([`WriteFs::hold`]), so that a file that is
//! open, or a working directory, lives on without a name. Open files need no hold of their own: the kernel does not forget what is open.

use frazil_device::waiting;
use frazil_posix::write::{
    Allocate, Caller, Front, NewNode, RenameMode, SetAttr, SetTime, SetXattr, WriteFs,
};
use frazil_posix::{Attr, Error, NodeId, Timestamp};
use frazil_volume::lifecycle::FrontKind;
use rustix::fs::OFlags;

use crate::adapter::{Adapter, LONG_BYTES, Outcome, ioctl};
use crate::change::{Change, Copy, Setattr, Time, given};
use crate::errno::Errno;
use crate::filesystem::Filesystem;
use crate::node_ids::FuseId;
use crate::reply::Reply;
use crate::request::{Op, Request};

/// The kernel writes back a page of a mapped file (`FUSE_WRITE_CACHE`).
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
/// Set-id bits go with this write (`FUSE_WRITE_KILL_SUIDGID`).
const WRITE_KILL: u32 = 1 << 2;
/// Set-user-id and set-group-id.
const SET_ID: u16 = 0o6000;
/// Set-group-id and execution by the group.
const SETGID_EXECUTE: u32 = 0o2010;
/// A change of a file's size by at least this much takes a while.
const LONG_TRUNCATE_BYTES: u64 = 16 << 20;
/// Most bytes copied by one request: what its answer can count.
const COPY_BYTES_MAX: u64 = 1 << 30;
/// Longest `/proc/PID/status` line of groups that is worth reading: 65536 groups is the limit of Linux.
const STATUS_BYTES_MAX: usize = 1 << 20;

/// Who asks.
#[derive(Clone, Copy)]
struct Who {
    uid: u32,
    gid: u32,
    pid: u32,
}

impl Who {
    fn caller(self, umask: u32) -> Caller<'static> {
        Caller {
            uid: self.uid,
            gid: self.gid,
            groups: &[],
            umask: (umask & 0o777) as u16,
            privileged: self.uid == 0,
        }
    }

    /// As somebody whom the kernel lets do this.
    fn allowed(self) -> Caller<'static> {
        Caller { privileged: true, ..self.caller(0) }
    }

    /// As somebody who loses set-id bits by this, or does not.
    fn killing(self, kill: bool) -> Caller<'static> {
        Caller { privileged: !kill, ..self.caller(0) }
    }

    /// All its groups; none if they cannot be found out.
    fn groups(self) -> Vec<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
        let line = &line[..line.len().min(STATUS_BYTES_MAX)];
        line.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect()
    }
}

/// What kind of ticket a request needs; `None` if it changes nothing.
pub(crate) fn front_kind(op: &Op<'_>) -> Option<FrontKind> {
    let Op::Change(change) = op else {
        let sets = matches!(op, Op::Ioctl { command: ioctl::SETFLAGS | ioctl::FSSETXATTR, .. });
        return sets.then_some(FrontKind::Attributes);
    };
    Some(match change {
        Change::Symlink { .. } | Change::Mknod { .. } | Change::Mkdir { .. } => FrontKind::Names,
        Change::Unlink { .. } | Change::Rmdir { .. } | Change::Rename { .. } => FrontKind::Names,
        Change::Link { .. } | Change::Create { .. } | Change::Tmpfile { .. } => FrontKind::Names,
        Change::Setattr(set) if set.valid & given::SIZE != 0 => FrontKind::Space,
        Change::Setattr(_) | Change::Setxattr { .. } | Change::Removexattr { .. } => FrontKind::Attributes,
        Change::Write { flags, .. } if flags & WRITE_CACHE != 0 => FrontKind::WriteBack,
        Change::Write { .. } => FrontKind::Write,
        Change::Fallocate { .. } | Change::Copy(_) => FrontKind::Space,
        Change::Fsync | Change::Syncfs => return None,
    })
}

/// Makes durable what was done to `node`, or everything. Needs no ticket: what is frozen is durable.
pub(crate) fn sync(fs: &WriteFs, node: NodeId, op: &Op<'_>) -> Outcome {
    waiting::about_to_wait();
    if !matches!(op, Op::Change(Change::Fsync)) {
        return Ok(fs.sync()?);
    }
    match fs.fsync(node) {
        // A removed directory: what is left of it is that it was removed.
        Err(Error::Stale(_)) => Ok(fs.sync()?),
        done => Ok(done?),
    }
}

/// Answers a request about `node` that changes something.
pub(crate) fn answer<F: Filesystem>(
    adapter: &Adapter<F>,
    fs: &Front<'_>,
    request: &Request<'_>,
    (node, change): (NodeId, &Change<'_>),
    reply: &mut Reply,
) -> Outcome {
    let who = Who { uid: request.uid, gid: request.gid, pid: request.pid };
    let caller = |umask: u32| who.caller(umask);
    let there = |id: FuseId| adapter.ids.node(id).ok_or(Errno::STALE);
    match *change {
        Change::Setattr(set) => {
            let attr = setattr(fs, node, &set, who)?;
            reply.attr_out(request.node, &attr, adapter.shown);
        }
        Change::Symlink { name, target } => {
            let attr = fs.create(node, name, NewNode::Symlink(target), 0o777, &caller(0))?;
            adapter.enter(&attr, reply);
        }
        Change::Mknod { name, mode, rdev, umask } => {
            let attr = create(fs, (node, name), new_node(mode, rdev)?, mode, (who, umask))?;
            adapter.enter(&attr, reply);
        }
        Change::Mkdir { name, mode, umask } => {
            let attr = create(fs, (node, name), NewNode::Directory, mode, (who, umask))?;
            adapter.enter(&attr, reply);
        }
        Change::Create { name, flags, mode, umask } => {
            let exclusive = flags & OFlags::EXCL.bits() != 0;
            let attr = match create(fs, (node, name), NewNode::File, mode, (who, umask)) {
                Err(Error::Exists) if !exclusive => fs.lookup(node, name)?,
                made => made?,
            };
            adapter.enter(&attr, reply);
            adapter.opened(reply);
        }
        Change::Tmpfile { flags, mode, umask } => {
            let linkable = flags & OFlags::EXCL.bits() == 0;
            let attr = fs.create_nameless(node, perm(mode), linkable, &caller(umask))?;
            // It is held already.
            adapter.show(&attr, reply);
            adapter.opened(reply);
        }
        Change::Link { of, name } => {
            adapter.enter(&fs.link(there(of)?, node, name)?, reply);
        }
        Change::Unlink { name } => fs.unlink(node, name, &caller(0))?,
        Change::Rmdir { name } => fs.rmdir(node, name, &caller(0))?,
        Change::Rename { name, to, to_name, flags } => {
            let (mode, whiteout) = rename_flags(flags)?;
            fs.rename((node, name), (there(to)?, to_name), mode, whiteout, &caller(0))?;
        }
        Change::Write { offset, flags, open_flags, data } => {
            if data.len() >= LONG_BYTES as usize {
                waiting::about_to_wait();
            }
            let kill = flags & WRITE_KILL != 0;
            // Of a direct write the kernel does not know that it changes the mode.
            reply.outdates = set_id_goes(fs, node, kill)?;
            let written = fs.write(node, offset, data, &who.killing(kill));
            if open_flags.contains(OFlags::DIRECT) && !data.is_empty() && adapter.through_cache.holds(node) {
                reply.overwrites = Some((node, offset, data.len() as u64));
            }
            // No longer than the data, which is at most a mebibyte.
            reply.written(written.map_err(of_content)? as u32);
        }
        Change::Setxattr { name, value, flags } => {
            let how = match flags {
                0 => SetXattr::Any,
                1 => SetXattr::Create,
                2 => SetXattr::Replace,
                _ => return Err(Errno::INVAL),
            };
            let groups = if name.starts_with(b"system.posix_acl") { who.groups() } else { Vec::new() };
            fs.setxattr(node, name, value, how, &Caller { groups: &groups, ..caller(0) })?;
        }
        Change::Removexattr { name } => fs.removexattr(node, name, &caller(0))?,
        Change::Fallocate { offset, len, mode } => {
            waiting::about_to_wait();
            let range = offset..offset.checked_add(len).ok_or(Errno::FBIG)?;
            reply.outdates = set_id_goes(fs, node, who.uid != 0)?;
            let as_whom = who.killing(who.uid != 0);
            fs.allocate(node, range, fallocate_mode(mode)?, &as_whom).map_err(of_content)?;
        }
        Change::Copy(copy) => {
            waiting::about_to_wait();
            let to = there(copy.to)?;
            reply.outdates = set_id_goes(fs, to, who.uid != 0)?;
            reply.written(share(fs, node, to, &copy, who)?);
        }
        // See `sync`.
        Change::Fsync | Change::Syncfs => {}
    }
    Ok(())
}

/// The file, if it has set-id bits that a change of its content takes away.
fn set_id_goes(fs: &WriteFs, node: NodeId, kill: bool) -> Result<Option<NodeId>, Errno> {
    Ok((kill && fs.getattr(node)?.perm & SET_ID != 0).then_some(node))
}

fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

fn new_node(mode: u32, rdev: u32) -> Result<NewNode<'static>, Errno> {
    // 12 bits major, 20 bits minor, as the kernel packs them.
    let (major, minor) = (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xfff00);
    Ok(match mode >> 12 {
        1 => NewNode::Fifo,
        2 => NewNode::CharDevice(major, minor),
        6 => NewNode::BlockDevice(major, minor),
        8 => NewNode::File,
        12 => NewNode::Socket,
        _ => return Err(Errno::INVAL),
    })
}

fn create(
    fs: &Front<'_>,
    (dir, name): (NodeId, &[u8]),
    what: NewNode<'_>,
    mode: u32,
    (who, umask): (Who, u32),
) -> frazil_posix::Result<Attr> {
    let groups = if mode & SETGID_EXECUTE == SETGID_EXECUTE { who.groups() } else { Vec::new() };
    fs.create(dir, name, what, perm(mode), &Caller { groups: &groups, ..who.caller(umask) })
}

fn rename_flags(flags: u32) -> Result<(RenameMode, bool), Errno> {
    Ok(match flags {
        0 => (RenameMode::Replace, false),
        1 => (RenameMode::NoReplace, false),
        2 => (RenameMode::Exchange, false),
        4 => (RenameMode::Replace, true),
        5 => (RenameMode::NoReplace, true),
        _ => return Err(Errno::INVAL),
    })
}

/// `FALLOC_FL_*`: keep size 1, punch 2, collapse 8, zero 16, insert 32, unshare 64.
fn fallocate_mode(mode: u32) -> Result<Allocate, Errno> {
    let keep_size = mode & 1 != 0;
    Ok(match mode {
        0 | 1 => Allocate::Reserve { keep_size },
        3 => Allocate::Punch,
        8 => Allocate::Collapse,
        16 | 17 => Allocate::Zero { keep_size },
        32 => Allocate::Insert,
        64 | 65 => Allocate::Unshare,
        _ => return Err(Errno::OPNOTSUPP),
    })
}

/// What is too large for a file has an errno of its own.
fn of_content(error: Error) -> Errno {
    match error {
        Error::TooLarge(_) => Errno::FBIG,
        other => other.into(),
    }
}

fn setattr(fs: &Front<'_>, node: NodeId, set: &Setattr, who: Who) -> Result<Attr, Errno> {
    let is_given = |bit: u32| set.valid & bit != 0;
    if is_given(given::SIZE) {
        if fs.getattr(node)?.size.abs_diff(set.size) >= LONG_TRUNCATE_BYTES {
            waiting::about_to_wait();
        }
        fs.truncate(node, set.size, &who.killing(is_given(given::KILL))).map_err(of_content)?;
    }
    let time = |set: u32, now: u32, to: Time| match () {
        () if is_given(now) => Some(SetTime::Now),
        () => is_given(set).then(|| SetTime::To(timestamp(to))),
    };
    let changes = SetAttr {
        perm: is_given(given::MODE).then(|| perm(set.mode)),
        uid: is_given(given::UID).then_some(set.uid),
        gid: is_given(given::GID).then_some(set.gid),
        atime: time(given::ATIME, given::ATIME_NOW, set.atime),
        mtime: time(given::MTIME, given::MTIME_NOW, set.mtime),
        ctime: is_given(given::CTIME).then(|| timestamp(set.ctime)),
        ..SetAttr::default()
    };
    if changes == SetAttr::default() {
        return Ok(fs.getattr(node)?);
    }
    Ok(fs.setattr(node, &changes, &who.allowed())?)
}

fn timestamp((secs, nanos): Time) -> Timestamp {
    Timestamp { secs, nanos: nanos.min(999_999_999) }
}

/// Makes a part of one file be in another by sharing its data; how much of it. What cannot be shared the kernel copies itself.
fn share(fs: &Front<'_>, from: NodeId, to: NodeId, copy: &Copy, who: Who) -> Result<u32, Errno> {
    let block = u64::from(fs.statfs()?.block_bytes).max(1);
    let size = fs.getattr(from)?.size;
    let end = copy.offset.saturating_add(copy.len.min(COPY_BYTES_MAX)).min(size);
    let len = end.saturating_sub(copy.offset);
    if len == 0 {
        return Ok(0);
    }
    // A part of a block can be shared only where both files end.
    let ends_both =
        end == size && fs.getattr(to)?.size <= copy.to_offset.checked_add(len).ok_or(Errno::FBIG)?;
    let len = if ends_both { len } else { len - len % block };
    if len == 0 || !copy.offset.is_multiple_of(block) || !copy.to_offset.is_multiple_of(block) {
        return Err(Errno::OPNOTSUPP);
    }
    let shared =
        fs.clone_range(from, copy.offset..copy.offset + len, to, copy.to_offset, &who.killing(who.uid != 0));
    match shared {
        Ok(len) => Ok(len as u32),
        // Within one file, ranges that overlap.
        Err(Error::Invalid(_)) => Err(Errno::OPNOTSUPP),
        Err(error) => Err(of_content(error)),
    }
}

/// `FS_IOC_SETFLAGS` and `FS_IOC_FSSETXATTR`: flags in the order of the stored bits, and a project.
pub(crate) fn set_flags(
    fs: &Front<'_>,
    node: NodeId,
    (flags, project): (u32, Option<u32>),
    request: &Request<'_>,
) -> Outcome {
    let who = Who { uid: request.uid, gid: request.gid, pid: request.pid };
    let set = SetAttr { flags: Some(flags), project, ..SetAttr::default() };
    fs.setattr(node, &set, &who.caller(0))?;
    Ok(())
}
