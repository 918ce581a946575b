//! Numbers nobody can guess, or that everybody gets alike.
//!
//! A volume is full of random numbers: UUIDs, the number of each b-tree node, the seed of each directory's hashes. Normally they come
//! from the system. When an image is to be reproducible they must be the same each time, so they are the key stream of a
//! cipher whose key is the volume's UUID.
//!
//! The master key of an encrypted volume never comes from here ([`secret`]), and node numbers take part in its nonces, so
//! an encrypted volume is never reproducible.

use frazil_ondisk::crypto::{Key, Nonce};
use frazil_ondisk::units::Seq;
use uuid::Uuid;

use super::error::{BuildError, Result};

/// Bytes made at a time.
const BATCH_BYTES: usize = 1024;
/// Fills the half of the key that the UUID does not.
const PURPOSE: [u8; 16] = *b"frazil's format\0";

/// A stream of numbers.
pub(super) struct Random {
    key: Key,
    batch: [u8; BATCH_BYTES],
    used: usize,
    batches: u64,
}

impl Random {
    /// Always the same numbers for the same UUID.
    pub(super) fn seeded(uuid: Uuid) -> Random {
        let mut key = [0; 32];
        key[..16].copy_from_slice(uuid.as_bytes());
        key[16..].copy_from_slice(&PURPOSE);
        Random::of(Key::new(key))
    }

    /// Never the same numbers.
    pub(super) fn of_system() -> Result<Random> {
        Ok(Random::of(secret()?))
    }

    fn of(key: Key) -> Random {
        Random { key, batch: [0; BATCH_BYTES], used: BATCH_BYTES, batches: 0 }
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        if self.used == BATCH_BYTES {
            self.batch = [0; BATCH_BYTES];
            self.key.apply(Nonce::jset(Seq(self.batches)), &mut self.batch);
            self.batches += 1;
            self.used = 0;
        }
        let number = *self.batch[self.used..].first_chunk().expect("the batch is whole numbers long");
        self.used += number.len();
        u64::from_le_bytes(number)
    }

    /// The next number that is not 0.
    pub(super) fn nonzero(&mut self) -> u64 {
        loop {
            if let n @ 1.. = self.next() {
                return n;
            }
        }
    }

    /// A random UUID.
    pub(super) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// A key from the system's source of secrets.
pub(super) fn secret() -> Result<Key> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|why| BuildError::Random(why.to_string()))?;
    Ok(Key::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers() {
        let numbers = |mut r: Random| (0..1000).map(|_| r.nonzero()).collect::<Vec<_>>();
        let seeded = |n| numbers(Random::seeded(Uuid::from_u128(n)));
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
        assert_ne!(numbers(Random::of_system().unwrap()), numbers(Random::of_system().unwrap()));
        let mut sorted = seeded(1);
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 1000, "no number twice");
        let uuid = Random::seeded(Uuid::nil()).uuid();
        assert_eq!(uuid.get_version_num(), 4);
    }
}
