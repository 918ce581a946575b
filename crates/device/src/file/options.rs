//! How a device is opened.

use std::path::Path;
use std::time::Duration;

use super::FileDevice;
use crate::Result;

/// What a device is opened for, and whom that shuts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading while nobody writes. Never changes a byte.
    ReadOnly,
    /// Reading and writing, alone.
    ReadWrite,
    /// Reading whatever is there now, beside any other user. Never changes a byte. What is read may change between one
    /// read and the next.
    Peek,
}

/// How to open a [`FileDevice`].
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    pub(super) access: Access,
    pub(super) lock_wait: Duration,
    pub(super) create_bytes: Option<u64>,
    pub(super) direct: bool,
}

impl OpenOptions {
    /// Options for this access, failing at once if the device is in use.
    pub fn new(access: Access) -> OpenOptions {
        OpenOptions { access, lock_wait: Duration::ZERO, create_bytes: None, direct: true }
    }

    /// How long to wait for another user to let go, for instance a process that is just being killed.
    pub fn lock_wait(self, lock_wait: Duration) -> OpenOptions {
        OpenOptions { lock_wait, ..self }
    }

    /// If nothing exists at the path, make a regular file of this size that holds no data yet (all zeros). Needs
    /// [`Access::ReadWrite`]. An existing file keeps its size.
    pub fn create_bytes(self, size_bytes: u64) -> OpenOptions {
        OpenOptions { create_bytes: Some(size_bytes), ..self }
    }

    /// Everything through the page cache, also where there is a way past it.
    pub fn cached(self) -> OpenOptions {
        OpenOptions { direct: false, ..self }
    }

    /// Opens the file or block device at `path`.
    pub fn open(self, path: &Path) -> Result<FileDevice> {
        FileDevice::open(path, self)
    }
}
