//! What the adapter asks of the filesystem that it serves.
//!
//! In production this is [`Fs`] or, to be changed as well, [`WriteFs`]. It is a trait so that the adapter can be tested against a filesystem that a
//! real image cannot be: one whose reads hang until the test lets go, whose directories have a hundred thousand names
//! made on the fly, whose inode numbers collide on purpose. Everything is in the terms of `frazil-posix`; the calls come
//! from several threads at once.

use std::ops::ControlFlow;

use frazil_posix::write::WriteFs;
use frazil_posix::{Attr, DirEntry, Fs, FsStat, NodeId, Result, SubvolInfo, Whence};
use frazil_volume::Volume;

/// Takes one entry of a directory and says whether to go on.
pub type TakeEntry<'a> = dyn FnMut(DirEntry<'_>) -> ControlFlow<()> + 'a;

/// Takes one entry of a directory with the attributes of what it names, `None` if those cannot be read.
pub type TakeEntryPlus<'a> = dyn FnMut(DirEntry<'_>, Option<&Attr>) -> ControlFlow<()> + 'a;

/// A filesystem that can be mounted. Dropping it closes its devices.
pub trait Filesystem: Send + Sync + 'static {
    /// The object that `name` names in this directory.
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr>;

    /// What `stat` reports.
    fn getattr(&self, node: NodeId) -> Result<Attr>;

    /// The directory that holds this directory; of the root the root itself.
    fn parent(&self, dir: NodeId) -> Result<NodeId>;

    /// The entries of a directory after the one whose `next` is `from` (2 and less: from the start), without "." and "..".
    fn readdir(&self, dir: NodeId, from: u64, take: &mut TakeEntry<'_>) -> Result<()>;

    /// As `readdir`, with the attributes of each entry.
    fn readdir_plus(&self, dir: NodeId, from: u64, take: &mut TakeEntryPlus<'_>) -> Result<()>;

    /// Reads file content from `offset` bytes and returns how many bytes it delivered: fewer than asked only at the end of the
    /// file or before a range that cannot be read, an error if nothing but such a range is there.
    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// The target of a symbolic link.
    fn readlink(&self, node: NodeId) -> Result<Vec<u8>>;

    /// The value of an extended attribute; ACLs in the encoding that programs see (version 2).
    fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>>;

    /// The full names of the extended attributes.
    fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>>;

    /// The next data or hole at or after `offset`.
    fn seek(&self, node: NodeId, offset: u64, whence: Whence) -> Result<u64>;

    /// Space and inodes, used and free.
    fn statfs(&self) -> Result<FsStat>;

    /// By what it is changed; `None` if it cannot be.
    fn writer(&self) -> Option<&WriteFs> {
        None
    }

    /// The volume that is only read; `None` if it is changed, or if there is none.
    fn volume(&self) -> Option<&Volume> {
        None
    }

    /// The subvolumes.
    fn subvolumes(&self) -> Result<Vec<SubvolInfo>> {
        Ok(Vec::new())
    }
}

impl Filesystem for Fs {
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr> {
        self.lookup(dir, name)
    }

    fn getattr(&self, node: NodeId) -> Result<Attr> {
        self.getattr(node)
    }

    fn parent(&self, dir: NodeId) -> Result<NodeId> {
        self.parent(dir)
    }

    fn readdir(&self, dir: NodeId, from: u64, take: &mut TakeEntry<'_>) -> Result<()> {
        self.readdir(dir, from, take)
    }

    fn readdir_plus(&self, dir: NodeId, from: u64, take: &mut TakeEntryPlus<'_>) -> Result<()> {
        self.readdir_plus(dir, from, take)
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.read(node, offset, buf)
    }

    fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        self.readlink(node)
    }

    fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        self.getxattr(node, name)
    }

    fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.listxattr(node)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: Whence) -> Result<u64> {
        self.seek(node, offset, whence)
    }

    fn statfs(&self) -> Result<FsStat> {
        self.statfs()
    }

    fn volume(&self) -> Option<&Volume> {
        Some(self.volume())
    }

    fn subvolumes(&self) -> Result<Vec<SubvolInfo>> {
        self.subvolumes()
    }
}

impl Filesystem for WriteFs {
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr> {
        self.lookup(dir, name)
    }

    fn getattr(&self, node: NodeId) -> Result<Attr> {
        self.getattr(node)
    }

    fn parent(&self, dir: NodeId) -> Result<NodeId> {
        self.parent(dir)
    }

    fn readdir(&self, dir: NodeId, from: u64, take: &mut TakeEntry<'_>) -> Result<()> {
        self.readdir(dir, from, take)
    }

    fn readdir_plus(&self, dir: NodeId, from: u64, take: &mut TakeEntryPlus<'_>) -> Result<()> {
        self.readdir_plus(dir, from, take)
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.read(node, offset, buf)
    }

    fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        self.readlink(node)
    }

    fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        self.getxattr(node, name)
    }

    fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.listxattr(node)
    }

    fn seek(&self, node: NodeId, offset: u64, whence: Whence) -> Result<u64> {
        self.seek(node, offset, whence)
    }

    fn statfs(&self) -> Result<FsStat> {
        self.statfs()
    }

    fn writer(&self) -> Option<&WriteFs> {
        Some(self)
    }

    fn subvolumes(&self) -> Result<Vec<SubvolInfo>> {
        self.subvolumes()
    }
}
