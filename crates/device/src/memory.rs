//! A device in memory, for tests and for building images before they are written out.
//!
//! Contents live in chunks of 64 KiB that exist only once something has been written to them, so a terabyte that holds
//! one superblock costs 64 KiB. Chunks are shared between a device and its [snapshots](MemDevice::snapshot) until one
//! side writes, so taking a snapshot per simulated crash is cheap however large the image is.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::device::{check_range, check_writable};
use crate::{Device, Op, Result};

/// Bytes per chunk: large enough that the map stays small, small enough that a copy after a snapshot is cheap.
const CHUNK_BYTES: u64 = 64 << 10;

type Chunks = BTreeMap<u64, Arc<[u8]>>;

/// A sparse device in memory. Not clonable by accident: use [`snapshot`](MemDevice::snapshot) for an independent copy
/// and `Arc` to share one.
pub struct MemDevice {
    name: Arc<str>,
    size_bytes: AtomicU64,
    read_only: bool,
    /// Chunk number → contents; absent means zeros.
    chunks: RwLock<Chunks>,
}

impl MemDevice {
    /// A device of `size_bytes` zeros, at most 2⁶³.
    pub fn new(size_bytes: u64) -> MemDevice {
        MemDevice {
            name: "memory".into(),
            size_bytes: AtomicU64::new(size_bytes),
            read_only: false,
            chunks: RwLock::default(),
        }
    }

    /// A device that holds `image`.
    pub fn from_bytes(image: &[u8]) -> MemDevice {
        let device = MemDevice::new(image.len() as u64);
        device.load(0, image);
        device
    }

    /// A device that holds a copy of the file at `path`, named after it. Runs of zeros cost no memory.
    pub fn from_file(path: &Path) -> io::Result<MemDevice> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let device = MemDevice::new(size_bytes).named(&path.to_string_lossy());
        let mut buf = vec![0; CHUNK_BYTES as usize];
        let mut at = 0;
        while at < size_bytes {
            let len = CHUNK_BYTES.min(size_bytes - at) as usize;
            file.read_exact_at(&mut buf[..len], at)?;
            device.load(at, &buf[..len]);
            at += len as u64;
        }
        Ok(device)
    }

    /// The same device under another name.
    pub fn named(self, name: &str) -> MemDevice {
        MemDevice { name: name.into(), ..self }
    }

    /// The same device, refusing every change.
    pub fn read_only(self) -> MemDevice {
        MemDevice { read_only: true, ..self }
    }

    /// An independent, writable device with the present contents. Costs memory only where one of the two is written.
    pub fn snapshot(&self) -> MemDevice {
        let chunks = self.chunks.read().clone();
        MemDevice {
            name: self.name.clone(),
            size_bytes: AtomicU64::new(self.size_bytes()),
            read_only: false,
            chunks: RwLock::new(chunks),
        }
    }

    /// All bytes, for comparing and for writing to a file.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut image = vec![0; self.size_bytes() as usize];
        for (index, chunk) in self.chunks.read().iter() {
            let start = (index * CHUNK_BYTES) as usize;
            let len = chunk.len().min(image.len().saturating_sub(start));
            if len > 0 {
                image[start..start + len].copy_from_slice(&chunk[..len]);
            }
        }
        image
    }

    /// Changes the size. New bytes are zeros; bytes past a smaller size are gone.
    pub fn set_size(&self, size_bytes: u64) {
        let mut chunks = self.chunks.write();
        if size_bytes < self.size_bytes() {
            let _ = chunks.split_off(&size_bytes.div_ceil(CHUNK_BYTES));
            let cut = (size_bytes % CHUNK_BYTES) as usize;
            if let Some(last) = chunks.get_mut(&(size_bytes / CHUNK_BYTES)) {
                Arc::make_mut(last)[cut..].fill(0);
            }
        }
        self.size_bytes.store(size_bytes, Ordering::Release);
    }

    /// Memory the contents take, in bytes; chunks shared with snapshots count in each.
    pub fn allocated_bytes(&self) -> u64 {
        self.chunks.read().len() as u64 * CHUNK_BYTES
    }

    /// Writes without asking whether the device is read-only, leaving out chunks that stay zero.
    fn load(&self, offset_bytes: u64, data: &[u8]) {
        let mut chunks = self.chunks.write();
        for (index, within, piece) in pieces(offset_bytes, data.len() as u64) {
            let data = &data[piece];
            if chunks.contains_key(&index) || data.iter().any(|&b| b != 0) {
                chunk_mut(&mut chunks, index)[within..within + data.len()].copy_from_slice(data);
            }
        }
    }
}

/// The chunk with this number, made if absent, unshared if a snapshot has it too.
fn chunk_mut(chunks: &mut Chunks, index: u64) -> &mut [u8] {
    Arc::make_mut(chunks.entry(index).or_insert_with(|| Arc::from(vec![0; CHUNK_BYTES as usize])))
}

/// Splits a range at chunk borders: (chunk number, first byte in the chunk, which part of the caller's buffer).
fn pieces(offset_bytes: u64, len_bytes: u64) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len_bytes {
            return None;
        }
        let at = offset_bytes + done;
        let within = at % CHUNK_BYTES;
        let len = (CHUNK_BYTES - within).min(len_bytes - done);
        let piece = done as usize..(done + len) as usize;
        done += len;
        Some((at / CHUNK_BYTES, within as usize, piece))
    })
}

