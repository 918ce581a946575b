//! A volume that is being written: its superblock, what its journal entries carry, how it starts and how it ends.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod cycle;
mod faults;
mod host;
mod live;
mod made;
mod start;
mod stop;
mod store;
mod work;
