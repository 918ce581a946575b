//! `frazil top`: what a mounted volume is doing, again and again.
//!
//! Rates and latencies are those of the time between two looks, of which each gives counters since the volume was mounted.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use frazil_fuse::control::{JournalReport, LATENCY_CLASSES, OperationReport, Request, StatusReport};

use super::Out;
use super::status::{behind, head, life, space, trouble};
use crate::format::{Size, Span, parse_seconds};
use crate::live::Live;
use crate::stop::{Done, Outcome, Stop};

/// Moves a terminal's cursor to the top and clears what is below.
pub(super) const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Show what a mounted volume is doing: operations, latencies, journal, space
#[derive(clap::Args, Debug)]
#[command(after_help = "\
On a terminal it is drawn anew until Ctrl-C; piped, it is printed once, over one interval. Latencies are within a factor of 1.4: they
are counted in powers of two, and of requests that need not wait one in eight is timed. Columns: requests per second, bytes per second,
median, 99th percentile and maximum of the latency, errors per second.

Exit codes: 0 shown; 1 there is no such mount, or it ended; 2 wrong usage

Example: frazil top /mnt")]
pub(crate) struct Args {
    /// Where it is mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Time between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    interval: Duration,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let mut live = Live::at(&args.dir)?;
    let on_terminal = std::io::stdout().is_terminal();
    let mut before: StatusReport = live.ask(&Request::Status)?;
    loop {
        thread::sleep(args.interval);
        let now: StatusReport = live.ask(&Request::Status)?;
        if on_terminal {
            out.write_all(CLEAR)?;
        }
        show(&live, &before, &now, out)?;
        if !on_terminal {
            return Ok(Done::All);
        }
        out.flush()?;
        before = now;
    }
}

fn show(live: &Live, before: &StatusReport, now: &StatusReport, out: &mut Out) -> Result<(), Stop> {
    let seconds = now.mount.age_ns.saturating_sub(before.mount.age_ns) as f64 / 1e9;
    head(live, now, out)?;
    life(now, out)?;
    space(now, out)?;
    if let (Some(before), Some(now)) = (&before.journal, &now.journal) {
        journal(before, now, seconds, out)?;
        trouble(now, out)?;
    }
    behind(now, out)?;
    writeln!(
        out,
        "\n{:12}{:>10}{:>12}{:>10}{:>10}{:>10}{:>10}",
        "operation", "/s", "bytes/s", "median", "p99", "max", "errors/s"
    )?;
    let mut rows: Vec<OperationReport> = now.operations.iter().map(|op| since(before, op)).collect();
    rows.retain(|op| op.count > 0);
    rows.sort_by_key(|op| std::cmp::Reverse(op.count));
    for op in &rows {
        let [median, p99, max] = [0.5, 0.99, 1.0].map(|part| percentile(&op.latencies, part));
        let rate = |count: u64| format!("{:.0}", count as f64 / seconds);
        let bytes = if op.bytes == 0 { String::new() } else { rate_of_bytes(op.bytes, seconds) };
        let failed = if op.failed == 0 { String::new() } else { rate(op.failed) };
        writeln!(
            out,
            "{:12}{:>10}{bytes:>12}{median:>10}{p99:>10}{max:>10}{failed:>10}",
            op.name,
            rate(op.count)
        )?;
    }
    if rows.is_empty() {
        writeln!(out, "none")?;
    }
    Ok(())
}

fn journal(before: &JournalReport, now: &JournalReport, seconds: f64, out: &mut Out) -> Result<(), Stop> {
    let used = now.size.saturating_sub(now.free[2]);
    let percent = 100.0 * used as f64 / now.size.max(1) as f64;
    let flushes = now.writes[0].saturating_sub(before.writes[0]) as f64 / seconds;
    let others = now.writes[1].saturating_sub(before.writes[1]) as f64 / seconds;
    let bytes = rate_of_bytes(now.bytes_written.saturating_sub(before.bytes_written), seconds);
    writeln!(
        out,
        "journal   {percent:.0}% of {} in use; {flushes:.0} flushes/s, {others:.0} other writes/s, {bytes}/s",
        Size(now.size)
    )?;
    Ok(())
}

fn rate_of_bytes(bytes: u64, seconds: f64) -> String {
    Size((bytes as f64 / seconds) as u64).to_string()
}

/// What came since the look before.
fn since(before: &StatusReport, now: &OperationReport) -> OperationReport {
    let mut op = now.clone();
    if let Some(before) = before.operations.iter().find(|before| before.name == now.name) {
        op.count = op.count.saturating_sub(before.count);
        op.failed = op.failed.saturating_sub(before.failed);
        op.bytes = op.bytes.saturating_sub(before.bytes);
        op.latencies.iter_mut().zip(&before.latencies).for_each(|(now, was)| *now = now.saturating_sub(*was));
    }
    op
}

/// The latency that this part of the requests did not exceed; empty if none was timed.
fn percentile(latencies: &[u64], part: f64) -> String {
    let all: u64 = latencies.iter().sum();
    let wanted = (all as f64 * part).ceil() as u64;
    let mut seen = 0;
    for (class, count) in latencies.iter().take(LATENCY_CLASSES).enumerate() {
        seen += count;
        if *count > 0 && seen >= wanted {
            // The middle of the class, which is as far from its beginning as from its end.
            let nanos = (1u64 << class) as f64 * std::f64::consts::SQRT_2;
            return Span(nanos as u64).to_string();
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_classes() {
        let mut latencies = vec![0; 31];
        (latencies[10], latencies[20], latencies[30]) = (50, 49, 1);
        let at = |part| percentile(&latencies, part);
        assert_eq!([at(0.5), at(0.51), at(0.99), at(1.0)], ["1.45 µs", "1.48 ms", "1.48 ms", "1.52 s"]);
        assert_eq!(percentile(&[], 0.5), "");
    }
}
