//! Overwriting and removing ranges of a file in a tree of snapshots, against an array of sectors for each snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_btree::write::{CommitError, CommitOptions, EngineOptions, Overwritten};
use frazil_btree::{SnapshotInfo, SnapshotTable};
use frazil_ondisk::units::{DevIndex, Gen, Inum, Sectors, SnapshotId};
use frazil_ondisk::values::extent::{ExtentPtr, Pointers};
use frazil_ondisk::values::snapshot::SnapshotState;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use crate::growth::{new_device, shut_down};
use crate::seeds;
use crate::world::{self, World};

const FILE: Inum = Inum(5000);
const SECTORS: u64 = 96;

/// For each sector of the file where on the device it is.
type File = Vec<Option<u64>>;

/// The snapshots, and what each sees.
struct Snapshots {
    infos: Vec<SnapshotInfo>,
    files: BTreeMap<u32, File>,
    table: Arc<SnapshotTable>,
}

impl Snapshots {
    fn new() -> Self {
        let root = SnapshotInfo { id: SnapshotId(1000), parent: None, state: SnapshotState::Live };
        let files = BTreeMap::from([(1000, vec![None; SECTORS as usize])]);
        let infos = vec![root];
        let table = Arc::new(SnapshotTable::new(infos.iter().cloned()));
        Self { infos, files, table }
    }

    fn leaves(&self) -> Vec<SnapshotId> {
        let has_child = |id| self.infos.iter().any(|s| s.parent == Some(id));
        self.infos.iter().map(|s| s.id).filter(|id| !has_child(*id)).collect()
    }

    /// A leaf becomes the parent of two that see what it saw.
    fn split(&mut self, leaf: SnapshotId) {
        let lowest = self.infos.iter().map(|s| s.id.0).min().unwrap();
        for id in [lowest - 1, lowest - 2] {
            let info = SnapshotInfo { id: SnapshotId(id), parent: Some(leaf), state: SnapshotState::Live };
            self.infos.push(info);
            self.files.insert(id, self.files[&leaf.0].clone());
        }
        self.table = Arc::new(SnapshotTable::new(self.infos.iter().cloned()));
    }
}

fn extent(start: u64, end: u64, disk: u64) -> KeyBuf {
    let ptr = ExtentPtr::new(DevIndex(0), Sectors(disk), Gen(0)).to_word().to_le_bytes();
    KeyBuf::new(KeyType::EXTENT, Bpos::new(FILE.0, end, 0), (end - start) as u32, ptr)
}

/// What a snapshot sees, sector by sector.
fn read(world: &World, snapshots: &Snapshots, id: u32) -> File {
    let view = snapshots.table.view(SnapshotId(id)).unwrap();
    let mut file = vec![None; SECTORS as usize];
    let mut cursor = world.engine.trees().visible_extents(&view, FILE, 0..SECTORS);
    while let Some(key) = cursor.next().unwrap() {
        let start = key.k.start_offset().unwrap();
        let copies: Vec<_> = Pointers::new(key.value, key.k.size).collect::<Result<_, _>>().unwrap();
        for n in 0..u64::from(key.k.size) {
            let slot = &mut file[(start + n) as usize];
            assert_eq!(*slot, None, "two extents cover sector {}", start + n);
            *slot = Some(copies[0].ptr.offset.0 + n);
        }
    }
    file
}

fn change(
    world: &World,
    snapshots: &mut Snapshots,
    leaf: SnapshotId,
    (start, end): (u64, u64),
    disk: Option<u64>,
) {
    let view = snapshots.table.view(leaf).unwrap();
    let done = world.engine.run(CommitOptions::default(), |t| match disk {
        Some(disk) => t.insert_extent(&view, extent(start, end, disk)),
        None => t.remove_extents(&view, FILE, start..end),
    });
    let Overwritten { end: done, sectors } = Result::<_, CommitError>::unwrap(done).value;
    assert_eq!(done, end);
    let file = snapshots.files.get_mut(&leaf.0).unwrap();
    let part = &mut file[start as usize..end as usize];
    assert_eq!(sectors, part.iter().flatten().count() as u64);
    for (n, slot) in part.iter_mut().enumerate() {
        *slot = disk.map(|disk| disk + n as u64);
    }
}

#[test]
fn every_snapshot_keeps_its_own_file() {
    for seed in seeds(12) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let device = new_device();
        let world = world::open(&device, 1 << 20, &EngineOptions { seed, restart_one_in: 10 });
        let mut snapshots = Snapshots::new();
        for n in 0..150u64 {
            let leaves = snapshots.leaves();
            let leaf = leaves[rng.usize(0..leaves.len())];
            if rng.u32(0..15) == 0 && snapshots.infos.len() < 15 {
                snapshots.split(leaf);
                continue;
            }
            let start = rng.u64(0..SECTORS - 1);
            let end = rng.u64(start + 1..=SECTORS.min(start + 40));
            let disk = rng.bool().then_some(n * 1000);
            change(&world, &mut snapshots, leaf, (start, end), disk);
            for (&id, file) in &snapshots.files {
                assert_eq!(&read(&world, &snapshots, id), file, "ENGINE_SEED={seed} step {n} snapshot {id}");
            }
        }
        shut_down(&world);
    }
}

#[test]
fn a_change_over_many_extents_comes_in_parts() {
    let device = new_device();
    let world = world::open(&device, 1 << 20, &EngineOptions::default());
    let snapshots = Snapshots::new();
    let view = snapshots.table.view(SnapshotId(1000)).unwrap();
    for n in 0..700 {
        let done = world
            .engine
            .run(CommitOptions::default(), |t| t.insert_extent(&view, extent(n, n + 1, 10_000 + 2 * n)));
        done.unwrap();
    }
    let (mut at, mut parts, mut sectors) = (0, 0, 0);
    while at < 1000 {
        let done = world
            .engine
            .run(CommitOptions::default(), |t| t.insert_extent(&view, extent(at, 1000, 50_000 + at)));
        let done: Overwritten = Result::<_, CommitError>::unwrap(done).value;
        (at, sectors, parts) = (done.end, sectors + done.sectors, parts + 1);
    }
    assert!(parts > 2, "{parts} parts");
    assert_eq!(sectors, 700);
    let mut cursor = world.engine.trees().cursor(BtreeId::EXTENTS, ..);
    let mut keys = 0;
    while cursor.step_next().unwrap() {
        keys += 1;
    }
    assert_eq!(keys, parts);
}
