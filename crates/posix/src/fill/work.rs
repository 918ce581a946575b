//! What the worker threads do: read files, and make payloads of them.
//!
//! A [`Job`] is a handful of small files, or a stretch of a large one; about a mebibyte, so that handing it over costs nothing beside
//! the work. Its result is a [`Batch`]: all payloads back to back, and items that say what they are. Where data is stored as it is,
//! it is read straight to its place in the batch; only compressed and encrypted data is made in one place and
//! copied to another.
//!
//! A file is read through its directory, so no path is ever too long. Holes stay holes: where the system says that there is nothing
//! (`SEEK_DATA`), nothing is read and no extent is made. A hole is cut to whole blocks.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use frazil_ondisk::BVersion;
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::Crc;
use frazil_volume::data::encode::{Encoder, Encoding};
use parking_lot::Mutex;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::host;
use super::tree::Object;

/// Something to be read.
pub(super) enum Part {
    /// A whole file, with its attributes.
    Whole {
        /// What it becomes.
        object: Object,
        /// Its directory.
        dir: Arc<OwnedFd>,
        /// Its name there.
        name: CString,
        /// Bytes it should have.
        size: u64,
        /// It has holes.
        is_sparse: bool,
    },
    /// A stretch of data of a file, beginning at a block.
    Stretch {
        /// What it becomes.
        object: Object,
        /// The file.
        file: Arc<File>,
        /// Which bytes.
        range: Range<u64>,
    },
    /// Data at hand, beginning at a block.
    Bytes {
        /// What it becomes.
        object: Object,
        /// Where in the file.
        offset: u64,
        /// The data.
        bytes: Vec<u8>,
    },
    /// All attributes of an object that is no [`Part::Whole`].
    Xattrs {
        /// Of what.
        object: Object,
        /// Names and values.
        list: Xattrs,
    },
}

/// Names of attributes, and their values as programs see them.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

impl Part {
    /// What it becomes.
    fn object(&self) -> Object {
        match self {
            Part::Whole { object, .. }
            | Part::Stretch { object, .. }
            | Part::Bytes { object, .. }
            | Part::Xattrs { object, .. } => *object,
        }
    }

    /// Bytes it is about.
    pub(super) fn len(&self) -> u64 {
        match self {
            Part::Whole { size, .. } => *size,
            Part::Stretch { range, .. } => range.end - range.start,
            Part::Bytes { bytes, .. } => bytes.len() as u64,
            Part::Xattrs { list, .. } => {
                list.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
            }
        }
    }
}

/// Work for one thread.
pub(super) struct Job {
    pub(super) parts: Vec<Part>,
    /// The first of the versions its extents may take; there are enough.
    pub(super) first_version: u64,
}

/// Versions that each job has to itself: more than it can have extents.
pub(super) const VERSIONS_PER_JOB: u64 = 1 << 16;

/// What became of a job.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) payloads: Room,
}

/// A thing to be stored.
pub(super) enum Item {
    /// All attributes of an object.
    Xattrs { object: Object, list: Xattrs },
    /// Bytes that go into the key.
    Inline { object: Object, at: Sectors, size: u32, bytes: Range<usize> },
    /// A payload and what it covers.
    Extent { object: Object, at: Sectors, crc: Crc, version: BVersion, payload: Range<usize> },
}

/// Why a job failed, and at what.
pub(super) struct Failure {
    pub(super) object: Object,
    pub(super) why: Why,
}

/// Why a job failed.
pub(super) enum Why {
    Io(io::Error),
    /// The file is not as long as it was.
    Changed,
}

impl<E: Into<io::Error>> From<E> for Why {
    fn from(error: E) -> Why {
        Why::Io(error.into())
    }
}

/// Memory that is filled from the front. What lies behind is left over from earlier use, so it need not be cleared.
#[derive(Default)]
pub(super) struct Room {
    bytes: Vec<u8>,
    used: usize,
}

impl Room {
    /// The next `len` bytes, with any content.
    fn take(&mut self, len: usize) -> Range<usize> {
        let taken = self.used..self.used + len;
        if self.bytes.len() < taken.end {
            self.bytes.resize(taken.end, 0);
        }
        self.used = taken.end;
        taken
    }

    pub(super) fn get(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }
}

/// Batches that are used again.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Batch>>);

