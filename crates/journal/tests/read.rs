//! Reading journals made up for the purpose: every kind of damage the reader knows, one test each, and noise.

#![allow(clippy::unwrap_used)]

use std::ops::Range;

use frazil_device::{Device, MemDevice};
use frazil_journal::read::{self, Fate, Journal, Options, Problem, ReadError, Source};
use frazil_ondisk::bkey::KeyBuf;
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::jset::{EntryType, JsetBuilder, JsetEntry, JsetFormat, JsetKind, Seal, push_keys};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, BtreeId, KeyType};
use proptest::prelude::*;

const MAGIC: u64 = 0x1234_5678_9abc_def0;
const BLOCK: usize = 512;
const BUCKET: Sectors = Sectors(32);
const BUCKETS: [BucketIndex; 4] = [BucketIndex(2), BucketIndex(3), BucketIndex(7), BucketIndex(5)];

/// A volume of one or more devices with a journal, written entry by entry.
struct Volume {
    devices: Vec<MemDevice>,
    blacklist: Vec<Range<Seq>>,
}

fn volume(devices: usize) -> Volume {
    let devices = (0..devices).map(|_| MemDevice::new(8 * BUCKET.0 * SECTOR_BYTES)).collect();
    Volume { devices, blacklist: Vec::new() }
}

fn offset(ring_index: usize, sector: u64) -> u64 {
    (BUCKETS[ring_index].0 * BUCKET.0 + sector) * SECTOR_BYTES
}

/// An entry that sets key `pos` of btree 0 to `seq`.
fn entry(seq: u64, last_seq: Option<u64>, pos: u64) -> Vec<u8> {
    let mut builder = JsetBuilder::new();
    let key = KeyBuf::new(KeyType::COOKIE, Bpos::new(1, pos, 0), 0, seq.to_le_bytes());
    push_keys(builder.out(), EntryType::BTREE_KEYS, BtreeId(0), 0, [key.as_key()]);
    seal(builder, seq, last_seq)
}

fn seal(builder: JsetBuilder, seq: u64, last_seq: Option<u64>) -> Vec<u8> {
    let seal = Seal {
        magic: MAGIC,
        seq: Seq(seq),
        version: Version::WRITE,
        kind: last_seq.map_or(JsetKind::NoFlush, |l| JsetKind::Flush { last_seq: Seq(l) }),
        has_overwrites: false,
        csum_type: ChecksumType::Crc32c,
        key: None,
    };
    builder.finish(&seal, BLOCK).unwrap()
}

impl Volume {
    fn put(&self, dev: usize, ring_index: usize, sector: u64, bytes: &[u8]) {
        self.devices[dev].write_at(offset(ring_index, sector), bytes).unwrap();
    }

    /// Puts one-block entries from `seqs` back to back into a bucket of device 0.
    fn fill(&self, ring_index: usize, seqs: &[(u64, Option<u64>)]) {
        for (at, (seq, last)) in seqs.iter().enumerate() {
            self.put(0, ring_index, at as u64, &entry(*seq, *last, *seq));
        }
    }

    fn damage(&self, dev: usize, ring_index: usize, sector: u64, byte: u64) {
        let at = offset(ring_index, sector) + byte;
        let mut b = [0];
        self.devices[dev].read_at(at, &mut b).unwrap();
        self.devices[dev].write_at(at, &[b[0] ^ 0x40]).unwrap();
    }

    fn sources(&self) -> Vec<Source<'_>> {
        (0..self.devices.len())
            .map(|i| Source {
                dev: DevIndex(i as u8),
                device: &self.devices[i],
                bucket: BUCKET,
                buckets: &BUCKETS,
            })
            .collect()
    }

    fn options(&self, salvage: bool) -> Options<'_> {
        Options {
            format: JsetFormat { magic: MAGIC, block_bytes: BLOCK, key: None },
            version_min: Version::READ_MIN,
            blacklist: &self.blacklist,
            salvage,
        }
    }

    fn read(&self, salvage: bool) -> Result<Journal, ReadError> {
        read::read(&self.sources(), &self.options(salvage))
    }

    fn fatal(&self) -> Problem {
        match self.read(false) {
            Err(ReadError::Damaged(problem)) => *problem,
            other => panic!("expected damage, got {:?}", other.map(|j| j.used.len())),
        }
    }
}

fn used(journal: &Journal) -> Vec<u64> {
    journal.used.iter().map(|u| u.seq.0).collect()
}

const LAST_BYTE_OF_KEY: u64 = 56 + 8 + 47;

