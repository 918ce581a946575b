//! The superblock store: what a crash, a failing device and somebody else's writes do to it.

use std::sync::Arc;

use frazil_device::stamped::{Stamped, Time};
use frazil_device::{Contents, Device, Event, Fault, FaultyDevice, MemDevice, SECTOR_BYTES};
use frazil_journal::engine::CleanStop;
use frazil_ondisk::data_type::DataType;
use frazil_ondisk::fsck_errors::FsckErrorId;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::features::{CompatFeatures, Features};
use frazil_ondisk::superblock::members::MemberState;
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::superblock::sections::{
    Clean, Downgrade, Errors, Ext, JournalSeqBlacklist, SectionType, Sections,
};
use frazil_ondisk::units::{DevIndex, SbSeq, Sectors, Seq, UnixSeconds};
use frazil_volume::open::read_superblock;
use frazil_volume::write::superblock::{Closing, IoErrorKind, SuperblockWriteError};
use frazil_volume::write::{SuperblockStore, Superblocks};
use frazil_volume::{OpenOptions, open};

use crate::made::{self, MADE_AT, StoppedClock};

fn label(store: &SuperblockStore, label: &str) -> Result<(), SuperblockWriteError> {
    store.update(|sb| sb.set_label(label))
}

/// Opens, and says which label there is.
fn opened_label(devices: &[MemDevice]) -> String {
    open(made::shared(devices), OpenOptions::default()).unwrap().superblock().label()
}

#[test]
fn after_a_crash_the_old_or_the_new_superblock_counts() {
    for n in [1, 3] {
        let (time, images) = (Arc::new(Time::default()), made::devices(&made::superblocks(n)));
        let recorded: Vec<Arc<Stamped>> =
            images.iter().map(|i| Arc::new(Stamped::new(i.snapshot(), &time))).collect();
        let devices = recorded.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
        let store = made::store(devices, StoppedClock::at(2_000_000_000));
        label(&store, "new").unwrap();
        let end = time.now();
        assert_eq!(end, 3 * u64::from(n), "three copies on each device, each written through");
        let mut seen_new = false;
        for at in 0..=end {
            let crashed: Vec<MemDevice> = recorded.iter().map(|d| d.crash_at(at).all_lost()).collect();
            let found = check_crash(&crashed);
            assert!(found || !seen_new, "at {at} of {n} devices the new superblock was gone again");
            seen_new |= found;
            for torn in torn(&recorded, at, &crashed) {
                check_crash(&torn);
            }
        }
        assert!(seen_new, "what was returned as written is there");
    }
}

/// The images of a crash in the middle of change `at + 1`.
fn torn(recorded: &[Arc<Stamped>], at: u64, before: &[MemDevice]) -> Vec<Vec<MemDevice>> {
    let mut images = Vec::new();
    for (i, device) in recorded.iter().enumerate() {
        let events = device.recorder().log().events;
        let next = events.iter().position(|e| *e == Event::Mark(at + 1)).map(|mark| &events[mark + 1]);
        let Some(Event::Write { offset_bytes, contents: Contents::Bytes(bytes), .. }) = next else {
            continue;
        };
        let sectors = bytes.len() / SECTOR_BYTES as usize;
        assert!(sectors > 1, "a superblock is larger than a sector");
        for kept in 1..sectors {
            let torn: Vec<MemDevice> = before.iter().map(MemDevice::snapshot).collect();
            torn[i].write_at(*offset_bytes, &bytes[..kept * SECTOR_BYTES as usize]).unwrap();
            images.push(torn);
        }
    }
    images
}

/// The volume opens with the old or the new label; writing goes on; and then all copies are alike. True if it was the new one.
fn check_crash(devices: &[MemDevice]) -> bool {
    let found = opened_label(devices);
    assert!(found.is_empty() || found == "new", "{found}");
    let devices = made::shared(devices);
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_100));
    label(&store, "next").unwrap();
    let seq = store.view().superblock.seq;
    for device in &devices {
        for copy in made::copies(&**device) {
            let copy = copy.expect("every copy is whole again");
            assert_eq!((copy.label().as_str(), copy.seq), ("next", seq));
        }
    }
    found == "new"
}

