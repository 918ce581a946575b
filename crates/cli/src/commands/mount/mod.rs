//! `frazil mount`: a volume as a directory of this machine, and `frazil umount`.
//!
//! The command returns when the mount is usable, and a process in the background serves it until it is unmounted; how
//! that is done is told in [`frazil_fuse::daemon`]. Its messages go to the system log, and to a file with `-o log=FILE`; until the
//! mount is usable also to the terminal.

pub(crate) mod helper;
mod options;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_device::mounts;
use frazil_fuse::Writable;
use frazil_fuse::control::{Request, StatusReport};
use frazil_fuse::daemon::{self, Ready, Role};
use frazil_posix::Fs;
use frazil_volume::open::read_superblock;

use self::options::{HELP, MountOptions};
use crate::live::Live;
use crate::open::{peek, split_devices};
use crate::say;
use crate::stop::{Done, FAILED, Outcome, Stop};

/// Mount a volume
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil mount [OPTIONS] DEV[:DEV...] DIR",
    after_help = format!("{HELP}\n
In /etc/fstab, with a link from /sbin/mount.frazil to this program:
  /dev/sdb1:/dev/sdc1  /mnt/data  frazil  ro,nofail  0 0

Examples:
  frazil mount -o rw /dev/sdb1 /mnt
  frazil mount -o ro,degraded,passphrase_file=/root/key /dev/sdb1:/dev/sdc1 /mnt")
)]
pub(crate) struct Args {
    /// The devices or image files of the volume, one by one or joined by ":"; then, as the last argument, the directory
    #[arg(value_name = "DEV... DIR", required = true, num_args = 2..)]
    arguments: Vec<OsString>,
    /// Mount options, with commas between; see below
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,
    /// Stay in the foreground, with messages on standard error
    #[arg(short, long)]
    foreground: bool,
}

/// Unmount a volume; returns when its devices are closed
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: frazil umount /mnt")]
pub(crate) struct UmountArgs {
    /// Where it is mounted
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let options = MountOptions::parse(args.options.iter().map(String::as_str), false)?;
    match args.arguments.split_last() {
        Some((dir, devices)) => mount(devices, Path::new(dir), options, args.foreground),
        None => Err(Stop::Usage("device and directory are missing; see: frazil mount --help".into())),
    }
}

pub(crate) fn umount(args: &UmountArgs) -> Outcome {
    let mut failed = None;
    for dir in &args.dirs {
        if let Err(why) = umount_one(dir)
            && let Some(Stop::Failed(before)) = failed.replace(why)
        {
            say::error(before);
        }
    }
    failed.map_or(Ok(Done::All), Err)
}

/// Unmounts; an error also if the volume was changed and could not be marked clean. Of one that was stopped before, on purpose or by an error,
/// that is known: unmounting it is no failure, as with the kernel's own filesystems.
fn umount_one(dir: &Path) -> Result<(), Stop> {
    let mounted = dir.canonicalize().ok().and_then(|dir| mounts::at(&dir)).filter(|mount| !mount.read_only);
    let mounted = mounted.filter(|_| !was_stopped(dir));
    let ended = frazil_fuse::umount(dir).map_err(Stop::failed)?;
    let Some(mounted) = mounted.filter(|_| ended) else { return Ok(()) };
    for device in split_devices(&[mounted.source.into()]) {
        // What cannot be looked at any more was pulled out, and that is not what was asked for.
        let clean = peek(&device).map(|file| read_superblock(&file).is_ok_and(|sb| sb.flags.clean()));
        if clean.is_ok_and(|clean| !clean) {
            let (dir, device) = (dir.display(), device.display());
            return Err(Stop::Failed(format!(
                "{dir} is unmounted, but {device} was not marked clean (the system log says why); it recovers at its next mount"
            )));
        }
    }
    Ok(())
}

/// Whether nothing was written to the volume any more.
fn was_stopped(dir: &Path) -> bool {
    let status = Live::at(dir).and_then(|mut live| live.ask::<StatusReport>(&Request::Status));
    // Who cannot be asked is unmounted all the same, and looked at.
    status.is_ok_and(|status| status.lifecycle.read_only && status.lifecycle.error.is_some())
}

/// Mounts, and returns when the mount is usable; in the process that serves it, or in the foreground, when it is gone.
fn mount(devices: &[OsString], dir: &Path, options: MountOptions, foreground: bool) -> Outcome {
    if let Err(error) = std::fs::metadata(dir)
        && error.kind() == io::ErrorKind::NotFound
    {
        // Before a passphrase is asked for.
        return Err(Stop::failed(frazil_fuse::Error::NoDirectory(dir.to_path_buf())));
    }
    if options.remount {
        let fuse = fuse_options(&options, String::new());
        return frazil_fuse::remount(dir, &fuse).map(|()| Done::All).map_err(Stop::failed);
    }
    let ready = if foreground {
        None
    } else {
        match daemon::detach().map_err(|e| Stop::Failed(format!("cannot start the serving process: {e}")))? {
            Role::Starter { exit_code: 0, error: None } => return Ok(Done::All),
            Role::Starter { exit_code, error } => {
                error.into_iter().for_each(say::error);
                return Err(Stop::Code(exit_code));
            }
            Role::Server(ready) => Some(ready),
        }
    };
    if let Some(file) = &options.log {
        say::log_to_file(file).map_err(|e| Stop::Failed(format!("cannot log to {}: {e}", file.display())))?;
    }
    if !foreground {
        say::log_to_system();
    }
    let paths = split_devices(devices);
    let fuse = fuse_options(&options, source(&paths));
    if options.read_write == Some(true) {
        return serve_writable(&options, &paths, dir, &fuse, ready);
    }
    let volume = options.open.volume(&paths)?;
    if options.read_write.is_none() {
        say::note("it is mounted read-only; to change it, mount with -o rw (-o ro says that this is meant)");
    }
    frazil_fuse::serve(Arc::new(Fs::new(Arc::new(volume))), dir, &fuse, ready).map_err(Stop::failed)?;
    Ok(Done::All)
}

/// Serves a volume that can be changed until the mount is gone, and marks it clean.
fn serve_writable(
    options: &MountOptions,
    paths: &[PathBuf],
    dir: &Path,
    fuse: &frazil_fuse::Options,
    ready: Option<Ready>,
) -> Outcome {
    let writable = Writable::new(options.open.live(paths)?).map_err(Stop::Failed)?;
    let served = frazil_fuse::serve(Arc::clone(writable.fs()), dir, fuse, ready);
    let stopped = writable.stop();
    served.map_err(Stop::failed)?;
    stopped.map(|()| Done::All).map_err(|why| {
        let why = format!("the volume was not marked clean, and recovers at its next start: {why}");
        tracing::error!("{why}");
        Stop::Code(FAILED)
    })
}

fn fuse_options(options: &MountOptions, source: String) -> frazil_fuse::Options {
    let mut fuse = frazil_fuse::Options::new(source);
    fuse.read_only = options.read_write != Some(true);
    for (field, given) in [
        (&mut fuse.allow_other, options.allow_other),
        (&mut fuse.suid, options.suid),
        (&mut fuse.dev, options.dev),
        (&mut fuse.exec, options.exec),
    ] {
        *field = given.unwrap_or(*field);
    }
    fuse.accesses = options.accesses();
    fuse
}

/// What the mount table shows: absolute paths with colons between.
fn source(devices: &[PathBuf]) -> String {
    let absolute =
        |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned();
    devices.iter().map(absolute).collect::<Vec<_>>().join(":")
}
