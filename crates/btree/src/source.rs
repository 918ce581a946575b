//! Where nodes come from.

use frazil_ondisk::Bpos;
use frazil_ondisk::node::{NodePtr, SortedKeys};
use frazil_ondisk::units::Sectors;

use crate::error::{ProblemKind, Result, Span};

/// A node as its source delivers it: verified and merged.
pub struct LoadedNode {
    /// First position it covers; the pointer's, where that one tells.
    pub min: Bpos,
    /// Last position it covers; the pointer's.
    pub max: Bpos,
    /// Generation in its lineage of splits, merges and rewrites (spec 30 §5.1).
    pub counter: u32,
    /// Sectors of its area that are written.
    pub written: Sectors,
    /// Its keys, all within `min..=max`.
    pub keys: SortedKeys,
    /// What is wrong with it and did not prevent reading it.
    pub problems: Vec<ProblemKind>,
}

/// Reads nodes: [`crate::NodeStore`] from devices, something simpler in tests.
pub trait NodeSource: Send + Sync {
    /// Reads the node that `ptr` leads to. `span` is what its parent says it covers, for messages.
    ///
    /// # Errors
    /// [`crate::Error::Unreadable`] when no copy of exactly that node can be had.
    fn read(&self, span: Span, ptr: &NodePtr<'_>) -> Result<LoadedNode>;

    /// Hints that the node that `ptr` leads to will be read soon. Must not wait for it; need not do anything.
    fn will_read(&self, _ptr: &NodePtr<'_>) {}
}
