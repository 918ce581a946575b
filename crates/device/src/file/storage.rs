//! What is behind a path, and what can be done with it as a whole or in part besides reading and writing.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::{Access, OpenOptions};
use crate::{Error, Result, SECTOR_BYTES};

/// Makes the file if the options ask for it and nothing is there. Says whether it did.
pub(super) fn create_if_absent(path: &Path, options: OpenOptions) -> io::Result<bool> {
    if options.create_bytes.is_none() || options.access != Access::ReadWrite {
        return Ok(false);
    }
    let mut create = File::options();
    create.write(true).create_new(true).custom_flags(libc::O_NOCTTY);
    match create.open(path) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(err),
    }
}

/// Fails unless this is something with blocks. Asked before opening too, because opening a FIFO would wait for a writer.
pub(super) fn check_kind(name: &Arc<str>, meta: &std::fs::Metadata) -> Result<()> {
    let kind = meta.file_type();
    let found = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a socket"
    };
    Err(Error::NotADevice { device: name.clone(), found })
}

/// Logical and physical block size in bytes. A regular file has no blocks of its own: sectors, and the unit its file
/// system prefers.
pub(super) fn block_sizes(file: &File, is_block: bool) -> io::Result<(u32, u32)> {
    if is_block {
        let logical = rustix::fs::ioctl_blksszget(file)?;
        return Ok((logical, rustix::fs::ioctl_blkpbszget(file)?.max(logical)));
    }
    let preferred = file.metadata()?.blksize().clamp(SECTOR_BYTES, 4096);
    Ok((SECTOR_BYTES as u32, preferred as u32))
}

/// Present size in bytes. Seeking to the end works for block devices too, whose metadata say 0; the file position is
/// used for nothing else.
pub(super) fn current_size(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?)
}

pub(super) fn punch_hole(file: &File, offset_bytes: u64, len_bytes: u64) -> io::Result<()> {
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, how, offset_bytes, len_bytes)?)
}

pub(super) fn is_unsupported(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY))
}
