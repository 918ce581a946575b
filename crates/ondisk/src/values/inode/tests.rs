use proptest::prelude::*;

use super::*;
use crate::bkey::Bkey;
use crate::bpos::Bpos;
use crate::fsck_errors::FsckErrorId as E;
use crate::varint;

/// Inode 4718 of spec 40 §2.2.
#[rustfmt::skip]
fn example() -> Vec<u8> {
    let mut v = vec![
        0xe4, 0x01, 0, 0, 0, 0, 0, 0,
        0x4b, 0xe9, 0x02, 0xe4, 0x7f, 0x8c, 0x26, 0x3a,
        0, 0, 0x30, 0x15, 0x43, 0x1a, 0x08, 0,
        8, 0, 0, 0, 0, 0, 0, 0,
        10, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0xcf, 0x1a, 0x9e, 0x06, 0xe6, 0,
        0xef, 0x46, 0xba, 0xf3, 0xc9, 0,
        0xff, 0xa5, 0xc4, 0x59, 0x79, 0xf0, 0x82, 0x98, 0x1e, 0,
        0xcf, 0x66, 0x52, 0xbe, 0xc9, 0,
        0xa1, 0x0f,
        0xc8,
    ];
    v.extend([0; 13]);
    v.extend([0x01, 0x40, 0xff, 0x19, 0xe8, 0x5f, 0x10, 0xdf, 0xd1, 0x2d, 0x6f, 0]);
    v
}

fn encoded(inode: &Inode) -> Vec<u8> {
    let mut out = Vec::new();
    inode.encode(&mut out);
    out
}

fn key(ty: KeyType) -> Bkey {
    Bkey::new(ty, Bpos::new(0, 4718, u32::MAX), 0)
}

#[test]
fn the_example_of_the_specification() {
    let value = example();
    assert_eq!(value.len(), 104);
    let i = Inode::decode(KeyType::INODE_V3, &value).unwrap();
    assert_eq!((i.journal_seq, i.hash_seed, i.str_hash), (Seq(484), 0x3a26_8c7f_e402_e94b, 3));
    assert_eq!((i.mode, i.flags, i.sectors, i.size), (Mode(0o100_644), InodeFlags(0), Sectors(8), 10));
    assert_eq!((i.atime, i.ctime, i.otime), (30_873_546_966, 27_105_546_807, 27_077_546_806));
    assert_eq!(i.mtime, 2_204_655_986_937_545_893);
    assert_eq!((i.uid, i.gid, i.nlink()), (1000, 100, 1));
    assert_eq!((i.dir, i.dir_offset), (Inum(4096), 0x6f2d_d1df_105f_e819));
    assert_eq!(encoded(&i), value);
    assert_eq!(Inode::validate(&key(KeyType::INODE_V3), &value), Ok(()));
    // The base of its superblock, spec 40 §2.2: 4000000000.999999999 s was set with utimensat.
    assert_eq!(i.mtime + 1_795_344_014_062_454_106, 4_000_000_000_999_999_999);
}

#[test]
fn a_nocow_directory_of_the_specification() {
    // Spec 40 §20: flags word, and the tail of its stream.
    let mut i = Inode { mode: Mode(0o40755), str_hash: 3, ..Inode::default() };
    i.opts.set(InodeOpt::Nocow, Some(1));
    i.fields_set = InodeOpt::Nocow.bit();
    (i.dir, i.dir_offset) = (Inum(4096), 0x7bb1_0d25_f005_9fa2);
    let value = encoded(&i);
    assert_eq!(value[16..24], [0, 0, 0x30, 0x18, 0xd3, 0x1e, 0x04, 0]);
    let tail = [1, 8, 1, 0x40, 0xff, 0xa2, 0x9f, 0x05, 0xf0, 0x25, 0x0d, 0xb1, 0x7b, 0, 0, 4];
    let end = value.iter().rposition(|b| *b != 0).expect("not empty");
    assert_eq!(value[end - 15..=end], tail);
    assert_eq!(Inode::decode_v3(&value).unwrap(), i);
}

/// A stream of `fields` in a legacy order, each as `write` codes it.
fn legacy_stream(out: &mut Vec<u8>, fields: &[u64], write: impl Fn(usize, u64, &mut Vec<u8>)) {
    fields.iter().enumerate().for_each(|(i, v)| write(i, *v, out));
    out.resize(out.len().next_multiple_of(8), 0);
}

fn write_new(i: usize, v: u64, out: &mut Vec<u8>) {
    varint::encode(v, out);
    if i < 4 {
        out.push(0);
    }
}

/// Two bytes of the old coding: good for numbers below 2^14.
fn write_old(_: usize, v: u64, out: &mut Vec<u8>) {
    out.extend([0x40 | (v >> 8) as u8, v as u8]);
}

