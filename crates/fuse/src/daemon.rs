//! Going into the background.
//!
//! `frazil mount` returns when the mount is usable, and a process goes on serving it. Forking is only safe before there are
//! threads, and errors found after it have no way to the terminal; so instead the program starts *itself* once more
//! with the same arguments, and waits:
//!
//! * The second process, marked by an environment variable, does everything: it may ask for a passphrase, it prints its own
//!   errors (its error output is the terminal's), and exits with the code that its errors deserve.
//! * Its standard output is a pipe to the first. When the mount is usable it leaves the terminal and writes one byte
//!   there ([`Ready::announce`]). The first process then exits with success; if the pipe closes without that byte,
//!   with the code of the second.
//!
//! Nothing may be printed to standard output before the announcement.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// Set in the environment of the process that is to serve.
const MARK: &str = "FRAZIL_SERVES_IN_BACKGROUND";

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Role {
    /// The one that was started: the other one has succeeded or failed. Exit with this code.
    Starter {
        /// 0, or the exit code of the other one.
        exit_code: u8,
        /// What to print, if the other one could not: it died of a signal.
        error: Option<String>,
    },
    /// The one that is to serve.
    Server(Ready),
}

/// The duty to say that the mount is usable.
#[derive(Debug)]
pub struct Ready(());

/// Starts this program again to serve in the background, and waits until it is ready or has failed. In the process
/// started, returns [`Role::Server`]. Call it before doing anything else.
///
/// Errors: the program could not be started.
pub fn detach() -> io::Result<Role> {
    if std::env::var_os(MARK).is_some() {
        return Ok(Role::Server(Ready(())));
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("frazil"));
    let mut server =
        Command::new(own_path()).arg0(name).args(arguments).env(MARK, "1").stdout(Stdio::piped()).spawn()?;
    let mut byte = [0; 1];
    let ready = match server.stdout.take() {
        Some(mut pipe) => pipe.read(&mut byte)? == 1,
        None => false,
    };
    if ready {
        return Ok(Role::Starter { exit_code: 0, error: None });
    }
    let status = server.wait()?;
    Ok(failed(status))
}

/// Where this program is. By its path, so that process lists show its name; by the kernel's link if the file was replaced
/// or removed since it was started.
fn own_path() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

/// What the starter reports when the other process ended before it was ready.
fn failed(status: ExitStatus) -> Role {
    match (status.code(), status.signal()) {
        // It ended without an error but did not announce itself: the mount came and went.
        (Some(code), _) => Role::Starter { exit_code: code as u8, error: None },
        (None, signal) => {
            let error = format!("the serving process was killed by signal {}", signal.unwrap_or(0));
            Role::Starter { exit_code: 1, error: Some(error) }
        }
    }
}

impl Ready {
    /// Leaves the terminal and says that the mount is usable. From here on, what this process prints goes nowhere.
    ///
    /// Errors: the starter is gone.
    pub fn announce(self) -> io::Result<()> {
        // Fails only for the leader of a process group, which leads its own already.
        let _ = rustix::process::setsid();
        std::env::set_current_dir("/")?;
        let nowhere = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nowhere)?;
        rustix::stdio::dup2_stderr(&nowhere)?;
        let told = io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush());
        rustix::stdio::dup2_stdout(&nowhere)?;
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_handed_on() {
        let role = failed(ExitStatus::from_raw(3 << 8));
        assert!(matches!(role, Role::Starter { exit_code: 3, error: None }));
        let Role::Starter { exit_code: 1, error: Some(error) } = failed(ExitStatus::from_raw(9)) else {
            panic!("a killed process is a failure");
        };
        assert_eq!(error, "the serving process was killed by signal 9");
    }
}
