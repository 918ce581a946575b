//! The rules of spec 20 §3.4, applied to a list of sub-entries before it is written and after it was read.
//!
//! [`check`] only looks; [`repair`] also makes the list obey: a bad key is removed and the keys behind it move up, any other
//! bad sub-entry becomes padding, a bad root keeps its header and loses its key, and whatever extends past the end
//! becomes padding from there on. The length of the list never changes.

use std::borrow::Cow;
use std::fmt;

use super::entry::JsetEntry;
use super::frame::{EntryType, FRAME_HEADER_BYTES, Frame, FrameHeader, Frames};
use crate::bkey::Key;
use crate::bytes::Reader;
use crate::error::Result;
use crate::fsck_errors::FsckErrorId;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes from the start of the list to the sub-entry; `None`: the header of the jset.
    pub at: Option<usize>,
    /// Which rule.
    pub id: FsckErrorId,
    /// What is wrong, in one line.
    pub reason: Cow<'static, str>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "sub-entry at byte {at}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// What [`repair`] does about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fix {
    /// Turn the sub-entry into padding.
    Null,
    /// Keep the header, turn the payload into padding.
    DropPayload,
    /// Remove bytes `from..to` of the payload and close it up.
    Remove { from: usize, to: usize },
}

struct Finding {
    id: FsckErrorId,
    reason: Cow<'static, str>,
    fix: Fix,
}

impl Finding {
    fn null(id: FsckErrorId, reason: impl Into<Cow<'static, str>>) -> Finding {
        Finding { id, reason: reason.into(), fix: Fix::Null }
    }
}

