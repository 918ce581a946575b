//! `frazil`: the command.
//!
//! A command is a file in `commands/`: what it takes from the command line (a struct that is also its help text), and what it
//! does with it. All of them work alike:
//!
//! ```text
//!  arguments ─cli─► one command ─open─► devices, passphrase, volume ─► results on standard output
//!                                              │
//!                                              └─► notes, warnings, errors: one line each on standard error
//! ```
//!
//! * **Standard output carries results and nothing else**, through one buffered writer. When its reader goes away
//!   (`frazil cat … | head`) the command ends quietly and successfully.
//! * **An error is one line** that begins with `error:` and says what to do next ([`say`]).
//! * **The exit code** tells a script how it went ([`stop`]): 0 all done, 1 it could not be done, 2 wrong usage, 3 done, but
//!   parts could not be read and are missing from the result.
//! * **Nothing panics**, whatever the arguments and whatever bytes the devices hold: what can fail returns an error.
//!
//! | to find | look in |
//! |---|---|
//! | the list of commands, help texts, how wrong usage is reported | `cli.rs` |
//! | which arguments are devices, options for opening, the passphrase | `open.rs` |
//! | `DEV… PATH`, and how the path is followed | `target.rs` |
//! | a directory or an archive to be copied into a volume; progress | `source.rs` |
//! | the process that serves a mount: finding it, asking it | `live.rs` |
//! | a file as JSON | `entry.rs` |
//! | how sizes, times and names are printed | `format.rs` |
//! | what a listing knows beside the key | `context.rs` |
//! | what mount(8) and umount(8) call, as for a line of `/etc/fstab` | `commands/mount/helper.rs` |

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod context;
mod entry;
mod format;
mod live;
mod open;
mod say;
mod source;
mod stop;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use cli::Command;
use commands::mount::helper;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if helper::is_called_by_umount(&arguments) {
        return match helper::parse(arguments) {
            Ok(called) => stop::exit_code(helper::umount(called)),
            Err(code) => ExitCode::from(code),
        };
    }
    if helper::is_called_by_mount(&arguments) {
        return match helper::parse::<helper::Helper>(arguments) {
            Ok(called) => {
                say::start_log(called.verbose, true);
                stop::exit_code(helper::run(called))
            }
            Err(code) => ExitCode::from(code),
        };
    }
    match cli::parse(arguments) {
        Ok(cli) => {
            // A mount has nobody to report errors to but the log.
            say::start_log(cli.verbose, matches!(cli.command, Command::Mount(_)));
            stop::exit_code(commands::run(cli.command))
        }
        Err(code) => code,
    }
}
