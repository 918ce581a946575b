//! Second pass: which entries are used (spec 20 §5.4, §5.5).

use std::collections::BTreeMap;
use std::ops::Range;

use frazil_ondisk::jset::JsetKind;
use frazil_ondisk::units::Seq;

use super::{Copy, Found, Options, Problem, ReadError};

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is replayed.
    Used,
    /// Newer than the newest flush entry: never made durable, and to be blacklisted.
    NotFlushed,
    /// Torn by the crash.
    Torn,
    /// Its number is blacklisted.
    Blacklisted,
    /// No longer needed: everything in it has reached the b-trees.
    Old,
    /// Needed, but without a good copy.
    Damaged,
}

/// The range chosen.
pub(super) struct Chosen {
    pub(super) last_seq: Seq,
    pub(super) newest_flush: Seq,
    pub(super) next_seq: Seq,
}

/// Sorts copies by entry, good ones first, and reports copies that contradict each other.
pub(super) fn collect(copies: Vec<Copy>, problems: &mut Vec<Problem>) -> BTreeMap<Seq, Found> {
    let mut found: BTreeMap<Seq, Found> = BTreeMap::new();
    for copy in copies {
        let seq = copy.header.seq;
        found
            .entry(seq)
            .or_insert_with(|| Found { seq, copies: Vec::new(), fate: Fate::Old })
            .copies
            .push(copy);
    }
    for entry in found.values_mut() {
        entry.copies.sort_by_key(|c| (c.damage.is_some(), c.location));
        report_copies(entry, problems);
    }
    found
}

fn report_copies(entry: &Found, problems: &mut Vec<Problem>) {
    let seq = entry.seq;
    let Some(first) = entry.good() else { return };
    for copy in &entry.copies[1..] {
        if copy.damage.is_some() {
            problems.push(Problem::BadCopy { seq, at: copy.location });
        } else if copy.fingerprint != first.fingerprint {
            problems.push(Problem::CopiesDiffer { seq, first: first.location, second: copy.location });
        } else if copy.location.dev == first.location.dev {
            problems.push(Problem::TwiceOnOneDevice { seq, dev: copy.location.dev });
        }
    }
}

/// Finds the newest flush entry and settles the fate of every entry.
pub(super) fn choose(
    found: &mut BTreeMap<Seq, Found>,
    options: &Options<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Chosen, ReadError> {
    let newest = *found.keys().next_back().ok_or(ReadError::Empty)?;
    let next_seq = Seq(newest.0.saturating_add(1));
    let (newest_flush, last_seq) = match newest_flush(found, options, problems) {
        Some(range) => range,
        None => {
            let seq = newest_good(found, options).ok_or(ReadError::AllDamaged)?;
            problems.push(Problem::NoFlushEntry { seq });
            (seq, seq)
        }
    };
    for entry in found.range_mut(..=newest_flush).map(|(_, e)| e) {
        entry.fate = match () {
            () if entry.seq < last_seq => Fate::Old,
            () if blacklisted(options.blacklist, entry.seq) => Fate::Blacklisted,
            () if entry.good().is_some() => Fate::Used,
            () => Fate::Damaged,
        };
        report_fate(entry, problems);
    }
    report_missing(found, last_seq, newest_flush, options.blacklist, problems);
    Ok(Chosen { last_seq, newest_flush, next_seq })
}

/// The newest flush entry to be believed, and its `last_seq`; settles the fate of the entries after it.
fn newest_flush(
    found: &mut BTreeMap<Seq, Found>,
    options: &Options<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(Seq, Seq)> {
    let mut torn_flush = false;
    for entry in found.values_mut().rev() {
        if blacklisted(options.blacklist, entry.seq) {
            entry.fate = Fate::Blacklisted;
            continue;
        }
        let kind = entry.good().map(|c| c.header.kind());
        match kind {
            Some(JsetKind::Flush { last_seq }) => return Some((entry.seq, last_seq.min(entry.seq))),
            Some(JsetKind::NoFlush) => entry.fate = Fate::NotFlushed,
            None => {
                entry.fate = Fate::Torn;
                // One flush write can be under way when the power goes (spec 20 §4 rule 1), not two.
                if entry.is_flush() && std::mem::replace(&mut torn_flush, true) {
                    problems.push(Problem::SecondTornFlush { seq: entry.seq });
                }
            }
        }
    }
    None
}

fn newest_good(found: &BTreeMap<Seq, Found>, options: &Options<'_>) -> Option<Seq> {
    found.values().rev().find(|e| e.good().is_some() && !blacklisted(options.blacklist, e.seq)).map(|e| e.seq)
}

fn report_fate(entry: &Found, problems: &mut Vec<Problem>) {
    match entry.fate {
        Fate::Damaged => problems.push(Problem::DamagedEntry {
            seq: entry.seq,
            reason: entry.copies[0].damage.clone().unwrap_or_default(),
        }),
        Fate::Blacklisted if entry.good().is_some() && entry.is_flush() => {
            problems.push(Problem::BlacklistedFlush { seq: entry.seq });
        }
        _ => {}
    }
}

/// Reports the numbers of `last..=newest` that are neither there nor blacklisted (I2), as ranges: a hostile `last_seq` may be far away.
fn report_missing(
    found: &BTreeMap<Seq, Found>,
    last: Seq,
    newest: Seq,
    blacklist: &[Range<Seq>],
    problems: &mut Vec<Problem>,
) {
    let mut want = last.0;
    for present in found.range(last..=newest).map(|(seq, _)| seq.0) {
        for (start, end) in uncovered(want, present, blacklist) {
            problems.push(Problem::Missing { missing: Seq(start)..=Seq(end - 1) });
        }
        // A hostile number may be the last there is.
        want = present.saturating_add(1);
    }
}

/// The parts of `start..end` that no range of `blacklist` covers.
fn uncovered(start: u64, end: u64, blacklist: &[Range<Seq>]) -> Vec<(u64, u64)> {
    let mut sorted: Vec<_> = blacklist.iter().filter(|r| r.start.0 < end && r.end.0 > start).collect();
    sorted.sort_by_key(|r| r.start);
    let mut out = Vec::new();
    let mut at = start;
    for range in sorted {
        if at < range.start.0 {
            out.push((at, range.start.0));
        }
        at = at.max(range.end.0);
    }
    if at < end {
        out.push((at, end));
    }
    out
}

fn blacklisted(blacklist: &[Range<Seq>], seq: Seq) -> bool {
    blacklist.iter().any(|r| r.contains(&seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncovered_parts_are_cut_around_the_blacklist() {
        let bl = [Seq(5)..Seq(8), Seq(10)..Seq(20)];
        assert_eq!(uncovered(3, 12, &bl), [(3, 5), (8, 10)]);
        assert_eq!(uncovered(5, 8, &bl), []);
        assert_eq!(uncovered(0, u64::MAX, &[]), [(0, u64::MAX)]);
        assert_eq!(uncovered(4, 4, &bl), []);
    }
}
