//! `frazil list-journal`: the entries in a volume's journal.
//!
//! By default the entries that recovery would use; with `-a` all that are found, with the reason why recovery passes one over: it is
//! old, torn, was never made durable, or is blacklisted. A damaged journal is listed as far as it goes.
//!
//! The text is that of the reference's listings of version 1.13, with lines of our own (`ignored`, `damaged`) where an entry is
//! not used.

use std::io::Write;

use frazil_journal::read::{Copy, Fate, Found, ReadError};
use frazil_ondisk::jset::{JsetEntry, JsetKind, KeyList, entries};
use frazil_ondisk::units::Seq;
use frazil_ondisk::values::list::{self, ListContext};
use frazil_ondisk::{BtreeId, Key};
use frazil_volume::JournalView;
use serde::Serialize;

use super::list::KeyLine;
use super::{Out, json_line};
use crate::context::Context;
use crate::format::ctime;
use crate::open::{Devices, OpenArgs};
use crate::say;
use crate::stop::{Done, Outcome, Stop};

/// List the entries of a volume's journal that recovery would replay
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  frazil list-journal -a /dev/sdb1
  frazil list-journal -a --from 1200 --to 1210 disk.img
  frazil list-journal -a --json disk.img | jq 'select(.fate != \"used\") | [.seq, .fate]'")]
pub(crate) struct Args {
    #[command(flatten)]
    devices: Devices,
    /// Begin with this entry
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: u64,
    /// End with this entry
    #[arg(long, value_name = "SEQ", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Also entries that recovery ignores, and why
    #[arg(short, long)]
    all: bool,
    /// One JSON object per entry
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let journal = args.open.journal(&args.devices.paths())?;
    let survey = journal.survey().map_err(Stop::failed)?;
    for problem in &survey.problems {
        say::warning(problem);
    }
    match &survey.range {
        Ok(_) => {}
        Err(ReadError::Empty) => say::note("the journal has no entries"),
        Err(why) => say::warning(why),
    }
    let context = Context::of_journal(&journal);
    let mut gaps = false;
    if args.from > args.to {
        return Ok(Done::All);
    }
    for entry in survey.found.range(Seq(args.from)..=Seq(args.to)).map(|(_, entry)| entry) {
        if !args.all && entry.fate != Fate::Used {
            continue;
        }
        let loaded = Loaded::load(&journal, entry);
        gaps |= loaded.list.is_none();
        if args.json {
            json_line(out, &EntryLine::new(entry, &loaded, &context))?;
        } else {
            show(entry, &loaded, &context, out)?;
        }
    }
    Ok(Done::unless(gaps))
}

/// The content of an entry.
struct Loaded {
    /// The sub-entries; `None` if no good copy can be read.
    list: Option<Vec<u8>>,
}

impl Loaded {
    fn load(journal: &JournalView, entry: &Found) -> Loaded {
        let Some(copy) = entry.good() else { return Loaded { list: None } };
        match journal.load(copy) {
            Ok(jset) => Loaded { list: Some(jset.list().to_vec()) },
            Err(why) => {
                say::error(format_args!("journal entry {}: {why}", entry.seq));
                Loaded { list: None }
            }
        }
    }
}

/// Why recovery passes an entry over; `None` if it does not.
fn ignored_because(fate: Fate) -> Option<&'static str> {
    match fate {
        Fate::Used => None,
        Fate::NotFlushed => Some("it is newer than the newest flush entry, so it was never made durable"),
        Fate::Torn => Some("it was being written when the volume went down"),
        Fate::Blacklisted => Some("its number is blacklisted"),
        Fate::Old => Some("everything in it has reached the b-trees"),
        Fate::Damaged => Some("it is damaged, although it is needed"),
    }
}

fn show(entry: &Found, loaded: &Loaded, context: &Context<'_>, out: &mut Out) -> Result<(), Stop> {
    let header = entry.header();
    let flush = matches!(header.kind(), JsetKind::Flush { .. });
    writeln!(out, "journal entry     {}", entry.seq)?;
    writeln!(out, "  version         {}", header.version)?;
    writeln!(out, "  last seq        {}", header.last_seq)?;
    writeln!(out, "  flush           {}", u8::from(flush))?;
    write!(out, "  written at     ")?;
    for copy in &entry.copies {
        write!(out, " {}", Place(copy, context))?;
    }
    writeln!(out)?;
    for copy in &entry.copies {
        if let Some(damage) = &copy.damage {
            writeln!(out, "  damaged         at {}: {damage}", Place(copy, context))?;
        }
    }
    if let Some(why) = ignored_because(entry.fate) {
        writeln!(out, "  ignored         {why}")?;
    }
    for sub in entries(loaded.list.as_deref().unwrap_or_default()) {
        match sub {
            Ok(sub) => show_sub(&sub, context, out)?,
            Err(why) => writeln!(out, "    (undecodable: {why})")?,
        }
    }
    Ok(())
}

/// Where a copy lies, as `device:bucket:offset (sector N)`; bucket and offset are within the journal of the device.
struct Place<'a>(&'a Copy, &'a Context<'a>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = &self.0.location;
        let offset = offset_in_bucket(self.0, self.1);
        write!(f, "{}:{}:{offset} (sector {})", at.dev, at.ring_index, at.sector)
    }
}

/// Sectors between the start of its bucket and a copy.
fn offset_in_bucket(copy: &Copy, context: &Context<'_>) -> u64 {
    let bucket = context.bucket_sectors(copy.location.dev).unwrap_or(0);
    copy.location.sector.0.checked_rem(bucket).unwrap_or(0)
}

