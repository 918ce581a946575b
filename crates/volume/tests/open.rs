//! Opening the golden images: in any order, with devices missing, damaged, foreign, locked.

use std::path::Path;
use std::sync::Arc;

use frazil_device::{Access, Device, MemDevice, OpenOptions as DeviceOptions};
use frazil_ondisk::superblock::assembly::{Degraded, LeftOut};
use frazil_ondisk::superblock::members::Member;
use frazil_ondisk::units::DevIndex;
use frazil_testing::golden::{self, GoldenImage, State};
use frazil_volume::open::read_superblock;
use frazil_volume::{Notice, OpenError, OpenOptions, Passphrase, Recovery, Volume, open};
use zeroize::Zeroizing;

fn file(path: &Path) -> Arc<dyn Device> {
    Arc::new(DeviceOptions::new(Access::ReadOnly).open(path).expect("golden images can be opened"))
}

fn files(image: &GoldenImage) -> Vec<Arc<dyn Device>> {
    image.unpack().iter().map(|path| file(path)).collect()
}

/// Opens with the image's passphrase, if it has one.
fn open_with(
    image: &GoldenImage,
    devices: Vec<Arc<dyn Device>>,
    options: OpenOptions<'_>,
) -> Result<Volume, OpenError> {
    let passphrase = image.passphrase_bytes().map(<[u8]>::to_vec);
    let mut ask = |_: &str| Ok(Zeroizing::new(passphrase.clone().expect("only encrypted images ask")));
    open(devices, OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..options })
}

/// `replaying entries A-B`, or `replaying A-B, dropped C-D`, from what the driver said when it recovered a copy.
fn replayed_by_the_driver(image: &GoldenImage) -> Option<(u64, u64)> {
    let dmesg = image.reference("recovery-dmesg")?;
    let line = dmesg.lines().find(|l| l.contains("journal read done, replaying entries"))?;
    let range = line.rsplit("entries ").next()?.split([',', ' ']).next()?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[test]
fn every_image_opens_as_it_was_left() {
    let mut replays_compared = 0;
    for image in golden::all() {
        let volume = open_with(&image, files(&image), OpenOptions::default())
            .unwrap_or_else(|e| panic!("{}: {e}", image.name));
        match (image.state, volume.recovery()) {
            (State::Clean | State::Frozen, Recovery::Clean { .. } | Recovery::NeverStarted) => {}
            (State::Killed, Recovery::Replayed { first, last, .. }) => {
                if let Some(expected) = replayed_by_the_driver(&image) {
                    assert_eq!((first.0, last.0), expected, "{}: range replayed", image.name);
                    replays_compared += 1;
                }
            }
            (state, recovery) => panic!("{}: left {state:?}, opened as {recovery:?}", image.name),
        }
        assert!(!volume.snapshots().is_empty(), "{}: a volume has at least one snapshot", image.name);
    }
    assert!(replays_compared >= 8, "only {replays_compared} images tell what the driver replayed");
}

#[test]
fn opening_writes_nothing() {
    for image in golden::all().iter().filter(|i| i.state != State::Clean) {
        let before: Vec<MemDevice> = image.bytes().into_iter().map(|b| MemDevice::from_bytes(&b)).collect();
        let devices = before.iter().map(|d| Arc::new(d.snapshot()) as Arc<dyn Device>).collect::<Vec<_>>();
        // These devices could be written: that they are not is up to the code.
        let volume = open_with(image, devices.clone(), OpenOptions::default()).expect("opens");
        volume.usage().expect("accounting is readable");
        for (before, after) in before.iter().zip(devices) {
            let mut bytes = vec![0; after.size_bytes() as usize];
            after.read_at(0, &mut bytes).expect("memory");
            assert!(before.to_vec() == bytes, "{}: opening changed {}", image.name, after.name());
        }
    }
}

#[test]
fn devices_may_come_in_any_order() {
    for name in ["08-crash-multi", "09-multi-replicas2", "18-newer-1.39-ec"] {
        let image = golden::image(name);
        let usage = |devices| {
            open_with(&image, devices, OpenOptions::default()).expect("opens").usage().expect("usage")
        };
        let (forwards, mut backwards) = (files(&image), files(&image));
        backwards.reverse();
        assert_eq!(usage(forwards), usage(backwards), "{name}");
    }
}

#[test]
fn missing_devices_need_permission_and_enough_replicas() {
    let image = golden::image("08-crash-multi");
    let one = || vec![files(&image).remove(0)];
    let refused = open(one(), OpenOptions::default()).err().expect("a device is missing");
    assert!(matches!(refused, OpenError::Insufficient(_)), "{refused}");
    assert!(refused.to_string().contains("device 1"), "the message says which: {refused}");
    let volume = open(one(), degraded(Degraded::Yes)).expect("one copy is enough");
    assert!(volume.notices().iter().any(|n| matches!(n, Notice::MissingDevice(dev) if dev.0 == 1)));

    let striped = golden::image("09-multi-striped");
    let one = || vec![files(&striped).remove(0)];
    assert!(
        matches!(open(one(), degraded(Degraded::Yes)), Err(OpenError::Insufficient(_))),
        "some data is lost"
    );
    open(one(), degraded(Degraded::Very)).expect("what is left can be read all the same");
}

/// Since 1.36 the superblock no longer says which devices hold data.
#[test]
fn missing_data_is_found_by_accounting() {
    let ec = golden::image("18-newer-1.39-ec");
    let tiered = golden::image("18-newer-1.39-reconcile");
    let without = |missing| {
        let mut devices = files(&ec);
        devices.remove(missing);
        devices
    };
    for missing in 1..ec.devices.len() {
        open(without(missing), degraded(Degraded::Yes)).unwrap_or_else(|e| panic!("without {missing}: {e}"));
    }
    // A few sectors were still waiting to become part of a stripe, and are on device 0 only.
    assert!(matches!(open(without(0), degraded(Degraded::Yes)), Err(OpenError::Insufficient(_))));
    open(without(0), degraded(Degraded::Very)).expect("the rest can be read");
    let lost = open(vec![files(&tiered).remove(0)], degraded(Degraded::Yes));
    assert!(matches!(lost, Err(OpenError::Insufficient(_))), "data on the other device is lost");
}

fn degraded(degraded: Degraded) -> OpenOptions<'static> {
    OpenOptions { degraded, ..OpenOptions::default() }
}

