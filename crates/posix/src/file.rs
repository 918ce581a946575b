//! The content of files (spec 40 §7, §16.2).
//!
//! A file is the extents its snapshot sees, in order; where there is none, and where space is only reserved, it is zeros.
//! Getting the bytes of extents is the business of `frazil_volume::data`; here it is decided which file, how far, and what a
//! reader is told when some bytes cannot be had: everything before them is delivered, a read that begins at them fails,
//! and each extent that fails is logged once, with the name of the file.
//!
//! What is at a place in the file is usually stored under that place. For a file that a crash caught in the middle of being shifted
//! it may be elsewhere ([`crate::unfinished`]), so every way in here goes through `stretches`.

use std::collections::HashSet;
use std::ops::Range;

use frazil_btree::View;
use frazil_ondisk::units::{Inum, SECTOR_BYTES};
use frazil_ondisk::values::inode::FileType;
use frazil_ondisk::{Key, KeyType};
use frazil_volume::data::{self, Reader};
use parking_lot::Mutex;

use crate::attr::{NodeId, Whence};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::unfinished::Stretch;

/// Longest target of a symbolic link; the kernel allows one page.
const LINK_BYTES_MAX: u64 = 4096;
/// How often a read begins again because data was moved meanwhile; a pointer that stays wrong is damage.
const MOVED_MAX: u32 = 100;
/// Unreadable extents remembered as logged; when there are more the memory starts over.
const LOGGED_MAX: usize = 4096;

/// Which unreadable extents have been logged: (file, end of the extent in bytes).
#[derive(Default)]
pub(crate) struct LoggedLosses(Mutex<HashSet<(NodeId, u64)>>);

impl LoggedLosses {
    /// Whether it is the first time.
    fn is_new(&self, node: NodeId, extent_end: u64) -> bool {
        let mut logged = self.0.lock();
        if logged.len() >= LOGGED_MAX {
            logged.clear();
        }
        logged.insert((node, extent_end))
    }
}

/// How files are read: the metadata, and what fetches bytes.
pub(crate) struct Files<'f> {
    pub(crate) names: &'f Namespace,
    pub(crate) reader: &'f Reader,
    pub(crate) logged: &'f LoggedLosses,
}

