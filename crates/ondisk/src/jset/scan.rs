//! Walking one journal bucket (spec 20 §5.3).
//!
//! A bucket holds the entries of the newest lap around the ring, back to back from offset 0, and behind them whatever
//! was there before: zeros, or entries of an earlier lap, which have smaller numbers. A crash may have cut off the last one, and
//! damage may be anywhere.
//!
//! The reference stops at the first block without magic and at the first number that falls; one damaged block then
//! hides the good entries behind it. Here the scan goes on block by block to the end of the bucket, as the specification
//! advises (§5.3, §5.4), and accepts what it finds later only if its number is larger than all good ones before. On an
//! undamaged bucket both find the same.

use super::header::JsetHeader;
use super::read::{Found, Jset, JsetFormat, read};
use crate::units::{SECTOR_BYTES, Sectors, Seq};

/// An entry, good or bad, found in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanItem {
    /// Where it starts, from the start of the bucket.
    pub at: Sectors,
    /// Bytes that are no entry lie between this one and the one before: something was damaged.
    pub after_gap: bool,
    /// The entry, or the header of one that claims to extend past the bucket's end (or comes after too many damaged ones).
    pub jset: Result<Jset, JsetHeader>,
}

impl ScanItem {
    /// The header.
    pub fn header(&self) -> &JsetHeader {
        match &self.jset {
            Ok(jset) => &jset.header,
            Err(header) => header,
        }
    }
}

/// How many bytes of damaged entries are looked at per byte of bucket. Their lengths cannot be trusted: if every block claimed
/// to start an entry that fills the rest of the bucket, checking them all would take the square of the bucket's size.
const DAMAGED_PER_BYTE_MAX: usize = 4;

/// Iterates over the entries of a bucket's bytes.
#[derive(Clone, Debug)]
pub struct BucketScan<'a> {
    format: JsetFormat<'a>,
    bucket: &'a [u8],
    at: usize,
    /// Largest number of a good entry so far.
    newest: Option<Seq>,
    /// Where the last entry ends, as far as is known.
    contiguous_until: usize,
    /// Bytes of damaged entries still to be looked at.
    damaged_left: usize,
}

impl<'a> BucketScan<'a> {
    /// A scan of `bucket`, the bytes of a whole journal bucket.
    ///
    /// # Panics
    /// If the format's block size is zero.
    pub fn new(format: JsetFormat<'a>, bucket: &'a [u8]) -> BucketScan<'a> {
        assert!(format.block_bytes > 0, "block size");
        let damaged_left = bucket.len().saturating_mul(DAMAGED_PER_BYTE_MAX);
        BucketScan { format, bucket, at: 0, newest: None, contiguous_until: 0, damaged_left }
    }

    fn item(&mut self, at: usize, end: usize, jset: Result<Jset, JsetHeader>) -> ScanItem {
        let after_gap = at > self.contiguous_until;
        self.contiguous_until = end;
        ScanItem { at: Sectors(at as u64 / SECTOR_BYTES), after_gap, jset }
    }

    /// What starts at `at`, if it is of the bucket's newest lap; moves on to where the next entry may be.
    fn step(&mut self, at: usize) -> Option<ScanItem> {
        let next_block = at + self.format.block_bytes;
        self.at = next_block;
        let rest = &self.bucket[at..];
        // Leftovers are recognised by their header alone, so that old laps cost no checksum.
        let header = JsetHeader::decode(rest).ok().filter(|h| h.magic == self.format.magic)?;
        if self.newest.is_some_and(|newest| header.seq <= newest) {
            return None;
        }
        if header.bytes() > self.damaged_left as u64 {
            return Some(self.item(at, next_block, Err(header)));
        }
        match read(&self.format, rest) {
            Found::Nothing => None,
            Found::TooLong(header) => Some(self.item(at, next_block, Err(header))),
            Found::Jset(jset) => {
                let end = at + jset.as_bytes().len().next_multiple_of(self.format.block_bytes);
                if jset.checksum.is_ok() {
                    self.newest = Some(jset.header.seq);
                    self.at = end;
                } else {
                    self.damaged_left -= jset.as_bytes().len();
                }
                Some(self.item(at, end, Ok(jset)))
            }
        }
    }
}

impl Iterator for BucketScan<'_> {
    type Item = ScanItem;

    fn next(&mut self) -> Option<ScanItem> {
        while self.at < self.bucket.len() {
            let at = self.at;
            if let Some(item) = self.step(at) {
                return Some(item);
            }
        }
        None
    }
}
