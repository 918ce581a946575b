//! The optional sections: everything in a superblock behind its fixed part (spec 10 §9, spec 80 §7.4).
//!
//! They are a packed list, in any order; each starts with its length and its type. Sections come and go, grow with newer
//! versions, and may be of types nobody here has heard of, so [`Sections`] keeps the list as it is on disk, bytes and order
//! included, and *that* is what gets written again. A typed view is decoded when asked for ([`Sections::get`]) and
//! stored when changed ([`Sections::put`]); what is not touched stays as it was, to the last byte of padding.
//!
//! | nr | section | type | module |
//! |---|---|---|---|
//! | 0, 9 | journal, journal_v2 | [`JournalV1`], [`JournalV2`] | [`journal`] |
//! | 1, 11 | members_v1, members_v2 | [`MembersV1`], [`Members`] | [`super::members`] |
//! | 2 | crypt | [`Crypt`] | [`crate::crypto`] |
//! | 3, 7 | replicas_v0, replicas | [`ReplicasV0`], [`Replicas`] | [`replicas`] |
//! | 4 | quota | [`Quota`] | [`quota`] |
//! | 5 | disk_groups | [`DiskGroups`] | [`disk_groups`] |
//! | 6 | clean | [`Clean`] | [`clean`] |
//! | 8 | journal_seq_blacklist | [`JournalSeqBlacklist`] | [`blacklist`] |
//! | 10 | counters | [`Counters`] | [`counters`] |
//! | 12, 17 | errors, errors_v2 | [`Errors`], [`ErrorsV2`] | [`errors`] |
//! | 13 | ext | [`Ext`] | [`ext`] |
//! | 14 | downgrade | [`Downgrade`] | [`downgrade`] |
//! | 15 | recovery_passes | [`RecoveryPasses`] | [`recovery_passes`] |
//! | 16 | extent_type_u64s | [`ExtentTypeU64s`] | [`extent_types`] |

pub mod blacklist;
pub mod clean;
pub mod counters;
mod crypt;
pub mod disk_groups;
pub mod downgrade;
pub mod errors;
pub mod ext;
pub mod extent_types;
pub mod journal;
pub mod quota;
pub mod recovery_passes;
pub mod replicas;

use std::fmt;

pub use blacklist::JournalSeqBlacklist;
pub use clean::Clean;
pub use counters::Counters;
pub use disk_groups::DiskGroups;
pub use downgrade::Downgrade;
pub use errors::{Errors, ErrorsV2};
pub use ext::Ext;
pub use extent_types::ExtentTypeU64s;
pub use journal::{JournalV1, JournalV2};
pub use quota::Quota;
pub use recovery_passes::RecoveryPasses;
pub use replicas::{Replicas, ReplicasV0};

use crate::bytes::{PutLe, Reader};
use crate::crypto::Crypt;
use crate::error::{DecodeError, Result};
use crate::superblock::members::{Members, MembersV1};

/// Bytes of a section's header: length and type.
pub const SECTION_HEADER_BYTES: usize = 8;

/// Number of a section's type. A newtype, because sections of newer programs are carried along.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionType(pub u32);

/// A section with a meaning: how its payload, the bytes behind the header, is read and written.
pub trait SectionBody: Sized {
    /// The section's type.
    const TYPE: SectionType;

    /// Decodes a payload.
    ///
    /// # Errors
    /// If the bytes break a rule that needs no other part of the superblock.
    fn decode(payload: &[u8]) -> Result<Self>;

    /// Appends the payload; the caller pads it to whole words.
    fn encode(&self, out: &mut Vec<u8>);
}

/// One section as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSection {
    /// What the payload is.
    pub ty: SectionType,
    /// The bytes behind the header, a whole number of 8-byte words.
    payload: Vec<u8>,
}

impl RawSection {
    /// The bytes behind the header.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Length in bytes, header included.
    pub fn size(&self) -> usize {
        SECTION_HEADER_BYTES + self.payload.len()
    }
}

macro_rules! section_types {
    ($($konst:ident = $nr:literal, $name:literal, $variant:ident($body:ty);)*) => {
        impl SectionType {
            $(#[doc = concat!("Section `", $name, "`.")] pub const $konst: SectionType = SectionType($nr);)*

            /// The name used in listings; `None` for a type this program does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($nr => Some($name),)*
                    _ => None,
                }
            }
        }

        /// A decoded section of any type.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Section {
            $(#[doc = concat!("`", $name, "`.")] $variant($body),)*
            /// Of a newer program.
            Unknown(RawSection),
        }

        impl RawSection {
            /// Decodes the payload by its type.
            ///
            /// # Errors
            /// If the payload of a known type is damaged.
            pub fn decode(&self) -> Result<Section> {
                Ok(match self.ty.0 {
                    $($nr => Section::$variant(<$body>::decode(&self.payload)?),)*
                    _ => Section::Unknown(self.clone()),
                })
            }
        }

        impl Section {
            /// The section's type.
            pub fn ty(&self) -> SectionType {
                match self {
                    $(Section::$variant(_) => SectionType($nr),)*
                    Section::Unknown(raw) => raw.ty,
                }
            }

            /// The bytes on disk this section is written as.
            pub fn encode(&self) -> RawSection {
                match self {
                    $(Section::$variant(body) => encode_body(body),)*
                    Section::Unknown(raw) => raw.clone(),
                }
            }
        }
    };
}

