//! What a volume begins with: one snapshot, one subvolume, two directories (spec 10 §16.3).
//!
//! The first start of a formatted volume makes these keys. A reader of a volume that was never started lays them over empty
//! b-trees ([`crate::open`](mod@crate::open)); a formatter that does the first start's work puts them in the volume ([`crate::build`]).

use frazil_ondisk::str_hash::{StrHash, StrHashType};
use frazil_ondisk::units::{Inum, SnapshotId, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::inode::{FileType, Inode, Mode};
use frazil_ondisk::values::snapshot::{Snapshot, SnapshotTree};
use frazil_ondisk::values::subvolume::Subvolume;
use frazil_ondisk::{Bpos, KeyBuf, KeyType};

/// The first snapshot: ids shrink from here (spec 40 §13.1).
pub const ROOT_SNAPSHOT: SnapshotId = SnapshotId(u32::MAX);
/// The directory that a check puts what it finds into.
pub const LOST_FOUND: &[u8] = b"lost+found";
/// Its inode in a volume that begins with it.
const LOST_FOUND_INUM: Inum = Inum(4097);
/// The only snapshot tree.
const ROOT_TREE: u32 = 1;

fn key(ty: KeyType, pos: Bpos, encode: impl FnOnce(&mut Vec<u8>)) -> KeyBuf {
    let mut value = Vec::new();
    encode(&mut value);
    KeyBuf::new(ty, pos, 0, value)
}

pub(crate) fn snapshot_tree() -> KeyBuf {
    let tree = SnapshotTree { master_subvol: SubvolId::ROOT, root_snapshot: ROOT_SNAPSHOT };
    key(KeyType::SNAPSHOT_TREE, Bpos::new(0, ROOT_TREE.into(), 0), |out| tree.encode(out))
}

pub(crate) fn snapshot() -> KeyBuf {
    let root =
        Snapshot { flags: Snapshot::SUBVOL, subvol: SubvolId::ROOT, tree: ROOT_TREE, ..Snapshot::default() };
    key(KeyType::SNAPSHOT, Bpos::new(0, ROOT_SNAPSHOT.0.into(), 0), |out| root.encode(out))
}

pub(crate) fn subvolume() -> KeyBuf {
    let root = Subvolume { snapshot: ROOT_SNAPSHOT, inode: Inum::ROOT, ..Subvolume::default() };
    key(KeyType::SUBVOLUME, Bpos::new(0, SubvolId::ROOT.0.into(), 0), |out| root.encode(out))
}

/// The inodes of `/` and `/lost+found`, whose hashes have these seeds, made when the volume was; and the name of the second
/// in the first.
pub(crate) fn directories(str_hash: StrHashType, seeds: [u64; 2]) -> ([KeyBuf; 2], KeyBuf) {
    let slot = StrHash::new(str_hash, seeds[0]).dirent(LOST_FOUND);
    let directory = |hash_seed, perm: u16| Inode {
        hash_seed,
        str_hash: str_hash as u8,
        mode: Mode::new(FileType::DIR, perm),
        ..Inode::default()
    };
    let root = Inode { nlink_raw: 1, subvol: SubvolId::ROOT, ..directory(seeds[0], 0o755) };
    let lost_found = Inode { dir: Inum::ROOT, dir_offset: slot, ..directory(seeds[1], 0o700) };
    ([inode(Inum::ROOT, &root), inode(LOST_FOUND_INUM, &lost_found)], dirent(slot))
}

fn inode(inum: Inum, inode: &Inode) -> KeyBuf {
    key(KeyType::INODE_V3, Bpos::new(0, inum.0, ROOT_SNAPSHOT.0), |out| inode.encode(out))
}

fn dirent(slot: u64) -> KeyBuf {
    let target = DirentTarget::Inode(LOST_FOUND_INUM);
    let entry = Dirent { target, ty: FileType::DIR, name: LOST_FOUND, folded: None };
    key(KeyType::DIRENT, Bpos::new(Inum::ROOT.0, slot, ROOT_SNAPSHOT.0), |out| entry.encode(out))
}
