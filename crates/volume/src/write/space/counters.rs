//! The accounting of the volume in memory, and promises of space.
//!
//! The counters of the accounting b-tree, those of single inodes left out, are kept here and follow every commit. From them comes what `statfs`
//! says, and whether a write can be accepted.
//!
//! A write is accepted before it is known where it will go: data waits in memory, and must not find the disk full when its time comes.
//! So whoever is going to use space takes a [`DiskReservation`] first, in the worst case: uncompressed, all copies. It is granted if
//! that much is available (spec 50 §6.10), and if buckets have room for all that is promised: those that are or will be free, and what is unused in
//! partly used ones, which can be had by moving the rest ([`crate::write::moving`]). This is the only place that says that the disk is full to
//! somebody who can be told. When the
//! commit is done the counters have grown, and what was used is given back from the reservation.

use std::collections::HashMap;
use std::sync::Arc;

use frazil_ondisk::DataType;
use frazil_ondisk::units::Sectors;
use frazil_ondisk::values::accounting::AccountingPos;
use parking_lot::Mutex;

use crate::usage::Usage;

/// See the [module](self).
pub(super) struct Counters {
    /// Capacity less what superblocks and journals occupy.
    total: Sectors,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counters: HashMap<AccountingPos, [i64; 3]>,
    /// Sums over `counters`: data and nodes, and what `fallocate` promised, copies counted.
    used: i64,
    reserved: i64,
    /// Granted and neither used nor given back.
    held: u64,
}

impl Counters {
    /// Counters with these values.
    pub(super) fn new(
        total: Sectors,
        counters: impl IntoIterator<Item = (AccountingPos, [i64; 3])>,
    ) -> Counters {
        let mut state = State::default();
        counters.into_iter().for_each(|(what, by)| state.add(what, by));
        Counters { total, state: Mutex::new(state) }
    }

    /// A commit changed counters.
    pub(super) fn add(&self, changes: &[(AccountingPos, [i64; 3])]) {
        let mut state = self.state.lock();
        changes.iter().for_each(|(what, by)| state.add(*what, *by));
    }

    /// The value of one record.
    pub(super) fn get(&self, what: &AccountingPos) -> [i64; 3] {
        self.state.lock().counters.get(what).copied().unwrap_or_default()
    }

    /// Everything summed up.
    pub(super) fn usage(&self) -> Usage {
        let state = self.state.lock();
        let mut usage = Usage::default();
        state.counters.iter().for_each(|(what, counters)| usage.add(what, counters));
        usage.settle(self.total, Sectors(state.held));
        usage
    }

    /// Holds the sectors back if they are available, and all that is held or reserved fits `room`.
    fn try_hold(&self, sectors: Sectors, room: Sectors) -> bool {
        let mut state = self.state.lock();
        let (data, reserved) = (positive(state.used), positive(state.reserved));
        let mut usage = Usage { data, reserved, ..Usage::default() };
        usage.settle(self.total, Sectors(state.held));
        let fits = sectors <= usage.available
            && state.held.saturating_add(reserved.0).saturating_add(sectors.0) <= room.0;
        if fits {
            state.held += sectors.0;
        }
        fits
    }

    fn hold(&self, sectors: Sectors) {
        let mut state = self.state.lock();
        state.held = state.held.saturating_add(sectors.0);
    }

    fn release(&self, sectors: Sectors) {
        let mut state = self.state.lock();
        state.held = state.held.saturating_sub(sectors.0);
    }
}

/// A counter below zero is damage; it must not turn into a huge number.
fn positive(n: i64) -> Sectors {
    Sectors(u64::try_from(n).unwrap_or(0))
}

impl State {
    fn add(&mut self, what: AccountingPos, by: [i64; 3]) {
        match what {
            AccountingPos::Inum { .. } => return,
            AccountingPos::Replicas {
                data_type: DataType::BTREE | DataType::USER | DataType::PARITY,
                ..
            } => {
                self.used = self.used.saturating_add(by[0]);
            }
            AccountingPos::PersistentReserved { nr_replicas } => {
                self.reserved = self.reserved.saturating_add(by[0].saturating_mul(nr_replicas.into()));
            }
            _ => {}
        }
        let counters = self.counters.entry(what).or_default();
        counters.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.saturating_add(by));
        if *counters == [0; 3] {
            self.counters.remove(&what);
        }
    }
}

