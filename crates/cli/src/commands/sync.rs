//! `frazil sync`: makes everything durable that was done to a mounted volume.
//!
//! The system's `sync` and `syncfs` do not reach the process that serves the mount (spec 70 §10.5): they write what is dirty in the kernel and
//! go no further. This does both.

use std::path::PathBuf;

use frazil_fuse::control::Request;

use crate::live::{Live, WRITE_BACK_MAX};
use crate::stop::{Done, Outcome};

/// Make everything durable that was done to a mounted volume
#[derive(clap::Args, Debug)]
#[command(after_help = "\
sync(1) does not reach a volume that is mounted through FUSE; use this, or fsync of the files that matter. It returns when everything
that was finished before is on stable storage. A frozen volume is durable already, and stays frozen.

Exit codes: 0 done; 1 it could not be done; 2 wrong usage

Example: frazil sync /mnt")]
pub(crate) struct Args {
    /// Where it is mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut live = Live::at(&args.dir)?;
    live.write_back(WRITE_BACK_MAX)?;
    live.ask::<()>(&Request::Sync)?;
    Ok(Done::All)
}
