//! Where the blocks of a volume live.
//!
//! Everything above this crate sees storage as one trait, [`Device`]: a number of bytes that can be read, written,
//! flushed and discarded, and that names itself in every error. What stands behind it is one of
//!
//! * [`FileDevice`]: a regular file or block device, locked against other users of the same storage;
//! * [`MemDevice`]: sparse memory, with snapshots that cost nothing until written.
//!
//! Opening for reading never writes a byte; see [`FileDevice`]. Errors are one enum, [`Error`].

pub mod device;
mod error;
pub mod file;
mod memory;

pub use device::{Advice, Device, SECTOR_BYTES};
pub use error::{Errno, Error, Op, Result};
pub use file::{Access, FileDevice, Holder, OpenOptions, Process};
pub use memory::MemDevice;
