//! Entries of directories: finding, making and taking them out (spec 40 §5).

use frazil_ondisk::str_hash::StrHash;
use frazil_ondisk::units::SnapshotId;
use frazil_ondisk::values::dirent::{Dirent, DirentTarget, NAME_BYTES_MAX};
use frazil_ondisk::values::inode::FileType as DirentType;
use frazil_ondisk::{Bpos, BtreeId, Key, KeyBuf, KeyType};

use super::chain::{Searched, Table};
use super::op::{Object, Op};
use crate::dir::{dirent_slot, str_hash};
use crate::error::{Error, Result};
use crate::hashed::{Probe, slots};
use crate::make::check_name;

/// An entry as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Where its key really is.
    pub(crate) pos: Bpos,
    pub(crate) target: DirentTarget,
    pub(crate) ty: DirentType,
}

impl Entry {
    /// The target is a subvolume.
    pub(crate) fn is_subvol(&self) -> bool {
        matches!(self.target, DirentTarget::Subvol { .. })
    }
}

/// What a search for a name met.
pub(crate) struct NameSearch {
    /// The slot the name belongs at.
    pub(crate) hash: u64,
    pub(crate) found: Option<Entry>,
    free: Option<u64>,
}

impl NameSearch {
    /// The entry.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) fn entry(&self) -> Result<Entry> {
        self.found.ok_or(Error::NotFound)
    }

    /// The slot for a new entry.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub(crate) fn free(&self) -> Result<u64> {
        match (self.found, self.free) {
            (None, Some(free)) => Ok(free),
            _ => Err(Error::Exists),
        }
    }
}

/// Whether an entry can have that name: for new ones, and those that must exist.
pub(crate) fn must_be_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::NameTooLong);
    }
    match name {
        b"" => Err(Error::NotFound),
        b"." | b".." => Err(Error::Invalid("the name is reserved")),
        _ => check_name(name).map_err(|_| Error::Invalid("the name has a slash or a zero byte")),
    }
}

/// What a key of a directory says, if the subvolume may see it.
fn decode<'k>(dir: &Object, key: Key<'k>) -> Option<Dirent<'k>> {
    let entry = (key.k.ty == KeyType::DIRENT).then(|| Dirent::decode(key.value).ok())??;
    Some(entry)
        .filter(|e| !matches!(e.target, DirentTarget::Subvol { parent, .. } if parent != dir.place.subvol))
}

fn table(dir: &Object) -> Table<'_> {
    Table { btree: BtreeId::DIRENTS, view: &dir.place.view, owner: dir.inum }
}

/// Where the item in a key belongs; what cannot be read may belong anywhere. `None` for what the subvolume must not see.
fn hash_of(dir: &Object, hash: &StrHash, key: Key<'_>) -> Option<u64> {
    match Dirent::decode(key.value) {
        Err(_) => Some(0),
        Ok(_) => decode(dir, key).map(|entry| hash.dirent(entry.lookup_name())),
    }
}

impl Op<'_, '_> {
    /// Searches for a name. It passed [`must_be_name`].
    pub(crate) fn search_name(&self, dir: &Object, name: &[u8]) -> Result<NameSearch> {
        let hash = dirent_slot(dir.node(), &dir.inode, name)?;
        let Searched { found, free } = table(dir).search(self, hash, |key| {
            if Dirent::decode(key.value).is_err() {
                return Probe::Other;
            }
            match decode(dir, key) {
                None => Probe::Invisible,
                Some(entry) if entry.lookup_name() == name => Probe::Found((entry.target, entry.ty)),
                Some(_) => Probe::Other,
            }
        })?;
        let found = found.map(|(pos, (target, ty))| Entry { pos, target, ty });
        Ok(NameSearch { hash, found, free })
    }

    /// Writes an entry at a slot of the directory.
    pub(crate) fn put_entry(
        &mut self,
        dir: &Object,
        slot: u64,
        name: &[u8],
        (target, ty): (DirentTarget, DirentType),
    ) {
        let mut value = Vec::with_capacity(16 + name.len());
        Dirent { target, ty, name, folded: None }.encode(&mut value);
        let pos = dir.place.pos(dir.inum.0, slot);
        self.t.put(BtreeId::DIRENTS, KeyBuf::new(KeyType::DIRENT, pos, 0, value));
    }

    /// Takes an entry out.
    pub(crate) fn take_entry(&mut self, dir: &Object, entry: &Entry) -> Result<()> {
        self.take_from_ancestor(dir, entry)?;
        let hash = str_hash(dir.node(), &dir.inode)?;
        table(dir).remove(self, entry.pos.offset, |key| hash_of(dir, &hash, key))
    }

    /// Takes an entry out and leaves a mark in any case.
    pub(crate) fn take_entry_marked(&mut self, dir: &Object, entry: &Entry) -> Result<()> {
        self.take_from_ancestor(dir, entry)?;
        table(dir).put_whiteout(self, dir.place.pos(dir.inum.0, entry.pos.offset));
        Ok(())
    }

    /// Of a subvolume's entry there is only one key (spec 40 §5.3). If that is in an ancestor of the directory's snapshot, because a snapshot was made
    /// since, it goes there, and leaves a mark there if other entries were pushed past it: snapshots that do not see the entry see those.
    pub(crate) fn take_from_ancestor(&mut self, dir: &Object, entry: &Entry) -> Result<()> {
        if !entry.is_subvol() || entry.pos.snapshot == dir.place.view.id().0 {
            return Ok(());
        }
        let view = self.fs.names.snapshots.view(SnapshotId(entry.pos.snapshot))?;
        let hash = str_hash(dir.node(), &dir.inode)?;
        let there = Table { view: &view, ..table(dir) };
        there.remove(self, entry.pos.offset, |key| hash_of(dir, &hash, key))
    }

    /// Whether the directory has no entries.
    pub(crate) fn is_empty(&self, dir: &Object) -> Result<bool> {
        let mut cursor = self.t.visible(BtreeId::DIRENTS, &dir.place.view, slots(dir.inum, 0));
        while let Some(key) = cursor.next()? {
            if key.k.ty == KeyType::DIRENT
                && (decode(dir, key).is_some() || Dirent::decode(key.value).is_err())
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
