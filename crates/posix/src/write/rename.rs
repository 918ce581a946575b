//! `rename` (spec 40 §5.5, §15).
//!
//! One transaction looks at both names and at both objects, so whatever it decides holds for the moment it happens. In hash chains
//! three things are to be kept: a search for the new name must find it, a search for the old one must not, and searches for others must
//! go on over the old slot as before. Where the old entry lies in the chain of the new name, the new entry takes its slot.
//!
//! A directory must not come to lie in itself: from the new place upwards it must not be met.

use std::sync::Arc;

use frazil_ondisk::values::dirent::DirentTarget;
use frazil_ondisk::values::inode::InodeFlags;

use super::caller::{Caller, must_be_mutable};
use super::create::{NewNode, dirent_type};
use super::entries::{Entry, NameSearch, must_be_name};
use super::front::Front;
use super::link::reinherit;
use super::numbers::Draw;
use super::op::{Object, Op};
use crate::attr::NodeId;
use crate::error::{Error, Result};
use crate::path::holder;

/// What happens if the new name exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RenameMode {
    /// What it names loses it.
    #[default]
    Replace,
    /// It is an error (`RENAME_NOREPLACE`).
    NoReplace,
    /// The two change places; both must exist (`RENAME_EXCHANGE`).
    Exchange,
}

/// Levels a directory may lie deep; more is a loop.
const DEPTH_MAX: usize = 1 << 20;

/// One side of a rename.
struct Side<'n> {
    name: &'n [u8],
    search: NameSearch,
    /// The object with that name, and its entry.
    object: Option<(Object, Entry)>,
}

impl Front<'_> {
    /// Moves the name `from` (directory, name) to `to`. With `whiteout` an object takes the old place that overlays take for "nothing here"
    /// (`RENAME_WHITEOUT`).
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `IsDirectory`, `NotEmpty`, `Exists`, `NameTooLong`; `CrossesBorder` for anything but a subvolume into another
    /// subvolume, and for a directory into one with other options; `Invalid` for a directory into itself; `Busy` for a subvolume
    /// in the way; `NotPermitted` as for [`Front::unlink`], on either side.
    pub fn rename(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        mode: RenameMode,
        whiteout: bool,
        caller: &Caller<'_>,
    ) -> Result<()> {
        must_be_name(from.1)?;
        must_be_name(to.1)?;
        if whiteout && mode == RenameMode::Exchange {
            return Err(Error::Invalid("an exchange leaves no place for a whiteout"));
        }
        let mut number = self.numbers.draw();
        loop {
            let done = self.change(|op| {
                let mut rename = Rename::look(op, from, to)?;
                if rename.is_nothing(mode)? {
                    return Ok(Done::default());
                }
                rename.must_be_allowed(op, mode, caller)?;
                if mode == RenameMode::Exchange {
                    rename.exchange(op)?;
                    return Ok(Done::default());
                }
                let Some(replaced) = rename.replace(op)? else {
                    return Ok(Done { partly: true, ..Done::default() });
                };
                if whiteout {
                    rename.leave_whiteout(op, caller, &mut number)?;
                }
                rename.put_dirs(op);
                Ok(replaced)
            })?;
            if let Some(dir) = &done.directory {
                self.after_directory(dir);
            }
            self.after_last_name(done.nameless);
            if !done.partly {
                number.keep();
                return Ok(());
            }
        }
    }
}

/// What a transaction did to the object in the way.
#[derive(Default)]
struct Done {
    /// A file that has no name any more.
    nameless: Option<NodeId>,
    /// A directory that is gone.
    directory: Option<Object>,
    /// Only a part of what a directory in the way left behind has gone.
    partly: bool,
}

/// A rename in its transaction.
struct Rename<'n> {
    src_dir: Object,
    /// `None` if it is the same directory.
    dst_dir: Option<Object>,
    src: Side<'n>,
    dst: Side<'n>,
}

