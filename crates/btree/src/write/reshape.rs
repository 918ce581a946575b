//! Replacing nodes: rewriting, splitting, merging, growing a tree by a level, and making its first node.
//!
//! All of these are one procedure. A *run* of one node or a few neighbours is looked at, its keys are dealt out to new nodes, and those are
//! written, while everybody goes on reading and changing the old ones. Then one commit does the switch: pointers in the parent or the
//! root, what follows from them (space of the old nodes given back, of the new ones taken), and, in memory, what has changed in the
//! run since it was looked at moves into the new nodes, whose pins take over those of the old ones. Old nodes, still in the hands of
//! readers, are marked as replaced, so that nobody commits on what they say.
//!
//! If the root is cut in several, the new root above them is written in the same go, with the pointers already in it (spec 30 §11.3). A tree's
//! depth is limited; an inner node that is full is replaced like a leaf, in a step of its own.

use std::sync::Arc;

use frazil_journal::Watermark;
use frazil_journal::engine::Reservation;
use frazil_ondisk::jset::EntryType;
use frazil_ondisk::node::KeyFormat;
use frazil_ondisk::units::Sectors;
use frazil_ondisk::{Bpos, BtreeId, Key, KeyBuf, KeyType};

use super::commit::{PointerChange, PointerRecord, at, note_full};
use super::dirty::{DirtyNode, Fill, Snapshot};
use super::hooks::{CommitError, NodeArea};
use super::node_writer::NewNode;
use super::stage::Changes;
use super::{Committer, Engine};
use crate::LEVEL_MAX;
use crate::cell::NodeCell;
use crate::error::Span;
use crate::node::{Node, NodeFacts};
use crate::ptr::NodeId;
use crate::trees::Root;
use crate::view::MergedView;

/// Neighbours that a node is merged with at most.
const MERGE_MAX: usize = 8;

/// A node that is written and waits to be switched to.
struct Fresh {
    pointer: KeyBuf,
    cell: Arc<NodeCell>,
    /// Its place is held until the pointer is committed.
    _hold: Box<dyn Send>,
}

/// A node of the run.
struct Old<'r> {
    dirty: &'r Arc<DirtyNode>,
    snapshot: &'r Snapshot,
    pointer: KeyBuf,
}

impl Engine {
    /// Words above which a node is split when it is replaced (spec 30 §11).
    fn split_words(&self) -> usize {
        self.writer.words_max() * 2 / 3
    }

    /// Words up to which two neighbours become one.
    fn merge_words(&self) -> usize {
        self.writer.words_max() / 3
    }

    /// Whether a node is small enough to look for a neighbour to merge with.
    pub(crate) fn is_small(&self, node: &Node) -> bool {
        let span = node.span();
        let whole = span.min == Bpos::MIN && span.max == Bpos::MAX;
        !whole && node.live_words() < self.merge_words() / 2
    }

    /// Replaces a node by as many as its keys need.
    pub(crate) fn replace(&self, node: &Arc<DirtyNode>, snapshot: &Snapshot) -> Result<(), CommitError> {
        let pointer = self.pointer_to(snapshot.node.span())?;
        self.replace_run(&[Old { dirty: node, snapshot, pointer }]).map(drop)
    }

