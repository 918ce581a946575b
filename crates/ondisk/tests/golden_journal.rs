//! Every journal entry of every golden image, read, taken apart, put together again and sealed: the same bytes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use frazil_ondisk::crypto::{Crypt, Key as CryptKey};
use frazil_ondisk::jset::{
    BucketScan, EntryType, Frames, Jset, JsetEntry, JsetFormat, JsetKind, Keys, Seal, check, jset_magic,
};
use frazil_ondisk::units::Seq;
use frazil_ondisk::version::Version;
use frazil_testing::golden::{self, GoldenImage, State};
use uuid::Uuid;

/// What a journal reader needs of a superblock.
struct Super {
    uuid: Uuid,
    seq: u64,
    block_bytes: usize,
    bucket_bytes: usize,
    clean: Option<(Seq, Vec<u8>)>,
    buckets: Vec<u64>,
    key: Option<CryptKey>,
}

fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |acc, &b| acc << 8 | u64::from(b))
}

/// The payload of the superblock's first section of a type.
fn section(sb: &[u8], ty: u64) -> Option<&[u8]> {
    let mut rest = &sb[752..752 + 8 * le(&sb[124..128]) as usize];
    while !rest.is_empty() {
        let (this, next) = rest.split_at(8 * le(&rest[..4]) as usize);
        if le(&this[4..8]) == ty {
            return Some(&this[8..]);
        }
        rest = next;
    }
    None
}

fn read_super(image: &GoldenImage, device: &File) -> Super {
    let mut sb = vec![0; 1 << 20];
    device.read_exact_at(&mut sb, 8 * 512).unwrap();
    let uuid = Uuid::from_slice(&sb[40..56]).unwrap();
    let members = section(&sb, 11).unwrap();
    let member = &members[8 + usize::from(sb[122]) * le(&members[..2]) as usize..];
    let ranges = section(&sb, 9).unwrap_or_default();
    let key = section(&sb, 2).map(|payload| {
        let crypt = Crypt::decode(payload).unwrap();
        crypt.unlock(image.passphrase_bytes(), &uuid).unwrap()
    });
    Super {
        uuid,
        seq: le(&sb[112..120]),
        block_bytes: 512 * le(&sb[120..122]) as usize,
        bucket_bytes: 512 * le(&member[26..28]) as usize,
        clean: section(&sb, 6).map(|s| (Seq(le(&s[8..16])), s[16..].to_vec())),
        buckets: ranges.chunks_exact(16).flat_map(|r| le(&r[..8])..le(&r[..8]) + le(&r[8..])).collect(),
        key,
    }
}

/// Takes a list of sub-entries apart and builds it again; single keys are checked on the way.
fn rebuild(list: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in Frames::new(list) {
        let entry = JsetEntry::decode(&frame.unwrap()).unwrap();
        assert!(!matches!(entry, JsetEntry::Unknown(_)), "{entry}");
        entry.encode(&mut out);
        if let JsetEntry::BtreeKeys(l) | JsetEntry::Overwrite(l) | JsetEntry::LogBkey(l) = entry {
            rebuild_keys(l.keys);
        }
    }
    out
}

/// Decodes and encodes keys one by one. Keys copied from a node may have the bit `needs_whiteout` set, which means nothing
/// outside the node (spec 30 §3).
fn rebuild_keys(keys: Keys<'_>) {
    const NEEDS_WHITEOUT: u8 = 0x80;
    let stored = keys.as_bytes();
    let mut again = Vec::new();
    for key in keys {
        let at = again.len();
        key.unwrap().encode(&mut again);
        again[at + 1] |= stored[at + 1] & NEEDS_WHITEOUT;
    }
    assert_eq!(again, stored);
}

