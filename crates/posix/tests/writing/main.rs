//! Files of a volume in memory, changed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod chains;
mod crash;
mod full;
mod model;
mod moving;
mod numbers;
mod quota;
mod random;
mod rules;
mod subvolumes;
mod thin;
mod world;
