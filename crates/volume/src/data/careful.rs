//! Reading one piece when something is wrong.
//!
//! Every copy is tried, the best first; then each copy that belongs to an erasure-code stripe is rebuilt from the
//! stripe's other blocks ([`super::stripe`]). A copy that was bad although another one could be used is logged: the data is
//! safe for now, but somebody should know.
//!
//! What can only be read as a whole is lost as a whole. Data without a checksum is lost by sectors: the piece is then read in
//! ever smaller parts, so that the error names the first sector of which no copy can be read and everything before it
//! arrives. One copy may serve where another does not, part by part.

use frazil_ondisk::units::{Inum, SECTOR_BYTES, Sectors};
use frazil_ondisk::values::extent::Replica;

use super::batch::device_bytes;
use super::decode;
use super::error::{BadCopy, Cause, CopyProblem, Error};
use super::plan::{Copies, Piece};
use super::reader::Reader;

/// Sectors of plain data that are rebuilt from parity at once.
const REBUILT_SECTORS_MAX: u64 = 2048;

impl Reader {
    /// Reads a piece by all means. `bad` are copies that have been tried already.
    pub(super) fn read_carefully(
        &self,
        inum: Inum,
        piece: &Piece,
        copies: &Copies,
        out: &mut [u8],
        mut bad: Vec<BadCopy>,
    ) -> Result<(), Error> {
        let all_encoded = copies.replicas.iter().all(|replica| replica.crc.is_encoded());
        let (mut from, mut to) = (0, out.len());
        while from < out.len() {
            let offset_bytes = piece.offset_bytes + from as u64;
            match self.read_any(
                copies,
                copies.skip + from as u64,
                &mut out[from..to],
                std::mem::take(&mut bad),
            ) {
                Ok(bad) => {
                    log_repaired(inum, offset_bytes, &bad);
                    (from, to) = (to, out.len());
                }
                Err(bad) => {
                    let io = bad.iter().any(|copy| matches!(copy.problem, CopyProblem::Io(_)));
                    let half = half_way(offset_bytes, to - from).filter(|_| io && !all_encoded);
                    let Some(half) = half else {
                        let len_bytes = (to - from) as u64;
                        return Err(Error { inum, offset_bytes, len_bytes, cause: Cause::Unreadable(bad) });
                    };
                    to = from + half;
                }
            }
        }
        Ok(())
    }

    /// Fills `out` from byte `skip` of the key's live part on, from any copy. Returns the copies that could not be used; as
    /// an error if that were all.
    fn read_any(
        &self,
        copies: &Copies,
        skip: u64,
        out: &mut [u8],
        mut bad: Vec<BadCopy>,
    ) -> Result<Vec<BadCopy>, Vec<BadCopy>> {
        let order = self.in_order(copies);
        for replica in &order {
            let ptr = &replica.ptr;
            if bad.iter().any(|tried| (tried.dev, tried.sector) == (ptr.dev, ptr.offset)) {
                continue;
            }
            match self.read_copy(replica, copies, skip, out) {
                Ok(()) => return Ok(bad),
                Err(problem) => bad.push(self.bad_copy(ptr, problem)),
            }
        }
        for replica in order.iter().filter(|replica| replica.stripe.is_some()) {
            match self.rebuild_copy(replica, copies, skip, out) {
                Ok(()) => return Ok(bad),
                Err(problem) => bad.push(self.bad_copy(&replica.ptr, problem)),
            }
        }
        Err(bad)
    }

    fn read_copy(
        &self,
        replica: &Replica,
        copies: &Copies,
        skip: u64,
        out: &mut [u8],
    ) -> Result<(), CopyProblem> {
        let dev = replica.ptr.dev;
        let device = self.device_of(&replica.ptr)?;
        decode::check(replica)?;
        self.check_fresh(&replica.ptr)?;
        let (start, len) = device_bytes(replica, skip, out.len());
        if !replica.crc.is_encoded() {
            self.while_busy(dev, len, || device.read_at(start, out))?;
            return self.check_fresh(&replica.ptr);
        }
        if self.read_from_cache(replica, copies.version, skip, out) {
            return Ok(());
        }
        // The sizes in a crc entry have 13 bits.
        let mut payload = self.pool.take(len as usize);
        self.while_busy(dev, len, || device.read_at(start, &mut payload))?;
        self.check_fresh(&replica.ptr)?;
        self.unpack(replica, copies.version, payload, skip, out)
    }

    /// As [`Reader::read_copy`], out of the blocks of the stripe this copy belongs to.
    fn rebuild_copy(
        &self,
        replica: &Replica,
        copies: &Copies,
        skip: u64,
        out: &mut [u8],
    ) -> Result<(), CopyProblem> {
        let ptr = &replica.ptr;
        let Some(stripe) = &replica.stripe else { return Err(CopyProblem::DeviceMissing) };
        decode::check(replica)?;
        if replica.crc.is_encoded() {
            let payload =
                self.rebuild(ptr, stripe, ptr.offset, Sectors(replica.crc.compressed_size.into()))?;
            return self.unpack(replica, copies.version, payload, skip, out);
        }
        if ptr.is_invalid() {
            // Where the data was in its block is then no more than a guess (spec 80 §5.11), and nothing could confirm it.
            return Err(CopyProblem::DeviceRemoved);
        }
        let (mut at, _) = device_bytes(replica, skip, out.len());
        let mut rest = out;
        while !rest.is_empty() {
            let first = at / SECTOR_BYTES;
            let behind = (at + rest.len() as u64).div_ceil(SECTOR_BYTES).min(first + REBUILT_SECTORS_MAX);
            let block = self.rebuild(ptr, stripe, Sectors(first), Sectors(behind - first))?;
            let wanted = &block[(at % SECTOR_BYTES) as usize..];
            let (part, after) = rest.split_at_mut(wanted.len().min(rest.len()));
            part.copy_from_slice(&wanted[..part.len()]);
            at += part.len() as u64;
            rest = after;
        }
        Ok(())
    }
}

/// How many of `len` bytes at this offset of a file are about half of them, in whole sectors; `None` if they all lie in one
/// sector.
fn half_way(offset_bytes: u64, len: usize) -> Option<usize> {
    let to_boundary = (SECTOR_BYTES - offset_bytes % SECTOR_BYTES) as usize;
    if len <= to_boundary {
        return None;
    }
    let sectors = (len - to_boundary) / 2 / SECTOR_BYTES as usize;
    Some(to_boundary + sectors * SECTOR_BYTES as usize)
}

/// Tells about bad copies of data that could be read all the same. That a device is missing is told elsewhere, once.
fn log_repaired(inum: Inum, offset_bytes: u64, bad: &[BadCopy]) {
    for copy in bad {
        if matches!(copy.problem, CopyProblem::Io(_) | CopyProblem::Corrupt(_) | CopyProblem::Parity(_)) {
            tracing::warn!("inode {inum}, offset {offset_bytes}: a copy is bad, another was used: {copy}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_end_at_sectors_and_get_smaller() {
        assert_eq!(half_way(0, 512), None);
        assert_eq!(half_way(100, 412), None);
        assert_eq!(half_way(0, 513), Some(512));
        assert_eq!(half_way(100, 413), Some(412));
        assert_eq!(half_way(0, 4096), Some(512 + 3 * 512));
        for offset in [0, 1, 511] {
            let mut len = 1 << 20;
            let mut steps = 0;
            while let Some(half) = half_way(offset, len) {
                assert!(half < len && (offset + half as u64).is_multiple_of(512));
                (len, steps) = (half, steps + 1);
            }
            assert!(steps <= 12);
        }
    }
}
