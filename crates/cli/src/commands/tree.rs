//! `frazil tree`: everything below a directory.
//!
//! As text an indented list of names. As JSON an object per path with everything that is known about it, hashes of the contents
//! included: two volumes hold the same if these lines are the same. Paths are relative to where the tree begins, which is `.`.

use std::io::Write;

use frazil_posix::{Attr, FileType, Fs, Visit, WalkStep};

use super::{Out, json_line};
use crate::entry::{Entry, Wanted};
use crate::format::{Shown, Size};
use crate::open::OpenArgs;
use crate::say;
use crate::stop::{Done, Outcome, Stop};
use crate::target::{Found, Target};

/// Show everything below a directory
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil tree [OPTIONS] DEV... [PATH]",
    after_help = "\
JSON fields: path (path_b64 if it is not UTF-8), type (reg dir lnk fifo sock chr blk), mode (octal), uid, gid, size, nlink, ino,
subvolume, blocks (of 512 bytes), mtime_ns, ctime_ns, atime_ns, btime_ns, rdev, target, xattrs (values in base64), bcachefs_opts,
flags, projid, sha256 (over 64 MiB: data_sha256, of the bytes outside the holes), holes, error.

Examples:
  frazil tree /dev/sdb1 /home
  frazil tree --json disk.img | jq -r 'select(.type == \"reg\") | .sha256 + \"  \" + .path'"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// One JSON object per path
    #[arg(long)]
    json: bool,
    /// Do not hash the contents of files
    #[arg(long, requires = "json")]
    no_hash: bool,
    /// Also where files have holes
    #[arg(long, requires = "json")]
    holes: bool,
    /// Only so many levels below the top
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let Found { fs, path: top, attr } = args.target.find(&args.open, true)?;
    let mut lost = false;
    let mut stop = None;
    fs.walk(attr.node, &mut |path, visit| {
        let depth = depth(path);
        let object = match visit {
            Visit::Object(attr) => Ok(attr),
            Visit::Unreadable(error) => Err((error, true)),
            Visit::Unlistable(error) => Err((error, false)),
        };
        if let Err((error, _)) = &object {
            say::error(format_args!("{}: {error}", Shown(&joined(&top, path))));
            lost = true;
        }
        let written = match &object {
            Ok(attr) if args.json => {
                let wanted = Wanted { hashes: !args.no_hash, holes: args.holes };
                let entry = Entry::describe(&fs, shown_path(path), attr, wanted);
                if let Some(error) = entry.error() {
                    say::error(format_args!("{}: {error}", Shown(&joined(&top, path))));
                    lost = true;
                }
                json_line(out, &entry)
            }
            Err((error, true)) if args.json => json_line(out, &Entry::unreadable(shown_path(path), error)),
            Ok(attr) => show(&fs, &top, path, depth, attr, out),
            Err(_) => Ok(()),
        };
        match written {
            Err(why) => {
                stop = Some(why);
                WalkStep::Stop
            }
            Ok(()) if args.depth.is_some_and(|most| depth >= most) => WalkStep::SkipDirectory,
            Ok(()) => WalkStep::Continue,
        }
    });
    match stop {
        Some(stop) => Err(stop),
        None => Ok(Done::unless(lost)),
    }
}

/// Levels below the top.
fn depth(path: &[u8]) -> usize {
    if path.is_empty() { 0 } else { 1 + path.iter().filter(|&&byte| byte == b'/').count() }
}

/// The top has a name too.
fn shown_path(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

/// A path within the volume.
pub(crate) fn joined(top: &[u8], path: &[u8]) -> Vec<u8> {
    match (top.ends_with(b"/"), path.is_empty()) {
        (_, true) => top.to_vec(),
        (true, false) => [top, path].concat(),
        (false, false) => [top, b"/", path].concat(),
    }
}

fn show(fs: &Fs, top: &[u8], path: &[u8], depth: usize, attr: &Attr, out: &mut Out) -> Result<(), Stop> {
    let name = if path.is_empty() { top } else { path.rsplit(|&byte| byte == b'/').next().unwrap_or(path) };
    write!(out, "{:1$}{2}", "", 2 * depth, Shown(name))?;
    match attr.kind {
        FileType::Directory if name.ends_with(b"/") => writeln!(out)?,
        FileType::Directory => writeln!(out, "/")?,
        FileType::Symlink => match fs.readlink(attr.node) {
            Ok(target) => writeln!(out, " -> {}", Shown(&target))?,
            Err(_) => writeln!(out, " -> ?")?,
        },
        FileType::Regular => writeln!(out, "  {}", Size(attr.size))?,
        FileType::Fifo => writeln!(out, "  (named pipe)")?,
        FileType::Socket => writeln!(out, "  (socket)")?,
        FileType::CharDevice => writeln!(out, "  (character device {}, {})", attr.rdev.0, attr.rdev.1)?,
        FileType::BlockDevice => writeln!(out, "  (block device {}, {})", attr.rdev.0, attr.rdev.1)?,
    }
    Ok(())
}
