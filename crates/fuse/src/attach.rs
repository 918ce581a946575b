//! Attaching `/dev/fuse` to a directory, and detaching it again.
//!
//! Root mounts by the system call. Users cannot, so for them `fusermount3`, a setuid program of the fuse3 package,
//! does it and hands over the open `/dev/fuse` through a socket; it also unmounts for them.
//!
//! The mount's type is `fuse.frazil` and its source the absolute paths of the devices with colons between: by these,
//! the mount table tells what is mounted where, and refusals of busy devices name the mount
//! ([`frazil_device::Holder`]).

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use frazil_device::mounts;
use frazil_posix::write::AccessTimes;
use frazil_volume::lifecycle::BeforeRest;
use rustix::io::{Errno as Code, FdFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use crate::access::Accesses;
use crate::control::write_back::Traffic;
use crate::error::Error;

/// Type of our mounts in the mount table.
pub(crate) const FS_TYPE: &str = "fuse.frazil";

/// How long pages of mapped files are waited for, and how often is looked whether anybody still wants them.
const SYNC_PAGES_MAX: Duration = Duration::from_secs(10);
const SYNC_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it is tried to have the mount table say that it is read-only, and the pause between.
const SHOW_MAX: Duration = Duration::from_secs(10);
const SHOW_PAUSE: Duration = Duration::from_millis(10);

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the mount table shows as mounted: the absolute paths of the devices with `:` between.
    pub source: String,
    /// Whether nothing can be changed.
    pub read_only: bool,
    /// Whether others than the mounting user may use the mount. Permissions are checked by the kernel in any case.
    pub allow_other: bool,
    /// Whether set-user-id bits have effect. Never, for mounts by users.
    pub suid: bool,
    /// Whether device nodes work. Never, for mounts by users.
    pub dev: bool,
    /// Whether programs can be run.
    pub exec: bool,
    /// Whose reading is noted, in what can be changed.
    pub accesses: Accesses,
}

impl Options {
    /// Read-only; otherwise as the kernel's own drivers are mounted: root mounts for everybody, with device nodes and set-user-id programs; a user
    /// mounts for himself, without.
    pub fn new(source: String) -> Options {
        let root = rustix::process::geteuid().is_root();
        let accesses = Accesses::default();
        Options { source, read_only: true, allow_other: root, suid: root, dev: root, exec: true, accesses }
    }

    pub(crate) fn flags(&self) -> MountFlags {
        let mut flags = match self.accesses.files {
            AccessTimes::Never => MountFlags::NOATIME,
            AccessTimes::Relative => MountFlags::RELATIME,
            AccessTimes::Always => MountFlags::STRICTATIME,
        };
        flags.set(MountFlags::NODIRATIME, !self.accesses.directories);
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, !self.suid);
        flags.set(MountFlags::NODEV, !self.dev);
        flags.set(MountFlags::NOEXEC, !self.exec);
        flags
    }
}

/// Checks that a volume can be mounted at this directory, and returns its canonical path.
pub(crate) fn check_directory(dir: &Path) -> Result<PathBuf, Error> {
    let canonical = dir.canonicalize().map_err(|err| match err.raw_os_error() {
        Some(code) if code == Code::NOENT.raw_os_error() => Error::NoDirectory(dir.to_path_buf()),
        Some(code) if code == Code::NOTDIR.raw_os_error() => Error::NotADirectory(dir.to_path_buf()),
        Some(code) if code == Code::NOTCONN.raw_os_error() => Error::DeadMount(dir.to_path_buf()),
        _ => Error::system("mount at", dir, err),
    })?;
    if let Some(mount) = mounts::at(&canonical).filter(|mount| mount.fs_type == FS_TYPE) {
        return Err(match std::fs::metadata(&canonical) {
            Err(err) if err.raw_os_error() == Some(Code::NOTCONN.raw_os_error()) => {
                Error::DeadMount(canonical)
            }
            _ => Error::AlreadyMounted { dir: canonical, source_name: mount.source },
        });
    }
    match std::fs::metadata(&canonical) {
        Ok(meta) if meta.is_dir() => Ok(canonical),
        Ok(_) => Err(Error::NotADirectory(canonical)),
        Err(err) if err.raw_os_error() == Some(Code::NOTCONN.raw_os_error()) => {
            Err(Error::DeadMount(canonical))
        }
        Err(err) => Err(Error::system("mount at", &canonical, err)),
    }
}

