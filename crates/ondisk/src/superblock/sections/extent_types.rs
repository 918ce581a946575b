//! How long each type of extent entry is (spec 80 §5.14).
//!
//! Newer programs write this so that older ones can step over entry types they do not know.

use crate::error::Result;
use crate::superblock::sections::{SectionBody, SectionType};

/// The section: words of an entry, by its type; 0 where there is no such type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtentTypeU64s(pub Vec<u8>);

impl ExtentTypeU64s {
    /// Words of an entry of this type; `None` if the section does not say.
    pub fn u64s(&self, entry_type: u32) -> Option<u8> {
        self.0.get(usize::try_from(entry_type).ok()?).copied().filter(|&n| n != 0)
    }
}

impl SectionBody for ExtentTypeU64s {
    const TYPE: SectionType = SectionType::EXTENT_TYPE_U64S;

    fn decode(payload: &[u8]) -> Result<Self> {
        Ok(ExtentTypeU64s(payload.to_vec()))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_at_1_39() {
        let types = ExtentTypeU64s::decode(&[1, 1, 2, 3, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(types.u64s(3), Some(3));
        assert_eq!(types.u64s(9), None);
        assert_eq!(types.u64s(99), None);
    }
}
