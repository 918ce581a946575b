//! Making superblocks to be written (spec 10 §12).
//!
//! A write stamps the shared content once ([`Superblock::stamp`]), brings it into each device's own superblock
//! ([`Superblock::with_shared_from`]), and encodes it for each place ([`Superblock::encode_copy`]). The order of the actual writes (copy
//! after copy, on all devices at once) and the check that nobody else wrote meanwhile are the caller's.

use crate::checksum::{self, Checksum};
use crate::error::{DecodeError, Result};
use crate::superblock::sections::{RawSection, SectionType, Sections};
use crate::superblock::{CSUM_START, Superblock, magic};
use crate::units::{DevIndex, SbSeq, Sectors, UnixSeconds};
use crate::version::Version;

/// Sections every device has its own of.
const PER_DEVICE: [SectionType; 2] = [SectionType::JOURNAL, SectionType::JOURNAL_V2];

impl Superblock {
    /// Stamps the next write: sequence number, time, the members it goes to, the checksum type, and the copy of the members
    /// for old programs. Flags and sections that this write is about have been set before.
    ///
    /// # Errors
    /// If the version is not the one this program writes, or the members or an option are damaged.
    pub fn stamp(&mut self, now: UnixSeconds, online: &[DevIndex]) -> Result<()> {
        if self.version != Version::WRITE {
            return Err(DecodeError::unsupported("superblock", format!("writing version {}", self.version)));
        }
        self.magic = magic::SUPERBLOCK;
        self.layout.magic = magic::SUPERBLOCK;
        self.seq = SbSeq(self.seq.0.saturating_add(1));
        self.write_time = now;
        self.flags.set_big_endian(false);
        self.flags.set_csum_type(self.metadata_checksum()?.superblock_type().raw());
        let mut members = self.members()?;
        for &index in online {
            if let Some(member) = members.get_mut(index) {
                member.seq = self.seq;
            }
        }
        self.put_members(&members);
        Ok(())
    }

    /// This device's superblock with everything that is shared taken from `newest`: it keeps its index, its layout and its
    /// journal.
    pub fn with_shared_from(&self, newest: &Superblock) -> Superblock {
        let mut sections = Sections::default();
        for section in newest.sections.iter() {
            if !PER_DEVICE.contains(&section.ty) {
                sections.put_raw(section.clone());
            } else if let Some(own) = self.sections.raw(section.ty) {
                sections.put_raw(own.clone());
            }
        }
        let own: Vec<RawSection> =
            PER_DEVICE.iter().filter_map(|&ty| self.sections.raw(ty)).cloned().collect();
        own.into_iter().for_each(|section| sections.put_raw(section));
        Superblock {
            offset: self.offset,
            dev_idx: self.dev_idx,
            layout: self.layout.clone(),
            sections,
            ..newest.clone()
        }
    }

    /// The bytes of the copy for `sector`, with its checksum.
    ///
    /// # Errors
    /// If it is too large for its place, or its checksum type cannot be used for superblocks.
    pub fn encode_copy(&self, sector: Sectors) -> Result<Vec<u8>> {
        let (size, max) = (self.size(), self.layout.superblock_bytes_max());
        if size > max {
            return Err(DecodeError::invalid(
                "superblock",
                format!("{size} bytes long, there is room for {max}"),
            ));
        }
        let copy = Superblock { offset: sector, ..self.clone() };
        let mut bytes = copy.encode();
        let csum = checksum::compute(self.csum_type()?, None, &bytes[CSUM_START..])?;
        bytes[..Checksum::BYTES].copy_from_slice(&csum.to_bytes());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::layout::Layout;
    use crate::superblock::sections::JournalV2;
    use crate::superblock::tests::minimal;
    use crate::units::BucketIndex;

    #[test]
    fn a_stamped_write_reads_back() {
        let mut sb = minimal();
        sb.stamp(UnixSeconds(1_700_000_000), &[DevIndex(0)]).unwrap();
        let again = Superblock::decode(&sb.encode_copy(Sectors(2056)).unwrap()).unwrap();
        assert_eq!((again.seq, again.offset), (SbSeq(1), Sectors(2056)));
        assert_eq!(again.members().unwrap().list[0].seq, SbSeq(1));
        assert_eq!(again.sections, sb.sections);
        assert_eq!(again.flags.csum_type(), 1);
    }

    #[test]
    fn devices_keep_what_is_theirs() {
        let ring = |bucket| JournalV2::from_buckets([BucketIndex(bucket)]);
        let (mut newest, mut own) = (minimal(), minimal());
        newest.put_journal_buckets(&ring(20));
        newest.seq = SbSeq(9);
        newest.set_label("new").unwrap();
        own.put_journal_buckets(&ring(30));
        own.dev_idx = DevIndex(1);
        own.layout = Layout::new(11, &[Sectors(8)]).unwrap();
        let merged = own.with_shared_from(&newest);
        assert_eq!((merged.seq, merged.label().as_str(), merged.dev_idx), (SbSeq(9), "new", DevIndex(1)));
        assert_eq!(merged.layout, own.layout);
        assert_eq!(merged.journal_buckets().unwrap(), ring(30));
        own.put_journal_buckets(&JournalV2::default());
        assert!(own.with_shared_from(&newest).journal_buckets().unwrap().is_empty());
        newest.put_journal_buckets(&JournalV2::default());
        own.put_journal_buckets(&ring(30));
        assert_eq!(own.with_shared_from(&newest).journal_buckets().unwrap(), ring(30));
    }

    #[test]
    fn what_must_not_be_written() {
        let mut sb = minimal();
        sb.layout = Layout::new(0, &[Sectors(8)]).unwrap();
        assert!(sb.encode_copy(Sectors(8)).unwrap_err().to_string().contains("room for 512"));
        let mut newer = minimal();
        newer.version = Version::new(1, 14);
        assert!(newer.stamp(UnixSeconds(1), &[]).is_err());
        let mut encrypted = minimal();
        encrypted.flags.set_csum_type(4);
        assert!(encrypted.encode_copy(Sectors(8)).is_err());
    }
}
