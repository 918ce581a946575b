//! Tests of member records.

use super::*;

fn sample() -> Member {
    Member {
        uuid: Uuid::from_u128(7),
        nbuckets: 512,
        bucket_sectors: 256,
        seq: SbSeq(9),
        last_journal_bucket: 3,
        last_journal_bucket_offset: 104,
        ..Member::default()
    }
}

#[test]
fn default_flags_mean_what_the_specification_says() {
    let mut flags = MemberFlags(0x600e_0000);
    assert_eq!(flags.state(), MemberState::ReadWrite);
    assert!(flags.freespace_initialized() && !flags.discard());
    assert_eq!((flags.data_allowed(), flags.durability(), flags.group()), (0x1c, 1, None));
    assert!(flags.allows(DataType::BTREE) && !flags.allows(DataType::SB) && !flags.allows(DataType(200)));
    assert!(flags.set_group(Some(254)) && !flags.set_group(Some(255)));
    assert_eq!(flags.group(), Some(254));
    assert!(flags.set_durability(2) && !flags.set_durability(3));
    assert_eq!(flags.durability(), 2);
    assert_eq!(MemberFlags(0).durability(), 1);
    flags.set_state(MemberState::Spare);
    assert_eq!(MemberState::from_name("spare"), Some(flags.state()));
}

#[test]
fn records_of_every_length_round_trip() {
    for member_bytes in [56, 120, 144, 224, 296, 328, 400] {
        let mut payload = Vec::new();
        payload.put_u16(member_bytes as u16);
        payload.put_zeros(6);
        payload.extend(
            (0..2 * member_bytes).map(|i| if (29..32).contains(&(i % member_bytes)) { 0 } else { i as u8 }),
        );
        let members = Members::decode(&payload).unwrap();
        assert_eq!(members.list.len(), 2);
        let mut out = Vec::new();
        members.encode(&mut out);
        assert_eq!(out, payload, "{member_bytes}");
    }
    assert!(Members::decode(&[55, 0, 0, 0, 0, 0, 0, 0]).is_err());
}

#[test]
fn old_section_holds_the_first_fields() {
    let mut payload = Vec::new();
    MembersV1(vec![sample()]).encode(&mut payload);
    assert_eq!(payload.len(), MEMBER_V1_BYTES);
    let old = MembersV1::decode(&payload).unwrap().0.remove(0);
    assert_eq!((old.uuid, old.nbuckets, old.bucket_sectors), (Uuid::from_u128(7), 512, 256));
    assert_eq!((old.seq, old.last_journal_bucket), (SbSeq(0), 0));
}

#[test]
fn slots_without_a_device_are_not_listed() {
    let free = Member { uuid: Uuid::nil(), ..sample() };
    let removed = Member { uuid: Member::REMOVED, ..sample() };
    let members = Members::new(vec![free, sample(), removed]);
    assert!(members.live().map(|(i, _)| i.0).eq([1]));
    assert!(members.get(DevIndex(1)).is_some());
    assert!([0, 2, 3].iter().all(|&i| members.get(DevIndex(i)).is_none()));
}

#[test]
fn geometry_rules() {
    let check = |change: fn(&mut Member), minor| {
        let mut m = sample();
        change(&mut m);
        m.validate(DevIndex(0), Version::new(1, minor), Sectors(8), Sectors(256)).map_err(|e| e.to_string())
    };
    assert_eq!(check(|_| (), 13), Ok(()));
    assert_eq!(check(|_| (), 39), Ok(()));
    assert!(check(|m| m.nbuckets = 511, 39).unwrap_err().contains("at least 512"));
    assert!(check(|m| m.nbuckets = 63, 13).unwrap_err().contains("at least 64"));
    assert!(check(|m| m.first_bucket = 600, 13).is_err());
    assert!(check(|m| m.nbuckets = 1 << 31, 13).unwrap_err().contains("at most"));
    assert!(check(|m| m.bucket_sectors = 128, 13).unwrap_err().contains("node"));
    assert!(check(|m| m.bucket_sectors = 4, 13).unwrap_err().contains("block"));
    assert!(check(|m| m.btree_bitmap.shift = 58, 13).is_err());
}

#[test]
fn buckets_lie_inside_the_device() {
    let m = sample();
    assert_eq!(m.bucket_range(BucketIndex(511)), Some(130_816..131_072));
    assert_eq!(m.bucket_range(BucketIndex(512)), None);
    assert_eq!(m.size(), Sectors(131_072));
}
