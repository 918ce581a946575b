//! The answer: what the driver did with a volume, and what it said.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use frazil_ondisk::fsck_errors::FsckErrorId;
use frazil_testing::manifest::Manifest;
use serde::Serialize;

use crate::messages::{self, Complaint};

/// What came of one [`Job`](crate::Job).
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    /// Name of the job.
    pub name: String,
    /// How the job ended.
    pub outcome: Outcome,
    /// Where the volume is now: the given files, or the copies that were asked for.
    pub devices: Vec<PathBuf>,
    /// Its mounts, as far as the job came.
    pub mounts: Vec<MountVerdict>,
    /// The files that scripts left in `$OUT`, by name.
    #[serde(skip)]
    pub files: BTreeMap<String, Vec<u8>>,
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It came to its end.
    Finished,
    /// The power was cut, as the job wanted.
    PowerCut,
    /// It came to its end, although the power was to be cut: the script ended before, or never set the mark.
    NeverCut,
    /// The kernel went down or locked up. The lines are the last of the console.
    Crashed(Vec<String>),
    /// It took longer than it was allowed. The lines are the last of the console.
    TimedOut(Vec<String>),
}

/// What came of one mount.
#[derive(Clone, PartialEq, Default, Serialize)]
pub struct MountVerdict {
    /// The options it was made with.
    pub options: String,
    /// Whether it could be mounted.
    pub mounted: bool,
    /// Why it could not be mounted or unmounted, or the walk failed.
    pub error: Option<String>,
    /// Everything the kernel said from before the mount to after the unmount, a message each.
    pub log: Vec<String>,
    /// What the script came to, if there was one and it ended.
    pub script: Option<ScriptResult>,
    /// The tree as the driver showed it, if a walk was asked for.
    #[serde(skip)]
    pub tree: Option<Manifest>,
    /// Every difference to the expected manifest, if there was one.
    pub differences: Option<Vec<String>>,
    /// Whether it was unmounted again.
    pub unmounted: bool,
    /// The inconsistencies that the driver counted in the superblock from before the mount to after the unmount, printed
    /// or not. Not known of a mount that a power cut or a crash ended.
    pub counted: Vec<Counted>,
}

/// An inconsistency that the driver found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Counted {
    /// Its stable number (spec 10, appendix A).
    pub id: u16,
    /// Its name, if it is known to us.
    pub name: Option<&'static str>,
    /// How often the driver counted it; one inconsistency may count more than once.
    pub count: u64,
}

impl Counted {
    /// What the driver counted under this number.
    pub fn new(id: u16, count: u64) -> Counted {
        Counted { id, name: FsckErrorId(id).name(), count }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "counted in the superblock: {} ({}), {} times",
            self.name.unwrap_or("?"),
            self.id,
            self.count
        )
    }
}

/// What a script came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScriptResult {
    /// Its exit status; 128 and the number of the signal that ended it.
    pub status: i32,
    /// What it printed on its standard output and error.
    pub output: String,
}

/// All but the tree, which would hide everything else; of it only the number of entries.
impl fmt::Debug for MountVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountVerdict")
            .field("options", &self.options)
            .field("mounted", &self.mounted)
            .field("error", &self.error)
            .field("log", &self.log)
            .field("script", &self.script)
            .field("tree_entries", &self.tree.as_ref().map(|tree| tree.entries.len()))
            .field("differences", &self.differences)
            .field("unmounted", &self.unmounted)
            .field("counted", &self.counted)
            .finish()
    }
}

impl MountVerdict {
    /// The messages that mean a repair, an error, or something unknown.
    pub fn complaints(&self) -> Vec<Complaint> {
        messages::complaints(&self.log)
    }
}

impl Verdict {
    /// Everything that is not as it should be, one line each: a mount that failed, a repair or error the kernel spoke of,
    /// or counted, a difference to the manifest, a script that failed, a job that did not come to its end. A power cut is what
    /// the job wanted, and no objection.
    pub fn objections(&self) -> Vec<String> {
        let mut found = Vec::new();
        for mount in &self.mounts {
            let mut object = |what: String| {
                found.push(format!("{} (mounted with '{}'): {what}", self.name, mount.options))
            };
            mount.error.iter().for_each(|error| object(error.clone()));
            mount.complaints().iter().for_each(|complaint| object(complaint.to_string()));
            mount.counted.iter().for_each(|counted| object(counted.to_string()));
            if let Some(script) = mount.script.as_ref().filter(|script| script.status != 0) {
                object(format!("the script failed with status {}: {}", script.status, script.output.trim()));
            }
            mount.differences.iter().flatten().for_each(|line| object(line.clone()));
        }
        match &self.outcome {
            Outcome::Finished | Outcome::PowerCut => {}
            Outcome::NeverCut => found.push(format!("{}: ended before its power was cut", self.name)),
            Outcome::Crashed(console) => {
                found.push(format!("{}: the kernel crashed:\n{}", self.name, console.join("\n")))
            }
            Outcome::TimedOut(console) => {
                found.push(format!("{}: took too long; the console:\n{}", self.name, console.join("\n")));
            }
        }
        found
    }

    /// The tree of the last mount that was walked.
    pub fn tree(&self) -> Option<&Manifest> {
        self.mounts.iter().rev().find_map(|mount| mount.tree.as_ref())
    }
}
