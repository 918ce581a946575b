//! What a volume's metadata says, without its data: subvolumes, inodes, and what hangs on them.
//!
//! [`Namespace`] is the part of [`crate::Fs`] that needs nothing but b-trees. Its methods are spread over the files that
//! tell their stories: `dir.rs` (names), `path.rs` (the way up), `xattr.rs` (stored attributes), `subvol.rs`. Here is
//! what all of them begin with: from a [`NodeId`] to the inode that its subvolume sees.
//!
//! Nothing is cached but the subvolumes. An inode is one search in nodes that are in memory and one decoding without
//! allocation, which costs less than keeping a cache coherent would.

use std::sync::Arc;

use frazil_btree::{Btrees, LiveSnapshots, View};
use frazil_ondisk::superblock::time::TimeBase;
use frazil_ondisk::units::Inum;
use frazil_ondisk::values::inode::{Inode, InodeFlags, InodeOpt};
use frazil_ondisk::{Bpos, BtreeId, Key, KeyType};

use crate::attr::{Attr, FileType, NodeId, Timestamp};
use crate::error::{Error, Result};
use crate::subvol::{Subvol, SubvolCache};
use crate::unfinished::Unfinished;

/// The metadata of a volume. See the [module](self).
pub(crate) struct Namespace {
    pub(crate) btrees: Arc<Btrees>,
    pub(crate) snapshots: LiveSnapshots,
    pub(crate) subvols: SubvolCache,
    /// Whether snapshots and subvolumes can change.
    pub(crate) is_written: bool,
    /// Files in the middle of an operation.
    pub(crate) unfinished: Unfinished,
    /// What times in inodes are relative to.
    pub(crate) time_base: TimeBase,
    /// The volume's option `casefold`, for directories that do not say.
    pub(crate) casefold: bool,
}

impl Namespace {
    /// The inode that a snapshot sees under a number; `None` if there is none.
    pub(crate) fn inode_seen(&self, view: &View, inum: Inum) -> Result<Option<Inode>> {
        match self.btrees.get_visible(BtreeId::INODES, Bpos::new(0, inum.0, 0), view)? {
            Some(handle) => decode_inode(handle.key()),
            None => Ok(None),
        }
    }

    /// An object: the subvolume it is seen through, and its inode.
    ///
    /// # Errors
    /// [`Error::Stale`] if either does not exist.
    pub(crate) fn object(&self, node: NodeId) -> Result<(Arc<Subvol>, Inode)> {
        let subvol = self.subvol(node.subvol)?.ok_or(Error::Stale(node))?;
        let mut inode = self.inode_seen(&subvol.view, node.inum)?.ok_or(Error::Stale(node))?;
        self.unfinished.settle(node, &mut inode);
        Ok((subvol, inode))
    }

    /// As [`Namespace::object`], of a directory.
    ///
    /// # Errors
    /// As there, and [`Error::NotDirectory`].
    pub(crate) fn directory(&self, node: NodeId) -> Result<(Arc<Subvol>, Inode)> {
        let (subvol, inode) = self.object(node)?;
        if inode.is_dir() { Ok((subvol, inode)) } else { Err(Error::NotDirectory) }
    }

    /// What `stat` reports.
    pub(crate) fn getattr(&self, node: NodeId) -> Result<Attr> {
        let (_, inode) = self.object(node)?;
        self.attr(node, &inode)
    }

    /// An inode in the terms of `stat`.
    ///
    /// # Errors
    /// If its mode is of no known type.
    pub(crate) fn attr(&self, node: NodeId, inode: &Inode) -> Result<Attr> {
        let kind = FileType::from_dtype(inode.file_type().0).ok_or_else(|| {
            Error::Io(format!("inode {node} has mode {}, which is no type of file", inode.mode))
        })?;
        // Directories of some versions keep a number there that is no size (spec 80 §5.7).
        let size = match kind {
            FileType::Regular | FileType::Symlink => inode.size,
            _ => 0,
        };
        let rdev = match kind {
            FileType::CharDevice | FileType::BlockDevice => (inode.rdev.major(), inode.rdev.minor()),
            _ => (0, 0),
        };
        let time = |stored| Timestamp::from_unix_ns(self.time_base.to_unix_ns(stored));
        Ok(Attr {
            node,
            kind,
            perm: inode.mode.permissions(),
            uid: inode.uid,
            gid: inode.gid,
            size,
            sectors: inode.sectors.0,
            nlink: inode.nlink(),
            rdev,
            atime: time(inode.atime),
            mtime: time(inode.mtime),
            ctime: time(inode.ctime),
            btime: time(inode.otime),
            generation: inode.generation,
            flags: inode.flags.0 & InodeFlags::USER.0,
            project: inode.opts.get(InodeOpt::Project).unwrap_or(0),
        })
    }
}

/// The inode in a key of the inodes b-tree; `None` if the key is what a deleted inode leaves behind.
pub(crate) fn decode_inode(key: Key<'_>) -> Result<Option<Inode>> {
    match key.k.ty {
        KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3 => Inode::decode(key.k.ty, key.value)
            .map(Some)
            .map_err(|e| Error::Io(format!("inode {} cannot be decoded: {e}", key.k.pos.offset))),
        _ => Ok(None),
    }
}
