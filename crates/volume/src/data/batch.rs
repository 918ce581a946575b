//! Reading a plan with few device reads.
//!
//! Extents of one file, written one after the other, usually lie one after the other on the device too. A [`Batch`]
//! collects pieces as long as each begins on the device where the last one ended, and reads them with one vectored
//! read. Each piece lands where it costs least:
//!
//! * not encoded: the wanted bytes, straight in the caller's buffer;
//! * checksummed but not compressed, and all of it wanted: likewise, and it is verified (and decrypted) there;
//! * anything else: the whole payload in a buffer of the pool, from where it is decoded into the caller's buffer, or into
//!   another buffer that stays in the cache when only a part of it is wanted.
//!
//! What a long read has used up is put out of the page cache of the device at once: the reader has it now, and whoever
//! mounts has the kernel cache the file, so a second copy would only push out other things. It is also much faster where
//! taking new memory is dear, as in virtual machines: the pages of one read serve the next one.
//!
//! This is the path for sound devices. Whatever goes wrong with a piece, that piece is read again by itself the careful
//! way ([`super::careful`]), which knows about other copies and parity.

use std::io::IoSliceMut;
use std::sync::Arc;

use frazil_device::{Advice, Device};
use frazil_ondisk::BVersion;
use frazil_ondisk::units::{DevIndex, SECTOR_BYTES};
use frazil_ondisk::values::extent::Replica;

use super::buffer::Buf;
use super::cache::PayloadId;
use super::decode;
use super::error::{CopyProblem, Error};
use super::plan::{Copies, Piece, Plan, Source};
use super::reader::Reader;

/// Pieces in one device read; the system's limit for a vectored read is 1024.
const SEGMENTS_MAX: usize = 512;

/// A device read of at least this much leaves nothing in the page cache if all of it was wanted. Shorter ones are of small
/// files, or of somebody who goes about a file in small steps and may come back.
const DROPPED_BYTES_MIN: u64 = 64 << 10;

impl Plan<'_> {
    /// Reads the range into `buf`, which is as long as the range.
    ///
    /// # Errors
    /// At the first byte that cannot be had ([`Error::offset_bytes`]). What is before it is in the buffer; what is behind it
    /// in the buffer means nothing. To go on, make a plan that begins behind the bad stretch.
    ///
    /// # Panics
    /// If `buf` has another length than the range.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        assert_eq!(buf.len() as u64, self.len_bytes(), "a plan is read into a buffer of its length");
        self.finish();
        let mut batch = Batch { plan: self, run: None, segments: Vec::new() };
        let mut rest = buf;
        for piece in &self.pieces {
            let (out, behind) = rest.split_at_mut(piece.len);
            rest = behind;
            match &piece.source {
                Source::Zeros => out.fill(0),
                Source::Bytes(bytes) => {
                    let n = bytes.len().min(out.len());
                    out[..n].copy_from_slice(&bytes[..n]);
                    out[n..].fill(0);
                }
                Source::Copies(copies) => batch.add(piece, copies, out)?,
                Source::Failed(cause) => {
                    batch.read()?;
                    let len_bytes = piece.len as u64;
                    let (inum, offset_bytes) = (self.inum, piece.offset_bytes);
                    return Err(Error { inum, offset_bytes, len_bytes, cause: cause.clone() });
                }
            }
        }
        batch.read()
    }

    /// Tells the devices that the range is going to be read, so that they may start now. Reads nothing itself.
    pub fn read_ahead(&mut self) {
        let reader = self.reader;
        let mut run: Option<(DevIndex, u64, u64)> = None;
        let advise = |run: Option<(DevIndex, u64, u64)>| {
            if let Some((dev, start, end)) = run
                && let Some(device) = reader.device(dev)
            {
                device.advise(start, end - start, Advice::WillNeed);
            }
        };
        for piece in self.finish() {
            let Source::Copies(copies) = &piece.source else { continue };
            let Some((replica, _)) = reader.choose(copies, run.map(|(dev, ..)| dev)) else { continue };
            let (start, len) = device_bytes(replica, copies.skip, piece.len);
            run = match run {
                Some((dev, from, end)) if (dev, end) == (replica.ptr.dev, start) => {
                    Some((dev, from, end + len))
                }
                _ => {
                    advise(run);
                    Some((replica.ptr.dev, start, start + len))
                }
            };
        }
        advise(run);
    }
}