/// Space that is promised: disk sectors, all copies counted. Dropping it gives back what was not used.
#[must_use = "dropping a reservation gives it back"]
pub struct DiskReservation {
    counters: Arc<Counters>,
    sectors: Sectors,
}

impl DiskReservation {
    /// Takes space if it is available; `room` is what buckets have.
    pub(super) fn take(counters: &Arc<Counters>, sectors: Sectors, room: Sectors) -> Option<DiskReservation> {
        let held = counters.try_hold(sectors, room);
        held.then(|| DiskReservation { counters: Arc::clone(counters), sectors })
    }

    /// Takes space, available or not.
    pub(super) fn take_anyway(counters: &Arc<Counters>, sectors: Sectors) -> DiskReservation {
        counters.hold(sectors);
        DiskReservation { counters: Arc::clone(counters), sectors }
    }

    /// What is left of it.
    pub fn sectors(&self) -> Sectors {
        self.sectors
    }

    /// A commit is done that used that much of it; more than there is uses it up.
    pub fn used(&mut self, sectors: Sectors) {
        let sectors = sectors.min(self.sectors);
        self.counters.release(sectors);
        self.sectors.0 -= sectors.0;
    }

    /// Takes a part out of it as a reservation of its own; more than there is takes all.
    pub fn split(&mut self, sectors: Sectors) -> DiskReservation {
        let sectors = sectors.min(self.sectors);
        self.sectors.0 -= sectors.0;
        DiskReservation { counters: Arc::clone(&self.counters), sectors }
    }
}

impl Drop for DiskReservation {
    fn drop(&mut self) {
        self.counters.release(self.sectors);
    }
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::units::DevIndex;
    use frazil_ondisk::values::accounting::DevList;

    use super::*;

    fn replicas(data_type: DataType) -> AccountingPos {
        let devs = DevList::new(&[DevIndex(0)]).expect("one device");
        AccountingPos::Replicas { data_type, nr_required: 1, devs }
    }

    #[test]
    fn what_is_promised_is_gone_until_it_is_given_back() {
        let counters = Arc::new(Counters::new(Sectors(6500), [(replicas(DataType::BTREE), [0, 0, 0])]));
        let take = |n| DiskReservation::take(&counters, Sectors(n), Sectors(9000));
        assert_eq!(counters.usage().available, Sectors(6400));
        let mut first = take(6400).expect("exactly what is available");
        assert!(take(1).is_none());
        let part = first.split(Sectors(1400));
        assert_eq!((first.sectors(), part.sectors()), (Sectors(5000), Sectors(1400)));
        drop(part);
        counters.add(&[(replicas(DataType::USER), [5000, 0, 0])]);
        first.used(Sectors(5000));
        drop(first);
        assert_eq!((counters.usage().data, counters.usage().free), (Sectors(5000), Sectors(1500)));
        assert!(take(1477).is_none());
        drop(take(1476).expect("64/65 of 1500"));
        assert!(DiskReservation::take(&counters, Sectors(100), Sectors(99)).is_none(), "no bucket has room");
        let over = DiskReservation::take_anyway(&counters, Sectors(1 << 40));
        assert_eq!(counters.usage().free, Sectors(0));
        drop(over);
        assert_eq!(counters.usage().free, Sectors(1500));
    }

    #[test]
    fn counters_follow_commits() {
        let reserved = AccountingPos::PersistentReserved { nr_replicas: 2 };
        let counters = Counters::new(Sectors(10_000), [(reserved, [640, 0, 0])]);
        assert_eq!(counters.usage().used, Sectors(1280 + 20));
        counters.add(&[(reserved, [-640, 0, 0]), (replicas(DataType::CACHED), [8, 0, 0])]);
        assert_eq!((counters.get(&reserved), counters.get(&replicas(DataType::CACHED))), ([0; 3], [8, 0, 0]));
        assert_eq!((counters.usage().used, counters.usage().cached), (Sectors(0), Sectors(8)));
    }
}
