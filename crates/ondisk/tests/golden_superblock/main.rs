//! Superblocks of real images: every copy on every device decodes, keeps every rule, is encoded to the same bytes, and
//! says what the reference implementation says about it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod facts;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use frazil_ondisk::bytes::Reader;
use frazil_ondisk::superblock::access::{Access, ReadOnlyReason};
use frazil_ondisk::superblock::assembly::{Verdict, assemble};
use frazil_ondisk::superblock::describe::describe;
use frazil_ondisk::superblock::layout::{LAYOUT_BYTES, LAYOUT_SECTOR, Layout, SUPERBLOCK_SECTOR};
use frazil_ondisk::superblock::sections::{Downgrade, JournalSeqBlacklist};
use frazil_ondisk::superblock::{Superblock, copies, superblock_bytes};
use frazil_ondisk::units::{DevIndex, SECTOR_BYTES, Sectors};
use frazil_ondisk::version::Version;
use frazil_ondisk::{DecodeError, Result};
use frazil_testing::golden::{self, GoldenImage};
use proptest::prelude::*;

/// A device file of an image.
struct Dev(File);

impl Dev {
    fn read(&self, sector: Sectors, bytes: usize) -> Vec<u8> {
        let mut buf = vec![0; bytes];
        self.0.read_exact_at(&mut buf, sector.0 * SECTOR_BYTES).unwrap();
        buf
    }

    /// The bytes of the superblock copy at a sector.
    fn copy(&self, sector: Sectors) -> Result<Vec<u8>> {
        Ok(self.read(sector, superblock_bytes(&self.read(sector, 1024))?))
    }

    fn layout(&self) -> Result<Layout> {
        Layout::decode(&mut Reader::new("layout", &self.read(LAYOUT_SECTOR, LAYOUT_BYTES)))
    }

    fn superblock(&self) -> Superblock {
        copies::find(|s| Superblock::decode(&self.copy(s)?), || self.layout()).unwrap()
    }
}

fn devices(image: &GoldenImage) -> Vec<Dev> {
    image.unpack().iter().map(|path: &PathBuf| Dev(File::open(path).unwrap())).collect()
}

/// Calls `check` with every device of every image at hand; returns how many there were.
fn for_each_device(mut check: impl FnMut(&GoldenImage, usize, &Dev)) -> usize {
    let mut count = 0;
    for image in golden::all() {
        for (i, dev) in devices(&image).iter().enumerate() {
            check(&image, i, dev);
            count += 1;
        }
    }
    assert!(count > 10, "only {count} devices");
    count
}

#[test]
fn every_copy_is_encoded_to_the_same_bytes() {
    for_each_device(|image, i, dev| {
        let layout = dev.layout().unwrap();
        layout.validate().unwrap();
        for sector in layout.copies() {
            let bytes = dev.copy(sector).unwrap();
            let sb =
                Superblock::decode(&bytes).unwrap_or_else(|e| panic!("{} {i} {sector}: {e}", image.name));
            assert_eq!((sb.offset, &sb.layout), (sector, &layout));
            assert_eq!(sb.encode_copy(sector).unwrap(), bytes, "{} {i} {sector}", image.name);
        }
    });
}

#[test]
fn every_section_is_encoded_to_the_same_bytes() {
    let mut sections = 0;
    for_each_device(|image, i, dev| {
        for raw in dev.superblock().sections.iter() {
            let mut again = raw.decode().unwrap().encode().payload().to_vec();
            // A list shorter than its section is followed by zeros.
            assert!(again.len() <= raw.payload().len());
            again.resize(raw.payload().len(), 0);
            assert_eq!(again, raw.payload(), "{} {i}: {}", image.name, raw.ty);
            assert!(raw.ty.name().is_some(), "{} {i}: {}", image.name, raw.ty);
            sections += 1;
        }
    });
    assert!(sections > 100, "only {sections} sections");
}

#[test]
fn every_rule_is_kept_and_access_follows_the_version() {
    for_each_device(|image, i, dev| {
        let mut sb = dev.superblock();
        sb.fill_defaults();
        sb.validate().unwrap_or_else(|e| panic!("{} {i}: {e}", image.name));
        let version = Version::new(image.version.major as u16, image.version.minor as u16);
        assert_eq!(sb.version, version, "{}", image.name);
        match sb.access().unwrap() {
            Access::ReadWrite => assert_eq!(version, Version::WRITE),
            Access::ReadOnly(why) => assert!(why.contains(&ReadOnlyReason::NewerVersion(version)), "{why:?}"),
        }
    });
}

