//! Everything a reader does with a volume, damaged or not.
//!
//! Errors are expected, and are turned into text as a program would. What must hold whatever the bytes: nothing panics, everything ends,
//! a listing backwards is the listing forwards, offsets move on. How much is looked at is limited to what can have changed and a sample
//! of the rest, because the same undamaged things have been read a thousand times.

use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use fastrand::Rng;
use frazil_btree::{Btrees, Cursor, Root, SnapshotCursor};
use frazil_device::Device;
use frazil_ondisk::jset::{JsetEntry, entries};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::assembly::Degraded;
use frazil_ondisk::superblock::describe::describe;
use frazil_ondisk::superblock::members::Members;
use frazil_ondisk::units::{DevIndex, Gen, Seq};
use frazil_ondisk::values::Value;
use frazil_ondisk::values::list::{self, ListContext};
use frazil_ondisk::values::positions::DevBucket;
use frazil_ondisk::version::Version;
use frazil_ondisk::{Bpos, BtreeId, Key};
use frazil_posix::{Attr, Error, FileType, Fs, NodeId, Visit, WalkStep, Whence};
use frazil_volume::open::read_superblock;
use frazil_volume::{JournalView, OpenOptions, Passphrase, Volume, open};

use crate::damage::Target;

/// Node cache: small, so that nodes are evicted.
const CACHE_BYTES: usize = 4 << 20;
/// Objects in no golden image's tree; a walk that finds more goes round in circles.
const OBJECTS_MAX: usize = 100_000;
/// Objects looked at closely in one visit, about.
const CLOSE_LOOKS: usize = 48;
/// Undamaged journal entries shown in one visit.
const JSETS_SHOWN: usize = 2;

/// The keys of the undamaged volume, by their hashes: they have been shown once, and need not be again.
#[derive(Default)]
pub(crate) struct Known(HashSet<u64>);

impl Known {
    fn contains(&self, key: Key<'_>) -> bool {
        self.0.contains(&Known::hash(key))
    }

    fn hash(key: Key<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (key.k.pos, key.k.ty, key.k.size, key.value).hash(&mut hasher);
        hasher.finish()
    }
}

/// What to look at above all.
pub(crate) struct Focus<'k> {
    known: &'k Known,
    btrees: BTreeSet<BtreeId>,
    journal: Option<Seq>,
    superblock: bool,
}

impl Focus<'_> {
    /// What damage to these can change.
    pub(crate) fn on<'k>(targets: &[Target], known: &'k Known) -> Focus<'k> {
        let mut focus = Focus { known, btrees: BTreeSet::new(), journal: None, superblock: false };
        for target in targets {
            match *target {
                Target::Super { .. } => focus.superblock = true,
                Target::Jset { seq, .. } => focus.journal = Some(Seq(seq)),
                Target::Node { btree, .. } => drop(focus.btrees.insert(btree)),
            }
        }
        focus
    }

    /// Whether the damage may show in files.
    fn reaches_files(&self) -> bool {
        let beside = !self.btrees.is_empty() && self.btrees.iter().all(|btree| BESIDE_FILES.contains(btree));
        self.superblock || self.journal.is_some() || !beside
    }
}

/// B-trees that are not looked at for the sake of a file.
const BESIDE_FILES: [BtreeId; 9] = [
    BtreeId::QUOTAS,
    BtreeId::LRU,
    BtreeId::FREESPACE,
    BtreeId::NEED_DISCARD,
    BtreeId::BACKPOINTERS,
    BtreeId::BUCKET_GENS,
    BtreeId::DELETED_INODES,
    BtreeId::REBALANCE_WORK,
    BtreeId::ACCOUNTING,
];

/// What a visit met.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    /// The volume could be opened.
    pub(crate) opened: bool,
    pub(crate) keys: usize,
    pub(crate) objects: usize,
    /// Bytes of files read.
    pub(crate) bytes: u64,
    /// Errors and problems.
    pub(crate) complaints: usize,
    /// Bytes of text made.
    pub(crate) text: usize,
}

/// Text nobody reads: only its length is kept.
impl Write for Seen {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text += text.len();
        Ok(())
    }
}

impl Seen {
    fn show(&mut self, what: impl fmt::Display) {
        write!(self, "{what}").expect("nothing here fails");
    }

    fn complain(&mut self, what: impl fmt::Display) {
        self.complaints += 1;
        self.show(what);
    }

    /// The answer of an operation on a file. That there is no such thing is an answer too.
    fn answer<T>(&mut self, result: frazil_posix::Result<T>) -> Option<T> {
        match result {
            Err(error @ (Error::Io(_) | Error::Stale(_))) => self.complain(error),
            Err(error) => self.show(error),
            Ok(value) => return Some(value),
        }
        None
    }

    /// A result that may be an error.
    fn ok<T>(&mut self, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|error| self.complain(error)).ok()
    }
}