/// No number follows it; the volume's mutation test found an overflow.
#[test]
fn the_largest_number_there_is_can_be_read() {
    let v = volume(1);
    v.fill(0, &[(7, Some(7)), (u64::MAX, Some(u64::MAX))]);
    let journal = v.read(false).unwrap();
    assert_eq!(used(&journal), [u64::MAX]);
    assert!(journal.unreliable().is_empty());
}

#[test]
fn replay_covers_the_newest_flush_entrys_range_and_drops_what_follows() {
    let v = volume(1);
    v.fill(1, &[(13, Some(13)), (14, None), (15, Some(14)), (16, None)]);
    v.fill(2, &[(17, Some(15)), (18, None), (19, None)]);
    let journal = v.read(false).unwrap();
    assert_eq!(used(&journal), [15, 16, 17]);
    assert_eq!((journal.last_seq, journal.newest_flush, journal.next_seq), (Seq(15), Seq(17), Seq(20)));
    assert_eq!(journal.unreliable(), Seq(18)..Seq(20));
    assert_eq!(journal.found[&Seq(18)].fate, Fate::NotFlushed);
    assert_eq!(journal.found[&Seq(14)].fate, Fate::Old);
    assert!(journal.problems.is_empty());
    // Where writing goes on: behind the newest entry, wherever it stands in the ring.
    let ring = &journal.rings[0];
    assert_eq!((ring.cur_idx, ring.cur_offset), (2, Sectors(3)));
    assert_eq!(ring.bucket_seq, [0, 16, 19, 0].map(Seq));
}

#[test]
fn a_survey_finds_the_same_without_loading_it() {
    let v = volume(1);
    v.fill(1, &[(13, Some(13)), (14, None), (15, Some(14)), (16, None)]);
    let fates = |found: &std::collections::BTreeMap<Seq, read::Found>| -> Vec<(u64, Fate)> {
        found.iter().map(|(seq, entry)| (seq.0, entry.fate)).collect()
    };
    let survey = read::survey(&v.sources(), &v.options(false)).unwrap();
    assert_eq!(fates(&survey.found), fates(&v.read(false).unwrap().found));
    assert_eq!(survey.range, Ok(Seq(14)..=Seq(15)));
    let copy = survey.found[&Seq(16)].good().unwrap();
    assert_eq!(read::load_copy(&v.sources()[0], &v.options(false), copy).unwrap().header.seq, Seq(16));
    // Damage that ends reading is only reported.
    v.damage(0, 1, 1, LAST_BYTE_OF_KEY);
    assert!(matches!(v.fatal(), Problem::DamagedEntry { seq: Seq(14), .. }));
    let survey = read::survey(&v.sources(), &v.options(false)).unwrap();
    assert_eq!(survey.found[&Seq(14)].fate, Fate::Damaged);
    assert!(survey.problems.iter().any(Problem::is_fatal) && survey.range.is_ok());
    let empty = read::survey(&volume(1).sources(), &v.options(false)).unwrap();
    assert_eq!((empty.found.len(), empty.range), (0, Err(ReadError::Empty)));
}

#[test]
fn the_overlay_has_the_newest_key_of_each_position() {
    let v = volume(1);
    for (at, (seq, pos)) in [(1, 7), (2, 3), (3, 7), (4, 5), (5, 3)].into_iter().enumerate() {
        v.put(0, 1, at as u64, &entry(seq, Some(1), pos));
    }
    let journal = v.read(false).unwrap();
    let level = journal.overlay.level(BtreeId(0), 0);
    let got: Vec<_> = (0..level.len()).map(|i| (level.pos(i).offset, level.seq(i).0)).collect();
    assert_eq!(got, [(3, 5), (5, 4), (7, 3)]);
    assert_eq!(level.get(Bpos::new(1, 7, 0)).unwrap().value, 3u64.to_le_bytes());
    assert_eq!(level.get(Bpos::new(1, 6, 0)), None);
    assert!(journal.overlay.level(BtreeId(0), 1).is_empty());
}

