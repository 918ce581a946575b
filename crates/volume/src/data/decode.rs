//! From the bytes of a payload on disk to the bytes of a file: verify, decrypt, decompress (spec 40 §9).
//!
//! A writer compresses a stretch of a file, pads it to whole blocks, encrypts and checksums it; a reader goes the other way:
//!
//! ```text
//! compressed_size sectors on disk ── verify ── decrypt ── decompress ──▶ uncompressed_size sectors
//! ```
//!
//! The checksum covers all the bytes on disk, so nothing smaller than a payload can be verified. What a crc entry
//! claims is checked first ([`check`]): the sizes bound every buffer (the largest encoding has room for 8192 sectors, 4 MiB),
//! and a decoder is never handed more room, or fewer bytes, than the entry says.
//!
//! Each decompressor stops by its own rule. LZ4 does not record its length and is followed by padding ([`super::lz4`]);
//! DEFLATE ends itself; zstd has its length in front.

use flate2::{Decompress, FlushDecompress, Status};
use frazil_ondisk::BVersion;
use frazil_ondisk::checksum::{self, ChecksumType};
use frazil_ondisk::compression::CompressionType;
use frazil_ondisk::crypto::Key;
use frazil_ondisk::error::{DecodeError, Result};
use frazil_ondisk::values::extent::{Crc, Replica};
use parking_lot::Mutex;

use super::encode::nonce;
use super::lz4;

/// For messages.
const WHAT: &str = "extent payload";

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> DecodeError {
    DecodeError::invalid(WHAT, reason)
}

/// Checks that what a key says about this copy makes sense, so that the rest may rely on it: the live part lies within the
/// payload, types are known, and only compressed payloads change their size (spec 40 §7.3).
pub(super) fn check(replica: &Replica) -> Result<()> {
    let Replica { crc, live_size, .. } = replica;
    let end = u64::from(crc.offset) + u64::from(*live_size);
    if end > u64::from(crc.uncompressed_size) {
        return Err(invalid(format!("live part ends at sector {end} of {}", crc.uncompressed_size)));
    }
    if crc.checksum_type().is_none() {
        return Err(DecodeError::unsupported(WHAT, format!("checksum type {}", crc.csum_type)));
    }
    if crc.compression.name().is_none() {
        return Err(DecodeError::unsupported(WHAT, format!("compression type {}", crc.compression.0)));
    }
    if !crc.is_compressed() && crc.compressed_size != crc.uncompressed_size {
        let (on_disk, decoded) = (crc.compressed_size, crc.uncompressed_size);
        return Err(invalid(format!("{on_disk} sectors for {decoded}, but not compressed")));
    }
    Ok(())
}

/// Verifies a payload as read from disk. `version` is that of its key.
///
/// # Errors
/// If the checksum does not match, or the payload is encrypted and there is no filesystem key.
pub(super) fn verify(crc: &Crc, version: BVersion, key: Option<&Key>, bytes: &[u8]) -> Result<()> {
    let Some(ty) = crc.checksum_type() else {
        return Err(DecodeError::unsupported(WHAT, format!("checksum type {}", crc.csum_type)));
    };
    let cipher = key.map(|key| (key, nonce(crc, version)));
    checksum::verify(WHAT, ty, cipher, crc.csum, bytes)
}

/// Verifies a payload as [`verify`] does, and decrypts it in place.
///
/// # Errors
/// As there.
pub(super) fn verify_and_decrypt(
    crc: &Crc,
    version: BVersion,
    key: Option<&Key>,
    bytes: &mut [u8],
) -> Result<()> {
    verify(crc, version, key, bytes)?;
    let encrypted = crc.checksum_type().is_some_and(ChecksumType::is_encryption);
    if let (true, Some(key)) = (encrypted, key) {
        key.apply(nonce(crc, version), bytes);
    }
    Ok(())
}

/// Decompressors, whose tables are large enough to be kept.
#[derive(Default)]
pub(super) struct Decompressors {
    inflate: Mutex<Vec<Decompress>>,
    zstd: Mutex<Vec<zstd::bulk::Decompressor<'static>>>,
}

impl Decompressors {
    /// Decompresses a padded payload; it must fill `out` exactly. After an error `out` holds anything.
    pub(super) fn decompress(&self, ty: CompressionType, payload: &[u8], out: &mut [u8]) -> Result<()> {
        match ty {
            CompressionType::LZ4 | CompressionType::LZ4_OLD => decompress_lz4(payload, out),
            CompressionType::GZIP => {
                let mut inflate = self.inflate.lock().pop().unwrap_or_else(|| Decompress::new(false));
                let result = decompress_gzip(&mut inflate, payload, out);
                inflate.reset(false);
                self.inflate.lock().push(inflate);
                result
            }
            CompressionType::ZSTD => {
                let idle = self.zstd.lock().pop();
                let mut zstd = match idle {
                    Some(zstd) => zstd,
                    None => zstd::bulk::Decompressor::new().map_err(|e| invalid(format!("zstd: {e}")))?,
                };
                let result = decompress_zstd(&mut zstd, payload, out);
                self.zstd.lock().push(zstd);
                result
            }
            _ => Err(DecodeError::unsupported(WHAT, format!("compression type {}", ty.0))),
        }
    }
}

fn decompress_lz4(payload: &[u8], out: &mut [u8]) -> Result<()> {
    let Some(len) = lz4::block_len(payload, out.len()) else {
        return Err(invalid(format!("lz4: the block does not decode to {} bytes", out.len())));
    };
    match lz4_flex::block::decompress_into(&payload[..len], out) {
        Ok(n) if n == out.len() => Ok(()),
        Ok(n) => Err(invalid(format!("lz4: {n} bytes instead of {}", out.len()))),
        Err(e) => Err(invalid(format!("lz4: {e}"))),
    }
}

fn decompress_gzip(inflate: &mut Decompress, payload: &[u8], out: &mut [u8]) -> Result<()> {
    let status = inflate
        .decompress(payload, out, FlushDecompress::Finish)
        .map_err(|e| invalid(format!("deflate: {e}")))?;
    match (status, inflate.total_out()) {
        (Status::StreamEnd, n) if n == out.len() as u64 => Ok(()),
        (Status::StreamEnd, n) => Err(invalid(format!("deflate: {n} bytes instead of {}", out.len()))),
        _ => Err(invalid(format!("deflate: the stream does not end after {} bytes", out.len()))),
    }
}

fn decompress_zstd(
    zstd: &mut zstd::bulk::Decompressor<'static>,
    payload: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let (len, frame) = payload.split_first_chunk().ok_or_else(|| invalid("zstd: no room for a length"))?;
    let len = u32::from_le_bytes(*len);
    let frame = usize::try_from(len)
        .ok()
        .and_then(|len| frame.get(..len))
        .ok_or_else(|| invalid(format!("zstd: a frame of {len} bytes in {}", payload.len())))?;
    match zstd.decompress_to_buffer(frame, out) {
        Ok(n) if n == out.len() => Ok(()),
        Ok(n) => Err(invalid(format!("zstd: {n} bytes instead of {}", out.len()))),
        Err(e) => Err(invalid(format!("zstd: {e}"))),
    }
}
