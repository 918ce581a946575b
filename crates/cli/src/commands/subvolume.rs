//! `frazil subvolume`: making, deleting and listing subvolumes of a mounted volume.
//!
//! The kernel follows the paths and says whether the caller may write to the directory; then the process that serves the mount is asked
//! through its control channel, since FUSE has no request for it.

use std::io::Write;
use std::path::{Path, PathBuf};

use frazil_fuse::control::{Inside, Request, SubvolumeReport, locate_inside};
use frazil_posix::Timestamp;
use rustix::fs::{Access, AtFlags, CWD, Mode};

use super::{Out, json_line};
use crate::format::{Shown, minute};
use crate::live::{Live, WRITE_BACK_MAX};
use crate::say;
use crate::stop::{Done, Outcome, Stop};

/// Make, delete and list subvolumes and snapshots of a mounted volume
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 done; 1 it could not be done (of several, at least one); 2 wrong usage

Examples:
  frazil subvolume create /mnt/home
  frazil subvolume snapshot -r /mnt/home /mnt/home-monday
  frazil subvolume list /mnt
  frazil subvolume delete /mnt/home-monday")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Make an empty subvolume, owned by who asks
    #[command(after_help = "Example: frazil subvolume create /mnt/home")]
    Create {
        /// Where it is to be
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
    /// Delete subvolumes with everything in them
    #[command(after_help = "\
The name goes at once, and what is in it is removed in the background. A subvolume that contains others is not deleted.

Example: frazil subvolume delete /mnt/home-monday")]
    Delete {
        /// Where it is
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
    /// Make a snapshot of a subvolume: what is in it now, sharing all space until either changes
    #[command(after_help = "\
What was written before it began is in it, also by programs that map files, and each operation is in it whole or not at all.

Examples:
  frazil subvolume snapshot /mnt/home /mnt/home-copy
  frazil subvolume snapshot -r /mnt /mnt/monday")]
    Snapshot {
        /// The snapshot cannot be changed
        #[arg(short, long)]
        read_only: bool,
        /// The root of the subvolume; that of the volume is one
        source: PathBuf,
        /// Where the snapshot is to be, in the same volume
        path: PathBuf,
    },
    /// List all subvolumes of a volume
    #[command(after_help = "\
Columns: id, when it was made, `ro` if it cannot be changed, the id of what it is a snapshot of, path in the volume.

JSON fields: id, path (an array of bytes if it is not UTF-8), parent, is_snapshot, snapshot_of, read_only, created_ns.

Example: frazil subvolume list --json /mnt | jq -r .path")]
    List {
        /// A directory in the volume
        dir: PathBuf,
        /// One JSON object for each
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    match &args.what {
        What::Create { paths } => each(paths, create),
        What::Delete { paths } => each(paths, delete),
        What::Snapshot { read_only, source, path } => snapshot(source, path, *read_only),
        What::List { dir, json } => list(dir, *json, out),
    }
}

/// Does it to all, and fails if one failed.
fn each(paths: &[PathBuf], of_one: fn(&Path) -> Result<(), Stop>) -> Outcome {
    let mut failed = None;
    for path in paths {
        if let Err(why) = of_one(path)
            && let Some(Stop::Failed(before)) = failed.replace(why)
        {
            say::error(before);
        }
    }
    failed.map_or(Ok(Done::All), Err)
}

fn create(path: &Path) -> Result<(), Stop> {
    let inside = writable(path)?;
    let umask = rustix::process::umask(Mode::empty());
    // There are no other threads that could meanwhile make files with it.
    rustix::process::umask(umask);
    let request = Request::CreateSubvolume { path: inside.path, umask: (umask.bits() & 0o777) as u16 };
    Live::of(inside.mount)?.ask_about::<SubvolumeReport>(path, &request)?;
    Ok(())
}

fn delete(path: &Path) -> Result<(), Stop> {
    let inside = writable(path)?;
    Live::of(inside.mount)?.ask_about::<()>(path, &Request::DeleteSubvolume { path: inside.path })
}

fn snapshot(source: &Path, path: &Path, read_only: bool) -> Outcome {
    let from = locate_inside(source, true).map_err(Stop::failed)?;
    let inside = writable(path)?;
    if from.mount.number != inside.mount.number {
        let (source, path) = (source.display(), path.display());
        return Err(Stop::Failed(format!("{source} and {path} are not in the same volume")));
    }
    let mut live = Live::of(inside.mount)?;
    live.write_back(WRITE_BACK_MAX)?;
    let request = Request::Snapshot { source: from.path, path: inside.path, read_only };
    live.ask_about::<SubvolumeReport>(path, &request)?;
    Ok(Done::All)
}

/// Where a name is to come or go, if the caller may do that.
fn writable(path: &Path) -> Result<Inside, Stop> {
    let inside = locate_inside(path, false).map_err(Stop::failed)?;
    let asked = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, &inside.dir, asked, AtFlags::EACCESS) {
        Err(rustix::io::Errno::ACCESS) if inside.dir.is_dir() => {
            let dir = inside.dir.display();
            Err(Stop::Failed(format!("{}: not permitted to write to {dir}", path.display())))
        }
        // What else is wrong the volume will say.
        _ => Ok(inside),
    }
}

fn list(dir: &Path, json: bool, out: &mut Out) -> Outcome {
    let mount = locate_inside(dir, true).map_err(Stop::failed)?.mount;
    let mut written = Ok(());
    Live::of(mount)?.ask_in_parts(&Request::Subvolumes, |subvolume: SubvolumeReport| {
        if written.is_ok() {
            written = if json { json_line(out, &subvolume) } else { show(&subvolume, out) };
        }
    })?;
    written?;
    Ok(Done::All)
}

fn show(subvolume: &SubvolumeReport, out: &mut Out) -> Result<(), Stop> {
    let created = minute(Timestamp::from_unix_ns(subvolume.created_ns.into()));
    let access = if subvolume.read_only { "ro" } else { "rw" };
    let of = match (subvolume.is_snapshot, subvolume.snapshot_of) {
        (true, Some(id)) => format!("of {id}"),
        (true, None) => "of ?".to_owned(),
        (false, _) => String::new(),
    };
    writeln!(out, "{:>6}  {created}  {access}  {of:8}{}", subvolume.id, Shown(&subvolume.path.0))?;
    Ok(())
}
