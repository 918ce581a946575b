//! `frazil ls`: what a directory holds.
//!
//! Names go out as they are, one on a line, sorted by their bytes; on a terminal what would disturb it is escaped. Unlike ls(1)
//! nothing is hidden.

use std::io::{IsTerminal, Write};

use frazil_posix::{Attr, Error, FileType, Fs};

use super::{Out, json_line};
use crate::entry::{Entry, Wanted};
use crate::format::{Shown, minute, permissions};
use crate::open::OpenArgs;
use crate::say;
use crate::stop::{Done, Outcome, Stop};
use crate::target::{Found, Target};

/// List what a directory holds
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil ls [OPTIONS] DEV... [PATH]",
    after_help = "\
With one argument alone the path is \"/\". Subvolumes and snapshots are directories.

Examples:
  frazil ls /dev/sdb1
  frazil ls -l /dev/sdb1 /home
  frazil ls --json /dev/sdb1:/dev/sdc1 / | jq -r .path"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// With type, permissions, links, owner, group, size and time
    #[arg(short, long)]
    long: bool,
    /// The directory itself, not what it holds
    #[arg(short, long)]
    directory: bool,
    /// One JSON object per name
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    open: OpenArgs,
}

/// A name, and the object if it can be had.
struct Row {
    name: Vec<u8>,
    attr: Result<Attr, Error>,
    /// Of a symbolic link.
    target: Option<Vec<u8>>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let Found { fs, path, attr } = args.target.find(&args.open, !args.directory)?;
    let mut lost = false;
    let rows = if attr.kind == FileType::Directory && !args.directory {
        let (rows, failed) = rows_of(&fs, &attr);
        if let Some(error) = failed {
            say::error(format_args!("{}: {error}", Shown(&path)));
            lost = true;
        }
        rows
    } else {
        vec![Row { name: path, attr: Ok(attr), target: None }]
    };
    for row in &rows {
        if let Err(error) = &row.attr {
            say::error(format_args!("{}: {error}", Shown(&row.name)));
            lost = true;
        }
    }
    if args.json {
        for row in &rows {
            json_line(out, &describe(&fs, row))?;
        }
    } else {
        show(args, &fs, rows, out)?;
    }
    Ok(Done::unless(lost))
}

/// What a directory holds, sorted, and why it could not be listed to its end.
fn rows_of(fs: &Fs, dir: &Attr) -> (Vec<Row>, Option<Error>) {
    let mut found = Vec::new();
    let listed = fs.readdir(dir.node, 0, &mut |entry| {
        found.push((entry.name.to_vec(), entry.node));
        std::ops::ControlFlow::Continue(())
    });
    found.sort_unstable();
    let row = |(name, node)| Row { name, attr: fs.getattr(node), target: None };
    (found.into_iter().map(row).collect(), listed.err())
}

fn describe(fs: &Fs, row: &Row) -> Entry {
    match &row.attr {
        Ok(attr) => Entry::describe(fs, &row.name, attr, Wanted { hashes: false, holes: false }),
        Err(error) => Entry::unreadable(&row.name, error),
    }
}

fn show(args: &Args, fs: &Fs, mut rows: Vec<Row>, out: &mut Out) -> Result<(), Stop> {
    let escape = std::io::stdout().is_terminal();
    let shown = |name: &[u8]| if escape { Shown(name).to_string().into_bytes() } else { name.to_vec() };
    if !args.long {
        for row in &rows {
            out.write_all(&shown(&row.name))?;
            out.write_all(b"\n")?;
        }
        return Ok(());
    }
    for row in &mut rows {
        if let Ok(attr) = &row.attr
            && attr.kind == FileType::Symlink
        {
            row.target = fs.readlink(attr.node).ok();
        }
    }
    let cells: Vec<[String; 6]> = rows.iter().map(cells).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for (row, [perm, links, uid, gid, size, time]) in rows.iter().zip(&cells) {
        let [_, w1, w2, w3, w4, w5] = widths;
        write!(out, "{perm:10} {links:>w1$} {uid:>w2$} {gid:>w3$} {size:>w4$} {time:w5$} ")?;
        out.write_all(&shown(&row.name))?;
        if let Some(target) = &row.target {
            out.write_all(b" -> ")?;
            out.write_all(&shown(target))?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// The columns before the name.
fn cells(row: &Row) -> [String; 6] {
    let Ok(attr) = &row.attr else { return std::array::from_fn(|_| "?".to_owned()) };
    let size = match attr.kind {
        FileType::CharDevice | FileType::BlockDevice => format!("{}, {}", attr.rdev.0, attr.rdev.1),
        _ => attr.size.to_string(),
    };
    [
        permissions(attr.kind, attr.perm),
        attr.nlink.to_string(),
        attr.uid.to_string(),
        attr.gid.to_string(),
        size,
        minute(attr.mtime),
    ]
}
