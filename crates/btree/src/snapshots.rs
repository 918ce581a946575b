//! Which snapshot sees which key.
//!
//! Keys of the file b-trees carry a snapshot id in their position. Snapshots form trees; ids shrink on the way down. At
//! one (inode, offset) a reader in snapshot S sees, of all keys whose snapshot is S or an ancestor of S, the one with
//! the smallest id, which is the nearest; if that is a whiteout it sees nothing (spec 40 §1.1).
//!
//! [`SnapshotTable`] is the forest, read once from the snapshots b-tree. It is immutable: a change of the forest makes a
//! new table, which is cheap next to what else such a change costs, and readers keep the one they began with. Ancestry is
//! answered in constant time after a binary search, whatever the depth: every node gets a number in depth-first order,
//! and the numbers of its subtree are the range that follows it. (The skip lists on disk serve the same end; they are not
//! used, and so cannot mislead.)
//!
//! [`View`] is one snapshot's eyes: what [`crate::SnapshotCursor`] asks for each key.
//!
//! Keys whose snapshot does not exist, or is in the state *deleted*, are invisible to all (spec 80 §5.11). *will_delete*
//! and *no_keys* nodes are ordinary ancestors.

use std::sync::Arc;

use frazil_ondisk::units::SnapshotId;
use frazil_ondisk::values::snapshot::{Snapshot, SnapshotState};
use frazil_ondisk::{BtreeId, DecodeError, Key, KeyType};

use crate::error::{Error, Result};
use crate::trees::Btrees;

/// What the table needs to know of one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: SnapshotId,
    /// Its parent, `None` for the root of a tree.
    pub parent: Option<SnapshotId>,
    /// How alive it is.
    pub state: SnapshotState,
}

/// All snapshots of a volume. See the [module](self).
#[derive(Debug, Default)]
pub struct SnapshotTable {
    /// Ascending.
    ids: Vec<u32>,
    /// Parallel to `ids`.
    nodes: Vec<TableNode>,
}

#[derive(Debug, Clone, Copy)]
struct TableNode {
    parent: Option<SnapshotId>,
    state: SnapshotState,
    /// Place in depth-first order.
    enter: u32,
    /// One more than the largest `enter` in the subtree.
    leave: u32,
}

impl SnapshotInfo {
    /// What a key of the snapshots b-tree says.
    ///
    /// # Errors
    /// If it is at no snapshot's position or its value is cut short.
    pub fn decode(key: Key<'_>) -> std::result::Result<SnapshotInfo, DecodeError> {
        let id = match (key.k.pos.inode, u32::try_from(key.k.pos.offset)) {
            (0, Ok(id)) if id != 0 => SnapshotId(id),
            _ => return Err(DecodeError::invalid("snapshot", "no snapshot can be at this position")),
        };
        let value = Snapshot::decode(key.value)?;
        let parent = Some(value.parent).filter(|parent| parent.0 != 0);
        // A state of a newer program is none that hides anything we know of.
        Ok(SnapshotInfo { id, parent, state: value.state().unwrap_or(SnapshotState::Live) })
    }
}

impl SnapshotTable {
    /// Reads the table from the snapshots b-tree; also what could not be read of it, if anything. Snapshots that are
    /// missing from the table are invisible and see nothing; who must not show less than there is stops at an error.
    pub fn load(trees: &Btrees) -> (SnapshotTable, Vec<Error>) {
        let (mut infos, mut errors) = (Vec::new(), Vec::new());
        let mut cursor = trees.cursor(BtreeId::SNAPSHOTS, ..);
        loop {
            match cursor.next() {
                Ok(None) => return (SnapshotTable::new(infos), errors),
                Ok(Some(key)) if key.k.ty == KeyType::SNAPSHOT => match SnapshotInfo::decode(key) {
                    Ok(info) => infos.push(info),
                    Err(reason) => {
                        errors.push(Error::BadKey { btree: BtreeId::SNAPSHOTS, pos: key.k.pos, reason })
                    }
                },
                Ok(Some(_)) => {}
                Err(error) => {
                    errors.push(error);
                    if cursor.skip_bad_node().is_none() {
                        return (SnapshotTable::new(infos), errors);
                    }
                }
            }
        }
    }

