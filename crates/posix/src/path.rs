//! The way up: from an object to the directory that holds it, and to a path.
//!
//! An inode remembers one directory entry that names it (spec 40 §3.7). For directories that is the only one, so ".." is exact;
//! a file with several names may remember any of them, or none. Paths found this way are for people.

use std::collections::HashSet;

use frazil_ondisk::values::dirent::Dirent;
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use crate::attr::NodeId;
use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// Directories on the way up before a path counts as endless.
const DEPTH_MAX: usize = 4096;

impl Namespace {
    /// The directory that holds a directory (or the entry a file remembers); the volume's root holds itself.
    ///
    /// # Errors
    /// [`Error::Stale`] if the object does not exist, [`Error::NotFound`] if it remembers no directory.
    pub(crate) fn parent(&self, node: NodeId) -> Result<NodeId> {
        let (_, inode) = self.object(node)?;
        if node == NodeId::ROOT {
            return Ok(node);
        }
        holder(node, &inode).ok_or(Error::NotFound)
    }

    /// A path from the volume's root, beginning with a slash. Where the way up is lost the path begins with the inode
    /// number instead: `<inode 4711>/name`.
    pub(crate) fn path_of(&self, node: NodeId) -> Vec<u8> {
        // Names from the last to the first.
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut been = HashSet::new();
        let mut at = node;
        while at != NodeId::ROOT {
            match self.name_of(at) {
                // On a damaged volume the way up may be a loop, and this may be asked for every entry of a directory.
                Some((holder, name)) if names.len() < DEPTH_MAX && been.insert(at) => {
                    names.push(name);
                    at = holder;
                }
                _ => break,
            }
        }
        let mut path = match at {
            NodeId::ROOT => Vec::new(),
            lost => format!("<inode {lost}>").into_bytes(),
        };
        if names.is_empty() && path.is_empty() {
            path.push(b'/');
        }
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    /// The directory entry that an object remembers: its directory and its name.
    fn name_of(&self, node: NodeId) -> Option<(NodeId, Vec<u8>)> {
        let (_, inode) = self.object(node).ok()?;
        let holder = holder(node, &inode)?;
        let subvol = self.subvol(holder.subvol).ok()??;
        let slot = Bpos::new(holder.inum.0, inode.dir_offset, 0);
        let handle = self.btrees.get_visible(BtreeId::DIRENTS, slot, &subvol.view).ok()??;
        let key = handle.key();
        let name = (key.k.ty == KeyType::DIRENT).then(|| Dirent::decode(key.value).ok())??.name;
        Some((holder, name.to_vec()))
    }
}

/// The directory an inode remembers. The root of a subvolume lies in another subvolume.
pub(crate) fn holder(node: NodeId, inode: &Inode) -> Option<NodeId> {
    let subvol = if inode.parent_subvol.0 == 0 { node.subvol } else { inode.parent_subvol };
    (inode.dir.0 != 0).then_some(NodeId { subvol, inum: inode.dir })
}
