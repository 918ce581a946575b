//! The superblock's *crypt* section: the master key, in clear or wrapped with a passphrase (spec 10 §15.1, §15.2).
//!
//! The 40 bytes `bch**key` + master key are stored as they are, or XORed with the key stream of the *passphrase key*, which
//! scrypt derives from the passphrase at a cost stored next to it. The first eight bytes tell whether unwrapping
//! worked. Changing the passphrase only wraps the same master key again.

use std::fmt;

use zeroize::Zeroize;

use super::{Key, Nonce};
use crate::bytes::{PutLe, Reader, bits, with_bits};
use crate::error::{DecodeError, Result};

/// In front of the master key, to recognise it by.
const KEY_MAGIC: [u8; 8] = *b"bch**key";
/// The same for every filesystem: the internal UUID enters through the nonce.
const SALT: [u8; 7] = *b"bcache\0";
const WRAPPED_BYTES: usize = 40;
const WHAT: &str = "superblock section crypt";

/// Why a filesystem stays locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// The master key is wrapped and no passphrase was given.
    #[error("the filesystem is encrypted: a passphrase is needed")]
    PassphraseNeeded,
    /// The passphrase does not open the master key.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The section asks for something this program does not do.
    #[error(transparent)]
    Section(#[from] DecodeError),
}

/// How expensive it is to try a passphrase: the parameters of scrypt, as logarithms to base 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScryptCost {
    /// Of N, the number of blocks.
    pub log_n: u16,
    /// Of r, the size of a block in 128 bytes.
    pub log_r: u16,
    /// Of p, the number of passes.
    pub log_p: u16,
}

impl ScryptCost {
    /// What the reference's formatter uses: 16 MiB, 16 passes.
    pub const DEFAULT: ScryptCost = ScryptCost { log_n: 14, log_r: 3, log_p: 4 };

    /// At most 256 MiB of memory and 8 times the default's work, which take seconds; more is a damaged or hostile superblock, as is
    /// N = 1. Formatters have only ever used the default.
    fn params(self) -> Result<scrypt::Params> {
        let memory = u32::from(self.log_n) + u32::from(self.log_r);
        let work = memory + u32::from(self.log_p);
        let refused = || {
            let ScryptCost { log_n, log_r, log_p } = self;
            DecodeError::unsupported(WHAT, format!("scrypt with N, r, p = 2^{log_n}, 2^{log_r}, 2^{log_p}"))
        };
        if self.log_n == 0 || memory > 21 || work > 24 {
            return Err(refused());
        }
        scrypt::Params::new(self.log_n as u8, 1 << self.log_r, 1 << self.log_p).map_err(|_| refused())
    }
}

/// The crypt section.
#[derive(Clone, PartialEq, Eq)]
pub struct Crypt {
    /// Bits 0–3: how the passphrase becomes a key, 0 (scrypt) is the only way; others 0.
    pub flags: u64,
    /// The cost of scrypt; 0 while there is no passphrase.
    pub kdf_flags: u64,
    key: [u8; WRAPPED_BYTES],
}

impl fmt::Debug for Crypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crypt({}, {:?})", if self.is_locked() { "wrapped" } else { "clear" }, self.cost())
    }
}

impl Crypt {
    /// Bytes of the section behind its header.
    pub const BYTES: usize = 56;

    /// Decodes the section from the bytes behind its header.
    pub fn decode(payload: &[u8]) -> Result<Crypt> {
        let mut r = Reader::new(WHAT, payload);
        let crypt = Crypt { flags: r.u64()?, kdf_flags: r.u64()?, key: r.array()? };
        match bits(crypt.flags, 0, 4) {
            0 => Ok(crypt),
            other => Err(r.invalid(format!("unknown key derivation {other}"))),
        }
    }

