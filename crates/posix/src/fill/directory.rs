//! A directory of the running system.
//!
//! It is walked from the top, each directory sorted by name: first all that it holds is told, then its subdirectories are
//! entered one by one. So the same tree gives the same volume, and what is in one directory lies together.
//!
//! Everything is reached through its directory, which stays open while it is needed. Of a deep tree only the lowest directories are
//! open; the way back up leads through "..", and it is checked that it ends where it began.
//!
//! Names of one file are told by its device and inode number. What is mounted inside the tree is part of it.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, OFlags, RawDir, Statx};
use rustix::io::Errno;

use super::error::FillError;
use super::host;
use super::sink::{Deliver, Delivered, Halt, JOB_BYTES, Refused, Sink, WholeFile};
use super::tree::Object;
use super::work::next_data;
use crate::attr::FileType;
use crate::make;

/// Directories that are open at a time.
const OPEN_MAX: usize = 64;
/// Memory for entries of a directory that are read at once.
const ENTRIES_BYTES: usize = 64 << 10;

/// A file of the running system: device and inode number.
pub(super) type HostId = (u64, u64);

/// A directory of the running system.
pub(super) struct Directory {
    top: PathBuf,
    /// Files that are not part of it: the volume itself.
    pub(super) without: Vec<HostId>,
    /// Files that have several names.
    links: HashMap<HostId, Object>,
}

/// A directory on the way from the top to where the walk is.
struct Level {
    /// It, unless it is far up.
    dir: Option<Arc<OwnedFd>>,
    id: HostId,
    /// Length of its path.
    path_len: usize,
    object: Object,
    /// Subdirectories to be entered, the next one last.
    pending: Vec<(CString, Object)>,
}

fn id(status: &Statx) -> HostId {
    (u64::from(status.stx_dev_major) << 32 | u64::from(status.stx_dev_minor), status.stx_ino)
}

impl Directory {
    /// The tree below `top`, without the files in `without`.
    pub(super) fn new(top: &Path, without: Vec<HostId>) -> Directory {
        Directory { top: top.to_owned(), without, links: HashMap::new() }
    }
}

/// What stands for a failure at a path below the top.
struct At<'a> {
    top: &'a Path,
    /// Of the directory.
    path: &'a [u8],
    name: &'a [u8],
}

impl At<'_> {
    fn failed(&self, why: impl Into<std::io::Error>) -> Halt {
        Halt::Error(FillError::Unreadable { path: self.shown(), why: why.into() })
    }

    fn refused(&self, why: impl Into<Refused>) -> Halt {
        why.into().at(self.shown())
    }

    fn shown(&self) -> Vec<u8> {
        let parts = [self.top.as_os_str().as_bytes(), self.path, self.name];
        let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(&b'/')
    }
}

impl Deliver for Directory {
    fn shown(&self, path: &[u8]) -> Vec<u8> {
        At { top: &self.top, path, name: b"" }.shown()
    }

    fn deliver(&mut self, sink: &mut dyn Sink) -> Delivered<()> {
        let top = self.top.clone();
        let at = At { top: &top, path: b"", name: b"" };
        // The top itself may be a link.
        let path = CString::new(top.as_os_str().as_bytes()).map_err(|_| at.failed(Errno::INVAL))?;
        let dir = host::open_through_links(CWD, &path, OFlags::DIRECTORY).map_err(|e| at.failed(e))?;
        let status = host::status_of(&dir).map_err(|e| at.failed(e))?;
        sink.replace(Object::ROOT, &host::new_inode(&status)).map_err(|e| at.refused(e))?;
        let mut path = Vec::new();
        let mut levels = vec![self.enter(sink, dir, Object::ROOT, &path)?];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_len);
            let Some((name, object)) = level.pending.pop() else {
                let left = levels.pop().and_then(|level| level.dir);
                if let (Some(left), Some(above)) = (left, levels.last_mut()) {
                    self.return_to(above, &left, &path)?;
                }
                continue;
            };
            let above = level.dir.clone().expect("the lowest directories are open");
            let at = At { top: &top, path: &path, name: name.to_bytes() };
            let dir = host::open(&*above, &name, OFlags::DIRECTORY).map_err(|e| at.failed(e))?;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            levels.push(self.enter(sink, dir, object, &path)?);
            if let Some(far) = levels.len().checked_sub(OPEN_MAX + 1) {
                levels[far].dir = None;
            }
        }
        Ok(())
    }
}

