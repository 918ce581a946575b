//! The commands, one file each.

pub(crate) mod cat;
pub(crate) mod completions;
pub(crate) mod export;
pub(crate) mod format;
pub(crate) mod freeze;
pub(crate) mod fsck;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod list_journal;
pub(crate) mod ls;
pub(crate) mod mount;
pub(crate) mod quota;
pub(crate) mod show_super;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod subvolume;
pub(crate) mod sync;
pub(crate) mod top;
pub(crate) mod tree;
pub(crate) mod usage;

use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use crate::cli::Command;
use crate::stop::{Outcome, Stop};

/// Where results go.
pub(crate) type Out = BufWriter<Stdout>;

/// Bytes collected before they are written.
const OUT_BYTES: usize = 64 << 10;

/// Runs a command.
pub(crate) fn run(command: Command) -> Outcome {
    let mut out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
    let done = match command {
        Command::Format(args) => format::run(&args, &mut out),
        Command::Mount(args) => mount::run(&args),
        Command::Umount(args) => mount::umount(&args),
        Command::Import(args) => import::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Freeze(args) => freeze::freeze(&args, &mut out),
        Command::Thaw(args) => freeze::thaw(&args),
        Command::Shutdown(args) => freeze::shutdown(&args),
        Command::Status(args) => status::run(&args, &mut out),
        Command::Top(args) => top::run(&args, &mut out),
        Command::Usage(args) => usage::run(&args, &mut out),
        Command::Quota(args) => quota::run(&args, &mut out),
        Command::Subvolume(args) => subvolume::run(&args, &mut out),
        Command::Fsck(args) => fsck::run(&args, &mut out),
        Command::ShowSuper(args) => show_super::run(&args, &mut out),
        Command::List(args) => list::run(&args, &mut out),
        Command::ListJournal(args) => list_journal::run(&args, &mut out),
        Command::Ls(args) => ls::run(&args, &mut out),
        Command::Cat(args) => cat::run(&args, &mut out),
        Command::Stat(args) => stat::run(&args, &mut out),
        Command::Tree(args) => tree::run(&args, &mut out),
        Command::Export(args) => export::run(&args, &mut out),
        Command::Completions(args) => completions::run(&args, &mut out),
    };
    // What was found before a failure is worth having.
    let flushed = out.flush();
    // Anything left in the buffer could not be written, and must not be tried again when it is dropped.
    let _ = out.into_parts();
    match (done, flushed) {
        (Err(stop), _) => Err(stop),
        (Ok(_), Err(error)) => Err(error.into()),
        (Ok(done), Ok(())) => Ok(done),
    }
}

/// Writes one JSON object on a line of its own.
pub(crate) fn json_line(out: &mut Out, value: &impl Serialize) -> Result<(), Stop> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
