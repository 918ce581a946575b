//! The alloc key of a bucket, and all that follows from it (spec 50 §4.4).
//!
//! Each bucket a commit touches is updated once: its key is read, the net of all pointers is added, its kind is derived again, and then
//! the difference between the old and the new state goes to freespace, need_discard, lru, bucket_gens and the usage of the device.
//! A bucket that became empty gets its next generation, so that pointers into its earlier life can be told apart; but not while
//! somebody holds it open, because then pointers with the present generation are still to come.
//!
//! A bucket that becomes empty always waits to be discarded, also where its flags do not say so (keys rebuilt by a repair, spec 50 §8.1):
//! free at once would mean that it is written to before the commit that emptied it is on stable storage.

use frazil_btree::write::{Blocked, Change, Stage};
use frazil_ondisk::units::{DevIndex, Sectors};
use frazil_ondisk::values::accounting::{AccountingPos, DevList};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::positions::{DevBucket, bucket_gens_pos};
use frazil_ondisk::{Bpos, BtreeId, DataType, KeyBuf, KeyType};

use super::net::{Accounts, Part};
use super::{Deriver, freespace, inconsistent, set_key};
use crate::derive::{Share, bucket};

/// The state in an alloc key; a bucket without one was never used.
pub(super) fn state(key: Option<&KeyBuf>) -> Result<Alloc, Blocked> {
    match key {
        Some(key) if key.k.ty != KeyType::DELETED => Alloc::decode(key.k.ty, &key.value)
            .map_err(|e| inconsistent(format!("alloc key {}: {e}", key.as_key())).into()),
        _ => Ok(Alloc::default()),
    }
}

impl Deriver {
    /// Updates one bucket: `parts` from pointers, or a new alloc key that somebody put into the commit, or both.
    pub(super) fn bucket(
        &self,
        stage: &mut dyn Stage,
        at: DevBucket,
        parts: &[Part],
        direct: Option<&Change>,
        accounts: &mut Accounts,
    ) -> Result<(), Blocked> {
        let rules = self.space.rules();
        let Some(geometry) = rules.geometry(at.dev).filter(|g| g.contains(at.bucket)) else {
            return Err(inconsistent(format!("there is no bucket {}:{}", at.dev, at.bucket)).into());
        };
        let (old, mut new) = match direct {
            Some(change) => (state(change.old.as_ref())?, state(change.inserted())?),
            None => {
                let stored = state(stage.get(BtreeId::ALLOC, at.pos())?.as_ref())?;
                (stored, stored)
            }
        };
        if new.cached_sectors != old.cached_sectors {
            // Cached data is dropped without touching the keys that point at it (spec 50 §6.6).
            let by = i64::from(new.cached_sectors) - i64::from(old.cached_sectors);
            accounts.add(cached_on(at.dev), [by, 0, 0], 1);
        }
        let mut class = new.data_type;
        for part in parts.iter().filter(|p| p.sectors != 0) {
            add(at, &mut new, part)?;
            class = part.class;
        }
        new.data_type = new.derived_data_type(class, rules.version);
        self.ages(at, &old, &mut new);
        let unchanged = match direct {
            Some(change) => Some(&new) == change.inserted().and(state(change.inserted()).ok()).as_ref(),
            None => new == old,
        };
        if !unchanged {
            let mut value = Vec::with_capacity(64);
            new.encode(&mut value);
            stage.update(BtreeId::ALLOC, KeyBuf::new(KeyType::ALLOC_V4, at.pos(), 0, value));
        }
        self.listed(stage, at, &old, &new, geometry.bucket)?;
        bucket::usage(at.dev, &old, geometry.bucket).for_each(|(what, by)| accounts.add(what, by, -1));
        bucket::usage(at.dev, &new, geometry.bucket).for_each(|(what, by)| accounts.add(what, by, 1));
        Ok(())
    }