    /// The table of these snapshots, in any order; of two with one id the last counts. A parent that does not exist, or
    /// whose id is not larger than its child's, makes the child a root: its keys and those of its descendants stay
    /// visible to themselves.
    pub fn new(snapshots: impl IntoIterator<Item = SnapshotInfo>) -> Self {
        let mut infos: Vec<SnapshotInfo> = snapshots.into_iter().collect();
        infos.reverse();
        infos.sort_by_key(|s| s.id);
        infos.dedup_by_key(|s| s.id);
        let ids: Vec<u32> = infos.iter().map(|s| s.id.0).collect();
        let parent_of: Vec<Option<usize>> = infos
            .iter()
            .map(|s| s.parent.filter(|p| *p > s.id).and_then(|p| ids.binary_search(&p.0).ok()))
            .collect();

        // Parents have larger ids: ascending order meets children before parents, descending order parents first.
        let mut subtree = vec![1u32; ids.len()];
        for (i, parent) in parent_of.iter().enumerate() {
            if let Some(parent) = *parent {
                subtree[parent] += subtree[i];
            }
        }
        let mut nodes: Vec<TableNode> = infos
            .iter()
            .map(|s| TableNode { parent: s.parent, state: s.state, enter: 0, leave: 0 })
            .collect();
        let mut free_roots = 0;
        let mut free_below = vec![0; ids.len()];
        for i in (0..ids.len()).rev() {
            let free = match parent_of[i] {
                Some(parent) => &mut free_below[parent],
                None => &mut free_roots,
            };
            let enter = *free;
            *free += subtree[i];
            free_below[i] = enter + 1;
            nodes[i].enter = enter;
            nodes[i].leave = enter + subtree[i];
        }
        Self { ids, nodes }
    }

    /// The table with more snapshots, or with others in the place of those it has.
    pub fn with(&self, more: impl IntoIterator<Item = SnapshotInfo>) -> Self {
        let known = self.ids.iter().zip(&self.nodes);
        let known =
            known.map(|(&id, n)| SnapshotInfo { id: SnapshotId(id), parent: n.parent, state: n.state });
        Self::new(known.chain(more))
    }

    fn node(&self, id: SnapshotId) -> Option<&TableNode> {
        self.ids.binary_search(&id.0).ok().map(|i| &self.nodes[i])
    }

    /// How many snapshots there are, deleted ones included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = SnapshotId> {
        self.ids.iter().map(|&id| SnapshotId(id))
    }

    /// The state of a snapshot; `None` if it does not exist.
    pub fn state(&self, id: SnapshotId) -> Option<SnapshotState> {
        self.node(id).map(|n| n.state)
    }

    /// The parent a snapshot names; `None` for roots and snapshots that do not exist.
    pub fn parent(&self, id: SnapshotId) -> Option<SnapshotId> {
        self.node(id).and_then(|n| n.parent)
    }

    /// Whether `ancestor` is `of` itself or above it. False when either does not exist.
    pub fn is_ancestor(&self, ancestor: SnapshotId, of: SnapshotId) -> bool {
        match (self.node(ancestor), self.node(of)) {
            (Some(a), Some(b)) => a.enter <= b.enter && b.enter < a.leave,
            _ => false,
        }
    }

    /// The eyes of one snapshot.
    ///
    /// # Errors
    /// [`Error::NoSuchSnapshot`] if it does not exist or is deleted.
    pub fn view(self: &Arc<Self>, id: SnapshotId) -> Result<View> {
        match self.node(id) {
            Some(node) if node.state != SnapshotState::Deleted => {
                Ok(View { id, enter: node.enter, table: Arc::clone(self) })
            }
            _ => Err(Error::NoSuchSnapshot(id)),
        }
    }
}

/// What one snapshot sees.
#[derive(Clone, Debug)]
pub struct View {
    id: SnapshotId,
    enter: u32,
    table: Arc<SnapshotTable>,
}

impl View {
    /// The snapshot that looks.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// All snapshots.
    pub fn table(&self) -> &Arc<SnapshotTable> {
        &self.table
    }

    /// Whether keys in this snapshot (the `snapshot` of their position) are in sight, if nothing nearer hides them.
    pub fn sees(&self, snapshot: u32) -> bool {
        // Ancestors have larger ids, so half of the questions need no search.
        snapshot == self.id.0
            || (snapshot > self.id.0
                && self.table.node(SnapshotId(snapshot)).is_some_and(|n| {
                    n.enter <= self.enter && self.enter < n.leave && n.state != SnapshotState::Deleted
                }))
    }
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::units::NodeSeq;
    use frazil_ondisk::values::snapshot::StateWord;
    use frazil_ondisk::{Bpos, KeyBuf};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Forest;

    fn info(id: u32, parent: u32, state: SnapshotState) -> SnapshotInfo {
        let parent = (parent != 0).then_some(SnapshotId(parent));
        SnapshotInfo { id: SnapshotId(id), parent, state }
    }

    /// Follows the parents, as the specification puts it.
    fn is_ancestor_naive(infos: &[SnapshotInfo], ancestor: u32, of: u32) -> bool {
        let find = |id: u32| infos.iter().find(|s| s.id.0 == id);
        if find(ancestor).is_none() || find(of).is_none() {
            return false;
        }
        let mut at = of;
        loop {
            if at == ancestor {
                return true;
            }
            match find(at).and_then(|s| s.parent).filter(|p| p.0 > at && find(p.0).is_some()) {
                Some(parent) => at = parent.0,
                None => return false,
            }
        }
    }

