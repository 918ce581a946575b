//! Mounting, serving in the foreground, unmounting.
//!
//! [`mount`] attaches, agrees with the kernel and returns; threads of the process serve until the mount is gone. [`serve`] is
//! the same for a process that does nothing else: it waits for the end, and ends at a signal. [`umount`] is called in
//! another process, and returns when the serving one has let go of the devices, so that whoever comes next finds them
//! free.
//!
//! At `SIGTERM`, `SIGINT` or `SIGHUP` the mount goes at once: properly if nobody uses it, else under its users, whose
//! requests fail from then on, as when a disk is pulled. Waiting for them could be for ever, and service managers kill what
//! does not end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use frazil_device::mounts;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Resource};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::adapter::{Adapter, SERVER_XATTR};
use crate::attach::{self, Detach, FS_TYPE, Options};
use crate::control::commands::MountCommands;
use crate::control::server::Server;
use crate::control::write_back::Traffic;
use crate::daemon::Ready;
use crate::error::Error;
use crate::filesystem::Filesystem;
use crate::remounted;
use crate::session::{Ended, Session};

/// How far the kernel reads ahead, where we may set it: by measurement, more costs caches and less costs requests.
const READAHEAD_KIB: u32 = 512;

/// Pause between looks at a process that is to let go of its devices: at first, and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_LONGEST: Duration = Duration::from_millis(50);

/// How long it is tried again to unmount what somebody uses.
const BUSY_MAX: Duration = Duration::from_millis(500);

/// How long the users of a mount that was stopped by a signal are waited for.
const END_WAIT_MAX: Duration = Duration::from_secs(2);

/// A mounted filesystem, served by threads of this process. Dropping it unmounts, under its users if there are any.
pub struct Mount {
    place: Place,
    ended: Ended,
    /// None if it cannot be controlled.
    control: Option<Server>,
    queues: Option<usize>,
}

/// Where a mount is, and which one: the directory may carry another one by the time it is unmounted.
#[derive(Clone)]
struct Place {
    dir: PathBuf,
    /// Its number in the mount table.
    number: Option<String>,
}

/// Mounts `fs` at `dir`. When this returns, the mount is usable; it is served until somebody unmounts it.
pub fn mount<F: Filesystem>(fs: Arc<F>, dir: &Path, options: &Options) -> Result<Mount, Error> {
    let adapter = Adapter::new(fs, options.accesses)?;
    let dir = attach::check_directory(dir)?;
    let device = attach::attach(&dir, options)?;
    let place = Place { number: mounts::at(&dir).map(|mount| mount.number), dir };
    match Session::start(device, adapter) {
        Ok((ended, session)) => {
            attach::raise_readahead(&place.dir, READAHEAD_KIB);
            let queues = session.upgrade().and_then(|session| {
                follow(&session, &place, options);
                session.rings_in_use().inspect(|rings| rings.keep_up(&place.dir));
                session.queues()
            });
            let control = control(&place, MountCommands::new(session));
            Ok(Mount { place, ended, control, queues })
        }
        Err(err) => {
            // The first error is the one to report.
            let _ = attach::detach(&place.dir, Detach::Now);
            Err(Error::system("serve", &place.dir, err))
        }
    }
}

/// Has the mount show that the volume died, the volume follow when the mount is made read-only, and a freeze get the pages that the kernel keeps for it.
fn follow<F: Filesystem>(session: &Session<F>, place: &Place, options: &Options) {
    let lifecycle = session.lifecycle();
    lifecycle.before_rest(attach::sync_pages(&place.dir, Traffic::of(session)));
    let (shown, about) = (AtomicBool::new(false), Arc::downgrade(lifecycle));
    let (dir, options) = (place.dir.clone(), options.clone());
    lifecycle.on_change(move || {
        if about.upgrade().is_some_and(|lifecycle| lifecycle.is_stopped())
            && !shown.swap(true, Ordering::Relaxed)
        {
            attach::show_read_only(&dir, &options);
        }
    });
    if let (Some(number), true) = (&place.number, session.is_writable()) {
        session.watch_mount(number);
        if let Err(error) = remounted::watch(number, lifecycle) {
            tracing::warn!("{} does not follow mount -o remount: {error}", place.dir.display());
        }
    }
}

/// Listens for commands. A mount without is still a mount.
fn control<F: Filesystem>(place: &Place, commands: MountCommands<F>) -> Option<Server> {
    let number = place.number.as_ref()?;
    let server = Server::start(number, commands);
    server.inspect_err(|e| tracing::warn!("{} cannot be controlled: {e}", place.dir.display())).ok()
}

impl Mount {
    /// The directory, canonical.
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// Through how many queues of io_uring requests come; `None`: through `/dev/fuse`.
    pub fn queues(&self) -> Option<usize> {
        self.queues
    }

    /// Waits until somebody has unmounted it and the filesystem has been dropped by all threads.
    pub fn wait(&self) {
        self.ended.wait();
        // Commands may still be using the filesystem.
        self.control.iter().for_each(Server::end);
    }

    /// Unmounts it and waits until the filesystem has been dropped by all threads. [`Error::Busy`] leaves it as it was.
    pub fn unmount(&self) -> Result<(), Error> {
        self.place.detach(Detach::IfIdle)?;
        self.wait();
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // If it cannot be detached, waiting for its end could be for ever.
        if self.place.stop().is_ok() {
            self.wait();
        }
    }
}

