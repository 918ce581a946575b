use proptest::prelude::*;

use super::*;

const V13: Version = Version::INODE_HAS_CHILD_SNAPSHOTS;
const V39: Version = Version::PER_DEV_FRAGMENTATION_LRU;

/// Bucket 49 of spec 50 §2.1.
fn example() -> [u8; 64] {
    let mut v = [0; 64];
    v[0] = 9;
    v[8] = 0x23;
    v[14] = 4;
    v[16] = 8;
    v[24] = 1;
    v[33] = 0x0a;
    v
}

fn encoded(a: &Alloc) -> Vec<u8> {
    let mut out = Vec::new();
    a.encode(&mut out);
    out
}

#[test]
fn the_example_of_the_specification() {
    let a = Alloc::decode(KeyType::ALLOC_V4, &example()).unwrap();
    assert_eq!((a.journal_seq_nonempty, a.need_discard, a.need_inc_gen), (Seq(9), true, true));
    assert_eq!((a.data_type, a.dirty_sectors, a.io_time), (DataType::USER, 8, [1, 2560]));
    assert_eq!(encoded(&a), example());
    assert_eq!(Alloc::validate(KeyType::ALLOC_V4, &example(), V13), Ok(()));
    // Spec 50 §2.5 and §2.8.
    assert_eq!(a.fragmentation_lru_time(256), 0x0400_0000);
    assert_eq!((a.fragmented_sectors(256), a.read_lru_time()), (248, 0));
}

#[test]
fn the_short_form_drops_its_backpointers() {
    let mut v = example().to_vec();
    v[8] = 0x03 | 6 << 2;
    v[9] = 1;
    v.resize(80, 0);
    v[48..].fill(0xff);
    let a = Alloc::decode(KeyType::ALLOC_V4, &v).unwrap();
    assert_eq!(encoded(&a), example());
    assert_eq!(Alloc::decode(KeyType::ALLOC_V4, &v[..48]).unwrap(), a);
    assert!(Alloc::decode(KeyType::ALLOC_V4, &v[..40]).is_err());
}

#[test]
fn old_forms_decode_to_the_same_bucket() {
    let expected = Alloc {
        generation: Gen(3),
        oldest_gen: Gen(1),
        data_type: DataType::USER,
        io_time: [1000, 0],
        dirty_sectors: 8,
        ..Alloc::default()
    };
    // read_time, data_type, dirty_sectors, oldest_gen
    let v1 = [0b10_1101, 3, 0xe8, 3, 4, 8, 0, 1];
    assert_eq!(Alloc::decode(KeyType::ALLOC, &v1).unwrap(), expected);
    // varints 1000, 0, 8
    let v2 = [3, 3, 1, 4, 0xa1, 0x0f, 0, 0x10];
    assert_eq!(Alloc::decode(KeyType::ALLOC_V2, &v2).unwrap(), expected);
    let v3 = [&[7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0][..], &v2, &[0; 4]].concat();
    let with_seq = Alloc { journal_seq_nonempty: Seq(7), need_discard: true, ..expected };
    assert_eq!(Alloc::decode(KeyType::ALLOC_V3, &v3).unwrap(), with_seq);
    let cut = |ty, v: &[u8]| Alloc::validate(ty, v, V13).map_err(|p| p.id);
    assert_eq!(cut(KeyType::ALLOC, &v1[..5]), Err(E::ALLOC_V1_VAL_SIZE_BAD));
    assert_eq!(cut(KeyType::ALLOC_V2, &v2[..5]), Err(E::ALLOC_V2_UNPACK_ERROR));
    assert_eq!(cut(KeyType::ALLOC_V3, &v3[..17]), Err(E::ALLOC_V3_UNPACK_ERROR));
    assert_eq!(cut(KeyType::ALLOC_V3, &v3), Ok(()));
}

