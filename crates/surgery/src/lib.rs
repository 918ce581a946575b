//! Changes real images key by key, so that tests can damage exactly one thing.
//!
//! A [`Patient`] is a cleanly shut down volume in memory. Its keys can be replaced, removed and added, at any level of any b-tree that has
//! a root; the node concerned is written anew in its place, with its number, on all its devices. If it takes another number of blocks
//! than before, the pointer to it is adjusted, up to the root's in the superblock. Checksums are right everywhere, so that what
//! is wrong afterwards is what the test made wrong. Superblocks can be edited too, and bytes written anywhere.
//!
//! Everything here is for tests: what cannot be done is a panic.

#![forbid(unsafe_code)]

mod node;

use std::sync::Arc;

use frazil_device::{Device, MemDevice};
use frazil_ondisk::crypto::Key as CryptoKey;
use frazil_ondisk::jset::{JsetEntry, entries};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::layout::SUPERBLOCK_SECTOR;
use frazil_ondisk::superblock::sections::Clean;
use frazil_ondisk::units::{DevIndex, SECTOR_BYTES, Sectors};
use frazil_ondisk::{Bpos, BtreeId, KeyBuf};

pub use node::Node;

/// A volume to operate on.
pub struct Patient {
    devices: Vec<MemDevice>,
    key: Option<CryptoKey>,
}

impl Patient {
    /// The volume on these devices, in device-index order, as far as it is not encrypted.
    pub fn new(devices: Vec<MemDevice>) -> Patient {
        Patient { devices, key: None }
    }

    /// The same for an encrypted volume.
    pub fn encrypted(devices: Vec<MemDevice>, key: CryptoKey) -> Patient {
        Patient { devices, key: Some(key) }
    }

    /// An independent copy.
    pub fn copy(&self) -> Patient {
        let devices = self.devices.iter().map(MemDevice::snapshot).collect();
        Patient { devices, key: self.key.clone() }
    }

    /// The devices as they are now; what is done later does not show there.
    pub fn devices(&self) -> Vec<Arc<dyn Device>> {
        self.devices.iter().map(|d| Arc::new(d.snapshot()) as Arc<dyn Device>).collect()
    }

    /// The superblock of a device.
    pub fn superblock(&self, dev: DevIndex) -> Superblock {
        let mut bytes = vec![0; 1 << 20];
        self.read(dev, SUPERBLOCK_SECTOR, &mut bytes);
        Superblock::decode(&bytes).expect("the image's superblock")
    }

    /// Changes the superblock of every device, all copies.
    pub fn edit_superblocks(&mut self, mut edit: impl FnMut(&mut Superblock)) {
        for dev in (0..self.devices.len()).map(|i| DevIndex(i as u8)) {
            let mut superblock = self.superblock(dev);
            edit(&mut superblock);
            for sector in superblock.layout.copies() {
                let bytes = superblock.encode_copy(sector).expect("fits its place");
                self.write(dev, sector, &bytes);
            }
        }
    }

    /// Reads from a device.
    pub fn read(&self, dev: DevIndex, sector: Sectors, buf: &mut [u8]) {
        self.devices[usize::from(dev.0)].read_at(sector.0 * SECTOR_BYTES, buf).expect("inside the device");
    }

    /// Writes to a device.
    pub fn write(&mut self, dev: DevIndex, sector: Sectors, bytes: &[u8]) {
        self.devices[usize::from(dev.0)].write_at(sector.0 * SECTOR_BYTES, bytes).expect("inside the device");
    }

    /// The root of a b-tree: its level and pointer.
    pub fn root(&self, btree: BtreeId) -> Option<(u8, KeyBuf)> {
        let clean = self.clean();
        entries(&clean.entries).find_map(|entry| match entry.expect("a list of entries") {
            JsetEntry::BtreeRoot { btree: b, level, key: Some(key) } if b == btree => {
                Some((level, key.to_owned()))
            }
            _ => None,
        })
    }

    fn clean(&self) -> Clean {
        let section = self.superblock(DevIndex(0)).sections.get::<Clean>().expect("a superblock section");
        section.expect("only volumes that were shut down cleanly are operated on")
    }