/// Mounts, and returns the open `/dev/fuse` on which the first request waits.
pub(crate) fn attach(dir: &Path, options: &Options) -> Result<File, Error> {
    let device = match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(device) => device,
        Err(err) => match Code::from_io_error(&err) {
            Some(Code::NOENT | Code::NODEV | Code::NXIO) => return Err(Error::NoFuse),
            Some(Code::ACCESS | Code::PERM) => return attach_by_helper(dir, options),
            _ => return Err(Error::system("open", Path::new("/dev/fuse"), err)),
        },
    };
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        uid.as_raw(),
        gid.as_raw()
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = std::ffi::CString::new(data).expect("numbers and words have no NUL");
    match rustix::mount::mount(options.source.as_str(), dir, FS_TYPE, options.flags(), Some(data.as_c_str()))
    {
        Ok(()) => Ok(device),
        Err(Code::PERM) => attach_by_helper(dir, options),
        Err(Code::NODEV) => Err(Error::NoFuse),
        Err(err) => Err(Error::system("mount at", dir, err)),
    }
}

/// Has `fusermount3` mount.
fn attach_by_helper(dir: &Path, options: &Options) -> Result<File, Error> {
    let failed = |err: io::Error| Error::system("mount at", dir, err);
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|err| failed(err.into()))?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).map_err(|err| failed(err.into()))?;
    let mut helper = Command::new("fusermount3")
        .arg("-o")
        .arg(helper_options(options))
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(
            |err| if err.kind() == io::ErrorKind::NotFound { Error::NotPermitted } else { failed(err) },
        )?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    let mut said = String::new();
    if let Some(mut stderr) = helper.stderr.take() {
        // What cannot be read is not said.
        let _ = stderr.read_to_string(&mut said);
    }
    let status = helper.wait().map_err(failed)?;
    match received {
        Ok(Some(device)) if status.success() => Ok(device.into()),
        Err(err) if status.success() => Err(failed(err)),
        _ => Err(Error::Helper(one_line(&said).unwrap_or_else(|| format!("fusermount3 failed: {status}")))),
    }
}

/// The options for `fusermount3`, in which commas and backslashes of the source are escaped.
fn helper_options(options: &Options) -> String {
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let access = if options.read_only { "ro" } else { "rw" };
    let times = match options.accesses.files {
        AccessTimes::Never => "noatime",
        AccessTimes::Relative => "relatime",
        AccessTimes::Always => "strictatime",
    };
    let mut text =
        format!("{access},{times},nosuid,nodev,default_permissions,subtype=frazil,fsname={source}");
    if !options.exec {
        text.push_str(",noexec");
    }
    if options.allow_other {
        text.push_str(",allow_other");
    }
    text
}

/// The last line that says something.
fn one_line(text: &str) -> Option<String> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

/// The descriptor that comes with the next byte; `None` if the other side closed without sending one.
fn receive_descriptor(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

/// How hard to detach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detach {
    /// Only if nobody uses it.
    IfIdle,
    /// Also under its users, whose requests then fail.
    Now,
}

/// Unmounts.
pub(crate) fn detach(dir: &Path, how: Detach) -> Result<(), Error> {
    let flags = match how {
        Detach::IfIdle => UnmountFlags::NOFOLLOW,
        Detach::Now => UnmountFlags::NOFOLLOW | UnmountFlags::FORCE | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(Code::BUSY) => Err(Error::Busy(dir.to_path_buf())),
        Err(Code::PERM) => detach_by_helper(dir, how),
        Err(Code::INVAL | Code::NOENT) => Err(Error::NotMounted(dir.to_path_buf())),
        Err(err) => Err(Error::system("unmount", dir, err)),
    }
}

/// Has `fusermount3` unmount; for [`Detach::Now`] also breaks the connection, which the helper does not.
fn detach_by_helper(dir: &Path, how: Detach) -> Result<(), Error> {
    if how == Detach::Now {
        break_connection(dir);
    }
    let lazily = if how == Detach::Now { "-uz" } else { "-u" };
    let output =
        Command::new("fusermount3").arg(lazily).arg("--").arg(dir).stdin(Stdio::null()).output().map_err(
            |err| match err.kind() {
                io::ErrorKind::NotFound => Error::NotPermitted,
                _ => Error::system("unmount", dir, err),
            },
        )?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") {
        return Err(Error::Busy(dir.to_path_buf()));
    }
    Err(Error::Helper(one_line(&said).unwrap_or_else(|| format!("fusermount3 failed: {}", output.status))))
}