impl Device for MemDevice {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, Op::Read, offset_bytes, buf.len() as u64)?;
        let chunks = self.chunks.read();
        for (index, within, piece) in pieces(offset_bytes, buf.len() as u64) {
            let buf = &mut buf[piece];
            match chunks.get(&index) {
                Some(chunk) => buf.copy_from_slice(&chunk[within..within + buf.len()]),
                None => buf.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        check_writable(self, Op::Write, offset_bytes, data.len() as u64)?;
        self.load(offset_bytes, data);
        Ok(())
    }

    fn write_fua_at(&self, offset_bytes: u64, data: &[u8]) -> Result<()> {
        self.write_at(offset_bytes, data)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Zeroes the range: nothing here is stable enough to be worth keeping, and undefined contents would make tests
    /// depend on luck.
    fn discard(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        check_writable(self, Op::Discard, offset_bytes, len_bytes)?;
        self.zero(offset_bytes, len_bytes)
    }

    fn zero(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        check_writable(self, Op::Zero, offset_bytes, len_bytes)?;
        let mut chunks = self.chunks.write();
        let end = offset_bytes + len_bytes;
        let inside = offset_bytes.div_ceil(CHUNK_BYTES)..end / CHUNK_BYTES;
        if inside.start < inside.end {
            // Whole chunks go away; walking the map, not the range, keeps this cheap for a sparse terabyte.
            let mut tail = chunks.split_off(&inside.start);
            chunks.append(&mut tail.split_off(&inside.end));
        }
        for edge in [offset_bytes / CHUNK_BYTES, end.saturating_sub(1) / CHUNK_BYTES] {
            let start = (edge * CHUNK_BYTES).max(offset_bytes);
            let stop = ((edge + 1) * CHUNK_BYTES).min(end);
            if start < stop && !inside.contains(&edge) && chunks.contains_key(&edge) {
                let base = edge * CHUNK_BYTES;
                chunk_mut(&mut chunks, edge)[(start - base) as usize..(stop - base) as usize].fill(0);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for MemDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemDevice")
            .field("name", &self.name)
            .field("size_bytes", &self.size_bytes())
            .field("allocated_bytes", &self.allocated_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use proptest::prelude::*;

    #[test]
    fn refuses_ranges_that_leave_the_device() {
        let device = MemDevice::new(1024);
        let mut buf = [0; 16];
        assert_eq!(device.read_at(1008, &mut buf), Ok(()));
        for offset in [1009, 1024, u64::MAX] {
            let read = device.read_at(offset, &mut buf);
            assert!(matches!(read, Err(Error::OutOfRange { op: Op::Read, size_bytes: 1024, .. })));
            assert!(matches!(device.write_at(offset, &buf), Err(Error::OutOfRange { op: Op::Write, .. })));
            assert!(matches!(device.zero(offset, 16), Err(Error::OutOfRange { op: Op::Zero, .. })));
            assert!(matches!(device.discard(offset, 16), Err(Error::OutOfRange { op: Op::Discard, .. })));
        }
    }

    #[test]
    fn read_only_refuses_every_change() {
        let device = MemDevice::from_bytes(&[7; 512]).read_only();
        assert!(matches!(device.write_at(0, &[1]), Err(Error::ReadOnly { op: Op::Write, .. })));
        assert!(matches!(device.write_fua_at(0, &[1]), Err(Error::ReadOnly { .. })));
        assert!(matches!(device.zero(0, 1), Err(Error::ReadOnly { .. })));
        assert!(matches!(device.discard(0, 1), Err(Error::ReadOnly { .. })));
        assert_eq!(device.flush(), Ok(()));
        assert_eq!(device.to_vec(), vec![7; 512]);
    }

    #[test]
    fn a_huge_device_is_cheap() {
        let device = MemDevice::new(1 << 60);
        device.write_at((1 << 60) - 3, b"end").unwrap();
        device.zero(0, 1 << 59).unwrap();
        assert_eq!(device.allocated_bytes(), CHUNK_BYTES);
        device.discard(0, 1 << 60).unwrap();
        assert_eq!(device.allocated_bytes(), 0);
    }

    #[test]
    fn shrinking_forgets_the_tail() {
        let device = MemDevice::from_bytes(&[9; 300_000]);
        device.set_size(100_000);
        device.set_size(300_000);
        let image = device.to_vec();
        assert!(image[..100_000].iter().all(|&b| b == 9));
        assert!(image[100_000..].iter().all(|&b| b == 0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Zero(u64, u64),
        Snapshot,
    }

    const SIZE: u64 = 3 * CHUNK_BYTES + 77;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..SIZE, 1u64..100_000, any::<u8>())
                .prop_map(|(at, len, byte)| { Step::Write(at, vec![byte; len.min(SIZE - at) as usize]) }),
            (0..SIZE, 0..=SIZE).prop_map(|(at, len)| Step::Zero(at, len.min(SIZE - at))),
            Just(Step::Snapshot),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_flat_array(steps in prop::collection::vec(step(), 0..24)) {
            let device = MemDevice::new(SIZE);
            let mut model = vec![0u8; SIZE as usize];
            let mut snapshots = Vec::new();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        device.write_at(at, &data).unwrap();
                        model[at as usize..at as usize + data.len()].copy_from_slice(&data);
                    }
                    Step::Zero(at, len) => {
                        device.zero(at, len).unwrap();
                        model[at as usize..(at + len) as usize].fill(0);
                    }
                    Step::Snapshot => snapshots.push((device.snapshot(), model.clone())),
                }
            }
            prop_assert!(device.to_vec() == model);
            let mut middle = vec![0; SIZE as usize / 2];
            device.read_at(SIZE / 4, &mut middle).unwrap();
            prop_assert!(middle == model[SIZE as usize / 4..][..middle.len()]);
            for (snapshot, model) in snapshots {
                prop_assert!(snapshot.to_vec() == model);
            }
        }
    }
}
