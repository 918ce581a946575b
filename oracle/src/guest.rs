//! The part that runs in the machine.
//!
//! `oracle guest DIR` does the jobs of `DIR/batch.json` one after the other and writes down in the same directory what
//! came of each step before it takes the next: when the power is cut or the kernel goes down, the host knows how far it
//! came. It runs as root in a machine that is thrown away; nothing is cleaned up that the next job does not trip over.

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::JoinHandle;

use frazil_testing::compare::{Comparison, ObservedEntry};
use frazil_testing::manifest::Manifest;
use frazil_testing::observe;
use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::superblock;
use crate::wire::{self, Batch, Event, GuestJob, GuestMount, Happened, Said, file};

/// Where volumes are mounted.
const MOUNT_POINT: &str = "/tmp/mnt";

/// Bytes of the largest message the kernel's log gives at once.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Does everything the shared directory asks for.
pub fn run(shared: &Path) -> ExitCode {
    match batch(shared) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("guest: {why}");
            ExitCode::FAILURE
        }
    }
}

fn batch(shared: &Path) -> io::Result<()> {
    let batch: Batch = serde_json::from_slice(&std::fs::read(shared.join(wire::BATCH))?)?;
    let follower = follow_kernel_log(File::create(shared.join(wire::KERNEL))?)?;
    let mut guest = Guest {
        shared: shared.to_path_buf(),
        events: File::create(shared.join(wire::EVENTS))?,
        console: OpenOptions::new().write(true).open("/dev/console")?,
        kernel_log: OpenOptions::new().write(true).open("/dev/kmsg")?,
    };
    for job in &batch.jobs {
        guest.job(job)?;
    }
    guest.log(wire::LAST_MESSAGE)?;
    follower.join().map_err(|_| io::Error::other("the kernel's log could not be followed"))?;
    guest.say(&Said::End)
}

struct Guest {
    shared: PathBuf,
    events: File,
    console: File,
    kernel_log: File,
}

impl Guest {
    fn say(&mut self, said: &Said) -> io::Result<()> {
        self.console.write_all(format!("{}\n", said.to_line()).as_bytes())
    }

    /// Adds a message to the kernel's log. Without its newline it would wait for more, and nobody would get to read it.
    fn log(&mut self, message: &str) -> io::Result<()> {
        self.kernel_log.write_all(format!("{message}\n").as_bytes())
    }

    fn job(&mut self, job: &GuestJob) -> io::Result<()> {
        self.say(&Said::Begin(job.job))?;
        if let Some(key) = &job.key {
            let ring = KeyRing::from_special_id(KeyRingIdentifier::User, true).map_err(keyring)?;
            ring.add_key(&key.description, &key.payload).map_err(keyring)?;
        }
        for (number, wanted) in job.mounts.iter().enumerate() {
            self.log(&wire::separator(job.job, number))?;
            let counts = || superblock::error_counts(job.source.split(':').map(Path::new));
            let before = counts();
            let mut step = Step { guest: self, job: job.job, mount: number };
            if let Err(why) = step.mounted(&job.source, wanted) {
                step.happened(Happened::Failed(why))?;
            }
            let since = counts()
                .into_iter()
                .map(|(id, count)| (id, count - before.get(&id).unwrap_or(&0).min(&count)));
            step.happened(Happened::Counted(since.filter(|&(_, count)| count > 0).collect()))?;
        }
        Ok(())
    }
}

fn keyring(error: KeyError) -> io::Error {
    io::Error::other(format!("keyring: {error}"))
}

/// One mount of one job.
struct Step<'g> {
    guest: &'g mut Guest,
    job: usize,
    mount: usize,
}

