//! What a sub-entry means (spec 20 §3.2, spec 80 §7.6).

use std::fmt;

use super::frame::{EntryType, Frame, FrameHeader, Frames};
use crate::bkey::Key;
use crate::btree_id::BtreeId;
use crate::bytes::{PutLe, Reader};
use crate::data_type::DataType;
use crate::error::{DecodeError, Result};
use crate::units::{Sectors, Seq};

const WHAT: &str = "jset sub-entry";

/// Bytes of a transaction's name in the entry that precedes its updates.
pub const TRANSACTION_NAME_BYTES: usize = 32;

/// A sub-entry, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsetEntry<'a> {
    /// Keys to insert: what replay takes (type 0). Without keys it is padding.
    BtreeKeys(KeyList<'a>),
    /// The root of a b-tree (type 1).
    BtreeRoot {
        /// Which b-tree.
        btree: BtreeId,
        /// Level of the root node.
        level: u8,
        /// The pointer to the root node; `None`: there was a root, but it was invalid.
        key: Option<Key<'a>>,
    },
    /// Obsolete (type 2).
    PrioPtrs(Frame<'a>),
    /// A sequence number never to be used again (type 3); old, honoured when read.
    Blacklist {
        /// The number.
        seq: Seq,
    },
    /// A range of them (type 4); old, honoured when read.
    BlacklistV2 {
        /// First number.
        start: Seq,
        /// Last number: the range is inclusive, unlike those of the superblock.
        end: Seq,
    },
    /// A counter (type 5).
    Usage {
        /// Which one.
        kind: UsageKind,
        /// Its value.
        value: u64,
    },
    /// Sectors in use by a kind of data on a set of devices (type 6); obsolete.
    DataUsage {
        /// Sectors.
        sectors: Sectors,
        /// Kind of data.
        data_type: DataType,
        /// How many of the devices are needed to read it.
        nr_required: u8,
        /// Indexes of the devices.
        devs: &'a [u8],
    },
    /// An I/O clock (type 7).
    Clock {
        /// The clock of writes rather than that of reads.
        write: bool,
        /// Sectors of I/O done.
        time: Sectors,
    },
    /// Usage of one device (type 8); obsolete.
    DevUsage {
        /// Index of the device.
        dev: u32,
        /// Per data type, from 0 on.
        records: Vec<DevUsageRecord>,
    },
    /// Text (type 9), see [`JsetEntry::log_text`].
    Log {
        /// 0: the name of the transaction whose entries follow; 1: free text.
        level: u8,
        /// The text, with the zeros that pad it.
        text: &'a [u8],
    },
    /// The keys that the following [`JsetEntry::BtreeKeys`] replaces (type 10).
    Overwrite(KeyList<'a>),
    /// Keys for the write buffer (type 11); never on disk.
    WriteBufferKeys(KeyList<'a>),
    /// When the entry was written (type 12).
    Datetime {
        /// Seconds since 1970.
        seconds: u64,
    },
    /// A key for information (type 13).
    LogBkey(KeyList<'a>),
    /// The journal may not be rewound to before this (type 14).
    RewindLimit {
        /// The oldest entry it may be rewound to.
        seq: Seq,
    },
    /// The updates of the entries `to < seq ≤ from` are undone (type 15). Who cannot do that must not replay.
    Rewind {
        /// Newest entry to be undone.
        from: Seq,
        /// Newest entry that stays.
        to: Seq,
    },
    /// A type this version does not know: skipped, and kept.
    Unknown(Frame<'a>),
}

/// Keys of one level of one b-tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyList<'a> {
    /// Which b-tree.
    pub btree: BtreeId,
    /// The level of the nodes the keys belong into.
    pub level: u8,
    /// The keys.
    pub keys: Keys<'a>,
}

/// Unpacked keys back to back. Iterating yields an error for a key that cannot be decoded, and goes on behind it if its length
/// makes sense.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys<'a>(&'a [u8]);

impl<'a> Keys<'a> {
    /// The keys in these bytes.
    pub fn new(payload: &'a [u8]) -> Keys<'a> {
        Keys(payload)
    }

    /// The bytes of the keys not yet taken.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Keys<'a> {
    type Item = Result<Key<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = usize::from(*self.0.first()?) * 8;
        match self.0.split_at_checked(bytes).filter(|_| bytes > 0) {
            Some((key, rest)) => {
                self.0 = rest;
                Some(Key::decode(&mut Reader::new("bkey", key)))
            }
            None => {
                let left = std::mem::take(&mut self.0).len();
                let reason = format!("a key of {bytes} bytes where {left} are left");
                Some(Err(DecodeError::invalid(WHAT, reason)))
            }
        }
    }
}

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Which counter a `usage` sub-entry holds; stored where other types have the b-tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UsageKind(pub u8);

impl UsageKind {
    /// Reserved sectors; no longer written.
    pub const RESERVED: UsageKind = UsageKind(0);
    /// Inodes; no longer written.
    pub const INODES: UsageKind = UsageKind(1);
    /// The largest key version handed out: no encryption nonce may be built from one below (spec 10 §15.4).
    pub const KEY_VERSION: UsageKind = UsageKind(2);
}

impl fmt::Display for UsageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            UsageKind::RESERVED => f.write_str("reserved"),
            UsageKind::INODES => f.write_str("inodes"),
            UsageKind::KEY_VERSION => f.write_str("key_version"),
            UsageKind(other) => write!(f, "(unknown usage kind {other})"),
        }
    }
}

/// One data type's share in [`JsetEntry::DevUsage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DevUsageRecord {
    /// Buckets in use.
    pub buckets: u64,
    /// Sectors in use.
    pub sectors: Sectors,
    /// Sectors unused in those buckets.
    pub fragmented: Sectors,
}

