//! Opening for writing: refusals, and what recovery writes before it replays.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_btree::write::{CommitError, SPACE};
use frazil_device::stamped::{Stamped, Time};
use frazil_device::{Contents, Device, Event, MemDevice, SECTOR_BYTES};
use frazil_journal::Watermark;
use frazil_journal::engine::{Protects, ReplayHold, Wait};
use frazil_ondisk::jset::{EntryType, JsetEntry};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::assembly::Degraded;
use frazil_ondisk::superblock::features::CompatFeatures;
use frazil_ondisk::superblock::members::{MemberFlags, MemberState};
use frazil_ondisk::superblock::recovery_pass::{PassSet, RecoveryPass};
use frazil_ondisk::superblock::sections::{Clean, Ext, JournalSeqBlacklist, JournalV2, SectionType};
use frazil_ondisk::units::{BucketIndex, DevIndex, SbSeq, Seq};
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_testing::golden::{self, GoldenImage, State};
use frazil_volume::check::check;
use frazil_volume::open::read_superblock;
use frazil_volume::write::ReplayTarget;
use frazil_volume::{Notice, OpenError, OpenOptions, Recovery, open};

use crate::made;

/// What opening a changed volume for writing says; nothing may have been written.
fn refused(change: impl Fn(&mut Superblock)) -> String {
    let images = made::formatted(2, change);
    let devices = made::shared(&images);
    let error = made::open_rw(devices.clone()).err().expect("it is refused");
    for (image, device) in images.iter().zip(&devices) {
        assert_eq!(read_superblock(image).unwrap(), read_superblock(&**device).unwrap());
    }
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

fn with_members(sb: &mut Superblock, change: impl Fn(&mut MemberFlags)) {
    let mut members = sb.members().unwrap();
    members.list.iter_mut().for_each(|m| change(&mut m.flags));
    sb.put_members(&members);
}

#[test]
fn every_reason_not_to_write_is_one_line() {
    let older = refused(|sb| {
        sb.version = Version::new(1, 12);
        sb.version_min = sb.version;
    });
    assert!(older.contains("can only be read") && older.contains("1.12 is older"), "{older}");
    assert!(refused(|sb| sb.version = Version::new(1, 14)).contains("1.14 is newer"));
    assert!(refused(|sb| sb.flags.set_has_topology_errors(true)).contains("shape of a b-tree"));
    let upgrade = refused(|sb| sb.flags.set_version_upgrade_complete(Version::new(1, 9)));
    assert!(upgrade.contains("upgrade"), "{upgrade}");
    assert!(refused(|sb| sb.compat = CompatFeatures::WHEN_CLEAN).contains("old programs"));
    let pass = refused(|sb| {
        let mut ext = Ext::default();
        ext.recovery_passes_required =
            PassSet::of(&[RecoveryPass::CHECK_ALLOCATIONS, RecoveryPass::ALLOC_READ]);
        sb.sections.put(&ext);
    });
    assert!(pass.contains("check_allocations"), "{pass}");
    let unlisted = refused(|sb| with_members(sb, |flags| flags.set_freespace_initialized(false)));
    assert!(unlisted.contains("free space of device 0"), "{unlisted}");
    for none in [
        |sb: &mut Superblock| sb.put_journal_buckets(&JournalV2::default()),
        |sb: &mut Superblock| with_members(sb, |flags| flags.set_state(MemberState::ReadOnly)),
        |sb: &mut Superblock| with_members(sb, |flags| flags.set_data_allowed(0x18)),
    ] {
        assert!(refused(none).contains("has a journal"));
    }
    let lost = refused(|sb| {
        let mut entries = Vec::new();
        JsetEntry::BtreeRoot { btree: BtreeId::INODES, level: 0, key: None }.encode(&mut entries);
        sb.sections.put(&Clean::new(Seq(7), entries, 0));
    });
    assert!(lost.contains("root of b-tree inodes is lost"), "{lost}");
}

/// A bucket of the journal that no key knows would be given to somebody else.
#[test]
fn a_journal_that_is_not_marked_is_not_written() {
    let images = made::formatted(2, |sb| {
        let ring = sb.journal_buckets().unwrap();
        let moved = ring.buckets().map(|b| BucketIndex(b.0 + 100));
        sb.put_journal_buckets(&JournalV2::from_buckets(moved));
    });
    let error = made::open_rw(made::shared(&images)).err().expect("it is refused").to_string();
    assert!(error.contains("in use (journal) but not marked so"), "{error}");
}

/// What is free must be known before the first node is made that says so.
#[test]
fn freespace_that_is_only_in_the_journal_is_refused() {
    let images = made::formatted(1, |sb| {
        let mut clean = sb.sections.get::<Clean>().unwrap().unwrap();
        let mut entries = Vec::new();
        for entry in clean.entries().map(Result::unwrap) {
            if !matches!(entry, JsetEntry::BtreeRoot { btree: BtreeId::FREESPACE, .. }) {
                entry.encode(&mut entries);
            }
        }
        clean.entries = entries;
        sb.sections.put(&clean);
    });
    let devices = made::shared(&images);
    let volume = made::open_rw(devices.clone()).unwrap();
    let mut room = volume.journal.reserve(6, Watermark::Normal, Wait::Forever).unwrap();
    let key = KeyBuf::new(KeyType::SET, Bpos::new(0, 500, 0), 100, vec![]);
    room.push_key(EntryType::BTREE_KEYS, BtreeId::FREESPACE, 0, key.as_key());
    drop(room);
    volume.journal.flush().unwrap();
    let error = made::open_rw(devices).err().expect("it is refused").to_string();
    assert!(error.contains("freespace is only in the journal"), "{error}");
}

/// The first start: with what the formatter of the reference left, and with several devices.
#[test]
fn a_volume_that_was_never_started_is_started() {
    let never_started =
        |n| made::devices(&made::superblocks(n).into_iter().map(unstarted).collect::<Vec<_>>());
    let golden = made::golden_devices(&golden::image("01-empty-formatted-only"));
    for images in [golden, never_started(1), never_started(3)] {
        let time = Arc::new(Time::default());
        let recorded: Vec<_> = images.iter().map(|i| Arc::new(Stamped::new(i.snapshot(), &time))).collect();
        let devices: Vec<_> = recorded.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
        let volume = made::open_rw(devices.clone()).unwrap();
        assert_eq!(volume.recovery, Recovery::Clean { journal_seq: Seq(1) });
        let opened = open(devices, OpenOptions::default()).unwrap();
        let report = check(&opened);
        assert!(report.is_clean(), "{:?}", report.counts().collect::<Vec<_>>());
        assert_eq!(opened.usage().unwrap().inodes, 2);
        for at in 0..=time.now() {
            let crashed: Vec<MemDevice> = recorded.iter().map(|d| d.crash_at(at).all_lost()).collect();
            let opened = open(made::shared(&crashed), OpenOptions::default()).unwrap();
            match opened.recovery() {
                Recovery::NeverStarted => assert!(!opened.superblock().flags.initialized()),
                // Between the superblocks of several devices: some have no journal yet.
                _ if opened.notices().iter().any(|n| matches!(n, Notice::Stale { .. })) => {}
                _ => assert!(check(&opened).is_clean(), "at {at} of {}", time.now()),
            }
        }
    }
    let two = made::shared(&never_started(3)[..2]);
    let degraded = OpenOptions { degraded: Degraded::Yes, ..OpenOptions::default() };
    let refused = frazil_volume::open_rw(two, degraded, &Default::default()).err().expect("one is missing");
    assert!(refused.to_string().contains("needs every device"), "{refused}");
}

/// As a formatter leaves a superblock.
fn unstarted(mut sb: Superblock) -> Superblock {
    sb.flags.set_initialized(false);
    sb.flags.set_clean(false);
    sb.flags.set_version_upgrade_complete(Version(0));
    (sb.seq, sb.compat) = (SbSeq(0), CompatFeatures::empty());
    sb.put_journal_buckets(&JournalV2::default());
    sb.sections.remove(SectionType::CLEAN);
    with_members(&mut sb, |flags| flags.set_freespace_initialized(false));
    let mut members = sb.members().unwrap();
    members.list.iter_mut().for_each(|m| m.seq = SbSeq(0));
    sb.put_members(&members);
    sb
}

#[test]
fn devices_must_be_writable() {
    let images = made::formatted(2, |_| ());
    let devices: Vec<Arc<dyn Device>> =
        vec![Arc::new(images[0].snapshot()), Arc::new(images[1].snapshot().read_only())];
    assert!(matches!(made::open_rw(devices), Err(OpenError::ReadOnlyDevice { .. })));
}

#[test]
fn numbers_never_come_again_after_a_clean_shutdown_either() {
    let devices = made::formatted(1, |sb| {
        let mut list = JournalSeqBlacklist::default();
        list.add(Seq(5)..Seq(5000));
        sb.sections.put(&list);
    });
    let volume = made::open_rw(made::shared(&devices)).unwrap();
    assert_eq!(volume.journal.meta().unwrap(), Seq(5000), "I34");
}

/// Every write since the beginning: device, first byte, length.
fn writes(recorded: &[Arc<Stamped>]) -> Vec<(usize, u64, u64)> {
    let mut all = Vec::new();
    for (i, device) in recorded.iter().enumerate() {
        for event in device.recorder().log().events {
            match event {
                Event::Write { offset_bytes, contents: Contents::Bytes(bytes), stable, .. } => {
                    assert!(stable, "each is written through");
                    all.push((i, offset_bytes, bytes.len() as u64));
                }
                Event::Write { .. } => panic!("nothing is discarded or zeroed"),
                Event::Flush | Event::Mark(_) => {}
            }
        }
    }
    all
}

#[test]
fn before_replay_only_the_marker_and_superblocks_are_written() {
    let mut tried = 0;
    for image in made::writable_golden().into_iter().filter(|i| i.state == State::Killed) {
        let time = Arc::new(Time::default());
        let images = made::golden_devices(&image);
        let recorded: Vec<_> = images.iter().map(|i| Arc::new(Stamped::new(i.snapshot(), &time))).collect();
        let devices: Vec<_> = recorded.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
        let before = read_superblock(&images[0]).unwrap();
        let volume =
            made::open_golden(&image, devices.clone()).unwrap_or_else(|e| panic!("{}: {e}", image.name));

        let members = before.members().unwrap();
        let bucket = |i: usize, at: u64| {
            let member = members.get(DevIndex(i as u8)).unwrap();
            frazil_ondisk::units::BucketIndex(at / SECTOR_BYTES / member.bucket_size().0)
        };
        let in_journal = |&(i, at, _): &(usize, u64, u64)| {
            let own = read_superblock(&images[i]).unwrap();
            own.journal_buckets().unwrap().buckets().any(|b| b == bucket(i, at))
        };
        let all = writes(&recorded);
        let (markers, superblocks): (Vec<_>, Vec<_>) = all.into_iter().partition(in_journal);
        assert_eq!(markers.len(), usize::from(before.flags.metadata_replicas()), "{}", image.name);
        assert!(markers.iter().all(|(_, _, len)| *len <= 8192), "{}: {markers:?}", image.name);
        let copies: Vec<u64> = before.layout.copies().map(|s| s.0 * SECTOR_BYTES).collect();
        assert!(superblocks.iter().all(|(_, at, _)| copies.contains(at)), "{}: {superblocks:?}", image.name);
        assert_eq!(superblocks.len(), copies.len() * images.len(), "{}: one write", image.name);

        let Recovery::Replayed { last, .. } = volume.recovery else { panic!("{}", image.name) };
        let ranges = volume.superblock.blacklisted().unwrap();
        let added = ranges.last().unwrap();
        assert!(added.start.0 == last.0 + 1 || ranges.len() == 1, "{}: {ranges:?} after {last}", image.name);
        assert!(ranges.iter().any(|r| r.contains(&Seq(last.0 + 1))));
        check_crashes(&image, &recorded, time.now(), &volume.recovery, added.end);
        tried += 1;
    }
    assert!(tried >= 8, "only {tried} images");
}

/// Recovery that crashed anywhere recovers to the same state, and never uses a number again.
fn check_crashes(image: &GoldenImage, recorded: &[Arc<Stamped>], end: u64, how: &Recovery, first_new: Seq) {
    let Recovery::Replayed { first, last, .. } = how else { panic!("{how:?}") };
    for at in 0..=end {
        let crashed: Vec<MemDevice> = recorded.iter().map(|d| d.crash_at(at).all_lost()).collect();
        let again = made::open_golden(image, made::shared(&crashed)).unwrap();
        let Recovery::Replayed { first: f, last: l, .. } = &again.recovery else { panic!() };
        assert_eq!((f, l), (first, last), "{} at {at}", image.name);
        let next = again.superblock.blacklisted().unwrap().last().unwrap().end;
        assert!(at == 0 && next == first_new || at > 0 && next > first_new, "{} at {at}: {next}", image.name);
    }
}

/// Remembers what is replayed.
#[derive(Default)]
struct Recorder {
    put: RefCell<BTreeMap<(BtreeId, u8, Bpos), KeyBuf>>,
    /// Of what was put: the step, and the entry it is from.
    order: RefCell<Vec<(Step, Seq)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Pointers(std::cmp::Reverse<u8>),
    Counters,
    Space,
    Keys,
}

impl ReplayTarget for Recorder {
    fn replay(
        &self,
        btree: BtreeId,
        level: u8,
        key: KeyBuf,
        hold: &ReplayHold<'_>,
    ) -> Result<(), CommitError> {
        let twice = self.put.borrow_mut().insert((btree, level, key.k.pos), key);
        assert_eq!(twice, None, "each position once");
        let step = match level {
            0 if SPACE.contains(&btree) => Step::Space,
            0 => Step::Keys,
            _ => Step::Pointers(std::cmp::Reverse(level)),
        };
        self.order.borrow_mut().push((step, hold.protected_seq()));
        Ok(())
    }

    fn replay_counters(&self, delta: KeyBuf, hold: &ReplayHold<'_>) -> Result<(), CommitError> {
        assert_eq!(
            delta.k.version.lo >> 32,
            hold.protected_seq().0,
            "its version says which entry it is from"
        );
        self.order.borrow_mut().push((Step::Counters, hold.protected_seq()));
        Ok(())
    }
}

#[test]
fn replay_gives_what_the_overlay_shows() {
    let mut counters = 0;
    for image in made::writable_golden().into_iter().filter(|i| i.state == State::Killed) {
        let images = made::golden_devices(&image);
        let shown = made::read_golden(&image, made::shared(&images)).unwrap();
        let volume = made::open_golden(&image, made::shared(&images)).unwrap();
        let target = Recorder::default();
        assert!(!volume.replay.is_nothing());
        volume.replay.run(&volume.journal, &target).unwrap();
        assert_eq!(volume.journal.status().pins.unreplayed, 0, "{}: all entries are let go", image.name);

        let order = target.order.into_inner();
        assert!(order.is_sorted_by_key(|(step, _)| *step), "{}: pointers, space, counters, keys", image.name);
        let keys: Vec<Seq> = order.iter().filter(|(step, _)| *step == Step::Keys).map(|o| o.1).collect();
        assert!(keys.is_sorted(), "{}: in the order of the journal", image.name);
        counters += order.iter().filter(|(step, _)| *step == Step::Counters).count();
        for ((btree, _, pos), key) in target.put.into_inner().into_iter().filter(|(at, _)| at.1 == 0) {
            let shown = shown.btrees().get(btree, pos).unwrap().map(|key| key.key().to_owned());
            let replayed = (key.k.ty != KeyType::DELETED).then_some(key);
            assert_eq!(replayed, shown, "{}: {btree} {pos}", image.name);
        }
    }
    assert!(counters > 100, "{counters} differences of counters");
}
