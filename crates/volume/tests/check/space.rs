//! Damage to everything about space.

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::superblock::sections::replicas::Replicas;
use frazil_ondisk::units::{BucketIndex, DevIndex, Gen, Sectors};
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::backpointer::Backpointer;
use frazil_ondisk::values::extent::{Entries, Entry, ExtentPtr, Pointers};
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::{BVersion, Bpos, BtreeId, DataType, KeyBuf, KeyType};
use frazil_surgery::Patient;

use super::damage::{Case, inum, recode, run};

pub(super) const TREE: &str = "02-small-tree";
pub(super) const TIERED: &str = "09-multi-tiered";

/// The first extent of a file with pointers.
fn extent(patient: &Patient, path: &str) -> KeyBuf {
    let inum = inum(patient, path);
    let is = |key: &KeyBuf| key.k.pos.inode == inum && key.k.ty == KeyType::EXTENT;
    patient.keys(BtreeId::EXTENTS).into_iter().find(is).expect("the file has extents")
}

/// A file whose extents lie in partly filled buckets.
const FILE: &str = "sizes/s65537";

fn edit_ptr(patient: &mut Patient, pos: Bpos, edit: impl Fn(&mut ExtentPtr)) {
    patient.edit(BtreeId::EXTENTS, pos, |key| {
        recode(key, |old, new| {
            for entry in Entries::new(old) {
                match entry.expect("an entry") {
                    Entry::Ptr(mut ptr) => {
                        edit(&mut ptr);
                        Entry::Ptr(ptr).encode(new);
                    }
                    other => other.encode(new),
                }
            }
        })
    });
}

fn edit_file_ptr(patient: &mut Patient, edit: impl Fn(&mut ExtentPtr)) {
    let pos = extent(patient, FILE).k.pos;
    edit_ptr(patient, pos, edit);
}

/// The bucket of the file's first extent.
pub(super) fn file_bucket(patient: &Patient) -> DevBucket {
    let key = extent(patient, FILE);
    let copy = Pointers::new(&key.value, key.k.size).next().expect("a pointer").expect("a pointer");
    let bucket = patient.superblock(DevIndex(0)).own_member().expect("a member").bucket_size().0;
    DevBucket { dev: copy.ptr.dev, bucket: BucketIndex(copy.ptr.offset.0 / bucket) }
}

fn root_bucket(patient: &Patient) -> DevBucket {
    let (level, _) = patient.root(BtreeId::INODES).expect("a root");
    let at = patient.node(BtreeId::INODES, level, Bpos::MIN).places()[0];
    let bucket = patient.superblock(DevIndex(0)).own_member().expect("a member").bucket_size().0;
    DevBucket { dev: at.dev, bucket: BucketIndex(at.offset.0 / bucket) }
}

fn edit_alloc(patient: &mut Patient, at: DevBucket, edit: impl FnOnce(&mut Alloc)) {
    patient.edit(BtreeId::ALLOC, at.pos(), |key| {
        recode(key, |old, new| {
            let mut alloc = Alloc::decode_v4(old).expect("an alloc key");
            edit(&mut alloc);
            alloc.encode(new);
        })
    });
}

/// The first bucket in a state.
pub(super) fn bucket_in(patient: &Patient, data_type: DataType) -> DevBucket {
    let key = patient
        .keys(BtreeId::ALLOC)
        .into_iter()
        .find(|key| Alloc::decode_v4(&key.value).is_ok_and(|alloc| alloc.data_type == data_type));
    DevBucket::from_pos(key.expect("a bucket in that state").k.pos).expect("a bucket")
}

/// A bucket that was never used.
pub(super) fn unused_bucket(patient: &Patient) -> BucketIndex {
    let member = patient.superblock(DevIndex(0)).own_member().expect("a member");
    BucketIndex(member.nbuckets - 9)
}

fn edit_backpointer(patient: &mut Patient, edit: impl FnOnce(&mut Backpointer)) {
    let pos = patient.keys(BtreeId::BACKPOINTERS)[0].k.pos;
    patient.edit(BtreeId::BACKPOINTERS, pos, |key| {
        recode(key, |old, new| {
            let mut value = Backpointer::decode(old).expect("a backpointer");
            edit(&mut value);
            value.encode(new);
        })
    });
}

