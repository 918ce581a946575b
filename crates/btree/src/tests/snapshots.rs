//! What snapshots see, compared with the rule applied literally.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use frazil_ondisk::units::{Inum, SnapshotId};
use frazil_ondisk::values::snapshot::SnapshotState;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use proptest::prelude::*;

use crate::testing::{Forest, key};
use crate::{Error, SnapshotCursor, SnapshotInfo, SnapshotTable};

/// Snapshots 20, 19, …; each names its parent among those made before it, or none.
fn table(parents: &[u32]) -> Vec<SnapshotInfo> {
    let mut infos: Vec<SnapshotInfo> = Vec::new();
    for (i, parent) in parents.iter().enumerate() {
        let parent = infos.get(*parent as usize % (i + 1)).map(|p| p.id);
        let state = if parent.is_some() && i % 7 == 5 { SnapshotState::Deleted } else { SnapshotState::Live };
        infos.push(SnapshotInfo { id: SnapshotId(20 - i as u32), parent, state });
    }
    infos
}

/// The snapshots whose keys are in sight from `id`, the nearest first.
fn path(infos: &[SnapshotInfo], id: SnapshotId) -> Vec<u32> {
    let mut out = Vec::new();
    let mut at = Some(id);
    while let Some(info) = at.and_then(|at| infos.iter().find(|s| s.id == at)) {
        if info.state != SnapshotState::Deleted {
            out.push(info.id.0);
        }
        at = info.parent;
    }
    out
}

type Model = BTreeMap<Bpos, KeyBuf>;

/// The rule of spec 40 §1.1, slot by slot.
fn visible(model: &Model, path: &[u32]) -> Vec<KeyBuf> {
    let slots: BTreeSet<(u64, u64)> = model.keys().map(|p| (p.inode, p.offset)).collect();
    let nearest =
        |(i, o)| path.iter().filter_map(|&s| model.get(&Bpos::new(i, o, s))).min_by_key(|k| k.k.pos.snapshot);
    slots.into_iter().filter_map(nearest).filter(|k| !k.k.ty.is_snapshot_whiteout()).cloned().collect()
}

fn collect(cursor: &mut SnapshotCursor<'_>, forward: bool) -> Vec<KeyBuf> {
    let mut out = Vec::new();
    loop {
        let step = if forward { cursor.next() } else { cursor.prev() };
        match step.unwrap() {
            Some(key) => out.push(key.to_owned()),
            None => return out,
        }
    }
}

fn reversed(mut keys: Vec<KeyBuf>) -> Vec<KeyBuf> {
    keys.reverse();
    keys
}

/// Steps as told, compared with an index into what should be seen.
fn check_steps(cursor: &mut SnapshotCursor<'_>, want: &[KeyBuf], steps: &[bool]) {
    let mut at = 0;
    for &forward in steps {
        if forward {
            assert_eq!(cursor.next().unwrap().map(|k| k.to_owned()).as_ref(), want.get(at));
            at = want.len().min(at + 1);
        } else {
            let got = cursor.prev().unwrap().map(|k| k.to_owned());
            assert_eq!(got.as_ref(), at.checked_sub(1).map(|i| &want[i]));
            at = at.saturating_sub(1);
        }
        assert_eq!(cursor.handle().map(|h| h.key().to_owned()), cursor.key().map(|k| k.to_owned()));
    }
}

/// Some keys; every third is a whiteout.
fn some_keys(pos: impl Strategy<Value = Bpos>, max: usize) -> impl Strategy<Value = Vec<(Bpos, u64, u32)>> {
    proptest::collection::vec((pos, any::<u64>(), 1..=8u32), 0..max)
}

fn plant(btree: BtreeId, model: &Model, fan: usize, journalled: usize) -> Forest {
    let mut forest = Forest::default();
    let in_journal = |i: usize| journalled != 0 && i.is_multiple_of(journalled);
    let (new, old): (Vec<_>, Vec<_>) = model.values().cloned().enumerate().partition(|(i, _)| in_journal(*i));
    forest.plant(btree, &old.into_iter().map(|(_, k)| k).collect::<Vec<_>>(), fan);
    new.into_iter().for_each(|(_, k)| forest.journal(btree, 0, k));
    forest
}