#[test]
fn the_kind_follows_from_the_counts() {
    let derive = |a: Alloc, t| a.derived_data_type(t, V13);
    let empty = Alloc::default();
    assert_eq!(derive(Alloc { stripe: 1, ..empty }, DataType::PARITY), DataType::PARITY);
    assert_eq!(derive(Alloc { stripe: 1, ..empty }, DataType::USER), DataType::STRIPE);
    assert_eq!(derive(Alloc { dirty_sectors: 1, ..empty }, DataType::BTREE), DataType::BTREE);
    assert_eq!(derive(Alloc { stripe_sectors: 1, ..empty }, DataType::USER), DataType::USER);
    assert_eq!(derive(Alloc { cached_sectors: 1, ..empty }, DataType::USER), DataType::CACHED);
    assert_eq!(derive(Alloc { need_discard: true, ..empty }, DataType::USER), DataType::NEED_DISCARD);
    assert_eq!(derive(Alloc { oldest_gen: Gen(160), ..empty }, DataType::USER), DataType::NEED_GC_GENS);
    assert_eq!(derive(Alloc { oldest_gen: Gen(161), ..empty }, DataType::USER), DataType::FREE);

    let newer = |a: Alloc, t| a.derived_data_type(t, V39);
    assert_eq!(newer(Alloc { need_discard: true, ..empty }, DataType::FREE), DataType::FREE);
    assert_eq!(newer(empty, DataType::NEED_DISCARD), DataType::NEED_DISCARD);
    assert_eq!(newer(Alloc { dirty_sectors: 1, ..empty }, DataType::CACHED), DataType::USER);
    assert_eq!(newer(Alloc { dirty_sectors: 1, ..empty }, DataType::MULTIPLE), DataType::MULTIPLE);
}

#[test]
fn every_rule_has_its_error() {
    let ok = Alloc::decode_v4(&example()).unwrap();
    let check = |a: Alloc| Alloc::validate(KeyType::ALLOC_V4, &encoded(&a), V13).map_err(|p| p.id);
    assert_eq!(check(ok), Ok(()));
    assert_eq!(check(Alloc { stripe: 1, ..ok }), Err(E::ALLOC_KEY_DATA_TYPE_BAD));
    assert_eq!(check(Alloc { io_time: [1, 1 << 48], ..ok }), Err(E::ALLOC_KEY_IO_TIME_BAD));
    let typed = |t| Alloc { data_type: t, ..ok };
    // A class that claims data and a bucket that has some agree by derivation; only the counts can tell.
    assert_eq!(check(typed(DataType::FREE)), Err(E::ALLOC_KEY_EMPTY_BUT_HAVE_DATA));
    assert_eq!(check(typed(DataType::CACHED)), Err(E::ALLOC_KEY_CACHED_INCONSISTENCY));
    let parity = Alloc { stripe: 1, dirty_sectors: 0, ..typed(DataType::PARITY) };
    assert_eq!(check(parity), Err(E::ALLOC_KEY_DIRTY_SECTORS_0));

    let raw = |at: usize, v: u8| {
        let mut bytes = example();
        bytes[at] = v;
        Alloc::validate(KeyType::ALLOC_V4, &bytes, V13).map_err(|p| p.id)
    };
    assert_eq!(raw(9, 1), Err(E::ALLOC_V4_VAL_SIZE_BAD));
    let mut bytes = example();
    (bytes[8], bytes[9]) = (3, 1);
    let id = Alloc::validate(KeyType::ALLOC_V4, &bytes, V13).map_err(|p| p.id);
    assert_eq!(id, Err(E::ALLOC_V4_BACKPOINTERS_START_BAD));

    let free = Alloc { journal_seq_empty: Seq(1), ..Alloc::default() };
    let check39 = |a: Alloc| Alloc::validate(KeyType::ALLOC_V4, &encoded(&a), V39).map_err(|p| p.id);
    assert_eq!((check(free), check39(free)), (Ok(()), Err(E::ALLOC_KEY_DATA_TYPE_FREE_DIRTY_BOOKKEEPING)));
}

proptest! {
    #[test]
    fn values_round_trip(bytes in proptest::collection::vec(any::<u8>(), 64)) {
        let mut bytes = bytes;
        bytes[8] = bytes[8] & 3 | 8 << 2;
        bytes[9..12].fill(0);
        prop_assert_eq!(encoded(&Alloc::decode_v4(&bytes).unwrap()), bytes);
    }

    #[test]
    fn any_bytes_are_a_bucket_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
        for ty in [KeyType::ALLOC, KeyType::ALLOC_V2, KeyType::ALLOC_V3, KeyType::ALLOC_V4] {
            if let Ok(a) = Alloc::decode(ty, &bytes) {
                let _ = (Alloc::validate(ty, &bytes, V13), Alloc::validate(ty, &bytes, V39));
                prop_assert!(a.fragmentation_lru_time(256) < 1 << 31);
                let _ = a.fragmented_sectors(256);
            }
        }
    }
}
