//! Content for volumes under test: many files in many directories, each with a little data.

use std::collections::BTreeSet;

use frazil_ondisk::checksum;
use frazil_ondisk::str_hash::StrHash;
use frazil_ondisk::units::{Inum, Sectors, SubvolId};
use frazil_ondisk::values::dirent::{Dirent, DirentTarget};
use frazil_ondisk::values::extent::{Crc, CrcEntry};
use frazil_ondisk::values::inode::{FileType, Inode, Mode};
use frazil_ondisk::{Bkey, Bpos, BtreeId, CompressionType, Key, KeyType};
use frazil_volume::build::{Builder, Result};
use frazil_volume::initial::ROOT_SNAPSHOT;

/// Files of a directory.
const FILES: u64 = 1000;

/// The bytes of a file.
pub(crate) fn content(inum: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i as u64).wrapping_mul(inum).to_le_bytes()[1]).collect()
}

/// Fills the volume with `files` files of `bytes` bytes (0: without data; whole blocks), in directories `d0`, `d1` … below the root, named by
/// their inode numbers. Volumes that encrypt cannot be filled.
pub(crate) fn populate(builder: &mut Builder, files: u64, bytes: usize) -> Result<()> {
    builder.push_first_subvolume()?;
    let dirs = files.div_ceil(FILES);
    let dir_inum = |d: u64| Inum::ROOT.0 + 1 + d;
    let root_dir = Directory { inum: Inum::ROOT.0, parent: 0, slot: 0, subdirs: dirs };
    let mut names = Names::new(builder);
    let root_seed = builder.random();
    root_dir.push(builder, &names, root_seed)?;
    let mut slots = Vec::new();
    names.begin(root_seed);
    for d in 0..dirs {
        slots.push(names.add(&format!("d{d}"), dir_inum(d), FileType::DIR));
    }
    names.push(builder, Inum::ROOT.0)?;
    let mut next = dir_inum(dirs);
    let mut seeds = Vec::new();
    for d in 0..dirs {
        let seed = builder.random();
        seeds.push(seed);
        let dir = Directory { inum: dir_inum(d), parent: Inum::ROOT.0, slot: slots[d as usize], subdirs: 0 };
        dir.push(builder, &names, seed)?;
    }
    let mut left = files;
    for d in 0..dirs {
        names.begin(seeds[d as usize]);
        for _ in 0..left.min(FILES) {
            let slot = names.add(&next.to_string(), next, FileType::REG);
            file(builder, &names, next, dir_inum(d), slot, bytes)?;
            next += 1;
        }
        left = left.saturating_sub(FILES);
        names.push(builder, dir_inum(d))?;
    }
    Ok(())
}

struct Directory {
    inum: u64,
    parent: u64,
    slot: u64,
    subdirs: u64,
}

impl Directory {
    fn push(&self, builder: &mut Builder, names: &Names, hash_seed: u64) -> Result<()> {
        let inode = Inode {
            hash_seed,
            str_hash: names.hash as u8,
            mode: Mode::new(FileType::DIR, 0o755),
            nlink_raw: self.subdirs as u32,
            dir: Inum(self.parent),
            dir_offset: self.slot,
            subvol: if self.parent == 0 { SubvolId::ROOT } else { SubvolId(0) },
            ..Inode::default()
        };
        push_inode(builder, self.inum, &inode)
    }
}

fn push_inode(builder: &mut Builder, inum: u64, inode: &Inode) -> Result<()> {
    let mut value = Vec::with_capacity(128);
    inode.encode(&mut value);
    let k = Bkey::new(KeyType::INODE_V3, Bpos::new(0, inum, ROOT_SNAPSHOT.0), 0);
    builder.push(BtreeId::INODES, Key { k, value: &value })
}

fn file(builder: &mut Builder, names: &Names, inum: u64, dir: u64, slot: u64, bytes: usize) -> Result<()> {
    let sectors = (bytes / 512) as u32;
    let inode = Inode {
        str_hash: names.hash as u8,
        mode: Mode::new(FileType::REG, 0o644),
        size: bytes as u64,
        dir: Inum(dir),
        dir_offset: slot,
        sectors: Sectors(sectors.into()),
        ..Inode::default()
    };
    push_inode(builder, inum, &inode)?;
    if bytes == 0 {
        return Ok(());
    }
    let payload = content(inum, bytes);
    let sb = builder.superblock();
    let csum_type = sb.data_checksum()?.data_type(sb.encryption());
    let csum = checksum::compute(csum_type, None, &payload)?;
    let copies = builder.put_data(&payload)?;
    let crc = Crc {
        csum,
        csum_type: csum_type.raw(),
        compression: CompressionType::NONE,
        compressed_size: sectors,
        uncompressed_size: sectors,
        ..Crc::plain(sectors)
    };
    let mut value = Vec::new();
    if csum_type.raw() != 0 {
        let entry: CrcEntry = crc.smallest_entry().unwrap();
        entry.encode(&mut value);
    }
    copies.iter().for_each(|ptr| value.extend_from_slice(&ptr.to_word().to_le_bytes()));
    let k = Bkey::new(KeyType::EXTENT, Bpos::new(inum, sectors.into(), ROOT_SNAPSHOT.0), sectors);
    builder.push(BtreeId::EXTENTS, Key { k, value: &value })
}

/// The names of one directory.
struct Names {
    hash: frazil_ondisk::str_hash::StrHashType,
    hasher: StrHash,
    taken: BTreeSet<u64>,
    list: Vec<(u64, String, u64, FileType)>,
}

impl Names {
    fn new(builder: &Builder) -> Names {
        let hash = builder.superblock().str_hash_type().unwrap();
        Names { hash, hasher: StrHash::new(hash, 0), taken: BTreeSet::new(), list: Vec::new() }
    }

    fn begin(&mut self, seed: u64) {
        self.hasher = StrHash::new(self.hash, seed);
    }

    /// Gives a name its slot: the hash, or the next one that is free (spec 40 §4).
    fn add(&mut self, name: &str, inum: u64, ty: FileType) -> u64 {
        let mut slot = self.hasher.dirent(name.as_bytes());
        while !self.taken.insert(slot) {
            slot += 1;
        }
        self.list.push((slot, name.to_owned(), inum, ty));
        slot
    }

    fn push(&mut self, builder: &mut Builder, dir: u64) -> Result<()> {
        self.list.sort();
        let mut value = Vec::new();
        for (slot, name, inum, ty) in self.list.drain(..) {
            value.clear();
            let target = DirentTarget::Inode(Inum(inum));
            Dirent { target, ty, name: name.as_bytes(), folded: None }.encode(&mut value);
            let k = Bkey::new(KeyType::DIRENT, Bpos::new(dir, slot, ROOT_SNAPSHOT.0), 0);
            builder.push(BtreeId::DIRENTS, Key { k, value: &value })?;
        }
        self.taken.clear();
        Ok(())
    }
}
