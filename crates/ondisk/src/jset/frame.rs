//! Framing of sub-entries (spec 20 §3.1): where each one starts and ends, without looking at what it means.

use std::fmt;

use crate::btree_id::BtreeId;
use crate::error::{DecodeError, Result};

/// Bytes of the header in front of every payload.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Type of a sub-entry. A newtype, not an enum, because a reader skips types it does not know and a listing shows them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryType(pub u8);

macro_rules! entry_types {
    ($($(#[$doc:meta])* $konst:ident = $nr:literal, $name:literal;)*) => {
        impl EntryType {
            $($(#[$doc])* pub const $konst: EntryType = EntryType($nr);)*

            /// The name used in listings; `None` for a type this version does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($nr => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

entry_types! {
    /// Keys to insert into a b-tree: the only type that is replayed.
    BTREE_KEYS = 0, "btree_keys";
    /// Pointer to a b-tree's root node.
    BTREE_ROOT = 1, "btree_root";
    /// Obsolete.
    PRIO_PTRS = 2, "prio_ptrs";
    /// One sequence number never to be used again.
    BLACKLIST = 3, "blacklist";
    /// A range of them.
    BLACKLIST_V2 = 4, "blacklist_v2";
    /// A counter, today only the key version.
    USAGE = 5, "usage";
    /// Obsolete.
    DATA_USAGE = 6, "data_usage";
    /// Sectors read or written so far.
    CLOCK = 7, "clock";
    /// Obsolete.
    DEV_USAGE = 8, "dev_usage";
    /// Name of a transaction, or text.
    LOG = 9, "log";
    /// The key that the following `btree_keys` replaces.
    OVERWRITE = 10, "overwrite";
    /// Keys for the write buffer; exists only in memory.
    WRITE_BUFFER_KEYS = 11, "write_buffer_keys";
    /// Time of the write.
    DATETIME = 12, "datetime";
    /// A key, for information.
    LOG_BKEY = 13, "log_bkey";
    /// How far back the journal may be rewound.
    REWIND_LIMIT = 14, "rewind_limit";
    /// Updates of a range of entries are undone.
    REWIND = 15, "rewind";
}

impl fmt::Display for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown entry type {})", self.0),
        }
    }
}

impl fmt::Debug for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The 8 bytes in front of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Words of the payload, the header not counted.
    pub u64s: u16,
    /// The b-tree the payload is about; other meanings for some types, else 0.
    pub btree: BtreeId,
    /// The level in that b-tree; other meanings for some types, else 0.
    pub level: u8,
    /// What the payload is.
    pub ty: EntryType,
    /// Written as zero.
    pub pad: [u8; 3],
}

impl FrameHeader {
    /// The 8 bytes.
    pub const fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let [lo, hi] = self.u64s.to_le_bytes();
        let [a, b, c] = self.pad;
        [lo, hi, self.btree.0, self.level, self.ty.0, a, b, c]
    }

    /// The header in these bytes; every byte string is one.
    pub const fn from_bytes(b: [u8; FRAME_HEADER_BYTES]) -> FrameHeader {
        FrameHeader {
            u64s: u16::from_le_bytes([b[0], b[1]]),
            btree: BtreeId(b[2]),
            level: b[3],
            ty: EntryType(b[4]),
            pad: [b[5], b[6], b[7]],
        }
    }
}

/// One sub-entry: header and payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Bytes from the start of the list to the header.
    pub at: usize,
    /// The header.
    pub header: FrameHeader,
    /// The payload, `8 · header.u64s` bytes.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Unused space, to be skipped. A `btree_root` without payload is not padding (spec 20 §3.1).
    pub fn is_padding(&self) -> bool {
        self.header.ty == EntryType::BTREE_KEYS && self.payload.is_empty()
    }

    /// Bytes from the start of the list to the sub-entry behind this one.
    pub fn end(&self) -> usize {
        self.at + FRAME_HEADER_BYTES + self.payload.len()
    }
}

/// Splits a list of sub-entries, padding included. Ends after the first sub-entry that does not fit, which is an error.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    list: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// The sub-entries of `list`, the bytes behind a jset's header or in the superblock's clean section.
    pub fn new(list: &'a [u8]) -> Frames<'a> {
        Frames { list, at: 0 }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.list.get(at..).filter(|r| !r.is_empty())?;
        let split = rest.split_first_chunk::<FRAME_HEADER_BYTES>().and_then(|(head, behind)| {
            let header = FrameHeader::from_bytes(*head);
            Some((header, behind.get(..usize::from(header.u64s) * 8)?))
        });
        match split {
            Some((header, payload)) => {
                let frame = Frame { at, header, payload };
                self.at = frame.end();
                Some(Ok(frame))
            }
            None => {
                self.at = self.list.len();
                let reason = format!("sub-entry at byte {at} of {} extends past the end", self.list.len());
                Some(Err(DecodeError::invalid("jset", reason)))
            }
        }
    }
}

/// Changes the type of the sub-entry that starts at byte `at` of `list`, in place: the journal turns `write_buffer_keys` into
/// `btree_keys` before the write (spec 20 §9.10).
///
/// # Panics
/// If there is no sub-entry header at `at`.
pub fn retype(list: &mut [u8], at: usize, ty: EntryType) {
    const TYPE_OFFSET: usize = 4;
    list[at..at + FRAME_HEADER_BYTES][TYPE_OFFSET] = ty.0;
}
