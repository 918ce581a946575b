//! The journals of real volumes, read here and by the reference.
//!
//! Of every golden image: which entries are replayed (the reference says so when it recovers a copy), and what every entry
//! of its listing holds. Clean images end with an empty entry that agrees with the superblock's clean section.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use frazil_device::{Device, MemDevice};
use frazil_journal::read::{self, Early, Journal, Options, Source};
use frazil_ondisk::crypto::{Crypt, Key};
use frazil_ondisk::jset::{EntryType, Frames, JsetFormat, Keys, jset_magic};
use frazil_ondisk::superblock::sections::{Clean, JournalSeqBlacklist};
use frazil_ondisk::superblock::{Superblock, superblock_bytes};
use frazil_ondisk::units::{BucketIndex, DevIndex, SECTOR_BYTES, Sectors, Seq};
use frazil_testing::golden::{self, GoldenImage, State};

struct Volume {
    devices: Vec<(MemDevice, Superblock, Vec<BucketIndex>)>,
    key: Option<Key>,
}

fn superblock(device: &MemDevice) -> Superblock {
    let mut first = vec![0; 4096];
    device.read_at(8 * SECTOR_BYTES, &mut first).unwrap();
    let mut bytes = vec![0; superblock_bytes(&first).unwrap()];
    device.read_at(8 * SECTOR_BYTES, &mut bytes).unwrap();
    Superblock::decode(&bytes).unwrap()
}

fn open(image: &GoldenImage) -> Volume {
    let open = |path: &std::path::PathBuf| {
        let device = MemDevice::from_file(path).unwrap();
        let sb = superblock(&device);
        let ring = sb.journal_buckets().unwrap().buckets().collect();
        (device, sb, ring)
    };
    let devices: Vec<_> = image.unpack().iter().map(open).collect();
    let sb = &devices[0].1;
    let crypt = sb.sections.get::<Crypt>().unwrap();
    let key = crypt.map(|c| c.unlock(image.passphrase_bytes(), &sb.uuid).unwrap());
    Volume { devices, key }
}

impl Volume {
    fn sources(&self) -> Vec<Source<'_>> {
        self.devices
            .iter()
            .map(|(device, sb, ring)| Source {
                dev: sb.dev_idx,
                device,
                bucket: sb.own_member().unwrap().bucket_size(),
                buckets: ring,
            })
            .collect()
    }

    fn with_options<T>(&self, go: impl FnOnce(&Options<'_>) -> T) -> T {
        let sb = &self.devices[0].1;
        let blacklist = sb.sections.get::<JournalSeqBlacklist>().unwrap().unwrap_or_default();
        go(&Options {
            format: JsetFormat {
                magic: jset_magic(&sb.uuid),
                block_bytes: sb.block_bytes() as usize,
                key: self.key.as_ref(),
            },
            version_min: sb.version_min,
            blacklist: blacklist.ranges(),
            salvage: false,
        })
    }

    fn read(&self) -> Result<Journal, read::ReadError> {
        self.with_options(|o| read::read(&self.sources(), o))
    }
}

