//! The superblock: what a filesystem is, who belongs to it, and how far it has come (spec 10).
//!
//! Every device carries several copies of its superblock. A copy is a fixed part of 752 bytes (identity, sizes, flag words, feature
//! bits, and the [`Layout`] that says where the copies are) followed by [`Sections`]. Copies differ only in `offset` and checksum;
//! devices differ in `dev_idx`, layout and journal buckets; all else is shared by the whole filesystem.
//!
//! Reading goes in steps, each a pure function that a caller with a device in its hands calls in turn:
//!
//! 1. [`superblock_bytes`] on the first sectors says how much to read; [`Superblock::decode`] accepts a copy: magic, version, size,
//!    checksum, framing. If the primary copy is not accepted, [`copies`] says where to look next.
//! 2. [`Superblock::fill_defaults`] supplies what old programs left out, and [`Superblock::validate`] checks every rule.
//! 3. [`assembly`] compares the superblocks of all devices: which one counts, who belongs to it, who is missing.
//! 4. [`access`] decides whether the result may be read, or written, and why not.
//!
//! Writing ([`mod@write`]) is the reverse: stamp the shared content, copy it to each device's own superblock, encode each copy.
//!
//! Nothing is lost by decoding and encoding: unknown flag bits, feature bits, sections and fields stay as they are.
//!
//! | to find | look in |
//! |---|---|
//! | flag words, feature bits, options | [`flags`], [`features`], [`options`] |
//! | devices, labels, journal buckets, replicas, blacklist … | [`members`], [`sections`] |
//! | recovery passes, what an upgrade from an older version needs | [`recovery_pass`], [`upgrade`] |
//! | inode times, derived magic numbers | [`time`], [`magic`] |
//! | everything as names and values, for listings | [`describe`] |

pub mod access;
pub mod assembly;
pub mod bitmap;
pub mod copies;
pub mod describe;
pub mod features;
pub mod flags;
pub mod layout;
pub mod magic;
pub mod members;
pub mod options;
pub mod recovery_pass;
pub mod sections;
pub mod time;
pub mod upgrade;
pub mod validate;
pub mod write;

use uuid::Uuid;

use crate::bytes::{PutLe, Reader};
use crate::checksum::{self, Checksum, ChecksumType};
use crate::error::{DecodeError, Result};
use crate::str_hash::StrHashType;
use crate::superblock::features::{CompatFeatures, Features};
use crate::superblock::flags::{FLAG_WORDS, Flags};
use crate::superblock::layout::Layout;
use crate::superblock::members::{Member, Members, MembersV1};
use crate::superblock::sections::{JournalV1, JournalV2, SectionType, Sections};
use crate::superblock::time::TimeBase;
use crate::units::{DevIndex, SECTOR_BYTES, SbSeq, Sectors, UnixSeconds};
use crate::version::Version;

const WHAT: &str = "superblock";

/// Bytes in front of the sections.
pub const FIXED_BYTES: usize = 752;
/// The checksum covers everything behind itself.
const CSUM_START: usize = 16;
/// Bytes of the filesystem's label.
pub const LABEL_BYTES: usize = 32;

/// One superblock, as one device has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The checksum as it was read, or as last computed.
    pub csum: Checksum,
    /// What writers stamp into new structures, and whose rules hold.
    pub version: Version,
    /// No structure on disk is older.
    pub version_min: Version,
    pad: u32,
    /// Identifies the structure.
    pub magic: Uuid,
    /// Internal UUID: fixed at format time, shared by all devices, seeds other magic numbers.
    pub uuid: Uuid,
    /// External UUID: what users see; may be changed.
    pub user_uuid: Uuid,
    label: [u8; LABEL_BYTES],
    /// Where this copy stands.
    pub offset: Sectors,
    /// Number of this write; the larger is the newer.
    pub seq: SbSeq,
    /// Length of a block in sectors.
    pub block_sectors: u16,
    /// Which member this device is.
    pub dev_idx: DevIndex,
    /// Number of slots in the members sections.
    pub nr_devices: u8,
    time_base_ns: u64,
    time_base_hi: u32,
    time_precision_ns: u32,
    /// State and options.
    pub flags: Flags,
    /// When this was written.
    pub write_time: UnixSeconds,
    /// Incompatible features.
    pub features: Features,
    /// Compatible features.
    pub compat: CompatFeatures,
    /// Where this device's copies are.
    pub layout: Layout,
    /// Everything else.
    pub sections: Sections,
}

/// Length in bytes of the superblock that starts with `first` (at least [`FIXED_BYTES`] bytes), so that the rest can be read.
///
/// # Errors
/// If this is no superblock, or one that says it is larger than its layout allows.
pub fn superblock_bytes(first: &[u8]) -> Result<usize> {
    let mut r = Reader::new(WHAT, first);
    let fixed = r.bytes(FIXED_BYTES)?;
    let magic = Uuid::from_bytes(Reader::new(WHAT, &fixed[24..]).array()?);
    if !magic::is_superblock(magic) {
        return Err(DecodeError::invalid(WHAT, "no bcachefs superblock here (wrong magic number)"));
    }
    let u64s = Reader::new(WHAT, &fixed[124..]).u32()?;
    let bytes = FIXED_BYTES.saturating_add((u64s as usize).saturating_mul(8));
    let max = Layout::decode(&mut Reader::new(WHAT, &fixed[240..]))?.superblock_bytes_max();
    if bytes > max {
        return Err(DecodeError::invalid(WHAT, format!("{bytes} bytes long, its layout allows {max}")));
    }
    Ok(bytes)
}

