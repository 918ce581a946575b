//! The content of files, changed (spec 40 §8, §10, §14, §16).
//!
//! Data is on the devices before a transaction points to it. So a write is two steps: blocks are made (what a partial block does not
//! replace is read and copied), written to new places; then transactions put the extents in, each with the inode that says so. A crash in
//! between leaves the file as it was.
//!
//! Whoever changes the content of a file holds its *content lock* for writing: two writes that share a block would lose one of them, and an operation
//! of several transactions must not be seen half done. Readers hold it for reading.
//!
//! | to find | look in |
//! |---|---|
//! | `write` | `write.rs` |
//! | `truncate`, punching holes, zeroing, reserving space | `space.rs` |
//! | inserting and collapsing ranges, and finishing what a crash interrupted | `shift.rs` |
//! | sharing data between files | `clone.rs` |
//! | targets of symbolic links | `target.rs` |

mod clone;
mod shift;
mod space;
mod target;
mod write;

use std::ops::Range;

use frazil_btree::write::Overwritten;
use frazil_ondisk::KeyBuf;
use frazil_ondisk::superblock::options;
use frazil_ondisk::units::{Inum, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::values::extent::cut_front;
use frazil_ondisk::values::inode::{FileType, Inode, InodeOpt};
use frazil_volume::data::encode::Encoding;
use frazil_volume::write::Watermark;
use frazil_volume::write::data::Placement;
use frazil_volume::write::space::{DiskReservation, Writer};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::WriteFs;
use super::attributes::drop_set_id;
use super::caller::{Caller, must_be_mutable};
use super::op::{Object, Op};
use crate::attr::{NodeId, Whence};
use crate::error::{Error, Result};
use crate::file::Files;

pub use space::Allocate;

/// Largest size of a file in bytes: what a signed offset can say.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// Locks for the content of files; files that share one only wait needlessly.
pub(crate) struct ContentLocks([RwLock<()>; ContentLocks::COUNT]);

impl Default for ContentLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }
}

impl ContentLocks {
    const COUNT: usize = 64;

    fn index(node: NodeId) -> usize {
        (node.inum.0 ^ node.inum.0 >> 6) as usize % Self::COUNT
    }

    pub(crate) fn read(&self, node: NodeId) -> RwLockReadGuard<'_, ()> {
        self.0[Self::index(node)].read()
    }

    pub(crate) fn write(&self, node: NodeId) -> RwLockWriteGuard<'_, ()> {
        self.0[Self::index(node)].write()
    }

    /// Both, in an order that all keep.
    pub(crate) fn write_two(
        &self,
        a: NodeId,
        b: NodeId,
    ) -> (RwLockWriteGuard<'_, ()>, Option<RwLockWriteGuard<'_, ()>>) {
        let (first, second) = (Self::index(a).min(Self::index(b)), Self::index(a).max(Self::index(b)));
        let guard = self.0[first].write();
        (guard, (first != second).then(|| self.0[second].write()))
    }
}

