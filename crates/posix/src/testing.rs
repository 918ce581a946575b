//! Volumes made of keys, for the tests of this crate: what cannot be found in real images, or should not be.

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_btree::{
    Btrees, LiveSnapshots, LoadedNode, NodeSource, Overlay, Roots, SnapshotInfo, SnapshotTable, Span,
};
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::str_hash::{StrHash, StrHashType};
use frazil_ondisk::superblock::time::TimeBase;
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::{FileType, Inode, Mode};
use frazil_ondisk::values::snapshot::SnapshotState;
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};

use crate::namespace::Namespace;
use crate::subvol::SubvolCache;
use crate::unfinished::Unfinished;

/// The snapshot of subvolume 1 in these volumes.
pub(crate) const SNAPSHOT: u32 = 100;
/// The seed of every inode made here.
const SEED: u64 = 0x5eed;

/// There are no nodes: all keys are in the overlay.
struct NoNodes;

impl NodeSource for NoNodes {
    fn read(&self, span: Span, _: &NodePtr<'_>) -> frazil_btree::Result<LoadedNode> {
        panic!("{span} cannot be read: these b-trees have no roots")
    }
}

/// Keys of a volume, collected.
#[derive(Default)]
pub(crate) struct Keys(BTreeMap<BtreeId, BTreeMap<Bpos, KeyBuf>>);

impl Keys {
    /// A volume with subvolume 1 in snapshot [`SNAPSHOT`] and an empty root directory.
    pub(crate) fn volume() -> Keys {
        let mut keys = Keys::default();
        keys.subvolume(1, SNAPSHOT, Inum::ROOT, 0);
        keys.inode(Inum::ROOT, SNAPSHOT, &inode(FileType::DIR));
        keys
    }

    pub(crate) fn put(&mut self, btree: BtreeId, ty: KeyType, pos: Bpos, value: impl Into<Box<[u8]>>) {
        self.0.entry(btree).or_default().insert(pos, KeyBuf::new(ty, pos, 0, value));
    }

    pub(crate) fn subvolume(&mut self, id: u32, snapshot: u32, root: Inum, flags: u32) {
        let subvolume =
            Subvolume { flags, snapshot: SnapshotId(snapshot), inode: root, ..Subvolume::default() };
        let mut value = Vec::new();
        subvolume.encode(&mut value);
        self.put(BtreeId::SUBVOLUMES, KeyType::SUBVOLUME, Bpos::new(0, id.into(), 0), value);
    }

    pub(crate) fn inode(&mut self, inum: Inum, snapshot: u32, inode: &Inode) {
        let mut value = Vec::new();
        inode.encode(&mut value);
        self.put(BtreeId::INODES, KeyType::INODE_V3, Bpos::new(0, inum.0, snapshot), value);
    }

    /// An entry at a given slot.
    pub(crate) fn dirent_at(&mut self, dir: Inum, slot: u64, snapshot: u32, entry: &Dirent<'_>) {
        let mut value = Vec::new();
        entry.encode(&mut value);
        self.put(BtreeId::DIRENTS, KeyType::DIRENT, Bpos::new(dir.0, slot, snapshot), value);
    }

    /// An entry where it belongs.
    pub(crate) fn dirent(&mut self, dir: Inum, snapshot: u32, entry: &Dirent<'_>) {
        self.dirent_at(dir, slot(entry.lookup_name()), snapshot, entry);
    }

    /// A file in a directory: inode and entry, both in [`SNAPSHOT`].
    pub(crate) fn file(&mut self, dir: Inum, name: &[u8], inum: Inum, inode: &Inode) {
        let named = Inode { dir, dir_offset: slot(name), ..*inode };
        self.inode(inum, SNAPSHOT, &named);
        self.dirent(dir, SNAPSHOT, &entry(name, inum, inode.file_type()));
    }

    /// The b-trees with these keys.
    pub(crate) fn btrees(&self) -> Btrees {
        let mut overlay = Overlay::empty();
        for (btree, keys) in &self.0 {
            overlay.set(*btree, 0, keys.values().map(KeyBuf::as_key));
        }
        Btrees::new(Roots::new(), overlay, Box::new(NoNodes), 0)
    }

    /// The metadata of the volume. Snapshots are given as (id, parent), 0 for none.
    pub(crate) fn namespace(&self, snapshots: &[(u32, u32)]) -> Namespace {
        Namespace {
            btrees: Arc::new(self.btrees()),
            snapshots: LiveSnapshots::new(table(snapshots)),
            subvols: SubvolCache::default(),
            is_written: false,
            unfinished: Unfinished::default(),
            time_base: TimeBase { base_ns: 1_000_000_000, precision_ns: 1 },
            casefold: false,
        }
    }
}

/// Live snapshots, given as (id, parent).
pub(crate) fn table(snapshots: &[(u32, u32)]) -> Arc<SnapshotTable> {
    let info = |&(id, parent): &(u32, u32)| SnapshotInfo {
        id: SnapshotId(id),
        parent: (parent != 0).then_some(SnapshotId(parent)),
        state: SnapshotState::Live,
    };
    Arc::new(SnapshotTable::new(snapshots.iter().map(info)))
}

/// An inode of that kind.
pub(crate) fn inode(ty: FileType) -> Inode {
    Inode {
        mode: Mode::new(ty, 0o644),
        hash_seed: SEED,
        str_hash: StrHashType::Siphash.raw(),
        ..Inode::default()
    }
}

/// The slot of a name in every directory made here.
pub(crate) fn slot(name: &[u8]) -> u64 {
    StrHash::new(StrHashType::Siphash, SEED).dirent(name)
}

pub(crate) fn entry(name: &[u8], inum: Inum, ty: FileType) -> Dirent<'_> {
    Dirent { target: DirentTarget::Inode(inum), ty, name, folded: None }
}

pub(crate) fn subvol_entry(name: &[u8], child: u32, parent: u32) -> Dirent<'_> {
    let target = DirentTarget::Subvol { child: SubvolId(child), parent: SubvolId(parent) };
    Dirent { target, ty: FileType::SUBVOL, name, folded: None }
}