impl<'n> Rename<'n> {
    fn look(op: &Op<'_, '_>, from: (NodeId, &'n [u8]), to: (NodeId, &'n [u8])) -> Result<Rename<'n>> {
        let src_dir = op.directory(from.0)?;
        let dst_dir = if from.0 == to.0 { None } else { Some(op.directory(to.0)?) };
        let side = |dir: &Object, name: &'n [u8]| -> Result<Side<'n>> {
            let search = op.search_name(dir, name)?;
            let object = search.found.map(|e| Ok::<_, Error>((op.target_of(dir, &e)?, e))).transpose()?;
            Ok(Side { name, search, object })
        };
        let src = side(&src_dir, from.1)?;
        let dst = side(dst_dir.as_ref().unwrap_or(&src_dir), to.1)?;
        if src.object.is_none() {
            return Err(Error::NotFound);
        }
        Ok(Rename { src_dir, dst_dir, src, dst })
    }

    fn dst_dir(&self) -> &Object {
        self.dst_dir.as_ref().unwrap_or(&self.src_dir)
    }

    fn dst_dir_mut(&mut self) -> &mut Object {
        self.dst_dir.as_mut().unwrap_or(&mut self.src_dir)
    }

    fn moved(&self) -> &(Object, Entry) {
        self.src.object.as_ref().expect("what is renamed exists")
    }

    /// Whether both names lead to the same object, and nothing is to be done.
    fn is_nothing(&self, mode: RenameMode) -> Result<bool> {
        match (&self.dst.object, mode) {
            (Some(_), RenameMode::NoReplace) => Err(Error::Exists),
            (None, RenameMode::Exchange) => Err(Error::NotFound),
            (Some((target, _)), _) => Ok(target.node() == self.moved().0.node()),
            (None, _) => Ok(false),
        }
    }

    /// Everything that forbids it.
    fn must_be_allowed(&mut self, op: &Op<'_, '_>, mode: RenameMode, caller: &Caller<'_>) -> Result<()> {
        let exchange = mode == RenameMode::Exchange;
        let (moved, entry) = self.moved();
        caller.may_take(&self.src_dir.inode, &moved.inode)?;
        must_be_mutable(&self.dst_dir().inode)?;
        let crosses = !self.src_dir.is_beside(self.dst_dir());
        if crosses && !entry.is_subvol() {
            return Err(Error::CrossesBorder);
        }
        if let Some((target, target_entry)) = &self.dst.object {
            caller.may_take(&self.dst_dir().inode, &target.inode)?;
            if exchange && crosses && !target_entry.is_subvol() {
                return Err(Error::CrossesBorder);
            }
            match (moved.inode.is_dir(), target.inode.is_dir()) {
                _ if exchange => {}
                (true, false) => return Err(Error::NotDirectory),
                (false, true) => return Err(Error::IsDirectory),
                _ if target_entry.is_subvol() => return Err(Error::Busy("a subvolume has that name")),
                _ => {}
            }
        }
        if self.dst_dir.is_some() {
            if moved.inode.is_dir() {
                op.must_not_be_below(self.dst_dir(), moved.node())?;
            }
            if let Some((target, _)) = &self.dst.object
                && exchange
                && target.inode.is_dir()
            {
                op.must_not_be_below(&self.src_dir, target.node())?;
            }
            self.take_over_options(exchange)?;
        }
        Ok(())
    }

    /// What moves into another directory gets its options; a directory must not change by that (spec 40 §2.7).
    fn take_over_options(&mut self, exchange: bool) -> Result<()> {
        let (src_inode, dst_inode) = (self.src_dir.inode, self.dst_dir().inode);
        let take_over = |object: &mut Option<(Object, Entry)>, dir| {
            let Some((object, _)) = object else { return Ok(()) };
            let changed = reinherit(&mut object.inode, dir);
            if changed && object.inode.is_dir() { Err(Error::CrossesBorder) } else { Ok(()) }
        };
        take_over(&mut self.src.object, &dst_inode)?;
        if exchange { take_over(&mut self.dst.object, &src_inode) } else { Ok(()) }
    }

    /// Moves the entry, over another or not. `None` if a directory in the way could only be removed in part.
    fn replace(&mut self, op: &mut Op<'_, '_>) -> Result<Option<Done>> {
        let mut done = Done::default();
        let in_the_way = self.dst.object.take();
        if let Some((target, entry)) = &in_the_way {
            if target.inode.is_dir() {
                if !op.remove_directory(target)? {
                    return Ok(None);
                }
                op.loses_directory(self.dst_dir_mut());
                done.directory = Some(target.clone());
            } else {
                let mut target = target.clone();
                op.loses_name(&mut target, self.dst_dir(), entry);
                let nameless = target.inode.flags.contains(InodeFlags::UNLINKED);
                done.nameless = nameless.then(|| target.node());
            }
        }
        let (moved, entry) = self.moved().clone();
        let old_slot = entry.pos.offset;
        let slot = match &in_the_way {
            Some((_, entry)) => entry.pos.offset,
            None => self.dst.search.free()?,
        };
        let in_chain = self.dst_dir.is_none() && self.dst.search.hash <= old_slot && old_slot < slot;
        let new = self.as_entry_of(self.dst_dir(), &entry);
        let slot = if in_chain && in_the_way.is_none() {
            op.take_from_ancestor(&self.src_dir, &entry)?;
            op.put_entry(self.dst_dir(), old_slot, self.dst.name, new);
            old_slot
        } else {
            op.put_entry(self.dst_dir(), slot, self.dst.name, new);
            if in_chain {
                op.take_entry_marked(&self.src_dir, &entry)?;
            } else {
                op.take_entry(&self.src_dir, &entry)?;
            }
            slot
        };
        let mut dst_dir = self.dst_dir.take();
        let to = dst_dir.as_mut().map(|dst| (&mut self.src_dir, dst));
        if let Some((src_dir, dst_dir)) = to
            && moved.inode.is_dir()
            && !entry.is_subvol()
        {
            op.loses_directory(src_dir);
            if !dst_dir.inode.link() {
                return Err(Error::TooManyLinks);
            }
        }
        self.dst_dir = dst_dir;
        op.settle_at(moved, self.dst_dir(), slot)?;
        Ok(Some(done))
    }

    /// Both entries get each other's target.
    fn exchange(&mut self, op: &mut Op<'_, '_>) -> Result<()> {
        let (moved, entry) = self.moved().clone();
        let (target, target_entry) = self.dst.object.clone().expect("both exist");
        op.take_from_ancestor(&self.src_dir, &entry)?;
        op.take_from_ancestor(self.dst_dir(), &target_entry)?;
        let (there, here) =
            (self.as_entry_of(self.dst_dir(), &entry), self.as_entry_of(&self.src_dir, &target_entry));
        op.put_entry(self.dst_dir(), target_entry.pos.offset, self.dst.name, there);
        op.put_entry(&self.src_dir, entry.pos.offset, self.src.name, here);
        if let Some(mut dst_dir) = self.dst_dir.take() {
            let plain = |object: &Object, entry: &Entry| object.inode.is_dir() && !entry.is_subvol();
            let (goes, comes) = (plain(&moved, &entry), plain(&target, &target_entry));
            let (loser, winner) = match (goes, comes) {
                (true, false) => (Some(&mut self.src_dir), Some(&mut dst_dir)),
                (false, true) => (Some(&mut dst_dir), Some(&mut self.src_dir)),
                _ => (None, None),
            };
            if let (Some(loser), Some(winner)) = (loser, winner) {
                op.loses_directory(loser);
                if !winner.inode.link() {
                    return Err(Error::TooManyLinks);
                }
            }
            self.dst_dir = Some(dst_dir);
        }
        op.settle_at(moved, self.dst_dir(), target_entry.pos.offset)?;
        op.settle_at(target, &self.src_dir, entry.pos.offset)?;
        self.put_dirs(op);
        Ok(())
    }

    /// What an entry says when it is in that directory.
    fn as_entry_of(
        &self,
        dir: &Object,
        entry: &Entry,
    ) -> (DirentTarget, frazil_ondisk::values::inode::FileType) {
        let target = match entry.target {
            DirentTarget::Subvol { child, .. } => DirentTarget::Subvol { child, parent: dir.place.subvol },
            inode => inode,
        };
        (target, entry.ty)
    }

    fn leave_whiteout(
        &mut self,
        op: &mut Op<'_, '_>,
        caller: &Caller<'_>,
        number: &mut Draw<'_>,
    ) -> Result<()> {
        let slot = op.search_name(&self.src_dir, self.src.name)?.free()?;
        let what = NewNode::CharDevice(0, 0);
        let place = Arc::clone(&self.src_dir.place);
        let mut made = op.make((&self.src_dir, &place), what, 0, caller, number)?;
        (made.inode.dir, made.inode.dir_offset) = (self.src_dir.inum, slot);
        op.put(&made);
        let target = (DirentTarget::Inode(made.inum), dirent_type(&made.inode));
        op.put_entry(&self.src_dir, slot, self.src.name, target);
        Ok(())
    }

    fn put_dirs(&mut self, op: &mut Op<'_, '_>) {
        op.touch_dir(&mut self.src_dir);
        if let Some(dir) = &mut self.dst_dir {
            op.touch_dir(dir);
        }
    }
}

