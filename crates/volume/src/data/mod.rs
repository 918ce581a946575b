//! From extents to bytes.
//!
//! A key of the `extents` b-tree says where the bytes of a stretch of a file lie: nowhere (a hole, a reservation), in the key
//! itself (inline data), in another key (reflink), or on devices, in up to sixteen copies. This module fetches them.
//!
//! ```text
//!      keys                          Reader::plan(inode, range), Plan::add(key) …
//!        │  cut, follow reflink
//!      Plan: pieces                  each from one place, together the whole range
//!        │  Plan::read(buffer)
//!      batch: device reads           the best copy of each piece, neighbours read together
//!        │  verify, decrypt, decompress, cut
//!      bytes                         or, when anything is wrong with a piece:
//!                                    careful: other copies, then parity, then an Error
//! ```
//!
//! What is on a device is a *payload*: the sectors that were written together, compressed, encrypted and checksummed as a
//! whole. A key refers to a part of a payload, its *live* part, because overwriting the middle of an extent changes keys and not
//! data. A payload without checksum and compression can be read in part; any other must be read, and verified, as a whole,
//! even for one byte. Much of this module is about not doing that twice, and about not copying bytes that are
//! where they belong already.
//!
//! Nothing unverified is handed out when there is a checksum to verify it with. What cannot be had is an [`Error`] that
//! names the first missing byte and everything that was tried; all bytes before it arrive.
//!
//! | to find | look in |
//! |---|---|
//! | holes, inline data, reflink, flags; cutting keys to a range | `plan.rs` |
//! | which copy is read first | `choose.rs` |
//! | one device read for many extents, landing without a copy | `batch.rs` |
//! | checksums, encryption, compression | `decode.rs`, `lz4.rs` |
//! | what happens when a copy is bad | `careful.rs` |
//! | parity | `stripe.rs`, `galois.rs` |
//! | the other way: how bytes of a file become payloads | `encode/` |
//! | payloads as they are stored, for who moves them | `stored.rs` |
//! | memory that is used again | `buffer.rs`, `cache.rs` |

mod batch;
mod buffer;
mod cache;
mod careful;
mod choose;
mod decode;
pub mod encode;
mod error;
mod galois;
mod lz4;
mod plan;
mod reader;
mod stored;
mod stripe;
#[cfg(test)]
mod tests;

pub use error::{BadCopy, Cause, CopyProblem, Error};
pub use plan::Plan;
pub use reader::{Generations, MemberFacts, Reader, ReaderOptions, TellOfCopy};