/// A backpointer moved to another position, at the offset in the bucket it says.
fn move_backpointer(patient: &mut Patient, inode: u64, offset: u64) {
    let mut key = patient.keys(BtreeId::BACKPOINTERS)[0].clone();
    patient.remove(BtreeId::BACKPOINTERS, key.k.pos);
    key.k.pos = Bpos::new(inode, offset, 0);
    patient.put(BtreeId::BACKPOINTERS, key);
}

fn edit_counters(patient: &mut Patient, what: AccountingPos, edit: impl FnOnce(&mut Vec<i64>)) {
    patient.edit(BtreeId::ACCOUNTING, what.encode(Order::Memory), |key| {
        recode(key, |old, new| {
            let mut counters: Vec<i64> = Counters::decode(old).expect("counters").iter().collect();
            edit(&mut counters);
            Counters::encode(counters, new);
        })
    });
}

const USER_ON_0: AccountingPos = AccountingPos::DevDataType { dev: DevIndex(0), data_type: DataType::USER };

#[test]
fn pointers() {
    run(&[
        Case {
            name: "to a device that does not exist",
            image: TREE,
            damage: |p| edit_file_ptr(p, |ptr| ptr.dev = DevIndex(9)),
            finds: &[
                E::ALLOC_KEY_TO_MISSING_LRU_ENTRY,
                E::ALLOC_KEY_DIRTY_SECTORS_WRONG,
                E::BACKPOINTER_TO_MISSING_PTR,
                E::PTR_TO_INVALID_DEVICE,
                E::ACCOUNTING_MISMATCH,
                E::ACCOUNTING_REPLICAS_NOT_MARKED,
            ],
        },
        Case {
            name: "behind the last bucket",
            image: TREE,
            damage: |p| edit_file_ptr(p, |ptr| ptr.offset = Sectors(1 << 40)),
            finds: &[
                E::ALLOC_KEY_TO_MISSING_LRU_ENTRY,
                E::ALLOC_KEY_DIRTY_SECTORS_WRONG,
                E::BACKPOINTER_TO_MISSING_PTR,
                E::PTR_AFTER_LAST_BUCKET,
                E::PTR_TO_MISSING_BACKPOINTER,
                E::ACCOUNTING_MISMATCH,
            ],
        },
        Case {
            name: "across the end of a bucket",
            image: TREE,
            damage: |p| edit_file_ptr(p, |ptr| ptr.offset = Sectors(ptr.offset.0 / 256 * 256 + 255)),
            finds: &[
                E::BACKPOINTER_TO_MISSING_PTR,
                E::PTR_SPANS_MULTIPLE_BUCKETS,
                E::PTR_TO_MISSING_BACKPOINTER,
            ],
        },
        Case {
            name: "to a free bucket (#19)",
            image: TREE,
            damage: |p| {
                let bucket = unused_bucket(p);
                edit_file_ptr(p, move |ptr| ptr.offset = Sectors(bucket.0 * 256));
            },
            finds: &[
                E::ALLOC_KEY_TO_MISSING_LRU_ENTRY,
                E::ALLOC_KEY_DATA_TYPE_WRONG,
                E::ALLOC_KEY_DIRTY_SECTORS_WRONG,
                E::FREESPACE_KEY_WRONG,
                E::BACKPOINTER_TO_MISSING_PTR,
                E::PTR_TO_MISSING_BACKPOINTER,
                E::PTR_TO_MISSING_ALLOC_KEY,
                E::ACCOUNTING_MISMATCH,
            ],
        },
        Case {
            name: "newer than its bucket (#20)",
            image: TREE,
            damage: |p| edit_file_ptr(p, |ptr| ptr.generation = Gen(ptr.generation.0 + 3)),
            finds: &[E::PTR_GEN_NEWER_THAN_BUCKET_GEN],
        },
        Case {
            name: "older than its bucket (#25)",
            image: TREE,
            damage: |p| {
                let at = root_bucket(p);
                edit_alloc(p, at, |alloc| alloc.generation = Gen(alloc.generation.0 + 2));
            },
            finds: &[E::BUCKET_GENS_KEY_WRONG, E::STALE_DIRTY_PTR],
        },
        Case {
            name: "much older than its bucket",
            image: TREE,
            damage: |p| {
                let at = root_bucket(p);
                edit_alloc(p, at, |alloc| alloc.generation = Gen(alloc.generation.0 + 100));
            },
            finds: &[E::BUCKET_GENS_KEY_WRONG, E::PTR_TOO_STALE],
        },
        Case {
            name: "into a bucket of another kind",
            image: TREE,
            damage: |p| {
                let at = root_bucket(p);
                edit_file_ptr(p, move |ptr| ptr.offset = Sectors(at.bucket.0 * 256));
            },
            finds: &[
                E::ALLOC_KEY_TO_MISSING_LRU_ENTRY,
                E::ALLOC_KEY_DIRTY_SECTORS_WRONG,
                E::BACKPOINTER_TO_MISSING_PTR,
                E::PTR_TO_MISSING_BACKPOINTER,
                E::PTR_BUCKET_DATA_TYPE_MISMATCH,
                E::ACCOUNTING_MISMATCH,
            ],
        },
        Case {
            name: "node outside the map of nodes",
            image: TREE,
            damage: |p| {
                p.edit_superblocks(|superblock| {
                    let mut members = superblock.members().expect("members");
                    members.list[0].btree_bitmap.bits = 0;
                    superblock.put_members(&members);
                })
            },
            finds: &[E::BTREE_BITMAP_NOT_MARKED],
        },
        Case {
            name: "replicas not listed in the superblock",
            image: TREE,
            damage: |p| {
                p.edit_superblocks(|superblock| {
                    let mut replicas = Replicas::load(&superblock.sections).expect("replicas");
                    replicas.0.retain(|entry| entry.data_type != DataType::USER);
                    replicas.store(&mut superblock.sections);
                })
            },
            finds: &[E::ACCOUNTING_REPLICAS_NOT_MARKED],
        },
    ]);
}