    fn set_root(&mut self, btree: BtreeId, new: &KeyBuf) {
        let mut clean = self.clean();
        let mut list = Vec::with_capacity(clean.entries.len());
        for entry in entries(&clean.entries) {
            match entry.expect("a list of entries") {
                JsetEntry::BtreeRoot { btree: b, level, .. } if b == btree => {
                    JsetEntry::BtreeRoot { btree, level, key: Some(new.as_key()) }.encode(&mut list);
                }
                other => other.encode(&mut list),
            }
        }
        list.resize(clean.entries.len(), 0);
        clean.entries = list;
        self.edit_superblocks(|superblock| superblock.sections.put(&clean));
    }

    /// All leaf keys of a b-tree, in order.
    pub fn keys(&self, btree: BtreeId) -> Vec<KeyBuf> {
        self.level_keys(btree, 0)
    }

    /// All keys of a level of a b-tree, in order; above 0 they are pointers to nodes.
    pub fn level_keys(&self, btree: BtreeId, level: u8) -> Vec<KeyBuf> {
        let Some((top, root)) = self.root(btree) else { return Vec::new() };
        let mut nodes = vec![root];
        for at in (level..=top).rev() {
            nodes = nodes.iter().flat_map(|pointer| Node::read(self, btree, at, pointer).keys).collect();
        }
        nodes
    }

    /// A leaf key.
    pub fn get(&self, btree: BtreeId, pos: Bpos) -> Option<KeyBuf> {
        self.root(btree)?;
        self.node(btree, 0, pos).keys.into_iter().find(|key| key.k.pos == pos)
    }

    /// The node of a level that covers a position.
    pub fn node(&self, btree: BtreeId, level: u8, pos: Bpos) -> Node {
        let (mut at, mut pointer) = self.root(btree).expect("the b-tree has a root");
        loop {
            let node = Node::read(self, btree, at, &pointer);
            if at == level {
                return node;
            }
            let child = node.keys.iter().find(|key| key.k.pos >= pos);
            pointer = child.expect("some child covers every position").clone();
            at -= 1;
        }
    }

    /// Adds a leaf key, or replaces the one at its position.
    pub fn put(&mut self, btree: BtreeId, key: KeyBuf) {
        self.edit_node(btree, 0, key.k.pos, |keys| {
            let at = keys.partition_point(|other| other.k.pos < key.k.pos);
            match keys.get_mut(at).filter(|other| other.k.pos == key.k.pos) {
                Some(old) => *old = key,
                None => keys.insert(at, key),
            }
        });
    }

    /// Removes a leaf key.
    pub fn remove(&mut self, btree: BtreeId, pos: Bpos) {
        self.edit_node(btree, 0, pos, |keys| {
            let at = keys.iter().position(|key| key.k.pos == pos).expect("the key to remove exists");
            keys.remove(at);
        });
    }

    /// Changes a leaf key, which may move it within its node.
    pub fn edit(&mut self, btree: BtreeId, pos: Bpos, edit: impl FnOnce(&mut KeyBuf)) {
        self.edit_node(btree, 0, pos, |keys| {
            edit(keys.iter_mut().find(|key| key.k.pos == pos).expect("the key to change exists"));
            keys.sort_by_key(|key| key.k.pos);
        });
    }

    /// Changes the keys of a node and writes it anew.
    ///
    /// # Panics
    /// If they do not fit the node, are out of order or lie outside of it.
    pub fn edit_node(&mut self, btree: BtreeId, level: u8, pos: Bpos, edit: impl FnOnce(&mut Vec<KeyBuf>)) {
        let mut node = self.node(btree, level, pos);
        edit(&mut node.keys);
        let mut level = level;
        // Every pointer that changed changes its node, until one stays as it is or has no node: the root's.
        while let Some(pointer) = node.write(self) {
            if self.root(btree).is_some_and(|(top, _)| top == level) {
                return self.set_root(btree, &pointer);
            }
            level += 1;
            node = self.node(btree, level, pointer.k.pos);
            let old = node.keys.iter_mut().find(|key| key.k.pos == pointer.k.pos);
            *old.expect("the parent has the pointer") = pointer;
        }
    }
}
