//! Copying a tree into a volume that is in use: what is behind `frazil import` where there are files already.
//!
//! Everything goes through the operations of [`WriteFs`], one after the other, so that a crash in the middle leaves a volume with a part of the tree
//! in it and nothing worse. What is there already stays: directories that meet become one, which gets the attributes of the
//! source; a file that meets anything is an error.
//!
//! Writing changes times, and making files changes those of directories. So owners, modes and times are set at the end, of
//! directories after all that they hold. When something was made, and when its inode last changed, cannot be set from outside, and are now.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use frazil_volume::lifecycle::FrontKind;
use rustix::fs::OFlags;

use super::error::FillError;
use super::host;
use super::sink::{Halt, Refused, Sink, Taken, WholeFile};
use super::tree::Object;
use super::work::{Xattrs, next_data};
use super::{Counts, Filled, Source};
use crate::attr::{FileType, NodeId};
use crate::error::Error;
use crate::make::{NewInode, Unfit};
use crate::write::{Caller, Front, NewNode, SetAttr, SetTime, SetXattr, WriteFs};

/// Data that is read and written at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Copies a tree to below the directory `top`, and makes it durable. `counts` tells how far it is.
///
/// # Errors
/// The first thing that cannot be read or stored. What was copied before stays.
pub fn import(fs: &WriteFs, top: NodeId, source: Source<'_>, counts: &Counts) -> Result<Filled, FillError> {
    let Source(mut source) = source;
    let block = fs.live().superblock().view().superblock.block_bytes();
    let top = Copied { node: top, is_dir: true, new: None };
    let mut sink = Live {
        fs,
        objects: vec![top],
        known: HashMap::new(),
        block,
        buffer: Vec::new(),
        names: 0,
        bytes: 0,
        left_out: None,
        counts,
    };
    match source.deliver(&mut sink) {
        Ok(()) => {}
        Err(Halt::Error(error)) => return Err(error),
        Err(Halt::Elsewhere) => unreachable!("there is no elsewhere: everything is done at once"),
    }
    let settled = sink.settle().and_then(|()| fs.sync());
    settled.map_err(|why| FillError::Refused { path: source.shown(b""), why })?;
    let objects = sink.objects.len() as u64;
    Ok(Filled { objects, names: sink.names, bytes: sink.bytes, left_out: sink.left_out })
}

/// An object of the source, where it was copied to, and what it is to be like in the end.
struct Copied {
    node: NodeId,
    is_dir: bool,
    new: Option<NewInode>,
}

/// The sink of a volume in use.
struct Live<'w> {
    fs: &'w WriteFs,
    objects: Vec<Copied>,
    /// Which object each node is.
    known: HashMap<NodeId, Object>,
    block: u64,
    buffer: Vec<u8>,
    names: u64,
    bytes: u64,
    left_out: Option<Vec<u8>>,
    counts: &'w Counts,
}

impl From<Error> for Refused {
    fn from(why: Error) -> Refused {
        Refused::Failed(why)
    }
}

impl Live<'_> {
    fn front(&self) -> Result<Front<'_>, Error> {
        self.fs.front(FrontKind::Import)
    }

    fn node(&self, object: Object) -> NodeId {
        self.objects[object.0 as usize].node
    }

    fn add(&mut self, node: NodeId, is_dir: bool, new: Option<NewInode>) -> Object {
        let number = u32::try_from(self.objects.len()).expect("memory ends before four thousand million");
        self.objects.push(Copied { node, is_dir, new });
        self.known.insert(node, Object(number));
        Object(number)
    }

    /// Sets owners, modes, times and flags: in reverse, so that a directory comes after what it holds.
    fn settle(&mut self) -> Result<(), Error> {
        for Copied { node, new, .. } in self.objects.iter().rev() {
            let Some(new) = new else { continue };
            let time = |time| Some(SetTime::To(time));
            let set = SetAttr {
                perm: (new.kind != FileType::Symlink).then_some(new.perm),
                uid: Some(new.uid),
                gid: Some(new.gid),
                atime: time(new.atime),
                mtime: time(new.mtime),
                ..SetAttr::default()
            };
            self.front()?.setattr(*node, &set, &Caller::ROOT)?;
            if new.flags != 0 {
                self.front()?.setattr(
                    *node,
                    &SetAttr { flags: Some(new.flags), ..SetAttr::default() },
                    &Caller::ROOT,
                )?;
            }
        }
        Ok(())
    }

    /// Writes a stretch of a file.
    fn copy(&mut self, object: Object, file: &File, data: Range<u64>) -> Taken<()> {
        let node = self.node(object);
        let mut at = data.start;
        while at < data.end {
            let len = PIECE_BYTES.min(data.end - at) as usize;
            self.buffer.resize(len, 0);
            file.read_exact_at(&mut self.buffer, at).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Refused::Changed,
                _ => Refused::Unreadable(error),
            })?;
            write(&self.front()?, node, at, &self.buffer)?;
            self.count(len);
            at += len as u64;
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.counts.add_bytes(bytes as u64);
    }
}

