//! What a mount does when it is asked to.
//!
//! Subvolumes are made and deleted by `frazil-posix`, as any change is; a frozen volume makes them wait like any. What is added here is that the kernel
//! is told ([`crate::notify`]): it caches names and attributes for ever, and this change did not come through it.
//!
//! The client has followed the paths, so here they consist of names of directories, and whatever is in between that is none is an error.
//! Whether the caller may write to the directory the client has asked the kernel; who may use this socket may also write to the
//! devices, so nothing depends on that being the truth.

use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use frazil_ondisk::units::SubvolId;
use frazil_posix::write::{Caller, Front, WriteFs};
use frazil_posix::{Error, NodeId, SubvolInfo};
use frazil_volume::lifecycle::FrontKind;
use rustix::io::Errno as Code;
use serde::Serialize;
use serde_json::Value;

use super::freeze::{self, Bound, Holds, Wish};
use super::protocol::{Bytes, Failure, Request, SubvolumeReport};
use super::quota;
use super::server::{Commands, Peer, TakePart};
use super::status::{
    self, EngineReport, JournalReport, LifecycleReport, MountReport, MovedReport, StatusReport, VolumeReport,
};
use super::usage::UsageReport;
use super::write_back::Traffic;
use crate::adapter::ASKING_WAIT_MAX;
use crate::filesystem::Filesystem;
use crate::notify::Notice;
use crate::session::Session;

/// Most requests named that keep a freeze waiting.
const STRAGGLERS_MAX: usize = 4;
/// Permission bits of a new subvolume, before the umask.
const NEW_PERM: u16 = 0o777;

/// The commands of one mount.
pub(crate) struct MountCommands<F> {
    /// Weak, so that a connection that does nothing keeps nobody from unmounting.
    session: Weak<Session<F>>,
    since: Instant,
    holds: Holds,
}

impl<F: Filesystem> MountCommands<F> {
    pub(crate) fn new(session: Weak<Session<F>>) -> MountCommands<F> {
        MountCommands { session, since: Instant::now(), holds: Holds::default() }
    }
}

impl<F: Filesystem> Commands for MountCommands<F> {
    type Held = Bound;