proptest! {
    #[test]
    fn each_snapshot_sees_what_the_rule_says(
        parents in proptest::collection::vec(any::<u32>(), 1..14),
        keys in some_keys((1..3u64, 0..12u64, 5..22u32).prop_map(|(i, o, s)| Bpos::new(i, o, s)), 150),
        fan in 4..9usize,
        journalled in 0..4usize,
        range in (0..3u64, 0..13u64, 1..4u64, 0..13u64),
        steps in proptest::collection::vec(any::<bool>(), 0..60),
    ) {
        let model: Model = keys.into_iter().map(|(pos, v, _)| match v % 3 {
            0 => (pos, KeyBuf::new(KeyType::WHITEOUT, pos, 0, [])),
            _ => (pos, key(pos, v)),
        }).collect();
        let forest = plant(BtreeId::DIRENTS, &model, fan, journalled);
        let trees = forest.trees(1 << 20);
        let infos = table(&parents);
        let snapshots = Arc::new(SnapshotTable::new(infos.iter().copied()));
        for info in &infos {
            let view = match snapshots.view(info.id) {
                Ok(view) => view,
                Err(e) => {
                    prop_assert_eq!(info.state, SnapshotState::Deleted);
                    prop_assert_eq!(e, Error::NoSuchSnapshot(info.id));
                    continue;
                }
            };
            let want = visible(&model, &path(&infos, info.id));
            let mut cursor = trees.visible(BtreeId::DIRENTS, &view, Bpos::MIN..Bpos::POS_MAX);
            prop_assert_eq!(&collect(&mut cursor, true), &want);
            prop_assert_eq!(&reversed(collect(&mut cursor, false)), &want);
            check_steps(&mut cursor, &want, &steps);
            for inode in 1..3 {
                for offset in 0..12 {
                    let pos = Bpos::new(inode, offset, 7);
                    let got = trees.get_visible(BtreeId::DIRENTS, pos, &view).unwrap().map(|h| h.key().to_owned());
                    prop_assert_eq!(got.as_ref(), want.iter().find(|k| (k.k.pos.inode, k.k.pos.offset) == (inode, offset)));
                }
            }
            let (from, to) = (Bpos::new(range.0, range.1, 3), Bpos::new(range.2, range.3, 3));
            let part = |k: &&KeyBuf| k.k.pos >= from.with_snapshot(0) && k.k.pos < to.with_snapshot(0);
            let part: Vec<KeyBuf> = want.iter().filter(part).cloned().collect();
            let mut cursor = trees.visible(BtreeId::DIRENTS, &view, from..to);
            cursor.seek_end().unwrap();
            prop_assert_eq!(&reversed(collect(&mut cursor, false)), &part);
            prop_assert_eq!(&collect(&mut cursor, true), &part);
            cursor.seek(Bpos::new(1, 5, 0));
            let rest: Vec<KeyBuf> = part.into_iter().filter(|k| k.k.pos >= Bpos::new(1, 5, 0)).collect();
            prop_assert_eq!(&collect(&mut cursor, true), &rest);
        }
    }

    #[test]
    fn extents_of_a_range_are_those_that_share_a_sector_with_it(
        parents in proptest::collection::vec(any::<u32>(), 1..10),
        // Every block of 8 sectors has its own keys, so that no two can overlap.
        keys in some_keys((1..4u64, 0..10u64, 8..22u32).prop_map(|(i, b, s)| Bpos::new(i, (b + 1) * 8, s)), 120),
        fan in 4..9usize,
        journalled in 0..4usize,
        from in 0..85u64,
        len in 0..60u64,
        steps in proptest::collection::vec(any::<bool>(), 0..40),
    ) {
        let model: Model = keys.into_iter().map(|(pos, v, size)| (pos, match v % 4 {
            0 => KeyBuf::new(KeyType::WHITEOUT, pos, 0, []),
            1 => KeyBuf::new(KeyType::EXTENT_WHITEOUT, pos, 0, []),
            _ => KeyBuf::new(KeyType::RESERVATION, pos, size, v.to_le_bytes()),
        })).collect();
        let forest = plant(BtreeId::EXTENTS, &model, fan, journalled);
        let trees = forest.trees(1 << 20);
        let infos = table(&parents);
        let snapshots = Arc::new(SnapshotTable::new(infos.iter().copied()));
        for info in &infos {
            let Ok(view) = snapshots.view(info.id) else { continue };
            let shares = |k: &KeyBuf| {
                k.k.pos.inode == 2 && k.k.pos.offset > from && k.k.start_offset().unwrap() < from + len && len > 0
            };
            let want: Vec<KeyBuf> =
                visible(&model, &path(&infos, info.id)).into_iter().filter(shares).collect();
            let mut cursor = trees.visible_extents(&view, Inum(2), from..from + len);
            prop_assert_eq!(&collect(&mut cursor, true), &want);
            prop_assert_eq!(&reversed(collect(&mut cursor, false)), &want);
            check_steps(&mut cursor, &want, &steps);
            cursor.seek_end().unwrap();
            prop_assert_eq!(&reversed(collect(&mut cursor, false)), &want);
        }
    }
}