impl Files<'_> {
    /// Reads from a regular file; see [`crate::Fs::read`].
    pub(crate) fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (subvol, inode) = self.names.object(node)?;
        match inode.file_type() {
            FileType::REG => {}
            FileType::DIR => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid("only regular files can be read")),
        }
        let len = inode.size.saturating_sub(offset).min(buf.len() as u64);
        self.read_range(node, &subvol.view, offset..offset + len, &mut buf[..len as usize])
    }

    /// Reads bytes that lie within the file's size; fewer if only those before the first unreadable one.
    fn read_range(&self, node: NodeId, view: &View, bytes: Range<u64>, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        for Stretch { bytes, from } in self.names.unfinished.stretches(node, bytes) {
            // The stretches together are as long as the buffer.
            let len = (bytes.end - bytes.start) as usize;
            let part = &mut buf[done..done + len];
            let read = match from {
                Some(from) => self.read_stored(node, view, from, part),
                None => {
                    part.fill(0);
                    Ok(len)
                }
            };
            match read {
                Ok(read) if read == len => done += len,
                Ok(read) => return Ok(done + read),
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Reads bytes by the place they are stored under.
    fn read_stored(&self, node: NodeId, view: &View, from: u64, buf: &mut [u8]) -> Result<usize> {
        let mut tries = 0;
        let error = loop {
            let mut plan = self.reader.plan(node.inum, from..from.saturating_add(buf.len() as u64));
            plan.add_visible(view);
            match plan.read(buf) {
                Ok(()) => return Ok(buf.len()),
                Err(error) if error.is_moved() && tries < MOVED_MAX => tries += 1,
                Err(error) => break error,
            }
        };
        self.log(node, view, &error);
        match error.offset_bytes.saturating_sub(from) {
            0 => Err(Error::Io(error.to_string())),
            // It lies within the buffer.
            good => Ok(good as usize),
        }
    }

    /// One line for every extent that cannot be read.
    fn log(&self, node: NodeId, view: &View, error: &data::Error) {
        let at = error.offset_bytes / SECTOR_BYTES;
        let mut extents = self.names.btrees.visible_extents(view, node.inum, at..at + 1);
        let extent_end = match extents.next() {
            Ok(Some(key)) => key.k.pos.offset.saturating_mul(SECTOR_BYTES),
            _ => error.offset_bytes,
        };
        if self.logged.is_new(node, extent_end) {
            tracing::error!("{}: {error}", self.names.path_of(node).escape_ascii());
        }
    }

    /// The target of a symbolic link. Some writers end it with a NUL that they count (spec 40 §6.3).
    pub(crate) fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let (subvol, inode) = self.names.object(node)?;
        if inode.file_type() != FileType::LNK {
            return Err(Error::Invalid("not a symbolic link"));
        }
        if inode.size > LINK_BYTES_MAX {
            return Err(Error::Io(format!("inode {node}: a symbolic link of {} bytes", inode.size)));
        }
        let mut target = vec![0; inode.size as usize];
        let read = self.read_range(node, &subvol.view, 0..inode.size, &mut target)?;
        if read < target.len() {
            return Err(Error::Io(format!("inode {node}: a part of the link's target cannot be read")));
        }
        if let Some(end) = target.iter().position(|&byte| byte == 0) {
            target.truncate(end);
        }
        Ok(target)
    }

    /// `lseek` to data or to a hole, at or behind `offset`.
    pub(crate) fn seek(&self, node: NodeId, offset: u64, whence: Whence) -> Result<u64> {
        let (subvol, inode) = self.names.object(node)?;
        if offset >= inode.size {
            return Err(Error::PastEnd);
        }
        let data = self.first_data(node, &subvol.view, offset..inode.size)?;
        match (whence, data) {
            (Whence::Data, Some(data)) => Ok(data.start),
            (Whence::Data, None) => Err(Error::PastEnd),
            (Whence::Hole, Some(data)) if data.start == offset => Ok(data.end),
            (Whence::Hole, _) => Ok(offset),
        }
    }

    /// The first stretch of data of a file at or behind `offset`: `None` if the rest is a hole.
    pub(crate) fn next_data(&self, node: NodeId, offset: u64) -> Result<Option<Range<u64>>> {
        let (subvol, inode) = self.names.object(node)?;
        self.first_data(node, &subvol.view, offset..inode.size)
    }

    /// The first stretch of data within a range of bytes, as long as it goes on without a hole.
    fn first_data(&self, node: NodeId, view: &View, within: Range<u64>) -> Result<Option<Range<u64>>> {
        let mut found: Option<Range<u64>> = None;
        for Stretch { bytes, from } in self.names.unfinished.stretches(node, within) {
            let Some(from) = from else { continue };
            let stored = from..from.saturating_add(bytes.end - bytes.start);
            let next = self.first_stored_data(node.inum, view, stored)?;
            let Some(next) =
                next.map(|data| bytes.start + (data.start - from)..bytes.start + (data.end - from))
            else {
                continue;
            };
            match &mut found {
                None => found = Some(next.clone()),
                Some(data) if data.end == next.start => data.end = next.end,
                Some(_) => break,
            }
            if next.end < bytes.end {
                break;
            }
        }
        Ok(found)
    }

    /// As [`Files::first_data`], by places things are stored under.
    fn first_stored_data(&self, inum: Inum, view: &View, within: Range<u64>) -> Result<Option<Range<u64>>> {
        let sectors = within.start / SECTOR_BYTES..within.end.div_ceil(SECTOR_BYTES);
        let mut extents = self.names.btrees.visible_extents(view, inum, sectors);
        let mut found: Option<Range<u64>> = None;
        while let Some(key) = extents.next()? {
            if !is_data(key) {
                continue;
            }
            let start = key.k.start_offset().unwrap_or(0).saturating_mul(SECTOR_BYTES).max(within.start);
            let end = key.k.pos.offset.saturating_mul(SECTOR_BYTES).min(within.end);
            match &mut found {
                _ if start >= end => {}
                None => found = Some(start..end),
                Some(data) if start <= data.end => data.end = data.end.max(end),
                Some(_) => break,
            }
        }
        Ok(found)
    }
}

/// Whether an extent is data to `lseek`: the reference counts space that was allocated but never written, and does
/// not count space that is only reserved (spec 40 §16.3).
fn is_data(key: Key<'_>) -> bool {
    matches!(key.k.ty, KeyType::EXTENT | KeyType::REFLINK_P | KeyType::INLINE_DATA | KeyType::ERROR)
}