/// Lists all keys of a sound volume.
pub(crate) fn get_to_know(devices: &[Arc<dyn Device>]) -> Known {
    let volume = open(devices.to_vec(), OpenOptions::default()).expect("a sound volume can be opened");
    let btrees = volume.btrees();
    let mut known = Known::default();
    for (btree, _) in btrees.roots() {
        for level in 0..=frazil_btree::LEVEL_MAX {
            let mut cursor = btrees.level_cursor(btree, level, ..);
            while let Some(key) = cursor.next().expect("a sound volume can be read") {
                known.0.insert(Known::hash(key));
            }
        }
    }
    known
}

/// Does everything a reader does with the volume on these devices.
pub(crate) fn visit(devices: &[Arc<dyn Device>], focus: &Focus<'_>, rng: &mut Rng) -> Seen {
    let mut seen = Seen::default();
    if focus.superblock || rng.u32(..16) == 0 {
        devices.iter().for_each(|device| show_super(device, &mut seen));
    }
    if focus.journal.is_some() || rng.u32(if focus.superblock { ..4 } else { ..64 }) == 0 {
        show_journal(devices, focus, rng, &mut seen);
    }
    let Some(volume) = open_somehow(devices, rng, &mut seen) else { return seen };
    seen.opened = true;
    for notice in volume.notices() {
        seen.complain(notice);
    }
    show_btrees(&volume, focus, rng, &mut seen);
    if focus.reaches_files() || rng.u32(..8) == 0 {
        show_files(&Fs::new(Arc::clone(&volume)), rng, &mut seen);
    }
    for problem in volume.btrees().problems() {
        seen.complain(problem);
    }
    seen
}

fn show_super(device: &Arc<dyn Device>, seen: &mut Seen) {
    let Some(mut superblock) = seen.ok(read_superblock(&**device)) else { return };
    superblock.fill_defaults();
    let valid = superblock.validate();
    seen.ok(valid);
    let facts = describe(&superblock);
    write!(seen, "{facts:?}").expect("nothing here fails");
}

fn show_journal(devices: &[Arc<dyn Device>], focus: &Focus<'_>, rng: &mut Rng, seen: &mut Seen) {
    let options = OpenOptions { degraded: Degraded::Very, ..OpenOptions::default() };
    let Some(journal) = seen.ok(JournalView::open(devices.to_vec(), options)) else { return };
    let Some(survey) = seen.ok(journal.survey()) else { return };
    survey.problems.iter().for_each(|problem| seen.complain(problem));
    if let Err(why) = &survey.range {
        seen.complain(why);
    }
    let context = Context { superblock: journal.superblock(), members: journal.members(), btrees: None };
    let from = rng.usize(..=survey.found.len());
    let sample = survey.found.iter().skip(from).take(JSETS_SHOWN);
    let damaged = survey.found.iter().filter(|(seq, _)| Some(**seq) == focus.journal);
    for (_, entry) in sample.chain(damaged) {
        entry.copies.iter().filter_map(|copy| copy.damage.as_ref()).for_each(|damage| seen.complain(damage));
        let Some(copy) = entry.good() else { continue };
        let Some(jset) = seen.ok(journal.load(copy)) else { continue };
        for sub in entries(jset.list()) {
            match sub {
                Ok(JsetEntry::BtreeKeys(list) | JsetEntry::Overwrite(list) | JsetEntry::LogBkey(list)) => {
                    for key in list.keys {
                        match key {
                            Ok(key) => seen.show(list::key(key, &context)),
                            Err(why) => seen.complain(why),
                        }
                    }
                }
                Ok(sub) => seen.show(sub),
                Err(why) => seen.complain(why),
            }
        }
    }
}

/// Opens the volume, strictly or not; if that is refused, in the way that refuses least.
fn open_somehow(devices: &[Arc<dyn Device>], rng: &mut Rng, seen: &mut Seen) -> Option<Arc<Volume>> {
    let options = OpenOptions {
        degraded: [Degraded::No, Degraded::Yes, Degraded::Very][rng.usize(..3)],
        ignore_split_brain: rng.bool(),
        salvage_journal: rng.bool(),
        cache_bytes: CACHE_BYTES,
        passphrase: Passphrase::None,
    };
    if let Some(volume) = seen.ok(open(devices.to_vec(), options)) {
        return Some(Arc::new(volume));
    }
    let most = OpenOptions {
        degraded: Degraded::Very,
        ignore_split_brain: true,
        salvage_journal: true,
        cache_bytes: CACHE_BYTES,
        passphrase: Passphrase::None,
    };
    seen.ok(open(devices.to_vec(), most)).map(Arc::new)
}

