//! Snapshots, the trees they form, and the subvolumes that write to them (spec 60 §9.8).
//!
//! All of them are read into memory: there are few, and every one of them points at others. What is being deleted is not held to
//! the rules; it is reported as unfinished work.

use std::collections::{BTreeMap, BTreeSet};

use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::values::snapshot::{Snapshot, SnapshotState, SnapshotTree};
use frazil_ondisk::values::subvolume::{Subvolume, SubvolumeState};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use super::context::Check;
use super::faults::{SnapshotFault, SubvolFault, TreeFault};
use super::inconsistency::Inconsistency;

/// All snapshots, trees and subvolumes, by id.
#[derive(Default)]
pub(super) struct Tables {
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    trees: BTreeMap<u64, SnapshotTree>,
    subvols: BTreeMap<SubvolId, Subvolume>,
    /// Snapshots that only what is being deleted sees.
    dying: BTreeSet<SnapshotId>,
}

impl Tables {
    /// Reads them. Keys that cannot be decoded were reported before.
    pub(super) fn load(check: &mut Check<'_>) -> Tables {
        let mut tables = Tables::default();
        check.each(BtreeId::SNAPSHOTS, 0, |_, key| {
            if let (KeyType::SNAPSHOT, Ok(s)) = (key.k.ty, Snapshot::decode(key.value)) {
                tables.snapshots.insert(SnapshotId(key.k.pos.offset as u32), s);
            }
        });
        check.each(BtreeId::SNAPSHOT_TREES, 0, |_, key| {
            if let (KeyType::SNAPSHOT_TREE, Ok(t)) = (key.k.ty, SnapshotTree::decode(key.value)) {
                tables.trees.insert(key.k.pos.offset, t);
            }
        });
        check.each(BtreeId::SUBVOLUMES, 0, |_, key| {
            if let (KeyType::SUBVOLUME, Ok(s)) = (key.k.ty, Subvolume::decode(key.value)) {
                tables.subvols.insert(SubvolId(key.k.pos.offset as u32), s);
            }
        });
        tables.find_dying();
        tables
    }

    /// A subvolume that has lost its name goes with everything only it sees, in steps; what is left is not held to the rules
    /// meanwhile (spec 40 §13.6).
    fn find_dying(&mut self) {
        // Children have smaller ids, so they come first.
        for (&id, snapshot) in &self.snapshots {
            let mut children = snapshot.children.into_iter().filter(|child| child.0 != 0).peekable();
            let dies = match children.peek() {
                Some(_) => {
                    snapshot.flags & Snapshot::SUBVOL == 0 && children.all(|c| self.dying.contains(&c))
                }
                None => {
                    self.subvol(snapshot.subvol).is_some_and(|subvol| subvol.snapshot == id)
                        && self.is_dying(snapshot.subvol)
                }
            };
            if dies || snapshot.state() == Some(SnapshotState::WillDelete) {
                self.dying.insert(id);
            }
        }
    }

    /// Nothing in the snapshot is held to the rules of files any more.
    pub(super) fn is_dying_snapshot(&self, id: SnapshotId) -> bool {
        self.dying.contains(&id)
    }

    /// A subvolume.
    pub(super) fn subvol(&self, id: SubvolId) -> Option<&Subvolume> {
        self.subvols.get(&id)
    }

    /// A subvolume that was removed, or is about to be.
    pub(super) fn is_dying(&self, id: SubvolId) -> bool {
        self.subvol(id).is_some_and(|s| s.state() != Some(SubvolumeState::Live))
    }

    /// The root of the tree a snapshot is in; bounded, as parents have larger ids.
    fn root_of(&self, id: SnapshotId) -> SnapshotId {
        let mut at = id;
        while let Some(parent) = self.snapshots.get(&at).map(|s| s.parent)
            && parent > at
            && self.snapshots.contains_key(&parent)
        {
            at = parent;
        }
        at
    }
}

/// Nothing in it is held to the rules any more.
fn is_dying(snapshot: &Snapshot) -> bool {
    matches!(snapshot.state(), Some(SnapshotState::WillDelete | SnapshotState::Deleted))
}

