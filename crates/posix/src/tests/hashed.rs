//! Searches in hash chains, compared with sets of names, on tables filled the way the reference fills them (spec 40 §4.3).

use std::collections::{BTreeMap, BTreeSet};

use frazil_ondisk::units::{Inum, SnapshotId};
use frazil_ondisk::{Bpos, BtreeId, KeyType};
use proptest::prelude::*;

use crate::hashed::{OnDamage, Probe, find, scan};
use crate::testing::{Keys, table};

const OWNER: Inum = Inum(5000);
const CHILD: u32 = 10;
const PARENT: u32 = 20;
const SNAPSHOTS: [(u32, u32); 2] = [(PARENT, 0), (CHILD, PARENT)];

/// What a key of the table is. An item is its hash and a number that tells it from others with the same hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Item(u64, u64),
    HashWhiteout,
    Whiteout,
}

/// A table as it is stored: keys of two snapshots.
#[derive(Default)]
struct Table(BTreeMap<(u64, u32), Slot>);

impl Table {
    /// What a snapshot sees in a slot.
    fn seen(&self, slot: u64, snapshot: u32) -> Option<Slot> {
        let own = self.0.get(&(slot, snapshot));
        let found = own.or_else(|| self.0.get(&(slot, PARENT)).filter(|_| snapshot == CHILD));
        found.copied().filter(|slot| *slot != Slot::Whiteout)
    }

    fn insert(&mut self, hash: u64, id: u64, snapshot: u32) {
        let mut free = None;
        let mut slot = hash;
        loop {
            match self.seen(slot, snapshot) {
                Some(item) if item == Slot::Item(hash, id) => return,
                Some(Slot::Item(..)) => {}
                other => {
                    free = free.or(Some(slot));
                    if other.is_none() {
                        break;
                    }
                }
            }
            slot += 1;
        }
        self.0.insert((free.expect("found before the end"), snapshot), Slot::Item(hash, id));
    }

    fn delete(&mut self, hash: u64, id: u64, snapshot: u32) {
        let found = (hash..).take_while(|&slot| self.seen(slot, snapshot).is_some());
        let Some(at) =
            found.into_iter().find(|&slot| self.seen(slot, snapshot) == Some(Slot::Item(hash, id)))
        else {
            return;
        };
        let behind = (at + 1..).map_while(|slot| self.seen(slot, snapshot));
        let needed = behind.into_iter().any(|slot| matches!(slot, Slot::Item(hash, _) if hash <= at));
        if needed {
            self.0.insert((at, snapshot), Slot::HashWhiteout);
        } else if snapshot == CHILD && !matches!(self.0.get(&(at, PARENT)), None | Some(Slot::Whiteout)) {
            self.0.insert((at, snapshot), Slot::Whiteout);
        } else {
            self.0.remove(&(at, snapshot));
        }
    }

    fn keys(&self) -> Keys {
        let mut keys = Keys::default();
        for (&(slot, snapshot), what) in &self.0 {
            let pos = Bpos::new(OWNER.0, slot, snapshot);
            let (ty, value) = match what {
                Slot::Item(hash, id) => (KeyType::XATTR, [hash.to_le_bytes(), id.to_le_bytes()].concat()),
                Slot::HashWhiteout => (KeyType::HASH_WHITEOUT, Vec::new()),
                Slot::Whiteout => (KeyType::WHITEOUT, Vec::new()),
            };
            keys.put(BtreeId::XATTRS, ty, pos, value);
        }
        keys
    }
}

proptest! {
    #[test]
    fn every_item_is_found_and_nothing_else(
        ops in proptest::collection::vec((any::<bool>(), 0u64..6, 0u64..4, any::<bool>()), 0..80),
    ) {
        let mut stored = Table::default();
        let mut sets: BTreeMap<u32, BTreeSet<(u64, u64)>> = [(PARENT, BTreeSet::new())].into();
        // The parent is filled first, then frozen by the snapshot.
        let (first, second): (Vec<_>, Vec<_>) = ops.into_iter().partition(|op| op.3);
        for (snapshot, ops) in [(PARENT, first), (CHILD, second)] {
            let inherited = sets[&PARENT].clone();
            let set = sets.entry(snapshot).or_insert(inherited);
            for (insert, hash, id, _) in ops {
                if insert {
                    stored.insert(hash, id, snapshot);
                    set.insert((hash, id));
                } else {
                    stored.delete(hash, id, snapshot);
                    set.remove(&(hash, id));
                }
            }
        }
        let btrees = stored.keys().btrees();
        for (&snapshot, set) in &sets {
            let view = table(&SNAPSHOTS).view(SnapshotId(snapshot)).unwrap();
            for hash in 0..6u64 {
                for id in 0..4u64 {
                    let wanted = [hash.to_le_bytes(), id.to_le_bytes()].concat();
                    let found = find(&btrees, BtreeId::XATTRS, &view, OWNER, hash, |key| {
                        if key.value == wanted { Probe::Found(()) } else { Probe::Other }
                    });
                    prop_assert_eq!(found.unwrap().is_some(), set.contains(&(hash, id)), "{} {}", hash, id);
                }
            }
            let mut count = 0;
            scan(&btrees, BtreeId::XATTRS, &view, OWNER, 0, OnDamage::Stop, |_| {
                count += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            prop_assert_eq!(count, set.len());
        }
    }
}
