//! What can go wrong below a cursor, and what was found wrong but read anyway.
//!
//! [`Error`] stops a lookup: the keys of some range of one b-tree cannot be had. It says which range, so that a reader of
//! a damaged volume can step over it ([`crate::Cursor::skip_bad_node`]).
//!
//! [`Problem`] does not stop anything: something broke a rule of the format, the keys were still found. Problems are
//! collected for the checker and logged once.

use std::fmt;
use std::sync::Arc;

use frazil_device::Error as DeviceError;
use frazil_ondisk::node::{BadNode, NodeProblem};
use frazil_ondisk::units::{DevIndex, Sectors, SnapshotId};
use frazil_ondisk::{Bpos, BtreeId, DecodeError};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A place in a b-tree: the part of one level that one node covers, or should cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The b-tree.
    pub btree: BtreeId,
    /// The level; leaves are 0.
    pub level: u8,
    /// First position.
    pub min: Bpos,
    /// Last position, inclusive.
    pub max: Bpos,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b-tree {}, level {}, {} to {}", self.btree, self.level, self.min, self.max)
    }
}

/// Why keys cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The journal says the b-tree had a root and that it was lost (spec 60 §4.4).
    #[error("the root of b-tree {0} is lost")]
    RootLost(BtreeId),
    /// The root is on a level that cannot exist (spec 30 §8.2).
    #[error(
        "the root of b-tree {btree} is said to be on level {level}, but there are only levels 0 to {}",
        crate::LEVEL_MAX
    )]
    TooDeep {
        /// The b-tree.
        btree: BtreeId,
        /// The level its root claims.
        level: u8,
    },
    /// No replica of a node could be read.
    #[error("{}: no copy of the node can be read: {}", .0.span, Joined(&.0.failures))]
    Unreadable(Box<Unreadable>),
    /// A key on an interior level is no pointer to a node: what the node should cover, and what is wrong with the key.
    #[error("{}: bad pointer to the node: {}", .0.0, .0.1)]
    BadPointer(Box<(Span, DecodeError)>),
    /// No child of a node covers this range.
    #[error("{0}: no node covers this range")]
    Gap(Span),
    /// A value needed to find one's way cannot be decoded.
    #[error("b-tree {btree}, key {pos}: {reason}")]
    BadKey {
        /// The b-tree.
        btree: BtreeId,
        /// Position of the key.
        pos: Bpos,
        /// What is wrong with its value.
        reason: DecodeError,
    },
    /// There is no such snapshot, or it has been deleted.
    #[error("snapshot {} does not exist", .0.0)]
    NoSuchSnapshot(SnapshotId),
}

impl Error {
    pub(crate) fn bad_pointer(span: Span, reason: DecodeError) -> Error {
        Error::BadPointer(Box::new((span, reason)))
    }

    /// The range of keys that cannot be had; `None` when the error is not about a range.
    pub fn span(&self) -> Option<Span> {
        match self {
            Error::RootLost(btree) => Some(Span { btree: *btree, level: 0, min: Bpos::MIN, max: Bpos::MAX }),
            Error::TooDeep { btree, level } => {
                Some(Span { btree: *btree, level: *level, min: Bpos::MIN, max: Bpos::MAX })
            }
            Error::Unreadable(e) => Some(e.span),
            Error::BadPointer(e) => Some(e.0),
            Error::Gap(span) => Some(*span),
            Error::BadKey { .. } | Error::NoSuchSnapshot(_) => None,
        }
    }
}

/// A node none of whose replicas can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What the node should cover.
    pub span: Span,
    /// What happened to each replica, in the order they were tried.
    pub failures: Vec<ReplicaFailure>,
}

/// Why one replica of a node could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaFailure {
    /// The pointer leads nowhere: its device was removed (spec 80 §5.11).
    #[error("a copy was on a device that has been removed")]
    Removed,
    /// The device is not there.
    #[error("device {0} is missing")]
    Missing(DevIndex),
    /// The device would not give the bytes.
    #[error("device {dev}: {error}")]
    Io {
        /// The device.
        dev: DevIndex,
        /// What the device said, its name and the place included.
        error: DeviceError,
    },
    /// The bytes are not the node.
    #[error("{place}: {reason}")]
    Damaged {
        /// Where the node should be.
        place: NodePlace,
        /// The rule that is broken.
        reason: BadNode,
    },
    /// It is the node, but a part of it is not what was written.
    #[error("{place}: {problem}")]
    Unverified {
        /// Where the node is.
        place: NodePlace,
        /// What is wrong.
        problem: NodeProblem,
    },
}

/// Where a replica of a node lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlace {
    /// Member index of the device.
    pub dev: DevIndex,
    /// Its name.
    pub name: Arc<str>,
    /// First sector of the node.
    pub sector: Sectors,
}

impl fmt::Display for NodePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {} ({}), sector {}", self.dev, self.name, self.sector)
    }
}

/// Something that breaks a rule of the format, although the keys could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// What.
    pub kind: ProblemKind,
}

/// The rules a readable tree can break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// A replica is damaged or gone; another one was used.
    #[error("{0}")]
    Replica(ReplicaFailure),
    /// A rule inside the node is broken.
    #[error("{0}")]
    Node(NodeProblem),
    /// A child does not begin where the child before it ended (spec 30 §8.2).
    #[error("the child that ends at {child} begins at {found}, not at {expected}")]
    ChildBegins {
        /// Position of the child's pointer, which is its last position.
        child: Bpos,
        /// Where it must begin.
        expected: Bpos,
        /// Where its pointer says it begins.
        found: Bpos,
    },
    /// The last child does not end where its parent ends.
    #[error("the last child ends at {found}, its parent at {expected}")]
    LastChildEnds {
        /// Where its parent ends.
        expected: Bpos,
        /// Where the child ends.
        found: Bpos,
    },
    /// An interior node has no children.
    #[error("the interior node is empty")]
    Childless,
    /// A root does not cover all positions.
    #[error("the root covers only {min} to {max}")]
    RootBounds {
        /// Where it begins.
        min: Bpos,
        /// Where it ends.
        max: Bpos,
    },
    /// The journal has keys for a level above the root; they are not used.
    #[error("the journal has {keys} keys for this level, which is above the root")]
    KeysAboveRoot {
        /// How many.
        keys: usize,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.span, self.kind)
    }
}

/// Displays a list with semicolons.
struct Joined<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the pointer names no copy");
        }
        for (i, item) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}
