//! Going through a whole tree.
//!
//! A walk visits a directory before what it holds, and what a directory holds in the order of the names' bytes, so that two
//! walks of the same tree are the same. It keeps the listings of the directories it is in, and remembers every directory it
//! has been in: in a sound volume no directory is found twice, and in a damaged one a loop must not be an endless walk.
//!
//! What cannot be read is reported where it was found, and the walk goes on.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use crate::attr::{Attr, FileType, NodeId};
use crate::error::{Error, Result};
use crate::hashed::OnDamage;
use crate::namespace::Namespace;

/// What a walk does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkStep {
    /// Goes on, into the directory if it is one.
    Continue,
    /// Goes on, but not into this directory.
    SkipDirectory,
    /// Ends.
    Stop,
}

/// What a walk comes upon.
#[derive(Debug)]
pub enum Visit<'v> {
    /// An object.
    Object(&'v Attr),
    /// An entry whose object cannot be had.
    Unreadable(Error),
    /// The directory, visited before, cannot be listed completely; what can be listed has been visited.
    Unlistable(Error),
}

/// A directory that the walk is in.
struct Level {
    /// Length of its path.
    path_len: usize,
    /// Names of what it holds.
    names: Vec<u8>,
    /// What is still to be visited, the last one first: place of the name and object.
    pending: Vec<(Range<usize>, NodeId)>,
    /// Why it could not be listed completely.
    failed: Option<Error>,
}

impl Namespace {
    /// See [`crate::Fs::walk`].
    pub(crate) fn walk(&self, top: NodeId, visit: &mut dyn FnMut(&[u8], Visit<'_>) -> WalkStep) {
        let mut path = Vec::new();
        let mut been = HashSet::new();
        let mut levels: Vec<Level> = Vec::new();
        if self.visit_one(top, &path, &mut been, &mut levels, visit).is_break() {
            return;
        }
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_len);
            let Some((name, node)) = level.pending.pop() else {
                let failed = level.failed.take();
                levels.pop();
                if let Some(error) = failed
                    && visit(&path, Visit::Unlistable(error)) == WalkStep::Stop
                {
                    return;
                }
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&level.names[name]);
            if self.visit_one(node, &path, &mut been, &mut levels, visit).is_break() {
                return;
            }
        }
    }

    /// Visits an object, and enters it if it is a directory to be entered.
    fn visit_one(
        &self,
        node: NodeId,
        path: &[u8],
        been: &mut HashSet<NodeId>,
        levels: &mut Vec<Level>,
        visit: &mut dyn FnMut(&[u8], Visit<'_>) -> WalkStep,
    ) -> ControlFlow<()> {
        let attr = match self.getattr(node) {
            Ok(attr) if attr.kind == FileType::Directory && !been.insert(node) => {
                let twice = format!("directory {node} has been found before under another path");
                Err(Error::Io(twice))
            }
            other => other,
        };
        let (step, enters) = match attr {
            Ok(attr) => (visit(path, Visit::Object(&attr)), attr.kind == FileType::Directory),
            Err(error) => (visit(path, Visit::Unreadable(error)), false),
        };
        match step {
            WalkStep::Stop => return ControlFlow::Break(()),
            WalkStep::Continue if enters => levels.push(self.list(node, path.len())),
            WalkStep::Continue | WalkStep::SkipDirectory => {}
        }
        ControlFlow::Continue(())
    }

    /// The sorted listing of a directory.
    fn list(&self, dir: NodeId, path_len: usize) -> Level {
        let mut names = Vec::new();
        let mut pending = Vec::new();
        let listed: Result<()> = self.readdir(dir, 0, OnDamage::PassOver, &mut |entry| {
            let start = names.len();
            names.extend_from_slice(entry.name);
            pending.push((start..names.len(), entry.node));
            ControlFlow::Continue(())
        });
        pending.sort_unstable_by(|(a, _), (b, _)| names[b.clone()].cmp(&names[a.clone()]));
        Level { path_len, names, pending, failed: listed.err() }
    }
}
