//! What a stretch of a file consists of.
//!
//! A [`Plan`] is made for a range of bytes of one file, and is given the keys of the `extents` b-tree that the file's
//! snapshot sees there ([`Plan::add_visible`], or one by one: [`Plan::add`]). It cuts them to the range, follows reflink pointers, and ends
//! up with a list of pieces that cover the range without gaps: holes between keys are zeros (spec 40 §7.7). Nothing is
//! read from the devices before [`Plan::read`].
//!
//! A key that cannot be understood does not spoil the plan: it becomes a piece that fails when it is read, so that all
//! bytes before it can still be had.

use std::ops::Range;

use frazil_btree::View;
use frazil_ondisk::error::{DecodeError, Result as Decoded};
use frazil_ondisk::units::{Inum, SECTOR_BYTES};
use frazil_ondisk::values::extent::{Crc, Entries, Entry, Replica};
use frazil_ondisk::values::reflink::{IndirectInlineData, ReflinkP, ReflinkV};
use frazil_ondisk::values::reservation::LostReason;
use frazil_ondisk::{BVersion, Bkey, Bpos, BtreeId, Key, KeyType};

use super::error::Cause;
use super::reader::Reader;

/// The pieces of a range of one file. See the [module](self).
#[derive(Debug)]
pub struct Plan<'r> {
    pub(super) reader: &'r Reader,
    pub(super) inum: Inum,
    pub(super) start: u64,
    pub(super) end: u64,
    /// End of the last piece: what is before it is decided.
    planned: u64,
    pub(super) pieces: Vec<Piece>,
}

/// A part of a plan whose bytes come from one place.
#[derive(Debug)]
pub(super) struct Piece {
    /// Its first byte in the file.
    pub(super) offset_bytes: u64,
    pub(super) len: usize,
    pub(super) source: Source,
}

/// Where bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Holes, reservations, unwritten extents.
    Zeros,
    /// Data that was in the key; zeros follow where it is shorter than the piece.
    Bytes(Box<[u8]>),
    /// Data on devices.
    Copies(Copies),
    /// It cannot be had.
    Failed(Cause),
}

/// The copies of the data of an extent.
#[derive(Debug)]
pub(super) struct Copies {
    /// In the order of the key.
    pub(super) replicas: Vec<Replica>,
    /// Version of the key, for decryption.
    pub(super) version: BVersion,
    /// Where the piece begins in the live part of the key, in bytes.
    pub(super) skip: u64,
}

