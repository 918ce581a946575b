//! The accounting b-tree and the superblock's table of replicas (spec 60 §9.3, §9.4).

use std::collections::HashMap;

use frazil_ondisk::DataType;
use frazil_ondisk::superblock::sections::replicas::{Replicas, ReplicasEntry};
use frazil_ondisk::units::DevIndex;
use frazil_ondisk::values::accounting::{AccountingPos, Order};
use frazil_ondisk::version::Version;

use super::context::Check;
use super::inconsistency::Inconsistency;
use super::report::Unchecked;

/// Compares the counters with the sums.
pub(super) fn compare(
    check: &mut Check<'_>,
    mut sums: HashMap<AccountingPos, [i64; 3]>,
    has_rebalance: bool,
) {
    add_free_buckets(check, &mut sums);
    let stored = match check.volume.accounting() {
        Ok(stored) => stored,
        Err(error) => return check.lost(error),
    };
    let version = check.version();
    let order = Order::of(version);
    let listed = Replicas::load(&check.volume.superblock().sections).map_or_else(|_| Vec::new(), |r| r.0);
    for (pos, (_, counters)) in stored {
        // Since 1.15 what does not decode is a leftover of an earlier life (spec 80 §5.2); before, the walk reported it.
        let Ok(what) = AccountingPos::decode(pos, order) else { continue };
        let mut stored = [0; 3];
        stored.iter_mut().zip(counters).for_each(|(to, from)| *to = from);
        check_devices(check, what, stored);
        check_replicas(check, what, stored, &listed);
        let computed = sums.remove(&what).unwrap_or_default();
        compare_one(check, what, stored, computed, has_rebalance);
    }
    let mut rest: Vec<_> = sums.into_iter().filter(|(_, sum)| *sum != [0; 3]).collect();
    rest.sort_by_key(|(what, _)| what.encode(order));
    for (what, computed) in rest {
        check_replicas(check, what, computed, &listed);
        compare_one(check, what, [0; 3], computed, has_rebalance);
    }
}

/// All buckets that have no alloc key of another kind are free.
fn add_free_buckets(check: &Check<'_>, sums: &mut HashMap<AccountingPos, [i64; 3]>) {
    for (dev, geometry) in check.rules.devices() {
        let other: i64 = sums
            .iter()
            .filter_map(|(what, sum)| match what {
                AccountingPos::DevDataType { dev: d, data_type } => {
                    let counted = *d == dev && !matches!(*data_type, DataType::FREE | DataType::UNSTRIPED);
                    counted.then_some(sum[0])
                }
                _ => None,
            })
            .sum();
        let free = AccountingPos::DevDataType { dev, data_type: DataType::FREE };
        sums.insert(free, [(geometry.buckets() as i64).saturating_sub(other), 0, 0]);
    }
}

fn compare_one(
    check: &mut Check<'_>,
    what: AccountingPos,
    stored: [i64; 3],
    computed: [i64; 3],
    has_rebalance: bool,
) {
    if stored == computed {
        return;
    }
    let version = check.version();
    let unchecked = match what {
        AccountingPos::Inum { .. } => return,
        AccountingPos::RebalanceWork if version.has_reconcile() => return,
        AccountingPos::RebalanceWork if version > Version::WRITE && has_rebalance => {
            Some(Unchecked::RebalanceWork)
        }
        AccountingPos::Snapshot { .. }
            if version.accounting_positions_reversed() && !version.snapshot_accounting_per_btree() =>
        {
            Some(Unchecked::SnapshotSizes)
        }
        _ => None,
    };
    match unchecked {
        Some(unchecked) => check.report.skip(unchecked),
        None => check.add(Inconsistency::Accounting { what, stored, computed }),
    }
}

fn check_devices(check: &mut Check<'_>, what: AccountingPos, stored: [i64; 3]) {
    if stored == [0; 3] {
        return;
    }
    let exists = |dev: DevIndex| dev == ReplicasEntry::INVALID_DEV || check.rules.geometry(dev).is_some();
    let missing = match what {
        AccountingPos::Replicas { devs, .. } => devs.iter().find(|&dev| !exists(dev)),
        AccountingPos::DevDataType { dev, .. } => Some(dev).filter(|&dev| !exists(dev)),
        _ => None,
    };
    if let Some(dev) = missing {
        check.add(Inconsistency::AccountingNoDevice { what, dev });
    }
}

/// Which devices hold data must stand in the superblock, so that it can be decided whether enough of them are there (spec 50
/// §3.1); since 1.36 only for metadata (spec 80 §5.16).
fn check_replicas(check: &mut Check<'_>, what: AccountingPos, counters: [i64; 3], listed: &[ReplicasEntry]) {
    let AccountingPos::Replicas { data_type, nr_required, devs } = what else { return };
    let metadata_only = check.volume.superblock().version_incompat() >= Version::NO_SB_USER_DATA_REPLICAS;
    if counters == [0; 3] || metadata_only && data_type > DataType::BTREE {
        return;
    }
    let mut entry = ReplicasEntry { data_type, nr_required, devs: devs.iter().collect() };
    let same = |l: &ReplicasEntry| {
        let mut devs = l.devs.clone();
        devs.sort_unstable();
        (l.data_type, l.nr_required) == (entry.data_type, entry.nr_required) && devs == entry.devs
    };
    if !listed.iter().any(same) {
        entry.devs.sort_unstable();
        check.add(Inconsistency::ReplicasNotListed(entry));
    }
}
