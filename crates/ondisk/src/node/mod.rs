//! B-tree nodes as they lie on disk (spec 30 §4–§8, §10).

mod check;
mod format;
mod header;
mod keys;
mod pack;
mod problem;
mod ptr;
mod read;
#[cfg(test)]
mod testing;
mod write;

pub use check::{KeyProblem, KeyRules, type_allowed};
pub use format::{FormatBuilder, FormatRules, KeyFormat};
pub use header::{BsetHeader, ENTRY_HEADER_BYTES, LEVELS, NODE_HEADER_BYTES, NodeHeader, node_magic};
pub use keys::SortedKeys;
pub use pack::{KEY_FORMAT_LOCAL, RawKey, RawKeyError};
pub use problem::{BadNode, NodeProblem};
pub use ptr::{BtreePtrV2, NodeExpectation, NodePtr, btree_ptr_key};
pub use read::{Bset, DecodedNode, ReadContext, ReadNode};
pub use write::{BsetBuilder, WriteContext};
