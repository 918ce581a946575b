//! Removal of inodes that nobody refers to (spec 40 §3.6).
//!
//! An inode without a name is marked `unlinked` and listed in `deleted_inodes` from the transaction on that took its last name, so its removal can stop
//! anywhere and go on later, after a crash at the next start ([`Front::remove_dead_inodes`]). Steps, each a transaction of bounded size: its
//! extents, with the count of its sectors kept true; attributes and what is left of a directory's table; then the inode itself, which leaves
//! behind the generation that its number begins with next time.
//!
//! What is removed is one version of the inode, that of one snapshot. The version above it may be dead too, kept only for this one; then it goes
//! next.
//!
//! Nobody waits for a file to go that nobody uses any more. So what is let go of is collected ([`WriteFs::release`]), and whoever works in the
//! background removes many of them with one transaction ([`Front::remove_released`]): `rm -r` lets go of thousands. Who counts on the room that they
//! occupied removes them himself, and waits for those that others are removing ([`Front::finish_removals`]).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use frazil_btree::View;
use frazil_ondisk::units::{Inum, Sectors, SnapshotId, SubvolId};
use frazil_ondisk::values::inode::Inode;
use frazil_ondisk::{Bpos, BtreeId};
use frazil_volume::lifecycle::FrontKind;
use parking_lot::{Condvar, Mutex};

use super::WriteFs;
use super::front::Front;
use super::holds::Released;
use super::op::{Object, Op};
use super::quota::Owned;
use crate::attr::NodeId;
use crate::error::Result;
use crate::hashed::slots;
use crate::namespace::decode_inode;

/// Keys that a transaction takes out of hash tables.
const KEYS_MAX: usize = 64;

/// A transaction that has changed so many keys does not begin with another inode. One with nothing in it takes two.
const TOGETHER_KEYS_MAX: usize = 128;

/// Inodes that are looked at for one transaction.
const TOGETHER_MAX: usize = 64;

/// If so many wait to be removed, who lets go of another one removes some: he is faster than the background.
const WAITING_MAX: usize = 4096;

/// Files that nobody uses any more and that have no name, until they are removed.
#[derive(Default)]
pub(crate) struct Doomed {
    state: Mutex<DoomedState>,
    /// None is being removed.
    idle: Condvar,
}

#[derive(Default)]
struct DoomedState {
    waiting: VecDeque<NodeId>,
    /// How many are at it.
    removing: usize,
}

/// Some of the files, while they are removed.
struct Batch<'d> {
    doomed: &'d Doomed,
    nodes: Vec<NodeId>,
}

impl Doomed {
    /// One more; returns how many wait.
    fn add(&self, node: NodeId) -> usize {
        let mut state = self.state.lock();
        state.waiting.push_back(node);
        state.waiting.len()
    }

    /// Those that have waited longest, if there are any.
    fn take(&self) -> Option<Batch<'_>> {
        let mut state = self.state.lock();
        let some = state.waiting.len().min(TOGETHER_MAX);
        if some == 0 {
            return None;
        }
        state.removing += 1;
        Some(Batch { doomed: self, nodes: state.waiting.drain(..some).collect() })
    }

    /// Waits until nobody removes any, at most so long. Whether somebody did.
    fn wait(&self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        let mut state = self.state.lock();
        let any = state.removing > 0;
        while state.removing > 0 && !self.idle.wait_until(&mut state, deadline).timed_out() {}
        any
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let mut state = self.doomed.state.lock();
        state.removing -= 1;
        if state.removing == 0 {
            self.doomed.idle.notify_all();
        }
    }
}

/// What a step of a removal came to.
enum Step {
    /// There is more to do.
    More,
    /// The version is not to be removed.
    Kept,
    /// The version is gone. Above it there may be another.
    Gone { above: Option<Bpos> },
}

impl WriteFs {
    /// Somebody uses the object: once more.
    pub fn hold(&self, node: NodeId) {
        self.holds.add(node);
    }

