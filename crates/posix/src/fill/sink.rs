//! Where a source delivers to.
//!
//! A source tells a [`Sink`] what there is: objects, their names, attributes and data, in any order in which every object comes before
//! its names and its content. Names and inodes go to the tree; data become jobs for the worker threads. Small files are
//! collected until there is enough for a job; the data of a large one is handed over piece by piece, and while a piece waits for a free
//! worker the source waits too, so however large a file is there are only a few pieces in memory.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use frazil_ondisk::units::{SECTOR_BYTES, Sectors};

use super::Counts;
use super::error::FillError;
use super::tree::{Object, Tree};
use super::work::{Batch, Failure, Job, Part, VERSIONS_PER_JOB, Xattrs};
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

/// Shorthand for what sources return.
pub(super) type Delivered<T> = Result<T, Halt>;

/// A tree that can be copied in.
pub(super) trait Deliver: Send {
    /// Tells the sink all there is.
    fn deliver(&mut self, sink: &mut Sink<'_>) -> Delivered<()>;

    /// A path in the volume as the user would name it in the source.
    fn shown(&self, path: &[u8]) -> Vec<u8>;
}

/// What becomes of a job.
pub(super) type Outcome = Result<Batch, Failure>;

/// The jobs handed out, in order, and where each result will come.
pub(super) type Orders = SyncSender<Receiver<Outcome>>;

/// Takes what a source delivers.
pub(super) struct Sink<'c> {
    pub(super) tree: Tree,
    orders: Orders,
    jobs: SyncSender<(Job, SyncSender<Outcome>)>,
    parts: Vec<Part>,
    bytes: u64,
    next_version: u64,
    block: Sectors,
    counts: &'c Counts,
}

impl<'c> Sink<'c> {
    /// A sink that passes work on to these.
    pub(super) fn new(
        tree: Tree,
        orders: Orders,
        jobs: SyncSender<(Job, SyncSender<Outcome>)>,
        block: Sectors,
        counts: &'c Counts,
    ) -> Sink<'c> {
        Sink { tree, orders, jobs, parts: Vec::new(), bytes: 0, next_version: 1, block, counts }
    }

    /// A new object, which has no name yet.
    pub(super) fn add(&mut self, new: &NewInode) -> Result<Object, Unfit> {
        self.counts.add_object();
        self.tree.add(new)
    }

    /// A file whose content and attributes the workers read.
    pub(super) fn whole(&mut self, object: Object, part: Part) -> Delivered<()> {
        self.tree.set_size(object, part.len());
        self.part(part)
    }

    /// Data of a large file; each stretch begins at a block and ends at one, or at the end of the file. They must ascend.
    pub(super) fn stretch(&mut self, object: Object, file: &Arc<File>, data: Range<u64>) -> Delivered<()> {
        let mut at = data.start;
        while at < data.end {
            // Cut where the file would be cut without holes.
            let end = ((at / JOB_BYTES + 1) * JOB_BYTES).min(data.end);
            self.part(Part::Stretch { object, file: Arc::clone(file), range: at..end })?;
            at = end;
        }
        Ok(())
    }

    /// The attributes of an object that is no [`Part::Whole`]; once for each object.
    pub(super) fn xattrs(&mut self, object: Object, list: Xattrs) -> Delivered<()> {
        if list.is_empty() { Ok(()) } else { self.part(Part::Xattrs { object, list }) }
    }

    /// Data at hand, with the same rules.
    pub(super) fn bytes(&mut self, object: Object, offset: u64, bytes: Vec<u8>) -> Delivered<()> {
        self.part(Part::Bytes { object, offset, bytes })
    }

    fn part(&mut self, part: Part) -> Delivered<()> {
        self.bytes += part.len();
        self.parts.push(part);
        if self.bytes >= JOB_BYTES || self.parts.len() >= JOB_PARTS { self.hand_out() } else { Ok(()) }
    }

    /// Hands out what has been collected; to be called once more at the end.
    pub(super) fn hand_out(&mut self) -> Delivered<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let job = Job { parts: std::mem::take(&mut self.parts), first_version: self.next_version };
        self.next_version += VERSIONS_PER_JOB;
        self.bytes = 0;
        let (result, outcome) = sync_channel(1);
        self.orders.send(outcome).map_err(|_| Halt::Elsewhere)?;
        self.jobs.send((job, result)).map_err(|_| Halt::Elsewhere)
    }

    /// The tree, and the first version that was not used.
    pub(super) fn into_tree(self) -> (Tree, u64) {
        (self.tree, self.next_version)
    }

    /// Block size of the volume.
    pub(super) fn block_bytes(&self) -> u64 {
        self.block.0 * SECTOR_BYTES
    }
}