/// Lists b-trees: those that were damaged, and one more.
fn show_btrees(volume: &Volume, focus: &Focus<'_>, rng: &mut Rng, seen: &mut Seen) {
    let btrees = volume.btrees();
    let context =
        Context { superblock: volume.superblock(), members: volume.members(), btrees: Some(btrees) };
    seen.ok(volume.usage());
    let all: Vec<BtreeId> = BtreeId::known().chain(btrees.roots().into_keys()).collect();
    let mut wanted = focus.btrees.clone();
    wanted.extend(rng.choice(&all));
    for btree in wanted {
        let top = match btrees.root(btree) {
            Some(Root::At { level, .. }) => level,
            _ => 0,
        };
        for level in 0..=top.min(frazil_btree::LEVEL_MAX) {
            show_level(btrees, btree, level, |key| focus.known.contains(key), &context, seen);
        }
        if btree.has_snapshots() {
            let ids: Vec<_> = volume.snapshots().ids().collect();
            if let Some(Ok(view)) = rng.choice(&ids).map(|id| volume.snapshots().view(*id)) {
                let mut range = Bpos::MIN..Bpos::MAX;
                if rng.bool() {
                    range =
                        Bpos::new(rng.u64(4000..4400), rng.u64(..32), 0)..Bpos::new(rng.u64(..5000), 0, 0);
                }
                show_visible(|| btrees.visible(btree, &view, range.clone()), seen);
                let inode = frazil_ondisk::units::Inum(rng.u64(4096..4200));
                let sectors = rng.u64(..200)..rng.u64(..2000);
                show_visible(|| btrees.visible_extents(&view, inode, sectors.clone()), seen);
            }
        }
    }
}

/// Lists a level of a b-tree forwards, as text, and backwards.
fn show_level(
    btrees: &Btrees,
    btree: BtreeId,
    level: u8,
    is_known: impl Fn(Key<'_>) -> bool,
    context: &Context<'_>,
    seen: &mut Seen,
) {
    let mut forwards = Vec::new();
    let mut cursor = btrees.level_cursor(btree, level, ..);
    while let Some(key) = step(seen, &mut cursor, |cursor| cursor.step_next()) {
        assert!(forwards.last() < Some(&key.k.pos), "{btree}: keys are in order");
        forwards.push(key.k.pos);
        if !is_known(key) {
            seen.show(list::key(key, context));
        }
    }
    seen.keys += forwards.len();
    let mut cursor = btrees.level_cursor(btree, level, ..);
    cursor.seek_end();
    while let Some(key) = step(seen, &mut cursor, |cursor| cursor.step_prev()) {
        assert_eq!(forwards.pop(), Some(key.k.pos), "{btree}: backwards is forwards, from behind");
    }
    assert!(forwards.is_empty(), "{btree}: backwards there are fewer keys");
}

/// One step of a cursor; what cannot be read is stepped over.
fn step<'c>(
    seen: &mut Seen,
    cursor: &'c mut Cursor<'_>,
    go: impl Fn(&mut Cursor<'_>) -> frazil_btree::Result<bool>,
) -> Option<Key<'c>> {
    loop {
        match go(cursor) {
            Ok(true) => return cursor.key(),
            Ok(false) => return None,
            Err(error) => {
                seen.complain(error);
                cursor.skip_bad_node()?;
            }
        }
    }
}

/// Lists what a snapshot sees forwards and backwards.
fn show_visible<'t>(cursor: impl Fn() -> SnapshotCursor<'t>, seen: &mut Seen) {
    let mut forwards = Vec::new();
    let mut at = cursor();
    let mut complaints = 0;
    loop {
        match at.step_next() {
            Ok(true) => forwards.extend(at.key().map(|key| key.k.pos)),
            Ok(false) => break,
            Err(error) => {
                complaints += 1;
                seen.complain(error);
                if at.skip_bad_node().is_none() {
                    break;
                }
            }
        }
    }
    seen.keys += forwards.len();
    let mut backwards = Vec::new();
    let mut at = cursor();
    if let Err(error) = at.seek_end() {
        return seen.complain(error);
    }
    loop {
        match at.step_prev() {
            Ok(true) => backwards.extend(at.key().map(|key| key.k.pos)),
            Ok(false) => break,
            Err(error) => {
                complaints += 1;
                seen.complain(error);
                if at.skip_bad_node().is_none() {
                    break;
                }
            }
        }
    }
    // What hides behind a lost node may be seen from one side and not from the other.
    if complaints == 0 {
        backwards.reverse();
        assert_eq!(forwards, backwards, "a snapshot sees the same in both directions");
    }
}

