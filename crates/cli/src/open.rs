//! From the command line to an open volume.
//!
//! Devices are given one by one, or joined by `:` as in `/etc/fstab`. A name that itself holds a `:`, as those in
//! `/dev/disk/by-path` do, is taken as it is when something of that name exists.
//!
//! Commands that look at files take `DEV… [PATH]`: with more than one argument the last one is the path inside the volume.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use frazil_btree::write::EngineOptions;
use frazil_device::{Access, Device, FileDevice, OpenOptions as DeviceOptions};
use frazil_journal::engine::NoSpace;
use frazil_journal::read::ReadError;
use frazil_ondisk::superblock::assembly::{Degraded, Insufficient};
use frazil_posix::write::{QuotaChoice, WriteFs, WriteFsOptions};
use frazil_volume::lifecycle::{FrontKind, OnError};
use frazil_volume::open::CACHE_BYTES_DEFAULT;
use frazil_volume::write::{Live, LiveOptions, WriteOptions, open_rw};
use frazil_volume::{JournalView, Notice, OpenError, OpenOptions, Passphrase, Recovery, Volume};
use zeroize::Zeroizing;

use crate::format::parse_size;
use crate::say;
use crate::stop::Stop;

/// How long to wait for another process to let go of a device: one that is being killed needs a moment.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Longest passphrase, in bytes.
const PASSPHRASE_BYTES_MAX: u64 = 4096;

/// Which missing devices are tolerated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Missing {
    /// Every piece of data must have a copy on the devices that are there.
    Yes,
    /// Go on even if data are missing.
    Very,
}

/// Options common to all commands that open a volume.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Opening the volume")]
pub(crate) struct OpenArgs {
    /// Go on without missing devices if a copy of everything is there; "very": even if not
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "yes")]
    pub(crate) degraded: Option<Missing>,
    /// Read the passphrase of an encrypted volume from FILE ("-": standard input) instead of asking for it
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Memory for b-tree nodes [default: 96M]
    #[arg(long, value_name = "SIZE", value_parser = parse_cache)]
    pub(crate) cache: Option<usize>,
    /// Use devices that were changed apart from each other; the newest one wins
    #[arg(long)]
    pub(crate) no_splitbrain_check: bool,
    /// Use a damaged journal as far as it goes
    #[arg(long)]
    pub(crate) salvage_journal: bool,
    /// They were given as in `/etc/fstab`, so advice must name them like that.
    #[arg(skip)]
    pub(crate) as_mount_options: bool,
    /// What to do when what is stored turns out to be wrong; as the superblock says if it is not given.
    #[arg(skip)]
    pub(crate) on_error: Option<OnError>,
    /// What to do when a thin device has no room.
    #[arg(skip)]
    pub(crate) device_full: Option<NoSpace>,
    /// Which quotas are on, where that is not as the superblock says.
    #[arg(skip)]
    pub(crate) quotas: QuotaChoice,
}

/// Reads the value of `--cache`.
pub(crate) fn parse_cache(text: &str) -> Result<usize, String> {
    usize::try_from(parse_size(text)?).map_err(|_| format!("{text} is more than can be addressed"))
}

/// The devices of a volume.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Devices {
    /// The devices or image files of the volume, one by one or joined by ":"
    #[arg(value_name = "DEV", required = true)]
    devices: Vec<OsString>,
}

impl Devices {
    /// Their paths.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        split_devices(&self.devices)
    }
}

/// Takes apart what was joined by `:`.
pub(crate) fn split_devices(arguments: &[OsString]) -> Vec<PathBuf> {
    let exists = |name: &[u8]| Path::new(OsStr::from_bytes(name)).exists();
    arguments.iter().flat_map(|argument| split_joined(argument.as_bytes(), exists)).collect()
}

