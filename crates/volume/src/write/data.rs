//! From blocks of a file to extents: room, payloads, keys.
//!
//! The bytes are on the devices when this returns, though maybe in their caches; a commit may then point to them, because the flush that
//! makes the commit durable makes them durable first (spec 40 §16.1). Until that commit, each extent holds its place.
//!
//! Data that is stored as it is goes out in one write per bucket and copy, whatever the number of checksummed extents in it. Data that is
//! compressed is encoded before room is asked for, because only then it is known how much it takes; where a bucket's end leaves less
//! room than that, it is encoded once more, shorter.

use std::sync::Arc;

use frazil_btree::write::CommitError;
use frazil_device::DeviceSet;
use frazil_journal::Watermark;
use frazil_ondisk::crypto::Key;
use frazil_ondisk::units::{Inum, SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::ExtentPtr;
use frazil_ondisk::{BVersion, Bpos, KeyBuf, KeyType};
use parking_lot::Mutex;

use super::clock::IoClocks;
use super::space::{Allocation, Allocator, Hold, Request, Writer};
use crate::data::encode::{Encoded, Encoder, Encoding, encode_extent};

/// Gives each encrypted payload a version of its own.
pub type KeyVersions = Box<dyn Fn() -> u64 + Send + Sync>;

/// Writes the data of files. Shared by all threads.
pub struct DataWriter {
    allocator: Arc<Allocator>,
    devices: DeviceSet,
    clocks: Arc<IoClocks>,
    key: Option<Key>,
    versions: KeyVersions,
    /// Not in use at the moment.
    encoders: Mutex<Vec<Encoder>>,
}

/// How and where to write.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// How payloads are made.
    pub encoding: Encoding,
    /// Who writes: what one writes is kept together.
    pub writer: Writer,
    /// Devices to prefer; 0 for any.
    pub target: u16,
    /// Copies there should be.
    pub replicas: u8,
    /// Copies there must be.
    pub required: u8,
    /// How urgent it is.
    pub watermark: Watermark,
}

/// Data that is on the devices and waits for a key.
pub struct WrittenExtent {
    /// The key, with snapshot 0.
    pub key: KeyBuf,
    /// Keeps its place; to be dropped when the key is committed.
    pub hold: Arc<Hold>,
}

impl DataWriter {
    /// A writer to these devices. `versions` is asked only if the volume is encrypted.
    pub fn new(
        allocator: Arc<Allocator>,
        devices: DeviceSet,
        clocks: Arc<IoClocks>,
        key: Option<Key>,
        versions: KeyVersions,
    ) -> DataWriter {
        DataWriter { allocator, devices, clocks, key, versions, encoders: Mutex::default() }
    }

    /// Writes whole blocks of a file that begin at sector `at` of it. The extents come in order and cover all of `data`.
    ///
    /// # Errors
    /// If there is no room, or no copy of some part could be written; nothing points to what was written then.
    ///
    /// # Panics
    /// If `data` is not whole blocks.
    pub fn write(
        &self,
        inode: Inum,
        at: Sectors,
        data: &[u8],
        place: &Placement,
    ) -> Result<Vec<WrittenExtent>, CommitError> {
        let idle = self.encoders.lock().pop();
        let mut encoder = idle.unwrap_or_else(|| Encoder::new(self.key.clone()));
        let mut extents = Vec::new();
        let mut done = 0;
        let result = loop {
            if done == data.len() {
                break Ok(extents);
            }
            let at = Sectors(at.0 + (done as u64 / SECTOR_BYTES));
            let run = Run { inode, at, data: &data[done..], place };
            let written = match place.encoding.compression.algorithm() {
                0 => self.write_stored(&mut encoder, &run, &mut extents),
                _ => self.write_compressed(&mut encoder, &run, &mut extents),
            };
            match written {
                Ok(bytes) => done += bytes,
                Err(error) => break Err(error),
            }
        };
        self.encoders.lock().push(encoder);
        result
    }

    fn allocate(&self, place: &Placement, sectors: Sectors) -> Result<Allocation, CommitError> {
        self.allocator.allocate(&Request {
            writer: place.writer,
            target: place.target,
            replicas: place.replicas,
            required: place.required,
            exclude: &[],
            sectors,
            watermark: place.watermark,
        })
    }

    fn version(&self, place: &Placement) -> BVersion {
        match place.encoding.checksum.is_encryption() {
            true => BVersion { hi: 0, lo: (self.versions)() },
            false => BVersion::default(),
        }
    }

