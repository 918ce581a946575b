//! The oracle: the real Linux 6.12 driver, asked about an image.
//!
//! frazil's own opinion of what it wrote counts for little. An image is right when the driver that others use mounts it,
//! finds nothing to repair, and reads back every byte. So this crate boots Debian's Linux 6.12 in an emulated machine
//! (QEMU without hardware acceleration: it runs anywhere, as an ordinary user), attaches images as disks, mounts them,
//! and reports what the driver did and said.
//!
//! ```no_run
//! use frazil_oracle::{Job, Oracle};
//!
//! let oracle = Oracle::new()?;                        // finds or prepares kernel, initramfs and emulator
//! let verdict = oracle.ask(Job::check("mine", ["mine.img"]))?;
//! assert_eq!(verdict.objections(), Vec::<String>::new());
//! # Ok::<(), frazil_oracle::OracleError>(())
//! ```
//!
//! A [`Job`] is one volume and the mounts it goes through, one after the other. Each mount has its options, and may run a
//! script, walk the tree, and compare it with a manifest. A [`Verdict`] has all that came of it. [`Oracle::batch`] takes
//! many jobs and boots once for all of them, because a boot costs 5 to 20 seconds; jobs that end in a power cut, and jobs
//! behind one that brought the kernel down, get boots of their own.
//!
//! The parts, in the order a question travels:
//!
//! | module | its one job |
//! |---|---|
//! | [`job`] | the question |
//! | [`prepare`] | kernel, initramfs, tools, in a cache directory |
//! | [`batch`] | jobs to boots, and what a boot left behind to verdicts |
//! | [`machine`] | one emulator process: console lines, deadlines, the power cut; never outlives us |
//! | [`wire`] | what host and guest write for each other in the directory they share |
//! | [`guest`] | the part that runs in the machine: mounts, runs scripts, walks trees |
//! | [`unlock`], [`superblock`] | the key of an encrypted volume; what the driver counted in the superblock |
//! | [`messages`] | which of the driver's messages are no news, and what the others are |
//! | [`verdict`] | the answer |
//!
//! In the machine, the guest part is the very program `oracle` that was built here, run in a read-only view of this
//! system's own root, so the tree that the driver shows is described by the same code
//! ([`frazil_testing::observe`]) that describes a frazil mount.

#![forbid(unsafe_code)]

pub mod batch;
pub mod error;
pub mod guest;
pub mod job;
pub mod machine;
pub mod messages;
pub mod prepare;
pub mod superblock;
pub mod unlock;
pub mod verdict;
pub mod wire;

pub use batch::Oracle;
pub use error::OracleError;
pub use job::{Cut, Job, Mount, Writes};
pub use verdict::{Counted, MountVerdict, Outcome, ScriptResult, Verdict};