#[test]
fn a_write_is_stamped_and_keeps_what_it_does_not_know() {
    let unknown = [3, 0, 0, 0, 99, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9];
    let long_ext: Vec<u8> = [17u32, 13].iter().flat_map(|v| v.to_le_bytes()).chain([0x5a; 128]).collect();
    let sections = |bytes: &[u8]| Sections::decode(bytes).unwrap().iter().next().unwrap().clone();
    let mut made = made::superblocks(2);
    for sb in &mut made {
        sb.sections.put_raw(sections(&unknown));
        sb.sections.put_raw(sections(&long_ext));
    }
    let devices = made::shared(&made::devices(&made));
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    label(&store, "x").unwrap();
    for (i, device) in devices.iter().enumerate() {
        let sb = read_superblock(&**device).unwrap();
        assert_eq!((sb.seq, sb.write_time), (SbSeq(made[i].seq.0 + 1), UnixSeconds(2_000_000_000)));
        assert_eq!(sb.dev_idx, DevIndex(i as u8));
        assert_eq!(sb.journal_buckets(), made[i].journal_buckets());
        assert!(sb.members().unwrap().list.iter().all(|m| m.seq == sb.seq));
        assert_eq!(sb.sections.raw(SectionType(99)), Some(&sections(&unknown)));
        assert_eq!(sb.sections.raw(SectionType::EXT), Some(&sections(&long_ext)));
        assert_eq!(sb.sections.get::<Downgrade>(), Ok(Some(Downgrade::of_1_13(false))));
        assert_eq!(sb.sections.get::<Errors>(), Ok(Some(Errors::default())));
    }
}

#[test]
fn nothing_is_written_for_no_change() {
    let store = made::store(made::shared(&made::devices(&made::superblocks(1))), StoppedClock::at(1));
    let before = store.view().superblock.seq;
    store.update(|_| Ok(())).unwrap();
    assert_eq!(store.view().superblock.seq, before);
    store.rewrite(|_| Ok(())).unwrap();
    assert_eq!(store.view().superblock.seq, SbSeq(before.0 + 1));
}

#[test]
fn a_change_that_breaks_a_rule_changes_nothing() {
    let images = made::devices(&made::superblocks(2));
    let devices = made::shared(&images);
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    let refused = store.update(|sb| {
        sb.flags.set_metadata_replicas(4);
        Ok(())
    });
    assert!(matches!(refused, Err(SuperblockWriteError::Invalid(_))), "{refused:?}");
    let too_large = store.update(|sb| {
        let mut list = JournalSeqBlacklist::default();
        (0..100_000).for_each(|i| list.add(Seq(10 * i)..Seq(10 * i + 1)));
        sb.sections.put(&list);
        Ok(())
    });
    assert!(too_large.unwrap_err().to_string().contains("room for"));
    for (image, device) in images.iter().zip(&devices) {
        assert_eq!(read_superblock(image).unwrap(), read_superblock(&**device).unwrap());
    }
    label(&store, "legal").unwrap();
    assert_eq!(store.view().superblock.flags.metadata_replicas(), 1);
}

#[test]
fn somebody_elses_writes_are_noticed_and_not_overwritten() {
    let devices = made::shared(&made::devices(&made::superblocks(2)));
    let ours = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    label(&ours, "ours").unwrap();
    let theirs = made::store(devices.clone(), StoppedClock::at(2_000_000_001));
    label(&theirs, "theirs").unwrap();
    assert!(matches!(ours.check_unchanged(), Err(SuperblockWriteError::Foreign { .. })));
    let refused = label(&ours, "ours again").unwrap_err();
    assert!(matches!(refused, SuperblockWriteError::Foreign { .. }) && refused.is_fatal(), "{refused}");
    assert_eq!(read_superblock(&*devices[1]).unwrap().label(), "theirs");
    // Once is enough: a writer that was surprised stays away.
    label(&theirs, "still").unwrap();
    assert!(label(&ours, "ours again").is_err());
}

