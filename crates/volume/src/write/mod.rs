//! Changing a volume.
//!
//! | to find | look in |
//! |---|---|
//! | what follows from a commit | [`triggers`] |
//! | what must stand in the superblock before something else is written | `superblocks.rs` |
//! | which buckets there are to write to, how much may be promised | [`space`] |
//! | when a bucket was last used | `clock.rs` |
//! | writing the superblock, and what for | [`superblock`] |
//! | the time of day | `time.rs` |

mod clock;
pub mod space;
pub mod superblock;
mod superblocks;
#[cfg(test)]
mod testing;
mod time;
pub mod triggers;

pub use clock::IoClocks;
pub use superblock::SuperblockStore;
pub use superblocks::Superblocks;
pub use time::{SystemWallClock, WallClock};
