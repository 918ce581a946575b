//! Watching a machine until it is through, its power is to be cut, or it has gone wrong.

use std::time::{Duration, Instant};

use super::{End, Pending};
use crate::error::OracleError;
use crate::job::{Cut, Job};
use crate::machine::{Heard, Machine};
use crate::verdict::Outcome;
use crate::wire::Said;

/// How long a machine may take to its first job: 5 to 20 seconds where nothing else goes on, and much more on a busy host.
const BOOT: Duration = Duration::from_secs(240);

/// What is known about a running machine.
struct Watch {
    /// The job it is at.
    job: Option<usize>,
    /// When it counts as hung.
    deadline: Instant,
    /// When its power is cut.
    cut_at: Option<Instant>,
}

/// Watches `machine` to its end, and ends it.
pub(super) fn watch(machine: &mut Machine, jobs: &[Pending]) -> Result<End, OracleError> {
    let mut watch = Watch { job: None, deadline: Instant::now() + BOOT, cut_at: None };
    let outcome = loop {
        let until = watch.cut_at.unwrap_or(watch.deadline).min(watch.deadline);
        match machine.hear(until) {
            Heard::Line(line) => {
                if let Some(said) = Said::parse(&line)
                    && watch.heard(&said, jobs)
                {
                    break Outcome::Finished;
                }
            }
            Heard::Silence => break watch.silence(machine),
            Heard::Off => break Outcome::Crashed(machine.last_words()),
        }
    };
    machine.kill();
    match (watch.job, outcome) {
        (Some(job), outcome) => Ok(End { job, outcome }),
        (None, Outcome::TimedOut(console)) => Err(never_began("it took too long", &console)),
        (None, _) => Err(never_began("it went off", &machine.last_words())),
    }
}

fn never_began(why: &str, console: &[String]) -> OracleError {
    OracleError::Boot { why: why.to_owned(), console: console.join("\n") }
}

impl Watch {
    /// Takes in what the guest said; whether it is through.
    fn heard(&mut self, said: &Said, jobs: &[Pending]) -> bool {
        match said {
            Said::Begin(number) => {
                let Some(pending) = jobs.get(*number) else { return false };
                self.job = Some(*number);
                self.deadline = Instant::now() + pending.job.timeout;
            }
            Said::Script(mount) => {
                self.cut_if(jobs, |job, cut| cut.at_mark.is_none() && mount + 1 == job.mounts.len());
            }
            Said::Mark(name) => self.cut_if(jobs, |_, cut| cut.at_mark.as_ref() == Some(name)),
            Said::End => return true,
        }
        false
    }

    fn cut_if(&mut self, jobs: &[Pending], now: impl Fn(&Job, &Cut) -> bool) {
        let job = self.job.map(|number| &jobs[number].job);
        let Some(cut) = job.and_then(|job| job.cut.as_ref().filter(|cut| now(job, cut))) else { return };
        self.cut_at.get_or_insert(Instant::now() + cut.delay);
    }

    fn silence(&self, machine: &Machine) -> Outcome {
        match self.cut_at {
            Some(at) if at <= Instant::now() => Outcome::PowerCut,
            _ => Outcome::TimedOut(machine.last_words()),
        }
    }
}
