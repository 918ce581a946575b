//! A golden image, and where its metadata is.
//!
//! The undamaged volume is opened once and asked for everything that a reader may follow: the copies of the superblocks, the
//! entries of the journal, the nodes of all b-trees. Each is kept decrypted, ready to be changed and sealed again.
//! Damage that nothing points to would test nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use frazil_btree::Root;
use frazil_device::{Device, MemDevice};
use frazil_journal::read::Fate;
use frazil_ondisk::crypto::{self, Crypt};
use frazil_ondisk::jset::{JSET_HEADER_BYTES, jset_magic};
use frazil_ondisk::node::{
    ENTRY_HEADER_BYTES, KeyFormat, NODE_HEADER_BYTES, NodePtr, RawKey, ReadContext, ReadNode, node_magic,
};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::{BtreeId, Key, KeyBuf};
use frazil_testing::golden;
use frazil_volume::open::read_superblock;
use frazil_volume::{JournalView, OpenOptions, Passphrase, Volume, open};
use zeroize::Zeroizing;

/// How many keys of a type are kept to take values from.
const DONORS_PER_TYPE: usize = 12;
/// How many numbers that mean something in the volume are kept.
const NUMBERS_MAX: usize = 4096;

/// The superblock of a device.
pub(crate) struct SuperAt {
    pub(crate) device: usize,
    /// Where its copies are, in bytes; the first is the one that is read first.
    pub(crate) copies: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
    /// Bytes it may grow to.
    pub(crate) room: usize,
}

/// An entry of the journal.
pub(crate) struct JsetAt {
    /// (device, byte) of each copy.
    pub(crate) copies: Vec<(usize, u64)>,
    /// Header and sub-entries, decrypted.
    pub(crate) clear: Vec<u8>,
    /// Bytes it occupies.
    pub(crate) room: usize,
    /// Recovery uses it.
    pub(crate) used: bool,
}

/// A node of a b-tree.
pub(crate) struct NodeAt {
    pub(crate) btree: BtreeId,
    pub(crate) level: u8,
    /// (device, byte) of each replica.
    pub(crate) replicas: Vec<(usize, u64)>,
    /// What is written of it, decrypted.
    pub(crate) clear: Vec<u8>,
    /// Its writes: first byte, and first byte behind the keys.
    pub(crate) writes: Vec<Range<usize>>,
    pub(crate) format: KeyFormat,
}

impl NodeAt {
    /// First byte of the keys of the write that starts at `start`.
    pub(crate) fn keys_at(start: usize) -> usize {
        start + if start == 0 { NODE_HEADER_BYTES } else { ENTRY_HEADER_BYTES }
    }
}

/// What damaged keys are made of.
#[derive(Default)]
pub(crate) struct Material {
    /// Inode numbers, offsets, snapshots … that occur in the volume.
    pub(crate) numbers: Vec<u64>,
    /// Keys of all types.
    pub(crate) donors: Vec<KeyBuf>,
}

/// A golden image in memory. See the [module](self).
pub(crate) struct Image {
    pub(crate) devices: Vec<Arc<MemDevice>>,
    pub(crate) key: Option<crypto::Key>,
    pub(crate) supers: Vec<SuperAt>,
    pub(crate) jsets: Vec<JsetAt>,
    pub(crate) nodes: BTreeMap<BtreeId, Vec<NodeAt>>,
    pub(crate) material: Material,
}

impl Image {
    /// The golden image called `name`. If it is encrypted, its master key is put into the superblock in clear: deriving it from
    /// a passphrase takes longer than everything else.
    pub(crate) fn load(name: &str) -> Image {
        let golden = golden::image(name);
        let devices: Vec<Arc<MemDevice>> = golden
            .unpack()
            .iter()
            .map(|path| {
                Arc::new(
                    MemDevice::from_file(path).unwrap().named(path.file_name().unwrap().to_str().unwrap()),
                )
            })
            .collect();
        let passphrase = golden.passphrase_bytes().map(<[u8]>::to_vec);
        let volume = open_golden(&devices, passphrase.as_deref());
        let key = volume.key().cloned();
        drop(volume);
        if let Some(key) = &key {
            unlock(&devices, key);
        }

        let volume = open_golden(&devices, None);
        let mut image = Image {
            supers: devices.iter().enumerate().map(|(i, device)| super_at(i, device)).collect(),
            jsets: jsets(&devices),
            nodes: BTreeMap::new(),
            material: Material::default(),
            key,
            devices,
        };
        image.find_nodes(&volume);
        image.collect_material();
        image
    }

    fn find_nodes(&mut self, volume: &Volume) {
        for (btree, root) in volume.btrees().roots() {
            let Root::At { level: top, key } = root else { continue };
            self.add_node(volume, btree, top, key.as_key());
            for level in 0..top {
                let mut pointers = volume.btrees().level_cursor(btree, level + 1, ..);
                while let Some(pointer) = pointers.next().unwrap() {
                    self.add_node(volume, btree, level, pointer);
                }
            }
        }
    }

