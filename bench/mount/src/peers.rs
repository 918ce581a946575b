//! Who is compared, and mounts of them.
//!
//! Everybody is made and mounted as if nobody said otherwise, with these exceptions: nobody keeps access times (frazil and the others through FUSE
//! do not), and ext4 makes its tables at once, so that its kernel thread does not do it during the measurement. `io_uring` is frazil as well, mounted while the kernel's
//! parameter is on that lets requests come that way; it is put back at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use frazil_bench_common::Outcome;

/// How long a server may take to let go of the device.
const END_MAX: Duration = Duration::from_secs(60);

/// Whether the kernel offers new mounts that their requests come through io_uring.
const ENABLE_IO_URING: &str = "/sys/module/fuse/parameters/enable_uring";

/// A filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Frazil,
    IoUring,
    Ext4,
    Xfs,
    Btrfs,
    Fuse2fs,
    Ntfs3g,
}

impl Peer {
    pub(crate) const ALL: [Peer; 7] =
        [Peer::Frazil, Peer::IoUring, Peer::Ext4, Peer::Xfs, Peer::Btrfs, Peer::Fuse2fs, Peer::Ntfs3g];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Frazil => "frazil",
            Peer::IoUring => "io_uring",
            Peer::Ext4 => "ext4",
            Peer::Xfs => "xfs",
            Peer::Btrfs => "btrfs",
            Peer::Fuse2fs => "fuse2fs",
            Peer::Ntfs3g => "ntfs-3g",
        }
    }

    /// Whether a process serves it.
    fn has_server(self) -> bool {
        self.is_frazil() || matches!(self, Peer::Fuse2fs | Peer::Ntfs3g)
    }

    fn is_frazil(self) -> bool {
        matches!(self, Peer::Frazil | Peer::IoUring)
    }

    /// The program that makes one, and options for it.
    fn maker(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Peer::Frazil | Peer::IoUring => ("frazil", &["format", "--quiet", "--force"]),
            Peer::Ext4 | Peer::Fuse2fs => {
                ("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            }
            Peer::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            Peer::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
            Peer::Ntfs3g => ("mkfs.ntfs", &["-q", "-Q", "-F"]),
        }
    }

    /// Whether this machine can make and mount one.
    pub(crate) fn is_there(self) -> bool {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let in_kernel = |name: &str| {
            // A module need not be loaded yet.
            known.split_whitespace().any(|word| word == name)
                || Command::new("modprobe")
                    .arg(name)
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|s| s.success())
        };
        match self {
            Peer::Frazil => true,
            Peer::IoUring => Path::new(ENABLE_IO_URING).exists(),
            Peer::Fuse2fs => is_program("fuse2fs") && is_program("mkfs.ext4"),
            Peer::Ntfs3g => is_program("ntfs-3g") && is_program("mkfs.ntfs"),
            peer => in_kernel(peer.name()) && is_program(peer.maker().0),
        }
    }

    /// What is said if it is not there.
    pub(crate) fn why_missing(self) -> String {
        match self {
            Peer::IoUring => format!("this kernel has no {ENABLE_IO_URING}"),
            Peer::Fuse2fs | Peer::Ntfs3g => format!("there is no program {}", self.name()),
            peer => format!("this kernel does not know it, or there is no program {}", peer.maker().0),
        }
    }

    /// Makes one on the device and mounts it.
    pub(crate) fn mount_new(self, frazil: &Path, device: &Path) -> Outcome<Mounted> {
        let (program, options) = self.maker();
        let program = if self.is_frazil() { frazil } else { Path::new(program) };
        run(Command::new(program).args(options).arg(device))?;
        let mut mounted = Mounted {
            peer: self,
            frazil: frazil.to_owned(),
            device: device.to_owned(),
            dir: TempDir::new()?,
            mounted: false,
            resident_bytes_max: 0,
        };
        mounted.mount()?;
        Ok(mounted)
    }
}

/// A volume that is mounted, or about to be mounted again.
pub(crate) struct Mounted {
    peer: Peer,
    frazil: PathBuf,
    device: PathBuf,
    dir: TempDir,
    mounted: bool,
    /// The most that a server of it had in memory.
    resident_bytes_max: u64,
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn mount(&mut self) -> Outcome {
        let mut command = match self.peer {
            Peer::Frazil | Peer::IoUring => {
                let mut command = Command::new(&self.frazil);
                command.args(["mount", "-o", "rw,noatime"]);
                command
            }
            Peer::Fuse2fs => Command::new("fuse2fs"),
            Peer::Ntfs3g => {
                let mut command = Command::new("ntfs-3g");
                command.args(["-o", "noatime"]);
                command
            }
            peer => {
                let mut command = Command::new("mount");
                command.args(["-t", peer.name(), "-o", "noatime"]);
                command
            }
        };
        command.arg(&self.device).arg(self.dir.path());
        if self.peer == Peer::IoUring {
            let before = fs::read_to_string(ENABLE_IO_URING)?;
            fs::write(ENABLE_IO_URING, "Y")?;
            let mounted = run(&mut command);
            fs::write(ENABLE_IO_URING, before)?;
            mounted?;
        } else {
            run(&mut command)?;
        }
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it and mounts it again, so that nothing of it is cached.
    pub(crate) fn remount(&mut self) -> Outcome {
        self.detach()?;
        self.mount()
    }

    /// The most that its server had in memory, if it has one.
    pub(crate) fn resident_bytes_max(&mut self) -> Option<u64> {
        self.look_at_server();
        self.peer.has_server().then_some(self.resident_bytes_max)
    }

    pub(crate) fn unmount(mut self) -> Outcome {
        self.detach()
    }

    fn look_at_server(&mut self) {
        for server in self.servers() {
            self.resident_bytes_max = self.resident_bytes_max.max(high_water(server).unwrap_or(0));
        }
    }

    fn detach(&mut self) -> Outcome {
        self.look_at_server();
        let servers = self.servers();
        self.mounted = false;
        run(Command::new("umount").arg(self.dir.path()))?;
        // The others' servers write back after the unmount has returned.
        let begin = Instant::now();
        while servers.iter().any(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
            if begin.elapsed() > END_MAX {
                return Err(format!("the server of {} does not end", self.peer.name()).into());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Processes that serve it: those with the device and the directory among their arguments.
    fn servers(&self) -> Vec<u32> {
        if !self.peer.has_server() {
            return Vec::new();
        }
        let serves = |pid: &u32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let has = |path: &Path| {
                arguments.split(|byte| *byte == 0).any(|arg| arg == path.as_os_str().as_encoded_bytes())
            };
            has(&self.device) && has(self.dir.path())
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(serves).collect()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            // An error is under way that says more.
            let _ = self.detach();
        }
    }
}

/// Bytes that a process had in memory at most.
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