    /// Writes the node of `level` that covers `pos` anew, at another place, if the pointer to it is one that is `wanted`. False, and nothing
    /// happened, if it is not, if there is no such node, or if somebody is writing it just now.
    ///
    /// # Errors
    /// If the node cannot be had, or cannot be written; the old one stays.
    pub fn move_node(
        &self,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
        wanted: impl Fn(Key<'_>) -> bool,
    ) -> Result<bool, CommitError> {
        let Some(cell) = self.trees.descend(btree, pos, level)?.cell else { return Ok(false) };
        let node = {
            let mut committer = self.committer.lock();
            if cell.is_replaced() {
                return Ok(false);
            }
            self.dirty(&mut committer, &cell)
        };
        let Some(snapshot) = node.begin() else { return Ok(false) };
        let moved = self.pointer_to(snapshot.node.span()).and_then(|pointer| {
            if !wanted(pointer.as_key()) {
                return Ok(false);
            }
            self.replace_run(&[Old { dirty: &node, snapshot: &snapshot, pointer }])
        });
        if !matches!(moved, Ok(true)) {
            node.fail();
            self.forget_if_clean(&node);
        }
        moved
    }

    /// Merges a small node with neighbours that are small too and have the same parent. False, and nothing happened, if there are none.
    pub(crate) fn merge(&self, node: &Arc<DirtyNode>, snapshot: &Snapshot) -> Result<bool, CommitError> {
        let mut others = Vec::new();
        let merged = self.gather(snapshot, &mut others).and_then(|before| {
            if others.is_empty() {
                return Ok(false);
            }
            let (before, behind) = others.split_at(before);
            let mine = (node, snapshot);
            let all = before
                .iter()
                .rev()
                .map(|(d, s)| (d, s))
                .chain([mine])
                .chain(behind.iter().map(|(d, s)| (d, s)));
            let run = all.map(|(dirty, snapshot)| {
                let pointer = self.pointer_to(snapshot.node.span())?;
                Ok(Old { dirty, snapshot, pointer })
            });
            self.replace_run(&run.collect::<Result<Vec<_>, CommitError>>()?)
        });
        if !matches!(merged, Ok(true)) {
            for (other, _) in &others {
                other.fail();
                self.forget_if_clean(other);
            }
        }
        merged
    }

    /// Begins to write the neighbours that fit one node together with this one; first those before it, the nearest first, then those behind it.
    /// Returns how many are before it.
    fn gather(
        &self,
        snapshot: &Snapshot,
        others: &mut Vec<(Arc<DirtyNode>, Snapshot)>,
    ) -> Result<usize, CommitError> {
        let mut words = snapshot.node.live_words();
        let mut before = 0;
        for behind in [false, true] {
            let mut span = snapshot.node.span();
            while others.len() < MERGE_MAX
                && let Some(other) = self.neighbour(span, behind)?
                && let Some(theirs) = other.begin()
            {
                words += theirs.node.live_words();
                if words > self.merge_words() {
                    words -= theirs.node.live_words();
                    other.fail();
                    self.forget_if_clean(&other);
                    break;
                }
                span = theirs.node.span();
                others.push((other, theirs));
            }
            if !behind {
                before = others.len();
            }
        }
        Ok(before)
    }

    /// The neighbour of a node under the same parent.
    fn neighbour(&self, span: Span, behind: bool) -> Result<Option<Arc<DirtyNode>>, CommitError> {
        let Span { btree, level, .. } = span;
        let Some(pos) = (if behind { span.max.successor() } else { span.min.predecessor() }) else {
            return Ok(None);
        };
        let parent = self.trees.descend(btree, span.max, level + 1)?;
        if pos < parent.span.min || parent.span.max < pos {
            return Ok(None);
        }
        let Some(cell) = self.trees.descend(btree, pos, level)?.cell else { return Ok(None) };
        let mut committer = self.committer.lock();
        Ok((!cell.is_replaced()).then(|| self.dirty(&mut committer, &cell)))
    }

    /// Makes the first node of a b-tree, if it still has none.
    pub(crate) fn make_root(&self, btree: BtreeId) -> Result<(), CommitError> {
        if self.trees.slot(btree).is_some() {
            return Ok(());
        }
        let span = Span { btree, level: 0, min: Bpos::MIN, max: Bpos::MAX };
        // The empty leaf it replaces exists in memory only, and counts as number 0 (spec 30 §5.1).
        let root = self.write_new(span, 1, &[], None)?;
        let changes = Changes::from([(at(btree, 1, span.max), root.pointer.clone())]);
        let records =
            [PointerRecord { ty: EntryType::BTREE_ROOT, btree, level: 0, key: root.pointer.clone() }];
        // Another thread may have been faster; then the place is given back.
        let valid = || self.trees.slot(btree).is_none();
        let what = PointerChange { changes: &changes, records: &records, triggers: true, valid: &valid };
        let made = self.commit_pointers(&what, |_, _| {
            self.trees.cache.insert(Arc::clone(&root.cell));
            let slot = Root::At { level: 0, key: root.pointer.clone() };
            self.trees.set_root(btree, slot, Arc::clone(&root.cell));
            self.trees.reshaped();
            Vec::new()
        });
        made.map(drop)
    }

    /// Replaces the nodes of a run; false, and nothing happened, if they no longer have one parent.
    fn replace_run(&self, run: &[Old<'_>]) -> Result<bool, CommitError> {
        let (first, last) = (&run[0].snapshot.node, &run[run.len() - 1].snapshot.node);
        let span = Span { max: last.span().max, ..first.span() };
        let counter = run.iter().map(|old| old.snapshot.node.counter()).max().unwrap_or(0) + 1;
        let fresh = self.write_parts(span, counter, run)?;
        let root = self.is_root(span);
        let above = match root && fresh.len() > 1 {
            true => Some(self.write_root_above(span, &fresh)?),
            false => None,
        };
        let changes = self.switch(span, run, &fresh, above.as_ref());
        let records = records(span, run, &fresh, above.as_ref(), root);
        let valid = || run.len() == 1 || self.one_parent(span);
        let what = PointerChange { changes: &changes, records: &records, triggers: true, valid: &valid };
        let committed = self.commit_pointers(&what, |committer, reservation| {
            self.install(committer, reservation, span, run, &fresh, above.as_ref())
        })?;
        let done = committed.is_some();
        self.relieve_parents(committed);
        Ok(done)
    }

    /// Whether one node of the level above covers the span.
    fn one_parent(&self, span: Span) -> bool {
        let parent = self.trees.descend_in_memory(span.btree, span.max, span.level + 1);
        parent.is_ok_and(|place| place.is_some_and(|parent| parent.span.min <= span.min))
    }

    /// Writes the nodes that the keys of the run are dealt out to.
    fn write_parts(&self, span: Span, counter: u32, run: &[Old<'_>]) -> Result<Vec<Fresh>, CommitError> {
        let mut views = Vec::new();
        for old in run {
            let node = &*old.snapshot.node;
            let mut view = MergedView::new(Some(node), None, node.span().min, node.span().max);
            let mut places = Vec::with_capacity(node.keys().len() + node.delta().len());
            while let Some(at) = view.next() {
                places.push(at);
            }
            views.push((view, places));
        }
        let keys: Vec<Key<'_>> =
            views.iter().flat_map(|(view, places)| places.iter().map(|&at| view.key(at))).collect();
        let old_format = run[0].snapshot.node.keys().format();
        let fallback = (run.len() == 1).then_some(old_format);
        let mut fresh = Vec::new();
        let mut min = span.min;
        for part in self.deal(&keys, old_format) {
            let is_last = fresh.len() + 1 == part.of;
            let max = if is_last { span.max } else { part.keys[part.keys.len() - 1].k.pos };
            fresh.push(self.write_new(Span { min, max, ..span }, counter, part.keys, fallback)?);
            min = max.successor().unwrap_or(Bpos::MAX);
        }
        Ok(fresh)
    }

    /// Cuts keys into parts that make good nodes: one if they fit, else of about equal size, the first somewhat larger (spec 30 §11.3).
    fn deal<'k, 'v>(&self, keys: &'k [Key<'v>], format: &KeyFormat) -> Vec<Part<'k, 'v>> {
        let words = |key: &Key<'_>| {
            let header =
                if format.packs(&key.k) { format.key_u64s() } else { frazil_ondisk::bkey::BKEY_U64S };
            header + key.value.len() / 8
        };
        let total: usize = keys.iter().map(words).sum();
        let parts = if total <= self.split_words() {
            1
        } else {
            (total * 3 / 2).div_ceil(self.writer.words_max()).max(2)
        };
        // Every part must have keys, and an inner node's parts two of them would be wasteful but right.
        let parts = parts.min(keys.len().max(1));
        let share = if parts == 2 { total * 3 / 5 } else { total.div_ceil(parts) };
        let mut dealt = Vec::with_capacity(parts);
        let mut rest = keys;
        for left in (1..parts).rev() {
            let mut sum = 0;
            let cut = rest.iter().take_while(|key| {
                let take = sum < share;
                sum += words(key);
                take
            });
            // At least one for this part, and one for each behind it.
            let cut = cut.count().clamp(1, rest.len() - left);
            let (part, behind) = rest.split_at(cut);
            dealt.push(part);
            rest = behind;
        }
        dealt.push(rest);
        dealt.into_iter().map(|keys| Part { keys, of: parts }).collect()
    }

    /// Writes a node to a place of its own.
    fn write_new(
        &self,
        span: Span,
        counter: u32,
        keys: &[Key<'_>],
        fallback: Option<&KeyFormat>,
    ) -> Result<Fresh, CommitError> {
        let node = self.writer.first(span, self.new_node_seq(), counter, keys, fallback)?;
        self.check_halted()?;
        let NodeArea { ptrs, hold } = self.space.allocate(Watermark::Reclaim)?;
        self.writer.write(ptrs.iter().copied(), Sectors(0), &node.bytes)?;
        let pointer = node.pointer(&ptrs);
        let (seq, written) = (node.seq, node.sectors());
        let NewNode { keys, .. } = node;
        let id = NodeId { btree: span.btree, level: span.level, seq };
        let (node, _) = Node::new(NodeFacts { span, counter, written }, keys, None);
        Ok(Fresh { pointer, cell: Arc::new(NodeCell::new(id, node)), _hold: hold })
    }

    /// Writes a root above the parts of the old one.
    fn write_root_above(&self, span: Span, parts: &[Fresh]) -> Result<Fresh, CommitError> {
        let level = span.level + 1;
        if level > LEVEL_MAX {
            return Err(CommitError::Inconsistent(format!("{span}: the b-tree cannot grow any higher")));
        }
        let keys: Vec<Key<'_>> = parts.iter().map(|part| part.pointer.as_key()).collect();
        self.write_new(Span { level, ..span }, 0, &keys, None)
    }

    /// The changes of pointers.
    fn switch(&self, span: Span, run: &[Old<'_>], fresh: &[Fresh], above: Option<&Fresh>) -> Changes {
        let Span { btree, level, .. } = span;
        let mut changes = Changes::new();
        for old in run {
            let pos = old.pointer.k.pos;
            changes.insert(at(btree, level + 1, pos), KeyBuf::new(KeyType::DELETED, pos, 0, []));
        }
        for part in fresh {
            changes.insert(at(btree, level + 1, part.pointer.k.pos), part.pointer.clone());
        }
        if let Some(above) = above {
            changes.insert(at(btree, level + 2, above.pointer.k.pos), above.pointer.clone());
        }
        changes
    }

    /// The switch in memory.
    fn install(
        &self,
        committer: &mut Committer,
        reservation: &Reservation<'_>,
        span: Span,
        run: &[Old<'_>],
        fresh: &[Fresh],
        above: Option<&Fresh>,
    ) -> Vec<Arc<DirtyNode>> {
        let mut full = Vec::new();
        run.iter().for_each(|old| old.dirty.cell.replace());
        for part in fresh {
            self.trees.cache.insert(Arc::clone(&part.cell));
        }
        if let Some(above) = above {
            self.trees.cache.insert(Arc::clone(&above.cell));
            let root = Root::At { level: span.level + 1, key: above.pointer.clone() };
            self.trees.set_root(span.btree, root, Arc::clone(&above.cell));
        } else {
            for deleted in deleted(run, fresh) {
                self.install_pointer(committer, span, &deleted, None, reservation, &mut full);
            }
            for part in fresh {
                self.install_pointer(
                    committer,
                    span,
                    &part.pointer,
                    Some(&part.cell),
                    reservation,
                    &mut full,
                );
            }
        }
        self.trees.reshaped();
        for old in run {
            self.carry_over(committer, old, fresh, &mut full);
            old.dirty.replaced();
            committer.clean(old.dirty);
            self.trees.cache.remove(old.dirty.cell.id());
        }
        full
    }

    /// Moves what changed in an old node since it was looked at into the new ones.
    fn carry_over(
        &self,
        committer: &mut Committer,
        old: &Old<'_>,
        fresh: &[Fresh],
        full: &mut Vec<Arc<DirtyNode>>,
    ) {
        let now = old.dirty.cell.load();
        let since = now.delta().since(old.snapshot.node.change());
        let mut entries = since.iter().peekable();
        for part in fresh {
            let max = part.cell.load().span().max;
            let mut heir = None;
            while let Some(entry) = entries.next_if(|e| e.pos <= max) {
                let heir = heir.get_or_insert_with(|| self.dirty(committer, &part.cell));
                if heir.adopt(Arc::clone(&entry.key), old.dirty) == Fill::Full {
                    note_full(full, Arc::clone(heir));
                }
            }
        }
    }

    /// Puts the pointer to a node of `span`'s level into its parent, or makes it the root's.
    pub(crate) fn install_pointer(
        &self,
        committer: &mut Committer,
        span: Span,
        pointer: &KeyBuf,
        cell: Option<&Arc<NodeCell>>,
        reservation: &Reservation<'_>,
        full: &mut Vec<Arc<DirtyNode>>,
    ) {
        if let (true, Some(cell)) = (self.is_root(span), cell) {
            let root = Root::At { level: span.level, key: pointer.clone() };
            return self.trees.set_root(span.btree, root, Arc::clone(cell));
        }
        let parent = self.trees.descend_in_memory(span.btree, pointer.k.pos, span.level + 1);
        let parent = parent.ok().flatten().and_then(|place| place.cell);
        let parent = parent.expect("the commit has looked at the pointer in this node");
        self.put(committer, &parent, pointer.clone(), reservation, full);
    }
}

/// A share of keys, and how many shares there are.
struct Part<'k, 'v> {
    keys: &'k [Key<'v>],
    of: usize,
}

/// How the switch is recorded: the new root alone, or the pointers of one level.
fn records(
    span: Span,
    run: &[Old<'_>],
    fresh: &[Fresh],
    above: Option<&Fresh>,
    root: bool,
) -> Vec<PointerRecord> {
    let Span { btree, level, .. } = span;
    if let Some(above) = above {
        return vec![PointerRecord {
            ty: EntryType::BTREE_ROOT,
            btree,
            level: level + 1,
            key: above.pointer.clone(),
        }];
    }
    if root {
        let key = fresh[0].pointer.clone();
        return vec![PointerRecord { ty: EntryType::BTREE_ROOT, btree, level, key }];
    }
    let keys = deleted(run, fresh).chain(fresh.iter().map(|part| part.pointer.clone()));
    keys.map(|key| PointerRecord { ty: EntryType::BTREE_KEYS, btree, level: level + 1, key }).collect()
}

/// What takes the pointers out of the parent at whose positions no new node ends.
fn deleted(run: &[Old<'_>], fresh: &[Fresh]) -> impl Iterator<Item = KeyBuf> {
    let kept = |pos: Bpos| fresh.iter().any(|part| part.pointer.k.pos == pos);
    let gone = run.iter().map(|old| old.pointer.k.pos).filter(move |pos| !kept(*pos));
    gone.map(|pos| KeyBuf::new(KeyType::DELETED, pos, 0, []))
}
