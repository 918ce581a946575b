//! Damaged data: exactly the bytes that are lost are errors, and each lost extent is one line in the log. Damaged metadata:
//! exactly the names that are lost are missing, and it is said that some are.

use std::fmt::Write;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use frazil_device::{Device, MemDevice};
use frazil_ondisk::node::BtreePtrV2;
use frazil_ondisk::units::{Inum, SECTOR_BYTES, SnapshotId};
use frazil_ondisk::values::extent::{Entries, Entry, Pointers};
use frazil_ondisk::{Bpos, BtreeId, KeyType};
use frazil_posix::{Attr, DirEntry, Error, FileType, Fs, NodeId, Visit, WalkStep};
use frazil_testing::golden;
use frazil_volume::{OpenOptions, open};
use tracing::field::{Field, Visit as FieldVisit};
use tracing::{Event, Metadata, Subscriber, span};

/// Keeps the lines of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no test panics while it logs"))
    }
}

impl FieldVisit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let mut line = String::new();
            write!(line, "{value:?}").expect("strings grow");
            self.0.lock().expect("no test panics while it logs").push(line);
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn mount(bytes: &[u8]) -> Fs {
    let device = Arc::new(MemDevice::from_bytes(bytes)) as Arc<dyn Device>;
    Fs::new(Arc::new(open(vec![device], OpenOptions::default()).expect("the image opens")))
}

/// A file, an extent in its middle whose bytes are stored as they are and have a checksum, and the sector they are at.
fn find_extent(fs: &Fs) -> (Vec<u8>, Attr, Range<u64>, u64) {
    let view = fs.volume().snapshots().view(SnapshotId(u32::MAX)).expect("the only snapshot");
    let mut found = None;
    fs.walk(fs.root(), &mut |path, visit| {
        let Visit::Object(attr) = visit else { return WalkStep::Continue };
        if attr.kind != FileType::Regular {
            return WalkStep::Continue;
        }
        let sectors = 0..attr.size / SECTOR_BYTES;
        let mut extents = fs.volume().btrees().visible_extents(&view, attr.node.inum, sectors.clone());
        while let Some(key) = extents.next().expect("golden nodes can be read") {
            let start = key.k.start_offset().expect("golden extents make sense");
            if key.k.ty != KeyType::EXTENT || start == 0 || key.k.pos.offset >= sectors.end {
                continue;
            }
            let replica = Pointers::new(key.value, key.k.size).next().expect("a pointer").expect("decodes");
            if replica.crc.is_encoded() && !replica.crc.is_compressed() && replica.crc.offset == 0 {
                let bytes = start * SECTOR_BYTES..key.k.pos.offset * SECTOR_BYTES;
                found = Some((path.to_vec(), attr.clone(), bytes, replica.ptr.offset.0));
                return WalkStep::Stop;
            }
        }
        WalkStep::Continue
    });
    found.expect("the image has a file of several extents with checksums")
}

#[test]
fn a_bad_extent_is_an_error_for_its_bytes_and_one_line_in_the_log() {
    let image = golden::image("02-small-tree");
    let mut bytes = image.bytes().remove(0);
    let sound = mount(&bytes);
    let (path, attr, bad, sector) = find_extent(&sound);
    let mut expected = vec![0; attr.size as usize];
    assert_eq!(sound.read(attr.node, 0, &mut expected).expect("sound"), expected.len());

    bytes[(sector * SECTOR_BYTES) as usize + 7] ^= 0x10;
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let fs = mount(&bytes);
        let mut buf = vec![0; expected.len()];
        // From the beginning: everything in front of it.
        let read = fs.read(attr.node, 0, &mut buf).expect("the beginning is sound");
        assert_eq!(read as u64, bad.start);
        assert_eq!(buf[..read], expected[..read]);
        // In it, wherever.
        for at in [bad.start, bad.start + 1, bad.end - 1] {
            let error = fs.read(attr.node, at, &mut [0; 4096]).expect_err("it is lost");
            let Error::Io(text) = &error else { panic!("{error:?}") };
            assert!(text.contains(&format!("sector {sector}")), "{text}");
        }
        // Behind it.
        let read = fs.read(attr.node, bad.end, &mut buf).expect("the rest is sound");
        assert_eq!(buf[..read], expected[bad.end as usize..]);

        let lines = log.take();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let path = String::from_utf8(path).expect("golden paths are UTF-8");
        for part in [format!("/{path}"), format!("inode {}", attr.node.inum), format!("sector {sector}")] {
            assert!(lines[0].contains(&part), "{} lacks {part}", lines[0]);
        }
    });
}

/// The sector of a leaf of the dirents b-tree in the middle of a directory, and the range of its positions.
fn find_leaf(fs: &Fs) -> (u64, Bpos, Bpos) {
    let btrees = fs.volume().btrees();
    let mut leaves = btrees.level_cursor(BtreeId::DIRENTS, 1, ..);
    while let Some(key) = leaves.next().expect("golden nodes can be read") {
        let node = BtreePtrV2::decode(key.value).expect("golden pointers decode");
        if node.min_key.inode != key.k.pos.inode {
            continue;
        }
        for entry in Entries::new(node.entries) {
            if let Ok(Entry::Ptr(ptr)) = entry {
                return (ptr.offset.0, node.min_key, key.k.pos);
            }
        }
    }
    panic!("the image has a directory of several leaves");
}

#[test]
fn a_lost_node_takes_away_its_names_only_and_is_told() {
    let image = golden::image("03-many-files");
    let mut bytes = image.bytes().remove(0);
    let sound = mount(&bytes);
    let (sector, first, last) = find_leaf(&sound);
    let dir = NodeId { inum: Inum(first.inode), ..sound.root() };
    let lost = |next: u64| (first.offset..=last.offset).contains(&(next - 1));
    let mut names: Vec<(Vec<u8>, u64)> = Vec::new();
    sound
        .readdir(dir, 0, &mut |entry| {
            names.push((entry.name.to_vec(), entry.next));
            ControlFlow::Continue(())
        })
        .expect("the image is sound");

    // Not only the header, so that nothing in it can be believed.
    let at = (sector * SECTOR_BYTES) as usize;
    bytes[at..at + 4096].fill(0x55);
    let fs = mount(&bytes);
    for (name, next) in &names {
        match fs.lookup(dir, name) {
            Ok(_) => assert!(!lost(*next)),
            Err(Error::Io(text)) => assert!(lost(*next) && text.contains("dirents"), "{text}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    // A listing stops in front of the damage, also when it is begun again.
    let mut listed = 0;
    let mut count = |_: DirEntry<'_>| {
        listed += 1;
        ControlFlow::Continue(())
    };
    assert!(matches!(fs.readdir(dir, 0, &mut count), Err(Error::Io(_))));
    assert_eq!(listed, names.iter().take_while(|name| !lost(name.1)).count());
    assert!(matches!(
        fs.readdir(dir, first.offset.max(3), &mut |_| ControlFlow::Continue(())),
        Err(Error::Io(_))
    ));
    // A walk passes over it, and says so.
    let (mut visited, mut told) = (0, 0);
    fs.walk(dir, &mut |path, visit| {
        match visit {
            Visit::Object(_) if path.is_empty() => {}
            Visit::Object(_) => visited += 1,
            Visit::Unreadable(e) => panic!("{}: {e}", path.escape_ascii()),
            Visit::Unlistable(_) => told += 1,
        }
        WalkStep::Continue
    });
    assert_eq!((visited, told), (names.iter().filter(|name| !lost(name.1)).count(), 1));
    assert!(visited > 0 && visited < names.len());
}