/// Seals the entry anew from its decoded parts: must give the bytes on disk, checksum, encryption and zero tail included.
fn reseal(sb: &Super, jset: &Jset) -> Vec<u8> {
    let h = &jset.header;
    let seal = Seal {
        magic: jset_magic(&sb.uuid),
        seq: h.seq,
        version: Version(u16::try_from(h.version).unwrap()),
        kind: h.kind(),
        has_overwrites: h.flags.has_overwrites(),
        csum_type: h.flags.csum_type().unwrap(),
        key: sb.key.as_ref(),
    };
    let mut buf = vec![0xa5; jset.as_bytes().len().next_multiple_of(sb.block_bytes)];
    let list = rebuild(jset.list());
    buf[56..56 + list.len()].copy_from_slice(&list);
    let written = seal.seal(&mut buf, h.u64s, sb.block_bytes).unwrap();
    assert_eq!(written, buf.len());
    buf
}

/// Every entry of one device.
fn read_journal(sb: &Super, device: &File) -> Vec<Jset> {
    let format =
        JsetFormat { magic: jset_magic(&sb.uuid), block_bytes: sb.block_bytes, key: sb.key.as_ref() };
    let mut seen = Vec::new();
    let mut bucket = vec![0; sb.bucket_bytes];
    for nr in &sb.buckets {
        device.read_exact_at(&mut bucket, nr * sb.bucket_bytes as u64).unwrap();
        for item in BucketScan::new(format, &bucket) {
            let jset = item.jset.unwrap();
            let seq = jset.header.seq;
            assert_eq!(jset.checksum, Ok(()), "seq {seq}: no image of the collection has a torn entry");
            assert!(!item.after_gap, "a gap before seq {seq}");
            assert_eq!(jset.header.check(), []);
            assert_eq!(check(jset.list(), |_, _| Ok(())), []);
            let at = item.at.to_bytes().unwrap() as usize;
            let sealed = reseal(sb, &jset);
            assert!(sealed == bucket[at..at + sealed.len()], "seq {seq} is rebuilt differently");
            seen.push(jset);
        }
    }
    seen
}

fn roots(list: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let frames = Frames::new(list).map(Result::unwrap).filter(|f| f.header.ty == EntryType::BTREE_ROOT);
    frames.map(|f| (f.header.btree.0, f.header.level, f.payload.to_vec())).collect()
}

/// A clean superblock repeats the last entry of the journal (spec 20 §7.2), which is empty.
fn compare_with_clean((seq, list): &(Seq, Vec<u8>), entries: &[Jset]) {
    assert_eq!(rebuild(list), *list);
    assert_eq!(check(list, |_, _| Ok(())), []);
    let last = entries.iter().find(|j| j.header.seq == *seq).expect("the last entry is in the journal");
    assert!(last.is_empty() && last.header.kind() == JsetKind::Flush { last_seq: *seq });
    assert_eq!(roots(last.list()), roots(list));
    // A newer one may be left by the tools of 1.36 (spec 20 §5.1); it is empty too.
    assert!(entries.iter().all(|j| j.header.seq <= *seq || j.is_empty()));
}

/// How many entries there are on the devices of an image.
fn read_image(image: &GoldenImage) -> usize {
    let mut entries = Vec::new();
    let mut newest: Option<Super> = None;
    for path in image.unpack() {
        let device = File::open(path).unwrap();
        let sb = read_super(image, &device);
        entries.extend(read_journal(&sb, &device));
        // A device that was left out keeps an old superblock (spec 10 §11.2).
        newest = newest.into_iter().chain([sb]).max_by_key(|sb| sb.seq);
    }
    let clean = newest.and_then(|sb| sb.clean);
    if let Some(clean) = clean.filter(|_| image.state != State::Killed) {
        compare_with_clean(&clean, &entries);
    }
    entries.len()
}

#[test]
fn every_entry_is_rebuilt_byte_for_byte() {
    let counts =
        golden::all().iter().map(|image| (image.name.clone(), read_image(image))).collect::<Vec<_>>();
    println!("{counts:?}");
    for (name, count) in counts {
        assert_eq!(count == 0, name == "01-empty-formatted-only", "{name} has {count} entries");
    }
}