impl<'r> Plan<'r> {
    pub(super) fn new(reader: &'r Reader, inum: Inum, bytes: Range<u64>) -> Plan<'r> {
        let (start, end) = (bytes.start, bytes.end.max(bytes.start));
        Plan { reader, inum, start, end, planned: start, pieces: Vec::new() }
    }

    /// Bytes of the range.
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// First byte of the file that no key so far says anything about; the end of the range when it is covered.
    pub fn planned_bytes(&self) -> u64 {
        self.planned
    }

    /// Adds a key of the `extents` b-tree. What lies outside the range, or before the end of an earlier key, is ignored; so
    /// are whiteouts.
    pub fn add(&mut self, key: Key<'_>) {
        if matches!(key.k.ty, KeyType::DELETED | KeyType::WHITEOUT | KeyType::EXTENT_WHITEOUT) {
            return;
        }
        let Some(first) = key.k.start_offset() else {
            let wrong = format!("size {} at offset {}", key.k.size, key.k.pos.offset);
            self.fail_rest(Cause::BadKey(DecodeError::invalid("extent", wrong)));
            return;
        };
        let start = first.saturating_mul(SECTOR_BYTES).max(self.planned);
        let end = key.k.pos.offset.saturating_mul(SECTOR_BYTES).min(self.end);
        if start >= end {
            return;
        }
        self.push(start, Source::Zeros);
        // `start` is at or behind the key's first byte.
        let skip = start - first.saturating_mul(SECTOR_BYTES);
        if key.k.ty == KeyType::REFLINK_P {
            self.add_shared(key, skip, end);
        } else {
            let source = self.source(key.k, key.value, skip);
            self.push(end, source);
        }
    }

    /// Adds all extents that a snapshot sees in the range. Where a node of the b-tree cannot be had, the bytes its keys may have
    /// been about cannot either; the rest of the range is not affected.
    pub fn add_visible(&mut self, view: &View) {
        let sectors = self.start / SECTOR_BYTES..self.end.div_ceil(SECTOR_BYTES);
        let mut cursor = self.reader.trees.visible_extents(view, self.inum, sectors);
        // Up to where keys may be missing since the last one, and why.
        let mut lost: Option<(u64, Cause)> = None;
        loop {
            match cursor.next() {
                Ok(Some(key)) => {
                    if let Some((until, cause)) = lost.take() {
                        let start = key.k.start_offset().unwrap_or(0).saturating_mul(SECTOR_BYTES);
                        self.push(until.min(start).min(self.end), Source::Failed(cause));
                    }
                    self.add(key);
                }
                Ok(None) => break,
                Err(e) => {
                    let skipped = cursor.skip_bad_node().filter(|span| span.max.inode == self.inum.0);
                    let until = skipped.map_or(self.end, |span| span.max.offset.saturating_mul(SECTOR_BYTES));
                    lost = Some((until, Cause::Metadata(e.to_string().into())));
                    if until >= self.end {
                        break;
                    }
                }
            }
        }
        if let Some((until, cause)) = lost {
            self.push(until.min(self.end), Source::Failed(cause));
        }
    }

    fn fail_rest(&mut self, cause: Cause) {
        self.push(self.end, Source::Failed(cause));
    }

    /// A piece from the end of the last one to `end`, if that is not empty.
    fn push(&mut self, end: u64, source: Source) {
        // A plan is made for a buffer, so its length fits.
        let len = usize::try_from(end.saturating_sub(self.planned)).unwrap_or(usize::MAX);
        if len > 0 {
            self.pieces.push(Piece { offset_bytes: self.planned, len, source });
            self.planned = end;
        }
    }

    /// The pieces, with zeros behind the last key.
    pub(super) fn finish(&mut self) -> &[Piece] {
        self.push(self.end, Source::Zeros);
        &self.pieces
    }

    /// Follows a pointer into the reflink b-tree (spec 40 §10), which may lead to several indirect extents. The piece begins
    /// `skip` bytes into the key and ends at byte `end` of the file.
    fn add_shared(&mut self, key: Key<'_>, skip: u64, end: u64) {
        let pointer = match ReflinkP::decode(key.value) {
            Ok(pointer) if pointer.flags & ReflinkP::ERROR != 0 => {
                return self.push(end, Source::Failed(Cause::Lost("the shared extent is gone".into())));
            }
            Ok(pointer) => pointer,
            Err(e) => return self.push(end, Source::Failed(Cause::BadKey(e))),
        };
        // File byte `self.planned` is byte `at` of the shared space.
        let mut at = pointer.idx.saturating_mul(SECTOR_BYTES).saturating_add(skip);
        let reader = self.reader;
        let from = Bpos::new(0, at / SECTOR_BYTES + 1, 0);
        let mut cursor = reader.trees.cursor(BtreeId::REFLINK, from..=Bpos::new(0, u64::MAX, u32::MAX));
        while self.planned < end {
            let shared = match cursor.next() {
                Ok(shared) => shared.and_then(|key| part_at(key, at)),
                Err(e) => {
                    return self.push(end, Source::Failed(Cause::Metadata(e.to_string().into())));
                }
            };
            let Some((shared, skip, left)) = shared else {
                let gone = format!("there is no shared extent at sector {}", at / SECTOR_BYTES);
                return self.push(end, Source::Failed(Cause::Lost(gone.into())));
            };
            let len = left.min(end - self.planned);
            let source = self.source(shared.k, shared.value, skip);
            self.push(self.planned + len, source);
            at += len;
        }
    }

    /// Where the bytes of a key come from, from byte `skip` of it on. Follows no further pointers.
    fn source(&self, k: Bkey, value: &[u8], skip: u64) -> Source {
        let decoded = match k.ty {
            KeyType::RESERVATION => return Source::Zeros,
            KeyType::ERROR => return Source::Failed(lost(LostReason::decode(value))),
            KeyType::EXTENT => self.copies(k, value, skip),
            KeyType::INLINE_DATA => Ok(inline(value, skip)),
            KeyType::REFLINK_V => ReflinkV::decode(value).and_then(|v| self.copies(k, v.entries, skip)),
            KeyType::INDIRECT_INLINE_DATA => IndirectInlineData::decode(value).map(|v| inline(v.data, skip)),
            ty => Err(DecodeError::unsupported("extent", format!("key type {ty} as file data"))),
        };
        decoded.unwrap_or_else(|e| Source::Failed(Cause::BadKey(e)))
    }

    /// The copies that extent entries list, unless they say that there is nothing to read (spec 40 §7.8).
    fn copies(&self, k: Bkey, entries: &[u8], skip: u64) -> Decoded<Source> {
        let mut replicas = Vec::new();
        let mut crc = Crc::plain(k.size);
        let mut stripe = None;
        let (mut unwritten, mut poisoned) = (false, false);
        for entry in Entries::with_sizes(entries, &self.reader.entry_sizes) {
            match entry? {
                Entry::Ptr(ptr) => {
                    unwritten |= ptr.unwritten;
                    replicas.push(Replica { ptr, crc, stripe: stripe.take(), live_size: k.size });
                }
                Entry::Crc(entry) => crc = entry.crc,
                Entry::StripePtr(ptr) => stripe = Some(ptr),
                Entry::Flags(flags) => poisoned |= flags & Entry::FLAG_POISONED != 0,
                Entry::Rebalance(_) | Entry::Reconcile(_) | Entry::ReconcileBp(_) | Entry::Unknown(_) => {}
            }
        }
        Ok(if poisoned {
            Source::Failed(Cause::Lost("it was already damaged when it was moved".into()))
        } else if unwritten {
            Source::Zeros
        } else {
            Source::Copies(Copies { replicas, version: k.version, skip })
        })
    }
}

/// If the key covers byte `at` of its b-tree's inode: how far into it that is, and how many bytes are left from there.
fn part_at(key: Key<'_>, at: u64) -> Option<(Key<'_>, u64, u64)> {
    let skip = at.checked_sub(key.k.start_offset()?.checked_mul(SECTOR_BYTES)?)?;
    let left = (u64::from(key.k.size) * SECTOR_BYTES).checked_sub(skip)?;
    (left > 0).then_some((key, skip, left))
}

/// The bytes of inline data from byte `skip` of the key on.
fn inline(data: &[u8], skip: u64) -> Source {
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
    Source::Bytes(data[skip..].into())
}

/// Why an `error` key says its data is gone (spec 80 §7.2).
fn lost(reason: Option<LostReason>) -> Cause {
    Cause::Lost(match reason {
        None => "the filesystem has marked it as lost".into(),
        Some(reason) => match reason.name() {
            Some(name) => name.into(),
            None => format!("reason {}", reason.0).into(),
        },
    })
}
