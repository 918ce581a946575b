use proptest::prelude::*;

use super::*;
use crate::bkey::{BVersion, Bkey, KeyBuf};
use crate::bpos::Bpos;

#[test]
fn every_known_type_has_a_minimum() {
    for ty in (0..=38).map(KeyType) {
        assert!(value_bytes_min(ty).is_some(), "{ty}");
    }
    assert_eq!(value_bytes_min(KeyType(39)), None);
}

#[test]
fn lengths_are_checked() {
    let check = |ty, len: usize| {
        let key = KeyBuf::new(ty, Bpos::new(0, 4096, 0), 0, vec![0; len]);
        validate(BtreeId::EXTENTS, key.as_key(), &Rules::DEFAULT_1_13).map_err(|p| p.id)
    };
    assert_eq!(check(KeyType::SET, 8), Err(E::BKEY_VAL_SIZE_NONZERO));
    assert_eq!(check(KeyType::HASH_WHITEOUT, 8), Err(E::BKEY_VAL_SIZE_NONZERO));
    assert_eq!(check(KeyType::ERROR, 16), Err(E::BKEY_VAL_SIZE_NONZERO));
    assert_eq!(check(KeyType::ERROR, 8), Ok(()));
    assert_eq!(check(KeyType::COOKIE, 0), Err(E::BKEY_VAL_SIZE_TOO_SMALL));
    assert_eq!(check(KeyType::INODE_V3, 40), Err(E::BKEY_VAL_SIZE_TOO_SMALL));
    assert_eq!(check(KeyType::BUCKET_GENS, 248), Err(E::BUCKET_GENS_VAL_SIZE_BAD));
    assert_eq!(check(KeyType::BUCKET_GENS, 256), Ok(()));
    assert_eq!(check(KeyType(200), 0), Ok(()));
}

#[test]
fn an_inode_generation_lies_at_inode_0() {
    let check = |ty, inode| {
        let key = KeyBuf::new(ty, Bpos::new(inode, 4096, 1), 0, vec![0; 16]);
        validate(BtreeId::INODES, key.as_key(), &Rules::DEFAULT_1_13).map_err(|p| p.id)
    };
    assert_eq!(check(KeyType::INODE_GENERATION, 0), Ok(()));
    assert_eq!(check(KeyType::INODE_GENERATION, 1), Err(E::INODE_POS_INODE_NONZERO));
    assert_eq!(check(KeyType::INODE_ALLOC_CURSOR, 1), Ok(()));
    assert_eq!(check(KeyType::INODE_ALLOC_CURSOR, 0), Err(E::INODE_ALLOC_CURSOR_INODE_BAD));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever the bytes: no panic, and what decodes encodes to something that decodes to the same.
    #[test]
    fn any_key_is_a_value_or_an_error(ty in 0u8..42, words in proptest::collection::vec(any::<u64>(), 0..40),
                                      sparse: bool, inode: u64, offset: u64, snapshot: u32, size: u32, lo: u64) {
        let value: Vec<u8> = words
            .iter()
            .flat_map(|w| if sparse { w & 0x0101_0f03_0709_050f } else { *w }.to_le_bytes())
            .collect();
        let k = Bkey {
            version: BVersion { hi: 0, lo },
            ..Bkey::new(KeyType(ty), Bpos::new(inode, offset, snapshot), size)
        };
        let key = Key { k, value: &value };
        for writing in [false, true] {
            let rules = Rules { writing, ..Rules::DEFAULT_1_13 };
            let _ = (0..29).map(BtreeId).all(|b| validate(b, key, &rules).is_ok());
        }
        let _ = list::key(key, &list::NoContext).to_string();
        if let Ok(decoded) = Value::decode(key) {
            let mut out = Vec::new();
            decoded.encode(&mut out);
            prop_assert_eq!(out.len() % 8, 0);
            let ty = match decoded {
                Value::Inode(_) => KeyType::INODE_V3,
                Value::Alloc(_) => KeyType::ALLOC_V4,
                _ => k.ty,
            };
            let again = Value::decode(Key { k: Bkey { ty, ..k }, value: &out });
            prop_assert_eq!(again.map_err(|e| e.to_string()), Ok(decoded));
        }
    }
}
