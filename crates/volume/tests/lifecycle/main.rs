//! The lifecycle under a random scheduler, with shuttle (spec 70 §7, INV-14 to INV-17).
//!
//! What the states are and what follows from what is tried completely in `src/lifecycle/tests.rs`, one step at a time. Here it is threads: the same source
//! files with shuttle's locks, condition variables, atomics and threads, every switch picked at random. When nobody can run shuttle reports a
//! deadlock: a waiter whom nobody wakes is one. A failure prints its schedule, which replays it.
//!
//! Behind the gates is a [volume](scenarios::Fake) that does nothing but look: nobody has a ticket while it is drained, sealed or at rest; it is sealed only
//! after a drain, and opened only after sealing; one transition at a time.
//!
//! **Bounds**: up to six threads, a few requests each; the number of schedules per test is the constant in `scenarios`, or `SHUTTLE_ITERATIONS`. Timed
//! waits never time out, so everything that makes a difference must wake whom it concerns.

#![allow(dead_code, unreachable_pub, missing_docs, unused_imports, clippy::unwrap_used)]

mod sync;

#[path = "../../src/lifecycle/mod.rs"]
mod lifecycle;

mod scenarios;
