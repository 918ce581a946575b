//! What can be wrong with a node that is being read, and how bad that is (spec 30 §5.6, spec 60 §9.1).
//!
//! [`BadNode`]: these bytes are not the node the pointer means, or cannot be read at all. [`NodeProblem`]: it is
//! the node, something about it is wrong, and what could be read is offered. Whoever asked tries another replica
//! in the first case, and in the second if [`NodeProblem::is_damage`].

use super::check::KeyProblem;
use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::error::DecodeError;
use crate::fsck_errors::FsckErrorId;
use crate::units::{NodeSeq, Sectors, Seq};
use crate::version::Version;

/// Why bytes are not a readable node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadNode {
    /// Fewer bytes than a node header.
    #[error("only {0} bytes of the node are there")]
    TooShort(usize),
    /// No node, or another filesystem's.
    #[error("node magic is {found:#018x}, must be {want:#018x}")]
    Magic {
        /// The magic found.
        found: u64,
        /// That of this filesystem.
        want: u64,
    },
    /// Another node is here.
    #[error("node {:#018x} is here, the pointer means {:#018x}", found.0, want.0)]
    Seq {
        /// The number found.
        found: NodeSeq,
        /// That of the pointer; 0 if the pointer does not say.
        want: NodeSeq,
    },
    /// Node of another b-tree.
    #[error("node belongs to b-tree {found}, not {want}")]
    Btree {
        /// The b-tree found.
        found: BtreeId,
        /// That of the pointer.
        want: BtreeId,
    },
    /// Node of another level.
    #[error("node has level {found}, not {want}")]
    Level {
        /// The level found.
        found: u8,
        /// That of the pointer.
        want: u8,
    },
    /// Another first position.
    #[error("node starts at {found}, its pointer says {want}")]
    MinKey {
        /// The bound in the node.
        found: Bpos,
        /// That of the pointer.
        want: Bpos,
    },
    /// Another last position.
    #[error("node ends at {found}, its pointer says {want}")]
    MaxKey {
        /// The bound in the node.
        found: Bpos,
        /// That of the pointer.
        want: Bpos,
    },
    /// The header cannot be decoded: its key format, usually.
    #[error("node header: {0}")]
    Header(DecodeError),
    /// A bset uses something this program does not read.
    #[error("bset at sector {at}: {error}")]
    Unsupported {
        /// Where in the node.
        at: Sectors,
        /// What it is.
        error: DecodeError,
    },
    /// An extents node from before extents could be overwritten in place.
    #[error("extents node of an ancient layout")]
    OldExtents,
    /// The first bset claims more keys than the node has room for, so that nothing can be verified.
    #[error("first bset of {u64s} words does not fit")]
    FirstPastEnd {
        /// Length it claims.
        u64s: u16,
    },
    /// The node is encrypted and there is no key.
    #[error("node is encrypted and the key is not known")]
    Locked,
}

impl BadNode {
    /// The stable id of this inconsistency; `None` if it is none (a missing key).
    pub fn id(&self) -> Option<FsckErrorId> {
        Some(match self {
            BadNode::TooShort(_) => FsckErrorId::BTREE_NODE_READ_ERROR,
            BadNode::Magic { .. } => FsckErrorId::BTREE_NODE_BAD_MAGIC,
            BadNode::Seq { .. } => FsckErrorId::BTREE_NODE_BAD_SEQ,
            BadNode::Btree { .. } => FsckErrorId::BTREE_NODE_BAD_BTREE,
            BadNode::Level { .. } => FsckErrorId::BTREE_NODE_BAD_LEVEL,
            BadNode::MinKey { .. } => FsckErrorId::BTREE_NODE_BAD_MIN_KEY,
            BadNode::MaxKey { .. } => FsckErrorId::BTREE_NODE_BAD_MAX_KEY,
            BadNode::Header(_) => FsckErrorId::BTREE_NODE_BAD_FORMAT,
            BadNode::Unsupported { .. } | BadNode::OldExtents => FsckErrorId::BTREE_NODE_UNSUPPORTED_VERSION,
            BadNode::FirstPastEnd { .. } => FsckErrorId::BSET_PAST_END_OF_BTREE_NODE,
            BadNode::Locked => return None,
        })
    }
}

