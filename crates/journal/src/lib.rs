//! The bcachefs journal.
//!
//! Every change of a b-tree is first a record in the journal: a ring of buckets on each device, written entry by entry, numbered
//! from 1. After a crash the entries from the oldest one still needed up to the newest one that was flushed are applied to the
//! b-trees found on disk, and the filesystem is as it was at that flush.
//!
//! * [`engine`] is the running journal: reservations, buffers, ordered writes, flushes, pins, reclaim.
//! * [`read`] finds out, after a crash, which entries count, and makes what they say available: roots, and an overlay of keys.
//!
//! The format is `frazil_ondisk::jset` (spec 20 part 1); blocks are `frazil_device`.

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

pub mod engine;
pub mod read;
pub(crate) mod sync;

pub use engine::{Journal, JournalError, Pin, Reservation, Watermark};