/// `replaying entries 102-114` in one of the reference's texts.
fn replayed_by_reference(image: &GoldenImage) -> Option<(u64, u64)> {
    let texts = ["recovery-dmesg", "fsck"].map(|t| image.reference(t).unwrap_or_default());
    let rest = texts.iter().find_map(|t| t.split_once("replaying entries "))?.1;
    let range = rest.split(|c: char| !c.is_ascii_digit() && c != '-').next()?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[test]
fn unclean_journals_replay_what_the_reference_replays() {
    let unclean: Vec<_> = golden::all().into_iter().filter(|i| i.state == State::Killed).collect();
    assert!(unclean.len() >= 8, "{} unclean images", unclean.len());
    for image in unclean {
        let journal = open(&image).read().unwrap_or_else(|e| panic!("{}: {e}", image.name));
        let ours = (journal.last_seq.0, journal.newest_flush.0);
        assert_eq!(Some(ours), replayed_by_reference(&image), "{}", image.name);
        assert_eq!(journal.problems, [], "{}", image.name);
        assert!(!journal.overlay.is_empty() && journal.overlay.deltas().len() > 0, "{}", image.name);
        let counted = image.reference("fsck").and_then(|t| keys_counted_by_reference(&t));
        if let Some((_, compacted)) = counted {
            let levels =
                journal.overlay.levels().map(|(b, l)| journal.overlay.level(b, l).len()).sum::<usize>();
            assert_eq!(levels + journal.overlay.deltas().len(), compacted, "{}", image.name);
        }
    }
}

/// `Journal keys: 188 read, 149 after sorting and compacting`
fn keys_counted_by_reference(text: &str) -> Option<(usize, usize)> {
    let (_, rest) = text.split_once("Journal keys: ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[test]
fn clean_journals_end_with_the_entry_the_superblock_names() {
    let mut seen = 0;
    for image in golden::all().into_iter().filter(|i| i.state != State::Killed) {
        let volume = open(&image);
        let Some(clean) = volume.devices[0].1.sections.get::<Clean>().unwrap() else { continue };
        let journal = volume.read().unwrap_or_else(|e| panic!("{}: {e}", image.name));
        // Programs from 1.36 on may write one more empty entry after the one they name (spec 80 §6.2).
        let beyond = u64::from(image.version.minor >= 36 && journal.newest_flush > clean.journal_seq);
        assert_eq!(journal.newest_flush.0, clean.journal_seq.0 + beyond, "{}", image.name);
        let last = journal.used.last().unwrap();
        assert!(last.jset().is_empty(), "{}", image.name);
        let mut from_section = Early::default();
        from_section.apply(&clean.entries);
        let mut from_entry = Early::default();
        from_entry.apply(last.jset().list());
        assert_eq!(from_entry.roots, from_section.roots, "{}", image.name);
        seen += 1;
    }
    assert!(seen >= 30, "{seen} clean images");
}

/// An entry as the reference lists it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    last_seq: u64,
    flush: bool,
    sectors: Vec<u64>,
    /// Sub-entries by name.
    kinds: BTreeMap<String, usize>,
}

const KINDS: [&str; 9] = [
    "btree_keys",
    "btree_root",
    "overwrite",
    "datetime",
    "clock",
    "log",
    "usage",
    "log_bkey",
    "rewind_limit",
];

/// The entries that a listing shows whole. It may be cut off in front, so what precedes the first header does not count.
fn listed(text: &str) -> BTreeMap<u64, Listed> {
    let mut out: BTreeMap<u64, Listed> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or("");
        if line.starts_with("journal entry") {
            current = words.next_back().and_then(|n| n.parse().ok());
            out.entry(current.unwrap()).or_default();
            continue;
        }
        let Some(entry) = current.and_then(|seq| out.get_mut(&seq)) else { continue };
        let number = words.next_back().and_then(|n| n.parse::<u64>().ok());
        match first {
            "last" if line.starts_with("  last seq") => entry.last_seq = number.unwrap(),
            "flush" if line.starts_with("  flush ") => entry.flush = number == Some(1),
            "written" => {
                let sector = |s: &str| s.split(')').next().unwrap().parse::<u64>().unwrap();
                entry.sectors = line.split("(sector ").skip(1).map(sector).collect();
            }
            _ => {
                // A line without anything else is padding.
                let padding = line.trim() == "btree_keys:";
                let kind = first.strip_suffix(':').filter(|k| KINDS.contains(k) && !padding);
                let indented = line.starts_with("    ") && !line.starts_with("     ")
                    || line.starts_with("  ") && !line.starts_with("   ");
                if let Some(kind) = kind.filter(|_| indented) {
                    *entry.kinds.entry(kind.to_owned()).or_default() += 1;
                }
            }
        }
    }
    out
}

#[test]
fn every_listed_entry_is_found_with_the_same_content() {
    let (mut images, mut entries) = (0, 0);
    for image in golden::all() {
        let listing = image.reference("list_journal").map(|t| listed(&t)).unwrap_or_default();
        if listing.is_empty() {
            continue;
        }
        let volume = open(&image);
        let journal = volume.read().unwrap_or_else(|e| panic!("{}: {e}", image.name));
        for (seq, listed) in listing {
            let found =
                journal.found.get(&Seq(seq)).unwrap_or_else(|| panic!("{}: no entry {seq}", image.name));
            let ours = describe(&volume, found, image.version.minor > 13);
            assert_eq!(ours, listed, "{} entry {seq}", image.name);
            entries += 1;
        }
        images += 1;
    }
    assert!(images >= 20 && entries >= 100, "{entries} entries of {images} images");
}

fn describe(volume: &Volume, found: &read::Found, line_per_key: bool) -> Listed {
    let header = found.header();
    let copy = found.good().unwrap();
    let sources = volume.sources();
    let source = sources.iter().find(|s| s.dev == copy.location.dev).unwrap();
    let jset = volume.with_options(|o| read::load_copy(source, o, copy)).unwrap();
    let mut kinds = BTreeMap::new();
    for frame in Frames::new(jset.list()).map(Result::unwrap).filter(|f| !f.is_padding()) {
        // Later programs list each key by itself.
        let by_key = line_per_key && frame.header.ty == EntryType::BTREE_KEYS;
        let lines = if by_key { Keys::new(frame.payload).count() } else { 1 };
        *kinds.entry(frame.header.ty.to_string()).or_default() += lines;
    }
    let mut copies: Vec<(DevIndex, Sectors)> =
        found.copies.iter().map(|c| (c.location.dev, c.location.sector)).collect();
    copies.sort();
    Listed {
        last_seq: if found.is_flush() { header.last_seq.0 } else { 0 },
        flush: found.is_flush(),
        sectors: copies.into_iter().map(|(_, s)| s.0).collect(),
        kinds,
    }
}
