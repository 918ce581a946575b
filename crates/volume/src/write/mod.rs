//! Changing a volume.
//!
//! | to find | look in |
//! |---|---|
//! | what must stand in the superblock before something else is written | `superblocks.rs` |
//! | when a bucket was last used | `clock.rs` |

mod clock;
mod superblocks;

pub use clock::IoClocks;
pub use superblocks::Superblocks;
