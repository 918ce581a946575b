//! What operations do all the time: find the snapshot to write to, read an inode, write it back.
//!
//! Every look is noted by the transaction, so what an operation decided is true when it commits. Which snapshot a subvolume writes to is
//! looked up in every transaction anew: a snapshot made meanwhile moves it, and the operation is run again.

use std::sync::Arc;

use frazil_btree::View;
use frazil_btree::write::Transaction;
use frazil_ondisk::units::{Inum, SubvolId};
use frazil_ondisk::values::inode::{Inode, InodeGeneration};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::WriteFs;
use super::numbers::{Draw, versions};
use super::quota::{Changes, Owned};
use crate::attr::{NodeId, Timestamp};
use crate::error::{Error, Result};
use crate::namespace::decode_inode;
use crate::subvol::decode_live;

/// A subvolume as a transaction sees it.
#[derive(Clone)]
pub(crate) struct Place {
    /// Its id.
    pub(crate) subvol: SubvolId,
    /// Its record.
    pub(crate) record: Subvolume,
    /// What its snapshot sees; keys are written to that snapshot.
    pub(crate) view: View,
}

impl Place {
    /// The object with that number in it.
    pub(crate) fn node(&self, inum: Inum) -> NodeId {
        NodeId { subvol: self.subvol, inum }
    }

    /// Where a key is written.
    pub(crate) fn pos(&self, inode: u64, offset: u64) -> Bpos {
        Bpos::new(inode, offset, self.view.id().0)
    }

