//! A set of devices as one filesystem.
//!
//! | to find | look in |
//! |---|---|
//! | which devices belong together, may it be read, passphrase, recovery in memory | [`open`](mod@open) |
//! | how a new volume is made, empty or filled in one go | [`mod@build`] |
//! | what a key implies for space, counters and lists | [`mod@derive`] |
//! | does everything that is stored twice agree | [`mod@check`] |
//! | how an extent becomes bytes: copies, checksums, decryption, decompression, parity | [`data`] |
//! | capacity, free space, what it is used for | `usage.rs` |
//! | changing it: opening for writing, what follows from a commit, finding room, stopping | [`mod@write`] |
//! | read-write, read-only, frozen, dead: what leads from one to the other, and who waits | [`lifecycle`] |
//! | why a volume is refused, and what is noticed | `error.rs` |

#![forbid(unsafe_code)]

pub mod build;
pub mod check;
pub mod data;
pub mod derive;
mod error;
pub mod initial;
pub mod lifecycle;
pub mod open;
mod sync;
mod usage;
mod volume;
pub mod write;

pub use error::{Notice, OpenError, SuperblockError};
pub use open::{JournalView, OpenOptions, Passphrase, Recovery, open};
pub use usage::{Compressed, DevUsage, Usage};
pub use volume::Volume;
pub use write::{Foundation, WriteOptions, open_rw};