#[test]
fn lost_and_overwritten_superblocks_are_noticed() {
    let images = made::devices(&made::superblocks(1));
    let faulty = Arc::new(FaultyDevice::new(Arc::new(images[0].snapshot())));
    let store = made::store(vec![faulty.clone()], StoppedClock::at(2_000_000_000));
    faulty.inject(Fault::writes().times(3).lost());
    label(&store, "never there").unwrap();
    assert!(matches!(label(&store, "next"), Err(SuperblockWriteError::WriteLost { .. })));

    let device = Arc::new(images[0].snapshot());
    let store = made::store(vec![device.clone()], StoppedClock::at(2_000_000_000));
    device.write_at(4096, &[0xee; 512]).unwrap();
    assert!(matches!(label(&store, "next"), Err(SuperblockWriteError::Overwritten { .. })));
}

#[test]
fn a_first_copy_damaged_before_is_repaired() {
    let images = made::devices(&made::superblocks(1));
    images[0].write_at(4096, &[0; 4096]).unwrap();
    let devices = made::shared(&images);
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    label(&store, "whole").unwrap();
    let copies = made::copies(&*devices[0]);
    assert!(copies.iter().all(|c| c.as_ref().is_some_and(|sb| sb.label() == "whole")));
}

/// Three devices, of which some fail every write.
fn failing(broken: &[usize], change: impl Fn(&mut Superblock)) -> (SuperblockStore, Vec<Arc<FaultyDevice>>) {
    let mut made = made::superblocks(3);
    made.iter_mut().for_each(change);
    let wrap = |d: Arc<dyn Device>| Arc::new(FaultyDevice::new(d));
    let devices: Vec<_> = made::shared(&made::devices(&made)).into_iter().map(wrap).collect();
    let all = devices.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    let store = made::store(all, StoppedClock::at(2_000_000_000));
    broken.iter().for_each(|&i| devices[i].inject(Fault::writes().torn_after(1)));
    (store, devices)
}

fn user_data_on(devs: &[u8]) -> ReplicasEntry {
    let devs = devs.iter().map(|&d| DevIndex(d)).collect();
    ReplicasEntry { data_type: DataType::USER, nr_required: 1, devs }
}

fn with_user_data(devs: &'static [u8]) -> impl Fn(&mut Superblock) {
    move |sb| {
        frazil_ondisk::superblock::sections::Replicas(vec![user_data_on(devs)]).store(&mut sb.sections);
    }
}

#[test]
fn a_failing_device_is_passed_over_and_tried_again() {
    let (store, devices) = failing(&[1], with_user_data(&[0, 1]));
    label(&store, "without 1").unwrap();
    assert_eq!(read_superblock(&*devices[2]).unwrap().label(), "without 1");
    devices[1].heal();
    label(&store, "with 1 again").unwrap();
    for device in &devices {
        for copy in made::copies(&**device) {
            assert_eq!(copy.expect("whole").label(), "with 1 again");
        }
    }
}

#[test]
fn too_few_devices_are_an_error_that_stays() {
    for (broken, data) in [(&[0, 1, 2][..], &[0][..]), (&[1], &[1]), (&[0, 1], &[0, 1])] {
        let entry = user_data_on(data);
        let (store, devices) = failing(broken, |sb| {
            frazil_ondisk::superblock::sections::Replicas(vec![entry.clone()]).store(&mut sb.sections);
        });
        let error = label(&store, "lost").unwrap_err();
        assert!(matches!(error, SuperblockWriteError::TooFew { .. }), "{error}");
        assert_eq!(store.view().superblock.label(), "", "not on stable storage");
        devices.iter().for_each(|d| d.heal());
        assert_eq!(label(&store, "healed").unwrap_err(), error);
    }
}

#[test]
fn devices_that_cannot_be_read_do_not_stop_the_others() {
    let (store, devices) = failing(&[], with_user_data(&[0]));
    devices[2].inject(Fault::any());
    label(&store, "two of three").unwrap();
    assert_eq!(read_superblock(&*devices[0]).unwrap().label(), "two of three");
}