    fn run(
        &self,
        request: Request,
        (peer, client): (Peer, &UnixStream),
        bound: &mut Bound,
        part: &mut TakePart<'_>,
    ) -> Result<Value, Failure> {
        let session = self.session.upgrade();
        let session = session.ok_or_else(|| Failure::new(Code::NODEV, "the mount is ending"))?;
        tracing::debug!("process {} of user {} asks for {request:?}", peer.pid, peer.uid);
        let fs = &*session.adapter().fs;
        match request {
            Request::Sync => {
                fs.writer().map_or(Ok(()), WriteFs::sync)?;
                Ok(Value::Null)
            }
            Request::MarkWrites => value(&Traffic::of(&session).mark()),
            Request::AwaitWrites { mark, wait_ms } => {
                Ok(Traffic::of(&session).await_writes(mark, Duration::from_millis(wait_ms)).into())
            }
            Request::Status => value(&self.status(&session)?),
            Request::Usage => value(&usage(fs)?),
            Request::Subvolumes => {
                let reports = subvolumes(fs)?;
                in_parts(reports.iter().map(report), part)
            }
            Request::CreateSubvolume { path, umask } => {
                let (dir, name) = place(fs, &path)?;
                let caller = caller(peer, umask);
                let made = front(fs)?.create_subvolume(dir, name, NEW_PERM, &caller)?;
                tell_of_name(&session, dir, name);
                value(&report_of(fs, made.node.subvol)?)
            }
            Request::Snapshot { source, path, read_only } => {
                let source = subvolume_at(fs, &source)?;
                let (dir, name) = place(fs, &path)?;
                let made = front(fs)?.create_snapshot(source, dir, name, read_only, &caller(peer, 0))?;
                tell_of_name(&session, dir, name);
                value(&report_of(fs, made.node.subvol)?)
            }
            Request::Quotas => {
                let fs = writer(fs)?;
                fs.wait_for_removals(ASKING_WAIT_MAX);
                in_parts(quota::reports(fs)?.into_iter(), part)
            }
            Request::SetQuota { owner, id, space, inodes } => {
                // Not because of who may use this socket, but because limits are for those who mount their own.
                if peer.uid != 0 {
                    return Err(Failure::new(Code::PERM, "only root sets limits"));
                }
                quota::set(&front(fs)?, (owner, id), space, inodes)?;
                Ok(Value::Null)
            }
            Request::Freeze { who, bound: binds, share, hold_ms, drain_ms } => {
                let who = format!("{who}, process {} of user {}", peer.pid, peer.uid);
                let [hold_for, give_up_after] =
                    [hold_ms, drain_ms].map(|millis| millis.map(Duration::from_millis));
                let wish = Wish { who, bound: binds, share, hold_for, give_up_after };
                let lifecycle = Arc::clone(session.lifecycle());
                // It may have been made writable a moment ago, and is to be frozen as what it is.
                if let Err(error) = session.follow_mount() {
                    tracing::debug!("before a freeze: {error}");
                }
                // Whoever waits for it to be frozen must not keep anybody from unmounting.
                drop(session);
                let frozen = self.holds.freeze(&lifecycle, wish, bound, client);
                value(&frozen.map_err(|failure| self.name_stragglers(failure))?)
            }
            Request::Thaw { token } => {
                self.holds.thaw(session.lifecycle(), token.as_deref(), bound)?;
                Ok(Value::Null)
            }
            Request::ThawAll => {
                freeze::thaw_all(session.lifecycle())?;
                tracing::warn!("process {} of user {} has thawed it by force", peer.pid, peer.uid);
                Ok(Value::Null)
            }
            Request::FollowMount => {
                freeze::follow_mount(&session)?;
                Ok(Value::Null)
            }
            Request::Shutdown { mode } => {
                tracing::warn!("process {} of user {} shuts it down ({mode:?})", peer.pid, peer.uid);
                freeze::shutdown(session.lifecycle(), mode)?;
                Ok(Value::Null)
            }
            Request::DeleteSubvolume { path } => {
                let (dir, name) = place(fs, &path)?;
                let subvol = fs.lookup(dir, name)?.node.subvol;
                let writer = writer(fs)?;
                front(fs)?.delete_subvolume(dir, name, &caller(peer, 0))?;
                tell_of_name(&session, dir, name);
                // Whoever has something of it open finds out now.
                writer.held_in(subvol).into_iter().for_each(|node| session.notify(&Notice::Inode(node)));
                Ok(Value::Null)
            }
        }
    }

    fn holds(bound: &Bound) -> bool {
        !bound.is_empty()
    }
}

impl<F: Filesystem> MountCommands<F> {
    /// If something took too long, says which requests are the slowest.
    fn name_stragglers(&self, mut failure: Failure) -> Failure {
        let session = self.session.upgrade().filter(|_| failure.errno == Code::TIMEDOUT.raw_os_error());
        let waiters = session.map(|session| session.in_flight().waiters()).unwrap_or_default();
        for waiter in waiters.iter().take(STRAGGLERS_MAX) {
            let (name, secs) = (waiter.kind.name(), waiter.since.elapsed().as_secs_f32());
            // A string takes whatever is written to it.
            let _ = write!(failure.why, "; {name} of process {} for {secs:.1} s", waiter.pid);
        }
        failure
    }

    fn status(&self, session: &Session<F>) -> Result<StatusReport, Failure> {
        let fs = &*session.adapter().fs;
        let live = fs.writer().map(|writer| &**writer.live());
        let volume = match (live, fs.volume()) {
            (Some(live), _) => {
                Some(VolumeReport::of(&live.superblock().view().superblock, &live.space().usage()))
            }
            (None, Some(volume)) => {
                let usage = volume.usage().map_err(|e| Failure::new(Code::IO, e))?;
                Some(VolumeReport::of(volume.superblock(), &usage))
            }
            (None, None) => None,
        };
        let (waiting, waiting_count) = status::waiting(&session.in_flight().waiters());
        Ok(StatusReport {
            mount: MountReport::of_this_process(live.is_none(), self.since, session.queues()),
            volume,
            lifecycle: LifecycleReport::of(session.lifecycle().status(), &self.holds),
            journal: live.map(|live| JournalReport::of(&live.journal().status())),
            engine: live.map(EngineReport::of),
            moved: live.map(MovedReport::of),
            operations: status::operations(session.stats()),
            waiting,
            waiting_count,
        })
    }
}