impl DevUsageRecord {
    const BYTES: usize = 24;

    fn decode(bytes: &[u8]) -> Result<DevUsageRecord> {
        let mut r = Reader::new(WHAT, bytes);
        Ok(DevUsageRecord { buckets: r.u64()?, sectors: Sectors(r.u64()?), fragmented: Sectors(r.u64()?) })
    }
}

/// The sub-entries of a list, decoded, without the padding. An error that does not stop the iteration concerns one sub-entry.
pub fn entries(list: &[u8]) -> impl Iterator<Item = Result<JsetEntry<'_>>> {
    Frames::new(list)
        .filter(|frame| !frame.as_ref().is_ok_and(Frame::is_padding))
        .map(|frame| frame.and_then(|f| JsetEntry::decode(&f)))
}

/// A transaction's name as the payload of its `log` sub-entry: cut or padded with zeros to 32 bytes.
pub fn transaction_name(name: &str) -> [u8; TRANSACTION_NAME_BYTES] {
    let mut out = [0; TRANSACTION_NAME_BYTES];
    let n = name.len().min(out.len());
    out[..n].copy_from_slice(&name.as_bytes()[..n]);
    out
}

impl<'a> JsetEntry<'a> {
    /// What `frame` holds.
    ///
    /// # Errors
    /// If the payload does not fit the type: too short, or not exactly one key in a `btree_root`.
    pub fn decode(frame: &Frame<'a>) -> Result<JsetEntry<'a>> {
        let FrameHeader { btree, level, ty, .. } = frame.header;
        let key_list = || KeyList { btree, level, keys: Keys::new(frame.payload) };
        let mut r = Reader::new(WHAT, frame.payload);
        Ok(match ty {
            EntryType::BTREE_KEYS => JsetEntry::BtreeKeys(key_list()),
            EntryType::BTREE_ROOT => JsetEntry::BtreeRoot { btree, level, key: decode_root(frame.payload)? },
            EntryType::PRIO_PTRS => JsetEntry::PrioPtrs(*frame),
            EntryType::BLACKLIST => JsetEntry::Blacklist { seq: Seq(r.u64()?) },
            EntryType::BLACKLIST_V2 => JsetEntry::BlacklistV2 { start: Seq(r.u64()?), end: Seq(r.u64()?) },
            EntryType::USAGE => JsetEntry::Usage { kind: UsageKind(btree.0), value: r.u64()? },
            EntryType::DATA_USAGE => decode_data_usage(&mut r)?,
            EntryType::CLOCK => decode_clock(&mut r)?,
            EntryType::DEV_USAGE => decode_dev_usage(&mut r)?,
            EntryType::LOG => JsetEntry::Log { level, text: frame.payload },
            EntryType::OVERWRITE => JsetEntry::Overwrite(key_list()),
            EntryType::WRITE_BUFFER_KEYS => JsetEntry::WriteBufferKeys(key_list()),
            EntryType::DATETIME => JsetEntry::Datetime { seconds: r.u64()? },
            EntryType::LOG_BKEY => JsetEntry::LogBkey(key_list()),
            EntryType::REWIND_LIMIT => JsetEntry::RewindLimit { seq: Seq(r.u64()?) },
            EntryType::REWIND => JsetEntry::Rewind { from: Seq(r.u64()?), to: Seq(r.u64()?) },
            _ => JsetEntry::Unknown(*frame),
        })
    }

    /// The type number.
    pub fn ty(&self) -> EntryType {
        match self {
            JsetEntry::BtreeKeys(_) => EntryType::BTREE_KEYS,
            JsetEntry::BtreeRoot { .. } => EntryType::BTREE_ROOT,
            JsetEntry::Blacklist { .. } => EntryType::BLACKLIST,
            JsetEntry::BlacklistV2 { .. } => EntryType::BLACKLIST_V2,
            JsetEntry::Usage { .. } => EntryType::USAGE,
            JsetEntry::DataUsage { .. } => EntryType::DATA_USAGE,
            JsetEntry::Clock { .. } => EntryType::CLOCK,
            JsetEntry::DevUsage { .. } => EntryType::DEV_USAGE,
            JsetEntry::Log { .. } => EntryType::LOG,
            JsetEntry::Overwrite(_) => EntryType::OVERWRITE,
            JsetEntry::WriteBufferKeys(_) => EntryType::WRITE_BUFFER_KEYS,
            JsetEntry::Datetime { .. } => EntryType::DATETIME,
            JsetEntry::LogBkey(_) => EntryType::LOG_BKEY,
            JsetEntry::RewindLimit { .. } => EntryType::REWIND_LIMIT,
            JsetEntry::Rewind { .. } => EntryType::REWIND,
            JsetEntry::PrioPtrs(frame) | JsetEntry::Unknown(frame) => frame.header.ty,
        }
    }

    /// The text of a [`JsetEntry::Log`] without its padding.
    pub fn log_text(text: &[u8]) -> &[u8] {
        let end = text.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
        &text[..end]
    }

    /// Appends the sub-entry, padded to whole words.
    ///
    /// # Panics
    /// If the payload is longer than 65535 words, which no sub-entry can hold.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let ty = self.ty();
        let bytes = |payload: &[u8]| payload.to_vec();
        match self {
            JsetEntry::BtreeKeys(list)
            | JsetEntry::Overwrite(list)
            | JsetEntry::WriteBufferKeys(list)
            | JsetEntry::LogBkey(list) => push(out, list.btree, list.level, ty, |o| {
                o.extend_from_slice(list.keys.as_bytes());
            }),
            JsetEntry::BtreeRoot { btree, level, key } => push(out, *btree, *level, ty, |o| {
                if let Some(key) = key {
                    key.encode(o);
                }
            }),
            JsetEntry::PrioPtrs(f) | JsetEntry::Unknown(f) => {
                out.extend_from_slice(&f.header.to_bytes());
                out.extend_from_slice(f.payload);
            }
            JsetEntry::Usage { kind, value } => push(out, BtreeId(kind.0), 0, ty, |o| o.put_u64(*value)),
            JsetEntry::Log { level, text } => push(out, BtreeId(0), *level, ty, |o| o.extend(bytes(text))),
            other => push(out, BtreeId(0), 0, ty, |o| other.encode_numbers(o)),
        }
    }

