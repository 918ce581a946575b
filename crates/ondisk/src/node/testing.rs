//! Generators for the property tests of this module: formats, keys, and runs of keys that look like a node's.

use proptest::prelude::*;

use super::format::{FIELD_BITS, FIELDS, FormatRules, KeyFormat};
use crate::bkey::{BVersion, Bkey, KeyBuf};
use crate::bpos::Bpos;
use crate::bytes::{PutLe, Reader};
use crate::key_type::KeyType;

/// Small numbers, numbers near the ends, and anything.
fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, (0..300u64).prop_map(|n| u64::MAX - n), any::<u64>()]
}

fn any_u32() -> impl Strategy<Value = u32> {
    prop_oneof![0..300u32, (0..300u32).prop_map(|n| u32::MAX - n), any::<u32>()]
}

/// Any position.
pub(crate) fn any_pos() -> impl Strategy<Value = Bpos> {
    (any_u64(), any_u64(), any_u32()).prop_map(|(i, o, s)| Bpos::new(i, o, s))
}

/// Any key header.
pub(crate) fn any_bkey() -> impl Strategy<Value = Bkey> {
    (any::<u8>(), any_pos(), any_u32(), any_u32(), any_u64()).prop_map(|(ty, pos, size, hi, lo)| Bkey {
        ty: KeyType(ty),
        version: BVersion { hi, lo },
        size,
        pos,
    })
}

/// Any key with a value of up to 9 words.
pub(crate) fn any_key() -> impl Strategy<Value = KeyBuf> {
    (any_bkey(), 0..10usize, any::<u8>())
        .prop_map(|(k, words, byte)| KeyBuf { k, value: vec![byte; words * 8].into() })
}

/// Any valid format: random widths and biases, made to fit.
pub(crate) fn any_format() -> impl Strategy<Value = KeyFormat> {
    (proptest::array::uniform6(0..=64u8), proptest::array::uniform6(any_u64())).prop_map(|(bits, offsets)| {
        let mut enc = vec![0, FIELDS as u8];
        let bits: [u8; FIELDS] = std::array::from_fn(|f| bits[f].min(FIELD_BITS[f]));
        enc[0] = (24 + bits.iter().map(|&b| u32::from(b)).sum::<u32>()).div_ceil(64) as u8;
        enc.extend_from_slice(&bits);
        for f in 0..FIELDS {
            let ones = |bits: u8| (1u128 << bits) - 1;
            let room = ones(FIELD_BITS[f]) - ones(bits[f]);
            enc.put_u64((u128::from(offsets[f]) % (room + 1)) as u64);
        }
        KeyFormat::decode(&mut Reader::new("bkey_format", &enc), FormatRules::Strict).expect("made to fit")
    })
}

/// Key headers in the neighbourhood of one position, as the keys of a node are.
pub(crate) fn near_bkeys() -> impl Strategy<Value = Vec<Bkey>> {
    let near = (0..5u64, 0..40u64, 0..3u32, 0..200u32);
    (any_pos(), proptest::collection::vec(near, 1..12)).prop_map(|(base, deltas)| {
        deltas
            .into_iter()
            .map(|(i, o, s, size)| {
                let pos = Bpos::new(
                    base.inode.saturating_add(i),
                    base.offset.saturating_add(o * o * o),
                    base.snapshot.saturating_sub(s),
                );
                Bkey::new(KeyType::COOKIE, pos, size)
            })
            .collect()
    })
}
