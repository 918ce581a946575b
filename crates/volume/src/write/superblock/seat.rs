//! One device's place in the store: its own superblock, and what is known about its copies.

use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::units::{DevIndex, SECTOR_BYTES, SbSeq, Sectors};
use uuid::Uuid;

use super::SuperblockWriteError;
use crate::error::SuperblockError;
use crate::open::read_copy;

/// What is known about the first copy on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Primary {
    /// It was written, or read, with this number.
    Holds(SbSeq),
    /// It was damaged when the volume was opened; a backup counted. The next write repairs it.
    Damaged,
    /// A write of it failed half-way: it may be either, or nothing.
    Unsure {
        /// What was there.
        from: Option<SbSeq>,
        /// What should be.
        to: SbSeq,
    },
}

/// A device and its copies.
pub(super) struct Seat {
    device: Arc<dyn Device>,
    /// What is its own: index, layout, ring. Shared fields are those of its last write.
    pub(super) own: Superblock,
    primary: Primary,
}

impl Seat {
    pub(super) fn new(device: Arc<dyn Device>, own: Superblock) -> Seat {
        let first = own.layout.copies().next().unwrap_or_default();
        let primary = match read_copy(&*device, first) {
            Ok(_) => Primary::Holds(own.seq),
            Err(_) => Primary::Damaged,
        };
        Seat { device, own, primary }
    }

    pub(super) fn dev(&self) -> DevIndex {
        self.own.dev_idx
    }

    /// Whether the first copy is known to be this write.
    pub(super) fn holds(&self, seq: SbSeq) -> bool {
        self.primary == Primary::Holds(seq)
    }

    /// Compares the first copy with what was written last (spec 10 §12 step 6). Returns the error of a device that cannot be read.
    pub(super) fn check_primary(
        &mut self,
        uuid: &Uuid,
    ) -> Result<Option<frazil_device::Error>, SuperblockWriteError> {
        let device = self.device.name().clone();
        let first = self.own.layout.copies().next().unwrap_or_default();
        let found = match read_copy(&*self.device, first) {
            Ok(found) if found.uuid == *uuid => found.seq,
            Ok(found) => {
                let (found, written) = (found.seq, self.own.seq);
                return Err(SuperblockWriteError::Foreign { device, found, written });
            }
            Err(SuperblockError::Device(error)) => return Ok(Some(error)),
            Err(SuperblockError::Decode(why)) => {
                return match self.primary {
                    Primary::Holds(_) => Err(SuperblockWriteError::Overwritten { device, why }),
                    Primary::Damaged | Primary::Unsure { .. } => Ok(None),
                };
            }
        };
        let (from, to) = match self.primary {
            Primary::Holds(seq) => (seq, seq),
            Primary::Unsure { from, to } => (from.unwrap_or(to), to),
            Primary::Damaged => {
                let written = self.own.seq;
                return Err(SuperblockWriteError::Foreign { device, found, written });
            }
        };
        match found {
            _ if found < from => Err(SuperblockWriteError::WriteLost { device, found, written: from }),
            _ if found > to => Err(SuperblockWriteError::Foreign { device, found, written: to }),
            _ => Ok(None),
        }
    }

    /// Writes a copy and returns when it is stable. The first one decides whether the device has taken the write.
    pub(super) fn write_copy(
        &mut self,
        nr: usize,
        own: &Superblock,
        bytes: &[u8],
    ) -> frazil_device::Result<()> {
        let sector = own.layout.copies().nth(nr).unwrap_or_default();
        let result = self.device.write_fua_at(offset(sector), &self.whole_blocks(bytes));
        if nr == 0 {
            let from = match self.primary {
                Primary::Holds(seq) => Some(seq),
                Primary::Unsure { from, .. } => from,
                Primary::Damaged => None,
            };
            self.primary = match result {
                Ok(()) => Primary::Holds(own.seq),
                Err(_) => Primary::Unsure { from, to: own.seq },
            };
            self.own = own.clone();
        }
        result
    }

    /// The bytes, padded with zeros to what the device writes at once.
    fn whole_blocks(&self, bytes: &[u8]) -> Vec<u8> {
        let block = self.device.logical_block_bytes().max(SECTOR_BYTES as u32) as usize;
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(block), 0);
        padded
    }
}

/// A validated layout lies within its device's size in bytes.
fn offset(sector: Sectors) -> u64 {
    sector.0.saturating_mul(SECTOR_BYTES)
}
