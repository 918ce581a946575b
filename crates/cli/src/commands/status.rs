//! `frazil status`: how a mounted volume is.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use frazil_fuse::control::{CountReport, JournalReport, Request, StatusReport, WaitingReport};

use super::{Out, json_line};
use crate::format::{Shown, Size, Span, parse_seconds};
use crate::live::Live;
use crate::stop::{Done, Outcome, Stop};

/// Say how a mounted volume is: space, journal, what waits
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It works whatever the volume is doing: nothing is asked of the filesystem itself.

JSON fields: mount (pid, uid, version, read_only, age_ns, io_uring_queues), lifecycle (state, read_only, since_ns, stage, holders: token, who, age_ns, left_ns;
under_way, blocked, to_write: name, count; error, on_error), volume (uuid, label, space in bytes), journal (seq, seq_ondisk, flushed_seq,
last_seq, entries, waiters, under_pressure, waiting_for_device_space, halted, free: now, after discards, after a flush; size,
pinned_entries, pins, writes: with and without flush; bytes_written, waits), engine (dirty_nodes, buffered_keys), moved (buckets, bytes,
hopeless, generation_walks), operations (name, count, failed, bytes, latencies: how many took 2^i to 2^(i+1) ns), waiting (name, pid, waits_ns), waiting_count. More may be added.

Exit codes: 0 said; 1 there is no such mount, or it ended; 2 wrong usage

Examples:
  frazil status /mnt
  frazil status --json --watch=10 /mnt >>log")]
pub(crate) struct Args {
    /// Where it is mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Again and again, until the volume is unmounted [default: every second]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
        value_parser = parse_seconds)]
    watch: Option<Duration>,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let mut live = Live::at(&args.dir)?;
    loop {
        let status: StatusReport = live.ask(&Request::Status)?;
        if args.json {
            json_line(out, &status)?;
        } else {
            if args.watch.is_some() && std::io::stdout().is_terminal() {
                out.write_all(super::top::CLEAR)?;
            }
            show(&live, &status, out)?;
        }
        let Some(pause) = args.watch else { return Ok(Done::All) };
        if !args.json {
            writeln!(out)?;
        }
        out.flush()?;
        thread::sleep(pause);
    }
}

fn show(live: &Live, status: &StatusReport, out: &mut Out) -> Result<(), Stop> {
    head(live, status, out)?;
    life(status, out)?;
    if let Some(volume) = &status.volume {
        let label = volume.label.as_ref().map(|label| format!(" {}", Shown(label.as_bytes())));
        writeln!(out, "volume    {}{}", volume.uuid, label.unwrap_or_default())?;
    }
    space(status, out)?;
    if let Some(journal) = &status.journal {
        show_journal(journal, out)?;
    }
    behind(status, out)
}

/// Whether it can be changed, and who keeps it from that.
pub(super) fn life(status: &StatusReport, out: &mut Out) -> Result<(), Stop> {
    let life = &status.lifecycle;
    let stage = life.stage.as_ref().map(|stage| format!(": {stage}")).unwrap_or_default();
    writeln!(out, "state     {} for {}{stage}", life.state, Span(life.since_ns))?;
    for holder in &life.holders {
        let left = match holder.left_ns {
            Some(left) => format!("{} left", Span(left)),
            None => "until it thaws".to_owned(),
        };
        let who = Shown(holder.who.as_bytes());
        writeln!(out, "holder    {} {who}: for {}, {left}", holder.token, Span(holder.age_ns))?;
    }
    for (what, counts) in [("under way", &life.under_way), ("blocked", &life.blocked)] {
        if life.state != "read-write" && !counts.is_empty() {
            writeln!(out, "{what:9} {}", list_of(counts))?;
        }
    }
    if life.stage.is_some() && !life.to_write.is_empty() {
        writeln!(out, "to write  {}", list_of(&life.to_write))?;
    }
    if let Some(error) = &life.error {
        writeln!(out, "error     {}", Shown(error.as_bytes()))?;
    }
    Ok(())
}

fn list_of(counts: &[CountReport]) -> String {
    let all: Vec<String> = counts.iter().map(|of| format!("{} {}", of.count, of.name)).collect();
    all.join(", ")
}