impl Superblock {
    /// A superblock of format 1.13 for a new filesystem that has never been started (spec 10 §16.2): default flags and
    /// features, no sections, device 0.
    pub fn new(
        uuid: Uuid,
        user_uuid: Uuid,
        created_ns: u64,
        block_sectors: u16,
        layout: Layout,
    ) -> Superblock {
        Superblock {
            csum: Checksum::default(),
            version: Version::WRITE,
            version_min: Version::WRITE,
            pad: 0,
            magic: magic::SUPERBLOCK,
            uuid,
            user_uuid,
            label: [0; LABEL_BYTES],
            offset: layout::SUPERBLOCK_SECTOR,
            seq: SbSeq(0),
            block_sectors,
            dev_idx: DevIndex(0),
            nr_devices: 0,
            time_base_ns: created_ns,
            time_base_hi: 0,
            time_precision_ns: 1,
            flags: Flags::NEW_1_13,
            write_time: UnixSeconds(0),
            features: Features::STANDARD_1_13,
            compat: CompatFeatures::empty(),
            layout,
            sections: Sections::default(),
        }
    }

    /// Accepts one copy (spec 10 §11.1, step 2). `bytes` may be longer than the superblock.
    ///
    /// # Errors
    /// If the magic, the version, the size, the checksum or the framing of the sections is wrong. Another copy may be good.
    pub fn decode(bytes: &[u8]) -> Result<Superblock> {
        let total = superblock_bytes(bytes)?;
        let have = bytes.len();
        let bytes = bytes.get(..total).ok_or(DecodeError::Truncated { what: WHAT, need: total, have })?;
        let mut sb = Superblock::decode_fixed(bytes)?;
        sb.check_version()?;
        checksum::verify(WHAT, sb.csum_type()?, None, sb.csum, &bytes[CSUM_START..])?;
        sb.sections = Sections::decode(&bytes[FIXED_BYTES..])?;
        Ok(sb)
    }

    fn decode_fixed(bytes: &[u8]) -> Result<Superblock> {
        let mut r = Reader::new(WHAT, bytes);
        let csum = Checksum::decode(&mut r)?;
        let (version, version_min, pad) = (Version(r.u16()?), Version(r.u16()?), r.u32()?);
        let [magic, uuid, user_uuid] = [r.array()?, r.array()?, r.array()?].map(Uuid::from_bytes);
        let label = r.array()?;
        let (offset, seq) = (Sectors(r.u64()?), SbSeq(r.u64()?));
        let (block_sectors, dev_idx, nr_devices) = (r.u16()?, DevIndex(r.u8()?), r.u8()?);
        r.skip(4)?; // The length, which decides how many bytes are here.
        let (time_base_ns, time_base_hi, time_precision_ns) = (r.u64()?, r.u32()?, r.u32()?);
        let mut flags = [0; FLAG_WORDS];
        for word in &mut flags {
            *word = r.u64()?;
        }
        Ok(Superblock {
            csum,
            version,
            version_min,
            pad,
            magic,
            uuid,
            user_uuid,
            label,
            offset,
            seq,
            block_sectors,
            dev_idx,
            nr_devices,
            time_base_ns,
            time_base_hi,
            time_precision_ns,
            flags: Flags(flags),
            write_time: UnixSeconds(r.u64()?),
            features: Features([r.u64()?, r.u64()?]),
            compat: CompatFeatures([r.u64()?, r.u64()?]),
            layout: Layout::decode(&mut r)?,
            sections: Sections::default(),
        })
    }

