//! Trees that grow and shrink, without crashes.

use std::sync::Arc;

use frazil_btree::Root;
use frazil_btree::write::EngineOptions;
use frazil_device::{Device, MemDevice};
use frazil_ondisk::{Bpos, BtreeId};

use crate::world::{self, DEVICE_BYTES, TREES, World};
use crate::{Edit, Model, commit, edit_model, random_edits, seeds};

pub(crate) fn new_device() -> Arc<dyn Device> {
    let device: Arc<dyn Device> = Arc::new(MemDevice::new(DEVICE_BYTES));
    world::format(&device);
    device
}

pub(crate) fn of_tree(model: &Model, btree: BtreeId) -> Vec<(Bpos, Vec<u8>)> {
    model.iter().filter(|((b, _), _)| *b == btree).map(|((_, pos), v)| (*pos, v.clone())).collect()
}

pub(crate) fn assert_holds(world: &World, model: &Model, what: &str) {
    for btree in TREES {
        assert_eq!(world::keys(world.engine.trees(), btree), of_tree(model, btree), "{what}: {btree}");
    }
}

/// Everything is written back; the last entry of the journal is empty, and nothing is needed from it.
pub(crate) fn shut_down(world: &World) {
    world.journal.shutdown().unwrap();
    assert_eq!(world.engine.status(), Default::default());
}

pub(crate) fn assert_shut_down_holds(device: &Arc<dyn Device>, model: &Model, what: &str) {
    let found = world::scan(device);
    assert_eq!(found.overlay.levels().count(), 0, "{what}");
    let trees = world::look(device, &found);
    for btree in TREES {
        assert_eq!(world::keys(&trees, btree), of_tree(model, btree), "{what}: {btree}");
    }
    let mut counts = world::counts(device, &found);
    counts.retain(|_, n| *n != 0);
    for btree in TREES {
        let keys = of_tree(model, btree).len() as i64;
        assert_eq!(counts.get(&btree).copied().unwrap_or(0), keys, "{what}: count of {btree}");
    }
}

#[test]
fn random_changes_are_there_and_stay_after_a_shutdown() {
    for seed in seeds(4) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let device = new_device();
        let mut model = Model::new();
        for life in 0..3 {
            let what = format!("ENGINE_SEED={seed} life {life}");
            let options = EngineOptions { seed, restart_one_in: 10 };
            let world = world::open(&device, 1 << 18, &options);
            assert_holds(&world, &model, &what);
            for n in 0..1500 {
                let edits = random_edits(&mut rng, &model, 3000);
                commit(&world.engine, &edits);
                edit_model(&mut model, &edits);
                if n % 500 == 0 {
                    assert_holds(&world, &model, &what);
                    world.journal.check_invariants();
                }
            }
            assert_holds(&world, &model, &what);
            shut_down(&world);
            assert_holds(&world, &model, &what);
            assert_shut_down_holds(&device, &model, &what);
        }
    }
}

#[test]
fn a_tree_grows_to_several_levels_and_gives_its_space_back() {
    let device = new_device();
    let world = world::open(&device, 1 << 18, &EngineOptions::default());
    let at = |n: u64| Bpos::new(1, n, u32::MAX);
    let mut model = Model::new();
    let mut most = 0;
    for n in 0..30_000u64 {
        let edit = Edit { btree: BtreeId::INODES, pos: at(n), value: Some(vec![7; 32]) };
        commit(&world.engine, std::slice::from_ref(&edit));
        edit_model(&mut model, &[edit]);
        most = most.max(world.engine.trees().cache_stats().bytes);
    }
    assert!(most < 1 << 20, "{most} bytes of nodes in memory");
    let level = |world: &World| match world.engine.trees().root(BtreeId::INODES) {
        Some(Root::At { level, .. }) => level,
        other => panic!("{other:?}"),
    };
    assert!(level(&world) >= 2, "{} levels", level(&world));
    assert_holds(&world, &model, "grown");
    world.journal.flush_pins(frazil_ondisk::units::Seq(u64::MAX)).unwrap();
    let used = world.around.used_nodes();
    for chunk in (0..30_000u64).collect::<Vec<_>>().chunks(50) {
        let edits: Vec<Edit> =
            chunk.iter().map(|&n| Edit { btree: BtreeId::INODES, pos: at(n), value: None }).collect();
        commit(&world.engine, &edits);
        edit_model(&mut model, &edits);
    }
    assert_holds(&world, &model, "emptied");
    shut_down(&world);
    assert!(world.around.used_nodes() < used / 4, "{} of {used} nodes left", world.around.used_nodes());
    assert_shut_down_holds(&device, &model, "emptied");
}

#[test]
fn a_key_changed_often_costs_one_entry() {
    let device = new_device();
    let world = world::open(&device, 1 << 20, &EngineOptions::default());
    for n in 0..1_000_000u64 {
        let edit = Edit {
            btree: BtreeId::XATTRS,
            pos: Bpos::new(1, n % 3, u32::MAX),
            value: Some(n.to_le_bytes().to_vec()),
        };
        commit(&world.engine, &[edit]);
    }
    let status = world.journal.status();
    let rounds = status.counters.bytes_written / world::JOURNAL_BYTES;
    assert!(rounds > 200, "the journal went round {rounds} times");
    assert!(world.around.used_nodes() < 12, "{} nodes", world.around.used_nodes());
    shut_down(&world);
}