impl Step<'_> {
    fn happened(&mut self, what: Happened) -> io::Result<()> {
        let event = Event { job: self.job, mount: self.mount, what };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        self.guest.events.write_all(&line)
    }

    fn note(&mut self, what: Happened) -> Result<(), String> {
        self.happened(what).map_err(|e| format!("writing to the shared directory: {e}"))
    }

    fn file(&self, kind: &str) -> PathBuf {
        file(&self.guest.shared, self.job, self.mount, kind)
    }

    /// Mounts, does what is wanted, and unmounts whatever came of that.
    fn mounted(&mut self, source: &str, wanted: &GuestMount) -> Result<(), String> {
        let (flags, data) = split_options(&wanted.options);
        let point = Path::new(MOUNT_POINT);
        let data = CString::new(data).map_err(|e| e.to_string())?;
        mount(source, point, "bcachefs", flags, Some(data.as_c_str())).map_err(|e| format!("mount: {e}"))?;
        self.note(Happened::Mounted)?;
        let done = self.inside(point, wanted);
        let out = unmount(point, UnmountFlags::empty()).map_err(|e| format!("unmount: {e}"));
        if out.is_err() {
            // A process of the script may still be there. What comes next needs the mount point.
            let _ = unmount(point, UnmountFlags::DETACH);
        }
        done.and(out)?;
        self.note(Happened::Unmounted)
    }

    fn inside(&mut self, root: &Path, wanted: &GuestMount) -> Result<(), String> {
        if wanted.script {
            let status = self.script(root).map_err(|e| format!("script: {e}"))?;
            self.note(Happened::Script(status))?;
        }
        if !wanted.walk && !wanted.compare {
            return Ok(());
        }
        let tree = walk(root).map_err(|e| format!("walk: {e}"))?;
        if wanted.walk {
            let text = Manifest::of_tree("Linux 6.12", tree.clone()).to_text();
            std::fs::write(self.file("tree"), text).map_err(|e| format!("walk: {e}"))?;
            self.note(Happened::Walked)?;
        }
        if wanted.compare {
            let text =
                std::fs::read_to_string(self.file("expected")).map_err(|e| format!("manifest: {e}"))?;
            let manifest = Manifest::parse(&text).map_err(|e| format!("manifest: {e}"))?;
            let found = Comparison::new(&manifest).run(tree, |path| observe::content(root, path));
            self.note(Happened::Compared(found))?;
        }
        Ok(())
    }

    /// Runs the script in the mounted directory; its exit status.
    fn script(&mut self, root: &Path) -> io::Result<i32> {
        let script = self.file("script");
        let text = std::fs::read(&script)?;
        let output = File::create(self.file("output"))?;
        let mut command = if text.starts_with(b"#!") {
            std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
            Command::new(&script)
        } else {
            let mut shell = Command::new("/bin/sh");
            let mark = format!("mark() {{ echo \"{}mark $*\" >/dev/console; }}; . \"$0\"", wire::CONSOLE);
            shell.args(["-eu", "-c", &mark]).arg(&script);
            shell
        };
        self.guest.say(&Said::Script(self.mount))?;
        let status = command
            .current_dir(root)
            .env("MNT", root)
            .env("OUT", wire::out(&self.guest.shared, self.job))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }
}

/// The tree, with the times that nothing here changes.
fn walk(root: &Path) -> io::Result<Vec<ObservedEntry>> {
    let mut tree = observe::tree(root)?;
    for entry in &mut tree {
        let meta = root.join(OsStr::from_bytes(&entry.path)).symlink_metadata()?;
        entry.ctime_ns = Some(meta.ctime() * 1_000_000_000 + meta.ctime_nsec());
        entry.atime_ns = Some(meta.atime() * 1_000_000_000 + meta.atime_nsec());
    }
    Ok(tree)
}

/// The options that are flags of the system call, and the rest, which the driver reads.
fn split_options(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut rest = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "noatime" => flags |= MountFlags::NOATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "lazytime" => flags |= MountFlags::LAZYTIME,
            other => rest.push(other),
        }
    }
    (flags, rest.join(","))
}

/// Copies the kernel's messages from now on, each as a JSON string in a line, until ours that is the last.
fn follow_kernel_log(mut out: File) -> io::Result<JoinHandle<()>> {
    let mut log = File::open("/dev/kmsg")?;
    log.seek(SeekFrom::End(0))?;
    Ok(std::thread::spawn(move || {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let len = match log.read(&mut buffer) {
                Ok(len) => len,
                // Messages were overwritten before we came to read them; go on with the oldest there is.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => continue,
                Err(_) => return,
            };
            let message = message(&buffer[..len]);
            let last = message == wire::LAST_MESSAGE;
            let line = serde_json::to_string(&message).expect("a string is JSON");
            if writeln!(out, "{line}").is_err() || last {
                return;
            }
        }
    }))
}

/// The text of a record `PRIORITY,NUMBER,TIME,FLAGS;TEXT` and its escapes resolved; what follows the first line is about devices.
fn message(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    let text = text.split_once(';').map_or(&*text, |(_, text)| text);
    let text = text.split('\n').next().unwrap_or_default();
    let mut parts = text.split("\\x");
    let mut resolved = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                resolved.push(byte);
                resolved.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => resolved.extend_from_slice(format!("\\x{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&resolved).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_messages() {
        assert_eq!(
            message(b"6,500,8623323,-;bcachefs (vda): a; b\n SUBSYSTEM=block\n"),
            "bcachefs (vda): a; b"
        );
        assert_eq!(message(b"3,1,2,-;two\\x0alines \\xc3\\xbc \\xzz\n"), "two\nlines \u{fc} \\xzz");
    }

    #[test]
    fn options_are_told_from_flags() {
        let (flags, rest) = split_options("ro,fsck,noatime,fix_errors=no");
        assert_eq!((flags, &*rest), (MountFlags::RDONLY | MountFlags::NOATIME, "fsck,fix_errors=no"));
        assert_eq!(split_options(""), (MountFlags::empty(), String::new()));
    }
}