    /// Appends the 56 bytes behind the section's header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.flags);
        out.put_u64(self.kdf_flags);
        out.extend_from_slice(&self.key);
    }

    /// A section with the master key in clear: encrypted, but everyone can read it.
    pub fn clear(master: &Key) -> Crypt {
        let mut key = [0; WRAPPED_BYTES];
        key[..8].copy_from_slice(&KEY_MAGIC);
        key[8..].copy_from_slice(&master.0);
        Crypt { flags: 0, kdf_flags: 0, key }
    }

    /// A section with the master key wrapped for `passphrase`; `uuid` is the internal UUID.
    ///
    /// # Errors
    /// If the cost is beyond what this program would unlock.
    pub fn wrapped(master: &Key, passphrase: &[u8], cost: ScryptCost, uuid: &uuid::Uuid) -> Result<Crypt> {
        let kdf_flags = with_bits(0, 0, 16, cost.log_n.into());
        let kdf_flags = with_bits(kdf_flags, 16, 32, cost.log_r.into());
        let kdf_flags = with_bits(kdf_flags, 32, 48, cost.log_p.into());
        let mut crypt = Crypt { kdf_flags, ..Crypt::clear(master) };
        crypt.passphrase_key(passphrase)?.apply(Nonce::superblock_key(uuid), &mut crypt.key);
        Ok(crypt)
    }

    /// The stored cost.
    pub fn cost(&self) -> ScryptCost {
        let log = |lo| bits(self.kdf_flags, lo, lo + 16) as u16;
        ScryptCost { log_n: log(0), log_r: log(16), log_p: log(32) }
    }

    /// The master key is wrapped: a passphrase is needed.
    pub fn is_locked(&self) -> bool {
        self.key[..8] != KEY_MAGIC
    }

    /// The key `passphrase` stands for; one newline at its end is not part of it. This is what the Linux driver expects in
    /// the keyring, and it takes as long as the cost says.
    ///
    /// # Errors
    /// If the stored cost is absurd.
    pub fn passphrase_key(&self, passphrase: &[u8]) -> Result<Key> {
        let passphrase = passphrase.strip_suffix(b"\n").unwrap_or(passphrase);
        let mut key = Key([0; 32]);
        scrypt::scrypt(passphrase, &SALT, &self.cost().params()?, &mut key.0)
            .expect("32 bytes are a valid length");
        Ok(key)
    }

    /// The master key.
    ///
    /// # Errors
    /// If a passphrase is needed and there is none, or it is the wrong one, or the stored cost is absurd.
    pub fn unlock(
        &self,
        passphrase: Option<&[u8]>,
        uuid: &uuid::Uuid,
    ) -> std::result::Result<Key, UnlockError> {
        if !self.is_locked() {
            return Ok(master_of(&self.key));
        }
        let passphrase = passphrase.ok_or(UnlockError::PassphraseNeeded)?;
        self.unlock_with_key(&self.passphrase_key(passphrase)?, uuid)
    }

    /// The master key, given the [passphrase key](Self::passphrase_key).
    ///
    /// # Errors
    /// [`UnlockError::WrongPassphrase`].
    pub fn unlock_with_key(
        &self,
        passphrase_key: &Key,
        uuid: &uuid::Uuid,
    ) -> std::result::Result<Key, UnlockError> {
        let mut key = self.key;
        passphrase_key.apply(Nonce::superblock_key(uuid), &mut key);
        let master = (key[..8] == KEY_MAGIC).then(|| master_of(&key)).ok_or(UnlockError::WrongPassphrase);
        key.zeroize();
        master
    }
}

