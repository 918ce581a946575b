//! Files of a volume in memory, changed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod model;
mod random;
mod subvolumes;
mod world;
