//! The versions of an inode: their flags, the name they say they have, the subvolume they are the root of, their counts (spec 60 §9.9).

use std::collections::HashSet;

use frazil_btree::View;
use frazil_ondisk::units::{Inum, SubvolId};
use frazil_ondisk::values::dirent::Dirent;
use frazil_ondisk::values::inode::{Inode, InodeFlags};
use frazil_ondisk::{Bpos, BtreeId, KeyType};

use super::super::context::Check;
use super::super::faults::InodeFault;
use super::dirents::{inode_seen, leads_to};
use super::{Files, Version, Versions, inode};

/// Checks every version after its contents have streamed past.
pub(super) fn check(check: &mut Check<'_>, files: &mut Files<'_>, versions: &Versions) {
    for (i, version) in versions.list.iter().enumerate() {
        let (Some(own), Some(view)) = (&version.inode, &version.view) else { continue };
        if files.tables.is_dying(own.subvol) {
            continue; // The root of a removed subvolume.
        }
        let mut faults = Vec::new();
        across_versions(check, versions, i, own, &mut faults);
        subvol(check, files, versions.inum, version, own, &mut faults);
        counts(check, version, own, &mut faults);
        name(check, files, versions.inum, version, own, view, &mut faults);
        for fault in faults {
            inode(check, versions.inum, version.snapshot, fault);
        }
        if own.is_dir() && files.loops.found(check, versions.inum, own, view) {
            inode(check, versions.inum, version.snapshot, InodeFault::Loop);
        }
        if !own.is_dir() && own.nlink_raw != 0 {
            files.links.expect(versions.inum, version.snapshot, own.nlink_raw, view.clone());
        }
    }
}

/// What all versions have in common, and the flag that says whether there are others below.
fn across_versions(
    check: &mut Check<'_>,
    versions: &Versions,
    i: usize,
    own: &Inode,
    faults: &mut Vec<InodeFault>,
) {
    let differs = |v: &&Version| {
        v.inode.as_ref().is_some_and(|o| {
            (o.hash_seed, o.str_hash, o.file_type()) != (own.hash_seed, own.str_hash, own.file_type())
        })
    };
    if let Some(other) = versions.list[..i].iter().find(differs) {
        faults.push(InodeFault::Mismatch { other: other.snapshot });
    }
    if !check.version().inodes_know_child_snapshots() || !check.complete(BtreeId::INODES) {
        return;
    }
    let snapshot = versions.list[i].snapshot;
    let below = |v: &Version| v.inode.is_some() && check.snapshots().is_ancestor(snapshot, v.snapshot);
    let has_child = versions.list[..i].iter().any(below);
    let stored = own.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT);
    if stored != has_child {
        faults.push(InodeFault::HasChildSnapshot { stored });
    }
}

/// A subvolume's root and its subvolume must name each other.
fn subvol(
    check: &mut Check<'_>,
    files: &Files<'_>,
    inum: Inum,
    version: &Version,
    own: &Inode,
    faults: &mut Vec<InodeFault>,
) {
    if own.parent_subvol.0 != 0 && (own.subvol.0 == 0 || own.subvol == SubvolId::ROOT) {
        faults.push(InodeFault::ParentSubvol { parent: own.parent_subvol });
    }
    if own.subvol.0 == 0 || !check.complete(BtreeId::SUBVOLUMES) {
        return;
    }
    let subvol = own.subvol;
    match files.tables.subvol(subvol) {
        None => faults.push(InodeFault::NoSubvol { subvol }),
        Some(s) if s.inode != inum || !check.snapshots().is_ancestor(version.snapshot, s.snapshot) => {
            faults.push(InodeFault::WrongSubvol { subvol });
        }
        Some(_) => {}
    }
}

/// What its contents add up to.
fn counts(check: &mut Check<'_>, version: &Version, own: &Inode, faults: &mut Vec<InodeFault>) {
    let dirty = own.flags.contains(InodeFlags::I_SECTORS_DIRTY);
    if !dirty && own.sectors.0 != version.sectors && check.complete(BtreeId::EXTENTS) {
        faults.push(InodeFault::Sectors { stored: own.sectors.0, computed: version.sectors });
    }
    if own.is_dir() && u64::from(own.nlink_raw) != version.subdirs && check.complete(BtreeId::DIRENTS) {
        faults.push(InodeFault::DirLinks { stored: own.nlink_raw, computed: version.subdirs });
    }
}