    /// Somebody who held the object `count` times does not use it any more. If nobody does, and it has no name, it is to be removed:
    /// [`Front::remove_released`] does that, which [`WriteFs::on_left`] tells of.
    pub fn release(&self, node: NodeId, count: u64) {
        match self.holds.drop(node, count) {
            Released::Kept => {}
            Released::Forgotten => self.numbers.removed(node.inum),
            Released::Remove => {
                let waiting = self.doomed.add(node);
                self.left_something();
                if waiting > WAITING_MAX
                    && let Ok(front) = self.try_front(FrontKind::Removal)
                {
                    front.remove_some();
                }
            }
        }
    }

    /// Whether there are released files that are not removed yet.
    pub fn has_removals(&self) -> bool {
        let state = self.doomed.state.lock();
        state.removing > 0 || !state.waiting.is_empty()
    }

    /// As [`Front::finish_removals`], if anything can be changed now; else waits only for those who are at it. Does not wait for a freeze to end.
    pub fn wait_for_removals(&self, longest: Duration) -> bool {
        match self.try_front(FrontKind::Removal) {
            Ok(front) => front.finish_removals(longest),
            Err(_) => self.doomed.wait(longest),
        }
    }

    /// Nobody uses anything any more, whatever was said of it: the adapter is gone.
    pub fn release_all(&self) {
        self.holds.clear();
    }
}