/// Checks all three kinds, and the lists of subvolumes' children.
pub(super) fn check(check: &mut Check<'_>, tables: &Tables) {
    if check.complete(BtreeId::SNAPSHOTS) {
        for (&id, snapshot) in &tables.snapshots {
            for fault in snapshot_faults(tables, id, snapshot) {
                check.add(Inconsistency::Snapshot { id, fault });
            }
        }
    }
    let complete = [BtreeId::SNAPSHOTS, BtreeId::SNAPSHOT_TREES, BtreeId::SUBVOLUMES];
    if complete.into_iter().any(|btree| !check.complete(btree)) {
        return;
    }
    for (&tree, value) in &tables.trees {
        for fault in tree_faults(tables, tree, value) {
            check.add(Inconsistency::SnapshotTree { tree, fault });
        }
    }
    for (&subvol, value) in &tables.subvols {
        for fault in subvol_faults(check, tables, subvol, value) {
            check.add(Inconsistency::Subvol { subvol, fault });
        }
    }
    children(check, tables);
    root(check, tables);
}

fn snapshot_faults(tables: &Tables, id: SnapshotId, s: &Snapshot) -> Vec<SnapshotFault> {
    if is_dying(s) {
        let mut faults = vec![SnapshotFault::Dying];
        if s.subvol.0 != 0 && s.state() == Some(SnapshotState::Deleted) {
            faults.push(SnapshotFault::HasSubvol { subvol: s.subvol });
        }
        return faults;
    }
    let mut faults = Vec::new();
    let parent = tables.snapshots.get(&s.parent);
    match parent {
        _ if s.parent.0 == 0 => {}
        None => faults.push(SnapshotFault::NoParent { parent: s.parent }),
        Some(p) if !p.children.contains(&id) => {
            faults.push(SnapshotFault::NotParentsChild { parent: s.parent })
        }
        Some(_) => {}
    }
    for child in s.children.into_iter().filter(|c| c.0 != 0) {
        match tables.snapshots.get(&child) {
            None => faults.push(SnapshotFault::NoChild { child }),
            Some(c) if c.parent != id => faults.push(SnapshotFault::NotChildsParent { child }),
            Some(_) => {}
        }
    }
    if s.subvol.0 != 0 && s.flags & Snapshot::SUBVOL == 0 {
        faults.push(SnapshotFault::HasSubvol { subvol: s.subvol });
    } else if s.flags & Snapshot::SUBVOL != 0
        && tables.subvol(s.subvol).is_none_or(|subvol| subvol.snapshot != id)
    {
        faults.push(SnapshotFault::SubvolBackref { subvol: s.subvol });
    }
    if tables.trees.get(&s.tree.into()).is_none_or(|t| t.root_snapshot != tables.root_of(id)) {
        faults.push(SnapshotFault::Tree { tree: s.tree });
    }
    let depth = parent.map_or(0, |p| p.depth.saturating_add(1));
    if s.depth != depth {
        faults.push(SnapshotFault::Depth { stored: s.depth, computed: depth });
    }
    faults.extend(bad_skip(tables, id, s).map(|to| SnapshotFault::Skip { to }));
    faults
}

/// The first entry of a skip list that is no ancestor. Roots have none.
fn bad_skip(tables: &Tables, id: SnapshotId, s: &Snapshot) -> Option<SnapshotId> {
    if s.parent.0 == 0 {
        return s.skip.into_iter().find(|to| to.0 != 0);
    }
    let ancestors: Vec<SnapshotId> = std::iter::successors(Some(s.parent), |at| {
        tables.snapshots.get(at).map(|s| s.parent).filter(|parent| parent > at)
    })
    .collect();
    debug_assert!(ancestors.iter().all(|a| *a > id) || s.parent <= id);
    s.skip.into_iter().find(|to| !ancestors.contains(to))
}

fn tree_faults(tables: &Tables, tree: u64, t: &SnapshotTree) -> Vec<TreeFault> {
    let mut faults = Vec::new();
    let root = tables.snapshots.get(&t.root_snapshot);
    if root.is_some_and(is_dying) {
        // The last snapshot of the tree is being deleted, and the tree with it.
        return faults;
    }
    if root.is_none_or(|root| root.parent.0 != 0 || u64::from(root.tree) != tree) {
        faults.push(TreeFault::Root { root: t.root_snapshot });
    }
    let subvol = t.master_subvol;
    match tables.subvol(subvol) {
        None => faults.push(TreeFault::NoMaster { subvol }),
        Some(master) if tables.root_of(master.snapshot) != t.root_snapshot => {
            faults.push(TreeFault::WrongMaster { subvol });
        }
        Some(master) if master.flags & Subvolume::SNAP != 0 => {
            faults.push(TreeFault::SnapshotMaster { subvol })
        }
        Some(_) => {}
    }
    faults
}

