//! Several threads at once.

use std::thread;

use frazil_btree::write::{CommitError, CommitOptions, EngineOptions, Transaction, WriteBehind};
use frazil_journal::engine::driver::Driver;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use crate::growth::{assert_holds, assert_shut_down_holds, new_device, shut_down};
use crate::{Model, commit, edit_model, random_edits, seeds, world};

fn counter(n: u64) -> Bpos {
    Bpos::new(2, n, u32::MAX)
}

fn read(t: &Transaction<'_>, n: u64) -> u64 {
    let key = t.get(BtreeId::XATTRS, counter(n)).unwrap();
    key.map_or(0, |key| u64::from_le_bytes(key.key().value.try_into().unwrap()))
}

#[test]
fn transactions_are_serial() {
    move_money(false);
}

#[test]
fn transactions_are_serial_while_another_thread_writes_behind() {
    move_money(true);
}

/// Money moves between accounts; in every transaction, also one that only reads, the sum is what it was.
fn move_money(behind: bool) {
    const ACCOUNTS: u64 = 20;
    let device = new_device();
    let world = world::open(&device, 1 << 18, &EngineOptions { seed: 1, restart_one_in: 50 });
    let driver = Driver::start(&world.journal).unwrap();
    let behind = behind.then(|| WriteBehind::start(&world.engine).unwrap());
    let put = |t: &mut Transaction<'_>, n, value: u64| {
        t.put(BtreeId::XATTRS, KeyBuf::new(KeyType::COOKIE, counter(n), 0, value.to_le_bytes()));
    };
    let engine = &world.engine;
    let setup = engine.run(CommitOptions::default(), |t| {
        (0..ACCOUNTS).for_each(|n| put(t, n, 1000));
        Ok::<(), CommitError>(())
    });
    setup.unwrap();
    thread::scope(|scope| {
        for id in 0..4u64 {
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(id);
                for round in 0..1500 {
                    let (from, to) = (rng.u64(0..ACCOUNTS), rng.u64(0..ACCOUNTS));
                    let done = engine.run(CommitOptions::default(), |t| {
                        let (a, b) = (read(t, from), read(t, to));
                        if from != to && a > 0 {
                            put(t, from, a - 1);
                            put(t, to, b + 1);
                        }
                        // Something that makes leaves grow and split meanwhile.
                        let pos = Bpos::new(1, id * 10_000 + round, u32::MAX);
                        t.put(BtreeId::XATTRS, KeyBuf::new(KeyType::COOKIE, pos, 0, [id as u8; 64]));
                        Ok::<(), CommitError>(())
                    });
                    done.unwrap();
                    if round % 10 == 0 {
                        let sum = engine.run(CommitOptions::default(), |t| {
                            Ok::<u64, CommitError>((0..ACCOUNTS).map(|n| read(t, n)).sum())
                        });
                        assert_eq!(sum.unwrap().value, 1000 * ACCOUNTS);
                    }
                }
            });
        }
    });
    drop((driver, behind));
    shut_down(&world);
    let found = world::scan(&device);
    let keys = world::keys(&world::look(&device, &found), BtreeId::XATTRS);
    assert_eq!(keys.len() as u64, ACCOUNTS + 4 * 1500);
}

/// Who commits leaves full nodes to the thread, but not to one that has stopped. No change is lost on the way.
#[test]
fn full_nodes_are_written_behind_while_there_is_a_thread() {
    for seed in seeds(4) {
        let what = format!("ENGINE_SEED={seed}");
        let (device, mut model, mut rng) = (new_device(), Model::new(), fastrand::Rng::with_seed(seed));
        let world = world::open(&device, 1 << 18, &EngineOptions { seed, restart_one_in: 20 });
        let mut change = || {
            let edits = random_edits(&mut rng, &model, 3000);
            commit(&world.engine, &edits);
            edit_model(&mut model, &edits);
        };
        for _ in 0..3 {
            (0..300).for_each(|_| change());
            let begun = world.around.written_behind();
            let behind = WriteBehind::start(&world.engine).unwrap();
            while world.around.written_behind() < begun + 30 {
                change();
            }
            drop(behind);
            let ended = world.around.written_behind();
            (0..300).for_each(|_| change());
            assert_eq!(world.around.written_behind(), ended, "{what}");
        }
        assert_holds(&world, &model, &what);
        shut_down(&world);
        assert_shut_down_holds(&device, &model, &what);
    }
}
