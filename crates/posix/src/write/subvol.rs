//! Making subvolumes and snapshots (spec 40 §13.4, §13.5).
//!
//! A new subvolume is a directory in a snapshot tree of its own. A snapshot of a subvolume is made by taking its leaf from it: the leaf becomes
//! an inner node that nobody writes to any more, with two new leaves below it, one for the subvolume and one for the snapshot. Nothing is copied but
//! the root directory's inode, which has to say whose root it is; from then on both see the same keys until they write their own.
//!
//! Each is one transaction. Afterwards the table of snapshots in memory is read anew; who comes between finds out by himself (`op.rs`).

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use frazil_btree::{SnapshotInfo, SnapshotTable};
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::dirent::DirentTarget;
use frazil_ondisk::values::inode::{FileType as DirentType, Inode};
use frazil_ondisk::values::snapshot::{Snapshot, SnapshotState, SnapshotTree};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use super::caller::{Caller, must_be_mutable};
use super::create::NewNode;
use super::entries::must_be_name;
use super::front::Front;
use super::op::{Object, Op, Place};
use crate::attr::{Attr, NodeId};
use crate::error::{Error, Result};
use crate::namespace::decode_inode;

/// Largest id of a subvolume (spec 40 §13.2).
const SUBVOL_MAX: u64 = i32::MAX as u64;

impl Front<'_> {
    /// Makes an empty subvolume, and a name for it. Returns its root.
    ///
    /// # Errors
    /// As [`Front::create`] of a directory.
    pub fn create_subvolume(&self, dir: NodeId, name: &[u8], perm: u16, caller: &Caller<'_>) -> Result<Attr> {
        must_be_name(name)?;
        let mut number = self.numbers.draw();
        let root = self.change(|op| {
            let mut parent = op.directory(dir)?;
            let slot = op.search_name(&parent, name)?.free()?;
            let (subvol, [snapshot]) = (op.new_subvol_id()?, op.new_snapshot_ids()?);
            op.note_subvolume(subvol);
            let tree = op.new_tree_id()?;
            let record = Subvolume {
                snapshot,
                fs_path_parent: dir.subvol,
                otime: op.now() as u64 as u128,
                ..Subvolume::default()
            };
            let node = Snapshot {
                flags: Snapshot::SUBVOL,
                subvol,
                tree,
                btime: op.now() as u64 as u128,
                ..Snapshot::default()
            };
            let table = op.table_with(&[(snapshot, &node)]);
            let mut place = Arc::new(Place { subvol, record, view: table.view(snapshot)? });
            let mut root = op.make((&parent, &place), NewNode::Directory, perm, caller, &mut number)?;
            Arc::make_mut(&mut place).record.inode = root.inum;
            op.put_snapshot(snapshot, &node);
            op.put_tree(tree, SnapshotTree { master_subvol: subvol, root_snapshot: snapshot });
            op.put_subvolume(subvol, &place.record);
            op.root_in(&mut root, &parent, subvol, slot);
            op.put_subvol_entry(&mut parent, slot, name, subvol);
            Ok(root.node())
        })?;
        number.keep();
        self.names.refresh_snapshots()?;
        self.getattr(root)
    }

    /// Makes a snapshot of a subvolume, and a name for it. Returns its root. Waits for operations of several transactions.
    ///
    /// # Errors
    /// As [`Front::create`] of a directory; `Stale` if there is no such subvolume; `NotPermitted` unless the caller owns its root;
    /// `Busy` if an operation was interrupted in it by a crash and has not been finished.
    pub fn create_snapshot(
        &self,
        source: SubvolId,
        dir: NodeId,
        name: &[u8],
        read_only: bool,
        caller: &Caller<'_>,
    ) -> Result<Attr> {
        must_be_name(name)?;
        let alone = self.snapshot_gate.write();
        let root = self.change(|op| {
            if op.t.cursor(BtreeId::LOGGED_OPS, Bpos::MIN..Bpos::new(1, 0, 0)).next()?.is_some() {
                return Err(Error::Busy("an operation on a file is under way"));
            }
            let mut parent = op.directory(dir)?;
            let slot = op.search_name(&parent, name)?.free()?;
            must_be_mutable(&parent.inode)?;
            op.snapshot(source, (&mut parent, slot, name), read_only, caller)
        })?;
        drop(alone);
        self.names.refresh_snapshots()?;
        self.getattr(root)
    }
}

/// An inode names the subvolume, and where its name is, like another.
fn name_like(inode: &mut Inode, other: &Inode) {
    (inode.subvol, inode.parent_subvol) = (other.subvol, other.parent_subvol);
    (inode.dir, inode.dir_offset) = (other.dir, other.dir_offset);
}

