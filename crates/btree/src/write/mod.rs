//! Changing b-trees.

mod hooks;

pub use hooks::{Blocked, Change, CommitError, NodeArea, NodeSpace, Stage, Triggers};
