//! What must be there before a machine can boot: tools, kernel, initramfs, and the program for the guest.
//!
//! All of it is kept in a cache directory: `$FRAZIL_ORACLE_CACHE`, or else `frazil/oracle` in `$XDG_CACHE_HOME` or
//! `~/.cache`. The kernel's package is downloaded once (100 MB), and only its boot image and the modules the guest loads
//! are kept (about 20 MB); nothing is installed. The initramfs is put together from them and the system's static
//! busybox. A lock makes sure that of several processes one prepares and the others wait.

mod initramfs;
mod kernel;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::OracleError;

pub use kernel::Kernel;

/// Programs that a boot needs, and the Debian packages they come with.
const TOOLS: [(&str, &str); 3] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("setpriv", "util-linux"), ("cp", "coreutils")];

/// No boot takes so long: a directory of one that is older has no owner.
const LEFTOVER: Duration = Duration::from_secs(24 * 3600);

/// Everything that a boot needs.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The kernel.
    pub kernel: Kernel,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// The program that runs in the guest.
    pub program: PathBuf,
    /// Where directories for single boots can be made.
    pub scratch: PathBuf,
}

/// Finds or makes everything a boot needs.
///
/// # Errors
/// What is missing and how to get it, or what failed.
pub fn prepare() -> Result<Prepared, OracleError> {
    for (tool, package) in TOOLS {
        find(tool, package)?;
    }
    let cache = cache_dir()?;
    let scratch = cache.join("scratch");
    std::fs::create_dir_all(&scratch).map_err(OracleError::io(&scratch))?;
    sweep(&scratch);
    let lock_path = cache.join("lock");
    let lock = File::create(&lock_path).map_err(OracleError::io(&lock_path))?;
    lock.lock().map_err(OracleError::io(&lock_path))?;
    let kernel = kernel::find_or_fetch(&cache)?;
    let initramfs = initramfs::find_or_make(&cache, &kernel)?;
    drop(lock);
    Ok(Prepared { kernel, initramfs, program: program()?, scratch })
}

fn cache_dir() -> Result<PathBuf, OracleError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = set("FRAZIL_ORACLE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("frazil/oracle")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/frazil/oracle")))
        .unwrap_or_else(|| std::env::temp_dir().join("frazil-oracle"));
    std::fs::create_dir_all(&dir).map_err(OracleError::io(&dir))?;
    // The guest, and commands that run elsewhere, need the whole path.
    dir.canonicalize().map_err(OracleError::io(&dir))
}

/// Removes what processes that were killed have left behind. That it may fail harms nobody.
fn sweep(scratch: &Path) {
    let is_old = |path: &Path| {
        path.metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFTOVER))
    };
    for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        if is_old(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The program `oracle`: this very process, or else built now, so that it is as new as the code that calls it.
fn program() -> Result<PathBuf, OracleError> {
    let own = std::env::current_exe().map_err(OracleError::io("/proc/self/exe"))?;
    if own.file_name() == Some(OsStr::new(crate::wire::PROGRAM)) {
        return Ok(own);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bin", crate::wire::PROGRAM, "--message-format", "json"]);
    build.arg("--manifest-path").arg(&manifest);
    let output = run(&mut build)?;
    let executable = output.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.ok_or_else(|| OracleError::Tool {
        command: format!("{build:?}"),
        why: "it did not say where the program is".to_owned(),
    })
}

/// Path of a program that must be there. Those of the system administrator count, whatever the user's `PATH`.
fn find(tool: &'static str, package: &'static str) -> Result<PathBuf, OracleError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(tool))
        .find(|candidate| candidate.is_file())
        .ok_or(OracleError::MissingTool { tool, package })
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, OracleError> {
    let output = command.stdin(Stdio::null()).output();
    let failed = |why: String| OracleError::Tool { command: format!("{command:?}"), why };
    let output = output.map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