    /// The payloads that are numbers and name no b-tree.
    fn encode_numbers(&self, out: &mut Vec<u8>) {
        match self {
            JsetEntry::Blacklist { seq } | JsetEntry::RewindLimit { seq } => out.put_u64(seq.0),
            JsetEntry::BlacklistV2 { start: a, end: b } | JsetEntry::Rewind { from: a, to: b } => {
                out.put_u64(a.0);
                out.put_u64(b.0);
            }
            JsetEntry::Datetime { seconds } => out.put_u64(*seconds),
            JsetEntry::Clock { write, time } => {
                out.put_u64(u64::from(*write));
                out.put_u64(time.0);
            }
            JsetEntry::DataUsage { sectors, data_type, nr_required, devs } => {
                out.put_u64(sectors.0);
                out.put_u8(data_type.0);
                out.put_u8(u8::try_from(devs.len()).expect("a filesystem has at most 255 devices"));
                out.put_u8(*nr_required);
                out.extend_from_slice(devs);
            }
            JsetEntry::DevUsage { dev, records } => {
                out.put_u32(*dev);
                out.put_zeros(20);
                for record in records {
                    out.put_u64(record.buckets);
                    out.put_u64(record.sectors.0);
                    out.put_u64(record.fragmented.0);
                }
            }
            _ => unreachable!("encode() handles the types that name a b-tree or hold bytes"),
        }
    }
}

/// Appends a sub-entry of type `ty` (`btree_keys`, `overwrite`, `write_buffer_keys`) made of `keys`.
///
/// # Panics
/// If the keys are longer than 65535 words.
pub fn push_keys<'k>(
    out: &mut Vec<u8>,
    ty: EntryType,
    btree: BtreeId,
    level: u8,
    keys: impl IntoIterator<Item = Key<'k>>,
) {
    push(out, btree, level, ty, |o| keys.into_iter().for_each(|k| k.encode(o)));
}