impl Op<'_, '_> {
    fn snapshot(
        &mut self,
        source: SubvolId,
        (parent, slot, name): (&mut Object, u64, &[u8]),
        read_only: bool,
        caller: &Caller<'_>,
    ) -> Result<NodeId> {
        let no_source = || Error::Stale(NodeId { subvol: source, ..NodeId::ROOT });
        let from = self.find_place(source)?.ok_or_else(no_source)?;
        let mut root = self.referred(&from, from.record.inode)?;
        caller.must_own(&root.inode)?;
        let leaf = from.record.snapshot;
        let old = self.get_snapshot(leaf)?;
        if old.subvol != source || old.children != [SnapshotId(0); 2] {
            return Err(Error::Io(format!("snapshot {leaf} is not the leaf of subvolume {source}")));
        }
        let subvol = self.new_subvol_id()?;
        let [of_new, of_source] = self.new_snapshot_ids()?;
        let below = |subvol| Snapshot {
            flags: Snapshot::SUBVOL,
            parent: leaf,
            subvol,
            tree: old.tree,
            depth: old.depth + 1,
            skip: [leaf; 3],
            btime: self.now() as u64 as u128,
            ..Snapshot::default()
        };
        let (new_node, source_node) = (below(subvol), below(source));
        let table = self.table_with(&[(of_new, &new_node), (of_source, &source_node)]);
        let inner = Snapshot {
            flags: old.flags & !Snapshot::SUBVOL,
            children: [of_new, of_source],
            subvol: SubvolId(0),
            ..old
        };
        self.put_snapshot(leaf, &inner);
        self.put_snapshot(of_new, &new_node);
        self.put_snapshot(of_source, &source_node);
        let moved = Subvolume { snapshot: of_source, ..from.record };
        let moved = Arc::new(Place { subvol: source, record: moved, view: table.view(of_source)? });
        self.put_subvolume(source, &moved.record);
        if parent.place.subvol == source {
            parent.place = moved;
        }
        let record = Subvolume {
            flags: Subvolume::SNAP | if read_only { Subvolume::RO } else { 0 },
            snapshot: of_new,
            inode: from.record.inode,
            creation_parent: source,
            fs_path_parent: parent.place.subvol,
            otime: self.now() as u64 as u128,
            state: None,
        };
        let place = Arc::new(Place { subvol, record, view: table.view(of_new)? });
        self.put_subvolume(subvol, &place.record);
        root.place = place;
        self.root_in(&mut root, parent, subvol, slot);
        self.put_subvol_entry(parent, slot, name, subvol);
        Ok(root.node())
    }

    /// The root of a new subvolume says so, and where its name is.
    fn root_in(&mut self, root: &mut Object, parent: &Object, subvol: SubvolId, slot: u64) {
        let inode = &mut root.inode;
        (inode.subvol, inode.parent_subvol) = (subvol, parent.place.subvol);
        (inode.dir, inode.dir_offset) = (parent.inum, slot);
        self.put(root);
    }

    fn put_subvol_entry(&mut self, parent: &mut Object, slot: u64, name: &[u8], child: SubvolId) {
        let target = DirentTarget::Subvol { child, parent: parent.place.subvol };
        self.put_entry(parent, slot, name, (target, DirentType::SUBVOL));
        self.touch_dir(parent);
    }

    /// Writes the record of a subvolume.
    pub(crate) fn put_subvolume(&mut self, id: SubvolId, record: &Subvolume) {
        let mut value = Vec::with_capacity(48);
        record.encode(&mut value);
        let pos = Bpos::new(0, id.0.into(), 0);
        self.t.put(BtreeId::SUBVOLUMES, KeyBuf::new(KeyType::SUBVOLUME, pos, 0, value));
    }

    /// The versions of a subvolume's root that lie in inner nodes of the tree: with each snapshot the one that was is left there. Nobody sees them
    /// any more, but a check does, and what they say about the name has to be true (spec 40 §13.5).
    fn older_roots(&self, root: &Object) -> Result<Vec<(Bpos, Inode)>> {
        let own = root.place.pos(0, root.inum.0);
        let all = (Bound::Excluded(own), Bound::Included(own.with_snapshot(u32::MAX)));
        let mut cursor = self.t.cursor(BtreeId::INODES, all);
        let mut found = Vec::new();
        while let Some(key) = cursor.next()? {
            if let Some(inode) = decode_inode(key)?
                && root.place.view.sees(key.k.pos.snapshot)
                && inode.subvol == root.inode.subvol
            {
                found.push((key.k.pos, inode));
            }
        }
        Ok(found)
    }

    /// The older versions of a root say what it says now.
    pub(crate) fn older_roots_follow(&mut self, root: &Object) -> Result<()> {
        for (pos, mut older) in self.older_roots(root)? {
            name_like(&mut older, &root.inode);
            self.put_version(pos, &older);
        }
        Ok(())
    }