#[test]
fn the_first_start_shows_only_when_it_is_complete() {
    let mut made = made::superblocks(2);
    for sb in &mut made {
        sb.flags.set_initialized(false);
        sb.flags.set_clean(false);
        sb.seq = SbSeq(0);
    }
    let images = made::devices(&made);
    let devices = made::shared(&images);
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    store.begin_session(&[]).unwrap();
    label(&store, "begun").unwrap();
    assert_eq!(read_superblock(&*devices[1]).unwrap(), read_superblock(&images[1]).unwrap());
    store
        .update(|sb| {
            sb.flags.set_initialized(true);
            Ok(())
        })
        .unwrap();
    let sb = read_superblock(&*devices[1]).unwrap();
    assert_eq!((sb.label().as_str(), sb.seq, sb.flags.clean()), ("begun", SbSeq(3), false));
}

#[test]
fn sessions_begin_dirty_and_end_clean() {
    let devices = made::shared(&made::devices(&made::superblocks(2)));
    let clock = StoppedClock::at(2_000_000_000);
    let store = made::store(devices.clone(), clock.clone());
    store.begin_session(&[Seq(8)..Seq(20)]).unwrap();
    let sb = read_superblock(&*devices[0]).unwrap();
    assert!(!sb.flags.clean() && sb.features.contains(Features::WHEN_READ_WRITE));
    assert!(sb.features.contains(Features::JOURNAL_SEQ_BLACKLIST_V3));
    assert_eq!(sb.sections.get::<JournalSeqBlacklist>().unwrap().unwrap().ranges(), [Seq(8)..Seq(20)]);
    assert!(sb.members().unwrap().list.iter().all(|m| m.last_mount == UnixSeconds(2_000_000_000)));

    clock.set(2_000_000_500);
    let positions = vec![(DevIndex(0), 3, Sectors(104)), (DevIndex(1), 5, Sectors(8))];
    let journal = CleanStop { seq: Seq(33), positions };
    store.mark_clean(&Closing { journal, entries: vec![0; 16] }).unwrap();
    let sb = read_superblock(&*devices[1]).unwrap();
    assert!(sb.flags.clean() && sb.compat.contains(CompatFeatures::WHEN_CLEAN));
    assert!(sb.features.contains(Features::WHEN_READ_WRITE.difference(Features::WHEN_DIRTY)));
    assert!(sb.features.difference(Features::WHEN_DIRTY) == sb.features);
    let clean = sb.sections.get::<Clean>().unwrap().unwrap();
    assert_eq!((clean.journal_seq, sb.sections.raw(SectionType::CLEAN).unwrap().size()), (Seq(33), 2592));
    let members = sb.members().unwrap().list;
    let at = |i: usize| (members[i].last_journal_bucket, members[i].last_journal_bucket_offset);
    assert_eq!((at(0), at(1)), ((3, 104), (5, 8)));
    assert_eq!(members[0].last_mount, UnixSeconds(2_000_000_000));
    assert!(store.is_clean());

    store.mark_dirty().unwrap();
    let sb = read_superblock(&*devices[1]).unwrap();
    assert!(!sb.flags.clean() && sb.sections.has(SectionType::CLEAN) && !store.is_clean());
}

#[test]
fn what_a_commit_needs_is_marked_once() {
    let devices = made::shared(&made::devices(&made::superblocks(2)));
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    let (entry, nodes) = (user_data_on(&[0, 1]), Sectors(12800)..Sectors(13056));
    let has_nodes =
        |store: &SuperblockStore, dev: u8| store.btree_bitmap(DevIndex(dev)).covers(nodes.clone());
    assert!(!store.has_replicas(&entry) && !has_nodes(&store, 1));
    Superblocks::mark_replicas(&store, &entry).unwrap();
    Superblocks::mark_btree_nodes(&store, DevIndex(1), nodes.clone()).unwrap();
    let written = store.view().superblock.seq;
    Superblocks::mark_replicas(&store, &entry).unwrap();
    Superblocks::mark_btree_nodes(&store, DevIndex(1), nodes.clone()).unwrap();
    assert_eq!(store.view().superblock.seq, written);
    assert!(store.has_replicas(&entry) && has_nodes(&store, 1));
    assert!(!has_nodes(&store, 0));
    let again = made::store(devices, StoppedClock::at(2_000_000_000));
    assert!(again.has_replicas(&entry) && has_nodes(&again, 1));

    store.retain_replicas(|e| *e != entry).unwrap();
    assert!(!store.has_replicas(&entry));
    store.blacklist(Seq(3)..Seq(5)).unwrap();
    store.retain_blacklist(|_| false).unwrap();
    assert!(!store.view().superblock.sections.has(SectionType::JOURNAL_SEQ_BLACKLIST));
    assert!(store.use_features(Features::CASEFOLDING).is_err());
    store.use_features(Features::LZ4).unwrap();
    assert!(store.view().superblock.features.contains(Features::LZ4));
}

