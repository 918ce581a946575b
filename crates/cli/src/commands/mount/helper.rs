//! Being called by mount(8).
//!
//! For a line of `/etc/fstab` with the type `frazil` or `fuse.frazil`, mount(8) runs
//!
//! ```text
//! mount.frazil  SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]        /sbin/mount.frazil, a link to this program
//! mount.fuse.frazil …                                                           the same
//! frazil SPEC DIR -o OPTIONS                                                   by way of mount.fuse
//! ```
//!
//! Before umount(8) unmounts a volume it looks for `/sbin/umount.fuse.frazil`. Without such a link the devices may still be open, and the
//! volume not yet clean, when it returns.
//!
//! With `remount` among the options the volume at DIR becomes read-only, or writable again.
//!
//! Exit codes are those of mount(8): 1 wrong usage, 32 the mount failed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;

use super::MountOptions;
use crate::cli::one_line;
use crate::say;
use crate::stop::{Done, FAILED, Outcome, Stop};

/// Exit code of mount(8): wrong usage.
const WRONG_USAGE: u8 = 1;
/// Exit code of mount(8): the mount failed.
const MOUNT_FAILED: u8 = 32;

/// What mount(8) says.
#[derive(Parser, Debug)]
#[command(name = "mount.frazil", override_usage = "mount.frazil DEV[:DEV...] DIR [-sfnv] [-o OPTIONS]")]
pub(crate) struct Helper {
    /// The devices of the volume
    #[arg(value_name = "DEV")]
    spec: OsString,
    /// Where to mount it
    dir: PathBuf,
    /// Pass over unknown options
    #[arg(short)]
    sloppy: bool,
    /// Do everything but mount
    #[arg(short)]
    fake: bool,
    /// Accepted for mount(8)
    #[arg(short)]
    n: bool,
    /// Say more
    #[arg(short, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Accepted for mount(8)
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// Mount options, with commas between
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,
    /// Accepted for mount(8)
    #[arg(short, value_name = "TYPE")]
    ty: Option<OsString>,
}

/// What umount(8) says.
#[derive(Parser, Debug)]
#[command(name = "umount.frazil", override_usage = "umount.frazil DIR [-flnrv]")]
pub(crate) struct UmountHelper {
    /// Where the volume is mounted
    dir: PathBuf,
    /// Under its users
    #[arg(short)]
    force: bool,
    /// Out of sight now, gone when its users are
    #[arg(short)]
    lazy: bool,
    /// Accepted for umount(8)
    #[arg(short)]
    n: bool,
    /// Accepted for umount(8)
    #[arg(short)]
    r: bool,
    /// Accepted for umount(8)
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Accepted for umount(8)
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// Accepted for umount(8)
    #[arg(short, value_name = "TYPE")]
    ty: Option<OsString>,
}

/// Whether umount(8) called.
pub(crate) fn is_called_by_umount(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|name| Path::new(name).file_name()).map(OsStr::as_bytes);
    name.is_some_and(|name| name.starts_with(b"umount."))
}

/// Unmounts, and returns when the devices are closed. By force, or lazily, only the kernel can.
pub(crate) fn umount(helper: UmountHelper) -> Outcome {
    if !helper.force && !helper.lazy {
        return super::umount_one(&helper.dir).map(|()| Done::All);
    }
    let mut command = Command::new("umount");
    // Without asking us again.
    command.arg("-i").args(helper.force.then_some("-f")).args(helper.lazy.then_some("-l")).arg(&helper.dir);
    let status = command.status().map_err(|error| Stop::Failed(format!("cannot run umount: {error}")))?;
    if status.success() { Ok(Done::All) } else { Err(Stop::Code(FAILED)) }
}

/// Whether mount(8) called: by the name, or because the first argument is a device where a command should be.
pub(crate) fn is_called_by_mount(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|name| Path::new(name).file_name()).map(OsStr::as_bytes);
    let by_name = name.is_some_and(|name| name.starts_with(b"mount."));
    by_name || (arguments.len() > 2 && arguments[1].as_bytes().starts_with(b"/"))
}

/// Reads what mount(8) says.
pub(crate) fn parse<H: Parser>(arguments: Vec<OsString>) -> Result<H, u8> {
    H::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            say::error(one_line(&error));
            WRONG_USAGE
        } else {
            // If it cannot be printed there is nobody to tell.
            let _ = error.print();
            0
        }
    })
}

/// Mounts.
pub(crate) fn run(helper: Helper) -> Outcome {
    let mounted =
        MountOptions::parse(helper.options.iter().map(String::as_str), helper.sloppy).and_then(|options| {
            if helper.fake {
                Ok(Done::All)
            } else {
                super::mount(&[helper.spec], &helper.dir, options, false)
            }
        });
    let (why, code) = match mounted {
        Err(Stop::Usage(why)) => (why, WRONG_USAGE),
        Err(Stop::Failed(why)) => (why, MOUNT_FAILED),
        other => return other,
    };
    say::error(why);
    Err(Stop::Code(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(arguments: &[&str]) -> bool {
        is_called_by_mount(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn mount_is_recognised() {
        assert!(called(&["/sbin/mount.frazil", "/dev/sdb1", "/mnt", "-o", "ro"]));
        assert!(called(&["mount.fuse.frazil"]));
        assert!(called(&["frazil", "/dev/sdb1", "/mnt", "-o", "ro"]));
        assert!(!called(&["frazil", "mount", "/dev/sdb1", "/mnt"]));
        assert!(!called(&["/usr/bin/frazil", "/dev/sdb1"]));
        assert!(!called(&["frazil"]) && !called(&[]));
    }

    #[test]
    fn what_mount_says_is_understood() {
        let words =
            ["mount.frazil", "/dev/a:/dev/b", "/mnt", "-sv", "-n", "-o", "ro,noauto", "-t", "fuse.frazil"];
        let helper: Helper = parse(words.iter().map(OsString::from).collect()).unwrap();
        assert!(helper.sloppy && !helper.fake && helper.verbose == 1);
        assert_eq!((helper.spec, helper.options), ("/dev/a:/dev/b".into(), vec!["ro,noauto".to_owned()]));
        assert_eq!(parse::<Helper>(vec!["mount.frazil".into(), "/dev/a".into()]).unwrap_err(), WRONG_USAGE);
    }
}
