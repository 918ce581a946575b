//! `frazil freeze`, `thaw` and `shutdown`: bringing a mounted volume to rest, and stopping it (spec 70 §7, §10.6).
//!
//! While a command runs (`--hold`) the freeze belongs to the connection, so however this program ends, the volume is thawed. Signals
//! that ask it to end thaw first, and are handed on to the command.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use clap::ValueEnum;
use frazil_fuse::control::{CallError, HoldReport, Request, ShutdownMode, StatusReport};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Out;
use crate::format::parse_seconds;
use crate::live::Live;
use crate::say;
use crate::stop::{Done, Outcome, Stop};

/// What the exit codes of these commands mean, for their help.
const EXIT_CODES: &str = "\
Exit codes: 0 done; else what the system calls the reason: 4 called off (EINTR), 5 it cannot be written, or was stopped (EIO),
16 somebody else holds it frozen (EBUSY), 19 it was unmounted (ENODEV), 22 it is not frozen, or not by this token (EINVAL), 110 it took too long,
or the freeze ended before it was thawed (ETIMEDOUT); 1 it could not be asked; 2 wrong usage";

/// Freeze a mounted volume: its devices are clean, and whoever changes something waits
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil freeze [OPTIONS] DIR\n       frazil freeze [OPTIONS] DIR --hold -- COMMAND [ARGUMENT...]",
    after_help = format!("\
When it returns, or when COMMAND is started, everything that was done before is on the devices, they are marked clean, and nothing is written
to them until the volume is thawed: whatever copies them then gets a volume that needs no recovery. Reading goes on; whoever changes
something waits until it is thawed, and sees no error. (A directory in which somebody waits to make or remove a name may not be listed until then,
as the kernel has locked it; so COMMAND should keep away from the mount.)

With --hold the volume is thawed when COMMAND ends, when this program is interrupted or killed, and when the time is up. The exit code is that
of COMMAND (128 and the number of a signal), but 110 if the freeze ended before COMMAND did, so that what it copied may be torn.

Without --hold a token is printed, and the volume stays frozen until `frazil thaw DIR --holder TOKEN`, but not longer than --timeout: then it
thaws by itself, and `frazil thaw` says so with exit code 110. Several may hold it frozen; it is thawed when the last one has thawed.

{EXIT_CODES}

Examples:
  frazil freeze /mnt --hold -- lvcreate -s -n snap vg/data
  frazil freeze /mnt --timeout 5m --hold -- cp --sparse=always disk.img backup.img
  token=$(frazil freeze /mnt) && make-a-snapshot; frazil thaw /mnt --holder \"$token\""
    )
)]
pub(crate) struct FreezeArgs {
    /// Where it is mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How long it is frozen at most; with --hold no limit unless given [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// It stays frozen until it is thawed, however long that takes
    #[arg(long, conflicts_with = "timeout")]
    no_timeout: bool,
    /// How long it may take until it is frozen; then it goes on as if nothing had happened, and what it waited for is said
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_seconds)]
    drain_timeout: Duration,
    /// Refuse if somebody else holds it frozen already
    #[arg(long)]
    exclusive: bool,
    /// Run a command while it is frozen, then thaw
    #[arg(long, requires = "command")]
    hold: bool,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, requires = "hold")]
    command: Vec<OsString>,
}

/// Thaw a frozen volume
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
Without --holder the one freeze is ended that was made by `frazil freeze` without --hold; if there are several, they have to be named.

{EXIT_CODES}

Examples:
  frazil thaw /mnt
  frazil thaw /mnt --force"))]
pub(crate) struct ThawArgs {
    /// Where it is mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// End the freeze with this token, as `frazil freeze` printed it
    #[arg(long, value_name = "TOKEN")]
    holder: Option<String>,
    /// End all freezes, whoever made them; those learn that what they copied may be torn
    #[arg(long, conflicts_with = "holder")]
    force: bool,
}

/// Stop a mounted volume for good, as after an error: nothing is written any more, and changes fail
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
For tests, and to save what can be saved. The mount stays, and what can be read without writing can be read; unmount it with `frazil umount`.

Modes: default: everything that was done is on the devices first, as after a freeze; logflush: what the journal has is durable, data on their
way are not; nologflush: at once, as if the power had been cut.

{EXIT_CODES}

Example: frazil shutdown /mnt --mode nologflush"))]
pub(crate) struct ShutdownArgs {
    /// Where it is mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// What is made durable before
    #[arg(long, value_name = "MODE", value_enum, default_value = "default")]
    mode: Mode,
}

/// What is made durable before a shutdown.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum Mode {
    Default,
    LogFlush,
    NoLogFlush,
}

/// How long a volume is frozen at most by a command that does not stay.
const HOLD_DEFAULT: Duration = Duration::from_secs(30);