impl Directory {
    /// Opens a directory again that is above the one that was left.
    fn return_to(&self, above: &mut Level, left: &OwnedFd, path: &[u8]) -> Delivered<()> {
        if above.dir.is_some() {
            return Ok(());
        }
        let at = At { top: &self.top, path: &path[..above.path_len], name: b"" };
        let dir = host::open(left, c"..", OFlags::DIRECTORY).map_err(|e| at.failed(e))?;
        if id(&host::status_of(&dir).map_err(|e| at.failed(e))?) != above.id {
            return Err(FillError::Changed { path: at.shown() }.into());
        }
        above.dir = Some(Arc::new(dir));
        Ok(())
    }

    /// Tells what a directory holds.
    fn enter(&mut self, sink: &mut dyn Sink, dir: OwnedFd, object: Object, path: &[u8]) -> Delivered<Level> {
        let top = self.top.clone();
        let at = At { top: &top, path, name: b"" };
        let status = host::status_of(&dir).map_err(|e| at.failed(e))?;
        let xattrs = host::xattrs(&dir).map_err(|e| at.failed(e))?;
        sink.xattrs(object, xattrs).map_err(|e| at.refused(e))?;
        let names = names(&dir).map_err(|e| at.failed(e))?;
        let dir = Arc::new(dir);
        let mut level = Level {
            dir: Some(Arc::clone(&dir)),
            id: id(&status),
            path_len: path.len(),
            object,
            pending: Vec::new(),
        };
        for name in names {
            let at = At { top: &top, path, name: name.to_bytes() };
            let status = host::status(&*dir, &name).map_err(|e| at.failed(e))?;
            self.entry(sink, &mut level, &dir, &name, &status, &at)?;
        }
        level.pending.reverse();
        Ok(level)
    }

    /// Tells one entry.
    fn entry(
        &mut self,
        sink: &mut dyn Sink,
        level: &mut Level,
        dir: &Arc<OwnedFd>,
        name: &CStr,
        status: &Statx,
        at: &At<'_>,
    ) -> Delivered<()> {
        if self.without.contains(&id(status)) {
            return Ok(());
        }
        make::check_name(name.to_bytes()).map_err(|e| at.refused(e))?;
        let new = host::new_inode(status);
        let has_more_names = status.stx_nlink > 1 && new.kind != FileType::Directory;
        if let Some(&object) = self.links.get(&id(status)).filter(|_| has_more_names) {
            return sink.link(level.object, name.to_bytes(), object).map_err(|e| at.refused(e));
        }
        let target = match new.kind {
            FileType::Symlink => {
                rustix::fs::readlinkat(&**dir, name, Vec::new()).map_err(|e| at.failed(e))?
            }
            _ => CString::default(),
        };
        let made = sink.create(level.object, name.to_bytes(), &new, target.to_bytes());
        let object = made.map_err(|e| at.refused(e))?;
        if has_more_names {
            self.links.insert(id(status), object);
        }
        match new.kind {
            FileType::Directory => level.pending.push((name.to_owned(), object)),
            FileType::Regular => file(sink, object, dir, name, status, at)?,
            _ => {
                let xattrs = host::xattrs_at(&**dir, name).map_err(|e| at.failed(e))?;
                sink.xattrs(object, xattrs).map_err(|e| at.refused(e))?;
            }
        }
        Ok(())
    }
}

/// Tells a regular file.
fn file(
    sink: &mut dyn Sink,
    object: Object,
    dir: &Arc<OwnedFd>,
    name: &CStr,
    status: &Statx,
    at: &At<'_>,
) -> Delivered<()> {
    let size = status.stx_size;
    let is_sparse = status.stx_blocks.saturating_mul(512) < size;
    if size <= JOB_BYTES {
        let file = WholeFile { dir, name, size, is_sparse };
        return sink.whole(object, file).map_err(|e| at.refused(e));
    }
    let file = Arc::new(File::from(host::open(&**dir, name, OFlags::empty()).map_err(|e| at.failed(e))?));
    let xattrs = host::xattrs(&file).map_err(|e| at.failed(e))?;
    sink.xattrs(object, xattrs).map_err(|e| at.refused(e))?;
    sink.set_size(object, size).map_err(|e| at.refused(e))?;
    let (mut from, block) = (0, sink.block_bytes());
    while let Some(data) = next_data(&file, from, size, is_sparse, block).map_err(|e| at.failed(e))? {
        from = data.end;
        sink.stretch(object, &file, data).map_err(|e| at.refused(e))?;
    }
    Ok(())
}

/// The names in a directory, sorted.
fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut buffer = Vec::with_capacity(ENTRIES_BYTES);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names: Vec<CString> = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
