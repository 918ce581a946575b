//! The devices of a filesystem (spec 10 §9.2 and §10, spec 80 §7.11).
//!
//! Every device that ever belonged to the filesystem has a slot, whose index is its name in pointers. A slot whose UUID is zero
//! is free; a slot whose UUID is [`Member::REMOVED`] has no device any more, but pointers to it may exist.
//!
//! There are two sections. `members_v1` holds the first 56 bytes of each record and is a copy for old programs. `members_v2`
//! says how long its records are, so that every program can read those of every other: what is missing is zero, what is too
//! much is carried along.

use std::fmt;
use std::ops::Range;

use uuid::Uuid;

use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::data_type::DataType;
use crate::error::{DecodeError, Result};
use crate::superblock::bitmap::BtreeBitmap;
use crate::superblock::sections::{SectionBody, SectionType};
use crate::units::{BucketIndex, DevIndex, SbSeq, Sectors, UnixSeconds};
use crate::version::Version;

const WHAT: &str = "superblock member";

/// Bytes of a record in `members_v1`; no record is shorter.
pub const MEMBER_V1_BYTES: usize = 56;
/// Bytes of a record at format 1.13.
pub const MEMBER_1_13_BYTES: usize = 144;
/// Bytes of a record with every field known here (1.39).
const MEMBER_KNOWN_BYTES: usize = 328;
/// More slots than this cannot be named by a [`DevIndex`].
const SLOTS_MAX: usize = 256;

/// What a device may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
    /// Nothing; newer programs call it *evacuating*.
    Failed,
    /// Nothing yet.
    Spare,
    /// A number this program does not know.
    Unknown(u8),
}

impl MemberState {
    /// The name used in listings.
    pub const fn name(self) -> &'static str {
        match self {
            MemberState::ReadWrite => "rw",
            MemberState::ReadOnly => "ro",
            MemberState::Failed => "failed",
            MemberState::Spare => "spare",
            MemberState::Unknown(_) => "(unknown state)",
        }
    }

    /// The state with that name.
    pub fn from_name(name: &str) -> Option<MemberState> {
        (0..4).map(MemberState::from_raw).find(|s| s.name() == name)
    }

    fn from_raw(raw: u8) -> MemberState {
        match raw {
            0 => MemberState::ReadWrite,
            1 => MemberState::ReadOnly,
            2 => MemberState::Failed,
            3 => MemberState::Spare,
            _ => MemberState::Unknown(raw),
        }
    }

    fn raw(self) -> u8 {
        match self {
            MemberState::ReadWrite => 0,
            MemberState::ReadOnly => 1,
            MemberState::Failed => 2,
            MemberState::Spare => 3,
            MemberState::Unknown(raw) => raw,
        }
    }
}

/// The flag word of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberFlags(pub u64);

impl Default for MemberFlags {
    /// Of a new member (spec 10 §10): journal, b-trees and data allowed, durability 1.
    fn default() -> Self {
        MemberFlags(0x200e_0000)
    }
}

