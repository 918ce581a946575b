//! How a command ends.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::say;

/// What a command that ran to its end has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Done {
    /// Everything asked for was done.
    All,
    /// Some things could not be read; each was reported, and is missing from the result.
    Partly,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It cannot be done; one line that says what to do next.
    Failed(String),
    /// It was asked for in a wrong way; one line.
    Usage(String),
    /// Whoever read our output has gone.
    NobodyReads,
    /// Everything was said elsewhere; end with this code.
    Code(u8),
}

/// What a command returns.
pub(crate) type Outcome = Result<Done, Stop>;

/// Exit code: it could not be done.
pub(crate) const FAILED: u8 = 1;
/// Exit code: wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Exit code: done, but parts could not be read.
pub(crate) const PARTLY: u8 = 3;

/// The text of the help about exit codes.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 all done; 1 it could not be done; 2 wrong usage; 3 done, but parts could not be read and are missing";

impl Done {
    /// Partly, if anything was `lost`.
    pub(crate) fn unless(lost: bool) -> Done {
        if lost { Done::Partly } else { Done::All }
    }
}

impl Stop {
    /// It cannot be done, for this reason.
    pub(crate) fn failed(why: impl Display) -> Stop {
        Stop::Failed(why.to_string())
    }
}

impl From<io::Error> for Stop {
    /// Only writing to standard output fails in this form.
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::NobodyReads,
            _ => Stop::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

/// Says why a command ended early, and turns the outcome into an exit code.
pub(crate) fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Done::All) | Err(Stop::NobodyReads) => ExitCode::SUCCESS,
        Ok(Done::Partly) => ExitCode::from(PARTLY),
        Err(Stop::Code(code)) => ExitCode::from(code),
        Err(Stop::Failed(why)) => {
            say::error(why);
            ExitCode::from(FAILED)
        }
        Err(Stop::Usage(why)) => {
            say::error(why);
            ExitCode::from(USAGE)
        }
    }
}
