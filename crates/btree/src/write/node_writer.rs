//! Writing nodes: keys to bytes, bytes to every copy.

use std::ops::Range;

use frazil_device::DeviceSet;
use frazil_ondisk::checksum::ChecksumType;
use frazil_ondisk::node::{
    BsetBuilder, BtreePtrV2, FormatBuilder, KeyFormat, NodeHeader, SortedKeys, SortedKeysBuilder,
    WriteContext, btree_ptr_key,
};
use frazil_ondisk::units::{NodeSeq, SECTOR_BYTES, Sectors, Seq};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::version::Version;
use frazil_ondisk::{Key, KeyBuf};

use super::hooks::CommitError;
use crate::error::Span;
use crate::node::Node;
use crate::node_store::NodeFormat;

/// Bytes of the header of a node's first write, and of later ones (spec 30 §5).
const FIRST_HEADER: usize = frazil_ondisk::node::NODE_HEADER_BYTES;
const LATER_HEADER: usize = frazil_ondisk::node::ENTRY_HEADER_BYTES;

/// Writes the nodes of a volume.
pub struct NodeWriter {
    devices: DeviceSet,
    format: NodeFormat,
    csum_type: ChecksumType,
}

/// A node ready to be written for the first time.
pub(crate) struct NewNode {
    pub(crate) span: Span,
    pub(crate) seq: NodeSeq,
    pub(crate) keys: SortedKeys,
    pub(crate) bytes: Vec<u8>,
}

impl NewNode {
    pub(crate) fn sectors(&self) -> Sectors {
        Sectors(self.bytes.len() as u64 / SECTOR_BYTES)
    }

    /// The pointer to it, with these copies.
    pub(crate) fn pointer(&self, ptrs: &[ExtentPtr]) -> KeyBuf {
        let entries: Vec<u8> = ptrs.iter().flat_map(|p| p.to_word().to_le_bytes()).collect();
        let value = BtreePtrV2 {
            seq: self.seq,
            sectors_written: self.sectors(),
            range_updated: false,
            min_key: self.span.min,
            entries: &entries,
        };
        btree_ptr_key(self.span.max, &value)
    }
}

impl NodeWriter {
    /// A writer of nodes of this format to these devices.
    pub fn new(devices: DeviceSet, format: NodeFormat, csum_type: ChecksumType) -> Self {
        Self { devices, format, csum_type }
    }

    /// Size of a node.
    pub(crate) fn node_bytes(&self) -> usize {
        (self.format.node.0 * SECTOR_BYTES) as usize
    }

    fn block_bytes(&self) -> usize {
        (self.format.block.0 * SECTOR_BYTES) as usize
    }

    /// Words of keys that a first write can hold (spec 30 §11).
    pub(crate) fn words_max(&self) -> usize {
        (self.node_bytes() - FIRST_HEADER) / 8
    }

    /// Words of keys that one more write to a node can hold, of which `written` sectors are in use.
    pub(crate) fn room_words(&self, written: Sectors) -> usize {
        let used = ((written.0 * SECTOR_BYTES) as usize).next_multiple_of(self.block_bytes());
        let left = self.node_bytes().saturating_sub(used);
        // A bset says its length in 16 bits.
        (left.saturating_sub(LATER_HEADER) / 8).min(usize::from(u16::MAX))
    }

    /// The version nodes are stamped with.
    pub(crate) fn version(&self) -> Version {
        self.format.version
    }

    fn context(&self) -> WriteContext<'_> {
        WriteContext {
            magic: self.format.magic,
            block: self.format.block,
            csum_type: self.csum_type,
            key: self.format.key.as_ref(),
            version: self.format.version,
        }
    }

    /// The first write of a node that covers `span` and holds `keys`, ascending. `fallback` is a format in which they are known to fit.
    pub(crate) fn first(
        &self,
        span: Span,
        seq: NodeSeq,
        counter: u32,
        keys: &[Key<'_>],
        fallback: Option<&KeyFormat>,
    ) -> Result<NewNode, CommitError> {
        let format = self.choose_format(span, keys, fallback);
        let mut sorted = SortedKeysBuilder::with_capacity(format.clone(), keys.len(), self.node_bytes() / 2);
        let header = NodeHeader {
            btree: span.btree,
            level: span.level,
            new_extent_overwrite: true,
            counter,
            min_key: span.min,
            max_key: span.max,
            format,
        };
        let mut bset = BsetBuilder::first(header, seq);
        for key in keys {
            sorted.push(*key);
            bset.push(*key);
        }
        let bytes = bset.finish(Seq(0), &self.context()).map_err(unsealed)?;
        if bytes.len() > self.node_bytes() {
            let why = format!("{span}: {} keys do not fit a node of {} bytes", keys.len(), self.node_bytes());
            return Err(CommitError::Inconsistent(why));
        }
        Ok(NewNode { span, seq, keys: sorted.finish(), bytes })
    }

    /// The tightest format, or `fallback` if the keys would not fit with that (spec 30 §4.4).
    fn choose_format(&self, span: Span, keys: &[Key<'_>], fallback: Option<&KeyFormat>) -> KeyFormat {
        let mut builder = FormatBuilder::new();
        builder.add_pos(span.min);
        builder.add_pos(span.max);
        keys.iter().for_each(|key| builder.add_key(&key.k));
        let tight = builder.build();
        let words: usize = keys.iter().map(|key| tight.key_u64s() + key.value.len() / 8).sum();
        match fallback {
            Some(old) if words > self.words_max() => old.clone(),
            _ => tight,
        }
    }

    /// The bytes of a write appended to a node: what its delta says, without tombstones for what the disk does not hold. `None` if nothing
    /// is left.
    pub(crate) fn later(
        &self,
        node: &Node,
        seq: NodeSeq,
        journal_seq: Seq,
    ) -> Result<Option<Vec<u8>>, CommitError> {
        let keys = node.keys();
        let at = Sectors(node.sectors_written().0.next_multiple_of(self.format.block.0));
        let mut bset = BsetBuilder::later(keys.format().clone(), seq, at);
        for entry in node.delta().iter() {
            if entry.is_live() {
                bset.push(entry.key.as_key());
            } else if keys.find(entry.pos).is_some() {
                bset.push_tombstone(entry.pos);
            }
        }
        if bset.u64s() == 0 {
            return Ok(None);
        }
        bset.finish(journal_seq, &self.context()).map(Some).map_err(unsealed)
    }

    /// Writes `bytes` from sector `at` of every copy of a node.
    ///
    /// # Errors
    /// If a copy could not be written; others may have been.
    pub(crate) fn write(
        &self,
        ptrs: impl Iterator<Item = ExtentPtr>,
        at: Sectors,
        bytes: &[u8],
    ) -> Result<Range<Sectors>, CommitError> {
        let end = Sectors(at.0 + bytes.len() as u64 / SECTOR_BYTES);
        for ptr in ptrs {
            let dev = ptr.dev;
            let device = self.devices.get(dev.0).ok_or_else(|| {
                CommitError::Device(format!("device {dev} is missing, a b-tree node must be written to it"))
            })?;
            device
                .write_at((ptr.offset.0 + at.0) * SECTOR_BYTES, bytes)
                .map_err(|error| CommitError::Device(error.to_string()))?;
        }
        Ok(at..end)
    }
}

fn unsealed(why: frazil_ondisk::DecodeError) -> CommitError {
    CommitError::Inconsistent(why.to_string())
}