/// Walks the whole tree, and looks closely at a sample of what is in it.
fn show_files(fs: &Fs, rng: &mut Rng, seen: &mut Seen) {
    seen.answer(fs.statfs());
    if let Some(subvolumes) = seen.answer(fs.subvolumes()) {
        subvolumes.iter().for_each(|subvolume| seen.text += subvolume.path.len());
    }
    let mut objects = Vec::new();
    fs.walk(fs.root(), &mut |path, found| {
        seen.text += path.len();
        match found {
            Visit::Object(attr) => objects.push(attr.clone()),
            Visit::Unreadable(error) | Visit::Unlistable(error) => seen.complain(error),
        }
        assert!(objects.len() < OBJECTS_MAX, "the walk goes round in circles");
        WalkStep::Continue
    });
    seen.objects += objects.len();
    let every = objects.len().div_ceil(CLOSE_LOOKS).max(1);
    for attr in objects.iter().skip(rng.usize(..every)).step_by(every) {
        look_closely(fs, attr, rng, seen);
    }
}

fn look_closely(fs: &Fs, attr: &Attr, rng: &mut Rng, seen: &mut Seen) {
    seen.text += fs.path_of(attr.node).len();
    if let Some(parent) = seen.answer(fs.parent(attr.node)) {
        seen.answer(fs.getattr(parent));
    }
    for name in seen.answer(fs.listxattr(attr.node)).unwrap_or_default() {
        seen.answer(fs.getxattr(attr.node, &name));
    }
    match attr.kind {
        FileType::Directory => show_directory(fs, attr.node, rng, seen),
        FileType::Symlink => drop(seen.answer(fs.readlink(attr.node))),
        FileType::Regular => show_content(fs, attr, rng, seen),
        _ => assert!(fs.read(attr.node, 0, &mut [0]).is_err(), "only files have content"),
    }
}

/// Lists a directory in pieces, and looks up some of the names.
fn show_directory(fs: &Fs, dir: NodeId, rng: &mut Rng, seen: &mut Seen) {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let (mut from, mut last) = (0, 0);
    let piece = rng.usize(1..100);
    loop {
        let before = names.len();
        let listed = fs.readdir_plus(dir, from, &mut |entry, _| {
            assert!(entry.next > last.max(2), "positions in a directory ascend");
            last = entry.next;
            names.push(entry.name.to_vec());
            if names.len() - before < piece { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if seen.answer(listed).is_none() || names.len() - before < piece {
            break;
        }
        assert!(names.len() < OBJECTS_MAX, "the listing goes round in circles");
        from = last;
    }
    let every = names.len().div_ceil(8).max(1);
    for name in names.iter().map(Vec::as_slice).step_by(every).chain([&b".."[..], b"no such name"]) {
        seen.answer(fs.lookup(dir, name));
    }
}

/// Reads a file at a few places, and follows its holes.
fn show_content(fs: &Fs, attr: &Attr, rng: &mut Rng, seen: &mut Seen) {
    let mut buffer = vec![0; 1 << rng.u32(9..17)];
    let size = attr.size;
    let anywhere = rng.u64(..=size);
    for offset in [0, anywhere, size.saturating_sub(100)] {
        if let Some(read) = seen.answer(fs.read(attr.node, offset, &mut buffer)) {
            let left = size.saturating_sub(offset).min(buffer.len() as u64);
            assert!(read as u64 <= left, "what is behind the end is not read");
            assert!(read > 0 || left == 0, "a read that succeeds moves on");
            seen.bytes += read as u64;
        }
    }
    let mut at = 0;
    for _ in 0..32 {
        let Some(Some(data)) = seen.answer(fs.next_data(attr.node, at)) else { break };
        assert!(
            at <= data.start && data.start < data.end && data.end <= size,
            "{data:?} from {at} of {size}"
        );
        at = data.end;
    }
    for whence in [Whence::Data, Whence::Hole] {
        if let Some(found) = seen.answer(fs.seek(attr.node, anywhere, whence)) {
            assert!(anywhere <= found && found <= size, "{whence:?} from {anywhere}: {found} of {size}");
        }
    }
}

/// What listings know beside the key, from the damaged volume itself.
struct Context<'v> {
    superblock: &'v Superblock,
    members: &'v Members,
    btrees: Option<&'v Btrees>,
}

impl ListContext for Context<'_> {
    fn version(&self) -> Version {
        self.superblock.version
    }

    fn bucket_sectors(&self, dev: DevIndex) -> Option<u64> {
        Some(self.members.get(dev)?.bucket_size().0)
    }

    fn durability(&self, dev: DevIndex) -> u32 {
        self.members.get(dev).map_or(0, |member| member.flags.durability().into())
    }

    fn bucket_gen(&self, at: DevBucket) -> Option<Gen> {
        let handle = self.btrees?.get(BtreeId::ALLOC, at.pos()).ok()??;
        match Value::decode(handle.key()) {
            Ok(Value::Alloc(alloc)) => Some(alloc.generation),
            _ => None,
        }
    }

    fn backpointer_shift(&self) -> u32 {
        self.superblock.extent_bp_shift().into()
    }
}