/// Aborts all requests by the control file that the kernel gives to the user who mounted. A best effort: without it
/// the mount stays until its users are gone.
fn break_connection(dir: &Path) {
    if let Some(minor) = mounts::at(dir).and_then(|mount| Some(mount.number.split_once(':')?.1.to_owned())) {
        let _ = std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
    }
}

/// Lets the kernel read as far ahead as a request can carry, where we may: its own limit, 128 KiB, cuts a sequential read into
/// pieces that cost more than the reading.
pub(crate) fn raise_readahead(dir: &Path, kib: u32) {
    if let Some(mount) = mounts::at(dir) {
        // A user may not; his reads are only slower.
        let _ = std::fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", mount.number), kib.to_string());
    }
}

/// How pages of mapped files are written that the kernel keeps: as anybody would, by opening the directory and asking for it. The thread that asks may hang
/// (a page may be locked by a write that waits for the thaw), so it is left behind after a while; what it did not get to is as if it had
/// been changed after the freeze.
pub(crate) fn sync_pages(dir: &Path, traffic: Traffic) -> BeforeRest {
    let dir = dir.to_path_buf();
    Arc::new(move |wanted| {
        let (done, finished) = channel();
        let (dir, traffic) = (dir.clone(), traffic.clone());
        let started = thread::Builder::new().name("frazil-sync".into()).spawn(move || {
            // An error of what is written is told to who made it dirty.
            match on_mount("sync", &dir) {
                Ok(_) => traffic.settle(|| on_mount("stat", &dir).is_ok_and(|done| done), SYNC_PAGES_MAX),
                Err(error) => {
                    tracing::warn!("pages of mapped files are not written before the freeze: {error}")
                }
            }
            // Nobody waits any more if it took too long.
            let _ = done.send(());
        });
        let deadline = Instant::now() + SYNC_PAGES_MAX;
        while started.is_ok()
            && finished.recv_timeout(SYNC_LOOK_EVERY) == Err(RecvTimeoutError::Timeout)
            && wanted()
        {
            if Instant::now() >= deadline {
                return tracing::warn!(
                    "pages of mapped files are not all written; the volume is frozen without them"
                );
            }
        }
    })
}

/// Runs `sync -f DIR` (`syncfs`) or `stat -f DIR` (a request that is never answered from a cache). These are processes of their own, because a thread of the
/// serving process that waits for the mount could not be killed with it: it would keep the connection open that it waits for.
fn on_mount(program: &str, dir: &Path) -> io::Result<bool> {
    command_on_mount(program, dir).status().map(|status| status.success())
}

/// `PROGRAM -f DIR`, which says nothing.
pub(crate) fn command_on_mount(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-f").arg(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Has the mount table say that it is read-only, if we may: the kernel does not know that a volume died. Does not wait.
pub(crate) fn show_read_only(dir: &Path, options: &Options) {
    let dir = dir.to_path_buf();
    let flags = MountFlags::BIND | Options { read_only: true, ..options.clone() }.flags();
    let started = thread::Builder::new().name("frazil-remount".into()).spawn(move || {
        let deadline = Instant::now() + SHOW_MAX;
        loop {
            match rustix::mount::mount_remount(&dir, flags, c"") {
                // Somebody who was just refused has not gone yet.
                Err(Code::BUSY) if Instant::now() < deadline => thread::sleep(SHOW_PAUSE),
                Err(error) => {
                    return tracing::debug!("{} cannot be shown as what it is: {error}", dir.display());
                }
                Ok(()) => return,
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!("no thread: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_escaped_for_the_helper() {
        let mut options = Options::new("/dev/a,b:/x\\y".into());
        options.allow_other = false;
        assert_eq!(
            helper_options(&options),
            "ro,noatime,nosuid,nodev,default_permissions,subtype=frazil,fsname=/dev/a\\,b:/x\\\\y"
        );
    }

    #[test]
    fn directories_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(check_directory(dir.path()).unwrap(), dir.path().canonicalize().unwrap());
        assert!(matches!(check_directory(&file), Err(Error::NotADirectory(_))));
        assert!(matches!(check_directory(&file.join("x")), Err(Error::NotADirectory(_))));
        assert!(matches!(check_directory(&dir.path().join("x")), Err(Error::NoDirectory(_))));
    }

    #[test]
    fn a_directory_that_is_not_mounted_cannot_be_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        for how in [Detach::IfIdle, Detach::Now] {
            assert!(matches!(detach(dir.path(), how), Err(Error::NotMounted(_))));
        }
    }
}
