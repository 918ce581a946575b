//! Putting bytes on the devices.
//!
//! Data come in small pieces that lie one behind the other, so each device has a buffer that becomes one large write; nodes are
//! large already and pass it by. Nothing here needs an order: the flush before the superblocks makes everything stable at once.

use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::KeyBuf;
use frazil_ondisk::crypto::Key as CryptKey;
use frazil_ondisk::node::{BsetBuilder, NodeHeader, WriteContext, node_magic};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::units::{DevIndex, NodeSeq, SECTOR_BYTES, Sectors, Seq};

use super::derived::{entries, pointer};
use super::error::Result;
use super::facts::Facts;
use super::random::Random;
use super::space::{Class, Copies, Space};
use super::tree::{FullNode, NodeSink};
use crate::derive::Rules;

/// A buffer that has this much is written.
const BUFFER_BYTES: usize = 1 << 20;
/// A payload from this size on is not worth copying.
const DIRECT_BYTES: usize = 64 << 10;
/// What nodes that are nobody's successor have as their counter (spec 30 §5.1).
const NODE_COUNTER: u32 = 1;

/// The devices, and what is to be written to them.
pub(super) struct Writer {
    devices: Vec<Arc<dyn Device>>,
    buffers: Vec<Buffer>,
    pub(super) nodes: u64,
}

/// Bytes that lie one behind the other on a device.
#[derive(Default)]
struct Buffer {
    start: u64,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(devices: Vec<Arc<dyn Device>>) -> Writer {
        let buffers = devices.iter().map(|_| Buffer::default()).collect();
        Writer { devices, buffers, nodes: 0 }
    }

    pub(super) fn device(&self, dev: DevIndex) -> &dyn Device {
        &*self.devices[usize::from(dev.0)]
    }

    /// Writes a payload to each of its places, some time before [`Writer::flush`] returns.
    pub(super) fn append(&mut self, copies: &Copies, payload: &[u8]) -> Result<()> {
        for ptr in copies.iter() {
            let at = ptr.offset.0 * SECTOR_BYTES;
            let i = usize::from(ptr.dev.0);
            let buffer = &mut self.buffers[i];
            let end = buffer.start + buffer.bytes.len() as u64;
            if end != at || buffer.bytes.len() >= BUFFER_BYTES || payload.len() >= DIRECT_BYTES {
                self.write_out(i)?;
                self.buffers[i].start = at;
            }
            if payload.len() >= DIRECT_BYTES {
                self.devices[i].write_at(at, payload)?;
            } else {
                self.buffers[i].bytes.extend_from_slice(payload);
            }
        }
        Ok(())
    }

    fn write_out(&mut self, i: usize) -> Result<()> {
        let buffer = &mut self.buffers[i];
        if !buffer.bytes.is_empty() {
            self.devices[i].write_at(buffer.start, &buffer.bytes)?;
            buffer.bytes.clear();
        }
        Ok(())
    }

    /// Returns when everything is stable on every device.
    pub(super) fn flush(&mut self) -> Result<()> {
        (0..self.devices.len()).try_for_each(|i| self.write_out(i))?;
        Ok(self.devices.iter().try_for_each(|device| device.flush())?)
    }
}

/// Writes nodes where space says.
pub(super) struct Nodes<'b> {
    pub(super) sb: &'b Superblock,
    pub(super) key: Option<&'b CryptKey>,
    pub(super) random: &'b mut Random,
    pub(super) rules: &'b Rules,
    pub(super) space: &'b mut Space,
    /// Where what a node implies is added, if it was not before.
    pub(super) facts: Option<&'b mut Facts>,
    pub(super) writer: &'b mut Writer,
}

impl NodeSink for Nodes<'_> {
    fn place(&mut self, node: &FullNode<'_>) -> Result<KeyBuf> {
        let header = NodeHeader {
            btree: node.btree,
            level: node.level,
            new_extent_overwrite: true,
            counter: NODE_COUNTER,
            min_key: node.min,
            max_key: node.max,
            format: node.format.clone(),
        };
        let seq = NodeSeq(self.random.nonzero());
        let mut bset = BsetBuilder::first(header, seq);
        node.keys().for_each(|key| bset.push(key));
        let context = WriteContext {
            magic: node_magic(&self.sb.uuid),
            block: Sectors(self.sb.block_sectors.into()),
            csum_type: self.sb.metadata_checksum()?.metadata_type(self.sb.encryption()),
            key: self.key,
            version: self.sb.version,
        };
        let bytes = bset.finish(Seq(0), &context)?;
        let written = Sectors(bytes.len() as u64 / SECTOR_BYTES);
        assert!(written <= self.rules.node, "a node is at most as long as nodes are");

        let copies = self.space.place(Class::Node, self.rules.node)?;
        for ptr in copies.iter() {
            self.writer.device(ptr.dev).write_at(ptr.offset.0 * SECTOR_BYTES, &bytes)?;
        }
        self.writer.nodes += 1;
        let pointer = pointer(node.max, node.min, seq, written, &entries(&copies));
        if let Some(facts) = &mut self.facts {
            facts.add(self.rules, node.btree, node.level + 1, pointer.as_key())?;
        }
        Ok(pointer)
    }
}
