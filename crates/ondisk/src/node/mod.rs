//! B-tree nodes as they lie on disk (spec 30 §4–§8, §10).
//!
//! A node is a fixed area of a bucket, written front to back. Its life begins with one write of all the keys it was created with, packed
//! in the format that fits them best. Changes are appended as further writes, each a sorted *bset*, until the area is
//! full; then the node is rewritten, split or merged, always to a new place, and its pointer replaced. So reading a node means:
//! find the writes, check each, merge their keys; among keys at one position the latest wins.
//!
//! ```text
//!         ┌──────────── first write ────────────┬──── second ────┬── third ──┬──────────────┐
//!  node:  │ csum magic bounds format bset keys… │ csum bset keys │ …         │ not yet used │
//!         └─────────────────────────────────────┴────────────────┴───────────┴──────────────┘
//!         0                                      block boundaries              node size
//! ```
//!
//! | to … | use |
//! |---|---|
//! | follow a pointer to a node | [`NodePtr`], which gives the [`NodeExpectation`] and the replicas |
//! | read a node | [`ReadNode::read`], then [`ReadNode::merge`] → [`DecodedNode`] and the [`NodeProblem`]s |
//! | search and iterate its keys | [`SortedKeys`] |
//! | write a node, or append to one | [`BsetBuilder`], with a [`KeyFormat`] from [`FormatBuilder`] |
//! | check a key against the rules of its b-tree | [`KeyRules`] |
//!
//! A read tries the replicas until one is read without a problem that [`NodeProblem::is_damage`], and else makes do with the best
//! one. What a key's *value* may be is not known here: [`crate::values`].

mod check;
mod digest;
mod format;
mod header;
mod keys;
mod pack;
mod problem;
mod ptr;
mod read;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod write;

pub use check::{KeyProblem, KeyRules, type_allowed};
pub use format::{FormatBuilder, FormatRules, KeyFormat};
pub use header::{BsetHeader, ENTRY_HEADER_BYTES, LEVELS, NODE_HEADER_BYTES, NodeHeader, node_magic};
pub use keys::{SortedKeys, SortedKeysBuilder};
pub use pack::{KEY_FORMAT_LOCAL, RawKey, RawKeyError};
pub use problem::{BadNode, NodeProblem};
pub use ptr::{BtreePtrV2, NodeExpectation, NodePtr, btree_ptr_key};
pub use read::{Bset, DecodedNode, ReadContext, ReadNode};
pub use write::{BsetBuilder, WriteContext};