fn master_of(unwrapped: &[u8; WRAPPED_BYTES]) -> Key {
    let mut master = Key([0; 32]);
    master.0.copy_from_slice(&unwrapped[8..]);
    master
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: uuid::Uuid = uuid::Uuid::from_u128(0x5338ba7ad3554b8ca3d486afd381faf8);
    /// The 40 bytes of spec 10 §15.5, from a real image whose passphrase is `correct horse`.
    const WRAPPED: [u8; WRAPPED_BYTES] = [
        0xe6, 0x52, 0x8e, 0x97, 0xdd, 0xce, 0xcf, 0x43, 0x5b, 0x5a, 0x38, 0x14, 0xcc, 0xf7, 0x87, 0x67, 0x47,
        0xb1, 0xea, 0x8f, 0x5d, 0xa3, 0xf3, 0x52, 0xa6, 0xc0, 0x95, 0x1d, 0x37, 0x9a, 0x6b, 0xaf, 0xb7, 0x4d,
        0x32, 0x98, 0xcd, 0xcb, 0x4a, 0xb2,
    ];
    const MASTER: [u128; 2] = [0xecf654be777af5beb7144fde9701a034, 0xe236f541a7be4e27c2c2cefb0107fac4];

    fn real_section() -> Crypt {
        let mut payload = Vec::new();
        payload.put_u64(0);
        payload.put_u64(0x0000_0004_0003_000e);
        payload.extend_from_slice(&WRAPPED);
        Crypt::decode(&payload).unwrap()
    }

    fn key_of(words: [u128; 2]) -> Key {
        let mut key = Key([0; 32]);
        key.0[..16].copy_from_slice(&words[0].to_be_bytes());
        key.0[16..].copy_from_slice(&words[1].to_be_bytes());
        key
    }

    #[test]
    fn the_real_section_opens_with_its_passphrase_only() {
        let crypt = real_section();
        assert!(crypt.is_locked());
        assert_eq!(crypt.cost(), ScryptCost::DEFAULT);
        let passphrase_key = crypt.passphrase_key(b"correct horse\n").unwrap();
        let want = key_of([0xd3f4890002d955a0435c02a332696fa9, 0xc02ae662ce8dae4639ae1c73bbd0e5b7]);
        assert!(passphrase_key == want);
        assert!(crypt.unlock_with_key(&passphrase_key, &UUID).unwrap() == key_of(MASTER));
        assert_eq!(crypt.unlock(None, &UUID), Err(UnlockError::PassphraseNeeded));
        assert_eq!(crypt.unlock(Some(b"wrong horse"), &UUID), Err(UnlockError::WrongPassphrase));
    }

    #[test]
    fn wrapping_the_real_key_again_gives_the_same_bytes() {
        let crypt = Crypt::wrapped(&key_of(MASTER), b"correct horse", ScryptCost::DEFAULT, &UUID).unwrap();
        assert!(crypt == real_section());
        let mut payload = Vec::new();
        crypt.encode(&mut payload);
        assert_eq!(payload.len(), Crypt::BYTES);
        assert!(Crypt::decode(&payload).unwrap() == crypt);
    }

    #[test]
    fn a_key_in_clear_needs_no_passphrase() {
        let crypt = Crypt::clear(&key_of(MASTER));
        assert!(!crypt.is_locked());
        assert!(crypt.unlock(None, &UUID).unwrap() == key_of(MASTER));
        assert!(!format!("{crypt:?} {:?}", key_of(MASTER)).contains("236"), "keys are never printed");
    }

    #[test]
    fn absurd_costs_and_unknown_derivations_are_refused() {
        for kdf_flags in [0, 60, 14 | 20 << 16, 19 | 3 << 16, 14 | 3 << 16 | 8 << 32, u64::MAX] {
            let crypt = Crypt { kdf_flags, ..real_section() };
            let result = crypt.unlock(Some(b"correct horse"), &UUID);
            assert!(
                matches!(result, Err(UnlockError::Section(DecodeError::Unsupported { .. }))),
                "{kdf_flags:#x}"
            );
        }
        let mut payload = vec![1];
        payload.resize(Crypt::BYTES, 0);
        assert!(Crypt::decode(&payload).is_err());
        assert!(Crypt::decode(&payload[..40]).is_err());
    }
}
