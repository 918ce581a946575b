//! Where a source delivers to.
//!
//! A source tells a [`Sink`] what there is: objects with their names, further names, attributes and data, every object before its content.
//! There are two: [`Jobs`], for a volume that is being made, and the one of `live.rs`, for one that is in use.
//!
//! [`Jobs`] gives names and inodes to the tree, and makes jobs for the worker threads of data. Small files are collected until there is
//! enough for a job; the data of a large one is handed over piece by piece, and while a piece waits for a free worker the source waits
//! too, so however large a file is there are only a few pieces in memory.

use std::ffi::CStr;
use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use frazil_ondisk::units::{SECTOR_BYTES, Sectors};

use super::Counts;
use super::error::FillError;
use super::tree::{LOST_FOUND, Object, Tree};
use super::work::{Batch, Failure, Job, Part, VERSIONS_PER_JOB, Xattrs};
use crate::attr::FileType;
use crate::make::{NewInode, Unfit};

/// Bytes in a job.
pub(super) const JOB_BYTES: u64 = 1 << 20;
/// Files in a job.
const JOB_PARTS: usize = 256;

/// Why a source cannot go on.
pub(super) enum Halt {
    /// Something in the source.
    Error(FillError),
    /// Something else went wrong; it will be told elsewhere.
    Elsewhere,
}

impl From<FillError> for Halt {
    fn from(error: FillError) -> Halt {
        Halt::Error(error)
    }
}

/// Why a sink does not take something; whoever knows its path makes an error of it.
pub(super) enum Refused {
    /// It cannot be stored.
    Unfit(Unfit),
    /// The volume does not take it.
    Failed(crate::Error),
    /// A file of the running system cannot be read.
    Unreadable(std::io::Error),
    /// It changed meanwhile.
    Changed,
    /// Something else went wrong; it will be told elsewhere.
    Elsewhere,
}

impl Refused {
    /// The error about something at a path.
    pub(super) fn at(self, path: Vec<u8>) -> Halt {
        Halt::Error(match self {
            Refused::Unfit(why) => FillError::Unfit { path, why },
            Refused::Failed(why) => FillError::Refused { path, why },
            Refused::Unreadable(why) => FillError::Unreadable { path, why },
            Refused::Changed => FillError::Changed { path },
            Refused::Elsewhere => return Halt::Elsewhere,
        })
    }
}

impl From<Unfit> for Refused {
    fn from(why: Unfit) -> Refused {
        Refused::Unfit(why)
    }
}

/// Shorthand for what sinks return.
pub(super) type Taken<T> = Result<T, Refused>;

/// Shorthand for what sources return.
pub(super) type Delivered<T> = Result<T, Halt>;

/// A tree that can be copied in.
pub(super) trait Deliver: Send {
    /// Tells the sink all there is.
    fn deliver(&mut self, sink: &mut dyn Sink) -> Delivered<()>;

    /// A path in the volume as the user would name it in the source.
    fn shown(&self, path: &[u8]) -> Vec<u8>;
}

/// A regular file of the running system that is copied as a whole.
pub(super) struct WholeFile<'f> {
    /// Its directory.
    pub(super) dir: &'f Arc<OwnedFd>,
    /// Its name there.
    pub(super) name: &'f CStr,
    /// Bytes it should have.
    pub(super) size: u64,
    /// It has holes.
    pub(super) is_sparse: bool,
}

/// Takes what a source delivers.
pub(super) trait Sink {
    /// Block size of the volume.
    fn block_bytes(&self) -> u64;

    /// [`Sink::lookup`] is going to be called; to be said before anything else.
    fn expect_lookups(&mut self);

    /// What a name leads to.
    fn lookup(&mut self, dir: Object, name: &[u8]) -> Taken<Option<Object>>;

    /// Whether an object is a directory.
    fn is_dir(&self, object: Object) -> bool;

    /// A new object with a name; `target` is that of a symbolic link.
    fn create(&mut self, dir: Object, name: &[u8], new: &NewInode, target: &[u8]) -> Taken<Object>;

    /// A further name of an object.
    fn link(&mut self, dir: Object, name: &[u8], object: Object) -> Taken<()>;

    /// What a directory that is there already is to be like.
    fn replace(&mut self, object: Object, new: &NewInode) -> Taken<()>;