    /// Writes the front of a run without compressing it: as much as one allocation takes. Returns the bytes done.
    fn write_stored(
        &self,
        encoder: &mut Encoder,
        run: &Run<'_>,
        extents: &mut Vec<WrittenExtent>,
    ) -> Result<usize, CommitError> {
        let Allocation { ptrs, sectors, hold } = self.allocate(run.place, run.sectors())?;
        let (hold, bytes) = (Arc::new(hold), (sectors.0 * SECTOR_BYTES) as usize);
        let data = &run.data[..bytes.min(run.data.len())];
        let first = extents.len();
        let mut payloads = Vec::new();
        let mut done = 0;
        while done < data.len() {
            let version = self.version(run.place);
            let room = Sectors((data.len() - done) as u64 / SECTOR_BYTES);
            let encoded = encoder.encode(&run.place.encoding, &data[done..], room, version);
            if run.place.encoding.checksum.is_encryption() {
                payloads.extend_from_slice(encoded.payload);
            }
            let offset = Sectors(done as u64 / SECTOR_BYTES);
            let mut value = Vec::with_capacity(32);
            encode_extent(&encoded.crc, ptrs.iter().map(|p| moved(*p, offset)), &mut value);
            let end = run.at.0 + offset.0 + encoded.covers.0;
            extents.push(extent(run.inode, end, encoded.covers, version, value, &hold));
            done += (encoded.covers.0 * SECTOR_BYTES) as usize;
        }
        let payload = if payloads.is_empty() { data } else { &payloads };
        if let Err(error) = self.put(&ptrs, payload) {
            extents.truncate(first);
            return Err(error);
        }
        Ok(done)
    }

    /// Writes one compressed payload from the front of a run. Returns the bytes of the file done.
    fn write_compressed(
        &self,
        encoder: &mut Encoder,
        run: &Run<'_>,
        extents: &mut Vec<WrittenExtent>,
    ) -> Result<usize, CommitError> {
        let encoding = &run.place.encoding;
        let version = self.version(run.place);
        let encoded = encoder.encode(encoding, run.data, run.sectors().min(encoding.extent_max), version);
        let wanted = Sectors(encoded.payload.len() as u64 / SECTOR_BYTES);
        let room = self.allocate(run.place, wanted)?;
        if room.sectors < wanted {
            let version = self.version(run.place);
            let shorter = encoder.encode(encoding, run.data, room.sectors, version);
            return self.finish_compressed(run, shorter, version, room, extents);
        }
        self.finish_compressed(run, encoded, version, room, extents)
    }

    fn finish_compressed(
        &self,
        run: &Run<'_>,
        encoded: Encoded<'_>,
        version: BVersion,
        room: Allocation,
        extents: &mut Vec<WrittenExtent>,
    ) -> Result<usize, CommitError> {
        self.put(&room.ptrs, encoded.payload)?;
        let mut value = Vec::with_capacity(32);
        encode_extent(&encoded.crc, room.ptrs, &mut value);
        let end = run.at.0 + encoded.covers.0;
        extents.push(extent(run.inode, end, encoded.covers, version, value, &Arc::new(room.hold)));
        Ok((encoded.covers.0 * SECTOR_BYTES) as usize)
    }

    fn put(&self, ptrs: &[ExtentPtr], payload: &[u8]) -> Result<(), CommitError> {
        put(&self.devices, &self.clocks, ptrs, payload)
    }
}

/// Writes a payload to each copy's place.
pub(super) fn put(
    devices: &DeviceSet,
    clocks: &IoClocks,
    ptrs: &[ExtentPtr],
    payload: &[u8],
) -> Result<(), CommitError> {
    for ptr in ptrs {
        let dev = ptr.dev;
        let device = devices
            .get(dev.0)
            .ok_or_else(|| CommitError::Device(format!("device {dev} is missing, data must go there")))?;
        device.write_at(ptr.offset.0 * SECTOR_BYTES, payload).map_err(|error| match error.is_no_space() {
            true => CommitError::NoSpace,
            false => CommitError::Device(error.to_string()),
        })?;
    }
    clocks.has_written(Sectors(payload.len() as u64 / SECTOR_BYTES * ptrs.len() as u64));
    Ok(())
}

/// What is left to be written.
struct Run<'r> {
    inode: Inum,
    at: Sectors,
    data: &'r [u8],
    place: &'r Placement,
}

impl Run<'_> {
    fn sectors(&self) -> Sectors {
        Sectors(self.data.len() as u64 / SECTOR_BYTES)
    }
}

fn moved(ptr: ExtentPtr, by: Sectors) -> ExtentPtr {
    ExtentPtr { offset: Sectors(ptr.offset.0 + by.0), ..ptr }
}

fn extent(
    inode: Inum,
    end: u64,
    size: Sectors,
    version: BVersion,
    value: Vec<u8>,
    hold: &Arc<Hold>,
) -> WrittenExtent {
    let mut key = KeyBuf::new(KeyType::EXTENT, Bpos::new(inode.0, end, 0), size.0 as u32, value);
    key.k.version = version;
    WrittenExtent { key, hold: Arc::clone(hold) }
}
