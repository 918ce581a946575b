//! A volume that was formatted but never started.
//!
//! Formatting may stop after the superblocks; the first read-write start then makes the journal, the first snapshot, the root subvolume
//! and two directories (spec 10 §16.3). A reader must not write, so it sees the same thing as an overlay over empty
//! b-trees: `/` and `/lost+found`, made at the time the volume was.

use frazil_btree::{Overlay, Roots};
use frazil_ondisk::btree_id::BtreeId;
use frazil_ondisk::error::Result;
use frazil_ondisk::str_hash::StrHash;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::{FileType, Inode, Mode};
use frazil_ondisk::values::snapshot::{Snapshot, SnapshotTree};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, KeyBuf, KeyType};

use super::recover::{Recovered, Recovery};

/// The first snapshot: ids shrink from here (spec 40 §13.1).
const ROOT_SNAPSHOT: SnapshotId = SnapshotId(u32::MAX);
/// The only snapshot tree.
const ROOT_TREE: u32 = 1;
const LOST_FOUND: &[u8] = b"lost+found";
const LOST_FOUND_INUM: Inum = Inum(4097);

/// The b-trees as the first start would leave them.
pub(super) fn never_started(superblock: &Superblock) -> Result<Recovered> {
    let mut overlay = Overlay::empty();
    let mut put = |btree, keys: Vec<KeyBuf>| overlay.set(btree, 0, keys.iter().map(KeyBuf::as_key));
    put(BtreeId::SNAPSHOT_TREES, vec![snapshot_tree()]);
    put(BtreeId::SNAPSHOTS, vec![snapshot()]);
    put(BtreeId::SUBVOLUMES, vec![subvolume()]);

    let str_hash = superblock.str_hash_type()?;
    // The volume's own UUID is as good a seed as any, and gives the same view every time.
    let (_, hash_seed) = superblock.uuid.as_u64_pair();
    let slot = StrHash::new(str_hash, hash_seed).dirent(LOST_FOUND);
    let directory = |perm: u16| Inode {
        hash_seed,
        str_hash: str_hash as u8,
        mode: Mode::new(FileType::DIR, perm),
        ..Inode::default()
    };
    let root = Inode { nlink_raw: 1, subvol: SubvolId::ROOT, ..directory(0o755) };
    let lost_found = Inode { dir: Inum::ROOT, dir_offset: slot, ..directory(0o700) };
    put(BtreeId::INODES, vec![inode(Inum::ROOT, &root), inode(LOST_FOUND_INUM, &lost_found)]);
    put(BtreeId::DIRENTS, vec![dirent(slot)]);
    Ok(Recovered {
        roots: Roots::new(),
        overlay,
        accounting_deltas: Vec::new(),
        blacklist: Vec::new(),
        how: Recovery::NeverStarted,
    })
}

fn key(ty: KeyType, pos: Bpos, encode: impl FnOnce(&mut Vec<u8>)) -> KeyBuf {
    let mut value = Vec::new();
    encode(&mut value);
    KeyBuf::new(ty, pos, 0, value)
}

fn snapshot_tree() -> KeyBuf {
    let tree = SnapshotTree { master_subvol: SubvolId::ROOT, root_snapshot: ROOT_SNAPSHOT };
    key(KeyType::SNAPSHOT_TREE, Bpos::new(0, ROOT_TREE.into(), 0), |out| tree.encode(out))
}

fn snapshot() -> KeyBuf {
    let root =
        Snapshot { flags: Snapshot::SUBVOL, subvol: SubvolId::ROOT, tree: ROOT_TREE, ..Snapshot::default() };
    key(KeyType::SNAPSHOT, Bpos::new(0, ROOT_SNAPSHOT.0.into(), 0), |out| root.encode(out))
}

fn subvolume() -> KeyBuf {
    let root = Subvolume { snapshot: ROOT_SNAPSHOT, inode: Inum::ROOT, ..Subvolume::default() };
    key(KeyType::SUBVOLUME, Bpos::new(0, SubvolId::ROOT.0.into(), 0), |out| root.encode(out))
}

fn inode(inum: Inum, inode: &Inode) -> KeyBuf {
    key(KeyType::INODE_V3, Bpos::new(0, inum.0, ROOT_SNAPSHOT.0), |out| inode.encode(out))
}

fn dirent(slot: u64) -> KeyBuf {
    let target = DirentTarget::Inode(LOST_FOUND_INUM);
    let entry = Dirent { target, ty: FileType::DIR, name: LOST_FOUND, folded: None };
    key(KeyType::DIRENT, Bpos::new(Inum::ROOT.0, slot, ROOT_SNAPSHOT.0), |out| entry.encode(out))
}
