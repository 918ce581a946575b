//! Mounts a volume through FUSE: answers the kernel's requests by calls of a [`Filesystem`].
//!
//! # The way of a request
//!
//! `/dev/fuse` → `through_device` reads it → `session` has it answered: `request` decodes it → `adapter` calls the filesystem (listings in `directory`, changes in
//! `writer`, numbers of objects in `node_ids`, errors in `errno`) → `reply` encodes the answer → `/dev/fuse`, all in one thread and without
//! allocating. Where the kernel offers it, `ring` is both ends instead. Around it: `handshake` is how kernel and server agree, `attach` puts the mount into the tree of directories and takes it out, `mount` is its life from
//! start to signal or unmount, [`daemon`] puts a process into the background, [`control`] lets commands talk to it.
//!
//! # Threads
//!
//! One thread at a time reads requests and answers what needs no waiting; a request that is about to wait passes the turn to
//! read on (`turn`). Whoever waits says so through [`frazil_device::waiting`]: devices before a read that is not in
//! memory, this crate before long reads. Round trip of a `getxattr` that is answered at once, on two cores, Linux 6.18,
//! beside the crate fuser 0.18 in the same run (median of the best of ten; the machine had other work):
//!
//! | | one caller | two callers, each |
//! |---|---|---|
//! | one reading thread (fuser, `n_threads` 1) | 6.6 µs | 9.7 µs |
//! | two reading threads (fuser, `n_threads` 2) | 7.6 µs | 14.2 µs |
//! | turns (this crate) | 6.6 µs | 6.9 µs |
//!
//! On the idle machine the first was 2.7 µs and the second 10 µs. Passing the turn on before long reads raises the sequential
//! read of a file that costs 1 ns a byte to make from 0.43 to 0.60 GB/s. The way through the kernel costs 0.2 ns a byte here
//! and 0.3 in the reader. FUSE over io_uring gives each core a queue, if it is switched on (`/sys/module/fuse/parameters/enable_uring`): `ring`. docs/performance.md has
//! what it brings, and what following the caller from core to core (`follow`) brings without it.
//!
//! # Why the protocol is spoken here
//!
//! fuser, the usual library, refuses interrupts, knows neither `statx` nor `O_TMPFILE`, and takes the number by which the kernel
//! knows an object for the one that programs see. The part of the protocol that is needed is two files, without unsafe
//! code (of which there is some in `ring::entry` alone), and owning the loop is what makes turns possible.
//!
//! # Changes
//!
//! A mount is read-only unless it is asked to be writable ([`Options::read_only`]) and what it serves can be ([`Filesystem::writer`]). What the kernel may
//! cache, who asks, and how long objects live is told in `writer`; the start and the end of a volume that is changed in `live`.

#![deny(unsafe_code)]

mod access;
mod adapter;
mod attach;
mod change;
pub mod control;
pub mod daemon;
mod directory;
mod errno;
mod error;
mod fence;
mod filesystem;
mod follow;
mod handshake;
mod interrupts;
mod live;
mod mount;
mod node_ids;
mod notify;
mod pages;
mod parked;
mod remount;
mod remounted;
mod reply;
mod request;
mod ring;
mod session;
mod stats;
mod through_device;
mod turn;
mod writer;

pub use access::Accesses;
pub use attach::Options;
pub use error::Error;
pub use filesystem::{Filesystem, TakeEntry, TakeEntryPlus};
pub use live::Writable;
pub use mount::{Mount, mount, serve, umount};
pub use remount::remount;