macro_rules! member_switches {
    ($($(#[$doc:meta])* $bit:literal $get:ident $set:ident;)*) => {
        impl MemberFlags {
            $(
                $(#[$doc])*
                pub fn $get(self) -> bool {
                    self.0 >> $bit & 1 != 0
                }

                #[doc = concat!("Sets [`MemberFlags::", stringify!($get), "`].")]
                pub fn $set(&mut self, on: bool) {
                    self.0 = with_bits(self.0, $bit, $bit + 1, u64::from(on));
                }
            )*
        }
    };
}

member_switches! {
    /// Tell the device what is no longer used.
    14 discard set_discard;
    /// The freespace b-tree covers this device.
    30 freespace_initialized set_freespace_initialized;
    /// Grow to the size of the device at the next mount (newer programs).
    31 resize_on_mount set_resize_on_mount;
    /// A rotating disk (newer programs).
    32 rotational set_rotational;
    /// [`MemberFlags::rotational`] was set by hand (newer programs).
    33 rotational_set set_rotational_set;
}

impl MemberFlags {
    /// What the device may be used for.
    pub fn state(self) -> MemberState {
        MemberState::from_raw(bits(self.0, 0, 4) as u8)
    }

    /// Sets [`MemberFlags::state`].
    pub fn set_state(&mut self, state: MemberState) {
        self.0 = with_bits(self.0, 0, 4, u64::from(state.raw() & 15));
    }

    /// Whether a kind of data may be written to the device.
    pub fn allows(self, data_type: DataType) -> bool {
        data_type.0 < 5 && self.data_allowed() >> data_type.0 & 1 != 0
    }

    /// The kinds of data that may be written, one bit each.
    pub fn data_allowed(self) -> u8 {
        bits(self.0, 15, 20) as u8
    }

    /// Sets [`MemberFlags::data_allowed`]; kinds past 4 cannot be expressed.
    pub fn set_data_allowed(&mut self, mask: u8) {
        self.0 = with_bits(self.0, 15, 20, u64::from(mask & 31));
    }

    /// The device's label: an index into section `disk_groups`.
    pub fn group(self) -> Option<usize> {
        (bits(self.0, 20, 28) as usize).checked_sub(1)
    }

    /// Sets [`MemberFlags::group`]; `false` if the index does not fit.
    pub fn set_group(&mut self, group: Option<usize>) -> bool {
        let raw = group.map_or(0, |g| g as u64 + 1);
        if raw < 256 {
            self.0 = with_bits(self.0, 20, 28, raw);
        }
        raw < 256
    }

    /// How many copies a copy here counts as: 0 for a cache, 1 normally, 2 for a redundant device.
    pub fn durability(self) -> u8 {
        // Stored plus one; 0 is how old programs wrote 1.
        (bits(self.0, 28, 30) as u8).checked_sub(1).unwrap_or(1)
    }

    /// Sets [`MemberFlags::durability`]; `false` if it is more than 2.
    pub fn set_durability(&mut self, durability: u8) -> bool {
        if durability <= 2 {
            self.0 = with_bits(self.0, 28, 30, u64::from(durability) + 1);
        }
        durability <= 2
    }

    /// How far adding the device has come, 0 when done; until then it must not be used (newer programs).
    pub fn initializing_stage(self) -> u8 {
        bits(self.0, 34, 38) as u8
    }
}

/// Counts of failures of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoErrors {
    /// Failed reads.
    pub read: u64,
    /// Failed writes.
    pub write: u64,
    /// Wrong checksums.
    pub checksum: u64,
}

/// One slot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Member {
    /// The device's own UUID; zero for a free slot.
    pub uuid: Uuid,
    /// Number of buckets.
    pub nbuckets: u64,
    /// First usable bucket; 0 in practice.
    pub first_bucket: u16,
    /// Length of a bucket in sectors.
    pub bucket_sectors: u16,
    /// When last mounted.
    pub last_mount: UnixSeconds,
    /// State, permissions, label …
    pub flags: MemberFlags,
    /// Measured speeds: sequential read and write, random read and write, per second; 0 in practice.
    pub iops: [u32; 4],
    /// Failures since the device was added.
    pub errors: IoErrors,
    /// Their counts when they were last reset.
    pub errors_at_reset: IoErrors,
    /// When they were last reset.
    pub errors_reset_time: UnixSeconds,
    /// The superblock write that last included this device.
    pub seq: SbSeq,
    /// Where b-tree nodes are or were.
    pub btree_bitmap: BtreeBitmap,
    /// Ring index of the journal bucket written last; set by a clean shutdown.
    pub last_journal_bucket: u32,
    /// Sectors used in that bucket.
    pub last_journal_bucket_offset: u32,
    /// Name of the block device when last seen, padded with zeros (newer programs, as all that follow).
    pub device_name: [u8; 16],
    /// Its model.
    pub device_model: Text64,
    /// Failed flushes.
    pub flush_errors: u64,
    /// Its serial number.
    pub device_serial: Text64,
    /// What fails together with it.
    pub failure_domain: [u8; 32],
    /// Fields of even newer programs, carried along.
    pub rest: Vec<u8>,
}

/// A zero-padded text of 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text64(pub [u8; 64]);

impl Default for Text64 {
    fn default() -> Self {
        Text64([0; 64])
    }
}

impl fmt::Debug for Text64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", text(&self.0))
    }
}

