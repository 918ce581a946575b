//! Changing a volume.
//!
//! | to find | look in |
//! |---|---|
//! | opening for writing: refusals, recovery, the journal's start | `start.rs` |
//! | all parts of a volume that is being written, put together | `live.rs` |
//! | bringing the journal's keys into the b-trees | `replay.rs` |
//! | coming to rest, stopping at once, and going on | `stop.rs` |
//! | what follows from a commit | [`triggers`] |
//! | what must stand in the superblock before something else is written | `superblocks.rs` |
//! | writing the superblock, and what for | [`superblock`] |
//! | what every journal entry carries, and who hears what the journal says | `host.rs` |
//! | which buckets there are to write to, how much may be promised | [`space`] |
//! | emptying buckets that hold little, by moving what is in them | [`moving`] |
//! | keeping generations of buckets apart from old pointers | [`generations`] |
//! | how blocks of a file get onto the devices | [`data`] |
//! | when a bucket was last used | `clock.rs` |
//! | the time of day | `time.rs` |

mod clock;
pub mod data;
pub mod generations;
mod host;
mod live;
pub mod moving;
mod own_buckets;
mod patience;
mod replay;
pub mod space;
mod start;
mod stop;
pub mod superblock;
mod superblocks;
#[cfg(test)]
mod testing;
mod time;
pub mod triggers;

/// How urgent it is to get room.
pub use frazil_journal::Watermark;

pub use clock::IoClocks;
pub use host::{JournalEvents, VolumeHost};
pub use live::{Live, LiveOptions, Unfinished};
pub use replay::{Replay, ReplayTarget};
pub use start::{Foundation, WriteOptions, open_rw};
pub use stop::{StopError, WriteBack, go_on, seal, stop_now, write_back};
pub use superblock::SuperblockStore;
pub use superblocks::Superblocks;
pub use time::{SystemWallClock, WallClock};