/// The name an inode says it has must exist and lead to it; an inode without one must be unlinked or the root.
fn name(
    check: &mut Check<'_>,
    files: &mut Files<'_>,
    inum: Inum,
    version: &Version,
    own: &Inode,
    view: &View,
    faults: &mut Vec<InodeFault>,
) {
    let unlinked = own.flags.contains(InodeFlags::UNLINKED);
    let (dir, offset) = (own.dir, own.dir_offset);
    if unlinked {
        if dir.0 != 0 {
            faults.push(InodeFault::UnlinkedWithDirent);
        } else if own.is_dir() && version.entries > 0 {
            faults.push(InodeFault::UnlinkedNotEmpty);
        }
        if own.is_dead() && check.complete(BtreeId::DELETED_INODES) {
            let pos = Bpos::new(0, inum.0, version.snapshot.0);
            let found = check.btrees().get(BtreeId::DELETED_INODES, pos);
            if check.found(found).is_none() {
                faults.push(InodeFault::NotListed);
            }
        }
    }
    if (dir, offset) == (Inum(0), 0) {
        if unlinked || own.subvol == SubvolId::ROOT {
            return;
        }
        if own.is_dir() {
            faults.push(InodeFault::Unreachable);
        } else if check.complete(BtreeId::DIRENTS) {
            // A file that lost the name it named may have others (spec 40 §3.7).
            files.links.suspect(inum, version.snapshot, view.clone());
        }
        return;
    }
    if !check.complete(BtreeId::DIRENTS) {
        return;
    }
    if let Some(fault) = named_dirent(check, files, inum, own, view) {
        faults.push(fault);
        // Whether a subvolume can be reached is checked where subvolumes are.
        if own.subvol.0 == 0 {
            files.links.suspect(inum, version.snapshot, view.clone());
        }
    }
}

/// What is wrong with the entry an inode names. A subvolume's root has its name in the parent subvolume.
fn named_dirent(
    check: &mut Check<'_>,
    files: &Files<'_>,
    inum: Inum,
    own: &Inode,
    view: &View,
) -> Option<InodeFault> {
    let (dir, offset) = (own.dir, own.dir_offset);
    let parent_view = if own.subvol.0 != 0 && own.parent_subvol.0 != 0 {
        let parent = files.tables.subvol(own.parent_subvol)?;
        check.view(parent.snapshot.0)
    } else {
        None
    };
    let view = parent_view.as_ref().unwrap_or(view);
    let found = check.btrees().get_visible(BtreeId::DIRENTS, Bpos::new(dir.0, offset, 0), view);
    let Some(handle) = check.found(found).filter(|h| h.key().k.ty == KeyType::DIRENT) else {
        return Some(InodeFault::NoDirent { dir, offset });
    };
    let leads_here = Dirent::decode(handle.key().value).is_ok_and(|d| leads_to(&d, inum, own));
    (!leads_here).then_some(InodeFault::WrongDirent { dir, offset })
}

/// Looks for directories inside themselves, going up from each to where it is known that there is no loop.
#[derive(Default)]
pub(super) struct Loops {
    /// (directory, snapshot that looks) from which the way up ends.
    sound: HashSet<(Inum, u32)>,
}

impl Loops {
    /// Whether the way up from a directory, as its snapshot sees it, comes back to itself.
    fn found(&mut self, check: &mut Check<'_>, inum: Inum, own: &Inode, view: &View) -> bool {
        let snapshot = view.id().0;
        let mut path = HashSet::from([inum]);
        let mut at = *own;
        // Nothing is above the root of a subvolume in its own snapshot.
        while at.subvol.0 == 0 && at.dir.0 != 0 && !self.sound.contains(&(at.dir, snapshot)) {
            if !path.insert(at.dir) {
                // Of a loop that it only leads into, its members will tell.
                return at.dir == inum;
            }
            match inode_seen(check, at.dir, view) {
                Some((_, above)) => at = above,
                None => break,
            }
        }
        self.sound.extend(path.into_iter().map(|inum| (inum, snapshot)));
        false
    }
}
