//! What every decoder of the format must satisfy on any bytes.
//!
//! A volume may come from anybody and any byte of it may be damaged, so each decoder is *total*: it returns a value or an
//! error, and never panics, hangs, or allocates more than a small multiple of its input. This crate says so in a form that
//! machines can try to refute:
//!
//! * [`targets::ALL`]: per structure, a function that feeds bytes to the decoder and asserts what must hold of the
//!   outcome (what was decoded encodes to the same bytes, sorted keys are sorted, repaired lists have nothing left to repair …).
//! * [`seeds`]: real structures from the golden images. Random bytes are refused at the first magic number; a few damaged
//!   bytes in a real structure get past it.
//! * [`mutate`]: damages them.
//!
//! Two drivers use these. `tests/bounded.rs` tries a fixed set of inputs in each test run, and measures time and memory. The
//! package `fuzz/` at the root of the repository hands the same functions to libFuzzer, which searches as long as one
//! likes, guided by coverage (`fuzz/README.md`).

#![forbid(unsafe_code)]

pub mod mutate;
pub mod seeds;
pub mod targets;
