//! Every golden image, read through the library, against its manifest.
//!
//! The whole tree is walked and every field compared: attributes, contents, link targets, extended attributes, options, holes,
//! device numbers, times. For images that were not shut down the constraints of the manifest must hold.

mod observe;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use frazil_device::{Access, Device, MemDevice, OpenOptions as DeviceOptions};
use frazil_ondisk::superblock::assembly::Degraded;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::quota::Quota;
use frazil_ondisk::{Bpos, BtreeId};
use frazil_posix::{Attr, Error, FileType, Fs, NodeId, Visit, WalkStep};
use frazil_testing::compare::Comparison;
use frazil_testing::golden::{self, GoldenImage, State};
use frazil_testing::manifest::Manifest;
use frazil_volume::{OpenError, OpenOptions, Passphrase, Recovery, Volume, open};
use zeroize::Zeroizing;

use observe::{at_path, content, observe_all};

fn file(path: &Path) -> Arc<dyn Device> {
    Arc::new(DeviceOptions::new(Access::ReadOnly).open(path).expect("golden images can be opened"))
}

fn files(image: &GoldenImage) -> Vec<Arc<dyn Device>> {
    image.unpack().iter().map(|path| file(path)).collect()
}

fn open_with(
    image: &GoldenImage,
    devices: Vec<Arc<dyn Device>>,
    degraded: Degraded,
) -> Result<Volume, OpenError> {
    let passphrase = image.passphrase_bytes().map(<[u8]>::to_vec);
    let mut ask = |_: &str| Ok(Zeroizing::new(passphrase.clone().expect("only encrypted images ask")));
    open(devices, OpenOptions { degraded, passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() })
}

fn mount(image: &GoldenImage) -> Fs {
    let volume =
        open_with(image, files(image), Degraded::No).unwrap_or_else(|e| panic!("{}: {e}", image.name));
    Fs::new(Arc::new(volume))
}

/// Every difference between an image and its manifest.
fn differences(image: &GoldenImage, fs: &Fs) -> Vec<String> {
    differences_from(image.manifest(), fs)
}

/// Every difference between a volume and a manifest.
fn differences_from(mut manifest: Manifest, fs: &Fs) -> Vec<String> {
    let mut found = Vec::new();
    let seen = observe_all(fs, &mut found);
    if matches!(fs.volume().recovery(), Recovery::NeverStarted) {
        // The driver made its directories when it started a copy.
        for entry in &mut manifest.entries {
            (entry.mtime_ns, entry.ctime_ns, entry.atime_ns) = (None, None, None);
        }
    }
    let read = |path: &[u8]| at_path(fs, path).and_then(|attr| content(fs, &attr)).map_err(|e| e.to_string());
    found.extend(Comparison::new(&manifest).run(seen, read));
    found
}

