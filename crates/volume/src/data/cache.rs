//! Decoded payloads, for readers that want them bit by bit.
//!
//! A checksummed or compressed payload can only be read as a whole. Somebody who reads 4 KiB at a time would have a
//! 64 KiB payload read, verified and decompressed sixteen times over. So a payload that was decoded and not used up at
//! once stays here for a while. Reads that want all of it do not come by here: they decode straight into their caller's
//! buffer.
//!
//! A payload is known by the place it was read from *and* by how it was decoded, so that two keys that disagree about
//! the same sectors (which only damage can bring about) never see each other's bytes, and a slice that is in range for one is
//! in range for all.

use std::sync::Arc;

use frazil_ondisk::BVersion;
use frazil_ondisk::values::extent::{Crc, ExtentPtr, Replica};
use parking_lot::Mutex;

use super::buffer::Buf;

/// Payloads kept at most: few enough to look through all of them.
const PAYLOADS_MAX: usize = 64;

/// A decoded payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PayloadId {
    ptr: ExtentPtr,
    crc: Crc,
    /// Only encrypted payloads depend on it; others have 0.
    version: BVersion,
}

impl PayloadId {
    /// The payload of this copy, of a key with this version.
    pub(super) fn of(replica: &Replica, version: BVersion) -> PayloadId {
        // Which part of a payload is live, and whether the copy is a cached one, does not change the payload.
        PayloadId {
            ptr: ExtentPtr { cached: false, unused: false, ..replica.ptr },
            crc: Crc { offset: 0, ..replica.crc },
            version,
        }
    }
}

struct Slot {
    id: PayloadId,
    decoded: Arc<Buf>,
    /// When it was last wanted, in lookups.
    used: u64,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    bytes: usize,
    clock: u64,
}

/// Least recently used payloads make room for new ones.
pub(super) struct PayloadCache {
    slots: Mutex<Slots>,
    bytes_max: usize,
}

impl PayloadCache {
    /// A cache that holds at most that much.
    pub(super) fn new(bytes_max: usize) -> PayloadCache {
        PayloadCache { slots: Mutex::default(), bytes_max }
    }

    /// The payload, if it is here.
    pub(super) fn get(&self, id: &PayloadId) -> Option<Arc<Buf>> {
        let mut slots = self.slots.lock();
        slots.clock += 1;
        let now = slots.clock;
        let slot = slots.slots.iter_mut().find(|slot| slot.id == *id)?;
        slot.used = now;
        Some(Arc::clone(&slot.decoded))
    }

    /// Keeps a payload, unless it is larger than the cache or already here.
    pub(super) fn insert(&self, id: PayloadId, decoded: Arc<Buf>) {
        let len = decoded.len();
        if len > self.bytes_max {
            return;
        }
        let mut slots = self.slots.lock();
        if slots.slots.iter().any(|slot| slot.id == id) {
            return;
        }
        while slots.slots.len() >= PAYLOADS_MAX || slots.bytes + len > self.bytes_max {
            let Some(oldest) = (0..slots.slots.len()).min_by_key(|&i| slots.slots[i].used) else { break };
            let slot = slots.slots.swap_remove(oldest);
            slots.bytes -= slot.decoded.len();
        }
        slots.clock += 1;
        let used = slots.clock;
        slots.bytes += len;
        slots.slots.push(Slot { id, decoded, used });
    }
}

#[cfg(test)]
mod tests {
    use frazil_ondisk::units::{DevIndex, Gen, Sectors};

    use super::super::buffer::Pool;
    use super::*;

    fn id(sector: u64, crc: Crc) -> PayloadId {
        let ptr = ExtentPtr::new(DevIndex(0), Sectors(sector), Gen(0));
        PayloadId::of(&Replica { ptr, crc, stripe: None, live_size: 1 }, BVersion::default())
    }

    fn buf(pool: &Pool, len: usize) -> Arc<Buf> {
        Arc::new(pool.take(len))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (pool, cache) = (Pool::default(), PayloadCache::new(300));
        let plain = Crc::plain(1);
        for sector in 0..3 {
            cache.insert(id(sector, plain), buf(&pool, 100));
        }
        assert!(cache.get(&id(0, plain)).is_some());
        cache.insert(id(3, plain), buf(&pool, 50));
        let held = |sector| cache.get(&id(sector, plain)).is_some();
        assert_eq!([0, 1, 2, 3].map(held), [true, false, true, true]);
        cache.insert(id(4, plain), buf(&pool, 301));
        assert_eq!([0, 2, 3, 4].map(held), [true, true, true, false]);
    }

    #[test]
    fn the_number_of_payloads_is_bounded() {
        let (pool, cache) = (Pool::default(), PayloadCache::new(1 << 20));
        for sector in 0..200 {
            cache.insert(id(sector, Crc::plain(1)), buf(&pool, 8));
        }
        let held = (0..200).filter(|&s| cache.get(&id(s, Crc::plain(1))).is_some()).count();
        assert_eq!(held, PAYLOADS_MAX);
    }

    #[test]
    fn the_way_of_decoding_is_part_of_the_name() {
        let (pool, cache) = (Pool::default(), PayloadCache::new(1 << 20));
        let crc = Crc { csum_type: 5, ..Crc::plain(8) };
        cache.insert(id(0, crc), buf(&pool, 4096));
        assert!(cache.get(&id(0, Crc { offset: 3, ..crc })).is_some());
        for other in
            [Crc { uncompressed_size: 16, ..crc }, Crc { csum_type: 6, ..crc }, Crc { nonce: 1, ..crc }]
        {
            assert!(cache.get(&id(0, other)).is_none());
        }
    }
}
