//! What the kernel's messages mean.
//!
//! The driver announces what it does anyway: that it starts, how the volume was left, each recovery pass, that it is
//! through. Those messages are known one by one and are no news. *Everything* else it says is a complaint, also what
//! nobody foresaw: a new message must be looked at by a person before it is called harmless. How a complaint is worded
//! decides only what kind it is reported as.
//!
//! The kernel has a few remarks of its own about a slow machine; those are left out. Warnings and stack traces are not.

use std::fmt;

use serde::Serialize;

/// What the driver says in the course of events, behind its `bcachefs (NAME): `. A message of this kind starts so.
const NO_NEWS: [&str; 10] = [
    "starting version ",
    "recovering from clean shutdown",
    "recovering from unclean shutdown",
    "journal read done, replaying entries ",
    "dropped unflushed entries ",
    "going read-write",
    "shutdown complete",
    "initializing new filesystem",
    "initializing freespace",
    // Its copygc found something to do at the mount, and was at it when the unmount came: what it had not moved stays (spec 50 §6.8).
    "bch2_evacuate_bucket(): error flushing btree write buffer erofs_no_writes",
];

/// What the kernel says about a machine that is emulated on a busy host, and our own separators.
const SLOW_MACHINE: [&str; 8] = [
    "clocksource: ",
    "frazil-oracle: ",
    "hrtimer: interrupt took",
    "perf: interrupt took too long",
    "random: ",
    "sched_clock: ",
    "tsc: ",
    "workqueue: ",
];

/// A message that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Complaint {
    /// What it seems to be about.
    pub kind: Kind,
    /// The message.
    pub message: String,
}

/// What a complaint seems to be about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something was repaired.
    Repair,
    /// Something is wrong, and stays so.
    Error,
    /// The kernel itself stumbled: a warning with a stack trace, a task that hangs.
    Kernel,
    /// Nobody has said yet what this means.
    Unknown,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Repair => "repair",
            Kind::Error => "error",
            Kind::Kernel => "kernel",
            Kind::Unknown => "unknown message",
        };
        write!(f, "{kind}: {}", self.message)
    }
}

/// The complaints among the kernel's messages. The driver describes a key in many lines, each a message of its own and
/// only the first with its name: they are one complaint.
pub fn complaints(log: &[String]) -> Vec<Complaint> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for message in log {
        let begins = said_by_driver(message).is_some();
        match found.last_mut() {
            _ if is_harmless(message) => open &= message.trim().is_empty(),
            Some(complaint) if open && !begins => {
                complaint.push('\n');
                complaint.push_str(message);
                open = !says_what_is_done(message);
            }
            _ => {
                found.push(message.clone());
                open = !says_what_is_done(message);
            }
        }
    }
    found.into_iter().map(|message| Complaint { kind: kind_of(&message), message }).collect()
}

fn is_harmless(message: &str) -> bool {
    match said_by_driver(message) {
        Some(said) => is_no_news(said),
        // `done` alone is the end of a pass whose announcement was interrupted by another message.
        None => {
            matches!(message.trim(), "" | "done")
                || SLOW_MACHINE.iter().any(|start| message.starts_with(start))
        }
    }
}

/// The words a complaint of the driver's check ends with.
fn says_what_is_done(message: &str) -> bool {
    ["fixing", "exiting"].iter().any(|end| message.trim_end().ends_with(end))
}

/// What stands behind `bcachefs (NAME): `.
fn said_by_driver(message: &str) -> Option<&str> {
    message.strip_prefix("bcachefs")?.split_once(": ").map(|(_, said)| said.trim())
}

fn is_no_news(said: &str) -> bool {
    NO_NEWS.iter().any(|start| said.starts_with(start)) || is_pass(said) || said == "done"
}

/// The announcement of a recovery pass: `check_inodes...`, and ` done` where nothing came between.
fn is_pass(said: &str) -> bool {
    let name = said.strip_suffix(" done").unwrap_or(said).strip_suffix("...");
    name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

fn kind_of(said: &str) -> Kind {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["WARNING:", "BUG:", "Oops", "Call Trace", "blocked for more than"]) {
        Kind::Kernel
    } else if has(&[
        "not fixing",
        "exiting",
        "error",
        "Error",
        "shutting down",
        "read-only",
        "cannot",
        "unable",
        "unfixed",
    ]) {
        Kind::Error
    } else if has(&["fixing", "fixed", "repair", "deleting", "rewriting", "dropping"]) {
        Kind::Repair
    } else {
        Kind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frazil_testing::golden;

    fn kind(message: &str) -> Option<Kind> {
        complaints(&[message.to_owned()]).first().map(|complaint| complaint.kind)
    }

    #[test]
    fn what_the_driver_said_when_it_recovered_is_no_news_unless_it_failed() {
        for image in golden::all() {
            let Some(log) = image.reference("recovery-dmesg") else { continue };
            let log: Vec<_> = log.lines().map(str::to_owned).collect();
            let found: Vec<_> = complaints(&log).into_iter().map(|c| c.kind).collect();
            // An orphan in a volume that is marked clean: a plain mount fails, as the collection's notes say.
            let failed = image.name == "15-frozen-orphan";
            assert_eq!(found, if failed { vec![Kind::Error; 2] } else { vec![] }, "{}", image.name);
        }
    }

    #[test]
    fn everything_else_is_a_complaint() {
        assert_eq!(kind("bcachefs (vda): check_inodes..."), None);
        assert_eq!(kind(" done"), None);
        assert_eq!(kind("bcachefs (5a7e): alloc key has wrong data type, fixing"), Some(Kind::Repair));
        assert_eq!(kind("bcachefs (vda): alloc key has wrong data type, not fixing"), Some(Kind::Error));
        assert_eq!(kind("bcachefs (vda): something nobody has seen before"), Some(Kind::Unknown));
        assert_eq!(kind("WARNING: CPU: 0 PID: 1 at fs/x.c"), Some(Kind::Kernel));
        assert_eq!(kind("hrtimer: interrupt took 12345 ns"), None);
    }

    #[test]
    fn the_lines_about_one_key_are_one_complaint() {
        let log = [
            "bcachefs (vda): check_inodes...",
            "unreachable inode:",
            "inum: 4181:4294967295 ",
            "  bi_nocow=0, fixing",
            "another one, not fixing",
            " done",
            "bcachefs (vda): inconsistency",
            "bcachefs (vda): error",
        ];
        let found = complaints(&log.map(str::to_owned));
        let seen: Vec<_> = found.iter().map(|c| (c.kind, c.message.lines().count())).collect();
        assert_eq!(seen, [(Kind::Repair, 3), (Kind::Error, 1), (Kind::Unknown, 1), (Kind::Error, 1)]);
    }
}