/// The bytes of the device that must be read for `len` bytes from byte `skip` of the live part on: start and length.
pub(super) fn device_bytes(replica: &Replica, skip: u64, len: usize) -> (u64, u64) {
    // Sectors on a device have 44 bits, so bytes fit 64.
    let payload = replica.ptr.offset.0 * SECTOR_BYTES;
    if replica.crc.is_encoded() {
        (payload, u64::from(replica.crc.compressed_size) * SECTOR_BYTES)
    } else {
        (payload + u64::from(replica.crc.offset) * SECTOR_BYTES + skip, len as u64)
    }
}

/// Whether all that has to be read of this copy is wanted.
fn is_all_wanted(replica: &Replica, skip: u64, len: usize) -> bool {
    let crc = &replica.crc;
    let whole = u64::from(crc.uncompressed_size) * SECTOR_BYTES;
    !crc.is_encoded() || (crc.offset == 0 && skip == 0 && len as u64 == whole)
}

/// Pieces that are read together.
struct Batch<'p, 'b> {
    plan: &'p Plan<'p>,
    /// Where they are, once there are any.
    run: Option<Run<'p>>,
    segments: Vec<Segment<'p, 'b>>,
}

/// A range of a device, in bytes.
struct Run<'p> {
    dev: DevIndex,
    device: &'p Arc<dyn Device>,
    start: u64,
    end: u64,
}

/// A piece, the copy that is read, and where to.
struct Segment<'p, 'b> {
    piece: &'p Piece,
    copies: &'p Copies,
    replica: &'p Replica,
    out: &'b mut [u8],
    /// The whole payload; `None` when it is read straight to `out`.
    payload: Option<Buf>,
    /// All of what is read is wanted.
    used_up: bool,
}

impl<'p, 'b> Batch<'p, 'b> {
    /// Adds a piece; reads what is there when it does not fit.
    fn add(&mut self, piece: &'p Piece, copies: &'p Copies, out: &'b mut [u8]) -> Result<(), Error> {
        let reader = self.plan.reader;
        let near = self.run.as_ref().map(|run| run.dev);
        let Some((replica, device)) = reader.choose(copies, near) else {
            self.read()?;
            return reader.read_carefully(self.plan.inum, piece, copies, out, Vec::new());
        };
        let encoded = replica.crc.is_encoded();
        if encoded && reader.read_from_cache(replica, copies.version, copies.skip, out) {
            return Ok(());
        }
        let dev = replica.ptr.dev;
        let (start, len) = device_bytes(replica, copies.skip, piece.len);
        let continues = self.run.as_ref().is_some_and(|run| (run.dev, run.end) == (dev, start));
        if !continues || self.segments.len() >= SEGMENTS_MAX {
            self.read()?;
        }
        self.run.get_or_insert(Run { dev, device, start, end: start }).end += len;
        let used_up = is_all_wanted(replica, copies.skip, piece.len);
        let straight = used_up && !replica.crc.is_compressed();
        // The sizes in a crc entry have 13 bits.
        let payload = (!straight).then(|| reader.pool.take(len as usize));
        self.segments.push(Segment { piece, copies, replica, out, payload, used_up });
        Ok(())
    }

