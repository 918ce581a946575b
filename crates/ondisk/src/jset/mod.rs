//! Journal entries, called *jsets* (spec 20 §1–§6): the unit the journal is written and read in.
//!
//! A jset is a 56-byte header ([`JsetHeader`]) and a list of typed sub-entries, written back to back into a journal bucket
//! and padded with zeros to a block:
//!
//! ```text
//! 0        16      24    32       36     40    44      48        56                56 + 8·u64s      block
//! | csum   | magic | seq | version flags | u64s | clocks | last_seq | sub-entries … | zeros to the block |
//!                                                 ^ encrypted from here, if the filesystem is
//!           ^ checksummed from here                                               ^ to here
//! ```
//!
//! A **sub-entry** ([`Frame`]) has an 8-byte header of its own: payload length in words, b-tree, level, type. What the payload
//! means is [`JsetEntry`]. Eight zero bytes are padding: threads reserve space in an open jset, copy their updates in, and fill what they did not
//! need with zeros. The same list, without a header, is the payload of the superblock's *clean* section;
//! [`Frames`] and [`entries`] work on any such list.
//!
//! **Flush and noflush.** A flush entry vouches, once its write completed, for itself and all earlier entries, and says with
//! `last_seq` which is the oldest one still needed. A noflush entry (flag bit 5) makes no promise.
//!
//! **Reading** must cope with a journal cut off anywhere: [`mod@read`] takes one jset from the bytes at an offset of a
//! bucket and tells structure and checksum apart, because recovery needs the header of a torn entry to know that it *was*
//! torn; [`BucketScan`] walks a whole bucket. What recovery then does with the entries of all devices is not
//! decided here.
//!
//! **Writing**: the journal assembles an entry in place, several threads at once, and then calls [`Seal::seal`]
//! once for header, tail, encryption and checksum. [`JsetBuilder`] does the same for entries that are made in one go.
//!
//! **Checking** (spec 20 §3.4) is the same before a write and after a read: [`check()`] lists what is wrong, [`repair`] also
//! turns it into padding.

mod check;
mod entry;
mod frame;
mod header;
mod read;
mod scan;
mod write;

pub use check::{Problem, check, repair};
pub use entry::{
    DevUsageRecord, JsetEntry, KeyList, Keys, TRANSACTION_NAME_BYTES, UsageKind, entries, push_keys,
    transaction_name,
};
pub use frame::{EntryType, FRAME_HEADER_BYTES, Frame, FrameHeader, Frames, retype};
pub use header::{JSET_HEADER_BYTES, JsetFlags, JsetHeader, JsetKind, jset_magic};
pub use read::{Found, Jset, JsetFormat, read};
pub use scan::{BucketScan, ScanItem};
pub use write::{JsetBuilder, Seal};

#[cfg(test)]
mod tests;
