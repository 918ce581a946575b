//! What a boot left behind in the shared directory, as verdicts.
//!
//! The guest may have been interrupted anywhere, so a last line that is cut short is no surprise; anything else that
//! cannot be read is an error of ours.

use std::collections::BTreeMap;
use std::path::Path;

use frazil_testing::manifest::Manifest;
use serde::de::DeserializeOwned;

use super::{End, Pending};
use crate::error::OracleError;
use crate::verdict::{Counted, MountVerdict, Outcome, ScriptResult, Verdict};
use crate::wire::{self, Event, Happened};

/// The verdicts of the jobs that were begun.
pub(super) fn verdicts(shared: &Path, jobs: &[Pending], end: End) -> Result<Vec<Verdict>, OracleError> {
    let events: Vec<Event> = lines(&shared.join(wire::EVENTS))?;
    let mut logs = logs(lines(&shared.join(wire::KERNEL))?);
    let mut verdicts = Vec::new();
    for (number, pending) in jobs.iter().enumerate().take(end.job + 1) {
        let mut mounts = Vec::new();
        for (mount, asked) in pending.job.mounts.iter().enumerate() {
            let Some(log) = logs.remove(&(number, mount)) else { break };
            let mut verdict = MountVerdict { options: asked.options.clone(), log, ..MountVerdict::default() };
            for event in events.iter().filter(|event| (event.job, event.mount) == (number, mount)) {
                take_in(&mut verdict, event, shared)?;
            }
            mounts.push(verdict);
        }
        let outcome = outcome(number, pending.job.cut.is_some(), &end);
        let (name, devices) = (pending.job.name.clone(), pending.devices.clone());
        verdicts.push(Verdict { name, outcome, devices, mounts, files: files(&wire::out(shared, number))? });
    }
    Ok(verdicts)
}

/// How a job ended, given how the boot ended.
fn outcome(number: usize, to_be_cut: bool, end: &End) -> Outcome {
    match &end.outcome {
        _ if number < end.job => Outcome::Finished,
        Outcome::Finished if to_be_cut => Outcome::NeverCut,
        outcome => outcome.clone(),
    }
}

/// Adds what an event tells to the verdict about its mount.
fn take_in(verdict: &mut MountVerdict, event: &Event, shared: &Path) -> Result<(), OracleError> {
    let text = |kind: &str| {
        let path = wire::file(shared, event.job, event.mount, kind);
        let bytes = std::fs::read(&path).map_err(OracleError::io(&path))?;
        Ok::<_, OracleError>(String::from_utf8_lossy(&bytes).into_owned())
    };
    match &event.what {
        Happened::Mounted => verdict.mounted = true,
        Happened::Failed(why) => verdict.error = Some(why.clone()),
        Happened::Script(status) => {
            verdict.script = Some(ScriptResult { status: *status, output: text("output")? })
        }
        Happened::Walked => {
            let manifest = Manifest::parse(&text("tree")?);
            verdict.tree = Some(manifest.map_err(|why| OracleError::Guest { what: "tree".to_owned(), why })?);
        }
        Happened::Compared(differences) => verdict.differences = Some(differences.clone()),
        Happened::Unmounted => verdict.unmounted = true,
        Happened::Counted(counts) => {
            verdict.counted = counts.iter().map(|&(id, count)| Counted::new(id, count)).collect()
        }
    }
    Ok(())
}

/// The kernel's messages by job and mount.
fn logs(messages: Vec<String>) -> BTreeMap<(usize, usize), Vec<String>> {
    let mut logs: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for message in messages {
        if let Some(place) = separated(&message) {
            logs.entry(place).or_default();
            current = Some(place);
        } else if message == wire::LAST_MESSAGE {
            current = None;
        } else if let Some(log) = current.and_then(|place| logs.get_mut(&place)) {
            log.push(message);
        }
    }
    logs
}

/// The job and mount of a [`wire::separator`].
fn separated(message: &str) -> Option<(usize, usize)> {
    let (job, mount) = message.strip_prefix("frazil-oracle: job ")?.split_once(" mount ")?;
    Some((job.parse().ok()?, mount.parse().ok()?))
}

/// The lines of a file as values. One that was never written has none.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, OracleError> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _cut_short)| whole);
    let what = path.file_name().unwrap_or_default().to_string_lossy();
    let parse = |line| {
        serde_json::from_str(line)
            .map_err(|e| OracleError::Guest { what: what.clone().into_owned(), why: e.to_string() })
    };
    whole.lines().map(parse).collect()
}

/// The files a script left, by name.
fn files(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, OracleError> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(OracleError::io(dir))? {
        let path = entry.map_err(OracleError::io(dir))?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, std::fs::read(&path).map_err(OracleError::io(&path))?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_their_mounts() {
        let messages = [
            "early",
            &wire::separator(0, 0),
            "a",
            &wire::separator(0, 1),
            &wire::separator(1, 0),
            "b",
            wire::LAST_MESSAGE,
            "c",
        ];
        let logs = logs(messages.map(str::to_owned).to_vec());
        assert_eq!(logs[&(0, 0)], ["a"]);
        assert_eq!(logs[&(0, 1)], [""; 0]);
        assert_eq!(logs[&(1, 0)], ["b"]);
        assert_eq!(logs.len(), 3);
    }

    #[test]
    fn only_the_last_job_ends_as_the_boot_did() {
        let cut = End { job: 1, outcome: Outcome::PowerCut };
        assert_eq!([0, 1].map(|job| outcome(job, job == 1, &cut)), [Outcome::Finished, Outcome::PowerCut]);
        let through = End { job: 0, outcome: Outcome::Finished };
        assert_eq!(outcome(0, false, &through), Outcome::Finished);
        assert_eq!(outcome(0, true, &through), Outcome::NeverCut);
    }

    #[test]
    fn a_line_cut_short_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "\"one\"\n\"two\"\n\"thr").unwrap();
        assert_eq!(lines::<String>(&path).unwrap(), ["one", "two"]);
        std::fs::write(&path, "one\n").unwrap();
        assert!(lines::<String>(&path).is_err());
        assert_eq!(lines::<String>(&dir.path().join("absent")).unwrap(), [""; 0]);
    }
}