    /// Reads the pieces collected so far, and makes sure of each.
    fn read(&mut self) -> Result<(), Error> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let mut segments = std::mem::take(&mut self.segments);
        let reader = self.plan.reader;
        let len_bytes = run.end - run.start;
        let read = reader.while_busy(run.dev, len_bytes, || read_segments(&run, &mut segments));
        if len_bytes >= DROPPED_BYTES_MIN && segments.iter().all(|segment| segment.used_up) {
            run.device.advise(run.start, len_bytes, Advice::DontNeed);
        }
        for segment in segments {
            let Segment { piece, copies, replica, out, payload, .. } = segment;
            let mut bad = Vec::new();
            if read.is_ok() {
                match reader.finish(replica, copies, payload, out) {
                    Ok(()) => continue,
                    Err(problem) => bad.push(reader.bad_copy(&replica.ptr, problem)),
                }
            }
            // If the device failed, that may be on account of another segment.
            reader.read_carefully(self.plan.inum, piece, copies, out, bad)?;
        }
        Ok(())
    }
}

fn read_segments(run: &Run<'_>, segments: &mut [Segment<'_, '_>]) -> frazil_device::Result<()> {
    fn target<'s>(segment: &'s mut Segment<'_, '_>) -> &'s mut [u8] {
        match &mut segment.payload {
            Some(payload) => payload,
            None => segment.out,
        }
    }
    match segments {
        [only] => run.device.read_at(run.start, target(only)),
        many => {
            let mut targets: Vec<_> = many.iter_mut().map(|s| IoSliceMut::new(target(s))).collect();
            run.device.read_vectored_at(run.start, &mut targets)
        }
    }
}

impl Reader {
    /// Copies the bytes from byte `skip` of the key's live part on, if the payload is in the cache.
    pub(super) fn read_from_cache(
        &self,
        replica: &Replica,
        version: BVersion,
        skip: u64,
        out: &mut [u8],
    ) -> bool {
        match self.cache.get(&PayloadId::of(replica, version)) {
            Some(decoded) => copy_live(&decoded, replica, skip, out),
            None => false,
        }
    }

    /// Makes bytes of a file out of what was read from the device.
    fn finish(
        &self,
        replica: &Replica,
        copies: &Copies,
        payload: Option<Buf>,
        out: &mut [u8],
    ) -> Result<(), CopyProblem> {
        self.check_fresh(&replica.ptr)?;
        match payload {
            Some(payload) => self.unpack(replica, copies.version, payload, copies.skip, out),
            None if !replica.crc.is_encoded() => Ok(()),
            None => Ok(decode::verify_and_decrypt(&replica.crc, copies.version, self.key.as_ref(), out)?),
        }
    }

    /// Decodes a whole payload and takes from it the bytes from byte `skip` of the key's live part on. [`decode::check`] has
    /// passed.
    pub(super) fn unpack(
        &self,
        replica: &Replica,
        version: BVersion,
        mut payload: Buf,
        skip: u64,
        out: &mut [u8],
    ) -> Result<(), CopyProblem> {
        let crc = &replica.crc;
        decode::verify_and_decrypt(crc, version, self.key.as_ref(), &mut payload)?;
        let decoded = if !crc.is_compressed() {
            payload
        } else {
            let whole = crc.uncompressed_size as usize * SECTOR_BYTES as usize;
            if out.len() == whole {
                return Ok(self.decompressors.decompress(crc.compression, &payload, out)?);
            }
            let mut decoded = self.pool.take(whole);
            self.decompressors.decompress(crc.compression, &payload, &mut decoded)?;
            decoded
        };
        let decoded = Arc::new(decoded);
        if !copy_live(&decoded, replica, skip, out) {
            return Err(CopyProblem::Metadata("the piece is not in the payload".into()));
        }
        self.cache.insert(PayloadId::of(replica, version), decoded);
        Ok(())
    }
}

/// Copies the bytes from byte `skip` of the live part on; false if the payload does not have them.
fn copy_live(decoded: &[u8], replica: &Replica, skip: u64, out: &mut [u8]) -> bool {
    let from = u64::from(replica.crc.offset) * SECTOR_BYTES + skip;
    let wanted = usize::try_from(from).ok().and_then(|from| decoded.get(from..)?.get(..out.len()));
    if let Some(wanted) = wanted {
        out.copy_from_slice(wanted);
    }
    wanted.is_some()
}
