//! The primary superblock of a device, read for two things: the key of an encrypted volume is derived by what stands in it, and the
//! driver counts in it every inconsistency it ever found, by stable numbers (spec 10 §9, errors section) — also those it
//! does not print.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use frazil_ondisk::superblock::layout::SUPERBLOCK_SECTOR;
use frazil_ondisk::superblock::sections::errors::Errors;
use frazil_ondisk::superblock::{FIXED_BYTES, Superblock, superblock_bytes};
use frazil_ondisk::units::SECTOR_BYTES;

use crate::error::OracleError;

/// The primary superblock.
///
/// # Errors
/// If it cannot be read or decoded.
pub fn primary(device: &Path) -> Result<Superblock, OracleError> {
    let broken = |source| OracleError::Superblock { path: device.to_path_buf(), source };
    let file = File::open(device).map_err(OracleError::io(device))?;
    let start = SUPERBLOCK_SECTOR.0 * SECTOR_BYTES;
    let mut bytes = vec![0; FIXED_BYTES];
    file.read_exact_at(&mut bytes, start).map_err(OracleError::io(device))?;
    bytes.resize(superblock_bytes(&bytes).map_err(broken)?, 0);
    file.read_exact_at(&mut bytes, start).map_err(OracleError::io(device))?;
    Superblock::decode(&bytes).map_err(broken)
}

/// How often each inconsistency was found, by its number: the most that any of the devices says, since one may be out of
/// date. A device without a superblock says nothing.
pub fn error_counts<'d>(devices: impl IntoIterator<Item = &'d Path>) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for superblock in devices.into_iter().filter_map(|device| primary(device).ok()) {
        let Ok(Some(Errors(errors))) = superblock.sections.get::<Errors>() else { continue };
        for error in errors {
            let most = counts.entry(error.id.0).or_insert(0);
            *most = error.count.max(*most);
        }
    }
    counts
}