    /// A subvolume goes: the older versions of its root become those of the root of another subvolume below them, or have no name either.
    pub(crate) fn older_roots_change_hands(&mut self, root: &Object) -> Result<()> {
        for (pos, mut older) in self.older_roots(root)? {
            match self.other_root_below(pos, root)? {
                Some(other) => name_like(&mut older, &other),
                None => (older.dir, older.dir_offset) = (Inum(0), 0),
            }
            self.put_version(pos, &older);
        }
        Ok(())
    }

    /// The root of another subvolume that descends from the snapshot of `pos` and has the same inode as its root.
    fn other_root_below(&self, pos: Bpos, root: &Object) -> Result<Option<Inode>> {
        let mut cursor = self.t.cursor(BtreeId::SUBVOLUMES, ..);
        let mut ids = Vec::new();
        while let Some(key) = cursor.next()? {
            ids.extend(
                u32::try_from(key.k.pos.offset).map(SubvolId).ok().filter(|id| *id != root.place.subvol),
            );
        }
        drop(cursor);
        for id in ids {
            if let Some(place) = self.find_place(id)?
                && place.record.inode == root.inum
                && place.view.sees(pos.snapshot)
            {
                return Ok(Some(self.referred(&place, root.inum)?.inode));
            }
        }
        Ok(None)
    }

    /// The table of snapshots with new ones.
    fn table_with(&self, new: &[(SnapshotId, &Snapshot)]) -> Arc<SnapshotTable> {
        let infos = new.iter().map(|&(id, node)| SnapshotInfo {
            id,
            parent: Some(node.parent).filter(|parent| parent.0 != 0),
            state: SnapshotState::Live,
        });
        Arc::new(self.fs.names.snapshots.table().with(infos))
    }

    /// The smallest id of a snapshot shrinks.
    fn new_snapshot_ids<const N: usize>(&self) -> Result<[SnapshotId; N]> {
        let lowest = self.t.cursor(BtreeId::SNAPSHOTS, ..).next()?.map(|key| key.k.pos.offset);
        // Without any, the first is the largest possible one.
        let lowest = lowest.and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX);
        let count = N as u32;
        if lowest <= count {
            return Err(Error::NoSpace);
        }
        Ok(std::array::from_fn(|i| SnapshotId(lowest - 1 - i as u32)))
    }

    fn new_subvol_id(&self) -> Result<SubvolId> {
        let deleted = self.fs.deleted_subvol_max.load(Ordering::Relaxed);
        let last = self.last_id(BtreeId::SUBVOLUMES)?.max(deleted.into());
        if last >= SUBVOL_MAX { Err(Error::NoSpace) } else { Ok(SubvolId(last as u32 + 1)) }
    }

    fn new_tree_id(&self) -> Result<u32> {
        u32::try_from(self.last_id(BtreeId::SNAPSHOT_TREES)? + 1).map_err(|_| Error::NoSpace)
    }

    /// The largest id in one of the b-trees whose positions are ids.
    fn last_id(&self, btree: BtreeId) -> Result<u64> {
        let mut cursor = self.t.cursor(btree, Bpos::MIN..Bpos::new(1, 0, 0));
        cursor.seek_end();
        Ok(cursor.prev()?.map_or(0, |key| key.k.pos.offset))
    }

    /// A node of a snapshot tree.
    ///
    /// # Errors
    /// [`Error::Io`] if it does not exist.
    pub(crate) fn get_snapshot(&self, id: SnapshotId) -> Result<Snapshot> {
        let key = self.t.get(BtreeId::SNAPSHOTS, Bpos::new(0, id.0.into(), 0))?;
        let key = key.ok_or_else(|| Error::Io(format!("snapshot {id} does not exist")))?;
        Snapshot::decode(key.key().value).map_err(|e| Error::Io(format!("snapshot {id}: {e}")))
    }

    pub(crate) fn put_snapshot(&mut self, id: SnapshotId, node: &Snapshot) {
        let mut value = Vec::with_capacity(64);
        node.encode(&mut value);
        let pos = Bpos::new(0, id.0.into(), 0);
        self.t.put(BtreeId::SNAPSHOTS, KeyBuf::new(KeyType::SNAPSHOT, pos, 0, value));
    }

    pub(crate) fn put_tree(&mut self, id: u32, tree: SnapshotTree) {
        let mut value = Vec::with_capacity(8);
        tree.encode(&mut value);
        let pos = Bpos::new(0, id.into(), 0);
        self.t.put(BtreeId::SNAPSHOT_TREES, KeyBuf::new(KeyType::SNAPSHOT_TREE, pos, 0, value));
    }
}
