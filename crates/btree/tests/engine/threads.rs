//! Several threads at once.

use std::thread;

use frazil_btree::write::{CommitError, CommitOptions, EngineOptions, Transaction};
use frazil_journal::engine::driver::Driver;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use crate::growth::{new_device, shut_down};
use crate::world;

fn counter(n: u64) -> Bpos {
    Bpos::new(2, n, u32::MAX)
}

fn read(t: &Transaction<'_>, n: u64) -> u64 {
    let key = t.get(BtreeId::XATTRS, counter(n)).unwrap();
    key.map_or(0, |key| u64::from_le_bytes(key.key().value.try_into().unwrap()))
}

/// Money moves between accounts; in every transaction, also one that only reads, the sum is what it was.
#[test]
fn transactions_are_serial() {
    const ACCOUNTS: u64 = 20;
    let device = new_device();
    let world = world::open(&device, 1 << 18, &EngineOptions { seed: 1, restart_one_in: 50 });
    let driver = Driver::start(&world.journal).unwrap();
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
    drop(driver);
    shut_down(&world);
    let found = world::scan(&device);
    let keys = world::keys(&world::look(&device, &found), BtreeId::XATTRS);
    assert_eq!(keys.len() as u64, ACCOUNTS + 4 * 1500);
}