/// Values of the legacy fields, in their order (spec 40 §2.6).
const LEGACY: [u64; 25] =
    [1, 2, 3, 4, 5000, 16, 1000, 100, 1, 9, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 16, 4096, 8191, 0, 6];

fn legacy_inode() -> Inode {
    let mut i = Inode {
        hash_seed: 7,
        str_hash: 1,
        flags: InodeFlags::SYNC,
        mode: Mode(0o100_600),
        size: 5000,
        sectors: Sectors(16),
        uid: 1000,
        gid: 100,
        nlink_raw: 1,
        generation: 9,
        fields_set: 16,
        dir: Inum(4096),
        dir_offset: 8191,
        parent_subvol: SubvolId(6),
        ..Inode::default()
    };
    (i.atime, i.ctime, i.mtime, i.otime) = (1, 2, 3, 4);
    i.opts.set(InodeOpt::DataChecksum, Some(1));
    i.opts.set(InodeOpt::DataReplicas, Some(2));
    i
}

#[test]
fn the_old_forms_decode_to_the_same_inode() {
    let word = 1u32 | 1 << 20 | 25 << 24;
    let mode = 0o100_600u16.to_le_bytes();
    let mut v2 = [3u64, 7, word.into()].iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    v2.extend(mode);
    legacy_stream(&mut v2, &LEGACY, write_new);
    let expected = Inode { journal_seq: Seq(3), ..legacy_inode() };
    assert_eq!(Inode::decode(KeyType::INODE_V2, &v2).unwrap(), expected);
    assert_eq!(Inode::validate(&key(KeyType::INODE_V2), &v2), Ok(()));

    for (new_varint, write) in [(1u32, write_new as fn(usize, u64, &mut Vec<u8>)), (0, write_old)] {
        let mut v1 = 7u64.to_le_bytes().to_vec();
        v1.extend((word | new_varint << 31).to_le_bytes());
        v1.extend(mode);
        legacy_stream(&mut v1, &LEGACY, write);
        assert_eq!(Inode::decode(KeyType::INODE, &v1).unwrap(), legacy_inode());
        assert!(Inode::decode(KeyType::INODE, &v1[..32]).is_err());
    }
}

#[test]
fn link_counts_are_biased() {
    let mut file = Inode { mode: Mode(0o100_644), ..Inode::default() };
    assert_eq!(file.nlink(), 1);
    assert!(file.link());
    assert_eq!((file.nlink(), file.nlink_raw), (2, 1));
    file.unlink();
    file.unlink();
    assert_eq!((file.nlink(), file.nlink_raw, file.is_dead()), (0, 0, true));
    assert!(file.link());
    assert_eq!((file.nlink(), file.is_dead()), (1, false));
    let mut dir = Inode { mode: Mode(0o40755), ..Inode::default() };
    assert_eq!(dir.nlink(), 2);
    dir.set_nlink(5);
    assert_eq!((dir.nlink(), dir.nlink_raw), (5, 3));
    dir.set_nlink(0);
    assert_eq!((dir.nlink(), dir.flags), (0, InodeFlags::UNLINKED));
    let mut full = Inode { nlink_raw: u32::MAX - 1, ..file };
    assert!(!full.link());
    assert_eq!(full.nlink(), u32::MAX);
    let kept = Inode { flags: InodeFlags::UNLINKED | InodeFlags::HAS_CHILD_SNAPSHOT, ..file };
    assert!(!kept.is_dead());
}

#[test]
fn device_numbers() {
    assert_eq!(Rdev::new(259, 70000), Some(Rdev(271_651_184)));
    assert_eq!((Rdev(271_651_184).major(), Rdev(271_651_184).minor()), (259, 70000));
    assert_eq!((Rdev::new(4096, 0), Rdev::new(0, 1 << 20)), (None, None));
}

