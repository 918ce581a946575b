//! Superblocks of devices: found, validated, compared.

use std::sync::Arc;

use frazil_device::Device;
use frazil_ondisk::DecodeError;
use frazil_ondisk::bytes::Reader;
use frazil_ondisk::superblock::assembly::{self, Verdict};
use frazil_ondisk::superblock::copies;
use frazil_ondisk::superblock::layout::{LAYOUT_SECTOR, Layout};
use frazil_ondisk::superblock::members::Members;
use frazil_ondisk::superblock::{Superblock, superblock_bytes};
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};

use crate::error::{Notice, OpenError, SuperblockError};

/// Read before it is known how large a superblock is: the usual block size, which holds every fixed part.
const FIRST_READ_BYTES: usize = 4096;

/// A device given, and its superblock.
pub(crate) struct Candidate {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) superblock: Superblock,
}

impl Candidate {
    pub(super) fn read(device: Arc<dyn Device>) -> Result<Candidate, OpenError> {
        let mut superblock = read_superblock(&*device)?;
        superblock.fill_defaults();
        let name = device.name();
        superblock.validate().map_err(|source| OpenError::Refused { device: name.clone(), source })?;
        let block_bytes = superblock.block_bytes();
        if u64::from(device.logical_block_bytes()) > block_bytes {
            let device_block_bytes = device.logical_block_bytes();
            return Err(OpenError::BlockSize { device: name.clone(), block_bytes, device_block_bytes });
        }
        Ok(Candidate { device, superblock })
    }

    /// A member's buckets must lie on its device (spec 60 §2.4).
    pub(super) fn check_capacity(&self, members: &Members) -> Result<(), OpenError> {
        let needed = members.get(self.superblock.dev_idx).map_or(Sectors(0), |member| member.size());
        match self.device.size_sectors() {
            sectors if sectors < needed.0 => Err(OpenError::TooSmall {
                device: self.device.name().clone(),
                needed,
                found: Sectors(sectors),
            }),
            _ => Ok(()),
        }
    }
}

/// Finds and decodes the superblock copy of one device that counts (spec 10 §11.1). It is not validated.
///
/// # Errors
/// What was found at every place looked at.
pub fn read_superblock(device: &dyn Device) -> Result<Superblock, OpenError> {
    copies::find(|sector| read_copy(device, sector), || read_layout(device))
        .map_err(|source| OpenError::NoSuperblock { device: device.name().clone(), source: Box::new(source) })
}

/// Reads and decodes the copy at a sector. It is not validated.
pub(crate) fn read_copy(device: &dyn Device, sector: Sectors) -> Result<Superblock, SuperblockError> {
    let start = sector
        .to_bytes()
        .ok_or_else(|| DecodeError::invalid("superblock", "its sector is beyond any device"))?;
    let rest = device.size_bytes().saturating_sub(start);
    let mut bytes = vec![0; FIRST_READ_BYTES.min(usize::try_from(rest).unwrap_or(FIRST_READ_BYTES))];
    device.read_at(start, &mut bytes)?;
    let needed = superblock_bytes(&bytes)?;
    if needed > bytes.len() {
        // `superblock_bytes` bounds what a copy may claim, so this allocation is bounded too.
        bytes.resize(needed, 0);
        device.read_at(start, &mut bytes)?;
    }
    Ok(Superblock::decode(&bytes)?)
}

fn read_layout(device: &dyn Device) -> Result<Layout, SuperblockError> {
    let mut bytes = [0; SECTOR_BYTES as usize];
    device.read_at(LAYOUT_SECTOR.0 * SECTOR_BYTES, &mut bytes)?;
    Ok(Layout::decode(&mut Reader::new("layout", &bytes))?)
}

/// Which superblock counts, and which devices belong to it: one at least. Devices left out are noticed.
pub(super) fn belonging(
    candidates: Vec<Candidate>,
    ignore_split_brain: bool,
    notices: &mut Vec<Notice>,
) -> Result<(Superblock, Vec<Candidate>), OpenError> {
    let assembly = assembly::assemble(candidates.iter().map(|c| &c.superblock), ignore_split_brain)
        .ok_or(OpenError::NoDevices)?;
    let newest = candidates[assembly.newest].superblock.clone();
    let newest_name = candidates[assembly.newest].device.name().clone();
    let mut online = Vec::new();
    let mut first_left_out = None;
    for (candidate, verdict) in candidates.into_iter().zip(assembly.verdicts) {
        let device = candidate.device.name().clone();
        match verdict {
            Verdict::Stranger(why) => return Err(OpenError::Stranger { device, newest: newest_name, why }),
            Verdict::LeftOut(why) => {
                first_left_out.get_or_insert_with(|| (device.clone(), why.clone()));
                notices.push(Notice::LeftOut { device, why });
            }
            Verdict::Member { stale } => {
                if stale {
                    notices.push(Notice::Stale { device });
                }
                online.push(candidate);
            }
        }
    }
    match first_left_out {
        Some((device, why)) if online.is_empty() => Err(OpenError::LeftOut { device, why }),
        _ => Ok((newest, online)),
    }
}
