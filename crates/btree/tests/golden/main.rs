//! Tests on real images made by others' code.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod listing;
mod snapshots;
mod volume;