    /// The bytes on disk, with the checksum this superblock holds.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        self.csum.encode(&mut out);
        out.put_u16(self.version.0);
        out.put_u16(self.version_min.0);
        out.put_u32(self.pad);
        for id in [self.magic, self.uuid, self.user_uuid] {
            out.extend_from_slice(id.as_bytes());
        }
        out.extend_from_slice(&self.label);
        out.put_u64(self.offset.0);
        out.put_u64(self.seq.0);
        out.put_u16(self.block_sectors);
        out.put_u8(self.dev_idx.0);
        out.put_u8(self.nr_devices);
        out.put_u32((self.sections.size() / 8) as u32);
        out.put_u64(self.time_base_ns);
        out.put_u32(self.time_base_hi);
        out.put_u32(self.time_precision_ns);
        self.flags.0.iter().for_each(|&word| out.put_u64(word));
        out.put_u64(self.write_time.0);
        self.features.0.iter().chain(&self.compat.0).for_each(|&word| out.put_u64(word));
        self.layout.encode(&mut out);
        self.sections.encode(&mut out);
        out
    }

    /// Length on disk in bytes.
    pub fn size(&self) -> usize {
        FIXED_BYTES + self.sections.size()
    }

    /// The type of this superblock's checksum.
    ///
    /// # Errors
    /// If there is no such type.
    pub fn csum_type(&self) -> Result<ChecksumType> {
        let raw = self.flags.csum_type();
        ChecksumType::from_raw(raw)
            .ok_or_else(|| DecodeError::invalid(WHAT, format!("unknown checksum type {raw}")))
    }

    /// The label users give the filesystem; empty if it has none.
    pub fn label(&self) -> String {
        members::text(&self.label)
    }

    /// Sets the label.
    ///
    /// # Errors
    /// If it has more than 31 bytes, or a zero byte.
    pub fn set_label(&mut self, label: &str) -> Result<()> {
        if label.len() >= LABEL_BYTES || label.contains('\0') {
            return Err(DecodeError::invalid(WHAT, format!("label '{label}' is longer than 31 bytes")));
        }
        self.label = [0; LABEL_BYTES];
        self.label[..label.len()].copy_from_slice(label.as_bytes());
        Ok(())
    }

    /// Length of a block in bytes.
    pub fn block_bytes(&self) -> u64 {
        u64::from(self.block_sectors) * SECTOR_BYTES
    }

    /// Length of a b-tree node.
    pub fn btree_node_size(&self) -> Sectors {
        self.flags.btree_node_size()
    }

    /// What inode times are relative to.
    pub fn time_base(&self) -> TimeBase {
        TimeBase { base_ns: self.time_base_ns, precision_ns: self.time_precision_ns }
    }

    /// Low bits of a backpointer's offset that hold an offset inside the extent (spec 80 §5.14).
    pub fn extent_bp_shift(&self) -> u8 {
        match self.flags.extent_bp_shift() {
            0 => 10,
            shift => shift,
        }
    }

    /// The hash that new inodes use for names: option `str_hash`, which feature `new_siphash` gives its meaning.
    ///
    /// # Errors
    /// If the option's value has no meaning.
    pub fn str_hash_type(&self) -> Result<StrHashType> {
        let (option, new_siphash) = (self.flags.str_hash(), self.features.contains(Features::NEW_SIPHASH));
        StrHashType::from_option(option, new_siphash)
            .ok_or_else(|| DecodeError::invalid(WHAT, format!("unknown option str_hash {option}")))
    }

    /// The newest incompatible feature in use; version 0 if the superblock does not say (spec 80 §2).
    pub fn version_incompat(&self) -> Version {
        if self.features.contains(Features::INCOMPAT_VERSION_FIELD) {
            self.flags.version_incompat()
        } else {
            Version(0)
        }
    }

    /// The devices, from whichever members section there is.
    ///
    /// # Errors
    /// If there is none, it is damaged, or it has fewer slots than `nr_devices` says.
    pub fn members(&self) -> Result<Members> {
        let mut members = match self.sections.get::<Members>()? {
            Some(members) => members,
            None => match self.sections.get::<MembersV1>()? {
                Some(old) => Members::new(old.0),
                None => return Err(DecodeError::invalid(WHAT, "there is no section members")),
            },
        };
        let (slots, expected) = (members.list.len(), usize::from(self.nr_devices));
        if slots < expected {
            return Err(DecodeError::invalid(WHAT, format!("{slots} member records for {expected} devices")));
        }
        members.list.truncate(expected);
        Ok(members)
    }

    /// Stores the devices: in the newer section, in the older one too unless VERSION_INCOMPAT is past 1.25 (spec 80 §5.10).
    pub fn put_members(&mut self, members: &Members) {
        self.nr_devices = members.list.len() as u8;
        self.sections.put(members);
        if self.version_incompat() > Version::EXTENT_FLAGS {
            self.sections.remove(SectionType::MEMBERS_V1);
        } else {
            self.sections.put(&MembersV1(members.list.clone()));
        }
    }

    /// The record of this device itself.
    ///
    /// # Errors
    /// As [`Superblock::members`]; or if the slot has no device.
    pub fn own_member(&self) -> Result<Member> {
        let index = self.dev_idx;
        let member = self.members()?.get(index).cloned();
        member.ok_or_else(|| DecodeError::invalid(WHAT, format!("slot {index}, its own, has no device")))
    }

    /// The ring of journal buckets on this device; empty if there is no journal.
    ///
    /// # Errors
    /// If the section is damaged.
    pub fn journal_buckets(&self) -> Result<JournalV2> {
        if let Some(ring) = self.sections.get::<JournalV2>()? {
            return Ok(ring);
        }
        let old = self.sections.get::<JournalV1>()?.unwrap_or_default();
        Ok(JournalV2::from_buckets(old.0))
    }

    /// Stores the ring of journal buckets, in the newer section only.
    pub fn put_journal_buckets(&mut self, ring: &JournalV2) {
        self.sections.remove(SectionType::JOURNAL);
        if ring.is_empty() {
            self.sections.remove(SectionType::JOURNAL_V2);
        } else {
            self.sections.put(ring);
        }
    }
}

#[cfg(test)]
mod tests;