/// Fails with the differences of all images, a few of each.
fn assert_none(differences: Vec<(String, Vec<String>)>) {
    let mut failures = Vec::new();
    for (what, found) in differences.into_iter().filter(|(_, found)| !found.is_empty()) {
        let shown = found.iter().take(20).cloned().collect::<Vec<_>>().join("\n    ");
        failures.push(format!("{what}: {} differences\n    {shown}", found.len()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_image_equals_its_manifest() {
    assert_none(
        golden::all().iter().map(|image| (image.name.clone(), differences(image, &mount(image)))).collect(),
    );
}

/// The Linux driver recovered a copy of each image that it had not unmounted; what it then showed is what is seen here without
/// recovery.
#[test]
fn killed_images_look_as_the_driver_recovered_them() {
    let mut found = Vec::new();
    for image in golden::all() {
        let Some(mut manifest) = image.recovered_manifest() else { continue };
        manifest.header.clean = true;
        for entry in &mut manifest.entries {
            // Listing and reading a copy changed them.
            entry.atime_ns = None;
            if image.name == "08-crash-shift" {
                // Finishing the shift, the driver set them to the time of the recovery.
                (entry.mtime_ns, entry.ctime_ns) = (None, None);
            }
        }
        found.push((image.name.clone(), differences_from(manifest, &mount(&image))));
    }
    assert!(found.len() >= 10, "only {} images were recovered", found.len());
    assert_none(found);
}

/// An image without one of its devices.
fn open_without(image: &GoldenImage, missing: usize, degraded: Degraded) -> Result<Fs, OpenError> {
    let mut devices = files(image);
    devices.remove(missing);
    open_with(image, devices, degraded).map(|volume| Fs::new(Arc::new(volume)))
}

/// Images of several devices, each without one of them. Without its first device this one shows what it held when the second
/// was taken out, long before the manifest.
fn incomplete() -> impl Iterator<Item = (GoldenImage, usize)> {
    let several = golden::all().into_iter().filter(|image| image.devices.len() > 1);
    let each =
        several.flat_map(|image| (0..image.devices.len()).map(move |missing| (image.clone(), missing)));
    each.filter(|(image, missing)| (image.name.as_str(), *missing) != ("09-multi-degraded", 0))
}

/// When a volume opens without a device, it has everything.
#[test]
fn what_a_missing_device_held_is_had_from_the_others() {
    let mut found = Vec::new();
    for (image, missing) in incomplete() {
        let what = format!("{} without device {missing}", image.name);
        if let Ok(fs) = open_without(&image, missing, Degraded::Yes) {
            found.push((what, differences(&image, &fs)));
        }
    }
    // Every device of the replicated image, all but one of the erasure-coded one.
    assert!(found.len() >= 6, "{} images are whole without a device", found.len());
    assert_none(found);
}

/// When only a part can be read, that part is true, and the rest is an error.
#[test]
fn what_cannot_be_had_is_an_error() {
    let (mut read, mut failed) = (0, 0);
    for (image, missing) in incomplete() {
        if open_without(&image, missing, Degraded::Yes).is_ok() {
            continue;
        }
        // Without the roots of its b-trees nothing can be read.
        let Ok(fs) = open_without(&image, missing, Degraded::Very) else { continue };
        let mut failures = Vec::new();
        let seen = observe_all(&fs, &mut failures);
        read += seen.len();
        failed += failures.len();
        let found = Comparison::new(&image.manifest()).run(seen, |_| Err("not asked".to_owned()));
        let wrong: Vec<_> = found.iter().filter(|line| !line.ends_with("is missing")).collect();
        assert!(wrong.is_empty(), "{} without device {missing}: {wrong:#?}", image.name);
        assert!(found.is_empty() || !failures.is_empty(), "{} without device {missing}", image.name);
    }
    assert!(read > 700 && failed > 100, "{read} read, {failed} failed");
}

/// Devices in memory can be written. Nobody does.
#[test]
fn reading_everything_writes_nothing() {
    for image in golden::all().iter().filter(|image| image.state != State::Clean) {
        let devices: Vec<MemDevice> =
            image.bytes().iter().map(|bytes| MemDevice::from_bytes(bytes)).collect();
        let shared = devices.iter().map(|device| Arc::new(device.snapshot()) as Arc<dyn Device>);
        let opened: Vec<Arc<dyn Device>> = shared.collect();
        let fs = Fs::new(Arc::new(open_with(image, opened.clone(), Degraded::No).expect("opens")));
        observe_all(&fs, &mut Vec::new());
        for (before, after) in devices.iter().zip(opened) {
            let mut bytes = vec![0; after.size_bytes() as usize];
            after.read_at(0, &mut bytes).expect("memory can be read");
            assert!(before.to_vec() == bytes, "{}: {} was changed", image.name, after.name());
        }
    }
}

/// The same directory, listed every way there is.
#[test]
fn listings_lookups_and_paths_agree() {
    let mut directories = 0;
    let mut names = 0;
    for image in golden::all() {
        let fs = mount(&image);
        fs.walk(fs.root(), &mut |path, visit| {
            if let Visit::Object(attr) = visit
                && attr.kind == FileType::Directory
            {
                directories += 1;
                names += check_directory(&fs, path, attr);
            }
            WalkStep::Continue
        });
    }
    assert!(directories > 300 && names > 20_000, "{directories} directories, {names} names");
}

/// A listed entry, to keep.
type Listed = (Vec<u8>, NodeId, FileType, u64);

fn list(fs: &Fs, dir: NodeId, from: u64, max: usize) -> Vec<Listed> {
    let mut listed = Vec::new();
    fs.readdir(dir, from, &mut |entry| {
        listed.push((entry.name.to_vec(), entry.node, entry.kind, entry.next));
        if listed.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .expect("golden directories can be listed");
    listed
}

/// Checks one directory and returns how many names it has.
fn check_directory(fs: &Fs, path: &[u8], dir: &Attr) -> usize {
    let all = list(fs, dir.node, 0, usize::MAX);
    assert!(all.iter().all(|entry| entry.3 > 2 && i64::try_from(entry.3).is_ok()));
    assert!(all.windows(2).all(|pair| pair[0].3 < pair[1].3), "positions ascend");

    // In small pieces.
    let mut again: Vec<Listed> = Vec::new();
    loop {
        let piece = list(fs, dir.node, again.last().map_or(0, |entry| entry.3), 7);
        if piece.is_empty() {
            break;
        }
        again.extend(piece);
    }
    assert_eq!(again, all);

    // With attributes, which lookup and getattr must confirm.
    let mut plus = Vec::new();
    fs.readdir_plus(dir.node, 0, &mut |entry, attr| {
        let attr = attr.expect("golden inodes can be read");
        assert_eq!(fs.lookup(dir.node, entry.name).as_ref().ok(), Some(attr));
        assert_eq!(fs.getattr(entry.node).as_ref().ok(), Some(attr));
        assert_eq!(attr.kind, entry.kind);
        plus.push((entry.name.to_vec(), entry.node, entry.kind, entry.next));
        ControlFlow::Continue(())
    })
    .expect("golden directories can be listed");
    assert_eq!(plus, all);

    for (name, node, kind, _) in &all {
        let mut full = b"/".to_vec();
        full.extend_from_slice(path);
        if !path.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(name);
        if *kind == FileType::Directory {
            assert_eq!(fs.parent(*node).ok(), Some(dir.node), "{}", full.escape_ascii());
            assert_eq!(fs.path_of(*node), full);
            assert_eq!(fs.lookup(*node, b"..").map(|attr| attr.node).ok(), Some(dir.node));
        }
        let absent = [name, &b"~"[..]].concat();
        if !all.iter().any(|entry| entry.0 == absent) && name.len() < 255 {
            assert!(matches!(fs.lookup(dir.node, &absent), Err(Error::NotFound)));
        }
    }
    all.len()
}

/// Names of casefolding directories are found in every spelling that folds alike.
#[test]
fn casefolding_directories_ignore_case() {
    let mut found = 0;
    for name in ["18-newer-1.28-casefold-lz4", "18-newer-1.39-casefold"] {
        let fs = mount(&golden::image(name));
        fs.walk(fs.root(), &mut |_, visit| {
            if let Visit::Object(dir) = visit
                && dir.kind == FileType::Directory
            {
                for (name, node, ..) in list(&fs, dir.node, 0, usize::MAX) {
                    let Ok(name) = String::from_utf8(name) else { continue };
                    for other in [name.to_uppercase(), name.to_lowercase(), format!("{name}\u{200d}")] {
                        let attr = fs.lookup(dir.node, other.as_bytes());
                        assert_eq!(attr.map(|attr| attr.node).ok(), Some(node), "{name} as {other}");
                        found += 1;
                    }
                }
            }
            WalkStep::Continue
        });
        assert!(matches!(fs.lookup(fs.root(), b"\xff"), Err(Error::Invalid(_))));
    }
    assert!(found > 100, "{found}");
}

/// The whole chain of subvolumes and snapshots of an image made for them.
#[test]
fn subvolumes_are_listed_where_they_are() {
    let fs = mount(&golden::image("10-snapshots"));
    let subvolumes = fs.subvolumes().expect("the b-tree can be read");
    assert!(subvolumes.len() > 3);
    assert_eq!(subvolumes[0].path, b"/");
    for subvolume in &subvolumes {
        let attr = at_path(&fs, &subvolume.path).expect("its path leads to it");
        assert_eq!(attr.node, subvolume.root);
    }
    assert!(subvolumes.iter().any(|s| s.read_only && s.is_snapshot && s.snapshot_of.is_some()));
}

/// Usage is not stored but counted, as the driver does at every mount; limits are keys.
#[test]
fn quotas_are_what_the_driver_counts() {
    let mut compared = 0;
    for image in golden::all() {
        let manifest = image.manifest();
        let fs = mount(&image);
        let mut usage: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        fs.walk(fs.root(), &mut |_, visit| {
            if let Visit::Object(attr) = visit
                && counted.insert(attr.node)
            {
                let (bytes, inodes) = usage.entry(attr.uid).or_default();
                *bytes += attr.sectors * SECTOR_BYTES;
                *inodes += 1;
            }
            WalkStep::Continue
        });
        for quota in manifest.quotas.iter().filter(|quota| quota.kind == "user") {
            let pos = Bpos::new(0, quota.id.into(), 0);
            let key = fs.volume().btrees().get(BtreeId::QUOTAS, pos).expect("golden nodes can be read");
            let limits = key.map(|key| Quota::decode(key.key().value).expect("golden keys decode"));
            let Quota { space, inodes } = limits.unwrap_or_default();
            assert_eq!((space.hard, space.soft), (quota.hard_kib * 2, quota.soft_kib * 2), "{quota:?}");
            assert_eq!((inodes.hard, inodes.soft), (quota.inodes_hard, quota.inodes_soft), "{quota:?}");
            let used = usage.get(&quota.id).copied().unwrap_or_default();
            assert_eq!(used, (quota.bytes, quota.inodes), "{}: user {}", image.name, quota.id);
            compared += 1;
        }
    }
    assert!(compared >= 5, "only {compared} quotas in all images");
}

#[test]
fn space_is_told_as_the_driver_tells_it() {
    for image in golden::all() {
        let fs = mount(&image);
        let stat = fs.statfs().expect("accounting can be read");
        assert!(
            stat.blocks_available <= stat.blocks_free && stat.blocks_free <= stat.blocks,
            "{}",
            image.name
        );
        assert!(stat.files >= stat.files_free);
        let block = u64::from(stat.block_bytes);
        let size: u64 = image.devices.iter().map(|device| device.size_bytes).sum();
        assert!(stat.blocks * block < size && stat.blocks > 0, "{}: {stat:?}", image.name);
    }
}
