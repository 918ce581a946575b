//! What a POSIX program sees of a volume.
//!
//! The volume below knows keys and extents; this crate knows inodes, names, file contents, extended attributes and
//! subvolumes (spec 40). Every object is named by a [`NodeId`]: an inode number *as one subvolume sees it*. Nothing here
//! knows FUSE, errno or the terminal: the adapters above translate [`Error`] and [`Attr`].

mod attr;
mod error;

pub use attr::{Attr, DirEntry, FileType, FsStat, NodeId, Timestamp, Whence};
pub use error::{Error, Result};