#[test]
fn a_torn_newest_flush_entry_is_excused_and_its_last_seq_is_not_believed() {
    // Spec 20 §5.4: newest flush 41 says 25 and is torn; flush 36 needs 20. The reference drops 20…24 and refuses the mount.
    let v = volume(1);
    v.fill(0, &[(20, Some(20)), (21, None), (22, None), (23, None), (24, None), (25, None)]);
    v.fill(1, &[(36, Some(20)), (37, None), (41, Some(37))]);
    for seq in 26..36 {
        v.put(0, 2, seq - 26, &entry(seq, None, seq));
    }
    for seq in 38..41 {
        v.put(0, 3, seq - 38, &entry(seq, None, seq));
    }
    v.damage(0, 1, 2, LAST_BYTE_OF_KEY);
    let journal = v.read(false).unwrap();
    assert_eq!(used(&journal), (20..=36).collect::<Vec<_>>());
    assert_eq!(journal.found[&Seq(41)].fate, Fate::Torn);
    assert_eq!(journal.next_seq, Seq(42), "a torn entry's number is never used again");
}

#[test]
fn a_second_torn_flush_entry_is_corruption() {
    let v = volume(1);
    v.fill(1, &[(1, Some(1)), (2, Some(1)), (3, Some(1))]);
    v.damage(0, 1, 1, LAST_BYTE_OF_KEY);
    v.damage(0, 1, 2, LAST_BYTE_OF_KEY);
    assert_eq!(v.fatal(), Problem::SecondTornFlush { seq: Seq(2) });
    assert_eq!(used(&v.read(true).unwrap()), [1]);
}

#[test]
fn a_damaged_entry_inside_of_the_range_is_not_replayed() {
    let v = volume(1);
    v.fill(1, &[(1, Some(1)), (2, None), (3, Some(1))]);
    v.damage(0, 1, 1, LAST_BYTE_OF_KEY);
    assert!(matches!(v.fatal(), Problem::DamagedEntry { seq: Seq(2), .. }));
    assert_eq!(used(&v.read(true).unwrap()), [1, 3]);
}

#[test]
fn a_damaged_magic_does_not_hide_the_entries_behind_it() {
    // Spec 20 §5.4: the reference loses 150…153 this way.
    let v = volume(1);
    v.fill(1, &[(1, Some(1)), (2, None), (3, Some(3)), (4, Some(3))]);
    v.damage(0, 1, 1, 17);
    let journal = v.read(false).unwrap();
    assert_eq!(used(&journal), [3, 4]);
    assert!(journal.found[&Seq(3)].copies[0].after_gap);
}

#[test]
fn another_copy_replaces_a_damaged_one() {
    let v = volume(2);
    for dev in 0..2 {
        v.put(dev, 1, 0, &entry(1, Some(1), 1));
        v.put(dev, 1, 1, &entry(2, Some(1), 2));
    }
    v.damage(0, 1, 1, LAST_BYTE_OF_KEY);
    let journal = v.read(false).unwrap();
    assert_eq!(used(&journal), [1, 2]);
    assert!(matches!(journal.problems[..], [Problem::BadCopy { seq: Seq(2), .. }]));
    assert_eq!(journal.used[0].devices, [DevIndex(0), DevIndex(1)]);
}

#[test]
fn two_good_contents_of_one_number_are_corruption() {
    let v = volume(2);
    v.put(0, 1, 0, &entry(1, Some(1), 1));
    v.put(1, 1, 0, &entry(1, Some(1), 9));
    assert!(matches!(v.fatal(), Problem::CopiesDiffer { seq: Seq(1), .. }));
}

#[test]
fn the_same_entry_twice_on_one_device_is_reported() {
    let v = volume(1);
    v.put(0, 1, 0, &entry(1, Some(1), 1));
    v.put(0, 2, 0, &entry(1, Some(1), 1));
    let journal = v.read(false).unwrap();
    assert_eq!(journal.problems, [Problem::TwiceOnOneDevice { seq: Seq(1), dev: DevIndex(0) }]);
}

#[test]
fn entries_spread_over_devices_complete_each_other() {
    let v = volume(2);
    v.put(0, 1, 0, &entry(1, Some(1), 1));
    v.put(1, 1, 0, &entry(2, None, 2));
    v.put(0, 1, 1, &entry(3, Some(1), 3));
    assert_eq!(used(&v.read(false).unwrap()), [1, 2, 3]);
}

#[test]
fn missing_entries_are_named_unless_blacklisted() {
    let mut v = volume(1);
    v.fill(1, &[(1, Some(1)), (2, None), (9, Some(1))]);
    assert_eq!(v.fatal(), Problem::Missing { missing: Seq(3)..=Seq(8) });
    v.blacklist = vec![Seq(4)..Seq(9)];
    assert_eq!(v.fatal(), Problem::Missing { missing: Seq(3)..=Seq(3) });
    v.blacklist = vec![Seq(3)..Seq(5), Seq(5)..Seq(9)];
    assert_eq!(used(&v.read(false).unwrap()), [1, 2, 9]);
}

