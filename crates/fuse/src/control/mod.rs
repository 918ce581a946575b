//! The control channel: how a command talks to the process that serves a mount.
//!
//! ```text
//!   frazil status /mnt                                     the process that serves /mnt
//!     locate: which mount is that?  (mount table)
//!     client ──── unix socket "\0frazil/0:45" ───► server: who asks? ─► commands ─► volume
//!            ◄─── one JSON object per line ──────
//! ```
//!
//! A mount that is frozen, shut down or hangs must still be controllable, so nothing here needs an operation on the filesystem
//! (spec 70 §7.1 R10): the mount is found by comparing names with the mount table ([`locate()`]), and the socket lies outside of it. It is an
//! abstract one, named after the mount's number: unique as long as the mount exists, and gone with its process, whatever kills
//! that. Abstract names belong to a network namespace; a container with its own finds no mounts of the host, and the other way round.
//!
//! **Who may.** The server answers root and the user whose process it is, nobody else; the client talks only to a server that is
//! root's or the user's who mounted. The kernel vouches for both (`SO_PEERCRED`), so taking the name before the mount does gives a stranger
//! nothing.
//!
//! **The protocol** (`protocol.rs`) is one line of JSON per request, of bounded length, and any number of lines as an answer: parts, then one that
//! ends it. What a connection holds (a frozen volume) goes with the connection, however it ends.
//!
//! **Threads.** One accepts, and each connection has one of its own, of which there are few. They belong to the mount: when it is gone
//! they are ended and waited for, as they may be using the filesystem. None answers FUSE requests, so a command may wait for
//! one that does.
//!
//! | to find | look in |
//! |---|---|
//! | which mount is meant by a path | `locate.rs` |
//! | requests, answers, limits | `protocol.rs` |
//! | accepting, credentials, the end | `server.rs` |
//! | what a request does | `commands.rs` |
//! | who holds a volume frozen | `freeze.rs` |
//! | the same by `ioctl` on an open file | `ioctl.rs` |
//! | asking | `client.rs` |
//! | how what is dirty in the kernel gets here for certain | `write_back.rs` |
//! | what `status`, `usage` and `quota` report | `status.rs`, `usage.rs`, `quota.rs` |

mod client;
pub(crate) mod commands;
pub(crate) mod freeze;
pub(crate) mod ioctl;
mod locate;
mod protocol;
mod quota;
pub(crate) mod server;
mod status;
mod usage;
pub(crate) mod write_back;

pub use client::{CallError, Client};
pub use locate::{Inside, LocateError, locate, locate_inside};
pub use protocol::{Bytes, Failure, HoldReport, Mark, Request, ShutdownMode, SubvolumeReport};
pub use quota::{OwnerReport, QuotaLimit, QuotaOwner, QuotaUsed};
pub use status::{
    CountReport, EngineReport, HolderReport, JournalReport, LATENCY_CLASSES, LifecycleReport, MountReport,
    MovedReport, OperationReport, PinReport, SpaceReport, StatusReport, VolumeReport, WaitingReport,
};
pub use usage::{BtreeUse, CompressionUse, DeviceReport, DeviceUse, ReplicasUse, UsageReport};
pub use write_back::write_back;