section_types! {
    JOURNAL = 0, "journal", Journal(JournalV1);
    MEMBERS_V1 = 1, "members_v1", MembersV1(MembersV1);
    CRYPT = 2, "crypt", Crypt(Crypt);
    REPLICAS_V0 = 3, "replicas_v0", ReplicasV0(ReplicasV0);
    QUOTA = 4, "quota", Quota(Quota);
    DISK_GROUPS = 5, "disk_groups", DiskGroups(DiskGroups);
    CLEAN = 6, "clean", Clean(Clean);
    REPLICAS = 7, "replicas", Replicas(Replicas);
    JOURNAL_SEQ_BLACKLIST = 8, "journal_seq_blacklist", JournalSeqBlacklist(JournalSeqBlacklist);
    JOURNAL_V2 = 9, "journal_v2", JournalV2(JournalV2);
    COUNTERS = 10, "counters", Counters(Counters);
    MEMBERS_V2 = 11, "members_v2", MembersV2(Members);
    ERRORS = 12, "errors", Errors(Errors);
    EXT = 13, "ext", Ext(Ext);
    DOWNGRADE = 14, "downgrade", Downgrade(Downgrade);
    RECOVERY_PASSES = 15, "recovery_passes", RecoveryPasses(RecoveryPasses);
    EXTENT_TYPE_U64S = 16, "extent_type_u64s", ExtentTypeU64s(ExtentTypeU64s);
    ERRORS_V2 = 17, "errors_v2", ErrorsV2(ErrorsV2);
}

impl fmt::Display for SectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown section {})", self.0),
        }
    }
}

impl fmt::Debug for SectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn encode_body<T: SectionBody>(body: &T) -> RawSection {
    let mut payload = Vec::new();
    body.encode(&mut payload);
    payload.put_zeros(payload.len().next_multiple_of(8) - payload.len());
    RawSection { ty: T::TYPE, payload }
}

/// The list of sections, in their order on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sections(Vec<RawSection>);

impl Sections {
    /// Splits the bytes behind the fixed part into sections.
    ///
    /// # Errors
    /// If a section is shorter than its header or reaches past the end (spec 10 §9).
    pub fn decode(bytes: &[u8]) -> Result<Sections> {
        const WHAT: &str = "superblock section";
        let mut r = Reader::new(WHAT, bytes);
        let mut list = Vec::new();
        while r.remaining() > 0 {
            let at = r.pos();
            let (u64s, ty) = (r.u32()?, SectionType(r.u32()?));
            let payload_bytes =
                (u64s as usize).checked_mul(8).and_then(|n| n.checked_sub(SECTION_HEADER_BYTES));
            let payload = payload_bytes.filter(|&n| n <= r.remaining()).ok_or_else(|| {
                DecodeError::invalid(
                    WHAT,
                    format!("{ty} at byte {at}: length {u64s} words, {} left", r.remaining() / 8 + 1),
                )
            })?;
            list.push(RawSection { ty, payload: r.bytes(payload)?.to_vec() });
        }
        Ok(Sections(list))
    }

    /// Appends every section.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for section in &self.0 {
            out.put_u32((section.size() / 8) as u32);
            out.put_u32(section.ty.0);
            out.extend_from_slice(&section.payload);
        }
    }

    /// Bytes of all sections.
    pub fn size(&self) -> usize {
        self.0.iter().map(RawSection::size).sum()
    }

    /// The sections in their order on disk.
    pub fn iter(&self) -> impl Iterator<Item = &RawSection> {
        self.0.iter()
    }

    /// The section of that type, undecoded. If a type occurs twice, the first one counts.
    pub fn raw(&self, ty: SectionType) -> Option<&RawSection> {
        self.0.iter().find(|s| s.ty == ty)
    }

    /// Whether there is a section of that type.
    pub fn has(&self, ty: SectionType) -> bool {
        self.raw(ty).is_some()
    }

    /// The decoded section; `None` if it is absent.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn get<T: SectionBody>(&self) -> Result<Option<T>> {
        self.raw(T::TYPE).map(|s| T::decode(&s.payload)).transpose()
    }

    /// Replaces a section in its place, or appends it.
    pub fn put<T: SectionBody>(&mut self, body: &T) {
        self.put_raw(encode_body(body));
    }

    /// Replaces a section in its place, or appends it, as it is.
    pub fn put_raw(&mut self, section: RawSection) {
        match self.0.iter_mut().find(|s| s.ty == section.ty) {
            Some(place) => *place = section,
            None => self.0.push(section),
        }
    }

    /// Removes every section of that type.
    pub fn remove(&mut self, ty: SectionType) {
        self.0.retain(|s| s.ty != ty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 99, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        bytes.extend_from_slice(&[1, 0, 0, 0, 12, 0, 0, 0]);
        bytes
    }

    #[test]
    fn unknown_sections_survive_changes_of_others() {
        let mut sections = Sections::decode(&two()).unwrap();
        assert_eq!(sections.get::<Errors>().unwrap(), Some(Errors::default()));
        sections.put(&Ext::default());
        sections.remove(SectionType::ERRORS);
        let mut out = Vec::new();
        sections.encode(&mut out);
        assert_eq!(out[..16], two()[..16]);
        assert_eq!(sections.iter().map(|s| s.ty.0).collect::<Vec<_>>(), [99, 13]);
        assert!(matches!(sections.raw(SectionType(99)).unwrap().decode(), Ok(Section::Unknown(_))));
    }

    #[test]
    fn bad_lengths_are_refused() {
        for u64s in [0u32, 4, u32::MAX] {
            let mut bytes = two();
            bytes[..4].copy_from_slice(&u64s.to_le_bytes());
            assert!(Sections::decode(&bytes).is_err(), "{u64s}");
        }
        assert!(Sections::decode(&two()[..20]).is_err());
    }
}
