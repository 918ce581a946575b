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
use frazil_ondisk::units::Inum;
use frazil_ondisk::values::dirent::{Dirent, DirentTarget, NAME_BYTES_MAX};
use frazil_ondisk::values::inode::{FileType as DirentType, Inode, InodeFlags, InodeOpt};
use frazil_ondisk::{Bpos, BtreeId, Key, KeyType};

use crate::attr::{Attr, DirEntry, FileType, NodeId};
use crate::error::{Error, Result};
use crate::fold::fold;
use crate::hashed::{self, Probe};
use crate::namespace::{Namespace, decode_inode};
use crate::subvol::Subvol;

/// The first position behind "." and "..", which the adapters make up.
const FIRST_COOKIE: u64 = 2;
/// Positions are 63 bits; from here on a listing is at its end.
const LAST_COOKIE: u64 = i64::MAX as u64;
/// Entries whose inodes are looked up together, at first and at most. A reader often takes only what fits a page.
const BATCH_MIN: usize = 32;
const BATCH_MAX: usize = 512;

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
fn dirent_slot(node: NodeId, dir: &Inode, name: &[u8]) -> Result<u64> {
    let slot = str_hash(node, dir)?.dirent(name);
    if !dir.flags.contains(InodeFlags::DIRENT_OFFSET_31BIT) {
        return Ok(slot);
    }
    Ok((slot & 0x7fff_ffff).max(FIRST_COOKIE))
}

/// An entry of a listing before its inode was looked at.
struct Listed {
    node: NodeId,
    kind: FileType,
    next: u64,
    /// Where its name ends in the batch's buffer; it begins where the one before ends.
    name_end: usize,
}

impl Namespace {
    /// Whether names in a directory are folded: its own option, or the volume's.
    fn casefolds(&self, dir: &Inode) -> bool {
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
            Error::Stale(node) => missing_inode(self, dir, name, node),
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
        show: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (subvol, _) = self.directory(dir)?;
        if from >= LAST_COOKIE {
            return Ok(());
        }
        let from = if from <= FIRST_COOKIE { 0 } else { from };
        let mut failed = None;
        hashed::scan(&self.btrees, BtreeId::DIRENTS, &subvol.view, dir.inum, from, |key| {
            match self.list_entry(dir, key) {
                Ok(Some(entry)) => show(entry),
                Ok(None) => ControlFlow::Continue(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
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
    /// Entries come in the order of hashes and their inodes lie in the order of numbers. So a batch of entries is
    /// collected, the inodes are fetched in their own order, and then the entries are shown.
    pub(crate) fn readdir_plus(
        &self,
        dir: NodeId,
        from: u64,
        show: &mut dyn FnMut(DirEntry<'_>, Option<&Attr>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut names = Vec::new();
        let mut listed: Vec<Listed> = Vec::new();
        let mut from = from;
        let mut batch = BATCH_MIN;
        loop {
            names.clear();
            listed.clear();
            let end = self.readdir(dir, from, &mut |entry| {
                names.extend_from_slice(entry.name);
                let DirEntry { node, kind, next, .. } = entry;
                listed.push(Listed { node, kind, next, name_end: names.len() });
                if listed.len() < batch { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            let attrs = self.attrs_of(dir, &listed)?;
            let mut name_start = 0;
            for (Listed { node, kind, next, name_end }, attr) in listed.iter().zip(&attrs) {
                let name = &names[name_start..*name_end];
                name_start = *name_end;
                if attr.is_none() {
                    tracing::error!("{}", missing_inode(self, dir, name, *node));
                }
                // The inode knows what the object is; the entry only repeats it.
                let kind = attr.as_ref().map_or(*kind, |attr| attr.kind);
                let entry = DirEntry { node: *node, kind, name, next: *next };
                if show(entry, attr.as_ref()).is_break() {
                    return Ok(());
                }
            }
            end?;
            match listed.last() {
                Some(last) if listed.len() == batch => from = last.next,
                _ => return Ok(()),
            }
            batch = (batch * 2).min(BATCH_MAX);
        }
    }

    /// The attributes of a batch of entries, in the order of the entries.
    fn attrs_of(&self, dir: NodeId, listed: &[Listed]) -> Result<Vec<Option<Attr>>> {
        let (subvol, _) = self.directory(dir)?;
        let mut order: Vec<(Inum, usize)> = Vec::with_capacity(listed.len());
        let mut attrs = vec![None; listed.len()];
        for (i, entry) in listed.iter().enumerate() {
            if entry.node.subvol == dir.subvol {
                order.push((entry.node.inum, i));
            } else {
                attrs[i] = self.getattr(entry.node).ok();
            }
        }
        order.sort_unstable();
        let range = Bpos::MIN..Bpos::new(0, u64::MAX, 0);
        let mut cursor = self.btrees.visible(BtreeId::INODES, &subvol.view, range);
        for (inum, i) in order {
            cursor.seek(Bpos::new(0, inum.0, 0));
            // What a lost node held has been logged where it was found to be lost.
            let Ok(Some(key)) = cursor.next() else { continue };
            if key.k.pos.offset == inum.0
                && let Ok(Some(mut inode)) = decode_inode(key)
            {
                self.unfinished.settle(listed[i].node, &mut inode);
                attrs[i] = self.attr(listed[i].node, &inode).ok();
            }
        }
        Ok(attrs)
    }
}

/// Whether bytes can be the name of a file.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// An entry that leads nowhere.
fn missing_inode(names: &Namespace, dir: NodeId, name: &[u8], node: NodeId) -> Error {
    let path = names.path_of(dir);
    let (path, name) = (path.escape_ascii(), name.escape_ascii());
    Error::Io(format!(
        "{path}: the entry {name} leads to inode {node}, which cannot be read or does not exist"
    ))
}