/// The inode that a snapshot sees.
fn inode_seen(check: &mut Check<'_>, inum: Inum, snapshot: SnapshotId) -> Option<Inode> {
    let view = check.view(snapshot.0)?;
    let found = check.btrees().get_visible(BtreeId::INODES, Bpos::new(0, inum.0, 0), &view);
    let handle = check.found(found)?;
    Inode::decode(handle.key().k.ty, handle.key().value).ok()
}

fn subvol_faults(check: &mut Check<'_>, tables: &Tables, id: SubvolId, s: &Subvolume) -> Vec<SubvolFault> {
    if tables.is_dying(id) {
        return vec![SubvolFault::Dying];
    }
    let mut faults = Vec::new();
    let parent = s.fs_path_parent;
    if id == SubvolId::ROOT {
        if parent.0 != 0 {
            faults.push(SubvolFault::RootHasParent { parent });
        }
    } else {
        faults.extend(path_fault(tables, id));
    }
    if parent.0 != 0 && check.complete(BtreeId::SUBVOLUME_CHILDREN) {
        let pos = Bpos::new(parent.0.into(), id.0.into(), 0);
        let found = check.btrees().get(BtreeId::SUBVOLUME_CHILDREN, pos);
        if check.found(found).is_none() {
            faults.push(SubvolFault::NotListed { parent });
        }
    }
    let Some(snapshot) = tables.snapshots.get(&s.snapshot) else {
        faults.push(SubvolFault::Snapshot { snapshot: s.snapshot });
        return faults;
    };
    if snapshot.children != [SnapshotId(0); 2] {
        faults.push(SubvolFault::NotLeaf { snapshot: s.snapshot });
    }
    let is_master = tables.trees.get(&snapshot.tree.into()).is_some_and(|t| t.master_subvol == id);
    if s.flags & Subvolume::SNAP == 0 && !is_master {
        faults.push(SubvolFault::NotMaster);
    }
    if check.complete(BtreeId::INODES) {
        match inode_seen(check, s.inode, s.snapshot) {
            None => faults.push(SubvolFault::NoRoot { inum: s.inode }),
            Some(root) if root.subvol != id => {
                faults.push(SubvolFault::RootSubvol { inum: s.inode, named: root.subvol });
            }
            Some(_) => {}
        }
    }
    faults
}

/// Every subvolume must be inside the root subvolume, through any number of others.
fn path_fault(tables: &Tables, id: SubvolId) -> Option<SubvolFault> {
    let mut at = id;
    // A path longer than there are subvolumes goes round in circles.
    for _ in 0..=tables.subvols.len() {
        let above = tables.subvol(at)?.fs_path_parent;
        if above == SubvolId::ROOT && tables.subvol(above).is_some() {
            return None;
        }
        if tables.subvol(above).is_none() {
            return Some(SubvolFault::Unreachable { above });
        }
        at = above;
    }
    Some(SubvolFault::Loop)
}

/// The lists of children must name no others (spec 60 §9.8).
fn children(check: &mut Check<'_>, tables: &Tables) {
    check.each(BtreeId::SUBVOLUME_CHILDREN, 0, |check, key| {
        let parent = key.k.pos.inode;
        let subvol = SubvolId(u32::try_from(key.k.pos.offset).unwrap_or(0));
        if tables.subvol(subvol).is_none_or(|s| u64::from(s.fs_path_parent.0) != parent) {
            check.add(Inconsistency::Subvol { subvol, fault: SubvolFault::ListedFalsely { parent } });
        }
    });
}

/// The root of everything (spec 60 §9.12).
fn root(check: &mut Check<'_>, tables: &Tables) {
    let subvol = SubvolId::ROOT;
    let Some(root) = tables.subvol(subvol) else {
        return check.add(Inconsistency::Subvol { subvol, fault: SubvolFault::RootMissing });
    };
    if !check.complete(BtreeId::INODES) {
        return;
    }
    let fault = match inode_seen(check, Inum::ROOT, root.snapshot) {
        None => SubvolFault::RootDirMissing,
        Some(inode) if !inode.is_dir() => SubvolFault::RootDirNotDir,
        Some(_) => return,
    };
    check.add(Inconsistency::Subvol { subvol, fault });
}
