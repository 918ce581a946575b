//! One emulated machine: a QEMU process, the lines of its console, and its end.
//!
//! One virtual processor: on a busy host two lock each other out. Software emulation, because hardware acceleration is
//! missing in most places where tests run. The disks are attached with the cache mode `unsafe`: what the guest's driver has
//! written is in the file (in the host's page cache) at once, so killing the process is a power cut that keeps every
//! completed write.
//!
//! The process never outlives us: it is killed when the value is dropped, and by the kernel (`setpriv --pdeathsig`) when
//! we die without dropping anything.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use crate::error::OracleError;
use crate::prepare::Prepared;

/// Memory of the machine in MiB.
const MEMORY_MIB: u32 = 1024;

/// Most disks one machine takes: each is a device on a bus with 32 places, some of them taken.
pub const DISKS_MAX: usize = 20;

/// Console lines kept for a report.
const TAIL_LINES: usize = 60;

/// The kernel's command line. Quiet but for its death; every crash ends the machine; the log keeps all that is said; no
/// self-tests of ciphers; patience with an emulated processor on a busy host.
/// `no_timer_check`: on a busy host the emulated timer is so late at boot that the kernel takes it for broken and panics.
const COMMAND_LINE: &str = "console=ttyS0 no_timer_check loglevel=1 panic=-1 oops=panic softlockup_panic=1 watchdog_thresh=60 \
     rcupdate.rcu_cpu_stall_suppress=1 log_buf_len=8M printk.devkmsg=on cryptomgr.notests mitigations=off \
     random.trust_cpu=on";

/// A disk of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// The file behind it.
    pub file: PathBuf,
    /// What is written vanishes with the machine.
    pub discard: bool,
}

/// What the console gave within a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A line.
    Line(String),
    /// Nothing until the time was over.
    Silence,
    /// The machine is off.
    Off,
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    lines: Receiver<String>,
    log: File,
    tail: Vec<String>,
    complaints: PathBuf,
}

impl Machine {
    /// Starts a machine with these disks (`/dev/vda`, `/dev/vdb` …) that shares `shared` with us.
    ///
    /// # Errors
    /// If the emulator cannot be started.
    pub fn start(prepared: &Prepared, shared: &Path, disks: &[Disk]) -> Result<Machine, OracleError> {
        let complaints = shared.join("qemu.log");
        let log_path = shared.join("console.log");
        let errors = File::create(&complaints).map_err(OracleError::io(&complaints))?;
        let log = File::create(&log_path).map_err(OracleError::io(&log_path))?;
        let mut process = emulator(prepared, shared, disks)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(OracleError::io("setpriv"))?;
        let console = process.stdout.take().expect("its output was piped");
        let (sender, lines) = channel();
        // The thread ends with the process: nobody else has the other end of the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n') {
                let Ok(line) = line else { break };
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Machine { process, lines, log, tail: Vec::new(), complaints })
    }

    /// The next line of the console, or what else there is to know by `deadline`.
    pub fn hear(&mut self, deadline: Instant) -> Heard {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                // The log is for people; the line itself is what counts.
                let _ = writeln!(self.log, "{line}");
                if self.tail.len() == TAIL_LINES {
                    self.tail.remove(0);
                }
                self.tail.push(line.clone());
                Heard::Line(line)
            }
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::Off,
        }
    }

    /// Cuts the power.
    pub fn kill(&mut self) {
        // It may be off already, and there is nothing else that could go wrong with a child of ours.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// The last lines of the console, then what the emulator said.
    pub fn last_words(&self) -> Vec<String> {
        let mut words = self.tail.clone();
        let complaints = std::fs::read_to_string(&self.complaints).unwrap_or_default();
        words.extend(complaints.lines().map(str::to_owned));
        words
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn emulator(prepared: &Prepared, shared: &Path, disks: &[Disk]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    // Where the emulator keeps what is to be discarded.
    command.env("TMPDIR", shared);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", &MEMORY_MIB.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(&prepared.kernel.image).arg("-initrd").arg(&prepared.initramfs);
    command.args(["-append", COMMAND_LINE]);
    share(&mut command, "root", Path::new("/"), ",readonly=on,multidevs=remap");
    share(&mut command, "shared", shared, "");
    for disk in disks {
        let snapshot = if disk.discard { ",snapshot=on" } else { "" };
        let file = escaped(&disk.file);
        command.arg("-drive");
        command.arg(format!("if=virtio,format=raw,cache=unsafe,discard=unmap{snapshot},file={file}"));
    }
    command
}

/// A directory of ours that the guest can mount by `tag`.
fn share(command: &mut Command, tag: &str, path: &Path, options: &str) {
    let path = escaped(path);
    command.arg("-fsdev").arg(format!("local,id={tag},path={path},security_model=none{options}"));
    command.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
}

/// A path as a value among comma-separated options.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