#[test]
fn alloc_keys() {
    run(&[
        Case {
            name: "dirty sectors (#23)",
            image: TREE,
            damage: |p| {
                let at = file_bucket(p);
                edit_alloc(p, at, |alloc| alloc.dirty_sectors += 8);
            },
            finds: &[E::ALLOC_KEY_DIRTY_SECTORS_WRONG],
        },
        Case {
            name: "data type (#24)",
            image: TREE,
            damage: |p| {
                let at = root_bucket(p);
                edit_alloc(p, at, |alloc| alloc.data_type = DataType::USER);
            },
            finds: &[E::ALLOC_KEY_DATA_TYPE_WRONG],
        },
        Case {
            name: "stripe sectors",
            image: TREE,
            damage: |p| {
                let at = file_bucket(p);
                edit_alloc(p, at, |alloc| alloc.stripe_sectors = 8);
            },
            finds: &[E::ALLOC_KEY_STRIPE_SECTORS_WRONG],
        },
        Case {
            name: "stripe and its redundancy",
            image: TREE,
            damage: |p| {
                let at = file_bucket(p);
                edit_alloc(p, at, |alloc| {
                    (alloc.stripe, alloc.stripe_redundancy, alloc.data_type) = (7, 1, DataType::STRIPE)
                });
            },
            finds: &[
                E::ALLOC_KEY_DATA_TYPE_WRONG,
                E::ALLOC_KEY_STRIPE_WRONG,
                E::ALLOC_KEY_STRIPE_REDUNDANCY_WRONG,
            ],
        },
        Case {
            name: "cached sectors",
            image: TIERED,
            damage: |p| {
                let at = bucket_in(p, DataType::CACHED);
                edit_alloc(p, at, |alloc| alloc.cached_sectors += 8);
            },
            finds: &[E::ALLOC_KEY_CACHED_SECTORS_WRONG],
        },
        Case {
            name: "read time of a cached bucket",
            image: TIERED,
            damage: |p| {
                let at = bucket_in(p, DataType::CACHED);
                edit_alloc(p, at, |alloc| alloc.io_time[0] = 0);
            },
            finds: &[E::ALLOC_KEY_CACHED_BUT_READ_TIME_ZERO, E::LRU_ENTRY_BAD],
        },
        Case {
            name: "no key for the bucket of a root (#26)",
            image: TREE,
            damage: |p| {
                let at = root_bucket(p);
                p.remove(BtreeId::ALLOC, at.pos());
            },
            finds: &[
                E::ALLOC_KEY_DATA_TYPE_WRONG,
                E::ALLOC_KEY_DIRTY_SECTORS_WRONG,
                E::PTR_TO_MISSING_ALLOC_KEY,
            ],
        },
        Case {
            name: "key for a bucket that does not exist",
            image: TREE,
            damage: |p| {
                let at = root_bucket(p);
                let mut key = p.get(BtreeId::ALLOC, at.pos()).expect("a key");
                key.k.pos.offset = 1 << 40;
                p.put(BtreeId::ALLOC, key);
            },
            finds: &[E::ALLOC_KEY_TO_MISSING_DEV_BUCKET],
        },
        Case {
            name: "a key that contradicts itself",
            image: TREE,
            damage: |p| {
                let at = file_bucket(p);
                edit_alloc(p, at, |alloc| alloc.data_type = DataType::FREE);
            },
            finds: &[E::ALLOC_KEY_EMPTY_BUT_HAVE_DATA],
        },
    ]);
}