#[test]
fn blacklisted_entries_are_ignored() {
    let mut v = volume(1);
    v.fill(1, &[(1, Some(1)), (5, Some(1)), (6, None)]);
    v.blacklist = vec![Seq(2)..Seq(6)];
    let journal = v.read(false).unwrap();
    assert_eq!(used(&journal), [1]);
    assert_eq!(journal.found[&Seq(5)].fate, Fate::Blacklisted);
    assert_eq!(journal.next_seq, Seq(7));
}

#[test]
fn without_a_flush_entry_only_salvage_goes_on() {
    let v = volume(1);
    v.fill(1, &[(1, None), (2, None)]);
    assert_eq!(v.fatal(), Problem::NoFlushEntry { seq: Seq(2) });
    assert_eq!(used(&v.read(true).unwrap()), [2]);
}

#[test]
fn an_empty_journal_is_an_error() {
    assert_eq!(volume(1).read(true).unwrap_err(), ReadError::Empty);
}

#[test]
fn a_journal_of_torn_entries_only_is_an_error() {
    let v = volume(1);
    v.fill(1, &[(1, Some(1))]);
    v.damage(0, 1, 0, LAST_BYTE_OF_KEY);
    assert_eq!(v.read(true).unwrap_err(), ReadError::AllDamaged);
}

#[test]
fn a_rewind_is_refused() {
    let v = volume(1);
    let mut builder = JsetBuilder::new();
    JsetEntry::Rewind { from: Seq(4), to: Seq(2) }.encode(builder.out());
    v.put(0, 1, 0, &seal(builder, 5, Some(5)));
    assert_eq!(v.read(false).unwrap_err(), ReadError::Rewind { seq: Seq(5) });
}

#[test]
fn the_early_pass_takes_the_last_of_each() {
    let v = volume(1);
    let root =
        |v: u64| KeyBuf::new(KeyType::BTREE_PTR_V2, Bpos::MAX, 0, [v, v].map(u64::to_le_bytes).concat());
    for (at, seq) in [(0, 1), (1, 2)] {
        let mut builder = JsetBuilder::new();
        let key = root(seq);
        JsetEntry::BtreeRoot { btree: BtreeId(3), level: seq as u8, key: Some(key.as_key()) }
            .encode(builder.out());
        JsetEntry::Clock { write: true, time: Sectors(100 * seq) }.encode(builder.out());
        JsetEntry::BlacklistV2 { start: Seq(65), end: Seq(75) }.encode(builder.out());
        v.put(0, 1, at, &seal(builder, seq, Some(1)));
    }
    let early = v.read(false).unwrap().early;
    assert_eq!(early.roots[&BtreeId(3)].level, 2);
    let value = &early.roots[&BtreeId(3)].key.as_ref().unwrap().value;
    assert_eq!(value[8..], 2u64.to_le_bytes());
    assert_eq!(value[..8], [0; 8], "somebody's memory address is cleared");
    assert_eq!(early.write_clock, Sectors(200));
    assert_eq!(early.blacklist[0], Seq(65)..Seq(76));
}

#[test]
fn buckets_outside_of_the_device_contribute_nothing() {
    let v = volume(1);
    v.fill(1, &[(1, Some(1))]);
    v.devices[0].set_size(offset(1, 0) + BUCKET.0 * SECTOR_BYTES);
    let journal = v.read(false).unwrap();
    assert_eq!(used(&journal), [1]);
    assert_eq!(journal.problems.len(), 2, "buckets 7 and 5 are gone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any bytes over a real journal: an answer or an error, never a panic, and never an entry nobody wrote.
    #[test]
    fn noise_is_survived(
        hits in proptest::collection::vec((0usize..4, 0u64..32 * 512, any::<u8>()), 0..40),
        salvage: bool,
    ) {
        let v = volume(1);
        v.fill(1, &[(1, Some(1)), (2, None), (3, Some(1)), (4, Some(2))]);
        v.fill(2, &[(5, None), (6, Some(3)), (7, None)]);
        for (bucket, at, byte) in hits {
            v.devices[0].write_at(offset(bucket, 0) + at, &[byte]).unwrap();
        }
        if let Ok(journal) = v.read(salvage) {
            for entry in &journal.used {
                prop_assert!((1..=7).contains(&entry.seq.0));
            }
            let level = journal.overlay.level(BtreeId(0), 0);
            for key in level.iter() {
                prop_assert_eq!(key.value, key.k.pos.offset.to_le_bytes());
            }
        }
    }
}
