//! `frazil completions`: what shells need to complete our command line.

use clap_complete::Shell;

use super::Out;
use crate::stop::{Done, Outcome};

/// Print completions for a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: frazil completions bash > /etc/bash_completion.d/frazil")]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    // The generator panics when it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::description(), "frazil", &mut script);
    std::io::Write::write_all(out, &script)?;
    Ok(Done::All)
}