    fn add_node(&mut self, volume: &Volume, btree: BtreeId, level: u8, pointer: Key<'_>) {
        let superblock = volume.superblock();
        let ptr = NodePtr::decode(btree, level, pointer).unwrap();
        let written = ptr.expect.sectors_written.unwrap_or(superblock.btree_node_size());
        let replicas: Vec<(usize, u64)> =
            ptr.ptrs().map(|at| (usize::from(at.dev.0), at.offset.0 * SECTOR_BYTES)).collect();
        let (device, at) = replicas[0];
        let mut clear = vec![0; (written.0 * SECTOR_BYTES) as usize];
        self.devices[device].read_at(at, &mut clear).unwrap();
        let context = ReadContext {
            magic: node_magic(&superblock.uuid),
            block: Sectors(superblock.block_sectors.into()),
            key: self.key.as_ref(),
            version: superblock.version,
            version_min: superblock.version_min,
            blacklisted: &|_| false,
        };
        let node = ReadNode::read(&mut clear, &ptr.expect, &context).unwrap();
        let writes = node.bsets.iter().map(|bset| bset.start..bset.end).collect();
        let found = NodeAt { btree, level, replicas, clear, writes, format: node.header.format };
        self.nodes.entry(btree).or_default().push(found);
    }

    fn collect_material(&mut self) {
        let mut kept: BTreeMap<u8, usize> = BTreeMap::new();
        let Material { numbers, donors } = &mut self.material;
        for node in self.nodes.values().flatten() {
            for write in &node.writes {
                for key in keys_in(&node.format, &node.clear[NodeAt::keys_at(write.start)..write.end]) {
                    let kept = kept.entry(key.k.ty.0).or_default();
                    *kept += 1;
                    if *kept <= DONORS_PER_TYPE {
                        donors.push(key.clone());
                    }
                    if node.btree.has_snapshots() || *kept <= DONORS_PER_TYPE {
                        numbers.extend([key.k.pos.inode, key.k.pos.offset, key.k.pos.snapshot.into()]);
                    }
                }
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        let spread = numbers.len().div_ceil(NUMBERS_MAX).max(1);
        *numbers = numbers.iter().step_by(spread).copied().collect();
    }
}

/// The keys of one write, unpacked.
pub(crate) fn keys_in(format: &KeyFormat, mut bytes: &[u8]) -> Vec<KeyBuf> {
    let mut keys = Vec::new();
    while let Ok(raw) = RawKey::parse(format, bytes) {
        keys.push(format.unpack(raw).to_owned());
        bytes = &bytes[raw.bytes().len()..];
    }
    keys
}

fn open_golden(devices: &[Arc<MemDevice>], passphrase: Option<&[u8]>) -> Volume {
    let mut ask = |_: &str| Ok(Zeroizing::new(passphrase.expect("an unlocked volume").to_vec()));
    let options = OpenOptions { passphrase: Passphrase::Ask(&mut ask), ..OpenOptions::default() };
    open(shared(devices), options).unwrap()
}

fn shared(devices: &[Arc<MemDevice>]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|device| Arc::clone(device) as Arc<dyn Device>).collect()
}

/// Writes superblocks that hold the master key in clear.
fn unlock(devices: &[Arc<MemDevice>], key: &crypto::Key) {
    for device in devices {
        let mut superblock = read_superblock(&**device).unwrap();
        superblock.sections.put(&Crypt::clear(key));
        for sector in superblock.layout.copies() {
            let bytes = superblock.encode_copy(sector).unwrap();
            device.write_at(sector.0 * SECTOR_BYTES, &bytes).unwrap();
        }
    }
}

fn super_at(index: usize, device: &MemDevice) -> SuperAt {
    let superblock: Superblock = read_superblock(device).unwrap();
    assert_eq!(usize::from(superblock.dev_idx.0), index, "devices are in the order of their indexes");
    let copies = superblock.layout.copies().map(|sector| sector.0 * SECTOR_BYTES).collect();
    let bytes = superblock.encode_copy(superblock.offset).unwrap();
    SuperAt { device: index, copies, bytes, room: superblock.layout.superblock_bytes_max() }
}

/// Every good entry of the journal.
fn jsets(devices: &[Arc<MemDevice>]) -> Vec<JsetAt> {
    let view = JournalView::open(shared(devices), OpenOptions::default()).unwrap();
    let survey = view.survey().unwrap();
    let mut found = Vec::new();
    for entry in survey.found.values() {
        let Some(good) = entry.good() else { continue };
        let jset = view.load(good).unwrap();
        assert_eq!(jset.header.magic, jset_magic(&view.superblock().uuid));
        assert!(jset.as_bytes().len() >= JSET_HEADER_BYTES);
        let place = |copy: &frazil_journal::read::Copy| {
            (usize::from(copy.location.dev.0), copy.location.sector.0 * SECTOR_BYTES)
        };
        found.push(JsetAt {
            copies: entry.copies.iter().filter(|copy| copy.damage.is_none()).map(place).collect(),
            clear: jset.as_bytes().to_vec(),
            room: (good.size.0 * SECTOR_BYTES) as usize,
            used: entry.fate == Fate::Used,
        });
    }
    found
}
