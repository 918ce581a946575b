//! The key of an encrypted volume, as the driver wants it: in the user's keyring, a key of type `user` named
//! `bcachefs:` and the external UUID, holding the 32 bytes that the passphrase becomes (spec 10 §15.2). The host derives it, which
//! takes an emulated machine seconds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use frazil_ondisk::crypto::Crypt;
use frazil_ondisk::superblock::layout::SUPERBLOCK_SECTOR;
use frazil_ondisk::superblock::{FIXED_BYTES, Superblock, superblock_bytes};

use crate::error::OracleError;
use crate::wire::KeyringKey;

/// Bytes of a sector.
const SECTOR_BYTES: u64 = 512;

/// The key that opens the volume `device` belongs to; `None` if it has no encryption.
///
/// # Errors
/// If the primary superblock cannot be read.
pub fn keyring_key(device: &Path, passphrase: &[u8]) -> Result<Option<KeyringKey>, OracleError> {
    let superblock = primary_superblock(device)?;
    let broken = |source| OracleError::Superblock { path: device.to_path_buf(), source };
    let Some(crypt) = superblock.sections.get::<Crypt>().map_err(broken)? else { return Ok(None) };
    let key = crypt.passphrase_key(passphrase).map_err(broken)?;
    Ok(Some(KeyringKey {
        description: format!("bcachefs:{}", superblock.user_uuid.as_hyphenated()),
        payload: key.bytes().to_vec(),
    }))
}

fn primary_superblock(device: &Path) -> Result<Superblock, OracleError> {
    let broken = |source| OracleError::Superblock { path: device.to_path_buf(), source };
    let file = File::open(device).map_err(OracleError::io(device))?;
    let start = SUPERBLOCK_SECTOR.0 * SECTOR_BYTES;
    let mut bytes = vec![0; FIXED_BYTES];
    file.read_exact_at(&mut bytes, start).map_err(OracleError::io(device))?;
    bytes.resize(superblock_bytes(&bytes).map_err(broken)?, 0);
    file.read_exact_at(&mut bytes, start).map_err(OracleError::io(device))?;
    Superblock::decode(&bytes).map_err(broken)
}
