//! Telling nodes apart.

use frazil_ondisk::BtreeId;
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::units::NodeSeq;

/// What makes a node that node and no other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct NodeId {
    pub(crate) btree: BtreeId,
    /// Leaves are 0.
    pub(crate) level: u8,
    /// The random number given to the node when it was made.
    pub(crate) seq: NodeSeq,
}

impl NodeId {
    /// The node a pointer leads to. Pointers of the old form (spec 30 §8.1, `btree_ptr`) do not tell the node's number;
    /// the first copy's place and generation stand in for it.
    pub(crate) fn of(ptr: &NodePtr<'_>) -> NodeId {
        let expect = &ptr.expect;
        let seq = expect.seq.unwrap_or_else(|| NodeSeq(ptr.ptrs().next().map_or(0, |p| p.to_word())));
        NodeId { btree: expect.btree, level: expect.level, seq }
    }
}