/// The parts of a joined argument: from each `:` on the longest part that exists, else the shortest.
fn split_joined(joined: &[u8], exists: impl Fn(&[u8]) -> bool) -> Vec<PathBuf> {
    let mut parts = Vec::new();
    let mut rest = joined;
    while !rest.is_empty() {
        let ends = || (0..=rest.len()).filter(|&i| i == rest.len() || rest[i] == b':');
        let end = ends().rev().find(|&i| i > 0 && exists(&rest[..i]));
        let end = end.or_else(|| ends().next()).unwrap_or(rest.len());
        if end > 0 {
            parts.push(PathBuf::from(OsString::from_vec(rest[..end].to_vec())));
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    parts
}

/// Opens one device to look at what it says now, beside anybody who uses it.
pub(crate) fn peek(path: &Path) -> Result<FileDevice, Stop> {
    DeviceOptions::new(Access::Peek).open(path).map_err(Stop::failed)
}

/// Opens devices.
fn open_devices(paths: &[PathBuf], access: Access) -> Result<Vec<Arc<dyn Device>>, Stop> {
    let open = |path: &PathBuf| {
        let device = DeviceOptions::new(access).lock_wait(LOCK_WAIT).open(path);
        device.map(|device| Arc::new(device) as Arc<dyn Device>).map_err(Stop::failed)
    };
    paths.iter().map(open).collect()
}

impl OpenArgs {
    /// Opens the volume on these devices, and says what there is to know about it.
    pub(crate) fn volume(&self, paths: &[PathBuf]) -> Result<Volume, Stop> {
        let volume = self.open(paths, Access::ReadOnly, frazil_volume::open)?;
        show_notices(volume.notices());
        if let Recovery::Replayed { first, last, .. } = volume.recovery() {
            tracing::info!(
                "it was not shut down cleanly: entries {first} to {last} of its journal are read over the b-trees"
            );
        }
        Ok(volume)
    }

    /// Opens the volume on these devices for writing, and finishes what a crash interrupted. It must be stopped in the end.
    pub(crate) fn live(&self, paths: &[PathBuf]) -> Result<WriteFs, Stop> {
        let default = WriteOptions::default();
        let no_space = self.device_full.unwrap_or(default.no_space);
        let write = WriteOptions { on_error: self.on_error, no_space, ..default };
        let foundation =
            self.open(paths, Access::ReadWrite, |devices, options| open_rw(devices, options, &write))?;
        show_notices(&foundation.notices);
        if let Recovery::Replayed { first, last, .. } = foundation.recovery {
            tracing::info!(
                "it was not shut down cleanly: entries {first} to {last} of its journal are replayed"
            );
        }
        // Seeds must not be guessed, and every map that hashes has such a one.
        let seed = RandomState::new().hash_one(std::process::id());
        let options = LiveOptions {
            engine: EngineOptions { seed, ..EngineOptions::default() },
            cache_bytes: self.cache.unwrap_or(CACHE_BYTES_DEFAULT),
            threads: true,
        };
        let live = Live::start(foundation, &options).map_err(Stop::failed)?;
        let fs = WriteFs::new(live, WriteFsOptions { clock: write.wall, seed, quotas: self.quotas })
            .map_err(Stop::failed)?;
        let front = fs.front(FrontKind::Background).map_err(Stop::failed)?;
        front.finish_interrupted().and_then(|_| front.remove_dead_inodes()).map_err(Stop::failed)?;
        drop(front);
        Ok(fs)
    }

    /// Opens the journal of the volume on these devices, to look at.
    pub(crate) fn journal(&self, paths: &[PathBuf]) -> Result<JournalView, Stop> {
        let journal = self.open(paths, Access::ReadOnly, JournalView::open)?;
        show_notices(journal.notices());
        Ok(journal)
    }

    fn open<T>(
        &self,
        paths: &[PathBuf],
        access: Access,
        open: impl FnOnce(Vec<Arc<dyn Device>>, OpenOptions<'_>) -> Result<T, OpenError>,
    ) -> Result<T, Stop> {
        let mut ask = |name: &str| read_passphrase(self.passphrase_file.as_deref(), name);
        let options = OpenOptions {
            degraded: match self.degraded {
                None => Degraded::No,
                Some(Missing::Yes) => Degraded::Yes,
                Some(Missing::Very) => Degraded::Very,
            },
            ignore_split_brain: self.no_splitbrain_check,
            salvage_journal: self.salvage_journal,
            cache_bytes: self.cache.unwrap_or(CACHE_BYTES_DEFAULT),
            passphrase: Passphrase::Ask(&mut ask),
        };
        open(open_devices(paths, access)?, options).map_err(|why| Stop::Failed(self.explain(&why)))
    }

    /// Why opening failed, with the option that would help if there is one.
    fn explain(&self, why: &OpenError) -> String {
        let option = match why {
            OpenError::Insufficient(Insufficient::Missing(_) | Insufficient::Degraded(_)) => {
                ["--degraded", "-o degraded"]
            }
            OpenError::Insufficient(Insufficient::Lost(_)) => ["--degraded=very", "-o very_degraded"],
            OpenError::Journal(ReadError::Damaged(_)) => ["--salvage-journal", "-o salvage_journal"],
            OpenError::ReadOnly(_) | OpenError::NeedsCheck(_) if self.as_mount_options => {
                return format!("{why}; mount it with: -o ro");
            }
            _ => return why.to_string(),
        };
        format!("{why}; to read what is there: {}", option[usize::from(self.as_mount_options)])
    }
}

/// Says what was noticed while opening. That a volume cannot be written is no news to who only reads.
fn show_notices(notices: &[Notice]) {
    for notice in notices {
        match notice {
            Notice::ReadOnly(_) => {}
            Notice::Journal(_) | Notice::Snapshots(_) => say::warning(notice),
            _ => say::note(notice),
        }
    }
}

/// The passphrase of the volume called `name`: the first line of the file, or what is typed at the terminal.
fn read_passphrase(file: Option<&Path>, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    match file {
        Some(path) if path == Path::new("-") => first_line(io::stdin().lock()),
        Some(path) => std::fs::File::open(path)
            .and_then(first_line)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        None => match rpassword::prompt_password(format!("Passphrase of {name}: ")) {
            Ok(passphrase) => Ok(Zeroizing::new(passphrase.into_bytes())),
            Err(e) => Err(io::Error::new(
                e.kind(),
                format!("there is no terminal to ask at ({e}); use --passphrase-file"),
            )),
        },
    }
}

/// A new passphrase for what is called `name`: as [`read_passphrase`], but typed twice, and not empty.
pub(crate) fn read_new_passphrase(file: Option<&Path>, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let first = read_passphrase(file, name)?;
    if first.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    if file.is_none() && read_passphrase(None, &format!("{name} again"))? != first {
        return Err(io::Error::other("they are not the same"));
    }
    Ok(first)
}

/// What stands before the first newline, or everything.
fn first_line(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // With room for all that can be read: a buffer that grows would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX as usize + 1));
    from.take(PASSPHRASE_BYTES_MAX + 1).read_to_end(&mut line)?;
    match line.iter().position(|&byte| byte == b'\n') {
        Some(end) => line.truncate(end),
        None if line.len() as u64 > PASSPHRASE_BYTES_MAX => {
            return Err(io::Error::other(format!("it is longer than {PASSPHRASE_BYTES_MAX} bytes")));
        }
        None => {}
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(joined: &str, existing: &[&str]) -> Vec<String> {
        let exists = |name: &[u8]| existing.iter().any(|e| e.as_bytes() == name);
        split_joined(joined.as_bytes(), exists).iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn devices_are_joined_by_colons() {
        assert_eq!(split("/dev/a:/dev/b", &["/dev/a", "/dev/b"]), ["/dev/a", "/dev/b"]);
        assert_eq!(split("/dev/a:/dev/b", &[]), ["/dev/a", "/dev/b"]);
        assert_eq!(split("/dev/a", &[]), ["/dev/a"]);
        assert_eq!(split("::x:", &[]), ["x"]);
        assert_eq!(split("", &[]), [""; 0]);
    }

    #[test]
    fn names_with_colons_are_kept_if_they_exist() {
        let by_path = ["/dev/by-path/pci-0:1", "/dev/by-path/pci-0:2:1"];
        assert_eq!(split("/dev/by-path/pci-0:1", &by_path), ["/dev/by-path/pci-0:1"]);
        assert_eq!(split("/dev/by-path/pci-0:2:1:/dev/by-path/pci-0:1", &by_path), [by_path[1], by_path[0]]);
    }

    #[test]
    fn a_passphrase_is_the_first_line() {
        let read = |text: &[u8]| first_line(text).map(|line| line.to_vec()).map_err(|e| e.to_string());
        assert_eq!(read(b"correct horse\n"), Ok(b"correct horse".to_vec()));
        assert_eq!(read(b"correct horse"), Ok(b"correct horse".to_vec()));
        assert_eq!(read(b"one\ntwo"), Ok(b"one".to_vec()));
        assert_eq!(read(&[b'x'; 4096]), Ok(vec![b'x'; 4096]));
        assert!(read(&[b'x'; 4097]).is_err());
    }
}
