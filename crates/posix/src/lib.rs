//! What a POSIX program sees of a volume.
//!
//! The volume below knows keys and extents; this crate knows inodes, names, file contents, extended attributes and
//! subvolumes (spec 40). Every object is named by a [`NodeId`]: an inode number *as one subvolume sees it*. Nothing here
//! knows FUSE, errno or the terminal: the adapters above translate [`Error`] and [`Attr`].
//!
//! | to find | look in |
//! |---|---|
//! | the list of operations | `fs.rs` ([`Fs`]) |
//! | what `stat` reports, and how an inode is found | `namespace.rs` |
//! | looking up names, listing directories | `dir.rs` |
//! | how a name finds its key: hash chains | `hashed.rs` |
//! | folding names of directories that ignore case | `fold.rs` |
//! | reading files, holes | `file.rs` |
//! | extended attributes, access control lists, options of inodes | `xattr.rs` |
//! | making inodes, names and attributes | `make.rs` |
//! | filling a new volume from a directory or a tar archive | `fill/` |
//! | subvolumes | `subvol.rs` |
//! | "..", and paths for people | `path.rs` |
//! | operations that a crash interrupted | `unfinished.rs` |
//! | going through a whole tree | `walk.rs` |
//! | changing files | [`mod@write`] |

#![forbid(unsafe_code)]

mod attr;
mod dir;
mod error;
mod file;
pub mod fill;
mod fold;
mod fs;
mod hashed;
pub mod make;
mod namespace;
mod path;
mod subvol;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unfinished;
mod walk;
pub mod write;
mod xattr;

pub use attr::{Attr, DirEntry, FileType, FsStat, NodeId, Timestamp, Whence};
pub use error::{Error, Result};
pub use fs::Fs;
pub use subvol::SubvolInfo;
pub use walk::{Visit, WalkStep};
