//! Finding out who has a device, so that a refusal can say what to do about it.
//!
//! Nothing about the holder is ever written to the device. Instead `/proc` is asked:
//!
//! * `/proc/PID/fdinfo/FD` lists the locks held through a descriptor, with the inode number of the file. Unlike
//!   `/proc/locks`, which has no owner for locks of this kind, it names the process that has the file *now*, also after a
//!   fork. It shows only processes that the caller may inspect: its own, or all for root.
//! * `/proc/self/mountinfo` says where the volume is mounted, by device number for the kernel's own mounts and by source
//!   name for FUSE mounts (which therefore must carry the absolute path of their devices). Everybody may read it.
//! * `/sys/dev/block` names the mapped or RAID device on top of a block device.
//!
//! All of this is a best effort at the moment of the refusal. Only descriptors whose inode number matches are looked at
//! closely: a `stat` of an unrelated file could hang on a dead network mount.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::mounts::{self, Mount};

/// A process that has a device open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, as seen from here.
    pub pid: u32,
    /// Its command name, at most 15 bytes.
    pub command: String,
}

/// Who has a device, as far as could be found out.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Holder {
    /// The process that has it open, if it may be inspected.
    pub process: Option<Process>,
    /// The part of the kernel that has it, in words: "the kernel's ext4", "dm-0".
    pub kernel: Option<String>,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.process, &self.kernel) {
            (_, Some(kernel)) => write!(f, "in use by {kernel}")?,
            (Some(process), None) => write!(f, "in use by {} (pid {})", process.command, process.pid)?,
            (None, None) => write!(f, "in use by another process")?,
        }
        if let Some(dir) = &self.mount_point {
            let umount = if self.kernel.is_some() { "umount" } else { "frazil umount" };
            write!(f, ", mounted at {0}; unmount it with: {umount} {0}", dir.display())?;
        }
        Ok(())
    }
}

/// Everything that can be found out about who has the device at `path`.
pub(super) fn find(path: &Path) -> Holder {
    let Ok(meta) = fs::metadata(path) else { return Holder::default() };
    if let Some(mount) = kernel_mount(path, &meta) {
        let kernel = Some(format!("the kernel's {}", mount.fs_type));
        return Holder { process: None, kernel, mount_point: Some(mount.mount_point) };
    }
    let process = find_process(path, &meta);
    let kernel = if process.is_none() { stacked_on(&meta) } else { None };
    let mount_point = fuse_mount(path).map(|mount| mount.mount_point);
    Holder { process, kernel, mount_point }
}

/// Where the kernel itself has mounted this device, or a loop device over this file.
pub(super) fn kernel_mount(path: &Path, meta: &Metadata) -> Option<Mount> {
    let numbers = if meta.file_type().is_block_device() {
        vec![device_number(meta.rdev())]
    } else {
        loops_over(&fs::canonicalize(path).ok()?)
    };
    if numbers.is_empty() {
        return None;
    }
    let by_number = |mount: &Mount| numbers.contains(&mount.number);
    let by_source =
        |mount: &Mount| !mount.is_fuse() && mount.fs_type == "bcachefs" && names_device(mount, path);
    mounts::table().into_iter().find(|mount| by_number(mount) || by_source(mount))
}

/// Where a FUSE file system says it has mounted this device.
fn fuse_mount(path: &Path) -> Option<Mount> {
    mounts::table().into_iter().find(|mount| mount.is_fuse() && names_device(mount, path))
}

/// Whether the mount's source, one or more paths with colons between, includes `path`.
fn names_device(mount: &Mount, path: &Path) -> bool {
    let Ok(wanted) = fs::canonicalize(path) else { return false };
    mount
        .source
        .split(':')
        .filter(|part| part.starts_with('/'))
        .any(|part| fs::canonicalize(part).is_ok_and(|found| found == wanted))
}