#[test]
fn every_rule_has_its_error() {
    let i = Inode::decode_v3(&example()).unwrap();
    let k = key(KeyType::INODE_V3);
    let check = |i: Inode| Inode::validate(&k, &encoded(&i)).map_err(|p| p.id);
    assert_eq!(check(i), Ok(()));
    let at = |pos| Inode::validate(&Bkey { pos, ..k }, &example()).map_err(|p| p.id);
    assert_eq!(at(Bpos::new(1, 4718, 1)), Err(E::INODE_POS_INODE_NONZERO));
    assert_eq!(at(Bpos::new(0, 4095, 1)), Err(E::INODE_POS_BLOCKDEV_RANGE));
    assert_eq!(check(Inode { str_hash: 4, ..i }), Err(E::INODE_STR_HASH_INVALID));
    let with = |opt, raw| {
        let mut i = i;
        i.opts.set_raw(opt, raw);
        check(i)
    };
    assert_eq!(with(InodeOpt::DataChecksum, 5), Err(E::INODE_CHECKSUM_TYPE_INVALID));
    assert_eq!(with(InodeOpt::DataChecksum, 4), Ok(()));
    assert_eq!(with(InodeOpt::Compression, 5), Err(E::INODE_COMPRESSION_TYPE_INVALID));
    assert_eq!(with(InodeOpt::Compression, 0x11), Err(E::INODE_COMPRESSION_TYPE_INVALID));
    assert_eq!(with(InodeOpt::Compression, 0xf4), Ok(()));
    let unlinked = Inode { flags: InodeFlags::UNLINKED, nlink_raw: 1, ..i };
    assert_eq!(check(unlinked), Err(E::INODE_UNLINKED_BUT_NLINK_NONZERO));
    let subvol = Inode { subvol: SubvolId(2), ..i };
    assert_eq!(check(subvol), Err(E::INODE_SUBVOL_ROOT_BUT_NOT_DIR));
    assert_eq!(check(Inode { mode: Mode(0o40755), ..subvol }), Ok(()));

    let raw = |at: usize, v: u8| {
        let mut bytes = example();
        bytes[at] = v;
        Inode::validate(&k, &bytes).map_err(|p| p.id)
    };
    // FIELDS_START 0 and 14, NR_FIELDS 127, a high part that is not 0.
    assert_eq!(raw(19, 0x15 & 0x7f), Ok(()));
    assert_eq!(raw(20, 0x40), Err(E::INODE_V3_FIELDS_START_BAD));
    assert_eq!(raw(20, 0x47), Err(E::INODE_V3_FIELDS_START_BAD));
    assert_eq!(raw(53, 2), Err(E::INODE_UNPACK_ERROR));
}

#[test]
fn small_values_round_trip() {
    let g = [1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(InodeGeneration::decode(&g).unwrap(), InodeGeneration { generation: 1, pad: 0 });
    let mut out = Vec::new();
    InodeGeneration::decode(&g).unwrap().encode(&mut out);
    assert_eq!(out, g);
    // Spec 80 §5.5.
    let c = [0, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0, 0, 0x80, 0, 0, 0, 0];
    let cursor = InodeAllocCursor::decode(&c).unwrap();
    assert_eq!((cursor.bits, cursor.generation, cursor.idx), (0, 0, 0x8000_003a));
    out.clear();
    cursor.encode(&mut out);
    assert_eq!(out, c);
}

#[test]
fn stamping_changes_the_sequence_alone() {
    let mut value = example();
    Inode::stamp_journal_seq(&mut value, Seq(500));
    let expected = Inode { journal_seq: Seq(500), ..Inode::decode_v3(&example()).unwrap() };
    assert_eq!(Inode::decode_v3(&value).unwrap(), expected);
}

prop_compose! {
    fn any_inode()(words: [u64; 12], small: [u32; 10], opts: [u8; 12], flags in 0u32..1 << 20, str_hash in 0u8..16,
                   mode: u16, zero in 0usize..28) -> Inode {
        let mut i = Inode {
            journal_seq: Seq(words[0]),
            hash_seed: words[1],
            str_hash,
            flags: InodeFlags(flags),
            sectors: Sectors(words[2]),
            size: words[3],
            version: words[4],
            mode: Mode(mode),
            atime: words[5] as i64,
            ctime: (words[6] >> 20) as i64,
            mtime: (words[7] >> 40) as i64,
            otime: words[8] as i64,
            ..Inode::default()
        };
        if zero > 4 {
            (i.uid, i.gid, i.nlink_raw, i.generation) = (small[0], small[1], small[2], small[3]);
            i.rdev = Rdev(small[4]);
        }
        if zero > 8 {
            InodeOpt::ALL.into_iter().zip(opts).for_each(|(o, v)| i.opts.set_raw(o, v.into()));
            i.fields_set = small[5] as u16;
        }
        if zero > 16 {
            (i.dir, i.dir_offset) = (Inum(words[9]), words[10]);
            (i.subvol, i.parent_subvol) = (SubvolId(small[6]), SubvolId(small[7]));
            (i.depth, i.unused) = (small[8], small[9] as u8);
        }
        i
    }
}

proptest! {
    #[test]
    fn inodes_round_trip(inode in any_inode()) {
        let value = encoded(&inode);
        prop_assert_eq!(value.len() % 8, 0);
        prop_assert_eq!(Inode::decode_v3(&value).unwrap(), inode);
    }

    #[test]
    fn any_bytes_are_an_inode_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..160), start in 0u8..16) {
        let mut bytes = bytes;
        if let Some(b) = bytes.get_mut(20) {
            *b = *b & 0xf0 | start;
        }
        for ty in [KeyType::INODE, KeyType::INODE_V2, KeyType::INODE_V3] {
            if let Ok(inode) = Inode::decode(ty, &bytes) {
                prop_assert_eq!(Inode::decode_v3(&encoded(&inode)).unwrap(), inode);
                let _ = Inode::validate(&key(ty), &bytes);
            }
        }
    }
}
