//! The key of an encrypted volume, as the driver wants it: in the user's keyring, a key of type `user` named
//! `bcachefs:` and the external UUID, holding the 32 bytes that the passphrase becomes (spec 10 §15.2). The host derives it, which
//! takes an emulated machine seconds.

use std::path::Path;

use frazil_ondisk::crypto::Crypt;

use crate::error::OracleError;
use crate::superblock;
use crate::wire::KeyringKey;

/// The key that opens the volume `device` belongs to; `None` if it has no encryption.
///
/// # Errors
/// If the primary superblock cannot be read.
pub fn keyring_key(device: &Path, passphrase: &[u8]) -> Result<Option<KeyringKey>, OracleError> {
    let superblock = superblock::primary(device)?;
    let broken = |source| OracleError::Superblock { path: device.to_path_buf(), source };
    let Some(crypt) = superblock.sections.get::<Crypt>().map_err(broken)? else { return Ok(None) };
    let key = crypt.passphrase_key(passphrase).map_err(broken)?;
    Ok(Some(KeyringKey {
        description: format!("bcachefs:{}", superblock.user_uuid.as_hyphenated()),
        payload: key.bytes().to_vec(),
    }))
}
