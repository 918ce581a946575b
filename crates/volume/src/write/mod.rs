//! Changing a volume.
//!
//! | to find | look in |
//! |---|---|
//! | what must stand in the superblock before something else is written | `superblocks.rs` |

mod superblocks;

pub use superblocks::Superblocks;
