//! The operations.
//!
//! [`Fs`] is what adapters hold: every operation a POSIX program can ask for, on objects named by [`NodeId`]. It puts together
//! the metadata ([`Namespace`]) and the data of a volume; what an operation does is told in the file of its story.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use frazil_btree::LiveSnapshots;
use frazil_ondisk::superblock::Superblock;
use frazil_volume::{Usage, Volume};

use crate::attr::{Attr, DirEntry, FsStat, NodeId, Whence};
use crate::error::Result;
use crate::file::{Files, LoggedLosses};
use crate::hashed::OnDamage;
use crate::namespace::Namespace;
use crate::subvol::{SubvolCache, SubvolInfo};
use crate::unfinished::Unfinished;
use crate::walk::{Visit, WalkStep};

/// Longest name, in bytes (spec 40 §16.4).
const NAME_BYTES_MAX: u32 = 512;
/// Inodes that are said to fit each free sector (spec 40 §16.4).
const FILES_PER_SECTOR: u64 = 8;

/// A volume as POSIX programs see it. Shared by all threads.
///
/// Every operation fails with [`crate::Error::Stale`] for an object that does not exist, and with [`crate::Error::Io`] where
/// the volume is damaged or a device fails; further reasons are named at each.
pub struct Fs {
    volume: Arc<Volume>,
    names: Namespace,
    logged: LoggedLosses,
}

impl Fs {
    /// The files of a volume.
    pub fn new(volume: Arc<Volume>) -> Fs {
        let superblock = volume.superblock();
        let unfinished = Unfinished::load(volume.btrees()).unwrap_or_else(|e| {
            tracing::error!("interrupted operations cannot be told: {e}");
            Unfinished::default()
        });
        let names = Namespace {
            unfinished,
            btrees: Arc::clone(volume.btrees()),
            snapshots: LiveSnapshots::new(Arc::clone(volume.snapshots())),
            subvols: SubvolCache::default(),
            is_written: false,
            time_base: superblock.time_base(),
            casefold: superblock.flags.casefold(),
        };
        Fs { names, logged: LoggedLosses::default(), volume }
    }

    /// The volume.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The root directory.
    pub fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    /// The object that a name in a directory leads to; also `.` and `..`.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NameTooLong`; `Invalid` for a name that is not UTF-8 in a directory that ignores case.
    /// An entry whose inode does not exist is `Io`.
    pub fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr> {
        self.names.lookup(dir, name)
    }

    /// What `stat` reports.
    ///
    /// # Errors
    /// The general ones.
    pub fn getattr(&self, node: NodeId) -> Result<Attr> {
        self.names.getattr(node)
    }

    /// The directory that holds a directory; for a file, the one it remembers. The root holds itself.
    ///
    /// # Errors
    /// `NotFound` if the object remembers no directory.
    pub fn parent(&self, node: NodeId) -> Result<NodeId> {
        self.names.parent(node)
    }

    /// A path from the root, for people: of several names one, and `<inode 4711>` where the way up is lost.
    pub fn path_of(&self, node: NodeId) -> Vec<u8> {
        self.names.path_of(node)
    }

    /// Shows the entries of a directory from position `from` on: 0 for all, or the `next` of an entry seen before. "." and ".."
    /// are not among them; the positions are above 2, ascend, and fit 63 bits.
    ///
    /// # Errors
    /// `NotDirectory`. After a failure in the middle the entries before it have been shown; a call that goes on behind them
    /// fails again. ([`Fs::walk`] passes over what is lost.)
    pub fn readdir(
        &self,
        dir: NodeId,
        from: u64,
        show: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.names.readdir(dir, from, OnDamage::Stop, show)
    }

    /// As [`Fs::readdir`], with the attributes of each object; `None` (and a line in the log) where the inode cannot be had.
    ///
    /// # Errors
    /// As [`Fs::readdir`].
    pub fn readdir_plus(
        &self,
        dir: NodeId,
        from: u64,
        show: &mut dyn FnMut(DirEntry<'_>, Option<&Attr>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.names.readdir_plus(dir, from, show)
    }

    /// Reads from a regular file into `buf` and returns how many bytes. They are fewer than fit only at the end of the file, and
    /// in front of bytes that cannot be had.
    ///
    /// # Errors
    /// `IsDirectory`, `Invalid` for other objects; `Io` if the first byte cannot be had.
    pub fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.files().read(node, offset, buf)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        self.files().readlink(node)
    }

    /// Where data or a hole begins, at or behind `offset`; the end of the file is a hole.
    ///
    /// # Errors
    /// `PastEnd` if `offset` is not in the file, or no data follows.
    pub fn seek(&self, node: NodeId, offset: u64, whence: Whence) -> Result<u64> {
        self.files().seek(node, offset, whence)
    }

    /// The first stretch of data at or behind `offset`, in bytes and cut to the file's size; `None` if the rest is a hole.
    ///
    /// # Errors
    /// The general ones.
    pub fn next_data(&self, node: NodeId, offset: u64) -> Result<Option<Range<u64>>> {
        self.files().next_data(node, offset)
    }

    /// The value of an extended attribute. Access control lists are in the kernel's form; options of the inode are text.
    ///
    /// # Errors
    /// `NoAttribute`.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        self.names.getxattr(self.volume.superblock(), node, name)
    }

    /// The names of all extended attributes, those that stand for options last.
    ///
    /// # Errors
    /// The general ones.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.names.listxattr(node)
    }

    /// All subvolumes in use, in the order of their ids.
    ///
    /// # Errors
    /// The general ones.
    pub fn subvolumes(&self) -> Result<Vec<SubvolInfo>> {
        self.names.subvolumes()
    }

    /// Visits `top` and everything below it, every directory before what it holds, sorted by name. Paths are relative to `top`,
    /// which itself has the empty path. The visitor says how to go on; for anything but a directory only `Stop` matters.
    /// What cannot be read is visited as an error, and the walk goes on.
    pub fn walk(&self, top: NodeId, visit: &mut dyn FnMut(&[u8], Visit<'_>) -> WalkStep) {
        self.names.walk(top, visit);
    }

    /// What `statfs` reports (spec 40 §16.4).
    ///
    /// # Errors
    /// If the accounting b-tree cannot be read.
    pub fn statfs(&self) -> Result<FsStat> {
        Ok(stat_of(self.volume.superblock(), &self.volume.usage()?))
    }

    fn files(&self) -> Files<'_> {
        Files { names: &self.names, reader: self.volume.data(), logged: &self.logged }
    }
}

/// What `statfs` reports (spec 40 §16.4) about a volume that uses its space like that.
pub(crate) fn stat_of(superblock: &Superblock, usage: &Usage) -> FsStat {
    let block_sectors = u64::from(superblock.block_sectors).max(1);
    let files_free = usage.free.0.saturating_mul(FILES_PER_SECTOR);
    let (high, low) = superblock.user_uuid.as_u64_pair();
    FsStat {
        // At most 64 KiB.
        block_bytes: superblock.block_bytes() as u32,
        blocks: usage.total.0 / block_sectors,
        blocks_free: usage.free.0 / block_sectors,
        blocks_available: usage.available.0 / block_sectors,
        files: usage.inodes.saturating_add(files_free),
        files_free,
        name_bytes_max: NAME_BYTES_MAX,
        fsid: high ^ low,
    }
}

/// Adapters share it between threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Fs>();
};
