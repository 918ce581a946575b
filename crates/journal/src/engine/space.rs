//! Free space of all rings together, the watermark, and discards (spec 20 §8, §9.3, §11).

use frazil_ondisk::units::SECTOR_BYTES;

use super::core::Phase;
use super::ring::{Grade, filesystem_space};
use super::{Journal, Locked, Watermark};

impl Journal {
    /// Recomputes everything that depends on sequence numbers, devices and unwritten entries. Called after each of them changed.
    pub(crate) fn update_space(&self, st: &mut Locked) {
        let front = self.core.pins.front();
        let ondisk = st.extra.last_seq_ondisk;
        let unplaced: Vec<u64> =
            st.entries.iter().filter(|e| e.phase < Phase::Copied).map(|e| e.io.sectors).collect();
        let want = self.copies_wanted(st);
        let before = st.extra.space;
        for device in &mut st.extra.devices {
            device.ring.update(front, ondisk);
        }
        for grade in Grade::ALL {
            let usable = st.extra.devices.iter().filter(|d| d.takes_entries());
            let spaces = usable.map(|d| d.ring.space(grade, unplaced.iter().copied()));
            st.extra.space[grade as usize] = filesystem_space(spaces, want);
        }
        if st.extra.space != before {
            st.extra.space_version += 1;
        }
        let pressure = self.low_on_space(st) || self.low_on_pins() || st.extra.buffer_pressure;
        if pressure != self.core.word.view().under_pressure() {
            self.core.word.set_pressure(pressure);
            if pressure {
                self.kick(st);
            }
        }
    }

    /// Copies an entry should have: as many as asked for, or as there are devices.
    pub(crate) fn copies_wanted(&self, st: &Locked) -> usize {
        let usable = st.extra.devices.iter().filter(|d| d.takes_entries()).count();
        usable.min(self.options.replicas)
    }

    fn low_on_space(&self, st: &Locked) -> bool {
        let total = |g: Grade| st.extra.space[g as usize].total_sectors;
        total(Grade::Clean) * 4 <= total(Grade::Total)
    }

    fn low_on_pins(&self) -> bool {
        self.core.pins.free_slots() < self.core.pins.capacity() / 4
    }

    /// Whether the next entry may go without a flush: not when one is needed to turn clean space into usable space (spec 20 §11.2).
    pub(crate) fn may_skip_flush(&self, st: &Locked) -> bool {
        let space = |g: Grade| st.extra.space[g as usize];
        let (clean, ondisk) = (space(Grade::Clean), space(Grade::CleanOndisk));
        ondisk.next_entry_sectors < ondisk.total_sectors
            && clean.total_sectors.saturating_sub(ondisk.total_sectors)
                <= space(Grade::Total).total_sectors / 8
            && 2 * ondisk.total_sectors > clean.total_sectors
    }

    /// The write buffer above is nearly full (or no longer): only reclaim may reserve (spec 20 §9.3).
    pub fn set_buffer_pressure(&self, on: bool) {
        let mut st = self.lock();
        st.extra.buffer_pressure = on;
        self.update_space(&mut st);
        self.leave(st);
    }

    /// Whether some bucket may be discarded now.
    pub(crate) fn can_discard(&self, st: &Locked) -> bool {
        st.extra.devices.iter().any(|d| d.has_ring() && !d.discarding && d.ring.to_discard().is_some())
    }

    /// Whether discarding is worth doing in the background: when less than half of the ring is writable.
    pub(crate) fn wants_discard(&self, st: &Locked) -> bool {
        st.extra.devices.iter().any(|d| {
            d.has_ring()
                && !d.discarding
                && d.ring.to_discard().is_some()
                && (!d.discard || d.ring.available(Grade::Discarded) < d.ring.len() / 2)
        })
    }

    /// Discards the oldest free bucket of some device, or declares it writable where discards are off. False if there is none.
    pub(crate) fn discard_one(&self) -> bool {
        let mut st = self.lock();
        let found = st
            .extra
            .devices
            .iter()
            .position(|d| d.has_ring() && !d.discarding && d.ring.to_discard().is_some());
        let Some(i) = found else {
            self.leave(st);
            return false;
        };
        let device = &mut st.extra.devices[i];
        if device.discard {
            device.discarding = true;
            let (_, bucket) = device.ring.to_discard().expect("just found");
            let (backend, bytes) = (device.device.clone(), device.ring.bucket_sectors * SECTOR_BYTES);
            drop(st);
            // A discard that fails costs nothing but the space below; the bucket is overwritten as it is.
            let done = backend.discard(bucket * bytes, bytes).is_ok();
            st = self.lock();
            st.extra.devices[i].discarding = false;
            st.extra.counters.discards += u64::from(done);
        }
        let ondisk = st.extra.last_seq_ondisk;
        st.extra.devices[i].ring.discarded(ondisk);
        self.update_space(&mut st);
        self.leave(st);
        true
    }

    /// The state dump if nothing can ever make room: nothing is being written, nothing can be discarded, and the request is one
    /// that reclaim itself depends on (spec 20 §11.3; "at least" reclaim: race R15).
    pub(crate) fn stuck(&self, st: &Locked, watermark: Watermark) -> Option<String> {
        let hopeless = watermark.is_privileged()
            && st.entries.is_empty()
            && st.extra.space[Grade::Discarded as usize].next_entry_sectors == 0
            && !self.can_discard(st)
            && !st.extra.devices.iter().any(|d| d.discarding)
            && st.extra.halted.is_none();
        hopeless.then(|| self.status_locked(st).to_string())
    }
}
