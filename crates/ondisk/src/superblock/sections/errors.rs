//! How often each inconsistency was seen (spec 10 §9.10, spec 80 §7.5).
//!
//! Two forms: up to 1.38 an id, a count and the time of the last one; since then also the time of the first. Both are sorted by
//! id. A volume that was never damaged has an empty list.

use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId;
use crate::superblock::sections::{SectionBody, SectionType};
use crate::units::UnixSeconds;

const WHAT: &str = "superblock section errors";
const WHAT_V2: &str = "superblock section errors_v2";
/// Largest count in the older form (48 bits).
const COUNT_MAX: u64 = (1 << 48) - 1;
/// Largest time in the newer form (40 bits).
const SECONDS_MAX: u64 = (1 << 40) - 1;

/// One kind of inconsistency, as in section `errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCount {
    /// What was seen.
    pub id: FsckErrorId,
    /// How often, 1 to 2^48 − 1.
    pub count: u64,
    /// When last.
    pub last: UnixSeconds,
}

/// Section `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Errors(pub Vec<ErrorCount>);

/// One kind of inconsistency, as in section `errors_v2` and in `damage` keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCountV2 {
    /// What was seen.
    pub id: FsckErrorId,
    /// How often, at least 1; stays at its maximum.
    pub count: u32,
    /// When last, at most 2^40 − 1.
    pub last: UnixSeconds,
    /// When first, at most 2^40 − 1.
    pub first: UnixSeconds,
}

/// Section `errors_v2`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorsV2(pub Vec<ErrorCountV2>);

impl Errors {
    /// Counts `more` of them, the last one now. Adding none changes nothing.
    pub fn add(&mut self, id: FsckErrorId, more: u64, now: UnixSeconds) {
        if more == 0 {
            return;
        }
        match self.0.binary_search_by_key(&id, |e| e.id) {
            Ok(i) => {
                self.0[i].count = self.0[i].count.saturating_add(more).min(COUNT_MAX);
                self.0[i].last = now;
            }
            Err(i) => self.0.insert(i, ErrorCount { id, count: more.min(COUNT_MAX), last: now }),
        }
    }
}

impl ErrorCountV2 {
    /// Bytes of an entry.
    pub const BYTES: usize = 16;

    /// Decodes one entry and checks it.
    ///
    /// # Errors
    /// If the bytes end early, the count is 0 or the times are in the wrong order.
    pub fn decode(r: &mut Reader<'_>) -> Result<ErrorCountV2> {
        let (lo, hi) = (r.u64()?, r.u64()?);
        let entry = ErrorCountV2 {
            id: FsckErrorId(bits(lo, 0, 16) as u16),
            count: bits(lo, 16, 48) as u32,
            last: UnixSeconds(bits(lo, 48, 64) | bits(hi, 0, 24) << 16),
            first: UnixSeconds(bits(hi, 24, 64)),
        };
        if entry.count == 0 {
            return Err(r.invalid(format!("{} has count 0", entry.id)));
        }
        if entry.first > entry.last {
            return Err(
                r.invalid(format!("{}: first seen {}, after last {}", entry.id, entry.first, entry.last))
            );
        }
        Ok(entry)
    }

    /// Appends the entry; times are cut to 40 bits.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (last, first) = (self.last.0.min(SECONDS_MAX), self.first.0.min(SECONDS_MAX));
        let lo = with_bits(u64::from(self.id.0), 16, 48, u64::from(self.count));
        out.put_u64(with_bits(lo, 48, 64, last & 0xffff));
        out.put_u64(with_bits(last >> 16, 24, 64, first));
    }
}

fn check_order(what: &'static str, previous: Option<FsckErrorId>, id: FsckErrorId) -> Result<()> {
    match previous {
        Some(p) if p >= id => Err(DecodeError::invalid(what, format!("{id} stands behind {p}"))),
        _ => Ok(()),
    }
}

impl SectionBody for Errors {
    const TYPE: SectionType = SectionType::ERRORS;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, payload);
        let mut list: Vec<ErrorCount> = Vec::with_capacity(payload.len() / 16);
        while r.remaining() > 0 {
            let (v, last) = (r.u64()?, UnixSeconds(r.u64()?));
            let (id, count) = (FsckErrorId(bits(v, 0, 16) as u16), bits(v, 16, 64));
            check_order(WHAT, list.last().map(|e| e.id), id)?;
            if count == 0 {
                return Err(DecodeError::invalid(WHAT, format!("{id} has count 0")));
            }
            list.push(ErrorCount { id, count, last });
        }
        Ok(Errors(list))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for entry in &self.0 {
            out.put_u64(with_bits(u64::from(entry.id.0), 16, 64, entry.count.min(COUNT_MAX)));
            out.put_u64(entry.last.0);
        }
    }
}

impl SectionBody for ErrorsV2 {
    const TYPE: SectionType = SectionType::ERRORS_V2;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT_V2, payload);
        let mut list: Vec<ErrorCountV2> = Vec::with_capacity(payload.len() / ErrorCountV2::BYTES);
        while r.remaining() > 0 {
            let entry = ErrorCountV2::decode(&mut r)?;
            check_order(WHAT_V2, list.last().map(|e| e.id), entry.id)?;
            list.push(entry);
        }
        Ok(ErrorsV2(list))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for entry in &self.0 {
            entry.encode(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recording_keeps_the_order() {
        let mut errors = Errors::default();
        for (id, now) in [(30, 1), (7, 2), (30, 3)] {
            errors.add(FsckErrorId(id), 1, UnixSeconds(now));
        }
        let seen: Vec<_> = errors.0.iter().map(|e| (e.id.0, e.count, e.last.0)).collect();
        assert_eq!(seen, [(7, 1, 2), (30, 2, 3)]);
        let mut payload = Vec::new();
        errors.encode(&mut payload);
        assert_eq!(Errors::decode(&payload).unwrap(), errors);
        payload.rotate_left(16);
        assert!(Errors::decode(&payload).unwrap_err().to_string().contains("behind"));
    }

    #[test]
    fn empty_counts_are_refused() {
        assert!(Errors::decode(&[0; 16]).is_err());
        assert!(ErrorsV2::decode(&[0; 16]).is_err());
    }

    proptest! {
        #[test]
        fn newer_form_round_trips(id: u16, count in 1..=u32::MAX, first in 0..=SECONDS_MAX, more in 0u64..1 << 39) {
            let last = UnixSeconds((first + more).min(SECONDS_MAX));
            let list = ErrorsV2(vec![ErrorCountV2 { id: FsckErrorId(id), count, first: UnixSeconds(first), last }]);
            let mut payload = Vec::new();
            list.encode(&mut payload);
            prop_assert_eq!(ErrorsV2::decode(&payload).unwrap(), list);
        }
    }
}
