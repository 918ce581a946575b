//! What a program does to a volume, in small: it appends to files and punches holes into them, in transactions, with data.

use std::collections::BTreeMap;
use std::sync::Arc;

use frazil_btree::write::{CommitError, CommitOptions, EngineOptions, Transaction};
use frazil_device::Device;
use frazil_journal::Watermark;
use frazil_ondisk::units::{Inum, Sectors};
use frazil_ondisk::values::extent::Entry;
use frazil_ondisk::values::inode::{FileType, Inode, InodeFlags};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf, KeyType};
use frazil_volume::OpenOptions;
use frazil_volume::write::space::{Request, Writer};
use frazil_volume::write::{self, Live, LiveOptions, WriteOptions};

pub fn options(seed: u64, threads: bool) -> LiveOptions {
    let engine = EngineOptions { seed, restart_one_in: 7 };
    LiveOptions { engine, cache_bytes: 16 << 20, threads }
}

/// Opens a volume for writing.
pub fn start(devices: &[Arc<dyn Device>], seed: u64, threads: bool) -> Arc<Live> {
    let foundation = write::open_rw(devices.to_vec(), OpenOptions::default(), &WriteOptions::default())
        .unwrap_or_else(|e| panic!("{e}"));
    Live::start(foundation, &options(seed, threads)).unwrap()
}

/// The key of a file's inode, and the ends and lengths of what was appended.
pub type Appended = (Bpos, BTreeMap<u64, u32>);

/// Files to append to: what the inode says, and the extents appended, by their ends.
pub struct Files(pub Vec<Appended>);

impl Files {
    /// Regular files with one link and no snapshots below.
    pub fn of(live: &Live, max: usize) -> Files {
        let mut cursor = live.btrees().cursor(BtreeId::INODES, ..);
        let mut list = Vec::new();
        while let Some(key) = cursor.next().unwrap() {
            if key.k.ty == KeyType::INODE_V3 && list.len() < max {
                let inode = Inode::decode(key.k.ty, key.value).unwrap();
                let usable = inode.file_type() == FileType::REG
                    && !inode.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT)
                    && !inode.flags.contains(InodeFlags::UNLINKED)
                    && inode.size < 1 << 40;
                list.extend(usable.then(|| (key.k.pos, BTreeMap::new())));
            }
        }
        assert!(!list.is_empty(), "the image has files");
        Files(list)
    }
}

fn inode_at(t: &Transaction<'_>, pos: Bpos) -> Result<Inode, CommitError> {
    let key = t.get(BtreeId::INODES, pos)?.expect("nobody removes it");
    Ok(Inode::decode(key.key().k.ty, key.key().value).expect("an inode"))
}

fn put_inode(t: &mut Transaction<'_>, pos: Bpos, inode: &Inode) {
    let mut value = Vec::new();
    inode.encode(&mut value);
    t.put(BtreeId::INODES, KeyBuf::new(KeyType::INODE_V3, pos, 0, value));
}

/// Appends up to `sectors` to a file, as the data path will: promise, place, data, transaction.
pub fn append(live: &Live, file: &mut Appended, sectors: u64) -> Result<(), CommitError> {
    let flags = &live.superblock().view().superblock.flags;
    let replicas = flags.data_replicas().max(1);
    let mut promise = live.space().reserve(Sectors(sectors * u64::from(replicas)))?;
    let (pos, extents) = file;
    let inum = Inum(pos.offset);
    let request = Request {
        writer: Writer::User(inum.0),
        target: flags.foreground_target(),
        replicas,
        required: 1,
        exclude: &[],
        sectors: Sectors(sectors),
        watermark: Watermark::Normal,
    };
    let got = live.allocator().allocate(&request)?;
    for ptr in &got.ptrs {
        let device = live.devices().get(ptr.dev.0).expect("it was chosen");
        device.write_at(ptr.offset.0 * 512, &vec![7; (got.sectors.0 * 512) as usize]).unwrap();
    }
    live.host().clocks().has_written(got.sectors);
    let done = live.engine().run(CommitOptions::default(), |t| {
        let mut inode = inode_at(t, *pos)?;
        let start = inode.size.div_ceil(4096) * 8;
        let end = start + got.sectors.0;
        let mut value = Vec::new();
        got.ptrs.iter().for_each(|ptr| Entry::Ptr(*ptr).encode(&mut value));
        let at = Bpos::new(inum.0, end, pos.snapshot);
        t.put(BtreeId::EXTENTS, KeyBuf::new(KeyType::EXTENT, at, got.sectors.0 as u32, value));
        inode.size = end * 512;
        inode.sectors.0 += got.sectors.0;
        put_inode(t, *pos, &inode);
        Ok::<u64, CommitError>(end)
    })?;
    promise.used(Sectors(got.sectors.0 * got.ptrs.len() as u64));
    extents.insert(done.value, got.sectors.0 as u32);
    Ok(())
}

/// Punches out one of the extents that were appended.
pub fn punch(live: &Live, file: &mut Appended, lot: usize) {
    let (pos, extents) = file;
    let Some((&end, &sectors)) = extents.iter().nth(lot % extents.len().max(1)) else { return };
    let done = live.engine().run(CommitOptions::default(), |t| {
        let mut inode = inode_at(t, *pos)?;
        inode.sectors.0 -= u64::from(sectors);
        put_inode(t, *pos, &inode);
        t.delete(BtreeId::EXTENTS, Bpos::new(pos.offset, end, pos.snapshot));
        Ok::<(), CommitError>(())
    });
    done.expect("giving back never fails");
    extents.remove(&end);
}

/// So many steps by lot.
pub fn work(live: &Live, files: &mut Files, rng: &mut fastrand::Rng, steps: u32) {
    for _ in 0..steps {
        let index = rng.usize(0..files.0.len());
        let file = &mut files.0[index];
        if rng.u8(0..5) < 3 {
            match append(live, file, 8 * rng.u64(1..20)) {
                Ok(()) | Err(CommitError::NoSpace) => {}
                Err(error) => panic!("{error}"),
            }
        } else {
            punch(live, file, rng.usize(..));
        }
    }
}
