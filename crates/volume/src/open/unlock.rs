//! The key of an encrypted volume.

use std::io;

use frazil_ondisk::crypto::{Crypt, Key};
use frazil_ondisk::superblock::Superblock;
use zeroize::Zeroizing;

use crate::error::OpenError;

/// Where a passphrase comes from. It is asked for only when it is needed.
pub enum Passphrase<'p> {
    /// There is none: an encrypted volume is refused.
    None,
    /// Calls back with a name for the volume (its label, or its UUID) to show to a person. The bytes are used as they
    /// are: whoever reads them from a line strips the newline.
    Ask(&'p mut dyn FnMut(&str) -> io::Result<Zeroizing<Vec<u8>>>),
}

/// The master key, or `None` for a volume without encryption (spec 10 §15).
pub(crate) fn unlock(superblock: &Superblock, passphrase: Passphrase<'_>) -> Result<Option<Key>, OpenError> {
    if superblock.flags.encryption_type() == 0 {
        return Ok(None);
    }
    let name = match superblock.label() {
        label if label.is_empty() => superblock.user_uuid.to_string(),
        label => label,
    };
    let refuse = |source| OpenError::Unlock { name: name.clone(), source };
    let crypt = match superblock.sections.get::<Crypt>() {
        Ok(Some(crypt)) => crypt,
        Ok(None) => return Err(OpenError::NoCryptSection),
        Err(source) => return Err(refuse(source.into())),
    };
    let passphrase = match passphrase {
        Passphrase::Ask(ask) if crypt.is_locked() => {
            Some(ask(&name).map_err(|source| OpenError::Passphrase { name: name.clone(), source })?)
        }
        _ => None,
    };
    let key = crypt.unlock(passphrase.as_ref().map(|p| p.as_slice()), &superblock.uuid).map_err(refuse)?;
    Ok(Some(key))
}
