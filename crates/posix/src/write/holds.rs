//! What is in use: objects that must live on although no name leads to them.
//!
//! An adapter holds an object once for each reference it has given out (a lookup the kernel remembers, an open file). When the last name of a held
//! file goes, its inode stays, marked `unlinked` and listed in `deleted_inodes`, until the last hold is released; then it is removed. A crash in
//! between leaves the list, and the next start removes what is in it (spec 40 §3.4).
//!
//! A removed directory leaves at once, inode and all, because a check after a crash would not know it for one (spec 40 §15, spec 60 §12). Who
//! holds it sees what remains: the inode as it was last, with no links and no entries, in memory.

use std::collections::HashMap;

use frazil_ondisk::units::{Inum, SubvolId};
use frazil_ondisk::values::inode::{Inode, InodeFlags};
use parking_lot::Mutex;

use crate::attr::NodeId;

/// The objects in use.
#[derive(Default)]
pub(crate) struct Holds(Mutex<Held>);

#[derive(Default)]
struct Held {
    objects: HashMap<NodeId, Hold>,
    /// How many of them are in each subvolume; none that is 0.
    in_subvols: HashMap<SubvolId, usize>,
}

#[derive(Default)]
struct Hold {
    count: u64,
    state: State,
}

/// What happened to a held object.
#[derive(Default)]
enum State {
    #[default]
    Named,
    /// Made without a name; it may get one.
    Nameless { linkable: bool },
    /// Its last name is gone: it is to be removed at the end.
    Dead,
    /// A directory that was removed; its inode as it was last.
    Remains(Box<Inode>),
}

/// What is to be done with an object that nobody holds any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Released {
    /// Nothing.
    Kept,
    /// Its inode has no name: it is to be removed.
    Remove,
    /// What remained of a directory that is removed already is forgotten.
    Forgotten,
}

impl Holds {
    /// One more reference.
    pub(crate) fn add(&self, node: NodeId) {
        self.0.lock().entry(node).count += 1;
    }

    /// The first reference to an object made without a name.
    pub(crate) fn add_nameless(&self, node: NodeId, linkable: bool) {
        *self.0.lock().entry(node) = Hold { count: 1, state: State::Nameless { linkable } };
    }

    /// `count` references less. What nobody holds is kept.
    pub(crate) fn drop(&self, node: NodeId, count: u64) -> Released {
        let mut held = self.0.lock();
        let Some(hold) = held.objects.get_mut(&node) else { return Released::Kept };
        hold.count = hold.count.saturating_sub(count);
        if hold.count > 0 {
            return Released::Kept;
        }
        match held.remove(node).map(|hold| hold.state) {
            Some(State::Nameless { .. } | State::Dead) => Released::Remove,
            Some(State::Remains(_)) => Released::Forgotten,
            Some(State::Named) | None => Released::Kept,
        }
    }

    /// The last name is gone. True if somebody holds it, so that it has to stay.
    pub(crate) fn unnamed(&self, node: NodeId) -> bool {
        let mut held = self.0.lock();
        let Some(hold) = held.objects.get_mut(&node) else { return false };
        hold.state = State::Dead;
        true
    }

    /// It has a name (again).
    pub(crate) fn named(&self, node: NodeId) {
        if let Some(hold) = self.0.lock().objects.get_mut(&node) {
            hold.state = State::Named;
        }
    }

    /// Whether an unlinked inode may get a name.
    pub(crate) fn is_linkable(&self, node: NodeId) -> bool {
        self.0
            .lock()
            .objects
            .get(&node)
            .is_some_and(|h| matches!(h.state, State::Nameless { linkable: true }))
    }

    /// A directory was removed; `last` is its inode as it was. True if somebody holds it, and sees what remains.
    pub(crate) fn removed(&self, node: NodeId, last: &Inode) -> bool {
        let mut held = self.0.lock();
        let Some(hold) = held.objects.get_mut(&node) else { return false };
        let mut last = *last;
        last.nlink_raw = 0;
        last.flags.set(InodeFlags::UNLINKED, true);
        hold.state = State::Remains(Box::new(last));
        true
    }

    /// What remains of a removed directory.
    pub(crate) fn remains(&self, node: NodeId) -> Option<Inode> {
        match self.0.lock().objects.get(&node) {
            Some(Hold { state: State::Remains(inode), .. }) => Some(**inode),
            _ => None,
        }
    }

    /// What is held in a subvolume.
    pub(crate) fn held_in(&self, subvol: SubvolId) -> Vec<NodeId> {
        self.0.lock().objects.keys().copied().filter(|node| node.subvol == subvol).collect()
    }

    /// The subvolumes through which an inode is held. Asked for every inode that is removed, while very many may be held.
    pub(crate) fn subvols_of(&self, inum: Inum) -> Vec<SubvolId> {
        let held = self.0.lock();
        let subvols = held.in_subvols.keys().copied();
        subvols.filter(|&subvol| held.objects.contains_key(&NodeId { subvol, inum })).collect()
    }

    /// Nobody holds anything any more.
    pub(crate) fn clear(&self) {
        *self.0.lock() = Held::default();
    }
}

impl Held {
    fn entry(&mut self, node: NodeId) -> &mut Hold {
        self.objects.entry(node).or_insert_with(|| {
            *self.in_subvols.entry(node.subvol).or_default() += 1;
            Hold::default()
        })
    }

    fn remove(&mut self, node: NodeId) -> Option<Hold> {
        let hold = self.objects.remove(&node)?;
        if let Some(count) = self.in_subvols.get_mut(&node.subvol) {
            *count -= 1;
            if *count == 0 {
                self.in_subvols.remove(&node.subvol);
            }
        }
        Some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_goes_with_its_last_holder() {
        let holds = Holds::default();
        let (a, b) = (NodeId::ROOT, NodeId { inum: Inum(5000), ..NodeId::ROOT });
        holds.add(a);
        holds.add(a);
        assert!(holds.unnamed(a) && !holds.unnamed(b));
        assert_eq!(holds.held_in(a.subvol), [a]);
        assert_eq!(holds.held_in(SubvolId(7)), []);
        assert_eq!(holds.drop(a, 1), Released::Kept);
        assert_eq!(holds.drop(a, 1), Released::Remove);
        assert_eq!(holds.drop(a, 1), Released::Kept);

        holds.add_nameless(b, true);
        assert!(holds.is_linkable(b) && !holds.is_linkable(a));
        let elsewhere = NodeId { subvol: SubvolId(7), ..b };
        holds.add(elsewhere);
        let mut subvols = holds.subvols_of(b.inum);
        subvols.sort();
        assert_eq!(subvols, [b.subvol, SubvolId(7)]);
        assert_eq!(holds.subvols_of(a.inum), []);
        assert_eq!(holds.drop(elsewhere, 1), Released::Kept);
        assert_eq!(holds.subvols_of(b.inum), [b.subvol]);
        holds.named(b);
        assert!(!holds.is_linkable(b));
        assert_eq!(holds.drop(b, 7), Released::Kept);
        assert!(holds.0.lock().in_subvols.is_empty());

        holds.add(a);
        assert!(holds.removed(a, &Inode { nlink_raw: 3, ..Inode::default() }));
        assert_eq!(holds.remains(a).map(|inode| inode.nlink()), Some(0));
        assert_eq!((holds.drop(a, 1), holds.remains(a)), (Released::Forgotten, None));
        assert!(!holds.removed(a, &Inode::default()));
    }
}