/// What is wrong with a list. `check_key` are the rules for the keys of a b-tree, which are not the journal's business.
pub fn check(list: &[u8], mut check_key: impl FnMut(&FrameHeader, &Key<'_>) -> Result<()>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut end = 0;
    for frame in Frames::new(list) {
        match frame {
            Ok(frame) => {
                let mut from = 0;
                while let Some(f) = first_finding(&frame, from, &mut check_key) {
                    problems.push(Problem { at: Some(frame.at), id: f.id, reason: f.reason });
                    let Fix::Remove { to, .. } = f.fix else { break };
                    from = to;
                }
                end = frame.end();
            }
            Err(_) => problems.push(past_end(end)),
        }
    }
    problems
}

/// Makes a list obey the rules; returns what was wrong, in the order found.
pub fn repair(
    list: &mut [u8],
    mut check_key: impl FnMut(&FrameHeader, &Key<'_>) -> Result<()>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (mut at, mut from) = (0, 0);
    while at < list.len() {
        let Some(Ok(frame)) = Frames::new(&list[at..]).next() else {
            problems.push(past_end(at));
            list[at..].fill(0);
            break;
        };
        let end = at + frame.end();
        let Some(finding) = first_finding(&frame, from, &mut check_key) else {
            (at, from) = (end, 0);
            continue;
        };
        problems.push(Problem { at: Some(at), id: finding.id, reason: finding.reason });
        from = apply(&mut list[at..end], finding.fix);
    }
    problems
}

/// Applies a fix to one sub-entry; returns from which byte of its payload on it is still to be checked.
fn apply(entry: &mut [u8], fix: Fix) -> usize {
    let payload = entry.len() - FRAME_HEADER_BYTES;
    match fix {
        Fix::Null => {
            entry.fill(0);
            0
        }
        Fix::DropPayload => {
            set_payload(entry, 0);
            0
        }
        Fix::Remove { from, to } => {
            entry.copy_within(FRAME_HEADER_BYTES + to.., FRAME_HEADER_BYTES + from);
            set_payload(entry, payload - (to - from));
            from
        }
    }
}

/// Shortens a sub-entry's payload to `bytes` and makes the rest padding.
fn set_payload(entry: &mut [u8], bytes: usize) {
    let u64s = (bytes / 8) as u16;
    entry[..2].copy_from_slice(&u64s.to_le_bytes());
    entry[FRAME_HEADER_BYTES + bytes..].fill(0);
}

fn past_end(at: usize) -> Problem {
    Problem {
        at: Some(at),
        id: FsckErrorId::JOURNAL_ENTRY_PAST_JSET_END,
        reason: "extends past the end of the entry".into(),
    }
}

/// The first broken rule of a sub-entry, among keys those from byte `from` of the payload on.
fn first_finding(
    frame: &Frame<'_>,
    from: usize,
    check_key: &mut impl FnMut(&FrameHeader, &Key<'_>) -> Result<()>,
) -> Option<Finding> {
    match frame.header.ty {
        EntryType::BTREE_KEYS | EntryType::OVERWRITE | EntryType::WRITE_BUFFER_KEYS => {
            key_finding(frame, from, check_key)
        }
        EntryType::BTREE_ROOT if frame.payload.is_empty() => None,
        EntryType::BTREE_ROOT => root_finding(frame, check_key),
        _ => number_finding(frame),
    }
}

fn key_finding(
    frame: &Frame<'_>,
    mut from: usize,
    check_key: &mut impl FnMut(&FrameHeader, &Key<'_>) -> Result<()>,
) -> Option<Finding> {
    while let Some(&u64s) = frame.payload.get(from) {
        let to = from + usize::from(u64s) * 8;
        let finding =
            |id, reason: String, to| Finding { id, reason: reason.into(), fix: Fix::Remove { from, to } };
        let all = frame.payload.len();
        if u64s == 0 {
            return Some(finding(FsckErrorId::JOURNAL_ENTRY_BKEY_U64S_0, "a key of length 0".into(), all));
        }
        let Some(bytes) = frame.payload.get(from..to) else {
            let reason = "a key extends past the end of the sub-entry".into();
            return Some(finding(FsckErrorId::JOURNAL_ENTRY_BKEY_PAST_END, reason, all));
        };
        if let Some((id, reason)) = bad_key(&frame.header, bytes, check_key) {
            return Some(finding(id, reason, to));
        }
        from = to;
    }
    None
}

fn bad_key(
    header: &FrameHeader,
    bytes: &[u8],
    check_key: &mut impl FnMut(&FrameHeader, &Key<'_>) -> Result<()>,
) -> Option<(FsckErrorId, String)> {
    const FORMAT_OFFSET: usize = 1;
    let format = bytes[FORMAT_OFFSET] & 0x7f;
    if format != crate::bkey::KEY_FORMAT_CURRENT {
        let reason = format!("a key of format {format}, where only unpacked keys may be");
        return Some((FsckErrorId::JOURNAL_ENTRY_BKEY_BAD_FORMAT, reason));
    }
    let result = Key::decode(&mut Reader::new("bkey", bytes)).and_then(|key| check_key(header, &key));
    result.err().map(|e| (FsckErrorId::JOURNAL_ENTRY_BKEY_INVALID, e.to_string()))
}

fn root_finding(
    frame: &Frame<'_>,
    check_key: &mut impl FnMut(&FrameHeader, &Key<'_>) -> Result<()>,
) -> Option<Finding> {
    let drop = |id, reason: Cow<'static, str>| Some(Finding { id, reason, fix: Fix::DropPayload });
    if usize::from(frame.payload[0]) * 8 != frame.payload.len() {
        let id = FsckErrorId::JOURNAL_ENTRY_BTREE_ROOT_BAD_SIZE;
        return drop(id, "a btree_root that is not exactly one key".into());
    }
    match bad_key(&frame.header, frame.payload, check_key) {
        Some((id, reason)) => drop(id, reason.into()),
        None => None,
    }
}

/// Types whose payload is not keys.
fn number_finding(frame: &Frame<'_>) -> Option<Finding> {
    let words = frame.payload.len() / 8;
    let size =
        |id, ok: bool| (!ok).then(|| Finding::null(id, format!("{} of {words} words", frame.header.ty)));
    let finding = match frame.header.ty {
        EntryType::BLACKLIST => size(FsckErrorId::JOURNAL_ENTRY_BLACKLIST_BAD_SIZE, words == 1),
        EntryType::BLACKLIST_V2 => size(FsckErrorId::JOURNAL_ENTRY_BLACKLIST_V2_BAD_SIZE, words == 2),
        EntryType::USAGE => size(FsckErrorId::JOURNAL_ENTRY_USAGE_BAD_SIZE, words >= 1),
        EntryType::DATA_USAGE => size(FsckErrorId::JOURNAL_ENTRY_DATA_USAGE_BAD_SIZE, data_usage_fits(frame)),
        EntryType::CLOCK => size(FsckErrorId::JOURNAL_ENTRY_CLOCK_BAD_SIZE, words == 2),
        EntryType::DEV_USAGE => size(FsckErrorId::JOURNAL_ENTRY_DEV_USAGE_BAD_SIZE, words >= 3),
        EntryType::REWIND_LIMIT => size(FsckErrorId::JOURNAL_ENTRY_REWIND_LIMIT_BAD_SIZE, words == 1),
        EntryType::REWIND => size(FsckErrorId::JOURNAL_ENTRY_REWIND_BAD_SIZE, words == 2),
        // The format has no error id for a short datetime; it is nulled like the others.
        EntryType::DATETIME => size(FsckErrorId::JOURNAL_ENTRY_CLOCK_BAD_SIZE, words >= 1),
        _ => None,
    };
    finding.or_else(|| value_finding(frame))
}

/// Types with the right size whose numbers contradict each other.
fn value_finding(frame: &Frame<'_>) -> Option<Finding> {
    match frame.header.ty {
        EntryType::CLOCK if frame.payload[0] > 1 => {
            let reason = format!("there is no I/O clock {}", frame.payload[0]);
            Some(Finding::null(FsckErrorId::JOURNAL_ENTRY_CLOCK_BAD_RW, reason))
        }
        EntryType::DEV_USAGE if frame.payload[4..8] != [0; 4] => Some(Finding::null(
            FsckErrorId::JOURNAL_ENTRY_DEV_USAGE_BAD_PAD,
            "dev_usage with padding that is not 0",
        )),
        EntryType::BLACKLIST_V2 => match JsetEntry::decode(frame) {
            Ok(JsetEntry::BlacklistV2 { start, end }) if start > end => {
                let reason = format!("blacklist from {start} to {end}");
                Some(Finding::null(FsckErrorId::JOURNAL_ENTRY_BLACKLIST_V2_START_PAST_END, reason))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A `data_usage` has room for the devices it names, and its replicas entry is valid in itself (spec 10 §9.4).
fn data_usage_fits(frame: &Frame<'_>) -> bool {
    match JsetEntry::decode(frame) {
        Ok(JsetEntry::DataUsage { nr_required, devs, .. }) => {
            !devs.is_empty() && (nr_required <= 1 || usize::from(nr_required) < devs.len())
        }
        _ => false,
    }
}