/// Which mount it is.
pub(super) fn head(live: &Live, status: &StatusReport, out: &mut Out) -> Result<(), Stop> {
    let mount = &status.mount;
    let access = if mount.read_only || status.lifecycle.read_only { "read-only" } else { "read-write" };
    let (dir, age) = (live.mount.mount_point.display(), Span(mount.age_ns));
    let way = if mount.io_uring_queues.is_some() { " through io_uring" } else { "" };
    writeln!(
        out,
        "{dir}: {access}, mounted {age} ago, served by process {}{way} (frazil {})",
        mount.pid, mount.version
    )?;
    Ok(())
}

/// How full it is.
pub(super) fn space(status: &StatusReport, out: &mut Out) -> Result<(), Stop> {
    let Some(volume) = &status.volume else { return Ok(()) };
    let space = &volume.space;
    writeln!(
        out,
        "space     {} of {} used, {} available; data {}, b-trees {}, reserved {}, cached {}; {} inodes",
        Size(space.used),
        Size(space.total),
        Size(space.available),
        Size(space.data),
        Size(space.btree),
        Size(space.reserved),
        Size(space.cached),
        space.inodes
    )?;
    Ok(())
}

fn show_journal(journal: &JournalReport, out: &mut Out) -> Result<(), Stop> {
    writeln!(
        out,
        "journal   entry {}, durable up to {}, needed from {}; {} of {} free",
        journal.seq,
        journal.flushed_seq,
        journal.last_seq,
        Size(journal.free[2]),
        Size(journal.size)
    )?;
    trouble(journal, out)
}

/// What is wrong with the journal.
pub(super) fn trouble(journal: &JournalReport, out: &mut Out) -> Result<(), Stop> {
    if let Some(why) = &journal.halted {
        writeln!(out, "stopped   {why}")?;
    }
    if let Some(why) = &journal.reclaim_error {
        writeln!(out, "error     {why}")?;
    }
    if journal.waiting_for_device_space {
        writeln!(out, "no space  a thin device has no room; writes wait for it")?;
    }
    if journal.under_pressure {
        writeln!(out, "pressure  there is little room in the journal; it is being emptied")?;
    }
    Ok(())
}

/// What is not written yet, and who waits.
pub(super) fn behind(status: &StatusReport, out: &mut Out) -> Result<(), Stop> {
    if let (Some(journal), Some(engine)) = (&status.journal, &status.engine) {
        let pins: Vec<String> =
            journal.pins.iter().map(|pin| format!("{} {}", pin.count, pin.class)).collect();
        let pins = if pins.is_empty() { "nothing".to_owned() } else { pins.join(", ") };
        writeln!(out, "pins      {pins}; {} entries are kept", journal.pinned_entries)?;
        writeln!(
            out,
            "to write  {} nodes, {} keys in the write buffer",
            engine.dirty_nodes, engine.buffered_keys
        )?;
    }
    if let Some(moved) = status.moved.filter(|moved| moved.buckets + moved.hopeless > 0) {
        let bytes = Size(moved.bytes);
        write!(out, "moved     {bytes}, which emptied {} buckets", moved.buckets)?;
        match moved.hopeless {
            0 => writeln!(out)?,
            hopeless => writeln!(out, "; {hopeless} cannot be emptied, see the log")?,
        }
    }
    match status.waiting.as_slice() {
        [] => writeln!(out, "waiting   no request")?,
        waiting => {
            let named: Vec<String> = waiting.iter().take(NAMED_MAX).map(who_waits).collect();
            let more = status.waiting_count.saturating_sub(named.len());
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            writeln!(out, "waiting   {}{more}", named.join(", "))?;
        }
    }
    Ok(())
}

/// Requests that wait named in a line.
const NAMED_MAX: usize = 4;

fn who_waits(waiting: &WaitingReport) -> String {
    let who = if waiting.pid == 0 { String::new() } else { format!(" of process {}", waiting.pid) };
    format!("{}{who} for {}", waiting.name, Span(waiting.waits_ns))
}