/// Something wrong with a node that could be read nevertheless. Places are counted from the start of the node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeProblem {
    /// The checksum does not match; the keys were used all the same.
    #[error("bset at sector {at}: {error}")]
    Checksum {
        /// Where.
        at: Sectors,
        /// Stored and computed checksum.
        error: DecodeError,
    },
    /// The checksum type does not exist; the keys were used unverified.
    #[error("bset at sector {at}: unknown checksum type {csum_type}")]
    ChecksumType {
        /// Where.
        at: Sectors,
        /// The type number.
        csum_type: u8,
    },
    /// The bset says it is elsewhere in the node.
    #[error("bset at sector {at} says it is at sector {stored}")]
    Offset {
        /// Where.
        at: Sectors,
        /// Where it says it is.
        stored: Sectors,
    },
    /// The bset claims more keys than there is room for; it was left out.
    #[error("bset at sector {at}: {u64s} words run past the end")]
    PastEnd {
        /// Where.
        at: Sectors,
        /// Length it claims.
        u64s: u16,
    },
    /// Bsets end before the pointer says they do.
    #[error("bsets end at sector {found}, the pointer says {want}")]
    DataMissing {
        /// Where they end.
        found: Sectors,
        /// Where they should.
        want: Sectors,
    },
    /// There is another bset behind the last one (only noticed if the pointer does not say where they end).
    #[error("stray bset at sector {at}")]
    AfterEnd {
        /// Where.
        at: Sectors,
    },
    /// A bset without keys that is not the first.
    #[error("bset at sector {at} is empty")]
    Empty {
        /// Where.
        at: Sectors,
    },
    /// The first bset is of a journal entry that never became durable; it was used.
    #[error("first bset has blacklisted journal sequence number {seq}")]
    FirstBlacklisted {
        /// The entry.
        seq: Seq,
    },
    /// A bset that the pointer counts is of a journal entry that never became durable; it was left out.
    #[error("bset at sector {at} has blacklisted journal sequence number {seq}")]
    Blacklisted {
        /// Where.
        at: Sectors,
        /// The entry.
        seq: Seq,
    },
    /// Older than the superblock's oldest version.
    #[error("bset at sector {at} has version {version}, older than the superblock allows")]
    VersionOld {
        /// Where.
        at: Sectors,
        /// Its version.
        version: Version,
    },
    /// Of a newer major version than the superblock's.
    #[error("bset at sector {at} has version {version}, newer than the superblock's")]
    VersionNew {
        /// Where.
        at: Sectors,
        /// Its version.
        version: Version,
    },
    /// A key that was left out.
    #[error("byte {at}: {problem}")]
    Key {
        /// First byte of the key.
        at: usize,
        /// What is wrong with it.
        problem: KeyProblem,
    },
}

impl NodeProblem {
    /// Bytes of this copy were lost or changed: another replica may be whole.
    pub fn is_damage(&self) -> bool {
        use NodeProblem::*;
        match self {
            Checksum { .. } | ChecksumType { .. } | Offset { .. } | PastEnd { .. } | DataMissing { .. } => {
                true
            }
            Empty { .. } | Key { .. } => true,
            AfterEnd { .. } | FirstBlacklisted { .. } | Blacklisted { .. } => false,
            VersionOld { .. } | VersionNew { .. } => false,
        }
    }

    /// The stable id of this inconsistency.
    pub fn id(&self) -> FsckErrorId {
        match self {
            NodeProblem::Checksum { .. } => FsckErrorId::BSET_BAD_CSUM,
            NodeProblem::ChecksumType { .. } => FsckErrorId::BSET_UNKNOWN_CSUM,
            NodeProblem::Offset { .. } => FsckErrorId::BSET_WRONG_SECTOR_OFFSET,
            NodeProblem::PastEnd { .. } => FsckErrorId::BSET_PAST_END_OF_BTREE_NODE,
            NodeProblem::DataMissing { .. } => FsckErrorId::BTREE_NODE_DATA_MISSING,
            NodeProblem::AfterEnd { .. } => FsckErrorId::BTREE_NODE_BSET_AFTER_END,
            NodeProblem::Empty { .. } => FsckErrorId::BSET_EMPTY,
            NodeProblem::FirstBlacklisted { .. } => FsckErrorId::BSET_BLACKLISTED_JOURNAL_SEQ,
            NodeProblem::Blacklisted { .. } => FsckErrorId::FIRST_BSET_BLACKLISTED_JOURNAL_SEQ,
            NodeProblem::VersionOld { .. } => FsckErrorId::BTREE_NODE_BSET_OLDER_THAN_SB_MIN,
            NodeProblem::VersionNew { .. } => FsckErrorId::BTREE_NODE_BSET_NEWER_THAN_SB,
            NodeProblem::Key { problem, .. } => problem.id(),
        }
    }
}