/// Appends header and payload, then zeros up to a whole word, and sets the length.
fn push(out: &mut Vec<u8>, btree: BtreeId, level: u8, ty: EntryType, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let header = FrameHeader { u64s: 0, btree, level, ty, pad: [0; 3] };
    out.extend_from_slice(&header.to_bytes());
    let body = out.len();
    payload(out);
    out.put_zeros((out.len() - body).next_multiple_of(8) - (out.len() - body));
    let u64s = u16::try_from((out.len() - body) / 8).expect("a sub-entry holds at most 65535 words");
    out[start..start + 2].copy_from_slice(&u64s.to_le_bytes());
}

fn decode_root(payload: &[u8]) -> Result<Option<Key<'_>>> {
    if payload.is_empty() {
        return Ok(None);
    }
    let mut r = Reader::new(WHAT, payload);
    let key = Key::decode(&mut r)?;
    if r.remaining() > 0 {
        return Err(r.invalid("a btree_root holds more than one key"));
    }
    Ok(Some(key))
}

fn decode_data_usage<'a>(r: &mut Reader<'a>) -> Result<JsetEntry<'a>> {
    let sectors = Sectors(r.u64()?);
    let data_type = DataType(r.u8()?);
    let nr_devs = r.u8()?;
    let nr_required = r.u8()?;
    let devs = r.bytes(nr_devs.into())?;
    Ok(JsetEntry::DataUsage { sectors, data_type, nr_required, devs })
}

fn decode_clock<'a>(r: &mut Reader<'a>) -> Result<JsetEntry<'a>> {
    let write = match r.u8()? {
        0 => false,
        1 => true,
        other => return Err(r.invalid(format!("there is no I/O clock {other}"))),
    };
    r.skip(7)?;
    Ok(JsetEntry::Clock { write, time: Sectors(r.u64()?) })
}

fn decode_dev_usage<'a>(r: &mut Reader<'a>) -> Result<JsetEntry<'a>> {
    let dev = r.u32()?;
    r.skip(20)?;
    let records = r.rest().chunks_exact(DevUsageRecord::BYTES).map(DevUsageRecord::decode);
    Ok(JsetEntry::DevUsage { dev, records: records.collect::<Result<_>>()? })
}

impl fmt::Display for JsetEntry<'_> {
    /// The head of the reference's listing line; values of keys are listed by who knows them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.ty())?;
        match self {
            JsetEntry::BtreeKeys(list)
            | JsetEntry::Overwrite(list)
            | JsetEntry::WriteBufferKeys(list)
            | JsetEntry::LogBkey(list) => {
                write!(f, "btree={} l={}", list.btree, list.level)?;
                list.keys.clone().try_for_each(|key| match key {
                    Ok(key) => write!(f, " {key}"),
                    Err(e) => write!(f, " ({e})"),
                })
            }
            JsetEntry::BtreeRoot { btree, level, key: Some(key) } => {
                write!(f, "btree={btree} l={level} {key}")
            }
            JsetEntry::BtreeRoot { btree, level, key: None } => {
                write!(f, "btree={btree} l={level} (invalid)")
            }
            JsetEntry::Blacklist { seq } | JsetEntry::RewindLimit { seq } => write!(f, "seq {seq}"),
            JsetEntry::BlacklistV2 { start, end } => write!(f, "start={start} end={end}"),
            JsetEntry::Usage { kind, value } => write!(f, "type={kind} v={value}"),
            JsetEntry::DataUsage { sectors, data_type, nr_required, devs } => {
                write!(f, "{data_type}: {nr_required}/{} {devs:?} sectors={sectors}", devs.len())
            }
            JsetEntry::Clock { write, time } => write!(f, "{}={time}", if *write { "write" } else { "read" }),
            JsetEntry::DevUsage { dev, records } => {
                write!(f, "dev={dev}")?;
                records.iter().enumerate().try_for_each(|(ty, r)| {
                    let ty = DataType(ty as u8);
                    write!(
                        f,
                        " {ty}: buckets={} sectors={} fragmented={}",
                        r.buckets, r.sectors, r.fragmented
                    )
                })
            }
            JsetEntry::Log { text, .. } => f.write_str(&String::from_utf8_lossy(JsetEntry::log_text(text))),
            JsetEntry::Datetime { seconds } => write!(f, "{seconds}"),
            JsetEntry::Rewind { from, to } => write!(f, "from {from} to {to}"),
            JsetEntry::PrioPtrs(frame) | JsetEntry::Unknown(frame) => {
                write!(f, "{} words", frame.header.u64s)
            }
        }
    }
}
