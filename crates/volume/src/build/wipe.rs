//! Making a device forget what it was.
//!
//! Before anything is written, all old superblocks go: those of an earlier bcachefs wherever its layout had them, and the places where
//! other systems keep theirs, which are the first megabytes and the last one. From here on until the new superblocks are written the device
//! is nothing, so that a crash leaves nothing that looks like a volume and is not.

use std::ops::Range;

use frazil_device::Device;
use frazil_ondisk::bytes::Reader;
use frazil_ondisk::superblock::layout::{LAYOUT_BYTES, LAYOUT_SECTOR, Layout, SUPERBLOCK_SECTOR};
use frazil_ondisk::superblock::{Superblock, sections::JournalV2};
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};

use super::error::Result;

/// The beginning of a superblock, without which the rest means nothing.
const HEAD: Sectors = Sectors(8);

/// Forgets what was there. With `again` the journal's place is zeroed too: a volume made twice with the same UUID would take
/// entries of its earlier life for its own.
pub(super) fn wipe(device: &dyn Device, new: &Superblock, journal: &JournalV2, again: bool) -> Result<()> {
    // First the superblocks alone, wherever they are: until that is stable, what is there may still be a volume, and whole.
    for range in old_copies(device)?.chain(std::iter::once(0..SUPERBLOCK_SECTOR.0 + HEAD.0)) {
        zero(device, range)?;
    }
    device.flush()?;
    new.layout.reserved().try_for_each(|range| zero(device, range))?;
    // The last copy begins at a bucket; some systems keep something behind it.
    let last = new.layout.copies().last().unwrap_or_default();
    zero(device, last.0..device.size_sectors())?;
    if again {
        let bucket = new.own_member()?.bucket_size().0;
        let ring = journal.0.iter().map(|r| r.start.0 * bucket..(r.start.0 + r.nr) * bucket);
        ring.into_iter().try_for_each(|range| zero(device, range))?;
    }
    Ok(())
}

/// Zeroes sectors, as far as the device has them.
fn zero(device: &dyn Device, sectors: Range<u64>) -> Result<()> {
    let end = sectors.end.min(device.size_sectors());
    if sectors.start < end {
        device.zero(sectors.start * SECTOR_BYTES, (end - sectors.start) * SECTOR_BYTES)?;
    }
    Ok(())
}

/// Where an earlier bcachefs has its superblocks, in sectors; empty if there is none.
fn old_copies(device: &dyn Device) -> Result<impl Iterator<Item = Range<u64>>> {
    let mut bytes = [0; LAYOUT_BYTES];
    device.read_at(LAYOUT_SECTOR.0 * SECTOR_BYTES, &mut bytes)?;
    let layout = Layout::decode(&mut Reader::new("superblock layout", &bytes))?;
    let valid = layout.validate().is_ok();
    let starts: Vec<u64> = layout.copies().map(|s| s.0).filter(|_| valid).collect();
    Ok(starts.into_iter().map(move |s| s..s.saturating_add(HEAD.0)))
}