fn value(report: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(report).map_err(|e| Failure::new(Code::IO, e))
}

/// An answer that is nothing but its parts. Who does not listen any more is told no more of them.
fn in_parts(
    mut reports: impl Iterator<Item = impl Serialize>,
    part: &mut TakePart<'_>,
) -> Result<Value, Failure> {
    let mut said = true;
    while said && let Some(report) = reports.next() {
        said = part(value(&report)?).is_ok();
    }
    Ok(Value::Null)
}

fn usage<F: Filesystem>(fs: &F) -> Result<UsageReport, Failure> {
    if let Some(fs) = fs.writer() {
        fs.wait_for_removals(ASKING_WAIT_MAX);
        let live = fs.live();
        let view = live.superblock().view();
        return Ok(UsageReport::of(&view.superblock, &view.members, live.devices(), &live.space().usage()));
    }
    let volume = fs.volume().ok_or_else(|| Failure::new(Code::OPNOTSUPP, "it has no devices"))?;
    let usage = volume.usage().map_err(|e| Failure::new(Code::IO, e))?;
    Ok(UsageReport::of(volume.superblock(), volume.members(), volume.devices(), &usage))
}

fn writer<F: Filesystem>(fs: &F) -> Result<&WriteFs, Failure> {
    fs.writer().ok_or_else(|| Failure::new(Code::ROFS, "it is mounted read-only"))
}

/// To change subvolumes. Waits as long as the volume is frozen.
fn front<F: Filesystem>(fs: &F) -> Result<Front<'_>, Failure> {
    Ok(writer(fs)?.front(FrontKind::Subvolumes)?)
}

fn caller(peer: Peer, umask: u16) -> Caller<'static> {
    Caller { uid: peer.uid, gid: peer.gid, groups: &[], umask: umask & 0o777, privileged: peer.uid == 0 }
}

fn subvolumes<F: Filesystem>(fs: &F) -> Result<Vec<SubvolInfo>, Failure> {
    Ok(fs.subvolumes()?)
}

fn report(subvolume: &SubvolInfo) -> SubvolumeReport {
    SubvolumeReport {
        id: subvolume.id.0,
        path: Bytes(subvolume.path.clone()),
        parent: subvolume.parent.map(|id| id.0),
        is_snapshot: subvolume.is_snapshot,
        snapshot_of: subvolume.snapshot_of.map(|id| id.0),
        read_only: subvolume.read_only,
        created_ns: i64::try_from(subvolume.created.unix_ns()).unwrap_or(i64::MAX),
    }
}

fn report_of<F: Filesystem>(fs: &F, id: SubvolId) -> Result<SubvolumeReport, Failure> {
    let all = subvolumes(fs)?;
    let found = all.iter().find(|subvolume| subvolume.id == id).map(report);
    found.ok_or_else(|| Failure::new(Code::NOENT, "it was deleted meanwhile"))
}

/// The subvolume whose root is at this path.
fn subvolume_at<F: Filesystem>(fs: &F, path: &Bytes) -> Result<SubvolId, Failure> {
    let node = names(path).try_fold(NodeId::ROOT, |dir, name| fs.lookup(dir, name).map(|attr| attr.node))?;
    let is_root = subvolumes(fs)?.iter().any(|subvolume| subvolume.root == node);
    if is_root { Ok(node.subvol) } else { Err(Error::Invalid("not a subvolume").into()) }
}

/// The directory of a path, and the name in it.
fn place<'p, F: Filesystem>(fs: &F, path: &'p Bytes) -> Result<(NodeId, &'p [u8]), Failure> {
    let mut names: Vec<&[u8]> = names(path).collect();
    let Some(name) = names.pop() else {
        return Err(Failure::new(Code::BUSY, "that is the root of the volume"));
    };
    let dir = names.iter().try_fold(NodeId::ROOT, |dir, name| fs.lookup(dir, name).map(|attr| attr.node))?;
    Ok((dir, name))
}

fn names(path: &Bytes) -> impl Iterator<Item = &[u8]> {
    path.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
}

/// A name has come or gone.
fn tell_of_name<F: Filesystem>(session: &Session<F>, dir: NodeId, name: &[u8]) {
    session.notify(&Notice::Entry { dir, name });
    session.notify(&Notice::Inode(dir));
}
