//! What a damaged tree does: errors for exactly the lost range, problems for what can be read nevertheless.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use frazil_ondisk::node::NodePtr;
use frazil_ondisk::units::NodeSeq;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use proptest::prelude::*;

use crate::testing::{Forest, key, pointer as pointer_to, seq_of};
use crate::{Error, ProblemKind, Root, Span};

const TREE: BtreeId = BtreeId::LRU;

fn at(offset: u64) -> Bpos {
    Bpos::new(0, offset, 0)
}

fn keys(offsets: std::ops::Range<u64>) -> Vec<KeyBuf> {
    offsets.map(|o| key(at(o), o)).collect()
}

/// A root at level 1 with these children, and their pointers as given.
fn two_levels(forest: &mut Forest, pointers: Vec<KeyBuf>) {
    let root = forest.node(Bpos::MIN, Bpos::MAX, pointers);
    forest.roots.insert(TREE, Root::At { level: 1, key: root });
}

fn offsets(forest: &Forest) -> (Vec<u64>, Vec<Span>) {
    let trees = forest.trees(1 << 20);
    let (mut seen, mut lost) = (Vec::new(), Vec::new());
    let mut cursor = trees.cursor(TREE, ..);
    loop {
        match cursor.next() {
            Ok(Some(key)) => seen.push(key.k.pos.offset),
            Ok(None) => break,
            Err(e) => {
                assert_eq!(cursor.next().unwrap_err(), e, "the cursor stays where it is");
                assert_eq!(cursor.skip_bad_node(), e.span());
                assert_eq!(cursor.skip_bad_node(), None);
                lost.push(e.span().unwrap());
            }
        }
    }
    let (mut back, mut lost_back) = (Vec::new(), Vec::new());
    loop {
        match cursor.prev() {
            Ok(Some(key)) => back.push(key.k.pos.offset),
            Ok(None) => break,
            Err(_) => lost_back.push(cursor.skip_bad_node().unwrap()),
        }
    }
    back.reverse();
    lost_back.reverse();
    assert_eq!((&seen, &lost), (&back, &lost_back), "both directions see the same");
    (seen, lost)
}

fn span(min: Bpos, max: Bpos) -> Span {
    Span { btree: TREE, level: 0, min, max }
}

#[test]
fn an_unreadable_node_costs_its_range_only() {
    let mut forest = Forest::default();
    forest.plant(TREE, &keys(0..40), 10);
    let Some(Root::At { level: 1, .. }) = forest.roots.get(&TREE) else { panic!("two levels") };
    forest.bad.insert(NodeSeq(2));
    let (seen, lost) = offsets(&forest);
    assert_eq!(seen, (0..10).chain(20..40).collect::<Vec<_>>());
    assert_eq!(lost, [span(at(9).successor().unwrap(), at(19))]);

    let trees = forest.trees(1 << 20);
    assert!(matches!(trees.get(TREE, at(12)), Err(Error::Unreadable(_))));
    let text = trees.get(TREE, at(12)).unwrap_err().to_string();
    assert!(text.contains("b-tree lru, level 0, 0:9:1 to 0:19:0"), "{text}");
    assert!(text.contains("device 0 (memory), sector 16"), "{text}");
    assert!(trees.get(TREE, at(9)).unwrap().is_some());
}

#[test]
fn a_failure_is_not_remembered() {
    let mut forest = Forest::default();
    forest.plant(TREE, &keys(0..40), 10);
    forest.bad.insert(NodeSeq(2));
    let trees = forest.trees(1 << 20);
    assert!(trees.get(TREE, at(12)).is_err());
    let reads = forest.reads.load(Relaxed);
    assert!(trees.get(TREE, at(12)).is_err());
    assert_eq!(forest.reads.load(Relaxed), reads + 1);
}

#[test]
fn an_unreadable_root_costs_everything() {
    let mut forest = Forest::default();
    forest.plant(TREE, &keys(0..5), 10);
    forest.bad.insert(NodeSeq(1));
    assert_eq!(offsets(&forest), (vec![], vec![span(Bpos::MIN, Bpos::MAX)]));
    forest.roots.insert(TREE, Root::Lost);
    assert_eq!(forest.trees(0).get(TREE, at(1)).unwrap_err(), Error::RootLost(TREE));
    forest.roots.insert(TREE, Root::At { level: 9, key: key(at(0), 0) });
    assert_eq!(forest.trees(0).get(TREE, at(1)).unwrap_err(), Error::TooDeep { btree: TREE, level: 9 });
}

#[test]
fn a_gap_is_an_error_for_the_gap() {
    let mut forest = Forest::default();
    let a = forest.node(Bpos::MIN, at(9), keys(0..10));
    let c = forest.node(at(20), Bpos::MAX, keys(20..30));
    two_levels(&mut forest, vec![a, c]);
    let (seen, lost) = offsets(&forest);
    assert_eq!(seen, (0..10).chain(20..30).collect::<Vec<_>>());
    let gap = span(at(9).successor().unwrap(), at(20).predecessor().unwrap());
    assert_eq!(lost, [gap]);
    let trees = forest.trees(1 << 20);
    assert_eq!(trees.get(TREE, at(12)).unwrap_err(), Error::Gap(gap));
    let kinds: Vec<_> = trees.problems().into_iter().map(|p| p.kind).collect();
    let expected = at(9).successor().unwrap();
    assert_eq!(kinds, [ProblemKind::ChildBegins { child: Bpos::MAX, expected, found: at(20) }]);
}

