//! Trees of random keys under random journals, compared with a map of what they should hold.

use std::collections::BTreeMap;

use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use proptest::prelude::*;

use crate::Btrees;
use crate::testing::{Forest, deleted, key};

const TREE: BtreeId = BtreeId::LRU;

fn pos() -> impl Strategy<Value = Bpos> {
    (0..3u64, 0..40u64, 0..4u32).prop_map(|(i, o, s)| Bpos::new(i, o, s))
}

/// A change of the tree that is only in the journal.
#[derive(Debug, Clone)]
enum Change {
    Put(Bpos, u64),
    Delete(Bpos),
    Split(usize),
    Merge(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (pos(), any::<u64>()).prop_map(|(p, v)| Change::Put(p, v)),
        4 => pos().prop_map(Change::Delete),
        1 => any::<usize>().prop_map(Change::Split),
        1 => any::<usize>().prop_map(Change::Merge),
    ]
}

type Model = BTreeMap<Bpos, KeyBuf>;

fn build(keys: BTreeMap<Bpos, u64>, fan: usize, changes: &[Change]) -> (Forest, Model) {
    let mut model: Model = keys.into_iter().map(|(p, v)| (p, key(p, v))).collect();
    let mut forest = Forest::default();
    forest.plant(TREE, &model.values().cloned().collect::<Vec<_>>(), fan);
    for change in changes {
        match *change {
            Change::Put(p, v) => {
                model.insert(p, key(p, v));
                forest.journal(TREE, 0, key(p, v));
            }
            Change::Delete(p) => {
                model.remove(&p);
                forest.journal(TREE, 0, deleted(p));
            }
            Change::Split(which) => forest.split(TREE, which),
            Change::Merge(which) => forest.merge(TREE, which),
        }
    }
    (forest, model)
}

fn check_walks(trees: &Btrees, model: &Model, from: Bpos, to: Bpos) {
    let want: Vec<&KeyBuf> =
        if from <= to { model.range(from..=to).map(|(_, k)| k).collect() } else { vec![] };
    let mut cursor = trees.cursor(TREE, from..=to);
    let mut forward = Vec::new();
    while let Some(key) = cursor.next().unwrap() {
        forward.push(key.to_owned());
    }
    assert!(forward.iter().eq(want.iter().copied()), "forward {forward:?}");
    assert!(cursor.next().unwrap().is_none(), "the end stays the end");
    let mut backward = Vec::new();
    while let Some(key) = cursor.prev().unwrap() {
        backward.push(key.to_owned());
    }
    assert!(backward.iter().rev().eq(want.iter().copied()), "backward {backward:?}");
    assert!(cursor.prev().unwrap().is_none(), "the start stays the start");

    let mut cursor = trees.cursor(TREE, from..=to);
    cursor.seek_end();
    let last = cursor.prev().unwrap().map(|k| k.to_owned());
    assert_eq!(last.as_ref(), want.last().copied());
}

