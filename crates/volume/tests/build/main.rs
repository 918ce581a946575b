//! Volumes that are built are opened, checked, read, and built again.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cases;
mod crash;
mod populate;

use std::collections::BTreeSet;
use std::sync::Arc;

use cases::{Case, Crypt, PASSPHRASE, cases};
use frazil_device::{Device, MemDevice};
use frazil_ondisk::BtreeId;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::sections::SectionType;
use frazil_testing::golden;
use frazil_volume::build::{BuildError, Builder, FormatOptions, NewDevice, format};
use frazil_volume::check::check;
use frazil_volume::open::read_superblock;
use frazil_volume::{OpenOptions, Passphrase, Recovery, Volume, open};
use populate::{content, populate};
use uuid::Uuid;
use zeroize::Zeroizing;

fn devices(case: &Case) -> Vec<MemDevice> {
    case.sizes()
        .enumerate()
        .map(|(i, size)| MemDevice::new(size).named(&format!("{}.{i}", case.name)))
        .collect()
}

fn shared(devices: &[MemDevice]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|d| Arc::new(d.snapshot()) as Arc<dyn Device>).collect()
}

fn opened(devices: Vec<Arc<dyn Device>>) -> Volume {
    let mut ask = |_: &str| Ok(Zeroizing::new(PASSPHRASE.to_vec()));
    let passphrase = Passphrase::Ask(&mut ask);
    open(devices, OpenOptions { passphrase, ..OpenOptions::default() }).unwrap()
}

fn assert_clean(name: &str, volume: &Volume) {
    let report = check(volume);
    let findings: Vec<String> = report.findings.iter().take(3).map(ToString::to_string).collect();
    assert_eq!(findings, [""; 0], "{name}");
    assert!(report.is_clean() && report.notices.is_empty(), "{name}: {:?}", report.notices);
}

/// The case without any wishes.
pub(crate) fn plain() -> Case {
    cases().remove(0)
}

const UUID: Uuid = Uuid::from_u128(0xf2a21);

#[test]
fn every_combination_of_options_makes_a_sound_volume() {
    let cases = cases();
    assert!(cases.len() > 15, "{}", cases.len());
    for case in &cases {
        let devices = shared(&devices(case));
        let built = format(case.new_devices(devices.clone()), &case.options(UUID)).unwrap();
        let volume = opened(devices);
        assert!(
            matches!(volume.recovery(), Recovery::Clean { .. }),
            "{}: {:?}",
            case.name,
            volume.recovery()
        );
        assert_clean(&case.name, &volume);
        let sb = volume.superblock();
        assert_eq!((sb.user_uuid, sb.label()), (UUID, case.name.clone()));
        for (name, text) in &case.settings {
            let spec = frazil_ondisk::superblock::options::OptionSpec::by_name(name).unwrap();
            assert_eq!(sb.option(spec), spec.parse(text).unwrap(), "{}: {name}", case.name);
        }
        assert_eq!(built.superblock.sections, sb.sections, "{}", case.name);
        assert_eq!(volume.usage().unwrap().inodes, 2, "{}", case.name);
    }
}

#[test]
fn defaults_are_those_of_the_reference() {
    let golden = golden::image("01-empty-initialised");
    let path = &golden.unpack()[0];
    let theirs = read_superblock(&MemDevice::from_file(path).unwrap()).unwrap();
    let device: Arc<dyn Device> = Arc::new(MemDevice::new(std::fs::metadata(path).unwrap().len()));
    let ours = format(vec![NewDevice::new(device)], &FormatOptions::default()).unwrap().superblock;
    assert_eq!((ours.version, ours.version_min), (theirs.version, theirs.version_min));
    assert_eq!(ours.flags, theirs.flags);
    assert_eq!((ours.features, ours.compat), (theirs.features, theirs.compat));
    assert_eq!((ours.block_sectors, &ours.layout), (theirs.block_sectors, &theirs.layout));
    assert_eq!(ours.journal_buckets().unwrap(), theirs.journal_buckets().unwrap());
    let [our, their] = [&ours, &theirs].map(|sb| sb.own_member().unwrap());
    assert_eq!(
        (our.nbuckets, our.bucket_sectors, our.flags),
        (their.nbuckets, their.bucket_sectors, their.flags)
    );
    let sections = |sb: &Superblock| sb.sections.iter().map(|s| s.ty).collect::<BTreeSet<_>>();
    let mut more = sections(&theirs);
    assert!(sections(&ours).is_subset(&more));
    more.retain(|ty| !sections(&ours).contains(ty));
    assert_eq!(more, BTreeSet::from([SectionType::COUNTERS]), "statistics are the driver's");
}