#[test]
fn an_overlap_belongs_to_the_first() {
    let mut forest = Forest::default();
    let a = forest.node(Bpos::MIN, at(9), keys(0..10));
    let b = forest.node(at(5), Bpos::MAX, keys(5..20));
    two_levels(&mut forest, vec![a, b]);
    let (seen, lost) = offsets(&forest);
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    assert_eq!(lost, []);
    let trees = forest.trees(1 << 20);
    assert!(trees.get(TREE, at(7)).unwrap().is_some());
    assert_eq!(trees.problems().len(), 1);
    assert!(trees.get(TREE, at(8)).unwrap().is_some());
    assert_eq!(trees.problems().len(), 1, "each node is reported once");
}

#[test]
fn children_that_end_early_or_are_missing() {
    let mut forest = Forest::default();
    let a = forest.node(Bpos::MIN, at(9), keys(0..10));
    two_levels(&mut forest, vec![a]);
    assert_eq!(offsets(&forest), ((0..10).collect(), vec![span(at(9).successor().unwrap(), Bpos::MAX)]));
    let trees = forest.trees(0);
    trees.get(TREE, at(3)).unwrap();
    let kinds: Vec<_> = trees.problems().into_iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [ProblemKind::LastChildEnds { expected: Bpos::MAX, found: at(9) }]);

    let mut forest = Forest::default();
    two_levels(&mut forest, vec![]);
    assert_eq!(offsets(&forest), (vec![], vec![span(Bpos::MIN, Bpos::MAX)]));
}

#[test]
fn a_key_that_is_no_pointer() {
    let mut forest = Forest::default();
    let a = forest.node(Bpos::MIN, at(9), keys(0..10));
    let c = forest.node(at(19).successor().unwrap(), Bpos::MAX, keys(20..30));
    two_levels(&mut forest, vec![a, KeyBuf::new(KeyType::SET, at(19), 0, []), c]);
    let (seen, lost) = offsets(&forest);
    assert_eq!(seen, (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(lost, [span(at(9).successor().unwrap(), at(19))]);
    assert!(matches!(forest.trees(0).get(TREE, at(15)), Err(Error::BadPointer(_))));
}

proptest! {
    #[test]
    fn walks_through_any_tree_end_and_agree(
        leaves in proptest::collection::vec((0..60u64, 0..60u64, proptest::collection::btree_set(0..60u64, 0..8)), 1..8),
        children in proptest::collection::btree_map(0..60u64, (0..60u64, 0..12usize, any::<bool>()), 0..12),
        fan in 2..5usize,
    ) {
        let mut forest = Forest::default();
        // Leaves with any bounds; then pointers, some to these, some to nothing, with any bounds.
        let mut pointers = Vec::new();
        for (a, b, offsets) in leaves {
            let (min, max) = (at(a.min(b)), at(a.max(b)));
            let keys = offsets.into_iter().map(|o| key(at(o), o)).filter(|k| k.k.pos >= min && k.k.pos <= max);
            pointers.push(forest.node(min, max, keys.collect()));
        }
        let children: Vec<KeyBuf> = children.into_iter().map(|(max, (min, which, honest))| match pointers.get(which) {
            Some(pointer) if honest => pointer.clone(),
            Some(pointer) => pointer_to(seq_of(pointer), at(min), at(max)),
            None => pointer_to(NodeSeq(which as u64 + 100), at(min), at(max)),
        }).collect();
        let mut children: Vec<KeyBuf> =
            children.into_iter().map(|k| (k.k.pos, k)).collect::<BTreeMap<_, _>>().into_values().collect();
        for level in 1..=2 {
            let mut parents = Vec::new();
            for chunk in children.chunks(fan) {
                parents.push(forest.node(chunk[0].k.pos, chunk[chunk.len() - 1].k.pos, chunk.to_vec()));
            }
            if level == 2 || parents.len() < 2 {
                let root = forest.node(Bpos::MIN, Bpos::MAX, parents);
                forest.roots.insert(TREE, Root::At { level: level + 1, key: root });
                break;
            }
            children = parents;
        }
        let (seen, lost) = offsets(&forest);
        prop_assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        prop_assert!(lost.is_sorted_by(|a, b| a.max < b.min), "{lost:?}");
        let trees = forest.trees(1 << 20);
        for offset in 0..60 {
            let inside = lost.iter().any(|s| s.min <= at(offset) && at(offset) <= s.max);
            match trees.get(TREE, at(offset)) {
                Ok(found) => prop_assert_eq!(found.is_some(), seen.contains(&offset), "{}", offset),
                Err(_) => prop_assert!(inside, "{} is not lost", offset),
            }
        }
    }
}

#[test]
fn two_pointers_with_one_number() {
    let mut forest = Forest::default();
    let a = forest.node(Bpos::MIN, at(9), keys(0..10));
    let twin = pointer_to(seq_of(&a), at(9).successor().unwrap(), Bpos::MAX);
    two_levels(&mut forest, vec![a, twin]);
    let trees = forest.trees(1 << 20);
    assert!(trees.get(TREE, at(3)).unwrap().is_some());
    assert!(matches!(trees.get(TREE, at(12)), Err(Error::BadPointer(_))));
}

#[test]
fn journal_keys_above_the_root_are_reported_and_not_used() {
    let mut forest = Forest::default();
    forest.plant(TREE, &keys(0..5), 10);
    let stray = forest.node(Bpos::MIN, at(3), keys(0..1));
    assert!(NodePtr::decode(TREE, 1, stray.as_key()).is_ok());
    forest.journal(TREE, 1, stray);
    let trees = forest.trees(1 << 20);
    assert!(trees.get(TREE, at(2)).unwrap().is_some());
    assert!(trees.level_cursor(TREE, 1, ..).next().unwrap().is_none());
    let kinds: Vec<_> = trees.problems().into_iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [ProblemKind::KeysAboveRoot { keys: 1 }]);
}
