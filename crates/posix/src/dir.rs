//! Names: looking one up, and listing a directory (spec 40 §5).
//!
//! A directory is a hash table ([`crate::hashed`]) seeded by its inode. Three things make an entry more than a name and a number:
//! an entry that leads to a subvolume is seen only through the subvolume it was made in, so that a snapshot of a tree
//! does not contain the subvolumes below it a second time (spec 40 §5.3); in a casefolding directory the folded name is what is
//! hashed and compared (spec 80 §5.9); and a directory may keep its hashes below 2³¹ (spec 80 §5.12).
//!
//! A listing is in the order of the hashes. The position of an entry is a property of its name and not of the listing, so a
//! position handed out stays good while other entries come and go.

use std::ops::ControlFlow;

use frazil_ondisk::str_hash::{StrHash, StrHashType};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget, NAME_BYTES_MAX};
use frazil_ondisk::values::inode::{FileType as DirentType, Inode, InodeFlags, InodeOpt};
use frazil_ondisk::{BtreeId, Key, KeyType};

use crate::attr::{Attr, DirEntry, FileType, NodeId};
use crate::error::{Error, Result};
use crate::fold::fold;
use crate::hashed::{self, OnDamage, Probe};
use crate::namespace::Namespace;
use crate::subvol::Subvol;

/// The first position behind "." and "..", which the adapters make up.
const FIRST_COOKIE: u64 = 2;
/// Positions are 63 bits; from here on a listing is at its end.
const LAST_COOKIE: u64 = i64::MAX as u64;

/// The hash function of an inode's entries or attributes.
///
/// # Errors
/// If the inode names one that does not exist.
pub(crate) fn str_hash(node: NodeId, inode: &Inode) -> Result<StrHash> {
    let ty = StrHashType::from_raw(inode.str_hash)
        .ok_or_else(|| Error::Io(format!("inode {node} has an unknown string hash {}", inode.str_hash)))?;
    Ok(StrHash::new(ty, inode.hash_seed))
}

/// The slot a (folded) name belongs at in a directory.
pub(crate) fn dirent_slot(node: NodeId, dir: &Inode, name: &[u8]) -> Result<u64> {
    let slot = str_hash(node, dir)?.dirent(name);
    if !dir.flags.contains(InodeFlags::DIRENT_OFFSET_31BIT) {
        return Ok(slot);
    }
    Ok((slot & 0x7fff_ffff).max(FIRST_COOKIE))
}

impl Namespace {
    /// Whether names in a directory are folded: its own option, or the volume's.
    pub(crate) fn casefolds(&self, dir: &Inode) -> bool {
        dir.opts.get(InodeOpt::Casefold).map_or(self.casefold, |on| on != 0)
    }

    /// The object a name in a directory leads to.
    pub(crate) fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Attr> {
        let (subvol, inode) = self.directory(dir)?;
        match name {
            b"." => return self.attr(dir, &inode),
            b".." => return self.getattr(self.parent(dir)?),
            _ => {}
        }
        let target = if self.casefolds(&inode) {
            let mut folded = Vec::new();
            if !fold(name, &mut folded) {
                return Err(Error::Invalid("the name is not UTF-8, and the directory ignores case"));
            }
            self.find_entry(dir, &inode, &subvol, &folded)?
        } else {
            self.find_entry(dir, &inode, &subvol, name)?
        };
        let node = self.resolve(dir, target.ok_or(Error::NotFound)?)?.ok_or(Error::NotFound)?;
        self.getattr(node).map_err(|e| match e {
            Error::Stale(node) => {
                let path = self.path_of(dir);
                let (path, name) = (path.escape_ascii(), name.escape_ascii());
                Error::Io(format!("{path}: the entry {name} leads to inode {node}, which does not exist"))
            }
            other => other,
        })
    }