impl Pool {
    fn take(&self) -> Batch {
        self.0.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut batch: Batch) {
        batch.items.clear();
        batch.payloads.used = 0;
        self.0.lock().push(batch);
    }
}

/// How files become payloads in this volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storing {
    pub(super) encoding: Encoding,
    /// Files up to this length go into their keys.
    pub(super) inline_max: usize,
    /// The longest payload there may be.
    pub(super) payload_max: Sectors,
}

impl Storing {
    /// Payloads are the bytes of the file.
    pub(super) fn is_verbatim(&self) -> bool {
        self.encoding.compression.algorithm() == 0 && !self.encoding.checksum.is_encryption()
    }

    fn block_bytes(&self) -> u64 {
        self.encoding.block.0 * SECTOR_BYTES
    }
}

/// Does jobs.
pub(super) struct Worker<'p> {
    pub(super) storing: Storing,
    pub(super) encoder: Encoder,
    pub(super) pool: &'p Pool,
    /// Data that is not stored as it is.
    pub(super) raw: Room,
}

/// A job that is being done.
struct Progress {
    batch: Batch,
    version: u64,
}

impl Worker<'_> {
    /// Does a job.
    pub(super) fn run(&mut self, job: Job) -> Result<Batch, Failure> {
        let mut progress = Progress { batch: self.pool.take(), version: job.first_version };
        for part in job.parts {
            let object = part.object();
            self.part(part, &mut progress).map_err(|why| Failure { object, why })?;
        }
        Ok(progress.batch)
    }

    fn part(&mut self, part: Part, progress: &mut Progress) -> Result<(), Why> {
        match part {
            Part::Whole { object, dir, name, size, is_sparse } => {
                let file = File::from(host::open(dir.as_fd(), &name, rustix::fs::OFlags::empty())?);
                let list = host::xattrs(&file)?;
                if !list.is_empty() {
                    progress.batch.items.push(Item::Xattrs { object, list });
                }
                let mut at = 0;
                while let Some(data) = next_data(&file, at, size, is_sparse, self.storing.block_bytes())? {
                    at = data.end;
                    self.stretch(object, &file, data, progress)?;
                }
                Ok(())
            }
            Part::Stretch { object, file, range } => self.stretch(object, &file, range, progress),
            Part::Xattrs { object, list } => {
                progress.batch.items.push(Item::Xattrs { object, list });
                Ok(())
            }
            Part::Bytes { object, offset, bytes } => {
                self.data(object, offset, bytes.len(), progress, |room| {
                    room.copy_from_slice(&bytes);
                    Ok(())
                })
            }
        }
    }

    fn stretch(
        &mut self,
        object: Object,
        file: &File,
        range: Range<u64>,
        progress: &mut Progress,
    ) -> Result<(), Why> {
        let len = usize::try_from(range.end - range.start).map_err(|_| Why::Changed)?;
        self.data(object, range.start, len, progress, |room| {
            file.read_exact_at(room, range.start).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Why::Changed,
                _ => Why::Io(error),
            })
        })
    }

    /// Stores `len` bytes at `offset`, which `read` delivers.
    fn data(
        &mut self,
        object: Object,
        offset: u64,
        len: usize,
        progress: &mut Progress,
        read: impl FnOnce(&mut [u8]) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let Progress { batch: Batch { items, payloads }, version } = progress;
        if len == 0 {
            return Ok(());
        }
        let block = self.storing.block_bytes() as usize;
        let padded = len.next_multiple_of(block);
        let at = Sectors(offset / SECTOR_BYTES);
        let verbatim = self.storing.is_verbatim() || len <= self.storing.inline_max;
        let source = if verbatim {
            &mut *payloads
        } else {
            self.raw.used = 0;
            &mut self.raw
        };
        let room = source.take(padded);
        let bytes = &mut source.bytes[room.clone()];
        read(&mut bytes[..len])?;
        bytes[len..].fill(0);
        if len <= self.storing.inline_max {
            let size = (padded as u64 / SECTOR_BYTES) as u32;
            items.push(Item::Inline { object, at, size, bytes: room.start..room.start + len });
            return Ok(());
        }
        let mut done = 0;
        while done < padded {
            let version = match self.storing.encoding.checksum.is_encryption() {
                true => BVersion { hi: 0, lo: std::mem::replace(version, *version + 1) },
                false => BVersion::default(),
            };
            let (encoding, max) = (&self.storing.encoding, self.storing.payload_max);
            let rest = room.start + done..room.end;
            let (crc, payload) = if verbatim {
                let encoded = self.encoder.encode(encoding, payloads.get(&rest), max, version);
                (encoded.crc, rest.start..rest.start + encoded.payload.len())
            } else {
                let encoded = self.encoder.encode(encoding, self.raw.get(&rest), max, version);
                let place = payloads.take(encoded.payload.len());
                payloads.bytes[place.clone()].copy_from_slice(encoded.payload);
                (encoded.crc, place)
            };
            let at = Sectors(at.0 + done as u64 / SECTOR_BYTES);
            done += (u64::from(crc.uncompressed_size) * SECTOR_BYTES) as usize;
            items.push(Item::Extent { object, at, crc, version, payload });
        }
        Ok(())
    }
}

