//! bcachefs b-trees: from (b-tree, position) to a key.
//!
//! A volume is a set of b-trees whose nodes are append-only logs of sorted keys on the devices (spec 30). This crate reads them, and
//! changes them: see [`mod@write`] for that half.
//!
//! ```text
//! get, Cursor, SnapshotCursor        what is asked for
//!            │
//!         Btrees ── roots, Overlay   where to begin, and what the journal changes
//!            │ descend: one child per level
//!        NodeCache                   nodes in memory, each read by one thread once
//!            │ miss
//!        NodeSource                  NodeStore: replicas on devices, verified and merged
//! ```
//!
//! Three decisions shape it:
//!
//! * **Readers look at versions.** What is read is merged into one sorted run at once; what changes lies beside it until it is written.
//!   A reader holds a version of the two by an `Arc` and takes no lock while it iterates; a key is lent where it lies, or kept with a
//!   [`KeyHandle`].
//! * **The overlay stays apart.** Keys of an unclean journal are not put into nodes but merged on the way, at all levels: in
//!   leaves key by key, in interior nodes through a table of children made when the node is loaded.
//! * **Damage has a range.** What cannot be read is an [`Error`] that says which positions are lost, and a cursor can
//!   step over exactly those. What breaks a rule and can be read is a [`Problem`] for the checker.
//!
//! | to find | look in |
//! |---|---|
//! | roots, lookups, the way down | `trees.rs` |
//! | walking keys in both directions | `cursor.rs` |
//! | the table of children, gaps and overlaps | `node.rs` |
//! | merging a node with the journal's keys | `view.rs`, `overlay.rs` |
//! | a node that changes; what is not on disk yet | `cell.rs`, `delta.rs` |
//! | eviction, and many threads wanting one node | `cache.rs` |
//! | replicas, checksums, blacklisted updates | `node_store.rs` |
//! | who is whose ancestor | `snapshots.rs`; while that changes `live_snapshots.rs` |
//! | what a snapshot sees | `snapshot_cursor.rs` |

#![forbid(unsafe_code)]

mod cache;
mod cell;
mod cursor;
mod delta;
mod error;
mod handle;
mod live_snapshots;
mod node;
mod node_store;
mod overlay;
mod ptr;
mod reads;
mod snapshot_cursor;
mod snapshots;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trees;
mod view;
pub mod write;

pub use cache::CacheStats;
pub use cursor::Cursor;
pub use error::{Error, NodePlace, Problem, ProblemKind, ReplicaFailure, Result, Span, Unreadable};
pub use handle::KeyHandle;
pub use live_snapshots::LiveSnapshots;
pub use node_store::{NodeFormat, NodeStore};
pub use overlay::Overlay;
pub use snapshot_cursor::SnapshotCursor;
pub use snapshots::{SnapshotInfo, SnapshotTable, View};
pub use source::{LoadedNode, NodeSource};
pub use trees::{Btrees, Root, Roots};

/// The highest level a node can be on; leaves are on level 0 (spec 30 §8.2).
pub const LEVEL_MAX: u8 = frazil_ondisk::node::LEVELS - 1;
