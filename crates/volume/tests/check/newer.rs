//! Damage to what only newer versions have: stripes, and lists of background work.

use frazil_ondisk::fsck_errors::FsckErrorId as E;
use frazil_ondisk::units::SnapshotId;
use frazil_ondisk::values::accounting::{AccountingPos, Counters, Order};
use frazil_ondisk::values::alloc::Alloc;
use frazil_ondisk::values::stripe::Stripe;
use frazil_ondisk::{BtreeId, KeyBuf, KeyType};
use frazil_surgery::Patient;

use super::damage::{Case, recode, run};

const STRIPES: &str = "18-newer-1.39-ec";
const WORK: &str = "18-newer-1.39-reconcile";
const PLAIN: &str = "18-newer-1.39-tree";

fn remove_first(patient: &mut Patient, btree: BtreeId) {
    let pos = patient.keys(btree)[0].k.pos;
    patient.remove(btree, pos);
}

#[test]
fn stripes_and_work() {
    run(&[
        Case {
            name: "a bucket of a stripe not listed",
            image: STRIPES,
            damage: |p| remove_first(p, BtreeId::BUCKET_TO_STRIPE),
            finds: &[E::STRIPE_TO_MISSING_BUCKET_REF],
        },
        Case {
            name: "a bucket listed for a stripe that is not there",
            image: STRIPES,
            damage: |p| {
                let mut pos = p.keys(BtreeId::BUCKET_TO_STRIPE)[0].k.pos;
                pos.offset += 1000;
                p.put(BtreeId::BUCKET_TO_STRIPE, KeyBuf::new(KeyType::SET, pos, 0, []));
            },
            finds: &[E::BUCKET_STRIPE_REF_TO_MISSING_STRIPE],
        },
        Case {
            name: "how many stripes use a bucket",
            image: STRIPES,
            damage: |p| {
                let striped = |key: &KeyBuf| Alloc::decode_v4(&key.value).is_ok_and(|a| a.stripe > 0);
                let pos =
                    p.keys(BtreeId::ALLOC).into_iter().find(striped).expect("a bucket of a stripe").k.pos;
                p.edit(BtreeId::ALLOC, pos, |key| {
                    recode(key, |old, new| {
                        let mut alloc = Alloc::decode_v4(old).expect("an alloc key");
                        alloc.stripe += 1;
                        alloc.encode(new);
                    })
                });
            },
            finds: &[E::ALLOC_KEY_STRIPE_REFCOUNT_WRONG],
        },
        Case {
            name: "sectors in use of a stripe's first block",
            image: STRIPES,
            damage: |p| {
                let pos = p.keys(BtreeId::STRIPES)[0].k.pos;
                p.edit(BtreeId::STRIPES, pos, |key| {
                    let old = key.value.clone();
                    let stripe = Stripe::decode(&old).expect("a stripe");
                    let blocks = stripe.block_sectors().count();
                    // The counts are the last array of the value, before its padding.
                    let first = stripe.block_sectors().next().expect("a block");
                    let at = (0..=old.len() - 2 * blocks)
                        .rev()
                        .find(|&at| {
                            let words = old[at..at + 2 * blocks].chunks(2);
                            words.map(|w| u16::from_le_bytes([w[0], w[1]])).eq(stripe.block_sectors())
                        })
                        .expect("the counts");
                    key.value[at..at + 2].copy_from_slice(&(first ^ 8).to_le_bytes());
                });
            },
            finds: &[E::STRIPE_SECTOR_COUNT_WRONG],
        },
        Case {
            name: "a backpointer missing",
            image: STRIPES,
            damage: |p| remove_first(p, BtreeId::BACKPOINTERS),
            finds: &[E::PTR_TO_MISSING_BACKPOINTER],
        },
        Case {
            name: "a bucket missing in the list by fragmentation",
            image: PLAIN,
            damage: |p| remove_first(p, BtreeId::LRU),
            finds: &[E::ALLOC_KEY_TO_MISSING_LRU_ENTRY],
        },
        Case {
            name: "background work not listed",
            image: WORK,
            damage: |p| remove_first(p, BtreeId::REBALANCE_WORK),
            finds: &[E::RECONCILE_WORK_INCORRECTLY_SET],
        },
        Case {
            name: "size of a snapshot",
            image: PLAIN,
            damage: |p| {
                let what = AccountingPos::Snapshot { id: SnapshotId(u32::MAX), btree: 0 };
                p.edit(BtreeId::ACCOUNTING, what.encode(Order::BigEndian), |key| {
                    recode(key, |old, new| {
                        let mut counters: Vec<i64> =
                            Counters::decode(old).expect("counters").iter().collect();
                        counters[1] += 8;
                        Counters::encode(counters, new);
                    })
                });
            },
            finds: &[E::ACCOUNTING_MISMATCH],
        },
    ]);
}
