//! Tests of the fixed part, and the example superblock that other tests start from.

use proptest::prelude::*;

use super::*;

/// The complete superblock of spec 10 appendix C, as (offset, bytes); all else is zero.
const EXAMPLE: &[(usize, &str)] = &[
    (0x000, "fbf42936"),
    (0x010, "0d040d0400000000c68573f666ce90a9d96a60cf803df7ef1011121314151617"),
    (0x030, "18191a1b1c1d1e1f00112233445566778899aabbccddeeff"),
    (0x068, "0800000000000000"),
    (0x078, "080000011c00000000002a36fe9c97170000000001000000040110800011118102c11101"),
    (0x0a8, "00000030fa0000006400000001000000"),
    (0x0b8, "00001e00"),
    (0x0d0, "80ba0700"),
    (0x0f0, "c68573f666ce90a9d96a60cf803df7ef000b0300000000000800000000000000"),
    (0x110, "080800000000000000f8010000000000"),
    (0x2f0, "140000000b0000009000000000000000c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"),
    (0x310, "0002000000000000000000010000000000000000000000000000"),
    (0x328, "00000e20"),
    (0x390, "0800000001000000c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c00002000000000000"),
    (0x3b0, "00000001"),
    (0x3c0, "00000e20"),
];

pub(in crate::superblock) fn example_bytes() -> Vec<u8> {
    let mut bytes = vec![0; 976];
    for (at, hex) in EXAMPLE {
        for (i, pair) in hex.as_bytes().chunks(2).enumerate() {
            bytes[at + i] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    }
    bytes
}

/// A valid superblock of a 64 MiB device that was never started.
pub(in crate::superblock) fn minimal() -> Superblock {
    Superblock::decode(&example_bytes()).expect("the example is good")
}

#[test]
fn example_of_the_specification() {
    let sb = minimal();
    assert_eq!(sb.uuid.to_string(), "10111213-1415-1617-1819-1a1b1c1d1e1f");
    assert_eq!(sb.user_uuid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    assert_eq!((sb.offset, sb.block_bytes(), sb.btree_node_size()), (Sectors(8), 4096, Sectors(256)));
    assert_eq!(sb.time_base(), TimeBase { base_ns: 1_700_000_000_000_000_000, precision_ns: 1 });
    assert_eq!(sb.features, Features::STANDARD_1_13);
    assert!(sb.layout.copies().map(|s| s.0).eq([8, 2056, 129_024]));
    let own = sb.own_member().unwrap();
    assert_eq!((own.nbuckets, own.bucket_sectors, own.flags.0), (512, 256, 0x200e_0000));
    assert_eq!(sb.validate(), Ok(()));
    assert_eq!(superblock_bytes(&example_bytes()), Ok(976));
}

#[test]
fn copies_differ_in_place_and_checksum_only() {
    let sb = minimal();
    assert_eq!(sb.encode_copy(Sectors(8)).unwrap(), example_bytes());
    for (sector, csum) in [(2056, 0x9c0c_917f_u64), (129_024, 0xe68c_2fec)] {
        let copy = Superblock::decode(&sb.encode_copy(Sectors(sector)).unwrap()).unwrap();
        assert_eq!((copy.offset, copy.csum.lo), (Sectors(sector), csum));
        assert_eq!(Superblock { offset: sb.offset, csum: sb.csum, ..copy }, sb);
    }
}

#[test]
fn a_new_superblock_is_that_of_the_formatter() {
    let old = minimal();
    let mut sb = Superblock::new(old.uuid, old.user_uuid, 1_700_000_000_000_000_000, 8, old.layout.clone());
    sb.put_members(&old.members().unwrap());
    sb.flags.set_csum_type(1);
    assert_eq!(sb.encode_copy(Sectors(8)).unwrap(), example_bytes());
}

#[test]
fn damage_is_told_apart() {
    let broken = |at: usize, value: u8| {
        let mut bytes = example_bytes();
        bytes[at] = value;
        Superblock::decode(&bytes).unwrap_err().to_string()
    };
    assert!(broken(24, 0).contains("wrong magic"));
    assert!(broken(900, 1).contains("bad checksum"));
    assert!(broken(17, 8).contains("newer format"));
    assert!(broken(126, 0xff).contains("its layout allows"));
    assert!(broken(144, 0x24).contains("unknown checksum type 9"));
    assert!(matches!(Superblock::decode(&example_bytes()[..900]), Err(DecodeError::Truncated { .. })));
    assert!(matches!(Superblock::decode(&[]), Err(DecodeError::Truncated { .. })));
}

#[test]
fn labels() {
    let mut sb = minimal();
    assert_eq!(sb.label(), "");
    sb.set_label("déjà vu").unwrap();
    assert_eq!(sb.label(), "déjà vu");
    assert!(sb.set_label(&"x".repeat(32)).is_err());
    assert!(sb.set_label(&"x".repeat(31)).is_ok());
}

/// Bytes of a superblock whose fields, sections and padding are arbitrary, but whose magic, versions, length and checksum
/// type (none) let it be accepted.
fn accepted() -> impl Strategy<Value = Vec<u8>> {
    let section = (0u32..20, prop::collection::vec(any::<u64>(), 0..40));
    let sections = prop::collection::vec(section, 0..8);
    (prop::collection::vec(any::<u8>(), FIXED_BYTES), sections).prop_map(|(mut bytes, sections)| {
        bytes[..24].fill(0);
        bytes[16..20].copy_from_slice(&[13, 4, 0, 4]);
        bytes[20] = 7;
        bytes[24..40].copy_from_slice(magic::SUPERBLOCK.as_bytes());
        bytes[144] &= 3;
        bytes[257] = 11;
        for (ty, words) in sections {
            bytes.put_u32(1 + words.len() as u32);
            bytes.put_u32(ty);
            words.iter().for_each(|&w| bytes.put_u64(w));
        }
        let u64s = ((bytes.len() - FIXED_BYTES) / 8) as u32;
        bytes[124..128].copy_from_slice(&u64s.to_le_bytes());
        bytes
    })
}

/// Calls everything that looks at a superblock.
fn look_everywhere(mut sb: Superblock) {
    let _ = (sb.validate(), sb.access(), sb.members(), sb.own_member(), sb.str_hash_type(), sb.label());
    for raw in sb.sections.iter() {
        if let Ok(section) = raw.decode() {
            assert_eq!(section.encode().decode().as_ref(), Ok(&section), "{}", raw.ty);
        }
    }
    let _ = describe::describe(&sb);
    let _ = assembly::assemble([&sb, &minimal()], false);
    sb.fill_defaults();
    let _ = sb.validate();
    let ring = sb.journal_buckets().unwrap_or_default();
    let _ = (ring.len(), ring.bucket(u32::MAX), ring.buckets().next());
}

proptest! {
    #[test]
    fn whatever_is_accepted_is_encoded_to_the_same_bytes(bytes in accepted()) {
        let sb = Superblock::decode(&bytes).unwrap();
        let again = sb.encode_copy(sb.offset).unwrap();
        prop_assert_eq!(&again, &bytes);
        look_everywhere(sb);
    }

    #[test]
    fn changed_examples_never_panic(at in 0usize..976, value: u8, more in 0usize..976, other: u8) {
        let mut bytes = example_bytes();
        (bytes[at], bytes[more]) = (value, other);
        bytes[..16].fill(0);
        bytes[144] &= 3;
        if let Ok(sb) = Superblock::decode(&bytes) {
            look_everywhere(sb);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Superblock::decode(&bytes).is_err());
        let _ = Sections::decode(&bytes);
    }
}