    /// Refuses if the subvolume is read-only (spec 40 §13.2).
    pub(crate) fn must_be_writable(&self) -> Result<()> {
        if self.record.flags & Subvolume::RO != 0 { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

/// An inode in a transaction.
#[derive(Clone)]
pub(crate) struct Object {
    /// The subvolume it is seen through.
    pub(crate) place: Arc<Place>,
    /// Its number.
    pub(crate) inum: Inum,
    /// The inode.
    pub(crate) inode: Inode,
    /// What it counted for when it was read; `None` for a new one.
    pub(crate) was: Option<Owned>,
}

impl Object {
    pub(crate) fn node(&self) -> NodeId {
        self.place.node(self.inum)
    }

    /// Whether both are seen through one subvolume.
    pub(crate) fn is_beside(&self, other: &Object) -> bool {
        self.place.subvol == other.place.subvol
    }
}

/// An operation in its transaction.
pub(crate) struct Op<'a, 'e> {
    pub(crate) fs: &'a WriteFs,
    pub(crate) t: &'a mut Transaction<'e>,
    /// When it happens.
    pub(crate) at: Timestamp,
    /// What it changes for quotas.
    pub(crate) quota: Changes,
}

impl<'a, 'e> Op<'a, 'e> {
    pub(crate) fn new(fs: &'a WriteFs, t: &'a mut Transaction<'e>, at: Timestamp) -> Self {
        Op { fs, t, at, quota: Changes::default() }
    }

    /// When it happens, as inodes say it.
    pub(crate) fn now(&self) -> i64 {
        self.stored(self.at)
    }

    /// A time as inodes say it.
    pub(crate) fn stored(&self, time: Timestamp) -> i64 {
        self.fs.names.time_base.from_unix_ns(time.unix_ns())
    }

    /// A subvolume in use; `None` if there is none.
    pub(crate) fn find_place(&self, id: SubvolId) -> Result<Option<Arc<Place>>> {
        let Some(key) = self.t.get(BtreeId::SUBVOLUMES, Bpos::new(0, id.0.into(), 0))? else {
            return Ok(None);
        };
        let Some(record) = decode_live(key.key())? else { return Ok(None) };
        let view = self.fs.names.view(id, record.snapshot)?;
        Ok(Some(Arc::new(Place { subvol: id, record, view })))
    }

    /// The inode that is seen under a number, if there is one.
    pub(crate) fn find_inode(&self, view: &View, inum: Inum) -> Result<Option<Inode>> {
        match self.t.get_visible(BtreeId::INODES, Bpos::new(0, inum.0, 0), view)? {
            Some(key) => decode_inode(key.key()),
            None => Ok(None),
        }
    }

    /// An object, to look at.
    ///
    /// # Errors
    /// [`Error::Stale`] if it does not exist.
    pub(crate) fn object(&self, node: NodeId) -> Result<Object> {
        let place = self.find_place(node.subvol)?.ok_or(Error::Stale(node))?;
        let inode = self.find_inode(&place.view, node.inum)?.ok_or(Error::Stale(node))?;
        Ok(Object { place, inum: node.inum, inode, was: Some(Owned::of(&inode)) })
    }

    /// An object, to be changed.
    ///
    /// # Errors
    /// As [`Op::object`], and [`Error::ReadOnly`].
    pub(crate) fn writable(&self, node: NodeId) -> Result<Object> {
        let object = self.object(node)?;
        object.place.must_be_writable()?;
        Ok(object)
    }

    /// A directory whose entries are to be changed.
    ///
    /// # Errors
    /// As [`Op::writable`], [`Error::NotDirectory`]; [`Error::NotFound`] if it was removed, and [`Error::Unsupported`] if it ignores case.
    pub(crate) fn directory(&self, node: NodeId) -> Result<Object> {
        let dir = match self.writable(node) {
            Err(Error::Stale(_)) if self.fs.holds.remains(node).is_some() => return Err(Error::NotFound),
            other => other?,
        };
        if !dir.inode.is_dir() {
            return Err(Error::NotDirectory);
        }
        if self.fs.names.casefolds(&dir.inode) {
            // Format 1.13, the only one written, does not have them.
            return Err(Error::Unsupported("changes of directories that ignore case"));
        }
        Ok(dir)
    }

    /// An object beside another.
    ///
    /// # Errors
    /// [`Error::Io`] if it does not exist: something stored refers to it.
    pub(crate) fn referred(&self, place: &Arc<Place>, inum: Inum) -> Result<Object> {
        let inode = self.find_inode(&place.view, inum)?.ok_or_else(|| {
            Error::Io(format!("inode {} does not exist, but an entry leads to it", place.node(inum)))
        })?;
        Ok(Object { place: Arc::clone(place), inum, inode, was: Some(Owned::of(&inode)) })
    }

    /// Writes an inode back.
    pub(crate) fn put(&mut self, object: &Object) {
        self.put_version(object.place.pos(0, object.inum.0), &object.inode);
        self.note(object, Some(&object.inode));
    }

    /// Writes one version of an inode.
    pub(crate) fn put_version(&mut self, pos: Bpos, inode: &Inode) {
        let mut value = Vec::with_capacity(128);
        inode.encode(&mut value);
        self.t.put(BtreeId::INODES, KeyBuf::new(KeyType::INODE_V3, pos, 0, value));
    }

    /// Replaces an inode by what a deleted one leaves behind (spec 40 §3.3).
    pub(crate) fn remove_inode(&mut self, pos: Bpos, inode: &Inode) {
        let mut value = Vec::with_capacity(8);
        InodeGeneration { generation: inode.generation.wrapping_add(1), pad: 0 }.encode(&mut value);
        self.t.put(BtreeId::INODES, KeyBuf::new(KeyType::INODE_GENERATION, pos, 0, value));
    }

    /// A number for a new inode, and the generation it begins with: what was removed there before left that behind (spec 40 §3.2).
    pub(crate) fn new_number(&mut self, draw: &mut Draw<'_>) -> Result<(Inum, u32)> {
        loop {
            let inum = draw.number(&self.fs.names.btrees)?;
            // Of a removed directory its holders see what is left, under its number.
            match self.generation_of_free(inum)? {
                Some(generation) if self.fs.holds.subvols_of(inum).is_empty() => {
                    return Ok((inum, generation));
                }
                _ => draw.reject(),
            }
        }
    }

    /// The generation that the next inode with this number has; `None` if there is one in some snapshot, or who knows what.
    fn generation_of_free(&self, inum: Inum) -> Result<Option<u32>> {
        let mut generation = 0;
        let mut cursor = self.t.cursor(BtreeId::INODES, versions(inum));
        while let Some(key) = cursor.next()? {
            match InodeGeneration::decode(key.value) {
                Ok(left) if key.k.ty == KeyType::INODE_GENERATION => {
                    generation = generation.max(left.generation);
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(generation))
    }
}