pub(crate) fn freeze(args: &FreezeArgs, out: &mut Out) -> Outcome {
    let mut live = Live::at(&args.dir)?;
    write_back(&mut live, args.drain_timeout)?;
    let who = match args.command.first() {
        Some(command) => format!("'{}'", command.to_string_lossy()),
        None => "'frazil freeze'".to_owned(),
    };
    let hold_for = match args.timeout {
        None if !args.hold && !args.no_timeout => Some(HOLD_DEFAULT),
        given => given,
    };
    let request = Request::Freeze {
        who,
        bound: args.hold,
        share: !args.exclusive,
        hold_ms: hold_for.map(millis),
        drain_ms: Some(millis(args.drain_timeout)),
    };
    let hold: HoldReport = call(&mut live, &request)?;
    if !args.hold {
        writeln!(out, "{}", hold.token)?;
        return Ok(Done::All);
    }
    // Until here a signal ends this program, and the freeze with it. From here on it must not leave the command behind.
    let signals = Signals::new([SIGCHLD, SIGINT, SIGTERM, SIGHUP]);
    let signals = signals.map_err(|e| Stop::Failed(format!("cannot handle signals: {e}")))?;
    let (program, arguments) =
        args.command.split_first().ok_or(Stop::Usage("no command was given".into()))?;
    match Command::new(program).args(arguments).spawn() {
        Ok(child) => run(child, signals, &mut live, hold),
        Err(error) => {
            call::<()>(&mut live, &Request::Thaw { token: Some(hold.token) })?;
            Err(Stop::Failed(format!("cannot start {}: {error}", program.to_string_lossy())))
        }
    }
}

/// What programs stored to mapped files comes first; who holds it frozen already has done that.
fn write_back(live: &mut Live, wait_max: Duration) -> Result<(), Stop> {
    let status: StatusReport = call(live, &Request::Status)?;
    if status.lifecycle.holders.is_empty() && !status.lifecycle.read_only {
        live.write_back(wait_max)?;
    }
    Ok(())
}

/// Waits for the command, thaws, and tells how it went.
fn run(mut child: Child, mut signals: Signals, live: &mut Live, hold: HoldReport) -> Outcome {
    let mut interrupted = None;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) => {}
            Err(error) => {
                say::error(format_args!("cannot wait for the command: {error}"));
                break None;
            }
        }
        // One that came before the look is delivered here, too.
        interrupted = signals.wait().find(|&signal| signal != SIGCHLD);
        if interrupted.is_some() {
            break None;
        }
    };
    let thawed = call::<()>(live, &Request::Thaw { token: Some(hold.token) });
    if let Some(signal) = interrupted {
        pass_on(&mut child, signal);
        return Err(Stop::Code(SIGNALLED + signal as u8));
    }
    thawed?;
    match status.map(exit_code) {
        Some(0) => Ok(Done::All),
        Some(code) => Err(Stop::Code(code)),
        None => Err(Stop::Code(crate::stop::FAILED)),
    }
}

/// Tells the command that it is to end, and waits for that.
fn pass_on(child: &mut Child, signal: i32) {
    let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
    // It may have ended by itself.
    let _ = rustix::process::kill_process(Pid::from_child(child), signal);
    let _ = child.wait();
}

/// What a shell adds to the number of a signal.
const SIGNALLED: u8 = 128;

/// The exit code of a command, as a shell has it.
fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => SIGNALLED.wrapping_add(signal.unwrap_or(0) as u8),
    }
}

pub(crate) fn thaw(args: &ThawArgs) -> Outcome {
    let request = if args.force { Request::ThawAll } else { Request::Thaw { token: args.holder.clone() } };
    call::<()>(&mut Live::at(&args.dir)?, &request)?;
    Ok(Done::All)
}

pub(crate) fn shutdown(args: &ShutdownArgs) -> Outcome {
    let mode = match args.mode {
        Mode::Default => ShutdownMode::Default,
        Mode::LogFlush => ShutdownMode::LogFlush,
        Mode::NoLogFlush => ShutdownMode::NoLogFlush,
    };
    let mut live = Live::at(&args.dir)?;
    if mode == ShutdownMode::Default {
        write_back(&mut live, crate::live::WRITE_BACK_MAX)?;
    }
    call::<()>(&mut live, &Request::Shutdown { mode })?;
    Ok(Done::All)
}

/// Asks; the error number of a failure is the exit code.
fn call<D: serde::de::DeserializeOwned>(live: &mut Live, request: &Request) -> Result<D, Stop> {
    live.call(request).map_err(|error| match error {
        CallError::Failed(failure) => {
            say::error(format_args!("{}: {}", live.mount.mount_point.display(), failure.why));
            Stop::Code(u8::try_from(failure.errno).unwrap_or(crate::stop::FAILED))
        }
        other => Stop::failed(other),
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
