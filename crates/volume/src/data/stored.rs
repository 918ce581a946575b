//! Payloads as they are stored, for who moves data.
//!
//! What is moved as a whole is not looked into: its stored bytes, compressed and encrypted as they are, go to the new place, and the key goes on
//! saying the same about them. They are only verified first, so that damage is not given a second place.
//!
//! Of a payload that was overwritten in part only the live parts are worth moving. Each becomes a payload of its own, with a checksum of its
//! own ([`Reader::live_part`]): encrypted bytes stay as they are, because the key stream can be entered at any sector (the nonce of a part says
//! which, spec 40 §9.5); compressed ones are unpacked, and stay so.

use std::ops::Deref;

use frazil_ondisk::BVersion;
use frazil_ondisk::checksum::{self, ChecksumType};
use frazil_ondisk::compression::CompressionType;
use frazil_ondisk::units::SECTOR_BYTES;
use frazil_ondisk::values::extent::{Crc, Replica};

use super::batch::device_bytes;
use super::decode;
use super::encode::nonce;
use super::error::CopyProblem;
use super::reader::Reader;

impl Reader {
    /// The bytes of a copy as they are on its device, verified: its whole payload, or only the live part where that can be read by itself.
    ///
    /// # Errors
    /// If it cannot be read, or is not what was written.
    pub(crate) fn stored(
        &self,
        replica: &Replica,
        version: BVersion,
    ) -> Result<impl Deref<Target = [u8]>, CopyProblem> {
        decode::check(replica)?;
        let device = self.device_of(&replica.ptr)?;
        let live = u64::from(replica.live_size) * SECTOR_BYTES;
        let (start, len) = device_bytes(replica, 0, live as usize);
        // A payload is no longer than a bucket.
        let mut payload = self.pool.take(len as usize);
        self.while_busy(replica.ptr.dev, len, || device.read_at(start, &mut payload))?;
        decode::verify(&replica.crc, version, self.key.as_ref(), &payload)?;
        Ok(payload)
    }

    /// The live part of a copy as a payload of its own, not compressed; from what [`Reader::stored`] returned.
    ///
    /// # Errors
    /// If it cannot be unpacked.
    pub(crate) fn live_part(
        &self,
        replica: &Replica,
        version: BVersion,
        stored: &[u8],
    ) -> Result<(Crc, Vec<u8>), CopyProblem> {
        let Replica { crc, live_size, .. } = replica;
        let ty = crc.checksum_type().unwrap_or(ChecksumType::None);
        let compression = if crc.is_compressed() { CompressionType::NONE } else { crc.compression };
        let start = if ty.is_encryption() { crc.nonce + crc.offset } else { 0 };
        let mut part = Crc { nonce: start, csum_type: crc.csum_type, compression, ..Crc::plain(*live_size) };
        let (skip, len) =
            ((u64::from(crc.offset) * SECTOR_BYTES) as usize, *live_size as usize * SECTOR_BYTES as usize);
        if !crc.is_encoded() {
            return Ok((part, stored.to_vec()));
        }
        let mut bytes = vec![0; len];
        if crc.is_compressed() {
            let mut packed = stored.to_vec();
            decode::verify_and_decrypt(crc, version, self.key.as_ref(), &mut packed)?;
            let mut whole = self.pool.take(crc.uncompressed_size as usize * SECTOR_BYTES as usize);
            self.decompressors.decompress(crc.compression, &packed, &mut whole)?;
            bytes.copy_from_slice(&whole[skip..skip + len]);
            if let (true, Some(key)) = (ty.is_encryption(), &self.key) {
                key.apply(nonce(&part, version), &mut bytes);
            }
        } else {
            bytes.copy_from_slice(&stored[skip..skip + len]);
        }
        let cipher = self.key.as_ref().map(|key| (key, nonce(&part, version)));
        part.csum = checksum::compute(ty, cipher, &bytes)?;
        Ok((part, bytes))
    }
}