#[test]
fn many_threads_change_it_at_once() {
    let devices = made::shared(&made::devices(&made::superblocks(4)));
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    let sets: Vec<Vec<u8>> = (1u8..16).map(|bits| (0..4).filter(|d| bits >> d & 1 != 0).collect()).collect();
    std::thread::scope(|scope| {
        for set in &sets {
            scope.spawn(|| Superblocks::mark_replicas(&store, &user_data_on(set)).unwrap());
            let dev = DevIndex(set[0]);
            let sectors = Sectors(1000 * set.len() as u64)..Sectors(1000 * set.len() as u64 + 256);
            let store = &store;
            scope.spawn(move || {
                Superblocks::mark_btree_nodes(store, dev, sectors.clone()).unwrap();
                assert!(store.btree_bitmap(dev).covers(sectors));
            });
        }
    });
    let again = made::store(devices, StoppedClock::at(2_000_000_000));
    assert!(sets.iter().all(|set| again.has_replicas(&user_data_on(set))));
    let (found, known) = (again.view(), store.view());
    assert_eq!(found.superblock.seq, known.superblock.seq);
    assert_eq!(found.superblock.sections, known.superblock.sections);
}

#[test]
fn what_was_seen_goes_with_the_next_write() {
    let devices = made::shared(&made::devices(&made::superblocks(2)));
    let store = made::store(devices.clone(), StoppedClock::at(2_000_000_000));
    store.note_error(FsckErrorId(42));
    store.note_error(FsckErrorId(42));
    store.note_io_error(DevIndex(1), IoErrorKind::Checksum);
    store.note_topology_error();
    assert!(store.update(|sb| sb.set_label(&"x".repeat(99))).is_err(), "nothing is lost by an error");
    assert_eq!(read_superblock(&*devices[0]).unwrap().seq, SbSeq(1));
    label(&store, "x").unwrap();
    label(&store, "y").unwrap();
    let sb = read_superblock(&*devices[0]).unwrap();
    let errors = sb.sections.get::<Errors>().unwrap().unwrap().0;
    assert_eq!(
        errors.iter().map(|e| (e.id.0, e.count, e.last.0)).collect::<Vec<_>>(),
        [(42, 2, 2_000_000_000)]
    );
    assert!(sb.flags.has_errors() && sb.flags.has_topology_errors());
    let members = sb.members().unwrap();
    assert_eq!((members.list[0].errors.checksum, members.list[1].errors.checksum), (0, 1));
}

#[test]
fn recovery_leaves_no_work_behind() {
    let mut made = made::superblocks(1);
    made[0].flags.set_version_upgrade_complete(frazil_ondisk::version::Version::new(1, 12));
    let mut ext = Ext::default();
    ext.set_silent(FsckErrorId(287));
    made[0].sections.put(&ext);
    let store = made::store(made::shared(&made::devices(&made)), StoppedClock::at(2_000_000_000));
    store.recovered().unwrap();
    let sb = &store.view().superblock;
    assert_eq!(sb.flags.version_upgrade_complete(), sb.version);
    assert!(sb.compat.contains(CompatFeatures::ALLOC_INFO));
    assert_eq!(sb.sections.get::<Ext>().unwrap().unwrap().silent().count(), 0);
    assert_eq!(sb.write_time, UnixSeconds(2_000_000_000));
    assert_ne!(sb.write_time, MADE_AT);
    assert!(sb.members().unwrap().list.iter().all(|m| m.flags.state() == MemberState::ReadWrite));
}