impl Front<'_> {
    /// Removes what was released, as long as that is `wanted`. Returns whether there was anything. What fails is done at the next start.
    pub fn remove_released(&self, wanted: &dyn Fn() -> bool) -> bool {
        let mut any = false;
        while wanted() && self.remove_some() {
            any = true;
        }
        any
    }

    /// Removes what was released, and waits for those who are removing some; at most so long. Whether there was anything.
    pub fn finish_removals(&self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        let any = self.remove_released(&|| Instant::now() < deadline);
        self.doomed.wait(deadline.saturating_duration_since(Instant::now())) || any
    }

    /// Removes some of what was released; false if there was nothing.
    fn remove_some(&self) -> bool {
        let Some(batch) = self.doomed.take() else { return false };
        if let [node] = batch.nodes[..] {
            self.remove_soon(node);
        } else if self.remove_together(&batch.nodes).is_err() {
            // Whichever of them it is, the others can be removed.
            batch.nodes.iter().for_each(|node| self.remove_soon(*node));
        }
        true
    }

    /// Removes every inode that has no name and that nobody holds: after a crash, and before a clean shutdown. Returns how many.
    ///
    /// # Errors
    /// The general ones; those removed before stay so.
    pub fn remove_dead_inodes(&self) -> Result<u64> {
        self.engine().flush_buffer()?;
        let mut dead = Vec::new();
        let mut cursor = self.names.btrees.cursor(BtreeId::DELETED_INODES, ..);
        while let Some(key) = cursor.next()? {
            dead.push(key.k.pos);
        }
        drop(cursor);
        self.remove_versions(dead)
    }

    /// Removes an inode that has no name any more and is not held. What fails is done at the next start.
    pub(crate) fn remove_soon(&self, node: NodeId) {
        if let Err(error) = self.remove_together(&[node]) {
            tracing::warn!("inode {node} has no name but cannot be removed now: {error}");
        }
    }

    /// A directory was removed, inode and all.
    pub(crate) fn after_directory(&self, dir: &Object) {
        if !self.holds.removed(dir.node(), &dir.inode) {
            self.numbers.removed(dir.inum);
        }
    }

    /// The version of an inode that a subvolume sees.
    fn version_seen(&self, node: NodeId) -> Result<Option<Bpos>> {
        let Some(subvol) = self.names.subvol(node.subvol)? else { return Ok(None) };
        let pos = Bpos::new(0, node.inum.0, 0);
        let key = self.names.btrees.get_visible(BtreeId::INODES, pos, &subvol.view)?;
        Ok(key.map(|key| key.key().k.pos))
    }

    fn remove_together(&self, nodes: &[NodeId]) -> Result<()> {
        let mut versions = Vec::with_capacity(nodes.len());
        for node in nodes {
            versions.extend(self.version_seen(*node)?);
        }
        self.remove_versions(versions).map(drop)
    }

    /// Removes those of these versions that are dead and that nobody holds, then those above them, and so on. Returns how many.
    fn remove_versions(&self, mut left: Vec<Bpos>) -> Result<u64> {
        left.reverse();
        let mut removed = 0;
        while !left.is_empty() {
            let mut next = Vec::with_capacity(TOGETHER_MAX);
            while next.len() < TOGETHER_MAX
                && let Some(pos) = left.pop()
            {
                if !self.is_held(pos)? {
                    next.push(pos);
                }
            }
            let steps = self.change(|op| op.remove_steps(&next))?;
            left.extend(next.drain(steps.len()..).rev());
            for (pos, step) in next.into_iter().zip(steps) {
                match step {
                    Step::More => left.push(pos),
                    Step::Kept => {}
                    Step::Gone { above } => {
                        removed += 1;
                        self.numbers.removed(Inum(pos.offset));
                        left.extend(above);
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Whether somebody holds the inode through a subvolume that sees this version.
    fn is_held(&self, pos: Bpos) -> Result<bool> {
        let inum = Inum(pos.offset);
        for subvol in self.holds.subvols_of(inum) {
            if self.version_seen(NodeId { subvol, inum })? == Some(pos) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Op<'_, '_> {
    /// Does a step for each of these versions, as many as fit one transaction; at least one if there is one.
    fn remove_steps(&mut self, versions: &[Bpos]) -> Result<Vec<Step>> {
        let keys_max = self.t.keys_max(TOGETHER_KEYS_MAX);
        let mut steps = Vec::with_capacity(versions.len());
        for pos in versions {
            steps.push(self.remove_step(*pos)?);
            if self.t.changed() >= keys_max {
                break;
            }
        }
        Ok(steps)
    }

    fn remove_step(&mut self, pos: Bpos) -> Result<Step> {
        let Some(mut inode) = self.dead_version(pos)? else { return Ok(Step::Kept) };
        let was = Owned::of(&inode);
        let (inum, view) = (Inum(pos.offset), self.fs.names.view(SubvolId(0), SnapshotId(pos.snapshot))?);
        let done = self.t.remove_extents(&view, inum, 0..u64::MAX)?;
        inode.sectors = Sectors(inode.sectors.0.saturating_sub(done.sectors));
        if done.end < u64::MAX || !self.clear_tables(&view, inum)? {
            self.put_version(pos, &inode);
            self.note_version(pos, was, Some(Owned::of(&inode)))?;
            return Ok(Step::More);
        }
        self.remove_inode(pos, &inode);
        self.note_version(pos, was, None)?;
        Ok(Step::Gone { above: self.version_above(pos, &view)? })
    }

    /// The version of an inode at `pos`, if it is dead.
    fn dead_version(&self, pos: Bpos) -> Result<Option<Inode>> {
        let Some(key) = self.t.get(BtreeId::INODES, pos)? else { return Ok(None) };
        Ok(decode_inode(key.key())?.filter(Inode::is_dead))
    }

    /// Where the next version above is.
    fn version_above(&self, pos: Bpos, view: &View) -> Result<Option<Bpos>> {
        let Some(from) = pos.snapshot.checked_add(1) else { return Ok(None) };
        let mut cursor =
            self.t.cursor(BtreeId::INODES, pos.with_snapshot(from)..=pos.with_snapshot(u32::MAX));
        while let Some(key) = cursor.next()? {
            if view.sees(key.k.pos.snapshot) {
                return Ok(Some(key.k.pos));
            }
        }
        Ok(None)
    }

    /// Takes what is left in the tables of an inode out: attributes, and marks in a directory without entries. False if that was not all.
    pub(crate) fn clear_tables(&mut self, view: &View, inum: Inum) -> Result<bool> {
        let mut found = Vec::new();
        for btree in [BtreeId::DIRENTS, BtreeId::XATTRS] {
            let mut cursor = self.t.visible(btree, view, slots(inum, 0));
            while found.len() < KEYS_MAX
                && let Some(key) = cursor.next()?
            {
                found.push((btree, key.k.pos));
            }
        }
        for (btree, pos) in &found {
            self.t.delete_visible(*btree, *pos, view)?;
        }
        Ok(found.len() < KEYS_MAX)
    }
}
