//! `frazil cat`: the content of a file.

use std::io::Write;

use frazil_posix::Error;

use super::Out;
use crate::format::Shown;
use crate::open::OpenArgs;
use crate::stop::{Done, Outcome, Stop};
use crate::target::{Found, Target, read_all};

/// Print the content of a file
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil cat [OPTIONS] DEV... PATH",
    after_help = "\
Ends with an error at the first byte that cannot be read.

Examples:
  frazil cat /dev/sdb1 /etc/fstab
  frazil cat /dev/sdb1:/dev/sdc1 /var/backup.tar | tar t"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    open: OpenArgs,
}

/// What ends the copying.
enum Ended {
    Read(Error),
    Write(Stop),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Read(error)
    }
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    if !args.target.has_path() {
        return Err(Stop::Usage(
            "the path of a file inside the volume is missing; see: frazil cat --help".into(),
        ));
    }
    let Found { fs, path, attr } = args.target.find(&args.open, true)?;
    let copied = read_all(&fs, attr.node, |piece| out.write_all(piece).map_err(|e| Ended::Write(e.into())));
    match copied {
        Ok(()) => Ok(Done::All),
        Err(Ended::Write(stop)) => Err(stop),
        Err(Ended::Read(error)) => Err(Stop::Failed(format!("{}: {error}", Shown(&path)))),
    }
}