fn device_number(rdev: u64) -> String {
    format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

/// Numbers of the loop devices whose backing file is `canonical`.
fn loops_over(canonical: &Path) -> Vec<String> {
    let Ok(blocks) = fs::read_dir("/sys/block") else { return Vec::new() };
    blocks
        .flatten()
        .filter(|block| block.file_name().to_string_lossy().starts_with("loop"))
        .filter(|block| {
            let backing = fs::read_to_string(block.path().join("loop/backing_file"));
            backing.is_ok_and(|file| Path::new(file.trim_end_matches('\n')) == canonical)
        })
        .filter_map(|block| Some(fs::read_to_string(block.path().join("dev")).ok()?.trim().to_owned()))
        .collect()
}

/// The block device, swap or mounted partition that sits on this block device.
fn stacked_on(meta: &Metadata) -> Option<String> {
    if !meta.file_type().is_block_device() {
        return None;
    }
    let sys = PathBuf::from(format!("/sys/dev/block/{}", device_number(meta.rdev())));
    if let Some(upper) = fs::read_dir(sys.join("holders")).ok()?.flatten().next() {
        return Some(upper.file_name().to_string_lossy().into_owned());
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut swaps = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    if swaps.any(|swap| fs::metadata(swap).is_ok_and(|other| other.rdev() == meta.rdev())) {
        return Some("swap".to_owned());
    }
    let children = fs::read_dir(&sys).ok()?.flatten().filter(|child| child.path().join("partition").exists());
    let numbers: Vec<String> =
        children.filter_map(|child| fs::read_to_string(child.path().join("dev")).ok()).collect();
    let on_partition = |mount: &Mount| numbers.iter().any(|number| number.trim() == mount.number);
    let mount = mounts::table().into_iter().find(on_partition)?;
    Some(format!("the kernel's {} on a partition at {}", mount.fs_type, mount.mount_point.display()))
}

/// A process that has the device locked, or for a block device open for writing.
fn find_process(path: &Path, meta: &Metadata) -> Option<Process> {
    let canonical = fs::canonicalize(path).ok()?;
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(info) = fs::read_to_string(descriptor.path()) else { continue };
            let link = PathBuf::from(format!("/proc/{pid}/fd")).join(descriptor.file_name());
            let locked = locks_inode(&info, meta.ino()) && same_file(&link, meta);
            let claimed = meta.file_type().is_block_device()
                && is_writable(&info)
                && fs::read_link(&link).is_ok_and(|target| target == canonical);
            if locked || claimed {
                let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                return Some(Process { pid, command: command.trim_end().to_owned() });
            }
        }
    }
    None
}

/// Whether an fdinfo has a line like `lock: 1: OFDLCK ADVISORY  WRITE -1 fe:00:10010725 0 EOF` for this inode number.
fn locks_inode(info: &str, ino: u64) -> bool {
    info.lines()
        .filter(|line| line.starts_with("lock:"))
        .filter(|line| line.contains("OFDLCK") || line.contains("POSIX"))
        .flat_map(str::split_whitespace)
        .filter_map(|word| {
            word.rsplit(':').next()?.parse::<u64>().ok().filter(|_| word.matches(':').count() == 2)
        })
        .any(|found| found == ino)
}

/// Whether an fdinfo's `flags:` line, octal, has `O_WRONLY` or `O_RDWR`.
fn is_writable(info: &str) -> bool {
    info.lines()
        .filter_map(|line| line.strip_prefix("flags:"))
        .any(|flags| i64::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 3 != 0))
}

fn same_file(link: &Path, meta: &Metadata) -> bool {
    fs::metadata(link).is_ok_and(|other| (other.dev(), other.ino()) == (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_device_among_the_sources_of_a_mount() {
        let line =
            |source: &str| mounts::parse(&format!("1 2 0:5 / /mnt rw - fuse.frazil {source} rw")).unwrap();
        assert!(names_device(&line("/dev/zero:/dev/../dev/null"), Path::new("/dev/null")));
        assert!(!names_device(&line("/dev/zero:dev/null"), Path::new("/dev/null")));
        assert!(!names_device(&line("/dev/null"), Path::new("/absent")));
    }

    #[test]
    fn reads_locks_and_flags() {
        let info =
            "pos:\t0\nflags:\t02100002\nino:\t7\nlock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:10010725 0 EOF\n";
        assert!(locks_inode(info, 10010725));
        assert!(!locks_inode(info, 7));
        assert!(!locks_inode(&info.replace("OFDLCK", "FLOCK"), 10010725));
        assert!(is_writable(info));
        assert!(!is_writable("flags:\t02100000\n"));
    }

    #[test]
    fn says_what_to_do() {
        let process = Some(Process { pid: 812, command: "frazil".into() });
        let mut holder = Holder { process, ..Holder::default() };
        assert_eq!(holder.to_string(), "in use by frazil (pid 812)");
        holder.mount_point = Some("/mnt".into());
        let text = "in use by frazil (pid 812), mounted at /mnt; unmount it with: frazil umount /mnt";
        assert_eq!(holder.to_string(), text);
        holder.kernel = Some("the kernel's ext4".into());
        let text = "in use by the kernel's ext4, mounted at /mnt; unmount it with: umount /mnt";
        assert_eq!(holder.to_string(), text);
        assert_eq!(Holder::default().to_string(), "in use by another process");
    }
}
