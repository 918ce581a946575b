//! Changing a volume.
//!
//! | to find | look in |
//! |---|---|
//! | what follows from a commit | [`triggers`] |
//! | what must stand in the superblock before something else is written | `superblocks.rs` |
//! | which buckets there are to write to, how much may be promised | [`space`] |
//! | when a bucket was last used | `clock.rs` |

mod clock;
pub mod space;
mod superblocks;
#[cfg(test)]
mod testing;
pub mod triggers;

pub use clock::IoClocks;
pub use superblocks::Superblocks;
