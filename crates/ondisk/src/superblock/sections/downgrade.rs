//! What an older program must check if it takes over (spec 10 §9.12, spec 60 §3.4, spec 80 §3).
//!
//! Newer programs leave one entry for each version that made something an older program would find wrong. The older one, which
//! lowers the version when it starts, runs the passes of every entry above its own version and repairs the listed
//! inconsistencies in silence.

use crate::bytes::{PutLe, Reader};
use crate::error::{DecodeError, Result};
use crate::fsck_errors::FsckErrorId;
use crate::superblock::recovery_pass::{PassSet, RecoveryPass};
use crate::superblock::sections::{SectionBody, SectionType};
use crate::version::Version;

const WHAT: &str = "superblock section downgrade";
const ENTRY_FIXED_BYTES: usize = 20;

/// What to do when going below a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DowngradeEntry {
    /// The version that is left behind.
    pub version: Version,
    /// Passes to run.
    pub recovery_passes: PassSet,
    /// Inconsistencies to repair in silence.
    pub errors: Vec<FsckErrorId>,
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Downgrade(pub Vec<DowngradeEntry>);

impl Downgrade {
    /// What a program of format 1.13 leaves; `stripes` if any erasure-coded stripe exists.
    pub fn of_1_13(stripes: bool) -> Downgrade {
        let ids = |list: &[u16]| list.iter().map(|&id| FsckErrorId(id)).collect::<Vec<_>>();
        let entry = |version, errors| DowngradeEntry {
            version,
            recovery_passes: PassSet::of(&[RecoveryPass::CHECK_ALLOCATIONS]),
            errors: ids(errors),
        };
        let mut entries = Vec::new();
        if stripes {
            entries.push(entry(Version::BUCKET_STRIPE_SECTORS, &[108]));
        }
        entries.extend([
            entry(Version::DISK_ACCOUNTING_V2, &[76, 77, 78, 68, 69, 70, 71, 72, 74, 73, 75, 80]),
            entry(Version::DISK_ACCOUNTING_V3, &[76, 77, 78, 68, 69, 70, 71, 72, 74, 73, 75, 273, 80]),
            entry(Version::REBALANCE_WORK_ACCT_FIX, &[272]),
        ]);
        Downgrade(entries)
    }

    /// What going from `from` down to `to` requires: the passes and errors of the entries between.
    pub fn requirements(&self, from: Version, to: Version) -> (PassSet, Vec<FsckErrorId>) {
        let between = self.0.iter().filter(|e| to < e.version && e.version <= from);
        between.fold((PassSet::EMPTY, Vec::new()), |(passes, mut errors), entry| {
            errors.extend_from_slice(&entry.errors);
            (passes.union(entry.recovery_passes), errors)
        })
    }

    /// Checks that every entry is about the superblock's major version.
    ///
    /// # Errors
    /// Naming the entry that is not.
    pub fn validate(&self, version: Version) -> Result<()> {
        match self.0.iter().find(|e| e.version.major() != version.major()) {
            Some(entry) => Err(DecodeError::invalid(
                WHAT,
                format!("entry for {} in a superblock of version {version}", entry.version),
            )),
            None => Ok(()),
        }
    }
}

impl SectionBody for Downgrade {
    const TYPE: SectionType = SectionType::DOWNGRADE;

    /// A partial entry at the end, or one for version 0, is padding.
    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, payload);
        let mut entries = Vec::new();
        while r.remaining() >= ENTRY_FIXED_BYTES {
            let version = Version(r.u16()?);
            let recovery_passes = PassSet([r.u64()?, r.u64()?]);
            let nr_errors = usize::from(r.u16()?);
            if version == Version(0) || r.remaining() < 2 * nr_errors {
                break;
            }
            let errors = r
                .bytes(2 * nr_errors)?
                .chunks_exact(2)
                .map(|b| FsckErrorId(u16::from_le_bytes([b[0], b[1]])));
            entries.push(DowngradeEntry { version, recovery_passes, errors: errors.collect() });
        }
        Ok(Downgrade(entries))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for entry in &self.0 {
            out.put_u16(entry.version.0);
            out.put_u64(entry.recovery_passes.0[0]);
            out.put_u64(entry.recovery_passes.0[1]);
            out.put_u16(entry.errors.len() as u16);
            for id in &entry.errors {
                out.put_u16(id.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_1_13_writes() {
        let mut payload = Vec::new();
        Downgrade::of_1_13(false).encode(&mut payload);
        assert_eq!(payload.len() + 8, 120);
        assert_eq!(payload[..12], [9, 4, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Downgrade::decode(&payload).unwrap(), Downgrade::of_1_13(false));
        assert_eq!(Downgrade::of_1_13(true).0.len(), 4);
    }

    #[test]
    fn rows_of_a_1_39_image() {
        // spec 80 §3.2.
        let mut payload = vec![0x26, 4, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
        payload.extend([0x7c, 0, 0x72, 0, 0x7b, 0]);
        payload.extend([0x27, 4, 0x20, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
        payload.extend([0x83, 0, 0x69, 0, 0x10, 1, 0, 0, 0, 0]);
        let rows = Downgrade::decode(&payload).unwrap();
        let (passes, errors) = rows.requirements(Version::new(1, 39), Version::new(1, 38));
        assert!(passes.iter().map(|p| p.0).eq([5, 11, 15]));
        assert!(errors.iter().map(|e| e.0).eq([131, 105, 272]));
        let (passes, errors) = rows.requirements(Version::new(1, 39), Version::WRITE);
        assert_eq!((passes.iter().count(), errors.len()), (4, 6));
        assert!(rows.validate(Version::new(1, 39)).is_ok());
        assert!(rows.validate(Version::new(2, 0)).is_err());
    }

    #[test]
    fn partial_entries_are_padding() {
        let mut payload = Vec::new();
        Downgrade::of_1_13(false).encode(&mut payload);
        payload.truncate(payload.len() - 2);
        assert_eq!(Downgrade::decode(&payload).unwrap().0.len(), 2);
    }
}