impl Place {
    /// Unmounts, if it is still there.
    fn detach(&self, how: Detach) -> Result<(), Error> {
        if mounts::at(&self.dir).map(|mount| mount.number) != self.number {
            return Ok(());
        }
        match attach::detach(&self.dir, how) {
            Err(Error::NotMounted(_)) => Ok(()),
            done => done,
        }
    }

    /// Unmounts at once: properly if nobody uses it, else under its users.
    fn stop(&self) -> Result<(), Error> {
        match self.detach(Detach::IfIdle) {
            Err(Error::Busy(_)) => self.detach(Detach::Now),
            done => done,
        }
    }
}

/// Mounts `fs` at `dir` and serves it until it is unmounted or a signal asks to end. `ready`, if this process is a
/// daemon in the making, is announced when the mount is usable. The process is expected to end after this.
pub fn serve<F: Filesystem>(
    fs: Arc<F>,
    dir: &Path,
    options: &Options,
    ready: Option<Ready>,
) -> Result<(), Error> {
    // Before the mount, so that no signal can end the process between mount and unmount.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]);
    let mut signals = signals.map_err(|err| Error::system("handle signals for", dir, err))?;
    allow_many_files();
    let mount = mount(fs, dir, options)?;
    if let Err(err) = ready.map_or(Ok(()), Ready::announce) {
        // Whoever started this is gone and will never know that the volume is mounted.
        drop(mount);
        return Err(Error::system("report the mount at", dir, err));
    }
    let (events, received) = channel();
    let (place, stopped) = (mount.place.clone(), events.clone());
    thread::spawn(move || {
        for _ in signals.forever() {
            // If it fails, another signal tries again.
            if place.stop().is_ok() && stopped.send(Event::Stopped).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        mount.wait();
        // The receiver has left if the end came too late for it.
        let _ = events.send(Event::Ended);
    });
    wait_for_end(&received);
    Ok(())
}

/// As many open files as the process may have: through io_uring each request that waits needs one.
fn allow_many_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // An error leaves it as it was, and fewer can wait.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

/// What happens to a mount that is served.
enum Event {
    /// A signal came, and the directory is free.
    Stopped,
    /// The filesystem has been dropped.
    Ended,
}

/// Waits for the end. A mount that was detached under its users may live on as long as they hold files open, if the kernel
/// does not let us break the connection; the end of the process will do that.
fn wait_for_end(events: &Receiver<Event>) {
    // Nobody sends any more only if a thread has panicked; then there is nothing to wait for either.
    if let Ok(Event::Stopped) = events.recv() {
        let deadline = Instant::now() + END_WAIT_MAX;
        while let Ok(Event::Stopped) = events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
        }
    }
}

/// Unmounts the volume at `dir`, which another process serves, and waits until that one has closed the devices, unless it is mounted elsewhere, too. Who only looks at all mounts (df)
/// uses it for as long as the answer takes, and is waited for. Returns whether that was the last mount of it.
pub fn umount(dir: &Path) -> Result<bool, Error> {
    let not_mounted = || Error::NotMounted(dir.to_path_buf());
    let canonical = dir.canonicalize().map_err(|_| not_mounted())?;
    let mount = mounts::at(&canonical).filter(|mount| mount.fs_type == FS_TYPE).ok_or_else(not_mounted)?;
    let server = server_of(&canonical);
    let deadline = Instant::now() + BUSY_MAX;
    loop {
        match attach::detach(&canonical, Detach::IfIdle) {
            Err(Error::Busy(_)) if Instant::now() < deadline => thread::sleep(PAUSE_LONGEST),
            done => break done?,
        }
    }
    // The same filesystem may be mounted elsewhere too (`mount --bind`): then it goes on.
    if mounts::numbered(&mount.number).is_some() {
        return Ok(false);
    }
    if let Some(server) = server.filter(|&pid| pid != rustix::process::getpid()) {
        wait_for_release(server, &devices_of(&mount.source));
    }
    Ok(true)
}

/// The process that serves this mount; `None` if it is dead or not ours to ask.
pub(crate) fn server_of(dir: &Path) -> Option<Pid> {
    let mut value = [0; 16];
    let len = rustix::fs::getxattr(dir, SERVER_XATTR, &mut value).ok()?;
    Pid::from_raw(std::str::from_utf8(&value[..len]).ok()?.parse().ok()?)
}

/// The files among the sources of a mount.
pub(crate) fn devices_of(source: &str) -> Vec<PathBuf> {
    source.split(':').filter_map(|part| fs::canonicalize(part).ok()).collect()
}

/// Waits until the process has ended or has none of the files open.
fn wait_for_release(server: Pid, devices: &[PathBuf]) {
    // No such process: it has ended.
    let Ok(process) = rustix::process::pidfd_open(server, PidfdFlags::empty()) else { return };
    let mut pause = PAUSE_FIRST;
    while has_open(server, devices) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let ended = rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout));
        if ended.is_ok_and(|ready| ready > 0) {
            return;
        }
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}

/// Whether the process has one of the files open; assumed if we may not look.
fn has_open(process: Pid, files: &[PathBuf]) -> bool {
    match fs::read_dir(format!("/proc/{}/fd", process.as_raw_pid())) {
        Ok(descriptors) => descriptors
            .flatten()
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| files.contains(&target)),
        Err(err) => err.kind() == std::io::ErrorKind::PermissionDenied,
    }
}
