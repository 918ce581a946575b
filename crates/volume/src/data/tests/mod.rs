//! Volumes in memory with data written by hand, to be read back.

mod damage;
mod encoder;
mod encodings;
mod files;
mod lost_nodes;
mod stripes;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use frazil_btree::{Btrees, LoadedNode, NodeSource, Overlay, Roots, Span};
use frazil_device::{Device, DeviceSet, FaultyDevice, MemDevice};
use frazil_ondisk::checksum::{self, ChecksumType};
use frazil_ondisk::compression::CompressionType;
use frazil_ondisk::crypto::{Key, Nonce};
use frazil_ondisk::node::NodePtr;
use frazil_ondisk::units::{DevIndex, Gen, Inum, Sectors};
use frazil_ondisk::values::extent::{Crc, Entry, EntrySizes, ExtentPtr};
use frazil_ondisk::{BVersion, Bpos, BtreeId, KeyBuf, KeyType};

use super::{Error, MemberFacts, Reader, ReaderOptions};

const INUM: Inum = Inum(4096);
const SECTOR: usize = 512;
/// Size of the devices.
const DEVICE_BYTES: u64 = 64 << 20;
const BUCKET_SECTORS: u64 = 256;

/// All metadata of these volumes is in the overlay.
struct NoNodes;

impl NodeSource for NoNodes {
    fn read(&self, _: Span, _: &NodePtr<'_>) -> frazil_btree::Result<LoadedNode> {
        unreachable!("there are no roots")
    }
}

/// Devices with data, and the keys that are not extents.
struct Volume {
    devices: Vec<Arc<FaultyDevice>>,
    /// Members that are left out.
    absent: Vec<u8>,
    /// Next free sector of each device.
    free: Vec<u64>,
    keys: BTreeMap<BtreeId, Vec<KeyBuf>>,
    key: Option<Key>,
    rotational: Vec<u8>,
    entry_sizes: EntrySizes,
}

impl Volume {
    fn new(devices: usize) -> Volume {
        let device = |i| {
            let memory = MemDevice::new(DEVICE_BYTES).named(&format!("disk{i}"));
            Arc::new(FaultyDevice::new(Arc::new(memory)))
        };
        Volume {
            devices: (0..devices).map(device).collect(),
            absent: Vec::new(),
            free: (0..devices).map(|i| 8 * i as u64).collect(),
            keys: BTreeMap::new(),
            key: None,
            rotational: Vec::new(),
            entry_sizes: EntrySizes::KNOWN,
        }
    }

    /// Writes bytes at the end of what the device holds; returns where.
    fn write(&mut self, dev: usize, bytes: &[u8]) -> ExtentPtr {
        let sector = self.free[dev];
        self.devices[dev].write_at(sector * 512, bytes).unwrap();
        self.free[dev] += bytes.len().div_ceil(SECTOR) as u64;
        ExtentPtr::new(DevIndex(dev as u8), Sectors(sector), Gen(0))
    }

    fn overwrite(&self, ptr: &ExtentPtr, skip: u64, bytes: &[u8]) {
        self.devices[usize::from(ptr.dev.0)].write_at(ptr.offset.0 * 512 + skip, bytes).unwrap();
    }

    fn add_key(&mut self, btree: BtreeId, key: KeyBuf) {
        self.keys.entry(btree).or_default().push(key);
    }

    fn reader(&self) -> Reader {
        let present = (0u8..).zip(&self.devices).filter(|(i, _)| !self.absent.contains(i));
        self.reader_of(present.map(|(i, d)| (i, Arc::clone(d) as Arc<dyn Device>)))
    }

    /// A reader of other devices with the same metadata.
    fn reader_of(&self, devices: impl IntoIterator<Item = (u8, Arc<dyn Device>)>) -> Reader {
        let mut overlay = Overlay::empty();
        for (btree, keys) in &self.keys {
            overlay.set(*btree, 0, keys.iter().map(KeyBuf::as_key));
        }
        let trees = Btrees::new(Roots::new(), overlay, Box::new(NoNodes), 0);
        let member = |i: u8| {
            let rotational = self.rotational.contains(&i);
            (DevIndex(i), MemberFacts { bucket_sectors: Sectors(BUCKET_SECTORS), rotational })
        };
        let members = (0..self.devices.len() as u8).map(member).collect();
        let options = ReaderOptions {
            key: self.key.clone(),
            entry_sizes: self.entry_sizes,
            members,
            cache_bytes: ReaderOptions::CACHE_BYTES_DEFAULT,
        };
        Reader::new(DeviceSet::from_iter(devices), Arc::new(trees), options)
    }
}

