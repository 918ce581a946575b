//! The time of day, for what is stamped with it: superblocks, journal entries, inodes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use frazil_ondisk::units::UnixSeconds;

/// Where the time of day comes from: real, or a simulator's. Unlike the journal's clock it may go back.
pub trait WallClock: Send + Sync {
    /// Time since the Unix epoch.
    fn now(&self) -> Duration;

    /// The same in the unit of superblocks.
    fn now_seconds(&self) -> UnixSeconds {
        UnixSeconds(self.now().as_secs())
    }
}

/// The system's time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemWallClock;

impl WallClock for SystemWallClock {
    fn now(&self) -> Duration {
        // A clock set before 1970 gives 0, which superblocks take for "never".
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