impl Op<'_, '_> {
    /// The object that an entry of a directory leads to; of a subvolume its root.
    pub(crate) fn target_of(&self, dir: &Object, entry: &Entry) -> Result<Object> {
        match entry.target {
            DirentTarget::Inode(inum) => self.referred(&dir.place, inum),
            DirentTarget::Subvol { child, .. } => {
                let place = self.find_place(child)?.ok_or(Error::NotFound)?;
                self.referred(&place, place.record.inode)
            }
        }
    }

    /// A moved object remembers where it is now (spec 40 §3.7); so does a subvolume.
    fn settle_at(&mut self, mut moved: Object, dir: &Object, slot: u64) -> Result<()> {
        let inode = &mut moved.inode;
        inode.ctime = self.now();
        (inode.dir, inode.dir_offset) = (dir.inum, slot);
        if inode.subvol.0 != 0 {
            inode.parent_subvol = dir.place.subvol;
            self.older_roots_follow(&moved)?;
            if moved.place.record.fs_path_parent != dir.place.subvol {
                let mut record = moved.place.record;
                record.fs_path_parent = dir.place.subvol;
                self.put_subvolume(moved.place.subvol, &record);
            }
        }
        self.put(&moved);
        Ok(())
    }

    /// Refuses if `dir` is `top` or lies below it.
    fn must_not_be_below(&self, dir: &Object, top: NodeId) -> Result<()> {
        let (mut at, mut inode) = (dir.node(), dir.inode);
        for _ in 0..DEPTH_MAX {
            if at == top {
                return Err(Error::Invalid("a directory cannot be moved into itself"));
            }
            let Some(up) = holder(at, &inode).filter(|_| at != NodeId::ROOT) else { return Ok(()) };
            inode = self.object(up)?.inode;
            at = up;
        }
        Err(Error::Io(format!("the way up from directory {} does not end", dir.node())))
    }
}