#[test]
fn the_reference_says_the_same() {
    let mut compared = 0;
    let devices = for_each_device(|image, i, dev| {
        let name =
            if image.devices.len() == 1 { "show-super".to_owned() } else { format!("show-super.dev{i}") };
        let text = image.reference(&name).unwrap_or_else(|| panic!("{}: no {name}", image.name));
        let mut sb = dev.superblock();
        sb.fill_defaults();
        compared += facts::compare(&format!("{} {i}", image.name), &sb, &text);
    });
    assert!(compared > 60 * devices, "only {compared} facts about {devices} devices");
}

#[test]
fn a_lost_primary_copy_is_replaced() {
    let dev = &devices(&golden::image("02-small-tree"))[0];
    let read = |sector: Sectors| {
        if sector == SUPERBLOCK_SECTOR {
            return Err(DecodeError::invalid("superblock", "zeroed"));
        }
        Superblock::decode(&dev.copy(sector)?)
    };
    let found = copies::find(read, || dev.layout()).unwrap();
    assert_eq!(found.offset, Sectors(2056));
    assert_eq!(found.sections, dev.superblock().sections);
}

#[test]
fn devices_are_put_together() {
    for image in golden::all().iter().filter(|image| image.devices.len() > 1) {
        let all: Vec<Superblock> = devices(image).iter().map(Dev::superblock).collect();
        let assembly = assemble(&all, false).unwrap();
        for (sb, verdict) in all.iter().zip(&assembly.verdicts) {
            let stale = sb.seq < all[assembly.newest].seq;
            assert_eq!(*verdict, Verdict::Member { stale }, "{} {}", image.name, sb.dev_idx);
        }
        assert!(all.iter().map(|sb| sb.dev_idx.0).eq(0..all.len() as u8));
        // Bringing the shared content to the other devices changes nothing but the stale ones.
        for sb in all.iter().filter(|sb| sb.seq == all[assembly.newest].seq) {
            let merged = sb.with_shared_from(&all[assembly.newest]);
            assert_eq!(merged.encode_copy(sb.offset).unwrap(), sb.encode_copy(sb.offset).unwrap());
        }
    }
    let degraded = golden::image("09-multi-degraded");
    let all: Vec<Superblock> = devices(&degraded).iter().map(Dev::superblock).collect();
    let assembly = assemble(&all, false).unwrap();
    assert_eq!((assembly.newest, &assembly.verdicts[1]), (0, &Verdict::Member { stale: true }));
    assert_eq!(all[0].members().unwrap().get(DevIndex(1)).map(|m| m.seq), Some(all[1].seq));
}

#[test]
fn what_1_13_leaves_for_older_programs() {
    for_each_device(|image, _, dev| {
        let sb = dev.superblock();
        if sb.version == Version::WRITE && sb.flags.initialized() {
            assert_eq!(
                sb.sections.get::<Downgrade>().unwrap(),
                Some(Downgrade::of_1_13(false)),
                "{}",
                image.name
            );
        }
    });
}

#[test]
fn blacklists_of_recovered_images_end_below_the_next_entry() {
    let mut seen = 0;
    for_each_device(|image, _, dev| {
        let sb = dev.superblock();
        if let Some(list) = sb.sections.get::<JournalSeqBlacklist>().unwrap() {
            let range = list.ranges().first().unwrap();
            assert!(list.contains(range.start) && !list.contains(range.end), "{}", image.name);
            seen += 1;
        }
    });
    assert!(seen > 0, "no image has a blacklist");
}

/// Bytes of superblocks of every kind: with labels, encryption, quotas, a blacklist, and of newer versions.
fn varied() -> Vec<Vec<u8>> {
    let names = ["08-crash-encrypted", "08-crash-twice", "09-multi-tiered", "14-usrquota"];
    let newer = golden::all().into_iter().filter(|image| image.version.minor > 13);
    let images = names.map(golden::image).into_iter().chain(newer);
    images.map(|image| devices(&image)[0].copy(SUPERBLOCK_SECTOR).unwrap()).collect()
}

proptest! {
    /// Damage behind a checksum that matches: an error or a value, never a panic; and what is accepted is encoded as it was.
    #[test]
    fn damaged_superblocks_are_harmless(
        which: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        static VARIED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(varied);
        let mut bytes = which.get(&VARIED).clone();
        for (at, value) in damage {
            *at.get_mut(&mut bytes) = value;
        }
        bytes[..16].fill(0);
        bytes[144] &= 3;
        let Ok(sb) = Superblock::decode(&bytes) else { return Ok(()) };
        prop_assert_eq!(&sb.encode_copy(sb.offset).unwrap(), &bytes[..sb.size()]);
        let _ = (sb.validate(), sb.access(), describe(&sb));
        for section in sb.sections.iter().filter_map(|raw| raw.decode().ok()) {
            prop_assert_eq!(section.encode().decode(), Ok(section));
        }
    }
}