#[test]
fn backpointers() {
    run(&[
        Case {
            name: "missing (#21)",
            image: TREE,
            damage: |p| {
                let pos = p.keys(BtreeId::BACKPOINTERS)[0].k.pos;
                p.remove(BtreeId::BACKPOINTERS, pos);
            },
            finds: &[E::PTR_TO_MISSING_BACKPOINTER],
        },
        Case {
            name: "to another position (#22)",
            image: TREE,
            damage: |p| edit_backpointer(p, |value| value.pos.offset += 1),
            finds: &[E::BACKPOINTER_TO_MISSING_PTR, E::PTR_TO_MISSING_BACKPOINTER],
        },
        Case {
            name: "with another length",
            image: TREE,
            damage: |p| edit_backpointer(p, |value| value.bucket_len += 1),
            finds: &[E::BACKPOINTER_TO_MISSING_PTR, E::PTR_TO_MISSING_BACKPOINTER],
        },
        Case {
            name: "one too many",
            image: TREE,
            damage: |p| {
                let mut key = p.keys(BtreeId::BACKPOINTERS)[0].clone();
                key.k.pos.offset += 1;
                p.put(BtreeId::BACKPOINTERS, key);
            },
            finds: &[E::BACKPOINTER_TO_MISSING_PTR],
        },
        Case {
            name: "on a device that does not exist",
            image: TREE,
            damage: |p| move_backpointer(p, 9, 1 << 20),
            finds: &[E::BACKPOINTER_TO_MISSING_DEVICE, E::PTR_TO_MISSING_BACKPOINTER],
        },
        Case {
            name: "in a bucket that was never used",
            image: TREE,
            damage: |p| {
                let bucket = unused_bucket(p);
                move_backpointer(p, 0, (bucket.0 * 256) << 10);
            },
            finds: &[E::BACKPOINTER_TO_MISSING_ALLOC, E::PTR_TO_MISSING_BACKPOINTER],
        },
    ]);
}

#[test]
fn accounting() {
    run(&[
        Case {
            name: "sectors of a device (#29)",
            image: TREE,
            damage: |p| edit_counters(p, USER_ON_0, |c| c[1] += 8),
            finds: &[E::ACCOUNTING_MISMATCH],
        },
        Case {
            name: "number of inodes",
            image: TREE,
            damage: |p| edit_counters(p, AccountingPos::NrInodes, |c| c[0] -= 1),
            finds: &[E::ACCOUNTING_MISMATCH],
        },
        Case {
            name: "a record missing",
            image: TREE,
            damage: |p| p.remove(BtreeId::ACCOUNTING, USER_ON_0.encode(Order::Memory)),
            finds: &[E::ACCOUNTING_MISMATCH],
        },
        Case {
            name: "of a device that does not exist",
            image: TREE,
            damage: |p| {
                let what = AccountingPos::DevDataType { dev: DevIndex(5), data_type: DataType::USER };
                let mut key = p.get(BtreeId::ACCOUNTING, USER_ON_0.encode(Order::Memory)).expect("counters");
                key.k.pos = what.encode(Order::Memory);
                p.put(BtreeId::ACCOUNTING, key);
            },
            finds: &[E::ACCOUNTING_MISMATCH, E::ACCOUNTING_TO_INVALID_DEVICE],
        },
        Case {
            name: "without version",
            image: TREE,
            damage: |p| {
                p.edit(BtreeId::ACCOUNTING, USER_ON_0.encode(Order::Memory), |key| {
                    key.k.version = BVersion::default()
                });
            },
            finds: &[E::ACCOUNTING_KEY_VERSION_0],
        },
    ]);
}
