//! What every journal entry carries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use frazil_btree::Root;
use frazil_device::{Device, Fault, FaultyDevice, MemDevice};
use frazil_journal::engine::{Dirt, HaltReason, Host, Wait};
use frazil_journal::{Journal, Watermark};
use frazil_ondisk::data_type::DataType;
use frazil_ondisk::jset::{EntryType, JsetEntry, UsageKind};
use frazil_ondisk::superblock::sections::Clean;
use frazil_ondisk::superblock::sections::replicas::ReplicasEntry;
use frazil_ondisk::units::{DevIndex, Sectors, Seq};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_volume::write::{self, JournalEvents, WriteOptions};
use frazil_volume::{JournalView, OpenOptions, Recovery, open};

use crate::made::{self, StoppedClock};

/// A b-tree that no version has yet, and whose root must not be lost.
const FOREIGN: BtreeId = BtreeId(40);

/// A pointer to a node, distinct by `nr`.
fn pointer(nr: u8) -> KeyBuf {
    let mut value = vec![0; 48];
    value[8] = nr;
    KeyBuf::new(KeyType::BTREE_PTR_V2, Bpos::MAX, 0, value)
}

fn root(nr: u8, level: u8) -> Root {
    Root::At { level, key: pointer(nr) }
}

/// A volume that ends with clocks, a key version and, besides its own, the root of a foreign b-tree.
fn with_foreign_root() -> Vec<MemDevice> {
    made::formatted(1, |sb| {
        let mut clean = sb.sections.get::<Clean>().unwrap().unwrap();
        let mut entries = Vec::new();
        for entry in clean.entries().map(Result::unwrap) {
            match entry {
                JsetEntry::Usage { kind, .. } => JsetEntry::Usage { kind, value: 77 }.encode(&mut entries),
                JsetEntry::Clock { write, .. } => {
                    let time = Sectors(if write { 2000 } else { 1000 });
                    JsetEntry::Clock { write, time }.encode(&mut entries);
                }
                other => other.encode(&mut entries),
            }
        }
        let key = pointer(2);
        JsetEntry::BtreeRoot { btree: FOREIGN, level: 1, key: Some(key.as_key()) }.encode(&mut entries);
        clean.entries = entries;
        sb.sections.put(&clean);
    })
}

fn commit(journal: &Journal, ty: EntryType, btree: BtreeId, level: u8, key: &KeyBuf) -> Seq {
    let words = 1 + key.as_key().u64s() as u32;
    let mut room = journal.reserve(words, Watermark::Normal, Wait::Forever).unwrap();
    room.push_key(ty, btree, level, key.as_key());
    room.seq()
}

/// One entry of a journal, as text: of roots those of three b-trees.
fn listed(view: &JournalView, seq: u64) -> Vec<String> {
    let survey = view.survey().unwrap();
    let jset = view.load(&survey.found[&Seq(seq)].copies[0]).unwrap();
    let shown = |entry: &JsetEntry<'_>| match entry {
        JsetEntry::BtreeRoot { btree, .. } => [BtreeId::XATTRS, BtreeId::EXTENTS, FOREIGN].contains(btree),
        _ => true,
    };
    let entries = frazil_ondisk::jset::entries(jset.list()).map(Result::unwrap).filter(shown);
    let entries = entries.map(|entry| match entry {
        JsetEntry::BtreeRoot { btree, level, key } => {
            format!("root {btree} {level} {}", key.unwrap().value[8])
        }
        JsetEntry::BtreeKeys(list) => format!("keys {}", list.btree),
        JsetEntry::Usage { kind: UsageKind::KEY_VERSION, value } => format!("version {value}"),
        JsetEntry::Clock { write, time } => format!("clock {write} {time}"),
        JsetEntry::Datetime { seconds } => format!("time {seconds}"),
        other => panic!("{other:?}"),
    });
    entries.collect()
}

fn view(devices: &[Arc<dyn Device>]) -> JournalView {
    JournalView::open(devices.to_vec(), OpenOptions::default()).unwrap()
}

fn options() -> WriteOptions {
    WriteOptions { wall: StoppedClock::at(2_000_000_000), ..WriteOptions::default() }
}

