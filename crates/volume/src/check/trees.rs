//! Ids of what the b-tree layer finds (spec 60 §9.1).

use frazil_btree::{Error, Problem, ProblemKind, ReplicaFailure};
use frazil_ondisk::Bpos;
use frazil_ondisk::fsck_errors::FsckErrorId as E;

/// The id of why keys cannot be had.
pub(super) fn error_id(error: &Error) -> E {
    match error {
        Error::RootLost(_) => E::BTREE_ROOT_READ_ERROR,
        Error::TooDeep { .. } => E::BTREE_ROOT_BKEY_INVALID,
        Error::Unreadable(e) => {
            let is_root = (e.span.min, e.span.max) == (Bpos::MIN, Bpos::MAX);
            let first = e.failures.iter().find_map(failure_id);
            if is_root { E::BTREE_ROOT_READ_ERROR } else { first.unwrap_or(E::BTREE_NODE_READ_ERROR) }
        }
        Error::BadPointer(_) | Error::BadKey { .. } => E::BTREE_NODE_BAD_BKEY,
        Error::Gap(_) => E::BTREE_NODE_TOPOLOGY_BAD_MIN_KEY,
        Error::NoSuchSnapshot(_) => E::BKEY_IN_MISSING_SNAPSHOT,
    }
}

fn failure_id(failure: &ReplicaFailure) -> Option<E> {
    match failure {
        ReplicaFailure::Removed | ReplicaFailure::Missing(_) => None,
        ReplicaFailure::Io { .. } => Some(E::BTREE_NODE_READ_ERROR),
        ReplicaFailure::Damaged { reason, .. } => reason.id(),
        ReplicaFailure::Unverified { problem, .. } => Some(problem.id()),
    }
}

/// The id of a broken rule.
pub(super) fn problem_id(problem: &Problem) -> E {
    match &problem.kind {
        ProblemKind::Replica(failure) => failure_id(failure).unwrap_or(E::BTREE_NODE_READ_ERROR),
        ProblemKind::Node(node) => node.id(),
        ProblemKind::ChildBegins { .. } => E::BTREE_NODE_TOPOLOGY_BAD_MIN_KEY,
        ProblemKind::LastChildEnds { .. } => E::BTREE_NODE_TOPOLOGY_BAD_MAX_KEY,
        ProblemKind::Childless => E::BTREE_NODE_TOPOLOGY_EMPTY_INTERIOR_NODE,
        ProblemKind::RootBounds { min, .. } if *min != Bpos::MIN => E::BTREE_ROOT_BAD_MIN_KEY,
        ProblemKind::RootBounds { .. } => E::BTREE_ROOT_BAD_MAX_KEY,
        ProblemKind::KeysAboveRoot { .. } => E::BTREE_NODE_BAD_LEVEL,
    }
}

/// Another copy was whole.
pub(super) fn is_only_reduced(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemKind::Replica(_))
}
