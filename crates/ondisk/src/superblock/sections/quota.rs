//! Grace periods of quotas (spec 10 §9.5). The quotas themselves are keys in the `quotas` b-tree.

use crate::bytes::{PutLe, Reader};
use crate::error::Result;
use crate::superblock::sections::{SectionBody, SectionType};

/// What may be exceeded, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaCounter {
    /// Seconds a soft limit may be exceeded.
    pub timelimit_s: u32,
    /// Number of warnings allowed.
    pub warnlimit: u32,
}

/// The settings for one kind of owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaType {
    /// Always 0.
    pub flags: u64,
    /// For space.
    pub space: QuotaCounter,
    /// For the number of inodes.
    pub inodes: QuotaCounter,
}

/// The section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// For users, groups and projects, in this order.
    pub types: [QuotaType; 3],
}

impl Quota {
    /// Names of the kinds of owners, in order.
    pub const TYPE_NAMES: [&str; 3] = ["user", "group", "project"];
    /// One week, the grace period of a new filesystem.
    pub const TIMELIMIT_DEFAULT_S: u32 = 604_800;
}

impl Default for Quota {
    fn default() -> Self {
        let counter = QuotaCounter { timelimit_s: Self::TIMELIMIT_DEFAULT_S, warnlimit: 0 };
        Quota { types: [QuotaType { flags: 0, space: counter, inodes: counter }; 3] }
    }
}

impl SectionBody for Quota {
    const TYPE: SectionType = SectionType::QUOTA;

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new("superblock section quota", payload);
        let mut types = [QuotaType::default(); 3];
        for ty in &mut types {
            ty.flags = r.u64()?;
            for counter in [&mut ty.space, &mut ty.inodes] {
                *counter = QuotaCounter { timelimit_s: r.u32()?, warnlimit: r.u32()? };
            }
        }
        Ok(Quota { types })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for ty in &self.types {
            out.put_u64(ty.flags);
            for counter in [ty.space, ty.inodes] {
                out.put_u32(counter.timelimit_s);
                out.put_u32(counter.warnlimit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_a_week_each() {
        let mut bytes = Vec::new();
        Quota::default().encode(&mut bytes);
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[8..12], 604_800u32.to_le_bytes());
        assert_eq!(Quota::decode(&bytes).unwrap(), Quota::default());
        assert!(Quota::decode(&bytes[..64]).is_err());
    }
}