#[test]
fn a_stale_device_is_named() {
    let image = golden::image("09-multi-degraded");
    let volume = open(files(&image), OpenOptions::default()).expect("opens");
    assert!(volume.notices().iter().any(|n| matches!(n, Notice::Stale { .. })), "{:?}", volume.notices());
}

#[test]
fn devices_of_two_volumes_are_not_mixed() {
    let mut devices = files(&golden::image("02-small-tree"));
    devices.extend(files(&golden::image("11-reflink")));
    assert!(matches!(open(devices, OpenOptions::default()), Err(OpenError::Stranger { .. })));
}

#[test]
fn encrypted_volumes_need_the_right_passphrase() {
    let image = golden::image("08-crash-encrypted");
    let none = open(files(&image), OpenOptions::default()).err().expect("no passphrase");
    assert!(none.to_string().contains("passphrase"), "{none}");
    let mut ask = |_: &str| Ok(Zeroizing::new(b"wrong horse".to_vec()));
    let wrong =
        open(files(&image), OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() });
    assert!(wrong.err().expect("wrong passphrase").to_string().contains("wrong passphrase"));
}

#[test]
fn backup_superblocks_are_found() {
    let image = golden::image("02-small-tree");
    let device = MemDevice::from_bytes(&image.bytes().remove(0));
    device.write_at(4096 + 100, &[0xff; 64]).expect("memory");
    open(vec![Arc::new(device.snapshot())], OpenOptions::default()).expect("the second copy is used");
    // Without the layout nobody knows where the copies are.
    device.write_at(3584, &[0; 512]).expect("memory");
    let refused = open(vec![Arc::new(device)], OpenOptions::default()).err().expect("no copy can be found");
    assert!(refused.to_string().contains("layout at sector 7"), "{refused}");
}

/// A device that was taken out of its volume, offered alone.
#[test]
fn a_removed_device_alone_is_refused() {
    let device = MemDevice::from_bytes(&golden::image("02-small-tree").bytes().remove(0));
    let mut superblock = read_superblock(&device).expect("it has a superblock");
    superblock.dev_idx = DevIndex(1);
    let mut members = superblock.members().expect("it has members");
    members.list.push(Member { uuid: Default::default(), ..members.list[0].clone() });
    superblock.put_members(&members);
    let bytes = superblock.encode_copy(superblock.offset).expect("it fits");
    device.write_at(superblock.offset.0 * 512, &bytes).expect("memory");
    let refused = open(vec![Arc::new(device)], OpenOptions::default()).err().expect("it is no member");
    assert!(matches!(refused, OpenError::LeftOut { why: LeftOut::Removed(DevIndex(1)), .. }), "{refused}");
}

#[test]
fn a_device_that_was_cut_is_refused() {
    let image = golden::image("02-small-tree");
    let bytes = image.bytes().remove(0);
    let device = MemDevice::from_bytes(&bytes[..bytes.len() / 2]);
    assert!(matches!(open(vec![Arc::new(device)], OpenOptions::default()), Err(OpenError::TooSmall { .. })));
}

#[test]
fn anything_else_is_no_volume() {
    for bytes in [vec![], vec![0; 512], vec![0xff; 1 << 20]] {
        let refused = open(vec![Arc::new(MemDevice::from_bytes(&bytes))], OpenOptions::default());
        assert!(matches!(refused, Err(OpenError::NoSuperblock { .. })), "{} bytes", bytes.len());
    }
    assert!(matches!(open(vec![], OpenOptions::default()), Err(OpenError::NoDevices)));
}

#[test]
fn capacity_is_what_the_driver_says() {
    let mut compared = 0;
    for image in golden::all() {
        for info in image.manifest().infos {
            let usage = open_with(&image, files(&image), OpenOptions::default())
                .expect("opens")
                .usage()
                .expect("usage");
            let blocks = info.statvfs["blocks"] * info.statvfs["bsize"] / 512;
            assert_eq!(usage.total.0, blocks, "{}: statvfs.f_blocks", image.name);
            assert!(
                usage.available.0 < 64,
                "{}: it was filled to the brim, {:?}",
                image.name,
                usage.available
            );
            compared += 1;
        }
    }
    assert!(compared > 0, "no manifest carries statvfs");
}