/// Reads a range of the file with these extents.
fn read(reader: &Reader, extents: &[KeyBuf], bytes: Range<u64>) -> Result<Vec<u8>, Error> {
    let mut buf = vec![0xee; (bytes.end - bytes.start) as usize];
    read_into(reader, extents, bytes, &mut buf).map(|()| buf)
}

fn read_into(reader: &Reader, extents: &[KeyBuf], bytes: Range<u64>, buf: &mut [u8]) -> Result<(), Error> {
    let mut plan = reader.plan(INUM, bytes);
    for key in extents {
        plan.add(key.as_key());
    }
    plan.read(buf)
}

/// A key of the file that ends at sector `end`.
fn key(ty: KeyType, end: u64, size: u32, value: Vec<u8>) -> KeyBuf {
    let mut value = value;
    value.resize(value.len().next_multiple_of(8), 0);
    KeyBuf::new(ty, Bpos::new(INUM.0, end, u32::MAX), size, value)
}

fn extent(end: u64, size: u32, entries: &[Entry<'_>]) -> KeyBuf {
    key(KeyType::EXTENT, end, size, encoded(entries))
}

fn encoded(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut value = Vec::new();
    entries.iter().for_each(|entry| entry.encode(&mut value));
    value
}

fn crc_entry(crc: Crc) -> Entry<'static> {
    Entry::Crc(crc.smallest_entry().expect("fits an entry"))
}

/// How data is to be written.
#[derive(Clone, Copy, Debug)]
struct Encoding {
    csum: ChecksumType,
    compression: CompressionType,
    /// Version of the key and the position in its stream, for encryption.
    version: u64,
    nonce: u32,
}

const PLAIN: Encoding =
    Encoding { csum: ChecksumType::None, compression: CompressionType::NONE, version: 0, nonce: 0 };

impl Encoding {
    fn version(&self) -> BVersion {
        BVersion { hi: 0, lo: self.version }
    }

    /// The payload of `data` (whole sectors) as a writer makes it, padded to `block` bytes.
    fn payload(&self, data: &[u8], block: usize, key: Option<&Key>) -> (Crc, Vec<u8>) {
        let mut bytes = compress(self.compression, data);
        bytes.resize(bytes.len().next_multiple_of(block), 0);
        let mut crc = Crc {
            compressed_size: (bytes.len() / SECTOR) as u32,
            nonce: self.nonce,
            csum_type: self.csum.raw(),
            compression: self.compression,
            ..Crc::plain((data.len() / SECTOR) as u32)
        };
        let compressed =
            crc.is_compressed().then(|| (crc.compression.0, Sectors(crc.uncompressed_size.into())));
        let nonce = Nonce::extent(self.version(), compressed, Sectors(self.nonce.into()));
        if self.csum.is_encryption() {
            key.expect("a key to encrypt with").apply(nonce, &mut bytes);
        }
        crc.csum = checksum::compute(self.csum, key.map(|key| (key, nonce)), &bytes).unwrap();
        (crc, bytes)
    }
}

fn compress(ty: CompressionType, data: &[u8]) -> Vec<u8> {
    match ty {
        CompressionType::LZ4 | CompressionType::LZ4_OLD => lz4_flex::block::compress(data),
        CompressionType::GZIP => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        CompressionType::ZSTD => {
            let frame = zstd::bulk::compress(data, 3).unwrap();
            [&(frame.len() as u32).to_le_bytes()[..], &frame].concat()
        }
        _ => data.to_vec(),
    }
}

/// Bytes that compress, and differ everywhere.
fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut line = 0u64;
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        line += 1;
        let n = line.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed);
        writeln!(out, "line {line} of text {seed}, check {n:016x}, and on it goes").unwrap();
    }
    out.truncate(len);
    out
}

fn test_key() -> Key {
    Key::new(std::array::from_fn(|i| 7 * i as u8))
}