    /// Times, flags and generation: steps 2, 3 and 5 of spec 50 §4.4.
    fn ages(&self, at: DevBucket, old: &Alloc, new: &mut Alloc) {
        let version = self.space.rules().version;
        if new.total_sectors() > old.total_sectors() {
            new.io_time = self.clocks.now();
            new.need_inc_gen = true;
            new.need_discard = true;
        }
        if new.data_type.is_empty() && !old.data_type.is_empty() {
            new.need_discard = true;
            new.need_inc_gen |= new.generation == old.generation;
            new.data_type = new.derived_data_type(new.data_type, version);
        }
        if new.data_type.is_empty() && new.need_inc_gen && !self.space.is_open(at) {
            new.generation = new.generation.next();
            new.need_inc_gen = false;
            new.data_type = new.derived_data_type(new.data_type, version);
        }
        if new.data_type == DataType::CACHED && new.io_time[0] == 0 {
            new.io_time[0] = self.clocks.now()[0];
        }
    }

    /// The lists a bucket is in, and the compact copy of its generation.
    fn listed(
        &self,
        stage: &mut dyn Stage,
        at: DevBucket,
        old: &Alloc,
        new: &Alloc,
        size: Sectors,
    ) -> Result<(), Blocked> {
        let version = self.space.rules().version;
        let lists = |alloc| bucket::Lists::of(at, alloc, size, version);
        let (before, after) = (lists(old), lists(new));
        if before.freespace != after.freespace {
            if let Some(offset) = before.freespace {
                freespace::remove(stage, at.dev, offset)?;
            }
            if let Some(offset) = after.freespace {
                freespace::insert(stage, at.dev, offset)?;
            }
        }
        move_key(before.need_discard, after.need_discard, |key| stage.update(BtreeId::NEED_DISCARD, key));
        move_key(before.lru_read, after.lru_read, |key| stage.buffer(BtreeId::LRU, key));
        move_key(before.lru_fragmentation, after.lru_fragmentation, |key| stage.buffer(BtreeId::LRU, key));
        if new.generation != old.generation {
            let (pos, index) = bucket_gens_pos(at);
            let stored = stage.get(BtreeId::BUCKET_GENS, pos)?.filter(|key| key.value.len() == 256);
            let mut gens = stored.map_or_else(|| vec![0; 256].into_boxed_slice(), |key| key.value);
            gens[index] = new.generation.0;
            stage.update(BtreeId::BUCKET_GENS, KeyBuf::new(KeyType::BUCKET_GENS, pos, 0, gens));
        }
        Ok(())
    }
}

/// Puts a key of type `set` where it belongs now.
fn move_key(before: Option<Bpos>, after: Option<Bpos>, mut put: impl FnMut(KeyBuf)) {
    if before != after {
        before.into_iter().for_each(|pos| put(set_key(pos, false)));
        after.into_iter().for_each(|pos| put(set_key(pos, true)));
    }
}

/// Adds what pointers of one kind use of a bucket.
fn add(at: DevBucket, alloc: &mut Alloc, part: &Part) -> Result<(), Blocked> {
    let here =
        || format!("bucket {}:{} (generation {}, {})", at.dev, at.bucket, alloc.generation, alloc.data_type);
    if part.generation != alloc.generation {
        return Err(inconsistent(format!("{}: a pointer has generation {}", here(), part.generation)).into());
    }
    let kind = |ty| if matches!(ty, DataType::CACHED | DataType::STRIPE) { DataType::USER } else { ty };
    if !alloc.data_type.is_empty() && kind(alloc.data_type) != kind(part.class) {
        return Err(inconsistent(format!("{}: a pointer to {} data", here(), part.class)).into());
    }
    let count = match part.share {
        Share::Cached => alloc.cached_sectors,
        Share::Dirty | Share::Stripe => alloc.dirty_sectors,
    };
    let sum = u32::try_from(i64::from(count) + part.sectors)
        .map_err(|_| inconsistent(format!("{}: {count} sectors change by {}", here(), part.sectors)))?;
    match part.share {
        Share::Cached => alloc.cached_sectors = sum,
        Share::Dirty | Share::Stripe => alloc.dirty_sectors = sum,
    }
    Ok(())
}

/// The record of cached copies on a device.
fn cached_on(dev: DevIndex) -> AccountingPos {
    let devs = DevList::new(&[dev]).expect("one device fits a list");
    AccountingPos::Replicas { data_type: DataType::CACHED, nr_required: 1, devs }
}
