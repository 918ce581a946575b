//! What a clean shutdown leaves (spec 10 §9.7).
//!
//! With the flag CLEAN set the journal is not read at all; roots of b-trees, the key version and the clocks come from here, in
//! the form of journal sub-entries ([`crate::jset`]), and the next journal entry has the number after `journal_seq`. While CLEAN is
//! not set the section is stale and means nothing.

use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::jset::{Frames, JsetEntry, entries};
use crate::superblock::sections::{SectionBody, SectionType};
use crate::units::Seq;

const WHAT: &str = "superblock section clean";

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clean {
    /// Always 0.
    pub flags: u32,
    clocks: [u16; 2],
    /// Number of the last journal entry.
    pub journal_seq: Seq,
    /// Journal sub-entries, back to back. Zero words at the end are empty sub-entries: padding.
    pub entries: Vec<u8>,
}

impl Clean {
    /// Bytes the reference reserves for the section, header included, with the 21 b-trees of format 1.13.
    pub const SIZE_1_13: usize = 2592;
    /// Bytes of the header and the fields in front of the sub-entries.
    const FIXED_BYTES: usize = 24;

    /// A section whose sub-entries are `entries`, padded so that the section has at least `size` bytes.
    pub fn new(journal_seq: Seq, mut entries: Vec<u8>, size: usize) -> Clean {
        let payload = size.saturating_sub(Self::FIXED_BYTES).max(entries.len());
        entries.resize(payload.next_multiple_of(8), 0);
        Clean { flags: 0, clocks: [0; 2], journal_seq, entries }
    }

    /// The sub-entries that mean something, decoded; padding is left out.
    pub fn entries(&self) -> impl Iterator<Item = Result<JsetEntry<'_>>> {
        entries(&self.entries)
    }
}

impl SectionBody for Clean {
    const TYPE: SectionType = SectionType::CLEAN;

    /// Checks that the list of sub-entries ends where the section does, not what they hold: at recovery they are
    /// validated like those of a journal entry.
    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, payload);
        let flags = r.u32()?;
        let clocks = [r.u16()?, r.u16()?];
        let journal_seq = Seq(r.u64()?);
        Frames::new(r.rest()).try_for_each(|frame| frame.map(|_| ()))?;
        Ok(Clean { flags, clocks, journal_seq, entries: r.rest().to_vec() })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.flags);
        out.put_u16(self.clocks[0]);
        out.put_u16(self.clocks[1]);
        out.put_u64(self.journal_seq.0);
        out.extend_from_slice(&self.entries);
    }
}