fn show_sub(sub: &JsetEntry<'_>, context: &Context<'_>, out: &mut Out) -> Result<(), Stop> {
    match sub {
        JsetEntry::BtreeKeys(list)
        | JsetEntry::Overwrite(list)
        | JsetEntry::WriteBufferKeys(list)
        | JsetEntry::LogBkey(list) => show_keys(sub, list, context, out),
        JsetEntry::BtreeRoot { btree, level, key: Some(key) } => {
            show_key(&format!("{}: ", sub.ty()), *btree, *level, *key, context, out)
        }
        // The name of a transaction begins it.
        JsetEntry::Log { level: 0, .. } => Ok(writeln!(out, "\n    {sub}")?),
        JsetEntry::Datetime { seconds } => Ok(writeln!(out, "    {}: {}", sub.ty(), ctime(*seconds))?),
        other => Ok(writeln!(out, "    {other}")?),
    }
}

fn show_keys(
    sub: &JsetEntry<'_>,
    list: &KeyList<'_>,
    context: &Context<'_>,
    out: &mut Out,
) -> Result<(), Stop> {
    for (i, key) in list.keys.clone().enumerate() {
        let what = if i == 0 { format!("{}: ", sub.ty()) } else { "    ".to_owned() };
        match key {
            Ok(key) => show_key(&what, list.btree, list.level, key, context, out)?,
            Err(why) => writeln!(out, "    {what}(undecodable: {why})")?,
        }
    }
    Ok(())
}

/// One key; every line of it indented.
fn show_key(
    what: &str,
    btree: BtreeId,
    level: u8,
    key: Key<'_>,
    context: &Context<'_>,
    out: &mut Out,
) -> Result<(), Stop> {
    let name = list::btree_name(btree, context.version());
    let text = format!("{what}btree={name} l={level} {}", list::key(key, context));
    for line in text.split('\n') {
        writeln!(out, "    {line}")?;
    }
    Ok(())
}

/// An entry as JSON.
#[derive(Serialize)]
struct EntryLine<'a> {
    seq: u64,
    /// `used`, or why it is ignored: `not_flushed`, `torn`, `blacklisted`, `old`, `damaged`.
    fate: &'static str,
    ignored_because: Option<&'static str>,
    version: u32,
    flush: bool,
    /// Of a flush entry: the oldest entry still needed.
    last_seq: Option<u64>,
    copies: Vec<CopyLine<'a>>,
    /// `None` if no copy can be read.
    entries: Option<Vec<SubLine>>,
}

#[derive(Serialize)]
struct CopyLine<'a> {
    device: u8,
    bucket: u32,
    offset: u64,
    sector: u64,
    sectors: u64,
    damage: Option<&'a str>,
}

#[derive(Serialize)]
struct SubLine {
    #[serde(rename = "type")]
    ty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<serde_json::Value>>,
}

impl<'a> EntryLine<'a> {
    fn new(entry: &'a Found, loaded: &Loaded, context: &Context<'_>) -> EntryLine<'a> {
        let header = entry.header();
        let last_seq = match header.kind() {
            JsetKind::Flush { last_seq } => Some(last_seq.0),
            JsetKind::NoFlush => None,
        };
        let copy = |copy: &'a Copy| CopyLine {
            device: copy.location.dev.0,
            bucket: copy.location.ring_index,
            offset: offset_in_bucket(copy, context),
            sector: copy.location.sector.0,
            sectors: copy.size.0,
            damage: copy.damage.as_deref(),
        };
        EntryLine {
            seq: entry.seq.0,
            fate: match entry.fate {
                Fate::Used => "used",
                Fate::NotFlushed => "not_flushed",
                Fate::Torn => "torn",
                Fate::Blacklisted => "blacklisted",
                Fate::Old => "old",
                Fate::Damaged => "damaged",
            },
            ignored_because: ignored_because(entry.fate),
            version: header.version,
            flush: last_seq.is_some(),
            last_seq,
            copies: entry.copies.iter().map(copy).collect(),
            entries: loaded
                .list
                .as_ref()
                .map(|list| entries(list).map(|sub| SubLine::new(sub, context)).collect()),
        }
    }
}

impl SubLine {
    fn new(sub: frazil_ondisk::Result<JsetEntry<'_>>, context: &Context<'_>) -> SubLine {
        let sub = match sub {
            Ok(sub) => sub,
            Err(why) => return SubLine { ty: "undecodable".into(), text: Some(why.to_string()), keys: None },
        };
        let ty = sub.ty().to_string();
        let text = |text| SubLine { ty: ty.clone(), text: Some(text), keys: None };
        match &sub {
            JsetEntry::BtreeKeys(list)
            | JsetEntry::Overwrite(list)
            | JsetEntry::WriteBufferKeys(list)
            | JsetEntry::LogBkey(list) => {
                let name = list::btree_name(list.btree, context.version());
                let keys = list.keys.clone().map(|key| match key {
                    Ok(key) => json(&KeyLine::new(&name, list.level, key, context)),
                    Err(why) => json(&why.to_string()),
                });
                SubLine { ty, text: None, keys: Some(keys.collect()) }
            }
            JsetEntry::BtreeRoot { btree, level, key: Some(key) } => {
                let name = list::btree_name(*btree, context.version());
                SubLine {
                    ty,
                    text: None,
                    keys: Some(vec![json(&KeyLine::new(&name, *level, *key, context))]),
                }
            }
            JsetEntry::Datetime { seconds } => text(seconds.to_string()),
            other => text(other.to_string().trim_start_matches(&format!("{ty}: ")).to_owned()),
        }
    }
}

/// Plain data always has a JSON form.
fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}