/// The text in a zero-padded field.
pub(in crate::superblock) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

impl Member {
    /// UUID of a slot whose device is gone but may still be pointed to (spec 80 §5.11).
    pub const REMOVED: Uuid = Uuid::from_u128(0xffffffff_ffff_ffff_d96a_60cf803df7ef);
    /// Largest number of buckets.
    pub const NBUCKETS_MAX: u64 = 2_147_483_583;

    /// The slot may be given to another device.
    pub fn is_free(&self) -> bool {
        self.uuid.is_nil()
    }

    /// The slot has a device.
    pub fn is_live(&self) -> bool {
        !self.is_free() && self.uuid != Self::REMOVED
    }

    /// Length of a bucket.
    pub fn bucket_size(&self) -> Sectors {
        Sectors(u64::from(self.bucket_sectors))
    }

    /// Length of all buckets together: the device must have at least that.
    pub fn size(&self) -> Sectors {
        Sectors(self.nbuckets.saturating_mul(u64::from(self.bucket_sectors)))
    }

    /// Where a bucket is on the device; `None` if there is no such bucket.
    pub fn bucket_range(&self, bucket: BucketIndex) -> Option<Range<u64>> {
        if bucket.0 < u64::from(self.first_bucket) || bucket.0 >= self.nbuckets {
            return None;
        }
        let size = u64::from(self.bucket_sectors);
        let start = bucket.0.checked_mul(size)?;
        Some(start..start.checked_add(size)?)
    }

    /// Checks a device's geometry (spec 10 §10).
    ///
    /// # Errors
    /// Naming the field and the limit.
    pub fn validate(&self, index: DevIndex, version: Version, block: Sectors, node: Sectors) -> Result<()> {
        let fail = |why: String| Err(DecodeError::invalid(WHAT, format!("device {index}: {why}")));
        let (first, bucket) = (u64::from(self.first_bucket), self.bucket_size());
        if self.nbuckets > Self::NBUCKETS_MAX {
            return fail(format!("{} buckets, at most {}", self.nbuckets, Self::NBUCKETS_MAX));
        }
        let min = version.buckets_min();
        if self.nbuckets.checked_sub(first).is_none_or(|n| n < min) {
            return fail(format!("{} buckets from bucket {first} on, at least {min} needed", self.nbuckets));
        }
        if bucket < block {
            return fail(format!("bucket of {bucket} sectors is smaller than a block of {block}"));
        }
        if bucket < node {
            return fail(format!("bucket of {bucket} sectors is smaller than a b-tree node of {node}"));
        }
        self.btree_bitmap.validate(index)
    }

    /// Reads the first fields of a record, as far as it goes.
    fn decode_record(record: &[u8]) -> Result<Member> {
        let known = record.len().min(MEMBER_KNOWN_BYTES);
        let mut padded = [0; MEMBER_KNOWN_BYTES];
        padded[..known].copy_from_slice(&record[..known]);
        let mut r = Reader::new(WHAT, &padded);
        let mut m = Member { uuid: Uuid::from_bytes(r.array()?), nbuckets: r.u64()?, ..Member::default() };
        (m.first_bucket, m.bucket_sectors) = (r.u16()?, r.u16()?);
        let bitmap_shift = r.u8()?;
        r.skip(3)?;
        (m.last_mount, m.flags) = (UnixSeconds(r.u64()?), MemberFlags(r.u64()?));
        for iops in &mut m.iops {
            *iops = r.u32()?;
        }
        for counts in [&mut m.errors, &mut m.errors_at_reset] {
            *counts = IoErrors { read: r.u64()?, write: r.u64()?, checksum: r.u64()? };
        }
        (m.errors_reset_time, m.seq) = (UnixSeconds(r.u64()?), SbSeq(r.u64()?));
        m.btree_bitmap = BtreeBitmap { shift: bitmap_shift, bits: r.u64()? };
        (m.last_journal_bucket, m.last_journal_bucket_offset) = (r.u32()?, r.u32()?);
        m.device_name = r.array()?;
        m.device_model = Text64(r.array()?);
        m.flush_errors = r.u64()?;
        m.device_serial = Text64(r.array()?);
        m.failure_domain = r.array()?;
        m.rest = record[known..].to_vec();
        Ok(m)
    }

