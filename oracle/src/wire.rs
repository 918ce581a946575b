//! What host and guest write for each other.
//!
//! They share one directory, through the emulator, without caching: what the guest has written is there when the power is cut.
//!
//! | file | written by | what |
//! |---|---|---|
//! | `oracle` | host | the program that runs in the guest |
//! | `batch.json` | host | a [`Batch`] |
//! | `job-N-mount-M.script`, `.expected` | host | a script; a manifest |
//! | `events.jsonl` | guest | an [`Event`] per line, as they happen |
//! | `kernel.jsonl` | guest | a message of the kernel per line, as a JSON string; [`separator`]s tell which mount they belong to |
//! | `job-N-mount-M.tree`, `.output` | guest | the tree as a manifest; what the script printed |
//! | `job-N-out/` | guest | what scripts put there |
//! | `console.log`, `qemu.log` | host | everything on the console; what the emulator said |
//!
//! On the console the guest prints lines that start with [`CONSOLE`], so that the host knows at once how far it is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What the host listens for on the console.
pub const CONSOLE: &str = "@@oracle ";

/// Name of the host's program in the shared directory.
pub const PROGRAM: &str = "oracle";
/// Name of the [`Batch`].
pub const BATCH: &str = "batch.json";
/// Name of the list of [`Event`]s.
pub const EVENTS: &str = "events.jsonl";
/// Name of the list of kernel messages.
pub const KERNEL: &str = "kernel.jsonl";

/// Everything one boot is to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The jobs, in their order.
    pub jobs: Vec<GuestJob>,
}

/// One job, as the guest needs to know it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestJob {
    /// What the host calls it.
    pub job: usize,
    /// What to mount: `/dev/vda`, or several joined by colons.
    pub source: String,
    /// What unlocks it.
    pub key: Option<KeyringKey>,
    /// Its mounts, in their order.
    pub mounts: Vec<GuestMount>,
}

/// A key of type `user` for the user's keyring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyringKey {
    /// Its name.
    pub description: String,
    /// Its 32 bytes.
    pub payload: Vec<u8>,
}

/// One mount, as the guest needs to know it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestMount {
    /// As `mount -o` takes them.
    pub options: String,
    /// Run the script that lies beside.
    pub script: bool,
    /// Walk the tree.
    pub walk: bool,
    /// Compare with the manifest that lies beside.
    pub compare: bool,
}

/// Something that happened in the guest, to the mount it is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The job.
    pub job: usize,
    /// The mount, counted from 0.
    pub mount: usize,
    /// What happened.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It is mounted.
    Mounted,
    /// Something could not be done; what and why.
    Failed(String),
    /// The script ended with this status.
    Script(i32),
    /// The tree was walked.
    Walked,
    /// The tree was compared; every difference.
    Compared(Vec<String>),
    /// It is unmounted.
    Unmounted,
    /// Numbers of inconsistencies that the driver counted meanwhile, and how many of each.
    Counted(Vec<(u16, u64)>),
}

/// What the guest says on the console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// It starts with this job.
    Begin(usize),
    /// It starts the script of this mount of the job it is at.
    Script(usize),
    /// A script set a mark.
    Mark(String),
    /// It is through with all jobs.
    End,
}

impl Said {
    /// The line to print.
    pub fn to_line(&self) -> String {
        match self {
            Said::Begin(job) => format!("{CONSOLE}begin {job}"),
            Said::Script(mount) => format!("{CONSOLE}script {mount}"),
            Said::Mark(name) => format!("{CONSOLE}mark {name}"),
            Said::End => format!("{CONSOLE}end"),
        }
    }

    /// What a console line says, if it is one of the guest's. A message of the kernel may stand before it.
    pub fn parse(line: &str) -> Option<Said> {
        let said = line.split_once(CONSOLE)?.1.trim_end();
        match said.split_once(' ').unwrap_or((said, "")) {
            ("begin", job) => job.parse().ok().map(Said::Begin),
            ("script", mount) => mount.parse().ok().map(Said::Script),
            ("mark", name) => Some(Said::Mark(name.to_owned())),
            ("end", "") => Some(Said::End),
            _ => None,
        }
    }
}

/// What the guest writes into the kernel's log before it makes a mount.
pub fn separator(job: usize, mount: usize) -> String {
    format!("frazil-oracle: job {job} mount {mount}")
}

/// What the guest writes into the kernel's log when it is through.
pub const LAST_MESSAGE: &str = "frazil-oracle: end";

/// Path of the directory for what scripts of one job want to hand back.
pub fn out(dir: &Path, job: usize) -> PathBuf {
    dir.join(format!("job-{job}-out"))
}

/// Path of a file about one mount.
pub fn file(dir: &Path, job: usize, mount: usize, kind: &str) -> PathBuf {
    dir.join(format!("job-{job}-mount-{mount}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for said in [Said::Begin(12), Said::Script(1), Said::Mark("two words".to_owned()), Said::End] {
            assert_eq!(Said::parse(&format!("[ 1.0] noise{}\r", said.to_line())), Some(said));
        }
        assert_eq!(Said::parse("@@oracle begin x"), None);
        assert_eq!(Said::parse("end"), None);
    }
}