/// Walks back and forth as told and compares each step with an index into the sorted keys.
fn check_steps(trees: &Btrees, model: &Model, steps: &[Step]) {
    let keys: Vec<&KeyBuf> = model.values().collect();
    let mut cursor = trees.cursor(TREE, ..);
    let mut at = 0;
    for step in steps {
        match *step {
            Step::Next => {
                let got = cursor.next().unwrap().map(|k| k.to_owned());
                assert_eq!(got.as_ref(), keys.get(at).copied());
                at = keys.len().min(at + 1);
            }
            Step::Prev => {
                let got = cursor.prev().unwrap().map(|k| k.to_owned());
                assert_eq!(got.as_ref(), at.checked_sub(1).map(|i| keys[i]));
                at = at.saturating_sub(1);
            }
            Step::Seek(pos) => {
                cursor.seek(pos);
                assert!(cursor.key().is_none());
                at = keys.partition_point(|k| k.k.pos < pos);
            }
        }
        let handle = cursor.handle().map(|h| h.key().to_owned());
        assert_eq!(handle, cursor.key().map(|k| k.to_owned()));
        assert_eq!(cursor.pos(), cursor.key().map(|k| k.k.pos));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Next,
    Prev,
    Seek(Bpos),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![5 => Just(Step::Next), 5 => Just(Step::Prev), 1 => pos().prop_map(Step::Seek)]
}

proptest! {
    #[test]
    fn get_forward_and_backward_agree_with_a_map(
        keys in proptest::collection::btree_map(pos(), any::<u64>(), 0..200),
        fan in 4..9usize,
        changes in proptest::collection::vec(change(), 0..60),
        ranges in proptest::collection::vec((pos(), pos()), 4),
        steps in proptest::collection::vec(step(), 0..80),
        cache_bytes in prop_oneof![Just(0usize), Just(2000), Just(1 << 20)],
    ) {
        let (forest, model) = build(keys, fan, &changes);
        let trees = forest.trees(cache_bytes);
        check_walks(&trees, &model, Bpos::MIN, Bpos::MAX);
        for (from, to) in ranges {
            check_walks(&trees, &model, from, to);
        }
        check_steps(&trees, &model, &steps);
        for inode in 0..3 {
            for offset in 0..40 {
                for snapshot in 0..4 {
                    let pos = Bpos::new(inode, offset, snapshot);
                    let got = trees.get(TREE, pos).unwrap().map(|h| h.key().to_owned());
                    prop_assert_eq!(got.as_ref(), model.get(&pos));
                }
            }
        }
        prop_assert_eq!(trees.problems(), []);
    }
}

#[test]
fn a_btree_without_a_root_is_empty_but_for_the_journal() {
    let mut forest = Forest::default();
    let p = Bpos::new(1, 2, 0);
    assert!(forest.trees(0).get(TREE, p).unwrap().is_none());
    assert!(forest.trees(0).cursor(TREE, ..).prev().unwrap().is_none());
    forest.journal(TREE, 0, key(p, 7));
    let trees = forest.trees(0);
    assert_eq!(trees.get(TREE, p).unwrap().unwrap().key(), key(p, 7).as_key());
    let mut cursor = trees.cursor(TREE, ..);
    assert_eq!(cursor.next().unwrap(), Some(key(p, 7).as_key()));
    assert_eq!(cursor.next().unwrap(), None);
    assert_eq!(cursor.prev().unwrap(), Some(key(p, 7).as_key()));
}

#[test]
fn empty_ranges_are_empty() {
    let mut forest = Forest::default();
    let p = Bpos::new(1, 2, 0);
    forest.plant(TREE, &[key(p, 1)], 4);
    let trees = forest.trees(0);
    for mut cursor in [trees.cursor(TREE, p..p), trees.cursor(TREE, Bpos::MAX..Bpos::MIN)] {
        assert!(cursor.next().unwrap().is_none());
        assert!(cursor.prev().unwrap().is_none());
        cursor.seek(p);
        assert!(cursor.next().unwrap().is_none());
        cursor.seek_end();
        assert!(cursor.prev().unwrap().is_none());
    }
    let mut all = trees.cursor(TREE, p..);
    assert!(all.next().unwrap().is_some());
}

#[test]
fn level_cursors_list_the_nodes() {
    let mut forest = Forest::default();
    let keys: Vec<KeyBuf> = (0..100).map(|o| key(Bpos::new(0, o, 0), o)).collect();
    forest.plant(TREE, &keys, 10);
    forest.split(TREE, 3);
    let trees = forest.trees(1 << 20);
    let count = |level| {
        let mut cursor = trees.level_cursor(TREE, level, ..);
        let mut n = 0;
        while let Some(key) = cursor.next().unwrap() {
            assert_eq!(key.k.ty, KeyType::BTREE_PTR_V2);
            n += 1;
        }
        n
    };
    assert_eq!((count(1), count(2), count(3)), (11, 0, 0));
}

#[test]
fn many_threads_read_through_a_small_cache() {
    let mut forest = Forest::default();
    let keys: Vec<KeyBuf> = (0..2000).map(|o| key(Bpos::new(0, o, 0), o)).collect();
    forest.plant(TREE, &keys, 20);
    let leaf_bytes = 2000;
    let trees = forest.trees(10 * leaf_bytes);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let trees = &trees;
            scope.spawn(move || {
                for i in 0..2000 {
                    let offset = (i * 7919 + thread * 503) % 2000;
                    let pos = Bpos::new(0, offset, 0);
                    assert_eq!(trees.get(TREE, pos).unwrap().unwrap().key(), key(pos, offset).as_key());
                    if i % 50 == thread {
                        let mut cursor = trees.cursor(TREE, pos..);
                        for o in offset..2000.min(offset + 100) {
                            assert_eq!(cursor.next().unwrap().map(|k| k.k.pos.offset), Some(o));
                        }
                    }
                }
            });
        }
    });
    let stats = trees.cache_stats();
    assert!(stats.bytes <= stats.bytes_max && stats.evictions > 1000, "{stats:?}");
}

#[test]
fn a_walk_asks_for_the_next_leaf() {
    let mut forest = Forest::default();
    let keys: Vec<KeyBuf> = (0..50).map(|o| key(Bpos::new(0, o, 0), o)).collect();
    forest.plant(TREE, &keys, 10);
    let trees = forest.trees(1 << 20);
    let asked = || std::mem::take(&mut *forest.asked.lock()).into_iter().map(|seq| seq.0).collect::<Vec<_>>();
    trees.get(TREE, Bpos::new(0, 35, 0)).unwrap();
    trees.cursor(TREE, ..).next().unwrap();
    assert_eq!(asked(), [], "nobody walks yet");
    let mut cursor = trees.cursor(TREE, ..);
    while cursor.next().unwrap().is_some() {}
    assert_eq!(asked(), [3, 5], "leaf 4 is in memory");
    while cursor.prev().unwrap().is_some() {}
    assert_eq!(asked(), []);
}
