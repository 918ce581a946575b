//! Damage to the lists of buckets: freespace, need_discard, lru, bucket_gens.

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::units::DevIndex;
use frazil_ondisk::values::positions::{BucketGens, LruEntry};
use frazil_ondisk::{Bpos, BtreeId, DataType, KeyBuf, KeyType};
use frazil_surgery::Patient;

use super::damage::{Case, recode, run};
use super::space::{TIERED, TREE, bucket_in, file_bucket, unused_bucket};

fn set(pos: Bpos, size: u32) -> KeyBuf {
    KeyBuf::new(KeyType::SET, pos, size, [])
}

#[test]
fn lists() {
    run(&[
        Case {
            name: "never used buckets missing in freespace",
            image: TREE,
            damage: |p| {
                let last = p.keys(BtreeId::FREESPACE).pop().expect("free space");
                p.edit(BtreeId::FREESPACE, last.k.pos, |key| key.k.size -= 1);
            },
            finds: &[E::FREESPACE_HOLE_MISSING],
        },
        Case {
            name: "a free bucket missing in freespace",
            image: TIERED,
            damage: |p| {
                let at = bucket_in(p, DataType::FREE);
                let covers = |key: &KeyBuf| {
                    key.k.pos.inode == u64::from(at.dev.0)
                        && (key.k.pos.offset - u64::from(key.k.size)..key.k.pos.offset).contains(&at.bucket.0)
                };
                let key = p.keys(BtreeId::FREESPACE).into_iter().find(covers).expect("listed");
                p.remove(BtreeId::FREESPACE, key.k.pos);
                let start = key.k.pos.offset - u64::from(key.k.size);
                let mut put = |from: u64, to: u64| {
                    if from < to {
                        p.put(BtreeId::FREESPACE, set(Bpos { offset: to, ..key.k.pos }, (to - from) as u32));
                    }
                };
                put(start, at.bucket.0);
                put(at.bucket.0 + 1, key.k.pos.offset);
            },
            finds: &[E::FREESPACE_KEY_WRONG],
        },
        Case {
            name: "a used bucket in freespace",
            image: TREE,
            damage: |p| {
                let at = file_bucket(p);
                p.put(BtreeId::FREESPACE, set(Bpos::new(0, at.bucket.0 + 1, 0), 1));
            },
            finds: &[E::FREESPACE_KEY_WRONG],
        },
        Case {
            name: "a free bucket at the wrong place in freespace",
            image: TREE,
            damage: |p| {
                let bucket = unused_bucket(p);
                p.put(BtreeId::FREESPACE, set(Bpos::new(0, bucket.0 + 1 + (1 << 56), 0), 1));
            },
            finds: &[E::NEED_DISCARD_FREESPACE_KEY_BAD],
        },
        Case {
            name: "a bucket that does not exist in freespace",
            image: TREE,
            damage: |p| p.put(BtreeId::FREESPACE, set(Bpos::new(0, 1 << 40, 0), 1)),
            finds: &[E::NEED_DISCARD_FREESPACE_KEY_TO_INVALID_DEV_BUCKET],
        },
        Case {
            name: "a bucket missing in need_discard",
            image: TIERED,
            damage: |p| {
                let at = bucket_in(p, DataType::NEED_DISCARD);
                p.remove(BtreeId::NEED_DISCARD, at.pos());
            },
            finds: &[E::NEED_DISCARD_KEY_WRONG],
        },
        Case {
            name: "a used bucket in need_discard",
            image: TIERED,
            damage: |p| {
                let at = bucket_in(p, DataType::CACHED);
                p.put(BtreeId::NEED_DISCARD, set(at.pos(), 0));
            },
            finds: &[E::NEED_DISCARD_KEY_WRONG],
        },
        Case {
            name: "a never used bucket in need_discard",
            image: TIERED,
            damage: |p| {
                let bucket = unused_bucket(p);
                p.put(BtreeId::NEED_DISCARD, set(Bpos::new(0, bucket.0, 0), 0));
            },
            finds: &[E::NEED_DISCARD_FREESPACE_KEY_BAD],
        },
        Case {
            name: "an lru entry missing (#28)",
            image: TREE,
            damage: |p| {
                let pos = p.keys(BtreeId::LRU)[0].k.pos;
                p.remove(BtreeId::LRU, pos);
            },
            finds: &[E::ALLOC_KEY_TO_MISSING_LRU_ENTRY],
        },
        Case {
            name: "an lru entry too many",
            image: TREE,
            damage: |p| {
                let entry = LruEntry::from_pos(p.keys(BtreeId::LRU)[0].k.pos);
                p.put(BtreeId::LRU, set(LruEntry { time: entry.time + 1, ..entry }.pos(), 0));
            },
            finds: &[E::LRU_ENTRY_BAD],
        },
        Case {
            name: "an lru entry for no bucket",
            image: TREE,
            damage: |p| {
                let entry = LruEntry::from_pos(p.keys(BtreeId::LRU)[0].k.pos);
                p.put(BtreeId::LRU, set(LruEntry { target: 1 << 40, ..entry }.pos(), 0));
            },
            finds: &[E::LRU_ENTRY_TO_INVALID_BUCKET],
        },
        Case {
            name: "an lru entry at no time",
            image: TREE,
            damage: |p| {
                let entry = LruEntry::from_pos(p.keys(BtreeId::LRU)[0].k.pos);
                p.put(BtreeId::LRU, set(LruEntry { time: 0, ..entry }.pos(), 0));
            },
            finds: &[E::LRU_ENTRY_AT_TIME_0],
        },
    ]);
}

