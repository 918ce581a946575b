//! `frazil quota`: what users, groups and projects use of a mounted volume, and what they may.

use std::io::Write;
use std::path::PathBuf;

use frazil_fuse::control::{OwnerReport, QuotaLimit, QuotaOwner, QuotaUsed, Request, locate_inside};
use frazil_posix::Timestamp;

use super::{Out, json_line};
use crate::format::{Size, minute, parse_size};
use crate::live::Live;
use crate::stop::{Done, Outcome, Stop};

/// Show and set what users, groups and projects may use of a mounted volume
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Quotas are kept in volumes with the options usrquota, grpquota or prjquota (frazil format -o usrquota=1). Root is not limited, and
snapshots do not count.

Exit codes: 0 done; 1 it could not be done; 2 wrong usage

Examples:
  frazil quota show /mnt
  frazil quota set --user 1000 --space 10G:8G --inodes 100000 /mnt")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Show who uses how much, and who may
    #[command(after_help = "\
`!` marks what is over its soft limit, and since when.

JSON fields: kind (user, group, project), id, space (bytes) and inodes: used, hard, soft (0: no limit), over_since_ns.

Example: frazil quota show --json /mnt | jq 'select(.kind == \"user\")'")]
    Show {
        /// A directory in the volume
        dir: PathBuf,
        /// One JSON object for each
        #[arg(long)]
        json: bool,
    },
    /// Set limits; those not given stay as they are
    #[command(after_help = "\
A hard limit is never exceeded, a soft one for a week at most. 0 is no limit.

Examples:
  frazil quota set --group 100 --space 1T /mnt
  frazil quota set --user 1000 --space 0 --inodes 0 /mnt")]
    Set {
        #[command(flatten)]
        owner: Owner,
        /// Space that may be used
        #[arg(long, value_name = "HARD[:SOFT]", value_parser = parse_space)]
        space: Option<QuotaLimit>,
        /// Inodes that may be used: files, directories, links and so on
        #[arg(long, value_name = "HARD[:SOFT]", value_parser = parse_inodes)]
        inodes: Option<QuotaLimit>,
        /// A directory in the volume
        dir: PathBuf,
    },
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Owner {
    /// The user with this number
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    /// The group with this number
    #[arg(long, value_name = "GID")]
    group: Option<u32>,
    /// The project with this number
    #[arg(long, value_name = "ID")]
    project: Option<u32>,
}

impl Owner {
    fn named(&self) -> Option<(QuotaOwner, u32)> {
        let kinds = [
            (QuotaOwner::User, self.user),
            (QuotaOwner::Group, self.group),
            (QuotaOwner::Project, self.project),
        ];
        kinds.into_iter().find_map(|(kind, id)| id.map(|id| (kind, id)))
    }
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    match &args.what {
        What::Show { dir, json } => show(dir, *json, out),
        What::Set { owner, space, inodes, dir } => {
            let (owner, id) = owner.named().ok_or(Stop::Usage("whose quota is it?".into()))?;
            if space.is_none() && inodes.is_none() {
                return Err(Stop::Usage("give --space, --inodes or both".into()));
            }
            let request = Request::SetQuota { owner, id, space: *space, inodes: *inodes };
            let mount = locate_inside(dir, true).map_err(Stop::failed)?.mount;
            Live::of(mount)?.ask::<()>(&request)?;
            Ok(Done::All)
        }
    }
}

fn show(dir: &std::path::Path, json: bool, out: &mut Out) -> Outcome {
    let mount = locate_inside(dir, true).map_err(Stop::failed)?.mount;
    let mut reports = Vec::new();
    Live::of(mount)?.ask_in_parts(&Request::Quotas, |report: OwnerReport| reports.push(report))?;
    if json {
        reports.iter().try_for_each(|report| json_line(out, report))?;
        return Ok(Done::All);
    }
    let heads = ["space", "soft", "hard", "inodes", "soft", "hard"];
    writeln!(
        out,
        "{:18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "owner", heads[0], heads[1], heads[2], heads[3], heads[4], heads[5]
    )?;
    for report in &reports {
        let owner = format!("{} {}", report.kind.name(), report.id);
        write!(out, "{owner:18}")?;
        columns(&report.space, |bytes| Size(bytes).to_string(), out)?;
        columns(&report.inodes, |count| count.to_string(), out)?;
        for (what, used) in [("space", &report.space), ("inodes", &report.inodes)] {
            if let Some(since) = used.over_since_ns {
                write!(out, "  ! {what} since {}", minute(Timestamp::from_unix_ns(since.into())))?;
            }
        }
        writeln!(out)?;
    }
    Ok(Done::All)
}

fn columns(used: &QuotaUsed, text: fn(u64) -> String, out: &mut Out) -> Result<(), Stop> {
    let limit = |limit: u64| if limit == 0 { "-".to_owned() } else { text(limit) };
    write!(out, "{:>11}{:>11}{:>11}", text(used.used), limit(used.limit.soft), limit(used.limit.hard))?;
    Ok(())
}

fn parse_space(text: &str) -> Result<QuotaLimit, String> {
    parse_limit(text, parse_size)
}

fn parse_inodes(text: &str) -> Result<QuotaLimit, String> {
    parse_limit(text, |text| text.parse().map_err(|_| format!("'{text}' is not a number")))
}

/// `HARD`, or `HARD:SOFT`.
fn parse_limit(text: &str, parse: fn(&str) -> Result<u64, String>) -> Result<QuotaLimit, String> {
    let (hard, soft) = text.split_once(':').unwrap_or((text, "0"));
    let limit = QuotaLimit { hard: parse(hard)?, soft: parse(soft)? };
    if limit.hard != 0 && limit.soft > limit.hard {
        return Err("the soft limit is larger than the hard one".into());
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_one_number_or_two() {
        assert_eq!(parse_space("10G:8G"), Ok(QuotaLimit { hard: 10 << 30, soft: 8 << 30 }));
        assert_eq!(parse_inodes("7"), Ok(QuotaLimit { hard: 7, soft: 0 }));
        assert_eq!(parse_inodes("0:7"), Ok(QuotaLimit { hard: 0, soft: 7 }));
        for bad in ["", ":", "1:2", "x", "1:x", "-1", "1:2:3"] {
            assert!(parse_inodes(bad).is_err(), "{bad}");
        }
    }
}