/// The next data of a file of `size` bytes at or behind `at`, cut to whole blocks at its ends.
pub(super) fn next_data(
    file: &File,
    at: u64,
    size: u64,
    is_sparse: bool,
    block: u64,
) -> Result<Option<Range<u64>>, Errno> {
    if at >= size {
        return Ok(None);
    }
    if !is_sparse {
        return Ok(Some(at..size));
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) if start < size => start,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.next_multiple_of(block).min(size);
    // What came before may have ended in the block where this begins.
    Ok(Some((start - start % block).max(at)..end))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use frazil_ondisk::checksum::ChecksumType;
    use frazil_ondisk::compression::CompressionOption;

    use super::*;

    const STORING: Storing = Storing {
        encoding: Encoding {
            checksum: ChecksumType::Crc32c,
            compression: CompressionOption::NONE,
            block: Sectors(8),
            extent_max: Sectors(128),
        },
        inline_max: 1024,
        payload_max: Sectors(1024),
    };

    fn run(part: Part) -> Result<Batch, Failure> {
        let pool = Pool::default();
        let mut worker =
            Worker { storing: STORING, encoder: Encoder::new(None), pool: &pool, raw: Room::default() };
        worker.run(Job { parts: vec![part], first_version: 1 })
    }

    #[test]
    fn a_file_that_got_shorter_is_noticed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 5000]).unwrap();
        let file = Arc::new(file);
        let part = |range| Part::Stretch { object: Object::ROOT, file: Arc::clone(&file), range };
        assert!(run(part(0..5000)).is_ok());
        assert!(matches!(run(part(0..5001)), Err(Failure { why: Why::Changed, .. })));
    }

    #[test]
    fn data_go_into_keys_or_payloads_as_long_as_they_are() {
        for (len, is_inline, sectors) in
            [(1, true, 8), (1024, true, 8), (1025, false, 8), (70_000, false, 144)]
        {
            let bytes = vec![7; len];
            let batch = run(Part::Bytes { object: Object::ROOT, offset: 1 << 20, bytes }).unwrap_or_default();
            let (mut end, mut stored) = (2048, Vec::new());
            for item in &batch.items {
                let (at, size, bytes) = match item {
                    Item::Inline { at, size, bytes, .. } => (at, *size, bytes),
                    Item::Extent { at, crc, payload, .. } => (at, crc.uncompressed_size, payload),
                    Item::Xattrs { .. } => panic!("nobody gave any"),
                };
                assert_eq!((at.0, matches!(item, Item::Inline { .. })), (end, is_inline));
                end += u64::from(size);
                stored.extend_from_slice(batch.payloads.get(bytes));
            }
            let mut expected = vec![7; len];
            // The rest of the last block is zeros on disk; in a key it need not be.
            expected.resize(if is_inline { len } else { sectors * 512 }, 0);
            assert!(stored == expected, "{len}");
            assert_eq!(end, 2048 + sectors as u64, "{len}");
        }
    }

    #[test]
    fn holes_are_cut_to_blocks() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"data", 300_000).unwrap();
        let data = next_data(&file, 0, 1 << 20, true, 65536).unwrap();
        assert_eq!(data, Some(262_144..327_680));
        assert_eq!(next_data(&file, 327_680, 1 << 20, true, 65536).unwrap(), None);
        assert_eq!(next_data(&file, 0, 1 << 20, false, 65536).unwrap(), Some(0..1 << 20));
        assert_eq!(next_data(&file, 0, 0, false, 65536).unwrap(), None);
    }
}