    /// What the entry with that (folded) name leads to.
    fn find_entry(
        &self,
        dir: NodeId,
        inode: &Inode,
        subvol: &Subvol,
        name: &[u8],
    ) -> Result<Option<DirentTarget>> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        let slot = dirent_slot(dir, inode, name)?;
        hashed::find(&self.btrees, BtreeId::DIRENTS, &subvol.view, dir.inum, slot, |key| {
            // What cannot be decoded still holds its place in the chain.
            let Ok(entry) = Dirent::decode(key.value) else { return Probe::Other };
            match entry.target {
                _ if key.k.ty != KeyType::DIRENT => Probe::Other,
                DirentTarget::Subvol { parent, .. } if parent != dir.subvol => Probe::Invisible,
                target if entry.lookup_name() == name => Probe::Found(target),
                _ => Probe::Other,
            }
        })
    }

    /// The object that an entry of `dir` leads to; `None` if it is a subvolume that is gone, or seen from elsewhere.
    fn resolve(&self, dir: NodeId, target: DirentTarget) -> Result<Option<NodeId>> {
        Ok(match target {
            DirentTarget::Inode(inum) => Some(NodeId { subvol: dir.subvol, inum }),
            DirentTarget::Subvol { parent, .. } if parent != dir.subvol => None,
            DirentTarget::Subvol { child, .. } => {
                self.subvol(child)?.map(|subvol| NodeId { subvol: child, inum: subvol.root })
            }
        })
    }

    /// Shows the entries of a directory at or behind position `from`.
    pub(crate) fn readdir(
        &self,
        dir: NodeId,
        from: u64,
        on_damage: OnDamage,
        show: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (subvol, _) = self.directory(dir)?;
        if from >= LAST_COOKIE {
            return Ok(());
        }
        let from = if from <= FIRST_COOKIE { 0 } else { from };
        let mut failed = Ok(());
        let scanned =
            hashed::scan(&self.btrees, BtreeId::DIRENTS, &subvol.view, dir.inum, from, on_damage, |key| {
                match self.list_entry(dir, key) {
                    Ok(Some(entry)) => show(entry),
                    Ok(None) => ControlFlow::Continue(()),
                    Err(e) => {
                        // One subvolume that cannot be had must not hide all other entries.
                        tracing::error!("directory {dir}: the entry at {}: {e}", key.k.pos);
                        if on_damage == OnDamage::PassOver {
                            failed = Err(e);
                        }
                        ControlFlow::Continue(())
                    }
                }
            });
        scanned.and(failed)
    }

    /// A key of the directory as an entry of its listing; `None` if it is to be passed over.
    fn list_entry<'k>(&self, dir: NodeId, key: Key<'k>) -> Result<Option<DirEntry<'k>>> {
        if key.k.ty != KeyType::DIRENT {
            return Ok(None);
        }
        let Some(entry) = Dirent::decode(key.value).ok().filter(|entry| is_name(entry.name)) else {
            tracing::error!("directory {dir}: the entry at {} has no usable name", key.k.pos);
            return Ok(None);
        };
        let Some(node) = self.resolve(dir, entry.target)? else { return Ok(None) };
        let kind = if entry.ty == DirentType::SUBVOL {
            Some(FileType::Directory)
        } else {
            // A type that cannot be is damage; the inode knows better.
            FileType::from_dtype(entry.ty.0).or_else(|| self.getattr(node).ok().map(|attr| attr.kind))
        };
        let next = key.k.pos.offset.saturating_add(1).clamp(FIRST_COOKIE + 1, LAST_COOKIE);
        Ok(kind.map(|kind| DirEntry { node, kind, name: entry.name, next }))
    }

    /// As [`Namespace::readdir`], each entry with its attributes; `None` where the inode cannot be had.
    ///
    /// Entries come in the order of hashes while inodes lie in the order of numbers. Fetching the inodes of many entries in
    /// their own order was measured and gains nothing: their nodes are in the cache, or each is wanted once anyway.
    pub(crate) fn readdir_plus(
        &self,
        dir: NodeId,
        from: u64,
        show: &mut dyn FnMut(DirEntry<'_>, Option<&Attr>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.readdir(dir, from, OnDamage::Stop, &mut |entry| {
            let attr = self.getattr(entry.node);
            match attr {
                // The inode knows what the object is; the entry only repeats it.
                Ok(attr) => show(DirEntry { kind: attr.kind, ..entry }, Some(&attr)),
                Err(e) => {
                    let path = self.path_of(dir);
                    tracing::error!("{}/{}: {e}", path.escape_ascii(), entry.name.escape_ascii());
                    show(entry, None)
                }
            }
        })
    }
}

/// Whether bytes can be the name of a file.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}
