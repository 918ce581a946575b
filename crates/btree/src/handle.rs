//! A key that keeps what it lies in alive.

use std::fmt;
use std::sync::Arc;

use frazil_ondisk::{Bpos, Key, KeyBuf};

use crate::node::Node;
use crate::overlay::LevelKeys;

/// A key found in a b-tree. Its value stays where it is, in a cached node or in the overlay, and is kept alive by the
/// handle; cloning one is cheap. Do not keep many for long: each may hold a whole node in memory.
#[derive(Clone)]
pub struct KeyHandle(Inner);

#[derive(Clone)]
enum Inner {
    Node(Arc<Node>, usize),
    Owned(Arc<KeyBuf>),
    Overlay(LevelKeys, usize),
}

impl KeyHandle {
    pub(crate) fn in_node(node: Arc<Node>, i: usize) -> Self {
        Self(Inner::Node(node, i))
    }

    /// The key of a version exactly at `pos`.
    pub(crate) fn find(node: Arc<Node>, pos: Bpos) -> Option<Self> {
        if let Some(entry) = node.delta().find(pos) {
            return entry.is_live().then(|| Self::owned(Arc::clone(&entry.key)));
        }
        node.keys().find(pos).map(|i| Self::in_node(node, i))
    }

    pub(crate) fn owned(key: Arc<KeyBuf>) -> Self {
        Self(Inner::Owned(key))
    }

    pub(crate) fn in_overlay(keys: LevelKeys, j: usize) -> Self {
        Self(Inner::Overlay(keys, j))
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> Key<'_> {
        match &self.0 {
            Inner::Node(node, i) => node.keys().get(*i),
            Inner::Owned(key) => key.as_key(),
            Inner::Overlay(keys, j) => keys.get(*j),
        }
    }
}

impl fmt::Debug for KeyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.key(), f)
    }
}
