//! Targets of symbolic links: content that is there from the first moment and never changes (spec 40 §6.3).
//!
//! A short one is stored in its key. The data of a long one is written before the transaction that makes the link, so that either way
//! the link appears with its target.

use frazil_ondisk::superblock::features::Features;
use frazil_ondisk::units::{Inum, SECTOR_BYTES, Sectors};
use frazil_ondisk::values::inline;
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::{Bpos, KeyBuf, KeyType};
use frazil_volume::write::data::WrittenExtent;

use crate::error::{Error, Result};
use crate::write::front::Front;
use crate::write::op::{Object, Op};

/// A target, ready to be put into a link.
pub(crate) struct StoredTarget {
    len: u64,
    extents: Vec<Stored>,
}

enum Stored {
    /// The key, for an inode number yet to be chosen.
    Inline(KeyBuf),
    Written(WrittenExtent),
}

impl Front<'_> {
    /// Stores a target for a link that is to be inode `inum`, with these options.
    pub(crate) fn store_target(&self, inum: Inum, inode: &Inode, target: &[u8]) -> Result<StoredTarget> {
        let len = target.len() as u64;
        if target.len() <= self.inline_max {
            self.use_feature(Features::INLINE_DATA)?;
            let mut value = Vec::with_capacity(target.len() + 8);
            inline::encode(target, &mut value);
            let sectors = self.block_bytes() / SECTOR_BYTES;
            let pos = Bpos::new(inum.0, sectors, 0);
            // A block, at most 64 KiB.
            let key = KeyBuf::new(KeyType::INLINE_DATA, pos, sectors as u32, value);
            return Ok(StoredTarget { len, extents: vec![Stored::Inline(key)] });
        }
        let mut bytes = target.to_vec();
        bytes.resize(len.next_multiple_of(self.block_bytes()) as usize, 0);
        let place = self.placement(inum, inode)?;
        let _promise = self.promise(bytes.len() as u64, place.replicas)?;
        let written = self.live.data().write(inum, Sectors(0), &bytes, &place)?;
        Ok(StoredTarget { len, extents: written.into_iter().map(Stored::Written).collect() })
    }
}

impl Op<'_, '_> {
    /// Puts a stored target into a new link; the caller writes the inode.
    pub(crate) fn put_target(&mut self, link: &mut Object, target: &StoredTarget) -> Result<()> {
        for stored in &target.extents {
            let mut key = match stored {
                Stored::Inline(key) => key.clone(),
                Stored::Written(WrittenExtent { key, .. }) => key.clone(),
            };
            key.k.pos.inode = link.inum.0;
            if self.put_extent(link, key)?.is_some() {
                return Err(Error::Io(format!("inode {} is new but has content", link.node())));
            }
        }
        link.inode.size = target.len;
        Ok(())
    }
}