/// Changes the recorded generation of a bucket.
fn edit_gens(patient: &mut Patient, page: Bpos, edit: impl FnOnce(&mut [u8; 256])) {
    patient.edit(BtreeId::BUCKET_GENS, page, |key| {
        recode(key, |old, new| {
            let mut gens = *BucketGens::decode(old).expect("generations").0;
            edit(&mut gens);
            new.extend_from_slice(&gens);
        })
    });
}

#[test]
fn generations() {
    run(&[
        Case {
            name: "the generation of a bucket",
            image: TIERED,
            damage: |p| {
                let at = bucket_in(p, DataType::SB);
                edit_gens(p, Bpos::MIN, |gens| gens[at.bucket.0 as usize] = 9);
            },
            finds: &[E::BUCKET_GENS_KEY_WRONG],
        },
        Case {
            name: "the generations of a page",
            image: TIERED,
            damage: |p| p.remove(BtreeId::BUCKET_GENS, Bpos::MIN),
            finds: &[E::BUCKET_GENS_KEY_WRONG],
        },
        Case {
            name: "a generation of a never used bucket",
            image: TIERED,
            damage: |p| {
                let bucket = unused_bucket(p);
                let mut key = p.get(BtreeId::BUCKET_GENS, Bpos::MIN).expect("generations");
                key.k.pos.offset = bucket.0 / 256;
                let mut gens = [0; 256];
                gens[(bucket.0 % 256) as usize] = 4;
                key.value = gens.into();
                p.put(BtreeId::BUCKET_GENS, key);
            },
            finds: &[E::BUCKET_GENS_HOLE_WRONG],
        },
        Case {
            name: "generations of a device that does not exist",
            image: TIERED,
            damage: |p| {
                let mut key = p.get(BtreeId::BUCKET_GENS, Bpos::MIN).expect("generations");
                key.k.pos.inode = 7;
                p.put(BtreeId::BUCKET_GENS, key);
            },
            finds: &[E::BUCKET_GENS_TO_INVALID_DEV],
        },
        Case {
            name: "generations behind the device",
            image: TIERED,
            damage: |p| {
                let mut key = p.get(BtreeId::BUCKET_GENS, Bpos::MIN).expect("generations");
                key.k.pos.offset = 1 << 40;
                p.put(BtreeId::BUCKET_GENS, key);
            },
            finds: &[E::BUCKET_GENS_TO_INVALID_BUCKETS],
        },
        Case {
            name: "a generation behind the device, in its last page",
            image: "04-csum-meta-crc32c-data-crc64",
            damage: |p| {
                let nbuckets = p.superblock(DevIndex(0)).own_member().expect("a member").nbuckets;
                assert_ne!(nbuckets % 256, 0, "the last page is not full");
                let mut key = p.get(BtreeId::BUCKET_GENS, Bpos::MIN).expect("generations");
                key.k.pos.offset = nbuckets / 256;
                let mut gens = [0; 256];
                gens[255] = 4;
                key.value = gens.into();
                p.put(BtreeId::BUCKET_GENS, key);
            },
            finds: &[E::BUCKET_GENS_NONZERO_FOR_INVALID_BUCKETS],
        },
    ]);
}
