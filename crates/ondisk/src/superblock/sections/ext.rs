//! What the next start must do, and options that no flag word had room for (spec 10 §9.11, spec 80 §7.4).
//!
//! The section grew over time. It keeps the length it was found with, unless a field past that end is set.

use crate::btree_id::BtreeId;
use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId;
use crate::superblock::recovery_pass::PassSet;
use crate::superblock::sections::{SectionBody, SectionType};

const WHAT: &str = "superblock section ext";
/// Shortest payload that is accepted: everything before `btrees_lost_data`.
const PAYLOAD_MIN: usize = 80;
/// Payload a started 1.13 filesystem has.
const PAYLOAD_1_13: usize = 88;
/// Payload with every field known here.
const PAYLOAD_FULL: usize = 112;
const SILENT_WORDS: usize = 8;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ext {
    /// Recovery passes that must run at the next start; each bit goes when its pass succeeded.
    pub recovery_passes_required: PassSet,
    errors_silent: [u64; SILENT_WORDS],
    /// B-trees known to have lost nodes, one bit each; cleared by a complete check.
    pub btrees_lost_data: u64,
    /// Bit fields of options (newer programs).
    flags0: u64,
    /// B-trees that ever lost nodes (newer programs).
    pub btrees_lost_data_ever: u64,
    /// B-trees found consistent and not changed since (newer programs). Who does not maintain it must clear it.
    pub btrees_clean: u64,
    payload_bytes: usize,
    /// Fields of even newer programs.
    rest: Vec<u8>,
}

impl Default for Ext {
    fn default() -> Self {
        Ext {
            recovery_passes_required: PassSet::EMPTY,
            errors_silent: [0; SILENT_WORDS],
            btrees_lost_data: 0,
            flags0: 0,
            btrees_lost_data_ever: 0,
            btrees_clean: 0,
            payload_bytes: PAYLOAD_1_13,
            rest: Vec::new(),
        }
    }
}

impl Ext {
    /// Whether an inconsistency is to be repaired without counting it and without a word.
    pub fn is_silent(&self, id: FsckErrorId) -> bool {
        let (word, bit) = (usize::from(id.0 / 64), id.0 % 64);
        self.errors_silent.get(word).is_some_and(|w| w >> bit & 1 != 0)
    }

    /// Makes an inconsistency silent. Ids past the bitmap's 512 cannot be; they stay loud.
    pub fn set_silent(&mut self, id: FsckErrorId) {
        if let Some(word) = self.errors_silent.get_mut(usize::from(id.0 / 64)) {
            *word |= 1 << (id.0 % 64);
        }
    }

    /// Makes every inconsistency loud again: after a successful recovery.
    pub fn clear_silent(&mut self) {
        self.errors_silent = [0; SILENT_WORDS];
    }

    /// The silent inconsistencies, ascending.
    pub fn silent(&self) -> impl Iterator<Item = FsckErrorId> + '_ {
        (0..64 * SILENT_WORDS as u16).map(FsckErrorId).filter(|&id| self.is_silent(id))
    }

    /// The b-trees of a bitmap such as [`Ext::btrees_lost_data`].
    pub fn btrees(bitmap: u64) -> impl Iterator<Item = BtreeId> {
        (0..64).filter(move |b| bitmap >> b & 1 != 0).map(BtreeId)
    }

    /// An option's bits `[lo, hi)`; 0 if the section is too short to hold them.
    pub(in crate::superblock) fn option_bits(&self, lo: u32, hi: u32) -> u64 {
        bits(self.flags0, lo, hi)
    }

    /// Sets an option's bits; the section grows if it is too short.
    pub(in crate::superblock) fn set_option_bits(&mut self, lo: u32, hi: u32, value: u64) {
        self.flags0 = with_bits(self.flags0, lo, hi, value);
    }
}

impl SectionBody for Ext {
    const TYPE: SectionType = SectionType::EXT;

    fn decode(payload: &[u8]) -> Result<Self> {
        if payload.len() < PAYLOAD_MIN {
            return Err(DecodeError::Truncated { what: WHAT, need: PAYLOAD_MIN, have: payload.len() });
        }
        let known = payload.len().min(PAYLOAD_FULL);
        let mut padded = [0; PAYLOAD_FULL];
        padded[..known].copy_from_slice(&payload[..known]);
        let mut r = Reader::new(WHAT, &padded);
        let recovery_passes_required = PassSet([r.u64()?, r.u64()?]);
        let mut errors_silent = [0; SILENT_WORDS];
        for word in &mut errors_silent {
            *word = r.u64()?;
        }
        Ok(Ext {
            recovery_passes_required,
            errors_silent,
            btrees_lost_data: r.u64()?,
            flags0: r.u64()?,
            btrees_lost_data_ever: r.u64()?,
            btrees_clean: r.u64()?,
            payload_bytes: payload.len(),
            rest: payload[known..].to_vec(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for &word in self.recovery_passes_required.0.iter().chain(&self.errors_silent) {
            out.put_u64(word);
        }
        let tail = [self.btrees_lost_data, self.flags0, self.btrees_lost_data_ever, self.btrees_clean];
        let used = tail.iter().rposition(|&w| w != 0).map_or(0, |i| i + 1);
        for word in tail {
            out.put_u64(word);
        }
        out.extend_from_slice(&self.rest);
        out.truncate(start + self.payload_bytes.max(PAYLOAD_MIN + 8 * used));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(ext: &Ext) -> Vec<u8> {
        let mut out = Vec::new();
        ext.encode(&mut out);
        out
    }

    #[test]
    fn length_is_kept_until_it_does_not_suffice() {
        for len in [80, 88, 112, 128] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut ext = Ext::decode(&bytes).unwrap();
            assert_eq!(payload(&ext), bytes, "{len}");
            ext.btrees_clean = 1;
            assert_eq!(payload(&ext).len(), len.max(112));
        }
        assert!(Ext::decode(&[0; 72]).is_err());
        assert_eq!(payload(&Ext::default()).len(), PAYLOAD_1_13);
    }

    #[test]
    fn silent_errors() {
        let mut ext = Ext::default();
        for id in [0, 63, 64, 287, 511, 512] {
            ext.set_silent(FsckErrorId(id));
        }
        assert!(ext.silent().map(|id| id.0).eq([0, 63, 64, 287, 511]));
        assert_eq!(payload(&ext)[16 + 35] & 0x80, 0x80);
        ext.clear_silent();
        assert_eq!(ext.silent().count(), 0);
    }
}
