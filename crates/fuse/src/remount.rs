//! Making a mount read-only, or writable again, while it is in use: `frazil mount -o remount,ro DIR`.
//!
//! The kernel then turns changes away. The process that serves is asked to follow ([`crate::remounted`]): it marks the volume clean and writes nothing to it. Only a mount that
//! was started writable can become so again.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use frazil_device::mounts;
use rustix::io::Errno as Code;
use rustix::process::Pid;

use crate::attach::{FS_TYPE, Options};
use crate::control::{Client, Request};
use crate::error::Error;
use crate::mount::{devices_of, server_of};

/// How long a mount that is in use is tried again. The kernel closes files behind the back of who closed them; until then a removed file counts as
/// one that may be written.
const BUSY_MAX: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

/// The access mode in the flags of an open file, as `/proc/PID/fdinfo` shows them in octal: not only for reading.
const ACCESS_WRITES: u32 = 0o3;

/// Changes the volume mounted at `dir` to these options; their source does not matter.
///
/// # Errors
/// [`Error::NotMounted`]; [`Error::ServedReadOnly`] if it was mounted read-only and is to be changed; what the system refuses.
pub fn remount(dir: &Path, options: &Options) -> Result<(), Error> {
    let not_mounted = || Error::NotMounted(dir.to_path_buf());
    let canonical = dir.canonicalize().map_err(|_| not_mounted())?;
    let mount = mounts::at(&canonical).filter(|mount| mount.fs_type == FS_TYPE).ok_or_else(not_mounted)?;
    if !options.read_only && !server_of(&canonical).is_some_and(|pid| writes_to(pid, &mount.source)) {
        return Err(Error::ServedReadOnly(canonical));
    }
    let deadline = Instant::now() + BUSY_MAX;
    loop {
        match rustix::mount::mount_remount(&canonical, options.flags(), c"") {
            Err(Code::BUSY) if Instant::now() < deadline => thread::sleep(PAUSE),
            done => {
                done.map_err(|err| Error::system("remount", &canonical, err))?;
                break;
            }
        }
    }
    // One that is only read has nothing to follow.
    if mount.read_only && options.read_only {
        return Ok(());
    }
    let followed = Client::connect(&mount).and_then(|mut client| client.ask(&Request::FollowMount));
    followed.map_err(|error| Error::NotFollowed(canonical, error.to_string()))
}

/// Whether the process has one of the devices open for writing.
fn writes_to(process: Pid, source: &str) -> bool {
    let devices = devices_of(source);
    let process = format!("/proc/{}", process.as_raw_pid());
    let Ok(descriptors) = fs::read_dir(format!("{process}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let is_device = fs::read_link(descriptor.path()).is_ok_and(|target| devices.contains(&target));
        let number = descriptor.file_name();
        let info = || fs::read_to_string(format!("{process}/fdinfo/{}", number.display()));
        is_device && info().is_ok_and(|info| opened_for_writing(&info))
    })
}

fn opened_for_writing(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|f| f & ACCESS_WRITES != 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn whether_a_file_is_open_for_writing_is_seen() {
        let path = tempfile::NamedTempFile::new().unwrap();
        for (writes, file) in [(true, path.reopen().unwrap()), (false, fs::File::open(path.path()).unwrap())]
        {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
            assert_eq!(opened_for_writing(&info), writes, "{info}");
        }
        assert!(!opened_for_writing("pos: 0\n") && !opened_for_writing("flags: x\n"));
    }
}
