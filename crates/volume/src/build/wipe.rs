//! Making a device forget what it was.
//!
//! Before anything is written, all old superblocks go: those of an earlier bcachefs wherever its layout had them, and the places where
//! other systems keep theirs, which are the first megabytes and the last one. From here on until the new superblocks are written the device
//! is nothing, so that a crash leaves nothing that looks like a volume and is not.

use frazil_device::Device;
use frazil_ondisk::bytes::Reader;
use frazil_ondisk::superblock::layout::{LAYOUT_BYTES, LAYOUT_SECTOR, Layout};
use frazil_ondisk::superblock::{Superblock, sections::JournalV2};
use frazil_ondisk::units::{SECTOR_BYTES, Sectors};

use super::error::Result;

/// Forgets old superblocks. With `again` the journal's place is zeroed too: a volume made twice with the same UUID would take
/// entries of its earlier life for its own.
pub(super) fn wipe(device: &dyn Device, new: &Superblock, journal: &JournalV2, again: bool) -> Result<()> {
    let size = device.size_bytes();
    for range in old_copies(device)?.chain(new.layout.reserved()) {
        let (start, end) =
            (range.start.saturating_mul(SECTOR_BYTES), range.end.saturating_mul(SECTOR_BYTES).min(size));
        if start < end {
            device.zero(start, end - start)?;
        }
    }
    // The last copy begins at a bucket; some systems keep something behind it.
    let last = new.layout.copies().last().unwrap_or_default().0 * SECTOR_BYTES;
    device.zero(last, size - last)?;
    if again {
        let bucket = new.own_member()?.bucket_size().0 * SECTOR_BYTES;
        for range in &journal.0 {
            device.zero(range.start.0 * bucket, range.nr * bucket)?;
        }
    }
    device.flush()?;
    Ok(())
}

/// Where an earlier bcachefs has its superblocks, in sectors; empty if there is none.
fn old_copies(device: &dyn Device) -> Result<impl Iterator<Item = std::ops::Range<u64>>> {
    let mut bytes = [0; LAYOUT_BYTES];
    device.read_at(LAYOUT_SECTOR.0 * SECTOR_BYTES, &mut bytes)?;
    let layout = Layout::decode(&mut Reader::new("superblock layout", &bytes))?;
    let valid = layout.validate().is_ok();
    // The beginning of a copy is all that can be recognised.
    let head = Sectors(8);
    let starts: Vec<u64> = layout.copies().map(|s| s.0).filter(|_| valid).collect();
    Ok(starts.into_iter().map(move |s| s..s.saturating_add(head.0)))
}
