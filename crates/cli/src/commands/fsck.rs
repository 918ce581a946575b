//! `frazil fsck`: does everything that a volume stores twice agree?
//!
//! Only the check exists so far, so `-n` must be given: nothing is ever written. Each finding is a line: how bad it is, its stable
//! name and number, and what is wrong where. The last line sums up.
//!
//! The exit codes are those of fsck(8), because that is who calls this: 0 nothing is wrong, 4 something is, 8 it cannot be checked,
//! 16 wrong usage.

use std::io::Write;

use frazil_ondisk::fsck_errors::FsckErrorId;
use frazil_volume::check::{Report, Severity, check};
use serde::Serialize;

use super::{Out, json_line};
use crate::open::{Devices, OpenArgs};
use crate::say;
use crate::stop::{Done, Outcome, Stop};

/// Check a volume: does everything that is stored twice agree?
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 nothing is wrong; 4 something is wrong; 8 the volume cannot be opened; 16 wrong usage

Examples:
  frazil fsck -n /dev/sdb1
  frazil fsck -n --json disk.img | jq -r .name | sort | uniq -c")]
pub(crate) struct Args {
    #[command(flatten)]
    devices: Devices,
    /// Only check, and write nothing; needed, as there is no repair yet
    #[arg(short = 'n', long = "no-changes")]
    no_changes: bool,
    /// One JSON object per finding, and one that sums up
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    if !args.no_changes {
        return Err(stop(USAGE, NO_REPAIR));
    }
    let volume = args.open.volume(&args.devices.paths()).map_err(cannot_check)?;
    let report = check(&volume);
    report.notices.iter().for_each(say::note);
    show(&report, args.json, out)?;
    if report.is_clean() { Ok(Done::All) } else { Err(Stop::Code(FOUND_ERRORS)) }
}

/// Exit code of fsck(8): errors were found and not corrected.
const FOUND_ERRORS: u8 = 4;
/// Exit code of fsck(8): the volume cannot be checked.
const CANNOT_CHECK: u8 = 8;
/// Exit code of fsck(8): wrong usage.
pub(crate) const USAGE: u8 = 16;

const NO_REPAIR: &str = "there is no repair yet; check without changing anything with: frazil fsck -n";

/// Says why, and ends with this code.
fn stop(code: u8, why: &str) -> Stop {
    say::error(why);
    Stop::Code(code)
}

/// An error of opening, with the exit code that fsck(8) has for it.
fn cannot_check(error: Stop) -> Stop {
    match error {
        Stop::Failed(why) => stop(CANNOT_CHECK, &why),
        Stop::Usage(why) => stop(USAGE, &why),
        other => other,
    }
}

/// A line of the JSON output.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    Finding { severity: &'static str, id: u16, name: &'a str, text: String },
    Unchecked { text: String },
    Summary { errors: u64, warnings: u64, pending: u64, clean: bool },
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Pending => "pending",
    }
}

fn name(id: FsckErrorId) -> &'static str {
    id.name().unwrap_or("unknown")
}

fn show(report: &Report, json: bool, out: &mut Out) -> Result<(), Stop> {
    for finding in &report.findings {
        let (severity, id) = (severity(finding.severity()), finding.id());
        if json {
            json_line(out, &Line::Finding { severity, id: id.0, name: name(id), text: finding.to_string() })?;
        } else {
            writeln!(out, "{severity}: {id:?}: {finding}")?;
        }
    }
    let [errors, warnings, pending] =
        [Severity::Error, Severity::Warning, Severity::Pending].map(|severity| report.count(severity));
    if json {
        for what in &report.notices {
            json_line(out, &Line::Unchecked { text: what.to_string() })?;
        }
        return json_line(out, &Line::Summary { errors, warnings, pending, clean: report.is_clean() });
    }
    for (severity_of, id, n) in report.counts() {
        let kept =
            report.findings.iter().filter(|f| (f.severity(), f.id()) == (severity_of, id)).count() as u64;
        if n > kept {
            writeln!(out, "{}: {id:?}: and {} more", severity(severity_of), n - kept)?;
        }
    }
    if pending > 0 {
        writeln!(out, "{pending} unfinished; the next start finishes that by itself")?;
    }
    match (errors, warnings) {
        (0, 0) => writeln!(out, "clean")?,
        _ => writeln!(out, "{errors} errors, {warnings} warnings; nothing was changed")?,
    }
    Ok(())
}