#[test]
fn every_combination_takes_files() {
    for case in cases().iter().filter(|case| case.crypt == Crypt::No) {
        let devices = shared(&devices(case));
        let mut builder = Builder::new(case.new_devices(devices.clone()), &case.options(UUID)).unwrap();
        populate(&mut builder, 3000, 4096).unwrap();
        builder.finish().unwrap();
        let volume = opened(devices);
        assert_clean(&case.name, &volume);
        let usage = volume.usage().unwrap();
        assert_eq!(usage.inodes, 3004);
        assert_eq!(usage.data.0, 3000 * 8 * case.data_copies, "{}", case.name);
    }
}

#[test]
fn many_keys_make_deep_trees() {
    let mut case = plain();
    case.settings = vec![("btree_node_size", "32k"), ("block_size", "512")];
    case.devices[0].mib = 256;
    let devices = shared(&devices(&case));
    let mut builder = Builder::new(case.new_devices(devices.clone()), &case.options(UUID)).unwrap();
    populate(&mut builder, 150_000, 512).unwrap();
    let built = builder.finish().unwrap();
    assert_eq!(built.levels[&BtreeId::INODES], 3);
    assert_clean("deep", &opened(devices));
}

#[test]
fn data_are_where_the_keys_say() {
    let case = &plain();
    let device = devices(case).remove(0);
    let mut builder =
        Builder::new(case.new_devices([Arc::new(device.snapshot()) as Arc<dyn Device>]), &case.options(UUID));
    let builder = builder.as_mut().unwrap();
    let mut places = Vec::new();
    for (i, blocks) in [1usize, 3, 16, 1, 32, 20, 2].into_iter().enumerate() {
        let payload = content(i as u64 + 1, blocks * 4096);
        places.push((builder.put_data(&payload).unwrap()[0].offset, payload));
    }
    // One behind the other while the bucket has room.
    assert_eq!(places[1].0.0, places[0].0.0 + 8);
    assert_eq!(places[3].0.0, places[2].0.0 + 128);
    let mut ends: Vec<(u64, u64)> =
        places.iter().map(|(at, p)| (at.0, at.0 + p.len() as u64 / 512)).collect();
    ends.sort_unstable();
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    assert!(ends.iter().all(|(start, end)| start / 256 == (end - 1) / 256), "in one bucket each");
}

#[test]
fn equal_input_makes_equal_volumes() {
    for case in cases().iter().filter(|case| case.crypt == Crypt::No).take(4) {
        let make = |uuid| {
            let devices = devices(case);
            let handles = shared(&devices);
            let mut builder = Builder::new(case.new_devices(handles.clone()), &case.options(uuid)).unwrap();
            populate(&mut builder, 500, 4096).unwrap();
            builder.finish().unwrap();
            handles.iter().map(|d| read(&**d)).collect::<Vec<_>>()
        };
        assert!(make(UUID) == make(UUID), "{}", case.name);
        assert!(make(UUID) != make(Uuid::from_u128(2)), "{}", case.name);
    }
}

fn read(device: &dyn Device) -> Vec<u8> {
    let mut bytes = vec![0; device.size_bytes() as usize];
    device.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_there_is_left_alone_unless_forced() {
    let device: Arc<dyn Device> = Arc::new(MemDevice::new(64 << 20));
    let make = |force| {
        format(
            vec![NewDevice::new(Arc::clone(&device))],
            &FormatOptions { force, ..FormatOptions::default() },
        )
    };
    let first = make(false).unwrap().superblock.uuid;
    let before = read(&*device);
    let refused = make(false).unwrap_err();
    assert!(
        matches!(refused, BuildError::InUse { .. }) && refused.to_string().contains("--force"),
        "{refused}"
    );
    assert!(read(&*device) == before);
    let second = make(true).unwrap().superblock.uuid;
    assert_ne!(first, second);
    assert_clean("again", &opened(vec![device]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = &plain();
    let devices = shared(&devices(case));
    let mut builder = Builder::new(case.new_devices(devices.clone()), &case.options(UUID)).unwrap();
    let full = populate(&mut builder, 20_000, 4096).unwrap_err();
    assert!(matches!(full, BuildError::NoSpace { .. }), "{full}");
    drop(builder);
    assert!(open(devices, OpenOptions::default()).is_err(), "nothing is there");
}