#[test]
fn every_entry_carries_roots_clocks_and_key_version() {
    let devices = made::shared(&with_foreign_root());
    let volume = write::open_rw(devices.clone(), OpenOptions::default(), &options()).unwrap();
    let (journal, host) = (&volume.journal, &volume.host);
    let before = host.durable_roots();
    let key = KeyBuf::new(KeyType::SET, Bpos::new(0, 9, 0), 0, vec![]);

    commit(journal, EntryType::BTREE_KEYS, BtreeId::ALLOC, 0, &key);
    journal.flush().unwrap();
    host.clocks().has_read(Sectors(5));
    host.clocks().has_written(Sectors(8));
    assert_eq!(host.next_key_version(), 78);
    commit(journal, EntryType::BTREE_ROOT, BtreeId::XATTRS, 2, &pointer(3));
    commit(journal, EntryType::BTREE_ROOT, BtreeId::EXTENTS, 0, &pointer(4));
    commit(journal, EntryType::BTREE_ROOT, BtreeId::XATTRS, 2, &pointer(5));
    commit(journal, EntryType::WRITE_BUFFER_KEYS, BtreeId::LRU, 0, &key);
    let last = commit(journal, EntryType::BTREE_KEYS, BtreeId::ALLOC, 0, &key);
    journal.flush().unwrap();

    assert_eq!(last, Seq(3), "numbers go on from the clean section");
    let (view, foreign) = (view(&devices), format!("root {FOREIGN} 1 2"));
    let common = |version, read, written| {
        vec![
            "time 2000000000".to_owned(),
            format!("version {version}"),
            format!("clock false {read}"),
            format!("clock true {written}"),
        ]
    };
    let alloc = format!("keys {}", BtreeId::ALLOC);
    assert_eq!(listed(&view, 2), [vec![alloc.clone(), foreign.clone()], common(77, 1000, 2000)].concat());
    let own = vec![
        "root xattrs 2 3".to_owned(),
        "root extents 0 4".to_owned(),
        "root xattrs 2 5".to_owned(),
        "keys lru".to_owned(),
        alloc,
        foreign,
    ];
    assert_eq!(listed(&view, 3), [own, common(78, 1005, 2008)].concat());

    let mut expected = before;
    expected.insert(BtreeId::XATTRS, root(5, 2));
    expected.insert(BtreeId::EXTENTS, root(4, 0));
    assert_eq!(host.durable_roots(), expected);
    assert_eq!(expected[&FOREIGN], root(2, 1));
    // What recovery makes of it.
    assert_eq!(open(devices, OpenOptions::default()).unwrap().btrees().roots(), expected);
}

#[test]
fn every_root_that_may_come_has_its_room() {
    let devices = made::shared(&with_foreign_root());
    let volume = write::open_rw(devices.clone(), OpenOptions::default(), &options()).unwrap();
    assert_eq!(volume.host.common_words(), 21 * 15 + 15 + 10);
    for btree in BtreeId::known().filter(|b| b.0 <= BtreeId::ACCOUNTING.0) {
        let mut value = vec![0; 72];
        value[8] = btree.0;
        let key = KeyBuf::new(KeyType::BTREE_PTR_V2, Bpos::MAX, 0, value);
        commit(&volume.journal, EntryType::BTREE_ROOT, btree, 0, &key);
    }
    volume.journal.flush().unwrap();
    // An entry without anything of its own carries them all.
    let last = volume.journal.meta().unwrap();
    let reopened = open(devices, OpenOptions::default()).unwrap();
    let Recovery::Replayed { last: newest, .. } = reopened.recovery() else { panic!("it is not clean") };
    assert_eq!((*newest, reopened.btrees().roots().len()), (last, 22));
}

#[derive(Default)]
struct Listener {
    flushed: AtomicU64,
    told: Mutex<Vec<String>>,
}

impl JournalEvents for Listener {
    fn flushed(&self, seq: Seq) {
        self.flushed.store(seq.0, Ordering::SeqCst);
    }

    fn device_failed(&self, dev: DevIndex, _: &frazil_device::Error) {
        self.told.lock().unwrap().push(format!("device {dev}"));
    }

    fn halted(&self, reason: &HaltReason) {
        self.told.lock().unwrap().push(reason.to_string());
    }

    fn dirt(&self) -> Dirt {
        Dirt { many_nodes: true, cached_keys: 3, buffer_full: false }
    }
}

#[test]
fn listeners_hear_what_happens_as_long_as_they_live() {
    let faulty: Vec<_> = made::formatted(2, |_| ())
        .into_iter()
        .map(|d: MemDevice| Arc::new(FaultyDevice::new(Arc::new(d))))
        .collect();
    let devices: Vec<_> = faulty.iter().map(|d| d.clone() as Arc<dyn Device>).collect();
    let volume = write::open_rw(devices, OpenOptions::default(), &options()).unwrap();
    let (one, other) = (Arc::new(Listener::default()), Arc::new(Listener::default()));
    for listener in [&one, &other] {
        let listener: Weak<Listener> = Arc::downgrade(listener);
        volume.host.listen(listener);
    }
    assert_eq!(volume.host.dirt(), Dirt { many_nodes: true, cached_keys: 6, buffer_full: false });
    let seq = volume.journal.meta().unwrap();
    assert_eq!(one.flushed.load(Ordering::SeqCst), seq.0);
    let entry =
        |dev| ReplicasEntry { data_type: DataType::JOURNAL, nr_required: 1, devs: vec![DevIndex(dev)] };
    let view = volume.superblock.view();
    assert!(view.has_replicas(&entry(0)) || view.has_replicas(&entry(1)), "listed before it was written");

    drop(other);
    assert_eq!(volume.host.dirt().cached_keys, 3);
    faulty.iter().for_each(|d| d.inject(Fault::writes()));
    assert!(volume.journal.meta().is_err());
    let told = one.told.lock().unwrap();
    assert!(
        told.len() == 2 && told[0].starts_with("device ") && told[1].contains("was not written"),
        "{told:?}"
    );
}
