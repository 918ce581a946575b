//! Tests of journal entries: the specification's worked example, damage of every kind, round trips, random bytes.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::bkey::KeyBuf;
use crate::bpos::Bpos;
use crate::btree_id::BtreeId;
use crate::checksum::ChecksumType;
use crate::crypto::Key as CryptKey;
use crate::data_type::DataType;
use crate::error::DecodeError;
use crate::fsck_errors::FsckErrorId;
use crate::key_type::KeyType;
use crate::units::{Sectors, Seq};
use crate::version::Version;

const UUID: Uuid = Uuid::from_u128(0x28e5a21ee12f449baa311c1ea2a735d6);
const BLOCK: usize = 512;

fn format(key: Option<&CryptKey>) -> JsetFormat<'_> {
    JsetFormat { magic: jset_magic(&UUID), block_bytes: BLOCK, key }
}

fn seal(seq: u64, last_seq: u64) -> Seal<'static> {
    Seal {
        magic: jset_magic(&UUID),
        seq: Seq(seq),
        version: Version::WRITE,
        kind: JsetKind::Flush { last_seq: Seq(last_seq) },
        has_overwrites: false,
        csum_type: ChecksumType::Crc32cNonzero,
        key: None,
    }
}

fn key(offset: u64, words: usize) -> KeyBuf {
    KeyBuf::new(KeyType::COOKIE, Bpos::new(1, offset, 0), 0, vec![7; words * 8])
}

/// An entry with one key and some padding around it.
fn entry(seal: &Seal<'_>) -> Vec<u8> {
    let mut b = JsetBuilder::new();
    b.out().extend_from_slice(&[0; 16]);
    push_keys(b.out(), EntryType::BTREE_KEYS, BtreeId::INODES, 0, [key(9, 2).as_key()]);
    b.out().extend_from_slice(&[0; 8]);
    JsetEntry::Datetime { seconds: 5 }.encode(b.out());
    b.finish(seal, BLOCK).unwrap()
}

fn jset(found: Found) -> Jset {
    match found {
        Found::Jset(jset) => jset,
        other => panic!("expected an entry, found {other:?}"),
    }
}

/// The head of the worked example of spec 20 §2.2.
#[test]
fn worked_header() {
    assert_eq!(jset_magic(&UUID), u64::from_le_bytes([0x1a, 0xb5, 0xc0, 0xbd, 0x20, 0x1a, 0x16, 0xbf]));
    let mut bytes = [0; JSET_HEADER_BYTES];
    bytes[..4].copy_from_slice(&[0xfa, 0xa7, 0xbf, 0xa1]);
    bytes[16..24].copy_from_slice(&jset_magic(&UUID).to_le_bytes());
    bytes[24] = 7;
    bytes[32..34].copy_from_slice(&[0x0d, 0x04]);
    bytes[36] = 1;
    bytes[40] = 0x77;
    bytes[48] = 7;
    let header = JsetHeader::decode(&bytes).unwrap();
    assert_eq!(header.csum.lo, 0xa1bfa7fa);
    assert_eq!((header.seq, header.last_seq, header.u64s), (Seq(7), Seq(7), 119));
    assert_eq!(header.bytes(), 1008);
    assert_eq!(header.kind(), JsetKind::Flush { last_seq: Seq(7) });
    assert_eq!(header.flags, JsetFlags::new(ChecksumType::Crc32cNonzero, false, false));
    assert!(header.check().is_empty());
    assert_eq!(header.to_bytes(), bytes);
}