    #[test]
    fn deleted_and_unknown_snapshots_are_invisible() {
        use SnapshotState::*;
        let table = Arc::new(SnapshotTable::new([
            info(100, 0, Live),
            info(90, 100, Deleted),
            info(80, 90, NoKeys),
            info(70, 80, WillDelete),
            info(60, 100, Live),
        ]));
        let view = table.view(SnapshotId(70)).unwrap();
        let seen: Vec<u32> = (0..=110).filter(|&s| view.sees(s)).collect();
        assert_eq!(seen, [70, 80, 100]);
        assert_eq!(table.view(SnapshotId(90)).unwrap_err(), Error::NoSuchSnapshot(SnapshotId(90)));
        assert_eq!(table.view(SnapshotId(75)).unwrap_err(), Error::NoSuchSnapshot(SnapshotId(75)));
    }

    #[test]
    fn a_bad_parent_makes_a_root() {
        use SnapshotState::Live;
        let table =
            SnapshotTable::new([info(5, 9, Live), info(9, 9, Live), info(4, 3, Live), info(3, 8, Live)]);
        assert!(table.is_ancestor(SnapshotId(9), SnapshotId(5)));
        assert!(table.is_ancestor(SnapshotId(3), SnapshotId(3)));
        assert!(!table.is_ancestor(SnapshotId(3), SnapshotId(4)), "a parent with a smaller id is no parent");
        assert!(!table.is_ancestor(SnapshotId(8), SnapshotId(3)), "a missing snapshot is nobody's ancestor");
    }

    #[test]
    fn a_table_is_read_from_its_btree() {
        let value = |parent, flags, state: Option<SnapshotState>| {
            let mut out = Vec::new();
            let state = state.map(|s| StateWord { code: s.code(), pad: 0 });
            Snapshot { parent: SnapshotId(parent), flags, state, ..Snapshot::default() }.encode(&mut out);
            out
        };
        let key = |pos, value: Vec<u8>| KeyBuf::new(KeyType::SNAPSHOT, pos, 0, value);
        let at = |id| Bpos::new(0, id, 0);
        let keys = [
            key(at(1), vec![0; 8]),
            key(at(50), value(60, Snapshot::DELETED, Some(SnapshotState::NoKeys))),
            key(at(60), value(70, Snapshot::DELETED_V2, None)),
            KeyBuf::new(KeyType::SET, at(65), 0, []),
            key(at(70), value(0, Snapshot::SUBVOL, None)),
            key(at(1 << 32), value(0, 0, None)),
        ];
        let mut forest = Forest::default();
        forest.plant(BtreeId::SNAPSHOTS, &keys, 10);
        let (table, errors) = SnapshotTable::load(&forest.trees(1 << 20));
        assert_eq!(table.ids().collect::<Vec<_>>(), [SnapshotId(50), SnapshotId(60), SnapshotId(70)]);
        assert_eq!(table.state(SnapshotId(50)), Some(SnapshotState::NoKeys));
        assert_eq!(table.state(SnapshotId(60)), Some(SnapshotState::Deleted));
        assert_eq!(table.parent(SnapshotId(60)), Some(SnapshotId(70)));
        assert_eq!((table.parent(SnapshotId(70)), table.len()), (None, 3));
        let bad: Vec<u64> = errors
            .iter()
            .map(|e| match e {
                Error::BadKey { pos, .. } => pos.offset,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(bad, [1, 1 << 32]);

        forest.bad.insert(NodeSeq(1));
        let (table, errors) = SnapshotTable::load(&forest.trees(1 << 20));
        assert!(table.is_empty());
        assert!(matches!(errors[..], [Error::Unreadable(_)]));
    }

    proptest! {
        #[test]
        fn ancestry_equals_following_the_parents(parents in proptest::collection::vec((0..60u32, 0..8u32), 1..50)) {
            // Ids run downwards from 60 with gaps; a parent is anything, also what makes no sense.
            let mut id = 60;
            let mut infos = Vec::new();
            for (parent, gap) in parents {
                infos.push(info(id, parent, SnapshotState::Live));
                id = id.saturating_sub(1 + gap / 4);
                if id == 0 { break; }
            }
            let table = SnapshotTable::new(infos.iter().copied());
            for a in 0..62 {
                for b in 0..62 {
                    let (a, b) = (SnapshotId(a), SnapshotId(b));
                    prop_assert_eq!(table.is_ancestor(a, b), is_ancestor_naive(&infos, a.0, b.0), "{:?} {:?}", a, b);
                }
            }
        }
    }
}