impl WriteFs {
    /// As [`crate::Fs::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let _content = self.content.read(node);
        self.files().read(node, offset, buf)
    }

    /// As [`crate::Fs::readlink`].
    ///
    /// # Errors
    /// As there.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        self.files().readlink(node)
    }

    /// As [`crate::Fs::seek`].
    ///
    /// # Errors
    /// As there.
    pub fn seek(&self, node: NodeId, offset: u64, whence: Whence) -> Result<u64> {
        let _content = self.content.read(node);
        self.files().seek(node, offset, whence)
    }

    /// Returns when everything that was done to the object is durable.
    ///
    /// # Errors
    /// If the journal has stopped.
    pub fn fsync(&self, node: NodeId) -> Result<()> {
        let (_, inode) = self.names.object(node)?;
        // What was stamped in an earlier life is durable.
        let newest = Seq(self.live.journal().status().seq);
        let seq = inode.journal_seq.min(newest);
        self.live.journal().flush_seq(seq).map_err(|e| Error::Io(e.to_string()))
    }

    /// Returns when everything that was done is durable.
    ///
    /// # Errors
    /// If the journal has stopped.
    pub fn sync(&self) -> Result<()> {
        self.live.journal().flush().map_err(|e| Error::Io(e.to_string()))
    }

    pub(crate) fn files(&self) -> Files<'_> {
        Files { names: &self.names, reader: self.live.reader(), logged: &self.logged }
    }

    fn block_bytes(&self) -> u64 {
        self.superblock.block_bytes()
    }

    /// The blocks that a range of bytes touches.
    fn blocks_around(&self, bytes: &Range<u64>) -> Range<u64> {
        let block = self.block_bytes();
        bytes.start - bytes.start % block..bytes.end.next_multiple_of(block)
    }

    /// The blocks that lie within a range of bytes; empty if none does.
    fn blocks_within(&self, bytes: &Range<u64>) -> Range<u64> {
        let block = self.block_bytes();
        let (start, end) = (bytes.start.next_multiple_of(block), bytes.end - bytes.end % block);
        start..end.max(start)
    }

    /// How and where new data of a file is stored.
    fn placement(&self, inum: Inum, inode: &Inode) -> Result<Placement> {
        let sb = &self.superblock;
        let option = |opt, spec| inode.opts.get(opt).map_or_else(|| sb.option(spec), u64::from);
        let small = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
        let bad = |e: frazil_ondisk::DecodeError| Error::Io(format!("options of inode {inum}: {e}"));
        Ok(Placement {
            encoding: Encoding::of(sb, &inode.opts).map_err(bad)?,
            writer: Writer::User(inum.0),
            target: option(InodeOpt::ForegroundTarget, &options::FOREGROUND_TARGET) as u16,
            replicas: small(option(InodeOpt::DataReplicas, &options::DATA_REPLICAS)).max(1),
            required: sb.flags.data_replicas_required().max(1),
            watermark: Watermark::Normal,
        })
    }

    /// Promises room for so much of a file.
    fn promise(&self, bytes: u64, replicas: u8) -> Result<DiskReservation> {
        let sectors = (bytes / SECTOR_BYTES).saturating_mul(replicas.into());
        Ok(self.live.space().reserve(Sectors(sectors))?)
    }
}

/// A regular file, to be changed.
fn regular(object: Object) -> Result<Object> {
    match object.inode.file_type() {
        FileType::REG => Ok(object),
        FileType::DIR => Err(Error::IsDirectory),
        _ => Err(Error::Invalid("only regular files have content")),
    }
}

/// A range of sectors.
fn sectors(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / SECTOR_BYTES..bytes.end / SECTOR_BYTES
}

impl Op<'_, '_> {
    /// A regular file whose content is to be changed.
    fn content(&self, node: NodeId) -> Result<Object> {
        let file = regular(self.writable(node)?)?;
        must_be_mutable(&file.inode)?;
        Ok(file)
    }

    /// Counts what a change of extents did to the file.
    fn count(&self, file: &mut Object, gone: u64, come: u64) {
        let sectors = &mut file.inode.sectors.0;
        *sectors = (*sectors + come).saturating_sub(gone);
    }

    /// Puts an extent into a file. `allocated` says whether its sectors count as used. Returns the rest of it, if there was too much in the way for
    /// one transaction.
    fn put_extent(&mut self, file: &mut Object, key: KeyBuf) -> Result<Option<KeyBuf>> {
        let (end, size) = (key.k.pos.offset, u64::from(key.k.size));
        let Overwritten { end: done, sectors } = self.t.insert_extent(&file.place.view, key.clone())?;
        self.count(file, sectors, size - (end - done));
        if done == end {
            return Ok(None);
        }
        let mut rest = key;
        let cut = (size - (end - done)) as u32;
        cut_front(&mut rest, cut).map_err(|e| Error::Io(format!("extent {}: {e}", rest.k.pos)))?;
        Ok(Some(rest))
    }

    /// Makes a range of a file a hole, as far as one transaction goes. Returns the sector up to which it is.
    fn make_hole(&mut self, file: &mut Object, sectors: Range<u64>) -> Result<u64> {
        let done = self.t.remove_extents(&file.place.view, file.inum, sectors)?;
        self.count(file, done.sectors, 0);
        Ok(done.end)
    }

    /// The file's content changed: its times, and the rights it gave.
    fn touch_content(&mut self, file: &mut Object, caller: Option<&Caller<'_>>) -> Result<()> {
        let now = self.now();
        (file.inode.mtime, file.inode.ctime) = (now, now);
        if let Some(caller) = caller.filter(|caller| !caller.privileged) {
            self.limit(caller);
            let keeps = caller.keeps_setgid(file.inode.gid);
            drop_set_id(&mut file.inode, keeps);
            self.drop_capabilities(file)?;
        }
        Ok(())
    }
}
