//! One node: reading it, and writing it anew in its place.

use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::node::{
    BsetBuilder, BtreePtrV2, NodeHeader, NodePtr, ReadContext, ReadNode, WriteContext, btree_ptr_key,
    node_magic,
};
use frazil_ondisk::units::{DevIndex, NodeSeq, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::{BtreeId, KeyBuf};

use super::Patient;

/// A node and its keys.
#[derive(Clone, Debug)]
pub struct Node {
    /// The pointer it was found by.
    pub pointer: KeyBuf,
    /// What its header says.
    pub header: NodeHeader,
    /// Its number.
    pub seq: NodeSeq,
    /// Its keys, merged.
    pub keys: Vec<KeyBuf>,
}

impl Node {
    /// Reads the node a pointer leads to.
    pub(super) fn read(patient: &Patient, btree: BtreeId, level: u8, pointer: &KeyBuf) -> Node {
        let superblock = patient.superblock(DevIndex(0));
        let ptr = NodePtr::decode(btree, level, pointer.as_key()).expect("a pointer to a node");
        let at = ptr.ptrs().next().expect("a node has a place");
        let sectors = ptr.expect.sectors_written.unwrap_or(superblock.btree_node_size());
        let mut raw = vec![0; (sectors.0 * SECTOR_BYTES) as usize];
        patient.read(at.dev, at.offset, &mut raw);
        let context = ReadContext {
            magic: node_magic(&superblock.uuid),
            block: Sectors(superblock.block_sectors.into()),
            key: patient.key.as_ref(),
            version: superblock.version,
            version_min: superblock.version_min,
            blacklisted: &|_| false,
        };
        let read = ReadNode::read(&mut raw, &ptr.expect, &context).expect("a node");
        let (node, problems) = read.merge(&raw);
        assert!(problems.is_empty(), "a node to be operated on is whole: {problems:?}");
        let keys = node.keys.iter().map(|key| key.to_owned()).collect();
        Node { pointer: pointer.clone(), header: node.header, seq: node.seq, keys }
    }

    /// Where its copies are.
    pub fn places(&self) -> Vec<ExtentPtr> {
        BtreePtrV2::decode(&self.pointer.value).expect("a pointer of the present form").ptrs().collect()
    }

    /// Writes the node to its places, as one bset. If its length in blocks changed, returns the pointer it needs now.
    pub(super) fn write(&self, patient: &mut Patient) -> Option<KeyBuf> {
        let superblock = patient.superblock(DevIndex(0));
        let csum_type = match &patient.key {
            Some(_) => ChecksumType::ChaCha20Poly1305_128,
            None => ChecksumType::Crc32cNonzero,
        };
        let context = WriteContext {
            magic: node_magic(&superblock.uuid),
            block: Sectors(superblock.block_sectors.into()),
            csum_type,
            key: patient.key.as_ref(),
            version: superblock.version,
        };
        let mut bset = BsetBuilder::first(self.header.clone(), self.seq);
        self.keys.iter().for_each(|key| bset.push(key.as_key()));
        let bytes = bset.finish(Seq(0), &context).expect("a bset");
        let sectors = Sectors(bytes.len() as u64 / SECTOR_BYTES);
        assert!(sectors <= superblock.btree_node_size(), "the keys must fit the node");
        for place in self.places() {
            patient.write(place.dev, place.offset, &bytes);
        }
        let old = BtreePtrV2::decode(&self.pointer.value).expect("a pointer of the present form");
        let new = BtreePtrV2 { sectors_written: sectors, ..old };
        (new != old).then(|| btree_ptr_key(self.pointer.k.pos, &new))
    }
}
