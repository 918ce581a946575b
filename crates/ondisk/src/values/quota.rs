//! Quota limits (spec 40 §14.2).

use super::problem::{Check, ensure};
use crate::bkey::Bkey;
use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::fsck_errors::FsckErrorId as E;

/// Limits of one resource; 0 means none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limit {
    /// May never be exceeded.
    pub hard: u64,
    /// May be exceeded for a while.
    pub soft: u64,
}

/// Limits of a user, group or project: key (type, id).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// Space, in sectors.
    pub space: Limit,
    /// Number of inodes.
    pub inodes: Limit,
}

/// Types of quota: 0 user, 1 group, 2 project.
pub const TYPES: u64 = 3;

impl Quota {
    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Quota> {
        let mut r = Reader::new("quota", value);
        let mut limit = || Ok(Limit { hard: r.u64()?, soft: r.u64()? });
        Ok(Quota { space: limit()?, inodes: limit()? })
    }

    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for limit in [self.space, self.inodes] {
            out.put_u64(limit.hard);
            out.put_u64(limit.soft);
        }
    }

    /// Checks the position.
    pub fn validate(&self, k: &Bkey) -> Check {
        ensure(k.pos.inode < TYPES, E::QUOTA_TYPE_INVALID, || format!("type {}", k.pos.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpos::Bpos;
    use crate::key_type::KeyType;

    #[test]
    fn limits_round_trip_and_the_type_is_checked() {
        let q = Quota { space: Limit { hard: 4, soft: 3 }, inodes: Limit { hard: 2, soft: 1 } };
        let mut out = Vec::new();
        q.encode(&mut out);
        assert_eq!(out.len(), 32);
        assert_eq!(Quota::decode(&out), Ok(q));
        assert!(Quota::decode(&out[..24]).is_err());
        let key = |ty| Bkey::new(KeyType::QUOTA, Bpos::new(ty, 1000, 0), 0);
        assert_eq!(q.validate(&key(2)), Ok(()));
        assert_eq!(q.validate(&key(3)).map_err(|p| p.id), Err(E::QUOTA_TYPE_INVALID));
    }
}
