//! Files: inodes, their extents, their directory entries and attributes (spec 60 §9.9–§9.13).
//!
//! Four b-trees are sorted by inode number first. They are walked side by side: for each number all versions of the inode (one per
//! snapshot that changed it) are held, and its extents, entries and attributes stream past them. What a version must agree with is what
//! *its* snapshot sees: at each position the nearest key, as for any reader.
//!
//! | to find | look in |
//! |---|---|
//! | the versions of an inode, their flags, names and subvolumes | `inodes.rs` |
//! | sizes and sectors | `extents.rs` |
//! | names: their slot, their target, who knows whom | `dirents.rs` |
//! | hash slots, of names and attributes | `slots.rs` |
//! | hard links, and inodes that nothing leads to | `links.rs` |

mod dirents;
mod extents;
mod inodes;
mod links;
mod slots;
mod xattrs;

use std::collections::HashSet;

use frazil_btree::View;
use frazil_ondisk::units::{Inum, SnapshotId};
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::values::logged_op::LoggedTruncate;
use frazil_ondisk::{Bpos, BtreeId, Key, KeyType};

use super::context::{Check, Feed};
use super::faults::{InodeFault, ItemFault};
use super::inconsistency::Inconsistency;
use super::snapshots::Tables;
use links::Links;

/// One key of an inode number in the inodes b-tree.
struct Version {
    snapshot: SnapshotId,
    /// `None` where the inode was removed.
    inode: Option<Inode>,
    /// What its snapshot sees; `None` if that does not exist or is being deleted.
    view: Option<View>,
    /// A truncation was interrupted, and what is behind its end is still to go.
    truncating: bool,
    /// Sectors of the extents seen so far.
    sectors: u64,
    /// End of the last extent seen.
    end: u64,
    /// Subdirectories seen so far.
    subdirs: u64,
    /// Directory entries seen so far.
    entries: u64,
}

/// All versions of an inode number, in order of snapshot ids: descendants come before their ancestors.
struct Versions {
    inum: Inum,
    list: Vec<Version>,
}

impl Versions {
    /// The version a snapshot sees, unless it was removed there.
    fn seen_by(&self, check: &Check<'_>, snapshot: u32) -> Option<&Version> {
        let sees = |v: &&Version| check.snapshots().is_ancestor(v.snapshot, SnapshotId(snapshot));
        self.list.iter().find(sees).filter(|v| v.inode.is_some())
    }

    /// Reads all keys of the number the feed stands at.
    fn take(check: &mut Check<'_>, files: &Files<'_>, feed: &mut Feed<'_>, inum: Inum) -> Versions {
        let mut list = Vec::new();
        while let Some(key) = feed.key().filter(|key| key.k.pos.offset == inum.0) {
            let snapshot = SnapshotId(key.k.pos.snapshot);
            let inode = Inode::decode(key.k.ty, key.value).ok();
            if in_snapshot(check, key) {
                let view = check.view(snapshot.0).filter(|_| !files.tables.is_dying_snapshot(snapshot));
                let truncating = files.truncating.contains(&(inum, snapshot));
                let (sectors, end, subdirs, entries) = (0, 0, 0, 0);
                list.push(Version { snapshot, inode, view, truncating, sectors, end, subdirs, entries });
            }
            feed.advance(check);
        }
        Versions { inum, list }
    }
}

/// What the passes over files share.
struct Files<'t> {
    tables: &'t Tables,
    links: Links,
    loops: inodes::Loops,
    /// Files whose truncation was interrupted, and the snapshots it was in.
    truncating: HashSet<(Inum, SnapshotId)>,
}

/// The truncations that the next start goes on with (spec 40 §14.1).
fn truncating(check: &mut Check<'_>, tables: &Tables) -> HashSet<(Inum, SnapshotId)> {
    let mut found = HashSet::new();
    check.each(BtreeId::LOGGED_OPS, 0, |_, key| {
        if key.k.ty == KeyType::LOGGED_OP_TRUNCATE
            && let Ok(op) = LoggedTruncate::decode(key.value)
            && let Some(subvol) = tables.subvol(op.subvol)
        {
            found.insert((op.inum, subvol.snapshot));
        }
    });
    found
}

/// Checks all files.
pub(super) fn check(check: &mut Check<'_>, tables: &Tables) {
    if !check.complete(BtreeId::SNAPSHOTS) {
        return;
    }
    let truncating = truncating(check, tables);
    let mut files = Files { tables, links: Links::default(), loops: inodes::Loops::default(), truncating };
    let mut inodes = Feed::new(check, BtreeId::INODES);
    let mut extents = Feed::new(check, BtreeId::EXTENTS);
    let mut dirents = Feed::new(check, BtreeId::DIRENTS);
    let mut xattrs = Feed::new(check, BtreeId::XATTRS);
    loop {
        let next = [
            inodes.pos().map(|pos| pos.offset),
            extents.pos().map(|pos| pos.inode),
            dirents.pos().map(|pos| pos.inode),
            xattrs.pos().map(|pos| pos.inode),
        ];
        let Some(inum) = next.into_iter().flatten().min().map(Inum) else { break };
        let mut versions = Versions::take(check, &files, &mut inodes, inum);
        extents::check(check, &mut extents, &mut versions);
        dirents::check(check, &mut files, &mut dirents, &mut versions);
        xattrs::check(check, &mut xattrs, &versions);
        inodes::check(check, &mut files, &versions);
    }
    let Files { links, .. } = files;
    links.check(check);
}

/// The keys at one (inode, offset), nearest snapshot first, with what matters about each.
struct Slot<T> {
    keys: Vec<(u32, T)>,
    offset: u64,
}

impl<T> Slot<T> {
    fn new() -> Self {
        Slot { keys: Vec::new(), offset: 0 }
    }

    /// What a snapshot sees here.
    fn seen_by(&self, view: &View) -> Option<&T> {
        self.keys.iter().find(|(snapshot, _)| view.sees(*snapshot)).map(|(_, value)| value)
    }
}

/// Adds a finding about a key.
fn item(check: &mut Check<'_>, btree: BtreeId, pos: Bpos, fault: ItemFault) {
    check.add(Inconsistency::Item { btree, pos, fault });
}

/// Adds a finding about an inode.
fn inode(check: &mut Check<'_>, inum: Inum, snapshot: SnapshotId, fault: InodeFault) {
    check.add(Inconsistency::Inode { pos: Bpos::new(0, inum.0, snapshot.0), fault });
}

/// Whether a key's snapshot exists; if not, the walk has reported it.
fn in_snapshot(check: &Check<'_>, key: Key<'_>) -> bool {
    check.snapshots().state(SnapshotId(key.k.pos.snapshot)).is_some()
}