/// The sub-entries written out in that example.
#[test]
fn worked_sub_entries() {
    let list: Vec<u8> = [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0x0c, 0, 0, 0],
        [0x5b, 0xc6, 0x02, 0x6b, 0, 0, 0, 0],
        [1, 0, 2, 0, 5, 0, 0, 0],
        [0; 8],
        [2, 0, 0, 0, 7, 0, 0, 0],
        [0; 8],
        [0; 8],
        [2, 0, 0, 0, 7, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 9, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let got: Vec<_> = entries(&list).collect::<Result<_, _>>().unwrap();
    let want = [
        JsetEntry::Datetime { seconds: 0x6b02c65b },
        JsetEntry::Usage { kind: UsageKind::KEY_VERSION, value: 0 },
        JsetEntry::Clock { write: false, time: Sectors(0) },
        JsetEntry::Clock { write: true, time: Sectors(2304) },
    ];
    assert_eq!(got, want);
    let mut again = vec![0; 8];
    got.iter().for_each(|e| e.encode(&mut again));
    assert_eq!(again, list);
    assert!(check(&list, |_, _| Ok(())).is_empty());
}

#[test]
fn every_type_round_trips() {
    let mut keys = Vec::new();
    key(3, 1).as_key().encode(&mut keys);
    key(4, 0).as_key().encode(&mut keys);
    let list = || KeyList { btree: BtreeId::DIRENTS, level: 1, keys: Keys::new(&keys) };
    let root = key(5, 3);
    let frame = Frame {
        at: 0,
        header: FrameHeader { u64s: 1, btree: BtreeId(3), level: 4, ty: EntryType(77), pad: [9, 8, 7] },
        payload: &[1; 8],
    };
    let prio = Frame { header: FrameHeader { ty: EntryType::PRIO_PTRS, ..frame.header }, ..frame };
    let record = DevUsageRecord { buckets: 1, sectors: Sectors(2), fragmented: Sectors(3) };
    let name = transaction_name("__a_transaction_whose_name_is_rather_long");
    let all = [
        JsetEntry::BtreeKeys(list()),
        JsetEntry::BtreeRoot { btree: BtreeId::ALLOC, level: 2, key: Some(root.as_key()) },
        JsetEntry::BtreeRoot { btree: BtreeId::ALLOC, level: 2, key: None },
        JsetEntry::PrioPtrs(prio),
        JsetEntry::Blacklist { seq: Seq(55) },
        JsetEntry::BlacklistV2 { start: Seq(65), end: Seq(75) },
        JsetEntry::Usage { kind: UsageKind::INODES, value: 4 },
        JsetEntry::DataUsage {
            sectors: Sectors(8),
            data_type: DataType::JOURNAL,
            nr_required: 1,
            devs: &[0, 2],
        },
        JsetEntry::Clock { write: true, time: Sectors(1 << 40) },
        JsetEntry::DevUsage { dev: 3, records: vec![record; 2] },
        JsetEntry::Log { level: 0, text: &name },
        JsetEntry::Overwrite(list()),
        JsetEntry::WriteBufferKeys(list()),
        JsetEntry::Datetime { seconds: 1 << 33 },
        JsetEntry::LogBkey(list()),
        JsetEntry::RewindLimit { seq: Seq(12) },
        JsetEntry::Rewind { from: Seq(20), to: Seq(10) },
        JsetEntry::Unknown(frame),
    ];
    for entry in &all {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert!(check(&bytes, |_, _| Ok(())).is_empty(), "{entry}");
        let got: Vec<_> = entries(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(got, std::slice::from_ref(entry));
        assert!(!entry.to_string().is_empty());
    }
    assert_eq!(
        all[0].to_string(),
        "btree_keys: btree=dirents l=1 u64s 6 type cookie 1:3:0 len 0 ver 0 u64s 5 type cookie 1:4:0 len 0 ver 0"
    );
    assert_eq!(all[10].to_string(), "log: __a_transaction_whose_name_is_ra");
}

#[test]
fn reading_tells_structure_from_checksum() {
    let bytes = entry(&seal(13, 11));
    assert_eq!(bytes.len(), BLOCK);
    let good = jset(read(&format(None), &bytes));
    assert_eq!((good.checksum.clone(), good.sectors(), good.header.seq), (Ok(()), Sectors(1), Seq(13)));
    assert!(!good.is_empty());

    let mut torn = bytes.clone();
    torn[100] ^= 1;
    let torn = jset(read(&format(None), &torn));
    assert!(matches!(torn.checksum, Err(DecodeError::BadChecksum { what: "jset", csum_type: 1, .. })));
    assert_eq!(torn.header, good.header);

    let mut other = bytes.clone();
    other[16] ^= 1;
    assert_eq!(read(&format(None), &other), Found::Nothing);
    assert_eq!(read(&format(None), &bytes[..40]), Found::Nothing);
    assert_eq!(read(&format(None), &bytes[..120]), Found::TooLong(good.header));

    let mut unknown = bytes.clone();
    unknown[36] = 9;
    let unknown = jset(read(&format(None), &unknown));
    assert!(unknown.checksum.is_err());
    assert_eq!(unknown.header.check()[0].id, FsckErrorId::JSET_UNKNOWN_CSUM);
    let mut big_endian = bytes;
    big_endian[36] |= 0x10;
    assert!(jset(read(&format(None), &big_endian)).checksum.is_err());
}

#[test]
fn header_rules() {
    let mut header = jset(read(&format(None), &entry(&seal(13, 11)))).header;
    header.last_seq = Seq(14);
    assert_eq!(header.check()[0].id, FsckErrorId::JSET_LAST_SEQ_NEWER_THAN_SEQ);
    header.flags = JsetFlags::new(ChecksumType::Xxhash, true, true);
    assert!(header.check().is_empty(), "last_seq of a noflush entry means nothing");
    assert!(header.flags.has_overwrites() && header.kind() == JsetKind::NoFlush);
    for version in [8, 2 << 10, 1 << 16 | 1037] {
        header.version = version;
        assert_eq!(header.check()[0].id, FsckErrorId::JSET_UNSUPPORTED_VERSION);
    }
}

#[test]
fn encrypted_entries_need_the_key() {
    let master = CryptKey::new([3; 32]);
    let sealed =
        Seal { csum_type: ChecksumType::ChaCha20Poly1305_128, key: Some(&master), ..seal(1 << 33, 5) };
    let bytes = entry(&sealed);
    let plain = entry(&seal(1 << 33, 5));
    assert_eq!(
        bytes[24..44],
        [&plain[24..36], &[4, 0, 0, 0], &plain[40..44]].concat(),
        "clear up to byte 44"
    );
    assert_ne!(bytes[44..], plain[44..]);

    let read_back = jset(read(&format(Some(&master)), &bytes));
    assert_eq!(read_back.checksum, Ok(()));
    assert_eq!(read_back.header.last_seq, Seq(5));
    assert_eq!(read_back.list(), jset(read(&format(None), &plain)).list());
    assert!(matches!(jset(read(&format(None), &bytes)).checksum, Err(DecodeError::Unsupported { .. })));
    let other = CryptKey::new([4; 32]);
    assert!(jset(read(&format(Some(&other)), &bytes)).checksum.is_err());
    assert!(JsetBuilder::new().finish(&Seal { key: None, ..sealed }, BLOCK).is_err());
}

/// The seal overwrites whatever was in the header and behind the sub-entries.
#[test]
fn sealing_in_place_leaves_nothing_of_the_buffer() {
    let mut buf = vec![0xee; 4 * BLOCK];
    let list = [1, 0, 0, 0, 12, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    buf[JSET_HEADER_BYTES..JSET_HEADER_BYTES + 16].copy_from_slice(&list);
    let noflush = Seal { kind: JsetKind::NoFlush, ..seal(4, 4) };
    assert_eq!(noflush.seal(&mut buf, 2, BLOCK), Ok(BLOCK));
    let read_back = jset(read(&format(None), &buf));
    assert_eq!((read_back.checksum.clone(), read_back.header.last_seq), (Ok(()), Seq(0)));
    assert_eq!(read_back.list(), list);
    assert!(buf[JSET_HEADER_BYTES + 16..BLOCK].iter().all(|&b| b == 0));
    assert!(buf[BLOCK..].iter().all(|&b| b == 0xee));
}

#[test]
fn empty_means_without_keys_and_needing_only_itself() {
    let finish = |b: JsetBuilder, s: &Seal<'_>| jset(read(&format(None), &b.finish(s, BLOCK).unwrap()));
    let without_keys = || {
        let mut b = JsetBuilder::new();
        b.out().extend_from_slice(&[0; 8]);
        JsetEntry::BtreeRoot { btree: BtreeId::ALLOC, level: 0, key: None }.encode(b.out());
        b
    };
    assert!(finish(without_keys(), &seal(7, 7)).is_empty());
    assert!(!finish(without_keys(), &seal(7, 6)).is_empty());
    assert!(!finish(without_keys(), &Seal { kind: JsetKind::NoFlush, ..seal(7, 7) }).is_empty());
    assert!(!jset(read(&format(None), &entry(&seal(7, 7)))).is_empty());
}

#[test]
fn retyping_changes_only_the_type() {
    let mut list = vec![0; 8];
    push_keys(&mut list, EntryType::WRITE_BUFFER_KEYS, BtreeId::LRU, 0, [key(1, 0).as_key()]);
    let mut want = vec![0; 8];
    push_keys(&mut want, EntryType::BTREE_KEYS, BtreeId::LRU, 0, [key(1, 0).as_key()]);
    retype(&mut list, 8, EntryType::BTREE_KEYS);
    assert_eq!(list, want);
}

mod scanning {
    use super::*;

    fn bucket(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut out = entries.concat();
        out.resize(16 * BLOCK, 0);
        out
    }

    fn scan(bucket: &[u8]) -> Vec<(u64, u64, bool)> {
        BucketScan::new(format(None), bucket)
            .map(|i| (i.at.0, i.header().seq.0, i.jset.as_ref().is_ok_and(|j| j.checksum.is_ok())))
            .collect()
    }

    fn three() -> Vec<Vec<u8>> {
        [10, 11, 12].map(|seq| entry(&seal(seq, 9))).to_vec()
    }

    #[test]
    fn leftovers_of_an_earlier_lap_are_not_seen() {
        let mut entries = three();
        entries.extend([5, 6].map(|seq| entry(&seal(seq, 5))));
        assert_eq!(scan(&bucket(&entries)), [(0, 10, true), (1, 11, true), (2, 12, true)]);
        assert_eq!(scan(&vec![0; 4 * BLOCK]), []);
        assert_eq!(scan(&[]), []);
    }

    #[test]
    fn a_torn_entry_is_reported_and_does_not_hide_the_next() {
        let mut entries = three();
        entries[1][80] ^= 4;
        assert_eq!(scan(&bucket(&entries)), [(0, 10, true), (1, 11, false), (2, 12, true)]);
        // A torn header with an absurd number does not either.
        entries[1][30] = 0xff;
        let seen = scan(&bucket(&entries));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[2], (2, 12, true));
    }

    #[test]
    fn one_damaged_magic_does_not_hide_what_follows() {
        let mut entries = three();
        entries[1][16] ^= 1;
        let bucket = bucket(&entries);
        assert_eq!(scan(&bucket), [(0, 10, true), (2, 12, true)]);
        let gaps: Vec<_> = BucketScan::new(format(None), &bucket).map(|i| i.after_gap).collect();
        assert_eq!(gaps, [false, true]);
    }

    #[test]
    fn an_entry_longer_than_the_bucket_is_reported() {
        let mut entries = three();
        entries[2][42] = 1;
        let bucket = bucket(&entries);
        let last = BucketScan::new(format(None), &bucket).last().unwrap();
        assert_eq!((last.at, last.header().seq), (Sectors(2), Seq(12)));
        assert!(last.jset.is_err());
    }

    #[test]
    fn overlapping_damaged_entries_cost_a_few_passes_only() {
        let blocks = 200;
        let mut bucket = vec![0; blocks * BLOCK];
        for block in 0..blocks {
            let mut header = JsetHeader::decode(&three()[0]).unwrap();
            header.u64s = (((blocks - block) * BLOCK - JSET_HEADER_BYTES) / 8) as u32;
            bucket[block * BLOCK..][..JSET_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        }
        let items: Vec<_> = BucketScan::new(format(None), &bucket).collect();
        assert_eq!(items.len(), blocks, "each is reported");
        let looked_at = items.iter().flat_map(|i| &i.jset).map(|jset| jset.as_bytes().len()).sum::<usize>();
        assert!(looked_at <= 5 * bucket.len(), "{looked_at} bytes of {}", bucket.len());
        // Enough is left for good entries behind a damaged one that claims all the rest.
        bucket[BLOCK..].fill(0);
        bucket[BLOCK..2 * BLOCK].copy_from_slice(&entry(&seal(13, 9)));
        assert_eq!(scan(&bucket), [(0, 10, false), (1, 13, true)]);
    }
}

mod checking {
    use super::*;

    /// Checks and repairs `list`; returns the ids found, after making sure that what is left is clean and as long as before.
    fn fix(list: &mut [u8]) -> Vec<FsckErrorId> {
        let ids = |problems: Vec<Problem>| problems.iter().map(|p| p.id).collect::<Vec<_>>();
        let refuse = |_: &FrameHeader, key: &crate::bkey::Key<'_>| match key.k.pos.offset {
            13 => Err(DecodeError::invalid("cookie", "unlucky")),
            _ => Ok(()),
        };
        let found = ids(check(list, refuse));
        assert_eq!(ids(repair(list, refuse)), found);
        assert!(check(list, refuse).is_empty(), "repair leaves nothing to repair");
        found
    }

    fn offsets(list: &[u8]) -> Vec<u64> {
        let keys = entries(list).flat_map(|e| match e.unwrap() {
            JsetEntry::BtreeKeys(list) => list.keys.map(|k| k.unwrap().k.pos.offset).collect(),
            _ => Vec::new(),
        });
        keys.collect()
    }

    /// Three keys, the second of them damaged by `damage`, and a datetime behind.
    fn three_keys(damage: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut list = Vec::new();
        let keys = [key(1, 1), key(2, 2), key(3, 0)];
        push_keys(&mut list, EntryType::BTREE_KEYS, BtreeId::LRU, 0, keys.iter().map(|k| k.as_key()));
        damage(&mut list[FRAME_HEADER_BYTES + 48..]);
        JsetEntry::Datetime { seconds: 77 }.encode(&mut list);
        list
    }

    #[test]
    fn bad_keys_are_removed() {
        use FsckErrorId as Id;
        type Damage = fn(&mut [u8]);
        let cases: [(Damage, Id, &[u64]); 5] = [
            (|k| k[24] = 13, Id::JOURNAL_ENTRY_BKEY_INVALID, &[1, 3]),
            (|k| k[1] = 0, Id::JOURNAL_ENTRY_BKEY_BAD_FORMAT, &[1, 3]),
            (|k| k[0] = 0, Id::JOURNAL_ENTRY_BKEY_U64S_0, &[1]),
            (|k| k[0] = 200, Id::JOURNAL_ENTRY_BKEY_PAST_END, &[1]),
            // A key that swallows the third and is refused takes it along.
            (|k| (k[0], k[24]) = (12, 13), Id::JOURNAL_ENTRY_BKEY_INVALID, &[1]),
        ];
        for (damage, id, left) in cases {
            let mut list = three_keys(damage);
            assert_eq!(fix(&mut list), [id]);
            assert_eq!(offsets(&list), left);
            assert!(entries(&list).any(|e| e == Ok(JsetEntry::Datetime { seconds: 77 })));
        }
    }

    #[test]
    fn a_bad_root_keeps_its_header() {
        let mut list = Vec::new();
        let root = |key| JsetEntry::BtreeRoot { btree: BtreeId::LRU, level: 1, key };
        let keys = [13, 1].map(|offset| key(offset, 2));
        keys.iter().for_each(|k| root(Some(k.as_key())).encode(&mut list));
        let second = list.len() / 2;
        list[second + FRAME_HEADER_BYTES] = 6;
        let ids = fix(&mut list);
        use FsckErrorId as Id;
        assert_eq!(ids, [Id::JOURNAL_ENTRY_BKEY_INVALID, Id::JOURNAL_ENTRY_BTREE_ROOT_BAD_SIZE]);
        let left: Vec<_> = entries(&list).collect::<Result<_, _>>().unwrap();
        assert_eq!(left, [root(None), root(None)]);
    }

    #[test]
    fn bad_numbers_become_padding() {
        use FsckErrorId as Id;
        let frame = |ty: EntryType, words: &[u64]| {
            let u64s = words.len() as u16;
            let header = FrameHeader { u64s, btree: BtreeId(0), level: 0, ty, pad: [0; 3] };
            let mut out = header.to_bytes().to_vec();
            words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
            out
        };
        let cases = [
            (frame(EntryType::BLACKLIST, &[1, 2]), Id::JOURNAL_ENTRY_BLACKLIST_BAD_SIZE),
            (frame(EntryType::BLACKLIST_V2, &[1]), Id::JOURNAL_ENTRY_BLACKLIST_V2_BAD_SIZE),
            (frame(EntryType::BLACKLIST_V2, &[3, 2]), Id::JOURNAL_ENTRY_BLACKLIST_V2_START_PAST_END),
            (frame(EntryType::USAGE, &[]), Id::JOURNAL_ENTRY_USAGE_BAD_SIZE),
            (frame(EntryType::DATA_USAGE, &[1, 0x01_ff_04]), Id::JOURNAL_ENTRY_DATA_USAGE_BAD_SIZE),
            (frame(EntryType::CLOCK, &[1]), Id::JOURNAL_ENTRY_CLOCK_BAD_SIZE),
            (frame(EntryType::CLOCK, &[2, 1]), Id::JOURNAL_ENTRY_CLOCK_BAD_RW),
            (frame(EntryType::DEV_USAGE, &[1, 2]), Id::JOURNAL_ENTRY_DEV_USAGE_BAD_SIZE),
            (frame(EntryType::DEV_USAGE, &[1 << 40, 2, 3]), Id::JOURNAL_ENTRY_DEV_USAGE_BAD_PAD),
            (frame(EntryType::REWIND_LIMIT, &[]), Id::JOURNAL_ENTRY_REWIND_LIMIT_BAD_SIZE),
            (frame(EntryType::REWIND, &[1]), Id::JOURNAL_ENTRY_REWIND_BAD_SIZE),
        ];
        for (mut list, id) in cases {
            let behind = list.len();
            JsetEntry::Datetime { seconds: 77 }.encode(&mut list);
            assert_eq!(fix(&mut list), [id]);
            assert!(list[..behind].iter().all(|&b| b == 0));
            assert_eq!(entries(&list).collect::<Vec<_>>(), [Ok(JsetEntry::Datetime { seconds: 77 })]);
        }
    }

    #[test]
    fn what_extends_past_the_end_is_cut() {
        let mut list = three_keys(|_| {});
        let at = list.len();
        list.extend_from_slice(&[2, 0, 0, 0, 12, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert!(matches!(entries(&list).last(), Some(Err(DecodeError::Invalid { .. }))));
        assert_eq!(fix(&mut list), [FsckErrorId::JOURNAL_ENTRY_PAST_JSET_END]);
        assert!(list[at..].iter().all(|&b| b == 0));
    }
}

prop_compose! {
    fn any_seal()(seq in 1u64.., back in any::<prop::sample::Index>(), noflush: bool, has_overwrites: bool,
                  csum in 0u8..8) -> Seal<'static> {
        let kind = match noflush {
            true => JsetKind::NoFlush,
            false => JsetKind::Flush { last_seq: Seq(seq - back.index(seq.min(1000) as usize) as u64) },
        };
        let csum_type = ChecksumType::from_raw(csum).unwrap();
        Seal { seq: Seq(seq), kind, has_overwrites, csum_type, ..seal(1, 1) }
    }
}

proptest! {
    #[test]
    fn sealed_entries_read_back(
        seal in any_seal(),
        words in proptest::collection::vec(any::<u64>(), 0..200),
        secret: [u8; 32],
        block_log in 9u32..13,
    ) {
        let master = CryptKey::new(secret);
        let seal = Seal { key: Some(&master), ..seal };
        let mut b = JsetBuilder::new();
        words.iter().for_each(|w| b.out().extend_from_slice(&w.to_le_bytes()));
        let list = b.out()[JSET_HEADER_BYTES..].to_vec();
        let block_bytes = 1 << block_log;
        let bytes = b.finish(&seal, block_bytes).unwrap();
        prop_assert!(bytes.len().is_multiple_of(block_bytes));
        let format = JsetFormat { block_bytes, ..format(Some(&master)) };
        let read_back = jset(read(&format, &bytes));
        prop_assert_eq!(&read_back.checksum, &Ok(()));
        prop_assert_eq!(read_back.header.kind(), seal.kind);
        prop_assert_eq!(read_back.header.seq, seal.seq);
        prop_assert_eq!(read_back.header.flags.has_overwrites(), seal.has_overwrites);
        prop_assert_eq!(read_back.list(), list);
        prop_assert_eq!(read_back.sectors().to_bytes(), Some(bytes.len() as u64));
    }

    /// Whatever a list holds: it can be walked, checked, repaired and shown, and a repaired one needs no repair.
    #[test]
    fn any_list_is_handled(mut list in list_like()) {
        for entry in entries(&list).flatten() {
            prop_assert!(!entry.to_string().is_empty());
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assert!(bytes.len() <= list.len());
        }
        let problems = check(&list, |_, _| Ok(()));
        let repaired = repair(&mut list, |_, _| Ok(()));
        prop_assert_eq!(problems.is_empty(), repaired.is_empty());
        prop_assert_eq!(check(&list, |_, _| Ok(())), []);
        for frame in Frames::new(&list) {
            prop_assert!(JsetEntry::decode(&frame.unwrap()).is_ok());
        }
    }

    /// A bucket of a few entries with bytes changed anywhere never stops the scan, and undamaged ones are all found.
    #[test]
    fn any_bucket_is_scanned(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        block_bytes in prop_oneof![Just(512usize), Just(4096), 1usize..600],
    ) {
        let mut bucket: Vec<u8> = (1..6).flat_map(|seq| entry(&seal(seq, 1))).collect();
        for (at, byte) in damage {
            let at = at.index(bucket.len());
            bucket[at] = byte;
        }
        let format = JsetFormat { block_bytes, ..format(None) };
        let good = BucketScan::new(format, &bucket).filter(|i| i.jset.as_ref().is_ok_and(|j| j.checksum.is_ok()));
        let seqs: Vec<_> = good.map(|i| i.header().seq).collect();
        prop_assert!(seqs.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn any_bytes_are_scanned(bucket in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut bucket = bucket;
        if bucket.len() >= 24 {
            bucket[16..24].copy_from_slice(&jset_magic(&UUID).to_le_bytes());
        }
        let items = BucketScan::new(JsetFormat { block_bytes: 8, ..format(None) }, &bucket).count();
        prop_assert!(items <= bucket.len() / 8 + 1);
    }
}

/// Lists that look like real ones often enough to get past the framing.
fn list_like() -> impl Strategy<Value = Vec<u8>> {
    let header = (0u16..8, 0u8..30, 0u8..4, 0u8..18);
    let frame =
        (header, proptest::collection::vec(prop_oneof![Just(0u64), 0u64..3, any::<u64>()], 0..8), 0u8..9)
            .prop_map(|((u64s, btree, level, ty), words, keylike)| {
                let ty = EntryType(ty);
                let mut out = Vec::new();
                if keylike > 3 {
                    push_keys(
                        &mut out,
                        ty,
                        BtreeId(btree),
                        level,
                        [key(words.len() as u64, words.len()).as_key()],
                    );
                } else {
                    let header = FrameHeader { u64s, btree: BtreeId(btree), level, ty, pad: [0; 3] };
                    out.extend_from_slice(&header.to_bytes());
                    words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
                }
                out
            });
    let frames = proptest::collection::vec(frame, 0..6).prop_map(|f| f.concat());
    (frames, proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)).prop_map(
        |(mut list, damage)| {
            for (at, byte) in damage.into_iter().filter(|_| !list.is_empty()).collect::<Vec<_>>() {
                let at = at.index(list.len());
                list[at] = byte;
            }
            list
        },
    )
}