/// Writes all of it.
fn write(front: &Front<'_>, node: NodeId, offset: u64, data: &[u8]) -> Taken<()> {
    match front.write(node, offset, data, &Caller::ROOT)? {
        written if written == data.len() => Ok(()),
        // The call for the rest says why.
        written => {
            front.write(node, offset + written as u64, &data[written..], &Caller::ROOT)?;
            Ok(())
        }
    }
}

fn unreadable(why: impl Into<std::io::Error>) -> Refused {
    Refused::Unreadable(why.into())
}

impl Sink for Live<'_> {
    fn block_bytes(&self) -> u64 {
        self.block
    }

    fn expect_lookups(&mut self) {}

    fn lookup(&mut self, dir: Object, name: &[u8]) -> Taken<Option<Object>> {
        let attr = match self.fs.lookup(self.node(dir), name) {
            Ok(attr) => attr,
            Err(Error::NotFound) => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        let known = self.known.get(&attr.node).copied();
        Ok(Some(known.unwrap_or_else(|| self.add(attr.node, attr.kind == FileType::Directory, None))))
    }

    fn is_dir(&self, object: Object) -> bool {
        self.objects[object.0 as usize].is_dir
    }

    fn create(&mut self, dir: Object, name: &[u8], new: &NewInode, target: &[u8]) -> Taken<Object> {
        let (major, minor) = new.rdev;
        let (what, is_dir) = match new.kind {
            FileType::Regular => (NewNode::File, false),
            FileType::Directory => (NewNode::Directory, true),
            FileType::Symlink => (NewNode::Symlink(target), false),
            FileType::Fifo => (NewNode::Fifo, false),
            FileType::Socket => (NewNode::Socket, false),
            FileType::CharDevice => (NewNode::CharDevice(major, minor), false),
            FileType::BlockDevice => (NewNode::BlockDevice(major, minor), false),
        };
        self.names += 1;
        self.counts.add_object();
        let dir = self.node(dir);
        // Nobody else is to see it before it has its mode.
        let node = match self.front()?.create(dir, name, what, 0o600, &Caller::ROOT) {
            Ok(attr) => attr.node,
            Err(Error::Exists) if is_dir => match self.fs.lookup(dir, name)? {
                attr if attr.kind == FileType::Directory => attr.node,
                _ => return Err(Error::Exists.into()),
            },
            Err(why) => return Err(why.into()),
        };
        Ok(self.add(node, is_dir, Some(*new)))
    }

    fn link(&mut self, dir: Object, name: &[u8], object: Object) -> Taken<()> {
        self.names += 1;
        self.front()?.link(self.node(object), self.node(dir), name)?;
        Ok(())
    }

    fn replace(&mut self, object: Object, new: &NewInode) -> Taken<()> {
        self.objects[object.0 as usize].new = Some(*new);
        Ok(())
    }

    fn whole(&mut self, object: Object, file: WholeFile<'_>) -> Taken<()> {
        let WholeFile { dir, name, size, is_sparse } = file;
        let file = File::from(host::open(dir.as_fd(), name, OFlags::empty()).map_err(unreadable)?);
        self.xattrs(object, host::xattrs(&file).map_err(unreadable)?)?;
        let mut at = 0;
        while let Some(data) = next_data(&file, at, size, is_sparse, self.block).map_err(unreadable)? {
            at = data.end;
            self.copy(object, &file, data)?;
        }
        if at < size { self.set_size(object, size) } else { Ok(()) }
    }

    fn set_size(&mut self, object: Object, bytes: u64) -> Taken<()> {
        Ok(self.front()?.truncate(self.node(object), bytes, &Caller::ROOT)?)
    }

    fn stretch(&mut self, object: Object, file: &Arc<File>, data: Range<u64>) -> Taken<()> {
        self.copy(object, file, data)
    }

    fn bytes(&mut self, object: Object, offset: u64, bytes: Vec<u8>) -> Taken<()> {
        self.count(bytes.len());
        write(&self.front()?, self.node(object), offset, &bytes)
    }

    fn xattrs(&mut self, object: Object, list: Xattrs) -> Taken<()> {
        for (name, value) in list {
            let node = self.node(object);
            let set = self.front()?.setxattr(node, &name, &value, SetXattr::Any, &Caller::ROOT);
            match set {
                Ok(()) => {}
                Err(Error::Unsupported(_)) => {
                    self.left_out.get_or_insert(name);
                }
                Err(Error::TooLarge(_)) => {
                    return Err(Unfit::AttributeTooLong(name.len() + value.len()).into());
                }
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }
}