    /// A file whose content and attributes are still to be read; not large.
    fn whole(&mut self, object: Object, file: WholeFile<'_>) -> Taken<()>;

    /// The size of a file whose data come by [`Sink::stretch`] or [`Sink::bytes`].
    fn set_size(&mut self, object: Object, bytes: u64) -> Taken<()>;

    /// Data of a large file; each stretch begins at a block and ends at one, or at the end of the file. They must ascend.
    fn stretch(&mut self, object: Object, file: &Arc<File>, data: Range<u64>) -> Taken<()>;

    /// Data at hand, with the same rules.
    fn bytes(&mut self, object: Object, offset: u64, bytes: Vec<u8>) -> Taken<()>;

    /// The attributes of an object that was no [`Sink::whole`]; once for each object.
    fn xattrs(&mut self, object: Object, list: Xattrs) -> Taken<()>;
}

/// What becomes of a job.
pub(super) type Outcome = Result<Batch, Failure>;

/// The jobs handed out, in order, and where each result will come.
pub(super) type Orders = SyncSender<Receiver<Outcome>>;

/// The sink of a volume that is being made.
pub(super) struct Jobs<'c> {
    tree: Tree,
    orders: Orders,
    jobs: SyncSender<(Job, SyncSender<Outcome>)>,
    parts: Vec<Part>,
    bytes: u64,
    next_version: u64,
    block: Sectors,
    counts: &'c Counts,
}

impl<'c> Jobs<'c> {
    /// A sink that passes work on to these.
    pub(super) fn new(
        tree: Tree,
        orders: Orders,
        jobs: SyncSender<(Job, SyncSender<Outcome>)>,
        block: Sectors,
        counts: &'c Counts,
    ) -> Jobs<'c> {
        Jobs { tree, orders, jobs, parts: Vec::new(), bytes: 0, next_version: 1, block, counts }
    }

    fn part(&mut self, part: Part) -> Taken<()> {
        self.bytes += part.len();
        self.parts.push(part);
        if self.bytes >= JOB_BYTES || self.parts.len() >= JOB_PARTS { self.hand_out() } else { Ok(()) }
    }

    /// Hands out what has been collected; to be called once more at the end.
    pub(super) fn hand_out(&mut self) -> Taken<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let job = Job { parts: std::mem::take(&mut self.parts), first_version: self.next_version };
        self.next_version += VERSIONS_PER_JOB;
        self.bytes = 0;
        let (result, outcome) = sync_channel(1);
        self.orders.send(outcome).map_err(|_| Refused::Elsewhere)?;
        self.jobs.send((job, result)).map_err(|_| Refused::Elsewhere)
    }

    /// The tree, and the first version that was not used.
    pub(super) fn into_tree(self) -> (Tree, u64) {
        (self.tree, self.next_version)
    }
}

impl Sink for Jobs<'_> {
    fn block_bytes(&self) -> u64 {
        self.block.0 * SECTOR_BYTES
    }

    fn expect_lookups(&mut self) {
        self.tree.keep_index();
    }

    fn lookup(&mut self, dir: Object, name: &[u8]) -> Taken<Option<Object>> {
        Ok(self.tree.lookup(dir, name))
    }

    fn is_dir(&self, object: Object) -> bool {
        self.tree.is_dir(object)
    }

    fn create(&mut self, dir: Object, name: &[u8], new: &NewInode, target: &[u8]) -> Taken<Object> {
        if dir == Object::ROOT && name == LOST_FOUND {
            if new.kind != FileType::Directory {
                return Err(Unfit::Name("in a volume this is a directory").into());
            }
            self.tree.replace(Object::LOST_FOUND, new)?;
            return Ok(Object::LOST_FOUND);
        }
        self.counts.add_object();
        let object = self.tree.add(new)?;
        self.tree.link(dir, name, object);
        if new.kind == FileType::Symlink {
            self.tree.set_size(object, target.len() as u64);
            self.bytes(object, 0, target.to_vec())?;
        }
        Ok(object)
    }

    fn link(&mut self, dir: Object, name: &[u8], object: Object) -> Taken<()> {
        self.tree.link(dir, name, object);
        Ok(())
    }

    fn replace(&mut self, object: Object, new: &NewInode) -> Taken<()> {
        Ok(self.tree.replace(object, new)?)
    }

    fn whole(&mut self, object: Object, file: WholeFile<'_>) -> Taken<()> {
        let WholeFile { dir, name, size, is_sparse } = file;
        self.tree.set_size(object, size);
        self.part(Part::Whole { object, dir: Arc::clone(dir), name: name.to_owned(), size, is_sparse })
    }

    fn set_size(&mut self, object: Object, bytes: u64) -> Taken<()> {
        self.tree.set_size(object, bytes);
        Ok(())
    }

    fn stretch(&mut self, object: Object, file: &Arc<File>, data: Range<u64>) -> Taken<()> {
        let mut at = data.start;
        while at < data.end {
            // Cut where the file would be cut without holes.
            let end = ((at / JOB_BYTES + 1) * JOB_BYTES).min(data.end);
            self.part(Part::Stretch { object, file: Arc::clone(file), range: at..end })?;
            at = end;
        }
        Ok(())
    }

    fn bytes(&mut self, object: Object, offset: u64, bytes: Vec<u8>) -> Taken<()> {
        self.part(Part::Bytes { object, offset, bytes })
    }

    fn xattrs(&mut self, object: Object, list: Xattrs) -> Taken<()> {
        if list.is_empty() { Ok(()) } else { self.part(Part::Xattrs { object, list }) }
    }
}