    /// Appends the first `member_bytes` bytes of the record.
    fn encode_record(&self, member_bytes: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.uuid.as_bytes());
        out.put_u64(self.nbuckets);
        out.put_u16(self.first_bucket);
        out.put_u16(self.bucket_sectors);
        out.put_u8(self.btree_bitmap.shift);
        out.put_zeros(3);
        out.put_u64(self.last_mount.0);
        out.put_u64(self.flags.0);
        self.iops.iter().for_each(|&n| out.put_u32(n));
        for counts in [self.errors, self.errors_at_reset] {
            [counts.read, counts.write, counts.checksum].iter().for_each(|&n| out.put_u64(n));
        }
        out.put_u64(self.errors_reset_time.0);
        out.put_u64(self.seq.0);
        out.put_u64(self.btree_bitmap.bits);
        out.put_u32(self.last_journal_bucket);
        out.put_u32(self.last_journal_bucket_offset);
        out.extend_from_slice(&self.device_name);
        out.extend_from_slice(&self.device_model.0);
        out.put_u64(self.flush_errors);
        out.extend_from_slice(&self.device_serial.0);
        out.extend_from_slice(&self.failure_domain);
        out.extend_from_slice(&self.rest);
        out.resize(start + member_bytes, 0);
    }
}

/// Section `members_v2`: the slots by index, and how long each record is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    member_bytes: usize,
    /// The slots.
    pub list: Vec<Member>,
}

/// Section `members_v1`: the same slots, without most fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MembersV1(pub Vec<Member>);

impl Members {
    /// Slots whose records have the length of format 1.13, as in a new filesystem.
    pub fn new(list: Vec<Member>) -> Members {
        Members { member_bytes: MEMBER_1_13_BYTES, list }
    }

    /// The device in a slot; `None` for a free, removed or missing slot.
    pub fn get(&self, index: DevIndex) -> Option<&Member> {
        self.list.get(usize::from(index.0)).filter(|m| m.is_live())
    }

    /// The device in a slot, to be changed.
    pub fn get_mut(&mut self, index: DevIndex) -> Option<&mut Member> {
        self.list.get_mut(usize::from(index.0)).filter(|m| m.is_live())
    }

    /// The slots that have a device.
    pub fn live(&self) -> impl Iterator<Item = (DevIndex, &Member)> {
        let indexed = self.list.iter().take(SLOTS_MAX).enumerate();
        indexed.filter(|(_, m)| m.is_live()).map(|(i, m)| (DevIndex(i as u8), m))
    }

    /// Bytes of each record.
    pub fn member_bytes(&self) -> usize {
        self.member_bytes
    }
}

impl SectionBody for Members {
    const TYPE: SectionType = SectionType::MEMBERS_V2;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new("superblock section members_v2", payload);
        let member_bytes = usize::from(r.u16()?);
        r.skip(6)?;
        if member_bytes < MEMBER_V1_BYTES {
            return Err(
                r.invalid(format!("records of {member_bytes} bytes, at least {MEMBER_V1_BYTES} needed"))
            );
        }
        let records = r.rest().chunks_exact(member_bytes).take(SLOTS_MAX);
        Ok(Members { member_bytes, list: records.map(Member::decode_record).collect::<Result<_>>()? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.member_bytes as u16);
        out.put_zeros(6);
        for member in &self.list {
            member.encode_record(self.member_bytes, out);
        }
    }
}

impl SectionBody for MembersV1 {
    const TYPE: SectionType = SectionType::MEMBERS_V1;

    fn decode(payload: &[u8]) -> Result<Self> {
        let records = payload.chunks_exact(MEMBER_V1_BYTES).take(SLOTS_MAX);
        records.map(Member::decode_record).collect::<Result<_>>().map(MembersV1)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for member in &self.0 {
            member.encode_record(MEMBER_V1_BYTES, out);
        }
    }
}

#[cfg(test)]
mod tests;
