//! Anything that may happen to extents, in any order: the checker must find nothing.

use std::collections::HashMap;
use std::sync::Arc;

use frazil_ondisk::values::extent::{Entries, Pointers, cut_back, cut_front};
use frazil_ondisk::values::reflink::ReflinkP;
use frazil_ondisk::{CompressionType, DataType};
use proptest::prelude::*;

use super::*;
use crate::write::space::OpenBucket;

/// Who writes: fills buckets, holds them, and lets go of them now and then.
#[derive(Default)]
struct Writer {
    filling: HashMap<DevIndex, (Arc<OpenBucket>, u64)>,
}

impl Writer {
    /// A place for `sectors` on a device, if there is one.
    fn place(&mut self, lab: &Lab, dev: DevIndex, sectors: u64) -> Option<ExtentPtr> {
        let fits = |open: &OpenBucket, used: u64| used + sectors <= open.size().0;
        if !self.filling.get(&dev).is_some_and(|(open, used)| fits(open, *used)) {
            let open = lab.space.open_any(dev)?;
            self.filling.insert(dev, (open, 0));
        }
        let (open, used) = self.filling.get_mut(&dev)?;
        if !fits(open, *used) {
            return None;
        }
        let ptr = ExtentPtr::new(dev, Sectors(open.start().0 + *used), open.generation());
        *used += sectors;
        Some(ptr)
    }
}

/// A key of some type, by lot.
fn pick(lab: &Lab, btree: BtreeId, lot: u64, ty: impl Fn(KeyType) -> bool) -> Option<KeyBuf> {
    let keys: Vec<&KeyBuf> = lab.trees.get(&btree)?.values().filter(|k| ty(k.k.ty)).collect();
    (!keys.is_empty()).then(|| keys[(lot % keys.len() as u64) as usize].clone())
}

fn has_range(ty: KeyType) -> bool {
    matches!(ty, KeyType::EXTENT | KeyType::REFLINK_P | KeyType::RESERVATION)
}

fn has_pointers(ty: KeyType) -> bool {
    matches!(ty, KeyType::EXTENT | KeyType::REFLINK_V)
}

/// Changes the front, the back or the middle of a key, by what the b-tree code makes of an overwrite.
fn cut(key: &KeyBuf, lot: u64) -> Vec<KeyBuf> {
    let size = key.k.size;
    if size < 3 {
        return vec![deleted(key.k.pos)];
    }
    let at = 1 + (lot >> 8) as u32 % (size - 2);
    let (mut front, mut back) = (key.clone(), key.clone());
    cut_back(&mut front, at);
    cut_front(&mut back, at + 1).expect("extents of real images can be cut");
    match lot % 3 {
        0 => vec![deleted(key.k.pos), front],
        1 => vec![back],
        _ => vec![front, back],
    }
}

/// The key with its dirty copies somewhere else; `keep` leaves the old ones as cached copies if that is possible.
fn moved(lab: &Lab, writer: &mut Writer, key: &KeyBuf, lot: u64) -> Option<KeyBuf> {
    let head = if key.k.ty == KeyType::REFLINK_V { 8 } else { 0 };
    let copies: Vec<_> = Pointers::new(&key.value[head..], key.k.size).collect::<Result<_, _>>().ok()?;
    let mut value = key.value[..head].to_vec();
    let mut copies = copies.into_iter();
    for entry in Entries::new(&key.value[head..]) {
        match entry.ok()? {
            Entry::Ptr(ptr) => {
                let crc = copies.next().expect("as many copies as pointers").crc;
                let payload = u64::from(crc.compressed_size);
                let mut new = if ptr.cached { ptr } else { writer.place(lab, ptr.dev, payload)? };
                // Now and then the copy becomes one that may be dropped. Not if it is compressed: when it is dropped, nobody knows what
                // to take off the counters of compression (in the reference neither).
                new.cached |= lot.is_multiple_of(5) && crc.compression == CompressionType::NONE;
                Entry::Ptr(new).encode(&mut value);
            }
            other => other.encode(&mut value),
        }
    }
    let mut new = key.clone();
    new.value = value.into();
    Some(new)
}

