//! The plain data that operations take and return.

use std::fmt;

use frazil_ondisk::units::{Inum, SubvolId};

/// An inode as one subvolume sees it. The same inode number in another subvolume is another file, unless both see
/// the same version of it (spec 40 §1.1). When the object is removed its number is given out again, unless somebody holds it
/// ([`crate::write::WriteFs::hold`]); the generation in [`Attr`] tells the two apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct NodeId {
    /// The subvolume through which the inode is seen.
    pub subvol: SubvolId,
    /// The inode number.
    pub inum: Inum,
}

impl NodeId {
    /// The root directory of the volume.
    pub const ROOT: NodeId = NodeId { subvol: SubvolId::ROOT, inum: Inum::ROOT };
}

impl fmt::Display for NodeId {
    /// `4711`, or `4711 in subvolume 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subvol {
            SubvolId::ROOT => write!(f, "{}", self.inum),
            subvol => write!(f, "{} in subvolume {subvol}", self.inum),
        }
    }
}

/// The type bits of a mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileType {
    /// Regular file.
    Regular,
    /// Directory, subvolume roots included.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileType {
    /// The type for bits 12–15 of a `st_mode`, which a dirent's `d_type` equals; `None` for values no file has.
    pub const fn from_dtype(dtype: u8) -> Option<FileType> {
        Some(match dtype {
            1 => FileType::Fifo,
            2 => FileType::CharDevice,
            4 => FileType::Directory,
            6 => FileType::BlockDevice,
            8 => FileType::Regular,
            10 => FileType::Symlink,
            12 => FileType::Socket,
            _ => return None,
        })
    }

    /// Bits 12–15 of a `st_mode`.
    pub const fn to_dtype(self) -> u8 {
        match self {
            FileType::Fifo => 1,
            FileType::CharDevice => 2,
            FileType::Directory => 4,
            FileType::BlockDevice => 6,
            FileType::Regular => 8,
            FileType::Symlink => 10,
            FileType::Socket => 12,
        }
    }
}

/// A point in time, relative to 1970-01-01 UTC; `nanos` counts forward from `secs`, also before 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds, below 10⁹.
    pub nanos: u32,
}

impl Timestamp {
    /// From nanoseconds since 1970. Times of a volume lie within ±2⁶³ units of its creation, so they fit.
    pub fn from_unix_ns(ns: i128) -> Timestamp {
        const NANOS: i128 = 1_000_000_000;
        let secs = ns.div_euclid(NANOS).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        Timestamp { secs: secs as i64, nanos: ns.rem_euclid(NANOS) as u32 }
    }

    /// Nanoseconds since 1970.
    pub fn unix_ns(self) -> i128 {
        i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// What `stat` reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attr {
    /// The object.
    pub node: NodeId,
    /// Its type.
    pub kind: FileType,
    /// Permission bits, `07777`.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; 0 for directories and special files.
    pub size: u64,
    /// Allocated 512-byte sectors (spec 40 §2.5).
    pub sectors: u64,
    /// Link count (spec 40 §2.3); 0 when unlinked.
    pub nlink: u32,
    /// (major, minor) of a device node, else (0, 0).
    pub rdev: (u32, u32),
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Generation of the inode number.
    pub generation: u32,
    /// `FS_*_FL` style flags that are stored: bit 0 sync, 1 immutable, 2 append, 3 nodump, 4 noatime (spec 40 §2.1).
    pub flags: u32,
    /// Project id, 0 when none is set.
    pub project: u32,
}

/// One name in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirEntry<'a> {
    /// The object it names; for a subvolume entry the root of that subvolume.
    pub node: NodeId,
    /// Type of the object.
    pub kind: FileType,
    /// The name, any bytes but NUL and `/`.
    pub name: &'a [u8],
    /// Where a later `readdir` continues after this entry (spec 40 §5.4).
    pub next: u64,
}

/// Which of the two `lseek` extensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whence {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// What `statfs` reports (spec 40 §16.4). Blocks are filesystem blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FsStat {
    /// Bytes in a block.
    pub block_bytes: u32,
    /// Blocks in the volume that user data and metadata can use.
    pub blocks: u64,
    /// Blocks not in use.
    pub blocks_free: u64,
    /// Blocks an unprivileged user may still fill.
    pub blocks_available: u64,
    /// Inodes in use and still possible.
    pub files: u64,
    /// Inodes still possible.
    pub files_free: u64,
    /// Longest name in bytes.
    pub name_bytes_max: u32,
    /// Filesystem id.
    pub fsid: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_positive_nanoseconds() {
        let t = Timestamp::from_unix_ns(-1);
        assert_eq!(t, Timestamp { secs: -1, nanos: 999_999_999 });
        assert_eq!(t.unix_ns(), -1);
    }

    #[test]
    fn file_types_round_trip() {
        for dtype in 0..=255 {
            if let Some(kind) = FileType::from_dtype(dtype) {
                assert_eq!(kind.to_dtype(), dtype);
            }
        }
        assert_eq!(FileType::from_dtype(16), None);
    }
}
