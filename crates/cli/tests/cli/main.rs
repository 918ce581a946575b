//! The command as its users meet it: arguments in, text and exit codes out, over the golden images.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod files;
mod fill;
mod format;
mod fsck;
mod metadata;
mod run;
mod usage;