/// Shares an extent: it becomes an indirect one, with a reference in its place and another behind everything.
fn shared(lab: &Lab, key: &KeyBuf) -> Vec<(BtreeId, KeyBuf)> {
    let idx = lab.trees[&BtreeId::REFLINK].keys().next_back().map_or(0, |pos| pos.offset);
    let mut value = vec![0; 8];
    value.extend_from_slice(&key.value);
    let place = Bpos::new(0, idx + u64::from(key.k.size), 0);
    let indirect = KeyBuf::new(KeyType::REFLINK_V, place, key.k.size, value);
    let mut value = Vec::new();
    ReflinkP { idx, flags: 0, front_pad: 3, back_pad: 0 }.encode(&mut value);
    let here = KeyBuf::new(KeyType::REFLINK_P, key.k.pos, key.k.size, value.clone());
    let behind = Bpos { offset: (1 << 30) + 8 * key.k.pos.offset, ..key.k.pos };
    let there = KeyBuf::new(KeyType::REFLINK_P, behind, key.k.size, value);
    vec![(BtreeId::REFLINK, indirect), (BtreeId::EXTENTS, here), (BtreeId::EXTENTS, there)]
}

/// The alloc keys of some buckets, changed.
fn buckets(lab: &Lab, which: impl Fn(&Alloc) -> bool, change: impl Fn(&mut Alloc)) -> Vec<(BtreeId, KeyBuf)> {
    let of = lab.trees[&BtreeId::ALLOC].values().filter_map(|key| {
        let mut state = Alloc::decode(key.k.ty, &key.value).ok()?;
        if !which(&state) || lab.space.is_open(DevBucket::from_pos(key.k.pos)?) {
            return None;
        }
        change(&mut state);
        let mut value = Vec::new();
        state.encode(&mut value);
        Some((BtreeId::ALLOC, KeyBuf::new(KeyType::ALLOC_V4, key.k.pos, 0, value)))
    });
    of.take(5).collect()
}

fn step(lab: &mut Lab, writer: &mut Writer, what: u8, lot: u64) {
    let extents = |keys: Vec<KeyBuf>| keys.into_iter().map(|key| (BtreeId::EXTENTS, key)).collect();
    let changes: Vec<(BtreeId, KeyBuf)> = match what {
        0 => pick(lab, BtreeId::EXTENTS, lot, has_range)
            .map_or_else(Vec::new, |k| extents(vec![deleted(k.k.pos)])),
        1 => pick(lab, BtreeId::EXTENTS, lot, has_range).map_or_else(Vec::new, |k| extents(cut(&k, lot))),
        2 | 3 => {
            let btree = if what == 2 { BtreeId::EXTENTS } else { BtreeId::REFLINK };
            let key = pick(lab, btree, lot, has_pointers).and_then(|key| moved(lab, writer, &key, lot));
            key.into_iter().map(|key| (btree, key)).collect()
        }
        4 => pick(lab, BtreeId::EXTENTS, lot, |ty| ty == KeyType::EXTENT)
            .map_or_else(Vec::new, |k| shared(lab, &k)),
        5 => {
            lab.space.flushed(lab.seq);
            buckets(lab, |a| a.data_type == DataType::NEED_DISCARD, |a| a.need_discard = false)
        }
        6 => {
            let now = lab.clocks.now();
            buckets(
                lab,
                |a| a.data_type == DataType::CACHED,
                |a| {
                    a.generation = a.generation.next();
                    (a.need_inc_gen, a.cached_sectors, a.io_time) = (false, 0, now);
                },
            )
        }
        7 => {
            writer.filling.clear();
            lab.clocks.has_written(Sectors(lot % 1000));
            Vec::new()
        }
        _ => {
            let key = pick(lab, BtreeId::EXTENTS, lot, |ty| ty == KeyType::EXTENT);
            let gone = key.map(|k| (BtreeId::EXTENTS, deleted(k.k.pos)));
            let moved =
                pick(lab, BtreeId::EXTENTS, lot >> 7, has_pointers).and_then(|k| moved(lab, writer, &k, 1));
            let mut both: HashMap<Bpos, (BtreeId, KeyBuf)> = HashMap::new();
            both.extend(gone.map(|change| (change.1.k.pos, change)));
            both.extend(moved.map(|key| (key.k.pos, (BtreeId::EXTENTS, key))));
            both.into_values().collect()
        }
    };
    lab.commit(changes).unwrap_or_else(|e| panic!("step {what}, lot {lot}: {e}"));
}

const IMAGES: [&str; 6] = [
    "02-small-tree-bs512",
    "05-compress-lz4",
    "09-multi-replicas2",
    "09-multi-tiered",
    "11-reflink",
    "12-fallocate",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_finds_nothing(
        image in 0..IMAGES.len(),
        steps in proptest::collection::vec((0..9u8, any::<u64>()), 1..80),
    ) {
        let (mut lab, mut writer) = (Lab::of(IMAGES[image]), Writer::default());
        for (what, lot) in steps {
            step(&mut lab, &mut writer, what, lot);
        }
        drop(writer);
        assert_consistent(&lab);
    }
}