fn chain() -> Arc<SnapshotTable> {
    let info = |id, parent: u32| SnapshotInfo {
        id: SnapshotId(id),
        parent: (parent != 0).then_some(SnapshotId(parent)),
        state: SnapshotState::Live,
    };
    Arc::new(SnapshotTable::new([info(30, 0), info(20, 30), info(10, 20)]))
}

/// One slot whose keys lie in three leaves, one of them lost.
fn one_slot_in_three_leaves(lost: usize) -> Forest {
    let mut forest = Forest::default();
    let at = |o, s| Bpos::new(1, o, s);
    let keys = [
        key(at(1, 30), 1),
        KeyBuf::new(KeyType::WHITEOUT, at(5, 10), 0, []),
        key(at(5, 20), 2),
        key(at(5, 30), 3),
        key(at(6, 30), 4),
        key(at(7, 30), 5),
    ];
    forest.plant(BtreeId::DIRENTS, &keys, 2);
    forest.bad.insert(frazil_ondisk::units::NodeSeq(lost as u64));
    forest
}

fn offsets(forest: &Forest, snapshot: u32, forward: bool) -> Vec<u64> {
    let trees = forest.trees(1 << 20);
    let mut cursor = trees.visible(
        BtreeId::DIRENTS,
        &chain().view(SnapshotId(snapshot)).unwrap(),
        Bpos::MIN..Bpos::POS_MAX,
    );
    if !forward {
        cursor.seek_end().unwrap();
    }
    let mut out = Vec::new();
    loop {
        let step = if forward { cursor.next() } else { cursor.prev() };
        match step {
            Ok(Some(key)) => out.push(key.k.pos.offset),
            Ok(None) => break,
            Err(_) => {
                // Trying again is an error again, in either direction nothing is lost or made up.
                assert!(if forward { cursor.next() } else { cursor.prev() }.is_err());
                cursor.skip_bad_node().unwrap();
            }
        }
    }
    if !forward {
        out.reverse();
    }
    out
}

#[test]
fn keys_that_a_lost_one_may_hide_stay_hidden() {
    // Leaves: {1/30, 5/10 whiteout} {5/20, 5/30} {6/30, 7/30}.
    for forward in [true, false] {
        let whole = one_slot_in_three_leaves(99);
        assert_eq!(offsets(&whole, 10, forward), [1, 6, 7]);
        assert_eq!(offsets(&whole, 20, forward), [1, 5, 6, 7]);
        let first_lost = one_slot_in_three_leaves(1);
        assert_eq!(offsets(&first_lost, 10, forward), [6, 7], "the whiteout is lost, not what it hides");
        let second_lost = one_slot_in_three_leaves(2);
        assert_eq!(offsets(&second_lost, 10, forward), [1, 6, 7]);
        assert_eq!(offsets(&second_lost, 30, forward), [1, 6, 7]);
    }
}

#[test]
fn a_failed_step_back_takes_nothing_along() {
    let forest = one_slot_in_three_leaves(1);
    let trees = forest.trees(1 << 20);
    let view = chain().view(SnapshotId(10)).unwrap();
    let mut cursor = trees.visible(BtreeId::DIRENTS, &view, Bpos::MIN..Bpos::POS_MAX);
    cursor.seek(Bpos::new(1, 6, 0));
    // The slot at 5 has been entered, and its nearest key is in the lost leaf.
    assert!(cursor.prev().is_err());
    assert_eq!(cursor.key(), None);
    assert_eq!(cursor.next().unwrap().map(|k| k.k.pos.offset), Some(6));
}

#[test]
fn long_runs_of_other_snapshots_are_jumped_over() {
    let mut forest = Forest::default();
    let mut keys: Vec<KeyBuf> = (1..500).map(|s| key(Bpos::new(1, 1, s), s.into())).collect();
    keys.push(key(Bpos::new(1, 1, 1000), 1));
    keys.push(key(Bpos::new(1, 2, 1000), 2));
    forest.plant(BtreeId::DIRENTS, &keys, 8);
    let trees = forest.trees(1 << 20);
    let root = SnapshotInfo { id: SnapshotId(1000), parent: None, state: SnapshotState::Live };
    let view = Arc::new(SnapshotTable::new([root])).view(SnapshotId(1000)).unwrap();
    let mut cursor = trees.visible(BtreeId::DIRENTS, &view, Bpos::MIN..Bpos::POS_MAX);
    let seen: Vec<u64> = collect(&mut cursor, true).iter().map(|k| k.k.pos.offset).collect();
    assert_eq!(seen, [1, 2]);
    let reads = forest.reads.load(std::sync::atomic::Ordering::Relaxed);
    assert!(reads < 20, "{reads} of more than 60 nodes read");
}
